//! A room at its home: which shards have members, the members' names where Presence may be asked, and the log.
//!
//! A device that has several sessions in a room is there once: it comes with the first and leaves with the last.
//! Invariant: `members` (when kept) has as many entries as the shards' counts add up to.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::heads::Head;
use super::log::Log;
use super::publishers::Publishers;
use super::size::{TABLE_ENTRY_BYTES, name_bytes};
use super::stored::{LoadedTopic, TopicState};
use crate::id::{Address, LocalRoomKey, Now, Position, ShardId};
use crate::keyed::Keyed;
use crate::limits::Engine;
use crate::named::Name;

/// The members of a room on one shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardMembers {
    /// The shard.
    pub shard: ShardId,
    /// The room's entry on that shard, as it last gave it.
    pub local: LocalRoomKey,
    /// Sessions.
    pub count: u32,
    /// Deliveries of broadcasts that were posted there and not given back as credit yet.
    pub owed: u64,
}

/// A member that Presence may name.
#[derive(Clone, Debug)]
pub struct MemberName {
    /// Its session.
    pub address: Address,
    /// User id.
    pub user: Arc<str>,
    /// Device.
    pub device: Arc<str>,
}

/// What a room's home keeps of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// How many there are on each shard.
    Counts,
    /// Their names, too, for Presence.
    Names,
    /// And for each device in how many sessions it is here, to announce those that come and go.
    Devices,
}

/// See the module.
#[derive(Debug)]
pub struct Room {
    /// Full name, with the namespace.
    pub name: Arc<str>,
    /// Index into the settings' namespaces.
    pub namespace: usize,
    /// Messages kept.
    pub log: Log,
    /// A message that is in no log was published in this epoch, in a namespace that keeps none.
    pub published: bool,
    shards: Vec<ShardMembers>,
    members: HashMap<Address, (Arc<str>, Arc<str>), Keyed>,
    keeps: Keeps,
    /// Sessions of each device; a device is announced once however many it has.
    devices: Option<Box<Devices>>,
}

#[derive(Debug)]
struct Devices {
    here: HashMap<(Arc<str>, Arc<str>), Presence, Keyed>,
    /// Devices that were taken over, in that order.
    expected: VecDeque<(Arc<str>, Arc<str>)>,
}

/// A device in a room with join and leave events.
#[derive(Clone, Copy, Debug, Default)]
struct Presence {
    sessions: u32,
    /// Its last session here was taken over: the newer one is expected to join until then, in monotonic ms.
    expected_until_ms: u64,
}

/// How long a device that was taken over is waited for before the room is told that it has left.
const TAKEOVER_GRACE_MS: u64 = 10_000;

/// What a slot of the table of rooms takes: the room and its generation.
const SLOT_BYTES: usize = size_of::<Room>() + 8;

impl Name for Room {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Room {
    /// A new room.
    pub fn new(name: Arc<str>, namespace: usize, epoch: u64, keeps: Keeps, hash: &Keyed) -> Self {
        Room {
            name,
            namespace,
            log: Log::new(epoch),
            published: false,
            shards: Vec::new(),
            members: HashMap::with_hasher(hash.clone()),
            keeps,
            devices: (keeps == Keeps::Devices)
                .then(|| Box::new(Devices { here: HashMap::with_hasher(hash.clone()), expected: VecDeque::new() })),
        }
    }

    /// Shards that have members.
    pub fn shards(&self) -> &[ShardMembers] {
        &self.shards
    }

    /// The members of one of [`Self::shards`].
    pub fn shard_mut(&mut self, index: usize) -> Option<&mut ShardMembers> {
        self.shards.get_mut(index)
    }

    /// The members on a shard.
    pub fn members_on_mut(&mut self, shard: ShardId) -> Option<&mut ShardMembers> {
        self.shards.iter_mut().find(|members| members.shard == shard)
    }

    /// Sessions in the room.
    pub fn count(&self) -> u32 {
        self.shards.iter().map(|shard| shard.count).sum()
    }

    /// Adds a session. `local` is the room's entry on its shard. True when the device was not here before.
    pub fn join(&mut self, member: MemberName, local: LocalRoomKey) -> bool {
        let shard = member.address.shard;
        match self.shards.iter_mut().find(|known| known.shard == shard) {
            Some(known) => {
                known.count += 1;
                known.local = local;
            }
            None => self.shards.push(ShardMembers { shard, local, count: 1, owed: 0 }),
        }
        let MemberName { address, user, device } = member;
        if self.keeps == Keeps::Counts {
            return false;
        }
        let name = (user, device);
        let comes = self.devices.as_mut().is_some_and(|devices| {
            let presence = devices.here.entry(name.clone()).or_default();
            presence.sessions += 1;
            presence.sessions == 1 && core::mem::take(&mut presence.expected_until_ms) == 0
        });
        self.members.insert(address, name);
        comes
    }

