//! The rooms that have members on this shard, and these members.
//!
//! While a room has jobs its list of members keeps its order: a member that leaves leaves a hole. Each member knows the
//! offset it has been brought to, which makes repetitions and holes visible.

use std::sync::Arc;

use super::jobs::{Jobs, RoomJobs};
use crate::id::{ConnectionKey, LocalRoomKey, RoomKey};
use crate::keyed::keyed;
use crate::named::{Name, Named};
use crate::session::{Connection, Session};
use crate::slots::Slots;

/// Rooms that have members, or are about to have some, on this shard.
#[derive(Debug)]
pub(in crate::shard) struct LocalRooms {
    pub(super) rooms: Named<LocalRoom, LocalRoomKey>,
    pub(super) jobs: Jobs,
}

#[derive(Debug)]
pub(super) struct LocalRoom {
    pub(super) name: Arc<str>,
    pub(super) namespace: usize,
    /// The room at its home, once the home has answered.
    pub(super) at_home: Option<RoomKey>,
    pub(super) members: Vec<Member>,
    /// Members that left while jobs were waiting.
    pub(super) holes: u32,
    /// Broadcasts that wait.
    pub(super) jobs: RoomJobs,
    /// Of the members that were brought the present messages: how many, and how many of them had much in their outboxes.
    pub(super) served: u32,
    pub(super) full: u32,
    /// How long it rested last; 0 while most members keep up.
    pub(super) rest_ms: u16,
    /// It rests until then, in monotonic ms; 0 if it does not.
    pub(super) rests_until_ms: u64,
    /// Subscribes that the home has not answered.
    pub(super) pending: u32,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) connection: Option<ConnectionKey>,
    /// Brought up to here.
    pub(super) seen: u64,
    /// It asked for what there still is: a first answer with a hole at its start will do.
    pub(super) best: bool,
    /// Live messages that were not queued because the member lags.
    pub(super) behind: u32,
    pub(super) lagging: bool,
    pub(super) catching: bool,
    /// It is about to be sent back: it lags until then, and is brought nothing.
    pub(super) starts_over: bool,
}

impl Name for LocalRoom {
    fn name(&self) -> &str {
        &self.name
    }
}

impl LocalRooms {
    pub(in crate::shard) fn new(seed: u64) -> Self {
        LocalRooms { rooms: Named::new(keyed(seed)), jobs: Jobs::default() }
    }

    pub(super) fn find(&self, name: &str) -> Option<LocalRoomKey> {
        self.rooms.find(name)
    }

    pub(super) fn find_or_make(&mut self, name: &str, namespace: usize) -> LocalRoomKey {
        if let Some(key) = self.find(name) {
            return key;
        }
        let room = LocalRoom {
            name: Arc::from(name),
            namespace,
            at_home: None,
            members: Vec::new(),
            holes: 0,
            jobs: RoomJobs::default(),
            served: 0,
            full: 0,
            rest_ms: 0,
            rests_until_ms: 0,
            pending: 0,
        };
        self.rooms.insert(room)
    }

    /// Forgets a room without members, expected members and jobs.
    pub(super) fn forget_if_unused(&mut self, key: LocalRoomKey) {
        let Some(room) = self.rooms.get(key) else { return };
        if !room.jobs.is_empty() || room.pending > 0 || room.members.len() > room.holes as usize {
            return;
        }
        self.rooms.remove(key);
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub(in crate::shard) fn release_spares(&mut self) {
        self.jobs.release_spares();
    }

    /// Whether the session has asked to be in this room, and its home has not answered yet.
    pub(super) fn is_joining(&self, session: &Session, name: &str) -> bool {
        let membership = self.find(name).and_then(|key| session.rooms.find(key));
        membership.is_some_and(|membership| membership.index.is_none())
    }

    /// Whether the session is in this room, or has asked to be.
    pub(super) fn is_member(&self, session: &Session, name: &str) -> bool {
        self.find(name).is_some_and(|key| session.rooms.find(key).is_some())
    }

    pub(in crate::shard) fn invariants(&self, connections: &Slots<Connection>) -> u64 {
        self.jobs.invariants();
        self.rooms.invariants();
        let mut deferred = 0;
        for (key, room) in self.rooms.iter() {
            assert_eq!(room.members.iter().filter(|m| m.connection.is_none()).count(), room.holes as usize);
            assert!(!room.jobs.is_empty() || room.holes == 0, "holes are closed when the last job ends");
            for (index, member) in room.members.iter().enumerate() {
                let Some(connection) = member.connection else { continue };
                let session = connections.get(connection).and_then(|c| c.session.as_ref());
                let membership = session.and_then(|s| s.rooms.find(key));
                assert_eq!(membership.and_then(|m| m.index), Some(index as u32), "member {index} of {}", room.name);
                assert!(member.lagging || member.behind == 0);
                deferred += u64::from(member.behind);
            }
        }
        deferred
    }
}

/// A member has another place in its room's list.
pub(super) fn renumber(
    connections: &mut Slots<Connection>,
    member: Option<ConnectionKey>,
    room: LocalRoomKey,
    index: u32,
) {
    let session = member.and_then(|key| connections.get_mut(key)).and_then(|c| c.session.as_mut());
    if let Some(membership) = session.and_then(|s| s.rooms.find_mut(room)) {
        membership.index = Some(index);
    }
}
