#!/usr/bin/env bash
# OpenTelemetry's remote-write exporter for Python writes a histogram's buckets without `_bucket` in the name and without
# adding the lower buckets, and the bucket whose bound is 0, the first of its default bounds, without `le`. So
# `histogram_quantile` finds no buckets, and with the name changed computes from counts that do not grow.
# Version: opentelemetry-exporter-prometheus-remote-write 0.66b1 (PyPI). Needs: python3.
# Does: observes 0, 1 and 7 with the bounds 0, 5 and 10, exports once, and prints the series of the request.
# Output:
#   seconds 1
#   seconds le=+Inf 0
#   seconds le=10 1
#   seconds le=5 1
#   seconds_count 3
#   seconds_sum 8
. "$(dirname "$0")/common.sh"
python_with opentelemetry-exporter-prometheus-remote-write==0.66b1
record 200
cat > export.py <<'END'
import sys
from opentelemetry.exporter.prometheus_remote_write import PrometheusRemoteWriteMetricsExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

reader = PeriodicExportingMetricReader(PrometheusRemoteWriteMetricsExporter(f"http://127.0.0.1:{sys.argv[1]}/write"))
bounds = View(instrument_name="seconds", aggregation=ExplicitBucketHistogramAggregation([0, 5, 10]))
provider = MeterProvider(metric_readers=[reader], views=[bounds], resource=Resource({}))
histogram = provider.get_meter("m").create_histogram("seconds")
for value in (0, 1, 7):
    histogram.record(value)
provider.shutdown()
END
cat > print.py <<'END'
import snappy
from opentelemetry.exporter.prometheus_remote_write.gen.remote_pb2 import WriteRequest

request = WriteRequest.FromString(snappy.uncompress(open("body", "rb").read()))
for series in request.timeseries:
    labels = {label.name: label.value for label in series.labels}
    name = labels.pop("__name__")
    print(name, *(f"{key}={value}" for key, value in labels.items()), f"{series.samples[0].value:g}")
END
venv/bin/python export.py "$port"
venv/bin/python print.py | LC_ALL=C sort | check
