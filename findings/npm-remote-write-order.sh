#!/usr/bin/env bash
# prometheus-remote-write writes the labels of a series in the order of the object's keys, and its own `labels` first. The
# specification asks for labels sorted by name. The same labels in another order are other bytes, which a receiver that
# does not sort takes for another series.
# Version: prometheus-remote-write 0.5.1 with node-fetch 2.7.0 (npm). Needs: node 18 or later, npm.
# Does: writes one series twice, with the keys of its labels in two orders; prints the labels of both requests.
# Output:
#   site, __name__, b, a
#   site, a, b, __name__
. "$(dirname "$0")/common.sh"
node_with prometheus-remote-write@0.5.1 node-fetch@2.7.0
record 200
cat > write.js <<'END'
const { pushTimeseries } = require('prometheus-remote-write');
const orders = { first: { __name__: 'm', b: '2', a: '1' }, second: { a: '1', b: '2', __name__: 'm' } };
pushTimeseries({ labels: orders[process.argv[3]], samples: [{ value: 1, timestamp: 1700000000000 }] }, {
  url: process.argv[2], labels: { site: 'syq' }, fetch: require('node-fetch'),
});
END
cat > print.js <<'END'
const { uncompress } = require('snappyjs');
const { prometheus } = require('prometheus-remote-write/prom');
const request = prometheus.WriteRequest.decode(uncompress(require('fs').readFileSync('body')));
console.log(request.timeseries[0].labels.map((label) => label.name).join(', '));
END
for order in first second; do
  node write.js "http://127.0.0.1:$port/write" $order
  node print.js
done | check
