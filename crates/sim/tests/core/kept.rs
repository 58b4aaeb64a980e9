//! What is kept at a topic's home: messages, cursors, positions; for how long, and what a client is told when it is gone.

use ringgate_core::close::CloseReason;
use ringgate_core::id::{Durability, Position};
use ringgate_core::limits::{HISTORY_BYTES_MAX, Settings};
use ringgate_core::metrics::{ExpireReason, ForgetReason};
use ringgate_core::wire::encode::PublishRequest;

use ringgate_sim::{Client, Got, World, offsets, settings, settings_with_namespace};

const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

fn settings_with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = settings();
    change(&mut settings);
    settings
}

fn expired(world: &World, reason: ExpireReason) -> u64 {
    world.sum(|m| &m.inbox_expired[reason])
}

fn forgotten(world: &World, reason: ForgetReason) -> u64 {
    world.sum(|m| &m.topics_forgotten[reason])
}

/// A device that comes, acknowledges all that it is brought, and goes: what it was told, the offsets it was brought, and
/// the newest position.
fn visit(world: &mut World, user: &str, device: &str, inbox: Option<Position>) -> (bool, Vec<u64>, Position) {
    let (client, position, recovered, mut got) = world.connect(0, user, device, inbox);
    let mut brought = Vec::new();
    while let Some(last) = offsets(&got).last() {
        brought.extend(offsets(&got));
        world.ack(client, Position { offset: *last, ..position });
        got = world.read_all(client);
    }
    world.ack(client, position);
    world.leave(client);
    world.check();
    (recovered, brought, position)
}

/// Somebody in a room, and the position of the room when they joined.
fn member(world: &mut World, user: &str, room: &str) -> (Client, Position) {
    let client = world.sign_in(0, user);
    let (position, ..) = world.subscribe(client, room, None);
    (client, position)
}

#[test]
fn messages_waited_then_they_come_in_order_at_sign_in() {
    for shards in [1, 3] {
        let mut world = World::new(shards, settings());
        let alice = world.sign_in(0, "alice");
        for text in ["one", "two", "three"] {
            world.publish(alice, "@bob", text.as_bytes());
        }
        let (bob, inbox, recovered, got) = world.connect(shards - 1, "bob", "phone", None);
        assert_eq!((inbox.offset, recovered, offsets(&got)), (3, true, vec![1, 2, 3]));
        world.ack(bob, inbox);
        assert_eq!(world.sum(|m| &m.inbox_acked), 3);
        world.check();
    }
}

// Devices.

#[test]
fn one_device_too_many_connects_then_the_one_away_longest_is_forgotten_and_told_so() {
    let mut world = World::new(1, settings());
    let alice = world.sign_in(0, "alice");
    for (device, at_ms) in [("phone", 10), ("tablet", 10), ("phone", 10)] {
        world.pass(at_ms);
        visit(&mut world, "bob", device, None);
    }
    for _ in 0..5 {
        world.publish(alice, "@bob", b"x");
    }
    for number in 0..30 {
        world.pass(10);
        assert_eq!(visit(&mut world, "bob", &format!("browser{number}"), None).1.len(), 5);
    }
    assert_eq!(world.sum(|m| &m.inbox_pending), 5, "32 devices are known, and two of them lack all five");
    world.pass(10);
    // The tablet goes, which was there before the phone. The phone still lacks the five.
    let (recovered, brought, position) = visit(&mut world, "bob", "browser30", None);
    assert_eq!((recovered, brought.len(), expired(&world, ExpireReason::Device)), (true, 5, 0));
    // Now the phone goes, and with it what only it had not read.
    world.pass(10);
    let (recovered, brought, _) = visit(&mut world, "bob", "browser31", None);
    assert_eq!((recovered, brought.len(), expired(&world, ExpireReason::Device)), (false, 0, 5));
    assert_eq!((world.sum(|m| &m.inbox_pending), world.sum(|m| &m.inbox_acked)), (0, 0));
    world.pass(10);
    let (recovered, brought, _) = visit(&mut world, "bob", "phone", None);
    assert_eq!((recovered, brought.len()), (false, 0), "a loss is said");
    // A forgotten device that says where it stands is judged by that.
    world.pass(10);
    assert!(!visit(&mut world, "bob", "tablet", Some(Position { offset: 0, ..position })).0);
    world.pass(10);
    assert!(visit(&mut world, "bob", "watch", Some(position)).0);
}

