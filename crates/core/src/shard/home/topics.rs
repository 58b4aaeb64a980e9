//! Topics whose home is this shard: where messages get their order, and the only place that changes a log.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::Topic;
use super::appends::{Sequenced, Waiter};
use super::books::{Books, book_acked, book_forgotten, book_trimmed};
use super::claims::Claims;
use super::members::Told;
use super::reads::Reads;
use crate::id::{Address, Durability, InboxKey, Now, Position, RoomKey, ShardId};
use crate::keyed::{Keyed, keyed};
use crate::limits::{Engine, InboxSettings, LOG_CALM_PERCENT, LOG_WARNING_PERCENT, PUBLISHER_SHARE_OF_FREE, Settings};
use crate::metrics::{ExpireReason, ForgetReason, ShardMetrics};
use crate::named::Named;
use crate::shard::{ShardOptions, ToHome};
use crate::topics::{
    Appends, Dedup, Device, Head, Heads, Inbox, Keeps, Loads, Log, LogLimits, Message, Publishers, Room, ShardMembers,
    Trimmed, UnknownUsers, message_cost,
};

/// All topics whose home is this shard.
#[derive(Debug)]
pub(in crate::shard) struct Homes {
    pub(super) inboxes: Named<Inbox, InboxKey>,
    /// Which inboxes go first when users who have never signed in take too much together.
    unknown: UnknownUsers,
    pub(super) rooms: Named<Room, RoomKey>,
    /// Where topics stood that are quiet now.
    heads: Heads,
    publishers: Publishers,
    /// The logs' use was above the mark, and has not been below the lower one since.
    above_mark: bool,
    pub(in crate::shard) dedup: Dedup,
    /// Messages that the engine has not stored yet.
    pub(in crate::shard) appends: Appends<Option<Topic>, Sequenced, Waiter>,
    /// Topics that the engine is loading, and the letters that wait for them.
    pub(in crate::shard) loads: Loads<ToHome>,
    /// Topics of which something was stored elsewhere that did not arrive here, and the newest offset that is known of.
    pub(super) behind: HashMap<Topic, u64, Keyed>,
    /// Devices whose sessions may be on any node.
    pub(in crate::shard) claims: Claims,
    /// Members of rooms, as the engine is told of them.
    pub(in crate::shard) told: Told,
    /// Messages that the engine is reading.
    pub(in crate::shard) reads: Reads,
    /// Topics whose cursors or floors have changed since the engine was told.
    pub(super) changed: HashSet<Topic, Keyed>,
    /// Topics that have left memory since the engine was told.
    pub(super) unloaded: Vec<Arc<str>>,
    hash: Keyed,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: Arc<ShardMetrics>,
    shard: ShardId,
    shards: u64,
    run: u64,
    epochs: u64,
    last_message_id: u64,
    sweep_inbox: u32,
    sweep_room: u32,
    /// Rooms in which a device was taken over and has not joined again.
    pub(super) expecting: HashSet<RoomKey, Keyed>,
}

/// Topics that one sweep visits.
const SWEPT: u32 = 64;
/// Of an engine's topics, one in so many: a topic that nobody uses leaves memory after [`LINGER_MS`] to twice that.
const SWEPT_PART: u32 = 300;
/// How long an inbox stays in memory after its last device has gone.
const LINGER_MS: u64 = 30_000;

impl Homes {
    pub(in crate::shard) fn new(options: ShardOptions) -> Self {
        let ShardOptions { id: shard, shards, settings, metrics, seed, run } = options;
        Homes {
            inboxes: Named::new(keyed(seed)),
            unknown: UnknownUsers::default(),
            rooms: Named::new(keyed(seed)),
            heads: Heads::default(),
            publishers: Publishers::default(),
            above_mark: false,
            dedup: Dedup::new(settings.dedup_window_ms, settings.dedup_entries_max, seed),
            appends: Appends::new(seed),
            loads: Loads::new(seed),
            behind: HashMap::with_hasher(keyed(seed)),
            claims: Claims::new(seed),
            told: Told::new(seed),
            reads: Reads::new(seed),
            changed: HashSet::with_hasher(keyed(seed)),
            unloaded: Vec::new(),
            hash: keyed(seed),
            settings,
            metrics,
            shard,
            shards: shards.into(),
            run,
            epochs: 0,
            last_message_id: 0,
            sweep_inbox: 0,
            sweep_room: 0,
            expecting: HashSet::with_hasher(keyed(seed)),
        }
    }

