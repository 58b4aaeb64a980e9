//! Epochs of a Redis that has forgotten those before and whose clock is behind: no place is given twice.

use ringgate_core::id::Position;
use ringgate_core::shard::{Event, Record};
use ringgate_test_servers::Server;

use crate::node::{Node, redis, unix_ms, until};

/// A Redis whose epochs are an hour ahead of its clock, as those of another one that it takes the place of.
fn redis_with_epochs_ahead() -> Server {
    let redis = redis();
    Node::start(&redis, 9).stop();
    let ahead = (unix_ms() + 3_600_000).to_string();
    for key in redis.command(&["KEYS", "*:g"]).list() {
        redis.command(&["HSET", &key.text().expect("a key"), "e", &ahead]);
    }
    redis
}

fn flush(redis: &Server) {
    redis.command(&["FLUSHALL"]);
    // Nodes that live bring it back; one that starts before would have another.
    until("the seed stands there again", || !redis.command(&["KEYS", "*seed"]).list().is_empty());
}

#[test]
fn redis_is_emptied_and_its_clock_is_behind_then_no_place_of_a_known_epoch_is_given_again() {
    let redis = redis_with_epochs_ahead();
    let a = Node::start(&redis, 1);
    a.store_some("chat:x", 3);
    let before = a.loaded("chat:x").position;
    assert!(before.epoch > unix_ms() + 3_000_000, "{before:?}");
    flush(&redis);
    // A node that has never heard of the room begins an older epoch; the first is told of it.
    let b = Node::start(&redis, 2);
    let older = b.store(b.record("chat:x", "older"));
    assert!(older.epoch < before.epoch && older.offset == 1, "{before:?} {older:?}");
    let arrived = a.wait_for("news", |event| match event {
        Event::Arrived { epoch, message, .. } if *epoch == older.epoch => Some(message.offset),
        _ => None,
    });
    assert_eq!(arrived, 1);
    let newer = a.store(Record { position: before, ..a.record("chat:x", "newer") });
    assert!(newer.epoch > before.epoch && newer.offset == 2, "{before:?} {newer:?}");
    let loaded = b.loaded("chat:x");
    assert_eq!((loaded.position, loaded.before), (newer, vec![Position { epoch: older.epoch, offset: 1 }]));
    // All messages of the older one have left, and its stream is there.
    flush(&redis);
    b.store(b.record("chat:y", "older"));
    let key = redis.command(&["KEYS", "*:s:chat:y"]).list()[0].text().expect("a key");
    redis.command(&["XTRIM", &key, "MAXLEN", "0"]);
    let known = Position { epoch: before.epoch, offset: 7 };
    let newer = a.store(Record { position: known, ..a.record("chat:y", "newer") });
    assert!(newer.epoch > known.epoch && newer.offset == 1, "{newer:?}");
}

#[test]
fn redis_is_emptied_and_its_clock_is_behind_then_a_topic_is_loaded_with_an_epoch_above_the_known_one() {
    let redis = redis_with_epochs_ahead();
    let a = Node::start(&redis, 1);
    a.store_some("chat:x", 3);
    let before = a.loaded("chat:x").position;
    flush(&redis);
    let loaded = a.loaded("chat:x").position;
    assert!(loaded.epoch > before.epoch && loaded.offset == 0, "{before:?} {loaded:?}: the engine has heard of it");
    let above = a.load_above("chat:new", before.epoch + 5).expect("it is loaded").position;
    assert!(above.epoch > before.epoch + 5, "{above:?}: its home says so");
}

#[test]
fn redis_is_started_empty_and_its_clock_is_behind_then_all_epochs_are_above_those_that_its_nodes_know() {
    let mut redis = redis_with_epochs_ahead();
    let node = Node::start(&redis, 1);
    node.store_some("chat:x", 3);
    let before = node.loaded("chat:x").position;
    redis.kill();
    node.wait_until_away();
    redis.restart();
    node.wait_until_up();
    let other = node.store(node.record("chat:other", "of a topic that nobody knows"));
    assert!(other.epoch > before.epoch, "{before:?} {other:?}");
    // Another connection to the same server begins nothing.
    redis.kill_clients(ringgate_test_servers::ClientKind::Normal);
    assert_eq!(node.store(node.record("chat:other", "next")), Position { offset: 2, ..other });
}
