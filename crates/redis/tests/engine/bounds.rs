//! What is bounded: the time of a publisher, sessions of a user, what a user who never signs in takes, and what waits while Redis is away.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringgate_core::shard::{DeviceLeft, Effect, MemberChange, Stored, Unclaimed, Unstored};
use ringgate_redis::WhenAway;
use ringgate_test_servers::{Append, Options, Server};

use crate::node::{Node, device, members_of, options, presence, redis, settings, state_of, until};

fn key_of(redis: &Server, pattern: &str) -> String {
    redis.command(&["KEYS", pattern]).list()[0].text().expect("a key")
}

fn number(redis: &Server, words: &[&str]) -> u64 {
    redis.command(words).integer().and_then(|number| u64::try_from(number).ok()).expect("a number")
}

#[test]
fn redis_answers_too_slowly_then_messages_that_were_not_sent_are_refused_at_their_deadline() {
    const MESSAGES: usize = 3000;
    let redis = redis();
    let wait = ringgate_redis::Options {
        when_away: WhenAway::Wait(Duration::from_secs(1)),
        command_timeout: Duration::from_secs(20),
        ..options(&redis)
    };
    let node = Node::with(wait, settings(), 1);
    let first = node.store(node.plain("chat:x", "first")).offset;
    redis.pause();
    let start = Instant::now();
    let tickets: Vec<u64> = (0..MESSAGES).map(|_| node.append(node.record("chat:x", "late"))).collect();
    let is_refused = |ticket: &u64| node.stored(*ticket) == Err(Unstored::Away);
    // Those under way are more than this, and are not decided yet: Redis may have them.
    let late = &tickets[MESSAGES - 1500..];
    assert!(late.iter().all(is_refused));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    redis.resume();
    assert!(node.stored(tickets[0]).is_ok());
    until("it stores again", || match node.stored(node.append(node.plain("chat:x", "last"))) {
        Ok(Stored::Now(position)) => position.offset > first,
        _ => false,
    });
    assert_eq!(node.status.reconnects.load(Ordering::Relaxed), 0, "it was slow, and not away");
}

#[test]
fn user_has_as_many_sessions_as_are_allowed_on_all_nodes_then_another_device_is_not_claimed() {
    let redis = redis();
    let mut settings = settings();
    settings.client.sessions_per_user_max = 2;
    let nodes = [1, 2, 3].map(|number| Node::with(options(&redis), settings.clone(), number));
    let laptop = nodes[0].claim("bob", "laptop");
    nodes[1].claim("bob", "phone");
    assert_eq!(nodes[2].try_claim("bob", "tablet"), Err(Unclaimed::TooMany));
    assert_eq!(nodes[0].try_claim("bob", "tablet"), Err(Unclaimed::TooMany));
    nodes[2].claim("bob", "phone");
    nodes[2].claim("eve", "phone");
    nodes[0].release("bob", "laptop", laptop, None);
    until("the laptop is released", || nodes[1].try_claim("bob", "tablet").is_ok());
}

#[test]
fn user_has_never_signed_in_then_few_messages_are_kept_for_a_day() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let redis = Server::start(&Options { lines: vec!["stream-node-max-entries 10".to_owned()], ..Options::default() });
    let mut settings = settings();
    settings.inbox.unknown_messages_max = 30;
    let node = Node::with(options(&redis), settings, 1);
    node.store_some("@nobody", 60);
    node.store_some("chat:x", 1);
    let (stream, state) = (key_of(&redis, "*:s:@nobody"), key_of(&redis, "*:t:@nobody"));
    let length = number(&redis, &["XLEN", &stream]);
    assert!((30..=40).contains(&length), "{length}");
    for key in [&stream, &state] {
        let ttl = number(&redis, &["PTTL", key]);
        assert!((DAY_MS / 2..=DAY_MS).contains(&ttl), "{ttl}");
    }
    let room = number(&redis, &["PTTL", &key_of(&redis, "*:s:chat:x")]);
    assert!(room >= 60_000, "{room}");
    // The user signs in.
    let fence = node.claim("nobody", "phone");
    let epoch = node.loaded("@nobody").position.epoch;
    node.cursor("@nobody", epoch, state_of(vec![device("phone", 0, fence)]));
    node.loaded("@nobody");
    node.store_some("@nobody", 60);
    let length = number(&redis, &["XLEN", &stream]);
    assert!(length >= 90, "{length}");
    for key in [&stream, &state] {
        let ttl = number(&redis, &["PTTL", key]);
        assert!(ttl > DAY_MS, "{ttl}");
    }
}

