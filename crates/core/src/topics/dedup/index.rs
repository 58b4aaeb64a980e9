//! Numbers by hash, for entries that leave in the order in which they came.
//!
//! A set of ten slots is one cache line. A hash has a chain of sets, and its number goes into the first that has a free slot;
//! every full set on the way notes the number that passed it. A lookup goes on to the next set only if a live number has passed
//! this one: nearly always one line is all that is touched, of memory that is in no cache and whose page the processor
//! has to look up, too. Numbers go up, so a slot whose number is not among the live ones is free, and nothing is ever
//! taken out: forgetting an entry touches no memory here. Where more than six of ten slots are taken, or all sets of a chain are
//! full, the index doubles; if that does not help, the oldest number of the chain is pushed out. What was there is moved a few at a time, with the numbers that come
//! after: no message waits for a million others.

use crate::prefetch::prefetch;

/// Consecutive numbers, such as those in use: `first` and the `count - 1` after it, modulo 2^32.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Live {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Live {
    fn contains(self, number: u32) -> bool {
        number.wrapping_sub(self.first) < self.count
    }

    /// The age of a live number: 1 for the newest.
    fn age(self, number: u32) -> u32 {
        self.count.wrapping_sub(number.wrapping_sub(self.first))
    }
}

/// Slots of one cache line. Tags and numbers lie apart, so that tags are compared at once.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Set {
    numbers: [u32; SLOTS],
    /// The newest number that found no room here.
    passed: u32,
    /// A quarter of the hash: comparing it leads to a wrong entry once in 6 500 times.
    tags: [u16; SLOTS],
}

const SLOTS: usize = 10;
const _: () = assert!(size_of::<Set>() == 64);

impl Set {
    /// The numbers under this tag.
    fn tagged(&self, tag: u16) -> impl Iterator<Item = u32> {
        let any = self.tags.iter().fold(false, |any, other| any | (*other == tag));
        let slots = if any { SLOTS } else { 0 };
        self.tags
            .iter()
            .zip(&self.numbers)
            .take(slots)
            .filter(move |(other, _)| **other == tag)
            .map(|(_, number)| *number)
    }

    fn set(&mut self, slot: usize, tag: u16, number: u32) {
        if let (Some(its_tag), Some(its_number)) = (self.tags.get_mut(slot), self.numbers.get_mut(slot)) {
            (*its_tag, *its_number) = (tag, number);
        }
    }

    /// A number goes on to the next set of its chain. Those that are moved are older than others that have passed.
    fn pass(&mut self, number: u32, live: Live) {
        if !live.contains(self.passed) || live.age(number) < live.age(self.passed) {
            self.passed = number;
        }
    }
}

/// See the module. The number of sets is a power of two; none before the first entry.
#[derive(Debug, Default)]
pub(super) struct Index {
    sets: Vec<Set>,
    /// What `sets` replaces: numbers that are still to be moved are found here alone.
    outgrown: Vec<Set>,
    /// Numbers to be moved, those that were live when the index doubled.
    to_move: Live,
}

/// Numbers in a set, on average, with which the index doubles: with more, too many are in the second set of their chain.
const FILLED: usize = 6;
/// Numbers that are moved with each that comes: the last one is long before the index doubles again.
const MOVED_AT_ONCE: u32 = 4;