    /// An epoch that this shard never used: time above, a counter below.
    fn new_epoch(&mut self, now: Now) -> u64 {
        self.epochs += 1;
        (now.unix_ms << 16) | (self.epochs & 0xffff)
    }

    /// 40 bits of milliseconds since 2024, 10 of node, and 14 for a counter and, below it, the shard, which takes as many
    /// bits as the node's shards need. A node gives out 16 million ids a second before it borrows from the next
    /// millisecond: ids never run so far ahead that a restart could repeat them.
    pub(super) fn next_message_id(&mut self, node: u16, now: Now) -> u64 {
        const START_2024_MS: u64 = 1_704_067_200_000;
        const TIME: u64 = 1 << 24;
        const NODE: u64 = 1 << 14;
        let one = self.shards.next_power_of_two();
        let place = u64::from(node & 0x3ff) * NODE + u64::from(self.shard.0);
        let time = now.unix_ms.saturating_sub(START_2024_MS) * TIME;
        let last_time = self.last_message_id / TIME * TIME;
        self.last_message_id = if time > last_time {
            time + place
        } else if self.last_message_id % NODE + one < NODE {
            self.last_message_id + one
        } else {
            last_time + TIME + place
        };
        self.last_message_id
    }

    /// The number of this start of the node: sessions of other starts are unknown here.
    pub(super) fn run(&self) -> u64 {
        self.run
    }

    pub(super) fn make_user(&mut self, user: Arc<str>, now: Now) -> InboxKey {
        let inbox = match self.take_head(self.head_of_user(&user)) {
            Some(head) => Inbox::resumed(user, head),
            None => Inbox::new(user, self.new_epoch(now)),
        };
        self.put_user(inbox)
    }

    pub(super) fn put_user(&mut self, inbox: Inbox) -> InboxKey {
        Books::default().rewrite(Books::of_inbox(&inbox), &self.metrics);
        self.metrics.users.add(1);
        self.inboxes.insert(inbox)
    }

    pub(super) fn make_room(&mut self, name: Arc<str>, namespace: usize, now: Now) -> RoomKey {
        let (epoch, head) = (self.new_epoch(now), self.take_head(self.hash.hash_one(&*name)));
        let mut room = self.new_room(name, namespace, epoch);
        if let Some(head) = head {
            room.resume(head);
        }
        self.put_room(room)
    }

    pub(super) fn new_room(&self, name: Arc<str>, namespace: usize, epoch: u64) -> Room {
        let keeps = match self.settings.namespaces.get(namespace) {
            Some(namespace) if namespace.join_leave => Keeps::Devices,
            Some(namespace) if namespace.presence => Keeps::Names,
            _ => Keeps::Counts,
        };
        Room::new(name, namespace, epoch, keeps, &self.hash)
    }

    pub(super) fn put_room(&mut self, room: Room) -> RoomKey {
        Books::default().rewrite(Books::of_room(&room), &self.metrics);
        self.metrics.rooms.add(1);
        self.rooms.insert(room)
    }

    /// A topic that [`Self::find`] did not find.
    pub(super) fn make(&mut self, topic: &str, namespace: usize, now: Now) -> Topic {
        debug_assert!(self.find(topic).is_none());
        match topic.strip_prefix('@') {
            Some(user) => Topic::Inbox(self.make_user(user.into(), now)),
            None => Topic::Room(self.make_room(topic.into(), namespace, now)),
        }
    }

    /// The topic, if a client has connected to it, joined it or written to it.
    pub(super) fn find(&self, topic: &str) -> Option<Topic> {
        match topic.strip_prefix('@') {
            Some(user) => self.inboxes.find(user).map(Topic::Inbox),
            None => self.rooms.find(topic).map(Topic::Room),
        }
    }

