//! The connection for news: subscriptions, what comes over them, and how they come back after it was lost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringgate_core::shard::Event;

use super::{FromWire, SILENCE_MAX, Work};
use crate::outbound::Homes;
use crate::record::{NodeNews, TopicNews, node_news, topic_news};
use crate::resp::{self, Answer, Value, error_text};
use crate::status::{add, set};
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
    /// Topics to subscribe to at once.
    wanted: Vec<Arc<str>>,
    /// Topics to subscribe to again.
    again: VecDeque<Arc<str>>,
    /// Channels that are being unsubscribed from, so that a subscription that Redis ends by itself is noticed.
    leaving: HashMap<Bytes, u32>,
    /// Topics that wait for their subscription to be loaded, and until when.
    pub(super) loads: VecDeque<(Instant, Arc<str>)>,
}

impl News {
    pub(super) fn new(now: Instant) -> Self {
        News {
            life: 0,
            lines: None,
            is_connecting: false,
            due: None,
            heard: now,
            wanted: Vec::new(),
            again: VecDeque::new(),
            leaving: HashMap::new(),
            loads: VecDeque::new(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.lines.is_some()
    }
}

impl<H: Homes> Work<H> {
    /// Connects if it is not connected; `anew` if what it is connected to is of no use.
    pub(super) fn connect_news(&mut self, anew: bool) {
        if anew {
            self.lose_news("the master is another server");
        }
        if self.news.lines.is_some() || self.news.is_connecting {
            return;
        }
        let Some(server) = self.link.server.clone() else { return };
        self.news.is_connecting = true;
        self.news.due = None;
        self.news.life += 1;
        let (life, wires, options) = (self.news.life, self.wires.clone(), self.options.clone());
        tokio::spawn(async move {
            let wire = Wire::to(&server, &options).await;
            let _ = wires.send(FromWire::NewsReady(life, wire)).await;
        });
    }

    pub(super) fn on_news_ready(&mut self, life: u64, wire: std::io::Result<Wire>) {
        if self.news.life != life {
            return;
        }
        self.news.is_connecting = false;
        let wire = match wire {
            Ok(wire) => wire,
            Err(error) => {
                tracing::warn!(%error, "no connection for news");
                self.news.due = Some(self.now + RETRY);
                return;
            }
        };
        let lines = wire.run(self.wires.clone(), move |news| FromWire::News(life, news));
        let mut out = Vec::new();
        resp::put(&mut out, &[b"SUBSCRIBE", self.keys.node_channel(self.identity.run).as_bytes()]);
        lines.send(out.into());
        self.news.lines = Some(lines);
        (self.news.heard, self.probe.heard) = (self.now, self.now);
        self.news.wanted.clear();
        self.news.leaving.clear();
        // Those that a home waits for come first.
        let all = self.interests.forget_subscriptions();
        let waits = |topic: &Arc<str>| self.interests.get(topic).is_some_and(|(_, interest)| interest.load.is_some());
        let (first, again): (Vec<_>, Vec<_>) = all.into_iter().partition(waits);
        self.news.again = again.into();
        first.into_iter().for_each(|topic| self.subscribe(topic));
        self.resubscribe_some();
    }

    fn lose_news(&mut self, reason: &str) {
        if self.news.lines.take().is_some() {
            tracing::warn!(reason, topics = self.interests.len(), "the connection for news is lost");
            self.interests.forget_subscriptions();
            self.news.due = Some(self.now);
        }
    }

    /// A connection over which nothing comes although a probe was sent is made anew.
    pub(super) fn look_at_news(&mut self) {
        if self.link.is_ready() && self.news.is_ready() && self.now.duration_since(self.news.heard) > SILENCE_MAX {
            self.lose_news("no probe has come");
        }
        if self.link.is_ready() && self.news.due.is_some_and(|due| self.now >= due) {
            self.connect_news(false);
        }
    }

    pub(super) fn subscribe(&mut self, topic: Arc<str>) {
        if self.news.is_ready() {
            self.news.wanted.push(topic);
            if self.news.wanted.len() >= BATCH {
                self.send_subscriptions();
            }
        }
    }

    /// Sends what is wanted by now, in one command.
    pub(super) fn send_subscriptions(&mut self) {
        let wanted = std::mem::take(&mut self.news.wanted);
        self.send_channels(b"SUBSCRIBE", &wanted);
    }

    pub(super) fn resubscribe_some(&mut self) {
        if !self.news.is_ready() {
            return;
        }
        let count = RESUBSCRIBED_A_TICK.min(self.news.again.len());
        let topics: Vec<Arc<str>> = self.news.again.drain(..count).collect();
        let topics: Vec<_> = topics.into_iter().filter(|topic| self.interests.get(topic).is_some()).collect();
        self.send_channels(b"SUBSCRIBE", &topics);
    }

    pub(super) fn unsubscribe(&mut self, topics: Vec<Arc<str>>) {
        if self.news.is_ready() {
            for topic in &topics {
                *self.news.leaving.entry(self.keys.channel(topic).into()).or_default() += 1;
            }
            self.send_channels(b"UNSUBSCRIBE", &topics);
        }
    }

    fn send_channels(&self, command: &[u8], topics: &[Arc<str>]) {
        let Some(lines) = &self.news.lines else { return };
        for batch in topics.chunks(BATCH) {
            let channels: Vec<String> = batch.iter().map(|topic| self.keys.channel(topic)).collect();
            let mut arguments = vec![command];
            arguments.extend(channels.iter().map(String::as_bytes));
            let mut out = Vec::new();
            resp::put(&mut out, &arguments);
            lines.send(out.into());
        }
    }

    pub(super) fn on_news(&mut self, life: u64, news: std::io::Result<Vec<Value>>) {
        if self.news.life != life || self.news.lines.is_none() {
            return;
        }
        match news {
            Ok(values) => {
                self.news.heard = self.now;
                let mut again = HashSet::new();
                for value in values {
                    self.on_message(value, &mut again);
                }
                self.news.again.extend(again);
            }
            Err(error) => self.lose_news(&error.to_string()),
        }
    }

    fn on_message(&mut self, value: Value, again: &mut HashSet<Arc<str>>) {
        let Value::Array(parts) = value else {
            if let Value::ServerError(error) = value {
                self.lose_news(&error_text(&error));
            }
            return;
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
            ("message" | "smessage", Some(topic), Some(Value::BulkString(payload))) => {
                let topic = topic.to_owned();
                self.on_topic_news(&topic, payload.into());
            }
            ("message" | "smessage", None, Some(Value::BulkString(payload))) => self.on_node_news(payload.into()),
            ("subscribe" | "ssubscribe", Some(topic), _) => {
                let topic = topic.to_owned();
                self.on_subscribed(&topic);
            }
            ("unsubscribe" | "sunsubscribe", Some(topic), _) => {
                if let Some(count) = self.news.leaving.get_mut(channel) {
                    *count -= 1;
                    if *count == 0 {
                        self.news.leaving.remove(channel);
                    }
                    return;
                }
                let topic = topic.to_owned();
                if let Some(interest) = self.interests.get_mut(&topic) {
                    // By the server's own will: the slot has moved, for one.
                    interest.is_stale |= std::mem::take(&mut interest.is_subscribed);
                    if let Some((topic, _)) = self.interests.get(&topic) {
                        again.insert(topic.clone());
                    }
                }
            }
            _ => {}
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
                self.out.hint(shard, &topic, Event::Arrived { topic: topic.clone(), epoch, message });
            }
            Some(TopicNews::Relayed { origin, .. }) if origin.run == own => {}
            Some(TopicNews::Relayed { origin, frame }) => {
                self.out.hint(shard, &topic, Event::Relayed { topic: topic.clone(), frame, origin });
            }
            Some(TopicNews::Changed { run }) if run == own => {}
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

    fn on_node_news(&mut self, payload: Bytes) {
        match node_news(payload) {
            Some(NodeNews::Evict { shard, user, device, fence }) => {
                self.out.tell(shard, Event::Evict { user, device, fence });
            }
            Some(NodeNews::Probe(number)) => {
                self.probe.heard = self.now;
                if number == self.probe.number {
                    let micros = self.now.duration_since(self.probe.at).as_micros() as u64;
                    set(&self.status.probe_us, micros);
                }
            }
            None => add(&self.status.damaged, 1),
        }
    }
}
