//! What a client keeps: some of it for good, some only while it is connected.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use ringgate_core::close::CloseReason;
use ringgate_core::id::{ConnectionKey, Position};

use super::Place;
use crate::ledger::{Recipient, When};
use crate::record::Series;

/// A client, connected or not.
pub(super) struct Client {
    pub(super) number: u32,
    pub(super) state: State,
    /// When its present connection was planned and begun.
    pub(super) connect: When,
    /// When its schedule planned that it leaves and comes back, until it does; in microseconds since the run's zero.
    pub(super) churned_us: Option<u64>,
    /// It is away because the load wants that; no longer when an attempt to come back has failed.
    pub(super) taken: bool,
    /// It is to stay away.
    pub(super) kept_away: bool,
    /// When it left because the load wanted that, in microseconds since the run's zero.
    pub(super) taken_us: u64,
    /// Connections on which it was signed in, modulo 2^16.
    pub(super) connections: u16,
    /// It has asked to join its room, and has no answer.
    pub(super) subscribing: bool,
    /// The last message of the inbox.
    pub(super) seen: Position,
    /// It has been signed in before.
    pub(super) returns: bool,
    /// Attempts since it was last signed in for long enough: see [`Client::left`].
    pub(super) attempts: u8,
    /// When it was last signed in, in milliseconds since the run's zero.
    pub(super) ready_ms: u32,
    /// Addresses that refused it in a row.
    pub(super) refused: u8,
    pub(super) room: Option<Box<str>>,
    /// As it stands in the payloads that are sent there.
    pub(super) room_in_stamps: Recipient,
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
            taken: false,
            kept_away: false,
            taken_us: 0,
            connections: 0,
            subscribing: false,
            seen: Position::default(),
            returns: false,
            attempts: 0,
            ready_ms: 0,
            refused: 0,
            room: None,
            room_in_stamps: Recipient::default(),
            seen_in_room: Position::default(),
        }
    }
}

impl Client {
    /// An attempt to connect begins.
    pub(super) fn attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// It has been signed in until now, in milliseconds since the run's zero. A connection that has lasted is what attempts are
    /// counted anew from (docs/protocol.md, Reconnecting); so is one that the load itself ends.
    pub(super) fn left(&mut self, now_ms: u64, on_purpose: bool) {
        if on_purpose || now_ms.saturating_sub(self.ready_ms.into()) >= LASTING_MS {
            self.attempts = 0;
        }
    }

    /// The most that it waits before its next attempt.
    pub(super) fn wait_max(&self) -> Duration {
        BACKOFF.saturating_mul(1 << u32::from(self.attempts.min(10))).min(BACKOFF_MAX)
    }
}

/// Back-off between attempts to come back: at most this, doubling up to the other, at a random place within.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(20);
/// A client that was signed in for so long counts its attempts anew, in milliseconds.
const LASTING_MS: u64 = 5_000;

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
    /// It is to be asked once more, at the end, whether anybody is there.
    pub(super) last_ping: bool,
}

/// A Ping that was sent, or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ping {
    pub(super) when: When,
    pub(super) cause: Cause,
    /// Whose it is: the population of a heartbeat, the stream of any other.
    pub(super) series: u8,
}

/// Why a Ping is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It keeps the connection alive.
    Heartbeat,
    /// A schedule holds it.
    Schedule,
    /// The Ping before it in a closed loop was answered.
    Loop,
}

impl Ping {
    pub(super) fn is_heartbeat(self) -> bool {
        self.cause == Cause::Heartbeat
    }

    /// See the field.
    pub(super) fn series(self) -> Series {
        if self.is_heartbeat() { Series::Population(self.series) } else { Series::Stream(self.series) }
    }
}

/// Pings without a Pong. A Pong does not say which Ping it answers: only one is under way at a time, so that a missing Pong
/// is not mistaken for the next one's. Others that are due meanwhile wait, and are timed from when they were planned.
#[derive(Debug, Default)]
pub(super) struct Pings {
    under_way: Option<Ping>,
    #[expect(clippy::box_collection, reason = "three words fewer for every one of a million idle connections")]
    waiting: Option<Box<VecDeque<Ping>>>,
}

impl Pings {
    pub(super) fn under_way(&self) -> Option<Ping> {
        self.under_way
    }