    /// The position that the next message gets; offset 0 when it is in no log.
    pub(super) fn next_position(&self, topic: Option<Topic>, durability: Durability) -> Position {
        let position = topic.and_then(|topic| self.log_position(topic)).unwrap_or_default();
        let offset = match (durability, topic) {
            (Durability::Ephemeral, _) | (_, None) => 0,
            _ if self.settings.engine == Engine::Shared => 0,
            // Nothing waits there where messages are kept in memory.
            (_, Some(topic)) if !self.appends.is_empty() => {
                self.appends.sequenced(Some(topic)).unwrap_or(position.offset) + 1
            }
            _ => position.offset + 1,
        };
        Position { offset, ..position }
    }

    /// Where a topic's log stands.
    pub(super) fn log_position(&self, topic: Topic) -> Option<Position> {
        match topic {
            Topic::Inbox(key) => self.inboxes.get(key).map(Inbox::position),
            Topic::Room(key) => self.rooms.get(key).map(|room| room.log.position()),
        }
    }

    /// A topic as it stands on the wire.
    pub(super) fn name_of(&self, topic: Topic) -> Option<Arc<str>> {
        match topic {
            Topic::Inbox(key) => self.inboxes.get(key).map(|inbox| format!("@{}", inbox.user).into()),
            Topic::Room(key) => self.rooms.get(key).map(|room| room.name.clone()),
        }
    }

    /// Recipients that a message of this topic has now.
    pub(super) fn recipients(&self, topic: Topic) -> usize {
        match topic {
            Topic::Inbox(key) => self.addresses(key).count(),
            Topic::Room(key) => self.members(key).iter().map(|members| members.count as usize).sum(),
        }
    }

    /// Whether the engine owes something that concerns this topic: it may not be forgotten meanwhile.
    pub(super) fn is_awaited(&self, topic: Topic) -> bool {
        let is_stored = !self.appends.is_empty() && self.appends.sequenced(Some(topic)).is_some();
        let is_asked_for = || self.name_of(topic).is_some_and(|name| self.loads.contains(&name));
        is_stored || self.reads.has(topic) || (!self.loads.is_empty() && is_asked_for())
    }

    /// What a user's messages are counted under.
    pub(in crate::shard) fn publisher(&self, user: &[u8]) -> u64 {
        self.hash.hash_one(user)
    }

    /// Whether a message of this user may still be kept: what is free must hold it, and what the user's messages take
    /// may not be more than [`PUBLISHER_SHARE_OF_FREE`] times that.
    fn has_room_for(&self, user: &[u8], frame_bytes: usize) -> bool {
        let used = self.metrics.log_bytes.read() as usize + self.appends.bytes();
        let cost = message_cost(frame_bytes);
        let free = self.settings.log_bytes_per_shard_max.saturating_sub(used);
        let share = free.saturating_mul(PUBLISHER_SHARE_OF_FREE);
        // If all logs together are within the share, no publisher exceeds it: none is looked up.
        cost <= free && (used + cost <= share || self.publishers.held(self.publisher(user)) + cost <= share)
    }

    /// Whether a message of this length may be kept: [`Self::has_room_for`], and an engine that stores it later has not too
    /// much to store before.
    pub(super) fn takes(&self, topic: Option<Topic>, user: &[u8], frame_bytes: usize) -> bool {
        let waits = |topic: Option<Topic>| topic.map_or(0, |topic| self.recipients(topic));
        match self.settings.engine {
            Engine::Memory => self.has_room_for(user, frame_bytes),
            // A message that memory cannot hold stays in the engine only.
            Engine::Store | Engine::Shared => {
                self.appends.is_empty() || self.appends.has_room(frame_bytes, waits(topic))
            }
        }
    }

