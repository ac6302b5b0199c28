//! One group's metrics, type, help and values, as a page that the page of groups also takes apart and shows in place.

use std::borrow::Cow;

use askama::Template;

use crate::exposition::name::NameValidation;
use crate::model::LabelSet;
use crate::store::Entry;

use super::super::path::group_path;
use super::super::reply::Reply;
use super::asset::VERSION;
use super::points::{Extras, PointsView, view};
use super::{page, when};

/// Series of one group on a page, at most; the rest of each family is counted.
const SERIES_SHOWN_MAX: usize = 1_000;
/// A group with more metrics, or with a metric of more series, is shown with its metrics folded.
const UNFOLDED_MAX: usize = 4;

/// The page of one group, below `/status/group/`.
#[derive(Debug, Template)]
#[template(path = "group.html")]
pub struct GroupFragment<'a> {
    labels: &'a LabelSet,
    path: String,
    root: String,
    version: &'static str,
    pushed_ns: Option<u64>,
    failed_ns: Option<u64>,
    families: Vec<FamilyView<'a>>,
    unfolded: bool,
    now_ns: u64,
}

#[derive(Debug)]
struct FamilyView<'a> {
    name: &'a str,
    type_name: &'static str,
    help: Option<&'a str>,
    /// When it was pushed, in nanoseconds since the Unix epoch.
    pushed_ns: u64,
    series: Vec<SeriesView<'a>>,
    series_len: usize,
    /// Series that are not shown.
    more: usize,
    /// Why it is held back, if it is.
    held: Option<String>,
}

#[derive(Debug)]
struct SeriesView<'a> {
    labels: Vec<(&'a str, Cow<'a, str>)>,
    points: PointsView,
    extras: Extras,
}

impl<'a> GroupFragment<'a> {
    /// The page of a group at that time. `names`: which names paths may have here.
    pub fn new(entry: &'a Entry, names: NameValidation, now_ns: u64) -> Self {
        let (labels, group) = (&*entry.shown, &entry.group);
        let path = group_path(labels, names);
        // `status/group/` and the path lie between the root and this page.
        let root = "../".repeat(2 + path.matches('/').count());
        let mut room = SERIES_SHOWN_MAX;
        let families = entry.families().map(|(held, state)| {
            let family = state.shown.as_ref().unwrap_or(&held.family);
            let shape = family.shape();
            let series = shape.series().enumerate().take(room).map(|(i, series)| {
                let original = family.originals().map(|originals| &*originals[i]).unwrap_or_default();
                let (points, extras) = view(&series.layout().points, &family.values()[series.values()], original);
                SeriesView { labels: series.labels().collect(), points, extras }
            });
            let series: Vec<_> = series.collect();
            room -= series.len();
            FamilyView {
                name: shape.name(),
                type_name: shape.metric_type().name(),
                help: shape.help().filter(|help| !help.is_empty()),
                pushed_ns: held.stamp.time_ns,
                more: shape.series_len() - series.len(),
                series_len: shape.series_len(),
                series,
                held: state.conflict.as_ref().map(ToString::to_string),
            }
        });
        let families: Vec<FamilyView> = families.collect();
        let is_short = |family: &FamilyView| family.series_len <= UNFOLDED_MAX;
        Self {
            labels,
            path,
            root,
            version: &VERSION,
            pushed_ns: group.pushed().map(|moment| moment.wall_ns),
            failed_ns: group.failed().map(|moment| moment.wall_ns),
            unfolded: families.len() <= UNFOLDED_MAX && families.iter().all(is_short),
            families,
            now_ns,
        }
    }

    /// The page as a reply.
    pub fn reply(&self) -> Reply {
        page(self)
    }

    fn ago(&self, wall_ns: &Option<u64>) -> String {
        when::ago(*wall_ns, self.now_ns)
    }

    fn at(&self, wall_ns: &Option<u64>) -> String {
        when::at(*wall_ns)
    }

    fn pushed(&self, family: &FamilyView) -> String {
        when::ago(Some(family.pushed_ns), self.now_ns)
    }
}

impl FamilyView<'_> {
    /// The value, if there is only one, so that it can be seen without unfolding.
    fn only_value(&self) -> Option<&str> {
        match &*self.series {
            [SeriesView { points: PointsView::Value(value), .. }] if self.more == 0 => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Family, FamilyBuilder, Group, GroupId, MetricType, Moment, NodeId, Num, Points, Stamp};
    use crate::store::Conflict;
    use crate::store::entry::FamilyState;

    fn entry(family: Family) -> Entry {
        let moment = Moment { stamp: Stamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1_795_343_653_000_000_000 };
        let labels = LabelSet::new([("job", "a"), ("path", "/x")]);
        let group = Group::put(moment, vec![family]);
        Entry { group, families: vec![FamilyState::default()], ..Entry::new(GroupId::local(labels)) }
    }

    fn shown(entry: &Entry) -> String {
        String::from_utf8(GroupFragment::new(entry, NameValidation::Legacy, 1_795_343_713_000_000_000).reply().body)
            .unwrap()
    }

    #[test]
    fn values_are_shown_and_escaped() {
        let mut family = FamilyBuilder::new("m", MetricType::Gauge);
        family.help(Some("a < b & c"));
        family.series(&[("x", "<img src=x onerror=alert(1)>")], &Points::Single, &[2398.283], None);
        let page = shown(&entry(family.finish().unwrap()));
        assert!(page.contains("a &#60; b &#38; c") && page.contains("2398.283") && page.contains("gauge"), "{page}");
        assert!(page.contains("&#60;img src=x") && !page.contains("<img"), "{page}");
        assert!(page.contains(r#"data-delete="job/a/path@base64/L3g""#), "{page}");
        assert!(page.contains(r#"href="../../../../../static/page.css?v="#), "{page}");
        assert!(page.contains("2026-11-22 10:34:13 UTC") && page.contains("never"), "{page}");
    }

    #[test]
    fn histograms_are_shown_bucket_by_bucket() {
        let bounds = [0.1, 1.0, f64::INFINITY].map(Num).into();
        let points = Points::Histogram { bounds, has_sum: true, has_count: true, float: false };
        let mut family = FamilyBuilder::new("h", MetricType::Histogram);
        family.series(&[], &points, &[1.0, 3.0, 7.0, 7.5, 7.0], None);
        let page = shown(&entry(family.finish().unwrap()));
        for part in ["(−∞, 0.1]", "(0.1, 1]", "(1, ∞)", r#"width="50.0""#, "7.5"] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }

    #[test]
    fn what_is_held_back_says_why() {
        let mut family = FamilyBuilder::new("m", MetricType::Gauge);
        family.series(&[], &Points::Single, &[1.0], None);
        let mut entry = entry(family.finish().unwrap());
        entry.families[0].conflict = Some(Arc::new(Conflict::Limit { name: "limits.series_max", max: 2 }));
        let page = shown(&entry);
        assert!(page.contains("held back") && page.contains("limits.series_max = 2"), "{page}");
    }

    #[test]
    fn long_families_are_cut() {
        let mut family = FamilyBuilder::new("m", MetricType::Untyped);
        for i in 0..SERIES_SHOWN_MAX + 7 {
            family.series(&[("x", &i.to_string())], &Points::Single, &[0.0], None);
        }
        assert!(shown(&entry(family.finish().unwrap())).contains("and 7 more series"));
    }
}