    /// Removes a session; the caller sends this once for each accepted join. Returns the member if its device has left by
    /// that: not while another session of it is here, nor while one that took it over is expected.
    pub fn leave(&mut self, address: Address, taken_over: bool, now_ms: u64) -> Option<MemberName> {
        if let Some(index) = self.shards.iter().position(|known| known.shard == address.shard)
            && let Some(known) = self.shards.get_mut(index)
        {
            known.count -= 1;
            if known.count == 0 {
                self.shards.swap_remove(index);
            }
        }
        let name = self.members.remove(&address)?;
        let devices = self.devices.as_mut()?;
        let presence = devices.here.get_mut(&name)?;
        presence.sessions = presence.sessions.saturating_sub(1);
        if presence.sessions > 0 {
            return None;
        }
        if taken_over {
            presence.expected_until_ms = now_ms + TAKEOVER_GRACE_MS;
            devices.expected.push_back(name);
            return None;
        }
        devices.here.remove(&name);
        let (user, device) = name;
        Some(MemberName { address, user, device })
    }

    /// Whether a device that was taken over may still be expected.
    pub fn expects(&self) -> bool {
        self.devices.as_ref().is_some_and(|devices| !devices.expected.is_empty())
    }

    /// User and device of one that was taken over and whose newer session has not joined in time.
    pub fn not_come_back(&mut self, now_ms: u64) -> Option<(Arc<str>, Arc<str>)> {
        let Devices { here, expected } = self.devices.as_deref_mut()?;
        while let Some(name) = expected.front() {
            let presence = here.get(name).copied().unwrap_or_default();
            let waits = presence.sessions == 0 && presence.expected_until_ms > 0;
            if waits && presence.expected_until_ms > now_ms {
                return None;
            }
            let name = expected.pop_front()?;
            if waits {
                here.remove(&name);
                return Some(name);
            }
        }
        None
    }

    /// Sessions of members that Presence names, with user and device.
    pub fn sessions(&self) -> impl Iterator<Item = (Address, (Arc<str>, Arc<str>))> {
        self.members.iter().map(|(address, name)| (*address, name.clone()))
    }

    /// Whether Presence names the members.
    pub fn names_members(&self) -> bool {
        self.keeps != Keeps::Counts
    }

    /// User and device of up to `limit` members.
    pub fn names(&self, limit: usize) -> Vec<(Arc<str>, Arc<str>)> {
        self.members.values().take(limit).cloned().collect()
    }

    /// Goes on from where the room stood when it fell quiet.
    pub fn resume(&mut self, head: Head) {
        self.log = Log::resumed(head.position);
        self.published = head.missed;
    }

    /// Goes on from where an engine has the room.
    pub fn load(&mut self, loaded: &LoadedTopic, engine: Engine, now: Now) {
        self.log = Log::loaded(loaded.extent(now), engine == Engine::Shared);
    }

    /// The engine has begun a new epoch.
    pub fn begin_epoch(&mut self, loaded: &LoadedTopic, engine: Engine, publishers: &mut Publishers, now: Now) {
        self.log.discard(publishers);
        self.load(loaded, engine, now);
    }

    /// What an engine is to keep of the room beside its messages.
    pub fn state(&self) -> TopicState {
        TopicState { floor: self.log.floor(), lost: self.log.lost(), ..TopicState::default() }
    }

    /// What is to be kept of the room when it is quiet.
    pub fn head(&self) -> Head {
        Head { position: self.log.position(), missed: self.published }
    }

    /// Whether everything that was published after this position can be brought, or nothing was.
    pub fn recovers(&self, since: Position) -> bool {
        self.log.reaches(since) && !self.published
    }

    /// Bytes of the heap that messages take here. A room that keeps some counts whole, for it may have no member.
    pub fn heap_bytes(&self) -> usize {
        let room = if self.log.is_empty() { 0 } else { SLOT_BYTES + name_bytes(self.name.len()) + TABLE_ENTRY_BYTES };
        room + self.log.heap_bytes()
    }

    /// Panics when the structure is broken; for tests.
    pub fn invariants(&self) {
        if self.keeps != Keeps::Counts {
            assert_eq!(self.members.len(), self.count() as usize, "names of {}", self.name);
        }
        if let Some(devices) = &self.devices {
            let sessions: u32 = devices.here.values().map(|presence| presence.sessions).sum();
            assert_eq!(sessions, self.count(), "devices of {}", self.name);
        }
    }
}
