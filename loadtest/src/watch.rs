//! What is gathered while a run goes on: points of the timeline, phases, and who is to see or keep them meanwhile.
//!
//! Plain data comes out of it. Nothing in it grows with the length of a run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::assignment::Part;
use crate::figure::What;
use crate::gateway::Process;
use crate::guard::{self, Guard, Piece, Standing};
use crate::hdr_log::HdrLog;
use crate::mate::Mate;
use crate::metrics::{Exporter, Live, Scraper};
use crate::plan::{Shared, Tally};
use crate::record::{Measure, Names, Quantiles, Record};
use crate::report::{Phase, RAMP, Report, Worker};
use crate::threshold::Threshold;
use crate::timeline::{Point, Timeline};
use crate::traffic::{Planned, Traffic};
use crate::view::{Look, View};

/// Whom a run is shown to, and what else is looked at during it.
#[derive(Default)]
pub(crate) struct Outlets {
    /// A person.
    pub(crate) view: View,
    /// The processes of the gateways that are on this machine.
    pub(crate) processes: Vec<Process>,
    /// The gateway's own metrics.
    pub(crate) scraper: Option<Scraper>,
    /// Programs that ask for this load tester's own metrics.
    pub(crate) exporter: Option<Exporter>,
    /// A file of intervals.
    pub(crate) hdr_log: Option<HdrLog>,
    /// What the run will be judged by.
    pub(crate) fail_if: Vec<Threshold>,
    /// What ends it early.
    pub(crate) abort_if: Vec<Threshold>,
}

/// See the module.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    outlets: Outlets,
    guard: Guard,
    /// The condition that is to end the run early, with what was found.
    pub(crate) aborted: Option<String>,
    began: Instant,
    timeline: Timeline,
    total: Record,
    phases: Vec<Phase>,
    phase: Open,
    first: Sample,
    last: Sample,
    /// When the present wait is over, for the screen.
    pub(crate) until: Option<Instant>,
    /// What the streams' schedules hold.
    pub(crate) planned: Planned,
    /// What populations and streams are called.
    pub(crate) names: Names,
    /// What the run's latency is where nothing more is said; what there is, if not given.
    pub(crate) measure: Option<Measure>,
    /// The run goes on until the gateway refuses: its refusals are no errors, but what the load tester could not do is.
    pub(crate) until_refused: bool,
}

/// A phase that is under way.
struct Open {
    name: String,
    /// It counts in the figures of the whole run.
    measured: bool,
    record: Record,
    from: Sample,
    /// From the beginning of its first stream to the end of its last, in nanoseconds since the run's zero; none without a
    /// stream.
    sends: Option<(u64, u64)>,
}

/// Everything that grows, at one moment.
#[derive(Clone)]
struct Sample {
    at: Instant,
    tally: Tally,
    /// CPU time and driver threads of each process that drives clients.
    drivers: Vec<(Duration, usize)>,
    server_cpu: Option<Duration>,
}

/// Between two points of the timeline.
const POINT: Duration = Duration::from_millis(1000);

impl Watch {
    /// Begins with the phase `connect`.
    pub(crate) fn new(shared: Arc<Shared>, mut outlets: Outlets) -> Watch {
        let now = Sample::take(&shared, &outlets.processes);
        Watch {
            shared,
            guard: Guard::new(std::mem::take(&mut outlets.abort_if)),
            outlets,
            aborted: None,
            began: Instant::now(),
            timeline: Timeline::default(),
            total: Record::default(),
            phases: Vec::new(),
            phase: Open {
                name: RAMP.to_owned(),
                measured: true,
                record: Record::default(),
                from: now.clone(),
                sends: None,
            },
            first: now.clone(),
            last: now,
            until: None,
            planned: Planned::default(),
            names: Names::default(),
            measure: None,
            until_refused: false,
        }
    }

    /// A stream begins in the present phase.
    pub(crate) fn sends(&mut self, traffic: &Traffic) {
        if traffic.duration.is_zero() {
            return;
        }
        let (start, end) = (traffic.start_ns, traffic.end_ns());
        let (first, last) = self.phase.sends.unwrap_or((start, end));
        self.phase.sends = Some((first.min(start), last.max(end)));
    }

    /// Ends the present phase and begins another. Whatever was recorded in it has been handed over.
    pub(crate) fn phase(&mut self, name: &str, measured: bool, wanted: usize) {
        self.tick(true, wanted);
        let now = Sample::take(&self.shared, &self.outlets.processes);
        let next = Open { name: name.to_owned(), measured, record: Record::default(), from: now.clone(), sends: None };
        let done = std::mem::replace(&mut self.phase, next);
        self.close_phase(done, now);
        // Programs that follow the phases hear of the new one as it begins.
        self.tell_programs(self.last.tally);
    }

    fn tell_programs(&self, tally: Tally) {
        if let Some(exporter) = &self.outlets.exporter {
            exporter.show(&self.phase.name, &tally, &self.total, &self.names);
        }
    }

