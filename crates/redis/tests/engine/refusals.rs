//! Redis answers and stores nothing: messages are refused with the reason, sessions go on, and so do messages when it can again.

use std::sync::atomic::Ordering;

use ringgate_core::shard::{Effect, Event, Origin, Unclaimed, Unstored};
use ringgate_redis::Refuses;
use ringgate_test_servers::{ClientKind, Server};

use crate::node::{Node, device, redis, state_of, until};

fn key_of(redis: &Server, pattern: &str) -> String {
    redis.command(&["KEYS", pattern]).list()[0].text().expect("a key")
}

/// Two nodes that have Bob's inbox loaded. His phone is signed in on the first one, with the fence that comes last.
fn two_nodes_and_bob(redis: &Server) -> (Node, Node, u64) {
    let (node, other) = (Node::start(redis, 1), Node::start(redis, 2));
    let fence = node.claim("bob", "phone");
    let epoch = node.loaded("@bob").position.epoch;
    node.cursor("@bob", epoch, state_of(vec![device("phone", 0, fence)]));
    other.loaded("@bob");
    (node, other, fence)
}

#[test]
fn memory_is_full_then_messages_are_refused_and_sessions_go_on() {
    let redis = redis();
    let (node, other, fence) = two_nodes_and_bob(&redis);
    redis.config_set("maxmemory", "1");
    let record = node.record("@bob", "again");
    assert_eq!(node.stored(node.append(record.clone())), Err(Unstored::Memory));
    let to_a_new_room = node.append(node.plain("chat:new", "without an id"));
    assert_eq!(node.stored(to_a_new_room), Err(Unstored::Memory));
    assert_eq!(node.status.refuses(), Some(Refuses::Memory));
    assert!(node.status.refused_memory.load(Ordering::Relaxed) > 0);
    // A session ends and another one begins, of a user who is known and of one who is not.
    node.release("bob", "phone", fence, None);
    assert!(other.claim("bob", "phone") > fence);
    node.claim("eve", "laptop");
    let epoch = node.loaded("@eve").position.epoch;
    assert!(epoch > 0);
    let origin = Origin { run: node.identity.run, session: 5 };
    node.ask(Effect::Relay { topic: "@bob".into(), frame: node.plain("@bob", "typing").frame, origin });
    other.wait_for("a relayed frame", |event| matches!(event, Event::Relayed { .. }).then_some(()));
    // Leases are renewed: nobody is taken for ended.
    let leases = key_of(&redis, "*:leases");
    let ends = || redis.command(&["ZRANGE", &leases, "0", "-1", "WITHSCORES"]).list().to_vec();
    let before = ends();
    until("leases are renewed", || ends() != before);
    redis.config_set("maxmemory", "0");
    assert_eq!(node.store(record).offset, 1);
    until("it is said that it stores again", || node.status.refuses().is_none());
    assert_eq!(node.status.reconnects.load(Ordering::Relaxed), 0, "without a new connection");
}

#[test]
fn disk_cannot_be_written_then_messages_are_refused_and_nobody_is_taken_for_ended() {
    let redis = redis();
    let (node, other, fence) = two_nodes_and_bob(&redis);
    // What is written is to replace a folder.
    redis.config_set("save", "3600 1");
    let in_the_way = redis.folder().join("dump.rdb");
    let _ = std::fs::remove_file(&in_the_way);
    std::fs::create_dir(&in_the_way).expect("a folder");
    std::fs::write(in_the_way.join("full"), "").expect("a file");
    redis.command(&["BGSAVE"]);
    let last = || redis.info("persistence").get("rdb_last_bgsave_status").cloned();
    until("it could not be written", || last().as_deref() == Some("err"));
    let record = node.record("@bob", "again");
    assert_eq!(node.stored(node.append(record.clone())), Err(Unstored::Disk));
    assert_eq!(node.status.refuses(), Some(Refuses::Disk));
    assert_eq!(node.try_claim("eve", "laptop"), Err(Unclaimed::Unavailable));
    node.release("bob", "phone", fence, None);
    std::fs::remove_dir_all(&in_the_way).expect("it is empty");
    redis.command(&["BGSAVE"]);
    until("it could be written", || last().as_deref() == Some("ok"));
    assert_eq!(node.store(record).offset, 1);
    until("it is said that it stores again", || node.status.refuses().is_none());
    until("the release is told now", || other.loaded("@bob").state.devices[0].away_since_ms.is_some());
    assert_eq!(node.status.reconnects.load(Ordering::Relaxed), 0, "without a new connection");
}

#[test]
fn release_is_refused_for_an_unknown_reason_then_it_is_told_again() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    let fence = node.claim("bob", "phone");
    let epoch = node.loaded("@bob").position.epoch;
    node.cursor("@bob", epoch, state_of(vec![device("phone", 0, fence)]));
    node.loaded("@bob");
    let key = key_of(&redis, "*:t:@bob");
    let aside = format!("{key}:aside");
    redis.command(&["RENAME", &key, &aside]);
    redis.command(&["SET", &key, "no hash"]);
    node.release("bob", "phone", fence, None);
    until("it is refused", || node.status.refused_other.load(Ordering::Relaxed) > 0);
    redis.command(&["RENAME", &aside, &key]);
    until("it is told again", || node.loaded("@bob").state.devices[0].away_since_ms.is_some());
    assert_eq!(node.status.given_up.load(Ordering::Relaxed), 0);
}

#[test]
fn replicas_are_too_few_then_messages_are_refused_and_a_new_connection_is_taken_all_the_same() {
    let redis = redis();
    let (node, other) = (Node::start(&redis, 1), Node::start(&redis, 2));
    other.loaded("@bob");
    redis.config_set("min-replicas-to-write", "1");
    let record = node.record("@bob", "again");
    assert_eq!(node.stored(node.append(record.clone())), Err(Unstored::Replicas));
    assert_eq!(node.status.refuses(), Some(Refuses::Replicas));
    redis.kill_clients(ClientKind::Normal);
    until("it is connected again", || {
        [&node, &other].iter().all(|node| node.status.reconnects.load(Ordering::Relaxed) > 0)
    });
    let origin = Origin { run: node.identity.run, session: 5 };
    until("messages in no log go on", || {
        let frame = node.plain("@bob", "typing").frame;
        node.ask(Effect::Relay { topic: "@bob".into(), frame, origin });
        other.count(|event| matches!(event, Event::Relayed { .. })) > 0
    });
    assert_eq!(node.stored(node.append(record.clone())), Err(Unstored::Replicas));
    redis.config_set("min-replicas-to-write", "0");
    assert_eq!(node.store(record).offset, 1);
    until("it is said that it stores again", || node.status.refuses().is_none());
}
