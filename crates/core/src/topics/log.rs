//! A topic's log in memory: offsets in order, bounded by count, size and age.
//!
//! Sequencing ([`Log::next_position`]) and committing ([`Log::commit`]) are separate, so that a store that answers
//! later can stand between them. Each entry carries its offset: a message whose own ttl has passed leaves from the middle,
//! and its offset is missing from then on. That is no loss, for its publisher wanted it; everything else that leaves is,
//! and [`Log::lost`] is the highest offset that left so. Ages follow the monotonic clock, which never steps.
//! Where an engine keeps the messages, only the newest are here (`backing`).
//!
//! Invariants: offsets grow; `lost` is below every offset held; `held` is the sum of what the entries take; the newest
//! `uncounted` entries are in no publisher's sum, the others are.

mod backing;

use std::collections::VecDeque;

use bytes::Bytes;

use backing::Backing;
pub use backing::Extent;

use super::publishers::Publishers;
use super::size::{allocated, of_frame};
use crate::id::{Address, Position};

/// A retained message.
#[derive(Clone, Debug)]
pub struct Retained {
    /// The whole Message frame.
    frame: Bytes,
    offset: u64,
    expires: Expiry,
    /// The session that published it, packed ([`Address::to_u64`]), for sender exclusion; 0 for none.
    origin: u64,
    /// Whose message it is, see [`Publishers`].
    publisher: u64,
}

// One cache line.
const _: () = assert!(size_of::<Retained>() == 64);

/// Monotonic milliseconds after which a message is no longer brought, and whether its publisher said so: the time stands
/// above, the lowest bit below.
#[derive(Clone, Copy, Debug)]
struct Expiry(u64);

impl Expiry {
    fn new(at_ms: u64, own_ttl: bool) -> Self {
        Expiry((at_ms.min(u64::MAX >> 1) << 1) | u64::from(own_ttl))
    }

    fn at_ms(self) -> u64 {
        self.0 >> 1
    }

    fn is_own(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Retained {
    /// Bytes of the heap that it takes, its place in the log included.
    fn cost(&self) -> usize {
        of_frame(&self.frame) + size_of::<Retained>()
    }

    fn is_dead(&self, now_ms: u64) -> bool {
        self.expires.at_ms() <= now_ms
    }
}

/// Bytes that a message of this length takes in a log, as publishers' sums and `bytes_max` count it.
pub const fn message_cost(frame_bytes: usize) -> usize {
    super::size::frame_bytes(frame_bytes) + size_of::<Retained>()
}

/// A message that is to be kept.
#[derive(Debug)]
pub struct Message {
    /// The whole frame.
    pub frame: Bytes,
    /// Its own ttl in milliseconds; 0 for the log's age limit, which bounds any other value.
    pub ttl_ms: u64,
    /// The session that published it.
    pub from: Option<Address>,
    /// Whose message it is, see [`Publishers`].
    pub publisher: u64,
}

/// Bounds of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Most messages.
    pub messages_max: usize,
    /// Most bytes, as [`message_cost`] counts them; one message is kept whatever its size. Where an engine keeps the messages,
    /// most bytes in memory.
    pub bytes_max: usize,
    /// Longest stay, in milliseconds.
    pub age_ms_max: u64,
}

/// How many messages left a log, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Too old, or past their own ttl.
    pub age: u64,
    /// There were too many.
    pub count: u64,
    /// They were too large together.
    pub size: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    epoch: u64,
    /// The newest offset that was given.
    last: u64,
    lost: u64,
    /// No message that is held passes its own ttl before this.
    own_due_ms: u64,
    /// Positions of these epochs, up to these offsets, are positions of the log's own epoch: an engine has carried its messages over.
    #[expect(clippy::box_collection, reason = "eight bytes where nothing was carried over")]
    before: Option<Box<Vec<Position>>>,
    entries: VecDeque<Retained>,
    held: usize,
    uncounted: u32,
    /// Set where an engine keeps the messages.
    backing: Option<Backing>,
}

/// Messages of a log that are in no publisher's sum yet: most are acknowledged before they are ever counted. Larger ones than
/// this, in bytes, are counted at once, and so is every message for a user without a connected device.
const UNCOUNTED_MAX: u32 = 16;
const UNCOUNTED_BYTES_MAX: usize = 2048;
/// A log whose dead messages lie between live ones is searched for them when it is this part over a bound, so that the
/// search is paid for by the messages that came since.
const SLACK: usize = 16;

