//! The mailboxes between shards beside crossbeam-channel alone (what they are made of), flume and tokio's mpsc.
//!
//! `letter`: one thread pushes a turn's letters, rings, and pops them; CPU time per letter. `throughput`: a thread
//! pushes, another pops, neither sleeps; elapsed time per letter. `wake`: two sleepers wake each other in turns;
//! elapsed time of a round trip, for the doorbell beside a bare eventfd and the channels' own ways to sleep.

mod queues;
#[path = "../support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Throughput};
use ringgate_core::mesh::Wake;

use queues::{Crossbeam, Flume, Letter, Mesh, Queue, Tokio, new_bell, sleep_on};
use support::Criterion;

/// As many letters as a shard's mailbox holds by default.
const CAPACITY: usize = 8192;

fn main() {
    let mut criterion = support::settings().sample_size(50);
    for batch in [1, 16, 256] {
        letter::<Mesh>(&mut criterion, batch);
        letter::<Crossbeam>(&mut criterion, batch);
        letter::<Flume>(&mut criterion, batch);
        letter::<Tokio>(&mut criterion, batch);
    }
    for batch in [1, 16, 256] {
        throughput::<Mesh>(&mut criterion, batch);
        throughput::<Crossbeam>(&mut criterion, batch);
        throughput::<Flume>(&mut criterion, batch);
        throughput::<Tokio>(&mut criterion, batch);
    }
    wake(&mut criterion, "bare eventfd", bare_round_trips);
    wake(&mut criterion, Mesh::NAME, round_trips::<Mesh>);
    wake(&mut criterion, Crossbeam::NAME, round_trips::<Crossbeam>);
    wake(&mut criterion, Flume::NAME, round_trips::<Flume>);
    wake(&mut criterion, Tokio::NAME, round_trips::<Tokio>);
    criterion.final_summary();
}

fn letter<Q: Queue>(criterion: &mut Criterion, batch: u64) {
    let (mut sender, mut receiver) = Q::new(CAPACITY);
    let mut group = criterion.benchmark_group("mesh letter");
    group.throughput(Throughput::Elements(batch));
    group.bench_function(BenchmarkId::new(Q::NAME, batch), |bencher| {
        bencher.iter(|| {
            for number in 0..batch {
                assert!(Q::push(&mut sender, black_box(Letter::new(number))).is_ok());
            }
            Q::end_of_turn(&mut sender);
            while let Some(letter) = Q::pop(&mut receiver) {
                black_box(letter);
            }
        });
    });
}

fn throughput<Q: Queue>(criterion: &mut Criterion, batch: u64) {
    let mut group = criterion.benchmark_group("mesh throughput");
    group.throughput(Throughput::Elements(batch));
    group.bench_function(BenchmarkId::new(Q::NAME, batch), |bencher| {
        bencher.iter_custom(|turns| {
            let (mut sender, mut receiver) = Q::new(CAPACITY);
            let both = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    for number in 0..turns * batch {
                        let letter = loop {
                            match Q::pop(&mut receiver) {
                                Some(letter) => break letter,
                                // There may be fewer free cores than threads.
                                None => std::thread::yield_now(),
                            }
                        };
                        assert_eq!(letter.number(), number);
                    }
                    both.wait();
                });
                both.wait();
                let start = Instant::now();
                for turn in 0..turns {
                    for number in turn * batch..(turn + 1) * batch {
                        let mut letter = Letter::new(number);
                        while let Err(back) = Q::push(&mut sender, letter) {
                            letter = back;
                            std::thread::yield_now();
                        }
                    }
                    Q::end_of_turn(&mut sender);
                }
                both.wait();
                start.elapsed()
            })
        });
    });
}

fn wake(criterion: &mut Criterion, name: &str, mut round_trips: impl FnMut(u64) -> Duration) {
    criterion
        .benchmark_group("mesh wake")
        .bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter_custom(&mut round_trips));
}

fn round_trips<Q: Queue>(count: u64) -> Duration {
    let (mut there, mut far_in) = Q::new(CAPACITY);
    let (mut back, mut near_in) = Q::new(CAPACITY);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..count {
                let letter = Q::wait(&mut far_in);
                assert!(Q::push(&mut back, letter).is_ok());
                Q::end_of_turn(&mut back);
            }
        });
        let start = Instant::now();
        for number in 0..count {
            assert!(Q::push(&mut there, Letter::new(number)).is_ok());
            Q::end_of_turn(&mut there);
            assert_eq!(Q::wait(&mut near_in).number(), number);
        }
        start.elapsed()
    })
}

fn bare_round_trips(count: u64) -> Duration {
    let (there, back) = (new_bell(), new_bell());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                sleep_on(&there);
                back.wake();
            }
        });
        let start = Instant::now();
        for _ in 0..count {
            there.wake();
            sleep_on(&back);
        }
        start.elapsed()
    })
}
