//! Broadcasts that wait for their turn on a shard: one queue for each room, and rooms take turns.
//!
//! A room of a hundred thousand members with a thousand messages waiting does not delay a room of two: each turn serves
//! a portion of the room in front, which then goes to the end of the line. The messages of one room keep their order.
//! Jobs lie in one slab, so that a room without jobs owns no memory for them.
//!
//! A room whose members mostly do not keep up *rests*: its jobs wait while the others' go on, and its home gets no credit for
//! them, so that its publishers are refused instead of its members being closed. Rests are short, and members that read
//! nothing at all are closed after the write timeout: members that do not read slow their room down, but never stop it.

use std::collections::VecDeque;

use crate::id::{Address, LocalRoomKey, RoomKey, ShardId};
use crate::outbox::Delivery;
use crate::shard::Work;

/// One frame for all members of a room on this shard.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) offset: u64,
    pub(super) logged: bool,
    pub(super) delivery: Delivery,
    pub(super) without: Option<Address>,
    /// Members before this index have been served.
    pub(super) next: u32,
    /// Members when it came. A session that joins while it waits stands after its message, perhaps in another epoch.
    pub(super) members: u32,
    /// The room's home, which gets its credit back, and the room there.
    pub(super) home: ShardId,
    pub(super) room: RoomKey,
    pub(super) work: Work,
}

/// A room's jobs: the first and the last in the slab.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoomJobs {
    ends: Option<(u32, u32)>,
}

impl RoomJobs {
    pub(in crate::shard) fn is_empty(self) -> bool {
        self.ends.is_none()
    }
}

#[derive(Debug)]
struct Place {
    job: Option<Job>,
    /// The next job of the same room, or the next free place; itself for none.
    next: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    slab: Vec<Place>,
    free: Vec<u32>,
    /// Rooms with jobs, each once, in the order of their turns.
    line: VecDeque<LocalRoomKey>,
    /// Rooms with jobs that rest, and until when, in monotonic ms.
    resting: Vec<(u64, LocalRoomKey)>,
    work: Work,
}

impl Jobs {
    /// Whether a room waits for its turn.
    pub(super) fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// What waits in all.
    pub(in crate::shard) fn work(&self) -> Work {
        self.work
    }

    /// Appends a job to the queue of its room, which may rest until some time, in monotonic ms; 0 if it does not.
    pub(super) fn push(&mut self, room: LocalRoomKey, queue: &mut RoomJobs, job: Job, rests_until_ms: u64) {
        self.work.add(job.work);
        let place = self.free.pop().unwrap_or_else(|| {
            self.slab.push(Place { job: None, next: 0 });
            self.slab.len() as u32 - 1
        });
        if let Some(entry) = self.slab.get_mut(place as usize) {
            *entry = Place { job: Some(job), next: place };
        }
        queue.ends = match queue.ends {
            Some((first, last)) => {
                if let Some(entry) = self.slab.get_mut(last as usize) {
                    entry.next = place;
                }
                Some((first, place))
            }
            None => {
                match rests_until_ms {
                    0 => self.line_up(room),
                    until_ms => self.rest(room, until_ms),
                }
                Some((place, place))
            }
        };
    }

    /// The room whose turn it is; to be given back with [`Self::line_up`] while it has jobs.
    pub(super) fn next_room(&mut self) -> Option<LocalRoomKey> {
        self.line.pop_front()
    }

    /// Puts a room with jobs at the end of the line.
    pub(super) fn line_up(&mut self, room: LocalRoomKey) {
        self.line.push_back(room);
    }

    /// Keeps a room with jobs out of the line until then.
    pub(super) fn rest(&mut self, room: LocalRoomKey, until_ms: u64) {
        self.resting.push((until_ms, room));
    }

    /// Lines up rooms that have rested.
    pub(super) fn end_rests(&mut self, now_ms: u64) {
        let Jobs { resting, line, .. } = self;
        line.extend(resting.extract_if(.., |(until_ms, _)| *until_ms <= now_ms).map(|(_, room)| room));
    }

    /// How far the room's oldest job is; none without jobs.
    pub(super) fn next_of(&self, queue: RoomJobs) -> Option<u32> {
        let (first, _) = queue.ends?;
        self.slab.get(first as usize)?.job.as_ref().map(|job| job.next)
    }

    /// Whether all members were served the room's oldest job.
    pub(super) fn is_first_done(&self, queue: RoomJobs) -> bool {
        let first = queue.ends.and_then(|(first, _)| self.slab.get(first as usize)?.job.as_ref());
        first.is_some_and(|job| job.next >= job.members)
    }

    /// Takes the oldest job of a room out if all its members are served.
    pub(super) fn pop_done(&mut self, queue: &mut RoomJobs) -> Option<Job> {
        let (first, last) = queue.ends?;
        let place = self.slab.get_mut(first as usize)?;
        place.job.as_ref().filter(|job| job.next >= job.members)?;
        let (job, next) = (place.job.take()?, place.next);
        queue.ends = (first != last).then_some((next, last));
        self.free.push(first);
        self.work.deliveries -= job.work.deliveries;
        self.work.bytes -= job.work.bytes;
        Some(job)
    }

    /// Calls `change` for the jobs of a room, oldest first, until it says no.
    pub(super) fn visit(&mut self, queue: RoomJobs, mut change: impl FnMut(&mut Job) -> bool) {
        let Some((mut place, last)) = queue.ends else { return };
        while let Some(entry) = self.slab.get_mut(place as usize) {
            let goes_on = entry.job.as_mut().is_some_and(&mut change);
            if place == last || !goes_on {
                return;
            }
            place = entry.next;
        }
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub(in crate::shard) fn release_spares(&mut self) {
        if self.free.len() == self.slab.len() {
            *self = Jobs::default();
        }
    }

    /// Panics when the structure is broken; for tests.
    pub(in crate::shard) fn invariants(&self) {
        let mut work = Work::default();
        let jobs = self.slab.iter().filter_map(|place| place.job.as_ref());
        jobs.for_each(|job| work.add(job.work));
        assert_eq!(work, self.work, "work that waits");
        let waiting = self.slab.iter().filter(|place| place.job.is_some()).count();
        assert_eq!(waiting + self.free.len(), self.slab.len(), "places of jobs");
    }
}
