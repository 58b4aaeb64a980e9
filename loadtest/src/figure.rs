//! Figures by their names, for thresholds, `--abort-if` and the screen.
//!
//! | figure | what |
//! |---|---|
//! | `p99`, `p99.95`, `max`, `mean` | latency from the planned time, of what the load is about |
//! | `deliver.p99` | latency of one measure: `connect`, `ping`, `publish` or `deliver` |
//! | `chat.deliver.p99` | latency of one stream or population, by its name |
//! | `lag`, `lag.p50`, `lag.max` | how late the load tester kept its schedule; `lag` alone is its p99 |
//! | `stall` | the longest time for which a driver thread was kept from running |
//! | `lost`, `rate`, ... | counts, rates and shares: see [`OTHERS`] |
//!
//! `phase(steady).` before any latency, `lag` or `stall`, and before the others that phases have, asks for that phase only.

use hdrhistogram::Histogram;

use crate::record::{Measure, Names, Record, Series, histogram};

/// Which figure of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Statistic {
    /// This share of them is at most so long.
    Percentile(f64),
    /// The longest.
    Max,
    /// The average.
    Mean,
}

/// A figure, of a run or of a phase.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// A latency from the planned time, in microseconds.
    Latency {
        /// Of this stream or population; of all if none.
        name: Option<String>,
        /// What the load is about, if none.
        measure: Option<Measure>,
        /// Of the durations.
        statistic: Statistic,
    },
    /// How late the schedule was kept, in microseconds.
    Lag(Statistic),
    /// The longest pause of a driver thread, in microseconds.
    Stall,
    /// One of [`OTHERS`].
    Other(&'static str),
}

/// A figure of a run, or of one of its phases.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// Of all phases of this name; of the whole run if none.
    pub(crate) phase: Option<String>,
    /// Which.
    pub(crate) what: What,
}

/// Figures that are no times, and whether phases have them, too.
pub(crate) const OTHERS: [(&str, bool); 33] = [
    ("planned", false),
    ("published", true),
    ("sent", false),
    ("sent_share", false),
    ("delivered", true),
    ("lost", false),
    ("uncertain", false),
    ("duplicated", false),
    ("reordered", false),
    ("corrupted", false),
    ("misdelivered", false),
    ("delivered_undecided", false),
    ("delivered_refused", false),
    ("answered_twice", false),
    ("answered_wrong", false),
    ("unanswered", false),
    ("pings_unanswered", false),
    ("heartbeats_unanswered", false),
    ("away", false),
    ("never_sent", false),
    ("late", false),
    ("skipped", false),
    ("skipped_by_churn", false),
    ("undecided", false),
    ("errors", true),
    ("refused", false),
    ("closed", false),
    ("reconnects", true),
    ("rate", true),
    ("connects", false),
    ("cpu", false),
    ("driver_busy", true),
    ("accepted", true),
];

/// The names that the figures of a load can have.
pub(crate) struct Known<'a> {
    /// Its name in errors.
    pub(crate) load: &'a str,
    /// Its streams and populations.
    pub(crate) names: &'a Names,
    /// Its phases.
    pub(crate) phases: Vec<String>,
    /// The gateway's process is known.
    pub(crate) has_process: bool,
}

impl std::str::FromStr for Figure {
    type Err = String;

    /// The error lists all figures; whether streams, populations and phases exist is checked by [`Figure::check`].
    fn from_str(text: &str) -> Result<Self, String> {
        let (phase, rest) = match text.strip_prefix("phase(") {
            None => (None, text),
            Some(rest) => match rest.split_once(").") {
                Some((phase, rest)) if !phase.is_empty() => (Some(phase.to_owned()), rest),
                _ => return Err(format!("\"{text}\": a figure of a phase is written as phase(steady).deliver.p99")),
            },
        };
        let what = What::parse(rest)?;
        match (&phase, &what) {
            (Some(_), What::Other(name)) if !OTHERS.contains(&(name, true)) => {
                let there: Vec<_> = OTHERS.iter().filter(|(_, of_phases)| *of_phases).map(|(name, _)| *name).collect();
                let there = there.join(", ");
                Err(format!("a phase has no {name} of its own; it has latencies, lag, stall, {there}"))
            }
            _ => Ok(Figure { phase, what }),
        }
    }
}

