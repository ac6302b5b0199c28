//! One tick: the samples of all shown series as batches, and then the markers of those that are gone.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashSet;
use xxhash_rust::xxh3::xxh3_64;

use super::shown::{FamilyIdentity, ShownFamilies};
use crate::exposition::Escaping;
use crate::exposition::remote_write::{
    BatchLimits, ExternalLabels, SampleEncoder, SampleSink, WriteBatch, samples_len,
};
use crate::model::{Family, LabelSet, Schema, Values};
use crate::node::metrics::gauge;
use crate::selector::Selectors;
use crate::store::selection::{Picked, ScrapeFilter, Selection, Snapshot, pick_labelled};
use crate::store::{Block, Published, ShownFamily};

/// Gathers the node's own families.
pub type OwnFamilies = Arc<dyn Fn() -> Vec<Family> + Send + Sync>;

/// The names of the series by which a scraper reports a scrape. They are written for every tick.
const SCRAPE_REPORT: [&str; 4] =
    ["scrape_duration_seconds", "scrape_samples_post_metric_relabeling", "scrape_samples_scraped", "up"];

/// The source of ticks.
#[derive(Clone)]
pub(super) struct TickSource {
    pub published: Published,
    pub own: OwnFamilies,
    pub selectors: Option<Selectors>,
    /// The labels of the node's own metrics.
    pub target: Arc<LabelSet>,
    pub escaping: Escaping,
    pub external: ExternalLabels,
}

/// All families of a name.
struct TickName {
    name: Arc<str>,
    own: Option<ShownFamily>,
    pushed: TickFamilies,
}

enum TickFamilies {
    None,
    Block(Arc<Block>),
    Picked(Vec<Picked>),
}

impl TickFamilies {
    /// The families at a position (chunk, family), and the position after it in their chunk.
    fn chunk(&self, at: usize) -> Option<&[ShownFamily]> {
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
    fn families(&self) -> impl Iterator<Item = &ShownFamily> {
        let pushed = (0..).map_while(|at| self.pushed.chunk(at)).flatten();
        self.own.iter().chain(pushed)
    }
}

impl TickSource {
    /// The families that are shown now, for a node that starts: without its own.
    pub fn shown(&self) -> ShownFamilies {
        shown(&self.names(Vec::new()))
    }

    /// Begins a tick. `before` are the families that the receiver may have, `pending` those whose markers it may lack.
    pub fn begin(
        &self,
        timestamp_ms: i64,
        before: &ShownFamilies,
        pending: Vec<FamilyIdentity>,
    ) -> (Tick, ShownFamilies) {
        let names = self.names((self.own)());
        let now = shown(&names);
        let mut candidates = before.gone_in(&now);
        candidates.extend(pending);
        let mut encoder = SampleEncoder::new(self.escaping, self.external.clone());
        let mut gone = Hashes::default();
        for family in &candidates {
            let zeros = zeros(&family.schema);
            encoder.family(&family.labels, &zeros, 0, &mut gone, |_| false);
        }
        let tick = Tick {
            names: names.into_iter(),
            current: None,
            timestamp_ms,
            encoder,
            target: self.target.clone(),
            gone: gone.0,
            candidates,
            next_candidate: (0, 0),
            own: HashSet::default(),
            samples: 0,
            is_reported: false,
            duplicates: 0,
        };
        (tick, now)
    }

