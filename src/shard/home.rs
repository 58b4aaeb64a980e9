//! Topics whose home is this shard: where messages get their order, and the only place that changes a log.

use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashSet, HashTable};

use super::inbox::{CATCH_UP_BYTES, CATCH_UP_MESSAGES};
use super::letter::{Attach, History, HistoryResult, PresenceResult, Subscribe, Subscribed};
use super::ways::Work;
use super::{Letter, Shard, Source};
use crate::close::CloseReason;
use crate::id::{Address, Durability, Now, Position, ShardId, TopicKey};
use crate::keyed::{Keyed, keyed};
use crate::limits::{HISTORY_BYTES_MAX, Settings};
use crate::metrics::{ExpireReason, ShardMetrics};
use crate::outbox::Delivery;
use crate::slots::Slots;
use crate::topics::{Dedup, Inbox, Keeps, Log, LogLimits, MemberName, Room, ShardMembers};

/// A topic at home.
#[derive(Clone, Copy, Debug)]
pub(super) enum Topic {
    Inbox(TopicKey),
    Room(TopicKey),
}

/// All topics whose home is this shard.
#[derive(Debug)]
pub(super) struct Homes {
    inboxes: Slots<Inbox>,
    /// Slots of `inboxes` by user id.
    users: HashTable<u32>,
    rooms: Slots<Room>,
    room_names: HashTable<TopicKey>,
    pub(super) dedup: Dedup,
    hash: Keyed,
    seed: u64,
    shard: ShardId,
    shards: u64,
    epochs: u64,
    last_message_id: u64,
    sweep_inbox: u32,
    sweep_room: u32,
}

/// Topics looked at by one sweep.
const SWEPT: u32 = 64;

