//! `pushrelay store compact PATH`: replaces all files by one checkpoint of all intact records.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::damage::print_damage;
use super::failure::Failure;
use crate::cli::progress::Bar;
use crate::model::{Epoch, NodeId, StoreId};
use crate::node::metrics::OWN_FAMILIES;
use crate::node::random::random_id;
use crate::storage::{Compacted, Fresh, compact};
use crate::store::Identity;

/// Compacts the store and prints the result. Returns whether the store was intact.
pub(super) fn run(path: &Path, keep: bool, out: &mut dyn Write) -> Result<bool, Failure> {
    let random = || random_id().map_err(|error| Failure(format!("the system has no randomness: {error}")));
    let identity = Identity { store: StoreId(random()?), node: NodeId(random()?) };
    let fresh = Fresh { identity, epoch: Epoch(random()?) };
    let Compacted { report, bytes, groups, kept_in } =
        compact(path, fresh, OWN_FAMILIES, keep, Arc::new(Bar::new())).map_err(|error| Failure(error.to_string()))?;
    print_damage(&report, out)?;
    writeln!(out, "{groups} groups kept, tombstones included; {} bytes became {}", bytes.0, bytes.1)?;
    if let Some(folder) = kept_in {
        writeln!(out, "the old files are in {}; remove them when you need nothing more from them", folder.display())?;
    }
    Ok(report.is_intact())
}
