//! Latencies: what is measured, from when, and how it adds up without growing with the length of a run.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// From the decision to connect to Connected.
    Connect,
    /// From Ping to Pong.
    Ping,
    /// From Publish to Published.
    Publish,
    /// From Publish to the message at its recipient.
    Deliver,
}

impl Measure {
    /// All, in the order of reports.
    pub(crate) const ALL: [Measure; 4] = [Measure::Connect, Measure::Ping, Measure::Publish, Measure::Deliver];

    /// In reports and thresholds.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Measure::Connect => "connect",
            Measure::Ping => "ping",
            Measure::Publish => "publish",
            Measure::Deliver => "deliver",
        }
    }
}

/// Microseconds, 1 us to 60 s, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| unreachable!("constant bounds are good"))
}

/// One measure from two starts.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    /// From the planned time: what a user would have waited.
    pub(crate) planned: Histogram<u64>,
    /// From the time at which this tester came to send: hides what a stall costs, and is what most tools show.
    pub(crate) sent: Histogram<u64>,
}

impl Latency {
    fn new() -> Latency {
        Latency { planned: histogram(), sent: histogram() }
    }

    fn add(&mut self, other: &Latency) {
        // Bounds are the same everywhere, so nothing can be out of range.
        let _ = self.planned.add(&other.planned);
        let _ = self.sent.add(&other.sent);
    }
}

/// All measures of a thread, a phase or a run.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    latencies: [Latency; 4],
    /// How late the schedule was kept: the driver's own fault.
    pub(crate) lag: Histogram<u64>,
}

impl Default for Record {
    fn default() -> Self {
        Record { latencies: core::array::from_fn(|_| Latency::new()), lag: histogram() }
    }
}

impl Record {
    /// Records one duration from both starts; all in microseconds since the run's zero.
    pub(crate) fn record(&mut self, measure: Measure, planned_us: u64, sent_us: u64, now_us: u64) {
        let Latency { planned, sent } = &mut self.latencies[measure as usize];
        planned.saturating_record(now_us.saturating_sub(planned_us).max(1));
        sent.saturating_record(now_us.saturating_sub(sent_us).max(1));
    }

    /// The histograms of a measure.
    pub(crate) fn of(&self, measure: Measure) -> &Latency {
        &self.latencies[measure as usize]
    }

    /// Adds everything of another record.
    pub(crate) fn add(&mut self, other: &Record) {
        for (own, others) in self.latencies.iter_mut().zip(&other.latencies) {
            own.add(others);
        }
        let _ = self.lag.add(&other.lag);
    }

    /// Back to nothing.
    pub(crate) fn reset(&mut self) {
        for latency in &mut self.latencies {
            latency.planned.reset();
            latency.sent.reset();
        }
        self.lag.reset();
    }

    /// The measure that a short figure is about: deliveries if there are any, else what there is.
    pub(crate) fn main(&self) -> Measure {
        let order = [Measure::Deliver, Measure::Ping, Measure::Publish, Measure::Connect];
        order.into_iter().find(|measure| !self.of(*measure).planned.is_empty()).unwrap_or(Measure::Deliver)
    }
}

/// Figures of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Quantiles {
    /// Durations recorded.
    pub(crate) count: u64,
    /// Half of them are at most this.
    pub(crate) p50: u64,
    /// 90 %.
    pub(crate) p90: u64,
    /// 99 %.
    pub(crate) p99: u64,
    /// 99.9 %.
    pub(crate) p999: u64,
    /// The longest.
    pub(crate) max: u64,
    /// The average.
    pub(crate) mean: f64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Quantiles::default();
        }
        Quantiles {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
        }
    }
}

/// Points of a timeline: at most so many, each standing for twice as long when they become too many.
const POINTS_MAX: usize = 1_800;

/// One stretch of time in a report.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Point {
    /// Seconds since the run began, at its end.
    pub(crate) at: f64,
    /// Its length in seconds.
    pub(crate) seconds: f64,
    /// Signed-in connections at its end.
    pub(crate) connections: u64,
    /// Publishes and Pings sent in it.
    pub(crate) sent: u64,
    /// Deliveries in it.
    pub(crate) delivered: u64,
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
            p99: a.p99.max(b.p99),
            p999: a.p999.max(b.p999),
            max: a.max.max(b.max),
            mean: a.mean.max(b.mean),
        };
        self.at = next.at;
        self.seconds = total;
        self.connections = next.connections;
        self.sent += next.sent;
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

/// Durations for people.
pub(crate) fn human_us(us: u64) -> String {
    let duration = Duration::from_micros(us);
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.2} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_shows_from_the_planned_time_only() {
        let mut record = Record::default();
        record.record(Measure::Deliver, 1_000, 2_500, 2_600);
        let latency = record.of(Measure::Deliver);
        assert_eq!((latency.planned.max(), latency.sent.max()), (1_600, 100));
        assert_eq!(record.main(), Measure::Deliver);
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