    /// Whether a Ping of the load is under way or waits.
    pub(super) fn has_of_load(&self) -> bool {
        self.under_way.is_some_and(|ping| !ping.is_heartbeat()) || self.waiting().next().is_some()
    }

    /// Whether one of this stream is.
    pub(super) fn has_of(&self, stream: u8) -> bool {
        self.under_way.into_iter().chain(self.waiting()).any(|ping| !ping.is_heartbeat() && ping.series == stream)
    }

    /// True if it is to be sent now; a heartbeat is forgotten otherwise, since the Ping under way does as well.
    pub(super) fn push(&mut self, ping: Ping) -> bool {
        if self.under_way.is_none() {
            self.under_way = Some(ping);
            return true;
        }
        if !ping.is_heartbeat() {
            self.waiting.get_or_insert_default().push_back(ping);
        }
        false
    }

    /// Those that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Ping> {
        self.waiting.iter().flat_map(|waiting| waiting.iter()).copied()
    }

    /// The one that a Pong answers; none if there was none.
    pub(super) fn answered(&mut self) -> Option<Ping> {
        self.under_way.take()
    }

    /// The next one that waited; it is to be pushed again when it is sent.
    pub(super) fn next(&mut self) -> Option<Ping> {
        self.waiting.as_mut()?.pop_front()
    }
}

/// What follows the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody wanted it: an error. What the socket said, where it did.
    Unexpected(Option<CloseReason>),
    /// It was not even made: where to, and the system's error number.
    Refused(SocketAddr, i32),
    /// It was made, and the client not signed in in time.
    TimedOut,
    /// The gateway said this code, and when to come back, if at all.
    Goodbye(u16, Option<u32>),
    /// The client left, and stays away.
    Leave,
    /// The client left because a Pong did not come.
    NoPong,
    /// The client left, and comes back at once: its schedule planned that for this time since the run's zero.
    Return { planned_us: u64 },
}

impl End {
    /// The load itself has it.
    pub(super) fn is_wanted(self) -> bool {
        matches!(self, End::Leave | End::Return { .. })
    }
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
            last_ping: false,
        }
    }

    /// Nothing of the load is under way whose answer would be missed if the connection ended now.
    pub(super) fn is_answered(&self) -> bool {
        self.unanswered == 0 && !self.pings.has_of_load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_lasts_5_s_then_the_back_off_begins_anew() {
        let mut client = Client::new(1);
        let waits = |client: &Client| client.wait_max().as_millis();
        client.attempt();
        assert_eq!(waits(&client), 1000, "the first wait of a client that never had a connection");
        client.ready_ms = 10_000;
        client.left(14_999, false);
        assert_eq!(waits(&client), 1000, "it did not last");
        client.attempt();
        client.ready_ms = 20_000;
        client.left(25_000, false);
        assert_eq!((client.attempts, waits(&client)), (0, 500));
        (0..30).for_each(|_| client.attempt());
        assert_eq!(waits(&client), 20_000);
        client.left(20_000, true);
        assert_eq!(client.attempts, 0, "the load itself had it leave");
    }

    #[test]
    fn one_ping_is_under_way_at_a_time() {
        let when = |at: u64| When::new(at * 1000, at * 1000);
        let ping = |at: u64| Ping { when: when(at), cause: Cause::Schedule, series: 1 };
        let heartbeat = |at: u64| Ping { cause: Cause::Heartbeat, ..ping(at) };
        let waiting = |pings: &Pings| pings.waiting().count();
        let mut pings = Pings::default();
        assert_eq!(pings.answered(), None);
        assert!(pings.push(heartbeat(1)) && !pings.has_of_load());
        assert!(![2, 3].map(ping).into_iter().any(|ping| pings.push(ping)));
        assert!(!pings.push(heartbeat(4)), "it need not be sent at all");
        assert_eq!((waiting(&pings), pings.has_of_load()), (2, true));
        assert_eq!(pings.answered(), Some(heartbeat(1)));
        assert_eq!(pings.answered(), None, "a Pong too many answers nothing");
        assert_eq!(pings.next(), Some(ping(2)));
        assert!(pings.push(ping(2)));
        assert_eq!((pings.under_way(), waiting(&pings)), (Some(ping(2)), 1));
        assert_eq!((pings.answered(), pings.next(), pings.next()), (Some(ping(2)), Some(ping(3)), None));
        assert!(!pings.has_of_load());
    }
}
