//! OpenMetrics: accepted families are shown as text and as protobuf that is accepted again with the same meaning.

use pushrelay::exposition::{NameValidation, PushLimits, TimestampRule, openmetrics, text as text_format};

use super::text::{accepted, grouping, limits, shown};
use super::{conversation, protobuf};

/// The first byte selects the allowed names, and the rule for timestamps.
pub fn run(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let names = if mode & 1 == 0 { NameValidation::Legacy } else { NameValidation::Utf8 };
    let timestamps = if mode & 2 == 0 { TimestampRule::Refuse } else { TimestampRule::Strip };
    let Ok(raw) = openmetrics::parse(body, names, &PushLimits { timestamps, ..limits() }) else { return };
    let families = accepted(&raw);
    let page = shown(&families);
    let Ok(again) = text_format::parse(&page, NameValidation::Utf8, &PushLimits::default()) else {
        panic!("what is shown is not accepted: {}", String::from_utf8_lossy(&page));
    };
    let again = shown(&accepted(&again));
    assert_eq!(String::from_utf8_lossy(&page), String::from_utf8_lossy(&again), "shown again, it differs");
    protobuf::show(&families);
    conversation::cross(&grouping(), &families);
}
