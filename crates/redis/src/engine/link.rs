//! The connection to a master for commands: what is under way on it, and what happens when it is lost.
//!
//! Phases: away (a new connection is due) - connecting - ready. What is asked over it, and in which order, is the business of the
//! partitions; a connection that finds that its server has forgotten the scripts waits for all answers, and loads them first.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use ringgate_core::id::ShardId;
use ringgate_core::shard::Stored;

use super::{FromWire, MasterId, Work};
use crate::command::{Command, Context, What};
use crate::options::Server;
use crate::outbound::Homes;
use crate::scripts::{Hashes, Script};
use crate::setup::{ClientName, Facts, Ready, ready};
use crate::status::add;
use crate::wire::{self, Lines};

/// Commands under way at once on a connection, and their bytes.
const IN_FLIGHT_MAX: usize = 1024;
const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Waits between attempts to connect: doubled from the first to the last, and up to half of it longer or shorter.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(1300);
/// How much later than the time for an answer a claim is still carried out: the clock of Redis is known up to a round trip.
const CLAIM_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Phase {
    Away { due: Instant },
    Connecting,
    Ready,
}

pub(super) struct Link {
    phase: Phase,
    /// Grows with each connection: what an older one says is not heard any more.
    life: u64,
    lines: Option<Lines>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// Appends that are stored, and that replicas may not have yet, with their partitions.
    unreplicated: Vec<(usize, Command, Stored)>,
    /// Scripts are to be loaded once nothing is under way.
    is_forgetful: bool,
    /// Nothing of the connection before is done by Redis any more.
    pub(super) is_alone: bool,
    away_since: Option<Instant>,
    attempts: u32,
    random: u64,
    client: Option<ClientName>,
    /// Where it is, or was last; none before the first connection where Sentinels are asked.
    pub(super) server: Option<Server>,
    hashes: Hashes,
    pub(super) facts: Facts,
    /// The server's clock in Unix milliseconds, and when it was read.
    clock: Option<(Instant, u64)>,
    connected_before: bool,
    /// Partitions that have something to send, each once.
    listed: VecDeque<usize>,
}

#[derive(Debug)]
struct InFlight {
    /// None of a command that is about the connection.
    partition: Option<usize>,
    command: Command,
    sent_at: Instant,
    bytes: usize,
    answers: usize,
}

