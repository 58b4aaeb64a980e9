//! Clients that speak JSON (`docs/json.md`), by a client of WebSocket that shares no code with the gateway.

use std::io::ErrorKind;
use std::net::TcpStream;

use ringgate_core::close::CloseReason;
use ringgate_core::transport::Transport;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use crate::support::{DEADLINE, Gateway, dev_token};

/// A browser, more or less.
struct Page {
    socket: WebSocket<TcpStream>,
}

impl Page {
    fn open(gateway: &Gateway, more: &[(&'static str, String)]) -> Page {
        let stream = TcpStream::connect(gateway.ws()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        gateway.hang_up_socket_later(&stream);
        let mut request = format!("ws://{}/ws", gateway.ws()).into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "ringgate.json.v1".parse().unwrap());
        for (name, value) in more {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, response) = tungstenite::client(request, stream).unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "ringgate.json.v1");
        Page { socket }
    }

    fn sign_in(gateway: &Gateway, user: &str, rooms: &[&str]) -> Page {
        let mut page = Page::open(gateway, &[]);
        let rooms: Vec<_> = rooms.iter().map(|room| json!({ "room": room })).collect();
        page.send(json!({"type": "connect", "request": 1, "token": dev_token(user), "device": "page", "rooms": rooms}));
        let connected = page.next();
        assert_eq!((&connected["type"], &connected["user"]), (&json!("connected"), &json!(user)), "{connected}");
        for _ in rooms {
            assert_eq!(page.next()["type"], "subscribed");
        }
        page
    }

    fn send(&mut self, request: Value) {
        self.socket.send(Message::text(request.to_string())).unwrap();
    }

    /// The next message. Signals of other tests may interrupt a read.
    fn read(&mut self) -> Message {
        loop {
            match self.socket.read() {
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                read => return read.unwrap(),
            }
        }
    }

    /// The next push; anything else that comes is a fault.
    fn next(&mut self) -> Value {
        match self.read() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The next push of this type.
    fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let push = self.next();
            if push["type"] == kind {
                return push;
            }
        }
    }

