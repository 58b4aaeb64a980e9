//! The inbox of a user: offline messages, cursors, repetition, resume, what falls out of it.

use ringgate_core::id::Position;
use ringgate_core::metrics::ExpireReason;
use ringgate_core::metrics::{DropReason, Recovery};
use ringgate_core::wire::encode::PublishRequest;

use crate::support::{Gateway, Login, Message};

fn offsets(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(Message::offset).collect()
}

#[test]
fn user_was_away_then_stored_messages_come_in_order_before_live_ones() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    for text in ["one", "two", "three"] {
        alice.publish("@bob", text);
    }
    assert_eq!(gateway.sum(|m| &m.inbox_stored_offline), 3);
    let mut bob = gateway.sign_in("bob");
    assert_eq!((bob.connected().inbox.offset, bob.connected().inbox_recovered), (3, true));
    alice.publish("@bob", "four");
    let messages = bob.messages(4);
    assert_eq!(messages.iter().map(Message::text).collect::<Vec<_>>(), ["one", "two", "three", "four"]);
    assert_eq!(offsets(&messages), [1, 2, 3, 4]);
    assert_eq!(bob.connected().inbox.epoch, messages[0].stamp.position.epoch);
    gateway.wait_for("stored", 4, |m| &m.inbox_stored);
    gateway.finish();
}

#[test]
fn device_reconnects_then_it_gets_exactly_what_it_has_not_acknowledged() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    for text in ["1", "2", "3"] {
        alice.publish("@bob", text);
    }
    let seen = bob.messages(3);
    bob.ack(seen[0].stamp.position);
    gateway.wait_for("acknowledged", 1, |m| &m.inbox_acked);
    drop(bob);
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    alice.publish("@bob", "4");
    let mut bob = gateway.sign_in("bob");
    alice.publish("@bob", "5");
    let again = bob.messages(4);
    assert_eq!(again[..2], seen[1..], "the same stamps");
    assert_eq!(offsets(&again), [2, 3, 4, 5]);
    bob.ack(again[3].stamp.position);
    gateway.wait_for("waiting", 0, |m| &m.inbox_pending);
    assert_eq!(gateway.sum(|m| &m.inbox_acked), 5);
    // Nothing is owed any more: the next message is the next one.
    drop(bob);
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    let mut bob = gateway.sign_in("bob");
    assert_eq!(bob.connected().inbox.offset, 5);
    alice.publish("@bob", "6");
    assert_eq!(bob.message().offset(), 6);
    gateway.finish();
}

#[test]
fn ack_says_nothing_new_then_it_is_ignored() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    for text in ["1", "2", "3"] {
        alice.publish("@bob", text);
    }
    let at = bob.messages(3)[1].stamp.position;
    bob.ack(Position { epoch: at.epoch + 1, ..at });
    bob.ack(Position { offset: 0, ..at });
    bob.ack(at);
    bob.ack(Position { offset: 1, ..at });
    bob.ack(at);
    gateway.wait_for("Ack frames", 5, |m| &m.acks);
    gateway.wait_for("acknowledged", 2, |m| &m.inbox_acked);
    drop(bob);
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    let mut bob = gateway.sign_in("bob");
    assert_eq!(bob.message().offset(), 3);
    assert_eq!((gateway.sum(|m| &m.inbox_acked), gateway.sum(|m| &m.inbox_pending)), (2, 1));
    gateway.finish();
}

/// As by a client that has kept more than has come again on this connection.
#[test]
fn ack_is_ahead_of_what_was_sent_then_it_counts_for_what_was_sent() {
    let gateway = Gateway::with(|config| config.settings.inbox.in_flight_max = 2);
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    for text in ["1", "2", "3", "4"] {
        alice.publish("@bob", text);
    }
    let at = bob.messages(2)[1].stamp.position;
    bob.ack(Position { offset: 99, ..at });
    assert_eq!(offsets(&bob.messages(2)), [3, 4]);
    gateway.wait_for("acknowledged", 2, |m| &m.inbox_acked);
    gateway.finish();
}

#[test]
fn one_device_has_acknowledged_then_the_message_stays_for_the_other() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut phone = gateway.sign_in_with(&Login::user("bob").device("phone"));
    let mut tablet = gateway.sign_in_with(&Login::user("bob").device("tablet"));
    let position = alice.publish("@bob", "hi").stamp.position;
    phone.message();
    phone.ack(position);
    // The home answers behind the Ack.
    phone.try_history("@bob", None, 1).unwrap();
    drop(tablet);
    gateway.wait_for("sessions", 2, |m| &m.sessions_active);
    assert_eq!(gateway.sum(|m| &m.inbox_acked), 0);
    tablet = gateway.sign_in_with(&Login::user("bob").device("tablet"));
    assert_eq!(tablet.message().offset(), 1);
    tablet.ack(position);
    gateway.wait_for("acknowledged", 1, |m| &m.inbox_acked);
    gateway.finish();
}

