//! Heartbeats of a client that says nothing.

use ringgate_core::limits::ClientLimits;
use ringgate_core::wheel;
use ringgate_core::wire::{Encoder, Kind};
use ringgate_sim::Client;

use crate::schedule::Schedule;

/// One client that is signed in, and says nothing of itself.
struct Silent {
    schedule: Schedule,
    client: Client,
}

impl Silent {
    fn new(change: impl FnOnce(&mut ClientLimits)) -> Silent {
        let mut schedule = Schedule::with(1, |settings| {
            settings.client.ping_interval_ms = 10_000;
            change(&mut settings.client);
        });
        schedule.connect(0);
        schedule.settle();
        let client = schedule.devices[0].connection.unwrap();
        while schedule.world.pull(client, |_| {}) {}
        Silent { schedule, client }
    }

    /// Time goes on, this much from turn to turn, until the client is asked or closed: after how many milliseconds.
    fn wait(&mut self, turn_ms: u64) -> (u64, bool) {
        let began_ms = self.schedule.world.now.mono_ms();
        loop {
            self.schedule.world.pass(turn_ms);
            self.schedule.advance(self.client.shard);
            let world = &mut self.schedule.world;
            let waited_ms = world.now.mono_ms() - began_ms;
            assert!(waited_ms < 2_000_000, "neither asked nor closed");
            if !world.closing.is_empty() {
                return (waited_ms, true);
            }
            if world.pull(self.client, |bytes| assert_eq!(bytes, [0, 0, 0, 0, Kind::Ping as u8, 0, 0, 0])) {
                return (waited_ms, false);
            }
        }
    }

    fn answer(&mut self) {
        let mut pong = Vec::new();
        Encoder::empty(&mut pong, Kind::ClientPong);
        self.schedule.world.receive(self.client, &pong);
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