    /// Appends to a topic's log and trims it. The message's age counts from when it was sequenced, in monotonic milliseconds.
    pub(super) fn commit(&mut self, topic: Topic, message: Message, sequenced_ms: u64, now: Now) {
        let now_ms = now.mono_ms();
        // Where memory is short, each publisher's share must be known.
        let is_short = self.metrics.log_bytes.read() as usize > self.settings.log_bytes_per_shard_max / 2;
        match topic {
            Topic::Inbox(key) => {
                let write = self.unknown.next_write();
                let tail = self.tail_bytes_max();
                let committed = self.change_inbox(key, |inbox, publishers, settings| {
                    let (is_away, is_unknown) = (inbox.connected() == 0, inbox.is_unknown() && tail.is_none());
                    let written = if is_unknown { inbox.set_written(write) } else { write };
                    let limits = inbox_limits(settings, inbox.is_unknown(), tail);
                    let log = inbox.make_log(settings.engine);
                    log.commit(message, is_away || is_short, limits, publishers, sequenced_ms);
                    (is_away, is_unknown, written, log.trim_committed(limits, now_ms, publishers))
                });
                let Some((is_away, is_unknown, written, trimmed)) = committed else { return };
                self.metrics.inbox_stored.increment();
                self.metrics.inbox_stored_offline.add(u64::from(is_away));
                self.metrics.inbox_pending.add(1);
                book_trimmed(&self.metrics, trimmed);
                if trimmed != Trimmed::default() {
                    self.mark(topic);
                }
                if is_unknown {
                    self.on_unknown_written(key, written == 0, write);
                }
            }
            Topic::Room(key) => {
                let tail = self.tail_bytes_max();
                let trimmed = self.change_room(key, |room, publishers, settings| {
                    let limits = room_limits(room, settings, tail)?;
                    room.log.commit(message, is_short, limits, publishers, sequenced_ms);
                    Some(room.log.trim_committed(limits, now_ms, publishers))
                });
                if trimmed.flatten().is_some_and(|trimmed| trimmed != Trimmed::default()) {
                    self.mark(topic);
                }
            }
        }
    }

    /// A message that is in no log was published; `topic` is none if it is not in memory. Where the namespace keeps no log, a
    /// client that comes back may have missed it, and must be told so.
    pub(super) fn pass_by(&mut self, topic: Option<Topic>, name: &str, namespace: usize) {
        if name.starts_with('@')
            || self.settings.namespaces.get(namespace).is_none_or(|n| n.durability != Durability::Ephemeral)
        {
            return;
        }
        match topic {
            Some(Topic::Room(key)) => {
                if let Some(room) = self.rooms.get_mut(key) {
                    room.published = true;
                }
            }
            Some(Topic::Inbox(_)) => {}
            None if self.heads.is_empty() => {}
            None => self.heads.mark_missed(self.hash.hash_one(name)),
        }
    }

    /// A user who has never signed in was written to. While such users take too much together, removes the inbox that was
    /// written to longest ago, but never this one.
    fn on_unknown_written(&mut self, user: InboxKey, is_first: bool, write: u64) {
        if is_first {
            let Homes { unknown, inboxes, .. } = self;
            unknown.add(user, write, |key| written_unknown(inboxes, key).is_some());
        }
        while self.metrics.inbox_unknown_bytes.read() as usize > self.settings.inbox.unknown_bytes_per_shard_max {
            let Homes { unknown, inboxes, .. } = self;
            let Some(oldest) = unknown.pop_oldest(|key| written_unknown(inboxes, key)) else { return };
            if oldest == user || self.is_awaited(Topic::Inbox(oldest)) {
                let written = self.inboxes.get(oldest).map_or(write, Inbox::written);
                return self.unknown.add(oldest, written, |_| true);
            }
            let gone = self.inboxes.get(oldest).and_then(Inbox::log).map_or(0, Log::len) as u64;
            self.remove_user(oldest);
            self.metrics.inbox_expired[ExpireReason::Unknown].add(gone);
            self.metrics.inbox_pending.subtract(gone);
        }
    }

