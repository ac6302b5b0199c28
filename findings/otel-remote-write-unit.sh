#!/usr/bin/env bash
# OpenTelemetry's remote-write exporter for Python appends the unit to the name as it is written: `1`, the unit of plain
# numbers, becomes `_1`, and `By` becomes `_By`. Counters get no `_total`. So the same instruments have other names than
# at OpenTelemetry's exporter for scrapes, and dashboards for those find nothing.
# Versions: opentelemetry-exporter-prometheus-remote-write 0.66b1 and opentelemetry-exporter-prometheus 0.66b1 (PyPI).
# Needs: python3.
# Does: adds 1 to three counters with the units `1`, `By` and `s`; prints the names in a remote write and in a scrape.
# Output:
#   written: jobs_1
#   written: read_By
#   written: waited_s
#   scraped: jobs_total
#   scraped: read_bytes_total
#   scraped: waited_seconds_total
. "$(dirname "$0")/common.sh"
python_with opentelemetry-exporter-prometheus-remote-write==0.66b1 opentelemetry-exporter-prometheus==0.66b1
record 200
cat > names.py <<'END'
import sys
import prometheus_client
import snappy
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.exporter.prometheus_remote_write import PrometheusRemoteWriteMetricsExporter
from opentelemetry.exporter.prometheus_remote_write.gen.remote_pb2 import WriteRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

exporter = PrometheusRemoteWriteMetricsExporter(f"http://127.0.0.1:{sys.argv[1]}/write")
readers = [PeriodicExportingMetricReader(exporter), PrometheusMetricReader()]
provider = MeterProvider(metric_readers=readers, resource=Resource({}))
meter = provider.get_meter("m")
units = {"jobs": "1", "read": "By", "waited": "s"}
for name, unit in units.items():
    meter.create_counter(name, unit=unit).add(1)
scrape = prometheus_client.generate_latest().decode()
provider.shutdown()
request = WriteRequest.FromString(snappy.uncompress(open("body", "rb").read()))
labels = [label for series in request.timeseries for label in series.labels]
print(*sorted(f"written: {label.value}" for label in labels if label.name == "__name__"), sep="\n")
names = {line.split("{")[0].split(" ")[0] for line in scrape.splitlines() if line.split("_")[0] in units}
print(*sorted(f"scraped: {name}" for name in names), sep="\n")
END
venv/bin/python names.py "$port" | check
