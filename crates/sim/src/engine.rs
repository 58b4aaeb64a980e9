//! An engine that stores messages late, in batches, and sometimes fails. What it has stored it keeps.

use std::collections::{BTreeMap, VecDeque};

use ringgate_core::shard::{Event, Record};

use crate::random::Random;
use crate::world::Append;

/// The engine of one shard. It is given what [`World`](crate::World) holds in `appends`.
#[derive(Default)]
pub struct Engine {
    era: u32,
    /// What it was given and has not stored.
    given: VecDeque<(u64, Record)>,
    /// What the shard has not heard yet, in order.
    answers: VecDeque<Answer>,
    /// The newest offset of each topic and epoch.
    disk: BTreeMap<(String, u64), u64>,
    last_ticket: u64,
    /// How often it has failed.
    pub failures: u64,
    /// Messages that it has stored.
    pub stored: u64,
}

enum Answer {
    Appended(u64),
    Failed(u64),
}

impl Engine {
    /// The shard gives it a message. One of an era before the last failure has failed with it.
    pub fn give(&mut self, append: Append) {
        let Append { ticket, era, record, .. } = append;
        assert!(ticket > self.last_ticket, "tickets grow");
        self.last_ticket = ticket;
        if era == self.era {
            self.given.push_back((ticket, record));
        }
    }

    /// Stores some, or all that it was given, and says so later.
    pub fn store(&mut self, count: usize) {
        let mut through = None;
        for (ticket, record) in self.given.drain(..count.min(self.given.len())) {
            let place = record.position;
            let last = self.disk.entry((record.topic.to_string(), place.epoch)).or_default();
            assert_eq!(place.offset, *last + 1, "{} has a hole, or two messages at one place", record.topic);
            *last = place.offset;
            self.stored += 1;
            through = Some(ticket);
        }
        self.answers.extend(through.map(Answer::Appended));
    }

    /// Fails at one of the messages that it was given.
    pub fn fail(&mut self, random: &mut Random) {
        if self.given.is_empty() {
            return;
        }
        let at = random.below(self.given.len());
        self.store(at);
        if let Some((from, _)) = self.given.front() {
            self.answers.push_back(Answer::Failed(*from));
            self.given.clear();
            self.era += 1;
            self.failures += 1;
        }
    }

    /// The next that the shard is to hear.
    pub fn answer(&mut self) -> Option<Event<'static>> {
        Some(match self.answers.pop_front()? {
            Answer::Appended(through) => Event::Appended { through },
            Answer::Failed(from) => Event::AppendFailed { from },
        })
    }

    /// Whether it has stored the message of that place.
    pub fn has(&self, topic: &str, epoch: u64, offset: u64) -> bool {
        self.disk.get(&(topic.to_owned(), epoch)).is_some_and(|last| offset <= *last)
    }

    /// Messages of inboxes that it has stored.
    pub fn stored_in_inboxes(&self) -> u64 {
        self.disk.iter().filter(|((topic, _), _)| topic.starts_with('@')).map(|(_, last)| last).sum()
    }

    /// Whether it owes nothing.
    pub fn is_idle(&self) -> bool {
        self.given.is_empty() && self.answers.is_empty()
    }
}
