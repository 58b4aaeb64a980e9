//! Figures of one series over a run, updated with each scrape; no scrape is kept.

use serde::Serialize;

/// A series so far.
#[derive(Debug)]
pub(super) enum Track {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// Figures of a series.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Figures {
    /// What was added in the run.
    Counter {
        /// In all.
        total: f64,
        /// On average.
        per_second: f64,
        /// Between the two scrapes between which it was most.
        per_second_max: f64,
    },
    /// Of all scrapes.
    Gauge {
        /// The lowest.
        min: f64,
        /// The average.
        mean: f64,
        /// The highest.
        max: f64,
    },
    /// What was added in the run.
    Histogram {
        /// Values.
        count: f64,
        /// Their average; none without a value.
        mean: Option<f64>,
        /// Half of them are at most this.
        p50: Option<Quantile>,
        /// 99 %.
        p99: Option<Quantile>,
    },
}

/// What buckets say of a quantile: between which bounds it lies, not where. A number for programs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(into = "f64")]
pub(crate) enum Quantile {
    /// In the lowest bucket, where an estimate may be wrong by any factor: the bound, and the estimate all the same.
    AtMost(f64, f64),
    /// Between two bounds; an estimate.
    About(f64),
    /// Beyond the last bound.
    Above(f64),
}

impl From<Quantile> for f64 {
    fn from(quantile: Quantile) -> f64 {
        match quantile {
            Quantile::AtMost(_, estimate) => estimate,
            Quantile::About(value) | Quantile::Above(value) => value,
        }
    }
}

impl Figures {
    /// Whether anything happened.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Figures::Counter { total, .. } => *total == 0.0,
            Figures::Gauge { min, max, .. } => *min == 0.0 && *max == 0.0,
            Figures::Histogram { count, .. } => *count == 0.0,
        }
    }
}

/// The last scrape follows the one before at once, maybe: a rate over so short a time is chance.
const SECONDS_MIN: f64 = 0.5;

#[derive(Debug)]
pub(super) struct Counter {
    last: f64,
    total: f64,
    per_second_max: f64,
}

impl Counter {
    /// What was there before the run does not count; a series that appears later has begun with 0.
    pub(super) fn new(value: f64, first_scrape: bool) -> Counter {
        Counter { last: if first_scrape { value } else { 0.0 }, total: 0.0, per_second_max: 0.0 }
    }

    pub(super) fn add(&mut self, value: f64, seconds: f64) {
        let added = increase(self.last, value);
        self.total += added;
        if seconds >= SECONDS_MIN {
            self.per_second_max = self.per_second_max.max(added / seconds);
        }
        self.last = value;
    }
}

/// A counter that has become smaller began anew with its process.
fn increase(last: f64, value: f64) -> f64 {
    if value >= last { value - last } else { value }
}

#[derive(Debug, Default)]
pub(super) struct Gauge {
    ends: Option<(f64, f64)>,
    sum: f64,
    count: u64,
}

impl Gauge {
    pub(super) fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.ends = Some(self.ends.map_or((value, value), |(min, max)| (min.min(value), max.max(value))));
            self.sum += value;
            self.count += 1;
        }
    }
}

/// Bounds and the number of values at or below each, ascending, the last bound infinite; then the sum of all values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets {
    pub(super) cumulative: Vec<(f64, f64)>,
    pub(super) sum: f64,
}

impl Buckets {
    fn count(&self) -> f64 {
        self.cumulative.last().map_or(0.0, |(_, count)| *count)
    }
}

#[derive(Debug)]
pub(super) struct Histogram {
    last: Buckets,
    added: Buckets,
}

impl Histogram {
    /// See [`Counter::new`].
    pub(super) fn new(buckets: &Buckets, first_scrape: bool) -> Histogram {
        let zero = |(bound, _): &(f64, f64)| (*bound, 0.0);
        let nothing = Buckets { cumulative: buckets.cumulative.iter().map(zero).collect(), sum: 0.0 };
        Histogram { last: if first_scrape { buckets.clone() } else { nothing.clone() }, added: nothing }
    }

    /// Scrapes with other bounds than the first are left out: they cannot be added.
    pub(super) fn add(&mut self, buckets: Buckets) {
        let bounds = |buckets: &Buckets| buckets.cumulative.iter().map(|(bound, _)| *bound).collect::<Vec<_>>();
        if bounds(&buckets) != bounds(&self.last) {
            return;
        }
        let restarted = buckets.count() < self.last.count();
        let before = |value: f64| if restarted { 0.0 } else { value };
        for ((added, now), last) in self.added.cumulative.iter_mut().zip(&buckets.cumulative).zip(&self.last.cumulative)
        {
            added.1 += now.1 - before(last.1);
        }
        self.added.sum += buckets.sum - before(self.last.sum);
        self.last = buckets;
    }

    fn mean(&self) -> Option<f64> {
        let count = self.added.count();
        (count > 0.0).then(|| self.added.sum / count)
    }

