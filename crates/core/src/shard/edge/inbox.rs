//! A session's own inbox: live messages, acknowledgements, and one way to bring what is missing.
//!
//! Whatever the cause (resume, a full outbox, too much in flight, an Ack that does not come), the feed is marked as
//! lagging, live messages are only counted, and the home is asked for what comes after `seen`, or, where an Ack is
//! missing, for what comes after the last one. Because letters keep their order, the first live message after the
//! answer is the one that follows it: no hole, no repetition.

use super::catch_up::{CatchUpRoom, settle};
use crate::id::{ConnectionKey, Now, Position};
use crate::limits::Engine;
use crate::metrics::{DropReason, SlowAction};
use crate::outbox::Delivery;
use crate::session::{InboxFeed, Lag, Ticks};
use crate::shard::{Shard, Source, ToHome};
use crate::topics::Gap;

impl Shard {
    /// A live message of the session's inbox.
    pub(in crate::shard) fn on_deliver(&mut self, key: ConnectionKey, offset: u64, delivery: Delivery, now: Now) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.is_ready()) else {
            // The session has ended or is not ready yet: a logged message is still in the log.
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
                self.metrics.slow_consumers[SlowAction::Lag].add(u64::from(no_room));
            }
            feed.behind += 1;
            self.metrics.deliveries_deferred.add(1);
            return;
        }
        // A message that is in no log cannot be brought later, and must not overtake messages that wait in the log.
        if no_room || (!logged && feed.lag != Lag::None) {
            self.metrics.slow_consumers[SlowAction::Drop].increment();
            return Self::count_dropped(&self.metrics, DropReason::Slow, 1);
        }
        if logged {
            debug_assert!(
                offset == feed.seen + 1
                    || self.settings.inbox.copy_to_own_devices
                    || self.settings.engine == Engine::Shared,
                "a hole in an inbox that no copy of an own message explains, and no engine that dropped messages before they were read"
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
        let InboxFeed { home, key: inbox, lag, .. } = *feed;
        self.acknowledge_or_post(home, inbox, from, position.offset, now);
        if lag != Lag::None {
            self.catch_up(key);
        }
    }

    /// The Ack did not come: everything after the cursor is brought once more.
    pub(super) fn repeat_unacknowledged(&mut self, key: ConnectionKey, now: Now) {
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
        let InboxFeed { home, key: inbox, .. } = *feed;
        let since = feed.acked();
        self.metrics.retries.increment();
        let from = self.address(key);
        self.post_to_home(home, ToHome::CatchUp { topic: Source::Inbox(inbox), from, since });
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
}
