//! A session's own inbox: live messages, acknowledgements, and one way to bring what is missing.
//!
//! Whatever the cause (resume, a full outbox, too much in flight, an Ack that does not come), the feed is marked as
//! lagging, live messages are only counted, and the home is asked for what comes after `seen`, or, where an Ack is
//! missing, for what comes after the last one. Because letters keep their order, the first live message after the
//! answer is the one that follows it: no hole, no repetition.

use crate::id::{ConnectionKey, Now, Position};
use crate::metrics::DropReason;
use crate::outbox::Delivery;
use crate::session::{InboxFeed, Lag, Ticks};
use crate::shard::{Letter, Shard, Source};
use crate::topics::Gap;

impl Shard {
    /// A live message of the session's inbox.
    pub(in crate::shard) fn on_deliver(&mut self, key: ConnectionKey, offset: u64, delivery: Delivery, now: Now) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.is_ready()) else {
            // Closed in the meantime, or not yet ready: a logged message is still in the log.
            return;
        };
        let Some(session) = connection.session.as_mut() else { return };
        let receive_window = session.receive_window;
        let feed = &mut session.inbox;
        let logged = offset != 0;
        if logged && offset <= feed.seen {
            return;
        }
        self.metrics.deliveries_owed.increment();
        let window_full = feed.unacked >= receive_window;
        let no_room = !connection.outbox.has_room(delivery.frame.len(), self.outbox_limits);
        if logged && (feed.lag != Lag::None || window_full || no_room) {
            if feed.lag == Lag::None {
                feed.lag = Lag::Behind;
                self.metrics.slow_consumers[0].add(u64::from(no_room));
            }
            feed.behind += 1;
            self.metrics.deliveries_deferred.add(1);
            return;
        }
        // What is in no log waits for nobody, and must not overtake messages that wait in the log.
        if no_room || (!logged && feed.lag != Lag::None) {
            self.metrics.slow_consumers[1].increment();
            return Self::count_dropped(&self.metrics, DropReason::Slow, 1);
        }
        if logged {
            debug_assert!(
                offset == feed.seen + 1 || self.settings.inbox.copy_to_own_devices,
                "a hole in an inbox that no copy of an own message explains"
            );
            feed.skip_expired(offset - 1);
            feed.advance(offset);
            self.await_ack(key, now);
        }
        self.queue(key, delivery, now);
    }

    /// Sets the deadline of the next Ack, unless one is running or nothing is owed.
    fn await_ack(&mut self, key: ConnectionKey, now: Now) {
        let ack_wait_ms = self.settings.inbox.ack_wait_ms;
        let Some(session) = self.connections.get_mut(key).and_then(|connection| connection.session.as_mut()) else {
            return;
        };
        let feed = &mut session.inbox;
        if feed.unacked > 0 && feed.ack_deadline.is_none() {
            let deadline = Ticks::from_ms(now.mono_ms() + ack_wait_ms);
            feed.ack_deadline = Some(deadline);
            self.wheel.insert_if_earlier(key.slot, deadline.to_ms());
        }
    }

    /// Appends a message to an outbox; the caller has counted it as owed and asked for room.
    pub(in crate::shard) fn queue(&mut self, key: ConnectionKey, delivery: Delivery, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let was_empty = connection.outbox.is_empty();
        self.metrics.deliveries_queued.add(1);
        self.metrics.outbox_bytes.add(delivery.frame.len() as u64);
        connection.outbox.push(delivery, &mut self.spares, now.mono_ms());
        self.mark_writable(key, was_empty);
    }

    /// The client has kept everything up to `position`.
    pub(in crate::shard) fn acknowledge(&mut self, key: ConnectionKey, position: Position, now: Now) {
        let from = self.address(key);
        let ack_wait_ms = self.settings.inbox.ack_wait_ms;
        let Some(session) = self.session_mut(key) else { return };
        let feed = &mut session.inbox;
        // A client that is brought again what it has kept acknowledges all of that, which is ahead of what was sent here.
        let position = Position { offset: position.offset.min(feed.seen), ..position };
        if position.epoch != feed.epoch || position.offset <= feed.acked() {
            return;
        }
        feed.unacked = (feed.seen - position.offset) as u32;
        feed.attempts = 0;
        feed.ack_deadline = (feed.unacked > 0).then(|| Ticks::from_ms(now.mono_ms() + ack_wait_ms));
        let InboxFeed { at, home, lag, .. } = *feed;
        if self.reads_at_once(at) {
            self.homes.acknowledge(home, from, position.offset, &self.metrics, now);
        } else {
            self.post(at, Letter::Ack { home, from, offset: position.offset });
        }
        if lag != Lag::None {
            self.catch_up(key);
        }
    }

    /// The Ack did not come: everything after the cursor is brought once more.
    pub(in crate::shard) fn repeat_unacknowledged(&mut self, key: ConnectionKey, now: Now) {
        let settings = self.settings.clone();
        let Some(session) = self.session_mut(key) else { return };
        let feed = &mut session.inbox;
        feed.attempts = feed.attempts.saturating_add(1);
        let wait_ms = settings
            .inbox
            .ack_wait_ms
            .saturating_mul(1 << u32::from(feed.attempts.min(16)))
            .min(settings.inbox.ack_wait_ms_max.max(settings.inbox.ack_wait_ms));
        feed.ack_deadline = Some(Ticks::from_ms(now.mono_ms() + wait_ms));
        // It is being brought something already, or waits for room or for acknowledgements.
        if matches!(feed.lag, Lag::CatchingUp | Lag::Repeating) || (feed.lag == Lag::Behind && feed.unacked == 0) {
            return;
        }
        feed.lag = Lag::Repeating;
        let InboxFeed { at, home, .. } = *feed;
        let since = feed.acked();
        self.metrics.retries.increment();
        let from = self.address(key);
        self.post(at, Letter::CatchUp { topic: Source::Inbox(home), from, since });
    }

    /// Asks the homes for what this session's lagging topics are missing, if its outbox has room for it.
    pub(in crate::shard) fn catch_up(&mut self, key: ConnectionKey) {
        let from = self.address(key);
        let Some(session) = self.session_mut(key) else { return };
        let receive_window = session.receive_window;
        let feed = &mut session.inbox;
        if feed.lag == Lag::Behind && feed.unacked < receive_window {
            feed.lag = Lag::CatchingUp;
            let InboxFeed { at, home, seen: since, .. } = *feed;
            self.post(at, Letter::CatchUp { topic: Source::Inbox(home), from, since });
        }
        self.catch_up_rooms(key);
    }

    /// The home brings what was missing.
    pub(in crate::shard) fn on_inbox_caught_up(&mut self, key: ConnectionKey, gap: Gap, now: Now) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.is_ready()) else { return };
        let Some(session) = connection.session.as_mut() else { return };
        let receive_window = session.receive_window;
        let feed = &mut session.inbox;
        if feed.lag == Lag::Repeating {
            feed.rewind();
        }
        let (mut fits, before) = (true, feed.seen);
        let mut taken = Vec::with_capacity(gap.frames.len());
        let mut room = CatchUpRoom::of(&connection.outbox, self.outbox_limits);
        for (offset, frame) in gap.frames {
            if offset <= feed.seen {
                // Acknowledged since it was asked for.
                continue;
            }
            feed.skip_expired(offset - 1);
            if offset - 1 - feed.acked() >= u64::from(receive_window) || !room.take(frame.len()) {
                fits = false;
                break;
            }
            feed.advance(offset);
            taken.push(frame);
        }
        if fits {
            feed.skip_expired(gap.upto);
            feed.advance(gap.upto);
        }
        let complete = fits && !gap.more;
        feed.lag = if complete { Lag::None } else { Lag::Behind };
        if complete && feed.unacked == 0 {
            // What was to be repeated has expired: nothing is owed any more.
            feed.ack_deadline = None;
            feed.attempts = 0;
        }
        let progress = feed.seen > before;
        let (owed, settled) = settle(&mut feed.behind, taken.len() as u64, complete);
        self.await_ack(key, now);
        self.replay(key, taken, owed, settled, complete, now);
        // All of a repetition may have been acknowledged while it was on its way.
        if !complete && (fits || progress) {
            self.catch_up_when_drained(key);
        }
    }

    /// Queues replayed frames and books them: `deferred` of them were counted as owed already.
    pub(in crate::shard) fn replay(
        &mut self,
        key: ConnectionKey,
        frames: Vec<bytes::Bytes>,
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
            self.queue(key, Delivery { frame, received_us: 0 }, now);
        }
    }

    /// Goes on at once when the outbox has room; else the next pull does. Only after progress, or it would go round
    /// in circles when the next message fits into an empty outbox alone.
    pub(in crate::shard) fn catch_up_when_drained(&mut self, key: ConnectionKey) {
        let limits = self.outbox_limits;
        if self.connections.get(key).is_some_and(|connection| connection.outbox.is_drained(limits)) {
            self.catch_up(key);
        }
    }
}

