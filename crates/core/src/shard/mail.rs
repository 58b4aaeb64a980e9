//! Letters: posted, read, and handed to the side that they are for. Only here do the two sides of a shard meet.
//!
//! A letter to the own shard that would be the next to be read is not written down: the functions named `..._or_post` do at
//! once what it says. They are for the most frequent letters.

use super::letter::{Letter, Posted, Publish, Published, ToEdge, ToHome};
use super::{Effect, Shard};
use crate::close::ErrorCode;
use crate::id::{Address, InboxKey, Now, ShardId};
use crate::limits::ASKED_MAX;
use crate::outbox::Delivery;
use crate::topics::DedupKey;

impl Shard {
    #[inline(always)]
    pub(super) fn post_to_home(&mut self, to: ShardId, letter: ToHome) {
        self.post(to, Letter::ToHome(letter));
    }

    #[inline(always)]
    pub(super) fn post_to_edge(&mut self, to: ShardId, letter: ToEdge) {
        self.post(to, Letter::ToEdge(letter));
    }

    // Inlined, a letter is written where it will lie, and not copied while its parts are still on their way to memory.
    #[inline(always)]
    fn post(&mut self, to: ShardId, letter: Letter) {
        if to == self.id {
            self.own_mail.push_back(letter);
        } else {
            self.metrics.mesh_sent.increment();
            self.effects.push_back(Effect::Post(Posted { to, letter }));
        }
    }

    /// Posts a request that the home will answer.
    pub(super) fn ask(&mut self, home: ShardId, letter: ToHome) {
        self.asked += 1;
        self.post_to_home(home, letter);
    }

    /// Why a request to that home is refused at once, if it is: too much is on its way there, or too many answers are
    /// expected.
    pub(super) fn way_is_full(&self, home: ShardId) -> Option<ErrorCode> {
        let full = home != self.id && (self.ways.is_full(home) || self.asked >= ASKED_MAX);
        full.then_some(ErrorCode::Overloaded)
    }

    /// Whether a letter to that shard would be the next one that is read here: then it need not be written down. Asked for
    /// letters of the most frequent kinds.
    fn reads_at_once(&self, to: ShardId) -> bool {
        to == self.id && self.own_mail.is_empty()
    }

    /// A Publish will be posted to this home: prefetches what the home reads first.
    pub(super) fn expect_publish(&self, home: ShardId, key: DedupKey) {
        if home == self.id {
            self.homes.dedup.prefetch(key);
        }
    }

    #[inline]
    pub(super) fn publish_or_post(&mut self, home: ShardId, publish: Publish, now: Now) {
        if home == self.id {
            self.asked += 1;
            // After what was posted before, as if it were posted, too.
            self.read_own_mail(now);
            self.on_publish_at_home(publish, now);
        } else {
            self.ask(home, ToHome::Publish(Box::new(publish)));
        }
    }

    #[inline]
    pub(super) fn acknowledge_or_post(&mut self, home: ShardId, inbox: InboxKey, from: Address, offset: u64, now: Now) {
        if self.reads_at_once(home) {
            self.homes.acknowledge(inbox, from, offset, now);
        } else {
            self.post_to_home(home, ToHome::Ack { inbox, from, offset });
        }
    }

    #[inline]
    pub(super) fn deliver_or_post(&mut self, to: Address, offset: u64, delivery: Delivery, now: Now) {
        let Address { shard, connection: to } = to;
        if self.reads_at_once(shard) {
            self.on_deliver(to, offset, delivery, now);
        } else {
            self.post_to_edge(shard, ToEdge::Deliver { to, offset, delivery });
        }
    }

    #[inline]
    pub(super) fn answer_or_post(&mut self, publisher: ShardId, published: Published, now: Now) {
        if self.reads_at_once(publisher) {
            self.on_published(&published, now);
        } else {
            self.post_to_edge(publisher, ToEdge::Published(published));
        }
    }

    pub(super) fn fail_or_post(&mut self, publisher: Address, request: u32, code: ErrorCode, now: Now) {
        self.fail_with_or_post(publisher, request, code, code.label(), now);
    }

    pub(super) fn fail_with_or_post(
        &mut self,
        publisher: Address,
        request: u32,
        code: ErrorCode,
        message: &'static str,
        now: Now,
    ) {
        let Address { shard, connection: to } = publisher;
        if self.reads_at_once(shard) {
            self.on_failed(to, request, code, message, now);
        } else {
            self.post_to_edge(shard, ToEdge::Failed { to, request, code, message });
        }
    }

    pub(super) fn read_own_mail(&mut self, now: Now) {
        while let Some(letter) = self.own_mail.pop_front() {
            self.on_letter(letter, now);
        }
    }

    pub(super) fn on_letter(&mut self, letter: Letter, now: Now) {
        match letter {
            Letter::ToHome(letter) => self.on_letter_to_home(letter, now),
            Letter::ToEdge(letter) => self.on_letter_to_edge(letter, now),
        }
    }

    /// Tells homes what of their broadcasts was worked off since the last time.
    pub(super) fn give_credit_back(&mut self) {
        while let Some((home, credit)) = self.credits.pop(self.id) {
            if home == self.id {
                self.on_credit(home, &credit);
            } else {
                self.post_to_home(home, ToHome::Credit { from: self.id, credit: Box::new(credit) });
            }
        }
    }
}
