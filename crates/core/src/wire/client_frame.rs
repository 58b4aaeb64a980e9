//! Frames from clients: verified, bounded, borrowed views.
//!
//! Bodies are always verified (a Publish by `wire::table`), with limits that keep the worst frame at microseconds: FlatBuffers' own defaults let a
//! 1.2 KB frame burn 55 ms.

use flatbuffers::{Follow, Verifiable, VerifierOptions};

use super::header::{Kind, RawFrame, WireError};
use super::table::Table;
use super::{is_name, schema};
use crate::id::{ClientMessageId, Position, Recover};
use crate::limits::{CONNECT_ROOMS_MAX, NAME_BYTES_MAX, TOKEN_BYTES_MAX, TRACE_BYTES_MAX};

/// A frame from a client.
#[derive(Clone, Copy, Debug)]
pub enum ClientFrame<'a> {
    /// Sign in.
    Connect(Connect<'a>),
    /// Heartbeat.
    Ping,
    /// Answer to the gateway's Ping.
    Pong,
    /// Send a message.
    Publish(Publish<'a>),
    /// The inbox is kept up to here.
    Ack(Position),
    /// Join a room.
    Subscribe {
        /// Echoed in the answer.
        request: u32,
        /// Checked name.
        room: &'a str,
        /// Bring everything after this.
        since: Option<Position>,
        /// What to bring when the log does not reach back to `since`.
        recover: Recover,
    },
    /// Leave a room.
    Unsubscribe {
        /// Echoed in the answer.
        request: u32,
        /// Checked name.
        room: &'a str,
    },
    /// Who is there?
    Presence {
        /// Echoed in the answer.
        request: u32,
        /// Checked name.
        room: &'a str,
        /// Most members to list.
        limit: u32,
    },
    /// What was said?
    History {
        /// Echoed in the answer.
        request: u32,
        /// Checked name, with its `@` for an inbox.
        topic: &'a str,
        /// After this, oldest first.
        since: Option<Position>,
        /// The newest before this. Without both: the newest.
        before: Option<Position>,
        /// Most messages to list.
        limit: u32,
    },
    /// A newer token.
    Refresh {
        /// Echoed in the answer.
        request: u32,
        /// Unverified.
        token: &'a str,
    },
    /// The client leaves.
    Disconnect,
    /// A request that can be read, but not carried out: a field is missing or out of bounds.
    OutOfBounds {
        /// Echoed in the answer.
        request: u32,
        /// The field's name, a colon, and what it may hold.
        problem: &'static str,
    },
}

/// The fields of Connect.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// Echoed in the answer.
    pub request: u32,
    /// Protocol version.
    pub version: u16,
    /// Unverified token, not empty.
    pub token: &'a str,
    /// Device name; `default` when the client gave none.
    pub device: &'a str,
    /// Client program, possibly empty.
    pub client: &'a str,
    /// Where the inbox is to go on.
    pub inbox: Option<Position>,
    /// Rooms to subscribe to.
    pub rooms: RoomCursors<'a>,
    /// The ping interval that the client wishes; 0 for the gateway's own.
    pub ping_interval_ms: u32,
    /// Unacknowledged inbox messages that the client wishes to be sent at most; 0 for the gateway's own bound.
    pub receive_window: u32,
}

/// A room of a Connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomCursor<'a> {
    /// Checked name.
    pub room: &'a str,
    /// Bring everything after this.
    pub since: Option<Position>,
    /// What to bring when the log does not reach back to `since`.
    pub recover: Recover,
}

impl<'a> From<(&'a str, Option<Position>)> for RoomCursor<'a> {
    fn from((room, since): (&'a str, Option<Position>)) -> Self {
        RoomCursor { room, since, recover: Recover::Exact }
    }
}

/// Rooms of a Connect: every field was checked.
#[derive(Clone, Copy, Debug)]
pub struct RoomCursors<'a>(Option<flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<schema::RoomCursor<'a>>>>);

impl<'a> RoomCursors<'a> {
    /// In the client's order.
    pub fn iter(self) -> impl Iterator<Item = RoomCursor<'a>> {
        self.0.into_iter().flatten().map(|cursor| RoomCursor {
            room: cursor.room().unwrap_or_default(),
            since: cursor.since().map(Position::from),
            recover: recover(cursor.recover()).unwrap_or_default(),
        })
    }
}

