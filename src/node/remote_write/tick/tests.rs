//! Ticks of a store that changes.

use std::collections::BTreeMap;

use super::*;
use crate::exposition::remote_write::STALE_NAN;
use crate::model::{Epoch, FamilyBuilder, GroupId, MetricType, NodeId, Num, StoreId, ValueLayout};
use crate::node::options::ProtobufMessage;
use crate::store::{Identity, Rules, Store, WriteOp, WriteTime};
use pushrelay_testkit::remote_write::decode_message;

const LIMITS: BatchLimits = BatchLimits { samples_max: 3, bytes_max: 1 << 20 };

/// A store, the families that were written, and the time of the last tick.
struct Scene {
    store: Store,
    selectors: Option<Selectors>,
    own: Vec<Family>,
    written: ShownFamilies,
    time_ms: i64,
    form: TickForm,
}

impl Scene {
    fn new(own: Vec<Family>) -> Self {
        let mut store = Store::new(Rules::default(), &[]);
        store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
        let form = TickForm { protobuf_message: ProtobufMessage::V1, has_natives: false };
        Self { store, selectors: None, own, written: ShownFamilies::default(), time_ms: 0, form }
    }

    fn write(&mut self, key: &[(&str, &str)], action: WriteOp) {
        let ns = (self.store.published().head().0 + 1) * 1_000_000_000;
        let id = GroupId::local(LabelSet::new(key.iter().copied()));
        self.store.write(id, action, WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: ns }).unwrap();
        self.store.commit();
    }

    fn source(&self) -> TickSource {
        let own = self.own.clone();
        TickSource {
            published: self.store.published(),
            own: Arc::new(move || own.clone()),
            selectors: self.selectors.clone(),
            target: Arc::new(LabelSet::new([("job", "node"), ("instance", "n:1")])),
            escaping: Escaping::AllowUtf8,
            external: ExternalLabels::default(),
            has_metadata: true,
        }
    }

    /// Values and markers of a tick, as text, without the times of pushes and the report of the scrape.
    fn tick(&mut self) -> [Vec<String>; 2] {
        self.time_ms += 1;
        let (mut tick, shown, _) = self.source().begin(self.time_ms, self.form, &self.written, Vec::new(), false);
        self.written = shown;
        let mut samples = BTreeMap::new();
        while let Some(batch) = tick.next_batch(LIMITS, Duration::ZERO) {
            let message = decode_message(&batch.message(&batch.whole()));
            let histograms = message.histograms.into_iter();
            let histograms =
                histograms.map(|(labels, histogram)| (labels, histogram.sum.to_bits(), histogram.timestamp));
            for (labels, value, time_ms) in message.samples.into_iter().chain(histograms) {
                assert_eq!(time_ms, self.time_ms);
                let labels: Vec<String> = labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                assert!(samples.insert(labels.join(","), value).is_none(), "{labels:?} is there twice");
            }
        }
        assert_eq!(tick.samples_left(), 0);
        let is_named = |series: &str, name: &str| series.contains(&format!("__name__={name},"));
        for name in SCRAPE_REPORT {
            assert!(samples.keys().any(|series| is_named(series, name)), "{name}");
        }
        let hidden = SCRAPE_REPORT.into_iter().chain(["push_time_seconds", "push_failure_time_seconds"]);
        hidden.for_each(|name| samples.retain(|series, _| !is_named(series, name)));
        let (markers, values): (Vec<_>, _) = samples.into_iter().partition(|(_, value)| *value == STALE_NAN.to_bits());
        let text = |(series, value): (String, u64)| format!("{series} {}", f64::from_bits(value));
        [values.into_iter().map(text).collect(), markers.into_iter().map(|(series, _)| series).collect()]
    }
}

fn gauge_of(name: &str, series: &[(&str, f64)]) -> Family {
    let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
    for (value, number) in series {
        builder.series(&[("a", value)], &ValueLayout::Single, &[*number], None);
    }
    builder.finish().unwrap()
}

