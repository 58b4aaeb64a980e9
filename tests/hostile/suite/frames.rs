//! Frames: announced, begun, broken off, too long, at the wrong time, more than may be pipelined; and connections that
//! break off at each step.

use std::io::Write;
use std::net::Shutdown;

use ringgate_core::limits::CONNECT_BODY_BYTES_MAX;
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};
use ringgate_core::wire::{Encoder, Kind};

use super::remote::MESSAGE_BYTES;
use super::scene::{By, End, Scene, ends};
use super::{Case, case};
use crate::support::{Client, Frame, Login, connect_frame, dev_token};
use ringgate_sim::Random;

/// Longest body behind sign-in.
const BODY_BYTES_MAX: usize = MESSAGE_BYTES + 4096;

fn header(length: usize, kind: u8) -> Vec<u8> {
    [&(length as u32).to_le_bytes()[..], &[kind, 0, 0, 0]].concat()
}

fn frame(kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::new();
    Encoder::empty(&mut bytes, kind);
    bytes
}

/// A Connect of this token and these rooms.
fn connect_of(token: &str, device: &str, rooms: &[String]) -> Vec<u8> {
    let rooms: Vec<_> = rooms.iter().map(|room| (room.as_str(), None).into()).collect();
    let mut bytes = Vec::new();
    Encoder::default()
        .connect(&mut bytes, &ConnectRequest { request: 1, token, device, rooms: &rooms, ..Default::default() });
    bytes
}

