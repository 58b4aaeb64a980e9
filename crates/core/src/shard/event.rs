//! What happens to a shard.

use std::net::IpAddr;

#[expect(unused_imports, reason = "for the documentation")]
use super::Effect;
use super::Letter;
use crate::close::{AuthError, CloseReason};
use crate::id::ConnectionKey;
use crate::session::Grant;
use crate::topics::Ticket;
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
        /// TCP or TLS.
        transport: Transport,
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
    /// A letter from another shard.
    Mail(Letter),
    /// The node shuts down: every client is told to go.
    Drain,
}
