//! Delimited protobuf: accepted families can be shown in every format, and are accepted again as protobuf.

use pushrelay::exposition::{Escaping, NameValidation, json, protobuf, text};
use pushrelay::model::Family;

use super::conversation;
use super::text::{accepted, grouping, limits};

/// The first byte selects the allowed names.
pub fn run(data: &[u8]) {
    let Some((mode, body)) = data.split_first() else { return };
    let names = if mode & 1 == 0 { NameValidation::Legacy } else { NameValidation::Utf8 };
    let Ok(raw) = protobuf::parse(body, names, &limits()) else { return };
    let families = accepted(&raw);
    show(&families);
    conversation::cross(&grouping(), &families);
}

/// Renders families in every format.
pub(super) fn show(families: &[Family]) {
    let group = grouping();
    for escaping in [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values] {
        let pages = [
            protobuf::ProtobufRenderer::delimited,
            protobuf::ProtobufRenderer::text,
            protobuf::ProtobufRenderer::compact_text,
        ];
        for renderer in pages {
            let (mut renderer, mut page) = (renderer(escaping), Vec::new());
            families.iter().for_each(|family| renderer.block(family.schema(), [(&group, family)], &mut page));
        }
        let (mut renderer, mut page) = (text::TextRenderer::new(escaping), Vec::new());
        families.iter().for_each(|family| renderer.block(family.schema(), [(&group, family)], &mut page));
    }
    let (mut renderer, mut page) = (protobuf::ProtobufRenderer::delimited(Escaping::AllowUtf8), Vec::new());
    families.iter().for_each(|family| renderer.block(family.schema(), [(&group, family)], &mut page));
    let again = protobuf::parse(&page, NameValidation::Utf8, &Default::default());
    let again = accepted(&again.expect("what is shown is accepted"));
    let with_series = families.iter().filter(|family| !family.values().is_empty());
    assert!(again.iter().map(Family::name).eq(with_series.map(Family::name)), "shown again, it differs");
    let shown = json::group(&group, true, families.iter().map(|family| (1, family)));
    assert!(shown.is_object());
}
