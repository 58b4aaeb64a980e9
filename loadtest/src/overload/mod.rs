//! Shows what a gateway does with more than it can do: how much of its work still gets through, what it costs those who
//! have no part in it, how much memory it takes, and how soon it is itself again.
//!
//! For every workload and number of shards the capacity is found first, with clients that wait for what they have asked for.
//! Then a fixed number of clients offers multiples of it and does not wait. Every load has a gateway of its own.
//!
//! | file | what |
//! |---|---|
//! | `workload` | who reads, what is sent, what counts as done, the gateway's configuration |
//! | `site` | a gateway and its clients |
//! | `crowd`, `pushers`, `bystanders` | the clients, on a thread each |
//! | `line`, `skim`, `tally` | a connection without a ring; frames that are only counted; what is counted |
//! | `judge` | what is promised, and what was seen |

mod bystanders;
mod crowd;
mod judge;
mod line;
mod pushers;
mod site;
mod skim;
mod tally;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::{Outcome, console, interrupt};
use judge::{Promises, Row};
use site::{Site, Times};
use workload::Workload;

/// Options of `overload`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Only these workloads.
    #[arg(long, value_name = "WORKLOADS", value_delimiter = ',')]
    only: Option<Vec<Workload>>,
    /// Numbers of shards [default: 1,2,4; with --short 2].
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true, value_parser = crate::number::count_u32(1..=64))]
    shards: Option<Vec<u32>>,
    /// Loads as multiples of the capacity [default: 1,2,5,20; with --short 1,5].
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = factor)]
    factors: Option<Vec<f64>>,
    /// Length of each load [default: 5; with --short 2].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = crate::number::count(1..=3600))]
    seconds: Option<u64>,
    /// One big room, one-to-one, default limits and sign-ins, within a minute and with bounds that hold on a busy machine.
    #[arg(long)]
    short: bool,
    /// Write all figures there; - for standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const SHORT: [Workload; 4] = [Workload::BigRoom, Workload::OneToOne, Workload::SignIn, Workload::DefaultLimits];
const FACTOR_MAX: f64 = 1000.0;

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.trim_end_matches('x').parse::<f64>().ok();
    factor
        .filter(|factor| *factor > 0.0 && *factor <= FACTOR_MAX)
        .ok_or_else(|| format!("\"{text}\" is not a multiple of the capacity, above 0 and at most {FACTOR_MAX}"))
}

/// Runs the matrix, prints a row for every load, and writes what was asked for.
pub(crate) fn run(options: &Options) -> Result<Outcome, String> {
    crate::check_writable(&[options.json.as_deref()])?;
    interrupt::listen()?;
    ringgate_net::raise_descriptor_limit();
    let short = options.short;
    let workloads = options.only.clone().unwrap_or_else(|| if short { SHORT.to_vec() } else { Workload::ALL.to_vec() });
    let shards = options.shards.clone().unwrap_or_else(|| if short { vec![2] } else { vec![1, 2, 4] });
    let factors =
        options.factors.clone().unwrap_or_else(|| if short { vec![1.0, 5.0] } else { vec![1.0, 2.0, 5.0, 20.0] });
    let promises = if short { Promises::SHORT } else { Promises::FULL };
    let load = Duration::from_secs(options.seconds.unwrap_or(if short { 2 } else { 5 }));
    let times = Times { capacity: Duration::from_millis(if short { 500 } else { 1500 }), load };
    let to_stdout = options.json.as_deref().is_some_and(|path| path == std::path::Path::new("-"));
    let say = |text: &str| {
        if to_stdout {
            console::note(text);
            Ok(())
        } else {
            console::print(text)
        }
    };
    say(&judge::head())?;
    let (mut results, mut good) = (Vec::new(), true);
    for workload in workloads {
        for &shards in &shards {
            let rows = series(workload, shards as usize, &factors, times)?;
            let best = rows.iter().map(|row| row.goodput.max(row.capacity)).fold(0.0, f64::max);
            for row in &rows {
                say(&row.line(best, &promises))?;
                good &= row.broken(best, &promises).is_empty();
                results.push(row.json(best, &promises));
            }
            if interrupt::asked() {
                console::note("ended early: what follows was not run");
                return Ok(Outcome::Failed);
            }
        }
    }
    if let Some(path) = &options.json {
        let machine = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let all = json!({
            "command": console::command_line(),
            "kernel": machine.trim(),
            "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            "short": short,
            "seconds": load.as_secs(),
            "goodput_min": promises.goodput_min,
            "rows": results,
        });
        let text = serde_json::to_string_pretty(&all).map_err(|error| error.to_string())?;
        if to_stdout {
            console::print(&text)?;
        } else {
            std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(if good { Outcome::Good } else { Outcome::Failed })
}

/// All loads of one workload on gateways with so many shards.
fn series(workload: Workload, shards: usize, factors: &[f64], times: Times) -> Result<Vec<Row>, String> {
    let context = |error: String| format!("{}, {shards} shards: {error}", workload.name());
    let capacity = Site::start(workload, shards).and_then(|site| site.capacity(times)).map_err(context)?;
    if capacity <= 0.0 {
        return Err(context("nothing came through at all".to_owned()));
    }
    let fixed = workload.fixed_rate();
    let single = [1.0];
    let factors = if fixed.is_some() { &single } else { factors };
    let mut rows = Vec::new();
    for &factor in factors {
        if interrupt::asked() {
            break;
        }
        let rate = fixed.unwrap_or(factor * capacity / workload.unit().per_request());
        let site = Site::start(workload, shards).map_err(context)?;
        rows.push(site.load(factor, capacity, rate, times).map_err(context)?);
    }
    Ok(rows)
}
