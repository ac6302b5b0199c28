//! Whole messages: round trips, truncation, changed and hostile bytes.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{
    Epoch, Family, FamilyBuilder, Group, GroupFamily, GroupHeader, GroupId, LabelSet, Lifetime, MetricType, NodeId,
    Position, PushTime, Revision, StoreId, ValueLayout, WriteTimestamp,
};

const BYTES_MAX: usize = 1 << 20;

fn encoded(encoder: &mut Encoder, message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder.encode(message, &mut bytes);
    bytes
}

fn stamp() -> impl Strategy<Value = WriteTimestamp> {
    let time_ns = prop_oneof![4 => 0..8u64, 1 => 0..=i64::MAX as u64];
    (time_ns, 0..3u64).prop_map(|(time_ns, node)| WriteTimestamp { time_ns, node: NodeId(node) })
}

fn moment() -> impl Strategy<Value = Option<PushTime>> {
    let wall_ns = prop_oneof![4 => 0..8u64, 1 => any::<u64>()];
    proptest::option::of((stamp(), wall_ns).prop_map(|(stamp, wall_ns)| PushTime { stamp, wall_ns }))
}

/// Families of few names, schemas and values, so that repetition and change abound.
fn family() -> impl Strategy<Value = Family> {
    let value =
        prop_oneof![4 => (0..20i32).prop_map(|v| f64::from(v) / 4.0), 1 => any::<u64>().prop_map(f64::from_bits)];
    let raw_metric = proptest::option::weighted(0.2, proptest::collection::vec(any::<u8>(), 1..4));
    (0..3usize, 1..4usize, 0..2i32, proptest::collection::vec(value, 4), raw_metric).prop_map(
        |(name, series, metric_type, values, raw_metric)| {
            let mut builder = FamilyBuilder::new(format!("m{name}"), MetricType::from_number(metric_type).unwrap());
            for (at, value) in values.iter().enumerate().take(series) {
                builder.series(&[("at", &at.to_string())], &ValueLayout::Single, &[*value], raw_metric.as_deref());
            }
            builder.finish().unwrap()
        },
    )
}

fn delta() -> impl Strategy<Value = Delta> {
    let families = proptest::collection::vec((stamp(), family()), 0..4);
    let lifetime = proptest::option::of((0..4u64).prop_map(|number| Lifetime::of_number(number).unwrap()));
    let expired_hour = prop_oneof![4 => 0..2u32, 1 => any::<u32>()];
    (0..3usize, families, stamp(), stamp(), [moment(), moment()], lifetime, expired_hour).prop_map(
        |(job, families, cleared_at, deleted, [pushed, failed], lifetime, expired_hour)| {
            let families = families.into_iter().map(|(stamp, family)| GroupFamily::plain(stamp, family)).collect();
            let header = GroupHeader { cleared_at, deleted, pushed, failed, lifetime, expired_hour };
            let group = Group::from_parts(families, header);
            Delta { id: GroupId::local(LabelSet::new([("job", format!("job{job}"))])), group }
        },
    )
}

fn update() -> impl Strategy<Value = Message> {
    (any::<u64>(), any::<[bool; 3]>(), proptest::collection::vec(delta(), 0..5)).prop_map(
        |(upto, [partial, last_of_resync, ack_may_wait], mut deltas)| {
            let mut named = std::collections::HashSet::new();
            deltas.retain(|delta: &Delta| named.insert(delta.id.clone()));
            Message::Update(Update { upto: Revision(upto), partial, last_of_resync, ack_may_wait, deltas })
        },
    )
}

fn clock() -> impl Strategy<Value = ClockSample> {
    let echo = proptest::option::of(any::<[u64; 2]>());
    (any::<u64>(), echo).prop_map(|(sent_ns, echo)| ClockSample {
        sent_ns,
        echo: echo.map(|[sent_ns, received_ns]| Echo { sent_ns, received_ns }),
    })
}

