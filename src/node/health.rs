//! The health of this node, which its links report to hubs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::certificates::Certificates;
use super::commit::Committer;
use super::http::auth::guard::Refusals;
use super::link::status::UplinkStatus;
use super::metrics::Metrics;
use crate::storage::DiskSpace;
use crate::store::StoreLimits;
use crate::wire::Health;

/// The time between two looks at the node.
const INTERVAL: Duration = Duration::from_secs(1);

/// The parts of a node that its health is read from.
pub struct HealthSources {
    /// When the node started, in seconds since the Unix epoch.
    pub started_seconds: u64,
    /// The directory of the store; `None` for a store in memory only.
    pub store_path: Option<PathBuf>,
    /// The limits of the store.
    pub limits: StoreLimits,
    /// Has the counts of the store.
    pub committer: Committer,
    /// Has the counters of pushes and transactions.
    pub metrics: Arc<Metrics>,
    /// Has the expiries of certificates.
    pub certificates: Arc<Certificates>,
    /// Has the counters of refused requests.
    pub refusals: Arc<Refusals>,
    /// The links to hubs.
    pub uplinks: Vec<Arc<UplinkStatus>>,
}

impl HealthSources {
    /// The health now. The file system may take its time to answer.
    fn read(&self) -> Health {
        let counts = self.committer.published().counts();
        let (pushes, store) = (self.metrics.pushes(), self.metrics.store_failure());
        let space = self.store_path.as_ref().and_then(|path| DiskSpace::of(path).ok());
        let resyncs = self.uplinks.iter().map(|uplink| uplink.get().resyncs).sum();
        Health {
            started_seconds: Some(self.started_seconds),
            commit_failures: Some(self.metrics.commit_failures.get()),
            store_failing: Some(store.is_failing.into()),
            store_failure: store.text,
            disk_free_bytes: space.map(|space| space.free_bytes),
            disk_bytes: space.map(|space| space.bytes),
            groups: Some(counts.groups as u64),
            groups_max: Some(self.limits.groups_max as u64),
            series: Some(counts.series as u64),
            series_max: Some(self.limits.series_max as u64),
            pushes: Some(pushes.answered),
            push_bytes: Some(pushes.bytes),
            pushes_refused: Some(pushes.refused),
            certificate_expiry_seconds: self.certificates.first_expiry_seconds(),
            resident_bytes: resident_bytes(),
            resyncs: Some(resyncs),
            suppressed_families: Some(counts.suppressed as u64),
            credentials_failing: Some(self.certificates.is_failing().into()),
            requests_refused: Some(self.refusals.sum()),
        }
    }

    /// Reads the health again and again until the node stops.
    pub async fn run(self, health: watch::Sender<Arc<Health>>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let now = tokio::task::block_in_place(|| self.read());
            health.send_if_modified(|before| {
                let is_changed = **before != now;
                if is_changed {
                    *before = Arc::new(now);
                }
                is_changed
            });
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}

/// The resident memory of this process; `None` if the operating system does not say it.
fn resident_bytes() -> Option<u64> {
    resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status_of_the_process() {
        assert_eq!(resident("Name:\tpushrelay\nVmRSS:\t    2048 kB\nThreads: 9\n"), Some(2 << 20));
        assert_eq!(resident("VmRSS:\t18446744073709551615 kB"), None);
        assert_eq!(resident("VmSize:\t1 kB"), None);
    }
}