#[test]
fn message_is_not_acknowledged_in_time_then_it_is_sent_again() {
    let gateway = Gateway::with(|config| {
        config.settings.inbox.ack_wait_ms = 200;
        config.settings.inbox.ack_wait_ms_max = 400;
    });
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    // Both at once, so that no repetition of the first comes between.
    alice.send(|encoder, out| {
        for payload in [b"1", b"2"] {
            encoder.publish(out, &PublishRequest { topic: "@bob", payload, ..PublishRequest::default() });
        }
    });
    let first = bob.messages(2);
    for _ in 0..2 {
        assert_eq!(bob.messages(2), first, "the same messages with the same stamps");
    }
    assert!(gateway.sum(|m| &m.retries) >= 2);
    bob.ack(first[1].stamp.position);
    gateway.wait_for("waiting", 0, |m| &m.inbox_pending);
    // An Ack that moves the cursor ends the repetition: what comes now is whole repetitions that were under way, and
    // then only the next message.
    alice.publish("@bob", "3");
    let mut later = Vec::new();
    while later.last() != Some(&3) {
        later.push(bob.message().offset());
    }
    let under_way = later.len() - 1;
    assert_eq!(later[..under_way], [1, 2].repeat(under_way / 2));
    gateway.finish();
}

#[test]
fn connect_has_a_position_then_messages_after_it_come_and_it_counts_as_an_ack() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    for number in 1..=5 {
        alice.publish("@bob", number.to_string());
    }
    let mut bob = gateway.sign_in("bob");
    let seen = bob.messages(5);
    drop(bob);
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    let mut bob = gateway.sign_in_with(&Login::user("bob").resume(seen[2].stamp.position));
    assert!(bob.connected().inbox_recovered);
    gateway.wait_for("acknowledged", 3, |m| &m.inbox_acked);
    alice.publish("@bob", "6");
    assert_eq!(offsets(&bob.messages(3)), [4, 5, 6]);
    assert_eq!(
        (gateway.sum(|m| &m.recoveries[Recovery::Whole]), gateway.sum(|m| &m.recoveries[Recovery::Lost])),
        (1, 0)
    );
    gateway.finish();
}

#[test]
fn log_does_not_reach_the_position_then_recovered_is_false() {
    let gateway = Gateway::with(|config| config.settings.inbox.messages_max = 3);
    let mut alice = gateway.sign_in("alice");
    let mut last = Position::default();
    for number in 1..=5 {
        last = alice.publish("@bob", number.to_string()).stamp.position;
    }
    assert_eq!(gateway.sum(|m| &m.inbox_expired[ExpireReason::Count]), 2);
    for (position, recovered) in [
        (Position { epoch: last.epoch + 1, ..last }, false),
        (Position { offset: 6, ..last }, false),
        (Position { offset: 1, ..last }, false),
        (Position { offset: 2, ..last }, true),
    ] {
        let mut bob = gateway.sign_in_with(&Login::user("bob").resume(position));
        assert_eq!((bob.connected().inbox_recovered, bob.connected().inbox), (recovered, last), "{position:?}");
        assert_eq!(offsets(&bob.messages(3)), [3, 4, 5], "everything there still is");
    }
    assert_eq!(
        (gateway.sum(|m| &m.recoveries[Recovery::Whole]), gateway.sum(|m| &m.recoveries[Recovery::Lost])),
        (1, 3)
    );
    gateway.finish();
}

#[test]
fn message_has_passed_its_own_ttl_then_those_after_it_come() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let brief = |topic| PublishRequest { topic, payload: b"brief", ttl_seconds: 1, ..PublishRequest::default() };
    // Of a user who never signed in, an empty inbox would be forgotten.
    drop(gateway.sign_in("carol"));
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    alice.publish("@bob", "1");
    alice.try_publish(brief("@bob")).unwrap();
    alice.publish("@bob", "3");
    alice.try_publish(brief("@carol")).unwrap();
    gateway.wait_for("expired", 2, |m| &m.inbox_expired[ExpireReason::Age]);
    let mut bob = gateway.sign_in("bob");
    assert_eq!(bob.connected().inbox.offset, 3);
    assert_eq!(offsets(&bob.messages(2)), [1, 3]);
    let mut carol = gateway.sign_in("carol");
    assert_eq!(carol.connected().inbox.offset, 1);
    alice.publish("@carol", "2");
    assert_eq!(carol.message().offset(), 2);
    // Acknowledging past the hole empties the log.
    bob.ack(Position { offset: 3, ..bob.connected().inbox });
    gateway.wait_for("waiting", 1, |m| &m.inbox_pending);
    gateway.finish();
}

