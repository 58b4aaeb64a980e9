//! Topics at their home: who is first, what is kept, who has read how far. Data structures without messaging.
//!
//! A topic (a user's inbox or a room) has one home shard, found by hashing its name. The home gives every message
//! its place ([`Log`]), remembers client message ids ([`Dedup`]) and knows the devices of a user ([`Inbox`]) or the
//! shards with members of a room ([`Room`]). A durable store will stand behind [`Log`]: sequencing and committing
//! are two steps there already.

mod dedup;
mod inbox;
mod log;
mod room;

pub use dedup::{Answered, Dedup, DedupKey};
pub use inbox::{Attachment, Device, Inbox};
pub use log::{Gap, Log, LogLimits, Retained};
pub use room::{Keeps, MemberName, Room, ShardMembers};
