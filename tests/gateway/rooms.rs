//! Rooms: order of messages, rights, joining and leaving.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, EncodingKey};
use ringgate_auth::{DEV_KID, DEV_SECRET};
use ringgate_core::close::ErrorCode;
use ringgate_core::limits::Namespace;
use ringgate_core::wire::encode::PublishRequest;
use serde_json::json;

use crate::support::{Client, Frame, Gateway, Login, claims_token, unix_seconds};

fn try_publish(client: &mut Client, topic: &str) -> Result<u64, u16> {
    let publish = PublishRequest { topic, payload: b"x", ..PublishRequest::default() };
    client.try_publish(publish).map(|published| published.stamp.position.offset).map_err(|refusal| refusal.code)
}

#[test]
fn all_members_publish_then_all_hear_one_order() {
    let gateway = Gateway::start();
    let mut members: Vec<_> = (0..16).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    let mut elsewhere = gateway.sign_in("elsewhere");
    elsewhere.subscribe("chat:other");
    for member in &mut members {
        let subscribed = member.subscribe("chat:general");
        assert_eq!((subscribed.room.as_str(), subscribed.recovered), ("chat:general", true));
        assert_eq!(subscribed.position.offset, 0);
    }
    for round in 0..5 {
        let requests: Vec<_> = members
            .iter_mut()
            .map(|member| {
                let payload = format!("round {round}");
                let publish =
                    PublishRequest { topic: "chat:general", payload: payload.as_bytes(), ..Default::default() };
                member.send_publish(publish)
            })
            .collect();
        for (member, request) in members.iter_mut().zip(requests) {
            member.published(request).unwrap();
        }
    }
    let heard = members[0].messages(80);
    assert!(heard.iter().zip(1..).all(|(message, offset)| message.offset() == offset), "no hole, no repetition");
    assert_eq!(heard.iter().map(|message| &message.sender).collect::<BTreeSet<_>>().len(), 16);
    for member in &mut members[1..] {
        assert_eq!(member.messages(80), heard);
    }
    assert_eq!(gateway.sum(|m| &m.deliveries_owed), 80 * 16);
    elsewhere.publish("chat:other", "only here");
    assert_eq!(elsewhere.message().topic, "chat:other");
    gateway.finish();
}

#[test]
fn broadcast_then_one_letter_goes_to_each_shard_with_members() {
    const MESSAGES: u64 = 10;
    let gateway = Gateway::with(|config| config.runtime.shards = Some(4));
    let mut members: Vec<_> = (0..24).map(|user| gateway.sign_in(&format!("user{user}"))).collect();
    for member in &mut members {
        member.subscribe("chat:general");
    }
    // The upper ten bits of a session's id are its shard.
    let shard_of = |client: &Client| (client.connected().session >> 54) as usize;
    let with_members: BTreeSet<_> = members.iter().map(shard_of).collect();
    let home = gateway.shards().iter().position(|shard| shard.rooms.read() == 1).unwrap();
    let publisher = shard_of(&members[0]);
    let before = gateway.sum(|m| &m.mesh_sent);
    for _ in 0..MESSAGES {
        members[0].publish("chat:general", "hello");
    }
    for member in &mut members {
        member.messages(MESSAGES as usize);
    }
    let fan_out = with_members.iter().filter(|shard| **shard != home).count() as u64;
    let publish_and_answer = if publisher == home { 0 } else { 2 };
    assert_eq!(gateway.sum(|m| &m.mesh_sent) - before, MESSAGES * (fan_out + publish_and_answer));
    assert_eq!(gateway.sum(|m| &m.deliveries_owed), MESSAGES * 24);
    gateway.finish();
}

