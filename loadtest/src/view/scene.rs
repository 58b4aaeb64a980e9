//! What there is to see of a run, as plain data.

use std::time::{Duration, Instant};

use crate::guard::Standing;
use crate::metrics::Live;
use crate::plan::Tally;
use crate::record::{Measure, Record, Troubles};
use crate::timeline::{Point, Timeline};

/// How a run stands at one moment.
pub(crate) struct Look<'a> {
    /// What it is doing.
    pub(crate) phase: &'a str,
    /// When the present wait is over, if that is known.
    pub(crate) until: Option<Instant>,
    /// What has happened since the last look.
    pub(crate) point: &'a Point,
    /// Everything that grows.
    pub(crate) tally: Tally,
    /// Connections that are wanted.
    pub(crate) wanted: usize,
    /// What was recorded since the last look.
    pub(crate) record: &'a Record,
    /// What the point's latency is of.
    pub(crate) measure: Measure,
    /// What the gateway said last, if it is asked.
    pub(crate) live: Live,
    /// How the thresholds stand.
    pub(crate) standings: Vec<Standing>,
}

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
    /// How the thresholds stand.
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
            phase: "connect".to_owned(),
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

    /// Takes a look in.
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

    /// How long the present wait still takes.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now)
    }
}
