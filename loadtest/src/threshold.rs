//! Thresholds: `p99>20ms`, `lost>0`. A run that exceeds one fails.

use crate::record::{Measure, human_us};
use crate::report::Report;

/// A condition under which a run fails.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    text: String,
    figure: String,
    above: bool,
    or_equal: bool,
    limit: f64,
}

const TIMES: [&str; 7] = ["p50", "p90", "p99", "p99.9", "p999", "max", "mean"];
const OTHERS: [&str; 23] = [
    "lost",
    "duplicated",
    "reordered",
    "corrupted",
    "misdelivered",
    "answered_twice",
    "delivered_refused",
    "delivered_undecided",
    "unanswered",
    "pings_unanswered",
    "never_sent",
    "sent_share",
    "late",
    "skipped",
    "undecided",
    "errors",
    "refused",
    "closed",
    "reconnects",
    "rate",
    "connects",
    "cpu",
    "driver_busy",
];

/// Whether a figure is one of messages. What became of them is not meant: without messages none is lost, which is true, and
/// one set of thresholds may serve several loads.
fn is_of_messages(figure: &str) -> bool {
    ["rate", "cpu"].contains(&figure) || ["publish.", "deliver."].iter().any(|measure| figure.starts_with(measure))
}

/// What there is, for whoever has named something else.
fn figures(has_messages: bool) -> String {
    let is_there = |figure: &String| has_messages || !is_of_messages(figure);
    let timed = Measure::ALL.map(|measure| format!("{}.p99", measure.label())).into_iter().filter(is_there);
    let others = OTHERS.map(str::to_owned).into_iter().filter(is_there);
    format!(
        "p50, p90, p99, p99.9, max, mean (also as {}), {}",
        timed.collect::<Vec<_>>().join(", "),
        others.collect::<Vec<_>>().join(", ")
    )
}

impl std::str::FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>']).ok_or_else(|| {
            format!("\"{text}\" has no < or >; write for instance 'p99>20ms', 'lost>0' or 'rate<5000'")
        })?;
        let (figure, rest) = text.split_at(at);
        let figure = figure.trim();
        let above = rest.starts_with('>');
        let rest = &rest[1..];
        let (or_equal, value) = rest.strip_prefix('=').map_or((false, rest), |value| (true, value));
        let value = value.trim();
        let is_time = TIMES.contains(&quantile_of(figure));
        if !is_known(figure) {
            return Err(format!("\"{text}\": there is no figure \"{figure}\"; there are {}", figures(true)));
        }
        let limit = if is_time { microseconds(value) } else { number(value) };
        let (unit, most) = match figure {
            _ if is_time => ("a time such as 500us, 20ms or 1.5s", f64::INFINITY),
            "driver_busy" => ("a share from 0 to 1", 1.0),
            _ => ("a number from 0 on", f64::INFINITY),
        };
        let limit = limit.filter(|limit| (0.0..=most).contains(limit));
        let limit = limit.ok_or_else(|| format!("\"{text}\": \"{value}\" must be {unit}"))?;
        if limit == 0.0 && above == or_equal {
            let always = if above { "is always" } else { "is never" };
            return Err(format!("\"{text}\" {always} true: no figure is below 0"));
        }
        Ok(Threshold { text: text.to_owned(), figure: figure.to_owned(), above, or_equal, limit })
    }
}

/// A figure without the measure that it is of.
fn quantile_of(figure: &str) -> &str {
    let measures = Measure::ALL.map(Measure::label);
    let of = |measure: &&str| figure.strip_prefix(*measure)?.strip_prefix('.');
    measures.iter().find_map(of).unwrap_or(figure)
}

fn is_known(figure: &str) -> bool {
    TIMES.contains(&quantile_of(figure)) || OTHERS.contains(&figure)
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    units.iter().find_map(|(unit, factor)| Some(number(text.strip_suffix(unit)?.trim())? * factor))
}

/// A threshold and what became of it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Verdict {
    /// The condition under which the run fails, as it was written.
    pub(crate) condition: String,
    /// What the figure was, in words; says so when the run has no such figure.
    pub(crate) found: String,
    /// The run does not fail.
    pub(crate) met: bool,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.condition, self.found)
    }
}

