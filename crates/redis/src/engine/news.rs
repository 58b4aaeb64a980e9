//! The connections for news, one to each master: subscriptions, what comes over them, and how they come back after they were lost.
//!
//! A command names channels of one partition only, as they have to be in one slot. Redis confirms each channel in the order of the commands,
//! and an error stands for a whole command. What comes over a connection is heeded as long as the partition belongs to its master.
//! Redis may end a subscription by a word (a slot has moved) or without one; so it is compared every 30 s how many channels Redis says that
//! the connection has (`CLIENT LIST`, one number) with what it had confirmed. To subscribe to everything again would cost
//! Redis a command for each topic.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringgate_core::id::ShardId;
use ringgate_core::shard::{Event, StoredMessage};

use super::{FromWire, MasterId, SILENCE_MAX, Work};
use crate::command::What;
use crate::outbound::Homes;
use crate::record::{NodeNews, TopicNews, node_news, topic_news};
use crate::resp::{self, Answer, ServerError, Value, error_text};
use crate::slots::moved;
use crate::status::add;
use crate::wire::{Lines, Wire};

/// Channels of one command.
const BATCH: usize = 512;
/// Topics that are subscribed to again each tick: their homes load them once more, and Redis has others to serve.
const RESUBSCRIBED_A_TICK: usize = 1024;
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct News {
    life: u64,
    lines: Option<Lines>,
    is_connecting: bool,
    due: Option<Instant>,
    heard: Instant,
    /// The connection, as Redis numbers it; 0 if it did not say.
    client: u64,
    /// Commands that are not confirmed yet.
    asked: VecDeque<Asked>,
    /// Channels that are being unsubscribed from, so that a subscription that Redis ends by itself is noticed.
    leaving: HashMap<Vec<u8>, u32>,
    /// Channels that the connection has, by the newest answer, and how many answers there were.
    channels: u64,
    answers: u64,
}

/// A command with channels of a partition.
struct Asked {
    partition: usize,
    /// Empty if they are subscribed to.
    leaves: Vec<Arc<str>>,
    unconfirmed: usize,
}

/// Topics that are to be subscribed to, on whatever connection.
#[derive(Default)]
pub(super) struct Subscriptions {
    /// At once.
    wanted: Vec<Arc<str>>,
    /// When there is time: they were subscribed to before.
    again: VecDeque<Arc<str>>,
    /// Partitions whose channels a server has refused, or has ended the subscription to that of this node.
    deaf: HashSet<usize>,
    /// Topics that wait for their subscription to be loaded, and until when.
    pub(super) loads: VecDeque<(Instant, Arc<str>)>,
    /// The partition whose topics are looked at next for one that nobody has subscribed to.
    looked_at: usize,
}

impl News {
    pub(super) fn new(now: Instant) -> Self {
        News {
            life: 0,
            lines: None,
            is_connecting: false,
            due: None,
            heard: now,
            client: 0,
            asked: VecDeque::new(),
            leaving: HashMap::new(),
            channels: 0,
            answers: 0,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.lines.is_some()
    }

    /// A channel was confirmed: of the oldest command, whose partition it says.
    fn confirm(&mut self) -> Option<usize> {
        let asked = self.asked.front_mut()?;
        asked.unconfirmed = asked.unconfirmed.saturating_sub(1);
        let partition = asked.partition;
        if asked.unconfirmed == 0 {
            self.asked.pop_front();
        }
        Some(partition)
    }
}

impl<H: Homes> Work<H> {
    /// Connects if it is not connected; `anew` if what it is connected to is of no use.
    pub(super) fn connect_news(&mut self, id: MasterId, anew: bool) {
        if anew {
            self.lose_news(id, "the master is another server");
        }
        let Some(master) = self.masters.all.get_mut(&id) else { return };
        let news = &mut master.news;
        if news.lines.is_some() || news.is_connecting {
            return;
        }
        let Some(server) = master.link.server.clone() else { return };
        news.is_connecting = true;
        news.due = None;
        news.life += 1;
        let (life, wires, options) = (news.life, self.wires.clone(), self.options.clone());
        tokio::spawn(async move {
            let wire = Wire::to(&server, &options).await;
            let _ = wires.send(FromWire::NewsReady(id, life, wire)).await;
        });
    }

