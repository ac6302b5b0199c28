//! The families that a scrape shows: one block for each metric name, each a list of chunks sorted by the groups'
//! labels.
//!
//! Blocks and chunks are copy-on-write. A snapshot clones one pointer for each name; a write copies at most one chunk,
//! and only if a running scrape still reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::piece_cache::{CachedPiece, EncodingKey, PieceCache};
use crate::compression::Fragment;
use crate::model::{ByteBudget, Family, LabelSet};

/// A chunk with more entries than this is split.
const CHUNK_ENTRIES_MAX: usize = 64;
/// A chunk with more values than this is split, unless it has one entry.
const CHUNK_VALUES_MAX: usize = 2_048;

/// A family as a scrape shows it, with the labels of its group.
#[derive(Clone, Debug)]
pub struct ShownFamily {
    /// The labels of the group: site labels and grouping key.
    pub labels: Arc<LabelSet>,
    /// The family, without the labels of the group.
    pub family: Family,
}

/// The position of an entry when it was last set. If it is still right, no names and labels are compared; if not, the
/// entry is searched for.
#[derive(Debug, Default)]
pub struct SlotHint(AtomicU64);

impl SlotHint {
    /// The index of the block, of the chunk in that block, and of the entry in that chunk.
    fn get(&self) -> (usize, usize, usize) {
        let packed = self.0.load(Ordering::Relaxed);
        ((packed >> 40) as usize, (packed >> 8) as u32 as usize, packed as u8 as usize)
    }

    /// Indices that are too large lose their high bits: such a hint is wrong, as any hint may be.
    fn set(&self, block: usize, chunk: usize, at: usize) {
        self.0.store((block as u64) << 40 | u64::from(chunk as u32) << 8 | u64::from(at as u8), Ordering::Relaxed);
    }
}

impl Clone for SlotHint {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// The families of one name in consecutive groups.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    entries: Vec<ShownFamily>,
    values: usize,
    pieces: PieceCache,
}

impl Chunk {
    fn new(entries: Vec<ShownFamily>, values: usize) -> Self {
        Self { entries, values, pieces: PieceCache::default() }
    }

    /// The piece cached under that key since the chunk last changed.
    pub fn cached(&self, key: EncodingKey) -> Option<Arc<CachedPiece>> {
        self.pieces.get(key)
    }

    /// Caches a piece until the chunk changes, if the budget allows it; returns it in any case.
    pub fn cache(&self, key: EncodingKey, piece: Fragment, budget: &ByteBudget) -> Arc<CachedPiece> {
        self.pieces.set(key, piece, budget)
    }

    /// The families, sorted by the labels of their groups.
    pub fn entries(&self) -> &[ShownFamily] {
        &self.entries
    }
}

/// All families that are shown under one metric name.
#[derive(Clone, Debug, Default)]
pub struct Block {
    chunks: Vec<Arc<Chunk>>,
}

impl Block {
    /// The chunks in order, none empty.
    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// The families, sorted by the labels of their groups.
    pub fn entries(&self) -> impl Iterator<Item = &ShownFamily> {
        self.chunks.iter().flat_map(|chunk| &chunk.entries)
    }

    /// Whether the group with these labels shows a family of that name.
    pub fn contains(&self, labels: &LabelSet) -> bool {
        self.find(labels).1.is_ok()
    }

    /// The position (chunk, entry) of the group's entry, or of the next one if it has none. `near` is tried first.
    pub(super) fn locate(&self, labels: &Arc<LabelSet>, near: (usize, usize)) -> (usize, usize) {
        if self.chunks.is_empty() {
            return (0, 0);
        }
        let (chunk, at) = self.find_near(labels, near);
        (chunk, at.unwrap_or_else(|at| at))
    }

    /// The chunk of the group's entry, and in that chunk the entry's index or the index at which to insert it.
    fn find(&self, labels: &LabelSet) -> (usize, Result<usize, usize>) {
        let order = |shown: &ShownFamily| (*shown.labels).cmp(labels);
        let after = self.chunks.partition_point(|chunk| order(&chunk.entries[0]).is_le());
        let chunk = after.saturating_sub(1);
        let at = self.chunks.get(chunk).map_or(Err(0), |chunk| chunk.entries.binary_search_by(order));
        (chunk, at)
    }

