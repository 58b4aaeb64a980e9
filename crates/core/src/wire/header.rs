//! The eight-byte header and the cutting of a byte stream into frames.
//!
//! [`split`] looks at bytes where they are and copies nothing: an incomplete frame is a value, a malformed one an
//! error that closes one connection.

use super::schema;
use crate::close::CloseReason;
use crate::limits::{CONNECT_BODY_BYTES_MAX, HEADER_BYTES};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal,)*) => {
        /// What a frame is; chooses the body.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $variant = $number,)* }

        impl Kind {
            /// Every kind, in order of their numbers.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)*];

            /// The kind with this number.
            pub fn from_number(number: u8) -> Option<Kind> {
                match number { $($number => Some(Kind::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// First frame of a client.
    Connect = 1,
    /// "Are you there?", either way; empty.
    Ping = 2,
    /// A message to a user or a room.
    Publish = 3,
    /// Everything in the inbox up to this position is kept.
    Ack = 4,
    /// Join a room.
    Subscribe = 5,
    /// Leave a room.
    Unsubscribe = 6,
    /// Who is in a room?
    Presence = 7,
    /// What was said in a topic?
    History = 8,
    /// A newer token.
    Refresh = 9,
    /// The client leaves; empty.
    Disconnect = 10,
    /// Answer of a client to the gateway's Ping; empty.
    ClientPong = 11,
    /// Answer to Connect.
    Connected = 128,
    /// Answer to Ping; empty.
    Pong = 129,
    /// Answer to Publish.
    Published = 130,
    /// Refusal of a request.
    Error = 131,
    /// A message of a topic.
    Message = 132,
    /// Answer to Subscribe.
    Subscribed = 133,
    /// Answer to Unsubscribe.
    Unsubscribed = 134,
    /// Answer to Presence.
    PresenceResult = 135,
    /// Answer to History.
    HistoryResult = 136,
    /// Answer to Refresh.
    Refreshed = 137,
    /// Somebody came into a room.
    Joined = 138,
    /// Somebody left a room.
    Left = 139,
    /// The gateway closes the connection.
    Goodbye = 140,
}

/// Which of the three bodies a kind has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// None.
    Empty,
    /// The bytes of a struct: so many.
    Struct(usize),
    /// One FlatBuffer.
    Table,
}

/// A body with a table has at least so many bytes.
pub(super) const TABLE_BYTES_MIN: usize = 8;

impl Body {
    fn may_have(self, bytes: usize) -> bool {
        match self {
            Body::Empty => bytes == 0,
            Body::Struct(size) => bytes == size,
            Body::Table => bytes >= TABLE_BYTES_MIN,
        }
    }
}

impl Kind {
    /// What stands behind its header.
    pub fn body(self) -> Body {
        match self {
            Kind::Ping | Kind::Disconnect | Kind::ClientPong | Kind::Pong => Body::Empty,
            Kind::Ack => Body::Struct(size_of::<schema::Position>()),
            Kind::Published => Body::Struct(size_of::<schema::Published>()),
            Kind::Connect
            | Kind::Publish
            | Kind::Subscribe
            | Kind::Unsubscribe
            | Kind::Presence
            | Kind::History
            | Kind::Refresh
            | Kind::Connected
            | Kind::Error
            | Kind::Message
            | Kind::Subscribed
            | Kind::Unsubscribed
            | Kind::PresenceResult
            | Kind::HistoryResult
            | Kind::Refreshed
            | Kind::Joined
            | Kind::Left
            | Kind::Goodbye => Body::Table,
        }
    }

    /// Whether clients send it.
    pub fn is_of_clients(self) -> bool {
        (self as u8) < Kind::Connected as u8
    }
}

/// Why bytes are not a frame. The connection that sent them is closed with [`WireError::close_reason`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireError {
    /// The announced body is longer than the limit.
    TooBig,
    /// No kind has this number.
    UnknownKind,
    /// Flags or reserved bits are not zero.
    ReservedBits,
    /// A struct or empty body of another length, or a table body shorter than any table.
    BodyLength,
    /// No FlatBuffer of its kind.
    Malformed,
    /// A field of Connect is missing or out of bounds: its name, and what it may hold.
    Field(&'static str),
    /// Something else than Connect came first.
    NotConnect,
    /// The frame is for the other direction.
    WrongDirection,
}

impl WireError {
    /// The close code for a client that sent it.
    pub fn close_reason(self) -> CloseReason {
        match self {
            WireError::TooBig => CloseReason::FrameTooBig,
            _ => CloseReason::BadRequest,
        }
    }

    /// What a log line and Goodbye say.
    pub fn label(self) -> &'static str {
        match self {
            WireError::TooBig => "frame too big",
            WireError::UnknownKind => "unknown frame kind",
            WireError::ReservedBits => "flags or reserved bits are not zero",
            WireError::BodyLength => "wrong body length for this kind",
            WireError::Malformed => "malformed body",
            WireError::Field(problem) => problem,
            WireError::NotConnect => "a frame before Connect",
            WireError::WrongDirection => "this kind is sent by gateways only",
        }
    }
}

/// What speaks instead of a client, as far as the first bytes of a connection tell.
pub fn other_protocol(first: &[u8; HEADER_BYTES]) -> Option<&'static str> {
    const METHODS: [&[u8]; 10] =
        [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE ", b"PRI * "];
    match first {
        [0x16, 3, 0..=4, ..] => Some("a TLS ClientHello on the plain port"),
        [b'P', b'R', b'O', b'X', b'Y', b' ', ..] | b"\r\n\r\n\0\r\nQ" => Some("a PROXY protocol header"),
        _ if METHODS.iter().any(|method| first.starts_with(method)) => Some("an HTTP request"),
        _ => None,
    }
}

/// A whole frame, borrowed from the stream.
#[derive(Clone, Copy, Debug)]
pub struct RawFrame<'a> {
    /// What the header says it is.
    pub kind: Kind,
    /// The bytes after the header.
    pub body: &'a [u8],
}

/// What stands at the front of a stream.
#[derive(Clone, Copy, Debug)]
pub enum Split<'a> {
    /// A whole frame, and the bytes behind it.
    Frame(RawFrame<'a>, &'a [u8]),
    /// Not yet: the frame (or, below eight bytes, the header) will be whole at this many bytes.
    Incomplete(usize),
}

/// Cuts the first frame off a stream. The header is judged as soon as it is there.
pub fn split(bytes: &[u8], body_bytes_max: usize) -> Result<Split<'_>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Split::Incomplete(HEADER_BYTES));
    };
    let [l0, l1, l2, l3, kind, flags, r0, r1] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    // First, whatever the rest says: a peer that announces too much is told so.
    if length > body_bytes_max {
        return Err(WireError::TooBig);
    }
    if flags != 0 || r0 != 0 || r1 != 0 {
        return Err(WireError::ReservedBits);
    }
    let kind = Kind::from_number(kind).ok_or(WireError::UnknownKind)?;
    if !kind.body().may_have(length) {
        return Err(WireError::BodyLength);
    }
    match rest.split_at_checked(length) {
        Some((body, rest)) => Ok(Split::Frame(RawFrame { kind, body }, rest)),
        None => Ok(Split::Incomplete(HEADER_BYTES + length)),
    }
}