impl Homes {
    pub(super) fn new(shard: ShardId, shards: u16, settings: &Settings, seed: u64) -> Self {
        Homes {
            inboxes: Slots::default(),
            users: HashTable::new(),
            rooms: Slots::default(),
            room_names: HashTable::new(),
            dedup: Dedup::new(settings.dedup_window_ms, settings.dedup_entries_max, seed),
            hash: keyed(seed),
            seed,
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

    fn find_user(&self, user: &str) -> Option<TopicKey> {
        let is_it = |slot: &u32| self.inboxes.in_slot(*slot).is_some_and(|inbox| *inbox.user == *user);
        self.users.find(self.hash.hash_one(user), is_it).and_then(|slot| self.inboxes.key_of(*slot))
    }

    fn make_user(&mut self, user: Arc<str>, metrics: &ShardMetrics, now: Now) -> TopicKey {
        let (epoch, user_hash) = (self.new_epoch(now), self.hash.hash_one(&*user));
        let key = self.inboxes.insert(Inbox::new(user, epoch, now.unix_ms));
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
        let key = self.rooms.insert(Room::new(name, namespace, epoch, keeps, self.seed));
        let Homes { rooms, room_names, hash, .. } = self;
        room_names.insert_unique(name_hash, key, |key| hash.hash_one(rooms.get(*key).map_or("", |room| &room.name)));
        metrics.rooms.add(1);
        key
    }

    /// A topic that [`Self::find`] did not find.
    pub(super) fn make(
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
    pub(super) fn find(&self, topic: &str) -> Option<Topic> {
        match topic.strip_prefix('@') {
            Some(user) => self.find_user(user).map(Topic::Inbox),
            None => self.find_room(topic).map(Topic::Room),
        }
    }

    /// The position that the next message gets; offset 0 when it is in no log.
    pub(super) fn next_position(&self, topic: Option<Topic>, durability: Durability) -> Position {
        let position = match topic {
            Some(Topic::Inbox(key)) => self.inboxes.get(key).map(|inbox| inbox.position()),
            Some(Topic::Room(key)) => self.rooms.get(key).map(|room| room.log.position()),
            None => None,
        }
        .unwrap_or_default();
        let offset = if durability == Durability::Ephemeral { 0 } else { position.offset + 1 };
        Position { offset, ..position }
    }

    /// Appends to a topic's log and trims it.
    #[expect(clippy::too_many_arguments, reason = "one message and the shard's two shared structures")]
    pub(super) fn commit(
        &mut self,
        topic: Topic,
        frame: Bytes,
        ttl_ms: u64,
        from: Address,
        settings: &Settings,
        metrics: &ShardMetrics,
        now: Now,
    ) {
        let expires = |age_ms_max: u64| {
            let age_ms = if ttl_ms == 0 { age_ms_max } else { ttl_ms.min(age_ms_max) };
            now.unix_ms.saturating_add(age_ms)
        };
        match topic {
            Topic::Inbox(key) => {
                let Some(inbox) = self.inboxes.get_mut(key) else { return };
                inbox.touched_ms = now.unix_ms;
                metrics.inbox_stored.increment();
                if inbox.connected() == 0 {
                    metrics.inbox_stored_offline.increment();
                }
                let limits = inbox_limits(settings);
                let log = inbox.log_mut();
                let before = log.bytes();
                log.commit(frame, expires(limits.age_ms_max), Some(from));
                metrics.inbox_pending.add(1);
                trim_inbox(log, before, limits, metrics, now);
            }
            Topic::Room(key) => {
                let Some(room) = self.rooms.get_mut(key) else { return };
                let Some(limits) = room_limits(room, settings) else { return };
                let before = room.log.bytes();
                room.log.commit(frame, expires(limits.age_ms_max), Some(from));
                room.log.trim(limits, now.unix_ms);
                book_bytes(metrics, before, room.log.bytes());
            }
        }
    }

    /// The connected address of the inbox's device number `index`; none past the last device.
    pub(super) fn device(&self, inbox: TopicKey, index: usize) -> Option<Option<Address>> {
        self.inboxes.get(inbox)?.devices().get(index).map(|device| device.connected.map(Address::from))
    }

    /// Where the inbox's devices are connected.
    pub(super) fn addresses(&self, inbox: TopicKey) -> impl Iterator<Item = Address> {
        let devices = self.inboxes.get(inbox).map_or(&[][..], Inbox::devices);
        devices.iter().filter_map(|device| device.connected.map(Address::from))
    }

    /// The room's members, by shard.
    pub(super) fn members(&self, room: TopicKey) -> &[ShardMembers] {
        self.rooms.get(room).map_or(&[], Room::shards)
    }

    /// Whether publishers of this room hear themselves.
    pub(super) fn echo(&self, room: TopicKey, settings: &Settings) -> bool {
        self.rooms.get(room).and_then(|room| settings.namespaces.get(room.namespace)).is_none_or(|n| n.echo)
    }

    pub(super) fn detach(&mut self, home: TopicKey, from: Address, now: Now) {
        if let Some(inbox) = self.inboxes.get_mut(home) {
            inbox.detach(from, now.unix_ms);
        }
    }

    pub(super) fn acknowledge(&mut self, home: TopicKey, from: Address, offset: u64, metrics: &ShardMetrics) {
        let Some(inbox) = self.inboxes.get_mut(home) else { return };
        let before = inbox.log().map_or(0, Log::bytes);
        let acked = inbox.acknowledge(from, offset);
        book_bytes(metrics, before, inbox.log().map_or(0, Log::bytes));
        metrics.inbox_acked.add(acked);
        metrics.inbox_pending.subtract(acked);
    }

    /// Lets age work on a few topics, and forgets those of which nothing would be missed.
    pub(super) fn sweep(&mut self, settings: &Settings, metrics: &ShardMetrics, now: Now) {
        self.dedup.forget_old(now);
        for _ in 0..SWEPT.min(self.inboxes.slots()) {
            self.sweep_inbox = (self.sweep_inbox + 1) % self.inboxes.slots();
            let Some(key) = self.inboxes.key_of(self.sweep_inbox) else { continue };
            let Some(inbox) = self.inboxes.get_mut(key) else { continue };
            if inbox.log().is_some() {
                let log = inbox.log_mut();
                let before = log.bytes();
                trim_inbox(log, before, inbox_limits(settings), metrics, now);
            }
            if inbox.is_forgettable(now.unix_ms, settings.inbox.age_ms_max) {
                let hash = self.hash.hash_one(&*inbox.user);
                if let Ok(entry) = self.users.find_entry(hash, |known| *known == key.slot) {
                    entry.remove();
                }
                self.inboxes.remove(key);
                metrics.users.subtract(1);
            }
        }
        for _ in 0..SWEPT.min(self.rooms.slots()) {
            self.sweep_room = (self.sweep_room + 1) % self.rooms.slots();
            let Some(key) = self.rooms.key_of(self.sweep_room) else { continue };
            let Some(room) = self.rooms.get_mut(key) else { continue };
            if let Some(limits) = room_limits(room, settings) {
                let before = room.log.bytes();
                room.log.trim(limits, now.unix_ms);
                book_bytes(metrics, before, room.log.bytes());
            }
            if room.count() == 0 && room.log.is_empty() {
                self.forget_room(key, metrics);
            }
        }
    }

    fn forget_room(&mut self, key: TopicKey, metrics: &ShardMetrics) {
        let Some(room) = self.rooms.remove(key) else { return };
        let hash = self.hash.hash_one(&*room.name);
        if let Ok(entry) = self.room_names.find_entry(hash, |known| *known == key) {
            entry.remove();
        }
        book_bytes(metrics, room.log.bytes(), 0);
        metrics.rooms.subtract(1);
    }

    pub(super) fn invariants(&self, metrics: &ShardMetrics) {
        self.dedup.invariants();
        let mut bytes = 0;
        let mut pending = 0;
        for (key, inbox) in self.inboxes.iter() {
            assert_eq!(self.find_user(&inbox.user), Some(key));
            if let Some(log) = inbox.log() {
                log.invariants();
                bytes += log.bytes();
                pending += log.len() as u64;
            }
        }
        for (key, room) in self.rooms.iter() {
            assert_eq!(self.find_room(&room.name), Some(key));
            room.invariants();
            bytes += room.log.bytes();
        }
        assert_eq!(bytes as u64, metrics.log_bytes.read(), "log bytes");
        assert_eq!(pending, metrics.inbox_pending.read(), "pending inbox messages");
        assert_eq!(self.inboxes.len() as u64, metrics.users.read());
        assert_eq!(self.rooms.len() as u64, metrics.rooms.read());
    }
}

fn inbox_limits(settings: &Settings) -> LogLimits {
    LogLimits { messages_max: settings.inbox.messages_max, age_ms_max: settings.inbox.age_ms_max }
}

fn room_limits(room: &Room, settings: &Settings) -> Option<LogLimits> {
    let namespace = settings.namespaces.get(room.namespace)?;
    Some(LogLimits { messages_max: namespace.history_size, age_ms_max: namespace.history_ttl_ms })
}

fn trim_inbox(log: &mut Log, bytes_before: usize, limits: LogLimits, metrics: &ShardMetrics, now: Now) {
    let (over, old) = log.trim(limits, now.unix_ms);
    book_bytes(metrics, bytes_before, log.bytes());
    metrics.inbox_expired[ExpireReason::Count as usize].add(over);
    metrics.inbox_expired[ExpireReason::Age as usize].add(old);
    metrics.inbox_pending.subtract(over + old);
}

fn book_bytes(metrics: &ShardMetrics, before: usize, after: usize) {
    metrics.log_bytes.add(after as u64);
    metrics.log_bytes.subtract(before as u64);
}

impl Shard {
    /// A device connects.
    pub(super) fn on_attach(&mut self, attach: Attach, now: Now) {
        let Attach { user, device, from, resume } = attach;
        let known = self.homes.find_user(&user);
        let home = known.unwrap_or_else(|| self.homes.make_user(user, &self.metrics, now));
        let sessions_max = self.settings.client.sessions_per_user_max;
        let Some(inbox) = self.homes.inboxes.get_mut(home) else { return };
        match inbox.attach(&device, from, resume, sessions_max, now.unix_ms) {
            None => {
                let reason = CloseReason::ConnectionLimit;
                self.post(from.shard, Letter::Refused { to: from.connection, reason });
            }
            Some(attachment) => {
                // A client that resumes behind its stored cursor has kept what lies between.
                self.homes.acknowledge(home, from, attachment.start, &self.metrics);
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
    pub(super) fn on_catch_up(&mut self, topic: Source, from: Address, since: u64, now: Now) {
        let gap = match topic {
            Source::Inbox(key) => self.homes.inboxes.get(key).and_then(Inbox::log).map(|log| (log, None)),
            Source::Room { home, .. } => self.homes.rooms.get(home).map(|room| {
                let echo = self.homes.echo(home, &self.settings);
                (&room.log, (!echo).then_some(from))
            }),
        }
        .map(|(log, without)| log.after(since, CATCH_UP_MESSAGES, CATCH_UP_BYTES, without, now.unix_ms))
        .unwrap_or_default();
        self.post(from.shard, Letter::CaughtUp { to: from.connection, topic, gap: Box::new(gap) });
    }

    /// A session joins a room.
    pub(super) fn on_subscribe_at_home(&mut self, subscribe: Subscribe, now: Now) {
        let Subscribe { room: name, namespace, from, user, device, request, since, local, counted } = subscribe;
        let known = self.homes.find_room(&name);
        let key = known.unwrap_or_else(|| self.homes.make_room(name, namespace, &self.settings, &self.metrics, now));
        let Some(room) = self.homes.rooms.get_mut(key) else { return };
        let comes = room.join(MemberName { address: from, user: user.clone(), device: device.clone() }, local);
        let position = room.log.position();
        let reached = since.filter(|since| room.log.reaches(*since));
        if since.is_some() {
            self.metrics.recoveries[usize::from(reached.is_none())].increment();
        }
        let subscribed = Subscribed {
            to: from.connection,
            request,
            local,
            home: key,
            recovered: reached.is_some(),
            position,
            start: reached.map_or(position.offset, |since| since.offset),
            counted,
        };
        self.post(from.shard, Letter::Subscribed(Box::new(subscribed)));
        if comes {
            self.announce(key, true, Some(from), &user, &device);
        }
    }

    /// A session has left a room.
    pub(super) fn on_unsubscribe_at_home(&mut self, home: TopicKey, from: Address, taken_over: bool, now: Now) {
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
            self.homes.forget_room(home, &self.metrics);
        }
    }

    /// Announces that devices have left which were taken over and did not join again in time.
    pub(super) fn announce_not_come_back(&mut self, now: Now) {
        let mut expecting = core::mem::replace(&mut self.expecting, HashSet::with_hasher(keyed(self.homes.seed)));
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

    /// One letter to each shard that has members.
    pub(super) fn fan_out_from_home(
        &mut self,
        room: TopicKey,
        offset: u64,
        delivery: &Delivery,
        without: Option<Address>,
    ) {
        let mut index = 0;
        while let Some(members) = self.homes.rooms.get(room).and_then(|room| room.shards().get(index)).copied() {
            index += 1;
            let work = Work::of(members.count, delivery.frame.len());
            self.ways.owe(members.shard, work);
            let (local, delivery, home) = (members.local, delivery.clone(), self.id);
            self.post(members.shard, Letter::Fanout { local, offset, delivery, without, home, work });
        }
    }

    pub(super) fn on_presence_at_home(&mut self, name: Arc<str>, from: Address, request: u32, limit: u32) {
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

    pub(super) fn on_history_at_home(&mut self, history: History, now: Now) {
        let History { topic, from, request, since, limit } = history;
        let log = match topic.strip_prefix('@') {
            Some(user) => self.homes.find_user(user).and_then(|key| self.homes.inboxes.get(key)).and_then(Inbox::log),
            None => self.homes.find_room(&topic).and_then(|key| self.homes.rooms.get(key)).map(|room| &room.log),
        };
        let limit = limit as usize;
        let mut result = HistoryResult {
            to: from.connection,
            request,
            position: log.map(Log::position).unwrap_or_default(),
            frames: Vec::new(),
            more: false,
            recovered: since.is_none_or(|since| log.is_some_and(|log| log.reaches(since))),
            topic: topic.clone(),
        };
        if let Some(log) = log {
            let start = match since {
                Some(since) if log.reaches(since) => since.offset,
                Some(_) => log.floor(),
                None => log.newest(limit),
            };
            let gap = log.after(start, limit, HISTORY_BYTES_MAX, None, now.unix_ms);
            result.frames = gap.frames.into_iter().map(|(_, frame)| frame).collect();
            result.more = gap.more;
        }
        self.post(from.shard, Letter::HistoryResult(Box::new(result)));
    }
}
