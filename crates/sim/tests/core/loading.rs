//! Topics that an engine keeps: loaded when they are needed, read behind their tails, and out of memory when nobody uses them.

use std::sync::Arc;

use ringgate_core::close::CloseReason;
use ringgate_core::id::Position;
use ringgate_core::limits::{Engine, Namespace, Settings};
use ringgate_core::shard::{EngineUnavailable, Event};
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use ringgate_sim::{Append, Call, Client, Got, Storage, Task, World, offsets, settings, settings_with_namespace};

const ROOM: &str = "chat:a";

fn stored(settings: Settings) -> World {
    World::new(1, Settings { engine: Engine::Store, ..settings })
}

/// The engine does what it was asked for, oldest first, until nothing is left; a read is kept back if `holds_reads`.
fn serve(world: &mut World, holds_reads: bool) -> Vec<Event<'static>> {
    let mut held = Vec::new();
    world.work();
    while let Some(Call { shard, task }) = world.calls.pop_front() {
        let unix_ms = world.now.unix_ms;
        match task {
            Task::Append(Append { ticket, record, .. }) => {
                world.disk.append(&record, unix_ms);
                world.handle(shard, Event::Appended { through: ticket });
            }
            Task::Load { topic, .. } => {
                let loaded = Box::new(world.disk.load(&topic, unix_ms));
                world.handle(shard, Event::Loaded { topic, result: Ok(loaded) });
            }
            Task::Read { read, messages } => {
                let result = Ok(Box::new(world.disk.read(&messages, unix_ms)));
                match holds_reads {
                    true => held.push(Event::Read { read, result }),
                    false => world.handle(shard, Event::Read { read, result }),
                }
            }
            Task::Cursor { topic, state, .. } => world.disk.set_state(&topic, &state),
            Task::Unload { .. } | Task::Claim { .. } | Task::Release { .. } | Task::Relay { .. } => {}
            Task::Disconnect { .. } | Task::Members { .. } | Task::Presence { .. } => {}
        }
        world.work();
    }
    held
}

fn sign_in(world: &mut World, user: &str) -> Client {
    let client = world.open(0);
    let request = ConnectRequest { request: 1, token: user, device: "phone", ..Default::default() };
    world.send(client, |encoder, out| encoder.connect(out, &request));
    serve(world, false);
    client
}

/// Publishes so many messages; the engine stores them.
fn publish(world: &mut World, client: Client, topic: &str, count: u32) {
    for request in 0..count {
        let fields = PublishRequest { request, topic, payload: b"x", ..Default::default() };
        world.send(client, |encoder, out| encoder.publish(out, &fields));
    }
    serve(world, false);
}

/// Long enough for what nobody uses to leave memory.
fn linger(world: &mut World) {
    for _ in 0..3 {
        world.pass(31_000);
        serve(world, false);
    }
}

/// A room of five messages has left memory, bob has joined it from its beginning, and alice has come back. Returns what the engine
/// has read for bob, which the shard has not heard yet.
fn member_joins_while_the_room_is_in_the_engine_alone(history_size: usize) -> (World, Client, Client, Event<'static>) {
    let mut world = stored(settings_with_namespace(|namespace| namespace.history_size = history_size));
    let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(0, "bob"));
    let (position, _, _) = world.subscribe(alice, ROOM, None);
    world.storage = Storage::WhenAsked;
    publish(&mut world, alice, ROOM, 5);
    world.unsubscribe(alice, ROOM);
    world.sweep(3);
    serve(&mut world, false);
    assert_eq!(world.sum(|metrics| &metrics.rooms), 0, "the room has left memory");
    let beginning = Position { offset: 0, ..position };
    world.send(bob, |encoder, out| encoder.subscribe(out, 2, (ROOM, Some(beginning)).into()));
    let read = serve(&mut world, true).pop().expect("what bob is missing is read");
    world.send(alice, |encoder, out| encoder.subscribe(out, 2, (ROOM, None).into()));
    (world, alice, bob, read)
}

#[test]
fn messages_leave_the_log_while_the_engine_reads_then_the_member_is_closed_instead_of_missing_them() {
    let (mut world, alice, bob, read) = member_joins_while_the_room_is_in_the_engine_alone(10);
    publish(&mut world, alice, ROOM, 30);
    world.handle(0, read);
    serve(&mut world, false);
    let got = offsets(&world.read_all(bob));
    let closed = world.closed().contains(&(bob, CloseReason::InsufficientState));
    assert!(closed || got == (1..=35).collect::<Vec<_>>(), "a hole that nobody told of: {got:?}");
    world.check();
}

