//! The page of one group: its metrics with type, help and values. The page of groups also loads it and shows its
//! content in place.

use std::borrow::Cow;

use askama::Template;

use crate::exposition::name::NameValidation;
use crate::model::{LabelSet, truncated_to};
use crate::selector::Selector;
use crate::store::GroupEntry;

use super::super::oddity::PathOddity;
use super::super::path::{group_path, needs_base64};
use super::super::reply::HttpReply;
use super::asset::VERSION;
use super::points::{Extras, PointsView, label_bytes, view};
use super::{PageFrame, PageOwner, page, when};

/// The maximum number of series on the page; of the others, the page shows the count per family.
const SERIES_SHOWN_MAX: usize = 1_000;
/// The maximum number of metrics on the page; of the others, the page shows the count.
const FAMILIES_SHOWN_MAX: usize = 1_000;
/// The approximate maximum of a page's bytes, before escaping (a character takes up to five bytes when escaped). Of the
/// content beyond it, the page shows the count.
const PAGE_BYTES_MAX: usize = 2 << 20;
/// The HTML bytes of a metric and of a series, without their texts.
const FAMILY_BYTES: usize = 512;
const SERIES_BYTES: usize = 256;
/// The maximum bytes of a help text on the page.
const HELP_BYTES_MAX: usize = 4 << 10;
/// The maximum bytes of the reason why a metric is held back.
const REASON_BYTES_MAX: usize = 4 << 10;
/// The labels that a note names, at most.
const NAMES_IN_NOTE_MAX: usize = 10;
/// The maximum bytes of a note.
const NOTE_BYTES_MAX: usize = 4 << 10;
/// The metrics are folded if the group has more of them, or one has more series.
const UNFOLDED_MAX: usize = 4;

/// The page of one group, below `/status/group/`.
#[derive(Debug, Template)]
#[template(path = "group.html")]
pub struct GroupFragment<'a> {
    labels: &'a LabelSet,
    path: String,
    root: String,
    owner: &'a PageOwner,
    version: &'static str,
    /// The root of the node's paths as the client knows it, with the scheme.
    base: String,
    /// What a person should know of the key.
    notes: Vec<String>,
    pushed_ns: Option<u64>,
    failed_ns: Option<u64>,
    families: Vec<FamilyView<'a>>,
    /// The number of families that are not on the page.
    more: usize,
    unfolded: bool,
    /// Whether to offer deleting it.
    deletes: bool,
    /// The last write has a timestamp of a clock that no peer has confirmed.
    unconfirmed: bool,
    /// The time that the group has left, as text; `None` if it never expires.
    left: Option<String>,
    /// Its writes since the node's start, as text.
    activity: Option<String>,
    /// Commands and queries for this group.
    copies: Vec<String>,
    at: &'static str,
    now_ns: u64,
}

#[derive(Debug)]
struct FamilyView<'a> {
    name: &'a str,
    type_name: &'static str,
    help: Option<String>,
    /// The time of its push, in nanoseconds since the Unix epoch.
    pushed_ns: u64,
    series: Vec<SeriesView<'a>>,
    series_len: usize,
    /// The number of series that are not on the page.
    more: usize,
    /// The reason why it is held back; `None` if it is shown.
    suppressed: Option<String>,
}

#[derive(Debug)]
struct SeriesView<'a> {
    labels: Vec<(&'a str, Cow<'a, str>)>,
    points: PointsView,
    extras: Extras,
}

