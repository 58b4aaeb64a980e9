//! A table of named values: found by name or by key, in slots with generations ([`Slots`]).
//!
//! Beside a value there are four bytes of its slot and a byte of its hash, which is keyed: see [`keyed`](crate::keyed).
//! Invariant: every value is found by its name, and names are unique.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::id::SlotKey;
use crate::keyed::Keyed;
use crate::slots::Slots;

/// What a value is found by in a [`Named`] table. It never changes.
pub trait Name {
    /// Unique within the table.
    fn name(&self) -> &str;
}

/// See the module.
#[derive(Debug)]
pub struct Named<T, K> {
    slots: Slots<T, K>,
    /// Slots by name.
    names: HashTable<u32>,
    hash: Keyed,
}

impl<T: Name, K: SlotKey> Named<T, K> {
    /// An empty table, hashed as everything on this node.
    pub fn new(hash: Keyed) -> Self {
        Named { slots: Slots::default(), names: HashTable::new(), hash }
    }

    /// The key of the value with this name.
    pub fn find(&self, name: &str) -> Option<K> {
        let is_it = |slot: &u32| self.slots.in_slot(*slot).is_some_and(|value| value.name() == name);
        self.names.find(self.hash.hash_one(name), is_it).and_then(|slot| self.slots.key_of(*slot))
    }

    /// Puts a value in whose name [`Self::find`] does not know.
    pub fn insert(&mut self, value: T) -> K {
        let name_hash = self.hash.hash_one(value.name());
        let key = self.slots.insert(value);
        let Named { slots, names, hash } = self;
        names.insert_unique(name_hash, key.slot(), |slot| {
            slots.in_slot(*slot).map_or(0, |value| hash.hash_one(value.name()))
        });
        key
    }

    /// Takes the value out, unless the key is stale.
    pub fn remove(&mut self, key: K) -> Option<T> {
        let value = self.slots.remove(key)?;
        if let Ok(entry) = self.names.find_entry(self.hash.hash_one(value.name()), |slot| *slot == key.slot()) {
            entry.remove();
        }
        Some(value)
    }

    /// The value, unless the key is stale.
    #[inline]
    pub fn get(&self, key: K) -> Option<&T> {
        self.slots.get(key)
    }

    /// The value, unless the key is stale.
    #[inline]
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        self.slots.get_mut(key)
    }

    /// The key of a slot that is in use.
    pub fn key_of(&self, slot: u32) -> Option<K> {
        self.slots.key_of(slot)
    }

    /// One more than the highest slot that ever was in use.
    pub fn slots(&self) -> u32 {
        self.slots.slots()
    }

    /// Values in the table.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no value is in the table.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Every value, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.slots.iter()
    }

    /// Panics when the structure is broken; for tests.
    pub fn invariants(&self) {
        assert_eq!(self.names.len(), self.slots.len(), "every value has one name");
        for (key, value) in self.slots.iter() {
            assert!(self.find(value.name()) == Some(key), "{} is found by name", value.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RoomKey;
    use crate::keyed::keyed;

    impl Name for String {
        fn name(&self) -> &str {
            self
        }
    }

    #[test]
    fn names_come_and_go_then_each_is_found_while_it_is_there() {
        let mut table = Named::<String, RoomKey>::new(keyed(7));
        let keys: Vec<_> = (0..1000).map(|number| table.insert(format!("room:{number}"))).collect();
        table.invariants();
        for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
            assert_eq!(table.remove(*key), Some(format!("room:{number}")));
        }
        table.invariants();
        assert_eq!(table.len(), 500);
        for (number, key) in keys.iter().enumerate() {
            let wanted = (number % 2 == 1).then_some(*key);
            assert_eq!(table.find(&format!("room:{number}")), wanted);
            assert_eq!(table.get(*key).is_some(), wanted.is_some());
        }
    }

    #[test]
    fn slot_is_given_out_again_then_the_old_key_is_stale() {
        let mut table = Named::<String, RoomKey>::new(keyed(7));
        let first = table.insert("a".to_owned());
        assert_eq!(table.remove(first), Some("a".to_owned()));
        let second = table.insert("b".to_owned());
        assert_eq!(first.slot, second.slot);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!((table.find("a"), table.find("b")), (None, Some(second)));
        table.invariants();
    }
}
