//! What is written to standard output and standard error. A reader may close the pipe early, as `head`
//! does: that is no error, and the rest is not written. Other failures of standard output are errors.

use std::io::{ErrorKind, Write};

/// Writes a text and a line's end to standard output.
pub(crate) fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.strip_suffix('\n').unwrap_or(text)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}

/// Writes a line to standard error. If that fails, there is nowhere to report it.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How this program was called, for reports: without tokens.
pub(crate) fn command_line() -> String {
    redacted(std::env::args())
}

/// What stands in a report in place of a token.
const REDACTED: &str = "[redacted]";

/// Arguments in one line. What follows `--token`, and whatever looks like a token, is left out, wherever it stands.
pub(crate) fn redacted(arguments: impl Iterator<Item = String>) -> String {
    let mut is_token = false;
    let argument = |argument: String| match argument.split_once('=') {
        _ if std::mem::replace(&mut is_token, argument == "--token") => REDACTED.to_owned(),
        Some(("--token", _)) => format!("--token={REDACTED}"),
        Some((name, value)) if looks_like_token(value) => format!("{name}={REDACTED}"),
        _ if looks_like_token(&argument) => REDACTED.to_owned(),
        _ => argument,
    };
    arguments.map(argument).collect::<Vec<_>>().join(" ")
}

/// A JSON Web Token is three parts of base64url, and the first is an object: it begins with `{"` or `{ `.
fn looks_like_token(text: &str) -> bool {
    text.starts_with("ey") && text.split('.').count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_stands_on_the_command_line_then_it_is_in_no_report() {
        let of = |text: &str| redacted(text.split(' ').map(str::to_owned));
        assert_eq!(of("lt idle --token a.b.c --quiet"), "lt idle --token [redacted] --quiet");
        assert_eq!(of("lt idle --token=a.b.c --tokens file"), "lt idle --token=[redacted] --tokens file");
        assert_eq!(of("lt idle --kid=eyJ.e30.x eyJ.e30.x"), "lt idle --kid=[redacted] [redacted]");
        assert_eq!(of("lt p2p --url tcp://eyrie.example.org:7400"), "lt p2p --url tcp://eyrie.example.org:7400");
        assert_eq!(of("lt --token"), "lt --token");
    }
}