    /// Code and reason of the Close frame that comes next, behind at most these pushes.
    fn closed(&mut self) -> (u16, String) {
        loop {
            match self.read() {
                Message::Close(Some(close)) => return (close.code.into(), close.reason.to_string()),
                Message::Text(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn page_speaks_json_then_it_and_a_client_of_frames_have_messages_both_ways() {
    let gateway = Gateway::start();
    let mut bob = gateway.sign_in("bob");
    let mut alice = Page::sign_in(&gateway, "alice", &[]);
    assert_eq!(gateway.sum(|m| &m.connections_active[Transport::Ws]), 1);
    let id = "01923f5c-8e2a-7b40-9c1d-2e3f4a5b6c7d";
    let publish =
        json!({"type": "publish", "request": 7, "topic": "@bob", "client_message_id": id, "payload": "grüße 🦀 \"\n"});
    for duplicate in [false, true] {
        alice.send(publish.clone());
        let published = alice.next_of("published");
        assert_eq!((&published["request"], &published["duplicate"]), (&json!(7), &json!(duplicate)), "{published}");
        assert_eq!((&published["client_message_id"], &published["durability"]), (&json!(id), &json!("memory")));
    }
    let message = bob.message();
    assert_eq!(message.payload, "grüße 🦀 \"\n".as_bytes());
    bob.publish("@alice", b"text");
    bob.publish("@alice", [0xff, 0x00]);
    let mut last = Value::Null;
    for expected in [json!({"payload": "text"}), json!({"payload_base64": "/wA="})] {
        let message = alice.next_of("message");
        assert_eq!((&message["topic"], &message["sender"]), (&json!("@alice"), &json!("bob")));
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&message[field], value, "{message}");
        }
        last = message["stamp"]["position"].clone();
    }
    alice.send(json!({"type": "ack", "position": last}));
    gateway.wait_for("acknowledged", 2, |m| &m.inbox_acked);
    alice.send(json!({"type": "ping"}));
    assert_eq!(alice.next(), json!({"type": "pong"}));
    alice.send(json!({"type": "disconnect"}));
    gateway.wait_for("gone", 1, |m| &m.closes[Transport::Ws][CloseReason::ConnectionClosed]);
    gateway.finish();
}

#[test]
fn members_of_a_room_speak_json_and_frames_over_tcp_and_ws_then_all_have_the_same_history() {
    const MESSAGES: usize = 40;
    let gateway = Gateway::start();
    let mut pages: Vec<_> =
        (0..3).map(|number| Page::sign_in(&gateway, &format!("page{number}"), &["chat:general"])).collect();
    let mut others = [gateway.sign_in("tcp"), gateway.sign_in_over_ws("ws")];
    others.iter_mut().for_each(|other| drop(other.subscribe("chat:general")));
    for number in 0..MESSAGES {
        match number % 5 {
            3 | 4 => drop(others[number % 5 - 3].publish("chat:general", number.to_string())),
            page => {
                let request = json!({"type": "publish", "request": number + 10, "topic": "chat:general", "payload": number.to_string()});
                pages[page].send(request);
                assert_eq!(pages[page].next_of("published")["request"], number + 10);
            }
        }
    }
    // A publisher hears nothing of its own messages: the history has them all.
    for page in &mut pages {
        page.send(json!({"type": "history", "request": 500, "topic": "chat:general", "limit": 100}));
        let history = page.next_of("history_result");
        let texts: Vec<_> =
            history["messages"].as_array().unwrap().iter().map(|message| message["payload"].clone()).collect();
        let wanted: Vec<_> = (0..MESSAGES).map(|number| json!(number.to_string())).collect();
        assert_eq!(texts, wanted);
        page.send(json!({"type": "presence", "request": 501, "room": "chat:general", "limit": 10}));
        let presence = page.next_of("presence_result");
        assert_eq!((&presence["count"], presence["members"].as_array().map(Vec::len)), (&json!(5), Some(5)));
    }
    gateway.finish();
}

#[test]
fn token_comes_with_the_request_then_connect_needs_none() {
    let gateway = Gateway::start();
    let bearer = format!("Bearer {}", dev_token("alice"));
    let mut page = Page::open(&gateway, &[("Authorization", bearer)]);
    page.send(json!({"type": "connect", "request": 1}));
    assert_eq!(page.next()["user"], "alice");
    gateway.finish();
}

#[test]
fn request_is_out_of_bounds_then_its_error_names_the_field_and_the_session_lives() {
    let gateway = Gateway::start();
    let mut page = Page::sign_in(&gateway, "alice", &[]);
    page.send(json!({"type": "publish", "request": 9, "topic": "a b"}));
    let error = page.next();
    assert_eq!((&error["type"], &error["request"], &error["code"]), (&json!("error"), &json!(9), &json!(107)));
    assert!(error["message"].as_str().unwrap().starts_with("topic: "), "{error}");
    page.send(json!({"type": "ping"}));
    assert_eq!(page.next(), json!({"type": "pong"}));
    gateway.finish();
}

#[test]
fn text_is_no_request_then_the_close_frame_says_why_and_bystanders_notice_nothing() {
    let gateway = Gateway::start();
    let mut bystander = Page::sign_in(&gateway, "bystander", &[]);
    for (text, code, reason) in [
        (r#"{"type":"publish","topic":7}"#, 3501, "topic: has to be a string"),
        (r#"{"type":"shout"}"#, 3501, "type: is unknown"),
        ("hello", 3501, "this is no JSON"),
        ("", 3501, "this is no JSON"),
    ] {
        let mut page = Page::sign_in(&gateway, "alice", &[]);
        page.socket.send(Message::text(text)).unwrap();
        let (was, why) = page.closed();
        assert!(was == code && why.contains(reason), "{text}: {was} {why}");
    }
    let mut page = Page::sign_in(&gateway, "alice", &[]);
    page.socket.send(Message::binary(vec![0; 8])).unwrap();
    assert_eq!(page.closed(), (1003, "a binary message; ringgate.json.v1 has texts only".to_owned()));
    // Before the sign-in, a text may be no longer than a Connect can be.
    let mut page = Page::open(&gateway, &[]);
    page.send(json!({"type": "connect", "token": "t".repeat(80_000)}));
    assert_eq!(page.closed().0, 1009);
    bystander.send(json!({"type": "ping"}));
    assert_eq!(bystander.next(), json!({"type": "pong"}));
    gateway.finish();
}

#[test]
fn session_ends_then_goodbye_comes_as_json_before_the_close_frame() {
    let gateway = Gateway::start();
    let mut first = Page::sign_in(&gateway, "alice", &[]);
    let _second = Page::sign_in(&gateway, "alice", &[]);
    let goodbye = first.next();
    assert_eq!(
        (&goodbye["type"], &goodbye["code"], &goodbye["reconnect"]),
        (&json!("goodbye"), &json!(4500), &json!(false))
    );
    assert_eq!(first.closed().0, 4500);
    gateway.finish();
}

#[test]
fn text_comes_in_many_fragments_then_it_is_one_request() {
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};

    let gateway = Gateway::start();
    let mut bob = gateway.sign_in("bob");
    let mut page = Page::sign_in(&gateway, "alice", &[]);
    let payload = "ü".repeat(30_000);
    let text = json!({"type": "publish", "request": 3, "topic": "@bob", "payload": payload}).to_string();
    let pieces: Vec<_> = text.as_bytes().chunks(999).collect();
    for (nth, piece) in pieces.iter().enumerate() {
        let opcode = OpCode::Data(if nth == 0 { Data::Text } else { Data::Continue });
        let frame = Frame::message(piece.to_vec(), opcode, nth + 1 == pieces.len());
        page.socket.send(Message::Frame(frame)).unwrap();
        page.socket.send(Message::Ping(b"between".to_vec().into())).unwrap();
    }
    while !matches!(page.read(), Message::Text(text) if text.contains("published")) {}
    assert!(bob.message().payload == payload.as_bytes());
    gateway.finish();
}
