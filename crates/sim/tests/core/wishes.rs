//! What a client may ask for, and what it is told: fields that are out of bounds, no answer, recovery of what there is,
//! paging back, heartbeat and window of its own, lifetimes, copies of what it sent.

use ringgate_core::close::CloseReason;
use ringgate_core::id::{ClientMessageId, Position, Recover};
use ringgate_core::limits::Settings;
use ringgate_core::session::Grant;
use ringgate_core::shard::{Letter, ToHome};
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use ringgate_core::wire::{Encoder, Kind, RoomCursor, ServerFrame, append_header};

use ringgate_sim::{Client, Got, Sent, Tokens, World, offsets, settings, settings_with_namespace};

const ROOM: &str = "chat:a";

/// What a Connected said, as far as it is not in [`Got`].
#[derive(Debug, PartialEq)]
struct Terms {
    ping_interval_ms: u32,
    receive_window: u32,
    expires_at: u64,
    expires_in_ms: u64,
    server_time_ms: u64,
}

fn connect(world: &mut World, request: &ConnectRequest<'_>) -> (Client, Terms) {
    let client = world.open(0);
    world.send(client, |encoder, out| encoder.connect(out, request));
    world.work();
    let mut terms = None;
    world.read_with(client, |frame| {
        if let ServerFrame::Connected(connected) = frame {
            terms = Some(Terms {
                ping_interval_ms: connected.ping_interval_ms(),
                receive_window: connected.receive_window(),
                expires_at: connected.expires_at(),
                expires_in_ms: connected.expires_in_ms(),
                server_time_ms: connected.server_time_ms(),
            });
        }
    });
    (client, terms.expect("Connected"))
}

fn of_alice() -> ConnectRequest<'static> {
    ConnectRequest { request: 1, token: "alice", ..ConnectRequest::default() }
}

