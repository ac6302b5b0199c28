//! The JSON of a group in the query API (`/api/v1/metrics`), as in Pushgateway's `api/v1`: numbers are strings.

use prost::Message;
use serde_json::{Map, Value, json};

use super::labels::{self, ShownLabel};
use super::native::{Native, NativeBucket};
use super::number;
use super::protobuf::enum_name;
use super::protobuf::message::{Histogram, Metric, Summary};
use crate::model::{Family, LabelSet, MetricType, Series};

/// A group: `{"labels": …, "last_push_successful": …, NAME: {"time_stamp": …, "type": …, "help": …, "metrics": […]},
/// …}`.
///
/// `labels` are the group's, with its site labels. Each family comes with the time of its push, in nanoseconds since
/// the Unix epoch. As in Pushgateway, a metric named `labels` replaces the labels.
pub fn group<'a>(
    labels: &LabelSet,
    last_push_successful: bool,
    families: impl IntoIterator<Item = (u64, &'a Family)>,
) -> Value {
    let mut group = Map::new();
    let pairs = labels.iter().map(|label| (label.name.to_owned(), Value::from(label.value)));
    group.insert("labels".to_owned(), Value::Object(pairs.collect()));
    group.insert("last_push_successful".to_owned(), last_push_successful.into());
    for (pushed_ns, family) in families {
        group.insert((**family.name()).to_owned(), show_family(labels, pushed_ns, family));
    }
    Value::Object(group)
}

fn show_family(group: &LabelSet, pushed_ns: u64, family: &Family) -> Value {
    let schema = family.schema();
    let metrics = schema.series().enumerate().map(|(i, series)| {
        let raw_metric = family.raw_metrics().map(|raw_metrics| &*raw_metrics[i]).unwrap_or_default();
        let metric = match raw_metric {
            [] => Metric::of(schema.metric_type(), &series.layout().values, &family.values()[series.values()]),
            // It was decoded when it was pushed, so this cannot fail.
            raw_metric => Metric::decode(raw_metric).unwrap_or_default(),
        };
        show_metric(show_labels(group, &series), schema.metric_type(), &metric)
    });
    let mut shown = Map::new();
    shown.insert("time_stamp".to_owned(), time_stamp(pushed_ns).into());
    shown.insert("type".to_owned(), enum_name(schema.metric_type()).into());
    if let Some(help) = schema.help().filter(|help| !help.is_empty()) {
        shown.insert("help".to_owned(), help.into());
    }
    shown.insert("metrics".to_owned(), metrics.collect());
    Value::Object(shown)
}

fn show_labels(group: &LabelSet, series: &Series) -> Value {
    let own: Vec<_> = series.labels().collect();
    let pairs = labels::shown(group, series.layout()).map(|label| match label {
        ShownLabel::Group(label) => (label.name.to_owned(), Value::from(label.value)),
        ShownLabel::Own { name, at } => (name.to_owned(), Value::from(&*own[at].1)),
    });
    Value::Object(pairs.collect())
}

fn show_metric(labels: Value, metric_type: MetricType, metric: &Metric) -> Value {
    match metric_type {
        MetricType::Summary => {
            let summary = metric.summary.clone().unwrap_or_default();
            let (count, sum) = (summary.sample_count.unwrap_or(0), summary.sample_sum.unwrap_or(0.0));
            json!({"labels": labels, "quantiles": quantiles(&summary), "count": count.to_string(), "sum": text(sum)})
        }
        MetricType::Histogram => {
            let histogram = metric.histogram.clone().unwrap_or_default();
            let (count, buckets) = native(&histogram).unwrap_or_else(|| classic(&histogram));
            let sum = text(histogram.sample_sum.unwrap_or(0.0));
            json!({"labels": labels, "sum": sum, "count": count, "buckets": buckets})
        }
        // Pushgateway prints gauge histograms as values.
        _ => {
            let gauge = metric.gauge.as_ref().map(|gauge| gauge.value);
            let counter = metric.counter.as_ref().map(|counter| counter.value);
            let untyped = metric.untyped.as_ref().map(|untyped| untyped.value);
            let value = gauge.or(counter).or(untyped).flatten().unwrap_or(0.0);
            json!({"labels": labels, "value": text(value)})
        }
    }
}

fn quantiles(summary: &Summary) -> Value {
    let quantiles = summary.quantile.iter();
    let pairs = quantiles.map(|q| (text(q.quantile.unwrap_or(0.0)), text(q.value.unwrap_or(0.0)).into()));
    Value::Object(pairs.collect())
}

/// The count and the buckets (`[boundaries, lower, upper, count]`) of a native histogram; `None` if it is not native.
fn native(histogram: &Histogram) -> Option<(String, Value)> {
    let native = Native::of(histogram)?;
    let bucket = |b: &NativeBucket| json!([b.inclusive as u64, text(b.lower), text(b.upper), b.count.to_string()]);
    Some((native.count.to_string(), native.buckets.iter().map(bucket).collect()))
}

