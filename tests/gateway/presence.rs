//! Members of a room: presence requests, join and leave events.

use ringgate_core::wire::Kind;

use crate::support::{Client, Frame, Gateway, Login};

fn names(members: &[(String, String)]) -> Vec<(&str, &str)> {
    members.iter().map(|(user, device)| (user.as_str(), device.as_str())).collect()
}

/// The next frame that announces somebody: whether they came, who, and on which device.
fn announced(client: &mut Client) -> (bool, String, String) {
    client.take("Joined or Left", |frame| match frame {
        Frame::Joined { user, device, room } if room == "chat:a" => Some((true, user.clone(), device.clone())),
        Frame::Left { user, device, room } if room == "chat:a" => Some((false, user.clone(), device.clone())),
        _ => None,
    })
}

#[test]
fn presence_is_asked_for_then_all_are_counted_and_as_many_listed_as_wanted() {
    let gateway = Gateway::start();
    let mut members: Vec<_> = [("alice", "phone"), ("alice", "tablet"), ("bob", "phone"), ("carol", "phone")]
        .map(|(user, device)| gateway.sign_in_with(&Login::user(user).device(device)))
        .into();
    for member in &mut members {
        member.subscribe("chat:a");
    }
    let mut asker = gateway.sign_in("asker");
    let all = asker.try_presence("chat:a", 100).unwrap();
    assert_eq!((all.count, all.room.as_str()), (4, "chat:a"));
    let wanted = [("alice", "phone"), ("alice", "tablet"), ("bob", "phone"), ("carol", "phone")];
    assert_eq!(names(&all.members), wanted);
    let two = asker.try_presence("chat:a", 2).unwrap();
    assert_eq!((two.count, two.members.len()), (4, 2));
    let count = asker.try_presence("chat:a", 0).unwrap();
    assert_eq!((count.count, count.members.len()), (4, 0));
    assert_eq!(asker.try_presence("chat:empty", 10).unwrap().count, 0);
    // Leaving in every way.
    members[0].try_unsubscribe("chat:a").unwrap();
    members[1].send_empty(Kind::Disconnect);
    drop(members.remove(2));
    crate::support::wait_until("one is left", || asker.try_presence("chat:a", 0).unwrap().count == 1);
    assert_eq!(names(&asker.try_presence("chat:a", 10).unwrap().members), [("carol", "phone")]);
    gateway.finish();
}

#[test]
fn room_has_more_than_1000_members_then_1000_are_listed() {
    let gateway = Gateway::with(|config| {
        config.runtime.connections_per_shard_max = 2000;
        config.settings.client.sessions_per_user_max = 2000;
        // The first says nothing until the last is there.
        (config.settings.client.ping_interval_ms, config.settings.client.pong_timeout_ms) = (600_000, 300_000);
    });
    let mut members: Vec<_> =
        (0..1003).map(|device| gateway.sign_in_with(&Login::user("crowd").device(&device.to_string()))).collect();
    for member in &mut members {
        member.subscribe("chat:a");
    }
    let presence = members[0].try_presence("chat:a", u32::MAX).unwrap();
    assert_eq!((presence.count, presence.members.len()), (1003, 1000));
    gateway.finish();
}

#[test]
fn namespace_has_presence_off_then_it_is_refused() {
    let gateway = Gateway::with_namespace("chat", |namespace| namespace.presence = false);
    let mut alice = gateway.sign_in("alice");
    alice.subscribe("chat:a");
    assert_eq!(alice.try_presence("chat:a", 10).unwrap_err().code, 108);
    gateway.finish();
}

#[test]
fn join_leave_is_on_then_members_are_told() {
    let gateway = Gateway::with_namespace("chat", |namespace| namespace.join_leave = true);
    let mut alice = gateway.sign_in("alice");
    alice.subscribe("chat:a");
    let mut bob = gateway.sign_in_with(&Login::user("bob").device("phone"));
    bob.subscribe("chat:a");
    assert_eq!(announced(&mut alice), (true, "bob".into(), "phone".into()));
    let mut tablet = gateway.sign_in_with(&Login::user("bob").device("tablet"));
    tablet.subscribe("chat:a");
    assert_eq!(announced(&mut alice), (true, "bob".into(), "tablet".into()));
    assert_eq!(announced(&mut bob), (true, "bob".into(), "tablet".into()));
    tablet.try_unsubscribe("chat:a").unwrap();
    assert_eq!(announced(&mut alice), (false, "bob".into(), "tablet".into()));
    assert_eq!(announced(&mut bob), (false, "bob".into(), "tablet".into()));
    drop(bob);
    assert_eq!(announced(&mut alice), (false, "bob".into(), "phone".into()));
    // Nobody hears of themselves, and messages are as ever.
    alice.publish("chat:a", "alone");
    assert_eq!(alice.message().offset(), 1, "announcements take no offsets");
    assert_eq!(alice.kept(), []);
    gateway.finish();
}

#[test]
fn join_leave_is_not_set_then_nobody_is_told() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    alice.subscribe("chat:a");
    bob.subscribe("chat:a");
    bob.publish("chat:a", "hello");
    bob.try_unsubscribe("chat:a").unwrap();
    assert_eq!(alice.texts(1), ["hello"]);
    alice.publish("chat:a", "bye");
    assert_eq!(alice.texts(1), ["bye"]);
    assert_eq!(alice.kept(), []);
    gateway.finish();
}
