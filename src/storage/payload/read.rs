//! Payloads to records.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::bytes::ByteReader;
use crate::model::{
    Contributor, Epoch, Family, Group, GroupFamily, GroupHeader, GroupId, LabelSet, Lifetime, Malformed, NodeId,
    Position, PushTime, RawMetrics, Revision, Schema, StoreId, Values, WriteTimestamp, decode_schema,
};
use crate::store::{FamilyMeta, GroupRecord, PeerCursor, Record};

use super::*;

/// The schemas that the files read so far define, each once.
#[derive(Clone, Debug, Default)]
pub(in crate::storage) struct SchemasRead(HashMap<u128, Arc<Schema>>);

impl SchemasRead {
    fn define(&mut self, reference: u128, schema: Schema) {
        let known = self.0.get(&reference).is_some_and(|known| known.same(&schema));
        if !known {
            self.0.insert(reference, Arc::new(schema));
        }
    }
}

/// The result of reading a payload.
#[derive(Debug, Default)]
pub(in crate::storage) struct Decoded {
    /// Number of records passed on.
    pub records: u64,
    /// Families skipped because the definition of their schema is lost.
    pub families_lost: u64,
    /// Whether the payload has the end mark of a checkpoint.
    pub end: bool,
}

/// Maximum number of records in memory until the whole payload is known to be valid: a record of a few bytes takes
/// hundreds in memory. No writer puts more into a frame; records beyond are read twice.
const ENTRIES_MAX: usize = 16 << 10;

/// Passes on the records of a payload, all or none.
///
/// # Errors
/// If the payload is malformed.
pub(in crate::storage) fn decode(
    payload: &[u8],
    schemas: &mut SchemasRead,
    each: &mut dyn FnMut(Record),
) -> Result<Decoded, Malformed> {
    let (mut reader, mut decoded, mut entries) = (ByteReader::new(payload), Decoded::default(), Vec::new());
    while reader.remaining() > 0 && entries.len() < ENTRIES_MAX {
        entries.extend(read_entry(&mut reader, schemas, &mut decoded)?);
    }
    if reader.remaining() > 0 {
        let (mut ahead, mut schemas, mut ignored) = (reader, schemas.clone(), Decoded::default());
        while ahead.remaining() > 0 {
            read_entry(&mut ahead, &mut schemas, &mut ignored)?;
        }
    }
    entries.into_iter().for_each(&mut *each);
    while reader.remaining() > 0 {
        read_entry(&mut reader, schemas, &mut decoded)?.into_iter().for_each(&mut *each);
    }
    Ok(decoded)
}

/// Reads an entry and returns its record, if it has one; definitions and marks go to `schemas` and `decoded`.
fn read_entry(
    reader: &mut ByteReader<'_>,
    schemas: &mut SchemasRead,
    decoded: &mut Decoded,
) -> Result<Option<Record>, Malformed> {
    let record = match reader.byte("the kind of an entry")? {
        SCHEMA => {
            read_definition(reader, schemas)?;
            return Ok(None);
        }
        END => {
            decoded.end = true;
            return Ok(None);
        }
        OPENED => Record::Opened { epoch: read_epoch(reader)?, revision: read_revision(reader)? },
        GROUP => of_group(read_group(reader, schemas, &mut decoded.families_lost)?),
        FORGOTTEN => {
            let (id, stamp) = (read_id(reader)?, EntryReader::default().stamp(reader)?);
            Record::Forgotten { id, stamp, revision: read_revision(reader)? }
        }
        CURSOR => {
            let peer = StoreId(reader.fixed64("a peer")?);
            // A peer's revision may be the last number, since this store counts nothing on from it.
            let (epoch, revision) = (read_epoch(reader)?, Revision(reader.number("a revision")?));
            let site = Arc::new(read_labels(reader)?);
            Record::Cursor { peer, cursor: PeerCursor { position: Position { epoch, revision }, site } }
        }
        _ => return Err(Malformed::Invalid("the kind of an entry")),
    };
    decoded.records += 1;
    Ok(Some(record))
}

fn read_definition(reader: &mut ByteReader<'_>, schemas: &mut SchemasRead) -> Result<(), Malformed> {
    let reference = read_reference(reader)?;
    let (schema, taken) = decode_schema(reader.rest())?;
    reader.take(taken, "a schema")?;
    schemas.define(reference, schema);
    Ok(())
}

