//! A topic's log in memory: offsets without holes, bounded by count and age.
//!
//! Sequencing ([`Log::next_position`]) and committing ([`Log::commit`]) are separate, so that a store that answers
//! later can stand between them. An entry whose own ttl has passed leaves an empty place: offsets never move.
//! Invariant: entry `i` has offset `first_offset + i`, and `bytes` is the sum of what the entries hold.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::id::{Address, Position};

/// What one entry costs beyond its frame.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<Retained>() + 32;

/// A retained message.
#[derive(Clone, Debug)]
pub struct Retained {
    /// The whole Message frame; empty once its own ttl has passed.
    pub frame: Bytes,
    /// Unix milliseconds after which it is no longer brought.
    expires_ms: u64,
    /// The session that published it, packed ([`Address::to_u64`]), for sender exclusion; 0 for none.
    origin: u64,
}

/// Bounds of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Most messages.
    pub messages_max: usize,
    /// Longest stay, in milliseconds.
    pub age_ms_max: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    epoch: u64,
    first_offset: u64,
    entries: VecDeque<Retained>,
    bytes: usize,
}

/// What a reader gets.
#[derive(Debug, Default)]
pub struct Gap {
    /// Offset and frame, in order.
    pub frames: Vec<(u64, Bytes)>,
    /// Everything up to this offset was considered.
    pub upto: u64,
    /// The log holds more after `upto`.
    pub more: bool,
    /// The log no longer reaches back to where the reader stands; the frames start after the hole.
    pub lost: bool,
}

impl Log {
    /// An empty log of a new epoch.
    pub fn new(epoch: u64) -> Self {
        Log { epoch, first_offset: 1, entries: VecDeque::new(), bytes: 0 }
    }

    /// The newest position; offset 0 before the first message.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.first_offset + self.entries.len() as u64 - 1 }
    }

    /// The position that the next message will have.
    pub fn next_position(&self) -> Position {
        let position = self.position();
        Position { offset: position.offset + 1, ..position }
    }

    /// Everything after this offset is retained.
    pub fn floor(&self) -> u64 {
        self.first_offset - 1
    }

    /// Bytes held, with overhead.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages held, whether their own ttl has passed or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no message is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends the message of [`Self::next_position`].
    pub fn commit(&mut self, frame: Bytes, expires_ms: u64, origin: Option<Address>) {
        self.bytes += frame.len() + ENTRY_OVERHEAD_BYTES;
        self.entries.push_back(Retained { frame, expires_ms, origin: origin.map_or(0, Address::to_u64) });
    }

    /// Removes the oldest message.
    pub fn pop_front(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        self.bytes -= entry.frame.len() + ENTRY_OVERHEAD_BYTES;
        self.first_offset += 1;
        true
    }

    /// Removes what is over the count (returned first) and what is too old (returned second).
    pub fn trim(&mut self, limits: LogLimits, unix_ms: u64) -> (u64, u64) {
        let (mut over, mut old) = (0, 0);
        while self.entries.len() > limits.messages_max && self.pop_front() {
            over += 1;
        }
        while self.entries.front().is_some_and(|entry| entry.expires_ms <= unix_ms) && self.pop_front() {
            old += 1;
        }
        if self.entries.is_empty() && self.entries.capacity() > 8 {
            self.entries.shrink_to(0);
        }
        (over, old)
    }

    /// Messages after `since`, at most `messages_max` and about `bytes_max`. `without` leaves out what that session
    /// published.
    pub fn after(
        &self,
        since: u64,
        messages_max: usize,
        bytes_max: usize,
        without: Option<Address>,
        unix_ms: u64,
    ) -> Gap {
        let lost = since < self.floor();
        let start = since.max(self.floor());
        let mut gap = Gap { frames: Vec::new(), upto: start, more: false, lost };
        let mut bytes = 0;
        let without = without.map(Address::to_u64);
        for entry in self.entries.iter().skip((start - self.floor()) as usize) {
            if gap.frames.len() >= messages_max || (bytes + entry.frame.len() > bytes_max && bytes > 0) {
                gap.more = true;
                break;
            }
            gap.upto += 1;
            if entry.expires_ms > unix_ms && !entry.frame.is_empty() && without != Some(entry.origin) {
                bytes += entry.frame.len();
                gap.frames.push((gap.upto, entry.frame.clone()));
            }
        }
        gap
    }

    /// Where a reader that wants the newest `messages` starts.
    pub fn newest(&self, messages: usize) -> u64 {
        self.position().offset - self.entries.len().min(messages) as u64
    }

    /// Whether a reader at this position can be brought everything after it.
    pub fn reaches(&self, since: Position) -> bool {
        since.epoch == self.epoch && since.offset >= self.floor() && since.offset <= self.position().offset
    }

    /// Panics when the structure is broken; for tests.
    pub fn invariants(&self) {
        let bytes: usize = self.entries.iter().map(|entry| entry.frame.len() + ENTRY_OVERHEAD_BYTES).sum();
        assert_eq!(bytes, self.bytes);
        assert!(self.first_offset >= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(messages: usize) -> Log {
        let mut log = Log::new(7);
        for index in 0..messages {
            log.commit(Bytes::from(vec![index as u8; 10]), 1000 + index as u64, None);
        }
        log
    }

    #[test]
    fn positions_go_on_when_the_front_leaves() {
        let mut log = filled(5);
        assert_eq!(log.position(), Position { epoch: 7, offset: 5 });
        assert_eq!(log.trim(LogLimits { messages_max: 3, age_ms_max: 0 }, 0), (2, 0));
        assert_eq!(log.position().offset, 5);
        assert_eq!(log.floor(), 2);
        assert_eq!(log.trim(LogLimits { messages_max: 3, age_ms_max: 0 }, 1003), (0, 2));
        assert_eq!(log.next_position().offset, 6);
        log.invariants();
    }

    #[test]
    fn a_gap_is_cut_by_count_and_bytes_and_says_so() {
        let log = filled(10);
        let gap = log.after(4, 3, 1000, None, 0);
        assert_eq!(gap.frames.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [5, 6, 7]);
        assert!(gap.more && !gap.lost);
        let gap = log.after(4, 100, 25, None, 0);
        assert_eq!((gap.upto, gap.more), (6, true));
        let gap = log.after(10, 100, 1000, None, 0);
        assert_eq!((gap.frames.len(), gap.upto, gap.more), (0, 10, false));
    }

    #[test]
    fn what_left_the_log_is_lost() {
        let mut log = filled(10);
        log.trim(LogLimits { messages_max: 4, age_ms_max: 0 }, 0);
        let gap = log.after(2, 100, 1000, None, 0);
        assert!(gap.lost);
        assert_eq!(gap.frames.first().map(|(offset, _)| *offset), Some(7));
        assert!(!log.reaches(Position { epoch: 7, offset: 5 }));
        assert!(log.reaches(Position { epoch: 7, offset: 6 }));
        assert!(!log.reaches(Position { epoch: 7, offset: 11 }), "a position from the future");
        assert!(!log.reaches(Position { epoch: 8, offset: 7 }));
    }
}
