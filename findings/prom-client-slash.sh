#!/usr/bin/env bash
# prom-client writes a slash in a value of a grouping key as %2F. Pushgateway decodes a path before it splits it, so the
# value is split into further labels.
# Version: prom-client 15.1.3 (npm). Needs: node 18 or later, npm.
# Does: pushes with groupings {branch: 'feature/login', stage: 'a/b'}, and prints the request.
# Behaviour: the path has four parts after `branch` at a Pushgateway: branch=feature, login=stage, a=b.
# Output:
#   PUT /metrics/job/build/branch/feature%2Flogin/stage/a%2Fb
. "$(dirname "$0")/common.sh"
node_with prom-client@15.1.3
record 200
cat > push.js <<'END'
const { Gauge, Pushgateway, Registry } = require('prom-client');
const registry = new Registry();
new Gauge({ name: 'seconds', help: 'Some help.', registers: [registry] }).set(1);
const groupings = { branch: 'feature/login', stage: 'a/b' };
new Pushgateway(process.argv[2], {}, registry).push({ jobName: 'build', groupings });
END
node push.js "http://127.0.0.1:$port"
check < requests
