//! A log whose older messages are in an engine and not in memory: only its newest part, the tail, is here.
//!
//! In such a log every offset counts as a message until the floor has passed it: messages leave from the front alone, and one
//! whose own ttl has passed between others stays until then (readers are not brought it).
//! Invariants: `lost <= floor <= start <= last`, and the entries are the messages after `start`, without a hole.

use super::{Log, LogLimits, Retained, Trimmed};
use crate::id::Position;
use crate::topics::publishers::Publishers;

/// What of a log an engine has and memory has not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backing {
    /// Nothing up to this offset is kept any more.
    floor: u64,
    /// Messages after this offset are in memory; those between the floor and here are in the engine alone.
    start: u64,
    /// The oldest message that only the engine has does not expire before this, in monotonic milliseconds.
    due_ms: u64,
    /// The engine is not asked again before this.
    true_until_ms: u64,
    /// Other nodes have readers, too: the engine alone says what is not kept any more.
    is_shared: bool,
}

/// Where a log stands in an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its newest message.
    pub position: Position,
    /// Nothing up to this offset is kept any more.
    pub floor: u64,
    /// The highest offset that left other than by its own ttl.
    pub lost: u64,
    /// When the first message after the floor leaves by its age or its own ttl, in monotonic milliseconds.
    pub due_ms: u64,
    /// Epochs before this one, and up to where their messages have the same offsets.
    pub before: Vec<Position>,
}

impl Extent {
    /// Of a topic without a message.
    pub fn empty(epoch: u64) -> Self {
        Extent { position: Position { epoch, offset: 0 }, floor: 0, lost: 0, due_ms: u64::MAX, before: Vec::new() }
    }
}

/// Messages of a topic in memory.
const TAIL_MESSAGES_MAX: usize = 256;
/// How long what an engine said of a log's age is taken as true.
const EXTENT_TRUE_MS: u64 = 1000;

impl Log {
    /// A log that an engine keeps, of which nothing is in memory. `is_shared`: several nodes share the engine.
    pub fn loaded(extent: Extent, is_shared: bool) -> Self {
        let mut log = Log::resumed(extent.position);
        let last = extent.position.offset;
        let floor = extent.floor.min(last);
        log.lost = extent.lost.min(floor);
        log.backing = Some(Backing { floor, start: last, due_ms: extent.due_ms, true_until_ms: 0, is_shared });
        log.before = (!extent.before.is_empty()).then(|| Box::new(extent.before));
        log
    }

    /// The engine has said once more where the log stands. Returns how many messages had left since.
    pub fn refresh(&mut self, extent: Extent, publishers: &mut Publishers, now_ms: u64) -> u64 {
        let lost = extent.lost.min(self.last);
        let removed = self.pass(extent.floor.max(lost), publishers);
        self.lost = self.lost.max(lost);
        if let Some(backing) = &mut self.backing
            && backing.floor < backing.start
        {
            backing.true_until_ms = now_ms + EXTENT_TRUE_MS;
            // An engine that does not know of our floor speaks of another first message.
            let due_ms = if extent.floor < backing.floor { 0 } else { extent.due_ms };
            backing.due_ms = due_ms.max(backing.true_until_ms);
        }
        removed
    }

    /// Whether messages that are in the engine alone may have left since it said where the log stands.
    pub fn is_stale(&self, now_ms: u64) -> bool {
        self.backing.is_some_and(|backing| backing.floor < backing.start && backing.due_ms <= now_ms)
    }

    /// Nothing up to this offset is kept any more.
    pub fn floor(&self) -> u64 {
        self.backing.map_or(self.lost, |backing| backing.floor)
    }

    /// After which offset the engine has to be read for a reader that stands at `since`; none if memory has all of it.
    pub fn read_after(&self, since: u64) -> Option<u64> {
        let backing = self.backing?;
        let from = since.max(backing.floor);
        (from < backing.start).then_some(from)
    }

    /// Whether an engine keeps the messages.
    pub fn is_backed(&self) -> bool {
        self.backing.is_some()
    }

    /// Whether a position of another epoch is one of this log nevertheless.
    pub(super) fn goes_on_from(&self, since: Position) -> bool {
        let mut before = self.before.iter().flat_map(|before| before.iter());
        before.any(|before| since.epoch == before.epoch && since.offset <= before.offset)
    }

