#!/usr/bin/env bash
# Ghost's client of prom-client stops pushing for good after three failures in a row: a gateway that restarts for three
# intervals gets nothing more until Ghost restarts.
# Version: @tryghost/prometheus-metrics 5.0.0 (npm). Needs: node 20 or later, npm.
# Does: pushes every 200 ms to a server that answers 503, and counts the requests after three seconds.
# Output:
#   requests: 3
#   POST /metrics/job/ghost
. "$(dirname "$0")/common.sh"
node_with @tryghost/prometheus-metrics@5.0.0
record 503
cat > push.js <<'END'
const { PrometheusClient } = require('@tryghost/prometheus-metrics');
const quiet = { debug() {}, info() {}, error() {} };
const pushgateway = { enabled: true, url: process.argv[2], interval: 200 };
new PrometheusClient({ pushgateway }, quiet).init();
setTimeout(() => process.exit(0), 3000);
END
node push.js "http://127.0.0.1:$port"
{ echo "requests: $(wc -l < requests)"; sort -u requests; } | check
