//! The fast path and the parser give the same result for every body that the fast path reads.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::exposition::NameValidation;
use crate::exposition::text;
use crate::model::{FamilyBuilder, MetricType, NodeId, PushTime, WriteTimestamp};

fn grouping(instance: bool) -> LabelSet {
    let labels = [("job", "j"), ("instance", "i")];
    LabelSet::new(labels.into_iter().take(1 + usize::from(instance)))
}

/// The families that the parser reads from a body, sorted by name.
fn parsed(body: &[u8], grouping: &LabelSet, limits: &PushLimits) -> Result<Vec<Family>, String> {
    let raw = text::parse(body, NameValidation::Legacy, limits).map_err(|error| error.to_string())?;
    let families = raw.iter().map(|raw| raw.family(grouping).map_err(|error| error.to_string()));
    let mut families: Vec<Family> = families.collect::<Result<_, _>>()?;
    families.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(families)
}

fn current(body: &[u8], grouping: &LabelSet) -> Group {
    let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
    Group::put(moment, parsed(body, grouping, &PushLimits::default()).unwrap_or_default())
}

fn read_fast(body: &[u8], current: &Group, grouping: &LabelSet) -> Option<Vec<Family>> {
    let reader = SameSeriesReader::new(PushLimits::default());
    let read_fast = reader.parse(body, current, grouping);
    // The second time by the template that the first time built, if it built one.
    assert_eq!(reader.parse(body, current, grouping), read_fast);
    read_fast
}

#[track_caller]
fn takes_the_fast_path(body: &str, next: &str) {
    for instance in [false, true] {
        let grouping = grouping(instance);
        let current = current(body.as_bytes(), &grouping);
        let found = read_fast(next.as_bytes(), &current, &grouping).expect("a body that repeats the series");
        assert_eq!(Ok(&found), parsed(next.as_bytes(), &grouping, &PushLimits::default()).as_ref());
        for family in &found {
            let old = current.family(family.name()).expect("a family of the group");
            assert!(Arc::ptr_eq(family.schema(), old.family.schema()));
        }
    }
}

#[track_caller]
fn is_left_to_the_parser(body: &str, next: &str) {
    let current = current(body.as_bytes(), &grouping(false));
    assert_eq!(read_fast(next.as_bytes(), &current, &grouping(false)), None);
}

#[test]
fn bodies_of_client_libraries_take_the_fast_path() {
    let go = "# HELP h Help it.\n# TYPE h histogram\nh_bucket{a=\"x\",le=\"0.5\"} 1\nh_bucket{a=\"x\",le=\"+Inf\"} 2\n\
              h_sum{a=\"x\"} 1.5\nh_count{a=\"x\"} 2\n";
    takes_the_fast_path(go, &go.replace(" 2\n", " 1e3\n"));
    let java = "# TYPE c counter\nc{b=\"1\",a=\"\\\"\\n\",} 1\nc{b=\"2\",a=\"y\",} 2\n";
    takes_the_fast_path(java, "# TYPE c counter\nc{b=\"2\",a=\"y\",} -Inf\nc{b=\"1\",a=\"\\\"\\n\",} NaN\n");
    let shell = "m 1\nn{x=\"1\"} 2\n";
    takes_the_fast_path(shell, "n{x=\"1\"} 3\n\nm 12345678901234567890\n# EOF\n");
    takes_the_fast_path(shell, "m 5\n");
    let summary = "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 2\ns_count 3\n";
    takes_the_fast_path(summary, "# TYPE s summary\ns_count 4\ns{quantile=\"0.5\"} -1\ns_sum 2\n");
    let current = current(b"m{instance=\"x\"} 1\n", &grouping(false));
    assert!(read_fast(b"m{instance=\"x\"} 2\n", &current, &grouping(false)).is_some());
    // A family with fewer lines than values does not take lines of the next family.
    takes_the_fast_path("# TYPE a summary\na_sum 1\nm 5\n", "# TYPE a summary\na_sum 2\nm 6\n");
    let short = "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nm 5\n";
    takes_the_fast_path(short, &short.replace(" 2\n", " 3\n"));
    // Many labels, not in order.
    let labels: Vec<String> = (0..999).rev().map(|at| format!("l{at}=\"\"")).collect();
    let many = format!("m{{{}}} 1\n", labels.join(","));
    takes_the_fast_path(&many, &many.replace(" 1", " 2"));
    takes_the_fast_path("m{a=\"1\"} 1\nm{b=\"1\"} 1\n", "m{a=\"1\"} 2\nm{b=\"1\"} 3\n");
}

