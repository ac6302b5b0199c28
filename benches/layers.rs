//! The cost of each layer by itself: parse, apply, merge, render, encode, decode, commit, checkpoint.
//!
//! `cargo bench --bench layers` runs all of it, `cargo bench --bench layers -- parse` a part. `benches/compare`
//! measures whole servers.

use std::fmt::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use pushrelay::commit::{Merge, MergeSequence, Transaction};
use pushrelay::exposition::text::{self, TextRenderer};
use pushrelay::exposition::{Escaping, Format, NameValidation, PushLimits};
use pushrelay::model::{
    ByteBudget, Epoch, Family, Group, GroupId, LabelSet, NodeId, Position, PushTime, StoreId, WriteTimestamp,
};
use pushrelay::node::http::scrape::ScrapeBody;
use pushrelay::selector::Selectors;
use pushrelay::storage::{self, Log, RealDisk};
use pushrelay::store::selection::{ScrapeFilter, Shard};
use pushrelay::store::{Identity, Record, Rules, Scope, Store, WriteOp, WriteTime};
use pushrelay::wire::{Decoder, Delta, Encoder, Message, Update};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

const SECOND_NS: u64 = 1_000_000_000;
const IDENTITY: Identity = Identity { store: StoreId(1), node: NodeId(1) };

/// The sizes of pushes, in series.
const PUSHES: [usize; 3] = [3, 100, 10_000];

/// A push: families of up to ten series. The values depend on `tick`, the number of the push.
fn body(series: usize, tick: usize) -> String {
    body_of(series, 10, tick)
}

/// The same with families of up to `each` series.
fn body_of(series: usize, each: usize, tick: usize) -> String {
    let mut body = String::new();
    for number in 0..series {
        let family = number / each;
        if number % each == 0 {
            let _ = writeln!(body, "# HELP metric_{family} What is measured.\n# TYPE metric_{family} gauge");
        }
        let value = ((number * 7919 + tick * 104_729) % 100_000) as f64 / 100.0;
        let _ = writeln!(body, "metric_{family}{{process=\"worker-{number:05}\",zone=\"a\"}} {value}");
    }
    body
}

fn key(group: usize) -> LabelSet {
    LabelSet::new([("instance".to_owned(), format!("host-{group:05}")), ("job".to_owned(), "bench".to_owned())])
}

fn families(body: &str, key: &LabelSet) -> Vec<Family> {
    let raw = text::parse(body.as_bytes(), NameValidation::Legacy, &PushLimits::default()).expect("a body that parses");
    raw.iter().map(|raw| raw.family(key).expect("a family that stands")).collect()
}

fn now(tick: usize) -> WriteTime {
    let ns = (1_700_000_000 + tick as u64) * SECOND_NS;
    WriteTime { wall_ns: ns, stamp_ns: ns, monotonic_ns: ns }
}

/// A store with groups that each have the push number 0.
fn store(groups: usize, series: usize) -> Store {
    let mut store = Store::new(Rules::default(), &[]);
    store.open(IDENTITY, Epoch(1));
    let body = body(series, 0);
    for group in 0..groups {
        push(&mut store, group, &body, 0);
    }
    store.commit();
    store
}

fn push(store: &mut Store, group: usize, body: &str, tick: usize) {
    let key = key(group);
    let families = families(body, &key);
    store.write(GroupId::local(key), WriteOp::Put(families), now(tick)).expect("a push that is accepted");
}

#[divan::bench(args = PUSHES)]
fn parse_text(bencher: Bencher, series: usize) {
    let (body, key) = (body(series, 0), key(0));
    bencher.counter(ItemsCount::new(series)).bench(|| families(black_box(&body), &key));
}

/// The same for a group that has these series already.
#[divan::bench(args = PUSHES)]
fn parse_text_known(bencher: Bencher, series: usize) {
    let key = key(0);
    let push_time = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
    let held = Group::put(push_time, families(&body(series, 0), &key));
    let body = body(series, 1);
    let known = text::SameSeriesReader::new(PushLimits::default());
    let walk = |body: &str| known.parse(body.as_bytes(), &held, &key);
    bencher.counter(ItemsCount::new(series)).bench(|| walk(black_box(&body)).expect("a body that repeats its series"));
}

