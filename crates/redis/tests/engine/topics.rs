//! What is kept of a topic: messages, marks, devices.

use ringgate_core::close::CloseReason;
use ringgate_core::id::Position;
use ringgate_core::shard::{DeviceLeft, Effect, Event, MemberChange, ReadRange, ReadResult, Record};
use ringgate_core::topics::{DeviceState, TopicState};

use crate::node::{Node, device, presence, redis, state_of, unix_ms, until};
use ringgate_test_servers::{Options, Server as Redis};

fn offsets(read: &ReadResult) -> Vec<u64> {
    read.messages.iter().map(|message| message.offset).collect()
}

#[test]
fn messages_are_read_either_way_then_pages_meet_without_a_hole() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    node.store_some("chat:x", 10);
    let page = node.read("chat:x", ReadRange::After(2), 3);
    assert_eq!((offsets(&page), page.upto, page.more), (vec![3, 4, 5], 5, true));
    let end = node.read("chat:x", ReadRange::After(8), 3);
    assert_eq!((offsets(&end), end.upto, end.more), (vec![9, 10], 10, false));
    let beyond = node.read("chat:x", ReadRange::After(10), 3);
    assert_eq!((offsets(&beyond), beyond.upto, beyond.more), (vec![], 10, false));
    let back = node.read("chat:x", ReadRange::Before(5), 3);
    assert_eq!((offsets(&back), back.upto, back.more), (vec![2, 3, 4], 4, true));
    let first = node.read("chat:x", ReadRange::Before(3), 3);
    assert_eq!((offsets(&first), first.upto, first.more), (vec![1, 2], 2, false));
    let newest = node.read("chat:x", ReadRange::Before(u64::MAX), 2);
    assert_eq!((offsets(&newest), newest.more), (vec![9, 10], true));
    let bytes = page.messages[0].frame.len();
    let two = node.read_bytes("chat:x", ReadRange::After(0), 10, 2 * bytes);
    assert_eq!((offsets(&two), two.upto, two.more), (vec![1, 2], 2, true), "bytes");
    let one = node.read_bytes("chat:x", ReadRange::Before(9), 10, 1);
    assert_eq!((offsets(&one), one.more), (vec![8], true), "the first is given whatever its size");
}

#[test]
fn every_device_has_acknowledged_then_messages_leave() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    let (phone, laptop) = (a.claim("bob", "phone"), b.claim("bob", "laptop"));
    assert!(phone < laptop);
    let epoch = a.loaded("@bob").position.epoch;
    a.store_some("@bob", 5);
    a.cursor("@bob", epoch, state_of(vec![device("phone", 4, phone)]));
    let loaded = a.loaded("@bob");
    assert_eq!((loaded.state.floor, loaded.state.known), (0, true), "the laptop has told nothing yet");
    assert_eq!(loaded.state.devices, [device("phone", 4, phone)]);
    b.cursor("@bob", epoch, state_of(vec![device("laptop", 2, laptop)]));
    let loaded = b.loaded("@bob");
    assert_eq!(
        (loaded.state.floor, loaded.state.lost, loaded.position.offset),
        (2, 2, 5),
        "for a device that nobody knows they are lost"
    );
    assert_eq!(offsets(&b.read("@bob", ReadRange::After(0), 10)), [3, 4, 5]);
    // An older claim changes nothing, nor does another epoch.
    a.cursor("@bob", epoch, state_of(vec![device("laptop", 5, laptop - 1)]));
    a.cursor("@bob", epoch + 1, state_of(vec![device("laptop", 5, laptop)]));
    assert_eq!(a.loaded("@bob").state.floor, 2);
    // The laptop's session ends having read all.
    let left =
        DeviceState { away_since_ms: Some(1_800_000_000_000), skipped_from: Some(3), ..device("laptop", 5, laptop) };
    b.release("bob", "laptop", laptop, Some(DeviceLeft { epoch, state: left.clone() }));
    let loaded = b.loaded("@bob");
    assert_eq!(loaded.state.floor, 4);
    let is_left = |device: &DeviceState| {
        // Both ways, its time goes over the clock of Redis, which is known to some milliseconds.
        let since_ms = device.away_since_ms.filter(|since_ms| since_ms.abs_diff(1_800_000_000_000) < 1000);
        since_ms.is_some() && DeviceState { away_since_ms: left.away_since_ms, ..device.clone() } == left
    };
    assert!(
        loaded.state.devices.iter().any(is_left) && loaded.state.devices.contains(&device("phone", 4, phone)),
        "{loaded:?}"
    );
    // Forgotten, it holds nothing.
    let state =
        TopicState { forgotten: vec!["laptop".into(), "phone".into()], forgotten_at: Some(5), ..TopicState::default() };
    a.cursor("@bob", epoch, state);
    let loaded = a.loaded("@bob");
    assert_eq!(loaded.state.devices, [device("phone", 4, phone)], "who has a session stays");
    assert_eq!(loaded.state.forgotten_at, Some(5));
}

