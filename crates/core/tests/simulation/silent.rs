//! Heartbeats of a client that says nothing.

use ringgate_core::id::ConnectionKey;
use ringgate_core::limits::ClientLimits;
use ringgate_core::shard::Event;
use ringgate_core::wheel;
use ringgate_core::wire::{Encoder, Kind};

use crate::world::World;

/// One client that is signed in, and says nothing of itself.
struct Silent {
    world: World,
    shard: usize,
    connection: ConnectionKey,
}

impl Silent {
    fn new(change: impl FnOnce(&mut ClientLimits)) -> Silent {
        let mut world = World::with(1, |settings| {
            settings.client.ping_interval_ms = 10_000;
            change(&mut settings.client);
        });
        world.connect(0);
        world.settle();
        let (shard, connection) = world.devices[0].connection.unwrap();
        while world.shards[shard].pull(connection, world.now).is_some() {}
        Silent { world, shard, connection }
    }

    /// Time goes on, this much from turn to turn, until the client is asked or closed: after how many milliseconds.
    fn wait(&mut self, turn_ms: u64) -> (u64, bool) {
        let began_ms = self.world.now.mono_ms();
        loop {
            self.world.pass(turn_ms);
            self.world.advance(self.shard);
            let waited_ms = self.world.now.mono_ms() - began_ms;
            assert!(waited_ms < 2_000_000, "neither asked nor closed");
            if !self.world.closing.is_empty() {
                return (waited_ms, true);
            }
            if let Some(chunk) = self.world.shards[self.shard].pull(self.connection, self.world.now) {
                assert_eq!(chunk.bytes(), [0, 0, 0, 0, Kind::Ping as u8, 0, 0, 0]);
                return (waited_ms, false);
            }
        }
    }

    fn answer(&mut self) {
        let mut pong = Vec::new();
        Encoder::empty(&mut pong, Kind::ClientPong);
        self.world.handle(self.shard, Event::Received { connection: self.connection, bytes: &pong });
    }
}

/// Late enough to spare those that send their own Pings, early enough for an answer.
#[test]
fn a_silent_client_is_asked_and_then_closed() {
    for (missed_pings_max, asked_ms, closed_ms) in [(2, 15_000, 5_000), (3, 25_000, 5_000), (100, 25_000, 975_000)] {
        let mut client = Silent::new(|limits| limits.missed_pings_max = missed_pings_max);
        for _ in 0..4 {
            assert_eq!(client.wait(wheel::TICK_MS), (asked_ms, false), "of {missed_pings_max}");
            client.answer();
        }
        assert_eq!(client.wait(wheel::TICK_MS), (asked_ms, false), "of {missed_pings_max}");
        assert_eq!(client.wait(wheel::TICK_MS), (closed_ms, true), "of {missed_pings_max}");
    }
}

#[test]
fn gateway_is_late_then_the_pong_timeout_is_honoured() {
    let mut client = Silent::new(|limits| limits.pong_timeout_ms = 8_000);
    assert_eq!(client.wait(wheel::TICK_MS), (22_000, false));
    // A gateway that was held up: its next look comes when the client should have been closed long ago.
    let mut client = Silent::new(|limits| limits.pong_timeout_ms = 3_000);
    assert_eq!(client.wait(40_000), (40_000, false));
    assert_eq!(client.wait(wheel::TICK_MS), (5_000, true));
    // Half an interval is no longer than the steps in which time is measured.
    let mut client = Silent::new(|limits| (limits.ping_interval_ms, limits.pong_timeout_ms) = (100, 50));
    assert_eq!(client.wait(wheel::TICK_MS), (250, false));
    client.answer();
    assert!(!client.wait(wheel::TICK_MS + 1).1);
}
