//! The time of the last tick of each receiver, in a small file beside the store.
//!
//! It serves two purposes after a restart: timestamps never go back, even if the clock did; and series that were written
//! shortly before the node stopped are ended if they are gone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::storage::whole;

/// The name of the file.
const FILE: &str = "remote-write.json";
/// Bytes of the file, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The format that this code reads and writes.
const VERSION: u32 = 1;

#[derive(Debug, Default, Serialize, Deserialize)]
struct TimesFile {
    version: u32,
    /// By the name of the receiver: the time of its last tick, in milliseconds since the Unix epoch.
    last_tick_ms: BTreeMap<String, i64>,
}

/// The times of the last ticks.
#[derive(Debug)]
pub(super) struct TickTimes {
    folder: Option<PathBuf>,
    last_tick_ms: RefCell<BTreeMap<String, i64>>,
}

impl TickTimes {
    /// Reads the file, if the store has a directory. The times of receivers that are not among `names` are forgotten.
    pub fn read(folder: Option<PathBuf>, names: &[&str]) -> Self {
        let path = folder.as_ref().map(|folder| folder.join(FILE));
        let text = path.as_ref().map(|path| whole::read(path, FILE_BYTES_MAX)).transpose();
        let parsed = text.map_err(|error| error.to_string()).and_then(|text| match text.flatten() {
            None => Ok(TimesFile::default()),
            Some(text) => serde_json::from_str::<TimesFile>(&text).map_err(|error| error.to_string()),
        });
        let mut times = parsed.unwrap_or_else(|reason| {
            warn!(file = FILE, reason, "the times of the last ticks cannot be read: they count as unknown");
            TimesFile::default()
        });
        times.last_tick_ms.retain(|name, _| times.version == VERSION && names.contains(&&**name));
        Self { folder, last_tick_ms: RefCell::new(times.last_tick_ms) }
    }

    /// The time of the receiver's last tick.
    pub fn last_ms(&self, name: &str) -> Option<i64> {
        self.last_tick_ms.borrow().get(name).copied()
    }

    /// The time of the receiver's next tick: now, or later if that is not after the last one. It is on disk before it is
    /// used.
    pub fn next_ms(&self, name: &str, now_ms: i64) -> i64 {
        let next = self.last_ms(name).map_or(now_ms, |last| now_ms.max(last.saturating_add(1)));
        self.last_tick_ms.borrow_mut().insert(name.to_owned(), next);
        let Some(folder) = &self.folder else { return next };
        let file = TimesFile { version: VERSION, last_tick_ms: self.last_tick_ms.borrow().clone() };
        let text = serde_json::to_vec(&file).unwrap_or_default();
        if let Err(error) = whole::replace(folder, FILE, &text) {
            warn!(file = FILE, %error, "the time of a tick cannot be written: after a restart it counts as unknown");
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TempDir;

    #[test]
    fn times_never_go_back_even_after_a_restart() {
        let folder = TempDir::new();
        let times = TickTimes::read(Some(folder.path().into()), &["a", "b"]);
        assert_eq!([times.next_ms("a", 1_000), times.next_ms("a", 900), times.next_ms("b", 900)], [1_000, 1_001, 900]);
        let times = TickTimes::read(Some(folder.path().into()), &["a"]);
        assert_eq!((times.last_ms("a"), times.last_ms("b")), (Some(1_001), None));
        assert_eq!([times.next_ms("a", 5), times.next_ms("a", 2_000)], [1_002, 2_000]);
        std::fs::write(folder.path().join(FILE), "no JSON").unwrap();
        assert_eq!(TickTimes::read(Some(folder.path().into()), &["a"]).last_ms("a"), None);
    }
}
