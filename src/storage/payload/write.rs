//! Records to payloads.

use std::sync::{Arc, Weak};

use foldhash::HashMap;

use crate::model::bytes::{put_block, put_count, put_number, put_text};
use crate::model::{Digest, GroupFamily, GroupHeader, GroupId, LabelSet, Schema, WriteTimestamp, encode_schema};
use crate::store::{FamilyMeta, GroupRecord, Record};

use super::*;

/// The schemas that a file already defines, and how often. A damaged frame should cost only its own records, so a
/// schema is defined again in the second, fourth, eighth, … frame that needs it. Then every use but the first has
/// definitions in more than one frame before it, and damage to some consecutive frames leaves another.
#[derive(Debug, Default)]
pub(in crate::storage) struct SchemasWritten {
    defined: HashMap<Digest, Defined>,
    /// Schemas defined since the last [`SchemasWritten::keep`].
    fresh: Vec<Digest>,
    /// Number of frames so far.
    frame: u64,
    sweep_at: usize,
}

#[derive(Debug)]
struct Defined {
    schema: Weak<Schema>,
    /// The last frame that needed the schema.
    frame: u64,
    /// Number of frames that needed it.
    frames: u32,
}

impl SchemasWritten {
    const SWEEP_MIN: usize = 1024;

    /// Everything encoded since the last call is in the file.
    pub(in crate::storage) fn keep(&mut self) {
        self.fresh.clear();
        self.frame += 1;
        if self.defined.len() > self.sweep_at.max(Self::SWEEP_MIN) {
            self.defined.retain(|_, defined| defined.schema.strong_count() > 0);
            self.sweep_at = 2 * self.defined.len();
        }
    }

    /// Nothing encoded since [`SchemasWritten::keep`] is in the file.
    pub(in crate::storage) fn forget(&mut self) {
        for digest in self.fresh.drain(..) {
            self.defined.remove(&digest);
        }
    }

    fn define(&mut self, schema: &Arc<Schema>, into: &mut Vec<u8>) {
        // Usually it is the same allocation, which the pointer shows without a change of the reference count.
        let is_it = |known: &Weak<Schema>| {
            std::ptr::eq(known.as_ptr(), &**schema) || known.upgrade().is_some_and(|known| known.same(schema))
        };
        let frame = self.frame;
        let mut frames = 1;
        if let Some(defined) = self.defined.get_mut(&schema.digest()).filter(|defined| is_it(&defined.schema)) {
            if defined.frame == frame {
                return;
            }
            frames = defined.frames.saturating_add(1);
            (defined.frame, defined.frames) = (frame, frames);
            if !frames.is_power_of_two() {
                return;
            }
        }
        into.push(SCHEMA);
        into.extend_from_slice(&schema.digest().0.to_le_bytes());
        encode_schema(schema, into);
        self.defined.insert(schema.digest(), Defined { schema: Arc::downgrade(schema), frame, frames });
        self.fresh.push(schema.digest());
    }
}

/// Appends a record, preceded by the schemas that the file lacks.
pub(in crate::storage) fn encode(record: &Record, schemas: &mut SchemasWritten, into: &mut Vec<u8>) {
    match record {
        Record::Opened { epoch, revision } => {
            into.push(OPENED);
            put_fixed64(epoch.0, into);
            put_number(revision.0, into);
        }
        Record::Group(record) => {
            for family in record.group.families() {
                schemas.define(family.family.schema(), into);
            }
            encode_group(record, into);
        }
        Record::Forgotten { id, stamp, revision } => {
            into.push(FORGOTTEN);
            put_id(id, into);
            EntryWriter::default().stamp(*stamp, into);
            put_number(revision.0, into);
        }
        Record::Cursor { peer, cursor } => {
            into.push(CURSOR);
            put_fixed64(peer.0, into);
            put_fixed64(cursor.position.epoch.0, into);
            put_number(cursor.position.revision.0, into);
            put_labels(&cursor.site, into);
        }
        Record::Key(key) => {
            let (header, mark) = (key_header(key), FamilyMeta { revision: key.revision, ..FamilyMeta::default() });
            encode_part(&LabelSet::default(), &key_labels(key), &header, mark, &[], into);
        }
    }
}

/// Whether the record has something that readers of format 1 do not know: a lifetime or an expiry.
pub(in crate::storage) fn needs_format_2(record: &Record) -> bool {
    let Record::Group(record) = record else { return false };
    let header = record.group.header();
    header.lifetime.is_some() || header.expired_hour > 0
}

/// Appends the end mark of a checkpoint.
pub(in crate::storage) fn encode_end(into: &mut Vec<u8>) {
    into.push(END);
}