/// The kind that a stream begins with; none before the whole header is there.
fn kind_of(bytes: &[u8]) -> Option<Kind> {
    bytes.get(4).copied().filter(|_| bytes.len() >= HEADER_BYTES).and_then(Kind::from_number)
}

/// [`split`] for what a client sends: a kind of gateways is refused by its header.
pub fn split_of_client(bytes: &[u8], body_bytes_max: usize) -> Result<Split<'_>, WireError> {
    let split = split(bytes, body_bytes_max)?;
    if kind_of(bytes).is_some_and(|kind| !kind.is_of_clients()) {
        return Err(WireError::WrongDirection);
    }
    Ok(split)
}

/// [`split_of_client`] for the first frame of a connection: a Connect, or a Disconnect. Whatever other frames may hold, this
/// one is no longer than a Connect can be.
pub fn split_first_of_client(bytes: &[u8]) -> Result<Split<'_>, WireError> {
    let split = split_of_client(bytes, CONNECT_BODY_BYTES_MAX)?;
    if kind_of(bytes).is_some_and(|kind| !matches!(kind, Kind::Connect | Kind::Disconnect)) {
        return Err(WireError::NotConnect);
    }
    Ok(split)
}

/// Appends the header of a frame whose body has this many bytes.
pub fn append_header(out: &mut Vec<u8>, kind: Kind, body_bytes: usize) {
    out.extend_from_slice(&header(kind, body_bytes));
}

