//! Records as the payload of a frame.
//!
//! In the words of [`crate::model::bytes`], a payload is any number of entries, each a byte for its kind and a body; a
//! log's frame is one transaction, and one without entries says that the store was closed:
//!
//! ```text
//! 1 shape     = reference:fixed128 shape                       (shape: see model::encode)
//! 2 opened    = epoch:fixed64 revision:number
//! 3 group     = id flags:byte [horizon:stamp] [deleted:stamp] [pushed:moment] [failed:moment] header:mark
//!               families:number family{families}
//! 4 forgotten = id stamp
//! 5 cursor    = peer:fixed64 epoch:fixed64 revision:number
//! 6 end       =                                                (the last entry of a checkpoint)
//!
//! id     = place:labels key:labels
//! labels = labels:number (name:text value:text){labels}        (names ascending)
//! family = reference:fixed128 stamp mark values:number fixed float{values} originals:number original:block{originals}
//! moment = stamp difference:number                             (wall time less the stamp's, zigzag)
//! stamp  = 0 | 1 | 2 time:fixed64 node:fixed64 | 3 time:fixed64
//! mark   = flags:byte [revision:number [origin:fixed64]]
//! block  = length:number byte{length}
//! ```
//!
//! - `flags` of a group say which of the four follow: 1, 2, 4, 8.
//! - A stamp is 0: the zero stamp; 1: the same as the stamp before it in this entry; 2: in full; 3: by the node of the
//!   stamp before it. So families pushed together take a byte each.
//! - A mark's flags: 1 held; 2 revision and origin as in the mark before it in this entry; 4 an origin follows.
//! - A family names its shape by reference, and has as many values as the shape says, and an original a series or none. A reference means the shape most recently defined under it, and a shape is defined in a file before the
//!   file refers to it; a reader that lost the definition to damage may take the one of an earlier file. This writer
//!   uses the shape's digest, and defines again what it cannot compare, so that a collision does no harm.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::model::bytes::{Malformed, Reader, put_block, put_count, put_number, put_text};
use crate::model::{
    Digest, Epoch, Family, Group, GroupFamily, GroupId, LabelSet, Moment, NodeId, Originals, Position, Revision, Shape,
    Stamp, StoreId, decode_shape, encode_shape,
};
use crate::store::{Cursor, GroupRecord, Mark, Record};

const SHAPE: u8 = 1;
const OPENED: u8 = 2;
const GROUP: u8 = 3;
const FORGOTTEN: u8 = 4;
const CURSOR: u8 = 5;
const END: u8 = 6;

const HORIZON: u8 = 1;
const DELETED: u8 = 2;
const PUSHED: u8 = 4;
const FAILED: u8 = 8;

const STAMP_ZERO: u8 = 0;
const STAMP_SAME: u8 = 1;
const STAMP_FULL: u8 = 2;
const STAMP_NODE: u8 = 3;

const MARK_HELD: u8 = 1;
const MARK_SAME: u8 = 2;
const MARK_ORIGIN: u8 = 4;

/// The shapes that a file defines already.
#[derive(Debug, Default)]
pub(super) struct ShapesWritten {
    defined: HashMap<Digest, Weak<Shape>>,
    /// Defined since [`ShapesWritten::keep`].
    fresh: Vec<Digest>,
    sweep_at: usize,
}

impl ShapesWritten {
    const SWEEP_MIN: usize = 1024;

    /// What was encoded since the last call is in the file.
    pub(super) fn keep(&mut self) {
        self.fresh.clear();
        if self.defined.len() > self.sweep_at.max(Self::SWEEP_MIN) {
            self.defined.retain(|_, shape| shape.strong_count() > 0);
            self.sweep_at = 2 * self.defined.len();
        }
    }

    /// What was encoded since [`ShapesWritten::keep`] is not in the file.
    pub(super) fn forget(&mut self) {
        for digest in self.fresh.drain(..) {
            self.defined.remove(&digest);
        }
    }

    fn define(&mut self, shape: &Arc<Shape>, into: &mut Vec<u8>) {
        let known = self.defined.get(&shape.digest()).and_then(Weak::upgrade);
        if known.is_some_and(|known| known.same(shape)) {
            return;
        }
        into.push(SHAPE);
        into.extend_from_slice(&shape.digest().0.to_le_bytes());
        encode_shape(shape, into);
        self.defined.insert(shape.digest(), Arc::downgrade(shape));
        self.fresh.push(shape.digest());
    }
}

