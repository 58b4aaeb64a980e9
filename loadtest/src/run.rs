//! A run: who drives the clients and what they are told, phase by phase; what it gathers becomes a [`Report`].

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::access::Access;
use crate::assignment::{Assignment, Part};
use crate::crew::Crew;
use crate::descriptors;
use crate::fleet;
use crate::interrupt;
use crate::ledger::{Balance, Books, Ended};
use crate::mate::Mate;
use crate::plan::{Order, Origin, REFUSED_AFTER, Shared, Tally};
use crate::record::{Measure, Names};
use crate::report::{Host, Report};
use crate::traffic::Traffic;
use crate::watch::{Outlets, Watch};

/// What drives the clients of a run.
pub(crate) enum Drivers {
    /// Threads of this process.
    Own(Access),
    /// Other processes, on this host or others.
    Crew(Crew),
}

/// A run under way.
pub(crate) struct Run {
    shared: Arc<Shared>,
    /// Threads that drive clients, or talk to a worker that does.
    threads: Vec<JoinHandle<Ended>>,
    wanted: [usize; 2],
    watch: Watch,
    /// The last phase has begun.
    ended: bool,
    /// What the clients know of all messages, of those drivers that have ended; and why some ended before the run.
    books: Books,
    lost: Vec<String>,
}

/// How long before its start a stream is ordered, so that every thread knows of it in time; with workers, so that every
/// one of them does, wherever it is.
const LEAD: Duration = Duration::from_millis(50);
const LEAD_OF_CREW: Duration = Duration::from_millis(500);
/// When nothing has come for so long, nothing more is expected.
const QUIET: Duration = Duration::from_millis(500);
/// A client that tries again waits for 20 s at most.
const RETURN_PATIENCE: Duration = Duration::from_secs(22);
/// How long workers may take to get ready before the run begins without them; they catch up.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

impl Run {
    /// Has the drivers start, and waits until they have.
    pub(crate) fn start(assignment: Assignment, drivers: Drivers, outlets: Outlets) -> Result<Run, String> {
        interrupt::listen()?;
        let plan = assignment.plan(Part::ALONE);
        let (shared, threads) = match drivers {
            Drivers::Own(access) => {
                descriptors::check(&plan)?;
                let shared = Shared::new(plan, Origin::after(Duration::ZERO), Vec::new()).naming(access.listed());
                let shared = Arc::new(shared);
                let threads = fleet::spawn(&shared, &Arc::new(access));
                (shared, threads)
            }
            Drivers::Crew(crew) => crew.start(plan, Origin::after(LEAD_OF_CREW)),
        };
        await_ready(&shared, &threads);
        let watch = Watch::new(shared.clone(), outlets);
        Ok(Run { shared, threads, wanted: [0; 2], watch, ended: false, books: Books::default(), lost: Vec::new() })
    }

    /// How long before its start something is ordered.
    pub(crate) fn lead(&self) -> Duration {
        if self.shared.team.is_empty() { LEAD } else { LEAD_OF_CREW }
    }

    /// Live counts.
    pub(crate) fn tally(&self) -> Tally {
        self.shared.counts().read()
    }

