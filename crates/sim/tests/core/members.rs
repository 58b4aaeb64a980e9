//! Who is in a room: join and leave events, takeovers, and rights that a new token takes away.

use std::sync::Arc;

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::session::{Grant, RoomGrants};
use ringgate_core::shard::Event;
use ringgate_core::wire::encode::ConnectRequest;

use ringgate_sim::{Got, Tokens, World, settings_with_namespace};

fn events(got: &[Got]) -> Vec<String> {
    let event = |got: &Got| match got {
        Got::Joined { user, device, .. } => Some(format!("+{user}/{device}")),
        Got::Left { user, device, .. } => Some(format!("-{user}/{device}")),
        _ => None,
    };
    got.iter().filter_map(event).collect()
}

/// Connects `bob` on this shard with the room in Connect; nothing is delivered yet.
fn connect_with_room(world: &mut World, shard: usize, room: &str) -> ringgate_sim::Client {
    let client = world.open(shard);
    let rooms = [(room, None).into()];
    world.send(client, |encoder, out| {
        encoder.connect(out, &ConnectRequest { request: 1, token: "bob", rooms: &rooms, ..Default::default() });
    });
    client
}

/// Every placing of observer, member, its successor and the room's home on four shards.
#[test]
fn device_is_taken_over_then_the_room_gets_no_event() {
    for home in 0..4 {
        for (old, new) in [(0, 1), (1, 2), (2, 0), (3, 3)] {
            let mut world = World::new(4, settings_with_namespace(|chat| chat.join_leave = true));
            let room = world.room_at(home, "chat");
            let observer = world.sign_in(0, "observer");
            world.subscribe(observer, &room, None);
            connect_with_room(&mut world, old, &room);
            world.work();
            assert_eq!(events(&world.read_all(observer)), ["+bob/default"]);
            let second = connect_with_room(&mut world, new, &room);
            world.work();
            assert_eq!(world.closed().last().map(|(_, reason)| *reason), Some(CloseReason::TakenOver));
            // Longer than anybody waits for a device that was taken over.
            world.sweep(150);
            assert_eq!(events(&world.read_all(observer)), [""; 0], "home {home}, from {old} to {new}");
            world.leave(second);
            assert_eq!(events(&world.read_all(observer)), ["-bob/default"]);
            world.check();
        }
    }
}

/// What the old session's shard says to the room's home comes before or after the new session's Subscribe.
#[test]
fn device_comes_back_at_once_then_it_is_not_announced_as_gone() {
    for home in [1, 2] {
        for late in [false, true] {
            let mut world = World::new(3, settings_with_namespace(|chat| chat.join_leave = true));
            let room = world.room_at(home, "chat");
            let observer = world.sign_in(2, "observer");
            world.subscribe(observer, &room, None);
            let first = connect_with_room(&mut world, 0, &room);
            world.work();
            world.read_all(observer);
            // The socket is reset; its letters wait while the device comes back on another shard.
            world.handle(0, Event::Ended { connection: first.connection, reason: CloseReason::ConnectionReset });
            let waiting = std::mem::take(&mut world.mail);
            connect_with_room(&mut world, 1, &room);
            if late {
                world.settle();
                world.mail.extend(waiting);
            } else {
                let behind = std::mem::replace(&mut world.mail, waiting);
                world.mail.extend(behind);
            }
            world.work();
            let events = events(&world.read_all(observer));
            let ends_here = events.last().is_none_or(|event| event.starts_with('+'));
            assert!(ends_here, "home {home}, late {late}: {events:?}");
            world.send(observer, |encoder, out| encoder.presence(out, 9, &room, 10));
            let got = world.read_all(observer);
            assert!(matches!(got[..], [Got::Presence { count: 2, .. }]), "{got:?}");
            world.check();
        }
    }
}