#[test]
fn one_session_is_allowed_then_devices_that_take_turns_lose_nothing() {
    let mut world = World::new(1, settings_with(|settings| settings.client.sessions_per_user_max = 1));
    let alice = world.sign_in(0, "alice");
    let devices = ["phone", "laptop", "tablet"];
    for device in devices {
        visit(&mut world, "bob", device, None);
    }
    let mut lacks = [0, 0, 0];
    for round in 0..12 {
        world.publish(alice, "@bob", b"x");
        lacks = lacks.map(|count| count + 1);
        let index = round % devices.len();
        let (recovered, brought, _) = visit(&mut world, "bob", devices[index], None);
        assert_eq!((recovered, brought.len()), (true, lacks[index]), "{} in round {round}", devices[index]);
        lacks[index] = 0;
    }
}

#[test]
fn device_is_away_for_longer_than_its_ttl_then_it_is_told_that_it_lost_messages() {
    let mut world = World::new(1, settings_with(|settings| settings.inbox.device_ttl_ms = 10 * DAY_MS));
    let alice = world.sign_in(0, "alice");
    visit(&mut world, "bob", "tablet", None);
    let (phone, ..) = world.connect(0, "bob", "phone", None);
    world.pass(6 * DAY_MS);
    let position = world.publish(alice, "@bob", b"x");
    world.read(phone);
    world.ack(phone, position);
    assert_eq!(world.sum(|m| &m.inbox_pending), 1, "the tablet may come back");
    world.pass(5 * DAY_MS);
    world.sweep(10);
    assert_eq!((world.sum(|m| &m.inbox_pending), expired(&world, ExpireReason::Device)), (0, 1));
    world.leave(phone);
    assert_eq!(visit(&mut world, "bob", "tablet", None), (false, vec![], position));
    assert_eq!(visit(&mut world, "bob", "phone", None), (true, vec![], position), "known for ten days");
}

#[test]
fn stored_cursor_is_behind_what_left_the_inbox_then_it_is_not_recovered() {
    let mut world = World::new(1, settings_with(|settings| settings.inbox.messages_max = 3));
    let alice = world.sign_in(0, "alice");
    visit(&mut world, "bob", "phone", None);
    for _ in 0..3 {
        world.publish(alice, "@bob", b"x");
    }
    let (recovered, brought, _) = visit(&mut world, "bob", "phone", None);
    assert_eq!((recovered, brought), (true, vec![1, 2, 3]));
    for _ in 0..5 {
        world.publish(alice, "@bob", b"x");
    }
    let (recovered, brought, _) = visit(&mut world, "bob", "phone", None);
    assert_eq!((recovered, brought), (false, vec![6, 7, 8]));
    assert_eq!(expired(&world, ExpireReason::Count), 2);
}

// Positions.

#[test]
fn room_has_no_log_then_a_position_is_recovered_only_if_nothing_was_published() {
    let mut world = World::new(1, {
        settings_with_namespace(|namespace| {
            (namespace.durability, namespace.history_size) = (Durability::Ephemeral, 0);
        })
    });
    let alice = world.sign_in(0, "alice");
    world.subscribe(alice, "chat:a", None);
    let (bob, position) = member(&mut world, "bob", "chat:a");
    world.unsubscribe(bob, "chat:a");
    assert_eq!(world.subscribe(bob, "chat:a", Some(position)), (position, true, vec![]));
    world.unsubscribe(bob, "chat:a");
    world.publish(alice, "chat:a", b"missed");
    assert!(!world.subscribe(bob, "chat:a", Some(position)).1);
    // Also when everybody is gone in between, and the room with them.
    for client in [alice, bob] {
        world.unsubscribe(client, "chat:a");
    }
    assert_eq!((world.sum(|m| &m.rooms), world.sum(|m| &m.quiet_topics)), (0, 1));
    assert_eq!(world.subscribe(bob, "chat:a", Some(position)), (position, false, vec![]));
    world.check();
}

