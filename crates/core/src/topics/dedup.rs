//! Client message ids that were answered lately: the same id again gets the same answer and causes no second message.
//!
//! Bounded by time and by count. The count is shared fairly: when it is reached, ids of senders that hold more than half of
//! an even share go first, oldest first, so that a sender of many messages does not shorten the window of senders of few. What the
//! count pushes out is counted by the caller. Entries lie in the order in which they came, one cache line each; the
//! [`Index`] beside them only holds their numbers.
//! Invariants: entry `i` of the queue has number `first + i`, modulo 2^32, every entry is in the index once, and `senders`
//! says of each sender how many entries it has.

mod blocks;
mod index;

use std::hash::BuildHasher;

use crate::id::{ClientMessageId, Durability, Now, Position, Stamp};
use crate::keyed::{Keyed, keyed};
use blocks::Blocks;
use index::{Index, Live};

/// The answer that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What the message got.
    pub stamp: Stamp,
    /// The level that was reached.
    pub durability: Durability,
}

/// What a client message id is remembered under.
#[derive(Clone, Copy, Debug)]
pub struct DedupKey {
    /// Which counter is the sender's: a part of its keyed hash.
    sender: u16,
    /// Sender and topic go in as one keyed hash of both: 64 bits beside 128 that the client chose.
    sender_and_topic: u64,
    id: ClientMessageId,
    hash: u64,
}

/// Which message of which sender and topic it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DedupId {
    sender_and_topic: u64,
    id: ClientMessageId,
}

impl DedupKey {
    /// The key of a message. `hash` is the node's keyed hash, as [`Dedup::new`] makes it; `sender` is that of the sender,
    /// `sender_and_topic` that of both.
    pub fn new(hash: &Keyed, sender: u64, sender_and_topic: u64, id: ClientMessageId) -> Self {
        DedupKey {
            sender: (sender % SENDERS as u64) as u16,
            sender_and_topic,
            id,
            hash: hash_of(hash, sender_and_topic, id),
        }
    }

    /// Everything that [`Self::from_bytes`] needs.
    pub fn to_bytes(&self) -> [u8; DedupKey::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let parts = [&self.id.high.to_be_bytes()[..], &self.id.low.to_be_bytes(), &self.sender_and_topic.to_be_bytes()];
        for (place, part) in bytes.chunks_exact_mut(8).zip(parts) {
            place.copy_from_slice(part);
        }
        if let Some(place) = bytes.last_chunk_mut::<2>() {
            *place = self.sender.to_be_bytes();
        }
        bytes
    }

    /// A key as a node with the same seed has written it; `hash` is that of the seed.
    pub fn from_bytes(hash: &Keyed, bytes: &[u8; DedupKey::BYTES]) -> Self {
        let number = |at: usize| bytes.iter().skip(at).take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let (id, sender_and_topic) = (ClientMessageId { high: number(0), low: number(8) }, number(16));
        let sender = number(18) as u16 % SENDERS as u16;
        DedupKey { sender, sender_and_topic, id, hash: hash_of(hash, sender_and_topic, id) }
    }

    /// Bytes of a key.
    pub const BYTES: usize = 26;

    /// What equals the id of another key if it is for the same message.
    pub fn id(&self) -> DedupId {
        DedupId { sender_and_topic: self.sender_and_topic, id: self.id }
    }
}

