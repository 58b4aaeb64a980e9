//! Messages on their way into the engine: given to it with their place, and sent on once it has them.
//!
//! Not used where messages are kept in memory.

use bytes::Bytes;

use super::Topic;
use crate::id::{Address, ClientMessageId, Now, ShardId, Stamp};
use crate::limits::Engine;
use crate::shard::{Effect, Record, Shard, Unstored};
use crate::topics::{Answered, DedupKey, Ticket};

/// A message that has its place in its topic's order: what is needed once it is kept.
#[derive(Debug)]
pub(in crate::shard) struct Sequenced {
    /// The publisher's session.
    pub(super) from: Address,
    pub(super) frame: Bytes,
    pub(super) answered: Answered,
    /// When it got its place, in monotonic milliseconds: its age counts from then.
    pub(super) sequenced_ms: u64,
    pub(super) ttl_ms: u64,
    pub(super) received_us: u64,
    /// Whose message it is, see [`crate::topics::Publishers`].
    pub(super) publisher: u64,
    pub(super) then: Then,
}

impl Sequenced {
    /// The session that is not to be brought its own message. One that writes to its own inbox also receives the message.
    pub(super) fn origin(&self, is_inbox: bool) -> Option<Address> {
        let is_copy = matches!(self.then, Then::Nothing);
        (is_copy || !is_inbox).then_some(self.from)
    }
}

/// What follows when it is kept, beside its delivery.
#[derive(Debug)]
pub(super) enum Then {
    /// The publisher is answered.
    Answer {
        request: u32,
        client_message_id: ClientMessageId,
        dedup_key: Option<DedupKey>,
        /// The home of the sender's own inbox, if a copy goes there.
        copied_at: Option<ShardId>,
    },
    /// It is a copy for the sender's own devices, and nobody waits for it.
    Nothing,
}

/// A repetition of a publish that is on its way into the engine.
#[derive(Debug)]
pub(in crate::shard) struct Waiter {
    pub(super) from: Address,
    pub(super) request: u32,
    pub(super) client_message_id: ClientMessageId,
}

impl Shard {
    /// Gives a message to the engine. Where several nodes share it, the topic need not be in memory.
    pub(super) fn append(&mut self, topic: Option<Topic>, name: &str, message: Sequenced, now: Now) {
        let key = match &message.then {
            Then::Answer { dedup_key, .. } => *dedup_key,
            Then::Nothing => None,
        };
        let id = key.map(|key| key.id());
        let position = message.answered.stamp.position;
        let age_ms = self.homes.age_ms_max(name);
        let own_ttl = message.ttl_ms != 0 && message.ttl_ms < age_ms;
        let stays_ms = if own_ttl { message.ttl_ms } else { age_ms };
        let record = Record {
            topic: name.into(),
            position,
            frame: message.frame.clone(),
            expires_unix_ms: now.unix_ms.saturating_add(stays_ms),
            own_ttl,
            origin: message.origin(name.starts_with('@')).map(|from| self.origin_of(from)),
            key,
        };
        let size = (message.frame.len(), topic.map_or(0, |topic| self.homes.recipients(topic)));
        let era = self.homes.appends.era();
        let offset = match self.settings.engine {
            Engine::Shared => self.homes.appends.sequenced(topic).unwrap_or_default() + 1,
            Engine::Memory | Engine::Store => position.offset,
        };
        let ticket = self.homes.appends.push(topic, offset, id, size, message);
        self.effects.push_back(Effect::Append { ticket, era, record: Box::new(record) });
    }

    /// The engine has messages: they enter their logs, are delivered and answered.
    pub(in crate::shard) fn on_appended(&mut self, through: Ticket, now: Now) {
        while let Some(append) = self.homes.appends.pop_stored(through) {
            let Some(topic) = append.topic else { continue };
            let answered = append.payload.answered;
            self.commit(topic, append.payload, now);
            append.waiters.into_iter().for_each(|waiter| self.answer_repetition(waiter, answered, now));
            self.homes.vanish_if_empty(topic, now);
        }
    }

    /// The engine has not stored messages: nothing of them is delivered or remembered, and their publishers may try again.
    pub(in crate::shard) fn on_append_failed(&mut self, from: Ticket, now: Now) {
        for append in self.homes.appends.take_failed(from) {
            self.fail_append(append, Unstored::Refused, now);
        }
    }

    /// The stamp of a message that goes to a topic now.
    pub(super) fn stamp(&mut self, topic: Option<Topic>, durability: crate::id::Durability, now: Now) -> Stamp {
        Stamp {
            position: self.homes.next_position(topic, durability),
            message_id: self.homes.next_message_id(self.settings.node_number, now),
            timestamp_ms: now.unix_ms,
        }
    }
}
