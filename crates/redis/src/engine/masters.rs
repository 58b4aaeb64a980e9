//! The masters: one where Redis stands alone or Sentinels know it, several in a Cluster, each with its connections.
//!
//! The slot map says which master serves which slot; the engine asks any node of the Cluster for it: when a master refuses a command or is away,
//! and every 30 s. The new master that a MOVED error names is used at once. If that is wrong, a command is refused once more; messages keep their order.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringgate_core::id::{Durability, ShardId};

use super::link::Link;
use super::news::News;
use super::{FromWire, MasterId, PROBE_EVERY, SILENCE_MAX, Work};
use crate::command::What;
use crate::options::{Server, Servers};
use crate::outbound::Homes;
use crate::slots::Slots;
use crate::status::set;
use crate::wire::slots;

/// The shortest time between two requests for the slot map, and the longest.
const SLOTS_PAUSE: Duration = Duration::from_millis(200);
const SLOTS_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Master {
    pub(super) link: Link,
    pub(super) news: News,
    pub(super) probe: Probe,
    /// When it is asked again what it knows of the connection for news.
    pub(super) check_due: Instant,
}

pub(super) struct Probe {
    pub(super) due: Instant,
    pub(super) number: u64,
    pub(super) at: Instant,
    pub(super) heard: Instant,
    /// Microseconds until it was answered, and until it came over pub/sub: of the newest one.
    pub(super) round_trip_us: u64,
    pub(super) lag_us: u64,
}

pub(super) struct Masters {
    pub(super) all: BTreeMap<MasterId, Master>,
    pub(super) is_cluster: bool,
    next: u32,
    random: u64,
    slots_wanted: bool,
    slots_asked: bool,
    /// Not before the first, and at the second in any case.
    slots_due: [Instant; 2],
    turn: usize,
}

impl Masters {
    pub(super) fn new(now: Instant, random: u64, servers: &Servers) -> Self {
        let is_cluster = matches!(servers, Servers::Cluster(_));
        let all = BTreeMap::new();
        Masters {
            all,
            is_cluster,
            next: 0,
            random,
            slots_wanted: true,
            slots_asked: false,
            slots_due: [now; 2],
            turn: 0,
        }
    }

    /// One more; none of it is known but its address, and that only in a Cluster.
    pub(super) fn add(&mut self, now: Instant, server: Option<Server>, check_due: Instant) -> MasterId {
        let id = MasterId(self.next);
        self.next += 1;
        let random = self.random.rotate_left(self.next) | 1;
        let probe = Probe { due: now, number: 0, at: now, heard: now, round_trip_us: 0, lag_us: 0 };
        let link = Link::new(now, random, server);
        self.all.insert(id, Master { link, news: News::new(now), probe, check_due });
        id
    }

    pub(super) fn link_mut(&mut self, id: MasterId) -> Option<&mut Link> {
        self.all.get_mut(&id).map(|master| &mut master.link)
    }

    pub(super) fn link(&self, id: MasterId) -> Option<&Link> {
        self.all.get(&id).map(|master| &master.link)
    }

    /// Commands can be sent to it.
    pub(super) fn is_usable(&self, id: MasterId) -> bool {
        self.link(id).is_some_and(Link::is_usable)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.all.values().all(|master| master.link.is_idle())
    }

    /// The least of what the masters have said.
    pub(super) fn durability(&self) -> Durability {
        let mut known = self.all.values().filter(|master| master.link.is_known()).peekable();
        let is_durable = known.peek().is_some() && known.all(|master| master.link.facts.is_durable());
        if is_durable { Durability::Durable } else { Durability::Memory }
    }

    /// The slot map may be out of date: it is to be requested.
    pub(super) fn want_slots(&mut self) {
        self.slots_wanted = true;
    }

    fn at(&self, server: &Server) -> Option<MasterId> {
        let mut all = self.all.iter();
        all.find(|(_, master)| master.link.server.as_ref() == Some(server)).map(|(id, _)| *id)
    }
}

impl<H: Homes> Work<H> {
    pub(super) fn ask_for_slots(&mut self) {
        let Servers::Cluster(nodes) = &self.options.servers else { return };
        let [first, last] = self.masters.slots_due;
        let is_due = self.now >= last || self.masters.slots_wanted && self.now >= first;
        if self.masters.slots_asked || !is_due {
            return;
        }
        (self.masters.slots_asked, self.masters.slots_wanted) = (true, false);
        let known = self.masters.all.values().filter_map(|master| master.link.server.clone());
        let mut all: Vec<Server> = Vec::new();
        for server in known.chain(nodes.iter().cloned()) {
            if !all.contains(&server) {
                all.push(server);
            }
        }
        // Not always the same first, as that one may be the one that knows nothing.
        let turn = self.masters.turn % all.len().max(1);
        all.rotate_left(turn);
        self.masters.turn = self.masters.turn.wrapping_add(1);
        let (options, wires) = (self.options.clone(), self.wires.clone());
        tokio::spawn(async move {
            let told = slots(&options, &all).await;
            let _ = wires.send(FromWire::Slots(told)).await;
        });
    }

