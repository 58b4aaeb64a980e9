//! Topics that are being loaded from an engine, and what waits for each of them, in order.
//!
//! All that waits is bounded, and messages are more tightly: while an engine does not answer, clients give up and come again, and
//! what they have asked for before still waits.
//! Invariant: `letters`, `messages` and `bytes` are the sums of what waits.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::requests::Requests;
use crate::keyed::{Keyed, keyed};

/// See the module. `W` is what waits.
#[derive(Debug)]
pub struct Loads<W> {
    topics: HashMap<Arc<str>, Vec<Waiting<W>>, Keyed>,
    /// Topics that are being loaded, and are to be loaded once more because they have changed since they were asked for.
    again: HashSet<Arc<str>, Keyed>,
    /// Topics that were loaded, and up to where their messages are still read before what waits for them can go on.
    held: HashMap<Arc<str>, u64, Keyed>,
    requests: Requests<Arc<str>>,
    letters: usize,
    messages: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting<W> {
    what: W,
    /// Bytes of the message that it is; none if it is no message.
    message_bytes: Option<usize>,
}

/// Topics that the engine is to load at once.
const LOADS_WITH_ENGINE_MAX: usize = 256;
/// What may wait for topics of one shard, all together.
const LETTERS_MAX: usize = 64 * 1024;
/// Messages among that, and their bytes.
const MESSAGES_MAX: usize = 8192;
const BYTES_MAX: usize = 16 << 20;

impl<W> Loads<W> {
    /// None yet.
    pub fn new(seed: u64) -> Self {
        Loads {
            topics: HashMap::with_hasher(keyed(seed)),
            again: HashSet::with_hasher(keyed(seed)),
            held: HashMap::with_hasher(keyed(seed)),
            requests: Requests::new(LOADS_WITH_ENGINE_MAX),
            letters: 0,
            messages: 0,
            bytes: 0,
        }
    }

    /// Topics that are being loaded.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether no topic is being loaded.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Whether this topic is being loaded.
    pub fn contains(&self, topic: &str) -> bool {
        !self.topics.is_empty() && self.topics.contains_key(topic)
    }

    /// Whether something waits for this topic.
    pub fn has_waiting(&self, topic: &str) -> bool {
        !self.topics.is_empty() && self.topics.get(topic).is_some_and(|waiting| !waiting.is_empty())
    }

    /// Whether anything but a message may wait.
    pub fn has_room(&self) -> bool {
        self.letters < LETTERS_MAX
    }

    /// Whether a message of so many bytes may wait.
    pub fn has_room_for_message(&self, bytes: usize) -> bool {
        self.has_room() && self.messages < MESSAGES_MAX && (self.messages == 0 || self.bytes + bytes <= BYTES_MAX)
    }

    /// Has something wait for a topic, behind what waits for it already. A topic that nothing waited for is asked for.
    pub fn wait(&mut self, topic: &str, what: W, message_bytes: Option<usize>) {
        self.letters += 1;
        if let Some(bytes) = message_bytes {
            self.messages += 1;
            self.bytes += bytes;
        }
        let waiting = Waiting { what, message_bytes };
        if let Some(others) = self.topics.get_mut(topic) {
            return others.push(waiting);
        }
        let topic: Arc<str> = topic.into();
        self.requests.push(topic.clone());
        self.topics.insert(topic, vec![waiting]);
    }

    /// Asks for a topic that nothing waits for: where its log stands is not known well enough any more.
    pub fn ask(&mut self, topic: Arc<str>) {
        if !self.topics.contains_key(&topic) {
            self.requests.push(topic.clone());
            self.topics.insert(topic, Vec::new());
        }
    }

    /// As [`Self::ask`]; a topic that is being loaded is loaded once more after that.
    pub fn ask_anew(&mut self, topic: Arc<str>) {
        if self.held.remove(&topic).is_some() {
            self.requests.push(topic);
        } else if self.topics.contains_key(&topic) {
            self.again.insert(topic);
        } else {
            self.ask(topic);
        }
    }

    /// The next topic that the engine is to load.
    pub fn next_topic(&mut self) -> Option<Arc<str>> {
        self.requests.take_next()
    }

