//! `capacity`: the highest rate at which a scenario still meets the thresholds, found by bisection and confirmed, and what
//! was in the way of a higher one: the gateway, or this load tester.

use serde_json::{Map, Value, json};

use crate::Outcome;
use crate::console::{note, print};
use crate::finding::{Finding, Limit, Trial};
use crate::html;
use crate::number;
use crate::record::{Quantiles, human_us};
use crate::report::Report;
use crate::scenario::{self, Scenario};
use crate::threshold::Verdict;

/// What to search for.
#[derive(clap::Args, Debug)]
pub(crate) struct Search {
    /// Which load; one with a rate.
    #[arg(value_enum)]
    scenario: Searched,
    /// Where the search ends: neighbouring rates are within this many percent of each other.
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT", allow_negative_numbers = true, value_parser = number::positive)]
    precision: f64,
    /// The highest rate that is tried; --rate is the first one.
    #[arg(long, default_value_t = 1e6, value_name = "N", allow_negative_numbers = true, value_parser = number::rate)]
    rate_max: f64,
    #[command(flatten)]
    each: scenario::Options,
}

/// Scenarios that have a rate to search for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Searched {
    /// Pings on a schedule.
    Ping,
    /// Pairs of clients: one-to-one messages with acknowledgement.
    P2p,
    /// Rooms: broadcasts to their members.
    Room,
}

impl From<Searched> for Scenario {
    fn from(searched: Searched) -> Scenario {
        match searched {
            Searched::Ping => Scenario::Ping,
            Searched::P2p => Scenario::P2p,
            Searched::Room => Scenario::Room,
        }
    }
}

/// Runs the search. Good when a rate was found and confirmed.
pub(crate) fn run(options: &Search) -> Result<Outcome, String> {
    let output = &options.each.output;
    if output.fail_if.is_empty() {
        return Err(
            "capacity needs --fail-if: the condition that a rate must not meet, for instance 'p99>20ms'".to_owned()
        );
    }
    if !(0.1..100.0).contains(&options.precision) {
        return Err(format!("--precision {} must be between 0.1 and 100", options.precision));
    }
    if options.each.closed_loop.is_some() {
        return Err("capacity searches for a rate: --closed-loop has none".to_owned());
    }
    if output.junit.is_some() || output.csv.is_some() {
        return Err("capacity writes --json and --html; --junit and --csv are for a single run".to_owned());
    }
    let mut search = Running { options, load: Map::new(), trials: Vec::new() };
    let (found, answer) = search.search()?;
    let Running { load, trials, .. } = search;
    let finding = Finding { load, found, answer, trials };
    finding.write(output.json.as_deref(), output.html.as_deref())?;
    Ok(if found.is_some() { Outcome::Good } else { Outcome::Failed })
}

/// A search under way.
struct Running<'a> {
    options: &'a Search,
    load: Map<String, Value>,
    trials: Vec<Trial>,
}

impl Running<'_> {
    /// The rate, if one was confirmed, and what there is to say.
    fn search(&mut self) -> Result<(Option<f64>, String), String> {
        const ENDED: &str = "ended early: no rate was confirmed";
        let (mut low, mut high) = (None, None);
        let mut next = Some(self.options.each.rate());
        let mut refuted = 0;
        loop {
            while let Some(rate) = next {
                let Some(met) = self.attempt(rate)? else { return Ok((None, ENDED.to_owned())) };
                if met {
                    low = Some(rate)
                } else {
                    high = Some(rate)
                }
                next = next_rate(self.options, low, high);
            }
            let Some(found) = low else {
                let lowest = high.unwrap_or_default();
                let limit = blame(&self.trials).map(|limit| format!("; the limit was {limit}")).unwrap_or_default();
                return Ok((None, format!("no rate down to {lowest:.1} meets the thresholds{limit}")));
            };
            let Some(met) = self.attempt(found)? else { return Ok((None, ENDED.to_owned())) };
            if met {
                return Ok((Some(found), answer(found, &self.trials)));
            }
            refuted += 1;
            if refuted == REFUTED_MAX {
                let why = "was met once and missed once, as others before it: not shown; run longer (--duration)";
                return Ok((None, format!("{found:.0} per second {why}")));
            }
            // What was met once only is missed: the answer lies below.
            high = Some(found);
            low = below(found, &self.trials);
            next = next_rate(self.options, low, high);
        }
    }

    /// One run at a rate, and whether it was met; none if it was ended early. An error if no client can sign in the first
    /// time: a lower rate would not help. Later it may be the rate before that did it.
    fn attempt(&mut self, rate: f64) -> Result<Option<bool>, String> {
        let mut each = self.options.each.clone();
        each.rate = Some(rate);
        each.output.quiet = true;
        let report = scenario::measure(&each, self.options.scenario.into(), None)?;
        // A run that --abort-if has ended was missed; one that a person has ended was not.
        if report.interrupted && report.aborted.is_none() {
            return Ok(None);
        }
        if self.trials.is_empty() && report.outcome() == Outcome::NotRun {
            return Err(reasons(&report).join("; "));
        }
        self.load.clone_from(&report.load);
        self.load.remove("rate");
        let trial = Trial::of(rate, &report);
        if !self.options.each.output.quiet {
            note(&trial.line());
        }
        let met = trial.met;
        self.trials.push(trial);
        Ok(Some(met))
    }
}

