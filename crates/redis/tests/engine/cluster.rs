//! A Cluster of three masters: slots move, masters die, and each topic keeps its order.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringgate_core::shard::{Event, ReadRange, Stored, Unstored};
use ringgate_redis::{Options, Server, Servers, WhenAway, connect};
use ringgate_test_servers::{self as servers, Append, Cluster, Program};

use crate::node::{Node, options, redis, settings, until};

/// With one node of the Cluster to ask where the others are. A slot that moves may take its time.
fn reach(cluster: &Cluster) -> Options {
    let server = Server { host: "127.0.0.1".to_owned(), port: cluster.nodes[1].address().port() };
    let servers = Servers::Cluster(vec![server]);
    Options { servers, command_timeout: Duration::from_secs(20), ..Options::default() }
}

/// Without the rule that all slots have to be served before any is.
fn partly_usable() -> servers::Options {
    let lines = vec!["cluster-require-full-coverage no".to_owned()];
    servers::Options { lines, append: Append::Always, ..servers::Options::default() }
}

/// The slot of a topic in which a message was stored.
fn slot_of(cluster: &Cluster, topic: &str) -> u16 {
    let running = cluster.nodes.iter().filter(|node| node.is_running());
    let pattern = format!("*:s:{topic}");
    let keys = running.map(|node| node.command(&["KEYS", &pattern]));
    let key = keys.filter_map(|keys| keys.list().first()?.text()).next().expect("a stream of the topic");
    cluster.slot_of(&key)
}

/// Topics by the place of their master in the Cluster: as many for each.
fn topics_of_masters(cluster: &Cluster, node: &Node, of_each: usize) -> BTreeMap<usize, Vec<String>> {
    let mut topics = BTreeMap::<usize, Vec<String>>::new();
    for number in 0.. {
        let topic = format!("long:{number}");
        node.store_some(&topic, 1);
        let owner = cluster.owner_of(slot_of(cluster, &topic)).expect("a master");
        topics.entry(owner).or_default().push(topic);
        if topics.len() == 3 && topics.values().all(|topics| topics.len() >= of_each) {
            break;
        }
    }
    topics
}

fn frames(node: &Node, topic: &str) -> Vec<bytes::Bytes> {
    let (mut after, mut all) = (node.loaded(topic).state.floor, Vec::new());
    loop {
        let page = node.read(topic, ReadRange::After(after), 100);
        all.extend(page.messages.into_iter().map(|message| message.frame));
        if !page.more {
            return all;
        }
        after = page.upto;
    }
}

fn nodes_exchange_messages(cluster: &Cluster) {
    let (a, b) = (Node::with(reach(cluster), settings(), 1), Node::with(reach(cluster), settings(), 2));
    assert_eq!(a.identity.seed, b.identity.seed);
    for number in 0..60 {
        let topic = format!("chat:{number}");
        b.loaded(&topic);
        for (node, offset) in [(&a, 1), (&b, 2), (&a, 3)] {
            assert_eq!(node.store(node.record(&topic, &offset.to_string())).offset, offset);
        }
        assert_eq!(b.arrived(&topic).1.offset, 1);
        // Its own may come, too, where it overtakes its answer.
        until("the last message arrives", || b.arrived(&topic).1.offset == 3);
    }
    // The node with the older session of a device is told to end it, whichever master serves the user's slot.
    for number in 0..12 {
        let user = format!("user{number}");
        let older = a.claim(&user, "phone");
        assert!(b.claim(&user, "phone") > older);
        a.wait_for("the older session is told", |event| {
            matches!(event, Event::Evict { user: told, fence, .. } if **told == *user && *fence > older).then_some(())
        });
    }
    for node in &cluster.nodes {
        assert!(node.calls("spublish") > 0, "each master tells news");
        assert_eq!(node.calls("publish"), 0, "and tells them to no other server");
    }
    assert_eq!([&a, &b].map(|node| node.status.reconnects.load(Ordering::Relaxed)), [0, 0]);
}

#[test]
fn nodes_share_a_cluster_then_topics_of_all_masters_have_one_order() {
    nodes_exchange_messages(&Cluster::start(&servers::Options::default(), false));
}

#[test]
fn nodes_share_a_cluster_of_valkey_then_topics_of_all_masters_have_one_order() {
    let valkey = servers::Options { program: Program::Valkey, ..servers::Options::default() };
    nodes_exchange_messages(&Cluster::start(&valkey, false));
}

