//! One tick: the samples of all shown series as batches, and then the markers of those that are gone.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashSet;
use xxhash_rust::xxh3::xxh3_64;

use super::changes::ShownChanges;
use super::form::TickForm;
use super::names::{SCRAPE_REPORT, ShownSnapshot, TickFamilies, TickName, written_schema};
use super::shown::{FamilyIdentity, ShownFamilies};
use crate::exposition::Escaping;
use crate::exposition::remote_write::{
    BatchLimits, ExternalLabels, MessageForm, MetadataMessage, SampleEncoder, SampleSink, WriteBatch, WrittenHistogram,
    samples_len,
};
use crate::model::{Family, LabelSet, Schema, Values};
use crate::node::metrics::gauge;
use crate::selector::Selectors;
use crate::store::selection::{ScrapeFilter, Selection, Snapshot, pick_labelled};
use crate::store::{Published, ShownFamily};

/// Gathers the node's own families.
pub type OwnFamilies = Arc<dyn Fn() -> Vec<Family> + Send + Sync>;

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
    /// Whether series of messages 2.0 have metadata.
    pub has_metadata: bool,
}

impl TickSource {
    /// The families that are shown now, for a node that starts: without its own.
    pub fn shown(&self, form: TickForm) -> ShownFamilies {
        ShownSnapshot(self.names(Vec::new())).shown(form)
    }

    /// The metadata of all names that are shown now, and follow `after`.
    pub fn metadata(&self, after: Option<&str>) -> MetadataSource {
        let mut names = self.names((self.own)());
        names.retain(|name| after.is_none_or(|after| *name.name > *after));
        MetadataSource { names: names.into_iter(), last_name: None, escaping: self.escaping }
    }

    /// The families that are shown now. Unless `has_own`, the names of the node's own families stay as they were `before`.
    pub fn snapshot(&self, before: &ShownSnapshot, has_own: bool) -> ShownSnapshot {
        let mut names = self.names((self.own)());
        if !has_own {
            let own: Vec<TickName> = before.0.iter().filter(|name| name.is_own()).cloned().collect();
            let was_own = |name: &TickName| own.binary_search_by(|other| other.name.cmp(&name.name)).is_ok();
            let mut now: Vec<TickName> = names.into_iter().filter(|name| !name.is_own() && !was_own(name)).collect();
            now.extend(own);
            now.sort_by(|a, b| a.name.cmp(&b.name));
            names = now;
        }
        ShownSnapshot(names)
    }

    /// Begins a tick of what changed from one snapshot to the next, with the node's own families if `has_own`.
    pub fn begin_changes(
        &self,
        timestamp_ms: i64,
        form: TickForm,
        (before, now): (&ShownSnapshot, &ShownSnapshot),
        has_own: bool,
    ) -> Tick {
        let ShownChanges { mut names, mut gone } = before.changes_to(now, form);
        if has_own {
            let own = |snapshot: &ShownSnapshot| -> Vec<TickName> {
                snapshot.0.iter().filter(|name| name.own.is_some()).map(TickName::own_alone).collect()
            };
            let (own_before, own_now) = (ShownSnapshot(own(before)), ShownSnapshot(own(now)));
            gone.extend(own_before.shown(form).gone_in(&own_now.shown(form)));
            for own in own_now.0 {
                match names.binary_search_by(|other| other.name.cmp(&own.name)) {
                    Ok(at) => names[at].own = own.own,
                    Err(at) => names.insert(at, own),
                }
            }
        }
        self.begin_names(timestamp_ms, form, names, gone, has_own)
    }

    /// Begins a tick. `before` are the families that the receiver may have, `pending` those whose markers it may lack.
    pub fn begin(
        &self,
        timestamp_ms: i64,
        form: TickForm,
        before: &ShownFamilies,
        pending: Vec<FamilyIdentity>,
        keeps: bool,
    ) -> (Tick, ShownFamilies, Option<ShownSnapshot>) {
        let snapshot = ShownSnapshot(self.names((self.own)()));
        let now = snapshot.shown(form);
        let mut candidates = before.gone_in(&now);
        candidates.extend(pending);
        let kept = keeps.then(|| ShownSnapshot(snapshot.0.clone()));
        (self.begin_names(timestamp_ms, form, snapshot.0, candidates, true), now, kept)
    }

