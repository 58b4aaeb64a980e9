//! A room at its home: which shards have members, who they are if anyone may ask, and the log.
//!
//! Invariant: `members` (when kept) has as many entries as the shards' counts add up to.

use std::sync::Arc;

use super::heads::Head;
use super::log::Log;
use super::size::{TABLE_ENTRY_BYTES, name_bytes};
use crate::id::{Address, Position, ShardId, TopicKey};

/// The members of a room on one shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardMembers {
    /// The shard.
    pub shard: ShardId,
    /// The room's entry on that shard, as it last gave it.
    pub local: TopicKey,
    /// Sessions.
    pub count: u32,
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
    /// Kept only where the namespace has presence or announces joins.
    members: hashbrown::HashMap<Address, (Arc<str>, Arc<str>), crate::keyed::Keyed>,
    keeps_names: bool,
}

/// What a slot of the table of rooms takes: the room and its generation.
const SLOT_BYTES: usize = size_of::<Room>() + 8;

impl Room {
    /// A new room.
    pub fn new(name: Arc<str>, namespace: usize, epoch: u64, keeps_names: bool, seed: u64) -> Self {
        Room {
            name,
            namespace,
            log: Log::new(epoch),
            published: false,
            shards: Vec::new(),
            members: hashbrown::HashMap::with_hasher(crate::keyed::keyed(seed)),
            keeps_names,
        }
    }

    /// Shards that have members.
    pub fn shards(&self) -> &[ShardMembers] {
        &self.shards
    }

    /// Sessions in the room.
    pub fn count(&self) -> u32 {
        self.shards.iter().map(|shard| shard.count).sum()
    }

    /// Adds a session. `local` is the room's entry on its shard.
    pub fn join(&mut self, member: MemberName, local: TopicKey) {
        let shard = member.address.shard;
        match self.shards.iter_mut().find(|known| known.shard == shard) {
            Some(known) => {
                known.count += 1;
                known.local = local;
            }
            None => self.shards.push(ShardMembers { shard, local, count: 1 }),
        }
        if self.keeps_names {
            self.members.insert(member.address, (member.user, member.device));
        }
    }

    /// Removes a session; the caller sends this once for each accepted join.
    pub fn leave(&mut self, address: Address) -> Option<MemberName> {
        if let Some(index) = self.shards.iter().position(|known| known.shard == address.shard) {
            let known = &mut self.shards[index];
            known.count -= 1;
            if known.count == 0 {
                self.shards.swap_remove(index);
            }
        }
        let (user, device) = self.members.remove(&address)?;
        Some(MemberName { address, user, device })
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
        if self.keeps_names {
            assert_eq!(self.members.len(), self.count() as usize, "names of {}", self.name);
        }
    }
}
