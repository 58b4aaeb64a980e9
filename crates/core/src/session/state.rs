//! The state of a connection and of the session on it: what one idle client costs, so every field counts.
//!
//! ```text
//! (accept) --> Handshaking --TLS--> AwaitConnect --Connect--> Verifying --token good--> Attaching --home--> Ready
//!                  |                     |                        |                        |                |
//!                  +---------------------+------------------------+------------------------+----------------+--> Closing
//! ```
//! The transitions are in `shard`; this file only holds the state.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::grant::RoomGrants;
use super::rate::Bucket;
use crate::id::{InboxKey, LocalRoomKey, Now, Position, Recover, ShardId};
use crate::outbox::Outbox;
use crate::transport::Transport;
use crate::wheel::TICK_MS;

// What every idle client costs; see bench/results/connections.md. Larger is a decision, not an accident.
const _: () = assert!(size_of::<Connection>() <= 176);
const _: () = assert!(size_of::<Session>() <= 104);

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepted; the TLS handshake is not over.
    Handshaking,
    /// Only Connect is allowed.
    AwaitConnect,
    /// Connect has come; its token is being verified.
    Verifying,
    /// The token is good; the inbox's home is being asked.
    Attaching,
    /// Signed in.
    Ready,
    /// Signed in; the gateway has asked and heard nothing since.
    Pinged,
    /// Being torn down: bytes from it are ignored.
    Closing,
}

/// What Connect said, until it is answered.
#[derive(Debug)]
pub struct PendingConnect {
    /// The client's number of the request, for Connected.
    pub request: u32,
    /// Device name.
    pub device: Arc<str>,
    /// What the client calls itself.
    pub client: Box<str>,
    /// Where the inbox is to go on.
    pub inbox: Option<Position>,
    /// Rooms to subscribe to at once.
    pub rooms: Vec<PendingRoom>,
    /// The ping interval that the client wishes; 0 for none.
    pub ping_interval_ms: u32,
    /// The receive window that the client wishes; 0 for none.
    pub receive_window: u32,
}

/// A room of a Connect that is not answered yet.
#[derive(Debug)]
pub struct PendingRoom {
    /// Full name.
    pub name: String,
    /// Where the client stands.
    pub since: Option<Position>,
    /// What to bring when the log does not reach back to `since`.
    pub recover: Recover,
}

/// A socket and what is on it.
#[derive(Debug)]
pub struct Connection {
    /// See [`Phase`].
    pub phase: Phase,
    /// What Connect said, while Verifying and Attaching.
    pub pending: Option<Box<PendingConnect>>,
    /// An incomplete frame, or what waits unread.
    pub tail: Option<Box<Tail>>,
    /// What is to be sent.
    pub outbox: Outbox,
    /// The session, from Attaching on.
    pub session: Option<Session>,
    /// Address of the other end.
    pub peer: IpAddr,
    /// What it is over, as far as is known.
    pub transport: Transport,
    /// The shell knows that the outbox is not empty.
    pub writable: bool,
    /// Frames per second.
    pub messages: Bucket,
    /// Bytes per second.
    pub bytes: Bucket,
    /// Monotonic ms, modulo 2^32, of the first warning about the rate; 0 for none.
    pub warned_ms: u32,
    /// Monotonic ms of the accept; once signed in, when something was last heard; once closing, since when.
    pub heard_ms: u64,
}

/// What has come and was not read yet.
#[derive(Debug)]
pub struct Tail {
    /// The first bytes of a frame; whole frames, too, while the connection is parked.
    pub bytes: Vec<u8>,
    /// How many of them were read since, while the connection was parked.
    pub read: usize,
    /// When the frame began, in monotonic ms.
    pub began_ms: u64,
    /// It waits unread: until the session is signed in, or until the client has read its answers.
    pub parked: bool,
    /// The shell was told to receive nothing more for now.
    pub held: bool,
}

impl Tail {
    /// What is still to be read.
    pub fn unread(&self) -> &[u8] {
        self.bytes.get(self.read..).unwrap_or_default()
    }

    /// So many more bytes were read. What is left is moved only when half of all was read, so that a long tail is not copied
    /// for each of its frames.
    pub fn skip(&mut self, bytes: usize) {
        self.read = (self.read + bytes).min(self.bytes.len());
        if self.read * 2 > self.bytes.len() {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
    }
}

/// An authenticated user and device.
#[derive(Debug)]
pub struct Session {
    /// User id, shared with the inbox's home.
    pub user: Arc<str>,
    /// Device; sessions with the same name share its memory.
    pub device: Arc<str>,
    /// Unix seconds, at most `u32::MAX`, which is in 2106; 0 for never.
    pub expires_at: u32,
    /// The token's rooms.
    pub grants: Option<Arc<RoomGrants>>,
    /// The inbox.
    pub inbox: InboxFeed,
    /// The rooms.
    pub rooms: Memberships,
    /// Requests that wait for an answer.
    pub in_flight: u16,
    /// Rooms that lag behind.
    pub lagging: u16,
    /// How often the client pings when it has nothing else to say.
    pub ping_interval_ms: u32,
    /// Inbox messages that are sent to it without an Ack at most.
    pub receive_window: u32,
}

impl Session {
    /// Milliseconds until the session ends unless it is refreshed: at least 1; 0 when it does not end.
    pub fn expires_in_ms(&self, now: Now) -> u64 {
        match self.expires_at {
            0 => 0,
            at => (u64::from(at) * 1000).saturating_sub(now.unix_ms).max(1),
        }
    }
}

/// How far a session has been brought its inbox.
#[derive(Clone, Copy, Debug)]
pub struct InboxFeed {
    /// The inbox at its home.
    pub key: InboxKey,
    /// Its epoch.
    pub epoch: u64,
    /// Brought up to here.
    pub seen: u64,
    /// How many offsets up to `seen` are not acknowledged.
    pub unacked: u32,
    /// Without Ack until then everything that is not acknowledged is brought again; none when nothing is owed.
    pub ack_deadline: Option<Ticks>,
    /// Live messages that were not queued because the feed lags.
    pub behind: u32,
    /// The shard that is the inbox's home.
    pub home: ShardId,
    /// Repetitions since the last progress.
    pub attempts: u8,
    /// How it follows the log.
    pub lag: Lag,
}

/// How a feed follows its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// It takes live messages.
    None,
    /// It takes none; it will catch up from the log.
    Behind,
    /// Like `Behind`, and the home has been asked for what is missing.
    CatchingUp,
    /// Like `Behind`, and the home has been asked to repeat what is not acknowledged. Until the answer comes, Acks of what was
    /// sent before still count.
    Repeating,
}

