//! Groups that add up.

use super::*;
use crate::model::{Contributor, GaugeRule, PushTime, WriteTimestamp};

const COUNTER: MetricType = MetricType::Counter;

fn counter(name: &str, series: &[(&str, f64)]) -> Family {
    typed(name, COUNTER, series)
}

fn typed(name: &str, metric_type: MetricType, series: &[(&str, f64)]) -> Family {
    let mut builder = FamilyBuilder::new(name, metric_type);
    for (value, number) in series {
        builder.series(&[("a", value)], &ValueLayout::Single, &[*number], None);
    }
    builder.finish().unwrap()
}

fn add(families: Vec<Family>) -> WriteOp {
    WriteOp::Add(Increment { families, gauges: GaugeRule::Last, key: None })
}

fn with_key(families: Vec<Family>, key: u128, body: u128) -> WriteOp {
    WriteOp::Add(Increment { families, gauges: GaugeRule::Last, key: Some(IdempotencyKey { key, body }) })
}

fn job() -> GroupId {
    local(&[("job", "a")])
}

/// Each series that is shown, with its value.
fn values(store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, block) in store.published().snapshot() {
        for shown in block.entries().filter(|_| !name.starts_with("push_")) {
            for series in shown.family.schema().series() {
                let labels = LabelSet::new(series.labels());
                let values = &shown.family.values()[series.values()];
                lines.push(format!("{name}{labels} {values:?} {}", shown.labels));
            }
        }
    }
    lines
}

fn write(store: &mut Store, op: WriteOp, ns: u64) -> Result<(), String> {
    let result = store.write(job(), op, now(ns)).map_err(|refusal| refusal.to_string());
    store.commit();
    result
}

/// The store as it is after a restart.
fn reopened(store: &Store, epoch: u64) -> Store {
    let mut new = Store::new(rules(), &[]);
    store.checkpoint().for_each(|record| new.restore(record));
    new.open(identity(1), Epoch(epoch));
    new.commit();
    new
}

