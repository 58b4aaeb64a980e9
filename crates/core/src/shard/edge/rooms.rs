//! Rooms, on the side of the sessions: joining, leaving, and the delivery of one frame to all members on this shard.
//!
//! A broadcast arrives as one letter and becomes a job; rooms take turns, and each turn works off a bounded portion, so a
//! room of a hundred thousand stalls nobody. While a room has jobs its list of members keeps its order: a member that
//! leaves leaves a hole. Each member knows the offset it has been brought to, which makes repetitions and holes visible.
//!
//! A session may speak of a room before the home has answered its Subscribe: it counts as a member at once. Only an
//! Unsubscribe waits for the answer, and the connection with it (see `receive`): requests take effect in their order.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::inbox::{CatchUpRoom, settle};
use super::jobs::{Job, Jobs, RoomJobs};
use super::requests::WEIGHT_OF_LARGE;
use crate::close::{CloseReason, ErrorCode};
use crate::id::{Address, ConnectionKey, Now, Position, Recover, ShardId, TopicKey};
use crate::keyed::{Keyed, keyed};
use crate::limits::{HISTORY_MESSAGES_MAX, PRESENCE_MEMBERS_MAX, WAY_DELIVERIES_MAX};
use crate::metrics::DropReason;
use crate::outbox::Delivery;
use crate::session::{Connection, Membership, Session, Verb};
use crate::shard::letter::{History, Subscribe, Subscribed};
use crate::shard::ways::Work;
use crate::shard::{Effect, FANOUT_DELIVERIES_PER_TURN, FANOUT_SENDS_PER_TURN, Letter, Shard, Source};
use crate::slots::Slots;
use crate::topics::Gap;
use crate::wire::encode;

/// Rooms that have members, or are about to have some, on this shard.
#[derive(Debug)]
pub(in crate::shard) struct LocalRooms {
    rooms: Slots<LocalRoom>,
    names: HashTable<TopicKey>,
    hash: Keyed,
    jobs: Jobs,
}

#[derive(Debug)]
struct LocalRoom {
    name: Arc<str>,
    namespace: usize,
    /// The room at its home, once the home has answered.
    home: Option<TopicKey>,
    members: Vec<Member>,
    /// Members that left while jobs were waiting.
    holes: u32,
    /// Broadcasts that wait.
    jobs: RoomJobs,
    /// Of the members that were brought the present messages: how many, and how many of them had much in their outboxes.
    served: u32,
    full: u32,
    /// How long it rested last; 0 while most members keep up.
    rest_ms: u16,
    /// It rests until then, in monotonic ms; 0 if it does not.
    rests_until_ms: u64,
    /// Subscribes that the home has not answered.
    pending: u32,
}

#[derive(Debug)]
struct Member {
    connection: Option<ConnectionKey>,
    /// Brought up to here.
    seen: u64,
    /// It asked for what there still is: a first answer with a hole at its start will do.
    best: bool,
    /// Live messages that were not queued because the member lags.
    behind: u32,
    lagging: bool,
    catching: bool,
}

/// A broadcast that has arrived.
pub(in crate::shard) struct Broadcast {
    pub(in crate::shard) offset: u64,
    pub(in crate::shard) logged: bool,
    pub(in crate::shard) delivery: Delivery,
    pub(in crate::shard) without: Option<Address>,
    pub(in crate::shard) home: ShardId,
    pub(in crate::shard) room: TopicKey,
    pub(in crate::shard) work: Work,
}

/// What a Subscribe, or a room of Connect, asks for.
#[derive(Clone, Copy)]
pub(in crate::shard) struct Wish<'a> {
    pub(in crate::shard) request: u32,
    pub(in crate::shard) room: &'a str,
    pub(in crate::shard) since: Option<Position>,
    pub(in crate::shard) recover: Recover,
}

/// Which messages a History asks for.
#[derive(Clone, Copy)]
pub(in crate::shard) struct Asked {
    pub(in crate::shard) since: Option<Position>,
    pub(in crate::shard) before: Option<Position>,
    pub(in crate::shard) limit: u32,
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
    pub(in crate::shard) fn new(seed: u64) -> Self {
        LocalRooms { rooms: Slots::default(), names: HashTable::new(), hash: keyed(seed), jobs: Jobs::default() }
    }

    fn find(&self, name: &str) -> Option<TopicKey> {
        let is_it = |key: &TopicKey| self.rooms.get(*key).is_some_and(|room| *room.name == *name);
        self.names.find(self.hash.hash_one(name), is_it).copied()
    }

