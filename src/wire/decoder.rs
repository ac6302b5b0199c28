//! Bytes to messages, for one direction of one connection. Any bytes are safe to decode.

use std::sync::Arc;

use crate::model::bytes::{ByteReader, Malformed};
use crate::model::{
    Family, Group, GroupFamily, GroupHeader, GroupId, LabelSet, Lifetime, NodeId, PushTime, RawMetrics, STAMP_NS_MAX,
    Schema, Values, WriteTimestamp, decode_schema, label,
};

use super::delta::{Delta, FAMILIES_MAX, GROUPS_MAX, VALUES_MAX};
use super::dictionary::{Dictionary, FamilyChange, Sent};
use super::error::DecodeError;
use super::layout::{
    CLEARED_AT, COARSE_NS, DELETED, EXPIRED_HOUR, FAILED, FRESH, LIFETIME, LISTED, NEW_RAW_METRICS, NO_RAW_METRICS,
    PUSHED, SAME_RAW_METRICS, SPREAD,
};
use super::message::{Message, PLAIN_BYTES_MAX, Update};
use super::named::NamedGroups;
use super::protobuf::{self, Columns, UPDATE};
use super::values::{ValueReader, read_signed};

/// Decodes the messages of one direction of one connection, in the order in which they were sent.
#[derive(Debug)]
pub struct Decoder {
    dictionary: Dictionary,
    named: NamedGroups,
    bytes_max: usize,
}

const NAMED_TWICE: DecodeError = DecodeError::Rule("an update names no group twice, and no key has two numbers");
const STAMP: &str = "a stamp";
const NODE: &str = "the node of a stamp";