    /// Changes an inbox, and books what its messages take afterwards.
    pub(super) fn change_inbox<R>(
        &mut self,
        key: InboxKey,
        change: impl FnOnce(&mut Inbox, &mut Publishers, &Settings) -> R,
    ) -> Option<R> {
        let inbox = self.inboxes.get_mut(key)?;
        let before = Books::of_inbox(inbox);
        let result = change(inbox, &mut self.publishers, &self.settings);
        before.rewrite(Books::of_inbox(inbox), &self.metrics);
        Some(result)
    }

    /// Changes a room, and books what its messages take afterwards.
    pub(super) fn change_room<R>(
        &mut self,
        key: RoomKey,
        change: impl FnOnce(&mut Room, &mut Publishers, &Settings) -> R,
    ) -> Option<R> {
        let room = self.rooms.get_mut(key)?;
        let before = Books::of_room(room);
        let result = change(room, &mut self.publishers, &self.settings);
        before.rewrite(Books::of_room(room), &self.metrics);
        Some(result)
    }

    /// Removes what has left a topic's log by now, so that what is said of the log is true.
    pub(super) fn trim(&mut self, topic: Topic, now: Now) {
        let now_ms = now.mono_ms();
        let tail = self.tail_bytes_max();
        let trimmed = match topic {
            Topic::Inbox(key) => {
                let trimmed = self.change_inbox(key, |inbox, publishers, settings| {
                    let limits = inbox_limits(settings, inbox.is_unknown(), tail);
                    inbox.log_mut().map(|log| log.trim(limits, now_ms, publishers))
                });
                book_trimmed(&self.metrics, trimmed.flatten().unwrap_or_default());
                trimmed
            }
            Topic::Room(key) => self.change_room(key, |room, publishers, settings| {
                let limits = room_limits(room, settings, tail)?;
                Some(room.log.trim(limits, now_ms, publishers))
            }),
        };
        if trimmed.flatten().is_some_and(|trimmed| trimmed != Trimmed::default()) {
            self.mark(topic);
        }
    }

    /// The connected address of the inbox's device number `index`; none past the last device.
    pub(super) fn device(&self, inbox: InboxKey, index: usize) -> Option<Option<Address>> {
        self.inboxes.get(inbox)?.devices().get(index).map(Device::connected)
    }

    /// Where the inbox's devices are connected.
    pub(in crate::shard) fn addresses(&self, inbox: InboxKey) -> impl Iterator<Item = Address> {
        let devices = self.inboxes.get(inbox).map_or(&[][..], Inbox::devices);
        devices.iter().filter_map(Device::connected)
    }

    /// The room's members, by shard.
    pub(super) fn members(&self, room: RoomKey) -> &[ShardMembers] {
        self.rooms.get(room).map_or(&[], Room::shards)
    }

    /// Whether publishers of this room hear themselves.
    pub(super) fn echo(&self, room: RoomKey) -> bool {
        self.rooms.get(room).and_then(|room| self.settings.namespaces.get(room.namespace)).is_none_or(|n| n.echo)
    }

    pub(in crate::shard) fn detach(&mut self, key: InboxKey, from: Address, now: Now) {
        if let Some(inbox) = self.inboxes.get_mut(key) {
            inbox.detach(from, now.mono_ms());
        }
        self.mark(Topic::Inbox(key));
    }

    pub(in crate::shard) fn acknowledge(&mut self, key: InboxKey, from: Address, offset: u64, now: Now) {
        let acked =
            self.change_inbox(key, |inbox, publishers, _| inbox.acknowledge(from, offset, publishers, now.mono_ms()));
        book_acked(&self.metrics, acked.unwrap_or_default());
        self.mark(Topic::Inbox(key));
    }

    /// Whether a session has acknowledged all that is lost, up to `lost` or what is known here. It may have done so after it asked for
    /// messages that an engine has not brought yet.
    pub(super) fn has_acknowledged_lost(&self, topic: Topic, session: Address, lost: u64) -> bool {
        let Topic::Inbox(key) = topic else { return false };
        let Some(inbox) = self.inboxes.get(key) else { return false };
        let lost = inbox.log().map_or(0, Log::lost).max(lost);
        let device = inbox.devices().iter().find(|device| device.connected() == Some(session));
        device.is_some_and(|device| device.cursor >= lost)
    }

