//! Durations and sizes as people write them.

/// Milliseconds of "500ms", "25s", "5m", "1h", "7d".
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let wanted =
        || format!("\"{text}\" is not a duration; write for instance \"500ms\", \"25s\", \"5m\", \"1h\" or \"7d\"");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number = whole_number(number).ok_or_else(wanted)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return Err(wanted()),
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("\"{text}\" is too long for a duration; write for instance \"25s\" or \"30d\""))
}

/// Bytes of "64KiB", "1MiB", "512" and the like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wanted = || format!("\"{text}\" is not a size; write for instance 65536, \"64KiB\" or \"1MiB\"");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number = whole_number(number).ok_or_else(wanted)?;
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wanted()),
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("\"{text}\" is too large for a size; write for instance \"64KiB\" or \"1MiB\""))
}

/// Digits alone; a number that is too large for 64 bits is the largest, and no unit makes it smaller.
fn whole_number(digits: &str) -> Option<u64> {
    (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Milliseconds in the largest unit that takes a whole number of them.
pub fn duration_text(ms: u64) -> String {
    let units = [("d", 24 * 3600 * 1000), ("h", 3600 * 1000), ("m", 60 * 1000), ("s", 1000)];
    match units.into_iter().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", ms / factor),
        None => format!("{ms}ms"),
    }
}

/// The 1-based line of a byte offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, ms) in
            [("0s", 0), ("500ms", 500), ("25s", 25_000), ("3m", 180_000), ("1h", 3_600_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration_ms(text), Ok(ms));
            assert_eq!(duration_text(ms), if ms == 0 { "0ms" } else { text });
        }
        assert_eq!(
            (duration_text(1500), duration_text(90_000), duration_text(1)),
            ("1500ms".into(), "90s".into(), "1ms".into())
        );
        for (text, bytes) in [("10", 10), ("7B", 7), ("64KiB", 65_536), ("2 MiB", 2_097_152), ("3GiB", 3_221_225_472)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for bad in ["", "s", "25", "25 s", "-1s", "1y", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
        for bad in ["", "KiB", "1kb", "-1", "1 K", "99999999999GiB", "99999999999999999999KiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert!(parse_duration_ms("99999999999999999999s").unwrap_err().contains("too long"));
        assert!(parse_size("99999999999GiB").unwrap_err().contains("too large"));
    }
}
