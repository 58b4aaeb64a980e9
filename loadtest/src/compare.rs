//! `compare`: two results side by side: whether they are of the same load, and what has changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Outcome;
use crate::console;
use crate::record::Measure;

/// Which results.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The earlier one.
    before: PathBuf,
    /// The later one.
    after: PathBuf,
}

/// Figures of a run, their names in the JSON, whether more is better, and what they rest on.
const FIGURES: [(&str, &str, Option<bool>, RestsOn); 14] = [
    ("connections", "/connections", None, RestsOn::Itself),
    ("signed in per second", "/connects_per_second", Some(true), RestsOn::Events("/connections")),
    ("published", "/published", None, RestsOn::Itself),
    ("delivered", "/delivered", None, RestsOn::Itself),
    ("lost", "/lost", Some(false), RestsOn::Itself),
    ("duplicated", "/duplicated", Some(false), RestsOn::Itself),
    ("reordered", "/reordered", Some(false), RestsOn::Itself),
    ("corrupted", "/corrupted", Some(false), RestsOn::Itself),
    ("errors", "/errors", Some(false), RestsOn::Itself),
    (
        "first back p99, us",
        "/first_1000_back_us/p99",
        Some(false),
        RestsOn::Samples("/first_1000_back_us/count", 1_000),
    ),
    ("gateway CPU per delivery, us", "/cpu_us_per_delivery", Some(false), RestsOn::Events("/delivered")),
    ("enters per delivery", "/enters_per_delivery", Some(false), RestsOn::Events("/delivered")),
    ("tester CPU per delivery, us", "/driver_cpu_us_per_delivery", None, RestsOn::Itself),
    ("load tester busy", "/driver_busy", None, RestsOn::Itself),
];

/// What a figure rests on: whether a change of it can be told from chance.
#[derive(Clone, Copy)]
enum RestsOn {
    /// Nothing to ask: it is not judged, or one more is one too many.
    Itself,
    /// A rate or an average of so many events, by their name in the JSON.
    Events(&'static str),
    /// A percentile of so many samples, by their name in the JSON, and how many it needs.
    Samples(&'static str, u64),
}

/// Percentiles, their names in the JSON, and how many samples they need: ten lie beyond one then. A maximum is a single
/// sample however many there are.
const PERCENTILES: [(&str, &str, u64); 5] = [
    ("p50", "p50", 20),
    ("p90", "p90", 100),
    ("p99", "p99", 1_000),
    ("p99.9", "p999", 10_000),
    ("max", "max", u64::MAX),
];

/// Stands where a change is not judged, and what it means.
const FEW: &str = "few";
const FEW_MEANS: [&str; 4] = [
    "",
    "  few: it rests on too few samples to be called better or worse. A percentile needs 10 beyond it",
    "  in both results (p50: 20 in all, p90: 100, p99: 1000, p99.9: 10000), a maximum is a single one,",
    "  and rates and averages of few events differ by chance.",
];

/// Figures of a phase that are per second of it.
const RATES: [(&str, &str); 4] = [
    ("accepted per second", "accepted"),
    ("delivered per second", "delivered"),
    ("pongs per second", "pongs"),
    ("reconnects per second", "reconnects"),
];

/// Prints the comparison. Always good: judging is for thresholds.
pub(crate) fn run(options: &Options) -> Result<Outcome, String> {
    let (before, after) = (read(&options.before)?, read(&options.after)?);
    let mut lines = loads(&before, &after);
    for (path, result) in [(&options.before, &before), (&options.after, &after)] {
        if let Some(limit) = result["driver_limit"].as_str() {
            lines.push(format!("  ! {}: {limit}", path.display()));
        }
        if result["interrupted"] == true {
            lines.push(format!("  ! {}: ended early", path.display()));
        }
        if let Some(failure) = result["failure"].as_str() {
            lines.push(format!("  ! {}: {failure}", path.display()));
        }
    }
    lines.push(String::new());
    lines.extend(table(&before, &after));
    console::print(&lines.join("\n"))?;
    Ok(Outcome::Good)
}

fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if value.get("latency_us").is_none() {
        return Err(format!("{}: not a result of ringgate-loadtest --json", path.display()));
    }
    Ok(value)
}

/// Whether the two are of the same load; what differs, if not.
fn loads(before: &Value, after: &Value) -> Vec<String> {
    let (Some(a), Some(b)) = (before["load"].as_object(), after["load"].as_object()) else {
        return vec!["  ! one of them does not say what its load was; it may be another".to_owned()];
    };
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| format!("  !   {}: {} before, {} after", key.replace('_', " "), said(a.get(key)), said(b.get(key))))
        .collect();
    if differing.is_empty() {
        return vec![format!("  the same load: {}", said(a.get("scenario")))];
    }
    let head = "  ! different loads: what follows compares the loads as much as the gateways".to_owned();
    std::iter::once(head).chain(differing).collect()
}

