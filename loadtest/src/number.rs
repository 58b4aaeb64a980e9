//! Counts and rates as people write them: `10k`, `1.5m`, `5k/s`; on the command line and in the file of `mixed`.
//!
//! `k` is a thousand and `m` a million, also for bytes. Errors say what is wrong, and what would be right.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer};

/// A reader of whole numbers within a range.
pub(crate) fn count(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let (least, most) = (*range.start(), *range.end());
        let examples = match most {
            1_500_000.. => ", such as 500, 10k or 1.5m",
            10_000.. => ", such as 500 or 10k",
            _ => "",
        };
        let wanted = || format!("must be a whole number from {least} to {most}{examples}");
        if is_per_second(text) {
            return Err(format!("{}; it is a count, not a rate: leave the /s away", wanted()));
        }
        // Digits alone are read without a detour, which would round large ones.
        let number = text.parse().ok().or_else(|| {
            let number = suffixed(text)?;
            let is_whole = (number - number.round()).abs() <= number.abs() * 1e-12;
            (is_whole && (0.0..=u64::MAX as f64).contains(&number)).then(|| number.round() as u64)
        });
        number.filter(|number| range.contains(number)).ok_or_else(wanted)
    }
}

/// [`count`], for options of 32 bits.
pub(crate) fn count_u32(
    range: RangeInclusive<u32>,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    let count = count(u64::from(*range.start())..=u64::from(*range.end()));
    // The range is one of 32 bits.
    move |text| count(text).map(|number| number as u32)
}

/// The highest rate: more than this no process could send, and planning it would take longer than the run.
pub(crate) const RATE_MAX: f64 = 1e7;

/// A number per second, above 0.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let number = suffixed(without_per_second(text));
    match number {
        Some(number) if number > RATE_MAX => Err(format!("must be at most {RATE_MAX} per second")),
        Some(number) if number > 0.0 => Ok(number),
        _ => Err("must be a number per second above 0, such as 500, 2.5, 10k or 5k/s".to_owned()),
    }
}

/// A finite number above 0.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    suffixed(text).filter(|number| *number > 0.0).ok_or_else(|| "must be a number above 0, such as 5 or 0.5".to_owned())
}

/// What random times are made from.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    let wanted = "is a seed, which makes the random times repeatable: a whole number from 0 on, such as 7, or nothing; how many \
                  are sent per second is --rate";
    text.parse().map_err(|_| wanted.to_owned())
}

/// A finite number, with or without a suffix; none if this is no number.
pub(crate) fn suffixed(text: &str) -> Option<f64> {
    let text = text.trim();
    let (digits, factor) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 1e3),
        'm' | 'M' => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    Some(plain(digits)? * factor).filter(|number| number.is_finite())
}

/// A finite number without a suffix, also as `1e6` or `10_000`; none if this is no number.
pub(crate) fn plain(text: &str) -> Option<f64> {
    // "inf" and "nan" are numbers for the parser of std.
    let is_number = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E' | '_'));
    let number: f64 = text.replace('_', "").parse().ok().filter(|_| is_number)?;
    number.is_finite().then_some(number)
}

/// `5k` of `5k/s`.
pub(crate) fn without_per_second(text: &str) -> &str {
    let text = text.trim();
    ["/sec", "/s"].iter().find_map(|end| text.strip_suffix(end)).unwrap_or(text)
}

fn is_per_second(text: &str) -> bool {
    without_per_second(text) != text.trim()
}

/// A value of a file: a number, or text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Whole(i64),
    Number(f64),
    Text(String),
}

impl Written {
    fn text(self) -> String {
        match self {
            Written::Whole(number) => number.to_string(),
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        }
    }
}

/// A count in a file, from 0 on; the caller checks its bounds.
pub(crate) fn count_in_file<'de, D: Deserializer<'de>>(file: D) -> Result<u32, D::Error> {
    let text = Written::deserialize(file)?.text();
    count_u32(0..=u32::MAX)(&text).map_err(|error| serde::de::Error::custom(format!("\"{text}\" {error}")))
}

/// A rate in a file, also one that is not above 0; the caller checks its bounds.
pub(crate) fn rate_in_file<'de, D: Deserializer<'de>>(file: D) -> Result<f64, D::Error> {
    match Written::deserialize(file)? {
        Written::Whole(number) => Ok(number as f64),
        Written::Number(number) => Ok(number),
        Written::Text(text) => rate(&text).map_err(|error| serde::de::Error::custom(format!("\"{text}\" {error}"))),
    }
}

/// [`rate_in_file`], for an optional key.
pub(crate) fn rate_in_file_if_any<'de, D: Deserializer<'de>>(file: D) -> Result<Option<f64>, D::Error> {
    rate_in_file(file).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_has_a_suffix_then_it_is_multiplied() {
        let count = count(1..=2_000_000);
        for (text, number) in
            [("7", 7), ("10k", 10_000), ("1.5K", 1_500), ("1.1m", 1_100_000), ("2M", 2_000_000), ("10_000", 10_000)]
        {
            assert_eq!(count(text), Ok(number), "{text}");
        }
        for (text, number) in
            [("0.5", 0.5), ("5k", 5e3), ("5k/s", 5e3), ("1000/s", 1e3), ("1.5m", 1.5e6), ("1e6", 1e6), ("20/sec", 20.0)]
        {
            assert_eq!(rate(text), Ok(number), "{text}");
        }
        assert_eq!(super::count(0..=u64::MAX)("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn number_is_wrong_then_the_error_says_what_would_be_right() {
        for text in ["", "k", "1.5", "-5", "2000001", "3m", "ten", "1/s", "1kk", "0", "é", "1e400"] {
            let error = count(1..=2_000_000)(text).unwrap_err();
            assert!(error.contains("a whole number from 1 to 2000000, such as 500, 10k or 1.5m"), "{text}: {error}");
        }
        for text in ["", "0", "-5", "fast", "inf", "nan", "5k/m", "/s", "5//s"] {
            assert!(rate(text).unwrap_err().contains("above 0, such as 500, 2.5, 10k or 5k/s"), "{text}");
        }
        assert!(count(1..=99)("200").unwrap_err().ends_with("from 1 to 99"));
        assert!(seed("abc").unwrap_err().contains("a whole number from 0 on"));
        assert!(positive("0").unwrap_err().contains("above 0"));
    }
}