fn read_reference(reader: &mut ByteReader<'_>) -> Result<u128, Malformed> {
    const REFERENCE: &str = "the reference to a schema";
    let (low, high) = (reader.fixed64(REFERENCE)?, reader.fixed64(REFERENCE)?);
    Ok(u128::from(high) << 64 | u128::from(low))
}

fn read_epoch(reader: &mut ByteReader<'_>) -> Result<Epoch, Malformed> {
    reader.fixed64("an epoch").map(Epoch)
}

/// A revision of this store. It is not the last number, since another one follows it.
fn read_revision(reader: &mut ByteReader<'_>) -> Result<Revision, Malformed> {
    const REVISION: &str = "a revision";
    match reader.number(REVISION)? {
        u64::MAX => Err(Malformed::TooLarge(REVISION)),
        number => Ok(Revision(number)),
    }
}

fn read_id(reader: &mut ByteReader<'_>) -> Result<GroupId, Malformed> {
    let (site, key) = (read_labels(reader)?, read_labels(reader)?);
    Ok(GroupId { site: Arc::new(site), key: Arc::new(key) })
}

fn read_labels(reader: &mut ByteReader<'_>) -> Result<LabelSet, Malformed> {
    const LABELS: &str = "the labels of a group";
    let count = reader.count(2, LABELS)?;
    let mut labels: Vec<(&str, &str)> = Vec::new();
    for _ in 0..count {
        let label = (reader.text(LABELS)?, reader.text(LABELS)?);
        // Checked at once: ascending names grow longer, so that the memory used is not many times the bytes read.
        if labels.last().is_some_and(|before| before.0 >= label.0) {
            return Err(Malformed::Invalid(LABELS));
        }
        labels.push(label);
    }
    Ok(LabelSet::new(labels))
}

fn read_group(reader: &mut ByteReader<'_>, schemas: &SchemasRead, lost: &mut u64) -> Result<GroupRecord, Malformed> {
    const GROUP: &str = "a group";
    let id = read_id(reader)?;
    let mut memory = EntryReader::default();
    let flags = reader.byte(GROUP)?;
    if flags & !(CLEARED_AT | DELETED | PUSHED | FAILED | LIFETIME | EXPIRED_HOUR) != 0 {
        return Err(Malformed::Invalid(GROUP));
    }
    let cleared_at = if flags & CLEARED_AT != 0 { memory.stamp(reader)? } else { WriteTimestamp::ZERO };
    let deleted = if flags & DELETED != 0 { memory.stamp(reader)? } else { WriteTimestamp::ZERO };
    let pushed = if flags & PUSHED != 0 { Some(memory.moment(reader)?) } else { None };
    let failed = if flags & FAILED != 0 { Some(memory.moment(reader)?) } else { None };
    let lifetime = if flags & LIFETIME != 0 { Some(read_lifetime(reader)?) } else { None };
    let expired_hour = if flags & EXPIRED_HOUR != 0 { reader.number(GROUP)? } else { 0 };
    let expired_hour = u32::try_from(expired_hour).map_err(|_| Malformed::TooLarge(GROUP))?;
    let header = memory.mark(reader)?;
    const FAMILY_BYTES_MIN: usize = 20;
    let count = reader.count(FAMILY_BYTES_MIN, "the families of a group")?;
    let (mut families, mut marks) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        match memory.family(reader, schemas)? {
            Some((family, mark)) => {
                families.push(family);
                marks.push(mark);
            }
            None => *lost += 1,
        }
    }
    if !families.is_sorted_by(|a, b| a.family.name() < b.family.name()) {
        return Err(Malformed::Invalid("the order of families"));
    }
    let header_fields = GroupHeader { cleared_at, deleted, pushed, failed, lifetime, expired_hour };
    let group = Group::from_parts(families, header_fields);
    if group.families().len() != marks.len() {
        return Err(Malformed::Invalid("a family under the group's clear timestamp"));
    }
    Ok(GroupRecord { id, group, header, families: marks.into_iter().collect() })
}

fn read_lifetime(reader: &mut ByteReader<'_>) -> Result<Lifetime, Malformed> {
    const LIFETIME: &str = "the lifetime of a group";
    Lifetime::of_number(reader.number(LIFETIME)?).ok_or(Malformed::TooLarge(LIFETIME))
}

