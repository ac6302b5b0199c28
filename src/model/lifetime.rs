//! The lifetime of a group after its newest accepted push, and durations as people write them.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// Prometheus's units in milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The longest duration, in milliseconds: a hundred years. It is longer than any useful wait, and far from an overflow
/// of times.
pub const DURATION_MS_MAX: u64 = 100 * 365 * 86_400_000;

/// Reads a duration as Prometheus does (`model.ParseDuration`): whole numbers with units, larger ones first. `None` if
/// the text is none, or is zero or over [`DURATION_MS_MAX`].
pub fn duration_ms(text: &str) -> Option<u64> {
    let (mut rest, mut total_ms, mut units) = (text, 0u64, &TIME_UNITS[..]);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let at = units.iter().position(|(unit, _)| *unit == &rest[..end])?;
        total_ms = number.checked_mul(units[at].1)?.checked_add(total_ms)?;
        (rest, units) = (&rest[end..], &units[at + 1..]);
    }
    (1..=DURATION_MS_MAX).contains(&total_ms).then_some(total_ms)
}

/// A duration as text that [`duration_ms`] reads, without years and weeks: `7d` is easier to read than `1w`, and 400
/// days than `1y5w`.
pub fn duration_text(ms: u64) -> String {
    let (mut rest, mut text) = (ms, String::new());
    for (unit, unit_ms) in TIME_UNITS {
        if rest >= unit_ms && !matches!(unit, "y" | "w") {
            text += &format!("{}{unit}", rest / unit_ms);
            rest %= unit_ms;
        }
    }
    text
}

/// The time after its newest accepted push at which a group expires, if ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(NonZeroU64);

impl Lifetime {
    /// The group never expires.
    pub const NEVER: Lifetime = Lifetime(NonZeroU64::MAX);

    /// Some milliseconds: from 1 to [`DURATION_MS_MAX`].
    pub fn of_ms(ms: u64) -> Option<Lifetime> {
        NonZeroU64::new(ms).filter(|ms| ms.get() <= DURATION_MS_MAX).map(Lifetime)
    }

    /// The time in milliseconds; `None` if the group never expires.
    pub fn ms(self) -> Option<u64> {
        (self != Self::NEVER).then_some(self.0.get())
    }

    /// The number for disk and link: milliseconds, or 0 for [`Lifetime::NEVER`].
    pub fn number(self) -> u64 {
        self.ms().unwrap_or_default()
    }

    /// The lifetime with that number; `None` if it is over [`DURATION_MS_MAX`].
    pub fn of_number(number: u64) -> Option<Lifetime> {
        if number == 0 { Some(Self::NEVER) } else { Self::of_ms(number) }
    }
}

/// A text is no lifetime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a duration more than 0 and at most 100y, like \"2h\" or \"1d12h\" (units ms, s, m, h, d, w, y), \
     nor \"never\""
)]
pub struct NotALifetime(String);

const NEVER: &str = "never";

impl FromStr for Lifetime {
    type Err = NotALifetime;

    fn from_str(text: &str) -> Result<Self, NotALifetime> {
        let lifetime = if text == NEVER { Some(Self::NEVER) } else { duration_ms(text).and_then(Self::of_ms) };
        lifetime.ok_or_else(|| NotALifetime(super::truncated(text).to_string()))
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ms() {
            Some(ms) => f.write_str(&duration_text(ms)),
            None => f.write_str(NEVER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_durations_or_never() {
        for (text, ms) in [("2h", 7_200_000), ("1d12h", 129_600_000), ("1s", 1_000), ("1w", 604_800_000)] {
            let lifetime: Lifetime = text.parse().unwrap();
            assert_eq!(lifetime.ms(), Some(ms));
            assert_eq!(lifetime.to_string().parse(), Ok(lifetime));
            assert_eq!(Lifetime::of_number(lifetime.number()), Some(lifetime));
        }
        assert_eq!("never".parse(), Ok(Lifetime::NEVER));
        assert_eq!(Lifetime::of_number(Lifetime::NEVER.number()), Some(Lifetime::NEVER));
        assert_eq!(Lifetime::of_number(DURATION_MS_MAX + 1), None);
        for text in ["", "0", "0s", "2", "2 h", "-1s", "Never", "1.5h", "101y", "99999999999999999999s"] {
            let error = text.parse::<Lifetime>().unwrap_err().to_string();
            assert!(error.contains("neither a duration") && error.contains("\"never\""), "{error}");
        }
    }
}
