//! Client message ids that were answered lately: the same id again gets the same answer and causes no second message.
//!
//! Bounded by time and by count; what the count pushes out is counted by the caller. Entries lie in the order in
//! which they came, one cache line each; the [`Index`] beside them only holds their numbers.
//! Invariant: entry `i` of the queue has number `first + i`, modulo 2^32, and every entry is in the index once.

mod blocks;
mod index;

use std::hash::BuildHasher;

use crate::id::{ClientMessageId, Durability, Now, Stamp};
use crate::keyed::{Keyed, keyed};
use blocks::Blocks;
use index::{Index, Live};

/// The answer that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What the message got.
    pub stamp: Stamp,
    /// The level that was reached.
    pub durability: Durability,
}

/// What a client message id is remembered under; made by [`Dedup::key`].
#[derive(Clone, Copy, Debug)]
pub struct DedupKey {
    /// Sender and topic go in as one keyed hash of both: 64 bits beside 128 that the client chose.
    sender_and_topic: u64,
    id: ClientMessageId,
    hash: u64,
}

#[derive(Debug)]
struct Entry {
    sender_and_topic: u64,
    id: ClientMessageId,
    stamp: Stamp,
    /// Monotonic milliseconds, modulo 2^32.
    until_ms: u32,
    durability: Durability,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// See the module.
#[derive(Debug)]
pub struct Dedup {
    index: Index,
    entries: Blocks<Entry>,
    /// Number of the oldest entry.
    first: u32,
    hash: Keyed,
    window_ms: u32,
    entries_max: usize,
}

/// Longest window: further ahead, times modulo 2^32 could not be told from the past.
const WINDOW_MS_MAX: u64 = 1 << 30;

impl Dedup {
    /// Remembers each id for `window_ms`, and at most `entries_max` of them.
    pub fn new(window_ms: u64, entries_max: usize, seed: u64) -> Self {
        Dedup {
            index: Index::default(),
            entries: Blocks::default(),
            first: 0,
            hash: keyed(seed),
            window_ms: window_ms.min(WINDOW_MS_MAX) as u32,
            entries_max: entries_max.clamp(1, u32::MAX as usize / 2),
        }
    }

    /// The key of a message. `sender_and_topic` is a keyed hash of both.
    pub fn key(&self, sender_and_topic: u64, id: ClientMessageId) -> DedupKey {
        DedupKey { sender_and_topic, id, hash: hash_of(&self.hash, sender_and_topic, id) }
    }

    /// Has the processor fetch what [`Self::find`] will look at: it lies anywhere in a lot of memory.
    #[inline]
    pub fn prefetch(&self, key: DedupKey) {
        self.index.prefetch(key.hash);
    }

    /// The answer that this id was given within the window, or until it is swept after that.
    pub fn find(&self, key: DedupKey) -> Option<Answered> {
        let entry = |number: u32| self.entries.get(number.wrapping_sub(self.first) as usize);
        let is_it = |number: u32| {
            entry(number).is_some_and(|entry| entry.id == key.id && entry.sender_and_topic == key.sender_and_topic)
        };
        let found = self.index.find(key.hash, self.live(), is_it).and_then(entry)?;
        Some(Answered { stamp: found.stamp, durability: found.durability })
    }

    /// Remembers the answer to a message that [`Self::find`] did not know. Returns how many were forgotten for it: before
    /// their time, or since [`Self::forget_old`] was called last.
    pub fn remember(&mut self, key: DedupKey, answered: Answered, now: Now) -> u64 {
        let mut evicted = 0;
        while self.entries.len() >= self.entries_max {
            self.forget_first();
            evicted += 1;
        }
        let number = self.first.wrapping_add(self.entries.len() as u32);
        self.entries.push_back(Entry {
            sender_and_topic: key.sender_and_topic,
            id: key.id,
            stamp: answered.stamp,
            until_ms: (now.mono_ms() as u32).wrapping_add(self.window_ms),
            durability: answered.durability,
        });
        let live = self.live();
        let Dedup { index, entries, first, hash, .. } = self;
        let hash_of_number = |number: u32| {
            let entry = entries.get(number.wrapping_sub(*first) as usize);
            entry.map_or(0, |entry| hash_of(hash, entry.sender_and_topic, entry.id))
        };
        evicted + index.insert(key.hash, number, live, hash_of_number)
    }

