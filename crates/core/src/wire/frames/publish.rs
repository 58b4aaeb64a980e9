//! Publish, a message to a user or a room, and its answer Published.
//!
//! The hottest request: it is read by [`Table`] in one pass, and Published is a struct, without a FlatBuffer around it.

use crate::id::{ClientMessageId, Durability, Stamp};
use crate::limits::TRACE_BYTES_MAX;
use crate::wire::encoder::Encoder;
use crate::wire::fields::{OutOfBounds, Parsed, TOPIC, topic};
use crate::wire::header::{Kind, TABLE_BYTES_MIN, WireError, append_header};
use crate::wire::schema;
use crate::wire::table::Table;

/// The fields of Publish.
#[derive(Clone, Copy, Debug, Default)]
pub struct Publish<'a> {
    /// Echoed in the answer; 0 if none is wanted.
    pub request: u32,
    /// Name of a room, or `@user`; a checked one, if the frame was parsed.
    pub topic: &'a str,
    /// For deduplication.
    pub client_message_id: ClientMessageId,
    /// Opaque bytes; their number is judged by the session's limit.
    pub payload: &'a [u8],
    /// Skip the log.
    pub ephemeral: bool,
    /// Seconds in the log; 0 for the topic's own limit.
    pub ttl_seconds: u32,
    /// Carried into Message; at most 64 printable ASCII characters without blanks.
    pub trace: Option<&'a str>,
}

/// The content of Published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The client's own id.
    pub client_message_id: ClientMessageId,
    /// What the home gave the message.
    pub stamp: Stamp,
    /// The request that this answers.
    pub request: u32,
    /// 0 ephemeral, 1 memory, 2 durable.
    pub durability: u8,
    /// Answered before; nothing new was stored.
    pub duplicate: bool,
}

const TRACE: &str = "trace: must have at most 64 printable ASCII characters without blanks";
const _: () = assert!(TRACE_BYTES_MAX == 64);

impl<'a> Publish<'a> {
    #[inline]
    pub(in crate::wire) fn parse(body: &'a [u8]) -> Parsed<Self> {
        type Fields<'a> = schema::Publish<'a>;
        if body.len() < TABLE_BYTES_MIN {
            return Err(WireError::BodyLength);
        }
        let table = Table::root(body)?;
        let id = table.structure(Fields::VT_CLIENT_MESSAGE_ID)?.map(schema::ClientMessageId);
        let publish = Publish {
            request: table.u32(Fields::VT_REQUEST)?,
            topic: table.string(Fields::VT_TOPIC)?.unwrap_or_default(),
            client_message_id: id.as_ref().map(ClientMessageId::from).unwrap_or_default(),
            payload: table.bytes(Fields::VT_PAYLOAD)?.unwrap_or_default(),
            ephemeral: table.bool(Fields::VT_EPHEMERAL)?,
            ttl_seconds: table.u32(Fields::VT_TTL_SECONDS)?,
            trace: table.string(Fields::VT_TRACE)?,
        };
        let is_trace =
            |trace: &str| trace.len() <= TRACE_BYTES_MAX && trace.bytes().all(|byte| byte.is_ascii_graphic());
        let problem = match topic(Some(publish.topic)) {
            None => TOPIC,
            Some(_) if !publish.trace.is_none_or(is_trace) => TRACE,
            Some(_) => return Ok(Ok(publish)),
        };
        Ok(Err(OutOfBounds { request: publish.request, problem }))
    }
}

impl Published {
    #[inline]
    pub(in crate::wire) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let bytes: [u8; size_of::<schema::Published>()] = body.try_into().map_err(|_| WireError::BodyLength)?;
        let published = schema::Published(bytes);
        Ok(Published {
            client_message_id: published.client_message_id().into(),
            stamp: published.stamp().into(),
            request: published.request(),
            durability: published.durability().0,
            duplicate: published.duplicate(),
        })
    }
}

impl Encoder {
    /// Publish (clients).
    pub fn publish(&mut self, out: &mut Vec<u8>, fields: &Publish<'_>) {
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
}
