#!/usr/bin/env bash
# Varnish with its built-in rules keeps an answer of /metrics for two minutes, and serves the cached text to a scraper
# that asks for OpenMetrics: the Python library's server sends neither `Cache-Control` nor `Vary: Accept`.
# Versions: varnish 7.1.1-2+deb12u1 (Debian 12), prometheus_client 0.26.0 (PyPI). Needs: Debian 12, a C compiler,
# python3 with venv.
# Does: serves a counter through varnish; asks for text, counts to 5, asks for OpenMetrics.
# Output:
#   through varnish: jobs_total 0.0, text/plain
#   through varnish: jobs_total 0.0, text/plain
#   without it: jobs_total 5.0, application/openmetrics-text
. "$(dirname "$0")/common.sh"
unpack varnish=7.1.1-2+deb12u1 libvarnishapi3=7.1.1-2+deb12u1 libjemalloc2=5.3.0-1
python_with prometheus_client==0.26.0
cat > serve.py <<'END'
import sys
import time
from prometheus_client import CollectorRegistry, Counter, start_http_server
registry = CollectorRegistry()
jobs = Counter("jobs", "Some help.", registry=registry)
start_http_server(int(sys.argv[1]), "127.0.0.1", registry)
sys.stdin.readline()
jobs.inc(5)
open("counted", "w").close()
time.sleep(600)
END
exporter=$(free_port)
mkfifo go
venv/bin/python serve.py "$exporter" < go &
exec 9> go
await "http://127.0.0.1:$exporter/metrics"
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/usr/lib/x86_64-linux-gnu/varnish
cache=$(free_port)
root/usr/sbin/varnishd -F -n "$work/varnish" -a "127.0.0.1:$cache" -b "127.0.0.1:$exporter" -s default,16m \
  -p vmod_path="$work/root/usr/lib/x86_64-linux-gnu/varnish/vmods" > log 2>&1 &
await "http://127.0.0.1:$cache/other"
ask() {
  python3 - "$@" <<'END'
import sys, urllib.request
what, port, accept = sys.argv[1:]
request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
with urllib.request.urlopen(request) as answer:
    value = next(line for line in answer.read().decode().splitlines() if line.startswith("jobs_total"))
    print(f"{what}: {value}, {answer.headers.get_content_type()}")
END
}
{
  ask "through varnish" "$cache" text/plain
  echo >&9
  until [ -e counted ]; do sleep 0.1; done
  ask "through varnish" "$cache" "application/openmetrics-text; version=1.0.0"
  ask "without it" "$exporter" "application/openmetrics-text; version=1.0.0"
} | check
