//! Nodes whose clocks differ, from each other and from that of Redis.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use ringgate_core::shard::{DeviceLeft, Effect, Event, Origin, ReadRange, Record};
use ringgate_core::topics::DeviceState;
use ringgate_redis::Options;

use crate::node::{Node, device, options, redis, settings, unix_ms, until};

const APART_MS: u64 = 300_000;

fn ahead() -> u64 {
    unix_ms() + APART_MS
}

fn behind() -> u64 {
    unix_ms() - APART_MS
}

/// Tests run on busy machines.
fn is_near(time_ms: u64, wanted_ms: u64) -> bool {
    time_ms.abs_diff(wanted_ms) < 20_000
}

#[test]
fn clocks_of_two_nodes_are_minutes_apart_then_messages_live_as_long_as_their_publishers_said() {
    let redis = redis();
    let a = Node::with(Options { wall_clock: ahead, ..options(&redis) }, settings(), 1);
    let b = Node::with(Options { wall_clock: behind, ..options(&redis) }, settings(), 2);
    b.loaded("@bob");
    let of = |node: &Node, expires_unix_ms: u64| Record { expires_unix_ms, ..node.record("@bob", "a minute") };
    a.store(of(&a, ahead() + 60_000));
    b.store(of(&b, behind() + 60_000));
    let (_, arrived) = b.arrived("@bob");
    assert!(is_near(arrived.expires_unix_ms, behind() + 60_000), "{arrived:?}");
    for (node, now) in [(&a, ahead as fn() -> u64), (&b, behind)] {
        let loaded = node.loaded("@bob");
        assert_eq!((loaded.position.offset, loaded.state.floor), (2, 0), "nothing has expired");
        assert!(loaded.due_unix_ms.is_some_and(|due| is_near(due, now() + 60_000)), "{loaded:?}");
        let read = node.read("@bob", ReadRange::After(0), 10);
        assert_eq!((read.messages.len(), read.lost), (2, 0));
        assert!(read.messages.iter().all(|message| is_near(message.expires_unix_ms, now() + 60_000)), "{read:?}");
    }
    // What has expired is not there for anybody, however late it is elsewhere.
    a.store(Record { topic: "@eve".into(), ..of(&a, ahead() - 1) });
    let read = b.read("@eve", ReadRange::After(0), 10);
    assert_eq!((read.messages.len(), read.lost), (0, 1));
}

#[test]
fn clocks_of_two_nodes_are_minutes_apart_then_both_know_when_a_device_was_used_last() {
    let redis = redis();
    let a = Node::with(Options { wall_clock: ahead, ..options(&redis) }, settings(), 1);
    let b = Node::with(Options { wall_clock: behind, ..options(&redis) }, settings(), 2);
    let fence = a.claim("bob", "phone");
    let epoch = a.loaded("@bob").position.epoch;
    let state = DeviceState { away_since_ms: Some(ahead() - 40_000), ..device("phone", 0, fence) };
    a.release("bob", "phone", fence, Some(DeviceLeft { epoch, state }));
    let away = |node: &Node| node.loaded("@bob").state.devices.first().and_then(|device| device.away_since_ms);
    until("it is away", || away(&b).is_some());
    for (node, now) in [(&a, ahead as fn() -> u64), (&b, behind)] {
        let away = away(node);
        assert!(away.is_some_and(|away| is_near(away, now() - 40_000)), "{away:?}");
    }
}

#[test]
fn device_is_claimed_at_once_after_the_start_then_the_claim_has_a_bound() {
    let redis = redis();
    let mut watch = TcpStream::connect(redis.address()).expect("a connection");
    watch.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("a timeout");
    watch.write_all(b"MONITOR\r\n").expect("it is asked");
    let mut lines = BufReader::new(watch).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "+OK");
    let node = Node::begin(options(&redis), settings(), 1);
    let session = Origin { run: node.identity.run, session: 1 };
    node.ask(Effect::Claim { claim: 1, user: "bob".into(), device: "phone".into(), session });
    node.wait_for("a claim", |event| matches!(event, Event::Claimed { claim: 1, .. }).then_some(()));
    let line = lines.map(|line| line.expect("text")).find(|line| line.contains("\"bob\" \"phone\"")).expect("a claim");
    let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
    let user = words.iter().position(|word| *word == "bob").expect("it is there");
    let until_ms: u64 = words[user + 7].parse().expect("a time");
    assert!(until_ms > unix_ms() - 60_000 && until_ms < unix_ms() + 60_000, "{line}");
}