/// One push into a store with that many groups: the work of the store's writer, without the disk.
#[divan::bench(args = [(3, 1), (3, 10_000), (100, 1), (100, 1_000), (10_000, 1)])]
fn apply(bencher: Bencher, (series, groups): (usize, usize)) {
    let mut store = store(groups, series);
    let bodies = [body(series, 1), body(series, 2)];
    let mut tick = 0;
    bencher
        .counter(ItemsCount::new(series))
        .with_inputs(|| {
            tick += 1;
            (tick, families(&bodies[tick % 2], &key(tick % groups)))
        })
        .bench_local_values(|(tick, families)| {
            let id = GroupId::local(key(tick % groups));
            store.write(id, WriteOp::Put(families), now(tick)).expect("a push that is accepted");
            store.commit()
        });
}

/// A page of 100,000 series as text, not compressed.
#[divan::bench(args = [(10_000, 10), (1_000, 100), (10, 10_000)])]
fn render_text(bencher: Bencher, (groups, series): (usize, usize)) {
    let published = store(groups, series).published();
    let mut page = Vec::new();
    bencher.counter(ItemsCount::new(groups * series)).bench_local(|| {
        page.clear();
        let mut renderer = TextRenderer::new(Escaping::Underscores);
        for (_, block) in published.snapshot() {
            let mut shown = block.entries().map(|entry| (&*entry.labels, &entry.family)).peekable();
            let head = shown.peek().map(|(_, family)| family.schema().clone());
            if let Some(head) = head {
                renderer.block(&head, shown, &mut page);
            }
        }
        page.len()
    });
}

/// The parts of a page of 1,000,000 series in 10,000 groups: the whole one; the 100 groups of 1 % side by side, as those of
/// a site are, and spread over all; and all four shards together. Gzip is that of a second scrape, from the cache.
const PARTS: [&str; 8] = [
    "whole, text",
    "1 % side by side, text",
    "1 % spread, text",
    "4 shards, text",
    "whole, gzip",
    "1 % side by side, gzip",
    "1 % spread, gzip",
    "4 shards, gzip",
];

#[divan::bench(args = PARTS, sample_count = 20, sample_size = 1)]
fn scrape_part(bencher: Bencher, part: &str) {
    static STORE: LazyLock<(Store, ByteBudget)> = LazyLock::new(|| {
        let store = store(10_000, 100);
        (store, ByteBudget::new(256 << 20))
    });
    let (store, budget) = &*STORE;
    let filters: Vec<ScrapeFilter> = match part.split(',').next() {
        Some("1 % side by side") => vec![selecting("{instance=~\"host-042..\"}")],
        Some("1 % spread") => vec![selecting("{instance=~\"host-...42\"}")],
        Some("4 shards") => {
            Shard::all(4).map(|shard| ScrapeFilter { shard: Some(shard), ..ScrapeFilter::default() }).collect()
        }
        _ => vec![ScrapeFilter::default()],
    };
    let gzip = part.ends_with("gzip").then_some(budget);
    let scrape = || -> usize {
        let bytes = |filter: &ScrapeFilter| -> usize {
            let published = store.published();
            let body = match filter.is_everything() {
                true => ScrapeBody::new(&published, Vec::new(), Format::default(), gzip),
                false => ScrapeBody::filtered(&published, Vec::new(), filter.clone(), Format::default(), gzip),
            };
            body.map(|part| part.len()).sum()
        };
        filters.iter().map(bytes).sum()
    };
    // Fills the cache.
    scrape();
    bencher.bench(scrape);
}

fn selecting(selector: &str) -> ScrapeFilter {
    let selectors = Selectors::parse(&[selector]).expect("a selector");
    ScrapeFilter { selectors: Some(selectors), ..ScrapeFilter::default() }
}

/// An update of a hundred groups of ten series. All values have changed since the previous update.
fn update(tick: usize) -> Message {
    update_of(0..100, &body(10, tick), tick)
}

fn update_of(groups: Range<usize>, body: &str, tick: usize) -> Message {
    let delta = |group| {
        let key = key(group);
        let ns = now(tick).stamp_ns;
        let push_time = PushTime { stamp: WriteTimestamp { time_ns: ns, node: NodeId(1) }, wall_ns: ns };
        let group = Group::put(push_time, families(body, &key));
        Delta { id: GroupId::local(key), group }
    };
    Message::Update(Update { deltas: groups.map(delta).collect(), ..Update::default() })
}

/// Encodes an update whose schemas and keys the peer knows.
#[divan::bench]
fn encode_delta(bencher: Bencher) {
    let updates = [update(1), update(2)];
    let (mut encoder, mut bytes, mut tick) = (Encoder::new(), Vec::new(), 0);
    encoder.encode(&updates[0], &mut bytes);
    bencher.counter(ItemsCount::new(1_000_usize)).bench_local(|| {
        tick += 1;
        bytes.clear();
        encoder.encode(&updates[tick % 2], &mut bytes);
        bytes.len()
    });
}

