//! Times as text, for people and for programs.

use time::OffsetDateTime;

/// Nanoseconds since the Unix epoch as RFC 3339 in UTC, with as many digits as needed: `2026-11-22T10:34:13.28Z`.
pub fn rfc3339(wall_ns: u64) -> String {
    let mut text = seconds(wall_ns, 'T');
    let fraction = wall_ns % 1_000_000_000;
    if fraction != 0 {
        text.push_str(format!(".{fraction:09}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// The same rounded down to seconds, for pages: `2026-11-22 10:34:13 UTC`.
pub(super) fn readable(wall_ns: u64) -> String {
    format!("{} UTC", seconds(wall_ns, ' '))
}

fn seconds(wall_ns: u64, separator: char) -> String {
    // A u64 of nanoseconds (584 years) is within the range of dates, so the fallback is never used.
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall_ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    format!("{year:04}-{month:02}-{day:02}{separator}{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
}

/// A duration in its largest unit: `45 s`, `3 min`, `7 h`, `12 d`.
pub fn span(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_795_343_653_281_320_029), "2026-11-22T10:34:13.281320029Z");
        assert_eq!(rfc3339(1_795_343_653_280_000_000), "2026-11-22T10:34:13.28Z");
        assert_eq!(readable(1_795_343_653_280_000_000), "2026-11-22 10:34:13 UTC");
        assert!(rfc3339(u64::MAX).starts_with("2554-"));
        assert_eq!([5, 120, 7_200, 172_800].map(|s| span(s * 1_000_000_000)), ["5 s", "2 min", "2 h", "2 d"]);
    }
}
