//! A page for a scraper, in whichever format was negotiated.

use super::negotiate::{Encoding, Format};
use super::{protobuf, text};
use crate::model::{Family, LabelSet, Schema};

/// Prints the blocks of a page.
#[derive(Debug)]
pub enum Page {
    /// In the text format.
    Text(Box<text::Renderer>),
    /// In protobuf, binary or as text.
    Protobuf(protobuf::Renderer),
}

impl Page {
    /// A page in that format.
    pub fn new(format: Format) -> Self {
        match format.encoding {
            Encoding::Text => Self::Text(Box::new(text::Renderer::new(format.escaping))),
            Encoding::ProtobufDelimited => Self::Protobuf(protobuf::Renderer::delimited(format.escaping)),
            Encoding::ProtobufText => Self::Protobuf(protobuf::Renderer::text(format.escaping)),
            Encoding::ProtobufCompactText => Self::Protobuf(protobuf::Renderer::compact_text(format.escaping)),
        }
    }

    /// Appends the block of one metric name: help and type of `head`, then the series of each family under the labels of
    /// its group. Appends nothing if there is no series.
    pub fn block<'a>(
        &mut self,
        head: &Schema,
        families: impl IntoIterator<Item = (&'a LabelSet, &'a Family)>,
        into: &mut Vec<u8>,
    ) {
        match self {
            Self::Text(renderer) => renderer.block(head, families, into),
            Self::Protobuf(renderer) => renderer.block(head, families, into),
        }
    }
}
