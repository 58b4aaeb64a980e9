//! What one run of the matrix has shown, and which of the promises it broke.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::workload::Workload;

/// One load against one gateway.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) workload: Workload,
    pub(super) shards: usize,
    /// The load as a multiple of the capacity.
    pub(super) factor: f64,
    /// The capacity was not measured as one client after another asks, but the load is given by the workload.
    pub(super) fixed: bool,
    /// Units a second while the gateway was only given what it could do at once.
    pub(super) capacity: f64,
    /// Units a second that the requests would have brought that were made, or withheld by clients whose socket was full.
    pub(super) offered: f64,
    /// Units a second of the requests that were written into sockets.
    pub(super) sent: f64,
    /// Units a second that reached clients.
    pub(super) goodput: f64,
    /// Requests a second that were refused.
    pub(super) refused: f64,
    pub(super) refusals: BTreeMap<String, u64>,
    /// Connections that ended although the client read.
    pub(super) closes: BTreeMap<String, u64>,
    /// Resident bytes of the gateway: before the load, and the most since.
    pub(super) resident: [u64; 2],
    /// By how much they may grow.
    pub(super) growth_max: u64,
    /// Longest wait of a bystander for its Pong.
    pub(super) pong: Duration,
    /// Longest time that the driver was kept from looking for it.
    pub(super) late: Duration,
    /// From the end of the load until messages and Pongs were quick again; none if that was not waited for any longer.
    pub(super) recovered: Option<Duration>,
    /// From the end of the load until nothing was queued any more.
    pub(super) emptied: Option<Duration>,
    /// What the driver itself could not do.
    pub(super) faults: Vec<String>,
}

/// What is asked of every row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promises {
    /// Goodput of every load beyond the capacity, as a part of the best one of the same workload and number of shards, or of
    /// what was offered if that is less.
    pub(super) goodput_min: f64,
    pub(super) pong_max: Duration,
    /// After the load.
    pub(super) recovery_max: Duration,
}

impl Promises {
    /// Of the matrix.
    pub(super) const FULL: Promises =
        Promises { goodput_min: 0.8, pong_max: Duration::from_secs(1), recovery_max: Duration::from_secs(2) };
    /// Of the short form, which runs beside other tests on small machines.
    pub(super) const SHORT: Promises =
        Promises { goodput_min: 0.6, pong_max: Duration::from_secs(1), recovery_max: Duration::from_secs(10) };
}

/// A factor counts as reached when the driver offered so much of it.
const REACHED: f64 = 0.9;

impl Row {
    /// The multiple of the capacity that was really offered.
    pub(super) fn held(&self) -> f64 {
        self.offered / self.capacity.max(1.0)
    }

    /// The driver could not offer what was planned.
    pub(super) fn is_short(&self) -> bool {
        !self.fixed && self.held() < REACHED * self.factor
    }

    fn growth(&self) -> u64 {
        let [before, most] = self.resident;
        most.saturating_sub(before)
    }

    /// What it breaks of the promises. `best` is the best goodput of this workload and number of shards.
    pub(super) fn broken(&self, best: f64, promises: &Promises) -> Vec<String> {
        let mut broken = Vec::new();
        // What was not asked for cannot come. Up to the capacity goodput is what was offered, which says nothing.
        let possible = best.min(self.offered);
        if (self.fixed || self.factor > 1.0) && self.goodput < promises.goodput_min * possible {
            let (part, min) = (100.0 * self.goodput / possible.max(1.0), 100.0 * promises.goodput_min);
            broken.push(format!("goodput is {part:.0} % of what was possible, at least {min:.0} % are asked for"));
        }
        if !self.closes.is_empty() {
            broken.push(format!("clients that read were closed: {}", listed(&self.closes)));
        }
        if self.growth() > self.growth_max {
            broken.push(format!("memory grew by {}, at most {} are allowed", mib(self.growth()), mib(self.growth_max)));
        }
        let pong = self.pong.saturating_sub(self.late);
        if pong > promises.pong_max {
            broken.push(format!("a bystander waited {:.2} s for its Pong", pong.as_secs_f64()));
        }
        let limit = promises.recovery_max.as_secs_f64();
        match self.recovered {
            Some(after) if after <= promises.recovery_max => {}
            Some(after) => broken
                .push(format!("quick again only {:.1} s after the load, not within {limit} s", after.as_secs_f64())),
            None => broken.push("not quick again after the load".to_owned()),
        }
        match self.emptied {
            Some(after) if after <= promises.recovery_max => {}
            Some(after) => {
                broken.push(format!("deliveries were queued until {:.1} s after the load", after.as_secs_f64()))
            }
            None => broken.push("deliveries stayed queued after the load".to_owned()),
        }
        broken.extend(self.faults.iter().cloned());
        broken
    }