/// Appends a record, and before it the shapes that the file lacks.
pub(super) fn encode(record: &Record, shapes: &mut ShapesWritten, into: &mut Vec<u8>) {
    match record {
        Record::Opened { epoch, revision } => {
            into.push(OPENED);
            put_fixed64(epoch.0, into);
            put_number(revision.0, into);
        }
        Record::Group(record) => {
            for family in record.group.families() {
                shapes.define(family.family.shape(), into);
            }
            encode_group(record, into);
        }
        Record::Forgotten { id, stamp } => {
            into.push(FORGOTTEN);
            put_id(id, into);
            Writer::default().stamp(*stamp, into);
        }
        Record::Cursor { peer, cursor } => {
            into.push(CURSOR);
            put_fixed64(peer.0, into);
            put_fixed64(cursor.position.epoch.0, into);
            put_number(cursor.position.revision.0, into);
            put_labels(&cursor.place, into);
        }
    }
}

/// Appends the end of a checkpoint.
pub(super) fn encode_end(into: &mut Vec<u8>) {
    into.push(END);
}

fn encode_group(record: &GroupRecord, into: &mut Vec<u8>) {
    let group = &record.group;
    let mut writer = Writer::default();
    into.push(GROUP);
    put_id(&record.id, into);
    let stamps = [(group.horizon(), HORIZON), (group.deleted(), DELETED)];
    let moments = [(group.pushed(), PUSHED), (group.failed(), FAILED)];
    let stamped = stamps.iter().filter(|(stamp, _)| !stamp.is_zero()).map(|(_, flag)| flag);
    let flags = stamped.chain(moments.iter().filter(|(moment, _)| moment.is_some()).map(|(_, flag)| flag));
    into.push(flags.fold(0, |flags, flag| flags | flag));
    for (stamp, _) in stamps.into_iter().filter(|(stamp, _)| !stamp.is_zero()) {
        writer.stamp(stamp, into);
    }
    for moment in moments.into_iter().filter_map(|(moment, _)| moment) {
        writer.stamp(moment.stamp, into);
        let difference = moment.wall_ns.wrapping_sub(moment.stamp.time_ns) as i64;
        put_number(((difference << 1) ^ (difference >> 63)) as u64, into);
    }
    writer.mark(record.header, into);
    put_count(group.families().len(), into);
    for (i, family) in group.families().iter().enumerate() {
        let mark = record.families.get(i).copied().unwrap_or_default();
        writer.family(family, mark, into);
    }
}

fn put_fixed64(number: u64, into: &mut Vec<u8>) {
    into.extend_from_slice(&number.to_le_bytes());
}

fn put_id(id: &GroupId, into: &mut Vec<u8>) {
    put_labels(&id.place, into);
    put_labels(&id.key, into);
}

fn put_labels(labels: &LabelSet, into: &mut Vec<u8>) {
    put_count(labels.len(), into);
    for label in labels {
        put_text(&label.name, into);
        put_text(&label.value, into);
    }
}

/// Writes stamps and marks as what differs from the one before.
#[derive(Default)]
struct Writer {
    stamp: Stamp,
    mark: Mark,
}

impl Writer {
    fn stamp(&mut self, stamp: Stamp, into: &mut Vec<u8>) {
        if stamp.is_zero() {
            return into.push(STAMP_ZERO);
        }
        if stamp == self.stamp {
            return into.push(STAMP_SAME);
        }
        let same_node = stamp.node == self.stamp.node;
        into.push(if same_node { STAMP_NODE } else { STAMP_FULL });
        put_fixed64(stamp.time_ns, into);
        if !same_node {
            put_fixed64(stamp.node.0, into);
        }
        self.stamp = stamp;
    }

    fn mark(&mut self, mark: Mark, into: &mut Vec<u8>) {
        let held = if mark.held { MARK_HELD } else { 0 };
        if (mark.revision, mark.origin) == (self.mark.revision, self.mark.origin) {
            return into.push(held | MARK_SAME);
        }
        into.push(held | if mark.origin.is_some() { MARK_ORIGIN } else { 0 });
        put_number(mark.revision.0, into);
        if let Some(origin) = mark.origin {
            put_fixed64(origin.0, into);
        }
        self.mark = mark;
    }

