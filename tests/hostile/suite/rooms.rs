//! Topics: joined and left without end, made up, not one's own; requests of every kind without a pause.

use ringgate_core::id::{ClientMessageId, Position};
use ringgate_core::wire::encode::{HistoryRequest, PublishRequest};
use ringgate_core::wire::{Encoder, Kind};

use super::remote::QUIET_TOPICS;
use super::scene::{End, Scene};
use super::{Case, case};
use crate::support::{Client, Frame, Login};
use ringgate_sim::Random;

/// Requests, all sent before any answer is read; then the codes of the answers, 0 where the request was carried out.
fn codes(client: &mut Client, requests: usize, build: impl Fn(&mut Encoder, &mut Vec<u8>, u32, usize)) -> Vec<u16> {
    let sent: Vec<u32> = (0..requests)
        .map(|number| client.send_request(|encoder, out, request| build(encoder, out, request, number)))
        .collect();
    let code = |frame| match frame {
        Frame::Refused(refusal) => refusal.code,
        _ => 0,
    };
    sent.into_iter().map(|request| code(client.answer(request))).collect()
}

/// What is left when its sender goes without reading a single answer.
fn unread(scene: &Scene<'_>, requests: u32, build: impl Fn(&mut Encoder, &mut Vec<u8>, u32)) {
    for end in End::ALL {
        let mut client = scene.sign_in_as(&Login::user(&scene.user).room(&scene.room("chat"), None));
        let mut bytes = Vec::new();
        let mut encoder = Encoder::default();
        (10..10 + requests).for_each(|request| build(&mut encoder, &mut bytes, request));
        client.send_bytes(&bytes);
        end.of_client(client, false);
    }
}

