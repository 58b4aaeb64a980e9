//! Options that several commands share; from them the assignment of a run and its outlets are made.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PossibleValue, TypedValueParser};
use clap::parser::ValueSource;
use ringgate_core::units::parse_duration_ms;
use ringgate_net::dial::Url;
use serde_json::{Map, Value};

use crate::access::Credentials;
use crate::assignment::Assignment;
use crate::crew::Muster;
use crate::figure::Known;
use crate::gateway::Process;
use crate::hdr_log::HdrLog;
use crate::metrics::{Exporter, MetricsUrl, Scraper};
use crate::number;
use crate::record::Names;
use crate::report::{Allowance, Report};
use crate::run::{Drivers, Run};
use crate::threshold::Threshold;
use crate::view::{Scene, View};
use crate::watch::Outlets;
use crate::{Outcome, Results};

/// Where the gateway is, and how its clients connect.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Link {
    /// Where the gateway is: tcp://HOST:PORT or tls://HOST:PORT. Clients are dealt out among several that are linked:
    /// tcp://HOST:PORT,HOST:PORT.
    #[arg(long)]
    pub(crate) url: Url,
    /// Connects begun per second; as fast as it goes if not given.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number::rate)]
    pub(crate) ramp_rate: Option<f64>,
    /// Begin this many connects at once, then pause until --ramp-rate allows the next ones.
    #[arg(long, default_value_t = 1, value_name = "N", requires = "ramp_rate", allow_negative_numbers = true, value_parser = number::count_u32(1..=u32::MAX))]
    ramp_burst: u32,
    /// Clients that lose their connection come back, as the protocol asks, instead of counting as errors.
    #[arg(long)]
    pub(crate) reconnect: bool,
    /// How long a client may take to be connected and signed in, TLS handshake included.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = time_above_0)]
    connect_timeout: u64,
    /// Time between two Pings of a client.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = time_of_100_ms)]
    ping_interval: u64,
    /// How long accepted messages may take to arrive after the last one was sent, and a Pong at any time; later ones count as
    /// lost.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = time_of_100_ms)]
    settle: u64,
    /// Make every TLS handshake a full one.
    #[arg(long)]
    no_resumption: bool,
    #[command(flatten)]
    credentials: Credentials,
}

/// What is measured, what fails the run, and where results are written.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Output {
    /// Process id of the gateway, if it runs on this machine: its CPU time and memory are reported, too. Of several gateways, all,
    /// separated by commas; what is reported is their sum.
    #[arg(long, value_name = "PID", allow_negative_numbers = true, value_parser = number::count_u32(1..=u32::MAX), value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// The gateway's metrics, http://HOST:PORT/metrics: fetched once a second, and reported with the rest.
    #[arg(long, value_name = "URL")]
    metrics_url: Option<MetricsUrl>,
    /// Listen on this address, and answer GET /metrics with this load tester's own counts and latencies as OpenMetrics text.
    #[arg(long, value_name = "HOST:PORT")]
    metrics_listen: Option<String>,
    /// Fail the run (exit code 1) under this condition: 'p99>20ms', 'connect.p99.9>1s', 'chat.deliver.p95>5ms' (one stream or
    /// population, by its name), 'phase(steady).deliver.p99>5ms' (one phase), 'lost>0', 'rate<5000', 'lag>1ms'; may be repeated.
    /// Any percentile will do. A bare p99 is that of deliveries where messages are sent, of connects for connect, churn and
    /// storm, and else of Pings.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<Threshold>,
    /// End the run early (exit code 1) as soon as this condition holds; may be repeated. Latencies, lag and rate are those of
    /// the last 5 s, and need 100 samples in them; counts are those of the run so far.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) abort_if: Vec<Threshold>,
    /// Do not fail the run because of this; several are separated by commas. What the gateway promises cannot be allowed to
    /// fail: that no accepted message is lost, for instance.
    #[arg(long, env = "RINGGATE_LOADTEST_ALLOW", value_name = "KIND", value_parser = AllowanceReader, value_delimiter = ',')]
    allow: Vec<Allowance>,
    /// Write the latencies of every interval to this file, in the log format of HdrHistogram, in nanoseconds as its tools expect.
    #[arg(long, value_name = "FILE")]
    hdr_log: Option<PathBuf>,
    /// Write the result to this file as JSON; with `-` to standard output, and the table to standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the result to this file as a page of HTML with charts; it needs no other file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the verdict to this file as JUnit's XML, for CI services: a case for each check and each threshold.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Write latencies to this file as CSV: a row for each phase, stream or population, and measure; no time series.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Show progress as lines instead of a screen; this is the default without a terminal, or where TERM is dumb.
    #[arg(long)]
    plain: bool,
    /// Print no progress.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Names of the options that were given on the command line, as opposed to defaults. It has to be the first field of its
