//! A group as a last-writer-wins map, and the rule by which two copies of it merge.
//!
//! Every change is itself a group: a push is a group with the pushed families, a delete one with a clear timestamp, a
//! message of the link or a record of the log one with the changed parts. Applying a change is merging it. Merging
//! takes the later of each field and drops the families that are older than the clear timestamp. It is commutative,
//! associative and idempotent: copies that have seen the same changes, in any order and any number of times, are equal.
//!
//! A family with a [`Contributor`] is one contribution to a sum. It is kept under its name and its contributor's
//! [identity](Contributor::cmp_identity), so that contributions never replace each other; of two states of one, the one
//! that began later wins, then the one written later. A clear timestamp does not remove a contribution; a delete does if
//! the contribution began before it, whenever it last grew.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::contribution::Contributor;
use super::family::Family;
use super::lifetime::Lifetime;
use super::stamp::{STAMP_NS_MAX, WriteTimestamp};

const HOUR_NS: u64 = 3_600 * 1_000_000_000;
/// The number of families that are compared one by one before a binary search.
const NEAR: usize = 2;

/// The time of a push: `stamp` orders it, `wall_ns` is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushTime {
    /// Orders this push among other writes.
    pub stamp: WriteTimestamp,
    /// Nanoseconds since the Unix epoch by the clock of the node that accepted the push.
    pub wall_ns: u64,
}

/// A family of a group and its write timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFamily {
    /// The timestamp of the push.
    pub stamp: WriteTimestamp,
    /// The contributor, if the family is a contribution to a sum.
    pub contributor: Option<Arc<Contributor>>,
    /// The family as pushed, or the contribution.
    pub family: Family,
}

impl GroupFamily {
    /// A family that is no contribution.
    pub fn plain(stamp: WriteTimestamp, family: Family) -> Self {
        Self { stamp, contributor: None, family }
    }

    /// The order of families in a group: by name, then by contributor, a plain family first.
    fn cmp_key(&self, other: &Self) -> Ordering {
        self.family.cmp_name(&other.family).then_with(|| match (&self.contributor, &other.contributor) {
            (Some(a), Some(b)) => a.cmp_identity(b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        })
    }

    /// When the contribution began; zero for a plain family.
    fn birth(&self) -> WriteTimestamp {
        self.contributor.as_ref().map_or(WriteTimestamp::ZERO, |contributor| contributor.birth)
    }
}

/// The fields of a group besides its families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupHeader {
    /// The clear timestamp: the last PUT or delete. Families written before it are no part of the group.
    pub cleared_at: WriteTimestamp,
    /// The last delete; zero if there was none.
    pub deleted: WriteTimestamp,
    /// The last accepted push since the last delete.
    pub pushed: Option<PushTime>,
    /// The last refused push since the last delete.
    pub failed: Option<PushTime>,
    /// The lifetime that the last accepted push asked for; `None` if there is no such push, or it asked for none.
    pub lifetime: Option<Lifetime>,
    /// The hours from the Unix epoch to the end of the hour in which a node last found the group expired; 0 if none did.
    /// It decides nothing but for how long a hub keeps the tombstone: the timestamp of an expiry is as old as the group.
    pub expired_hour: u32,
}

impl GroupHeader {
    /// Whether a family with that timestamp is part of the group.
    pub fn keeps(&self, stamp: WriteTimestamp) -> bool {
        stamp >= self.cleared_at && stamp > self.deleted
    }

    /// Whether the family is part of the group. A contribution is one as a whole, from its birth on.
    fn has(&self, family: &GroupFamily) -> bool {
        match &family.contributor {
            Some(contributor) => contributor.birth > self.deleted,
            None => self.keeps(family.stamp),
        }
    }

    /// The later of each field, without the push times that the later delete removes.
    fn merged(&self, other: &GroupHeader) -> GroupHeader {
        // The lifetime belongs to the push.
        let (pushed, lifetime) = (self.pushed, self.lifetime).max((other.pushed, other.lifetime));
        let merged = GroupHeader {
            cleared_at: self.cleared_at.max(other.cleared_at),
            deleted: self.deleted.max(other.deleted),
            pushed,
            failed: self.failed.max(other.failed),
            lifetime,
            expired_hour: self.expired_hour.max(other.expired_hour),
        };
        merged.without_deleted()
    }

