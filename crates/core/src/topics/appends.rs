//! Messages that have their place in a topic's order and that the engine has not stored yet.
//!
//! Each has a ticket; tickets of a shard grow by one and are never given twice. The engine answers in that order: everything
//! through a ticket is stored, or everything from a ticket on is not. (One that several nodes share answers for each message by
//! itself, [`Appends::take`], and gives the offsets: those here are only running numbers then.) After such a failure a new era begins, so that the engine
//! recognises what was posted before its shard heard of the failure: that has failed, too.
//!
//! A topic has two marks until then: what is committed is in its log, what is sequenced is here. A repetition of a publish that
//! is here waits for the same answer.
//! Invariants: tickets grow; of each topic the offsets here grow by one, and `marks` has the last of them; `by_id` has every id
//! here once; `bytes`, `deliveries` and `waiters` are the sums of all.

use std::collections::VecDeque;
use std::hash::Hash;

use hashbrown::HashMap;

use super::dedup::DedupId;
use crate::keyed::{Keyed, keyed};

/// The number of an append.
pub type Ticket = u64;

/// A message on its way into the engine.
#[derive(Debug)]
pub struct Append<K, P, W> {
    /// Its number.
    pub ticket: Ticket,
    /// The topic.
    pub topic: K,
    /// Its offset.
    pub offset: u64,
    /// What the publisher calls it.
    pub id: Option<DedupId>,
    /// Bytes of its frame.
    pub bytes: usize,
    /// Deliveries that it is to cause when it is stored, as far as that is known now.
    pub deliveries: usize,
    /// What is to be done when it is stored.
    pub payload: P,
    /// Repetitions that get the same answer, in the order in which they came.
    pub waiters: Vec<W>,
}

/// See the module. `K` names a topic, `P` is what is kept of a message, `W` a repetition that waits for it.
#[derive(Debug)]
pub struct Appends<K, P, W> {
    queue: VecDeque<Append<K, P, W>>,
    /// The next ticket.
    next: Ticket,
    era: u32,
    bytes: usize,
    deliveries: usize,
    marks: HashMap<K, Mark, Keyed>,
    by_id: HashMap<DedupId, Ticket, Keyed>,
    waiters: usize,
}

/// What of a topic is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// The offset that was given last.
    sequenced: u64,
    count: usize,
}

/// Messages, their bytes, and repetitions that may wait for the engine on one shard.
const APPENDS_MAX: usize = 8192;
const APPEND_BYTES_MAX: usize = 16 << 20;
const WAITERS_MAX: usize = 8192;
/// Deliveries that all of them may cause: the engine may store them at once, and then they are owed.
const APPEND_DELIVERIES_MAX: usize = 256 * 1024;

impl<K: Copy + Eq + Hash, P, W> Appends<K, P, W> {
    /// None yet.
    pub fn new(seed: u64) -> Self {
        Appends {
            queue: VecDeque::new(),
            next: 1,
            era: 0,
            bytes: 0,
            deliveries: 0,
            marks: HashMap::with_hasher(keyed(seed)),
            by_id: HashMap::with_hasher(keyed(seed)),
            waiters: 0,
        }
    }

    /// How often the engine has failed so far.
    pub fn era(&self) -> u32 {
        self.era
    }

    /// Messages here.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none is here.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of their frames.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a message of so many bytes, for so many recipients, may be added. One is taken whatever its size.
    pub fn has_room(&self, bytes: usize, deliveries: usize) -> bool {
        let fits = self.bytes + bytes <= APPEND_BYTES_MAX && self.deliveries + deliveries <= APPEND_DELIVERIES_MAX;
        self.queue.len() < APPENDS_MAX && (self.queue.is_empty() || fits)
    }

    /// The newest offset that a topic's messages here have; none if the topic has none here.
    pub fn sequenced(&self, topic: K) -> Option<u64> {
        self.marks.get(&topic).map(|mark| mark.sequenced)
    }

