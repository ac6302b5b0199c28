//! Messages to bytes, for one direction of one connection.

use std::cmp::Ordering;
use std::sync::Arc;

use foldhash::HashMap;

use crate::model::bytes::{put_count, put_number, put_text};
use crate::model::{
    Digest, Family, GroupFamily, GroupHeader, LabelSet, Lifetime, NodeId, PushTime, Schema, WriteTimestamp,
    encode_schema,
};

use super::delta::Delta;
use super::dictionary::{Dictionary, FamilyChange, Forgotten, Sent};
use super::layout::{
    CLEARED_AT, COARSE_NS, DELETED, EXPIRED_HOUR, FAILED, FRESH, LIFETIME, LISTED, NEW_RAW_METRICS, NO_RAW_METRICS,
    PUSHED, SAME_RAW_METRICS, SPREAD,
};
use super::message::{Message, Update};
use super::protobuf::{self, Columns};
use super::values::{ValueWriter, put_signed};

/// Encodes the messages of one direction of one connection, in the order in which they are sent.
#[derive(Debug, Default)]
pub struct Encoder {
    dictionary: Dictionary,
    schemas: HashMap<Digest, usize>,
    groups: HashMap<Arc<LabelSet>, usize>,
    nodes: HashMap<NodeId, usize>,
}

impl Encoder {
    /// The encoder of a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message. The session that made the message is responsible for its bounds.
    pub fn encode(&mut self, message: &Message, into: &mut Vec<u8>) {
        match message {
            Message::Update(update) => {
                let columns = self.update(update);
                protobuf::encode_update(update, columns, into);
            }
            other => protobuf::encode_plain(other, into),
        }
    }

    #[cfg(test)]
    pub(super) fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    fn update(&mut self, update: &Update) -> Columns {
        let mut writer = UpdateWriter::default();
        if self.dictionary.is_full() {
            *self = Self::default();
            writer.columns.reset = true;
        }
        for delta in &update.deltas {
            self.delta(delta, &mut writer);
        }
        let values = writer.values.finish();
        Columns { runs: values.runs, deltas: values.deltas, raws: values.raws, ..writer.columns }
    }

    fn delta(&mut self, delta: &Delta, writer: &mut UpdateWriter) {
        let number = self.group(&delta.id.key, writer);
        let Some(known) = self.dictionary.groups.get(number) else { return };
        let group = &delta.group;
        let header = *group.header();
        let base = if explains(&known.header, &header) { known.header } else { GroupHeader::default() };
        let positions = positions(&known.families, group.families());
        let listed = positions.len() != known.families.len()
            || !std::iter::zip(&positions, group.families()).enumerate().all(|(i, (at, new))| {
                *at == Some(i) && {
                    let old = &known.families[i].family;
                    same_schema(old, &new.family) && old.raw_metrics() == new.family.raw_metrics()
                }
            });
        let changed = changed_fields(&base, &header);
        let latest = stamps(changed, &header, group.families()).max();
        let spread = stamps(changed, &header, group.families()).any(|stamp| Some(stamp) != latest);
        let flag = |set, flag| if set { flag } else { 0 };
        let fresh = base != known.header;
        let flags = changed | flag(listed, LISTED) | flag(spread, SPREAD) | flag(fresh, FRESH);
        writer.columns.structure.push(flags);
        let changes = self.families(number, &positions, group.families(), listed, writer);
        if let Some(latest) = latest {
            self.stamps(changed, &header, group.families(), latest, spread, writer);
        }
        writer.lifetime(changed, &base, &header);
        let forgotten = self.dictionary.apply(number, header, changes);
        self.forget(forgotten);
    }

    /// Writes the group's number, as the distance from one more than the number of the group before; a new group's key
    /// follows.
    fn group(&mut self, key: &Arc<LabelSet>, writer: &mut UpdateWriter) -> usize {
        let number = match self.groups.get(key) {
            Some(number) => *number,
            None => {
                let from = writer.columns.keys.len();
                put_key(key, &mut writer.columns.keys);
                let number = self.dictionary.add_group(key.clone(), writer.columns.keys.len() - from);
                self.groups.insert(key.clone(), number);
                number
            }
        };
        put_signed(number as i64 - writer.group as i64, &mut writer.columns.structure);
        writer.group = number + 1;
        number
    }

