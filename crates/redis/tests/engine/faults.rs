//! Redis is killed, paused, full, or forgets: nothing is lost that was answered, nothing is stored twice, and no place is given twice.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringgate_core::id::Position;
use ringgate_core::shard::{
    Effect, EngineUnavailable, Event, Origin, ReadMessages, ReadRange, Record, Stored, Unstored,
};
use ringgate_redis::{StartError, WhenAway, connect};
use ringgate_test_servers::{Append, ClientKind, Options, Server};

use crate::node::{Node, device, options, redis, settings, state_of, until};

fn durable() -> Server {
    Server::start(&Options { append: Append::Always, ..Options::default() })
}

fn key_of(redis: &Server, pattern: &str) -> String {
    redis.command(&["KEYS", pattern]).list()[0].text().expect("a key")
}

/// Texts of all messages of a topic, in order, page by page.
fn all_messages(node: &Node, topic: &str) -> Vec<(u64, bytes::Bytes)> {
    let (mut after, mut all) = (node.loaded(topic).state.floor, Vec::new());
    loop {
        let page = node.read(topic, ReadRange::After(after), 100);
        all.extend(page.messages.into_iter().map(|message| (message.offset, message.frame)));
        if !page.more {
            return all;
        }
        after = page.upto;
    }
}

#[test]
fn redis_without_a_file_is_killed_then_the_topic_begins_a_new_epoch_and_its_homes_are_told() {
    let mut redis = redis();
    let node = Node::start(&redis, 1);
    node.store_some("chat:x", 3);
    let before = node.loaded("chat:x").position;
    redis.kill();
    node.wait_until_away();
    redis.restart();
    node.wait_until_up();
    node.wait_for("a change", |event| matches!(event, Event::Changed { topic } if **topic == *"chat:x").then_some(()));
    let record = Record { position: before, ..node.record("chat:x", "after") };
    let position = node.store(record);
    assert!(position.epoch > before.epoch && position.offset == 1, "{before:?} {position:?}");
    assert_eq!(node.loaded("chat:x").position, position);
    let old = ReadMessages {
        topic: "chat:x".into(),
        epoch: before.epoch,
        range: ReadRange::After(0),
        messages_max: 9,
        bytes_max: 9,
    };
    assert!(matches!(node.try_read(old), Err(EngineUnavailable)), "offsets of an epoch that has ended");
}

#[test]
fn redis_with_a_file_is_killed_then_all_that_was_answered_is_there_and_offsets_go_on_in_a_new_epoch() {
    let mut redis = durable();
    let node = Node::start(&redis, 1);
    let phone = node.claim("bob", "phone");
    let before = node.loaded("@bob").position;
    node.store_some("@bob", 5);
    node.cursor("@bob", before.epoch, state_of(vec![device("phone", 2, phone)]));
    node.loaded("@bob");
    let messages = all_messages(&node, "@bob");
    redis.kill();
    node.wait_until_away();
    redis.restart();
    node.wait_until_up();
    let loaded = node.loaded("@bob");
    assert!(loaded.position.epoch > before.epoch && loaded.position.offset == 5, "{loaded:?}");
    assert_eq!((loaded.state.floor, loaded.state.known), (2, true));
    assert_eq!(loaded.before, [Position { epoch: before.epoch, offset: 5 }]);
    assert_eq!(loaded.state.devices, [device("phone", 2, phone)]);
    assert_eq!(all_messages(&node, "@bob"), messages);
    assert_eq!(node.store(node.record("@bob", "next")), Position { epoch: loaded.position.epoch, offset: 6 });
    let entries = redis.command(&["XRANGE", &key_of(&redis, "*:s:@bob"), "-", "+"]);
    assert_eq!(entries.list().len(), 4, "those of the old epoch are gone");
}

