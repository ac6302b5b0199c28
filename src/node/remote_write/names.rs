//! The families that a tick shows, by name.

use std::sync::Arc;

use super::form::TickForm;
use super::shown::{FamilyIdentity, ShownFamilies};
use crate::exposition::remote_write::native_schema;
use crate::model::{Family, Schema};
use crate::store::selection::Picked;
use crate::store::{Block, ShownFamily};

/// The names of the series by which a scraper reports a scrape. They are written for every tick.
pub(super) const SCRAPE_REPORT: [&str; 4] =
    ["scrape_duration_seconds", "scrape_samples_post_metric_relabeling", "scrape_samples_scraped", "up"];

/// All families of a name.
#[derive(Clone)]
pub(super) struct TickName {
    pub name: Arc<str>,
    pub own: Option<ShownFamily>,
    pub pushed: TickFamilies,
}

/// The pushed families of a name.
#[derive(Clone)]
pub(super) enum TickFamilies {
    None,
    Block(Arc<Block>),
    Picked(Arc<[Picked]>),
}

impl TickFamilies {
    /// The families at a position (chunk, family), and the position after it in their chunk.
    pub fn chunk(&self, at: usize) -> Option<&[ShownFamily]> {
        match self {
            Self::None => None,
            Self::Block(block) => block.chunks().get(at).map(|chunk| chunk.entries()),
            Self::Picked(picked) => picked.get(at).map(|picked| match picked {
                Picked::Chunk(chunk) | Picked::ShardOf(chunk) => chunk.entries(),
                Picked::Families(families) => families,
            }),
        }
    }
}

impl TickName {
    pub fn families(&self) -> impl Iterator<Item = &ShownFamily> {
        self.own.iter().chain(self.pieces().flatten())
    }

    /// The pushed families, in pieces that snapshots share as long as nothing is written to them.
    pub fn pieces(&self) -> impl Iterator<Item = &[ShownFamily]> {
        (0..).map_while(|at| self.pushed.chunk(at))
    }

    /// Whether all pushed families are certainly the same.
    pub fn shares_all(&self, other: &Self) -> bool {
        match (&self.pushed, &other.pushed) {
            (TickFamilies::Block(block), TickFamilies::Block(other)) => Arc::ptr_eq(block, other),
            _ => false,
        }
    }

    /// Whether the node shows a family of that name of itself.
    pub fn is_own(&self) -> bool {
        self.own.is_some() || SCRAPE_REPORT.contains(&&*self.name)
    }

    /// The same with the node's own family alone.
    pub fn own_alone(&self) -> Self {
        Self { pushed: TickFamilies::None, ..self.clone() }
    }
}

/// The families that a node shows at one time, by name.
#[derive(Default)]
pub(super) struct ShownSnapshot(pub Vec<TickName>);

impl ShownSnapshot {
    /// The families, by name.
    pub fn shown(&self, form: TickForm) -> ShownFamilies {
        shown(&self.0, form)
    }
}

/// The schema of a family as it is written.
pub(super) fn written_schema(family: &Family, form: TickForm) -> Arc<Schema> {
    let native = form.has_natives.then(|| native_schema(family)).flatten();
    native.unwrap_or_else(|| family.schema().clone())
}

fn shown(names: &[TickName], form: TickForm) -> ShownFamilies {
    let mut shown = ShownFamilies::default();
    for name in names {
        // Families of a name mostly have one schema, and share it.
        let mut last: Option<Arc<Schema>> = None;
        let mut schema = |family: &Family| {
            let written = written_schema(family, form);
            let shared = last.take().filter(|last| last.same(&written)).unwrap_or(written);
            last.insert(shared).clone()
        };
        let identity = |of: &ShownFamily| FamilyIdentity { labels: of.labels.clone(), schema: schema(&of.family) };
        shown.add(name.name.clone(), name.families().map(identity).collect());
    }
    shown
}