impl Decoder {
    /// The decoder of a new connection, for updates of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { dictionary: Dictionary::default(), named: NamedGroups::default(), bytes_max }
    }

    /// Decodes the message that is exactly these bytes.
    ///
    /// # Errors
    /// If the bytes are not a valid message; the decoder is then useless, because later messages refer to this one.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Message, DecodeError> {
        let (kind, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if *kind != UPDATE {
            return Self::decode_plain(bytes);
        }
        if bytes.len() > self.bytes_max {
            return Err(DecodeError::TooLarge { bytes: bytes.len(), max: self.bytes_max });
        }
        let (update, columns) = protobuf::decode_update(body)?;
        if columns.reset {
            (self.dictionary, self.named) = Default::default();
        } else if self.dictionary.is_full() {
            return Err(DecodeError::Rule("a full dictionary is reset before the next update"));
        }
        Ok(Message::Update(Update { deltas: self.deltas(&columns)?, ..update }))
    }

    /// Decodes the message that is exactly these bytes, of any kind but an update, which is refused unread. No peer
    /// may send an update before the handshake is over. The message has at most [`PLAIN_BYTES_MAX`] bytes, whatever
    /// the bound on updates.
    ///
    /// # Errors
    /// If the bytes are not a valid message of such a kind.
    pub fn decode_plain(bytes: &[u8]) -> Result<Message, DecodeError> {
        let (kind, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if *kind == UPDATE {
            return Err(DecodeError::Rule("updates come after the handshake"));
        }
        if bytes.len() > PLAIN_BYTES_MAX {
            return Err(DecodeError::TooLarge { bytes: bytes.len(), max: PLAIN_BYTES_MAX });
        }
        protobuf::decode_plain(*kind, body)
    }

    #[cfg(test)]
    pub(super) fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    fn deltas(&mut self, columns: &Columns) -> Result<Vec<Delta>, DecodeError> {
        let mut cursor = UpdateReader::new(columns);
        let mut deltas = Vec::new();
        self.named.begin();
        while cursor.structure.remaining() > 0 {
            bounded("groups of an update", deltas.len() + 1, GROUPS_MAX)?;
            deltas.push(self.delta(&mut cursor)?);
        }
        cursor.finish()?;
        Ok(deltas)
    }

    fn delta(&mut self, cursor: &mut UpdateReader<'_>) -> Result<Delta, DecodeError> {
        let number = self.group(cursor)?;
        let flags = cursor.structure.byte("the flags of a group")?;
        if flags & !(CLEARED_AT | DELETED | PUSHED | FAILED | LISTED | SPREAD | FRESH) != 0 {
            return Err(Malformed::Invalid("the flags of a group").into());
        }
        let mut changes = if flags & LISTED != 0 { self.listed(number, cursor)? } else { self.known(number, cursor)? };
        let mut header = self.stamps(number, flags, &mut changes, cursor)?;
        cursor.lifetime(flags, &mut header)?;
        let families =
            changes.iter().map(|change| GroupFamily::plain(change.sent.stamp, change.sent.family.clone())).collect();
        let key = self.dictionary.groups.get(number).map(|group| group.key.clone()).unwrap_or_default();
        if let Some(key) = self.dictionary.apply(number, header, changes).group {
            self.named.lose(key);
        }
        let group = Group::from_parts(families, header);
        Ok(Delta { id: GroupId { site: Arc::default(), key }, group })
    }

    fn group(&mut self, cursor: &mut UpdateReader<'_>) -> Result<usize, DecodeError> {
        const NUMBER: &str = "the number of a group";
        let advance = read_signed(&mut cursor.structure, NUMBER)?;
        let number = i64::try_from(cursor.group).ok().and_then(|group| group.checked_add(advance));
        let number = number.and_then(|n| usize::try_from(n).ok()).ok_or(Malformed::Invalid(NUMBER))?;
        if self.dictionary.groups.get(number).is_none() {
            if number != self.dictionary.groups.next() {
                return Err(Malformed::Invalid(NUMBER).into());
            }
            let before = cursor.keys.remaining();
            let key = Arc::new(read_key(&mut cursor.keys)?);
            if !self.named.add(number, key.clone()) {
                return Err(NAMED_TWICE);
            }
            self.dictionary.add_group(key, before - cursor.keys.remaining());
        }
        if !self.named.name(number) {
            return Err(NAMED_TWICE);
        }
        cursor.group = number + 1;
        Ok(number)
    }

    /// Reads new values for all known families of the group.
    fn known(&mut self, number: usize, cursor: &mut UpdateReader<'_>) -> Result<Vec<FamilyChange>, DecodeError> {
        let known = self.dictionary.groups.get(number).map_or(&[][..], |group| &group.families);
        let mut changes = Vec::with_capacity(known.len());
        for (at, old) in known.iter().enumerate() {
            let (schema, raw_metrics) = (old.family.schema(), old.family.raw_metrics());
            let family = cursor.family(Some(old.family.values()), schema.clone(), raw_metrics.cloned())?;
            changes.push(FamilyChange { at: Some(at), sent: Sent { family, ..*old } });
        }
        Ok(changes)
    }

    fn listed(&mut self, number: usize, cursor: &mut UpdateReader<'_>) -> Result<Vec<FamilyChange>, DecodeError> {
        const BYTES_MIN: usize = 3;
        const PLACE: &str = "the place of a family";
        let count = cursor.structure.count(BYTES_MIN, "the number of families")?;
        bounded("families of an update", cursor.families + count, FAMILIES_MAX)?;
        let mut next = 0;
        let mut changes: Vec<FamilyChange> = Vec::with_capacity(count);
        for _ in 0..count {
            let known = self.dictionary.groups.get(number).map_or(0, |group| group.families.len());
            let advance = usize::try_from(cursor.structure.number(PLACE)?).ok();
            let at = advance.and_then(|advance| (next + advance.min(known + 1)).checked_sub(1).filter(|_| advance > 0));
            if advance != Some(0) {
                next = at.filter(|at| *at < known).ok_or(Malformed::Invalid(PLACE))? + 1;
            }
            let sent = self.listed_family(number, at, cursor)?;
            if changes.last().is_some_and(|last| last.sent.family.name() >= sent.family.name()) {
                return Err(DecodeError::Rule("the families of a group are sorted by name, none twice"));
            }
            changes.push(FamilyChange { at, sent });
        }
        Ok(changes)
    }

    fn listed_family(
        &mut self,
        group: usize,
        at: Option<usize>,
        cursor: &mut UpdateReader<'_>,
    ) -> Result<Sent, DecodeError> {
        const SCHEMA: &str = "the number of a schema";
        let known = self.dictionary.groups.get(group).map_or(&[][..], |group| &group.families);
        let old = at.and_then(|at| known.get(at)).cloned();
        let code = usize::try_from(cursor.structure.number(SCHEMA)?).map_err(|_| Malformed::Invalid(SCHEMA))?;
        let (same, schema) = match &old {
            Some(old) if code == 0 => (Some(old), old.schema),
            Some(_) => (None, code - 1),
            None => (None, code),
        };
        if same.is_none() {
            self.schema(schema, cursor)?;
        }
        let schema_known = self.dictionary.schema(schema).ok_or(Malformed::Invalid(SCHEMA))?.clone();
        let name = schema_known.name();
        let fits = match &old {
            Some(old) => old.family.name() == name,
            None => known_at(&self.dictionary, group, name).is_none(),
        };
        if !fits {
            return Err(DecodeError::Rule("a family keeps its name, and a new family has a new one"));
        }
        let raw_metrics = cursor.raw_metrics(same.and_then(|old| old.family.raw_metrics()), &schema_known)?;
        let family = cursor.family(same.map(|old| old.family.values()), schema_known, raw_metrics)?;
        Ok(Sent { schema, stamp: WriteTimestamp::ZERO, family })
    }

    /// Reads the schema with that number, if it is a new one.
    fn schema(&mut self, number: usize, cursor: &mut UpdateReader<'_>) -> Result<(), DecodeError> {
        if self.dictionary.schema(number).is_some() {
            return Ok(());
        }
        if number != self.dictionary.next_schema() {
            return Err(Malformed::Invalid("the number of a schema").into());
        }
        let (schema, bytes) = decode_schema(cursor.schemas)?;
        let mut names = schema.layouts().iter().flat_map(|layout| &layout.names);
        if names.any(|name| name.starts_with(label::RESERVED_PREFIX)) {
            return Err(DecodeError::Rule("no label of a series is reserved"));
        }
        cursor.schemas = &cursor.schemas[bytes..];
        self.dictionary.add_schema(Arc::new(schema), bytes);
        Ok(())
    }

    /// Reads the timestamps of a group: those of the new header, and those of the families.
    fn stamps(
        &mut self,
        number: usize,
        flags: u8,
        changes: &mut [FamilyChange],
        cursor: &mut UpdateReader<'_>,
    ) -> Result<GroupHeader, DecodeError> {
        let known = self.dictionary.groups.get(number).map(|group| group.header).unwrap_or_default();
        let mut header = if flags & FRESH != 0 { GroupHeader::default() } else { known };
        let has = |flag| flags & flag != 0;
        if flags & (CLEARED_AT | DELETED | PUSHED | FAILED) == 0 && changes.is_empty() {
            return Ok(header);
        }
        let latest = self.stamp(self.dictionary.time_ns, cursor)?;
        self.dictionary.time_ns = latest.time_ns;
        let mut next = |cursor: &mut UpdateReader<'_>| match has(SPREAD) {
            false => Ok(latest),
            true => self.stamp(latest.time_ns, cursor),
        };
        if has(CLEARED_AT) {
            header.cleared_at = next(cursor)?;
        }
        if has(DELETED) {
            header.deleted = next(cursor)?;
        }
        let pushed = if has(PUSHED) { Some(next(cursor)?) } else { None };
        let failed = if has(FAILED) { Some(next(cursor)?) } else { None };
        for change in changes {
            change.sent.stamp = next(cursor)?;
        }
        header.pushed = self.moment(pushed, cursor)?.or(header.pushed);
        header.failed = self.moment(failed, cursor)?.or(header.failed);
        Ok(header)
    }

    fn stamp(&mut self, base_ns: u64, cursor: &mut UpdateReader<'_>) -> Result<WriteTimestamp, DecodeError> {
        let code = usize::try_from(cursor.structure.number(NODE)?).map_err(|_| Malformed::Invalid(NODE))?;
        if let Some(index) = (code >> 1).checked_sub(1) {
            if index == self.dictionary.nodes.len() {
                self.dictionary.add_node(NodeId(cursor.structure.fixed64(NODE)?));
            }
            self.dictionary.node = *self.dictionary.nodes.get(index).ok_or(Malformed::Invalid(NODE))?;
        }
        let apart = read_signed(&mut cursor.times, STAMP)?;
        let apart_ns = if code & 1 == 0 { apart } else { apart.wrapping_mul(COARSE_NS) };
        let time_ns = base_ns.wrapping_add(apart_ns as u64);
        if time_ns > STAMP_NS_MAX {
            return Err(DecodeError::Rule("a stamp is before the year 2262"));
        }
        Ok(WriteTimestamp { time_ns, node: self.dictionary.node })
    }

    fn moment(
        &mut self,
        stamp: Option<WriteTimestamp>,
        cursor: &mut UpdateReader<'_>,
    ) -> Result<Option<PushTime>, DecodeError> {
        let Some(stamp) = stamp else { return Ok(None) };
        let change = read_signed(&mut cursor.structure, "the wall clock of a moment")? as u64;
        self.dictionary.skew_ns = self.dictionary.skew_ns.wrapping_add(change);
        Ok(Some(PushTime { stamp, wall_ns: stamp.time_ns.wrapping_add(self.dictionary.skew_ns) }))
    }
}

