//! What a client keeps: some of it for good, some only while it is connected.

use ringgate::id::{ConnectionKey, Position};

use super::Place;
use crate::ledger::When;

/// A client, connected or not.
pub(super) struct Client {
    pub(super) number: u32,
    pub(super) state: State,
    /// When its present connection was planned and begun.
    pub(super) connect: When,
    /// The last message of the inbox.
    pub(super) seen: Position,
    /// Sequence of the last message that was sent, and the stream that it belongs to.
    pub(super) sequence: u32,
    pub(super) stream: u8,
    /// It has been signed in before.
    pub(super) returns: bool,
    /// Attempts since it was last signed in.
    pub(super) attempts: u8,
    pub(super) room: Option<Box<str>>,
    /// The last message of the room.
    pub(super) seen_in_room: Position,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected, and not about to be.
    Away,
    /// It comes back once it is its turn.
    Waiting,
    /// Not signed in yet.
    Connecting,
    /// Signed in.
    Ready(ConnectionKey),
}

impl Client {
    pub(super) fn new(number: u32) -> Self {
        Client {
            number,
            state: State::Away,
            connect: When::default(),
            seen: Position::default(),
            sequence: 0,
            stream: 0,
            returns: false,
            attempts: 0,
            room: None,
            seen_in_room: Position::default(),
        }
    }
}

/// A client's connection.
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) out: Vec<u8>,
    pub(super) tail: Vec<u8>,
    /// Publishes without an answer.
    pub(super) unanswered: u32,
    pub(super) ping: Option<When>,
    pub(super) end: End,
    /// The inbox is to be acknowledged before the next flush.
    pub(super) acknowledge: bool,
    pub(super) dirty: bool,
    /// It does not read.
    pub(super) held: bool,
}

/// What follows the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody wanted it: an error.
    Unexpected,
    /// The gateway said this code, and when to come back, if at all.
    Goodbye(u16, Option<u32>),
    /// The client left, and stays away.
    Leave,
    /// The client left, and comes back at once.
    Return,
}

impl Line {
    pub(super) fn of(place: Place) -> Self {
        Line {
            place,
            out: Vec::new(),
            tail: Vec::new(),
            unanswered: 0,
            ping: None,
            end: End::Unexpected,
            acknowledge: false,
            dirty: false,
            held: false,
        }
    }
}