impl Index {
    /// Prefetches what [`Self::find`] will read first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        for sets in [&self.sets, &self.outgrown] {
            if let Some(set) = chain(sets.len(), hash).next().and_then(|place| sets.get(place)) {
                prefetch(set);
            }
        }
    }

    /// The number under this hash for which `is_it` says yes.
    pub(super) fn find(&self, hash: u64, live: Live, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag_of(hash);
        for sets in [&self.sets, &self.outgrown] {
            for set in chain(sets.len(), hash).filter_map(|place| sets.get(place)) {
                if let Some(number) = set.tagged(tag).find(|number| is_it(*number)) {
                    return Some(number);
                }
                if !live.contains(set.passed) {
                    break;
                }
            }
        }
        None
    }

    /// Puts in a number, which is live, once. `hash_of` gives the hash of any live number. Returns how many others it pushed
    /// out: none, unless many hashes are the same.
    pub(super) fn insert(&mut self, hash: u64, number: u32, live: Live, hash_of: impl Fn(u32) -> u64) -> u64 {
        let mut pushed_out = self.move_some(MOVED_AT_ONCE, live, &hash_of);
        if self.outgrown.is_empty() && live.count as usize > self.sets.len() * FILLED {
            self.double(live);
        }
        while !self.put(hash, number, live) {
            if self.sets.len() >= live.count as usize {
                // Ten slots for each already: more would not help.
                self.displace(hash, number, live);
                return pushed_out + 1;
            }
            pushed_out += self.move_some(u32::MAX, live, &hash_of);
            self.double(live);
        }
        pushed_out
    }

    /// Begins to move everything but the newest number, which comes by itself, into twice as many sets.
    fn double(&mut self, live: Live) {
        let sets = (2 * self.sets.len()).max(1);
        let nobody = live.first.wrapping_sub(1);
        let free = Set { numbers: [nobody; SLOTS], passed: nobody, tags: [0; SLOTS] };
        self.outgrown = core::mem::replace(&mut self.sets, vec![free; sets]);
        self.to_move = Live { count: live.count - 1, ..live };
    }

    /// Moves the oldest numbers out of the outgrown sets. Returns how many were pushed out.
    fn move_some(&mut self, count: u32, live: Live, hash_of: impl Fn(u32) -> u64) -> u64 {
        if self.outgrown.is_empty() {
            return 0;
        }
        let mut pushed_out = 0;
        for _ in 0..count.min(self.to_move.count) {
            let number = self.to_move.first;
            self.to_move = Live { first: number.wrapping_add(1), count: self.to_move.count - 1 };
            // The set of one that is moved soon is brought while others are.
            let soon = number.wrapping_add(MOVED_AT_ONCE);
            if self.to_move.contains(soon)
                && live.contains(soon)
                && let Some(set) = chain(self.sets.len(), hash_of(soon)).next().and_then(|place| self.sets.get(place))
            {
                prefetch(set);
            }
            if live.contains(number) && !self.put(hash_of(number), number, live) {
                self.displace(hash_of(number), number, live);
                pushed_out += 1;
            }
        }
        if self.to_move.count == 0 {
            self.outgrown = Vec::new();
        }
        pushed_out
    }

    /// Into the slot of the oldest in the chain, which [`Self::put`] has found full.
    fn displace(&mut self, hash: u64, number: u32, live: Live) {
        let mut oldest = (0, 0, 0);
        for place in chain(self.sets.len(), hash) {
            let Some(set) = self.sets.get(place) else { continue };
            for (slot, other) in set.numbers.iter().enumerate() {
                oldest = oldest.max((live.age(*other), place, slot));
            }
        }
        let (_, place, slot) = oldest;
        if let Some(set) = self.sets.get_mut(place) {
            set.set(slot, tag_of(hash), number);
        }
    }

    /// Into the first free slot of the chain; false when there is none.
    fn put(&mut self, hash: u64, number: u32, live: Live) -> bool {
        for place in chain(self.sets.len(), hash) {
            let Some(set) = self.sets.get_mut(place) else { continue };
            if let Some(slot) = set.numbers.iter().position(|other| !live.contains(*other)) {
                set.set(slot, tag_of(hash), number);
                return true;
            }
            set.pass(number, live);
        }
        false
    }
}

/// Most sets of a chain.
const CHAIN: usize = 8;

/// The places of a hash among so many sets, in the order in which they are filled.
fn chain(sets: usize, hash: u64) -> impl Iterator<Item = usize> {
    let mask = sets.wrapping_sub(1);
    // An odd step visits each set of a power of two once.
    let (first, step) = (hash as u32 as usize, (hash >> 32) as usize | 1);
    (0..sets.min(CHAIN)).map(move |nth| first.wrapping_add(nth.wrapping_mul(step)) & mask)
}

fn tag_of(hash: u64) -> u16 {
    (hash >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The finalizer of splitmix64: a different hash for each number.
    fn hash(number: u32) -> u64 {
        let mixed = (u64::from(number) ^ 0x9e37_79b9).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) ^ (mixed >> 31)
    }

    #[test]
    fn index_is_filled_then_most_are_found_in_the_first_set_and_none_is_lost() {
        let mut index = Index::default();
        let live = |number: u32| Live { first: number.saturating_sub(19_999), count: (number + 1).min(20_000) };
        for number in 0..100_000 {
            assert_eq!(index.insert(hash(number), number, live(number), hash), 0);
        }
        let live = live(99_999);
        for number in 0..100_000 {
            let found = index.find(hash(number), live, |other| other == number && live.contains(other));
            assert_eq!(found, live.contains(number).then_some(number));
        }
        assert!(index.sets.len() <= 4096, "{} sets", index.sets.len());
        let passed = index.sets.iter().filter(|set| live.contains(set.passed)).count();
        assert!(passed * 8 < index.sets.len(), "{passed} of {} sets were passed", index.sets.len());
    }

    #[test]
    fn all_hashes_are_the_same_then_memory_is_bounded_and_the_newest_are_found() {
        let live = |number: u32| Live { first: 0, count: number + 1 };
        let mut index = Index::default();
        let mut pushed_out = 0;
        for number in 0..1000 {
            pushed_out += index.insert(7, number, live(number), |_| 7);
        }
        assert!(index.sets.len() <= 1024, "{} sets", index.sets.len());
        assert!(pushed_out >= 900);
        assert_eq!(index.find(7, live(999), |number| number == 999), Some(999));
        assert_eq!(index.find(7, live(999), |number| number == 0), None);
    }
}