    fn begin_names(
        &self,
        timestamp_ms: i64,
        form: TickForm,
        names: Vec<TickName>,
        candidates: Vec<FamilyIdentity>,
        has_report: bool,
    ) -> Tick {
        let mut encoder = SampleEncoder::new(self.escaping, self.external.clone(), form.has_natives);
        let mut gone = Hashes::default();
        for family in &candidates {
            let zeros = zeros(&family.schema);
            encoder.family(&family.labels, &zeros, 0, &mut gone, |_| false);
        }
        Tick {
            names: names.into_iter(),
            current: None,
            timestamp_ms,
            form,
            message_form: form.message(self.has_metadata),
            encoder,
            target: self.target.clone(),
            gone: gone.0,
            candidates,
            next_candidate: (0, 0),
            own: HashSet::default(),
            samples: 0,
            is_reported: !has_report,
            duplicates: 0,
        }
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
                    Some(selection) => TickFamilies::Picked(selection.pick(&name, Some(&block), false).into()),
                };
                TickName { name, own: None, pushed }
            })
            .collect();
        let rejudged: Vec<Arc<str>> =
            selection.iter().flat_map(|selection| selection.rejudged_names()).cloned().collect();
        for name in rejudged {
            if let (Err(at), Some(selection)) = (names.binary_search_by(|other| other.name.cmp(&name)), &mut selection)
            {
                let pushed = TickFamilies::Picked(selection.pick(&name, None, false).into());
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

    fn histogram(&mut self, labels: &[u8], _: WrittenHistogram) {
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

impl CheckedBatch<'_> {
    /// Whether the sample of that series is written.
    fn admits(&mut self, labels: &[u8]) -> bool {
        if self.gone.is_empty() && self.own.is_none() {
            return true;
        }
        let hash = xxh3_64(labels);
        self.gone.remove(&hash);
        let is_duplicate = self.own.as_mut().is_some_and(|own| !own.insert(hash));
        self.duplicates += u64::from(is_duplicate);
        !is_duplicate
    }
}

impl SampleSink for CheckedBatch<'_> {
    fn begin(&mut self, schema: &Arc<Schema>) {
        self.batch.begin(schema);
    }

    fn start(&mut self, start_ms: i64) {
        self.batch.start(start_ms);
    }

    fn sample(&mut self, labels: &[u8], value: f64) {
        if self.admits(labels) {
            self.batch.sample(labels, value);
        }
    }

    fn histogram(&mut self, labels: &[u8], histogram: WrittenHistogram) {
        if self.admits(labels) {
            self.batch.histogram(labels, histogram);
        }
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

    // The families of markers have no raw metrics: a float marker ends a native histogram too.
    fn histogram(&mut self, _: &[u8], _: WrittenHistogram) {}
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

/// The metadata of all names, as messages.
pub(super) struct MetadataSource {
    names: std::vec::IntoIter<TickName>,
    last_name: Option<Arc<str>>,
    escaping: Escaping,
}

impl MetadataSource {
    /// The next message; `None` after the last.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        let mut message = MetadataMessage::new(self.escaping);
        while !message.is_full()
            && let Some(name) = self.names.next()
        {
            let mut schemas = name.families().map(|shown| shown.family.schema());
            if let Some(schema) = schemas.find(|schema| schema.series_len() > 0) {
                message.add(schema);
            }
            self.last_name = Some(name.name.clone());
        }
        message.finish()
    }

    /// The last name of the last message.
    pub fn last_name(&self) -> Option<Arc<str>> {
        self.last_name.clone()
    }
}

/// A tick that is being encoded.
pub(super) struct Tick {
    names: std::vec::IntoIter<TickName>,
    current: Option<(TickName, TickPosition)>,
    timestamp_ms: i64,
    form: TickForm,
    message_form: MessageForm,
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
        let mut batch = WriteBatch::new(self.message_form, self.timestamp_ms, limits);
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
        let batch = WriteBatch::of_markers(self.message_form, self.timestamp_ms, limits);
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

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.names.len() == 0 && self.candidates.is_empty() && self.is_reported
    }

    /// The families of which a series may be gone.
    pub fn into_candidates(self) -> Vec<FamilyIdentity> {
        self.candidates
    }

    /// The number of samples that are not encoded yet, without markers.
    pub fn samples_left(&self) -> u64 {
        let len = |shown: &ShownFamily| samples_len(&written_schema(&shown.family, self.form));
        let of_name = |name: &TickName| -> usize { name.families().map(len).sum() };
        let rest: usize = self.names.as_slice().iter().map(of_name).sum();
        let current = self.current.as_ref().map_or(0, |(name, position)| {
            let after = |chunk: usize, from: usize| {
                let families = name.pushed.chunk(chunk).and_then(|chunk| chunk.get(from..)).unwrap_or_default();
                families.iter().map(len).sum::<usize>()
            };
            let chunks = (position.chunk..).take_while(|at| name.pushed.chunk(*at).is_some());
            chunks.map(|at| after(at, if at == position.chunk { position.family } else { 0 })).sum()
        });
        (rest + current) as u64
    }
}

#[cfg(test)]
mod tests;