/// A group, and after it the contributions of each contributor as a group of their own.
fn encode_group(record: &GroupRecord, into: &mut Vec<u8>) {
    let (id, group) = (&record.id, &record.group);
    let families = || group.families().iter().enumerate().map(|(at, family)| (family, record.families.get(at)));
    let plain: Vec<_> = families().filter(|(family, _)| family.contributor.is_none()).collect();
    encode_part(&id.site, &id.key, group.header(), record.header, &plain, into);
    if plain.len() == group.families().len() {
        return;
    }
    for contributor in group.contributors() {
        let own: Vec<_> = families().filter(|(family, _)| family.contributor.as_ref() == Some(&contributor)).collect();
        let key = contributor.join(&id.key);
        encode_part(&id.site, &key, &GroupHeader::default(), FamilyMeta::default(), &own, into);
    }
}

fn encode_part(
    site: &LabelSet,
    key: &LabelSet,
    header: &GroupHeader,
    header_mark: FamilyMeta,
    families: &[(&GroupFamily, FamilyMeta)],
    into: &mut Vec<u8>,
) {
    let mut writer = EntryWriter::default();
    into.push(GROUP);
    put_labels(site, into);
    put_labels(key, into);
    let stamps = [(header.cleared_at, CLEARED_AT), (header.deleted, DELETED)];
    let moments = [(header.pushed, PUSHED), (header.failed, FAILED)];
    let stamped = stamps.iter().filter(|(stamp, _)| !stamp.is_zero()).map(|(_, flag)| flag);
    let flags = stamped.chain(moments.iter().filter(|(moment, _)| moment.is_some()).map(|(_, flag)| flag));
    let (lifetime, expired_hour) = (header.lifetime, header.expired_hour);
    let lives = lifetime.map_or(0, |_| LIFETIME) | if expired_hour > 0 { EXPIRED_HOUR } else { 0 };
    into.push(flags.fold(lives, |flags, flag| flags | flag));
    for (stamp, _) in stamps.into_iter().filter(|(stamp, _)| !stamp.is_zero()) {
        writer.stamp(stamp, into);
    }
    for moment in moments.into_iter().filter_map(|(moment, _)| moment) {
        writer.stamp(moment.stamp, into);
        let difference = moment.wall_ns.wrapping_sub(moment.stamp.time_ns) as i64;
        put_number(((difference << 1) ^ (difference >> 63)) as u64, into);
    }
    lifetime.into_iter().for_each(|lifetime| put_number(lifetime.number(), into));
    if expired_hour > 0 {
        put_number(expired_hour.into(), into);
    }
    writer.mark(header_mark, into);
    put_count(families.len(), into);
    for (family, mark) in families {
        writer.family(family, *mark, into);
    }
}

fn put_fixed64(number: u64, into: &mut Vec<u8>) {
    into.extend_from_slice(&number.to_le_bytes());
}

fn put_id(id: &GroupId, into: &mut Vec<u8>) {
    put_labels(&id.site, into);
    put_labels(&id.key, into);
}

fn put_labels(labels: &LabelSet, into: &mut Vec<u8>) {
    put_count(labels.len(), into);
    for label in labels {
        put_text(label.name, into);
        put_text(label.value, into);
    }
}

/// Encodes timestamps and marks relative to the ones before.
#[derive(Default)]
struct EntryWriter {
    stamp: WriteTimestamp,
    mark: FamilyMeta,
}

impl EntryWriter {
    fn stamp(&mut self, stamp: WriteTimestamp, into: &mut Vec<u8>) {
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

    fn mark(&mut self, mark: FamilyMeta, into: &mut Vec<u8>) {
        let flag = if mark.suppressed { MARK_SUPPRESSED } else { 0 };
        if (mark.revision, mark.origin) == (self.mark.revision, self.mark.origin) {
            return into.push(flag | MARK_SAME);
        }
        into.push(flag | if mark.origin.is_some() { MARK_ORIGIN } else { 0 });
        put_number(mark.revision.0, into);
        if let Some(origin) = mark.origin {
            put_fixed64(origin.0, into);
        }
        self.mark = mark;
    }

    fn family(&mut self, group_family: &GroupFamily, mark: FamilyMeta, into: &mut Vec<u8>) {
        let family = &group_family.family;
        into.extend_from_slice(&family.schema().digest().0.to_le_bytes());
        self.stamp(group_family.stamp, into);
        self.mark(mark, into);
        put_count(family.values().len(), into);
        into.reserve(8 * family.values().len());
        for value in family.values().iter() {
            into.extend_from_slice(&value.to_le_bytes());
        }
        put_count(family.raw_metrics().map_or(0, |raw_metrics| raw_metrics.len()), into);
        for raw_metric in family.raw_metrics().iter().flat_map(|raw_metrics| raw_metrics.iter()) {
            put_block(raw_metric, into);
        }
    }
}