/// Ends connections of commands again and again while messages are stored.
fn connections_are_cut(has_ids: bool) {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    let nodes = [&a, &b];
    let topic = "long:x";
    let mut frames = Vec::new();
    for round in 0..20 {
        let mut tickets = Vec::new();
        for number in 0..20 {
            let node = nodes[number % 2];
            let text = format!("{round} {number}");
            let record = if has_ids { node.record(topic, &text) } else { node.plain(topic, &text) };
            frames.push(record.frame.clone());
            tickets.push((node, node.append(record)));
            if number == 10 {
                redis.kill_clients(ClientKind::Normal);
            }
        }
        let mut places = [Vec::new(), Vec::new()];
        for (at, (node, ticket)) in tickets.into_iter().enumerate() {
            match node.stored(ticket) {
                Ok(Stored::Now(position)) => places[at % 2].push(position.offset),
                Ok(Stored::Before(answered)) => places[at % 2].push(answered.stamp.position.offset),
                Err(why) => panic!("{at} of round {round}: {why:?}"),
            }
        }
        assert!(places.iter().all(|places| places.is_sorted()), "each node's messages keep their order: {places:?}");
    }
    let stored: Vec<_> = all_messages(&a, topic).into_iter().map(|(_, frame)| frame).collect();
    let (stored_once, sent): (BTreeSet<_>, BTreeSet<_>) = (stored.iter().collect(), frames.iter().collect());
    assert_eq!((stored.len(), stored_once), (frames.len(), sent), "each once");
}

#[test]
fn connections_are_cut_then_messages_with_ids_are_stored_once_and_in_order() {
    connections_are_cut(true);
}

#[test]
fn connections_are_cut_then_messages_without_ids_are_stored_once_and_in_order() {
    connections_are_cut(false);
}

#[test]
fn connection_for_news_is_cut_then_topics_are_said_to_have_changed_and_are_heard_again() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    let topics: Vec<String> = (0..600).map(|number| format!("chat:{number}")).collect();
    topics.iter().for_each(|topic| drop(a.loaded(topic)));
    assert!(redis.kill_clients(ClientKind::Pubsub) >= 2);
    for topic in &topics {
        a.wait_for("a change", |event| {
            matches!(event, Event::Changed { topic: told } if **told == **topic).then_some(())
        });
    }
    assert_eq!(a.status.resubscriptions.load(Ordering::Relaxed), 600);
    b.store(b.record("chat:7", "heard"));
    assert_eq!(a.arrived("chat:7").1.offset, 1);
}

#[test]
fn messages_in_no_log_come_faster_than_redis_takes_them_then_a_bounded_number_waits_and_the_rest_is_given_up() {
    const RELAYED: u64 = 40_000;
    const WAITING_MAX: u64 = 16 * 1024;
    let redis = redis();
    let node = Node::with(
        ringgate_redis::Options { command_timeout: Duration::from_secs(20), ..options(&redis) },
        settings(),
        1,
    );
    redis.pause();
    let origin = Origin { run: node.identity.run, session: 5 };
    for _ in 0..RELAYED {
        node.ask_when_there_is_room(Effect::Relay {
            topic: "chat:x".into(),
            frame: bytes::Bytes::from_static(b"typing"),
            origin,
        });
    }
    let [waiting, given_up] = [&node.status.buffered, &node.status.given_up];
    // Those that were sent before Redis stood still are neither.
    until("all of them have been looked at", || {
        let waiting = waiting.load(Ordering::Relaxed);
        waiting + given_up.load(Ordering::Relaxed) + 2 * 1024 >= RELAYED
    });
    assert!(waiting.load(Ordering::Relaxed) <= WAITING_MAX, "{waiting:?} wait");
    redis.resume();
    node.store_some("chat:x", 1);
}

#[test]
fn redis_is_emptied_then_a_node_that_starts_later_has_the_seed_of_those_that_live() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    let seed = key_of(&redis, "*seed");
    redis.command(&["FLUSHALL"]);
    until("the seed stands there again", || {
        redis.command(&["GET", &seed]).text() == Some(node.identity.seed.to_string())
    });
    assert_eq!(Node::start(&redis, 2).identity.seed, node.identity.seed);
}

