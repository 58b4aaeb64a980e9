//! What an engine has stored. It outlives the node, and several nodes may share it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ringgate_core::id::{Durability, Position};
use ringgate_core::shard::{
    DeviceLeft, Fence, ReadMessages, ReadRange, ReadResult, Record, Remembered, Stored, StoredMessage,
};
use ringgate_core::topics::{Answered, DedupId, DeviceState, LoadedTopic, TopicState};
use ringgate_core::wire::Draft;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    topics: BTreeMap<Arc<str>, Topic>,
    epochs: u64,
    /// Client message ids, in the order in which they were stored.
    ids: Vec<(u64, Remembered)>,
    by_id: HashMap<DedupId, Answered>,
}

#[derive(Clone, Debug)]
struct Topic {
    epoch: u64,
    last: u64,
    state: TopicState,
    messages: BTreeMap<u64, StoredMessage>,
    /// Epochs before, and up to where their messages have the same offsets.
    before: Vec<Position>,
    /// Devices of which no state was told yet, with the claims of their sessions: they hold the floor where it is.
    claimed: BTreeMap<Arc<str>, Fence>,
}

impl Topic {
    /// Lets messages go that have expired, as far as they lie at the front.
    fn expire(&mut self, unix_ms: u64) {
        while let Some((offset, message)) = self.messages.first_key_value() {
            if message.expires_unix_ms > unix_ms {
                return;
            }
            self.state.floor = *offset;
            if !message.own_ttl {
                self.state.lost = *offset;
            }
            self.messages.pop_first();
        }
    }

    fn put_device(&mut self, device: &DeviceState) {
        if self.claimed.get(&device.name).is_some_and(|fence| *fence > device.fence) {
            return;
        }
        match self.state.devices.iter_mut().find(|known| known.name == device.name) {
            Some(known) if known.fence > device.fence => {}
            Some(known) => *known = device.clone(),
            None => self.state.devices.push(device.clone()),
        }
        self.claimed.remove(&device.name);
    }

    /// What every device has acknowledged leaves.
    fn raise_floor(&mut self) {
        let acknowledged = self.state.devices.iter().map(|device| device.cursor).min();
        if let Some(acknowledged) = acknowledged.filter(|_| self.claimed.is_empty()) {
            let acknowledged = acknowledged.min(self.last);
            if acknowledged > self.state.floor {
                (self.state.floor, self.state.lost) = (acknowledged, acknowledged);
            }
        }
        self.messages = self.messages.split_off(&(self.state.floor + 1));
    }

    fn put(&mut self, offset: u64, record: &Record) {
        let Record { frame, expires_unix_ms, own_ttl, origin, key, .. } = record.clone();
        self.messages.insert(offset, StoredMessage { offset, frame, expires_unix_ms, own_ttl, origin, key });
        self.last = offset;
    }
}

impl Disk {
    fn topic(&mut self, name: &Arc<str>) -> &mut Topic {
        let Disk { topics, epochs, .. } = self;
        topics.entry(name.clone()).or_insert_with(|| {
            *epochs += 1;
            Topic {
                epoch: *epochs,
                last: 0,
                state: TopicState::default(),
                messages: BTreeMap::new(),
                before: Vec::new(),
                claimed: BTreeMap::new(),
            }
        })
    }

    /// Stores a message that has its place. Panics if the place is not the next one.
    pub fn append(&mut self, record: &Record, unix_ms: u64) {
        let topic = self.topic(&record.topic);
        let next = Position { epoch: topic.epoch, offset: topic.last + 1 };
        assert_eq!(record.position, next, "{} has a hole, or two messages at one place", record.topic);
        topic.put(next.offset, record);
        self.remember(record, next, unix_ms);
    }

    /// Gives a message its place and stores it, unless one of its id was stored before.
    pub fn place(&mut self, record: &Record, unix_ms: u64) -> Stored {
        if let Some(answered) = record.key.and_then(|key| self.by_id.get(&key.id())) {
            return Stored::Before(*answered);
        }
        let topic = self.topic(&record.topic);
        let position = Position { epoch: topic.epoch, offset: topic.last + 1 };
        topic.put(position.offset, record);
        self.remember(record, position, unix_ms);
        Stored::Now(position)
    }

