//! Random histories of a store, and a comparison with a slow oracle that knows only the rules.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Put(usize, Vec<Family>),
    Post(usize, Vec<Family>),
    Delete(usize),
    Merge(usize, Vec<Family>),
    /// Looks up all groups, each twice.
    LookUp,
    Commit,
    Abort,
}

fn ids() -> Vec<GroupId> {
    vec![
        local(&[("job", "a")]),
        local(&[("instance", ""), ("job", "a")]),
        local(&[("instance", "1"), ("job", "a")]),
        local(&[("instance", "2"), ("job", "a")]),
        local(&[("job", "a"), ("x", "1")]),
        local(&[("IDC", "S"), ("job", "a")]),
        at_site("S", &[("job", "a")]),
        at_site("S", &[("instance", "1"), ("job", "a")]),
        at_site("B", &[("job", "a")]),
        // Shown under the labels of another group.
        GroupId { site: key(&[("job", "a")]).into(), key: key(&[("IDC", "S")]).into() },
    ]
}

/// The group that a request or a peer means: labels without a site are resolved first.
fn addressed(store: &Store, group: usize) -> GroupId {
    let id = ids()[group].clone();
    if id.site.is_empty() { store.resolve(id.key) } else { id }
}

fn some_family() -> impl Strategy<Value = Family> {
    let name = prop::sample::select(vec!["m", "m_count", "m_bucket", "n"]);
    let metric_type = prop::sample::select(vec![MetricType::Gauge, MetricType::Counter, MetricType::Histogram]);
    let label = |name: &'static str, values: Vec<&'static str>| {
        proptest::option::of(prop::sample::select(values)).prop_map(move |value| value.map(|value| (name, value)))
    };
    let labels = (label("IDC", vec!["S", "B"]), label("instance", vec!["1", "2"]), label("x", vec!["1", "2"]))
        .prop_map(|(a, b, c)| [a, b, c].into_iter().flatten().collect::<Vec<_>>());
    let series = prop::collection::btree_set(labels, 0..3);
    (name, metric_type, series).prop_map(|(name, metric_type, series)| {
        let series: Vec<&[(&str, &str)]> = series.iter().map(|labels| &labels[..]).collect();
        family(name, metric_type, &series)
    })
}