#[test]
fn bodies_in_another_style_are_left_to_the_parser() {
    let summary = "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 2\ns_count 3\n";
    for next in [
        "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 2\n",
        "# TYPE s summary\ns{quantile=\"0.25\"} 1\ns_sum 2\ns_count 3\n",
        "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 2\ns_count 36028797018963970\ns_count 1\n",
        "s{quantile=\"0.5\"} 1\ns_sum 2\ns_count 3\n",
    ] {
        is_left_to_the_parser(summary, next);
    }
    for next in ["m 1", "m 1 5\n", "m x\n", "m 1\nm 1\n", "m{a=\"\"} 1\n", "# TYPE m gauge\nm 1\n", "n 1\n", "m  1\n"] {
        is_left_to_the_parser("m 1\n", next);
    }
    is_left_to_the_parser(summary, &summary.replace("{", "{quantile=\"0.5\","));
    for next in ["m{a=\"1\"b=\"2\"} 1\n", "m{a=\"1\",a=\"1\"} 1\n", "m{a=\"1\",b=\"2\"} 1\nm{b=\"2\",a=\"1\"} 1\n"] {
        is_left_to_the_parser("m{a=\"1\",b=\"2\"} 1\n", next);
    }
    // The parser finds two series here, which become one.
    let histogram = "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n";
    for part in ["_sum", "_count"] {
        is_left_to_the_parser(histogram, &histogram.replace(part, &format!("{part}{{instance=\"\"}}")));
        is_left_to_the_parser(summary, &summary.replace(part, &format!("{part}{{instance=\"\"}}")));
    }
    is_left_to_the_parser(histogram, &histogram.replace("{le", "{instance=\"\",le"));
    is_left_to_the_parser(summary, &summary.replace("{q", "{instance=\"\",q"));
    // Escapes in a help are rare enough to leave them.
    is_left_to_the_parser("# HELP m \\\\ it.\n# TYPE m gauge\nm 1\n", "# HELP m \\\\ it.\n# TYPE m gauge\nm 2\n");
    is_left_to_the_parser("x_count 1\n# TYPE x summary\nx_sum 1\n", "# TYPE x summary\nx_sum 1\nx_count 2\n");
}

#[test]
fn a_family_without_series_is_left_to_the_parser() {
    let empty = FamilyBuilder::new("m", MetricType::Gauge).finish().unwrap();
    let mut families = parsed(b"n 1\n", &grouping(false), &PushLimits::default()).unwrap();
    families.push(empty);
    let moment = PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1 };
    let current = Group::put(moment, families);
    assert_eq!(read_fast(b"# TYPE m gauge\nn 2\n", &current, &grouping(false)), None);
    assert!(read_fast(b"n 2\n", &current, &grouping(false)).is_some());
}

#[test]
fn bounds_hold() {
    let current = current(b"m{a=\"1\"} 1\nn 1\n", &grouping(true));
    let fits =
        |limits| SameSeriesReader::new(limits).parse(b"m{a=\"1\"} 1\nn 1\n", &current, &grouping(true)).is_some();
    assert!(fits(PushLimits {
        line_bytes_max: 10,
        labels_per_series_max: 1,
        series_max: 2,
        families_max: 2,
        ..PushLimits::default()
    }));
    assert!(!fits(PushLimits { line_bytes_max: 9, ..PushLimits::default() }));
    let reader = SameSeriesReader::new(PushLimits { line_bytes_max: 20, ..PushLimits::default() });
    assert!(reader.parse(b"m{a=\"1\"} 1\nn 1\n", &current, &grouping(true)).is_some());
    assert!(reader.parse(b"m{a=\"1\"} 1\nn 2\n", &current, &grouping(true)).is_some());
    assert_eq!(reader.parse(b"m{a=\"1\"} 0000000000001\nn 1\n", &current, &grouping(true)), None);
    assert!(!fits(PushLimits { labels_per_series_max: 0, ..PushLimits::default() }));
    assert!(!fits(PushLimits { series_max: 1, ..PushLimits::default() }));
    assert!(!fits(PushLimits { families_max: 1, ..PushLimits::default() }));
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (0..100_u32).prop_map(|n| n.to_string()),
        1 => Just("1.5".to_owned()),
        1 => Just("-0".to_owned()),
        1 => Just("1e300".to_owned()),
        1 => prop_oneof![Just("NaN"), Just("+Inf"), Just("-2"), Just("36028797018963970")].prop_map(String::from),
    ]
}

fn labels() -> impl Strategy<Value = String> {
    let value = prop_oneof![4 => "[a-c]", 1 => Just("\\\"\\n".to_owned()), 1 => Just(String::new())];
    let name = prop_oneof![6 => "[xyz]", 1 => Just("instance".to_owned()), 1 => Just("job".to_owned()), 1 => Just("le".to_owned())];
    proptest::collection::vec((name, value), 0..3)
        .prop_map(|labels| labels.iter().map(|(name, value)| format!("{name}=\"{value}\",")).collect())
}

/// The sample that a summary or histogram lacks, if any: clients may leave out a sum or count.
const LACKED: [&str; 3] = ["nothing", "_sum", "_count"];

