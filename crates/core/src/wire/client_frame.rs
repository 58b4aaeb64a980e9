//! Frames from clients: verified, bounded, borrowed views.
//!
//! Bodies are always verified, by `verify`; a Publish by `wire::table`. Each kind is read in the file of its frame.

use super::fields::{OutOfBounds, Parsed};
use super::frames::{Connect, History, Presence, Publish, Refresh, Subscribe, Unsubscribe, parse_ack, parse_empty};
use super::header::{Kind, RawFrame, WireError};
use crate::id::Position;

/// A frame from a client.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the variants are kinds, each of which says what it is in `Kind`")]
pub enum ClientFrame<'a> {
    Connect(Connect<'a>),
    Ping,
    /// Answer to the gateway's Ping.
    Pong,
    Publish(Publish<'a>),
    /// The inbox is kept up to here.
    Ack(Position),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Presence(Presence<'a>),
    History(History<'a>),
    Refresh(Refresh<'a>),
    Disconnect,
    /// A request of any kind that can be read, but not carried out.
    OutOfBounds(OutOfBounds),
}

impl<'a> ClientFrame<'a> {
    /// Reads a frame that came from a client.
    ///
    /// # Errors
    ///
    /// The connection is to be closed: the kind is one that gateways send, the body is too short or malformed, or a field of
    /// Connect is out of bounds.
    pub fn parse(frame: RawFrame<'a>) -> Result<Self, WireError> {
        let body = frame.body;
        match frame.kind {
            Kind::Connect => Connect::parse(body).map(ClientFrame::Connect),
            Kind::Ping => parse_empty(body).map(|()| ClientFrame::Ping),
            Kind::ClientPong => parse_empty(body).map(|()| ClientFrame::Pong),
            Kind::Disconnect => parse_empty(body).map(|()| ClientFrame::Disconnect),
            Kind::Publish => request(Publish::parse(body), ClientFrame::Publish),
            Kind::Ack => parse_ack(body).map(ClientFrame::Ack),
            Kind::Subscribe => request(Subscribe::parse(body), ClientFrame::Subscribe),
            Kind::Unsubscribe => request(Unsubscribe::parse(body), ClientFrame::Unsubscribe),
            Kind::Presence => request(Presence::parse(body), ClientFrame::Presence),
            Kind::History => request(History::parse(body), ClientFrame::History),
            Kind::Refresh => request(Refresh::parse(body), ClientFrame::Refresh),
            Kind::Connected
            | Kind::Pong
            | Kind::Published
            | Kind::Error
            | Kind::Message
            | Kind::Subscribed
            | Kind::Unsubscribed
            | Kind::PresenceResult
            | Kind::HistoryResult
            | Kind::Refreshed
            | Kind::Joined
            | Kind::Left
            | Kind::Goodbye => Err(WireError::WrongDirection),
        }
    }
}

#[inline]
fn request<'a, T>(parsed: Parsed<T>, frame: impl FnOnce(T) -> ClientFrame<'a>) -> Result<ClientFrame<'a>, WireError> {
    Ok(match parsed? {
        Ok(fields) => frame(fields),
        Err(refused) => ClientFrame::OutOfBounds(refused),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fields::TOKEN;
    use crate::wire::header::TABLE_BYTES_MIN;

    /// Every kind whose body is a table.
    const TABLES: [Kind; 7] = [
        Kind::Connect,
        Kind::Publish,
        Kind::Subscribe,
        Kind::Unsubscribe,
        Kind::Presence,
        Kind::History,
        Kind::Refresh,
    ];

    #[test]
    fn a_body_that_is_too_short_for_a_table_is_refused_for_its_length() {
        for kind in TABLES {
            for length in 0..TABLE_BYTES_MIN {
                let parsed = ClientFrame::parse(RawFrame { kind, body: &[0; TABLE_BYTES_MIN][..length] });
                assert_eq!(parsed.err(), Some(WireError::BodyLength), "{kind:?} of {length} bytes");
            }
            let parsed = ClientFrame::parse(RawFrame { kind, body: &[0xff; TABLE_BYTES_MIN] });
            assert_eq!(parsed.err(), Some(WireError::Malformed), "{kind:?}");
        }
    }

    #[test]
    fn the_shortest_table_is_read() {
        // The root is at 4 and its vtable at 0: the root's offset is the vtable's length, too. There is no field in it.
        let body = &[4, 0, 0, 0, 4, 0, 0, 0];
        for kind in TABLES {
            match (kind, ClientFrame::parse(RawFrame { kind, body })) {
                (Kind::Connect, Err(error)) => assert_eq!(error, WireError::Field(TOKEN)),
                (_, Ok(ClientFrame::OutOfBounds(OutOfBounds { request: 0, .. }))) => {}
                (_, other) => panic!("{kind:?} without a name or token: {other:?}"),
            }
        }
    }
}