#[test]
fn device_is_claimed_elsewhere_then_the_session_before_is_evicted() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    let first = a.claim("bob", "phone");
    let second = b.claim("bob", "phone");
    assert!(second > first);
    let evict = a.wait_for("an evict", |event| match event {
        Event::Evict { user, device, fence } => Some((user.to_string(), device.to_string(), *fence)),
        _ => None,
    });
    assert_eq!(evict, ("bob".to_owned(), "phone".to_owned(), second));
    // What the older session leaves changes nothing.
    let epoch = b.loaded("@bob").position.epoch;
    b.cursor("@bob", epoch, state_of(vec![device("phone", 0, second)]));
    a.release("bob", "phone", first, Some(DeviceLeft { epoch, state: device("phone", 9, first) }));
    a.loaded("@other");
    assert_eq!(b.loaded("@bob").state.devices, [device("phone", 0, second)]);
    // Had it not been told, loading the inbox once more would tell it.
    a.loaded("@bob");
    a.loaded("@bob");
    a.wait_for("an evict", |event| matches!(event, Event::Evict { fence, .. } if *fence == second).then_some(()));
    // The newer one ends: nobody is evicted by the next.
    b.release("bob", "phone", second, None);
    let devices = b.loaded("@bob").state.devices;
    assert!(devices[0].away_since_ms.is_some(), "{devices:?}");
    a.claim("bob", "phone");
    b.loaded("@other");
    assert_eq!(b.count(|event| matches!(event, Event::Evict { fence, .. } if *fence > second)), 0);
}

#[test]
fn device_is_new_then_nodes_that_have_the_inbox_are_told_that_it_has_changed() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    let epoch = a.loaded("@bob").position.epoch;
    let is_change = |event: &Event<'_>| matches!(event, Event::Changed { topic } if **topic == *"@bob");
    let fence = b.claim("bob", "phone");
    b.cursor("@bob", epoch, state_of(vec![device("phone", 0, fence)]));
    a.wait_for("a change", |event| is_change(event).then_some(()));
    b.cursor("@bob", epoch, state_of(vec![device("phone", 0, fence)]));
    b.loaded("@bob");
    a.loaded("@bob");
    assert_eq!((a.count(is_change), b.count(is_change)), (0, 0), "it is known by now, and who told it knew before");
    b.release("bob", "phone", fence, Some(DeviceLeft { epoch, state: device("phone", 0, fence) }));
    b.cursor("@bob", epoch, TopicState { forgotten: vec!["phone".into()], ..TopicState::default() });
    a.wait_for("a change", |event| is_change(event).then_some(()));
    // Never attached, it leaves nothing.
    let fence = b.claim("bob", "laptop");
    b.release("bob", "laptop", fence + 1, None);
    b.release("bob", "laptop", fence, None);
    assert!(b.loaded("@bob").state.devices.is_empty());
}

#[test]
fn node_stops_then_its_devices_are_away() {
    let redis = redis();
    let a = Node::start(&redis, 1);
    let b = Node::start(&redis, 2);
    let fence = b.claim("bob", "phone");
    let epoch = b.loaded("@bob").position.epoch;
    b.cursor("@bob", epoch, state_of(vec![device("phone", 0, fence)]));
    b.loaded("@bob");
    assert_eq!(a.loaded("@bob").state.devices, [device("phone", 0, fence)], "it is connected");
    let before = unix_ms();
    b.stop();
    until("the device is away", || {
        let away = a.loaded("@bob").state.devices[0].away_since_ms;
        away.is_some_and(|away| away + 5000 >= before && away <= unix_ms() + 5000)
    });
}

#[test]
fn more_messages_than_are_kept_then_what_was_pushed_out_is_lost() {
    let redis = Redis::start(&Options { lines: vec!["stream-node-max-entries 10".to_owned()], ..Options::default() });
    let node = Node::start(&redis, 1);
    node.store_some("small:x", 45);
    let loaded = node.loaded("small:x");
    let (floor, lost) = (loaded.state.floor, loaded.state.lost);
    assert!((25..=35).contains(&floor) && floor == lost, "{loaded:?}");
    let read = node.read("small:x", ReadRange::After(0), 100);
    assert_eq!((read.lost, offsets(&read)), (lost, (floor + 1..=45).collect()));
}