    pub(super) fn on_slots(&mut self, told: std::io::Result<Slots>) {
        self.masters.slots_asked = false;
        self.masters.slots_due = [self.now + SLOTS_PAUSE, self.now + SLOTS_EVERY];
        match told {
            Ok(slots) => {
                for partition in 0..self.partitions.count() {
                    self.assign(partition, slots.master(self.keys.slot_of(partition)));
                }
                self.forget_masters();
            }
            Err(error) => {
                if self.masters.all.is_empty() && self.masters.turn <= 1 {
                    tracing::warn!(%error, "no node of the Cluster says who has which slot");
                }
                self.masters.want_slots();
            }
        }
    }

    /// The partition belongs to this master from now on. What is under way is waited for, and its channels are subscribed to anew.
    pub(super) fn assign(&mut self, partition: usize, server: Option<&Server>) {
        let id = server.map(|server| {
            self.masters.at(server).unwrap_or_else(|| {
                let check_due = self.now + self.options.subscriptions_checked_every;
                self.masters.add(self.now, Some(server.clone()), check_due)
            })
        });
        let before = self.partitions.master(partition);
        if before == id {
            return;
        }
        self.partitions.set_master(partition, id);
        self.close_partition(partition);
        if before.is_some() {
            self.forget_subscriptions(partition);
        }
        self.subscribe_partition(partition);
    }

    /// Masters that have no slot any more, once all that they were asked is answered.
    fn forget_masters(&mut self) {
        let (partitions, masters) = (&self.partitions, &mut self.masters);
        masters.all.retain(|id, master| partitions.of(*id).next().is_some() || !master.link.is_idle());
        if let Some(tried) = self.refusals.tried()
            && !self.masters.all.contains_key(&tried)
        {
            self.stores_again();
        }
    }

    pub(super) fn send_probes(&mut self) {
        let due = self.masters.all.iter().filter(|(_, master)| master.link.is_ready() && self.now >= master.probe.due);
        let due: Vec<MasterId> = due.map(|(id, _)| *id).collect();
        for id in due {
            let nodes = self.keys.nodes_partition();
            let open = self.partitions.of(id).find(|at| *at != nodes && self.partitions.is_open(*at));
            let (Some(partition), Some(master)) = (open, self.masters.all.get_mut(&id)) else { continue };
            let probe = &mut master.probe;
            (probe.due, probe.at) = (self.now + PROBE_EVERY, self.now);
            probe.number += 1;
            let what = What::Probe { number: probe.number, at: self.now, partition };
            let command = self.command(ShardId(0), what);
            let mut commands = vec![(None, command)];
            if self.refusals.tried() == Some(id) {
                commands.push((None, self.command(ShardId(0), What::Trial { partition })));
            }
            self.send(id, commands);
        }
    }

    /// Says whether Redis is up, and else what of it is away.
    pub(super) fn say_what_is_up(&mut self) {
        let nodes = self.keys.nodes_partition();
        let (mut silence_max, mut round_trip_us, mut lag_us) = (Duration::ZERO, 0, 0);
        let (mut texts, mut with_master, mut serves) = (Vec::new(), 0, false);
        for (id, master) in &self.masters.all {
            let of: Vec<usize> = self.partitions.of(*id).collect();
            with_master += of.len();
            if of.is_empty() {
                continue;
            }
            let is_probed = of.iter().any(|partition| *partition != nodes);
            let silence = if is_probed { self.now.duration_since(master.probe.heard) } else { Duration::ZERO };
            silence_max = silence_max.max(silence);
            round_trip_us = round_trip_us.max(master.probe.round_trip_us);
            lag_us = lag_us.max(master.probe.lag_us);
            let at = master.link.server.as_ref().map(|server| format!(" at {server}")).unwrap_or_default();
            let all = self.partitions.count();
            let refusing = of.iter().filter(|partition| self.partitions.refuses(**partition, self.now)).count();
            if !master.link.is_ready() {
                texts.push(format!("Redis{at} does not answer, {} of {all} partitions are away", of.len()));
            } else if !master.news.is_ready() || silence >= SILENCE_MAX {
                texts.push(format!("Redis{at} tells no news, of {} of {all} partitions", of.len()));
            } else if refusing > 0 {
                texts.push(format!("Redis{at} refuses what is about {refusing} of {all} partitions"));
                serves |= refusing < of.len();
            } else {
                serves |= is_probed;
            }
        }
        let all = self.partitions.count();
        if with_master < all {
            texts.push(format!("no master of the Cluster is known for {} of {all} partitions", all - with_master));
        }
        self.status.up.store(texts.is_empty(), Ordering::Relaxed);
        self.status.serves.store(serves, Ordering::Relaxed);
        self.status.set_away(texts.join("; "));
        set(&self.status.probe_age_ms, silence_max.as_millis() as u64);
        set(&self.status.round_trip_us, round_trip_us);
        set(&self.status.probe_us, lag_us);
        if self.masters.is_cluster && !texts.is_empty() {
            self.masters.want_slots();
        }
    }
}
