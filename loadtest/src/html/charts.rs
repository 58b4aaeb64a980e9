//! Which charts a report has.

use hdrhistogram::Histogram;

use super::chart::{Axis, Chart, Series};
use super::grouped;
use super::scale::Scale;
use crate::finding::{Finding, Trial};
use crate::record::{Latency, Measure, Quantiles, human_us};
use crate::report::Report;
use crate::timeline::Point;

/// A line: its name, and its value at a point of the timeline.
type Line<'a> = (&'a str, &'a dyn Fn(&Point) -> Option<f64>);

/// Charts over time, those without a value left out.
pub(super) fn over_time(report: &Report) -> Vec<Chart> {
    let time = TimeAxis::of(report);
    let latency = |pick: fn(&Point) -> u64| move |point: &Point| (point.latency.count > 0).then(|| pick(point) as f64);
    let (p50, p99) = (latency(|point| point.latency.p50), latency(|point| point.latency.p99));
    let (p999, max) = (latency(|point| point.latency.p999), latency(|point| point.latency.max));
    let rate = |pick: fn(&Point) -> u64| {
        move |point: &Point| (point.seconds > 0.0).then(|| pick(point) as f64 / point.seconds)
    };
    let count = |pick: fn(&Point) -> u64| move |point: &Point| Some(pick(point) as f64);
    let no_messages = report.tally.sent == 0;
    let all = [
        time.chart(
            "latency",
            &format!("Latency over time: {}", report.main().label()),
            "Each point is one interval, measured from the planned send time: low and flat is good, and a jump shows when \
             something got slow. The scale is by factors of ten.",
            Axis { label: "latency".to_owned(), scale: Scale::Log, format: short_us },
            &[("p50", &p50), ("p99", &p99), ("p99.9", &p999), ("max", &max)],
        ),
        time.chart(
            "throughput",
            "Throughput over time",
            reading_of_throughput(report),
            Axis { label: "per second".to_owned(), scale: Scale::Linear, format: grouped },
            &[
                ("planned", &rate(|point| point.planned)),
                ("sent", &rate(|point| point.sent)),
                ("accepted", &rate(|point| point.accepted)),
                ("delivered", &rate(|point| point.delivered)),
                // Heartbeats beside messages would be a line at the bottom that says nothing.
                ("pongs", &move |point| no_messages.then(|| rate(|point| point.pongs)(point)).flatten()),
            ],
        ),
        time.chart(
            "connections",
            "Connections over time",
            "Signed-in connections should rise to what was asked for and stay there.",
            Axis { label: "connections".to_owned(), scale: Scale::Linear, format: grouped },
            &[("signed in", &count(|point| point.connections)), ("connecting", &count(|point| point.connecting))],
        ),
        time.chart(
            "errors",
            "Errors and closes over time",
            "Any line above zero is trouble; the table above says which.",
            Axis { label: "per interval".to_owned(), scale: Scale::Linear, format: grouped },
            &[
                ("errors", &count(|point| point.errors)),
                ("closed unasked", &count(|point| point.closed)),
                ("refused", &count(|point| point.refused)),
            ],
        ),
        time.chart(
            "cpu",
            "CPU over time",
            "1 is one core's whole time; when the load tester uses all of its cores, it is the limit, and not the gateway.",
            Axis { label: "cores in use".to_owned(), scale: Scale::Linear, format: grouped },
            &[("this load tester", &|point| Some(point.driver_cores)), ("gateway", &|point| point.gateway_cores)],
        ),
        time.chart(
            "memory",
            "Memory of the gateway over time",
            "It grows with connections and with messages that wait; when it goes on growing while neither does, something \
             is kept that should not be.",
            Axis { label: "MiB".to_owned(), scale: Scale::Linear, format: grouped },
            &[("gateway", &|point| Some(point.gateway_bytes? as f64 / f64::from(1 << 20)))],
        ),
    ];
    all.into_iter().flatten().collect()
}

/// What is true of the lines depends on whether there was a plan, and on whether messages or only Pings were sent.
fn reading_of_throughput(report: &Report) -> &'static str {
    let planned = report.timeline.iter().any(|point| point.planned > 0);
    match (planned, report.closed_loops, report.tally.sent > 0) {
        (true, false, true) => {
            "What was sent should lie on what was planned, and what was accepted on what was sent; a message to a room is \
             delivered to each member."
        }
        (true, false, false) => "What was sent should lie on what was planned, and Pongs on what was sent.",
        (true, true, _) => {
            "What was sent lies above what was planned: a part of the clients has no plan, but sends when it has its answer \
             and has thought."
        }
        (false, true, true) => {
            "Nothing was planned: clients send when they have their answer and have thought. What was accepted should lie on \
             what was sent; a message to a room is delivered to each member."
        }
        (false, true, false) => {
            "Nothing was planned: clients send their next Ping when they have their Pong and have thought. Pongs should lie on \
             what was sent."
        }
        (false, false, _) => "Nothing was sent but heartbeats, which Pongs answer.",
    }
}

/// How time is written: in the unit in which a run of this length is not all zeros or thousands.
struct TimeAxis<'a> {
    report: &'a Report,
    unit: &'static str,
    unit_seconds: f64,
}

