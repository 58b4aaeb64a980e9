//! A panic on any thread ends the process, with its reason in the log.
//!
//! A gateway that has lost a shard's thread keeps that shard's sockets open and answers nobody on them; one that is gone is
//! started again. For the program only: tests rely on unwinding.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::mpsc;
use std::time::Duration;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// How long writing the reason may take: a terminal that does not read must not keep a broken process.
const PATIENCE: Duration = Duration::from_secs(2);

/// From now on a panic is written to standard error, as one JSON object if `json`, and aborts the process (SIGABRT), within
/// two seconds also where standard error takes nothing. Fails where the thread that sees to this cannot be started: at the
/// time of a panic it might be too late for one.
pub fn on_panic(json: bool) -> io::Result<()> {
    let (panicked, panics) = mpsc::sync_channel::<()>(1);
    std::thread::Builder::new().name("abort".to_owned()).spawn(move || {
        if panics.recv().is_ok() {
            std::thread::sleep(PATIENCE);
            std::process::abort();
        }
    })?;
    std::panic::set_hook(Box::new(move |info| {
        // First of all, since what follows may wait for good. A full channel says that another thread has panicked already.
        let _ = panicked.try_send(());
        // Past the thread that writes logs: nobody would wait for it. There is nowhere to tell that it failed.
        let _ = write_unlocked(line(info, json).as_bytes());
        std::process::abort();
    }));
    Ok(())
}

/// Writes to standard error without the lock of the standard library, which a thread that waits in a full pipe holds.
fn write_unlocked(mut bytes: &[u8]) -> io::Result<()> {
    let stderr = io::stderr();
    while !bytes.is_empty() {
        match rustix::io::write(stderr.as_fd(), bytes) {
            Ok(0) => break,
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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
    let mark = if io::stderr().is_terminal() { "\x1b[31mERROR\x1b[0m" } else { "ERROR" };
    format!(
        "{time} {mark} a thread panicked; the process ends thread=\"{thread}\" place=\"{place}\" reason={reason:?}{backtrace}\n"
    )
}
