//! Messages from user to user: order across shards, answers, deduplication, bounds, permission.

use std::collections::BTreeSet;

use ringgate_auth::{Signer, TokenSpec};
use ringgate_core::close::ErrorCode;
use ringgate_core::id::ClientMessageId;
use ringgate_core::wire::encode::PublishRequest;

use crate::support::{Gateway, Login, unix_seconds};

#[test]
fn users_on_all_shards_write_then_messages_arrive_in_order() {
    const USERS: usize = 32;
    const MESSAGES: usize = 5;
    let gateway = Gateway::start();
    let mut clients: Vec<_> = (0..USERS).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    let mut stamps = vec![Vec::new(); USERS];
    for round in 0..MESSAGES {
        for (user, client) in clients.iter_mut().enumerate() {
            let to = (user + 1) % USERS;
            let published = client.publish(&format!("@user{to}"), format!("{user} says {round}"));
            assert_eq!((published.durability, published.duplicate), (1, false));
            stamps[to].push(published.stamp);
        }
    }
    let mut ids = BTreeSet::new();
    for (to, client) in clients.iter_mut().enumerate() {
        let from = (to + USERS - 1) % USERS;
        for (round, message) in client.messages(MESSAGES).into_iter().enumerate() {
            assert_eq!((message.topic, message.sender), (format!("@user{to}"), format!("user{from}")));
            assert_eq!(message.payload, format!("{from} says {round}").into_bytes());
            assert_eq!(message.stamp, stamps[to][round], "the publisher was told the same");
            assert_eq!(message.stamp.position.offset, round as u64 + 1);
            assert_eq!(message.stamp.position.epoch, stamps[to][0].position.epoch);
            assert!(unix_seconds() * 1000 + 1000 >= message.stamp.timestamp_ms);
            ids.insert(message.stamp.message_id);
        }
    }
    assert_eq!(ids.len(), USERS * MESSAGES, "message ids are unique");
    for shard in gateway.shards() {
        assert!(shard.users.read() > 0 && shard.sessions_active.read() > 0 && shard.mesh_sent.read() > 0);
    }
    let sent = (USERS * MESSAGES) as u64;
    assert_eq!(gateway.sum(|m| &m.messages_published), sent);
    gateway.wait_for("deliveries", sent, |m| &m.deliveries_sent);
    gateway.finish();
}

#[test]
fn one_connection_publishes_then_offsets_have_the_order_of_sending() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    let requests: Vec<_> = (0..500)
        .map(|number: u32| {
            let payload = number.to_le_bytes();
            alice.send_publish(PublishRequest { topic: "@bob", payload: &payload, ..PublishRequest::default() })
        })
        .collect();
    for (request, message) in requests.into_iter().zip(bob.messages(500)) {
        let published = alice.published(request).unwrap();
        assert_eq!(published.stamp, message.stamp);
        assert_eq!(message.offset(), u64::from(u32::from_le_bytes(message.payload.try_into().unwrap())) + 1);
    }
    gateway.finish();
}

#[test]
fn long_payloads_come_at_once_then_they_stay_whole_and_in_order() {
    const SENDERS: usize = 6;
    const MESSAGES: usize = 12;
    // Each fills a dozen receive buffers, and there are sixteen.
    let payload = |sender: usize, message: usize| -> Vec<u8> {
        let length = 24_000 + 977 * message;
        (0..length).map(|at| (at / 7 + 31 * sender + 5 * message) as u8).collect()
    };
    for tls in [false, true] {
        let gateway = Gateway::with(|config| {
            config.runtime.shards = Some(1);
            config.runtime.recv_buffers = 16;
        });
        let client = |user: &str| {
            let mut client = if tls { gateway.tls_client() } else { gateway.client() };
            client.sign_in(&Login::user(user));
            client
        };
        let mut bob = client("bob");
        let mut senders: Vec<_> = (0..SENDERS).map(|sender| client(&format!("sender{sender}"))).collect();
        std::thread::scope(|scope| {
            for (sender, client) in senders.iter_mut().enumerate() {
                scope.spawn(move || {
                    for message in 0..MESSAGES {
                        let payload = payload(sender, message);
                        client.send_publish(PublishRequest {
                            topic: "@bob",
                            payload: &payload,
                            ..PublishRequest::default()
                        });
                    }
                });
            }
            let mut heard = [0; SENDERS];
            for _ in 0..SENDERS * MESSAGES {
                let message = bob.message();
                let sender: usize = message.sender.trim_start_matches("sender").parse().unwrap();
                let (length, wanted) = (message.payload.len(), payload(sender, heard[sender]));
                assert!(message.payload == wanted, "{} of {sender}: {length} of {} B", heard[sender], wanted.len());
                heard[sender] += 1;
                bob.ack(message.stamp.position);
            }
        });
        gateway.finish();
    }
}

