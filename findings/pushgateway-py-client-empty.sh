#!/usr/bin/env bash
# pushgateway-py-client keeps metrics for the whole process, and registers each with the registry of the client that
# used it first. A second client with the same metric pushes an empty registry, which replaces the group by nothing.
# Versions: pushgateway-py-client 0.4.1, which pins prometheus_client 0.16.0 (PyPI). Needs: python3 with venv.
# Does: sets one gauge with two clients of one job, and prints the requests and the size of the second body.
# Output:
#   PUT /metrics/job/etl
#   PUT /metrics/job/etl
#   bytes of the second body: 0
. "$(dirname "$0")/common.sh"
record 200
python_with pushgateway-py-client==0.4.1
venv/bin/python - "http://127.0.0.1:$port" <<'END'
import sys
from pushgateway_py_client import MetricsClient
MetricsClient(sys.argv[1], "etl").gauge("rows", 1, {"table": "a"})
MetricsClient(sys.argv[1], "etl").gauge("rows", 2, {"table": "a"})
END
{ cat requests; echo "bytes of the second body: $(wc -c < body)"; } | check
