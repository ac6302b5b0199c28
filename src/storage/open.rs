//! Opening a store that was read back: its ids, and which cursors it may still trust.

use crate::model::Epoch;
use crate::store::{Identity, Store};

use super::log::{CommitError, Log};
use super::recovery::Recovered;

/// Begins a new epoch of a store that was read back, under its old identity. A new store gets `fresh`. A store that
/// lost data to damage gets a fresh id: its peers must not continue from their cursors on it, nor it from its cursors
/// on them.
///
/// # Errors
/// If the new epoch cannot be made durable.
pub fn open(
    mut store: Store,
    recovered: Recovered,
    fresh: Identity,
    epoch: Epoch,
) -> Result<(Store, Log), CommitError> {
    let intact = recovered.report.is_intact();
    let identity = match recovered.identity {
        Some(identity) if intact => identity,
        Some(identity) => Identity { store: fresh.store, ..identity },
        None => fresh,
    };
    let mut log = recovered.start(identity)?;
    store.open(identity, epoch);
    if !intact {
        store.distrust_cursors();
    }
    log.commit(store.records())?;
    store.commit();
    Ok((store, log))
}
