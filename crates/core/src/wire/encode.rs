//! Values -> frames. One [`Encoder`] per thread keeps the FlatBuffers builder's memory between frames.
//!
//! Every method appends one whole frame (header and body) to `out`. A Message is built elsewhere, as a
//! [`Draft`].

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, WIPOffset};

use super::Draft;
use super::client_frame::RoomCursor;
use super::header::{Kind, WireError, append_header};
use super::schema;
use super::table::Table;
use crate::id::{ClientMessageId, Durability, Position, Stamp};
use crate::limits::HEADER_BYTES;

/// Builds frames; see the module.
pub struct Encoder {
    builder: FlatBufferBuilder<'static>,
}

/// What [`Encoder::connected`] needs.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct Connected<'a> {
    pub request: u32,
    pub session: u64,
    pub node: &'a str,
    pub user: &'a str,
    pub ping_interval_ms: u32,
    pub pong_timeout_ms: u32,
    pub message_bytes_max: u32,
    pub rooms_max: u16,
    pub requests_in_flight_max: u16,
    pub expires_at: u64,
    pub inbox_recovered: bool,
    pub inbox: Position,
    pub server_time_ms: u64,
    pub expires_in_ms: u64,
    pub dedup_window_ms: u32,
    pub frames_rate: u32,
    pub frames_burst: u32,
    pub bytes_rate: u32,
    pub bytes_burst: u32,
    pub receive_window: u32,
}

/// What [`Encoder::subscribed`] needs.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct Subscribed<'a> {
    pub request: u32,
    pub room: &'a str,
    pub recovered: bool,
    pub position: Position,
    pub start: Position,
}

/// What [`Encoder::history_result`] needs.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct HistoryResult<'a> {
    pub request: u32,
    pub topic: &'a str,
    pub position: Position,
    /// Whole Message frames.
    pub frames: &'a [Bytes],
    pub more: bool,
    pub recovered: bool,
}

/// What [`Encoder::error`] needs.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct Error<'a> {
    pub request: u32,
    pub code: crate::close::ErrorCode,
    pub message: &'a str,
    pub retry_after_ms: u32,
    pub room: Option<&'a str>,
}

/// What [`Encoder::history`] needs.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct HistoryRequest<'a> {
    pub request: u32,
    pub topic: &'a str,
    pub since: Option<Position>,
    pub before: Option<Position>,
    pub limit: u32,
}

/// What [`Encoder::connect`] needs.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct ConnectRequest<'a> {
    pub request: u32,
    pub version: u16,
    pub token: &'a str,
    pub device: &'a str,
    pub client: &'a str,
    pub inbox: Option<Position>,
    pub rooms: &'a [RoomCursor<'a>],
    pub ping_interval_ms: u32,
    pub receive_window: u32,
}

/// What [`Encoder::publish`] needs.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct PublishRequest<'a> {
    pub request: u32,
    pub topic: &'a str,
    pub client_message_id: ClientMessageId,
    pub payload: &'a [u8],
    pub ephemeral: bool,
    pub ttl_seconds: u32,
    pub trace: Option<&'a str>,
}

/// Texts of which a few come again and again: the builder's own memory of texts is searched for each, and grows with them.
#[derive(Default)]
struct Shared<'a>(Vec<(&'a str, WIPOffset<&'a str>)>);

/// Names that devices commonly have are no more than this.
const SHARED_MAX: usize = 8;

impl<'a> Shared<'a> {
    fn or_create(&mut self, builder: &mut FlatBufferBuilder<'_>, text: &'a str) -> WIPOffset<&'a str> {
        if let Some((_, offset)) = self.0.iter().find(|(known, _)| *known == text) {
            return *offset;
        }
        let offset = WIPOffset::new(builder.create_string(text).value());
        if self.0.len() < SHARED_MAX {
            self.0.push((text, offset));
        }
        offset
    }
}

