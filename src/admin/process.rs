//! What the kernel knows of this process, under the names that every Prometheus client library uses.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// USER_HZ, the unit of times in /proc, which is 100 on every Linux that has io_uring.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads /proc/self when asked; what cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(seconds) = cpu_seconds() {
            let help = "User and system CPU time";
            let encoder = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(encoder)?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory", bytes_of(&status, "VmRSS:")),
            ("process_anonymous_memory_bytes", "Resident memory that is no file's", bytes_of(&status, "RssAnon:")),
            ("process_open_fds", "Open descriptors; slots of rings are none", open_descriptors()),
            ("process_max_fds", "Limit of open descriptors", descriptors_max()),
            ("process_threads", "Threads", number_of(&status, "Threads:")),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in brackets, which may hold anything; utime and stime are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// The first number of a line in /proc/self/status, or in a file like it.
fn number_of(status: &str, field: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

fn bytes_of(status: &str, field: &str) -> Option<i64> {
    number_of(status, field).map(|kib| kib * 1024)
}

fn open_descriptors() -> Option<i64> {
    // One of them reads this folder.
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as i64 - 1)
}

fn descriptors_max() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    number_of(&limits, "Max open files")
}
