//! What Redis has answered, told to the shards.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ringgate_core::id::ShardId;
use ringgate_core::shard::{EngineUnavailable, Event, Stored};

use super::link::Link;
use super::{MasterId, Work, unix_ms};
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

/// A topic that was loaded, and waits for a newer list of nodes.
#[derive(Debug)]
pub(crate) struct Held {
    shard: ShardId,
    topic: std::sync::Arc<str>,
    loaded: Loaded,
    /// The list that was asked for when it had been loaded.
    lease: u64,
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
        let Command { shard, what, deadline, is_undecided } = command;
        let at = partition.unwrap_or(usize::MAX);
        if !matches!(what, What::Generation { .. } | What::Find { .. }) {
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
            What::Find { ticket, topic, .. } => {
                self.on_found(id, at, (shard, ticket), &topic, value);
            }
            What::Load { topic } => match answer::loaded(value) {
                Some(loaded) => self.on_loaded(Held { shard, topic, loaded, lease: 0 }),
                None => {
                    let what = What::Load { topic };
                    self.not_understood(Command { shard, what, deadline, is_undecided }, value);
                }
            },
            What::Read { read, messages } => {
                let Some((epoch, result, damaged)) = answer::read(value, &messages, &self.hash, unix_ms()) else {
                    let what = What::Read { read, messages };
                    return self.not_understood(Command { shard, what, deadline, is_undecided }, value);
                };
                add(&self.status.damaged, damaged);
                if messages.epoch != epoch {
                    self.out.tell(shard, Event::Read { read, result: Err(EngineUnavailable) });
                    self.out.tell(shard, Event::Changed { topic: messages.topic });
                } else {
                    self.out.tell(shard, Event::Read { read, result: Ok(Box::new(result)) });
                }
            }
            What::Presence { read, .. } => {
                let result = answer::present(value).map(Box::new).ok_or(EngineUnavailable);
                self.out.tell(shard, Event::Present { read, result });
            }
            What::Claim { claim, .. } => {
                let result = value.number().ok_or(EngineUnavailable);
                self.out.tell(shard, Event::Claimed { claim, result });
            }
            What::Lease { number } => self.on_lease(number, value),
            What::Generation { partition } => match value.number() {
                Some(least_epoch) => self.on_generation(partition, least_epoch),
                None => {
                    self.not_understood(Command { shard, what, deadline, is_undecided }, value);
                    self.hold_partition(partition);
                }
            },
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
            | What::LoadScript(_) => {}
        }
    }

    /// A message that was refused for now is not stored after a later one of its topic.
    fn refuse_overtaken(&mut self, partition: usize, stored: &Command) {
        let What::Append { record, .. } = &stored.what else { return };
        for Command { shard, what, .. } in self.partitions.overtaken(partition, &record.topic) {
            self.fail(shard, what);
        }
    }

    /// What stands in Redis is damaged: who asked is told that it cannot be had.
    fn not_understood(&mut self, command: Command, value: &Value) {
        let mut answer = format!("{value:?}");
        answer.truncate(answer.floor_char_boundary(200));
        tracing::warn!(answer, "an answer of Redis was not understood");
        add(&self.status.damaged, 1);
        self.fail(command.shard, command.what);
    }

    /// What became of an append; none if too few replicas have it.
    fn tell_stored(&mut self, command: Command, stored: Option<Stored>) {
        let Command { shard, what: What::Append { ticket, record, .. }, .. } = command else { return };
        self.settle_append(&record.topic);
        if let Some(Stored::Now(position)) = stored {
            self.epochs.put(&record.topic, position.epoch);
        }
        add(
            match stored {
                Some(Stored::Now(_)) => &self.status.stored,
                Some(Stored::Before(_)) => &self.status.repeated,
                None => &self.status.refused_replicas,
            },
            1,
        );
        self.out.tell(shard, Event::Stored { ticket, result: stored.ok_or(EngineUnavailable) });
        if let Some(Stored::Now(position)) = stored
            && ![0, position.epoch].contains(&record.position.epoch)
        {
            // The home knows an epoch that has ended.
            self.out.tell(shard, Event::Changed { topic: record.topic });
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
        let counter = match refusal {
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
            Refusal::Memory => &self.status.refused_memory,
            Refusal::Disk => &self.status.refused_disk,
            Refusal::Other => &self.status.refused_other,
        };
        add(counter, 1);
        self.log_refusal(error);
        let Command { shard, what, .. } = command;
        match what {
            What::Find { ticket, .. } => self.on_undecidable(partition.unwrap_or(usize::MAX), shard, ticket),
            What::Generation { partition } => self.hold_partition(partition),
            What::Release { .. } | What::Cursor { .. } if refusal != Refusal::Other => self.keep_for_later(shard, what),
            what => self.fail(shard, what),
        }
        None
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

    /// A message without a client message id whose answer was lost: it is there, or it is asked for again.
    fn on_found(&mut self, id: MasterId, at: usize, (shard, ticket): (ShardId, u64), topic: &str, value: &Value) {
        let is_alone = self.masters.link(id).is_some_and(|link| link.is_alone);
        match value.bytes().and_then(record::position) {
            Some(position) => {
                if self.partitions.take_append(at, shard, ticket).is_some() {
                    self.settle_append(topic);
                    add(&self.status.stored, 1);
                    self.out.tell(shard, Event::Stored { ticket, result: Ok(Stored::Now(position)) });
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
            self.fail(shard, what);
        }
        self.settled_one(at);
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

    pub(super) fn tell_loaded(&mut self, Held { shard, topic, loaded, .. }: Held) {
        let Loaded { topic: mut found, holders } = loaded;
        let is_other = |holder: &Option<Holder>| holder.is_none_or(|holder| holder.run != self.identity.run);
        let others: Vec<bool> = holders.iter().map(is_other).collect();
        for (device, holder) in found.state.devices.iter_mut().zip(holders) {
            device.away_since_ms = match holder {
                Some(holder) if self.nodes.is_alive(holder.run, self.now) => None,
                Some(holder) => Some(self.nodes.ended_ms(holder.run).unwrap_or(holder.since_ms)),
                None => Some(device.away_since_ms.unwrap_or(device.fence / 1000)),
            };
        }
        if let Some(interest) = self.interests.get_mut(&topic)
            && std::mem::replace(&mut interest.epoch, found.position.epoch) != 0
            && let Some(user) = topic.strip_prefix('@')
        {
            // That a session has lost its device to one of another node may have been among the news that were lost.
            for (device, _) in found.state.devices.iter().zip(&others).filter(|(_, is_other)| **is_other) {
                let (user, device, fence) = (user.into(), device.name.clone(), device.fence);
                self.out.tell(shard, Event::Evict { user, device, fence });
            }
        }
        self.out.tell(shard, Event::Loaded { topic, result: Ok(Box::new(found)) });
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
        for held in std::mem::take(&mut self.held) {
            if held.lease <= number {
                self.tell_loaded(held);
            } else {
                self.held.push(held);
            }
        }
        if !self.held.is_empty() && self.leases_asked == number {
            self.ask_for_nodes();
        }
    }

    fn keep_for_later(&mut self, shard: ShardId, what: What) {
        const LATER_MAX: usize = 64 * 1024;
        if self.later.len() < LATER_MAX {
            self.later.push((shard, what));
        } else {
            add(&self.status.given_up, 1);
        }
    }

    /// Asks again for what Redis had no room for.
    pub(super) fn ask_later(&mut self) {
        for (shard, what) in std::mem::take(&mut self.later) {
            match what.partition(&self.keys) {
                Some(partition) if self.partitions.is_open(partition) => self.push(shard, what),
                _ => self.later.push((shard, what)),
            }
        }
    }
}
