//! Groups of sites: named before their site is known, and sent on to an upstream hub.

use super::*;
use crate::model::{GroupHeader, Position, PushTime, Revision, WriteTimestamp};

fn pushed(ns: u64, families: Vec<Family>) -> Group {
    Group::put(PushTime { stamp: WriteTimestamp { time_ns: ns, node: NodeId(7) }, wall_ns: ns }, families)
}

fn changes(store: &Store, scope: &Scope) -> Vec<(String, Vec<String>)> {
    let set = store.published().changes(scope, Revision(0), None, 1 << 20);
    assert!(!set.more);
    let names = |group: &Group| group.families().iter().map(|f| f.family.name().to_string()).collect();
    set.changes.iter().map(|change| (change.key.to_string(), names(&change.group))).collect()
}

#[test]
fn a_group_named_before_its_site_is_known_moves_there() {
    let mut store = store(rules());
    let labels = [("IDC", "SYQ"), ("job", "a")];
    let early = store.resolve(key(&labels));
    assert_eq!(early, local(&labels));
    store.write(early.clone(), WriteOp::Put(vec![gauge("early")]), now(10)).unwrap();
    store.commit();
    let id = at_site("SYQ", &[("job", "a")]);
    store.merge(&id, pushed(5, vec![gauge("under")]), StoreId(7)).unwrap();
    store.commit();
    assert_eq!(lines(&store.published()), [r#"early{IDC="SYQ",job="a"}"#], "the later PUT counts");
    assert!(store.published().group(&early).is_none());
    assert_eq!(store.resolve(key(&labels)), id);
    assert_eq!(store.published().counts().groups, 1);
    let site = Scope::Site(id.site.clone());
    assert_eq!(changes(&store, &site), [(r#"{job="a"}"#.to_string(), vec!["early".to_string()])]);
}

/// As after damage that took the record by which a group moved, but not the other groups of its site.
#[test]
fn a_group_whose_move_was_lost_moves_when_another_store_is_at_the_site() {
    let mut store = store(rules());
    let labels = [("IDC", "SYQ"), ("job", "a")];
    store.write(local(&labels), WriteOp::Put(vec![gauge("early")]), now(10)).unwrap();
    store.merge(&at_site("SYQ", &[("job", "b")]), pushed(5, vec![gauge("other")]), StoreId(7)).unwrap();
    store.commit();
    assert_eq!(store.resolve(key(&labels)), local(&labels));
    let site = Arc::new(key(&[("IDC", "SYQ")]));
    store.set_cursor(StoreId(8), PeerCursor { position: Position::default(), site: site.clone() });
    store.commit();
    let id = at_site("SYQ", &[("job", "a")]);
    assert_eq!(store.resolve(key(&labels)), id);
    assert!(store.published().group(&local(&labels)).is_none());
    assert_eq!(changes(&store, &Scope::Site(site)).len(), 2);
}

#[test]
fn a_delete_before_the_site_is_known_applies_at_the_site() {
    let mut store = store(rules());
    store.write(local(&[("IDC", "SYQ"), ("job", "a")]), WriteOp::Delete, now(10)).unwrap();
    store.commit();
    let id = at_site("SYQ", &[("job", "a")]);
    store.merge(&id, pushed(5, vec![gauge("old")]), StoreId(7)).unwrap();
    store.commit();
    assert!(lines(&store.published()).is_empty());
    assert!(!store.published().group(&id).unwrap().group.deleted().is_zero());
    store.merge(&id, pushed(20, vec![gauge("new")]), StoreId(7)).unwrap();
    store.commit();
    assert_eq!(lines(&store.published()), [r#"new{IDC="SYQ",job="a"}"#]);
}

#[test]
fn a_move_is_undone_with_its_draft_and_survives_a_restart() {
    let mut first = store(rules());
    let labels = [("IDC", "SYQ"), ("job", "a")];
    first.write(local(&labels), WriteOp::Put(vec![gauge("early")]), now(10)).unwrap();
    first.commit();
    let begin: Vec<Record> = first.checkpoint().collect();
    let id = at_site("SYQ", &[("job", "a")]);
    first.merge(&id, pushed(5, vec![]), StoreId(7)).unwrap();
    let moved = first.records().to_vec();
    first.abort();
    assert_eq!(first.resolve(key(&labels)), local(&labels));
    assert_eq!(lines(&first.published()), [r#"early{IDC="SYQ",job="a"}"#]);
    let mut again = Store::new(rules(), &[]);
    begin.into_iter().chain(moved).for_each(|record| again.restore(record));
    again.open(identity(1), Epoch(2));
    again.commit();
    assert_eq!(again.resolve(key(&labels)), id);
    assert_eq!(lines(&again.published()), [r#"early{IDC="SYQ",job="a"}"#]);
    assert_eq!(again.published().counts(), Counts { groups: 1, series: 1, ..Counts::default() });
}

#[test]
fn an_upstream_hub_gets_all_groups_as_shown_in_the_order_of_changes() {
    let mut store = store(rules());
    store.merge(&at_site("SYQ", &[("job", "a")]), pushed(1, vec![gauge("m")]), StoreId(7)).unwrap();
    store.merge(&at_site("BJ", &[("IDC", "SH"), ("job", "a")]), pushed(2, vec![gauge("m")]), StoreId(8)).unwrap();
    store.write(local(&[("job", "own")]), WriteOp::Put(vec![gauge("n")]), now(3)).unwrap();
    store.merge(&at_site("SYQ", &[("job", "b")]), pushed(4, vec![]), StoreId(7)).unwrap();
    store.commit();
    let keys: Vec<String> = changes(&store, &Scope::Shown).into_iter().map(|(key, _)| key).collect();
    let of = |labels: &str| format!("{{{labels}}}");
    let expected =
        [r#"IDC="SYQ",job="a""#, r#"IDC="BJ",exported_IDC="SH",job="a""#, r#"job="own""#, r#"IDC="SYQ",job="b""#];
    assert_eq!(keys, expected.map(of));
    let mut since = Revision(0);
    let mut singly = Vec::new();
    loop {
        let set = store.published().changes(&Scope::Shown, since, None, 1);
        singly.extend(set.changes.into_iter().map(|change| change.key.to_string()));
        since = set.upto;
        if !set.more {
            break;
        }
    }
    assert_eq!(singly, keys);
    for shown in keys {
        let entry = store.published().entries().into_iter().find(|entry| entry.id().to_string() == shown).unwrap();
        assert_eq!(store.resolve((*entry.shown()).clone()), *entry.id());
    }
}

/// One by one, each would copy the group: one record shows that they do not.
#[test]
fn all_released_families_of_a_group_are_shown_in_one_change() {
    let name = |i: usize| format!("m{i:04}");
    let suppressed = at_site("SYQ", &[("job", "b")]);
    let many = || pushed(5, (0..1_000).map(|i| gauge(&name(i))).collect());
    // Suppressed because of their types.
    let mut types = store(rules());
    let counters = (0..1_000).map(|i| family(&name(i), MetricType::Counter, &[&[]])).collect();
    types.write(local(&[("job", "a")]), WriteOp::Put(counters), now(1)).unwrap();
    types.merge(&suppressed, many(), StoreId(7)).unwrap();
    // Suppressed at the limit, all but one.
    let mut room = store(Rules { limits: StoreLimits { series_max: 1_000, ..StoreLimits::default() }, ..rules() });
    let series: Vec<[(&str, String); 1]> = (0..999).map(|i| [("x", i.to_string())]).collect();
    let series: Vec<Vec<(&str, &str)>> = series.iter().map(|s| vec![(s[0].0, &*s[0].1)]).collect();
    let large = family("large", MetricType::Gauge, &series.iter().map(|s| &**s).collect::<Vec<_>>());
    room.write(local(&[("job", "a")]), WriteOp::Put(vec![large]), now(1)).unwrap();
    room.merge(&suppressed, many(), StoreId(7)).unwrap();
    // Suppressed because another group is shown under the same labels.
    let mut labels = store(rules());
    labels.merge(&at_site("SYQ", &[("IDC", "SYQ"), ("job", "b")]), pushed(4, vec![gauge("n")]), StoreId(7)).unwrap();
    labels.merge(&suppressed, many(), StoreId(7)).unwrap();
    let by = [local(&[("job", "a")]), local(&[("job", "a")]), at_site("SYQ", &[("IDC", "SYQ"), ("job", "b")])];
    for ((mut store, held_back), by) in [(types, 1_000), (room, 999), (labels, 1_000)].into_iter().zip(by) {
        store.commit();
        assert_eq!(store.published().counts().suppressed, held_back);
        store.write(by, WriteOp::Delete, now(9)).unwrap();
        assert!(store.records().len() <= 3, "{} records", store.records().len());
        let before: Vec<Record> = store.records().to_vec();
        store.commit();
        let counts = store.published().counts();
        assert_eq!((counts.suppressed, counts.series), (0, 1_000));
        let released = before.iter().filter_map(|record| match record {
            Record::Group(record) if record.id == suppressed => Some(record.group.families().len()),
            _ => None,
        });
        assert_eq!(released.sum::<usize>(), held_back, "all are written down as shown");
    }
}

#[test]
fn groups_of_an_edge_that_lost_its_store_move_to_its_site() {
    let mut store = store(rules());
    let labels = [("IDC", "SYQ"), ("job", "a")];
    store.merge(&local(&labels), pushed(5, vec![gauge("kept")]), StoreId(9)).unwrap();
    store.write(local(&[("job", "own")]), WriteOp::Put(vec![gauge("own")]), now(6)).unwrap();
    store.commit();
    let id = at_site("SYQ", &[("job", "a")]);
    store.set_cursor(StoreId(7), PeerCursor { position: Position::default(), site: id.site.clone() });
    store.commit();
    assert_eq!(lines(&store.published()), [r#"kept{IDC="SYQ",job="a"}"#, r#"own{job="own"}"#]);
    let site = Scope::Site(id.site.clone());
    assert_eq!(changes(&store, &site), [(r#"{job="a"}"#.to_string(), vec!["kept".to_string()])]);
    assert_eq!(store.resolve(key(&[("IDC", "SYQ"), ("job", "b")])), at_site("SYQ", &[("job", "b")]));
}

#[test]
fn the_site_of_an_edge_without_groups_is_known() {
    let mut store = store(rules());
    let id = at_site("SYQ", &[("job", "a")]);
    store.set_cursor(StoreId(7), PeerCursor { position: Position::default(), site: id.site.clone() });
    store.commit();
    assert_eq!(store.resolve(key(&[("IDC", "SYQ"), ("job", "a")])), id);
}

#[test]
fn labels_that_fit_several_sites_always_mean_the_same_one() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let all = names.map(|name| (name, "1"));
    let site = |name: &&str| Arc::new(key(&[(*name, "1")]));
    for first in 0..names.len() {
        let mut store = store(rules());
        // The sites become known in turn; each store begins with another one.
        for at in 0..names.len() {
            let site = site(&names[(first + at) % names.len()]);
            store.set_cursor(StoreId(at as u64 + 7), PeerCursor { position: Position::default(), site });
        }
        store.commit();
        let id = store.resolve(key(&[&all[..], &[("job", "j")]].concat()));
        assert_eq!(id.site, site(&"a"));
        // The site with more labels wins.
        let longer = Arc::new(key(&[("g", "1"), ("h", "1")]));
        store.set_cursor(StoreId(99), PeerCursor { position: Position::default(), site: longer.clone() });
        store.commit();
        assert_eq!(store.resolve(key(&[&all[..], &[("job", "j")]].concat())).site, longer);
    }
}

#[test]
fn the_site_of_an_edge_is_known_in_the_draft_that_sets_its_cursor() {
    let labels = [("IDC", "SYQ"), ("job", "a")];
    let id = at_site("SYQ", &[("job", "a")]);
    let cursor = || PeerCursor { position: Position::default(), site: id.site.clone() };
    let mut first = store(rules());
    first.merge(&local(&labels), pushed(5, vec![gauge("kept")]), StoreId(9)).unwrap();
    first.set_cursor(StoreId(7), cursor());
    first.commit();
    assert!(first.published().group(&id).is_some());
    let mut second = store(rules());
    second.set_cursor(StoreId(7), cursor());
    assert_eq!(second.resolve(key(&labels)), id);
}

#[test]
fn revisions_rise_across_a_gap_in_the_log() {
    let mut store = Store::new(rules(), &[]);
    store.restore(Record::Opened { epoch: Epoch(1), revision: Revision(0) });
    store.restore(Record::Opened { epoch: Epoch(2), revision: Revision(8) });
    store.open(identity(1), Epoch(3));
    store.commit();
    assert!(store.epochs().is_sorted_by_key(|opening| opening.revision), "{:?}", store.epochs());
    assert_eq!(store.published().head(), Revision(8));
}

#[test]
fn twins_that_damage_left_of_a_move_are_merged() {
    let labels = [("IDC", "SYQ"), ("job", "a")];
    let (early, id) = (local(&labels), at_site("SYQ", &[("job", "a")]));
    let mut before = store(rules());
    before.write(early.clone(), WriteOp::Put(vec![gauge("early")]), now(10)).unwrap();
    before.commit();
    let mut after = store(rules());
    let push_time = PushTime { stamp: WriteTimestamp { time_ns: 20, node: NodeId(7) }, wall_ns: 20 };
    after.merge(&id.clone(), Group::post(push_time, vec![gauge("late")]), StoreId(7)).unwrap();
    after.commit();
    let mut damaged = Store::new(rules(), &[]);
    before.checkpoint().chain(after.checkpoint()).for_each(|record| damaged.restore(record));
    damaged.open(identity(1), Epoch(2));
    damaged.commit();
    assert_eq!(lines(&damaged.published()), [r#"early{IDC="SYQ",job="a"}"#, r#"late{IDC="SYQ",job="a"}"#]);
    assert!(damaged.published().group(&early).is_none());
    assert_eq!(damaged.resolve(key(&labels)), id);
}

#[test]
fn a_damaged_store_resets_its_cursors() {
    let position = Position { epoch: Epoch(9), revision: Revision(8) };
    let site = at_site("SYQ", &[("job", "a")]).site;
    let mut before = store(rules());
    before.set_cursor(StoreId(7), PeerCursor { position, site: site.clone() });
    before.commit();
    let mut damaged = Store::new(rules(), &[]);
    before.checkpoint().for_each(|record| damaged.restore(record));
    damaged.open(identity(2), Epoch(2));
    damaged.distrust_cursors();
    let opening = damaged.records().to_vec();
    damaged.commit();
    // Nor if it is restored once more as it was then, with its new id.
    let mut again = Store::new(rules(), &[]);
    before.checkpoint().chain(opening).for_each(|record| again.restore(record));
    again.open(identity(2), Epoch(3));
    again.commit();
    for store in [damaged, again] {
        assert_eq!(store.cursors()[&StoreId(7)], PeerCursor { position: Position::default(), site: site.clone() });
    }
}

#[test]
fn a_tombstone_with_a_future_header_is_not_dropped_early() {
    let mut store = store(rules());
    let stamp = |time_ns| WriteTimestamp { time_ns, node: NodeId(7) };
    let far = crate::model::STAMP_NS_MAX;
    let group = Group::from(GroupHeader { cleared_at: stamp(far), deleted: stamp(1), ..GroupHeader::default() });
    store.merge(&at_site("SYQ", &[("job", "a")]), group, StoreId(7)).unwrap();
    store.commit();
    assert!(store.published().tombstones(Revision(u64::MAX), 1_000, 10).is_empty(), "it is not old");
    store.write(at_site("BJ", &[("job", "b")]), WriteOp::Put(vec![gauge("m")]), now(2_000)).unwrap();
    store.commit();
    let written = store.published().group(&at_site("BJ", &[("job", "b")])).unwrap().group.latest();
    assert_eq!(written.time_ns, 2_000);
}

#[test]
fn groups_with_renamed_labels_share_schemas_after_every_push() {
    let mut store = store(rules());
    let jobs = ["a", "b"];
    for round in 0..3 {
        for job in jobs {
            let pushed_in = family("m", MetricType::Gauge, &[&[("IDC", "BJ")]]);
            store.merge(&at_site("SYQ", &[("job", job)]), pushed(5 + round, vec![pushed_in]), StoreId(7)).unwrap();
            store.commit();
        }
        let entries = jobs.map(|job| store.published().group(&at_site("SYQ", &[("job", job)])).unwrap());
        let [a, b] = entries.each_ref().map(|entry| entry.families[0].shown.as_ref().expect("exported_IDC").schema());
        assert!(Arc::ptr_eq(a, b), "round {round}");
    }
}

/// A raw metric that begins with 1 breaks a rule here.
fn rules_for_histograms() -> Rules {
    let fault = |raw_metric: &[u8]| (raw_metric[0] == 1).then(|| "it is broken".to_owned());
    Rules { histogram_fault: Some(fault), ..rules() }
}

fn histogram(raw_metric: u8) -> Family {
    let mut builder = FamilyBuilder::new("h", MetricType::Histogram);
    builder.series(&[], &ValueLayout::Single, &[1.0], Some(&[raw_metric]));
    builder.finish().unwrap()
}

#[test]
fn a_histogram_of_a_peer_that_breaks_a_rule_is_suppressed() {
    let mut store = store(rules_for_histograms());
    let id = at_site("SYQ", &[("job", "a")]);
    let mut merged = |ns: u64, raw_metric: u8| {
        let suppressed = store.merge(&id, pushed(ns, vec![histogram(raw_metric), gauge("m")]), StoreId(7)).unwrap();
        store.commit();
        let counts = store.published().counts();
        (suppressed.iter().map(|s| s.reason().to_string()).collect::<Vec<_>>(), counts.series, counts.suppressed)
    };
    let reason = "metric \"h\" is not a valid native histogram: it is broken".to_owned();
    assert_eq!(merged(1, 1), (vec![reason.clone()], 1, 1));
    assert_eq!(merged(2, 2), (vec![], 2, 0), "the next push is shown");
    assert_eq!(merged(3, 1), (vec![reason], 1, 1), "the schema is the same, the values are not");
    assert_eq!(merged(4, 0), (vec![], 2, 0));
    assert_eq!(lines(&store.published()).len(), 2);
}

#[test]
fn a_histogram_of_an_older_store_that_breaks_a_rule_is_suppressed() {
    let mut old = store(rules());
    old.write(local(&[("job", "a")]), WriteOp::Put(vec![histogram(1), gauge("m")]), now(1)).unwrap();
    old.commit();
    assert_eq!(lines(&old.published()).len(), 2);
    let mut store = Store::new(rules_for_histograms(), &[]);
    old.checkpoint().for_each(|record| store.restore(record));
    store.open(identity(1), Epoch(2));
    store.commit();
    assert_eq!(lines(&store.published()), [r#"m{job="a"}"#]);
    assert_eq!(store.published().counts().suppressed, 1);
    let repeated = store.write(local(&[("job", "a")]), WriteOp::Post(vec![histogram(1)]), now(2));
    assert!(
        matches!(&repeated, Err(StoreRefusal::Conflict(all)) if matches!(all.first, Conflict::Histogram { .. })),
        "{repeated:?}"
    );
}
