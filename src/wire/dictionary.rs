//! The state that both ends of one direction share: schemas, groups and their families by number, and the values last
//! sent.
//!
//! Encoder and decoder each have a dictionary and change it in the same steps, so that they need not agree on numbers:
//! a new entry gets the number freed last, or else the next unused one. Both drop entries that are dead at the same
//! time: families older than their group's clear timestamp, groups that are not live, schemas that no family has. So a
//! dictionary is as large as the live groups that were sent; when it exceeds [`BYTES_MAX`], the encoder resets it.

use std::sync::Arc;

use crate::model::{Family, GroupHeader, LabelSet, NodeId, RawMetrics, Schema, WriteTimestamp};

/// A dictionary larger than this is reset before the next update.
pub(super) const BYTES_MAX: usize = 256 << 20;

const SHAPE_BYTES: usize = 128;
const GROUP_BYTES: usize = 128;
const FAMILY_BYTES: usize = 64;

/// Entries by number.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    things: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { things: Vec::new(), free: Vec::new() }
    }
}

impl<T> Numbered<T> {
    pub fn get(&self, number: usize) -> Option<&T> {
        self.things.get(number)?.as_ref()
    }

    /// The number that the next entry gets.
    pub fn next(&self) -> usize {
        self.free.last().copied().unwrap_or(self.things.len())
    }

    fn insert(&mut self, thing: T) -> usize {
        let Some(number) = self.free.pop() else {
            self.things.push(Some(thing));
            return self.things.len() - 1;
        };
        self.things[number] = Some(thing);
        number
    }

    fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.things.get_mut(number)?.as_mut()
    }

    fn remove(&mut self, number: usize) -> Option<T> {
        let thing = self.things.get_mut(number)?.take()?;
        self.free.push(number);
        Some(thing)
    }
}

/// A family as it was last sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub schema: usize,
    pub stamp: WriteTimestamp,
    pub family: Family,
}

impl Sent {
    fn bytes(&self) -> usize {
        FAMILY_BYTES + 8 * self.family.values().len() + self.family.raw_metrics().map_or(0, raw_metrics_bytes)
    }
}

fn raw_metrics_bytes(raw_metrics: &Arc<RawMetrics>) -> usize {
    raw_metrics.iter().map(|raw_metric| raw_metric.len() + 16).sum()
}

/// A group as it was last sent.
#[derive(Debug)]
pub(super) struct KnownGroup {
    pub key: Arc<LabelSet>,
    pub header: GroupHeader,
    /// Sorted by name.
    pub families: Vec<Sent>,
    bytes: usize,
}

#[derive(Debug)]
struct KnownSchema {
    schema: Arc<Schema>,
    bytes: usize,
    families: usize,
}

/// A family of an update, and the position of the known family that it replaces, if any.
#[derive(Debug)]
pub(super) struct FamilyChange {
    pub at: Option<usize>,
    pub sent: Sent,
}

/// Entries that a step dropped.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    pub schemas: Vec<(usize, Arc<Schema>)>,
    pub group: Option<Arc<LabelSet>>,
}

/// The dictionary of one direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    schemas: Numbered<KnownSchema>,
    pub groups: Numbered<KnownGroup>,
    pub nodes: Vec<NodeId>,
    /// The node of the timestamp last sent.
    pub node: NodeId,
    /// The time of the latest timestamp of the group last sent.
    pub time_ns: u64,
    /// How far the wall clock of the moment last sent was ahead of its timestamp.
    pub skew_ns: u64,
    bytes: usize,
}

impl Dictionary {
    /// Whether the encoder has to reset it before the next update.
    pub fn is_full(&self) -> bool {
        self.bytes > BYTES_MAX
    }

    pub fn schema(&self, number: usize) -> Option<&Arc<Schema>> {
        self.schemas.get(number).map(|known| &known.schema)
    }

    pub fn next_schema(&self) -> usize {
        self.schemas.next()
    }

    /// Adds a schema whose encoding has `bytes` bytes.
    pub fn add_schema(&mut self, schema: Arc<Schema>, bytes: usize) -> usize {
        let bytes = SHAPE_BYTES + bytes;
        self.bytes += bytes;
        self.schemas.insert(KnownSchema { schema, bytes, families: 0 })
    }

    /// Adds a group whose encoded key has `bytes` bytes.
    pub fn add_group(&mut self, key: Arc<LabelSet>, bytes: usize) -> usize {
        let bytes = GROUP_BYTES + bytes;
        self.bytes += bytes;
        self.groups.insert(KnownGroup { key, header: GroupHeader::default(), families: Vec::new(), bytes })
    }

    pub fn add_node(&mut self, node: NodeId) {
        self.bytes += size_of::<NodeId>();
        self.nodes.push(node);
    }

    /// Applies an update of a group, and drops the entries that it ends.
    pub fn apply(&mut self, number: usize, header: GroupHeader, changes: Vec<FamilyChange>) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let Some(group) = self.groups.get_mut(number) else {
            return forgotten;
        };
        group.header = header;
        let mut gone = Vec::new();
        let before = group.families.len();
        for FamilyChange { at, sent } in changes {
            let schema = sent.schema;
            self.bytes += sent.bytes();
            match at.and_then(|at| group.families.get_mut(at)) {
                // The schema still has as many families as before.
                Some(old) if old.schema == schema => {
                    self.bytes -= old.bytes();
                    *old = sent;
                    continue;
                }
                Some(old) => gone.push(std::mem::replace(old, sent)),
                None => group.families.push(sent),
            }
            if let Some(known) = self.schemas.get_mut(schema) {
                known.families += 1;
            }
        }
        if group.families.len() > before {
            group.families.sort_by(|a, b| a.family.cmp_name(&b.family));
        }
        gone.extend(group.families.extract_if(.., |sent| !header.keeps(sent.stamp)));
        let live = header.pushed.is_some() || header.failed.is_some() || !group.families.is_empty();
        for sent in gone {
            self.bytes -= sent.bytes();
            forgotten.schemas.extend(self.release_schema(sent.schema));
        }
        if !live && let Some(group) = self.groups.remove(number) {
            self.bytes -= group.bytes;
            forgotten.group = Some(group.key);
        }
        forgotten
    }

    fn release_schema(&mut self, number: usize) -> Option<(usize, Arc<Schema>)> {
        let known = self.schemas.get_mut(number)?;
        known.families -= 1;
        if known.families > 0 {
            return None;
        }
        let known = self.schemas.remove(number)?;
        self.bytes -= known.bytes;
        Some((number, known.schema))
    }
}