#[test]
fn redis_is_paused_then_what_was_under_way_is_stored_once_and_the_rest_is_refused() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    node.loaded("chat:x");
    redis.pause();
    let with_id = node.record("chat:x", "id");
    let without = node.plain("chat:x", "no id");
    let under_way = [node.append(with_id.clone()), node.append(without.clone())];
    node.wait_until_away();
    let refused = node.append(node.record("chat:x", "refused"));
    assert_eq!(node.stored(refused), Err(Unstored::Away));
    assert!(node.load("chat:y").is_err());
    redis.resume();
    let places: Vec<u64> = under_way
        .map(|ticket| match node.stored(ticket) {
            Ok(Stored::Now(position)) => position.offset,
            Ok(Stored::Before(answered)) => answered.stamp.position.offset,
            Err(error) => panic!("{error:?}"),
        })
        .into();
    assert_eq!(places, [1, 2]);
    node.wait_until_up();
    let frames: Vec<_> = all_messages(&node, "chat:x").into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(frames, [with_id.frame, without.frame]);
}

#[test]
fn redis_is_away_then_everything_is_answered_at_once() {
    let mut redis = redis();
    let node = Node::start(&redis, 1);
    let epoch = node.loaded("chat:x").position.epoch;
    redis.kill();
    until("it has been away for a while", || {
        let ticket = node.append(node.record("chat:x", "refused"));
        node.stored(ticket).is_err()
    });
    let start = std::time::Instant::now();
    for _ in 0..10 {
        assert!(node.stored(node.append(node.record("chat:x", "refused"))).is_err());
        assert!(node.load("chat:y").is_err());
        let read =
            ReadMessages { topic: "chat:x".into(), epoch, range: ReadRange::After(0), messages_max: 9, bytes_max: 9 };
        assert!(node.try_read(read).is_err());
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let (user, device) = ("bob".into(), "phone".into());
    node.ask(Effect::Claim { claim: 1, user, device, session: Origin { run: node.identity.run, session: 1 } });
    node.wait_for("a claim", |event| matches!(event, Event::Claimed { claim: 1, result: Err(_) }).then_some(()));
    assert!(node.status.refused_away.load(Ordering::Relaxed) >= 10);
    redis.restart();
    node.wait_until_up();
    node.store(node.record("chat:x", "taken"));
}

#[test]
fn messages_may_wait_then_they_are_stored_in_order_when_redis_is_back_or_refused_in_time() {
    let mut redis = durable();
    let wait = ringgate_redis::Options { when_away: WhenAway::Wait(Duration::from_secs(25)), ..options(&redis) };
    let node = Node::with(wait, settings(), 1);
    let first = node.store(node.record("chat:x", "first"));
    redis.kill();
    node.wait_until_away();
    let tickets: Vec<u64> = (0..50).map(|number| node.append(node.record("chat:x", &number.to_string()))).collect();
    redis.restart();
    let places: Vec<u64> = tickets
        .into_iter()
        .map(|ticket| match node.stored(ticket) {
            Ok(Stored::Now(position)) => position.offset,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places, (first.offset + 1..=51).collect::<Vec<u64>>());
    drop(node);
    let wait = ringgate_redis::Options { when_away: WhenAway::Wait(Duration::from_millis(1500)), ..options(&redis) };
    let node = Node::with(wait, settings(), 2);
    redis.kill();
    node.wait_until_away();
    assert_eq!(node.stored(node.append(node.record("chat:x", "late"))), Err(Unstored::Away));
}

#[test]
fn scripts_are_forgotten_then_messages_are_stored_all_the_same_and_in_order() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    let mut tickets = Vec::new();
    for number in 0..300 {
        if number % 50 == 25 {
            redis.command(&["SCRIPT", "FLUSH"]);
        }
        tickets.push(node.append(node.record("long:x", &number.to_string())));
    }
    let places: Vec<u64> = tickets
        .into_iter()
        .map(|ticket| match node.stored(ticket) {
            Ok(Stored::Now(position)) => position.offset,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places, (1..=300).collect::<Vec<u64>>());
    assert_eq!(node.status.reconnects.load(Ordering::Relaxed), 0, "without a new connection");
}

#[test]
fn stream_has_expired_then_the_next_message_begins_a_new_epoch() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    let before = node.store(node.record("chat:x", "old"));
    redis.command(&["DEL", &key_of(&redis, "*:s:chat:x")]);
    let after = node.store(node.record("chat:x", "new"));
    assert!(after.epoch > before.epoch && after.offset == 1, "{before:?} {after:?}");
    redis.command(&["DEL", &key_of(&redis, "*:s:chat:x")]);
    let loaded = node.loaded("chat:x").position;
    assert!(loaded.epoch > after.epoch && loaded.offset == 0, "{after:?} {loaded:?}");
    assert_eq!(node.store(node.record("chat:x", "newer")), Position { epoch: loaded.epoch, offset: 1 });
}

#[test]
fn server_becomes_a_replica_then_it_is_away_until_it_is_a_master_again() {
    let (redis, other) = (redis(), redis());
    let node = Node::start(&redis, 1);
    let before = node.store(node.record("chat:x", "old"));
    redis.command(&["REPLICAOF", "127.0.0.1", &other.address().port().to_string()]);
    node.wait_until_away();
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    node.wait_until_up();
    let after = node.store(Record { position: before, ..node.record("chat:x", "new") });
    assert!(after.epoch > before.epoch, "{before:?} {after:?}");
}

#[test]
fn replica_does_not_have_a_message_in_time_then_its_publisher_hears_that_it_may_have_been_stored() {
    let (redis, replicas) = Server::start_with_replicas(&Options::default(), 1);
    let wants = ringgate_redis::Options { replicas_min: 1, ..options(&redis) };
    let node = Node::with(wants, settings(), 1);
    assert_eq!(node.store(node.record("chat:x", "first")).offset, 1);
    replicas[0].pause();
    let record = node.record("chat:x", "second");
    // It is: nothing takes it out of the stream again, and other nodes have heard of it.
    assert_eq!(node.stored(node.append(record.clone())), Err(Unstored::Unknown));
    assert_eq!(node.loaded("chat:x").position.offset, 2);
    assert_eq!(node.status.refused_replicas.load(Ordering::Relaxed), 1);
    replicas[0].resume();
    until("the replica has what it was sent", || match node.stored(node.append(record.clone())) {
        Ok(Stored::Before(answered)) => answered.stamp.position.offset == 2,
        Ok(Stored::Now(position)) => panic!("twice: {position:?}"),
        Err(why) => {
            assert_eq!(why, Unstored::Unknown);
            false
        }
    });
    assert_eq!(node.store(node.plain("chat:x", "third")).offset, 3);
    assert_eq!(node.status.reconnects.load(Ordering::Relaxed), 0, "a replica that is late does not end the connection");
}

#[test]
fn mailbox_is_full_then_answers_wait_and_come_in_order() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    node.fill_mailboxes(true);
    let tickets: Vec<u64> = (0..100).map(|number| node.append(node.record("chat:x", &number.to_string()))).collect();
    until("answers wait", || node.status.events_waiting.load(Ordering::Relaxed) == 100);
    node.fill_mailboxes(false);
    let places: Vec<u64> = tickets
        .into_iter()
        .map(|_| {
            node.wait_for("an answer", |event| match event {
                Event::Stored { result: Ok(Stored::Now(position)), .. } => Some(position.offset),
                _ => None,
            })
        })
        .collect();
    assert_eq!(places, (1..=100).collect::<Vec<u64>>());
}

