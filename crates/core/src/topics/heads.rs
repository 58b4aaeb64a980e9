//! Where quiet topics stand: no client is there and no message is kept, but a client may come back with a position.
//!
//! A head is a few tens of bytes, found by a keyed 64-bit hash of the topic's name: a topic whose name has the hash of
//! another's would take that one's position, but with 2^18 heads only one name in 2^46 has the hash of any of them.
//! Heads leave in the order in which they came: when they are too old, or when there are too many.
//! Invariant: heads form one list from the oldest to the newest, and each is in the table once.

use hashbrown::HashTable;

use crate::id::{HeadKey, Position};
use crate::slots::Slots;

/// Where a topic stood when it fell quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its newest position.
    pub position: Position,
    /// Of a room: something that is in no log was published in this epoch. Of an inbox: messages left it that a forgotten
    /// device had not read.
    pub missed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Heads {
    entries: Slots<Entry, HeadKey>,
    /// Slots of `entries` by hash.
    table: HashTable<u32>,
    oldest: u32,
    newest: u32,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    position: Position,
    since_ms: u64,
    older: u32,
    newer: u32,
    missed: bool,
}

/// No slot.
const NONE: u32 = u32::MAX;

// What each topic costs that ever had a client, for as long as its position is kept.
const _: () = assert!(size_of::<Entry>() <= 48);

impl Default for Heads {
    fn default() -> Self {
        Heads { entries: Slots::default(), table: HashTable::new(), oldest: NONE, newest: NONE }
    }
}

impl Heads {
    /// Heads that are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no head is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps a head as the newest of at most `heads_max`. Returns how many had to go for it.
    pub fn keep(&mut self, hash: u64, head: Head, now_ms: u64, heads_max: usize) -> u64 {
        self.take(hash);
        let Head { position, missed } = head;
        let key =
            self.entries.insert(Entry { hash, position, since_ms: now_ms, older: self.newest, newer: NONE, missed });
        match self.entry_mut(self.newest) {
            Some(before) => before.newer = key.slot,
            None => self.oldest = key.slot,
        }
        self.newest = key.slot;
        let Heads { entries, table, .. } = self;
        table.insert_unique(hash, key.slot, |slot| entries.in_slot(*slot).map_or(0, |entry| entry.hash));
        let mut gone = 0;
        while self.entries.len() > heads_max {
            self.remove(self.oldest);
            gone += 1;
        }
        gone
    }

    /// The topic is used again: its head, if it is still kept.
    pub fn take(&mut self, hash: u64) -> Option<Head> {
        if self.entries.is_empty() {
            return None;
        }
        let slot = *self.table.find(hash, |slot| self.has(*slot, hash))?;
        self.remove(slot)
    }

    /// The head of a topic that stays quiet.
    pub fn peek(&self, hash: u64) -> Option<Head> {
        let slot = self.table.find(hash, |slot| self.has(*slot, hash))?;
        self.entries.in_slot(*slot).map(|entry| Head { position: entry.position, missed: entry.missed })
    }

    /// Something that is in no log was published to a quiet room.
    pub fn mark_missed(&mut self, hash: u64) {
        if let Some(slot) = self.table.find(hash, |slot| self.has(*slot, hash)).copied()
            && let Some(entry) = self.entry_mut(slot)
        {
            entry.missed = true;
        }
    }

    /// Lets go of at most `most` heads that were kept for `ttl_ms`. Returns how many went.
    pub fn expire(&mut self, ttl_ms: u64, now_ms: u64, most: usize) -> u64 {
        let mut gone = 0;
        while gone < most as u64
            && self.entries.in_slot(self.oldest).is_some_and(|oldest| oldest.since_ms.saturating_add(ttl_ms) <= now_ms)
        {
            self.remove(self.oldest);
            gone += 1;
        }
        gone
    }

    /// Whether a head of this hash is kept.
    pub fn contains(&self, hash: u64) -> bool {
        self.table.find(hash, |slot| self.has(*slot, hash)).is_some()
    }

    fn has(&self, slot: u32, hash: u64) -> bool {
        self.entries.in_slot(slot).is_some_and(|entry| entry.hash == hash)
    }

    fn key(&self, slot: u32) -> Option<HeadKey> {
        self.entries.key_of(slot)
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        let key = self.key(slot)?;
        self.entries.get_mut(key)
    }

    fn remove(&mut self, slot: u32) -> Option<Head> {
        let entry = self.entries.remove(self.key(slot)?)?;
        if let Ok(place) = self.table.find_entry(entry.hash, |known| *known == slot) {
            place.remove();
        }
        match self.entry_mut(entry.older) {
            Some(older) => older.newer = entry.newer,
            None => self.oldest = entry.newer,
        }
        match self.entry_mut(entry.newer) {
            Some(newer) => newer.older = entry.older,
            None => self.newest = entry.older,
        }
        Some(Head { position: entry.position, missed: entry.missed })
    }

    /// Panics when the structure is broken; for tests.
    pub fn invariants(&self) {
        assert_eq!(self.table.len(), self.entries.len(), "every head is in the table");
        let (mut slot, mut before, mut since_ms, mut count) = (self.oldest, NONE, 0, 0);
        while let Some(entry) = self.entries.in_slot(slot) {
            assert_eq!(entry.older, before, "the list reads the same backwards");
            assert!(entry.since_ms >= since_ms, "heads lie in the order in which they came");
            assert!(self.contains(entry.hash));
            (before, since_ms, count, slot) = (slot, entry.since_ms, count + 1, entry.newer);
        }
        assert_eq!((count, before), (self.entries.len(), self.newest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(offset: u64) -> Head {
        Head { position: Position { epoch: 1, offset }, missed: false }
    }

    #[test]
    fn heads_are_too_many_or_too_old_then_the_oldest_go() {
        let mut heads = Heads::default();
        for offset in 0..5u64 {
            assert_eq!(heads.keep(offset << 40, head(offset), offset, 3), u64::from(offset >= 3));
            heads.invariants();
        }
        assert_eq!((heads.len(), heads.contains(1 << 40), heads.contains(2 << 40)), (3, false, true));
        assert_eq!(heads.take(3 << 40), Some(head(3)), "from the middle");
        assert_eq!(heads.take(3 << 40), None);
        heads.invariants();
        assert_eq!(heads.expire(10, 13, 8), 1);
        heads.invariants();
        assert_eq!((heads.expire(10, 13, 8), heads.len()), (0, 1));
        assert_eq!(heads.expire(10, u64::MAX, 8), 1);
        assert!(heads.is_empty());
        heads.invariants();
    }

    #[test]
    fn topic_falls_quiet_again_then_it_is_the_newest() {
        let mut heads = Heads::default();
        heads.keep(1, head(1), 0, 2);
        heads.keep(2, head(2), 0, 2);
        heads.mark_missed(2);
        assert_eq!(heads.keep(1, head(9), 1, 2), 0);
        assert_eq!(heads.keep(3, head(3), 1, 2), 1);
        assert_eq!((heads.take(1), heads.take(2)), (Some(head(9)), None));
        heads.keep(4, head(4), 2, 2);
        heads.mark_missed(4);
        assert_eq!(heads.peek(4), heads.peek(4), "it stays");
        assert_eq!(heads.take(4), Some(Head { missed: true, ..head(4) }));
        heads.invariants();
    }
}