    fn names(&self, own: Vec<Family>) -> Vec<TickName> {
        let own = own.into_iter().filter_map(|family| match &self.selectors {
            Some(selectors) => pick_labelled(selectors, &self.target, family),
            None => Some(family),
        });
        let mut own: Vec<Family> = own.collect();
        own.sort_by(|a, b| a.name().cmp(b.name()));
        let filter = ScrapeFilter { selectors: self.selectors.clone(), ..ScrapeFilter::default() };
        let snapshot = Snapshot::new(&self.published, &filter);
        let mut selection = self.selectors.is_some().then(|| Selection::new(&snapshot, filter, &own));
        let mut names: Vec<TickName> = snapshot
            .blocks
            .into_iter()
            .map(|(name, block)| {
                let pushed = match &mut selection {
                    None => TickFamilies::Block(block),
                    Some(selection) => TickFamilies::Picked(selection.pick(&name, Some(&block), false)),
                };
                TickName { name, own: None, pushed }
            })
            .collect();
        let rejudged: Vec<Arc<str>> =
            selection.iter().flat_map(|selection| selection.rejudged_names()).cloned().collect();
        for name in rejudged {
            if let (Err(at), Some(selection)) = (names.binary_search_by(|other| other.name.cmp(&name)), &mut selection)
            {
                let pushed = TickFamilies::Picked(selection.pick(&name, None, false));
                names.insert(at, TickName { name, own: None, pushed });
            }
        }
        for family in own {
            let (name, labels) = (family.name().clone(), self.target.clone());
            let own = Some(ShownFamily { labels, family });
            match names.binary_search_by(|other| other.name.cmp(&name)) {
                Ok(at) => names[at].own = own,
                Err(at) => names.insert(at, TickName { name, own, pushed: TickFamilies::None }),
            }
        }
        names
    }
}

fn shown(names: &[TickName]) -> ShownFamilies {
    let mut shown = ShownFamilies::default();
    for name in names {
        let identity =
            |of: &ShownFamily| FamilyIdentity { labels: of.labels.clone(), schema: of.family.schema().clone() };
        shown.add(name.name.clone(), name.families().map(identity).collect());
    }
    shown
}

/// A family of that schema; only its labels matter.
fn zeros(schema: &Arc<Schema>) -> Family {
    Family::new(schema.clone(), Values::zeros(schema.values_len()), None).expect("as many values as the schema has")
}

/// The hashes of samples' labels.
#[derive(Default)]
struct Hashes(HashSet<u64>);

impl SampleSink for Hashes {
    fn sample(&mut self, labels: &[u8], _: f64) {
        self.0.insert(xxh3_64(labels));
    }
}

/// A batch that is being filled, and the checks of its samples.
struct CheckedBatch<'a> {
    batch: WriteBatch,
    /// Series that are not gone are removed here.
    gone: &'a mut HashSet<u64>,
    /// Series of names that the node shows of itself.
    own: Option<&'a mut HashSet<u64>>,
    duplicates: u64,
}

impl SampleSink for CheckedBatch<'_> {
    fn sample(&mut self, labels: &[u8], value: f64) {
        if !self.gone.is_empty() || self.own.is_some() {
            let hash = xxh3_64(labels);
            self.gone.remove(&hash);
            if self.own.as_mut().is_some_and(|own| !own.insert(hash)) {
                self.duplicates += 1;
                return;
            }
        }
        self.batch.sample(labels, value);
    }
}

/// The markers of series that are gone.
struct MarkerBatch<'a> {
    batch: WriteBatch,
    gone: &'a mut HashSet<u64>,
}

impl SampleSink for MarkerBatch<'_> {
    fn sample(&mut self, labels: &[u8], value: f64) {
        if self.gone.remove(&xxh3_64(labels)) {
            self.batch.sample(labels, value);
        }
    }
}

/// The position of the next series of a name.
#[derive(Clone, Copy, Debug, Default)]
struct TickPosition {
    /// Whether the node's own family is done.
    is_own_done: bool,
    chunk: usize,
    family: usize,
    series: usize,
}

/// A tick that is being encoded.
pub(super) struct Tick {
    names: std::vec::IntoIter<TickName>,
    current: Option<(TickName, TickPosition)>,
    timestamp_ms: i64,
    encoder: SampleEncoder,
    target: Arc<LabelSet>,
    /// The series that may be gone. At the end of the samples, they are.
    gone: HashSet<u64>,
    candidates: Vec<FamilyIdentity>,
    /// The next candidate, and its next series.
    next_candidate: (usize, usize),
    own: HashSet<u64>,
    samples: u64,
    is_reported: bool,
    duplicates: u64,
}

impl Tick {
    /// The next batch; `None` after the last. `elapsed` is the time since the tick began.
    pub fn next_batch(&mut self, limits: BatchLimits, elapsed: Duration) -> Option<WriteBatch> {
        let mut batch = WriteBatch::new(self.timestamp_ms, limits);
        while !batch.is_full() {
            let next = self.current.take().or_else(|| self.names.next().map(|name| (name, TickPosition::default())));
            match next {
                Some((name, position)) => (self.current, batch) = self.fill(name, position, batch),
                None if !self.is_reported => {
                    self.is_reported = true;
                    self.samples += batch.whole().len() as u64;
                    batch = self.report(elapsed, batch);
                    return Some(batch);
                }
                None => break,
            }
        }
        if !batch.is_empty() {
            self.samples += batch.whole().len() as u64;
            return Some(batch);
        }
        self.next_markers(limits)
    }

