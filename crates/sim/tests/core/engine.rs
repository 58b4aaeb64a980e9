//! An engine that stores messages, and says so later: nothing is delivered, answered or remembered before.

use ringgate_core::close::ErrorCode;
use ringgate_core::id::{ClientMessageId, Position};
use ringgate_core::limits::{Engine, Namespace, Settings};
use ringgate_core::shard::Event;
use ringgate_core::wire::encode::PublishRequest;

use ringgate_sim::{Answer, Append, Client, World, answers, offsets, settings};

fn stored(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings { engine: Engine::Store, ..settings() };
    change(&mut settings);
    settings
}

/// Publishes with a request number, which is the client message id, too; what comes of it is read later.
fn begin(world: &mut World, client: Client, topic: &str, request: u32) {
    let client_message_id = ClientMessageId { high: 5, low: request.into() };
    let fields = PublishRequest { request, topic, client_message_id, payload: b"x", ..Default::default() };
    world.send(client, |encoder, out| encoder.publish(out, &fields));
    world.work();
}

/// The engine has failed at the oldest message that it was given, and lost all of them.
fn fail(world: &mut World) {
    let Append { shard, ticket, .. } = world.appends[0];
    world.appends.clear();
    world.handle(shard, Event::AppendFailed { from: ticket });
    world.work();
}

const FULL: Answer = Err(ErrorCode::StorageFull as u16);

#[test]
fn engine_has_not_answered_then_nothing_is_delivered_and_nothing_is_answered() {
    for (shards, topic) in [(1, "@bob"), (3, "@bob"), (1, "chat:a"), (3, "chat:a")] {
        let mut world = World::new(shards, stored(|_| {}));
        let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(shards - 1, "bob"));
        for client in [alice, bob] {
            world.subscribe(client, "chat:a", None);
        }
        (1..=3).for_each(|request| begin(&mut world, alice, topic, request));
        assert!(answers(&world.read_all(alice)).is_empty() && offsets(&world.read_all(bob)).is_empty());
        let (frames, _, _) = world.history(bob, topic, None, 10);
        assert!(frames.is_empty(), "{frames:?}");
        world.store(2);
        assert_eq!(answers(&world.read_all(alice)), [(1, Ok((1, false))), (2, Ok((2, false)))]);
        assert_eq!(offsets(&world.read_all(bob)), [1, 2]);
        world.store(1);
        assert_eq!(answers(&world.read_all(alice)), [(3, Ok((3, false)))]);
        assert_eq!(offsets(&world.read_all(bob)), [3]);
        assert_eq!(world.history(bob, topic, None, 10).0, [1, 2, 3]);
        world.check();
    }
}

#[test]
fn message_is_given_to_the_engine_with_its_place_and_all_that_a_restart_needs() {
    let mut world = World::new(1, stored(|_| {}));
    let alice = world.sign_in(0, "alice");
    world.subscribe(alice, "chat:a", None);
    for (request, topic) in [(1, "chat:a"), (2, "@bob"), (3, "chat:a")] {
        begin(&mut world, alice, topic, request);
    }
    let records: Vec<_> = world.appends.iter().map(|append| (append.ticket, append.era, &append.record)).collect();
    let places: Vec<_> =
        records.iter().map(|(ticket, era, record)| (*ticket, *era, &*record.topic, record.position.offset)).collect();
    assert_eq!(places, [(1, 0, "chat:a", 1), (2, 0, "@bob", 1), (3, 0, "chat:a", 2)]);
    assert_eq!(records[0].2.position.epoch, records[2].2.position.epoch);
    assert!(records.iter().all(|(_, _, record)| record.key.is_some() && !record.frame.is_empty()));
    assert_ne!(records[0].2.key.map(|key| key.id()), records[2].2.key.map(|key| key.id()));
    world.store(3);
    world.check();
}

#[test]
fn publish_is_repeated_while_it_is_stored_then_both_get_one_answer() {
    for shards in [1, 2] {
        let mut world = World::new(shards, stored(|_| {}));
        let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(shards - 1, "bob"));
        begin(&mut world, alice, "@bob", 1);
        let again = world.sign_in(0, "alice");
        begin(&mut world, again, "@bob", 1);
        assert_eq!(world.appends.len(), 1, "the engine is given it once");
        world.store(1);
        assert_eq!(answers(&world.read_all(again)), [(1, Ok((1, true)))]);
        assert_eq!(offsets(&world.read_all(bob)), [1]);
        begin(&mut world, again, "@bob", 1);
        assert_eq!(answers(&world.read_all(again)), [(1, Ok((1, true)))], "and it is remembered");
        assert!(world.appends.is_empty());
        world.check();
    }
}

#[test]
fn engine_fails_then_publishers_may_try_again_and_offsets_have_no_hole() {
    for shards in [1, 2] {
        let mut world = World::new(shards, stored(|_| {}));
        let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(shards - 1, "bob"));
        begin(&mut world, alice, "@bob", 1);
        world.store(1);
        (2..=4).for_each(|request| begin(&mut world, alice, "@bob", request));
        // A repetition fails with what it repeats.
        begin(&mut world, alice, "@bob", 4);
        fail(&mut world);
        assert_eq!(answers(&world.read_all(alice)), [(1, Ok((1, false))), (2, FULL), (3, FULL), (4, FULL), (4, FULL)]);
        assert_eq!(offsets(&world.read_all(bob)), [1]);
        begin(&mut world, alice, "@bob", 3);
        let Append { ticket, era, record, .. } = &world.appends[0];
        assert_eq!((*ticket, *era, record.position.offset), (5, 1, 2), "the place is given again, the ticket is not");
        world.store(1);
        assert_eq!(answers(&world.read_all(alice)), [(3, Ok((2, false)))]);
        assert_eq!(offsets(&world.read_all(bob)), [2]);
        world.check();
    }
}