/// Publishes that want no answer, then a Ping: nothing but its Pong comes.
fn unanswered(client: &mut Client, topics: impl Iterator<Item = String>, change: impl Fn(&mut PublishRequest<'_>)) {
    for topic in topics {
        client.send(|encoder, out| {
            let mut publish = PublishRequest { topic: &topic, payload: &[7; 100], ..Default::default() };
            change(&mut publish);
            publish.request = 0;
            encoder.publish(out, &publish);
        });
    }
    client.ping();
}

/// Positions of every kind but good ones.
fn wild() -> impl Iterator<Item = Position> {
    let numbers = [0, 1, 2, 1 << 32, (1 << 53) + 1, u64::MAX - 1, u64::MAX];
    numbers.into_iter().flat_map(move |epoch| numbers.map(|offset| Position { epoch, offset }))
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("a_room_is_joined_and_left_without_end", |scene| {
            let mut client = scene.sign_in("d");
            let room = scene.room("chat");
            let codes = codes(&mut client, 600, |encoder, out, request, number| match number % 2 {
                0 => encoder.subscribe(out, request, (room.as_str(), None).into()),
                _ => encoder.unsubscribe(out, request, &room),
            });
            assert_eq!(codes, [0; 600]);
        }),
        case("a_room_that_announces_is_joined_and_left_without_end", |scene| {
            let room = scene.room("loud");
            let mut other = scene.sign_in_as(&Login::user(&scene.user).device("other").room(&room, None));
            let mut client = scene.sign_in("d");
            let codes = codes(&mut client, 400, |encoder, out, request, number| match number % 2 {
                0 => encoder.subscribe(out, request, (room.as_str(), None).into()),
                _ => encoder.unsubscribe(out, request, &room),
            });
            assert_eq!(codes, [0; 400]);
            other.take("Joined", |frame| matches!(frame, Frame::Joined { .. }).then_some(()));
        }),
        case("a_room_is_joined_twice", |scene| {
            let mut client = scene.sign_in("d");
            let room = scene.room("chat");
            let codes = codes(&mut client, 100, |encoder, out, request, _| {
                encoder.subscribe(out, request, (room.as_str(), None).into());
            });
            assert_eq!((codes[0], &codes[1..]), (0, &[105; 99][..]));
        }),
        case("rooms_are_left_that_nobody_joined", |scene| {
            let codes = codes(&mut scene.sign_in("d"), 300, |encoder, out, request, number| {
                encoder.unsubscribe(out, request, &format!("chat:never-{number}"));
            });
            assert_eq!(codes, [401; 300]);
        }),
        case("a_thousand_rooms", |scene| {
            let codes = codes(&mut scene.sign_in("d"), 1000, |encoder, out, request, number| {
                encoder.subscribe(out, request, (format!("{}-{number}", scene.room("chat")).as_str(), None).into());
            });
            let joined = codes.iter().filter(|code| **code == 0).count();
            // Those that were refused for requests under way could have been refused for the number of rooms.
            assert!(joined == 128 && codes.iter().all(|code| matches!(code, 0 | 106 | 403)), "{joined}, {codes:?}");
        }),
        case("a_thousand_rooms_one_after_the_other", |scene| {
            let mut client = scene.sign_in("d");
            for part in 0..10 {
                let codes = codes(&mut client, 200, |encoder, out, request, number| {
                    let room = format!("{}-{part}-{}", scene.room("chat"), number / 2);
                    match number % 2 {
                        0 => encoder.subscribe(out, request, (room.as_str(), None).into()),
                        _ => encoder.unsubscribe(out, request, &room),
                    }
                });
                assert_eq!(codes, [0; 200]);
            }
            let quiet = scene.remote.figure("quiet_topics");
            assert!(quiet <= (QUIET_TOPICS * scene.remote.shards) as i64, "{quiet} positions are kept");
        }),
        case("rooms_of_unknown_namespaces", |scene| {
            let codes = codes(&mut scene.sign_in("d"), 300, |encoder, out, request, number| {
                let room = [format!("n{number}:x"), format!("chat{number}"), "chat:".into(), ":x".into(), "@".into()];
                encoder.subscribe(out, request, (room[number % 5].as_str(), None).into());
            });
            assert!(codes.iter().all(|code| matches!(code, 102 | 107)), "{codes:?}");
        }),
        case("rooms_that_are_not_allowed", |scene| {
            let room = scene.room("closed");
            let codes = codes(&mut scene.sign_in("d"), 300, |encoder, out, request, number| match number % 4 {
                0 => encoder.subscribe(out, request, (room.as_str(), None).into()),
                1 => encoder.history(out, &HistoryRequest { request, topic: &room, limit: 9, ..Default::default() }),
                2 => encoder.presence(out, request, &room, 9),
                _ => encoder.publish(out, &PublishRequest { request, topic: &room, ..Default::default() }),
            });
            assert!(codes.iter().all(|code| matches!(code, 103 | 401)), "{codes:?}");
        }),
        case("rooms_that_nobody_can_see", |scene| {
            let names = ["\u{200b}", "chat:\u{7}", "chat:a b", "chat:\u{a0}", "\u{2800}", "\u{200d}"];
            let codes = codes(&mut scene.sign_in("d"), 300, |encoder, out, request, number| {
                encoder.subscribe(out, request, (names[number % names.len()], None).into());
            });
            assert_eq!(codes, [107; 300]);
        }),
        case("rooms_with_positions_that_never_were", |scene| {
            let mut client = scene.sign_in("d");
            for (number, position) in wild().enumerate() {
                let room = format!("{}-{}", scene.room("chat"), number % 7);
                assert!(!client.try_subscribe(&room, Some(position)).unwrap().recovered, "{position:?}");
                client.try_unsubscribe(&room).unwrap();
            }
        }),
        case("a_flood_of_presence", |scene| {
            let room = scene.room("chat");
            let mut client = scene.sign_in_as(&Login::user(&scene.user).room(&room, None));
            let codes = codes(&mut client, 500, |encoder, out, request, _| {
                encoder.presence(out, request, &room, u32::MAX);
            });
            assert!(codes.iter().all(|code| matches!(code, 0 | 403)), "{codes:?}");
        }),
        case("a_flood_of_presence_that_nobody_reads", |scene| {
            let room = scene.room("chat");
            unread(scene, 1000, |encoder, out, request| encoder.presence(out, request, &room, u32::MAX));
        }),
        case("a_flood_of_presence_in_made_up_rooms", |scene| {
            let codes = codes(&mut scene.sign_in("d"), 500, |encoder, out, request, number| {
                encoder.presence(out, request, &format!("chat:made-up-{number}"), 10);
            });
            assert!(codes.iter().all(|code| matches!(code, 0 | 403)), "{codes:?}");
        }),
        case("a_flood_of_history_that_nobody_reads", |scene| {
            let room = scene.room("chat");
            let mut client = scene.sign_in_as(&Login::user(&scene.user).room(&room, None));
            for _ in 0..60 {
                client.publish(&room, vec![7; 4000]);
            }
            unread(scene, 500, |encoder, out, request| {
                encoder.history(out, &HistoryRequest { request, topic: &room, limit: 300, ..Default::default() });
            });
        }),
        case("a_flood_of_history_in_made_up_rooms", |scene| {
            let codes = codes(&mut scene.sign_in("d"), 500, |encoder, out, request, number| {
                let topic = format!("chat:made-up-{number}");
                encoder.history(out, &HistoryRequest { request, topic: &topic, limit: 9, ..Default::default() });
            });
            assert!(codes.iter().all(|code| matches!(code, 0 | 403)), "{codes:?}");
        }),
        case("history_of_the_inbox_of_another_user", |scene| {
            let codes = codes(&mut scene.sign_in("d"), 200, |encoder, out, request, number| {
                let topic = format!("@innocent-plain-{}", number % 4);
                encoder.history(out, &HistoryRequest { request, topic: &topic, limit: 9, ..Default::default() });
            });
            assert_eq!(codes, [103; 200]);
        }),
        case("history_from_positions_that_never_were", |scene| {
            let room = scene.room("chat");
            let mut client = scene.sign_in_as(&Login::user(&scene.user).room(&room, None));
            client.publish(&room, "one");
            for position in wild() {
                for (since, before) in
                    [(Some(position), None), (None, Some(position)), (Some(position), Some(position))]
                {
                    let wanted = if since.is_some() && before.is_some() { 107 } else { 0 };
                    let codes = codes(&mut client, 1, |encoder, out, request, _| {
                        encoder.history(out, &HistoryRequest { request, topic: &room, since, before, limit: u32::MAX });
                    });
                    assert_eq!(codes, [wanted], "{since:?}, {before:?}");
                }
            }
        }),
        case("acks_of_positions_that_never_were", |scene| {
            let mut client = scene.sign_in("d");
            let topic = scene.inbox();
            client.publish(&topic, "one");
            wild().for_each(|position| client.ack(position));
            let epoch = client.message().stamp.position.epoch;
            for offset in [0, 2, 1 << 40, u64::MAX] {
                client.ack(Position { epoch, offset });
            }
            client.publish(&topic, "two");
            assert_eq!(client.message().text(), "two");
        }),
        case("a_flood_of_acks", |scene| {
            let mut client = scene.sign_in("d");
            let mut random = Random::new(1);
            let mut bytes = Vec::new();
            (0..3000).for_each(|_| Encoder::ack(&mut bytes, Position { epoch: random.bits(), offset: random.bits() }));
            client.send_bytes(&bytes);
            client.ping();
        }),
        case("publishes_to_made_up_users", |scene| {
            let codes = codes(&mut scene.sign_in("d"), 150, |encoder, out, request, number| {
                let topic = format!("@made-up-{}-{number}", scene.user);
                encoder
                    .publish(out, &PublishRequest { request, topic: &topic, payload: &[7; 200], ..Default::default() });
            });
            assert!(codes.iter().all(|code| matches!(code, 0 | 403)), "{codes:?}");
        }),
        case("publishes_to_made_up_rooms", |scene| {
            let codes = codes(&mut scene.sign_in("d"), 400, |encoder, out, request, number| {
                let topic = format!("chat:made-up-{number}");
                encoder.publish(out, &PublishRequest { request, topic: &topic, ..Default::default() });
            });
            assert_eq!(codes, [401; 400]);
        }),
        case("publishes_that_want_no_answer_to_made_up_users", |scene| {
            let topics = (0..150).map(|number| format!("@silent-{}-{number}", scene.user));
            let mut client = scene.sign_in("d");
            unanswered(&mut client, topics, |_| {});
            assert!(client.arrived().is_empty());
        }),
        case("publishes_that_want_no_answer_to_rooms_of_others", |scene| {
            let topics = (0..1000).map(|number| ["calm:lobby", "closed:x", "none:x", "@"][number % 4].to_owned());
            let mut client = scene.sign_in("d");
            unanswered(&mut client, topics, |_| {});
            assert!(client.arrived().is_empty());
        }),
        case("publishes_with_payloads_one_byte_too_long", |scene| {
            let mut client = scene.sign_in("d");
            let topic = scene.inbox();
            let payload = vec![7; super::remote::MESSAGE_BYTES + 1];
            let publish = PublishRequest { topic: &topic, payload: &payload, ..Default::default() };
            let refusal = client.try_publish(publish).unwrap_err();
            // It is longer than the burst of the rate of bytes, too.
            assert!(matches!(refusal.code, 106 | 111), "{refusal:?}");
        }),
        case("publishes_with_traces_and_lives_out_of_bounds", |scene| {
            let mut client = scene.sign_in("d");
            let topic = scene.inbox();
            let trace = "t".repeat(65);
            for trace in [trace.as_str(), "a b", "\u{7}", "é"] {
                let publish = PublishRequest { topic: &topic, trace: Some(trace), ..Default::default() };
                assert_eq!(client.try_publish(publish).unwrap_err().code, 107);
            }
            let publish = PublishRequest { topic: &topic, ttl_seconds: u32::MAX, ..Default::default() };
            client.try_publish(publish).unwrap();
        }),
        case("the_same_message_again_and_again", |scene| {
            let mut client = scene.sign_in("d");
            let mut last = client.publish_with_id(&scene.inbox(), 1, "once");
            for _ in 0..200 {
                let again = client.publish_with_id(&scene.inbox(), 1, "once");
                // The window is short here: what it has forgotten is a new message.
                let is_known = again.stamp == last.stamp;
                assert_eq!(again.duplicate, is_known);
                assert!(is_known || again.stamp.position.offset == last.stamp.position.offset + 1);
                last = again;
            }
        }),
        case("a_flood_of_ids", |scene| {
            let mut client = scene.sign_in("d");
            let topic = scene.inbox();
            let codes = codes(&mut client, 1000, |encoder, out, request, number| {
                let client_message_id = ClientMessageId { high: 1, low: number as u64 + 1 };
                let publish =
                    PublishRequest { request, topic: &topic, client_message_id, ephemeral: true, ..Default::default() };
                encoder.publish(out, &publish);
            });
            assert!(codes.iter().all(|code| matches!(code, 0 | 403)), "{codes:?}");
        }),
        case("a_flood_of_ephemeral_messages", |scene| {
            let room = scene.room("chat");
            let mut client = scene.sign_in_as(&Login::user(&scene.user).room(&room, None));
            let _reads_nothing = scene.sign_in_as(&Login::user(&scene.user).device("other").room(&room, None));
            let topics = (0..2000).map(|_| room.clone());
            unanswered(&mut client, topics, |publish| publish.ephemeral = true);
        }),
        case("a_flood_of_messages_that_live_for_a_second", |scene| {
            let room = scene.room("chat");
            let mut client = scene.sign_in_as(&Login::user(&scene.user).room(&room, None));
            let topics = (0..1000).map(|number| if number % 2 == 0 { room.clone() } else { scene.inbox() });
            unanswered(&mut client, topics, |publish| publish.ttl_seconds = 1);
        }),
        case("a_room_that_vanishes_is_made_again_and_again", |scene| {
            let mut client = scene.sign_in("d");
            let room = scene.room("brief");
            for _ in 0..60 {
                client.subscribe(&room);
                client.publish(&room, "x");
                client.try_unsubscribe(&room).unwrap();
            }
        }),
        case("more_requests_than_may_be_under_way", |scene| {
            let mut client = scene.sign_in("d");
            let topic = scene.inbox();
            let codes = codes(&mut client, 2000, |encoder, out, request, _| {
                encoder.publish(out, &PublishRequest { request, topic: &topic, payload: b"x", ..Default::default() });
            });
            assert!(codes.iter().all(|code| matches!(code, 0 | 403 | 410)), "{codes:?}");
        }),
        case("one_request_id_for_everything", |scene| {
            let room = scene.room("chat");
            let mut client = scene.sign_in_as(&Login::user(&scene.user).room(&room, None));
            for _ in 0..100 {
                client.send(|encoder, out| {
                    encoder.presence(out, 7, &room, 1);
                    encoder.unsubscribe(out, 7, &room);
                    encoder.subscribe(out, 7, (room.as_str(), None).into());
                });
            }
            for _ in 0..300 {
                client.answer(7);
            }
            client.ping();
        }),
        case("disconnect_behind_a_flood", |scene| {
            let mut client = scene.sign_in("d");
            let (room, topic) = (scene.room("chat"), scene.inbox());
            for _ in 0..300 {
                client.send_publish(PublishRequest { topic: &topic, payload: &[7; 1000], ..Default::default() });
                client.send_request(|encoder, out, request| {
                    encoder.subscribe(out, request, (room.as_str(), None).into())
                });
            }
            client.send_empty(Kind::Disconnect);
            client.rest();
        }),
    ]
}
