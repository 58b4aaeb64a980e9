//! Faults of the gateway itself: a thread that panics, and a shard that stands still. Both are put in where a program is
//! called on a shard's thread, at the end of a busy stretch.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ringgate::config::Config;
use ringgate::server::Server;
use ringgate_auth::{Claims, Key, Keys};
use ringgate_core::close::CloseReason;
use ringgate_core::transport::Transport;

use crate::support::{DEADLINE, http, wait_until};

/// Two shards on free ports; `at_rest` is called on the threads of both, half a second after the start.
fn start(at_rest: fn()) -> Server {
    Server::start_with(two_shards(), at_rest).unwrap()
}

fn two_shards() -> Config {
    let (mut config, _) = Config::dev(Some(2)).unwrap();
    config.runtime.pin_cores = false;
    config.runtime.connections_per_shard_max = 64;
    for address in config.listeners.iter_mut().map(|listener| &mut listener.address).chain(&mut config.admin) {
        address.set_port(0);
    }
    config
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

static RESTED_FOR_GOOD: AtomicUsize = AtomicUsize::new(0);

/// The first thread that comes here stays for good.
fn stay_for_good() {
    if RESTED_FOR_GOOD.fetch_add(1, Ordering::AcqRel) == 0 {
        loop {
            std::thread::park();
        }
    }
}

#[test]
fn shard_stands_still_then_the_node_is_neither_healthy_nor_ready_until_it_moves() {
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
    let reasons = format!(
        "\"reasons\":[{{\"reason\":\"stalled\",\"shards\":[{}],\"text\":\"no turn for 5 s\"}}]}}\n",
        still.unwrap()
    );
    assert_eq!((said.status, said.body), (503, format!("{{\"ready\":false,{reasons}")));
    let said = http(admin, "GET", "/healthz");
    assert_eq!((said.status, said.body), (503, format!("{{\"healthy\":false,{reasons}")));
    STAND_STILL.store(false, Ordering::Release);
    wait_until("the shard moves again", || ready().status == 200);
    assert_eq!(http(admin, "GET", "/healthz").status, 200);
    assert!(server.shutdown(&AtomicBool::new(false)));
}

#[test]
fn mailbox_of_a_shard_that_stands_still_is_full_then_reload_and_shutdown_end_in_time() {
    for ends_by in ["a second signal", "shutdown.timeout"] {
        RESTED_FOR_GOOD.store(0, Ordering::Release);
        let mut config = two_shards();
        config.runtime.mailbox_capacity = 1;
        config.settings.shutdown_timeout_ms = if ends_by == "shutdown.timeout" { 500 } else { 3_600_000 };
        let mut server = Server::start_with(config, stay_for_good).unwrap();
        wait_until("one shard stands still", || RESTED_FOR_GOOD.load(Ordering::Acquire) >= 2);
        let metrics = server.metrics().to_vec();
        let before: Vec<_> = metrics.iter().map(|metrics| metrics.turns.read()).collect();
        let mut moving = None;
        wait_until("the other one moves", || {
            moving = metrics.iter().zip(&before).position(|(metrics, before)| metrics.turns.read() > before + 1);
            moving.is_some()
        });
        let (moving, still) = (moving.unwrap(), 1 - moving.unwrap());
        // The kernel deals connections out to both.
        let plain =
            server.addresses().iter().find(|listener| listener.front.transport == Transport::Plain).unwrap().address;
        let active = || metrics[moving].connections_active[Transport::Plain].read();
        let mut clients = Vec::new();
        wait_until("a client of the shard that moves", || {
            clients.push(TcpStream::connect(plain).unwrap());
            active() > 0
        });
        let reload = |server: &mut Server| {
            let keys = Keys::new(vec![Key::dev()], Claims::default());
            server.reload(keys, None, Some(2_000_000_000), || true).unwrap_err()
        };
        assert_eq!(reload(&mut server), "not every shard has taken it before the signal to stop");
        assert_eq!(metrics[0].tls_cert_ends.read(), 2_000_000_000);
        // What it was sent first fills its mailbox.
        let turns = || metrics[moving].turns.read();
        let before = turns();
        wait_until("the shard that moves has read its own", || turns() > before + 1);
        let refused = reload(&mut server);
        assert!(refused.starts_with(&format!("shard {still}: no room in the mailbox before the signal")), "{refused}");
        let at_once = Arc::new(AtomicBool::new(false));
        let stop = at_once.clone();
        let stopping = std::thread::spawn(move || server.shutdown(&stop));
        let goodbyes = || metrics[moving].closes[Transport::Plain][CloseReason::Shutdown].read();
        wait_until("the shard that moves drains", || goodbyes() > 0);
        at_once.store(ends_by == "a second signal", Ordering::Relaxed);
        wait_until(ends_by, || stopping.is_finished());
        assert!(!stopping.join().unwrap(), "{ends_by}");
        drop(clients);
    }
}
