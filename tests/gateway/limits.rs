//! Limits of one connection and of the node: rates, requests in flight, connections.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::id::Now;
use ringgate_core::limits::ClientLimits;
use ringgate_core::metrics::{Cell, Refusal};
use ringgate_core::session::Admission;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_core::wire::{Encoder, Kind};
use ringgate_net::Descriptors;
use ringgate_net::dial::{Stream, Trust};

use crate::support::{Client, Frame, Gateway, Login, connect_frame, http, wait_until};

fn gateway_with(change: impl FnOnce(&mut ClientLimits)) -> Gateway {
    Gateway::with(|config| change(&mut config.settings.client))
}

/// Refused connections: full, node, address, rate.
fn refused(gateway: &Gateway) -> [u64; 4] {
    let cells = |reason: Refusal| gateway.sum(|m| -> &Cell { &m.connections_refused[reason] });
    [Refusal::Full, Refusal::Node, Refusal::Address, Refusal::Rate].map(cells)
}

/// Sends `frame` again and again until the gateway says Goodbye; returns its code and what came before.
fn send_until_goodbye(client: &mut Client, frame: &[u8]) -> (u16, Vec<Frame>) {
    let mut frames = Vec::new();
    let mut code = None;
    wait_until("Goodbye", || {
        // Fails once the gateway has closed; its Goodbye can still be read.
        let _ = client.try_send_bytes(frame);
        frames.extend(client.arrived());
        code =
            frames.iter().find_map(|frame| if let Frame::Goodbye(goodbye) = frame { Some(goodbye.code) } else { None });
        code.is_some()
    });
    (code.unwrap(), frames)
}

