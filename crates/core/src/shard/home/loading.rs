//! Topics that an engine keeps: loaded when they are needed first, and taken out of memory when nobody uses them.
//!
//! Letters for a topic that is being loaded wait for it, in the order in which they came, whatever they want; only a publish that
//! the dedup window knows is answered before. Not used where messages are kept in memory.

use std::sync::Arc;

use super::Topic;
use super::backed::{Refreshed, TopicNow};
use crate::close::ErrorCode;
use crate::id::{Now, Position};
use crate::limits::Engine;
use crate::shard::letter::{Publish, SentCopy, Subscribe};
use crate::shard::{Effect, EngineUnavailable, Remembered, Shard, ToEdge, ToHome};
use crate::topics::LoadedTopic;

impl Shard {
    /// Gives a letter back that can be handled now. One for a topic that is not in memory waits until the topic is loaded.
    pub(super) fn wait_for_topic(&mut self, letter: ToHome, now: Now) -> Option<ToHome> {
        let homes = &self.homes;
        let stale = |known: Option<Topic>| known.is_some_and(|known| homes.is_stale(known, now));
        let ahead = |known: Option<Topic>, at: Option<Position>| {
            known.zip(at).is_some_and(|(known, at)| homes.is_ahead(known, at))
        };
        let (topic, waits) = match &letter {
            ToHome::Attach(attach) => {
                let topic: Arc<str> = format!("@{}", attach.user).into();
                let known = homes.find(&topic);
                let waits = match homes.settings.engine {
                    // First the device is claimed; then what other nodes have told of it has to be known.
                    Engine::Shared => attach.fence != 0,
                    Engine::Store | Engine::Memory => homes.waits_for_topic(&topic, 0, known) || stale(known),
                };
                (topic, waits)
            }
            ToHome::Subscribe(subscribe) => {
                let known = homes.find(&subscribe.room);
                let waits = homes.waits_for_topic(&subscribe.room, subscribe.namespace, known)
                    || stale(known)
                    || ahead(known, subscribe.since);
                (subscribe.room.clone(), waits)
            }
            ToHome::History(history) => {
                let known = homes.find(&history.topic);
                let namespace = homes.settings.namespace_of(&history.topic).map_or(usize::MAX, |(index, _)| index);
                let waits = homes.waits_for_topic(&history.topic, namespace, known)
                    || stale(known)
                    || ahead(known, history.since.or(history.before));
                (history.topic.clone(), waits)
            }
            ToHome::Presence { room, .. } => {
                (room.clone(), homes.settings.engine == Engine::Store && homes.loads.contains(room))
            }
            // These speak of a topic that is in memory while their session lives. A Publish looks into the dedup window first.
            ToHome::Publish(_)
            | ToHome::Copy(_)
            | ToHome::Detach { .. }
            | ToHome::Ack { .. }
            | ToHome::CatchUp { .. }
            | ToHome::Unsubscribe { .. }
            | ToHome::Credit { .. } => return Some(letter),
        };
        if !waits {
            return Some(letter);
        }
        if !self.homes.loads.has_room() {
            self.fail_letter(letter, now);
            return None;
        }
        self.homes.loads.wait(&topic, letter, None);
        self.ask_engine();
        None
    }

    /// A publish waits for its topic, unless too much waits already.
    pub(super) fn wait_with_publish(&mut self, publish: Publish, now: Now) {
        let bytes = publish.draft.len();
        if !self.homes.loads.has_room_for_message(bytes) {
            return self.fail(&publish, ErrorCode::Overloaded, now);
        }
        let topic: Arc<str> = publish.draft.topic().into();
        self.homes.loads.wait(&topic, ToHome::Publish(Box::new(publish)), Some(bytes));
        self.ask_engine();
    }

    /// A copy waits for its sender's inbox, unless too much waits already.
    pub(super) fn wait_with_copy(&mut self, copy: SentCopy) {
        let bytes = copy.draft.len();
        if !self.homes.loads.has_room_for_message(bytes) {
            return self.metrics.inbox_copies_dropped.increment();
        }
        let topic: Arc<str> = copy.draft.topic().into();
        self.homes.loads.wait(&topic, ToHome::Copy(Box::new(copy)), Some(bytes));
        self.ask_engine();
    }

    /// Asks the engine for topics and messages, as many as it may have to look for at once.
    pub(super) fn ask_engine(&mut self) {
        // Before the same topics are loaded again.
        for topic in self.homes.take_unloaded() {
            self.tell_members_of(&topic);
            self.effects.push_back(Effect::Unload { topic });
        }
        while let Some(topic) = self.homes.loads.next_topic() {
            let known = self.homes.find(&topic).and_then(|topic| self.homes.log_position(topic));
            self.effects.push_back(Effect::Load { topic, epoch: known.map_or(0, |known| known.epoch) });
        }
        while let Some((read, messages)) = self.homes.reads.next_read() {
            self.effects.push_back(Effect::Read { read, messages });
        }
    }

