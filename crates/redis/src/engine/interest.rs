//! Topics with interest: some home here has them in memory, and is told of what is stored in them.
//!
//! A topic that has left memory is unsubscribed from 10 s later, as those who leave often come back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate_core::id::ShardId;
use ringgate_core::shard::{EngineUnavailable, Event};

use super::Work;
use crate::command::{MEMBERS_MS, VANISHING_MS, What, ttl_ms, vanishes};
use crate::keys::partition_of;
use crate::outbound::Homes;
use crate::status::add;

const LINGER: Duration = Duration::from_secs(10);
/// Topics that are said to live on at once, each tick.
const TOUCHES_A_TICK: usize = 1024;

#[derive(Debug)]
pub(super) struct Interests {
    /// By partition, as a partition loses its subscriptions as a whole.
    topics: Vec<HashMap<Arc<str>, Interest>>,
    /// When a topic was taken out of memory, oldest first.
    leaving: VecDeque<(Instant, Arc<str>)>,
    /// Topics whose time to live is to be renewed now.
    touches: VecDeque<Arc<str>>,
    touch_due: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Interest {
    pub(super) shard: ShardId,
    /// As it was loaded; 0 before that.
    pub(super) epoch: u64,
    /// The newest epoch that this node knows of it.
    pub(super) known: u64,
    pub(super) is_subscribed: bool,
    /// It was subscribed to before the connection was lost.
    pub(super) is_stale: bool,
    /// A home waits for it, until then.
    pub(super) load: Option<Instant>,
    left: Option<Instant>,
    touched: Instant,
}

impl Interests {
    pub(super) fn new(partitions: usize) -> Self {
        Interests {
            topics: (0..partitions).map(|_| HashMap::new()).collect(),
            leaving: VecDeque::new(),
            touches: VecDeque::new(),
            touch_due: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.topics.iter().map(HashMap::len).sum()
    }

    pub(super) fn get(&self, topic: &str) -> Option<(&Arc<str>, &Interest)> {
        self.topics.get(partition_of(topic, self.topics.len()))?.get_key_value(topic)
    }

    pub(super) fn get_mut(&mut self, topic: &str) -> Option<&mut Interest> {
        let partition = partition_of(topic, self.topics.len());
        self.topics.get_mut(partition)?.get_mut(topic)
    }

    fn remove(&mut self, topic: &str) {
        let partition = partition_of(topic, self.topics.len());
        if let Some(topics) = self.topics.get_mut(partition) {
            topics.remove(topic);
        }
    }

    pub(super) fn linger(&mut self, topic: &str, now: Instant) {
        if let Some((name, _)) = self.get(topic) {
            let name = name.clone();
            self.leaving.push_back((now + LINGER, name));
        }
        if let Some(interest) = self.get_mut(topic) {
            interest.left = Some(now + LINGER);
        }
    }

    /// Rooms of this node, with their shards.
    pub(super) fn rooms(&self) -> impl Iterator<Item = (Arc<str>, ShardId)> {
        let topics = self.topics.iter().flatten();
        let rooms = topics.filter(|(topic, interest)| !topic.starts_with('@') && interest.left.is_none());
        rooms.map(|(topic, interest)| (topic.clone(), interest.shard))
    }

    /// No subscription of the partition stands any more.
    pub(super) fn forget_subscriptions(&mut self, partition: usize) {
        for interest in self.topics.get_mut(partition).into_iter().flat_map(HashMap::values_mut) {
            interest.is_stale |= std::mem::take(&mut interest.is_subscribed);
        }
    }

    /// Topics of the partition without a subscription: first those that a home waits for.
    pub(super) fn unsubscribed(&self, partition: usize) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let topics = self.topics.get(partition).into_iter().flatten();
        let missing = topics.filter(|(_, interest)| !interest.is_subscribed);
        let (first, again): (Vec<_>, Vec<_>) = missing.partition(|(_, interest)| interest.load.is_some());
        let names = |topics: Vec<(&Arc<str>, &Interest)>| topics.into_iter().map(|(name, _)| name.clone()).collect();
        (names(first), names(again))
    }
}

impl<H: Homes> Work<H> {
    /// A home wants the topic: it is subscribed to, and then loaded.
    pub(super) fn want(&mut self, shard: ShardId, topic: Arc<str>, known: u64) {
        let now = self.now;
        let deadline = now + self.options.command_timeout;
        let is_new = self.interests.get(&topic).is_none();
        let partition = self.partition_of(&topic);
        let Some(topics) = self.interests.topics.get_mut(partition) else { return };
        let interest = topics.entry(topic.clone()).or_insert_with(|| Interest {
            shard,
            epoch: 0,
            known: 0,
            is_subscribed: false,
            is_stale: false,
            load: None,
            left: None,
            touched: now,
        });
        (interest.shard, interest.left) = (shard, None);
        interest.known = interest.known.max(known);
        if interest.is_subscribed {
            return self.push(shard, What::Load { topic });
        }
        interest.load = Some(deadline);
        self.subscriptions.loads.push_back((deadline, topic.clone()));
        // One that waits for its turn to be subscribed to again need not wait for it.
        if is_new || interest.is_stale {
            self.subscribe(topic);
        }
    }

