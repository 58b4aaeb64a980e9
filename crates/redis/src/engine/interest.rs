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
use crate::outbound::Homes;
use crate::status::add;

const LINGER: Duration = Duration::from_secs(10);
/// Topics that are said to live on at once, each tick.
const TOUCHES_A_TICK: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Interests {
    topics: HashMap<Arc<str>, Interest>,
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
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn get(&self, topic: &str) -> Option<(&Arc<str>, &Interest)> {
        self.topics.get_key_value(topic)
    }

    pub(super) fn get_mut(&mut self, topic: &str) -> Option<&mut Interest> {
        self.topics.get_mut(topic)
    }

    pub(super) fn linger(&mut self, topic: &str, now: Instant) {
        if let Some((name, _)) = self.topics.get_key_value(topic) {
            self.leaving.push_back((now + LINGER, name.clone()));
        }
        if let Some(interest) = self.topics.get_mut(topic) {
            interest.left = Some(now + LINGER);
        }
    }

    /// Rooms of this node, with their shards.
    pub(super) fn rooms(&self) -> impl Iterator<Item = (Arc<str>, ShardId)> {
        let rooms = self.topics.iter().filter(|(topic, interest)| !topic.starts_with('@') && interest.left.is_none());
        rooms.map(|(topic, interest)| (topic.clone(), interest.shard))
    }

    /// No subscription stands any more.
    pub(super) fn forget_subscriptions(&mut self) -> Vec<Arc<str>> {
        for interest in self.topics.values_mut() {
            interest.is_stale |= std::mem::take(&mut interest.is_subscribed);
        }
        self.topics.keys().cloned().collect()
    }
}

impl<H: Homes> Work<H> {
    /// A home wants the topic: it is subscribed to, and then loaded.
    pub(super) fn want(&mut self, shard: ShardId, topic: Arc<str>, known: u64) {
        let now = self.now;
        let deadline = now + self.options.command_timeout;
        let is_new = self.interests.get(&topic).is_none();
        let interest = self.interests.topics.entry(topic.clone()).or_insert_with(|| Interest {
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
        self.news.loads.push_back((deadline, topic.clone()));
        // One that waits for its turn to be subscribed to again need not wait for it.
        if is_new || interest.is_stale {
            self.subscribe(topic);
        }
    }

    pub(super) fn unsubscribe_lingering(&mut self) {
        let mut gone = Vec::new();
        while let Some((due, topic)) = self.interests.leaving.pop_front_if(|(due, _)| *due <= self.now) {
            if self.interests.get(&topic).is_some_and(|(_, interest)| interest.left == Some(due)) {
                self.interests.topics.remove(&topic);
                gone.push(topic);
            }
        }
        self.unsubscribe(gone);
        // A home does not wait for a subscription longer than for an answer.
        while let Some((due, topic)) = self.news.loads.pop_front_if(|(due, _)| *due <= self.now) {
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
        if !self.link.is_ready() {
            return;
        }
        if self.interests.touch_due.is_none_or(|due| self.now >= due) && self.interests.touches.is_empty() {
            self.interests.touch_due = Some(self.now + Duration::from_millis(VANISHING_MS / 2));
            for (topic, interest) in &mut self.interests.topics {
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
            let shard = ShardId(0);
            self.push(shard, What::Touch { topic });
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
