//! `compare`: results side by side: whether their loads are equal, which figures have changed, and whether any is worse.
//!
//! A side may have several runs: medians are compared then, and a change is believed if the ranges do not overlap.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Outcome;
use crate::console;
use crate::record::Measure;
use crate::report::SCHEMA;

/// Which results.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The earlier result and the later one.
    #[arg(value_names = ["BEFORE", "AFTER"], num_args = 2, required_unless_present_any = ["before", "after"])]
    files: Vec<PathBuf>,
    /// Several earlier results, separated by commas, instead of one.
    #[arg(long, value_name = "FILE", value_delimiter = ',', requires = "after", conflicts_with = "files")]
    before: Vec<PathBuf>,
    /// Several later ones.
    #[arg(long, value_name = "FILE", value_delimiter = ',', requires = "before", conflicts_with = "files")]
    after: Vec<PathBuf>,
    /// A figure is better or worse when it has changed by more than this; what must be 0 may not grow at all. Exit code 1 when
    /// anything is worse.
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT", value_parser = percent)]
    tolerance: f64,
}

fn percent(text: &str) -> Result<f64, String> {
    let text = text.strip_suffix('%').unwrap_or(text);
    let percent = text.parse::<f64>().ok().filter(|percent| (0.0..=1e6).contains(percent));
    percent.ok_or_else(|| "must be percent from 0 on, such as 10".to_owned())
}

/// What a change of a figure means.
#[derive(Clone, Copy)]
enum Judge {
    /// Nothing.
    No,
    /// It must be 0: one more is worse, and the worst run of a side counts.
    Zero,
    /// Less is better.
    Less(RestsOn),
    /// More is better.
    More(RestsOn),
}

