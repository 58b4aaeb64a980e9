//! Bytes -> frames -> requests. Frames are read where the kernel put them; only an incomplete tail is copied aside.
//!
//! A connection may be *parked*: its next frames wait unread, [`PARKED_BYTES_MAX`] of them here, and what the receive that
//! passes this bound has brought; the rest waits in the socket. Before the session is signed in, a receive takes one buffer
//! (one record, over TLS); later, everything that the kernel has at that moment. That bounds what a client can ask for without
//! reading the answers, and lets requests follow Connect at once.

use super::lookup::Asked;
use super::requests::{WEIGHT_MAX, WEIGHT_OF_REFRESH};
use super::rooms::Wish;
use crate::close::{CloseReason, ErrorCode};
use crate::id::{ConnectionKey, Now, Position};
use crate::limits::{CONNECT_BODY_BYTES_MAX, HEADER_BYTES};
use crate::session::{Connection, Phase, Tail};
use crate::shard::Effect;
use crate::shard::Shard;
use crate::wire::frames::{History, Presence, Refresh, Subscribe, Unsubscribe};
use crate::wire::{
    ClientFrame, Encoder, Kind, OutOfBounds, RawFrame, Split, WireError, other_protocol, split_first_of_client,
    split_of_client,
};

/// First allocation for an incomplete frame. It grows with the bytes that arrive, not with the length in the header.
const TAIL_BYTES_FIRST: usize = 512;

/// Why reading frames has ended.
enum Left {
    /// All are read.
    Nothing,
    /// The next one has to wait.
    Waits,
    /// The next one will be whole at so many bytes.
    Incomplete(usize),
}

