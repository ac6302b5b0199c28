//! Quotas: bounds on the groups of one subject.

use std::sync::Arc;

use super::*;
use crate::selector::Selector;
use crate::store::{Quota, WriteTerms};

fn quota(groups_max: Option<usize>, series_max: Option<usize>) -> Arc<Quota> {
    let selector = Selector::parse(r#"{team="a"}"#).unwrap();
    Arc::new(Quota::new("rule 1".to_owned(), Some(selector), groups_max, series_max))
}

fn group(team: &str, job: usize) -> GroupId {
    GroupId::local(LabelSet::new([("job", job.to_string()), ("team", team.to_owned())]))
}

fn family(series: usize) -> Family {
    let mut builder = FamilyBuilder::new("m", MetricType::Gauge);
    for number in 0..series {
        builder.series(&[("n", &number.to_string())], &ValueLayout::Single, &[1.0], None);
    }
    builder.finish().unwrap()
}

fn push(store: &mut Store, quota: &Arc<Quota>, id: GroupId, op: WriteOp) -> Result<(), StoreRefusal> {
    let ns = store.revision.0 + 1;
    let terms = WriteTerms { quota: Some(quota.clone()), ..WriteTerms::default() };
    store.write_within(id, op, terms, WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: ns })
}

fn put(series: usize) -> WriteOp {
    WriteOp::Put(vec![family(series)])
}

fn opened(records: Vec<Record>, quota: &Arc<Quota>) -> Store {
    let mut store = Store::new(Rules::default(), &[]);
    records.into_iter().for_each(|record| store.restore(record));
    store.open(Identity { store: StoreId(1), node: NodeId(1) }, Epoch(1));
    store.commit();
    store.published().set_quotas(vec![quota.clone()]);
    store
}

#[test]
fn groups_are_bounded_in_a_draft_after_a_delete_and_after_a_restart() {
    let quota = quota(Some(2), None);
    let mut store = opened(Vec::new(), &quota);
    push(&mut store, &quota, group("b", 0), put(1)).unwrap();
    push(&mut store, &quota, group("a", 0), put(1)).unwrap();
    push(&mut store, &quota, group("a", 1), put(1)).unwrap();
    let refusal = push(&mut store, &quota, group("a", 2), put(1)).unwrap_err();
    assert!(refusal.to_string().contains("rule 1 has the limit groups_max = 2"), "{refusal}");
    // Nor does a refused push make a group.
    assert_eq!(push(&mut store, &quota, group("a", 2), WriteOp::Refuse).unwrap_err(), refusal);
    push(&mut store, &quota, group("a", 1), put(5)).unwrap();
    store.abort();
    assert_eq!(quota.used(), (0, 0), "nothing was published");
    for job in 0..2 {
        push(&mut store, &quota, group("a", job), put(1)).unwrap();
        store.commit();
    }
    assert_eq!(quota.used(), (2, 2));
    assert_eq!(push(&mut store, &quota, group("a", 2), put(1)).unwrap_err(), refusal);
    push(&mut store, &quota, group("a", 0), WriteOp::Delete).unwrap();
    push(&mut store, &quota, group("a", 2), put(1)).unwrap();
    assert_eq!(push(&mut store, &quota, group("a", 0), put(1)).unwrap_err(), refusal, "a deleted group is a new one");
    store.commit();
    let mut again = opened(store.checkpoint().collect(), &quota);
    assert_eq!(push(&mut again, &quota, group("a", 3), put(1)).unwrap_err(), refusal, "after a restart");
    push(&mut again, &quota, group("a", 2), put(9)).unwrap();
    // Without the quota, as another subject pushes.
    let now = WriteTime { wall_ns: 99, stamp_ns: 99, monotonic_ns: 99 };
    again.write(group("a", 3), put(1), now).unwrap();
    again.commit();
    assert_eq!(quota.used(), (3, 11));
}

#[test]
fn series_are_bounded_and_a_group_at_the_bound_may_change() {
    let quota = quota(None, Some(5));
    let mut store = opened(Vec::new(), &quota);
    push(&mut store, &quota, group("a", 0), put(3)).unwrap();
    let refusal = push(&mut store, &quota, group("a", 1), put(3)).unwrap_err();
    assert!(refusal.to_string().contains("series_max = 5"), "{refusal}");
    push(&mut store, &quota, group("a", 1), put(2)).unwrap();
    store.commit();
    assert_eq!(quota.used(), (2, 5));
    push(&mut store, &quota, group("a", 0), put(3)).unwrap();
    assert_eq!(push(&mut store, &quota, group("a", 0), put(4)).unwrap_err(), refusal);
    push(&mut store, &quota, group("a", 0), put(1)).unwrap();
    push(&mut store, &quota, group("a", 1), put(4)).unwrap();
    store.commit();
    assert_eq!(quota.used(), (2, 5));
}

#[test]
fn a_quota_holds_in_a_draft_that_begins_with_a_merge_and_for_a_push_of_older_rules() {
    let quota = quota(Some(1), None);
    let mut store = opened(Vec::new(), &quota);
    push(&mut store, &quota, group("a", 0), put(1)).unwrap();
    store.commit();
    // A reload: the same rule has a quota that is not followed yet, and the next draft begins with a merge.
    let fresh = self::quota(Some(1), None);
    store.published().set_quotas(vec![fresh.clone()]);
    let other = store.published().group(&group("a", 0)).unwrap().group.clone();
    store.merge(&group("b", 0), other, StoreId(2)).unwrap();
    for quota in [&fresh, &quota] {
        let refusal = push(&mut store, quota, group("a", 1), put(1)).unwrap_err();
        assert!(refusal.to_string().contains("groups_max = 1"), "{refusal}");
    }
}