    /// Whether somebody has asked for the end, or `--abort-if` has.
    pub(crate) fn interrupted(&self) -> bool {
        interrupt::asked() || self.watch.aborted.is_some()
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

    /// Begins a phase whose latencies stay out of the figures of the whole run.
    pub(crate) fn warm_up(&mut self, name: &str) {
        self.begin_phase(name, false);
    }

    fn begin_phase(&mut self, name: &str, measured: bool) {
        // What was recorded belongs to the phase that ends.
        self.collect();
        self.watch.phase(name, measured, self.wanted.iter().sum());
    }

    /// Has everybody hand over counts and records as they are now.
    fn collect(&self) {
        self.shared.collect();
        let began = Instant::now();
        // A driver that has ended hands nothing over any more.
        let patience = || Duration::from_secs(if self.is_complete() { 5 } else { 1 });
        while !self.shared.is_collected() && began.elapsed() < patience() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_complete(&self) -> bool {
        self.threads.len() == self.shared.hands() && !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Whether a condition holds. Counts of workers come a little late and not all at once: what they seem to say is
    /// confirmed by newer ones.
    fn holds(&self, condition: impl Fn(&Tally) -> bool) -> bool {
        condition(&self.tally()) && {
            self.collect();
            condition(&self.tally())
        }
    }

    /// Wants so many connections from now on; how many that are.
    fn want(&mut self, connections: [usize; 2]) -> u64 {
        self.shared.want(connections);
        self.wanted = connections;
        connections.iter().sum::<usize>() as u64
    }

    /// Wants so many connections and waits until they are signed in. Unless `patient`, gives up on a gateway that lets
    /// no client in, although clients would go on trying.
    pub(crate) fn connect(&mut self, plain: usize, tls: usize, timeout: Duration, patient: bool) -> Result<(), String> {
        let wanted = self.want([plain, tls]);
        let (began, assignment) = (Instant::now(), &self.shared.plan.assignment);
        let (deadline, connect_timeout) = (began + timeout, assignment.connect_timeout);
        let why = |shared: &Shared| {
            shared.failed_attempt().map_or_else(String::new, |why| format!("; the last attempt: {why}"))
        };
        while self.tally().connections < wanted && !self.interrupted() {
            self.pause()?;
            if self.tally().closed > 0 && !self.shared.plan.assignment.reconnect {
                return Err("connections were refused or lost".to_owned());
            }
            let tally = self.tally();
            if tally.connections + tally.reconnects == 0
                && tally.closed > 0
                && !patient
                && began.elapsed() > connect_timeout
            {
                return Err(format!("no client could sign in{}", why(&self.shared)));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{} of {wanted} connections were signed in within {} s{}",
                    self.tally().connections,
                    timeout.as_secs(),
                    why(&self.shared)
                ));
            }
        }
        Ok(())
    }

    /// Whether the gateway takes payloads of so many bytes: it has said so to those who are connected.
    pub(crate) fn check_payload(&self, bytes: usize) -> Result<(), String> {
        if !self.shared.team.is_empty() {
            // What workers were told is here when they have reported.
            self.collect();
        }
        match self.shared.message_bytes_max() as usize {
            limit if limit > 0 && bytes > limit => Err(format!(
                "payloads of {bytes} bytes are longer than the gateway takes: at most {limit} (its client.message_size_max)"
            )),
            _ => Ok(()),
        }
    }

    /// Wants so many connections, until the gateway takes no more: it refuses one, or signs in nobody new for a while.
    /// An error if it took none.
    pub(crate) fn connect_until_refused(&mut self, connections: [usize; 2]) -> Result<(), String> {
        let wanted = self.want(connections);
        self.watch.until_refused = true;
        let (mut taken, mut since) = (0, Instant::now());
        while !self.interrupted() {
            self.pause()?;
            let tally = self.tally();
            // A ramp may be slow: it has to be the gateway that keeps somebody waiting.
            if tally.connections > taken || tally.connecting == 0 {
                (taken, since) = (tally.connections.max(taken), Instant::now());
            }
            if taken >= wanted || since.elapsed() > REFUSED_AFTER {
                break;
            }
            if tally.closed > 0 {
                // Nobody else is to try; who is at it may have come before the one that was refused.
                self.shared.want([0; 2]);
                if self.holds(|tally| tally.connecting == 0) {
                    break;
                }
            }
        }
        if taken.max(self.tally().connections) == 0 { Err("no client could sign in".to_owned()) } else { Ok(()) }
    }

    /// Says what its populations and streams are called.
    pub(crate) fn name(&mut self, names: Names) {
        self.watch.names = names;
    }

    /// Says what the run's latency is where nothing more is said.
    pub(crate) fn main_measure(&mut self, measure: Measure) {
        self.watch.measure = Some(measure);
    }

    /// Waits for a condition; says what was not reached in time.
    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        timeout: Duration,
        condition: impl Fn(&Tally) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        while !self.holds(&condition) && !self.interrupted() {
            self.pause()?;
            if Instant::now() > deadline {
                return Err(format!("{what}: not within {} s", timeout.as_secs()));
            }
        }
        Ok(())
    }

