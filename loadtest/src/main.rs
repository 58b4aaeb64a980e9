//! The load tester: many connections, messages on a schedule, and a ledger of what became of each message.
//!
//! | file | what |
//! |---|---|
//! | `ledger`, `record`, `timeline` | payload stamps; lost, duplicated, reordered; latencies and troubles; over time |
//! | `traffic`, `assignment`, `plan` | which client sends what and when; which process and thread drives which clients; what threads share |
//! | `access`, `tokens`, `lookup`, `descriptors` | keys, tokens, certificates, addresses and open files of this process's clients |
//! | `fleet` | one driver thread: a ring full of clients |
//! | `crew`, `mate`, `clock`, `controller` | several driver processes: a controller and its workers, and their clocks |
//! | `run`, `interrupt`, `tty` | drivers and phases; how a run is ended early, and the terminal given back |
//! | `watch`, `guard`, `view`, `console`, `hdr_log` | what is gathered, shown and written during a run |
//! | `report`, `html`, `figure`, `threshold`, `compare`, `xml` | results, thresholds, comparison of results |
//! | `gateway`, `metrics` | a gateway, seen through /proc and through its own /metrics |
//! | `demo`, `options`, `number`, `load`, `scenario`, `mixed`, `capacity`, `finding` | what is driven |
//! | `nodes` | the demo of several gateways on one Redis |
//! | `overload` | a gateway under more load than it can take |

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
mod nodes;
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
    ended early, 2 when it could not be run: bad options, a file that cannot be read or written, no client could sign in. \
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
    /// Run a load whose clients are driven by workers, on this host or others.
    Controller(controller::Options),
    /// Drive a part of the clients of a controller's load.
    Worker(crew::worker::Options),
    /// Search for the highest rate that meets the thresholds.
    Capacity(capacity::Search),
    /// Start gateways and give them more than they can do: what still gets through, and whom it delays.
    Overload(overload::Options),
    /// Compare results that were written with --json: what has changed, and whether anything is worse.
    Compare(compare::Options),
}

/// The result of a command that could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing went wrong.
    Good,
    /// A threshold was missed, something was lost or went wrong, or the run was ended early.
    Failed,
    /// No client was signed in.
    NotRun,
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let arguments: Vec<String> =
            std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
        match without_load(&arguments) {
            Some(said) => {
                console::note(&format!("ringgate-loadtest: {said}"));
                std::process::exit(2)
            }
            None => error.exit(),
        }
    });
    let outcome = match cli.command {
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

/// What to write, where the arguments begin with an option of a load, or with a URL, rather than with the load.
fn without_load(arguments: &[String]) -> Option<String> {
    let (first, rest) = arguments.split_first()?;
    let loads = Load::augment_subcommands(clap::Command::new(""));
    let is_url = !first.starts_with('-') && first.contains("://");
    let is_option = first.strip_prefix("--").is_some_and(|option| {
        let name = option.split('=').next();
        loads.get_subcommands().any(|load| load.get_arguments().any(|argument| argument.get_long() == name))
    });
    if !is_url && !is_option {
        return None;
    }
    let loads: Vec<&str> = loads.get_subcommands().map(clap::Command::get_name).collect();
    // It may stand further behind.
    let load = rest.iter().find(|argument| loads.contains(&argument.as_str()));
    let options = arguments.iter().filter(|argument| Some(*argument) != load).map(|argument| quoted(argument));
    let options = console::redacted(options);
    let (load, link) = (load.map_or("p2p", String::as_str), if is_url { "--url " } else { "" });
    Some(format!(
        "the load comes first, and its options after it: ringgate-loadtest {load} {link}{options}\n\
         Loads are {}; `ringgate-loadtest --help` says what they do.",
        loads.join(", ")
    ))
}

/// An argument as a shell wants it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+[]".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
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

/// Checks before a run that its results can be written: an error after it would lose them.
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
        let all = [("--json", json), ("--html", html), ("--junit", junit), ("--csv", csv)];
        for (index, (option, path)) in
            all.iter().enumerate().filter_map(|(index, (option, path))| Some((index, (option, (*path)?))))
        {
            if path == Path::new("-") && *option != "--json" {
                return Err(format!("{option} -: only --json is written to standard output; give a file"));
            }
            if let Some((other, _)) = all[..index].iter().find(|(_, other)| *other == Some(path)) {
                return Err(format!("{other} and {option} are both {}: give each its own file", path.display()));
            }
        }
        check_writable(&[json, html, junit, csv])
    }
}

/// Writes all results of a run and returns its outcome. With `--json -` standard output has the JSON only, and the table goes
/// to standard error. A result that cannot be written is an error, unless the run has failed: then it is only reported.
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
    }
    let write = |path: Option<&Path>, text: &dyn Fn() -> String| {
        let Some(path) = path else { return Ok(()) };
        std::fs::write(path, text()).map_err(|error| format!("{}: {error}", path.display()))
    };
    // One that cannot be written does not keep the others from it.
    let written = [
        write(json.filter(|path| *path != Path::new("-")), &|| text.clone() + "\n"),
        write(junit, &|| report.junit()),
        write(csv, &|| report.csv()),
        html.map_or(Ok(()), |path| html::write(report, path)),
    ];
    let errors: Vec<String> = written.into_iter().filter_map(Result::err).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}
