//! A hierarchical timing wheel: one intrusive entry a connection, no allocation per timer.
//!
//! Entries are slot numbers; links live in one array beside the connection table. Insert and cancel are O(1); an
//! entry far ahead moves down a level at most three times. Deadlines are rounded up to the next tick, so nothing
//! expires early. The wheel knows no clock: [`Wheel::advance`] is told the time.
//!
//! Invariant: an entry with a deadline is in exactly one list, an entry without in none.

/// Length of a tick in milliseconds.
pub const TICK_MS: u64 = 50;

const LEVELS: usize = 4;
const BITS: u32 = 6;
const LISTS: usize = 1 << BITS;
const NONE: u32 = u32::MAX;
/// Half a turn of the highest level, so that an entry never waits for a second turn.
const AHEAD_MAX: u32 = 1 << (BITS * LEVELS as u32 - 1);

#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    previous: u32,
    /// In ticks; 0 for an entry that is in no list.
    deadline: u32,
}

const UNLINKED: Link = Link { next: NONE, previous: NONE, deadline: 0 };

/// See the module. Ticks are 32 bits: 6.8 years.
#[derive(Debug)]
pub struct Wheel {
    links: Vec<Link>,
    heads: [[u32; LISTS]; LEVELS],
    /// Everything up to and including this tick has expired.
    tick: u32,
    armed: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel { links: Vec::new(), heads: [[NONE; LISTS]; LEVELS], tick: 0, armed: 0 }
    }
}

impl Wheel {
    /// Entries with a deadline.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no entry has a deadline.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Sets the entry's deadline (monotonic ms); an earlier deadline of the same entry is forgotten.
    ///
    /// A deadline more than 4.8 days ahead expires then and is to be inserted again, which callers that re-arm lazily
    /// do anyway.
    pub fn insert(&mut self, entry: u32, deadline_ms: u64) {
        let deadline = u32::try_from(deadline_ms.div_ceil(TICK_MS)).unwrap_or(u32::MAX);
        let deadline = deadline.clamp(self.tick + 1, self.tick + AHEAD_MAX);
        if self.links.len() <= entry as usize {
            let wanted = entry as usize + 1 - self.links.len();
            if wanted > self.links.capacity() - self.links.len() {
                // Doubling would leave a third of a large table unused on average.
                self.links.reserve_exact(wanted.max(self.links.len() / 8 + 256));
            }
            self.links.resize(entry as usize + 1, UNLINKED);
        }
        self.cancel(entry);
        self.link(entry, deadline);
        self.armed += 1;
    }

    /// Like [`Self::insert`], but an earlier deadline of the entry stays.
    pub fn insert_if_earlier(&mut self, entry: u32, deadline_ms: u64) {
        if !self.expires_by(entry, deadline_ms) {
            self.insert(entry, deadline_ms);
        }
    }

    /// Whether the entry has this deadline or an earlier one. For a deadline that has passed, the next tick is early enough.
    pub fn expires_by(&self, entry: u32, deadline_ms: u64) -> bool {
        let soonest = u64::from(self.tick) + 1;
        self.links.get(entry as usize).is_some_and(|link| {
            link.deadline != 0 && u64::from(link.deadline) <= deadline_ms.div_ceil(TICK_MS).max(soonest)
        })
    }

    /// Forgets the entry's deadline, if it has one.
    pub fn cancel(&mut self, entry: u32) {
        let Some(link) = self.links.get(entry as usize).copied().filter(|link| link.deadline != 0) else { return };
        if link.previous == NONE {
            // The head of its list: which list follows from the deadline and the present tick.
            let (level, list) = self.place(link.deadline);
            if self.heads[level][list] == entry {
                self.heads[level][list] = link.next;
            } else {
                self.replace_head(entry, link.next);
            }
        } else if let Some(previous) = self.links.get_mut(link.previous as usize) {
            previous.next = link.next;
        }
        if let Some(next) = self.links.get_mut(link.next as usize) {
            next.previous = link.previous;
        }
        self.links[entry as usize] = UNLINKED;
        self.armed -= 1;
    }

    /// An entry whose list was chosen at an earlier tick may be the head of a higher level's list than its deadline
    /// would choose now.
    fn replace_head(&mut self, entry: u32, next: u32) {
        for head in self.heads.iter_mut().flatten() {
            if *head == entry {
                *head = next;
                return;
            }
        }
    }

