//! What a person sees while a run goes on: one line that is written over on a terminal, and appended elsewhere.

use std::io::{IsTerminal, Write};

use crate::plan::Tally;
use crate::record::{Record, human_us};
use crate::timeline::Point;

/// See the module. Shows nothing by default.
pub(crate) struct View {
    quiet: bool,
    terminal: bool,
}

impl Default for View {
    fn default() -> Self {
        View { quiet: true, terminal: false }
    }
}

impl View {
    /// To standard error.
    pub(crate) fn new(quiet: bool) -> View {
        View { quiet, terminal: std::io::stderr().is_terminal() }
    }

    /// Shows one point.
    pub(crate) fn show(&mut self, phase: &str, point: &Point, tally: Tally, wanted: usize, record: &Record) {
        if self.quiet {
            return;
        }
        let mut line = format!("{:>6.1} s  {phase:<12} {:>7} of {wanted} connections", point.at, tally.connections);
        if point.sent > 0 || point.delivered > 0 {
            let rate = |count: u64| count as f64 / point.seconds;
            line += &format!("  {:>8.0} sent/s  {:>8.0} delivered/s", rate(point.sent), rate(point.delivered));
        }
        if point.sent == 0 && point.pongs > 0 {
            line += &format!("  {:>8.0} pongs/s", point.pongs as f64 / point.seconds);
        }
        if point.latency.count > 0 {
            line += &format!("  {} p99 {:>9}", record.main().label(), human_us(point.latency.p99));
        }
        if tally.errors > 0 {
            line += &format!("  errors {}", tally.errors);
        }
        // Failing to show something is no reason to end a run.
        let _ = if self.terminal {
            write!(std::io::stderr(), "\r{line}\x1b[K")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    /// Leaves the line.
    pub(crate) fn end(&mut self) {
        if !self.quiet && self.terminal {
            eprintln!();
        }
    }
}
