//! Files of a store: with any content, the store starts, and everything that it recovered is still there at the next
//! start.
//!
//! Random bytes never pass a checksum. So the frames are built here, after the specifications in `src/storage/frame.rs`
//! and `files.rs`; the fuzzer provides their content.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushrelay::model::{Epoch, Group, GroupId, NodeId, StoreId};
use pushrelay::storage::{Disk, DiskOptions, Log, Report, recover};
use pushrelay::store::{Identity, Rules, Store};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{block, byte};
use crate::disk::SimulatedDisk;

const FILES_MAX: usize = 6;
const IDENTITY: Identity = Identity { store: StoreId(7), node: NodeId(9) };

/// The input is a number of files, as [`file`] reads them.
pub fn run(data: &[u8]) {
    let disk = SimulatedDisk::new(1);
    let (mut data, mut ends) = (data, BTreeMap::new());
    for _ in 0..FILES_MAX {
        let Some((name, bytes)) = file(&mut data, &mut ends) else { break };
        if let Ok(mut file) = disk.create(&name) {
            file.write_at(0, &bytes).expect("the disk has room");
        }
    }
    let Some((report, kept)) = start(&disk) else { return };
    assert_eq!(report.is_intact(), report.lost.is_empty());
    report.lost.iter().for_each(|lost| assert!(!lost.to_string().is_empty()));
    let (report, again) = start(&disk).expect("what was repaired starts");
    assert!(report.is_intact(), "damage is gone after a checkpoint: {:?}", report.lost);
    assert!(again == kept, "kept {kept:?}, and then {again:?}");
}

/// Opens the store, commits, and writes a checkpoint. Returns the report and the groups.
fn start(disk: &SimulatedDisk) -> Option<(Report, BTreeMap<GroupId, Group>)> {
    let mut store = Store::new(Rules::default(), &[]);
    let options = DiskOptions { reserve_bytes: 0, ..DiskOptions::default() };
    let recovered = recover(Arc::new(disk.clone()), options, &mut |record| store.restore(record)).ok()?;
    let report = recovered.report.clone();
    let mut log = recovered.start(IDENTITY).expect("a log can be started");
    store.open(IDENTITY, Epoch(1));
    log.commit(store.records()).expect("a commit succeeds");
    store.commit();
    checkpoint(&mut log, &store);
    let groups = store.published().entries().into_iter().map(|entry| (entry.id().clone(), entry.group.clone()));
    Some((report, groups.collect()))
}

fn checkpoint(log: &mut Log, store: &Store) {
    let mut writer = log.rotate().expect("a checkpoint can be begun");
    store.checkpoint().for_each(|record| writer.write(&record).expect("a record can be written"));
    writer.finish().expect("a checkpoint can be finished");
}

/// Reads one file: a byte of flags (1: a checkpoint; 2: the next block is the whole file; 4: no header; 8: one byte is
/// altered at the end; 16: the recorded end of the previous log is wrong; 32: a sequence number is skipped), its
/// number, the number of the previous log, and the number of frames, each with one block.
fn file(data: &mut &[u8], ends: &mut BTreeMap<u8, u64>) -> Option<(String, Vec<u8>)> {
    let (flags, number) = (byte(data)?, 1 + byte(data)? % 8);
    let is_checkpoint = flags & 1 != 0;
    let name = format!("{}-{number:010}", if is_checkpoint { "checkpoint" } else { "log" });
    if flags & 2 != 0 {
        return Some((name, block(data)?.to_vec()));
    }
    let salt = 2 * u64::from(number) + u64::from(is_checkpoint);
    let previous = byte(data)? % 9;
    let mut bytes = Vec::new();
    if flags & 4 == 0 {
        let end = ends.get(&previous).copied().unwrap_or(0).wrapping_add(u64::from(flags & 16));
        let (previous, end) = if is_checkpoint { (0, 0) } else { (previous, end) };
        frame(&file_header(previous, end), salt, 0, &mut bytes);
    }
    let count = byte(data)? % 16;
    for sequence in 1..=u64::from(count) {
        frame(block(data)?, salt, sequence + u64::from(flags & 32), &mut bytes);
    }
    if !is_checkpoint {
        ends.insert(number, bytes.len() as u64);
    }
    if flags & 8 != 0 && !bytes.is_empty() {
        let at = usize::from(byte(data)?) * 256 + usize::from(byte(data)?);
        let at = at % bytes.len();
        bytes[at] ^= 0x41;
    }
    Some((name, bytes))
}

fn file_header(previous: u8, end: u64) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&IDENTITY.store.0.to_le_bytes());
    bytes.extend_from_slice(&IDENTITY.node.0.to_le_bytes());
    bytes.push(previous);
    pushrelay::model::bytes::put_number(end, &mut bytes);
    bytes
}

/// Appends a frame.
fn frame(payload: &[u8], salt: u64, sequence: u64, into: &mut Vec<u8>) {
    let mut header = [0; 32];
    header[..4].copy_from_slice(&[0xfb, 0x50, 0x52, 0xf7]);
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..24].copy_from_slice(&xxh3_64_with_seed(payload, salt).to_le_bytes());
    let checksum = xxh3_64_with_seed(&header[..24], salt);
    header[24..].copy_from_slice(&checksum.to_le_bytes());
    into.extend_from_slice(&header);
    into.extend_from_slice(payload);
}
