//! What a shard wants done outside.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::Posted;
use crate::close::CloseReason;
use crate::id::{ConnectionKey, Position, ShardId};
use crate::topics::{DedupKey, DeviceState, Ticket, TopicState};
use crate::transport::Transport;

/// What a shard wants done.
#[derive(Debug)]
pub enum Effect {
    /// Put a letter into another shard's mailbox.
    Post(Posted),
    /// Verify a token and come back with [`Event::Verified`](super::Event::Verified).
    Verify {
        /// The connection.
        connection: ConnectionKey,
        /// Set when the token came with Refresh.
        refresh: Option<u32>,
        /// The token, as the client sent it.
        token: Box<str>,
    },
    /// The outbox is no longer empty; pull it.
    Writable {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Close the socket: after the outbox is sent if `flush`, else at once. Ends in [`Event::Freed`](super::Event::Freed).
    Close {
        /// The connection.
        connection: ConnectionKey,
        /// Why.
        reason: CloseReason,
        /// Send what is in the outbox first.
        flush: bool,
        /// For the log line.
        record: Box<CloseRecord>,
    },
    /// Store a message and come back with [`Event::Appended`](super::Event::Appended) or [`Event::AppendFailed`](super::Event::AppendFailed). Only where the engine is a store.
    Append {
        /// Grows by one from message to message of a shard.
        ticket: Ticket,
        /// How often the engine has failed: what has an earlier era than the last failure has failed, too.
        era: u32,
        /// The message.
        record: Box<Record>,
    },
    /// Load a topic and come back with [`Event::Loaded`](super::Event::Loaded). Only where the engine is a store, as for the next
    /// two.
    Load {
        /// As it stands on the wire.
        topic: Arc<str>,
        /// The newest epoch of it that is known here; 0 if none is. An engine that several nodes share answers with no older one: if it
        /// has one, because it was emptied and its clock is behind, it begins a new epoch above this one.
        epoch: u64,
    },
    /// Read messages and come back with [`Event::Read`](super::Event::Read).
    Read {
        /// Names the answer.
        read: ReadId,
        /// Which messages.
        messages: Box<ReadMessages>,
    },
    /// Cursors and floor of a topic. A store takes them in the place of those that it had; an engine that several nodes share merges
    /// them into what it has, see [`TopicState`]. No answer.
    Cursor {
        /// As it stands on the wire.
        topic: Arc<str>,
        /// Of the offsets in the state: an engine that has begun another epoch takes nothing of it.
        epoch: u64,
        /// All that is known beside the messages.
        state: Box<TopicState>,
    },
    /// The topic is not in memory any more: what other nodes store in it is not wanted. Only where several nodes share the engine.
    Unload {
        /// As it stands on the wire.
        topic: Arc<str>,
    },
    /// Say that a device is this session's from now on, and come back with [`Event::Claimed`](super::Event::Claimed). A session that had it is
    /// told by [`Event::Evict`](super::Event::Evict). Only where several nodes share the engine, as for the next one.
    Claim {
        /// Names the answer.
        claim: ClaimId,
        /// User id.
        user: Arc<str>,
        /// The device.
        device: Arc<str>,
        /// The session.
        session: Origin,
    },
    /// The session with this claim has ended, if nobody has a newer one.
    Release {
        /// User id.
        user: Arc<str>,
        /// The device.
        device: Arc<str>,
        /// The claim.
        fence: Fence,
        /// What the session leaves of its device; none if it was never attached.
        left: Option<Box<DeviceLeft>>,
    },
    /// A message that is in no log, for the sessions of other nodes that have the topic in memory. No answer: it may be lost.
    Relay {
        /// As it stands on the wire.
        topic: Arc<str>,
        /// The whole frame.
        frame: Bytes,
        /// The session that is not brought it.
        origin: Origin,
    },
    /// End a user's sessions on the other nodes, see [`Event::Disconnect`](super::Event::Disconnect). No answer: it may be lost.
    Disconnect {
        /// User id.
        user: Arc<str>,
        /// The device; none for all devices.
        device: Option<Arc<str>>,
        /// What their clients are told.
        reason: CloseReason,
    },
    /// The sessions of this node in a room, for [`Effect::Presence`]. No answer. This effect and the next one come only where several nodes
    /// share the engine.
    Members {
        /// The room.
        topic: Arc<str>,
        /// Sessions in it.
        count: u32,
        /// Those that have come and gone, in order; sessions of rooms whose members Presence does not name are not among them.
        changes: Vec<MemberChange>,
        /// These are all, in the place of what was told before.
        anew: bool,
    },
    /// Say who is in a room on all nodes, and come back with [`Event::Present`](super::Event::Present).
    Presence {
        /// Names the answer.
        read: ReadId,
        /// The room.
        topic: Arc<str>,
        /// Most members that are named.
        limit: u32,
    },
    /// A session has begun.
    SignedIn {
        /// The connection.
        connection: ConnectionKey,
        /// For the log line.
        record: Box<SignInRecord>,
    },
    /// A flushing close took too long: close at once.
    Abort {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Receive nothing more from this socket, or go on.
    Hold {
        /// The connection.
        connection: ConnectionKey,
        /// False to go on.
        hold: bool,
    },
}

/// What a shard wants of its engine, on the way there.
#[derive(Debug)]
pub struct Asked {
    /// The shard that hears of it.
    pub shard: ShardId,
    /// [`Effect::Append`], `Load`, `Read`, `Cursor`, `Unload`, `Claim`, `Release`, `Relay`, `Disconnect`, `Members` or `Presence`.
    pub effect: Effect,
}

/// A message as it is stored.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its topic, as it stands on the wire.
    pub topic: Arc<str>,
    /// Its place: the one behind the topic's last, in the same epoch. Where the engine gives the place, the offset is 0, and the epoch
    /// is the one that the home knows: 0 if the topic is not in memory. The engine gives no place in an older epoch.
    pub position: Position,
    /// The whole frame. Its stamp says the same position.
    pub frame: Bytes,
    /// When it leaves, in Unix milliseconds.
    pub expires_unix_ms: u64,
    /// It leaves by a ttl of its own, which is no loss, and not by the topic's age limit.
    pub own_ttl: bool,
    /// The session that is not brought it.
    pub origin: Option<Origin>,
    /// What the publisher calls it, so that a repetition is recognised after a restart with the same seed.
    pub key: Option<DedupKey>,
}

/// A session, so that it is known for as long as the node lives and never taken for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The node's life, see [`ShardOptions`](super::ShardOptions).
    pub run: u64,
    /// Packed, see [`Address::to_u64`](crate::id::Address::to_u64).
    pub session: u64,
}

