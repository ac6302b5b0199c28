use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{
    Epoch, Family, FamilyBuilder, Group, GroupFamily, GroupHeader, GroupId, LabelSet, Lifetime, Malformed, MetricType,
    NodeId, Position, PushTime, Revision, StoreId, ValueLayout, WriteTimestamp,
};
use crate::store::{FamilyMeta, FamilyMetas, GroupRecord, PeerCursor, Record};

fn stamp() -> impl Strategy<Value = WriteTimestamp> {
    (1..4u64, 0..3u64).prop_map(|(time_ns, node)| WriteTimestamp { time_ns, node: NodeId(node) })
}

fn mark() -> impl Strategy<Value = FamilyMeta> {
    (0..300u64, proptest::option::of(0..3u64), any::<bool>()).prop_map(|(revision, origin, suppressed)| FamilyMeta {
        revision: Revision(revision),
        origin: origin.map(StoreId),
        suppressed,
    })
}

fn family() -> impl Strategy<Value = Family> {
    let raw_metrics = proptest::collection::vec(any::<u8>(), 0..5);
    (0..5usize, proptest::collection::vec((any::<f64>(), proptest::option::of(raw_metrics)), 0..4)).prop_map(
        |(name, series)| {
            let mut builder = FamilyBuilder::new(["a", "b", "c", "d", "e"][name], MetricType::Gauge);
            for (i, (value, raw_metric)) in series.iter().enumerate() {
                builder.series(&[("i", &i.to_string())], &ValueLayout::Single, &[*value], raw_metric.as_deref());
            }
            builder.finish().unwrap()
        },
    )
}

fn id() -> impl Strategy<Value = GroupId> {
    let labels =
        proptest::collection::vec(("[a-c]", "[é\"a-c]{0,3}"), 0..3).prop_map(|labels| Arc::new(LabelSet::new(labels)));
    (labels.clone(), labels).prop_map(|(site, key)| GroupId { site, key })
}

fn group() -> impl Strategy<Value = Group> {
    let families = proptest::collection::vec((stamp(), family()), 0..6);
    let moment =
        || proptest::option::of((stamp(), any::<u64>()).prop_map(|(stamp, wall_ns)| PushTime { stamp, wall_ns }));
    let cleared_at = || proptest::option::of(stamp()).prop_map(Option::unwrap_or_default);
    let lifetime = proptest::option::of((0..4u64).prop_map(|number| Lifetime::of_number(number).unwrap()));
    let expired_hour = prop_oneof![2 => Just(0), 1 => any::<u32>()];
    (families, cleared_at(), cleared_at(), moment(), moment(), lifetime, expired_hour).prop_map(
        |(families, cleared_at, deleted, pushed, failed, lifetime, expired_hour)| {
            let families = families.into_iter().map(|(stamp, family)| GroupFamily::plain(stamp, family)).collect();
            let header = GroupHeader { cleared_at, deleted, pushed, failed, lifetime, expired_hour };
            Group::from_parts(families, header)
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let group =
        (id(), group(), mark(), proptest::collection::vec(mark(), 6)).prop_map(|(id, group, header, mut marks)| {
            marks.truncate(group.families().len());
            Record::Group(GroupRecord { id, group, header, families: marks.into_iter().collect() })
        });
    let position = (any::<u64>(), 0..u64::MAX)
        .prop_map(|(epoch, revision)| Position { epoch: Epoch(epoch), revision: Revision(revision) });
    prop_oneof![
        5 => group,
        1 => position.clone().prop_map(|p| Record::Opened { epoch: p.epoch, revision: p.revision }),
        1 => (id(), stamp(), 0..u64::MAX)
            .prop_map(|(id, stamp, revision)| Record::Forgotten { id, stamp, revision: Revision(revision) }),
        1 => (any::<u64>(), position, id()).prop_map(|(peer, position, id)| {
            Record::Cursor { peer: StoreId(peer), cursor: PeerCursor { position, site: id.site } }
        }),
    ]
}

/// [`super::decode`], and what was handed on.
fn decode(payload: &[u8], schemas: &mut SchemasRead) -> Result<(Vec<Record>, u64), Malformed> {
    let mut records = Vec::new();
    let decoded = super::decode(payload, schemas, &mut |record| records.push(record));
    if decoded.is_err() {
        assert_eq!(records, [], "none of what is malformed");
    }
    decoded.map(|decoded| {
        assert_eq!(decoded.records, records.len() as u64);
        (records, decoded.families_lost)
    })
}

fn encoded(records: &[Record], schemas: &mut SchemasWritten) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| encode(record, schemas, &mut bytes));
    bytes
}

