//! Delimited protobuf in and out.

use proptest::prelude::*;
use prost::Message;

use super::message::{BucketSpan, Counter, Exemplar, Gauge, Histogram, LabelPair, Metric};
use super::wire::{put_bytes, put_uint, put_varint};
use super::{ProtobufError, ProtobufRenderer, is_raw_metric, parse};
use crate::exposition::{Escaping, HistogramFault, Limit, NameValidation, PushLimits, PushRefusal, text};
use crate::model::{Family, LabelSet, MetricType, ValueLayout};

fn group() -> LabelSet {
    LabelSet::new([("job", "a")])
}

/// A family's message after its length.
fn delimited(name: &[u8], metric_type: i32, metrics: &[Vec<u8>]) -> Vec<u8> {
    let mut message = Vec::new();
    put_bytes(1, name, &mut message);
    put_bytes(2, b"Help.", &mut message);
    put_uint(3, metric_type as u64, &mut message);
    for metric in metrics {
        put_bytes(4, metric, &mut message);
    }
    let mut body = Vec::new();
    put_varint(message.len() as u64, &mut body);
    body.extend(message);
    body
}

fn label(name: &[u8], value: &[u8]) -> LabelPair {
    LabelPair { name: Some(name.to_vec()), value: Some(value.to_vec()) }
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let label = labels.iter().map(|(name, value)| label(name.as_bytes(), value.as_bytes())).collect();
    Metric { label, gauge: Some(Gauge { value: Some(value) }), ..Metric::default() }
}

fn native() -> Metric {
    let span = BucketSpan { offset: Some(-1), length: Some(2) };
    let histogram = Histogram {
        sample_count: Some(3),
        sample_sum: Some(7.5),
        schema: Some(3),
        positive_span: vec![span],
        positive_delta: vec![1, 1],
        ..Histogram::default()
    };
    Metric { histogram: Some(Box::new(histogram)), ..Metric::default() }
}

fn families(body: &[u8]) -> Result<Result<Vec<Family>, PushRefusal>, ProtobufError> {
    let raw = parse(body, NameValidation::Legacy, &PushLimits::default())?;
    let families: Result<Vec<Family>, PushRefusal> = raw.iter().map(|raw| raw.family(&group())).collect();
    // A hub refuses others.
    let raw_metrics =
        families.iter().flatten().filter_map(Family::raw_metrics).flat_map(|raw_metrics| raw_metrics.iter());
    raw_metrics.for_each(|raw_metric| assert!(is_raw_metric(raw_metric), "{raw_metric:?}"));
    Ok(families)
}

fn page(families: &[Family]) -> Vec<u8> {
    let mut page = Vec::new();
    let mut renderer = ProtobufRenderer::delimited(Escaping::Underscores);
    let group = group();
    for family in families {
        renderer.block(family.schema(), [(&group, family)], &mut page);
    }
    page
}

#[test]
fn metrics_that_values_can_express_need_no_raw_metric() {
    let metrics = [gauge(&[("b", "2"), ("a", "1")], 1.5).encode_to_vec(), gauge(&[], -0.0).encode_to_vec()];
    let pushed = families(&delimited(b"m", 1, &metrics)).unwrap().unwrap();
    assert_eq!(pushed[0].schema().help(), Some("Help."));
    assert_eq!(pushed[0].raw_metrics(), None);
    assert_eq!(pushed[0].values()[0].to_bits(), (-0.0_f64).to_bits());
    assert_eq!(families(&page(&pushed)).unwrap().unwrap(), pushed);
}

