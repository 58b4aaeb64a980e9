//! What waits on the way to each shard: the bound on everything that one shard makes another one do.
//!
//! A home that takes a Publish makes work elsewhere: a letter to each shard with recipients, and there one outbox entry for
//! each member. Whether there is room for that is asked before the Publish is sequenced; if not, the publisher gets
//! `Error` with `overloaded`, and nothing was stored. So what waits is bounded, wherever it waits, and no shard ever has
//! to stop reading its mail or its sockets.
//!
//! Two counts for each shard. *Waiting*: letters that its mailbox did not take when they were offered. *Owed*: the work of
//! broadcasts posted there, given back with [`ToHome::Credit`](super::ToHome::Credit) when they were worked off: wherever
//! they are in between, in a mailbox or in the queue of jobs, they count.
//!
//! A room may owe half of what is free, as a queue of a shared switch buffer may: one room that is large, or whose members do
//! not keep up, gets a third of all, and others always find room. Credit is given back in portions, so that small rooms
//! cause hardly any letters for it; what is less than a portion stays owed.

use crate::id::{RoomKey, ShardId};
use crate::limits::{
    BROADCAST_COST, CREDIT_BYTES, CREDIT_DELIVERIES, WAY_BROADCAST_BYTES_MAX, WAY_DELIVERIES_MAX, WAY_LETTERS_MAX,
    WAYS_BYTES_MAX, way_bytes_max,
};

const _: () = assert!(WAY_BROADCAST_BYTES_MAX <= WAYS_BYTES_MAX);
// What was not given back yet never keeps a broadcast from being taken where nothing waits.
const _: () = assert!(CREDIT_DELIVERIES * 16 <= WAY_DELIVERIES_MAX && CREDIT_BYTES * 16 <= WAY_BROADCAST_BYTES_MAX);

/// See the module.
#[derive(Debug)]
pub(super) struct Ways {
    ways: Vec<Way>,
    bytes_max: usize,
}

/// What is on its way to one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    letters: usize,
    bytes: usize,
    owed: Work,
}

/// The work of broadcasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Deliveries, and [`BROADCAST_COST`] for each broadcast.
    pub deliveries: u64,
    /// Bytes of frames, once for each broadcast.
    pub bytes: usize,
}

impl Work {
    /// Of one broadcast to so many members of a shard.
    pub(super) fn of(members: u32, frame_bytes: usize) -> Self {
        Work { deliveries: u64::from(members) + BROADCAST_COST, bytes: frame_bytes }
    }

    pub(super) fn add(&mut self, more: Work) {
        self.deliveries += more.deliveries;
        self.bytes += more.bytes;
    }

    fn subtract(&mut self, done: Work) {
        debug_assert!(self.deliveries >= done.deliveries && self.bytes >= done.bytes, "credit for what was not owed");
        self.deliveries = self.deliveries.saturating_sub(done.deliveries);
        self.bytes = self.bytes.saturating_sub(done.bytes);
    }
}

impl Ways {
    pub(super) fn new(shards: u16) -> Self {
        Ways { ways: vec![Way::default(); shards.into()], bytes_max: way_bytes_max(shards.into()) }
    }

    fn get(&self, to: ShardId) -> Way {
        self.ways.get(usize::from(to.0)).copied().unwrap_or_default()
    }

    fn change(&mut self, to: ShardId, change: impl FnOnce(&mut Way)) {
        if let Some(way) = self.ways.get_mut(usize::from(to.0)) {
            change(way);
        }
    }

    /// So many letters wait for that shard's mailbox.
    pub(super) fn set_waiting(&mut self, to: ShardId, letters: usize, bytes: usize) {
        self.change(to, |way| (way.letters, way.bytes) = (letters, bytes));
    }

    /// Whether requests that need a letter to that shard are refused: many letters wait for it already.
    pub(super) fn is_full(&self, to: ShardId) -> bool {
        let way = self.get(to);
        way.letters >= WAY_LETTERS_MAX || way.bytes >= self.bytes_max
    }

    /// Whether a room that owes so many deliveries to its members on that shard may owe this work, too. However large, it
    /// may where nearly nothing waits.
    pub(super) fn takes_broadcast(&self, to: ShardId, owed_by_room: u64, work: Work) -> bool {
        let owed = self.get(to).owed;
        let free = WAY_DELIVERIES_MAX.saturating_sub(owed.deliveries);
        let nothing_waits = owed_by_room <= CREDIT_DELIVERIES && owed.deliveries <= WAY_DELIVERIES_MAX / 16;
        !self.is_full(to)
            && (owed_by_room + work.deliveries <= free / 2 || nothing_waits)
            && (owed.bytes <= CREDIT_BYTES || owed.bytes + work.bytes <= WAY_BROADCAST_BYTES_MAX)
    }

