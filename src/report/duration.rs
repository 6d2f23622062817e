//! Durations as people say them: `3 days ago`, `in 9 years 11 months`, `4 min 12 s`.
//!
//! Reports of certificates and of runs use them; JSON never does.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit};

/// Returns when a certificate ends, seen from now: `expired 3 days ago`, `in 9 years 11 months`.
pub fn expiry(end: Timestamp, now: Timestamp) -> String {
    if end <= now {
        format!("expired {} ago", between(end, now))
    } else {
        format!("in {}", between(now, end))
    }
}

/// Returns how long it is from one time to a later one, as precisely as a person wants to know.
pub fn between(from: Timestamp, to: Timestamp) -> String {
    let date = |time: Timestamp| TimeZone::UTC.to_datetime(time);
    let span = date(from).until((Unit::Year, date(to))).unwrap_or_else(|_| Span::new());
    let days = to.duration_since(from).as_hours() / 24;
    let (years, months) = (i64::from(span.get_years()), i64::from(span.get_months()));
    match (years, months) {
        (1.., 1..) => format!("{} {}", count(years, "year"), count(months, "month")),
        (1.., _) => count(years, "year"),
        (_, 4..) => count(months, "month"),
        _ if days >= 2 => count(days, "day"),
        _ => match to.duration_since(from).as_mins() {
            minutes @ 120.. => count(minutes / 60, "hour"),
            minutes => count(minutes.max(0), "minute"),
        },
    }
}

/// Returns how long something took: `1.2 s`, `4 min 12 s`, `2 h 5 min`.
pub fn took(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Returns a limit of time without needless zeros: `90 s`, `20 min`, `2 h`.
pub fn limit(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => "0 s".to_owned(),
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Returns a time as people read it, always in UTC.
pub fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Returns a number with its noun in the right number.
pub fn count(number: i64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn ends_are_told_as_people_tell_them() {
        let now = time("2026-11-21T12:00:00Z");
        let told = |end| expiry(time(end), now);
        assert_eq!(told("2036-10-25T12:00:00Z"), "in 9 years 11 months");
        assert_eq!(told("2027-11-21T12:00:00Z"), "in 1 year");
        assert_eq!(told("2027-04-01T12:00:00Z"), "in 4 months");
        assert_eq!(told("2027-01-01T12:00:00Z"), "in 41 days");
        assert_eq!(told("2026-11-22T12:00:00Z"), "in 24 hours");
        assert_eq!(told("2026-11-21T12:01:30Z"), "in 1 minute");
        assert_eq!(told("2026-11-21T12:00:00Z"), "expired 0 minutes ago");
        assert_eq!(told("2026-11-18T11:00:00Z"), "expired 3 days ago");
        assert_eq!(told("2024-11-21T12:00:00Z"), "expired 2 years ago");
    }

    #[test]
    fn spans_have_the_unit_that_fits() {
        assert_eq!(took(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(took(Duration::from_secs(42)), "42 s");
        assert_eq!(took(Duration::from_secs(252)), "4 min 12 s");
        assert_eq!(took(Duration::from_secs(7500)), "2 h 5 min");
        assert_eq!(limit(Duration::from_secs(90)), "90 s");
        assert_eq!(limit(Duration::from_secs(1200)), "20 min");
        assert_eq!(limit(Duration::from_secs(3600)), "1 h");
    }
}
