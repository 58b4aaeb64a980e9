//! Shutting down: everybody is told, nobody new comes in, the process ends.

use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ringgate::close::CloseReason;

use crate::support::{Client, Gateway, Login, Process, dev_token, http, wait_until};

#[test]
fn everybody_is_sent_away_and_the_gateway_ends() {
    let gateway = Gateway::start();
    let (plain, admin) = (gateway.tcp(), gateway.admin());
    assert_eq!(http(admin, "GET", "/readyz").status, 200);
    let mut clients: Vec<_> = (0..10).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    let mut secured = gateway.tls_client();
    secured.sign_in(&Login::user("secured"));
    clients.push(secured);
    clients.push(gateway.client());
    wait_until("the one that says nothing is accepted, too", || gateway.connections() == 12);
    clients[0].publish("@nobody", "stored");
    let metrics = gateway.shards().to_vec();
    let stopping = std::thread::spawn(move || gateway.shutdown(&AtomicBool::new(false)));
    let mut delays = Vec::new();
    // The clients stay until all was seen, as far as the gateway waits for them.
    wait_until("not ready", || {
        // Gone already, if this test was kept from looking.
        TcpStream::connect(admin).is_err() || http(admin, "GET", "/readyz").status == 503
    });
    for client in &mut clients {
        let goodbye = client.expect_close(3001);
        assert_eq!((goodbye.reason.as_str(), goodbye.reconnect), ("shutdown", true));
        assert!(goodbye.after_ms < 1000, "few clients come back within a second");
        delays.push(goodbye.after_ms);
    }
    delays.dedup();
    assert!(delays.len() > 1, "not all at the same moment");
    let shutdowns = CloseReason::Shutdown.index();
    let closed = metrics.iter().map(|shard| shard.closes[0][shutdowns].read() + shard.closes[1][shutdowns].read());
    assert_eq!(closed.sum::<u64>(), 12);
    wait_until("nobody listens any more", || TcpStream::connect(plain).is_err());
    drop(clients);
    assert!(stopping.join().unwrap(), "every client had gone");
    assert!(metrics.iter().all(|shard| shard.ring_slots_used.read() == 0));
}

#[test]
fn a_client_that_stays_does_not_keep_the_gateway() {
    // Most shards have nobody and end at once; the one that has alice must not wait for them to read its letters.
    let gateway = Gateway::with(|config| config.runtime.shards = Some(8));
    let alice = gateway.sign_in("alice");
    assert!(gateway.shutdown(&AtomicBool::new(false)));
    drop(alice);
}

#[test]
fn a_gateway_that_is_to_end_at_once_does_not_wait() {
    let gateway = Gateway::start();
    let alice = gateway.sign_in("alice");
    assert!(!gateway.shutdown(&AtomicBool::new(true)));
    drop(alice);
}

/// A signed-in client of a gateway in another process.
fn client_of(process: &Process) -> Client {
    let mut client = Client::tcp(process.tcp());
    client.sign_in(&Login::token(dev_token("alice")));
    client
}

#[test]
fn sigterm_drains_and_ends_the_process() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut process = Process::dev_gateway(&["--log-format", "json"]);
        let mut alice = client_of(&process);
        process.signal(signal);
        alice.expect_close(3001);
        drop(alice);
        let ended = process.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let last = ended.err.last().unwrap();
        assert!(last.contains("\"emptied\":true"), "{ended:?}");
    }
}

#[test]
fn a_second_sigterm_ends_the_process_at_once() {
    let mut process = Process::dev_gateway(&["--log-format", "json"]);
    // It neither reads nor closes.
    let stalled = client_of(&process);
    let began = Instant::now();
    process.signal(libc::SIGTERM);
    process.error_line("the first signal", |line| line.contains("draining"));
    process.signal(libc::SIGTERM);
    let ended = process.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // After two seconds the drain gives such a client up: this test may have been kept from running for so long.
    let at_once = ended.err.last().unwrap().contains("\"emptied\":false");
    assert!(at_once || began.elapsed() > Duration::from_secs(2), "{ended:?}");
    drop(stalled);
}