#[test]
fn messages_expire_then_the_floor_has_passed_them_and_those_of_a_ttl_are_not_lost() {
    let redis = redis();
    let node = Node::start(&redis, 1);
    let expired = |own_ttl: bool| Record { expires_unix_ms: unix_ms() - 1, own_ttl, ..node.record("@bob", "old") };
    node.store(expired(true));
    let epoch = node.loaded("@bob").position.epoch;
    let loaded = node.loaded("@bob");
    assert_eq!((loaded.state.floor, loaded.state.lost, loaded.due_unix_ms), (1, 0, None));
    node.store(expired(false));
    let kept = node.record("@bob", "new");
    node.store(kept.clone());
    let read = node.read("@bob", ReadRange::After(0), 10);
    assert_eq!((offsets(&read), read.lost, read.upto), (vec![3], 2, 3));
    let loaded = node.loaded("@bob");
    assert_eq!(loaded.position, Position { epoch, offset: 3 });
    assert_eq!((loaded.state.floor, loaded.state.lost, loaded.due_unix_ms), (2, 2, Some(kept.expires_unix_ms)));
}

#[test]
fn members_come_and_go_on_two_nodes_then_presence_names_those_of_both() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    let tell = |node: &Node, count: u32, changes: Vec<(u64, Option<&str>)>, anew: bool| {
        let change = |(session, user): (u64, Option<&str>)| MemberChange {
            session,
            member: user.map(|user| (user.into(), "phone".into())),
        };
        let changes = changes.into_iter().map(change).collect();
        node.ask(Effect::Members { topic: "chat:x".into(), count, changes, anew });
    };
    assert_eq!(presence(&a, "chat:x", 10), (0, vec![]));
    tell(&a, 2, vec![(1, Some("alice")), (2, Some("bob"))], false);
    tell(&b, 3, vec![(1, Some("carol"))], false);
    presence(&b, "chat:x", 10);
    let all = ["alice/phone", "bob/phone", "carol/phone"].map(str::to_owned);
    assert_eq!(presence(&a, "chat:x", 10), (5, all.to_vec()));
    assert_eq!(presence(&a, "chat:x", 2).1.len(), 2);
    assert_eq!(presence(&a, "chat:x", 0), (5, vec![]));
    tell(&a, 1, vec![(2, None)], false);
    tell(&b, 2000, (0..2000).map(|session| (session, Some("dave"))).collect(), true);
    presence(&b, "chat:x", 0);
    let (count, named) = presence(&a, "chat:x", 3000);
    assert_eq!((count, named.len(), named.first().map(String::as_str)), (2001, 2001, Some("alice/phone")));
    b.stop();
    tell(&a, 0, vec![(1, None)], false);
    until("the members of a node that has ended are not counted", || presence(&a, "chat:x", 10) == (0, vec![]));
}

#[test]
fn user_is_disconnected_then_the_other_nodes_that_have_the_inbox_are_told() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    a.loaded("@bob");
    b.loaded("@bob");
    for wanted in [Some("phone"), None] {
        let (user, device) = ("bob".into(), wanted.map(Into::into));
        a.ask(Effect::Disconnect { user, device, reason: CloseReason::Expired });
        let told = b.wait_for("a disconnect", |event| match event {
            Event::Disconnect { user, device, reason: CloseReason::Expired, everywhere: false } => {
                Some((user.to_string(), device.as_deref().map(str::to_owned)))
            }
            _ => None,
        });
        assert_eq!(told, ("bob".to_owned(), wanted.map(str::to_owned)));
    }
    a.loaded("@bob");
    assert_eq!(a.count(|event| matches!(event, Event::Disconnect { .. })), 0, "its own");
}

#[test]
fn device_is_to_be_forgotten_and_has_a_session_then_nothing_is_missed_for_it() {
    let redis = redis();
    let (a, b) = (Node::start(&redis, 1), Node::start(&redis, 2));
    let laptop = b.claim("bob", "laptop");
    let epoch = b.loaded("@bob").position.epoch;
    a.store_some("@bob", 5);
    b.cursor("@bob", epoch, state_of(vec![device("laptop", 1, laptop)]));
    b.loaded("@bob");
    let forget = || TopicState { forgotten: vec!["laptop".into()], forgotten_at: Some(0), ..TopicState::default() };
    a.cursor("@bob", epoch, forget());
    let state = a.loaded("@bob").state;
    assert_eq!((state.forgotten_at, state.devices.len()), (None, 1));
    b.release("bob", "laptop", laptop, Some(DeviceLeft { epoch, state: device("laptop", 3, laptop) }));
    until("it is away", || a.loaded("@bob").state.devices[0].away_since_ms.is_some());
    a.cursor("@bob", epoch, forget());
    let state = a.loaded("@bob").state;
    assert_eq!((state.forgotten_at, state.devices.len()), (Some(3), 0), "what it had read, as Redis knows it");
}
