//! Sessions: takeover, several devices, limits, and what a connection may say when.

use ringgate_core::close::CloseReason;
use ringgate_core::wire::Kind;

use crate::support::{Frame, Gateway, Login, wait_until};

#[test]
fn user_and_device_sign_in_again_then_they_take_the_session_over() {
    let gateway = Gateway::start();
    let mut bob = gateway.sign_in("bob");
    let mut old = gateway.sign_in_with(&Login::user("alice").device("phone"));
    let mut new = gateway.sign_in_with(&Login::user("alice").device("phone"));
    let goodbye = old.expect_close(4500);
    assert_eq!((goodbye.reason.as_str(), goodbye.reconnect, goodbye.after_ms), ("taken over", false, 0));
    bob.publish("@alice", "hello");
    assert_eq!(new.texts(1), ["hello"]);
    assert_eq!(gateway.closed(CloseReason::TakenOver), 1);
    gateway.wait_for("sessions", 2, |m| &m.sessions_active);
    gateway.finish();
}

#[test]
fn user_has_several_devices_then_each_gets_every_message() {
    let gateway = Gateway::start();
    let devices = ["phone", "tablet", "desktop"];
    let mut clients: Vec<_> =
        devices.iter().map(|device| gateway.sign_in_with(&Login::user("alice").device(device))).collect();
    let mut bob = gateway.sign_in("bob");
    for text in ["one", "two"] {
        bob.publish("@alice", text);
    }
    for client in &mut clients {
        assert_eq!(client.texts(2), ["one", "two"]);
    }
    gateway.finish();
}

#[test]
fn user_has_sessions_per_user_max_then_another_device_is_refused() {
    let gateway = Gateway::with(|config| config.settings.client.sessions_per_user_max = 2);
    let first = gateway.sign_in_with(&Login::user("alice").device("a"));
    let _second = gateway.sign_in_with(&Login::user("alice").device("b"));
    assert_eq!(gateway.refused_sign_in(&Login::user("alice").device("c")), 3504);
    // Others are not affected, and neither is a takeover.
    let _bob = gateway.sign_in("bob");
    let _second_again = gateway.sign_in_with(&Login::user("alice").device("b"));
    drop(first);
    // Its home hears of it a moment after it is gone.
    wait_until("a third may sign in", || {
        let mut third = gateway.client();
        third.try_sign_in(&Login::user("alice").device("c")).is_ok()
    });
    gateway.finish();
}

#[test]
fn another_frame_first_or_a_second_connect_then_closed() {
    let gateway = Gateway::start();
    for kind in [Kind::Ping, Kind::ClientPong] {
        let mut client = gateway.client();
        client.send_empty(kind);
        client.expect_close(3501);
    }
    let mut client = gateway.client();
    client.send_request(|encoder, out, request| encoder.subscribe(out, request, ("chat:a", None).into()));
    client.expect_close(3501);
    let mut client = gateway.sign_in("alice");
    client.send_connect(&Login::user("alice"));
    client.expect_close(3501);
    assert_eq!(gateway.closed(CloseReason::BadRequest), 4);
    gateway.finish();
}

/// In one write with Connect, and one by one while its token is being looked at.
#[test]
fn requests_follow_connect_at_once_then_they_are_answered_after_connected_in_order() {
    let gateway = Gateway::with(|config| config.runtime.shards = Some(4));
    for (number, at_once) in [true, false].into_iter().cycle().take(40).enumerate() {
        let mut client = gateway.client();
        let token = crate::support::dev_token(&format!("user{number}"));
        let room = format!("chat:{number}");
        let rooms = [(&*room, None).into()];
        let connect = ringgate_core::wire::encode::ConnectRequest {
            request: 1,
            token: &token,
            rooms: &rooms,
            ..Default::default()
        };
        let mut encoder = ringgate_core::wire::Encoder::default();
        let mut frames = [Vec::new(), Vec::new(), Vec::new()];
        encoder.connect(&mut frames[0], &connect);
        let publish = ringgate_core::wire::encode::PublishRequest {
            request: 2,
            topic: &room,
            payload: b"x",
            ..Default::default()
        };
        encoder.publish(&mut frames[1], &publish);
        ringgate_core::wire::Encoder::empty(&mut frames[2], Kind::Ping);
        match at_once {
            true => client.send_bytes(&frames.concat()),
            false => frames.iter().for_each(|frame| client.send_bytes(frame)),
        }
        client.published(2).unwrap();
        assert_eq!(client.message().sender, format!("user{number}"));
    }
    gateway.finish();
}

#[test]
fn client_sends_disconnect_then_the_end_comes_without_goodbye() {
    let gateway = Gateway::start();
    let mut alice = gateway.sign_in("alice");
    alice.send_empty(Kind::Disconnect);
    alice.expect_end();
    let mut stranger = gateway.client();
    stranger.send_empty(Kind::Disconnect);
    assert_eq!(stranger.rest(), Vec::<Frame>::new());
    assert_eq!(gateway.closed(CloseReason::ConnectionClosed), 2);
    gateway.finish();
}

/// More than the gateway takes in waits behind Connect when it is refused: the client still reads why, and no reset.
#[test]
fn connect_with_much_behind_it_is_refused_then_goodbye_says_why() {
    let gateway = Gateway::start();
    for _ in 0..20 {
        let mut client = gateway.client();
        let mut frames = Vec::new();
        let mut encoder = ringgate_core::wire::Encoder::default();
        let connect =
            ringgate_core::wire::encode::ConnectRequest { request: 1, token: "garbage", ..Default::default() };
        encoder.connect(&mut frames, &connect);
        let payload = vec![1; 60_000];
        for request in 2..5 {
            let publish = ringgate_core::wire::encode::PublishRequest {
                request,
                topic: "@bob",
                payload: &payload,
                ..Default::default()
            };
            encoder.publish(&mut frames, &publish);
        }
        client.send_bytes(&frames);
        client.expect_close(3500);
        drop(client);
    }
    gateway.wait_for("slots", 0, |m| &m.ring_slots_used);
    gateway.finish();
}

/// Everything that a client asks for behind Connect comes, also what had to wait in the socket.
#[test]
fn more_than_is_kept_follows_connect_then_all_of_it_is_answered() {
    let gateway = Gateway::with(|config| {
        config.runtime.shards = Some(2);
        config.settings.client.bytes_rate = 0;
    });
    let mut client = gateway.client();
    let mut frames = Vec::new();
    let mut encoder = ringgate_core::wire::Encoder::default();
    let token = crate::support::dev_token("alice");
    let connect = ringgate_core::wire::encode::ConnectRequest { request: 1, token: &token, ..Default::default() };
    encoder.connect(&mut frames, &connect);
    let payload = vec![1; 20_000];
    for request in 2..102 {
        let publish = ringgate_core::wire::encode::PublishRequest {
            request,
            topic: "@bob",
            payload: &payload,
            ..Default::default()
        };
        encoder.publish(&mut frames, &publish);
    }
    client.send_bytes(&frames);
    for request in 2..102 {
        client.published(request).unwrap();
    }
    gateway.finish();
}
