//! What Redis has answered, told to the shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringgate_core::id::ShardId;
use ringgate_core::shard::{EngineUnavailable, Event, Stored, Unstored};

use super::link::Link;
use super::{MasterId, Work};
use crate::answer::{self, Holder, Loaded, Refusal};
use crate::command::{Command, What};
use crate::nodes::LIST_AGE_MAX;
use crate::outbound::Homes;
use crate::record;
use crate::resp::{Answer, ServerError, Value, error_text};
use crate::slots::moved;
use crate::status::add;

/// A list of nodes this old is new enough for a node whose lease had ended by then.
const NODES_FRESH: Duration = Duration::from_millis(200);

/// How long the lease of a node has ended before its members are taken out of rooms.
const ENDED_FOR_MS: u64 = 60_000;

/// A topic that was loaded, and waits for a newer list of nodes.
#[derive(Debug)]
pub(crate) struct Held {
    shard: ShardId,
    topic: Arc<str>,
    loaded: Loaded,
    /// The list that was asked for when it had been loaded.
    lease: u64,
    /// Until when it waits.
    deadline: Instant,
    /// News of the topic have come since, which its home does not take before it is told.
    has_news: bool,
}

impl<H: Homes> Work<H> {
    pub(super) fn on_answers(&mut self, id: MasterId, life: u64, answers: std::io::Result<Vec<Value>>) {
        if !self.masters.link(id).is_some_and(|link| link.is_life(life)) {
            return;
        }
        let values = match answers {
            Ok(values) => values,
            Err(error) => return self.lose_link(id, &error.to_string()),
        };
        for value in values {
            let Some(link) = self.masters.link_mut(id) else { return };
            if !link.expects_answer() {
                return self.lose_link(id, "it answers what it was not asked");
            }
            let Some((partition, command)) = link.answered() else { continue };
            if let Some(partition) = partition {
                self.partitions.answered(partition);
            }
            if let Value::ServerError(error) = &value {
                if let Some(reason) = self.on_refused(id, partition, command, error) {
                    return self.lose_link(id, &reason);
                }
                continue;
            }
            self.on_answer(id, partition, command, &value);
        }
    }

    fn on_answer(&mut self, id: MasterId, partition: Option<usize>, command: Command, value: &Value) {
        self.forget_tries(&command.what);
        let Command { shard, what, deadline, is_undecided } = command;
        let at = partition.unwrap_or(usize::MAX);
        if !matches!(what, What::Generation { .. } | What::Standing { .. } | What::Find { .. }) {
            self.partitions.is_well(at);
        }
        match what {
            What::Append { .. } => {
                let command = Command { shard, what, deadline, is_undecided };
                let Some(stored) = answer::stored(value) else { return self.not_understood(command, value) };
                self.refuse_overtaken(at, &command);
                match self.masters.link_mut(id) {
                    Some(link) if self.options.replicas_min > 0 => link.wait_for_replicas(at, command, stored),
                    _ => self.tell_stored(command, Some(stored)),
                }
            }
            What::Replicas { least, .. } => {
                let has_enough = value.number().is_some_and(|has| has >= u64::from(least));
                let stored = self.masters.link_mut(id).map(Link::take_unreplicated);
                for (_, command, stored) in stored.unwrap_or_default() {
                    self.tell_stored(command, has_enough.then_some(stored));
                }
            }
            What::Find { ticket, .. } => self.on_found(id, at, (shard, ticket), value),
            What::Load { topic } => match answer::loaded(value) {
                Some(loaded) => {
                    let deadline = self.now + self.options.command_timeout;
                    self.on_loaded(Held { shard, topic, loaded, lease: 0, deadline, has_news: false });
                }
                None => {
                    let what = What::Load { topic };
                    self.not_understood(Command { shard, what, deadline, is_undecided }, value);
                }
            },
            What::Read { read, messages } => {
                let redis_ms = self.to_redis_ms((self.options.wall_clock)());
                let Some((epoch, mut result, damaged)) = answer::read(value, &messages, &self.hash, redis_ms) else {
                    let what = What::Read { read, messages };
                    return self.not_understood(Command { shard, what, deadline, is_undecided }, value);
                };
                add(&self.status.damaged, damaged);
                if messages.epoch != epoch {
                    self.out.tell(shard, Event::Read { read, result: Err(EngineUnavailable) });
                    self.out.tell(shard, Event::Changed { topic: messages.topic });
                } else {
                    for message in &mut result.messages {
                        message.expires_unix_ms = self.to_own_ms(message.expires_unix_ms);
                    }
                    self.out.tell(shard, Event::Read { read, result: Ok(Box::new(result)) });
                }
            }
            What::Presence { read, topic, .. } => {
                let result = answer::present(value).map(|(present, gone)| {
                    self.tidy(topic, gone);
                    Box::new(present)
                });
                self.out.tell(shard, Event::Present { read, result: result.ok_or(EngineUnavailable) });
            }
            What::Claim { claim, .. } => {
                self.out.tell(shard, Event::Claimed { claim, result: answer::claimed(value) });
            }
            What::Trial { .. } => self.trial_succeeded(),
            What::Lease { number } => self.on_lease(number, value),
            What::Generation { partition } => match value.number() {
                Some(least_epoch) => self.on_generation(partition, least_epoch),
                None => {
                    self.not_understood(Command { shard, what, deadline, is_undecided }, value);
                    self.hold_partition(partition);
                }
            },
            What::Standing { partition } => {
                let replication_id = self.masters.link(id).map(|link| link.facts.replication_id.as_str());
                let heard = self.partitions.heard(partition, replication_id.unwrap_or_default());
                let standing = match value.array() {
                    Some([from, epoch]) if from.text() == replication_id => epoch.number(),
                    _ => None,
                };
                match standing.filter(|epoch| *epoch > heard) {
                    Some(least_epoch) => self.on_generation(partition, least_epoch),
                    None => self.hold_partition(partition),
                }
            }
            What::Probe { at, .. } => {
                if let Some(master) = self.masters.all.get_mut(&id) {
                    master.link.is_well(self.now, value.number());
                    master.probe.round_trip_us = self.now.duration_since(at).as_micros() as u64;
                }
            }
            What::Hears { client, answers } => self.on_hears(id, client, answers, value),
            What::Cursor { .. }
            | What::Release { .. }
            | What::Relay { .. }
            | What::Members { .. }
            | What::Touch { .. }
            | What::Tidy { .. }
            | What::LoadScript(_) => {}
        }
    }

