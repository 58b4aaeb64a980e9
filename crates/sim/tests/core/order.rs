//! Requests take effect in the order in which they were sent, also right behind Connect and Subscribe.

use std::sync::Arc;

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::id::ClientMessageId;
use ringgate_core::limits::Namespace;
use ringgate_core::metrics::DropReason;
use ringgate_core::session::{Grant, RoomGrants};
use ringgate_core::wire::Encoder;
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};

use ringgate_sim::{Got, Tokens, World, settings, settings_with_namespace, user_of_token};

const ROOM: &str = "chat:a";

fn id(low: u64) -> ClientMessageId {
    ClientMessageId { high: 9, low }
}

fn publish(encoder: &mut Encoder, out: &mut Vec<u8>, request: u32, topic: &str, low: u64) {
    let fields = PublishRequest { request, topic, client_message_id: id(low), payload: b"x", ..Default::default() };
    encoder.publish(out, &fields);
}

/// What became of requests, by their numbers, in the order of the answers.
fn answers(got: &[Got]) -> Vec<(u32, &'static str)> {
    let answer = |got: &Got| match got {
        Got::Published { request, .. } => Some((*request, "published")),
        Got::Subscribed { request, .. } => Some((*request, "subscribed")),
        Got::Unsubscribed { request, .. } => Some((*request, "unsubscribed")),
        Got::Error { request, .. } => Some((*request, "error")),
        _ => None,
    };
    got.iter().filter_map(answer).collect()
}

#[test]
fn unsubscribe_follows_subscribe_at_once_then_the_session_is_outside_the_room() {
    for home in [0, 1] {
        let mut world = World::new(2, settings());
        let room = world.room_at(home, "chat");
        let alice = world.sign_in(0, "alice");
        world.send(alice, |encoder, out| {
            encoder.subscribe(out, 10, (&*room, None).into());
            encoder.unsubscribe(out, 11, &room);
        });
        let got = world.read_all(alice);
        assert_eq!(answers(&got), [(10, "subscribed"), (11, "unsubscribed")], "home {home}");
        world.send(alice, |encoder, out| encoder.presence(out, 12, &room, 10));
        assert!(matches!(world.read_all(alice)[..], [Got::Presence { count: 0, .. }]));
        world.check();
    }
}

#[test]
fn second_subscribe_follows_unsubscribe_then_the_session_is_inside_the_room() {
    for home in [0, 1] {
        let mut world = World::new(2, settings());
        let room = world.room_at(home, "chat");
        let alice = world.sign_in(0, "alice");
        world.send(alice, |encoder, out| {
            encoder.subscribe(out, 10, (&*room, None).into());
            encoder.unsubscribe(out, 11, &room);
            encoder.subscribe(out, 12, (&*room, None).into());
            encoder.subscribe(out, 13, (&*room, None).into());
        });
        let mut got = answers(&world.read_all(alice)).to_vec();
        got.sort_unstable();
        let expected = [(10, "subscribed"), (11, "unsubscribed"), (12, "subscribed"), (13, "error")];
        assert_eq!(got, expected, "home {home}");
        let bob = world.sign_in(1, "bob");
        world.subscribe(bob, &room, None);
        world.publish(bob, &room, b"hello");
        assert!(world.read_all(alice).iter().any(|got| matches!(got, Got::Message { .. })));
        world.leave(alice);
        world.check();
    }
}

#[test]
fn publish_follows_subscribe_at_once_then_it_is_accepted_and_echoed() {
    for home in [0, 1] {
        let mut world = World::new(2, settings());
        let room = world.room_at(home, "chat");
        let alice = world.sign_in(0, "alice");
        world.send(alice, |encoder, out| {
            encoder.subscribe(out, 10, (&*room, None).into());
            publish(encoder, out, 11, &room, 1);
        });
        let got = world.read_all(alice);
        assert!(answers(&got).contains(&(11, "published")), "home {home}: {got:?}");
        let messages = got.iter().filter(|got| matches!(got, Got::Message { .. })).count();
        assert_eq!(messages, 1, "home {home}");
        world.check();
    }
}