/// Bytes that may wait unread on a connection before nothing more is received from it.
const PARKED_BYTES_MAX: usize = CONNECT_BODY_BYTES_MAX;
/// Bytes of answers, and answers among messages, that a client has not read when its next request has to wait.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;
const ANSWERS_IN_ORDER_MAX: usize = 256;
impl Shard {
    pub(in crate::shard) fn on_received(&mut self, key: ConnectionKey, bytes: &[u8], now: Now) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| !connection.is_closing()) else {
            return;
        };
        self.metrics.bytes_received.add(bytes.len() as u64);
        let mut has_answered = false;
        if connection.is_ready() {
            connection.heard_ms = now.mono_ms();
            has_answered = core::mem::replace(&mut connection.phase, Phase::Ready) == Phase::Pinged;
        }
        let first = (connection.phase == Phase::AwaitConnect).then(|| first_bytes(connection, bytes));
        let parked = connection
            .tail
            .as_mut()
            .filter(|tail| tail.parked)
            .map(|tail| append(&mut tail.bytes, bytes, PARKED_BYTES_MAX));
        if has_answered {
            self.rearm(key, now);
        }
        match parked {
            None => self.read_or_close(key, bytes, first, now),
            Some(()) => {
                self.hold_if_full(key);
                self.unpark(key, now);
            }
        }
    }

    /// `first` has the first bytes of a connection on which Connect has not come yet.
    fn read_or_close(&mut self, key: ConnectionKey, bytes: &[u8], first: Option<[u8; HEADER_BYTES]>, now: Now) {
        if let Err(error) = self.read_frames(key, bytes, now) {
            let detail = first.and_then(|first| other_protocol(&first)).unwrap_or(error.label());
            self.close(key, error.close_reason(), detail, now);
        }
    }

    /// Handles every whole frame and keeps what is left.
    fn read_frames(&mut self, key: ConnectionKey, bytes: &[u8], now: Now) -> Result<(), WireError> {
        let mut rest = bytes;
        let tail = self.connections.get_mut(key).and_then(|connection| connection.tail.take());
        if let Some(mut tail) = tail {
            if self.must_wait(key) {
                append(&mut tail.bytes, bytes, PARKED_BYTES_MAX);
                self.park(key, tail);
                return Ok(());
            }
            // Complete the frame that has begun, header first, and not a byte more.
            loop {
                match self.split(key, &tail.bytes)? {
                    Split::Frame(frame, _) => {
                        if !self.on_frame(key, frame, now)? {
                            append(&mut tail.bytes, rest, PARKED_BYTES_MAX);
                            self.park(key, tail);
                            return Ok(());
                        }
                        break;
                    }
                    Split::Incomplete(wanted) => {
                        let take = (wanted - tail.bytes.len()).min(rest.len());
                        if take == 0 {
                            self.keep_tail(key, tail);
                            return Ok(());
                        }
                        let (now_here, later) = rest.split_at(take);
                        append(&mut tail.bytes, now_here, wanted);
                        rest = later;
                    }
                }
            }
        }
        let (read, left) = self.read_whole_frames(key, rest, now)?;
        let rest = rest.get(read..).unwrap_or_default();
        match left {
            Left::Nothing => {}
            Left::Waits => self.park(key, tail_of(rest.to_vec(), now)),
            Left::Incomplete(wanted) => self.keep_incomplete(key, rest, wanted, now),
        }
        Ok(())
    }

    /// Cuts the next frame off.
    fn split<'a>(&self, key: ConnectionKey, bytes: &'a [u8]) -> Result<Split<'a>, WireError> {
        let phase = self.connections.get(key).map_or(Phase::Closing, |connection| connection.phase);
        split_in(phase, bytes, self.settings.body_bytes_max())
    }

    /// Handles every whole frame up to one that has to wait. Returns how many bytes those were, and why it ended.
    fn read_whole_frames(&mut self, key: ConnectionKey, bytes: &[u8], now: Now) -> Result<(usize, Left), WireError> {
        let body_bytes_max = self.settings.body_bytes_max();
        let mut rest = bytes;
        loop {
            let read = bytes.len() - rest.len();
            if rest.is_empty() {
                return Ok((read, Left::Nothing));
            }
            let split = match self.connections.get(key) {
                Some(connection) if !connection.is_closing() => {
                    if self.waits(key, connection) {
                        return Ok((read, Left::Waits));
                    }
                    split_in(connection.phase, rest, body_bytes_max)?
                }
                _ => return Ok((bytes.len(), Left::Nothing)),
            };
            match split {
                Split::Frame(frame, later) => {
                    if !self.on_frame(key, frame, now)? {
                        return Ok((read, Left::Waits));
                    }
                    rest = later;
                }
                Split::Incomplete(wanted) => return Ok((read, Left::Incomplete(wanted))),
            }
        }
    }

    /// Keeps the first bytes of a frame, which will be whole at `wanted` bytes.
    fn keep_incomplete(&mut self, key: ConnectionKey, rest: &[u8], wanted: usize, now: Now) {
        let mut bytes = Vec::with_capacity(wanted.min(TAIL_BYTES_FIRST).max(rest.len()));
        bytes.extend_from_slice(rest);
        self.wheel.insert_if_earlier(key.slot, now.mono_ms() + self.settings.client.frame_timeout_ms);
        self.keep_tail(key, tail_of(bytes, now));
    }

    /// Whether the next frame of this connection waits: until the session is signed in, so that a client may send requests
    /// right behind Connect; until its new token is verified; or until the client has read the answers that it asked for.
    fn must_wait(&self, key: ConnectionKey) -> bool {
        self.connections.get(key).is_some_and(|connection| self.waits(key, connection))
    }

    /// [`Self::must_wait`] of a connection that was looked up.
    fn waits(&self, key: ConnectionKey, connection: &Connection) -> bool {
        match connection.phase {
            Phase::Verifying | Phase::Attaching => true,
            Phase::Ready | Phase::Pinged => {
                let outbox = &connection.outbox;
                !outbox.is_empty()
                    && (outbox.control_bytes() >= ANSWERS_BYTES_MAX || outbox.replies() >= ANSWERS_IN_ORDER_MAX)
                    || self.heavy_in_flight.get(&key).is_some_and(|weight| *weight >= WEIGHT_MAX)
            }
            Phase::Handshaking | Phase::AwaitConnect | Phase::Closing => false,
        }
    }

    /// Keeps bytes that are not to be read yet. Where too many come, the peer's window is left to fill.
    fn park(&mut self, key: ConnectionKey, mut tail: Box<Tail>) {
        tail.parked = true;
        self.keep_tail(key, tail);
        self.hold_if_full(key);
    }

    /// Whether bytes that come now are taken in: false while [`Effect::Hold`] says or is about to say that they are not.
    pub fn takes_more(&self, key: ConnectionKey) -> bool {
        let tail = self.connections.get(key).and_then(|connection| connection.tail.as_ref());
        !tail.is_some_and(|tail| tail.held)
    }

    fn hold_if_full(&mut self, key: ConnectionKey) {
        let tail = self.connections.get_mut(key).and_then(|connection| connection.tail.as_mut());
        if let Some(tail) = tail.filter(|tail| tail.unread().len() >= PARKED_BYTES_MAX && !tail.held) {
            tail.held = true;
            self.effects.push_back(Effect::Hold { connection: key, hold: true });
        }
    }

    /// Something has happened that parked bytes may have waited for.
    pub(super) fn wake_parked(&mut self, key: ConnectionKey) {
        if self.connections.get(key).is_some_and(Connection::is_parked) {
            self.unparked.push(key);
        }
    }

    /// Reads on where bytes were parked and what they waited for may have happened.
    pub(in crate::shard) fn read_parked(&mut self, now: Now) {
        let mut unparked = core::mem::take(&mut self.unparked);
        for key in unparked.drain(..) {
            self.unpark(key, now);
        }
        // What is parked again waits for another turn.
        if self.unparked.is_empty() {
            self.unparked = unparked;
        }
    }

    /// Reads what was parked, as far as it may be read now.
    pub(super) fn unpark(&mut self, key: ConnectionKey, now: Now) {
        if self.must_wait(key) {
            return;
        }
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.is_parked()) else {
            return;
        };
        let Some(mut tail) = connection.tail.take() else { return };
        let held = tail.held;
        match self.read_whole_frames(key, tail.unread(), now) {
            Err(error) => self.close(key, error.close_reason(), error.label(), now),
            Ok((read, Left::Waits)) => {
                // Nothing more is received until all of it is read.
                tail.skip(read);
                return self.keep_tail(key, tail);
            }
            Ok((read, Left::Incomplete(wanted))) => {
                let rest = tail.unread().get(read..).unwrap_or_default();
                self.keep_incomplete(key, rest, wanted, now);
            }
            Ok((_, Left::Nothing)) => {}
        }
        if held && self.connections.get(key).is_some_and(|connection| !connection.is_closing()) {
            self.effects.push_back(Effect::Hold { connection: key, hold: false });
        }
    }

    fn keep_tail(&mut self, key: ConnectionKey, tail: Box<Tail>) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_closing()
        {
            connection.tail = Some(tail);
        }
    }

    /// False when the frame has to wait: it is to be given again.
    fn on_frame(&mut self, key: ConnectionKey, raw: RawFrame<'_>, now: Now) -> Result<bool, WireError> {
        let frame = ClientFrame::parse(raw)?;
        if let ClientFrame::Unsubscribe(Unsubscribe { room, .. }) = frame
            && let Some(session) = self.connections.get(key).and_then(|connection| connection.session.as_ref())
            && self.rooms.is_joining(session, room)
        {
            return Ok(false);
        }
        self.metrics.frames_received.increment();
        let Some(connection) = self.connections.get_mut(key) else { return Ok(true) };
        if !connection.is_ready() {
            match (&connection.phase, frame) {
                (Phase::AwaitConnect, ClientFrame::Connect(connect)) => self.on_connect(key, &connect, now),
                (_, ClientFrame::Disconnect) => self.close(key, CloseReason::ConnectionClosed, "", now),
                (Phase::Closing, _) => {}
                _ => self.close(key, CloseReason::BadRequest, "a frame before Connect", now),
            }
            return Ok(true);
        }
        let limits = &self.settings.client;
        let bytes = (HEADER_BYTES + raw.body.len()) as u32;
        // Both buckets are asked: a frame counts against each rate, also when the other one refuses it.
        let in_rate = connection.messages.take(1, limits.messages_rate, limits.messages_burst, now.mono_ms())
            & connection.bytes.take(bytes, limits.bytes_rate, limits.bytes_burst, now.mono_ms());
        if !in_rate && !matches!(raw.kind, Kind::Ack | Kind::ClientPong | Kind::Disconnect) {
            self.warn_about_rate(key, request_of(&frame), room_of(&frame), now);
            return Ok(true);
        }
        match frame {
            ClientFrame::Ping => self.reply(key, now, |_, out| Encoder::empty(out, Kind::Pong)),
            ClientFrame::Pong => self.on_pong(key, now),
            ClientFrame::Publish(publish) => self.on_publish(key, &publish, now),
            ClientFrame::Ack(position) => self.on_ack(key, position, now),
            ClientFrame::Subscribe(Subscribe { request, room, since, recover }) => {
                self.on_subscribe(key, Wish { request, room, since, recover }, false, now);
            }
            ClientFrame::Unsubscribe(Unsubscribe { request, room }) => self.on_unsubscribe(key, request, room, now),
            ClientFrame::Presence(Presence { request, room, limit }) => {
                self.on_presence(key, request, room, limit, now)
            }
            ClientFrame::History(History { request, topic, since, before, limit }) => {
                self.on_history(key, request, topic, Asked { since, before, limit }, now);
            }
            ClientFrame::Refresh(Refresh { request, token }) => {
                if self.begin_request(key, request, now) {
                    self.begin_heavy(key, WEIGHT_OF_REFRESH);
                    self.effects.push_back(Effect::Verify {
                        connection: key,
                        refresh: Some(request),
                        token: token.into(),
                    });
                }
            }
            ClientFrame::OutOfBounds(OutOfBounds { request: 0, .. }) if raw.kind == Kind::Publish => {
                // No answer is wanted.
                self.metrics.errors[ErrorCode::BadRequest].increment();
            }
            ClientFrame::OutOfBounds(OutOfBounds { request, problem }) => {
                self.refuse_with(key, request, ErrorCode::BadRequest, problem, None, now);
            }
            ClientFrame::Disconnect => self.close(key, CloseReason::ConnectionClosed, "", now),
            ClientFrame::Connect(_) => self.close(key, CloseReason::BadRequest, "a second Connect", now),
        }
        Ok(true)
    }

    /// Over the rate: within a second of the first time the request is refused, later the connection is closed.
    pub(super) fn warn_about_rate(&mut self, key: ConnectionKey, request: u32, room: Option<&str>, now: Now) {
        const GRACE_MS: u32 = 1000;
        const FORGIVEN_MS: u32 = 10_000;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let now_ms = now.mono_ms() as u32;
        let since_warning = now_ms.wrapping_sub(connection.warned_ms);
        if connection.warned_ms == 0 || since_warning > FORGIVEN_MS {
            connection.warned_ms = now_ms.max(1);
        } else if since_warning > GRACE_MS {
            self.close(key, CloseReason::TooManyRequests, "", now);
            return;
        }
        let code = ErrorCode::TooManyRequests;
        self.refuse_with(key, request, code, code.label(), room, now);
    }

    /// Counts a request that will be answered later; refuses it when too many wait already.
    pub(super) fn begin_request(&mut self, key: ConnectionKey, request: u32, now: Now) -> bool {
        let begins = self.count_request(key);
        if !begins {
            self.refuse(key, request, ErrorCode::TooManyInFlight, now);
        }
        begins
    }

    /// [`Self::begin_request`] without an answer.
    pub(super) fn count_request(&mut self, key: ConnectionKey) -> bool {
        let limit = self.settings.client.requests_in_flight_max;
        let Some(session) = self.session_mut(key) else { return false };
        let begins = usize::from(session.in_flight) < limit;
        session.in_flight += u16::from(begins);
        begins
    }

    /// A Pong without a Ping is ignored.
    fn on_pong(&mut self, key: ConnectionKey, now: Now) {
        if let Some(pinged_us) = self.pinged.remove(&key) {
            self.metrics.ping_pong_duration.record_us(now.mono_us.saturating_sub(pinged_us));
        }
    }

    fn on_ack(&mut self, key: ConnectionKey, position: Position, now: Now) {
        self.metrics.acks.increment();
        self.acknowledge(key, position, now);
    }
}

