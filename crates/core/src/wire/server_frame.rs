//! Frames from the gateway, as clients (the command-line client, the load tester, tests) read them.

use super::frames::{Published, parse_empty};
use super::header::{Kind, RawFrame, WireError};
use super::schema;
use super::verify::of_gateway;

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

impl<'a> ServerFrame<'a> {
    /// Reads a frame that came from a gateway.
    pub fn parse(frame: RawFrame<'a>) -> Result<Self, WireError> {
        let body = frame.body;
        Ok(match frame.kind {
            Kind::Ping => parse_empty(body).map(|()| ServerFrame::Ping)?,
            Kind::Pong => parse_empty(body).map(|()| ServerFrame::Pong)?,
            Kind::Published => ServerFrame::Published(Published::parse(body)?),
            Kind::Connected => ServerFrame::Connected(of_gateway(body)?),
            Kind::Error => ServerFrame::Error(of_gateway(body)?),
            Kind::Message => ServerFrame::Message(of_gateway(body)?),
            Kind::Subscribed => ServerFrame::Subscribed(of_gateway(body)?),
            Kind::Unsubscribed => ServerFrame::Unsubscribed(of_gateway(body)?),
            Kind::PresenceResult => ServerFrame::PresenceResult(of_gateway(body)?),
            Kind::HistoryResult => ServerFrame::HistoryResult(of_gateway(body)?),
            Kind::Refreshed => ServerFrame::Refreshed(of_gateway(body)?),
            Kind::Joined => ServerFrame::Joined(of_gateway(body)?),
            Kind::Left => ServerFrame::Left(of_gateway(body)?),
            Kind::Goodbye => ServerFrame::Goodbye(of_gateway(body)?),
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