fn info() -> impl Strategy<Value = PeerInfo> {
    let starts = proptest::collection::vec((1..u64::MAX, 0..9u64), 1..5);
    let cursors = proptest::collection::vec(any::<[u64; 3]>(), 0..4);
    (".{0,9}", ".{0,9}", any::<u64>(), starts, any::<[u32; 2]>(), cursors).prop_map(
        |(node, software, store, starts, [head, forgotten], cursors)| {
            let mut revision = 0;
            let mut start = |(epoch, more): (u64, u64)| {
                revision += more;
                EpochStart { epoch: Epoch(epoch), revision: Revision(revision) }
            };
            let epochs: Vec<EpochStart> = starts.into_iter().map(&mut start).collect();
            let cursor = |[store, epoch, revision]: [u64; 3]| StoreCursor {
                store: StoreId(store),
                position: Position { epoch: Epoch(epoch), revision: Revision(revision) },
            };
            PeerInfo {
                node,
                software,
                store: StoreId(store),
                epochs,
                head: Revision(revision + u64::from(head)),
                gc_watermark: Revision(forgotten.into()),
                cursors: cursors.into_iter().map(cursor).collect(),
                identity: format!("pushrelay://edge/{forgotten}"),
            }
        },
    )
}

fn labels() -> impl Strategy<Value = LabelSet> {
    proptest::collection::vec(("[a-z]{1,3}", ".{0,3}"), 0..3).prop_map(LabelSet::new)
}

fn report() -> impl Strategy<Value = ConflictReport> {
    (labels(), "[a-z]{1,5}", any::<[u64; 2]>(), ".{0,9}").prop_map(|(key, family, [time_ns, node], text)| {
        ConflictReport {
            key: Arc::new(key),
            family: family.into(),
            stamp: WriteTimestamp { time_ns, node: NodeId(node) },
            text: text.into(),
        }
    })
}

fn health() -> impl Strategy<Value = Option<Box<Health>>> {
    let report = (any::<[Option<u64>; 3]>(), proptest::option::of(".{0,9}"));
    let report = report.prop_map(|([pushes, disk_free_bytes, requests_refused], store_failure)| {
        Box::new(Health { pushes, disk_free_bytes, requests_refused, store_failure, ..Health::default() })
    });
    proptest::option::of(report)
}

fn plain() -> impl Strategy<Value = Message> {
    let close = (0..20u32, ".{0,9}", any::<Option<u64>>());
    prop_oneof![
        (any::<u32>(), info(), labels(), any::<u64>(), clock()).prop_map(
            |(version, info, labels, message_bytes_max, clock)| {
                Message::Hello(Hello { version, info, labels, message_bytes_max, clock })
            }
        ),
        (any::<[u32; 2]>(), info(), labels(), any::<[bool; 2]>(), any::<u64>(), clock(), any::<Vec<u8>>()).prop_map(
            |(
                [version, heartbeat_ms],
                info,
                site,
                [resync, takes_early],
                message_bytes_max,
                clock,
                upstream_stores,
            )| {
                let upstream_stores = upstream_stores
                    .into_iter()
                    .take(message::UPSTREAM_STORES_MAX)
                    .map(|store| StoreId(store.into()))
                    .collect();
                Message::Welcome(Welcome {
                    version,
                    info,
                    site,
                    resync,
                    heartbeat_ms,
                    message_bytes_max,
                    clock,
                    upstream_stores,
                    takes_early,
                })
            }
        ),
        (any::<[u64; 2]>(), proptest::collection::vec(report(), 0..3)).prop_map(|([updates, at], held_back)| {
            Message::Ack(Ack { updates, revision: Revision(at), held_back })
        }),
        (clock(), any::<[u64; 2]>(), health()).prop_map(|(clock, [head, lag_ns], health)| {
            Message::Heartbeat(Heartbeat { clock, head: Revision(head), lag_ns, health })
        }),
        close.prop_map(|(code, text, retry_after_ms)| {
            Message::Close(Close { reason: CloseReason::from_code(code), text, retry_after_ms })
        }),
    ]
}

