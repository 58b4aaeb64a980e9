//! The structures that are compared, behind one trait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::{Context, Poll};
use std::time::Duration;

use ringgate_core::wheel::Wheel;
use tokio::runtime::{EnterGuard, Runtime};
use tokio::time::Instant;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

/// Entries with deadlines in milliseconds.
pub(crate) trait Timers {
    const NAME: &'static str;
    fn new(entries: u32) -> Self;
    fn insert(&mut self, entry: u32, deadline_ms: u64);
    fn cancel(&mut self, entry: u32);
    /// Never measured: the clock of those who have one goes on.
    fn pass(&mut self, _by: Duration) {}
    /// Takes out what has expired.
    fn expire(&mut self, now_ms: u64, expired: &mut Vec<u32>);
    /// Never measured: what inserting is to be undone to.
    fn remember(&mut self) {}
    /// Never measured.
    fn forget(&mut self, entries: std::ops::Range<u32>) {
        entries.for_each(|entry| self.cancel(entry));
    }
    /// Never measured.
    fn restore(&mut self, entry: u32, deadline_ms: u64) {
        self.insert(entry, deadline_ms);
    }
}

impl Timers for Wheel {
    const NAME: &'static str = "wheel";

    fn new(_: u32) -> Self {
        Wheel::default()
    }

    fn insert(&mut self, entry: u32, deadline_ms: u64) {
        Wheel::insert(self, entry, deadline_ms);
    }

    fn cancel(&mut self, entry: u32) {
        Wheel::cancel(self, entry);
    }

    fn expire(&mut self, now_ms: u64, expired: &mut Vec<u32>) {
        // In portions, as a shard does it.
        while self.advance(now_ms, 1024, expired) {}
    }
}

/// tokio-util's queue: a wheel, too, of entries in a slab. Its clock is stopped and moved on by hand.
pub(crate) struct Delays {
    queue: DelayQueue<u32>,
    keys: Vec<Option<Key>>,
    runtime: &'static Runtime,
    start: Instant,
    /// The queue makes timers of its own while it is used, and that only within a runtime.
    _inside: EnterGuard<'static>,
}

impl Timers for Delays {
    const NAME: &'static str = "DelayQueue";

    fn new(entries: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        // Never dropped: being inside it borrows it.
        let runtime: &Runtime = Box::leak(Box::new(runtime.expect("a runtime without I/O")));
        let start = runtime.block_on(async { Instant::now() });
        let queue = DelayQueue::with_capacity(entries as usize);
        Delays { queue, keys: vec![None; entries as usize], runtime, start, _inside: runtime.enter() }
    }

    fn insert(&mut self, entry: u32, deadline_ms: u64) {
        let key = self.queue.insert_at(entry, self.start + Duration::from_millis(deadline_ms));
        if self.keys.len() <= entry as usize {
            self.keys.resize(entry as usize + entry as usize / 8 + 1, None);
        }
        self.keys[entry as usize] = Some(key);
    }

    fn cancel(&mut self, entry: u32) {
        if let Some(key) = self.keys[entry as usize].take() {
            self.queue.remove(&key);
        }
    }

    fn pass(&mut self, by: Duration) {
        self.runtime.block_on(tokio::time::advance(by));
    }

    fn expire(&mut self, _: u64, expired: &mut Vec<u32>) {
        let queue = &mut self.queue;
        let poll = |context: &mut Context<'_>| {
            while let Poll::Ready(Some(entry)) = queue.poll_expired(context) {
                expired.push(entry.into_inner());
            }
            Poll::Ready(())
        };
        self.runtime.block_on(tokio::task::unconstrained(std::future::poll_fn(poll)));
    }
}

/// A heap of deadlines; what was cancelled stays in it until its deadline and is recognised then.
pub(crate) struct LazyHeap {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    /// 0 for none.
    deadlines: Vec<u64>,
    remembered: Vec<Reverse<(u64, u32)>>,
}

impl Timers for LazyHeap {
    const NAME: &'static str = "BinaryHeap, lazy deletion";

    fn new(entries: u32) -> Self {
        let entries = entries as usize;
        LazyHeap {
            heap: BinaryHeap::with_capacity(entries + entries / 8 + 1024),
            deadlines: vec![0; entries + entries / 8 + 1024],
            remembered: Vec::new(),
        }
    }

    fn insert(&mut self, entry: u32, deadline_ms: u64) {
        self.deadlines[entry as usize] = deadline_ms;
        self.heap.push(Reverse((deadline_ms, entry)));
    }

    fn cancel(&mut self, entry: u32) {
        self.deadlines[entry as usize] = 0;
    }

    fn expire(&mut self, now_ms: u64, expired: &mut Vec<u32>) {
        while let Some(Reverse((deadline_ms, entry))) = self.heap.peek().copied().filter(|top| top.0.0 <= now_ms) {
            self.heap.pop();
            if self.deadlines[entry as usize] == deadline_ms {
                self.deadlines[entry as usize] = 0;
                expired.push(entry);
            }
        }
    }

    fn remember(&mut self) {
        self.remembered.clear();
        self.remembered.extend(self.heap.iter().copied());
    }

    fn forget(&mut self, entries: std::ops::Range<u32>) {
        entries.for_each(|entry| self.deadlines[entry as usize] = 0);
        self.heap.clear();
        self.heap.extend(self.remembered.iter().copied());
    }

    fn restore(&mut self, entry: u32, deadline_ms: u64) {
        self.deadlines[entry as usize] = deadline_ms;
    }
}
