//! The cache of compressed pieces that scrapes make of a chunk's families.
//!
//! Each chunk is rendered and compressed once, however often it is scraped. The cached pieces belong to their chunk: a
//! write copies or clears that one chunk's cache and leaves all others alone. A budget bounds the bytes of all pieces
//! together; a piece that does not fit in it is used once and not cached.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::compression::Fragment;

/// Encodings of one chunk that are cached; a further one replaces the oldest.
const ENCODINGS_MAX: usize = 2;

/// Identifies an encoding (format and escaping) of a chunk; the caller chooses the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingKey(pub u8);

/// The bound on the bytes of all cached pieces together. Cheap to clone; clones share the count.
#[derive(Clone, Debug)]
pub struct CacheBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl CacheBudget {
    /// A budget of `bytes_max` bytes, none of them used.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(BudgetState { bytes: AtomicUsize::new(0), bytes_max }))
    }

    /// Bytes of all cached pieces.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn try_take(&self, bytes: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.0.bytes_max);
        self.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// A piece that counts in the budget until its last reference is dropped.
#[derive(Debug)]
pub struct CachedPiece {
    piece: Fragment,
    budget: Option<CacheBudget>,
}

impl Deref for CachedPiece {
    type Target = Fragment;
    fn deref(&self) -> &Fragment {
        &self.piece
    }
}

impl Drop for CachedPiece {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.0.bytes.fetch_sub(self.piece.bytes(), Ordering::Relaxed);
        }
    }
}

/// The cached pieces of one chunk. A clone begins empty: a chunk is cloned only to be changed.
#[derive(Debug, Default)]
pub(super) struct PieceCache(Mutex<Vec<(EncodingKey, Arc<CachedPiece>)>>);

impl Clone for PieceCache {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PieceCache {
    pub(super) fn get(&self, key: EncodingKey) -> Option<Arc<CachedPiece>> {
        let pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.iter().find(|(is, _)| *is == key).map(|(_, piece)| piece.clone())
    }

    /// Caches the piece if the budget allows it; returns it in any case.
    pub(super) fn set(&self, key: EncodingKey, piece: Fragment, budget: &CacheBudget) -> Arc<CachedPiece> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.retain(|(is, _)| *is != key);
        if pieces.len() >= ENCODINGS_MAX {
            pieces.remove(0);
        }
        let fits = budget.try_take(piece.bytes());
        let new = Arc::new(CachedPiece { piece, budget: fits.then(|| budget.clone()) });
        if fits {
            pieces.push((key, new.clone()));
        }
        new
    }

    pub(super) fn clear(&mut self) {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::FragmentEncoder;

    #[test]
    fn cached_pieces_are_counted_and_bounded() {
        let mut encoder = FragmentEncoder::new(1);
        let mut piece = || encoder.encode(b"a 1\n");
        let budget = CacheBudget::new(2 * piece().bytes());
        let (cache, other) = (PieceCache::default(), PieceCache::default());
        cache.set(EncodingKey(0), piece(), &budget);
        cache.set(EncodingKey(0), piece(), &budget);
        assert_eq!(budget.bytes(), piece().bytes(), "one replaces the other");
        cache.set(EncodingKey(1), piece(), &budget);
        let uncached = other.set(EncodingKey(0), piece(), &budget);
        assert!(other.get(EncodingKey(0)).is_none(), "the budget is used up");
        assert_eq!(uncached.bytes(), piece().bytes());
        let used = cache.get(EncodingKey(0)).unwrap();
        drop(cache.clone());
        drop(cache);
        assert_eq!(budget.bytes(), used.bytes());
        drop(used);
        assert_eq!(budget.bytes(), 0);
    }
}