    fn without_deleted(self) -> GroupHeader {
        let after = |push_time: &PushTime| push_time.stamp > self.deleted;
        let pushed = self.pushed.filter(after);
        let lifetime = self.lifetime.filter(|_| pushed.is_some());
        GroupHeader { pushed, failed: self.failed.filter(after), lifetime, ..self }
    }
}

/// The metrics under one grouping key, or a change to them. Cheap to clone: a store, its records and its links share
/// the families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Sorted by name, each name once, none older than the header allows.
    families: Arc<[GroupFamily]>,
    header: GroupHeader,
}

/// The changes that a merge made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The source of each family of the merged group, in their order.
    pub families: Vec<FamilySource>,
    /// The former indices of families that were removed and not replaced.
    pub gone: Vec<usize>,
    /// Whether clear timestamp, deletion or one of the push times changed.
    pub header: bool,
}

/// The source of a family of a merged group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilySource {
    /// The former index of the family, or of the one of the same name that it replaces.
    pub before: Option<usize>,
    /// Whether it comes from the change.
    pub set: bool,
}

impl Changes {
    /// The families that the merge set. `group` is the merged group.
    pub fn set<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a GroupFamily> {
        std::iter::zip(&self.families, group.families()).filter(|(source, _)| source.set).map(|(_, family)| family)
    }

    /// Whether the merge changed nothing.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && !self.header && self.families.iter().all(|origin| !origin.set)
    }
}

impl Group {
    /// The change that a PUT at `push_time` makes: it removes all older families.
    pub fn put(push_time: PushTime, families: Vec<Family>) -> Group {
        Group::pushed_at(push_time, push_time.stamp, families)
    }

    /// The change that a POST at `push_time` makes: each family replaces the one of the same name.
    pub fn post(push_time: PushTime, families: Vec<Family>) -> Group {
        Group::pushed_at(push_time, WriteTimestamp::ZERO, families)
    }

    fn pushed_at(push_time: PushTime, cleared_at: WriteTimestamp, families: Vec<Family>) -> Group {
        let families = families.into_iter().map(|family| GroupFamily::plain(push_time.stamp, family)).collect();
        Group::from_parts(families, GroupHeader { cleared_at, pushed: Some(push_time), ..GroupHeader::default() })
    }

    /// The change that a push at `push_time` makes to the sums of a group: the present contributions of `contributor`.
    pub fn contribute(push_time: PushTime, contributor: &Arc<Contributor>, families: Vec<Family>) -> Group {
        let group = Group::post(push_time, families).contributed(contributor);
        Group { header: GroupHeader { pushed: Some(push_time), ..GroupHeader::default() }, ..group }
    }

    /// The families as contributions of `contributor`, without header.
    pub fn contributed(self, contributor: &Arc<Contributor>) -> Group {
        let of = |f: &GroupFamily| GroupFamily { contributor: Some(contributor.clone()), ..f.clone() };
        Group { families: self.families.iter().map(of).collect(), header: GroupHeader::default() }
    }

    /// The families of one contributor, as plain families without header.
    pub fn contributions(&self, contributor: &Contributor) -> Group {
        let own = self.families.iter().filter(|f| f.contributor.as_deref() == Some(contributor));
        let families = own.map(|f| GroupFamily::plain(f.stamp, f.family.clone())).collect();
        Group { families, header: GroupHeader::default() }
    }

    /// The group without its contributions.
    pub fn without_contributions(&self) -> Group {
        self.part(|_, f| f.contributor.is_none())
    }

    /// Whether the group adds: it has contributions.
    pub fn is_adding(&self) -> bool {
        self.families.iter().any(|f| f.contributor.is_some())
    }

    /// The contributors, each once, in order.
    pub fn contributors(&self) -> Vec<Arc<Contributor>> {
        let mut contributors: Vec<_> = self.families.iter().filter_map(|f| f.contributor.clone()).collect();
        contributors.sort();
        contributors.dedup();
        contributors
    }

    /// The indices of the families that have the name of the one at `at`.
    pub fn unit(&self, at: usize) -> Range<usize> {
        let start = leader(&self.families, at);
        let follows =
            |f: &&GroupFamily| f.contributor.is_some() && f.family.cmp_name(&self.families[at].family).is_eq();
        let len = self.families[start..].iter().skip(1).take_while(follows).count();
        start..start + 1 + len
    }

