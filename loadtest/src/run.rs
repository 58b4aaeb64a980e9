//! A run: driver threads, phases, live view; what it gathers becomes a [`Report`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use ringgate::session::Transport;

use crate::fleet;
use crate::gateway::Process;
use crate::hdr_log::HdrLog;
use crate::ledger::Ledger;
use crate::plan::{Order, Plan, Shared, Tally};
use crate::record::{Quantiles, Record};
use crate::report::{Phase, Report};
use crate::timeline::{Point, Timeline};
use crate::traffic::{Planned, Traffic};
use crate::view::View;

/// Driver threads at work.
pub(crate) struct Run {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<Ledger, String>>>,
    wanted: [usize; 2],
    began: Instant,
    view: View,
    hdr_log: Option<HdrLog>,
    interrupted: Arc<AtomicBool>,
    server: Option<Process>,
    timeline: Timeline,
    total: Record,
    phases: Vec<Phase>,
    phase: Open,
    last: Sample,
    streams: u8,
    planned: Planned,
}

/// A phase that is under way.
struct Open {
    name: String,
    record: Record,
    from: Sample,
}

/// Everything that grows, at one moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    tally: Tally,
    driver_cpu: Duration,
    server_cpu: Option<Duration>,
}

/// Between two points of the timeline.
const POINT: Duration = Duration::from_millis(1000);