impl Link {
    pub(super) fn new(now: Instant, random: u64, server: Option<Server>) -> Self {
        Link {
            phase: Phase::Away { due: now },
            life: 0,
            lines: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            unreplicated: Vec::new(),
            is_forgetful: false,
            is_alone: true,
            away_since: Some(now),
            attempts: 0,
            random,
            client: None,
            server,
            hashes: Hashes::default(),
            facts: Facts::default(),
            clock: None,
            connected_before: false,
            listed: VecDeque::new(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Commands of partitions can be sent.
    pub(super) fn is_usable(&self) -> bool {
        self.is_ready() && !self.is_forgetful
    }

    /// Its server has said what it is.
    pub(super) fn is_known(&self) -> bool {
        self.connected_before
    }

    pub(super) fn is_idle(&self) -> bool {
        self.unreplicated.is_empty() && self.in_flight.is_empty()
    }

    pub(super) fn is_life(&self, life: u64) -> bool {
        self.life == life && self.lines.is_some()
    }

    /// The partition has something to send. It says so once, until it is asked for it.
    pub(super) fn list(&mut self, partition: usize) {
        self.listed.push_back(partition);
    }

    /// The command whose answer comes next, with its partition, once it has all of its answers.
    pub(super) fn answered(&mut self) -> Option<(Option<usize>, Command)> {
        let next = self.in_flight.front_mut()?;
        next.answers = next.answers.saturating_sub(1);
        if next.answers > 0 {
            return None;
        }
        let InFlight { partition, command, bytes, .. } = self.in_flight.pop_front()?;
        self.in_flight_bytes -= bytes;
        Some((partition, command))
    }

    pub(super) fn expects_answer(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// A wait before the next attempt. An xorshift is random enough to keep nodes apart.
    fn backoff(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let wait = (BACKOFF_FIRST * (1 << self.attempts.min(10))).min(BACKOFF_MAX);
        self.attempts += 1;
        wait / 2 + wait.mul_f64(self.random as f64 / u64::MAX as f64)
    }

    /// It does what it is asked for: the next connection need not wait for long. It has said what its clock shows.
    pub(super) fn is_well(&mut self, now: Instant, clock_ms: Option<u64>) {
        self.attempts = 0;
        self.clock = clock_ms.map(|ms| (now, ms)).or(self.clock);
    }

    /// The clock of the server in Unix milliseconds, or up to a round trip behind it.
    fn clock_ms(&self, now: Instant) -> Option<u64> {
        self.clock.map(|(at, ms)| ms + now.saturating_duration_since(at).as_millis() as u64)
    }

    /// Refused by a server that does nothing for now: it comes before all that is under way.
    pub(super) fn put_back(&mut self, partition: Option<usize>, command: Command) {
        self.in_flight.push_front(InFlight { partition, command, sent_at: Instant::now(), bytes: 0, answers: 1 });
    }

    /// The server has no scripts any more.
    pub(super) fn has_no_scripts(&mut self) {
        self.is_forgetful = true;
    }

    /// Stored, and told once so many replicas have it.
    pub(super) fn wait_for_replicas(&mut self, partition: usize, command: Command, stored: Stored) {
        self.unreplicated.push((partition, command, stored));
    }

    pub(super) fn take_unreplicated(&mut self) -> Vec<(usize, Command, Stored)> {
        std::mem::take(&mut self.unreplicated)
    }
}

impl<H: Homes> Work<H> {
    pub(super) fn connect_links(&mut self) {
        for (id, master) in &mut self.masters.all {
            let link = &mut master.link;
            match link.phase {
                Phase::Away { due } if self.now >= due => {}
                _ => continue,
            }
            link.phase = Phase::Connecting;
            link.life += 1;
            let (options, before, wires) = (self.options.clone(), link.client.clone(), self.wires.clone());
            // Sentinels are asked each time.
            let server = self.masters.is_cluster.then(|| link.server.clone()).flatten();
            let (id, life) = (*id, link.life);
            tokio::spawn(async move {
                let reach = async {
                    let server = match server {
                        Some(server) => server,
                        None => wire::master(&options).await?,
                    };
                    ready(&options, &server, before.as_ref()).await
                };
                // All steps together, so that a server that answers a few of them only does not hold it up.
                let ready = tokio::time::timeout(options.connect_timeout * 2, reach).await;
                let ready = ready.unwrap_or_else(|late| Err(late.into()));
                let _ = wires.send(FromWire::Ready(id, life, Box::new(ready))).await;
            });
        }
    }

    pub(super) fn on_ready(&mut self, id: MasterId, life: u64, result: io::Result<Ready>) {
        let Some(master) = self.masters.all.get_mut(&id) else { return };
        let link = &mut master.link;
        if link.life != life {
            return;
        }
        let ready = match result {
            Ok(ready) => ready,
            Err(error) => {
                if link.attempts == 0 {
                    tracing::warn!(%error, "Redis is away");
                }
                link.away_since.get_or_insert(self.now);
                let wait = link.backoff();
                link.phase = Phase::Away { due: self.now + wait };
                return self.masters.want_slots();
            }
        };
        let Ready { wire, server, client, hashes, facts, clock, is_alone } = ready;
        let away_since = link.away_since.take();
        if std::mem::replace(&mut link.connected_before, true) {
            add(&self.status.reconnects, 1);
            let away_ms = away_since.map_or(0, |since| self.now.duration_since(since).as_millis() as u64);
            tracing::info!(%server, away_ms, "Redis is back");
        }
        let moved = link.server.replace(server.clone()).is_some_and(|before| before != server);
        link.lines = Some(wire.run(self.wires.clone(), move |answers| FromWire::Answers(id, life, answers)));
        (link.client, link.hashes, link.facts, link.is_alone) = (Some(client), hashes, facts, is_alone);
        (link.clock, link.is_forgetful, link.phase) = (Some(clock), false, Phase::Ready);
        if self.partitions.master(self.keys.nodes_partition()) == Some(id) {
            self.nodes.set_clock(clock.0, clock.1);
        }
        master.probe.due = self.now;
        // Another server tells other news.
        self.connect_news(id, moved);
        self.open_partitions();
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn pump(&mut self) {
        self.open_partitions();
        let ids: Vec<MasterId> = self.masters.all.keys().copied().collect();
        ids.into_iter().for_each(|id| self.pump_one(id));
    }

    fn pump_one(&mut self, id: MasterId) {
        let Some(link) = self.masters.link_mut(id) else { return };
        if !link.is_ready() {
            return;
        }
        if link.is_forgetful {
            if !link.in_flight.is_empty() {
                return;
            }
            link.is_forgetful = false;
            let load = |script: &Script| (None, self.command(ShardId(0), What::LoadScript(*script)));
            let loads = Script::ALL.iter().map(load).collect();
            self.send(id, loads);
            self.open_partitions();
        }
        let Some(link) = self.masters.link_mut(id) else { return };
        // One wait at a time: if replicas are away, each takes long, and behind several the connection would seem to be lost.
        let waits = |under_way: &InFlight| matches!(under_way.command.what, What::Replicas { .. });
        if self.options.replicas_min > 0 && link.in_flight.iter().any(waits) {
            return;
        }
        let mut room = IN_FLIGHT_MAX.saturating_sub(link.in_flight.len());
        let mut bytes = IN_FLIGHT_BYTES_MAX.saturating_sub(link.in_flight_bytes);
        let mut commands = Vec::new();
        while room > 0
            && bytes > 0
            && let Some(partition) = link.listed.pop_front()
        {
            let Some((command, more)) = self.partitions.next(partition, id) else { continue };
            room -= 1;
            bytes = bytes.saturating_sub(command.bytes());
            commands.push((Some(partition), command));
            if more {
                link.listed.push_back(partition);
            }
        }
        let least = self.options.replicas_min;
        let stores = |(_, command): &(_, Command)| matches!(command.what, What::Append { .. });
        if least > 0 && (commands.iter().any(stores) || !link.unreplicated.is_empty()) {
            let wait_ms = (self.options.command_timeout.as_millis() as u64 / 2).max(1);
            commands.push((None, self.command(ShardId(0), What::Replicas { least, wait_ms })));
        }
        self.send(id, commands);
    }

    /// Sends commands, each with its partition, over a connection that is ready.
    pub(super) fn send(&mut self, id: MasterId, commands: Vec<(Option<usize>, Command)>) {
        let durability = self.masters.durability();
        let Some(link) = self.masters.link_mut(id) else { return };
        if commands.is_empty() {
            return;
        }
        let mut out = Vec::new();
        // By then the connection is given up if it has not answered.
        let answered_by = (self.options.command_timeout + CLAIM_GRACE).as_millis() as u64;
        let claim_until_ms = link.clock_ms(self.now).map_or(0, |now| now + answered_by);
        add(&self.status.commands, commands.len() as u64);
        for (partition, command) in commands {
            let epoch = match &command.what {
                What::Append { record, .. } => record.position.epoch.max(self.epochs.of(&record.topic)),
                What::Load { topic } => {
                    self.interests.get(topic).map_or(0, |(_, interest)| interest.known).max(self.epochs.of(topic))
                }
                What::Generation { partition } => self.partitions.heard(*partition, &link.facts.replication_id),
                _ => 0,
            };
            let context = Context {
                keys: &self.keys,
                settings: &self.settings,
                hashes: &link.hashes,
                least_epoch: partition.map_or(0, |partition| self.partitions.least_epoch(partition)),
                replication_id: &link.facts.replication_id,
                run: self.identity.run,
                seed: self.identity.seed,
                number: self.identity.number,
                durability,
                alive: self.nodes.alive(),
                epoch,
                claim_until_ms,
            };
            let before = out.len();
            let answers = command.put(&context, &mut out);
            let bytes = out.len() - before;
            link.in_flight_bytes += bytes;
            link.in_flight.push_back(InFlight { partition, command, sent_at: self.now, bytes, answers });
            if let Some(partition) = partition {
                self.partitions.sent(partition);
            }
        }
        if let Some(lines) = &link.lines {
            lines.send(out.into());
        }
    }

    /// The connection is of no use any more: what was under way is asked again, over the next one or of another master, before what waits.
    pub(super) fn lose_link(&mut self, id: MasterId, reason: &str) {
        let Some(link) = self.masters.link_mut(id) else { return };
        if link.lines.take().is_none() {
            return;
        }
        let server = link.server.as_ref().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(reason, server, under_way = link.in_flight.len(), "the connection to Redis is lost");
        link.away_since.get_or_insert(self.now);
        let wait = link.backoff();
        link.phase = Phase::Away { due: self.now + wait };
        (link.in_flight_bytes, link.is_forgetful) = (0, false);
        link.listed.clear();
        let under_way = std::mem::take(&mut link.in_flight);
        let stored = std::mem::take(&mut link.unreplicated);
        // What is stored, and what was refused, came before all that is under way.
        self.partitions
            .put_stored_back(stored.into_iter().map(|(partition, command, _)| (partition, command)).collect());
        for InFlight { partition, command, .. } in under_way {
            if let Some(partition) = partition {
                self.partitions.answered(partition);
                self.ask_again(partition, command, true);
            }
        }
        self.close_partitions_of(id);
        self.say_what_is_up();
        self.masters.want_slots();
    }

    /// A connection that does not answer is lost.
    pub(super) fn give_up_silent_links(&mut self) {
        let limit = self.options.command_timeout;
        let is_silent = |link: &Link| {
            link.in_flight.front().is_some_and(|in_flight| self.now.duration_since(in_flight.sent_at) > limit)
        };
        let silent = self.masters.all.iter().filter(|(_, master)| is_silent(&master.link));
        let silent: Vec<MasterId> = silent.map(|(id, _)| *id).collect();
        silent.into_iter().for_each(|id| self.lose_link(id, "no answer in time"));
    }
}
