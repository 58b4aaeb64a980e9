//! Conditions during a run: `--abort-if`, which ends it, and the present state of its thresholds.
//!
//! `--abort-if` looks at the last [`WINDOW`] seconds, so that a run is not ended by one bad moment, nor kept alive by a good
//! beginning. Its memory does not grow with the run.

use std::collections::VecDeque;

use crate::figure::What;
use crate::plan::Tally;
use crate::record::{Measure, Names, Record};
use crate::threshold::{ABORT_SAMPLES_MIN, Threshold};
use crate::timeline::Point;

/// Seconds that `--abort-if` looks back.
const WINDOW: f64 = 5.0;

/// A stretch of the run, between two looks.
pub(crate) struct Piece {
    /// Its length in seconds.
    pub(crate) seconds: f64,
    /// Publishes answered in it.
    pub(crate) accepted: u64,
    /// Something was planned or sent in it.
    pub(crate) sends: bool,
    /// How busy the busiest driver process was in it: 0 to 1.
    pub(crate) driver_busy: f64,
    /// What was recorded in it.
    pub(crate) record: Record,
}

impl Piece {
    /// Of a point of the timeline and what was recorded in it.
    pub(crate) fn of(point: &Point, record: &Record, driver_busy: f64) -> Piece {
        Piece {
            seconds: point.seconds,
            accepted: point.accepted,
            sends: point.planned > 0 || point.sent > 0,
            driver_busy,
            record: record.clone(),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Guard {
    conditions: Vec<Threshold>,
    window: VecDeque<Piece>,
}

impl Guard {
    /// Ends runs under these conditions.
    pub(crate) fn new(conditions: Vec<Threshold>) -> Guard {
        Guard { conditions, window: VecDeque::new() }
    }

    /// Whether there are conditions.
    pub(crate) fn is_needed(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// Takes the next stretch of a run, whose counts so far are `tally`. Returns the condition that holds now, with its figure.
    pub(crate) fn look(&mut self, piece: Piece, tally: Tally, names: &Names, main: Measure) -> Option<String> {
        self.window.push_back(piece);
        while self.seconds() - self.window.front().map_or(0.0, |oldest| oldest.seconds) >= WINDOW {
            self.window.pop_front();
        }
        let found = |condition: &Threshold| {
            let value = self.value(condition, tally, names, main).filter(|value| condition.holds(*value))?;
            let when = if is_of_whole_run(&condition.figure().what) { "" } else { " in the last 5 s" };
            Some(format!("{} ({}{when})", condition.text(), condition.found(value)))
        };
        self.conditions.iter().find_map(found)
    }

    fn seconds(&self) -> f64 {
        self.window.iter().map(|piece| piece.seconds).sum()
    }

    fn value(&self, condition: &Threshold, tally: Tally, names: &Names, main: Measure) -> Option<f64> {
        let figure = condition.figure();
        let is_full = self.seconds() >= WINDOW;
        match &figure.what {
            What::Other("rate") => {
                // Before something is sent there is no rate that could be too low.
                let accepted: u64 = self.window.iter().map(|piece| piece.accepted).sum();
                (is_full && self.window.iter().all(|piece| piece.sends)).then(|| accepted as f64 / self.seconds())
            }
            What::Other("driver_busy") => {
                let busy: f64 = self.window.iter().map(|piece| piece.driver_busy * piece.seconds).sum();
                is_full.then(|| busy / self.seconds())
            }
            What::Other(name) => count(name, tally),
            what => {
                let (value, samples) = figure.of_records(self.window.iter().map(|piece| &piece.record), names, main)?;
                (*what == What::Stall || samples >= ABORT_SAMPLES_MIN).then_some(value)
            }
        }
    }
}

fn is_of_whole_run(what: &What) -> bool {
    matches!(what, What::Other(name) if !["rate", "driver_busy"].contains(name))
}

/// A count that is known while a run goes on.
pub(crate) fn count(name: &str, tally: Tally) -> Option<f64> {
    let count = match name {
        "errors" => tally.errors,
        "closed" => tally.closed,
        "refused" => tally.refused,
        "skipped" => tally.skipped + tally.churns_skipped,
        "skipped_by_churn" => tally.skipped_by_churn,
        "published" => tally.sent,
        "accepted" => tally.accepted,
        "reconnects" => tally.reconnects,
        _ => return None,
    };
    Some(count as f64)
}

/// The state of a threshold during the run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    /// The condition under which the run fails, as it was written.
    pub(crate) condition: String,
    /// The figure so far, and whether it meets the threshold; none where it is not known yet.
    pub(crate) found: Option<(String, bool)>,
}

impl Standing {
    /// A threshold with the value of its figure so far.
    pub(crate) fn new(threshold: &Threshold, value: Option<f64>) -> Standing {
        let found = value.map(|value| (threshold.found(value), !threshold.holds(value)));
        Standing { condition: threshold.text().to_owned(), found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Series;

    fn guard(conditions: &[&str]) -> Guard {
        let conditions = conditions.iter().map(|text| text.parse().unwrap());
        Guard::new(conditions.collect())
    }

    fn piece(samples: u64, us: u64) -> Piece {
        let mut record = Record::default();
        (0..samples).for_each(|_| record.record(Measure::Deliver, Series::Stream(1), 0, 0, us));
        Piece { seconds: 1.0, accepted: samples, sends: samples > 0, driver_busy: 0.5, record }
    }

    fn look(guard: &mut Guard, piece: Piece, tally: Tally) -> Option<String> {
        guard.look(piece, tally, &Names::single("p2p", Some(false)), Measure::Deliver)
    }

    #[test]
    fn latency_of_enough_samples_of_the_last_seconds_is_too_long_then_the_run_ends() {
        let mut guard = guard(&["p2p.deliver.p50>100ms"]);
        let mut next = |samples, us| look(&mut guard, piece(samples, us), Tally::default());
        assert_eq!(next(99, 900_000), None, "too few samples");
        assert_eq!(next(2, 900_000).unwrap(), "p2p.deliver.p50>100ms (p2p.deliver.p50 was 900.10 ms in the last 5 s)");
        for _ in 0..5 {
            next(200, 1_000);
        }
        // The slow beginning is out of the window now: it would be a third of the samples.
        assert_eq!(next(300, 900_000), None);
        assert!((0..3).filter_map(|_| next(300, 900_000)).count() > 0);
    }

    #[test]
    fn rate_is_too_low_then_the_run_ends_once_the_whole_window_had_sending() {
        let mut guard = guard(&["rate<50"]);
        let mut next = |samples| look(&mut guard, piece(samples, 10), Tally::default());
        assert!((0..10).all(|_| next(0).is_none()), "nothing is sent yet");
        assert!((0..4).all(|_| next(10).is_none()), "the window is not full of sending");
        assert_eq!(next(10).unwrap(), "rate<50 (rate was 10 in the last 5 s)");
    }

    #[test]
    fn count_is_limited_then_the_whole_run_counts() {
        let mut guard = guard(&["errors>10"]);
        let tally = |errors| Tally { errors, ..Tally::default() };
        assert_eq!(look(&mut guard, piece(0, 0), tally(10)), None);
        assert_eq!(look(&mut guard, piece(0, 0), tally(11)).unwrap(), "errors>10 (errors was 11)");
    }
}
