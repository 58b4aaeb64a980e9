//! Faults of the gateway itself: a thread that panics, and a shard that stands still. Both are put in where a program is
//! called on a shard's thread, at the end of a busy stretch.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ringgate::config::Config;
use ringgate::server::Server;

use crate::support::{DEADLINE, http, wait_until};

/// Two shards on free ports; `at_rest` is called on the threads of both, half a second after the start.
fn start(at_rest: fn()) -> Server {
    let (mut config, _) = Config::dev(Some(2)).unwrap();
    config.runtime.pin_cores = false;
    config.runtime.connections_per_shard_max = 64;
    for address in config.listeners.iter_mut().map(|listener| &mut listener.address).chain(&mut config.admin) {
        address.set_port(0);
    }
    Server::start_with(config, at_rest).unwrap()
}

/// Set in the process that [`thread_panics_then_the_process_is_aborted_with_the_reason`] starts: how it is to log.
const FORMAT: &str = "RINGGATE_TEST_LOG_FORMAT";

#[test]
fn thread_panics_then_the_process_is_aborted_with_the_reason() {
    if let Ok(format) = std::env::var(FORMAT) {
        ringgate::abort::on_panic(format == "json").unwrap();
        let _server = start(|| panic!("a fault that was put in"));
        std::thread::sleep(DEADLINE);
        std::process::exit(0);
    }
    for format in ["human", "json"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let name = "faults::thread_panics_then_the_process_is_aborted_with_the_reason";
        let output = child.args(["--exact", name, "--nocapture"]).env(FORMAT, format).output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let line = said.lines().find(|line| line.contains("a fault that was put in")).expect("the reason");
        assert!(line.contains("a thread panicked; the process ends"), "{line}");
        assert!(line.contains("shards-") && line.contains("faults.rs:"), "which thread and where: {line}");
        if format == "json" {
            let fields: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&fields["level"], &fields["reason"]), (&"ERROR".into(), &"a fault that was put in".into()));
        }
    }
}

/// Set in the process that [`standard_error_is_full_and_locked_then_a_panic_still_ends_the_process`] starts.
const FULL: &str = "RINGGATE_TEST_FULL_STDERR";

#[test]
fn standard_error_is_full_and_locked_then_a_panic_still_ends_the_process() {
    if std::env::var_os(FULL).is_some() {
        ringgate::abort::on_panic(true).unwrap();
        // More than any pipe takes: this thread waits in the pipe with the lock of standard error.
        let locked = std::thread::spawn(|| {
            let mut stderr = std::io::stderr().lock();
            std::io::Write::write_all(&mut stderr, &vec![b'x'; 4 << 20])
        });
        let stderr = std::io::stderr();
        wait_until("the pipe is full", || {
            let mut polled = [rustix::event::PollFd::new(&stderr, rustix::event::PollFlags::OUT)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut polled, Some(&now)).unwrap() == 0
        });
        assert!(!locked.is_finished());
        // No thread can be started any more, not even one that would end the process.
        let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(rustix::process::Resource::As, none).unwrap();
        panic!("a fault that was put in");
    }
    let name = "faults::standard_error_is_full_and_locked_then_a_panic_still_ends_the_process";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(FULL, "1").stderr(std::process::Stdio::piped());
    // Its standard error is read by nobody.
    let mut child = command.spawn().unwrap();
    let mut status = None;
    wait_until("the process has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.signal()), Some(libc::SIGABRT));
}

static STAND_STILL: AtomicBool = AtomicBool::new(true);
static RESTED: AtomicUsize = AtomicUsize::new(0);

/// The first thread that comes here stays.
fn stay() {
    if RESTED.fetch_add(1, Ordering::AcqRel) == 0 {
        while STAND_STILL.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn shard_stands_still_then_the_node_is_not_ready_until_it_moves() {
    let server = start(stay);
    let admin = server.admin_address().unwrap();
    let ready = || http(admin, "GET", "/readyz");
    assert_eq!(ready().status, 200);
    wait_until("a shard that stands still", || ready().status == 503);
    // Idle shards are not called so: the other one makes its turns.
    let turns: Vec<_> = server.metrics().iter().map(|metrics| metrics.turns.read()).collect();
    wait_until("one of two shards goes on", || {
        let now: Vec<_> = server.metrics().iter().map(|metrics| metrics.turns.read()).collect();
        now.iter().zip(&turns).filter(|(now, before)| now > before).count() == 1
    });
    let said = ready();
    let still = server.metrics().iter().zip(&turns).position(|(metrics, before)| metrics.turns.read() == *before);
    assert_eq!((said.status, said.body), (503, format!("shard {} stands still\n", still.unwrap())));
    assert_eq!(http(admin, "GET", "/healthz").status, 200);
    STAND_STILL.store(false, Ordering::Release);
    wait_until("the shard moves again", || ready().status == 200);
    assert!(server.shutdown(&AtomicBool::new(false)));
}
