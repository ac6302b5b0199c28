//! Pushes that add: increments with and without idempotency keys, repeats of them, and the oracle that counts them.
//!
//! A seed in four has them ([`draw`]); their chances are apart from those of the rest, so other seeds run as before. In
//! such a seed many edges have a clock that is behind, and do not reach their hubs at first.
//!
//! Each increment adds a power of four of its own to the counter `c`, and half of them to `d`, too. So a sum shows, digit
//! by digit, how often each increment is in it. The oracle knows increments and deletes from the commands, and reads only
//! sums:
//!
//! - No sum has an increment twice, or one that was refused.
//! - An increment that was answered 200 is in the sum of every node of its set when faults are over, and in those of all
//!   nodes together before anything is lost. It may be missing if every copy was lost with disks, or if it was deleted: a
//!   delete of which its node had not heard when it began the contribution is later than the beginning.
//! - An increment that a node had when it deleted the group is in no sum that knows of that delete.
//! - The sum that a node shows is that of its contributions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pushrelay::commit::GroupWrite;
use pushrelay::model::{
    Family, FamilyBuilder, GaugeRule, Group, GroupId, LabelSet, MetricType, ValueLayout, WriteTimestamp,
};
use pushrelay::store::{IdempotencyKey, Increment, Record, WriteOp};

use super::committer::{Command, Due};
use super::content::{Content, Key};
use super::fault::Kind;
use super::oracle::at_the_pusher;
use super::random::Random;
use super::{Checked, Event, HOUR, MILLISECOND, MINUTE, NodeId, SECOND, World, Wrong};

/// Chosen so that the seeds that `tests/simulation.rs` names have none of this.
const SALT: u64 = 0xadd_144f_0000;
/// The increments of one series, at most: their sum is exact.
const DIGITS: u32 = 26;
/// A push is repeated within this time: the window of its key is longer.
const REPEAT_NS_MAX: u64 = 8 * MINUTE;
/// The counters. All increments add to the first one.
const COUNTERS: [&str; 2] = ["c", "d"];

/// The pushes that add of a seed, and their oracle.
#[derive(Debug)]
pub struct Adding {
    random: Random,
    jobs: u64,
    /// Among a hundred pushes, those to groups that add up, and among those the deletes and those with a key.
    share: u64,
    deletes: u64,
    keyed: u64,
    /// Whether deletes at one site say nothing about others: no edge moves.
    by_site: bool,
    increments: Vec<Counted>,
    /// The increments by group (as its pusher names it), series and digit.
    digits: BTreeMap<(Key, u64, u32), usize>,
    /// The number of increments of each group.
    lengths: BTreeMap<Key, u64>,
    generations: Vec<Generation>,
    /// The contribution to which each life of a node adds, by the labels under which its group is shown.
    current: BTreeMap<Contribution, usize>,
    /// The contributions that the draft of a node has begun, with those before them, oldest first.
    drafted: BTreeMap<NodeId, Vec<(Contribution, Option<usize>)>>,
    /// All deletes, by site and group.
    deleted: BTreeMap<(usize, Key), BTreeSet<WriteTimestamp>>,
    /// Deletes that a correction of the clock has moved, by their node and its life: the former timestamps.
    moved: BTreeMap<(NodeId, u64, WriteTimestamp), WriteTimestamp>,
    /// The increments that each set must have, each with whether it is that of the second counter: a disk may be lost that
    /// alone had one of the two.
    required: BTreeMap<(usize, Key), BTreeSet<(usize, bool)>>,
}

/// A node, its life, the labels under which a group is shown, and the rule for gauges.
type Contribution = (NodeId, u64, Key, GaugeRule);

/// An increment.
#[derive(Debug)]
struct Counted {
    node: NodeId,
    shown: LabelSet,
    series: u64,
    digit: u32,
    has_second: bool,
    gauges: GaugeRule,
    is_keyed: bool,
    first_ns: u64,
    /// Of the node, at the first attempt: its life, how often it lost content, and how often its clock was set.
    attempted: (u64, u64, u64),
    state: State,
    generation: Option<usize>,
    /// A delete by a node that had it.
    ended: Option<WriteTimestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Answered,
    Refused,
}

/// A contribution, as the oracle knows it.
#[derive(Debug)]
struct Generation {
    node: NodeId,
    life: u64,
    /// The timestamp of its first increment, as it was made and as it was corrected.
    birth: WriteTimestamp,
    corrected: WriteTimestamp,
    /// The newest delete that the node had of then.
    known: WriteTimestamp,
}

