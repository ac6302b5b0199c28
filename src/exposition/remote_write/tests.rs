//! Messages decode to the samples that the page shows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::exposition::protobuf::message::{BucketSpan, Histogram, Metric, Timestamp};
use crate::exposition::text::TextRenderer;
use crate::model::{Escaping, Family, FamilyBuilder, LabelSet, MetricType, Num, ValueLayout};
use pushrelay_testkit::remote_write::{DecodedMessage, decode_message, decode_v2};

const TIME_MS: i64 = 1_800_000_000_123;
const LIMITS: BatchLimits = BatchLimits { samples_max: 7, bytes_max: 1 << 20 };

/// Labels and value bits of series; the name is the label `__name__`.
type Samples = BTreeMap<Vec<(String, String)>, u64>;

const V2: MessageForm = MessageForm::V2 { has_metadata: true };

fn decode_form(form: MessageForm, message: &[u8]) -> DecodedMessage {
    if form == MessageForm::V1 { decode_message(message) } else { decode_v2(message) }
}

/// The samples of a message of that time.
fn decoded(form: MessageForm, message: &[u8]) -> Vec<(Vec<(String, String)>, u64)> {
    let samples = decode_form(form, message).samples.into_iter();
    samples
        .map(|(labels, value, timestamp_ms)| {
            assert_eq!(timestamp_ms, TIME_MS);
            (labels, value)
        })
        .collect()
}

/// Encodes families in batches, and decodes them.
fn written(
    form: MessageForm,
    group: &LabelSet,
    families: &[Family],
    escaping: Escaping,
    external: &LabelSet,
) -> Samples {
    let mut encoder = SampleEncoder::new(escaping, ExternalLabels::new(external.clone()), false);
    let mut samples = Samples::new();
    for family in families {
        let mut next = Some(0);
        while let Some(from) = next {
            let mut batch = WriteBatch::new(form, TIME_MS, LIMITS);
            next = encoder.family(group, family, from, &mut batch, WriteBatch::is_full);
            let part = |part: &MessagePart| decoded(form, &batch.message(part));
            assert_eq!(part(&batch.whole()).len(), batch.whole().len());
            let halves = batch.whole().halves().map(|halves| halves.map(|half| part(&half)).concat());
            for (labels, value) in halves.unwrap_or_else(|| part(&batch.whole())) {
                assert!(samples.insert(labels, value).is_none(), "a series is there twice");
            }
        }
    }
    samples
}

/// The samples of a page of the text format.
fn scraped(group: &LabelSet, families: &[Family], escaping: Escaping, external: &LabelSet) -> Samples {
    let mut page = Vec::new();
    let mut renderer = TextRenderer::new(escaping);
    families.iter().for_each(|family| renderer.block(family.schema(), [(group, family)], &mut page));
    let page = String::from_utf8(page).unwrap();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (mut labels, value) = read_line(line);
        labels.retain(|_, value| !value.is_empty());
        for label in external.iter().filter(|label| !label.value.is_empty()) {
            labels.entry(label.name.to_owned()).or_insert(label.value.to_owned());
        }
        for mark in ["le", "quantile"] {
            if let Some(text) = labels.get_mut(mark)
                && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
            {
                text.push_str(".0");
            }
        }
        let value = match value {
            "NaN" => 0x7ff8_0000_0000_0001,
            "+Inf" => f64::INFINITY.to_bits(),
            "-Inf" => f64::NEG_INFINITY.to_bits(),
            number => number.parse::<f64>().unwrap().to_bits(),
        };
        (labels.into_iter().collect(), value)
    });
    samples.collect()
}