#[test]
fn slots_move_while_messages_flow_then_none_is_lost_doubled_or_out_of_order_and_news_are_heard_again() {
    let cluster = Cluster::start(&servers::Options::default(), false);
    let wait = Options { when_away: WhenAway::Wait(Duration::from_secs(25)), ..reach(&cluster) };
    let (a, b) = (Node::with(wait.clone(), settings(), 1), Node::with(wait.clone(), settings(), 2));
    let listener = Node::with(wait, settings(), 3);
    let topic = "long:moves";
    let first = a.record(topic, "first");
    let mut frames_sent = [vec![first.frame.clone()], Vec::new()];
    a.store(first);
    listener.loaded(topic);
    let slot = slot_of(&cluster, topic);
    let home = cluster.owner_of(slot).expect("a master");
    let nodes = [&a, &b];
    let places = std::thread::scope(|scope| {
        let moved = scope.spawn(|| {
            for to in [1, 2, 0] {
                cluster.move_slot(slot, (home + to) % 3);
            }
        });
        let (mut round, mut places) = (0, [Vec::new(), Vec::new()]);
        while !moved.is_finished() || round < 20 {
            let mut tickets = Vec::new();
            for number in 0..20 {
                let (at, text) = (number % 2, format!("{round} {number}"));
                let node = nodes[at];
                let record = if number % 3 == 0 { node.plain(topic, &text) } else { node.record(topic, &text) };
                frames_sent[at].push(record.frame.clone());
                tickets.push((at, node.append(record)));
            }
            for (at, ticket) in tickets {
                match nodes[at].stored(ticket) {
                    Ok(Stored::Now(position)) => places[at].push(position),
                    other => panic!("round {round}: {other:?}"),
                }
            }
            round += 1;
        }
        moved.join().expect("the slot moves");
        places
    });
    for places in &places {
        assert!(places.is_sorted_by_key(|place| (place.epoch, place.offset)), "{places:?}");
        assert!(places.is_sorted_by_key(|place| place.offset) && places.iter().all(|place| place.offset > 1));
    }
    let stored = frames(&a, topic);
    assert_eq!(stored.len(), frames_sent.iter().map(Vec::len).sum::<usize>(), "each once");
    for sent in &frames_sent {
        let own: Vec<_> = stored.iter().filter(|frame| sent.contains(frame)).collect();
        assert!(own.iter().eq(&sent.iter().collect::<Vec<_>>()), "each node's messages in its order");
    }
    // It was told that its subscription had ended, by the server or with the new master.
    listener.wait_for("a change", |event| {
        matches!(event, Event::Changed { topic: told } if **told == *topic).then_some(())
    });
    let last = b.store(b.record(topic, "heard"));
    until("the last message is heard", || listener.arrived(topic).1.offset == last.offset);
    assert!(listener.status.resubscriptions.load(Ordering::Relaxed) > 0);
    assert_eq!(a.status.reconnects.load(Ordering::Relaxed), 0, "without a new connection");
}

