//! What a run found, and the figures that follow from it.
//!
//! | file | what |
//! |---|---|
//! | `text` | a table for people |
//! | `json` | an object for programs |
//! | `junit`, `csv` | the verdict for CI services, latencies for spreadsheets |

mod csv;
mod json;
mod junit;
mod text;

pub(crate) use json::SCHEMA;
pub(crate) use text::percent;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::Outcome;
use crate::figure::{Figure, What};
use crate::ledger::{Balance, Found};
use crate::metrics::Metrics;
use crate::plan::Tally;
use crate::record::{Latency, Measure, Names, Quantiles, Record, Series, histogram, human_us};
use crate::threshold::{Threshold, Verdict};
use crate::timeline::Point;

/// Everything that is known at the end.
#[derive(Default)]
pub(crate) struct Report {
    /// How the program was called.
    pub(crate) command: String,
    /// What was driven: what two results must have in common to be compared. By the names of options.
    pub(crate) load: serde_json::Map<String, serde_json::Value>,
    /// Where the gateway was: the addresses that clients went to.
    pub(crate) gateways: Vec<String>,
    /// Where this load tester ran; its workers, if it had any, say where they connected from.
    pub(crate) host: Host,
    /// When the run began.
    pub(crate) began: Option<SystemTime>,
    /// Connections that were wanted: plain, TLS.
    pub(crate) connections: [usize; 2],
    /// Live counts at the end.
    pub(crate) tally: Tally,
    /// Length of the run.
    pub(crate) seconds: f64,
    /// Somebody ended it early.
    pub(crate) interrupted: bool,
    /// The condition of `--abort-if` that ended it, and what was found.
    pub(crate) aborted: Option<String>,
    /// Messages and Pings that the schedules held.
    pub(crate) planned: u64,
    /// What was seen when messages came.
    pub(crate) found: Found,
    /// What became of all messages.
    pub(crate) balance: Balance,
    /// How long what was accepted could take to arrive.
    pub(crate) settle: Duration,
    /// What does not fail the run.
    pub(crate) allowed: Vec<Allowance>,
    /// Anything that went wrong, by kind.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Why the run did not get to its end; what of it went wrong how often is among the errors.
    pub(crate) failure: Option<String>,
    /// What ended a ramp that went on until the gateway refused; none if the run was no such.
    pub(crate) refusals: Option<BTreeMap<String, u64>>,
    /// What is to be known about the load itself: clients that have no part in it.
    pub(crate) notes: Vec<String>,
    /// Refused requests, by code.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Connections that ended unasked, by close code; 0 without one.
    pub(crate) closed: BTreeMap<u16, u64>,
    /// Whether clients that are closed come back; where they do not, each that was closed is an error, too.
    pub(crate) reconnects: bool,
    /// In order.
    pub(crate) phases: Vec<Phase>,
    /// Over time.
    pub(crate) timeline: Vec<Point>,
    /// Something was sent in closed loops, without a plan.
    pub(crate) closed_loops: bool,
    /// What the series of its records are called.
    pub(crate) names: Names,
    /// All phases together.
    pub(crate) record: Record,
    /// What its latency is where nothing more is said; what there is, if none.
    pub(crate) measure: Option<Measure>,
    /// Gateway's user memory per idle connection: plain, TLS.
    pub(crate) idle_bytes: [Option<f64>; 2],
    /// What the gateway says about itself, where it was asked.
    pub(crate) metrics: Option<Metrics>,
    /// Processes that drove the clients, where it was not this one.
    pub(crate) workers: Vec<Worker>,
    /// Thresholds, in the order in which they were given.
    pub(crate) verdicts: Vec<Verdict>,
}

/// A host, as far as a result depends on it.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Host {
    /// What it calls itself.
    pub(crate) name: String,
    /// Release of its kernel.
    pub(crate) kernel: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
}

impl Host {
    /// The one that this runs on. What cannot be found out is empty.
    pub(crate) fn this() -> Host {
        let read = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
            text.trim().to_owned()
        };
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Host { name: read("hostname"), kernel: read("osrelease"), cores }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        format!("{}, {} cores, Linux {}", self.name, self.cores, self.kernel)
    }
}