    /// Removes what every known device of an inbox has acknowledged.
    pub(super) fn remove_acknowledged(&mut self, key: InboxKey, now: Now) {
        let acked = self.change_inbox(key, |inbox, publishers, _| inbox.remove_acknowledged(publishers, now.mono_ms()));
        book_acked(&self.metrics, acked.unwrap_or_default());
    }

    /// The device that sent messages needs no copies of them; see [`Inbox::skip_own`].
    pub(super) fn skip_own(&mut self, key: InboxKey, from: Address, now: Now) {
        let acked = self.change_inbox(key, |inbox, publishers, _| inbox.skip_own(from, publishers, now.mono_ms()));
        book_acked(&self.metrics, acked.unwrap_or_default());
        self.mark(Topic::Inbox(key));
    }

    /// Whether the user has another device than the one that is connected there.
    pub(super) fn has_other_devices(&self, key: InboxKey, from: Address) -> bool {
        self.inboxes.get(key).is_some_and(|inbox| inbox.has_other_devices(from))
    }

    /// True once when the logs take more than [`LOG_WARNING_PERCENT`] of what they may, and again only after they took less
    /// than [`LOG_CALM_PERCENT`].
    pub(in crate::shard) fn passes_mark(&mut self) -> bool {
        let percent =
            (self.metrics.log_bytes.read() as usize).saturating_mul(100) / self.settings.log_bytes_per_shard_max.max(1);
        let was_above = self.above_mark;
        self.above_mark = percent > LOG_WARNING_PERCENT || (was_above && percent >= LOG_CALM_PERCENT);
        self.above_mark && !was_above
    }

    /// Lets age work on a few topics, and forgets those of which nothing would be missed.
    pub(in crate::shard) fn sweep(&mut self, now: Now) {
        self.dedup.forget_old(now);
        let gone = self.heads.expire(self.settings.topic_ttl_ms, now.mono_ms(), SWEPT as usize);
        self.metrics.topics_forgotten[ForgetReason::Age].add(gone);
        self.metrics.quiet_topics.set(self.heads.len() as u64);
        let swept = |slots: u32| SWEPT.max(if self.is_stored() { slots / SWEPT_PART } else { 0 }).min(slots);
        let (inboxes, rooms) = (swept(self.inboxes.slots()), swept(self.rooms.slots()));
        for _ in 0..inboxes {
            self.sweep_inbox = (self.sweep_inbox + 1) % self.inboxes.slots();
            let Some(key) = self.inboxes.key_of(self.sweep_inbox) else { continue };
            self.trim(Topic::Inbox(key), now);
            self.ask_if_stale(Topic::Inbox(key), now);
            let forgotten = self.change_inbox(key, |inbox, publishers, settings| {
                if settings.engine == Engine::Shared {
                    // Other nodes may have heard of them since: they are looked at when the engine has been asked, see `on_attach`.
                    return None;
                }
                let known = inbox.devices().len();
                let expired = inbox.forget_old(settings.inbox.device_ttl_ms, publishers, now.mono_ms());
                (known > inbox.devices().len()).then_some(expired)
            });
            if let Some(expired) = forgotten.flatten() {
                book_forgotten(&self.metrics, expired);
                self.mark(Topic::Inbox(key));
            }
            if self.is_stored() {
                if self.inboxes.get(key).is_some_and(|inbox| inbox.is_left(LINGER_MS, now.mono_ms())) {
                    self.unload(Topic::Inbox(key));
                }
            } else if self.inboxes.get(key).is_some_and(Inbox::is_quiet) {
                self.forget_user(key, now);
            }
        }
        for _ in 0..rooms {
            self.sweep_room = (self.sweep_room + 1) % self.rooms.slots();
            let Some(key) = self.rooms.key_of(self.sweep_room) else { continue };
            self.trim(Topic::Room(key), now);
            self.ask_if_stale(Topic::Room(key), now);
            let Some(room) = self.rooms.get(key).filter(|room| room.count() == 0) else { continue };
            // One that vanishes may have been awaited when its last member left.
            let goes = match self.settings.engine {
                Engine::Memory => room.log.is_empty(),
                Engine::Store if room.log.is_backed() => !room.log.is_empty() && self.vanishes(room),
                Engine::Store => room.log.is_empty(),
                // When the last node has taken it out of memory, the engine deletes it.
                Engine::Shared => false,
            };
            if goes {
                self.forget_room(key, now);
            } else if room.log.is_backed() {
                self.unload(Topic::Room(key));
            }
        }
    }

