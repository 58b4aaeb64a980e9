//! The one way to bring a session what it is missing, of its inbox or of a room: the topic's home is asked when the outbox has
//! room, and what it brings is queued as far as it fits.

use bytes::Bytes;

use crate::id::{ConnectionKey, Now};
use crate::metrics::DropReason;
use crate::outbox::{Arrival, Delivery, Outbox, OutboxLimits};
use crate::session::{InboxFeed, Lag};
use crate::shard::{Shard, Source, ToHome};

impl Shard {
    /// Asks the homes for what this session's lagging topics are missing, if its outbox has room for it.
    pub(in crate::shard) fn catch_up(&mut self, key: ConnectionKey) {
        let from = self.address(key);
        let Some(session) = self.session_mut(key) else { return };
        let receive_window = session.receive_window;
        let feed = &mut session.inbox;
        if feed.lag == Lag::Behind && feed.unacked < receive_window {
            feed.lag = Lag::CatchingUp;
            let InboxFeed { home, key: inbox, seen: since, .. } = *feed;
            self.post_to_home(home, ToHome::CatchUp { topic: Source::Inbox(inbox), from, since });
        }
        self.catch_up_rooms(key);
    }

    /// Asks the homes of this session's lagging rooms for what is missing.
    fn catch_up_rooms(&mut self, key: ConnectionKey) {
        let from = self.address(key);
        let Some(session) = self.connections.get(key).and_then(|connection| connection.session.as_ref()) else {
            return;
        };
        if session.lagging == 0 {
            return;
        }
        for membership in session.rooms.as_slice().to_vec() {
            let Some(room) = self.rooms.rooms.get_mut(membership.room) else { continue };
            let member = membership.index.and_then(|index| room.members.get_mut(index as usize));
            let Some(member) = member.filter(|member| member.lagging && !member.catching) else { continue };
            let Some(at_home) = room.at_home else { continue };
            member.catching = true;
            let since = member.seen;
            let home_shard =
                self.home_of_room(&self.rooms.rooms.get(membership.room).map_or("".into(), |r| r.name.clone()));
            let topic = Source::Room { room: at_home, local: membership.room };
            self.post_to_home(home_shard, ToHome::CatchUp { topic, from, since });
        }
    }

    /// Queues replayed frames and books them: `deferred` of them were counted as owed already.
    pub(super) fn replay(
        &mut self,
        key: ConnectionKey,
        frames: Vec<Bytes>,
        owed: u64,
        settled: Settled,
        complete: bool,
        now: Now,
    ) {
        self.metrics.messages_replayed.add(frames.len() as u64);
        self.metrics.deliveries_owed.add(owed);
        self.metrics.deliveries_deferred.subtract(settled.brought + settled.gone);
        debug_assert!(complete || settled.gone == 0);
        Self::count_dropped(&self.metrics, DropReason::Unrecoverable, settled.gone);
        for frame in frames {
            self.queue(key, Delivery { frame, arrival: Arrival::UNTIMED }, now);
        }
    }

    /// Goes on at once when the outbox has room; else the next pull does. Only after progress, or it would go round
    /// in circles when the next message fits into an empty outbox alone.
    pub(super) fn catch_up_when_drained(&mut self, key: ConnectionKey) {
        let limits = self.outbox_limits;
        if self.connections.get(key).is_some_and(|connection| connection.outbox.is_drained(limits)) {
            self.catch_up(key);
        }
    }
}

/// What became of deferred messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settled {
    /// Now in the outbox.
    pub(super) brought: u64,
    /// No longer in the log.
    pub(super) gone: u64,
}

/// Books `brought` replayed messages against `behind` deferred ones; returns how many are owed anew.
pub(super) fn settle(behind: &mut u32, brought: u64, complete: bool) -> (u64, Settled) {
    let of_deferred = brought.min(u64::from(*behind));
    *behind -= of_deferred as u32;
    let gone = if complete { u64::from(core::mem::take(behind)) } else { 0 };
    (brought - of_deferred, Settled { brought: of_deferred, gone })
}

/// Room in an outbox while a replay is being put in.
pub(super) struct CatchUpRoom {
    bytes: usize,
    frames: usize,
    empty: bool,
}

impl CatchUpRoom {
    pub(super) fn of(outbox: &Outbox, limits: OutboxLimits) -> Self {
        CatchUpRoom {
            bytes: limits.bytes_max.saturating_sub(outbox.data_bytes()),
            frames: limits.frames_max.saturating_sub(outbox.frames()),
            empty: outbox.frames() == 0,
        }
    }

    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if !self.empty && (bytes > self.bytes || self.frames == 0) {
            return false;
        }
        self.empty = false;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.frames = self.frames.saturating_sub(1);
        true
    }
}