#[test]
fn entry_cannot_be_read_then_it_is_counted_and_the_others_are_read() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    node.store_some("chat:x", 1);
    let epoch = node.loaded("chat:x").position.epoch;
    redis.command(&[
        "XADD",
        &key_of(&redis, "*:s:chat:x"),
        &format!("{epoch}-*"),
        "m",
        "from the future, with enough bytes",
    ]);
    node.store_some("chat:x", 1);
    let read = node.read("chat:x", ReadRange::After(0), 10);
    let offsets: Vec<u64> = read.messages.iter().map(|message| message.offset).collect();
    assert_eq!((offsets, read.lost, node.status.damaged.load(Ordering::Relaxed)), (vec![1, 3], 2, 1));
}

#[test]
fn what_stands_in_redis_is_damaged_then_the_one_who_asks_is_refused_and_the_connection_stays() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    let record = node.record("@bob", "again");
    let position = node.store(record.clone());
    // The name of a claim is no text.
    let set = |value: &str| {
        let script = "for _, key in ipairs(redis.call('KEYS', '*:k:*')) do redis.call('SET', key, ARGV[1]) end";
        redis.command(&["EVAL", script, "0", value])
    };
    set("damaged");
    assert_eq!(node.stored(node.append(record.clone())), Err(Unstored::Unknown));
    set("");
    assert_eq!(node.store(record).offset, position.offset + 1, "an empty claim is none");
    redis.command(&["HSET", &key_of(&redis, "*:t:@bob"), "d:phone", "damaged"]);
    assert!(node.loaded("@bob").state.devices.is_empty());
    node.claim("bob", "phone");
    redis.command(&["HSET", &key_of(&redis, "*:t:@bob"), "b", "damaged"]);
    assert!(node.load("@bob").is_err());
    node.store_some("chat:x", 1);
    assert_eq!(node.status.reconnects.load(Ordering::Relaxed), 0, "without a new connection");
}