/// A session that has joined a room, or left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// Packed, see [`Address::to_u64`](crate::id::Address::to_u64).
    pub session: u64,
    /// User and device; none if it has left.
    pub member: Option<(Arc<str>, Arc<str>)>,
}

/// A device whose session has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLeft {
    /// Of its cursor.
    pub epoch: u64,
    /// As of its end.
    pub state: DeviceState,
}

/// The number of a read: grows by one from read to read of a shard.
pub type ReadId = u64;

/// The number of a claim on its way to an engine.
pub type ClaimId = u64;

/// What an engine gives for a claim: each of a device is greater than the one before, and none is 0.
pub type Fence = u64;

/// Messages that are wanted from an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadMessages {
    /// As it stands on the wire.
    pub topic: Arc<str>,
    /// Of the offsets. An engine that has begun another epoch answers that it is unavailable, and that the topic has changed.
    pub epoch: u64,
    /// Where.
    pub range: ReadRange,
    /// At most so many.
    pub messages_max: usize,
    /// At most so many bytes, unless the first message alone is larger.
    pub bytes_max: usize,
}

/// From where messages are read. What the floor has passed, and what has expired, may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRange {
    /// The oldest after this offset.
    After(u64),
    /// The newest before this offset.
    Before(u64),
}

/// What a log line about a new session says.
#[derive(Debug)]
pub struct SignInRecord {
    /// User id.
    pub user: Arc<str>,
    /// Device.
    pub device: Arc<str>,
    /// What the client calls itself; empty if it does not say.
    pub client: Box<str>,
    /// The other end.
    pub peer: IpAddr,
    /// What it was over.
    pub transport: Transport,
}

/// What a log line about a closed connection says.
#[derive(Debug)]
pub struct CloseRecord {
    /// User id, if it was signed in.
    pub user: Option<Arc<str>>,
    /// Device, if it was signed in.
    pub device: Option<Arc<str>>,
    /// The other end.
    pub peer: IpAddr,
    /// What it was over.
    pub transport: Transport,
    /// More than the reason's label, where there is more to say.
    pub detail: &'static str,
}
