//! Publish, at the topic's home: put in order, kept, and sent on its way.
//!
//! A message is first sequenced (it gets its stamp), then committed (it enters the log and the dedup window, recipients are
//! told, the publisher is answered). With logs in memory both happen at once; an engine that answers later stands between
//! (`appends`).

use std::sync::Arc;

use super::Topic;
use super::appends::{Sequenced, Then, Waiter};
use super::topics::Homes;
use crate::close::ErrorCode;
use crate::id::{Address, Durability, InboxKey, Now, ShardId, Stamp};
use crate::limits::Engine;
use crate::outbox::{Arrival, Delivery};
use crate::shard::letter::{Publish, Published, SentCopy};
use crate::shard::ways::Work;
use crate::shard::{Shard, ToHome};
use crate::topics::{Answered, DedupKey, Message};

impl Shard {
    /// A Publish arrives at its topic's home.
    pub(in crate::shard) fn on_publish_at_home(&mut self, publish: Publish, now: Now) {
        let (key, name) = (publish.dedup_key, publish.draft.topic());
        // Looked up while the memory for the next question is on its way.
        let known = self.homes.find(name);
        if let Some(answered) = key.and_then(|key| self.homes.dedup.find(key)) {
            let Publish { from, request, client_message_id, .. } = publish;
            return self.answer_repetition(Waiter { from, request, client_message_id }, answered, now);
        }
        if let Some(key) = key.filter(|_| !self.homes.appends.is_empty())
            && self.homes.appends.has(key.id())
        {
            return self.wait_for_append(key, &publish, now);
        }
        if let Some(code) = publish.refused.or_else(|| self.has_no_way_on(known, publish.draft.len())) {
            return self.fail(&publish, code, now);
        }
        let durability = self.durability(name, &publish);
        let needs_topic = |homes: &Homes| {
            // An engine that gives the places needs no home to know the topic.
            homes.settings.engine == Engine::Store
                && durability != Durability::Ephemeral
                && known.is_none()
                && homes.is_backed(name, publish.namespace)
        };
        if self.settings.engine != Engine::Memory && (self.homes.loads.has_waiting(name) || needs_topic(&self.homes)) {
            return self.wait_with_publish(publish, now);
        }
        let copied_at = self.home_of_copy(name, &publish, durability);
        if copied_at.is_some_and(|home| home != self.id && self.ways.is_full(home)) {
            return self.fail(&publish, ErrorCode::Overloaded, now);
        }
        if durability != Durability::Ephemeral && !self.homes.takes(known, publish.draft.sender(), publish.draft.len())
        {
            return self.fail(&publish, ErrorCode::StorageFull, now);
        }
        // A message that is not kept leaves no topic behind either: names are free to make up.
        let topic = match durability {
            Durability::Ephemeral => {
                self.homes.pass_by(known, name, publish.namespace);
                known
            }
            _ if self.settings.engine == Engine::Shared => known,
            _ => Some(known.unwrap_or_else(|| self.homes.make(name, publish.namespace, now))),
        };
        let stamp = self.stamp(topic, durability, now);
        let Publish { from, request, client_message_id, dedup_key, draft, ttl_ms, received_us, .. } = publish;
        let is_kept = durability != Durability::Ephemeral;
        let publisher = if is_kept { self.homes.publisher(draft.sender()) } else { 0 };
        let answered = Answered { stamp, durability };
        let then = Then::Answer { request, client_message_id, dedup_key, copied_at };
        let engine = self.settings.engine;
        let elsewhere: Option<Arc<str>> = (engine != Engine::Memory).then(|| draft.topic().into());
        let (frame, sequenced_ms) = (draft.stamp(stamp), now.mono_ms());
        let message = Sequenced { from, frame, answered, sequenced_ms, ttl_ms, received_us, publisher, then };
        match (elsewhere, is_kept) {
            (Some(name), true) => return self.append(topic, &name, message, now),
            (Some(name), false) if engine == Engine::Shared => self.relay(name, message.frame.clone(), Some(from)),
            _ => {}
        }
        match topic {
            Some(topic) => self.commit(topic, message, now),
            // Nobody is there, and nothing is kept.
            None => self.answer_publisher(message.from, answered, &message.then, now),
        }
    }

