//! The body of a scrape, rendered part by part from a snapshot while it is sent. No push waits for a scrape, no scrape
//! for a push, and the body is never in memory as a whole.
//!
//! A filtered scrape renders the families that a [`Selection`](crate::store::selection::Selection) picks.
//!
//! With gzip, text is compressed in fragments, one per chunk of the store, and each fragment is cached beside its
//! chunk. A scrape renders and compresses the chunks that changed since the scrape before, and copies the rest. Shards have fragments of their own; a filtered scrape uses
//! those of the whole page for chunks that it selects as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::compression::{FragmentEncoder, GzipMember, LEVEL_DEFAULT};
use crate::exposition::{Encoding, Escaping, Format, protobuf, text};
use crate::model::{ByteBudget, Family, LabelSet};
use crate::store::selection::{ScrapeFilter, Shard, Snapshot};
use crate::store::{self, EncodingKey, Published, ShownFamily};

use self::names::{NamedFamilies, Names, Part, PushedFamilies};
use super::page_size::{Measured, PageSize};

mod names;

/// A part is sent when it has this many bytes.
const PART_BYTES: usize = 128 << 10;
/// A chunk with less text gets no fragment of its own: it is compressed along with its neighbours.
const PIECE_TEXT_BYTES_MIN: usize = 2 << 10;
/// Bytes of text that are compressed together, about.
const RUN_BYTES: usize = 64 << 10;

enum BodyRenderer {
    Text(Box<text::TextRenderer>),
    Protobuf(protobuf::ProtobufRenderer),
}

/// The name that is being rendered.
struct CurrentName {
    name: NamedFamilies,
    /// The number of parts that are done.
    parts: usize,
    /// Whether its HELP and TYPE lines are rendered.
    is_headed: bool,
}

impl CurrentName {
    fn new(name: NamedFamilies) -> Self {
        Self { name, parts: 0, is_headed: false }
    }
}

/// The body of one scrape, as an iterator of its parts.
pub struct ScrapeBody {
    names: Names,
    current: Option<CurrentName>,
    renderer: BodyRenderer,
    packing: Option<Box<Packing>>,
    /// Rendered text that is not compressed yet, if the body is compressed.
    text: Vec<u8>,
    no_labels: LabelSet,
    measured: Option<Measured>,
    ended: bool,
}

/// The state of gzip compression.
struct Packing {
    encoder: FragmentEncoder,
    member: GzipMember,
    /// The number of the encoding, for the cache.
    encoding: u8,
    budget: ByteBudget,
}

impl Packing {
    fn key(&self, shard: Option<Shard>) -> EncodingKey {
        EncodingKey { encoding: self.encoding, shard }
    }

    /// Appends the cached piece of a chunk, after the `text` before it. Returns whether there is one.
    fn reuse(&mut self, chunk: &store::Chunk, key: EncodingKey, text: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        let Some(piece) = chunk.cached(key) else { return false };
        self.pack(text, out);
        text.clear();
        self.member.add(&piece, out);
        true
    }

    /// Compresses text whose fragment is not cached.
    fn pack(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.member.add(&self.encoder.encode(text), out);
        }
    }
}

impl ScrapeBody {
    /// The body of a scrape of the published families and the node's own. It is compressed if `gzip` gives a cache for
    /// the fragments.
    pub fn new(published: &Published, own: Vec<Family>, format: Format, gzip: Option<&ByteBudget>) -> Self {
        let mut names: BTreeMap<Arc<str>, NamedFamilies> = published
            .snapshot()
            .into_iter()
            .map(|(name, block)| (name, NamedFamilies { own: None, pushed: PushedFamilies::Block(block) }))
            .collect();
        for family in own {
            let none = NamedFamilies { own: None, pushed: PushedFamilies::None };
            let name = family.name().clone();
            names.entry(name).or_insert(none).own = Some(family);
        }
        Self::of(Names::All(names.into_values().collect::<Vec<_>>().into_iter()), format, gzip)
    }

    /// The body of a scrape of the part that `filter` selects. The filter is applied when the first part is rendered.
    pub fn filtered(
        published: &Published,
        own: Vec<Family>,
        filter: ScrapeFilter,
        format: Format,
        gzip: Option<&ByteBudget>,
    ) -> Self {
        let snapshot = Snapshot::new(published, &filter);
        Self::of(Names::Unfiltered(Box::new((snapshot, filter, own))), format, gzip)
    }

