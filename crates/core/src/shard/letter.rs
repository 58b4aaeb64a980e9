//! What the two sides of shards tell each other: to a topic's home ([`ToHome`]), to sessions and members of rooms ([`ToEdge`]).
//!
//! Letters between two shards arrive in the order in which they were posted; the whole delivery rests on that. Large
//! contents are boxed, so that a mailbox of thousands stays small.

use std::sync::Arc;

use super::Fence;
use super::ways::{Credit, Work};
use crate::close::{CloseReason, ErrorCode};
use crate::id::{
    Address, ClientMessageId, ConnectionKey, Durability, InboxKey, LocalRoomKey, Position, Recover, RoomKey, ShardId,
    Stamp,
};
use crate::outbox::Delivery;
use crate::topics::{Attachment, DedupKey, Gap};
use crate::wire::Draft;

/// A message between two shards of a node, or from one side of a shard to the other.
#[derive(Debug)]
pub enum Letter {
    /// To a topic's home.
    ToHome(ToHome),
    /// To the shard of a session, or of members of a room.
    ToEdge(ToEdge),
}

// Mailboxes hold thousands, and each push copies one: larger is a decision, not an accident.
const _: () = assert!(size_of::<Letter>() == 104);
const _: () = assert!(size_of::<Letter>() == size_of::<ToEdge>());

/// What sessions tell a topic's home.
#[derive(Debug)]
pub enum ToHome {
    /// A device connects.
    Attach(Box<Attach>),
    /// The session has ended.
    Detach {
        /// The inbox.
        inbox: InboxKey,
        /// The session.
        from: Address,
    },
    /// A message is to be put in order.
    Publish(Box<Publish>),
    /// To the sender's own inbox: the user's other devices are to have what one of them sent.
    Copy(Box<SentCopy>),
    /// Everything up to `offset` is kept.
    Ack {
        /// The inbox.
        inbox: InboxKey,
        /// The session.
        from: Address,
        /// Cumulative.
        offset: u64,
    },
    /// Bring what comes after `since`.
    CatchUp {
        /// The inbox or the room.
        topic: Source,
        /// The session.
        from: Address,
        /// Offset.
        since: u64,
    },
    /// A session joins a room.
    Subscribe(Box<Subscribe>),
    /// A session leaves a room; sent once for each accepted Subscribe.
    Unsubscribe {
        /// The room.
        room: RoomKey,
        /// The session.
        from: Address,
        /// A newer session of the same device has replaced it, and is about to join.
        taken_over: bool,
    },
    /// A session asks who is in a room.
    Presence {
        /// Full name.
        room: Arc<str>,
        /// The session.
        from: Address,
        /// The client's number of the request.
        request: u32,
        /// Members to name.
        limit: u32,
    },
    /// A session asks for messages of a topic.
    History(Box<History>),
    /// Broadcasts of the home's rooms were worked off.
    Credit {
        /// The shard that has done it.
        from: ShardId,
        /// Of all of them.
        credit: Box<Credit>,
    },
}

/// What a topic's home tells sessions and members of rooms.
#[derive(Debug)]
pub enum ToEdge {
    /// The inbox has taken the session on.
    Attached {
        /// The session.
        to: ConnectionKey,
        /// The inbox's home.
        home: ShardId,
        /// The inbox there.
        inbox: InboxKey,
        /// What the inbox found.
        attachment: Box<Attachment>,
    },
    /// The session has to end.
    Refused {
        /// The session.
        to: ConnectionKey,
        /// Why: taken over, or too many sessions.
        reason: CloseReason,
    },
    /// The engine cannot say now where the session's inbox stands, or whose its device is: its client is to come back soon.
    Unavailable {
        /// The session.
        to: ConnectionKey,
    },
    /// Its Publish has its place, and is kept as far as it says.
    Published(Published),
    /// Its Publish was refused.
    Failed {
        /// The session.
        to: ConnectionKey,
        /// The client's number of the request.
        request: u32,
        /// Why.
        code: ErrorCode,
        /// What the client is told beside the code; begins with the code's label.
        message: &'static str,
    },
    /// A live message of its inbox.
    Deliver {
        /// The session.
        to: ConnectionKey,
        /// 0 for an ephemeral message.
        offset: u64,
        /// The frame.
        delivery: Delivery,
    },
    /// The answer to [`ToHome::CatchUp`].
    CaughtUp {
        /// The session.
        to: ConnectionKey,
        /// What was asked for.
        topic: Source,
        /// Messages after `since`.
        gap: Box<Gap>,
    },
    /// The answer to [`ToHome::Subscribe`].
    Subscribed(Box<Subscribed>),
    /// The room cannot be joined, for now.
    NotSubscribed {
        /// The session.
        to: ConnectionKey,
        /// The client's number of the request.
        request: u32,
        /// The room's entry on the session's shard.
        local: LocalRoomKey,
        /// As in [`ToHome::Subscribe`].
        counted: bool,
    },
    /// The answer to [`ToHome::Presence`].
    PresenceResult(Box<PresenceResult>),
    /// The answer to [`ToHome::History`].
    HistoryResult(Box<HistoryResult>),
    /// A Presence or a History could not be answered, for now.
    LookupFailed {
        /// The session.
        to: ConnectionKey,
        /// The client's number of the request.
        request: u32,
    },
    /// To the members of a room on one shard: messages are missing that cannot be brought, or a new epoch has begun.
    StartOver {
        /// The room's entry there.
        local: LocalRoomKey,
    },
    /// To the members of a room on one shard.
    Fanout {
        /// The room's entry there.
        local: LocalRoomKey,
        /// See `logged`.
        offset: u64,
        /// One encoding for all.
        delivery: Delivery,
        /// A session that does not get it.
        without: Option<Address>,
        /// The room's home, and the room there.
        home: ShardId,
        /// See `home`.
        room: RoomKey,
        /// It is in the room's log; `offset` is its own then, and that of the newest message in the log otherwise.
        logged: bool,
        /// What the home gets back in a Credit.
        work: Work,
    },
}

