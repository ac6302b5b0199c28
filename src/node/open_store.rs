//! Opens the store of a node: reads it back from the disk, and gives a new store its identity.

use std::path::Path;
use std::sync::Arc;

use tracing::{error, info};

use super::error::StartError;
use super::metrics;
use super::options::{NodeOptions, NodeRole};
use super::random::random_id;
use crate::exposition::{add_native, date_sum, raw_metric_fault};
use crate::model::{Epoch, NodeId, StoreId};
use crate::storage::{self, Log, RealDisk, recover};
use crate::store::{Identity, Rules, Store, SumCodec};

/// Opens the store, on a thread that may block. The log is `None` for a store in memory only.
///
/// # Errors
/// If the directory cannot be used, the store on disk cannot be read, or the system has no randomness.
pub(super) async fn open_store(options: &NodeOptions) -> Result<(Store, Option<Log>), StartError> {
    let rules = Rules {
        limits: options.limits.store,
        unchecked: options.push.disable_consistency_check,
        has_hubs: !options.uplinks.is_empty(),
        has_edges: options.role == NodeRole::Hub,
        histogram_fault: Some(raw_metric_fault),
        sums: SumCodec { native: add_native, dated: Some(date_sum) },
        idempotency_window_ns: u64::try_from(options.aggregate.idempotency_window.as_nanos()).unwrap_or(u64::MAX),
    };
    let store = Store::new(rules, metrics::OWN_FAMILIES);
    let (path, sync) = (options.storage.path.clone(), options.storage.sync);
    let open = move || match path {
        Some(path) => open_on_disk(store, &path, sync),
        None => open_in_memory(store),
    };
    let opened = tokio::task::spawn_blocking(open).await;
    opened.unwrap_or_else(|error| Err(StartError::System(format!("opening the store failed: {error}"))))
}

fn new_identity() -> Result<Identity, StartError> {
    Ok(Identity { store: StoreId(random_id()?), node: NodeId(random_id()?) })
}

fn open_in_memory(mut store: Store) -> Result<(Store, Option<Log>), StartError> {
    store.open(new_identity()?, Epoch(random_id()?));
    store.commit();
    info!("what is pushed is kept in memory only (storage.path is empty)");
    Ok((store, None))
}

fn open_on_disk(mut store: Store, path: &Path, sync: storage::SyncPolicy) -> Result<(Store, Option<Log>), StartError> {
    let disk = RealDisk::open(path).map_err(|error| {
        let text = format!("cannot use the directory {} (storage.path): {error}", path.display());
        StartError::Storage(format!("{text}; create it, make it writable for this user, or choose another"))
    })?;
    let options = storage::DiskOptions { sync, ..storage::DiskOptions::default() };
    let recovered = recover(Arc::new(disk), options, &mut |record| store.restore(record)).map_err(StartError::Store)?;
    let report = recovered.report.clone();
    for lost in &report.lost {
        error!(%lost, "a part of the store is damaged: what is intact is kept, links restore the rest where they can");
    }
    let opened = storage::open(store, recovered, new_identity()?, Epoch(random_id()?));
    let (store, log) = opened.map_err(|error| StartError::Storage(error.to_string()))?;
    let counts = store.published().counts();
    info!(
        path = %path.display(),
        store = %store.identity().store,
        groups = counts.groups as u64,
        series = counts.series as u64,
        bytes = report.bytes,
        torn_bytes = report.torn_bytes,
        lost = report.lost_count,
        "store opened"
    );
    Ok((store, Some(log)))
}
