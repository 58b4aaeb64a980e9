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

/// Figures of a run, their names in the JSON, and whether more is better.
const FIGURES: [(&str, &str, Option<bool>); 14] = [
    ("connections", "/connections", None),
    ("signed in per second", "/connects_per_second", Some(true)),
    ("published", "/published", None),
    ("delivered", "/delivered", None),
    ("lost", "/lost", Some(false)),
    ("duplicated", "/duplicated", Some(false)),
    ("reordered", "/reordered", Some(false)),
    ("corrupted", "/corrupted", Some(false)),
    ("errors", "/errors", Some(false)),
    ("first back p99, us", "/first_1000_back_us/p99", Some(false)),
    ("gateway CPU per delivery, us", "/cpu_us_per_delivery", Some(false)),
    ("enters per delivery", "/enters_per_delivery", Some(false)),
    ("tester CPU per delivery, us", "/driver_cpu_us_per_delivery", None),
    ("load tester busy", "/driver_busy", None),
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
    let mut rows = Rows(vec![format!("  {:<30} {:>14} {:>14} {:>10}", "", "before", "after", "change")]);
    for (name, pointer, more_is_better) in FIGURES {
        let figure = |result: &Value| result.pointer(pointer).and_then(Value::as_f64);
        rows.add(name, figure(before), figure(after), more_is_better);
    }
    rows.add_latencies(&before["latencies_us"], &after["latencies_us"]);
    for (name, a, b) in phases(before, after) {
        rows.add_phase(&name, a, b);
    }
    rows.0
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

struct Rows(Vec<String>);

impl Rows {
    /// A figure that neither has is left out.
    fn add(&mut self, name: &str, before: Option<f64>, after: Option<f64>, more_is_better: Option<bool>) {
        if before.is_some() || after.is_some() {
            let text = |figure: Option<f64>| figure.map_or("-".to_owned(), number);
            let change = change(before, after, more_is_better);
            self.0.push(format!("  {name:<30} {:>14} {:>14} {change:>10}", text(before), text(after)));
        }
    }

    /// Of each kind of latency, from the planned time.
    fn add_latencies(&mut self, before: &Value, after: &Value) {
        for measure in Measure::ALL.map(Measure::label) {
            for (name, key) in [("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max")] {
                let figure = |latencies: &Value| latencies[measure]["planned"][key].as_f64();
                self.add(&format!("{measure} {name}, us"), figure(before), figure(after), Some(false));
            }
        }
    }

    fn add_phase(&mut self, name: &str, before: &Value, after: &Value) {
        self.0.push(format!("  phase {name}"));
        let figure = |phase: &Value, key: &str| phase[key].as_f64();
        self.add("seconds", figure(before, "seconds"), figure(after, "seconds"), None);
        for (rate, key) in RATES {
            let rate_of = |phase: &Value| {
                let (count, seconds) = (figure(phase, key)?, figure(phase, "seconds")?);
                (seconds > 0.0).then(|| count / seconds)
            };
            let (before, after) = (rate_of(before), rate_of(after));
            if before.is_some_and(|rate| rate > 0.0) || after.is_some_and(|rate| rate > 0.0) {
                self.add(rate, before, after, Some(true));
            }
        }
        let cores = |key: &'static str| {
            move |phase: &Value| Some(figure(phase, key)? / figure(phase, "seconds").filter(|seconds| *seconds > 0.0)?)
        };
        let (gateway, tester) = (cores("gateway_cpu_seconds"), cores("driver_cpu_seconds"));
        self.add("gateway, cores", gateway(before), gateway(after), Some(false));
        self.add("load tester, cores", tester(before), tester(after), None);
        self.add_latencies(&before["latency_us"], &after["latency_us"]);
    }
}

fn number(figure: f64) -> String {
    if figure.fract() == 0.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

/// In percent, with a word where the direction is good or bad. Small machines drift: within 10 % nothing is said.
fn change(before: Option<f64>, after: Option<f64>, more_is_better: Option<bool>) -> String {
    let (Some(before), Some(after)) = (before, after) else { return String::new() };
    if before == after {
        return "same".to_owned();
    }
    let percent = if before == 0.0 { f64::INFINITY } else { (after / before - 1.0) * 100.0 };
    let word = match more_is_better {
        Some(more) if percent.abs() > 10.0 => {
            if (percent > 0.0) == more {
                " better"
            } else {
                " worse"
            }
        }
        _ => "",
    };
    if percent.is_finite() { format!("{percent:+.0} %{word}") } else { format!("new{word}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_have_a_direction() {
        assert_eq!(change(Some(100.0), Some(150.0), Some(false)), "+50 % worse");
        assert_eq!(change(Some(100.0), Some(150.0), Some(true)), "+50 % better");
        assert_eq!(change(Some(100.0), Some(105.0), Some(false)), "+5 %");
        assert_eq!(change(Some(0.0), Some(2.0), Some(false)), "new worse");
        assert_eq!(change(Some(3.0), Some(3.0), None), "same");
        assert_eq!(change(None, Some(3.0), None), "");
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
        let before = json!({"phases": [phase("idle", 2), phase("steady", 8), phase("idle", 20)]});
        let after = json!({"phases": [phase("idle", 4), phase("idle", 30), phase("drain", 1)]});
        let lines = table(&before, &after).join("\n");
        let rates: Vec<_> = lines.lines().filter(|line| line.contains("pongs per second")).collect();
        assert_eq!(rates.len(), 2, "{lines}");
        assert!(rates[0].ends_with("+100 % better") && rates[1].ends_with("+50 % better"), "{lines}");
        assert!(!lines.contains("steady") && !lines.contains("drain"));
    }
}