    fn close_phase(&mut self, phase: Open, now: Sample) {
        let seconds = (now.at - phase.from.at).as_secs_f64();
        let (before, after) = (phase.from.tally, now.tally);
        let cpu = now.server_cpu.zip(phase.from.server_cpu).map(|(now, before)| now.saturating_sub(before));
        // With several processes the busiest is the one that may have been the limit.
        let driver_busy = busy(&phase.from, &now).into_iter().fold(0.0, f64::max);
        let now_ns = self.shared.now_ns();
        let sending = phase.sends.map(|(first, last)| last.min(now_ns).saturating_sub(first) as f64 / 1e9);
        self.phases.push(Phase {
            name: phase.name,
            seconds,
            sending_seconds: sending.unwrap_or(0.0),
            connected: after.connections.saturating_sub(before.connections),
            handshakes: [after.tls_full - before.tls_full, after.tls_resumed - before.tls_resumed],
            sent: after.sent - before.sent,
            accepted: after.accepted - before.accepted,
            delivered: after.delivered - before.delivered,
            pongs: after.pongs - before.pongs,
            errors: after.errors - before.errors,
            reconnects: after.reconnects - before.reconnects,
            driver_busy,
            driver_cpu_seconds: now.driver_cpu().saturating_sub(phase.from.driver_cpu()).as_secs_f64(),
            server_cpu_seconds: cpu.map(|cpu| cpu.as_secs_f64()),
            record: phase.record,
        });
    }

