//! Durations and sizes as people write them.

/// Milliseconds of "500ms", "25s", "5m", "1h", "7d".
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let wanted = || format!("\"{text}\" is not a duration; write for instance \"500ms\", \"25s\", \"5m\" or \"1h\"");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wanted())?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return Err(wanted()),
    };
    number.checked_mul(factor).ok_or_else(wanted)
}

/// Bytes of "64KiB", "1MiB", "512" and the like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wanted = || format!("\"{text}\" is not a size; write for instance 65536, \"64KiB\" or \"1MiB\"");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wanted())?;
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wanted()),
    };
    number.checked_mul(factor).ok_or_else(wanted)
}

/// The 1-based line of a byte offset.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(parse_duration_ms("25s"), Ok(25_000));
        assert_eq!(parse_duration_ms("500ms"), Ok(500));
        assert_eq!(parse_duration_ms("1h"), Ok(3_600_000));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("10"), Ok(10));
        for bad in ["", "s", "25", "25 s", "-1s", "1y", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
        for bad in ["", "KiB", "1kb", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
