//! The interval log of HdrHistogram, version 1.3: what existing plotters and `HistogramLogProcessor` read.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::record::{Measure, Record};

/// A log that grows by one line per interval and measure. Values are microseconds, from the planned time.
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
            .add_comment("ringgate-loadtest; microseconds from the planned time")
            .with_start_time(started)
            .with_base_time(started)
            .with_max_value_divisor(1.0);
        builder
            .begin_log_with(&mut log.out, &mut log.serializer)
            .map(|_| ())
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(log)
    }

    /// One interval; measures without a value are left out.
    pub(crate) fn write(&mut self, start: Duration, length: Duration, record: &Record) {
        for measure in Measure::ALL {
            let histogram = &record.of(measure).planned;
            if histogram.is_empty() || self.failed.is_some() {
                continue;
            }
            // The writer without its head: that stands in the file already.
            let mut line = Vec::new();
            let written = IntervalLogWriterBuilder::new()
                .begin_log_with(&mut line, &mut self.serializer)
                .map_err(|error| error.to_string())
                .and_then(|mut writer| {
                    let tag = Tag::new(measure.label());
                    writer.write_histogram(histogram, start, length, tag).map_err(|error| format!("{error:?}"))
                });
            let lines = line.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
            for line in lines {
                let result = std::io::Write::write_all(&mut self.out, line)
                    .and_then(|()| std::io::Write::write_all(&mut self.out, b"\n"));
                if let Err(error) = result {
                    self.failed = Some(error.to_string());
                }
            }
            if let Err(error) = written {
                self.failed = Some(error);
            }
        }
    }

    /// Writes out what is buffered; the first error of the run, if there was one.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        let flushed = std::io::Write::flush(&mut self.out).map_err(|error| error.to_string());
        match self.failed.map_or(flushed, Err) {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }
}