fn known_at(dictionary: &Dictionary, group: usize, name: &str) -> Option<usize> {
    let families = &dictionary.groups.get(group)?.families;
    families.binary_search_by(|sent| (**sent.family.name()).cmp(name)).ok()
}

/// A position in the columns of an update.
struct UpdateReader<'a> {
    schemas: &'a [u8],
    keys: ByteReader<'a>,
    structure: ByteReader<'a>,
    times: ByteReader<'a>,
    values: ValueReader<'a>,
    raw_metrics: ByteReader<'a>,
    lifetimes: ByteReader<'a>,
    /// The groups before the next entry of the column of lifetimes; `None` if it was not read yet.
    skipped: Option<usize>,
    /// One more than the number of the group before.
    group: usize,
    families: usize,
    values_len: usize,
}

impl<'a> UpdateReader<'a> {
    fn new(columns: &'a Columns) -> Self {
        Self {
            schemas: &columns.schemas,
            keys: ByteReader::new(&columns.keys),
            structure: ByteReader::new(&columns.structure),
            times: ByteReader::new(&columns.times),
            values: ValueReader::new(&columns.runs, &columns.deltas, &columns.raws),
            raw_metrics: ByteReader::new(&columns.raw_metrics),
            lifetimes: ByteReader::new(&columns.lifetimes),
            skipped: None,
            group: 0,
            families: 0,
            values_len: 0,
        }
    }

