//! Latencies and troubles: what is measured, of whom, from when, and how it adds up without growing with the length of a run.
//!
//! Latencies are kept per [`Series`]: whatever is recorded goes into two histograms of one of them. What a whole run has
//! waited is their sum, made when it is asked for.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
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

    /// Only loads with messages have it.
    pub(crate) fn is_of_messages(self) -> bool {
        matches!(self, Measure::Publish | Measure::Deliver)
    }

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

/// Whose a latency is. The numbers are places in [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) enum Series {
    /// Connects and heartbeats of a population, from 0.
    Population(u8),
    /// Messages and Pings of a stream, from 1; several phases of a run have the same one, each as a `Traffic` of its own. 0
    /// is one that this thread has not been told of yet: it has no name, and counts in the whole only.
    Stream(u8),
}

impl Series {
    /// Its place in a list of all of them.
    fn place(self) -> usize {
        match self {
            Series::Stream(number) => usize::from(number) << 1,
            Series::Population(number) => usize::from(number) << 1 | 1,
        }
    }

    fn at(place: usize) -> Series {
        let number = (place >> 1) as u8;
        if place & 1 == 0 { Series::Stream(number) } else { Series::Population(number) }
    }
}

/// What the series of a run are called, in reports and thresholds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Populations, from number 0.
    pub(crate) populations: Vec<String>,
    /// Streams, from number 1.
    pub(crate) streams: Vec<StreamName>,
}

/// What a stream is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamName {
    /// In reports and thresholds.
    pub(crate) name: String,
    /// It consists of Pings; of messages otherwise.
    pub(crate) pings: bool,
}

impl Names {
    /// One population of this name, and one stream of the same if anything is sent.
    pub(crate) fn single(name: &str, stream_of_pings: Option<bool>) -> Names {
        let stream = stream_of_pings.map(|pings| StreamName { name: name.to_owned(), pings });
        Names { populations: vec![name.to_owned()], streams: stream.into_iter().collect() }
    }

    /// All of them, each once: streams in their order, then populations that no stream is named after.
    pub(crate) fn all(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let streams = self.streams.iter().map(|stream| stream.name.as_str());
        streams.chain(self.populations.iter().map(String::as_str)).filter(|name| seen.insert(*name)).collect()
    }

    /// Whether any stream is one of messages.
    pub(crate) fn has_messages(&self) -> bool {
        self.streams.iter().any(|stream| !stream.pings)
    }

    /// What is timed of everything of this name; nothing if there is nothing of this name.
    pub(crate) fn measures_of(&self, name: &str) -> Vec<Measure> {
        let measures = |series: Series| match series {
            Series::Population(_) => [Measure::Connect, Measure::Ping],
            Series::Stream(number) => match self.streams.get(usize::from(number).wrapping_sub(1)) {
                Some(StreamName { pings: false, .. }) => [Measure::Publish, Measure::Deliver],
                _ => [Measure::Ping; 2],
            },
        };
        let has: Vec<Measure> = self.of(name).flat_map(measures).collect();
        Measure::ALL.into_iter().filter(|measure| has.contains(measure)).collect()
    }

    /// Everything of this name: a stream, a population, or a population and the stream that has its name.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Series> + 'a {
        let populations = self.populations.iter().zip(0u8..).filter(move |(own, _)| *own == name);
        let streams = self.streams.iter().zip(1u8..).filter(move |(own, _)| own.name == name);
        populations
            .map(|(_, number)| Series::Population(number))
            .chain(streams.map(|(_, number)| Series::Stream(number)))
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
    /// In the order of [`Measure::ALL`], then by the place of the series. A series takes no memory before it has something.
    latencies: [Vec<Option<Box<Latency>>>; 4],
    /// How late the schedule was kept: the driver's own fault.
    pub(crate) lag: Histogram<u64>,
    /// The longest time for which a driver thread was kept from running.
    pub(crate) stall_us: u64,
    /// The clients that came back first.
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
    /// Connections that ended unasked, by close code; 0 for one that ended without a code.
    pub(crate) closed: BTreeMap<u16, u64>,
}

/// Kinds of errors that are kept apart: a gateway may put anything into its words.
const KINDS_MAX: usize = 200;

impl Troubles {
    /// Counts an error of this kind.
    pub(crate) fn error(&mut self, kind: String) {
        let is_known = self.errors.len() < KINDS_MAX || self.errors.contains_key(&kind);
        *self.errors.entry(if is_known { kind } else { "other errors".to_owned() }).or_default() += 1;
    }

    /// All errors in words, the gateway's and the load tester's.
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
            latencies: Default::default(),
            lag: histogram(),
            stall_us: 0,
            first_back: FirstBack::default(),
            troubles: Troubles::default(),
        }
    }
}

impl Record {
    /// Records one duration from both starts; all in microseconds since the run's zero.
    pub(crate) fn record(&mut self, measure: Measure, series: Series, planned_us: u64, sent_us: u64, now_us: u64) {
        let Latency { planned, sent } = self.latency_mut(measure, series);
        planned.saturating_record(now_us.saturating_sub(planned_us).max(1));
        sent.saturating_record(now_us.saturating_sub(sent_us).max(1));
    }