/// The fields of a Message.
struct Message<'a> {
    topic: Option<&'a str>,
    stamp: Option<schema::Stamp>,
    sender: Option<&'a str>,
    payload: Option<&'a [u8]>,
    trace: Option<&'a str>,
    sent_to: Option<&'a str>,
}

fn read_message(frame: &[u8]) -> Result<Message<'_>, WireError> {
    type Fields<'a> = schema::Message<'a>;
    let table = Table::root(frame.get(HEADER_BYTES..).unwrap_or_default())?;
    Ok(Message {
        topic: table.string(Fields::VT_TOPIC)?,
        stamp: table.structure(Fields::VT_STAMP)?.map(schema::Stamp),
        sender: table.string(Fields::VT_SENDER)?,
        payload: table.bytes(Fields::VT_PAYLOAD)?,
        trace: table.string(Fields::VT_TRACE)?,
        sent_to: table.string(Fields::VT_SENT_TO)?,
    })
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder { builder: FlatBufferBuilder::with_capacity(1024) }
    }
}

/// Largest builder that is kept between frames.
const BUILDER_BYTES_KEPT_MAX: usize = 256 * 1024;

impl Encoder {
    /// Finishes the table built so far and appends it as a frame.
    fn finish<T>(&mut self, out: &mut Vec<u8>, kind: Kind, table: WIPOffset<T>) {
        self.builder.finish_minimal(table);
        let body = self.builder.finished_data();
        out.reserve(HEADER_BYTES + body.len());
        append_header(out, kind, body.len());
        out.extend_from_slice(body);
        let large = body.len() > BUILDER_BYTES_KEPT_MAX;
        if large {
            self.builder = FlatBufferBuilder::with_capacity(1024);
        } else {
            self.builder.reset();
        }
    }

    /// An empty frame: Ping, Pong, Disconnect.
    pub fn empty(out: &mut Vec<u8>, kind: Kind) {
        append_header(out, kind, 0);
    }

    /// Connected.
    pub fn connected(&mut self, out: &mut Vec<u8>, fields: &Connected<'_>) {
        let node = Some(self.builder.create_string(fields.node));
        let user = Some(self.builder.create_string(fields.user));
        let inbox = schema::Position::from(fields.inbox);
        let table = schema::Connected::create(
            &mut self.builder,
            &schema::ConnectedArgs {
                request: fields.request,
                version: PROTOCOL_VERSION,
                session: fields.session,
                node,
                user,
                ping_interval_ms: fields.ping_interval_ms,
                pong_timeout_ms: fields.pong_timeout_ms,
                message_bytes_max: fields.message_bytes_max,
                rooms_max: fields.rooms_max,
                requests_in_flight_max: fields.requests_in_flight_max,
                expires_at: fields.expires_at,
                inbox_recovered: fields.inbox_recovered,
                inbox: Some(&inbox),
                server_time_ms: fields.server_time_ms,
                expires_in_ms: fields.expires_in_ms,
                dedup_window_ms: fields.dedup_window_ms,
                frames_rate: fields.frames_rate,
                frames_burst: fields.frames_burst,
                bytes_rate: fields.bytes_rate,
                bytes_burst: fields.bytes_burst,
                receive_window: fields.receive_window,
            },
        );
        self.finish(out, Kind::Connected, table);
    }

    /// Published: a struct, no FlatBuffer around it.
    pub fn published(
        out: &mut Vec<u8>,
        request: u32,
        client_message_id: ClientMessageId,
        stamp: Stamp,
        durability: Durability,
        duplicate: bool,
    ) {
        let body = schema::Published::new(
            &client_message_id.into(),
            &stamp.into(),
            request,
            schema::Durability(durability as u8),
            duplicate,
            0,
        );
        append_header(out, Kind::Published, body.0.len());
        out.extend_from_slice(&body.0);
    }

