//! Takes values one by one and collects what is wrong with them.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;

use ringgate_core::units::{duration_text, line_of, parse_duration_ms, parse_size};
use toml::Spanned;

use super::super::Problem;
use super::super::raw::{At, Duration, Number};

/// A number of a setting.
pub(super) trait Bounded: Copy + TryFrom<u64> {}

impl<T: Copy + TryFrom<u64>> Bounded for T {}

/// What is not named here may be any number of these.
pub(super) const NO_LIMIT: RangeInclusive<u64> = 0..=u32::MAX as u64;
pub(super) const POSITIVE: RangeInclusive<u64> = 1..=u32::MAX as u64;

/// Makes a struct of the values of a section, each `field = kind(key, range)`; `kind` is a method of [`Check`]. With `.. rest` at the
/// end, fields without a line keep the default.
macro_rules! take {
    (
        $check:expr, $section:literal, $raw:expr, $default:expr,
        $type:ident { $($field:ident = $kind:ident($key:ident, $range:expr),)* $(.. $rest:ident)? }
    ) => {{
        let (raw, $($rest,)? default) = take!(@values $raw, $default $(, $rest)?);
        $type {
            $($field: $check.$kind(concat!($section, ".", stringify!($key)), &raw.$key, default.$field, $range),)*
            $(..$rest)?
        }
    }};
    (@values $raw:expr, $default:expr) => {
        ($raw, $default)
    };
    (@values $raw:expr, $default:expr, $rest:ident) => {{
        let default = $default;
        ($raw, default.clone(), default)
    }};
}
pub(super) use take;

/// Collects problems while values are taken.
pub(super) struct Check<'a> {
    pub(super) text: &'a str,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn problem(&mut self, key: &str, at: Option<usize>, text: impl Into<String>) {
        let line = at.map(|offset| line_of(self.text, offset));
        self.problems.push(Problem { line, key: key.to_owned(), text: text.into() });
    }

    pub(super) fn warn(&mut self, key: &str, at: Option<usize>, text: impl Into<String>) {
        let line = at.map(|offset| line_of(self.text, offset));
        self.warnings.push(Problem { line, key: key.to_owned(), text: text.into() });
    }

    /// Warns where a file that holds a secret is not for its owner and group alone.
    pub(super) fn warn_if_open(&mut self, key: &str, at: Option<usize>, path: &str) {
        self.warn_if_allowed(key, at, path, 0o007, "open to", "o-rwx");
    }

    /// Warns where everybody could exchange what clients are checked against.
    pub(super) fn warn_if_writable(&mut self, key: &str, at: Option<usize>, path: &str) {
        self.warn_if_allowed(key, at, path, 0o002, "writable for", "o-w");
    }

    fn warn_if_allowed(&mut self, key: &str, at: Option<usize>, path: &str, bits: u32, how: &str, remedy: &str) {
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & bits != 0 {
            let text = format!("{path} is {how} every user of this host (mode {mode:04o}); `chmod {remedy} {path}`");
            self.warn(key, at, text);
        }
    }

    /// Milliseconds within a range.
    pub(super) fn duration(
        &mut self,
        key: &str,
        value: &At<Duration>,
        default_ms: u64,
        range_ms: RangeInclusive<u64>,
    ) -> u64 {
        let Some(value) = value else { return default_ms };
        let text = &value.get_ref().0;
        let wrong = match parse_duration_ms(text) {
            Ok(ms) if ms < *range_ms.start() => {
                format!("\"{text}\" is too short; at least {}", duration_text(*range_ms.start()))
            }
            Ok(ms) if ms > *range_ms.end() => {
                format!("\"{text}\" is too long; at most {}", duration_text(*range_ms.end()))
            }
            Ok(ms) => return ms,
            Err(error) => error,
        };
        self.problem(key, at(value), wrong);
        default_ms
    }

    /// A whole number within a range.
    pub(super) fn count<T: Bounded>(
        &mut self,
        key: &str,
        value: &At<Number>,
        default: T,
        range: RangeInclusive<u64>,
    ) -> T {
        self.number(key, value, default, range, false)
    }

    /// Bytes within a range.
    pub(super) fn size<T: Bounded>(
        &mut self,
        key: &str,
        value: &At<Number>,
        default: T,
        range: RangeInclusive<u64>,
    ) -> T {
        self.number(key, value, default, range, true)
    }

    fn number<T: Bounded>(
        &mut self,
        key: &str,
        value: &At<Number>,
        default: T,
        range: RangeInclusive<u64>,
        is_size: bool,
    ) -> T {
        let Some(value) = value else { return default };
        let right = format!("{} to {}{}", range.start(), range.end(), if is_size { " bytes" } else { "" });
        let (number, shown) = match value.get_ref() {
            Number::Integer(number) if *number < 0 => (Err(format!("{number} is negative; {right}")), String::new()),
            Number::Integer(number) => (Ok(u64::try_from(*number).unwrap_or(u64::MAX)), number.to_string()),
            Number::Text(text) if is_size => (parse_size(text), format!("\"{text}\"")),
            Number::Text(text) => (Err(format!("\"{text}\" is not a number; {right}")), String::new()),
        };
        let wrong = match number.map(|number| (range.contains(&number), T::try_from(number))) {
            Ok((true, Ok(number))) => return number,
            Ok(_) => format!("{shown} is out of bounds; {right}"),
            Err(error) => error,
        };
        self.problem(key, at(value), wrong);
        default
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, value: &At<String>, default: T, choices: &[(&str, T)]) -> T {
        let Some(value) = value else { return default };
        if let Some((_, chosen)) = choices.iter().find(|(name, _)| name == value.get_ref()) {
            return *chosen;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.problem(key, at(value), format!("\"{}\" is not one of {}", value.get_ref(), names.join(", ")));
        default
    }

    pub(super) fn address(&mut self, key: &str, value: &At<String>) -> Option<SocketAddr> {
        let Some(value) = value else {
            self.problem(key, None, "is missing; for instance \"127.0.0.1:7400\" or \"[::]:7400\"");
            return None;
        };
        let parsed = value.get_ref().parse();
        if parsed.is_err() {
            let text = format!("\"{}\" is not an address with a port; for instance \"0.0.0.0:7400\"", value.get_ref());
            self.problem(key, at(value), text);
        }
        parsed.ok()
    }
}

/// Where a value stands in the file, in bytes.
pub(super) fn at<T>(value: &Spanned<T>) -> Option<usize> {
    Some(value.span().start)
}
