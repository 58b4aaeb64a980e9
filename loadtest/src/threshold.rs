//! Thresholds: `p99>20ms`, `lost>0`. A run that exceeds one fails; one of `--abort-if` ends it early.

use crate::figure::{Figure, Known, What};
use crate::number;
use crate::record::human_us;

/// A condition under which a run fails.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    text: String,
    /// As it was written.
    name: String,
    figure: Figure,
    above: bool,
    or_equal: bool,
    limit: f64,
}

impl std::str::FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>']).ok_or_else(|| {
            format!("\"{text}\" has no < or >; write for instance 'p99>20ms', 'lost>0' or 'rate<5000'")
        })?;
        let (name, rest) = text.split_at(at);
        let name = name.trim();
        let above = rest.starts_with('>');
        let rest = &rest[1..];
        let (or_equal, value) = rest.strip_prefix('=').map_or((false, rest), |value| (true, value));
        let value = value.trim();
        let figure: Figure = name.parse().map_err(|error| format!("\"{text}\": {error}"))?;
        let is_time = figure.what.is_time();
        let limit = match figure.what {
            _ if is_time => microseconds(value),
            What::Other("rate" | "connects") => number::suffixed(number::without_per_second(value)),
            _ => number::suffixed(value),
        };
        let (unit, most) = match figure.what {
            _ if is_time => ("a time such as 500us, 20ms or 1.5s", f64::INFINITY),
            What::Other("driver_busy" | "sent_share") => ("a share from 0 to 1", 1.0),
            _ => ("a number from 0 on, such as 0, 500, 10k or 1.5m", f64::INFINITY),
        };
        let limit = limit.filter(|limit| (0.0..=most).contains(limit));
        let limit = limit.ok_or_else(|| format!("\"{text}\": \"{value}\" must be {unit}"))?;
        if limit == 0.0 && above == or_equal {
            let always = if above { "is always" } else { "is never" };
            return Err(format!("\"{text}\" {always} true: no figure is below 0"));
        }
        Ok(Threshold { text: text.to_owned(), name: name.to_owned(), figure, above, or_equal, limit })
    }
}

fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    units.iter().find_map(|(unit, factor)| Some(number::plain(text.strip_suffix(unit)?.trim())? * factor))
}

/// A threshold and whether the run met it.
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

/// Figures other than times that are known during a run, for `--abort-if`.
pub(crate) const WHILE_RUNNING: [&str; 6] = ["errors", "closed", "refused", "skipped", "rate", "driver_busy"];
/// `--abort-if` does not judge a latency of fewer samples.
pub(crate) const ABORT_SAMPLES_MIN: u64 = 100;

impl Threshold {
    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The figure that it limits.
    pub(crate) fn figure(&self) -> &Figure {
        &self.figure
    }

    /// Refuses a figure that this load cannot have, before any client connects.
    pub(crate) fn check(&self, known: &Known<'_>) -> Result<(), String> {
        self.figure.check(known).map_err(|error| format!("\"{}\": {error}", self.text))
    }

    /// Refuses a figure that is known only when a run is over, or of a phase.
    pub(crate) fn check_abort(&self) -> Result<(), String> {
        let Threshold { text, figure, .. } = self;
        if figure.phase.is_some() {
            return Err(format!(
                "--abort-if \"{text}\" looks at the last seconds, whatever the phase: leave phase() out"
            ));
        }
        match figure.what {
            What::Other(name) if !WHILE_RUNNING.contains(&name) => Err(format!(
                "--abort-if \"{text}\": {name} is known when the run is over; while it goes on there are latencies, lag, \
                 stall, {}",
                WHILE_RUNNING.join(", ")
            )),
            _ => Ok(()),
        }
    }

    /// Whether the condition holds for this value.
    pub(crate) fn holds(&self, value: f64) -> bool {
        let beyond = if self.above { value > self.limit } else { value < self.limit };
        beyond || (self.or_equal && value == self.limit)
    }