    fn find_or_make(&mut self, name: &str, namespace: usize) -> TopicKey {
        if let Some(key) = self.find(name) {
            return key;
        }
        let room = LocalRoom {
            name: Arc::from(name),
            namespace,
            home: None,
            members: Vec::new(),
            holes: 0,
            jobs: RoomJobs::default(),
            served: 0,
            full: 0,
            rest_ms: 0,
            rests_until_ms: 0,
            pending: 0,
        };
        let key = self.rooms.insert(room);
        let LocalRooms { rooms, names, hash, .. } = self;
        names.insert_unique(hash.hash_one(name), key, |key| {
            hash.hash_one(rooms.get(*key).map_or("", |room| &room.name))
        });
        key
    }

    /// Forgets a room without members, expected members and jobs.
    fn forget_if_unused(&mut self, key: TopicKey) {
        let Some(room) = self.rooms.get(key) else { return };
        if !room.jobs.is_empty() || room.pending > 0 || room.members.len() > room.holes as usize {
            return;
        }
        let hash = self.hash.hash_one(&*room.name);
        if let Ok(entry) = self.names.find_entry(hash, |known| *known == key) {
            entry.remove();
        }
        self.rooms.remove(key);
    }

    /// A broadcast has come. False when the key is stale: the last member has just left, and there is nothing to do.
    pub(in crate::shard) fn enqueue(&mut self, local: TopicKey, broadcast: Broadcast) -> bool {
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

    /// Lets go of memory that is only kept for the next busy moment.
    pub(in crate::shard) fn release_spares(&mut self) {
        self.jobs.release_spares();
    }

    /// Whether the session has asked to be in this room, and its home has not answered yet.
    pub(in crate::shard) fn is_joining(&self, session: &Session, name: &str) -> bool {
        let membership = self.find(name).and_then(|key| session.rooms.find(key));
        membership.is_some_and(|membership| membership.index.is_none())
    }

    /// Whether the session is in this room, or has asked to be.
    pub(in crate::shard) fn is_member(&self, session: &Session, name: &str) -> bool {
        self.find(name).is_some_and(|key| session.rooms.find(key).is_some())
    }

    pub(in crate::shard) fn invariants(&self, connections: &Slots<Connection>) -> u64 {
        self.jobs.invariants();
        let mut deferred = 0;
        for (key, room) in self.rooms.iter() {
            assert_eq!(self.find(&room.name), Some(key), "{} is found by name", room.name);
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

impl Shard {
    /// A client joins a room. Rooms of a Connect do not count among its requests in flight, and are never refused because
    /// much waits: the shell verifies no token then.
    pub(in crate::shard) fn on_subscribe(&mut self, key: ConnectionKey, wish: Wish<'_>, of_connect: bool, now: Now) {
        let Wish { request, room: name, .. } = wish;
        let namespace = match self.may_use_room(key, name, Verb::Subscribe) {
            Ok(namespace) => namespace,
            Err(code) => return self.refuse_room(key, request, code, name, now),
        };
        let rooms_max = self.settings.client.rooms_max;
        let known = self.rooms.find(name);
        let Some(session) = self.session_mut(key) else { return };
        let refused = if known.is_some_and(|room| session.rooms.find(room).is_some()) {
            Some(ErrorCode::AlreadySubscribed)
        } else if session.rooms.len() >= rooms_max {
            Some(ErrorCode::LimitExceeded)
        } else if of_connect {
            None
        } else {
            self.way_is_full(self.home_of_room(name))
        };
        if let Some(code) = refused {
            return self.refuse_room(key, request, code, name, now);
        }
        if !of_connect && !self.count_request(key) {
            return self.refuse_room(key, request, ErrorCode::TooManyInFlight, name, now);
        }
        self.join(key, wish, namespace, !of_connect);
    }

    /// Asks the room's home to count the session in.
    fn join(&mut self, key: ConnectionKey, wish: Wish<'_>, namespace: usize, counted: bool) {
        let Wish { request, since, recover, .. } = wish;
        let from = self.address(key);
        let room = self.rooms.find_or_make(wish.room, namespace);
        let Some(session) = self.connections.get_mut(key).and_then(|connection| connection.session.as_mut()) else {
            return self.rooms.forget_if_unused(room);
        };
        session.rooms.add(room);
        let (user, device) = (session.user.clone(), session.device.clone());
        let Some(local) = self.rooms.rooms.get_mut(room) else { return };
        local.pending += 1;
        let name = local.name.clone();
        let home = self.home_of_room(&name);
        let subscribe =
            Subscribe { room: name, namespace, from, user, device, request, since, recover, local: room, counted };
        self.ask(home, Letter::Subscribe(Box::new(subscribe)));
    }

    /// The home has counted the session in.
    pub(in crate::shard) fn on_subscribed(&mut self, subscribed: &Subscribed, now: Now) {
        let Subscribed { to: key, local, home, .. } = *subscribed;
        let Some(room) = self.rooms.rooms.get_mut(local) else { return };
        room.pending -= 1;
        room.home = Some(home);
        let name = room.name.clone();
        let session = self
            .connections
            .get_mut(key)
            .filter(|connection| connection.is_ready())
            .and_then(|connection| connection.session.as_mut());
        let lagging = subscribed.start < subscribed.position.offset;
        let membership = session.and_then(|session| {
            let membership = session.rooms.find_mut(local)?;
            session.lagging += u16::from(lagging);
            Some(membership)
        });
        let Some(membership) = membership else {
            // Closed in the meantime, perhaps because it was taken over: then its successor is about to join.
            let from = self.address(key);
            self.post(self.home_of_room(&name), Letter::Unsubscribe { home, from, taken_over: true });
            return self.rooms.forget_if_unused(local);
        };
        membership.index = Some(room.members.len() as u32);
        room.members.push(Member {
            connection: Some(key),
            seen: subscribed.start,
            best: lagging && !subscribed.recovered,
            behind: 0,
            lagging,
            catching: false,
        });
        if subscribed.counted {
            self.answered(key);
        }
        self.reply_in_order(key, now, |encoder, out| {
            let Subscribed { request, recovered, position, start, .. } = *subscribed;
            let start = Position { offset: start, ..position };
            encoder.subscribed(out, &encode::Subscribed { request, room: &name, recovered, position, start });
        });
        if lagging {
            self.catch_up(key);
        }
        if self.may_use_room(key, &name, Verb::Subscribe).is_err() {
            // The right was taken away by a Refresh while the answer was under way.
            self.leave_and_say_so(key, local, 0, &name, ErrorCode::PermissionDenied.code(), now);
        }
        self.wake_parked(key);
    }

    /// Ends a membership and tells the client: an answer, or with another code than 0 a push.
    fn leave_and_say_so(&mut self, key: ConnectionKey, room: TopicKey, request: u32, name: &str, code: u16, now: Now) {
        let membership = self.session_mut(key).and_then(|session| session.rooms.remove(room));
        if let Some(membership) = membership {
            self.leave_room(key, membership, false);
        }
        self.reply_in_order(key, now, |encoder, out| encoder.unsubscribed(out, request, name, code));
    }

    /// A client leaves a room.
    pub(in crate::shard) fn on_unsubscribe(&mut self, key: ConnectionKey, request: u32, name: &str, now: Now) {
        let room = self.rooms.find(name);
        let Some(session) = self.session_mut(key) else { return };
        match room.filter(|room| session.rooms.find(*room).is_some()) {
            Some(room) => self.leave_and_say_so(key, room, request, name, 0, now),
            None => self.refuse(key, request, ErrorCode::NotSubscribed, now),
        }
    }

    /// The session's rights have changed: takes away the rooms that it may not be in any more. Those that it is about to
    /// join are looked at when their homes have answered.
    pub(in crate::shard) fn take_rooms_away(&mut self, key: ConnectionKey, now: Now) {
        let Some(session) = self.session_mut(key) else { return };
        for membership in session.rooms.as_slice().to_vec() {
            let Some(name) = self.rooms.rooms.get(membership.room).map(|room| room.name.clone()) else { continue };
            if membership.index.is_some() && self.may_use_room(key, &name, Verb::Subscribe).is_err() {
                self.leave_and_say_so(key, membership.room, 0, &name, ErrorCode::PermissionDenied.code(), now);
            }
        }
    }

    /// Takes a session out of a room's members and tells the home. A membership that the home has not answered yet
    /// is taken back when the answer comes.
    pub(in crate::shard) fn leave_room(&mut self, key: ConnectionKey, membership: Membership, taken_over: bool) {
        let (Some(index), Some(room)) = (membership.index, self.rooms.rooms.get_mut(membership.room)) else { return };
        let Some(member) = room.members.get_mut(index as usize) else { return };
        debug_assert_eq!(member.connection, Some(key));
        let behind = u64::from(member.behind);
        self.metrics.deliveries_deferred.subtract(behind);
        Self::count_dropped(&self.metrics, DropReason::Closed, behind);
        if member.lagging
            && let Some(session) = self.connections.get_mut(key).and_then(|c| c.session.as_mut())
        {
            session.lagging -= 1;
        }
        if room.jobs.is_empty() {
            room.members.swap_remove(index as usize);
            let moved = room.members.get(index as usize).and_then(|member| member.connection);
            Self::renumber(&mut self.connections, moved, membership.room, index);
        } else {
            *member = Member { connection: None, seen: 0, best: false, behind: 0, lagging: false, catching: false };
            room.holes += 1;
        }
        let (name, home) = (room.name.clone(), room.home);
        let from = self.address(key);
        if let Some(home) = home {
            self.post(self.home_of_room(&name), Letter::Unsubscribe { home, from, taken_over });
        }
        self.rooms.forget_if_unused(membership.room);
    }

    fn renumber(connections: &mut Slots<Connection>, member: Option<ConnectionKey>, room: TopicKey, index: u32) {
        let session = member.and_then(|key| connections.get_mut(key)).and_then(|c| c.session.as_mut());
        if let Some(membership) = session.and_then(|s| s.rooms.find_mut(room)) {
            membership.index = Some(index);
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
    fn serve_room(&mut self, key: TopicKey, now: Now) -> usize {
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
            spares: &mut self.spares,
            effects: &mut self.effects,
            filled: &mut self.stalls.filled,
            metrics: &self.metrics,
            limits: self.outbox_limits,
            keeps_log,
            without: None,
            full: 0,
            now,
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
    fn close_holes(room: &mut LocalRoom, key: TopicKey, jobs: &mut Jobs, connections: &mut Slots<Connection>) {
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
            Self::renumber(connections, member.connection, key, index as u32);
        }
    }

    /// Tells homes what of their broadcasts was worked off since the last time.
    pub(in crate::shard) fn give_credit_back(&mut self) {
        while let Some((home, credit)) = self.credits.pop(self.id) {
            if home == self.id {
                self.on_credit(home, &credit);
            } else {
                self.post(home, Letter::Credit { from: self.id, credit: Box::new(credit) });
            }
        }
    }

    /// Asks the homes of this session's lagging rooms for what is missing.
    pub(in crate::shard) fn catch_up_rooms(&mut self, key: ConnectionKey) {
        let from = self.address(key);
        let Some(session) = self.connections.get(key).and_then(|connection| connection.session.as_ref()) else {
            return;
        };
        if session.lagging == 0 {
            return;
        }
        for membership in session.rooms.as_slice().to_vec() {
            let Some(room) = self.rooms.rooms.get_mut(membership.room) else { continue };
            let member = membership.index.and_then(|index| room.members.get_mut(index as usize));
            let Some(member) = member.filter(|member| member.lagging && !member.catching) else { continue };
            let Some(home) = room.home else { continue };
            member.catching = true;
            let since = member.seen;
            let home_shard =
                self.home_of_room(&self.rooms.rooms.get(membership.room).map_or("".into(), |r| r.name.clone()));
            let topic = Source::Room { home, local: membership.room };
            self.post(home_shard, Letter::CatchUp { topic, from, since });
        }
    }

    /// A room's home brings what a lagging member was missing.
    pub(in crate::shard) fn on_room_caught_up(&mut self, key: ConnectionKey, local: TopicKey, gap: Gap, now: Now) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.is_ready()) else { return };
        let Some(session) = connection.session.as_mut() else { return };
        let index = session.rooms.find(local).and_then(|membership| membership.index);
        let Some(room) = self.rooms.rooms.get_mut(local) else { return };
        let Some(member) = index.and_then(|index| room.members.get_mut(index as usize)) else { return };
        if !member.catching {
            return;
        }
        member.catching = false;
        let may_have_hole = core::mem::take(&mut member.best);
        if gap.lost && !may_have_hole {
            return self.close(key, CloseReason::InsufficientState, "", now);
        }
        let (mut fits, before) = (true, member.seen);
        let mut outbox_room = CatchUpRoom::of(&connection.outbox, self.outbox_limits);
        let mut taken = Vec::with_capacity(gap.frames.len());
        for (offset, frame) in gap.frames {
            if !outbox_room.take(frame.len()) {
                fits = false;
                break;
            }
            member.seen = offset;
            taken.push(frame);
        }
        if fits {
            // Also past what the session published itself.
            member.seen = member.seen.max(gap.upto);
        }
        let complete = fits && !gap.more;
        if complete {
            member.lagging = false;
            session.lagging -= 1;
        }
        let progress = member.seen > before;
        let (owed, settled) = settle(&mut member.behind, taken.len() as u64, complete);
        self.replay(key, taken, owed, settled, complete, now);
        if !complete && progress {
            self.catch_up_when_drained(key);
        }
    }

    /// A client asks who is in a room.
    pub(in crate::shard) fn on_presence(&mut self, key: ConnectionKey, request: u32, room: &str, limit: u32, now: Now) {
        match self.may_use_room(key, room, Verb::Presence) {
            Err(code) => self.refuse(key, request, code, now),
            Ok(namespace) if !self.settings.namespaces.get(namespace).is_some_and(|n| n.presence) => {
                self.refuse(key, request, ErrorCode::NotAvailable, now);
            }
            Ok(_) => {
                let home = self.home_of_room(room);
                if let Some(code) = self.way_is_full(home) {
                    return self.refuse(key, request, code, now);
                }
                if self.begin_request(key, request, now) {
                    let limit = limit.min(PRESENCE_MEMBERS_MAX);
                    let letter = Letter::Presence { room: room.into(), from: self.address(key), request, limit };
                    self.begin_heavy(key, WEIGHT_OF_LARGE);
                    self.ask(home, letter);
                }
            }
        }
    }

    /// A client asks what was said.
    pub(in crate::shard) fn on_history(
        &mut self,
        key: ConnectionKey,
        request: u32,
        topic: &str,
        asked: Asked,
        now: Now,
    ) {
        let allowed = match topic.strip_prefix('@') {
            Some(user) => {
                let own = self.session_mut(key).is_some_and(|session| *session.user == *user);
                if own { Ok(()) } else { Err(ErrorCode::PermissionDenied) }
            }
            None => self.may_use_room(key, topic, Verb::History).and_then(|namespace| {
                let kept = self.settings.namespaces.get(namespace).is_some_and(|n| n.history_size > 0);
                if kept { Ok(()) } else { Err(ErrorCode::NotAvailable) }
            }),
        };
        let home = self.home_of_topic(topic);
        if let Some(code) = allowed.err().or_else(|| self.way_is_full(home)) {
            return self.refuse(key, request, code, now);
        }
        if self.begin_request(key, request, now) {
            let Asked { since, before, limit } = asked;
            let limit = limit.min(HISTORY_MESSAGES_MAX);
            let history = History { topic: topic.into(), from: self.address(key), request, since, before, limit };
            self.begin_heavy(key, WEIGHT_OF_LARGE);
            self.ask(home, Letter::History(Box::new(history)));
        }
    }

    /// The index of the room's namespace, or why the session may not do this with the room.
    fn may_use_room(&self, key: ConnectionKey, room: &str, verb: Verb) -> Result<usize, ErrorCode> {
        let (index, namespace) = self.settings.namespace_of(room).ok_or(ErrorCode::UnknownRoom)?;
        let session =
            self.connections.get(key).and_then(|connection| connection.session.as_ref()).ok_or(ErrorCode::Internal)?;
        let granted = session.grants.as_ref().is_some_and(|grants| grants.allows(verb, room));
        let allowed = match verb {
            Verb::Subscribe => namespace.subscribe_all,
            Verb::Publish => namespace.publish_all,
            // A session that may listen may also look around.
            Verb::Presence | Verb::History => namespace.subscribe_all || self.rooms.is_member(session, room),
        };
        if allowed || granted { Ok(index) } else { Err(ErrorCode::PermissionDenied) }
    }
}

/// What the inner loop of a broadcast needs, borrowed apart from the room.
struct FanOut<'a> {
    connections: &'a mut Slots<Connection>,
    spares: &'a mut crate::outbox::Spares,
    effects: &'a mut VecDeque<Effect>,
    filled: &'a mut Vec<ConnectionKey>,
    metrics: &'a crate::metrics::ShardMetrics,
    limits: crate::outbox::OutboxLimits,
    keeps_log: bool,
    without: Option<ConnectionKey>,
    /// Members that do not keep up.
    full: u32,
    now: Now,
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
                self.metrics.slow_consumers[0].increment();
                return self.metrics.deliveries_deferred.add(1);
            }
            self.metrics.slow_consumers[1].increment();
            return Shard::count_dropped(self.metrics, DropReason::Slow, 1);
        }
        if logged {
            member.seen = offset;
        }
        let now_ms = self.now.mono_ms();
        if connection.outbox.is_empty() {
            self.filled.push(key);
        }
        self.metrics.deliveries_queued.add(1);
        self.metrics.outbox_bytes.add(delivery.frame.len() as u64);
        connection.outbox.push(delivery.clone(), self.spares, now_ms);
        if !connection.writable {
            connection.writable = true;
            self.effects.push_back(Effect::Writable { connection: key });
        }
    }
}
