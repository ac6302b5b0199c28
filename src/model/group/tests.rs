//! Tests of groups and their merge.

use proptest::prelude::*;

use super::*;
use crate::model::{Epoch, FamilyBuilder, GaugeRule, MetricType, NodeId, ValueLayout};

fn family(name: &str, value: f64) -> Family {
    let mut builder = FamilyBuilder::new(name, MetricType::Gauge);
    builder.series(&[], &ValueLayout::Single, &[value], None);
    builder.finish().unwrap()
}

fn push_time(time_ns: u64) -> PushTime {
    PushTime { stamp: WriteTimestamp { time_ns, node: NodeId(1) }, wall_ns: time_ns }
}

fn names(group: &Group) -> Vec<&str> {
    group.families().iter().map(|f| &**f.family.name()).collect()
}

#[test]
fn put_replaces_and_post_adds() {
    let mut group = Group::put(push_time(1), vec![family("x", 1.0), family("y", 2.0)]);
    group.merge(&Group::post(push_time(2), vec![family("y", 3.0), family("z", 4.0)]));
    assert_eq!(names(&group), ["x", "y", "z"]);
    let changes = group.merge(&Group::put(push_time(3), vec![family("y", 5.0)]));
    assert_eq!(names(&group), ["y"]);
    assert_eq!(changes.gone, [0, 2]);
    assert_eq!(changes.families, [FamilySource { before: Some(1), set: true }]);
    assert_eq!(group.pushed(), Some(push_time(3)));
}

#[test]
fn delete_leaves_a_tombstone_that_an_older_push_does_not_revive() {
    let mut group = Group::put(push_time(1), vec![family("x", 1.0)]);
    group.merge(&Group::refused(push_time(2)));
    group.merge(&Group::delete(push_time(3).stamp));
    assert!(!group.is_live());
    assert!(group.merge(&Group::post(push_time(2), vec![family("x", 1.0)])).is_empty());
    assert!(!group.is_live());
    group.merge(&Group::post(push_time(4), vec![]));
    assert!(group.is_live());
}

#[test]
fn the_lifetime_is_that_of_the_newest_accepted_push() {
    let two = Lifetime::of_ms(2);
    let mut group = Group::post(push_time(1), vec![family("x", 1.0)]).living(two);
    group.merge(&Group::refused(push_time(2)).living(Lifetime::of_ms(9)));
    assert_eq!(group.lifetime(), two);
    group.merge(&Group::post(push_time(4), vec![]));
    assert_eq!(group.lifetime(), None, "the newest push asks for none");
    group.merge(&Group::put(push_time(3), vec![]).living(two));
    assert_eq!(group.lifetime(), None, "an older one does not count");
    group.merge(&Group::put(push_time(5), vec![]).living(two));
    let stamp = group.latest().next().unwrap();
    group.merge(&Group::expire(stamp, 5 * HOUR_NS));
    assert!(!group.is_live() && group.lifetime().is_none());
    assert_eq!(group.kept_from_ns(), 6 * HOUR_NS);
}

#[test]
fn a_refused_push_creates_the_group_and_touches_no_family() {
    let mut group = Group::default();
    group.merge(&Group::refused(push_time(5)));
    assert!(group.is_live() && group.pushed().is_none());
    assert_eq!(group.failed(), Some(push_time(5)));
}

/// Inserted one by one, the new families would move some 300 GB.
#[test]
fn many_new_families_are_merged_before_many_others() {
    let families = |first: char| (0..80_000).map(move |i| family(&format!("{first}{i:06}"), 1.0)).collect();
    let mut group = Group::post(push_time(1), families('b'));
    let changes = group.merge(&Group::post(push_time(2), families('a')));
    assert_eq!((changes.set(&group).count(), changes.gone.len(), group.families().len()), (80_000, 0, 160_000));
    assert!(names(&group).is_sorted_by(|a, b| a < b));
}

#[test]
fn new_families_are_inserted_between_replaced_and_unchanged_ones() {
    let mut group = Group::post(push_time(1), ["b", "d", "f", "h"].map(|name| family(name, 1.0)).into());
    let changes = group.merge(&Group::post(push_time(2), ["a", "c", "d", "e", "i"].map(|n| family(n, 2.0)).into()));
    assert_eq!(names(&group), ["a", "b", "c", "d", "e", "f", "h", "i"]);
    let set: Vec<&str> = changes.set(&group).map(|f| &**f.family.name()).collect();
    assert_eq!(set, ["a", "c", "d", "e", "i"]);
    let values: Vec<f64> = group.families().iter().map(|f| f.family.values()[0]).collect();
    assert_eq!(values, [2.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0, 2.0]);
}

