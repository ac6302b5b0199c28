//! The text format: accepted families are rendered so that they are accepted again with the same meaning.

use pushrelay::exposition::{Escaping, NameValidation, PushLimits, RawFamily, text};
use pushrelay::model::{Family, LabelSet};

use super::{conversation, protobuf};

/// The first byte selects the allowed names.
pub fn run(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let names = if mode & 1 == 0 { NameValidation::Legacy } else { NameValidation::Utf8 };
    let Ok(raw) = text::parse(body, names, &limits()) else { return };
    let families = accepted(&raw);
    let page = shown(&families);
    // The labels of the group are now on each line, so other limits apply.
    let Ok(again) = text::parse(&page, NameValidation::Utf8, &PushLimits::default()) else {
        panic!("what is shown is not accepted: {}", String::from_utf8_lossy(&page));
    };
    let again = shown(&accepted(&again));
    assert_eq!(String::from_utf8_lossy(&page), String::from_utf8_lossy(&again), "shown again, it differs");
    protobuf::show(&families);
    conversation::cross(&grouping(), &families);
}

/// Limits that inputs of a fuzzer's size can exceed.
pub(super) fn limits() -> PushLimits {
    PushLimits {
        line_bytes_max: 512,
        labels_per_series_max: 20,
        series_max: 200,
        families_max: 100,
        parts_per_series_max: 50,
        values_max: 300,
        ..PushLimits::default()
    }
}

/// The families that a group accepts.
pub(super) fn accepted(raw: &[RawFamily<'_>]) -> Vec<Family> {
    let mut families: Vec<Family> = raw.iter().filter_map(|family| family.family(&grouping()).ok()).collect();
    families.sort_by(|a, b| a.name().cmp(b.name()));
    families.dedup_by(|a, b| a.name() == b.name());
    families
}

/// The labels of the group to which they are pushed.
pub(super) fn grouping() -> LabelSet {
    LabelSet::new([("job", "j"), ("g", "a\"b\\c\nd")])
}

/// The page that shows them.
pub(super) fn shown(families: &[Family]) -> Vec<u8> {
    let (mut renderer, group, mut page) = (text::TextRenderer::new(Escaping::AllowUtf8), grouping(), Vec::new());
    for family in families {
        renderer.block(family.schema(), [(&group, family)], &mut page);
    }
    page
}
