//! What all benches share: criterion's settings, the clock, and the allocator of the gateway.
//!
//! The clock is the CPU time of the measuring thread: on a machine that others use, too, it leaves out what they take.
//! Where two threads work together, the benches say that they measure elapsed time.
#![allow(dead_code, reason = "each bench takes what it needs")]

use std::path::PathBuf;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Criterion with our clock.
pub(crate) type Criterion = criterion::Criterion<CpuTime>;

/// CPU time of the calling thread.
pub(crate) struct CpuTime;

/// A reading of the clock.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, start: Duration) -> Duration {
        cpu_time() - start
    }

    fn add(&self, first: &Duration, second: &Duration) -> Duration {
        *first + *second
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Moderate times: the whole of `cargo bench -p ringgate-bench` is to stay below ten minutes.
pub(crate) fn settings() -> Criterion {
    criterion::Criterion::default()
        .with_measurement(CpuTime)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .without_plots()
        .configure_from_args()
}

/// Whether each bench runs once, to see that it works: only `cargo bench` says `--bench`, and `-- --test` takes it back.
pub(crate) fn is_test() -> bool {
    let said = |what: &str| std::env::args().any(|argument| argument == what);
    !said("--bench") || said("--test")
}

/// Where criterion writes.
pub(crate) fn output_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a program has a path");
    // target/release/deps/PROGRAM
    program.ancestors().nth(3).expect("cargo's folders").join("criterion")
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
