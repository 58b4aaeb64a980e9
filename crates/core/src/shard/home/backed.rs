//! Topics whose messages an engine keeps: what of them is in memory, and what the engine is told.
//!
//! The tables are those of `topics`; here is what happens to a topic in them because there is an engine.

use std::sync::Arc;

use super::Topic;
use super::books::{book_acked, book_trimmed};
use super::topics::Homes;
use crate::id::{Durability, Now, Position};
use crate::limits::Engine;
use crate::topics::{Device, DeviceState, Inbox, LoadedTopic, Log, TopicState, Trimmed};

/// Bytes of a topic's newest messages in memory where an engine keeps them all.
const TAIL_BYTES_MAX: usize = 64 * 1024;
const TAIL_BYTES_WHERE_SHORT: usize = 4 * 1024;

/// What an engine is told of a topic beside its messages.
pub(super) struct TopicNow {
    pub(super) topic: Arc<str>,
    pub(super) epoch: u64,
    pub(super) state: Box<TopicState>,
}

/// What has come of a topic that the engine has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refreshed {
    /// There can be no such topic here.
    No,
    /// It is in memory.
    Yes,
    /// It was in memory, and begins anew: the engine has begun another epoch.
    Anew,
}

impl Homes {
    /// Whether an engine keeps the messages of this topic.
    pub(super) fn is_backed(&self, topic: &str, namespace: usize) -> bool {
        let keeps = |namespace: usize| {
            self.settings.namespaces.get(namespace).is_some_and(|n| n.durability != Durability::Ephemeral)
        };
        match self.settings.engine {
            Engine::Memory => false,
            Engine::Store => topic.starts_with('@') || keeps(namespace),
            // Of a room that keeps nothing the other nodes are heard, too.
            Engine::Shared => topic.starts_with('@') || self.settings.namespaces.get(namespace).is_some(),
        }
    }

    /// Whether a letter for this topic has to wait: the topic is not in memory, or it is being asked for already.
    pub(super) fn waits_for_topic(&self, topic: &str, namespace: usize, known: Option<Topic>) -> bool {
        self.loads.contains(topic) || (known.is_none() && self.is_backed(topic, namespace))
    }

    /// Whether a client has seen something of the topic on another node that is not known here.
    pub(super) fn is_ahead(&self, topic: Topic, at: Position) -> bool {
        self.settings.engine == Engine::Shared
            && self.log_position(topic).is_some_and(|position| {
                at.epoch > position.epoch || (at.epoch == position.epoch && at.offset > position.offset)
            })
    }

    /// Whether what is known of the topic's log may not be true any more.
    pub(super) fn is_stale(&self, topic: Topic, now: Now) -> bool {
        self.log(topic).is_some_and(|log| log.is_stale(now.mono_ms()))
    }

    pub(super) fn log(&self, topic: Topic) -> Option<&Log> {
        match topic {
            Topic::Inbox(key) => self.inboxes.get(key)?.log(),
            Topic::Room(key) => self.rooms.get(key).map(|room| &room.log),
        }
    }

    /// A topic that the engine has loaded, or of which it has said once more where it stands. False if there can be no such
    /// topic here.
    pub(super) fn load_or_refresh(&mut self, topic: &str, loaded: &LoadedTopic, now: Now) -> Refreshed {
        let Some(topic) = self.find(topic) else {
            return if self.load(topic, loaded, now) { Refreshed::Yes } else { Refreshed::No };
        };
        let epoch = self.log_position(topic).map_or(0, |position| position.epoch);
        if self.settings.engine == Engine::Shared && loaded.position.epoch != epoch {
            // The answer has an older epoch: it was under way when the new one began. The load names the known epoch, so the engine
            // makes a newer one where its own is older.
            return if loaded.position.epoch > epoch { self.begin_epoch(topic, loaded, now) } else { Refreshed::Yes };
        }
        self.refresh(topic, loaded, now);
        Refreshed::Yes
    }