#[test]
fn too_many_frames_are_refused_and_then_end_the_connection() {
    let gateway = gateway_with(|client| (client.messages_rate, client.messages_burst) = (1, 10));
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    // More than a burst at once, so that some are refused however slow this machine is.
    let mut burst = Vec::new();
    let mut encoder = Encoder::default();
    for request in 1..=100 {
        encoder.publish(&mut burst, &PublishRequest { request, topic: "@bob", payload: b"x", ..Default::default() });
    }
    // What is no request is refused by the number 0.
    Encoder::empty(&mut burst, Kind::Ping);
    alice.send_bytes(&burst);
    let (mut published, mut refused) = (0, 0);
    for request in 1..=100 {
        match alice.answer(request) {
            Frame::Published(_) => published += 1,
            Frame::Refused(refusal) => {
                assert_eq!((refusal.code, refusal.temporary, refusal.retry_after_ms), (111, true, 1000));
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(published >= 10 && refused >= 1, "{published} published, {refused} refused");
    alice
        .take("a refused Ping", |frame| matches!(frame, Frame::Refused(refusal) if refusal.request == 0).then_some(()));
    // A refused request was not carried out.
    assert_eq!(gateway.sum(|m| &m.messages_published), published);
    bob.messages(published as usize);
    let mut ping = Vec::new();
    Encoder::empty(&mut ping, Kind::Ping);
    let (code, _) = send_until_goodbye(&mut alice, &ping.repeat(10));
    assert_eq!(code, 3013);
    assert_eq!(gateway.closed(CloseReason::TooManyRequests), 1);
    // Others are not affected.
    bob.ping();
    gateway.finish();
}

#[test]
fn acks_and_pongs_come_fast_then_none_is_refused() {
    let gateway = gateway_with(|client| (client.messages_rate, client.messages_burst) = (1, 1));
    let mut bob = gateway.sign_in("bob");
    let mut frames = Vec::new();
    for _ in 0..500 {
        Encoder::ack(&mut frames, bob.connected().inbox);
        Encoder::empty(&mut frames, Kind::ClientPong);
    }
    bob.send_bytes(&frames);
    gateway.wait_for("frames", 1001, |m| &m.frames_received);
    assert_eq!((gateway.sum(|m| &m.acks), gateway.refusals(ErrorCode::TooManyRequests)), (500, 0));
    gateway.finish();
}

#[test]
fn too_many_bytes_are_refused_and_then_end_the_connection() {
    let gateway = gateway_with(|client| {
        (client.bytes_rate, client.bytes_burst) = (1000, 90_000);
        client.message_bytes_max = 60_000;
    });
    let mut alice = gateway.sign_in("alice");
    let mut frame = Vec::new();
    let payload = vec![0; 50_000];
    let publish = PublishRequest { request: 7, topic: "@bob", payload: &payload, ..Default::default() };
    Encoder::default().publish(&mut frame, &publish);
    let (code, before) = send_until_goodbye(&mut alice, &frame);
    assert_eq!(code, 3013);
    let refused = before.iter().filter_map(|frame| match frame {
        Frame::Refused(refusal) => Some((refusal.code, refusal.request)),
        _ => None,
    });
    // One fits into the burst; what is refused is refused by its number, and was not carried out.
    assert!(refused.clone().count() > 0 && refused.clone().all(|refusal| refusal == (111, 7)));
    let published = before.iter().filter(|frame| matches!(frame, Frame::Published(_))).count();
    assert_eq!((published, gateway.sum(|m| &m.messages_published)), (1, 1));
    gateway.finish();
}

#[test]
fn too_many_requests_in_flight_then_further_ones_are_refused() {
    let gateway = gateway_with(|client| client.requests_in_flight_max = 1);
    let mut alice = gateway.sign_in("alice");
    assert_eq!(alice.connected().requests_in_flight_max, 1);
    // In one write to inboxes on both shards: one that lives elsewhere takes a moment, in which the next ones come.
    let mut encoder = Encoder::default();
    let mut together = Vec::new();
    for request in 1001..=1024 {
        let topic = format!("@user{request}");
        encoder.publish(&mut together, &PublishRequest { request, topic: &topic, payload: b"x", ..Default::default() });
    }
    alice.send_bytes(&together);
    let mut refused = Vec::new();
    for request in 1001..=1024 {
        if let Err(refusal) = alice.published(request) {
            assert_eq!((refusal.code, refusal.temporary, refusal.retry_after_ms), (403, true, 1000));
            refused.push(request);
        }
    }
    assert!(!refused.is_empty());
    assert_eq!(gateway.refusals(ErrorCode::TooManyInFlight), refused.len() as u64);
    for request in refused {
        alice.publish(&format!("@user{request}"), "x");
    }
    assert_eq!(gateway.sum(|m| &m.messages_published), 24);
    gateway.finish();
}

/// A connection from this address of the host itself; nothing is said on it yet.
fn connect_from(gateway: &Gateway, from: Ipv4Addr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&gateway.tcp().into()).unwrap();
    gateway.client_over(Stream::over(socket.into(), None).unwrap())
}

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, number)
}

#[test]
fn many_are_refused_then_they_are_sent_back_at_different_times() {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(1);
        config.settings.client.connections_max = 1;
    });
    let first = gateway.sign_in("first");
    let delays: Vec<_> = (0..32).map(|_| gateway.client().expect_close(CloseReason::Busy.code()).after_ms).collect();
    let (once, again) = delays.split_at(16);
    assert_eq!(once, again, "in turn");
    let mut sorted = once.to_vec();
    sorted.sort_unstable();
    // From 5 s to 10 s in equal steps.
    let steps: Vec<u32> = (0..16).map(|step| 5_000 + step * 5_000 / 16).collect();
    assert_eq!(sorted, steps);
    assert!(delays.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1_000), "{delays:?}");
    drop(first);
    gateway.finish();
}

#[test]
fn node_has_its_connections_then_others_are_refused() {
    let gateway = gateway_with(|client| client.connections_max = 2);
    let first = gateway.sign_in("first");
    let mut second = gateway.sign_in("second");
    assert!(!gateway.client().is_admitted(&Login::user("third")));
    assert_eq!((refused(&gateway), gateway.connections()), ([0, 1, 0, 0], 2));
    // A refused client that sends nothing is told the reason, too.
    gateway.client().expect_close(CloseReason::Busy.code());
    second.ping();
    drop(first);
    wait_until("there is room again", || gateway.client().is_admitted(&Login::user("third")));
    gateway.finish();
}

