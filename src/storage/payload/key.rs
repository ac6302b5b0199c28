//! The entry of an idempotency key: the tombstone of a group whose only label has the digests of key and body, 32
//! hexadecimal digits each. Its time is that of the push.

use crate::model::{GroupHeader, LabelSet, NodeId, WriteTimestamp};
use crate::store::{GroupRecord, KeyRecord};

/// The label of such a group.
const LABEL: &str = "pushrelay_idempotency_key";

pub(super) fn key_labels(record: &KeyRecord) -> LabelSet {
    LabelSet::new([(LABEL, format!("{:032x}{:032x}", record.key, record.body))])
}

pub(super) fn key_header(record: &KeyRecord) -> GroupHeader {
    let deleted = WriteTimestamp { time_ns: record.time_ns, node: NodeId(0) };
    GroupHeader { cleared_at: deleted, deleted, ..GroupHeader::default() }
}

/// The key, if the record is one.
pub(super) fn read_key(record: &GroupRecord) -> Option<KeyRecord> {
    const DIGITS: usize = 32;
    let value = record.id.key.get(LABEL).filter(|value| value.len() == 2 * DIGITS && record.id.key.len() == 1)?;
    if record.group.is_live() || !value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let number = |digits: &str| u128::from_str_radix(digits, 16).ok();
    let (key, body) = (number(&value[..DIGITS])?, number(&value[DIGITS..])?);
    let (time_ns, revision) = (record.group.deleted().time_ns, record.header.revision);
    Some(KeyRecord { key, body, time_ns, revision })
}
