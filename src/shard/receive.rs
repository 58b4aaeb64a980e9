//! Bytes -> frames -> requests. Frames are read where the kernel put them; only an incomplete tail is copied aside.

use super::Shard;
use crate::close::{CloseReason, ErrorCode};
use crate::id::{ConnectionKey, Now, Position};
use crate::session::{Phase, Tail};
use crate::shard::Effect;
use crate::wire::{ClientFrame, Encoder, Kind, RawFrame, Split, WireError, split};

/// First allocation for an incomplete frame; more only as more comes, whatever length the header announced.
const TAIL_BYTES_FIRST: usize = 512;

impl Shard {
    pub(super) fn on_received(&mut self, key: ConnectionKey, bytes: &[u8], now: Now) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| !connection.is_closing()) else {
            return;
        };
        self.metrics.bytes_received.add(bytes.len() as u64);
        let mut has_answered = false;
        if connection.is_ready() {
            connection.heard_ms = now.mono_ms();
            has_answered = core::mem::replace(&mut connection.phase, Phase::Ready) == Phase::Pinged;
        }
        let limits = &self.settings.client;
        if !connection.bytes.take(bytes.len() as u32, limits.bytes_rate, limits.bytes_burst, now.mono_ms()) {
            // The bytes are looked at all the same: a stream with a hole in it could not be read any more.
            self.warn_about_rate(key, 0, now);
        }
        if has_answered {
            self.rearm(key, now);
        }
        match self.read_frames(key, bytes, now) {
            Ok(()) => {}
            Err(error) => self.close(key, error.close_reason(), error.label(), now),
        }
    }

    /// Handles every whole frame and keeps what is left.
    fn read_frames(&mut self, key: ConnectionKey, bytes: &[u8], now: Now) -> Result<(), WireError> {
        let body_bytes_max = self.settings.body_bytes_max();
        let mut rest = bytes;
        let tail = self.connections.get_mut(key).and_then(|connection| connection.tail.take());
        if let Some(mut tail) = tail {
            // Complete the frame that has begun, header first, and not a byte more.
            loop {
                match split(&tail.bytes, body_bytes_max)? {
                    Split::Frame(frame, _) => {
                        self.on_frame(key, frame, now)?;
                        break;
                    }
                    Split::Incomplete(wanted) => {
                        let take = (wanted - tail.bytes.len()).min(rest.len());
                        if take == 0 {
                            self.keep_tail(key, tail);
                            return Ok(());
                        }
                        let (now_here, later) = rest.split_at(take);
                        tail.bytes.extend_from_slice(now_here);
                        rest = later;
                    }
                }
            }
        }
        loop {
            if self.connections.get(key).is_none_or(|connection| connection.is_closing()) {
                return Ok(());
            }
            match split(rest, body_bytes_max)? {
                Split::Frame(frame, later) => {
                    self.on_frame(key, frame, now)?;
                    rest = later;
                }
                Split::Incomplete(_) if rest.is_empty() => return Ok(()),
                Split::Incomplete(wanted) => {
                    let mut bytes = Vec::with_capacity(wanted.min(TAIL_BYTES_FIRST).max(rest.len()));
                    bytes.extend_from_slice(rest);
                    self.wheel.insert_if_earlier(key.slot, now.mono_ms() + self.settings.client.frame_timeout_ms);
                    self.keep_tail(key, Box::new(Tail { bytes, began_ms: now.mono_ms() }));
                    return Ok(());
                }
            }
        }
    }

    fn keep_tail(&mut self, key: ConnectionKey, tail: Box<Tail>) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_closing()
        {
            connection.tail = Some(tail);
        }
    }

    fn on_frame(&mut self, key: ConnectionKey, raw: RawFrame<'_>, now: Now) -> Result<(), WireError> {
        self.metrics.frames_received.increment();
        let frame = ClientFrame::parse(raw)?;
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        if !connection.is_ready() {
            match (&connection.phase, frame) {
                (Phase::AwaitConnect, ClientFrame::Connect(connect)) => self.on_connect(key, &connect, now),
                (_, ClientFrame::Disconnect) => self.close(key, CloseReason::ConnectionClosed, "", now),
                (Phase::Closing, _) => {}
                _ => self.close(key, CloseReason::BadRequest, "a frame before the answer to Connect", now),
            }
            return Ok(());
        }
        let limits = &self.settings.client;
        if !connection.messages.take(1, limits.messages_rate, limits.messages_burst, now.mono_ms())
            && !matches!(raw.kind, Kind::Ack | Kind::ClientPong)
        {
            self.warn_about_rate(key, request_of(&frame), now);
            return Ok(());
        }
        match frame {
            ClientFrame::Ping => self.reply(key, now, |_, out| Encoder::empty(out, Kind::Pong)),
            ClientFrame::Pong => {}
            ClientFrame::Publish(publish) => self.on_publish(key, &publish, now),
            ClientFrame::Ack(position) => self.on_ack(key, position, now),
            ClientFrame::Subscribe { request, room, since } => self.on_subscribe(key, request, room, since, now),
            ClientFrame::Unsubscribe { request, room } => self.on_unsubscribe(key, request, room, now),
            ClientFrame::Presence { request, room, limit } => self.on_presence(key, request, room, limit, now),
            ClientFrame::History { request, topic, since, limit } => {
                self.on_history(key, request, topic, since, limit, now);
            }
            ClientFrame::Refresh { request, token } => {
                if self.begin_request(key, request, now) {
                    self.effects.push_back(Effect::Verify {
                        connection: key,
                        refresh: Some(request),
                        token: token.into(),
                    });
                }
            }
            ClientFrame::Disconnect => self.close(key, CloseReason::ConnectionClosed, "", now),
            ClientFrame::Connect(_) => self.close(key, CloseReason::BadRequest, "a second Connect", now),
        }
        Ok(())
    }

    /// Over the rate: within a second of the first time the request is refused, later the connection is closed.
    fn warn_about_rate(&mut self, key: ConnectionKey, request: u32, now: Now) {
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
        self.refuse(key, request, ErrorCode::TooManyRequests, now);
    }

    /// Counts a request that will be answered later; refuses it when too many wait already.
    pub(super) fn begin_request(&mut self, key: ConnectionKey, request: u32, now: Now) -> bool {
        let limit = self.settings.client.requests_in_flight_max;
        let Some(session) = self.session_mut(key) else { return false };
        if usize::from(session.in_flight) >= limit {
            self.refuse(key, request, ErrorCode::TooManyInFlight, now);
            return false;
        }
        session.in_flight += 1;
        true
    }

    fn on_ack(&mut self, key: ConnectionKey, position: Position, now: Now) {
        self.metrics.acks.increment();
        self.acknowledge(key, position, now);
    }
}

fn request_of(frame: &ClientFrame<'_>) -> u32 {
    match frame {
        ClientFrame::Publish(publish) => publish.request,
        ClientFrame::Subscribe { request, .. }
        | ClientFrame::Unsubscribe { request, .. }
        | ClientFrame::Presence { request, .. }
        | ClientFrame::History { request, .. }
        | ClientFrame::Refresh { request, .. } => *request,
        _ => 0,
    }
}
