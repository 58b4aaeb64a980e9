//! What the checks found, and the two ways to show it: a table for people, and JSON.

use std::ffi::OsString;

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// It works, and would be better otherwise.
    Warning,
    /// The target cannot be reached like this.
    Problem,
    /// Could not be found out here, and therefore not called good.
    Unknown,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) group: &'static str,
    pub(super) check: String,
    pub(super) state: State,
    pub(super) found: String,
    pub(super) wanted: String,
    pub(super) why: String,
    /// The command or setting that helps; empty where nothing has to be done.
    pub(super) fix: String,
}

/// A check that has not ended yet: what is looked at, what would be right, and why.
pub(super) struct Check {
    finding: Finding,
}

impl Check {
    pub(super) fn new(group: &'static str, check: impl Into<String>, wanted: impl Into<String>, why: &str) -> Check {
        let finding = Finding {
            group,
            check: check.into(),
            state: State::Unknown,
            found: String::new(),
            wanted: wanted.into(),
            why: why.to_owned(),
            fix: String::new(),
        };
        Check { finding }
    }

    pub(super) fn ok(self, found: impl Into<String>) -> Finding {
        Finding { state: State::Ok, found: found.into(), ..self.finding }
    }

    pub(super) fn warning(self, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { state: State::Warning, found: found.into(), fix: fix.into(), ..self.finding }
    }

    pub(super) fn problem(self, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { state: State::Problem, found: found.into(), fix: fix.into(), ..self.finding }
    }

    /// Not found out, with the reason.
    pub(super) fn unknown(self, reason: impl Into<String>) -> Finding {
        Finding { state: State::Unknown, found: reason.into(), ..self.finding }
    }

    /// `found` must be at least `least`; where it is not, that is of this weight.
    pub(super) fn at_least(self, found: Result<u64, String>, least: u64, weight: State, fix: String) -> Finding {
        match found {
            Err(reason) => self.unknown(reason),
            Ok(found) if found >= least => self.ok(count(found)),
            Ok(found) => Finding { state: weight, found: count(found), fix, ..self.finding },
        }
    }
}

/// A number with its digits in groups of three, "no limit" for the largest.
pub(super) fn count(number: u64) -> String {
    // file-max says "no limit" as a signed number.
    if number >= i64::MAX as u64 {
        return "no limit".to_owned();
    }
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes in the unit that reads best.
pub(super) fn bytes(number: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| number >= *size) {
        Some((unit, size)) => {
            let text = format!("{:.1}", number as f64 / *size as f64);
            format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
        }
        None => format!("{number} B"),
    }
}

/// What is found stands in a column of at most this width; longer texts push what is wanted to the next line.
const FOUND_WIDTH_MAX: usize = 36;
/// Sentences are wrapped at this width.
const LINE_WIDTH: usize = 110;
/// Where the name of a check begins.
const INDENT: usize = 11;

/// Whether colours are wanted: by a terminal that knows them, unless NO_COLOR says otherwise (no-color.org).
pub(super) fn is_coloured(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_off = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_terminal && !is_off && variable("TERM").is_none_or(|value| value != "dumb")
}