#[test]
fn increments_are_added_and_shown_as_one_sum() {
    let mut store = store(rules());
    write(&mut store, add(vec![counter("c", &[("1", 1.0)]), typed("g", MetricType::Gauge, &[("1", 5.0)])]), 1).unwrap();
    write(&mut store, add(vec![counter("c", &[("1", 2.0), ("2", 7.0)])]), 2).unwrap();
    let mut store = reopened(&store, 2);
    write(&mut store, add(vec![counter("c", &[("2", 1.0)]), typed("g", MetricType::Gauge, &[("1", 4.0)])]), 3).unwrap();
    let expected =
        [r#"c{a="1"} [3.0] {job="a"}"#, r#"c{a="2"} [8.0] {job="a"}"#, r#"g{a="1"} [4.0] {job="a"}"#].map(String::from);
    assert_eq!(values(&store), expected);
    assert_eq!((store.published().counts().series, store.published().counts().groups), (3, 1));
    let entry = store.published().group(&job()).unwrap();
    assert_eq!((entry.group.contributors().len(), entry.leaders().count(), entry.families.len()), (2, 2, 4));
    assert_eq!(values(&reopened(&store, 3)), expected);
}

#[test]
fn the_first_push_decides_the_kind_of_a_group() {
    let mut store = store(rules());
    write(&mut store, WriteOp::Post(vec![counter("c", &[("1", 1.0)])]), 1).unwrap();
    let refusal = write(&mut store, add(vec![counter("c", &[("1", 1.0)])]), 2).unwrap_err();
    assert!(refusal.starts_with(r#"the group {job="a"} does not add up, its first push was a plain one"#), "{refusal}");
    assert_eq!(store.published().group(&job()).unwrap().push_failure_time_seconds(), 2e-9);
    write(&mut store, WriteOp::Delete, 3).unwrap();
    write(&mut store, add(vec![counter("c", &[("1", 1.0)])]), 4).unwrap();
    for plain in [WriteOp::Put(vec![]), WriteOp::Post(vec![gauge("m")])] {
        let refusal = write(&mut store, plain, 5).unwrap_err();
        assert!(refusal.starts_with(r#"the group {job="a"} adds up, its first push was one that adds"#), "{refusal}");
    }
    assert_eq!(values(&store), [r#"c{a="1"} [1.0] {job="a"}"#]);
    let label = (Contributor { birth: WriteTimestamp::ZERO, epoch: Epoch(1), gauges: GaugeRule::Max })
        .join(&key(&[("job", "a")]));
    let refusal = store.write(GroupId::local(label), WriteOp::Put(vec![]), now(6)).unwrap_err();
    assert_eq!(refusal, StoreRefusal::Reserved);
}

#[test]
fn a_delete_ends_contributions_that_began_before_it() {
    let mut store = store(rules());
    write(&mut store, add(vec![counter("c", &[("1", 5.0)])]), 10).unwrap();
    let contributor = store.published().group(&job()).unwrap().group.contributors().remove(0);
    write(&mut store, WriteOp::Delete, 20).unwrap();
    assert_eq!(values(&store), Vec::<String>::new());
    // Another node had the contribution, and added to it before the delete arrived there.
    let push_time = PushTime { stamp: WriteTimestamp { time_ns: 30, node: NodeId(1) }, wall_ns: 30 };
    let late = Group::contribute(push_time, &contributor, vec![counter("c", &[("1", 6.0)])]);
    store.merge(&job(), late, StoreId(7)).unwrap();
    store.commit();
    assert_eq!(values(&store), Vec::<String>::new());
    write(&mut store, add(vec![counter("c", &[("1", 1.0)])]), 40).unwrap();
    assert_eq!(values(&store), [r#"c{a="1"} [1.0] {job="a"}"#]);
    assert_eq!(values(&reopened(&store, 2)), [r#"c{a="1"} [1.0] {job="a"}"#]);
}

#[test]
fn what_does_not_fit_the_sum_is_refused_and_changes_nothing() {
    let mut store = store(rules());
    write(&mut store, add(vec![counter("c", &[("1", 5.0)])]), 1).unwrap();
    let gauge = vec![counter("d", &[("1", 1.0)]), typed("c", MetricType::Gauge, &[("1", 1.0)])];
    assert!(write(&mut store, add(gauge.clone()), 2).unwrap_err().contains("the sum is of the type counter"));
    let mut store = reopened(&store, 2);
    assert!(
        write(&mut store, add(gauge), 3).unwrap_err().contains("the sum is of the type counter"),
        "another opening"
    );
    assert_eq!(values(&store), [r#"c{a="1"} [5.0] {job="a"}"#]);
    assert_eq!(store.published().group(&job()).unwrap().group.contributors().len(), 1);
}

#[test]
fn a_repeat_with_its_key_adds_nothing_also_after_a_restart() {
    let mut store = store(rules());
    let push = |key, body| with_key(vec![counter("c", &[("1", 1.0)])], key, body);
    for ns in 1..4 {
        write(&mut store, push(7, 1), ns).unwrap();
    }
    assert!(write(&mut store, push(7, 2), 4).unwrap_err().contains("another body"));
    write(&mut store, push(8, 2), 5).unwrap();
    // A draft that is abandoned leaves no key.
    store.write(job(), push(9, 1), now(6)).unwrap();
    store.abort();
    let mut store = reopened(&store, 2);
    for ns in 7..9 {
        write(&mut store, push(7, 1), ns).unwrap();
        write(&mut store, push(9, 1), ns).unwrap();
    }
    assert_eq!(values(&store), [r#"c{a="1"} [3.0] {job="a"}"#]);
    write(&mut store, push(7, 1), 1 + IDEMPOTENCY_WINDOW_NS).unwrap();
    assert_eq!(values(&store), [r#"c{a="1"} [4.0] {job="a"}"#], "its window is over");
}

#[test]
fn a_sum_that_conflicts_is_suppressed_as_a_whole_and_shown_later() {
    let mut store = store(rules());
    let other = local(&[("job", "b")]);
    store.write(other.clone(), WriteOp::Put(vec![gauge("c")]), now(1)).unwrap();
    store.commit();
    assert!(
        write(&mut store, add(vec![counter("c", &[("1", 1.0)])]), 2).unwrap_err().contains("has type counter here")
    );
    for (epoch, ns) in [(5, 10), (6, 11)] {
        let stamp = WriteTimestamp { time_ns: ns, node: NodeId(epoch) };
        let contributor = Arc::new(Contributor { birth: stamp, epoch: Epoch(epoch), gauges: GaugeRule::Last });
        let time = PushTime { stamp, wall_ns: ns };
        let change = Group::contribute(time, &contributor, vec![counter("c", &[("1", 2.0)])]);
        assert_eq!(store.merge(&job(), change, StoreId(7)).unwrap().len(), 1);
        store.commit();
    }
    assert_eq!(store.published().counts().suppressed, 1, "the sum, not each contribution");
    let reopened_store = reopened(&store, 2);
    assert_eq!((values(&reopened_store), reopened_store.published().counts().suppressed), (values(&store), 1));
    for mut store in [store, reopened_store] {
        store.write(other.clone(), WriteOp::Delete, now(20)).unwrap();
        store.commit();
        assert_eq!(values(&store), [r#"c{a="1"} [4.0] {job="a"}"#]);
        assert_eq!(store.published().counts().suppressed, 0);
        let entry = store.published().group(&job()).unwrap();
        assert!(!entry.has_suppressed() && entry.families.iter().all(|state| state.conflict.is_none()));
    }
}

#[test]
fn a_sum_at_a_site_is_shown_under_its_labels() {
    let mut store = store(rules());
    let stamp = WriteTimestamp { time_ns: 10, node: NodeId(5) };
    let contributor = Arc::new(Contributor { birth: stamp, epoch: Epoch(5), gauges: GaugeRule::Last });
    let mut builder = FamilyBuilder::new("c", COUNTER);
    builder.series(&[("IDC", "BJ")], &ValueLayout::Single, &[2.0], None);
    let time = PushTime { stamp, wall_ns: 10 };
    let change = Group::contribute(time, &contributor, vec![builder.finish().unwrap()]);
    let id = at_site("SYQ", &[("job", "a")]);
    store.merge(&id, change.clone(), StoreId(7)).unwrap();
    store.commit();
    assert_eq!(values(&store), [r#"c{exported_IDC="BJ"} [2.0] {IDC="SYQ",job="a"}"#]);
    // A push at the hub itself, to the group of the site.
    let mut builder = FamilyBuilder::new("c", COUNTER);
    builder.series(&[("IDC", "BJ")], &ValueLayout::Single, &[3.0], None);
    store.write(id, add(vec![builder.finish().unwrap()]), now(11)).unwrap();
    store.commit();
    assert_eq!(values(&store), [r#"c{exported_IDC="BJ"} [5.0] {IDC="SYQ",job="a"}"#]);
    assert_eq!(store.published().counts().series, 1);
}

#[test]
fn contributions_are_sent_under_keys_of_their_own() {
    let mut store = store(rules());
    write(&mut store, add(vec![counter("c", &[("1", 1.0)])]), 1).unwrap();
    let mut store = reopened(&store, 2);
    write(&mut store, add(vec![counter("c", &[("1", 2.0)])]), 2).unwrap();
    let sent = store.published().changes(&Scope::Shown, crate::model::Revision(0), None, usize::MAX);
    let keys: Vec<usize> = sent.changes.iter().map(|change| change.key.len()).collect();
    assert_eq!(keys, [1, 2, 2]);
    assert!(sent.changes.iter().all(|change| !change.group.is_adding()));
    let values: Vec<f64> =
        sent.changes[1..].iter().map(|change| change.group.families()[0].family.values()[0]).collect();
    assert_eq!(values, [1.0, 2.0]);
    assert!(sent.changes[0].group.pushed().is_some() && sent.changes[0].group.families().is_empty());
}

#[test]
fn a_sum_of_native_histograms_that_breaks_a_rule_is_not_shown() {
    let fault = |raw_metric: &[u8]| (raw_metric.len() > 2).then(|| "too long".to_string());
    let sums = SumCodec { native: |total, pushed| Ok([total, pushed].concat()), dated: None };
    let mut store = store(Rules { histogram_fault: Some(fault), sums, unchecked: true, ..rules() });
    let push = || {
        let mut builder = FamilyBuilder::new("h", MetricType::Histogram);
        builder.series(&[], &ValueLayout::Single, &[1.0], Some(&[7]));
        add(vec![builder.finish().unwrap()])
    };
    for (ns, shown) in [(1, 1), (2, 1), (3, 0), (4, 0)] {
        write(&mut store, push(), ns).unwrap();
        assert_eq!(values(&store).len(), shown, "after {ns}");
    }
    assert_eq!(store.published().counts().suppressed, 1);
}
