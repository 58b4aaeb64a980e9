//! Every way to break off at every stage of a connection: half-closed or reset. Slots, outboxes and books come out
//! even each time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use ringgate_core::close::CloseReason;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_net::Descriptors;

use crate::secured::Secured;
use crate::support::{Client, DEADLINE, Gateway, connect_frame, wait_until};

/// How often each stage breaks off each way.
const ROUNDS: usize = 8;

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing was sent.
    BeforeConnect,
    /// Inside the header, and inside the body.
    InsideHeader,
    InsideConnect,
    /// The token is being verified, or the inbox asked.
    BehindConnect,
    /// Signed in, in a room, nothing under way.
    SignedIn,
    /// Signed in, with more output than the socket takes.
    Unread,
    /// Inside a Publish.
    InsideFrame,
    /// TLS: nothing, half a ClientHello, a whole one.
    BeforeHello,
    InsideHello,
    BehindHello,
    /// TLS: signed in, and half a record sent.
    InsideRecord,
}

const STAGES: [Stage; 11] = [
    Stage::BeforeConnect,
    Stage::InsideHeader,
    Stage::InsideConnect,
    Stage::BehindConnect,
    Stage::SignedIn,
    Stage::Unread,
    Stage::InsideFrame,
    Stage::BeforeHello,
    Stage::InsideHello,
    Stage::BehindHello,
    Stage::InsideRecord,
];

/// A socket that has come to this stage.
fn reach(gateway: &Gateway, writer: &mut Client, stage: Stage, round: usize) -> TcpStream {
    let user = format!("{stage:?}{round}");
    let frame = connect_frame(&user);
    let plain = |bytes: &[u8]| {
        let mut socket = gateway.raw();
        socket.write_all(bytes).unwrap();
        socket
    };
    let signed_in = |more: &[u8]| {
        let sessions = gateway.sum(|m| &m.sessions_active);
        let mut socket = plain(&frame);
        gateway.wait_for("sessions", sessions + 1, |m| &m.sessions_active);
        socket.write_all(more).unwrap();
        socket
    };
    match stage {
        Stage::BeforeConnect => plain(&[]),
        Stage::InsideHeader => plain(&frame[..1 + round % 7]),
        Stage::InsideConnect => plain(&frame[..frame.len() - 1 - round]),
        Stage::BehindConnect => plain(&frame),
        Stage::SignedIn => signed_in(&[]),
        Stage::Unread => unread(gateway, writer, &user, signed_in(&[])),
        Stage::InsideFrame => signed_in(&[100, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3]),
        Stage::BeforeHello => TcpStream::connect(gateway.tls()).unwrap(),
        Stage::InsideHello | Stage::BehindHello => {
            let mut secured = Secured::connect(gateway);
            let hello = secured.records(&[]);
            let length = if matches!(stage, Stage::InsideHello) { hello.len() / (round + 2) } else { hello.len() };
            secured.socket.write_all(&hello[..length]).unwrap();
            secured.socket
        }
        Stage::InsideRecord => {
            let mut secured = Secured::established(gateway);
            let connect = secured.records(&frame);
            secured.socket.write_all(&connect).unwrap();
            let ping = secured.records(&[0, 0, 0, 0, 2, 0, 0, 0]);
            secured.socket.write_all(&ping[..1 + round]).unwrap();
            secured.socket
        }
    }
}

/// Somebody writes to a session that does not read, until its outbox has something that cannot be sent.
fn unread(gateway: &Gateway, writer: &mut Client, user: &str, socket: TcpStream) -> TcpStream {
    ringgate_net::shrink_buffers(&socket, 4096).unwrap();
    let topic = format!("@{user}");
    let payload = vec![1; 60_000];
    wait_until("the outbox holds what the socket does not take", || {
        writer.try_publish(PublishRequest { topic: &topic, payload: &payload, ..Default::default() }).unwrap();
        gateway.sum(|m| &m.outbox_bytes) > 200_000
    });
    socket
}

fn reset(socket: TcpStream) -> Option<TcpStream> {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    None
}

fn half_close(socket: TcpStream) -> Option<TcpStream> {
    socket.shutdown(Shutdown::Write).unwrap();
    Some(socket)
}