impl Run {
    /// Starts the threads.
    pub(crate) fn start(
        plan: Plan,
        view: View,
        server: Option<Process>,
        hdr_log: Option<HdrLog>,
    ) -> Result<Run, String> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // A second signal ends the process at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())
                .and_then(|_| signal_hook::flag::register(signal, interrupted.clone()))
                .map_err(|error| format!("signal {signal}: {error}"))?;
        }
        let count = plan.threads;
        let shared = Arc::new(Shared::new(plan));
        let threads = (0..count)
            .map(|thread| {
                let shared = shared.clone();
                std::thread::spawn(move || fleet::run(shared, thread))
            })
            .collect();
        let now = Sample::take(&shared, server);
        Ok(Run {
            shared,
            threads,
            wanted: [0; 2],
            began: Instant::now(),
            view,
            hdr_log,
            interrupted,
            server,
            timeline: Timeline::default(),
            total: Record::default(),
            phases: Vec::new(),
            phase: Open { name: "connect".to_owned(), record: Record::default(), from: now },
            last: now,
            streams: 0,
            planned: Planned::default(),
        })
    }

    /// Live counts.
    pub(crate) fn tally(&self) -> Tally {
        self.shared.counts().read()
    }

    /// Whether somebody has asked for the end.
    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
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
        // What was recorded belongs to the phase that ends. A thread that has ended hands nothing over any more.
        self.shared.collect();
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.shared.is_collected() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.tick(true);
        let now = Sample::take(&self.shared, self.server);
        let next = Open { name: name.to_owned(), record: Record::default(), from: now };
        let done = std::mem::replace(&mut self.phase, next);
        self.close_phase(done, now);
    }

    fn close_phase(&mut self, phase: Open, now: Sample) {
        let seconds = (now.at - phase.from.at).as_secs_f64();
        let (before, after) = (phase.from.tally, now.tally);
        let cpu = now.server_cpu.zip(phase.from.server_cpu).map(|(now, before)| now.saturating_sub(before));
        let threads = self.shared.plan.threads.min(std::thread::available_parallelism().map_or(1, |n| n.get()));
        let driver = now.driver_cpu.saturating_sub(phase.from.driver_cpu).as_secs_f64();
        self.phases.push(Phase {
            name: phase.name,
            seconds,
            connected: after.connections.saturating_sub(before.connections),
            sent: after.sent - before.sent,
            accepted: after.accepted - before.accepted,
            delivered: after.delivered - before.delivered,
            pongs: after.pongs - before.pongs,
            errors: after.errors - before.errors,
            reconnects: after.reconnects - before.reconnects,
            driver_busy: driver / (seconds * threads as f64).max(f64::MIN_POSITIVE),
            server_cpu_seconds: cpu.map(|cpu| cpu.as_secs_f64()),
            record: phase.record,
        });
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
        while Instant::now() < until && !self.interrupted() {
            self.pause()?;
        }
        Ok(())
    }

    /// Numbers a stream and starts it after `lead`.
    pub(crate) fn begin(&mut self, mut traffic: Traffic, lead: Duration) -> Traffic {
        self.streams = self.streams.wrapping_add(1).max(1);
        traffic.id = self.streams;
        traffic.start_ns = self.now_ns() + lead.as_nanos() as u64;
        self.planned.add(&traffic);
        self.order(Order::Traffic(traffic.clone()));
        traffic
    }

    /// One stream on its own: members join, messages flow, and what is still under way arrives.
    pub(crate) fn traffic(&mut self, traffic: Traffic) -> Result<(), String> {
        let joined_before = self.tally().subscribed;
        let joining = traffic.joining();
        let duration = traffic.duration;
        if joining > 0 {
            // Members first, so that nobody misses the first message: an empty stream joins the rooms.
            self.begin(Traffic { duration: Duration::ZERO, ..traffic.clone() }, Duration::ZERO);
            self.wait_for("joining the rooms", Duration::from_secs(30 + joining / 1000), |tally| {
                tally.subscribed - joined_before >= joining
            })?;
        }
        self.begin(traffic, Duration::from_millis(50));
        self.hold(duration + Duration::from_millis(50))?;
        self.settle(Tally::is_settled)
    }

    /// Waits until what was sent is answered, and delivered if `done` asks for that. What is missing after a while is
    /// for the report.
    pub(crate) fn settle(&mut self, done: impl Fn(&Tally) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        if self.interrupted() {
            self.order(Order::Stop);
            self.planned.clear();
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
        self.tick(false);
        Ok(())
    }

    /// Once in a while: a point of the timeline, a line of the log, a look for whoever watches.
    fn tick(&mut self, now: bool) {
        if !now && self.last.at.elapsed() < POINT {
            return;
        }
        let sample = Sample::take(&self.shared, self.server);
        let record = self.shared.take_record();
        let seconds = (sample.at - self.last.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let (before, after) = (self.last.tally, sample.tally);
        let cores = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / seconds;
        let point = Point {
            at: (sample.at - self.began).as_secs_f64(),
            seconds,
            connections: after.connections,
            connecting: after.connecting,
            planned: self.planned.advance(self.shared.now_ns()),
            sent: after.sent + after.pings - before.sent - before.pings,
            accepted: after.accepted - before.accepted,
            pongs: after.pongs - before.pongs,
            delivered: after.delivered - before.delivered,
            closed: after.closed - before.closed,
            refused: after.refused - before.refused,
            errors: after.errors - before.errors,
            latency: Quantiles::from(&record.of(record.main()).planned),
            driver_cores: cores(sample.driver_cpu, self.last.driver_cpu),
            gateway_cores: sample.server_cpu.zip(self.last.server_cpu).map(|(now, before)| cores(now, before)),
            gateway_bytes: self.server.map(Process::user_bytes),
        };
        if let Some(log) = &mut self.hdr_log {
            log.write(self.last.at - self.began, sample.at - self.last.at, &record);
        }
        self.phase.record.add(&record);
        self.total.add(&record);
        self.view.show(&self.phase.name, &point, after, self.wanted[0] + self.wanted[1], &record);
        self.timeline.push(point);
        self.last = sample;
    }

    /// Ends the threads and adds everything up.
    pub(crate) fn finish(mut self) -> Result<Report, String> {
        self.phase("end");
        let tally = self.tally();
        self.shared.stop();
        let mut report = Report {
            connections: self.wanted,
            tally,
            began: Some(SystemTime::now() - self.began.elapsed()),
            seconds: self.began.elapsed().as_secs_f64(),
            interrupted: self.interrupted(),
            ..Report::default()
        };
        for thread in self.threads.drain(..) {
            let ledger = thread.join().map_err(|_| "a driver thread panicked".to_owned())??;
            report.delivered += ledger.delivered;
            report.duplicated += ledger.duplicated;
            report.reordered += ledger.reordered;
            report.corrupted += ledger.corrupted;
        }
        // What came in while connections were being closed.
        self.total.add(&self.shared.take_record());
        let troubles = std::mem::take(&mut self.total.troubles);
        (report.errors, report.refused, report.closed) = (troubles.errors, troubles.refused, troubles.closed);
        let unanswered = tally.sent.saturating_sub(tally.accepted + tally.refused + tally.undecided);
        if unanswered > 0 {
            report.errors.insert("publishes without an answer".to_owned(), unanswered);
        }
        report.lost = tally.owed.saturating_sub(report.delivered);
        report.timeline = self.timeline.points().to_vec();
        report.phases = self.phases;
        report.record = self.total;
        if let Some(log) = self.hdr_log
            && let Err(error) = log.finish()
        {
            report.errors.insert(format!("--hdr-log: {error}"), 1);
        }
        self.view.end();
        Ok(report)
    }
}

impl Sample {
    fn take(shared: &Shared, server: Option<Process>) -> Sample {
        Sample {
            at: Instant::now(),
            tally: shared.counts().read(),
            driver_cpu: Process::own().cpu(),
            server_cpu: server.map(Process::cpu),
        }
    }
}