    fn family(&mut self, group_family: &GroupFamily, mark: Mark, into: &mut Vec<u8>) {
        let family = &group_family.family;
        into.extend_from_slice(&family.shape().digest().0.to_le_bytes());
        self.stamp(group_family.stamp, into);
        self.mark(mark, into);
        put_count(family.values().len(), into);
        into.reserve(8 * family.values().len());
        for value in family.values().iter() {
            into.extend_from_slice(&value.to_le_bytes());
        }
        put_count(family.originals().map_or(0, |originals| originals.len()), into);
        for original in family.originals().iter().flat_map(|originals| originals.iter()) {
            put_block(original, into);
        }
    }
}

/// The shapes that files read so far define. Holds each once.
#[derive(Debug, Default)]
pub(super) struct ShapesRead(HashMap<u128, Arc<Shape>>);

impl ShapesRead {
    fn define(&mut self, reference: u128, shape: Shape) {
        let known = self.0.get(&reference).is_some_and(|known| known.same(&shape));
        if !known {
            self.0.insert(reference, Arc::new(shape));
        }
    }
}

/// What a payload holds.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub records: Vec<Record>,
    /// Families left out because the definition of their shape is lost.
    pub families_lost: u64,
    /// Whether a checkpoint ends here.
    pub end: bool,
}

/// The records of a payload: all, or an error.
pub(super) fn decode(payload: &[u8], shapes: &mut ShapesRead) -> Result<Decoded, Malformed> {
    let mut reader = Reader::new(payload);
    let mut decoded = Decoded::default();
    while reader.remaining() > 0 {
        let record = match reader.byte("the kind of an entry")? {
            SHAPE => {
                read_definition(&mut reader, shapes)?;
                continue;
            }
            OPENED => Record::Opened { epoch: read_epoch(&mut reader)?, revision: read_revision(&mut reader)? },
            GROUP => Record::Group(read_group(&mut reader, shapes, &mut decoded.families_lost)?),
            FORGOTTEN => Record::Forgotten { id: read_id(&mut reader)?, stamp: Memory::default().stamp(&mut reader)? },
            CURSOR => {
                let peer = StoreId(reader.fixed64("a peer")?);
                let position = Position { epoch: read_epoch(&mut reader)?, revision: read_revision(&mut reader)? };
                let place = Arc::new(read_labels(&mut reader)?);
                Record::Cursor { peer, cursor: Cursor { position, place } }
            }
            END => {
                decoded.end = true;
                continue;
            }
            _ => return Err(Malformed::Invalid("the kind of an entry")),
        };
        decoded.records.push(record);
    }
    Ok(decoded)
}

fn read_definition(reader: &mut Reader<'_>, shapes: &mut ShapesRead) -> Result<(), Malformed> {
    let reference = read_reference(reader)?;
    let (shape, taken) = decode_shape(reader.rest())?;
    reader.take(taken, "a shape")?;
    shapes.define(reference, shape);
    Ok(())
}

fn read_reference(reader: &mut Reader<'_>) -> Result<u128, Malformed> {
    const REFERENCE: &str = "the reference to a shape";
    let (low, high) = (reader.fixed64(REFERENCE)?, reader.fixed64(REFERENCE)?);
    Ok(u128::from(high) << 64 | u128::from(low))
}

fn read_epoch(reader: &mut Reader<'_>) -> Result<Epoch, Malformed> {
    reader.fixed64("an epoch").map(Epoch)
}

fn read_revision(reader: &mut Reader<'_>) -> Result<Revision, Malformed> {
    reader.number("a revision").map(Revision)
}

fn read_id(reader: &mut Reader<'_>) -> Result<GroupId, Malformed> {
    let (place, key) = (read_labels(reader)?, read_labels(reader)?);
    Ok(GroupId { place: Arc::new(place), key: Arc::new(key) })
}

fn read_labels(reader: &mut Reader<'_>) -> Result<LabelSet, Malformed> {
    const LABELS: &str = "the labels of a group";
    let count = reader.count(2, LABELS)?;
    let labels: Vec<(&str, &str)> =
        (0..count).map(|_| Ok((reader.text(LABELS)?, reader.text(LABELS)?))).collect::<Result<_, _>>()?;
    if !labels.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(Malformed::Invalid(LABELS));
    }
    Ok(LabelSet::new(labels))
}

