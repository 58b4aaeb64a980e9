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
        if let Some(seconds) = start_time_seconds() {
            let help = "When the process was started, in Unix seconds";
            let encoder = encoder.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?;
            ConstGauge::new(seconds).encode(encoder)?;
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

/// Fields of a `stat` file, as proc(5) numbers them. The second is the name in brackets, which may hold anything.
fn stat_fields(stat: &str, numbers: &[usize]) -> Option<f64> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = numbers.iter().map(|number| fields.get(number - 3)?.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// utime and stime are fields 14 and 15.
fn cpu_seconds() -> Option<f64> {
    stat_fields(&fs::read_to_string("/proc/self/stat").ok()?, &[14, 15])
}

/// starttime is field 22, and counts from the boot.
fn start_time_seconds() -> Option<f64> {
    let since_boot = stat_fields(&fs::read_to_string("/proc/self/stat").ok()?, &[22])?;
    let booted = number_of(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
    Some(booted as f64 + since_boot)
}

/// CPU time of a thread of this process; none for thread 0, or for one that has ended. `schedstat` has nanoseconds; kernels
/// without it count in ticks.
pub(super) fn thread_cpu_seconds(thread: u64) -> Option<f64> {
    if thread == 0 {
        return None;
    }
    let folder = format!("/proc/self/task/{thread}");
    let exact = fs::read_to_string(format!("{folder}/schedstat")).ok();
    let exact = exact.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    match exact {
        Some(ns) => Some(ns as f64 / 1e9),
        None => stat_fields(&fs::read_to_string(format!("{folder}/stat")).ok()?, &[14, 15]),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_process_has_brackets_and_blanks_then_fields_are_counted_behind_it() {
        // Field 3 is the state; fields 4 to 22 are their numbers here.
        let fields: Vec<_> = (4..=22).map(|number| number.to_string()).collect();
        let stat = format!("7 (a) S 1) S {}", fields.join(" "));
        assert_eq!(stat_fields(&stat, &[14, 15]), Some(0.29));
        assert_eq!(stat_fields(&stat, &[22]), Some(0.22));
        assert_eq!((stat_fields(&stat, &[23]), stat_fields("7", &[14])), (None, None));
    }

    #[test]
    fn thread_has_run_then_its_cpu_time_grows() {
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u64;
        let before = thread_cpu_seconds(thread).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while thread_cpu_seconds(thread).unwrap() <= before {
            assert!(std::time::Instant::now() < deadline, "it stays at {before} s");
        }
        assert_eq!((thread_cpu_seconds(0), thread_cpu_seconds(u64::MAX)), (None, None));
    }
}