#[test]
fn publish_is_repeated_then_it_is_stored_once_and_answered_alike() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    let first = alice.publish_with_id("@bob", 1, "once");
    assert_eq!((first.client_message_id, first.duplicate), (ClientMessageId { high: 7, low: 1 }, false));
    let again = alice.publish_with_id("@bob", 1, "once");
    assert_eq!((again.stamp, again.durability, again.duplicate), (first.stamp, first.durability, true));
    assert_eq!(again.client_message_id, first.client_message_id);
    // Also from another connection, which is when it matters.
    drop(alice);
    let mut alice = gateway.sign_in("alice");
    let again = alice.publish_with_id("@bob", 1, "once");
    assert_eq!((again.stamp, again.duplicate), (first.stamp, true));
    // An id counts for one sender and one topic; messages without an id are never compared.
    assert!(!alice.publish_with_id("@carol", 1, "once").duplicate);
    assert!(!bob.publish_with_id("@bob", 1, "to myself").duplicate);
    for _ in 0..2 {
        assert!(!alice.publish("@bob", "no id").duplicate);
    }
    assert_eq!(bob.texts(4), ["once", "to myself", "no id", "no id"]);
    assert_eq!((gateway.sum(|m| &m.dedup_hits), gateway.sum(|m| &m.messages_published)), (2, 5));
    gateway.finish();
}

#[test]
fn dedup_window_is_over_or_full_then_ids_are_forgotten() {
    let by_age = Gateway::with(|config| config.settings.dedup_window_ms = 200);
    let mut alice = by_age.sign_in("alice");
    let first = alice.publish_with_id("@bob", 1, "x");
    let mut later = first;
    crate::support::wait_until("the id is forgotten", || {
        later = alice.publish_with_id("@bob", 1, "x");
        !later.duplicate
    });
    assert_eq!(later.stamp.position.offset, 2);
    by_age.finish();

    let by_count = Gateway::with(|config| config.settings.dedup_entries_max = 2);
    let mut alice = by_count.sign_in("alice");
    for id in 1..=3 {
        assert!(!alice.publish_with_id("@bob", id, "x").duplicate);
    }
    assert!(alice.publish_with_id("@bob", 2, "x").duplicate);
    assert!(alice.publish_with_id("@bob", 3, "x").duplicate);
    assert!(!alice.publish_with_id("@bob", 1, "x").duplicate, "the oldest went first");
    assert_eq!(by_count.sum(|m| &m.dedup_evicted), 2);
    by_count.finish();
}

#[test]
fn message_has_a_trace_and_any_bytes_then_they_arrive_unchanged() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let longest = "x".repeat(64);
    let all_bytes: Vec<u8> = (0..=255).collect();
    for (payload, trace) in [(&all_bytes[..], Some(trace)), (b"", None), (b"y", Some(longest.as_str()))] {
        alice.try_publish(PublishRequest { topic: "@bob", payload, trace, ..PublishRequest::default() }).unwrap();
        let message = bob.message();
        assert_eq!((&message.payload[..], message.trace.as_deref()), (payload, trace));
    }
    let too_long = "x".repeat(65);
    let too_long = PublishRequest { topic: "@bob", trace: Some(&too_long), ..PublishRequest::default() };
    let refusal = alice.try_publish(too_long).unwrap_err();
    assert_eq!(refusal.code, 107);
    assert!(refusal.message.starts_with("trace: "), "{}", refusal.message);
    gateway.finish();
}

