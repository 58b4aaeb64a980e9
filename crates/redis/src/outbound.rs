//! Events on their way to shards: in order for each, and kept while a mailbox is full.
//!
//! Answers are bounded by what shards may ask for at once. News are hints: where too much waits they are dropped and counted, and
//! their topics are said to have changed once there is room again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use ringgate_core::id::ShardId;
use ringgate_core::shard::Event;

/// Where shards are told what has happened.
pub trait Homes: Send + 'static {
    /// Hands an event to a shard, or gives it back if the shard's mailbox is full: it is offered again, before any later one.
    fn tell(&mut self, shard: ShardId, event: Event<'static>) -> Result<(), Event<'static>>;

    /// Wakes the shards that were told something since the last call.
    fn wake(&mut self);
}

/// Events that wait for one shard before hints are dropped.
const WAITING_MAX: usize = 16 * 1024;

pub(crate) struct Outbound<H> {
    homes: H,
    shards: HashMap<ShardId, Waiting>,
    told: bool,
    pub(crate) dropped: u64,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event<'static>>,
    /// Topics of which hints were dropped.
    stale: BTreeSet<Arc<str>>,
}

impl<H: Homes> Outbound<H> {
    pub(crate) fn new(homes: H) -> Self {
        Outbound { homes, shards: HashMap::new(), told: false, dropped: 0 }
    }

    pub(crate) fn tell(&mut self, shard: ShardId, event: Event<'static>) {
        let waiting = self.shards.entry(shard).or_default();
        if !waiting.events.is_empty() {
            return waiting.events.push_back(event);
        }
        match self.homes.tell(shard, event) {
            Ok(()) => self.told = true,
            Err(event) => waiting.events.push_back(event),
        }
    }

    /// News, which may be lost.
    pub(crate) fn hint(&mut self, shard: ShardId, topic: &Arc<str>, event: Event<'static>) {
        let waiting = self.shards.entry(shard).or_default();
        if waiting.events.len() >= WAITING_MAX {
            waiting.stale.insert(topic.clone());
            self.dropped += 1;
            return;
        }
        self.tell(shard, event);
    }

    /// Offers again what waits, and wakes who was told something. Says how many events still wait.
    pub(crate) fn flush(&mut self) -> usize {
        let mut left = 0;
        for (shard, waiting) in &mut self.shards {
            while let Some(event) = waiting.events.pop_front() {
                match self.homes.tell(*shard, event) {
                    Ok(()) => self.told = true,
                    Err(event) => {
                        waiting.events.push_front(event);
                        break;
                    }
                }
            }
            while waiting.events.len() < WAITING_MAX / 2
                && let Some(topic) = waiting.stale.pop_first()
            {
                waiting.events.push_back(Event::Changed { topic });
            }
            left += waiting.events.len();
        }
        if std::mem::take(&mut self.told) {
            self.homes.wake();
        }
        left
    }
}