/// options: clap removes from its matches what the fields before it have read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given(Vec<String>);

impl Given {
    /// Whether `--name` was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|id| id.replace('_', "-") == name)
    }
}

impl clap::Args for Given {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command
    }
}

impl clap::FromArgMatches for Given {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        Ok(Given(matches.ids().filter(is_given).map(|id| id.to_string()).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        Given::from_arg_matches(matches).map(|given| *self = given)
    }
}

/// What a gateway promises: `--allow` has no kind for these.
const PROMISES: &str = "lost, duplicated, reordered, corrupted, misdelivered, unanswered, answered twice, or \
                        delivered though refused";

/// Reads a kind of `--allow`. Its error says why promises of a gateway are none of them.
#[derive(Clone)]
struct AllowanceReader;

impl TypedValueParser for AllowanceReader {
    type Value = Allowance;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Allowance, clap::Error> {
        (allowance as fn(&str) -> Result<Allowance, String>).parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Allowance::value_variants().iter().filter_map(ValueEnum::to_possible_value)))
    }
}

fn allowance(text: &str) -> Result<Allowance, String> {
    // The figures of these names have underscores.
    Allowance::from_str(&text.replace('_', "-"), true).map_err(|_| {
        let kinds = Allowance::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let kinds: Vec<String> = kinds.map(|kind| kind.get_name().to_owned()).collect();
        format!(
            "what can be allowed is {}; what the gateway promises cannot be: that no message is {PROMISES}",
            kinds.join(", ")
        )
    })
}

/// Milliseconds of a time that is not 0.
fn time_above_0(text: &str) -> Result<u64, String> {
    match parse_duration_ms(text)? {
        0 => Err("must be above 0, for instance \"500ms\" or \"10s\"".to_owned()),
        ms => Ok(ms),
    }
}

/// A time for which the load tester can wait exactly enough.
fn time_of_100_ms(text: &str) -> Result<u64, String> {
    match parse_duration_ms(text)? {
        0..100 => Err("must be at least 100ms".to_owned()),
        ms => Ok(ms),
    }
}

impl Link {
    /// Refuses options of TLS where no client uses TLS.
    pub(crate) fn check(&self, tls: bool) -> Result<(), String> {
        if self.no_resumption && !tls {
            return Err("--no-resumption is for tls://: there are no TLS handshakes over tcp://".to_owned());
        }
        Ok(())
    }

    /// The assignment of a run of so many connections: plain, TLS. `other` is the URL of those whose scheme `--url` does not
    /// have.
    pub(crate) fn assignment(&self, connections: [usize; 2], other: Option<&Url>) -> Assignment {
        let (own, other) = (self.url.clone(), other.unwrap_or(&self.url).clone());
        let (plain, tls) = if self.url.tls { (other, own) } else { (own, other) };
        Assignment {
            plain,
            tls,
            connections,
            populations: Vec::new(),
            ping_interval: Duration::from_millis(self.ping_interval),
            settle: Duration::from_millis(self.settle),
            ramp_rate: self.ramp_rate,
            ramp_burst: self.ramp_burst,
            reconnect: self.reconnect,
            no_resumption: self.no_resumption,
            connect_timeout: Duration::from_millis(self.connect_timeout),
            addressed: false,
        }
    }

