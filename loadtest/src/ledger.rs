//! What was sent and what arrived: lost, duplicated and reordered are counted, not guessed.
//!
//! Every payload carries run, sender, sequence and planned time. A receiver keeps one small state per sender that it
//! hears from, so memory does not grow with the length of a run.

use std::collections::{BTreeSet, HashMap};

/// Bytes of the stamp at the front of every payload.
pub(crate) const STAMP_BYTES: usize = 32;

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which run; others' messages are ignored.
    pub(crate) run: u64,
    /// Number of the sending client.
    pub(crate) sender: u32,
    /// 1, 2, 3, ... per sender and topic.
    pub(crate) sequence: u32,
    /// When it was to be sent, and when it was.
    pub(crate) when: When,
}

/// A planned time and how late it was kept, in 64 bits: 40 of microseconds since the run's zero, 24 of lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct When(pub(crate) u64);

impl When {
    pub(crate) fn new(planned_ns: u64, sent_ns: u64) -> When {
        let lag_us = sent_ns.saturating_sub(planned_ns) / 1000;
        When((planned_ns / 1000) << 24 | lag_us.min(0xff_ffff))
    }

    /// Microseconds since the run's zero.
    pub(crate) fn planned_us(self) -> u64 {
        self.0 >> 24
    }

    /// The same.
    pub(crate) fn sent_us(self) -> u64 {
        self.planned_us() + (self.0 & 0xff_ffff)
    }
}

impl Stamp {
    /// A payload of `bytes`, at least [`STAMP_BYTES`].
    pub(crate) fn payload(self, bytes: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(bytes.max(STAMP_BYTES));
        payload.extend_from_slice(&self.run.to_le_bytes());
        payload.extend_from_slice(&self.sender.to_le_bytes());
        payload.extend_from_slice(&self.sequence.to_le_bytes());
        payload.extend_from_slice(&self.when.0.to_le_bytes());
        payload.extend_from_slice(&self.checksum().to_le_bytes());
        payload.resize(bytes.max(STAMP_BYTES), b'.');
        payload
    }

    /// Reads a payload; none if it is not ours or was damaged.
    pub(crate) fn parse(payload: &[u8]) -> Option<Stamp> {
        let word = |at: usize| Some(u64::from_le_bytes(payload.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_le_bytes(payload.get(at..at + 4)?.try_into().ok()?));
        let stamp = Stamp { run: word(0)?, sender: half(8)?, sequence: half(12)?, when: When(word(16)?) };
        (word(24)? == stamp.checksum()).then_some(stamp)
    }

    fn checksum(self) -> u64 {
        let mix = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        [self.run, self.sender.into(), self.sequence.into(), self.when.0].into_iter().fold(1, mix)
    }
}

/// What a receiver has of one sender.
#[derive(Debug, Default)]
struct Heard {
    /// Everything up to here has come.
    complete: u32,
    /// Beyond that, what has come early.
    early: BTreeSet<u32>,
}

/// What became of messages, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Found {
    /// Different messages that arrived.
    pub(crate) delivered: u64,
    /// Arrived again.
    pub(crate) duplicated: u64,
    /// Arrived after a later one of the same sender.
    pub(crate) reordered: u64,
    /// Not ours, or damaged.
    pub(crate) corrupted: u64,
}

impl std::iter::Sum for Found {
    fn sum<I: Iterator<Item = Found>>(all: I) -> Found {
        all.fold(Found::default(), |sum, found| Found {
            delivered: sum.delivered + found.delivered,
            duplicated: sum.duplicated + found.duplicated,
            reordered: sum.reordered + found.reordered,
            corrupted: sum.corrupted + found.corrupted,
        })
    }
}

/// How somebody who drove clients has ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// What had arrived, as far as that is known.
    pub(crate) found: Found,
    /// Why it ended before it was told to.
    pub(crate) error: Option<String>,
}

impl Ended {
    /// Waits for a thread to end.
    pub(crate) fn join(thread: std::thread::JoinHandle<Ended>) -> Ended {
        let panicked = || Ended { error: Some("a driver thread panicked".to_owned()), ..Ended::default() };
        thread.join().unwrap_or_else(|_| panicked())
    }
}

/// What became of messages, as the clients of one ring saw it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    heard: HashMap<(u32, u32), Heard>,
    /// The figures.
    pub(crate) found: Found,
}

impl Ledger {
    /// A message has arrived. True if it is the first time.
    pub(crate) fn arrived(&mut self, receiver: u32, stamp: Stamp) -> bool {
        let heard = self.heard.entry((receiver, stamp.sender)).or_default();
        let sequence = stamp.sequence;
        if sequence <= heard.complete || heard.early.contains(&sequence) {
            self.found.duplicated += 1;
            return false;
        }
        self.found.delivered += 1;
        if sequence == heard.complete + 1 && heard.early.is_empty() {
            heard.complete = sequence;
            return true;
        }
        if heard.early.last().is_some_and(|latest| sequence < *latest) {
            self.found.reordered += 1;
        }
        heard.early.insert(sequence);
        while heard.early.remove(&(heard.complete + 1)) {
            heard.complete += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u32) -> Stamp {
        Stamp { run: 1, sender: 2, sequence, when: When::new(5_000_000, 7_001_000) }
    }

    #[test]
    fn payloads_survive_and_damage_is_seen() {
        let mut payload = stamp(7).payload(100);
        assert_eq!(payload.len(), 100);
        assert_eq!(Stamp::parse(&payload), Some(stamp(7)));
        payload[13] ^= 1;
        assert_eq!(Stamp::parse(&payload), None);
        assert_eq!(Stamp::parse(b"short"), None);
        assert_eq!((stamp(7).when.planned_us(), stamp(7).when.sent_us()), (5_000, 7_001));
    }

    #[test]
    fn duplicates_and_reordering_are_told_apart() {
        let mut ledger = Ledger::default();
        for sequence in [1, 2, 4, 3, 3, 5, 1] {
            ledger.arrived(9, stamp(sequence));
        }
        assert_eq!((ledger.found.delivered, ledger.found.duplicated, ledger.found.reordered), (5, 2, 1));
        assert!(ledger.heard.values().all(|heard| heard.early.is_empty() && heard.complete == 5));
    }

    #[test]
    fn a_hole_is_neither() {
        let mut ledger = Ledger::default();
        ledger.arrived(9, stamp(1));
        ledger.arrived(9, stamp(3));
        ledger.arrived(9, stamp(4));
        assert_eq!((ledger.found.delivered, ledger.found.duplicated, ledger.found.reordered), (3, 0, 0));
    }
}
