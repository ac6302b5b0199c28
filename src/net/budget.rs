//! A limit on the bytes that all requests together may occupy in memory.
//!
//! A limit on each body alone does not bound the process: a thousand pushers may each send the largest body at once. So
//! bytes are reserved here before they are read, and released when the reservation is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// A shared limit on bytes. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes_max: u64,
    bytes: AtomicU64,
}

/// All bytes of the budget are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("all requests together already hold {bytes_max} bytes (limits.inflight_bytes_max): try again later")]
pub struct Exhausted {
    /// The limit.
    pub bytes_max: u64,
}

/// Reserved bytes; released on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// A budget of that many bytes, with none reserved.
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Inner { bytes_max, bytes: AtomicU64::new(0) }))
    }

    /// Reserves bytes, all or none.
    ///
    /// # Errors
    /// If fewer bytes are left.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, Exhausted> {
        let mut reservation = Reservation { budget: self.clone(), bytes: 0 };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Bytes that are reserved now.
    #[cfg(test)]
    pub(crate) fn used_bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Reserves more bytes, all or none.
    ///
    /// # Errors
    /// If fewer bytes are left.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let inner = &self.budget.0;
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= inner.bytes_max);
        inner
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| Exhausted { bytes_max: inner.bytes_max })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Bytes of this reservation.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_can_be_reserved_again() {
        let budget = Budget::new(10);
        let mut first = budget.reserve(6).unwrap();
        assert_eq!(budget.reserve(5).unwrap_err(), Exhausted { bytes_max: 10 });
        first.grow(4).unwrap();
        assert!(first.grow(1).is_err() && first.grow(u64::MAX).is_err());
        assert_eq!((first.bytes(), budget.used_bytes()), (10, 10));
        drop(first);
        assert_eq!(budget.used_bytes(), 0);
        budget.reserve(10).unwrap();
    }
}