impl<'a> GroupFragment<'a> {
    /// The page of a group at that time. `names` is the node's rule for names in paths, `base` the URL of the node's root.
    pub fn new(entry: &'a GroupEntry, names: NameValidation, frame: &'a PageFrame, base: String, now_ns: u64) -> Self {
        let (labels, group) = (entry.shown(), &entry.group);
        let path = group_path(labels, names);
        // `status/group/` and the path lie between the root and this page.
        let root = frame.at_depth(2 + path.matches('/').count());
        let (mut series_left, mut budget) = (SERIES_SHOWN_MAX, PageBudget(PAGE_BYTES_MAX));
        let families = entry.leaders().take(FAMILIES_SHOWN_MAX).map_while(|(at, current, _, state)| {
            let family = entry.whole(at);
            let schema = family.schema();
            let help = schema
                .help()
                .filter(|help| !help.is_empty())
                .map(|help| truncated_to(help, HELP_BYTES_MAX).to_string());
            let conflict = state.conflict.as_ref().map(|conflict| conflict.to_string());
            let reason = conflict.map(|conflict| truncated_to(&conflict, REASON_BYTES_MAX).to_string());
            let texts = [Some(&**schema.name()), help.as_deref(), reason.as_deref()];
            if !budget.take(FAMILY_BYTES + texts.iter().flatten().map(|text| text.len()).sum::<usize>()) {
                return None;
            }
            let series = schema.series().enumerate().take(series_left).map_while(|(i, series)| {
                let labels: Vec<_> = series.labels().collect();
                let labels_bytes = labels.iter().map(|(name, value)| label_bytes(name, value));
                if !budget.take(SERIES_BYTES + labels_bytes.sum::<usize>()) {
                    return None;
                }
                let raw_metric = family.raw_metrics().map(|raw_metrics| &*raw_metrics[i]).unwrap_or_default();
                let (points, extras) = view(&series.layout().values, &family.values()[series.values()], raw_metric);
                let series = SeriesView { labels, points, extras };
                budget.take(series.points.bytes() + series.extras.bytes()).then_some(series)
            });
            let series: Vec<_> = series.collect();
            series_left -= series.len();
            Some(FamilyView {
                name: schema.name(),
                type_name: schema.metric_type().name(),
                help,
                pushed_ns: current.stamp.time_ns,
                more: schema.series_len() - series.len(),
                series_len: schema.series_len(),
                series,
                suppressed: reason,
            })
        });
        let families: Vec<FamilyView> = families.collect();
        let is_short = |family: &FamilyView| family.series_len <= UNFOLDED_MAX;
        Self {
            labels,
            root,
            owner: &frame.owner,
            notes: notes(labels),
            version: &VERSION,
            pushed_ns: group.pushed().map(|moment| moment.wall_ns),
            failed_ns: group.failed().map(|moment| moment.wall_ns),
            unfolded: families.len() <= UNFOLDED_MAX && families.iter().all(is_short),
            more: entry.families.len() - families.len(),
            families,
            deletes: true,
            unconfirmed: false,
            left: None,
            activity: activity(entry, now_ns),
            copies: copies(labels, &path, &base),
            path,
            base,
            at: "groups",
            now_ns,
        }
    }

    /// The page, with a note if the timestamp of the group's last write is not confirmed.
    pub fn with_unconfirmed(self, unconfirmed: bool) -> Self {
        Self { unconfirmed, ..self }
    }

    /// Adds the time that the group has left, in nanoseconds.
    pub fn with_left(self, left_ns: Option<u64>) -> Self {
        Self { left: left_ns.map(when::left), ..self }
    }

    /// Sets whether to offer deleting it.
    pub fn with_delete(self, deletes: bool) -> Self {
        Self { deletes, ..self }
    }

    /// Adds that a request led to this group by an odd path.
    pub fn with_oddity(mut self, oddity: Option<PathOddity>) -> Self {
        let note =
            oddity.map(|oddity| format!("A push or delete led here that probably meant another group: {oddity}."));
        self.notes.extend(note);
        self
    }