    /// Within the bucket that holds the quantile, values are taken to be evenly spread, as Prometheus does. The mean
    /// bounds that: half of the values reach the median, so it is at most twice the mean.
    fn quantile(&self, share: f64) -> Option<Quantile> {
        let rank = share * self.added.count();
        let most = self.mean()? / (1.0 - share);
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.added.cumulative {
            if *count >= rank && *count > below {
                let within = (rank - below) / (count - below);
                let estimate = (low + (bound - low) * within).min(most).max(low);
                return Some(match low {
                    _ if bound.is_infinite() => Quantile::Above(low),
                    0.0 => Quantile::AtMost(*bound, estimate),
                    _ => Quantile::About(estimate),
                });
            }
            (low, below) = (*bound, *count);
        }
        None
    }
}

impl Track {
    /// What the series did in so many seconds; none if it never had a value.
    pub(super) fn figures(&self, seconds: f64) -> Option<Figures> {
        Some(match self {
            Track::Counter(counter) => Figures::Counter {
                total: counter.total,
                per_second: counter.total / seconds.max(f64::MIN_POSITIVE),
                per_second_max: counter.per_second_max,
            },
            Track::Gauge(gauge) => {
                let (min, max) = gauge.ends?;
                Figures::Gauge { min, mean: gauge.sum / gauge.count as f64, max }
            }
            Track::Histogram(histogram) => Figures::Histogram {
                count: histogram.added.count(),
                mean: histogram.mean(),
                p50: histogram.quantile(0.5),
                p99: histogram.quantile(0.99),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_restarts_then_its_counters_go_on() {
        let mut counter = Counter::new(100.0, true);
        for value in [100.0, 110.0, 140.0, 5.0, 6.0] {
            counter.add(value, 1.0);
        }
        let wanted = Figures::Counter { total: 46.0, per_second: 11.5, per_second_max: 30.0 };
        assert_eq!(Track::Counter(counter).figures(4.0), Some(wanted));
        let mut late = Counter::new(7.0, false);
        late.add(7.0, 1.0);
        assert_eq!(late.total, 7.0);
    }

    #[test]
    fn gauge_is_no_number_then_it_is_left_out() {
        let mut gauge = Gauge::default();
        assert_eq!(Track::Gauge(Gauge::default()).figures(1.0), None);
        for value in [3.0, f64::NAN, -1.0, 4.0] {
            gauge.add(value);
        }
        assert_eq!(Track::Gauge(gauge).figures(9.0), Some(Figures::Gauge { min: -1.0, mean: 2.0, max: 4.0 }));
    }

    #[test]
    fn quantile_lies_in_a_bucket_then_it_is_estimated_within_it() {
        let buckets = |counts: [f64; 3], sum: f64| Buckets {
            cumulative: [1.0, 2.0, f64::INFINITY].into_iter().zip(counts).collect(),
            sum,
        };
        let mut histogram = Histogram::new(&buckets([5.0, 5.0, 5.0], 3.0), true);
        histogram.add(buckets([5.0, 5.0, 5.0], 3.0));
        assert_eq!((histogram.quantile(0.5), histogram.added.count()), (None, 0.0));
        histogram.add(buckets([5.0, 15.0, 15.0], 18.0));
        let about = |estimate| Some(Quantile::About(estimate));
        assert_eq!((histogram.quantile(0.5), histogram.quantile(0.99)), (about(1.5), about(1.99)));
        // A restart: these are new values.
        histogram.add(buckets([0.0, 0.0, 10.0], 90.0));
        let above = Some(Quantile::Above(2.0));
        let wanted = Figures::Histogram { count: 20.0, mean: Some(5.25), p50: about(2.0), p99: above };
        assert_eq!(Track::Histogram(histogram).figures(1.0), Some(wanted));
    }

    #[test]
    fn estimate_contradicts_the_mean_then_the_mean_limits_it() {
        let buckets = |counts: [f64; 3], sum: f64| Buckets {
            cumulative: [50.0, 100.0, f64::INFINITY].into_iter().zip(counts).collect(),
            sum,
        };
        let quantiles = |counts, sum| {
            let mut histogram = Histogram::new(&buckets([0.0; 3], 0.0), false);
            histogram.add(buckets(counts, sum));
            [histogram.quantile(0.5), histogram.quantile(0.99)].map(Option::unwrap)
        };
        assert_eq!(quantiles([10.0; 3], 0.0), [Quantile::AtMost(50.0, 0.0), Quantile::AtMost(50.0, 0.0)]);
        assert_eq!(quantiles([10.0; 3], 20.0)[0], Quantile::AtMost(50.0, 4.0));
        assert_eq!(quantiles([0.0, 10.0, 10.0], 520.0)[0], Quantile::About(75.0));
        assert_eq!(quantiles([1.0, 10.0, 10.0], 300.0)[0], Quantile::About(60.0));
        assert_eq!(serde_json::to_value(Quantile::AtMost(50.0, 4.0)).unwrap(), 4.0);
    }
}
