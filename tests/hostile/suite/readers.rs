//! Clients that read too slowly or not at all, and those that send too much.

use std::io::Read;

use ringgate_core::wire::Kind;
use ringgate_core::wire::encode::PublishRequest;

use super::scene::{End, Scene};
use super::{Case, case};
use crate::support::{Client, Frame, Login, wait_until};

/// More than a socket whose buffers are small takes.
const MUCH: usize = 40;
const PAYLOAD: usize = 20_000;

/// A session of this device that does not read, with small buffers.
fn reads_nothing(scene: &Scene<'_>, device: &str, room: Option<&str>) -> Client {
    let mut login = Login::user(&scene.user).device(device);
    if let Some(room) = room {
        login = login.room(room, None);
    }
    let client = scene.sign_in_as(&login);
    ringgate_net::shrink_buffers(client.socket(), 4096).unwrap();
    client
}

fn writes_much(scene: &Scene<'_>, topic: &str, ephemeral: bool) {
    let mut login = Login::user(&scene.user).device("writer");
    if !topic.starts_with('@') {
        login = login.room(topic, None);
    }
    let mut writer = scene.sign_in_as(&login);
    for _ in 0..MUCH {
        let publish = PublishRequest { topic, payload: &[7; PAYLOAD], ephemeral, ..Default::default() };
        writer.try_publish(publish).unwrap();
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("an_inbox_is_read_after_all", |scene| {
            let mut slow = reads_nothing(scene, "slow", None);
            writes_much(scene, &scene.inbox(), false);
            // What is older than it may get is gone; what comes is in order.
            let first = slow.message();
            assert_eq!((first.topic, first.payload.len()), (scene.inbox(), PAYLOAD));
        }),
        case("a_room_is_read_after_all", |scene| {
            let room = scene.room("chat");
            let mut slow = reads_nothing(scene, "slow", Some(&room));
            writes_much(scene, &room, false);
            let first = slow.message();
            assert_eq!((first.topic, first.payload.len()), (room, PAYLOAD));
        }),
        case("a_message_is_read_byte_by_byte", |scene| {
            let slow = reads_nothing(scene, "slow", None);
            writes_much(scene, &scene.inbox(), false);
            let mut byte = [0];
            for _ in 0..3000 {
                slow.socket().read_exact(&mut byte).unwrap();
            }
        }),
        case("nobody_acknowledges", |scene| {
            let mut lazy = scene.sign_in("lazy");
            let topic = scene.inbox();
            for _ in 0..300 {
                lazy.send_publish(PublishRequest { topic: &topic, payload: b"x", ..Default::default() });
            }
            assert_eq!(lazy.messages(300).len(), 300);
        }),
        case("nobody_acknowledges_and_the_device_comes_back", |scene| {
            for _ in 0..8 {
                let mut lazy = scene.sign_in("lazy");
                lazy.publish(&scene.inbox(), "again");
                lazy.message();
            }
        }),
        case("a_session_is_taken_over_with_its_outbox_full", |scene| {
            let _slow = reads_nothing(scene, "slow", None);
            writes_much(scene, &scene.inbox(), false);
            let mut newer = scene.sign_in("slow");
            newer.ping();
        }),
        case("nobody_reads_anything", |scene| {
            let room = scene.room("loud");
            let all: Vec<_> =
                (0..8).map(|number| reads_nothing(scene, &format!("slow{number}"), Some(&room))).collect();
            writes_much(scene, &room, false);
            for (number, client) in all.into_iter().enumerate() {
                End::ALL[number % 3].of_client(client, false);
            }
        }),
        case("more_frames_than_the_rate", |scene| {
            let mut client = scene.sign_in("d");
            let mut bytes = Vec::new();
            (0..8000).for_each(|_| ringgate_core::wire::Encoder::empty(&mut bytes, Kind::Ping));
            client.send_bytes(&bytes);
            let refusal = client.take("Error 111", |frame| match frame {
                Frame::Refused(refusal) => Some(refusal.clone()),
                _ => None,
            });
            assert_eq!((refusal.code, refusal.request), (111, 0));
            // Forgiven: it waits as long as it is told, and goes on.
            std::thread::sleep(std::time::Duration::from_millis(u64::from(refusal.retry_after_ms)));
            client.ping();
        }),
        case("more_frames_than_the_rate_all_the_time", |scene| {
            let mut client = scene.sign_in("d");
            let mut bytes = Vec::new();
            (0..2000).for_each(|_| ringgate_core::wire::Encoder::empty(&mut bytes, Kind::ClientPong));
            ringgate_core::wire::Encoder::empty(&mut bytes, Kind::Ping);
            wait_until("closed for the rate", || client.try_send_bytes(&bytes).is_err());
        }),
        case("more_bytes_than_the_rate", |scene| {
            let mut client = scene.sign_in("d");
            // To a room in which it is not: every one is refused, and counts.
            let payload = vec![7; 1 << 20];
            let mut refused = 0;
            for _ in 0..24 {
                let publish = PublishRequest { topic: "chat:not-in-it", payload: &payload, ..Default::default() };
                match client.try_publish(publish) {
                    Err(refusal) if refusal.code == 401 => {}
                    Err(refusal) => {
                        assert_eq!(refusal.code, 111);
                        refused += 1;
                        break;
                    }
                    Ok(published) => panic!("{published:?}"),
                }
            }
            assert_eq!(refused, 1);
            client.ping_or_refused();
        }),
    ];
    for end in End::ALL {
        let name = |what: &str| format!("{end:?}_with_{what}_unread").to_lowercase();
        cases.push(case(name("an_inbox"), move |scene| {
            let slow = reads_nothing(scene, "slow", None);
            writes_much(scene, &scene.inbox(), false);
            end.of_client(slow, false);
        }));
        cases.push(case(name("a_room_that_has_a_log"), move |scene| {
            let slow = reads_nothing(scene, "slow", Some(&scene.room("chat")));
            writes_much(scene, &scene.room("chat"), false);
            end.of_client(slow, false);
        }));
        cases.push(case(name("a_room_that_has_no_log"), move |scene| {
            let slow = reads_nothing(scene, "slow", Some(&scene.room("brief")));
            writes_much(scene, &scene.room("brief"), false);
            end.of_client(slow, false);
        }));
        cases.push(case(name("ephemeral_messages"), move |scene| {
            let slow = reads_nothing(scene, "slow", Some(&scene.room("chat")));
            writes_much(scene, &scene.room("chat"), true);
            end.of_client(slow, false);
        }));
    }
    cases
}

impl Client {
    /// A Ping, answered or refused for the rate.
    fn ping_or_refused(&mut self) {
        self.send_empty(Kind::Ping);
        self.take("Pong or Error 111", |frame| match frame {
            Frame::Pong => Some(()),
            Frame::Refused(refusal) if refusal.code == 111 => Some(()),
            _ => None,
        });
    }
}
