//! `compare`: two results side by side, and what has changed.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Which results.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The earlier one.
    before: PathBuf,
    /// The later one.
    after: PathBuf,
}

/// Figures, their names in the JSON, and whether more is better.
const FIGURES: [(&str, &str, Option<bool>); 14] = [
    ("connections", "/connections", None),
    ("signed in per second", "/connects_per_second", Some(true)),
    ("published", "/published", None),
    ("delivered", "/delivered", None),
    ("lost", "/lost", Some(false)),
    ("duplicated", "/duplicated", Some(false)),
    ("reordered", "/reordered", Some(false)),
    ("errors", "/errors", Some(false)),
    ("p50, us", "/latency_us/p50", Some(false)),
    ("p99, us", "/latency_us/p99", Some(false)),
    ("p99.9, us", "/latency_us/p999", Some(false)),
    ("max, us", "/latency_us/max", Some(false)),
    ("gateway CPU per delivery, us", "/cpu_us_per_delivery", Some(false)),
    ("load tester busy", "/driver_busy", None),
];

/// Prints the comparison. Always true: judging is for thresholds.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let (before, after) = (read(&options.before)?, read(&options.after)?);
    println!("{}", table(&before, &after));
    for (path, result) in [(&options.before, &before), (&options.after, &after)] {
        if let Some(limit) = result["driver_limit"].as_str() {
            println!("  ! {}: {limit}", path.display());
        }
    }
    Ok(true)
}

fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if value.get("latency_us").is_none() {
        return Err(format!("{}: not a result of ringgate-loadtest --json", path.display()));
    }
    Ok(value)
}

fn table(before: &Value, after: &Value) -> String {
    let mut lines = vec![format!("  {:<30} {:>14} {:>14} {:>10}", "", "before", "after", "change")];
    for (name, pointer, more_is_better) in FIGURES {
        let figure = |result: &Value| result.pointer(pointer).and_then(Value::as_f64);
        let (a, b) = (figure(before), figure(after));
        if a.is_none() && b.is_none() {
            continue;
        }
        let text = |figure: Option<f64>| figure.map_or("-".to_owned(), number);
        lines.push(format!("  {name:<30} {:>14} {:>14} {:>10}", text(a), text(b), change(a, b, more_is_better)));
    }
    lines.join("\n")
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
}