    /// A message that was refused for now is not stored after a later one of its topic.
    fn refuse_overtaken(&mut self, partition: usize, stored: &Command) {
        let What::Append { record, .. } = &stored.what else { return };
        for Command { shard, what, .. } in self.partitions.overtaken(partition, &record.topic) {
            self.fail(shard, what, Unstored::Away);
        }
    }

    /// What stands in Redis is damaged: who asked is told that it cannot be had.
    fn not_understood(&mut self, command: Command, value: &Value) {
        let mut answer = format!("{value:?}");
        answer.truncate(answer.floor_char_boundary(200));
        tracing::warn!(answer, "an answer of Redis was not understood");
        add(&self.status.damaged, 1);
        // A message that was stored before is answered with what stands there.
        self.fail(command.shard, command.what, Unstored::Unknown);
    }

    /// What became of an append; none if too few replicas have it. It may be delivered then, and so its publisher is not told that it is not.
    fn tell_stored(&mut self, command: Command, stored: Option<Stored>) {
        let Command { shard, what: What::Append { ticket, record, message }, .. } = command else { return };
        self.settle_append(&record.topic);
        if let Some(Stored::Now(position)) = stored {
            self.epochs.put(&record.topic, position.epoch);
            self.partitions.hear(position.epoch);
        }
        add(
            match stored {
                Some(Stored::Now(_)) => &self.status.stored,
                Some(Stored::Before(_)) => &self.status.repeated,
                None => &self.status.refused_replicas,
            },
            1,
        );
        self.out.tell(shard, Event::Stored { ticket, result: stored.ok_or(Unstored::Unknown) });
        let Some(Stored::Now(position)) = stored else { return };
        let known = record.position.epoch;
        if ![0, position.epoch].contains(&known) {
            // The home knows an epoch that has ended.
            self.out.tell(shard, Event::Changed { topic: record.topic });
        } else if known == 0
            && self.interests.get(&record.topic).is_some()
            && let Some(message) = record::stored(position.offset, message, &self.hash)
        {
            // The topic was in no home's memory when it was published, and is by now: for it, the message is news as any other.
            self.tell_of_message(&record.topic, position.epoch, Box::new(message));
        }
    }

