//! The whole of what clients can do to a gateway, in one table: each case by plain TCP, TLS and compact TLS, with one shard
//! and with four, beside innocent clients on every shard. What a case costs is given back: connections, slots,
//! descriptors, queues, rooms, users, logs; in the end the heap, and the room that the tables have for connections.
//!
//! All cases run at once first, which warms the gateway up to the peak that it comes to; then in groups, behind each of
//! which the figures are compared. A group that leaves something behind is run again, case by case, to name it.
//! `HOSTILE_CASE=key_update cargo test --test hostile suite` runs the cases with this in their names.

mod frames;
mod innocents;
mod peers;
mod readers;
mod remote;
mod rooms;
mod scene;
mod sessions;
mod tls;
mod vectors;

use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use innocents::Innocents;
use remote::{Figures, Remote};
use scene::{By, Scene, connect};

use crate::support::{DEADLINE, wait_until};

/// An environment variable: only cases whose names contain its value.
const ASKED_FOR: &str = "HOSTILE_CASE";
/// Cases beside each other.
const GROUP: usize = 64;
/// What logs may take more or less than before: those of rooms that innocent clients are in have as many messages as
/// before, and not the same.
const LOG_BYTES: i64 = 16 * 1024;
/// What the heap may have grown by, for each shard, between the first run of all cases and the second. Tables keep the size
/// that they had at their fullest, and how many connections a shard has at once is chance.
const HEAP_BYTES: i64 = 128 * 1024;
/// In the second run there are so many connections at least: a leak of seventy bytes for each of them would be seen with one
/// shard, and of a few hundred with four.
const CONNECTIONS_AGAIN: i64 = 1800;

/// One thing that a client may do.
pub(super) struct Case {
    name: String,
    on: fn(By) -> bool,
    run: Box<dyn Fn(&Scene<'_>) + Send + Sync>,
}

fn case(name: impl Into<String>, run: impl Fn(&Scene<'_>) + Send + Sync + 'static) -> Case {
    Case { name: name.into(), on: |_| true, run: Box::new(run) }
}

impl Case {
    fn on(self, on: fn(By) -> bool) -> Case {
        Case { on, ..self }
    }
}

fn all_cases() -> Vec<Case> {
    let parts = [
        vectors::cases(),
        frames::cases(),
        tls::cases(),
        sessions::cases(),
        rooms::cases(),
        readers::cases(),
        peers::cases(),
    ];
    parts.into_iter().flatten().collect()
}

/// What has to be as it was, and by how much it may be off.
const GIVEN_BACK: [(&str, i64); 15] = [
    ("connections", 0),
    ("sessions", 0),
    ("slots", 0),
    ("descriptors", 0),
    ("queued", 0),
    ("deferred", 0),
    ("outbox_bytes", 0),
    ("rooms", 0),
    ("users", 0),
    ("quiet_topics", 0),
    ("inbox_pending", 0),
    ("unknown_bytes", 0),
    ("log_bytes", LOG_BYTES),
    ("deliveries_unaccounted", 0),
    ("inbox_unaccounted", 0),
];

struct Run<'a> {
    remote: &'a Remote,
    innocents: &'a Innocents,
    by: By,
    before: Figures,
    /// How often cases were run: users and rooms are others each time.
    runs: AtomicU32,
}

impl Run<'_> {
    /// Runs cases beside each other. What has failed, by case.
    fn at_once(&self, cases: &[&(usize, Case)]) -> Vec<String> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let running: Vec<_> = cases
                .iter()
                .map(|(number, case)| {
                    let place = *number as u32 + 1;
                    let from = Ipv4Addr::new(127, 1 + (place / 250) as u8, 1 + (place % 250) as u8, 1);
                    let scene = Scene {
                        remote: self.remote,
                        by: self.by,
                        from,
                        user: format!("m{number}-{run}-{}", case.name),
                    };
                    scope.spawn(move || {
                        // Behind the message that the panic has written itself.
                        let outcome = catch_unwind(AssertUnwindSafe(|| (case.run)(&scene)));
                        outcome.err().map(|_| self.named(&case.name, "failed, see above"))
                    })
                })
                .collect();
            running.into_iter().filter_map(|case| case.join().unwrap()).collect()
        })
    }

    fn named(&self, case: &str, what: impl std::fmt::Display) -> String {
        format!("case {case} by {:?}, {} shards: {what}", self.by, self.remote.shards)
    }

    /// What is not as it was before, once it has had time to be.
    fn left_behind(&self) -> Vec<String> {
        let _rest = self.innocents.rest();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now = self.remote.figures();
            let off = |(name, bound): &(&str, i64)| {
                let (was, is) = (self.before[*name], now[*name]);
                (was.abs_diff(is) > bound.unsigned_abs()).then(|| format!("{name} {is} instead of {was}"))
            };
            let left: Vec<_> = GIVEN_BACK.iter().filter_map(off).collect();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn in_groups(&mut self, cases: &[(usize, Case)]) {
        for group in cases.chunks(GROUP) {
            let group: Vec<_> = group.iter().collect();
            let failed = self.at_once(&group);
            assert!(failed.is_empty(), "{}", failed.join("\n"));
            let left = self.left_behind();
            if left.is_empty() {
                continue;
            }
            let mut guilty = Vec::new();
            for case in &group {
                self.before = self.remote.figures();
                guilty.extend(self.at_once(&[case]));
                let left = self.left_behind();
                if !left.is_empty() {
                    guilty.push(self.named(&case.1.name, format_args!("leaves {}", left.join(", "))));
                }
            }
            let names: Vec<_> = group.iter().map(|(_, case)| case.name.as_str()).collect();
            let group = self.named(&names.join(", "), format_args!("leave {}", left.join(", ")));
            panic!("{group}\nalone: {}", if guilty.is_empty() { "nothing".to_owned() } else { guilty.join("\n") });
        }
    }
}