#[test]
fn message_goes_to_a_quiet_room_without_log_then_a_client_that_comes_back_has_a_loss() {
    let mut world = World::new(1, {
        settings_with_namespace(|namespace| {
            (namespace.durability, namespace.history_size) = (Durability::Ephemeral, 0);
            namespace.publish_without_subscribe = true;
        })
    });
    let (bob, position) = member(&mut world, "bob", "chat:a");
    world.unsubscribe(bob, "chat:a");
    assert!(world.subscribe(bob, "chat:a", Some(position)).1);
    world.unsubscribe(bob, "chat:a");
    let alice = world.sign_in(0, "alice");
    world.publish(alice, "chat:a", b"missed");
    world.publish(alice, "chat:other", b"leaves nothing behind");
    assert_eq!(world.subscribe(bob, "chat:a", Some(position)), (position, false, vec![]));
    world.unsubscribe(bob, "chat:a");
    assert_eq!(world.sum(|m| &m.quiet_topics), 1);
}

#[test]
fn room_falls_quiet_then_it_keeps_epoch_and_offset() {
    let mut world = World::new(2, settings());
    let (alice, position) = member(&mut world, "alice", "chat:a");
    world.leave(alice);
    assert_eq!((world.sum(|m| &m.rooms), world.sum(|m| &m.quiet_topics)), (0, 1));
    let bob = world.sign_in(0, "bob");
    assert_eq!(world.history(bob, "chat:a", Some(position), 9), (vec![], false, true));
    assert_eq!(world.history(bob, "chat:other", Some(position), 9), (vec![], false, false));
    let at = world.subscribe(bob, "chat:a", None).0;
    assert_eq!((at, world.sum(|m| &m.quiet_topics)), (position, 0));
    assert_eq!(world.publish(bob, "chat:a", b"1"), Position { offset: 1, ..position });
    let alice = world.sign_in(1, "alice");
    let (_, recovered, got) = world.subscribe(alice, "chat:a", Some(position));
    assert_eq!((recovered, offsets(&got)), (true, vec![1]));
    // Everybody goes, and the message grows old: what was after the position is lost, what was before it is not.
    world.leave(alice);
    world.leave(bob);
    world.pass(2 * HOUR_MS);
    world.sweep(10);
    assert_eq!((world.sum(|m| &m.rooms), world.sum(|m| &m.quiet_topics), world.sum(|m| &m.log_bytes)), (0, 1, 0));
    let (carol, at) = member(&mut world, "carol", "chat:a");
    assert_eq!(at, Position { offset: 1, ..position });
    let alice = world.sign_in(1, "alice");
    assert!(!world.subscribe(alice, "chat:a", Some(position)).1);
    world.unsubscribe(alice, "chat:a");
    assert_eq!(world.publish(carol, "chat:a", b"2"), Position { offset: 2, ..position });
    let (_, recovered, got) = world.subscribe(alice, "chat:a", Some(at));
    assert_eq!((recovered, offsets(&got)), (true, vec![2]));
    world.check();
}

#[test]
fn room_vanishes_when_empty_then_it_comes_back_with_another_epoch() {
    let mut world = World::new(1, settings_with_namespace(|namespace| namespace.vanish_when_empty = true));
    let (alice, position) = member(&mut world, "alice", "chat:a");
    world.publish(alice, "chat:a", b"1");
    world.leave(alice);
    assert_eq!((world.sum(|m| &m.rooms), world.sum(|m| &m.quiet_topics)), (0, 0));
    let (_, at) = member(&mut world, "alice", "chat:a");
    assert_ne!(at.epoch, position.epoch);
}

