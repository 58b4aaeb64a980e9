//! Tokens that wait to be verified, and which is next.
//!
//! Sign-ins go before refreshes: a signed-in client that sends bad tokens must not keep others out, who are closed when
//! their time is up. A quarter of each turn's budget is for refreshes, so that a storm of sign-ins does not end sessions
//! whose new token has come in time. What a turn did not give them it owes them: the last sign-in of a turn may cost more than was
//! left of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ringgate_core::id::{Address, ConnectionKey};
use ringgate_core::session::Authenticator;
use ringgate_core::shard::Event;

use super::driver::Core;

/// A token, whose it is, and the request that brought it, if that was a Refresh.
pub(super) type Waiting = (ConnectionKey, Option<u32>, Box<str>);

/// Verifies them.
pub(super) struct Verifier {
    authenticator: Arc<dyn Authenticator>,
    unverified: Unverified,
}

/// Cost of token verifications in one turn, in units of about 2 us.
const VERIFY_COST_PER_TURN: u32 = 128;
/// Tokens of each kind that are looked at in one turn, whether their connection still waits for them.
const STALE_LOOKS_PER_TURN: usize = 128;
/// Letters that may wait for full mailboxes while tokens are verified.
const LETTERS_WAITING_MAX: usize = 4096;

impl Verifier {
    pub(super) fn new(authenticator: Arc<dyn Authenticator>) -> Self {
        Verifier { authenticator, unverified: Unverified::default() }
    }

    /// Verifies with this one from now on.
    pub(super) fn replace(&mut self, authenticator: Arc<dyn Authenticator>) {
        self.authenticator = authenticator;
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.unverified.push(waiting);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unverified.is_empty()
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub(super) fn release_spares(&mut self) {
        self.unverified.release_spares();
    }

    /// Verifies as many tokens as fit into a turn: a reconnect storm must not stall those who are signed in. `letters_waiting`
    /// is how many wait for full mailboxes. True if it has done something.
    pub(super) fn turn(&mut self, core: &mut Core, letters_waiting: usize) -> bool {
        // Nobody waits for these, and while nothing is verified nothing else takes them out.
        let shard = &core.shard;
        self.unverified.drop_stale(STALE_LOOKS_PER_TURN, |(connection, refresh, _)| {
            shard.awaits_verification(*connection, refresh.is_some())
        });
        if letters_waiting > LETTERS_WAITING_MAX {
            // A sign-in posts letters for its inbox and all of its rooms: it waits until there is room for them.
            return false;
        }
        self.unverified.begin(VERIFY_COST_PER_TURN);
        while let Some((connection, refresh, token)) = self.unverified.pop() {
            if !core.shard.awaits_verification(connection, refresh.is_some()) {
                // Closed while it waited: in a storm, most of the queue may be.
                self.unverified.spend(1, refresh.is_some());
                continue;
            }
            self.unverified.spend(1 + self.authenticator.cost(&token), refresh.is_some());
            let began = Instant::now();
            let result = self.authenticator.verify(&token, core.now.unix_ms / 1000);
            core.metrics.auth_duration.record_us(began.elapsed().as_micros() as u64);
            if let Err(error) = &result {
                let connection = Address { shard: core.id, connection };
                tracing::debug!(%connection, cause = error.label(), refresh = refresh.is_some(), "token refused");
            }
            core.shard.handle(Event::Verified { connection, refresh, result }, core.now);
        }
        self.unverified.spent() > 0
    }
}

/// Those that wait.
#[derive(Debug, Default)]
struct Unverified {
    sign_ins: Line,
    refreshes: Line,
    /// What this turn may spend.
    budget: u32,
    /// What it has spent.
    spent: u32,
    /// What refreshes may spend of it while sign-ins wait, too; below zero where the last one cost more than there was.
    owed: i64,
}

impl Unverified {
    fn push(&mut self, waiting: Waiting) {
        match waiting.1 {
            None => self.sign_ins.rest.push_back(waiting),
            Some(_) => self.refreshes.rest.push_back(waiting),
        }
    }

    /// Lets go of tokens that are not awaited any more, the connection being closed. Looks at `looks` of each kind, from where
    /// it was the last time.
    fn drop_stale(&mut self, looks: usize, is_awaited: impl Fn(&Waiting) -> bool) {
        self.sign_ins.drop_stale(looks, &is_awaited);
        self.refreshes.drop_stale(looks, &is_awaited);
    }

    /// Begins a turn, in which [`Self::pop`] gives tokens until so much is spent.
    fn begin(&mut self, budget: u32) {
        (self.budget, self.spent) = (budget, 0);
        // Nothing is owed where no refresh waits. A turn that owes refreshes its whole budget gives it to them, which bounds the
        // sum.
        self.owed = if self.refreshes.is_empty() { 0 } else { self.owed + i64::from(budget / 4) };
    }