/// Equality to the bit: `Update` compares values by their bits already.
fn round_trips(messages: &[Message]) -> Result<(), TestCaseError> {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(BYTES_MAX));
    for message in messages {
        let bytes = encoded(&mut encoder, message);
        prop_assert_eq!(&decoder.decode(&bytes).unwrap(), message);
    }
    Ok(())
}

#[test]
fn messages_are_encoded_as_the_protocol_page_shows() {
    let page = include_str!("../../docs/reference/protocol.md");
    let heartbeat =
        Heartbeat { clock: ClockSample { sent_ns: 1, echo: None }, head: Revision(7), lag_ns: 300, health: None };
    let ack = Ack { updates: 2, revision: Revision(1743), held_back: Vec::new() };
    let close = Close { reason: CloseReason::Shutdown, text: "bye".into(), retry_after_ms: Some(500) };
    for message in [Message::Heartbeat(heartbeat), Message::Ack(ack), Message::Close(close)] {
        let bytes = encoded(&mut Encoder::new(), &message);
        let hexadecimal: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let vector = format!("| `{}` |", hexadecimal.join(" "));
        assert!(page.contains(&vector), "{message:?} is {vector}");
    }
}

#[test]
fn a_heartbeat_of_an_older_peer_has_no_health_and_a_later_field_is_skipped() {
    let plain =
        Heartbeat { clock: ClockSample { sent_ns: 1, echo: None }, head: Revision(7), lag_ns: 300, health: None };
    let mut bytes = encoded(&mut Encoder::new(), &Message::Heartbeat(plain.clone()));
    let decode = |bytes: &[u8]| Decoder::new(BYTES_MAX).decode(bytes).unwrap();
    assert_eq!(decode(&bytes), Message::Heartbeat(plain.clone()));
    // Field 15 of bytes is not known here, as field 4 is not to an older peer.
    bytes.extend_from_slice(&[0x7a, 2, 1, 2]);
    assert_eq!(decode(&bytes), Message::Heartbeat(plain));
}

