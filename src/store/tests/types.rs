//! Names that sites push with several types.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::{PushTime, WriteTimestamp};

fn stamp(ns: u64) -> WriteTimestamp {
    WriteTimestamp { time_ns: ns, node: NodeId(7) }
}

/// A push to a group of a site, with the type under which it pushes each name; a delete if there is no list.
#[derive(Clone, Debug)]
struct SitePush {
    idc: &'static str,
    job: &'static str,
    types: Option<Vec<(&'static str, MetricType)>>,
}

fn put(idc: &'static str, job: &'static str, types: &[(&'static str, MetricType)]) -> SitePush {
    SitePush { idc, job, types: Some(types.to_vec()) }
}

fn delete(idc: &'static str, job: &'static str) -> SitePush {
    SitePush { idc, job, types: None }
}

fn merge(store: &mut Store, push: &SitePush, ns: u64) {
    let id = at_site(push.idc, &[("job", push.job)]);
    let change = match &push.types {
        None => Group::delete(stamp(ns)),
        Some(types) => {
            let named: BTreeMap<&str, MetricType> = types.iter().copied().collect();
            let families = named.into_iter().map(|(name, metric_type)| family(name, metric_type, &[&[]]));
            Group::put(PushTime { stamp: stamp(ns), wall_ns: ns }, families.collect())
        }
    };
    store.merge(&id, change, StoreId(7)).unwrap();
    store.commit();
}

fn settle(store: &mut Store) {
    store.settle_types();
    store.commit();
}

fn hub(pushes: &[SitePush]) -> Store {
    let mut store = store(rules());
    for (ns, push) in (1..).zip(pushes) {
        merge(&mut store, push, ns);
    }
    store
}

const COUNTER: MetricType = MetricType::Counter;
const UNTYPED: MetricType = MetricType::Untyped;
const GAUGE: MetricType = MetricType::Gauge;

fn mixed(store: &Store) -> Vec<String> {
    let text = |mixed: MixedTypes| {
        format!("{} {} {} not {}", mixed.name, mixed.shown.0.name(), mixed.shown.1, mixed.hidden_text())
    };
    store.mixed_types().map(text).collect()
}

#[test]
fn the_type_of_most_sites_is_shown() {
    let mut hub = hub(&[
        put("BJ", "a", &[("app_total", UNTYPED)]),
        put("BJ", "b", &[("app_total", UNTYPED)]),
        put("SYQ", "a", &[("app_total", COUNTER)]),
        put("GZ", "a", &[("app_total", COUNTER), ("other", GAUGE)]),
    ]);
    assert_eq!(lines(&hub.published()).len(), 3, "the first type is shown at once");
    assert_eq!(mixed(&hub), ["app_total untyped 1 not counter (2 sites)"]);
    settle(&mut hub);
    let expected = [
        (r#"app_total{IDC="GZ",job="a"}"#.to_owned(), COUNTER),
        (r#"app_total{IDC="SYQ",job="a"}"#.to_owned(), COUNTER),
        (r#"other{IDC="GZ",job="a"}"#.to_owned(), GAUGE),
    ];
    assert_eq!(shown(&hub.published()), expected);
    assert_eq!(mixed(&hub), ["app_total counter 2 not untyped (1 site)"]);
    let counts = hub.published().counts();
    assert_eq!((counts.series, counts.suppressed, counts.mixed_types), (3, 2, 1));
    let entry = hub.published().group(&at_site("BJ", &[("job", "b")])).unwrap();
    let reason = entry.families[0].conflict.as_ref().unwrap().to_string();
    assert!(reason.contains("has type untyped here but type counter elsewhere"), "{reason}");

    // The upgrade goes on: the last site agrees.
    merge(&mut hub, &put("BJ", "a", &[("app_total", COUNTER)]), 10);
    merge(&mut hub, &put("BJ", "b", &[("app_total", COUNTER)]), 11);
    let counts = hub.published().counts();
    assert_eq!((counts.series, counts.suppressed, counts.mixed_types), (5, 0, 0));
}

#[test]
fn of_types_that_equally_many_sites_push_the_most_precise_is_shown() {
    let mut hub = hub(&[put("BJ", "a", &[("m", UNTYPED)]), put("SYQ", "a", &[("m", COUNTER)])]);
    settle(&mut hub);
    assert_eq!(shown(&hub.published()), [(r#"m{IDC="SYQ",job="a"}"#.to_owned(), COUNTER)]);
    merge(&mut hub, &delete("SYQ", "a"), 10);
    assert_eq!(shown(&hub.published()), [(r#"m{IDC="BJ",job="a"}"#.to_owned(), UNTYPED)], "at once");
}

#[test]
fn a_type_that_conflicts_with_another_name_is_passed_over() {
    let mut hub = hub(&[
        put("BJ", "a", &[("m_sum", GAUGE), ("m", GAUGE)]),
        put("SYQ", "a", &[("m", MetricType::Summary)]),
        put("GZ", "a", &[("m", MetricType::Summary)]),
    ]);
    for _ in 0..2 {
        settle(&mut hub);
        assert_eq!(lines(&hub.published()), [r#"m{IDC="BJ",job="a"}"#, r#"m_sum{IDC="BJ",job="a"}"#]);
        assert!(hub.records().is_empty(), "nothing changes again and again");
    }
    merge(&mut hub, &put("BJ", "a", &[("m", GAUGE)]), 10);
    settle(&mut hub);
    let types: BTreeSet<&str> = shown(&hub.published()).iter().map(|(_, metric_type)| metric_type.name()).collect();
    assert_eq!(types, BTreeSet::from(["summary"]));
}

#[test]
fn the_nodes_own_metrics_keep_their_type() {
    let own = "process_cpu_seconds_total";
    let mut hub =
        hub(&[put("BJ", "a", &[(own, COUNTER)]), put("SYQ", "a", &[(own, GAUGE)]), put("GZ", "a", &[(own, GAUGE)])]);
    settle(&mut hub);
    assert_eq!(shown(&hub.published()), [(format!(r#"{own}{{IDC="BJ",job="a"}}"#), COUNTER)]);
}

/// An invalid family does not count: its site cannot be shown anyway.
#[test]
fn a_family_that_could_not_be_shown_alone_does_not_count() {
    let mut hub = hub(&[put("BJ", "a", &[("m", GAUGE)])]);
    for (ns, idc) in [(10, "SYQ"), (11, "GZ")] {
        let broken = family("m", MetricType::Histogram, &[&[("le", "1")]]);
        let change = Group::put(PushTime { stamp: stamp(ns), wall_ns: ns }, vec![broken]);
        hub.merge(&at_site(idc, &[("job", "a")]), change, StoreId(7)).unwrap();
        hub.commit();
    }
    settle(&mut hub);
    assert_eq!(shown(&hub.published()), [(r#"m{IDC="BJ",job="a"}"#.to_owned(), GAUGE)]);
    assert_eq!(mixed(&hub), Vec::<String>::new());
}

#[test]
fn the_shown_type_survives_a_restart_and_an_abort() {
    let pushes =
        [put("BJ", "a", &[("m", UNTYPED)]), put("SYQ", "a", &[("m", COUNTER)]), put("GZ", "a", &[("m", COUNTER)])];
    let mut hub = hub(&pushes);
    hub.settle_types();
    hub.abort();
    assert_eq!((lines(&hub.published()).len(), mixed(&hub)[0].starts_with("m untyped")), (1, true));
    let mut log: Vec<Record> = hub.checkpoint().collect();
    hub.settle_types();
    log.extend(hub.records().iter().cloned());
    hub.commit();
    let before = shown(&hub.published());
    assert_eq!(before.len(), 2);
    let mut again = Store::new(rules(), &[]);
    log.into_iter().for_each(|record| again.restore(record));
    again.open(identity(1), Epoch(2));
    again.commit();
    assert_eq!(shown(&again.published()), before);
    assert_eq!(mixed(&again), mixed(&hub));
}

/// A change of type is work for each group that shows the name, and one site can cause it as often as it likes.
#[test]
fn a_large_change_of_type_delays_the_next() {
    let mut hub = hub(&[put("SYQ", "a", &[("m", COUNTER), ("n", COUNTER)])]);
    for group in 0..140_u64 {
        let id = at_site("BJ", &[("job", &group.to_string())]);
        let families = vec![family("n", COUNTER, &[&[]])];
        let change = Group::put(PushTime { stamp: stamp(group + 10), wall_ns: 10 }, families);
        hub.merge(&id, change, StoreId(7)).unwrap();
    }
    hub.commit();
    let majority = |hub: &mut Store, ns: u64, types: &[(&'static str, MetricType)]| {
        ["GZ", "SH", "CD"].into_iter().for_each(|idc| merge(hub, &put(idc, "a", types), ns));
    };
    majority(&mut hub, 30_000, &[("n", GAUGE)]);
    settle(&mut hub);
    assert_eq!(mixed(&hub), ["n gauge 3 not counter (2 sites)"]);
    majority(&mut hub, 40_000, &[("m", GAUGE), ("n", GAUGE)]);
    // The change took 141 families; in tests, 64 are allowed each time.
    settle(&mut hub);
    assert_eq!(mixed(&hub)[0], "m counter 1 not gauge (3 sites)");
    settle(&mut hub);
    assert_eq!(mixed(&hub)[0], "m gauge 3 not counter (1 site)");
}

fn site_push() -> impl Strategy<Value = SitePush> {
    let types = prop::sample::select(vec![COUNTER, UNTYPED, GAUGE]);
    let types = prop::collection::vec((prop::sample::select(vec!["m", "n"]), types), 0..3);
    let types = prop::option::weighted(0.85, types);
    let (idc, job) = (prop::sample::select(vec!["BJ", "SYQ", "GZ", "SH"]), prop::sample::select(vec!["a", "b"]));
    (idc, job, types).prop_map(|(idc, job, types)| SitePush { idc, job, types })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Two hubs that receive the same pushes in different orders show the same families, with the types that most sites
    /// push.
    #[test]
    fn all_orders_of_arrival_end_with_the_same_types(
        pushes in prop::collection::vec(site_push(), 1..16),
        order in prop::collection::vec(any::<u32>(), 16),
        settled in prop::collection::vec(any::<bool>(), 16),
    ) {
        let (mut first, mut second) = (store(rules()), store(rules()));
        let mut shuffled: Vec<(u64, &SitePush)> = (1..).zip(&pushes).collect();
        for ((ns, push), settles) in shuffled.iter().zip(&settled) {
            merge(&mut first, push, *ns);
            if *settles {
                settle(&mut first);
            }
        }
        shuffled.sort_by_key(|(ns, _)| order[*ns as usize - 1]);
        shuffled.iter().for_each(|(ns, push)| merge(&mut second, push, *ns));
        settle(&mut first);
        settle(&mut second);
        prop_assert_eq!(shown(&first.published()), shown(&second.published()));
        prop_assert_eq!(mixed(&first), mixed(&second));

        let mut sites: BTreeMap<&str, BTreeMap<i32, BTreeSet<&str>>> = BTreeMap::new();
        let last: BTreeMap<_, _> = pushes.iter().map(|push| ((push.idc, push.job), push)).collect();
        for push in last.values() {
            let named: BTreeMap<&str, MetricType> = push.types.iter().flatten().copied().collect();
            for (name, metric_type) in named {
                sites.entry(name).or_default().entry(metric_type as i32).or_default().insert(push.idc);
            }
        }
        let by_name: BTreeMap<String, MetricType> = shown(&first.published())
            .into_iter()
            .map(|(line, metric_type)| (line.split('{').next().unwrap().to_owned(), metric_type))
            .collect();
        prop_assert_eq!(by_name.len(), sites.len(), "each name is shown with one type");
        for (name, types) in sites {
            let most = types.values().map(BTreeSet::len).max().unwrap();
            prop_assert_eq!(types[&(by_name[name] as i32)].len(), most);
        }
        // A draft that is undone leaves the counts as they were.
        let before = mixed(&first);
        for (ns, push) in (100..).zip(&pushes) {
            let id = at_site(push.idc, &[("job", push.job)]);
            first.merge(&id, Group::delete(stamp(ns)), StoreId(7)).unwrap();
        }
        first.abort();
        prop_assert_eq!(mixed(&first), before);
    }
}