/// A latency of a run or a phase.
pub(crate) struct Timed<'a> {
    /// Of this stream or population; of all if none.
    pub(crate) name: Option<&'a str>,
    /// What.
    pub(crate) measure: Measure,
    /// The durations.
    pub(crate) latency: Cow<'a, Latency>,
}

impl Timed<'_> {
    /// `deliver` or `chat.deliver`.
    pub(crate) fn label(&self) -> String {
        let measure = self.measure.label();
        self.name.map_or(measure.to_owned(), |name| format!("{name}.{measure}"))
    }
}

/// Something that fails a run unless it is allowed: it says more about the load, or about this load tester, than about what a
/// gateway promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Allowance {
    /// Planned messages whose sender was not connected, and churn of clients that were not back yet.
    Skipped,
    /// Publishes whose connection ended before the answer.
    Undecided,
    /// Planned messages that this load tester came too late to send.
    NeverSent,
    /// Pings of the load, and heartbeats, without a Pong.
    PingsUnanswered,
    /// Clients that were not connected at the end.
    Away,
    /// The load tester itself was the limit: saturated, or kept from running.
    Driver,
}

/// A process that drove a part of the clients.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Worker {
    /// Where it connected from.
    pub(crate) address: SocketAddr,
    /// Nanoseconds by which its clock was ahead of the controller's, which latencies between workers are corrected by.
    pub(crate) clock_offset_ns: i64,
    /// That is wrong by no more than this.
    pub(crate) clock_error_ns: u64,
    /// Clients that it had.
    pub(crate) connections: usize,
    /// Share of its driver threads' time that was busy during the run.
    pub(crate) driver_busy: f64,
}

impl Worker {
    /// Its clock, for people.
    pub(crate) fn clock_text(&self) -> String {
        let us = |ns: f64| ns / 1e3;
        format!("{:+.0} us, give or take {:.0}", us(self.clock_offset_ns as f64), us(self.clock_error_ns as f64))
    }
}

/// The phase in which clients connect.
pub(crate) const RAMP: &str = "connect";

/// A part of a run.
pub(crate) struct Phase {
    /// What it was.
    pub(crate) name: String,
    /// Its length.
    pub(crate) seconds: f64,
    /// Of that, from the beginning of its first stream to the end of its last; 0 without a stream.
    pub(crate) sending_seconds: f64,
    /// Connections gained in it.
    pub(crate) connected: u64,
    /// TLS handshakes in it: full, resumed.
    pub(crate) handshakes: [u64; 2],
    /// Publishes sent in it.
    pub(crate) sent: u64,
    /// Publishes answered.
    pub(crate) accepted: u64,
    /// Deliveries.
    pub(crate) delivered: u64,
    /// Pongs.
    pub(crate) pongs: u64,
    /// Errors.
    pub(crate) errors: u64,
    /// Clients that came back.
    pub(crate) reconnects: u64,
    /// Share of the driver's cores that were busy.
    pub(crate) driver_busy: f64,
    /// CPU time of all processes that drove clients.
    pub(crate) driver_cpu_seconds: f64,
    /// CPU time of the gateway, where its process is known.
    pub(crate) server_cpu_seconds: Option<f64>,
    /// Its latencies.
    pub(crate) record: Record,
}

impl Phase {
    /// Adds what came after it. Its length and the CPU time in it stay what they are.
    pub(crate) fn take_in(&mut self, rest: Phase) {
        self.connected += rest.connected;
        for (own, others) in self.handshakes.iter_mut().zip(rest.handshakes) {
            *own += others;
        }
        self.sent += rest.sent;
        self.accepted += rest.accepted;
        self.delivered += rest.delivered;
        self.pongs += rest.pongs;
        self.errors += rest.errors;
        self.reconnects += rest.reconnects;
        self.record.add(&rest.record);
    }

    /// Whether clients connect in it, of all or of one kind.
    fn is_ramp(&self) -> bool {
        self.name.strip_prefix(RAMP).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}

/// Publishes accepted each second while streams were sending; none where no stream was.
fn rate<'a>(phases: impl Iterator<Item = &'a Phase>) -> Option<f64> {
    let sum = |(seconds, accepted), phase: &Phase| (seconds + phase.sending_seconds, accepted + phase.accepted);
    let (seconds, accepted) = phases.filter(|phase| phase.sent > 0).fold((0.0, 0), sum);
    (seconds > 0.0).then(|| accepted as f64 / seconds)
}

