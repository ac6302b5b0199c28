//! Values as people write them: `"64MiB"`, `"7d"`, `"127.0.0.1:9091"`. They are read from a file or a flag, and
//! printed.

use std::time::Duration;

use toml::de::DeValue;
use tracing::level_filters::LevelFilter;

use super::log::LogFormat;
use crate::exposition::{Escaping, TimestampRule};
use crate::gateway::rights::Right;
use crate::model::{DURATION_MS_MAX, GaugeRule, Lifetime, duration_ms, duration_text};
use crate::net::address::{HostPort, ListenAddress};
use crate::net::http::sender::ReceiverUrl;
use crate::net::identity::{EdgeName, NamePattern};
use crate::net::proxy::NoProxyRule;
use crate::net::proxy_protocol::TrustedProxy;
use crate::net::tls::web::{ClientAuth, Curve, Suite, TlsVersion};
use crate::net::token::TokenDigest;
use crate::node::options::{ProtobufMessage, VerdictRule, WriteMode};
use crate::selector::Selector;
use crate::storage::SyncPolicy;

/// A value of one kind.
pub(super) trait ConfigValue: Sized {
    /// The kind, for messages: "a …".
    const KIND: &'static str;

    /// Reads the text of a flag, or of a string in a file.
    ///
    /// # Errors
    /// A message that says how to write the value.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads a value in a file: a string, unless the kind has a TOML type of its own.
    ///
    /// # Errors
    /// A message that says how to write the value.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::from_text(text),
            other => Err(wrong_type(Self::KIND, other)),
        }
    }

    /// The value as text that [`ConfigValue::from_text`] reads.
    fn to_text(&self) -> String;
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteSize(pub u64);

pub(super) fn wrong_type(kind: &str, found: &DeValue<'_>) -> String {
    format!("this must be {kind}, not {} {}", article(found.type_str()), found.type_str())
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'i']) { "an" } else { "a" }
}

impl ConfigValue for String {
    const KIND: &'static str = "a string";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn to_text(&self) -> String {
        self.clone()
    }
}

impl ConfigValue for bool {
    const KIND: &'static str = "true or false";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| wrong_type(Self::KIND, value))
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// At least 1: a bound of 0 makes no sense.
impl ConfigValue for usize {
    const KIND: &'static str = "a whole number from 1";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{text:?} is not {}", Self::KIND))
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let integer = integer(value).ok_or_else(|| wrong_type(Self::KIND, value))?;
        let number = usize::try_from(integer?).ok().filter(|n| *n > 0);
        number.ok_or_else(|| format!("this must be {}", Self::KIND))
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// A TOML integer of any radix, if it is one.
fn integer(value: &DeValue<'_>) -> Option<Result<i128, String>> {
    let integer = value.as_integer()?;
    let parsed = i128::from_str_radix(integer.as_str(), integer.radix());
    Some(parsed.map_err(|_| "this number is too large".into()))
}

const BYTE_UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl ConfigValue for ByteSize {
    const KIND: &'static str = "a size in bytes from 1, like \"64MiB\" (units B, KiB, MiB, GiB)";

    fn from_text(text: &str) -> Result<Self, String> {
        let with_unit = |(unit, shift): &(&str, u32)| Some((text.strip_suffix(unit)?, *shift));
        let (digits, shift) = BYTE_UNITS.iter().find_map(with_unit).unwrap_or((text, 0));
        let number = digits.trim_end().parse::<u64>().ok().filter(|n| *n > 0 && digits.starts_with(char::is_numeric));
        let bytes = number.and_then(|n| n.checked_mul(1 << shift)).filter(|n| i64::try_from(*n).is_ok());
        bytes.map(ByteSize).ok_or_else(|| format!("{text:?} is not {}", Self::KIND))
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match integer(value) {
            Some(integer) => Self::from_text(&integer?.to_string()),
            None => value.as_str().map_or_else(|| Err(wrong_type(Self::KIND, value)), Self::from_text),
        }
    }

    fn to_text(&self) -> String {
        let divides = |(_, shift): &&(&str, u32)| self.0.is_multiple_of(1 << shift);
        let (unit, shift) = BYTE_UNITS.iter().find(divides).unwrap_or(&("B", 0));
        format!("{}{unit}", self.0 >> shift)
    }
}

/// Prometheus's durations (`model.ParseDuration`): whole numbers with units, larger ones first.
impl ConfigValue for Duration {
    const KIND: &'static str = "a duration more than 0, like \"10s\" or \"1h30m\" (units ms, s, m, h, d, w, y)";