#[test]
fn address_has_its_connections_then_others_are_refused() {
    let gateway = gateway_with(|client| client.connections_per_address_max = 2);
    let mut clients: Vec<_> = [1, 1, 2, 2, 3].map(|number| connect_from(&gateway, host(number))).into();
    for (index, client) in clients.iter_mut().enumerate() {
        assert!(client.is_admitted(&Login::user(&format!("user{index}"))));
    }
    for number in [1, 2] {
        assert!(!connect_from(&gateway, host(number)).is_admitted(&Login::user("late")));
    }
    assert_eq!(refused(&gateway), [0, 0, 2, 0]);
    drop(clients.remove(0));
    wait_until("the address has room again", || connect_from(&gateway, host(1)).is_admitted(&Login::user("late")));
    gateway.finish();
}

#[test]
fn accept_rate_is_reached_then_others_are_refused() {
    let gateway = gateway_with(|client| client.accept_rate = 1);
    let began = Instant::now();
    let mut clients: Vec<_> = (0..20).map(|_| gateway.client()).collect();
    let admitted = clients
        .iter_mut()
        .enumerate()
        .filter_map(|(index, client)| client.is_admitted(&Login::user(&format!("user{index}"))).then_some(()));
    let admitted = admitted.count() as u64;
    // One at once and one for every second since; the test may be kept from running for some of them.
    assert!(admitted <= 1 + began.elapsed().as_secs(), "{admitted} within {:?}", began.elapsed());
    let refused = gateway.sum(|m| &m.connections_refused[Refusal::Rate]);
    assert_eq!(admitted + refused, 20);
    assert!(admitted >= 1 && refused >= 1, "{admitted} admitted, {refused} refused");
    wait_until("the next second", || gateway.client().is_admitted(&Login::user("late")));
    gateway.finish();
}

#[test]
fn connections_up_to_a_limit_then_the_next_is_refused() {
    let now = |mono_ms: u64| Now { mono_us: mono_ms * 1000, unix_ms: 0 };
    let address = |number: u8| IpAddr::from([127, 0, 0, number]);
    let none = ClientLimits::default();

    let limits = ClientLimits { connections_max: 3, ..none.clone() };
    let mut node = Admission::new(&limits, now(0));
    let admitted =
        |node: &mut Admission| [1, 2, 3, 4, 5].map(|number| node.admit(&limits, address(number), now(0)).is_ok());
    assert_eq!(admitted(&mut node), [true, true, true, false, false]);
    node.release(address(2));
    assert_eq!(admitted(&mut node), [true, false, false, false, false]);

    let limits = ClientLimits { connections_per_address_max: 2, ..none.clone() };
    let mut node = Admission::new(&limits, now(0));
    let each = [1, 1, 1, 2, 2, 2, 1].map(|number| node.admit(&limits, address(number), now(0)).is_ok());
    assert_eq!(each, [true, true, false, true, true, false, false]);
    node.release(address(1));
    assert_eq!([2, 1, 1].map(|number| node.admit(&limits, address(number), now(0)).is_ok()), [false, true, false]);

    let limits = ClientLimits { accept_rate: 4, ..none };
    let mut node = Admission::new(&limits, now(0));
    let at = [0, 0, 0, 0, 0, 249, 250, 250, 500, 10_000, 10_000, 10_000, 10_000, 10_000];
    let each = at.map(|ms| node.admit(&limits, address(1), now(ms)).is_ok());
    let (yes, no) = (true, false);
    assert_eq!(
        each,
        [yes, yes, yes, yes, no, no, yes, no, yes, yes, yes, yes, yes, no],
        "four at once, then four a second"
    );
}

#[test]
fn table_has_fewer_slots_than_accepts_then_every_listener_is_served() {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(1);
        config.runtime.accepts_in_flight = 32;
        config.runtime.connections_per_shard_max = 16;
    });
    let mut clients = [gateway.sign_in("plain"), gateway.tls_client()];
    clients[1].sign_in(&Login::user("secured"));
    clients[0].publish("@secured", "hello");
    assert_eq!(clients[1].texts(1), ["hello"]);
    drop(clients);
    gateway.finish();
}

