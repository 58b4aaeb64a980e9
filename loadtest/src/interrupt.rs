//! Asking a run to end: by SIGINT, by SIGTERM, or by a key when the terminal hands those over.
//!
//! The first time it ends in order and reports. The second time it gives the terminal back, says so, and ends at once with
//! exit code 130.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{console, tty};

static ASKED: AtomicBool = AtomicBool::new(false);

/// What a shell reports of a program that Ctrl-C has ended.
const EXIT_CODE: i32 = 130;

/// Listens for signals from now on. The error says which could not be had.
pub(crate) fn listen() -> Result<(), String> {
    static LISTENING: Once = Once::new();
    let mut result = Ok(());
    LISTENING.call_once(|| result = start());
    result
}

fn start() -> Result<(), String> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| format!("SIGINT and SIGTERM: {error}"))?;
    let listen = move || signals.forever().for_each(|_| ask());
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(listen);
    thread.map(|_| ()).map_err(|error| format!("the thread for signals: {error}"))
}

/// Asks the run to end.
pub(crate) fn ask() {
    if ASKED.swap(true, Ordering::Relaxed) {
        tty::restore();
        console::note("ringgate-loadtest: ended at once, without a report: it was asked to a second time");
        std::process::exit(EXIT_CODE);
    }
}

/// Whether the run was asked to end.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