#[test]
fn metrics_that_values_cannot_express_become_raw_metrics_without_labels() {
    let mut native = native();
    let bare = native.encode_to_vec();
    native.label = vec![label(b"x", b"1")];
    let pushed = families(&delimited(b"h", 4, &[native.encode_to_vec()])).unwrap().unwrap();
    assert_eq!(*pushed[0].raw_metrics().unwrap()[0], *bare);
    assert_eq!(pushed[0].values()[..], [7.5, 3.0]);
    assert_eq!(families(&page(&pushed)).unwrap().unwrap(), pushed);

    let exemplar = Exemplar { label: vec![label(b"\xff", b"1")], value: Some(1.0), timestamp: None };
    let counter = Counter { value: Some(1.0), exemplar: Some(exemplar), created_timestamp: None };
    let cases = [
        (0, Metric { counter: Some(counter), ..Metric::default() }),
        (1, Metric { gauge: Some(Gauge::default()), ..Metric::default() }),
        (1, Metric { counter: Some(Counter::default()), ..gauge(&[], 1.0) }),
        (
            4,
            Metric {
                histogram: Some(Box::new(Histogram { sample_count: Some(u64::MAX - 1), ..Histogram::default() })),
                ..Metric::default()
            },
        ),
    ];
    for (metric_type, metric) in cases {
        let pushed = families(&delimited(b"m", metric_type, &[metric.encode_to_vec()])).unwrap().unwrap();
        assert_eq!(*pushed[0].raw_metrics().unwrap()[0], *metric.encode_to_vec(), "{metric:?}");
    }
}

#[test]
fn fields_around_and_between_labels_are_joined() {
    let mut metric = vec![0x98, 0x06, 1];
    metric.extend(gauge(&[("a", "1")], 2.0).encode_to_vec());
    metric.extend(gauge(&[("b", "1")], 3.0).encode_to_vec());
    let pushed = families(&delimited(b"m", 1, &[metric])).unwrap().unwrap();
    assert_eq!(pushed[0].values()[..], [3.0]);
    assert_eq!(pushed[0].schema().layouts()[0].names.len(), 3);
    let mut raw_metric = vec![0x98, 0x06, 1];
    raw_metric.extend(gauge(&[], 2.0).encode_to_vec());
    raw_metric.extend(gauge(&[], 3.0).encode_to_vec());
    assert_eq!(*pushed[0].raw_metrics().unwrap()[0], *raw_metric);
}

#[test]
fn the_last_family_of_a_name_counts_even_without_metrics() {
    let body = [delimited(b"m", 1, &[gauge(&[], 1.0).encode_to_vec()]), delimited(b"m", 1, &[])].concat();
    let pushed = families(&body).unwrap().unwrap();
    assert_eq!((pushed.len(), pushed[0].schema().series_len()), (1, 0));
    assert!(page(&pushed).is_empty());
}

#[test]
fn invalid_metrics_are_refused() {
    let refused = |metric_type, metric: Metric| {
        families(&delimited(b"m", metric_type, &[metric.encode_to_vec()])).unwrap().unwrap_err()
    };
    for metric_type in [0, 2, 3, 4, 5] {
        assert!(matches!(refused(metric_type, gauge(&[], 1.0)), PushRefusal::WrongType { .. }));
    }
    assert_eq!(refused(1, Metric { timestamp_ms: Some(0), ..gauge(&[], 1.0) }), PushRefusal::Timestamp);
    assert!(matches!(refused(1, gauge(&[("", "x")], 1.0)), PushRefusal::LabelName { .. }));
    assert!(matches!(refused(1, gauge(&[("a", ""), ("a", "")], 1.0)), PushRefusal::DuplicateLabel { .. }));
    let not_utf8 = Metric { label: vec![label(b"a", b"\xff")], ..gauge(&[], 1.0) };
    assert!(matches!(refused(1, not_utf8), PushRefusal::LabelValue { .. }));
    let two = [gauge(&[("job", "x")], 1.0).encode_to_vec(), gauge(&[("job", "y")], 1.0).encode_to_vec()];
    assert!(matches!(families(&delimited(b"m", 1, &two)).unwrap().unwrap_err(), PushRefusal::DuplicateSeries { .. }));
}

#[test]
fn a_native_histogram_that_breaks_a_rule_is_refused() {
    let with = |change: fn(&mut Histogram)| {
        let mut metric = native();
        metric.histogram.as_deref_mut().map(change);
        let metrics = [native().encode_to_vec(), metric.encode_to_vec()];
        [4, 5].map(|number| families(&delimited(b"h", number, &metrics[1..])).unwrap().map(|_| ()))
    };
    let refused = |fault: HistogramFault| {
        [(); 2].map(|()| Err(PushRefusal::Histogram { family: "h".into(), fault: fault.clone() }))
    };
    assert_eq!(with(|_| ()), [Ok(()), Ok(())]);
    assert_eq!(with(|h| h.sample_count = Some(7)), refused(HistogramFault::Count { count: 7, buckets: 3 }));
    assert_eq!(with(|h| h.schema = Some(9)), refused(HistogramFault::Schema(9)));
    let text = refused(HistogramFault::Count { count: 7, buckets: 3 })[0].clone().unwrap_err().to_string();
    assert_eq!(
        text,
        "collected metric \"h\" is not a valid native histogram: its count is 7, but its buckets have 3 observations"
    );
}