#[test]
fn requests_follow_connect_at_once_then_they_wait_for_connected_and_find_its_rooms_joined() {
    for home in [0, 1, 2, 3] {
        let mut world = World::new(4, settings());
        let room = world.room_at(home, "chat");
        let alice = world.open(0);
        world.send(alice, |encoder, out| {
            let rooms = [(&*room, None).into()];
            encoder.connect(out, &ConnectRequest { request: 1, token: "alice", rooms: &rooms, ..Default::default() });
            publish(encoder, out, 2, &room, 1);
            publish(encoder, out, 3, "@alice", 2);
            Encoder::empty(out, ringgate_core::wire::Kind::Ping);
        });
        let got = world.read_all(alice);
        assert!(matches!(got[0], Got::Connected { .. }), "{got:?}");
        let mut answers = answers(&got);
        answers.sort_unstable();
        assert_eq!(answers, [(1, "subscribed"), (2, "published"), (3, "published")], "home {home}");
        assert!(got.contains(&Got::Pong));
        assert!(world.closed().is_empty());
        world.check();
    }
}

/// What waits behind Connect is bounded; the rest waits in the socket.
#[test]
fn much_waits_behind_connect_then_the_socket_is_held_until_connected() {
    let mut world = World::new(1, settings());
    world.tokens = Tokens::WhenAsked;
    let alice = world.open(0);
    let mut frames = Vec::new();
    world.encoder.connect(&mut frames, &ConnectRequest { request: 1, token: "alice", ..Default::default() });
    let connect = frames.split_off(0);
    let mut behind = Vec::new();
    for request in 2..1000 {
        publish(&mut world.encoder, &mut behind, request, "@alice", u64::from(request));
    }
    let event = |bytes| ringgate_core::shard::Event::Received { connection: alice.connection, bytes };
    world.shards[0].handle(event(&connect), world.now);
    let mut taken = 0;
    for piece in behind.chunks(4096) {
        world.shards[0].handle(event(piece), world.now);
        taken += piece.len();
        // At once, not at the end of the turn.
        assert_eq!(world.shards[0].takes_more(alice.connection), taken < 36_864, "{taken} bytes");
    }
    assert!(taken > 36_864);
    world.take_effects(0);
    assert_eq!(world.held, [alice]);
    world.verify(0, user_of_token);
    let got = world.read_all(alice);
    assert_eq!(answers(&got).len(), 998);
    assert!(world.held.is_empty());
    assert!(world.shards[0].takes_more(alice.connection));
    assert!(world.closed().is_empty());
}

/// The new token is judged first, whatever the request behind it asks for.
#[test]
fn requests_follow_refresh_at_once_then_they_are_judged_by_the_new_token() {
    let mut world = World::new(2, settings_with_namespace(|chat| chat.subscribe_all = false));
    let (granted, taken) = (world.room_at(0, "chat"), world.room_at(1, "chat"));
    world.tokens = Tokens::AtOnce(|token| {
        let (user, room) = token.split_once('|').unwrap_or((token, ""));
        let rooms = RoomGrants { subscribe: vec![room.to_owned()], ..RoomGrants::default() };
        Ok(Grant { user: user.into(), expires_at: 0, rooms: Some(Arc::new(rooms)), device: None })
    });
    let alice = world.sign_in(0, &format!("alice|{taken}"));
    world.subscribe(alice, &taken, None);
    world.send(alice, |encoder, out| {
        encoder.refresh(out, 1, &format!("alice|{granted}"));
        encoder.subscribe(out, 2, (&*granted, None).into());
        publish(encoder, out, 3, &granted, 3);
        publish(encoder, out, 4, &taken, 4);
    });
    let got = world.read_all(alice);
    let mut answers = answers(&got);
    answers.sort_unstable();
    assert_eq!(answers, [(0, "unsubscribed"), (2, "subscribed"), (3, "published"), (4, "error")], "{got:?}");
    world.check();
}

#[test]
fn frame_of_another_kind_comes_before_connect_then_the_connection_is_closed() {
    let mut world = World::new(1, settings());
    let alice = world.open(0);
    world.send(alice, |encoder, out| encoder.subscribe(out, 1, (ROOM, None).into()));
    assert_eq!(world.closed(), [(alice, CloseReason::BadRequest)]);
}

