//! An engine that does what shards ask of it late, in batches, and sometimes fails. What it has stored is on a [`Disk`].

use std::collections::VecDeque;

use ringgate_core::shard::{EngineUnavailable, Event};

use crate::disk::Disk;
use crate::random::Random;
use crate::world::{Append, Call, Task};

/// The engine as one shard knows it. It is given what [`World`](crate::World) holds in `calls`.
#[derive(Default)]
pub struct Engine {
    era: u32,
    /// What it was given and has not done.
    given: VecDeque<Task>,
    /// What the shard has not heard yet, in order.
    answers: VecDeque<Event<'static>>,
    last_ticket: u64,
    /// How often it has failed.
    pub failures: u64,
    /// Messages that it has stored.
    pub stored: u64,
    /// Topics that it has loaded, and times that it has read.
    pub read: u64,
}

impl Engine {
    /// The shard asks for something. A message of an era before the last failure has failed with it.
    pub fn give(&mut self, call: Call) {
        if let Task::Append(Append { ticket, era, .. }) = &call.task {
            assert!(*ticket > self.last_ticket, "tickets grow");
            self.last_ticket = *ticket;
            if *era != self.era {
                return;
            }
        }
        self.given.push_back(call.task);
    }

    /// Does some, or all, of what it was asked for, and says so later.
    pub fn work(&mut self, count: usize, disk: &mut Disk, unix_ms: u64) {
        for task in self.given.drain(..count.min(self.given.len())) {
            self.answers.extend(match task {
                Task::Append(Append { ticket, record, .. }) => {
                    disk.append(&record, unix_ms);
                    self.stored += 1;
                    Some(Event::Appended { through: ticket })
                }
                Task::Load { topic, .. } => {
                    self.read += 1;
                    let loaded = Box::new(disk.load(&topic, unix_ms));
                    Some(Event::Loaded { topic, result: Ok(loaded) })
                }
                Task::Read { read, messages } => {
                    self.read += 1;
                    Some(Event::Read { read, result: Ok(Box::new(disk.read(&messages, unix_ms))) })
                }
                Task::Cursor { topic, state, .. } => {
                    disk.set_state(&topic, &state);
                    None
                }
                Task::Unload { .. }
                | Task::Claim { .. }
                | Task::Release { .. }
                | Task::Relay { .. }
                | Task::Disconnect { .. }
                | Task::Members { .. }
                | Task::Presence { .. } => None,
            });
        }
    }

    /// Fails at something that it was asked for. With a message, those behind it have failed, too.
    pub fn fail(&mut self, random: &mut Random, disk: &mut Disk, unix_ms: u64) {
        if self.given.is_empty() {
            return;
        }
        self.work(random.below(self.given.len()), disk, unix_ms);
        self.failures += 1;
        match self.given.pop_front() {
            Some(Task::Append(Append { ticket, .. })) => {
                self.answers.push_back(Event::AppendFailed { from: ticket });
                self.given.retain(|task| !matches!(task, Task::Append(_)));
                self.era += 1;
            }
            Some(Task::Load { topic, .. }) => {
                self.answers.push_back(Event::Loaded { topic, result: Err(EngineUnavailable) });
            }
            Some(Task::Read { read, .. }) => {
                self.answers.push_back(Event::Read { read, result: Err(EngineUnavailable) });
            }
            Some(
                Task::Cursor { .. }
                | Task::Unload { .. }
                | Task::Claim { .. }
                | Task::Release { .. }
                | Task::Relay { .. }
                | Task::Disconnect { .. }
                | Task::Members { .. }
                | Task::Presence { .. },
            )
            | None => {}
        }
    }

    /// The next that the shard is to hear.
    pub fn answer(&mut self) -> Option<Event<'static>> {
        let answer = self.answers.pop_front()?;
        if let Event::Appended { .. } = answer
            && let Some(Event::Appended { .. }) = self.answers.front()
        {
            // The later one says so, too.
            return self.answer();
        }
        Some(answer)
    }

    /// Whether it owes nothing.
    pub fn is_idle(&self) -> bool {
        self.given.is_empty() && self.answers.is_empty()
    }

    /// The node has ended: what was not done is forgotten.
    pub fn crash(&mut self) {
        let Engine { failures, stored, read, .. } = *self;
        *self = Engine { failures, stored, read, ..Engine::default() };
    }
}
