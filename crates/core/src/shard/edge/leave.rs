//! The end of a connection, in three steps: decided here, joined and freed by the shell.
//!
//! `close` says Goodbye and lets the control lane be flushed; `on_ended` is for a peer that is gone already. Either
//! way the session leaves its rooms and its inbox at once, so that nothing is addressed to it any more, and the slot
//! stays taken until [`Event::Freed`](crate::shard::Event::Freed).

use crate::close::CloseReason;
use crate::id::{ConnectionKey, Now};
use crate::limits::{BUSY_AFTER_MS, ENGINE_AWAY_AFTER_MS};
use crate::metrics::DropReason;
use crate::session::Phase;
use crate::shard::{CloseRecord, DRAINED_PER_TURN, Effect, Shard, ToHome};

/// Clients that a drained node sends back per second, all its shards together.
const RECONNECTS_PER_SECOND: u64 = 2_000;
/// Slots that one turn of a drain visits; most may be free.
const DRAIN_SLOTS_PER_TURN: u32 = 64 * 1024;

impl Shard {
    /// Ends a connection from our side: Goodbye, flush, close.
    pub(in crate::shard) fn close(&mut self, key: ConnectionKey, reason: CloseReason, detail: &'static str, now: Now) {
        let least_ms = if reason == CloseReason::Busy { BUSY_AFTER_MS } else { 0 };
        self.close_for(key, reason, detail, least_ms, now);
    }

    /// The engine cannot do now what the session needs: its client may come back sooner than one that found the node full, as the
    /// engine takes care of itself. Clients are spread all the same.
    pub(in crate::shard) fn close_for_a_moment(&mut self, key: ConnectionKey, now: Now) {
        self.close_for(key, CloseReason::Busy, "", ENGINE_AWAY_AFTER_MS, now);
    }

    /// As [`Self::close`]; a client that may come back does so after this time at the earliest.
    fn close_for(&mut self, key: ConnectionKey, reason: CloseReason, detail: &'static str, least_ms: u32, now: Now) {
        let Some(connection) = self.connections.get(key).filter(|connection| !connection.is_closing()) else { return };
        // Nobody could read a Goodbye before the TLS handshake is over.
        let speaks = !matches!(connection.phase, Phase::Handshaking) && reason != CloseReason::ConnectionClosed;
        if speaks {
            let after_ms = if reason.may_reconnect() { least_ms + self.reconnect_after_ms(key) } else { 0 };
            // Why a token was refused is only logged: a client that guesses tokens must not learn from it.
            let is_secret = detail.is_empty() || reason == CloseReason::InvalidToken;
            let text = if is_secret { reason.label() } else { detail };
            self.reply(key, now, |encoder, out| encoder.goodbye(out, reason, text, after_ms));
        }
        self.depart(key, reason, detail, true, now);
    }

    /// The peer closed its side, or its socket failed.
    pub(in crate::shard) fn on_ended(&mut self, key: ConnectionKey, reason: CloseReason, now: Now) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.is_closing() {
            self.effects.push_back(Effect::Abort { connection: key });
        } else {
            self.depart(key, reason, "", false, now);
        }
    }

    /// The socket is closed and the slot may be given out again.
    pub(in crate::shard) fn on_freed(&mut self, key: ConnectionKey) {
        let Some(mut connection) = self.connections.remove_at(key) else { return };
        self.wheel.cancel(key.slot);
        // A Refresh whose token was not verified yet gets no answer.
        self.heavy_in_flight.remove(&key);
        self.pinged.remove(&key);
        self.metrics.outbox_bytes.subtract(connection.outbox.bytes() as u64);
        debug_assert_eq!(connection.outbox.frames(), 0, "messages are dropped when the connection departs");
        while connection.outbox.pull(&mut self.spares, 0).is_some() {}
        self.metrics.connections_active[connection.transport].subtract(1);
    }

    /// Takes the session out of everything and asks the shell to close the socket.
    fn depart(&mut self, key: ConnectionKey, reason: CloseReason, detail: &'static str, flush: bool, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let was_ready = connection.is_ready();
        let transport = connection.transport;
        let session = if was_ready { connection.session.as_mut() } else { None };
        let memberships = session.map(|session| session.rooms.take()).unwrap_or_default();
        for membership in memberships {
            self.leave_room(key, membership, reason == CloseReason::TakenOver);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.phase = Phase::Closing;
        connection.pending = None;
        connection.heard_ms = now.mono_ms();
        connection.tail = None;
        let (frames, bytes) = connection.outbox.drop_data(&mut self.spares);
        self.metrics.deliveries_queued.subtract(frames);
        self.metrics.outbox_bytes.subtract(bytes as u64);
        Self::count_dropped(&self.metrics, DropReason::Closed, frames);
        if self.unrecognised.remove(&key) {
            self.metrics.connections_accepted[transport].increment();
        }
        let record = CloseRecord { user: None, device: None, peer: connection.peer, transport, detail };
        let mut record = Box::new(record);
        if let Some(session) = connection.session.take() {
            let behind = u64::from(session.inbox.behind);
            self.metrics.deliveries_deferred.subtract(behind);
            Self::count_dropped(&self.metrics, DropReason::Closed, behind);
            if was_ready {
                self.metrics.sessions_active.subtract(1);
                let (inbox, from) = (session.inbox.key, self.address(key));
                self.post_to_home(session.inbox.home, ToHome::Detach { inbox, from });
            }
            // While attaching, the home's answer will find the connection closed and detach it then.
            record.user = Some(session.user);
            record.device = Some(session.device);
        }
        self.metrics.closes[transport][reason].increment();
        self.effects.push_back(Effect::Close { connection: key, reason, flush, record });
        self.rearm(key, now);
    }

    /// When a client is to come back: spread over the time that the node's connections take to be served again.
    fn reconnect_after_ms(&self, key: ConnectionKey) -> u32 {
        let connections = self.connections.len() as u64 * u64::from(self.shards);
        let window_ms = (connections * 1000 / RECONNECTS_PER_SECOND).clamp(1_000, 120_000);
        let spread = std::hash::BuildHasher::hash_one(&self.hash, key);
        (spread % window_ms) as u32
    }

    /// Whether clients are left that were not told to go.
    pub(in crate::shard) fn has_to_drain(&self) -> bool {
        self.draining.is_some_and(|next| next < self.connections.slots())
    }

    /// Says Goodbye to a few more clients while the node drains. True when there are more.
    pub(in crate::shard) fn drain_some(&mut self, now: Now) -> bool {
        let Some(mut next) = self.draining.filter(|next| *next < self.connections.slots()) else { return false };
        let (mut told, end) = (0, (next + DRAIN_SLOTS_PER_TURN).min(self.connections.slots()));
        while next < end && told < DRAINED_PER_TURN {
            if let Some(key) = self.connections.key_of(next) {
                self.close(key, CloseReason::Shutdown, "", now);
                told += 1;
            }
            next += 1;
        }
        self.draining = Some(next);
        self.has_to_drain()
    }
}