/// A member's two names, by reference.
const MEMBER_BYTES: usize = size_of::<(Arc<str>, Arc<str>)>();

impl Letter {
    /// Whether a sleeping shard is woken for it. Acknowledgements only free memory: no request waits for them.
    pub fn is_urgent(&self) -> bool {
        !matches!(self, Letter::ToHome(ToHome::Ack { .. }))
    }

    /// Bytes of the messages in it: what makes a letter heavy.
    pub fn bytes(&self) -> usize {
        match self {
            Letter::ToHome(letter) => letter.bytes(),
            Letter::ToEdge(letter) => letter.bytes(),
        }
    }
}

impl ToHome {
    fn bytes(&self) -> usize {
        match self {
            ToHome::Publish(publish) => publish.draft.len(),
            ToHome::Copy(copy) => copy.draft.len(),
            ToHome::Attach(_)
            | ToHome::Detach { .. }
            | ToHome::Ack { .. }
            | ToHome::CatchUp { .. }
            | ToHome::Subscribe(_)
            | ToHome::Unsubscribe { .. }
            | ToHome::Presence { .. }
            | ToHome::History(_)
            | ToHome::Credit { .. } => 0,
        }
    }
}

impl ToEdge {
    fn bytes(&self) -> usize {
        match self {
            ToEdge::Deliver { delivery, .. } | ToEdge::Fanout { delivery, .. } => delivery.frame.len(),
            ToEdge::CaughtUp { gap, .. } => gap.frames.iter().map(|(_, frame)| frame.len()).sum(),
            ToEdge::HistoryResult(result) => result.frames.iter().map(bytes::Bytes::len).sum(),
            ToEdge::PresenceResult(result) => result.members.len() * MEMBER_BYTES,
            ToEdge::Attached { .. }
            | ToEdge::Refused { .. }
            | ToEdge::Unavailable { .. }
            | ToEdge::Published(_)
            | ToEdge::Failed { .. }
            | ToEdge::LookupFailed { .. }
            | ToEdge::NotSubscribed { .. }
            | ToEdge::StartOver { .. }
            | ToEdge::Subscribed(_) => 0,
        }
    }
}

/// Which topic a session catches up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its inbox, at its home.
    Inbox(InboxKey),
    /// A room.
    Room {
        /// At its home.
        room: RoomKey,
        /// On the session's shard.
        local: LocalRoomKey,
    },
}

/// A device connects.
#[derive(Debug)]
pub struct Attach {
    /// User id.
    pub user: Arc<str>,
    /// Device.
    pub device: Arc<str>,
    /// The session.
    pub from: Address,
    /// Where the client stands.
    pub resume: Option<Position>,
    /// The session's claim of its device, where several nodes share an engine; 0 before it has one.
    pub fence: Fence,
}