#[test]
fn master_dies_and_its_replica_takes_over_then_what_was_answered_is_there_and_new_epochs_begin() {
    let mut cluster = Cluster::start(&partly_usable(), true);
    let wait = WhenAway::Wait(Duration::from_secs(25));
    let options = Options { when_away: wait, command_timeout: Duration::from_secs(4), ..reach(&cluster) };
    let node = Node::with(options, settings(), 1);
    let topics = topics_of_masters(&cluster, &node, 1);
    let topic = &topics[&0][0];
    node.store_some(topic, 9);
    let (before, frames_before) = (node.loaded(topic).position, frames(&node, topic));
    assert_eq!((before.offset, frames_before.len()), (10, 10));
    let offset =
        |node: &servers::Server, of: &str| node.info("replication").get(of).and_then(|text| text.parse::<u64>().ok());
    let written = offset(&cluster.nodes[0], "master_repl_offset");
    until("the replica has all of it", || offset(&cluster.nodes[3], "slave_repl_offset") >= written);
    cluster.nodes[0].kill();
    node.wait_until_away();
    let tickets: Vec<u64> = (0..20).map(|number| node.append(node.record(topic, &number.to_string()))).collect();
    let places: Vec<_> = tickets
        .into_iter()
        .map(|ticket| match node.stored(ticket) {
            Ok(Stored::Now(position)) => position,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(places.iter().all(|place| place.epoch > before.epoch), "{before:?} {places:?}");
    assert_eq!(places.iter().map(|place| place.offset).collect::<Vec<_>>(), (11..=30).collect::<Vec<_>>());
    assert_eq!(frames(&node, topic)[..10], frames_before);
    node.wait_until_up();
}

#[test]
fn master_of_the_leases_dies_without_a_replica_then_its_partitions_alone_are_refused_until_it_is_back() {
    let mut cluster = Cluster::start(&partly_usable(), false);
    let options = Options { command_timeout: Duration::from_secs(2), ..reach(&cluster) };
    let (node, other) = (Node::with(options.clone(), settings(), 1), Node::with(options.clone(), settings(), 2));
    let topics = topics_of_masters(&cluster, &node, 2);
    topics.values().flatten().for_each(|topic| drop(other.loaded(topic)));
    let dead = cluster.owner_of(cluster.slot_of("rg:{nodes}:seed")).expect("a master");
    let address = cluster.nodes[dead].address();
    cluster.nodes[dead].kill();
    node.wait_until_away();
    until("the master that is away is named", || {
        node.status.away().contains(&format!("Redis at {address} does not answer"))
    });
    until("what it has is refused", || {
        node.stored(node.append(node.record(&topics[&dead][0], "refused"))) == Err(Unstored::Away)
    });
    let start = Instant::now();
    for (at, topics) in &topics {
        for topic in topics {
            let stored = node.stored(node.append(node.record(topic, "while it is away")));
            assert_eq!(stored.is_ok(), *at != dead, "{topic}: {stored:?}");
            assert_eq!(node.load(topic).is_ok(), *at != dead, "{topic}");
            if *at != dead {
                other.arrived(topic);
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(10), "at once: {:?}", start.elapsed());
    let error = connect(&options, 3).expect_err("nobody keeps the numbers of nodes").to_string();
    assert!(error.contains(&address.to_string()), "{error}");
    cluster.nodes[dead].restart();
    cluster.wait_until_whole();
    node.wait_until_up();
    assert_eq!(node.status.away(), "");
    for topic in topics.values().flatten() {
        node.store(node.record(topic, "whole again"));
    }
}

#[test]
fn cluster_is_down_then_messages_wait_for_it_and_keep_their_order() {
    let cluster = Cluster::start(&servers::Options::default(), false);
    let wait = WhenAway::Wait(Duration::from_secs(25));
    let node = Node::with(Options { when_away: wait, ..reach(&cluster) }, settings(), 1);
    let topics = topics_of_masters(&cluster, &node, 1);
    let topic = &topics[&2][0];
    // A slot without a master, for the node that had it: it answers CLUSTERDOWN to everything.
    let last = (servers::SLOTS - 1).to_string();
    cluster.nodes[2].command(&["CLUSTER", "DELSLOTS", &last]);
    until("the node calls the Cluster down", || {
        cluster.nodes[2].try_command(&["GET", "{nodes}"]).is_err_and(|error| error.to_string().contains("CLUSTERDOWN"))
    });
    let tickets: Vec<u64> = (0..50).map(|number| node.append(node.record(topic, &number.to_string()))).collect();
    node.wait_until_away();
    assert!(node.status.away().contains("refuses"), "{}", node.status.away());
    cluster.nodes[2].command(&["CLUSTER", "ADDSLOTS", &last]);
    let places: Vec<u64> = tickets
        .into_iter()
        .map(|ticket| match node.stored(ticket) {
            Ok(Stored::Now(position)) => position.offset,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places, (2..=51).collect::<Vec<u64>>());
    node.wait_until_up();
    assert_eq!(node.status.reconnects.load(Ordering::Relaxed), 0, "without a new connection");
}

#[test]
fn server_is_of_the_other_kind_then_the_node_is_told() {
    let (redis, cluster) = (redis(), Cluster::start(&servers::Options::default(), false));
    let server = |address: std::net::SocketAddr| Server { host: "127.0.0.1".to_owned(), port: address.port() };
    let alone = Options { servers: Servers::Standalone(server(cluster.nodes[0].address())), ..options(&redis) };
    let error = connect(&alone, 1).expect_err("a node of a Cluster").to_string();
    assert!(error.contains("it is a node of a Cluster"), "{error}");
    let as_cluster = Options { servers: Servers::Cluster(vec![server(redis.address())]), ..options(&redis) };
    let error = connect(&as_cluster, 1).expect_err("no Cluster").to_string();
    assert!(error.contains("cluster support disabled"), "{error}");
}
