//! Receives that found no buffer (ENOBUFS), in the order in which that happened.
//!
//! They are armed again when a turn has given buffers back: who starved first comes first, and no more in one turn than
//! there are buffers, since others would only starve again.

use std::collections::VecDeque;

use ringgate_core::id::ConnectionKey;

/// See the module.
#[derive(Default)]
pub(super) struct Starved {
    waiting: VecDeque<ConnectionKey>,
    /// How many more may be armed in this turn.
    left: u16,
}

impl Starved {
    /// Its receive found no buffer.
    pub(super) fn push(&mut self, key: ConnectionKey) {
        self.waiting.push_back(key);
    }

    /// As many may be armed from here on as there are buffers.
    pub(super) fn begin_turn(&mut self, buffers: u16) {
        self.left = buffers;
    }

    /// The next one that is to be armed in this turn.
    pub(super) fn next(&mut self) -> Option<ConnectionKey> {
        self.left = self.left.checked_sub(1)?;
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub(super) fn release_spares(&mut self) {
        self.waiting.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_starved_than_there_are_buffers_then_the_first_are_armed_first_and_the_rest_next_turn() {
        let mut starved = Starved::default();
        let key = |slot| ConnectionKey { slot, generation: 1 };
        (1..=5).for_each(|slot| starved.push(key(slot)));
        let turn = |starved: &mut Starved| {
            starved.begin_turn(2);
            std::iter::from_fn(|| starved.next()).map(|key| key.slot).collect::<Vec<_>>()
        };
        assert_eq!(turn(&mut starved), [1, 2]);
        // The second finds no buffer again, and comes after those who wait.
        starved.push(key(2));
        assert_eq!(turn(&mut starved), [3, 4]);
        assert!(!starved.is_empty());
        assert_eq!(turn(&mut starved), [5, 2]);
        assert!(starved.is_empty());
        assert!(turn(&mut starved).is_empty());
    }
}