#[test]
fn topic_is_asked_for_that_nobody_has_used_then_it_is_known_for_an_hour_at_most() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    node.loaded("chat:x");
    let left = || redis.command(&["PTTL", &key_of(&redis, "*:t:chat:x")]).integer().expect("a time");
    assert!((1..=3_600_000).contains(&left()), "{}", left());
    node.store_some("chat:x", 1);
    assert!(left() > 3_600_000, "{}", left());
}

#[test]
fn room_vanishes_then_its_keys_expire_unless_a_node_has_it() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    node.store_some("brief:x", 1);
    for kind in ["s", "t"] {
        let left = redis.command(&["PTTL", &key_of(&redis, &format!("*:{kind}:brief:x"))]).integer().expect("a time");
        assert!((60_000..=120_000).contains(&left), "{kind}: {left}");
    }
}

#[test]
fn node_cannot_share_redis_then_it_is_told_why() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    let other = ringgate_redis::Options { partitions: 128, ..options(&redis) };
    let error = connect(&other, 2).expect_err("another number of partitions");
    assert!(matches!(error, StartError::Format { .. }), "{error}");
    let apart = ringgate_redis::Options { prefix: "other".to_owned(), ..other };
    let apart = connect(&apart, 1).expect("another prefix");
    assert_ne!(apart.seed, node.identity.seed);
    let error = connect(&options(&redis), 1).expect_err("the number is taken");
    assert!(matches!(error, StartError::NumberTaken(1)), "{error}");
    // A node that stops gives its number back at once.
    node.stop();
    let start = std::time::Instant::now();
    connect(&options(&redis), 1).expect("the number is free");
    assert!(start.elapsed() < Duration::from_secs(5));
    let replica = redis.start_replica();
    let error = connect(&options(&replica), 3).expect_err("a replica");
    assert!(error.to_string().contains("it is a slave, and a master is needed"), "{error}");
}
