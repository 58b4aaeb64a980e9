//! The delivery of one frame to all members of a room on this shard.
//!
//! A broadcast arrives as one letter and becomes a job; rooms take turns, and each turn works off a bounded portion, so a
//! room of a hundred thousand members does not delay other sessions.

use super::jobs::{Job, Jobs};
use super::members::{LocalRoom, LocalRooms, Member, renumber};
use super::send::Queue;
use crate::id::{Address, ConnectionKey, LocalRoomKey, Now, RoomKey, ShardId};
use crate::limits::WAY_DELIVERIES_MAX;
use crate::metrics::{DropReason, ShardMetrics, SlowAction};
use crate::outbox::{Delivery, OutboxLimits};
use crate::session::Connection;
use crate::shard::{FANOUT_DELIVERIES_PER_TURN, FANOUT_SENDS_PER_TURN, Shard, Work};
use crate::slots::Slots;

/// A broadcast that has arrived.
pub(in crate::shard) struct Broadcast {
    pub(in crate::shard) offset: u64,
    pub(in crate::shard) logged: bool,
    pub(in crate::shard) delivery: Delivery,
    pub(in crate::shard) without: Option<Address>,
    pub(in crate::shard) home: ShardId,
    pub(in crate::shard) room: RoomKey,
    pub(in crate::shard) work: Work,
}

/// Messages that are brought together, and deliveries after which it is the next room's turn: the more messages, the
/// fewer members.
const TOGETHER_MAX: u32 = 256;
/// Messages that are brought together while most members of a room do not keep up.
const TOGETHER_AFTER_REST: u32 = 16;
const PORTION_DELIVERIES: u32 = 32 * 1024;
/// Messages in an outbox, and the part of its bound in bytes, with which a member does not keep up.
const FULL_FRAMES: usize = 1024;
const FULL_PART_OF_BYTES: usize = 4;
/// Rests of a room, doubled while most of its members do not keep up.
const REST_MS_MIN: u16 = 25;
const REST_MS_MAX: u16 = 400;
/// Holes that are left in a list of members until it is its room's turn to end.
const HOLES_MAX: u32 = 64;

impl LocalRooms {
    /// A broadcast has come. False when the key is stale: the last member has just left, and there is nothing to do.
    pub(in crate::shard) fn enqueue(&mut self, local: LocalRoomKey, broadcast: Broadcast) -> bool {
        let Some(room) = self.rooms.get_mut(local) else { return false };
        let members = room.members.len() as u32;
        let Broadcast { offset, logged, delivery, without, home, room: at_home, work } = broadcast;
        let job = Job { offset, logged, delivery, without, next: 0, members, home, room: at_home, work };
        self.jobs.push(local, &mut room.jobs, job, room.rests_until_ms);
        true
    }

    /// Whether broadcasts wait for their turn.
    pub(in crate::shard) fn has_jobs(&self) -> bool {
        self.jobs.has_line()
    }

    /// How much of what one home may owe waits here, in percent.
    pub(in crate::shard) fn pressure(&self) -> usize {
        (self.jobs.work().deliveries * 100).div_ceil(WAY_DELIVERIES_MAX) as usize
    }
}

impl Shard {
    pub(super) fn on_fanout(&mut self, local: LocalRoomKey, broadcast: Broadcast) {
        let Broadcast { home, room, work, .. } = broadcast;
        if !self.rooms.enqueue(local, broadcast) {
            self.credits.add(home, room, work);
        }
    }

    /// Works jobs off, a bounded portion of them, and gives homes their credit back. What costs most is a send, so outboxes
    /// that were empty are counted by themselves. Returns true when jobs are left.
    pub(in crate::shard) fn fan_out(&mut self, now: Now) -> bool {
        self.rooms.jobs.end_rests(now.mono_ms());
        let (mut deliveries, sends) = (0, self.stalls.filled.len());
        while deliveries < FANOUT_DELIVERIES_PER_TURN
            && self.stalls.filled.len() - sends < FANOUT_SENDS_PER_TURN
            && let Some(key) = self.rooms.jobs.next_room()
        {
            deliveries += self.serve_room(key, now).max(1);
        }
        self.give_credit_back();
        self.rooms.has_jobs()
    }