    /// What was found, in words.
    pub(crate) fn found(&self, value: f64) -> String {
        let value = match self.figure.what {
            What::Latency { .. } | What::Lag(_) | What::Stall => human_us(value.round() as u64),
            What::Other("driver_busy" | "sent_share") => {
                // A share that is just missed must not look as if it were met.
                let text = format!("{value:.4}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            What::Other(_) => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        };
        format!("{} was {value}", self.name)
    }

    /// Judges a run by the value of the figure in it. A run without that figure fails: it proves nothing.
    pub(crate) fn judge(&self, value: Option<f64>) -> Verdict {
        let condition = self.text.clone();
        match value {
            Some(value) => Verdict { condition, found: self.found(value), met: !self.holds(value) },
            None => Verdict { condition, found: format!("this run has no {}", self.name), met: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Tally;
    use crate::record::{Measure, Names, Series, StreamName};
    use crate::report::Report;

    #[test]
    fn figure_is_beyond_the_limit_then_the_threshold_fails() {
        let mut report = Report::default();
        report.balance.lost = 3;
        report.record.record(Measure::Deliver, Series::Stream(1), 0, 0, 25_000);
        let judge = |text: &str| report.judge(&text.parse::<Threshold>().unwrap());
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
    fn threshold_names_a_stream_then_only_its_latencies_are_judged() {
        let stream = |name: &str, pings| StreamName { name: name.to_owned(), pings };
        let names =
            Names { populations: vec!["people".into()], streams: vec![stream("chat", false), stream("people", true)] };
        let mut report = Report { names, ..Report::default() };
        for us in 1..=1000 {
            report.record.record(Measure::Deliver, Series::Stream(1), 0, 0, us * 100);
            report.record.record(Measure::Ping, Series::Stream(2), 0, 0, us);
        }
        report.record.lag.record(700).unwrap();
        report.record.stall_us = 2_000_000;
        let found = |text: &str| report.judge(&text.parse::<Threshold>().unwrap());
        for (text, value) in [
            ("p95>95ms", "p95 was 95.04 ms"),
            ("chat.deliver.p95>95ms", "chat.deliver.p95 was 95.04 ms"),
            ("chat.deliver.p99.95>99ms", "chat.deliver.p99.95 was 100.03 ms"),
            ("people.ping.p75>749us", "people.ping.p75 was 750 us"),
            ("lag>1us", "lag was 700 us"),
            ("lag.max>1us", "lag.max was 700 us"),
            ("stall>=1s", "stall was 2.00 s"),
        ] {
            let verdict = found(text);
            assert_eq!((verdict.met, verdict.found.as_str()), (false, value), "{text}");
        }
        assert!(found("chat.deliver.p95>96ms").met && found("people.ping.max>1ms").met);
        assert_eq!(found("chat.publish.p99>1s").found, "this run has no chat.publish.p99");
    }

    #[test]
    fn threshold_names_a_phase_then_only_that_is_judged() {
        let mut report = Report::default();
        for (name, us) in [("warm-up", 900_000), ("steady", 1_000), ("steady", 3_000)] {
            let mut phase = crate::report::tests::phase(name, 0.5);
            phase.record.record(Measure::Deliver, Series::Stream(1), 0, 0, us);
            report.phases.push(phase);
        }
        let judge = |text: &str| report.judge(&text.parse::<Threshold>().unwrap());
        assert!(judge("phase(steady).deliver.max>4ms").met && !judge("phase(steady).deliver.max>2ms").met);
        assert!(!judge("phase(warm-up).p50>20ms").met);
        assert_eq!(
            judge("phase(steady).published<2").to_string(),
            "phase(steady).published<2 (phase(steady).published was 2)"
        );
        assert_eq!(judge("phase(steady).rate<1").found, "phase(steady).rate was 1");
        assert_eq!(judge("phase(other).rate<1").found, "this run has no phase(other).rate");
    }

    #[test]
    fn figure_is_known_only_at_the_end_then_abort_if_refuses_it() {
        let check = |text: &str| text.parse::<Threshold>().unwrap().check_abort();
        for good in ["p99>1s", "chat.deliver.p95>1s", "errors>10", "rate<5", "lag>1s", "stall>1s", "closed>0"] {
            assert_eq!(check(good), Ok(()));
        }
        assert!(check("lost>0").unwrap_err().contains("lost is known when the run is over"));
        assert!(check("phase(steady).p99>1s").unwrap_err().contains("leave phase() out"));
    }

    #[test]
    fn load_cannot_have_the_figure_then_its_threshold_is_refused() {
        let check = |text: &str, pings: Option<bool>, has_process| {
            let names = Names::single("some", pings);
            let known =
                Known { load: "some", names: &names, phases: vec!["connect".into(), "steady".into()], has_process };
            text.parse::<Threshold>().unwrap().check(&known)
        };
        for text in ["rate<5", "cpu>9", "publish.p99>1s", "deliver.max>1s"] {
            let error = check(text, None, true).unwrap_err();
            let there = "  latency of one kind: connect.p99, ping.p99\n";
            assert!(error.contains("some sends no messages and has no ") && error.contains(there), "{error}");
            assert!(error.contains("  speed and cost: lag, stall, driver_busy"), "{error}");
            assert_eq!(check(text, Some(false), true), Ok(()));
        }
        for text in ["p99>1s", "connect.p99>1s", "ping.p99>1s", "lost>0", "connects<5", "driver_busy>0.8"] {
            assert!(check(text, None, false).is_ok(), "{text}");
        }
        assert!(check("cpu>9", Some(false), false).unwrap_err().contains("--pid"));
        for (text, pings, says) in [
            ("chat.deliver.p99>1s", Some(false), "some has no stream or population \"chat\"; it has some"),
            ("some.deliver.p99>1s", Some(true), "\"some\" has no deliver; it has connect, ping"),
            ("phase(stedy).p99>1s", Some(true), "some has no phase \"stedy\"; it has connect, steady"),
        ] {
            let error = check(text, pings, false).unwrap_err();
            assert!(error.contains(says) && error.contains(text), "{error}");
        }
        assert!(check("phase(steady).some.deliver.p99.9>1s", Some(false), false).is_ok());
    }

    #[test]
    fn condition_is_malformed_then_the_error_says_what_would_be_right() {
        let refused = |text: &str| text.parse::<Threshold>().unwrap_err();
        assert!(refused("p99").contains("'p99>20ms'"));
        assert!(refused("q98>1ms").contains("p99.9"));
        assert!(refused("p99>20").contains("20ms"));
        assert!(refused("lost>few").contains("a number"));
        assert!(refused("lost>5/s").contains("a number"), "it is a count");
    }

    #[test]
    fn limit_has_a_suffix_then_it_is_multiplied() {
        let report = Report { tally: Tally { sent: 9_999, ..Tally::default() }, ..Report::default() };
        let met = |text: &str| report.judge(&text.parse::<Threshold>().unwrap()).met;
        assert!(!met("published<10k") && met("published<9.999k") && !met("published<1m") && !met("published>=0.009m"));
        let rate = |text: &str| text.parse::<Threshold>().unwrap().holds(4_999.0);
        assert!(rate("rate<5k") && rate("rate<5k/s") && !rate("rate<4.9k/s") && rate("connects<5000/s"));
        // A time has its unit, and no suffix before it.
        assert!("p99>1km".parse::<Threshold>().is_err() && "p99>1kms".parse::<Threshold>().is_err());
    }

    #[test]
    fn condition_is_always_or_never_true_then_it_is_refused() {
        let refused = |text: &str| text.parse::<Threshold>().unwrap_err();
        assert_eq!(refused("lost>-1"), "\"lost>-1\": \"-1\" must be a number from 0 on, such as 0, 500, 10k or 1.5m");
        assert!(refused("p99>-1ms").contains("must be a time such as"));
        assert!(refused("driver_busy>85").contains("must be a share from 0 to 1"));
        assert_eq!(refused("lost>=0"), "\"lost>=0\" is always true: no figure is below 0");
        assert_eq!(refused("rate<0"), "\"rate<0\" is never true: no figure is below 0");
        for good in ["lost>0", "rate<=0", "p99>0ms", "driver_busy>1"] {
            assert!(good.parse::<Threshold>().is_ok(), "{good}");
        }
    }
}