#[test]
fn echo_is_off_then_only_the_publishing_session_is_left_out() {
    let gateway = Gateway::with_namespace("chat", |namespace| namespace.echo = false);
    let mut phone = gateway.sign_in_with(&Login::user("alice").device("phone"));
    let mut tablet = gateway.sign_in_with(&Login::user("alice").device("tablet"));
    let mut bob = gateway.sign_in("bob");
    for client in [&mut phone, &mut tablet, &mut bob] {
        client.subscribe("chat:general");
    }
    phone.publish("chat:general", "from the phone");
    bob.publish("chat:general", "from bob");
    assert_eq!(phone.texts(1), ["from bob"]);
    phone.publish("chat:general", "again");
    assert_eq!(tablet.texts(3), ["from the phone", "from bob", "again"]);
    assert_eq!(bob.texts(2), ["from the phone", "again"]);
    assert_eq!(gateway.sum(|m| &m.deliveries_owed), 6);
    gateway.finish();
}

#[test]
fn publisher_is_not_subscribed_then_refused_unless_the_namespace_allows_it() {
    let gateway = Gateway::with(|config| {
        let open = Namespace { publish_without_subscribe: true, ..Namespace::named("open") };
        config.settings.namespaces = vec![Namespace::named("chat"), open];
    });
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    for room in ["chat:general", "open:general"] {
        bob.subscribe(room);
    }
    assert_eq!(try_publish(&mut alice, "chat:general"), Err(401));
    assert_eq!(try_publish(&mut alice, "open:general"), Ok(1));
    assert_eq!(bob.message().topic, "open:general");
    // Subscribed, and not any more.
    alice.subscribe("chat:general");
    assert_eq!(try_publish(&mut alice, "chat:general"), Ok(1));
    alice.try_unsubscribe("chat:general").unwrap();
    assert_eq!(try_publish(&mut alice, "chat:general"), Err(401));
    assert_eq!(alice.try_unsubscribe("chat:general").unwrap_err().code, 401);
    assert_eq!(gateway.refusals(ErrorCode::NotSubscribed), 3);
    gateway.finish();
}

#[test]
fn namespace_is_unknown_then_its_rooms_do_not_exist() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    for room in ["nope:general", "chat", "chat:", ":general", "Chat:general"] {
        assert_eq!(alice.try_subscribe(room, None).unwrap_err().code, 102, "{room}");
        assert_eq!(try_publish(&mut alice, room), Err(102), "{room}");
        assert_eq!(alice.try_presence(room, 1).unwrap_err().code, 102, "{room}");
        assert_eq!(alice.try_history(room, None, 1).unwrap_err().code, 102, "{room}");
        assert_eq!(alice.try_unsubscribe(room).unwrap_err().code, 401, "{room}");
    }
    assert_eq!(gateway.sum(|m| &m.rooms), 0);
    let refusal = alice.try_subscribe("chat:a b", None).unwrap_err();
    assert_eq!(refusal.code, 107);
    assert!(refusal.message.starts_with("room: "), "{}", refusal.message);
    gateway.finish();
}

#[test]
fn token_has_grants_then_each_verb_follows_its_patterns() {
    let gateway = Gateway::with_namespace("vip", |namespace| {
        namespace.subscribe_all = false;
        namespace.publish_all = false;
    });
    let token = |rooms: serde_json::Value| {
        let key = EncodingKey::from_secret(DEV_SECRET.as_bytes());
        let claims = json!({ "sub": "alice", "exp": unix_seconds() + 3600, "rooms": rooms });
        claims_token(Algorithm::HS256, Some(DEV_KID), &key, &claims)
    };
    let verbs = json!({ "subscribe": ["vip:*"], "publish": ["vip:a"], "presence": ["vip:p"], "history": ["vip:h*"] });
    let mut stranger = gateway.sign_in("stranger");
    let mut alice = gateway.sign_in_with(&Login::token(token(verbs)));
    for room in ["vip:a", "vip:b"] {
        assert_eq!(stranger.try_subscribe(room, None).unwrap_err().code, 103);
        alice.subscribe(room);
    }
    assert_eq!(try_publish(&mut alice, "vip:a"), Ok(1));
    assert_eq!(try_publish(&mut alice, "vip:b"), Err(103));
    assert_eq!(try_publish(&mut stranger, "vip:a"), Err(103));
    // A member may read presence and history of the room.
    assert_eq!(alice.try_presence("vip:b", 1).unwrap().count, 1);
    assert_eq!(alice.try_history("vip:a", None, 1).unwrap().messages.len(), 1);
    for (room, presence, history) in [("vip:p", true, false), ("vip:hh", false, true), ("vip:x", false, false)] {
        assert_eq!(alice.try_presence(room, 1).map_err(|refusal| refusal.code).is_ok(), presence, "{room}");
        assert_eq!(alice.try_history(room, None, 1).map_err(|refusal| refusal.code).is_ok(), history, "{room}");
        assert_eq!(stranger.try_presence(room, 1).unwrap_err().code, 103, "{room}");
        assert_eq!(stranger.try_history(room, None, 1).unwrap_err().code, 103, "{room}");
    }
    // A newer token's grants hold from now on.
    alice.try_refresh(&token(json!(["vip:b"]))).unwrap();
    assert_eq!(try_publish(&mut alice, "vip:a"), Err(103));
    assert_eq!(try_publish(&mut alice, "vip:b"), Ok(1));
    assert_eq!(alice.try_subscribe("vip:c", None).unwrap_err().code, 103);
    gateway.finish();
}

