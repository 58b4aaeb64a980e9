//! What rooms keep: by count and by age, for those who come back and for those who ask.

use ringgate_core::id::{Durability, Position};
use ringgate_core::metrics::Recovery;
use ringgate_core::wire::encode::PublishRequest;

use crate::support::{Client, Gateway, History, Message};

fn offsets(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(Message::offset).collect()
}

/// A member who has published so many numbered messages, and the position of the last.
fn publisher(gateway: &Gateway, room: &str, messages: usize) -> (Client, Position) {
    let mut client = gateway.sign_in("publisher");
    client.subscribe(room);
    let mut last = Position::default();
    for number in 1..=messages {
        last = client.publish(room, number.to_string()).stamp.position;
    }
    (client, last)
}

#[test]
fn history_is_full_then_the_newest_are_read_in_pages() {
    let gateway = Gateway::with_namespace("chat", |namespace| namespace.history_size = 3);
    let (_publisher, last) = publisher(&gateway, "chat:a", 5);
    // Nobody needs to be in an open room to ask.
    let mut alice = gateway.sign_in("alice");
    let mut ask = |since: Option<u64>, limit: u32| -> History {
        let since = since.map(|offset| Position { offset, ..last });
        alice.try_history("chat:a", since, limit).unwrap()
    };
    for (since, limit, wanted, more, recovered) in [
        (None, 0, vec![], false, true),
        (None, 10, vec![3, 4, 5], false, true),
        (None, 2, vec![4, 5], true, true),
        (Some(2), 2, vec![3, 4], true, true),
        (Some(4), 2, vec![5], false, true),
        (Some(5), 2, vec![], false, true),
        (Some(1), 2, vec![3, 4], true, false),
        (Some(6), 9, vec![3, 4, 5], false, false),
    ] {
        let history = ask(since, limit);
        let what = format!("after {since:?}, at most {limit}");
        assert_eq!(offsets(&history.messages), wanted, "{what}");
        assert_eq!((history.more, history.recovered, history.position), (more, recovered, last), "{what}");
    }
    let history = ask(None, 1);
    let message = &history.messages[0];
    assert_eq!((message.text().as_str(), message.sender.as_str()), ("5", "publisher"));
    assert_eq!((message.topic.as_str(), history.topic.as_str()), ("chat:a", "chat:a"));
    let other_epoch = Position { epoch: last.epoch + 1, offset: 4 };
    assert!(!alice.try_history("chat:a", Some(other_epoch), 1).unwrap().recovered);
    let nothing = alice.try_history("chat:never", None, 1).unwrap();
    assert_eq!((nothing.position, nothing.messages.len()), (Position::default(), 0));
    gateway.finish();
}

#[test]
fn history_is_large_then_an_answer_has_at_most_256_kib() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let start = alice.subscribe("chat:a").position;
    for _ in 0..6 {
        alice.publish("chat:a", vec![7; 60_000]);
        alice.message();
    }
    let history = alice.try_history("chat:a", Some(start), 300).unwrap();
    assert_eq!((offsets(&history.messages), history.more), (vec![1, 2, 3, 4], true));
    let rest = alice.try_history("chat:a", Some(history.messages[3].stamp.position), 300).unwrap();
    assert_eq!((offsets(&rest.messages), rest.more), (vec![5, 6], false));
    gateway.finish();
}

#[test]
fn history_is_older_than_its_ttl_then_it_is_gone() {
    let gateway = Gateway::with_namespace("chat", |namespace| namespace.history_ttl_ms = 300);
    let (mut publisher, last) = publisher(&gateway, "chat:a", 2);
    crate::support::wait_until("the history is empty", || {
        publisher.try_history("chat:a", None, 10).unwrap().messages.is_empty()
    });
    gateway.wait_for("bytes in logs", 0, |m| &m.log_bytes);
    // Offsets go on, and a position from before the loss is told apart from one behind it.
    let mut alice = gateway.sign_in("alice");
    assert!(!alice.try_subscribe("chat:a", Some(Position { offset: 1, ..last })).unwrap().recovered);
    let mut bob = gateway.sign_in("bob");
    assert!(bob.try_subscribe("chat:a", Some(last)).unwrap().recovered);
    assert_eq!(publisher.publish("chat:a", "3").stamp.position, Position { offset: 3, ..last });
    assert_eq!((alice.texts(1), bob.texts(1)), (vec!["3".to_owned()], vec!["3".to_owned()]));
    gateway.finish();
}

#[test]
fn a_subscriber_that_comes_back_gets_the_gap_and_then_live_messages() {
    let gateway = Gateway::with_namespace("chat", |namespace| namespace.history_size = 200);
    let (mut publisher, last) = publisher(&gateway, "chat:a", 200);
    let mut alice = gateway.sign_in("alice");
    let subscribed = alice.try_subscribe("chat:a", Some(Position { offset: 20, ..last })).unwrap();
    assert_eq!((subscribed.recovered, subscribed.position), (true, last));
    for number in 201..=220 {
        publisher.publish("chat:a", number.to_string());
    }
    assert_eq!(offsets(&alice.messages(200)), (21..=220).collect::<Vec<_>>());
    assert_eq!(
        (gateway.sum(|m| &m.recoveries[Recovery::Whole]), gateway.sum(|m| &m.recoveries[Recovery::Lost])),
        (1, 0)
    );
    gateway.finish();
}