/// The fields of Publish.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Echoed in the answer.
    pub request: u32,
    /// Checked name of a room, or `@user`.
    pub topic: &'a str,
    /// For deduplication.
    pub client_message_id: ClientMessageId,
    /// Opaque bytes; their number is judged by the session's limit.
    pub payload: &'a [u8],
    /// Skip the log.
    pub ephemeral: bool,
    /// Seconds in the log; 0 for the topic's own limit.
    pub ttl_seconds: u32,
    /// Carried into Message.
    pub trace: Option<&'a str>,
}

impl<'a> ClientFrame<'a> {
    /// Reads a frame that came from a client.
    pub fn parse(frame: RawFrame<'a>) -> Result<Self, WireError> {
        let body = frame.body;
        match frame.kind {
            Kind::Connect => parse_connect(body),
            Kind::Ping => empty(body).map(|()| ClientFrame::Ping),
            Kind::ClientPong => empty(body).map(|()| ClientFrame::Pong),
            Kind::Disconnect => empty(body).map(|()| ClientFrame::Disconnect),
            Kind::Publish => parse_publish(body),
            Kind::Ack => {
                let bytes: [u8; 16] = body.try_into().map_err(|_| WireError::BodyLength)?;
                Ok(ClientFrame::Ack(Position::from(&schema::Position(bytes))))
            }
            Kind::Subscribe => {
                let table: schema::Subscribe<'a> = root(body, TABLES_MAX)?;
                let request = table.request();
                Ok(match (name(table.room()), recover(table.recover())) {
                    (None, _) => ClientFrame::OutOfBounds { request, problem: ROOM },
                    (_, None) => ClientFrame::OutOfBounds { request, problem: RECOVER },
                    (Some(room), Some(recover)) => {
                        ClientFrame::Subscribe { request, room, since: table.since().map(Position::from), recover }
                    }
                })
            }
            Kind::Unsubscribe => {
                let table: schema::Unsubscribe<'a> = root(body, TABLES_MAX)?;
                let request = table.request();
                Ok(match name(table.room()) {
                    None => ClientFrame::OutOfBounds { request, problem: ROOM },
                    Some(room) => ClientFrame::Unsubscribe { request, room },
                })
            }
            Kind::Presence => {
                let table: schema::Presence<'a> = root(body, TABLES_MAX)?;
                let request = table.request();
                Ok(match name(table.room()) {
                    None => ClientFrame::OutOfBounds { request, problem: ROOM },
                    Some(room) => ClientFrame::Presence { request, room, limit: table.limit() },
                })
            }
            Kind::History => {
                let table: schema::History<'a> = root(body, TABLES_MAX)?;
                let request = table.request();
                let (since, before) = (table.since().map(Position::from), table.before().map(Position::from));
                Ok(match topic(table.topic()) {
                    None => ClientFrame::OutOfBounds { request, problem: TOPIC },
                    Some(_) if since.is_some() && before.is_some() => {
                        ClientFrame::OutOfBounds { request, problem: BEFORE }
                    }
                    Some(topic) => ClientFrame::History { request, topic, since, before, limit: table.limit() },
                })
            }
            Kind::Refresh => {
                let table: schema::Refresh<'a> = root(body, TABLES_MAX)?;
                let request = table.request();
                Ok(match token(table.token()) {
                    None => ClientFrame::OutOfBounds { request, problem: TOKEN },
                    Some(token) => ClientFrame::Refresh { request, token },
                })
            }
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

fn parse_connect(body: &[u8]) -> Result<ClientFrame<'_>, WireError> {
    let table: schema::Connect<'_> = root(body, CONNECT_TABLES_MAX)?;
    let token = token(table.token()).ok_or(WireError::Field(TOKEN))?;
    let device = match table.device() {
        None | Some("") => "default",
        device => name(device).ok_or(WireError::Field(DEVICE))?,
    };
    let client = table.client().unwrap_or_default();
    if client.len() > NAME_BYTES_MAX || client.chars().any(char::is_control) {
        return Err(WireError::Field(CLIENT));
    }
    let rooms = table.rooms();
    if let Some(rooms) = rooms {
        if rooms.len() > CONNECT_ROOMS_MAX {
            return Err(WireError::Field(ROOMS));
        }
        for cursor in rooms {
            name(cursor.room()).ok_or(WireError::Field(ROOMS_ROOM))?;
            recover(cursor.recover()).ok_or(WireError::Field(ROOMS_RECOVER))?;
        }
    }
    Ok(ClientFrame::Connect(Connect {
        request: table.request(),
        version: table.version(),
        token,
        device,
        client,
        inbox: table.inbox().map(Position::from),
        rooms: RoomCursors(rooms),
        ping_interval_ms: table.ping_interval_ms(),
        receive_window: table.receive_window(),
    }))
}

fn parse_publish(body: &[u8]) -> Result<ClientFrame<'_>, WireError> {
    type Fields<'a> = schema::Publish<'a>;
    if body.len() < BODY_BYTES_MIN {
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
    let is_trace = |trace: &str| trace.len() <= TRACE_BYTES_MAX && trace.bytes().all(|byte| byte.is_ascii_graphic());
    let problem = match topic(Some(publish.topic)) {
        None => TOPIC,
        Some(_) if !publish.trace.is_none_or(is_trace) => TRACE,
        Some(_) => return Ok(ClientFrame::Publish(publish)),
    };
    Ok(ClientFrame::OutOfBounds { request: publish.request, problem })
}

/// What an answer says of a field that is out of bounds: its name first. Bounds are those of `limits`.
const ROOM: &str = "room: must have 1 to 128 bytes without control characters and blanks, with a visible character";
const TOPIC: &str = "topic: must be @ and a user, or a room, of 1 to 128 bytes without control characters and blanks, with a \
                     visible character";
const TRACE: &str = "trace: must have at most 64 printable ASCII characters without blanks";
const TOKEN: &str = "token: must have 1 to 8192 bytes";
const RECOVER: &str = "recover: must be 0 (exact) or 1 (best)";
const BEFORE: &str = "before: must not stand beside since";
const DEVICE: &str = "device: must have 1 to 128 bytes without control characters and blanks, with a visible character";
const CLIENT: &str = "client: must have at most 128 bytes without control characters";
const ROOMS: &str = "rooms: must be at most 128";
const ROOMS_ROOM: &str =
    "rooms.room: must have 1 to 128 bytes without control characters and blanks, with a visible character";
const ROOMS_RECOVER: &str = "rooms.recover: must be 0 (exact) or 1 (best)";

const _: () = assert!(NAME_BYTES_MAX == 128 && TRACE_BYTES_MAX == 64);
const _: () = assert!(TOKEN_BYTES_MAX == 8192 && CONNECT_ROOMS_MAX == 128);

/// A body with a table has at least so many.
const BODY_BYTES_MIN: usize = 8;
/// Tables that one frame may hold; the bound that keeps bombs cheap.
const TABLES_MAX: usize = 64;
/// The same for Connect: itself and its rooms, with room for fields of newer versions.
const CONNECT_TABLES_MAX: usize = CONNECT_ROOMS_MAX + 64;

/// Verifies the body as one FlatBuffer. Work is bounded by the body's length, see `crates/core/tests/vectors/bombs.rs`.
fn root<'a, T: Follow<'a, Inner = T> + Verifiable + 'a>(body: &'a [u8], tables_max: usize) -> Result<T, WireError> {
    if body.len() < BODY_BYTES_MIN {
        return Err(WireError::BodyLength);
    }
    let options = VerifierOptions {
        max_depth: 8,
        max_tables: tables_max,
        max_apparent_size: 2 * body.len() + 1024,
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, body).map_err(|_| WireError::Malformed)
}

fn empty(body: &[u8]) -> Result<(), WireError> {
    if body.is_empty() { Ok(()) } else { Err(WireError::BodyLength) }
}

fn name(value: Option<&str>) -> Option<&str> {
    value.filter(|name| is_name(name))
}

/// A room, or `@` and a user; the `@` does not count against the user's length.
fn topic(value: Option<&str>) -> Option<&str> {
    value.filter(|topic| is_name(topic.strip_prefix('@').unwrap_or(topic)))
}

fn token(value: Option<&str>) -> Option<&str> {
    value.filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX)
}

fn recover(value: schema::Recover) -> Option<Recover> {
    match value {
        schema::Recover::Exact => Some(Recover::Exact),
        schema::Recover::Best => Some(Recover::Best),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            for length in 0..BODY_BYTES_MIN {
                let parsed = ClientFrame::parse(RawFrame { kind, body: &[0; BODY_BYTES_MIN][..length] });
                assert_eq!(parsed.err(), Some(WireError::BodyLength), "{kind:?} of {length} bytes");
            }
            let parsed = ClientFrame::parse(RawFrame { kind, body: &[0xff; BODY_BYTES_MIN] });
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
                (_, Ok(ClientFrame::OutOfBounds { request: 0, .. })) => {}
                (_, other) => panic!("{kind:?} without a name or token: {other:?}"),
            }
        }
    }
}
