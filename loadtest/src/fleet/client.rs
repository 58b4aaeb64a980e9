//! What a client keeps: some of it for good, some only while it is connected.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ringgate::close::CloseReason;
use ringgate::id::{ConnectionKey, Position};

use super::Place;
use crate::ledger::When;
use crate::record::Series;

/// A client, connected or not.
pub(super) struct Client {
    pub(super) number: u32,
    pub(super) state: State,
    /// When its present connection was planned and begun.
    pub(super) connect: When,
    /// When its schedule planned that it leaves and comes back, until it does; in microseconds since the run's zero.
    pub(super) churned_us: Option<u64>,
    /// The last message of the inbox.
    pub(super) seen: Position,
    /// Sequence of the last message that was sent, and the stream that it belongs to.
    pub(super) sequence: u32,
    pub(super) stream: u8,
    /// It has been signed in before.
    pub(super) returns: bool,
    /// Attempts since it was last signed in.
    pub(super) attempts: u8,
    /// Addresses that refused it in a row.
    pub(super) refused: u8,
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
            churned_us: None,
            seen: Position::default(),
            sequence: 0,
            stream: 0,
            returns: false,
            attempts: 0,
            refused: 0,
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
    /// Pings without a Pong.
    pub(super) pings: Pings,
    pub(super) end: End,
    /// The inbox is to be acknowledged before the next flush.
    pub(super) acknowledge: bool,
    pub(super) dirty: bool,
    /// It does not read.
    pub(super) held: bool,
}

/// A Ping that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ping {
    pub(super) when: When,
    /// It keeps the connection alive, and no schedule asked for it.
    pub(super) heartbeat: bool,
    /// Whose it is: the population of a heartbeat, the stream of any other.
    pub(super) series: u8,
}

impl Ping {
    /// See the field.
    pub(super) fn series(self) -> Series {
        if self.heartbeat { Series::Population(self.series) } else { Series::Stream(self.series) }
    }
}

/// Pings without a Pong. Pongs come in their order. Hardly ever is there more than one, so only that one has its place here.
#[derive(Debug, Default)]
pub(super) struct Pings {
    oldest: Option<Ping>,
    #[expect(clippy::box_collection, reason = "three words fewer for every one of a million idle connections")]
    younger: Option<Box<VecDeque<Ping>>>,
}

impl Pings {
    pub(super) fn oldest(&self) -> Option<Ping> {
        self.oldest
    }

    pub(super) fn push(&mut self, ping: Ping) {
        if self.oldest.is_none() {
            self.oldest = Some(ping);
        } else {
            self.younger.get_or_insert_default().push_back(ping);
        }
    }

    /// How many of them are no heartbeats.
    pub(super) fn of_load(&self) -> u64 {
        let younger = self.younger.iter().flat_map(|younger| younger.iter());
        self.oldest.iter().chain(younger).filter(|ping| !ping.heartbeat).count() as u64
    }

    /// The one that a Pong answers.
    pub(super) fn pop(&mut self) -> Option<Ping> {
        let next = self.younger.as_mut().and_then(|younger| younger.pop_front());
        core::mem::replace(&mut self.oldest, next)
    }
}

/// What follows the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody wanted it: an error. What the socket said, where it did.
    Unexpected(Option<CloseReason>),
    /// It was not even made: where to, and the system's error number.
    Refused(SocketAddr, i32),
    /// The gateway said this code, and when to come back, if at all.
    Goodbye(u16, Option<u32>),
    /// The client left, and stays away.
    Leave,
    /// The client left, and comes back at once: its schedule planned that for this time since the run's zero.
    Return { planned_us: u64 },
}

impl Line {
    pub(super) fn of(place: Place) -> Self {
        Line {
            place,
            out: Vec::new(),
            tail: Vec::new(),
            unanswered: 0,
            pings: Pings::default(),
            end: End::Unexpected(None),
            acknowledge: false,
            dirty: false,
            held: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pongs_answer_pings_in_their_order() {
        let ping = |at: u64| Ping { when: When::new(at * 1000, at * 1000), heartbeat: at == 2, series: 1 };
        let mut pings = Pings::default();
        assert_eq!(pings.pop(), None);
        (1..=3).for_each(|at| pings.push(ping(at)));
        assert_eq!(pings.of_load(), 2);
        assert_eq!((pings.oldest(), pings.pop()), (Some(ping(1)), Some(ping(1))));
        pings.push(ping(4));
        assert_eq!(
            [pings.pop(), pings.pop(), pings.pop(), pings.pop()],
            [Some(ping(2)), Some(ping(3)), Some(ping(4)), None]
        );
        assert_eq!((pings.oldest(), pings.of_load()), (None, 0));
    }
}