impl Threshold {
    /// Refuses a figure that this load cannot have, before anybody is connected for nothing. CPU time is that of a gateway
    /// whose process is known.
    pub(crate) fn check(&self, load: &str, has_messages: bool, has_process: bool) -> Result<(), String> {
        let Threshold { text, figure, .. } = self;
        if !has_messages && is_of_messages(figure) {
            let there = figures(false);
            return Err(format!("\"{text}\": {load} sends no messages and has no {figure}; there are {there}"));
        }
        if figure == "cpu" && !has_process {
            return Err(format!("\"{text}\": cpu is there with --pid only"));
        }
        Ok(())
    }

    /// Judges a run. A figure that does not exist in it fails it: nothing was shown.
    pub(crate) fn judge(&self, report: &Report) -> Verdict {
        let condition = self.text.clone();
        let Some(value) = report.figure(&self.figure) else {
            return Verdict { condition, found: format!("this run has no {}", self.figure), met: false };
        };
        let beyond = if self.above { value > self.limit } else { value < self.limit };
        let met = !(beyond || (self.or_equal && value == self.limit));
        let is_time = TIMES.contains(&quantile_of(&self.figure));
        let value = if is_time {
            human_us(value.round() as u64)
        } else {
            format!("{:.1}", value).trim_end_matches(".0").to_owned()
        };
        Verdict { condition, found: format!("{} was {value}", self.figure), met }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Series;

    #[test]
    fn expressions() {
        let mut report = Report::default();
        report.balance.lost = 3;
        report.record.record(Measure::Deliver, Series::Stream(1), 0, 0, 25_000);
        let judge = |text: &str| text.parse::<Threshold>().unwrap().judge(&report);
        let fails = |text: &str| !judge(text).met;
        assert!(fails("p99>20ms") && fails("deliver.p99 > 20ms") && fails("max>=25ms") && fails("lost>0"));
        assert!(!fails("p99>30ms") && !fails("lost>3") && fails("lost>=3") && !fails("p99.9>0.1s"));
        assert!(fails("ping.p99>1s"), "there was no Ping");
        assert!(fails("rate<100"), "nothing was sent");
        assert_eq!(judge("max>=25ms").to_string(), "max>=25ms (max was 25.01 ms)");
        assert_eq!(judge("lost>5").found, "lost was 3");
        assert_eq!(judge("rate<100").found, "this run has no rate");
    }

    #[test]
    fn figures_that_a_load_cannot_have_are_refused() {
        let check = |text: &str, has_messages, has_process| {
            text.parse::<Threshold>().unwrap().check("connect", has_messages, has_process)
        };
        for text in ["rate<5", "cpu>9", "publish.p99>1s", "deliver.max>1s"] {
            let error = check(text, false, true).unwrap_err();
            let there = "there are p50, p90, p99, p99.9, max, mean (also as connect.p99, ping.p99), lost, ";
            assert!(error.contains("connect sends no messages and has no ") && error.contains(there), "{error}");
            assert!(!error.contains(", rate") && !error.contains(", cpu"), "{error}");
            assert!(check(text, true, true).is_ok());
        }
        for text in ["p99>1s", "connect.p99>1s", "ping.p99>1s", "lost>0", "connects<5", "driver_busy>0.8"] {
            assert!(check(text, false, false).is_ok(), "{text}");
        }
        assert!(check("cpu>9", true, false).unwrap_err().contains("--pid"));
    }

    #[test]
    fn bad_expressions_say_what_would_be_right() {
        let refused = |text: &str| text.parse::<Threshold>().unwrap_err();
        assert!(refused("p99").contains("'p99>20ms'"));
        assert!(refused("p98>1ms").contains("p99.9"));
        assert!(refused("p99>20").contains("20ms"));
        assert!(refused("lost>few").contains("a number"));
    }

    #[test]
    fn what_is_always_or_never_true_is_refused() {
        let refused = |text: &str| text.parse::<Threshold>().unwrap_err();
        assert_eq!(refused("lost>-1"), "\"lost>-1\": \"-1\" must be a number from 0 on");
        assert!(refused("p99>-1ms").contains("must be a time such as"));
        assert!(refused("driver_busy>85").contains("must be a share from 0 to 1"));
        assert_eq!(refused("lost>=0"), "\"lost>=0\" is always true: no figure is below 0");
        assert_eq!(refused("rate<0"), "\"rate<0\" is never true: no figure is below 0");
        for good in ["lost>0", "rate<=0", "p99>0ms", "driver_busy>1"] {
            assert!(good.parse::<Threshold>().is_ok(), "{good}");
        }
    }
}