/// Code, message and room of the one Error that came.
fn error(world: &mut World, client: Client) -> (u32, u16, String, Option<String>) {
    world.work();
    let mut errors = Vec::new();
    world.read_with(client, |frame| {
        if let ServerFrame::Error(error) = frame {
            let message = error.message().unwrap_or_default().to_owned();
            errors.push((error.request(), error.code(), message, error.room().map(str::to_owned)));
        }
    });
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn field_is_out_of_bounds_then_it_is_named_and_the_session_goes_on() {
    let mut world = World::new(2, settings());
    let alice = world.sign_in(0, "alice");
    let trace = "t".repeat(65);
    type Build<'a> = &'a dyn Fn(&mut Encoder, &mut Vec<u8>);
    let cases: [(&str, Build<'_>); 6] = [
        ("room", &|encoder, out| encoder.subscribe(out, 5, ("chat:a b", None).into())),
        ("room", &|encoder, out| encoder.unsubscribe(out, 5, "")),
        ("room", &|encoder, out| encoder.presence(out, 5, "chat:\u{7}", 1)),
        ("topic", &|encoder, out| {
            encoder.history(out, &HistoryRequest { request: 5, topic: "@", ..HistoryRequest::default() });
        }),
        ("token", &|encoder, out| encoder.refresh(out, 5, "")),
        ("trace", &|encoder, out| {
            let trace = Some(&*trace);
            encoder.publish(out, &PublishRequest { request: 5, topic: "@bob", trace, ..PublishRequest::default() });
        }),
    ];
    for (field, build) in cases {
        world.send(alice, build);
        let (request, code, message, _) = error(&mut world, alice);
        assert_eq!((request, code), (5, 107), "{field}");
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
    assert!(world.closed().is_empty());
    world.check();
}

#[test]
fn field_of_connect_is_out_of_bounds_then_it_is_named_and_the_connection_closed() {
    let mut world = World::new(1, settings());
    let client = world.open(0);
    let rooms = [("chat:a b", None).into()];
    world.send(client, |encoder, out| encoder.connect(out, &ConnectRequest { rooms: &rooms, ..of_alice() }));
    world.work();
    let mut reason = String::new();
    world.read_with(client, |frame| {
        if let ServerFrame::Goodbye(goodbye) = frame {
            reason = goodbye.reason().unwrap_or_default().to_owned();
        }
    });
    assert_eq!(world.closed(), [(client, CloseReason::BadRequest)]);
    assert!(reason.starts_with("rooms.room: "), "{reason}");
}

#[test]
fn token_is_refused_then_the_client_is_not_told_why() {
    let mut world = World::new(1, settings());
    world.tokens = Tokens::AtOnce(|_| Err(ringgate_core::close::AuthError::Signature));
    let client = world.open(0);
    world.send(client, |encoder, out| encoder.connect(out, &of_alice()));
    world.work();
    let mut reason = String::new();
    world.read_with(client, |frame| {
        if let ServerFrame::Goodbye(goodbye) = frame {
            reason = goodbye.reason().unwrap_or_default().to_owned();
        }
    });
    assert_eq!((&*reason, &*world.closed()), ("invalid token", &[(client, CloseReason::InvalidToken)][..]));
}

#[test]
fn first_frame_is_not_connect_then_its_header_is_refused() {
    for (kind, bytes, reason) in [
        (Kind::Publish, 100, CloseReason::BadRequest),
        (Kind::Ping, 0, CloseReason::BadRequest),
        (Kind::Connect, 36_865, CloseReason::FrameTooBig),
    ] {
        let mut settings = settings();
        settings.client.message_bytes_max = 1 << 20;
        let mut world = World::new(1, settings);
        let client = world.open(0);
        world.send(client, |_, out| append_header(out, kind, bytes));
        assert_eq!(world.closed(), [(client, reason)], "{kind:?} of {bytes} bytes");
        assert!(matches!(world.read(client)[..], [Got::Goodbye { .. }]));
    }
}

#[test]
fn room_is_refused_then_it_is_named() {
    let mut world = World::new(3, settings());
    let rooms = [("chat:a", None).into(), ("nowhere:b", None).into(), ("colonless", None).into()];
    let client = world.open(0);
    world.send(client, |encoder, out| encoder.connect(out, &ConnectRequest { rooms: &rooms, ..of_alice() }));
    world.work();
    let mut refused = Vec::new();
    world.read_with(client, |frame| {
        if let ServerFrame::Error(error) = frame {
            refused.push((error.request(), error.code(), error.room().unwrap_or_default().to_owned()));
        }
    });
    assert_eq!(refused, [(1, 102, "nowhere:b".to_owned()), (1, 102, "colonless".to_owned())]);
    world.send(client, |encoder, out| encoder.subscribe(out, 2, (ROOM, None).into()));
    assert_eq!(error(&mut world, client), (2, 105, "already subscribed".into(), Some(ROOM.into())));
}

#[test]
fn publish_has_request_0_then_neither_success_nor_refusal_is_answered() {
    let mut world = World::new(3, settings());
    let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(1, "bob"));
    let trace = "t".repeat(65);
    let send = |world: &mut World, fields: PublishRequest<'_>| {
        world.send(alice, |encoder, out| encoder.publish(out, &fields));
        assert_eq!(world.read_all(alice), []);
    };
    send(&mut world, PublishRequest { topic: "@bob", payload: b"x", ..Default::default() });
    assert_eq!(offsets(&world.read_all(bob)), [1], "it was carried out");
    // Refused: not in the room, a namespace that does not exist, too long, a trace that is out of bounds.
    let large = vec![0; settings().client.message_bytes_max + 1];
    send(&mut world, PublishRequest { topic: ROOM, ..Default::default() });
    send(&mut world, PublishRequest { topic: "nowhere:a", ..Default::default() });
    send(&mut world, PublishRequest { topic: "@bob", payload: &large, ..Default::default() });
    send(&mut world, PublishRequest { topic: "@bob", trace: Some(&trace), ..Default::default() });
    assert_eq!(world.read_all(bob), []);
    let refused: u64 = ringgate_core::close::ErrorCode::ALL.iter().map(|code| world.sum(|m| &m.errors[*code])).sum();
    assert_eq!(refused, 4, "they are counted");
    // None of them counts as a request that waits.
    assert!(world.shards.iter().all(|shard| shard.under_way() == (0, 0)));
}

#[test]
fn publish_with_request_0_is_over_the_rate_then_the_client_is_warned() {
    let mut limited = settings();
    (limited.client.messages_rate, limited.client.messages_burst) = (1, 1);
    let mut world = World::new(1, limited);
    let alice = world.sign_in(0, "alice");
    let fields = PublishRequest { topic: "@alice", ephemeral: true, ..Default::default() };
    world.send(alice, |encoder, out| encoder.publish(out, &fields));
    world.read_all(alice);
    world.send(alice, |encoder, out| encoder.publish(out, &fields));
    assert_eq!(world.read_all(alice), [Got::Error { request: 0, code: 111 }]);
}

/// A room whose log holds 4, 5 and 6 of six messages.
fn room_of_six(shards: usize) -> (World, Client, u64) {
    let mut world = World::new(shards, settings_with_namespace(|chat| chat.history_size = 3));
    let alice = world.sign_in(0, "alice");
    let (position, _, _) = world.subscribe(alice, ROOM, None);
    for _ in 0..6 {
        world.publish(alice, ROOM, b"x");
    }
    world.read_all(alice);
    (world, alice, position.epoch)
}

fn subscribe(world: &mut World, client: Client, since: Position, recover: Recover) -> (bool, Position, Vec<u64>) {
    let cursor = RoomCursor { room: ROOM, since: Some(since), recover };
    world.send(client, |encoder, out| encoder.subscribe(out, 2, cursor));
    let (mut subscribed, mut offsets) = (None, Vec::new());
    loop {
        world.work();
        let before = (subscribed, offsets.len());
        world.read_with(client, |frame| match frame {
            ServerFrame::Subscribed(f) => {
                subscribed = Some((f.recovered(), f.start().map(Position::from).unwrap_or_default()));
            }
            ServerFrame::Message(f) => offsets.push(f.stamp().expect("a stamp").position().offset()),
            _ => {}
        });
        if before == (subscribed, offsets.len()) {
            let (recovered, start) = subscribed.expect("Subscribed");
            return (recovered, start, offsets);
        }
    }
}

#[test]
fn client_subscribes_then_it_is_told_where_live_traffic_starts() {
    for shards in [1, 3] {
        let at = |epoch: u64, offset: u64| Position { epoch, offset };
        let (_, _, epoch) = room_of_six(shards);
        for (since, recover, recovered, start, brought) in [
            (at(epoch, 4), Recover::Exact, true, 4, vec![5, 6]),
            (at(epoch, 4), Recover::Best, true, 4, vec![5, 6]),
            (at(epoch, 6), Recover::Best, true, 6, vec![]),
            // What it missed is gone in part.
            (at(epoch, 1), Recover::Exact, false, 6, vec![]),
            (at(epoch, 1), Recover::Best, false, 3, vec![4, 5, 6]),
            // Another epoch, a position that was never given, and none at all.
            (at(epoch + 9, 5), Recover::Exact, false, 6, vec![]),
            (at(epoch + 9, 5), Recover::Best, false, 3, vec![4, 5, 6]),
            (at(epoch, 99), Recover::Best, false, 3, vec![4, 5, 6]),
            (at(0, 0), Recover::Best, false, 3, vec![4, 5, 6]),
        ] {
            let (mut world, _, epoch) = room_of_six(shards);
            let bob = world.sign_in(shards - 1, "bob");
            let got = subscribe(&mut world, bob, since, recover);
            assert_eq!(got, (recovered, at(epoch, start), brought), "{since:?} {recover:?}");
            world.check();
        }
        let (mut world, _, _) = room_of_six(shards);
        let bob = world.sign_in(0, "bob");
        let (position, recovered, followed) = world.subscribe(bob, ROOM, None);
        assert_eq!((position.offset, recovered, offsets(&followed)), (6, true, vec![]), "nothing was to be recovered");
    }
}

#[test]
fn messages_leave_while_recover_best_catches_up_then_the_connection_stays() {
    // The home is on one of the shards; from the others it is asked by letter.
    let from_afar = (0..3).filter(|shard| messages_left_between_subscribe_and_catch_up(*shard)).count();
    assert_eq!(from_afar, 2);
}

/// False where the home is asked without a letter.
fn messages_left_between_subscribe_and_catch_up(shard: usize) -> bool {
    let (mut world, alice, epoch) = room_of_six(3);
    let bob = world.sign_in(shard, "bob");
    let mut pushed = false;
    let cursor = RoomCursor { room: ROOM, since: Some(Position { epoch, offset: 1 }), recover: Recover::Best };
    world.send(bob, |encoder, out| encoder.subscribe(out, 2, cursor));
    // The home answers; before it is asked for the messages, others push two of them out.
    while let Some(Sent { to, letter, .. }) = world.mail.pop_front() {
        if matches!(letter, Letter::ToHome(ToHome::CatchUp { .. })) {
            let fields = PublishRequest { request: 9, topic: ROOM, ..Default::default() };
            let mut held = std::mem::take(&mut world.mail);
            for _ in 0..2 {
                world.send(alice, |encoder, out| encoder.publish(out, &fields));
            }
            world.settle();
            world.mail.append(&mut held);
            pushed = true;
        }
        world.handle(to, ringgate_core::shard::Event::Mail(letter));
    }
    let got = world.read_all(bob);
    assert_eq!(offsets(&got), if pushed { [6, 7, 8] } else { [4, 5, 6] }, "{got:?}");
    assert!(world.closed().is_empty());
    world.check();
    pushed
}

#[test]
fn history_is_asked_before_each_page_then_it_goes_back_to_the_oldest() {
    for shards in [1, 3] {
        let mut world = World::new(shards, settings());
        let alice = world.sign_in(0, "alice");
        let (position, _, _) = world.subscribe(alice, ROOM, None);
        for _ in 0..10 {
            world.publish(alice, ROOM, b"x");
        }
        world.read_all(alice);
        let mut page = |before: Option<u64>, epoch: u64, limit: u32| {
            let before = before.map(|offset| Position { epoch, offset });
            let fields = HistoryRequest { request: 4, topic: ROOM, before, limit, ..HistoryRequest::default() };
            world.send(alice, |encoder, out| encoder.history(out, &fields));
            match world.read_all(alice).pop() {
                Some(Got::History { offsets, more, recovered, position, .. }) => {
                    assert_eq!(position.offset, 10);
                    (offsets, more, recovered)
                }
                other => panic!("{other:?}"),
            }
        };
        let epoch = position.epoch;
        assert_eq!(page(None, epoch, 4), (vec![7, 8, 9, 10], true, true));
        assert_eq!(page(Some(7), epoch, 4), (vec![3, 4, 5, 6], true, true));
        assert_eq!(page(Some(3), epoch, 4), (vec![1, 2], false, true));
        assert_eq!(page(Some(1), epoch, 4), (vec![], false, true));
        assert_eq!(page(Some(u64::MAX), epoch, 2), (vec![9, 10], true, true), "beyond the newest");
        assert_eq!(page(Some(7), epoch + 1, 4), (vec![], false, false), "another epoch");
        assert_eq!(page(Some(7), epoch, 0), (vec![], false, true), "the position alone");
    }
}

#[test]
fn client_wishes_a_heartbeat_then_it_gets_it_within_bounds() {
    let mut settings = settings();
    settings.client.ping_interval_ms = 30_000;
    (settings.client.ping_interval_ms_min, settings.client.ping_interval_ms_max) = (10_000, 60_000);
    for (wished, interval_ms) in [(0, 30_000), (20_000, 20_000), (1, 10_000), (u32::MAX, 60_000)] {
        let mut world = World::new(1, settings.clone());
        let (alice, terms) = connect(&mut world, &ConnectRequest { ping_interval_ms: wished, ..of_alice() });
        assert_eq!(terms.ping_interval_ms, interval_ms);
        // Asked after 2.5 intervals of silence, closed after 3.
        let interval_ms = u64::from(interval_ms);
        world.pass(interval_ms * 5 / 2 - 100);
        world.advance();
        assert_eq!(world.read_all(alice), [], "{interval_ms}");
        world.pass(200);
        world.advance();
        assert_eq!(world.read_all(alice), [Got::Ping], "{interval_ms}");
        world.pass(interval_ms / 2 - 200);
        world.advance();
        assert!(world.closed().is_empty());
        world.pass(200);
        world.advance();
        assert_eq!(world.closed(), [(alice, CloseReason::NoPong)], "{interval_ms}");
    }
}

#[test]
fn gateways_own_interval_is_beyond_the_bounds_then_it_is_used() {
    let mut settings = settings();
    settings.client.ping_interval_ms = 5_000;
    (settings.client.ping_interval_ms_min, settings.client.ping_interval_ms_max) = (10_000, 60_000);
    let mut world = World::new(1, settings);
    for (wished, interval_ms) in [(0, 5_000), (1_000, 5_000), (7_000, 7_000)] {
        let (_, terms) = connect(&mut world, &ConnectRequest { ping_interval_ms: wished, ..of_alice() });
        assert_eq!(terms.ping_interval_ms, interval_ms);
    }
}

#[test]
fn client_wishes_a_receive_window_then_it_gets_it_within_bounds() {
    for shards in [1, 3] {
        for (wished, window) in [(0, 5), (3, 3), (99, 5)] {
            let mut settings = settings();
            settings.inbox.in_flight_max = 5;
            let mut world = World::new(shards, settings);
            let (alice, terms) = connect(&mut world, &ConnectRequest { receive_window: wished, ..of_alice() });
            assert_eq!(terms.receive_window, window);
            let bob = world.sign_in(shards - 1, "bob");
            let mut last = Position::default();
            for _ in 0..8 {
                last = world.publish(bob, "@alice", b"x");
            }
            let got = offsets(&world.read_all(alice));
            assert_eq!(got, (1..=u64::from(window)).collect::<Vec<_>>(), "live");
            world.ack(alice, Position { offset: 1, ..last });
            assert_eq!(offsets(&world.read_all(alice)), [u64::from(window) + 1], "one more for each that is kept");
            world.leave(alice);
            let alice = world.open(0);
            let again = ConnectRequest { receive_window: wished, ..of_alice() };
            world.send(alice, |encoder, out| encoder.connect(out, &again));
            let got = offsets(&world.read_all(alice));
            assert_eq!(got, (2..=1 + u64::from(window)).collect::<Vec<_>>(), "after a resume, too");
            world.check();
        }
    }
}

#[test]
fn token_ends_then_the_client_is_told_how_long_its_session_lasts_by_the_gateways_clock() {
    let mut world = World::new(1, settings());
    world.tokens = Tokens::AtOnce(|token| {
        let (user, seconds) = token.split_once('/').expect("user/seconds");
        let expires_at = 1_800_000_000 + seconds.parse::<u64>().expect("seconds");
        Ok(Grant { user: user.to_owned(), expires_at, rooms: None, device: None })
    });
    world.pass(250);
    let request = ConnectRequest { request: 1, token: "alice/60", ..ConnectRequest::default() };
    let (alice, terms) = connect(&mut world, &request);
    let wanted = Terms {
        ping_interval_ms: 30_000,
        receive_window: 1024,
        expires_at: 1_800_000_060,
        expires_in_ms: 59_750,
        server_time_ms: 1_800_000_000_250,
    };
    assert_eq!(terms, wanted);
    world.send(alice, |encoder, out| encoder.refresh(out, 5, "alice/90"));
    world.work();
    let mut refreshed = None;
    world.read_with(alice, |frame| {
        if let ServerFrame::Refreshed(f) = frame {
            refreshed = Some((f.expires_at(), f.expires_in_ms()));
        }
    });
    assert_eq!(refreshed, Some((1_800_000_090, 89_750)));
    world.pass(89_749);
    world.advance();
    assert!(world.closed().iter().all(|(client, _)| *client != alice) || world.closed().is_empty());
}

fn with_copies() -> Settings {
    let mut settings = settings();
    settings.inbox.copy_to_own_devices = true;
    settings
}

/// Topic, sender, `sent_to`, offset and message id of each Message.
fn messages(world: &mut World, client: Client) -> Vec<(String, String, Option<String>, u64, u64)> {
    let mut all = Vec::new();
    loop {
        world.work();
        let before = all.len();
        world.read_with(client, |frame| {
            if let ServerFrame::Message(f) = frame {
                let stamp = f.stamp().expect("a stamp");
                let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                let sent_to = f.sent_to().map(str::to_owned);
                let place = (stamp.position().offset(), stamp.message_id());
                all.push((text(f.topic()), text(f.sender()), sent_to, place.0, place.1));
            }
        });
        if all.len() == before {
            return all;
        }
    }
}

#[test]
fn device_sends_then_the_senders_other_devices_get_a_copy() {
    for shards in [1_usize, 2, 4] {
        for placing in 0..shards.pow(3) {
            let at = |n: usize| placing / shards.pow(n as u32) % shards;
            let mut world = World::new(shards, with_copies());
            let phone = world.connect(at(0), "alice", "phone", None).0;
            let laptop = world.connect(at(1), "alice", "laptop", None).0;
            world.connect(0, "alice", "tablet", None);
            let bob = world.sign_in(at(2), "bob");
            let fields = PublishRequest {
                request: 7,
                topic: "@bob",
                payload: b"hello",
                client_message_id: ClientMessageId { high: 1, low: 1 },
                ..Default::default()
            };
            let Got::Published { stamp, .. } = world.try_publish(phone, fields) else { panic!("refused") };
            let copy = ("@alice".to_owned(), "alice".to_owned(), Some("@bob".to_owned()), 1, stamp.message_id);
            assert_eq!(messages(&mut world, laptop), [copy]);
            assert_eq!(messages(&mut world, phone), [], "not to the device that sent it");
            assert_eq!(messages(&mut world, bob)[0].2, None, "the message itself is no copy");
            // A repetition makes no second copy, nor does what is in no log, nor what goes to a room or to oneself.
            assert!(matches!(world.try_publish(phone, fields), Got::Published { duplicate: true, .. }));
            world.try_publish(
                phone,
                PublishRequest { request: 8, topic: "@bob", ephemeral: true, ..Default::default() },
            );
            assert_eq!(messages(&mut world, laptop), []);
            // What comes next reaches both, the phone's window included.
            let position = world.publish(bob, "@alice", b"answer");
            assert_eq!(position.offset, 2);
            assert_eq!(messages(&mut world, laptop).len(), 1);
            assert_eq!(messages(&mut world, phone).len(), 1);
            world.ack(phone, position);
            world.ack(laptop, position);
            let note = PublishRequest { request: 9, topic: "@alice", payload: b"note to self", ..Default::default() };
            world.send(phone, |encoder, out| encoder.publish(out, &note));
            assert_eq!(messages(&mut world, phone)[0].2, None);
            world.check();
        }
    }
}

#[test]
fn device_is_away_then_copies_wait_for_it_and_not_for_the_one_that_sent() {
    let mut world = World::new(2, with_copies());
    let laptop = world.connect(0, "alice", "laptop", None).0;
    let phone = world.connect(1, "alice", "phone", None).0;
    world.leave(laptop);
    for _ in 0..3 {
        world.publish(phone, "@bob", b"x");
    }
    assert_eq!(messages(&mut world, phone), []);
    let (laptop, _, recovered, got) = world.connect(0, "alice", "laptop", None);
    assert_eq!((recovered, offsets(&got)), (true, vec![1, 2, 3]));
    let last = world.history(laptop, "@alice", None, 10);
    assert_eq!(last.0, [1, 2, 3], "in the history of the own inbox, too");
    world.leave(phone);
    let (_, position, recovered, got) = world.connect(1, "alice", "phone", None);
    assert_eq!((position.offset, recovered, offsets(&got)), (3, true, vec![]), "the phone is brought nothing");
    world.check();
}

#[test]
fn copy_has_no_room_then_it_is_left_out_and_counted() {
    let mut limited = with_copies();
    limited.log_bytes_per_shard_max = 3000;
    let mut world = World::new(1, limited);
    let laptop = world.connect(0, "alice", "laptop", None).0;
    let phone = world.connect(0, "alice", "phone", None).0;
    world.sign_in(0, "bob");
    world.leave(laptop);
    let mut stored = 0;
    for _ in 0..20 {
        let fields = PublishRequest { request: 7, topic: "@bob", payload: &[0; 100], ..Default::default() };
        stored += u64::from(matches!(world.try_publish(phone, fields), Got::Published { .. }));
    }
    let copies = world.history(phone, "@alice", None, 100).0.len() as u64;
    let dropped = world.sum(|metrics| &metrics.inbox_copies_dropped);
    assert!(dropped > 0, "{stored} stored, {copies} copies");
    assert_eq!(copies + dropped, stored);
    world.check();
}

#[test]
fn device_that_sent_resumes_then_it_goes_on_from_its_own_position_without_a_loss() {
    for shards in [1, 3] {
        for others in [vec![], vec!["laptop"]] {
            let mut world = World::new(shards, with_copies());
            let phone = world.connect(0, "alice", "phone", None).0;
            let laptops: Vec<_> = others.iter().map(|name| world.connect(shards - 1, "alice", name, None).0).collect();
            let bob = world.sign_in(shards - 1, "bob");
            let kept = world.publish(bob, "@alice", b"1");
            assert_eq!(messages(&mut world, phone).len(), 1);
            world.ack(phone, kept);
            for _ in 0..3 {
                world.publish(phone, "@bob", b"x");
            }
            for laptop in laptops {
                assert_eq!(messages(&mut world, laptop).len(), 4);
                world.ack(laptop, Position { offset: 4, ..kept });
            }
            // Every device has passed the copies, so they are gone; the phone knows of none of them.
            assert!(world.history(phone, "@alice", None, 10).0.is_empty());
            for resume in [Some(kept), None, Some(kept)] {
                let (phone, position, recovered, got) = world.connect(0, "alice", "phone", resume);
                assert_eq!((recovered, offsets(&got)), (true, vec![]), "{resume:?} of {position:?}, {others:?}");
                world.leave(phone);
            }
            let (_, _, recovered, _) = world.connect(0, "alice", "phone", Some(Position { offset: 0, ..kept }));
            assert!(!recovered, "a position before what was acknowledged is one whose messages are gone");
            world.check();
        }
    }
}

#[test]
fn copies_follow_an_unacknowledged_message_then_they_are_passed_with_it() {
    let mut world = World::new(2, with_copies());
    let phone = world.connect(0, "alice", "phone", None).0;
    let laptop = world.connect(1, "alice", "laptop", None).0;
    let bob = world.sign_in(1, "bob");
    let first = world.publish(bob, "@alice", b"1");
    for _ in 0..50 {
        world.publish(phone, "@bob", b"x");
    }
    let second = world.publish(bob, "@alice", b"2");
    assert_eq!(second.offset, 52);
    assert_eq!(messages(&mut world, laptop).len(), 52);
    world.ack(laptop, second);
    assert_eq!(world.sum(|metrics| &metrics.inbox_pending), 52 + 50, "the phone's first, and what bob got");
    world.ack(phone, first);
    assert_eq!(world.history(phone, "@alice", None, 10).0, [52], "the copies went with it");
    world.ack(phone, second);
    assert!(world.history(phone, "@alice", None, 10).0.is_empty());
    world.check();
}
