//! Tests of the reader.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::exposition::protobuf::message::{Metric, Timestamp};
use crate::exposition::text::TextRenderer;
use crate::exposition::{Escaping, NameValidation, PushLimits, RawFamily, TimestampRule};
use crate::model::{Family, LabelSet};

fn read(body: &str) -> Result<Vec<Family>, String> {
    read_as(body, NameValidation::Legacy)
}

fn read_as(body: &str, names: NameValidation) -> Result<Vec<Family>, String> {
    let raw = parse(body.as_bytes(), names, &PushLimits::default()).map_err(|error| error.to_string())?;
    let accepted = raw.iter().map(|family| family.family(&LabelSet::default()));
    accepted.collect::<Result<_, _>>().map_err(|refusal| refusal.to_string())
}

/// The families as the text format shows them, without the label `instance`, which every push gets.
fn shown(families: &[Family]) -> String {
    let (mut renderer, none, mut page) = (TextRenderer::new(Escaping::AllowUtf8), LabelSet::default(), Vec::new());
    for family in families {
        renderer.block(family.schema(), [(&none, family)], &mut page);
    }
    String::from_utf8(page)
        .unwrap()
        .replace("{instance=\"\"}", "")
        .replace("instance=\"\",", "")
        .replace(",instance=\"\"", "")
}

/// The body as it is shown, or the error.
fn page(body: &str) -> String {
    read(body).map_or_else(|error| error, |families| shown(&families))
}

fn raw_metric(family: &Family, at: usize) -> Metric {
    Metric::decode(&*family.raw_metrics().expect("the family has raw metrics")[at]).unwrap()
}

#[test]
fn each_type_becomes_what_a_scrape_makes_of_it() {
    let body = "# HELP c Counts \\\"all\\\".\\nReally.\n# TYPE c counter\nc_total{a=\"1\"} 2\nc_total{a=\"2\"} 3.5\n\
                # TYPE g_seconds gauge\n# UNIT g_seconds seconds\n# HELP g_seconds \ng_seconds NaN\n\
                # TYPE i info\ni_info{version=\"1\"} 1\n\
                # TYPE s stateset\ns{s=\"on\"} 1\ns{s=\"off\"} 0\n\
                # TYPE u unknown\nu -1\n\
                without 7\n\
                # TYPE q summary\nq{quantile=\"0.5\"} 1\nq_count 3\nq_sum 4\n\
                # TYPE h histogram\nh_sum 5\nh_count 3\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 3\n\
                # TYPE gh gaugehistogram\ngh_bucket{le=\"1\"} 1\ngh_bucket{le=\"+Inf\"} 2\ngh_gcount 2\ngh_gsum 5\n\
                # TYPE empty counter\n\
                # EOF\n";
    assert_eq!(
        page(body),
        "# HELP c_total Counts \"all\".\\nReally.\n# TYPE c_total counter\nc_total{a=\"1\"} 2\nc_total{a=\"2\"} 3.5\n\
         # TYPE g_seconds gauge\ng_seconds NaN\n\
         # TYPE i_info gauge\ni_info{version=\"1\"} 1\n\
         # TYPE s gauge\ns{s=\"off\"} 0\ns{s=\"on\"} 1\n\
         # TYPE u untyped\nu -1\n\
         # TYPE without untyped\nwithout 7\n\
         # TYPE q summary\nq{quantile=\"0.5\"} 1\nq_sum 4\nq_count 3\n\
         # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 5\nh_count 3\n\
         # TYPE gh histogram\ngh_bucket{le=\"1\"} 1\ngh_bucket{le=\"+Inf\"} 2\ngh_sum 5\ngh_count 2\n"
    );
    assert_eq!(read(body).unwrap()[1].schema().unit(), Some("seconds"));
    assert_eq!(page("# EOF\n"), "");
    assert_eq!(page("# EOF"), "");
}