    /// For programs; rates in units a second, times in seconds, memory in bytes.
    pub(super) fn json(&self, best: f64, promises: &Promises) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        json!({
            "workload": self.workload.name(),
            "shards": self.shards,
            "factor": self.factor,
            "factor_offered": self.held(),
            "driver_was_the_limit": self.is_short(),
            "capacity": self.capacity,
            "offered": self.offered,
            "sent": self.sent,
            "goodput": self.goodput,
            "goodput_of_best": self.goodput / best.max(1.0),
            "refused": self.refused,
            "refusals": self.refusals,
            "closes": self.closes,
            "resident_before_bytes": self.resident[0],
            "resident_max_bytes": self.resident[1],
            "growth_max_bytes": self.growth_max,
            "pong_max_seconds": self.pong.as_secs_f64(),
            "driver_late_seconds": self.late.as_secs_f64(),
            "recovered_after_seconds": seconds(self.recovered),
            "emptied_after_seconds": seconds(self.emptied),
            "broken": self.broken(best, promises),
        })
    }

    /// One line of the table.
    pub(super) fn line(&self, best: f64, promises: &Promises) -> String {
        let seconds =
            |time: Option<Duration>| time.map_or("never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        let factor = if self.fixed { "fixed".to_owned() } else { format!("{}x", self.factor) };
        let broken = self.broken(best, promises);
        let mut line = format!(
            "{:<14} {:>6} {factor:>6} {:>7} {:>10} {:>10} {:>5.0} % {:>9} {:>6} {:>8} {:>8} {:>7} {:>7}  {}",
            self.workload.name(),
            self.shards,
            format!("{:.1}x", self.held()),
            rate(self.sent),
            rate(self.goodput),
            100.0 * self.goodput / best.max(1.0),
            rate(self.refused),
            self.closes.values().sum::<u64>(),
            mib(self.growth()),
            format!("{:.0} ms", 1000.0 * self.pong.as_secs_f64()),
            seconds(self.recovered),
            seconds(self.emptied),
            if broken.is_empty() { "good" } else { "BROKEN" },
        );
        for text in &broken {
            line.push_str(&format!("\n    ! {text}"));
        }
        if self.is_short() {
            line.push_str(&format!("\n    the driver offered {:.1}x, no more", self.held()));
        }
        line
    }
}

/// Above the table.
pub(super) fn head() -> String {
    format!(
        "{:<14} {:>6} {:>6} {:>7} {:>10} {:>10} {:>7} {:>9} {:>6} {:>8} {:>8} {:>7} {:>7}",
        "workload",
        "shards",
        "load",
        "offered",
        "sent/s",
        "goodput/s",
        "of best",
        "refused/s",
        "closed",
        "memory +",
        "Pong max",
        "quick",
        "empty"
    )
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{count} with {name}")).collect::<Vec<_>>().join(", ")
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn rate(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e4 => format!("{:.0} k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Row {
        Row {
            workload: Workload::BigRoom,
            shards: 2,
            factor: 20.0,
            fixed: false,
            capacity: 1000.0,
            offered: 20_000.0,
            sent: 3000.0,
            goodput: 900.0,
            refused: 0.0,
            refusals: BTreeMap::new(),
            closes: BTreeMap::new(),
            resident: [100 << 20, 150 << 20],
            growth_max: 50 << 20,
            pong: Duration::from_millis(1000),
            late: Duration::ZERO,
            recovered: Some(Duration::from_secs(2)),
            emptied: Some(Duration::from_secs(2)),
            faults: Vec::new(),
        }
    }

    #[test]
    fn row_at_every_bound_then_nothing_broken() {
        assert_eq!(good().broken(1125.0, &Promises::FULL), Vec::<String>::new());
        assert!(good().line(1125.0, &Promises::FULL).ends_with("good"));
    }

    #[test]
    fn row_beyond_one_bound_then_that_is_named() {
        type Change = fn(&mut Row);
        let changes: [(Change, &str); 9] = [
            (|row| row.goodput = 899.0, "goodput is 80 % of what was possible"),
            (|row| row.closes = BTreeMap::from([("3008 slow".to_owned(), 3)]), "3 with 3008 slow"),
            (|row| row.resident[1] += 1, "memory grew by 50 MiB"),
            (|row| row.pong += Duration::from_millis(20), "waited 1.02 s for its Pong"),
            (|row| row.recovered = Some(Duration::from_millis(2100)), "quick again only 2.1 s"),
            (|row| row.recovered = None, "not quick again"),
            (|row| row.emptied = Some(Duration::from_millis(2100)), "queued until 2.1 s"),
            (|row| row.emptied = None, "stayed queued"),
            (|row| row.faults.push("no descriptor".to_owned()), "no descriptor"),
        ];
        for (change, says) in changes {
            let mut row = good();
            change(&mut row);
            let broken = row.broken(1125.0, &Promises::FULL);
            assert!(matches!(broken.as_slice(), [only] if only.contains(says)), "{says}: {broken:?}");
            assert_eq!(row.json(1125.0, &Promises::FULL)["broken"].as_array().map(Vec::len), Some(1));
        }
    }

    #[test]
    fn driver_that_was_late_then_pong_counts_less() {
        let mut row = good();
        row.pong = Duration::from_millis(1400);
        row.late = Duration::from_millis(400);
        assert_eq!(row.broken(900.0, &Promises::FULL), Vec::<String>::new());
    }

    #[test]
    fn driver_that_offered_less_than_planned_then_row_says_how_much() {
        let mut row = good();
        assert!(!row.is_short());
        row.offered = 7_000.0;
        assert!(row.is_short());
        assert!(row.line(900.0, &Promises::FULL).contains("the driver offered 7.0x, no more"));
        row.fixed = true;
        assert!(!row.is_short(), "a load that is given has no factor to reach");
    }

    #[test]
    fn load_within_the_capacity_then_goodput_is_not_judged() {
        let mut row = good();
        row.goodput = 100.0;
        assert_eq!(row.broken(1125.0, &Promises::FULL).len(), 1);
        row.factor = 1.0;
        assert_eq!(row.broken(1125.0, &Promises::FULL), Vec::<String>::new());
    }
}
