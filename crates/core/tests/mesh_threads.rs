//! The mailboxes of the mesh with real threads, against an oracle: whatever the schedule, every letter arrives once,
//! and those of one producer in the order in which they were pushed.
//!
//! Mailboxes are tiny, so that most pushes find them full, and sleepers have no timer: a wake that gets lost is a test
//! that fails after its deadline.
#![cfg(not(loom))]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ringgate_core::mesh::{Capacity, Mailbox, Wake, mailboxes};

/// Longer than any scheduler keeps a thread waiting.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a shard's eventfd does: counts signals, and lets the owner sleep while there are none.
#[derive(Default)]
struct Signal {
    signals: Mutex<usize>,
    signalled: Condvar,
    woken: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Letter {
    from: usize,
    number: usize,
}

/// What a node did, all its threads together.
struct Report {
    full: usize,
    woken: usize,
    slept: usize,
}

#[test]
fn everybody_writes_to_everybody() {
    let report = run(4, 2, 20_000, |_| true);
    assert!(report.full > 0, "mailboxes of two letters are full now and then");
    assert!(report.woken <= report.slept, "woken {} times, asleep {} times", report.woken, report.slept);
}

#[test]
fn mailboxes_of_one_letter() {
    let report = run(3, 1, 5_000, |_| true);
    assert!(report.full > 0);
    assert!(report.woken <= report.slept, "woken {} times, asleep {} times", report.woken, report.slept);
}

/// Only every tenth letter rings, and the last; a full mailbox rings in any case, so nobody waits for ever.
#[test]
fn letters_that_do_not_ring_travel_with_those_that_do() {
    let report = run(4, 3, 10_000, |number| number % 10 == 9);
    assert!(report.full > 0);
    assert!(report.woken <= report.slept, "woken {} times, asleep {} times", report.woken, report.slept);
}

/// `shards` threads, each of which sends `letters` to every other and reads until it has all of its own.
fn run(shards: usize, capacity: usize, letters: usize, urgent: fn(usize) -> bool) -> Report {
    let signals: Vec<Arc<Signal>> = (0..shards).map(|_| Arc::default()).collect();
    let wakers = signals.iter().map(|signal| Arc::new(Ringer(signal.clone())) as Arc<dyn Wake>).collect();
    let threads: Vec<_> = mailboxes(wakers, Capacity::letters(capacity))
        .into_iter()
        .zip(&signals)
        .enumerate()
        .map(|(me, (mailbox, signal))| {
            let signal = signal.clone();
            std::thread::spawn(move || Shard::new(me, shards, letters, urgent, mailbox, signal).run())
        })
        .collect();
    let counts: Vec<(usize, usize)> = threads.into_iter().map(|thread| thread.join().expect("a shard")).collect();
    Report {
        full: counts.iter().map(|(full, _)| full).sum(),
        slept: counts.iter().map(|(_, slept)| slept).sum(),
        woken: signals.iter().map(|signal| signal.woken.load(Ordering::Relaxed)).sum(),
    }
}

struct Shard {
    mailbox: Mailbox<Letter>,
    signal: Arc<Signal>,
    /// Letters that are still to be pushed, by receiver.
    backlog: Vec<VecDeque<Letter>>,
    /// The oracle: the number of the next letter from each producer.
    next: Vec<usize>,
    urgent: fn(usize) -> bool,
    letters: usize,
    me: usize,
    full: usize,
    slept: usize,
}

impl Shard {
    fn new(
        me: usize,
        shards: usize,
        letters: usize,
        urgent: fn(usize) -> bool,
        mailbox: Mailbox<Letter>,
        signal: Arc<Signal>,
    ) -> Self {
        let backlog = (0..shards).map(|to| {
            let letters = if to == me { 0 } else { letters };
            (0..letters).map(|number| Letter { from: me, number }).collect()
        });
        Shard {
            mailbox,
            signal,
            backlog: backlog.collect(),
            next: vec![0; shards],
            urgent,
            letters,
            me,
            full: 0,
            slept: 0,
        }
    }

    /// Turns as a shard's thread makes them. Returns how often a mailbox was full, and how often it fell asleep.
    fn run(mut self) -> (usize, usize) {
        loop {
            let read = self.read();
            let waiting = self.push();
            self.mailbox.ring();
            let missing = self.next.iter().sum::<usize>() < self.letters * (self.next.len() - 1);
            if !waiting && !missing {
                break;
            }
            if waiting || read {
                // Somebody else's mailbox has to be emptied first.
                std::thread::yield_now();
                continue;
            }
            self.slept += 1;
            if self.mailbox.try_sleep() {
                self.signal.wait();
                self.mailbox.wake_up();
            }
        }
        assert_eq!(self.mailbox.pop(), None, "a letter too many");
        let wanted = |from| if from == self.me { 0 } else { self.letters };
        for (from, next) in self.next.iter().enumerate() {
            assert_eq!(*next, wanted(from), "letters from {from} to {}", self.me);
        }
        (self.full, self.slept)
    }

    fn read(&mut self) -> bool {
        let mut any = false;
        while let Some(letter) = self.mailbox.pop() {
            any = true;
            assert_eq!(letter.number, self.next[letter.from], "out of order, from {}", letter.from);
            self.next[letter.from] += 1;
        }
        any
    }

    /// Pushes what has room. True when something is left.
    fn push(&mut self) -> bool {
        for (to, backlog) in self.backlog.iter_mut().enumerate() {
            while let Some(letter) = backlog.pop_front() {
                let urgent = (self.urgent)(letter.number) || backlog.is_empty();
                if let Err(letter) = self.mailbox.push(to, letter, urgent) {
                    self.full += 1;
                    backlog.push_front(letter);
                    break;
                }
            }
        }
        self.backlog.iter().any(|backlog| !backlog.is_empty())
    }
}

impl Signal {
    fn wait(&self) {
        let signals = self.signals.lock().expect("no thread panics with the lock");
        let (mut signals, timeout) =
            self.signalled.wait_timeout_while(signals, DEADLINE, |signals| *signals == 0).expect("the same");
        assert!(!timeout.timed_out(), "nobody rang");
        *signals = 0;
    }
}

/// A producer's end of a [`Signal`].
struct Ringer(Arc<Signal>);

impl Wake for Ringer {
    fn wake(&self) {
        self.0.woken.fetch_add(1, Ordering::Relaxed);
        *self.0.signals.lock().expect("no thread panics with the lock") += 1;
        self.0.signalled.notify_one();
    }
}
