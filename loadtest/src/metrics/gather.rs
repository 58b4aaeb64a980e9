//! Adds scrape after scrape to the tracks of their series.

use std::collections::BTreeMap;

use super::openmetrics::{Family, Kind, Sample};
use super::track::{Buckets, Counter, Gauge, Histogram, Track};
use super::{Live, SHARD, Series};

/// Most series that are kept: a gateway has fewer.
const SERIES_MAX: usize = 20_000;

/// See the module.
#[derive(Default)]
pub(super) struct Gather {
    tracks: BTreeMap<Key, Track>,
    help: BTreeMap<String, String>,
    scrapes: u64,
    /// Seconds since the first scrape.
    last_at: f64,
    cpu_seconds: Option<f64>,
    live: Live,
}

/// Name of the family, and labels by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    name: String,
    labels: BTreeMap<String, String>,
}

/// What one scrape says of a series.
enum Value {
    Number(f64),
    Buckets(Buckets),
}

impl Gather {
    /// Takes one scrape, made `at` seconds after the first.
    pub(super) fn add(&mut self, families: Vec<Family>, at: f64) {
        let first = self.scrapes == 0;
        let seconds = at - self.last_at;
        self.live = self.look(&families, seconds);
        for family in families {
            let name = family.name.strip_suffix("_total").unwrap_or(&family.name).to_owned();
            for (key, value) in values(&family, &name) {
                if self.tracks.contains_key(&key) || self.tracks.len() < SERIES_MAX {
                    self.add_value(key, family.kind, value, seconds, first);
                }
            }
            self.help.entry(name).or_insert(family.help);
        }
        self.scrapes += 1;
        self.last_at = at;
    }

    fn add_value(&mut self, key: Key, kind: Kind, value: Value, seconds: f64, first: bool) {
        match value {
            Value::Number(value) => {
                let track = self.tracks.entry(key).or_insert_with(|| match kind {
                    Kind::Counter => Track::Counter(Counter::new(value, first)),
                    _ => Track::Gauge(Gauge::default()),
                });
                match track {
                    Track::Counter(counter) => counter.add(value, seconds),
                    Track::Gauge(gauge) => gauge.add(value),
                    // Another type than before: nothing that could be added.
                    Track::Histogram(_) => {}
                }
            }
            Value::Buckets(buckets) => {
                let new = || Track::Histogram(Histogram::new(&buckets, first));
                if let Track::Histogram(histogram) = self.tracks.entry(key).or_insert_with(new) {
                    histogram.add(buckets);
                }
            }
        }
    }

    /// The newest scrape, for the screen.
    fn look(&mut self, families: &[Family], seconds: f64) -> Live {
        let cpu = sum_of(families, "process_cpu_seconds");
        let used = self.cpu_seconds.zip(cpu).map(|(before, now)| now - before).filter(|used| *used >= 0.0);
        self.cpu_seconds = cpu;
        let memory = ["process_anonymous_memory_bytes", "process_resident_memory_bytes"];
        Live {
            cores: used.filter(|_| seconds > 0.0).map(|used| used / seconds),
            bytes: memory.iter().find_map(|name| sum_of(families, name)).filter(|bytes| *bytes > 0.0),
            queued: sum_of(families, "deliveries_queued"),
            queued_bytes: sum_of(families, "outbound_queue_bytes"),
        }
    }

    /// The newest scrape.
    pub(super) fn live(&self) -> Live {
        self.live
    }

    /// Good scrapes, seconds from the first to the last, and all series.
    pub(super) fn finish(self) -> (u64, f64, Vec<Series>) {
        let Gather { tracks, help, scrapes, last_at, .. } = self;
        let series = tracks.into_iter().filter_map(|(key, track)| {
            let help = help.get(&key.name).cloned().unwrap_or_default();
            Some(Series { figures: track.figures(last_at)?, name: key.name, labels: key.labels, help })
        });
        (scrapes, last_at, series.collect())
    }
}

/// The sum of a family's samples. Names are those of Prometheus' conventions; ringgate's own have its prefix.
fn sum_of(families: &[Family], name: &str) -> Option<f64> {
    let is_named = |family: &&Family| {
        let own = family.name.strip_prefix("ringgate_").unwrap_or(&family.name);
        own.strip_suffix("_total").unwrap_or(own) == name
    };
    let samples = families.iter().find(is_named)?.samples.iter().filter(|sample| !sample.name.ends_with("_created"));
    samples.map(|sample| sample.value).reduce(|sum, value| sum + value)
}