#[test]
fn messages_of_an_inbox_are_large_then_its_bytes_are_bounded_and_those_that_left_are_told() {
    const BYTES_MAX: usize = 256 * 1024;
    let redis = redis();
    let mut settings = settings();
    settings.inbox.bytes_max = BYTES_MAX;
    let node = Node::with(options(&redis), settings, 1);
    let fence = node.claim("bob", "phone");
    let epoch = node.loaded("@bob").position.epoch;
    node.cursor("@bob", epoch, state_of(vec![device("phone", 0, fence)]));
    let text = "x".repeat(8 * 1024);
    for _ in 0..100 {
        node.store(node.record("@bob", &text));
    }
    let bytes = number(&redis, &["MEMORY", "USAGE", &key_of(&redis, "*:s:@bob"), "SAMPLES", "0"]);
    assert!((BYTES_MAX as u64 / 2..BYTES_MAX as u64 * 3 / 2).contains(&bytes), "{bytes}");
    let state = node.loaded("@bob").state;
    assert!(state.floor > 50 && state.lost == state.floor, "{state:?}");
}

#[test]
fn sessions_end_while_redis_is_away_then_one_release_of_each_device_waits_and_is_told() {
    let mut redis = Server::start(&Options { append: Append::Always, ..Options::default() });
    let node = Node::start(&redis, 1);
    let fence = node.claim("bob", "phone");
    let epoch = node.loaded("@bob").position.epoch;
    node.cursor("@bob", epoch, state_of(vec![device("phone", 0, fence)]));
    node.store_some("@bob", 3);
    node.loaded("@bob");
    redis.kill();
    node.wait_until_away();
    for cursor in 0..5000 {
        let state = device("phone", cursor % 3, fence);
        node.ask_when_there_is_room(Effect::Cursor {
            topic: "@bob".into(),
            epoch,
            state: Box::new(state_of(vec![state.clone()])),
        });
        let left = Some(Box::new(DeviceLeft { epoch, state }));
        let (user, device) = ("bob".into(), "phone".into());
        node.ask_when_there_is_room(Effect::Release { user, device, fence: fence - 1, left });
    }
    let left = Some(DeviceLeft { epoch, state: device("phone", 2, fence) });
    node.release("bob", "phone", fence, left);
    // Looked at by the next tick.
    until("it was refused", || node.load("chat:y").is_err());
    assert!(node.status.buffered.load(Ordering::Relaxed) < 100, "{:?}", node.status.buffered);
    redis.restart();
    node.wait_until_up();
    until("the device is away", || node.loaded("@bob").state.devices[0].away_since_ms.is_some());
    assert_eq!(node.status.given_up.load(Ordering::Relaxed), 0);
}

#[test]
fn node_has_ended_a_while_ago_then_its_members_leave_the_room_in_redis() {
    let redis = redis();
    let (node, gone) = (Node::start(&redis, 1), Node::start(&redis, 2));
    for (node, session) in [(&node, 1), (&gone, 2)] {
        let member = Some(("bob".into(), "phone".into()));
        let changes = vec![MemberChange { session, member }];
        node.ask(Effect::Members { topic: "chat:x".into(), count: 1, changes, anew: false });
    }
    until("both are told", || members_of(&node, "chat:x") == 2);
    let run = format!("{:016x}", gone.identity.run);
    gone.stop();
    // Its lease ended two minutes ago, and what it has told is older than that.
    let (leases, nodes) = (key_of(&redis, "*:leases"), key_of(&redis, "*:p:chat:x"));
    let ended = crate::node::unix_ms() - 120_000;
    redis.command(&["ZADD", &leases, &ended.to_string(), &run]);
    redis.command(&["HSET", &nodes, &run, &format!("1 {}", ended / 1000)]);
    until("its members are taken out", || {
        assert!(presence(&node, "chat:x", 10).0 <= 2);
        number(&redis, &["HLEN", &nodes]) == 1
    });
    assert!(redis.command(&["KEYS", &format!("*:m:{run}:chat:x")]).list().is_empty());
    assert_eq!(members_of(&node, "chat:x"), 1);
}
