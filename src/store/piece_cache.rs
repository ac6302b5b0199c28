//! The cache of compressed pieces that scrapes make of a chunk's families.
//!
//! Each chunk is rendered and compressed once, however often it is scraped. The cached pieces belong to their chunk: a
//! write copies or clears that one chunk's cache and leaves all others alone. A budget bounds the bytes of all pieces
//! together; a piece that does not fit in it is used once and not cached.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use super::selection::Shard;
use crate::compression::Fragment;
use crate::model::{ByteBudget, ByteReservation};

/// Encodings of one whole chunk that are cached; a further one replaces the oldest.
const ENCODINGS_MAX: usize = 2;
/// Encodings of parts of one chunk that are cached; a further one replaces the oldest.
pub const PARTS_MAX: usize = 16;

/// Identifies an encoding (format and escaping) of a chunk, or of the part of a chunk that belongs to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingKey {
    /// The caller chooses the numbers.
    pub encoding: u8,
    /// The shard whose part of the chunk is encoded; `None` for the whole chunk.
    pub shard: Option<Shard>,
}

impl EncodingKey {
    /// An encoding of whole chunks.
    pub fn whole(encoding: u8) -> Self {
        Self { encoding, shard: None }
    }
}

/// A piece that counts in the budget until its last reference is dropped, unless it did not fit in.
#[derive(Debug)]
pub struct CachedPiece {
    piece: Fragment,
    _reserved: Option<ByteReservation>,
}

impl Deref for CachedPiece {
    type Target = Fragment;
    fn deref(&self) -> &Fragment {
        &self.piece
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
    pub(super) fn set(&self, key: EncodingKey, piece: Fragment, budget: &ByteBudget) -> Arc<CachedPiece> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.retain(|(is, _)| *is != key);
        let is_alike = |(is, _): &(EncodingKey, _)| is.shard.is_some() == key.shard.is_some();
        let max = if key.shard.is_some() { PARTS_MAX } else { ENCODINGS_MAX };
        if pieces.iter().filter(|piece| is_alike(piece)).count() >= max
            && let Some(oldest) = pieces.iter().position(is_alike)
        {
            pieces.remove(oldest);
        }
        let reserved = budget.reserve(piece.bytes() as u64);
        let fits = reserved.is_some();
        let new = Arc::new(CachedPiece { piece, _reserved: reserved });
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
        let budget = ByteBudget::new(2 * piece().bytes() as u64);
        let (cache, other) = (PieceCache::default(), PieceCache::default());
        cache.set(EncodingKey::whole(0), piece(), &budget);
        cache.set(EncodingKey::whole(0), piece(), &budget);
        assert_eq!(budget.reserved_bytes(), piece().bytes() as u64, "one replaces the other");
        cache.set(EncodingKey::whole(1), piece(), &budget);
        let uncached = other.set(EncodingKey::whole(0), piece(), &budget);
        assert!(other.get(EncodingKey::whole(0)).is_none(), "the budget is used up");
        assert_eq!(uncached.bytes(), piece().bytes());
        let used = cache.get(EncodingKey::whole(0)).unwrap();
        drop(cache.clone());
        drop(cache);
        assert_eq!(budget.reserved_bytes(), used.bytes() as u64);
        drop(used);
        assert_eq!(budget.reserved_bytes(), 0);
    }
}