    /// Forgets what is past its window; to be called now and then.
    pub fn forget_old(&mut self, now: Now) {
        while let Some(entry) = self.entries.front()
            && (now.mono_ms() as u32).wrapping_sub(entry.until_ms) as i32 >= 0
        {
            self.forget_first();
        }
    }

    /// Takes the oldest entry out. The index needs not hear of it: a number that is not in the queue is a free slot.
    fn forget_first(&mut self) {
        if self.entries.drop_front() {
            self.first = self.first.wrapping_add(1);
        }
    }

    fn live(&self) -> Live {
        Live { first: self.first, count: self.entries.len() as u32 }
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }
}

fn hash_of(hash: &Keyed, sender_and_topic: u64, id: ClientMessageId) -> u64 {
    hash.hash_one((sender_and_topic, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_within_window_and_count() {
        let at = |ms: u64| Now { mono_us: ms * 1000, unix_ms: 0 };
        let id = |low| ClientMessageId { high: 1, low };
        let answer = Answered { stamp: Stamp::default(), durability: Durability::Memory };
        let mut dedup = Dedup::new(100, 2, 0);
        dedup.first = u32::MAX;
        let remember = |dedup: &mut Dedup, low, ms| dedup.remember(dedup.key(1, id(low)), answer, at(ms));
        assert_eq!(remember(&mut dedup, 1, 0), 0);
        assert_eq!(dedup.find(dedup.key(1, id(1))), Some(answer));
        assert_eq!(dedup.find(dedup.key(2, id(1))), None, "another sender");
        assert_eq!(dedup.find(dedup.key(1, id(2))), None, "another id");
        remember(&mut dedup, 2, 10);
        assert_eq!(remember(&mut dedup, 3, 20), 1, "the oldest goes");
        assert_eq!(dedup.find(dedup.key(1, id(1))), None);
        assert_eq!(dedup.find(dedup.key(1, id(2))), Some(answer));
        dedup.forget_old(at(110));
        assert_eq!(dedup.len(), 1);
        dedup.forget_old(at(120));
        assert!(dedup.is_empty());
        assert_eq!(dedup.find(dedup.key(1, id(3))), None);
    }

    #[test]
    fn finds_exactly_what_is_in_the_window() {
        let now = Now { mono_us: 0, unix_ms: 0 };
        let key = |dedup: &Dedup, low: u64| dedup.key(low % 7, ClientMessageId { high: low.wrapping_mul(31), low });
        let answer =
            |low| Answered { stamp: Stamp { message_id: low, ..Stamp::default() }, durability: Durability::Memory };
        let mut dedup = Dedup::new(1000, 5_000, 3);
        dedup.first = u32::MAX - 7_000;
        for low in 0..20_000 {
            assert_eq!(dedup.find(key(&dedup, low)), None);
            dedup.remember(key(&dedup, low), answer(low), now);
            let oldest = (low + 1).saturating_sub(5_000);
            assert_eq!(dedup.find(key(&dedup, oldest)), Some(answer(oldest)));
            assert_eq!(dedup.find(key(&dedup, low)), Some(answer(low)));
            if oldest > 0 {
                assert_eq!(dedup.find(key(&dedup, oldest - 1)), None);
            }
        }
        for low in 15_000..20_000 {
            assert_eq!(dedup.find(key(&dedup, low)), Some(answer(low)));
        }
    }

    #[test]
    fn forgets_while_it_grows() {
        // More and more in a window of 100 ms: the index doubles while its oldest entries leave.
        let at = |low: u64| Now { mono_us: low.isqrt() * 20_000, unix_ms: 0 };
        let id = |low| ClientMessageId { high: 1, low };
        let answer =
            |low| Answered { stamp: Stamp { message_id: low, ..Stamp::default() }, durability: Durability::Memory };
        let mut dedup = Dedup::new(100, 1 << 20, 9);
        for low in 0..20_000 {
            dedup.forget_old(at(low));
            assert_eq!(dedup.remember(dedup.key(1, id(low)), answer(low), at(low)), 0);
            let oldest = low + 1 - dedup.len() as u64;
            for known in [oldest, oldest.midpoint(low), low] {
                assert_eq!(dedup.find(dedup.key(1, id(known))), Some(answer(known)), "{known} of {oldest} to {low}");
            }
            if oldest > 0 {
                assert_eq!(dedup.find(dedup.key(1, id(oldest - 1))), None);
            }
        }
        assert!(dedup.len() > 1_000);
    }
}
