//! Several driver processes, also on several hosts: a controller that runs the show, and workers that have the clients.
//!
//! The controller tells every worker the same: what the run is made of, which part of it is whose, when its zero is, and
//! each order. Schedules are computed alike everywhere, so that nobody has to be told who sends what. Keys and
//! certificates do not travel: every worker has its own.
//!
//! | file | what |
//! |---|---|
//! | `wire`, `packed` | what the processes say to each other; histograms in text |
//! | `clock` | how far a worker's clock is from the controller's |
//! | `muster` | the controller waits for its workers |
//! | `relay` | the controller's end of one worker during a run |
//! | `worker` | a worker |

mod clock;
mod muster;
mod packed;
mod relay;
mod wire;
pub(crate) mod worker;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::Outcome;
use crate::load::Load;
pub(crate) use clock::Clock;
pub(crate) use muster::{Crew, Muster};

/// A worker, as its controller sees it.
#[derive(Debug)]
pub(crate) struct Mate {
    /// Where it connected from.
    pub(crate) address: SocketAddr,
    /// Its clock.
    pub(crate) clock: Clock,
    cpu_ns: AtomicU64,
    threads: AtomicUsize,
}

impl Mate {
    fn new(address: SocketAddr, clock: Clock) -> Mate {
        Mate { address, clock, cpu_ns: AtomicU64::new(0), threads: AtomicUsize::new(0) }
    }

    /// CPU time so far, and driver threads.
    pub(crate) fn load(&self) -> (Duration, usize) {
        (Duration::from_nanos(self.cpu_ns.load(Relaxed)), self.threads.load(Relaxed).max(1))
    }

    /// Whether it has begun.
    pub(crate) fn is_ready(&self) -> bool {
        self.threads.load(Relaxed) > 0
    }

    fn set_load(&self, cpu_ns: u64, threads: usize) {
        self.cpu_ns.store(cpu_ns, Relaxed);
        self.threads.store(threads, Relaxed);
    }
}

/// Options of `controller`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Where workers connect to; port 0 takes a free one, and says which.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7499")]
    listen: String,
    /// Begin when there are so many workers.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = crate::number::count_u32(1..=256))]
    workers: u32,
    #[command(subcommand)]
    load: Load,
}

/// Runs a load with workers, reports, and writes what was asked for.
pub(crate) fn control(options: &Options) -> Result<Outcome, String> {
    let muster = Muster::bind(&options.listen, options.workers as usize)?;
    options.load.run(Some(muster))
}