    /// Once in a while, or now: a point of the timeline, a line of the log, a look for the screen.
    pub(crate) fn tick(&mut self, now: bool, wanted: usize) {
        if !now && self.last.at.elapsed() < POINT {
            return;
        }
        let sample = Sample::take(&self.shared, &self.outlets.processes);
        let record = self.shared.take_record();
        let seconds = (sample.at - self.last.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let point = self.point(&sample, seconds, &record);
        if let Some(log) = &mut self.outlets.hdr_log {
            log.write(self.last.at - self.began, sample.at - self.last.at, &record);
        }
        self.phase.record.add(&record);
        if self.phase.measured {
            self.total.add(&record);
        } else {
            // Latencies of a warm-up are left out, but what went wrong in it is not.
            self.total.troubles.add(&record.troubles);
            self.total.stall_us = self.total.stall_us.max(record.stall_us);
        }
        if self.guard.is_needed() && self.aborted.is_none() {
            let busy = busy(&self.last, &sample).into_iter().fold(0.0, f64::max);
            let main = self.measure.unwrap_or_else(|| self.total.main());
            self.aborted = self.guard.look(Piece::of(&point, &record, busy), sample.tally, &self.names, main);
        }
        self.tell_programs(sample.tally);
        let standings = self.standings(sample.tally);
        self.outlets.view.show(Look {
            standings,
            phase: &self.phase.name,
            until: self.until,
            point: &point,
            tally: sample.tally,
            wanted,
            record: &record,
            measure: self.measure_of(&record),
            live: self.live(),
        });
        self.timeline.push(point);
        self.last = sample;
    }

    fn point(&mut self, sample: &Sample, seconds: f64, record: &Record) -> Point {
        let (before, after) = (self.last.tally, sample.tally);
        let live = self.live();
        let seen = sample.server_cpu.zip(self.last.server_cpu);
        let cores = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / seconds;
        Point {
            at: (sample.at - self.began).as_secs_f64(),
            seconds,
            connections: after.connections,
            connecting: after.connecting,
            planned: self.planned.advance(self.shared.now_ns()),
            sent: scheduled(after).saturating_sub(scheduled(before)),
            accepted: after.accepted - before.accepted,
            pongs: after.pongs - before.pongs,
            delivered: after.delivered - before.delivered,
            closed: after.closed - before.closed,
            refused: after.refused - before.refused,
            errors: after.errors - before.errors,
            latency: Quantiles::from(&record.of(self.measure_of(record)).planned),
            driver_cores: cores(sample.driver_cpu(), self.last.driver_cpu()),
            gateway_cores: seen.map(|(now, before)| cores(now, before)).or(live.cores),
            gateway_bytes: of_all(&self.outlets.processes, Process::user_bytes)
                .or(live.bytes.map(|bytes| bytes as u64)),
        }
    }

    /// How the thresholds stand now.
    fn standings(&self, tally: Tally) -> Vec<Standing> {
        let main = self.measure.unwrap_or_else(|| self.total.main());
        let value = |threshold: &Threshold| {
            let figure = threshold.figure();
            match (&figure.what, &figure.phase) {
                (What::Other(name), None) => guard::count(name, tally),
                (What::Other(_), Some(_)) => None,
                (_, None) => figure.of_records(std::iter::once(&self.total), &self.names, main).map(|(value, _)| value),
                (_, Some(name)) => {
                    let done = self.phases.iter().filter(|phase| phase.name == *name).map(|phase| &phase.record);
                    let open = (self.phase.name == *name).then_some(&self.phase.record);
                    figure.of_records(done.chain(open), &self.names, main).map(|(value, _)| value)
                }
            }
        };
        self.outlets.fail_if.iter().map(|threshold| Standing::new(threshold, value(threshold))).collect()
    }

    fn measure_of(&self, record: &Record) -> Measure {
        self.measure.unwrap_or_else(|| record.main())
    }

    fn live(&self) -> Live {
        self.outlets.scraper.as_ref().map(Scraper::live).unwrap_or_default()
    }

    /// What is to be said of each worker, if there are any.
    fn workers(&self) -> Vec<Worker> {
        let (team, clients) = (&self.shared.team, self.shared.plan.assignment.connections);
        let busy = busy(&self.first, &self.last);
        let worker = |(worker, (mate, busy)): (usize, (&Mate, f64))| Worker {
            address: mate.address,
            clock_offset_ns: mate.clock.offset_ns,
            clock_error_ns: mate.clock.error_ns,
            connections: clients.iter().map(|count| Part { worker, of: team.len() }.share(*count)).sum(),
            driver_busy: busy,
        };
        team.iter().zip(busy).enumerate().map(worker).collect()
    }

    /// Of what came after the last phase, messages are a phase of their own. Anything else is the last one's: a heartbeat that
    /// was answered then says nothing for itself.
    fn join_rest(&mut self) {
        let Some(rest) = self.phases.pop() else { return };
        let has_messages = rest.sent + rest.accepted + rest.delivered > 0 || rest.record.has(Measure::Deliver);
        match self.phases.last_mut() {
            Some(last) if !has_messages => last.take_in(rest),
            _ => self.phases.push(rest),
        }
    }

    /// Everything that was gathered. Called when the driver threads have ended.
    pub(crate) fn finish(mut self) -> Report {
        // What came in since the last phase ended, while connections were being closed.
        self.guard = Guard::default();
        // The clients have left: nothing of that is for the screen.
        self.outlets.view = View::default();
        self.tick(true, 0);
        let now = Sample::take(&self.shared, &self.outlets.processes);
        let rest = std::mem::replace(
            &mut self.phase,
            Open { name: String::new(), measured: true, record: Record::default(), from: now.clone(), sends: None },
        );
        self.close_phase(rest, now);
        self.join_rest();
        let troubles = std::mem::take(&mut self.total.troubles);
        let (errors, refusals) = match self.until_refused {
            true => (troubles.own, troubles.errors),
            false => (troubles.all_errors(), BTreeMap::new()),
        };
        let mut report = Report {
            measure: Some(self.measure_of(&self.total)),
            refusals: self.until_refused.then_some(refusals),
            workers: self.workers(),
            began: Some(SystemTime::now() - self.began.elapsed()),
            seconds: self.began.elapsed().as_secs_f64(),
            errors,
            refused: troubles.refused,
            closed: troubles.closed,
            timeline: self.timeline.points().to_vec(),
            closed_loops: self.planned.closed_loops,
            phases: self.phases,
            aborted: self.aborted,
            names: self.names,
            record: self.total,
            metrics: self.outlets.scraper.map(Scraper::finish),
            ..Report::default()
        };
        if let Some(log) = self.outlets.hdr_log
            && let Err(error) = log.finish()
        {
            report.errors.insert(format!("--hdr-log: {error}"), 1);
        }
        report
    }
}

/// Everything sent that a schedule, or a closed loop, asked for. The counts are not read at one instant, so a heartbeat
/// may be counted before its Ping.
fn scheduled(tally: Tally) -> u64 {
    tally.sent + tally.pings.saturating_sub(tally.heartbeats)
}

/// How busy the driver threads of each process were between two samples: 0 to 1.
fn busy(before: &Sample, now: &Sample) -> Vec<f64> {
    let seconds = (now.at - before.at).as_secs_f64();
    let pairs = now.drivers.iter().zip(&before.drivers);
    let share = |((now, threads), (before, _)): (&(Duration, usize), &(Duration, usize))| {
        now.saturating_sub(*before).as_secs_f64() / (seconds * *threads as f64).max(f64::MIN_POSITIVE)
    };
    pairs.map(share).collect()
}

impl Sample {
    /// CPU time of all of them.
    fn driver_cpu(&self) -> Duration {
        self.drivers.iter().map(|(cpu, _)| *cpu).sum()
    }

    fn take(shared: &Shared, servers: &[Process]) -> Sample {
        Sample {
            at: Instant::now(),
            tally: shared.counts().read(),
            drivers: shared.drivers(),
            server_cpu: of_all(servers, Process::cpu),
        }
    }
}

/// What these processes have together; none where none is known.
fn of_all<T: std::iter::Sum>(processes: &[Process], figure: fn(Process) -> T) -> Option<T> {
    (!processes.is_empty()).then(|| processes.iter().map(|process| figure(*process)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_several_then_their_figures_are_added_up() {
        let number = |process: Process| u64::from(process.0);
        assert_eq!(of_all(&[Process(3), Process(4)], number), Some(7));
        assert_eq!(of_all(&[], number), None, "nothing is known of them");
    }
}