    fn family(
        &mut self,
        base: Option<&Values>,
        schema: Arc<Schema>,
        raw_metrics: Option<Arc<RawMetrics>>,
    ) -> Result<Family, DecodeError> {
        let len = schema.values_len();
        self.families += 1;
        self.values_len = self.values_len.saturating_add(len);
        bounded("families of an update", self.families, FAMILIES_MAX)?;
        bounded("values of an update", self.values_len, VALUES_MAX)?;
        let values = self.values(base.filter(|base| base.len() == len), len)?;
        Family::new(schema, values, raw_metrics).ok_or(DecodeError::Rule("a family has the values of its schema"))
    }

    fn values(&mut self, base: Option<&Values>, len: usize) -> Result<Values, DecodeError> {
        let mut values = match base {
            Some(base) if self.values.skip_same(len)? => return Ok(base.clone()),
            Some(base) => Values::from(&base[..]),
            None => Values::zeros(len),
        };
        self.values.read(base.is_some(), values.make_mut())?;
        Ok(values)
    }

    fn raw_metrics(
        &mut self,
        old: Option<&Arc<RawMetrics>>,
        schema: &Schema,
    ) -> Result<Option<Arc<RawMetrics>>, DecodeError> {
        const RAW_METRICS: &str = "the raw metrics of a family";
        match self.structure.byte(RAW_METRICS)? {
            NO_RAW_METRICS => Ok(None),
            SAME_RAW_METRICS => Ok(Some(old.ok_or(Malformed::Invalid(RAW_METRICS))?.clone())),
            NEW_RAW_METRICS => {
                let raw_metric = |_| self.raw_metrics.block(RAW_METRICS).map(Into::into);
                Ok(Some(Arc::new((0..schema.series_len()).map(raw_metric).collect::<Result<_, _>>()?)))
            }
            _ => Err(Malformed::Invalid(RAW_METRICS).into()),
        }
    }

