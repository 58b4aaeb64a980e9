//! Numbers by hash, for entries that leave in the order in which they came.
//!
//! A set of eight slots is one cache line, and a hash has two sets to choose from. Numbers go up, so a slot whose number is
//! not among the live ones is free, and nothing is ever taken out: forgetting an entry touches no memory here. (In a
//! common hash table that was two cache misses for each message, 4 % of what a message costs.) Where both sets are full,
//! the index doubles; were that ever to help no more, the older entry would go.

/// The numbers in use: `first` and the `count - 1` after it, modulo 2^32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Live {
    fn contains(self, number: u32) -> bool {
        number.wrapping_sub(self.first) < self.count
    }

    fn numbers(self) -> impl Iterator<Item = u32> {
        (0..self.count).map(move |nth| self.first.wrapping_add(nth))
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Half of the hash: who compares it looks at another's entry once in four billion times.
    tag: u32,
    number: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Set([Slot; 8]);

/// See the module. The number of sets is a power of two; none before the first entry.
#[derive(Debug, Default)]
pub(super) struct Index {
    sets: Vec<Set>,
}

impl Index {
    /// The two sets of a hash, the second as far from the first as the tag says.
    fn places(&self, hash: u64) -> [usize; 2] {
        let mask = self.sets.len().wrapping_sub(1);
        let (low, tag) = (hash as u32 as usize, tag_of(hash));
        [low & mask, (low ^ (tag.wrapping_mul(0x9e37_79b1) >> 3) as usize) & mask]
    }

    /// Asks the processor for both sets.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        for place in self.places(hash) {
            if let Some(set) = self.sets.get(place) {
                prefetch(set);
            }
        }
    }

    /// The number under this hash for which `is_it` says yes.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag_of(hash);
        let sets = self.places(hash).into_iter().filter_map(|place| self.sets.get(place));
        sets.flat_map(|set| &set.0).find(|slot| slot.tag == tag && is_it(slot.number)).map(|slot| slot.number)
    }

    /// Puts in a number, which is live, once. `hash_of` gives the hash of any live number. Returns how many others it pushed
    /// out: none, unless many hashes are the same.
    pub(super) fn insert(&mut self, hash: u64, number: u32, live: Live, hash_of: impl Fn(u32) -> u64) -> u64 {
        let mut pushed_out = 0;
        while !self.put(hash, number, live) {
            if self.sets.len() >= live.count as usize {
                // Eight slots for each already: more would not help.
                self.displace(hash, number, live);
                return pushed_out + 1;
            }
            let sets = (2 * self.sets.len()).max(1);
            let free = Slot { tag: 0, number: live.first.wrapping_sub(1) };
            self.sets = vec![Set([free; 8]); sets];
            // The new one comes last, by itself.
            for number in live.numbers().filter(|other| *other != number) {
                let hash = hash_of(number);
                if !self.put(hash, number, live) {
                    self.displace(hash, number, live);
                    pushed_out += 1;
                }
            }
        }
        pushed_out
    }

    /// Into the slot of the oldest in both sets.
    fn displace(&mut self, hash: u64, number: u32, live: Live) {
        let places = self.places(hash);
        let slots = places.into_iter().flat_map(|place| (0..8).map(move |slot| (place, slot)));
        let age = |(place, slot): &(usize, usize)| {
            let slot = self.sets.get(*place).and_then(|set| set.0.get(*slot));
            slot.map_or(u32::MAX, |slot| slot.number.wrapping_sub(live.first))
        };
        let oldest = slots.min_by_key(age);
        let slot = oldest.and_then(|(place, slot)| self.sets.get_mut(place)?.0.get_mut(slot));
        if let Some(slot) = slot {
            *slot = Slot { tag: tag_of(hash), number };
        }
    }

    /// Into a free slot of the emptier set; false when there is none.
    fn put(&mut self, hash: u64, number: u32, live: Live) -> bool {
        let free = |set: &Set| set.0.iter().filter(|slot| !live.contains(slot.number)).count();
        let [first, second] = self.places(hash);
        let room = |place: usize| self.sets.get(place).map_or(0, free);
        let place = if room(second) > room(first) { second } else { first };
        let slot = self.sets.get_mut(place).and_then(|set| set.0.iter_mut().find(|slot| !live.contains(slot.number)));
        slot.map(|slot| *slot = Slot { tag: tag_of(hash), number }).is_some()
    }
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
