//! What Redis has answered, told to the shards.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ringgate_core::id::ShardId;
use ringgate_core::shard::{EngineUnavailable, Event, Stored};

use super::{Work, unix_ms};
use crate::answer::{self, Holder, Loaded, Refusal};
use crate::command::{Command, What};
use crate::outbound::Homes;
use crate::record;
use crate::resp::{Answer, ServerError, Value, error_text};
use crate::status::{add, set};

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
    pub(super) fn on_answers(&mut self, life: u64, answers: std::io::Result<Vec<Value>>) {
        if !self.link.is_life(life) {
            return;
        }
        let values = match answers {
            Ok(values) => values,
            Err(error) => return self.lose_link(&error.to_string()),
        };
        for value in values {
            if !self.link.expects_answer() {
                return self.lose_link("it answers what it was not asked");
            }
            let Some(command) = self.link.answered() else { continue };
            if let Some(reason) = self.on_answer(command, &value) {
                return self.lose_link(&reason);
            }
        }
    }

    /// Says why the connection is of no use any more, if it is not; the command is asked again then.
    fn on_answer(&mut self, command: Command, value: &Value) -> Option<String> {
        if let Value::ServerError(error) = value {
            return self.on_refused(command, error);
        }
        let Command { shard, what, deadline, is_undecided } = command;
        match what {
            What::Append { .. } => {
                let command = Command { shard, what, deadline, is_undecided };
                let Some(stored) = answer::stored(value) else { return self.not_understood(command, value) };
                if self.options.replicas_min > 0 {
                    self.link.unreplicated.push((command, stored));
                } else {
                    self.tell_stored(command, Some(stored));
                }
            }
            What::Replicas { least, .. } => {
                let has_enough = value.number().is_some_and(|has| has >= u64::from(least));
                for (command, stored) in std::mem::take(&mut self.link.unreplicated) {
                    self.tell_stored(command, has_enough.then_some(stored));
                }
            }
            What::Find { ticket, topic, .. } => {
                self.on_found(shard, ticket, &topic, value);
            }
            What::Load { topic } => match answer::loaded(value) {
                Some(loaded) => self.on_loaded(Held { shard, topic, loaded, lease: 0 }),
                None => {
                    return self
                        .not_understood(Command { shard, what: What::Load { topic }, deadline, is_undecided }, value);
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
            What::Probe { at, .. } => {
                self.link.is_well();
                set(&self.status.round_trip_us, self.now.duration_since(at).as_micros() as u64);
            }
            What::Cursor { .. }
            | What::Release { .. }
            | What::Relay { .. }
            | What::Members { .. }
            | What::Touch { .. }
            | What::LoadScript(_) => {}
        }
        None
    }

    /// What stands in Redis is damaged: who asked is told that it cannot be had.
    fn not_understood(&mut self, command: Command, value: &Value) -> Option<String> {
        let mut answer = format!("{value:?}");
        answer.truncate(answer.floor_char_boundary(200));
        tracing::warn!(answer, "an answer of Redis was not understood");
        add(&self.status.damaged, 1);
        self.fail(command.shard, command.what);
        None
    }

    /// What became of an append; none if too few replicas have it.
    fn tell_stored(&mut self, command: Command, stored: Option<Stored>) {
        let Command { shard, what: What::Append { ticket, record, .. }, .. } = command else { return };
        self.settle(&record.topic);
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

    fn on_refused(&mut self, command: Command, error: &ServerError) -> Option<String> {
        let refusal = Refusal::of(error);
        let counter = match refusal {
            // Nothing else is sent before it is answered: a new connection loads the scripts, and it is asked again.
            Refusal::NoScript if matches!(command.what, What::Find { .. }) => return Some(error_text(error)),
            Refusal::NoScript => {
                self.link.redo(command);
                return None;
            }
            Refusal::Away => {
                self.link.put_back(command);
                return Some(error_text(error));
            }
            Refusal::Memory => &self.status.refused_memory,
            Refusal::Disk => &self.status.refused_disk,
            Refusal::Other => &self.status.refused_other,
        };
        add(counter, 1);
        if self.refusal_logged.is_none_or(|at| self.now.duration_since(at) > Duration::from_secs(10)) {
            self.refusal_logged = Some(self.now);
            tracing::warn!(answer = error_text(error), "Redis refuses a command");
        }
        let Command { shard, what, .. } = command;
        match what {
            What::Find { ticket, .. } => self.on_undecidable(shard, ticket),
            What::Release { .. } | What::Cursor { .. } if refusal != Refusal::Other => self.keep_for_later(shard, what),
            what => self.fail(shard, what),
        }
        None
    }

    /// A message without a client message id whose answer was lost: it is there, or it is asked for again.
    fn on_found(&mut self, shard: ShardId, ticket: u64, topic: &str, value: &Value) {
        match value.bytes().and_then(|id| record::position(id)) {
            Some(position) => {
                if self.link.take_append(shard, ticket).is_some() {
                    self.settle(topic);
                    add(&self.status.stored, 1);
                    self.out.tell(shard, Event::Stored { ticket, result: Ok(Stored::Now(position)) });
                }
                self.link.found_one();
            }
            None if self.link.is_alone() => {
                self.link.mark_decided(shard, ticket);
                self.link.found_one();
            }
            // It may still be on its way over the connection that was lost.
            None => self.on_undecidable(shard, ticket),
        }
    }

    fn on_undecidable(&mut self, shard: ShardId, ticket: u64) {
        if let Some(Command { what, .. }) = self.link.take_append(shard, ticket) {
            add(&self.status.undecided, 1);
            self.fail(shard, what);
        }
        self.link.found_one();
    }

    fn on_loaded(&mut self, mut held: Held) {
        let is_fresh = self.nodes.is_fresh(self.now, NODES_FRESH);
        let is_sure = |holder: &Holder| {
            self.nodes.is_alive(holder.run, self.now) || (is_fresh && self.nodes.ended_ms(holder.run).is_some())
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

    fn tell_loaded(&mut self, Held { shard, topic, loaded, .. }: Held) {
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
        self.leases_answered = number;
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
            self.push(shard, what);
        }
    }
}
