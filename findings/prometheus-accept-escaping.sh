#!/usr/bin/env bash
# Prometheus asks for UTF-8 names (`escaping=allow-utf-8`) in the text clauses of its Accept header, but not in the
# protobuf clause that it prefers with native histograms on. A target that negotiates by the clause it chooses escapes
# the names then, and only then.
# Version: Debian sid's prometheus 3.5.3+ds1-6. Needs: Debian, python3.
# Does: lets Prometheus scrape a server with native histograms on, and prints each clause of Accept.
# Output:
#   application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6
#   application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5
#   application/openmetrics-text;version=0.0.1;q=0.4
#   text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3
#   text/plain;version=0.0.4;q=0.2
#   */*;q=0.1
. "$(dirname "$0")/common.sh"
SUITE=sid unpack prometheus=3.5.3+ds1-6
record 200 "Content-Type: text/plain; version=0.0.4"
cat > prometheus.yml <<END
global: {scrape_interval: 1s}
scrape_configs: [{job_name: target, static_configs: [{targets: ["127.0.0.1:$port"]}]}]
END
root/usr/bin/prometheus --config.file=prometheus.yml --storage.tsdb.path=data --enable-feature=native-histograms \
  --web.listen-address="127.0.0.1:$(free_port)" 2> log &
until grep -q '^Accept:' headers 2> /dev/null; do sleep 0.2; done
sed -n '/^Accept: /{s/^Accept: //; s/,/\n/g; p; q}' headers | check
