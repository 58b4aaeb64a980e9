//! The texts that are made of OpenMetrics text: the format of Prometheus 0.0.4, which older scrapers and people with curl get, and
//! the reference of all metrics.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Whether the headers `Accept` prefer OpenMetrics to plain text (RFC 9110). Without any, plain text is for everybody.
pub(super) fn wants_openmetrics<'a>(accept: impl Iterator<Item = &'a str>) -> bool {
    let (mut open, mut plain) = (0.0, 0.0);
    for range in accept.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = weight.map_or(1.0, |weight| weight.parse::<f64>().unwrap_or(0.0));
        match media.as_str() {
            "application/openmetrics-text" => open = f64::max(open, weight),
            "text/plain" => plain = f64::max(plain, weight),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}

/// A family of OpenMetrics text: lines are in the order HELP, TYPE, UNIT, samples.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    samples: Vec<&'a str>,
}

fn families(open: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in open.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            if let Some(family) = families.last_mut() {
                family.samples.push(line);
            }
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(name), Some(help)) => families.push(Family { name, help, ..Family::default() }),
            (Some("TYPE"), Some(_), Some(kind)) => {
                if let Some(family) = families.last_mut() {
                    family.kind = kind;
                }
            }
            // UNIT is in the name; EOF is the end.
            _ => {}
        }
    }
    families
}

impl Family<'_> {
    /// As samples have it: counters end with `_total` there only.
    fn name_of_samples(&self) -> String {
        match self.kind {
            "counter" => format!("{}_total", self.name),
            _ => self.name.to_owned(),
        }
    }
}

/// The families in the text format of Prometheus, version 0.0.4.
pub(super) fn to_0_0_4(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    for family in families(open) {
        let name = family.name_of_samples();
        // Writing into a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
        for sample in family.samples {
            text.push_str(sample);
            text.push('\n');
        }
    }
    text
}

/// Labels whose values depend on the node or the build.
const OF_NODE: [&str; 3] = ["shard", "version", "commit"];

/// The families as a table in Markdown.
pub(super) fn reference(open: &str) -> String {
    let mut text = "# Metrics\n\nWhat `GET /metrics` of the admin listener has; written by `ringgate metrics`. Counters count from the \
                    start of the process.\nScrapers that accept `application/openmetrics-text` get that, others the text format of \
                    Prometheus 0.0.4.\n\n| metric | type | labels | what it says |\n|---|---|---|---|\n"
        .to_owned();
    for family in families(open) {
        let labels: Vec<_> = labels(&family).into_iter().map(|(key, values)| shown(key, &values)).collect();
        let (name, kind, help) = (family.name_of_samples(), family.kind, family.help.trim_end_matches('.'));
        let _ = writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join("; "));
    }
    text
}

fn shown(key: &str, values: &BTreeSet<&str>) -> String {
    if OF_NODE.contains(&key) {
        return format!("`{key}`");
    }
    let values: Vec<_> = values.iter().filter(|value| !value.is_empty()).map(|value| format!("`{value}`")).collect();
    format!("`{key}`: {}", values.join(", "))
}

/// The labels of a family's samples, in their order, and the values of each.
fn labels<'a>(family: &Family<'a>) -> Vec<(&'a str, BTreeSet<&'a str>)> {
    let mut labels: Vec<(&str, BTreeSet<&str>)> = Vec::new();
    for sample in &family.samples {
        let Some((_, rest)) = sample.split_once('{') else { continue };
        let Some((pairs, _)) = rest.rsplit_once('}') else { continue };
        for (key, value) in pairs.split(',').filter_map(|pair| pair.split_once('=')) {
            // The buckets of a histogram.
            if key == "le" {
                continue;
            }
            let value = value.trim_matches('"');
            match labels.iter_mut().find(|(known, _)| *known == key) {
                Some((_, values)) => {
                    values.insert(value);
                }
                None => labels.push((key, BTreeSet::from([value]))),
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                        a_seconds_total{shard=\"0\",reason=\"x\"} 1.5\na_seconds_total{shard=\"1\",reason=\"y\"} 2\n\
                        # HELP b Level.\n# TYPE b gauge\nb 3\n# EOF\n";

    #[test]
    fn accept_prefers_openmetrics_then_it_is_wanted() {
        for (accept, wanted) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/plain"], false),
            (&["application/openmetrics-text"], true),
            (&["application/openmetrics-text; version=1.0.0;q=0"], false),
            (&["application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"], true),
            (&["text/plain;version=0.0.4;q=0.5", "Application/OpenMetrics-Text; q=0.4"], false),
            (&["application/openmetrics-text;q=much"], false),
        ] {
            assert_eq!(wants_openmetrics(accept.iter().copied()), wanted, "{accept:?}");
        }
    }

    #[test]
    fn openmetrics_is_written_as_0_0_4_then_counters_have_their_full_name_and_units_are_left_out() {
        assert_eq!(
            to_0_0_4(OPEN),
            "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\n\
             a_seconds_total{shard=\"0\",reason=\"x\"} 1.5\na_seconds_total{shard=\"1\",reason=\"y\"} 2\n\
             # HELP b Level.\n# TYPE b gauge\nb 3\n"
        );
    }

    #[test]
    fn reference_is_made_then_it_has_labels_and_those_values_that_are_the_same_everywhere() {
        let reference = reference(OPEN);
        let (_, table) = reference.split_once("|---|---|---|---|\n").unwrap();
        assert_eq!(
            table,
            "| `a_seconds_total` | counter | `shard`; `reason`: `x`, `y` | Time |\n| `b` | gauge |  | Level |\n"
        );
    }
}