#[test]
fn the_words_of_a_failure_are_cut_when_sent_and_refused_when_longer() {
    let heartbeat = |bytes: usize| {
        let health = Health { store_failure: Some("x".repeat(bytes)), ..Health::default() };
        Message::Heartbeat(Heartbeat { health: Some(Box::new(health)), ..Heartbeat::default() })
    };
    let bytes = encoded(&mut Encoder::new(), &heartbeat(5_000));
    assert_eq!(Decoder::new(BYTES_MAX).decode(&bytes).unwrap(), heartbeat(message::TEXT_BYTES_MAX));
    // The same message with one byte more: kind 5, field 4, whose field 19 has the text.
    let text = [&[0x9a, 1, 0x81, 8][..], &[b'x'; 1_025]].concat();
    let hostile = [&[5, 0x22, 0x85, 8][..], &text].concat();
    let error = Decoder::new(BYTES_MAX).decode(&hostile).unwrap_err();
    assert!(error.to_string().contains("1025"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_conversation_arrives_as_it_was_sent(
        messages in proptest::collection::vec(prop_oneof![4 => update(), 1 => plain()], 1..12),
    ) {
        round_trips(&messages)?;
    }

    #[test]
    fn a_message_cut_anywhere_is_safe_to_decode(
        before in proptest::collection::vec(update(), 0..3),
        message in prop_oneof![2 => update(), 1 => plain()],
    ) {
        let mut encoder = Encoder::new();
        let before: Vec<_> = before.iter().map(|message| encoded(&mut encoder, message)).collect();
        let bytes = encoded(&mut encoder, &message);
        for len in 0..bytes.len() {
            let mut decoder = Decoder::new(BYTES_MAX);
            for bytes in &before {
                decoder.decode(bytes).unwrap();
            }
            if let (Ok(Message::Update(cut)), Message::Update(whole)) = (decoder.decode(&bytes[..len]), &message) {
                prop_assert_ne!(&cut, whole);
            }
        }
    }

    #[test]
    fn changed_bytes_are_safe_to_decode(
        messages in proptest::collection::vec(update(), 1..4),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(BYTES_MAX));
        for message in &messages {
            let mut bytes = encoded(&mut encoder, message);
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = decoder.decode(&bytes);
        }
    }

    #[test]
    fn any_bytes_are_safe_to_decode(kind in 0..8u8, body in proptest::collection::vec(any::<u8>(), 0..60)) {
        let bytes: Vec<u8> = std::iter::once(kind).chain(body).collect();
        let _ = Decoder::new(BYTES_MAX).decode(&bytes);
    }

    #[test]
    fn the_cost_of_deltas_bounds_their_bytes(deltas in proptest::collection::vec(delta(), 0..5)) {
        let families = deltas.iter().flat_map(|d| d.group.families()).map(|f| Cost::of_family(&f.family));
        let cost = deltas.iter().map(Cost::of_header).chain(families).fold(Cost::default(), Cost::plus);
        let (upto, set) = (Revision(u64::MAX), true);
        let update = Update { upto, partial: set, last_of_resync: set, ack_may_wait: set, deltas };
        let bytes = encoded(&mut Encoder::new(), &Message::Update(update));
        prop_assert!(cost.fits(BYTES_MAX) && cost.bytes() + 128 >= bytes.len());
    }

    /// Deltas with many series, of one layout or several, with the largest values, sent again or not. With long
    /// labels, the size is close to the bound.
    #[test]
    fn the_cost_of_a_large_family_bounds_its_bytes_closely(
        values in proptest::collection::vec(number(), 1..600),
        before in proptest::option::of(number()),
        label in "[a-z]{0,40}",
        layouts in 1..4usize,
        raw_metric in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..200)),
    ) {
        let family = |value: &dyn Fn(usize) -> f64| {
            let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
            for at in 0..values.len() {
                let (name, text) = (format!("name{}", at % layouts), format!("{label}{at:05}"));
                builder.series(&[(&name, &text)], &ValueLayout::Single, &[value(at)], raw_metric.as_deref());
            }
            builder.finish().unwrap()
        };
        let mut encoder = Encoder::new();
        if let Some(before) = before {
            encoded(&mut encoder, &message(vec![put("a", 1, vec![family(&|_| before)])]));
        }
        let delta = put("a", u64::MAX >> 1, vec![family(&|at| values[at])]);
        let cost = Cost::of_header(&delta).plus(Cost::of_family(&delta.group.families()[0].family)).bytes();
        let bytes = encoded(&mut encoder, &message(vec![delta])).len();
        prop_assert!(bytes <= cost + 128, "{} bytes, where {} were said", bytes, cost);
        prop_assert!(before.is_some() || cost <= bytes + 512 + 10 * values.len(), "{} bytes are said to be {}", bytes, cost);
    }
}

/// Decimals of all scales, and doubles that are no decimals, so that runs are short and differences long.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-(1i64 << 53)..=1 << 53, 0..10i32).prop_map(|(m, scale)| m as f64 / 10f64.powi(scale)),
        (-50i64..50, 0..10i32).prop_map(|(m, scale)| m as f64 / 10f64.powi(scale)),
    ]
}

/// A push of two million series with one short label each takes less than a link accepts by default.
#[test]
fn every_push_within_the_limits_can_be_sent() {
    let mut builder = FamilyBuilder::new("requests_total", MetricType::Counter);
    for at in 0..200_000 {
        builder.series(&[("path", &format!("/some/path/{at:06}"))], &ValueLayout::Single, &[at as f64], None);
    }
    let cost = Cost::of_family(&builder.finish().unwrap());
    assert!(cost.fits((64 << 20) / 10), "{} bytes", cost.bytes());
}

fn gauge(name: &str, series: usize, value: f64) -> Family {
    let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
    for at in 0..series {
        builder.series(&[("at", &format!("{at:05}"))], &ValueLayout::Single, &[value + at as f64], None);
    }
    builder.finish().unwrap()
}