#[test]
fn engine_fails_at_a_later_message_then_the_earlier_ones_are_stored() {
    let mut world = World::new(1, stored(|_| {}));
    let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(0, "bob"));
    (1..=4).for_each(|request| begin(&mut world, alice, "@bob", request));
    world.handle(0, Event::AppendFailed { from: 3 });
    world.handle(0, Event::Appended { through: 2 });
    world.work();
    let mut answers = answers(&world.read_all(alice));
    answers.sort_unstable();
    assert_eq!(answers, [(1, Ok((1, false))), (2, Ok((2, false))), (3, FULL), (4, FULL)]);
    assert_eq!(offsets(&world.read_all(bob)), [1, 2]);
    world.check();
}

#[test]
fn more_than_may_wait_then_publishers_are_told_to_come_back() {
    let mut world = World::new(1, stored(|settings| settings.client.requests_in_flight_max = 20_000));
    let alice = world.sign_in(0, "alice");
    let most = 8_192;
    (1..=most + 2).for_each(|request| begin(&mut world, alice, "@bob", request));
    assert_eq!(world.appends.len(), most as usize);
    assert_eq!(answers(&world.read_all(alice)), [(most + 1, FULL), (most + 2, FULL)]);
    world.store(1);
    begin(&mut world, alice, "@bob", most + 1);
    assert_eq!(world.appends.len(), most as usize, "there is room again");
    world.store(most as usize);
    world.check();
}

#[test]
fn everybody_leaves_a_room_that_vanishes_then_what_is_being_stored_is_answered_and_the_room_goes_then() {
    let vanishing = |settings: &mut Settings| {
        settings.namespaces = vec![Namespace { vanish_when_empty: true, ..Namespace::named("chat") }];
    };
    let mut world = World::new(1, stored(vanishing));
    let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(0, "bob"));
    world.subscribe(alice, "chat:a", None);
    begin(&mut world, alice, "chat:a", 1);
    begin(&mut world, alice, "chat:a", 2);
    world.unsubscribe(alice, "chat:a");
    assert_eq!(world.sum(|metrics| &metrics.rooms), 1);
    world.store(1);
    assert_eq!(world.sum(|metrics| &metrics.rooms), 1);
    world.store(1);
    assert_eq!(answers(&world.read_all(alice)), [(1, Ok((1, false))), (2, Ok((2, false)))]);
    world.sweep(2);
    assert_eq!(world.sum(|metrics| &metrics.rooms), 0);
    let (position, _, _) = world.subscribe(bob, "chat:a", None);
    assert_eq!(position.offset, 2, "places are never given again");
    assert!(world.history(bob, "chat:a", None, 10).0.is_empty());
    let beginning = Position { offset: 0, ..position };
    world.unsubscribe(bob, "chat:a");
    assert!(!world.subscribe(bob, "chat:a", Some(beginning)).1, "what the room held is gone");
    world.check();
}

#[test]
fn member_joins_while_a_message_is_stored_then_it_comes_once() {
    let mut world = World::new(2, stored(|_| {}));
    let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(1, "bob"));
    world.subscribe(alice, "chat:a", None);
    begin(&mut world, alice, "chat:a", 1);
    world.store(1);
    begin(&mut world, alice, "chat:a", 2);
    let (position, _, _) = world.subscribe(bob, "chat:a", None);
    assert_eq!(position.offset, 1, "what is not stored has no place yet");
    world.store(1);
    assert_eq!(offsets(&world.read_all(bob)), [2]);
    world.leave(bob);
    let bob = world.sign_in(1, "bob");
    let (_, recovered, followed) = world.subscribe(bob, "chat:a", Some(Position { offset: 1, ..position }));
    assert!(recovered);
    assert_eq!(offsets(&followed), [2]);
    world.check();
}

#[test]
fn message_is_stored_late_then_its_own_ttl_counts_from_its_publish() {
    for topic in ["@bob", "chat:a"] {
        let mut world = World::new(1, stored(|_| {}));
        let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(0, "bob"));
        world.subscribe(alice, "chat:a", None);
        let fields = PublishRequest { request: 1, topic, ttl_seconds: 2, payload: b"x", ..Default::default() };
        world.send(alice, |encoder, out| encoder.publish(out, &fields));
        world.pass(1_500);
        world.store(1);
        assert_eq!(world.history(bob, topic, None, 10).0, [1], "{topic}");
        world.pass(600);
        assert_eq!(world.history(bob, topic, None, 10).0, [0; 0], "{topic}");
        world.check();
    }
}

#[test]
fn shard_owes_answers_then_it_says_so() {
    let mut world = World::new(1, stored(|_| {}));
    let alice = world.sign_in(0, "alice");
    begin(&mut world, alice, "@bob", 1);
    world.leave(alice);
    assert_eq!(world.shards[0].awaits_engine(), 1);
    world.store(1);
    assert_eq!(world.shards[0].awaits_engine(), 0);
    let (_, _, _, got) = world.connect(0, "bob", "phone", None);
    assert_eq!(offsets(&got), [1], "the publisher had left, and its message is kept");
    world.check();
}