    /// Adds the message of the topic's next offset and returns its ticket. `size` is the bytes of its frame and its
    /// recipients.
    pub fn push(&mut self, topic: K, offset: u64, id: Option<DedupId>, size: (usize, usize), payload: P) -> Ticket {
        let (bytes, deliveries) = size;
        let ticket = self.next;
        self.next += 1;
        let mark = self.marks.entry(topic).or_insert(Mark { sequenced: offset - 1, count: 0 });
        debug_assert_eq!(mark.sequenced + 1, offset, "offsets of a topic grow by one");
        *mark = Mark { sequenced: offset, count: mark.count + 1 };
        if let Some(id) = id {
            self.by_id.insert(id, ticket);
        }
        self.bytes += bytes;
        self.deliveries += deliveries;
        self.queue.push_back(Append { ticket, topic, offset, id, bytes, deliveries, payload, waiters: Vec::new() });
        ticket
    }

    /// Whether the message with this id is here.
    pub fn has(&self, id: DedupId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Has a repetition wait for the message with its id, which is here. Gives it back if too many wait.
    pub fn wait(&mut self, id: DedupId, waiter: W) -> Result<(), W> {
        let place = self.by_id.get(&id).map(|ticket| self.place(*ticket));
        match place.and_then(|place| self.queue.get_mut(place)) {
            Some(append) if self.waiters < WAITERS_MAX => {
                append.waiters.push(waiter);
                self.waiters += 1;
                Ok(())
            }
            _ => Err(waiter),
        }
    }

    /// Takes the oldest message out if its ticket is at most this: the engine has stored it.
    pub fn pop_stored(&mut self, through: Ticket) -> Option<Append<K, P, W>> {
        let append = self.queue.pop_front_if(|append| append.ticket <= through)?;
        self.forget(&append);
        self.count_off(append.topic);
        Some(append)
    }

    /// Takes the message with this ticket out: an engine that answers one by one has answered for it.
    pub fn take(&mut self, ticket: Ticket) -> Option<Append<K, P, W>> {
        let place = self.place(ticket);
        if self.queue.get(place).is_none_or(|append| append.ticket != ticket) {
            return None;
        }
        let append = self.queue.remove(place)?;
        self.forget(&append);
        self.count_off(append.topic);
        Some(append)
    }

    fn count_off(&mut self, topic: K) {
        if let Some(mark) = self.marks.get_mut(&topic) {
            mark.count -= 1;
            if mark.count == 0 {
                self.marks.remove(&topic);
            }
        }
    }

    /// The place of the first message with this ticket or a higher one.
    fn place(&self, ticket: Ticket) -> usize {
        self.queue.partition_point(|append| append.ticket < ticket)
    }

    /// Takes out everything from this ticket on, oldest first, and begins a new era: the engine has not stored it. The offsets
    /// are given again, the tickets are not.
    pub fn take_failed(&mut self, from: Ticket) -> Vec<Append<K, P, W>> {
        let failed: Vec<_> = self.queue.drain(self.place(from)..).collect();
        self.era += 1;
        for append in failed.iter().rev() {
            self.forget(append);
            if let Some(mark) = self.marks.get_mut(&append.topic) {
                *mark = Mark { sequenced: append.offset - 1, count: mark.count - 1 };
                if mark.count == 0 {
                    self.marks.remove(&append.topic);
                }
            }
        }
        failed
    }

    fn forget(&mut self, append: &Append<K, P, W>) {
        self.bytes -= append.bytes;
        self.deliveries -= append.deliveries;
        self.waiters -= append.waiters.len();
        if let Some(id) = append.id {
            self.by_id.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Small = Appends<u8, u64, u32>;

    impl Small {
        fn invariants(&self) {
            let (mut marks, mut ids) = (BTreeMap::<u8, Mark>::new(), 0);
            for append in &self.queue {
                let mark = marks.entry(append.topic).or_insert(Mark { sequenced: append.offset - 1, count: 0 });
                assert_eq!(mark.sequenced + 1, append.offset);
                *mark = Mark { sequenced: append.offset, count: mark.count + 1 };
                if let Some(id) = append.id {
                    ids += 1;
                    assert_eq!(self.by_id.get(&id), Some(&append.ticket));
                }
            }
            assert!(self.queue.iter().is_sorted_by(|a, b| a.ticket < b.ticket));
            assert_eq!(marks.len(), self.marks.len());
            assert!(marks.iter().all(|(topic, mark)| self.marks.get(topic) == Some(mark)));
            assert_eq!(ids, self.by_id.len());
            assert_eq!(self.deliveries, self.queue.iter().map(|append| append.deliveries).sum::<usize>());
            assert_eq!(self.bytes, self.queue.iter().map(|append| append.bytes).sum::<usize>());
            assert_eq!(self.waiters, self.queue.iter().map(|append| append.waiters.len()).sum::<usize>());
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push {
            topic: u8,
            has_id: bool,
            bytes: usize,
        },
        /// So many of the tickets that were given.
        Stored {
            permille: u64,
        },
        Failed {
            permille: u64,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..4_u8, any::<bool>(), 0..100_usize)
                .prop_map(|(topic, has_id, bytes)| Step::Push { topic, has_id, bytes }),
            3 => (0..1_100_u64).prop_map(|permille| Step::Stored { permille }),
            1 => (700..1_100_u64).prop_map(|permille| Step::Failed { permille }),
        ]
    }

    proptest! {
        #[test]
        fn engine_stores_and_fails_then_offsets_have_no_hole_and_no_ticket_comes_twice(
            steps in prop::collection::vec(step(), 1..300)
        ) {
            let mut appends = Small::new(7);
            let mut committed = [0_u64; 4];
            let (mut last, mut number) = (0, 0_u64);
            for step in steps {
                match step {
                    Step::Push { topic, has_id, bytes } => {
                        let offset = appends.sequenced(topic).unwrap_or(committed[usize::from(topic)]) + 1;
                        let id = has_id.then(|| DedupId::of(number));
                        let ticket = appends.push(topic, offset, id, (bytes, bytes / 2), number);
                        prop_assert!(ticket > last);
                        (last, number) = (ticket, number + 1);
                        if let Some(id) = id {
                            prop_assert!(appends.has(id));
                            prop_assert_eq!(appends.wait(id, 7), Ok(()));
                        }
                    }
                    Step::Stored { permille } => {
                        while let Some(append) = appends.pop_stored(last * permille / 1000) {
                            let committed = &mut committed[usize::from(append.topic)];
                            *committed += 1;
                            prop_assert_eq!(append.offset, *committed);
                            prop_assert_eq!(append.waiters.len(), usize::from(append.id.is_some()));
                        }
                    }
                    Step::Failed { permille } => {
                        let (era, from) = (appends.era(), last * permille / 1000);
                        let failed = appends.take_failed(from);
                        prop_assert!(failed.iter().all(|append| append.ticket >= from));
                        prop_assert!(failed.is_sorted_by(|a, b| a.ticket < b.ticket));
                        prop_assert_eq!(appends.era(), era + 1);
                    }
                }
                appends.invariants();
            }
        }
    }

    #[test]
    fn engine_answers_one_by_one_then_each_message_is_taken_once() {
        let mut appends = Small::new(1);
        for number in 1..=3 {
            appends.push(0, number, Some(DedupId::of(number)), (10, 1), number);
        }
        let taken: Vec<_> = [2, 2, 4, 3, 1].iter().map(|ticket| appends.take(*ticket).map(|a| a.payload)).collect();
        assert_eq!(taken, [Some(2), None, None, Some(3), Some(1)]);
        assert!(appends.is_empty() && appends.sequenced(0).is_none() && !appends.has(DedupId::of(2)));
        appends.invariants();
    }

    #[test]
    fn as_much_waits_as_may_then_there_is_no_room() {
        let mut appends = Small::new(1);
        assert!(appends.has_room(APPEND_BYTES_MAX + 1, APPEND_DELIVERIES_MAX + 1), "one is taken whatever its size");
        appends.push(0, 1, None, (APPEND_BYTES_MAX, 1), 0);
        assert!(!appends.has_room(1, 1));
        assert!(appends.pop_stored(1).is_some() && appends.has_room(1, 1));
        appends.push(0, 2, None, (1, APPEND_DELIVERIES_MAX), 0);
        assert!(!appends.has_room(1, 1));
        assert!(appends.pop_stored(2).is_some());
        for offset in 3..=APPENDS_MAX as u64 + 2 {
            assert!(appends.has_room(1, 1));
            appends.push(0, offset, Some(DedupId::of(offset)), (1, 1), 0);
        }
        assert!(!appends.has_room(1, 1));
        for _ in 0..WAITERS_MAX {
            assert_eq!(appends.wait(DedupId::of(3), 0), Ok(()));
        }
        assert_eq!(appends.wait(DedupId::of(4), 5), Err(5));
        assert_eq!(appends.wait(DedupId::of(1), 5), Err(5), "it is not here");
    }
}