impl What {
    fn parse(text: &str) -> Result<What, String> {
        let unknown = || {
            let near = nearest(text).map_or_else(|| " ".to_owned(), |name| format!(" did you mean {name}?\n"));
            format!("there is no figure \"{text}\";{near}{}", there_is(true))
        };
        if let Some(what) = What::exact(text) {
            return Ok(what);
        }
        // A percentile may have a dot itself: of all ends that follow a dot, the longest that is one counts.
        let ends = std::iter::once(0).chain(text.match_indices('.').map(|(at, _)| at + 1));
        let found = ends.map(|at| text.split_at(at)).find_map(|(head, end)| Some((head, Statistic::parse(end)?)));
        let Some((head, statistic)) = found.and_then(|(head, statistic)| Some((head.strip_suffix('.')?, statistic)))
        else {
            return Err(unknown());
        };
        let (name, last) = head.rsplit_once('.').map_or((None, head), |(name, last)| (Some(name), last));
        match Measure::ALL.into_iter().find(|measure| measure.label() == last) {
            Some(_) if name == Some("") => Err(unknown()),
            Some(measure) => Ok(What::Latency { name: name.map(str::to_owned), measure: Some(measure), statistic }),
            None if last == "lag" && name.is_none() => Ok(What::Lag(statistic)),
            // More likely a mistyped measure than a stream of that name.
            None if name.is_none() && nearest(text).is_some() => Err(unknown()),
            None => Err(format!(
                "\"{text}\" does not say which latency: after the name of a stream or population stands connect, ping, \
                 publish or deliver, as in {head}.deliver.p99"
            )),
        }
    }

    /// A figure of its own name, or a percentile alone.
    fn exact(text: &str) -> Option<What> {
        match text {
            "lag" => return Some(What::Lag(Statistic::Percentile(0.99))),
            "stall" => return Some(What::Stall),
            _ => {}
        }
        let other = OTHERS.iter().find(|(name, _)| *name == text).map(|(name, _)| What::Other(name));
        let latency = |statistic| What::Latency { name: None, measure: None, statistic };
        other.or_else(|| Statistic::parse(text).map(latency))
    }

    /// It is a time, in microseconds.
    pub(crate) fn is_time(&self) -> bool {
        !matches!(self, What::Other(_))
    }
}

impl Statistic {
    fn parse(text: &str) -> Option<Statistic> {
        match text {
            "max" => return Some(Statistic::Max),
            "mean" => return Some(Statistic::Mean),
            // As it is called in the JSON.
            "p999" => return Some(Statistic::Percentile(0.999)),
            _ => {}
        }
        let digits = text.strip_prefix('p')?;
        let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.ends_with(|last: char| last.is_ascii_digit())
            && digits.chars().all(|character| character.is_ascii_digit() || character == '.');
        let percent: f64 = digits.parse().ok().filter(|_| is_number)?;
        (percent > 0.0 && percent < 100.0).then_some(Statistic::Percentile(percent / 100.0))
    }

    /// Of a histogram; none if nothing was recorded.
    pub(crate) fn of(self, histogram: &Histogram<u64>) -> Option<f64> {
        (!histogram.is_empty()).then(|| match self {
            Statistic::Percentile(share) => histogram.value_at_quantile(share) as f64,
            Statistic::Max => histogram.max() as f64,
            Statistic::Mean => histogram.mean(),
        })
    }
}