    /// Error.
    pub fn error(&mut self, out: &mut Vec<u8>, fields: &Error<'_>) {
        let Error { request, code, message, retry_after_ms, room } = *fields;
        let message = Some(self.builder.create_string(message));
        let room = room.map(|room| self.builder.create_string(room));
        let (code, temporary) = (code.code(), code.is_temporary());
        let table = schema::Error::create(
            &mut self.builder,
            &schema::ErrorArgs { request, code, message, temporary, retry_after_ms, room },
        );
        self.finish(out, Kind::Error, table);
    }

    /// Subscribed.
    pub fn subscribed(&mut self, out: &mut Vec<u8>, fields: &Subscribed<'_>) {
        let Subscribed { request, recovered, .. } = *fields;
        let room = Some(self.builder.create_string(fields.room));
        let (position, start) = (fields.position.into(), fields.start.into());
        let table = schema::Subscribed::create(
            &mut self.builder,
            &schema::SubscribedArgs { request, room, recovered, position: Some(&position), start: Some(&start) },
        );
        self.finish(out, Kind::Subscribed, table);
    }

    /// Unsubscribed.
    pub fn unsubscribed(&mut self, out: &mut Vec<u8>, request: u32, room: &str, code: u16) {
        let room = Some(self.builder.create_string(room));
        let table = schema::Unsubscribed::create(&mut self.builder, &schema::UnsubscribedArgs { request, room, code });
        self.finish(out, Kind::Unsubscribed, table);
    }