/// The first bytes that a connection has sent, zeroes where none have come yet.
fn first_bytes(connection: &Connection, bytes: &[u8]) -> [u8; HEADER_BYTES] {
    let before = connection.tail.as_ref().map_or(&[][..], |tail| tail.unread());
    let mut first = [0; HEADER_BYTES];
    for (place, byte) in first.iter_mut().zip(before.iter().chain(bytes)) {
        *place = *byte;
    }
    first
}

/// Appends, and makes room as a `Vec` does, but for no more than `bytes_max`; beyond it, for a quarter more than is there.
fn append(tail: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    let wanted = tail.len() + bytes.len();
    if wanted > tail.capacity() {
        let room =
            if wanted <= bytes_max { (tail.capacity() * 2).clamp(wanted, bytes_max) } else { wanted + wanted / 4 };
        tail.reserve_exact(room - tail.len());
    }
    tail.extend_from_slice(bytes);
}

/// Cuts the next frame off: the first one of a connection has bounds of its own.
fn split_in(phase: Phase, bytes: &[u8], body_bytes_max: usize) -> Result<Split<'_>, WireError> {
    if phase == Phase::AwaitConnect { split_first_of_client(bytes) } else { split_of_client(bytes, body_bytes_max) }
}

fn tail_of(bytes: Vec<u8>, now: Now) -> Box<Tail> {
    Box::new(Tail { bytes, read: 0, began_ms: now.mono_ms(), parked: false, held: false })
}

