//! A panic on any thread ends the process, with its reason in the log.
//!
//! A gateway that has lost a shard's thread keeps that shard's sockets open and answers nobody on them; one that is gone is
//! started again. For the program only: tests rely on unwinding.

use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::time::Duration;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// How long writing the reason may take: a terminal that does not read must not keep a broken process.
const PATIENCE: Duration = Duration::from_secs(2);

/// From now on a panic is written to standard error, as one JSON object if `json`, and aborts the process (SIGABRT).
pub fn on_panic(json: bool) {
    std::panic::set_hook(Box::new(move |info| {
        // Without this thread the line is still written, only with more patience.
        let _ = std::thread::Builder::new().name("abort".to_owned()).spawn(|| {
            std::thread::sleep(PATIENCE);
            std::process::abort();
        });
        // Past the thread that writes logs: nobody would wait for it. There is nowhere to tell that it failed.
        let _ = std::io::stderr().write_all(line(info, json).as_bytes());
        std::process::abort();
    }));
}

fn line(info: &PanicHookInfo<'_>, json: bool) -> String {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("-");
    let place = info.location().map_or_else(|| "-".to_owned(), ToString::to_string);
    let reason = info.payload_as_str().unwrap_or("-");
    let mut time = String::new();
    // It writes into a string.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    if json {
        let message = "a thread panicked; the process ends";
        let fields = serde_json::json!({
            "timestamp": time, "level": "ERROR", "message": message, "thread": thread, "place": place, "reason": reason,
        });
        return format!("{fields}\n");
    }
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    let mark = if std::io::stderr().is_terminal() { "\x1b[31mERROR\x1b[0m" } else { "ERROR" };
    format!(
        "{time} {mark} a thread panicked; the process ends thread=\"{thread}\" place=\"{place}\" reason={reason:?}{backtrace}\n"
    )
}
