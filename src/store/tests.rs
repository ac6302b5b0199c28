//! Tests of the store.

use std::sync::Arc;

use super::*;
use crate::model::{Epoch, Family, FamilyBuilder, Group, GroupId, LabelSet, MetricType, NodeId, StoreId, ValueLayout};

mod adding;
mod changes;
mod clocks;
mod expiry;
mod histories;
mod quota;
mod sites;
mod tombstones;
mod types;

fn identity(number: u64) -> Identity {
    Identity { store: StoreId(number), node: NodeId(number) }
}

fn rules() -> Rules {
    Rules { has_hubs: true, has_edges: true, ..Rules::default() }
}

fn store(rules: Rules) -> Store {
    let mut store = Store::new(rules, &[("process_cpu_seconds_total", MetricType::Counter)]);
    store.open(identity(1), Epoch(1));
    store.commit();
    store
}

fn now(ns: u64) -> WriteTime {
    WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: ns }
}

fn family(name: &str, metric_type: MetricType, series: &[&[(&str, &str)]]) -> Family {
    let mut builder = FamilyBuilder::new(name, metric_type);
    for labels in series {
        builder.series(labels, &ValueLayout::Single, &[1.0], None);
    }
    builder.finish().unwrap()
}

fn gauge(name: &str) -> Family {
    family(name, MetricType::Gauge, &[&[]])
}

fn key(labels: &[(&str, &str)]) -> LabelSet {
    LabelSet::new(labels.iter().copied())
}

fn local(labels: &[(&str, &str)]) -> GroupId {
    GroupId::local(key(labels))
}

fn at_site(idc: &str, labels: &[(&str, &str)]) -> GroupId {
    GroupId { site: key(&[("IDC", idc)]).into(), key: key(labels).into() }
}

/// Every shown series but the push times, as text, with its type.
fn shown(published: &Published) -> Vec<(String, MetricType)> {
    shown_with(published, |_| true)
}

/// The same as a scraper reads it: an empty label is none.
fn scraped(published: &Published) -> Vec<(String, MetricType)> {
    shown_with(published, |value| !value.is_empty())
}

fn shown_with(published: &Published, has: impl Fn(&str) -> bool) -> Vec<(String, MetricType)> {
    let mut lines = Vec::new();
    for (name, block) in published.snapshot() {
        for shown in block.entries().filter(|_| !name.starts_with("push_")) {
            for series in shown.family.schema().series() {
                let own = series.labels().map(|(n, v)| (n.to_string(), v.to_string()));
                let group = shown.labels.iter().map(|l| (l.name.to_string(), l.value.to_string()));
                let labels = LabelSet::new(own.chain(group).filter(|(_, value)| has(value)));
                lines.push((format!("{name}{labels}"), shown.family.schema().metric_type()));
            }
        }
    }
    lines
}

fn lines(published: &Published) -> Vec<String> {
    shown(published).into_iter().map(|(line, _)| line).collect()
}

#[test]
fn an_uncommitted_write_is_not_published() {
    let mut store = store(rules());
    store.write(local(&[("job", "a")]), WriteOp::Put(vec![gauge("m")]), now(1)).unwrap();
    assert!(store.published().snapshot().is_empty());
    assert_eq!(store.records().len(), 1);
    let committed = store.commit();
    assert_eq!(committed.head, store.published().head());
    let names: Vec<_> = store.published().snapshot().into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["m", "push_failure_time_seconds", "push_time_seconds"]);
}