#[test]
fn start_times_and_exemplars_are_kept() {
    let body = "# TYPE c counter\nc_total 2 # {trace_id=\"a\\\"b\"} 0.5 1700000000.25\nc_created 1.5\n\
                # TYPE h histogram\nh_bucket{le=\"1\"} 1 # {} 0.5\nh_bucket{le=\"+Inf\"} 2\nh_created -0.5\n\
                # TYPE q summary\nq_count 3\nq_sum 4\nq_created 1700000000.9999999999\n# EOF\n";
    let families = read(body).unwrap();
    let counter = raw_metric(&families[0], 0).counter.unwrap();
    assert_eq!(
        (counter.value, counter.created_timestamp),
        (Some(2.0), Some(Timestamp { seconds: 1, nanos: 500_000_000 }))
    );
    let exemplar = counter.exemplar.unwrap();
    assert_eq!(exemplar.value, Some(0.5));
    assert_eq!(exemplar.timestamp, Some(Timestamp { seconds: 1_700_000_000, nanos: 250_000_000 }));
    assert_eq!(exemplar.label[0].name.as_deref(), Some(&b"trace_id"[..]));
    assert_eq!(exemplar.label[0].value.as_deref(), Some(&b"a\"b"[..]));
    let histogram = raw_metric(&families[1], 0).histogram.unwrap();
    assert_eq!(histogram.created_timestamp, Some(Timestamp { seconds: -1, nanos: 500_000_000 }));
    assert_eq!(histogram.bucket[0].exemplar.as_ref().unwrap().value, Some(0.5));
    assert!(histogram.bucket[1].exemplar.is_none());
    let summary = raw_metric(&families[2], 0).summary.unwrap();
    assert_eq!(summary.created_timestamp, Some(Timestamp { seconds: 1_700_000_001, nanos: 0 }));
    assert_eq!((summary.sample_count, summary.sample_sum), (Some(3), Some(4.0)));
    assert!(read("# TYPE c counter\nc_total 2\n# EOF\n").unwrap()[0].raw_metrics().is_none(), "values suffice");
}

#[test]
fn timestamps_are_refused_or_stripped() {
    let body = b"# TYPE c counter\nc_total 2 1700000000.5\nc_created 1 1700000000.5\nm 1 1\n# EOF\n";
    let accepted = |timestamps| {
        let limits = PushLimits { timestamps, ..PushLimits::default() };
        let raw = parse(body, NameValidation::Legacy, &limits).unwrap();
        raw.iter().filter(|family| family.family(&LabelSet::default()).is_ok()).count()
    };
    assert_eq!((accepted(TimestampRule::Refuse), accepted(TimestampRule::Strip)), (0, 2));
}

#[test]
fn names_beyond_legacy_names_are_quoted() {
    let body = "# TYPE \"a.b\" counter\n{\"a.b_total\",\"c d\"=\"1\"} 1\n{\"x y\"} 2\n\"z\"{q=\"1\"} 3\n# EOF\n";
    assert_eq!(
        shown(&read_as(body, NameValidation::Utf8).unwrap()),
        "# TYPE \"a.b_total\" counter\n{\"a.b_total\",\"c d\"=\"1\"} 1\n# TYPE \"x y\" untyped\n{\"x y\"} 2\n\
         # TYPE z untyped\nz{q=\"1\"} 3\n"
    );
    assert_eq!(page(body), "OpenMetrics parsing error in line 1: invalid metric name \"a.b\"");
}