    /// A repetition waits for the answer to what it repeats.
    fn wait_for_append(&mut self, key: DedupKey, publish: &Publish, now: Now) {
        let Publish { from, request, client_message_id, .. } = *publish;
        if self.homes.appends.wait(key.id(), Waiter { from, request, client_message_id }).is_err() {
            self.fail(publish, ErrorCode::Overloaded, now);
        }
    }

    /// Where the sender's own inbox is, if what it sends to others is copied there.
    fn home_of_copy(&self, topic: &str, publish: &Publish, durability: Durability) -> Option<ShardId> {
        if !self.settings.inbox.copy_to_own_devices || durability == Durability::Ephemeral {
            return None;
        }
        let recipient = topic.strip_prefix('@')?;
        let sender = core::str::from_utf8(publish.draft.sender()).ok()?;
        (sender != recipient).then(|| self.home_of_user(sender))
    }

    /// Posts a copy of a stored message to its sender's inbox.
    pub(super) fn post_copy(&mut self, home: ShardId, of: &SentMessage<'_>) {
        let SentMessage { from, frame, stamp, ttl_ms, received_us } = *of;
        let Some(draft) = self.encoder.copy_for_sender(frame) else { return };
        let Stamp { message_id, timestamp_ms, .. } = stamp;
        let copy = SentCopy { from, draft, message_id, timestamp_ms, ttl_ms, received_us };
        self.post_to_home(home, ToHome::Copy(Box::new(copy)));
    }

    /// A user's own other devices are brought what one of them has sent. The copy is left out, and counted, where it would not
    /// be kept: the message itself has been answered.
    pub(in crate::shard) fn on_copy(&mut self, copy: SentCopy, now: Now) {
        let inbox = match self.homes.find(copy.draft.topic()) {
            Some(Topic::Inbox(inbox)) => inbox,
            None if self.homes.waits_for_topic(copy.draft.topic(), 0, None) => return self.wait_with_copy(copy),
            // The inbox was forgotten: the user has no known device.
            Some(Topic::Room(_)) | None => return,
        };
        let SentCopy { from, draft, message_id, timestamp_ms, ttl_ms, received_us } = copy;
        if !self.homes.has_other_devices(inbox, from) {
            return;
        }
        let has_way_on = self.has_no_way_on(Some(Topic::Inbox(inbox)), draft.len()).is_none();
        let topic = Topic::Inbox(inbox);
        if !has_way_on || !self.homes.takes(Some(topic), draft.sender(), draft.len()) {
            return self.metrics.inbox_copies_dropped.increment();
        }
        let durability = match self.settings.engine {
            Engine::Memory => Durability::Memory,
            Engine::Store | Engine::Shared => self.settings.engine_durability,
        };
        let stamp = Stamp { position: self.homes.next_position(Some(topic), durability), message_id, timestamp_ms };
        let publisher = self.homes.publisher(draft.sender());
        let (frame, answered) = (draft.stamp(stamp), Answered { stamp, durability });
        let (sequenced_ms, then) = (now.mono_ms(), Then::Nothing);
        let message = Sequenced { from, frame, answered, sequenced_ms, ttl_ms, received_us, publisher, then };
        match self.settings.engine {
            Engine::Store | Engine::Shared => {
                let Some(name) = self.homes.name_of(topic) else { return };
                self.append(Some(topic), &name, message, now);
            }
            Engine::Memory => self.commit(topic, message, now),
        }
    }

    /// Why a message for this topic is refused at its home, if the ways to its recipients hold too much.
    pub(super) fn has_no_way_on(&self, topic: Option<Topic>, frame_bytes: usize) -> Option<ErrorCode> {
        let full = match topic? {
            Topic::Inbox(key) => {
                let mut addresses = self.homes.addresses(key);
                addresses.any(|address| address.shard != self.id && self.ways.is_full(address.shard))
            }
            Topic::Room(key) => self.homes.members(key).iter().any(|members| {
                let work = Work::of(members.count, frame_bytes);
                !self.ways.takes_broadcast(members.shard, members.owed, work)
            }),
        };
        full.then_some(ErrorCode::Overloaded)
    }