    /// The families by name: the indices of those that have one name.
    pub fn units(&self) -> impl Iterator<Item = Range<usize>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let unit = (at < self.families.len()).then(|| self.unit(at))?;
            at = unit.end;
            Some(unit)
        })
    }

    /// The change that a DELETE at `stamp` makes.
    pub fn delete(stamp: WriteTimestamp) -> Group {
        Group::from(GroupHeader { cleared_at: stamp, deleted: stamp, ..GroupHeader::default() })
    }

    /// The change that an expiry at `stamp` makes, which a node finds at `now_ns`.
    pub fn expire(stamp: WriteTimestamp, now_ns: u64) -> Group {
        let expired_hour = u32::try_from((now_ns / HOUR_NS).saturating_add(1)).unwrap_or(u32::MAX);
        Group::from(GroupHeader { cleared_at: stamp, deleted: stamp, expired_hour, ..GroupHeader::default() })
    }

    /// This push with the lifetime that it asks for.
    pub fn living(mut self, lifetime: Option<Lifetime>) -> Group {
        self.header.lifetime = lifetime.filter(|_| self.header.pushed.is_some());
        self
    }

    /// The change that a refused push at `push_time` makes.
    pub fn refused(push_time: PushTime) -> Group {
        Group::from(GroupHeader { failed: Some(push_time), ..GroupHeader::default() })
    }

    /// A group of these parts, as a disk or a peer gives them: families are sorted, and those that the header excludes
    /// are dropped.
    pub fn from_parts(mut families: Vec<GroupFamily>, mut header: GroupHeader) -> Group {
        if !families.is_sorted_by(|a, b| a.cmp_key(b).is_lt()) {
            families.sort_by(|a, b| a.cmp_key(b).then_with(|| cmp_family(b, a)));
            families.dedup_by(|later, first| later.cmp_key(first).is_eq());
        }
        header.cleared_at = header.cleared_at.max(header.deleted);
        families.retain(|f| header.has(f));
        Group { families: families.into(), header: header.without_deleted() }
    }

    /// Merges `change` into this group by the rule of the module.
    pub fn merge(&mut self, change: &Group) -> Changes {
        let (group, changes) = self.merged(change);
        *self = group;
        changes
    }

    /// The group that results from merging `change` into this one. Both have their families in order, so that one pass
    /// over both finds the result for each.
    pub fn merged(&self, change: &Group) -> (Group, Changes) {
        let header = self.header.merged(&change.header);
        let mut changes = Changes { header: header != self.header, ..Changes::default() };
        changes.families.reserve(self.families.len().max(change.families.len()));
        // The indices of families of the change that lose.
        let mut lost = Vec::new();
        let mut old = self.families.iter().enumerate().peekable();
        let stay = |(at, old): (usize, &GroupFamily), changes: &mut Changes| match header.has(old) {
            true => changes.families.push(FamilySource { before: Some(at), set: false }),
            false => changes.gone.push(at),
        };
        for (at, new) in change.families.iter().enumerate() {
            while let Some(before) = old.next_if(|(_, old)| old.cmp_key(new).is_lt()) {
                stay(before, &mut changes);
            }
            let namesake = old.next_if(|(_, old)| old.cmp_key(new).is_eq());
            let wins = header.has(new) && namesake.is_none_or(|(_, old)| cmp_family(new, old).is_gt());
            match namesake {
                _ if wins => changes.families.push(FamilySource { before: namesake.map(|(at, _)| at), set: true }),
                Some(before) => stay(before, &mut changes),
                None => {}
            }
            if !wins {
                lost.push(at);
            }
        }
        old.for_each(|before| stay(before, &mut changes));
        // Mostly all families come from the change, or none does.
        let set = changes.families.iter().filter(|source| source.set).count();
        let families = if set == changes.families.len() && lost.is_empty() {
            change.families.clone()
        } else if set == 0 && changes.gone.is_empty() {
            self.families.clone()
        } else {
            self.joined(change, &lost, &changes)
        };
        (Group { families, header }, changes)
    }

    /// The families of this group and of a change, without the change's `lost` ones, in the order of `changes`.
    fn joined(&self, change: &Group, lost: &[usize], changes: &Changes) -> Arc<[GroupFamily]> {
        let mut lost = lost.iter().copied().peekable();
        let new = change.families.iter().enumerate();
        let mut new = new.filter(|(at, _)| lost.next_if_eq(at).is_none()).map(|(_, family)| family);
        let mut families = Vec::with_capacity(changes.families.len());
        for FamilySource { before, set } in &changes.families {
            let old = || before.map(|at| &self.families[at]);
            families.extend(if *set { new.next() } else { old() }.cloned());
        }
        families.into()
    }

    /// The change that makes the writes later for which `is_wrong` holds, all by `shift_ns`; `None` if there are none.
    /// Their order stays the same. The births of contributions are writes, too: a delete that becomes later must not pass
    /// the contributions that began after it.
    pub fn restamped(&self, is_wrong: impl Fn(WriteTimestamp) -> bool, shift_ns: u64) -> Option<Group> {
        let later = |stamp: WriteTimestamp| {
            let time_ns = stamp.time_ns.saturating_add(shift_ns).min(STAMP_NS_MAX);
            if is_wrong(stamp) { WriteTimestamp { time_ns, ..stamp } } else { stamp }
        };
        let moment = |time: PushTime| PushTime { stamp: later(time.stamp), ..time };
        let born = |contributor: &Arc<Contributor>| match is_wrong(contributor.birth) {
            true => Arc::new(Contributor { birth: later(contributor.birth), ..**contributor }),
            false => contributor.clone(),
        };
        let wrong = self.families.iter().filter(|f| is_wrong(f.stamp) || is_wrong(f.birth()));
        let restamped = wrong.map(|f| GroupFamily {
            stamp: later(f.stamp),
            contributor: f.contributor.as_ref().map(born),
            family: f.family.clone(),
        });
        let families: Vec<_> = restamped.collect();
        let GroupHeader { cleared_at, deleted, pushed, failed, .. } = self.header;
        let header = GroupHeader {
            cleared_at: later(cleared_at),
            deleted: later(deleted),
            pushed: pushed.map(moment),
            failed: failed.map(moment),
            ..self.header
        };
        let is_changed = !families.is_empty() || header != self.header;
        is_changed.then(|| Group::from_parts(families, header))
    }

    /// The families, sorted by name, those of one name by contributor.
    pub fn families(&self) -> &[GroupFamily] {
        &self.families
    }

    /// The family of that name; the first, if there are several contributions.
    pub fn family(&self, name: &str) -> Option<&GroupFamily> {
        Some(&self.families[self.position(name)?])
    }

    /// The family with the name and the contributor of `other`.
    pub fn namesake(&self, other: &GroupFamily) -> Option<&GroupFamily> {
        Some(&self.families[self.families.binary_search_by(|f| f.cmp_key(other)).ok()?])
    }

    /// The index of that family.
    pub fn position(&self, name: &str) -> Option<usize> {
        let at = self.families.partition_point(|f| **f.family.name() < *name);
        self.families.get(at).filter(|f| **f.family.name() == *name).map(|_| at)
    }

    /// Finds several families by ascending names.
    pub fn walk(&self) -> FamilyWalk<'_> {
        FamilyWalk { families: &self.families, at: 0 }
    }

    /// The clear timestamp, deletion and push times.
    pub fn header(&self) -> &GroupHeader {
        &self.header
    }

    /// The clear timestamp: families written before it are no part of the group.
    pub fn cleared_at(&self) -> WriteTimestamp {
        self.header.cleared_at
    }

    /// The last delete; zero if there was none.
    pub fn deleted(&self) -> WriteTimestamp {
        self.header.deleted
    }

    /// The last accepted push since the last delete.
    pub fn pushed(&self) -> Option<PushTime> {
        self.header.pushed
    }

    /// The last refused push since the last delete.
    pub fn failed(&self) -> Option<PushTime> {
        self.header.failed
    }

    /// The lifetime that the last accepted push asked for.
    pub fn lifetime(&self) -> Option<Lifetime> {
        self.header.lifetime
    }

    /// The time from which a hub keeps the tombstone, in nanoseconds since the Unix epoch: that of the delete, or the
    /// one at which a node found the group expired.
    pub fn kept_from_ns(&self) -> u64 {
        self.latest().time_ns.max(u64::from(self.header.expired_hour).saturating_mul(HOUR_NS))
    }

    /// Whether the group exists. A group that is not live is a tombstone (or was never written to).
    pub fn is_live(&self) -> bool {
        self.pushed().is_some() || self.failed().is_some() || !self.families.is_empty()
    }

    /// The latest write timestamp in the group. A new write to it must be later.
    pub fn latest(&self) -> WriteTimestamp {
        let times = [self.pushed(), self.failed()].into_iter().flatten().map(|push_time| push_time.stamp);
        let families = self.families.iter().map(|f| f.stamp);
        times.chain(families).fold(self.cleared_at().max(self.deleted()), WriteTimestamp::max)
    }

    /// The size of values and schemas in bytes, as an estimate for limits.
    pub fn bytes(&self) -> usize {
        self.families.iter().map(|f| f.family.bytes()).sum()
    }

    /// Replaces each family, in the order of names, by the result of `map`, if it is not `None`. The result must have
    /// the same content.
    pub fn map_families(&mut self, mut map: impl FnMut(&Family) -> Option<Family>) {
        for at in 0..self.families.len() {
            if let Some(family) = map(&self.families[at].family) {
                Arc::make_mut(&mut self.families)[at].family = family;
            }
        }
    }

    /// The group with only those families for which `keep` holds: a change that brings a peer up to date.
    pub fn part(&self, keep: impl Fn(usize, &GroupFamily) -> bool) -> Group {
        let families = || self.families.iter().enumerate();
        if families().all(|(i, f)| keep(i, f)) {
            return self.clone();
        }
        let kept = families().filter(|(i, f)| keep(*i, f)).map(|(_, f)| f.clone());
        Group { families: kept.collect(), header: self.header }
    }
}