fn put(job: &str, time_ns: u64, families: Vec<Family>) -> Delta {
    let moment = PushTime { stamp: WriteTimestamp { time_ns, node: NodeId(1) }, wall_ns: time_ns };
    Delta { id: GroupId::local(LabelSet::new([("job", job)])), group: Group::put(moment, families) }
}

fn message(deltas: Vec<Delta>) -> Message {
    Message::Update(Update { upto: Revision(1), deltas, ..Update::default() })
}

#[test]
fn a_schema_is_sent_once() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(BYTES_MAX));
    let first = encoded(&mut encoder, &message(vec![put("a", 1, vec![gauge("m", 100, 1.0)])]));
    let other = encoded(&mut encoder, &message(vec![put("b", 2, vec![gauge("m", 100, 1.0)])]));
    let again = encoded(&mut encoder, &message(vec![put("a", 3, vec![gauge("m", 100, 2.0)])]));
    let same = encoded(&mut encoder, &message(vec![put("a", 4, vec![gauge("m", 100, 2.0)])]));
    assert!(first.len() > 600 && other.len() < 260 && again.len() < 130 && same.len() < 30);
    for bytes in [first, other, again, same] {
        decoder.decode(&bytes).unwrap();
    }
}

/// Before compression, which more than halves it.
#[test]
fn samples_that_move_as_metrics_do_take_less_than_three_bytes() {
    let mut encoder = Encoder::new();
    let round = |round: u64| -> Vec<Delta> {
        let value = |at: u64| (10_000 + 7 * round + at * round % 13) as f64;
        let families = |group: u64| {
            let names =
                (0..10).map(move |at| (format!("m{at}"), value(at + group) / [1.0, 100.0, 1_000.0][at as usize % 3]));
            names.map(|(name, value)| gauge(&name, 1, value)).collect()
        };
        let time_ms = |group: u64| 1_700_000_000_000 + 15_000 * round + 15 * group;
        (0..200).map(|group| put(&format!("job{group}"), 1_000_000 * time_ms(group), families(group))).collect()
    };
    encoded(&mut encoder, &message(round(1)));
    let bytes = encoded(&mut encoder, &message(round(2)));
    assert!(bytes.len() < 3 * 2_000, "{}", bytes.len());
}

#[test]
fn an_unchanged_family_is_one_object_at_the_receiver() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(BYTES_MAX));
    let mut received = Vec::new();
    for time_ns in 1..3 {
        let bytes = encoded(&mut encoder, &message(vec![put("a", time_ns, vec![gauge("m", 10, 1.0)])]));
        let Message::Update(update) = decoder.decode(&bytes).unwrap() else { panic!("an update") };
        received.push(update.deltas[0].group.families()[0].family.clone());
    }
    assert!(Arc::ptr_eq(received[0].schema(), received[1].schema()));
    assert!(received[0].values().shares(received[1].values()));
}

#[test]
fn dead_schemas_and_keys_are_forgotten_at_both_ends() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(BYTES_MAX));
    for round in 0..200u64 {
        let job = format!("job{round}");
        let deletion = WriteTimestamp { time_ns: 3 * round + 2, node: NodeId(1) };
        let delete = Delta { id: GroupId::local(LabelSet::new([("job", &*job)])), group: Group::delete(deletion) };
        let push = put(&job, 3 * round + 1, vec![gauge(&format!("m{round}"), 100, 1.0)]);
        decoder.decode(&encoded(&mut encoder, &message(vec![push]))).unwrap();
        decoder.decode(&encoded(&mut encoder, &message(vec![delete]))).unwrap();
    }
    let groups = |dictionary: &dictionary::Dictionary| (dictionary.groups.next(), dictionary.next_schema());
    assert_eq!(groups(encoder.dictionary()), (0, 0));
    assert_eq!(groups(decoder.dictionary()), (0, 0));
}

