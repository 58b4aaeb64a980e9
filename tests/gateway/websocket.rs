//! Listeners of WebSocket: the same sessions behind a request of HTTP/1.1, and what those are told that are refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;

use ringgate::config::{Config, ListenerConfig};
use ringgate_core::close::CloseReason;
use ringgate_core::metrics::Refusal;
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::PublishRequest;
use ringgate_core::wire::{Encoder, Kind};
use ringgate_net::ws::OriginPattern;
use tungstenite::Message;

use crate::support::{
    Client, Gateway, Login, Process, TlsMemory, WsStream, connect_frame, dev_token, upgrade_request, wait_until,
};

/// With a listener of WebSocket over TLS beside the others.
fn add_wss(config: &mut Config) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.listeners.push(ListenerConfig::new(address, Transport::Wss));
}

/// Everything that a listener of WebSocket answers to these bytes, until it closes.
fn answer(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> String {
    let mut socket = Gateway::raw_at(gateway.ws());
    socket.write_all(bytes.as_ref()).unwrap();
    read_all(socket)
}

fn read_all(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// The Goodbye with this code, the Close frame with the same one, and the end.
fn expect_close(client: &mut Client, reason: CloseReason) {
    client.expect_close(reason.code());
    let closed = client.websocket().closed();
    assert_eq!(closed.map(|(code, _)| code), Some(reason.code()), "the Close frame");
}

#[test]
fn client_comes_over_ws_or_wss_then_it_and_a_tcp_client_have_messages_both_ways() {
    for memory in [TlsMemory::Ordinary, TlsMemory::Compact] {
        let gateway = Gateway::with(|config| {
            add_wss(config);
            if memory == TlsMemory::Compact {
                config.make_tls_compact();
            }
        });
        let mut bob = gateway.sign_in("bob");
        for (transport, user) in [(Transport::Ws, "alice"), (Transport::Wss, "carol")] {
            let mut client = gateway.ws_client(transport);
            client.sign_in(&Login::user(user));
            assert_eq!(gateway.sum(|m| &m.connections_active[transport]), 1, "{transport:?}");
            client.ping();
            for size in [0, 1, 100, 126, 40_000, 65_536] {
                let payload = vec![size as u8; size];
                client.publish("@bob", &payload);
                bob.publish(&format!("@{user}"), &payload);
                for receiver in [&mut client, &mut bob] {
                    let message = receiver.message();
                    assert!(message.payload == payload, "{size} B over {transport:?}, {memory:?}");
                    receiver.ack(message.stamp.position);
                }
            }
        }
        gateway.wait_for("acknowledged", 24, |m| &m.inbox_acked);
        gateway.finish();
    }
}

#[test]
fn members_of_a_room_come_over_tcp_and_ws_then_each_gets_the_same_messages_in_the_same_order() {
    const MESSAGES: usize = 50;
    let gateway = Gateway::start();
    let mut members: Vec<_> = (0..3).map(|number| gateway.sign_in(&format!("tcp{number}"))).collect();
    members.extend((0..3).map(|number| gateway.sign_in_over_ws(&format!("ws{number}"))));
    for member in &mut members {
        member.subscribe("chat:general");
    }
    for number in 0..MESSAGES {
        let from = number % members.len();
        members[from].publish("chat:general", number.to_string());
    }
    let wanted: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    for member in &mut members {
        assert_eq!(member.texts(MESSAGES), wanted);
    }
    gateway.finish();
}

#[test]
fn frames_are_cut_into_messages_in_any_way_then_each_frame_is_answered() {
    let gateway = Gateway::start();
    let mut client = gateway.sign_in_over_ws("alice");
    let mut frames = Vec::new();
    let publish = |request| PublishRequest { request, topic: "@bob", payload: b"x", ..PublishRequest::default() };
    let mut encoder = Encoder::default();
    encoder.publish(&mut frames, &publish(100));
    encoder.publish(&mut frames, &publish(101));
    Encoder::empty(&mut frames, Kind::Ping);
    let websocket = client.websocket();
    // All in one message; then a few bytes in each, with an empty one and a Ping of WebSocket between them.
    websocket.send(&frames).unwrap();
    for part in frames.chunks(7) {
        websocket.send(part).unwrap();
        websocket.send(b"").unwrap();
        websocket.send_message(Message::Ping(b"still there?".to_vec().into())).unwrap();
    }
    for _ in 0..2 {
        for request in [100, 101] {
            assert!(client.published(request).is_ok());
        }
        client.take_pong();
    }
    gateway.wait_for("published twice each", 4, |m| &m.inbox_stored);
    gateway.finish();
}

#[test]
fn session_is_taken_over_from_tcp_then_the_websocket_closes_with_4500() {
    let gateway = Gateway::start();
    let mut first = gateway.sign_in_over_ws("alice");
    let mut second = gateway.sign_in("alice");
    expect_close(&mut first, CloseReason::TakenOver);
    let mut third = gateway.sign_in_over_ws("alice");
    second.expect_close(4500);
    third.ping();
    wait_until("it is counted", || gateway.sum(|m| &m.closes[Transport::Ws][CloseReason::TakenOver]) == 1);
    gateway.finish();
}

#[test]
fn gateway_drains_then_websockets_close_with_3001() {
    let gateway = Gateway::with(add_wss);
    let mut clients = [Transport::Ws, Transport::Wss].map(|transport| gateway.ws_client(transport));
    for (number, client) in clients.iter_mut().enumerate() {
        client.sign_in(&Login::user(&format!("user{number}")));
    }
    let stopping = std::thread::spawn(move || gateway.shutdown(&AtomicBool::new(false)));
    for client in &mut clients {
        expect_close(client, CloseReason::Shutdown);
    }
    assert!(stopping.join().unwrap(), "every client had gone");
}

#[test]
fn client_closes_its_websocket_then_the_same_code_comes_back_and_the_session_ends() {
    let gateway = Gateway::start();
    let mut client = gateway.sign_in_over_ws("alice");
    client.websocket().send_message(Message::Close(None)).unwrap();
    client.expect_end();
    wait_until("it is counted", || gateway.sum(|m| &m.closes[Transport::Ws][CloseReason::ConnectionClosed]) == 1);
    gateway.finish();
}

#[test]
fn message_is_a_text_then_the_websocket_closes_with_1003() {
    let gateway = Gateway::start();
    let mut client = gateway.sign_in_over_ws("alice");
    client.websocket().send_message(Message::text("hello")).unwrap();
    client.rest();
    let (code, reason) = client.websocket().closed().unwrap();
    assert_eq!((code, reason.as_str()), (1003, "a text message; ringgate.v1 has binary messages only"));
    wait_until("it is counted", || gateway.sum(|m| &m.closes[Transport::Ws][CloseReason::BadRequest]) == 1);
    gateway.finish();
}

#[test]
fn request_is_refused_then_the_answer_has_a_status_and_a_sentence() {
    let gateway = Gateway::with(|config| config.websocket.origins.clear());
    let long = upgrade_request(&format!("X-Long: {}\r\n", "x".repeat(8192)));
    let cases = [
        ("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 426, "Only WebSocket connections are accepted here"),
        (long, 431, "The request is longer than 8192 bytes"),
        (upgrade_request("Origin: https://evil.test\r\n"), 403, "Pages of this origin may not connect."),
        (upgrade_request("").replace("/ws", "/other"), 404, "WebSocket connections are accepted at /ws."),
        (upgrade_request("").replace("GET", "POST"), 405, "begins with GET"),
        (upgrade_request("Sec-WebSocket-Protocol: mqtt\r\n"), 400, "ask for ringgate.v1"),
    ];
    let count = cases.len() as u64;
    for (request, status, sentence) in cases {
        let answer = answer(&gateway, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(sentence), "{answer}");
    }
    // The frames of the other listeners are no request, either.
    let answer = answer(&gateway, connect_frame(&dev_token("alice")));
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("This is no request of HTTP/1.1"), "{answer}");
    wait_until("they are counted", || gateway.sum(|m| &m.closes[Transport::Ws][CloseReason::BadRequest]) == count + 1);
    gateway.finish();
}

#[test]
fn page_has_an_origin_that_is_allowed_then_it_may_connect() {
    let gateway = Gateway::with(|config| {
        config.websocket.origins = vec![OriginPattern::parse("https://*.example.org").unwrap()];
    });
    let own = Gateway::with(|config| config.websocket.origins.clear());
    for (gateway, origin, is_allowed) in [
        (&gateway, "https://chat.example.org", true),
        (&gateway, "http://gateway.test", false),
        (&own, "http://gateway.test", true),
        (&own, "https://chat.example.org", false),
    ] {
        let mut socket = Gateway::raw_at(gateway.ws());
        socket.write_all(upgrade_request(&format!("Origin: {origin}\r\n")).as_bytes()).unwrap();
        let mut start = [0; 13];
        socket.read_exact(&mut start).unwrap();
        let wanted = if is_allowed { b"HTTP/1.1 101 " } else { b"HTTP/1.1 403 " };
        assert_eq!(&start, wanted, "{origin}");
    }
    gateway.finish();
    own.finish();
}

#[test]
fn gateway_is_for_development_then_it_says_the_url_and_pages_of_this_host_may_connect() {
    let process = Process::dev_gateway(&[]);
    let url = process.url("ws");
    let address = url.strip_prefix("ws://").and_then(|rest| rest.strip_suffix("/ws")).unwrap();
    for (origin, status) in [("http://localhost:5173", "101"), ("https://evil.test", "403")] {
        let mut socket = Gateway::raw_at(address.parse().unwrap());
        socket.write_all(upgrade_request(&format!("Origin: {origin}\r\n")).as_bytes()).unwrap();
        let mut start = [0; 12];
        socket.read_exact(&mut start).unwrap();
        assert_eq!(start, *format!("HTTP/1.1 {status}").as_bytes(), "{origin}");
    }
}

#[test]
fn node_is_full_then_a_request_is_answered_with_503() {
    let limited = Gateway::with(|config| config.settings.client.connections_max = 1);
    let full = Gateway::with(|config| {
        (config.runtime.shards, config.runtime.connections_per_shard_max) = (Some(1), 1);
    });
    for (gateway, refusal) in [(limited, Refusal::Node), (full, Refusal::Full)] {
        let _stays = gateway.sign_in("alice");
        let answer = read_all(Gateway::raw_at(gateway.ws()));
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: "), "{answer}");
        assert!(answer.contains("The gateway has as many connections as it may."), "{answer}");
        assert_eq!(gateway.sum(|m| &m.connections_refused[refusal]), 1);
        gateway.finish();
    }
}

#[test]
fn client_says_nothing_then_its_connection_is_closed_as_stale() {
    let gateway = Gateway::with(|config| config.settings.client.connect_timeout_ms = 300);
    // No request, a part of one, and no Connect behind a whole one.
    let silent = Gateway::raw_at(gateway.ws());
    let mut slow = Gateway::raw_at(gateway.ws());
    slow.write_all(b"GET /ws HTT").unwrap();
    let mut upgraded = gateway.ws_client(Transport::Ws);
    assert_eq!(read_all(silent), "");
    assert_eq!(read_all(slow), "");
    expect_close(&mut upgraded, CloseReason::Stale);
    wait_until("they are counted", || gateway.sum(|m| &m.closes[Transport::Ws][CloseReason::Stale]) == 3);
    gateway.finish();
}

/// A client that asks for a WebSocket with these headers beside the subprotocol.
fn client_with(gateway: &Gateway, headers: &str) -> Client {
    let headers = match headers.contains("Sec-WebSocket-Protocol") {
        true => headers.to_owned(),
        false => format!("Sec-WebSocket-Protocol: ringgate.v1\r\n{headers}"),
    };
    Client::over_websocket(WsStream::ask(gateway.ws(), None, &headers))
}

#[test]
fn token_comes_with_the_request_then_connect_refers_to_it_or_has_another() {
    let gateway = Gateway::with(|config| config.websocket.token_cookie = Some("session".to_owned()));
    let (alice, bob) = (dev_token("alice"), dev_token("bob"));
    let places = [
        format!("Authorization: Bearer {alice}\r\n"),
        format!("authorization: bearer {alice}\r\nCookie: session={bob}\r\n"),
        format!("Cookie: theme=dark; session={alice}; other=1\r\n"),
        format!("Sec-WebSocket-Protocol: ringgate.v1, bearer.{alice}\r\n"),
    ];
    for headers in &places {
        let mut client = client_with(&gateway, headers);
        assert_eq!(client.sign_in(&Login::token("-")).user, "alice", "{headers}");
        drop(client);
        // The one in Connect counts.
        let mut client = client_with(&gateway, headers);
        assert_eq!(client.sign_in(&Login::token(bob.clone())).user, "bob", "{headers}");
    }
    gateway.finish();
}

#[test]
fn request_has_no_good_token_then_connect_cannot_refer_to_one() {
    let gateway = Gateway::start();
    let alice = dev_token("alice");
    let cases = [
        String::new(),
        // No cookie is named in the settings.
        format!("Cookie: session={alice}\r\n"),
        format!("Authorization: Basic {alice}\r\n"),
        "Authorization: Bearer x\r\n".to_owned(),
        "Sec-WebSocket-Protocol: ringgate.v1, bearer.\r\n".to_owned(),
    ];
    for headers in cases {
        let mut client = client_with(&gateway, &headers);
        let refused = client.try_sign_in(&Login::token("-")).unwrap_err();
        assert_eq!(refused.code, CloseReason::InvalidToken.code(), "{headers}");
    }
    let mut client = gateway.client();
    assert_eq!(client.try_sign_in(&Login::token("-")).unwrap_err().code, CloseReason::InvalidToken.code());
    drop(client);
    // Two of them could each be believed by another server.
    let twice =
        answer(&gateway, upgrade_request(&format!("Authorization: Bearer {alice}\r\nAuthorization: Bearer x\r\n")));
    assert!(twice.starts_with("HTTP/1.1 400 ") && !twice.contains(&alice), "{twice}");
    // The query of the path is no place for a token.
    let mut socket = Gateway::raw_at(gateway.ws());
    socket.write_all(upgrade_request("").replace("/ws", &format!("/ws?token={alice}")).as_bytes()).unwrap();
    let mut start = [0; 13];
    socket.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 101 ");
    drop(socket);
    gateway.finish();
}
