//! Which nodes are alive: those whose lease has not ended, by the clock of the Redis that has the leases. While that one cannot be asked,
//! nobody can renew a lease there, so that none is taken to end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::identity::{LEASE, LEASE_EVERY};
use crate::resp::{Answer, Value};

/// A list that is older than this cannot be read at the moment.
pub(crate) const LIST_AGE_MAX: Duration = LEASE_EVERY.saturating_mul(2);

/// A clock that is ahead of what it was by more than this was set: leases are renewed every five seconds.
const CLOCK_SET_MS: u64 = 5_000;

#[derive(Debug)]
pub(crate) struct Nodes {
    own: u64,
    /// By run: when the lease ends or ended, in Unix milliseconds of Redis.
    leases: HashMap<u64, u64>,
    /// When the list was read, by both clocks.
    read: Option<(Instant, u64)>,
    /// The clock of Redis, as it was told last.
    clock: Option<(Instant, u64)>,
    /// Between the two newest lists this node was not able to renew its lease in time.
    pub(crate) has_lapsed: bool,
    /// Redis was away for as long as a lease lasts, so that no node could renew its own: leases that ended after the second are good
    /// until the first.
    grace: Option<(Instant, u64)>,
    alive: String,
}

impl Nodes {
    pub(crate) fn new(own: u64) -> Self {
        Nodes {
            own,
            leases: HashMap::new(),
            read: None,
            clock: None,
            has_lapsed: false,
            grace: None,
            alive: format!("{own:016x}"),
        }
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
        self.has_lapsed = self.read.is_some_and(|(at, _)| now.duration_since(at) >= LEASE);
        if let Some((_, ms)) = self.read.filter(|_| self.has_lapsed) {
            self.grace = Some((now + LEASE, ms));
        }
        self.read = Some((now, redis_ms));
        self.set_clock(now, redis_ms);
        let least = self.least_end(now).unwrap_or(redis_ms);
        let alive = self.leases.iter().filter(|(run, end)| **run != self.own && **end > least);
        self.alive = alive.fold(format!("{:016x}", self.own), |alive, (run, _)| format!("{alive} {run:016x}"));
        Some(has_number)
    }

    /// Redis has not let this node renew its lease: it lets nobody, and nobody's ends for that.
    pub(crate) fn could_not_renew(&mut self, now: Instant) {
        if let Some((_, ms)) = self.read {
            let since_ms = self.grace.filter(|(until, _)| now < *until).map_or(ms, |(_, since_ms)| since_ms);
            self.grace = Some((now + LEASE, since_ms));
        }
    }

    /// What Redis has just said of its clock, in Unix milliseconds.
    pub(crate) fn set_clock(&mut self, now: Instant, redis_ms: u64) {
        // A server with another clock, or one that was set: nodes renew their leases by it from now on.
        if let Some(before_ms) = self.redis_ms(now).filter(|before_ms| redis_ms > before_ms + CLOCK_SET_MS)
            && self.grace.is_none_or(|(until, _)| now >= until)
        {
            self.grace = Some((now + LEASE, before_ms));
        }
        self.clock = Some((now, redis_ms));
    }

    /// This node is alive for itself.
    pub(crate) fn is_alive(&self, run: u64, now: Instant) -> bool {
        let least = self.least_end(now).unwrap_or(0);
        run == self.own || self.leases.get(&run).is_some_and(|end| *end > least)
    }

    /// Leases that end after this are good.
    fn least_end(&self, now: Instant) -> Option<u64> {
        match self.grace {
            Some((until, since_ms)) if now < until => Some(since_ms),
            // The list is read as often as leases are renewed.
            _ => self.read.map(|(at, ms)| ms + now.duration_since(at).min(LIST_AGE_MAX).as_millis() as u64),
        }
    }

    /// The clock of Redis, in Unix milliseconds, or up to a round trip behind it; none before there was a connection.
    pub(crate) fn redis_ms(&self, now: Instant) -> Option<u64> {
        self.clock.map(|(at, ms)| ms + now.saturating_duration_since(at).as_millis() as u64)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to a lease: the clock of Redis, and the ends of leases.
    fn answer(redis_ms: u64, leases: &[(u64, u64)]) -> Value {
        let text = |text: String| Value::BulkString(text.into_bytes());
        let mut values = vec![Value::Int(1), text(redis_ms.to_string())];
        values.extend(leases.iter().flat_map(|(run, end)| [text(format!("{run:016x}")), text(end.to_string())]));
        Value::Array(values)
    }

    #[test]
    fn lease_ends_then_the_node_is_away_unless_redis_was_away_for_so_long_that_nobody_could_renew() {
        let (mut nodes, start) = (Nodes::new(1), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        nodes.take(&answer(100_000, &[(2, 108_000), (3, 101_000)]), at(0));
        assert_eq!(
            [nodes.is_alive(2, at(7)), nodes.is_alive(2, at(8)), nodes.is_alive(3, at(1))],
            [true, false, false]
        );
        // Node 3 ended before Redis was gone, node 2 may be about to renew its lease.
        nodes.take(&answer(102_000, &[(2, 115_000), (3, 101_000)]), at(2));
        nodes.take(&answer(140_000, &[(2, 115_000), (3, 101_000)]), at(40));
        assert_eq!((nodes.is_alive(2, at(40)), nodes.is_alive(3, at(40))), (true, false));
        assert!(nodes.alive().contains("0000000000000002") && !nodes.alive().contains("0000000000000003"));
        assert!(!nodes.is_alive(2, at(56)), "it has not come back");
        nodes.take(&answer(145_000, &[(2, 150_000), (3, 101_000)]), at(45));
        assert_eq!((nodes.is_alive(2, at(49)), nodes.is_alive(2, at(56))), (true, false));
    }

    #[test]
    fn list_cannot_be_read_then_no_lease_ends() {
        let (mut nodes, start) = (Nodes::new(1), Instant::now());
        nodes.take(&answer(100_000, &[(2, 115_000)]), start);
        assert!(nodes.is_alive(2, start + Duration::from_secs(3600)));
        assert!(!nodes.is_fresh(start + Duration::from_secs(11), LIST_AGE_MAX));
    }

    #[test]
    fn clock_of_redis_is_set_ahead_then_nobody_ends_before_there_was_time_to_renew_by_it() {
        let (mut nodes, start) = (Nodes::new(1), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let leases = [(2, 115_000), (3, 101_000)];
        nodes.take(&answer(100_000, &leases), at(0));
        nodes.set_clock(at(5), 3_700_000);
        nodes.take(&answer(3_700_000, &leases), at(5));
        assert_eq!([2, 3].map(|run| nodes.is_alive(run, at(19))), [true, false]);
        assert!(nodes.alive().contains("0000000000000002") && !nodes.alive().contains("0000000000000003"));
        assert!(!nodes.is_alive(2, at(20)), "it has not renewed its lease");
    }

    #[test]
    fn redis_refuses_to_renew_leases_then_nobody_ends_for_that_but_those_that_had_ended_before() {
        let (mut nodes, start) = (Nodes::new(1), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        nodes.take(&answer(100_000, &[(2, 105_000), (3, 99_000)]), at(0));
        for seconds in [3, 12, 24] {
            nodes.could_not_renew(at(seconds));
            let alive = [2, 3].map(|run| nodes.is_alive(run, at(seconds + 14)));
            assert_eq!(alive, [true, false], "after {seconds} s");
        }
        assert!(!nodes.is_alive(2, at(40)), "it is not heard of any more");
    }
}
