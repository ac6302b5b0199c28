//! Finds series that another group shows too.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use super::{Groups, Index, Signature};
use crate::model::label::INSTANCE;
use crate::model::{Escaping, LabelSet, Schema, scraped_labels, truncated};
use crate::store::Conflict;

impl Index {
    /// Looks for a series of `schema` that a group with the label names `signature` in its key shows too, if names are
    /// escaped in that way. `key` are the scraped labels of the schema's group.
    pub(super) fn check_duplicates(
        &self,
        signature: &Signature,
        key: &LabelSet,
        schema: &Schema,
        escaping: Escaping,
        groups: &impl Groups,
    ) -> Result<(), Conflict> {
        let signature: Vec<(Cow<str>, &str)> =
            signature.iter().map(|name| (escaping.escape_label(name), &**name)).collect();
        let in_key: HashSet<Cow<str>> = key.iter().map(|label| escaping.escape_label(label.name)).collect();
        let possible: Vec<bool> = schema
            .layouts()
            .iter()
            .map(|layout| {
                let own: HashSet<Cow<str>> = layout.names.iter().map(|name| escaping.escape_label(name)).collect();
                signature.iter().all(|(name, _)| in_key.contains(name) || own.contains(name))
            })
            .collect();
        if !possible.contains(&true) {
            return Ok(());
        }
        let mut last: Option<(Arc<LabelSet>, Option<OtherSeries>)> = None;
        for series in schema.series().filter(|series| possible[series.layout_index]) {
            let group = key.iter().map(|label| (label.name, Cow::Borrowed(label.value)));
            let mut rest = scraped_labels(series.labels().chain(group), escaping);
            let mut other_key = Vec::with_capacity(signature.len());
            for (form, name) in &signature {
                let Ok(at) = rest.binary_search_by(|label| label.0.cmp(form)) else { break };
                other_key.push((*name, rest.remove(at).1));
            }
            // A label with an empty value is in no key.
            if other_key.len() < signature.len() {
                continue;
            }
            let other_key = Arc::new(LabelSet::new(other_key));
            if last.as_ref().is_none_or(|(last, _)| *last != other_key) {
                let id = self.keys.get(&other_key).and_then(|groups| groups.first()).map(|group| &group.id);
                let other = id.and_then(|id| groups.shown_schema(id, schema.name()));
                last = Some((other_key, other.map(|schema| OtherSeries::new(schema, escaping))));
            }
            let Some((other_key, Some(other))) = &last else { continue };
            if other.contains(&rest) {
                let rest = rest.iter().map(|(name, value)| (&**name, &**value));
                let labels = LabelSet::new(rest.chain(other_key.iter().map(|label| (label.name, label.value))));
                let group = self.keys.get(other_key).and_then(|groups| groups.first()).map(|group| group.id.shown());
                let name = schema.name().clone();
                return Err(Conflict::Duplicate { name, labels: truncated(&labels.to_string()).to_string(), group });
            }
        }
        Ok(())
    }
}

/// The series of another group's family, as a scraper keeps their labels.
struct OtherSeries {
    schema: Arc<Schema>,
    /// The labels of its series, if the schema is not plain.
    scraped: HashSet<Vec<(String, String)>>,
}

impl OtherSeries {
    fn new(schema: Arc<Schema>, escaping: Escaping) -> Self {
        let owned = |labels: Vec<(Cow<str>, Cow<str>)>| {
            labels.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
        };
        let series = schema.series().filter(|_| !schema.is_plain());
        let scraped = series.map(|series| owned(scraped_labels(series.labels(), escaping))).collect();
        Self { schema, scraped }
    }

    /// Whether a series has these scraped labels besides those of its group.
    fn contains(&self, labels: &[(Cow<str>, Cow<str>)]) -> bool {
        if !self.schema.is_plain() {
            let labels: Vec<(String, String)> =
                labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            return self.scraped.contains(&labels);
        }
        let mut labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        if self.schema.contains(&labels) {
            return true;
        }
        // A plain schema has no empty value but that of `instance`.
        let Err(at) = labels.binary_search_by(|label| label.0.cmp(INSTANCE)) else { return false };
        labels.insert(at, (INSTANCE, ""));
        self.schema.contains(&labels)
    }
}