/// The table: a line a check; what is not in order is followed by why it matters and what helps.
pub(super) fn table(findings: &[Finding], colour: bool, explain: bool) -> String {
    let widest = |text: fn(&Finding) -> &str, most: usize| {
        findings.iter().map(|finding| text(finding).chars().count()).filter(|width| *width <= most).max().unwrap_or(0)
    };
    let names = widest(|finding| &finding.check, usize::MAX);
    let values = widest(|finding| &finding.found, FOUND_WIDTH_MAX);
    let mut lines = Vec::new();
    let mut group = "";
    for finding in findings {
        if finding.group != group {
            group = finding.group;
            lines.extend([String::new(), paint(group, "1", colour)]);
        }
        let (word, code) = match finding.state {
            State::Ok => ("ok", "32"),
            State::Warning => ("warning", "33"),
            State::Problem => ("problem", "31"),
            State::Unknown => ("unknown", "36"),
        };
        let word = paint(&format!("{word:<7}"), code, colour);
        let line = format!("  {word}  {:<names$}  {:<values$}", finding.check, finding.found);
        let wanted = paint(&format!("wanted: {}", finding.wanted), "2", colour);
        let below = " ".repeat(INDENT);
        if finding.found.chars().count() <= values {
            lines.push(format!("{line}  {wanted}"));
        } else {
            lines.extend([line, format!("{below}{wanted}")]);
        }
        if finding.state != State::Ok || explain {
            lines.extend(wrap(&finding.why).iter().map(|part| format!("{below}{}", paint(part, "2", colour))));
        }
        if !finding.fix.is_empty() {
            lines.push(format!("{below}-> {}", paint(&finding.fix, "1", colour)));
        }
    }
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// The text in lines that end between two words.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if INDENT + line.chars().count() + 1 + word.chars().count() <= LINE_WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// How many of each, in a line.
pub(super) fn summary(findings: &[Finding]) -> String {
    let of = |state: State| findings.iter().filter(|finding| finding.state == state).count();
    let (warnings, problems) = (of(State::Warning), of(State::Problem));
    let some = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    format!(
        "{}, {}, {} ok, {} unknown",
        some(problems, "problem"),
        some(warnings, "warning"),
        of(State::Ok),
        of(State::Unknown)
    )
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        Check::new("limits", "open files", "at least 5 000", "Each connection needs one.")
    }

    #[test]
    fn number_is_compared_then_it_is_enough_or_not_or_unknown() {
        let finding = |found| check().at_least(found, 5000, State::Problem, "ulimit -n 5000".to_owned());
        assert_eq!(finding(Ok(5000)).state, State::Ok);
        assert!(finding(Ok(5000)).fix.is_empty());
        let low = finding(Ok(4999));
        assert_eq!((low.state, low.found.as_str(), low.fix.as_str()), (State::Problem, "4 999", "ulimit -n 5000"));
        let missing = finding(Err("gone".to_owned()));
        assert_eq!((missing.state, missing.found.as_str()), (State::Unknown, "gone"));
    }

    #[test]
    fn finding_is_not_good_then_the_table_explains_it() {
        let findings =
            [check().ok("9 000"), check().problem("20", "ulimit -n 5000"), check().unknown("/x: it is not there")];
        let text = table(&findings, false, false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "",
                "limits",
                "  ok       open files  9 000                wanted: at least 5 000",
                "  problem  open files  20                   wanted: at least 5 000",
                "           Each connection needs one.",
                "           -> ulimit -n 5000",
                "  unknown  open files  /x: it is not there  wanted: at least 5 000",
                "           Each connection needs one.",
            ]
        );
        assert_eq!(table(&findings, false, true).matches("Each connection").count(), 3);
        assert!(!text.contains('\x1b'));
        assert!(table(&findings, true, false).contains("\x1b[31mproblem\x1b[0m"));
        assert_eq!(summary(&findings), "1 problem, 0 warnings, 1 ok, 1 unknown");
    }

    #[test]
    fn text_is_long_then_it_is_wrapped() {
        let long = Check::new("limits", "x", "little", &"word ".repeat(30)).unknown("y".repeat(40));
        let text = table(&[check().ok("1"), long], false, false);
        assert!(text.lines().all(|line| line.chars().count() <= LINE_WIDTH), "{text}");
        assert!(text.contains(&format!("{}\n           wanted: little\n", "y".repeat(40))), "{text}");
        assert_eq!(text.matches("word").count(), 30);
    }

    #[test]
    fn number_is_large_then_it_is_written_in_groups_or_units() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!(count(u64::MAX), "no limit");
        assert_eq!(count(i64::MAX as u64), "no limit");
        assert_eq!(bytes(3 << 30), "3 GiB");
        assert_eq!(bytes(20 << 10), "20 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(10), "10 B");
    }

    #[test]
    fn output_is_a_terminal_and_colours_are_wanted_then_it_is_coloured() {
        let with = |is_terminal, variables: &[(&str, &str)]| {
            is_coloured(is_terminal, |name| {
                variables.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
            })
        };
        assert!(with(true, &[]) && with(true, &[("NO_COLOR", ""), ("TERM", "xterm")]));
        assert!(!with(false, &[]) && !with(true, &[("NO_COLOR", "1")]) && !with(true, &[("TERM", "dumb")]));
    }
}
