//! Identifiers and instants: small newtypes, so that a slot is never mistaken for a shard.
//!
//! Nothing here reads a clock: [`Now`] is made by the shell once a loop turn and passed down.

use core::fmt;

/// Index of a shard within its node, 0-based.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(pub u16);

/// A key of a table of slots ([`crate::slots::Slots`]): a slot, and the generation of its present use.
///
/// A stale key (the slot has been freed since, and perhaps given out again) is recognised by its generation.
pub trait SlotKey: Copy + Eq {
    /// The key of a slot in this use.
    fn new(slot: u32, generation: u32) -> Self;
    /// Index into the table.
    fn slot(self) -> u32;
    /// 24 bits, never 0 in a live key.
    fn generation(self) -> u32;
}

macro_rules! slot_keys {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub struct $name {
            /// Index into the table.
            pub slot: u32,
            /// 24 bits, never 0 in a live key.
            pub generation: u32,
        }

        impl SlotKey for $name {
            #[inline]
            fn new(slot: u32, generation: u32) -> Self {
                $name { slot, generation }
            }

            #[inline]
            fn slot(self) -> u32 {
                self.slot
            }

            #[inline]
            fn generation(self) -> u32 {
                self.generation
            }
        }
    )*};
}

slot_keys! {
    /// A connection on its shard. The slot is the direct descriptor's index, too, where those are used; slot, generation and
    /// operation share the 64 bits of an io_uring `user_data`.
    ConnectionKey;
    /// A user's inbox at its home.
    InboxKey;
    /// A room at its home.
    RoomKey;
    /// A room on a shard that has members of it.
    LocalRoomKey;
    /// Where a quiet topic stands, at its home.
    HeadKey;
}

/// Mask of the bits of a generation that are used.
pub const GENERATION_MASK: u32 = 0x00ff_ffff;

/// A connection anywhere in the node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// The shard that owns the connection.
    pub shard: ShardId,
    /// The connection on that shard.
    pub connection: ConnectionKey,
}

impl Address {
    /// The address in 64 bits, as logs and `Connected.session` show it: shard, generation, slot.
    pub fn to_u64(self) -> u64 {
        // 10 bits of shard, 24 of generation, 30 of slot; limits.rs asserts that they fit.
        (u64::from(self.shard.0) << 54)
            | (u64::from(self.connection.generation & GENERATION_MASK) << 30)
            | u64::from(self.connection.slot & 0x3fff_ffff)
    }

    /// The address of which these are the 64 bits.
    pub fn from_u64(bits: u64) -> Self {
        let connection =
            ConnectionKey { slot: bits as u32 & 0x3fff_ffff, generation: (bits >> 30) as u32 & GENERATION_MASK };
        Address { shard: ShardId((bits >> 54) as u16), connection }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.shard.0, self.connection.slot, self.connection.generation)
    }
}

/// One reading of both clocks, taken once a loop turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Now {
    /// Monotonic microseconds since the process (or simulation) started: deadlines, timers, rates, durations.
    pub mono_us: u64,
    /// Milliseconds since 1970-01-01 UTC: token expiry, message timestamps, message age.
    pub unix_ms: u64,
}

impl Now {
    /// Monotonic milliseconds.
    pub fn mono_ms(self) -> u64 {
        self.mono_us / 1000
    }
}

/// A place in a topic's log. Ordered within one epoch only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Position {
    /// Changes when a log was lost or made anew.
    pub epoch: u64,
    /// 1 for the first message of an epoch; 0 is "before the first".
    pub offset: u64,
}

/// 128 bits that a client chose for its message; zero means none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ClientMessageId {
    /// Upper half.
    pub high: u64,
    /// Lower half.
    pub low: u64,
}

impl ClientMessageId {
    /// True when the client chose none, which switches deduplication off for the message.
    pub fn is_none(self) -> bool {
        self.high == 0 && self.low == 0
    }
}

/// What a topic's home gave a message when it put it in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Place in the log; offset 0 for an ephemeral message.
    pub position: Position,
    /// Unique in the cluster: time, node and shard, counter.
    pub message_id: u64,
    /// Unix milliseconds.
    pub timestamp_ms: u64,
}

/// What a subscriber gets when the log does not reach back to its position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recover {
    /// Live traffic only.
    #[default]
    Exact,
    /// What the log still has, oldest first, then live traffic.
    Best,
}

/// How safe a message was when Published was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Durability {
    /// In no log.
    Ephemeral = 0,
    /// In a log in memory.
    Memory = 1,
    /// On stable storage.
    Durable = 2,
}
