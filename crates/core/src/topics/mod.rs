//! Topics at their home: the order of messages, what is kept, and how far each device has read. Data structures without
//! messaging.
//!
//! A topic (a user's inbox or a room) has one home shard, found by hashing its name. The home gives every message
//! its place ([`Log`]), remembers client message ids ([`Dedup`]) and knows the devices of a user ([`Inbox`]) or the
//! shards with members of a room ([`Room`]); where no client is and nothing is kept it remembers the position ([`Heads`]).
//! [`Publishers`] says whose messages fill the logs. What is on its way into a store waits in [`Appends`].

mod appends;
mod dedup;
mod heads;
mod inbox;
mod log;
mod publishers;
mod room;
mod size;
mod unknown;

pub use appends::{Append, Appends, Ticket};
pub use dedup::{Answered, Dedup, DedupId, DedupKey};
pub use heads::{Head, Heads};
pub use inbox::{Attachment, Device, DeviceLimits, Inbox};
pub use log::{Gap, Log, LogLimits, Message, Retained, Trimmed, message_cost};
pub use publishers::Publishers;
pub use room::{Keeps, MemberName, Room, ShardMembers};
pub use unknown::UnknownUsers;
