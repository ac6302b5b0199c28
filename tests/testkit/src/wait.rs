//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// The time limit of a condition. It is long because CI may run much else on two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `probe` until it returns a value; panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        // The pause only leaves the processor to the awaited process. It is not a wait for the condition.
        std::thread::sleep(Duration::from_millis(10));
    }
}