#[test]
fn quiet_topics_are_too_old_or_too_many_then_they_are_forgotten() {
    let mut world = World::new(1, settings_with(|settings| settings.quiet_topics_max = 3));
    let alice = world.sign_in(0, "alice");
    let mut positions = Vec::new();
    for number in 0..5 {
        let room = format!("chat:{number}");
        positions.push(world.subscribe(alice, &room, None).0);
        world.unsubscribe(alice, &room);
        world.pass(1000);
        world.check();
    }
    assert_eq!((world.sum(|m| &m.quiet_topics), forgotten(&world, ForgetReason::Bound)), (3, 2));
    for (number, recovered) in [(1, false), (2, true), (4, true)] {
        let (room, since) = (format!("chat:{number}"), Some(positions[number]));
        assert_eq!(world.subscribe(alice, &room, since).1, recovered, "{room}");
    }
    world.pass(30 * DAY_MS);
    world.sweep(1);
    assert_eq!((world.sum(|m| &m.quiet_topics), forgotten(&world, ForgetReason::Age)), (0, 1));
    assert!(!world.subscribe(alice, "chat:3", Some(positions[3])).1);
    world.check();
}

#[test]
fn devices_of_an_inbox_are_forgotten_then_it_keeps_epoch_and_offset() {
    let mut world = World::new(1, settings_with(|settings| settings.inbox.device_ttl_ms = DAY_MS));
    let alice = world.sign_in(0, "alice");
    world.publish(alice, "@bob", b"1");
    let (.., position) = visit(&mut world, "bob", "phone", None);
    world.pass(2 * DAY_MS);
    world.sweep(10);
    assert_eq!((world.sum(|m| &m.users), world.sum(|m| &m.quiet_topics)), (1, 1), "alice, and a position of bob's");
    assert_eq!(world.publish(alice, "@bob", b"2"), Position { offset: 2, ..position });
    let (recovered, brought, position) = visit(&mut world, "bob", "phone", Some(position));
    assert_eq!((recovered, brought), (true, vec![2]));
    // Without a position it is unknown by now whether the laptop was there before, and what it has read.
    assert_eq!(visit(&mut world, "bob", "laptop", None), (false, vec![], position));
    // A user who never signed in has no position to come back with.
    world.publish_for(alice, "@nobody", b"x", 1);
    world.pass(2 * DAY_MS);
    world.sweep(10);
    assert_eq!((world.sum(|m| &m.users), world.sum(|m| &m.quiet_topics)), (1, 1));
    world.check();
}

// History.

#[test]
fn newest_messages_do_not_all_fit_then_the_newest_that_fit_are_listed() {
    let mut world = World::new(1, settings());
    let (alice, position) = member(&mut world, "alice", "chat:a");
    for _ in 0..10 {
        world.publish(alice, "chat:a", &[7; 60_000]);
    }
    assert_eq!(world.history(alice, "chat:a", None, 300), (vec![7, 8, 9, 10], true, true));
    assert_eq!(world.history(alice, "chat:a", None, 2), (vec![9, 10], true, true));
    assert_eq!(world.history(alice, "chat:a", Some(position), 300), (vec![1, 2, 3, 4], true, true));
    for since in [None, Some(position)] {
        assert_eq!(world.history(alice, "chat:a", since, 0), (vec![], false, true), "the position alone");
    }
}

#[test]
fn message_is_larger_than_an_answer_then_it_is_listed_alone() {
    let mut world = World::new(
        1,
        settings_with(|settings| {
            settings.client.message_bytes_max = 2 * HISTORY_BYTES_MAX;
            settings.client.outbox_bytes_max = 16 << 20;
        }),
    );
    let (alice, _) = member(&mut world, "alice", "chat:a");
    world.publish(alice, "chat:a", b"small");
    world.publish(alice, "chat:a", &vec![7; HISTORY_BYTES_MAX + 1]);
    assert_eq!(world.history(alice, "chat:a", None, 300).0, [2]);
}

#[test]
fn messages_pass_their_ttl_then_they_take_no_place_among_the_newest() {
    let mut world = World::new(1, settings());
    let (alice, _) = member(&mut world, "alice", "chat:a");
    for number in 0..10 {
        world.publish_for(alice, "chat:a", b"x", number / 5);
    }
    world.pass(2000);
    assert_eq!(world.history(alice, "chat:a", None, 5), (vec![1, 2, 3, 4, 5], false, true));
    assert_eq!(world.history(alice, "chat:a", None, 2), (vec![4, 5], true, true));
}

// Age.