    /// Takes out every entry whose deadline has passed, up to `max` of them, and appends them to `expired`.
    /// Returns true when more may be waiting.
    pub fn advance(&mut self, now_ms: u64, max: usize, expired: &mut Vec<u32>) -> bool {
        let target = u32::try_from(now_ms / TICK_MS).unwrap_or(u32::MAX);
        let mut taken = 0;
        while self.tick < target {
            if self.armed == 0 {
                self.tick = target;
                return false;
            }
            let next = self.tick + 1;
            let list = (next as usize) & (LISTS - 1);
            if list == 0 && self.heads_due(next) {
                self.cascade(next);
            }
            while self.heads[0][list] != NONE {
                if taken == max {
                    return true;
                }
                let entry = self.heads[0][list];
                self.unlink_head(0, list);
                expired.push(entry);
                taken += 1;
            }
            self.tick = next;
        }
        false
    }

    /// Whether any list of a higher level comes due at this tick.
    fn heads_due(&self, tick: u32) -> bool {
        (1..LEVELS).any(|level| self.heads[level][index(tick, level)] != NONE)
    }

    /// Moves the lists of higher levels that begin at this tick one level down.
    fn cascade(&mut self, tick: u32) {
        for level in (1..LEVELS).rev() {
            if tick & ((1u32 << (BITS * level as u32)) - 1) != 0 {
                continue;
            }
            let list = index(tick, level);
            while self.heads[level][list] != NONE {
                let entry = self.heads[level][list];
                let deadline = self.links[entry as usize].deadline;
                self.unlink_head(level, list);
                self.armed += 1;
                self.link_from(entry, deadline, tick);
            }
        }
    }

    fn unlink_head(&mut self, level: usize, list: usize) {
        let entry = self.heads[level][list];
        let next = self.links[entry as usize].next;
        self.heads[level][list] = next;
        if let Some(next) = self.links.get_mut(next as usize) {
            next.previous = NONE;
        }
        self.links[entry as usize] = UNLINKED;
        self.armed -= 1;
    }

    fn link(&mut self, entry: u32, deadline: u32) {
        self.link_from(entry, deadline, self.tick);
    }

    fn link_from(&mut self, entry: u32, deadline: u32, tick: u32) {
        let (level, list) = place_from(deadline, tick);
        let head = self.heads[level][list];
        self.links[entry as usize] = Link { next: head, previous: NONE, deadline };
        if let Some(head) = self.links.get_mut(head as usize) {
            head.previous = entry;
        }
        self.heads[level][list] = entry;
    }

    fn place(&self, deadline: u32) -> (usize, usize) {
        place_from(deadline, self.tick)
    }

    /// Panics when the structure is broken; for tests.
    pub fn invariants(&self) {
        let mut seen = 0;
        for head in self.heads.iter().flatten() {
            let mut previous = NONE;
            let mut entry = *head;
            while entry != NONE {
                let link = self.links[entry as usize];
                assert_eq!(link.previous, previous, "back link of {entry}");
                assert!(link.deadline > self.tick, "{entry} should have expired");
                seen += 1;
                previous = entry;
                entry = link.next;
            }
        }
        assert_eq!(seen, self.armed, "entries in lists");
        assert_eq!(self.links.iter().filter(|link| link.deadline != 0).count(), self.armed, "entries with a deadline");
    }
}

fn index(tick: u32, level: usize) -> usize {
    (tick >> (BITS * level as u32)) as usize & (LISTS - 1)
}

