//! The epochs of topics that messages went to lately: a node that publishes to a topic need not have it in memory, and Redis stores
//! a message faster where the epoch is known. What is wrong or missing costs time alone.
//!
//! Bounded: when the newer half is full, it takes the place of the older one.

use std::collections::HashMap;
use std::sync::Arc;

/// Topics of each half.
const HALF: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Epochs {
    newer: HashMap<Arc<str>, u64>,
    older: HashMap<Arc<str>, u64>,
}

impl Epochs {
    /// 0 if it is not known.
    pub(crate) fn of(&self, topic: &str) -> u64 {
        self.newer.get(topic).or_else(|| self.older.get(topic)).copied().unwrap_or(0)
    }

    pub(crate) fn put(&mut self, topic: &Arc<str>, epoch: u64) {
        if let Some(known) = self.newer.get_mut(topic) {
            *known = epoch;
            return;
        }
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(topic.clone(), epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_more_than_there_is_room_for_then_the_newest_are_known() {
        let mut epochs = Epochs::default();
        let topic = |number: usize| Arc::<str>::from(format!("@{number}"));
        (0..3 * HALF).for_each(|number| epochs.put(&topic(number), number as u64 + 1));
        assert!(epochs.newer.len() + epochs.older.len() <= 2 * HALF);
        assert!((2 * HALF..3 * HALF).all(|number| epochs.of(&topic(number)) == number as u64 + 1));
        assert_eq!(epochs.of("@0"), 0);
        epochs.put(&topic(3 * HALF - 1), 7);
        assert_eq!(epochs.of(&topic(3 * HALF - 1)), 7);
    }
}
