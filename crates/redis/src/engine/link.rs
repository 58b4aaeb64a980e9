//! The connection for commands: its queue, what is under way, and what happens when it is lost.
//!
//! Phases: away (a new connection is due) - connecting - deciding (what was under way without a client message id when the connection
//! was lost is looked for) - ready - reloading (Redis has forgotten its scripts: what it refused for that is asked again, in order).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringgate_core::id::{Durability, ShardId};
use ringgate_core::shard::{EngineUnavailable, Event, Stored};

use super::{FromWire, Work};
use crate::command::{Command, Context, What};
use crate::options::Server;
use crate::outbound::Homes;
use crate::scripts::{Hashes, Script};
use crate::setup::{ClientName, Facts, Ready, ready};
use crate::status::add;
use crate::wire::Lines;

/// Commands under way at once, and their bytes.
const IN_FLIGHT_MAX: usize = 1024;
const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Waits between attempts to connect: doubled from the first to the last, and up to half of it longer or shorter.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(1300);
/// How much later than the time for an answer a claim is still carried out: the clock of Redis is known up to a round trip.
const CLAIM_GRACE: Duration = Duration::from_secs(1);
/// How long it may take to find out whether a message was stored whose answer was lost, beyond its deadline. A publisher
/// that has given it a client message id may repeat it, and gets the answer then.
const UNDECIDED_MAX: Duration = Duration::from_secs(30);
const UNDECIDED_WITH_ID_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Phase {
    Away { due: Instant },
    Connecting,
    Deciding,
    Ready,
    Reloading,
}

pub(super) struct Link {
    phase: Phase,
    /// Grows with each connection: what an older one says is not heard any more.
    life: u64,
    lines: Option<Lines>,
    queue: VecDeque<Command>,
    /// Refused because scripts were not loaded.
    redo: VecDeque<Command>,
    in_flight: VecDeque<InFlight>,
    /// Appends that are stored, and that replicas may not have yet.
    pub(super) unreplicated: Vec<(Command, Stored)>,
    in_flight_bytes: usize,
    finding: usize,
    is_alone: bool,
    away_since: Option<Instant>,
    attempts: u32,
    random: u64,
    client: Option<ClientName>,
    pub(super) server: Option<Server>,
    hashes: Hashes,
    least_epochs: Vec<u64>,
    pub(super) facts: Facts,
    connected_before: bool,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) command: Command,
    sent_at: Instant,
    bytes: usize,
    answers: usize,
}

impl Link {
    pub(super) fn new(now: Instant, random: u64) -> Self {
        Link {
            phase: Phase::Away { due: now },
            life: 0,
            lines: None,
            queue: VecDeque::new(),
            redo: VecDeque::new(),
            in_flight: VecDeque::new(),
            unreplicated: Vec::new(),
            in_flight_bytes: 0,
            finding: 0,
            is_alone: true,
            away_since: Some(now),
            attempts: 0,
            random,
            client: None,
            server: None,
            hashes: Hashes::default(),
            least_epochs: Vec::new(),
            facts: Facts::default(),
            connected_before: false,
        }
    }

