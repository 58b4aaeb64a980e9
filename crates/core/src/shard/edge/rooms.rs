//! Rooms, on the side of the sessions: joining, leaving, catching up.
//!
//! A session may speak of a room before the home has answered its Subscribe: it counts as a member at once. Only an
//! Unsubscribe waits for the answer, and the connection with it (see `receive`): requests take effect in their order.

use super::catch_up::{CatchUpRoom, settle};
use super::members::{Member, renumber};
use crate::close::{CloseReason, ErrorCode};
use crate::id::{ConnectionKey, LocalRoomKey, Now, Position, Recover};
use crate::metrics::DropReason;
use crate::session::{Membership, Verb};
use crate::shard::letter::{Subscribe, Subscribed};
use crate::shard::{Shard, ToHome};
use crate::topics::Gap;
use crate::wire::encode;

/// What a Subscribe, or a room of Connect, asks for.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) request: u32,
    pub(super) room: &'a str,
    pub(super) since: Option<Position>,
    pub(super) recover: Recover,
}

impl Shard {
    /// A client joins a room. Rooms of a Connect do not count among its requests in flight, and are never refused because
    /// much waits: the shell verifies no token then.
    pub(super) fn on_subscribe(&mut self, key: ConnectionKey, wish: Wish<'_>, of_connect: bool, now: Now) {
        let Wish { request, room: name, .. } = wish;
        let namespace = match self.session_may(key, Verb::Subscribe, name) {
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
        self.ask(home, ToHome::Subscribe(Box::new(subscribe)));
    }

    /// The home has counted the session in.
    pub(in crate::shard) fn on_subscribed(&mut self, subscribed: &Subscribed, now: Now) {
        self.asked -= 1;
        let Subscribed { to: key, local, room: at_home, .. } = *subscribed;
        let Some(room) = self.rooms.rooms.get_mut(local) else { return };
        room.pending -= 1;
        room.at_home = Some(at_home);
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
            // The session has ended, perhaps because it was taken over: then the newer session is about to join.
            let from = self.address(key);
            self.post_to_home(self.home_of_room(&name), ToHome::Unsubscribe { room: at_home, from, taken_over: true });
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
            starts_over: false,
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
        if self.session_may(key, Verb::Subscribe, &name).is_err() {
            // A Refresh took the right away while the request was in flight.
            self.leave_and_say_so(key, local, 0, &name, ErrorCode::PermissionDenied.code(), now);
        }
        self.wake_parked(key);
    }

    /// The home cannot count the session in, for now.
    pub(in crate::shard) fn on_not_subscribed(
        &mut self,
        key: ConnectionKey,
        request: u32,
        local: LocalRoomKey,
        counted: bool,
        now: Now,
    ) {
        self.asked -= 1;
        let Some(room) = self.rooms.rooms.get_mut(local) else { return };
        room.pending -= 1;
        let name = room.name.clone();
        if let Some(session) = self.session_mut(key) {
            session.rooms.refused(local);
            if counted {
                self.answered(key);
            }
            self.refuse_room(key, request, ErrorCode::Internal, &name, now);
            self.wake_parked(key);
        }
        self.rooms.forget_if_unused(local);
    }

    /// Ends a membership and tells the client: an answer, or with another code than 0 a push.
    fn leave_and_say_so(
        &mut self,
        key: ConnectionKey,
        room: LocalRoomKey,
        request: u32,
        name: &str,
        code: u16,
        now: Now,
    ) {
        let membership = self.session_mut(key).and_then(|session| session.rooms.remove(room));
        if let Some(membership) = membership {
            self.leave_room(key, membership, false);
        }
        self.reply_in_order(key, now, |encoder, out| encoder.unsubscribed(out, request, name, code));
    }

    /// A client leaves a room.
    pub(super) fn on_unsubscribe(&mut self, key: ConnectionKey, request: u32, name: &str, now: Now) {
        let room = self.rooms.find(name);
        let Some(session) = self.session_mut(key) else { return };
        match room.filter(|room| session.rooms.find(*room).is_some()) {
            Some(room) => self.leave_and_say_so(key, room, request, name, 0, now),
            None => self.refuse(key, request, ErrorCode::NotSubscribed, now),
        }
    }

    /// The session's rights have changed: takes away the rooms that it may not be in any more. Those that it is about to
    /// join are checked when their homes have answered.
    pub(super) fn take_rooms_away(&mut self, key: ConnectionKey, now: Now) {
        let Some(session) = self.session_mut(key) else { return };
        for membership in session.rooms.as_slice().to_vec() {
            let Some(name) = self.rooms.rooms.get(membership.room).map(|room| room.name.clone()) else { continue };
            if membership.index.is_some() && self.session_may(key, Verb::Subscribe, &name).is_err() {
                self.leave_and_say_so(key, membership.room, 0, &name, ErrorCode::PermissionDenied.code(), now);
            }
        }
    }

    /// Takes a session out of a room's members and tells the home. A membership that the home has not answered yet
    /// is taken back when the answer comes.
    pub(super) fn leave_room(&mut self, key: ConnectionKey, membership: Membership, taken_over: bool) {
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
            renumber(&mut self.connections, moved, membership.room, index);
        } else {
            *member = Member {
                connection: None,
                seen: 0,
                best: false,
                behind: 0,
                lagging: false,
                catching: false,
                starts_over: false,
            };
            room.holes += 1;
        }
        let (name, at_home) = (room.name.clone(), room.at_home);
        let from = self.address(key);
        if let Some(room) = at_home {
            self.post_to_home(self.home_of_room(&name), ToHome::Unsubscribe { room, from, taken_over });
        }
        self.rooms.forget_if_unused(membership.room);
    }

    /// A room's home brings what a lagging member was missing.
    pub(in crate::shard) fn on_room_caught_up(&mut self, key: ConnectionKey, local: LocalRoomKey, gap: Gap, now: Now) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.is_ready()) else { return };
        let Some(session) = connection.session.as_mut() else { return };
        let index = session.rooms.find(local).and_then(|membership| membership.index);
        let Some(room) = self.rooms.rooms.get_mut(local) else { return };
        let Some(member) = index.and_then(|index| room.members.get_mut(index as usize)) else { return };
        if !member.catching || member.starts_over {
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
}
