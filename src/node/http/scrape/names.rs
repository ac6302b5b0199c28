//! The families of a page, name by name: of the whole page, or of a part that a filter selects.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use crate::model::{Family, LabelSet, Schema};
use crate::store::piece_cache::PARTS_MAX;
use crate::store::selection::{Picked, ScrapeFilter, Selection, Snapshot, pick_own};
use crate::store::{self, Block, ShownFamily};

/// All families of one metric name.
pub(super) struct NamedFamilies {
    /// The node's own family.
    pub(super) own: Option<Family>,
    /// The pushed families.
    pub(super) pushed: PushedFamilies,
}

pub(super) enum PushedFamilies {
    None,
    Block(Arc<Block>),
    Picked(Vec<Picked>),
}

/// A step of rendering.
pub(super) enum Part<'a> {
    Chunk(&'a store::Chunk),
    ShardOf(&'a store::Chunk),
    Families(&'a [ShownFamily]),
}

impl PushedFamilies {
    pub(super) fn part(&self, at: usize) -> Option<Part<'_>> {
        match self {
            Self::None => None,
            Self::Block(block) => block.chunks().get(at).map(|chunk| Part::Chunk(chunk)),
            Self::Picked(picked) => picked.get(at).map(|picked| match picked {
                Picked::Chunk(chunk) => Part::Chunk(chunk),
                Picked::ShardOf(chunk) => Part::ShardOf(chunk),
                Picked::Families(families) => Part::Families(families),
            }),
        }
    }

    /// The families, and those of other shards in the same chunks.
    fn entries(&self) -> impl Iterator<Item = &ShownFamily> {
        (0..).map_while(|at| self.part(at)).flat_map(|part| match part {
            Part::Chunk(chunk) | Part::ShardOf(chunk) => chunk.entries(),
            Part::Families(families) => families,
        })
    }
}

impl NamedFamilies {
    /// The families with the labels of their groups.
    pub(super) fn families<'a>(&'a self, none: &'a LabelSet) -> impl Iterator<Item = (&'a LabelSet, &'a Family)> {
        let own = self.own.iter().map(move |family| (none, family));
        own.chain(self.pushed.entries().map(|shown| (&*shown.labels, &shown.family)))
    }

    /// The schema that gives type and help; `None` if there is no series.
    pub(super) fn head(&self) -> Option<&Arc<Schema>> {
        let pushed = self.pushed.entries().map(|shown| &shown.family);
        self.own.iter().chain(pushed).map(Family::schema).find(|schema| schema.series_len() > 0)
    }
}

/// The names that are left to render.
pub(super) enum Names {
    All(std::vec::IntoIter<NamedFamilies>),
    /// The filter is not applied yet: the render thread does that.
    Unfiltered(Box<(Snapshot, ScrapeFilter, Vec<Family>)>),
    Filtered(Box<Filtered>),
}

/// The node's own family of a name, and the pushed ones.
type OwnAndPushed = (Option<Family>, Option<Arc<Block>>);

/// A filtered page.
pub(super) struct Filtered {
    selection: Selection,
    /// The names that may be selected, each with its own and its pushed families.
    names: btree_map::IntoIter<Arc<str>, OwnAndPushed>,
    /// Whether a shard's part of a chunk is rendered by itself, to be cached.
    by_chunk: bool,
}

impl Filtered {
    fn new(snapshot: Snapshot, filter: ScrapeFilter, own: Vec<Family>, by_chunk: bool) -> Self {
        let own: Vec<Family> = match &filter.selectors {
            Some(selectors) => own.into_iter().filter_map(|family| pick_own(selectors, family)).collect(),
            None => own,
        };
        let selection = Selection::new(&snapshot, filter, &own);
        let mut names: BTreeMap<Arc<str>, OwnAndPushed> =
            snapshot.blocks.into_iter().map(|(name, block)| (name, (None, Some(block)))).collect();
        for family in own.into_iter().filter(|_| selection.has_own()) {
            let name = family.name().clone();
            names.entry(name).or_default().0 = Some(family);
        }
        for name in selection.rejudged_names() {
            names.entry(name.clone()).or_default();
        }
        // One chunk has parts of as many shards as the cache holds, at most.
        let by_chunk = by_chunk && selection.shard().is_some_and(|shard| shard.of() as usize <= PARTS_MAX);
        Self { selection, names: names.into_iter(), by_chunk }
    }

    fn next(&mut self) -> Option<NamedFamilies> {
        let (name, (own, block)) = self.names.next()?;
        let pushed = self.selection.pick(&name, block.as_deref(), self.by_chunk);
        Some(NamedFamilies { own, pushed: PushedFamilies::Picked(pushed) })
    }
}

impl Names {
    /// The next name, and the selection that picked its families.
    pub(super) fn next(&mut self, by_chunk: bool) -> Option<NamedFamilies> {
        if let Self::Unfiltered(unfiltered) = self {
            let (snapshot, filter, own) = std::mem::take(&mut **unfiltered);
            *self = Self::Filtered(Box::new(Filtered::new(snapshot, filter, own, by_chunk)));
        }
        match self {
            Self::All(names) => names.next(),
            Self::Filtered(filtered) => filtered.next(),
            Self::Unfiltered(_) => None,
        }
    }

    pub(super) fn selection(&mut self) -> Option<&mut Selection> {
        match self {
            Self::Filtered(filtered) => Some(&mut filtered.selection),
            Self::All(_) | Self::Unfiltered(_) => None,
        }
    }
}
