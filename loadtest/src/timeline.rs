//! What happened over time: one point a second, and never more of them than a report can hold.

use crate::record::Quantiles;

/// Points of a timeline: at most so many, each standing for twice as long when they become too many.
const POINTS_MAX: usize = 1_800;
/// A point shorter than this many seconds is joined to the one before: the rest of a phase says little on its own.
const SECONDS_MIN: f64 = 0.25;

/// One stretch of time in a report.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Point {
    /// Seconds since the run began, at its end.
    pub(crate) at: f64,
    /// Its length in seconds.
    pub(crate) seconds: f64,
    /// Signed-in connections at its end.
    pub(crate) connections: u64,
    /// Connects under way at its end.
    #[serde(default)]
    pub(crate) connecting: u64,
    /// Publishes and Pings that the schedule holds for it; 0 in a closed loop, which has no schedule.
    #[serde(default)]
    pub(crate) planned: u64,
    /// Publishes and Pings sent in it, without those Pings that only keep connections alive.
    pub(crate) sent: u64,
    /// Publishes answered in it.
    #[serde(default)]
    pub(crate) accepted: u64,
    /// Pongs in it.
    #[serde(default)]
    pub(crate) pongs: u64,
    /// Deliveries in it.
    pub(crate) delivered: u64,
    /// Connections that ended unasked in it.
    #[serde(default)]
    pub(crate) closed: u64,
    /// Requests refused in it.
    #[serde(default)]
    pub(crate) refused: u64,
    /// Errors in it.
    pub(crate) errors: u64,
    /// Latency in it, from the planned time.
    pub(crate) latency: Quantiles,
    /// Cores that this tester used.
    pub(crate) driver_cores: f64,
    /// Cores that the gateway used, where its process is known.
    pub(crate) gateway_cores: Option<f64>,
    /// Bytes of the gateway's own memory, where its process is known.
    pub(crate) gateway_bytes: Option<u64>,
}

impl Point {
    /// Joins the next point to this one. Quantiles cannot be averaged: the worse is kept.
    fn join(&mut self, next: &Point) {
        let total = self.seconds + next.seconds;
        let mean = |a: f64, b: f64| (a * self.seconds + b * next.seconds) / total.max(f64::MIN_POSITIVE);
        self.driver_cores = mean(self.driver_cores, next.driver_cores);
        self.gateway_cores = self.gateway_cores.zip(next.gateway_cores).map(|(a, b)| mean(a, b));
        let (a, b) = (self.latency, next.latency);
        self.latency = Quantiles {
            count: a.count + b.count,
            p50: a.p50.max(b.p50),
            p90: a.p90.max(b.p90),
            p95: a.p95.max(b.p95),
            p99: a.p99.max(b.p99),
            p999: a.p999.max(b.p999),
            max: a.max.max(b.max),
            mean: a.mean.max(b.mean),
        };
        self.at = next.at;
        self.seconds = total;
        self.connections = next.connections;
        self.connecting = next.connecting;
        self.planned += next.planned;
        self.sent += next.sent;
        self.accepted += next.accepted;
        self.pongs += next.pongs;
        self.closed += next.closed;
        self.refused += next.refused;
        self.delivered += next.delivered;
        self.errors += next.errors;
        self.gateway_bytes = next.gateway_bytes;
    }
}

/// Points over time, bounded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    points: Vec<Point>,
}

impl Timeline {
    /// Appends a point.
    pub(crate) fn push(&mut self, point: Point) {
        if point.seconds < SECONDS_MIN
            && let Some(last) = self.points.last_mut()
        {
            return last.join(&point);
        }
        if self.points.len() >= POINTS_MAX {
            let joined = self.points.chunks(2).map(|pair| {
                let mut point = pair[0].clone();
                if let Some(next) = pair.get(1) {
                    point.join(next);
                }
                point
            });
            self.points = joined.collect();
        }
        self.points.push(point);
    }

    /// In order of time.
    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_phase_joins_the_point_before() {
        let mut timeline = Timeline::default();
        for seconds in [1.0, 0.1, 1.0] {
            timeline.push(Point { seconds, sent: 5, ..Point::default() });
        }
        let sent: Vec<_> = timeline.points().iter().map(|point| point.sent).collect();
        assert_eq!(sent, [10, 5]);
    }

    #[test]
    fn a_timeline_stays_bounded_and_keeps_the_worst() {
        let mut timeline = Timeline::default();
        for second in 0..10_000u64 {
            let latency = Quantiles { count: 1, p99: second % 100, ..Quantiles::default() };
            timeline.push(Point { at: second as f64, seconds: 1.0, sent: 1, latency, ..Point::default() });
        }
        assert!(timeline.points().len() <= POINTS_MAX);
        assert_eq!(timeline.points().iter().map(|point| point.sent).sum::<u64>(), 10_000);
        assert_eq!(timeline.points().iter().map(|point| point.latency.count).sum::<u64>(), 10_000);
        assert!(timeline.points().iter().any(|point| point.latency.p99 == 99));
    }
}
