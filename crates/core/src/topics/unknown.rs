//! Users who have never signed in, in the order in which they were last written to: whose messages go first when all of
//! them together take too much.
//!
//! A user's place is only corrected when it comes to the front, so that a write costs nothing here. Users who have signed in
//! or are gone leave their place behind; such places are swept out when they are more than the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::id::InboxKey;

/// See the module.
#[derive(Debug, Default)]
pub struct UnknownUsers {
    /// Number of the last write that is known here, slot, generation.
    places: BinaryHeap<Reverse<(u64, u32, u32)>>,
    writes: u64,
    sweep_at: usize,
}

/// Places below which nothing is swept out.
const SWEEP_AT_MIN: usize = 64;

impl UnknownUsers {
    /// The number of a write that happens now.
    pub fn next_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    /// A user is written to for the first time. `is_there` says whether a user is still there and unknown.
    pub fn add(&mut self, user: InboxKey, written: u64, is_there: impl Fn(InboxKey) -> bool) {
        if self.places.len() >= self.sweep_at.max(SWEEP_AT_MIN) {
            self.places
                .retain(|Reverse((_, slot, generation))| is_there(InboxKey { slot: *slot, generation: *generation }));
            self.sweep_at = 2 * self.places.len();
        }
        self.places.push(Reverse((written, user.slot, user.generation)));
    }

    /// Takes out the user who was written to longest ago. `written` says when a user was last written to: none for one who
    /// is not there any more, or not unknown.
    pub fn pop_oldest(&mut self, written: impl Fn(InboxKey) -> Option<u64>) -> Option<InboxKey> {
        while let Some(Reverse((known, slot, generation))) = self.places.pop() {
            let user = InboxKey { slot, generation };
            match written(user) {
                Some(last) if last == known => return Some(user),
                Some(last) => self.places.push(Reverse((last, slot, generation))),
                None => {}
            }
        }
        None
    }

    /// Places that are held, stale ones included.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no place is held.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether a user has a place, no later than this write; for tests.
    pub fn has(&self, user: InboxKey, written: u64) -> bool {
        let is_it = |place: &Reverse<(u64, u32, u32)>| {
            place.0.0 <= written && (place.0.1, place.0.2) == (user.slot, user.generation)
        };
        self.places.iter().filter(|place| is_it(place)).count() == 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn user(slot: u32) -> InboxKey {
        InboxKey { slot, generation: 1 }
    }

    #[test]
    fn users_are_taken_out_then_the_one_written_to_longest_ago_comes_first() {
        let mut users = UnknownUsers::default();
        let mut written: HashMap<u32, u64> = HashMap::new();
        for slot in 0..4 {
            let number = users.next_write();
            users.add(user(slot), number, |_| true);
            written.insert(slot, number);
        }
        written.insert(0, users.next_write());
        written.remove(&2);
        let mut order = Vec::new();
        while let Some(key) = users.pop_oldest(|key| written.get(&key.slot).copied()) {
            order.push(key.slot);
        }
        assert_eq!(order, [1, 3, 0]);
    }

    #[test]
    fn users_are_gone_then_their_places_are_bounded() {
        let mut users = UnknownUsers::default();
        for slot in 0..10_000 {
            let number = users.next_write();
            users.add(user(slot), number, |key| key.slot + 10 > slot);
            assert!(users.len() <= SWEEP_AT_MIN);
        }
    }
}