    /// A Publish was not carried out.
    pub(super) fn fail(&mut self, publish: &Publish, code: ErrorCode, now: Now) {
        self.fail_or_post(publish.from, publish.request, code, now);
    }

    /// The level that a publish reaches.
    fn durability(&self, topic: &str, publish: &Publish) -> Durability {
        let namespace = self.settings.namespaces.get(publish.namespace);
        let wanted = match publish.ephemeral {
            true => Durability::Ephemeral,
            false if topic.starts_with('@') => Durability::Memory,
            false => namespace.map_or(Durability::Ephemeral, |namespace| namespace.durability),
        };
        match (wanted, self.settings.engine) {
            (Durability::Ephemeral, _) | (_, Engine::Memory) => wanted,
            (_, Engine::Store | Engine::Shared) => self.settings.engine_durability,
        }
    }

    /// Puts a sequenced message into the log, delivers it to connected devices or to the room's members, and
    /// answers its publisher.
    pub(super) fn commit(&mut self, topic: Topic, message: Sequenced, now: Now) {
        let origin = message.origin(topic.is_inbox());
        let Sequenced { from, frame, answered, sequenced_ms, ttl_ms, received_us, publisher, then } = message;
        let Answered { stamp, durability } = answered;
        if durability != Durability::Ephemeral {
            let kept = Message { frame: frame.clone(), ttl_ms, from: origin, publisher };
            self.homes.commit(topic, kept, sequenced_ms, now);
        }
        if let Then::Answer { copied_at: Some(home), .. } = then {
            self.post_copy(home, &SentMessage { from, frame: &frame, stamp, ttl_ms, received_us });
        }
        let delivery = Delivery { frame, arrival: Arrival::at(received_us) };
        self.deliver(topic, stamp.position.offset, &delivery, origin, now);
        self.answer_publisher(from, answered, &then, now);
    }

    /// Delivers a message to connected devices or to the room's members; `origin` as in [`Message`].
    #[inline(always)]
    pub(super) fn deliver(
        &mut self,
        topic: Topic,
        offset: u64,
        delivery: &Delivery,
        origin: Option<Address>,
        now: Now,
    ) {
        match (topic, origin) {
            (Topic::Inbox(inbox), Some(from)) => {
                self.homes.skip_own(inbox, from, now);
                self.deliver_to_devices(inbox, offset, delivery, Some(from), now);
            }
            (Topic::Inbox(inbox), None) => self.deliver_to_devices(inbox, offset, delivery, None, now),
            (Topic::Room(room), _) => {
                let echo = self.homes.echo(room);
                self.fan_out_from_home(room, offset, delivery, origin.filter(|_| !echo));
            }
        }
    }

    /// The publisher of a message hears that it is kept; a repetition of it gets the same answer from now on.
    pub(super) fn answer_publisher(&mut self, from: Address, answered: Answered, then: &Then, now: Now) {
        let Then::Answer { request, client_message_id, dedup_key, .. } = *then else { return };
        self.metrics.messages_published.increment();
        if let Some(key) = dedup_key {
            let evicted = self.homes.dedup.remember(key, answered, now);
            self.metrics.dedup_evicted.add(evicted);
        }
        let (Answered { stamp, durability }, to) = (answered, from.connection);
        let published = Published { to, request, client_message_id, stamp, durability, duplicate: false };
        self.answer_or_post(from.shard, published, now);
    }

    fn deliver_to_devices(
        &mut self,
        inbox: InboxKey,
        offset: u64,
        delivery: &Delivery,
        without: Option<Address>,
        now: Now,
    ) {
        let mut index = 0;
        // One device is the rule; the list is walked by index because posting needs the shard whole.
        while let Some(device) = self.homes.device(inbox, index) {
            index += 1;
            if let Some(address) = device.filter(|address| Some(*address) != without) {
                self.deliver_or_post(address, offset, delivery.clone(), now);
            }
        }
    }
}

/// A message that was stored in another user's inbox.
pub(super) struct SentMessage<'a> {
    pub(super) from: Address,
    pub(super) frame: &'a [u8],
    pub(super) stamp: Stamp,
    pub(super) ttl_ms: u64,
    pub(super) received_us: u64,
}
