//! What is written to standard output and standard error. Whoever reads there may leave early, as `head` does: that is
//! no error, and what nobody reads is not written. Other failures of standard output are.

use std::io::{ErrorKind, Write};

/// Writes a text and a line's end to standard output.
pub(crate) fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.strip_suffix('\n').unwrap_or(text)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}

/// Writes a line to standard error. There is nobody left to tell if that fails.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
