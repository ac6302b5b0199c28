//! Starting a store that was read back: who it is from now on, and what it may still be trusted with.

use crate::model::Epoch;
use crate::store::{Identity, Store};

use super::log::{CommitError, Log};
use super::recovery::Recovered;

/// Begins a new epoch of a store that was read back, under the identity that it had. If it is new, that is `fresh`; if it
/// lost something to damage, so is its id, for peers must not go on from where it was, nor it from where it was with them.
///
/// # Errors
/// If that cannot be made durable.
pub fn begin(
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
