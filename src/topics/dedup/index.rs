//! Numbers by hash, for entries that leave in the order in which they came.
//!
//! A set of eight slots is one cache line, and a hash has two sets to choose from. Numbers go up, so a slot whose number is
//! not among the live ones is free, and nothing is ever taken out: forgetting an entry touches no memory here. (In a
//! common hash table that was two cache misses for each message, 4 % of what a message costs.) Where both sets are full,
//! the index doubles; were that ever to help no more, the older entry would go. What was there is moved a few at a time,
//! with the numbers that come after: no message waits for a million others.

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
}

/// Eight slots. Tags and numbers lie apart, so that eight of them are compared at once.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Set {
    /// Half of the hash: who compares it looks at another's entry once in four billion times.
    tags: [u32; SLOTS],
    numbers: [u32; SLOTS],
}

const SLOTS: usize = 8;

impl Set {
    /// How many slots are free.
    fn room(&self, live: Live) -> usize {
        self.numbers.iter().map(|number| usize::from(!live.contains(*number))).sum()
    }

    /// The numbers under this tag.
    fn tagged(&self, tag: u32) -> impl Iterator<Item = u32> {
        let any = self.tags.iter().fold(false, |any, other| any | (*other == tag));
        let slots = if any { SLOTS } else { 0 };
        self.tags
            .iter()
            .zip(&self.numbers)
            .take(slots)
            .filter(move |(other, _)| **other == tag)
            .map(|(_, number)| *number)
    }

    fn set(&mut self, slot: usize, tag: u32, number: u32) -> bool {
        let (Some(its_tag), Some(its_number)) = (self.tags.get_mut(slot), self.numbers.get_mut(slot)) else {
            return false;
        };
        (*its_tag, *its_number) = (tag, number);
        true
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

/// Numbers that are moved with each that comes: the last one is long before the index doubles again.
const MOVED_AT_ONCE: u32 = 4;

impl Index {
    /// Asks the processor for what [`Self::find`] will look at.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        for set in both(&self.sets, hash).chain(both(&self.outgrown, hash)) {
            prefetch(set);
        }
    }

    /// The number under this hash for which `is_it` says yes.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag_of(hash);
        let mut sets = both(&self.sets, hash).chain(both(&self.outgrown, hash));
        sets.find_map(|set| set.tagged(tag).find(|number| is_it(*number)))
    }

    /// Puts in a number, which is live, once. `hash_of` gives the hash of any live number. Returns how many others it pushed
    /// out: none, unless many hashes are the same.
    pub(super) fn insert(&mut self, hash: u64, number: u32, live: Live, hash_of: impl Fn(u32) -> u64) -> u64 {
        let mut pushed_out = self.move_some(MOVED_AT_ONCE, live, &hash_of);
        while !self.put(hash, number, live) {
            if self.sets.len() >= live.count as usize {
                // Eight slots for each already: more would not help.
                self.displace(hash, number, live);
                return pushed_out + 1;
            }
            pushed_out += self.move_some(u32::MAX, live, &hash_of);
            let sets = (2 * self.sets.len()).max(1);
            let free = Set { tags: [0; SLOTS], numbers: [live.first.wrapping_sub(1); SLOTS] };
            self.outgrown = core::mem::replace(&mut self.sets, vec![free; sets]);
            // The new one comes last, by itself.
            self.to_move = Live { count: live.count - 1, ..live };
        }
        pushed_out
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

    /// Into the slot of the oldest in both sets.
    fn displace(&mut self, hash: u64, number: u32, live: Live) {
        let slots = places(&self.sets, hash).into_iter().flat_map(|place| (0..SLOTS).map(move |slot| (place, slot)));
        let age = |(place, slot): &(usize, usize)| {
            let other = self.sets.get(*place).and_then(|set| set.numbers.get(*slot));
            other.map_or(u32::MAX, |other| other.wrapping_sub(live.first))
        };
        if let Some((place, slot)) = slots.min_by_key(age)
            && let Some(set) = self.sets.get_mut(place)
        {
            set.set(slot, tag_of(hash), number);
        }
    }

    /// Into a free slot: of the first set while that is at most half full, else of the emptier one. False when there is none.
    fn put(&mut self, hash: u64, number: u32, live: Live) -> bool {
        let [first, second] = places(&self.sets, hash);
        let room = |place: usize| self.sets.get(place).map_or(0, |set| set.room(live));
        let room_in_first = room(first);
        let place = if room_in_first < SLOTS / 2 && room(second) > room_in_first { second } else { first };
        let Some(set) = self.sets.get_mut(place) else { return false };
        let slot = set.numbers.iter().position(|other| !live.contains(*other));
        slot.is_some_and(|slot| set.set(slot, tag_of(hash), number))
    }
}

/// The two places of a hash, the second as far from the first as the tag says.
fn places(sets: &[Set], hash: u64) -> [usize; 2] {
    let mask = sets.len().wrapping_sub(1);
    let (low, tag) = (hash as u32 as usize, tag_of(hash));
    [low & mask, (low ^ (tag.wrapping_mul(0x9e37_79b1) >> 3) as usize) & mask]
}

fn both(sets: &[Set], hash: u64) -> impl Iterator<Item = &Set> {
    places(sets, hash).into_iter().filter_map(|place| sets.get(place))
}

fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a hint to the processor: it reads nothing and never faults")]
fn prefetch(set: &Set) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86_64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(set).cast()) };
}

/// Elsewhere the processor is left to itself.
#[cfg(not(target_arch = "x86_64"))]
fn prefetch(_set: &Set) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_that_are_all_the_same_cost_neither_memory_nor_the_newest() {
        let mut index = Index::default();
        let mut pushed_out = 0;
        for number in 0..1000 {
            pushed_out += index.insert(7, number, Live { first: 0, count: number + 1 }, |_| 7);
        }
        assert!(index.sets.len() <= 1024, "{} sets", index.sets.len());
        assert!(pushed_out >= 980);
        assert_eq!(index.find(7, |number| number == 999), Some(999));
        assert_eq!(index.find(7, |number| number == 0), None);
    }
}
