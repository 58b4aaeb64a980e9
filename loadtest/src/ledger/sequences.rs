//! Sets of sequences 1, 2, 3, ... that stay small however long a run is.

/// An inclusive range of sequences.
pub(crate) type Range = (u32, u32);

/// Ranges that one set keeps; of more, the older half is only counted. That bounds the memory of a run in which messages
/// are lost all the time.
const RANGES_MAX: usize = 1024;

/// Sequences that come mostly in order: everything up to the last one, but for holes.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sequences {
    last: u32,
    #[expect(clippy::box_collection, reason = "two words fewer for each of a million pairs without a hole")]
    holes: Option<Box<Vec<Range>>>,
    /// Sequences missing up to `last`, those of forgotten holes included.
    missing: u32,
    /// Holes up to here are only counted; 0 as long as none is.
    forgotten_to: u32,
}

/// What a sequence is to those that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It comes for the first time, behind all others.
    Next,
    /// It comes for the first time, after a later one.
    Late,
    /// It has come before, or was missing for so long that its hole was forgotten.
    Again,
}

impl Sequences {
    pub(crate) fn insert(&mut self, sequence: u32) -> Arrival {
        if sequence > self.last {
            if sequence > self.last + 1 {
                self.skip((self.last + 1, sequence - 1));
            }
            self.last = sequence;
            return Arrival::Next;
        }
        let Some(holes) = &mut self.holes else { return Arrival::Again };
        let at = holes.partition_point(|(_, end)| *end < sequence);
        let Some((start, end)) = holes.get(at).copied().filter(|(start, _)| *start <= sequence) else {
            return Arrival::Again;
        };
        match (start == sequence, end == sequence) {
            (true, true) => drop(holes.remove(at)),
            (true, false) => holes[at].0 = sequence + 1,
            (false, true) => holes[at].1 = sequence - 1,
            (false, false) => {
                holes[at].1 = sequence - 1;
                holes.insert(at + 1, (sequence + 1, end));
            }
        }
        self.missing -= 1;
        self.bound();
        Arrival::Late
    }

    fn skip(&mut self, hole: Range) {
        self.missing += hole.1 - hole.0 + 1;
        self.holes.get_or_insert_default().push(hole);
        self.bound();
    }

    fn bound(&mut self) {
        if let Some(holes) = &mut self.holes {
            if holes.len() > RANGES_MAX {
                self.forgotten_to = forget(holes);
            }
            if holes.is_empty() {
                self.holes = None;
            }
        }
    }

    /// The highest sequence that has come; 0 before any has.
    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    /// Sequences up to the last one that have not come.
    pub(crate) fn missing(&self) -> u32 {
        self.missing
    }

    /// Where they are missing, in order, as far as that is remembered.
    pub(crate) fn holes(&self) -> &[Range] {
        self.holes.as_deref().map_or(&[], |holes| holes)
    }

    /// Up to where holes are only counted.
    pub(crate) fn forgotten_to(&self) -> u32 {
        self.forgotten_to
    }

    /// How many have come.
    pub(crate) fn come(&self) -> u32 {
        self.last - self.missing
    }

    /// Takes in all sequences up to this one that have not come: which they are.
    pub(crate) fn fill(&mut self, up_to: u32) -> Ranges {
        let kept = self.holes.take().map_or_else(Vec::new, |holes| *holes);
        let (count, forgotten_to) =
            (core::mem::take(&mut self.missing).into(), core::mem::take(&mut self.forgotten_to));
        let mut filled = Ranges { kept, count, forgotten_to };
        if up_to > self.last {
            filled.add((self.last + 1, up_to));
            self.last = up_to;
        }
        filled
    }
}

/// Forgets the older half of some ranges: up to where.
fn forget(ranges: &mut Vec<Range>) -> u32 {
    ranges.drain(..RANGES_MAX / 2).next_back().map_or(0, |(_, end)| end)
}

/// How many sequences some ranges have above a bound.
pub(super) fn above(bound: u32, ranges: &[Range]) -> u64 {
    let above = |(start, end): &(u32, u32)| (u64::from(*end) + 1).saturating_sub(u64::from(*start.max(&(bound + 1))));
    ranges.iter().map(above).sum()
}

/// Some sequences of a sender, as ranges in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    kept: Vec<Range>,
    /// How many sequences those are, those of forgotten ranges included.
    count: u64,
    /// Ranges up to here are only counted; 0 as long as none is.
    forgotten_to: u32,
}

impl Ranges {
    /// Adds a range, of which nothing is in there yet.
    pub(crate) fn add(&mut self, (start, end): Range) {
        self.count += u64::from(end - start) + 1;
        let at = self.kept.partition_point(|(_, end)| *end < start);
        let follows = at > 0 && self.kept[at - 1].1 + 1 == start;
        let precedes = self.kept.get(at).is_some_and(|(next, _)| end + 1 == *next);
        match (follows, precedes) {
            (true, true) => self.kept[at - 1].1 = self.kept.remove(at).1,
            (true, false) => self.kept[at - 1].1 = end,
            (false, true) => self.kept[at].0 = start,
            (false, false) => self.kept.insert(at, (start, end)),
        }
        if self.kept.len() > RANGES_MAX {
            self.forgotten_to = forget(&mut self.kept);
        }
    }

