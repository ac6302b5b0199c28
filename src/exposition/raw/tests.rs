//! The families of pushes in their groups, and every refusal with its message.

use super::*;
use crate::model::Num;

fn raw(metric_type: MetricType, metrics: &[&[(&'static str, &'static str)]]) -> RawFamily<'static> {
    let mut family = RawFamily::new("m".into(), metric_type);
    for (i, labels) in metrics.iter().enumerate() {
        let label =
            |(name, value): &(&'static str, &'static str)| RawLabel { name: (*name).into(), value: (*value).into() };
        family.push(&mut labels.iter().map(label).collect(), &ValueLayout::Single, &[i as f64]);
    }
    family
}

fn series(metrics: &[&[(&'static str, &'static str)]], grouping: &[(&str, &str)]) -> Result<Vec<String>, PushRefusal> {
    let family = raw(MetricType::Gauge, metrics).family(&LabelSet::new(grouping.iter().copied()))?;
    let print = |labels: Vec<(&str, Cow<str>)>| LabelSet::new(labels.iter().map(|(n, v)| (*n, &**v))).to_string();
    Ok(family.schema().series().map(|series| print(series.labels().collect())).collect())
}

#[test]
fn labels_of_the_group_override_and_instance_is_added() {
    let group = [("job", "a")];
    assert_eq!(series(&[&[]], &group).unwrap(), [r#"{instance=""}"#]);
    assert_eq!(series(&[&[("z", "1"), ("job", "b"), ("a", "2")]], &group).unwrap(), [r#"{a="2",instance="",z="1"}"#]);
    assert_eq!(series(&[&[("instance", "i"), ("x", "")]], &group).unwrap(), [r#"{instance="i",x=""}"#]);
    assert_eq!(series(&[&[("instance", "i")]], &[("instance", "j"), ("job", "a")]).unwrap(), ["{}"]);
    let two = series(&[&[("x", "2"), ("y", "0")], &[("y", "1"), ("x", "1")], &[("x", "3"), ("y", "0")]], &group);
    assert_eq!(two.unwrap().len(), 3);
}

#[test]
fn series_that_become_equal_are_refused() {
    let equal = series(&[&[("job", "x")], &[("job", "y")]], &[("job", "a")]);
    assert!(matches!(equal, Err(PushRefusal::DuplicateSeries { .. })));
    let unlike: &[&[_]] = &[&[("x", "1"), ("y", "2")], &[("y", "2"), ("x", "1")]];
    assert!(matches!(series(unlike, &[]), Err(PushRefusal::DuplicateSeries { .. })));
    let empty = series(&[&[("x", "")], &[]], &[("job", "a")]).unwrap_err();
    assert_eq!(
        empty.to_string(),
        "collected metric \"m\" { job=\"a\",instance=\"\",x=\"\" } was collected before with the same name and label values\n\
         { job=\"a\",instance=\"\" } and { job=\"a\",instance=\"\",x=\"\" } are one series to Prometheus: a label with an \
         empty value is the same as none"
    );
    let twice: &[&[_]] = &[&[("x", "1"), ("y", "")], &[("x", "1"), ("z", "")]];
    assert!(matches!(series(twice, &[]), Err(PushRefusal::ScrapedTwice { .. })));
    assert!(series(&[&[("x", ""), ("y", "1")], &[]], &[]).is_ok());
    assert!(series(&[&[("x", ""), ("y", "1")], &[("y", "2")]], &[]).is_ok());
}

#[test]
fn a_bucket_or_quantile_that_is_there_twice_is_refused() {
    let text = |metric_type, layout: ValueLayout| {
        let mut family = RawFamily::new("m".into(), metric_type);
        family.push(&mut vec![RawLabel { name: "x".into(), value: "1".into() }], &layout, &vec![1.0; layout.len()]);
        let refused = family.family(&LabelSet::default()).map(|family| family.schema().series_len());
        refused.map_err(|refusal| refusal.to_string())
    };
    let nums = |marks: &[f64]| marks.iter().map(|mark| Num(*mark)).collect();
    let histogram = |marks: &[f64]| {
        let bounds = nums(marks);
        text(MetricType::Histogram, ValueLayout::Histogram { bounds, has_sum: true, has_count: true, float: false })
    };
    let summary = |marks: &[f64]| {
        let quantiles = nums(marks);
        text(MetricType::Summary, ValueLayout::Summary { quantiles, has_sum: true, has_count: true })
    };
    assert_eq!((histogram(&[1.0, 2.0]), histogram(&[2.0, 1.0, f64::INFINITY])), (Ok(1), Ok(1)));
    assert_eq!((histogram(&[-0.0, 0.0]), summary(&[])), (Ok(1), Ok(1)));
    assert_eq!(
        histogram(&[1.0, 2.0, 1.0]).unwrap_err(),
        "collected metric \"m_bucket\" { instance=\"\",x=\"1\",le=\"1\" } was collected before with the same name and \
         label values\none series has this bucket or quantile twice: remove one"
    );
    assert!(histogram(&[f64::INFINITY; 2]).unwrap_err().contains("le=\"+Inf\""));
    assert!(
        summary(&[0.5, f64::NAN, f64::NAN]).unwrap_err().contains("\"m\" { instance=\"\",x=\"1\",quantile=\"NaN\" }")
    );
}

#[test]
fn labels_and_series_that_escape_alike_are_refused() {
    let text = |metrics: &[&[_]], group: &[_]| series(metrics, group).unwrap_err().to_string();
    assert_eq!(
        text(&[&[("x.y", "1"), ("x_y", "2")]], &[]),
        "collected metric \"m\" has two or more labels with the same name: \"x.y\" and \"x_y\" are both \"x_y\" with \
         the escaping \"underscores\""
    );
    assert!(text(&[&[("x.y", "1"), ("x_dot_y", "2")]], &[]).ends_with("both \"x_dot_y\" with the escaping \"dots\""));
    assert!(text(&[&[("x.y", "1"), ("U__x_2e_y", "2")]], &[]).ends_with("with the escaping \"values\""));
    assert!(text(&[&[("x.y", "1")]], &[("x_y", "2")]).contains("\"x.y\" and \"x_y\""));
    assert!(text(&[&[]], &[("x.y", "1"), ("x_y", "2")]).contains("\"x.y\" and \"x_y\""));
    assert!(text(&[&[("..name__", "1")]], &[]).contains("\"__name__\" and \"..name__\""));
    assert!(text(&[&[("é", "1"), ("ü", "1")]], &[]).contains("both \"_\""));
    let two = text(&[&[("x.y", "1")], &[("x_y", "1")]], &[]);
    assert!(two.ends_with("are one series to Prometheus: names become the same with the escaping \"underscores\""));
    assert!(series(&[&[("x.y", "1")], &[("x_y", "2")]], &[]).is_ok());
    assert!(series(&[&[("x.y", "1"), ("x-z", "1")]], &[("job", "a")]).is_ok());
}

#[test]
fn a_duplicate_names_all_labels_and_its_cause() {
    let refused = |metrics: &[&[_]], group: &[_]| series(metrics, group).unwrap_err().to_string();
    let two: &[&[_]] = &[&[("instance", "a"), ("cpu", "0")], &[("instance", "b"), ("cpu", "0")]];
    let key = [("job", "j"), ("instance", "a")];
    assert_eq!(
        refused(two, &key),
        "collected metric \"m\" { cpu=\"0\",instance=\"a\",job=\"j\" } was collected before with the same name and \
         label values\nthe grouping key replaced the samples' own instance=\"a\" and instance=\"b\" by \
         instance=\"a\": push each to its own group, or rename the label"
    );
    let escaped: &[&[_]] = &[&[("job", "x"), ("l", "a\\b\"\n")], &[("job", "y"), ("l", "a\\b\"\n")]];
    let refusal = refused(escaped, &[("job", "j")]);
    assert!(refusal.contains(r#"{ instance="",job="j",l="a\\b\"\n" }"#), "{refusal}");
    assert!(refusal.contains(r#"own job="x" and job="y" by job="j":"#), "{refusal}");
    let one_without: &[&[_]] = &[&[("job", "x")], &[]];
    assert!(refused(one_without, &key).contains("replaced the samples' own job=\"x\" and job=\"\" by job=\"j\":"));
    assert_eq!(
        refused(&[&[("x", "1")], &[("x", "1")]], &[("job", "j")]),
        "collected metric \"m\" { instance=\"\",job=\"j\",x=\"1\" } was collected before with the same name and \
         label values\nthe push has this series twice: remove one, or give them labels that differ"
    );
}

#[test]
fn invalid_labels_are_refused() {
    assert!(matches!(series(&[&[("a", "1"), ("a", "2")]], &[("a", "3")]), Err(PushRefusal::DuplicateLabel { .. })));
    assert!(matches!(series(&[&[], &[("__a", "1")]], &[]), Err(PushRefusal::LabelName { .. })));
    let summary = raw(MetricType::Summary, &[&[("quantile", "1")]]).family(&LabelSet::default());
    assert_eq!(summary, Err(PushRefusal::TypeLabel { family: "m".into(), label: "quantile" }));
    let histogram = raw(MetricType::Histogram, &[&[]]).family(&LabelSet::new([("le", "1")]));
    assert_eq!(histogram, Err(PushRefusal::TypeLabel { family: "m".into(), label: "le" }));
    let mut stamped = raw(MetricType::Gauge, &[&[]]);
    stamped.refuse_with(PushRefusal::MetricName);
    stamped.refuse_with(|name| panic!("another refusal of {name}"));
    assert_eq!(stamped.family(&LabelSet::default()), Err(PushRefusal::MetricName("m".into())));
    stamped.refuse(PushRefusal::Timestamp);
    assert_eq!(stamped.family(&LabelSet::default()), Err(PushRefusal::Timestamp));
}