#[test]
fn only_expired_messages_follow_then_the_answer_does_not_say_more() {
    let mut world = World::new(1, settings_with_namespace(|namespace| namespace.history_ttl_ms = 1000));
    let (alice, _) = member(&mut world, "alice", "chat:a");
    let (bob, position) = member(&mut world, "bob", "chat:a");
    world.unsubscribe(bob, "chat:a");
    for _ in 0..3 {
        world.publish(alice, "chat:a", b"x");
    }
    // No sweep comes by: with many topics it takes minutes.
    world.now.mono_us += 2_000_000;
    world.send(bob, |encoder, out| encoder.subscribe(out, 9, ("chat:a", Some(position)).into()));
    let got = world.read(bob);
    let newest = Position { offset: 3, ..position };
    let subscribed = Got::Subscribed { request: 9, room: "chat:a".into(), position: newest, recovered: false };
    assert_eq!(got, [subscribed]);
    assert_eq!(world.history(alice, "chat:a", Some(position), 10), (vec![], false, false));
}

#[test]
fn messages_pass_their_own_ttl_then_it_is_no_loss() {
    let mut world = World::new(1, settings());
    let (alice, _) = member(&mut world, "alice", "chat:a");
    let (bob, position) = member(&mut world, "bob", "chat:a");
    let (.., inbox) = visit(&mut world, "carol", "phone", None);
    world.unsubscribe(bob, "chat:a");
    for ttl_seconds in [1, 0, 1] {
        world.publish_for(alice, "chat:a", b"x", ttl_seconds);
        world.publish_for(alice, "@carol", b"x", ttl_seconds);
    }
    world.pass(3000);
    world.sweep(10);
    assert_eq!((world.sum(|m| &m.inbox_pending), expired(&world, ExpireReason::Age)), (1, 2));
    let (at, recovered, got) = world.subscribe(bob, "chat:a", Some(position));
    assert_eq!((at.offset, recovered, offsets(&got)), (3, true, vec![2]));
    // The next one is the fourth, and the member waits for nothing in between.
    world.publish(alice, "chat:a", b"y");
    assert_eq!(offsets(&world.read_all(bob)), [4]);
    let (carol, at, recovered, got) = world.connect(0, "carol", "phone", Some(inbox));
    assert_eq!((at.offset, recovered, offsets(&got)), (3, true, vec![2]));
    world.publish(alice, "@carol", b"y");
    assert_eq!(offsets(&world.read_all(carol)), [4]);
    world.check();
}

#[test]
fn expired_messages_are_held_then_no_live_one_is_pushed_out() {
    let mut world = World::new(1, settings());
    let alice = world.sign_in(0, "alice");
    visit(&mut world, "bob", "phone", None);
    world.publish(alice, "@bob", b"for seven days");
    for _ in 0..2000 {
        world.publish_for(alice, "@bob", b"for a second", 1);
        world.pass(20);
    }
    assert_eq!(expired(&world, ExpireReason::Count), 0);
    let (recovered, brought, _) = visit(&mut world, "bob", "phone", None);
    assert_eq!((recovered, brought.len(), brought.first()), (true, 50, Some(&1)));
    assert_eq!(expired(&world, ExpireReason::Age) + world.sum(|m| &m.inbox_acked), 2001);
}

#[test]
fn wall_clock_steps_then_nothing_expires() {
    for step_ms in [2 * HOUR_MS as i64, -2 * HOUR_MS as i64, 400 * DAY_MS as i64] {
        let mut world = World::new(1, settings());
        let (alice, position) = member(&mut world, "alice", "chat:a");
        world.publish(alice, "chat:a", b"kept for an hour");
        world.publish(alice, "@bob", b"kept for seven days");
        visit(&mut world, "carol", "phone", None);
        world.now.unix_ms = world.now.unix_ms.wrapping_add_signed(step_ms);
        world.sweep(10);
        assert_eq!((world.sum(|m| &m.inbox_pending), world.sum(|m| &m.users)), (1, 3), "a step of {step_ms} ms");
        assert_eq!(world.history(alice, "chat:a", Some(position), 9), (vec![1], false, true), "{step_ms}");
        // Real time counts.
        world.pass(2 * HOUR_MS);
        assert_eq!(world.history(alice, "chat:a", Some(position), 9), (vec![], false, false), "{step_ms}");
        world.check();
    }
}