    /// Adds all of others, of which nothing is in there yet.
    pub(crate) fn extend(&mut self, others: &Ranges) {
        let before = self.count;
        others.kept.iter().for_each(|range| self.add(*range));
        self.count = before + others.count;
        self.forgotten_to = self.forgotten_to.max(others.forgotten_to);
    }

    /// How many sequences there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Up to where ranges are only counted.
    pub(crate) fn forgotten_to(&self) -> u32 {
        self.forgotten_to
    }

    /// How many of those above a bound have come, at a receiver that has `holes` up to `last`. Ranges and holes have to be
    /// remembered there.
    pub(crate) fn come(&self, bound: u32, last: u32, holes: &[Range]) -> u64 {
        let within = |(start, end): &Range| ((*start).max(bound + 1), (*end).min(last));
        let up_to_last = self.kept.iter().map(within).filter(|(start, end)| start <= end);
        let mut holes = holes.iter().copied().peekable();
        let mut come = 0;
        for (start, end) in up_to_last {
            come += u64::from(end - start) + 1;
            while let Some((from, to)) = holes.peek().copied().filter(|(from, _)| *from <= end) {
                let (from, within) = (from.max(start), to.min(end));
                come -= (u64::from(within) + 1).saturating_sub(from.into());
                if to > end {
                    break;
                }
                holes.next();
            }
        }
        come
    }

    pub(super) fn kept(&self) -> &[Range] {
        &self.kept
    }

    pub(super) fn of(kept: Vec<Range>, count: u64, forgotten_to: u32) -> Ranges {
        Ranges { kept, count, forgotten_to }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn sequences_in_any_order_are_told_apart_as_by_a_set_of_all() {
        let mut random = fastrand::Rng::with_seed(16);
        for _ in 0..200 {
            let (mut sequences, mut all) = (Sequences::default(), BTreeSet::new());
            for _ in 0..300 {
                let sequence = random.u32(1..=150);
                let expected = match (all.contains(&sequence), all.last().is_some_and(|last| sequence < *last)) {
                    (true, _) => Arrival::Again,
                    (false, true) => Arrival::Late,
                    (false, false) => Arrival::Next,
                };
                assert_eq!(sequences.insert(sequence), expected);
                all.insert(sequence);
                let missing: Vec<u32> = (1..=sequences.last()).filter(|one| !all.contains(one)).collect();
                let holes: Vec<u32> = sequences.holes().iter().flat_map(|(start, end)| *start..=*end).collect();
                assert_eq!((sequences.missing() as usize, holes), (missing.len(), missing));
            }
            let missing: Vec<Range> = sequences.holes().to_vec();
            let (last, up_to) = (sequences.last(), sequences.last() + random.u32(0..3));
            let filled = sequences.fill(up_to);
            assert_eq!(
                filled.count(),
                missing.iter().map(|(a, b)| u64::from(b - a) + 1).sum::<u64>() + u64::from(up_to - last)
            );
            assert_eq!((sequences.last(), sequences.missing(), sequences.holes()), (up_to, 0, &[][..]));
        }
    }

    #[test]
    fn ranges_join_their_neighbours() {
        let mut ranges = Ranges::default();
        for range in [(5, 5), (1, 1), (3, 3), (2, 2), (9, 9), (4, 4)] {
            ranges.add(range);
        }
        assert_eq!((ranges.kept(), ranges.count()), (&[(1, 5), (9, 9)][..], 6));
    }

    #[test]
    fn what_of_ranges_has_come_is_counted_as_by_a_set_of_all() {
        let mut random = fastrand::Rng::with_seed(17);
        for _ in 0..500 {
            let mut sequences = Sequences::default();
            let come: BTreeSet<u32> = (0..random.u32(0..40)).map(|_| random.u32(1..=60)).collect();
            for one in &come {
                sequences.insert(*one);
            }
            let some: BTreeSet<u32> = (0..random.u32(0..40)).map(|_| random.u32(1..=70)).collect();
            let mut ranges = Ranges::default();
            let mut shuffled: Vec<u32> = some.iter().copied().collect();
            random.shuffle(&mut shuffled);
            shuffled.iter().for_each(|one| ranges.add((*one, *one)));
            let expected = some.intersection(&come).count() as u64;
            assert_eq!(ranges.come(0, sequences.last(), sequences.holes()), expected);
            let bound = random.u32(0..70);
            let expected = some.intersection(&come).filter(|one| **one > bound).count() as u64;
            assert_eq!(ranges.come(bound, sequences.last(), sequences.holes()), expected);
            assert_eq!(above(bound, ranges.kept()), some.iter().filter(|one| **one > bound).count() as u64);
        }
    }

    #[test]
    fn very_many_holes_then_memory_is_bounded_and_the_count_exact() {
        let (mut sequences, mut ranges) = (Sequences::default(), Ranges::default());
        for sequence in (2..=20_000_000).step_by(2) {
            sequences.insert(sequence);
            ranges.add((sequence, sequence));
        }
        assert_eq!((sequences.missing(), ranges.count()), (10_000_000, 10_000_000));
        assert!(sequences.holes().len() <= RANGES_MAX && ranges.kept().len() <= RANGES_MAX);
        assert_eq!(sequences.insert(1), Arrival::Again, "its hole is forgotten");
        assert_eq!(sequences.insert(19_999_999), Arrival::Late);
    }
}
