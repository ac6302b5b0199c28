//! What scrapes made of a page and keep beside it until the page changes.
//!
//! A page of the text format is printed and compressed once, however often it is scraped. What is kept goes with the page
//! it was made of: a write copies or empties that one page, and leaves all others as they are. All of it together is
//! bounded: what finds no room is used once.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::compression::Piece;

/// Renditions of one page that are kept; a further one takes the place of the oldest.
const RENDITIONS_MAX: usize = 2;

/// Tells what was made in one way from what was made in another; the numbers are the scrapes' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendition(pub u8);

/// The bound on the bytes that are kept of all pages together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Room {
    /// Room for that many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Taken { bytes: AtomicUsize::new(0), bytes_max }))
    }

    /// How many bytes are kept.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.0.bytes_max);
        self.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// A piece that counts in the room while anyone holds it.
#[derive(Debug)]
pub struct Kept {
    piece: Piece,
    room: Option<Room>,
}

impl Deref for Kept {
    type Target = Piece;
    fn deref(&self) -> &Piece {
        &self.piece
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            room.0.bytes.fetch_sub(self.piece.bytes(), Ordering::Relaxed);
        }
    }
}

/// What is kept of one page. A copy begins empty: pages are copied to be changed.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Vec<(Rendition, Arc<Kept>)>>);

impl Clone for Slot {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Slot {
    pub(super) fn get(&self, rendition: Rendition) -> Option<Arc<Kept>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(is, _)| *is == rendition).map(|(_, kept)| kept.clone())
    }

    /// Keeps the piece if there is room; returns it in any case.
    pub(super) fn set(&self, rendition: Rendition, piece: Piece, room: &Room) -> Arc<Kept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(is, _)| *is != rendition);
        if kept.len() >= RENDITIONS_MAX {
            kept.remove(0);
        }
        let fits = room.take(piece.bytes());
        let new = Arc::new(Kept { piece, room: fits.then(|| room.clone()) });
        if fits {
            kept.push((rendition, new.clone()));
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
    use crate::compression::Packer;

    #[test]
    fn what_is_kept_is_counted_and_bounded() {
        let mut packer = Packer::new(1);
        let mut piece = || packer.pack(b"a 1\n");
        let room = Room::new(2 * piece().bytes());
        let (slot, other) = (Slot::default(), Slot::default());
        slot.set(Rendition(0), piece(), &room);
        slot.set(Rendition(0), piece(), &room);
        assert_eq!(room.bytes(), piece().bytes(), "one takes the place of the other");
        slot.set(Rendition(1), piece(), &room);
        let unkept = other.set(Rendition(0), piece(), &room);
        assert!(other.get(Rendition(0)).is_none(), "there is no room");
        assert_eq!(unkept.bytes(), piece().bytes());
        let suppressed = slot.get(Rendition(0)).unwrap();
        drop(slot.clone());
        drop(slot);
        assert_eq!(room.bytes(), suppressed.bytes());
        drop(suppressed);
        assert_eq!(room.bytes(), 0);
    }
}
