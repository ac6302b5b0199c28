#!/usr/bin/env bash
# pytest-prometheus replaces the same group after every test, with the result of that test alone. After the run, a
# gateway has the last test's metric, and none of the others.
# Versions: pytest-prometheus 0.1, pytest 8.4.2, prometheus_client 0.26.0 (PyPI). Needs: python3 with venv.
# Does: runs three tests, and prints the requests and the metrics of the last body.
# Output:
#   PUT /metrics/job/ci
#   PUT /metrics/job/ci
#   PUT /metrics/job/ci
#   ci_test_c{run="1"} 1.0
. "$(dirname "$0")/common.sh"
record 200
python_with pytest-prometheus==0.1 pytest==8.4.2 prometheus_client==0.26.0
mkdir tests
printf 'def test_a(): pass\n\n\ndef test_b(): pass\n\n\ndef test_c(): pass\n' > tests/test_three.py
venv/bin/python -m pytest -q tests --prometheus-pushgateway-url="http://127.0.0.1:$port" \
  --prometheus-metric-prefix=ci_ --prometheus-job-name=ci --prometheus-extra-label=run=1 > report
{ cat requests; grep -v '^#' body; } | check
