//! A Redis that answers and stores nothing: it has no memory left, cannot write to its disk, or has too few replicas.
//!
//! Sessions stay and messages in no log go on; the node says so, and tries every second whether something can be stored again.

use std::sync::atomic::Ordering;

use ringgate_core::shard::Unstored;

use super::{MasterId, Work};
use crate::answer::Refusal;
use crate::outbound::Homes;
use crate::status::{Refuses, add};

/// So many trials in a row have to succeed: near a bound of memory they succeed and fail in turn.
const CALM_TRIALS: u32 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    why: Option<Refuses>,
    /// The master that has refused last: it is tried.
    at: Option<MasterId>,
    calm: u32,
}

impl Refusals {
    /// Whether anything was refused lately.
    pub(super) fn are_there(&self) -> bool {
        self.why.is_some()
    }

    /// Says whether this is news.
    fn put(&mut self, why: Refuses, at: Option<MasterId>) -> bool {
        (self.calm, self.at) = (0, at);
        self.why.replace(why) != Some(why)
    }

    /// The master that is to be tried.
    pub(super) fn tried(&self) -> Option<MasterId> {
        self.at.filter(|_| self.are_there())
    }

    /// A trial has succeeded; says whether Redis stores again.
    fn trial_succeeded(&mut self) -> bool {
        self.calm += 1;
        self.calm >= CALM_TRIALS && self.why.take().is_some()
    }
}

impl<H: Homes> Work<H> {
    /// Redis has refused something; why a message was not stored for that.
    pub(super) fn note_refusal(&mut self, refusal: Refusal, at: MasterId) -> Unstored {
        let (counter, why, unstored) = match refusal {
            Refusal::Memory => (&self.status.refused_memory, Some(Refuses::Memory), Unstored::Memory),
            Refusal::Disk => (&self.status.refused_disk, Some(Refuses::Disk), Unstored::Disk),
            Refusal::Replicas => (&self.status.refused_replicas, Some(Refuses::Replicas), Unstored::Replicas),
            Refusal::NoScript | Refusal::Moved | Refusal::Later | Refusal::Away | Refusal::Other => {
                (&self.status.refused_other, None, Unstored::Refused)
            }
        };
        add(counter, 1);
        if let Some(why) = why
            && self.refusals.put(why, Some(at))
        {
            self.status.refuses.store(why as u8, Ordering::Release);
            tracing::error!(reason = why.label(), "Redis stores no messages; the node is not ready");
        }
        unstored
    }

    /// Something could be written.
    pub(super) fn trial_succeeded(&mut self) {
        if self.refusals.trial_succeeded() {
            self.stores_again();
        }
    }

    /// Nothing is refused any more, or the master that did has no slot left.
    pub(super) fn stores_again(&mut self) {
        self.refusals = Refusals::default();
        self.status.refuses.store(0, Ordering::Release);
        tracing::info!("Redis stores messages again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_succeed_and_fail_in_turn_then_redis_is_not_said_to_store_again_before_three_in_a_row() {
        let mut refusals = Refusals::default();
        assert!(refusals.put(Refuses::Memory, None) && !refusals.put(Refuses::Memory, None));
        assert_eq!([0; 2].map(|_| refusals.trial_succeeded()), [false, false]);
        assert!(!refusals.put(Refuses::Memory, None));
        assert_eq!([0; 3].map(|_| refusals.trial_succeeded()), [false, false, true]);
        assert!(!refusals.are_there() && !refusals.trial_succeeded());
        assert!(refusals.put(Refuses::Disk, None));
    }
}