#[test]
fn malformed_bodies_are_errors_that_name_the_line() {
    let at = |line: usize, problem: &str| format!("OpenMetrics parsing error in line {line}: {problem}");
    for (body, line, problem) in [
        ("", 1, "the line is empty"),
        ("m 1\n", 1, "the text has no last line # EOF"),
        (
            "# TYPE c counter\nc 1\n# EOF\n",
            2,
            "the counter \"c\" has a sample without suffix: its samples are \"c_total\", \"c_created\"",
        ),
        (
            "# TYPE v info\nv{v=\"1\"} 1\n# EOF\n",
            2,
            "the info \"v\" has a sample without suffix: its samples are \"v_info\"",
        ),
        ("m 1\n# EOF\n\n", 3, "a line follows # EOF, which ends the text"),
        ("m 1\n# EOF\r\n", 2, "expected HELP, TYPE, UNIT or EOF after '#', got \" EOF\\r\""),
        ("m 1\n\n# EOF\n", 2, "the line is empty"),
        ("# a comment\n# EOF\n", 1, "expected HELP, TYPE, UNIT or EOF after '#', got \" a comment\""),
        ("#  TYPE m gauge\n# EOF\n", 1, "expected HELP, TYPE, UNIT or EOF after '#', got \"  TYPE m gauge\""),
        ("# HELP m\n# EOF\n", 1, "expected one blank after the metric's name, but the line ends"),
        ("# TYPE m untyped\n# EOF\n", 1, "unknown metric type \"untyped\""),
        ("# TYPE m gauge\n# TYPE m gauge\n# EOF\n", 2, "the gauge \"m\" has TYPE twice"),
        ("m 1\n# HELP m x\n# EOF\n", 2, "the unknown \"m\" has HELP after its samples"),
        (
            "# TYPE m gauge\n# UNIT m s\nm 1\n# EOF\n",
            3,
            "the gauge \"m\" has the unit \"s\", which does not end its name",
        ),
        ("# TYPE m_s info\n# UNIT m_s s\n# EOF\n", 2, "the info \"m_s\" has a unit, which this type must not have"),
        ("m  1\n# EOF\n", 1, "expected a number as value, got \"\""),
        ("m\t1\n# EOF\n", 1, "expected one blank after the metric's name and labels, got \"\\t1\""),
        ("m 1 \n# EOF\n", 1, "expected a number as timestamp, got \"\""),
        ("m 1 x\n# EOF\n", 1, "expected a number as timestamp, got \"x\""),
        ("m 1 inf\n# EOF\n", 1, "inf is not a time in seconds since 1970"),
        ("m 0x1p3\n# EOF\n", 1, "expected a number as value, got \"0x1p3\""),
        ("m{a=\"1\",} 1\n# EOF\n", 1, "invalid label name \"\""),
        ("m{,} 1\n# EOF\n", 1, "invalid label name \"\""),
        ("m{a =\"1\"} 1\n# EOF\n", 1, "expected '=' after the label name \"a\", got \" =\\\"1\\\"} 1\""),
        ("m{a=1} 1\n# EOF\n", 1, "expected a quote before the value of \"a\", got \"1} 1\""),
        ("m{a=\"1} 1\n# EOF\n", 1, "the quote before \"1} 1\" is not closed"),
        ("m{a=\"1\",a=\"2\"} 1\n# EOF\n", 1, "the label \"a\" is given twice"),
        ("{a=\"1\"} 1\n# EOF\n", 1, "the sample has no metric name"),
        ("m{\"m\"} 1\n# EOF\n", 1, "expected '=' after the label name \"m\", got \"} 1\""),
        (
            "# TYPE c_total counter\nc_total 1\n# EOF\n",
            2,
            "the counter \"c_total\" has the suffix of its samples: its TYPE line must name \"c\"",
        ),
        ("m 1\nn 1\nm 2\n# EOF\n", 3, "uses a name of the family that ends in line 1"),
        (
            "# TYPE c counter\nc_total -1\n# EOF\n",
            2,
            "the counter \"c\" has the total or sum -1, which is negative or NaN",
        ),
        ("# TYPE c counter\nc_created 1\n# EOF\n", 2, "the counter \"c\" has a series without _total"),
        ("# TYPE c counter\nc_total 1\nc_total 1\n# EOF\n", 3, "the counter \"c\" has the sample \"c_total\" twice"),
        ("# TYPE c counter\nc_total 1\nc_created nan\n# EOF\n", 3, "NaN is not a time in seconds since 1970"),
        ("# TYPE i info\ni_info 2\n# EOF\n", 2, "the info \"i\" has a value other than 1"),
        ("# TYPE s stateset\ns{s=\"a\"} 2\n# EOF\n", 2, "the stateset \"s\" has a value other than 0 and 1"),
        ("# TYPE s stateset\ns 1\n# EOF\n", 2, "the stateset \"s\" has a sample without the label of its name, which"),
        ("# TYPE q summary\nq 1\n# EOF\n", 2, "the summary \"q\" has a sample without the label \"quantile\""),
        ("# TYPE q summary\nq{quantile=\"2\"} 1\n# EOF\n", 2, "the summary \"q\" has the invalid label quantile=\"2\""),
        (
            "# TYPE q summary\nq{quantile=\"1\"} 1\nq{quantile=\"0\"} 1\nq{quantile=\"1\"} 1\n# EOF\n",
            4,
            "the summary \"q\" has a quantile twice",
        ),
        (
            "# TYPE q summary\nq_created 1\n# EOF\n",
            2,
            "the summary \"q\" has a series without a sample besides _created",
        ),
        ("# TYPE h histogram\nh_bucket{le=\"1\"} 1\n# EOF\n", 2, "the histogram \"h\" has no bucket le=\"+Inf\""),
        (
            "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1.5\n# EOF\n",
            2,
            "the histogram \"h\" has the count 1.5, which is no",
        ),
        (
            "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\n# EOF\n",
            3,
            "the histogram \"h\" has buckets whose bounds or counts do not grow",
        ),
        (
            "# TYPE h histogram\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\n# EOF\n",
            4,
            "the histogram \"h\" has buckets whose bounds or counts do not grow",
        ),
        (
            "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_count 2\nh_sum 1\n# EOF\n",
            4,
            "the histogram \"h\" has a count that is not that of the bucket le=\"+Inf\"",
        ),
        (
            "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\n# EOF\n",
            3,
            "the histogram \"h\" has one of sum and count without the other",
        ),
        (
            "m 1 # {} 1\n# EOF\n",
            1,
            "the unknown \"m\" has an exemplar on a sample that is neither a total nor a bucket",
        ),
        ("# TYPE c counter\nc_total 1 # 1\n# EOF\n", 2, "expected the labels of an exemplar after '#', got \"1\""),
        ("# TYPE c counter\nc_total 1 # {} 1 1 1\n# EOF\n", 2, "expected the end of the line, got \" 1\""),
    ] {
        let error = page(body);
        let is_it =
            error.starts_with(&at(line, problem)) || (error.starts_with(&at(line, "")) && error.contains(problem));
        assert!(is_it, "{body:?}\n{error}\nexpected {}", at(line, problem));
    }
    let long = "x".repeat(129 - "id".len());
    let exemplar = |value: &str| page(&format!("# TYPE c counter\nc_total 1 # {{id=\"{value}\"}} 1\n# EOF\n"));
    assert!(exemplar(&long).contains("the labels of the exemplar have 129 characters, more than 128"));
    assert!(exemplar(&long[1..]).contains("c_total 1"));
    let not_text = parse(b"m 1\nm{a=\"\xff\"} 1\n# EOF\n", NameValidation::Utf8, &PushLimits::default());
    assert_eq!(not_text.unwrap_err().to_string(), at(2, "the text is not UTF-8"));
}

