//! Latencies as a table for spreadsheets: a row for each phase, stream or population, and measure.
//!
//! The columns are described in docs/loadtest-report.md.

use super::Report;
use crate::record::{Quantiles, Record};

const HEAD: &str = "phase,name,measure,count,p50_us,p90_us,p95_us,p99_us,p999_us,max_us,mean_us,\
                    uncorrected_p50_us,uncorrected_p99_us,uncorrected_max_us\n";

impl Report {
    /// See the module.
    pub(crate) fn csv(&self) -> String {
        let mut out = HEAD.to_owned();
        let phases = self.phases.iter().map(|phase| (phase.name.as_str(), &phase.record));
        for (phase, record) in std::iter::once(("", &self.record)).chain(phases) {
            self.rows(phase, record, &mut out);
        }
        out
    }

    fn rows(&self, phase: &str, record: &Record, out: &mut String) {
        for timed in self.timed(record) {
            let (planned, sent) = (Quantiles::from(&timed.latency.planned), Quantiles::from(&timed.latency.sent));
            let texts = [phase, timed.name.unwrap_or_default(), timed.measure.label()].map(quoted);
            let Quantiles { count, p50, p90, p95, p99, p999, max, mean } = planned;
            let figures = [count, p50, p90, p95, p99, p999, max].map(|figure| figure.to_string());
            let uncorrected = [sent.p50, sent.p99, sent.max].map(|figure| figure.to_string());
            let mean = format!("{mean:.1}");
            *out += &[&texts[..], &figures, &[mean], &uncorrected].concat().join(",");
            out.push('\n');
        }
    }
}

/// As RFC 4180 wants it.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Measure, Names, Series};
    use crate::report::Phase;
    use crate::report::tests::phase;

    #[test]
    fn report_has_phases_and_streams_then_each_measure_has_its_row() {
        let mut report = Report { names: Names::single("p2p", Some(false)), ..Report::default() };
        report.record.record(Measure::Deliver, Series::Stream(1), 0, 300, 500);
        report.record.record(Measure::Ping, Series::Population(0), 0, 0, 40);
        report.phases.push(Phase { record: report.record.clone(), ..phase("on, \"off\"", 0.1) });
        let text = report.csv();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], HEAD.trim_end());
        assert_eq!(rows[1], ",,ping,1,40,40,40,40,40,40,40.0,40,40,40");
        assert_eq!(rows[2], ",p2p,ping,1,40,40,40,40,40,40,40.0,40,40,40");
        assert_eq!(rows[4], ",p2p,deliver,1,500,500,500,500,500,500,500.0,200,200,200");
        assert_eq!(rows[8], "\"on, \"\"off\"\"\",p2p,deliver,1,500,500,500,500,500,500,500.0,200,200,200");
        assert_eq!(rows.len(), 9);
    }
}