/// Series of a family: every one, and for those of shards their sum, too.
fn values(family: &Family, name: &str) -> BTreeMap<Key, Value> {
    let mut values = BTreeMap::new();
    // When a counter was made says nothing about a run.
    for sample in family.samples.iter().filter(|sample| !sample.name.ends_with("_created")) {
        let mut labels: BTreeMap<String, String> = sample.labels.iter().cloned().collect();
        let bound = (family.kind == Kind::Histogram).then(|| labels.remove("le")).flatten();
        // Samples of a family of unknown type have nothing in common but the beginning of their names.
        let name = if family.kind == Kind::Other { &sample.name } else { name };
        let mut key = Key { name: name.to_owned(), labels };
        if key.labels.contains_key(SHARD) {
            add_sample(&mut values, key.clone(), family.kind, sample, bound.as_deref());
            key.labels.remove(SHARD);
        }
        add_sample(&mut values, key, family.kind, sample, bound.as_deref());
    }
    values
}

fn add_sample(values: &mut BTreeMap<Key, Value>, key: Key, kind: Kind, sample: &Sample, bound: Option<&str>) {
    if kind != Kind::Histogram {
        match values.entry(key).or_insert(Value::Number(0.0)) {
            Value::Number(sum) => *sum += sample.value,
            Value::Buckets(_) => {}
        }
        return;
    }
    let Value::Buckets(buckets) = values.entry(key).or_insert_with(|| Value::Buckets(Buckets::default())) else {
        return;
    };
    if sample.name.ends_with("_sum") {
        buckets.sum += sample.value;
    } else if let Some(bound) = bound.and_then(|bound| bound.parse::<f64>().ok()) {
        // Bounds ascend in a text; for a sum of shards they are there already.
        match buckets.cumulative.iter_mut().find(|(other, _)| *other == bound) {
            Some((_, count)) => *count += sample.value,
            None => buckets.cumulative.push((bound, sample.value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::openmetrics::parse;
    use super::super::track::{Figures, Quantile};
    use super::*;

    fn text(n: u64) -> String {
        format!(
            "# TYPE ringgate_sqes counter\nringgate_sqes_total{{shard=\"0\"}} {}\nringgate_sqes_total{{shard=\"1\"}} {}\n\
             # TYPE ringgate_queue gauge\nringgate_queue {}\n\
             # TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total {}\nprocess_cpu_seconds_created 1e9\n\
             # TYPE ringgate_process_resident_memory_bytes gauge\nringgate_process_resident_memory_bytes 4096\n\
             # TYPE d_seconds histogram\nd_seconds_bucket{{le=\"0.5\"}} {n}\nd_seconds_bucket{{le=\"+Inf\"}} {n}\n\
             d_seconds_sum {}\nd_seconds_count {n}\n# EOF\n",
            10 * n,
            20 * n,
            5 % n,
            n as f64 * 0.5,
            n as f64 * 0.25,
        )
    }

    #[test]
    fn scrapes_are_gathered_then_each_series_has_its_figures() {
        let mut gather = Gather::default();
        for (at, n) in [(0.0, 4), (1.0, 6), (3.0, 10)] {
            gather.add(parse(&text(n)).unwrap(), at);
        }
        assert_eq!(gather.live(), Live { cores: Some(1.0), bytes: Some(4096.0), queued: None, queued_bytes: None });
        let (scrapes, seconds, series) = gather.finish();
        assert_eq!((scrapes, seconds), (3, 3.0));
        let of = |name: &str, labels: &str| {
            let found = series.iter().find(|s| s.name == name && s.labels_text() == labels);
            found.unwrap_or_else(|| panic!("{name} {labels}")).figures.clone()
        };
        let counter =
            |total: f64, per_second_max: f64| Figures::Counter { total, per_second: total / 3.0, per_second_max };
        assert_eq!(of("ringgate_sqes", "shard=0"), counter(60.0, 20.0));
        assert_eq!(of("ringgate_sqes", ""), counter(180.0, 60.0));
        assert_eq!(of("process_cpu_seconds", ""), counter(3.0, 1.0));
        assert_eq!(of("ringgate_queue", ""), Figures::Gauge { min: 1.0, mean: 11.0 / 3.0, max: 5.0 });
        let at_most = |estimate| Some(Quantile::AtMost(0.5, estimate));
        let (p50, p99) = (at_most(0.25), at_most(0.5 * (0.99 * 6.0 / 6.0)));
        let histogram = Figures::Histogram { count: 6.0, mean: Some(0.25), p50, p99 };
        assert_eq!(of("d_seconds", ""), histogram);
        assert_eq!(series.len(), 7);
    }
}