#[test]
fn payload_is_over_the_limit_then_an_error_and_frame_over_the_limit_then_closed() {
    let gateway = Gateway::with(|config| config.settings.client.message_bytes_max = 1000);
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    assert_eq!(alice.connected().message_bytes_max, 1000);
    let payload = vec![b'x'; 36_865];
    let refusal = alice
        .try_publish(PublishRequest { topic: "@bob", payload: &payload[..1001], ..PublishRequest::default() })
        .unwrap_err();
    assert_eq!((refusal.code, refusal.temporary), (106, false));
    alice.publish("@bob", &payload[..1000]);
    assert_eq!(bob.message().payload, &payload[..1000]);
    alice.send_publish(PublishRequest { topic: "@bob", payload: &payload, ..PublishRequest::default() });
    alice.expect_close(3510);
    gateway.finish();
}

#[test]
fn log_is_full_then_publishes_are_refused_until_an_ack() {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(1);
        config.settings.log_bytes_per_shard_max = 10_000;
    });
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    // Each takes 4 KiB and a little.
    let publish = PublishRequest { topic: "@bob", payload: &[0; 3900], ..PublishRequest::default() };
    alice.try_publish(publish).unwrap();
    let second = alice.try_publish(publish).unwrap();
    let refusal = alice.try_publish(publish).unwrap_err();
    assert_eq!((refusal.code, refusal.temporary, refusal.retry_after_ms), (402, true, 1000));
    let elsewhere = alice.try_publish(PublishRequest { topic: "@nobody", ..publish }).unwrap_err();
    assert_eq!((elsewhere.code, gateway.sum(|m| &m.users)), (402, 2), "who could not be written to is not remembered");
    // What is not stored is not refused.
    alice.try_publish(PublishRequest { ephemeral: true, ..publish }).unwrap();
    bob.ack(second.stamp.position);
    // One connection's frames are handled in order, so the Ack is before this answer.
    bob.ping();
    gateway.wait_for("acknowledged", 2, |m| &m.inbox_acked);
    assert_eq!(alice.try_publish(publish).unwrap().stamp.position.offset, 3);
    assert_eq!(bob.messages(4).iter().map(|message| message.offset()).collect::<Vec<_>>(), [1, 2, 0, 3]);
    assert_eq!(gateway.refusals(ErrorCode::StorageFull), 2);
    gateway.finish();
}

#[test]
fn inbox_publish_is_token_then_writing_to_a_user_needs_a_grant() {
    let gateway = Gateway::with(|config| config.settings.inbox.publish_all = false);
    let token = |rooms: &[&str]| {
        let rooms = rooms.iter().map(|room| (*room).to_owned()).collect();
        let spec = TokenSpec {
            user: "alice".into(),
            issued_at: unix_seconds(),
            ttl_seconds: 3600,
            rooms,
            ..TokenSpec::default()
        };
        Login::token(Signer::dev().sign(&spec).unwrap())
    };
    let to = |user: &'static str| PublishRequest { topic: user, payload: b"hi", ..PublishRequest::default() };
    let mut bob = gateway.sign_in("bob");
    let mut alice = gateway.sign_in_with(&token(&[]));
    assert_eq!(alice.try_publish(to("@bob")).unwrap_err().code, 103);
    let mut alice = gateway.sign_in_with(&token(&["chat:*", "@b*"]));
    assert_eq!(alice.try_publish(to("@carol")).unwrap_err().code, 103);
    alice.try_publish(to("@bob")).unwrap();
    assert_eq!(bob.texts(1), ["hi"]);
    assert_eq!(gateway.refusals(ErrorCode::PermissionDenied), 2);
    gateway.finish();
}
