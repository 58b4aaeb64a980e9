//! `--metrics-url`: the gateway's own metrics during a run.
//!
//! | file | what |
//! |---|---|
//! | `openmetrics` | the text format |
//! | `track`, `gather` | what each series did, scrape by scrape, in constant memory |
//! | `scraper` | the thread that asks once a second |
//! | `exporter` | `--metrics-listen`: metrics of this load tester itself |

mod exporter;
mod gather;
mod openmetrics;
mod scraper;
mod track;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::record::human_us;
pub(crate) use exporter::Exporter;
pub(crate) use scraper::{MetricsUrl, Scraper};
pub(crate) use track::Figures;
use track::Quantile;

/// The metrics of a gateway over a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Metrics {
    /// Where they were.
    pub(crate) url: String,
    /// From the first scrape to the last.
    pub(crate) seconds: f64,
    /// Scrapes that were good.
    pub(crate) scrapes: u64,
    /// Scrapes that were not, by what was wrong.
    pub(crate) failed: BTreeMap<String, u64>,
    /// By name, then by labels. Where there is one series for each shard, their sum stands before them.
    pub(crate) series: Vec<Series>,
}

/// One series.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    /// Of its family: without `_total`.
    pub(crate) name: String,
    /// What tells it from others of the name.
    pub(crate) labels: BTreeMap<String, String>,
    /// What the gateway says about it.
    pub(crate) help: String,
    /// Its figures over the run.
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// The newest scrape, for the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Live {
    /// Cores that the gateway used between the two newest scrapes, from `process_cpu_seconds_total`.
    pub(crate) cores: Option<f64>,
    /// Its memory, from `process_anonymous_memory_bytes` or `process_resident_memory_bytes`.
    pub(crate) bytes: Option<f64>,
    /// Deliveries and bytes that wait in it, from `deliveries_queued` and `outbound_queue_bytes`.
    pub(crate) queued: Option<f64>,
    /// See `queued`.
    pub(crate) queued_bytes: Option<f64>,
}

impl Metrics {
    /// The lines of a table for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let head = format!("  the gateway's metrics, {} scrapes in {:.0} s", self.scrapes, self.seconds);
        let failed = self.failed.iter().map(|(kind, count)| format!("  ! {count} x a scrape failed: {kind}"));
        let series = self.summary().map(|series| {
            let name = format!("{} {}", series.name.trim_start_matches("ringgate_"), series.labels_text());
            format!("  {:<52} {}", name.trim_end(), series.line())
        });
        [String::new(), head].into_iter().chain(failed).chain(series).collect()
    }

    /// What was added to a counter in the run, all series of the name together; none if there is no such.
    pub(crate) fn added(&self, name: &str) -> Option<f64> {
        let totals = self.series.iter().filter(|series| series.name == name && !series.labels.contains_key(SHARD));
        let total = |series: &Series| match series.figures {
            Figures::Counter { total, .. } => Some(total),
            _ => None,
        };
        totals.filter_map(total).reduce(|sum, total| sum + total)
    }

    /// Series that did anything, without those that are one shard's.
    pub(crate) fn summary(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|series| !series.figures.is_zero() && !series.labels.contains_key(SHARD))
    }
}

/// The label of series of which there is one for each shard.
const SHARD: &str = "shard";

