//! Topics of an engine that several nodes share: it gives each message its place, and every node's home follows.
//!
//! A message enters the log, and is delivered, when it is the next one: whether the engine has just answered for it, or has said
//! that some node stored it. News of other nodes may come twice, late or never, and both come in another order than the messages. When one
//! is not the next, what lies between is read from the engine first, and so is that one. So there is one order on all nodes,
//! without a hole and without a repetition.

use std::sync::Arc;

use bytes::Bytes;

use super::Topic;
use super::appends::{Sequenced, Then, Waiter};
use super::publish::SentMessage;
use super::reads::Asker;
use crate::close::CloseReason;
use crate::id::{Address, Now, Position, Stamp};
use crate::outbox::{Arrival, Delivery};
use crate::shard::letter::Published;
use crate::shard::{Effect, Origin, ReadResult, Shard, Stored, StoredMessage, ToEdge, Unstored};
use crate::topics::{Answered, Append, DedupKey, Message, Ticket, to_mono_ms};
use crate::wire::Draft;

/// A message with its place, wherever it comes from.
struct Placed {
    offset: u64,
    frame: Bytes,
    /// Its own ttl in milliseconds from now; 0 for the topic's.
    ttl_ms: u64,
    /// Its age counts from then, in monotonic milliseconds.
    sequenced_ms: u64,
    /// A session of this node that is not brought it.
    origin: Option<Address>,
    arrival: Arrival,
}

impl Shard {
    /// The engine has answered for a message of a publisher here.
    pub(in crate::shard) fn on_stored(&mut self, ticket: Ticket, result: Result<Stored, Unstored>, now: Now) {
        let Some(append) = self.homes.appends.take(ticket) else { return };
        match result {
            Ok(Stored::Now(position)) => self.on_placed(append, position, now),
            Ok(Stored::Before(answered)) => {
                let Append { payload: Sequenced { from, then, .. }, waiters, .. } = append;
                if let Then::Answer { request, client_message_id, dedup_key, .. } = then {
                    if let Some(key) = dedup_key {
                        self.remember_if_new(key, answered, now);
                    }
                    self.answer_repetition(Waiter { from, request, client_message_id }, answered, now);
                }
                waiters.into_iter().for_each(|waiter| self.answer_repetition(waiter, answered, now));
            }
            Err(why) => self.fail_append(append, why, now),
        }
    }

    fn on_placed(&mut self, append: Append<Option<Topic>, Sequenced, Waiter>, position: Position, now: Now) {
        let Append { topic, payload, waiters, .. } = append;
        let origin = topic.and_then(|topic| payload.origin(topic.is_inbox()));
        let Sequenced { from, frame, answered, sequenced_ms, ttl_ms, received_us, then, .. } = payload;
        let answered = Answered { stamp: Stamp { position, ..answered.stamp }, ..answered };
        let Some(frame) = Draft::restamp(&frame, position) else { return };
        if let Then::Answer { copied_at: Some(home), .. } = then {
            self.post_copy(home, &SentMessage { from, frame: &frame, stamp: answered.stamp, ttl_ms, received_us });
        }
        // If the topic was not in memory when it was published, and is now, the engine tells of the message as of any other.
        if let Some(topic) = topic {
            let (offset, arrival) = (position.offset, Arrival::at(received_us));
            let placed = Placed { offset, frame, ttl_ms, sequenced_ms, origin, arrival };
            self.take_in(topic, position.epoch, placed, now);
        }
        self.answer_publisher(from, answered, &then, now);
        waiters.into_iter().for_each(|waiter| self.answer_repetition(waiter, answered, now));
    }

    /// Some node has stored a message.
    pub(in crate::shard) fn on_arrived(&mut self, topic: &str, epoch: u64, message: StoredMessage, now: Now) {
        let Some(topic) = self.homes.find(topic) else { return };
        self.remember_stored(epoch, &message, now);
        let Some(frame) = Draft::restamp(&message.frame, Position { epoch, offset: message.offset }) else { return };
        let placed = self.placed(topic, StoredMessage { frame, ..message }, now);
        self.take_in(topic, epoch, placed, now);
    }

