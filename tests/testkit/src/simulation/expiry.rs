//! Groups that expire: rules at some nodes, lifetimes that pushes ask for, sweeps, and the law of expiry.
//!
//! A seed in four has them ([`draw`]); their chances are apart from those of the rest, so other seeds run as before.
//!
//! The oracle computes from the durable content which groups are due, and not with the product's code:
//!
//! - When the deletes of a sweep are durable, no group is left that was due when the sweep began. A refused push prolongs
//!   nothing.
//! - An expiry deletes a group only after its lifetime, by the clock of the node.
//! - An expiry wins over no newer push: if a node of the set has one that is newer than everything the sweeping node knew
//!   of the group, that push outlives the delete.
//! - Nodes of a set converge, with lifetimes. So an edge that returns with an old push revives nothing for good.

use pushrelay::model::{Group, GroupId, Lifetime, WriteTimestamp};
use pushrelay::selector::Selector;
use pushrelay::store::{ExpiryRule, ExpiryRules, ExpiryWalk, GroupRecord, Record, WriteOp, WriteTime};

use super::bug::Bug;
use super::commands::push;
use super::committer::{Command, Due};
use super::content::Content;
use super::random::Random;
use super::{Checked, Event, HOUR, MILLISECOND, NodeId, SECOND, World, Wrong};

/// Chosen so that the seeds that `tests/simulation.rs` names have no expiry.
const SALT: u64 = 0x4c8_0000_0000;
/// The interval of sweeps.
const TICK: u64 = SECOND;

/// The expiry of a seed.
#[derive(Debug)]
pub struct Expiry {
    random: Random,
    /// The rules, as jobs and a lifetime; without jobs it is for all groups.
    rules: Vec<(Vec<String>, Option<u64>)>,
    /// Pushes among a hundred that ask for a lifetime.
    headers: u64,
    /// The rules are no longer used, and nothing is swept.
    pub is_over: bool,
}

/// The sweep of a node, until all its deletes are durable.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    began_ns: u64,
    /// The node's clock may not have been set since, nor its rules changed.
    clock: (i64, i64),
    has_rules: bool,
    /// Commits of the node that had failed by then. If one fails later, it may have had deletes of the sweep.
    failures: u64,
}

/// The expiry of a seed; `None` for most.
pub fn draw(seed: u64) -> Option<Expiry> {
    let mut random = Random::new(seed ^ SALT);
    if !random.chance(25) {
        return None;
    }
    let lifetimes = [2 * SECOND, 10 * SECOND, 40 * SECOND, 12 * HOUR];
    let lifetime = |random: &mut Random| random.pick(&lifetimes).map(|ns| ns / MILLISECOND);
    let jobs = |random: &mut Random| (0..7).filter(|_| random.chance(40)).map(|job| format!("j{job}")).collect();
    let mut rules: Vec<(Vec<String>, Option<u64>)> = Vec::new();
    for _ in 0..random.below(3) {
        let jobs: Vec<String> = jobs(&mut random);
        let lifetime = if random.chance(20) { None } else { lifetime(&mut random) };
        rules.extend((!jobs.is_empty()).then_some((jobs, lifetime)));
    }
    if random.chance(60) {
        rules.push((Vec::new(), lifetime(&mut random)));
    }
    let headers = [0, 30, 80][random.below(3) as usize];
    Some(Expiry { random, rules, headers, is_over: false })
}

impl Expiry {
    /// The rules as the product has them.
    fn rules(&self) -> ExpiryRules {
        let rule = |(jobs, lifetime): &(Vec<String>, Option<u64>)| {
            let jobs = if jobs.is_empty() { ".+".into() } else { jobs.join("|") };
            let selector = Selector::parse(&format!("{{job=~\"{jobs}\"}}")).expect("jobs are words");
            ExpiryRule {
                selector,
                lifetime: lifetime.map_or(Lifetime::NEVER, |ms| Lifetime::of_ms(ms).expect("short")),
            }
        };
        ExpiryRules::new(self.rules.iter().map(rule).collect())
    }

    /// When a group is due, if ever.
    fn due_ns(&self, id: &GroupId, group: &Group, has_rules: bool) -> Option<u64> {
        let of_rules = || {
            let job = id.key.get("job")?;
            let is_for = |(jobs, _): &&(Vec<String>, Option<u64>)| jobs.is_empty() || jobs.iter().any(|of| of == job);
            self.rules.iter().filter(|_| has_rules).find(is_for)?.1
        };
        let since = group.pushed().or(group.failed()).filter(|_| group.is_live())?.stamp.time_ns;
        let ms = match group.lifetime() {
            Some(lifetime) => lifetime.ms()?,
            None => of_rules()?,
        };
        Some(since + ms * MILLISECOND)
    }
}