/// The adding pushes of a seed; `None` for most.
pub fn draw(seed: u64, moves: bool) -> Option<Adding> {
    let mut random = Random::new(seed ^ SALT);
    if !random.chance(25) {
        return None;
    }
    let (jobs, share) = (random.between(1, 3), [30, 60, 90][random.below(3) as usize]);
    let (deletes, keyed) = ([2, 10, 25][random.below(3) as usize], [20, 60, 90][random.below(3) as usize]);
    Some(Adding {
        random,
        jobs,
        share,
        deletes,
        keyed,
        by_site: !moves,
        increments: Vec::new(),
        digits: BTreeMap::new(),
        lengths: BTreeMap::new(),
        generations: Vec::new(),
        current: BTreeMap::new(),
        drafted: BTreeMap::new(),
        deleted: BTreeMap::new(),
        moved: BTreeMap::new(),
        required: BTreeMap::new(),
    })
}

impl Adding {
    fn site(&self, site: usize) -> usize {
        if self.by_site { site } else { 0 }
    }

    /// A new increment of a group.
    fn new_increment(&mut self, counted: Counted, key: Key) -> usize {
        let number = self.increments.len();
        self.digits.insert((key, counted.series, counted.digit), number);
        self.increments.push(counted);
        number
    }

    /// The increments in the sums of a group that its pusher names `key`.
    fn numbers(&self, key: &Key, group: &Group) -> BTreeSet<usize> {
        let places =
            sums(group).into_iter().flat_map(|((_, series), sum)| digits(sum).map(move |(at, _)| (series, at)));
        places.filter_map(|(series, digit)| self.digits.get(&(key.clone(), series, digit)).copied()).collect()
    }

    /// The operation of an increment.
    fn op(&self, number: usize) -> WriteOp {
        let counted = &self.increments[number];
        let value = 4_u64.pow(counted.digit) as f64;
        let names = &COUNTERS[..1 + usize::from(counted.has_second)];
        let families = names.iter().map(|name| counter(name, counted.series, value)).collect();
        let number = number as u128 + 1;
        let key = counted.is_keyed.then_some(IdempotencyKey { key: number, body: number << 1 });
        WriteOp::Add(Increment { families, gauges: counted.gauges, key })
    }

    /// Whether an increment may be missing: a delete ended its contribution.
    fn is_excused(&self, site: usize, key: &Key, counted: &Counted) -> bool {
        let Some(generation) = counted.generation.map(|at| &self.generations[at]) else { return true };
        let is_known = |mut deleted: WriteTimestamp| {
            loop {
                if deleted <= generation.known {
                    return true;
                }
                match self.moved.get(&(generation.node, generation.life, deleted)) {
                    Some(former) => deleted = *former,
                    None => return false,
                }
            }
        };
        let deletes = self.deleted.get(&(self.site(site), key.clone())).into_iter().flatten();
        deletes.copied().any(|deleted| deleted >= generation.birth && !is_known(deleted))
    }
}

fn counter(name: &str, series: u64, value: f64) -> Family {
    let mut builder = FamilyBuilder::new(name, MetricType::Counter);
    builder.series(&[("s", &series.to_string())], &ValueLayout::Single, &[value], None);
    builder.finish().expect("it has one series")
}

/// The sum of each series of each counter.
type Sums = BTreeMap<(Arc<str>, u64), f64>;

fn add_series(sums: &mut Sums, family: &Family) {
    for series in family.schema().series() {
        let label = series.labels().find(|(name, _)| *name == "s");
        let Some(number) = label.and_then(|(_, value)| value.parse().ok()) else { continue };
        *sums.entry((family.name().clone(), number)).or_default() += family.values()[series.values()][0];
    }
}

/// The sums of all contributions to a group.
fn sums(group: &Group) -> Sums {
    let mut sums = Sums::new();
    let contributions = group.families().iter().filter(|f| f.contributor.is_some());
    contributions.for_each(|f| add_series(&mut sums, &f.family));
    sums
}

/// The digits of a sum that are not zero, each with its place.
fn digits(sum: f64) -> impl Iterator<Item = (u32, u64)> {
    let sum = sum as u64;
    (0..=DIGITS).map(move |digit| (digit, (sum >> (2 * digit)) % 4)).filter(|(_, times)| *times > 0)
}