proptest! {
    #[test]
    fn records_round_trip(batches in proptest::collection::vec((proptest::collection::vec(record(), 0..4), any::<bool>()), 1..5)) {
        let (mut written, mut read) = (SchemasWritten::default(), SchemasRead::default());
        for (batch, is_kept) in &batches {
            let bytes = encoded(batch, &mut written);
            if *is_kept {
                written.keep();
                let (records, families_lost) = decode(&bytes, &mut read).unwrap();
                prop_assert_eq!(&records, batch);
                prop_assert_eq!(families_lost, 0);
            } else {
                written.forget();
            }
        }
    }

    #[test]
    fn a_cut_or_changed_payload_is_refused_or_read_as_another(record in record(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encoded(std::slice::from_ref(&record), &mut SchemasWritten::default());
        for len in 1..bytes.len() {
            // A cut between entries is for the frame's checksum to find.
            if let Ok((records, _)) = decode(&bytes[..len], &mut SchemasRead::default()) {
                prop_assert!(records.is_empty());
            }
        }
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes, &mut SchemasRead::default());
    }

    #[test]
    fn families_whose_schema_is_lost_are_left_out_and_counted(group in group(), id in id()) {
        let record = Record::Group(GroupRecord { id, group: group.clone(), header: FamilyMeta::default(), families: FamilyMetas::default() });
        let mut schemas = SchemasWritten::default();
        // The first two frames define it, the third does not.
        for _ in 0..2 {
            encoded(std::slice::from_ref(&record), &mut schemas);
            schemas.keep();
        }
        let bytes = encoded(std::slice::from_ref(&record), &mut schemas);
        let (records, families_lost) = decode(&bytes, &mut SchemasRead::default()).unwrap();
        prop_assert_eq!(families_lost, group.families().len() as u64);
        let Record::Group(left) = &records[0] else { panic!("a group") };
        prop_assert_eq!(&left.group, &group.part(|_, _| false));
    }
}

#[test]
fn a_schema_is_written_once_while_it_lives() {
    let family = |value| {
        let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
        builder.series(&[("x", "1")], &ValueLayout::Single, &[value], None);
        builder.finish().unwrap()
    };
    let record = |family| {
        let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
        let id = GroupId { site: Arc::default(), key: Arc::default() };
        let group = Group::post(moment, vec![family]);
        Record::Group(GroupRecord { id, group, header: FamilyMeta::default(), families: FamilyMetas::default() })
    };
    let mut schemas = SchemasWritten::default();
    let first = family(1.0);
    let defined = encoded(&[record(first.clone())], &mut schemas).len();
    let known = encoded(&[record(first.clone())], &mut schemas).len();
    assert!(known < defined);
    assert_eq!(encoded(&[record(family(2.0))], &mut schemas).len(), known, "equal content");
    drop(first);
    assert_eq!(encoded(&[record(family(2.0))], &mut schemas).len(), defined, "nothing to compare with");
}