/// The record of a group: contributions and idempotency keys are groups with a label of their own.
fn of_group(record: GroupRecord) -> Record {
    if let Some((key, contributor)) = Contributor::split(&record.id.key) {
        let id = GroupId { key: Arc::new(key), ..record.id };
        let group = record.group.contributed(&Arc::new(contributor));
        return Record::Group(GroupRecord { id, group, header: FamilyMeta::default(), families: record.families });
    }
    read_key(&record).map_or_else(|| Record::Group(record), Record::Key)
}

/// Decodes timestamps and marks that [`EntryWriter`] encoded relative to the ones before.
#[derive(Default)]
struct EntryReader {
    stamp: WriteTimestamp,
    mark: FamilyMeta,
}

impl EntryReader {
    fn stamp(&mut self, reader: &mut ByteReader<'_>) -> Result<WriteTimestamp, Malformed> {
        const STAMP: &str = "a stamp";
        let tag = reader.byte(STAMP)?;
        match tag {
            STAMP_ZERO => return Ok(WriteTimestamp::ZERO),
            STAMP_SAME => return Ok(self.stamp),
            STAMP_FULL | STAMP_NODE => {}
            _ => return Err(Malformed::Invalid(STAMP)),
        }
        self.stamp.time_ns = reader.fixed64(STAMP)?;
        if tag == STAMP_FULL {
            self.stamp.node = NodeId(reader.fixed64(STAMP)?);
        }
        Ok(self.stamp)
    }

    fn moment(&mut self, reader: &mut ByteReader<'_>) -> Result<PushTime, Malformed> {
        let stamp = self.stamp(reader)?;
        let zigzag = reader.number("a wall time")?;
        let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        Ok(PushTime { stamp, wall_ns: stamp.time_ns.wrapping_add(difference) })
    }

    fn mark(&mut self, reader: &mut ByteReader<'_>) -> Result<FamilyMeta, Malformed> {
        const MARK: &str = "a mark";
        let flags = reader.byte(MARK)?;
        match flags & !MARK_SUPPRESSED {
            MARK_SAME => {}
            0 => (self.mark.revision, self.mark.origin) = (read_revision(reader)?, None),
            MARK_ORIGIN => {
                self.mark.revision = read_revision(reader)?;
                self.mark.origin = Some(StoreId(reader.fixed64(MARK)?));
            }
            _ => return Err(Malformed::Invalid(MARK)),
        }
        Ok(FamilyMeta { suppressed: flags & MARK_SUPPRESSED != 0, ..self.mark })
    }

    /// A family; `None` if its schema is unknown.
    fn family(
        &mut self,
        reader: &mut ByteReader<'_>,
        schemas: &SchemasRead,
    ) -> Result<Option<(GroupFamily, FamilyMeta)>, Malformed> {
        const FAMILY: &str = "a family";
        let reference = read_reference(reader)?;
        let stamp = self.stamp(reader)?;
        let mark = self.mark(reader)?;
        let count = reader.count(size_of::<f64>(), FAMILY)?;
        let floats = reader.take(count * size_of::<f64>(), FAMILY)?.as_chunks().0;
        let values: Values = floats.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        let schema = schemas.0.get(&reference);
        let raw_metrics = read_raw_metrics(reader, schema)?;
        let Some(schema) = schema else { return Ok(None) };
        let family = Family::new(schema.clone(), values, raw_metrics).ok_or(Malformed::Invalid(FAMILY))?;
        Ok(Some((GroupFamily::plain(stamp, family), mark)))
    }
}

/// No raw metrics, or one for each series. Those of an unknown schema are skipped.
fn read_raw_metrics(
    reader: &mut ByteReader<'_>,
    schema: Option<&Arc<Schema>>,
) -> Result<Option<Arc<RawMetrics>>, Malformed> {
    const RAW_METRICS: &str = "the raw metrics of a family";
    let count = reader.count(1, RAW_METRICS)?;
    let Some(schema) = schema.filter(|_| count > 0) else {
        (0..count).try_for_each(|_| reader.block(RAW_METRICS).map(drop))?;
        return Ok(None);
    };
    if count != schema.series_len() {
        return Err(Malformed::Invalid(RAW_METRICS));
    }
    let raw_metrics: RawMetrics =
        (0..count).map(|_| reader.block(RAW_METRICS).map(Into::into)).collect::<Result<_, _>>()?;
    Ok(Some(Arc::new(raw_metrics)))
}
