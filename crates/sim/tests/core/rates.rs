//! Rates and requests in flight: a request is carried out, or it is refused by its number.

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::limits::Settings;
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};
use ringgate_core::wire::{Encoder, ServerFrame};

use ringgate_sim::{Got, World, settings};

const REFUSED: u16 = ErrorCode::TooManyRequests as u16;

fn with_byte_rate(rate: u32, burst: u32) -> Settings {
    let mut settings = settings();
    settings.client.bytes_rate = rate;
    settings.client.bytes_burst = burst;
    settings
}

#[test]
fn request_is_over_the_byte_rate_then_it_is_refused_by_its_number_and_not_carried_out() {
    let mut world = World::new(1, with_byte_rate(10_000, 50_000));
    let (alice, _bob) = (world.sign_in(0, "alice"), world.sign_in(0, "bob"));
    let (mut published, mut refused) = (0, 0);
    for request in 1..=100 {
        let fields = PublishRequest { request, topic: "@bob", payload: &[1; 4000], ..Default::default() };
        match world.try_publish(alice, fields) {
            Got::Published { .. } => published += 1,
            Got::Error { code: REFUSED, .. } => refused += 1,
            other => panic!("{other:?}"),
        }
        world.pass(5);
    }
    // A burst of 50 000 bytes and 500 ms of the rate hold 13 of them.
    assert_eq!((published, refused), (13, 87));
    assert_eq!(world.sum(|m| &m.messages_published), 13);
    assert!(world.closed().is_empty(), "half a second of excess is forgiven");
}

#[test]
fn client_goes_on_over_the_rate_for_a_second_then_it_is_closed_and_ten_seconds_of_calm_forgive() {
    let mut world = World::new(1, with_byte_rate(10_000, 50_000));
    let alice = world.sign_in(0, "alice");
    let fields = || PublishRequest { request: 1, topic: "@bob", payload: &[1; 40_000], ..Default::default() };
    let refused = |world: &mut World| matches!(world.try_publish(alice, fields()), Got::Error { code: REFUSED, .. });
    for _ in 0..3 {
        refused(&mut world);
        assert!(refused(&mut world));
        // Forgiven, and the bucket is full again.
        world.pass(10_001);
    }
    refused(&mut world);
    assert!(refused(&mut world));
    world.pass(1_001);
    world.send(alice, |encoder, out| encoder.publish(out, &fields()));
    assert_eq!(world.closed(), [(alice, CloseReason::TooManyRequests)]);
}

#[test]
fn acks_are_over_the_rate_then_they_count_but_are_not_refused() {
    let mut settings = settings();
    (settings.client.messages_rate, settings.client.messages_burst) = (10, 100);
    let mut world = World::new(1, settings);
    let (alice, bob) = (world.sign_in(0, "alice"), world.sign_in(0, "bob"));
    let position = world.publish(alice, "@bob", b"x");
    for _ in 0..100 {
        world.send(bob, |_, out| Encoder::ack(out, position));
    }
    assert_eq!(world.sum(|m| &m.inbox_pending), 0);
    let fields = PublishRequest { request: 5, topic: "@alice", ..Default::default() };
    assert_eq!(world.try_publish(bob, fields), Got::Error { request: 5, code: REFUSED });
    let position = world.publish(alice, "@bob", b"y");
    world.ack(bob, position);
    assert_eq!(world.sum(|m| &m.inbox_pending), 0, "an Ack over the rate counts all the same");
}

#[test]
fn connect_names_rooms_then_they_do_not_count_among_requests_in_flight() {
    let mut settings = settings();
    settings.client.requests_in_flight_max = 4;
    let mut world = World::new(2, settings);
    let names: Vec<String> = (0..10).map(|number| format!("chat:{number}")).collect();
    let rooms: Vec<_> = names.iter().map(|room| (&**room, None).into()).collect();
    let alice = world.open(0);
    world.send(alice, |encoder, out| {
        encoder.connect(out, &ConnectRequest { request: 1, token: "alice", rooms: &rooms, ..Default::default() });
        for request in 10..14 {
            encoder.presence(out, request, "chat:1", 0);
        }
    });
    let got = world.read_all(alice);
    assert_eq!(got.iter().filter(|got| matches!(got, Got::Subscribed { .. })).count(), 10);
    assert!(!got.iter().any(|got| matches!(got, Got::Error { .. })), "{got:?}");
}

#[test]
fn too_many_subscribes_are_in_flight_then_further_ones_are_refused_by_name() {
    for shards in [1, 2] {
        let mut limited = settings();
        limited.client.requests_in_flight_max = 3;
        let mut world = World::new(shards, limited);
        let alice = world.sign_in(0, "alice");
        let rooms: Vec<String> = (0..12).map(|number| format!("chat:{number}")).collect();
        // All in one segment: none is answered before the next one is read.
        world.send(alice, |encoder, out| {
            for (request, room) in (1..).zip(&rooms) {
                encoder.subscribe(out, request, (&**room, None).into());
            }
        });
        let (mut joined, mut refused) = (0, Vec::new());
        world.work();
        world.read_with(alice, |frame| match frame {
            ServerFrame::Subscribed(_) => joined += 1,
            ServerFrame::Error(error) => refused.push((error.code(), error.room().unwrap_or_default().to_owned())),
            _ => {}
        });
        assert_eq!(joined + refused.len(), rooms.len());
        assert!(refused.iter().all(|(code, room)| *code == 403 && rooms.contains(room)), "{refused:?}");
        assert_eq!(joined, 3);
        assert!(world.shards.iter().all(|shard| shard.under_way() == (0, 0)));
    }
}

/// What TLS records take beside their content counts in the bytes: first it is said, later than a second after that it closes.
#[test]
fn records_without_content_are_over_the_rate_then_said_once_and_closed_later() {
    let mut settings = settings();
    (settings.client.bytes_rate, settings.client.bytes_burst) = (1000, 5000);
    let mut world = World::new(1, settings);
    let alice = world.sign_in(0, "alice");
    let carried = |world: &mut World, bytes| {
        world.shards[0].carried(alice.connection, bytes, world.now);
        world.take_effects(0);
        world.read_all(alice)
    };
    assert_eq!(carried(&mut world, 4000), [], "within the burst");
    assert_eq!(carried(&mut world, 4000), [Got::Error { request: 0, code: 111 }]);
    world.pass(1000);
    assert_eq!(carried(&mut world, 4000), [], "it was said, and a second is given");
    world.pass(1);
    assert_eq!(carried(&mut world, 4000), [Got::Goodbye { code: 3013 }]);
    assert_eq!(world.closed(), [(alice, CloseReason::TooManyRequests)]);
}

#[test]
fn records_without_content_are_over_the_rate_before_sign_in_then_closed_at_once() {
    let mut settings = settings();
    (settings.client.bytes_rate, settings.client.bytes_burst) = (1000, 5000);
    let mut world = World::new(1, settings);
    let newcomer = world.open(0);
    for (bytes, closed) in [(4000, false), (4000, true)] {
        world.shards[0].carried(newcomer.connection, bytes, world.now);
        world.take_effects(0);
        assert_eq!(!world.closed().is_empty(), closed);
    }
}