/// How the load tester itself got in the way.
pub(crate) struct DriverLimit {
    /// It fails the run unless [`Allowance::Driver`] is given.
    pub(crate) fails: bool,
    /// What it was.
    pub(crate) what: String,
    /// What follows for the figures.
    pub(crate) so: &'static str,
    /// What would help.
    pub(crate) advice: &'static str,
}

impl DriverLimit {
    const TOO_SLOW: DriverLimit = DriverLimit {
        fails: true,
        what: String::new(),
        so: "latencies and rates are its own, not the gateway's",
        advice: "use a faster machine for it, or a lower rate",
    };
    const KEPT_WAITING: DriverLimit = DriverLimit {
        fails: false,
        what: String::new(),
        so: "latencies contain that wait, which is not the gateway's",
        advice: "give it cores that nothing else uses",
    };
}

/// A driver busier than this is the limit itself.
const DRIVER_BUSY_MAX: f64 = 0.85;
/// In a shorter phase, the time of a process is too coarse, and a burst at its beginning is no limit.
const BUSY_SECONDS_MIN: f64 = 0.5;
/// One that is late although it was less busy than this was kept from working.
const DRIVER_IDLE_MAX: f64 = 0.5;
/// A driver thread that was kept from running for so long has measured its own absence.
const STALL_MAX_US: u64 = 1_000_000;
/// So have driver threads that were kept from running again and again, for so long and for such a share of the run in all.
const STALLED_MAX_US: u64 = 1_000_000;
const STALLED_SHARE_MAX: f64 = 0.05;
/// A schedule that is kept this badly at p99, and makes up this share of the latency that was measured, has been measured
/// instead of the gateway.
const LAG_MAX_US: u64 = 100_000;
const LAG_SHARE_OF_MEASURED_MAX: f64 = 0.5;
/// A schedule that is kept so much worse, at p99, than the latency that was measured, shows in it.
const LAG_SHARE_MAX: f64 = 0.25;
/// Below this nobody looks, nor at fewer messages than this.
const LAG_MIN_US: u64 = 200;
const LAG_SAMPLES_MIN: u64 = 100;

/// A delivery that takes longer than this is late.
const LATE_US: u64 = 1_000_000;

impl Report {
    /// Whether nothing went wrong that is not allowed, and every threshold was met.
    pub(crate) fn is_clean(&self) -> bool {
        self.faults().next().is_none()
            && self.errors.is_empty()
            && self.failure.is_none()
            && self.failed().next().is_none()
            && !self.driver_fails()
            && !self.interrupted
    }

    /// Whether this load tester was the limit, in a way that makes the figures worthless, and that is not allowed.
    pub(crate) fn driver_fails(&self) -> bool {
        !self.allowed.contains(&Allowance::Driver) && self.driver_limit().is_some_and(|limit| limit.fails)
    }

