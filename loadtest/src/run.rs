//! A run: driver threads and what they are told, phase by phase; what it gathers becomes a [`Report`].

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgate::session::Transport;

use crate::fleet;
use crate::interrupt;
use crate::ledger::Ledger;
use crate::plan::{Order, Plan, Shared, Tally};
use crate::report::Report;
use crate::traffic::Traffic;
use crate::watch::{Outlets, Watch};

/// Driver threads at work.
pub(crate) struct Run {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<Vec<Ledger>, String>>>,
    wanted: [usize; 2],
    watch: Watch,
    streams: u8,
}

/// How long before its start a stream is ordered, so that every thread knows of it in time.
pub(crate) const LEAD: Duration = Duration::from_millis(50);

impl Run {
    /// Starts the threads.
    pub(crate) fn start(plan: Plan, outlets: Outlets) -> Result<Run, String> {
        interrupt::listen()?;
        let count = plan.threads();
        let shared = Arc::new(Shared::new(plan));
        let threads = (0..count)
            .map(|thread| {
                let shared = shared.clone();
                std::thread::spawn(move || fleet::run(&shared, thread))
            })
            .collect();
        let watch = Watch::new(shared.clone(), outlets);
        Ok(Run { shared, threads, wanted: [0; 2], watch, streams: 0 })
    }

    /// Live counts.
    pub(crate) fn tally(&self) -> Tally {
        self.shared.counts().read()
    }

    /// Whether somebody has asked for the end.
    pub(crate) fn interrupted(&self) -> bool {
        interrupt::asked()
    }

    /// Tells all clients to do something.
    pub(crate) fn order(&self, order: Order) {
        self.shared.order(order);
    }

    /// Nanoseconds since the run's zero.
    pub(crate) fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// Ends the present phase and begins another.
    pub(crate) fn phase(&mut self, name: &str) {
        self.begin_phase(name, true);
    }

    /// The same, for one whose latencies stay out of the figures of the whole run.
    pub(crate) fn warm_up(&mut self, name: &str) {
        self.begin_phase(name, false);
    }

    fn begin_phase(&mut self, name: &str, measured: bool) {
        // What was recorded belongs to the phase that ends. A thread that has ended hands nothing over any more.
        self.shared.collect();
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.shared.is_collected() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.watch.phase(name, measured, self.wanted.iter().sum());
    }

    /// Wants so many connections and waits until they are signed in.
    pub(crate) fn connect(&mut self, plain: usize, tls: usize, timeout: Duration) -> Result<(), String> {
        self.shared.want(Transport::Plain, plain);
        self.shared.want(Transport::Tls, tls);
        self.wanted = [plain, tls];
        let wanted = (plain + tls) as u64;
        let deadline = Instant::now() + timeout;
        while self.tally().connections < wanted && !self.interrupted() {
            self.pause()?;
            if self.tally().closed > 0 && !self.shared.plan.reconnect {
                return Err("connections were refused or lost".to_owned());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{} of {wanted} connections were signed in within {} s",
                    self.tally().connections,
                    timeout.as_secs()
                ));
            }
        }
        Ok(())
    }

    /// Waits for a condition; says what was not reached in time.
    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&Tally) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        while !condition(&self.tally()) && !self.interrupted() {
            self.pause()?;
            if Instant::now() > deadline {
                return Err(format!("{what}: not within {} s", timeout.as_secs()));
            }
        }
        Ok(())
    }

    /// Lets time pass.
    pub(crate) fn hold(&mut self, duration: Duration) -> Result<(), String> {
        let until = Instant::now() + duration;
        self.watch.until = Some(until);
        while Instant::now() < until && !self.interrupted() {
            self.pause()?;
        }
        self.watch.until = None;
        Ok(())
    }

    /// Numbers a stream and starts it after `lead`.
    pub(crate) fn begin(&mut self, mut traffic: Traffic, lead: Duration) -> Traffic {
        self.streams = self.streams.wrapping_add(1).max(1);
        traffic.id = self.streams;
        traffic.start_ns = self.now_ns() + lead.as_nanos() as u64;
        self.watch.planned.add(&traffic);
        self.order(Order::Traffic(traffic.clone()));
        traffic
    }

    /// Members join the rooms of a stream, if it has any, so that nobody misses the first message.
    pub(crate) fn join(&mut self, traffic: &Traffic) -> Result<(), String> {
        let joining = traffic.joining();
        if joining == 0 {
            return Ok(());
        }
        let before = self.tally().subscribed;
        // An empty stream joins the rooms.
        self.begin(Traffic { duration: Duration::ZERO, ..traffic.clone() }, Duration::ZERO);
        self.wait_for("joining the rooms", Duration::from_secs(30 + joining / 1000), |tally| {
            tally.subscribed - before >= joining
        })
    }

    /// One stream on its own: members join, messages flow, and what is still under way arrives.
    pub(crate) fn traffic(&mut self, traffic: Traffic) -> Result<(), String> {
        self.join(&traffic)?;
        let (lead, duration) = (LEAD, traffic.duration);
        self.begin(traffic, lead);
        self.hold(duration + lead)?;
        self.settle(Tally::is_settled)
    }

    /// Waits until what was sent is answered, and delivered if `done` asks for that. What is missing after a while is
    /// for the report.
    pub(crate) fn settle(&mut self, done: impl Fn(&Tally) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        if self.interrupted() {
            self.order(Order::Stop);
            self.watch.planned.clear();
            // What was sent up to now is still answered.
            std::thread::sleep(Duration::from_millis(200));
        }
        loop {
            if done(&self.tally()) || Instant::now() > deadline {
                return Ok(());
            }
            self.pause()?;
        }
    }

    fn pause(&mut self) -> Result<(), String> {
        std::thread::sleep(Duration::from_millis(10));
        if self.threads.iter().any(JoinHandle::is_finished) {
            return Err("a driver thread has ended".to_owned());
        }
        self.watch.tick(false, self.wanted.iter().sum());
        Ok(())
    }

    /// Ends the threads and adds everything up.
    pub(crate) fn finish(mut self) -> Result<Report, String> {
        self.phase("end");
        let tally = self.tally();
        self.shared.stop();
        let mut sum = Ledger::default();
        for thread in self.threads.drain(..) {
            for ledger in thread.join().map_err(|_| "a driver thread panicked".to_owned())?? {
                sum.delivered += ledger.delivered;
                sum.duplicated += ledger.duplicated;
                sum.reordered += ledger.reordered;
                sum.corrupted += ledger.corrupted;
            }
        }
        let interrupted = self.interrupted();
        let mut report = Report {
            connections: self.wanted,
            tally,
            interrupted,
            delivered: sum.delivered,
            duplicated: sum.duplicated,
            reordered: sum.reordered,
            corrupted: sum.corrupted,
            lost: tally.owed.saturating_sub(sum.delivered),
            ..self.watch.finish()
        };
        let unanswered = tally.sent.saturating_sub(tally.accepted + tally.refused + tally.undecided);
        if unanswered > 0 {
            report.errors.insert("publishes without an answer".to_owned(), unanswered);
        }
        Ok(report)
    }
}