    fn families(
        &mut self,
        group: usize,
        positions: &[Option<usize>],
        families: &[GroupFamily],
        listed: bool,
        writer: &mut UpdateWriter,
    ) -> Vec<FamilyChange> {
        if listed {
            put_count(families.len(), &mut writer.columns.structure);
        }
        let mut next = 0;
        let mut changes = Vec::with_capacity(families.len());
        for (at, GroupFamily { stamp, family, .. }) in std::iter::zip(positions, families) {
            let same = self.sent(group, *at).filter(|old| same_schema(&old.family, family)).map(|old| old.schema);
            let schema = same.unwrap_or_else(|| self.schema(family.schema(), &mut writer.columns.schemas));
            let same = self.sent(group, *at).filter(|_| same.is_some());
            if listed {
                let structure = &mut writer.columns.structure;
                put_count(at.map_or(0, |at| at + 1 - next), structure);
                put_count(if same.is_some() { 0 } else { schema + usize::from(at.is_some()) }, structure);
                put_raw_metrics(same.map(|old| &old.family), family, &mut writer.columns);
            }
            writer.values.write(same.map(|old| &old.family.values()[..]), family.values());
            next = at.map_or(next, |at| at + 1);
            changes.push(FamilyChange { at: *at, sent: Sent { schema, stamp: *stamp, family: family.clone() } });
        }
        changes
    }

    /// The family of a group that was last sent at that position.
    fn sent(&self, group: usize, at: Option<usize>) -> Option<&Sent> {
        self.dictionary.groups.get(group)?.families.get(at?)
    }

    /// The number of a schema; a new schema is written out.
    fn schema(&mut self, schema: &Arc<Schema>, into: &mut Vec<u8>) -> usize {
        if let Some(number) = self.schemas.get(&schema.digest())
            && self.dictionary.schema(*number).is_some_and(|known| known.same(schema))
        {
            return *number;
        }
        let from = into.len();
        encode_schema(schema, into);
        let number = self.dictionary.add_schema(schema.clone(), into.len() - from);
        self.schemas.insert(schema.digest(), number);
        number
    }

    fn stamps(
        &mut self,
        changed: u8,
        header: &GroupHeader,
        families: &[GroupFamily],
        latest: WriteTimestamp,
        spread: bool,
        writer: &mut UpdateWriter,
    ) {
        self.stamp(latest, self.dictionary.time_ns, &mut writer.columns);
        self.dictionary.time_ns = latest.time_ns;
        if spread {
            for stamp in stamps(changed, header, families) {
                self.stamp(stamp, latest.time_ns, &mut writer.columns);
            }
        }
        for moment in moments(changed, header) {
            let skew_ns = moment.wall_ns.wrapping_sub(moment.stamp.time_ns);
            put_signed(skew_ns.wrapping_sub(self.dictionary.skew_ns) as i64, &mut writer.columns.structure);
            self.dictionary.skew_ns = skew_ns;
        }
    }

    /// Writes a timestamp: its node, and its time less `base_ns`, in coarse units if that loses nothing.
    fn stamp(&mut self, stamp: WriteTimestamp, base_ns: u64, into: &mut Columns) {
        let (code, new) = self.node(stamp.node);
        let time_ns = stamp.time_ns.wrapping_sub(base_ns) as i64;
        let coarse = time_ns % COARSE_NS == 0;
        put_count(code << 1 | usize::from(coarse), &mut into.structure);
        if new {
            into.structure.extend_from_slice(&stamp.node.0.to_le_bytes());
        }
        put_signed(if coarse { time_ns / COARSE_NS } else { time_ns }, &mut into.times);
    }

    /// 0 for the node of the timestamp before, otherwise the node's number plus 1; and whether the node is new.
    fn node(&mut self, node: NodeId) -> (usize, bool) {
        if node == self.dictionary.node {
            return (0, false);
        }
        self.dictionary.node = node;
        if let Some(number) = self.nodes.get(&node) {
            return (number + 1, false);
        }
        let number = self.dictionary.nodes.len();
        self.nodes.insert(node, number);
        self.dictionary.add_node(node);
        (number + 1, true)
    }

    fn forget(&mut self, forgotten: Forgotten) {
        for (number, schema) in forgotten.schemas {
            if self.schemas.get(&schema.digest()) == Some(&number) {
                self.schemas.remove(&schema.digest());
            }
        }
        if let Some(key) = forgotten.group {
            self.groups.remove(&key);
        }
    }
}