    /// Adds samples of a name until the batch is full or the name ends.
    fn fill(
        &mut self,
        name: TickName,
        mut position: TickPosition,
        batch: WriteBatch,
    ) -> (Option<(TickName, TickPosition)>, WriteBatch) {
        let is_own = name.own.is_some() || SCRAPE_REPORT.contains(&&*name.name);
        let own = is_own.then_some(&mut self.own);
        let mut checked = CheckedBatch { batch, gone: &mut self.gone, own, duplicates: 0 };
        let mut rest = None;
        loop {
            let shown = match &name.own {
                Some(own) if !position.is_own_done => Some(own),
                _ => name.pushed.chunk(position.chunk).and_then(|chunk| chunk.get(position.family)),
            };
            let Some(shown) = shown else {
                match name.pushed.chunk(position.chunk) {
                    Some(_) => position = TickPosition { chunk: position.chunk + 1, family: 0, series: 0, ..position },
                    None => break,
                }
                continue;
            };
            let (labels, family) = (&*shown.labels, &shown.family);
            let is_full = |checked: &CheckedBatch<'_>| checked.batch.is_full();
            match self.encoder.family(labels, family, position.series, &mut checked, is_full) {
                Some(series) => {
                    rest = Some(TickPosition { series, ..position });
                    break;
                }
                None if name.own.is_some() && !position.is_own_done => {
                    position = TickPosition { is_own_done: true, series: 0, ..position };
                }
                None => position = TickPosition { family: position.family + 1, series: 0, ..position },
            }
        }
        self.duplicates += checked.duplicates;
        let batch = checked.batch;
        (rest.map(|rest| (name, rest)), batch)
    }

    /// Adds the series by which a scraper reports a scrape.
    fn report(&mut self, elapsed: Duration, batch: WriteBatch) -> WriteBatch {
        let samples = self.samples as f64;
        let values = [elapsed.as_secs_f64(), samples, samples, 1.0];
        let mut checked = CheckedBatch { batch, gone: &mut self.gone, own: Some(&mut self.own), duplicates: 0 };
        for (name, value) in SCRAPE_REPORT.into_iter().zip(values) {
            let family = gauge(name, "", [([], value)]);
            self.encoder.family(&self.target, &family, 0, &mut checked, |_| false);
        }
        self.duplicates += checked.duplicates;
        checked.batch
    }

    fn next_markers(&mut self, limits: BatchLimits) -> Option<WriteBatch> {
        let batch = WriteBatch::of_markers(self.timestamp_ms, limits);
        let mut markers = MarkerBatch { batch, gone: &mut self.gone };
        while !markers.gone.is_empty() && !markers.batch.is_full() {
            let (at, from) = self.next_candidate;
            let Some(family) = self.candidates.get(at) else { break };
            let zeros = zeros(&family.schema);
            let is_full = |markers: &MarkerBatch<'_>| markers.batch.is_full();
            let next = self.encoder.family(&family.labels, &zeros, from, &mut markers, is_full);
            self.next_candidate = next.map_or((at + 1, 0), |next| (at, next));
        }
        Some(markers.batch).filter(|batch| !batch.is_empty())
    }

    /// The samples that are left out, because a series of the node itself has the same labels.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The families of which a series may be gone.
    pub fn into_candidates(self) -> Vec<FamilyIdentity> {
        self.candidates
    }

    /// The number of samples that are not encoded yet, without markers.
    pub fn samples_left(&self) -> u64 {
        let of_name =
            |name: &TickName| -> usize { name.families().map(|shown| samples_len(shown.family.schema())).sum() };
        let rest: usize = self.names.as_slice().iter().map(of_name).sum();
        let current = self.current.as_ref().map_or(0, |(name, position)| {
            let after = |chunk: usize, from: usize| {
                let families = name.pushed.chunk(chunk).and_then(|chunk| chunk.get(from..)).unwrap_or_default();
                families.iter().map(|shown| samples_len(shown.family.schema())).sum::<usize>()
            };
            let chunks = (position.chunk..).take_while(|at| name.pushed.chunk(*at).is_some());
            chunks.map(|at| after(at, if at == position.chunk { position.family } else { 0 })).sum()
        });
        (rest + current) as u64
    }
}

#[cfg(test)]
mod tests;
