//! Publish, at the topic's home: put in order, kept, and sent on its way.
//!
//! A message is first sequenced (it gets its stamp), then committed (it enters the log, recipients are told,
//! the publisher is answered). With logs in memory both happen at once; a store that answers later stands between.

use super::topics::Topic;
use crate::close::ErrorCode;
use crate::id::{Address, Durability, InboxKey, Now, ShardId, Stamp};
use crate::outbox::{Arrival, Delivery};
use crate::shard::letter::{Publish, Published, SentCopy};
use crate::shard::ways::Work;
use crate::shard::{Shard, ToHome};
use crate::topics::{Answered, Message};

impl Shard {
    /// A Publish arrives at its topic's home.
    pub(in crate::shard) fn on_publish_at_home(&mut self, publish: Publish, now: Now) {
        let (key, name) = (publish.dedup_key, publish.draft.topic());
        // Looked up while the memory for the next question is on its way.
        let known = self.homes.find(name);
        if let Some(answered) = key.and_then(|key| self.homes.dedup.find(key)) {
            self.metrics.dedup_hits.increment();
            return self.answer_or_post(publish.from.shard, answer(&publish, answered, true), now);
        }
        if let Some(code) = publish.refused.or_else(|| self.has_no_way_on(known, publish.draft.len())) {
            return self.fail(&publish, code, now);
        }
        let durability = self.durability(name, &publish);
        let copied_at = self.home_of_copy(name, &publish, durability);
        if copied_at.is_some_and(|home| home != self.id && self.ways.is_full(home)) {
            return self.fail(&publish, ErrorCode::Overloaded, now);
        }
        if durability != Durability::Ephemeral && !self.homes.has_room_for(publish.draft.sender(), publish.draft.len())
        {
            return self.fail(&publish, ErrorCode::StorageFull, now);
        }
        // A message that is not kept leaves no topic behind either: names are free to make up.
        let topic = match durability {
            Durability::Ephemeral => {
                self.homes.pass_by(known, name, publish.namespace);
                known
            }
            _ => Some(known.unwrap_or_else(|| self.homes.make(name, publish.namespace, now))),
        };
        let stamp = Stamp {
            position: self.homes.next_position(topic, durability),
            message_id: self.homes.next_message_id(self.settings.node_number, now),
            timestamp_ms: now.unix_ms,
        };
        self.metrics.messages_published.increment();
        let answered = Answered { stamp, durability };
        if let Some(key) = key {
            let evicted = self.homes.dedup.remember(key, answered, now);
            self.metrics.dedup_evicted.add(evicted);
        }
        let (publisher, answer) = (publish.from.shard, answer(&publish, answered, false));
        if let Some(topic) = topic {
            self.commit(topic, publish, answered, copied_at, now);
        }
        self.answer_or_post(publisher, answer, now);
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
    fn post_copy(&mut self, home: ShardId, of: &SentMessage<'_>) {
        let SentMessage { from, frame, stamp, ttl_ms, received_us } = *of;
        let Some(draft) = self.encoder.copy_for_sender(frame) else { return };
        let Stamp { message_id, timestamp_ms, .. } = stamp;
        let copy = SentCopy { from, draft, message_id, timestamp_ms, ttl_ms, received_us };
        self.post_to_home(home, ToHome::Copy(Box::new(copy)));
    }

    /// A user's own other devices are brought what one of them has sent. The copy is left out, and counted, where it would not
    /// be kept: the message itself has been answered.
    pub(in crate::shard) fn on_copy(&mut self, copy: SentCopy, now: Now) {
        let SentCopy { from, draft, message_id, timestamp_ms, ttl_ms, received_us } = copy;
        let inbox = match self.homes.find(draft.topic()) {
            Some(Topic::Inbox(inbox)) => inbox,
            // The inbox was forgotten: the user has no known device.
            Some(Topic::Room(_)) | None => return,
        };
        if !self.homes.has_other_devices(inbox, from) {
            return;
        }
        let has_way_on = self.has_no_way_on(Some(Topic::Inbox(inbox)), draft.len()).is_none();
        if !has_way_on || !self.homes.has_room_for(draft.sender(), draft.len()) {
            return self.metrics.inbox_copies_dropped.increment();
        }
        let position = self.homes.next_position(Some(Topic::Inbox(inbox)), Durability::Memory);
        let publisher = self.homes.publisher(draft.sender());
        let frame = draft.stamp(Stamp { position, message_id, timestamp_ms });
        let message = Message { frame: frame.clone(), ttl_ms, from: Some(from), publisher };
        self.homes.commit(Topic::Inbox(inbox), message, now);
        self.homes.skip_own(inbox, from, now);
        self.deliver_to_devices(
            inbox,
            position.offset,
            &Delivery { frame, arrival: Arrival::at(received_us) },
            Some(from),
            now,
        );
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
    fn fail(&mut self, publish: &Publish, code: ErrorCode, now: Now) {
        self.fail_or_post(publish.from, publish.request, code, now);
    }

    /// The level that a publish reaches.
    fn durability(&self, topic: &str, publish: &Publish) -> Durability {
        if publish.ephemeral {
            return Durability::Ephemeral;
        }
        if topic.starts_with('@') {
            return Durability::Memory;
        }
        self.settings.namespaces.get(publish.namespace).map_or(Durability::Ephemeral, |namespace| namespace.durability)
    }

    /// Puts a sequenced message into the log and delivers it to connected devices or to the room's members.
    fn commit(&mut self, topic: Topic, publish: Publish, answered: Answered, copied_at: Option<ShardId>, now: Now) {
        let Publish { from, draft, ttl_ms, received_us, .. } = publish;
        let is_kept = answered.durability != Durability::Ephemeral;
        let publisher = if is_kept { self.homes.publisher(draft.sender()) } else { 0 };
        let frame = draft.stamp(answered.stamp);
        let offset = answered.stamp.position.offset;
        if is_kept {
            // A session that writes to its own inbox also receives the message.
            let origin = matches!(topic, Topic::Room(_)).then_some(from);
            let message = Message { frame: frame.clone(), ttl_ms, from: origin, publisher };
            self.homes.commit(topic, message, now);
        }
        if let Some(home) = copied_at {
            self.post_copy(home, &SentMessage { from, frame: &frame, stamp: answered.stamp, ttl_ms, received_us });
        }
        let delivery = Delivery { frame, arrival: Arrival::at(received_us) };
        match topic {
            Topic::Inbox(inbox) => self.deliver_to_devices(inbox, offset, &delivery, None, now),
            Topic::Room(room) => {
                let echo = self.homes.echo(room);
                self.fan_out_from_home(room, offset, &delivery, (!echo).then_some(from));
            }
        }
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
struct SentMessage<'a> {
    from: Address,
    frame: &'a [u8],
    stamp: Stamp,
    ttl_ms: u64,
    received_us: u64,
}

fn answer(publish: &Publish, answered: Answered, duplicate: bool) -> Published {
    Published {
        to: publish.from.connection,
        request: publish.request,
        client_message_id: publish.client_message_id,
        stamp: answered.stamp,
        durability: answered.durability,
        duplicate,
    }
}
