//! What a scrape shows: one block a metric name, each a list of pages of families sorted by their groups.
//!
//! Blocks and pages are shared with the scrapes that hold them and copied when written to, so that taking a snapshot
//! costs a pointer a name, and a write copies at most one page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::piece_cache::{CacheBudget, CachedPiece, EncodingKey, PieceCache};
use crate::compression::Piece;
use crate::model::{Family, LabelSet};

/// A page with more entries than this is split.
const PAGE_ENTRIES_MAX: usize = 64;
/// A page with more values than this is split, unless it has one entry.
const PAGE_VALUES_MAX: usize = 2_048;

/// A family of a group as it is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// All labels of the group.
    pub labels: Arc<LabelSet>,
    /// The family.
    pub family: Family,
}

/// Where an entry was when it was last set: a hint, which saves comparing names and labels where it still holds.
#[derive(Debug, Default)]
pub struct SlotHint(AtomicU64);

impl SlotHint {
    /// The numbers of the block, of the page in it, and of the entry in that.
    fn get(&self) -> (usize, usize, usize) {
        let packed = self.0.load(Ordering::Relaxed);
        ((packed >> 40) as usize, (packed >> 8) as u32 as usize, packed as u8 as usize)
    }

    /// Numbers that are too large are cut off: that is no worse than any other hint that does not hold.
    fn set(&self, block: usize, page: usize, at: usize) {
        self.0.store((block as u64) << 40 | u64::from(page as u32) << 8 | u64::from(at as u8), Ordering::Relaxed);
    }
}

impl Clone for SlotHint {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// Families of one name, of consecutive groups.
#[derive(Clone, Debug, Default)]
pub struct Page {
    entries: Vec<Shown>,
    values: usize,
    pieces: PieceCache,
}

impl Page {
    fn new(entries: Vec<Shown>, values: usize) -> Self {
        Self { entries, values, pieces: PieceCache::default() }
    }

    /// The piece cached under that key since the chunk last changed.
    pub fn cached(&self, key: EncodingKey) -> Option<Arc<CachedPiece>> {
        self.pieces.get(key)
    }

    /// Caches a piece until the chunk changes, if the budget allows it; returns it in any case.
    pub fn cache(&self, key: EncodingKey, piece: Piece, budget: &CacheBudget) -> Arc<CachedPiece> {
        self.pieces.set(key, piece, budget)
    }

    /// The families, sorted by the labels of their groups.
    pub fn entries(&self) -> &[Shown] {
        &self.entries
    }
}

/// All that is shown under one metric name.
#[derive(Clone, Debug, Default)]
pub struct Block {
    pages: Vec<Arc<Page>>,
}

impl Block {
    /// The pages in order, none empty.
    pub fn pages(&self) -> &[Arc<Page>] {
        &self.pages
    }

    /// The families in order.
    pub fn entries(&self) -> impl Iterator<Item = &Shown> {
        self.pages.iter().flat_map(|page| &page.entries)
    }

    /// Whether the group shows something of that name.
    pub fn contains(&self, labels: &LabelSet) -> bool {
        self.find(labels).1.is_ok()
    }

    /// Where the group's entry is or would be: the page, and there the entry or the place for it.
    fn find(&self, labels: &LabelSet) -> (usize, Result<usize, usize>) {
        let order = |shown: &Shown| (*shown.labels).cmp(labels);
        let after = self.pages.partition_point(|page| order(&page.entries[0]).is_le());
        let page = after.saturating_sub(1);
        let at = self.pages.get(page).map_or(Err(0), |page| page.entries.binary_search_by(order));
        (page, at)
    }