/// The heap once the gateway is at rest: the least that is seen within a second of the last change.
fn settled_heap(remote: &Remote) -> i64 {
    let (mut least, mut since) = (remote.figure("heap"), Instant::now());
    wait_until("the heap to settle", || {
        let now = remote.figure("heap");
        if now < least {
            (least, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_secs(1)
    });
    least
}

/// How many connections each shard takes at most: opens more until all are full, and closes them again.
fn capacity(remote: &Remote) -> Vec<i64> {
    let before = remote.figures();
    let has_refused = |figures: &Figures, shard: usize| {
        let name = format!("full_{shard}");
        figures[&name] > before[&name]
    };
    let mut sockets = Vec::new();
    let mut full = Vec::new();
    wait_until("all tables are full", || {
        for _ in 0..32 {
            let place = sockets.len() / (remote::PER_ADDRESS / 2);
            sockets.push(connect(Ipv4Addr::new(127, 200, 1 + place as u8, 1).into(), remote.plain));
        }
        let figures = remote.figures();
        full = (0..remote.shards).map(|shard| figures[&format!("connections_{shard}")]).collect();
        (0..remote.shards).all(|shard| has_refused(&figures, shard))
    });
    let opened = sockets.len() as i64;
    drop(sockets);
    wait_until("all have been accepted or refused, and are gone", || {
        let now = remote.figures();
        let seen = |figures: &Figures| figures["accepted"] + figures["refused"];
        seen(&now) == seen(&before) + opened && now["connections"] == before["connections"]
    });
    wait_until("the tables are as before", || remote.figure("slots") == before["slots"]);
    full
}

fn suite(compact: bool, shards: usize) {
    let remote = Remote::start(compact, shards);
    let capacity_before = capacity(&remote);
    let innocents = Innocents::start(&remote);
    let transports: &[By] = if compact { &[By::Compact] } else { &[By::Plain, By::Tls] };
    let (mut heaps, asked) = (Vec::new(), std::env::var(ASKED_FOR).ok());
    for by in transports {
        let began = Instant::now();
        let asked_for = |case: &Case| asked.as_ref().is_none_or(|name| case.name.contains(name));
        let cases = all_cases().into_iter().filter(|case| (case.on)(*by)).enumerate();
        let cases: Vec<_> = cases.filter(|(_, case)| asked_for(case)).collect();
        assert!(asked.is_some() || cases.len() >= 120, "{} cases", cases.len());
        let before = {
            let _rest = innocents.rest();
            wait_until("innocent clients have acknowledged", || remote.figure("inbox_pending") == 0);
            remote.figures()
        };
        let mut run = Run { remote: &remote, innocents: &innocents, by: *by, before, runs: AtomicU32::new(0) };
        // Within the backlog of the listeners.
        for some in cases.chunks(64) {
            let failed = run.at_once(&some.iter().collect::<Vec<_>>());
            assert!(failed.is_empty(), "{}", failed.join("\n"));
        }
        let left = run.left_behind();
        if !left.is_empty() {
            // Which case it is shows when they run again.
            run.before = remote.figures();
            run.in_groups(&cases);
            panic!("{}", run.named("all", format_args!("leave {}", left.join(", "))));
        }
        let warm = {
            let _rest = innocents.rest();
            settled_heap(&remote)
        };
        let accepted = remote.figure("accepted");
        run.in_groups(&cases);
        let accepted = remote.figure("accepted") - accepted;
        innocents.go_on();
        let after_cases = || {
            let _rest = innocents.rest();
            settled_heap(&remote)
        };
        let (mut warm, mut again) = (warm, after_cases());
        if again - warm > HEAP_BYTES * shards as i64 {
            // A table may have doubled, which happens once. What is left behind by connections is left each time.
            run.in_groups(&cases);
            innocents.go_on();
            (warm, again) = (again, after_cases());
        }
        let (cases, took) = (cases.len(), began.elapsed());
        println!(
            "{by:?}, {shards} shards: {cases} cases, {accepted} connections in {took:.0?}, the heap {warm} bytes, then {again}"
        );
        assert!(asked.is_some() || accepted >= CONNECTIONS_AGAIN, "{accepted} connections");
        heaps.push((*by, again - warm));
    }
    let slowest = innocents.finish();
    println!("{shards} shards, compact {compact}: the slowest Pong of an innocent client took {slowest:?}");
    wait_until("everybody is gone", || remote.figure("slots") == 0);
    for (by, grown) in heaps {
        assert!(
            grown <= HEAP_BYTES * shards as i64,
            "{by:?}, {shards} shards: the heap has grown by {grown} bytes in the second run and in a third"
        );
    }
    assert_eq!(capacity(&remote), capacity_before, "slots that come to be connections, of each shard");
    assert_eq!(remote.figure("accepted_unaccounted"), 0, "accepted connections that neither live nor were closed");
    remote.finish();
}

#[test]
fn hostile_clients_of_one_shard_then_everything_is_as_before() {
    suite(false, 1);
}

#[test]
fn hostile_clients_of_four_shards_then_everything_is_as_before() {
    suite(false, 4);
}

#[test]
fn hostile_clients_of_one_shard_with_compact_tls_then_everything_is_as_before() {
    suite(true, 1);
}

#[test]
fn hostile_clients_of_four_shards_with_compact_tls_then_everything_is_as_before() {
    suite(true, 4);
}