    pub(super) fn on_news_ready(&mut self, id: MasterId, life: u64, wire: std::io::Result<Wire>) {
        let Some(master) = self.masters.all.get_mut(&id) else { return };
        let news = &mut master.news;
        if news.life != life {
            return;
        }
        news.is_connecting = false;
        let wire = match wire {
            Ok(wire) => wire,
            Err(error) => {
                tracing::warn!(%error, "no connection for news");
                news.due = Some(self.now + RETRY);
                return;
            }
        };
        news.client = wire.client;
        news.lines = Some(wire.run(self.wires.clone(), move |told| FromWire::News(id, life, told)));
        news.asked.clear();
        news.leaving.clear();
        (news.channels, news.heard, master.probe.heard) = (0, self.now, self.now);
        let of: Vec<usize> = self.partitions.of(id).collect();
        of.into_iter().for_each(|partition| self.subscribe_partition(partition));
        self.resubscribe_some();
    }

    fn lose_news(&mut self, id: MasterId, reason: &str) {
        let Some(master) = self.masters.all.get_mut(&id) else { return };
        if master.news.lines.take().is_none() {
            return;
        }
        let server = master.link.server.as_ref().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(reason, server, "the connection for news is lost");
        master.news.due = Some(self.now);
        let of: Vec<usize> = self.partitions.of(id).collect();
        of.into_iter().for_each(|partition| self.forget_subscriptions(partition));
    }

    /// A connection over which nothing comes although a probe was sent is made anew.
    pub(super) fn look_at_news(&mut self) {
        let ids: Vec<MasterId> = self.masters.all.keys().copied().collect();
        for id in ids {
            let Some(master) = self.masters.all.get(&id) else { continue };
            if !master.link.is_ready() {
                continue;
            }
            let nodes = self.keys.nodes_partition();
            let is_probed = self.partitions.of(id).any(|partition| partition != nodes);
            let is_silent = is_probed && self.now.duration_since(master.news.heard) > SILENCE_MAX;
            if master.news.is_ready() && is_silent {
                self.lose_news(id, "no probe has come");
            }
            if self.masters.all.get(&id).is_some_and(|master| master.news.due.is_some_and(|due| self.now >= due)) {
                self.connect_news(id, false);
            }
        }
    }

    fn news_of(&mut self, partition: usize) -> Option<&mut News> {
        let id = self.partitions.master(partition)?;
        self.masters.all.get_mut(&id).map(|master| &mut master.news).filter(|news| news.is_ready())
    }

    /// The channels of the partition are subscribed to on its master's connection: those that a home waits for come first.
    pub(super) fn subscribe_partition(&mut self, partition: usize) {
        if partition == self.keys.nodes_partition() || self.news_of(partition).is_none() {
            return;
        }
        self.subscriptions.deaf.remove(&partition);
        let channel = self.keys.node_channel(partition, self.identity.run).into_bytes();
        self.send_channels(partition, b"SSUBSCRIBE", &[channel], Vec::new());
        let (first, again) = self.interests.unsubscribed(partition);
        first.into_iter().for_each(|topic| self.subscribe(topic));
        self.subscriptions.again.extend(again);
    }

    /// None of the partition's subscriptions stands any more.
    pub(super) fn forget_subscriptions(&mut self, partition: usize) {
        self.interests.forget_subscriptions(partition);
    }

    pub(super) fn subscribe(&mut self, topic: Arc<str>) {
        // Without a connection it is subscribed to when there is one.
        if self.news_of(self.partition_of(&topic)).is_some() {
            self.subscriptions.wanted.push(topic);
            if self.subscriptions.wanted.len() >= BATCH {
                self.send_subscriptions();
            }
        }
    }

    /// Sends what is wanted by now.
    pub(super) fn send_subscriptions(&mut self) {
        let wanted = std::mem::take(&mut self.subscriptions.wanted);
        self.send_topics(b"SSUBSCRIBE", wanted);
    }

