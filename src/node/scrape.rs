//! The page of a scrape, piece by piece: rendered while it is sent, from a snapshot, so that it waits for no push and no
//! push waits for it, and no page is ever held whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::compression::{Gzip, LEVEL_DEFAULT};
use crate::exposition::{Encoding, Format, protobuf, text};
use crate::model::{Family, LabelSet, Shape};
use crate::store::{Block, Published};

/// A piece is sent when it has this many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// What is shown under one metric name.
struct Name {
    /// The node's own.
    own: Option<Family>,
    /// What was pushed.
    block: Option<Arc<Block>>,
}

impl Name {
    /// The families with the labels of their groups.
    fn families<'a>(&'a self, none: &'a LabelSet) -> impl Iterator<Item = (&'a LabelSet, &'a Family)> {
        let pushed = self.block.iter().flat_map(|block| block.entries());
        let own = self.own.iter().map(move |family| (none, family));
        own.chain(pushed.map(|shown| (&*shown.labels, &shown.family)))
    }

    /// The shape that gives type and help; `None` if there is no series at all.
    fn head(&self) -> Option<&Arc<Shape>> {
        let own = self.own.iter();
        let pushed = self.block.iter().flat_map(|block| block.entries()).map(|shown| &shown.family);
        own.chain(pushed).map(Family::shape).find(|shape| shape.series_len() > 0)
    }
}

enum Renderer {
    Text(Box<text::Renderer>),
    Protobuf(protobuf::Renderer),
}

/// The pieces of one page.
pub struct Page {
    names: std::vec::IntoIter<Name>,
    /// The name being printed, and how many of its pages are.
    current: Option<(Name, usize)>,
    renderer: Renderer,
    gzip: Option<Gzip>,
    buffer: Vec<u8>,
    no_labels: LabelSet,
    ended: bool,
}

impl Page {
    /// A page of what is published now and of the node's own families.
    pub fn new(published: &Published, own: Vec<Family>, format: Format, gzip: bool) -> Self {
        let mut names: BTreeMap<Arc<str>, Name> = published
            .snapshot()
            .into_iter()
            .map(|(name, block)| (name, Name { own: None, block: Some(block) }))
            .collect();
        for family in own {
            let name = names.entry(family.name().clone()).or_insert(Name { own: None, block: None });
            name.own = Some(family);
        }
        let renderer = match format.encoding {
            Encoding::Text => Renderer::Text(Box::new(text::Renderer::new(format.escaping))),
            Encoding::ProtobufDelimited => Renderer::Protobuf(protobuf::Renderer::delimited(format.escaping)),
            Encoding::ProtobufText => Renderer::Protobuf(protobuf::Renderer::text(format.escaping)),
            Encoding::ProtobufCompactText => Renderer::Protobuf(protobuf::Renderer::compact_text(format.escaping)),
        };
        Self {
            names: names.into_values().collect::<Vec<_>>().into_iter(),
            current: None,
            renderer,
            gzip: gzip.then(|| Gzip::new(LEVEL_DEFAULT)),
            buffer: Vec::new(),
            no_labels: LabelSet::default(),
            ended: false,
        }
    }

    /// Prints a little more into the buffer. Returns whether there was something left.
    fn advance(&mut self) -> bool {
        let Some((name, pages)) = self.current.take().or_else(|| self.names.next().map(|name| (name, 0))) else {
            return false;
        };
        let Some(head) = name.head() else { return true };
        match &mut self.renderer {
            // A message begins with its length, so the whole block is one step.
            Renderer::Protobuf(renderer) => renderer.block(head, name.families(&self.no_labels), &mut self.buffer),
            Renderer::Text(renderer) => {
                if pages == 0 {
                    renderer.head(head, &mut self.buffer);
                    if let Some(own) = &name.own {
                        renderer.family(&self.no_labels, own, &mut self.buffer);
                    }
                }
                let page = name.block.as_ref().and_then(|block| block.pages().get(pages));
                if let Some(page) = page {
                    for shown in page.entries() {
                        renderer.family(&shown.labels, &shown.family, &mut self.buffer);
                    }
                    self.current = Some((name, pages + 1));
                }
            }
        }
        true
    }
}

impl Iterator for Page {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while !self.ended && out.len() < PIECE_BYTES {
            while self.buffer.len() < PIECE_BYTES && !self.ended {
                self.ended = !self.advance();
            }
            match &mut self.gzip {
                None => out.append(&mut self.buffer),
                Some(gzip) => {
                    gzip.write(&self.buffer, &mut out);
                    self.buffer.clear();
                    if self.ended {
                        self.gzip.take().expect("it is there").finish(&mut out);
                    }
                }
            }
        }
        (!out.is_empty()).then(|| out.into())
    }
}