/// The room that a Subscribe names: its refusal names it, too.
fn room_of<'a>(frame: &ClientFrame<'a>) -> Option<&'a str> {
    if let ClientFrame::Subscribe(Subscribe { room, .. }) = frame { Some(room) } else { None }
}

fn request_of(frame: &ClientFrame<'_>) -> u32 {
    match frame {
        ClientFrame::Publish(publish) => publish.request,
        ClientFrame::Subscribe(Subscribe { request, .. })
        | ClientFrame::Unsubscribe(Unsubscribe { request, .. })
        | ClientFrame::Presence(Presence { request, .. })
        | ClientFrame::History(History { request, .. })
        | ClientFrame::Refresh(Refresh { request, .. })
        | ClientFrame::OutOfBounds(OutOfBounds { request, .. }) => *request,
        // Refused before it is answered by name, or never answered.
        ClientFrame::Connect(_)
        | ClientFrame::Ack(_)
        | ClientFrame::Ping
        | ClientFrame::Pong
        | ClientFrame::Disconnect => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_grows_in_small_pieces_then_it_takes_no_more_than_its_bound() {
        let (mut tail, mut allocations) = (Vec::new(), 0);
        while tail.len() < PARKED_BYTES_MAX - 700 {
            let before = tail.capacity();
            append(&mut tail, &[7; 700], PARKED_BYTES_MAX);
            allocations += usize::from(tail.capacity() != before);
        }
        assert!(tail.capacity() <= PARKED_BYTES_MAX && allocations <= 8, "{} in {allocations}", tail.capacity());
        append(&mut tail, &[7; 4096], PARKED_BYTES_MAX);
        let len = tail.len();
        assert!(len > PARKED_BYTES_MAX && tail.capacity() <= len + len / 4, "{} for {len}", tail.capacity());
    }
}