/// Labels, with the name as one of them, and the text of the value.
fn read_line(line: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    let (name, mut rest) = line.split_at(line.find(['{', ' ']).unwrap());
    if !name.is_empty() {
        labels.insert("__name__".to_owned(), name.to_owned());
    }
    rest = match rest.strip_prefix('{') {
        Some(inside) => inside,
        None => return (labels, &rest[1..]),
    };
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(value) = rest.strip_prefix("} ") {
            return (labels, value);
        }
        let (name, after) = if rest.starts_with('"') {
            quoted(rest)
        } else {
            let (name, after) = rest.split_at(rest.find('=').unwrap());
            (name.to_owned(), after)
        };
        rest = match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = quoted(value);
                labels.insert(name, value);
                after
            }
            None => {
                labels.insert("__name__".to_owned(), name);
                after
            }
        };
    }
}

/// The text between quotes, unescaped, and the rest.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.char_indices().skip(1));
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next().unwrap().1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    panic!("no end of {text}")
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(STALE_NAN),
        Just(-0.0),
        Just(0.0),
        Just(f64::INFINITY),
        (-5..5).prop_map(f64::from),
        any::<f64>()
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-c\"\\\\\nä]{1,4}"]
}

fn marks() -> impl Strategy<Value = Box<[Num]>> {
    let bounds = [-1.0, 0.0, 0.005, 0.5, 1.0, 10.0, 1e6, 123_456.0, f64::INFINITY].map(Num);
    prop::sample::subsequence(bounds.to_vec(), 0..=9).prop_map(Into::into)
}

fn family() -> impl Strategy<Value = Family> {
    let single = |metric_type| (Just(metric_type), Just(ValueLayout::Single));
    let kind = prop_oneof![
        single(MetricType::Counter),
        single(MetricType::Gauge),
        single(MetricType::Untyped),
        marks().prop_map(|quantiles| (
            MetricType::Summary,
            ValueLayout::Summary { quantiles, has_sum: true, has_count: true }
        )),
        marks().prop_map(|bounds| (
            MetricType::Histogram,
            ValueLayout::Histogram { bounds, has_sum: true, has_count: true, float: false }
        )),
    ];
    let name = prop_oneof![Just("metric"), Just("a.b"), Just("ä b")];
    let label = prop_oneof![Just("A"), Just("_x"), Just("instance"), Just("z"), Just("a.b")];
    let series = prop::collection::btree_map(prop::collection::btree_map(label, text(), 0..4), number(), 0..6);
    (name, kind, series).prop_map(|(name, (metric_type, layout), series)| {
        let mut builder = FamilyBuilder::new(name, metric_type);
        for (at, (labels, value)) in series.iter().enumerate() {
            // One label tells the series apart, whatever an escaping makes of the others.
            let at = at.to_string();
            let mut labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
            labels.push(("k", &at));
            labels.sort();
            let values: Vec<f64> = (0..layout.len()).map(|i| value + i as f64).collect();
            builder.series(&labels, &layout, &values, None);
        }
        builder.finish().unwrap()
    })
}

proptest! {
    #[test]
    fn messages_have_the_samples_of_the_page(
        family in family(),
        escaping in prop::sample::select(vec![Escaping::AllowUtf8, Escaping::Underscores, Escaping::Values]),
        job in text(),
        external in prop_oneof![
            Just(LabelSet::default()),
            Just(LabelSet::new([("instance", "i"), ("Z", "1"), ("job", "other"), ("zz", "")])),
        ],
    ) {
        let group = LabelSet::new([("job", &*job), ("IDC", "SYQ"), ("b.c", "1")]);
        let families = [family];
        let expected = scraped(&group, &families, escaping, &external);
        for form in [MessageForm::V1, V2] {
            prop_assert_eq!(&written(form, &group, &families, escaping, &external), &expected);
        }
    }
}