/// Figures as errors list them: a heading, and what stands in its line.
const GROUPS: [(&str, &[&str]); 6] = [
    ("what was sent", &["planned", "sent", "sent_share", "never_sent", "skipped", "skipped_by_churn"]),
    ("answers", &["published", "accepted", "refused", "unanswered", "undecided", "answered_twice", "answered_wrong"]),
    (
        "what arrived",
        &["delivered", "late", "lost", "uncertain", "duplicated", "reordered", "corrupted", "misdelivered"],
    ),
    ("what arrived though not accepted", &["delivered_undecided", "delivered_refused"]),
    ("clients", &["connects", "closed", "reconnects", "away", "pings_unanswered", "heartbeats_unanswered", "errors"]),
    ("speed and cost", &["rate", "cpu", "lag", "stall", "driver_busy"]),
];

/// The figures that exist, in a line for each kind, for an error that names a wrong one.
fn there_is(has_messages: bool) -> String {
    let measures = Measure::ALL.into_iter().filter(|measure| has_messages || !measure.is_of_messages());
    let measures: Vec<_> = measures.map(|measure| format!("{}.p99", measure.label())).collect();
    let first = measures.first().map_or("", String::as_str);
    let mut lines = vec![
        "there are:".to_owned(),
        "  latency: p50, p95, p99, p99.9 or any other percentile, max, mean".to_owned(),
        format!("  latency of one kind: {}", measures.join(", ")),
        format!("  latency of one stream or population: NAME.{first}; of one phase: phase(NAME).p99"),
    ];
    lines.extend(GROUPS.iter().map(|(heading, names)| {
        let names: Vec<_> = names.iter().copied().filter(|name| has_messages || !is_of_messages(name)).collect();
        format!("  {heading}: {}", names.join(", "))
    }));
    lines.join("\n")
}

/// The figure whose name is nearest to this; none where all are far from it.
fn nearest(text: &str) -> Option<String> {
    // Others write p(99).
    let bare = text.replace(['(', ')'], "");
    if bare != text && What::exact(&bare).is_some() {
        return Some(bare);
    }
    let end = text.split_once('.').map(|(_, end)| end).filter(|end| Statistic::parse(end).is_some()).unwrap_or("p99");
    let latencies = Measure::ALL.into_iter().map(|measure| format!("{}.{end}", measure.label()));
    let others = OTHERS.iter().map(|(name, _)| *name).chain(["lag", "stall", "max", "mean"]).map(str::to_owned);
    let distance = |name: &String| strsim::damerau_levenshtein(text, name);
    let nearest = others.chain(latencies).min_by_key(distance);
    let is_near = |name: &String| distance(name) <= (name.chars().count() / 3).max(1);
    nearest.filter(is_near)
}

/// Whether a figure is one of messages. What became of them is not meant: without messages none is lost, which is true, and
/// one set of thresholds may serve several loads.
fn is_of_messages(other: &str) -> bool {
    ["rate", "cpu"].contains(&other)
}