    fn remember(&mut self, record: &Record, position: Position, unix_ms: u64) {
        let Some(key) = record.key else { return };
        let stamp = Draft::stamp_of(&record.frame).expect("a message that is stored has a stamp");
        let stamp = ringgate_core::id::Stamp { position, ..stamp };
        let answered = Answered { stamp, durability: Durability::Memory };
        self.by_id.insert(key.id(), answered);
        self.ids.push((unix_ms, Remembered { topic: record.topic.clone(), key, answered }));
    }

    /// Client message ids that were stored since, oldest first.
    pub fn remembered(&self, since_unix_ms: u64) -> Vec<Remembered> {
        self.ids.iter().filter(|(at_ms, _)| *at_ms >= since_unix_ms).map(|(_, id)| id.clone()).collect()
    }

    /// The topic as it stands; of one that was never heard of, a new epoch.
    pub fn load(&mut self, name: &Arc<str>, unix_ms: u64) -> LoadedTopic {
        let topic = self.topic(name);
        topic.expire(unix_ms);
        let position = Position { epoch: topic.epoch, offset: topic.last };
        let due_unix_ms = topic.messages.first_key_value().map(|(_, message)| message.expires_unix_ms);
        LoadedTopic { position, state: topic.state.clone(), due_unix_ms, before: topic.before.clone() }
    }

    /// A node knows an epoch of the topic: if it is newer than what is here, the topic goes on in a new one above it.
    /// Says whether it does.
    pub fn begin_above(&mut self, name: &Arc<str>, epoch: u64) -> bool {
        let topic = self.topic(name);
        if topic.epoch >= epoch {
            return false;
        }
        topic.before.push(Position { epoch: topic.epoch, offset: topic.last });
        topic.epoch = epoch + 1;
        self.epochs = self.epochs.max(epoch + 1);
        true
    }

    /// Whether the topic is in this epoch.
    pub fn is_in_epoch(&mut self, name: &Arc<str>, epoch: u64) -> bool {
        self.topic(name).epoch == epoch
    }

    /// The messages that are wanted.
    pub fn read(&mut self, wanted: &ReadMessages, unix_ms: u64) -> ReadResult {
        let topic = self.topic(&wanted.topic);
        topic.expire(unix_ms);
        let mut result = ReadResult { lost: topic.state.lost, ..ReadResult::default() };
        let mut bytes = 0;
        let mut fits = |message: &StoredMessage, count: usize| {
            bytes += message.frame.len();
            count < wanted.messages_max && (bytes <= wanted.bytes_max || count == 0)
        };
        let is_alive = |message: &&StoredMessage| message.expires_unix_ms > unix_ms;
        match wanted.range {
            ReadRange::After(after) => {
                result.upto = topic.last.max(after);
                for message in topic.messages.range(after + 1..).map(|(_, message)| message).filter(is_alive) {
                    if !fits(message, result.messages.len()) {
                        result.more = true;
                        result.upto = result.messages.last().map_or(after, |last| last.offset);
                        break;
                    }
                    result.messages.push(message.clone());
                }
            }
            ReadRange::Before(before) => {
                for message in topic.messages.range(..before).rev().map(|(_, message)| message).filter(is_alive) {
                    if !fits(message, result.messages.len()) {
                        result.more = true;
                        break;
                    }
                    result.messages.push(message.clone());
                }
                result.messages.reverse();
                result.upto = result.messages.last().map_or(0, |last| last.offset);
            }
        }
        result
    }

    /// Takes a topic's state in place of the one before. Marks never fall.
    pub fn set_state(&mut self, name: &Arc<str>, state: &TopicState) {
        let topic = self.topic(name);
        let (floor, lost) = (topic.state.floor.max(state.floor), topic.state.lost.max(state.lost));
        topic.state = TopicState { floor, lost, ..state.clone() };
        topic.messages = topic.messages.split_off(&(floor + 1));
    }

