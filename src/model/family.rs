//! A family: a schema and its values.

use std::cmp::Ordering;
use std::sync::Arc;

use super::schema::Schema;
use super::values::Values;

/// Raw metrics: for each series, in the order of the schema, its `io.prometheus.client.Metric` message without labels.
/// They carry everything that the text format cannot express (native histograms, exemplars, created timestamps, unknown
/// fields). A raw metric is empty if the values are complete.
pub type RawMetrics = Box<[Box<[u8]>]>;

/// One metric family of one group. Cheap to clone.
#[derive(Debug)]
pub struct Family {
    schema: Arc<Schema>,
    values: Values,
    raw_metrics: Option<Arc<RawMetrics>>,
}

impl Family {
    /// A family of that schema; `None` unless there are [`Schema::values_len`] values and, if any, one raw metric for
    /// each series.
    pub fn new(schema: Arc<Schema>, values: Values, raw_metrics: Option<Arc<RawMetrics>>) -> Option<Family> {
        let fits = values.len() == schema.values_len()
            && raw_metrics.as_ref().is_none_or(|raw_metrics| raw_metrics.len() == schema.series_len());
        fits.then_some(Family { schema, values, raw_metrics })
    }

    /// The part that does not change from push to push.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Its size in bytes, as an estimate for limits. Parts that are shared with other families are included.
    pub fn bytes(&self) -> usize {
        self.schema.bytes() + size_of::<f64>() * self.values.len() + self.raw_metrics_bytes()
    }

    /// Bytes of its raw metrics, as an estimate for bounds.
    pub fn raw_metrics_bytes(&self) -> usize {
        let raw_metrics = self.raw_metrics.iter().flat_map(|raw_metrics| raw_metrics.iter());
        raw_metrics.map(|raw_metric| 16 + raw_metric.len()).sum()
    }

    /// The metric's name.
    pub fn name(&self) -> &Arc<str> {
        self.schema.name()
    }

    /// The values of all series, in the schema's order.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The raw metrics, if any.
    pub fn raw_metrics(&self) -> Option<&Arc<RawMetrics>> {
        self.raw_metrics.as_ref()
    }

    /// The same values with another schema object of equal content.
    pub fn with_schema(self, schema: Arc<Schema>) -> Family {
        debug_assert!(self.schema.same(&schema));
        Family { schema, ..self }
    }

    /// Whether all parts are shared with `other`, so that the two are certainly equal. At most one value is compared.
    pub fn shares_all(&self, other: &Family) -> bool {
        let raw_metrics = |family: &Family| family.raw_metrics.as_ref().map(Arc::as_ptr);
        self.values.shares(&other.values)
            && Arc::ptr_eq(&self.schema, &other.schema)
            && raw_metrics(self) == raw_metrics(other)
    }

    /// The order of families in a group. Families with one schema have one name object, and no text is compared.
    pub fn cmp_name(&self, other: &Family) -> Ordering {
        let (a, b) = (self.name(), other.name());
        if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) }
    }

    /// A total order of contents. It breaks the tie between two writes with one timestamp (which only a copied store
    /// can make), so that all nodes choose alike.
    pub fn cmp_content(&self, other: &Family) -> Ordering {
        let bits = |family: &Family| family.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        self.schema
            .digest()
            .cmp(&other.schema.digest())
            .then_with(|| bits(self).cmp(&bits(other)))
            .then_with(|| self.raw_metrics.cmp(&other.raw_metrics))
    }
}

impl Clone for Family {
    fn clone(&self) -> Self {
        Self { schema: self.schema.clone(), values: self.values.clone(), raw_metrics: self.raw_metrics.clone() }
    }

    /// Mostly only the values differ. The schema is then left alone, because many threads share its reference count.
    fn clone_from(&mut self, source: &Self) {
        if !Arc::ptr_eq(&self.schema, &source.schema) {
            self.schema = source.schema.clone();
        }
        self.values = source.values.clone();
        self.raw_metrics = source.raw_metrics.clone();
    }
}

/// Compares contents; values by their bits.
impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.schema.same(&other.schema)
            && self.values.len() == other.values.len()
            && self.values.iter().zip(other.values.iter()).all(|(a, b)| a.to_bits() == b.to_bits())
            && self.raw_metrics == other.raw_metrics
    }
}
impl Eq for Family {}