/// The lowest level on which the deadline lies in the same turn of the next-higher level as `tick`.
fn place_from(deadline: u32, tick: u32) -> (usize, usize) {
    let difference = deadline ^ tick;
    let level = (0..LEVELS).find(|level| difference >> (BITS * (*level as u32 + 1)) == 0).unwrap_or(LEVELS - 1);
    (level, index(deadline, level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The oracle is a plain map from entry to deadline.
        #[test]
        fn agrees_with_an_oracle(steps in prop::collection::vec((0u32..64, 0u64..2_000_000, 0u8..4), 1..300)) {
            let mut wheel = Wheel::default();
            let mut oracle = std::collections::BTreeMap::new();
            let mut now = 0;
            for (entry, value, action) in steps {
                match action {
                    0 | 1 => {
                        let ahead = if action == 0 { value } else { value % 5_000 };
                        wheel.insert(entry, now + ahead);
                        oracle.insert(entry, (now + ahead).div_ceil(TICK_MS).max(now / TICK_MS + 1));
                    }
                    2 => {
                        wheel.cancel(entry);
                        oracle.remove(&entry);
                    }
                    _ => {
                        now += value % 300_000;
                        let mut expired = Vec::new();
                        while wheel.advance(now, 7, &mut expired) {}
                        expired.sort_unstable();
                        let due: Vec<u32> =
                            oracle.iter().filter(|(_, at)| **at <= now / TICK_MS).map(|(entry, _)| *entry).collect();
                        oracle.retain(|_, at| *at > now / TICK_MS);
                        prop_assert_eq!(expired, due);
                    }
                }
                wheel.invariants();
                prop_assert_eq!(wheel.len(), oracle.len());
            }
        }
    }

    #[test]
    fn an_earlier_deadline_stays() {
        let mut wheel = Wheel::default();
        wheel.insert_if_earlier(3, 1000);
        wheel.insert_if_earlier(3, 5000);
        let mut expired = Vec::new();
        wheel.advance(999, 10, &mut expired);
        assert!(expired.is_empty());
        wheel.advance(1000, 10, &mut expired);
        assert_eq!(expired, [3]);
        wheel.insert_if_earlier(3, 9000);
        wheel.insert_if_earlier(3, 2000);
        wheel.advance(2000, 10, &mut expired);
        assert_eq!(expired, [3, 3]);
    }

    #[test]
    fn the_table_grows_by_an_eighth_and_only_when_it_is_full() {
        let mut wheel = Wheel::default();
        let mut capacities = Vec::new();
        for entry in 0..2000 {
            wheel.insert(entry, 1000);
            if capacities.last() != Some(&wheel.links.capacity()) {
                capacities.push(wheel.links.capacity());
            }
            assert!(wheel.links.len() > entry as usize);
        }
        // 256, then at 256, 544, 868, 1232 and 1642 entries an eighth and 256 more.
        assert_eq!(capacities, [256, 544, 868, 1232, 1642, 2103]);
        // An entry far beyond the end takes what it needs.
        wheel.insert(9_999, 1000);
        assert_eq!((wheel.links.len(), wheel.links.capacity()), (10_000, 10_000));
    }

    #[test]
    fn deadlines_behind_a_turn_of_the_highest_level_expire_in_time() {
        const TURN: u64 = 1 << (BITS * LEVELS as u32);
        // Just before the tick at which all levels begin anew, and before one at which only bits above them differ.
        for boundary in [TURN, 3 * TURN] {
            let mut wheel = Wheel::default();
            let mut expired = Vec::new();
            let start = boundary - 3;
            wheel.advance(start * TICK_MS, 10, &mut expired);
            let deadlines = [1, 2, 3, 4, 63, 64, 70, 4096, 4100, 1 << 18, (1 << 18) + 5, u64::from(AHEAD_MAX)];
            for (entry, ahead) in deadlines.into_iter().enumerate() {
                wheel.insert(entry as u32, (start + ahead) * TICK_MS);
            }
            wheel.invariants();
            for (entry, ahead) in deadlines.into_iter().enumerate() {
                wheel.advance((start + ahead) * TICK_MS - 1, 10, &mut expired);
                assert_eq!(expired.len(), entry, "{ahead} ticks ahead came early");
                wheel.advance((start + ahead) * TICK_MS, 10, &mut expired);
                assert_eq!(expired.last(), Some(&(entry as u32)), "{ahead} ticks ahead");
                wheel.invariants();
            }
            assert!(wheel.is_empty());
        }
    }

    #[test]
    fn a_deadline_that_is_too_far_ahead_expires_at_the_bound() {
        let mut wheel = Wheel::default();
        let mut expired = Vec::new();
        wheel.insert(0, u64::MAX);
        wheel.insert(1, (u64::from(AHEAD_MAX) + 1) * TICK_MS);
        wheel.advance((u64::from(AHEAD_MAX) - 1) * TICK_MS, 10, &mut expired);
        assert!(expired.is_empty());
        wheel.advance(u64::from(AHEAD_MAX) * TICK_MS, 10, &mut expired);
        expired.sort_unstable();
        assert_eq!(expired, [0, 1]);
    }

    #[test]
    fn deadline_has_passed_then_an_entry_of_the_next_tick_expires_by_it() {
        let mut wheel = Wheel::default();
        wheel.insert(0, 60_000);
        wheel.insert(1, 1_000);
        // The process stood still, and the wheel with it.
        assert!(!wheel.advance(100_000, 7, &mut Vec::new()));
        wheel.insert(0, 20_000);
        assert!(wheel.expires_by(0, 20_000) && wheel.expires_by(0, 150_000));
        wheel.insert(0, 200_000);
        assert!(!wheel.expires_by(0, 20_000) && !wheel.expires_by(1, 20_000));
    }
}
