//! `capacity`: the highest rate at which a scenario still meets the thresholds, found by bisection and confirmed.

use crate::record::{Quantiles, human_us};
use crate::report::Report;
use crate::scenario::{self, Scenario};
use crate::threshold::Verdict;

/// What to search for.
#[derive(clap::Args, Debug)]
pub(crate) struct Search {
    /// Which load; one with a rate.
    #[arg(value_enum)]
    scenario: Scenario,
    /// Where the search ends: neighbouring rates are within this many percent of each other.
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    precision: f64,
    /// The highest rate that is tried; --rate is the first one.
    #[arg(long, default_value_t = 1e6, value_name = "N")]
    rate_max: f64,
    #[command(flatten)]
    each: scenario::Options,
}

struct Trial {
    rate: f64,
    good: bool,
    /// Its figures are those of this load tester.
    driver_limited: bool,
    line: String,
}

/// Runs the search. True when a rate was found and confirmed.
pub(crate) fn run(options: &Search) -> Result<bool, String> {
    if !matches!(options.scenario, Scenario::Ping | Scenario::P2p | Scenario::Room) {
        return Err("capacity searches for a rate: take ping, p2p or room".to_owned());
    }
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
    let mut rate = options.each.rate();
    // Double or halve until the answer lies between two rates, then halve the distance.
    loop {
        let trial = attempt(options, rate)?;
        eprintln!("{}", trial.line);
        let good = trial.good;
        trials.push(trial);
        if good {
            low = Some(rate)
        } else {
            high = Some(rate)
        }
        rate = match (low, high) {
            (Some(low), None) if low >= options.rate_max => break,
            (Some(low), None) => (low * 2.0).min(options.rate_max),
            (None, Some(high)) if high < 1.0 => break,
            (None, Some(high)) => high / 2.0,
            (Some(low), Some(high)) if high / low <= 1.0 + options.precision / 100.0 => break,
            (Some(low), Some(high)) => (low + high) / 2.0,
            (None, None) => break,
        };
    }
    let Some(found) = low else {
        println!("{}", evidence(&trials));
        println!("no rate down to {rate:.1} meets the thresholds");
        return Ok(false);
    };
    let confirmed = attempt(options, found)?;
    let good = confirmed.good;
    trials.push(confirmed);
    println!("{}", evidence(&trials));
    // The lowest rate that missed is what the answer is bounded by.
    let missed = trials.iter().filter(|trial| !trial.good).min_by(|a, b| a.rate.total_cmp(&b.rate));
    if good && missed.is_none() {
        println!("capacity: at least {found:.0} per second, confirmed by a second run; --rate-max ended the search");
    } else if good && missed.is_some_and(|trial| trial.driver_limited) {
        println!(
            "capacity: at least {found:.0} per second, confirmed by a second run; beyond, this load tester is the limit"
        );
    } else if good {
        println!("capacity: {found:.0} per second, confirmed by a second run");
    } else {
        println!("{found:.0} per second was met once and missed once: not shown; run longer (--duration)");
    }
    Ok(good)
}

fn attempt(options: &Search, rate: f64) -> Result<Trial, String> {
    let mut each = options.each.clone();
    each.rate = Some(rate);
    each.output.quiet = true;
    let report = scenario::measure(&each, options.scenario, None)?;
    if report.interrupted {
        return Err("ended early".to_owned());
    }
    Ok(Trial {
        rate,
        good: report.is_clean(),
        driver_limited: report.driver_limit().is_some(),
        line: line(rate, &report),
    })
}

fn line(rate: f64, report: &Report) -> String {
    let latency = Quantiles::from(&report.record.of(report.main()).planned);
    let verdict = match report.driver_limit() {
        _ if !report.is_clean() => reasons(report),
        Some(limit) => format!("met, though {limit}"),
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
    reasons.extend(report.errors.iter().map(|(kind, count)| format!("{count} x {kind}")));
    if report.lost > 0 {
        reasons.push(format!("{} lost", report.lost));
    }
    if let Some(limit) = report.driver_limit() {
        reasons.push(limit);
    }
    format!("missed: {}", reasons.join("; "))
}

fn evidence(trials: &[Trial]) -> String {
    let mut sorted: Vec<&Trial> = trials.iter().collect();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    sorted.iter().map(|trial| trial.line.as_str()).collect::<Vec<_>>().join("\n")
}
