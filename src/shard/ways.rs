//! What waits on the way to each shard: the bound on everything that one shard makes another one do.
//!
//! A home that takes a Publish makes work elsewhere: a letter to each shard with recipients, and there one outbox entry for
//! each member. Whether there is room for that is asked before the Publish is sequenced; if not, the publisher gets
//! `Error` with `overloaded`, and nothing was stored. So what waits is bounded, wherever it waits, and no shard ever has
//! to stop reading its mail or its sockets.
//!
//! Two counts for each shard. *Waiting*: letters posted there that its mailbox has not taken yet. *Owed*: the work of
//! broadcasts posted there, given back with [`Letter::Credit`](super::Letter::Credit) when they were worked off: wherever
//! they are in between, in a mailbox or in the queue of jobs, they count. Credit is given back in portions, so that small
//! rooms cause hardly any letters for it; what is less than a portion stays owed.

use crate::id::ShardId;
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

    /// A letter was posted to another shard.
    pub(super) fn post(&mut self, to: ShardId, bytes: usize) {
        self.change(to, |way| {
            way.letters += 1;
            way.bytes += bytes;
        });
    }

    /// Its mailbox has taken a letter.
    pub(super) fn delivered(&mut self, to: ShardId, bytes: usize) {
        self.change(to, |way| {
            way.letters = way.letters.saturating_sub(1);
            way.bytes = way.bytes.saturating_sub(bytes);
        });
    }

    /// Whether a letter to that shard that somebody may do without is to be refused: many wait already.
    pub(super) fn is_full(&self, to: ShardId) -> bool {
        let way = self.get(to);
        way.letters >= WAY_LETTERS_MAX || way.bytes >= self.bytes_max
    }

    /// Whether a broadcast to so many members of that shard may be posted. The fuller the way, the smaller a broadcast must
    /// be: a large room is refused while small ones still have room, and however large, it is not refused where nearly
    /// nothing waits.
    pub(super) fn takes_broadcast(&self, to: ShardId, work: Work) -> bool {
        const RESERVED_FOR_SMALLER: u64 = 8;
        let owed = self.get(to).owed;
        let wanted = (work.deliveries * RESERVED_FOR_SMALLER).min(WAY_DELIVERIES_MAX / 16 * 15);
        !self.is_full(to)
            && owed.deliveries + wanted <= WAY_DELIVERIES_MAX
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

/// Work done for each home, until it is told.
#[derive(Debug, Default)]
pub(super) struct Credits(Vec<(ShardId, Work)>);

impl Credits {
    /// Adds what was done for a home.
    pub(super) fn add(&mut self, home: ShardId, work: Work) {
        match self.0.iter_mut().find(|(known, _)| *known == home) {
            Some((_, sum)) => sum.add(work),
            None => self.0.push((home, work)),
        }
    }

    /// Takes out the sum for one of the homes that is worth a letter; for `me`, any sum.
    pub(super) fn pop(&mut self, me: ShardId) -> Option<(ShardId, Work)> {
        let is_due = |(home, work): &(ShardId, Work)| {
            *home == me || work.deliveries >= CREDIT_DELIVERIES || work.bytes >= CREDIT_BYTES
        };
        let due = self.0.iter().position(is_due)?;
        Some(self.0.swap_remove(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: ShardId = ShardId(1);

    #[test]
    fn letters_and_their_bytes_fill_a_way_until_they_are_delivered() {
        let mut ways = Ways::new(2);
        for _ in 1..WAY_LETTERS_MAX {
            ways.post(THERE, 0);
        }
        assert!(!ways.is_full(THERE));
        ways.post(THERE, 0);
        assert!(ways.is_full(THERE) && !ways.is_full(ShardId(0)));
        ways.delivered(THERE, 0);
        assert!(!ways.is_full(THERE));
        ways.post(THERE, way_bytes_max(2));
        ways.delivered(THERE, 0);
        assert!(ways.is_full(THERE));
    }

    #[test]
    fn a_large_broadcast_is_refused_before_a_small_one() {
        let (large, small) = (Work::of(1500, 100), Work::of(2, 100));
        let mut ways = Ways::new(2);
        let mut taken = 0;
        while ways.takes_broadcast(THERE, large) {
            ways.owe(THERE, large);
            taken += 1;
        }
        assert!((100..200).contains(&taken), "{taken} broadcasts to 1500 members wait");
        let mut taken = 0;
        while ways.takes_broadcast(THERE, small) {
            ways.owe(THERE, small);
            taken += 1;
        }
        assert!(taken > 500, "{taken} small broadcasts found room behind the large ones");
        assert!(ways.owed(THERE).deliveries <= WAY_DELIVERIES_MAX);
    }

    #[test]
    fn a_broadcast_to_any_number_of_members_is_taken_when_nearly_nothing_waits() {
        let (huge, small) = (Work::of(10_000_000, 100), Work::of(2, 100));
        let mut ways = Ways::new(2);
        ways.owe(THERE, small);
        assert!(ways.takes_broadcast(THERE, huge));
        ways.owe(THERE, huge);
        assert!(!ways.takes_broadcast(THERE, huge) && !ways.takes_broadcast(THERE, small));
        ways.settle(THERE, huge);
        assert!(ways.takes_broadcast(THERE, huge));
    }

    #[test]
    fn bytes_of_frames_are_bounded_but_one_frame_always_fits() {
        let large = Work::of(2, WAY_BROADCAST_BYTES_MAX);
        let mut ways = Ways::new(2);
        assert!(ways.takes_broadcast(THERE, large));
        ways.owe(THERE, large);
        assert!(!ways.takes_broadcast(THERE, Work::of(2, 100)));
    }
}
