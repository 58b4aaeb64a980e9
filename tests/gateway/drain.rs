//! Shutting down: everybody is told, nobody new comes in, the process ends.

use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ringgate_core::close::CloseReason;
use ringgate_core::transport::Transport;

use crate::support::{Client, Ended, Gateway, Login, Process, dev_token, try_http, wait_until};

#[test]
fn drain_then_everybody_gets_goodbye_and_the_gateway_ends() {
    let gateway = Gateway::start();
    let plain = gateway.tcp();
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
    for client in &mut clients {
        let goodbye = client.expect_close(3001);
        assert_eq!((goodbye.reason.as_str(), goodbye.reconnect), ("shutdown", true));
        assert!(goodbye.after_ms < 1000, "few clients come back within a second");
        delays.push(goodbye.after_ms);
    }
    delays.dedup();
    assert!(delays.len() > 1, "not all at the same moment");
    let shutdowns = CloseReason::Shutdown;
    let closed = metrics
        .iter()
        .map(|shard| shard.closes[Transport::Plain][shutdowns].read() + shard.closes[Transport::Tls][shutdowns].read());
    assert_eq!(closed.sum::<u64>(), 12);
    wait_until("nobody listens any more", || TcpStream::connect(plain).is_err());
    drop(clients);
    assert!(stopping.join().unwrap(), "every client had gone");
    assert!(metrics.iter().all(|shard| shard.ring_slots_used.read() == 0));
}

#[test]
fn gateway_drains_then_readyz_says_503_and_draining() {
    // A drain gives a client up that stays, after two seconds: a test that was kept from running for so long sees none.
    let draining = "{\"ready\":false,\"reasons\":[{\"reason\":\"draining\",\"text\":\"clients are sent away\"}]}\n";
    wait_until("/readyz is answered during a drain", || {
        let gateway = Gateway::start();
        let (admin, stays) = (gateway.admin(), gateway.sign_in("stays"));
        let stopping = std::thread::spawn(move || gateway.shutdown(&AtomicBool::new(false)));
        let during = loop {
            match try_http(admin, "GET", "/readyz") {
                Ok(answer) if answer.status == 200 => assert_eq!(answer.body, "{\"ready\":true,\"reasons\":[]}\n"),
                Ok(answer) => break Some((answer.status, answer.body)),
                Err(_) => break None,
            }
        };
        drop(stays);
        stopping.join().unwrap();
        during.inspect(|answer| assert_eq!(*answer, (503, draining.to_owned()))).is_some()
    });
}

#[test]
fn client_stays_during_drain_then_the_gateway_ends_at_the_timeout() {
    // Most shards have nobody and end at once; the one that has alice must not wait for them to read its letters.
    let gateway = Gateway::with(|config| config.runtime.shards = Some(8));
    let alice = gateway.sign_in("alice");
    assert!(gateway.shutdown(&AtomicBool::new(false)));
    drop(alice);
}

#[test]
fn second_signal_then_the_gateway_ends_at_once() {
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
fn sigterm_then_the_process_drains_and_ends() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut process = Process::dev_gateway(&["--log-format", "json"]);
        let mut alice = client_of(&process);
        process.signal(signal);
        alice.expect_close(3001);
        drop(alice);
        let ended = process.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(how_it_stopped(&ended), (true, "every client has gone".to_owned()));
    }
}

/// Whether every client had gone, and what ended the drain: fields of the last line of the log.
fn how_it_stopped(ended: &Ended) -> (bool, String) {
    let last: serde_json::Value = serde_json::from_str(ended.err.last().unwrap()).unwrap();
    assert_eq!(last["message"], "stopped", "{ended:?}");
    (last["emptied"].as_bool().unwrap(), last["because"].as_str().unwrap().to_owned())
}

#[test]
fn second_sigterm_during_a_drain_then_the_process_ends_at_once() {
    // A client that neither reads nor closes is given up after two seconds: a test that was kept from running for so long
    // comes too late with its second signal.
    wait_until("a drain that a second signal ends", || {
        let mut process = Process::dev_gateway(&["--log-format", "json"]);
        let stalled = client_of(&process);
        let began = Instant::now();
        process.signal(libc::SIGTERM);
        process.error_line("the first signal", |line| line.contains("draining"));
        process.signal(libc::SIGTERM);
        let ended = process.ended();
        drop(stalled);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let by_the_second = how_it_stopped(&ended) == (false, "a second signal".to_owned());
        assert!(by_the_second || began.elapsed() > Duration::from_secs(2), "{ended:?}");
        by_the_second
    });
}

#[test]
fn two_signals_at_once_then_the_process_does_not_drain() {
    let mut process = Process::dev_gateway(&["--log-format", "json"]);
    let stalled = client_of(&process);
    // Two different signals: the kernel keeps only one of each kind for a stopped process.
    process.signal(libc::SIGSTOP);
    process.signal(libc::SIGTERM);
    process.signal(libc::SIGINT);
    process.signal(libc::SIGCONT);
    let ended = process.ended();
    drop(stalled);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(how_it_stopped(&ended), (false, "a second signal".to_owned()));
}
