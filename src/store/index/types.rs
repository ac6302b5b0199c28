//! The types under which sites push a name.
//!
//! Of a name's types, that of most sites is preferred. The preference must not depend on the order in which families
//! arrived, so it counts every stored family that could be shown alone, suppressed families included. The number of
//! groups does not count: one site with many groups is one site.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{Family, LabelSet, MetricType};

/// A family of a group, as far as it counts here.
#[derive(Clone)]
pub(super) struct PushedType {
    name: Arc<str>,
    metric_type: MetricType,
    site: Arc<LabelSet>,
}

impl PushedType {
    pub(super) fn new(family: &Family, site: &Arc<LabelSet>) -> Self {
        Self { name: family.name().clone(), metric_type: family.schema().metric_type(), site: site.clone() }
    }
}

/// The sites that push a name with one type.
struct TypeSites {
    metric_type: MetricType,
    /// The sites in order, each with the number of its groups that push the name with this type.
    sites: Vec<(Arc<LabelSet>, usize)>,
}

/// The types of all names.
#[derive(Default)]
pub(super) struct PushedTypes {
    by_name: HashMap<Arc<str>, Vec<TypeSites>>,
    /// The names that have several types.
    mixed: BTreeSet<Arc<str>>,
}

impl PushedTypes {
    pub(super) fn add(&mut self, PushedType { name, metric_type, site }: &PushedType) {
        let types = match self.by_name.get_mut(name) {
            Some(types) => types,
            None => self.by_name.entry(name.clone()).or_default(),
        };
        let at = types.iter().position(|of| of.metric_type == *metric_type).unwrap_or_else(|| {
            types.push(TypeSites { metric_type: *metric_type, sites: Vec::new() });
            types.len() - 1
        });
        if types.len() == 2 && types[at].sites.is_empty() {
            self.mixed.insert(name.clone());
        }
        let sites = &mut types[at].sites;
        match sites.binary_search_by(|(other, _)| other.cmp(site)) {
            Ok(at) => sites[at].1 += 1,
            Err(at) => sites.insert(at, (site.clone(), 1)),
        }
    }

    pub(super) fn remove(&mut self, PushedType { name, metric_type, site }: &PushedType) {
        let types = self.by_name.get_mut(name).expect("a family that goes was added");
        let at = types.iter().position(|of| of.metric_type == *metric_type).expect("a family that goes was added");
        let sites = &mut types[at].sites;
        let of_site = sites.binary_search_by(|(other, _)| other.cmp(site)).expect("a family that goes was added");
        sites[of_site].1 -= 1;
        if sites[of_site].1 == 0 {
            sites.remove(of_site);
        }
        if sites.is_empty() {
            types.swap_remove(at);
            match types.len() {
                0 => drop(self.by_name.remove(name)),
                1 => drop(self.mixed.remove(name)),
                _ => {}
            }
        }
    }

    /// The names that have several types, in order.
    pub(super) fn mixed(&self) -> &BTreeSet<Arc<str>> {
        &self.mixed
    }

    /// The types of a name, each with the number of its sites: the preferred type first.
    pub(super) fn by_preference(&self, name: &str) -> Vec<(MetricType, usize)> {
        let types = self.by_name.get(name).into_iter().flatten();
        let mut types: Vec<(MetricType, usize)> = types.map(|of| (of.metric_type, of.sites.len())).collect();
        types.sort_unstable_by_key(|(metric_type, sites)| std::cmp::Reverse((*sites, precision(*metric_type))));
        types
    }
}

/// The order of types that equally many sites push: a type that says more is preferred.
fn precision(metric_type: MetricType) -> u8 {
    match metric_type {
        MetricType::Untyped => 0,
        MetricType::Gauge => 1,
        MetricType::Counter => 2,
        MetricType::Summary => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Histogram => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_most_sites_comes_first() {
        let mut types = PushedTypes::default();
        let pushed = |metric_type, idc: &str| PushedType {
            name: "m".into(),
            metric_type,
            site: Arc::new(LabelSet::new([("IDC", idc)])),
        };
        let steps = [
            (MetricType::Untyped, "BJ", vec![(MetricType::Untyped, 1)]),
            // Two groups of one site are one site.
            (MetricType::Untyped, "BJ", vec![(MetricType::Untyped, 1)]),
            (MetricType::Counter, "SYQ", vec![(MetricType::Counter, 1), (MetricType::Untyped, 1)]),
            (MetricType::Untyped, "GZ", vec![(MetricType::Untyped, 2), (MetricType::Counter, 1)]),
            (MetricType::Counter, "BJ", vec![(MetricType::Counter, 2), (MetricType::Untyped, 2)]),
        ];
        let (mut before, mut stages) = (Vec::new(), Vec::new());
        for (metric_type, idc, expected) in &steps {
            stages.push(before);
            types.add(&pushed(*metric_type, idc));
            before = types.by_preference("m");
            assert_eq!(before, *expected);
            assert_eq!(types.mixed().len(), usize::from(expected.len() > 1));
        }
        for ((metric_type, idc, _), stage) in steps.iter().zip(stages).rev() {
            types.remove(&pushed(*metric_type, idc));
            assert_eq!(types.by_preference("m"), stage);
            assert_eq!(types.mixed().len(), usize::from(stage.len() > 1));
        }
        assert!(types.by_name.is_empty());
    }
}
