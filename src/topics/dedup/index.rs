//! Numbers by hash, for entries that leave in the order in which they came.
//!
//! A set of eight slots is one cache line, and a hash has two sets to choose from. Numbers go up, so a slot whose number is
//! not among the live ones is free, and nothing is ever taken out: forgetting an entry touches no memory here. (In a
//! common hash table that was two cache misses for each message, 4 % of what a message costs.) Where both sets are full,
//! the index doubles.

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

    /// Puts in a number, which is live, once. `hash_of` gives the hash of any live number.
    pub(super) fn insert(&mut self, hash: u64, number: u32, live: Live, hash_of: impl Fn(u32) -> u64) {
        let mut put = self.put(hash, number, live);
        while !put {
            let sets = (2 * self.sets.len()).max(1);
            let free = Slot { tag: 0, number: live.first.wrapping_sub(1) };
            self.sets = vec![Set([free; 8]); sets];
            put = live.numbers().all(|number| self.put(hash_of(number), number, live));
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