#[test]
fn gap_cannot_be_filled_then_recovered_is_false_and_only_live_messages_come() {
    let gateway = Gateway::with_namespace("chat", |namespace| namespace.history_size = 3);
    let (mut publisher, last) = publisher(&gateway, "chat:a", 5);
    let lost = [
        Position { offset: 1, ..last },
        Position { offset: 6, ..last },
        Position { epoch: last.epoch + 1, offset: 5 },
        Position { epoch: 0, offset: 0 },
    ];
    let mut clients: Vec<_> = (0..lost.len()).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    for (client, since) in clients.iter_mut().zip(lost) {
        let subscribed = client.try_subscribe("chat:a", Some(since)).unwrap();
        assert_eq!((subscribed.recovered, subscribed.position), (false, last), "{since:?}");
    }
    publisher.publish("chat:a", "6");
    for client in &mut clients {
        assert_eq!(client.message().offset(), 6);
    }
    assert_eq!(
        (gateway.sum(|m| &m.recoveries[Recovery::Whole]), gateway.sum(|m| &m.recoveries[Recovery::Lost])),
        (0, 4)
    );
    gateway.finish();
}

#[test]
fn publisher_resumes_without_echo_then_it_hears_the_others() {
    let gateway = Gateway::with_namespace("chat", |namespace| namespace.echo = false);
    let (mut publisher, last) = publisher(&gateway, "chat:a", 3);
    let mut bob = gateway.sign_in("bob");
    bob.subscribe("chat:a");
    bob.publish("chat:a", "4");
    publisher.publish("chat:a", "5");
    publisher.try_unsubscribe("chat:a").unwrap();
    let start = Position { offset: 0, ..last };
    assert!(publisher.try_subscribe("chat:a", Some(start)).unwrap().recovered);
    // The live one before it left, then the gap without what this session has published itself.
    assert_eq!(publisher.texts(2), ["4", "4"]);
    bob.publish("chat:a", "6");
    assert_eq!(publisher.texts(1), ["6"]);
    gateway.finish();
}

#[test]
fn namespace_has_no_log_then_no_history() {
    let gateway = Gateway::with_namespace("live", |namespace| {
        namespace.durability = Durability::Ephemeral;
        namespace.history_size = 0;
    });
    let mut alice = gateway.sign_in("alice");
    alice.subscribe("live:a");
    let payload = b"now";
    let publish = PublishRequest { topic: "live:a", payload, ..PublishRequest::default() };
    let published = alice.try_publish(publish).unwrap();
    assert_eq!((published.durability, published.stamp.position.offset), (0, 0));
    assert_eq!(alice.message().stamp, published.stamp);
    assert_eq!(alice.try_history("live:a", None, 1).unwrap_err().code, 108);
    assert_eq!(gateway.sum(|m| &m.log_bytes), 0);
    gateway.finish();
}

#[test]
fn vanish_when_empty_is_on_then_the_room_goes_with_its_last_member() {
    for vanishes in [true, false] {
        let gateway = Gateway::with_namespace("chat", |namespace| namespace.vanish_when_empty = vanishes);
        let (mut publisher, last) = publisher(&gateway, "chat:a", 2);
        publisher.try_unsubscribe("chat:a").unwrap();
        if vanishes {
            gateway.wait_for("rooms", 0, |m| &m.rooms);
            assert_eq!(gateway.sum(|m| &m.log_bytes), 0);
        }
        let subscribed = publisher.try_subscribe("chat:a", Some(Position { offset: 1, ..last })).unwrap();
        assert_eq!(subscribed.recovered, !vanishes);
        assert_eq!(subscribed.position.epoch == last.epoch, !vanishes);
        assert_eq!(subscribed.position.offset, if vanishes { 0 } else { 2 });
        gateway.finish();
    }
}

#[test]
fn history_of_an_inbox_then_only_its_user_may_read_it() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    for number in 1..=3 {
        alice.publish("@bob", number.to_string());
    }
    let mut bob = gateway.sign_in("bob");
    let history = bob.try_history("@bob", None, 10).unwrap();
    assert_eq!((offsets(&history.messages), history.position), (vec![1, 2, 3], bob.connected().inbox));
    assert_eq!(alice.try_history("@bob", None, 10).unwrap_err().code, 103);
    assert_eq!(offsets(&bob.messages(3)), [1, 2, 3]);
    assert_eq!(gateway.sum(|m| &m.inbox_acked), 0, "reading acknowledges nothing");
    gateway.finish();
}