#[test]
fn listener_is_idle_then_its_accepts_hold_no_slots() {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(1);
        config.runtime.accepts_in_flight = 32;
        config.runtime.connections_per_shard_max = 16;
    });
    // Nobody connects over TLS.
    let clients: Vec<_> = (0..16).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    gateway.client().expect_close(CloseReason::Busy.code());
    assert_eq!((gateway.sum(|m| &m.ring_slots_used), refused(&gateway)), (16, [1, 0, 0, 0]));
    drop(clients);
    gateway.finish();
}

#[test]
fn table_is_full_then_clients_are_refused_until_a_slot_is_free() {
    for descriptors in [Descriptors::Direct, Descriptors::Ordinary] {
        let gateway = Gateway::with(|config| {
            config.runtime.shards = Some(1);
            config.runtime.connections_per_shard_max = 16;
            config.runtime.descriptors = descriptors;
        });
        let mut clients: Vec<_> = (0..16).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
        let delays: BTreeSet<_> =
            (0..100).map(|_| gateway.client().expect_close(CloseReason::Busy.code()).after_ms).collect();
        assert!(delays.len() > 10, "they are told to come back at {delays:?}");
        // There is no handshake without a slot.
        assert!(Client::open(gateway.tls(), true, Trust::Anybody).is_err());
        assert_eq!((gateway.sum(|m| &m.ring_slots_used), refused(&gateway)), (16, [101, 0, 0, 0]));
        clients[15].publish("@user0", "still alive");
        assert_eq!(clients[0].texts(1), ["still alive"]);
        clients.truncate(12);
        for user in 0..4 {
            wait_until("there is room again", || {
                let mut client = gateway.client();
                let is_in = client.is_admitted(&Login::user(&format!("late{user}")));
                clients.extend(is_in.then_some(client));
                is_in
            });
        }
        gateway.client().expect_close(CloseReason::Busy.code());
        assert_eq!(gateway.sum(|m| &m.ring_slots_used), 16);
        gateway.finish();
    }
}

#[test]
fn more_clients_than_slots_then_each_is_signed_in_or_told_3016_within_a_second_and_the_node_says_that_it_is_full() {
    const CLIENTS: usize = 400;
    const SLOTS: u64 = 128;
    // A machine that is busy with something else may take longer, in which case another try counts.
    wait_until("everybody is answered within a second", || {
        let gateway = Gateway::with(|config| config.runtime.connections_per_shard_max = SLOTS as u32);
        let mut clients: Vec<_> = (0..CLIENTS)
            .map(|user| {
                let (began, mut client) = (Instant::now(), gateway.client());
                // One that was refused may have been closed already; it still has its Goodbye.
                let _ = client.try_send_bytes(&connect_frame(&format!("user{user}")));
                (began, client)
            })
            .collect();
        let (mut inside, mut slowest) = (Vec::new(), Duration::ZERO);
        for (began, mut client) in clients.drain(..) {
            let is_in = client.take("Connected or Goodbye", |frame| match frame {
                Frame::Connected(_) => Some(true),
                Frame::Goodbye(goodbye) if goodbye.code == CloseReason::Busy.code() => Some(false),
                _ => None,
            });
            slowest = slowest.max(began.elapsed());
            inside.extend(is_in.then_some(client));
        }
        let used = gateway.sum(|m| &m.ring_slots_used);
        assert!((SLOTS..=2 * SLOTS).contains(&used), "{used}");
        assert_eq!(inside.len() as u64, used);
        assert_eq!(refused(&gateway), [CLIENTS as u64 - used, 0, 0, 0]);
        let full: Vec<_> = (0..2).filter(|shard| gateway.shards()[*shard].ring_slots_used.read() == SLOTS).collect();
        let reason = "as many connections as runtime.connections_per_shard_max allows";
        let full = serde_json::json!({"ready": false, "reasons": [{"reason": "full", "shards": full, "text": reason}]})
            .to_string();
        wait_until("the node says that it is full", || http(gateway.admin(), "GET", "/readyz").body.trim_end() == full);
        drop(inside);
        wait_until("the node has room", || http(gateway.admin(), "GET", "/readyz").status == 200);
        gateway.finish();
        slowest < Duration::from_secs(1)
    });
}
