//! The load tester: many connections, messages on a schedule, and a ledger of what became of each.
//!
//! | file | what |
//! |---|---|
//! | `ledger`, `record`, `timeline` | payload stamps; lost, duplicated, reordered; latencies and troubles; over time |
//! | `traffic`, `assignment`, `plan` | who sends what and when; who has which clients; what the threads share |
//! | `access` | keys, certificates and addresses of this process's clients |
//! | `fleet` | one driver thread: a ring full of clients |
//! | `crew` | a controller and its workers: several driver processes |
//! | `run`, `interrupt` | drivers and phases; how a run is ended early |
//! | `watch`, `view`, `console`, `hdr_log` | what is gathered, seen and written meanwhile |
//! | `report`, `html`, `threshold`, `compare` | what was found, whether it is good enough, what has changed |
//! | `gateway`, `metrics` | a gateway, seen through /proc and through its own /metrics |
//! | `demo`, `options`, `load`, `scenario`, `mixed`, `capacity` | what is driven |

#![recursion_limit = "256"]

mod access;
mod assignment;
mod capacity;
mod compare;
mod console;
mod crew;
mod demo;
mod fleet;
mod gateway;
mod hdr_log;
mod html;
mod interrupt;
mod ledger;
mod load;
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

use crate::load::Load;
use crate::report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "Exit code: 0 when nothing went wrong and every threshold (--fail-if) was met, 1 when not, 2 for arguments that cannot be.";

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
    Controller(crew::Options),
    /// Have a part of the clients of a load that a controller directs.
    Worker(crew::worker::Options),
    /// Search for the highest rate that meets the thresholds.
    Capacity(capacity::Search),
    /// Compare two results that were written with --json.
    Compare(compare::Options),
}

fn main() -> ExitCode {
    let report = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Load(load) => load.run(None),
        Command::Controller(options) => crew::control(&options),
        Command::Worker(options) => return exit(crew::worker::run(&options)),
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