/// The count and the buckets of a classic histogram.
fn classic(histogram: &Histogram) -> (String, Value) {
    let buckets = histogram.bucket.iter().map(|bucket| {
        let count = count(bucket.cumulative_count_float, bucket.cumulative_count);
        (text(bucket.upper_bound.unwrap_or(0.0)), count.into())
    });
    (count(histogram.sample_count_float, histogram.sample_count), Value::Object(buckets.collect()))
}

fn count(float: Option<f64>, integer: Option<u64>) -> String {
    float.filter(|float| *float > 0.0).map_or_else(|| integer.unwrap_or(0).to_string(), text)
}

/// A number as Go's `fmt.Sprint` prints it.
fn text(value: f64) -> String {
    let mut text = Vec::new();
    number::print_signed_zero(value, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// A time as RFC 3339 in UTC, with as many digits of the second as needed.
fn time_stamp(unix_ns: u64) -> String {
    let time =
        time::OffsetDateTime::from_unix_timestamp_nanos(unix_ns.into()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (time.date(), time.time());
    let fraction = format!(".{:09}", clock.nanosecond());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{fraction}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::protobuf::message::BucketSpan;
    use crate::exposition::{NameValidation, PushLimits, text};

    fn shown(body: &str) -> Value {
        let labels = LabelSet::new([("job", "a")]);
        let raw = text::parse(body.as_bytes(), NameValidation::Utf8, &PushLimits::default()).unwrap();
        let families: Vec<Family> = raw.iter().map(|raw| raw.family(&labels).unwrap()).collect();
        group(&labels, true, families.iter().map(|family| (1_795_343_691_943_193_400, family)))
    }

    /// Answers recorded from Pushgateway 1.11.2, except the times.
    #[test]
    fn families_are_shown_as_pushgateway_shows_them() {
        let labels = json!({"instance": "", "job": "a"});
        let cases = [
            (
                "# HELP m x <\nm 1e6\n",
                json!({"type": "UNTYPED", "help": "x <", "metrics": [{"labels": labels, "value": "1e+06"}]}),
            ),
            ("m -0\n", json!({"type": "UNTYPED", "metrics": [{"labels": labels, "value": "-0"}]})),
            (
                "# TYPE m summary\nm{quantile=\"0.5\"} 1\nm_count -1\n",
                json!({"type": "SUMMARY", "metrics": [{"labels": labels, "quantiles": {"0.5": "1"}, "sum": "0",
                    "count": "18446744073709551615"}]}),
            ),
            (
                "# TYPE m summary\nm_count -2\n",
                json!({"type": "SUMMARY", "metrics": [{"labels": labels, "quantiles": {}, "sum": "0",
                    "count": "18446744073709551614"}]}),
            ),
            (
                "# TYPE m histogram\nm_bucket{le=\"1\"} 1.5\nm_bucket{le=\"+Inf\"} 3\nm_count 3\n",
                json!({"type": "HISTOGRAM", "metrics": [{"labels": labels, "buckets": {"1": "1.5", "+Inf": "3"},
                    "sum": "0", "count": "3"}]}),
            ),
            (
                "# TYPE m histogram\nm_count NaN\n",
                json!({"type": "HISTOGRAM", "metrics": [{"labels": labels, "buckets": {}, "sum": "0", "count": "0"}]}),
            ),
            (
                "# TYPE m gaugehistogram\nm_count 4\n",
                json!({"type": "GAUGE_HISTOGRAM", "metrics": [{"labels": labels, "value": "0"}]}),
            ),
        ];
        for (body, mut expected) in cases {
            expected["time_stamp"] = "2026-11-22T10:34:51.9431934Z".into();
            let whole = json!({"labels": {"job": "a"}, "last_push_successful": true, "m": expected});
            assert_eq!(shown(body), whole, "{body}");
        }
    }

    /// An answer recorded from Pushgateway 1.11.2.
    #[test]
    fn native_buckets_are_listed_with_their_boundaries() {
        let span = |offset, length| BucketSpan { offset: Some(offset), length: Some(length) };
        let histogram = Histogram {
            sample_count: Some(3),
            schema: Some(1),
            zero_threshold: Some(0.001),
            zero_count: Some(2),
            negative_span: vec![span(0, 1)],
            negative_delta: vec![1],
            ..Histogram::default()
        };
        let expected = json!([[1, "-1", "-0.7071067811865475", "1"], [3, "-0.001", "0.001", "2"]]);
        assert_eq!(native(&histogram), Some(("3".to_owned(), expected)));
        assert_eq!(native(&Histogram::default()), None);
    }

    #[test]
    fn whole_seconds_have_no_fraction() {
        assert_eq!(time_stamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_stamp(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }
}
