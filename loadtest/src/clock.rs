//! How far a worker's clock is from the controller's, from a few round trips.

use std::time::{SystemTime, UNIX_EPOCH};

/// A worker's clock beside the controller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Nanoseconds by which it is ahead; negative when it is behind.
    pub(crate) offset_ns: i64,
    /// The offset is wrong by no more than this: half of the round trip that it was found in.
    pub(crate) error_ns: u64,
}

/// One question for the time, and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// When it was asked, by the controller's wall clock.
    pub(crate) asked_ns: u64,
    /// How long it took until the answer was here.
    pub(crate) round_trip_ns: u64,
    /// The answer: the worker's wall clock.
    pub(crate) answer_ns: u64,
}

impl Clock {
    /// The estimate from several probes: the quickest bounds it best. None without a probe.
    pub(crate) fn estimate(probes: &[Probe]) -> Option<Clock> {
        let best = probes.iter().min_by_key(|probe| probe.round_trip_ns)?;
        let half = best.round_trip_ns / 2;
        Some(Clock { offset_ns: best.answer_ns.wrapping_sub(best.asked_ns + half) as i64, error_ns: half })
    }

    /// What this clock shows when the controller's shows `wall_ns`.
    pub(crate) fn at(self, wall_ns: u64) -> u64 {
        wall_ns.saturating_add_signed(self.offset_ns)
    }
}

/// This process's wall clock, in nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_round_trip_decides() {
        let probe = |asked_ns, round_trip_ns, answer_ns| Probe { asked_ns, round_trip_ns, answer_ns };
        let clock = Clock::estimate(&[probe(1_000, 900, 9_000), probe(5_000, 100, 2_060), probe(9_000, 500, 1)]);
        assert_eq!(clock, Some(Clock { offset_ns: -2_990, error_ns: 50 }));
        assert_eq!(clock.unwrap().at(10_000), 7_010);
        assert_eq!(Clock::estimate(&[]), None);
    }
}