    fn begin_epoch(&mut self, topic: Topic, loaded: &LoadedTopic, now: Now) -> Refreshed {
        self.behind.remove(&topic);
        self.changed.remove(&topic);
        match topic {
            Topic::Inbox(key) => {
                let before = self.log(topic).map_or(0, Log::len) as u64;
                self.change_inbox(key, |inbox, publishers, settings| {
                    inbox.begin_epoch(loaded, settings.engine, publishers, now);
                    inbox.refresh_devices(&loaded.state, now);
                });
                let after = self.log(topic).map_or(0, Log::len) as u64;
                self.metrics.inbox_unloaded.add(before);
                self.metrics.inbox_loaded.add(after);
                self.metrics.inbox_pending.add(after);
                self.metrics.inbox_pending.subtract(before);
            }
            Topic::Room(key) => {
                self.change_room(key, |room, publishers, settings| {
                    room.begin_epoch(loaded, settings.engine, publishers, now);
                });
            }
        }
        Refreshed::Anew
    }

    fn load(&mut self, topic: &str, loaded: &LoadedTopic, now: Now) -> bool {
        match topic.strip_prefix('@') {
            Some(user) => {
                let inbox = Inbox::loaded(user.into(), loaded, self.settings.engine, now);
                let pending = inbox.log().map_or(0, Log::len) as u64;
                self.metrics.inbox_loaded.add(pending);
                self.metrics.inbox_pending.add(pending);
                let key = self.put_user(inbox);
                if loaded.state.devices.iter().any(|device| device.away_since_ms.is_none()) {
                    // From now on: else it would be from the next time the inbox is loaded.
                    self.mark(Topic::Inbox(key));
                }
            }
            None => {
                let Some((namespace, _)) = self.settings.namespace_of(topic) else { return false };
                let mut room = self.new_room(topic.into(), namespace, loaded.position.epoch);
                room.load(loaded, self.settings.engine, now);
                self.put_room(room);
            }
        }
        true
    }

    fn refresh(&mut self, topic: Topic, loaded: &LoadedTopic, now: Now) {
        let (extent, now_ms) = (loaded.extent(now), now.mono_ms());
        if self.log(topic).is_some_and(|log| extent.floor < log.floor()) {
            // The engine missed our last Cursor, or has not applied it yet.
            self.mark(topic);
        }
        match topic {
            Topic::Inbox(key) => {
                let is_shared = self.settings.engine == Engine::Shared;
                let left = self.change_inbox(key, |inbox, publishers, _| {
                    if is_shared {
                        inbox.refresh_devices(&loaded.state, now);
                    }
                    let log = inbox.log_mut()?;
                    let floor = log.floor();
                    let left = log.refresh(extent, publishers, now_ms);
                    // On other nodes devices acknowledge messages, too.
                    let acknowledged = loaded.state.devices.iter().map(|device| device.cursor).min().unwrap_or(0);
                    let age =
                        if is_shared { log.lost().saturating_sub(floor.max(acknowledged)).min(left) } else { left };
                    Some((age, left - age))
                });
                let (age, acked) = left.flatten().unwrap_or_default();
                book_trimmed(&self.metrics, Trimmed { age, ..Trimmed::default() });
                book_acked(&self.metrics, acked);
            }
            Topic::Room(key) => {
                self.change_room(key, |room, publishers, _| room.log.refresh(extent, publishers, now_ms));
            }
        }
    }

    /// How long a message stays that has no ttl of its own.
    pub(super) fn age_ms_max(&self, topic: &str) -> u64 {
        if topic.starts_with('@') {
            return self.settings.inbox.ttl_ms;
        }
        let namespace = self.settings.namespace_of(topic);
        namespace.and_then(|(index, _)| self.settings.namespaces.get(index)).map_or(0, |n| n.history_ttl_ms)
    }

    /// Topics that have left memory since the last time, if the engine wants to hear of them.
    pub(super) fn take_unloaded(&mut self) -> Vec<Arc<str>> {
        core::mem::take(&mut self.unloaded)
    }