#[test]
fn invalid_names_and_unknown_types_are_refused() {
    let refused = |body: &[u8]| families(body).unwrap().unwrap_err();
    let metric = gauge(&[("a.b", "")], 1.0).encode_to_vec();
    assert_eq!(refused(&delimited(b"", 1, &[])), PushRefusal::MetricName(String::new()));
    assert_eq!(refused(&delimited(b"a.b", 1, &[])), PushRefusal::MetricName("a.b".to_owned()));
    assert_eq!(refused(&delimited(b"\xff", 1, &[])), PushRefusal::MetricName("\u{fffd}".to_owned()));
    assert_eq!(refused(&delimited(b"m", 6, &[])), PushRefusal::MetricType { family: "m".into(), number: 6 });
    let label = PushRefusal::LabelName { family: "m".into(), label: "a.b".into() };
    assert_eq!(refused(&delimited(b"m", 1, std::slice::from_ref(&metric))), label);
    let body = delimited(b"a.b", 1, &[metric]);
    let utf8 = parse(&body, NameValidation::Utf8, &PushLimits::default()).unwrap();
    assert!(utf8[0].family(&group()).is_ok());
    // An error goes before a refusal.
    let cut = [delimited(b"a.b", 1, &[]), vec![5]].concat();
    assert_eq!(families(&cut).unwrap_err(), ProtobufError::Truncated { message: 2 });
}

#[test]
fn mistyped_fields_are_removed() {
    // In a summary: its count as bytes, a sum, and a quantile whose value is a varint.
    let summary = [&b"\x0a\x01a"[..], b"\x11\0\0\0\0\0\0\xf0\x3f", b"\x1a\x02\x10\x05"].concat();
    let mut metric = Vec::new();
    put_bytes(4, &summary, &mut metric);
    let pushed = families(&delimited(b"s", 2, &[metric])).unwrap().unwrap();
    assert_eq!(pushed[0].values()[..], [0.0, 1.0, 0.0]);
    let raw_metric = Metric::decode(&*pushed[0].raw_metrics().unwrap()[0]).unwrap().summary.unwrap();
    assert_eq!((raw_metric.sample_count, raw_metric.sample_sum, raw_metric.quantile.len()), (None, Some(1.0), 1));
}

#[test]
fn bytes_that_are_no_family_are_an_error() {
    let error = |body: &[u8]| families(body).unwrap_err();
    assert_eq!(error(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]), ProtobufError::Truncated { message: 1 });
    assert_eq!(error(&[255; 11]), ProtobufError::InvalidWire { message: 1 });
    assert_eq!(error(&[2, 0x0a, 5]), ProtobufError::InvalidWire { message: 1 });
    assert_eq!(error(b"m 1\n"), ProtobufError::Truncated { message: 1 });
}

#[test]
fn bounds_are_kept() {
    let limits = PushLimits {
        line_bytes_max: 1,
        labels_per_series_max: 1,
        series_max: 2,
        families_max: 1,
        parts_per_series_max: 20,
        values_max: 20,
        ..PushLimits::default()
    };
    let parse = |body: Vec<u8>| parse(&body, NameValidation::Legacy, &limits).map(|families| families.len());
    let metrics = |labels: &[(&str, &str)], count: usize| vec![gauge(labels, 1.0).encode_to_vec(); count];
    assert_eq!(parse(delimited(b"m", 1, &metrics(&[("a", "")], 2))), Ok(1));
    assert_eq!(parse(delimited(b"m", 1, &metrics(&[], 3))), Err(ProtobufError::Limit(Limit::Series(2))));
    let two = metrics(&[("a", ""), ("b", "")], 1);
    assert_eq!(parse(delimited(b"m", 1, &two)), Err(ProtobufError::Limit(Limit::LabelsPerSeries(1))));
    // Neither the label beyond the limit nor anything after it is read.
    let endless = [two[0].clone(), vec![0x0a, 5]].concat();
    assert_eq!(parse(delimited(b"m", 1, &[endless])), Err(ProtobufError::Limit(Limit::LabelsPerSeries(1))));
    let many = [delimited(b"m", 1, &[]), delimited(b"n", 1, &[])].concat();
    assert_eq!(parse(many), Err(ProtobufError::Limit(Limit::Families(1))));
    let histograms = |parts: &[u8], count: usize| {
        let mut metric = Vec::new();
        put_bytes(7, parts, &mut metric);
        parse(delimited(b"h", 4, &vec![metric; count]))
    };
    assert_eq!(histograms(&[0x1a, 0].repeat(8), 2), Ok(1));
    assert_eq!(histograms(&[0x1a, 0].repeat(9), 2), Err(ProtobufError::Limit(Limit::Values(20))));
}

