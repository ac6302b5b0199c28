//! One group's metrics, type, help and values, as a page that the page of groups also takes apart and shows in place.

use std::borrow::Cow;

use askama::Template;

use crate::exposition::number;
use crate::model::{Group, LabelSet, Points, Series};

use super::super::instant;
use super::super::path::group_path;
use super::super::reply::Reply;
use super::page;

/// Series of one family on a page, at most; the rest is counted.
const SERIES_SHOWN_MAX: usize = 500;

/// The page of one group, below `/status/group/`.
#[derive(Debug, Template)]
#[template(path = "group.html")]
pub struct GroupFragment<'a> {
    labels: &'a LabelSet,
    path: String,
    root: String,
    pushed_ns: Option<u64>,
    failed_ns: Option<u64>,
    families: Vec<FamilyView<'a>>,
    admin_api: bool,
}

#[derive(Debug)]
struct FamilyView<'a> {
    name: &'a str,
    type_name: &'static str,
    help: Option<&'a str>,
    series: Vec<SeriesView<'a>>,
    more: usize,
}

#[derive(Debug)]
struct SeriesView<'a> {
    labels: Vec<(&'a str, Cow<'a, str>)>,
    points: PointsView,
    /// Whether there is more than text can show.
    has_original: bool,
}

#[derive(Debug)]
enum PointsView {
    Value(String),
    Distribution {
        rows: Vec<Row>,
        sum: String,
        count: String,
        /// The largest weight; 0 if there is nothing to draw.
        widest: f64,
    },
}

#[derive(Debug)]
struct Row {
    /// A quantile, or the bounds of a bucket.
    bound: String,
    value: String,
    /// How much is in the bucket alone.
    weight: f64,
}

impl<'a> GroupFragment<'a> {
    /// The page of `group`, whose labels are shown as `labels`. `admin_api`: whether to offer deleting it.
    pub fn new(labels: &'a LabelSet, group: &'a Group, admin_api: bool) -> Self {
        let path = group_path(labels);
        // `status/group/` and the path lie between the root and this page.
        let root = "../".repeat(2 + path.matches('/').count());
        let families = group.families().iter().map(|held| {
            let (family, shape) = (&held.family, held.family.shape());
            let view = |(i, series): (usize, Series<'a>)| SeriesView {
                labels: series.labels().collect(),
                points: points_view(&series.layout().points, &family.values()[series.values()]),
                has_original: family.originals().is_some_and(|originals| !originals[i].is_empty()),
            };
            FamilyView {
                name: shape.name(),
                type_name: shape.metric_type().name(),
                help: shape.help().filter(|help| !help.is_empty()),
                series: shape.series().enumerate().take(SERIES_SHOWN_MAX).map(view).collect(),
                more: shape.series_len().saturating_sub(SERIES_SHOWN_MAX),
            }
        });
        Self {
            labels,
            path,
            root,
            pushed_ns: group.pushed().map(|moment| moment.wall_ns),
            failed_ns: group.failed().map(|moment| moment.wall_ns),
            families: families.collect(),
            admin_api,
        }
    }

    /// The page as a reply.
    pub fn reply(&self) -> Reply {
        page(self)
    }

    fn readable(&self, wall_ns: &u64) -> String {
        instant::readable(*wall_ns)
    }

    fn rfc3339(&self, wall_ns: &u64) -> String {
        instant::rfc3339(*wall_ns)
    }
}

fn points_view(points: &Points, values: &[f64]) -> PointsView {
    let (bounds, is_summary) = match points {
        Points::Single => return PointsView::Value(printed(values.first().copied().unwrap_or_default())),
        Points::Summary { quantiles, .. } => (quantiles, true),
        Points::Histogram { bounds, .. } => (bounds, false),
    };
    let mut below = (f64::NEG_INFINITY, 0.0);
    let rows = bounds.iter().zip(values).map(|(bound, &value)| {
        let row = if is_summary {
            Row { bound: format!("{} quantile", printed(bound.0)), value: printed(value), weight: 0.0 }
        } else {
            let weight = (value - below.1).max(0.0);
            let bound = format!("({}, {}]", printed(below.0), printed(bound.0));
            Row { bound, value: printed(value - below.1), weight: if weight.is_finite() { weight } else { 0.0 } }
        };
        below = (bound.0, value);
        row
    });
    let rows: Vec<Row> = rows.collect();
    let widest = rows.iter().map(|row| row.weight).fold(0.0, f64::max);
    let [.., sum, count] = values else { return PointsView::Value(String::new()) };
    PointsView::Distribution { rows, sum: printed(*sum), count: printed(*count), widest }
}

fn printed(value: f64) -> String {
    let mut text = Vec::new();
    number::print(value, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, FamilyBuilder, MetricType, Moment, NodeId, Num, Stamp};

    fn shown(family: Family, admin_api: bool) -> String {
        let moment = Moment { stamp: Stamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1_795_343_653_000_000_000 };
        let labels = LabelSet::new([("job", "a"), ("path", "/x")]);
        let group = Group::put(moment, vec![family]);
        String::from_utf8(GroupFragment::new(&labels, &group, admin_api).reply().body).unwrap()
    }

    #[test]
    fn values_are_shown_and_escaped() {
        let mut family = FamilyBuilder::new("m", MetricType::Gauge);
        family.help(Some("a < b & c"));
        family.series(&[("x", "<img src=x onerror=alert(1)>")], &Points::Single, &[2398.283], None);
        let page = shown(family.finish().unwrap(), true);
        assert!(page.contains("a &#60; b &#38; c") && page.contains("2398.283") && page.contains("gauge"), "{page}");
        assert!(page.contains("&#60;img src=x") && !page.contains("<img"), "{page}");
        assert!(page.contains(r#"data-delete="job/a/path@base64/L3g""#), "{page}");
        assert!(page.contains(r#"href="../../../../../static/page.css""#), "{page}");
        assert!(page.contains("2026-11-22 10:34:13 UTC") && page.contains("never"), "{page}");
    }

    #[test]
    fn histograms_are_shown_bucket_by_bucket() {
        let bounds = [0.1, 1.0, f64::INFINITY].map(Num).into();
        let points = Points::Histogram { bounds, has_sum: true, has_count: true, float: false };
        let mut family = FamilyBuilder::new("h", MetricType::Histogram);
        family.series(&[], &points, &[1.0, 3.0, 7.0, 7.5, 7.0], None);
        let page = shown(family.finish().unwrap(), false);
        for part in ["(-Inf, 0.1]", "(0.1, 1]", "(1, +Inf]", r#"max="4" value="2""#, "7.5"] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains("Delete group"));
    }

    #[test]
    fn long_families_are_cut() {
        let mut family = FamilyBuilder::new("m", MetricType::Untyped);
        for i in 0..SERIES_SHOWN_MAX + 7 {
            family.series(&[("x", &i.to_string())], &Points::Single, &[0.0], None);
        }
        assert!(shown(family.finish().unwrap(), false).contains("and 7 more series"));
    }
}
