//! What happens to a shard.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

#[expect(unused_imports, reason = "for the documentation")]
use super::Effect;
use super::{ClaimId, Fence, Letter, Origin, ReadId};
use crate::close::{AuthError, CloseReason, ErrorCode};
use crate::id::{ConnectionKey, Position};
use crate::session::Grant;
use crate::topics::{Answered, DedupKey, LoadedTopic, Ticket};
use crate::transport::Transport;

/// What happens to a shard.
#[derive(Debug)]
pub enum Event<'a> {
    /// A socket was accepted and admitted.
    Opened {
        /// Chosen by the shell.
        connection: ConnectionKey,
        /// Address of the other end.
        peer: IpAddr,
        /// What it is over, as far as the listener says it.
        transport: Transport,
        /// [`Event::Recognised`] follows, unless the connection ends first.
        is_open_to_websocket: bool,
    },
    /// The first bytes of a connection have said whether it is a WebSocket.
    Recognised {
        /// The connection.
        connection: ConnectionKey,
        /// What it is over.
        transport: Transport,
    },
    /// A proxy that is trusted has said whom it has connected for.
    Forwarded {
        /// The connection.
        connection: ConnectionKey,
        /// Address of the client.
        peer: IpAddr,
        /// The client may connect; else it is told that the gateway is busy.
        is_admitted: bool,
    },
    /// The TLS handshake is over.
    Secured {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Bytes came, after TLS.
    Received {
        /// The connection.
        connection: ConnectionKey,
        /// Where the kernel put them.
        bytes: &'a [u8],
    },
    /// The answer to [`Effect::Verify`](super::Effect::Verify).
    Verified {
        /// The connection.
        connection: ConnectionKey,
        /// Set when the token came with Refresh.
        refresh: Option<u32>,
        /// What the token says.
        result: Result<Grant, AuthError>,
    },
    /// The peer closed its side, or the socket failed.
    Ended {
        /// The connection.
        connection: ConnectionKey,
        /// Why it ended.
        reason: CloseReason,
    },
    /// The socket is closed, nothing of it is in the kernel any more.
    Freed {
        /// The connection.
        connection: ConnectionKey,
    },
    /// The engine has stored every message up to this ticket.
    Appended {
        /// The ticket of [`Effect::Append`](super::Effect::Append).
        through: Ticket,
    },
    /// The engine has not stored the message of this ticket, and none after it.
    AppendFailed {
        /// The ticket of [`Effect::Append`](super::Effect::Append).
        from: Ticket,
    },
    /// The answer to [`Effect::Load`](super::Effect::Load). The engine had every earlier effect of this shard by then.
    Loaded {
        /// As it stood in the effect.
        topic: Arc<str>,
        /// What the engine has; of a topic that it does not know, a new epoch.
        result: Result<Box<LoadedTopic>, EngineUnavailable>,
    },
    /// The answer to [`Effect::Read`](super::Effect::Read).
    Read {
        /// As it stood in the effect.
        read: ReadId,
        /// The messages.
        result: Result<Box<ReadResult>, EngineUnavailable>,
    },
    /// An engine that several nodes share has answered for a message: in any order, but in that of the tickets for each topic.
    Stored {
        /// The ticket of [`Effect::Append`](super::Effect::Append).
        ticket: Ticket,
        /// What became of it.
        result: Result<Stored, Unstored>,
    },
    /// Some node has stored a message of a topic that was loaded here: a hint, which may come twice, late or never.
    Arrived {
        /// As it stands on the wire.
        topic: Arc<str>,
        /// Its epoch.
        epoch: u64,
        /// The message.
        message: Box<StoredMessage>,
    },
    /// Some node has relayed a message that is in no log, see [`Effect::Relay`](super::Effect::Relay).
    Relayed {
        /// As it stands on the wire.
        topic: Arc<str>,
        /// The whole frame.
        frame: Bytes,
        /// The session that is not brought it.
        origin: Origin,
    },
    /// What is known of a topic that was loaded here may not be true any more, because a device of it is new or news of it may
    /// have been lost: it is loaded once more.
    Changed {
        /// As it stands on the wire.
        topic: Arc<str>,
    },
    /// The answer to [`Effect::Claim`](super::Effect::Claim).
    Claimed {
        /// As it stood in the effect.
        claim: ClaimId,
        /// The claim, newer than all before it.
        result: Result<Fence, Unclaimed>,
    },
    /// A newer session has claimed a device: one with an older claim has to end.
    Evict {
        /// User id.
        user: Arc<str>,
        /// The device.
        device: Arc<str>,
        /// The newer claim.
        fence: Fence,
    },
    /// Sessions of a user have to end; at the home of the user's inbox. A session that is being attached meanwhile may stay.
    Disconnect {
        /// User id.
        user: Arc<str>,
        /// The device; none for all devices.
        device: Option<Arc<str>>,
        /// What their clients are told.
        reason: CloseReason,
        /// Those of other nodes have to end, too. False where the engine says it.
        everywhere: bool,
    },
    /// The answer to [`Effect::Presence`](super::Effect::Presence).
    Present {
        /// As it stood in the effect.
        read: ReadId,
        /// The members of the room.
        result: Result<Box<Present>, EngineUnavailable>,
    },
    /// Client message ids that were stored before the node was started, oldest first: repetitions get the same answers. Before the
    /// first connection.
    Remember(Vec<Remembered>),
    /// A letter from another shard.
    Mail(Letter),
    /// The node shuts down: every client is told to go.
    Drain,
}