#[test]
fn a_refused_push_touches_no_family_and_moves_the_failure_time() {
    let mut store = store(rules());
    store.write(local(&[("job", "a")]), WriteOp::Put(vec![gauge("m")]), now(1)).unwrap();
    let counter = family("m", MetricType::Counter, &[&[]]);
    let id = local(&[("job", "b")]);
    let refusal = store.write(id.clone(), WriteOp::Put(vec![gauge("n"), counter]), now(2)).unwrap_err();
    assert!(matches!(&refusal, StoreRefusal::Conflict(all) if matches!(all.first, Conflict::Type { .. })), "{refusal}");
    store.commit();
    let entry = store.published().group(&id).unwrap();
    assert_eq!((entry.push_time_seconds(), entry.push_failure_time_seconds()), (0.0, 2e-9));
    assert_eq!(lines(&store.published()), [r#"m{job="a"}"#]);
}

#[test]
fn a_refusal_names_all_conflicts_and_their_places() {
    let mut store = store(rules());
    let counter = |name: &str| family(name, MetricType::Counter, &[&[]]);
    for (at, job) in ["a", "b", "c"].iter().enumerate() {
        let families = vec![counter("m"), gauge("n"), family("h", MetricType::Histogram, &[&[]])];
        let families = if at == 0 { families } else { vec![counter("m")] };
        store.write(local(&[("job", job)]), WriteOp::Put(families), now(1)).unwrap();
    }
    store.commit();
    let pushed = vec![gauge("h_sum"), gauge("m"), counter("n"), gauge("process_cpu_seconds_total")];
    let refused = store.write(local(&[("job", "d")]), WriteOp::Put(pushed), now(2)).unwrap_err().to_string();
    let first = "metric \"h_sum\" collides with metric \"h\": a histogram or summary owns its _count, _sum and _bucket";
    assert_eq!(
        refused.split('\n').collect::<Vec<_>>(),
        [
            first,
            "\"h_sum\" collides with \"h\" in the group {job=\"a\"}: a histogram or summary owns its _count, _sum and \
             _bucket; rename it, or remove the other one",
            "\"m\" has type gauge in this push and counter in the group {job=\"a\"} and 2 more groups: push it as counter \
             (in text, the line `# TYPE m counter` before its samples), or rename it, or remove the other one",
            "\"n\" has type counter in this push and gauge in the group {job=\"a\"}: push it as gauge (in text, the line \
             `# TYPE n gauge` before its samples), or rename it, or remove the other one",
            "\"process_cpu_seconds_total\" has type gauge in this push and counter in this gateway's own metrics: push it \
             as counter (in text, the line `# TYPE process_cpu_seconds_total counter` before its samples), or rename it, \
             or leave it out",
        ]
    );
    let many: Vec<Family> = (0..30).map(|i| counter(&format!("m{i:02}"))).collect();
    store.write(local(&[("job", "e")]), WriteOp::Put(many), now(3)).unwrap();
    store.commit();
    let many = (0..30).map(|i| gauge(&format!("m{i:02}"))).collect();
    let refused = store.write(local(&[("job", "f")]), WriteOp::Put(many), now(4)).unwrap_err().to_string();
    assert_eq!(refused.lines().count(), 22, "{refused}");
    assert!(refused.ends_with("\n10 more metrics conflict"), "{refused}");
}

#[test]
fn a_type_may_change_when_no_other_group_shows_the_name() {
    let mut store = store(rules());
    let id = local(&[("job", "a")]);
    store.write(id.clone(), WriteOp::Put(vec![gauge("m")]), now(1)).unwrap();
    store.write(id.clone(), WriteOp::Post(vec![family("m", MetricType::Counter, &[&[]])]), now(2)).unwrap();
    store.write(id.clone(), WriteOp::Put(vec![family("m", MetricType::Histogram, &[])]), now(3)).unwrap();
    let refusal = store.write(id, WriteOp::Post(vec![gauge("m_bucket")]), now(4)).unwrap_err();
    assert!(
        matches!(&refusal, StoreRefusal::Conflict(all) if matches!(all.first, Conflict::Suffix { .. })),
        "{refusal}"
    );
    let own = family("process_cpu_seconds_total", MetricType::Gauge, &[&[]]);
    store.write(local(&[("job", "b")]), WriteOp::Put(vec![own]), now(5)).unwrap_err();
}

#[test]
fn duplicates_are_found_whichever_group_has_more_labels() {
    let mut store = store(rules());
    let with_instance = |value| family("m", MetricType::Gauge, &[&[("instance", value), ("x", "1")]]);
    let without = || family("m", MetricType::Gauge, &[&[("x", "1")]]);
    store.write(local(&[("job", "a")]), WriteOp::Put(vec![with_instance("i")]), now(1)).unwrap();
    store.write(local(&[("instance", "j"), ("job", "a")]), WriteOp::Put(vec![without()]), now(2)).unwrap();
    let refusal = store.write(local(&[("instance", "i"), ("job", "a")]), WriteOp::Put(vec![without()]), now(3));
    assert!(
        matches!(&refusal, Err(StoreRefusal::Conflict(all)) if matches!(all.first, Conflict::Duplicate { .. })),
        "{refusal:?}"
    );
    let refusal = store.write(local(&[("job", "a")]), WriteOp::Put(vec![with_instance("j")]), now(4));
    assert!(
        matches!(&refusal, Err(StoreRefusal::Conflict(all)) if matches!(all.first, Conflict::Duplicate { .. })),
        "{refusal:?}"
    );
}

#[test]
fn a_conflicting_family_of_a_peer_is_suppressed_until_the_conflict_is_gone() {
    let mut store = store(rules());
    let push_time =
        crate::model::PushTime { stamp: crate::model::WriteTimestamp { time_ns: 5, node: NodeId(7) }, wall_ns: 5 };
    store.write(local(&[("job", "a")]), WriteOp::Put(vec![gauge("m")]), now(1)).unwrap();
    let counter = family("m", MetricType::Counter, &[&[]]);
    let change = Group::put(push_time, vec![counter, gauge("n")]);
    store.merge(&at_site("SYQ", &[("job", "b")]), change, StoreId(7)).unwrap();
    store.commit();
    assert_eq!(lines(&store.published()), [r#"m{job="a"}"#, r#"n{IDC="SYQ",job="b"}"#]);
    assert_eq!(store.published().counts().suppressed, 1);
    store.write(local(&[("job", "a")]), WriteOp::Delete, now(9)).unwrap();
    store.commit();
    assert_eq!(lines(&store.published()), [r#"m{IDC="SYQ",job="b"}"#, r#"n{IDC="SYQ",job="b"}"#]);
    assert_eq!(store.published().counts().suppressed, 0);
}

#[test]
fn the_first_of_two_groups_with_the_same_labels_is_shown() {
    let mut store = store(rules());
    let push_time =
        crate::model::PushTime { stamp: crate::model::WriteTimestamp { time_ns: 5, node: NodeId(7) }, wall_ns: 5 };
    let first = at_site("SYQ", &[("job", "b")]);
    store.merge(&first, Group::put(push_time, vec![gauge("m")]), StoreId(7)).unwrap();
    let second = at_site("SYQ", &[("IDC", "SYQ"), ("job", "b")]);
    store.merge(&second, Group::put(push_time, vec![gauge("n")]), StoreId(7)).unwrap();
    store.commit();
    assert_eq!(lines(&store.published()), [r#"m{IDC="SYQ",job="b"}"#]);
    let resolved = store.resolve(key(&[("IDC", "SYQ"), ("job", "b")]));
    assert_eq!(resolved, first);
    store.write(resolved, WriteOp::Delete, now(9)).unwrap();
    store.commit();
    assert_eq!(lines(&store.published()), [r#"n{IDC="SYQ",job="b"}"#]);
    assert_eq!(store.published().snapshot().len(), 3, "with its push times");
}

#[test]
fn a_group_that_was_deleted_and_refused_meanwhile_shadows_no_other() {
    let mut store = store(rules());
    let stamp = |time_ns| crate::model::WriteTimestamp { time_ns, node: NodeId(7) };
    let at = |ns| crate::model::PushTime { stamp: stamp(ns), wall_ns: ns };
    let [absent, empty] = [&[("job", "a")][..], &[("instance", ""), ("job", "a")]].map(|key| at_site("SYQ", key));
    store.merge(&absent, Group::put(at(5), vec![gauge("m")]), StoreId(7)).unwrap();
    store.commit();
    // The edge deleted the first group, accepted a push to the second, and refused one to the first. Its update has
    // the last state of each group, in the order of their last changes.
    let suppressed = store.merge(&empty, Group::put(at(7), vec![gauge("m")]), StoreId(7)).unwrap();
    assert_eq!(suppressed.len(), 1, "the first group is shown under these labels so far");
    let refused = Group::delete(stamp(6)).merged(&Group::refused(at(8))).0;
    store.merge(&absent, refused, StoreId(7)).unwrap();
    store.commit();
    assert!(!store.is_suppressed(&empty, "m"));
    let hidden = |id: &GroupId| store.published().group(id).unwrap().header.suppressed;
    assert_eq!([&absent, &empty].map(hidden), [true, false]);
    assert_eq!(lines(&store.published()), [r#"m{IDC="SYQ",instance="",job="a"}"#]);
}

#[test]
fn the_conflict_of_a_suppressed_family_names_the_group_that_is_shown() {
    let mut store = store(rules());
    let stamp = |time_ns| crate::model::WriteTimestamp { time_ns, node: NodeId(7) };
    let pushed = |ns, families| Group::put(crate::model::PushTime { stamp: stamp(ns), wall_ns: ns }, families);
    let first = at_site("SYQ", &[("job", "b")]);
    store.merge(&first, pushed(5, vec![gauge("m")]), StoreId(7)).unwrap();
    let shadowed = at_site("SYQ", &[("IDC", "SYQ"), ("job", "b")]);
    store.merge(&shadowed, pushed(6, vec![gauge("n")]), StoreId(7)).unwrap();
    let outer = family("m", MetricType::Gauge, &[&[("job", "b")]]);
    store.merge(&at_site("SYQ", &[]), pushed(8, vec![outer]), StoreId(7)).unwrap();
    store.commit();
    let published = store.published();
    let conflict = |id: &GroupId| published.group(id).unwrap().families[0].conflict.clone();
    assert!(matches!(&*conflict(&shadowed).unwrap(), Conflict::Shadowed { by, .. } if *by == first));
    let held = published.suppressed();
    assert_eq!(held.iter().filter(|entry| *entry.id() == shadowed).count(), 1);
    let duplicate = conflict(&at_site("SYQ", &[])).unwrap();
    assert!(matches!(&*duplicate, Conflict::Duplicate { group: Some(group), .. } if *group == first.shown()));
    store.write(first, WriteOp::Delete, now(9)).unwrap();
    store.commit();
    assert!(published.suppressed().iter().all(|entry| *entry.id() != shadowed), "nothing shadows it any more");
}

#[test]
fn groups_are_listed_and_found_by_their_labels() {
    let mut store = store(rules());
    let push_time =
        crate::model::PushTime { stamp: crate::model::WriteTimestamp { time_ns: 5, node: NodeId(7) }, wall_ns: 5_000 };
    let [plain, renamed] = [&[("job", "b")][..], &[("IDC", "BJ"), ("job", "b")]].map(|key| at_site("SYQ", key));
    for id in [&plain, &renamed] {
        store.merge(id, Group::put(push_time, vec![gauge("m")]), StoreId(7)).unwrap();
    }
    store.write(local(&[("job", "z")]), WriteOp::Refuse, now(9)).unwrap();
    store.commit();
    let published = store.published();
    let listed: Vec<(String, f64, f64)> =
        published.times().iter().map(|(labels, pushed, failed)| (labels.to_string(), pushed, failed)).collect();
    let expected = [
        (r#"{IDC="SYQ",exported_IDC="BJ",job="b"}"#.to_owned(), 5e-6, 0.0),
        (r#"{IDC="SYQ",job="b"}"#.to_owned(), 5e-6, 0.0),
        (r#"{job="z"}"#.to_owned(), 0.0, 9e-9),
    ];
    assert_eq!(listed, expected);
    for id in [plain, renamed, local(&[("job", "z")])] {
        assert_eq!(*published.find(&id.shown()).unwrap().id(), id);
    }
    assert!(published.find(&key(&[("IDC", "SYQ"), ("job", "z")])).is_none());
    store.write(local(&[("job", "z")]), WriteOp::Delete, now(10)).unwrap();
    store.commit();
    assert!(published.find(&key(&[("job", "z")])).is_none());
}

#[test]
fn limits_are_enforced_and_named() {
    let limits = StoreLimits { groups_max: 2, series_max: 3 };
    let mut store = store(Rules { limits, ..rules() });
    store.write(local(&[("job", "a")]), WriteOp::Put(vec![gauge("m"), gauge("n")]), now(1)).unwrap();
    store.write(local(&[("job", "b")]), WriteOp::Put(vec![gauge("m")]), now(1)).unwrap();
    let refusal = store.write(local(&[("job", "c")]), WriteOp::Put(vec![]), now(1)).unwrap_err();
    assert_eq!(refusal.to_string(), "the store is at its bound limits.groups_max = 2: delete groups or raise it");
    let refusal = store.write(local(&[("job", "b")]), WriteOp::Post(vec![gauge("n")]), now(1)).unwrap_err();
    assert!(refusal.to_string().contains("limits.series_max = 3"), "{refusal}");
    store.write(local(&[("job", "a")]), WriteOp::Put(vec![gauge("m")]), now(2)).unwrap();
    store.write(local(&[("job", "b")]), WriteOp::Post(vec![gauge("n")]), now(3)).unwrap();
}

/// A change as a peer's push at `time_ns` makes it.
fn pushed(time_ns: u64, families: Vec<Family>) -> Group {
    let stamp = crate::model::WriteTimestamp { time_ns, node: NodeId(7) };
    Group::put(crate::model::PushTime { stamp, wall_ns: time_ns }, families)
}

/// Prometheus rejects a page with such a series. The gateway refuses such pushes, but a peer may send one, or its site
/// may have such a label.
#[test]
fn a_family_with_the_own_label_of_its_samples_is_suppressed() {
    let mut store = store(rules());
    let own = MetricType::Summary.own_label().unwrap();
    let site = GroupId { site: Arc::new(LabelSet::new([(own, "1")])), key: Arc::new(LabelSet::new([("job", "a")])) };
    let families = vec![gauge("g"), family("s", MetricType::Summary, &[&[]])];
    store.merge(&site, pushed(1, families), StoreId(7)).unwrap();
    let series = vec![family("s", MetricType::Summary, &[&[(own, "1")]])];
    store.merge(&at_site("S", &[("job", "b")]), pushed(2, series), StoreId(7)).unwrap();
    store.commit();
    assert_eq!(store.published().counts().suppressed, 2);
    let entry = store.published().group(&site).unwrap();
    assert_eq!(entry.shown_families().map(|family| &**family.name()).collect::<Vec<_>>(), ["g"]);
    let reason = entry.suppressed_since(crate::model::Revision(0)).next().unwrap().reason();
    assert!(reason.contains("\"s\" must not have an explicit \"quantile\" label"), "{reason}");
}

#[test]
fn a_suppressed_family_keeps_its_entry_until_its_conflict_changes() {
    let mut store = store(rules());
    let id = local(&[("job", "a")]);
    store.write(id.clone(), WriteOp::Put(vec![gauge("m")]), now(1)).unwrap();
    let counter = family("m", MetricType::Counter, &[&[]]);
    let held = at_site("S", &[("job", "b")]);
    store.merge(&held, pushed(2, vec![counter]), StoreId(7)).unwrap();
    store.commit();
    let before = store.published().group(&held).unwrap();
    let labelled = family("m", MetricType::Gauge, &[&[("x", "1")]]);
    for (at, family, tried) in [(3, gauge("m"), false), (4, labelled, true)] {
        let point = store.index.point();
        store.write(id.clone(), WriteOp::Put(vec![family]), now(at)).unwrap();
        assert_eq!(store.index.point() > point, tried, "only where a schema went there may be room");
        let after = store.staged.get(&held).unwrap();
        assert!(std::sync::Arc::ptr_eq(&before, &after), "a new version for the same reason");
    }
    store.commit();
    assert_eq!(store.published().counts().suppressed, 1);
    let summary = family("m", MetricType::Untyped, &[&[]]);
    store.write(id.clone(), WriteOp::Put(vec![summary]), now(5)).unwrap();
    let after = store.staged.get(&held).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&before, &after), "the reason is another type");
    assert!(after.suppressed_since(crate::model::Revision(0)).all(|held| held.reason().contains("untyped")));
    store.write(id, WriteOp::Put(vec![]), now(6)).unwrap();
    store.commit();
    assert_eq!(store.published().counts().suppressed, 0, "nothing is in its way any more");
}

/// A link decodes unchanged values into the same object as before.
#[test]
fn a_change_of_raw_metrics_alone_is_shown() {
    let mut store = store(rules());
    let id = at_site("EU", &[("job", "a")]);
    let mut family = gauge("m");
    for (time_ns, raw_metrics) in [(1, None), (2, Some("x")), (3, Some("y")), (4, None)] {
        let raw_metrics = raw_metrics.map(|raw_metric| Arc::new([Box::from(raw_metric.as_bytes())].into()));
        family = Family::new(family.schema().clone(), family.values().clone(), raw_metrics).unwrap();
        store.merge(&id, pushed(time_ns, vec![family.clone()]), StoreId(2)).unwrap();
        store.commit();
        let block = store.published().block("m").unwrap();
        assert_eq!(block.entries().next().unwrap().family, family, "at {time_ns}");
    }
}

#[test]
fn families_of_a_peer_beyond_series_max_wait_until_others_are_removed() {
    let limits = StoreLimits { groups_max: 9, series_max: 2 };
    let mut store = store(Rules { limits, ..rules() });
    let id = local(&[("job", "a")]);
    store.write(id.clone(), WriteOp::Put(vec![gauge("m"), gauge("n")]), now(1)).unwrap();
    let (small, big) = (at_site("S", &[("job", "b")]), at_site("S", &[("job", "c")]));
    let two = family("big", MetricType::Gauge, &[&[("x", "1")], &[("x", "2")]]);
    store.merge(&big, pushed(2, vec![two]), StoreId(7)).unwrap();
    store.merge(&small, pushed(3, vec![gauge("small")]), StoreId(7)).unwrap();
    store.commit();
    assert_eq!(lines(&store.published()), [r#"m{job="a"}"#, r#"n{job="a"}"#]);
    assert_eq!(store.published().counts().suppressed, 2);
    let conflict = store.published().group(&big).unwrap().families[0].conflict.clone().unwrap();
    assert!(conflict.to_string().contains("limits.series_max = 2"), "{conflict}");
    store.write(id.clone(), WriteOp::Put(vec![gauge("m")]), now(10)).unwrap();
    store.abort();
    store.write(id.clone(), WriteOp::Put(vec![gauge("m")]), now(10)).unwrap();
    store.commit();
    assert_eq!(lines(&store.published()), [r#"m{job="a"}"#, r#"small{IDC="S",job="b"}"#]);
    store.write(id, WriteOp::Delete, now(11)).unwrap();
    store.write(small, WriteOp::Delete, now(12)).unwrap();
    store.commit();
    assert_eq!(lines(&store.published()), [r#"big{IDC="S",job="c",x="1"}"#, r#"big{IDC="S",job="c",x="2"}"#]);
    assert_eq!(store.published().counts().suppressed, 0);
}

#[test]
fn a_group_is_found_by_labels_that_only_look_exported() {
    let mut store = store(rules());
    let id = at_site("SYQ", &[("exported_IDC", "BJ"), ("job", "b")]);
    store.merge(&id, pushed(2, vec![gauge("m")]), StoreId(7)).unwrap();
    store.commit();
    assert_eq!(*store.published().find(&id.shown()).unwrap().id(), id);
    assert!(store.published().find(&key(&[("IDC", "SYQ"), ("exported_IDC", "X"), ("job", "b")])).is_none());
}

#[test]
fn push_times_of_a_peer_are_left_out() {
    let mut store = store(rules());
    let id = at_site("S", &[("job", "b")]);
    let families = vec![gauge(PUSH_TIME), family(PUSH_FAILURE_TIME, MetricType::Counter, &[&[]]), gauge("m")];
    store.merge(&id, pushed(2, families), StoreId(7)).unwrap();
    store.commit();
    let names: Vec<_> = store.published().snapshot().into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["m", PUSH_FAILURE_TIME, PUSH_TIME]);
    assert_eq!(store.published().group(&id).unwrap().push_time_seconds(), 2e-9);
    assert_eq!(store.published().group(&id).unwrap().families.len(), 1);
}
