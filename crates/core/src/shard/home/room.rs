//! A room at its home: members that join and leave, and broadcasts to the shards where they are.

use bytes::Bytes;
use hashbrown::HashSet;

use super::Topic;
use crate::id::{Address, Durability, Now, Recover, RoomKey, ShardId};
use crate::limits::Engine;
use crate::metrics::Recovery;
use crate::outbox::{Arrival, Delivery};
use crate::shard::letter::{Subscribe, Subscribed};
use crate::shard::{Credit, MemberChange, Shard, ToEdge, Work};
use crate::topics::{MemberName, Room};

impl Shard {
    /// A session joins a room.
    pub(in crate::shard) fn on_subscribe_at_home(&mut self, subscribe: Subscribe, now: Now) {
        let Subscribe { room: name, namespace, from, user, device, request, since, recover, local, counted } =
            subscribe;
        let known = self.homes.rooms.find(&name);
        let key = known.unwrap_or_else(|| self.homes.make_room(name, namespace, now));
        self.homes.trim(Topic::Room(key), now);
        let Some(room) = self.homes.rooms.get_mut(key) else { return };
        let (full_name, is_named) = (room.name.clone(), room.names_members());
        let comes = room.join(MemberName { address: from, user: user.clone(), device: device.clone() }, local);
        let position = room.log.position();
        // What other nodes have published in a room that keeps nothing may not have been heard of.
        let hears_all = self.settings.engine != Engine::Shared
            || self.settings.namespaces.get(namespace).is_some_and(|n| n.durability != Durability::Ephemeral);
        let reached = since.filter(|since| hears_all && room.recovers(*since));
        if since.is_some() {
            self.metrics.recoveries[Recovery::of(reached.is_some())].increment();
        }
        let subscribed = Subscribed {
            to: from.connection,
            request,
            local,
            room: key,
            recovered: since.is_none() || reached.is_some(),
            position,
            start: match (since, reached) {
                (_, Some(reached)) => reached.offset,
                (Some(_), None) if recover == Recover::Best => room.log.lost(),
                _ => position.offset,
            },
            counted,
        };
        self.post_to_edge(from.shard, ToEdge::Subscribed(Box::new(subscribed)));
        if self.settings.engine == Engine::Shared {
            let (session, member) = (from.to_u64(), Some((user.clone(), device.clone())));
            self.tell_member(&full_name, is_named.then_some(MemberChange { session, member }));
        }
        if comes {
            self.announce(key, true, Some(from), &user, &device);
        }
    }

    /// A session has left a room.
    pub(in crate::shard) fn on_unsubscribe_at_home(&mut self, key: RoomKey, from: Address, taken_over: bool, now: Now) {
        self.homes.reads.forget(Topic::Room(key), from);
        let Some(room) = self.homes.rooms.get_mut(key) else { return };
        let (name, is_named) = (room.name.clone(), room.names_members());
        let (namespace, left) = (room.namespace, room.leave(from, taken_over, now.mono_ms()));
        if room.expects() {
            self.homes.expecting.insert(key);
        }
        if self.settings.engine == Engine::Shared {
            self.tell_member(&name, is_named.then(|| MemberChange { session: from.to_u64(), member: None }));
        }
        let Some(room) = self.homes.rooms.get(key) else { return };
        // Members of other nodes are told, too.
        let (is_left, is_empty) = (room.count() == 0, room.log.is_empty());
        if let Some(member) = left.filter(|_| !is_left || self.settings.engine == Engine::Shared) {
            self.announce(key, false, Some(from), &member.user, &member.device);
        }
        if is_left && (is_empty || self.settings.namespaces.get(namespace).is_none_or(|n| n.vanish_when_empty)) {
            self.homes.forget_room(key, now);
        }
    }

    /// Announces that devices have left which were taken over and did not join again in time.
    pub(in crate::shard) fn announce_not_come_back(&mut self, now: Now) {
        if self.homes.expecting.is_empty() {
            return;
        }
        let none = HashSet::with_hasher(self.homes.expecting.hasher().clone());
        let mut expecting = core::mem::replace(&mut self.homes.expecting, none);
        expecting.retain(|key| {
            while let Some((user, device)) =
                self.homes.rooms.get_mut(*key).and_then(|room| room.not_come_back(now.mono_ms()))
            {
                self.announce(*key, false, None, &user, &device);
            }
            self.homes.rooms.get(*key).is_some_and(Room::expects)
        });
        self.homes.expecting = expecting;
    }

    /// Tells a room's members which device came or went. A hint: it is left out where the ways to the members are full.
    fn announce(&mut self, room: RoomKey, joined: bool, without: Option<Address>, user: &str, device: &str) {
        let Some(name) = self.homes.rooms.get(room).map(|room| room.name.clone()) else { return };
        let mut frame = Vec::new();
        self.encoder.member_event(&mut frame, joined, &name, user, device);
        if self.has_no_way_on(Some(Topic::Room(room)), frame.len()).is_some() {
            return self.metrics.announcements_dropped.increment();
        }
        let frame = Bytes::from(frame);
        if self.settings.engine == Engine::Shared {
            self.relay(name, frame.clone(), without);
        }
        self.fan_out_from_home(room, 0, &Delivery { frame, arrival: Arrival::UNTIMED }, without);
    }

    /// One letter to each shard that has members. What is in no log has offset 0.
    pub(super) fn fan_out_from_home(
        &mut self,
        room: RoomKey,
        offset: u64,
        delivery: &Delivery,
        without: Option<Address>,
    ) {
        let newest = self.homes.rooms.get(room).map_or(0, |room| room.log.position().offset);
        let (logged, offset) = if offset == 0 { (false, newest) } else { (true, offset) };
        let mut index = 0;
        while let Some(members) = self.homes.rooms.get_mut(room).and_then(|room| room.shard_mut(index)) {
            index += 1;
            let work = Work::of(members.count, delivery.frame.len());
            members.owed += work.deliveries;
            let (local, to, delivery, home) = (members.local, members.shard, delivery.clone(), self.id);
            self.ways.owe(to, work);
            self.post_to_edge(to, ToEdge::Fanout { local, offset, delivery, without, home, room, logged, work });
        }
    }

    /// A shard has worked off broadcasts of rooms whose home is here.
    pub(in crate::shard) fn on_credit(&mut self, from: ShardId, credit: &Credit) {
        self.ways.settle(from, credit.work);
        for (room, deliveries) in &credit.rooms {
            // The last member there may have left, and others come: what those owe is less than what was given back then.
            if let Some(members) = self.homes.rooms.get_mut(*room).and_then(|room| room.members_on_mut(from)) {
                members.owed = members.owed.saturating_sub(*deliveries);
            }
        }
    }
}