#[test]
fn stored_message_is_repeated_without_the_right_then_it_is_answered_as_before() {
    for home in [0, 1] {
        let mut world = World::new(2, settings_with_namespace(|chat| chat.publish_all = false));
        let room = world.room_at(home, "chat");
        world.tokens = Tokens::AtOnce(|token| {
            let (user, publish) = token.split_once('|').unwrap_or((token, ""));
            let publish = if publish.is_empty() { Vec::new() } else { vec![publish.to_owned()] };
            let rooms = RoomGrants { publish, ..RoomGrants::default() };
            Ok(Grant { user: user.into(), expires_at: 0, rooms: Some(Arc::new(rooms)), device: None })
        });
        let alice = world.sign_in(0, "alice|chat:*");
        world.subscribe(alice, &room, None);
        world.send(alice, |encoder, out| publish(encoder, out, 5, &room, 1));
        let got = world.read_all(alice);
        let stamp = got.iter().find_map(|got| match got {
            Got::Published { stamp, .. } => Some(*stamp),
            _ => None,
        });
        world.leave(alice);
        // Not in the room (401), and without the right (103).
        let alice = world.sign_in(0, "alice");
        world.send(alice, |encoder, out| {
            publish(encoder, out, 6, &room, 1);
            publish(encoder, out, 7, &room, 2);
        });
        let got = world.read_all(alice);
        assert!(
            matches!(got[..], [
                Got::Published { request: 6, stamp: again, duplicate: true, .. },
                Got::Error { request: 7, code: 103 }
            ] if Some(again) == stamp),
            "home {home}: {got:?}"
        );
        world.check();
    }
}

#[test]
fn message_is_too_long_then_it_is_refused_unless_its_id_was_stored() {
    let mut settings = settings();
    settings.client.message_bytes_max = 100;
    let mut world = World::new(1, settings);
    let alice = world.sign_in(0, "alice");
    let long = [0; 101];
    let fields = |request, low, payload| PublishRequest {
        request,
        topic: "@bob",
        client_message_id: id(low),
        payload,
        ..Default::default()
    };
    assert!(matches!(world.try_publish(alice, fields(1, 1, b"short")), Got::Published { duplicate: false, .. }));
    assert!(matches!(world.try_publish(alice, fields(2, 1, &long)), Got::Published { duplicate: true, .. }));
    let code = ErrorCode::LimitExceeded.code();
    assert_eq!(world.try_publish(alice, fields(3, 2, &long)), Got::Error { request: 3, code });
}

#[test]
fn logged_messages_wait_then_an_ephemeral_one_does_not_overtake_them() {
    let mut settings = settings();
    settings.inbox.in_flight_max = 1;
    let mut world = World::new(1, settings);
    let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(0, "bob"));
    for (number, ephemeral) in [(1, false), (2, false), (3, true), (4, false)] {
        let fields = PublishRequest {
            request: number,
            topic: "@bob",
            payload: &[number as u8],
            ephemeral,
            ..Default::default()
        };
        assert!(matches!(world.try_publish(alice, fields), Got::Published { .. }));
    }
    let mut order = Vec::new();
    for _ in 0..4 {
        for got in world.read_all(bob) {
            if let Got::Message { position, payload, .. } = got {
                order.push(payload[0]);
                world.ack(bob, position);
            }
        }
    }
    // The feed was behind when the ephemeral one came: it is dropped, and counted.
    assert_eq!(order, [1, 2, 4]);
    assert_eq!(world.sum(|m| &m.deliveries_dropped[DropReason::Slow]), 1);
    world.check();
}

#[test]
fn many_messages_come_then_their_ids_grow_and_do_not_run_ahead_of_the_clock() {
    let mut settings = settings();
    settings.namespaces = vec![Namespace { publish_without_subscribe: true, ..Namespace::named("chat") }];
    let mut world = World::new(2, settings);
    let alice = world.sign_in(0, "alice");
    let mut last = 0;
    // A burst of 100 000 in one millisecond.
    for round in 0..200 {
        world.send(alice, |encoder, out| {
            for number in 0..500 {
                let fields = PublishRequest { request: number, topic: "chat:a", ephemeral: true, ..Default::default() };
                encoder.publish(out, &fields);
            }
        });
        for got in world.read_all(alice) {
            if let Got::Published { stamp, .. } = got {
                assert!(stamp.message_id > last, "round {round}");
                last = stamp.message_id;
            }
        }
    }
    const START_2024_MS: u64 = 1_704_067_200_000;
    let ahead_ms = (last >> 24) - (world.now.unix_ms - START_2024_MS);
    assert!(ahead_ms <= 100_000 / (1 << 13) + 1, "{ahead_ms} ms ahead");
}
