//! Every deadline of a connection, on one wheel entry.
//!
//! Traffic only stores when it came; an entry that expires looks at what is really due and goes back into the wheel
//! for the rest. Deadlines are absolute: a peer that trickles bytes gains nothing.

use crate::close::CloseReason;
use crate::id::{ConnectionKey, Now};
use crate::metrics::SlowAction;
use crate::prefetch::TOGETHER;
use crate::session::{Connection, Phase};
use crate::shard::{EXPIRED_PER_TURN, Effect, Shard};
use crate::wire::{Encoder, Kind};

/// How long a flushed connection may take to go before its socket is closed hard.
const LINGER_MS: u64 = 2_000;

/// What the earliest deadline of a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The client's part of signing in.
    SignIn,
    /// The gateway's part of it.
    Admission,
    /// The gateway's part of a Refresh that came in time.
    Renewal,
    Frame,
    Write,
    Token,
    Ack,
    PingClient,
    Silence,
    Linger,
}

impl Shard {
    /// Handles expired wheel entries; true when more are waiting.
    pub(in crate::shard) fn expire(&mut self, now: Now) -> bool {
        let mut expired = core::mem::take(&mut self.expired);
        let more = self.wheel.advance(now.mono_ms(), EXPIRED_PER_TURN, &mut expired);
        // Most of them were not touched for half a minute: their memory is waited for together.
        for some in expired.chunks(TOGETHER) {
            for slot in some {
                self.connections.prefetch(*slot);
            }
            for slot in some {
                if let Some(key) = self.connections.key_of(*slot) {
                    self.on_expired(key, now);
                }
            }
        }
        expired.clear();
        self.expired = expired;
        more
    }

    /// Starts the write deadline of outboxes that still hold something a turn after they were filled.
    pub(in crate::shard) fn watch_stalled(&mut self) {
        let write_timeout_ms = self.settings.client.write_timeout_ms;
        for key in self.stalls.sent.drain(..) {
            let since_ms = self.connections.get(key).and_then(|connection| connection.outbox.stalled_since_ms());
            if let Some(since_ms) = since_ms {
                self.wheel.insert_if_earlier(key.slot, since_ms + write_timeout_ms);
            }
        }
        core::mem::swap(&mut self.stalls.filled, &mut self.stalls.sent);
    }

    fn on_expired(&mut self, key: ConnectionKey, now: Now) {
        // Several deadlines may have passed; each one handled moves the next ahead or ends the connection.
        for _ in 0..4 {
            let Some(connection) = self.connections.get(key) else { return };
            let (deadline_ms, due) = self.next_deadline(key, connection, now);
            if deadline_ms > now.mono_ms() {
                return self.wheel.insert(key.slot, deadline_ms);
            }
            match due {
                Due::SignIn => self.close(key, CloseReason::Stale, "sign-in took too long", now),
                // The client has done its part: it is to come back.
                Due::Admission => self.close(key, CloseReason::Busy, "the gateway is late with sign-ins", now),
                Due::Renewal => self.close(key, CloseReason::Busy, "the gateway is late with a Refresh", now),
                Due::Frame => self.close(key, CloseReason::Stale, "a frame took too long", now),
                Due::Write => {
                    self.metrics.slow_consumers[SlowAction::Close].increment();
                    self.close(key, CloseReason::Slow, "", now);
                }
                Due::Token => self.close(key, CloseReason::Expired, "", now),
                Due::Silence => self.close(key, CloseReason::NoPong, "", now),
                Due::Ack => self.repeat_unacknowledged(key, now),
                Due::PingClient => {
                    let limits = &self.settings.client;
                    if let Some(connection) = self.connections.get_mut(key) {
                        connection.phase = Phase::Pinged;
                        self.pinged.insert(key, now.mono_us);
                        // The client has the whole time to answer, also when the gateway pings late.
                        let interval_ms = connection.ping_interval_ms();
                        let due_ms = now.mono_ms() + limits.patience_ms(interval_ms);
                        let heard_ms = due_ms.saturating_sub(limits.silence_ms_max(interval_ms));
                        connection.heard_ms = connection.heard_ms.max(heard_ms);
                    }
                    self.reply(key, now, |_, out| Encoder::empty(out, Kind::Ping));
                }
                Due::Linger => {
                    self.effects.push_back(Effect::Abort { connection: key });
                    return;
                }
            }
        }
        self.rearm(key, now);
    }

    /// Puts the connection's earliest deadline into the wheel.
    pub(super) fn rearm(&mut self, key: ConnectionKey, now: Now) {
        if let Some(connection) = self.connections.get(key) {
            let (deadline_ms, _) = self.next_deadline(key, connection, now);
            self.wheel.insert(key.slot, deadline_ms);
        }
    }

    fn next_deadline(&self, key: ConnectionKey, connection: &Connection, now: Now) -> (u64, Due) {
        let limits = &self.settings.client;
        let mut earliest = match connection.phase {
            Phase::Closing => return (connection.heard_ms + LINGER_MS, Due::Linger),
            Phase::Handshaking => (connection.heard_ms + limits.handshake_timeout_ms, Due::SignIn),
            Phase::AwaitConnect => (connection.heard_ms + limits.connect_timeout_ms, Due::SignIn),
            Phase::Verifying | Phase::Attaching => (connection.heard_ms + limits.connect_timeout_ms, Due::Admission),
            Phase::Pinged => (connection.heard_ms + limits.silence_ms_max(connection.ping_interval_ms()), Due::Silence),
            Phase::Ready => {
                (connection.heard_ms + limits.asked_after_ms(connection.ping_interval_ms()), Due::PingClient)
            }
        };
        let mut consider = |deadline_ms: u64, due: Due| {
            if deadline_ms < earliest.0 {
                earliest = (deadline_ms, due);
            }
        };
        if let Some(tail) = connection.tail.as_ref().filter(|tail| !tail.parked) {
            consider(tail.began_ms + limits.frame_timeout_ms, Due::Frame);
        }
        if let Some(since_ms) = connection.outbox.stalled_since_ms() {
            consider(since_ms + limits.write_timeout_ms, Due::Write);
        }
        if let Some(session) = &connection.session {
            if session.expires_at != 0 {
                // A Refresh that came in time is not too late because the gateway is.
                let (put_off_ms, due) = match self.is_refreshing(key) {
                    true => (limits.connect_timeout_ms, Due::Renewal),
                    false => (0, Due::Token),
                };
                let end_ms = u64::from(session.expires_at) * 1000 + put_off_ms;
                consider(now.mono_ms() + end_ms.saturating_sub(now.unix_ms), due);
            }
            if let Some(deadline) = session.inbox.ack_deadline {
                consider(deadline.to_ms(), Due::Ack);
            }
        }
        earliest
    }
}