    /// Whether several nodes share the engine.
    pub fn is_shared(&self) -> bool {
        self.backing.is_some_and(|backing| backing.is_shared)
    }

    /// Whether the engine has messages that memory has not.
    pub fn has_more_in_engine(&self) -> bool {
        self.backing.is_some_and(|backing| backing.floor < backing.start)
    }

    /// The log goes on at an offset that the engine has given, although messages before it will not be seen here. Returns how many
    /// offsets those were.
    pub fn pass_over(&mut self, offset: u64, publishers: &mut Publishers) -> u64 {
        if self.backing.is_none() || offset <= self.last {
            return 0;
        }
        let passed = offset - self.last;
        while self.take_front(publishers).is_some() {}
        self.last = offset;
        if let Some(backing) = &mut self.backing {
            if backing.floor == backing.start {
                // Of the first message that the engine alone has nothing is known.
                backing.due_ms = backing.true_until_ms;
            }
            backing.start = offset;
        }
        passed
    }

    /// The messages up to an offset are not kept any more. Returns how many those were.
    pub(super) fn pass(&mut self, offset: u64, publishers: &mut Publishers) -> u64 {
        let Some(backing @ Backing { floor, start, due_ms, true_until_ms, .. }) = self.backing else { return 0 };
        let passed = offset.min(self.last);
        if passed <= floor {
            return 0;
        }
        while self.entries.front().is_some_and(|entry| entry.offset <= passed) {
            self.take_front(publishers);
        }
        let start = start.max(passed);
        // When the new first message expires is not known.
        let due_ms = if passed == start { u64::MAX } else { due_ms.min(true_until_ms) };
        self.backing = Some(Backing { floor: passed, start, due_ms, ..backing });
        passed - floor
    }

    /// [`Log::remove_through`] of a log that an engine keeps. Where it is shared, no reader of this node needs the messages any more,
    /// and those of others may: they leave memory alone.
    pub(super) fn remove_backed(&mut self, offset: u64, publishers: &mut Publishers) -> u64 {
        if self.backing.is_some_and(|backing| backing.is_shared) {
            while self.entries.front().is_some_and(|entry| entry.offset <= offset) {
                self.hand_over(publishers);
            }
            return 0;
        }
        let removed = self.pass(offset, publishers);
        self.lost = if removed > 0 { self.floor() } else { self.lost };
        removed
    }

    /// [`Log::trim`] of a log that an engine keeps. `bytes_max` bounds what is in memory: beyond it messages are in the engine
    /// alone.
    pub(super) fn trim_backed(&mut self, limits: LogLimits, now_ms: u64, publishers: &mut Publishers) -> Trimmed {
        let mut trimmed = Trimmed::default();
        while let Some(front) = self.entries.front().filter(|front| front.is_dead(now_ms)) {
            let (offset, is_own) = (front.offset, front.expires.is_own());
            // What is older has reached the age limit before. A message with a ttl of its own says nothing of those before it.
            if is_own && self.has_more_in_engine() {
                self.hand_over(publishers);
                continue;
            }
            trimmed.age += self.pass(offset, publishers);
            if !is_own {
                self.lost = offset;
            }
        }
        let over = self.last.saturating_sub(limits.messages_max as u64);
        trimmed.count = self.pass(over, publishers);
        if trimmed.count > 0 {
            self.lost = over;
        }
        while self.entries.len() > TAIL_MESSAGES_MAX || self.held > limits.bytes_max {
            self.hand_over(publishers);
        }
        if self.entries.is_empty() || self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        trimmed
    }

    /// The oldest message in memory is in the engine alone from now on.
    fn hand_over(&mut self, publishers: &mut Publishers) {
        let Some(Retained { offset, expires, .. }) = self.take_front(publishers) else { return };
        if let Some(backing) = &mut self.backing {
            if backing.floor == backing.start {
                backing.due_ms = expires.at_ms();
            }
            backing.start = offset;
        }
    }