    /// PresenceResult; `members` are user and device.
    pub fn presence_result<'a>(
        &mut self,
        out: &mut Vec<u8>,
        request: u32,
        room: &str,
        count: u32,
        members: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let mut list = Vec::new();
        // Most devices have one of a few names; most users are there with one.
        let mut devices = Shared::default();
        for (user, device) in members {
            let user = Some(self.builder.create_string(user));
            let device = Some(devices.or_create(&mut self.builder, device));
            list.push(schema::Member::create(&mut self.builder, &schema::MemberArgs { user, device }));
        }
        let members = Some(self.builder.create_vector(&list));
        let room = Some(self.builder.create_string(room));
        let table = schema::PresenceResult::create(
            &mut self.builder,
            &schema::PresenceResultArgs { request, room, count, members },
        );
        self.finish(out, Kind::PresenceResult, table);
    }

    /// HistoryResult from whole Message frames.
    pub fn history_result(&mut self, out: &mut Vec<u8>, fields: &HistoryResult<'_>) {
        let HistoryResult { request, topic, position, frames, more, recovered } = *fields;
        let mut list = Vec::with_capacity(frames.len());
        let mut topics = Shared::default();
        for frame in frames {
            // Frames of our own logs can always be read; one that could not would be left out, not panic.
            let Ok(message) = read_message(frame) else { continue };
            let topic = message.topic.map(|topic| topics.or_create(&mut self.builder, topic));
            let sender = message.sender.map(|sender| self.builder.create_shared_string(sender));
            let payload = message.payload.map(|payload| self.builder.create_vector(payload));
            let trace = message.trace.map(|trace| self.builder.create_string(trace));
            let sent_to = message.sent_to.map(|sent_to| self.builder.create_string(sent_to));
            list.push(schema::Message::create(
                &mut self.builder,
                &schema::MessageArgs { topic, stamp: message.stamp.as_ref(), sender, payload, trace, sent_to },
            ));
        }
        let messages = Some(self.builder.create_vector(&list));
        let topic = Some(self.builder.create_string(topic));
        let position = schema::Position::from(position);
        let table = schema::HistoryResult::create(
            &mut self.builder,
            &schema::HistoryResultArgs { request, topic, position: Some(&position), messages, more, recovered },
        );
        self.finish(out, Kind::HistoryResult, table);
    }

    /// A Message for its sender's own inbox with everything of `frame`, which went to another user's inbox: only the stamp
    /// is missing. None if `frame` is no Message.
    pub fn copy_for_sender(&mut self, frame: &[u8]) -> Option<Draft> {
        let message = read_message(frame).ok()?;
        let topic = Some(self.builder.create_string(&format!("@{}", message.sender?)));
        let sender = message.sender.map(|sender| self.builder.create_string(sender));
        let payload = message.payload.map(|payload| self.builder.create_vector(payload));
        let trace = message.trace.map(|trace| self.builder.create_string(trace));
        let sent_to = message.topic.map(|sent_to| self.builder.create_string(sent_to));
        let stamp = message.stamp.as_ref();
        let fields = schema::MessageArgs { topic, stamp, sender, payload, trace, sent_to };
        let table = schema::Message::create(&mut self.builder, &fields);
        let mut copy = Vec::new();
        self.finish(&mut copy, Kind::Message, table);
        Draft::of_frame(copy)
    }

    /// Refreshed.
    pub fn refreshed(&mut self, out: &mut Vec<u8>, request: u32, expires_at: u64, expires_in_ms: u64) {
        let table =
            schema::Refreshed::create(&mut self.builder, &schema::RefreshedArgs { request, expires_at, expires_in_ms });
        self.finish(out, Kind::Refreshed, table);
    }

    /// Joined or Left.
    pub fn member_event(&mut self, out: &mut Vec<u8>, joined: bool, room: &str, user: &str, device: &str) {
        let room = Some(self.builder.create_string(room));
        let user = Some(self.builder.create_string(user));
        let device = Some(self.builder.create_string(device));
        if joined {
            let table = schema::Joined::create(&mut self.builder, &schema::JoinedArgs { room, user, device });
            self.finish(out, Kind::Joined, table);
        } else {
            let table = schema::Left::create(&mut self.builder, &schema::LeftArgs { room, user, device });
            self.finish(out, Kind::Left, table);
        }
    }

    /// Goodbye.
    pub fn goodbye(&mut self, out: &mut Vec<u8>, reason: crate::close::CloseReason, text: &str, after_ms: u32) {
        let text = Some(self.builder.create_string(text));
        let table = schema::Goodbye::create(
            &mut self.builder,
            &schema::GoodbyeArgs { code: reason.code(), reason: text, reconnect: reason.may_reconnect(), after_ms },
        );
        self.finish(out, Kind::Goodbye, table);
    }

    /// Connect (clients).
    pub fn connect(&mut self, out: &mut Vec<u8>, fields: &ConnectRequest<'_>) {
        let token = Some(self.builder.create_string(fields.token));
        let device = Some(self.builder.create_string(fields.device));
        let client = Some(self.builder.create_string(fields.client));
        let inbox = fields.inbox.map(schema::Position::from);
        let cursors: Vec<_> = fields
            .rooms
            .iter()
            .map(|cursor| {
                let room = Some(self.builder.create_string(cursor.room));
                let since = cursor.since.map(schema::Position::from);
                let recover = cursor.recover.into();
                schema::RoomCursor::create(
                    &mut self.builder,
                    &schema::RoomCursorArgs { room, since: since.as_ref(), recover },
                )
            })
            .collect();
        let rooms = (!cursors.is_empty()).then(|| self.builder.create_vector(&cursors));
        let table = schema::Connect::create(
            &mut self.builder,
            &schema::ConnectArgs {
                request: fields.request,
                version: if fields.version == 0 { PROTOCOL_VERSION } else { fields.version },
                token,
                device,
                client,
                inbox: inbox.as_ref(),
                rooms,
                ping_interval_ms: fields.ping_interval_ms,
                receive_window: fields.receive_window,
            },
        );
        self.finish(out, Kind::Connect, table);
    }

    /// Publish (clients).
    pub fn publish(&mut self, out: &mut Vec<u8>, fields: &PublishRequest<'_>) {
        let topic = Some(self.builder.create_string(fields.topic));
        let payload = Some(self.builder.create_vector(fields.payload));
        let trace = fields.trace.map(|trace| self.builder.create_string(trace));
        let id = schema::ClientMessageId::from(fields.client_message_id);
        let table = schema::Publish::create(
            &mut self.builder,
            &schema::PublishArgs {
                request: fields.request,
                topic,
                client_message_id: (!fields.client_message_id.is_none()).then_some(&id),
                payload,
                ephemeral: fields.ephemeral,
                ttl_seconds: fields.ttl_seconds,
                trace,
            },
        );
        self.finish(out, Kind::Publish, table);
    }

    /// Ack (clients): a struct, no FlatBuffer around it.
    pub fn ack(out: &mut Vec<u8>, position: Position) {
        let body = schema::Position::from(position);
        append_header(out, Kind::Ack, body.0.len());
        out.extend_from_slice(&body.0);
    }

    /// Subscribe (clients).
    pub fn subscribe(&mut self, out: &mut Vec<u8>, request: u32, cursor: RoomCursor<'_>) {
        let room = Some(self.builder.create_string(cursor.room));
        let (since, recover) = (cursor.since.map(schema::Position::from), cursor.recover.into());
        let table = schema::Subscribe::create(
            &mut self.builder,
            &schema::SubscribeArgs { request, room, since: since.as_ref(), recover },
        );
        self.finish(out, Kind::Subscribe, table);
    }

    /// Unsubscribe (clients).
    pub fn unsubscribe(&mut self, out: &mut Vec<u8>, request: u32, room: &str) {
        let room = Some(self.builder.create_string(room));
        let table = schema::Unsubscribe::create(&mut self.builder, &schema::UnsubscribeArgs { request, room });
        self.finish(out, Kind::Unsubscribe, table);
    }

    /// Presence (clients).
    pub fn presence(&mut self, out: &mut Vec<u8>, request: u32, room: &str, limit: u32) {
        let room = Some(self.builder.create_string(room));
        let table = schema::Presence::create(&mut self.builder, &schema::PresenceArgs { request, room, limit });
        self.finish(out, Kind::Presence, table);
    }

    /// History (clients).
    pub fn history(&mut self, out: &mut Vec<u8>, fields: &HistoryRequest<'_>) {
        let HistoryRequest { request, limit, .. } = *fields;
        let topic = Some(self.builder.create_string(fields.topic));
        let (since, before) = (fields.since.map(Into::into), fields.before.map(Into::into));
        let table = schema::History::create(
            &mut self.builder,
            &schema::HistoryArgs { request, topic, since: since.as_ref(), limit, before: before.as_ref() },
        );
        self.finish(out, Kind::History, table);
    }

    /// Refresh (clients).
    pub fn refresh(&mut self, out: &mut Vec<u8>, request: u32, token: &str) {
        let token = Some(self.builder.create_string(token));
        let table = schema::Refresh::create(&mut self.builder, &schema::RefreshArgs { request, token });
        self.finish(out, Kind::Refresh, table);
    }
}