/// What a reader gets.
#[derive(Debug, Default)]
pub struct Gap {
    /// Offset and frame, in order.
    pub frames: Vec<(u64, Bytes)>,
    /// Everything up to this offset was considered.
    pub upto: u64,
    /// The log holds more after `upto`.
    pub more: bool,
    /// Messages after the reader's position left the log before their own ttl; the frames start after the hole.
    pub lost: bool,
}

impl Log {
    /// An empty log of a new epoch.
    pub fn new(epoch: u64) -> Self {
        Log::resumed(Position { epoch, offset: 0 })
    }

    /// An empty log that goes on from a position of which nothing else is known.
    pub fn resumed(position: Position) -> Self {
        Log {
            epoch: position.epoch,
            last: position.offset,
            lost: position.offset,
            own_due_ms: u64::MAX,
            before: None,
            entries: VecDeque::new(),
            held: 0,
            uncounted: 0,
            backing: None,
        }
    }

    /// The newest position; offset 0 before the first message.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last }
    }

    /// The position that the next message will have.
    pub fn next_position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last + 1 }
    }

    /// The highest offset that left other than by its own ttl: a reader that stands there, or later, misses nothing.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes of the heap that the log takes, its own structure not counted.
    pub fn heap_bytes(&self) -> usize {
        let place = size_of::<Retained>();
        self.held - self.entries.len() * place + allocated(self.entries.capacity() * place)
    }

    /// Messages kept, whether their own ttl has passed or not, and whether they are in memory or not.
    pub fn len(&self) -> usize {
        self.backing.map_or(self.entries.len(), |_| (self.last - self.floor()) as usize)
    }

    /// Whether no message is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the message of [`Self::next_position`]. It is counted for its publisher at once if `stays`, and later
    /// otherwise.
    pub fn commit(
        &mut self,
        message: Message,
        stays: bool,
        limits: LogLimits,
        publishers: &mut Publishers,
        now_ms: u64,
    ) {
        let Message { frame, ttl_ms, from, publisher } = message;
        let own_ttl = ttl_ms != 0 && ttl_ms < limits.age_ms_max;
        let age_ms = if own_ttl { ttl_ms } else { limits.age_ms_max };
        let expires = Expiry::new(now_ms.saturating_add(age_ms), own_ttl);
        if own_ttl {
            self.own_due_ms = self.own_due_ms.min(expires.at_ms());
        }
        self.last += 1;
        let origin = from.map_or(0, Address::to_u64);
        let entry = Retained { frame, offset: self.last, expires, origin, publisher };
        let cost = entry.cost();
        self.held += cost;
        if self.entries.capacity() == 0 {
            // Most users who are away are written to once or twice.
            self.entries.reserve_exact(1);
        }
        self.entries.push_back(entry);
        self.uncounted += 1;
        if stays || self.uncounted > UNCOUNTED_MAX || cost > UNCOUNTED_BYTES_MAX {
            self.count(publishers);
        }
    }

    /// Counts every message for its publisher.
    fn count(&mut self, publishers: &mut Publishers) {
        for entry in self.entries.range(self.counted()..) {
            publishers.add(entry.publisher, entry.cost());
        }
        self.uncounted = 0;
    }

    /// Messages that are in their publishers' sums: the oldest so many.
    fn counted(&self) -> usize {
        self.entries.len() - self.uncounted as usize
    }

    /// Removes the oldest message; it counts as lost unless its own ttl has passed.
    fn pop_front(&mut self, now_ms: u64, publishers: &mut Publishers) -> bool {
        let Some(entry) = self.take_front(publishers) else { return false };
        if !(entry.expires.is_own() && entry.is_dead(now_ms)) {
            self.lost = entry.offset;
        }
        true
    }

    /// Takes the oldest message out of memory.
    fn take_front(&mut self, publishers: &mut Publishers) -> Option<Retained> {
        let is_counted = self.counted() > 0;
        let entry = self.entries.pop_front()?;
        let cost = entry.cost();
        self.held -= cost;
        if is_counted {
            publishers.subtract(entry.publisher, cost);
        } else {
            self.uncounted -= 1;
        }
        Some(entry)
    }

    /// Takes every message out of memory: the topic goes.
    pub fn discard(&mut self, publishers: &mut Publishers) {
        while self.take_front(publishers).is_some() {}
    }

    /// Removes everything up to an offset, and says how many messages those were.
    pub fn remove_through(&mut self, offset: u64, now_ms: u64, publishers: &mut Publishers) -> u64 {
        if self.backing.is_some() {
            return self.remove_backed(offset, publishers);
        }
        let mut removed = 0;
        while self.entries.front().is_some_and(|entry| entry.offset <= offset) && self.pop_front(now_ms, publishers) {
            removed += 1;
        }
        if self.entries.is_empty() && self.entries.capacity() > 8 {
            self.entries.shrink_to(0);
        }
        removed
    }

    /// Removes whatever is too old, too much or too large, or has passed its own ttl, wherever it lies; counts what
    /// stays for its publishers, and gives memory back that is not needed any more.
    pub fn trim(&mut self, limits: LogLimits, now_ms: u64, publishers: &mut Publishers) -> Trimmed {
        if self.backing.is_some() {
            return self.trim_backed(limits, now_ms, publishers);
        }
        let mut trimmed = Trimmed { age: self.remove_old(now_ms, publishers), ..Trimmed::default() };
        trimmed.age += self.remove_dead(now_ms, publishers);
        self.remove_over(limits, now_ms, publishers, &mut trimmed);
        self.count(publishers);
        if self.entries.is_empty() || self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        trimmed
    }

    /// [`Self::trim`] after a commit, at a bounded cost: dead messages between live ones stay while they push out nothing.
    /// With such messages the log may be a sixteenth over its bounds.
    pub fn trim_committed(&mut self, limits: LogLimits, now_ms: u64, publishers: &mut Publishers) -> Trimmed {
        if self.backing.is_some() {
            return self.trim_backed(limits, now_ms, publishers);
        }
        let mut trimmed = Trimmed { age: self.remove_old(now_ms, publishers), ..Trimmed::default() };
        if self.is_over(limits) && self.own_due_ms <= now_ms {
            let slack = |max: usize| max.saturating_add(max / SLACK);
            let (messages_max, bytes_max) = (slack(limits.messages_max), slack(limits.bytes_max));
            if !self.is_over(LogLimits { messages_max, bytes_max, ..limits }) {
                return trimmed;
            }
            trimmed.age += self.remove_dead(now_ms, publishers);
        }
        self.remove_over(limits, now_ms, publishers, &mut trimmed);
        trimmed
    }

    fn is_over(&self, limits: LogLimits) -> bool {
        self.entries.len() > limits.messages_max || (self.held > limits.bytes_max && self.entries.len() > 1)
    }

    /// Removes dead messages from the front: all that have reached the log's age limit, for those lie in order.
    fn remove_old(&mut self, now_ms: u64, publishers: &mut Publishers) -> u64 {
        let mut removed = 0;
        while self.entries.front().is_some_and(|entry| entry.is_dead(now_ms)) && self.pop_front(now_ms, publishers) {
            removed += 1;
        }
        removed
    }

    /// Removes messages whose own ttl has passed, wherever they lie.
    fn remove_dead(&mut self, now_ms: u64, publishers: &mut Publishers) -> u64 {
        if self.own_due_ms > now_ms {
            return 0;
        }
        let (before, counted) = (self.entries.len(), self.counted());
        let (mut index, mut own_due_ms) = (0, u64::MAX);
        let Log { entries, held, uncounted, .. } = self;
        entries.retain(|entry| {
            let is_counted = index < counted;
            index += 1;
            if !entry.expires.is_own() {
                return true;
            }
            if !entry.is_dead(now_ms) {
                own_due_ms = own_due_ms.min(entry.expires.at_ms());
                return true;
            }
            let cost = entry.cost();
            *held -= cost;
            if is_counted {
                publishers.subtract(entry.publisher, cost);
            } else {
                *uncounted -= 1;
            }
            false
        });
        self.own_due_ms = own_due_ms;
        (before - self.entries.len()) as u64
    }

    fn remove_over(&mut self, limits: LogLimits, now_ms: u64, publishers: &mut Publishers, trimmed: &mut Trimmed) {
        while self.entries.len() > limits.messages_max && self.pop_front(now_ms, publishers) {
            trimmed.count += 1;
        }
        while self.held > limits.bytes_max && self.entries.len() > 1 && self.pop_front(now_ms, publishers) {
            trimmed.size += 1;
        }
    }

    /// Messages after `since`, at most `messages_max` and about `bytes_max`. `without` leaves out what that session
    /// published.
    pub fn after(
        &self,
        since: u64,
        messages_max: usize,
        bytes_max: usize,
        without: Option<Address>,
        now_ms: u64,
    ) -> Gap {
        let start = since.max(self.floor());
        let mut gap = Gap { frames: Vec::new(), upto: start, more: false, lost: since < self.lost };
        let mut bytes = 0;
        let without = without.map(Address::to_u64);
        let first = self.entries.partition_point(|entry| entry.offset <= start);
        for entry in self.entries.range(first..) {
            if gap.frames.len() >= messages_max || (bytes + entry.frame.len() > bytes_max && bytes > 0) {
                gap.more = true;
                return gap;
            }
            gap.upto = entry.offset;
            if !entry.is_dead(now_ms) && without != Some(entry.origin) {
                bytes += entry.frame.len();
                gap.frames.push((entry.offset, entry.frame.clone()));
            }
        }
        gap.upto = gap.upto.max(self.last);
        gap
    }

    /// The last of the messages that follow an offset without a gap and were published by this session; the offset itself
    /// if none does.
    pub fn end_of_own(&self, offset: u64, origin: Address) -> u64 {
        let origin = origin.to_u64();
        let first = self.entries.partition_point(|entry| entry.offset <= offset);
        let follows =
            |end: u64, entry: &Retained| (entry.offset == end + 1 && entry.origin == origin).then_some(end + 1);
        self.entries
            .range(first..)
            .try_fold(offset, |end, entry| follows(end, entry).ok_or(end))
            .unwrap_or_else(|end| end)
    }

    /// The newest messages before an offset, in order: at most `messages_max`, and at most `bytes_max` unless it is one
    /// that is larger. And whether the log holds older ones.
    pub fn newest(&self, before: u64, messages_max: usize, bytes_max: usize, now_ms: u64) -> (Vec<Bytes>, bool) {
        let (mut frames, mut bytes, mut more) = (Vec::new(), 0, false);
        let end = self.entries.partition_point(|entry| entry.offset < before);
        for entry in self.entries.range(..end).rev().filter(|entry| !entry.is_dead(now_ms)) {
            bytes += entry.frame.len();
            more = frames.len() >= messages_max || (bytes > bytes_max && !frames.is_empty());
            if more {
                break;
            }
            frames.push(entry.frame.clone());
        }
        frames.reverse();
        (frames, more)
    }

    /// Whether a reader at this position can be brought everything after it.
    pub fn reaches(&self, since: Position) -> bool {
        let is_of_epoch = since.epoch == self.epoch || self.goes_on_from(since);
        is_of_epoch && since.offset >= self.lost && since.offset <= self.last
    }

    /// Adds what is counted for each publisher to `sums`. Panics when the structure is broken; for tests.
    pub fn invariants(&self, sums: &mut std::collections::HashMap<u64, usize>) {
        assert_eq!(self.held, self.entries.iter().map(Retained::cost).sum::<usize>(), "bytes held");
        self.backing_invariants();
        let mut before = self.lost;
        for entry in &self.entries {
            assert!(entry.offset > before, "offset {} behind {before}", entry.offset);
            assert!(!entry.expires.is_own() || entry.expires.at_ms() >= self.own_due_ms);
            before = entry.offset;
        }
        assert!(before <= self.last, "an offset that was not given");
        assert!(self.uncounted <= UNCOUNTED_MAX, "messages that are not counted");
        for entry in self.entries.range(..self.counted()) {
            *sums.entry(entry.publisher).or_default() += entry.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LogLimits = LogLimits { messages_max: 100, bytes_max: usize::MAX, age_ms_max: 1000 };

    struct Kept {
        log: Log,
        publishers: Publishers,
    }

    impl Kept {
        fn new() -> Kept {
            Kept { log: Log::new(7), publishers: Publishers::default() }
        }

        /// Messages of ten bytes, one a millisecond.
        fn filled(messages: u64) -> Kept {
            let mut kept = Kept::new();
            for at_ms in 0..messages {
                kept.commit(0, at_ms);
            }
            kept
        }

        fn commit(&mut self, ttl_ms: u64, now_ms: u64) {
            let message = Message { frame: Bytes::from_static(&[1; 10]), ttl_ms, from: None, publisher: ttl_ms };
            self.log.commit(message, false, LIMITS, &mut self.publishers, now_ms);
        }

        fn trim(&mut self, messages_max: usize, now_ms: u64) -> (u64, u64) {
            let limits = LogLimits { messages_max, ..LIMITS };
            let trimmed = self.log.trim(limits, now_ms, &mut self.publishers);
            self.check();
            (trimmed.count, trimmed.age)
        }

        fn trim_committed(&mut self, messages_max: usize, now_ms: u64) -> (u64, u64) {
            let limits = LogLimits { messages_max, ..LIMITS };
            let trimmed = self.log.trim_committed(limits, now_ms, &mut self.publishers);
            self.check();
            (trimmed.count, trimmed.age)
        }

        fn check(&self) {
            let mut sums = std::collections::HashMap::new();
            self.log.invariants(&mut sums);
            assert_eq!(sums.len(), self.publishers.len());
            assert!(sums.iter().all(|(publisher, bytes)| self.publishers.held(*publisher) == *bytes));
        }

        fn offsets(&self, since: u64, now_ms: u64) -> Vec<u64> {
            self.log.after(since, 100, 1 << 20, None, now_ms).frames.iter().map(|(offset, _)| *offset).collect()
        }
    }

    #[test]
    fn front_leaves_then_positions_go_on() {
        let mut kept = Kept::filled(5);
        assert_eq!(kept.log.position(), Position { epoch: 7, offset: 5 });
        assert_eq!(kept.trim(3, 0), (2, 0));
        assert_eq!((kept.log.position().offset, kept.log.lost()), (5, 2));
        assert_eq!(kept.trim(3, 1003), (0, 2));
        assert_eq!((kept.log.next_position().offset, kept.log.lost()), (6, 4));
    }

    #[test]
    fn gap_is_too_long_then_it_is_cut_by_count_and_bytes_and_says_so() {
        let log = Kept::filled(10).log;
        let gap = log.after(4, 3, 1000, None, 0);
        assert_eq!(gap.frames.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [5, 6, 7]);
        assert!(gap.more && !gap.lost);
        let gap = log.after(4, 100, 25, None, 0);
        assert_eq!((gap.upto, gap.more), (6, true));
        let gap = log.after(10, 100, 1000, None, 0);
        assert_eq!((gap.frames.len(), gap.upto, gap.more), (0, 10, false));
    }

    #[test]
    fn message_left_the_log_then_it_is_lost() {
        let mut kept = Kept::filled(10);
        kept.trim(4, 0);
        let gap = kept.log.after(2, 100, 1000, None, 0);
        assert!(gap.lost);
        assert_eq!(gap.frames.first().map(|(offset, _)| *offset), Some(7));
        assert!(!kept.log.reaches(Position { epoch: 7, offset: 5 }));
        assert!(kept.log.reaches(Position { epoch: 7, offset: 6 }));
        assert!(!kept.log.reaches(Position { epoch: 7, offset: 11 }), "a position from the future");
        assert!(!kept.log.reaches(Position { epoch: 8, offset: 7 }));
    }

    #[test]
    fn message_passes_its_own_ttl_then_it_leaves_the_middle_and_is_no_loss() {
        let mut kept = Kept::new();
        for ttl_ms in [50, 0, 50, 0, 50] {
            kept.commit(ttl_ms, 0);
        }
        assert_eq!(kept.offsets(0, 50), [2, 4], "also before it is trimmed");
        assert_eq!(kept.trim(100, 50), (0, 3));
        assert_eq!((kept.log.len(), kept.log.lost(), kept.log.position().offset), (2, 0, 5));
        assert!(kept.log.reaches(Position { epoch: 7, offset: 0 }));
        let gap = kept.log.after(0, 100, 1000, None, 50);
        assert_eq!((gap.lost, gap.more, gap.upto), (false, false, 5), "past the last place, which is empty");
        assert_eq!(kept.trim(100, 1000), (0, 2));
        assert_eq!(kept.log.lost(), 4, "the log's age limit is a loss");
    }

    #[test]
    fn ttl_is_beyond_the_age_limit_then_the_age_limit_counts() {
        let mut kept = Kept::new();
        kept.commit(5000, 0);
        assert_eq!(kept.trim(100, 1000), (0, 1));
        assert_eq!(kept.log.lost(), 1);
    }

    #[test]
    fn dead_messages_are_held_then_no_live_one_is_pushed_out() {
        let mut kept = Kept::new();
        kept.commit(0, 0);
        let mut expired = 0;
        for now_ms in 1..900 {
            // Thirty of these are alive at a time.
            kept.commit(30, now_ms);
            let (count, age) = kept.trim_committed(64, now_ms);
            assert_eq!(count, 0, "at {now_ms}");
            expired += age;
            assert!(kept.log.len() <= 64 + 64 / SLACK);
        }
        assert_eq!(kept.offsets(0, 899).first(), Some(&1));
        assert!(expired > 800, "{expired}");
        // Without dead ones the bound is exact.
        let mut kept = Kept::new();
        for now_ms in 0..100 {
            kept.commit(500, now_ms);
            assert_eq!(kept.trim_committed(64, now_ms).0, u64::from(now_ms >= 64));
        }
        assert_eq!(kept.log.len(), 64);
    }

    #[test]
    fn log_is_too_large_then_the_oldest_leave_but_for_the_last() {
        let mut kept = Kept::filled(10);
        let limits = LogLimits { bytes_max: 3 * message_cost(10) + 1, ..LIMITS };
        assert_eq!(kept.log.trim(limits, 0, &mut kept.publishers).size, 7);
        assert_eq!((kept.offsets(0, 0), kept.log.lost()), (vec![8, 9, 10], 7));
        let limits = LogLimits { bytes_max: 1, ..LIMITS };
        assert_eq!(kept.log.trim(limits, 0, &mut kept.publishers).size, 2);
        assert_eq!(kept.offsets(0, 0), [10]);
        kept.check();
    }

    #[test]
    fn newest_are_asked_for_then_they_are_alive_and_bounded_by_count_and_bytes() {
        let mut kept = Kept::new();
        for ttl_ms in [0, 50, 0, 0, 50, 50] {
            kept.commit(ttl_ms, 0);
        }
        for (messages_max, bytes_max, now_ms, wanted) in [
            (3, 1000, 0, 3),
            (3, 1000, 50, 3),
            (9, 1000, 50, 3),
            (9, 25, 50, 2),
            (9, 20, 50, 2),
            (9, 5, 50, 1),
            (0, 1000, 0, 0),
        ] {
            let live = if now_ms < 50 { 6 } else { 3 };
            let (frames, more) = kept.log.newest(u64::MAX, messages_max, bytes_max, now_ms);
            assert_eq!(frames.len(), wanted);
            assert_eq!(more, frames.len() < live, "{messages_max} messages, {bytes_max} bytes at {now_ms} ms");
        }
    }

    #[test]
    fn newest_before_an_offset_are_asked_for_then_they_end_there_and_say_whether_older_ones_are_held() {
        let kept = Kept::filled(10);
        for (before, messages_max, wanted, more) in
            [(11, 4, 4, true), (5, 4, 4, false), (5, 9, 4, false), (5, 3, 3, true), (1, 9, 0, false), (0, 9, 0, false)]
        {
            let (frames, is_more) = kept.log.newest(before, messages_max, 1000, 0);
            assert_eq!((frames.len(), is_more), (wanted, more), "{messages_max} before {before}");
        }
    }

    #[test]
    fn message_stays_then_it_is_counted_for_its_publisher() {
        let mut kept = Kept::new();
        for now_ms in 0..u64::from(UNCOUNTED_MAX) {
            kept.commit(5, now_ms);
        }
        assert!(kept.publishers.is_empty(), "acknowledged soon, most of them");
        kept.log.remove_through(4, 0, &mut kept.publishers);
        for _ in 0..5 {
            kept.commit(5, 0);
        }
        kept.check();
        assert_eq!(kept.publishers.held(5), 17 * message_cost(10));
        kept.log.remove_through(20, 0, &mut kept.publishers);
        kept.check();
        assert_eq!(kept.publishers.held(5), message_cost(10));
        let frame = Bytes::from(vec![0; UNCOUNTED_BYTES_MAX]);
        let large = Message { frame, ttl_ms: 0, from: None, publisher: 9 };
        kept.log.commit(large, false, LIMITS, &mut kept.publishers, 0);
        assert!(kept.publishers.held(9) > 0);
        kept.log.remove_through(u64::MAX, 0, &mut kept.publishers);
        assert!(kept.publishers.is_empty());
    }
}
