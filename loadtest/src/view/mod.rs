//! Progress of a run: a screen on a terminal, a line a second elsewhere.
//!
//! | file | what |
//! |---|---|
//! | `scene` | the data that is drawn |
//! | `draw` | how it is drawn |
//! | `terminal` | the thread that draws and reads keys, and restores the terminal |

mod draw;
mod scene;
mod terminal;

use std::io::{IsTerminal, Write};

use crate::record::human_us;
pub(crate) use scene::{Look, Scene};
use terminal::Screen;

/// How the progress of a run is shown.
#[derive(Default)]
pub(crate) enum View {
    /// Not at all.
    #[default]
    Quiet,
    /// A line a second, to standard error.
    Lines,
    /// A screen of its own.
    Screen(Screen),
}

impl View {
    /// A screen, if standard output and standard error are a terminal that can show one and `plain` is not asked for.
    pub(crate) fn new(quiet: bool, plain: bool, scene: Scene) -> View {
        if quiet {
            return View::Quiet;
        }
        let is_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if plain || !is_terminal || is_dumb {
            return View::Lines;
        }
        // A terminal that cannot be switched to a screen, or is too small for one, still shows lines.
        Screen::start(scene).map_or(View::Lines, View::Screen)
    }

    /// Shows the present state.
    pub(crate) fn show(&mut self, look: Look<'_>) {
        match self {
            View::Quiet => {}
            // Failing to show something is no reason to end a run.
            View::Lines => drop(writeln!(std::io::stderr(), "{}", line(&look))),
            View::Screen(screen) => screen.show(look),
        }
    }
}

fn line(look: &Look<'_>) -> String {
    let Look { phase, point, wanted, .. } = look;
    let mut line = format!("{:>6.1} s  {phase:<12} {:>7} of {wanted} connections", point.at, point.connections);
    let rate = |count: u64| count as f64 / point.seconds;
    if point.sent > 0 || point.delivered > 0 {
        line += &format!("  {:>8.0} sent/s  {:>8.0} delivered/s", rate(point.sent), rate(point.delivered));
    } else if point.pongs > 0 {
        line += &format!("  {:>8.0} pongs/s", rate(point.pongs));
    }
    if point.latency.count > 0 {
        line += &format!("  {} p99 {:>9}", look.measure.label(), human_us(point.latency.p99));
    }
    if let Some(waiting) = look.waiting() {
        line += &format!("  {waiting}");
    }
    if look.tally.errors > 0 {
        line += &format!("  errors {}", look.tally.errors);
    }
    line
}