/// The version of the protocol that is spoken here.
pub const PROTOCOL_VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the body, and memory of the builder after it was built.
    fn built(payload_bytes: usize) -> (usize, usize) {
        let mut encoder = Encoder::default();
        let mut out = Vec::new();
        let payload = vec![0; payload_bytes];
        encoder.publish(&mut out, &PublishRequest { topic: "chat:a", payload: &payload, ..PublishRequest::default() });
        (out.len() - HEADER_BYTES, encoder.builder.collapse().0.len())
    }

    #[test]
    fn a_builder_that_grew_beyond_its_bound_is_not_kept() {
        let beside_payload = built(BUILDER_BYTES_KEPT_MAX).0 - BUILDER_BYTES_KEPT_MAX;
        let (body, memory) = built(BUILDER_BYTES_KEPT_MAX - beside_payload);
        assert_eq!(body, BUILDER_BYTES_KEPT_MAX);
        assert!(memory >= BUILDER_BYTES_KEPT_MAX, "{memory}: at the bound it is kept");
        let (body, memory) = built(BUILDER_BYTES_KEPT_MAX - beside_payload + 8);
        assert!((BUILDER_BYTES_KEPT_MAX + 1..=BUILDER_BYTES_KEPT_MAX + 8).contains(&body));
        assert_eq!(memory, 1024);
    }
}