impl Trial {
    fn of(rate: f64, report: &Report) -> Trial {
        let met = report.is_clean();
        let limit = report.driver_limit();
        Trial {
            rate,
            met,
            limit: (!met).then(|| limit_of(report)),
            why: match (met, limit) {
                (true, None) => String::new(),
                (true, Some(limit)) => limit.what,
                (false, _) => reasons(report).join("; "),
            },
            driver_busy: report.driver_busy(),
            latency_us: Quantiles::from(&report.record.of(report.main()).planned),
        }
    }

    fn line(&self) -> String {
        let verdict = match self.limit {
            Some(limit) => format!("missed by {}: {}", limit.text(), self.why),
            None if self.why.is_empty() => "met".to_owned(),
            None => format!("met, though {}", self.why),
        };
        let Quantiles { p50, p99, max, .. } = self.latency_us;
        format!(
            "{:>10.0}/s  p50 {:>9}  p99 {:>9}  max {:>9}  driver {:>3.0} %  {verdict}",
            self.rate,
            human_us(p50),
            human_us(p99),
            human_us(max),
            self.driver_busy.unwrap_or(0.0) * 100.0,
        )
    }
}

/// Whether the gateway or this load tester was the limit of a run that missed its thresholds. What a gateway says or breaks is its own, however busy the load tester was; what
/// is late may be either's.
fn limit_of(report: &Report) -> Limit {
    let is_own = |kind: &String| kind.starts_with("this load tester");
    let balance = &report.balance;
    let found = &report.found;
    let broken = balance.lost
        + balance.delivered_refused
        + balance.unanswered
        + found.duplicated
        + found.reordered
        + found.corrupted
        + found.misdelivered
        + found.answered_twice
        + found.answered_wrong;
    let gateway_said = report.errors.keys().any(|kind| !is_own(kind)) || !report.refused.is_empty();
    if broken > 0 || gateway_said {
        return Limit::Gateway;
    }
    let driver = report.driver_limit().is_some() || report.never_sent() > 0 || report.errors.keys().any(is_own);
    if driver { Limit::Driver } else { Limit::Gateway }
}

/// Doubles or halves until the answer lies between two rates, then halves the distance; none when that is small enough.
fn next_rate(options: &Search, low: Option<f64>, high: Option<f64>) -> Option<f64> {
    match (low, high) {
        (Some(low), None) => (low < options.rate_max).then(|| (low * 2.0).min(options.rate_max)),
        (None, Some(high)) => (high >= 1.0).then_some(high / 2.0),
        (Some(low), Some(high)) => (high / low > 1.0 + options.precision / 100.0).then_some((low + high) / 2.0),
        (None, None) => None,
    }
}

/// Rates that may turn out to be met once only, before the search gives up.
const REFUTED_MAX: usize = 4;

/// The highest rate below this one that was met each time it was tried.
fn below(rate: f64, trials: &[Trial]) -> Option<f64> {
    let was_missed = |rate: f64| trials.iter().any(|trial| trial.rate == rate && !trial.met);
    let met = trials.iter().map(|trial| trial.rate).filter(|other| *other < rate && !was_missed(*other));
    met.max_by(f64::total_cmp)
}

/// The lowest rate that was missed.
fn lowest_missed(trials: &[Trial]) -> Option<&Trial> {
    trials.iter().filter(|trial| !trial.met).min_by(|a, b| a.rate.total_cmp(&b.rate))
}

/// Whether the gateway or the load tester was the limit at the lowest rate that was missed, and why.
fn blame(trials: &[Trial]) -> Option<String> {
    let trial = lowest_missed(trials)?;
    Some(format!("{} ({})", trial.limit?.text(), trial.why))
}

/// What was found, and what it is bounded by: the lowest rate that missed.
fn answer(found: f64, trials: &[Trial]) -> String {
    let (at_least, why) = match lowest_missed(trials) {
        None => ("at least ", "; --rate-max ended the search".to_owned()),
        Some(missed) => {
            let at_least = if missed.limit == Some(Limit::Driver) { "at least " } else { "" };
            let limit = blame(trials).unwrap_or_default();
            (at_least, format!("; beyond, at {:.0} per second, the limit was {limit}", missed.rate))
        }
    };
    format!("capacity: {at_least}{found:.0} per second, confirmed by a second run{why}")
}

fn reasons(report: &Report) -> Vec<String> {
    let mut reasons: Vec<String> = report.failed().map(Verdict::to_string).collect();
    reasons.extend(report.failure.clone());
    reasons.extend(report.interruption());
    reasons.extend(report.errors.iter().map(|(kind, count)| format!("{count} x {kind}")));
    reasons.extend(report.faults().map(|(what, count)| format!("{count} {what}")));
    reasons.extend(report.driver_limit().map(|limit| limit.what));
    reasons
}