    fn of(names: Names, format: Format, gzip: Option<&ByteBudget>) -> Self {
        let renderer = match format.encoding {
            Encoding::Text => BodyRenderer::Text(Box::new(text::TextRenderer::new(format.escaping))),
            Encoding::ProtobufDelimited => {
                BodyRenderer::Protobuf(protobuf::ProtobufRenderer::delimited(format.escaping))
            }
            Encoding::ProtobufText => BodyRenderer::Protobuf(protobuf::ProtobufRenderer::text(format.escaping)),
            Encoding::ProtobufCompactText => {
                BodyRenderer::Protobuf(protobuf::ProtobufRenderer::compact_text(format.escaping))
            }
        };
        let packing = gzip.map(|budget| Packing {
            encoder: FragmentEncoder::new(LEVEL_DEFAULT),
            member: GzipMember::new(),
            encoding: encoding(format.escaping),
            budget: budget.clone(),
        });
        Self {
            names,
            current: None,
            renderer,
            packing: packing.map(Box::new),
            text: Vec::new(),
            no_labels: LabelSet::default(),
            measured: None,
            ended: false,
        }
    }

    /// Reports the page's size if it is text.
    pub fn measured(mut self, size: &PageSize) -> Self {
        self.measured = matches!(self.renderer, BodyRenderer::Text(_)).then(|| Measured::new(size.clone()));
        self
    }

    /// Renders the next step. Returns whether there was one.
    fn advance(&mut self, out: &mut Vec<u8>) -> bool {
        // Only compressed text is cached.
        let by_chunk = self.packing.is_some() && matches!(self.renderer, BodyRenderer::Text(_));
        let current = self.current.take().or_else(|| self.names.next(by_chunk).map(CurrentName::new));
        let Some(mut current) = current else { return false };
        let Some(head) = current.name.head() else { return true };
        let plain = if self.packing.is_some() { &mut self.text } else { &mut *out };
        match &mut self.renderer {
            // A protobuf message begins with its length, so a whole block is one step.
            BodyRenderer::Protobuf(renderer) => renderer.block(head, current.name.families(&self.no_labels), plain),
            BodyRenderer::Text(renderer) => {
                let start = plain.len();
                if !current.is_headed {
                    renderer.head(head, plain);
                }
                if let Some(own) = current.name.own.as_ref().filter(|_| current.parts == 0) {
                    renderer.family(&self.no_labels, own, plain);
                    current.is_headed = true;
                }
                let Some(part) = current.name.pushed.part(current.parts) else {
                    if !current.is_headed {
                        plain.truncate(start);
                    }
                    return true;
                };
                let is_shown = match (part, &mut self.packing) {
                    (Part::Families(families), _) => render(renderer, families, plain),
                    (Part::Chunk(chunk) | Part::ShardOf(chunk), None) => render(renderer, chunk.entries(), plain),
                    (Part::Chunk(chunk), Some(packing)) => {
                        let key = packing.key(None);
                        packing.reuse(chunk, key, &mut self.text, out)
                            || pack(renderer, chunk, chunk.entries(), packing, key, &mut self.text, out)
                    }
                    (Part::ShardOf(chunk), Some(packing)) => {
                        let Some(selection) = self.names.selection() else { return true };
                        let key = packing.key(selection.shard());
                        let is_cached = packing.reuse(chunk, key, &mut self.text, out);
                        if is_cached {
                            selection.skip(chunk);
                        }
                        is_cached || pack(renderer, chunk, selection.of_shard(chunk), packing, key, &mut self.text, out)
                    }
                };
                if !is_shown && !current.is_headed {
                    // The chunk has no series to show. The head is still the last text, as nothing was packed.
                    if self.packing.is_some() { self.text.truncate(start) } else { out.truncate(start) }
                }
                current.is_headed |= is_shown;
                current.parts += 1;
                self.current = Some(current);
            }
        }
        if let Some(packing) = self.packing.as_mut().filter(|_| self.text.len() >= RUN_BYTES) {
            packing.pack(&self.text, out);
            self.text.clear();
        }
        true
    }

    /// Appends what is not compressed yet.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.ended = true;
        if let Some(packing) = &mut self.packing {
            packing.pack(&self.text, out);
        }
    }
}

