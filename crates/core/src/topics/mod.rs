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
mod loads;
mod log;

mod publishers;
mod requests;
mod room;
mod size;
mod stored;
mod unknown;

pub use appends::{Append, Appends, Ticket};
pub use dedup::{Answered, Dedup, DedupId, DedupKey};
pub use heads::{Head, Heads};
pub use inbox::{Attachment, Device, DeviceLimits, Inbox};
pub use loads::Loads;
pub use log::{Extent, Gap, Log, LogLimits, Message, Retained, Trimmed, message_cost};
pub use publishers::Publishers;
pub use requests::Requests;
pub use room::{Keeps, MemberName, Room, ShardMembers};
pub use stored::{DeviceState, LoadedTopic, TopicState, to_mono_ms, to_unix_ms};
pub use unknown::UnknownUsers;