/// What became of deferred messages.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::shard) struct Settled {
    /// Now in the outbox.
    pub(in crate::shard) brought: u64,
    /// No longer in the log.
    pub(in crate::shard) gone: u64,
}

/// Books `brought` replayed messages against `behind` deferred ones; returns how many are owed anew.
pub(in crate::shard) fn settle(behind: &mut u32, brought: u64, complete: bool) -> (u64, Settled) {
    let of_deferred = brought.min(u64::from(*behind));
    *behind -= of_deferred as u32;
    let gone = if complete { u64::from(core::mem::take(behind)) } else { 0 };
    (brought - of_deferred, Settled { brought: of_deferred, gone })
}

/// Room in an outbox while a replay is being put in.
pub(in crate::shard) struct CatchUpRoom {
    bytes: usize,
    frames: usize,
    empty: bool,
}

impl CatchUpRoom {
    pub(in crate::shard) fn of(outbox: &crate::outbox::Outbox, limits: crate::outbox::OutboxLimits) -> Self {
        CatchUpRoom {
            bytes: limits.bytes_max.saturating_sub(outbox.data_bytes()),
            frames: limits.frames_max.saturating_sub(outbox.frames()),
            empty: outbox.frames() == 0,
        }
    }

    pub(in crate::shard) fn take(&mut self, bytes: usize) -> bool {
        if !self.empty && (bytes > self.bytes || self.frames == 0) {
            return false;
        }
        self.empty = false;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.frames = self.frames.saturating_sub(1);
        true
    }
}