    /// A message in no log, or an event, is told to the other nodes that have the topic in memory.
    pub(super) fn relay(&mut self, topic: Arc<str>, frame: Bytes, from: Option<Address>) {
        let origin = Origin { run: self.homes.run(), session: from.map_or(0, Address::to_u64) };
        self.effects.push_back(Effect::Relay { topic, frame, origin });
    }

    /// Some node has relayed a message that is in no log.
    pub(in crate::shard) fn on_relayed(&mut self, topic: &str, frame: Bytes, origin: Origin, now: Now) {
        let Some(topic) = self.homes.find(topic).filter(|_| origin.run != self.homes.run()) else { return };
        if self.has_no_way_on(Some(topic), frame.len()).is_none() {
            self.deliver(topic, 0, &Delivery { frame, arrival: Arrival::UNTIMED }, None, now);
        } else {
            self.metrics.relayed_dropped.increment();
        }
    }

    /// What is known of a topic may not be true any more.
    pub(in crate::shard) fn on_changed(&mut self, topic: Arc<str>) {
        // The engine may not have heard that the last members here have left, with whom the room has left memory.
        if !topic.starts_with('@') {
            self.tell_members_anew(&topic);
        }
        if self.homes.find(&topic).is_some() {
            self.homes.loads.ask_anew(topic);
            self.ask_engine();
        }
    }

    /// The missing messages have been read. False if the engine had none of it, and is to be asked for the same again.
    pub(super) fn on_gap_read(&mut self, topic: Topic, result: ReadResult, now: Now) -> bool {
        let Some(position) = self.homes.log_position(topic) else {
            self.homes.behind.remove(&topic);
            return true;
        };
        let ReadResult { messages, upto, lost, .. } = result;
        if lost > position.offset {
            // The engine has dropped messages before they were read here.
            self.tell_of_hole(topic);
        }
        let known = self.homes.behind.remove(&topic).unwrap_or_default();
        for message in messages {
            self.homes.pass_over(topic, message.offset - 1);
            self.remember_stored(position.epoch, &message, now);
            let placed = self.placed(topic, message, now);
            self.take_in(topic, position.epoch, placed, now);
        }
        self.homes.pass_over(topic, upto);
        if known > position.offset && self.homes.log_position(topic) == Some(position) {
            self.homes.behind.insert(topic, known);
            return false;
        }
        self.read_up_to(topic, known);
        // Of a busy topic there is always something newer to read: nothing waits for that.
        let read = self.homes.log_position(topic).map_or(0, |position| position.offset);
        let held = self.homes.name_of(topic).and_then(|name| self.homes.loads.held_up_to(&name));
        if held.is_some_and(|upto| read >= upto) || !self.homes.behind.contains_key(&topic) {
            self.end_hold(topic, true, now);
        }
        true
    }

    /// A message enters the log and is delivered, if it is the next one; else what lies between is read.
    fn take_in(&mut self, topic: Topic, epoch: u64, placed: Placed, now: Now) {
        let Some(position) = self.homes.log_position(topic) else { return };
        let Placed { offset, frame, ttl_ms, sequenced_ms, origin, arrival } = placed;
        if epoch != position.epoch {
            // A newer one: what the engine has of the topic now is loaded, and the message is read then. An older one was on its way when
            // this one began, or the engine has forgotten this one.
            if let Some(name) = self.homes.name_of(topic) {
                self.on_changed(name);
            }
            return;
        }
        if offset <= position.offset {
            return;
        }
        if offset > position.offset + 1 || self.homes.behind.contains_key(&topic) {
            return self.read_up_to(topic, offset);
        }
        let message = Message { frame: frame.clone(), ttl_ms, from: origin, publisher: 0 };
        self.homes.commit(topic, message, sequenced_ms, now);
        self.deliver(topic, offset, &Delivery { frame, arrival }, origin, now);
    }

    /// Messages up to this offset are known of: those that are not here are read.
    pub(super) fn read_up_to(&mut self, topic: Topic, offset: u64) {
        let Some(position) = self.homes.log_position(topic).filter(|position| position.offset < offset) else { return };
        let is_read = self.homes.behind.contains_key(&topic);
        let newest = self.homes.behind.entry(topic).or_default();
        *newest = offset.max(*newest);
        if !is_read {
            self.read_after(topic, Asker::Home, position.offset);
        }
    }