    pub(super) fn push(&mut self, command: Command) {
        self.queue.push_back(command);
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Reloading)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.unreplicated.is_empty() && self.redo.is_empty() && self.in_flight.is_empty()
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.redo.len()
    }

    pub(super) fn away_for(&self, now: Instant) -> Duration {
        self.away_since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    pub(super) fn is_life(&self, life: u64) -> bool {
        self.life == life && self.lines.is_some()
    }

    pub(super) fn durability(&self) -> Durability {
        if self.facts.is_durable() { Durability::Durable } else { Durability::Memory }
    }

    /// The command whose answer comes next, once it has all of its answers.
    pub(super) fn answered(&mut self) -> Option<Command> {
        let next = self.in_flight.front_mut()?;
        next.answers = next.answers.saturating_sub(1);
        if next.answers > 0 {
            return None;
        }
        let InFlight { command, bytes, .. } = self.in_flight.pop_front()?;
        self.in_flight_bytes -= bytes;
        Some(command)
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

    /// An append that was found to be stored: it needs not be asked again.
    pub(super) fn take_append(&mut self, shard: ShardId, number: u64) -> Option<Command> {
        let is_it = |command: &Command| {
            command.shard == shard && matches!(command.what, What::Append { ticket, .. } if ticket == number)
        };
        let at = self.queue.iter().position(is_it)?;
        self.queue.remove(at)
    }

    /// It may be asked again: Redis has not done it, and never will over the connection that was lost.
    pub(super) fn mark_decided(&mut self, shard: ShardId, number: u64) {
        for command in &mut self.queue {
            if command.shard == shard && matches!(command.what, What::Append { ticket, .. } if ticket == number) {
                command.is_undecided = false;
            }
        }
    }

    /// It does what it is asked for: the next connection need not wait for long.
    pub(super) fn is_well(&mut self) {
        self.attempts = 0;
    }

    pub(super) fn is_alone(&self) -> bool {
        self.is_alone
    }

    pub(super) fn found_one(&mut self) {
        self.finding = self.finding.saturating_sub(1);
        if self.finding == 0 && matches!(self.phase, Phase::Deciding) {
            self.phase = Phase::Ready;
        }
    }

    /// Refused: it comes before all that is under way.
    pub(super) fn put_back(&mut self, command: Command) {
        self.in_flight.push_front(InFlight { command, sent_at: Instant::now(), bytes: 0, answers: 1 });
    }

    pub(super) fn redo(&mut self, command: Command) {
        self.phase = Phase::Reloading;
        self.redo.push_back(command);
    }
}

impl<H: Homes> Work<H> {
    pub(super) fn connect_if_due(&mut self) {
        match self.link.phase {
            Phase::Away { due } if self.now >= due => {}
            _ => return,
        }
        self.link.phase = Phase::Connecting;
        self.link.life += 1;
        let (options, keys, before) = (self.options.clone(), self.keys.clone(), self.link.client.clone());
        let (life, wires) = (self.link.life, self.wires.clone());
        tokio::spawn(async move {
            // All steps together, so that a server that answers a few of them only does not hold it up.
            let limit = options.connect_timeout * 2;
            let ready = tokio::time::timeout(limit, ready(&options, &keys, before.as_ref())).await;
            let ready = ready.unwrap_or_else(|late| Err(late.into()));
            let _ = wires.send(FromWire::Ready(life, Box::new(ready))).await;
        });
    }

    pub(super) fn on_ready(&mut self, life: u64, result: std::io::Result<Ready>) {
        if self.link.life != life {
            return;
        }
        let ready = match result {
            Ok(ready) => ready,
            Err(error) => {
                if self.link.attempts == 0 {
                    tracing::warn!(%error, "Redis is away");
                }
                self.link.away_since.get_or_insert(self.now);
                let wait = self.link.backoff();
                self.link.phase = Phase::Away { due: self.now + wait };
                return;
            }
        };
        let Ready { wire, server, client, hashes, facts, least_epochs, is_alone } = ready;
        if std::mem::replace(&mut self.link.connected_before, true) {
            add(&self.status.reconnects, 1);
            tracing::info!(%server, away_ms = self.link.away_for(self.now).as_millis() as u64, "Redis is back");
        }
        let moved = self.link.server.replace(server.clone()).is_some_and(|before| before != server);
        let link = &mut self.link;
        link.lines = Some(wire.run(self.wires.clone(), move |answers| FromWire::Answers(life, answers)));
        (link.client, link.hashes, link.facts, link.least_epochs) = (Some(client), hashes, facts, least_epochs);
        (link.away_since, link.is_alone) = (None, is_alone);
        (self.probe.due, self.lease_due) = (self.now, self.now);
        self.leases_answered = self.leases_asked;
        self.decide();
        // Another server tells other news.
        self.connect_news(moved);
    }

    /// Looks for messages without a client message id that may have been stored; those with one are simply asked again.
    fn decide(&mut self) {
        let mut finds = Vec::new();
        for command in &self.link.queue {
            if let What::Append { ticket, record, message } = &command.what
                && command.is_undecided
                && record.key.is_none()
            {
                let what = What::Find { ticket: *ticket, topic: record.topic.clone(), message: message.clone() };
                finds.push(Command { shard: command.shard, what, deadline: command.deadline, is_undecided: false });
            }
        }
        self.link.finding = finds.len();
        self.link.phase = if finds.is_empty() { Phase::Ready } else { Phase::Deciding };
        self.send(finds);
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn pump(&mut self) {
        if matches!(self.link.phase, Phase::Reloading) && self.link.in_flight.is_empty() {
            while let Some(command) = self.link.redo.pop_back() {
                self.link.queue.push_front(command);
            }
            self.link.phase = Phase::Ready;
            let load = |script: &Script| self.command(ShardId(0), What::LoadScript(*script));
            let loads = Script::ALL.iter().map(load).collect();
            self.send(loads);
        }
        if !matches!(self.link.phase, Phase::Ready) {
            return;
        }
        let mut room = IN_FLIGHT_MAX.saturating_sub(self.link.in_flight.len());
        let mut bytes = IN_FLIGHT_BYTES_MAX.saturating_sub(self.link.in_flight_bytes);
        let mut commands = Vec::new();
        while room > 0 && bytes > 0 {
            let Some(command) = self.link.queue.pop_front() else { break };
            room -= 1;
            bytes = bytes.saturating_sub(command.bytes());
            commands.push(command);
        }
        let least = self.options.replicas_min;
        if least > 0 && commands.iter().any(|command| matches!(command.what, What::Append { .. })) {
            let wait_ms = (self.options.command_timeout.as_millis() as u64 / 2).max(1);
            commands.push(self.command(ShardId(0), What::Replicas { least, wait_ms }));
        }
        self.send(commands);
    }

    fn send(&mut self, commands: Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let mut out = Vec::new();
        // By then the connection is given up if it has not answered.
        let answered_by = (self.options.command_timeout + CLAIM_GRACE).as_millis() as u64;
        let claim_until_ms = self.nodes.redis_ms(self.now).map_or(0, |now| now + answered_by);
        add(&self.status.commands, commands.len() as u64);
        for command in commands {
            let epoch = match &command.what {
                What::Append { record, .. } if record.position.epoch != 0 => record.position.epoch,
                What::Append { record, .. } => self.epochs.of(&record.topic),
                _ => 0,
            };
            let context = Context {
                keys: &self.keys,
                settings: &self.settings,
                hashes: &self.link.hashes,
                least_epochs: &self.link.least_epochs,
                run: self.identity.run,
                seed: self.identity.seed,
                number: self.identity.number,
                durability: self.link.durability(),
                alive: self.nodes.alive(),
                epoch,
                claim_until_ms,
            };
            let before = out.len();
            let answers = command.put(&context, &mut out);
            let bytes = out.len() - before;
            self.link.in_flight_bytes += bytes;
            self.link.in_flight.push_back(InFlight { command, sent_at: self.now, bytes, answers });
        }
        if let Some(lines) = &self.link.lines {
            lines.send(out.into());
        }
    }

    /// The connection is of no use any more: what was under way is asked again over the next one, before what waits.
    pub(super) fn lose_link(&mut self, reason: &str) {
        if self.link.lines.take().is_none() {
            return;
        }
        tracing::warn!(reason, under_way = self.link.in_flight.len(), "the connection to Redis is lost");
        self.status.up.store(false, Ordering::Relaxed);
        self.link.away_since.get_or_insert(self.now);
        let under_way = std::mem::take(&mut self.link.in_flight);
        self.link.in_flight_bytes = 0;
        // What was refused for want of its script came before all that is under way.
        for InFlight { mut command, .. } in under_way.into_iter().rev() {
            match &command.what {
                What::Append { .. } => command.is_undecided = true,
                What::Load { .. }
                | What::Members { .. }
                | What::Presence { .. }
                | What::Read { .. }
                | What::Cursor { .. }
                | What::Claim { .. }
                | What::Release { .. } => {}
                What::Relay { .. } => {
                    add(&self.status.given_up, 1);
                    continue;
                }
                What::Find { .. }
                | What::Touch { .. }
                | What::Replicas { .. }
                | What::Lease { .. }
                | What::Probe { .. }
                | What::LoadScript(_) => {
                    continue;
                }
            }
            self.link.queue.push_front(command);
        }
        while let Some(command) = self.link.redo.pop_back() {
            self.link.queue.push_front(command);
        }
        for (mut command, _) in std::mem::take(&mut self.link.unreplicated).into_iter().rev() {
            command.is_undecided = true;
            self.link.queue.push_front(command);
        }
        let wait = self.link.backoff();
        self.link.phase = Phase::Away { due: self.now + wait };
    }

    /// A connection that does not answer is lost; what has waited too long for one is answered.
    pub(super) fn give_up_late(&mut self) {
        let oldest = self.link.in_flight.front().map(|in_flight| in_flight.sent_at);
        if oldest.is_some_and(|sent_at| self.now.duration_since(sent_at) > self.options.command_timeout) {
            self.lose_link("no answer in time");
        }
        if self.link.is_ready() {
            return;
        }
        let mut late = Vec::new();
        let now = self.now;
        self.link.queue.retain_mut(|command| {
            let grace = match &command.what {
                What::Append { record, .. } if command.is_undecided && record.key.is_some() => UNDECIDED_WITH_ID_MAX,
                What::Append { .. } if command.is_undecided => UNDECIDED_MAX,
                _ => Duration::ZERO,
            };
            let keeps = match command.what {
                // They are not asked for by a client who waits.
                What::Cursor { .. } | What::Release { .. } => true,
                _ => now < command.deadline + grace,
            };
            if !keeps {
                let what = std::mem::replace(&mut command.what, What::Lease { number: 0 });
                late.push((command.shard, what, command.is_undecided));
            }
            keeps
        });
        for (shard, what, is_undecided) in late {
            if is_undecided {
                add(&self.status.undecided, 1);
            }
            self.fail(shard, what);
        }
    }

    /// Redis was away for too long, or has refused it.
    pub(super) fn fail(&mut self, shard: ShardId, what: What) {
        let event = match what {
            What::Append { ticket, record, .. } => {
                add(&self.status.refused_away, 1);
                self.settle(&record.topic);
                Event::Stored { ticket, result: Err(EngineUnavailable) }
            }
            What::Load { topic } => Event::Loaded { topic, result: Err(EngineUnavailable) },
            What::Read { read, .. } => Event::Read { read, result: Err(EngineUnavailable) },
            What::Claim { claim, .. } => Event::Claimed { claim, result: Err(EngineUnavailable) },
            What::Presence { read, .. } => Event::Present { read, result: Err(EngineUnavailable) },
            What::Members { topic, .. } => {
                self.unknown_members.insert((topic, shard));
                return;
            }
            What::Cursor { .. } | What::Release { .. } | What::Relay { .. } => return add(&self.status.given_up, 1),
            What::Find { .. }
            | What::Touch { .. }
            | What::Replicas { .. }
            | What::Lease { .. }
            | What::Probe { .. }
            | What::LoadScript(_) => {
                return;
            }
        };
        self.out.tell(shard, event);
    }

    /// An append of the topic is answered.
    pub(super) fn settle(&mut self, topic: &str) {
        if let Some(owed) = self.owed.get_mut(topic) {
            *owed -= 1;
            if *owed == 0 {
                self.owed.remove(topic);
            }
        }
    }
}

impl Command {
    /// Bytes that it takes, about.
    fn bytes(&self) -> usize {
        let body = match &self.what {
            What::Append { message, .. } | What::Find { message, .. } => message.len(),
            What::Relay { payload, .. } => payload.len(),
            _ => 0,
        };
        body + 256
    }
}