impl Iterator for ScrapeBody {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = Vec::with_capacity(PART_BYTES);
        while !self.ended && out.len() < PART_BYTES {
            if !self.advance(&mut out) {
                self.end(&mut out);
            }
        }
        if let Some(measured) = &mut self.measured {
            match &self.packing {
                Some(packing) => measured.grew_to(packing.member.bytes()),
                None => measured.grew_to(measured.bytes() + out.len() as u64),
            }
            if self.ended {
                measured.ended();
            }
        }
        if let Some(packing) = self.packing.take_if(|_| self.ended) {
            packing.member.finish(&mut out);
        }
        (!out.is_empty()).then(|| out.into())
    }
}

/// Renders families. Returns whether there were any.
fn render<'a>(
    renderer: &mut text::TextRenderer,
    families: impl IntoIterator<Item = &'a ShownFamily>,
    into: &mut Vec<u8>,
) -> bool {
    let start = into.len();
    for shown in families {
        renderer.family(&shown.labels, &shown.family, into);
    }
    into.len() > start
}

/// Appends the compressed `families` of one chunk of the store, after the `text` before them. If they are few, appends
/// them to that text instead. Returns whether there were any.
fn pack<'a>(
    renderer: &mut text::TextRenderer,
    chunk: &store::Chunk,
    families: impl IntoIterator<Item = &'a ShownFamily>,
    packing: &mut Packing,
    key: EncodingKey,
    text: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> bool {
    let start = text.len();
    let is_shown = render(renderer, families, text);
    // A shard's part of a chunk is smaller, and saves as much compared with its size.
    let bytes_min = PIECE_TEXT_BYTES_MIN / key.shard.map_or(1, |shard| shard.of() as usize);
    if text.len() - start < bytes_min.max(1) {
        return is_shown;
    }
    packing.pack(&text[..start], out);
    let piece = packing.encoder.encode(&text[start..]);
    let piece = chunk.cache(key, piece, &packing.budget);
    packing.member.add(&piece, out);
    text.clear();
    true
}

/// Text differs only by how names are escaped.
fn encoding(escaping: Escaping) -> u8 {
    escaping as u8
}