    /// What went wrong with messages and Pings, beside errors, with what allows it.
    fn counted(&self) -> [(&'static str, u64, Option<Allowance>); 16] {
        use Allowance::{Away, NeverSent, PingsUnanswered, Skipped, Undecided};
        let Balance { lost, uncertain, delivered_refused, unanswered, undecided, .. } = self.balance;
        let Found { duplicated, reordered, corrupted, misdelivered, answered_twice, answered_wrong, .. } = self.found;
        [
            ("accepted messages lost", lost, None),
            (
                "deliveries that are lost, or of refused messages: there were more than can be told apart",
                uncertain,
                None,
            ),
            ("messages duplicated", duplicated, None),
            ("messages reordered", reordered, None),
            ("messages corrupted", corrupted, None),
            ("messages misdelivered", misdelivered, None),
            ("refused messages delivered", delivered_refused, None),
            ("publishes answered twice", answered_twice, None),
            ("publishes answered with the request number of another", answered_wrong, None),
            ("publishes without an answer", unanswered, None),
            ("publishes undecided: the connection ended before the answer", undecided, Some(Undecided)),
            (
                "planned messages and Pings skipped: the client was not connected, or waited for a Pong",
                self.skipped(),
                Some(Skipped),
            ),
            (
                "planned messages and Pings never sent: this load tester was too late",
                self.never_sent(),
                Some(NeverSent),
            ),
            ("Pings without a Pong", self.pings_unanswered(), Some(PingsUnanswered)),
            ("heartbeats without a Pong", self.heartbeats_unanswered(), Some(PingsUnanswered)),
            ("clients not connected at the end", self.away(), Some(Away)),
        ]
    }

    /// What fails the run, beside errors: what it was, and how often.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let fails = |(_, count, allowance): &(_, u64, Option<Allowance>)| {
            *count > 0 && allowance.is_none_or(|allowance| !self.allowed.contains(&allowance))
        };
        self.counted().into_iter().filter(fails).map(|(what, count, _)| (what, count))
    }

    /// What would fail the run if it were not allowed, and how often.
    pub(crate) fn excused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let is_excused = |(_, count, allowance): &(_, u64, Option<Allowance>)| {
            *count > 0 && allowance.is_some_and(|allowance| self.allowed.contains(&allowance))
        };
        self.counted().into_iter().filter(is_excused).map(|(what, count, _)| (what, count))
    }

    /// Planned and not sent, or churn not carried out, because the client was not connected.
    pub(crate) fn skipped(&self) -> u64 {
        self.tally.skipped + self.tally.churns_skipped + self.tally.pings_waiting
    }

    /// Planned and not sent because this load tester came too late.
    pub(crate) fn never_sent(&self) -> u64 {
        let Tally { scheduled, skipped, skipped_by_churn, .. } = self.tally;
        self.planned.saturating_sub(scheduled + skipped + skipped_by_churn)
    }

    /// Messages, and Pings that are no heartbeats, that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.tally.sent + self.tally.pings.saturating_sub(self.tally.heartbeats)
    }

    /// Share of what was planned that was sent; none where nothing was planned.
    pub(crate) fn sent_share(&self) -> Option<f64> {
        (self.planned > 0).then(|| {
            let sent = self.tally.scheduled.saturating_sub(self.tally.pings_waiting);
            (sent as f64 / self.planned as f64).min(1.0)
        })
    }

    /// Pings of the load without a Pong.
    pub(crate) fn pings_unanswered(&self) -> u64 {
        self.tally.pings_lost + self.tally.pings_under_way
    }

    /// Heartbeats without a Pong: their connection was taken for dead, or the Pong was still missing at the end.
    pub(crate) fn heartbeats_unanswered(&self) -> u64 {
        self.tally.heartbeats_lost + self.tally.heartbeats_under_way
    }

    /// Clients that were to be connected at the end and were not. None in a run that goes on until the gateway refuses, or that
    /// was ended while they were still coming.
    pub(crate) fn away(&self) -> u64 {
        if self.refusals.is_some() || (self.interrupted && self.is_ramping()) {
            return 0;
        }
        self.wanted().saturating_sub(self.tally.connections + self.tally.kept_away)
    }

    fn wanted(&self) -> u64 {
        self.connections.iter().sum::<usize>() as u64
    }

    /// Whether the run was ended before everybody was signed in.
    fn is_ramping(&self) -> bool {
        self.phases.iter().all(Phase::is_ramp) && self.tally.connections < self.wanted()
    }

    /// What the run has come to. Where nobody ever signed in, there is nothing to judge.
    pub(crate) fn outcome(&self) -> Outcome {
        let signed_in = |phase: &Phase| phase.record.has(Measure::Connect);
        match self.is_clean() {
            true => Outcome::Good,
            false if self.interrupted || self.phases.iter().any(signed_in) => Outcome::Failed,
            false => Outcome::NotRun,
        }
    }

    /// What the run has come to, in a line: passed, or the first reasons why not.
    pub(crate) fn verdict(&self) -> String {
        const REASONS_MAX: usize = 3;
        if self.is_clean() {
            return "passed".to_owned();
        }
        let reasons = self.reasons();
        let more = reasons.len().saturating_sub(REASONS_MAX);
        let more = if more > 0 { format!("; and {more} more, see below") } else { String::new() };
        format!("FAILED: {}{more}", reasons.into_iter().take(REASONS_MAX).collect::<Vec<_>>().join("; "))
    }

    /// Why the run is not clean, in a few words each, the worst first.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let errors = self.errors.values().sum::<u64>();
        let mut reasons: Vec<String> = self.failure.iter().cloned().collect();
        reasons.extend(self.interruption());
        reasons.extend(self.driver_limit().filter(|_| self.driver_fails()).map(|limit| limit.what));
        reasons.extend(self.faults().map(|(what, count)| format!("{count} {what}")));
        reasons.extend((errors > 0).then(|| format!("{errors} errors")));
        reasons.extend(self.failed().map(|verdict| format!("threshold {verdict}")));
        reasons
    }

    /// Deliveries, answers and Pongs that did not come, and so are in no percentile.
    pub(crate) fn untimed(&self) -> u64 {
        let Balance { lost, undecided, unanswered, .. } = self.balance;
        lost + undecided + unanswered + self.skipped() + self.never_sent() + self.pings_unanswered()
    }

    /// Whether the run meets a threshold.
    pub(crate) fn judge(&self, threshold: &Threshold) -> Verdict {
        threshold.judge(self.value(threshold.figure()))
    }

    /// Thresholds that were not met.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| !verdict.met)
    }

    /// Whether messages were sent, or were to be.
    pub(crate) fn has_messages(&self) -> bool {
        self.main() == Measure::Deliver || self.tally.sent > 0
    }

    /// Deliveries later than [`LATE_US`] after the planned time.
    pub(crate) fn late(&self) -> u64 {
        let latency = self.record.of(Measure::Deliver);
        latency.planned.count_between(LATE_US + 1, latency.planned.high())
    }

    /// Phases in which messages or Pings flowed, or, in a run that is about connects, clients came. Of other runs the ramp is
    /// none, though those who came first keep their connections alive in it.
    fn busy_phases(&self) -> impl Iterator<Item = &Phase> {
        let connects = self.main() == Measure::Connect;
        let is_busy = move |phase: &&Phase| {
            let timed = |measure: Measure| phase.record.has(measure);
            let is_about = (connects && timed(Measure::Connect)) || (!phase.is_ramp() && timed(Measure::Ping));
            phase.sent > 0 || is_about
        };
        self.phases.iter().filter(is_busy)
    }

    /// The measure that a short figure is about.
    pub(crate) fn main(&self) -> Measure {
        self.measure.unwrap_or_else(|| self.record.main())
    }

    /// CPU microseconds of the gateway per delivery, in the phases with deliveries.
    pub(crate) fn cpu_us_per_delivery(&self) -> Option<f64> {
        self.us_per_delivery(|phase| phase.server_cpu_seconds.unwrap_or(0.0))
    }

    /// CPU microseconds of this load tester, or its workers, per delivery.
    pub(crate) fn driver_cpu_us_per_delivery(&self) -> Option<f64> {
        self.us_per_delivery(|phase| phase.driver_cpu_seconds)
    }

    fn us_per_delivery(&self, seconds: impl Fn(&Phase) -> f64) -> Option<f64> {
        let phases = self.phases.iter().filter(|phase| phase.delivered > 0);
        let (cpu, count) = phases.fold((0.0, 0), |(cpu, count), phase| (cpu + seconds(phase), count + phase.delivered));
        (count > 0 && cpu > 0.0).then(|| cpu * 1e6 / count as f64)
    }

    /// `io_uring_enter` calls of the gateway per delivery, all of the run's, those for connects and heartbeats, too; none
    /// where its metrics were not asked.
    pub(crate) fn enters_per_delivery(&self) -> Option<f64> {
        let enters = self.metrics.as_ref()?.added("ringgate_uring_enters")?;
        (self.balance.delivered > 0).then(|| enters / self.balance.delivered as f64)
    }

    /// Connections signed in per second of the ramp.
    pub(crate) fn connects_per_second(&self) -> Option<f64> {
        let ramp = self.phases.iter().find(|phase| phase.name == RAMP && phase.connected > 0)?;
        Some(ramp.connected as f64 / ramp.seconds.max(f64::MIN_POSITIVE))
    }

    /// How long the first 1 000 clients that came back took, each from the beginning of the attempt that
    /// succeeded until it was signed in: neither their waiting before it nor attempts that failed. None if nobody did.
    pub(crate) fn first_back(&self) -> Option<Quantiles> {
        let took = self.record.first_back.took();
        (!took.is_empty()).then(|| Quantiles::from(&took))
    }

    /// The phase in which the driver was busiest.
    pub(crate) fn busiest_phase(&self) -> Option<&Phase> {
        let is_long = |phase: &&Phase| phase.seconds >= BUSY_SECONDS_MIN;
        self.busy_phases().filter(is_long).max_by(|a, b| a.driver_busy.total_cmp(&b.driver_busy))
    }

    /// How busy the driver was then.
    pub(crate) fn driver_busy(&self) -> Option<f64> {
        self.busiest_phase().map(|phase| phase.driver_busy)
    }

    /// Why the figures are the driver's rather than the gateway's, if they are.
    pub(crate) fn driver_limit(&self) -> Option<DriverLimit> {
        let busy = self.driver_busy().unwrap_or(0.0);
        let percent = busy * 100.0;
        let mut lag = histogram();
        for phase in self.busy_phases() {
            // Bounds are the same everywhere, so nothing can be out of range.
            let _ = lag.add(&phase.record.lag);
        }
        let lag = Quantiles::from(&lag);
        if self.record.stall_us >= STALL_MAX_US {
            let stall = human_us(self.record.stall_us);
            let what = format!("this load tester was kept from running for {stall}");
            return Some(DriverLimit { what, fails: true, ..DriverLimit::KEPT_WAITING });
        }
        let stalled_us = self.tally.stalled_us;
        if stalled_us >= STALLED_MAX_US && stalled_us as f64 / 1e6 >= self.seconds * STALLED_SHARE_MAX {
            let stalled = human_us(stalled_us);
            let what = format!("this load tester was kept from running again and again, for {stalled} in all");
            return Some(DriverLimit { what, fails: true, ..DriverLimit::KEPT_WAITING });
        }
        if busy > DRIVER_BUSY_MAX {
            let what = format!("this load tester was busy for {percent:.0} % of its cores' time in its busiest phase");
            return Some(DriverLimit { what, ..DriverLimit::TOO_SLOW });
        }
        let measured = Quantiles::from(&self.record.of(self.main()).planned).p99;
        let bearable = LAG_MIN_US.max((measured as f64 * LAG_SHARE_MAX) as u64);
        let beside =
            if measured > 0 { format!(", where the measured p99 is {}", human_us(measured)) } else { String::new() };
        let late = format!("this load tester sent late: p99 {} behind its schedule{beside}", human_us(lag.p99));
        let fails = lag.p99 >= LAG_MAX_US && lag.p99 as f64 >= measured as f64 * LAG_SHARE_OF_MEASURED_MAX;
        (lag.count >= LAG_SAMPLES_MIN && lag.p99 > bearable).then(|| match busy > DRIVER_IDLE_MAX {
            true => DriverLimit { what: late, fails, ..DriverLimit::TOO_SLOW },
            false => {
                let what = format!(
                    "{late}, though busy for {percent:.0} % of its cores' time only: it had to wait for a core, or had much to do at one time"
                );
                DriverLimit { what, fails, ..DriverLimit::KEPT_WAITING }
            }
        })
    }

    /// That somebody ended the run early, and what it had come to if that was before everybody was signed in.
    pub(crate) fn interruption(&self) -> Option<String> {
        let (signed_in, wanted, ramping) = (self.tally.connections, self.wanted(), self.is_ramping());
        if let Some(aborted) = &self.aborted {
            return Some(format!("ended early by --abort-if: {aborted}"));
        }
        self.interrupted.then(|| match ramping {
            true => format!("ended early, while clients were connecting: {signed_in} of {wanted} were signed in"),
            false => "ended early".to_owned(),
        })
    }

    /// What was timed in a record of this run: each measure as a whole, followed by its streams and populations by name.
    pub(crate) fn timed<'a>(&'a self, record: &'a Record) -> Vec<Timed<'a>> {
        let mut all = Vec::new();
        for measure in Measure::ALL.into_iter().filter(|measure| record.has(*measure)) {
            all.push(Timed { name: None, measure, latency: record.of(measure) });
            for name in self.names.all() {
                let series: Vec<Series> = self.names.of(name).collect();
                let latency = record.of_those(measure, |other| series.contains(&other));
                if !latency.planned.is_empty() {
                    all.push(Timed { name: Some(name), measure, latency });
                }
            }
        }
        all
    }

    /// As [`Self::timed`], for people: names are left out where a measure is of one only.
    pub(crate) fn timed_briefly<'a>(&'a self, record: &'a Record) -> Vec<Timed<'a>> {
        let mut all = self.timed(record);
        let several = Measure::ALL.map(|measure| all.iter().filter(|timed| timed.measure == measure).count() > 2);
        all.retain(|timed| timed.name.is_none() || several[timed.measure as usize]);
        all
    }

    /// A figure by the name that thresholds use; none when it does not exist in this run.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.value(&name.parse().ok()?)
    }

    /// As [`Self::figure`], by a name that was read already.
    pub(crate) fn value(&self, figure: &Figure) -> Option<f64> {
        let main = self.main();
        match (&figure.phase, &figure.what) {
            (None, What::Other(name)) => self.other(name),
            (Some(phase), What::Other(name)) => self.other_of_phase(phase, name),
            (None, _) => figure.of_records(std::iter::once(&self.record), &self.names, main).map(|(value, _)| value),
            (Some(phase), _) => {
                let records = self.phases_of(phase).map(|phase| &phase.record);
                figure.of_records(records, &self.names, main).map(|(value, _)| value)
            }
        }
    }

    fn phases_of(&self, name: &str) -> impl Iterator<Item = &Phase> + Clone {
        self.phases.iter().filter(move |phase| phase.name == name)
    }

    /// A figure that is no time, of all phases of a name.
    fn other_of_phase(&self, phase: &str, name: &str) -> Option<f64> {
        let phases = || self.phases_of(phase);
        phases().next()?;
        let sum = |count: fn(&Phase) -> u64| phases().map(count).sum::<u64>() as f64;
        match name {
            "published" => Some(sum(|phase| phase.sent)),
            "accepted" => Some(sum(|phase| phase.accepted)),
            "delivered" => Some(sum(|phase| phase.delivered)),
            "errors" => Some(sum(|phase| phase.errors)),
            "reconnects" => Some(sum(|phase| phase.reconnects)),
            "rate" => rate(phases()),
            "driver_busy" => phases().map(|phase| phase.driver_busy).reduce(f64::max),
            _ => None,
        }
    }

    fn other(&self, name: &str) -> Option<f64> {
        match name {
            "planned" => Some(self.planned as f64),
            "published" => Some(self.tally.sent as f64),
            "sent" => Some(self.sent() as f64),
            "accepted" => Some(self.tally.accepted as f64),
            "delivered" => Some(self.balance.delivered as f64),
            "skipped_by_churn" => Some(self.tally.skipped_by_churn as f64),
            "lost" => Some(self.balance.lost as f64),
            "duplicated" => Some(self.found.duplicated as f64),
            "reordered" => Some(self.found.reordered as f64),
            "corrupted" => Some(self.found.corrupted as f64),
            "misdelivered" => Some(self.found.misdelivered as f64),
            "answered_twice" => Some(self.found.answered_twice as f64),
            "answered_wrong" => Some(self.found.answered_wrong as f64),
            "heartbeats_unanswered" => Some(self.heartbeats_unanswered() as f64),
            "away" => Some(self.away() as f64),
            "uncertain" => Some(self.balance.uncertain as f64),
            "delivered_refused" => Some(self.balance.delivered_refused as f64),
            "delivered_undecided" => Some(self.balance.delivered_undecided as f64),
            "unanswered" => Some(self.balance.unanswered as f64),
            "undecided" => Some(self.balance.undecided as f64),
            "pings_unanswered" => Some(self.pings_unanswered() as f64),
            "never_sent" => Some(self.never_sent() as f64),
            "sent_share" => self.sent_share(),
            "late" => Some(self.late() as f64),
            "skipped" => Some(self.skipped() as f64),
            "errors" => Some(self.errors.values().sum::<u64>() as f64),
            "refused" => Some(self.refused.values().sum::<u64>() as f64),
            "closed" => Some(self.closed.values().sum::<u64>() as f64),
            "reconnects" => Some(self.tally.reconnects as f64),
            "rate" => rate(self.phases.iter()),
            "connects" => self.connects_per_second(),
            "cpu" => self.cpu_us_per_delivery(),
            "driver_busy" => self.driver_busy(),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
