//! Topics whose home is this shard: where messages get their order, and the only place that changes a log.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashSet, HashTable};

use crate::close::CloseReason;
use crate::id::{Address, Durability, Now, Position, Recover, ShardId, TopicKey};
use crate::keyed::{Keyed, keyed};
use crate::limits::{
    HISTORY_BYTES_MAX, InboxSettings, LOG_CALM_PERCENT, LOG_WARNING_PERCENT, PUBLISHER_SHARE_OF_FREE, Settings,
};
use crate::metrics::{ExpireReason, ForgetReason, ShardMetrics};
use crate::outbox::Delivery;
use crate::shard::letter::{Attach, History, HistoryResult, PresenceResult, Subscribe, Subscribed};
use crate::shard::ways::{Credit, Work};
use crate::shard::{Letter, Shard, Source};
use crate::slots::Slots;
use crate::topics::{
    Dedup, Device, DeviceLimits, Head, Heads, Inbox, Keeps, Log, LogLimits, MemberName, Message, Publishers, Room,
    ShardMembers, Trimmed, UnknownUsers, message_cost,
};

/// A topic at home.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) enum Topic {
    Inbox(TopicKey),
    Room(TopicKey),
}

/// All topics whose home is this shard.
#[derive(Debug)]
pub(in crate::shard) struct Homes {
    inboxes: Slots<Inbox>,
    /// Slots of `inboxes` by user id.
    users: HashTable<u32>,
    /// Whose inboxes go first when those of users who have never signed in take too much.
    unknown: UnknownUsers,
    rooms: Slots<Room>,
    room_names: HashTable<TopicKey>,
    /// Where topics stood that are quiet now.
    heads: Heads,
    publishers: Publishers,
    /// The logs' use was above the mark, and has not been below the lower one since.
    above_mark: bool,
    pub(in crate::shard) dedup: Dedup,
    hash: Keyed,
    shard: ShardId,
    shards: u64,
    epochs: u64,
    last_message_id: u64,
    sweep_inbox: u32,
    sweep_room: u32,
}

/// Messages and bytes that one answer to CatchUp carries.
const CATCH_UP_MESSAGES: usize = 128;
const CATCH_UP_BYTES: usize = 256 * 1024;

/// Topics looked at by one sweep.
const SWEPT: u32 = 64;

