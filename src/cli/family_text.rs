//! Families as text that can be pushed again.

use crate::exposition::{Escaping, text};
use crate::model::{Family, LabelSet};

/// The text of families, without the labels of a group.
pub fn as_text(families: &[&Family]) -> Vec<u8> {
    let (mut renderer, none, mut page) =
        (text::TextRenderer::new(Escaping::AllowUtf8), LabelSet::default(), Vec::new());
    families.iter().for_each(|family| renderer.block(family.schema(), [(&none, *family)], &mut page));
    page
}
