//! Members of rooms, as an engine that several nodes share is told of them: Presence is answered by the engine, for a room has members
//! on other nodes, too.
//!
//! What has changed in a room is told ten times a second, and before a Presence of this node is asked for. When news may have
//! been lost, all members of the room here are told anew.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::id::Address;
use crate::keyed::{Keyed, keyed};
use crate::shard::letter::PresenceResult;
use crate::shard::{Effect, EngineUnavailable, MemberChange, Present, ReadId, Shard, ToEdge};

/// See the module.
#[derive(Debug)]
pub(in crate::shard) struct Told {
    /// What the engine has not been told yet, by room.
    changed: HashMap<Arc<str>, Changes, Keyed>,
    /// Presences that the engine is asked for.
    asked: HashMap<ReadId, Question, Keyed>,
    next: ReadId,
}

#[derive(Debug, Default)]
struct Changes {
    of: Vec<MemberChange>,
    /// All members are to be told.
    anew: bool,
}

#[derive(Debug)]
struct Question {
    room: Arc<str>,
    from: Address,
    request: u32,
}

/// Changes of one room with which all members are told instead.
const CHANGES_MAX: usize = 64 * 1024;

impl Told {
    pub(super) fn new(seed: u64) -> Self {
        Told { changed: HashMap::with_hasher(keyed(seed)), asked: HashMap::with_hasher(keyed(seed)), next: 1 }
    }

    /// Presences that are not answered yet.
    pub(in crate::shard) fn len(&self) -> usize {
        self.asked.len()
    }

    fn ask(&mut self, question: Question) -> ReadId {
        let number = self.next;
        self.next += 1;
        self.asked.insert(number, question);
        number
    }
}

impl Shard {
    /// A session has joined a room, or left it; `change` is none where Presence does not name the room's members.
    pub(super) fn tell_member(&mut self, room: &Arc<str>, change: Option<MemberChange>) {
        let changes = self.homes.told.changed.entry(room.clone()).or_default();
        changes.anew |= changes.of.len() >= CHANGES_MAX;
        changes.of.extend(change.filter(|_| !changes.anew));
    }

    /// All members of a room here are to be told anew, also that there are none.
    pub(super) fn tell_members_anew(&mut self, room: &Arc<str>) {
        self.homes.told.changed.entry(room.clone()).or_default().anew = true;
    }

    /// Tells what has changed in all rooms.
    pub(super) fn tell_members(&mut self) {
        for room in self.homes.told.changed.keys().cloned().collect::<Vec<_>>() {
            self.tell_members_of(&room);
        }
    }

    /// Tells what has changed in a room, which may not be in memory any more.
    pub(super) fn tell_members_of(&mut self, name: &Arc<str>) {
        let Some(Changes { of: changes, anew }) = self.homes.told.changed.remove(name) else { return };
        let room = self.homes.rooms.find(name).and_then(|key| self.homes.rooms.get(key));
        let count = room.map_or(0, |room| room.count());
        let changes = match (anew, room) {
            (false, _) => changes,
            (true, room) => room.map_or_else(Vec::new, |room| {
                let joined =
                    |(address, name): (Address, _)| MemberChange { session: address.to_u64(), member: Some(name) };
                room.sessions().map(joined).collect()
            }),
        };
        self.effects.push_back(Effect::Members { topic: name.clone(), count, changes, anew });
    }

    /// Has the engine say who is in a room, on all nodes.
    pub(super) fn ask_for_presence(&mut self, room: Arc<str>, from: Address, request: u32, limit: u32) {
        self.tell_members_of(&room);
        let read = self.homes.told.ask(Question { room: room.clone(), from, request });
        self.effects.push_back(Effect::Presence { read, topic: room, limit });
    }

    /// The engine has said who is in a room, or could not.
    pub(in crate::shard) fn on_present(&mut self, read: ReadId, result: Result<Box<Present>, EngineUnavailable>) {
        let Some(Question { room, from, request }) = self.homes.told.asked.remove(&read) else { return };
        let to = from.connection;
        let answer = match result {
            Ok(present) => {
                let Present { count, members } = *present;
                ToEdge::PresenceResult(Box::new(PresenceResult { to, request, room, count, members }))
            }
            Err(EngineUnavailable) => ToEdge::LookupFailed { to, request },
        };
        self.post_to_edge(from.shard, answer);
    }
}
