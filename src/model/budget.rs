//! A bound on the bytes that many holders may occupy together, such as all request bodies in memory.
//!
//! A limit on each holder alone does not bound the process: a thousand pushers may each send the largest body at once. So
//! bytes are reserved here before they are used, and released when the reservation is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared bound on bytes. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct ByteBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    bytes_max: u64,
    reserved_bytes: AtomicU64,
}

/// Reserved bytes; released on drop.
#[derive(Debug)]
pub struct ByteReservation {
    budget: ByteBudget,
    bytes: u64,
}

impl ByteBudget {
    /// A budget of that many bytes, with none reserved.
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(BudgetState { bytes_max, reserved_bytes: AtomicU64::new(0) }))
    }

    /// The bound.
    pub fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    /// Bytes of all reservations.
    pub fn reserved_bytes(&self) -> u64 {
        self.0.reserved_bytes.load(Ordering::Relaxed)
    }

    /// A reservation of no bytes yet.
    pub fn empty_reservation(&self) -> ByteReservation {
        ByteReservation { budget: self.clone(), bytes: 0 }
    }

    /// Reserves bytes, all or none; `None` if fewer are left.
    pub fn reserve(&self, bytes: u64) -> Option<ByteReservation> {
        let mut reservation = self.empty_reservation();
        reservation.grow(bytes).then_some(reservation)
    }
}

impl ByteReservation {
    /// Reserves more bytes, all or none; `false` if fewer are left.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let BudgetState { bytes_max, reserved_bytes } = &*self.budget.0;
        let fits = |reserved: u64| reserved.checked_add(bytes).filter(|sum| sum <= bytes_max);
        let grown = reserved_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.bytes += if grown { bytes } else { 0 };
        grown
    }

    /// Bytes of this reservation.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The budget that they belong to.
    pub fn budget(&self) -> &ByteBudget {
        &self.budget
    }
}

impl Drop for ByteReservation {
    fn drop(&mut self) {
        self.budget.0.reserved_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_can_be_reserved_again() {
        let budget = ByteBudget::new(10);
        let mut first = budget.reserve(6).unwrap();
        assert!(budget.reserve(5).is_none());
        assert!(first.grow(4) && !first.grow(1) && !first.grow(u64::MAX));
        assert_eq!((first.bytes(), budget.reserved_bytes()), (10, 10));
        drop(first);
        assert_eq!(budget.reserved_bytes(), 0);
        assert!(budget.reserve(10).is_some());
    }
}