impl World {
    /// Sets clocks and lines as they are in a seed with pushes that add, and adds some kinds of faults.
    pub fn prepare_adding(&mut self) {
        let Some(adding) = &mut self.adding else { return };
        let random = &mut adding.random;
        for kind in [Kind::Save, Kind::RollBack, Kind::Wipe, Kind::Kill, Kind::PowerLoss, Kind::Clone, Kind::Partition]
        {
            if random.chance(30) && !self.plan.faults.contains(&kind) {
                self.plan.faults.push(kind);
            }
        }
        if self.plan.faults.contains(&Kind::RollBack) && !self.plan.faults.contains(&Kind::Save) {
            self.plan.faults.push(Kind::Save);
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].is_hub {
                continue;
            }
            if random.chance(50) {
                self.nodes[at].skew_ns = -(random.span(SECOND, 12 * HOUR) as i64);
            }
            if random.chance(40) {
                let until = random.span(5 * SECOND, 60 * SECOND);
                for hub in self.nodes[at].uplink_hubs() {
                    self.partitions.insert((at, hub), until);
                }
            }
        }
        self.count("topology: groups add up");
    }

    /// A push to a group that adds up, at a node, in place of the one that would set out; or that one.
    pub fn adding_push(&mut self, at: NodeId, command: Command) -> Command {
        let Some(mut adding) = self.adding.take() else { return command };
        let command = match command {
            Command::Write(GroupWrite { shown, op, .. }) if adding.random.chance(adding.share) => {
                self.some_adding_push(&mut adding, at, &shown, op)
            }
            other => other,
        };
        self.adding = Some(adding);
        command
    }

    fn some_adding_push(&mut self, adding: &mut Adding, at: NodeId, shown: &LabelSet, op: WriteOp) -> Command {
        let job = format!("a{}", adding.random.below(adding.jobs));
        let others = shown.iter().filter(|label| label.name != "job").map(|label| (label.name, label.value));
        let shown = LabelSet::new(others.chain([("job", &*job)]));
        let draw = adding.random.below(100);
        if draw < adding.deletes {
            self.count("push: DELETE of a group that adds up");
            return super::commands::push(shown, WriteOp::Delete);
        }
        if draw < adding.deletes + 3 {
            self.count("push: plain, to a group that may add up");
            let op = if matches!(op, WriteOp::Delete) { WriteOp::Post(Vec::new()) } else { op };
            return super::commands::push(shown, op);
        }
        let key = at_the_pusher(&Arc::new(shown.clone()));
        let length = adding.lengths.entry(key.clone()).or_default();
        let (series, digit) = (*length / u64::from(DIGITS), (*length % u64::from(DIGITS)) as u32);
        *length += 1;
        let node = &self.nodes[at];
        let counted = Counted {
            node: at,
            shown: shown.clone(),
            series,
            digit,
            has_second: adding.random.chance(50),
            gauges: if adding.random.chance(10) { GaugeRule::Max } else { GaugeRule::Last },
            is_keyed: adding.random.chance(adding.keyed),
            first_ns: self.now,
            attempted: (node.life, node.losses, node.jumps),
            state: State::Open,
            generation: None,
            ended: None,
        };
        let is_keyed = counted.is_keyed;
        let number = adding.new_increment(counted, key);
        let op = adding.op(number);
        let repeated_after = adding.random.span(10 * MILLISECOND, 40 * SECOND);
        let is_repeated = is_keyed && adding.random.chance(60);
        self.count("push: adds");
        if is_repeated {
            self.after(repeated_after, Event::Repeat { increment: number });
        }
        let reply = Due { increment: Some(number), ..Due::default() };
        Command::Write(GroupWrite { shown: Arc::new(shown), op, terms: Default::default(), values: 0, reply })
    }

    /// A pusher repeats a push with its key: at once again if it was answered, until then if not. It must not if the node
    /// cannot remember the key: a lost store and, across a restart, a clock that was set.
    pub fn repeat(&mut self, number: usize) {
        let Some(adding) = &mut self.adding else { return };
        let counted = &adding.increments[number];
        let (at, shown) = (counted.node, counted.shown.clone());
        let is_open = counted.state == State::Open;
        let (life, losses, jumps) = counted.attempted;
        let node = &self.nodes[at];
        let is_known = losses == node.losses && (life == node.life || jumps == node.jumps);
        if self.quiet || counted.state == State::Refused || !is_known || self.now - counted.first_ns > REPEAT_NS_MAX {
            return;
        }
        let op = adding.op(number);
        let wait = adding.random.span(SECOND / 10, 30 * SECOND);
        let again = is_open || adding.random.chance(20);
        let is_running = node.running.is_some();
        if again {
            self.after(wait, Event::Repeat { increment: number });
        }
        if is_running {
            self.count("push: an increment repeated with its key");
            let reply = Due { increment: Some(number), ..Due::default() };
            self.ask(
                at,
                Command::Write(GroupWrite { shown: Arc::new(shown), op, terms: Default::default(), values: 0, reply }),
            );
        }
    }

    /// The draft has an increment: notes its contribution.
    pub fn drafted_increment(&mut self, at: NodeId, number: usize, before: Option<&Group>, records: &[Record]) {
        let life = self.nodes[at].life;
        let Some(adding) = &mut self.adding else { return };
        let is_applied = |record: &&Record| matches!(record, Record::Group(group) if group.group.is_adding());
        let Some(Record::Group(record)) = records.iter().rfind(is_applied) else { return };
        let Some(pushed) = record.group.pushed() else { return };
        let known = before.map(Group::deleted).unwrap_or_default();
        let current = (at, life, record.id.shown(), adding.increments[number].gauges);
        // A group whose tombstone was dropped has nothing of it any more, and no delete that says so.
        let pushed_as = at_the_pusher(&record.id.shown());
        let present = before.map(|group| adding.numbers(&pushed_as, group)).unwrap_or_default();
        let has = |of: usize| present.iter().any(|number| adding.increments[*number].generation == Some(of));
        let goes_on = adding.current.get(&current).copied();
        let goes_on = goes_on.filter(|of| adding.generations[*of].corrected > known && has(*of));
        let generation = goes_on.unwrap_or_else(|| {
            let birth = pushed.stamp;
            adding.generations.push(Generation { node: at, life, birth, corrected: birth, known });
            adding.generations.len() - 1
        });
        let former = adding.current.insert(current.clone(), generation);
        adding.drafted.entry(at).or_default().push((current, former));
        let counted = &mut adding.increments[number];
        (counted.generation, counted.ended) = (Some(generation), None);
    }

    /// The draft of a node has ended: it is durable, or was abandoned.
    pub fn ended_draft(&mut self, at: NodeId, is_durable: bool) {
        let Some(adding) = &mut self.adding else { return };
        let drafted = adding.drafted.remove(&at).unwrap_or_default();
        for (current, former) in drafted.into_iter().rev().filter(|_| !is_durable) {
            match former {
                Some(former) => adding.current.insert(current, former),
                None => adding.current.remove(&current),
            };
        }
    }

    /// A push with an increment was answered.
    pub fn answered_increment(&mut self, at: NodeId, number: usize, id: Option<&GroupId>, is_applied: Option<bool>) {
        let set = id.and_then(|id| self.set_of(at, id));
        let Some(adding) = &mut self.adding else { return };
        let counted = &mut adding.increments[number];
        match is_applied {
            Some(true) => {
                counted.state = State::Answered;
                let parts = [false, true].into_iter().take(1 + usize::from(counted.has_second));
                if let Some(set) = set {
                    adding.required.entry(set).or_default().extend(parts.map(|second| (number, second)));
                }
            }
            Some(false) if counted.state == State::Open && counted.generation.is_none() => {
                counted.state = State::Refused;
            }
            _ => {}
        }
    }

    /// The draft has deletes by this node. `before` is its content without them.
    pub fn drafted_deletes(&mut self, before: &Content, records: &[Record]) {
        let Some(adding) = &mut self.adding else { return };
        for record in records {
            let Record::Group(record) = record else { continue };
            let deleted = record.group.deleted();
            let Some(group) = before.groups.get(&record.id).filter(|group| group.deleted() < deleted) else { continue };
            let key = at_the_pusher(&record.id.shown());
            for number in adding.numbers(&key, group) {
                adding.increments[number].ended.get_or_insert(deleted);
            }
        }
    }

    /// The draft has corrections of this node's clock. `before` is its content without them.
    pub fn drafted_corrections(&mut self, at: NodeId, before: &Content, records: &[Record]) {
        let life = self.nodes[at].life;
        let Some(adding) = &mut self.adding else { return };
        for record in records {
            let Record::Group(record) = record else { continue };
            let former = before.groups.get(&record.id).map(Group::deleted).unwrap_or_default();
            let deleted = record.group.deleted();
            if deleted > former {
                adding.moved.insert((at, life, deleted), former);
            }
            for contributor in record.group.contributors() {
                let current = (at, life, record.id.shown(), contributor.gauges);
                if let Some(generation) = adding.current.get(&current) {
                    let generation = &mut adding.generations[*generation];
                    generation.corrected = generation.corrected.max(contributor.birth);
                }
            }
        }
    }

    /// These records are durable: notes the deletes among them.
    pub fn durable_deletes(&mut self, at: NodeId, records: &[Record]) {
        if self.adding.is_none() {
            return;
        }
        for record in records {
            let Record::Group(record) = record else { continue };
            let Some((site, key)) = self.home_of(at, &record.id) else { continue };
            let Some(adding) = &mut self.adding else { continue };
            let deleted = record.group.deleted();
            if !deleted.is_zero() {
                adding.deleted.entry((adding.site(site), key)).or_default().insert(deleted);
            }
        }
    }

    /// Some content is lost: the increments that are left are required from now on.
    pub fn require_what_is_left(&mut self) {
        let Some(adding) = &self.adding else { return };
        let mut required = BTreeMap::<(usize, Key), BTreeSet<(usize, bool)>>::new();
        for (set, groups) in &self.oracle.promised {
            for (key, group) in groups {
                let pushed = at_the_pusher(key);
                for ((name, series), sum) in sums(group) {
                    let second = *name == *COUNTERS[1];
                    let known =
                        digits(sum).filter_map(|(digit, _)| adding.digits.get(&(pushed.clone(), series, digit)));
                    let answered = known.filter(|number| adding.increments[**number].state == State::Answered);
                    let answered = answered.map(|number| (*number, second));
                    required.entry((*set, key.clone())).or_default().extend(answered);
                }
            }
        }
        self.adding.as_mut().expect("looked at before").required = required;
    }

    /// Checks the sums of a group: of a node, or of all nodes of a set together.
    pub fn check_sums(&self, set: usize, key: &Key, found: &Group, who: &str) -> Checked {
        let Some(adding) = &self.adding else { return Ok(()) };
        let wrong = |text: String| {
            let group = super::content::show(Some(found));
            Err(Wrong(format!("{who} have of group {key} {text}: {group}")))
        };
        let (mut present, pushed) = (BTreeSet::new(), at_the_pusher(key));
        for ((name, series), sum) in sums(found) {
            for (digit, times) in digits(sum) {
                let Some(&number) = adding.digits.get(&(pushed.clone(), series, digit)) else {
                    return wrong(format!("in {name} {series} the digit {digit}, which nobody added"));
                };
                let counted = &adding.increments[number];
                if times > 1 {
                    return wrong(format!("the increment {number} {times} times ({name} {series}/{digit})"));
                }
                if counted.state == State::Refused {
                    return wrong(format!("the increment {number}, which was refused"));
                }
                let is_corrected = counted.generation.is_some_and(|at| {
                    let generation = &adding.generations[at];
                    generation.corrected != generation.birth
                });
                if counted.ended.is_some_and(|ended| ended <= found.deleted()) && !is_corrected {
                    return wrong(format!("the increment {number}, which was deleted ({name} {series}/{digit})"));
                }
                present.insert((number, name == COUNTERS[1].into()));
            }
        }
        let site = self.oracle.member.iter().find(|(_, of)| **of == set).map_or(0, |((site, _), _)| *site);
        for &(number, second) in adding.required.get(&(set, key.clone())).into_iter().flatten() {
            let counted = &adding.increments[number];
            if !present.contains(&(number, second)) && !adding.is_excused(site, key, counted) {
                let (series, digit) = (counted.series, counted.digit);
                return wrong(format!("not the increment {number} ({series}/{digit}), answered at {}", counted.node));
            }
        }
        Ok(())
    }

    /// Checks that a running node shows the sums of its contributions.
    pub fn check_shown_sums(&self, at: NodeId) -> Checked {
        let (Some(_), Some(running)) = (&self.adding, &self.nodes[at].running) else { return Ok(()) };
        for entry in running.engine.store().published().entries() {
            let mut shown = Sums::new();
            let leaders = entry.leaders().filter(|(at, ..)| {
                entry.group.families()[entry.group.unit(*at)].iter().any(|f| f.contributor.is_some())
            });
            leaders.for_each(|(at, ..)| add_series(&mut shown, entry.whole(at)));
            let due = sums(&entry.group);
            if shown != due {
                let id = entry.id();
                return Err(Wrong(format!(
                    "node {at} shows of {id} {shown:?}, the sum of its contributions is {due:?}"
                )));
            }
        }
        Ok(())
    }
}