impl World {
    /// A push with the lifetime that it asks for, if any.
    pub fn living(&mut self, command: Command) -> Command {
        let Some(expiry) = &mut self.expiry else { return command };
        let Command::Write(mut write) = command else { return command };
        if matches!(write.op, WriteOp::Put(_) | WriteOp::Post(_) | WriteOp::Add(_))
            && expiry.random.chance(expiry.headers)
        {
            let ms = [2_000, 10_000, 40_000, 43_200_000, 0][expiry.random.below(5) as usize];
            write.terms.lifetime = Lifetime::of_number(ms);
        }
        if write.terms.lifetime.is_some() {
            self.count("push: asks for a lifetime");
        }
        Command::Write(write)
    }

    /// Draws the nodes that have rules.
    pub fn give_rules(&mut self) {
        let Some(expiry) = &mut self.expiry else { return };
        self.nodes.iter_mut().for_each(|node| node.has_rules = expiry.random.chance(60));
        self.count("topology: groups expire");
    }

    /// A node that starts gets its rules, or has none, and begins to sweep.
    pub fn begin_expiry(&mut self, at: NodeId, life: u64) {
        let Some(expiry) = &mut self.expiry else { return };
        let wait = expiry.random.below(TICK);
        let (has_rules, is_over) = (self.nodes[at].has_rules, expiry.is_over);
        let rules = if has_rules && !is_over { expiry.rules() } else { ExpiryRules::default() };
        self.running(at).engine.store().published().set_expiry_rules(rules);
        self.after(wait, Event::Expire { node: at, life });
    }