#[test]
fn engine_has_not_heard_what_has_left_the_log_then_history_does_not_show_it() {
    let mut world = stored(settings_with_namespace(|namespace| namespace.history_size = 300));
    let alice = world.sign_in(0, "alice");
    world.storage = Storage::WhenAsked;
    world.send(alice, |encoder, out| encoder.subscribe(out, 2, (ROOM, None).into()));
    serve(&mut world, false);
    for _ in 0..8 {
        publish(&mut world, alice, ROOM, 50);
        world.read_all(alice);
    }
    let epoch = world.disk.load(&ROOM.into(), world.now.unix_ms).position.epoch;
    let before = Some(Position { epoch, offset: 150 });
    let request = HistoryRequest { request: 4, topic: ROOM, before, limit: 100, ..HistoryRequest::default() };
    world.send(alice, |encoder, out| encoder.history(out, &request));
    serve(&mut world, false);
    let got = world.read_all(alice);
    let [Got::History { offsets, more, .. }] = &got[..] else { panic!("{got:?}") };
    assert_eq!((offsets.clone(), *more), ((101..150).collect::<Vec<_>>(), false));
    world.check();
}

#[test]
fn everybody_has_left_a_room_that_vanishes_and_its_last_message_is_not_stored_then_nothing_of_it_comes_back() {
    let mut world = stored(Settings {
        namespaces: vec![Namespace { vanish_when_empty: true, ..Namespace::named("chat") }],
        ..settings()
    });
    let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(0, "bob"));
    world.subscribe(alice, ROOM, None);
    world.storage = Storage::WhenAsked;
    publish(&mut world, alice, ROOM, 1);
    let fields = PublishRequest { request: 2, topic: ROOM, payload: b"x", ..Default::default() };
    world.send(alice, |encoder, out| encoder.publish(out, &fields));
    world.unsubscribe(alice, ROOM);
    let Some(Call { task: Task::Append(Append { ticket, .. }), .. }) = world.calls.pop_back() else { panic!() };
    world.handle(0, Event::AppendFailed { from: ticket });
    linger(&mut world);
    assert_eq!(world.sum(|metrics| &metrics.rooms), 0);
    world.send(bob, |encoder, out| encoder.subscribe(out, 2, (ROOM, None).into()));
    let request = HistoryRequest { request: 4, topic: ROOM, limit: 10, ..HistoryRequest::default() };
    world.send(bob, |encoder, out| encoder.history(out, &request));
    serve(&mut world, false);
    let got = world.read_all(bob);
    assert!(got.iter().any(|got| matches!(got, Got::History { offsets, .. } if offsets.is_empty())), "{got:?}");
    world.check();
}

#[test]
fn node_ended_while_a_device_was_connected_then_it_is_forgotten_in_its_time() {
    let mut settings = settings();
    (settings.inbox.device_ttl_ms, settings.inbox.ttl_ms) = (100_000, 10_000_000);
    let mut world = stored(settings);
    world.storage = Storage::WhenAsked;
    sign_in(&mut world, "bob");
    world.restart();
    for _ in 0..4 {
        // Something brings the inbox into memory for a while, again and again.
        let alice = sign_in(&mut world, "alice");
        publish(&mut world, alice, "@bob", 1);
        world.leave(alice);
        linger(&mut world);
        assert_eq!(world.sum(|metrics| &metrics.users), 0);
    }
    let topic: Arc<str> = "@bob".into();
    let state = world.disk.load(&topic, world.now.unix_ms).state;
    assert!(state.devices.is_empty() && state.forgotten_at == Some(0), "{state:?}");
    world.check();
}