/// The lines of a family, its series with the numbers that are given.
fn family(name: &str, (kind, help, lacked): (usize, bool, usize), series: &[(String, Vec<String>)]) -> String {
    let types = ["untyped", "counter", "gauge", "summary", "histogram"];
    let mut text = String::new();
    if help {
        text += &format!("# HELP {name} Some help.\n");
    }
    if kind > 0 {
        text += &format!("# TYPE {name} {}\n", types[kind]);
    }
    for (labels, numbers) in series {
        let bare = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.trim_end_matches(',')) };
        let number = |at: usize| &numbers[at % numbers.len()];
        match kind {
            3 => text += &format!("{name}{{{labels}quantile=\"0.5\"}} {}\n", number(0)),
            4 => {
                text += &format!("{name}_bucket{{{labels}le=\"1\"}} {}\n", number(0));
                text += &format!("{name}_bucket{{{labels}le=\"+Inf\"}} {}\n", number(1));
            }
            _ => text += &format!("{name}{bare} {}\n", number(0)),
        }
        for (at, suffix) in LACKED.iter().enumerate().skip(1).filter(|(at, _)| kind >= 3 && *at != lacked) {
            text += &format!("{name}{suffix}{bare} {}\n", number(at + 1));
        }
    }
    text
}

/// A family as it is to be printed: which of the names, which kind, whether with help, what it lacks, and its series
/// with their numbers.
type Described = (usize, ((usize, bool, usize), Vec<(String, Vec<String>)>));

/// Two bodies with the same series in another order and with other values.
fn bodies() -> impl Strategy<Value = (String, String)> {
    let names = ["a", "a_b", "a_count", "a_sum", "a_bucket", "c"];
    let series = proptest::collection::vec((labels(), proptest::collection::vec(number(), 4)), 1..5);
    let one = ((0..5_usize, any::<bool>(), 0..LACKED.len()), series);
    proptest::collection::vec(one, 1..names.len()).prop_flat_map(move |families| {
        let print = move |order: &[Described], turn: usize| -> String {
            let print = |(at, (kind, series)): &Described| {
                let mut series = series.clone();
                let len = series.len();
                series.rotate_left(turn % len);
                series.iter_mut().for_each(|(_, numbers)| numbers.rotate_left(turn % 4));
                family(names[*at], *kind, &series)
            };
            order.iter().map(print).collect()
        };
        let numbered: Vec<_> = families.into_iter().enumerate().collect();
        let first = print(&numbered, 0);
        (Just(numbered).prop_shuffle(), 0..8_usize).prop_map(move |(order, turn)| (first.clone(), print(&order, turn)))
    })
}

/// Damages a body at one position, or adds a redundant part to one of its lines.
fn mutate(body: &str, at: prop::sample::Index, how: usize) -> Vec<u8> {
    let mut bytes = body.as_bytes().to_vec();
    let said: String;
    let mut lines: Vec<&str> = body.split_inclusive('\n').collect();
    let (byte, line) = (at.index(bytes.len()), at.index(lines.len()));
    const BYTES: &[u8] = b" {}\",=\n\\#ac1.-_le\xff";
    match how {
        0 => drop(lines.remove(line)),
        1 => lines.insert(line, lines[line]),
        2 => lines.rotate_left(line),
        3 => lines.swap(line, 0),
        4..8 => {
            let (from, to) = (byte, (byte + how).min(bytes.len()));
            bytes.drain(from..to);
            return bytes;
        }
        8..26 => {
            bytes[byte] = BYTES[how - 8];
            return bytes;
        }
        44.. => {
            let (name, rest) = lines[line].split_at(lines[line].find(['{', ' ']).unwrap_or(0));
            said = match rest.strip_prefix('{') {
                Some(labels) => format!("{name}{{instance=\"\",{labels}"),
                None => format!("{name}{{instance=\"\"}}{rest}"),
            };
            lines[line] = &said;
        }
        _ => {
            bytes.insert(byte, BYTES[how % BYTES.len()]);
            return bytes;
        }
    }
    lines.concat().into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_fast_path_gives_what_the_parser_gives(
        (first, second) in bodies(),
        instance in any::<bool>(),
        damages in proptest::collection::vec((any::<prop::sample::Index>(), 0..48_usize), 8),
    ) {
        let grouping = grouping(instance);
        let current = current(first.as_bytes(), &grouping);
        let renumbered = second.replace(['2', '3', '4'], "7");
        let mut tried: Vec<_> = [&first, &second, &renumbered].map(|body| body.clone().into_bytes()).into();
        tried.extend(damages.into_iter().map(|(at, how)| mutate(&second, at, how)));
        // Each by itself, and by the template of one before it.
        let reader = SameSeriesReader::new(PushLimits::default());
        let both = |body: &[u8]| [read_fast(body, &current, &grouping), reader.parse(body, &current, &grouping)];
        for (body, found) in tried.iter().flat_map(|body| both(body).map(|found| (body, found))) {
            if let Some(found) = found {
                let text = String::from_utf8_lossy(body).into_owned();
                let expected = parsed(body, &grouping, &PushLimits::default());
                prop_assert_eq!(Ok(&found), expected.as_ref(), "{}", text);
                for family in &found {
                    prop_assert!(Arc::ptr_eq(family.schema(), current.family(family.name()).unwrap().family.schema()));
                }
            }
        }
    }
}