    /// The next token; none when the turn's budget is spent.
    fn pop(&mut self) -> Option<Waiting> {
        if self.spent >= self.budget {
            return None;
        }
        let are_refreshes_due = self.owed > 0 && i64::from(self.budget - self.spent) <= self.owed;
        let (first, second) = match are_refreshes_due {
            true => (&mut self.refreshes, &mut self.sign_ins),
            false => (&mut self.sign_ins, &mut self.refreshes),
        };
        first.pop().or_else(|| second.pop())
    }

    /// What the last token has cost.
    fn spend(&mut self, cost: u32, refresh: bool) {
        self.spent = self.spent.saturating_add(cost);
        // What no sign-in waits for is free.
        if refresh && !self.sign_ins.is_empty() {
            self.owed -= i64::from(cost);
        }
    }

    /// What this turn has spent.
    fn spent(&self) -> u32 {
        self.spent
    }

    fn is_empty(&self) -> bool {
        self.sign_ins.is_empty() && self.refreshes.is_empty()
    }

    /// Lets go of memory that is only kept for the next busy moment.
    fn release_spares(&mut self) {
        self.sign_ins.release_spares();
        self.refreshes.release_spares();
    }
}

/// Tokens of one kind, in the order in which they came: first those that were looked at in this round, then the rest.
#[derive(Debug, Default)]
struct Line {
    looked_at: VecDeque<Waiting>,
    rest: VecDeque<Waiting>,
}

impl Line {
    fn pop(&mut self) -> Option<Waiting> {
        self.looked_at.pop_front().or_else(|| self.rest.pop_front())
    }

    fn drop_stale(&mut self, looks: usize, is_awaited: impl Fn(&Waiting) -> bool) {
        for _ in 0..looks {
            match self.rest.pop_front() {
                Some(waiting) if is_awaited(&waiting) => self.looked_at.push_back(waiting),
                Some(_) => {}
                None => return core::mem::swap(&mut self.looked_at, &mut self.rest),
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.looked_at.is_empty() && self.rest.is_empty()
    }

    fn release_spares(&mut self) {
        self.looked_at.shrink_to_fit();
        self.rest.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slots of the tokens that a turn takes, each at this cost, with a budget of 100.
    fn turn(queue: &mut Unverified, cost: u32) -> Vec<u32> {
        turn_of(queue, 100, |_| cost)
    }

    fn turn_of(queue: &mut Unverified, budget: u32, mut cost_of: impl FnMut(u32) -> u32) -> Vec<u32> {
        let mut slots = Vec::new();
        queue.begin(budget);
        while let Some((connection, refresh, _)) = queue.pop() {
            queue.spend(cost_of(connection.slot), refresh.is_some());
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

    #[test]
    fn sign_ins_use_up_each_turn_then_refreshes_have_their_quarter_over_some_turns() {
        // What a stale entry costs before the first of them makes no difference.
        for (stale, costs) in [(0, [16, 16, 16, 41, 41]), (1, [16, 16, 16, 41, 41]), (0, [128; 5]), (0, [300; 5])] {
            let mut queue = queue(0..1000, 1000..3000);
            let (mut spent, mut of_refreshes, mut sign_ins) = (0, 0, 0);
            for _ in 0..100 {
                let slots = turn_of(&mut queue, 128, |slot| {
                    let is_first = costs[0] == 16 && slot >= 1000 && sign_ins % 5 == 0;
                    let cost = if slot < 1000 { 41 } else { costs[sign_ins % 5] };
                    let cost = cost + if is_first { stale } else { 0 };
                    spent += cost;
                    of_refreshes += if slot < 1000 { cost } else { 0 };
                    sign_ins += usize::from(slot >= 1000);
                    cost
                });
                assert!(!slots.is_empty());
            }
            // A quarter of each budget, but for what is owed at the end.
            assert!((3200 - 160..=3200 + 160).contains(&of_refreshes), "{costs:?}: {of_refreshes} of {spent}");
        }
    }

    #[test]
    fn connections_gone_then_their_tokens_go_and_others_keep_their_order() {
        let mut queue = queue(0..4, 100..110);
        let is_even = |waiting: &Waiting| waiting.0.slot.is_multiple_of(2);
        queue.drop_stale(3, is_even);
        let left = queue.sign_ins.looked_at.len() + queue.sign_ins.rest.len();
        assert_eq!(left, 9, "three were looked at, and one of them is gone");
        // One that comes meanwhile is the last, and looked at in its turn.
        queue.push((ConnectionKey { slot: 110, generation: 1 }, None, "".into()));
        queue.push((ConnectionKey { slot: 111, generation: 1 }, None, "".into()));
        for _ in 0..4 {
            queue.drop_stale(3, is_even);
        }
        assert_eq!(turn(&mut queue, 1), [100, 102, 104, 106, 108, 110, 0, 2]);
        // Also those that were awaited in one round and are not in the next.
        queue.push((ConnectionKey { slot: 112, generation: 1 }, None, "".into()));
        queue.drop_stale(3, is_even);
        assert!(!queue.is_empty());
        queue.drop_stale(3, |_| false);
        assert!(queue.is_empty());
    }
}