#[test]
fn a_restamp_moves_the_births_of_contributions_with_the_delete_before_them() {
    let own = |time_ns| WriteTimestamp { time_ns, node: NodeId(1) };
    let born = |birth, epoch| Arc::new(Contributor { birth, epoch: Epoch(epoch), gauges: GaugeRule::Last });
    let other = born(WriteTimestamp { time_ns: 6, node: NodeId(2) }, 9);
    let mut group = Group::delete(own(3));
    let early = born(own(4), 1);
    for (time_ns, contributor) in [(4, &early), (5, &born(own(5), 2)), (8, &early), (9, &other)] {
        group.merge(&Group::contribute(push_time(time_ns), contributor, vec![family("x", time_ns as f64)]));
    }
    let change = group.restamped(|stamp| stamp.node == NodeId(1), 100).unwrap();
    group.merge(&change);
    let births: Vec<u64> = group.contributors().iter().map(|contributor| contributor.birth.time_ns).collect();
    assert_eq!((group.deleted(), births), (own(103), vec![104, 105]), "the other node's ended with the delete");
    let values: Vec<f64> = group.families().iter().map(|f| f.family.values()[0]).collect();
    assert_eq!(values, [8.0, 5.0]);
    let stamps: Vec<u64> = group.families().iter().map(|f| f.stamp.time_ns).collect();
    assert_eq!(stamps, [108, 105]);
}

/// Changes with few timestamps and names, so that ties and overtaking are frequent.
fn change() -> impl Strategy<Value = Group> {
    let stamp = (0..6u64, 0..3u64).prop_map(|(time_ns, node)| WriteTimestamp { time_ns, node: NodeId(node) });
    let contributor = (stamp.clone(), 0..2u64)
        .prop_map(|(birth, epoch)| Arc::new(Contributor { birth, epoch: Epoch(epoch), gauges: GaugeRule::Last }));
    let contributor = proptest::option::of(contributor);
    let family = (stamp.clone(), contributor, 0..5usize, 0..3u8).prop_map(|(stamp, contributor, name, value)| {
        GroupFamily { stamp, contributor, family: family(["v", "w", "x", "y", "z"][name], value.into()) }
    });
    let push_time =
        proptest::option::of((stamp.clone(), 0..3u64).prop_map(|(stamp, wall_ns)| PushTime { stamp, wall_ns }));
    let lifetime = proptest::option::of((0..3u64).prop_map(|number| Lifetime::of_number(number).unwrap()));
    let times = (push_time.clone(), push_time, lifetime, 0..3u32);
    (proptest::collection::vec(family, 0..6), stamp.clone(), stamp, times).prop_map(
        |(families, cleared_at, deleted, (pushed, failed, lifetime, expired_hour))| {
            let header = GroupHeader { cleared_at, deleted, pushed, failed, lifetime, expired_hour };
            Group::from_parts(families, header)
        },
    )
}

fn merged(a: &Group, b: &Group) -> Group {
    let mut group = a.clone();
    group.merge(b);
    group
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn merge_is_commutative(a in change(), b in change()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
    }

    #[test]
    fn merge_is_associative(a in change(), b in change(), c in change()) {
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn merge_is_idempotent(a in change(), b in change()) {
        let once = merged(&a, &b);
        prop_assert_eq!(merged(&once, &b), once.clone());
        prop_assert!(once.clone().merge(&a).is_empty());
    }

    #[test]
    fn changes_tell_what_changed(a in change(), b in change()) {
        let mut after = a.clone();
        let changes = after.merge(&b);
        prop_assert_eq!(changes.is_empty(), a == after);
        prop_assert_eq!(changes.families.len(), after.families().len());
        for (source, new) in changes.families.iter().zip(after.families()) {
            let old = source.before.map(|at| &a.families()[at]);
            let namesake = |group: &Group| group.families().iter().position(|f| f.cmp_key(new).is_eq());
            prop_assert_eq!(source.before, namesake(&a));
            prop_assert_eq!(source.set, old != Some(new));
        }
        let went = |at: &usize| !after.families().iter().any(|f| f.cmp_key(&a.families()[*at]).is_eq());
        prop_assert!(changes.gone.iter().all(went) && changes.gone.is_sorted());
        let stayed = changes.families.iter().filter(|source| source.before.is_some()).count();
        prop_assert_eq!(stayed + changes.gone.len(), a.families().len());
    }
}
