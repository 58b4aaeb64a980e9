//! Tokens that wait to be verified, and which is next.
//!
//! Sign-ins go before refreshes: a signed-in client that sends bad tokens must not keep others out, who are closed when
//! their time is up. The last quarter of a turn's budget is for refreshes first, so that a storm of sign-ins does not end
//! sessions whose new token has come in time.

use std::collections::VecDeque;

use crate::id::ConnectionKey;

/// A token, whose it is, and the request that brought it, if that was a Refresh.
pub(super) type Waiting = (ConnectionKey, Option<u32>, Box<str>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unverified {
    sign_ins: VecDeque<Waiting>,
    refreshes: VecDeque<Waiting>,
}

impl Unverified {
    pub(super) fn push(&mut self, waiting: Waiting) {
        match waiting.1 {
            None => self.sign_ins.push_back(waiting),
            Some(_) => self.refreshes.push_back(waiting),
        }
    }

    /// The next token, when so much of the turn's budget is spent.
    pub(super) fn pop(&mut self, spent: u32, budget: u32) -> Option<Waiting> {
        let (first, second) = match spent < budget / 4 * 3 {
            true => (&mut self.sign_ins, &mut self.refreshes),
            false => (&mut self.refreshes, &mut self.sign_ins),
        };
        first.pop_front().or_else(|| second.pop_front())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sign_ins.is_empty() && self.refreshes.is_empty()
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub(super) fn release_spares(&mut self) {
        self.sign_ins.shrink_to_fit();
        self.refreshes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slots of the tokens that a turn takes, each at this cost.
    fn turn(queue: &mut Unverified, cost: u32) -> Vec<u32> {
        let (mut slots, mut spent) = (Vec::new(), 0);
        while spent < 100
            && let Some((connection, ..)) = queue.pop(spent, 100)
        {
            spent += cost;
            slots.push(connection.slot);
        }
        slots
    }

    fn queue(refreshes: std::ops::Range<u32>, sign_ins: std::ops::Range<u32>) -> Unverified {
        let mut queue = Unverified::default();
        let key = |slot| ConnectionKey { slot, generation: 1 };
        refreshes.for_each(|slot| queue.push((key(slot), Some(slot), "".into())));
        sign_ins.for_each(|slot| queue.push((key(slot), None, "".into())));
        queue
    }

    #[test]
    fn refreshes_came_first_then_sign_ins_are_verified_before_them() {
        let mut queue = queue(0..100, 100..103);
        assert_eq!(turn(&mut queue, 20), [100, 101, 102, 0, 1]);
        assert_eq!(turn(&mut queue, 20), [2, 3, 4, 5, 6], "nobody else waits");
    }

    #[test]
    fn storm_of_sign_ins_then_refreshes_have_a_quarter_of_each_turn() {
        let mut queue = queue(0..3, 100..200);
        assert_eq!(turn(&mut queue, 25), [100, 101, 102, 0]);
        assert_eq!(turn(&mut queue, 25), [103, 104, 105, 1]);
        // Also where a turn has time for few.
        assert_eq!(turn(&mut queue, 40), [106, 107, 2]);
        assert_eq!(turn(&mut queue, 50), [108, 109]);
        assert!(!queue.is_empty());
    }
}
