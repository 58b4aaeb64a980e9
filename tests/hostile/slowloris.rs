//! Bytes that trickle: deadlines are absolute, however much keeps coming.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use ringgate_core::close::CloseReason;
use ringgate_core::limits::ClientLimits;
use ringgate_core::transport::Transport;

use crate::bystanders::Bystanders;
use crate::secured::Secured;
use crate::support::{DEADLINE, Gateway, Login, connect_frame};

const PAUSE: Duration = Duration::from_millis(3);
const SLOW: usize = 64;

fn gateway_with(change: impl FnOnce(&mut ClientLimits)) -> Gateway {
    Gateway::with(|config| change(&mut config.settings.client))
}

/// Sends a byte to each every few milliseconds until the gateway has ended all of them. Never is any of them silent
/// for long, and never does any come to its end: there is always another byte.
fn trickle(sockets: Vec<TcpStream>, byte: impl Fn(usize) -> u8) {
    let give_up = Instant::now() + DEADLINE;
    let mut open: Vec<TcpStream> = sockets;
    for socket in &open {
        socket.set_nonblocking(true).unwrap();
    }
    let mut at = 0;
    while !open.is_empty() {
        assert!(Instant::now() < give_up, "{} connections are still open after {at} bytes", open.len());
        open.retain_mut(|socket| {
            // What the gateway says, Goodbye or nothing, ends with the stream.
            let mut said = [0; 512];
            let ended = match socket.read(&mut said) {
                Ok(0) => true,
                Ok(_) => false,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
            let refused = matches!(socket.write(&[byte(at)]), Err(e) if e.kind() != std::io::ErrorKind::WouldBlock);
            !ended && !refused
        });
        at += 1;
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn bytes_trickle_in_the_tls_handshake_then_closed_at_its_deadline() {
    let gateway = gateway_with(|client| client.handshake_timeout_ms = 800);
    let bystanders = Bystanders::start(&gateway);
    let sockets = (0..SLOW)
        .map(|_| {
            let mut socket = TcpStream::connect(gateway.tls()).unwrap();
            // A handshake record of 16 KiB, and in it a ClientHello as long: it is never whole in this time.
            socket.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc]).unwrap();
            socket
        })
        .collect();
    trickle(sockets, |_| 3);
    gateway.wait_for("slots", 2, |m| &m.ring_slots_used);
    bystanders.finish();
    assert_eq!(gateway.closed(CloseReason::Stale), SLOW as u64);
    assert_eq!(gateway.handshakes(), [0, 0]);
    gateway.finish();
}

#[test]
fn bytes_trickle_in_connect_then_closed_at_its_deadline() {
    // A token may be 8 KiB long: at this pace it takes half a minute.
    let gateway = gateway_with(|client| (client.connect_timeout_ms, client.frame_timeout_ms) = (3000, 60_000));
    let bystanders = Bystanders::start(&gateway);
    let sockets = (0..SLOW)
        .map(|_| {
            let mut socket = TcpStream::connect(gateway.tcp()).unwrap();
            socket.write_all(&[0, 0x24, 0, 0, 1, 0, 0, 0]).unwrap();
            socket
        })
        .collect();
    trickle(sockets, |at| at as u8);
    gateway.wait_for("slots", 2, |m| &m.ring_slots_used);
    bystanders.finish();
    assert_eq!(gateway.closed(CloseReason::Stale), SLOW as u64);
    gateway.finish();
}

/// Connect over TLS, each byte of it in a record of its own.
#[test]
fn bytes_trickle_in_connect_over_tls_then_closed_at_its_deadline() {
    let gateway = gateway_with(|client| client.connect_timeout_ms = 1500);
    let mut secured = Secured::established(&gateway);
    let mut frame = vec![0, 0x24, 0, 0, 1, 0, 0, 0];
    frame.resize(8 + 0x2400, 7);
    let mut taken = 0;
    for byte in frame {
        if gateway.closed(CloseReason::Stale) > 0 {
            break;
        }
        let record = secured.records(&[byte]);
        if secured.socket.write_all(&record).is_err() {
            break;
        }
        taken += 1;
        std::thread::sleep(PAUSE);
    }
    gateway.wait_for("closed", 1, |m| &m.closes[Transport::Tls][CloseReason::Stale]);
    assert!((1..8 + 0x2400).contains(&taken), "the gateway took {taken} bytes");
    gateway.finish();
}

/// Signed in, and inside a Publish: the frame's own deadline counts. Pings in between are not possible, and bytes are
/// no sign of life that would put it off.
#[test]
fn bytes_trickle_in_a_frame_then_closed_at_its_deadline() {
    let gateway = gateway_with(|client| client.frame_timeout_ms = 800);
    let bystanders = Bystanders::start(&gateway);
    let mut clients: Vec<_> = (0..SLOW).map(|user| gateway.sign_in(&format!("slow{user}"))).collect();
    for client in &mut clients {
        client.send_bytes(&[0, 0xff, 0, 0, 3, 0, 0, 0]);
    }
    let sockets = clients.iter().map(|client| client.socket().try_clone().unwrap()).collect();
    trickle(sockets, |at| at as u8);
    gateway.wait_for("slots", 2, |m| &m.ring_slots_used);
    bystanders.finish();
    assert_eq!(gateway.closed(CloseReason::Stale), SLOW as u64);
    gateway.finish();
}

/// Slow, but in time: every byte alone, and the deadline not reached.
#[test]
fn client_is_slow_within_the_deadline_then_it_is_served() {
    let gateway = Gateway::start();
    let mut client = gateway.client();
    for byte in connect_frame("snail") {
        client.send_bytes(&[byte]);
    }
    client.take("Connected", |frame| matches!(frame, crate::support::Frame::Connected(_)).then_some(()));
    client.ping();
    let mut again = gateway.client();
    again.sign_in(&Login::user("snail"));
    client.expect_close(4500);
    let _ = again.socket().shutdown(Shutdown::Write);
    again.expect_end();
    gateway.finish();
}