impl Series {
    /// `a=b c=d`
    pub(crate) fn labels_text(&self) -> String {
        let labels = self.labels.iter().filter(|(_, value)| !value.is_empty());
        labels.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    /// The figures in a line. A gauge that did not change has one value, and the highest rate is left out where no two
    /// scrapes show one.
    fn line(&self) -> String {
        let figures = self.figures_text();
        let said = match self.figures {
            Figures::Gauge { min, max, .. } if min == max => {
                return format!("{} all the time", number(&self.name, min));
            }
            Figures::Counter { per_second_max: 0.0, .. } => &figures[..figures.len() - 1],
            _ => &figures[..],
        };
        said.iter().map(|(what, figure)| format!("{what} {figure}")).collect::<Vec<_>>().join(", ")
    }

    /// The figures with what they are, in the unit that the name says.
    pub(crate) fn figures_text(&self) -> Vec<(&'static str, String)> {
        let value = |value: f64| number(&self.name, value);
        let quantile = |quantile: Quantile| match quantile {
            Quantile::AtMost(bound, _) => format!("at most {}", value(bound)),
            Quantile::About(estimate) => format!("about {}", value(estimate)),
            Quantile::Above(bound) => format!("above {}", value(bound)),
        };
        // A gateway counts whole microseconds, rounded down.
        let mean_of = |mean: f64| match self.name.ends_with("_seconds") && (0.0..1e-6).contains(&mean) {
            true => "below 1 us".to_owned(),
            false => value(mean),
        };
        let none = || "-".to_owned();
        match &self.figures {
            Figures::Counter { total, per_second, per_second_max } => {
                vec![("total", value(*total)), ("per second", value(*per_second)), ("at most", value(*per_second_max))]
            }
            Figures::Gauge { min, mean, max } => {
                vec![("min", value(*min)), ("mean", value(*mean)), ("max", value(*max))]
            }
            Figures::Histogram { count, mean, p50, p99 } => vec![
                ("count", number("", *count)),
                ("mean", mean.map_or_else(none, mean_of)),
                ("p50", p50.map_or_else(none, quantile)),
                ("p99", p99.map_or_else(none, quantile)),
            ],
        }
    }
}

/// A value in the unit that a metric's name ends with, for people.
fn number(name: &str, value: f64) -> String {
    if name.ends_with("_seconds") && (0.0..1e9).contains(&value) && value < 100.0 {
        return human_us((value * 1e6).round() as u64);
    }
    if name.ends_with("_bytes") && value.abs() >= 1024.0 {
        let (unit, size) = [("GiB", 30), ("MiB", 20), ("KiB", 10)]
            .into_iter()
            .map(|(unit, power)| (unit, f64::from(1u32 << power)))
            .find(|(_, size)| value.abs() >= *size)
            .unwrap_or(("B", 1.0));
        return format!("{:.1} {unit}", value / size);
    }
    if value.fract() == 0.0 || value.abs() >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_is_zero_or_absent_then_its_line_is_left_out() {
        let series = |name: &str, figures| Series {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            help: String::new(),
            figures,
        };
        let counter = |total, per_second_max| Figures::Counter { total, per_second: total, per_second_max };
        let gauge = |min, max| Figures::Gauge { min, mean: (min + max) / 2.0, max };
        let series = [
            series("ringgate_a", counter(5.0, 9.0)),
            series("ringgate_b", counter(5.0, 0.0)),
            series("ringgate_c", counter(0.0, 0.0)),
            series("ringgate_d", gauge(0.0, 0.0)),
            series("ringgate_e", gauge(3.0, 3.0)),
            series("ringgate_f", gauge(0.0, 4.0)),
            series(
                "ringgate_g_seconds",
                Figures::Histogram {
                    count: 4.0,
                    mean: Some(0.0),
                    p50: Some(Quantile::AtMost(50e-6, 0.0)),
                    p99: Some(Quantile::About(75e-6)),
                },
            ),
        ];
        let metrics = Metrics { series: series.into(), ..Metrics::default() };
        let lines: Vec<_> =
            metrics.lines()[2..].iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let wanted = [
            "a total 5, per second 5, at most 9",
            "b total 5, per second 5",
            "e 3 all the time",
            "f min 0, mean 2, max 4",
            "g_seconds count 4, mean below 1 us, p50 at most 50 us, p99 about 75 us",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn metric_name_has_a_unit_then_its_value_is_shown_in_it() {
        assert_eq!(number("a_seconds", 0.0025), "2.50 ms");
        assert_eq!(number("a_bytes", 3.5 * 1024.0 * 1024.0), "3.5 MiB");
        assert_eq!(
            (number("a_bytes", 100.0), number("a", 2.719), number("a", 12_345.6)),
            ("100".into(), "2.72".into(), "12346".into())
        );
    }
}
