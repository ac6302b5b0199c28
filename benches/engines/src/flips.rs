//! The behaviour of a store when one byte of its files has changed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use pushrelay::storage::{DiskOptions, RealDisk, recover};
use pushrelay::store::Record;

use crate::engines::{self, TABLE, family, key, open_fjall, record, values};
use crate::{Failure, usage};

const RECORDS: usize = 2_000;
const BYTES: usize = 200;
const FLIPS: usize = 300;

/// The findings when the store is opened.
struct Found {
    records: usize,
    wrong: usize,
    /// Whether the engine reported damage.
    reported: bool,
}

/// Fills a store, closes it, and opens it with one byte changed, many times.
pub fn flips(directory: &Path, name: &str) -> Result<(), Failure> {
    std::panic::set_hook(Box::new(|_| {}));
    let directory = usage::Directory::new(directory)?;
    let original = directory.path.join("original");
    fs::create_dir(&original)?;
    let mut engine = engines::open(name, &original, engines::Data::new(name, BYTES))?;
    for begin in (0..RECORDS).step_by(50) {
        engine.commit(begin..begin + 50)?;
    }
    engine.close()?;
    let places = places(&original)?;
    let (mut kept, mut said, mut silent, mut wrong, mut refused, mut panicked) = (0, 0, 0, 0, 0, 0);
    for flip in 0..FLIPS {
        let (file, at) = &places[flip * places.len() / FLIPS];
        let copy = directory.path.join("copy");
        copy_all(&original, &copy)?;
        let damaged = copy.join(file);
        let mut bytes = fs::read(&damaged)?;
        bytes[*at] ^= 0x10;
        fs::write(&damaged, bytes)?;
        match catch_unwind(AssertUnwindSafe(|| read(name, &copy))) {
            Err(_) => panicked += 1,
            Ok(Err(_)) => refused += 1,
            Ok(Ok(found)) if found.wrong > 0 => wrong += 1,
            Ok(Ok(found)) if found.records == RECORDS => kept += 1,
            Ok(Ok(found)) if found.reported => said += 1,
            Ok(Ok(_)) => silent += 1,
        }
        fs::remove_dir_all(&copy)?;
    }
    println!("| {name} | {FLIPS} | {kept} | {said} | {silent} | {wrong} | {refused} | {panicked} |");
    Ok(())
}

/// The bytes that are not zero: most zeros are reserved space.
fn places(original: &Path) -> Result<Vec<(std::path::PathBuf, usize)>, Failure> {
    let mut places = Vec::new();
    for file in usage::files(original)? {
        let name = file.strip_prefix(original)?.to_path_buf();
        let bytes = fs::read(&file)?;
        places.extend(bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| (name.clone(), at)));
    }
    Ok(places)
}

fn copy_all(from: &Path, to: &Path) -> Result<(), Failure> {
    for file in usage::files(from)? {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::copy(&file, copy)?;
    }
    Ok(())
}

fn read(name: &str, directory: &Path) -> Result<Found, Failure> {
    match name {
        "log" => read_log(directory),
        "fjall" => read_fjall(directory),
        _ => read_redb(directory),
    }
}

fn read_log(directory: &Path) -> Result<Found, Failure> {
    let (mut records, mut wrong) = (0, 0);
    let family = family("metric", (BYTES - 60) / 8, 0.0);
    let recovered = recover(Arc::new(RealDisk::open(directory)?), DiskOptions::default(), &mut |found: Record| {
        let Record::Group(group) = &found else { return };
        let job = group.id.key.get("job").and_then(|job| job.strip_prefix("host-")?.parse().ok()).unwrap_or(0);
        let Record::Group(expected) = record(job, family.clone()) else { return };
        let values = group.group.families().iter().flat_map(|f| f.family.values().iter());
        let right =
            expected.id == group.id && expected.header == group.header && values.clone().all(|v| *v == job as f64);
        wrong += usize::from(!right);
        records += 1;
    })?;
    Ok(Found { records, wrong, reported: !recovered.report.is_intact() || recovered.report.torn_bytes > 0 })
}

fn read_fjall(directory: &Path) -> Result<Found, Failure> {
    let (_database, keyspace) = open_fjall(directory)?;
    let (mut found, values) = (Found { records: 0, wrong: 0, reported: false }, values(BYTES));
    for entry in keyspace.iter() {
        match entry.into_inner() {
            Ok((found_key, value)) => found.count(&values, &String::from_utf8_lossy(&found_key), &value),
            Err(_) => found.reported = true,
        }
    }
    Ok(found)
}

fn read_redb(directory: &Path) -> Result<Found, Failure> {
    use redb::{ReadableDatabase, ReadableTable};
    let database = redb::Database::open(directory.join("redb"))?;
    let (mut found, values) = (Found { records: 0, wrong: 0, reported: false }, values(BYTES));
    for entry in database.begin_read()?.open_table(TABLE)?.iter()? {
        match entry {
            Ok((found_key, value)) => found.count(&values, found_key.value(), value.value()),
            Err(_) => found.reported = true,
        }
    }
    Ok(found)
}

impl Found {
    fn count(&mut self, values: &[Vec<u8>], found_key: &str, value: &[u8]) {
        self.records += 1;
        let i = found_key.strip_prefix("job=host-").and_then(|i| i.parse::<usize>().ok());
        let right = i.is_some_and(|i| i < RECORDS && found_key == key(i) && value == values[i]);
        self.wrong += usize::from(!right);
    }
}
