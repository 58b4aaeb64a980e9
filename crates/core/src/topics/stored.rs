//! What an engine keeps of a topic beside its messages, and how a topic that was loaded begins.
//!
//! Times are Unix milliseconds here: they are to mean something after a restart.

use std::sync::Arc;

use super::log::Extent;
use crate::id::{Now, Position};

/// What is known of a topic beside its messages. The newest of a topic counts. Losing one causes repetitions; losing one that tells of a
/// new device may make its messages leave when all others have acknowledged them, which it is told.
///
/// An engine that several nodes share merges what one node tells it: the marks never fall, a device
/// replaces the same one if its fence is not older, those that are missing stay, and those in `forgotten` go unless they have a session: the
/// engine's `forgotten_at` is the lowest cursor of those that went, whatever the node says. Messages leave once every device has
/// acknowledged them, which only the engine can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicState {
    /// Messages up to this offset are not kept any more.
    pub floor: u64,
    /// The highest offset that left other than by its own ttl; at most `floor`.
    pub lost: u64,
    /// Of an inbox: its user has signed in.
    pub known: bool,
    /// Of an inbox: the lowest cursor of a device that was forgotten.
    pub forgotten_at: Option<u64>,
    /// Of an inbox: its known devices. Where several nodes share an engine, those with a session on this node.
    pub devices: Vec<DeviceState>,
    /// Of an inbox, where several nodes share an engine: devices that are not to be known any more unless they have a session.
    pub forgotten: Vec<Arc<str>>,
}

/// A device of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// Unique within the user.
    pub name: Arc<str>,
    /// Everything up to this offset was acknowledged.
    pub cursor: u64,
    /// When its last session ended; none while it is connected.
    pub away_since_ms: Option<u64>,
    /// Its cursor went on over copies of what it had sent itself: what its client had acknowledged before those.
    pub skipped_from: Option<u64>,
    /// The claim of its newest session, where several nodes share an engine; else 0.
    pub fence: u64,
}

/// A topic as an engine has it.
#[derive(Clone, Debug, Default)]
pub struct LoadedTopic {
    /// Its newest message. The engine makes the epoch, and never the same one twice.
    pub position: Position,
    /// As it was told, but for messages that have left by their age since.
    pub state: TopicState,
    /// When the first message after the floor leaves; none if there is no such message.
    pub due_unix_ms: Option<u64>,
    /// Where the engine has begun this epoch with what it had of others: each of those epochs, and up to where its messages have the
    /// same offsets here. The oldest may be missing.
    pub before: Vec<Position>,
}

impl LoadedTopic {
    pub(crate) fn extent(&self, now: Now) -> Extent {
        let due_ms = self.due_unix_ms.map_or(u64::MAX, |due| to_mono_ms(due, now));
        Extent {
            position: self.position,
            floor: self.state.floor,
            lost: self.state.lost,
            due_ms,
            before: self.before.clone(),
        }
    }
}

/// A wall-clock time as a time of the monotonic clock, as the two stand now.
pub fn to_mono_ms(unix_ms: u64, now: Now) -> u64 {
    now.mono_ms().saturating_add_signed(unix_ms.wrapping_sub(now.unix_ms) as i64)
}

/// A time of the monotonic clock as a wall-clock time, as the two stand now.
pub fn to_unix_ms(mono_ms: u64, now: Now) -> u64 {
    now.unix_ms.saturating_add_signed(mono_ms.wrapping_sub(now.mono_ms()) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_given_by_one_clock_then_the_other_says_the_same_moment() {
        let now = Now { mono_us: 5_000_000, unix_ms: 1_800_000_000_000 };
        assert_eq!(to_mono_ms(now.unix_ms + 7, now), 5_007);
        assert_eq!(to_mono_ms(now.unix_ms - 4_999, now), 1);
        assert_eq!(to_mono_ms(now.unix_ms - 9_000, now), 0, "before the process started");
        assert_eq!((to_unix_ms(5_007, now), to_unix_ms(0, now)), (now.unix_ms + 7, now.unix_ms - 5_000));
    }
}
