//! Reading delimited `MetricFamily` messages, as Pushgateway does.
//!
//! If several families have one name, the last counts, even if it has no metrics. A family without a type is a counter,
//! proto2's first value.
//!
//! Three inputs that Pushgateway accepts are refused here, because they break its scrapes: unknown types, names that
//! the [`NameValidation`] does not allow (two such names may become one when escaped), and native histograms that break
//! a rule ([`histogram_rules`]). They are refusals, not errors. So the push is recorded as failed, as for every other
//! invalid content of a valid message, and a push that Pushgateway refuses for another reason has the same result.
//!
//! A mistyped field is ignored, as in Pushgateway: [`super::lenient`] removes it.
//!
//! The values of a metric cannot express native histograms, exemplars, created timestamps, unknown fields, and integers
//! that no `f64` equals. So the message is kept without its labels, as a raw metric, unless it is byte for byte the
//! encoding of the values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use prost::Message;

use super::lenient::well_typed;
use super::message::Metric;
use super::parts;
use super::wire::{FieldReader, InvalidWire, WireValue, varint};
use crate::exposition::raw::{PushRefusal, RawFamily, RawLabel};
use crate::exposition::{Limit, NameValidation, PushLimits, TimestampRule, histogram_rules};
use crate::model::label::{LE, RESERVED_PREFIX};
use crate::model::{MetricType, ValueLayout};

/// A body is not a sequence of delimited metric families; the push changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The body ends within a message.
    #[error("unexpected EOF\nmetric family {message} is cut short")]
    Truncated {
        /// The message's number, from 1.
        message: usize,
    },
    /// The bytes are not a message of the expected type.
    #[error("metric family {message} is no io.prometheus.client.MetricFamily: invalid wire-format data")]
    InvalidWire {
        /// The message's number, from 1.
        message: usize,
    },
    /// A bound is crossed.
    #[error(transparent)]
    Limit(Limit),
}

/// Reads a body. The families are in the order in which their names first appear, each name once.
///
/// # Errors
///
/// Returns an error if the body is not a sequence of delimited messages, or crosses one of the `limits`.
pub fn parse<'a>(
    body: &'a [u8],
    names: NameValidation,
    limits: &PushLimits,
) -> Result<Vec<RawFamily<'a>>, ProtobufError> {
    let mut families: Vec<RawFamily> = Vec::new();
    let mut index: HashMap<Cow<str>, usize> = HashMap::new();
    let mut rest = body;
    let mut number = 0;
    let mut parser = ProtobufParser { names, limits, series_len: 0, values_len: 0 };
    while !rest.is_empty() {
        number += 1;
        if number > limits.families_max {
            return Err(ProtobufError::Limit(Limit::Families(limits.families_max)));
        }
        let length = varint(&mut rest).map_err(|InvalidWire| match rest.len() {
            0..10 => ProtobufError::Truncated { message: number },
            _ => ProtobufError::InvalidWire { message: number },
        })?;
        let message = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let (message, after) = message.ok_or(ProtobufError::Truncated { message: number })?;
        rest = after;
        let family = parser.family(message).map_err(|fault| fault.into_error(number))?;
        match index.get(&family.name) {
            Some(&at) => families[at] = family,
            None => {
                index.insert(family.name.clone(), families.len());
                families.push(family);
            }
        }
    }
    Ok(families)
}

/// An error in one message.
enum MessageError {
    InvalidWire,
    Error(ProtobufError),
}

impl From<InvalidWire> for MessageError {
    fn from(_: InvalidWire) -> Self {
        Self::InvalidWire
    }
}

impl From<Limit> for MessageError {
    fn from(limit: Limit) -> Self {
        Self::Error(ProtobufError::Limit(limit))
    }
}

impl MessageError {
    fn into_error(self, message: usize) -> ProtobufError {
        match self {
            Self::InvalidWire => ProtobufError::InvalidWire { message },
            Self::Error(error) => error,
        }
    }
}

struct ProtobufParser<'l> {
    names: NameValidation,
    limits: &'l PushLimits,
    series_len: usize,
    values_len: usize,
}