#[test]
fn bounds_are_kept_by_the_decoder() {
    let error = |decoder: &mut Decoder, bytes: &[u8]| decoder.decode(bytes).unwrap_err().to_string();
    let mut decoder = Decoder::new(BYTES_MAX);
    assert!(error(&mut decoder, &[]).contains("without bytes"));
    assert!(error(&mut decoder, &[77]).contains("unknown kind 77"));
    assert!(error(&mut decoder, &vec![3; BYTES_MAX + 1]).contains("1048577 bytes, where 1048576"));
    assert!(error(&mut decoder, &vec![1; 300_000]).contains("where 262144"));
    let late = put("a", u64::MAX - 5, vec![]);
    let bytes = encoded(&mut Encoder::new(), &message(vec![late]));
    assert!(error(&mut decoder, &bytes).contains("2262"));
    for key in [LabelSet::default(), LabelSet::new([("job", "")]), LabelSet::new([("job", "a"), ("__x", "b")])] {
        let delta =
            Delta { id: GroupId::local(key), group: Group::delete(WriteTimestamp { time_ns: 1, node: NodeId(1) }) };
        let bytes = encoded(&mut Encoder::new(), &message(vec![delta]));
        assert!(error(&mut Decoder::new(BYTES_MAX), &bytes).contains("grouping key"));
    }
}

/// A group named by its number, by its key while the key has a number, and by its key after that.
#[test]
fn an_update_that_names_a_group_twice_is_refused() {
    let delete = WriteTimestamp { time_ns: 3, node: NodeId(1) };
    let delete = Delta { id: put("a", 1, vec![]).id, group: Group::delete(delete) };
    let push = |time_ns| put("a", time_ns, vec![gauge("m", 10, 1.0)]);
    for deltas in [vec![push(1), push(2)], vec![push(1), put("b", 1, vec![]), push(2)], vec![push(1), delete, push(4)]]
    {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(BYTES_MAX));
        for delta in &deltas {
            decoder.decode(&encoded(&mut encoder, &message(vec![delta.clone()]))).unwrap();
        }
        let bytes = encoded(&mut Encoder::new(), &message(deltas));
        let error = Decoder::new(BYTES_MAX).decode(&bytes).unwrap_err().to_string();
        assert!(error.contains("names no group twice"), "{error}");
    }
}

/// An encoder never sends this: a key with a number gets another number in a later update.
#[test]
fn a_key_that_has_a_number_is_given_no_other() {
    let (mut honest, mut decoder) = (Encoder::new(), Decoder::new(BYTES_MAX));
    decoder.decode(&encoded(&mut honest, &message(vec![put("a", 1, vec![])]))).unwrap();
    // As if "b" had the first number: the next number is that of a new group.
    let mut other = Encoder::new();
    encoded(&mut other, &message(vec![put("b", 1, vec![])]));
    let again = encoded(&mut other, &message(vec![put("a", 2, vec![])]));
    let error = decoder.decode(&again).unwrap_err().to_string();
    assert!(error.contains("no key has two numbers"), "{error}");
}

/// A histogram layout of many bounds and many series: few bytes, many values.
#[test]
fn more_values_than_an_update_may_have_are_refused() {
    let bounds: Box<[_]> = (0..9_000).map(|bound| crate::model::Num(bound.into())).collect();
    let points = ValueLayout::Histogram { bounds, has_sum: true, has_count: true, float: false };
    let mut builder = FamilyBuilder::new("m", MetricType::Histogram);
    let zeros = vec![0.0; points.len()];
    for at in 0..1_000 {
        builder.series(&[("at", &at.to_string())], &points, &zeros, None);
    }
    let family = builder.finish().unwrap();
    assert!(!Cost::of_family(&family).fits(usize::MAX));
    let bytes = encoded(&mut Encoder::new(), &message(vec![put("a", 1, vec![family])]));
    assert!(bytes.len() < 100_000);
    let error = Decoder::new(BYTES_MAX).decode(&bytes).unwrap_err();
    assert!(error.to_string().contains("values of an update: 9002000"), "{error}");
}