    /// Shows the family, whose entry may be the one of that number in the page of that number. Returns where it is.
    fn set(&mut self, labels: &Arc<LabelSet>, family: &Family, near: (usize, usize)) -> (usize, usize) {
        if self.pages.is_empty() {
            self.pages.push(Arc::default());
        }
        let (number, at) = self.find_near(labels, near);
        let page = self.page_mut(number);
        page.values += family.values().len();
        match at {
            Ok(at) => {
                let entry = &mut page.entries[at];
                page.values -= entry.family.values().len();
                if !Arc::ptr_eq(&entry.labels, labels) {
                    entry.labels = labels.clone();
                }
                entry.family.clone_from(family);
            }
            Err(at) => page.entries.insert(at, Shown { labels: labels.clone(), family: family.clone() }),
        }
        let entries = page.entries.len();
        if entries > PAGE_ENTRIES_MAX || (page.values > PAGE_VALUES_MAX && entries > 1) {
            // What comes in order fills its pages.
            let appended = number + 1 == self.pages.len() && at == Err(entries - 1);
            self.split(number, if appended { entries - 1 } else { entries / 2 });
        }
        (number, at.unwrap_or_else(|at| at))
    }

    /// A page to be changed: what was kept of it does not hold any more.
    fn page_mut(&mut self, number: usize) -> &mut Page {
        let page = Arc::make_mut(&mut self.pages[number]);
        page.pieces.clear();
        page
    }

    fn find_near(&self, labels: &Arc<LabelSet>, (page, at): (usize, usize)) -> (usize, Result<usize, usize>) {
        match self.pages.get(page).and_then(|page| page.entries.get(at)) {
            Some(shown) if Arc::ptr_eq(&shown.labels, labels) => (page, Ok(at)),
            _ if self.pages[0].entries.is_empty() => (0, Err(0)),
            _ => self.find(labels),
        }
    }

    fn split(&mut self, number: usize, at: usize) {
        let page = self.page_mut(number);
        let entries = page.entries.split_off(at);
        let values = entries.iter().map(|shown| shown.family.values().len()).sum();
        page.values -= values;
        self.pages.insert(number + 1, Arc::new(Page::new(entries, values)));
    }

    fn remove(&mut self, labels: &LabelSet) {
        let (number, at) = self.find(labels);
        let Ok(at) = at else { return };
        let page = self.page_mut(number);
        page.values -= page.entries.remove(at).family.values().len();
        if page.entries.is_empty() {
            self.pages.remove(number);
        }
    }
}

/// The blocks, by number and by name. Something is shown in each.
#[derive(Debug, Default)]
pub struct Pages {
    blocks: Vec<Option<Named>>,
    names: BTreeMap<Arc<str>, usize>,
    /// The numbers that no block has.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Named {
    name: Arc<str>,
    block: Arc<Block>,
}

impl Pages {
    /// Shows the family under these labels of a group, in place of its namesake, which may be at `hint`; that is where it
    /// is then.
    pub fn set(&mut self, labels: &Arc<LabelSet>, family: &Family, hint: &SlotHint) {
        let (near, page, at) = hint.get();
        let number = self.number(family.name(), near);
        let name = || family.name().clone();
        let named = self.blocks[number].get_or_insert_with(|| Named { name: name(), block: Arc::default() });
        let (page, at) = Arc::make_mut(&mut named.block).set(labels, family, (page, at));
        hint.set(number, page, at);
    }

