//! The values of options that are not words: lengths of time, counts, shares.

use std::time::Duration;

use jiff::SignedDuration;

use crate::inventory::MaxUnavailable;

/// Reads a length of time: `90s`, `5m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration =
        text.parse().map_err(|_| "give a number with its unit: 90s, 5m, 2h".to_owned())?;
    match Duration::try_from(parsed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be longer than nothing".to_owned()),
    }
}

/// Reads a limit of time; `0` and `none` are none.
pub(super) fn limit(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "none") { Ok(Duration::MAX) } else { duration(text) }
}

/// Reads a count of at least one.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a whole number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// Reads `3` or `10%`.
pub(super) fn max_unavailable(text: &str) -> Result<MaxUnavailable, String> {
    let wrong = || "give a number from 1 on, or a share such as 10%".to_owned();
    let (digits, kind): (&str, fn(u32) -> MaxUnavailable) = match text.strip_suffix('%') {
        Some(digits) => (digits, MaxUnavailable::Percent),
        None => (text, MaxUnavailable::Count),
    };
    match digits.parse::<u32>() {
        Ok(number) if number > 0 && (number <= 100 || !text.ends_with('%')) => Ok(kind(number)),
        _ => Err(wrong()),
    }
}
