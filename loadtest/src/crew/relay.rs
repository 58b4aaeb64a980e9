//! The controller's end of one worker during a run: passes on what is wanted and ordered, and adds up what comes back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::wire::{BEATS_EVERY, FromWorker, Start, ToWorker, Wire};
use crate::assignment::Part;
use crate::clock::wall_ns;
use crate::ledger::{Books, Ended};
use crate::plan::{Shared, Tally};

/// A worker that says nothing for so long is lost.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How often something new for the worker is looked for.
const PAUSE: Duration = Duration::from_millis(5);

struct Relay<'a> {
    shared: &'a Shared,
    worker: usize,
    wire: Wire,
    /// Its counts, as they were added to those of the run.
    counted: Tally,
    heard: Instant,
    /// What it has been told so far.
    told: Instant,
    wanted: [usize; 2],
    orders: usize,
    collections: usize,
    stopped: bool,
    /// What its clients know of all messages, as far as it has come.
    books: Books,
}

/// Runs worker number `worker` until it has ended, in order or not.
pub(super) fn relay(shared: &Shared, worker: usize, wire: Wire) -> Ended {
    let now = Instant::now();
    let mut relay = Relay {
        shared,
        worker,
        wire,
        counted: Tally::default(),
        heard: now,
        told: now,
        wanted: [0; 2],
        orders: 0,
        collections: 0,
        stopped: false,
        books: Books::default(),
    };
    match relay.run() {
        Ok(()) => Ended::InOrder(Box::new(relay.books)),
        Err(error) => {
            // Its connections are gone with it; what had arrived at them has arrived.
            relay.count(Tally {
                connections: 0,
                connecting: 0,
                pings_under_way: 0,
                heartbeats_under_way: 0,
                streams: 0,
                ..relay.counted
            });
            Ended::Lost(lost(worker, shared.team.len(), shared.team[worker].address, &error))
        }
    }
}

/// How a lost worker is named.
pub(super) fn lost(worker: usize, of: usize, address: SocketAddr, error: &str) -> String {
    format!("worker {} of {of} ({address}) was lost: {error}", worker + 1)
}

impl Relay<'_> {
    fn run(&mut self) -> Result<(), String> {
        let start = self.start();
        self.wire.send(&ToWorker::Start(Box::new(start)))?;
        loop {
            self.pass_on()?;
            match self.wire.receive(PAUSE)? {
                Some(message) => {
                    self.heard = Instant::now();
                    if self.take_in(message)? {
                        return Ok(());
                    }
                }
                None if self.heard.elapsed() > SILENCE_MAX => {
                    return Err(format!("nothing was heard of it for {} s", SILENCE_MAX.as_secs()));
                }
                None => {}
            }
        }
    }

    fn start(&self) -> Start {
        let origin = self.shared.origin;
        // The zero lies ahead, or has just been: one of the two differences is 0.
        let now = Instant::now();
        let ahead = origin.zero.saturating_duration_since(now).as_nanos() as u64;
        let zero_ns = wall_ns() + ahead - now.saturating_duration_since(origin.zero).as_nanos() as u64;
        Start {
            assignment: self.shared.plan.assignment.clone(),
            part: Part { worker: self.worker, of: self.shared.team.len() },
            run: origin.run,
            zero_ns: self.shared.team[self.worker].clock.at(zero_ns),
        }
    }

    /// Tells the worker what is new.
    fn pass_on(&mut self) -> Result<(), String> {
        let mut news = Vec::new();
        let wanted = self.shared.wanted();
        if std::mem::replace(&mut self.wanted, wanted) != wanted {
            news.push(ToWorker::Want(wanted));
        }
        for order in self.shared.orders(self.orders) {
            self.orders += 1;
            news.push(ToWorker::Order((*order).clone()));
        }
        let collections = self.shared.collections();
        if std::mem::replace(&mut self.collections, collections) != collections {
            news.push(ToWorker::Collect(collections));
        }
        if self.shared.stopped() && !self.stopped {
            self.stopped = true;
            news.push(ToWorker::Stop);
        }
        if news.is_empty() && self.told.elapsed() >= BEATS_EVERY {
            news.push(ToWorker::Beat);
        }
        for message in news {
            self.told = Instant::now();
            self.wire.send(&message)?;
        }
        Ok(())
    }

    /// Adds up what the worker says; true if it is the last word.
    fn take_in(&mut self, message: FromWorker) -> Result<bool, String> {
        match message {
            FromWorker::Status { tally, cpu_ns, threads, message_bytes_max } => {
                self.shared.limit_payloads(message_bytes_max);
                self.count(*tally);
                self.shared.team[self.worker].set_load(cpu_ns, threads);
            }
            FromWorker::Record(packed) => self.shared.add_record(&packed.unpack()?),
            FromWorker::Collected(round) => self.shared.hand_over(round),
            FromWorker::Books(books) => self.books.add(*books),
            FromWorker::End => return Ok(true),
            FromWorker::Failed(error) => return Err(error),
            FromWorker::Hello(_) | FromWorker::Time(_) => {
                return Err("it sent a message that was not asked for".to_owned());
            }
        }
        Ok(false)
    }

    fn count(&mut self, tally: Tally) {
        self.shared.counts().add_change(self.counted, tally);
        self.counted = tally;
    }
}