    /// Inserts or replaces the entry of the group. `near` (chunk, entry) is tried first. Returns the position of the
    /// entry.
    fn set(&mut self, labels: &Arc<LabelSet>, family: &Family, near: (usize, usize)) -> (usize, usize) {
        if self.chunks.is_empty() {
            self.chunks.push(Arc::default());
        }
        let (number, at) = self.find_near(labels, near);
        let chunk = self.chunk_mut(number);
        chunk.values += family.values().len();
        match at {
            Ok(at) => {
                let entry = &mut chunk.entries[at];
                chunk.values -= entry.family.values().len();
                if !Arc::ptr_eq(&entry.labels, labels) {
                    entry.labels = labels.clone();
                }
                entry.family.clone_from(family);
            }
            Err(at) => chunk.entries.insert(at, ShownFamily { labels: labels.clone(), family: family.clone() }),
        }
        let entries = chunk.entries.len();
        if entries > CHUNK_ENTRIES_MAX || (chunk.values > CHUNK_VALUES_MAX && entries > 1) {
            // Entries that arrive in order leave full chunks behind them.
            let appended = number + 1 == self.chunks.len() && at == Err(entries - 1);
            self.split(number, if appended { entries - 1 } else { entries / 2 });
        }
        (number, at.unwrap_or_else(|at| at))
    }

    /// A chunk to be changed. Its cached pieces are dropped: they would be out of date.
    fn chunk_mut(&mut self, number: usize) -> &mut Chunk {
        let chunk = Arc::make_mut(&mut self.chunks[number]);
        chunk.pieces.clear();
        chunk
    }

    fn find_near(&self, labels: &Arc<LabelSet>, (chunk, at): (usize, usize)) -> (usize, Result<usize, usize>) {
        match self.chunks.get(chunk).and_then(|chunk| chunk.entries.get(at)) {
            Some(shown) if Arc::ptr_eq(&shown.labels, labels) => (chunk, Ok(at)),
            _ if self.chunks[0].entries.is_empty() => (0, Err(0)),
            _ => self.find(labels),
        }
    }

    fn split(&mut self, number: usize, at: usize) {
        let chunk = self.chunk_mut(number);
        let entries = chunk.entries.split_off(at);
        let values = entries.iter().map(|shown| shown.family.values().len()).sum();
        chunk.values -= values;
        self.chunks.insert(number + 1, Arc::new(Chunk::new(entries, values)));
    }

    fn remove(&mut self, labels: &LabelSet) {
        let (number, at) = self.find(labels);
        let Ok(at) = at else { return };
        let chunk = self.chunk_mut(number);
        chunk.values -= chunk.entries.remove(at).family.values().len();
        if chunk.entries.is_empty() {
            self.chunks.remove(number);
        }
    }
}

/// The blocks by index and by name; none is empty.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: Vec<Option<NamedBlock>>,
    names: BTreeMap<Arc<str>, usize>,
    /// Unused indices of `blocks`.
    free: Vec<usize>,
}

#[derive(Debug)]
struct NamedBlock {
    name: Arc<str>,
    block: Arc<Block>,
}

impl Blocks {
    /// Shows the family for the group with these labels, in place of the family of that name that it showed before.
    /// `hint` is tried first, and updated.
    pub fn set(&mut self, labels: &Arc<LabelSet>, family: &Family, hint: &SlotHint) {
        let (near, chunk, at) = hint.get();
        let number = self.number(family.name(), near);
        let name = || family.name().clone();
        let named = self.blocks[number].get_or_insert_with(|| NamedBlock { name: name(), block: Arc::default() });
        let (chunk, at) = Arc::make_mut(&mut named.block).set(labels, family, (chunk, at));
        hint.set(number, chunk, at);
    }

