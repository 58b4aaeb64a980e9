//! What is put into a connection's outbox, and what the shell takes out of it.

use std::collections::VecDeque;

use crate::close::ErrorCode;
use crate::id::{ConnectionKey, Now};
use crate::metrics::{DropReason, ShardMetrics};
use crate::outbox::{Arrival, Chunk, Delivery, Spares};
use crate::session::{Connection, Lag, Session};
use crate::shard::{Effect, Shard};
use crate::wire::{Encoder, encode};

impl Shard {
    /// The next bytes for this socket, control frames first; none when its outbox is empty.
    pub fn pull(&mut self, key: ConnectionKey, now: Now) -> Option<Chunk> {
        let connection = self.connections.get_mut(key)?;
        let Some(chunk) = connection.outbox.pull(&mut self.spares, now.mono_ms()) else {
            connection.writable = false;
            return None;
        };
        if let Chunk::Data(delivery) = &chunk
            && !delivery.arrival.is_reply()
        {
            self.metrics.frames_sent.increment();
            self.metrics.deliveries_sent.increment();
            self.metrics.deliveries_queued.subtract(1);
            if let Some(us) = delivery.arrival.elapsed_us(now.mono_us) {
                self.metrics.delivery_duration.record_us(us);
            }
        }
        let bytes = chunk.bytes().len();
        self.metrics.bytes_sent.add(bytes as u64);
        self.metrics.outbox_bytes.subtract(bytes as u64);
        if connection.is_parked() {
            self.unparked.push(key);
        }
        let lags =
            connection.session.as_ref().is_some_and(|session| session.lagging > 0 || session.inbox.lag != Lag::None);
        if lags && connection.outbox.is_drained(self.outbox_limits) {
            self.catch_up(key);
            self.read_own_mail(now);
        }
        Some(chunk)
    }

    /// The peer has taken a part of what was pulled: it reads, however slowly.
    pub fn progressed(&mut self, key: ConnectionKey, now: Now) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.outbox.progressed(now.mono_ms());
        }
    }

    /// Gives the memory of a sent control chunk back.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.spares.recycle(buffer);
    }

    pub(super) fn session_mut(&mut self, key: ConnectionKey) -> Option<&mut Session> {
        self.connections.get_mut(key)?.session.as_mut()
    }

    /// Appends one control frame to a connection that is not being torn down. The lane of control frames has no bound of
    /// its own: a connection with many of them is read no further, see `receive`.
    pub(in crate::shard) fn reply(
        &mut self,
        key: ConnectionKey,
        now: Now,
        build: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| !connection.is_closing()) else {
            return;
        };
        let was_empty = connection.outbox.is_empty();
        let out = connection.outbox.control(&mut self.spares, now.mono_ms());
        let before = out.len();
        build(&mut self.encoder, out);
        self.metrics.outbox_bytes.add((out.len() - before) as u64);
        self.metrics.frames_sent.increment();
        mark_writable(key, connection, was_empty, &mut self.stalls.filled, &mut self.effects);
    }

    /// Appends a reply that must not overtake messages.
    pub(super) fn reply_in_order(
        &mut self,
        key: ConnectionKey,
        now: Now,
        build: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| !connection.is_closing()) else {
            return;
        };
        let was_empty = connection.outbox.is_empty();
        let mut frame = Vec::new();
        build(&mut self.encoder, &mut frame);
        self.metrics.outbox_bytes.add(frame.len() as u64);
        let delivery = Delivery { frame: frame.into(), arrival: Arrival::REPLY };
        connection.outbox.push(delivery, &mut self.spares, now.mono_ms());
        self.metrics.frames_sent.increment();
        mark_writable(key, connection, was_empty, &mut self.stalls.filled, &mut self.effects);
    }

    pub(super) fn refuse(&mut self, key: ConnectionKey, request: u32, code: ErrorCode, now: Now) {
        self.refuse_with(key, request, code, code.label(), None, now);
    }

    /// Refuses a Subscribe, or a room of Connect.
    pub(super) fn refuse_room(&mut self, key: ConnectionKey, request: u32, code: ErrorCode, room: &str, now: Now) {
        self.refuse_with(key, request, code, code.label(), Some(room), now);
    }

    pub(super) fn refuse_with(
        &mut self,
        key: ConnectionKey,
        request: u32,
        code: ErrorCode,
        message: &str,
        room: Option<&str>,
        now: Now,
    ) {
        self.metrics.errors[code].increment();
        let retry_after_ms = match code {
            // Clocks differ by seconds; each attempt costs a verification.
            ErrorCode::TokenNotYetValid => 10_000,
            _ if code.is_temporary() => 1000,
            _ => 0,
        };
        let fields = encode::Error { request, code, message, retry_after_ms, room };
        self.reply(key, now, |encoder, out| encoder.error(out, &fields));
    }

    pub(super) fn count_dropped(metrics: &ShardMetrics, reason: DropReason, count: u64) {
        metrics.deliveries_dropped[reason].add(count);
    }

    /// [`Queue::push`] for a single message.
    pub(super) fn queue(&mut self, key: ConnectionKey, delivery: Delivery, now: Now) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut queue = Queue {
            spares: &mut self.spares,
            effects: &mut self.effects,
            filled: &mut self.stalls.filled,
            metrics: &self.metrics,
            now_ms: now.mono_ms(),
        };
        queue.push(key, connection, delivery);
    }
}

/// What it takes to put messages into outboxes, borrowed apart from the connections.
pub(super) struct Queue<'a> {
    pub(super) spares: &'a mut Spares,
    pub(super) effects: &'a mut VecDeque<Effect>,
    pub(super) filled: &'a mut Vec<ConnectionKey>,
    pub(super) metrics: &'a ShardMetrics,
    pub(super) now_ms: u64,
}

impl Queue<'_> {
    /// Appends a message to an outbox; the caller has counted it as owed and asked for room.
    #[inline]
    pub(super) fn push(&mut self, key: ConnectionKey, connection: &mut Connection, delivery: Delivery) {
        let was_empty = connection.outbox.is_empty();
        self.metrics.deliveries_queued.add(1);
        self.metrics.outbox_bytes.add(delivery.frame.len() as u64);
        connection.outbox.push(delivery, self.spares, self.now_ms);
        mark_writable(key, connection, was_empty, self.filled, self.effects);
    }
}

/// Tells the shell, once, that an outbox is not empty any more.
#[inline]
fn mark_writable(
    key: ConnectionKey,
    connection: &mut Connection,
    was_empty: bool,
    filled: &mut Vec<ConnectionKey>,
    effects: &mut VecDeque<Effect>,
) {
    if was_empty {
        filled.push(key);
    }
    if !connection.writable {
        connection.writable = true;
        effects.push_back(Effect::Writable { connection: key });
    }
}