/// Names as long as may be.
fn longest_rooms() -> Vec<String> {
    (0..128).map(|number| format!("chat:{number:0>123}")).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("connect_is_announced_and_never_sent", |scene| {
            let mut clients: Vec<_> = (0..8).map(|_| scene.client()).collect();
            for (number, client) in clients.iter_mut().enumerate() {
                client.send_bytes(&header(CONNECT_BODY_BYTES_MAX, 1));
                client.send_bytes(&vec![0; number * 4000]);
            }
        }),
        case("connect_longer_than_any_is_announced", |scene| {
            let mut client = scene.client();
            client.send_bytes(&header(CONNECT_BODY_BYTES_MAX + 1, 1));
            client.expect_close(3510);
        }),
        case("newcomers_announce_the_longest_publish", |scene| {
            for _ in 0..8 {
                let mut client = scene.client();
                client.send_bytes(&header(BODY_BYTES_MAX, 3));
                client.expect_close(3510);
            }
        }),
        case("newcomers_announce_a_publish_that_may_be", |scene| {
            for _ in 0..8 {
                let mut client = scene.client();
                client.send_bytes(&header(1000, 3));
                client.expect_close(3501);
            }
        }),
        case("the_longest_publish_is_announced_and_never_sent", |scene| {
            let mut clients: Vec<_> = (0..8).map(|number| scene.sign_in(&format!("d{number}"))).collect();
            for client in &mut clients {
                client.send_bytes(&header(BODY_BYTES_MAX, 3));
            }
        }),
        case("a_part_of_the_longest_publish", |scene| {
            let mut client = scene.sign_in("d");
            client.send_bytes(&header(BODY_BYTES_MAX, 3));
            client.send_bytes(&vec![7; 2 << 20]);
        }),
        case("a_publish_longer_than_any_is_announced", |scene| {
            let mut client = scene.sign_in("d");
            client.send_bytes(&header(BODY_BYTES_MAX + 1, 3));
            client.expect_close(3510);
        }),
        case("the_longest_connect_signs_in", |scene| {
            let bytes = connect_of(&dev_token(&scene.user), &"d".repeat(128), &longest_rooms());
            let mut client = scene.client();
            client.send_bytes(&bytes);
            client.take("Connected", |frame| matches!(frame, Frame::Connected(_)).then_some(()));
            for _ in 0..128 {
                client.take("Subscribed", |frame| matches!(frame, Frame::Subscribed(_)).then_some(()));
            }
        }),
        case("the_longest_connect_with_a_token_of_garbage", |scene| {
            for _ in 0..8 {
                let mut client = scene.client();
                client.send_bytes(&connect_of(&"x".repeat(8192), &"d".repeat(128), &longest_rooms()));
                client.expect_close(3500);
            }
        }),
        case("connect_byte_by_byte", |scene| {
            let mut client = scene.client();
            for byte in connect_frame(&scene.user) {
                client.send_bytes(&[byte]);
            }
            client.take("Connected", |frame| matches!(frame, Frame::Connected(_)).then_some(()));
        }),
        case("a_second_connect", |scene| {
            let mut client = scene.sign_in("d");
            client.send_connect(&Login::user(&scene.user));
            client.expect_close(3501);
        }),
        case("a_second_connect_in_the_same_segment", |scene| {
            let mut client = scene.client();
            client.send_bytes(&connect_frame(&scene.user).repeat(2));
            client.expect_close(3501);
        }),
        case("as_much_as_may_be_behind_connect", |scene| {
            let mut client = scene.client();
            let pings = CONNECT_BODY_BYTES_MAX / 8;
            client.send_bytes(&[connect_frame(&scene.user), frame(Kind::Ping).repeat(pings)].concat());
            for _ in 0..pings {
                client.take_pong();
            }
        }),
        case("more_than_may_be_behind_connect", |scene| {
            let mut bytes = connect_frame(&scene.user);
            let mut encoder = Encoder::default();
            let topic = scene.inbox();
            for request in 100..400 {
                let publish = PublishRequest { request, topic: &topic, payload: &[7; 400], ..Default::default() };
                encoder.publish(&mut bytes, &publish);
            }
            // Over TLS, more than a handshake may need, too.
            assert!(bytes.len() > 3 * CONNECT_BODY_BYTES_MAX);
            for _ in 0..6 {
                let mut client = scene.client();
                client.send_bytes(&bytes);
                for request in 100..400 {
                    client.published(request).unwrap();
                }
            }
        }),
        case("much_behind_a_connect_that_is_refused", |scene| {
            for _ in 0..4 {
                let mut client = scene.client();
                let bytes = [connect_of("a.b.c", "", &[]), frame(Kind::Ping).repeat(20_000)].concat();
                let _ = client.try_send_bytes(&bytes);
                client.take_goodbye_or_end(3500);
            }
        }),
        case("garbage_behind_connect", |scene| {
            let mut client = scene.client();
            client.send_bytes(&[connect_frame(&scene.user), vec![0xff; 1000]].concat());
            client.expect_close(3510);
        }),
        case("disconnect_is_the_first_frame", |scene| {
            let mut client = scene.client();
            client.send_empty(Kind::Disconnect);
            client.expect_end();
        }),
        case("disconnect_behind_everything", |scene| {
            for _ in 0..8 {
                let mut client = scene.client();
                let (room, inbox) = (scene.room("loud"), scene.inbox());
                let mut bytes = connect_of(&dev_token(&scene.user), "", &[scene.room("chat")]);
                let mut encoder = Encoder::default();
                encoder.subscribe(&mut bytes, 2, (room.as_str(), None).into());
                for topic in [&room, &inbox] {
                    let publish = PublishRequest { request: 3, topic, payload: &[7; 3000], ..Default::default() };
                    encoder.publish(&mut bytes, &publish);
                }
                encoder.presence(&mut bytes, 5, &room, 100);
                encoder.refresh(&mut bytes, 6, "a.b.c");
                Encoder::empty(&mut bytes, Kind::Disconnect);
                bytes.extend_from_slice(&[0xff; 100]);
                client.send_bytes(&bytes);
                client.rest();
            }
        }),
        case("pongs_that_nobody_asked_for", |scene| {
            let mut client = scene.sign_in("d");
            client.send_bytes(&frame(Kind::ClientPong).repeat(1000));
            client.ping();
        }),
        case("pings_without_reading", |scene| {
            let mut client = scene.sign_in("d");
            client.send_bytes(&frame(Kind::Ping).repeat(4000));
        }),
        case("random_bytes", |scene| {
            for seed in 0..16 {
                let mut random = Random::new(seed);
                let bytes: Vec<u8> = (0..2000).map(|_| random.bits() as u8).collect();
                let mut client = scene.client();
                let _ = client.try_send_bytes(&bytes);
                let _ = client.socket().shutdown(Shutdown::Write);
                client.rest();
            }
        }),
        case("random_bytes_in_a_session", |scene| {
            for seed in 0..8 {
                let mut random = Random::new(seed);
                let bytes: Vec<u8> = (0..2000).map(|_| random.bits() as u8).collect();
                let mut client = scene.sign_in("d");
                let _ = client.try_send_bytes(&bytes);
                let _ = client.socket().shutdown(Shutdown::Write);
                client.rest();
            }
        }),
    ];
    for (name, bytes, close) in [
        ("flags", vec![100, 0, 0, 0, 3, 1, 0, 0], 3501),
        ("reserved", vec![100, 0, 0, 0, 3, 0, 0, 1], 3501),
        ("all_ones", vec![0xff; 8], 3510),
        ("ping_with_a_body", vec![1, 0, 0, 0, 2, 0, 0, 0], 3501),
        ("ack_of_15_bytes", vec![15, 0, 0, 0, 4, 0, 0, 0], 3501),
        ("publish_of_no_bytes", vec![0, 0, 0, 0, 3, 0, 0, 0], 3501),
        ("publish_of_a_few_bytes", vec![7, 0, 0, 0, 3, 0, 0, 0], 3501),
    ] {
        cases.push(case(format!("header_of_{name}"), move |scene| {
            let mut client = scene.sign_in("d");
            client.send_bytes(&bytes);
            client.expect_close(close);
        }));
    }
    for kind in [2, 3, 4, 5, 6, 7, 8, 9, 11] {
        cases.push(case(format!("kind_{kind}_before_connect"), move |scene| {
            let mut client = scene.client();
            let length = match kind {
                2 | 11 => 0,
                4 => 16,
                _ => 100,
            };
            client.send_bytes(&header(length, kind));
            client.expect_close(3501);
        }));
    }
    for kind in [0, 12, 127, 128, 129, 132, 140, 141, 255] {
        cases.push(case(format!("kind_{kind}_in_a_session"), move |scene| {
            let mut client = scene.sign_in("d");
            client.send_bytes(&header(16, kind));
            client.expect_close(3501);
        }));
    }
    for (name, bytes) in [
        ("http", &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]),
        ("websocket", b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("proxy_1", b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 7400\r\n"),
        ("proxy_2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x13\x88\x1c\xe8"),
        ("tls", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03random bytes of a ClientHello, a part"),
        ("sslv2", b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10\x01\0\x80\x02\0\x80\x03\0\x80"),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("redis", b"*1\r\n$4\r\nPING\r\n"),
        ("mqtt", b"\x10\x11\0\x04MQTT\x04\x02\0\x3c\0\x05abcde"),
    ] {
        cases.push(case(format!("{name}_where_frames_are_wanted"), move |scene| {
            let mut client = scene.client();
            client.send_bytes(bytes);
            let _ = client.socket().shutdown(Shutdown::Write);
            let said = client.rest();
            assert!(said.len() <= 1 && said.iter().all(|frame| matches!(frame, Frame::Goodbye(_))), "{said:?}");
        }));
        cases.push(
            case(format!("{name}_where_a_hello_is_wanted"), move |scene| {
                let mut socket = scene.socket();
                socket.write_all(bytes).unwrap();
                let _ = socket.shutdown(Shutdown::Write);
                let said = ends(&socket);
                assert!(said.is_empty() || said[0] == 21, "at most an alert: {said:?}");
            })
            .on(|by| by != By::Plain),
        );
    }
    for step in Step::ALL {
        for end in End::ALL {
            cases.push(case(format!("{end:?}_{step:?}").to_lowercase(), move |scene| {
                for round in 0..3 {
                    let client = step.reach(scene, round);
                    end.of_client(client, !matches!(step, Step::Unread));
                }
            }));
        }
    }
    cases
}

impl Client {
    /// Goodbye with this code, or a reset by which it was lost: the gateway closes with bytes of ours unread.
    fn take_goodbye_or_end(&mut self, code: u16) {
        for frame in self.rest() {
            assert!(matches!(&frame, Frame::Goodbye(goodbye) if goodbye.code == code), "{frame:?}");
        }
    }
}

/// Where a connection breaks off.
#[derive(Clone, Copy, Debug)]
enum Step {
    BeforeConnect,
    InsideTheHeader,
    InsideConnect,
    BehindConnect,
    SignedIn,
    InARoom,
    InsideAPublish,
    WithAnswersUnderWay,
    Unread,
}

impl Step {
    const ALL: [Step; 9] = [
        Step::BeforeConnect,
        Step::InsideTheHeader,
        Step::InsideConnect,
        Step::BehindConnect,
        Step::SignedIn,
        Step::InARoom,
        Step::InsideAPublish,
        Step::WithAnswersUnderWay,
        Step::Unread,
    ];

    fn reach(self, scene: &Scene<'_>, round: usize) -> Client {
        let connect = connect_frame(&scene.user);
        let said = |bytes: &[u8]| {
            let mut client = scene.client();
            client.send_bytes(bytes);
            client
        };
        match self {
            Step::BeforeConnect => scene.client(),
            Step::InsideTheHeader => said(&connect[..1 + round]),
            Step::InsideConnect => said(&connect[..connect.len() - 1 - round]),
            Step::BehindConnect => said(&connect),
            Step::SignedIn => scene.sign_in("d"),
            Step::InARoom => scene.sign_in_as(&Login::user(&scene.user).room(&scene.room("loud"), None)),
            Step::InsideAPublish => {
                let mut client = scene.sign_in("d");
                client.send_bytes(&[&header(1000, 3)[..], &[1; 500]].concat());
                client
            }
            Step::WithAnswersUnderWay => {
                let mut client = scene.sign_in("d");
                let topic = scene.inbox();
                for _ in 0..50 {
                    client.send_publish(PublishRequest { topic: &topic, payload: b"x", ..Default::default() });
                }
                client
            }
            Step::Unread => {
                let mut client = scene.sign_in("d");
                ringgate_net::shrink_buffers(client.socket(), 4096).unwrap();
                let topic = scene.inbox();
                for _ in 0..40 {
                    client.send_publish(PublishRequest { topic: &topic, payload: &[7; 30_000], ..Default::default() });
                }
                client
            }
        }
    }
}