    fn from_text(text: &str) -> Result<Self, String> {
        let ms = duration_ms(text).ok_or_else(|| format!("{text:?} is not {}", Self::KIND))?;
        Ok(Duration::from_millis(ms))
    }

    fn to_text(&self) -> String {
        duration_text(u64::try_from(self.as_millis()).unwrap_or(DURATION_MS_MAX))
    }
}

/// A duration that may be zero (`0s`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause(pub Duration);

const NO_PAUSE: &str = "0s";

impl ConfigValue for Pause {
    const KIND: &'static str = "\"0s\" or a duration like \"500ms\" or \"1s\" (units ms, s, m, h, d, w, y)";

    fn from_text(text: &str) -> Result<Self, String> {
        if text == NO_PAUSE {
            return Ok(Self(Duration::ZERO));
        }
        Duration::from_text(text).map(Self).map_err(|_| format!("{text:?} is not {}", Self::KIND))
    }

    fn to_text(&self) -> String {
        if self.0.is_zero() { NO_PAUSE.into() } else { self.0.to_text() }
    }
}

macro_rules! parsed {
    ($($kind:ty: $name:literal),*) => {$(
        impl ConfigValue for $kind {
            const KIND: &'static str = $name;

            fn from_text(text: &str) -> Result<Self, String> {
                text.parse().map_err(|error| format!("{error}"))
            }

            fn to_text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
parsed!(ClientAuth: "the name of a client_auth_type", TlsVersion: "\"TLS12\" or \"TLS13\"", Suite: "the name of a cipher suite", Curve: "the name of a curve");
parsed!(ListenAddress: "an address like \"127.0.0.1:9091\"", HostPort: "an address like \"hub.example.org:9443\"", EdgeName: "a name");
parsed!(NamePattern: "the name of an edge, or the beginning of names like \"syq-*\"");
parsed!(TrustedProxy: "an address or a network");
parsed!(TokenDigest: "the SHA-256 of a token");
parsed!(Lifetime: "a duration like \"7d\", or \"never\"");
parsed!(ReceiverUrl: "a URL like \"https://mimir.example.org/api/v1/push\"");
parsed!(NoProxyRule: "a host, a suffix, a network or \"*\"");

impl ConfigValue for Selector {
    const KIND: &'static str = "a selector like '{job=\"ci\"}'";

    fn from_text(text: &str) -> Result<Self, String> {
        Selector::parse(text).map_err(|error| error.to_string())
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

macro_rules! one_of {
    ($($kind:ty: $name:literal { $($text:literal => $value:path),* })*) => {$(
        impl ConfigValue for $kind {
            const KIND: &'static str = $name;

            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok($value),)*
                    _ => Err(format!("{text:?} is not {}", Self::KIND)),
                }
            }

            fn to_text(&self) -> String {
                match *self {
                    $($value => $text,)*
                }
                .into()
            }
        }
    )*};
}
one_of! {
    SyncPolicy: "\"always\" or \"never\"" { "always" => SyncPolicy::Always, "never" => SyncPolicy::Never }
    TimestampRule: "\"refuse\" or \"strip\"" { "refuse" => TimestampRule::Refuse, "strip" => TimestampRule::Strip }
    GaugeRule: "\"last\", \"max\", \"min\" or \"sum\"" {
        "last" => GaugeRule::Last, "max" => GaugeRule::Max, "min" => GaugeRule::Min, "sum" => GaugeRule::Sum
    }
    Right: "\"push\", \"delete\", \"read\" or \"admin\"" {
        "push" => Right::Push, "delete" => Right::Delete, "read" => Right::Read, "admin" => Right::Admin
    }
    VerdictRule: "\"mark\" or \"reject\"" { "mark" => VerdictRule::Mark, "reject" => VerdictRule::Reject }
    ProtobufMessage: "\"prometheus.WriteRequest\" or \"io.prometheus.write.v2.Request\"" {
        "prometheus.WriteRequest" => ProtobufMessage::V1, "io.prometheus.write.v2.Request" => ProtobufMessage::V2
    }
    WriteMode: "\"interval\" or \"on-change\"" { "interval" => WriteMode::Interval, "on-change" => WriteMode::OnChange }
    LogFormat: "\"logfmt\" or \"json\"" { "logfmt" => LogFormat::Logfmt, "json" => LogFormat::Json }
}

impl ConfigValue for Escaping {
    const KIND: &'static str = "one of \"allow-utf-8\", \"underscores\", \"dots\" and \"values\"";

    fn from_text(text: &str) -> Result<Self, String> {
        Escaping::from_parameter(text).ok_or_else(|| format!("{text:?} is not {}", Self::KIND))
    }

    fn to_text(&self) -> String {
        self.parameter().into()
    }
}

const LEVELS: [(&str, LevelFilter); 5] = [
    ("trace", LevelFilter::TRACE),
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("warn", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
];

impl ConfigValue for LevelFilter {
    const KIND: &'static str = "one of \"trace\", \"debug\", \"info\", \"warn\" and \"error\"";

    /// Upper and lower case are equal, as in Pushgateway.
    fn from_text(text: &str) -> Result<Self, String> {
        let level = LEVELS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        level.map(|(_, level)| *level).ok_or_else(|| format!("{text:?} is not {}", Self::KIND))
    }

    fn to_text(&self) -> String {
        LEVELS.iter().find(|(_, level)| level == self).map_or("", |(name, _)| name).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_prometheuss() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("1w", 604_800_000)]
        {
            assert_eq!(Duration::from_text(text), Ok(Duration::from_millis(ms)));
        }
        for text in
            ["", "0", "0s", "10", "s", "1.5s", "-1s", "1s1h", "1s1s", "1 s", "99999999999999999999s", "101y", "1µs"]
        {
            assert!(Duration::from_text(text).unwrap_err().contains("is not a duration"), "{text}");
        }
    }

    #[test]
    fn a_pause_may_be_none() {
        for (text, ms) in [("0s", 0), ("1ms", 1), ("1s", 1_000)] {
            assert_eq!(Pause::from_text(text), Ok(Pause(Duration::from_millis(ms))));
            assert_eq!(Pause(Duration::from_millis(ms)).to_text(), text);
        }
        for text in ["", "0", "0ms", "1"] {
            assert!(Pause::from_text(text).unwrap_err().contains("is not \"0s\" or a duration"), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [("1", 1), ("64MiB", 64 << 20), ("8 KiB", 8 << 10), ("2GiB", 2 << 30), ("7B", 7)] {
            assert_eq!(ByteSize::from_text(text), Ok(ByteSize(bytes)));
        }
        for text in ["", "0", "-1", "+1", "MiB", "64MB", "1.5MiB", "9999999999GiB", "9223372036854775808"] {
            assert!(ByteSize::from_text(text).unwrap_err().contains("is not a size"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn values_print_as_they_are_read(n in 1..=(1u64 << 40), ms in 1..=DURATION_MS_MAX) {
            prop_assert_eq!(ByteSize::from_text(&ByteSize(n).to_text()), Ok(ByteSize(n)));
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(Duration::from_text(&duration.to_text()), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (ByteSize::from_text(&text), Duration::from_text(&text), HostPort::from_text(&text));
        }
    }
}