    pub(super) fn backing_invariants(&self) {
        let Some(Backing { floor, start, .. }) = self.backing else { return };
        assert!(self.lost <= floor && floor <= start && start <= self.last, "the marks of a log are in order");
        assert_eq!(self.entries.len() as u64, self.last - start, "the tail has no hole");
        assert!(self.entries.iter().map(|entry| entry.offset).eq(start + 1..=self.last), "the tail has no hole");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::Message;
    use bytes::Bytes;

    const LIMITS: LogLimits = LogLimits { messages_max: 1000, bytes_max: usize::MAX, age_ms_max: 1000 };

    struct Backed {
        log: Log,
        publishers: Publishers,
    }

    impl Backed {
        /// Of nine messages, of which the first three are not kept any more.
        fn new() -> Backed {
            let position = Position { epoch: 7, offset: 9 };
            let extent = Extent { position, floor: 3, lost: 2, due_ms: 500, before: Vec::new() };
            Backed { log: Log::loaded(extent, false), publishers: Publishers::default() }
        }

        fn commit(&mut self, ttl_ms: u64, now_ms: u64) {
            let message = Message { frame: Bytes::from_static(&[1; 10]), ttl_ms, from: None, publisher: 1 };
            self.log.commit(message, true, LIMITS, &mut self.publishers, now_ms);
            self.check();
        }

        fn trim(&mut self, limits: LogLimits, now_ms: u64) -> (u64, u64) {
            let Trimmed { age, count, .. } = self.log.trim(limits, now_ms, &mut self.publishers);
            self.check();
            (age, count)
        }

        fn check(&self) {
            let mut sums = std::collections::HashMap::new();
            self.log.invariants(&mut sums);
            assert!(sums.iter().all(|(publisher, bytes)| self.publishers.held(*publisher) == *bytes));
        }
    }

    #[test]
    fn reader_stands_before_the_tail_then_the_engine_is_to_be_read_from_the_floor() {
        let mut backed = Backed::new();
        backed.commit(0, 0);
        assert_eq!((backed.log.position().offset, backed.log.len(), backed.log.floor()), (10, 7, 3));
        let reads: Vec<_> = [0, 2, 3, 8, 9, 10].iter().map(|since| backed.log.read_after(*since)).collect();
        assert_eq!(reads, [Some(3), Some(3), Some(3), Some(8), None, None]);
        let gap = backed.log.after(9, 10, 1000, None, 0);
        assert_eq!((gap.frames.len(), gap.upto, gap.more, gap.lost), (1, 10, false, false));
        let reaches = |offset| backed.log.reaches(Position { epoch: 7, offset });
        assert_eq!((reaches(1), reaches(2), reaches(3), reaches(10), reaches(11)), (false, true, true, true, false));
    }

    #[test]
    fn tail_is_too_long_or_too_large_then_the_engine_alone_has_the_rest_and_nothing_is_lost() {
        let mut backed = Backed::new();
        (0..TAIL_MESSAGES_MAX as u64 + 5).for_each(|_| backed.commit(0, 0));
        assert_eq!(backed.trim(LIMITS, 0), (0, 0));
        assert_eq!((backed.log.read_after(0), backed.log.read_after(14)), (Some(3), None));
        assert_eq!((backed.log.lost(), backed.log.floor(), backed.log.len()), (2, 3, 6 + TAIL_MESSAGES_MAX + 5));
        assert_eq!(backed.trim(LogLimits { bytes_max: 0, ..LIMITS }, 0), (0, 0));
        assert_eq!((backed.log.heap_bytes(), backed.log.len()), (0, 6 + TAIL_MESSAGES_MAX + 5));
    }

    #[test]
    fn messages_are_acknowledged_or_too_many_then_the_floor_rises_and_says_how_many_left() {
        let mut backed = Backed::new();
        (0..3).for_each(|_| backed.commit(0, 0));
        assert_eq!(backed.log.remove_through(5, 0, &mut backed.publishers), 2);
        assert_eq!((backed.log.floor(), backed.log.lost(), backed.log.is_empty()), (5, 5, false));
        assert_eq!(backed.trim(LogLimits { messages_max: 2, ..LIMITS }, 0), (0, 5));
        assert_eq!((backed.log.floor(), backed.log.lost(), backed.log.read_after(0)), (10, 10, None));
        assert_eq!(backed.log.remove_through(99, 0, &mut backed.publishers), 2);
        assert!(backed.log.is_empty() && !backed.log.is_stale(u64::MAX));
        backed.check();
    }

    #[test]
    fn readers_of_one_of_several_nodes_have_acknowledged_messages_then_the_engine_alone_has_them() {
        let extent =
            Extent { position: Position { epoch: 7, offset: 9 }, floor: 3, lost: 2, due_ms: 500, before: Vec::new() };
        let mut backed = Backed { log: Log::loaded(extent, true), publishers: Publishers::default() };
        (0..3).for_each(|_| backed.commit(0, 0));
        assert_eq!(backed.log.remove_through(11, 0, &mut backed.publishers), 0);
        assert_eq!((backed.log.floor(), backed.log.lost()), (3, 2));
        assert_eq!((backed.log.read_after(10), backed.log.read_after(11)), (Some(10), None));
        backed.check();
    }

    #[test]
    fn engine_has_carried_an_epoch_over_then_its_positions_are_good_up_to_there() {
        let (position, before) = (Position { epoch: 7, offset: 9 }, vec![Position { epoch: 5, offset: 6 }]);
        let log = Log::loaded(Extent { position, floor: 3, lost: 2, due_ms: 500, before }, true);
        let reaches = |epoch, offset| log.reaches(Position { epoch, offset });
        assert_eq!([reaches(5, 1), reaches(5, 2), reaches(5, 6), reaches(5, 7)], [false, true, true, false]);
        assert_eq!([reaches(7, 7), reaches(6, 6)], [true, false]);
    }

    #[test]
    fn front_of_the_tail_is_too_old_then_everything_before_it_is() {
        let mut backed = Backed::new();
        backed.commit(10, 0);
        backed.commit(0, 5);
        assert_eq!(backed.trim(LIMITS, 10), (0, 0), "its own ttl says nothing of what the engine has before it");
        assert_eq!((backed.log.read_after(9), backed.log.read_after(10)), (Some(9), None));
        assert_eq!(backed.trim(LIMITS, 1005), (8, 0));
        assert_eq!((backed.log.floor(), backed.log.lost(), backed.log.is_empty()), (11, 11, true));
    }

    #[test]
    fn own_ttl_of_the_oldest_message_passes_then_nothing_is_lost() {
        let position = Position { epoch: 7, offset: 0 };
        let log = Log::loaded(Extent { position, floor: 0, lost: 0, due_ms: u64::MAX, before: Vec::new() }, false);
        let mut backed = Backed { log, publishers: Publishers::default() };
        backed.commit(10, 0);
        backed.commit(0, 0);
        assert_eq!(backed.trim(LIMITS, 10), (1, 0));
        assert_eq!((backed.log.floor(), backed.log.lost()), (1, 0));
    }

    #[test]
    fn messages_are_passed_over_then_the_engine_is_asked_which_of_them_are_kept() {
        let position = Position { epoch: 7, offset: 3 };
        let log = Log::loaded(Extent { position, floor: 3, lost: 3, due_ms: u64::MAX, before: Vec::new() }, true);
        let mut backed = Backed { log, publishers: Publishers::default() };
        backed.commit(0, 0);
        assert_eq!(backed.log.pass_over(9, &mut backed.publishers), 5);
        assert!(backed.log.is_stale(0) && backed.log.read_after(3) == Some(3));
        assert_eq!(backed.log.pass_over(9, &mut backed.publishers), 0);
        backed.check();
    }

    #[test]
    fn age_may_have_taken_messages_then_the_engine_is_asked_again_and_believed() {
        let mut backed = Backed::new();
        assert!(!backed.log.is_stale(499) && backed.log.is_stale(500));
        let extent = Extent { position: backed.log.position(), floor: 6, lost: 5, due_ms: 700, before: Vec::new() };
        assert_eq!(backed.log.refresh(extent.clone(), &mut backed.publishers, 500), 3);
        assert_eq!((backed.log.floor(), backed.log.lost()), (6, 5));
        assert!(!backed.log.is_stale(1499) && backed.log.is_stale(1500), "not asked all the time");
        assert_eq!(
            backed.log.refresh(Extent { floor: 1, ..extent.clone() }, &mut backed.publishers, 500),
            0,
            "marks never fall"
        );
        assert!(backed.log.is_stale(1500), "it spoke of a message that is not the first one here");
        backed.check();
    }
}