#[test]
fn bounds_are_kept() {
    let limits = PushLimits {
        line_bytes_max: 40,
        labels_per_series_max: 1,
        series_max: 2,
        families_max: 2,
        ..PushLimits::default()
    };
    let crossed = |body: &str| match parse(body.as_bytes(), NameValidation::Legacy, &limits) {
        Err(OpenMetricsError::Limit { line, limit }) => format!("{line}: {limit}"),
        other => panic!("{body}: {other:?}"),
    };
    assert!(crossed(&format!("# HELP m {}\n# EOF\n", "x".repeat(40))).starts_with("1: line longer than"));
    assert!(crossed("m{a=\"1\",b=\"2\"} 1\n# EOF\n").starts_with("1: more than the limit of 1 labels"));
    assert!(
        crossed("m{a=\"1\"} 1\nm{a=\"2\"} 1\nm{a=\"3\"} 1\n# EOF\n").starts_with("3: more than the limit of 2 series")
    );
    let counters = "# TYPE c counter\nc_total{a=\"1\"} 1\nc_total{a=\"2\"} 1\nc_total{a=\"3\"} 1\n# EOF\n";
    assert!(crossed(counters).starts_with("4: more than the limit of 2 series"));
    assert!(
        crossed("# TYPE a gauge\n# TYPE b gauge\n# TYPE c gauge\n# EOF\n").starts_with("3: more than the limit of 2")
    );
    // A histogram whose raw metric no reader of the store would take.
    let buckets: String = (0..1 << 16).map(|bound| format!("h_bucket{{le=\"{bound}\"}} 1\n")).collect();
    let body = format!("# TYPE h histogram\n{buckets}h_bucket{{le=\"+Inf\"}} 1\nh_created 1\n# EOF\n");
    assert!(read(&body).unwrap_err().contains("more than the limit of 65536 buckets"));
}

