//! Everything calms down; then nothing may be missing, and every answer was right.

use std::collections::BTreeMap;

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::id::Position;
use ringgate_core::limits::{self, CREDIT_DELIVERIES};
use ringgate_core::metrics::DropReason;
use ringgate_core::transport::Transport;
use ringgate_core::wire::{Encoder, Kind};

use super::{ROOMS, Schedule};
use crate::device::{Device, Page};

impl Schedule {
    /// Everybody reads, acknowledges, reconnects and repeats; then nothing may be missing.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        self.weight = 1;
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
        if self.random.one_in(3) {
            for room in ROOMS {
                self.read_page_by_page(room);
            }
            let inbox = format!("@{}", self.devices[0].user);
            self.read_page_by_page(&inbox);
        }
        self.nothing_is_missing();
    }

    /// Forwards from the beginning and backwards from the end, the first device reads the same messages of a topic.
    fn read_page_by_page(&mut self, topic: &str) {
        let limit = 2 + self.random.below(3) as u32;
        // Epoch 0: nobody has joined it or written to it.
        let Some(Page { newest, .. }) = self.page(topic, None, None, 0).filter(|page| page.newest.epoch != 0) else {
            return;
        };
        let at = |offset| Position { offset, ..newest };
        let (mut forwards, mut since) = (Vec::new(), 0);
        while let Some(page) = self.page(topic, Some(at(since)), None, limit) {
            forwards.extend(page.offsets);
            since = forwards.last().copied().unwrap_or(newest.offset);
            if !page.more {
                break;
            }
        }
        let (mut backwards, mut before) = (Vec::new(), newest.offset + 1);
        while let Some(page) = self.page(topic, None, Some(at(before)), limit) {
            let Some(first) = page.offsets.first() else { break };
            before = *first;
            backwards.extend(page.offsets.into_iter().rev());
        }
        backwards.reverse();
        let is_whole = !self.ledger.ttls && !self.ledger.ages;
        assert!(!is_whole || forwards == backwards, "{topic}: {forwards:?} forwards, {backwards:?} backwards");
        self.ledger.counts.paged += u64::from(forwards.len() > limit as usize);
    }

    /// A page of a topic's history; none where the device may not see it.
    fn page(&mut self, topic: &str, since: Option<Position>, before: Option<Position>, limit: u32) -> Option<Page> {
        self.devices[0].page = None;
        self.ask_history(0, topic, since, before, limit);
        self.rounds(2);
        self.devices[0].page.take()
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
        let dropped = self.world.sum(|metrics| &metrics.inbox_copies_dropped);
        let inbox = &self.world.settings.inbox;
        let is_whole = !self.trims && !self.ledger.ages && inbox.devices_max > 1;
        let copies = inbox.copy_to_own_devices && dropped == 0 && is_whole;
        for device in &self.devices {
            device.finish(&mut self.ledger, copies, self.world.now);
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
        // A device that was told of a loss and has only copies of its own messages behind it acknowledges them when it comes back.
        let copies = if self.world.settings.inbox.copy_to_own_devices { self.ledger.sent() } else { 0 };
        assert!(pending <= copies, "{pending} messages were not acknowledged");
        let queued = self.world.sum(|metrics| &metrics.deliveries_queued);
        let deferred = self.world.sum(|metrics| &metrics.deliveries_deferred);
        assert_eq!((queued, deferred), (0, 0), "everything was delivered");
        let dropped = self.world.sum(|metrics| &metrics.deliveries_dropped[DropReason::Slow]);
        assert!(
            self.engines_did.restarts > 0 || self.ledger.since_start().dropped <= dropped,
            "rooms without a log miss more than was dropped"
        );
        // What the shards had counted before a restart is gone.
        if self.engines_did.restarts == 0 {
            self.metrics_agree();
        }
        if !self.trims && !self.ledger.ttls && !self.ledger.ages {
            let lost = self.world.sum(|metrics| &metrics.closes[Transport::Plain][CloseReason::InsufficientState]);
            assert_eq!(lost, 0, "a log of 10 000 always reaches back");
        }
    }

    /// What the shards have counted is what the clients have seen; more only where an answer was lost with its connection.
    fn metrics_agree(&self) {
        let counts = self.ledger.since_start();
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
        let dropped = self.world.sum(|metrics| &metrics.deliveries_dropped[DropReason::Slow])
            + self.world.sum(|metrics| &metrics.announcements_dropped);
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