impl TimeAxis<'_> {
    fn of(report: &Report) -> TimeAxis<'_> {
        let (unit, unit_seconds) = match report.seconds {
            seconds if seconds <= 300.0 => ("seconds", 1.0),
            seconds if seconds <= 4.0 * 3600.0 => ("minutes", 60.0),
            _ => ("hours", 3600.0),
        };
        TimeAxis { report, unit, unit_seconds }
    }

    /// None when there is nothing but zeros to show. Lines that are zero all the time are left out, except the first.
    fn chart(&self, id: &str, title: &str, reading: &'static str, y: Axis, lines: &[Line<'_>]) -> Option<Chart> {
        let timeline = &self.report.timeline;
        let all = lines.iter().map(|(name, value)| Series {
            name: (*name).to_owned(),
            points: timeline.iter().map(|point| (point.at / self.unit_seconds, value(point))).collect(),
        });
        let says_something =
            |series: &Series| series.points.iter().any(|(_, value)| value.is_some_and(|value| value > 0.0));
        let series: Vec<Series> = all.filter(says_something).collect();
        if series.is_empty() {
            return None;
        }
        let mut begins = 0.0;
        let marks = self.report.phases.iter().map(|phase| {
            let at = begins / self.unit_seconds;
            begins += phase.seconds;
            (at, phase.name.clone())
        });
        Some(Chart {
            id: id.to_owned(),
            title: title.to_owned(),
            reading,
            x: Axis { label: format!("time since the start ({})", self.unit), scale: Scale::Exact, format: grouped },
            y,
            series,
            marks: marks.collect(),
        })
    }
}

/// Latency by rate, of a search for a capacity; nothing if nothing was timed.
pub(super) fn by_rate(finding: &Finding) -> Option<Chart> {
    let trials = finding.sorted();
    if trials.iter().all(|trial| trial.latency_us.count == 0) {
        return None;
    }
    let line = |name: &str, pick: fn(&Quantiles) -> u64| {
        let value = |trial: &Trial| (trial.latency_us.count > 0).then(|| pick(&trial.latency_us) as f64);
        Series { name: name.to_owned(), points: trials.iter().map(|trial| (trial.rate, value(trial))).collect() }
    };
    Some(Chart {
        id: "by-rate".to_owned(),
        title: "Latency by rate".to_owned(),
        reading: "Where the lines turn up, something is at its limit; the table says whether that is the gateway.",
        x: Axis { label: "per second".to_owned(), scale: Scale::Linear, format: grouped },
        y: Axis { label: "latency".to_owned(), scale: Scale::Log, format: short_us },
        series: vec![line("p50", |of| of.p50), line("p99", |of| of.p99), line("max", |of| of.max)],
        marks: Vec::new(),
    })
}

/// A percentile curve for each thing that was timed, the most interesting first.
pub(super) fn percentiles(report: &Report) -> Vec<Chart> {
    let main = report.main();
    let rest = Measure::ALL.into_iter().filter(|measure| *measure != main);
    let measured = std::iter::once(main).chain(rest).filter(|measure| report.record.has(*measure));
    measured.map(|measure| percentile_chart(measure, &report.record.of(measure))).collect()
}

fn percentile_chart(measure: Measure, latency: &Latency) -> Chart {
    let line = |name: &str, histogram: &Histogram<u64>| Series { name: name.to_owned(), points: curve(histogram) };
    Chart {
        id: format!("percentiles-{}", measure.label()),
        title: format!("Latency by percentile: {}", measure.label()),
        reading: "Above 99 % stands the time within which 99 of 100 were done. The further right, the rarer; where the \
                  corrected line rises above the uncorrected one, messages were sent late because something stalled.",
        x: Axis { label: "percentile".to_owned(), scale: Scale::Percentile, format: percent },
        y: Axis { label: "latency".to_owned(), scale: Scale::Log, format: short_us },
        series: vec![line("corrected", &latency.planned), line("uncorrected", &latency.sent)],
        marks: Vec::new(),
    }
}

/// Points of a percentile curve, equally far apart on its axis, up to the share that one value makes.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, Option<f64>)> {
    const PER_NINE: u32 = 12;
    let end = ((histogram.len() as f64).log10() * f64::from(PER_NINE)).ceil() as u32;
    let shares = (0..=end).map(|step| 1.0 - 0.1f64.powf(f64::from(step) / f64::from(PER_NINE)));
    shares.map(|share| (share, Some(histogram.value_at_quantile(share) as f64))).collect()
}

/// A share as percent, with as many nines as it has.
fn percent(share: f64) -> String {
    let decimals = (-(1.0 - share).log10() - 2.0).ceil().clamp(0.0, 9.0) as usize;
    let text = format!("{:.*}", decimals + 1, share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Durations on axes: no more digits than needed.
fn short_us(us: f64) -> String {
    human_us(us.round() as u64).replace(".00 ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_labelled_then_it_has_its_nines() {
        let texts: Vec<_> = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.96875].into_iter().map(percent).collect();
        assert_eq!(texts, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "96.9 %"]);
    }

    #[test]
    fn curve_is_drawn_then_it_ends_with_the_maximum() {
        let mut histogram = crate::record::histogram();
        assert_eq!(curve(&histogram), [(0.0, Some(0.0))]);
        (1..=1000).for_each(|value| histogram.record(value).unwrap());
        let points = curve(&histogram);
        assert_eq!((points.len(), points[36].1), (37, Some(999.0)));
        assert!((points[36].0 - 0.999).abs() < 1e-9);
        assert_eq!((short_us(1_000.0), short_us(2_500_000.0)), ("1 ms".to_owned(), "2.50 s".to_owned()));
    }
}
