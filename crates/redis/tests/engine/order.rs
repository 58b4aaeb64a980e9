//! Messages: one order, once each, heard of by every node that wants to know.

use ringgate_core::id::{ClientMessageId, Position};
use ringgate_core::shard::{Effect, Event, Origin, ReadRange, Record, Stored};
use ringgate_core::wire::Draft;

use crate::node::{MEMORY, Node, redis, until};

#[test]
fn two_nodes_append_then_all_see_one_order_without_a_hole() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    assert_eq!((a.identity.seed, a.identity.run == b.identity.run), (b.identity.seed, false));
    let epoch = a.loaded("long:x").position.epoch;
    assert_eq!(b.loaded("long:x").position, Position { epoch, offset: 0 });
    let nodes = [&a, &b];
    let tickets: Vec<_> =
        (0..200).map(|n| (n % 2, nodes[n % 2].append(nodes[n % 2].record("long:x", &n.to_string())))).collect();
    let mut offsets: Vec<Vec<u64>> = vec![Vec::new(), Vec::new()];
    for (node, ticket) in tickets {
        match nodes[node].stored(ticket) {
            Ok(Stored::Now(position)) if position.epoch == epoch => offsets[node].push(position.offset),
            other => panic!("{other:?}"),
        }
    }
    assert!(offsets.iter().all(|own| own.is_sorted()), "{offsets:?}");
    let mut all = offsets.concat();
    all.sort_unstable();
    assert_eq!(all, (1..=200).collect::<Vec<u64>>());
    // Each is told what the other has stored, in order.
    for (node, other) in [(0, 1), (1, 0)] {
        let mut arrived = Vec::new();
        while arrived.len() < 100 {
            let (of, message) = nodes[node].arrived("long:x");
            if offsets[other].contains(&message.offset) {
                arrived.push(message.offset);
            }
            assert_eq!(of, epoch);
        }
        assert_eq!(arrived, offsets[other]);
    }
    let read = a.read("long:x", ReadRange::After(0), 1000);
    assert_eq!((read.messages.len(), read.upto, read.more), (128, 128, true), "a page");
    let rest = a.read("long:x", ReadRange::After(128), 1000);
    assert_eq!((rest.messages.len(), rest.upto, rest.more, rest.lost), (72, 200, false, 0));
}

#[test]
fn message_is_repeated_on_another_node_then_it_gets_the_first_answer() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    let first = a.record("@bob", "once");
    let position = a.store(first.clone());
    assert_eq!(position.offset, 1);
    let again = Record { key: first.key, ..b.record("@bob", "once") };
    match b.stored(b.append(again)) {
        Ok(Stored::Before(answered)) => {
            assert_eq!((answered.stamp.position, answered.durability), (position, MEMORY));
            let stamp = Draft::stamp_of(&first.frame).expect("a stamp");
            assert_eq!(
                (answered.stamp.message_id, answered.stamp.timestamp_ms),
                (stamp.message_id, stamp.timestamp_ms)
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(b.loaded("@bob").position, position);
    let other_id = Some(b.key("@bob", ClientMessageId { high: 1, low: 1 }));
    let other = Record { key: other_id, ..b.record("@bob", "twice") };
    assert_eq!(b.store(other).offset, 2);
}

#[test]
fn message_arrives_then_it_is_as_it_was_stored() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    b.loaded("@bob");
    let record = Record { own_ttl: true, ..a.record("@bob", "hello") };
    let position = a.store(record.clone());
    let (epoch, message) = b.arrived("@bob");
    assert_eq!((epoch, message.offset, &message.frame), (position.epoch, position.offset, &record.frame));
    assert_eq!(
        (message.expires_unix_ms, message.own_ttl, message.origin),
        (record.expires_unix_ms, true, record.origin)
    );
    assert_eq!(message.key.map(|key| key.to_bytes()), record.key.map(|key| key.to_bytes()));
    // The node that has stored it needs not be told, and one without interest is told nothing.
    assert_eq!(a.count(|event| matches!(event, Event::Arrived { .. })), 0);
}

#[test]
fn frame_is_relayed_then_the_other_node_is_told_and_nothing_is_stored() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    a.loaded("chat:x");
    b.loaded("chat:x");
    let origin = Origin { run: a.identity.run, session: 9 };
    let frame = a.plain("chat:x", "typing").frame;
    a.ask(Effect::Relay { topic: "chat:x".into(), frame: frame.clone(), origin });
    let relayed = b.wait_for("a relayed frame", |event| match event {
        Event::Relayed { topic, frame, origin } => Some((topic.clone(), frame.clone(), *origin)),
        _ => None,
    });
    assert_eq!(relayed, ("chat:x".into(), frame, origin));
    assert_eq!(b.loaded("chat:x").position.offset, 0);
    assert_eq!(a.count(|event| matches!(event, Event::Relayed { .. })), 0, "its own");
}

#[test]
fn topic_leaves_memory_then_its_channel_is_left_after_a_while_and_heard_again_when_it_is_loaded() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    b.loaded("chat:x");
    b.ask(Effect::Unload { topic: "chat:x".into() });
    let channels = || redis.command(&["PUBSUB", "SHARDCHANNELS", "*:c:chat:x"]).list().len();
    assert_eq!(channels(), 1, "it lingers");
    until("the channel is left", || channels() == 0);
    a.store(a.record("chat:x", "unheard"));
    assert_eq!(b.loaded("chat:x").position.offset, 1);
    a.store(a.record("chat:x", "heard"));
    assert_eq!(b.arrived("chat:x").1.offset, 2);
}

#[test]
fn topic_is_loaded_between_two_attempts_to_publish_to_it_then_its_home_hears_of_the_message() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    let load = concat!(
        include_str!("../../src/scripts/allow_oom.lua"),
        include_str!("../../src/scripts/topic.lua"),
        include_str!("../../src/scripts/load.lua")
    );
    for round in 0..30 {
        // It is not in memory, and its channel is still heard.
        let topic = format!("chat:{round}");
        node.loaded(&topic);
        node.ask(Effect::Unload { topic: topic.as_str().into() });
        // As another node would do meanwhile, only the script that loads is known again.
        redis.command(&["SCRIPT", "FLUSH"]);
        redis.command(&["SCRIPT", "LOAD", load]);
        let ticket = node.append(node.plain(&topic, "to nobody here"));
        let loaded = node.loaded(&topic).position.offset;
        assert!(node.stored(ticket).is_ok());
        if loaded == 0 {
            assert_eq!(node.arrived(&topic).1.offset, 1, "round {round}");
        }
    }
}