#[test]
fn a_schema_is_written_again_in_the_second_fourth_eighth_frame_that_needs_it() {
    let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
    let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
    builder.series(&[("x", "1")], &ValueLayout::Single, &[1.0], None);
    let group = Group::post(moment, vec![builder.finish().unwrap()]);
    let id = GroupId { site: Arc::default(), key: Arc::default() };
    let record =
        Record::Group(GroupRecord { id, group, header: FamilyMeta::default(), families: FamilyMetas::default() });
    let (mut schemas, mut defining) = (SchemasWritten::default(), Vec::new());
    let defines = |schemas: &mut SchemasWritten| encoded(std::slice::from_ref(&record), schemas)[0] == SCHEMA;
    for frame in 1..=16 {
        if defines(&mut schemas) {
            defining.push(frame);
        }
        assert!(!defines(&mut schemas), "twice in a frame");
        schemas.keep();
        // Frames that do not need it do not count.
        schemas.keep();
    }
    assert_eq!(defining, [1, 2, 4, 8, 16]);
    let mut failed = SchemasWritten::default();
    for frame in 0..4 {
        assert!(defines(&mut failed), "frame {frame} did not come to be");
        failed.forget();
    }
}

#[test]
fn a_large_transaction_is_read_whole_or_not_at_all() {
    let opened = |revision| Record::Opened { epoch: Epoch(1), revision: Revision(revision) };
    let records: Vec<Record> = (0..40_000).map(opened).collect();
    let mut bytes = encoded(&records, &mut SchemasWritten::default());
    assert_eq!(decode(&bytes, &mut SchemasRead::default()).unwrap().0, records);
    bytes.push(0);
    assert!(decode(&bytes, &mut SchemasRead::default()).is_err(), "and nothing was handed on");
}

#[test]
fn the_last_revision_is_refused_but_of_a_peer() {
    let last = Position { epoch: Epoch(1), revision: Revision(u64::MAX) };
    let opened = Record::Opened { epoch: last.epoch, revision: last.revision };
    let forgotten = Record::Forgotten {
        id: GroupId::local(LabelSet::default()),
        stamp: WriteTimestamp::ZERO,
        revision: last.revision,
    };
    for record in [opened, forgotten] {
        let bytes = encoded(&[record], &mut SchemasWritten::default());
        assert_eq!(decode(&bytes, &mut SchemasRead::default()), Err(Malformed::TooLarge("a revision")));
    }
    let cursor = Record::Cursor { peer: StoreId(1), cursor: PeerCursor { position: last, ..PeerCursor::default() } };
    let bytes = encoded(std::slice::from_ref(&cursor), &mut SchemasWritten::default());
    assert_eq!(decode(&bytes, &mut SchemasRead::default()).unwrap().0, [cursor]);
}

/// Few bytes that say much: refused before it is held, so what is wrong at the beginning is told, not what is at the end.
#[test]
fn labels_and_raw_metrics_are_refused_at_once() {
    const COUNT: usize = 100;
    let mut bytes = vec![FORGOTTEN];
    bytes.extend([COUNT as u8].iter().chain(&[0; 4]).chain(&[0xff; 2 * COUNT]));
    let refused = decode(&bytes, &mut SchemasRead::default());
    assert_eq!(refused, Err(Malformed::Invalid("the labels of a group")));

    let (mut written, mut read) = (SchemasWritten::default(), SchemasRead::default());
    let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
    builder.series(&[("x", "1")], &ValueLayout::Single, &[1.0], None);
    let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
    let group = Group::post(moment, vec![builder.finish().unwrap()]);
    let id = GroupId { site: Arc::default(), key: Arc::default() };
    let record =
        Record::Group(GroupRecord { id, group, header: FamilyMeta::default(), families: FamilyMetas::default() });
    let mut bytes = encoded(std::slice::from_ref(&record), &mut written);
    assert_eq!(bytes.pop(), Some(0), "the number of raw metrics");
    bytes.push(COUNT as u8);
    // The second of them is longer than what follows.
    bytes.extend([0, COUNT as u8 + 1].iter().chain(&[0; COUNT]));
    assert_eq!(decode(&bytes, &mut read), Err(Malformed::Invalid("the raw metrics of a family")));
}