/// An engine cannot do what it was asked for, for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineUnavailable;

/// Why an engine that several nodes share has not stored a message, or does not know whether it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstored {
    /// It does not answer: nothing was stored.
    Away,
    /// It has no memory left: nothing was stored.
    Memory,
    /// It cannot write down what it stores: nothing was stored.
    Disk,
    /// Too few of its replicas are there: nothing was stored.
    Replicas,
    /// It has refused the message for another reason: nothing was stored.
    Refused,
    /// Its answer was lost, or what was to make the message safe has not been done in time: it may have been stored, and be
    /// delivered.
    Unknown,
}

impl Unstored {
    /// The code of the answer. Only 402 says that nothing was stored.
    pub fn code(self) -> ErrorCode {
        match self {
            Unstored::Away | Unstored::Memory | Unstored::Disk | Unstored::Replicas | Unstored::Refused => {
                ErrorCode::StorageFull
            }
            Unstored::Unknown => ErrorCode::Internal,
        }
    }

    /// The text of the answer: the code's own, and the reason.
    pub fn message(self) -> &'static str {
        match self {
            Unstored::Away => "storage full: the store does not answer",
            Unstored::Memory => "storage full: the store has no memory left",
            Unstored::Disk => "storage full: the store cannot write to its disk",
            Unstored::Replicas => "storage full: the store has too few replicas",
            Unstored::Refused => "storage full: the store has refused the message",
            Unstored::Unknown => "internal: the message may have been stored",
        }
    }
}

/// What an engine that several nodes share has done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It has its place.
    Now(Position),
    /// It was stored before, by whatever node: this was the answer.
    Before(Answered),
}

/// Why a session does not get its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// The engine cannot say, for now.
    Unavailable,
    /// The user has as many sessions as allowed, with other devices and on all nodes together.
    TooMany,
}

/// Messages that an engine has read.
#[derive(Clone, Debug, Default)]
pub struct ReadResult {
    /// In order, without a hole but for what has expired.
    pub messages: Vec<StoredMessage>,
    /// Everything up to this offset was considered.
    pub upto: u64,
    /// The engine has more: after `upto`, or before the first of the messages if they were read backward.
    pub more: bool,
    /// The highest offset that has left other than by its own ttl.
    pub lost: u64,
}

/// A message as it is read back.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Its place.
    pub offset: u64,
    /// The whole frame.
    pub frame: Bytes,
    /// As it was stored.
    pub expires_unix_ms: u64,
    /// As it was stored.
    pub own_ttl: bool,
    /// As it was stored.
    pub origin: Option<Origin>,
    /// As it was stored.
    pub key: Option<DedupKey>,
}

/// The members of a room on all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Sessions.
    pub count: u32,
    /// User and device of some, as many as were wanted.
    pub members: Vec<(Arc<str>, Arc<str>)>,
}

/// A client message id that was answered before the node was started.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// As it stands on the wire.
    pub topic: Arc<str>,
    /// As it was stored.
    pub key: DedupKey,
    /// The answer.
    pub answered: Answered,
}
