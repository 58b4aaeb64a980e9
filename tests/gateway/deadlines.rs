//! Time limits: heartbeats, and everything that must happen by a moment however the bytes trickle in.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringgate_core::close::CloseReason;
use ringgate_core::limits::ClientLimits;
use ringgate_core::wire::Kind;

use crate::support::{Client, DEADLINE, Frame, Gateway, Login};

fn gateway_with(change: impl FnOnce(&mut ClientLimits)) -> Gateway {
    Gateway::with(|config| change(&mut config.settings.client))
}

fn expect_ping(client: &mut Client) {
    client.take("Ping", |frame| matches!(frame, Frame::Ping).then_some(()));
}

#[test]
fn client_pings_then_pong_comes_at_once() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    assert_eq!((alice.connected().ping_interval_ms, alice.connected().pong_timeout_ms), (30_000, 5_000));
    alice.ping();
    // Several in one write are several answers.
    alice.send(|_, out| (0..3).for_each(|_| ringgate_core::wire::Encoder::empty(out, Kind::Ping)));
    for _ in 0..3 {
        alice.take("Pong", |frame| matches!(frame, Frame::Pong).then_some(()));
    }
    assert_eq!(alice.kept(), []);
    gateway.finish();
}

#[test]
fn a_silent_client_is_asked_and_then_closed() {
    let gateway = gateway_with(|client| (client.ping_interval_ms, client.pong_timeout_ms) = (200, 100));
    let mut alice = gateway.sign_in("alice");
    expect_ping(&mut alice);
    let goodbye = alice.expect_close(3012);
    assert!(goodbye.reconnect);
    assert_eq!(gateway.closed(CloseReason::NoPong), 1);
    gateway.finish();
}

#[test]
fn client_answers_pings_then_it_stays() {
    let gateway = gateway_with(|client| {
        (client.ping_interval_ms, client.pong_timeout_ms, client.missed_pings_max) = (500, 400, 8);
    });
    let mut alice = gateway.sign_in("alice");
    // Each Ping comes after two and a half intervals of silence: together that is more than the eight that close.
    for _ in 0..4 {
        expect_ping(&mut alice);
        alice.send_empty(Kind::ClientPong);
    }
    alice.publish("@alice", "still here");
    assert_eq!(alice.texts(1), ["still here"]);
    assert_eq!(gateway.closed(CloseReason::NoPong), 0);
    gateway.finish();
}

#[test]
fn connect_does_not_come_in_time_then_closed() {
    let gateway = gateway_with(|client| client.connect_timeout_ms = 300);
    let mut silent = gateway.client();
    let goodbye = silent.expect_close(3502);
    assert_eq!((goodbye.reason.as_str(), goodbye.reconnect), ("sign-in took too long", false));
    // The deadline is absolute: bytes that trickle in gain nothing.
    let mut slow = gateway.client();
    let mut connect = Vec::new();
    slow.send(|encoder, _| {
        let token = "x".repeat(8000);
        let request = ringgate_core::wire::encode::ConnectRequest { token: &token, ..Default::default() };
        encoder.connect(&mut connect, &request);
    });
    trickle(&mut slow, &connect);
    slow.expect_close(3502);
    assert_eq!(gateway.closed(CloseReason::Stale), 2);
    gateway.finish();
}

#[test]
fn frame_is_not_whole_in_time_then_closed() {
    let gateway = gateway_with(|client| client.frame_timeout_ms = 300);
    let mut alice = gateway.sign_in("alice");
    alice.send_bytes(&[0, 0, 0]);
    assert_eq!(alice.expect_close(3502).reason, "a frame took too long");
    let mut bob = gateway.sign_in("bob");
    let mut publish = Vec::new();
    bob.send(|encoder, _| {
        let payload = [0; 9000];
        let request =
            ringgate_core::wire::encode::PublishRequest { topic: "@bob", payload: &payload, ..Default::default() };
        encoder.publish(&mut publish, &request);
    });
    trickle(&mut bob, &publish);
    bob.expect_close(3502);
    assert_eq!(gateway.closed(CloseReason::Stale), 2);
    gateway.finish();
}

/// Sends byte after byte until the gateway has had enough.
fn trickle(client: &mut Client, bytes: &[u8]) {
    let gone = || client.socket().peek(&mut [0]).is_ok();
    client.socket().set_read_timeout(Some(std::time::Duration::from_millis(1))).unwrap();
    for byte in bytes {
        // The first frame that comes ends the trickle: it can only be Goodbye.
        if gone() || (&mut client.socket()).write_all(&[*byte]).is_err() {
            return;
        }
    }
    panic!("the gateway took all {} bytes", bytes.len());
}

#[test]
fn client_is_signed_in_then_connect_timeout_has_no_effect() {
    let gateway = gateway_with(|client| client.connect_timeout_ms = 3000);
    let mut alice = gateway.sign_in("alice");
    // This one, which came later, is closed for its silence; then the deadline of the first has passed, too.
    gateway.client().expect_close(3502);
    alice.ping();
    gateway.finish();
}

#[test]
fn tls_handshake_does_not_end_in_time_then_closed() {
    let gateway = gateway_with(|client| client.handshake_timeout_ms = 300);
    // Silence, and the beginning of a ClientHello.
    for start in [&b""[..], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]] {
        let mut socket = TcpStream::connect(gateway.tls()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(start).unwrap();
        let mut said = Vec::new();
        socket.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"", "nobody could read a Goodbye");
    }
    assert_eq!(gateway.closed(CloseReason::Stale), 2);
    gateway.finish();
}

#[test]
fn connect_over_tls_does_not_come_in_time_then_closed() {
    let gateway = gateway_with(|client| client.connect_timeout_ms = 2000);
    let mut silent = gateway.tls_client();
    silent.expect_close(3502);
    let mut alice = gateway.tls_client();
    assert_eq!(alice.try_sign_in(&Login::token("garbage")).unwrap_err().code, 3500);
    gateway.finish();
}
