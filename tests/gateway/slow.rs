//! Clients that do not read: bounded queues, catching up from the log, closing; and nobody else notices.

use ringgate::config::Config;
use ringgate_core::close::CloseReason;
use ringgate_core::limits::Namespace;
use ringgate_core::metrics::{DropReason, SlowAction};
use ringgate_core::wire::encode::{HistoryRequest, PublishRequest};
use ringgate_net::dial::Stream;
use ringgate_net::shrink_buffers;

use crate::support::{Client, Frame, Gateway, Login, wait_until};

const QUEUE_BYTES: usize = 64 * 1024;
const PAYLOAD: [u8; 8 * 1024] = [7; 8 * 1024];

/// Small queues, no other limits in the way.
fn gateway_with(change: impl FnOnce(&mut Config)) -> Gateway {
    Gateway::with(|config| {
        let client = &mut config.settings.client;
        (client.messages_rate, client.bytes_rate) = (0, 0);
        client.message_bytes_max = 16 * 1024;
        client.outbox_bytes_max = QUEUE_BYTES;
        client.write_timeout_ms = 600_000;
        config.settings.inbox.messages_max = 1_000_000;
        config.settings.inbox.in_flight_max = 1_000_000;
        config.settings.namespaces = vec![Namespace { history_size: 1_000_000, ..Namespace::named("chat") }];
        change(config);
    })
}

/// A user whose socket takes little before it must be read.
fn slow_client(gateway: &Gateway, user: &str) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let socket = std::net::TcpStream::from(socket);
    shrink_buffers(&socket, 4096).unwrap();
    socket2::SockRef::from(&socket).connect(&gateway.tcp().into()).unwrap();
    let mut client = gateway.client_over(Stream::over(socket, None).unwrap());
    client.sign_in(&Login::user(user));
    client
}

/// Publishes until the condition holds; returns how many it took. Meanwhile no queue is over its bound.
fn publish_until(
    gateway: &Gateway,
    client: &mut Client,
    publish: PublishRequest<'_>,
    condition: impl Fn() -> bool,
) -> u64 {
    let mut count = 0;
    wait_until("enough was published", || {
        client.try_publish(publish).unwrap();
        count += 1;
        // The answer to the publisher itself is no message.
        assert!(gateway.sum(|m| &m.outbox_bytes) <= QUEUE_BYTES as u64 + 64);
        condition()
    });
    count
}

fn to(topic: &str) -> PublishRequest<'_> {
    PublishRequest { topic, payload: &PAYLOAD, ..PublishRequest::default() }
}

#[test]
fn client_does_not_read_then_its_inbox_waits_in_the_log_and_nothing_is_lost() {
    let gateway = gateway_with(|_| {});
    let mut bob = slow_client(&gateway, "bob");
    let mut alice = gateway.sign_in("alice");
    let sent = publish_until(&gateway, &mut alice, to("@bob"), || gateway.sum(|m| &m.deliveries_deferred) >= 20);
    assert!(gateway.sum(|m| &m.slow_consumers[SlowAction::Lag]) >= 1);
    // Others do not notice.
    let mut carol = gateway.sign_in("carol");
    alice.publish("@carol", "hello");
    assert_eq!(carol.texts(1), ["hello"]);
    for offset in 1..=sent {
        let message = bob.message();
        assert_eq!((message.offset(), message.payload.len()), (offset, PAYLOAD.len()));
    }
    gateway.wait_for("deferred", 0, |m| &m.deliveries_deferred);
    alice.publish("@bob", "live again");
    let last = bob.message();
    assert_eq!((last.offset(), last.text().as_str()), (sent + 1, "live again"));
    assert_eq!(gateway.sum_all(|m| &m.deliveries_dropped), 0);
    gateway.finish();
}

#[test]
fn one_member_does_not_read_then_the_room_goes_on_and_it_catches_up() {
    let gateway = gateway_with(|_| {});
    let mut bob = slow_client(&gateway, "bob");
    let mut alice = gateway.sign_in("alice");
    let mut carol = gateway.sign_in("carol");
    for client in [&mut alice, &mut bob, &mut carol] {
        client.subscribe("chat:a");
    }
    let mut sent = 0;
    wait_until("bob lags by a few messages", || {
        alice.try_publish(to("chat:a")).unwrap();
        sent += 1;
        // The others have each message before the next one is published.
        assert_eq!((alice.message().offset(), carol.message().offset()), (sent, sent));
        gateway.sum(|m| &m.deliveries_deferred) >= 20
    });
    assert!(gateway.sum(|m| &m.slow_consumers[SlowAction::Lag]) >= 1);
    for offset in 1..=sent {
        assert_eq!(bob.message().offset(), offset);
    }
    alice.publish("chat:a", "live again");
    assert_eq!(bob.message().offset(), sent + 1);
    gateway.wait_for("deferred", 0, |m| &m.deliveries_deferred);
    assert_eq!(gateway.sum_all(|m| &m.deliveries_dropped), 0);
    gateway.finish();
}