/// A value in a line; a text of several lines would not fit there.
fn said(value: Option<&Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::String(text)) if text.contains('\n') => "another text".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn table(before: &Value, after: &Value) -> Vec<String> {
    let head = format!("  {:<30} {:>14} {:>14} {:>10}", "", "before", "after", "change");
    let mut rows = Rows { lines: vec![head], few: false };
    for (name, pointer, more_is_better, rests) in FIGURES {
        let figure = |result: &Value, pointer: &str| result.pointer(pointer).and_then(Value::as_f64);
        let (a, b) = (figure(before, pointer), figure(after, pointer));
        let enough = match rests {
            RestsOn::Itself => true,
            RestsOn::Events(events) => is_more_than_chance([(a, figure(before, events)), (b, figure(after, events))]),
            RestsOn::Samples(count, needed) => {
                [before, after].iter().all(|result| figure(result, count) >= Some(needed as f64))
            }
        };
        rows.add(name, a, b, more_is_better, enough);
    }
    rows.add_latencies(&before["latencies_us"], &after["latencies_us"]);
    for (name, a, b) in phases(before, after) {
        rows.add_phase(&name, a, b);
    }
    if rows.few {
        rows.lines.extend(FEW_MEANS.map(str::to_owned));
    }
    rows.lines
}

/// Whether two rates or averages of so many events differ by more than two standard deviations of what chance does.
fn is_more_than_chance(figures: [(Option<f64>, Option<f64>); 2]) -> bool {
    let [(a, _), (b, _)] = figures;
    let variance = |(figure, events): (Option<f64>, Option<f64>)| {
        let figure = figure.unwrap_or(0.0);
        figure * figure / events.unwrap_or(0.0).max(1.0)
    };
    let deviation = figures.into_iter().map(variance).sum::<f64>().sqrt();
    (a.unwrap_or(0.0) - b.unwrap_or(0.0)).abs() > 2.0 * deviation
}

/// Phases that both have: the first of a name with the first of that name, and so on.
fn phases<'a>(before: &'a Value, after: &'a Value) -> Vec<(String, &'a Value, &'a Value)> {
    let all = |result: &'a Value| result["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut others: Vec<&Value> = all(after).iter().collect();
    let pair = |phase: &'a Value| {
        let same = others.iter().position(|other| other["name"] == phase["name"])?;
        Some((said(phase.get("name")), phase, others.remove(same)))
    };
    all(before).iter().filter_map(pair).collect()
}

struct Rows {
    lines: Vec<String>,
    /// One of them rests on too little to be judged.
    few: bool,
}

impl Rows {
    /// A figure that neither has is left out; one that rests on too little is not judged.
    fn add(&mut self, name: &str, before: Option<f64>, after: Option<f64>, more_is_better: Option<bool>, enough: bool) {
        if before.is_some() || after.is_some() {
            let text = |figure: Option<f64>| figure.map_or("-".to_owned(), number);
            let change = change(before, after, more_is_better, enough);
            self.few |= change.ends_with(FEW);
            self.lines.push(format!("  {name:<30} {:>14} {:>14} {change:>10}", text(before), text(after)));
        }
    }