#[test]
fn session_is_in_a_room_or_in_rooms_max_then_another_subscribe_is_refused() {
    let gateway = Gateway::with(|config| config.settings.client.rooms_max = 2);
    let mut alice = gateway.sign_in("alice");
    assert_eq!(alice.connected().rooms_max, 2);
    alice.subscribe("chat:a");
    assert_eq!(alice.try_subscribe("chat:a", None).unwrap_err().code, 105);
    alice.subscribe("chat:b");
    assert_eq!(alice.try_subscribe("chat:c", None).unwrap_err().code, 106);
    assert_eq!(alice.try_subscribe("chat:a", None).unwrap_err().code, 105);
    alice.try_unsubscribe("chat:a").unwrap();
    alice.subscribe("chat:c");
    // Refused rooms were never made, and an empty room without messages is forgotten.
    gateway.wait_for("rooms", 2, |m| &m.rooms);
    gateway.finish();
}

#[test]
fn connect_names_rooms_then_they_are_joined_at_once() {
    let gateway = Gateway::start();
    let mut bob = gateway.sign_in("bob");
    bob.subscribe("chat:a");
    let first = bob.publish("chat:a", "1").stamp.position;
    bob.publish("chat:a", "2");
    let login = Login::user("alice").room("chat:a", Some(first)).room("chat:b", None).room("nope:c", None);
    let mut alice = gateway.sign_in_with(&login.room("chat:b", None));
    let request = alice.connected().request;
    let (mut joined, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        match alice.answer(request) {
            Frame::Subscribed(subscribed) => joined.push((subscribed.room, subscribed.recovered)),
            Frame::Refused(refusal) => refused.push(refusal.code),
            other => panic!("{other:?}"),
        }
    }
    joined.sort();
    refused.sort_unstable();
    assert_eq!(joined, [("chat:a".to_owned(), true), ("chat:b".to_owned(), true)]);
    assert_eq!(refused, [102, 105]);
    assert_eq!(alice.texts(1), ["2"]);
    bob.publish("chat:a", "3");
    assert_eq!(alice.texts(1), ["3"]);
    gateway.finish();
}

#[test]
fn room_was_left_then_nothing_comes_of_it() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    let mut bob = gateway.sign_in("bob");
    for client in [&mut alice, &mut bob] {
        client.subscribe("chat:a");
        client.subscribe("chat:b");
    }
    alice.try_unsubscribe("chat:a").unwrap();
    // The home knows when it says so to others.
    crate::support::wait_until("alice has left", || bob.try_presence("chat:a", 0).unwrap().count == 1);
    bob.publish("chat:a", "without alice");
    bob.publish("chat:b", "with alice");
    assert_eq!(alice.texts(1), ["with alice"]);
    assert_eq!(gateway.sum(|m| &m.deliveries_owed), 3);
    // Subscribing again is a new membership.
    alice.subscribe("chat:a");
    bob.publish("chat:a", "with alice again");
    assert_eq!(alice.texts(1), ["with alice again"]);
    gateway.finish();
}