    /// Deletes a room.
    pub fn remove(&mut self, name: &str) {
        self.topics.remove(name);
    }

    /// The node is gone that had the session with this claim.
    pub fn lease_ended(&mut self, name: &Arc<str>, device: &Arc<str>, fence: Fence, unix_ms: u64) {
        let topic = self.topic(name);
        if topic.claimed.get(device) == Some(&fence) {
            topic.claimed.remove(device);
        }
        let known = topic.state.devices.iter_mut().find(|known| known.name == *device && known.fence == fence);
        if let Some(known) = known {
            known.away_since_ms.get_or_insert(unix_ms);
        }
        topic.raise_floor();
    }

    /// What is stored here may be less than what `other` had said it stored: every topic goes on in a new epoch, with the offsets that
    /// its messages had.
    pub fn begin_epochs_after(&mut self, other: &Disk) {
        self.epochs = other.epochs;
        for topic in self.topics.values_mut() {
            self.epochs += 1;
            let last = topic.last;
            topic.before.iter_mut().for_each(|before| before.offset = before.offset.min(last));
            topic.before.push(Position { epoch: topic.epoch, offset: last });
            topic.epoch = self.epochs;
        }
    }

    /// Merges what one of several nodes tells of a topic. True if a device is new.
    pub fn merge(&mut self, name: &Arc<str>, epoch: u64, told: &TopicState) -> bool {
        let topic = self.topic(name);
        if epoch != topic.epoch {
            return false;
        }
        let known = topic.state.devices.len();
        let state = &mut topic.state;
        (state.floor, state.lost) = (state.floor.max(told.floor), state.lost.max(told.lost));
        state.known |= told.known;
        let goes = |device: &DeviceState| device.away_since_ms.is_some() && told.forgotten.contains(&device.name);
        let cursors = state.devices.iter().filter(|device| goes(device)).map(|device| device.cursor);
        state.forgotten_at = cursors.chain(state.forgotten_at).min();
        state.devices.retain(|device| !goes(device));
        let kept = topic.state.devices.len();
        told.devices.iter().for_each(|device| topic.put_device(device));
        topic.raise_floor();
        topic.state.devices.len() > kept || kept < known
    }

    /// A session has claimed a device.
    pub fn claim(&mut self, name: &Arc<str>, device: &Arc<str>, fence: Fence) {
        let topic = self.topic(name);
        match topic.state.devices.iter_mut().find(|known| known.name == *device) {
            Some(known) => (known.fence, known.away_since_ms) = (fence, None),
            None => drop(topic.claimed.insert(device.clone(), fence)),
        }
    }

    /// The session with this claim has ended.
    pub fn release(&mut self, name: &Arc<str>, device: &Arc<str>, fence: Fence, left: Option<&DeviceLeft>) {
        let topic = self.topic(name);
        match left.filter(|left| left.epoch == topic.epoch) {
            Some(left) => topic.put_device(&left.state),
            None if topic.claimed.get(device) == Some(&fence) => drop(topic.claimed.remove(device)),
            None => {}
        }
        topic.raise_floor();
    }

    /// Whether a message of that place was ever stored.
    pub fn has_stored(&self, topic: &str, epoch: u64, offset: u64) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.epoch == epoch && offset <= topic.last)
    }

    /// Messages that were ever stored in inboxes.
    pub fn stored_in_inboxes(&self) -> u64 {
        self.topics.iter().filter(|(name, _)| name.starts_with('@')).map(|(_, topic)| topic.last).sum()
    }

    /// The newest offset of a topic.
    pub fn last(&self, topic: &str) -> u64 {
        self.topics.get(topic).map_or(0, |topic| topic.last)
    }

    /// A message that is stored.
    pub fn message(&self, topic: &str, offset: u64) -> Option<StoredMessage> {
        self.topics.get(topic)?.messages.get(&offset).cloned()
    }
}
