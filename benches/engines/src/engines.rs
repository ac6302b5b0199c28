//! The stores behind one trait.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use pushrelay::model::{
    Family, FamilyBuilder, Group, GroupId, LabelSet, MetricType, NodeId, PushTime, Revision, StoreId, ValueLayout,
    WriteTimestamp,
};
use pushrelay::storage::{DiskOptions, Log, RealDisk, recover};
use pushrelay::store::{FamilyMeta, FamilyMetas, GroupRecord, Identity, Record};

use crate::Failure;

/// How many groups there are.
pub const KEYS: usize = 10_000;
/// The engines' names.
pub const NAMES: [&str; 4] = ["bare", "log", "fjall", "redb"];
/// The ids of the store and its node.
pub const IDENTITY: Identity = Identity { store: StoreId(1), node: NodeId(2) };

/// A store to measure.
pub trait Engine {
    /// Writes the records of these keys in one durable transaction.
    fn commit(&mut self, keys: Range<usize>) -> Result<(), Failure>;
    /// Closes the store in order.
    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

/// The records to write, made before the measurement.
pub struct Data {
    values: Vec<Vec<u8>>,
    records: Vec<Record>,
}

impl Data {
    /// Records of about `bytes` for the engine with that name.
    pub fn new(name: &str, bytes: usize) -> Data {
        if !name.starts_with("log") {
            return Data { values: values(bytes), records: Vec::new() };
        }
        // Key, timestamps, marks and the frame's share take about 60 bytes.
        let series = (bytes.saturating_sub(60) / 8).max(1);
        let records = (0..KEYS).map(|i| record(i, family("metric", series, i as f64))).collect();
        Data { values: Vec::new(), records }
    }
}

/// Opens the store with that name in `directory`. `log:BYTES` is the log with that much reserved space.
pub fn open(name: &str, directory: &Path, data: Data) -> Result<Box<dyn Engine>, Failure> {
    let Data { values, records } = data;
    Ok(match name.split_once(':').unwrap_or((name, "")) {
        ("bare", _) => Box::new(Bare { file: File::create(directory.join("bare"))?, values, buffer: vec![] }),
        ("log", "") => Box::new(Relay::open(directory, records, DiskOptions::default())?),
        ("log", bytes) => Box::new(Relay::open(
            directory,
            records,
            DiskOptions { reserve_bytes: bytes.parse()?, ..DiskOptions::default() },
        )?),
        ("fjall", _) => Box::new(Fjall::open(directory, values)?),
        ("redb", _) => Box::new(Redb::open(directory, values)?),
        _ => return Err(format!("no engine is called {name}").into()),
    })
}

/// A key like a grouping key.
pub fn key(i: usize) -> String {
    format!("job=host-{i:05}")
}

/// A value for each key, with its key inside, not compressible.
pub fn values(bytes: usize) -> Vec<Vec<u8>> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    };
    let value = |i| key(i).bytes().chain(std::iter::repeat_with(&mut next)).take(bytes).collect();
    (0..KEYS).map(value).collect()
}

struct Bare {
    file: File,
    values: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Engine for Bare {
    fn commit(&mut self, keys: Range<usize>) -> Result<(), Failure> {
        self.buffer.clear();
        self.values[keys].iter().for_each(|value| self.buffer.extend_from_slice(value));
        self.file.write_all(&self.buffer)?;
        Ok(self.file.sync_data()?)
    }
}

/// pushrelay's log, given ready records: the measurement includes their encoding.
pub struct Relay {
    log: Log,
    records: Vec<Record>,
}

impl Relay {
    fn open(directory: &Path, records: Vec<Record>, options: DiskOptions) -> Result<Relay, Failure> {
        let disk = Arc::new(RealDisk::open(directory)?);
        let log = recover(disk, options, &mut |_| {})?.start(IDENTITY)?;
        Ok(Relay { log, records })
    }
}

impl Engine for Relay {
    fn commit(&mut self, keys: Range<usize>) -> Result<(), Failure> {
        self.log.commit(&self.records[keys])?;
        if self.log.wants_checkpoint() {
            let mut writer = self.log.rotate()?;
            let records = self.records.clone();
            std::thread::spawn(move || {
                let written = records.iter().try_for_each(|record| writer.write(record));
                written.and_then(|()| writer.finish()).expect("a checkpoint is written");
            });
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.log.close()?)
    }
}

/// A family with that many series.
pub fn family(name: &str, series: usize, value: f64) -> Family {
    let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
    for i in 0..series {
        builder.series(&[("instance", &format!("{i:06}"))], &ValueLayout::Single, &[value], None);
    }
    builder.finish().expect("series differ")
}

/// The record of a push of one family under key `i`.
pub fn record(i: usize, family: Family) -> Record {
    let time_ns = 1_700_000_000_000_000_000 + i as u64;
    let moment = PushTime { stamp: WriteTimestamp { time_ns, node: IDENTITY.node }, wall_ns: time_ns };
    let mark = FamilyMeta { revision: Revision(i as u64 + 1), origin: None, suppressed: false };
    Record::Group(GroupRecord {
        id: GroupId::local(LabelSet::new([("job", format!("host-{i:05}"))])),
        group: Group::post(moment, vec![family]),
        header: mark,
        families: FamilyMetas::Same(mark),
    })
}

struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
    values: Vec<Vec<u8>>,
}

/// As small as fjall's documentation allows.
pub fn open_fjall(directory: &Path) -> Result<(fjall::Database, fjall::Keyspace), fjall::Error> {
    #[expect(deprecated, reason = "the only bound on all memtables together")]
    let database = fjall::Database::builder(directory)
        .max_journaling_size(64 << 20)
        .max_write_buffer_size(Some(4 << 20))
        .cache_size(1 << 20)
        .worker_threads(1)
        .open()?;
    let keyspace =
        database.keyspace("groups", || fjall::KeyspaceCreateOptions::default().max_memtable_size(2 << 20))?;
    Ok((database, keyspace))
}

impl Fjall {
    fn open(directory: &Path, values: Vec<Vec<u8>>) -> Result<Fjall, Failure> {
        let (database, keyspace) = open_fjall(directory)?;
        Ok(Fjall { database, keyspace, values })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, keys: Range<usize>) -> Result<(), Failure> {
        let mut batch = self.database.batch().durability(Some(fjall::PersistMode::SyncData));
        for i in keys {
            batch.insert(&self.keyspace, key(i), &self.values[i][..]);
        }
        Ok(batch.commit()?)
    }
}

struct Redb {
    database: redb::Database,
    values: Vec<Vec<u8>>,
}

pub const TABLE: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("groups");

impl Redb {
    fn open(directory: &Path, values: Vec<Vec<u8>>) -> Result<Redb, Failure> {
        let database = redb::Builder::new().set_cache_size(2 << 20).create(directory.join("redb"))?;
        Ok(Redb { database, values })
    }
}

impl Engine for Redb {
    fn commit(&mut self, keys: Range<usize>) -> Result<(), Failure> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for i in keys {
                table.insert(key(i).as_str(), &self.values[i][..])?;
            }
        }
        Ok(transaction.commit()?)
    }
}