/// The samples of a figure, from which follows whether a change of it can be told from chance.
#[derive(Clone, Copy)]
enum RestsOn {
    /// A count of such events.
    Itself,
    /// A rate or an average of so many events, by their name in the JSON.
    Events(&'static str),
    /// A percentile of so many samples, by their name in the JSON, and how many it needs.
    Samples(&'static str, u64),
}

/// Figures of a run, their names in the JSON, and what a change means.
const FIGURES: [(&str, &str, Judge); 29] = [
    ("connections", "/connections", Judge::No),
    ("signed in per second", "/connects_per_second", Judge::More(RestsOn::Events("/connections"))),
    ("sent of what was planned", "/sent_share", Judge::More(RestsOn::Events("/sent"))),
    ("published", "/published", Judge::No),
    ("delivered", "/delivered", Judge::No),
    ("lost", "/lost", Judge::Zero),
    ("duplicated", "/duplicated", Judge::Zero),
    ("reordered", "/reordered", Judge::Zero),
    ("corrupted", "/corrupted", Judge::Zero),
    ("misdelivered", "/misdelivered", Judge::Zero),
    ("delivered though refused", "/delivered_refused", Judge::Zero),
    ("answered twice", "/answered_twice", Judge::Zero),
    ("answered wrong", "/answered_wrong", Judge::Zero),
    ("unanswered", "/unanswered", Judge::Zero),
    ("Pings unanswered", "/pings_unanswered", Judge::Zero),
    ("heartbeats unanswered", "/heartbeats_unanswered", Judge::Zero),
    ("away at the end", "/away", Judge::Zero),
    ("errors", "/errors", Judge::Zero),
    ("undecided", "/undecided", Judge::Less(RestsOn::Itself)),
    ("skipped", "/skipped", Judge::Less(RestsOn::Itself)),
    ("never sent", "/never_sent", Judge::Less(RestsOn::Itself)),
    ("late", "/late", Judge::Less(RestsOn::Itself)),
    ("closed", CLOSED, Judge::Less(RestsOn::Itself)),
    (
        "first back p99, us",
        "/first_1000_back_us/p99",
        Judge::Less(RestsOn::Samples("/first_1000_back_us/count", 1_000)),
    ),
    ("gateway CPU per delivery, us", "/cpu_us_per_delivery", Judge::Less(RestsOn::Events("/delivered"))),
    ("enters per delivery", "/enters_per_delivery", Judge::Less(RestsOn::Events("/delivered"))),
    ("tester CPU per delivery, us", "/driver_cpu_us_per_delivery", Judge::No),
    ("load tester busy", "/driver_busy", Judge::No),
    ("load tester late p99, us", "/send_lag_us/p99", Judge::No),
];
/// By code in the JSON; here their sum.
const CLOSED: &str = "/closed_by_code";

/// A figure by its name in the JSON.
fn figure(result: &Value, pointer: &str) -> Option<f64> {
    match result.pointer(pointer)? {
        Value::Object(by_code) => Some(by_code.values().filter_map(Value::as_f64).sum()),
        value => value.as_f64(),
    }
}

/// Percentiles, their names in the JSON, and how many samples they need: ten lie beyond one then. A maximum is a single
/// sample however many there are.
const PERCENTILES: [(&str, &str, u64); 6] = [
    ("p50", "p50", 20),
    ("p90", "p90", 100),
    ("p95", "p95", 200),
    ("p99", "p99", 1_000),
    ("p99.9", "p999", 10_000),
    ("max", "max", u64::MAX),
];

/// The mark of a change that is not judged, and its legend.
const FEW: &str = "few";
const FEW_MEANS: [&str; 5] = [
    "",
    "  few: it rests on too few samples to be called better or worse. A percentile needs 10 beyond it",
    "  in both results (p50: 20 in all, p90: 100, p95: 200, p99: 1000, p99.9: 10000), a maximum is a",
    "  single one, and counts, rates and averages of few events differ by chance. With several runs",
    "  on both sides: their ranges overlap.",
];

/// Figures of a phase that are per second of it.
const RATES: [(&str, &str); 4] = [
    ("accepted per second", "accepted"),
    ("delivered per second", "delivered"),
    ("pongs per second", "pongs"),
    ("reconnects per second", "reconnects"),
];

/// Prints the comparison. Failed if anything is worse; not judged if the loads differ.
pub(crate) fn run(options: &Options) -> Result<Outcome, String> {
    let (before, after) = match options.files.as_slice() {
        [before, after] => (std::slice::from_ref(before), std::slice::from_ref(after)),
        _ => (options.before.as_slice(), options.after.as_slice()),
    };
    let read_all = |paths: &[PathBuf]| paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>();
    let results = [read_all(before)?, read_all(after)?];
    let (mut lines, is_same) = loads(&results);
    let mut worse = Vec::new();
    for (path, result) in before.iter().zip(&results[0]).chain(after.iter().zip(&results[1])) {
        let mut note = |text: &str| lines.push(format!("  ! {}: {text}", path.display()));
        if let Some(limit) = result["driver_limit"].as_str() {
            note(limit);
        }
        if result["interrupted"] == true {
            note(result["aborted"].as_str().unwrap_or("ended early"));
        }
        if let Some(failure) = result["failure"].as_str() {
            note(failure);
        }
    }
    let came_to_its_end =
        |side: &[Value]| side.iter().all(|run| run["failure"].is_null() && run["interrupted"] != true);
    if came_to_its_end(&results[0]) && !came_to_its_end(&results[1]) {
        worse.push("it did not get to its end".to_owned());
    }
    lines.push(String::new());
    let mut table = table(&results, options.tolerance);
    lines.append(&mut table.lines);
    worse.append(&mut table.worse);
    lines.push(String::new());
    lines.push(match (is_same, worse.is_empty()) {
        (false, _) => "  not judged: the loads differ".to_owned(),
        (true, true) => format!("  nothing is worse by more than {} %", options.tolerance),
        (true, false) => format!("  worse: {}", worse.join("; ")),
    });
    console::print(&lines.join("\n"))?;
    Ok(match (is_same, worse.is_empty()) {
        (false, _) => Outcome::NotRun,
        (true, true) => Outcome::Good,
        (true, false) => Outcome::Failed,
    })
}

fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let value: Option<Value> = serde_json::from_str(&text).ok();
    let schema = value.as_ref().and_then(|value| value.get("schema")?.as_u64()).unwrap_or(0);
    if schema > SCHEMA.into() {
        let own = SCHEMA;
        return Err(format!(
            "{}: schema {schema} is newer than this program's, {own}; use a newer one",
            path.display()
        ));
    }
    let result = value.filter(|value| value.get("latency_us").is_some());
    result.ok_or_else(|| format!("{}: no result that ringgate-loadtest has written with --json", path.display()))
}

/// Whether all are of the same load; what differs, if not.
fn loads([before, after]: &[Vec<Value>; 2]) -> (Vec<String>, bool) {
    let Some(first) = before.first() else { return (Vec::new(), false) };
    let others = before.iter().skip(1).map(|run| (run, "another before")).chain(after.iter().map(|run| (run, "after")));
    for (other, when) in others {
        let lines = differences(first, other, when);
        if !lines.is_empty() {
            return (lines, false);
        }
    }
    (vec![format!("  the same load: {}", said(first["load"].get("scenario")))], true)
}

fn differences(before: &Value, after: &Value, when: &str) -> Vec<String> {
    let (Some(a), Some(b)) = (before["load"].as_object(), after["load"].as_object()) else {
        return vec!["  ! one of them does not say what its load was; it may be another".to_owned()];
    };
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| format!("  !   {}: {} before, {} {when}", key.replace('_', " "), said(a.get(key)), said(b.get(key))))
        .collect();
    if differing.is_empty() {
        return Vec::new();
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

/// A figure of the runs of one side that have it.
struct Side {
    /// In their order.
    values: Vec<f64>,
    /// The smallest number of events or samples of any of them.
    events: f64,
}

impl Side {
    fn of(runs: &[&Value], figure: impl Fn(&Value) -> Option<f64>, events: impl Fn(&Value) -> Option<f64>) -> Side {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| figure(run)).collect();
        values.sort_by(f64::total_cmp);
        let events = runs.iter().filter_map(|run| events(run)).reduce(f64::min).unwrap_or(0.0);
        Side { values, events }
    }

    fn least(&self) -> f64 {
        self.values.first().copied().unwrap_or(0.0)
    }

    fn most(&self) -> f64 {
        self.values.last().copied().unwrap_or(0.0)
    }

    fn median(&self) -> Option<f64> {
        let (low, high) =
            (self.values.get(self.values.len().checked_sub(1)? / 2)?, self.values.get(self.values.len() / 2)?);
        Some((low + high) / 2.0)
    }

    /// The median, and the range if there are several.
    fn text(&self) -> String {
        match self.median() {
            None => "-".to_owned(),
            Some(median) if self.values.len() == 1 => number(median),
            Some(median) => format!("{} [{}..{}]", number(median), number(self.least()), number(self.most())),
        }
    }
}

fn table(results: &[Vec<Value>; 2], tolerance: f64) -> Rows {
    let sides = [0, 1].map(|side: usize| results[side].iter().collect::<Vec<&Value>>());
    let several = sides.iter().any(|side| side.len() > 1);
    let mut rows = Rows {
        lines: Vec::new(),
        worse: Vec::new(),
        within: String::new(),
        few: false,
        width: if several { 32 } else { 14 },
        tolerance,
    };
    rows.line("", "before", "after", "change");
    for (name, pointer, judge) in FIGURES {
        let events = |run: &Value| match judge {
            Judge::Less(rests) | Judge::More(rests) => match rests {
                RestsOn::Itself => figure(run, pointer),
                RestsOn::Events(events) | RestsOn::Samples(events, _) => figure(run, events),
            },
            Judge::No | Judge::Zero => None,
        };
        let [before, after] = sides.each_ref().map(|runs| Side::of(runs, |run| figure(run, pointer), events));
        rows.add(name, &before, &after, judge);
    }
    let whole = sides.each_ref().map(|runs| runs.iter().map(|run| &run["latencies_us"]).collect::<Vec<_>>());
    rows.add_latencies(&whole);
    for (name, phases) in phases(&sides) {
        rows.add_phase(&name, &phases);
    }
    if rows.few {
        rows.lines.extend(FEW_MEANS.map(str::to_owned));
    }
    rows
}

/// Whether two rates or averages of so many events differ by more than two standard deviations of what chance does.
fn is_more_than_chance([(a, a_events), (b, b_events)]: [(f64, f64); 2]) -> bool {
    let variance = |figure: f64, events: f64| figure * figure / events.max(1.0);
    (a - b).abs() > 2.0 * (variance(a, a_events) + variance(b, b_events)).sqrt()
}

/// Phases that all runs have: the first of a name with the first of that name, and so on. By sides.
fn phases<'a>(sides: &[Vec<&'a Value>; 2]) -> Vec<(String, [Vec<&'a Value>; 2])> {
    let all = |run: &'a Value| run["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(first) = sides[0].first() else { return Vec::new() };
    let mut found = Vec::new();
    for (index, phase) in all(first).iter().enumerate() {
        let is_it = |other: &&Value| other["name"] == phase["name"];
        let place = all(first)[..index].iter().filter(is_it).count();
        let same = |run: &&'a Value| all(run).iter().filter(|other| is_it(other)).nth(place);
        let [before, after] = sides.each_ref().map(|runs| runs.iter().filter_map(same).collect::<Vec<&Value>>());
        if before.len() == sides[0].len() && after.len() == sides[1].len() {
            found.push((said(phase.get("name")), [before, after]));
        }
    }
    found
}

struct Rows {
    lines: Vec<String>,
    /// What is worse.
    worse: Vec<String>,
    /// What the rows are of, if not of the whole run.
    within: String,
    /// One of them has too few samples to be judged.
    few: bool,
    /// Of the columns of figures.
    width: usize,
    tolerance: f64,
}

impl Rows {
    fn line(&mut self, name: &str, before: &str, after: &str, change: &str) {
        let width = self.width;
        self.lines.push(format!("  {name:<30} {before:>width$} {after:>width$} {change:>10}"));
    }

    /// A figure that neither side has is left out; one of too few samples is not judged.
    fn add(&mut self, name: &str, before: &Side, after: &Side, judge: Judge) {
        if before.values.is_empty() && after.values.is_empty() {
            return;
        }
        let change = change(before, after, judge, self.tolerance);
        self.few |= change.ends_with(FEW);
        if change.ends_with("worse") {
            let text = format!("{}{name} {} to {}", self.within, before.text(), after.text());
            self.worse.push(text);
        }
        self.line(name, &before.text(), &after.text(), &change);
    }

    /// Of each kind of latency, from the planned time.
    fn add_latencies(&mut self, sides: &[Vec<&Value>; 2]) {
        for measure in Measure::ALL.map(Measure::label) {
            for (name, key, needed) in PERCENTILES {
                let figure = |latencies: &Value| latencies[measure]["planned"][key].as_f64();
                let count = |latencies: &Value| latencies[measure]["planned"]["count"].as_f64();
                let [before, after] = sides.each_ref().map(|runs| Side::of(runs, figure, count));
                let judge = Judge::Less(RestsOn::Samples("count", needed));
                self.add(&format!("{measure} {name}, us"), &before, &after, judge);
            }
        }
    }

    fn add_phase(&mut self, name: &str, sides: &[Vec<&Value>; 2]) {
        self.lines.push(format!("  phase {name}"));
        self.within = format!("phase {name}: ");
        let figure = |key: &'static str| move |phase: &Value| phase[key].as_f64();
        let per_second = |key: &'static str| {
            move |phase: &Value| {
                let seconds = phase["seconds"].as_f64().filter(|seconds| *seconds > 0.0)?;
                Some(phase[key].as_f64()? / seconds)
            }
        };
        let none = |_: &Value| None;
        let [before, after] = sides.each_ref().map(|phases| Side::of(phases, figure("seconds"), none));
        self.add("seconds", &before, &after, Judge::No);
        for (rate, key) in RATES {
            let [before, after] = sides.each_ref().map(|phases| Side::of(phases, per_second(key), figure(key)));
            if before.most() > 0.0 || after.most() > 0.0 {
                self.add(rate, &before, &after, Judge::More(RestsOn::Events(key)));
            }
        }
        // CPU time is spent on events.
        let events = |phase: &Value| {
            let keys = ["connected", "accepted", "delivered", "pongs"];
            Some(keys.into_iter().filter_map(|key| phase[key].as_f64()).sum())
        };
        let cores = |key| sides.each_ref().map(|phases| Side::of(phases, per_second(key), events));
        let [before, after] = cores("gateway_cpu_seconds");
        self.add("gateway, cores", &before, &after, Judge::Less(RestsOn::Events("")));
        let [before, after] = cores("driver_cpu_seconds");
        self.add("load tester, cores", &before, &after, Judge::No);
        let latencies =
            sides.each_ref().map(|phases| phases.iter().map(|phase| &phase["latency_us"]).collect::<Vec<_>>());
        self.add_latencies(&latencies);
        self.within.clear();
    }
}

