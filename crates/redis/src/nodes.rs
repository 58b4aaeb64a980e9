//! Which nodes are alive: those whose lease has not ended, by the clock of Redis.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::resp::Value;

#[derive(Debug)]
pub(crate) struct Nodes {
    own: u64,
    /// By run: when the lease ends or ended, in Unix milliseconds of Redis.
    leases: HashMap<u64, u64>,
    /// When the list was read, by both clocks.
    read: Option<(Instant, u64)>,
    alive: String,
}

impl Nodes {
    pub(crate) fn new(own: u64) -> Self {
        Nodes { own, leases: HashMap::new(), read: None, alive: format!("{own:016x}") }
    }

    /// Takes the answer to a lease; says whether this node still has its number. None if it was not understood.
    pub(crate) fn take(&mut self, value: &Value, now: Instant) -> Option<bool> {
        let values = value.array()?;
        let has_number = values.first()?.number()? == 1;
        let redis_ms = values.get(1)?.number()?;
        self.leases.clear();
        for lease in values.get(2..)?.chunks_exact(2) {
            let [run, end] = lease else { return None };
            self.leases.insert(u64::from_str_radix(run.text()?, 16).ok()?, end.text()?.parse::<f64>().ok()? as u64);
        }
        self.read = Some((now, redis_ms));
        let alive = self.leases.iter().filter(|(run, end)| **run != self.own && **end > redis_ms);
        self.alive = alive.fold(format!("{:016x}", self.own), |alive, (run, _)| format!("{alive} {run:016x}"));
        Some(has_number)
    }

    /// This node is alive for itself.
    pub(crate) fn is_alive(&self, run: u64, now: Instant) -> bool {
        let redis_ms = self.redis_ms(now).unwrap_or(0);
        run == self.own || self.leases.get(&run).is_some_and(|end| *end > redis_ms)
    }

    /// The clock of Redis, in Unix milliseconds, or up to a round trip behind it; none before it was first read.
    pub(crate) fn redis_ms(&self, now: Instant) -> Option<u64> {
        self.read.map(|(at, ms)| ms + now.duration_since(at).as_millis() as u64)
    }

    pub(crate) fn is_fresh(&self, now: Instant, age: Duration) -> bool {
        self.read.is_some_and(|(at, _)| now.duration_since(at) <= age)
    }

    /// When the lease of a run ended, in Unix milliseconds; none if that is not known any more.
    pub(crate) fn ended_ms(&self, run: u64) -> Option<u64> {
        self.leases.get(&run).copied()
    }

    /// Runs of nodes that are alive, as text.
    pub(crate) fn alive(&self) -> &str {
        &self.alive
    }
}