// Bounds.

#[test]
fn inbox_is_too_large_then_its_oldest_messages_leave() {
    let mut world = World::new(1, settings_with(|settings| settings.inbox.bytes_max = 1 << 20));
    let alice = world.sign_in(0, "alice");
    visit(&mut world, "bob", "phone", None);
    for _ in 0..30 {
        world.publish(alice, "@bob", &[7; 60_000]);
        assert!(world.sum(|m| &m.log_bytes) <= (1 << 20) + 4096);
    }
    let (kept, gone) = (world.sum(|m| &m.inbox_pending), expired(&world, ExpireReason::Size));
    assert_eq!(kept + gone, 30);
    assert!((15..=17).contains(&kept), "{kept}");
    let (recovered, brought, _) = visit(&mut world, "bob", "phone", None);
    assert_eq!((recovered, brought), (false, (gone + 1..=30).collect()));
}

#[test]
fn user_never_signed_in_then_fewer_messages_are_kept() {
    let mut world = World::new(1, settings());
    let alice = world.sign_in(0, "alice");
    for _ in 0..150 {
        world.publish(alice, "@bob", b"x");
    }
    assert_eq!((world.sum(|m| &m.inbox_pending), expired(&world, ExpireReason::Count)), (100, 50));
    // Once he has signed in, he is like everybody.
    let (bob, ..) = world.connect(0, "bob", "phone", None);
    assert_eq!(world.sum(|m| &m.inbox_unknown_bytes), 0);
    for _ in 0..50 {
        world.publish(alice, "@bob", b"x");
    }
    assert_eq!((world.sum(|m| &m.inbox_pending), expired(&world, ExpireReason::Count)), (150, 50));
    world.leave(bob);
    world.check();
}

#[test]
fn users_who_never_signed_in_take_too_much_then_the_first_written_to_goes_first() {
    let mut world = World::new(1, settings_with(|settings| settings.inbox.unknown_bytes_per_shard_max = 1 << 20));
    let alice = world.sign_in(0, "alice");
    let carol = world.connect(0, "carol", "phone", None);
    world.leave(carol.0);
    world.publish(alice, "@carol", b"has signed in");
    world.publish(alice, "@early", b"x");
    world.publish(alice, "@often", b"x");
    for number in 0..40 {
        world.publish(alice, &format!("@nobody{number}"), &[7; 60_000]);
        world.publish(alice, "@often", b"x");
        assert!(world.sum(|m| &m.inbox_unknown_bytes) <= 1 << 20);
    }
    world.check();
    let gone = expired(&world, ExpireReason::Unknown);
    assert_eq!(world.sum(|m| &m.inbox_pending) + gone, 1 + 1 + 1 + 80);
    assert!((20..=30).contains(&gone), "{gone}");
    for (user, brought) in [("early", 0), ("nobody0", 0), ("nobody39", 1), ("often", 41), ("carol", 1)] {
        assert_eq!(visit(&mut world, user, "phone", None).1.len(), brought, "{user}");
    }
    assert!(world.sum(|m| &m.log_bytes) >= world.sum(|m| &m.inbox_unknown_bytes));
    world.check();
}