impl Finding {
    fn json(&self) -> Value {
        let missed = lowest_missed(&self.trials);
        json!({
            "schema": crate::report::SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "load": self.load,
            "capacity_per_second": self.found,
            "answer": self.answer,
            "limit": missed.and_then(|trial| trial.limit),
            "missed_per_second": missed.map(|trial| trial.rate),
            "trials": self.trials,
        })
    }

    /// The table and the answer for people, the object and the page where they are wanted.
    fn write(&self, json: Option<&std::path::Path>, page: Option<&std::path::Path>) -> Result<(), String> {
        let lines: Vec<String> = self.sorted().into_iter().map(Trial::line).collect();
        let table = format!("{}\n{}", lines.join("\n"), self.answer);
        let object = serde_json::to_string_pretty(&self.json()).map_err(|error| error.to_string())?;
        if json.is_some_and(|path| path == std::path::Path::new("-")) {
            note(&table);
            print(&object)?;
        } else {
            print(&table)?;
            if let Some(path) = json {
                std::fs::write(path, object + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        page.map_or(Ok(()), |path| html::write_capacity(self, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Measure, Series};
    use crate::report::tests::phase;

    fn trial((rate, met): (f64, bool)) -> Trial {
        let limit = (!met).then_some(Limit::Gateway);
        let why = if met { "" } else { "p99>20ms (p99 was 3 s)" };
        Trial { rate, met, limit, why: why.to_owned(), driver_busy: None, latency_us: Quantiles::default() }
    }

    #[test]
    fn rate_is_missed_the_second_time_then_the_next_lower_one_is_the_capacity() {
        let trials: Vec<Trial> =
            [(1000.0, true), (2000.0, true), (4000.0, false), (3000.0, true), (2000.0, false), (3000.0, false)]
                .map(trial)
                .into();
        assert_eq!(below(4000.0, &trials), Some(1000.0));
        assert_eq!(below(1000.0, &trials), None);
        let said = answer(1000.0, &trials);
        let wanted = "capacity: 1000 per second, confirmed by a second run; beyond, at 2000 per second, the limit was the gateway \
                      (p99>20ms (p99 was 3 s))";
        assert_eq!(said, wanted);
        let limited = [
            trial((1000.0, true)),
            Trial { limit: Some(Limit::Driver), why: "it was busy".into(), ..trial((2000.0, false)) },
        ];
        let said = answer(1000.0, &limited);
        assert!(
            said.contains("at least 1000 per second")
                && said.contains("this load tester, not the gateway (it was busy)")
        );
        assert!(answer(1000.0, &limited[..1]).contains("--rate-max"));
    }

    #[test]
    fn run_misses_its_thresholds_then_gateway_or_driver_is_named_as_the_limit() {
        let report = |busy: f64| {
            let mut report = Report { phases: vec![phase("steady", busy)], ..Report::default() };
            report.record.record(Measure::Deliver, Series::Stream(1), 0, 0, 5_000_000);
            let threshold = "p99>20ms".parse::<crate::threshold::Threshold>().unwrap();
            report.verdicts = vec![report.judge(&threshold)];
            report
        };
        assert_eq!(Trial::of(1.0, &report(0.2)).limit, Some(Limit::Gateway), "this side had time");
        let saturated = Trial::of(1.0, &report(0.97));
        assert_eq!(saturated.limit, Some(Limit::Driver));
        assert!(saturated.why.contains("busy for 97 %") && saturated.line().contains("missed by this load tester"));
        let never_sent = Report { planned: 10, ..report(0.2) };
        assert_eq!(Trial::of(1.0, &never_sent).limit, Some(Limit::Driver));
        let mut refused = report(0.97);
        refused.errors.insert("refused: too many requests (111)".to_owned(), 3);
        let mut lost = report(0.97);
        lost.balance.lost = 1;
        for report in [refused, lost] {
            assert_eq!(Trial::of(1.0, &report).limit, Some(Limit::Gateway), "no load tester makes a gateway do that");
        }
        let mut own = report(0.2);
        own.errors.insert("this load tester could not connect: no port".to_owned(), 3);
        assert_eq!(Trial::of(1.0, &own).limit, Some(Limit::Driver));
        assert_eq!(Trial::of(1.0, &Report::default()).limit, None);
    }

    #[test]
    fn search_is_over_then_json_and_html_state_the_result() {
        let trials = vec![trial((1000.0, true)), trial((2000.0, false)), trial((1000.0, true))];
        let finding = Finding { load: Map::new(), found: Some(1000.0), answer: answer(1000.0, &trials), trials };
        let json = finding.json();
        assert_eq!((&json["capacity_per_second"], &json["missed_per_second"]), (&1000.0.into(), &2000.0.into()));
        assert_eq!((&json["limit"], &json["trials"][1]["met"]), (&"gateway".into(), &false.into()));
        let page = html::capacity_page(&finding);
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
        assert_eq!(document.descendants().filter(|node| node.has_tag_name("svg")).count(), 0, "there was no latency");
        assert!(page.contains("confirmed by a second run") && page.contains("p99&gt;20ms (p99 was 3 s)"));
    }
}