fn read_group(reader: &mut Reader<'_>, shapes: &ShapesRead, lost: &mut u64) -> Result<GroupRecord, Malformed> {
    const GROUP: &str = "a group";
    let id = read_id(reader)?;
    let mut memory = Memory::default();
    let flags = reader.byte(GROUP)?;
    if flags & !(HORIZON | DELETED | PUSHED | FAILED) != 0 {
        return Err(Malformed::Invalid(GROUP));
    }
    let horizon = if flags & HORIZON != 0 { memory.stamp(reader)? } else { Stamp::ZERO };
    let deleted = if flags & DELETED != 0 { memory.stamp(reader)? } else { Stamp::ZERO };
    let pushed = if flags & PUSHED != 0 { Some(memory.moment(reader)?) } else { None };
    let failed = if flags & FAILED != 0 { Some(memory.moment(reader)?) } else { None };
    let header = memory.mark(reader)?;
    const FAMILY_BYTES_MIN: usize = 20;
    let count = reader.count(FAMILY_BYTES_MIN, "the families of a group")?;
    let (mut families, mut marks) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        match memory.family(reader, shapes)? {
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
    let group = Group::from_parts(families, horizon, deleted, pushed, failed);
    if group.families().len() != marks.len() {
        return Err(Malformed::Invalid("a family under the group's horizon"));
    }
    Ok(GroupRecord { id, group, header, families: marks })
}

/// Reads what [`Writer`] wrote.
#[derive(Default)]
struct Memory {
    stamp: Stamp,
    mark: Mark,
}

impl Memory {
    fn stamp(&mut self, reader: &mut Reader<'_>) -> Result<Stamp, Malformed> {
        const STAMP: &str = "a stamp";
        let tag = reader.byte(STAMP)?;
        match tag {
            STAMP_ZERO => return Ok(Stamp::ZERO),
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

    fn moment(&mut self, reader: &mut Reader<'_>) -> Result<Moment, Malformed> {
        let stamp = self.stamp(reader)?;
        let zigzag = reader.number("a wall time")?;
        let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        Ok(Moment { stamp, wall_ns: stamp.time_ns.wrapping_add(difference) })
    }

    fn mark(&mut self, reader: &mut Reader<'_>) -> Result<Mark, Malformed> {
        const MARK: &str = "a mark";
        let flags = reader.byte(MARK)?;
        match flags & !MARK_HELD {
            MARK_SAME => {}
            0 => (self.mark.revision, self.mark.origin) = (read_revision(reader)?, None),
            MARK_ORIGIN => {
                self.mark.revision = read_revision(reader)?;
                self.mark.origin = Some(StoreId(reader.fixed64(MARK)?));
            }
            _ => return Err(Malformed::Invalid(MARK)),
        }
        Ok(Mark { held: flags & MARK_HELD != 0, ..self.mark })
    }

    /// A family; `None` if its shape is not known.
    fn family(
        &mut self,
        reader: &mut Reader<'_>,
        shapes: &ShapesRead,
    ) -> Result<Option<(GroupFamily, Mark)>, Malformed> {
        const FAMILY: &str = "a family";
        let reference = read_reference(reader)?;
        let stamp = self.stamp(reader)?;
        let mark = self.mark(reader)?;
        let count = reader.count(size_of::<f64>(), FAMILY)?;
        let floats = reader.take(count * size_of::<f64>(), FAMILY)?.as_chunks().0;
        let values: Arc<[f64]> = floats.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        let originals = read_originals(reader)?;
        let Some(shape) = shapes.0.get(&reference) else { return Ok(None) };
        let family = Family::new(shape.clone(), values, originals).ok_or(Malformed::Invalid(FAMILY))?;
        Ok(Some((GroupFamily { stamp, family }, mark)))
    }
}

fn read_originals(reader: &mut Reader<'_>) -> Result<Option<Arc<Originals>>, Malformed> {
    const ORIGINALS: &str = "the originals of a family";
    let count = reader.count(1, ORIGINALS)?;
    if count == 0 {
        return Ok(None);
    }
    let originals: Originals = (0..count).map(|_| reader.block(ORIGINALS).map(Into::into)).collect::<Result<_, _>>()?;
    Ok(Some(Arc::new(originals)))
}