impl Homes {
    pub(in crate::shard) fn new(shard: ShardId, shards: u16, settings: &Settings, seed: u64) -> Self {
        Homes {
            inboxes: Slots::default(),
            users: HashTable::new(),
            unknown: UnknownUsers::default(),
            rooms: Slots::default(),
            room_names: HashTable::new(),
            heads: Heads::default(),
            publishers: Publishers::default(),
            above_mark: false,
            dedup: Dedup::new(settings.dedup_window_ms, settings.dedup_entries_max, seed),
            hash: keyed(seed),
            shard,
            shards: shards.into(),
            epochs: 0,
            last_message_id: 0,
            sweep_inbox: 0,
            sweep_room: 0,
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
    pub(in crate::shard) fn next_message_id(&mut self, node: u16, now: Now) -> u64 {
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

    fn find_user(&self, user: &str) -> Option<TopicKey> {
        let is_it = |slot: &u32| self.inboxes.in_slot(*slot).is_some_and(|inbox| *inbox.user == *user);
        self.users.find(self.hash.hash_one(user), is_it).and_then(|slot| self.inboxes.key_of(*slot))
    }

    fn make_user(&mut self, user: Arc<str>, metrics: &ShardMetrics, now: Now) -> TopicKey {
        let user_hash = self.hash.hash_one(&*user);
        let inbox = match self.take_head(self.head_of_user(&user), metrics) {
            Some(head) => Inbox::resumed(user, head),
            None => Inbox::new(user, self.new_epoch(now)),
        };
        Books::default().rewrite(Books::of_inbox(&inbox), metrics);
        let key = self.inboxes.insert(inbox);
        let Homes { inboxes, users, hash, .. } = self;
        users.insert_unique(user_hash, key.slot, |slot| {
            hash.hash_one(inboxes.in_slot(*slot).map_or("", |inbox| &inbox.user))
        });
        metrics.users.add(1);
        key
    }

    fn find_room(&self, name: &str) -> Option<TopicKey> {
        let is_it = |key: &TopicKey| self.rooms.get(*key).is_some_and(|room| *room.name == *name);
        self.room_names.find(self.hash.hash_one(name), is_it).copied()
    }

    fn make_room(
        &mut self,
        name: Arc<str>,
        namespace: usize,
        settings: &Settings,
        metrics: &ShardMetrics,
        now: Now,
    ) -> TopicKey {
        let (epoch, name_hash) = (self.new_epoch(now), self.hash.hash_one(&*name));
        let keeps = match settings.namespaces.get(namespace) {
            Some(namespace) if namespace.join_leave => Keeps::Devices,
            Some(namespace) if namespace.presence => Keeps::Names,
            _ => Keeps::Counts,
        };
        let mut room = Room::new(name, namespace, epoch, keeps, &self.hash);
        if let Some(head) = self.take_head(name_hash, metrics) {
            room.resume(head);
        }
        let key = self.rooms.insert(room);
        let Homes { rooms, room_names, hash, .. } = self;
        room_names.insert_unique(name_hash, key, |key| hash.hash_one(rooms.get(*key).map_or("", |room| &room.name)));
        metrics.rooms.add(1);
        key
    }

    /// A topic that [`Self::find`] did not find.
    pub(in crate::shard) fn make(
        &mut self,
        topic: &str,
        namespace: usize,
        settings: &Settings,
        metrics: &ShardMetrics,
        now: Now,
    ) -> Topic {
        debug_assert!(self.find(topic).is_none());
        match topic.strip_prefix('@') {
            Some(user) => Topic::Inbox(self.make_user(user.into(), metrics, now)),
            None => Topic::Room(self.make_room(topic.into(), namespace, settings, metrics, now)),
        }
    }

    /// A topic that somebody has connected to, joined or written to.
    pub(in crate::shard) fn find(&self, topic: &str) -> Option<Topic> {
        match topic.strip_prefix('@') {
            Some(user) => self.find_user(user).map(Topic::Inbox),
            None => self.find_room(topic).map(Topic::Room),
        }
    }

    /// The position that the next message gets; offset 0 when it is in no log.
    pub(in crate::shard) fn next_position(&self, topic: Option<Topic>, durability: Durability) -> Position {
        let position = match topic {
            Some(Topic::Inbox(key)) => self.inboxes.get(key).map(|inbox| inbox.position()),
            Some(Topic::Room(key)) => self.rooms.get(key).map(|room| room.log.position()),
            None => None,
        }
        .unwrap_or_default();
        let offset = if durability == Durability::Ephemeral { 0 } else { position.offset + 1 };
        Position { offset, ..position }
    }

    /// What a user's messages are counted under.
    pub(in crate::shard) fn publisher(&self, user: &[u8]) -> u64 {
        self.hash.hash_one(user)
    }

    /// Whether a message of this user may still be kept: what is free must hold it, and what the user's messages take
    /// may not be more than [`PUBLISHER_SHARE_OF_FREE`] times that.
    pub(in crate::shard) fn has_room_for(
        &self,
        user: &[u8],
        frame_bytes: usize,
        settings: &Settings,
        metrics: &ShardMetrics,
    ) -> bool {
        let (used, cost) = (metrics.log_bytes.read() as usize, message_cost(frame_bytes));
        let free = settings.log_bytes_per_shard_max.saturating_sub(used);
        let share = free.saturating_mul(PUBLISHER_SHARE_OF_FREE);
        // Nobody holds more than all together, so mostly nobody need be looked up.
        cost <= free && (used + cost <= share || self.publishers.held(self.publisher(user)) + cost <= share)
    }

    /// Appends to a topic's log and trims it.
    pub(in crate::shard) fn commit(
        &mut self,
        topic: Topic,
        message: Message,
        settings: &Settings,
        metrics: &ShardMetrics,
        now: Now,
    ) {
        let now_ms = now.mono_ms();
        // Where memory is short, everybody's share must be known.
        let is_short = metrics.log_bytes.read() as usize > settings.log_bytes_per_shard_max / 2;
        match topic {
            Topic::Inbox(key) => {
                let write = self.unknown.next_write();
                let Some((is_unknown, written, trimmed)) = self.change_inbox(key, metrics, |inbox, publishers| {
                    let is_away = inbox.connected() == 0;
                    metrics.inbox_stored.increment();
                    metrics.inbox_stored_offline.add(u64::from(is_away));
                    metrics.inbox_pending.add(1);
                    let is_unknown = inbox.is_unknown();
                    let written = if is_unknown { inbox.set_written(write) } else { write };
                    let limits = inbox_limits(settings, is_unknown);
                    let log = inbox.make_log();
                    log.commit(message, is_away || is_short, limits, publishers, now_ms);
                    (is_unknown, written, log.trim_committed(limits, now_ms, publishers))
                }) else {
                    return;
                };
                book_trimmed(metrics, trimmed);
                if is_unknown {
                    self.on_unknown_written(key, written == 0, write, settings, metrics);
                }
            }
            Topic::Room(key) => {
                self.change_room(key, metrics, |room, publishers| {
                    let Some(limits) = room_limits(room, settings) else { return };
                    room.log.commit(message, is_short, limits, publishers, now_ms);
                    room.log.trim_committed(limits, now_ms, publishers);
                });
            }
        }
    }

    /// A message that is in no log goes to a topic; none where the topic is not known. Where the namespace keeps no log,
    /// nobody can be told any more that nothing was missed.
    pub(in crate::shard) fn pass_by(
        &mut self,
        topic: Option<Topic>,
        name: &str,
        namespace: usize,
        settings: &Settings,
    ) {
        if name.starts_with('@')
            || settings.namespaces.get(namespace).is_none_or(|n| n.durability != Durability::Ephemeral)
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

    /// A user who has never signed in was written to: lets go of those who were written to longest ago while all of them
    /// take too much. Not of this one, whatever it takes.
    fn on_unknown_written(
        &mut self,
        user: TopicKey,
        is_first: bool,
        write: u64,
        settings: &Settings,
        metrics: &ShardMetrics,
    ) {
        if is_first {
            let Homes { unknown, inboxes, .. } = self;
            unknown.add(user, write, |key| written_unknown(inboxes, key).is_some());
        }
        while metrics.inbox_unknown_bytes.read() as usize > settings.inbox.unknown_bytes_per_shard_max {
            let Homes { unknown, inboxes, .. } = self;
            let Some(oldest) = unknown.pop_oldest(|key| written_unknown(inboxes, key)) else { return };
            if oldest == user {
                return unknown.add(user, write, |_| true);
            }
            let gone = self.inboxes.get(oldest).and_then(Inbox::log).map_or(0, Log::len) as u64;
            self.remove_user(oldest, metrics);
            metrics.inbox_expired[ExpireReason::Unknown as usize].add(gone);
            metrics.inbox_pending.subtract(gone);
        }
    }

    /// Changes an inbox, and books what its messages take afterwards.
    fn change_inbox<R>(
        &mut self,
        key: TopicKey,
        metrics: &ShardMetrics,
        change: impl FnOnce(&mut Inbox, &mut Publishers) -> R,
    ) -> Option<R> {
        let inbox = self.inboxes.get_mut(key)?;
        let before = Books::of_inbox(inbox);
        let result = change(inbox, &mut self.publishers);
        before.rewrite(Books::of_inbox(inbox), metrics);
        Some(result)
    }

    /// Changes a room, and books what its messages take afterwards.
    fn change_room<R>(
        &mut self,
        key: TopicKey,
        metrics: &ShardMetrics,
        change: impl FnOnce(&mut Room, &mut Publishers) -> R,
    ) -> Option<R> {
        let room = self.rooms.get_mut(key)?;
        let before = Books::of_room(room);
        let result = change(room, &mut self.publishers);
        before.rewrite(Books::of_room(room), metrics);
        Some(result)
    }

    /// Removes what has left a topic's log by now, so that what is said of the log is true.
    fn trim(&mut self, topic: Topic, settings: &Settings, metrics: &ShardMetrics, now: Now) {
        let now_ms = now.mono_ms();
        match topic {
            Topic::Inbox(key) => {
                let trimmed = self.change_inbox(key, metrics, |inbox, publishers| {
                    let limits = inbox_limits(settings, inbox.is_unknown());
                    inbox.log_mut().map(|log| log.trim(limits, now_ms, publishers))
                });
                book_trimmed(metrics, trimmed.flatten().unwrap_or_default());
            }
            Topic::Room(key) => {
                self.change_room(key, metrics, |room, publishers| {
                    if let Some(limits) = room_limits(room, settings) {
                        room.log.trim(limits, now_ms, publishers);
                    }
                });
            }
        }
    }

    /// The connected address of the inbox's device number `index`; none past the last device.
    pub(in crate::shard) fn device(&self, inbox: TopicKey, index: usize) -> Option<Option<Address>> {
        self.inboxes.get(inbox)?.devices().get(index).map(Device::connected)
    }

    /// Where the inbox's devices are connected.
    pub(in crate::shard) fn addresses(&self, inbox: TopicKey) -> impl Iterator<Item = Address> {
        let devices = self.inboxes.get(inbox).map_or(&[][..], Inbox::devices);
        devices.iter().filter_map(Device::connected)
    }

    /// The room's members, by shard.
    pub(in crate::shard) fn members(&self, room: TopicKey) -> &[ShardMembers] {
        self.rooms.get(room).map_or(&[], Room::shards)
    }

    /// Whether publishers of this room hear themselves.
    pub(in crate::shard) fn echo(&self, room: TopicKey, settings: &Settings) -> bool {
        self.rooms.get(room).and_then(|room| settings.namespaces.get(room.namespace)).is_none_or(|n| n.echo)
    }

    pub(in crate::shard) fn detach(&mut self, home: TopicKey, from: Address, now: Now) {
        if let Some(inbox) = self.inboxes.get_mut(home) {
            inbox.detach(from, now.mono_ms());
        }
    }

    pub(in crate::shard) fn acknowledge(
        &mut self,
        home: TopicKey,
        from: Address,
        offset: u64,
        metrics: &ShardMetrics,
        now: Now,
    ) {
        let acked = self.change_inbox(home, metrics, |inbox, publishers| {
            inbox.acknowledge(from, offset, publishers, now.mono_ms())
        });
        book_acked(metrics, acked.unwrap_or_default());
    }

    /// Removes what every known device of an inbox has acknowledged.
    fn remove_acknowledged(&mut self, home: TopicKey, metrics: &ShardMetrics, now: Now) {
        let acked =
            self.change_inbox(home, metrics, |inbox, publishers| inbox.remove_acknowledged(publishers, now.mono_ms()));
        book_acked(metrics, acked.unwrap_or_default());
    }

    /// The device that sent messages needs no copies of them; see [`Inbox::skip_own`].
    pub(in crate::shard) fn skip_own(&mut self, home: TopicKey, from: Address, metrics: &ShardMetrics, now: Now) {
        let acked =
            self.change_inbox(home, metrics, |inbox, publishers| inbox.skip_own(from, publishers, now.mono_ms()));
        book_acked(metrics, acked.unwrap_or_default());
    }

    /// Whether the user has another device than the one that is connected there.
    pub(in crate::shard) fn has_other_devices(&self, home: TopicKey, from: Address) -> bool {
        self.inboxes.get(home).is_some_and(|inbox| inbox.has_other_devices(from))
    }

    /// True once when the logs take more than [`LOG_WARNING_PERCENT`] of what they may, and again only after they took less
    /// than [`LOG_CALM_PERCENT`].
    pub(in crate::shard) fn passes_mark(&mut self, settings: &Settings, metrics: &ShardMetrics) -> bool {
        let percent = (metrics.log_bytes.read() as usize).saturating_mul(100) / settings.log_bytes_per_shard_max.max(1);
        let was_above = self.above_mark;
        self.above_mark = percent > LOG_WARNING_PERCENT || (was_above && percent >= LOG_CALM_PERCENT);
        self.above_mark && !was_above
    }

    /// Lets age work on a few topics, and forgets those of which nothing would be missed.
    pub(in crate::shard) fn sweep(&mut self, settings: &Settings, metrics: &ShardMetrics, now: Now) {
        self.dedup.forget_old(now);
        let gone = self.heads.expire(settings.topic_ttl_ms, now.mono_ms(), SWEPT as usize);
        metrics.topics_forgotten[ForgetReason::Age as usize].add(gone);
        metrics.quiet_topics.set(self.heads.len() as u64);
        for _ in 0..SWEPT.min(self.inboxes.slots()) {
            self.sweep_inbox = (self.sweep_inbox + 1) % self.inboxes.slots();
            let Some(key) = self.inboxes.key_of(self.sweep_inbox) else { continue };
            self.trim(Topic::Inbox(key), settings, metrics, now);
            let expired = self.change_inbox(key, metrics, |inbox, publishers| {
                inbox.forget_old(settings.inbox.device_ttl_ms, publishers, now.mono_ms())
            });
            book_forgotten(metrics, expired.unwrap_or_default());
            if self.inboxes.get(key).is_some_and(Inbox::is_quiet) {
                self.forget_user(key, settings, metrics, now);
            }
        }
        for _ in 0..SWEPT.min(self.rooms.slots()) {
            self.sweep_room = (self.sweep_room + 1) % self.rooms.slots();
            let Some(key) = self.rooms.key_of(self.sweep_room) else { continue };
            self.trim(Topic::Room(key), settings, metrics, now);
            if self.rooms.get(key).is_some_and(|room| room.count() == 0 && room.log.is_empty()) {
                self.forget_room(key, settings, metrics, now);
            }
        }
    }

    /// The head of a user's inbox lies apart from that of a room of the same name.
    fn head_of_user(&self, user: &str) -> u64 {
        self.hash.hash_one(('@', user))
    }

    /// Where a quiet topic stands.
    fn head_of_topic(&self, topic: &str) -> Option<Head> {
        let hash = match topic.strip_prefix('@') {
            Some(user) => self.head_of_user(user),
            None => self.hash.hash_one(topic),
        };
        self.heads.peek(hash)
    }

    fn take_head(&mut self, hash: u64, metrics: &ShardMetrics) -> Option<Head> {
        let head = self.heads.take(hash);
        metrics.quiet_topics.set(self.heads.len() as u64);
        head
    }

    fn keep_head(&mut self, hash: u64, head: Head, settings: &Settings, metrics: &ShardMetrics, now: Now) {
        let gone = self.heads.keep(hash, head, now.mono_ms(), settings.quiet_topics_max);
        metrics.topics_forgotten[ForgetReason::Bound as usize].add(gone);
        metrics.quiet_topics.set(self.heads.len() as u64);
    }

    /// Keeps no more of a quiet inbox than its position; not even that if its user never signed in.
    fn forget_user(&mut self, key: TopicKey, settings: &Settings, metrics: &ShardMetrics, now: Now) {
        let Some(inbox) = self.remove_user(key, metrics) else { return };
        if let Some(head) = inbox.head() {
            self.keep_head(self.head_of_user(&inbox.user), head, settings, metrics, now);
        }
    }

    /// Takes an inbox out with its messages, which the caller counts.
    fn remove_user(&mut self, key: TopicKey, metrics: &ShardMetrics) -> Option<Inbox> {
        let mut inbox = self.inboxes.remove(key)?;
        let hash = self.hash.hash_one(&*inbox.user);
        if let Ok(entry) = self.users.find_entry(hash, |known| *known == key.slot) {
            entry.remove();
        }
        Books::of_inbox(&inbox).rewrite(Books::default(), metrics);
        if let Some(log) = inbox.log_mut() {
            log.remove_through(u64::MAX, 0, &mut self.publishers);
        }
        metrics.users.subtract(1);
        Some(inbox)
    }

    /// Keeps no more of a room than its position; not even that if it vanishes when it is empty.
    fn forget_room(&mut self, key: TopicKey, settings: &Settings, metrics: &ShardMetrics, now: Now) {
        let Some(mut room) = self.rooms.remove(key) else { return };
        let hash = self.hash.hash_one(&*room.name);
        if let Ok(entry) = self.room_names.find_entry(hash, |known| *known == key) {
            entry.remove();
        }
        Books::of_room(&room).rewrite(Books::default(), metrics);
        room.log.remove_through(u64::MAX, 0, &mut self.publishers);
        metrics.rooms.subtract(1);
        if settings.namespaces.get(room.namespace).is_some_and(|namespace| !namespace.vanish_when_empty) {
            self.keep_head(hash, room.head(), settings, metrics, now);
        }
    }

    pub(in crate::shard) fn invariants(&self, settings: &Settings, metrics: &ShardMetrics) {
        self.dedup.invariants();
        let (mut books, mut pending, mut shares) = (Books::default(), 0, HashMap::new());
        for (key, inbox) in self.inboxes.iter() {
            assert_eq!(self.find_user(&inbox.user), Some(key));
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
        for (key, room) in self.rooms.iter() {
            assert_eq!(self.find_room(&room.name), Some(key));
            assert!(!self.heads.contains(self.hash.hash_one(&*room.name)), "a head of a room that is there");
            room.invariants();
            room.log.invariants(&mut shares);
            books.add(Books::of_room(room));
        }
        assert_eq!(books.bytes as u64, metrics.log_bytes.read(), "log bytes");
        assert_eq!(books.unknown as u64, metrics.inbox_unknown_bytes.read(), "bytes of users who never signed in");
        assert_eq!(pending, metrics.inbox_pending.read(), "pending inbox messages");
        assert_eq!(self.inboxes.len() as u64, metrics.users.read());
        assert_eq!(self.rooms.len() as u64, metrics.rooms.read());
        assert_eq!(shares.len(), self.publishers.len(), "publishers whose messages are kept");
        for (publisher, bytes) in shares {
            assert_eq!(self.publishers.held(publisher), bytes, "bytes of a publisher");
        }
        self.heads.invariants();
        assert!(self.heads.len() <= settings.quiet_topics_max, "quiet topics");
        assert_eq!(self.heads.len() as u64, metrics.quiet_topics.read());
    }
}

/// When the inbox of a user who never signed in was last written to; none for other users.
fn written_unknown(inboxes: &Slots<Inbox>, key: TopicKey) -> Option<u64> {
    inboxes.get(key).filter(|inbox| inbox.is_unknown()).map(Inbox::written)
}

/// What a topic's messages take of the heap, as the metrics count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Books {
    bytes: usize,
    /// Of these, what users take who have never signed in.
    unknown: usize,
}

impl Books {
    fn of_inbox(inbox: &Inbox) -> Self {
        let bytes = inbox.heap_bytes();
        Books { bytes, unknown: if inbox.is_unknown() { bytes } else { 0 } }
    }

    fn of_room(room: &Room) -> Self {
        Books { bytes: room.heap_bytes(), unknown: 0 }
    }

    fn add(&mut self, other: Books) {
        self.bytes += other.bytes;
        self.unknown += other.unknown;
    }

    /// Replaces these figures of a topic by others.
    fn rewrite(self, after: Books, metrics: &ShardMetrics) {
        if self.bytes != after.bytes {
            metrics.log_bytes.add(after.bytes as u64);
            metrics.log_bytes.subtract(self.bytes as u64);
        }
        if self.unknown != after.unknown {
            metrics.inbox_unknown_bytes.add(after.unknown as u64);
            metrics.inbox_unknown_bytes.subtract(self.unknown as u64);
        }
    }
}

fn inbox_limits(settings: &Settings, is_unknown: bool) -> LogLimits {
    let InboxSettings { messages_max, bytes_max, age_ms_max, .. } = settings.inbox;
    if !is_unknown {
        return LogLimits { messages_max, bytes_max, age_ms_max };
    }
    LogLimits {
        messages_max: messages_max.min(settings.inbox.unknown_messages_max),
        bytes_max: bytes_max.min(settings.inbox.unknown_bytes_per_shard_max),
        age_ms_max,
    }
}

fn room_limits(room: &Room, settings: &Settings) -> Option<LogLimits> {
    let namespace = settings.namespaces.get(room.namespace)?;
    let (messages_max, age_ms_max) = (namespace.history_size, namespace.history_ttl_ms);
    Some(LogLimits { messages_max, bytes_max: usize::MAX, age_ms_max })
}

/// Messages left an inbox.
fn book_trimmed(metrics: &ShardMetrics, trimmed: Trimmed) {
    let Trimmed { age, count, size } = trimmed;
    metrics.inbox_expired[ExpireReason::Age as usize].add(age);
    metrics.inbox_expired[ExpireReason::Count as usize].add(count);
    metrics.inbox_expired[ExpireReason::Size as usize].add(size);
    metrics.inbox_pending.subtract(age + count + size);
}

/// Messages left an inbox because every device had acknowledged them.
fn book_acked(metrics: &ShardMetrics, acked: u64) {
    metrics.inbox_acked.add(acked);
    metrics.inbox_pending.subtract(acked);
}

/// Messages left an inbox because only devices that are forgotten now had not read them.
fn book_forgotten(metrics: &ShardMetrics, expired: u64) {
    metrics.inbox_expired[ExpireReason::Device as usize].add(expired);
    metrics.inbox_pending.subtract(expired);
}

impl Shard {
    /// A device connects.
    pub(in crate::shard) fn on_attach(&mut self, attach: Attach, now: Now) {
        let Attach { user, device, from, resume } = attach;
        let known = self.homes.find_user(&user);
        let home = known.unwrap_or_else(|| self.homes.make_user(user, &self.metrics, now));
        // What is found must not have left by the time it is to be brought.
        self.homes.trim(Topic::Inbox(home), &self.settings, &self.metrics, now);
        let limits = DeviceLimits {
            sessions_max: self.settings.client.sessions_per_user_max,
            devices_max: self.settings.inbox.devices_max,
            ttl_ms: self.settings.inbox.device_ttl_ms,
        };
        let attached = self.homes.change_inbox(home, &self.metrics, |inbox, publishers| {
            inbox.attach(&device, from, resume, limits, publishers, now.mono_ms())
        });
        match attached.flatten() {
            None => {
                let reason = CloseReason::ConnectionLimit;
                self.post(from.shard, Letter::Refused { to: from.connection, reason });
            }
            Some((attachment, expired)) => {
                book_forgotten(&self.metrics, expired);
                // A client that resumes behind its stored cursor has kept what lies between.
                if attachment.recovered {
                    self.homes.remove_acknowledged(home, &self.metrics, now);
                }
                if let Some(old) = attachment.taken_over {
                    let reason = CloseReason::TakenOver;
                    self.post(old.shard, Letter::Refused { to: old.connection, reason });
                }
                let attachment = Box::new(attachment);
                self.post(from.shard, Letter::Attached { to: from.connection, at: self.id, home, attachment });
            }
        }
    }

    /// A session asks for what it is missing.
    pub(in crate::shard) fn on_catch_up(&mut self, topic: Source, from: Address, since: u64, now: Now) {
        let at_home = match topic {
            Source::Inbox(key) => Topic::Inbox(key),
            Source::Room { home, .. } => Topic::Room(home),
        };
        self.homes.trim(at_home, &self.settings, &self.metrics, now);
        let gap = match topic {
            // What the session itself has sent to others lies there as a copy.
            Source::Inbox(key) => self.homes.inboxes.get(key).and_then(Inbox::log).map(|log| (log, Some(from))),
            Source::Room { home, .. } => self.homes.rooms.get(home).map(|room| {
                let echo = self.homes.echo(home, &self.settings);
                (&room.log, (!echo).then_some(from))
            }),
        }
        .map(|(log, without)| log.after(since, CATCH_UP_MESSAGES, CATCH_UP_BYTES, without, now.mono_ms()))
        .unwrap_or_default();
        self.post(from.shard, Letter::CaughtUp { to: from.connection, topic, gap: Box::new(gap) });
    }

    /// A session joins a room.
    pub(in crate::shard) fn on_subscribe_at_home(&mut self, subscribe: Subscribe, now: Now) {
        let Subscribe { room: name, namespace, from, user, device, request, since, recover, local, counted } =
            subscribe;
        let known = self.homes.find_room(&name);
        let key = known.unwrap_or_else(|| self.homes.make_room(name, namespace, &self.settings, &self.metrics, now));
        self.homes.trim(Topic::Room(key), &self.settings, &self.metrics, now);
        let Some(room) = self.homes.rooms.get_mut(key) else { return };
        let comes = room.join(MemberName { address: from, user: user.clone(), device: device.clone() }, local);
        let position = room.log.position();
        let reached = since.filter(|since| room.recovers(*since));
        if since.is_some() {
            self.metrics.recoveries[usize::from(reached.is_none())].increment();
        }
        let subscribed = Subscribed {
            to: from.connection,
            request,
            local,
            home: key,
            recovered: since.is_none() || reached.is_some(),
            position,
            start: match (since, reached) {
                (_, Some(reached)) => reached.offset,
                (Some(_), None) if recover == Recover::Best => room.log.lost(),
                _ => position.offset,
            },
            counted,
        };
        self.post(from.shard, Letter::Subscribed(Box::new(subscribed)));
        if comes {
            self.announce(key, true, Some(from), &user, &device);
        }
    }

    /// A session has left a room.
    pub(in crate::shard) fn on_unsubscribe_at_home(
        &mut self,
        home: TopicKey,
        from: Address,
        taken_over: bool,
        now: Now,
    ) {
        let Some(room) = self.homes.rooms.get_mut(home) else { return };
        let (namespace, left) = (room.namespace, room.leave(from, taken_over, now.mono_ms()));
        if room.expects() {
            self.expecting.insert(home);
        }
        if room.count() > 0 {
            if let Some(member) = left {
                self.announce(home, false, Some(from), &member.user, &member.device);
            }
        } else if room.log.is_empty() || self.settings.namespaces.get(namespace).is_none_or(|n| n.vanish_when_empty) {
            self.homes.forget_room(home, &self.settings, &self.metrics, now);
        }
    }

    /// Announces that devices have left which were taken over and did not join again in time.
    pub(in crate::shard) fn announce_not_come_back(&mut self, now: Now) {
        if self.expecting.is_empty() {
            return;
        }
        let none = HashSet::with_hasher(self.expecting.hasher().clone());
        let mut expecting = core::mem::replace(&mut self.expecting, none);
        expecting.retain(|key| {
            while let Some((user, device)) =
                self.homes.rooms.get_mut(*key).and_then(|room| room.not_come_back(now.mono_ms()))
            {
                self.announce(*key, false, None, &user, &device);
            }
            self.homes.rooms.get(*key).is_some_and(Room::expects)
        });
        self.expecting = expecting;
    }

    /// Tells a room's members which device came or went. A hint: it is left out where the ways to the members are full.
    fn announce(&mut self, room: TopicKey, joined: bool, without: Option<Address>, user: &str, device: &str) {
        let Some(name) = self.homes.rooms.get(room).map(|room| room.name.clone()) else { return };
        let mut frame = Vec::new();
        self.encoder.member_event(&mut frame, joined, &name, user, device);
        if self.has_no_way_on(Some(Topic::Room(room)), frame.len()).is_some() {
            return self.metrics.announcements_dropped.increment();
        }
        let delivery = Delivery { frame: Bytes::from(frame), received_us: 0 };
        self.fan_out_from_home(room, 0, &delivery, without);
    }

    /// One letter to each shard that has members. What is in no log has offset 0.
    pub(in crate::shard) fn fan_out_from_home(
        &mut self,
        room: TopicKey,
        offset: u64,
        delivery: &Delivery,
        without: Option<Address>,
    ) {
        let newest = self.homes.rooms.get(room).map_or(0, |room| room.log.position().offset);
        let (logged, offset) = if offset == 0 { (false, newest) } else { (true, offset) };
        let mut index = 0;
        while let Some(members) = self.homes.rooms.get_mut(room).and_then(|room| room.shard_mut(index)) {
            index += 1;
            let work = Work::of(members.count, delivery.frame.len());
            members.owed += work.deliveries;
            let (local, to, delivery, home) = (members.local, members.shard, delivery.clone(), self.id);
            self.ways.owe(to, work);
            self.post(to, Letter::Fanout { local, offset, delivery, without, home, room, logged, work });
        }
    }

    /// A shard has worked off broadcasts of rooms whose home is here.
    pub(in crate::shard) fn on_credit(&mut self, from: ShardId, credit: &Credit) {
        self.ways.settle(from, credit.work);
        for (room, deliveries) in &credit.rooms {
            // The last member there may have left, and others come: what those owe is less than what was given back then.
            if let Some(members) = self.homes.rooms.get_mut(*room).and_then(|room| room.members_on_mut(from)) {
                members.owed = members.owed.saturating_sub(*deliveries);
            }
        }
    }

    pub(in crate::shard) fn on_presence_at_home(&mut self, name: Arc<str>, from: Address, request: u32, limit: u32) {
        let room = self.homes.find_room(&name).and_then(|key| self.homes.rooms.get(key));
        let result = PresenceResult {
            to: from.connection,
            request,
            count: room.map_or(0, Room::count),
            members: room.map_or_else(Vec::new, |room| room.names(limit as usize)),
            room: name,
        };
        self.post(from.shard, Letter::PresenceResult(Box::new(result)));
    }

    pub(in crate::shard) fn on_history_at_home(&mut self, history: History, now: Now) {
        let History { topic, from, request, since, before, limit } = history;
        let found = self.homes.find(&topic);
        if let Some(found) = found {
            self.homes.trim(found, &self.settings, &self.metrics, now);
        }
        let (position, log) = match found {
            Some(Topic::Inbox(key)) => self.homes.inboxes.get(key).map(|inbox| (inbox.position(), inbox.log())),
            Some(Topic::Room(key)) => self.homes.rooms.get(key).map(|room| (room.log.position(), Some(&room.log))),
            None => self.homes.head_of_topic(&topic).map(|head| (head.position, None)),
        }
        .map_or((None, None), |(position, log)| (Some(position), log));
        let reaches = |since: Position| log.map_or(Some(since) == position, |log| log.reaches(since));
        let is_of_epoch = |before: Position| position.is_some_and(|position| position.epoch == before.epoch);
        let limit = limit as usize;
        let mut result = HistoryResult {
            to: from.connection,
            request,
            position: position.unwrap_or_default(),
            frames: Vec::new(),
            more: false,
            recovered: since.is_none_or(reaches) && before.is_none_or(is_of_epoch),
            topic: topic.clone(),
        };
        match (log, since) {
            (None, _) => {}
            // Nothing to go on from: the position alone was asked for.
            _ if limit == 0 => {}
            (Some(_), None) if !result.recovered => {}
            (Some(log), None) => {
                let before = before.map_or(u64::MAX, |before| before.offset);
                (result.frames, result.more) = log.newest(before, limit, HISTORY_BYTES_MAX, now.mono_ms());
            }
            (Some(log), Some(since)) => {
                let start = if log.reaches(since) { since.offset } else { log.lost() };
                let gap = log.after(start, limit, HISTORY_BYTES_MAX, None, now.mono_ms());
                result.frames = gap.frames.into_iter().map(|(_, frame)| frame).collect();
                result.more = gap.more;
            }
        }
        self.post(from.shard, Letter::HistoryResult(Box::new(result)));
    }
}