    /// The head of a user's inbox lies apart from that of a room of the same name.
    fn head_of_user(&self, user: &str) -> u64 {
        self.hash.hash_one(('@', user))
    }

    /// Where a quiet topic stands.
    pub(super) fn head_of_topic(&self, topic: &str) -> Option<Head> {
        let hash = match topic.strip_prefix('@') {
            Some(user) => self.head_of_user(user),
            None => self.hash.hash_one(topic),
        };
        self.heads.peek(hash)
    }

    fn take_head(&mut self, hash: u64) -> Option<Head> {
        let head = self.heads.take(hash);
        self.metrics.quiet_topics.set(self.heads.len() as u64);
        head
    }

    fn keep_head(&mut self, hash: u64, head: Head, now: Now) {
        let gone = self.heads.keep(hash, head, now.mono_ms(), self.settings.quiet_topics_max);
        self.metrics.topics_forgotten[ForgetReason::Bound].add(gone);
        self.metrics.quiet_topics.set(self.heads.len() as u64);
    }

    /// Keeps no more of a quiet inbox than its position; not even that if its user never signed in.
    fn forget_user(&mut self, key: InboxKey, now: Now) {
        if self.is_awaited(Topic::Inbox(key)) {
            return;
        }
        let Some(inbox) = self.remove_user(key) else { return };
        if let Some(head) = inbox.head() {
            self.keep_head(self.head_of_user(&inbox.user), head, now);
        }
    }

    /// Takes an inbox out with its messages, which the caller counts.
    pub(super) fn remove_user(&mut self, key: InboxKey) -> Option<Inbox> {
        let mut inbox = self.inboxes.remove(key)?;
        Books::of_inbox(&inbox).rewrite(Books::default(), &self.metrics);
        if let Some(log) = inbox.log_mut() {
            log.discard(&mut self.publishers);
        }
        self.metrics.users.subtract(1);
        Some(inbox)
    }

    /// Takes a room out with its messages.
    pub(super) fn remove_room(&mut self, key: RoomKey) -> Option<Room> {
        let mut room = self.rooms.remove(key)?;
        Books::of_room(&room).rewrite(Books::default(), &self.metrics);
        room.log.discard(&mut self.publishers);
        self.metrics.rooms.subtract(1);
        Some(room)
    }

    /// A message has entered the log of a room, which may be empty by now, and vanish when it is.
    pub(super) fn vanish_if_empty(&mut self, topic: Topic, now: Now) {
        let Topic::Room(key) = topic else { return };
        if self.settings.engine != Engine::Shared
            && self.rooms.get(key).is_some_and(|room| room.count() == 0 && self.vanishes(room))
        {
            self.forget_room(key, now);
        }
    }

    /// Whether nothing of the room is kept when nobody is in it.
    fn vanishes(&self, room: &Room) -> bool {
        self.settings.namespaces.get(room.namespace).is_none_or(|n| n.vanish_when_empty)
    }

