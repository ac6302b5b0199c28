//! A sequence of updates that fit the state of the session; some are altered on the way.

use std::collections::HashSet;

use arbitrary::{Result, Unstructured};
use pushrelay::model::{
    Family, FamilyBuilder, Group, GroupFamily, GroupHeader, GroupId, LabelSet, Lifetime, MetricType, NodeId, PushTime,
    Revision, ValueLayout, WriteTimestamp,
};
use pushrelay::wire::{Decoder, Delta, Encoder, Message, Update};

use super::wire::MESSAGE_BYTES_MAX;

/// Draws the sequence from the input.
pub fn run(data: &[u8]) {
    // Too few bytes are no sequence.
    let _ = converse(&mut Unstructured::new(data));
}

fn converse(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(MESSAGE_BYTES_MAX));
    for _ in 0..u.int_in_range(1..=8)? {
        let message = Message::Update(update(u)?);
        let mut bytes = Vec::new();
        encoder.encode(&message, &mut bytes);
        if u.ratio(1, 4)? {
            // After this, the two ends may differ; the decoder must only survive it.
            let at = u.choose_index(bytes.len())?;
            bytes[at] ^= u.int_in_range(1..=255)?;
            if u.arbitrary()? {
                bytes.truncate(at + 1);
            }
            if decoder.decode(&bytes).is_err() {
                return Ok(());
            }
            continue;
        }
        if let Ok(decoded) = decoder.decode(&bytes) {
            assert!(matches!(decoded, Message::Update(_)));
        }
    }
    unchanged(u)
}

/// Everything that the gateway accepts can be decoded at the other end of a link. Otherwise one push would break the
/// link for good.
pub(super) fn cross(key: &LabelSet, families: &[Family]) {
    let push_time = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
    let delta = Delta { id: GroupId::local(key.clone()), group: Group::put(push_time, families.to_vec()) };
    let message = Message::Update(Update { upto: Revision(1), deltas: vec![delta], ..Update::default() });
    let mut bytes = Vec::new();
    Encoder::new().encode(&message, &mut bytes);
    assert_eq!(Decoder::new(MESSAGE_BYTES_MAX).decode(&bytes).expect("what was accepted can be sent"), message);
}

/// The same without alterations: every message arrives as it was sent.
fn unchanged(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(MESSAGE_BYTES_MAX));
    for _ in 0..u.int_in_range(1..=8)? {
        let message = Message::Update(update(u)?);
        let mut bytes = Vec::new();
        encoder.encode(&message, &mut bytes);
        assert_eq!(decoder.decode(&bytes).expect("what was sent is understood"), message);
    }
    Ok(())
}

fn update(u: &mut Unstructured<'_>) -> Result<Update> {
    let mut deltas = (0..u.int_in_range(0..=3)?).map(|_| delta(u)).collect::<Result<Vec<_>>>()?;
    // No sender names a group twice in one update.
    let mut named = HashSet::new();
    deltas.retain(|delta| named.insert(delta.id.clone()));
    let [partial, last_of_resync, ack_may_wait] = u.arbitrary()?;
    Ok(Update { upto: Revision(u.arbitrary()?), partial, last_of_resync, ack_may_wait, deltas })
}

fn delta(u: &mut Unstructured<'_>) -> Result<Delta> {
    let mut families = Vec::new();
    for _ in 0..u.int_in_range(0..=3)? {
        families.push(GroupFamily::plain(stamp(u)?, family(u)?));
    }
    let job = format!("job{}", u.int_in_range(0..=2)?);
    let header =
        GroupHeader { cleared_at: stamp(u)?, deleted: stamp(u)?, pushed: push_time(u)?, ..GroupHeader::default() };
    let lifetime = u.arbitrary::<Option<u32>>()?.and_then(|number| Lifetime::of_number(number.into()));
    let header = GroupHeader { failed: push_time(u)?, lifetime, expired_hour: u.int_in_range(0..=1)?, ..header };
    let group = Group::from_parts(families, header);
    Ok(Delta { id: GroupId::local(LabelSet::new([("job", job)])), group })
}

fn stamp(u: &mut Unstructured<'_>) -> Result<WriteTimestamp> {
    let time_ns = if u.ratio(3, 4)? { u.int_in_range(0..=7)? } else { u.int_in_range(0..=i64::MAX as u64)? };
    Ok(WriteTimestamp { time_ns, node: NodeId(u.int_in_range(0..=2)?) })
}

fn push_time(u: &mut Unstructured<'_>) -> Result<Option<PushTime>> {
    let wall_ns = if u.arbitrary()? { u.int_in_range(0..=7)? } else { u.arbitrary()? };
    let push_time = PushTime { stamp: stamp(u)?, wall_ns };
    Ok(u.arbitrary::<bool>()?.then_some(push_time))
}

/// Families of few names and schemas, so that repetitions and changes are frequent.
fn family(u: &mut Unstructured<'_>) -> Result<Family> {
    let name = format!("m{}", u.int_in_range(0..=2)?);
    let metric_type = MetricType::from_number(u.int_in_range(0..=1)?).unwrap_or(MetricType::Gauge);
    let mut builder = FamilyBuilder::new(name, metric_type);
    for at in 0..u.int_in_range(0..=4)? {
        let value =
            if u.arbitrary()? { f64::from(u.arbitrary::<i16>()?) / 4.0 } else { f64::from_bits(u.arbitrary()?) };
        let raw_metric = u.ratio(1, 5)?.then(|| u.bytes(3)).transpose()?;
        builder.series(&[("at", &at.to_string())], &ValueLayout::Single, &[value], raw_metric);
    }
    Ok(builder.finish().expect("no series twice"))
}