    /// Says why the connection is of no use any more, if it is not; the command is asked again then.
    fn on_refused(
        &mut self,
        id: MasterId,
        partition: Option<usize>,
        command: Command,
        error: &ServerError,
    ) -> Option<String> {
        let refusal = match Refusal::of(error) {
            // A server that stands alone has no others that could have the slot.
            Refusal::Moved | Refusal::Later if !self.masters.is_cluster => Refusal::Away,
            refusal => refusal,
        };
        match refusal {
            Refusal::NoScript | Refusal::Moved | Refusal::Later => {
                self.on_refused_for_now(id, partition, command, refusal, error);
                return None;
            }
            Refusal::Away => {
                if let Some(link) = self.masters.link_mut(id) {
                    link.put_back(partition, command);
                }
                if let Some(partition) = partition {
                    self.partitions.sent(partition);
                }
                return Some(error_text(error));
            }
            // A user who may not ask for it does without.
            Refusal::Other if matches!(command.what, What::Hears { .. }) => return None,
            Refusal::Memory | Refusal::Disk | Refusal::Replicas | Refusal::Other => {}
        }
        let why = self.note_refusal(refusal, id);
        self.log_refusal(error);
        let Command { shard, what, .. } = command;
        match what {
            What::Find { ticket, .. } => self.on_undecidable(partition.unwrap_or(usize::MAX), shard, ticket),
            // A server that cannot write may have been seen before: then nothing is to be written.
            What::Generation { partition } => {
                let standing = self.command(shard, What::Standing { partition });
                self.send(id, vec![(Some(partition), standing)]);
            }
            What::Standing { partition } => self.hold_partition(partition),
            What::Release { .. } | What::Cursor { .. } => self.keep_for_later(shard, what, refusal != Refusal::Other),
            What::Lease { number } => {
                self.nodes.could_not_renew(self.now);
                self.lease_failed(number);
            }
            what => self.fail(shard, what, why),
        }
        None
    }

    /// A message without a client message id whose answer was lost: it is there, or it is asked for again.
    fn on_found(&mut self, id: MasterId, at: usize, (shard, ticket): (ShardId, u64), value: &Value) {
        let is_alone = self.masters.link(id).is_some_and(|link| link.is_alone);
        match value.bytes().and_then(record::position) {
            Some(position) => {
                if let Some(command) = self.partitions.take_append(at, shard, ticket) {
                    match self.masters.link_mut(id) {
                        Some(link) if self.options.replicas_min > 0 => {
                            link.wait_for_replicas(at, command, Stored::Now(position));
                        }
                        _ => self.tell_stored(command, Some(Stored::Now(position))),
                    }
                }
                self.settled_one(at);
            }
            None if is_alone => {
                self.partitions.mark_decided(at, shard, ticket);
                self.settled_one(at);
            }
            // It may still be on its way over the connection that was lost.
            None => self.on_undecidable(at, shard, ticket),
        }
    }

    fn on_undecidable(&mut self, at: usize, shard: ShardId, ticket: u64) {
        if let Some(Command { what, .. }) = self.partitions.take_append(at, shard, ticket) {
            add(&self.status.undecided, 1);
            self.fail(shard, what, Unstored::Unknown);
        }
        self.settled_one(at);
    }

    pub(super) fn log_refusal(&mut self, error: &ServerError) {
        if self.refusal_logged.is_none_or(|at| self.now.duration_since(at) > Duration::from_secs(10)) {
            self.refusal_logged = Some(self.now);
            tracing::warn!(answer = error_text(error), "Redis refuses a command");
        }
    }

    /// It is asked again, in its order: once the scripts are loaded, of another master, or later.
    fn on_refused_for_now(
        &mut self,
        id: MasterId,
        partition: Option<usize>,
        command: Command,
        refusal: Refusal,
        error: &ServerError,
    ) {
        if refusal == Refusal::NoScript
            && let Some(link) = self.masters.link_mut(id)
        {
            link.has_no_scripts();
        }
        let Some(partition) = partition else { return self.masters.want_slots() };
        self.ask_again(partition, command, false);
        if self.partitions.master(partition) != Some(id) {
            // It belongs to another master by now.
            return;
        }
        let server = self.masters.link(id).and_then(|link| link.server.as_ref());
        match (refusal, server.and_then(|asked| moved(error, asked))) {
            (Refusal::NoScript, _) => self.close_partition(partition),
            (_, Some(server)) => {
                self.hold_partition(partition);
                self.assign(partition, Some(&server));
                self.masters.want_slots();
            }
            _ => {
                self.hold_partition(partition);
                self.masters.want_slots();
            }
        }
    }

    fn on_loaded(&mut self, mut held: Held) {
        let is_fresh = self.nodes.is_fresh(self.now, NODES_FRESH);
        let is_current = self.nodes.is_fresh(self.now, LIST_AGE_MAX)
            || self.partitions.refuses(self.keys.nodes_partition(), self.now);
        let is_sure = |holder: &Holder| {
            (is_current && self.nodes.is_alive(holder.run, self.now))
                || (is_fresh && self.nodes.ended_ms(holder.run).is_some())
        };
        if held.loaded.holders.iter().flatten().all(is_sure) {
            return self.tell_loaded(held);
        }
        // The node may have started since, or said since that it lives. Those that wait for a list that was asked for before wait for
        // the next one; so there is one question at a time.
        if self.leases_answered == self.leases_asked {
            self.ask_for_nodes();
            held.lease = self.leases_asked;
        } else {
            held.lease = self.leases_asked + 1;
        }
        self.held.push(held);
    }