/// A monotonic time in ticks of the wheel, rounded up: half the size of milliseconds, and as exact as any deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks(NonZeroU32);

impl Ticks {
    /// From monotonic milliseconds.
    pub fn from_ms(ms: u64) -> Self {
        let ticks = u32::try_from(ms.div_ceil(TICK_MS)).unwrap_or(u32::MAX);
        Ticks(NonZeroU32::new(ticks).unwrap_or(NonZeroU32::MIN))
    }

    /// In monotonic milliseconds.
    pub fn to_ms(self) -> u64 {
        u64::from(self.0.get()) * TICK_MS
    }
}

impl InboxFeed {
    /// A feed that stands at `seen`, all of it acknowledged.
    pub fn new(home: ShardId, key: InboxKey, epoch: u64, seen: u64, lag: Lag) -> Self {
        InboxFeed { home, key, epoch, seen, unacked: 0, ack_deadline: None, behind: 0, attempts: 0, lag }
    }

    /// Acknowledged up to here.
    pub fn acked(&self) -> u64 {
        self.seen - u64::from(self.unacked)
    }

    /// Back to what is acknowledged: the rest is about to be brought again.
    pub fn rewind(&mut self) {
        self.seen = self.acked();
        self.unacked = 0;
    }

    /// Moves on to `offset` over messages that have expired, while nothing waits for an Ack: the client will not
    /// acknowledge them, and they must not fill the window.
    pub fn skip_expired(&mut self, offset: u64) {
        if self.unacked == 0 {
            self.seen = self.seen.max(offset);
        }
    }

    /// Moves on to `offset`, which waits for an Ack then.
    pub fn advance(&mut self, offset: u64) {
        let moved = offset.saturating_sub(self.seen);
        self.unacked = self.unacked.saturating_add(u32::try_from(moved).unwrap_or(u32::MAX));
        self.seen = self.seen.max(offset);
    }
}

/// The rooms of a session; a session without rooms owns no list.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "eight bytes in a session that has no rooms")]
pub struct Memberships(Option<Box<Vec<Membership>>>);

impl Memberships {
    /// Every membership, in no order.
    pub fn as_slice(&self) -> &[Membership] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Rooms that the session is in, or is about to be in.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The membership of a room.
    pub fn find(&self, room: LocalRoomKey) -> Option<&Membership> {
        self.as_slice().iter().find(|membership| membership.room == room)
    }

    /// The membership of a room.
    pub fn find_mut(&mut self, room: LocalRoomKey) -> Option<&mut Membership> {
        self.0.as_deref_mut()?.iter_mut().find(|membership| membership.room == room)
    }

    /// Adds a membership that the home has not answered yet.
    pub fn add(&mut self, room: LocalRoomKey) {
        self.0.get_or_insert_default().push(Membership { room, index: None });
    }

    /// Takes out a room that the session is a member of.
    pub fn remove(&mut self, room: LocalRoomKey) -> Option<Membership> {
        self.take_out(|membership| membership.room == room && membership.index.is_some())
    }

    /// Takes out a room whose home has refused the session.
    pub fn refused(&mut self, room: LocalRoomKey) -> Option<Membership> {
        self.take_out(|membership| membership.room == room && membership.index.is_none())
    }

    fn take_out(&mut self, which: impl Fn(&Membership) -> bool) -> Option<Membership> {
        let list = self.0.as_deref_mut()?;
        let at = list.iter().position(which)?;
        let removed = list.swap_remove(at);
        if list.is_empty() {
            self.0 = None;
        }
        Some(removed)
    }

    /// Takes out everything.
    pub fn take(&mut self) -> Vec<Membership> {
        self.0.take().map(|list| *list).unwrap_or_default()
    }
}

/// A room of a session: where the session stands in the room's list of members.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    /// The room's entry on this shard.
    pub room: LocalRoomKey,
    /// Index into its members; `None` while the home has not answered Subscribe.
    pub index: Option<u32>,
}

impl Connection {
    /// An accepted connection.
    pub fn new(peer: IpAddr, transport: Transport, messages: Bucket, bytes: Bucket, now_ms: u64) -> Self {
        Connection {
            phase: if transport.has_tls() { Phase::Handshaking } else { Phase::AwaitConnect },
            pending: None,
            tail: None,
            outbox: Outbox::default(),
            session: None,
            peer,
            transport,
            writable: false,
            messages,
            bytes,
            warned_ms: 0,
            heard_ms: now_ms,
        }
    }

    /// Whether the session may make requests and be brought messages.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Pinged)
    }

    /// How often the client of a session pings; 0 before there is one.
    pub fn ping_interval_ms(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.ping_interval_ms.into())
    }

    /// Whether what has come waits unread.
    pub fn is_parked(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.parked)
    }

    /// Whether the connection is being torn down.
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }
}