    pub(super) fn resubscribe_some(&mut self) {
        let count = RESUBSCRIBED_A_TICK.min(self.subscriptions.again.len());
        let topics: Vec<Arc<str>> = self.subscriptions.again.drain(..count).collect();
        let is_missing =
            |topic: &Arc<str>| self.interests.get(topic).is_some_and(|(_, interest)| !interest.is_subscribed);
        let topics = topics.into_iter().filter(is_missing).collect();
        self.send_topics(b"SSUBSCRIBE", topics);
    }

    pub(super) fn unsubscribe(&mut self, topics: Vec<Arc<str>>) {
        self.send_topics(b"SUNSUBSCRIBE", topics);
    }

    /// One command for each partition, or more if there are many topics of it.
    fn send_topics(&mut self, command: &'static [u8], topics: Vec<Arc<str>>) {
        let mut topics: Vec<_> = topics.into_iter().map(|topic| (self.partition_of(&topic), topic)).collect();
        topics.sort_by_key(|(partition, _)| *partition);
        for same in topics.chunk_by(|a, b| a.0 == b.0) {
            for batch in same.chunks(BATCH) {
                let Some((partition, _)) = batch.first() else { continue };
                let channels: Vec<_> = batch.iter().map(|(_, topic)| self.keys.channel(topic).into_bytes()).collect();
                let leaves = if command == b"SUNSUBSCRIBE" {
                    batch.iter().map(|(_, topic)| topic.clone()).collect()
                } else {
                    Vec::new()
                };
                self.send_channels(*partition, command, &channels, leaves);
            }
        }
    }

    fn send_channels(&mut self, partition: usize, command: &[u8], channels: &[Vec<u8>], leaves: Vec<Arc<str>>) {
        let Some(news) = self.news_of(partition) else { return };
        if !leaves.is_empty() {
            channels.iter().for_each(|channel| *news.leaving.entry(channel.clone()).or_default() += 1);
        }
        news.asked.push_back(Asked { partition, leaves, unconfirmed: channels.len() });
        let mut arguments = vec![command];
        arguments.extend(channels.iter().map(Vec::as_slice));
        let mut out = Vec::new();
        resp::put(&mut out, &arguments);
        if let Some(lines) = &news.lines {
            lines.send(out.into());
        }
    }

    pub(super) fn on_news(&mut self, id: MasterId, life: u64, told: std::io::Result<Vec<Value>>) {
        let Some(master) = self.masters.all.get_mut(&id) else { return };
        if master.news.life != life || master.news.lines.is_none() {
            return;
        }
        match told {
            Ok(values) => {
                master.news.heard = self.now;
                let mut again = HashSet::new();
                for value in values {
                    self.on_message(id, value, &mut again);
                }
                self.subscriptions.again.extend(again);
            }
            Err(error) => self.lose_news(id, &error.to_string()),
        }
    }