    /// The histograms of one series, which get their memory now if they have none yet.
    pub(crate) fn latency_mut(&mut self, measure: Measure, series: Series) -> &mut Latency {
        let (all, place) = (&mut self.latencies[measure as usize], series.place());
        if all.len() <= place {
            all.resize_with(place + 1, || None);
        }
        all[place].get_or_insert_with(|| Box::new(Latency::new()))
    }

    /// A measure of all series together.
    pub(crate) fn of(&self, measure: Measure) -> Cow<'_, Latency> {
        self.of_those(measure, |_| true)
    }

    /// A measure of some series together.
    pub(crate) fn of_those(&self, measure: Measure, wanted: impl Fn(Series) -> bool) -> Cow<'_, Latency> {
        let mut wanted = self.series(measure).filter(|(series, _)| wanted(*series)).map(|(_, latency)| latency);
        let Some(first) = wanted.next() else { return Cow::Owned(Latency::new()) };
        let mut sum = Cow::Borrowed(first);
        wanted.for_each(|latency| sum.to_mut().add(latency));
        sum
    }

    /// Whether a measure has anything, of whichever series.
    pub(crate) fn has(&self, measure: Measure) -> bool {
        self.series(measure).next().is_some()
    }

    /// The series that have something of a measure.
    pub(crate) fn series(&self, measure: Measure) -> impl Iterator<Item = (Series, &Latency)> {
        let all = self.latencies[measure as usize].iter().enumerate();
        all.filter_map(|(place, latency)| Some((Series::at(place), latency.as_deref()?)))
            .filter(|(_, latency)| !latency.planned.is_empty())
    }

    /// Adds everything of another record.
    pub(crate) fn add(&mut self, other: &Record) {
        for measure in Measure::ALL {
            for (series, latency) in other.series(measure) {
                self.latency_mut(measure, series).add(latency);
            }
        }
        let _ = self.lag.add(&other.lag);
        self.stall_us = self.stall_us.max(other.stall_us);
        self.first_back.add(&other.first_back);
        self.troubles.add(&other.troubles);
    }

    /// Whether nothing was recorded.
    pub(crate) fn is_empty(&self) -> bool {
        !Measure::ALL.into_iter().any(|measure| self.has(measure))
            && self.lag.is_empty()
            && self.stall_us == 0
            && self.first_back.0.is_empty()
            && self.troubles == Troubles::default()
    }

    /// Back to nothing.
    pub(crate) fn reset(&mut self) {
        // Those that have been quiet are empty already, and clearing a histogram is not free.
        for latency in self.latencies.iter_mut().flatten().flatten().filter(|latency| !latency.planned.is_empty()) {
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
        order.into_iter().find(|measure| self.has(*measure)).unwrap_or(Measure::Deliver)
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
    /// 95 %.
    pub(crate) p95: u64,
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
            p95: histogram.value_at_quantile(0.95),
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
        record.record(Measure::Deliver, Series::Stream(1), 1_000, 2_500, 2_600);
        let latency = record.of(Measure::Deliver);
        assert_eq!((latency.planned.max(), latency.sent.max()), (1_600, 100));
        assert_eq!(record.main(), Measure::Deliver);
    }

    #[test]
    fn series_are_kept_apart_and_the_whole_is_their_sum() {
        let (mut record, mut other) = (Record::default(), Record::default());
        record.record(Measure::Ping, Series::Population(0), 0, 0, 100);
        record.record(Measure::Ping, Series::Stream(1), 0, 0, 900);
        other.record(Measure::Ping, Series::Stream(255), 0, 0, 5_000);
        record.add(&other);
        let max = |series: Series| record.of_those(Measure::Ping, |other| other == series).planned.max();
        let all = [Series::Population(0), Series::Stream(1), Series::Stream(255), Series::Population(1)];
        assert_eq!(all.map(max), [100, 900, 5_003, 0]);
        assert_eq!((record.of(Measure::Ping).planned.len(), record.of(Measure::Ping).sent.max()), (3, 5_003));
        assert!(record.has(Measure::Ping) && !record.has(Measure::Deliver));
        record.reset();
        assert!(record.is_empty() && record.of(Measure::Ping).planned.is_empty());
    }

    #[test]
    fn a_name_is_a_population_a_stream_or_both() {
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let stream = |name: &str, pings| StreamName { name: name.to_owned(), pings };
        let streams = vec![stream("chat", false), stream("people", true)];
        let names = Names { populations: of(&["people", "members"]), streams };
        assert_eq!(names.measures_of("people"), [Measure::Connect, Measure::Ping]);
        assert_eq!(names.measures_of("chat"), [Measure::Publish, Measure::Deliver]);
        assert!(names.measures_of("who").is_empty() && names.has_messages());
        assert_eq!(names.all(), ["chat", "people", "members"]);
        assert_eq!(names.of("people").collect::<Vec<_>>(), [Series::Population(0), Series::Stream(2)]);
        assert_eq!(names.of("chat").collect::<Vec<_>>(), [Series::Stream(1)]);
        assert_eq!(names.of("who").count(), 0);
    }

    #[test]
    fn two_threads_see_clients_come_back_then_the_earliest_of_both_are_kept() {
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
