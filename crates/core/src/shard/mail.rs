//! Letters: posted, read, and handed to the side that they are for. Only here do the two sides of a shard meet.
//!
//! A letter to the own shard that would be the next to be read is not written down: the functions named `..._or_post` do at
//! once what it says. They are for the most frequent letters.

use super::edge::Broadcast;
use super::edge::requests::WEIGHT_OF_LARGE;
use super::letter::{Publish, Published};
use super::{Effect, Letter, Posted, Shard, Source, letter};
use crate::close::ErrorCode;
use crate::id::{Address, Now, ShardId, TopicKey};
use crate::limits::ASKED_MAX;
use crate::outbox::Delivery;
use crate::topics::DedupKey;
use crate::wire::encode;

impl Shard {
    // Inlined, a letter is written where it will lie, and not copied while its parts are still on their way to memory.
    #[inline(always)]
    pub(super) fn post(&mut self, to: ShardId, letter: Letter) {
        if to == self.id {
            self.own_mail.push_back(letter);
        } else {
            self.metrics.mesh_sent.increment();
            self.effects.push_back(Effect::Post(Posted { to, letter }));
        }
    }

    /// Posts a request that the home will answer.
    pub(super) fn ask(&mut self, home: ShardId, letter: Letter) {
        self.asked += 1;
        self.post(home, letter);
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

    /// A Publish to a home of which it is known already that it goes there: what the home looks at first is brought.
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
            self.ask(home, Letter::Publish(Box::new(publish)));
        }
    }

    #[inline]
    pub(super) fn acknowledge_or_post(&mut self, at: ShardId, home: TopicKey, from: Address, offset: u64, now: Now) {
        if self.reads_at_once(at) {
            self.homes.acknowledge(home, from, offset, &self.metrics, now);
        } else {
            self.post(at, Letter::Ack { home, from, offset });
        }
    }

    #[inline]
    pub(super) fn deliver_or_post(&mut self, to: Address, offset: u64, delivery: Delivery, now: Now) {
        let Address { shard, connection: to } = to;
        if self.reads_at_once(shard) {
            self.on_deliver(to, offset, delivery, now);
        } else {
            self.post(shard, Letter::Deliver { to, offset, delivery });
        }
    }

    #[inline]
    pub(super) fn answer_or_post(&mut self, publisher: ShardId, published: Published, now: Now) {
        if self.reads_at_once(publisher) {
            self.on_published(&published, now);
        } else {
            self.post(publisher, Letter::Published(published));
        }
    }

    pub(super) fn fail_or_post(&mut self, publisher: Address, request: u32, code: ErrorCode, now: Now) {
        let Address { shard, connection: to } = publisher;
        if self.reads_at_once(shard) {
            self.on_failed(to, request, code, now);
        } else {
            self.post(shard, Letter::Failed { to, request, code });
        }
    }

    pub(super) fn read_own_mail(&mut self, now: Now) {
        while let Some(letter) = self.own_mail.pop_front() {
            self.on_letter(letter, now);
        }
    }

    pub(super) fn on_letter(&mut self, letter: Letter, now: Now) {
        match letter {
            Letter::Attach(attach) => self.on_attach(*attach, now),
            Letter::Detach { home, from } => self.homes.detach(home, from, now),
            Letter::Publish(publish) => {
                if let Some(key) = publish.dedup_key {
                    self.homes.dedup.prefetch(key);
                }
                self.on_publish_at_home(*publish, now);
            }
            Letter::Copy(copy) => self.on_copy(*copy, now),
            Letter::Ack { home, from, offset } => self.homes.acknowledge(home, from, offset, &self.metrics, now),
            Letter::CatchUp { topic, from, since } => self.on_catch_up(topic, from, since, now),
            Letter::Subscribe(subscribe) => self.on_subscribe_at_home(*subscribe, now),
            Letter::Unsubscribe { home, from, taken_over } => {
                self.on_unsubscribe_at_home(home, from, taken_over, now);
            }
            Letter::Presence { room, from, request, limit } => self.on_presence_at_home(room, from, request, limit),
            Letter::History(history) => self.on_history_at_home(*history, now),
            Letter::Attached { to, at, home, attachment } => self.on_attached(to, at, home, &attachment, now),
            Letter::Refused { to, reason } => self.close(to, reason, "", now),
            Letter::Published(published) => self.on_published(&published, now),
            Letter::Failed { to, request, code } => self.on_failed(to, request, code, now),
            Letter::Deliver { to, offset, delivery } => self.on_deliver(to, offset, delivery, now),
            Letter::CaughtUp { to, topic: Source::Inbox(_), gap } => self.on_inbox_caught_up(to, *gap, now),
            Letter::CaughtUp { to, topic: Source::Room { local, .. }, gap } => {
                self.on_room_caught_up(to, local, *gap, now);
            }
            Letter::Subscribed(subscribed) => {
                self.asked -= 1;
                self.on_subscribed(&subscribed, now);
            }
            Letter::PresenceResult(result) => {
                self.asked -= 1;
                self.answered_heavy(result.to, WEIGHT_OF_LARGE);
                self.reply(result.to, now, |encoder, out| {
                    let members = result.members.iter().map(|(user, device)| (&**user, &**device));
                    encoder.presence_result(out, result.request, &result.room, result.count, members);
                });
            }
            Letter::HistoryResult(result) => {
                self.asked -= 1;
                self.answered_heavy(result.to, WEIGHT_OF_LARGE);
                self.reply(result.to, now, |encoder, out| {
                    let letter::HistoryResult { request, position, more, recovered, .. } = *result;
                    let (topic, frames) = (&*result.topic, &*result.frames);
                    let fields = encode::HistoryResult { request, topic, position, frames, more, recovered };
                    encoder.history_result(out, &fields);
                });
            }
            Letter::Fanout { local, offset, logged, delivery, without, home, room, work } => {
                let broadcast = Broadcast { offset, logged, delivery, without, home, room, work };
                if !self.rooms.enqueue(local, broadcast) {
                    self.credits.add(home, room, work);
                }
            }
            Letter::Credit { from, credit } => self.on_credit(from, &credit),
        }
    }

    /// Tells homes what of their broadcasts was worked off since the last time.
    pub(in crate::shard) fn give_credit_back(&mut self) {
        while let Some((home, credit)) = self.credits.pop(self.id) {
            if home == self.id {
                self.on_credit(home, &credit);
            } else {
                self.post(home, Letter::Credit { from: self.id, credit: Box::new(credit) });
            }
        }
    }
}
