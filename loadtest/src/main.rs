//! The load tester: many connections, messages on a schedule, and a ledger of what became of each.
//!
//! | file | what |
//! |---|---|
//! | `ledger`, `record`, `timeline` | payload stamps; lost, duplicated, reordered; latencies and troubles; over time |
//! | `traffic`, `assignment`, `plan` | who sends what and when; who has which clients; what the threads share |
//! | `access`, `tokens`, `lookup`, `descriptors` | keys, tokens, certificates, addresses and open files of this process's clients |
//! | `fleet` | one driver thread: a ring full of clients |
//! | `crew`, `mate`, `clock`, `controller` | several driver processes: a controller and its workers, and their clocks |
//! | `run`, `interrupt`, `tty` | drivers and phases; how a run is ended early, and the terminal given back |
//! | `watch`, `guard`, `view`, `console`, `hdr_log` | what is gathered, seen and written meanwhile |
//! | `report`, `html`, `figure`, `threshold`, `compare`, `xml` | what was found, whether it is good enough, what has changed |
//! | `gateway`, `metrics` | a gateway, seen through /proc and through its own /metrics |
//! | `demo`, `options`, `number`, `load`, `scenario`, `mixed`, `capacity`, `finding` | what is driven |
//! | `overload` | a gateway that is given more than it can do |

mod access;
mod assignment;
mod capacity;
mod clock;
mod compare;
mod console;
mod controller;
mod crew;
mod demo;
mod descriptors;
mod figure;
mod finding;
mod fleet;
mod gateway;
mod guard;
mod hdr_log;
mod html;
mod interrupt;
mod ledger;
mod load;
mod lookup;
mod mate;
mod metrics;
mod mixed;
mod number;
mod options;
mod overload;
mod plan;
mod record;
mod report;
mod run;
mod scenario;
mod threshold;
mod tickets;
mod timeline;
mod tokens;
mod traffic;
mod tty;
mod view;
mod watch;
mod xml;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::load::Load;
use crate::report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "Exit code: 0 when nothing went wrong and no threshold (--fail-if) failed the run, 1 when it did or the run was \
    ended early, 2 when it could not be run: bad options, a file that cannot be read or written, nobody could sign in. \
    Of compare: 0 when nothing is worse, 1 when something is, 2 when the loads differ.";

/// Drives very many connections against a ringgate gateway.
#[derive(Parser)]
#[command(name = "ringgate-loadtest", version, about, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a gateway and show it working: thousands of connections, messages, a room.
    Demo(demo::Options),
    #[command(flatten)]
    Load(Load),
    /// Print a file for mixed, with every key explained.
    MixedExample,
    /// Direct workers, on this host or others, who have the clients of a load.
    Controller(controller::Options),
    /// Have a part of the clients of a load that a controller directs.
    Worker(crew::worker::Options),
    /// Search for the highest rate that meets the thresholds.
    Capacity(capacity::Search),
    /// Start gateways and give them more than they can do: what still gets through, and whom it delays.
    Overload(overload::Options),
    /// Compare results that were written with --json: what has changed, and whether anything is worse.
    Compare(compare::Options),
}

/// What a command has come to. What is an error instead could not be done at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing went wrong.
    Good,
    /// A threshold was missed, something was lost or went wrong, or the run was ended early.
    Failed,
    /// There was nothing to judge.
    NotRun,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Load(load) => load.run(None),
        Command::Controller(options) => controller::control(&options),
        Command::Worker(options) => crew::worker::run(&options),
        Command::MixedExample => console::print(mixed::EXAMPLE).map(|()| Outcome::Good),
        Command::Capacity(options) => capacity::run(&options),
        Command::Overload(options) => overload::run(&options),
        Command::Compare(options) => compare::run(&options),
    };
    let outcome = outcome.unwrap_or_else(|error| {
        console::note(&format!("ringgate-loadtest: {error}"));
        Outcome::NotRun
    });
    match outcome {
        Outcome::Good => ExitCode::SUCCESS,
        Outcome::Failed => ExitCode::from(1),
        Outcome::NotRun => ExitCode::from(2),
    }
}

/// Clients of one run.
pub(crate) const CONNECTIONS_MAX: u32 = 2_000_000;

/// One ring holds as many connections as there may be files open, less what the process itself needs.
const CONNECTIONS_PER_RING: usize = 14_000;

/// Rings for so many connections.
pub(crate) fn rings_for(connections: usize) -> usize {
    connections.div_ceil(CONNECTIONS_PER_RING).max(1)
}

/// Slots of each ring.
pub(crate) fn slots_for(connections: usize, rings: usize) -> u32 {
    (connections.div_ceil(rings) + 64) as u32
}

/// Whether results can be written where they are wanted; asked before a run, because it would be a pity after it.
pub(crate) fn check_writable(paths: &[Option<&Path>]) -> Result<(), String> {
    for path in paths.iter().flatten().filter(|path| **path != Path::new("-")) {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|error| {
            let hint = if error.kind() == std::io::ErrorKind::NotFound { "; its folder must exist" } else { "" };
            format!("{} cannot be written: {error}{hint}", path.display())
        })?;
    }
    Ok(())
}

/// Where a report is written, besides the table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Results<'a> {
    /// The object for programs; `-` is standard output.
    pub(crate) json: Option<&'a Path>,
    /// The page.
    pub(crate) html: Option<&'a Path>,
    /// The verdict for CI services.
    pub(crate) junit: Option<&'a Path>,
    /// Latencies for spreadsheets.
    pub(crate) csv: Option<&'a Path>,
}

impl Results<'_> {
    /// See [`check_writable`].
    pub(crate) fn check(&self) -> Result<(), String> {
        let Results { json, html, junit, csv } = *self;
        check_writable(&[json, html, junit, csv])
    }
}

/// Writes a report, and says what its run has come to: the table and the page for people, the object for a program.
/// Standard output belongs to the program when it asked for it. That a run has failed is never hidden by a result that
/// cannot be written.
pub(crate) fn conclude(report: &Report, results: Results<'_>) -> Result<Outcome, String> {
    let written = write_report(report, results);
    match (report.outcome(), written) {
        (Outcome::Good, Err(error)) => Err(error),
        (outcome, written) => {
            if let Err(error) = written {
                console::note(&format!("ringgate-loadtest: {error}"));
            }
            Ok(outcome)
        }
    }
}

fn write_report(report: &Report, Results { json, html, junit, csv }: Results<'_>) -> Result<(), String> {
    let text = serde_json::to_string_pretty(&report.json()).map_err(|error| error.to_string())?;
    if json.is_some_and(|path| path == Path::new("-")) {
        console::note(&report.table());
        console::print(&text)?;
    } else {
        console::print(&report.table())?;
        if let Some(path) = json {
            std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    let write = |path: Option<&Path>, text: &dyn Fn() -> String| {
        let Some(path) = path else { return Ok(()) };
        std::fs::write(path, text()).map_err(|error| format!("{}: {error}", path.display()))
    };
    write(junit, &|| report.junit())?;
    write(csv, &|| report.csv())?;
    html.map_or(Ok(()), |path| html::write(report, path))
}
