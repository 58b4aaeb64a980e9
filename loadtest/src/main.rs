//! The load tester: many connections, messages on a schedule, and a ledger of what became of each.
//!
//! | file | what |
//! |---|---|
//! | `ledger`, `record`, `timeline` | payload stamps; lost, duplicated, reordered; latencies and troubles; over time |
//! | `traffic`, `plan` | who sends what and when; what the threads share |
//! | `fleet` | one driver thread: a ring full of clients |
//! | `run`, `interrupt` | threads and phases; how a run is ended early |
//! | `watch`, `view`, `hdr_log` | what is gathered, seen and written meanwhile |
//! | `report`, `html`, `threshold`, `compare` | what was found, whether it is good enough, what has changed |
//! | `gateway`, `metrics` | a gateway, seen through /proc and through its own /metrics |
//! | `demo`, `options`, `scenario`, `mixed`, `capacity` | what is driven |

mod capacity;
mod compare;
mod demo;
mod fleet;
mod gateway;
mod hdr_log;
mod html;
mod interrupt;
mod ledger;
mod metrics;
mod mixed;
mod options;
mod plan;
mod record;
mod report;
mod run;
mod scenario;
mod threshold;
mod timeline;
mod traffic;
mod view;
mod watch;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;
use crate::scenario::Scenario;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Drives very many connections against a ringgate gateway.
#[derive(Parser)]
#[command(name = "ringgate-loadtest", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a gateway and show it working: thousands of connections, messages, a room.
    Demo(demo::Options),
    /// Connect and sign in, as fast as it goes or at a rate, then leave.
    Connect(scenario::Options),
    /// Connect, and hold with heartbeats.
    Idle(scenario::Options),
    /// Pings on a schedule.
    Ping(scenario::Options),
    /// Pairs of clients: one-to-one messages with acknowledgement.
    P2p(scenario::Options),
    /// Rooms: broadcasts to their members.
    Room(scenario::Options),
    /// Receivers leave, are written to, come back and get the gap.
    Offline(scenario::Options),
    /// Clients leave and come back at a rate.
    Churn(scenario::Options),
    /// All clients leave, and come back at once.
    Storm(scenario::Options),
    /// A share of a room's readers stops reading, and reads on later.
    Slow(scenario::Options),
    /// A mixture from a TOML file: populations, rates, think times, phases.
    Mixed(mixed::Options),
    /// Print such a file, with every key explained.
    MixedExample,
    /// Search for the highest rate that meets the thresholds.
    Capacity(capacity::Search),
    /// Compare two results that were written with --json.
    Compare(compare::Options),
}

fn main() -> ExitCode {
    let report = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Connect(options) => scenario::run(&options, Scenario::Connect),
        Command::Idle(options) => scenario::run(&options, Scenario::Idle),
        Command::Ping(options) => scenario::run(&options, Scenario::Ping),
        Command::P2p(options) => scenario::run(&options, Scenario::P2p),
        Command::Room(options) => scenario::run(&options, Scenario::Room),
        Command::Offline(options) => scenario::run(&options, Scenario::Offline),
        Command::Churn(options) => scenario::run(&options, Scenario::Churn),
        Command::Storm(options) => scenario::run(&options, Scenario::Storm),
        Command::Slow(options) => scenario::run(&options, Scenario::Slow),
        Command::Mixed(options) => mixed::run(&options),
        Command::MixedExample => return exit(print_example().map(|()| true)),
        Command::Capacity(options) => return exit(capacity::run(&options)),
        Command::Compare(options) => return exit(compare::run(&options)),
    };
    exit(report.map(|report| report.is_clean()))
}

fn print_example() -> Result<(), String> {
    std::io::stdout().write_all(mixed::EXAMPLE.as_bytes()).map_err(|error| error.to_string())
}

fn exit(result: Result<bool, String>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringgate-loadtest: {error}");
            ExitCode::FAILURE
        }
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
        opened.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    }
    Ok(())
}

/// The table and the page for people, the object for a program; standard output belongs to the program when it asked
/// for it.
pub(crate) fn write_report(report: &Report, json: Option<&Path>, html: Option<&Path>) -> Result<(), String> {
    let text = serde_json::to_string_pretty(&report.json()).map_err(|error| error.to_string())?;
    let to_stdout = json.is_some_and(|path| path == Path::new("-"));
    if to_stdout {
        eprintln!("{}", report.table());
        writeln!(std::io::stdout(), "{text}").map_err(|error| error.to_string())?;
    } else {
        writeln!(std::io::stdout(), "{}", report.table()).map_err(|error| error.to_string())?;
        if let Some(path) = json {
            std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    html.map_or(Ok(()), |path| html::write(report, path))
}