#[test]
fn refresh_of_a_topic_in_memory_fails_then_publishes_to_it_go_on() {
    let mut settings =
        settings_with_namespace(|namespace| (namespace.history_size, namespace.history_ttl_ms) = (1_000, 10_000));
    settings.client.requests_in_flight_max = 1000;
    let mut world = stored(settings);
    let alice = world.sign_in(0, "alice");
    world.storage = Storage::WhenAsked;
    world.send(alice, |encoder, out| encoder.subscribe(out, 2, (ROOM, None).into()));
    serve(&mut world, false);
    for age_ms in [5_000, 1_000, 4_001] {
        publish(&mut world, alice, ROOM, 200);
        world.read_all(alice);
        world.pass(age_ms);
    }
    world.work();
    assert!(
        matches!(world.calls.back(), Some(Call { task: Task::Load { .. }, .. })),
        "what the engine alone has is due"
    );
    let fields = PublishRequest { request: 7, topic: ROOM, payload: b"x", ..Default::default() };
    world.send(alice, |encoder, out| encoder.publish(out, &fields));
    world.work();
    let calls: Vec<_> = world.calls.drain(..).collect();
    for Call { shard, task } in calls {
        match task {
            Task::Load { topic, .. } => world.handle(shard, Event::Loaded { topic, result: Err(EngineUnavailable) }),
            other => world.calls.push_back(Call { shard, task: other }),
        }
    }
    serve(&mut world, false);
    let got = world.read_all(alice);
    assert!(matches!(got[..], [Got::Published { request: 7, .. }, Got::Message { .. }]), "{got:?}");
    world.check();
}

#[test]
fn engine_does_not_answer_and_clients_give_up_then_a_bounded_number_of_their_requests_waits() {
    let mut world = stored(settings());
    world.storage = Storage::WhenAsked;
    let connect = |world: &mut World| {
        let client = world.open(0);
        let request = ConnectRequest { request: 1, token: "bob", device: "phone", ..Default::default() };
        world.send(client, |encoder, out| encoder.connect(out, &request));
        client
    };
    for _ in 0..64 * 1024 {
        let client = connect(&mut world);
        world.end(client, CloseReason::ConnectionReset);
        world.free(client);
    }
    let refused = connect(&mut world);
    assert_eq!(world.closed(), [(refused, CloseReason::Busy)]);
    serve(&mut world, false);
    let bob = connect(&mut world);
    assert!(matches!(world.read_all(bob)[..], [Got::Connected { .. }]));
    world.check();
}

#[test]
fn engine_does_not_read_and_sessions_end_then_what_they_were_missing_is_not_read_any_more() {
    let mut world = stored(settings());
    world.storage = Storage::WhenAsked;
    let alice = sign_in(&mut world, "alice");
    publish(&mut world, alice, "@bob", 3);
    linger(&mut world);
    let mut reads = 0;
    for _ in 0..1_000 {
        let bob = world.open(0);
        let request = ConnectRequest { request: 1, token: "bob", device: "phone", ..Default::default() };
        world.send(bob, |encoder, out| encoder.connect(out, &request));
        world.work();
        for Call { shard, task } in world.calls.drain(..).collect::<Vec<_>>() {
            match task {
                Task::Load { topic, .. } => {
                    let loaded = Box::new(world.disk.load(&topic, world.now.unix_ms));
                    world.handle(shard, Event::Loaded { topic, result: Ok(loaded) });
                }
                Task::Read { .. } => reads += 1,
                _ => {}
            }
        }
        reads += world.calls.drain(..).filter(|call| matches!(call.task, Task::Read { .. })).count();
        world.leave(bob);
        world.check();
    }
    assert_eq!((reads, world.shards[0].awaits_engine()), (64, 64), "as many as the engine may have at once");
}

#[test]
fn messages_are_committed_while_the_engine_reads_then_the_member_is_brought_all_of_them_once() {
    // So many that memory holds them, and so many that the first of them are in the engine alone by then.
    for committed in [3, 400] {
        let (mut world, alice, bob, read) = member_joins_while_the_room_is_in_the_engine_alone(1000);
        for _ in 0..committed {
            publish(&mut world, alice, ROOM, 1);
            world.read_all(alice);
        }
        world.handle(0, read);
        let mut got = Vec::new();
        loop {
            serve(&mut world, false);
            let brought = offsets(&world.read_all(bob));
            if brought.is_empty() {
                break;
            }
            got.extend(brought);
        }
        assert_eq!(got, (1..=5 + committed).collect::<Vec<u64>>());
        publish(&mut world, alice, ROOM, 1);
        assert_eq!(offsets(&world.read_all(bob)), [6 + committed], "and it is brought what comes next");
        world.check();
    }
}