    /// Reads the entry of a group in the column of lifetimes, if it has one. `header` is that of the group, with the
    /// lifetime of the push before.
    fn lifetime(&mut self, flags: u8, header: &mut GroupHeader) -> Result<(), DecodeError> {
        const LIFETIMES: &str = "the lifetime of a group";
        if flags & PUSHED != 0 {
            header.lifetime = None;
        }
        let skipped = match self.skipped {
            None if self.lifetimes.remaining() == 0 => return Ok(()),
            None => self.lifetimes.number(LIFETIMES)?,
            Some(skipped) => skipped as u64,
        };
        self.skipped = usize::try_from(skipped).ok().and_then(|skipped| skipped.checked_sub(1));
        if skipped > 0 {
            return Ok(());
        }
        let what = self.lifetimes.byte(LIFETIMES)?;
        let is_pushed = flags & PUSHED != 0 || what & LIFETIME == 0;
        if what == 0 || what & !(LIFETIME | EXPIRED_HOUR) != 0 || !is_pushed {
            return Err(Malformed::Invalid(LIFETIMES).into());
        }
        if what & LIFETIME != 0 {
            let number = self.lifetimes.number(LIFETIMES)?;
            header.lifetime = Some(Lifetime::of_number(number).ok_or(Malformed::TooLarge(LIFETIMES))?);
        }
        if what & EXPIRED_HOUR != 0 {
            let hour = u32::try_from(self.lifetimes.number(LIFETIMES)?);
            header.expired_hour = hour.map_err(|_| Malformed::TooLarge(LIFETIMES))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), DecodeError> {
        let rest =
            [self.keys, self.times, self.raw_metrics, self.lifetimes].iter().any(|column| column.remaining() > 0);
        if rest || !self.schemas.is_empty() {
            return Err(DecodeError::Rule("an update ends where its columns end"));
        }
        Ok(self.values.finish()?)
    }
}

fn read_key(reader: &mut ByteReader<'_>) -> Result<LabelSet, DecodeError> {
    const KEY: &str = "a grouping key";
    const BYTES_MIN: usize = 2;
    let count = reader.count(BYTES_MIN, KEY)?;
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for _ in 0..count {
        let (name, value) = (reader.text(KEY)?, reader.text(KEY)?);
        // Checked at once, so that repeated bytes, such as zeros, do not become many labels. The first name is checked
        // too: it is not empty.
        let before = pairs.last().map_or("", |(name, _)| name);
        if name <= before || name.starts_with(label::RESERVED_PREFIX) {
            return Err(DecodeError::Rule("the labels of a grouping key are sorted, none twice, empty or reserved"));
        }
        pairs.push((name, value));
    }
    if !pairs.iter().any(|(name, value)| *name == label::JOB && !value.is_empty()) {
        return Err(DecodeError::Rule("a grouping key has a job"));
    }
    Ok(LabelSet::new(pairs))
}

fn bounded(what: &'static str, value: usize, max: usize) -> Result<(), DecodeError> {
    if value > max { Err(DecodeError::Bound { what, value, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reader stops at the first label that breaks the rule; the bytes after it are no labels at all.
    #[test]
    fn labels_that_repeat_are_refused_before_they_take_memory() {
        for label in [&[0, 0][..], &[1, b'a', 0, 1, b'a', 0]] {
            let key = [&[0xff, 0xff, 0x3f], label, &[0xff; 3 << 20]].concat();
            let error = read_key(&mut ByteReader::new(&key)).unwrap_err();
            assert!(matches!(error, DecodeError::Rule(_)), "{error}");
        }
    }
}
