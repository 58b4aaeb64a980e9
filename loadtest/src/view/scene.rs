//! The state of a run that the screen draws, as plain data.

use std::time::{Duration, Instant};

use crate::guard::Standing;
use crate::metrics::Live;
use crate::plan::Tally;
use crate::record::{Measure, Record, Troubles};
use crate::report::RAMP;
use crate::timeline::{Point, Timeline};

/// The state of a run at one moment.
pub(crate) struct Look<'a> {
    /// Name of the phase.
    pub(crate) phase: &'a str,
    /// When the present wait is over, if that is known.
    pub(crate) until: Option<Instant>,
    /// What has happened since the last look.
    pub(crate) point: &'a Point,
    /// Live counts.
    pub(crate) tally: Tally,
    /// Connections that are wanted.
    pub(crate) wanted: usize,
    /// What was recorded since the last look.
    pub(crate) record: &'a Record,
    /// What the point's latency is of.
    pub(crate) measure: Measure,
    /// The newest scrape of the gateway's metrics, if there are any.
    pub(crate) live: Live,
    /// Present states of the thresholds.
    pub(crate) standings: Vec<Standing>,
}

impl Look<'_> {
    /// See [`waiting`].
    pub(super) fn waiting(&self) -> Option<&'static str> {
        waiting(self.phase, self.point.at, &self.tally)
    }
}

/// What the ramp waits for, once it has lasted for a while without a sign-in; none otherwise.
fn waiting(phase: &str, at_seconds: f64, tally: &Tally) -> Option<&'static str> {
    let is_stuck = phase.starts_with(RAMP) && at_seconds >= WAITING_AFTER_SECONDS && tally.connecting > 0;
    match (is_stuck && tally.connections + tally.reconnects == 0, tally.reached) {
        (false, _) => None,
        (true, 0) => Some("not connected yet: nothing answers at this address and port"),
        (true, _) => Some("connected, waiting for the gateway's answer"),
    }
}

/// Longer than a gateway takes on any network.
const WAITING_AFTER_SECONDS: f64 = 2.0;

/// Everything that is drawn. Bounded, however long the run.
pub(crate) struct Scene {
    /// Which scenario, and where the gateway is.
    pub(super) title: String,
    pub(super) began: Instant,
    pub(super) phase: String,
    pub(super) until: Option<Instant>,
    pub(super) wanted: usize,
    pub(super) tally: Tally,
    /// What the latencies are of.
    pub(super) measure: &'static str,
    pub(super) timeline: Timeline,
    pub(super) troubles: Troubles,
    pub(super) live: Live,
    /// Present states of the thresholds.
    pub(super) standings: Vec<Standing>,
    /// Cores of this machine.
    pub(super) cores: usize,
    /// The end has been asked for.
    pub(super) ending: bool,
}

impl Scene {
    /// Before anything has happened.
    pub(crate) fn new(title: String) -> Scene {
        Scene {
            title,
            began: Instant::now(),
            phase: RAMP.to_owned(),
            until: None,
            wanted: 0,
            tally: Tally::default(),
            measure: "",
            timeline: Timeline::default(),
            troubles: Troubles::default(),
            live: Live::default(),
            standings: Vec::new(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            ending: false,
        }
    }

    /// Adds a look.
    pub(super) fn add(&mut self, look: Look<'_>) {
        if self.phase != look.phase {
            look.phase.clone_into(&mut self.phase);
        }
        (self.until, self.wanted, self.tally, self.live) = (look.until, look.wanted, look.tally, look.live);
        if look.point.latency.count > 0 {
            self.measure = look.measure.label();
        }
        self.troubles.add(&look.record.troubles);
        self.standings = look.standings;
        self.timeline.push(look.point.clone());
    }

    /// The newest point.
    pub(super) fn newest(&self) -> Option<&Point> {
        self.timeline.points().last()
    }

    /// Messages that wait for their answer, and deliveries of accepted ones that have not come.
    pub(super) fn in_flight(&self) -> (u64, u64) {
        let tally = &self.tally;
        let answered = tally.accepted + tally.refused + tally.undecided;
        (tally.sent.saturating_sub(answered), tally.owed.saturating_sub(tally.delivered))
    }

    /// See [`waiting`].
    pub(super) fn waiting(&self) -> Option<&'static str> {
        waiting(&self.phase, self.newest()?.at, &self.tally)
    }

    /// How long the present wait still takes.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_is_signed_in_after_two_seconds_then_the_view_says_what_it_waits_for() {
        let of = |phase: &str, at, tally| waiting(phase, at, &tally);
        let stuck = Tally { connecting: 4, ..Tally::default() };
        assert!(of("connect", 2.0, stuck).unwrap().starts_with("not connected yet"));
        let reached = Tally { reached: 4, ..stuck };
        assert_eq!(of("connect TLS", 3.0, reached), Some("connected, waiting for the gateway's answer"));
        assert_eq!(of("connect", 1.9, reached), None, "it may still answer");
        assert_eq!(of("connect", 3.0, Tally { connections: 1, ..reached }), None, "it answers");
        assert_eq!(of("storm", 3.0, reached), None, "it has answered before");
        assert_eq!(of("connect", 3.0, Tally { connecting: 0, ..reached }), None, "no connect is under way");
    }
}