    /// Messages of a topic are missing that cannot be brought, or its offsets mean nothing any more.
    pub(super) fn tell_of_hole(&mut self, topic: Topic) {
        // An inbox goes on behind them: what left it before it was read is counted, and told when the client comes back.
        let Topic::Room(room) = topic else { return };
        for members in self.homes.members(room).to_vec() {
            self.post_to_edge(members.shard, ToEdge::StartOver { local: members.local });
        }
    }

    /// The engine has begun a new epoch: sessions come back, and are told that nothing of the old one can be brought.
    pub(super) fn tell_of_epoch(&mut self, topic: Topic, now: Now) {
        if let Topic::Inbox(inbox) = topic {
            for session in self.homes.addresses(inbox).collect::<Vec<_>>() {
                let (to, reason) = (session.connection, CloseReason::InsufficientState);
                self.post_to_edge(session.shard, ToEdge::Refused { to, reason });
                // An Ack that is on its way speaks of the old epoch.
                self.homes.detach(inbox, session, now);
            }
        }
        self.tell_of_hole(topic);
    }

    fn placed(&self, topic: Topic, message: StoredMessage, now: Now) -> Placed {
        let StoredMessage { offset, frame, expires_unix_ms, own_ttl, origin, .. } = message;
        let (now_ms, expires_ms) = (now.mono_ms(), to_mono_ms(expires_unix_ms, now));
        let (ttl_ms, sequenced_ms) = match own_ttl {
            true => (expires_ms.saturating_sub(now_ms).max(1), now_ms),
            // As old as it is for the node that stored it.
            false => {
                let age_ms_max = self.homes.name_of(topic).map_or(0, |name| self.homes.age_ms_max(&name));
                (0, expires_ms.saturating_sub(age_ms_max).min(now_ms))
            }
        };
        let origin = origin.filter(|origin| origin.run == self.homes.run());
        let origin = origin.map(|origin| Address::from_u64(origin.session));
        Placed { offset, frame, ttl_ms, sequenced_ms, origin, arrival: Arrival::UNTIMED }
    }

    /// A repetition of a message that was stored by another node is answered here, too.
    fn remember_stored(&mut self, epoch: u64, message: &StoredMessage, now: Now) {
        if let (Some(key), Some(stamp)) = (message.key, Draft::stamp_of(&message.frame)) {
            let position = Position { epoch, offset: message.offset };
            let answered = Answered { stamp: Stamp { position, ..stamp }, durability: self.settings.engine_durability };
            self.remember_if_new(key, answered, now);
        }
    }

    /// A client message id has its answer, unless it had one before.
    pub(super) fn remember_if_new(&mut self, key: DedupKey, answered: Answered, now: Now) {
        if self.homes.dedup.find(key).is_none() {
            let evicted = self.homes.dedup.remember(key, answered, now);
            self.metrics.dedup_evicted.add(evicted);
        }
    }

    /// A publish that repeats an earlier one gets the same answer.
    pub(super) fn answer_repetition(&mut self, waiter: Waiter, answered: Answered, now: Now) {
        self.metrics.dedup_hits.increment();
        let Waiter { from, request, client_message_id } = waiter;
        let (Answered { stamp, durability }, to) = (answered, from.connection);
        let published = Published { to, request, client_message_id, stamp, durability, duplicate: true };
        self.answer_or_post(from.shard, published, now);
    }

    /// A message was not stored, or that is not known: nothing of it is delivered or remembered here, and its publisher may try again.
    pub(super) fn fail_append(&mut self, append: Append<Option<Topic>, Sequenced, Waiter>, why: Unstored, now: Now) {
        match append.payload.then {
            Then::Answer { request, .. } => {
                self.fail_with_or_post(append.payload.from, request, why.code(), why.message(), now);
            }
            Then::Nothing => self.metrics.inbox_copies_dropped.increment(),
        }
        for Waiter { from, request, .. } in append.waiters {
            self.fail_with_or_post(from, request, why.code(), why.message(), now);
        }
    }
}