#[test]
fn gap_of_a_member_has_left_the_log_then_it_is_closed() {
    let gateway = gateway_with(|config| config.settings.namespaces[0].history_size = 5);
    let mut bob = slow_client(&gateway, "bob");
    let mut alice = gateway.sign_in("alice");
    alice.subscribe("chat:a");
    bob.subscribe("chat:a");
    let closed = || gateway.closed(CloseReason::InsufficientState) == 1;
    wait_until("bob lags by more than the log holds", || {
        alice.try_publish(to("chat:a")).unwrap();
        alice.message();
        // Bob is closed already if the kernel took more of what was queued, and the queue had room again.
        gateway.sum(|m| &m.deliveries_deferred) >= 20 || closed()
    });
    let frames = bob.rest();
    let mut messages = &frames[..];
    // It is behind what the kernel holds for bob, and is lost with that if this test is kept from reading for too long.
    if let Some((Frame::Goodbye(goodbye), before)) = frames.split_last() {
        assert_eq!((goodbye.code, goodbye.reconnect), (3010, true));
        messages = before;
    }
    // What came before is in order and without a hole.
    for (frame, offset) in messages.iter().zip(1..) {
        let Frame::Message(message) = frame else { panic!("{frame:?}") };
        assert_eq!(message.offset(), offset);
    }
    assert!(closed());
    gateway.finish();
}

#[test]
fn outbox_is_full_then_ephemeral_messages_are_dropped_and_counted() {
    let gateway = gateway_with(|_| {});
    let mut bob = slow_client(&gateway, "bob");
    let mut alice = gateway.sign_in("alice");
    let ephemeral = PublishRequest { ephemeral: true, ..to("@bob") };
    let dropped = || gateway.sum(|m| &m.deliveries_dropped[DropReason::Slow]);
    let sent = publish_until(&gateway, &mut alice, ephemeral, || dropped() >= 5);
    alice.publish("@bob", "the end");
    let mut arrived = 0;
    while bob.message().offset() == 0 {
        arrived += 1;
    }
    assert_eq!(arrived + dropped(), sent);
    assert_eq!(gateway.sum(|m| &m.slow_consumers[SlowAction::Drop]), dropped());
    gateway.finish();
}

#[test]
fn outbox_is_full_and_the_room_has_no_history_then_dropped_and_counted() {
    let gateway = gateway_with(|config| config.settings.namespaces[0].history_size = 0);
    let mut bob = slow_client(&gateway, "bob");
    let mut alice = gateway.sign_in("alice");
    alice.subscribe("chat:a");
    bob.subscribe("chat:a");
    let dropped = || gateway.sum(|m| &m.deliveries_dropped[DropReason::Slow]);
    let mut sent = 0;
    wait_until("a few are dropped", || {
        alice.try_publish(to("chat:a")).unwrap();
        alice.message();
        sent += 1;
        dropped() >= 5
    });
    gateway.wait_for("all are queued or dropped", 2 * sent, |m| &m.deliveries_owed);
    // The kernel may have taken more after the first drop, so the holes can be anywhere.
    let arrived: Vec<_> = (0..sent - dropped()).map(|_| bob.message().offset()).collect();
    assert!(arrived.is_sorted_by(|left, right| left < right) && arrived.last() <= Some(&sent), "{arrived:?}");
    alice.publish("chat:a", "live again");
    assert_eq!(bob.message().offset(), sent + 1);
    gateway.finish();
}

#[test]
fn client_takes_nothing_until_the_write_deadline_then_it_is_closed_and_can_resume() {
    let gateway = gateway_with(|config| config.settings.client.write_timeout_ms = 3000);
    let bob = slow_client(&gateway, "bob");
    let mut alice = gateway.sign_in("alice");
    let mut carol = gateway.sign_in("carol");
    let deferred = || gateway.sum(|m| &m.deliveries_deferred);
    let sent = publish_until(&gateway, &mut alice, to("@bob"), || deferred() > 0);
    wait_until("bob is closed", || {
        alice.publish("@carol", "hello");
        assert_eq!(carol.texts(1), ["hello"]);
        gateway.closed(CloseReason::Slow) == 1
    });
    gateway.wait_for("sessions", 2, |m| &m.sessions_active);
    // It is gone although its socket never took what was left.
    wait_until("bob's connection is freed", || gateway.connections() == 2);
    drop(bob);
    let mut bob = gateway.sign_in("bob");
    for offset in 1..=sent {
        assert_eq!(bob.message().offset(), offset);
    }
    gateway.finish();
}

#[test]
fn client_asks_and_does_not_read_the_answers_then_closed_after_the_write_timeout() {
    let gateway = gateway_with(|config| config.settings.client.write_timeout_ms = 2000);
    let mut bob = slow_client(&gateway, "bob");
    bob.subscribe("chat:a");
    for _ in 0..40 {
        bob.try_publish(to("chat:a")).unwrap();
        bob.message();
    }
    wait_until("bob is closed", || {
        let mut history = Vec::new();
        bob.send(|encoder, _| {
            encoder.history(
                &mut history,
                &HistoryRequest { request: 1, topic: "chat:a", since: None, limit: 300, ..HistoryRequest::default() },
            )
        });
        // Sooner or later the gateway reads no further, and the socket takes no more.
        let _ = bob.try_send_bytes(&history);
        assert!(gateway.sum(|m| &m.outbox_bytes) < 1 << 20, "few answers wait");
        gateway.closed(CloseReason::Slow) == 1
    });
    assert_eq!(gateway.closed(CloseReason::Slow), 1);
    assert_eq!(gateway.sum(|m| &m.slow_consumers[SlowAction::Close]), 1);
    gateway.finish();
}
