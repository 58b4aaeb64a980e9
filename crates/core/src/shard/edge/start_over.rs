//! Members of rooms who have missed messages that nobody can bring them any more, or whose room has begun a new epoch: they are
//! told to come back, and then what they have missed is said to be lost. A few in each turn.

use std::collections::VecDeque;

use crate::close::CloseReason;
use crate::id::{ConnectionKey, LocalRoomKey, Now};
use crate::shard::Shard;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::shard) struct StartOver {
    /// As the rooms were when it was decided: a member who has left since is passed over.
    members: VecDeque<(ConnectionKey, LocalRoomKey)>,
}

/// Members told in one turn.
const TOLD_PER_TURN: usize = 256;

impl StartOver {
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl Shard {
    /// All members of a room here have to come back.
    pub(super) fn on_start_over(&mut self, local: LocalRoomKey) {
        let Some(room) = self.rooms.rooms.get_mut(local) else { return };
        for member in room.members.iter_mut().filter(|member| !member.starts_over) {
            let Some(key) = member.connection else { continue };
            // Messages that come before its turn would move its position over what it has missed.
            if !member.lagging
                && let Some(session) = self.connections.get_mut(key).and_then(|connection| connection.session.as_mut())
            {
                session.lagging += 1;
            }
            (member.lagging, member.catching, member.starts_over) = (true, true, true);
            self.start_over.members.push_back((key, local));
        }
    }

    /// Tells a few of them. True when there are more.
    pub(in crate::shard) fn start_some_over(&mut self, now: Now) -> bool {
        for _ in 0..TOLD_PER_TURN {
            let Some((key, room)) = self.start_over.members.pop_front() else { break };
            let is_member = |shard: &mut Self| shard.session_mut(key).is_some_and(|s| s.rooms.find(room).is_some());
            if is_member(self) {
                self.close(key, CloseReason::InsufficientState, "", now);
            }
        }
        !self.start_over.is_empty()
    }
}
