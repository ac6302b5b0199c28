//! Filtered scrapes: they show what the selectors match and nothing else, in every form, and shards divide it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::ScrapeBody;
use super::strict::{Seen, Step, StrictReader, apply, reader, sample, step, store, unquoted};
use crate::compression::gunzip;
use crate::exposition::{Encoding, Escaping, Format};
use crate::model::{
    ByteBudget, Family, FamilyBuilder, Group, GroupId, LabelSet, MetricType, NodeId, PushTime, StoreId, ValueLayout,
    WriteTimestamp,
};
use crate::selector::{METRIC_NAME, Selectors};
use crate::store::selection::{ScrapeFilter, Shard};
use crate::store::{Rules, Store};

fn own() -> Vec<Family> {
    [("own_metric", "1"), ("own.named", "1")]
        .map(|(name, value)| single(name, MetricType::Gauge, &[("l", value)]))
        .into()
}

fn single(name: &str, metric_type: MetricType, labels: &[(&str, &str)]) -> Family {
    let mut builder = FamilyBuilder::new(name, metric_type);
    builder.series(labels, &ValueLayout::Single, &[1.0], None);
    builder.finish().unwrap()
}

fn filter(selectors: &[&str], shard: Option<Shard>) -> ScrapeFilter {
    let selectors = (!selectors.is_empty()).then(|| Selectors::parse(selectors).unwrap());
    ScrapeFilter { selectors, shard, scope: None }
}

fn page(store: &Store, filter: ScrapeFilter, format: Format, gzip: Option<&ByteBudget>) -> Vec<u8> {
    ScrapeBody::filtered(&store.published(), own_of(store), filter, format, gzip).flatten().collect()
}

/// The node's own families that no pushed family conflicts with.
fn own_of(store: &Store) -> Vec<Family> {
    let blocks = store.published().snapshot();
    own().into_iter().filter(|family| !blocks.iter().any(|(name, _)| name == family.name())).collect()
}

const UTF8: Format = Format { encoding: Encoding::Text, escaping: Escaping::AllowUtf8 };

fn text(store: &Store, filter: ScrapeFilter) -> String {
    String::from_utf8(page(store, filter, UTF8, None)).unwrap()
}

/// The samples of a page, each with the labels by which it is selected: the name is that of the family.
fn samples(page: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let (mut family, mut samples) = (String::new(), Vec::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = unquoted(rest.rsplit_once(' ').unwrap().0);
        } else if !line.starts_with('#') {
            let mut labels: BTreeMap<String, String> = sample(line).expect(line).1.into_iter().collect();
            labels.insert(METRIC_NAME.to_owned(), family.clone());
            samples.push((line.to_owned(), labels));
        }
    }
    samples
}

fn lines(page: &str) -> Vec<String> {
    let mut lines: Vec<String> = samples(page).into_iter().map(|(line, _)| line).collect();
    lines.sort();
    lines
}

/// Matchers of labels of groups, of series, of both and of neither.
const SELECTORS: [&str; 10] = [
    "{job=\"j\"}",
    "{job=~\".+\",l=\"1\"}",
    "{job=\"j\",l!=\"1\"}",
    "{job=\"none\"}",
    "{\"x.y\"=\"1\"}",
    "{x_y=~\"1|2\",job=\"j\"}",
    "{\"a.b\"}",
    "{__name__=~\"a.*\",l=\"\"}",
    "push_time_seconds",
    "{__name__!~\"push.*|a.*\",instance=\"\",job=\"j\"}",
];

fn shards(of: u32) -> Vec<Option<Shard>> {
    if of == 0 { vec![None] } else { Shard::all(of).map(Some).collect() }
}