    fn tell_loaded(&mut self, Held { shard, topic, loaded, has_news, .. }: Held) {
        let Loaded { topic: mut found, holders } = loaded;
        self.partitions.hear(found.position.epoch);
        let is_other = |holder: &Option<Holder>| holder.is_none_or(|holder| holder.run != self.identity.run);
        let others: Vec<bool> = holders.iter().map(is_other).collect();
        for (device, holder) in found.state.devices.iter_mut().zip(holders) {
            device.away_since_ms = match holder {
                Some(holder) if self.nodes.is_alive(holder.run, self.now) => None,
                Some(holder) => Some(self.nodes.ended_ms(holder.run).unwrap_or(holder.since_ms)),
                None => Some(device.away_since_ms.unwrap_or(device.fence / 1000)),
            };
            device.away_since_ms = device.away_since_ms.map(|redis_ms| self.to_own_ms(redis_ms));
        }
        found.due_unix_ms = found.due_unix_ms.map(|redis_ms| self.to_own_ms(redis_ms));
        let was_loaded = self.interests.get_mut(&topic).is_some_and(|interest| {
            interest.known = interest.known.max(found.position.epoch);
            std::mem::replace(&mut interest.epoch, found.position.epoch) != 0
        });
        if was_loaded && let Some(user) = topic.strip_prefix('@') {
            // That a session has lost its device to one of another node may have been among the news that were lost.
            for (device, _) in found.state.devices.iter().zip(&others).filter(|(_, is_other)| **is_other) {
                let (user, device, fence) = (user.into(), device.name.clone(), device.fence);
                self.out.tell(shard, Event::Evict { user, device, fence });
            }
        }
        self.out.tell(shard, Event::Loaded { topic: topic.clone(), result: Ok(Box::new(found)) });
        if has_news {
            self.out.tell(shard, Event::Changed { topic });
        }
    }

    /// News of a topic have come; true if its home does not know the topic yet, and is told later that it has changed.
    pub(super) fn is_held(&mut self, topic: &str) -> bool {
        let mut held = self.held.iter_mut().filter(|held| *held.topic == *topic).peekable();
        let is_held = held.peek().is_some();
        held.for_each(|held| held.has_news = true);
        is_held
    }

    fn on_lease(&mut self, number: u64, value: &Value) {
        self.leases_answered = self.leases_answered.max(number);
        let Some(has_number) = self.nodes.take(value, self.now) else { return };
        if !has_number && !self.status.number_lost.swap(true, Ordering::Relaxed) {
            let number = self.identity.number;
            tracing::error!(
                number,
                "another node has this node's number: this one was away for too long, and must be restarted"
            );
        }
        if self.nodes.has_lapsed {
            // Others may have taken this node for ended, and its members out of rooms.
            self.unknown_members.extend(self.interests.rooms());
        }
        self.tell_held(number);
    }

    /// The list of nodes could not be had: what waits for it is judged by the one before.
    pub(super) fn lease_failed(&mut self, number: u64) {
        self.leases_answered = self.leases_answered.max(number.min(self.leases_asked));
        self.tell_held(number);
    }

    fn tell_held(&mut self, number: u64) {
        for held in std::mem::take(&mut self.held) {
            if held.lease <= number {
                self.tell_loaded(held);
            } else {
                self.held.push(held);
            }
        }
        if !self.held.is_empty() && self.leases_asked == self.leases_answered {
            self.ask_for_nodes();
        }
    }

    /// A home does not wait for a list of nodes longer than for an answer.
    pub(super) fn give_up_held(&mut self) {
        let (late, held) = std::mem::take(&mut self.held).into_iter().partition(|held| self.now >= held.deadline);
        self.held = held;
        for Held { shard, topic, has_news, .. } in late {
            self.out.tell(shard, Event::Loaded { topic: topic.clone(), result: Err(EngineUnavailable) });
            if has_news {
                // A home that has the topic in memory was not told of them.
                self.out.tell(shard, Event::Changed { topic });
            }
        }
    }

    /// Runs that ended a minute ago or earlier leave nothing in a room.
    fn tidy(&mut self, topic: Arc<str>, mut gone: Vec<u64>) {
        const AT_ONCE: usize = 64;
        let Some(redis_ms) = self.nodes.redis_ms(self.now) else { return };
        let has_ended = |ended_ms: u64| ended_ms + ENDED_FOR_MS <= redis_ms;
        gone.retain(|run| !self.nodes.is_alive(*run, self.now) && self.nodes.ended_ms(*run).is_some_and(has_ended));
        gone.truncate(AT_ONCE);
        if !gone.is_empty() {
            self.push(ShardId(0), What::Tidy { topic, runs: gone });
        }
    }
}
