//! A table of slots with generations, growing in pages.
//!
//! Pages never move, so growth copies nothing and an entry's memory is touched only once it is used. A key is
//! honoured only while the slot still has the key's generation. Invariant: a live slot's generation is not 0.

use core::marker::PhantomData;

use crate::id::{ConnectionKey, GENERATION_MASK, SlotKey};
use crate::prefetch::prefetch;

/// Bytes of a page, at most: a size that allocators keep whole blocks of. Smaller pages leave less unused at their end;
/// with 20 KiB an idle connection cost 20 bytes more.
const PAGE_BYTES: usize = 8 * 1024;

/// Slots that the table hands out itself ([`Slots::insert`]) or that somebody else numbers ([`Slots::insert_at`]);
/// one table sticks to one of the two.
#[derive(Debug)]
pub struct Slots<T, K = ConnectionKey> {
    pages: Vec<Box<[Entry<T>]>>,
    free: Vec<u32>,
    used: usize,
    key: PhantomData<K>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T, K> Default for Slots<T, K> {
    fn default() -> Self {
        Slots { pages: Vec::new(), free: Vec::new(), used: 0, key: PhantomData }
    }
}

/// The generation after this one: 24 bits, never 0.
pub fn next_generation(generation: u32) -> u32 {
    match (generation + 1) & GENERATION_MASK {
        0 => 1,
        next => next,
    }
}

impl<T, K: SlotKey> Slots<T, K> {
    /// Entries of a page.
    const PAGE: usize = {
        let entries = PAGE_BYTES / size_of::<Entry<T>>();
        if entries < 16 { 16 } else { entries }
    };

    /// Slots in use.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether no slot is in use.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// One more than the highest slot that ever was in use.
    pub fn slots(&self) -> u32 {
        (self.pages.len() * Self::PAGE) as u32
    }

    /// Puts a value into a slot that the caller numbered; the value that was there before is returned.
    pub fn insert_at(&mut self, key: K, value: T) -> Option<T> {
        self.grow_to(key.slot() as usize);
        let entry = self.pages.get_mut(key.slot() as usize / Self::PAGE)?.get_mut(key.slot() as usize % Self::PAGE)?;
        entry.generation = key.generation();
        let before = entry.value.replace(value);
        self.used += usize::from(before.is_none());
        before
    }

    /// Puts a value into a free slot.
    pub fn insert(&mut self, value: T) -> K {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let first = self.pages.len() * Self::PAGE;
                self.grow_to(first);
                self.free.extend((first as u32 + 1..(first + Self::PAGE) as u32).rev());
                first as u32
            }
        };
        let generation = next_generation(self.generation(slot));
        let key = K::new(slot, generation);
        self.insert_at(key, value);
        key
    }

    fn grow_to(&mut self, slot: usize) {
        while self.pages.len() * Self::PAGE <= slot {
            self.pages.push((0..Self::PAGE).map(|_| Entry { generation: 0, value: None }).collect());
        }
    }

    fn generation(&self, slot: u32) -> u32 {
        self.entry(slot).map_or(0, |entry| entry.generation)
    }

    fn entry(&self, slot: u32) -> Option<&Entry<T>> {
        self.pages.get(slot as usize / Self::PAGE)?.get(slot as usize % Self::PAGE)
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry<T>> {
        self.pages.get_mut(slot as usize / Self::PAGE)?.get_mut(slot as usize % Self::PAGE)
    }

    /// The key that the next use of a caller-numbered slot has.
    pub fn next_key(&self, slot: u32) -> K {
        K::new(slot, next_generation(self.generation(slot)))
    }

    /// The value, unless the key is stale.
    #[inline]
    pub fn get(&self, key: K) -> Option<&T> {
        self.entry(key.slot()).filter(|entry| entry.generation == key.generation())?.value.as_ref()
    }

    /// The value, unless the key is stale.
    #[inline]
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        self.entry_mut(key.slot()).filter(|entry| entry.generation == key.generation())?.value.as_mut()
    }

    /// The value in a slot, whatever its generation.
    pub fn in_slot(&self, slot: u32) -> Option<&T> {
        self.entry(slot)?.value.as_ref()
    }

    /// Has the memory of a slot brought while something else is done.
    pub fn prefetch(&self, slot: u32) {
        if let Some(entry) = self.entry(slot) {
            prefetch(entry);
        }
    }

    /// The key of a slot that is in use.
    pub fn key_of(&self, slot: u32) -> Option<K> {
        let entry = self.entry(slot)?;
        entry.value.as_ref()?;
        Some(K::new(slot, entry.generation))
    }

    /// Takes the value out, unless the key is stale. The slot may be given out again with a new generation.
    pub fn remove(&mut self, key: K) -> Option<T> {
        let entry = self.entry_mut(key.slot()).filter(|entry| entry.generation == key.generation())?;
        let value = entry.value.take()?;
        self.used -= 1;
        self.free.push(key.slot());
        Some(value)
    }

    /// Takes out a value of a table whose slots the caller numbers.
    pub fn remove_at(&mut self, key: K) -> Option<T> {
        let entry = self.entry_mut(key.slot()).filter(|entry| entry.generation == key.generation())?;
        let value = entry.value.take()?;
        self.used -= 1;
        Some(value)
    }

    /// Every slot in use, in order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.pages.iter().flat_map(|page| page.iter()).enumerate().filter_map(|(slot, entry)| {
            let key = K::new(slot as u32, entry.generation);
            entry.value.as_ref().map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_reused_then_the_old_key_is_stale() {
        let mut slots: Slots<_> = Slots::default();
        let first = slots.insert("a");
        assert_eq!(slots.remove(first), Some("a"));
        let second = slots.insert("b");
        assert_eq!(first.slot, second.slot, "slots are reused");
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"b"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn caller_numbers_the_slots_then_values_are_found_by_its_keys() {
        let mut slots = Slots::default();
        let key = ConnectionKey { slot: 1000, generation: 7 };
        assert_eq!(slots.insert_at(key, 1), None);
        assert_eq!(slots.key_of(1000), Some(key));
        assert_eq!(slots.get(ConnectionKey { slot: 1000, generation: 6 }), None);
        assert_eq!(slots.remove_at(key), Some(1));
        assert!(slots.is_empty());
    }

    #[test]
    fn generation_wraps_then_it_is_never_zero() {
        assert_eq!(next_generation(GENERATION_MASK), 1);
    }
}