impl ProtobufParser<'_> {
    fn family<'a>(&mut self, message: &'a [u8]) -> Result<RawFamily<'a>, MessageError> {
        let mut family = self.head(message)?;
        let mut labels = Vec::new();
        let mut fields = FieldReader::new(message);
        while let Some(field) = fields.next()? {
            let (4, WireValue::Bytes(metric)) = (field.number, field.value) else { continue };
            self.series_len += 1;
            if self.series_len > self.limits.series_max {
                return Err(Limit::Series(self.limits.series_max).into());
            }
            labels.clear();
            self.metric(metric, &mut family, &mut labels)?;
            if self.values_len > self.limits.values_max {
                return Err(Limit::Values(self.limits.values_max).into());
            }
        }
        Ok(family)
    }

    /// Reads the fields of a family that are not metrics. They may follow the metrics.
    fn head<'a>(&self, message: &'a [u8]) -> Result<RawFamily<'a>, MessageError> {
        let mut family = RawFamily::new(Cow::Borrowed(""), MetricType::Counter);
        let mut name: &[u8] = &[];
        let mut type_number = MetricType::Counter as i32;
        let mut fields = FieldReader::new(message);
        while let Some(field) = fields.next()? {
            match (field.number, field.value) {
                (1, WireValue::Bytes(bytes)) => name = bytes,
                (2, WireValue::Bytes(bytes)) => family.help = Some(String::from_utf8_lossy(bytes)),
                (3, WireValue::Varint(number)) => type_number = number as i32,
                (5, WireValue::Bytes(bytes)) => family.unit = Some(String::from_utf8_lossy(bytes)),
                _ => {}
            }
        }
        family.name = lossy(name);
        let named = || family.name.clone().into_owned();
        let refusal = match MetricType::from_number(type_number) {
            _ if matches!(family.name, Cow::Owned(_)) || !self.names.allows_metric(&family.name) => {
                Some(PushRefusal::MetricName(named()))
            }
            None => Some(PushRefusal::MetricType { family: named(), number: type_number }),
            Some(metric_type) => {
                family.metric_type = metric_type;
                None
            }
        };
        if let Some(refusal) = refusal {
            family.refuse(refusal);
        }
        Ok(family)
    }

    fn metric<'a>(
        &mut self,
        message: &'a [u8],
        family: &mut RawFamily<'a>,
        labels: &mut Vec<RawLabel<'a>>,
    ) -> Result<(), MessageError> {
        let mut rest = Rest::default();
        let mut fields = FieldReader::new(message);
        while let Some(field) = fields.next()? {
            match (field.number, field.value) {
                (1, WireValue::Bytes(_)) if labels.len() == self.limits.labels_per_series_max => {
                    return Err(Limit::LabelsPerSeries(self.limits.labels_per_series_max).into());
                }
                (1, WireValue::Bytes(pair)) => labels.push(self.label(pair, family)?),
                (6, WireValue::Varint(_)) if self.limits.timestamps == TimestampRule::Strip => {}
                _ => rest.add(field.range, message),
            }
        }
        if let Some(value) = single_value(family.metric_type, &rest.bytes) {
            family.push(labels, &ValueLayout::Single, &[value]);
            self.values_len += 1;
            return Ok(());
        }
        // A part takes at least a byte, so a short message need not be counted.
        let parts_max = self.limits.parts_per_series_max;
        if rest.bytes.len() > parts_max && parts::count(&rest.bytes)? > parts_max {
            return Err(Limit::PartsPerSeries(parts_max).into());
        }
        let metric = match Metric::decode(&*rest.bytes) {
            Ok(metric) => metric,
            Err(_) => {
                rest.bytes = Cow::Owned(well_typed(&rest.bytes)?);
                Metric::decode(&*rest.bytes).map_err(|_| MessageError::InvalidWire)?
            }
        };
        if metric.timestamp_ms.is_some() {
            family.refuse(PushRefusal::Timestamp);
        }
        let Some((points, values)) = metric.values(family.metric_type) else {
            let metric_type = family.metric_type;
            family.refuse_with(|family| PushRefusal::WrongType { family, metric_type });
            return Ok(());
        };
        if family.metric_type.own_label() == Some(LE)
            && let Some(Err(fault)) = metric.histogram.as_deref().map(histogram_rules::check)
        {
            family.refuse_with(|family| PushRefusal::Histogram { family, fault });
        }
        family.push(labels, &points, &values);
        self.values_len += values.len();
        if Metric::of(family.metric_type, &points, &values).encode_to_vec() != *rest.bytes {
            family.keep_raw_metric(rest.bytes);
        }
        Ok(())
    }

    fn label<'a>(&self, message: &'a [u8], family: &mut RawFamily<'a>) -> Result<RawLabel<'a>, MessageError> {
        let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
        let mut fields = FieldReader::new(message);
        while let Some(field) = fields.next()? {
            match (field.number, field.value) {
                (1, WireValue::Bytes(bytes)) => name = bytes,
                (2, WireValue::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        let (name, value) = (lossy(name), lossy(value));
        let is_valid = matches!(name, Cow::Borrowed(_)) && self.names.allows_label(&name);
        if !is_valid || name.starts_with(RESERVED_PREFIX) {
            family.refuse_with(|family| PushRefusal::LabelName { family, label: name.clone().into_owned() });
        }
        if matches!(value, Cow::Owned(_)) {
            family.refuse_with(|family| PushRefusal::LabelValue { family, label: name.clone().into_owned() });
        }
        Ok(RawLabel { name, value })
    }
}

/// The bytes as text; owned only if they are not UTF-8. Faster than `from_utf8_lossy` for UTF-8.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The fields of a metric except its labels. They are mostly contiguous, and then borrowed.
#[derive(Default)]
struct Rest<'a> {
    bytes: Cow<'a, [u8]>,
    end: usize,
}

impl<'a> Rest<'a> {
    fn add(&mut self, field: Range<usize>, message: &'a [u8]) {
        match &mut self.bytes {
            Cow::Borrowed([]) => self.bytes = Cow::Borrowed(&message[field.clone()]),
            Cow::Borrowed(before) if field.start == self.end => {
                self.bytes = Cow::Borrowed(&message[field.start - before.len()..field.end]);
            }
            bytes => bytes.to_mut().extend_from_slice(&message[field.clone()]),
        }
        self.end = field.end;
    }
}

/// The value of a counter, gauge or untyped metric whose message holds only the value: the common case.
fn single_value(metric_type: MetricType, message: &[u8]) -> Option<f64> {
    let number = match metric_type {
        MetricType::Gauge => 2,
        MetricType::Counter => 3,
        MetricType::Untyped => 5,
        _ => return None,
    };
    match message {
        [tag, 9, 0x09, value @ ..] if *tag == (number << 3 | 2) => value.try_into().ok().map(f64::from_le_bytes),
        _ => None,
    }
}
