//! Client message ids that were answered lately: the same id again gets the same answer and causes no second message.
//!
//! Bounded by time and by count; what the count pushes out early is counted by the caller.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::id::{ClientMessageId, Durability, Now, Stamp};

/// The answer that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What the message got.
    pub stamp: Stamp,
    /// The level that was reached.
    pub durability: Durability,
}

/// Sender and topic go in as one keyed hash of both: 64 bits beside 128 that the client chose.
type Key = (u64, ClientMessageId);

/// See the module.
#[derive(Debug)]
pub struct Dedup {
    answers: HashMap<Key, Answered, FixedState>,
    order: VecDeque<(u64, Key)>,
    window_ms: u64,
    entries_max: usize,
}

impl Dedup {
    /// Remembers each id for `window_ms`, and at most `entries_max` of them.
    pub fn new(window_ms: u64, entries_max: usize, seed: u64) -> Self {
        Dedup {
            answers: HashMap::with_hasher(FixedState::with_seed(seed)),
            order: VecDeque::new(),
            window_ms,
            entries_max,
        }
    }

    /// The answer that this id was given within the window.
    pub fn find(&self, sender_and_topic: u64, id: ClientMessageId) -> Option<Answered> {
        self.answers.get(&(sender_and_topic, id)).copied()
    }

    /// Remembers an answer. Returns how many were forgotten before their time.
    pub fn remember(&mut self, sender_and_topic: u64, id: ClientMessageId, answer: Answered, now: Now) -> u64 {
        self.forget_old(now);
        let mut evicted = 0;
        while self.order.len() >= self.entries_max.max(1) {
            if let Some((_, key)) = self.order.pop_front() {
                self.answers.remove(&key);
                evicted += 1;
            }
        }
        let key = (sender_and_topic, id);
        if self.answers.insert(key, answer).is_none() {
            self.order.push_back((now.mono_ms() + self.window_ms, key));
        }
        evicted
    }

    /// Forgets what is past its window.
    pub fn forget_old(&mut self, now: Now) {
        while self.order.front().is_some_and(|(until, _)| *until <= now.mono_ms()) {
            if let Some((_, key)) = self.order.pop_front() {
                self.answers.remove(&key);
            }
        }
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_within_window_and_count() {
        let at = |ms: u64| Now { mono_us: ms * 1000, unix_ms: 0 };
        let id = |low| ClientMessageId { high: 1, low };
        let answer = Answered { stamp: Stamp::default(), durability: Durability::Memory };
        let mut dedup = Dedup::new(100, 2, 0);
        assert_eq!(dedup.remember(1, id(1), answer, at(0)), 0);
        assert_eq!(dedup.find(1, id(1)), Some(answer));
        assert_eq!(dedup.find(2, id(1)), None, "another sender");
        dedup.remember(1, id(2), answer, at(10));
        assert_eq!(dedup.remember(1, id(3), answer, at(20)), 1, "the oldest goes");
        assert_eq!(dedup.find(1, id(1)), None);
        dedup.forget_old(at(110));
        assert_eq!(dedup.len(), 1);
        dedup.forget_old(at(120));
        assert!(dedup.is_empty());
        assert!(dedup.answers.is_empty());
    }
}