    /// Of each kind of latency, from the planned time.
    fn add_latencies(&mut self, before: &Value, after: &Value) {
        for measure in Measure::ALL.map(Measure::label) {
            for (name, key, needed) in PERCENTILES {
                let figure = |latencies: &Value| latencies[measure]["planned"][key].as_f64();
                let enough =
                    [before, after].iter().all(|all| all[measure]["planned"]["count"].as_u64() >= Some(needed));
                self.add(&format!("{measure} {name}, us"), figure(before), figure(after), Some(false), enough);
            }
        }
    }

    fn add_phase(&mut self, name: &str, before: &Value, after: &Value) {
        self.lines.push(format!("  phase {name}"));
        let figure = |phase: &Value, key: &str| phase[key].as_f64();
        self.add("seconds", figure(before, "seconds"), figure(after, "seconds"), None, true);
        for (rate, key) in RATES {
            let rate_of = |phase: &Value| {
                let (count, seconds) = (figure(phase, key)?, figure(phase, "seconds")?);
                (seconds > 0.0).then(|| count / seconds)
            };
            let events = [before, after].map(|phase| (rate_of(phase), figure(phase, key)));
            let [before, after] = events.map(|(rate, _)| rate);
            if before.is_some_and(|rate| rate > 0.0) || after.is_some_and(|rate| rate > 0.0) {
                self.add(rate, before, after, Some(true), is_more_than_chance(events));
            }
        }
        let cores = |key: &'static str| {
            move |phase: &Value| Some(figure(phase, key)? / figure(phase, "seconds").filter(|seconds| *seconds > 0.0)?)
        };
        let (gateway, tester) = (cores("gateway_cpu_seconds"), cores("driver_cpu_seconds"));
        // CPU time is spent on events.
        let events = |phase: &Value| {
            Some(["connected", "accepted", "delivered", "pongs"].iter().filter_map(|key| figure(phase, key)).sum())
        };
        let enough = is_more_than_chance([(gateway(before), events(before)), (gateway(after), events(after))]);
        self.add("gateway, cores", gateway(before), gateway(after), Some(false), enough);
        self.add("load tester, cores", tester(before), tester(after), None, true);
        self.add_latencies(&before["latency_us"], &after["latency_us"]);
    }
}