#[test]
fn what_a_tick_shows_no_longer_gets_one_marker() {
    let mut scene = Scene::new(vec![gauge_of("own", &[("x", 5.0)])]);
    scene.write(&[("job", "a")], WriteOp::Put(vec![gauge_of("m", &[("x", 1.0), ("y", 2.0)])]));
    scene.write(&[("job", "b")], WriteOp::Put(vec![gauge_of("m", &[("x", 3.0)])]));
    let own = "__name__=own,a=x,instance=n:1,job=node 5";
    let all = ["__name__=m,a=x,job=a 1", "__name__=m,a=x,job=b 3", "__name__=m,a=y,job=a 2", own];
    for _ in 0..2 {
        let [values, markers] = scene.tick();
        assert_eq!((values, markers), (all.map(str::to_owned).into(), Vec::new()));
    }
    scene.write(&[("job", "a")], WriteOp::Put(vec![gauge_of("m", &[("y", 4.0)])]));
    scene.write(&[("job", "b")], WriteOp::Delete);
    let left = ["__name__=m,a=y,job=a 4", own].map(str::to_owned);
    let [values, markers] = scene.tick();
    assert_eq!(values, left);
    assert_eq!(markers.iter().filter(|series| series.contains("=m,")).collect::<Vec<_>>().len(), 2, "{markers:?}");
    assert!(
        markers.contains(&"__name__=m,a=x,job=a".to_owned()) && markers.contains(&"__name__=m,a=x,job=b".to_owned())
    );
    assert_eq!(scene.tick(), [Vec::from(left), Vec::new()]);
}

#[test]
fn a_series_that_another_family_shows_gets_no_marker() {
    let mut scene = Scene::new(Vec::new());
    let histogram = |bound| {
        let bounds = [Num(bound)].into();
        let layout = ValueLayout::Histogram { bounds, has_sum: true, has_count: true, float: false };
        let mut builder = FamilyBuilder::new("h", MetricType::Histogram);
        builder.series(&[], &layout, &[1.0, 2.0, 3.0], None);
        builder.finish().unwrap()
    };
    scene.write(&[("job", "a")], WriteOp::Put(vec![gauge_of("m", &[("x", 1.0)]), histogram(1.0)]));
    scene.tick();
    // The same series with its label in the group, and one other bucket.
    scene.write(&[("job", "a")], WriteOp::Put(vec![histogram(2.0)]));
    let mut plain = FamilyBuilder::new("m", MetricType::Gauge);
    plain.series(&[], &ValueLayout::Single, &[7.0], None);
    scene.write(&[("job", "a"), ("a", "x")], WriteOp::Put(vec![plain.finish().unwrap()]));
    let [values, markers] = scene.tick();
    assert!(values.contains(&"__name__=m,a=x,job=a 7".to_owned()), "{values:?}");
    assert_eq!(markers, ["__name__=h_bucket,job=a,le=1.0"]);
}

#[test]
fn a_selector_chooses_and_the_node_s_own_series_win() {
    let mut scene = Scene::new(vec![gauge_of("own", &[("x", 5.0)])]);
    let key = [("job", "node"), ("instance", "n:1")];
    scene.write(&key, WriteOp::Put(vec![gauge_of("own", &[("x", 1.0), ("y", 2.0)]), gauge_of("up", &[("", 0.0)])]));
    scene.write(&[("job", "b")], WriteOp::Put(vec![gauge_of("m", &[("x", 3.0)])]));
    scene.selectors = Some(Selectors::parse(&["{job=\"node\"}", "m{a=\"y\"}"]).unwrap());
    let [values, _] = scene.tick();
    assert_eq!(values, ["__name__=own,a=x,instance=n:1,job=node 5", "__name__=own,a=y,instance=n:1,job=node 2"]);
}

#[test]
fn a_histogram_that_is_native_no_longer_ends() {
    let mut scene = Scene::new(Vec::new());
    scene.form.has_natives = true;
    let histogram = |native: bool| {
        let layout = ValueLayout::Histogram { bounds: [].into(), has_sum: true, has_count: true, float: false };
        // Sum 2, and a zero bucket with one observation.
        let raw = [0x3a, 13, 0x08, 1, 0x11, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x38, 1];
        let mut builder = FamilyBuilder::new("h", MetricType::Histogram);
        builder.series(&[], &layout, &[2.0, 1.0], native.then_some(&raw[..]));
        builder.finish().unwrap()
    };
    scene.write(&[("job", "a")], WriteOp::Put(vec![histogram(true)]));
    let native = "__name__=h,job=a";
    assert_eq!(scene.tick(), [vec![format!("{native} 2")], Vec::new()]);
    let classic = ["__name__=h_bucket,job=a,le=+Inf", "__name__=h_count,job=a", "__name__=h_sum,job=a"];
    scene.write(&[("job", "a")], WriteOp::Put(vec![histogram(false)]));
    let [values, markers] = scene.tick();
    assert_eq!((values.len(), &markers[..]), (3, &[native.to_owned()][..]));
    scene.write(&[("job", "a")], WriteOp::Put(vec![histogram(true)]));
    let [values, markers] = scene.tick();
    assert_eq!((values, markers), (vec![format!("{native} 2")], classic.map(str::to_owned).into()));
    scene.write(&[("job", "a")], WriteOp::Delete);
    let [values, markers] = scene.tick();
    assert_eq!((values.len(), markers.contains(&native.to_owned())), (0, true));
}