/// One answer to a publish of this many bytes: the code of an error, 0 when it was accepted.
fn publish_code(world: &mut World, client: Client, topic: &str, bytes: usize) -> u16 {
    let payload = vec![7; bytes];
    match world.try_publish(client, PublishRequest { request: 5, topic, payload: &payload, ..Default::default() }) {
        Got::Published { .. } => 0,
        Got::Error { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn publisher_fills_the_logs_then_it_alone_is_refused() {
    const BUDGET: usize = 32 << 20;
    let settings = settings_with(|settings| {
        settings.log_bytes_per_shard_max = BUDGET;
        settings.inbox.unknown_bytes_per_shard_max = 1 << 40;
    });
    let mut world = World::new(1, settings);
    let mallory = world.sign_in(0, "mallory");
    let mut accepted = 0;
    while publish_code(&mut world, mallory, &format!("@nobody{accepted}"), 60_000) == 0 {
        accepted += 1;
        assert!(accepted < 1000, "one client fills everything");
    }
    let used = world.sum(|m| &m.log_bytes) as usize;
    assert!((BUDGET * 79 / 100..=BUDGET * 81 / 100).contains(&used), "{used} of {BUDGET}");
    // Nor does anything small of his go through, under any name.
    assert_eq!(publish_code(&mut world, mallory, "@other", 60_000), 402);
    // Somebody who comes now can write, and even a second and a third that want everything leave something.
    let alice = world.sign_in(0, "alice");
    assert_eq!(publish_code(&mut world, alice, "@bob", 1000), 0);
    for greedy in ["mallory2", "mallory3", "mallory4"] {
        let client = world.sign_in(0, greedy);
        let mut count = 0;
        while publish_code(&mut world, client, &format!("@{greedy}{count}"), 60_000) == 0 {
            count += 1;
        }
        assert!(count > 2, "{greedy} got {count} in");
        assert_eq!(publish_code(&mut world, alice, "@bob", 1000), 0, "beside {greedy}");
    }
    world.check();
    // What is read makes room again.
    for number in 0..accepted {
        visit(&mut world, &format!("nobody{number}"), "phone", None);
    }
    assert_eq!(publish_code(&mut world, mallory, "@other", 60_000), 0);
    world.check();
}

#[test]
fn logs_pass_their_mark_then_a_warning_is_due_once() {
    let settings = settings_with(|settings| {
        settings.log_bytes_per_shard_max = 1 << 20;
        settings.inbox.unknown_bytes_per_shard_max = 1 << 40;
    });
    let mut world = World::new(1, settings);
    assert_eq!(world.sum(|m| &m.log_bytes_limit), 1 << 20);
    let percent = |world: &World| world.sum(|m| &m.log_bytes) * 100 / (1 << 20);
    let mut number = 0;
    let mut fill = |world: &mut World, to_percent: u64| {
        while percent(world) <= to_percent {
            number += 1;
            let client = world.sign_in(0, &format!("writer{number}"));
            assert_eq!(publish_code(world, client, &format!("@reader{number}"), 10_000), 0);
            world.leave(client);
        }
        number
    };
    let first = fill(&mut world, 70) - 10;
    assert!(!world.shards[0].passes_log_mark());
    fill(&mut world, 80);
    assert!(world.shards[0].passes_log_mark());
    assert!(!world.shards[0].passes_log_mark(), "once");
    // Between the marks nothing changes.
    visit(&mut world, &format!("reader{first}"), "phone", None);
    assert!((70..=80).contains(&percent(&world)));
    assert!(!world.shards[0].passes_log_mark());
    fill(&mut world, 80);
    assert!(!world.shards[0].passes_log_mark());
    for number in 1..=40 {
        visit(&mut world, &format!("reader{number}"), "phone", None);
    }
    assert!(percent(&world) < 70);
    assert!(!world.shards[0].passes_log_mark());
    fill(&mut world, 80);
    assert!(world.shards[0].passes_log_mark());
    world.check();
}

#[test]
fn member_lags_and_messages_leave_the_log_then_it_is_closed_instead_of_missing_them() {
    for shards in [1, 2] {
        let mut settings = settings_with_namespace(|namespace| namespace.history_size = 3);
        settings.client.outbox_messages_max = 4;
        let mut world = World::new(shards, settings);
        let (alice, _) = member(&mut world, "alice", "chat:a");
        let bob = world.sign_in(shards - 1, "bob");
        world.subscribe(bob, "chat:a", None);
        // Four wait for the member; of what follows the log keeps the last three.
        for _ in 0..12 {
            world.publish(alice, "chat:a", b"x");
        }
        let got = world.read_all(bob);
        let brought = offsets(&got);
        assert!(!brought.is_empty() && brought.iter().copied().eq(1..=brought.len() as u64), "{got:?}");
        assert!(matches!(got.last(), Some(Got::Goodbye { code: 3010 })), "{got:?}");
        assert_eq!(world.closed(), [(bob, CloseReason::InsufficientState)]);
        world.check();
    }
}