fn number(figure: f64) -> String {
    if figure.fract() == 0.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

/// In percent, with a word where the direction is good or bad, or would be if it rested on `enough`. Small machines drift:
/// within 10 % nothing is said.
fn change(before: Option<f64>, after: Option<f64>, more_is_better: Option<bool>, enough: bool) -> String {
    let (Some(before), Some(after)) = (before, after) else { return String::new() };
    if before == after {
        return "same".to_owned();
    }
    let percent = if before == 0.0 { f64::INFINITY } else { (after / before - 1.0) * 100.0 };
    let word = match more_is_better {
        Some(_) if percent.abs() > 10.0 && !enough => FEW,
        Some(more) if percent.abs() > 10.0 => {
            if (percent > 0.0) == more {
                "better"
            } else {
                "worse"
            }
        }
        _ => "",
    };
    let change = if percent.is_finite() { format!("{percent:+.0} %") } else { "new".to_owned() };
    format!("{change} {word}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_have_a_direction() {
        let of = |before, after, more_is_better| change(before, after, more_is_better, true);
        assert_eq!(of(Some(100.0), Some(150.0), Some(false)), "+50 % worse");
        assert_eq!(of(Some(100.0), Some(150.0), Some(true)), "+50 % better");
        assert_eq!(of(Some(100.0), Some(105.0), Some(false)), "+5 %");
        assert_eq!(of(Some(0.0), Some(2.0), Some(false)), "new worse");
        assert_eq!(of(Some(3.0), Some(3.0), None), "same");
        assert_eq!(of(None, Some(3.0), None), "");
        assert_eq!(change(Some(100.0), Some(150.0), Some(false), false), "+50 % few");
        assert_eq!(change(Some(100.0), Some(105.0), Some(false), false), "+5 %");
    }

    #[test]
    fn what_rests_on_few_samples_is_not_judged() {
        let result = |count: u64, p: f64, delivered: u64| {
            let ping = json!({"planned": {"count": count, "p50": p, "p90": p, "p99": p, "p999": p, "max": p}});
            json!({
                "lost": p as u64 - 100,
                "delivered": delivered,
                "cpu_us_per_delivery": p,
                "first_1000_back_us": {"count": count, "p99": p},
                "latencies_us": {"ping": ping},
            })
        };
        let words = |count: u64, delivered: u64| {
            let lines = table(&result(count, 100.0, delivered), &result(count, 150.0, delivered));
            let word = |line: &String| line.split_once("+50 % ").map(|(_, word)| word.to_owned());
            (lines.iter().filter_map(word).collect::<Vec<_>>().join(" "), lines.join("\n"))
        };
        // First back, CPU per delivery, then p50 to max.
        assert_eq!(words(22, 10).0, "few few worse few few few few");
        assert_eq!(words(100, 100).0, "few worse worse worse few few few");
        assert_eq!(words(999, 100).0, "few worse worse worse few few few");
        assert_eq!(words(1_000, 100).0, "worse worse worse worse worse few few");
        let (all, text) = words(10_000, 100);
        assert_eq!(all, "worse worse worse worse worse worse few");
        assert!(text.contains("too few samples to be called better or worse") && text.contains("new worse"), "{text}");
        assert!(!table(&json!({"lost": 1}), &json!({"lost": 2})).join("").contains("few"));
    }

    #[test]
    fn few_events_differ_by_chance() {
        let differ = |a: f64, b: f64| is_more_than_chance([(Some(a), Some(a)), (Some(b), Some(b))]);
        assert!(differ(20.0, 0.0) && differ(1_000.0, 1_100.0));
        assert!(!differ(0.0, 2.0) && !differ(20.0, 30.0));
    }

    #[test]
    fn different_loads_are_named() {
        let of = |load: Value| json!({"load": load});
        let same = of(json!({"scenario": "p2p", "rate": 5.0}));
        assert_eq!(loads(&same, &same), ["  the same load: p2p"]);
        let other = of(json!({"scenario": "p2p", "rate": 6.0, "tls": true, "mixture": "a\nb"}));
        let lines = loads(&same, &other);
        assert!(lines[0].contains("different loads"), "{lines:?}");
        let rest = [
            "  !   mixture: - before, another text after",
            "  !   rate: 5.0 before, 6.0 after",
            "  !   tls: - before, true after",
        ];
        assert_eq!(lines[1..], rest);
        assert!(loads(&same, &json!({}))[0].contains("does not say"));
    }

    #[test]
    fn phases_of_one_name_are_compared_in_their_order() {
        let phase = |name: &str, pongs: u64| json!({"name": name, "seconds": 2.0, "pongs": pongs, "latency_us": {}});
        let before = json!({"phases": [phase("idle", 200), phase("steady", 8), phase("idle", 2_000)]});
        let after = json!({"phases": [phase("idle", 400), phase("idle", 3_000), phase("drain", 1)]});
        let lines = table(&before, &after).join("\n");
        let rates: Vec<_> = lines.lines().filter(|line| line.contains("pongs per second")).collect();
        assert_eq!(rates.len(), 2, "{lines}");
        assert!(rates[0].ends_with("+100 % better") && rates[1].ends_with("+50 % better"), "{lines}");
        assert!(!lines.contains("steady") && !lines.contains("drain"));
    }
}
