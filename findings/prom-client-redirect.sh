#!/usr/bin/env bash
# prom-client takes a redirect for success: it follows none, and rejects only statuses from 400 on.
# Version: prom-client 15.1.3 (npm). Needs: node 18 or later, npm.
# Does: pushes a value that begins with a slash to a server that answers 301, as a Pushgateway does because the decoded
# path has an empty part.
# Behaviour: the promise of the push is fulfilled, and no other request follows: nothing was stored.
# Output:
#   resolved with 301
#   PUT /metrics/job/build/path/%2Fvar
. "$(dirname "$0")/common.sh"
node_with prom-client@15.1.3
record 301 "Location: /metrics/job/build/path/var"
cat > push.js <<'END'
const { Gauge, Pushgateway, Registry } = require('prom-client');
const registry = new Registry();
new Gauge({ name: 'seconds', help: 'Some help.', registers: [registry] }).set(1);
new Pushgateway(process.argv[2], {}, registry)
  .push({ jobName: 'build', groupings: { path: '/var' } })
  .then(({ resp }) => console.log(`resolved with ${resp.statusCode}`), () => console.log('rejected'));
END
{ node push.js "http://127.0.0.1:$port"; cat requests; } | check
