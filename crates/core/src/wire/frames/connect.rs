//! Connect, a client's first frame, and its answer Connected.
//!
//! A field of Connect that is missing or out of bounds closes the connection: nobody is signed in yet who could be answered.

use crate::id::{Position, Recover};
use crate::limits::{CONNECT_ROOMS_MAX, NAME_BYTES_MAX};
use crate::wire::encoder::Encoder;
use crate::wire::fields::{TOKEN, name, recover, token};
use crate::wire::header::{Kind, WireError};
use crate::wire::{schema, verify};

/// The version of the protocol that is spoken here.
pub const PROTOCOL_VERSION: u16 = 1;

/// The fields of Connect, as a gateway reads them.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// Echoed in the answer.
    pub request: u32,
    /// Protocol version.
    pub version: u16,
    /// Not verified yet; 1 to 8192 bytes.
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
    /// Checked name, if the frame was parsed.
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

/// What [`Encoder::connect`] needs. A `version` of 0 stands for [`PROTOCOL_VERSION`].
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

const DEVICE: &str = "device: must have 1 to 128 bytes without control characters and blanks, with a visible character";
const CLIENT: &str = "client: must have at most 128 bytes without control characters";
const ROOMS: &str = "rooms: must be at most 128";
const ROOMS_ROOM: &str =
    "rooms.room: must have 1 to 128 bytes without control characters and blanks, with a visible character";
const ROOMS_RECOVER: &str = "rooms.recover: must be 0 (exact) or 1 (best)";
const _: () = assert!(NAME_BYTES_MAX == 128 && CONNECT_ROOMS_MAX == 128);

/// Itself and its rooms, with room for fields of newer versions.
const TABLES_MAX: usize = CONNECT_ROOMS_MAX + verify::TABLES_MAX;

impl<'a> Connect<'a> {
    #[inline]
    pub(in crate::wire) fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let table: schema::Connect<'a> = verify::of_client(body, TABLES_MAX)?;
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
        Ok(Connect {
            request: table.request(),
            version: table.version(),
            token,
            device,
            client,
            inbox: table.inbox().map(Position::from),
            rooms: RoomCursors(rooms),
            ping_interval_ms: table.ping_interval_ms(),
            receive_window: table.receive_window(),
        })
    }
}

impl Encoder {
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
}
