//! The state of a connection and of the session on it: what one idle client costs, so every field counts.
//!
//! ```text
//! (accept) --> Handshaking --TLS--> AwaitConnect --Connect--> Verifying --token good--> Attaching --home--> Ready
//!                  |                     |                        |                        |                |
//!                  +---------------------+------------------------+------------------------+----------------+--> Closing
//! ```
//! The transitions are in `shard`; this file only holds the state.

use std::net::IpAddr;
use std::sync::Arc;

use super::grant::RoomGrants;
use super::rate::Bucket;
use crate::close::CloseReason;
use crate::id::{Position, TopicKey};
use crate::outbox::Outbox;

/// How a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    /// TCP.
    Plain = 0,
    /// TLS over TCP.
    Tls = 1,
}

impl Transport {
    /// Both, for arrays of counters.
    pub const ALL: [Transport; 2] = [Transport::Plain, Transport::Tls];

    /// Metric label and log field.
    pub fn label(self) -> &'static str {
        match self {
            Transport::Plain => "tcp",
            Transport::Tls => "tls",
        }
    }
}

/// Where a connection is in its life.
#[derive(Debug)]
pub enum Phase {
    /// Accepted; the TLS handshake is under way.
    Handshaking,
    /// Only Connect is allowed.
    AwaitConnect,
    /// Connect has come; its token is being verified.
    Verifying(Box<PendingConnect>),
    /// The token is good; the inbox's home is being asked.
    Attaching(Box<PendingConnect>),
    /// Signed in.
    Ready,
    /// Being torn down: nothing from it is looked at any more.
    Closing(CloseReason),
}

/// What Connect said, until it is answered.
#[derive(Debug)]
pub struct PendingConnect {
    /// Echoed in Connected.
    pub request: u32,
    /// Device name.
    pub device: Arc<str>,
    /// Where the inbox is to go on.
    pub inbox: Option<Position>,
    /// Rooms to subscribe to at once.
    pub rooms: Vec<(String, Option<Position>)>,
}

/// A socket and what is on it.
#[derive(Debug)]
pub struct Connection {
    /// See [`Phase`].
    pub phase: Phase,
    /// An incomplete frame: what has come of it.
    pub tail: Option<Box<Vec<u8>>>,
    /// What is to be sent.
    pub outbox: Outbox,
    /// The session, from Attaching on.
    pub session: Option<Box<Session>>,
    /// Who is at the other end.
    pub peer: IpAddr,
    /// TCP or TLS.
    pub transport: Transport,
    /// The gateway has asked and heard nothing since.
    pub pinged: bool,
    /// The shell knows that the outbox is not empty.
    pub writable: bool,
    /// Frames per second.
    pub messages: Bucket,
    /// Bytes per second.
    pub bytes: Bucket,
    /// Monotonic ms of the first warning about the rate, 0 for none.
    pub warned_ms: u64,
    /// Monotonic ms of the accept; once signed in, when something was last heard; once closing, since when.
    pub heard_ms: u64,
    /// Monotonic ms when the incomplete frame began.
    pub frame_began_ms: u64,
}

/// An authenticated user and device.
#[derive(Debug)]
pub struct Session {
    /// User id, shared with the inbox's home.
    pub user: Arc<str>,
    /// Device, shared likewise.
    pub device: Arc<str>,
    /// Unix seconds; 0 for never.
    pub expires_at: u64,
    /// The token's rooms.
    pub grants: Option<Arc<RoomGrants>>,
    /// Requests that wait for an answer.
    pub in_flight: u32,
    /// Rooms that lag behind.
    pub lagging: u32,
    /// The inbox.
    pub inbox: InboxFeed,
    /// The rooms.
    pub rooms: Vec<Membership>,
}

/// How far a session has been brought its inbox.
#[derive(Clone, Copy, Debug)]
pub struct InboxFeed {
    /// The inbox at its home.
    pub home: TopicKey,
    /// Its epoch.
    pub epoch: u64,
    /// Brought up to here.
    pub seen: u64,
    /// Acknowledged up to here.
    pub acked: u64,
    /// Without Ack until then (monotonic ms) everything after `acked` is brought again; 0 when nothing is owed.
    pub ack_deadline_ms: u64,
    /// Live messages that were not queued because the feed lags.
    pub behind: u64,
    /// Repetitions since the last progress.
    pub attempts: u8,
    /// The feed does not take live messages; it will catch up from the log.
    pub lagging: bool,
    /// The home has been asked to bring what is missing.
    pub catching: bool,
}

/// A room of a session: where the session stands in the room's list of members.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    /// The room's entry on this shard.
    pub room: TopicKey,
    /// Index into its members; `None` while the home has not answered Subscribe.
    pub index: Option<u32>,
}

impl Connection {
    /// An accepted connection.
    pub fn new(peer: IpAddr, transport: Transport, messages: Bucket, bytes: Bucket, now_ms: u64) -> Self {
        Connection {
            phase: match transport {
                Transport::Plain => Phase::AwaitConnect,
                Transport::Tls => Phase::Handshaking,
            },
            tail: None,
            outbox: Outbox::default(),
            session: None,
            peer,
            transport,
            pinged: false,
            writable: false,
            messages,
            bytes,
            warned_ms: 0,
            heard_ms: now_ms,
            frame_began_ms: 0,
        }
    }

    /// Whether the session may make requests and be brought messages.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether the connection is being torn down.
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }
}