#[test]
fn messages_and_then_users_are_forgotten_when_they_are_too_old() {
    let gateway = Gateway::with(|config| config.settings.inbox.ttl_ms = 300);
    let mut alice = gateway.sign_in("alice");
    let lost = alice.publish("@bob", "never read").stamp.position;
    gateway.wait_for("expired", 1, |m| &m.inbox_expired[ExpireReason::Age]);
    // Only alice, who is connected, is still known.
    gateway.wait_for("users", 1, |m| &m.users);
    let mut bob = gateway.sign_in_with(&Login::user("bob").resume(Position { offset: 0, ..lost }));
    assert!(!bob.connected().inbox_recovered);
    assert_eq!(bob.connected().inbox.offset, 0);
    assert_ne!(bob.connected().inbox.epoch, lost.epoch, "a new log is a new epoch");
    assert_eq!(alice.publish("@bob", "new").stamp.position.offset, 1);
    assert_eq!(bob.texts(1), ["new"]);
    gateway.finish();
}

#[test]
fn device_was_forgotten_for_others_then_it_is_told_that_it_lost_messages() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let tablet = Login::user("bob").device("tablet");
    drop(gateway.sign_in_with(&tablet));
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    let last = (0..5).map(|number| alice.publish("@bob", number.to_string()).stamp.position).last().unwrap();
    // As many other devices as are known come by and read. The first 31 know the tablet, and leave it its messages.
    for number in 0..32 {
        let mut browser = gateway.sign_in_with(&Login::user("bob").device(&format!("browser{number}")));
        assert!(browser.connected().inbox_recovered || number == 31);
        if number < 31 {
            assert_eq!(offsets(&browser.messages(5)), [1, 2, 3, 4, 5]);
            browser.ack(last);
            // The home answers behind the Ack.
            browser.try_history("@bob", None, 1).unwrap();
            assert_eq!(gateway.sum(|m| &m.inbox_pending), 5);
        }
        drop(browser);
        gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    }
    assert_eq!(gateway.sum(|m| &m.inbox_expired[ExpireReason::Device]), 5);
    assert_eq!((gateway.sum(|m| &m.inbox_acked), gateway.sum(|m| &m.inbox_pending)), (0, 0));
    let mut back = gateway.sign_in_with(&tablet);
    assert_eq!((back.connected().inbox_recovered, back.connected().inbox), (false, last));
    alice.publish("@bob", "6");
    assert_eq!(back.message().offset(), 6);
    // A device with a position need not be known.
    let known = gateway.sign_in_with(&Login::user("bob").device("watch").resume(last));
    assert!(known.connected().inbox_recovered);
    gateway.finish();
}

#[test]
fn message_is_ephemeral_then_only_connected_devices_get_it() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    let typing = PublishRequest { topic: "@bob", payload: b"typing", ephemeral: true, ..PublishRequest::default() };
    let published = alice.try_publish(typing).unwrap();
    assert_eq!((published.durability, published.stamp.position.offset), (0, 0));
    assert_eq!(bob.message().stamp, published.stamp);
    drop(bob);
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    alice.try_publish(typing).unwrap();
    let mut bob = gateway.sign_in("bob");
    alice.publish("@bob", "stored");
    let first = bob.message();
    assert_eq!((first.offset(), first.text().as_str()), (1, "stored"));
    assert_eq!(gateway.sum(|m| &m.inbox_stored), 1);
    // Names are free to make up: nobody is remembered for having been written to in passing.
    for number in 0..100 {
        let topic = format!("@nobody{number}");
        let published = alice.try_publish(PublishRequest { topic: &topic, ..typing }).unwrap();
        assert_eq!((published.durability, published.stamp.position), (0, Position::default()));
    }
    assert_eq!(gateway.sum(|m| &m.users), 2);
    gateway.finish();
}

#[test]
fn in_flight_max_is_reached_then_no_more_messages_are_sent() {
    let gateway = Gateway::with(|config| config.settings.inbox.in_flight_max = 4);
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    for number in 1..=10 {
        alice.publish("@bob", number.to_string());
    }
    // An ephemeral message does not overtake those that wait, and nothing keeps it: it is dropped, and counted.
    alice
        .try_publish(PublishRequest { topic: "@bob", payload: b"now", ephemeral: true, ..PublishRequest::default() })
        .unwrap();
    gateway.wait_for("dropped", 1, |m| &m.deliveries_dropped[DropReason::Slow]);
    let first = bob.messages(4);
    assert_eq!(offsets(&first), [1, 2, 3, 4]);
    assert_eq!(gateway.sum(|m| &m.deliveries_deferred), 6);
    bob.ack(first[1].stamp.position);
    let next = bob.messages(2);
    assert_eq!(offsets(&next), [5, 6]);
    bob.ack(next[1].stamp.position);
    let rest = bob.messages(4);
    assert_eq!(offsets(&rest), [7, 8, 9, 10]);
    gateway.wait_for("deferred", 0, |m| &m.deliveries_deferred);
    // Caught up: live again.
    bob.ack(rest[3].stamp.position);
    alice.publish("@bob", "11");
    assert_eq!(bob.message().offset(), 11);
    gateway.finish();
}