impl From<GroupHeader> for Group {
    /// A group without families.
    fn from(header: GroupHeader) -> Group {
        Group::from_parts(Vec::new(), header)
    }
}

/// Finds families of a group by ascending names: one pass over the group for any number of names.
#[derive(Clone, Debug)]
pub struct FamilyWalk<'a> {
    families: &'a [GroupFamily],
    at: usize,
}

impl FamilyWalk<'_> {
    /// The index of the first family of that name. Names must be asked for in ascending order.
    pub fn find(&mut self, name: &Arc<str>) -> Option<usize> {
        let found = seek(self.families, self.at, name).map(|at| leader(self.families, at));
        self.at = found.unwrap_or_else(|at| at);
        found.ok()
    }
}

/// The index in `families`, from `from` on, of that name, or the index at which to insert it. Mostly it is the next
/// one, and its name is the same object (schemas are shared): this case is tried first and compares no text.
fn seek(families: &[GroupFamily], from: usize, name: &Arc<str>) -> Result<usize, usize> {
    let from = from.min(families.len());
    let near = families[from..].iter().take(NEAR);
    if let Some(at) = near.clone().position(|f| Arc::ptr_eq(f.family.name(), name)) {
        return Ok(from + at);
    }
    for (at, f) in near.enumerate() {
        match f.family.name().cmp(name) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(from + at),
            Ordering::Greater => return Err(from + at),
        }
    }
    let from = families.len().min(from + NEAR);
    let order = |f: &GroupFamily| f.family.name().cmp(name);
    families[from..].binary_search_by(order).map(|at| from + at).map_err(|at| from + at)
}

/// The index of the first family that has the name of the one at `at`.
fn leader(families: &[GroupFamily], mut at: usize) -> usize {
    let follows = |at: usize| families[at].contributor.is_some() && at > 0;
    while follows(at) && families[at - 1].family.cmp_name(&families[at].family).is_eq() {
        at -= 1;
    }
    at
}

/// The later write wins; of a contribution, the later birth first: a delete has ended the earlier one, or its birth was
/// corrected. Content breaks the tie that only a copied store can make.
fn cmp_family(a: &GroupFamily, b: &GroupFamily) -> Ordering {
    (a.birth(), a.stamp).cmp(&(b.birth(), b.stamp)).then_with(|| a.family.cmp_content(&b.family))
}

#[cfg(test)]
mod tests;