    /// The number of the block of that name, which may be `near`; a free one, if there is none.
    fn number(&mut self, name: &Arc<str>, near: usize) -> usize {
        // Names are mostly the very same, and then their text is not compared.
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

    /// Shows no family of that name under these labels.
    pub fn remove(&mut self, labels: &LabelSet, name: &str) {
        let Some(number) = self.names.get(name).copied() else { return };
        let Some(named) = &mut self.blocks[number] else { return };
        let block = Arc::make_mut(&mut named.block);
        block.remove(labels);
        if block.pages.is_empty() {
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

    /// The blocks in the order of their names, as they are now.
    pub fn snapshot(&self) -> Vec<(Arc<str>, Arc<Block>)> {
        let named = self.names.values().filter_map(|number| self.blocks[*number].as_ref());
        named.map(|named| (named.name.clone(), named.block.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FamilyBuilder, MetricType, Points};

    fn family(value: f64) -> Family {
        named("m", value)
    }

    fn named(name: &str, value: f64) -> Family {
        let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
        builder.series(&[], &Points::Single, &[value], None);
        builder.finish().unwrap()
    }

    #[test]
    fn blocks_come_and_go_in_the_order_of_names() {
        let (mut pages, labels) = (Pages::default(), Arc::new(LabelSet::new([("job", "a")])));
        let hints = [(); 4].map(|()| SlotHint::default());
        let names = |pages: &Pages| pages.snapshot().iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        let families = ["c", "a", "b"].map(|name| named(name, 1.0));
        for (family, hint) in families.iter().zip(&hints) {
            pages.set(&labels, family, hint);
        }
        pages.remove(&labels, "a");
        assert_eq!(names(&pages), ["b", "c"]);
        // Takes the number that "a" had, which has it again with another: places that say so are wrong for both.
        pages.set(&labels, &named("d", 4.0), &hints[3]);
        pages.set(&labels, &families[1], &hints[1]);
        pages.set(&labels, &families[0], &hints[3]);
        assert_eq!(names(&pages), ["a", "b", "c", "d"]);
        for (name, block) in pages.snapshot() {
            let shown: Vec<&Shown> = block.entries().collect();
            assert!(shown.len() == 1 && *shown[0].family.name() == name, "{name}");
            assert_eq!(pages.block(&name).unwrap().entries().count(), 1);
        }
        assert_eq!(pages.blocks.len(), 4);
    }

    #[test]
    fn pages_split_stay_sorted_and_empty_out() {
        let mut pages = Pages::default();
        let key = |i| Arc::new(LabelSet::new([("job", format!("{:03}", (i * 7) % 1_000))]));
        let keys: Vec<Arc<LabelSet>> = (0..1_000).map(key).collect();
        let hints = vec![SlotHint::default(); 1_000];
        for (i, key) in keys.iter().enumerate() {
            pages.set(key, &family(i as f64), &hints[i]);
            pages.set(key, &family(1.0), &hints[i]);
        }
        pages.set(&keys[0], &named("l", 1.0), &SlotHint::default());
        pages.remove(&keys[0], "l");
        let snapshot = pages.snapshot();
        assert_eq!(snapshot.len(), 1);
        let labels: Vec<String> = snapshot[0].1.entries().map(|shown| shown.labels.to_string()).collect();
        assert_eq!(labels.len(), 1_000);
        assert!(labels.is_sorted());
        assert!(snapshot[0].1.pages().iter().all(|page| page.entries().len() <= PAGE_ENTRIES_MAX));
        for key in &keys {
            pages.remove(key, "m");
        }
        assert!(pages.snapshot().is_empty());
        assert_eq!(snapshot[0].1.entries().count(), 1_000, "a snapshot keeps what it saw");
    }

    #[test]
    fn a_place_that_does_not_hold_any_more_misleads_nobody() {
        let mut pages = Pages::default();
        let keys: Vec<_> = (0..300).map(|i| Arc::new(LabelSet::new([("job", format!("{i:03}"))]))).collect();
        let hints = vec![SlotHint::default(); 300];
        // From the last to the first: every one moves all that were there.
        for i in (0..300).rev() {
            pages.set(&keys[i], &family(0.0), &hints[i]);
        }
        for (i, key) in keys.iter().enumerate() {
            // The labels of a group that went and came again are equal, but not the same.
            let key = if i % 3 == 0 { Arc::new((**key).clone()) } else { key.clone() };
            pages.set(&key, &family(i as f64), &hints[i]);
            pages.set(&key, &family(i as f64), &hints[(i + 1) % 300]);
        }
        let block = pages.block("m").unwrap();
        let shown: Vec<_> = block.entries().map(|shown| (shown.labels.clone(), shown.family.values()[0])).collect();
        assert_eq!(shown, keys.iter().cloned().zip((0..300).map(f64::from)).collect::<Vec<_>>());
    }
}