fn number(figure: f64) -> String {
    if figure.fract() == 0.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

/// Whether a change can be told from chance: by the ranges where both sides have several runs, and by the number of
/// samples otherwise.
fn is_believed(before: &Side, after: &Side, rests: RestsOn, medians: [f64; 2]) -> bool {
    if before.values.len() > 1 && after.values.len() > 1 {
        return after.least() > before.most() || after.most() < before.least();
    }
    match rests {
        RestsOn::Itself | RestsOn::Events(_) => {
            is_more_than_chance([(medians[0], before.events), (medians[1], after.events)])
        }
        RestsOn::Samples(_, needed) => before.events.min(after.events) >= needed as f64,
    }
}

/// In percent, with a word where the direction is good or bad, or would be with enough samples. Small machines drift:
/// within the tolerance nothing is said.
fn change(before: &Side, after: &Side, judge: Judge, tolerance: f64) -> String {
    let (Some(mut a), Some(mut b)) = (before.median(), after.median()) else { return String::new() };
    if matches!(judge, Judge::Zero) {
        (a, b) = (before.most(), after.most());
    }
    if a == b {
        return "same".to_owned();
    }
    let percent = if a == 0.0 { f64::INFINITY } else { (b / a - 1.0) * 100.0 };
    let good_or_bad = |is_better: bool| if is_better { "better" } else { "worse" };
    let word = match judge {
        Judge::No => "",
        Judge::Zero => good_or_bad(b < a),
        Judge::Less(_) | Judge::More(_) if percent.abs() <= tolerance => "",
        Judge::Less(rests) | Judge::More(rests) if !is_believed(before, after, rests, [a, b]) => FEW,
        Judge::Less(_) => good_or_bad(b < a),
        Judge::More(_) => good_or_bad(b > a),
    };
    let change = if percent.is_finite() { format!("{percent:+.0} %") } else { "new".to_owned() };
    format!("{change} {word}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn side(values: &[f64], events: f64) -> Side {
        Side { values: values.to_vec(), events }
    }

    /// Of one run a side.
    fn compared(before: &Value, after: &Value) -> Rows {
        table(&[vec![before.clone()], vec![after.clone()]], 10.0)
    }

    #[test]
    fn figure_changes_then_it_is_called_better_or_worse() {
        let of = |before: f64, after: f64, judge| change(&side(&[before], 1e9), &side(&[after], 1e9), judge, 10.0);
        let (less, more) = (Judge::Less(RestsOn::Samples("", 1)), Judge::More(RestsOn::Events("")));
        assert_eq!(of(100.0, 150.0, less), "+50 % worse");
        assert_eq!(of(100.0, 150.0, more), "+50 % better");
        assert_eq!(of(100.0, 105.0, less), "+5 %");
        assert_eq!(of(0.0, 2.0, Judge::Zero), "new worse");
        assert_eq!(of(100.0, 101.0, Judge::Zero), "+1 % worse");
        assert_eq!(of(3.0, 3.0, Judge::No), "same");
        assert_eq!(change(&side(&[], 0.0), &side(&[3.0], 0.0), Judge::Zero, 10.0), "");
        let few = |after| change(&side(&[100.0], 0.0), &side(&[after], 0.0), less, 10.0);
        assert_eq!((few(150.0), few(105.0)), ("+50 % few".to_owned(), "+5 %".to_owned()));
        let narrow = change(&side(&[100.0], 1e9), &side(&[105.0], 1e9), less, 4.0);
        assert_eq!(narrow, "+5 % worse", "the tolerance is what was asked for");
    }

    #[test]
    fn ranges_of_several_runs_do_not_overlap_then_the_change_counts() {
        let less = Judge::Less(RestsOn::Samples("", 1_000));
        let of = |before: &[f64], after: &[f64], judge| change(&side(before, 5.0), &side(after, 5.0), judge, 10.0);
        assert_eq!(of(&[90.0, 100.0, 110.0], &[140.0, 150.0, 160.0], less), "+50 % worse");
        assert_eq!(of(&[90.0, 100.0, 145.0], &[140.0, 150.0, 160.0], less), "+50 % few");
        assert_eq!(of(&[140.0, 150.0, 160.0], &[70.0, 75.0, 80.0], less), "-50 % better");
        assert_eq!(of(&[0.0, 0.0, 0.0], &[0.0, 0.0, 1.0], Judge::Zero), "new worse", "no run may lose anything");
        assert_eq!(side(&[1.0, 2.0, 4.0], 0.0).text(), "2 [1..4]");
        assert_eq!(side(&[1.0, 2.0], 0.0).median(), Some(1.5));
    }

    #[test]
    fn figure_has_few_samples_then_it_is_not_judged() {
        let result = |count: u64, p: f64, delivered: u64| {
            let ping =
                json!({"planned": {"count": count, "p50": p, "p90": p, "p95": p, "p99": p, "p999": p, "max": p}});
            json!({
                "lost": p as u64 - 100,
                "delivered": delivered,
                "cpu_us_per_delivery": p,
                "first_1000_back_us": {"count": count, "p99": p},
                "latencies_us": {"ping": ping},
            })
        };
        let words = |count: u64, delivered: u64| {
            let lines = compared(&result(count, 100.0, delivered), &result(count, 150.0, delivered)).lines;
            let word = |line: &String| line.split_once("+50 % ").map(|(_, word)| word.to_owned());
            (lines.iter().filter_map(word).collect::<Vec<_>>().join(" "), lines.join("\n"))
        };
        // First back, CPU per delivery, then p50 to max.
        assert_eq!(words(22, 10).0, "few few worse few few few few few");
        assert_eq!(words(100, 100).0, "few worse worse worse few few few few");
        assert_eq!(words(999, 100).0, "few worse worse worse worse few few few");
        assert_eq!(words(1_000, 100).0, "worse worse worse worse worse worse few few");
        let (all, text) = words(10_000, 100);
        assert_eq!(all, "worse worse worse worse worse worse worse few");
        assert!(text.contains("too few samples to be called better or worse") && text.contains("new worse"), "{text}");
        assert!(!compared(&json!({"lost": 1}), &json!({"lost": 2})).lines.join("").contains("few"));
    }

    #[test]
    fn messages_were_not_sent_then_compare_has_rows_for_them() {
        let result = |count: u64| {
            json!({"skipped": count, "undecided": count, "late": count, "closed_by_code": {"0": count, "3008": 1},
                "misdelivered": count, "never_sent": count, "sent": 1000, "sent_share": 1.0 - count as f64 / 1000.0})
        };
        let worse = compared(&result(0), &result(400)).worse;
        let wanted = [
            "sent of what was planned 1 to 0.60",
            "misdelivered 0 to 400",
            "undecided 0 to 400",
            "skipped 0 to 400",
            "never sent 0 to 400",
            "late 0 to 400",
            "closed 1 to 401",
        ];
        assert_eq!(worse, wanted);
        assert_eq!(compared(&result(0), &result(1)).worse, ["misdelivered 0 to 1"], "one of the others is chance");
        assert!(compared(&result(400), &result(0)).worse.is_empty());
    }

    #[test]
    fn counts_are_small_then_a_difference_is_chance() {
        let differ = |a: f64, b: f64| is_more_than_chance([(a, a), (b, b)]);
        assert!(differ(20.0, 0.0) && differ(1_000.0, 1_100.0));
        assert!(!differ(0.0, 2.0) && !differ(20.0, 30.0));
    }

    #[test]
    fn loads_differ_then_the_differences_are_named() {
        let of = |load: Value| json!({"load": load});
        let loads = |before: &Value, after: &Value| loads(&[vec![before.clone()], vec![after.clone()]]);
        let same = of(json!({"scenario": "p2p", "rate": 5.0}));
        assert_eq!(loads(&same, &same), (vec!["  the same load: p2p".to_owned()], true));
        let other = of(json!({"scenario": "p2p", "rate": 6.0, "tls": true, "mixture": "a\nb"}));
        let (lines, is_same) = loads(&same, &other);
        assert!(lines[0].contains("different loads") && !is_same, "{lines:?}");
        let rest = [
            "  !   mixture: - before, another text after",
            "  !   rate: 5.0 before, 6.0 after",
            "  !   tls: - before, true after",
        ];
        assert_eq!(lines[1..], rest);
        assert!(loads(&same, &json!({})).0[0].contains("does not say"));
        let (lines, is_same) = super::loads(&[vec![same.clone(), other], vec![same]]);
        assert!(lines[2].contains("rate: 5.0 before, 6.0 another before") && !is_same, "{lines:?}");
    }

    #[test]
    fn phases_have_one_name_then_they_are_compared_in_order() {
        let phase = |name: &str, pongs: u64| json!({"name": name, "seconds": 2.0, "pongs": pongs, "latency_us": {}});
        let before = json!({"phases": [phase("idle", 200), phase("steady", 8), phase("idle", 2_000)]});
        let after = json!({"phases": [phase("idle", 400), phase("idle", 3_000), phase("drain", 1)]});
        let lines = compared(&before, &after).lines.join("\n");
        let rates: Vec<_> = lines.lines().filter(|line| line.contains("pongs per second")).collect();
        assert_eq!(rates.len(), 2, "{lines}");
        assert!(rates[0].ends_with("+100 % better") && rates[1].ends_with("+50 % better"), "{lines}");
        assert!(!lines.contains("steady") && !lines.contains("drain"));
        let worse = compared(&after, &before).worse;
        assert_eq!(worse, ["phase idle: pongs per second 200 to 100", "phase idle: pongs per second 1500 to 1000"]);
    }
}