/// A family of a random type, as lines, and as the older text format shows what is stored.
fn family(at: usize) -> impl Strategy<Value = (String, String)> {
    let labels = prop_oneof![
        Just(String::new()),
        "[a-z\\\\\"\n ]{0,4}".prop_map(|value| {
            let escaped = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
            format!("l=\"{escaped}\"")
        })
    ];
    let numbers = (0..1000_u32, 0..1000_u32, any::<bool>(), any::<bool>());
    (0..8_usize, labels, numbers).prop_map(move |(kind, labels, (a, b, created, exemplar))| {
        let braces = |more: &str| match (labels.is_empty(), more.is_empty()) {
            (true, true) => String::new(),
            (_, true) => format!("{{{labels}}}"),
            (true, _) => format!("{{{more}}}"),
            (..) => format!("{{{labels},{more}}}"),
        };
        let (plain, name, sum) = (braces(""), format!("m{at}"), a + b);
        let created = |kind| if created && kind { format!("{name}_created{plain} 1.5\n") } else { String::new() };
        let exemplar = if exemplar { " # {id=\"x\"} 0.5 1.25" } else { "" };
        match kind {
            0 => {
                let samples = format!("{name}_total{plain} {a}{exemplar}\n{}", created(true));
                let stored = format!("# TYPE {name}_total counter\n{name}_total{plain} {a}\n");
                (format!("# TYPE {name} counter\n{samples}"), stored)
            }
            1 => {
                let both = format!("# TYPE {name} gauge\n{name}{plain} {a}\n");
                (both.clone(), both)
            }
            2 | 3 => {
                let (word, g) = if kind == 2 { ("histogram", "") } else { ("gaugehistogram", "g") };
                let (le, inf) = (braces("le=\"1\""), braces("le=\"+Inf\""));
                let buckets = format!("{name}_bucket{le} {a}{exemplar}\n{name}_bucket{inf} {sum}\n");
                let rest = format!("{name}_{g}count{plain} {sum}\n{name}_{g}sum{plain} {b}\n{}", created(kind == 2));
                let shown = format!("{name}_bucket{le} {a}\n{name}_bucket{inf} {sum}\n");
                let stored =
                    format!("# TYPE {name} histogram\n{shown}{name}_sum{plain} {b}\n{name}_count{plain} {sum}\n");
                (format!("# TYPE {name} {word}\n{buckets}{rest}"), stored)
            }
            4 => {
                let quantile = format!("{name}{} {b}\n", braces("quantile=\"0.5\""));
                let (count, sum) = (format!("{name}_count{plain} {a}\n"), format!("{name}_sum{plain} {b}\n"));
                let stored = format!("# TYPE {name} summary\n{quantile}{sum}{count}");
                (format!("# TYPE {name} summary\n{count}{quantile}{}{sum}", created(true)), stored)
            }
            5 => {
                let stored = format!("# TYPE {name}_info gauge\n{name}_info{plain} 1\n");
                (format!("# TYPE {name} info\n{name}_info{plain} 1\n"), stored)
            }
            6 => {
                let sample = format!("{name}{} 1\n", braces(&format!("{name}=\"on\"")));
                (format!("# TYPE {name} stateset\n{sample}"), format!("# TYPE {name} gauge\n{sample}"))
            }
            _ => {
                let sample = format!("{name}{plain} {a}\n");
                (sample.clone(), format!("# TYPE {name} untyped\n{sample}"))
            }
        }
    })
}

fn families() -> impl Strategy<Value = (String, String)> {
    (0..5_usize).prop_flat_map(|count| (0..count).map(family).collect::<Vec<_>>()).prop_map(|families| {
        let (body, page): (Vec<_>, Vec<_>) = families.into_iter().unzip();
        (body.concat() + "# EOF\n", page.concat())
    })
}

fn quietly(body: &[u8]) -> Result<Vec<RawFamily<'_>>, OpenMetricsError> {
    parse(body, NameValidation::Utf8, &PushLimits::default())
}

proptest! {
    #[test]
    fn what_is_read_is_shown((body, expected) in families()) {
        prop_assert_eq!(page(&body), expected, "{}", body);
    }

    #[test]
    fn no_part_of_a_body_is_taken_for_the_whole((body, _) in families()) {
        for end in 0..body.len() - 1 {
            prop_assert!(quietly(&body.as_bytes()[..end]).is_err(), "{}", &body[..end]);
        }
        prop_assert!(quietly(&body.as_bytes()[..body.len() - 1]).is_ok());
    }

    #[test]
    fn changed_bytes_never_make_it_panic((body, _) in families(), at: prop::sample::Index, byte: u8) {
        let mut body = body.into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = quietly(&body).map(|raw| raw.iter().filter_map(|family| family.family(&LabelSet::default()).ok()).count());
    }
}