    /// Those of these options that define the load, for reports and `compare`; connections are plain, TLS.
    pub(crate) fn load(&self, [plain, tls]: [usize; 2]) -> Map<String, Value> {
        let mut load = Map::new();
        load.insert("connections".to_owned(), (plain + tls).into());
        load.insert("tls_connections".to_owned(), tls.into());
        if tls > 0 {
            load.insert("resumption".to_owned(), (!self.no_resumption).into());
        }
        load.insert("ping_interval_ms".to_owned(), self.ping_interval.into());
        load.insert("settle_ms".to_owned(), self.settle.into());
        load.insert("reconnect".to_owned(), self.reconnect.into());
        if let Some(rate) = self.ramp_rate {
            load.insert("ramp_rate".to_owned(), rate.into());
            load.insert("ramp_burst".to_owned(), self.ramp_burst.into());
        }
        load
    }

    /// What drives the clients: threads of this process, or workers, which this waits for.
    pub(crate) fn drivers(&self, assignment: &Assignment, muster: Option<Muster>) -> Result<Drivers, String> {
        let Some(muster) = muster else { return Ok(Drivers::Own(self.credentials.access(assignment)?)) };
        self.credentials.check_none()?;
        muster.gather().map(Drivers::Crew)
    }

    /// Connects all clients; how long that may take depends on how many they are.
    pub(crate) fn ramp(&self, run: &mut Run, [plain, tls]: [usize; 2]) -> Result<(), String> {
        let connections = plain + tls;
        let by_rate = self.ramp_rate.map_or(connections as u64 / 500, |rate| (connections as f64 / rate) as u64);
        run.connect(plain, tls, Duration::from_secs(60 + by_rate), self.reconnect)
    }
}

impl Output {
    /// Checks before a run that the process of --pid exists, and that results can be written.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_gone = |pid: &&u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
        if let Some(pid) = self.pid.iter().find(is_gone) {
            return Err(format!("--pid {pid}: no such process on this machine"));
        }
        self.results().check()
    }

    fn results(&self) -> Results<'_> {
        Results {
            json: self.json.as_deref(),
            html: self.html.as_deref(),
            junit: self.junit.as_deref(),
            csv: self.csv.as_deref(),
        }
    }

    /// Refuses thresholds on figures that the load of this name cannot have.
    pub(crate) fn check_thresholds(&self, load: &str, names: &Names, phases: Vec<String>) -> Result<(), String> {
        let known = Known { load, names, phases, has_process: !self.pid.is_empty() };
        self.abort_if.iter().try_for_each(Threshold::check_abort)?;
        self.fail_if.iter().chain(&self.abort_if).try_for_each(|threshold| threshold.check(&known))
    }

    /// Starts a run with the outlets of these options. The screen shows `title`.
    pub(crate) fn start(&self, assignment: Assignment, drivers: Drivers, title: &str) -> Result<Run, String> {
        let outlets = Outlets {
            processes: self.pid.iter().copied().map(Process).collect(),
            scraper: self.metrics_url.clone().map(Scraper::start).transpose()?,
            exporter: self.metrics_listen.as_deref().map(Exporter::listen).transpose()?,
            fail_if: self.fail_if.clone(),
            abort_if: self.abort_if.clone(),
            hdr_log: self.hdr_log.as_deref().map(HdrLog::create).transpose()?,
            // Last: errors of the others would vanish with the screen.
            view: View::new(self.quiet, self.plain, Scene::new(title.to_owned())),
        };
        Run::start(assignment, drivers, outlets)
    }

    /// Ends a run of this load and judges it. `result` is the reason why the run stopped early, if it did.
    pub(crate) fn finish(&self, run: Run, load: Map<String, Value>, result: Result<(), String>) -> Report {
        let mut report = run.finish();
        report.load = load;
        if !report.workers.is_empty() {
            report.load.insert("workers".to_owned(), report.workers.len().into());
        }
        report.command = crate::console::command_line();
        report.failure = result.err();
        report.allowed.clone_from(&self.allow);
        report.verdicts = self.fail_if.iter().map(|threshold| report.judge(threshold)).collect();
        report
    }

    /// Prints notes about the load to standard error before the run; not with --quiet, as the report has them, too.
    pub(crate) fn announce(&self, notes: &[String]) {
        if !self.quiet {
            notes.iter().for_each(|note| crate::console::note(&format!("note: {note}")));
        }
    }

    /// Writes all results and returns the outcome of the run.
    pub(crate) fn conclude(&self, report: &Report) -> Result<Outcome, String> {
        crate::conclude(report, self.results())
    }
}