impl Figure {
    /// Refuses a figure that this load cannot have, before any client connects. CPU time is that of a gateway
    /// whose process is known.
    pub(crate) fn check(&self, known: &Known<'_>) -> Result<(), String> {
        let Known { load, names, phases, has_process } = known;
        let has_messages = names.has_messages();
        if let Some(phase) = self.phase.as_ref().filter(|phase| !phases.contains(phase)) {
            return Err(format!("{load} has no phase \"{phase}\"; it has {}", phases.join(", ")));
        }
        match &self.what {
            What::Other("cpu") if !has_process => Err("cpu is there with --pid only".to_owned()),
            What::Other(name) if !has_messages && is_of_messages(name) => {
                Err(format!("{load} sends no messages and has no {name}; {}", there_is(false)))
            }
            What::Latency { name: None, measure: Some(measure), .. } if !has_messages && measure.is_of_messages() => {
                let label = measure.label();
                Err(format!("{load} sends no messages and has no {label}; {}", there_is(false)))
            }
            What::Latency { name: Some(name), measure: Some(measure), .. } => {
                let measures = names.measures_of(name);
                if measures.is_empty() {
                    let all = names.all().join(", ");
                    return Err(format!("{load} has no stream or population \"{name}\"; it has {all}"));
                }
                if !measures.contains(measure) {
                    let has: Vec<_> = measures.into_iter().map(Measure::label).collect();
                    return Err(format!("\"{name}\" has no {}; it has {}", measure.label(), has.join(", ")));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The value of a latency, the lag or the stall in these records, and the number of its samples; none for other figures,
    /// and without samples. A latency without a measure is that of `main`.
    pub(crate) fn of_records<'a>(
        &self,
        records: impl Iterator<Item = &'a Record> + Clone,
        names: &Names,
        main: Measure,
    ) -> Option<(f64, u64)> {
        let mut sum = histogram();
        let statistic = match &self.what {
            What::Latency { name, measure, statistic } => {
                let series: Option<Vec<Series>> = name.as_ref().map(|name| names.of(name).collect());
                for record in records {
                    let wanted = |other: Series| series.as_ref().is_none_or(|series| series.contains(&other));
                    // Bounds are the same everywhere, so nothing can be out of range.
                    let _ = sum.add(&record.of_those(measure.unwrap_or(main), wanted).planned);
                }
                statistic
            }
            What::Lag(statistic) => {
                for record in records {
                    let _ = sum.add(&record.lag);
                }
                statistic
            }
            What::Stall => return records.map(|record| record.stall_us).max().map(|stall_us| (stall_us as f64, 1)),
            What::Other(_) => return None,
        };
        Some((statistic.of(&sum)?, sum.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(text: &str) -> Result<Figure, String> {
        text.parse()
    }

    #[test]
    fn figure_is_written_in_any_form_then_phase_name_and_measure_are_found() {
        let latency = |name: Option<&str>, measure, percent: f64| What::Latency {
            name: name.map(str::to_owned),
            measure,
            statistic: Statistic::Percentile(percent / 100.0),
        };
        let what = |text: &str| figure(text).unwrap().what;
        assert_eq!(what("p95"), latency(None, None, 95.0));
        assert_eq!(what("deliver.p99.95"), latency(None, Some(Measure::Deliver), 99.95));
        assert_eq!(what("chat.deliver.p75"), latency(Some("chat"), Some(Measure::Deliver), 75.0));
        assert_eq!(what("v1.2.ping.p99.9"), latency(Some("v1.2"), Some(Measure::Ping), 99.9));
        assert_eq!(what("lag.max"), What::Lag(Statistic::Max));
        assert_eq!((what("lag"), what("lag.p99")), (what("lag.p99"), What::Lag(Statistic::Percentile(0.99))));
        assert_eq!(figure("phase(reading on).rate").unwrap().phase.as_deref(), Some("reading on"));
        for (text, says) in [
            ("p0", "there is no figure \"p0\""),
            ("p100", "there is no figure"),
            ("p+5", "there is no figure"),
            ("p5.", "there is no figure"),
            ("deliver.p9.9.9", "there is no figure"),
            (".deliver.p99", "there is no figure"),
            ("chat.p99", "as in chat.deliver.p99"),
            ("phase(x)deliver.p99", "phase(steady).deliver.p99"),
            ("phase(x).lost", "a phase has no lost of its own"),
            ("pong.p99", "there is no figure \"pong.p99\"; did you mean ping.p99?\nthere are:\n"),
            ("delivr.p99.9", "did you mean deliver.p99.9?"),
            ("lsot", "did you mean lost?"),
            ("dupplicated", "did you mean duplicated?"),
            ("p(95)", "did you mean p95?"),
            ("throughput", "there is no figure \"throughput\"; there are:\n"),
        ] {
            let error = figure(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn figure_is_unknown_then_the_error_lists_every_other_in_short_lines() {
        let error = figure("throughput").unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 100), "{error}");
        for (name, _) in OTHERS {
            let listed = lines.iter().filter(|line| {
                line.split_once(": ").is_some_and(|(_, names)| names.split(", ").any(|other| other == name))
            });
            assert_eq!(listed.count(), 1, "{name}: {error}");
        }
    }
}
