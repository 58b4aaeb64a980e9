//! The timing wheel beside tokio-util's `DelayQueue` and a binary heap with lazy deletion, with 1 000 to 10 million
//! entries in it.
//!
//! Deadlines lie evenly within 30 s, as heartbeats do. `insert` adds entries to that many, `cancel` takes some out in
//! random order, `tick` lets time pass and arms what has expired for 30 s later: a heartbeat's whole life. Every figure
//! is per entry. The floor is a counter that is incremented, entries in random order.

#[path = "../support/mod.rs"]
mod support;
mod timers;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, SamplingMode};
use ringgate_core::wheel::{TICK_MS, Wheel};

use support::{Criterion, Random, cpu_time};
use timers::{Delays, LazyHeap, Timers};

const INTERVAL_MS: u64 = 30_000;

fn main() {
    let mut criterion = support::settings().sample_size(20);
    let sizes: &[u32] = if support::is_test() { &[1_000] } else { &[1_000, 100_000, 1_000_000, 10_000_000] };
    for entries in sizes {
        timers::<Wheel>(&mut criterion, *entries);
        timers::<Delays>(&mut criterion, *entries);
        timers::<LazyHeap>(&mut criterion, *entries);
        counter(&mut criterion, *entries);
    }
    criterion.final_summary();
}

/// Undoing a batch takes the heap time in proportion to its size, hence batches that grow with it, up to a point.
fn batch(entries: u32) -> u32 {
    (entries / 8).clamp(1024, 128 * 1024)
}

/// All entries of a batch in an order that no cache foresees: a stride that shares no divisor with any size.
fn scattered(entries: u32, start: u64) -> impl Iterator<Item = u32> {
    const STRIDE: u64 = 7_368_787;
    (0..u64::from(batch(entries))).map(move |number| ((start + number * STRIDE) % u64::from(entries)) as u32)
}

fn bench(criterion: &mut Criterion, group: &str, name: &str, entries: u32, mut routine: impl FnMut(u64) -> Duration) {
    let mut group = criterion.benchmark_group(group);
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::new(name, entries), |bencher| bencher.iter_custom(&mut routine));
}

fn timers<T: Timers>(criterion: &mut Criterion, entries: u32) {
    let mut random = Random::new(5);
    let mut timers = T::new(entries);
    let mut deadlines: Vec<u64> = (0..entries).map(|_| 1 + random.below(INTERVAL_MS)).collect();
    deadlines.iter().zip(0..).for_each(|(deadline, entry)| timers.insert(entry, *deadline));

    let new: Vec<u64> = (0..batch(entries)).map(|_| 1 + random.below(INTERVAL_MS)).collect();
    bench(criterion, "wheel insert", T::NAME, entries, |iterations| {
        in_batches(iterations, batch(entries), |count| {
            timers.remember();
            let start = cpu_time();
            new[..count as usize].iter().zip(entries..).for_each(|(deadline, entry)| timers.insert(entry, *deadline));
            let spent = cpu_time() - start;
            timers.forget(entries..entries + count);
            spent
        })
    });

    bench(criterion, "wheel cancel", T::NAME, entries, |iterations| {
        // A batch may come to an entry twice where there are few; the second time there is nothing to cancel.
        in_batches(iterations, batch(entries).min(entries), |count| {
            let chosen: Vec<u32> = scattered(entries, random.next() >> 32).take(count as usize).collect();
            let start = cpu_time();
            chosen.iter().for_each(|entry| timers.cancel(*entry));
            let spent = cpu_time() - start;
            chosen.iter().for_each(|entry| timers.restore(*entry, deadlines[*entry as usize]));
            spent
        })
    });

    let mut now_ms = 0;
    let mut expired = Vec::new();
    // Long enough that reading the clock disappears in what expires.
    let step_ms = TICK_MS * (64 * INTERVAL_MS / u64::from(entries)).div_ceil(TICK_MS).max(1);
    bench(criterion, "wheel tick", T::NAME, entries, |iterations| {
        let (mut done, mut spent) = (0, Duration::ZERO);
        while done < iterations {
            now_ms += step_ms;
            timers.pass(Duration::from_millis(step_ms));
            let start = cpu_time();
            timers.expire(now_ms, &mut expired);
            for entry in &expired {
                timers.insert(*entry, now_ms + INTERVAL_MS);
            }
            spent += cpu_time() - start;
            done += expired.len() as u64;
            for entry in expired.drain(..) {
                deadlines[entry as usize] = now_ms + INTERVAL_MS;
            }
        }
        spent.mul_f64(iterations as f64 / done as f64)
    });
    // tokio's clock began within a millisecond, and it rounds up: what is due may come with the next step.
    let overdue = deadlines.iter().filter(|deadline| **deadline + step_ms <= now_ms).count();
    assert_eq!(overdue, 0, "everything that was due has expired and was armed again");
}

/// Whole batches, and the time of as many as were asked for: alone, an entry would be measured with cold caches.
fn in_batches(iterations: u64, batch: u32, mut routine: impl FnMut(u32) -> Duration) -> Duration {
    let (mut done, mut spent) = (0, Duration::ZERO);
    while done < iterations {
        spent += routine(batch);
        done += u64::from(batch);
    }
    spent.mul_f64(iterations as f64 / done as f64)
}

fn counter(criterion: &mut Criterion, entries: u32) {
    let mut counters = vec![0u32; entries as usize];
    let mut random = Random::new(6);
    bench(criterion, "wheel counter", "counter", entries, |iterations| {
        in_batches(iterations, batch(entries).min(entries), |count| {
            let chosen: Vec<u32> = scattered(entries, random.next() >> 32).take(count as usize).collect();
            let start = cpu_time();
            chosen.iter().for_each(|entry| counters[*entry as usize] += 1);
            black_box(&mut counters);
            cpu_time() - start
        })
    });
}