    /// Waits for clients that come back until a condition holds, as long as one more signs in once in a while.
    pub(crate) fn wait_for_return(
        &mut self,
        timeout: Duration,
        condition: impl Fn(&Tally) -> bool,
    ) -> Result<(), String> {
        let patience = self.shared.plan.assignment.settle.max(RETURN_PATIENCE);
        let deadline = Instant::now() + timeout;
        let (mut reconnects, mut since) = (self.tally().reconnects, Instant::now());
        while !self.holds(&condition) && !self.interrupted() {
            self.pause()?;
            let now = self.tally().reconnects;
            if std::mem::replace(&mut reconnects, now) != now {
                since = Instant::now();
            }
            if since.elapsed() > patience {
                return Err(format!("coming back: no client has signed in for {} s", patience.as_secs()));
            }
            if Instant::now() > deadline {
                return Err(format!("coming back: not within {} s", timeout.as_secs()));
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

    /// Starts a stream after `lead`.
    pub(crate) fn begin(&mut self, mut traffic: Traffic, lead: Duration) -> Traffic {
        traffic.start_ns = self.now_ns() + lead.as_nanos() as u64;
        self.watch.planned.add(&traffic);
        self.watch.sends(&traffic);
        self.order(Order::Traffic(traffic.clone()));
        traffic
    }

    /// Members join the rooms of a stream, if it has any, so that nobody misses the first message. Once for each room: who is
    /// a member does not join again.
    pub(crate) fn join(&mut self, traffic: &Traffic) -> Result<(), String> {
        let joining = traffic.joining();
        if joining == 0 {
            return Ok(());
        }
        let before = self.tally();
        // An empty stream joins the rooms.
        self.begin(Traffic { duration: Duration::ZERO, ..traffic.clone() }, Duration::ZERO);
        let turned_away = |tally: &Tally| tally.turned_away - before.turned_away;
        self.wait_for("joining the rooms", Duration::from_secs(30 + joining / 1000), |tally| {
            tally.subscribed - before.subscribed + turned_away(tally) >= joining
        })?;
        match turned_away(&self.tally()) {
            0 => Ok(()),
            refused => Err(format!("joining the rooms: {refused} of {joining} were refused")),
        }
    }

    /// One stream on its own: messages flow, and what is still under way arrives. See [`Self::join`].
    pub(crate) fn flow(&mut self, traffic: Traffic) -> Result<(), String> {
        let (lead, duration) = (self.lead(), traffic.duration);
        self.begin(traffic, lead);
        self.hold(duration + lead)?;
        self.settle(Tally::is_settled)
    }

    /// Waits until what was sent is answered, and delivered if `done` asks for that. What is missing after a while is
    /// for the report.
    pub(crate) fn settle(&mut self, done: impl Fn(&Tally) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + self.shared.plan.assignment.settle;
        if self.interrupted() {
            self.order(Order::Stop);
            self.watch.planned.stop(self.shared.now_ns());
            // What was sent up to now is still answered.
            std::thread::sleep(Duration::from_millis(200));
        }
        let (mut delivered, mut since) = (0, Instant::now());
        loop {
            let tally = self.tally();
            if std::mem::replace(&mut delivered, tally.delivered) != tally.delivered {
                since = Instant::now();
            }
            // As much has come as was accepted, but it may be something else.
            let is_sure = !tally.is_unsure() || since.elapsed() >= QUIET;
            if (self.holds(&done) && is_sure) || Instant::now() > deadline {
                return Ok(());
            }
            self.pause()?;
        }
    }

    /// Lets the clients come to rest before the run is judged: those who are on their way back sign in, heartbeats are answered,
    /// and what comes twice has time to come.
    pub(crate) fn rest(&mut self) -> Result<(), String> {
        if self.interrupted() {
            return Ok(());
        }
        self.end();
        self.order(Order::Rest);
        let wanted = self.wanted.iter().sum::<usize>() as u64;
        let is_there = |tally: &Tally| {
            let on_their_way = tally.connecting + tally.waiting > 0;
            tally.heartbeats_under_way + tally.last_pings == 0
                && (tally.connections + tally.kept_away >= wanted || !on_their_way)
        };
        let deadline = Instant::now() + self.shared.plan.assignment.settle;
        while !self.holds(is_there) && !self.interrupted() && Instant::now() < deadline {
            self.pause()?;
        }
        if self.tally().sent > 0 {
            self.hold(QUIET)?;
        }
        Ok(())
    }

    /// Begins the last phase, if it has not begun.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.phase("end");
        }
    }

    fn pause(&mut self) -> Result<(), String> {
        std::thread::sleep(Duration::from_millis(10));
        if let Some(ended) = self.threads.iter().position(JoinHandle::is_finished) {
            let ended = Ended::join(self.threads.swap_remove(ended));
            self.take_in(ended, Some("a driver thread has ended"));
            return Err("the driver of a part of the clients was lost".to_owned());
        }
        self.watch.tick(false, self.wanted.iter().sum());
        Ok(())
    }

    /// A driver has ended: what its clients know, and why it has ended if it was not told to.
    fn take_in(&mut self, ended: Ended, untold: Option<&str>) {
        match ended {
            Ended::InOrder(books) => {
                self.books.add(*books);
                self.lost.extend(untold.map(str::to_owned));
            }
            Ended::Lost(error) => self.lost.push(error),
        }
    }

    /// Ends the threads and adds everything up. What kept them from ending well is among the report's errors.
    pub(crate) fn finish(mut self) -> Report {
        self.end();
        self.collect();
        let tally = self.tally();
        self.watch.planned.stop(self.shared.now_ns());
        let planned = self.watch.planned.total;
        self.shared.stop();
        for ended in std::mem::take(&mut self.threads).into_iter().map(Ended::join) {
            self.take_in(ended, None);
        }
        let balance = match self.lost.is_empty() {
            true => self.books.balance(),
            // What the clients of a lost driver know is lost with them: only sums are left.
            false => Balance {
                delivered: tally.delivered,
                lost: tally.owed.saturating_sub(tally.delivered),
                undecided: tally.undecided,
                unanswered: tally.sent.saturating_sub(tally.accepted + tally.refused + tally.undecided),
                ..Balance::default()
            },
        };
        let interrupted = self.interrupted();
        let mut report = Report {
            connections: self.wanted,
            gateways: self.shared.plan.assignment.addresses(),
            host: Host::this(),
            reconnects: self.shared.plan.assignment.reconnect,
            settle: self.shared.plan.assignment.settle,
            tally,
            planned,
            interrupted,
            found: self.books.found,
            balance,
            ..self.watch.finish()
        };
        for error in self.lost {
            *report.errors.entry(error).or_default() += 1;
        }
        report
    }
}

/// Waits until the run's zero has come and every worker is ready; not for ever.
fn await_ready(shared: &Shared, threads: &[JoinHandle<Ended>]) {
    let deadline = Instant::now() + READY_TIMEOUT;
    while shared.now_ns() == 0 || !shared.team.iter().all(Mate::is_ready) {
        if Instant::now() > deadline || threads.iter().any(JoinHandle::is_finished) || interrupt::asked() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