/// The families of one push to one group, sanitised as the gateway does: no label that the key has, no name twice.
fn push() -> impl Strategy<Value = (usize, Vec<Family>)> {
    (0..ids().len(), prop::collection::vec(some_family(), 0..3)).prop_map(|(group, families)| {
        let key = ids()[group].key.clone();
        let mut names = BTreeSet::new();
        let fits = |f: &Family| f.schema().layouts().iter().all(|l| l.names.iter().all(|name| !key.contains(name)));
        let families = families.into_iter().filter(|f| fits(f) && names.insert(f.name().clone())).collect();
        (group, families)
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => push().prop_map(|(group, families)| Step::Put(group, families)),
        3 => push().prop_map(|(group, families)| Step::Post(group, families)),
        2 => (0..ids().len()).prop_map(Step::Delete),
        4 => push().prop_map(|(group, families)| Step::Merge(group, families)),
        1 => Just(Step::LookUp),
        3 => Just(Step::Commit),
        1 => Just(Step::Abort),
    ]
}

/// The rules of a page: one type for each name, no colliding names, no series twice.
fn assert_valid(published: &Published) {
    let (mut types, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for (line, metric_type) in scraped(published) {
        let name = line.split('{').next().unwrap().to_string();
        assert_eq!(*types.entry(name).or_insert(metric_type), metric_type, "{line}");
        assert!(seen.insert(line.clone()), "{line} twice");
    }
    for (name, _) in types.iter().filter(|(_, metric_type)| **metric_type == MetricType::Histogram) {
        for suffix in ["_count", "_sum", "_bucket"] {
            assert!(!types.contains_key(&format!("{name}{suffix}")), "{name} and its {suffix}");
        }
    }
}

/// No suppressed family could be shown: tries every series against all that are shown.
fn assert_nothing_suppressed_in_vain(published: &Published) {
    let shown = scraped(published);
    for entry in published.groups().iter().filter(|entry| !entry.header.suppressed) {
        for (f, ..) in entry.families().filter(|(_, meta, _)| meta.suppressed) {
            let (name, metric_type) = (f.family.name(), f.family.schema().metric_type());
            let Ok(as_shown) = crate::model::site::shown_family(entry.shown(), &f.family) else { continue };
            let as_shown = as_shown.unwrap_or(f.family.clone());
            let lines: Vec<String> = as_shown
                .schema()
                .series()
                .map(|series| {
                    let own: Vec<(String, String)> = series.labels().map(|(n, v)| (n.into(), v.into())).collect();
                    let group = entry.shown().iter().map(|l| (l.name.to_string(), l.value.to_string()));
                    let labels = own.into_iter().chain(group).filter(|(_, value)| !value.is_empty());
                    format!("{name}{}", LabelSet::new(labels))
                })
                .collect();
            let named = |wanted: &str| shown.iter().any(|(line, _)| line.split('{').next() == Some(wanted));
            let conflict = shown
                .iter()
                .any(|(line, t)| lines.contains(line) || (line.split('{').next() == Some(name) && *t != metric_type));
            let suffixes = ["_count", "_sum", "_bucket"];
            let collides = suffixes.iter().any(|suffix| {
                (metric_type == MetricType::Histogram && named(&format!("{name}{suffix}")))
                    || name.strip_suffix(suffix).is_some_and(|base| {
                        shown
                            .iter()
                            .any(|(line, t)| line.split('{').next() == Some(base) && *t == MetricType::Histogram)
                    })
            });
            // Names without series take part in the rules and are not in `shown`.
            let empty =
                published.groups().iter().any(|other| other.shown_families().any(|f| f.schema().series_len() == 0));
            assert!(conflict || collides || empty, "{name} of {} is held back in vain", entry.id());
        }
    }
}

type Picture = (Vec<(String, MetricType)>, Vec<(GroupId, Group)>);

fn picture(published: &Published) -> Picture {
    let mut groups: Vec<_> =
        published.entries().iter().map(|entry| (entry.id().clone(), entry.group.clone())).collect();
    groups.sort_by(|a, b| a.0.cmp(&b.0));
    (shown(published), groups)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn any_history_leaves_a_valid_page(steps in prop::collection::vec(step(), 1..25)) {
        let mut store = store(rules());
        for (peer, id) in ids().into_iter().enumerate() {
            let cursor = PeerCursor { site: id.site, ..PeerCursor::default() };
            store.set_cursor(StoreId(10 + peer as u64), cursor);
        }
        let mut log: Vec<Record> = store.records().to_vec();
        store.commit();
        let mut last = picture(&store.published());
        for (i, step) in steps.into_iter().chain([Step::Commit]).enumerate() {
            let clock = now(i as u64 * 10);
            let stamp = crate::model::WriteTimestamp { time_ns: clock.stamp_ns, node: NodeId(2) };
            match step {
                Step::Put(group, families) => {
                    drop(store.write(addressed(&store, group), WriteOp::Put(families), clock));
                }
                Step::Post(group, families) => {
                    drop(store.write(addressed(&store, group), WriteOp::Post(families), clock));
                }
                Step::Delete(group) => store.write(addressed(&store, group), WriteOp::Delete, clock).unwrap(),
                Step::Merge(group, families) => {
                    let change = Group::put(crate::model::PushTime { stamp, wall_ns: 0 }, families);
                    store.merge(&addressed(&store, group), change, StoreId(2)).unwrap();
                }
                Step::LookUp => store.look_up(&[ids(), ids()].concat()),
                Step::Commit => {
                    log.extend(store.records().iter().cloned());
                    store.commit();
                    assert_valid(&store.published());
                    assert_nothing_suppressed_in_vain(&store.published());
                    last = picture(&store.published());
                }
                Step::Abort => {
                    store.abort();
                    prop_assert_eq!(&picture(&store.published()), &last);
                }
            }
        }
        for records in [log, store.checkpoint().collect()] {
            let mut again = Store::new(rules(), &[]);
            records.into_iter().for_each(|record| again.restore(record));
            again.open(identity(1), Epoch(2));
            again.commit();
            assert_valid(&again.published());
            let (shown_again, groups) = picture(&again.published());
            prop_assert_eq!(&groups, &last.1);
            prop_assert_eq!(&shown_again, &last.0);
            prop_assert_eq!(again.published().head(), store.published().head());
        }
    }
}
