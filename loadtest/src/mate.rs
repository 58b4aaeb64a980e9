//! A worker, as its controller sees it during a run.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Clock;

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
    /// One that has said nothing yet.
    pub(crate) fn new(address: SocketAddr, clock: Clock) -> Mate {
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

    /// What it says of itself.
    pub(crate) fn set_load(&self, cpu_ns: u64, threads: usize) {
        self.cpu_ns.store(cpu_ns, Relaxed);
        self.threads.store(threads, Relaxed);
    }
}