    /// A broadcast was posted.
    pub(super) fn owe(&mut self, to: ShardId, work: Work) {
        self.change(to, |way| way.owed.add(work));
    }

    /// Broadcasts were worked off there.
    pub(super) fn settle(&mut self, to: ShardId, work: Work) {
        self.change(to, |way| way.owed.subtract(work));
    }

    /// What is owed to a shard; for tests.
    pub(super) fn owed(&self, to: ShardId) -> Work {
        self.get(to).owed
    }
}

/// Work done for the rooms of one home, until the home is told.
#[derive(Debug, Default)]
pub struct Credit {
    /// Of all its rooms.
    pub work: Work,
    /// Deliveries by room at its home; a room may be there more than once.
    pub rooms: Vec<(RoomKey, u64)>,
}

/// Work done for each home.
#[derive(Debug, Default)]
pub(super) struct Credits(Vec<(ShardId, Credit)>);

impl Credits {
    /// Adds what was done for a room of a home.
    pub(super) fn add(&mut self, home: ShardId, room: RoomKey, work: Work) {
        let at = self.0.iter().position(|(known, _)| *known == home).unwrap_or_else(|| {
            self.0.push((home, Credit::default()));
            self.0.len() - 1
        });
        let Some((_, credit)) = self.0.get_mut(at) else { return };
        credit.work.add(work);
        match credit.rooms.last_mut().filter(|(last, _)| *last == room) {
            Some((_, deliveries)) => *deliveries += work.deliveries,
            None => credit.rooms.push((room, work.deliveries)),
        }
    }

    /// Takes out what was done for one of the homes, if it is worth a letter; for `me`, any.
    pub(super) fn pop(&mut self, me: ShardId) -> Option<(ShardId, Credit)> {
        let is_due = |(home, credit): &(ShardId, Credit)| {
            *home == me || credit.work.deliveries >= CREDIT_DELIVERIES || credit.work.bytes >= CREDIT_BYTES
        };
        let due = self.0.iter().position(is_due)?;
        Some(self.0.swap_remove(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: ShardId = ShardId(1);

    /// How many broadcasts of one room are taken.
    fn fill(ways: &mut Ways, work: Work) -> u64 {
        let mut owed = 0;
        let mut taken = 0;
        while ways.takes_broadcast(THERE, owed, work) {
            ways.owe(THERE, work);
            owed += work.deliveries;
            taken += 1;
        }
        taken
    }

    #[test]
    fn letters_or_their_bytes_reach_the_bound_then_the_way_is_full() {
        let mut ways = Ways::new(2);
        ways.set_waiting(THERE, WAY_LETTERS_MAX - 1, 0);
        assert!(!ways.is_full(THERE));
        ways.set_waiting(THERE, WAY_LETTERS_MAX, 0);
        assert!(ways.is_full(THERE) && !ways.is_full(ShardId(0)));
        ways.set_waiting(THERE, 1, way_bytes_max(2));
        assert!(ways.is_full(THERE));
        ways.set_waiting(THERE, 0, 0);
        assert!(!ways.is_full(THERE));
    }

    #[test]
    fn room_is_greedy_then_it_gets_a_third_of_what_is_free_and_others_find_room() {
        let mut ways = Ways::new(2);
        let first = fill(&mut ways, Work::of(1500, 100)) * 1516;
        assert!((WAY_DELIVERIES_MAX / 3 - 1516..=WAY_DELIVERIES_MAX / 3).contains(&first), "{first}");
        for _ in 0..5 {
            fill(&mut ways, Work::of(1, 100));
        }
        assert!(fill(&mut ways, Work::of(50, 100)) > 10, "a newcomer");
        assert!(ways.owed(THERE).deliveries < WAY_DELIVERIES_MAX);
    }

    #[test]
    fn nearly_nothing_waits_then_a_broadcast_to_any_number_of_members_is_taken() {
        let (huge, small) = (Work::of(10_000_000, 100), Work::of(2, 100));
        let mut ways = Ways::new(2);
        ways.owe(THERE, small);
        assert!(ways.takes_broadcast(THERE, 0, huge));
        ways.owe(THERE, huge);
        assert!(!ways.takes_broadcast(THERE, huge.deliveries, huge) && !ways.takes_broadcast(THERE, 0, small));
        ways.settle(THERE, huge);
        assert!(ways.takes_broadcast(THERE, 0, huge));
    }

    #[test]
    fn bytes_of_frames_reach_their_bound_then_only_one_more_frame_was_taken() {
        let large = Work::of(2, WAY_BROADCAST_BYTES_MAX);
        let mut ways = Ways::new(2);
        assert!(ways.takes_broadcast(THERE, 0, large));
        ways.owe(THERE, large);
        assert!(!ways.takes_broadcast(THERE, 0, Work::of(2, 100)));
    }
}