#[test]
fn bounds_are_those_that_prometheus_stores() {
    let bounds = [1.0, 0.0, -1.0, 0.005, 100.0, 1e6, 123_456_789.0, f64::INFINITY].map(Num);
    let layout = ValueLayout::Histogram { bounds: bounds.into(), has_sum: true, has_count: true, float: false };
    let mut builder = FamilyBuilder::new("h", MetricType::Histogram);
    builder.series(&[], &layout, &[1.0; 10], None);
    let (none, family) = (LabelSet::default(), builder.finish().unwrap());
    let samples = written(MessageForm::V1, &none, &[family], Escaping::AllowUtf8, &none);
    let mut marks: Vec<_> = samples.keys().flatten().filter(|label| label.0 == "le").map(|label| &*label.1).collect();
    marks.sort_unstable();
    assert_eq!(marks, ["+Inf", "-1.0", "0.0", "0.005", "1.0", "1.23456789e+08", "100.0", "1e+06"]);
}

#[test]
fn markers_have_the_stale_value() {
    let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
    builder.series(&[("a", "1")], &ValueLayout::Single, &[f64::NAN], None);
    let family = builder.finish().unwrap();
    for form in [MessageForm::V1, V2] {
        let mut encoder = SampleEncoder::new(Escaping::AllowUtf8, ExternalLabels::default(), true);
        let mut batch = WriteBatch::of_markers(form, TIME_MS, LIMITS);
        assert_eq!(encoder.family(&LabelSet::default(), &family, 0, &mut batch, WriteBatch::is_full), None);
        assert_eq!(decoded(form, &batch.message(&batch.whole()))[0].1, 0x7ff0_0000_0000_0002);
    }
}

/// A histogram with a native and a classic series, each with a start timestamp, as protobuf would bring them.
fn native_family() -> Family {
    let span = BucketSpan { offset: Some(-2), length: Some(2) };
    let created_timestamp = Some(Timestamp { seconds: 1_799_999_999, nanos: 5_000_000 });
    let native = Histogram {
        sample_count: Some(4),
        sample_sum: Some(STALE_NAN),
        schema: Some(3),
        zero_threshold: Some(0.5),
        zero_count: Some(1),
        positive_span: vec![span],
        positive_delta: vec![1, 1],
        created_timestamp,
        ..Histogram::default()
    };
    let classic = Histogram { sample_count: Some(2), sample_sum: Some(3.0), created_timestamp, ..Histogram::default() };
    let raw = |histogram| Metric { histogram: Some(Box::new(histogram)), ..Metric::default() }.encode_to_vec();
    let layout =
        |bounds: &[Num]| ValueLayout::Histogram { bounds: bounds.into(), has_sum: true, has_count: true, float: false };
    let mut builder = FamilyBuilder::new("h", MetricType::Histogram);
    builder.help(Some("Help.")).unit(Some("s"));
    builder.series(&[("a", "native")], &layout(&[Num(1.0)]), &[3.0, 1.0, 4.0], Some(&raw(native)));
    builder.series(&[("a", "classic")], &layout(&[]), &[3.0, 2.0], Some(&raw(classic)));
    builder.finish().unwrap()
}