#[test]
fn device_was_taken_over_and_does_not_join_again_then_it_is_announced_as_gone() {
    let mut world = World::new(2, settings_with_namespace(|chat| chat.join_leave = true));
    let room = world.room_at(1, "chat");
    let observer = world.sign_in(0, "observer");
    world.subscribe(observer, &room, None);
    connect_with_room(&mut world, 0, &room);
    world.work();
    world.read_all(observer);
    // The newer session does not join the room.
    world.sign_in(1, "bob");
    world.sweep(50);
    assert_eq!(events(&world.read_all(observer)), [""; 0], "it may still come");
    world.sweep(60);
    assert_eq!(events(&world.read_all(observer)), ["-bob/default"]);
    world.check();
}

/// `user|patterns|device`.
fn token(token: &str) -> Result<Grant, ringgate_core::close::AuthError> {
    let mut parts = token.split('|');
    let user = parts.next().unwrap_or_default().to_owned();
    let patterns: Vec<String> = parts.next().into_iter().filter(|p| !p.is_empty()).map(str::to_owned).collect();
    let rooms = RoomGrants { subscribe: patterns.clone(), publish: patterns, ..RoomGrants::default() };
    let device = parts.next().map(str::to_owned);
    Ok(Grant { user, expires_at: 0, rooms: Some(Arc::new(rooms)), device })
}

fn private(chat: &mut ringgate_core::limits::Namespace) {
    chat.subscribe_all = false;
    chat.publish_all = false;
}

#[test]
fn refresh_lacks_the_right_then_the_room_is_taken_away_and_the_client_told() {
    for home in [0, 1] {
        let mut world = World::new(2, settings_with_namespace(private));
        let room = world.room_at(home, "chat");
        world.tokens = Tokens::AtOnce(token);
        let alice = world.sign_in(0, "alice|chat:*");
        let bob = world.sign_in(1, "bob|chat:*");
        for client in [alice, bob] {
            world.subscribe(client, &room, None);
        }
        world.send(bob, |encoder, out| encoder.refresh(out, 3, "bob|chat:*"));
        assert_eq!(world.read_all(bob), [Got::Refreshed { request: 3 }], "the right is still there");
        world.send(bob, |encoder, out| encoder.refresh(out, 4, "bob|news:*"));
        let code = ErrorCode::PermissionDenied.code();
        let taken = Got::Unsubscribed { request: 0, room: room.clone(), code };
        assert_eq!(world.read_all(bob), [Got::Refreshed { request: 4 }, taken]);
        world.publish(alice, &room, b"secret");
        assert_eq!(world.read_all(bob), []);
        world.check();
    }
}

#[test]
fn refresh_lacks_the_right_while_a_subscribe_is_in_flight_then_the_room_is_taken_away_too() {
    let mut world = World::new(2, settings_with_namespace(private));
    let room = world.room_at(1, "chat");
    world.tokens = Tokens::AtOnce(token);
    let bob = world.sign_in(0, "bob|chat:*");
    world.send(bob, |encoder, out| {
        encoder.subscribe(out, 3, (&*room, None).into());
        encoder.refresh(out, 4, "bob|news:*");
    });
    let got = world.read_all(bob);
    assert!(got.contains(&Got::Refreshed { request: 4 }));
    let code = ErrorCode::PermissionDenied.code();
    assert_eq!(got.last(), Some(&Got::Unsubscribed { request: 0, room, code }));
    world.check();
}

#[test]
fn token_is_for_another_device_then_it_does_not_refresh() {
    let mut world = World::new(1, settings_with_namespace(|_| {}));
    world.tokens = Tokens::AtOnce(token);
    let laptop = world.connect(0, "alice||laptop", "laptop", None).0;
    world.send(laptop, |encoder, out| encoder.refresh(out, 3, "alice||phone"));
    let code = ErrorCode::InvalidToken.code();
    assert_eq!(world.read_all(laptop), [Got::Error { request: 3, code }]);
    world.send(laptop, |encoder, out| encoder.refresh(out, 4, "alice||laptop"));
    assert_eq!(world.read_all(laptop), [Got::Refreshed { request: 4 }]);
}
