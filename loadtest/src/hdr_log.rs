//! The interval log of HdrHistogram, version 1.3: what existing plotters and `HistogramLogProcessor` read.
//!
//! The format has no unit. Those tools take values to be nanoseconds, and show milliseconds, where nobody tells them
//! otherwise: so nanoseconds are written, and the longest of an interval stands before its histogram in milliseconds.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::record::{Measure, Record};

const NS_PER_MS: f64 = 1e6;
const NS_PER_US: u64 = 1_000;
/// As the original writes it.
const LEGEND: &[u8] = b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// A log that grows by one line per interval and measure. Values are nanoseconds, from the planned time.
pub(crate) struct HdrLog {
    path: PathBuf,
    out: BufWriter<File>,
    serializer: V2DeflateSerializer,
    failed: Option<String>,
}

impl HdrLog {
    /// Creates the file and writes the head.
    pub(crate) fn create(path: &Path) -> Result<HdrLog, String> {
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut log = HdrLog {
            path: path.to_owned(),
            out: BufWriter::new(file),
            serializer: V2DeflateSerializer::new(),
            failed: None,
        };
        let started = SystemTime::now();
        let mut builder = IntervalLogWriterBuilder::new();
        builder
            .add_comment("ringgate-loadtest; nanoseconds from the planned time, Interval_Max in milliseconds")
            .with_start_time(started)
            .with_base_time(started)
            .with_max_value_divisor(NS_PER_MS);
        let begun = builder.begin_log_with(&mut log.out, &mut log.serializer).map(|_| ());
        begun.and_then(|()| log.out.write_all(LEGEND)).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(log)
    }

    /// One interval; measures without a value are left out.
    pub(crate) fn write(&mut self, start: Duration, length: Duration, record: &Record) {
        for measure in Measure::ALL {
            let latency = record.of(measure);
            let histogram = &latency.planned;
            if histogram.is_empty() || self.failed.is_some() {
                continue;
            }
            // The writer without its head: that stands in the file already.
            let mut line = Vec::new();
            let written = IntervalLogWriterBuilder::new()
                .with_max_value_divisor(NS_PER_MS)
                .begin_log_with(&mut line, &mut self.serializer)
                .map_err(|error| error.to_string())
                .and_then(|mut writer| {
                    let tag = Tag::new(measure.label());
                    writer.write_histogram(&in_ns(histogram), start, length, tag).map_err(|error| format!("{error:?}"))
                });
            let lines = line.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
            for line in lines {
                let result = self.out.write_all(line).and_then(|()| self.out.write_all(b"\n"));
                if let Err(error) = result {
                    self.failed = Some(error.to_string());
                }
            }
            if let Err(error) = written {
                self.failed = Some(error);
            }
        }
        // A reader of the file, also after the process was killed, finds every interval that is over.
        if let Err(error) = self.out.flush() {
            self.failed.get_or_insert(error.to_string());
        }
    }

    /// Writes out what is buffered; the first error of the run, if there was one.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        let flushed = self.out.flush().map_err(|error| error.to_string());
        match self.failed.map_or(flushed, Err) {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }
}

/// What was recorded in microseconds, in nanoseconds.
fn in_ns(histogram: &Histogram<u64>) -> Histogram<u64> {
    let (low, high) = (histogram.low() * NS_PER_US, histogram.high() * NS_PER_US);
    let mut out = Histogram::new_with_bounds(low, high, histogram.sigfig())
        .unwrap_or_else(|_| unreachable!("a thousand times the bounds of every histogram here are good, too"));
    for value in histogram.iter_recorded() {
        out.saturating_record_n(value.value_iterated_to() * NS_PER_US, value.count_since_last_iteration());
    }
    out
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::record::Series;

    #[test]
    fn intervals_are_in_nanoseconds_and_their_longest_in_milliseconds() {
        let path = std::env::temp_dir().join(format!("ringgate-hdr-log-{}", std::process::id()));
        let mut log = HdrLog::create(&path).unwrap();
        let mut record = Record::default();
        [100, 200, 2_000].into_iter().for_each(|us| record.record(Measure::Deliver, Series::Stream(1), 0, 0, us));
        log.write(Duration::from_secs(3), Duration::from_secs(1), &record);
        let written = std::fs::read(&path).unwrap();
        log.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), written, "an interval that is over is in the file");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("#[StartTime: ") && text.contains("#[MaxValueDivisor: 1000000.000]"), "{text}");
        let intervals: Vec<_> = IntervalLogIterator::new(&bytes)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        let [interval] = intervals.as_slice() else { panic!("{text}") };
        assert_eq!((interval.start_timestamp(), interval.duration()), (Duration::from_secs(3), Duration::from_secs(1)));
        assert!((interval.max() - 2.0).abs() < 0.01, "{text}");
        use base64::Engine;
        let packed = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).unwrap();
        let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut packed.as_slice()).unwrap();
        assert_eq!(histogram.len(), 3);
        assert!(histogram.value_at_quantile(0.5).abs_diff(200_000) < 500, "{}", histogram.value_at_quantile(0.5));
    }
}