#[cfg(test)]
mod filtered;
#[cfg(test)]
mod strict;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compression::gunzip;
    use crate::model::{Epoch, FamilyBuilder, GroupId, MetricType, NodeId, StoreId, ValueLayout};
    use crate::store::{Identity, Rules, Store, WriteOp, WriteTime};

    fn family(name: &str, series: usize, value: f64) -> Family {
        let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
        builder.help(Some("What is measured."));
        for number in 0..series {
            let number = number.to_string();
            builder.series(&[("number", &number)], &ValueLayout::Single, &[value], None);
        }
        builder.finish().unwrap()
    }

    fn store() -> Store {
        let mut store = Store::new(Rules::default(), &[]);
        store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
        store
    }

    fn write(store: &mut Store, group: usize, action: WriteOp) {
        let id = GroupId::local(LabelSet::new([("job".to_owned(), format!("job-{group:03}"))]));
        let ns = store.published().head().0 * 1_000_000_000;
        store.write(id, action, WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: ns }).unwrap();
        store.commit();
    }

    fn page(store: &Store, format: Format, gzip: Option<&ByteBudget>) -> Vec<u8> {
        let own = vec![family("own", 1, 1.0), family("shared_2", 0, 1.0)];
        ScrapeBody::new(&store.published(), own, format, gzip).flatten().collect()
    }

    const ENCODINGS: [Encoding; 4] =
        [Encoding::Text, Encoding::ProtobufDelimited, Encoding::ProtobufText, Encoding::ProtobufCompactText];
    const ESCAPINGS: [Escaping; 4] = [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values];

    fn action() -> impl Strategy<Value = WriteOp> {
        let described = (0..4_usize, prop_oneof![0..3_usize, 30..120_usize], 0..5_u8);
        let families = prop::collection::vec(described, 0..4).prop_map(|families| {
            let families = families.into_iter().map(|(name, series, value)| (name, (series, value)));
            let by_name: BTreeMap<usize, _> = families.collect();
            let named = by_name.into_iter();
            named.map(|(name, (series, value))| family(&format!("shared.{name}"), series, value.into())).collect()
        });
        prop_oneof![
            4 => families.prop_map(|families: Vec<Family>| WriteOp::Put(families)),
            1 => Just(WriteOp::Delete),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn cached_fragments_never_show(
            steps in prop::collection::vec((0..40_usize, action(), 0..4_usize, 0..4_usize), 1..24),
            budget in prop_oneof![Just(0), 0..4_000_u64, Just(1 << 20)],
        ) {
            let (mut store, budget) = (store(), ByteBudget::new(budget));
            for (group, action, encoding, escaping) in steps {
                write(&mut store, group, action);
                let format = Format { encoding: ENCODINGS[encoding], escaping: ESCAPINGS[escaping] };
                for format in [format, Format::default()] {
                    let plain = page(&store, format, None);
                    prop_assert_eq!(gunzip(&page(&store, format, Some(&budget)), 1 << 24).unwrap(), plain);
                }
            }
        }
    }

    #[test]
    fn a_family_has_one_head_whichever_groups_have_no_series_of_it() {
        let budget = ByteBudget::new(1 << 24);
        for with_series in [0, 63, 64, 99, 127] {
            let mut store = store();
            for group in 0..128 {
                write(&mut store, group, WriteOp::Put(vec![family("x", usize::from(group == with_series), 1.0)]));
            }
            let plain = page(&store, Format::default(), None);
            let text = String::from_utf8(plain.clone()).unwrap();
            assert_eq!(text.matches("# TYPE x ").count(), 1, "{text}");
            assert_eq!(gunzip(&page(&store, Format::default(), Some(&budget)), 1 << 24).unwrap(), plain);
        }
    }

    #[test]
    fn the_size_of_a_page_is_that_of_its_text() {
        let (mut store, budget) = (store(), ByteBudget::new(1 << 24));
        for group in 0..64 {
            write(&mut store, group, WriteOp::Put(vec![family("a", 100, 1.0)]));
        }
        let plain = page(&store, Format::default(), None).len() as u64;
        assert!(plain > PART_BYTES as u64, "{plain} bytes are one part");
        let own = || vec![family("own", 1, 1.0), family("shared_2", 0, 1.0)];
        // The second page in gzip is made of cached fragments.
        for gzip in [None, Some(&budget), Some(&budget)] {
            let size = PageSize::default();
            let mut body = ScrapeBody::new(&store.published(), own(), Format::default(), gzip).measured(&size);
            assert!(body.next().is_some());
            assert!(size.bytes() <= plain, "{} of {plain} bytes", size.bytes());
            body.by_ref().for_each(drop);
            assert_eq!(size.bytes(), plain);
        }
        let size = PageSize::default();
        let protobuf = Format { encoding: Encoding::ProtobufDelimited, ..Format::default() };
        ScrapeBody::new(&store.published(), own(), protobuf, None).measured(&size).for_each(drop);
        assert_eq!(size.bytes(), 0, "only text is measured");
    }

    #[test]
    fn a_push_spoils_only_what_it_touches() {
        let (mut store, budget) = (store(), ByteBudget::new(1 << 24));
        for group in 0..128 {
            write(&mut store, group, WriteOp::Put(vec![family("a", 100, 1.0), family("b", 100, 1.0)]));
        }
        page(&store, Format::default(), Some(&budget));
        let cached = |store: &Store| -> Vec<bool> {
            let encoding_key = EncodingKey::whole(encoding(Escaping::default()));
            let blocks = store.published().snapshot();
            let chunks = blocks.iter().flat_map(|(_, block)| block.chunks());
            chunks.map(|chunk| chunk.cached(encoding_key).is_some()).collect()
        };
        let all = cached(&store);
        assert!(all.len() > 10 && all.iter().all(|cached| *cached), "{all:?}");
        let bytes = budget.reserved_bytes();
        write(&mut store, 50, WriteOp::Post(vec![family("b", 100, 2.0)]));
        // One chunk of the family, and one chunk of push times.
        assert_eq!(cached(&store).iter().filter(|cached| !**cached).count(), 2);
        assert!(budget.reserved_bytes() < bytes, "what cannot be used any more is gone");
        page(&store, Format::default(), Some(&budget));
        assert!(cached(&store).iter().all(|cached| *cached));
    }
}
