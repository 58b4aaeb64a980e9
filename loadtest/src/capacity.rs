//! `capacity`: the highest rate at which a scenario still meets the thresholds, found by bisection and confirmed.

use crate::Outcome;
use crate::console::{note, print};
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
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    precision: f64,
    /// The highest rate that is tried; --rate is the first one.
    #[arg(long, default_value_t = 1e6, value_name = "N")]
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

struct Trial {
    rate: f64,
    good: bool,
    /// Its figures are those of this load tester.
    driver_limited: bool,
    line: String,
}

/// Runs the search. Good when a rate was found and confirmed.
pub(crate) fn run(options: &Search) -> Result<Outcome, String> {
    if options.each.output.fail_if.is_empty() {
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
    if options.each.output.html.is_some() || options.each.output.json.is_some() {
        return Err("capacity prints a table of all its runs; --html and --json are for a single one".to_owned());
    }
    let mut trials = Vec::new();
    let (mut low, mut high) = (None, None);
    let mut next = Some(options.each.rate());
    let mut refuted = 0;
    loop {
        while let Some(rate) = next {
            let Some(trial) = attempt(options, rate, trials.is_empty())? else { return ended_early(&trials) };
            if trial.good {
                low = Some(rate)
            } else {
                high = Some(rate)
            }
            trials.push(trial);
            next = next_rate(options, low, high);
        }
        let Some(found) = low else {
            let lowest = high.unwrap_or_default();
            print(&format!("{}\nno rate down to {lowest:.1} meets the thresholds", evidence(&trials)))?;
            return Ok(Outcome::Failed);
        };
        let Some(confirmed) = attempt(options, found, false)? else { return ended_early(&trials) };
        let good = confirmed.good;
        trials.push(confirmed);
        if good {
            print(&format!("{}\n{}", evidence(&trials), answer(found, &trials)))?;
            return Ok(Outcome::Good);
        }
        refuted += 1;
        if refuted == REFUTED_MAX {
            let why = "was met once and missed once, as others before it: not shown; run longer (--duration)";
            print(&format!("{}\n{found:.0} per second {why}", evidence(&trials)))?;
            return Ok(Outcome::Failed);
        }
        // What was met once only is missed: the answer lies below.
        high = Some(found);
        low = below(found, &trials);
        next = next_rate(options, low, high);
    }
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
    let was_missed = |rate: f64| trials.iter().any(|trial| trial.rate == rate && !trial.good);
    let met = trials.iter().map(|trial| trial.rate).filter(|other| *other < rate && !was_missed(*other));
    met.max_by(f64::total_cmp)
}

/// What was found, and what it is bounded by: the lowest rate that missed.
fn answer(found: f64, trials: &[Trial]) -> String {
    let missed = trials.iter().filter(|trial| !trial.good).min_by(|a, b| a.rate.total_cmp(&b.rate));
    let (at_least, why) = match missed {
        None => ("at least ", "; --rate-max ended the search"),
        Some(trial) if trial.driver_limited => ("at least ", "; beyond, this load tester is the limit"),
        Some(_) => ("", ""),
    };
    format!("capacity: {at_least}{found:.0} per second, confirmed by a second run{why}")
}

fn ended_early(trials: &[Trial]) -> Result<Outcome, String> {
    print(&format!("{}\nended early: no rate was confirmed", evidence(trials)))?;
    Ok(Outcome::Failed)
}

/// One run at a rate; none if somebody ended it early. An error if nobody can sign in the first time: a lower rate would not
/// help. Later it may be the rate before that did it.
fn attempt(options: &Search, rate: f64, is_first: bool) -> Result<Option<Trial>, String> {
    let mut each = options.each.clone();
    each.rate = Some(rate);
    each.output.quiet = true;
    let report = scenario::measure(&each, options.scenario.into(), None)?;
    if report.interrupted {
        return Ok(None);
    }
    if is_first && report.outcome() == Outcome::NotRun {
        return Err(reasons(&report));
    }
    let line = line(rate, &report);
    if !options.each.output.quiet {
        note(&line);
    }
    Ok(Some(Trial { rate, good: report.is_clean(), driver_limited: report.driver_limit().is_some(), line }))
}

fn line(rate: f64, report: &Report) -> String {
    let latency = Quantiles::from(&report.record.of(report.main()).planned);
    let verdict = match report.driver_limit() {
        _ if !report.is_clean() => format!("missed: {}", reasons(report)),
        Some(limit) => format!("met, though {}", limit.what),
        None => "met".to_owned(),
    };
    format!(
        "{rate:>10.0}/s  p50 {:>9}  p99 {:>9}  max {:>9}  driver {:>3.0} %  {verdict}",
        human_us(latency.p50),
        human_us(latency.p99),
        human_us(latency.max),
        report.driver_busy().unwrap_or(0.0) * 100.0,
    )
}

fn reasons(report: &Report) -> String {
    let mut reasons: Vec<String> = report.failed().map(Verdict::to_string).collect();
    reasons.extend(report.failure.clone());
    reasons.extend(report.errors.iter().map(|(kind, count)| format!("{count} x {kind}")));
    if report.balance.lost > 0 {
        reasons.push(format!("{} lost", report.balance.lost));
    }
    if let Some(limit) = report.driver_limit() {
        reasons.push(limit.what);
    }
    reasons.join("; ")
}

fn evidence(trials: &[Trial]) -> String {
    let mut sorted: Vec<&Trial> = trials.iter().collect();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    sorted.iter().map(|trial| trial.line.as_str()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_a_rate_that_was_missed_the_second_time_is_the_best_that_was_always_met() {
        let trial = |(rate, good)| Trial { rate, good, driver_limited: false, line: String::new() };
        let trials: Vec<Trial> =
            [(1000.0, true), (2000.0, true), (4000.0, false), (3000.0, true), (2000.0, false), (3000.0, false)]
                .map(trial)
                .into();
        assert_eq!(below(4000.0, &trials), Some(1000.0));
        assert_eq!(below(1000.0, &trials), None);
        assert_eq!(answer(1000.0, &trials), "capacity: 1000 per second, confirmed by a second run");
        let limited = [trial((1000.0, true)), Trial { driver_limited: true, ..trial((2000.0, false)) }];
        assert!(answer(1000.0, &limited).contains("at least 1000 per second"));
        assert!(answer(1000.0, &limited[..1]).contains("--rate-max"));
    }
}