    /// What the engine is to be told of topics beside their messages.
    pub(super) fn changed_states(&mut self, now: Now) -> Vec<TopicNow> {
        let changed: Vec<Topic> = self.changed.drain().collect();
        changed.into_iter().filter_map(|topic| self.state_of(topic, now)).collect()
    }

    pub(super) fn state_of(&self, topic: Topic, now: Now) -> Option<TopicNow> {
        let state = match topic {
            Topic::Inbox(key) => self.state_of_inbox(self.inboxes.get(key)?, now),
            Topic::Room(key) => self.rooms.get(key)?.state(),
        };
        Some(TopicNow { topic: self.name_of(topic)?, epoch: self.log_position(topic)?.epoch, state: Box::new(state) })
    }

    /// Where several nodes share the engine, it is told of the devices alone that have a session here.
    fn state_of_inbox(&self, inbox: &Inbox, now: Now) -> TopicState {
        let state = inbox.state(now);
        if self.settings.engine != Engine::Shared {
            return state;
        }
        let claimed = |device: &Device| {
            let fence = self.claims.fence(device.connected()?)?;
            Some(DeviceState { fence, ..inbox.device_state(device, now) })
        };
        TopicState { devices: inbox.devices().iter().filter_map(claimed).collect(), ..state }
    }

    /// The engine is to hear where the topic's cursors and floor are now.
    pub(super) fn mark(&mut self, topic: Topic) {
        if self.settings.engine != Engine::Memory && self.log(topic).is_none_or(Log::is_backed) {
            self.changed.insert(topic);
        }
    }

    /// Messages up to this offset will not come: they have left the engine already.
    pub(super) fn pass_over(&mut self, topic: Topic, offset: u64) {
        let passed = match topic {
            Topic::Inbox(key) => self.change_inbox(key, |inbox, publishers, settings| {
                let behind = inbox.position().offset < offset;
                if behind { inbox.make_log(settings.engine).pass_over(offset, publishers) } else { 0 }
            }),
            Topic::Room(key) => {
                self.change_room(key, |room, publishers, _| room.log.pass_over(offset, publishers));
                None
            }
        }
        .unwrap_or_default();
        self.metrics.inbox_loaded.add(passed);
        self.metrics.inbox_pending.add(passed);
    }

    /// [`LogLimits`] of a topic that an engine keeps, as far as memory goes: a short tail, a shorter one where memory is short, and
    /// none where there is none left.
    pub(super) fn tail_bytes_max(&self) -> Option<usize> {
        if !self.is_stored() {
            return None;
        }
        let (used, most) = (self.metrics.log_bytes.read() as usize, self.settings.log_bytes_per_shard_max);
        Some(match used {
            _ if used >= most => 0,
            _ if used >= most / 2 => TAIL_BYTES_WHERE_SHORT,
            _ => TAIL_BYTES_MAX,
        })
    }

    /// Whether messages are kept by an engine rather than in memory.
    pub(super) fn is_stored(&self) -> bool {
        self.settings.engine != Engine::Memory
    }

    /// Messages that only the engine holds may have expired: the marks of the topic are loaded again.
    pub(super) fn ask_if_stale(&mut self, topic: Topic, now: Now) {
        if self.is_stale(topic, now)
            && let Some(name) = self.name_of(topic)
        {
            self.loads.ask(name);
        }
    }

    /// Takes a topic out of memory that nobody uses and that the engine has. If the engine has something to hear of it first, or
    /// owes something that concerns it, a later sweep finds it again.
    pub(super) fn unload(&mut self, topic: Topic) {
        if self.changed.contains(&topic) || self.is_awaited(topic) {
            return;
        }
        if self.settings.engine == Engine::Shared {
            self.unloaded.extend(self.name_of(topic));
        }
        match topic {
            Topic::Inbox(key) => {
                let Some(inbox) = self.remove_user(key) else { return };
                let pending = inbox.log().map_or(0, Log::len) as u64;
                self.metrics.inbox_unloaded.add(pending);
                self.metrics.inbox_pending.subtract(pending);
            }
            Topic::Room(key) => {
                self.remove_room(key);
            }
        }
    }
}