    /// The page as a reply.
    pub fn reply(&self) -> HttpReply {
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

/// The writes to a group since the node's start, as text; `None` if there were none.
fn activity(entry: &GroupEntry, now_ns: u64) -> Option<String> {
    let counts = entry.activity();
    let pushes = format!("{} pushes with {} bytes, {} of them refused", counts.pushes, counts.bytes, counts.refused);
    let updates = format!("{} changes over links", counts.updates);
    let parts = [(counts.pushes, pushes), (counts.updates, updates)];
    let parts: Vec<String> = parts.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect();
    let last = counts.last_peer.map_or_else(String::new, |peer| format!("; the last push came from {peer}"));
    (!parts.is_empty()).then(|| format!("{}, {} in a minute{last}.", parts.join(", "), counts.per_minute(now_ns)))
}

/// Commands and queries to copy for a group.
fn copies(labels: &LabelSet, path: &str, base: &str) -> Vec<String> {
    let selector = Selector::of_labels(labels.iter().map(|label| (label.name, label.value)));
    let queries = selector.map(|selector| [selector.to_string(), format!("time() - push_time_seconds{selector}")]);
    let delete = format!("curl -X DELETE '{base}metrics/{path}'");
    [delete].into_iter().chain(queries.into_iter().flatten()).collect()
}

/// What a person should know of a group's key: clients that cannot address the group, or that name it otherwise.
fn notes(labels: &LabelSet) -> Vec<String> {
    let names = |is_odd: fn(&str) -> bool| {
        let odd = labels.iter().filter(|label| is_odd(label.value)).map(|label| label.name).take(NAMES_IN_NOTE_MAX);
        let names = odd.collect::<Vec<_>>().join(", ");
        (!names.is_empty()).then_some(names)
    };
    let encoded = names(needs_base64).map(|names| {
        format!(
            "The value of {names} is empty, has a slash, or is of dots: clients that do not write such a value in base64 \
             cannot address this group."
        )
    });
    let plus = names(|value| value.contains('+')).map(|names| {
        format!(
            "The value of {names} has a plus: a client that writes a space so means another group than a client that \
             writes %20."
        )
    });
    encoded.into_iter().chain(plus).map(|note| truncated_to(&note, NOTE_BYTES_MAX).to_string()).collect()
}

/// The bytes that a page may still use.
struct PageBudget(usize);

impl PageBudget {
    /// Uses that many bytes; returns `false` and uses none if fewer are left.
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

impl FamilyView<'_> {
    /// The value, if there is only one, to show it in the folded line.
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

    use prost::Message;

    use super::*;
    use crate::exposition::protobuf::message::{Exemplar, Histogram, Metric};
    use crate::model::{
        Family, FamilyBuilder, Group, GroupId, MetricType, NodeId, Num, PushTime, ValueLayout, WriteTimestamp,
    };
    use crate::store::Conflict;
    use crate::store::entry::FamilyState;

    fn entry(family: Family) -> GroupEntry {
        let moment =
            PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1_795_343_653_000_000_000 };
        let labels = LabelSet::new([("job", "a"), ("path", "/x")]);
        let group = Group::put(moment, vec![family]);
        GroupEntry { group, families: vec![FamilyState::default()], ..GroupEntry::new(GroupId::local(labels)) }
    }

    const BASE: &str = "http://gateway:9091/";

    fn shown(entry: &GroupEntry) -> String {
        let (names, frame) = (NameValidation::Legacy, PageFrame::default());
        let fragment = GroupFragment::new(entry, names, &frame, BASE.to_owned(), 1_795_343_713_000_000_000);
        String::from_utf8(fragment.reply().body).unwrap()
    }

    #[test]
    fn values_are_shown_and_escaped() {
        let mut family = FamilyBuilder::new("m", MetricType::Gauge);
        family.help(Some("a < b & c"));
        family.series(&[("x", "<img src=x onerror=alert(1)>")], &ValueLayout::Single, &[2398.283], None);
        let page = shown(&entry(family.finish().unwrap()));
        assert!(page.contains("a &#60; b &#38; c") && page.contains("2398.283") && page.contains("gauge"), "{page}");
        assert!(page.contains("&#60;img src=x") && !page.contains("<img"), "{page}");
        assert!(page.contains(r#"data-delete="job/a/path@base64/L3g""#), "{page}");
        assert!(page.contains(r#"href="../../../../../static/page.css?v="#), "{page}");
        assert!(page.contains("2026-11-22 10:34:13 UTC") && page.contains("never"), "{page}");
    }

    #[test]
    fn the_key_is_shown_as_a_curl_line_with_its_pitfalls() {
        let page = |labels: &[(&str, &str)]| {
            let entry = GroupEntry::new(GroupId::local(LabelSet::new(labels.iter().copied())));
            let frame = PageFrame::default();
            let fragment = GroupFragment::new(&entry, NameValidation::Legacy, &frame, BASE.to_owned(), 0);
            let reply = fragment.with_oddity(Some(PathOddity::EscapedSlash)).reply();
            String::from_utf8(reply.body).unwrap()
        };
        let line = |path: &str| {
            format!("curl --data-binary @FILE &#39;<span data-base>{BASE}</span>metrics/{path}&#39;")
                .replace("&#39;", "'")
        };
        let plain = page(&[("job", "it's")]);
        assert!(plain.contains(&line("job/it%27s")), "{plain}");
        assert!(!plain.contains("has a plus") && !plain.contains("cannot address this group"), "{plain}");
        assert!(plain.contains("probably meant another group: the path has an escaped slash"), "{plain}");
        let odd = page(&[("job", "a+b"), ("branch", "feature/login"), ("empty", "")]);
        assert!(odd.contains(&line("job/a+b/branch@base64/ZmVhdHVyZS9sb2dpbg/empty@base64/=")), "{odd}");
        assert!(odd.contains("The value of branch, empty is empty, has a slash"), "{odd}");
        assert!(odd.contains("The value of job has a plus"), "{odd}");
    }

    #[test]
    fn histograms_are_shown_bucket_by_bucket() {
        let bounds = [0.1, 1.0, f64::INFINITY].map(Num).into();
        let points = ValueLayout::Histogram { bounds, has_sum: true, has_count: true, float: false };
        let mut family = FamilyBuilder::new("h", MetricType::Histogram);
        family.series(&[], &points, &[1.0, 3.0, 7.0, 7.5, 7.0], None);
        let page = shown(&entry(family.finish().unwrap()));
        for part in ["(−∞, 0.1]", "(0.1, 1]", "(1, ∞)", r#"width="50.0""#, "7.5"] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }

    #[test]
    fn suppressed_metrics_show_the_reason() {
        let mut family = FamilyBuilder::new("m", MetricType::Gauge);
        family.series(&[], &ValueLayout::Single, &[1.0], None);
        let mut entry = entry(family.finish().unwrap());
        entry.families[0].conflict = Some(Arc::new(Conflict::Limit { name: "limits.series_max", max: 2 }));
        let page = shown(&entry);
        assert!(page.contains("held back") && page.contains("limits.series_max = 2"), "{page}");
    }

    #[test]
    fn long_families_are_cut() {
        let mut family = FamilyBuilder::new("m", MetricType::Untyped);
        for i in 0..SERIES_SHOWN_MAX + 7 {
            family.series(&[("x", &i.to_string())], &ValueLayout::Single, &[0.0], None);
        }
        assert!(shown(&entry(family.finish().unwrap())).contains("and 7 more series"));
    }

    #[test]
    fn a_page_is_bounded_whatever_was_pushed() {
        // As much as one push may have of everything: metrics, help, labels, buckets, exemplars.
        let long = "<".repeat(20_000);
        let bounds: Vec<Num> = (0..500).map(|bound| Num(f64::from(bound))).collect();
        let values = vec![1.0; bounds.len() + 2];
        let points = ValueLayout::Histogram { bounds: bounds.into(), has_sum: true, has_count: true, float: false };
        let families = (0..1_100).map(|number| {
            let mut family = FamilyBuilder::new(format!("m{number:04}"), MetricType::Histogram);
            family.help(Some(&long));
            for series in 0..if number < 3 { 30 } else { 1 } {
                let value = series.to_string();
                let value = if series % 3 == 0 { &long } else { &value };
                family.series(&[("x", value), ("y", &series.to_string())], &points, &values, None);
            }
            family.finish().unwrap()
        });
        let moment =
            PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1_795_343_653_000_000_000 };
        let group = Group::put(moment, families.collect());
        let states = vec![FamilyState::default(); 1_100];
        let page = shown(&GroupEntry {
            group,
            families: states,
            ..GroupEntry::new(GroupId::local(LabelSet::new([("job", "a")])))
        });
        assert!(page.contains("more series") && page.contains("more metrics"));
        assert!(page.len() < 5 * PAGE_BYTES_MAX, "{} bytes", page.len());
    }

    /// The bytes of a page that its budget does not count.
    const LAYOUT_BYTES: usize = 128 << 10;

    #[test]
    fn reasons_count_towards_the_page_budget() {
        let families = (0..900).map(|number| {
            let mut family = FamilyBuilder::new(format!("m{number:04}"), MetricType::Gauge);
            family.series(&[], &ValueLayout::Single, &[1.0], None);
            family.finish().unwrap()
        });
        let moment =
            PushTime { stamp: WriteTimestamp { time_ns: 1, node: NodeId(1) }, wall_ns: 1_795_343_653_000_000_000 };
        let group = Group::put(moment, families.collect());
        let conflict = Conflict::Duplicate { name: "m".into(), labels: "x".repeat(20_000), group: None };
        let states = vec![FamilyState { conflict: Some(Arc::new(conflict)), ..FamilyState::default() }; 900];
        let page = shown(&GroupEntry {
            group,
            families: states,
            ..GroupEntry::new(GroupId::local(LabelSet::new([("job", "a")])))
        });
        assert!(page.contains("held back") && page.contains("more metrics"));
        assert!(page.len() < PAGE_BYTES_MAX + LAYOUT_BYTES, "{} bytes", page.len());
    }

    #[test]
    fn exemplars_without_labels_count_towards_the_page_budget() {
        let exemplar = Exemplar { label: Vec::new(), value: Some(1.0 / 3.0), timestamp: None };
        let histogram = Histogram { exemplars: vec![exemplar; 16], ..Histogram::default() };
        let raw_metric = Metric { histogram: Some(Box::new(histogram)), ..Metric::default() }.encode_to_vec();
        let mut family = FamilyBuilder::new("m", MetricType::Untyped);
        for i in 0..SERIES_SHOWN_MAX {
            let value = format!("{i:01500}");
            family.series(&[("x", &value)], &ValueLayout::Single, &[0.0], Some(&raw_metric));
        }
        let page = shown(&entry(family.finish().unwrap()));
        assert!(page.contains("Exemplar") && page.contains("more series"));
        assert!(page.len() < PAGE_BYTES_MAX + LAYOUT_BYTES, "{} bytes", page.len());
    }
}
