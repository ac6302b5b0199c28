//! Any state that is accepted renders, in every form, to a page that a strict reader takes. The reader has the rules by
//! which Prometheus drops a whole scrape or one of two samples: valid names, no label twice, no series twice, one type
//! a name, and native histograms that keep their rules.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;

use super::ScrapeBody;
use crate::exposition::protobuf::message::{BucketSpan, Histogram, Metric};
use crate::exposition::{Encoding, Escaping, Format, NameValidation, PushLimits, raw_metric_fault};
use crate::gateway::body::{BodyReader, BodyRules, Headers};
use crate::model::label::{is_legacy_label_name, is_legacy_metric_name};
use crate::model::{
    Epoch, Family, FamilyBuilder, Group, GroupId, LabelSet, MetricType, NodeId, Num, PushTime, StoreId, ValueLayout,
    WriteTimestamp,
};
use crate::store::{Identity, Rules, Store, WriteOp, WriteTime};

/// The series of a page: name and labels, sorted, none empty.
pub(super) type Seen = HashSet<BTreeMap<String, String>>;

#[derive(Default)]
pub(super) struct StrictReader {
    pub(super) is_utf8: bool,
    pub(super) seen: Seen,
    pub(super) types: HashMap<String, String>,
}

impl StrictReader {
    fn series(&mut self, name: &str, labels: &[(String, String)]) -> Result<(), String> {
        if name.is_empty() || !(self.is_utf8 || is_legacy_metric_name(name)) {
            return Err(format!("the metric name {name:?}"));
        }
        let mut series = BTreeMap::from([("__name__".to_owned(), name.to_owned())]);
        for (label, value) in labels {
            if label.is_empty() || !(self.is_utf8 || is_legacy_label_name(label)) {
                return Err(format!("the label name {label:?} of {name}"));
            }
            if series.insert(label.clone(), value.clone()).is_some() {
                return Err(format!("label name {label:?} is not unique: {name} {labels:?}"));
            }
        }
        series.retain(|_, value| !value.is_empty());
        if self.seen.insert(series) { Ok(()) } else { Err(format!("series twice: {name} {labels:?}")) }
    }

    fn typed(&mut self, name: &str, metric_type: &str) -> Result<(), String> {
        match self.types.insert(name.to_owned(), metric_type.to_owned()) {
            None => Ok(()),
            Some(other) => Err(format!("{name} has two types: {other}, {metric_type}")),
        }
    }

    pub(super) fn text(&mut self, page: &str) -> Result<(), String> {
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, metric_type) = rest.rsplit_once(' ').ok_or(line)?;
                self.typed(&unquoted(name), metric_type)?;
            } else if !line.starts_with('#') {
                let (name, labels) = sample(line).ok_or_else(|| format!("the line {line}"))?;
                self.series(&name, &labels)?;
            }
        }
        Ok(())
    }

    pub(super) fn protobuf(&mut self, mut page: &[u8]) -> Result<(), String> {
        while !page.is_empty() {
            let family = MetricFamily::decode_length_delimited(&mut page).map_err(|error| error.to_string())?;
            let name = family.name.unwrap_or_default();
            self.typed(&name, &family.metric_type.unwrap_or(0).to_string())?;
            for metric in family.metric {
                self.metric(&name, &metric)?;
            }
        }
        Ok(())
    }

    fn metric(&mut self, name: &str, metric: &Metric) -> Result<(), String> {
        let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap_or_default()).unwrap();
        let labels: Vec<(String, String)> =
            metric.label.iter().map(|label| (text(&label.name), text(&label.value))).collect();
        let with = |name: &str, value: f64| [&labels[..], &[(name.to_owned(), value.to_string())]].concat();
        let bare = Metric { label: Vec::new(), ..metric.clone() };
        if let Some(fault) = raw_metric_fault(&bare.encode_to_vec()) {
            return Err(format!("{name}: {fault}"));
        }
        if let Some(histogram) = &metric.histogram {
            for bucket in &histogram.bucket {
                self.series(&format!("{name}_bucket"), &with("le", bucket.upper_bound()))?;
            }
        } else if let Some(summary) = &metric.summary {
            for quantile in &summary.quantile {
                self.series(name, &with("quantile", quantile.quantile()))?;
            }
        } else {
            return self.series(name, &labels);
        }
        self.series(&format!("{name}_sum"), &labels)?;
        self.series(&format!("{name}_count"), &labels)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(int32, optional, tag = "3")]
    metric_type: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

