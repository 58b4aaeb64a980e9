//! What a shard wants done outside.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::Posted;
use crate::close::CloseReason;
use crate::id::{ConnectionKey, Position};
use crate::topics::{DedupId, Ticket};
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

/// A message as it is stored.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its topic, as it stands on the wire.
    pub topic: Arc<str>,
    /// Its place: the one behind the topic's last, in the same epoch.
    pub position: Position,
    /// The whole frame.
    pub frame: Bytes,
    /// Its own ttl in milliseconds; 0 for the topic's.
    pub ttl_ms: u64,
    /// What the publisher calls it, so that a repetition is recognised after a restart.
    pub id: Option<DedupId>,
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
    /// TCP or TLS.
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
    /// TCP or TLS.
    pub transport: Transport,
    /// More than the reason's label, where there is more to say.
    pub detail: &'static str,
}