/// Checks a filter on a state.
fn check(store: &Store, selectors: &[&str], of: u32, budget: &ByteBudget) -> Result<(), TestCaseError> {
    let whole = text(store, filter(selectors, None));
    let everything = text(store, ScrapeFilter::default());
    let parsed = filter(selectors, None).selectors;
    let matches = |labels: &BTreeMap<String, String>| {
        parsed.as_ref().is_none_or(|parsed| parsed.matches(|name| labels.get(name).map(|value| &**value)))
    };
    for (line, labels) in samples(&whole) {
        prop_assert!(matches(&labels), "{line} is not selected by {selectors:?}");
    }
    let shown = lines(&whole);
    for (line, _) in samples(&everything).iter().filter(|(_, labels)| matches(labels)) {
        prop_assert!(shown.contains(line), "{line} is selected by {selectors:?}:\n{whole}");
    }
    if parsed.is_none() {
        prop_assert_eq!(&shown, &lines(&everything));
    }
    let mut divided: Vec<String> =
        shards(of).iter().flat_map(|shard| lines(&text(store, filter(selectors, *shard)))).collect();
    divided.sort();
    prop_assert_eq!(&divided, &shown, "{} shards of {:?}", of, selectors);
    for escaping in [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values] {
        for encoding in [Encoding::Text, Encoding::ProtobufDelimited] {
            let format = Format { encoding, escaping };
            let mut seen = Seen::default();
            for shard in shards(of) {
                let page = |gzip| page(store, filter(selectors, shard), format, gzip);
                let plain = page(None);
                for _ in 0..2 {
                    prop_assert_eq!(&gunzip(&page(Some(budget)), 1 << 24).unwrap(), &plain, "gzip {:?}", format);
                }
                let mut reader = StrictReader { is_utf8: escaping == Escaping::AllowUtf8, seen, ..Default::default() };
                let read = match encoding {
                    Encoding::Text => reader.text(std::str::from_utf8(&plain).unwrap()),
                    _ => reader.protobuf(&plain),
                };
                prop_assert!(read.is_ok(), "{:?} {:?}: {:?}", format, selectors, read);
                seen = reader.seen;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_filter_shows_what_it_selects_and_shards_divide_it(
        steps in prop::collection::vec(step(), 1..12),
        selectors in prop::collection::vec(prop::sample::select(SELECTORS.to_vec()), 0..3),
        of in 0..4_u32,
    ) {
        let (reader, mut store, budget) = (reader(), store(), ByteBudget::new(1 << 20));
        for (ns, step) in (1..).zip(steps) {
            apply(&mut store, &reader, step, ns);
        }
        check(&store, &selectors, of, &budget)?;
    }
}

fn merge(store: &mut Store, idc: &str, job: &str, families: Vec<Family>) {
    let set = |labels: &[(&str, &str)]| Arc::new(LabelSet::new(labels.iter().copied()));
    let time_ns = store.published().head().0 + 1;
    let push_time = PushTime { stamp: WriteTimestamp { time_ns, node: NodeId(7) }, wall_ns: time_ns };
    let site = if idc.is_empty() { Arc::default() } else { set(&[("IDC", idc)]) };
    let id = GroupId { site, key: set(&[("job", job)]) };
    store.merge(&id, Group::put(push_time, families), StoreId(7)).unwrap();
    store.commit();
}

fn types(page: &str, name: &str) -> Vec<String> {
    let head = format!("# TYPE {name} ");
    page.lines().filter_map(|line| line.strip_prefix(&head)).map(str::to_owned).collect()
}

#[test]
fn conflicts_are_judged_within_the_selection() {
    let mut store = store();
    for idc in ["SYQ", "GZ"] {
        merge(&mut store, idc, "app", vec![single("app_total", MetricType::Counter, &[])]);
    }
    merge(
        &mut store,
        "BJ",
        "app",
        vec![single("app_total", MetricType::Untyped, &[]), single("x", MetricType::Gauge, &[])],
    );
    // A summary whose sample is another site's metric, and a series that two groups show.
    let mut summary = FamilyBuilder::new("s", MetricType::Summary);
    let layout = ValueLayout::Summary { quantiles: Box::default(), has_sum: true, has_count: true };
    summary.series(&[], &layout, &[1.0, 1.0], None);
    merge(&mut store, "SYQ", "summary", vec![summary.finish().unwrap()]);
    merge(&mut store, "BJ", "summary", vec![single("s_sum", MetricType::Gauge, &[])]);
    merge(&mut store, "", "twice", vec![single("own_metric", MetricType::Untyped, &[])]);
    let shown = |selectors: &[&str]| text(&store, filter(selectors, None));
    assert_eq!(store.published().counts().suppressed, 2, "one type and one sample");

    let everything = shown(&[]);
    assert_eq!(types(&everything, "app_total"), ["counter"]);
    let bj = shown(&["{IDC=\"BJ\"}"]);
    assert_eq!((types(&bj, "app_total"), types(&bj, "s_sum")), (vec!["untyped".into()], vec!["gauge".into()]), "{bj}");
    assert!(bj.contains("app_total{IDC=\"BJ\",job=\"app\"} 1") && bj.contains("x{IDC=\"BJ\",job=\"app\"} 1"), "{bj}");
    assert!(!bj.contains("SYQ") && !bj.contains("own_metric"), "{bj}");
    let both = shown(&["{IDC=~\"SYQ|BJ\"}"]);
    assert_eq!((types(&both, "app_total"), types(&both, "s_sum")), (vec!["counter".into()], vec![]), "{both}");
    let named = shown(&["{job=\"app\",__name__=\"app_total\",IDC!=\"SYQ\"}"]);
    assert_eq!(types(&named, "app_total"), ["counter"], "GZ's is shown everywhere: {named}");
    // Shards judge nothing: together they show what is shown without them.
    let sharded = |selectors: &[&str]| -> Vec<String> {
        let mut all: Vec<String> =
            Shard::all(3).flat_map(|shard| lines(&text(&store, filter(selectors, Some(shard))))).collect();
        all.sort();
        all
    };
    assert_eq!(sharded(&[]), lines(&everything));
    assert_eq!(sharded(&["{IDC=\"BJ\"}"]), lines(&bj));
    check(&store, &["{IDC=\"BJ\"}"], 2, &ByteBudget::new(1 << 20)).unwrap();
}

#[test]
fn a_family_is_shown_in_part() {
    let mut store = Store::new(Rules::default(), &[]);
    store.open(crate::store::Identity::default(), crate::model::Epoch(1));
    let mut builder = FamilyBuilder::new("cpu", MetricType::Gauge);
    builder.help(Some("Used."));
    for cpu in ["0", "1", "2"] {
        builder.series(&[("cpu", cpu)], &ValueLayout::Single, &[cpu.parse().unwrap()], None);
    }
    merge(&mut store, "", "a", vec![builder.finish().unwrap()]);
    let shown = text(&store, filter(&["cpu{cpu=~\"0|2\"}"], None));
    let expected = "# HELP cpu Used.\n# TYPE cpu gauge\ncpu{cpu=\"0\",job=\"a\"} 0\ncpu{cpu=\"2\",job=\"a\"} 2\n";
    assert_eq!(shown, expected);
    assert_eq!(text(&store, filter(&["{cpu=\"3\"}"], None)), "", "nothing is selected, which is no error");
}

/// Many groups, so that blocks have several chunks and selected groups are runs within them.
#[test]
fn large_blocks_are_selected_by_runs_and_divided_by_chunks() {
    let (mut store, budget) = (store(), ByteBudget::new(1 << 24));
    for group in 0..500 {
        let mut families = vec![single("every", MetricType::Gauge, &[("l", "1")])];
        if group % 3 == 0 {
            families.push(single("some", MetricType::Gauge, &[("x.y", "1")]));
        }
        if group == 250 {
            families.push(single("one", MetricType::Gauge, &[]));
        }
        merge(&mut store, ["BJ", "SYQ"][usize::from(group >= 300)], &format!("j{group:03}"), families);
    }
    for selectors in [
        &["{IDC=\"BJ\"}"][..],
        &["{job=~\".*[05]\"}"],
        &["{job=~\"j1.*\",__name__=~\"some|one\"}", "one"],
        &["{job=\"j250\"}"],
        &["{l=\"1\"}"],
        &[],
    ] {
        for of in [0, 1, 4] {
            check(&store, selectors, of, &budget).unwrap();
        }
    }
    // A change spoils the pieces of its chunks only, and the others are used again.
    apply(&mut store, &reader(), Step::Delete([("l", "1")].into()), 1_000_000);
    merge(&mut store, "BJ", "j100", vec![single("every", MetricType::Gauge, &[("l", "2")])]);
    check(&store, &[], 4, &budget).unwrap();
}