pub(super) fn unquoted(name: &str) -> String {
    name.trim_matches('"').to_owned()
}

/// The name and labels of a sample's line. No name or value of these tests has an escape, comma or brace.
pub(super) fn sample(line: &str) -> Option<(String, Vec<(String, String)>)> {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        value.parse::<f64>().ok()?;
        return Some((name.to_owned(), Vec::new()));
    };
    let (labels, value) = rest.split_once("} ")?;
    value.parse::<f64>().ok()?;
    let mut name = name.to_owned();
    let mut pairs = Vec::new();
    for part in labels.split(',').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((label, value)) => {
                let value = value.strip_prefix('"')?.strip_suffix('"')?;
                pairs.push((unquoted(label), value.to_owned()));
            }
            None => name = unquoted(part),
        }
    }
    Some((name, pairs))
}

const METRICS: [&str; 10] =
    ["a.b", "a_b", "a_dot_b", "U__a_2e_b", "a-b", "a_b_sum", "a.b_count", "é", "ü", "push.time.seconds"];
const LABELS: [&str; 8] = ["x.y", "x_y", "x-y", "x_dot_y", "U__x_2e_y", "l", "instance", "..name__"];
const TYPES: [MetricType; 5] =
    [MetricType::Gauge, MetricType::Counter, MetricType::Untyped, MetricType::Summary, MetricType::Histogram];

type Labels = BTreeMap<&'static str, &'static str>;

fn labels(max: usize) -> impl Strategy<Value = Labels> {
    let value = prop::sample::select(vec!["", "1", "1", "2"]);
    prop::collection::btree_map(prop::sample::select(LABELS.to_vec()), value, 0..=max)
}

/// The quantiles or bounds of a summary or histogram, as written in a push.
const MARKS: [&[&str]; 4] = [&[], &["0.5"], &["0.5", "1"], &["0.5", "0.50"]];

/// A family to push.
#[derive(Clone, Debug)]
pub(super) struct Described {
    name: &'static str,
    metric_type: MetricType,
    series: Vec<Labels>,
    marks: &'static [&'static str],
    /// The count of a native histogram; 3 is right.
    count: u64,
}

fn described() -> impl Strategy<Value = Described> {
    let series = prop::collection::vec(labels(2), 1..3);
    let (name, metric_type) = (prop::sample::select(METRICS.to_vec()), prop::sample::select(TYPES.to_vec()));
    let marks = prop::sample::select(MARKS.to_vec());
    (name, metric_type, series, marks, 2..4_u64).prop_map(|(name, metric_type, series, marks, count)| Described {
        name,
        metric_type,
        series,
        marks,
        count,
    })
}

fn native(count: u64) -> Vec<u8> {
    let histogram = Histogram {
        sample_count: Some(count),
        sample_sum: Some(7.5),
        schema: Some(3),
        positive_span: vec![BucketSpan { offset: Some(0), length: Some(2) }],
        positive_delta: vec![1, 1],
        ..Histogram::default()
    };
    Metric { histogram: Some(Box::new(histogram)), ..Metric::default() }.encode_to_vec()
}

/// The family as an older edge may send it: nothing was checked but that no series is there twice.
fn unchecked(Described { name, metric_type, series, marks, count }: Described, group: &Labels) -> Option<Family> {
    let mut builder = FamilyBuilder::new(name, metric_type);
    let marks: Box<[Num]> = marks.iter().map(|mark| Num(mark.parse().unwrap())).collect();
    // A native histogram has no other buckets here.
    let raw_metric = (metric_type == MetricType::Histogram && marks.is_empty()).then(|| native(count));
    let layout = match metric_type {
        MetricType::Summary => ValueLayout::Summary { quantiles: marks, has_sum: true, has_count: true },
        MetricType::Histogram => ValueLayout::Histogram { bounds: marks, has_sum: true, has_count: true, float: false },
        _ => ValueLayout::Single,
    };
    let values = vec![3.0; layout.len()];
    for mut labels in series {
        labels.entry("instance").or_insert("");
        let own: Vec<(&str, &str)> = labels.into_iter().filter(|(name, _)| !group.contains_key(name)).collect();
        builder.series(&own, &layout, &values, raw_metric.as_deref());
    }
    builder.finish().ok()
}