/// The header of a frame whose body has this many bytes: their number comes first. We build bodies, far below 4 GiB.
pub(super) const fn header(kind: Kind, body_bytes: usize) -> [u8; HEADER_BYTES] {
    let length = (body_bytes as u32).to_le_bytes();
    [length[0], length[1], length[2], length[3], kind as u8, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_frames_and_names_what_is_missing() {
        let mut bytes = Vec::new();
        append_header(&mut bytes, Kind::Ping, 0);
        append_header(&mut bytes, Kind::Publish, 11);
        bytes.extend_from_slice(b"hello world");
        let Ok(Split::Frame(ping, rest)) = split(&bytes, 100) else { panic!("a whole Ping") };
        assert_eq!((ping.kind, ping.body.len(), rest.len()), (Kind::Ping, 0, 19));
        let Ok(Split::Frame(publish, [])) = split(rest, 100) else { panic!("a whole Publish") };
        assert_eq!(publish.body, b"hello world");
        for cut in 0..8 {
            assert!(matches!(split(&rest[..cut], 100), Ok(Split::Incomplete(8))));
        }
        assert!(matches!(split(&rest[..8], 100), Ok(Split::Incomplete(19))));
    }

    #[test]
    fn refuses_bad_headers_before_any_body() {
        assert_eq!(split(&[0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0], 100).unwrap_err(), WireError::TooBig);
        assert_eq!(split(&[0, 0, 0, 0, 77, 0, 0, 0], 100).unwrap_err(), WireError::UnknownKind);
        assert_eq!(split(&[0, 0, 0, 0, 2, 1, 0, 0], 100).unwrap_err(), WireError::ReservedBits);
        assert_eq!(split(&[0, 0, 0, 0, 2, 0, 0, 1], 100).unwrap_err(), WireError::ReservedBits);
        // Too long comes before everything else.
        assert_eq!(split(&[101, 0, 0, 0, 77, 1, 0, 1], 100).unwrap_err(), WireError::TooBig);
        for (kind, length) in
            [(Kind::Ping, 1), (Kind::Ack, 15), (Kind::Ack, 17), (Kind::Published, 55), (Kind::Publish, 7)]
        {
            let header = [length, 0, 0, 0, kind as u8, 0, 0, 0];
            assert_eq!(split(&header, 100).unwrap_err(), WireError::BodyLength, "{kind:?} of {length}");
        }
        assert!(split(&[16, 0, 0, 0, Kind::Ack as u8, 0, 0, 0], 100).is_ok());
        assert_eq!(split_of_client(&[0, 0, 0, 0, 129, 0, 0, 0], 100).unwrap_err(), WireError::WrongDirection);
        assert_eq!(split_of_client(&[50, 0, 0, 0, 132, 0, 0, 0], 100).unwrap_err(), WireError::WrongDirection);
        assert!(matches!(split_of_client(&[50, 0, 0, 0, 132], 100), Ok(Split::Incomplete(8))));
    }

    #[test]
    fn other_protocols_are_known_by_their_first_bytes() {
        let named = |first: &[u8; HEADER_BYTES]| other_protocol(first).unwrap_or_default();
        assert!(named(b"\x16\x03\x01\x02\x00\x01\x00\x01").contains("TLS"));
        assert!(named(b"GET / HT").contains("HTTP") && named(b"PRI * HT").contains("HTTP"));
        assert!(named(b"PROXY TC").contains("PROXY") && named(b"\r\n\r\n\0\r\nQ").contains("PROXY"));
        for other in [b"\x24\0\0\0\x01\0\0\0", b"\x16\x03\x05\0\0\0\0\0", b"GETTING.", b"PROXIES!"] {
            assert_eq!(other_protocol(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_first_frame_is_a_connect_or_disconnect_and_no_longer_than_a_connect_can_be() {
        let mut header = Vec::new();
        append_header(&mut header, Kind::Connect, CONNECT_BODY_BYTES_MAX);
        assert!(matches!(split_first_of_client(&header), Ok(Split::Incomplete(_))));
        header.clear();
        append_header(&mut header, Kind::Connect, CONNECT_BODY_BYTES_MAX + 1);
        assert_eq!(split_first_of_client(&header).unwrap_err(), WireError::TooBig);
        for kind in Kind::ALL.iter().filter(|kind| kind.is_of_clients()) {
            let length = if let Body::Struct(size) = kind.body() { size } else { 0 };
            let length = if kind.body() == Body::Table { TABLE_BYTES_MIN } else { length };
            header.clear();
            append_header(&mut header, *kind, length);
            let refused = split_first_of_client(&header).err();
            let may_be_first = matches!(kind, Kind::Connect | Kind::Disconnect);
            assert_eq!(refused, (!may_be_first).then_some(WireError::NotConnect), "{kind:?}");
            assert!(matches!(split_first_of_client(&header[..7]), Ok(Split::Incomplete(8))));
        }
    }
}
