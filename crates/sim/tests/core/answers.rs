//! Large answers: a client that reads is never closed for them, and one that does not read makes the gateway hold few.

use ringgate_core::close::CloseReason;
use ringgate_core::wire::Kind;
use ringgate_core::wire::encode::HistoryRequest;

use ringgate_sim::{Got, World, settings};

/// A room whose history is nearly 256 KiB.
fn with_history(shards: usize) -> (World, ringgate_sim::Client) {
    let mut world = World::new(shards, settings());
    let alice = world.sign_in(0, "alice");
    world.subscribe(alice, "chat:a", None);
    for _ in 0..5 {
        world.publish(alice, "chat:a", &[7; 50_000]);
        world.read_all(alice);
    }
    (world, alice)
}

#[test]
fn client_reads_then_it_gets_many_large_answers_asked_for_at_once() {
    for shards in [1, 2] {
        let (mut world, alice) = with_history(shards);
        world.send(alice, |encoder, out| {
            for request in 0..20 {
                encoder.history(
                    out,
                    &HistoryRequest { request, topic: "chat:a", since: None, limit: 100, ..HistoryRequest::default() },
                );
            }
            ringgate_core::wire::Encoder::empty(out, Kind::Ping);
        });
        let got = world.read_all(alice);
        let answers =
            got.iter().filter(|got| matches!(got, Got::History { offsets, .. } if offsets.len() == 5)).count();
        assert_eq!(answers, 20);
        assert_eq!(got.last(), Some(&Got::Pong));
        assert!(world.closed().is_empty(), "{:?}", world.closed());
        world.check();
    }
}

#[test]
fn client_does_not_read_then_it_is_answered_no_further_and_closed_after_the_write_timeout() {
    let (mut world, alice) = with_history(1);
    for _ in 0..50 {
        world.send(alice, |encoder, out| {
            for request in 0..100 {
                encoder.history(
                    out,
                    &HistoryRequest { request, topic: "chat:a", since: None, limit: 100, ..HistoryRequest::default() },
                );
            }
        });
        world.work();
    }
    let waiting = world.sum(|m| &m.outbox_bytes);
    assert!(waiting < 600_000, "{waiting} bytes of answers wait");
    assert_eq!(world.held, [alice], "nothing more is received");
    assert!(world.closed().is_empty());
    world.pass(10_100);
    for _ in 0..3 {
        world.advance();
        world.pass(200);
    }
    assert_eq!(world.closed(), [(alice, CloseReason::Slow)]);
    world.check();
}

#[test]
fn answers_of_a_held_socket_are_read_then_it_goes_on() {
    let (mut world, alice) = with_history(1);
    let mut asked = 0;
    while world.held.is_empty() {
        world.send(alice, |encoder, out| {
            for _ in 0..100 {
                encoder.history(
                    out,
                    &HistoryRequest {
                        request: asked,
                        topic: "chat:a",
                        since: None,
                        limit: 100,
                        ..HistoryRequest::default()
                    },
                );
                asked += 1;
            }
        });
        world.work();
    }
    let got = world.read_all(alice);
    assert_eq!(got.iter().filter(|got| matches!(got, Got::History { .. })).count(), asked as usize);
    assert!(world.held.is_empty(), "it is received from again");
    world.check();
}

#[test]
fn answer_is_larger_than_all_that_may_wait_then_it_is_sent() {
    let mut settings = settings();
    settings.client.message_bytes_max = 1024 * 1024;
    settings.client.outbox_bytes_max = 4 * 1024 * 1024;
    let mut world = World::new(1, settings);
    let alice = world.sign_in(0, "alice");
    world.subscribe(alice, "chat:a", None);
    world.publish(alice, "chat:a", &vec![7; 900_000]);
    world.read_all(alice);
    world.send(alice, |encoder, out| {
        encoder.history(
            out,
            &HistoryRequest { request: 4, topic: "chat:a", since: None, limit: 10, ..HistoryRequest::default() },
        )
    });
    assert!(matches!(&world.read_all(alice)[..], [Got::History { offsets, .. }] if offsets.len() == 1));
    assert!(world.closed().is_empty());
}
