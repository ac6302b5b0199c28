#!/usr/bin/env bash
# Datadog's OpenMetrics check skips untyped metrics without a word, also with `.+`, unless the configuration names each
# with a type. Metrics that are pushed with `echo some_metric 3.14 | curl` are untyped.
# Version: datadog-checks-base 38.7.0 (PyPI). Needs: python3.11 or later with venv.
# Does: runs the check on a page with a gauge and an untyped metric, first with `.+`, then with a type for that one.
# Output:
#   by pattern: n.typed
#   with a type: n.some_metric, n.typed
. "$(dirname "$0")/common.sh"
python_with datadog-checks-base==38.7.0 lazy_loader prometheus_client \
  requests pyyaml pydantic cachetools simplejson binary wrapt requests-toolbelt requests-unixsocket2 cryptography \
  jellyfish packaging urllib3 httpx orjson uptime python-dateutil
printf '# TYPE typed gauge\ntyped 1\nsome_metric 3.14\n' > page
serve_page
venv/bin/python - "$port" 2> log > said <<'END'
import sys
from datadog_checks.base import OpenMetricsBaseCheckV2
from datadog_checks.base.stubs import aggregator


def run(what, metrics):
    aggregator.reset()
    endpoint = f"http://127.0.0.1:{sys.argv[1]}/metrics"
    instance = {"openmetrics_endpoint": endpoint, "namespace": "n", "metrics": metrics}
    failed = OpenMetricsBaseCheckV2("finding", {}, [instance]).run()
    print(f"{what}:", failed or ", ".join(sorted(name for name in aggregator.metric_names if "telemetry" not in name)))


run("by pattern", [".+"])
run("with a type", [{"some_metric": {"type": "gauge"}}, ".+"])
END
check < said
