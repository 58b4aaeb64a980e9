//! Everything calms down; then nothing may be missing, and every answer was right.

use std::collections::BTreeMap;

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::limits::{self, CREDIT_DELIVERIES};
use ringgate_core::metrics::DropReason;
use ringgate_core::transport::Transport;
use ringgate_core::wire::{Encoder, Kind};

use super::{ROOMS, Schedule};
use crate::device::Device;

impl Schedule {
    /// Everybody reads, acknowledges, reconnects and repeats; then nothing may be missing.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        for device in &mut self.devices {
            device.forgetful = false;
        }
        self.rounds(400);
        self.world.check();
        assert!(self.world.shards.iter().all(|shard| shard.pressure() == 0), "no broadcast waits any more");
        let most = (self.world.shards.len() as u64 - 1) * CREDIT_DELIVERIES;
        let owed = self.world.shards.iter().all(|shard| shard.under_way().0 <= most);
        assert!(owed, "credit came back but for less than a portion");
        assert!(self.world.shards.iter().all(|shard| shard.under_way().1 == 0), "every request is answered");
        assert!(self.world.shards.iter().all(|shard| shard.awaits_engine() == 0), "the engine owes nothing");
        for index in 0..self.devices.len() {
            self.devices[index].presence.clear();
            for room in ROOMS {
                self.ask_presence(index, room, 1000);
                self.rounds(1);
                self.ask_history(index, room, None, None, 20);
                self.rounds(1);
            }
            let inbox = format!("@{}", self.devices[index].user);
            self.ask_history(index, &inbox, None, None, 20);
        }
        self.rounds(10);
        self.nothing_is_missing();
    }

    fn rounds(&mut self, count: usize) {
        for round in 0..count {
            for index in 0..self.devices.len() {
                self.devices[index].stalled = false;
                if self.devices[index].connection.is_none() {
                    self.connect(index);
                }
                self.pull(index);
                if self.devices[index].ready {
                    self.repeat(index);
                    Encoder::empty(&mut self.devices[index].outgoing, Kind::Ping);
                    self.devices[index].acknowledge(&mut self.ledger);
                    self.flush(index);
                }
            }
            self.settle();
            self.world.pass(100);
            if round % 50 == 0 {
                self.world.check();
            }
        }
    }

    fn nothing_is_missing(&mut self) {
        for device in &self.devices {
            device.finish(&mut self.ledger, self.world.now.unix_ms);
        }
        self.ledger.judge();
        if self.world.settings.engine == limits::Engine::Store {
            for (topic, epoch, offset) in self.ledger.kept() {
                let is_stored = self.world.disk.has_stored(topic, epoch, offset);
                assert!(is_stored, "{topic} {epoch}/{offset} was seen, and the engine does not have it");
            }
        }
        self.everybody_knows_who_is_there();
        let pending = self.world.sum(|metrics| &metrics.inbox_pending);
        assert_eq!(pending, 0, "everything was acknowledged");
        let queued = self.world.sum(|metrics| &metrics.deliveries_queued);
        let deferred = self.world.sum(|metrics| &metrics.deliveries_deferred);
        assert_eq!((queued, deferred), (0, 0), "everything was delivered");
        let dropped = self.world.sum(|metrics| &metrics.deliveries_dropped[DropReason::Slow]);
        assert!(
            self.engines_did.restarts > 0 || self.ledger.counts.dropped <= dropped,
            "rooms without a log miss more than was dropped"
        );
        // What the shards had counted before a restart is gone.
        if self.engines_did.restarts == 0 {
            self.metrics_agree();
        }
        if !self.trims && !self.ledger.ttls {
            let lost = self.world.sum(|metrics| &metrics.closes[Transport::Plain][CloseReason::InsufficientState]);
            assert_eq!(lost, 0, "a log of 10 000 always reaches back");
        }
    }

    /// What the shards have counted is what the clients have seen; more only where an answer was lost with its connection.
    fn metrics_agree(&self) {
        let counts = &self.ledger.counts;
        let stored = self.world.sum(|metrics| &metrics.inbox_stored);
        match self.world.settings.engine {
            limits::Engine::Memory => {
                // Of an inbox that was forgotten since, nobody may know the last messages.
                let (known, unknown) = (self.ledger.stored_in_inboxes(), self.ledger.unseen_in_inboxes());
                assert!((known..=known + unknown).contains(&stored), "{stored} stored: {known}, {unknown} unseen");
            }
            limits::Engine::Store | limits::Engine::Shared => {
                assert_eq!(stored, self.world.disk.stored_in_inboxes());
            }
        }
        let published = self.world.sum(|metrics| &metrics.messages_published);
        assert!((counts.published..=self.ledger.sent()).contains(&published), "{published} published: {counts:?}");
        let hits = self.world.sum(|metrics| &metrics.dedup_hits);
        assert!(hits >= counts.repetitions, "{hits} repetitions: {counts:?}");
        let denied = self.world.sum(|metrics| &metrics.errors[ErrorCode::PermissionDenied]);
        assert!(denied >= counts.denied, "{denied} denied: {counts:?}");
    }

    fn everybody_knows_who_is_there(&self) {
        let dropped = self.world.sum(|metrics| &metrics.deliveries_dropped[DropReason::Slow]);
        for room in ROOMS {
            let there = |device: &&Device| device.rooms.contains_key(room);
            let name = |device: &Device| (device.user.clone(), device.name.clone());
            let members: BTreeMap<_, _> = self.devices.iter().map(|d| (name(d), there(&d))).collect();
            for device in &self.devices {
                if let Some(answer) = device.presence.get(room) {
                    let mut answer = answer.clone();
                    answer.sort();
                    let right: Vec<_> =
                        members.iter().filter(|(_, there)| **there).map(|(name, _)| name.clone()).collect();
                    assert_eq!(answer, right, "who is in {room}");
                }
                let events = device.rooms.get(room).map(|room| &room.events).into_iter().flatten();
                for (other, joined) in events.filter(|_| dropped == 0) {
                    let right = *other == name(device) || members.get(other) == Some(joined);
                    assert!(right, "the last that {} heard of {other:?} in {room}: {joined}", device.user);
                }
            }
        }
    }
}