/// Breaks off at every stage, and counts for what reasons connections were closed.
fn break_off(descriptors: Descriptors, end: fn(TcpStream) -> Option<TcpStream>, reason: CloseReason) {
    for stage in STAGES {
        let gateway = Gateway::with(|config| {
            config.runtime.descriptors = descriptors;
            // One writer fills many outboxes.
            config.settings.client.bytes_rate = 0;
        });
        let mut writer = gateway.sign_in("writer");
        for round in 0..ROUNDS {
            let socket = end(reach(&gateway, &mut writer, stage, round));
            let closed = round as u64 + 1;
            wait_until(format_args!("{stage:?} ends as {reason:?}"), || count(&gateway, reason, stage) == closed);
            // A client that still reads comes to the end of the stream; what the kernel has queued could take very long.
            if let Some(mut socket) = socket.filter(|_| !matches!(stage, Stage::Unread)) {
                socket.set_read_timeout(Some(DEADLINE)).unwrap();
                if let Err(error) = socket.read_to_end(&mut Vec::new()) {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{stage:?}");
                }
            }
        }
        gateway.wait_for("slots", 1, |m| &m.ring_slots_used);
        assert_eq!((gateway.connections(), gateway.sum(|m| &m.outbox_bytes)), (1, 0), "{stage:?}");
        let all: u64 = CloseReason::ALL.iter().map(|reason| gateway.closed(*reason)).sum();
        assert_eq!(all, ROUNDS as u64, "{stage:?} ended for another reason");
        // Checks slots, outboxes, queued and deferred deliveries, and the books.
        gateway.finish();
    }
}

/// Connections closed for the reason. The kernel reports a reset once: where a send is under way, that one hears of it
/// and the receive sees the end of a stream, or the other way round.
fn count(gateway: &Gateway, reason: CloseReason, stage: Stage) -> u64 {
    let either = reason == CloseReason::ConnectionReset && matches!(stage, Stage::Unread);
    gateway.closed(reason) + if either { gateway.closed(CloseReason::ConnectionClosed) } else { 0 }
}

#[test]
fn client_half_closes_at_any_stage_then_everything_is_freed() {
    break_off(Descriptors::for_this_kernel(), half_close, CloseReason::ConnectionClosed);
}

#[test]
fn client_resets_at_any_stage_then_everything_is_freed() {
    break_off(Descriptors::for_this_kernel(), reset, CloseReason::ConnectionReset);
}

#[test]
fn client_half_closes_at_any_stage_with_ordinary_descriptors_then_everything_is_freed() {
    break_off(Descriptors::Ordinary, half_close, CloseReason::ConnectionClosed);
}

#[test]
fn client_resets_at_any_stage_with_ordinary_descriptors_then_everything_is_freed() {
    break_off(Descriptors::Ordinary, reset, CloseReason::ConnectionReset);
}

/// Clients that send these bytes and end right behind them: a kernel may take both for one event, and never announce the end.
fn end_right_behind(data: fn(u64) -> Vec<u8>, end: fn(TcpStream) -> Option<TcpStream>, reason: CloseReason) {
    const CLIENTS: u64 = 10_000;
    // Fewer than the gateway has slots.
    const OPEN: usize = 500;
    // No deadline ends them within the time that this test waits.
    let gateway = Gateway::with(|config| config.settings.client.connect_timeout_ms = 120_000);
    let mut half_closed = Vec::new();
    for client in 0..CLIENTS {
        let mut socket = TcpStream::connect(gateway.tcp()).unwrap();
        socket.write_all(&data(client)).unwrap();
        // A socket that is still open answers nothing that is sent to it with a reset, which would be noticed by itself.
        half_closed.extend(end(socket));
        if half_closed.len() == OPEN {
            wait_until("these are closed", || gateway.closed(reason) == client + 1);
            half_closed.clear();
        }
    }
    wait_until("all are closed", || gateway.closed(reason) == CLIENTS);
    gateway.wait_for("slots", 0, |m| &m.ring_slots_used);
    if reason == CloseReason::ConnectionClosed {
        // Over TCP the kernel announces the end of a stream however close it comes. A look at a quiet socket can see an end
        // just before it is announced, but that is rare.
        let found_by_looking = gateway.sum(|m| &m.ring_missed_ends);
        assert!(found_by_looking <= CLIENTS / 100, "{found_by_looking} of {CLIENTS}");
    }
    gateway.finish();
}

/// A part of a header: nothing answers it, and the socket is looked at.
fn unanswered(_client: u64) -> Vec<u8> {
    vec![0, 1, 0]
}

/// The answer hears of a reset.
fn answered(client: u64) -> Vec<u8> {
    connect_frame(&format!("user{client}"))
}

#[test]
fn reset_follows_data_then_it_is_noticed() {
    end_right_behind(unanswered, reset, CloseReason::ConnectionReset);
}

#[test]
fn reset_follows_data_that_is_answered_then_it_is_noticed() {
    end_right_behind(answered, reset, CloseReason::ConnectionReset);
}

#[test]
fn end_follows_data_then_it_is_noticed() {
    end_right_behind(unanswered, half_close, CloseReason::ConnectionClosed);
}

#[test]
fn end_follows_data_that_is_answered_then_it_is_noticed() {
    end_right_behind(answered, half_close, CloseReason::ConnectionClosed);
}