    /// The engine has answered for a topic: what waits for it goes on waiting until [`Self::take`], for the messages up to this offset.
    pub fn hold(&mut self, topic: &Arc<str>, upto: u64) {
        if self.topics.contains_key(topic) && self.held.insert(topic.clone(), upto).is_none() {
            self.requests.answered();
        }
    }

    /// Up to where messages of the topic are to be read before what waits for it can go on, if it was loaded.
    pub fn held_up_to(&self, topic: &str) -> Option<u64> {
        if self.held.is_empty() { None } else { self.held.get(topic).copied() }
    }

    /// The engine has answered for a topic: what waited for it, in order.
    pub fn take(&mut self, topic: &str) -> Vec<W> {
        let Some(waiting) = self.topics.remove(topic) else { return Vec::new() };
        if self.held.remove(topic).is_none() {
            self.requests.answered();
        }
        if let Some(topic) = self.again.take(topic) {
            self.ask(topic);
        }
        waiting.into_iter().map(|waiting| self.forget(waiting)).collect()
    }

    fn forget(&mut self, waiting: Waiting<W>) -> W {
        self.letters -= 1;
        if let Some(bytes) = waiting.message_bytes {
            self.messages -= 1;
            self.bytes -= bytes;
        }
        waiting.what
    }

    /// Panics when the sums are wrong; for tests.
    pub fn invariants(&self) {
        assert!(self.held.keys().chain(&self.again).all(|topic| self.topics.contains_key(topic)));
        let waiting = || self.topics.values().flatten();
        assert_eq!(self.letters, waiting().count());
        assert_eq!(self.messages, waiting().filter(|waiting| waiting.message_bytes.is_some()).count());
        assert_eq!(self.bytes, waiting().filter_map(|waiting| waiting.message_bytes).sum::<usize>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_wait_for_a_topic_then_it_is_asked_for_once_and_they_keep_their_order() {
        let mut loads = Loads::new(1);
        assert!(!loads.contains("@bob"));
        loads.wait("@bob", 1, Some(10));
        loads.wait("chat:a", 2, None);
        loads.wait("@bob", 3, None);
        loads.invariants();
        assert!(loads.contains("@bob"));
        let asked: Vec<_> = std::iter::from_fn(|| loads.next_topic()).map(|topic| topic.to_string()).collect();
        assert_eq!(asked, ["@bob", "chat:a"]);
        assert_eq!((loads.take("@bob"), loads.take("@bob"), loads.len()), (vec![1, 3], vec![], 1));
        loads.invariants();
    }

    #[test]
    fn topic_is_asked_for_that_nothing_waits_for_then_what_comes_meanwhile_waits_for_the_same_answer() {
        let mut loads = Loads::new(1);
        loads.ask("@bob".into());
        loads.ask("@bob".into());
        assert!(loads.contains("@bob") && !loads.has_waiting("@bob"));
        loads.wait("@bob", 1, None);
        assert!(loads.has_waiting("@bob"));
        assert_eq!((loads.next_topic().as_deref(), loads.next_topic()), (Some("@bob"), None));
        assert_eq!(loads.take("@bob"), [1]);
    }

    #[test]
    fn as_many_messages_wait_as_may_then_there_is_no_room() {
        let mut loads = Loads::new(1);
        assert!(loads.has_room_for_message(BYTES_MAX + 1), "one waits whatever its size");
        loads.wait("@bob", 0, Some(BYTES_MAX));
        assert!(!loads.has_room_for_message(1));
        loads.take("@bob");
        for _ in 0..MESSAGES_MAX {
            assert!(loads.has_room_for_message(1));
            loads.wait("@bob", 0, Some(1));
        }
        assert!(!loads.has_room_for_message(1));
    }

    #[test]
    fn as_much_waits_as_may_then_there_is_no_room_for_anything() {
        let mut loads = Loads::new(1);
        for _ in 0..LETTERS_MAX {
            assert!(loads.has_room());
            loads.wait("@bob", 0, None);
        }
        assert!(!loads.has_room() && !loads.has_room_for_message(1));
        loads.invariants();
        loads.take("@bob");
        assert!(loads.has_room() && loads.has_room_for_message(1));
    }
}