/// The columns of an unfinished update.
#[derive(Default)]
struct UpdateWriter {
    columns: Columns,
    values: ValueWriter,
    /// One more than the number of the group before.
    group: usize,
    /// The groups since the last entry of the column of lifetimes.
    skipped: usize,
}

impl UpdateWriter {
    /// Writes the lifetime of a group's last push and the hour of its expiry, as far as they are there and new.
    fn lifetime(&mut self, changed: u8, base: &GroupHeader, header: &GroupHeader) {
        let lifetime = header.lifetime.filter(|_| changed & PUSHED != 0);
        let hour = Some(header.expired_hour).filter(|hour| *hour != base.expired_hour);
        let what = lifetime.map_or(0, |_| LIFETIME) | hour.map_or(0, |_| EXPIRED_HOUR);
        if what == 0 {
            self.skipped += 1;
            return;
        }
        put_count(std::mem::take(&mut self.skipped), &mut self.columns.lifetimes);
        self.columns.lifetimes.push(what);
        let numbers = [lifetime.map(Lifetime::number), hour.map(u64::from)];
        numbers.into_iter().flatten().for_each(|number| put_number(number, &mut self.columns.lifetimes));
    }
}

/// Whether the new header can be written relative to the old one: no field of the old one is absent in the new one.
fn explains(old: &GroupHeader, new: &GroupHeader) -> bool {
    (old.pushed.is_none() || new.pushed.is_some()) && (old.failed.is_none() || new.failed.is_some())
}

fn changed_fields(old: &GroupHeader, new: &GroupHeader) -> u8 {
    let flag = |changed, flag| if changed { flag } else { 0 };
    flag(old.cleared_at != new.cleared_at, CLEARED_AT)
        | flag(old.deleted != new.deleted, DELETED)
        | flag((old.pushed, old.lifetime) != (new.pushed, new.lifetime), PUSHED)
        | flag(old.failed != new.failed, FAILED)
}

/// The timestamps to send of a group, in order.
fn stamps<'a>(
    changed: u8,
    header: &GroupHeader,
    families: &'a [GroupFamily],
) -> impl Iterator<Item = WriteTimestamp> + use<'a> {
    let when = |flag, stamp| (changed & flag != 0).then_some(stamp);
    let fields = [
        when(CLEARED_AT, header.cleared_at),
        when(DELETED, header.deleted),
        header.pushed.and_then(|moment| when(PUSHED, moment.stamp)),
        header.failed.and_then(|moment| when(FAILED, moment.stamp)),
    ];
    fields.into_iter().flatten().chain(families.iter().map(|f| f.stamp))
}

fn moments(changed: u8, header: &GroupHeader) -> impl Iterator<Item = PushTime> {
    let pushed = header.pushed.filter(|_| changed & PUSHED != 0);
    pushed.into_iter().chain(header.failed.filter(|_| changed & FAILED != 0))
}

/// The position of each family among the known ones; both are sorted by name.
fn positions(known: &[Sent], families: &[GroupFamily]) -> Vec<Option<usize>> {
    let mut at = 0;
    let position = |new: &GroupFamily| {
        loop {
            match known.get(at)?.family.cmp_name(&new.family) {
                Ordering::Less => at += 1,
                Ordering::Equal => return Some(at),
                Ordering::Greater => return None,
            }
        }
    };
    families.iter().map(position).collect()
}

fn same_schema(a: &Family, b: &Family) -> bool {
    a.schema().same(b.schema())
}

fn put_key(key: &LabelSet, into: &mut Vec<u8>) {
    put_count(key.len(), into);
    for label in key {
        put_text(label.name, into);
        put_text(label.value, into);
    }
}

fn put_raw_metrics(old: Option<&Family>, family: &Family, columns: &mut Columns) {
    let Some(raw_metrics) = family.raw_metrics() else {
        return columns.structure.push(NO_RAW_METRICS);
    };
    if old.and_then(|old| old.raw_metrics()) == Some(raw_metrics) {
        return columns.structure.push(SAME_RAW_METRICS);
    }
    columns.structure.push(NEW_RAW_METRICS);
    for raw_metric in raw_metrics.iter() {
        crate::model::bytes::put_block(raw_metric, &mut columns.raw_metrics);
    }
}