    /// Brings a portion of a room's members the messages that wait for them. Returns how many deliveries that were.
    fn serve_room(&mut self, key: LocalRoomKey, now: Now) -> usize {
        let Some(room) = self.rooms.rooms.get_mut(key) else { return 0 };
        let jobs = &mut self.rooms.jobs;
        let Some(next) = jobs.next_of(room.jobs) else { return 0 };
        let keeps_log = self.settings.namespaces.get(room.namespace).is_some_and(|n| n.history_size > 0);
        // Those that were begun together go on together; a later one begins when they are done.
        let together_max = if room.rest_ms == 0 { TOGETHER_MAX } else { TOGETHER_AFTER_REST };
        let mut together = 0;
        jobs.visit(room.jobs, |job| {
            let goes_along = job.next == next && together < together_max;
            together += u32::from(goes_along);
            goes_along
        });
        let end = next + PORTION_DELIVERIES / together.max(1);
        let (mut visited, mut deliveries) = (0, 0);
        let members = &mut room.members;
        let mut turn = FanOut {
            connections: &mut self.connections,
            queue: Queue {
                spares: &mut self.spares,
                effects: &mut self.effects,
                filled: &mut self.stalls.filled,
                metrics: &self.metrics,
                now_ms: now.mono_ms(),
            },
            metrics: &self.metrics,
            limits: self.outbox_limits,
            keeps_log,
            without: None,
            full: 0,
        };
        jobs.visit(room.jobs, |job| {
            if visited == together {
                return false;
            }
            visited += 1;
            job.next = end;
            turn.without = job.without.filter(|address| address.shard == self.id).map(|address| address.connection);
            let served = members.get_mut(next as usize..job.members.min(job.next) as usize).unwrap_or_default();
            deliveries += served.len();
            if visited == 1 {
                room.served += served.len() as u32;
                turn.full = 0;
            }
            for member in served {
                turn.deliver(member, job.offset, job.logged, &job.delivery);
            }
            if visited == 1 {
                room.full += turn.full;
            }
            true
        });
        let mut rests = false;
        room.rests_until_ms = 0;
        if jobs.is_first_done(room.jobs) {
            let (served, full) = (core::mem::take(&mut room.served), core::mem::take(&mut room.full));
            rests = full > served / 2;
            let rest_ms = (room.rest_ms * 2).clamp(REST_MS_MIN, REST_MS_MAX);
            room.rest_ms = if rests { rest_ms } else { 0 };
        }
        if rests {
            self.metrics.rooms_rested.increment();
            room.rests_until_ms = now.mono_ms() + u64::from(room.rest_ms);
        }
        let rests_until_ms = room.rests_until_ms;
        while let Some(job) = jobs.pop_done(&mut room.jobs) {
            self.credits.add(job.home, job.room, job.work);
        }
        if room.holes > 0 && (room.jobs.is_empty() || room.holes > HOLES_MAX.max(room.members.len() as u32 / 2)) {
            Self::close_holes(room, key, jobs, &mut self.connections);
        }
        if room.jobs.is_empty() {
            self.rooms.forget_if_unused(key);
        } else if rests {
            jobs.rest(key, rests_until_ms);
        } else {
            jobs.line_up(key);
        }
        deliveries
    }

    /// Closes the gaps in a room's list of members. What its jobs say of places in the list is put right.
    fn close_holes(room: &mut LocalRoom, key: LocalRoomKey, jobs: &mut Jobs, connections: &mut Slots<Connection>) {
        // Jobs are in the order in which they came, and so is how many members each of them has.
        let (mut passed, mut kept) = (0, 0);
        let mut place_of = |place: u32| {
            let skipped = room.members.iter().take(place as usize).skip(passed as usize);
            kept += skipped.filter(|member| member.connection.is_some()).count() as u32;
            passed = passed.max(place);
            kept
        };
        let mut begun_at = None;
        jobs.visit(room.jobs, |job| {
            // Jobs that were begun are as far as the first one, which nothing was counted before.
            if job.next > 0 {
                job.next = *begun_at.get_or_insert_with(|| place_of(job.next));
            }
            job.members = place_of(job.members);
            true
        });
        room.members.retain(|member| member.connection.is_some());
        room.holes = 0;
        for (index, member) in room.members.iter().enumerate() {
            renumber(connections, member.connection, key, index as u32);
        }
    }
}

/// What the inner loop of a broadcast needs, borrowed apart from the room.
struct FanOut<'a> {
    connections: &'a mut Slots<Connection>,
    queue: Queue<'a>,
    metrics: &'a ShardMetrics,
    limits: OutboxLimits,
    keeps_log: bool,
    without: Option<ConnectionKey>,
    /// Members that do not keep up.
    full: u32,
}

impl FanOut<'_> {
    #[inline]
    fn deliver(&mut self, member: &mut Member, offset: u64, logged: bool, delivery: &Delivery) {
        let Some(key) = member.connection else { return };
        if logged && offset <= member.seen {
            return;
        }
        if self.without == Some(key) {
            if logged && !member.lagging {
                member.seen = offset;
            }
            return;
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        self.full += u32::from(connection.outbox.holds(FULL_FRAMES, self.limits.bytes_max / FULL_PART_OF_BYTES));
        self.metrics.deliveries_owed.increment();
        if logged && member.lagging {
            member.behind += 1;
            return self.metrics.deliveries_deferred.add(1);
        }
        // A message in no log neither overtakes those that wait in the log, nor comes behind later ones.
        let out_of_order = !logged && (member.lagging || member.seen > offset);
        if !connection.outbox.has_room(delivery.frame.len(), self.limits) || out_of_order {
            if logged && self.keeps_log {
                member.lagging = true;
                member.behind = 1;
                if let Some(session) = connection.session.as_mut() {
                    session.lagging += 1;
                }
                self.metrics.slow_consumers[SlowAction::Lag].increment();
                return self.metrics.deliveries_deferred.add(1);
            }
            self.metrics.slow_consumers[SlowAction::Drop].increment();
            return Shard::count_dropped(self.metrics, DropReason::Slow, 1);
        }
        if logged {
            member.seen = offset;
        }
        self.queue.push(key, connection, delivery.clone());
    }
}