#[test]
fn native_histograms_are_written_in_place_of_their_buckets() {
    let (family, group) = (native_family(), LabelSet::new([("job", "a")]));
    let limits = BatchLimits { samples_max: 100, ..LIMITS };
    let of = |form: MessageForm, has_natives: bool| {
        let mut encoder = SampleEncoder::new(Escaping::AllowUtf8, ExternalLabels::default(), has_natives);
        let mut batch = WriteBatch::new(form, TIME_MS, limits);
        encoder.family(&group, &family, 0, &mut batch, |_| false);
        decode_form(form, &batch.message(&batch.whole()))
    };
    let text = |labels: &[(String, String)]| {
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    };
    for form in [MessageForm::V1, V2] {
        let message = of(form, true);
        let samples: Vec<String> = message.samples.iter().map(|(labels, ..)| text(labels)).collect();
        let classic = ["__name__=h_bucket,a=classic,job=a,le=+Inf", "__name__=h_sum,a=classic,job=a"];
        assert_eq!(samples, [&classic[..], &["__name__=h_count,a=classic,job=a"]].concat());
        let [(labels, histogram)] = &message.histograms[..] else { panic!("{message:?}") };
        assert_eq!(text(labels), "__name__=h,a=native,job=a");
        let counts = (histogram.count, histogram.zero_count, histogram.schema, histogram.zero_threshold);
        assert_eq!(counts, (Some(4), Some(1), 3, 0.5));
        assert_eq!((histogram.spans(), &histogram.deltas[..]), (vec![(-2, 2)], &[1, 1][..]));
        assert_eq!((histogram.sum.to_bits(), histogram.timestamp), (ORDINARY_NAN.to_bits(), TIME_MS));
        assert_eq!((of(form, false).samples.len(), of(form, false).histograms.len()), (7, 0));
    }
    let message = of(V2, true);
    assert_eq!(message.starts.len(), 4);
    assert!(message.starts.contains(&("h".into(), 1_799_999_999_005)), "{:?}", message.starts);
    assert!(message.metadata.contains(&(3, "h_sum".into(), "Help.".into(), "s".into())), "{:?}", message.metadata);

    // The schema by which a later tick ends the series.
    let schema = native_schema(&family).unwrap();
    assert_eq!(samples_len(&schema), 4);
    let zeros = Family::new(schema.clone(), crate::model::Values::zeros(schema.values_len()), None).unwrap();
    let mut encoder = SampleEncoder::new(Escaping::AllowUtf8, ExternalLabels::default(), true);
    let mut batch = WriteBatch::of_markers(MessageForm::V1, TIME_MS, limits);
    encoder.family(&group, &zeros, 0, &mut batch, |_| false);
    let markers = decode_message(&batch.message(&batch.whole())).samples;
    assert!(markers.iter().any(|(labels, ..)| text(labels) == "__name__=h,a=native,job=a"), "{markers:?}");
}

#[test]
fn a_native_histogram_that_no_receiver_accepts_is_written_as_a_classic_one() {
    let span = BucketSpan { offset: Some(0), length: Some(u32::MAX) };
    let histogram = Histogram { positive_span: vec![span], positive_delta: vec![1], ..Histogram::default() };
    let raw = Metric { histogram: Some(Box::new(histogram)), ..Metric::default() }.encode_to_vec();
    let layout = ValueLayout::Histogram { bounds: [].into(), has_sum: true, has_count: true, float: false };
    let mut builder = FamilyBuilder::new("h", MetricType::Histogram);
    builder.series(&[], &layout, &[0.0, 0.0], Some(&raw));
    assert!(native_schema(&builder.finish().unwrap()).is_none());
}

#[test]
fn metadata_has_types_and_help() {
    let mut message = MetadataMessage::new(Escaping::Underscores);
    for (name, metric_type, help) in [
        ("a.b", MetricType::Counter, Some("Help.")),
        ("g", MetricType::Gauge, None),
        ("u", MetricType::Untyped, Some("")),
        ("h", MetricType::GaugeHistogram, Some("ä")),
        ("s", MetricType::Summary, None),
    ] {
        let mut builder = FamilyBuilder::new(name, metric_type);
        builder.help(help);
        message.add(builder.finish().unwrap().schema());
    }
    let metric = |number, name: &str, help: &str| (number, name.to_owned(), help.to_owned(), String::new());
    let expected =
        [metric(1, "a_b", "Help."), metric(2, "g", ""), metric(0, "u", ""), metric(3, "h", "ä"), metric(5, "s", "")];
    assert_eq!(decode_message(&message.finish().unwrap()).metadata, expected);
    let mut many = MetadataMessage::new(Escaping::AllowUtf8);
    assert!(MetadataMessage::new(Escaping::AllowUtf8).finish().is_none());
    let schema = FamilyBuilder::new("m", MetricType::Gauge).finish().unwrap().schema().clone();
    for _ in 0..2_000 {
        assert!(!many.is_full());
        many.add(&schema);
    }
    assert!(many.is_full());
}