    /// The engine has loaded a topic, or could not: what waited for it goes on.
    pub(in crate::shard) fn on_loaded(
        &mut self,
        topic: &Arc<str>,
        result: Result<Box<LoadedTopic>, EngineUnavailable>,
        now: Now,
    ) {
        let newest = result.as_ref().map_or(0, |loaded| loaded.position.offset);
        let refreshed = result.map_or(Refreshed::No, |loaded| self.homes.load_or_refresh(topic, &loaded, now));
        let is_there = refreshed != Refreshed::No;
        if let Some(topic) = self.homes.find(topic).filter(|_| refreshed == Refreshed::Anew) {
            self.tell_of_epoch(topic, now);
        }
        if let Some(topic) = self.homes.find(topic).filter(|_| self.settings.engine == Engine::Shared) {
            // What other nodes have stored may not have arrived here.
            self.read_up_to(topic, newest);
        }
        let known = self.homes.find(topic);
        if known.is_some_and(|known| self.homes.behind.contains_key(&known)) && self.homes.loads.has_waiting(topic) {
            // A client may have seen messages on another node that are still to be read here.
            self.homes.loads.hold(topic, newest);
        } else {
            self.handle_waiting(topic, is_there, now);
        }
        self.ask_engine();
    }

    /// What other nodes had stored of a topic has been read, or cannot be: what waited for it goes on.
    pub(super) fn end_hold(&mut self, topic: Topic, is_there: bool, now: Now) {
        if let Some(name) = self.homes.name_of(topic).filter(|name| self.homes.loads.held_up_to(name).is_some()) {
            self.handle_waiting(&name, is_there, now);
        }
    }

    /// What waited for a topic goes on.
    fn handle_waiting(&mut self, topic: &Arc<str>, is_there: bool, now: Now) {
        let is_known = self.homes.find(topic).is_some();
        for letter in self.homes.loads.take(topic) {
            // What is written to a topic in memory need not know how old its log is.
            let is_write = matches!(letter, ToHome::Publish(_) | ToHome::Copy(_) | ToHome::Presence { .. });
            match is_there || (is_known && is_write) {
                // One of the letters before may have been the end of the topic in memory.
                true if self.homes.find(topic).is_none() => self.on_letter_to_home(letter, now),
                true => self.handle_letter_to_home(letter, now),
                false => self.fail_letter(letter, now),
            }
            // As if each had come by itself.
            self.read_own_mail(now);
        }
    }

    /// Client message ids that were answered before the node was started.
    pub(in crate::shard) fn on_remember(&mut self, remembered: Vec<Remembered>, now: Now) {
        for Remembered { topic, key, answered } in remembered {
            if self.home_of_topic(&topic) == self.id {
                self.remember_if_new(key, answered, now);
            }
        }
    }

    /// What a letter asks for cannot be done, for its topic cannot be loaded; it may be asked for again.
    fn fail_letter(&mut self, letter: ToHome, now: Now) {
        match letter {
            ToHome::Publish(publish) => self.fail(&publish, ErrorCode::StorageFull, now),
            ToHome::Copy(_) => self.metrics.inbox_copies_dropped.increment(),
            ToHome::History(history) => {
                let (to, request) = (history.from.connection, history.request);
                self.post_to_edge(history.from.shard, ToEdge::LookupFailed { to, request });
            }
            ToHome::Presence { from, request, .. } => {
                self.post_to_edge(from.shard, ToEdge::LookupFailed { to: from.connection, request });
            }
            ToHome::Attach(attach) => {
                if attach.fence != 0 {
                    return self.put_claim_off(&attach);
                }
                self.post_to_edge(attach.from.shard, ToEdge::Unavailable { to: attach.from.connection });
            }
            ToHome::Subscribe(subscribe) => {
                let Subscribe { from, request, local, counted, .. } = *subscribe;
                let to = from.connection;
                self.post_to_edge(from.shard, ToEdge::NotSubscribed { to, request, local, counted });
            }
            // They never wait.
            ToHome::Detach { .. }
            | ToHome::Ack { .. }
            | ToHome::CatchUp { .. }
            | ToHome::Unsubscribe { .. }
            | ToHome::Credit { .. } => {}
        }
    }

    /// Lets age work on a few topics, and takes those out of memory that nobody uses.
    pub(in crate::shard) fn sweep_topics(&mut self, now: Now) {
        // First: a topic leaves memory only when the engine has its latest state.
        self.keep_states(now);
        self.homes.sweep(now);
        self.ask_engine();
    }

    /// Tells the engine at once what is known of a topic beside its messages: that a device is new, for one, which it must know
    /// before that device's messages are acknowledged by all others.
    /// `forgotten`: devices that are not known any more.
    pub(super) fn keep_state(&mut self, topic: Topic, forgotten: Vec<Arc<str>>, now: Now) {
        if self.settings.engine == Engine::Memory {
            return;
        }
        if let Some(TopicNow { topic, epoch, mut state }) = self.homes.state_of(topic, now) {
            state.forgotten = forgotten;
            self.effects.push_back(Effect::Cursor { topic, epoch, state });
        }
    }

    /// Tells the engine what has changed of topics beside their messages since the last time.
    fn keep_states(&mut self, now: Now) {
        if self.settings.engine == Engine::Memory {
            return;
        }
        self.homes.reads.end_pauses(now.mono_ms());
        self.ask_engine();
        self.tell_members();
        for TopicNow { topic, epoch, state } in self.homes.changed_states(now) {
            self.effects.push_back(Effect::Cursor { topic, epoch, state });
        }
    }
}
