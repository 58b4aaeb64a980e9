//! Latencies and troubles: what is measured, from when, and how it adds up without growing with the length of a run.

use std::collections::BTreeMap;
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
    /// In the order of [`Measure::ALL`].
    pub(crate) latencies: [Latency; 4],
    /// How late the schedule was kept: the driver's own fault.
    pub(crate) lag: Histogram<u64>,
    /// The longest time for which a driver thread was kept from running.
    pub(crate) stall_us: u64,
    /// Who came back first.
    pub(crate) first_back: FirstBack,
    /// What went wrong.
    pub(crate) troubles: Troubles,
}

/// The first clients that signed in again, at most [`FirstBack::MAX`]: those whom a gateway serves that has just come up.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct FirstBack(Vec<Back>);

/// A client that signed in again. Ordered by when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
struct Back {
    /// When, in microseconds since the run's zero.
    at_us: u64,
    /// How long it took from the beginning of the attempt that succeeded.
    took_us: u64,
}

impl FirstBack {
    /// How many are kept.
    pub(crate) const MAX: usize = 1000;

    /// A client is back, later than all that were recorded here before; both times in microseconds since the run's zero.
    pub(crate) fn record(&mut self, begun_us: u64, now_us: u64) {
        if self.0.len() < Self::MAX {
            self.0.push(Back { at_us: now_us, took_us: now_us.saturating_sub(begun_us) });
        }
    }

    /// From the beginning of their attempts to Connected, in microseconds.
    pub(crate) fn took(&self) -> Histogram<u64> {
        let mut took = histogram();
        self.0.iter().for_each(|back| took.saturating_record(back.took_us.max(1)));
        took
    }

    fn add(&mut self, other: &FirstBack) {
        self.0.extend_from_slice(&other.0);
        self.0.sort_unstable();
        self.0.truncate(Self::MAX);
    }
}

/// What went wrong, counted by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Troubles {
    /// Anything, in words, but for the next.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What the load tester, or its host, could not do: nothing that a gateway could be blamed for.
    pub(crate) own: BTreeMap<String, u64>,
    /// Refused requests, by error code.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Connections that ended unasked, by close code; 0 for one that ended without a word.
    pub(crate) closed: BTreeMap<u16, u64>,
}

impl Troubles {
    /// Everything in words, whoever is to blame.
    pub(crate) fn all_errors(&self) -> BTreeMap<String, u64> {
        let mut all = self.errors.clone();
        merge(&mut all, &self.own);
        all
    }

    /// Adds all of another's.
    pub(crate) fn add(&mut self, other: &Troubles) {
        merge(&mut self.errors, &other.errors);
        merge(&mut self.own, &other.own);
        merge(&mut self.refused, &other.refused);
        merge(&mut self.closed, &other.closed);
    }
}

fn merge<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

impl Default for Record {
    fn default() -> Self {
        Record {
            latencies: core::array::from_fn(|_| Latency::new()),
            lag: histogram(),
            stall_us: 0,
            first_back: FirstBack::default(),
            troubles: Troubles::default(),
        }
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
        self.stall_us = self.stall_us.max(other.stall_us);
        self.first_back.add(&other.first_back);
        self.troubles.add(&other.troubles);
    }

    /// Whether nothing was recorded.
    pub(crate) fn is_empty(&self) -> bool {
        self.latencies.iter().all(|latency| latency.planned.is_empty())
            && self.lag.is_empty()
            && self.stall_us == 0
            && self.first_back.0.is_empty()
            && self.troubles == Troubles::default()
    }

    /// Back to nothing.
    pub(crate) fn reset(&mut self) {
        for latency in &mut self.latencies {
            latency.planned.reset();
            latency.sent.reset();
        }
        self.lag.reset();
        self.stall_us = 0;
        self.first_back.0.clear();
        self.troubles = Troubles::default();
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
    fn the_first_to_be_back_are_kept_whoever_saw_them() {
        let (mut one, mut other) = (Record::default(), Record::default());
        for at in 1..=700 {
            one.first_back.record(10_000 * at, 10_000 * at + 2 * at);
            other.first_back.record(10_000 * at + 5_000, 10_000 * at + 5_003 + at);
        }
        one.add(&other);
        one.add(&Record::default());
        // 500 of each: of one up to 1 000 us, of the other up to 503.
        let took = one.first_back.took();
        assert_eq!(
            (took.len(), took.min(), took.value_at_quantile(1.0), took.count_between(504, 1_000)),
            (1_000, 2, 1_000, 249)
        );
        one.reset();
        assert!(one.is_empty());
    }

    #[test]
    fn troubles_add_up_by_kind() {
        let mut record = Record::default();
        record.troubles.errors.insert("no pong".into(), 2);
        let mut sum = record.clone();
        record.troubles.closed.insert(3008, 1);
        record.troubles.own.insert("no port".into(), 3);
        sum.add(&record);
        assert_eq!(sum.troubles.errors["no pong"], 4);
        assert_eq!(sum.troubles.all_errors(), BTreeMap::from([("no pong".to_owned(), 4), ("no port".to_owned(), 3)]));
        assert_eq!(sum.troubles.closed[&3008], 1);
        sum.reset();
        assert_eq!(sum.troubles, Troubles::default());
    }
}