fn body(families: Vec<Described>) -> String {
    let mut text = String::new();
    let names: BTreeMap<&str, Described> = families.into_iter().map(|family| (family.name, family)).collect();
    for Described { name, metric_type, series, marks, .. } in names.into_values() {
        text += &format!("# TYPE \"{name}\" {}\n", metric_type.name());
        for labels in series {
            let labels: String = labels.iter().map(|(name, value)| format!(",\"{name}\"=\"{value}\"")).collect();
            match metric_type {
                MetricType::Summary | MetricType::Histogram => {
                    let (suffix, label) =
                        if metric_type == MetricType::Summary { ("", "quantile") } else { ("_bucket", "le") };
                    for mark in marks {
                        text += &format!("{{\"{name}{suffix}\"{labels},{label}=\"{mark}\"}} 1\n");
                    }
                    text += &format!("{{\"{name}_sum\"{labels}}} 1\n{{\"{name}_count\"{labels}}} 1\n");
                }
                _ => text += &format!("{{\"{name}\"{labels}}} 1\n"),
            }
        }
    }
    text
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A push to a group of this node.
    Push(Labels, Vec<Described>),
    /// A push that arrives from an edge of that site.
    Merge(Labels, Labels, Vec<Described>),
    /// A delete of a group of this node.
    Delete(Labels),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let families = || prop::collection::vec(described(), 0..3);
    prop_oneof![
        4 => (labels(2), families()).prop_map(|(key, families)| Step::Push(key, families)),
        3 => (labels(1), labels(1), families()).prop_map(|(site, key, families)| Step::Merge(site, key, families)),
        1 => labels(1).prop_map(Step::Delete),
    ]
}

fn key(labels: &Labels) -> LabelSet {
    LabelSet::new(labels.iter().map(|(name, value)| (*name, *value)).chain([("job", "j")]))
}

pub(super) fn apply(store: &mut Store, reader: &BodyReader, step: Step, ns: u64) {
    let now = WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: ns };
    match step {
        Step::Push(labels, families) => {
            let target = key(&labels);
            let pushed = reader.read(Headers::default(), body(families).as_bytes(), &target, None);
            if let Ok(families) = pushed {
                let _refusal = store.write(GroupId::local(target), WriteOp::Post(families), now);
            }
        }
        Step::Merge(site, labels, families) => {
            let site =
                LabelSet::new(site.iter().filter(|label| !label.1.is_empty()).map(|(name, value)| (*name, *value)));
            let families = families.into_iter().filter_map(|family| unchecked(family, &labels));
            let mut by_name = BTreeMap::new();
            families.for_each(|family| drop(by_name.insert(family.name().clone(), family)));
            let stamp = WriteTimestamp { time_ns: ns, node: NodeId(7) };
            let change = Group::put(PushTime { stamp, wall_ns: ns }, by_name.into_values().collect());
            let id = GroupId { site: Arc::new(site), key: Arc::new(key(&labels)) };
            store.merge(&id, change, StoreId(7)).unwrap();
        }
        Step::Delete(labels) => store.write(GroupId::local(key(&labels)), WriteOp::Delete, now).unwrap(),
    }
    store.commit();
}

fn check(store: &Store) -> Result<(), String> {
    for escaping in [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values] {
        for encoding in [Encoding::Text, Encoding::ProtobufDelimited] {
            let format = Format { encoding, escaping };
            let page: Vec<u8> = ScrapeBody::new(&store.published(), Vec::new(), format, None).flatten().collect();
            let mut reader = StrictReader { is_utf8: escaping == Escaping::AllowUtf8, ..StrictReader::default() };
            let read = match encoding {
                Encoding::Text => reader.text(std::str::from_utf8(&page).unwrap()),
                _ => reader.protobuf(&page),
            };
            read.map_err(|fault| format!("{format:?}: {fault}"))?;
        }
    }
    Ok(())
}

pub(super) fn store() -> Store {
    let rules = Rules { has_edges: true, histogram_fault: Some(raw_metric_fault), ..Rules::default() };
    let mut store = Store::new(rules, &[]);
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    store.commit();
    store
}

pub(super) fn reader() -> BodyReader {
    BodyReader::new(BodyRules {
        body_bytes_max: 1 << 20,
        names: NameValidation::Utf8,
        limits: PushLimits::default(),
        openmetrics: false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_strict_reader_takes_every_form_of_the_page(steps in prop::collection::vec(step(), 1..12)) {
        let reader = reader();
        let mut store = store();
        for (ns, step) in (1..).zip(steps) {
            apply(&mut store, &reader, step, ns);
            if let Err(fault) = check(&store) {
                prop_assert!(false, "{}", fault);
            }
        }
    }
}
