//! The load tester: many connections, messages on a schedule, and a ledger of what became of each.
//!
//! | file | what |
//! |---|---|
//! | `ledger` | payload stamps; lost, duplicated, reordered |
//! | `plan` | what is wanted: connections, traffic; live counts |
//! | `fleet` | one driver thread: a ring full of clients |
//! | `run` | threads, phases, live line, report |
//! | `gateway` | the gateway process of the demo, seen through /proc |
//! | `demo`, `scenario` | what is driven |

mod demo;
mod fleet;
mod gateway;
mod ledger;
mod plan;
mod run;
mod scenario;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::run::Report;

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
    /// Connect and sign in, as fast as it goes, then leave.
    Connect(scenario::Options),
    /// Connect, and hold with heartbeats.
    Idle(scenario::Options),
    /// Pairs of clients: one-to-one messages with acknowledgement.
    P2p(scenario::Options),
    /// One room: broadcasts to all clients.
    Room(scenario::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Connect(options) => scenario::run(&options, scenario::Kind::Connect),
        Command::Idle(options) => scenario::run(&options, scenario::Kind::Idle),
        Command::P2p(options) => scenario::run(&options, scenario::Kind::PeerToPeer),
        Command::Room(options) => scenario::run(&options, scenario::Kind::Room),
    };
    match result {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringgate-loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One ring holds as many connections as there may be files open, less what the process itself needs.
const CONNECTIONS_PER_THREAD: usize = 14_000;

/// Driver threads for so many connections.
pub(crate) fn threads_for(connections: usize) -> usize {
    connections.div_ceil(CONNECTIONS_PER_THREAD).max(1)
}

/// Slots of each thread's ring.
pub(crate) fn slots_for(connections: usize, threads: usize) -> u32 {
    (connections.div_ceil(threads) + 64) as u32
}

/// The table for a person, the object for a program; standard output belongs to the program when it asked for it.
pub(crate) fn write_report(report: &Report, json: Option<&Path>) -> Result<(), String> {
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
    Ok(())
}
