//! Matching: first a group by its labels, then a metric by its name, then, if these leave it undecided, each series.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::{Family, FamilyBuilder, LabelSet};
use crate::selector::{METRIC_NAME, Matcher, Selector, Selectors};

/// A bit for each selector of a union.
pub(super) type SelectorMask = u64;

const _: () = assert!(crate::selector::SELECTORS_MAX <= SelectorMask::BITS as usize);

/// A group that is shown, and how far its labels decide.
#[derive(Debug)]
pub(super) struct GroupMatch {
    pub(super) labels: Arc<LabelSet>,
    /// The selectors that may match its series.
    pub(super) possible: SelectorMask,
    /// The selectors that match all its series of metrics whose names match.
    pub(super) certain: SelectorMask,
}

/// The part of a family that is selected.
pub(super) enum FamilyPart {
    Whole,
    Nothing,
    Part(Family),
}

fn mask(selectors: &Selectors, is_in: impl Fn(&Selector) -> bool) -> SelectorMask {
    selectors.iter().enumerate().map(|(at, selector)| SelectorMask::from(is_in(selector)) << at).sum()
}

/// Matches the labels of a group.
pub(super) fn match_group(selectors: &Selectors, labels: &Arc<LabelSet>) -> GroupMatch {
    let is_open = |matcher: &Matcher| !labels.contains(matcher.name());
    let accepts = |matcher: &Matcher| labels.get(matcher.name()).is_none_or(|value| matcher.accepts(value));
    let possible = mask(selectors, |selector| selector.matchers().iter().all(accepts));
    let is_decided = |matcher: &Matcher| matcher.name() == METRIC_NAME || !is_open(matcher);
    let certain = possible & mask(selectors, |selector| selector.matchers().iter().all(is_decided));
    GroupMatch { labels: labels.clone(), possible, certain }
}

/// The selectors that a metric of that name may match.
pub(super) fn match_name(selectors: &Selectors, name: &str) -> SelectorMask {
    let accepts = |matcher: &Matcher| matcher.name() != METRIC_NAME || matcher.accepts(name);
    mask(selectors, |selector| selector.matchers().iter().all(accepts))
}

/// The part of a family, as it is shown, that is selected.
pub(super) fn pick(selectors: &Selectors, group: &GroupMatch, family: &Family) -> FamilyPart {
    let schema = family.schema();
    let named = match_name(selectors, schema.name());
    if group.certain & named != 0 {
        return FamilyPart::Whole;
    }
    // The matchers of labels that the group lacks: series may have them.
    let is_possible = |at: usize| group.possible & named & (1 << at) != 0;
    let possible = selectors.iter().enumerate().filter(|(at, _)| is_possible(*at)).map(|(_, selector)| selector);
    let open = possible.map(|selector| {
        let open = selector.matchers().iter();
        open.filter(|matcher| matcher.name() != METRIC_NAME && !group.labels.contains(matcher.name())).collect()
    });
    let open: Vec<Vec<&Matcher>> = open.collect();
    if open.is_empty() {
        return FamilyPart::Nothing;
    }
    let has = |name: &str| schema.layouts().iter().any(|layout| layout.names.iter().any(|own| **own == *name));
    let in_series = open.iter().flatten().any(|matcher| has(matcher.name()));
    let is_selected = |labels: &[(&str, Cow<'_, str>)]| {
        let value = |name: &str| labels.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| &**value);
        open.iter().any(|matchers| matchers.iter().all(|matcher| matcher.accepts(value(matcher.name()))))
    };
    if !in_series {
        return if is_selected(&[]) { FamilyPart::Whole } else { FamilyPart::Nothing };
    }
    let labels = schema.series().map(|series| series.labels().collect::<Vec<_>>());
    let selected: Vec<bool> = labels.map(|labels| is_selected(&labels)).collect();
    match selected.iter().filter(|selected| **selected).count() {
        0 => FamilyPart::Nothing,
        all if all == selected.len() => FamilyPart::Whole,
        _ => FamilyPart::Part(part(family, &selected)),
    }
}

/// The family with only the selected series.
fn part(family: &Family, selected: &[bool]) -> Family {
    let schema = family.schema();
    let mut builder = FamilyBuilder::new(schema.name().clone(), schema.metric_type());
    builder.help(schema.help()).unit(schema.unit());
    for (at, series) in schema.series().enumerate().filter(|(at, _)| selected[*at]) {
        let labels: Vec<(&str, Cow<'_, str>)> = series.labels().collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
        let raw_metric = family.raw_metrics().map(|raw_metrics| &*raw_metrics[at]);
        let raw_metric = raw_metric.filter(|raw_metric| !raw_metric.is_empty());
        builder.series(&labels, &series.layout().values, &family.values()[series.values()], raw_metric);
    }
    builder.finish().expect("a part of series that differ")
}

/// The part of one of the node's own families that the selectors match.
pub fn pick_own(selectors: &Selectors, family: Family) -> Option<Family> {
    pick_labelled(selectors, &Arc::default(), family)
}

/// The part of a family with these labels that the selectors match.
pub fn pick_labelled(selectors: &Selectors, labels: &Arc<LabelSet>, family: Family) -> Option<Family> {
    let group = match_group(selectors, labels);
    match pick(selectors, &group, &family) {
        FamilyPart::Whole => Some(family),
        FamilyPart::Nothing => None,
        FamilyPart::Part(part) => Some(part),
    }
}