    pub(super) fn unsubscribe_lingering(&mut self) {
        let mut gone = Vec::new();
        while let Some((due, topic)) = self.interests.leaving.pop_front_if(|(due, _)| *due <= self.now) {
            if self.interests.get(&topic).is_some_and(|(_, interest)| interest.left == Some(due)) {
                self.interests.remove(&topic);
                gone.push(topic);
            }
        }
        self.unsubscribe(gone);
        // A home does not wait for a subscription longer than for an answer.
        while let Some((due, topic)) = self.subscriptions.loads.pop_front_if(|(due, _)| *due <= self.now) {
            if let Some(interest) = self.interests.get_mut(&topic)
                && interest.load == Some(due)
            {
                interest.load = None;
                let shard = interest.shard;
                self.out.tell(shard, Event::Loaded { topic, result: Err(EngineUnavailable) });
            }
        }
    }

    /// Topics in memory live on in Redis.
    pub(super) fn touch_topics(&mut self) {
        if self.interests.touch_due.is_none_or(|due| self.now >= due) && self.interests.touches.is_empty() {
            self.interests.touch_due = Some(self.now + Duration::from_millis(VANISHING_MS / 2));
            for (topic, interest) in self.interests.topics.iter_mut().flatten() {
                let members_ms = if topic.starts_with('@') { u64::MAX } else { MEMBERS_MS };
                let ttl = Duration::from_millis(ttl_ms(topic, &self.settings).min(members_ms));
                let is_due = self.now.duration_since(interest.touched) >= ttl / 4;
                if interest.left.is_none() && (is_due || vanishes(topic, &self.settings)) {
                    interest.touched = self.now;
                    self.interests.touches.push_back(topic.clone());
                }
            }
        }
        for _ in 0..TOUCHES_A_TICK {
            let Some(topic) = self.interests.touches.pop_front() else { return };
            // A partition that is away is touched at the next round.
            if !self.refuses(&topic) {
                self.push(ShardId(0), What::Touch { topic });
            }
        }
    }

    /// The topic's channel is heard from now on.
    pub(super) fn on_subscribed(&mut self, topic: &str) {
        let Some((name, _)) = self.interests.get(topic) else { return };
        let name = name.clone();
        let Some(interest) = self.interests.get_mut(topic) else { return };
        interest.is_subscribed = true;
        let shard = interest.shard;
        if interest.load.take().is_some() {
            interest.is_stale = false;
            return self.push(shard, What::Load { topic: name });
        }
        if std::mem::take(&mut interest.is_stale) {
            add(&self.status.resubscriptions, 1);
            self.out.tell(shard, Event::Changed { topic: name });
        }
    }
}