#[cfg(test)]
impl DedupId {
    pub(super) fn of(number: u64) -> DedupId {
        DedupId { sender_and_topic: number, id: ClientMessageId::default() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sender_and_topic: u64,
    id: ClientMessageId,
    position: Position,
    message_id: u64,
    /// 48 bits: enough until the year 10889.
    timestamp_ms: [u8; 6],
    sender: u16,
    durability: Durability,
    /// Monotonic milliseconds, modulo 2^32.
    until_ms: u32,
}

impl Entry {
    fn answered(&self) -> Answered {
        let [a, b, c, d, e, f] = self.timestamp_ms;
        let timestamp_ms = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let stamp = Stamp { position: self.position, message_id: self.message_id, timestamp_ms };
        Answered { stamp, durability: self.durability }
    }
}

const _: () = assert!(size_of::<Entry>() == 64);

/// How many entries each sender has: a counter for each value of a part of its hash, small enough for a cache. Senders
/// that fall on one counter share a share.
#[derive(Debug, Default)]
struct Senders {
    /// Empty before the first entry.
    held: Vec<u32>,
    /// Counters that are not 0.
    count: usize,
}

impl Senders {
    fn held(&self, sender: u16) -> u32 {
        self.held.get(usize::from(sender)).copied().unwrap_or_default()
    }

    fn add(&mut self, sender: u16) {
        if self.held.is_empty() {
            self.held = vec![0; SENDERS];
        }
        if let Some(held) = self.held.get_mut(usize::from(sender)) {
            self.count += usize::from(*held == 0);
            *held += 1;
        }
    }

    fn subtract(&mut self, sender: u16) {
        if let Some(held) = self.held.get_mut(usize::from(sender)) {
            *held -= 1;
            self.count -= usize::from(*held == 0);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Dedup {
    index: Index,
    entries: Blocks<Entry>,
    /// Number of the oldest entry.
    first: u32,
    senders: Senders,
    /// Ids that [`Self::make_room`] may still move.
    may_keep: u32,
    hash: Keyed,
    window_ms: u32,
    entries_max: usize,
}

/// Ids of other senders that a new id may move to the end of the queue: on average, and at once.
const KEPT_FOR_EACH: u32 = 4;
const KEPT_AT_ONCE: u32 = 256;

/// Counters of senders: few enough for a fast cache.
const SENDERS: usize = 1 << 12;

/// Longest window: further ahead, times modulo 2^32 could not be told from the past.
const WINDOW_MS_MAX: u64 = 1 << 30;

impl Dedup {
    /// Remembers each id for `window_ms`, and at most `entries_max` of them.
    pub fn new(window_ms: u64, entries_max: usize, seed: u64) -> Self {
        Dedup {
            index: Index::default(),
            entries: Blocks::default(),
            first: 0,
            senders: Senders::default(),
            may_keep: KEPT_AT_ONCE,
            hash: keyed(seed),
            window_ms: window_ms.min(WINDOW_MS_MAX) as u32,
            entries_max: entries_max.clamp(1, u32::MAX as usize / 2),
        }
    }

    /// Prefetches what [`Self::find`] will read: it lies anywhere in a lot of memory.
    #[inline]
    pub fn prefetch(&self, key: DedupKey) {
        self.index.prefetch(key.hash);
    }

    /// The answer that this id was given within the window, or until it is swept after that.
    pub fn find(&self, key: DedupKey) -> Option<Answered> {
        let entry = |number: u32| self.entries.get(number.wrapping_sub(self.first) as usize);
        let is_it = |number: u32| {
            entry(number).is_some_and(|entry| entry.id == key.id && entry.sender_and_topic == key.sender_and_topic)
        };
        self.index.find(key.hash, self.live(), is_it).and_then(entry).map(Entry::answered)
    }

    /// Remembers the answer to a message that [`Self::find`] did not know. Returns how many were forgotten for it: before
    /// their time, or since [`Self::forget_old`] was called last.
    pub fn remember(&mut self, key: DedupKey, answered: Answered, now: Now) -> u64 {
        let mut evicted = 0;
        while self.entries.len() >= self.entries_max {
            evicted += self.make_room();
        }
        let [a, b, c, d, e, f, ..] = answered.stamp.timestamp_ms.to_le_bytes();
        evicted += self.push(Entry {
            sender_and_topic: key.sender_and_topic,
            id: key.id,
            position: answered.stamp.position,
            message_id: answered.stamp.message_id,
            timestamp_ms: [a, b, c, d, e, f],
            durability: answered.durability,
            sender: key.sender,
            until_ms: (now.mono_ms() as u32).wrapping_add(self.window_ms),
        });
        evicted
    }

    /// Puts an entry at the end of the queue. Returns how many the index pushed out for it.
    fn push(&mut self, entry: Entry) -> u64 {
        let hash = hash_of(&self.hash, entry.sender_and_topic, entry.id);
        let number = self.first.wrapping_add(self.entries.len() as u32);
        self.senders.add(entry.sender);
        self.entries.push_back(entry);
        let live = self.live();
        let Dedup { index, entries, first, hash: state, .. } = self;
        let hash_of_number = |number: u32| {
            let entry = entries.get(number.wrapping_sub(*first) as usize);
            entry.map_or(0, |entry| hash_of(state, entry.sender_and_topic, entry.id))
        };
        index.insert(hash, number, live, hash_of_number)
    }

    /// Forgets the oldest id of a sender that has half of an even share or more. Older ids of others on the way there are
    /// kept: they move to the end of the queue, few for each new id on average. Half, since senders that are equally busy
    /// are all near their share: then the oldest id simply goes, and nothing is moved.
    fn make_room(&mut self) -> u64 {
        let protected = self.entries_max / self.senders.count.max(1) / 2;
        let mut pushed_out = 0;
        self.may_keep = (self.may_keep + KEPT_FOR_EACH).min(KEPT_AT_ONCE);
        while self.may_keep > 0
            && let Some(oldest) = self.entries.front().copied()
            && (self.senders.held(oldest.sender) as usize) < protected
        {
            self.may_keep -= 1;
            self.forget_first();
            pushed_out += self.push(oldest);
        }
        self.forget_first();
        pushed_out + 1
    }

    /// Forgets what is past its window; to be called now and then.
    pub fn forget_old(&mut self, now: Now) {
        while let Some(entry) = self.entries.front()
            && (now.mono_ms() as u32).wrapping_sub(entry.until_ms) as i32 >= 0
        {
            self.forget_first();
        }
    }

    /// Takes the oldest entry out. The index needs not hear of it: a number that is not in the queue is a free slot.
    fn forget_first(&mut self) {
        let Some(sender) = self.entries.front().map(|entry| entry.sender) else { return };
        if self.entries.drop_front() {
            self.first = self.first.wrapping_add(1);
        }
        self.senders.subtract(sender);
    }

    /// Panics when the structure is broken; for tests.
    pub fn invariants(&self) {
        let held: usize = self.senders.held.iter().map(|held| *held as usize).sum();
        assert_eq!(held, self.entries.len(), "ids by sender");
        assert_eq!(self.senders.held.iter().filter(|held| **held > 0).count(), self.senders.count);
        assert!(self.entries.len() <= self.entries_max);
    }

    fn live(&self) -> Live {
        Live { first: self.first, count: self.entries.len() as u32 }
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }
}

fn hash_of(hash: &Keyed, sender_and_topic: u64, id: ClientMessageId) -> u64 {
    hash.hash_one((sender_and_topic, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Dedup {
        fn key(&self, sender: u64, sender_and_topic: u64, id: ClientMessageId) -> DedupKey {
            DedupKey::new(&self.hash, sender, sender_and_topic, id)
        }
    }

    #[test]
    fn key_is_written_and_read_back_then_it_is_the_same() {
        let dedup = Dedup::new(100, 2, 7);
        let key = dedup.key(SENDERS as u64 - 1, 0x0123_4567_89ab_cdef, ClientMessageId { high: u64::MAX - 1, low: 5 });
        let read = DedupKey::from_bytes(&dedup.hash, &key.to_bytes());
        assert_eq!((read.id(), read.hash, read.sender), (key.id(), key.hash, key.sender));
    }

    #[test]
    fn id_is_within_window_and_count_then_its_answer_is_found() {
        let at = |ms: u64| Now { mono_us: ms * 1000, unix_ms: 0 };
        let id = |low| ClientMessageId { high: 1, low };
        let answer = Answered { stamp: Stamp::default(), durability: Durability::Memory };
        let mut dedup = Dedup::new(100, 2, 0);
        dedup.first = u32::MAX;
        let remember = |dedup: &mut Dedup, low, ms| dedup.remember(dedup.key(1, 1, id(low)), answer, at(ms));
        assert_eq!(remember(&mut dedup, 1, 0), 0);
        assert_eq!(dedup.find(dedup.key(1, 1, id(1))), Some(answer));
        assert_eq!(dedup.find(dedup.key(2, 2, id(1))), None, "another sender");
        assert_eq!(dedup.find(dedup.key(1, 1, id(2))), None, "another id");
        remember(&mut dedup, 2, 10);
        assert_eq!(remember(&mut dedup, 3, 20), 1, "the oldest goes");
        assert_eq!(dedup.find(dedup.key(1, 1, id(1))), None);
        assert_eq!(dedup.find(dedup.key(1, 1, id(2))), Some(answer));
        dedup.forget_old(at(110));
        assert_eq!(dedup.len(), 1);
        dedup.forget_old(at(120));
        assert!(dedup.is_empty());
        assert_eq!(dedup.find(dedup.key(1, 1, id(3))), None);
    }

    #[test]
    fn many_ids_come_then_exactly_those_of_the_window_are_found() {
        let now = Now { mono_us: 0, unix_ms: 0 };
        let key =
            |dedup: &Dedup, low: u64| dedup.key(low % 7, low % 7, ClientMessageId { high: low.wrapping_mul(31), low });
        let answer =
            |low| Answered { stamp: Stamp { message_id: low, ..Stamp::default() }, durability: Durability::Memory };
        let mut dedup = Dedup::new(1000, 5_000, 3);
        dedup.first = u32::MAX - 7_000;
        for low in 0..20_000 {
            assert_eq!(dedup.find(key(&dedup, low)), None);
            dedup.remember(key(&dedup, low), answer(low), now);
            let oldest = (low + 1).saturating_sub(5_000);
            assert_eq!(dedup.find(key(&dedup, oldest)), Some(answer(oldest)));
            assert_eq!(dedup.find(key(&dedup, low)), Some(answer(low)));
            if oldest > 0 {
                assert_eq!(dedup.find(key(&dedup, oldest - 1)), None);
            }
        }
        for low in 15_000..20_000 {
            assert_eq!(dedup.find(key(&dedup, low)), Some(answer(low)));
        }
    }

    #[test]
    fn index_grows_then_old_ids_are_still_forgotten() {
        // More and more in a window of 100 ms: the index doubles while its oldest entries leave.
        let at = |low: u64| Now { mono_us: low.isqrt() * 20_000, unix_ms: 0 };
        let id = |low| ClientMessageId { high: 1, low };
        let answer =
            |low| Answered { stamp: Stamp { message_id: low, ..Stamp::default() }, durability: Durability::Memory };
        let mut dedup = Dedup::new(100, 1 << 20, 9);
        for low in 0..20_000 {
            dedup.forget_old(at(low));
            assert_eq!(dedup.remember(dedup.key(1, 1, id(low)), answer(low), at(low)), 0);
            let oldest = low + 1 - dedup.len() as u64;
            for known in [oldest, oldest.midpoint(low), low] {
                assert_eq!(dedup.find(dedup.key(1, 1, id(known))), Some(answer(known)), "{known} of {oldest} to {low}");
            }
            if oldest > 0 {
                assert_eq!(dedup.find(dedup.key(1, 1, id(oldest - 1))), None);
            }
        }
        assert!(dedup.len() > 1_000);
    }

    #[test]
    fn sender_has_many_ids_then_only_its_own_window_is_shortened() {
        let now = Now::default();
        let answer = Answered { stamp: Stamp::default(), durability: Durability::Memory };
        let id = |low| ClientMessageId { high: 1, low };
        let mut dedup = Dedup::new(100_000, 1000, 9);
        for light in 0..20 {
            dedup.remember(dedup.key(light, light, id(light)), answer, now);
        }
        let mut evicted = 0;
        for low in 0..50_000 {
            evicted += dedup.remember(dedup.key(77, 77, id(low)), answer, now);
            if low % 500 == 0 {
                dedup.invariants();
            }
        }
        assert_eq!(evicted, 50_020 - 1000);
        for light in 0..20 {
            assert_eq!(dedup.find(dedup.key(light, light, id(light))), Some(answer), "sender {light}");
        }
        assert_eq!(dedup.find(dedup.key(77, 77, id(49_999))), Some(answer));
        assert_eq!(dedup.find(dedup.key(77, 77, id(10))), None);
    }

    #[test]
    fn senders_are_about_equally_busy_then_ids_leave_in_the_order_in_which_they_came() {
        let answer = Answered { stamp: Stamp::default(), durability: Durability::Memory };
        let id = |low| ClientMessageId { high: 1, low };
        let mut dedup = Dedup::new(100_000, 1000, 9);
        // Ten senders, two of which send half as much again as the others.
        let sender = |low: u64| if low % 11 < 10 { low % 11 } else { low % 2 };
        for low in 0..10_000 {
            dedup.remember(dedup.key(sender(low), sender(low), id(low)), answer, Now::default());
        }
        for low in 0..10_000 {
            let found = dedup.find(dedup.key(sender(low), sender(low), id(low)));
            assert_eq!(found.is_some(), low >= 9_000, "{low}");
        }
    }

    #[test]
    fn stamp_is_remembered_then_it_comes_back_unchanged() {
        let position = Position { epoch: u64::MAX, offset: u64::MAX - 1 };
        let stamp = Stamp { position, message_id: u64::MAX - 2, timestamp_ms: 1_900_000_000_123 };
        let answer = Answered { stamp, durability: Durability::Durable };
        let mut dedup = Dedup::new(100, 10, 0);
        let key = dedup.key(1, 2, ClientMessageId { high: 3, low: 4 });
        dedup.remember(key, answer, Now::default());
        assert_eq!(dedup.find(key), Some(answer));
    }
}