    /// The index of the block of that name: `near` is tried first. If there is no such block, an unused index.
    fn number(&mut self, name: &Arc<str>, near: usize) -> usize {
        // Equal names are mostly one shared string: then no text is compared.
        if let Some(Some(named)) = self.blocks.get(near)
            && (Arc::ptr_eq(&named.name, name) || named.name == *name)
        {
            return near;
        }
        if let Some(number) = self.names.get(&**name) {
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(None);
            self.blocks.len() - 1
        });
        self.names.insert(name.clone(), number);
        number
    }

    /// Removes the family of that name from the group with these labels.
    pub fn remove(&mut self, labels: &LabelSet, name: &str) {
        let Some(number) = self.names.get(name).copied() else { return };
        let Some(named) = &mut self.blocks[number] else { return };
        let block = Arc::make_mut(&mut named.block);
        block.remove(labels);
        if block.chunks.is_empty() {
            self.names.remove(name);
            self.blocks[number] = None;
            self.free.push(number);
        }
    }

    /// The block of that name.
    pub fn block(&self, name: &str) -> Option<Arc<Block>> {
        let named = self.blocks[*self.names.get(name)?].as_ref()?;
        Some(named.block.clone())
    }

    /// The present blocks in the order of their names.
    pub fn snapshot(&self) -> Vec<(Arc<str>, Arc<Block>)> {
        let named = self.names.values().filter_map(|number| self.blocks[*number].as_ref());
        named.map(|named| (named.name.clone(), named.block.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FamilyBuilder, MetricType, ValueLayout};

    fn family(value: f64) -> Family {
        named("m", value)
    }

    fn named(name: &str, value: f64) -> Family {
        let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
        builder.series(&[], &ValueLayout::Single, &[value], None);
        builder.finish().unwrap()
    }

    #[test]
    fn blocks_are_added_and_removed_in_the_order_of_names() {
        let (mut blocks, labels) = (Blocks::default(), Arc::new(LabelSet::new([("job", "a")])));
        let hints = [(); 4].map(|()| SlotHint::default());
        let names = |blocks: &Blocks| blocks.snapshot().iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        let families = ["c", "a", "b"].map(|name| named(name, 1.0));
        for (family, hint) in families.iter().zip(&hints) {
            blocks.set(&labels, family, hint);
        }
        blocks.remove(&labels, "a");
        assert_eq!(names(&blocks), ["b", "c"]);
        // "d" takes the index that "a" had, and "a" gets another: the hints of both are wrong.
        blocks.set(&labels, &named("d", 4.0), &hints[3]);
        blocks.set(&labels, &families[1], &hints[1]);
        blocks.set(&labels, &families[0], &hints[3]);
        assert_eq!(names(&blocks), ["a", "b", "c", "d"]);
        for (name, block) in blocks.snapshot() {
            let shown: Vec<&ShownFamily> = block.entries().collect();
            assert!(shown.len() == 1 && *shown[0].family.name() == name, "{name}");
            assert_eq!(blocks.block(&name).unwrap().entries().count(), 1);
        }
        assert_eq!(blocks.blocks.len(), 4);
    }

    #[test]
    fn chunks_split_stay_sorted_and_are_removed_when_empty() {
        let mut blocks = Blocks::default();
        let key = |i| Arc::new(LabelSet::new([("job", format!("{:03}", (i * 7) % 1_000))]));
        let keys: Vec<Arc<LabelSet>> = (0..1_000).map(key).collect();
        let hints = vec![SlotHint::default(); 1_000];
        for (i, key) in keys.iter().enumerate() {
            blocks.set(key, &family(i as f64), &hints[i]);
            blocks.set(key, &family(1.0), &hints[i]);
        }
        blocks.set(&keys[0], &named("l", 1.0), &SlotHint::default());
        blocks.remove(&keys[0], "l");
        let snapshot = blocks.snapshot();
        assert_eq!(snapshot.len(), 1);
        let labels: Vec<String> = snapshot[0].1.entries().map(|shown| shown.labels.to_string()).collect();
        assert_eq!(labels.len(), 1_000);
        assert!(labels.is_sorted());
        assert!(snapshot[0].1.chunks().iter().all(|chunk| chunk.entries().len() <= CHUNK_ENTRIES_MAX));
        for key in &keys {
            blocks.remove(key, "m");
        }
        assert!(blocks.snapshot().is_empty());
        assert_eq!(snapshot[0].1.entries().count(), 1_000, "a snapshot keeps what it saw");
    }

    #[test]
    fn a_stale_hint_finds_the_right_entry() {
        let mut blocks = Blocks::default();
        let keys: Vec<_> = (0..300).map(|i| Arc::new(LabelSet::new([("job", format!("{i:03}"))]))).collect();
        let hints = vec![SlotHint::default(); 300];
        // Inserted from the last to the first: each insertion moves all entries before it.
        for i in (0..300).rev() {
            blocks.set(&keys[i], &family(0.0), &hints[i]);
        }
        for (i, key) in keys.iter().enumerate() {
            // A group that was deleted and pushed again has equal labels in another object.
            let key = if i % 3 == 0 { Arc::new((**key).clone()) } else { key.clone() };
            blocks.set(&key, &family(i as f64), &hints[i]);
            blocks.set(&key, &family(i as f64), &hints[(i + 1) % 300]);
        }
        let block = blocks.block("m").unwrap();
        let shown: Vec<_> = block.entries().map(|shown| (shown.labels.clone(), shown.family.values()[0])).collect();
        assert_eq!(shown, keys.iter().cloned().zip((0..300).map(f64::from)).collect::<Vec<_>>());
    }
}