    fn on_message(&mut self, id: MasterId, value: Value, again: &mut HashSet<Arc<str>>) {
        let parts = match value {
            Value::Array(parts) => parts,
            Value::ServerError(error) => return self.on_subscription_refused(id, &error),
            _ => return,
        };
        let mut parts = parts.into_iter();
        let (kind, channel, payload) = (parts.next(), parts.next(), parts.next());
        let (Some(kind), Some(channel)) =
            (kind.as_ref().and_then(Answer::text), channel.as_ref().and_then(Answer::bytes))
        else {
            return;
        };
        let Ok(name) = std::str::from_utf8(channel) else { return };
        match (kind, self.keys.topic_of(name), payload) {
            ("smessage", Some(topic), Some(Value::BulkString(payload))) => {
                let topic = topic.to_owned();
                self.on_topic_news(&topic, payload.into());
            }
            ("smessage", None, Some(Value::BulkString(payload))) => self.on_node_news(id, payload.into()),
            ("ssubscribe", topic, count) => {
                let topic = topic.map(str::to_owned);
                let Some(master) = self.masters.all.get_mut(&id) else { return };
                (master.news.channels, master.news.answers) =
                    (count.as_ref().and_then(Answer::number).unwrap_or(0), master.news.answers + 1);
                let partition = master.news.confirm();
                if let Some(topic) = topic
                    && partition.is_some_and(|partition| self.partitions.master(partition) == Some(id))
                {
                    self.on_subscribed(&topic);
                }
            }
            ("sunsubscribe", topic, count) => {
                let topic = topic.map(str::to_owned);
                let Some(master) = self.masters.all.get_mut(&id) else { return };
                (master.news.channels, master.news.answers) =
                    (count.as_ref().and_then(Answer::number).unwrap_or(0), master.news.answers + 1);
                if let Some(count) = master.news.leaving.get_mut(channel) {
                    *count -= 1;
                    if *count == 0 {
                        master.news.leaving.remove(channel);
                    }
                    master.news.confirm();
                    return;
                }
                // By the server's own will: the slot has moved, for one.
                self.masters.want_slots();
                let partition = match &topic {
                    Some(topic) => Some(self.partition_of(topic)),
                    None => self.keys.partition_of_node_channel(name),
                };
                let Some(partition) = partition.filter(|partition| self.partitions.master(*partition) == Some(id))
                else {
                    return;
                };
                match topic {
                    Some(topic) => {
                        if let Some(interest) = self.interests.get_mut(&topic) {
                            interest.is_stale |= std::mem::take(&mut interest.is_subscribed);
                        }
                        if let Some((topic, _)) = self.interests.get(&topic) {
                            again.insert(topic.clone());
                        }
                    }
                    None => drop(self.subscriptions.deaf.insert(partition)),
                }
            }
            _ => {}
        }
    }

    /// The oldest command that was not confirmed.
    fn on_subscription_refused(&mut self, id: MasterId, error: &ServerError) {
        let Some(master) = self.masters.all.get_mut(&id) else { return };
        let Some(Asked { partition, leaves, .. }) = master.news.asked.pop_front() else {
            return self.lose_news(id, &error_text(error));
        };
        let leaving = leaves.iter().map(|topic| self.keys.channel(topic).into_bytes());
        for channel in leaving {
            if let Some(count) = master.news.leaving.get_mut(&channel) {
                *count -= 1;
                if *count == 0 {
                    master.news.leaving.remove(&channel);
                }
            }
        }
        if self.partitions.master(partition) != Some(id) {
            return;
        }
        let moved_to = master.link.server.as_ref().and_then(|asked| moved(error, asked));
        if leaves.is_empty() {
            self.subscriptions.deaf.insert(partition);
        }
        match moved_to {
            Some(server) if self.masters.is_cluster => self.assign(partition, Some(&server)),
            _ => {
                self.log_refusal(error);
                self.masters.want_slots();
            }
        }
    }

    /// Subscribes to what a server has refused or ended, and to topics that nobody has subscribed to for whatever reason: each partition
    /// is looked at for those as often as Redis is asked what it knows.
    pub(super) fn look_at_subscriptions(&mut self) {
        self.resubscribe_some();
        // Not while topics wait already: they would wait twice.
        let is_quiet = self.subscriptions.again.is_empty() && self.subscriptions.wanted.is_empty();
        if is_quiet {
            let deaf: Vec<usize> = self.subscriptions.deaf.iter().copied().collect();
            deaf.into_iter().for_each(|partition| self.subscribe_partition(partition));
        }
        let partition = self.subscriptions.looked_at % self.keys.partitions().max(1);
        self.subscriptions.looked_at = partition + 1;
        if is_quiet && self.news_of(partition).is_some_and(|news| news.asked.is_empty()) {
            let (first, again) = self.interests.unsubscribed(partition);
            self.subscriptions.again.extend(first.into_iter().chain(again));
        }
        let due = self.masters.all.iter().filter(|(_, master)| self.now >= master.check_due);
        let due: Vec<MasterId> = due.map(|(id, _)| *id).collect();
        for id in due {
            let Some(master) = self.masters.all.get_mut(&id) else { continue };
            master.check_due = self.now + self.options.subscriptions_checked_every;
            let (client, answers) = (master.news.client, master.news.answers);
            if client != 0 && master.news.is_ready() && master.news.asked.is_empty() && master.link.is_ready() {
                let command = self.command(ShardId(0), What::Hears { client, answers });
                self.send(id, vec![(None, command)]);
            }
        }
    }