    /// Keeps no more of a room than its position; not even that if it vanishes when it is empty.
    pub(super) fn forget_room(&mut self, key: RoomKey, now: Now) {
        if self.is_awaited(Topic::Room(key)) {
            // A sweep finds it again.
            return;
        }
        if self.settings.engine == Engine::Shared {
            return self.unload(Topic::Room(key));
        }
        if self.log(Topic::Room(key)).is_some_and(Log::is_backed) {
            // Its messages are deleted; the room leaves memory once the engine knows the new floor.
            self.change_room(key, |room, publishers, _| room.log.remove_through(u64::MAX, now.mono_ms(), publishers));
            return self.mark(Topic::Room(key));
        }
        let Some(room) = self.remove_room(key) else { return };
        if self.settings.namespaces.get(room.namespace).is_some_and(|namespace| !namespace.vanish_when_empty) {
            self.keep_head(self.hash.hash_one(&*room.name), room.head(), now);
        }
    }

    pub(in crate::shard) fn invariants(&self) {
        self.loads.invariants();
        self.reads.invariants();
        self.claims.invariants();
        self.dedup.invariants();
        self.inboxes.invariants();
        self.rooms.invariants();
        let (mut books, mut pending, mut shares) = (Books::default(), 0, std::collections::HashMap::new());
        for (key, inbox) in self.inboxes.iter() {
            assert!(!self.heads.contains(self.head_of_user(&inbox.user)), "a head of an inbox that is there");
            books.add(Books::of_inbox(inbox));
            if let Some(log) = inbox.log() {
                log.invariants(&mut shares);
                pending += log.len() as u64;
            }
            if inbox.is_unknown() && inbox.written() > 0 {
                assert!(self.unknown.has(key, inbox.written()), "{} has no place among the unknown", inbox.user);
            }
        }
        for (_, room) in self.rooms.iter() {
            assert!(!self.heads.contains(self.hash.hash_one(&*room.name)), "a head of a room that is there");
            room.invariants();
            room.log.invariants(&mut shares);
            books.add(Books::of_room(room));
        }
        assert_eq!(books.bytes as u64, self.metrics.log_bytes.read(), "log bytes");
        assert_eq!(books.unknown as u64, self.metrics.inbox_unknown_bytes.read(), "bytes of users who never signed in");
        assert_eq!(pending, self.metrics.inbox_pending.read(), "pending inbox messages");
        assert_eq!(self.inboxes.len() as u64, self.metrics.users.read());
        assert_eq!(self.rooms.len() as u64, self.metrics.rooms.read());
        assert_eq!(shares.len(), self.publishers.len(), "publishers whose messages are kept");
        for (publisher, bytes) in shares {
            assert_eq!(self.publishers.held(publisher), bytes, "bytes of a publisher");
        }
        self.heads.invariants();
        assert!(self.heads.len() <= self.settings.quiet_topics_max, "quiet topics");
        assert_eq!(self.heads.len() as u64, self.metrics.quiet_topics.read());
    }
}

/// When the inbox of a user who never signed in was last written to; none for other users.
fn written_unknown(inboxes: &Named<Inbox, InboxKey>, key: InboxKey) -> Option<u64> {
    inboxes.get(key).filter(|inbox| inbox.is_unknown()).map(Inbox::written)
}

/// Bounds of an inbox; of one that an engine keeps, with so many bytes in memory.
fn inbox_limits(settings: &Settings, is_unknown: bool, tail: Option<usize>) -> LogLimits {
    let InboxSettings { messages_max, bytes_max, ttl_ms: age_ms_max, .. } = settings.inbox;
    let bytes_max = tail.unwrap_or(bytes_max);
    if !is_unknown {
        return LogLimits { messages_max, bytes_max, age_ms_max };
    }
    LogLimits {
        messages_max: messages_max.min(settings.inbox.unknown_messages_max),
        bytes_max: bytes_max.min(settings.inbox.unknown_bytes_per_shard_max),
        age_ms_max,
    }
}

/// Bounds of a room; of one that an engine keeps, with so many bytes in memory.
fn room_limits(room: &Room, settings: &Settings, tail: Option<usize>) -> Option<LogLimits> {
    let namespace = settings.namespaces.get(room.namespace)?;
    let (messages_max, age_ms_max) = (namespace.history_size, namespace.history_ttl_ms);
    Some(LogLimits { messages_max, bytes_max: tail.unwrap_or(usize::MAX), age_ms_max })
}