/// A message that is to be put in order.
#[derive(Debug)]
pub struct Publish {
    /// The publisher's session.
    pub from: Address,
    /// The client's number of the request.
    pub request: u32,
    /// Index of the room's namespace; not used for an inbox.
    pub namespace: usize,
    /// As the client chose it.
    pub client_message_id: ClientMessageId,
    /// Key in the dedup window; none without a client message id. Every shard of a node computes the same one.
    pub dedup_key: Option<DedupKey>,
    /// Why the session may not publish it. This is the answer unless an earlier attempt with the same id was stored.
    pub refused: Option<ErrorCode>,
    /// The frame but for its stamp.
    pub draft: Draft,
    /// Skip the log.
    pub ephemeral: bool,
    /// Milliseconds in the log; 0 for the topic's own limit.
    pub ttl_ms: u64,
    /// Monotonic microseconds of its arrival.
    pub received_us: u64,
}

/// What a user has sent to another one, for the user's own inbox.
#[derive(Debug)]
pub struct SentCopy {
    /// The session that sent it: the one device that needs no copy.
    pub from: Address,
    /// The frame but for its stamp.
    pub draft: Draft,
    /// The id of the message itself.
    pub message_id: u64,
    /// The time of the message itself, in Unix milliseconds.
    pub timestamp_ms: u64,
    /// Milliseconds in the log; 0 for the inbox's own limit.
    pub ttl_ms: u64,
    /// Monotonic microseconds of the message's arrival.
    pub received_us: u64,
}

/// A session joins a room.
#[derive(Debug)]
pub struct Subscribe {
    /// Full name.
    pub room: Arc<str>,
    /// Index of its namespace.
    pub namespace: usize,
    /// The session.
    pub from: Address,
    /// Its user.
    pub user: Arc<str>,
    /// Its device.
    pub device: Arc<str>,
    /// The client's number of the request.
    pub request: u32,
    /// Where the client stands.
    pub since: Option<Position>,
    /// What to bring when the log does not reach back to `since`.
    pub recover: Recover,
    /// The room's entry on the session's shard.
    pub local: LocalRoomKey,
    /// It counts among the session's requests in flight; rooms of Connect do not.
    pub counted: bool,
}

/// A request for messages of a topic.
#[derive(Debug)]
pub struct History {
    /// `@user`, or a room.
    pub topic: Arc<str>,
    /// The session.
    pub from: Address,
    /// The client's number of the request.
    pub request: u32,
    /// After this, oldest first.
    pub since: Option<Position>,
    /// The newest before this. Without both: the newest.
    pub before: Option<Position>,
    /// Most messages.
    pub limit: u32,
}

/// The answer to Publish.
#[derive(Debug)]
pub struct Published {
    /// The publisher's session.
    pub to: ConnectionKey,
    /// The client's number of the request.
    pub request: u32,
    /// As the client chose it.
    pub client_message_id: ClientMessageId,
    /// Place and time.
    pub stamp: Stamp,
    /// The level that was reached.
    pub durability: Durability,
    /// The dedup window had the answer.
    pub duplicate: bool,
}

/// The answer to Subscribe.
#[derive(Debug)]
pub struct Subscribed {
    /// The session.
    pub to: ConnectionKey,
    /// The client's number of the request.
    pub request: u32,
    /// The room's entry on the session's shard.
    pub local: LocalRoomKey,
    /// The room at its home.
    pub room: RoomKey,
    /// False when `since` was given and is not reached.
    pub recovered: bool,
    /// Live traffic starts after this.
    pub position: Position,
    /// Everything after this that the log holds is brought, in the epoch of `position`.
    pub start: u64,
    /// As in [`Subscribe`].
    pub counted: bool,
}

/// The answer to Presence.
#[derive(Debug)]
pub struct PresenceResult {
    /// The session.
    pub to: ConnectionKey,
    /// The client's number of the request.
    pub request: u32,
    /// Full name.
    pub room: Arc<str>,
    /// Sessions in the room.
    pub count: u32,
    /// User and device.
    pub members: Vec<(Arc<str>, Arc<str>)>,
}

/// The answer to History.
#[derive(Debug)]
pub struct HistoryResult {
    /// The session.
    pub to: ConnectionKey,
    /// The client's number of the request.
    pub request: u32,
    /// The topic.
    pub topic: Arc<str>,
    /// Its newest position.
    pub position: Position,
    /// Whole Message frames.
    pub frames: Vec<bytes::Bytes>,
    /// The log holds more: newer ones with `since`, else older ones.
    pub more: bool,
    /// False when `since` was given and is no longer reached, or `before` is of another epoch.
    pub recovered: bool,
}

/// A letter and where it goes.
#[derive(Debug)]
pub struct Posted {
    /// The receiving shard, never the sender itself.
    pub to: ShardId,
    /// The content.
    pub letter: Letter,
}