/// Decodes an update whose schemas and keys are known.
#[divan::bench]
fn decode_delta(bencher: Bencher) {
    let updates = [update(1), update(2)];
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(16 << 20));
    let mut tick = 0;
    bencher
        .counter(ItemsCount::new(1_000_usize))
        .with_inputs(|| {
            tick += 1;
            let mut bytes = Vec::new();
            encoder.encode(&updates[tick % 2], &mut bytes);
            bytes
        })
        .bench_local_values(|bytes| decoder.decode(&bytes).expect("what was encoded"));
}

/// A hub's work for an update of 250 of its 10,000 groups, different ones each time, without the disk. Each group has
/// `series` families of one series.
#[divan::bench(args = [3, 34], sample_count = 120, sample_size = 1)]
fn merge_update(bencher: Bencher, series: usize) {
    const GROUPS: usize = 10_000;
    const UPDATE: usize = 250;
    let bodies = [body_of(series, 1, 1), body_of(series, 1, 2)];
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(16 << 20));
    let mut store = Store::new(Rules { has_edges: true, ..Rules::default() }, &[]);
    store.open(IDENTITY, Epoch(1));
    let site = Arc::new(LabelSet::new([("IDC", "SYQ")]));
    let merge = |store: &mut Store, decoder: &mut Decoder, bytes: &[u8]| {
        let Message::Update(update) = decoder.decode(bytes).expect("what was encoded") else { return };
        let (scope, position) = (Scope::Site(site.clone()), Position::default());
        let merge =
            Merge { scope, deltas: update.deltas, peer: StoreId(2), position, sequence: MergeSequence::default() };
        let mut transaction = Transaction::default();
        let now = WriteTime { wall_ns: 1, stamp_ns: 1, monotonic_ns: 1 };
        transaction.merge(store, merge, now).expect("room for all");
        transaction.publish(store);
    };
    let mut tick = 0;
    let mut encoded = || {
        let from = tick * UPDATE % GROUPS;
        tick += 1;
        let mut bytes = Vec::new();
        let body = &bodies[tick * UPDATE / GROUPS % 2];
        encoder.encode(&update_of(from..from + UPDATE, body, tick), &mut bytes);
        bytes
    };
    for _ in 0..GROUPS / UPDATE {
        merge(&mut store, &mut decoder, &encoded());
    }
    let mut state = (store, decoder);
    bencher
        .counter(ItemsCount::new(UPDATE))
        .with_inputs(encoded)
        .bench_local_values(|bytes| merge(&mut state.0, &mut state.1, &bytes));
}

/// A log in a folder that is deleted with it.
struct Scratch {
    log: Option<Log>,
    folder: PathBuf,
}

impl Scratch {
    fn new() -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("layers-{}", std::process::id()));
        let disk = Arc::new(RealDisk::open(&folder).expect("a folder for the log"));
        let recovered = storage::recover(disk, storage::DiskOptions::default(), &mut |_| ()).expect("an empty folder");
        let log = recovered.start(IDENTITY).expect("a log");
        Self { log: Some(log), folder }
    }

    fn commit(&mut self, records: &[Record]) {
        self.log.as_mut().expect("open until dropped").commit(records).expect("room on the disk");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.log = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// One synced commit of that many pushes of three series.
#[divan::bench(args = [1, 32])]
fn commit(bencher: Bencher, pushes: usize) {
    let mut store = store(pushes, 3);
    let body = body(3, 1);
    for group in 0..pushes {
        push(&mut store, group, &body, 1);
    }
    let records = store.records().to_vec();
    let mut scratch = Scratch::new();
    bencher.counter(ItemsCount::new(pushes)).bench_local(|| scratch.commit(&records));
}

/// A checkpoint of 100,000 groups, as it is written while pushes go on.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn checkpoint(bencher: Bencher) {
    const GROUPS: usize = 100_000;
    let store = store(GROUPS, 3);
    let mut scratch = Scratch::new();
    bencher.counter(ItemsCount::new(GROUPS)).bench_local(|| {
        let log = scratch.log.as_mut().expect("open until dropped");
        let mut checkpoint = log.rotate().expect("a file of its own");
        store.checkpoint().try_for_each(|record| checkpoint.write(&record)).expect("room on the disk");
        checkpoint.finish().expect("a checkpoint that is named");
    });
}

/// The part of a checkpoint for which the writer waits: cloning a pointer to every group.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn checkpoint_begun(bencher: Bencher) {
    let store = store(100_000, 3);
    bencher.bench_local(|| store.checkpoint());
}