    /// What Redis knows of a connection for news, at a moment when nothing was asked of it: a line of `CLIENT LIST`.
    pub(super) fn on_hears(&mut self, id: MasterId, client: u64, answers: u64, value: &Value) {
        let Some(master) = self.masters.all.get_mut(&id) else { return };
        let news = &mut master.news;
        // Versions before 7.0.3 do not say it.
        let fields = value.text().unwrap_or_default().split_ascii_whitespace();
        let knows = fields.filter_map(|field| field.strip_prefix("ssub=")?.parse::<u64>().ok()).next();
        let is_still = news.client == client && news.answers == answers && news.asked.is_empty();
        if let Some(knows) = knows
            && is_still
            && news.is_ready()
            && knows != news.channels
        {
            let server = master.link.server.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(server, knows, had = news.channels, "Redis has forgotten subscriptions without a word");
            let of: Vec<usize> = self.partitions.of(id).collect();
            for partition in of {
                self.forget_subscriptions(partition);
                self.subscribe_partition(partition);
            }
        }
    }

    fn on_topic_news(&mut self, topic: &str, payload: Bytes) {
        let Some((name, interest)) = self.interests.get(topic) else { return };
        let (topic, shard) = (name.clone(), interest.shard);
        let own = self.identity.run;
        match topic_news(payload, &self.hash) {
            // A message of this node's own is told by its answer, unless it overtakes that: then what follows it need not wait.
            Some(TopicNews::Stored { run, .. }) if run == own && !self.owed.contains_key(&topic) => {}
            Some(TopicNews::Stored { epoch, message, .. }) => {
                add(&self.status.arrived, 1);
                self.tell_of_message(&topic, epoch, message);
            }
            Some(TopicNews::Relayed { origin, .. }) if origin.run == own => {}
            Some(TopicNews::Relayed { origin, frame }) => {
                self.out.hint(shard, &topic, Event::Relayed { topic: topic.clone(), frame, origin });
            }
            Some(TopicNews::Disconnect { run, .. }) if run == own => {}
            Some(TopicNews::Disconnect { device, reason, .. }) => {
                let Some(user) = topic.strip_prefix('@').map(Arc::from) else { return };
                self.out.tell(shard, Event::Disconnect { user, device, reason, everywhere: false });
            }
            Some(TopicNews::Changed { run }) if run == own => {}
            Some(TopicNews::Changed { .. }) if !self.held.is_empty() && self.is_held(&topic) => {}
            Some(TopicNews::Changed { .. }) => {
                self.out.hint(shard, &topic, Event::Changed { topic: topic.clone() });
            }
            None => {
                // Something has happened that this node cannot read.
                add(&self.status.damaged, 1);
                self.out.hint(shard, &topic, Event::Changed { topic: topic.clone() });
            }
        }
    }

    /// A message of a topic with interest was stored; its time is that of the clock of Redis.
    pub(super) fn tell_of_message(&mut self, topic: &Arc<str>, epoch: u64, mut message: Box<StoredMessage>) {
        let Some(shard) = self.interests.get(topic).map(|(_, interest)| interest.shard) else { return };
        if !self.held.is_empty() && self.is_held(topic) {
            return;
        }
        message.expires_unix_ms = self.to_own_ms(message.expires_unix_ms);
        self.out.hint(shard, topic, Event::Arrived { topic: topic.clone(), epoch, message });
    }

    fn on_node_news(&mut self, id: MasterId, payload: Bytes) {
        match node_news(payload) {
            Some(NodeNews::Evict { shard, user, device, fence }) => {
                self.out.tell(shard, Event::Evict { user, device, fence });
            }
            Some(NodeNews::Probe(number)) => {
                let Some(master) = self.masters.all.get_mut(&id) else { return };
                let probe = &mut master.probe;
                probe.heard = self.now;
                if number == probe.number {
                    probe.lag_us = self.now.duration_since(probe.at).as_micros() as u64;
                }
            }
            None => add(&self.status.damaged, 1),
        }
    }
}