    /// From now on no group expires: the clocks are about to jump.
    pub fn end_expiry(&mut self) {
        let Some(expiry) = &mut self.expiry else { return };
        expiry.is_over = true;
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            running.engine.store().published().set_expiry_rules(ExpiryRules::default());
        }
    }

    /// Whether pushes ask for lifetimes: then groups expire without rules.
    pub fn has_lifetimes(&self) -> bool {
        self.expiry.as_ref().is_some_and(|expiry| expiry.headers > 0)
    }

    /// A running node looks for groups that are due, and asks its committer to delete them.
    pub fn sweep_expired(&mut self, at: NodeId, life: u64) {
        if self.nodes[at].life != life || self.nodes[at].running.is_none() {
            return;
        }
        let Some(expiry) = &mut self.expiry else { return };
        if expiry.is_over {
            return;
        }
        let wait = expiry.random.between(TICK / 2, 3 * TICK);
        let reloads = expiry.random.chance(1) && !self.quiet;
        let most = expiry.random.between(1, 5) as usize;
        self.after(wait, Event::Expire { node: at, life });
        if reloads {
            self.count("state: rules of expiry reloaded");
            self.nodes[at].has_rules ^= true;
            let rules = match (&self.expiry, self.nodes[at].has_rules) {
                (Some(expiry), true) => expiry.rules(),
                _ => ExpiryRules::default(),
            };
            self.running(at).engine.store().published().set_expiry_rules(rules);
        }
        let now = self.store_now(at);
        let published = self.running(at).engine.store().published();
        let mut walk = ExpiryWalk::begin(&published, now.stamp_ns);
        let mut due: Vec<GroupId> = std::iter::from_fn(|| walk.step(&published)).flatten().collect();
        due.sort();
        if self.is(Bug::RefusedPushProlongs) {
            due.retain(|id| !published.group(id).is_some_and(|entry| self.is_prolonged(at, id, &entry.group, now)));
        }
        for groups in due.chunks(most) {
            self.ask(at, Command::Expire { groups: groups.to_vec(), reply: Due::default() });
        }
        let node = &self.nodes[at];
        let clock = (node.skew_ns, node.offset_ns);
        let sweep = Sweep { began_ns: now.stamp_ns, clock, has_rules: node.has_rules, failures: node.failures };
        self.ask(at, Command::Expire { groups: Vec::new(), reply: Due { sweep: Some(sweep), ..Due::default() } });
    }

    /// Planted: the lifetime counts from a refused push that is newer.
    fn is_prolonged(&self, at: NodeId, id: &GroupId, group: &Group, now: WriteTime) -> bool {
        let (Some(pushed), Some(failed)) = (group.pushed(), group.failed()) else { return false };
        let due_ns = self.expiry.as_ref().and_then(|expiry| expiry.due_ns(id, group, self.nodes[at].has_rules));
        let later_ns = failed.stamp.time_ns.saturating_sub(pushed.stamp.time_ns);
        due_ns.is_some_and(|due_ns| due_ns + later_ns > now.stamp_ns)
    }

    /// Planted: an expiry is an ordinary delete, at the time of the sweep.
    pub fn as_deletes(&self, at: NodeId, groups: &[GroupId], now: WriteTime) -> Vec<Command> {
        let (Some(expiry), Some(running)) = (&self.expiry, &self.nodes[at].running) else { return Vec::new() };
        let store = running.engine.store();
        let is_due = |id: &&GroupId| {
            let group = store.drafted(id).map(|entry| entry.group.clone()).unwrap_or_default();
            expiry.due_ns(id, &group, self.nodes[at].has_rules).is_some_and(|due_ns| due_ns <= now.stamp_ns)
        };
        groups.iter().filter(is_due).map(|id| push((*id.shown()).clone(), WriteOp::Delete)).collect()
    }

    /// Checks an expiry that a node has drafted. `before` is the node's content without it.
    pub fn check_expiry(&mut self, at: NodeId, before: &Content, record: &GroupRecord) -> Checked {
        self.count("state: a group expired");
        let Some(expiry) = &self.expiry else { return Ok(()) };
        let (id, now_ns) = (&record.id, self.store_now(at).stamp_ns);
        let Some(group) = before.groups.get(id) else {
            return Err(Wrong(format!("node {at} lets {id} expire, which it does not have")));
        };
        let due_ns = expiry.due_ns(id, group, self.nodes[at].has_rules);
        if due_ns.is_none_or(|due_ns| due_ns > now_ns) {
            let group = super::content::show(Some(group));
            return Err(Wrong(format!("node {at} lets {id} expire at {now_ns}, due at {due_ns:?}: {group}")));
        }
        let Some((set, key)) = self.set_of(at, id) else { return Ok(()) };
        let union = self.union_of(set, &key, None);
        let known: WriteTimestamp = group.latest();
        let Some(newer) = union.pushed().filter(|pushed| pushed.stamp > known) else { return Ok(()) };
        self.count("state: a push won over an expiry");
        if newer.stamp <= record.group.deleted() {
            let (stamp, deleted) = (newer.stamp, record.group.deleted());
            return Err(Wrong(format!(
                "node {at} lets {id} expire at {deleted:?}, after a push at {stamp:?} of which it knew nothing"
            )));
        }
        Ok(())
    }

    /// The records that a command has drafted are durable and published: nothing is left that was due.
    pub fn check_swept(&mut self, at: NodeId, sweep: Sweep) -> Checked {
        let node = &self.nodes[at];
        let (Some(expiry), Some(running)) = (&self.expiry, &node.running) else { return Ok(()) };
        let is_same = sweep.clock == (node.skew_ns, node.offset_ns)
            && (sweep.has_rules, sweep.failures) == (node.has_rules, node.failures);
        let published = running.engine.store().published();
        if !is_same || published.is_clock_doubted() || expiry.is_over {
            return Ok(());
        }
        for entry in published.groups() {
            let due_ns = expiry.due_ns(entry.id(), &entry.group, sweep.has_rules);
            if due_ns.is_some_and(|due_ns| due_ns <= sweep.began_ns) && !published.is_unconfirmed(entry.id()) {
                let group = super::content::show(Some(&entry.group));
                let (id, began_ns) = (entry.id(), sweep.began_ns);
                return Err(Wrong(format!("node {at} has swept at {began_ns}, and still has {id}: {group}")));
            }
        }
        Ok(())
    }

    /// Checks the expiries among the records that a command has drafted: all of a sweep, and of a merge those that follow
    /// the live group of the same update.
    pub fn check_expiries(&mut self, at: NodeId, mut before: Content, records: &[Record], is_sweep: bool) -> Checked {
        if self.expiry.is_none() {
            return Ok(());
        }
        let mut merged: Option<GroupId> = None;
        for record in records {
            if let Record::Group(group) = record {
                let is_delete = !group.group.is_live() && group.header.origin.is_none();
                let is_arrival = merged.as_ref() == Some(&group.id) && group.group.header().expired_hour > 0;
                if is_delete && (is_sweep || is_arrival) && !group.group.deleted().is_zero() {
                    self.check_expiry(at, &before, group)?;
                }
                merged = group.group.is_live().then(|| group.id.clone());
            }
            before.apply(record);
        }
        Ok(())
    }
}