/// Small parts decode to many times their size, so they are counted before they are decoded.
#[test]
fn parts_of_a_metric_are_bounded() {
    let limits = PushLimits { parts_per_series_max: 100, ..PushLimits::default() };
    let parse = |kind: i32, field: u8, parts: &[u8]| {
        let mut metric = Vec::new();
        put_bytes(field, parts, &mut metric);
        parse(&delimited(b"m", kind, &[metric]), NameValidation::Legacy, &limits).map(|families| families.len())
    };
    let packed = |field: u8, entry: &[u8], count: usize| {
        let mut list = Vec::new();
        put_bytes(field, &entry.repeat(count), &mut list);
        list
    };
    let bucket = |count: usize| packed(3, &packed(3, &[0x0a, 0], count), 1);
    // The message around the parts counts too.
    type Parts<'a> = &'a dyn Fn(usize) -> Vec<u8>;
    let cases: [(i32, u8, Parts<'_>, usize); 11] = [
        (2, 4, &|count| [0x1a, 0].repeat(count), 99),
        (4, 7, &|count| [0x1a, 0].repeat(count), 99),
        (4, 7, &|count| [0x4a, 0].repeat(count), 99),
        (4, 7, &|count| [0x62, 0].repeat(count), 99),
        (4, 7, &|count| [0x82, 1, 0].repeat(count), 99),
        (4, 7, &|count| packed(10, &[0x80, 1], count), 99),
        (4, 7, &|count| [0x68, 1].repeat(count), 99),
        (4, 7, &|count| packed(14, &[0; 8], count), 99),
        (4, 7, &|count| [&[0x59][..], &[0; 8]].concat().repeat(count), 99),
        (4, 7, &bucket, 97),
        (0, 3, &|count| packed(2, &[0x0a, 0], count), 98),
    ];
    for (kind, field, parts, most) in cases {
        assert_eq!(parse(kind, field, &parts(most)), Ok(1), "{:x?}", parts(1));
        let limit = Err(ProtobufError::Limit(Limit::PartsPerSeries(100)));
        assert_eq!(parse(kind, field, &parts(most + 1)), limit, "{:x?}", parts(1));
    }
    // Neither a repeated sum nor an unknown field counts as a part.
    let sums = [&[0x11][..], &[0; 8]].concat().repeat(500);
    assert_eq!(parse(4, 7, &[sums, [0x8a, 1, 0].repeat(500)].concat()), Ok(1));
}

#[test]
fn messages_are_printed_as_text_too() {
    let pushed =
        families(&delimited(b"m", 1, &[gauge(&[("a", "\"\n\u{1}é")], f64::INFINITY).encode_to_vec()])).unwrap();
    let (group, pushed) = (LabelSet::default(), pushed.unwrap());
    let print = |mut renderer: ProtobufRenderer| {
        let mut text = Vec::new();
        renderer.block(pushed[0].schema(), [(&group, &pushed[0])], &mut text);
        String::from_utf8(text).unwrap()
    };
    let compact = "name:\"m\" help:\"Help.\" type:GAUGE metric:{label:{name:\"a\" value:\"\\\"\\n\\x01é\"} \
                   label:{name:\"instance\" value:\"\"} gauge:{value:inf}}\n";
    assert_eq!(print(ProtobufRenderer::compact_text(Escaping::Underscores)), compact);
    let lines = "name: \"m\"\nhelp: \"Help.\"\ntype: GAUGE\nmetric: {\n  label: {\n    name: \"a\"\n    \
                 value: \"\\\"\\n\\x01é\"\n  }\n  label: {\n    name: \"instance\"\n    value: \"\"\n  }\n  gauge: {\n    \
                 value: inf\n  }\n}\n\n";
    assert_eq!(print(ProtobufRenderer::text(Escaping::Underscores)), lines);
}

#[test]
fn a_push_as_text_is_the_same_as_a_push_as_protobuf() {
    let body = "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\",a=\"\\n\"} 1\nh_sum{a=\"\\n\"} 1.5\nh_count 2\n\
                # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_count 1\n# TYPE f gaugehistogram\nf_count 1.5\nm 3\n";
    let raw = text::parse(body.as_bytes(), NameValidation::Legacy, &PushLimits::default()).unwrap();
    let pushed: Vec<Family> = raw.iter().map(|raw| raw.family(&group()).unwrap()).collect();
    assert_eq!(families(&page(&pushed)).unwrap().unwrap(), pushed);
}

/// Metrics that values can express, and others.
fn metric() -> impl Strategy<Value = Metric> {
    let labels = prop::collection::btree_map("[a-c]", "[xé\\n]?", 0..3);
    let labels = labels.prop_map(|labels| labels.iter().map(|(n, v)| label(n.as_bytes(), v.as_bytes())).collect());
    let points = prop_oneof![Just(None), prop::collection::vec(any::<u64>(), 0..4).prop_map(Some)];
    let values = (any::<Option<u64>>(), any::<Option<f64>>(), points, any::<Option<f64>>());
    let histogram = values.prop_map(|(sample_count, sample_sum, deltas, zero_threshold)| Histogram {
        sample_count,
        sample_sum,
        positive_delta: deltas.unwrap_or_default().iter().map(|delta| *delta as i64).collect(),
        zero_threshold,
        ..Histogram::default()
    });
    (labels, histogram).prop_map(|(label, histogram)| Metric {
        label,
        histogram: Some(Box::new(histogram)),
        ..Metric::default()
    })
}

#[test]
fn a_raw_metric_has_neither_labels_nor_a_timestamp() {
    let metric = gauge(&[], 1.0);
    let labelled = gauge(&[("place", "another")], 1.0);
    let stamped = Metric { timestamp_ms: Some(0), ..metric.clone() };
    assert!(is_raw_metric(&metric.encode_to_vec()) && is_raw_metric(b""));
    for bytes in [labelled.encode_to_vec(), stamped.encode_to_vec(), b"\xff".to_vec(), b"\x12\x09\x09".to_vec()] {
        assert!(!is_raw_metric(&bytes), "{bytes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn families_round_trip(metrics in prop::collection::vec(metric(), 0..4)) {
        let metrics: Vec<Vec<u8>> = metrics.iter().map(Metric::encode_to_vec).collect();
        if let Ok(pushed) = families(&delimited(b"h", 4, &metrics)).unwrap() {
            let page = page(&pushed);
            if pushed[0].schema().series_len() > 0 {
                prop_assert_eq!(families(&page).unwrap().unwrap(), pushed);
            }
        }
    }

    #[test]
    fn a_body_cut_anywhere_is_an_error(metrics in prop::collection::vec(metric(), 0..3)) {
        let metrics: Vec<Vec<u8>> = metrics.iter().map(Metric::encode_to_vec).collect();
        let body = delimited(b"h", 4, &metrics);
        for end in 1..body.len() {
            prop_assert_eq!(families(&body[..end]).unwrap_err(), ProtobufError::Truncated { message: 1 });
        }
    }

    #[test]
    fn no_bytes_panic(metrics in prop::collection::vec(metric(), 1..3), at: prop::sample::Index, byte: u8) {
        let metrics: Vec<Vec<u8>> = metrics.iter().map(Metric::encode_to_vec).collect();
        let mut body = delimited(b"h", 4, &metrics);
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(Ok(pushed)) = families(&body) {
            page(&pushed);
        }
    }

    #[test]
    fn values_and_messages_are_the_same(count: u32, sum: f64, float: bool) {
        let points = ValueLayout::Histogram { bounds: Box::default(), has_sum: true, has_count: true, float };
        let values = [sum, f64::from(count)];
        let metric = Metric::of(MetricType::Histogram, &points, &values);
        prop_assert_eq!(metric.values(MetricType::Histogram), Some((points, values.to_vec())));
    }
}
