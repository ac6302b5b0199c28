//! Threads that give way: what is large and can wait runs with less weight than what answers pushes.

use tracing::debug;

/// The weight of a thread that gives way is about a third of that of the others.
const NICENESS: i32 = 5;

/// Lowers the priority of the calling thread for good. (On Linux a niceness is a thread's own.) Without it everything
/// works, and pushes wait longer.
pub fn give_way() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        debug!(%error, "a thread cannot give way to others");
    }
}
