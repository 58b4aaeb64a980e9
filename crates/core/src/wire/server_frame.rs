//! Frames from the gateway, as clients (the command-line client, the load tester, tests) read them.

use flatbuffers::{Follow, Verifiable, VerifierOptions};

use super::header::{Kind, RawFrame, WireError};
use super::schema;
use crate::id::{ClientMessageId, Stamp};

/// A frame from the gateway. Tables are the generated views; every field of them may be absent.
#[derive(Clone, Copy, Debug)]
pub enum ServerFrame<'a> {
    /// Answer to Connect.
    Connected(schema::Connected<'a>),
    /// The gateway asks; answer with kind 11.
    Ping,
    /// Answer to Ping.
    Pong,
    /// Answer to Publish.
    Published(Published),
    /// Refusal.
    Error(schema::Error<'a>),
    /// A message.
    Message(schema::Message<'a>),
    /// Answer to Subscribe.
    Subscribed(schema::Subscribed<'a>),
    /// Answer to Unsubscribe.
    Unsubscribed(schema::Unsubscribed<'a>),
    /// Answer to Presence.
    PresenceResult(schema::PresenceResult<'a>),
    /// Answer to History.
    HistoryResult(schema::HistoryResult<'a>),
    /// Answer to Refresh.
    Refreshed(schema::Refreshed<'a>),
    /// Somebody came.
    Joined(schema::Joined<'a>),
    /// Somebody left.
    Left(schema::Left<'a>),
    /// The end.
    Goodbye(schema::Goodbye<'a>),
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

/// Bytes of a Published body.
pub const PUBLISHED_BYTES: usize = size_of::<schema::Published>();

impl<'a> ServerFrame<'a> {
    /// Reads a frame that came from a gateway.
    pub fn parse(frame: RawFrame<'a>) -> Result<Self, WireError> {
        let body = frame.body;
        Ok(match frame.kind {
            Kind::Ping if body.is_empty() => ServerFrame::Ping,
            Kind::Pong if body.is_empty() => ServerFrame::Pong,
            Kind::Ping | Kind::Pong => return Err(WireError::BodyLength),
            Kind::Published => {
                let bytes: [u8; PUBLISHED_BYTES] = body.try_into().map_err(|_| WireError::BodyLength)?;
                let published = schema::Published(bytes);
                ServerFrame::Published(Published {
                    client_message_id: published.client_message_id().into(),
                    stamp: published.stamp().into(),
                    request: published.request(),
                    durability: published.durability().0,
                    duplicate: published.duplicate(),
                })
            }
            Kind::Connected => ServerFrame::Connected(root(body)?),
            Kind::Error => ServerFrame::Error(root(body)?),
            Kind::Message => ServerFrame::Message(root(body)?),
            Kind::Subscribed => ServerFrame::Subscribed(root(body)?),
            Kind::Unsubscribed => ServerFrame::Unsubscribed(root(body)?),
            Kind::PresenceResult => ServerFrame::PresenceResult(root(body)?),
            Kind::HistoryResult => ServerFrame::HistoryResult(root(body)?),
            Kind::Refreshed => ServerFrame::Refreshed(root(body)?),
            Kind::Joined => ServerFrame::Joined(root(body)?),
            Kind::Left => ServerFrame::Left(root(body)?),
            Kind::Goodbye => ServerFrame::Goodbye(root(body)?),
            Kind::Connect
            | Kind::Publish
            | Kind::Ack
            | Kind::Subscribe
            | Kind::Unsubscribe
            | Kind::Presence
            | Kind::History
            | Kind::Refresh
            | Kind::Disconnect
            | Kind::ClientPong => return Err(WireError::WrongDirection),
        })
    }
}

/// What docs/protocol.md asks every client to allow for strings that are shared.
const SHARED_BYTES_MAX: usize = 16 << 20;

fn root<'a, T: Follow<'a, Inner = T> + Verifiable + 'a>(body: &'a [u8]) -> Result<T, WireError> {
    // A gateway may list many members or messages, and shares the strings that they have in common, which count once
    // for each reference: it is trusted further than a client, but not without end.
    let options = VerifierOptions {
        max_depth: 8,
        max_tables: 4096,
        max_apparent_size: SHARED_BYTES_MAX + 2 * body.len(),
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, body).map_err(|_| WireError::Malformed)
}
