#!/usr/bin/env bash
# VictoriaMetrics drops NaN without a word. A gauge that goes from a value to NaN, to say that it is unknown, keeps its
# last value for five minutes there, and is NaN in Prometheus.
# Version: Debian sid's victoria-metrics 1.145.0+ds1-2. Needs: Debian, python3.
# Does: scrapes a gauge that is 7, then NaN; prints what an instant query says after the change.
# Output:
#   scraped: yes
#   temperature: 7
. "$(dirname "$0")/common.sh"
SUITE=sid unpack victoria-metrics=1.145.0+ds1-2
page() {
  printf '# TYPE temperature gauge\ntemperature %s\n' "$1"
}
page 7 > page
serve_page
cat > scrape.yml <<END
global: {scrape_interval: 1s}
scrape_configs: [{job_name: page, static_configs: [{targets: ["127.0.0.1:$port"]}]}]
END
store=$(free_port)
root/usr/bin/victoria-metrics -promscrape.config=scrape.yml -storageDataPath=store -search.latencyOffset=0s \
  -httpListenAddr="127.0.0.1:$store" 2> log &
await_scrapes 2
page NaN > changed && mv changed page
await_scrapes 6
sleep 2
python3 - "$store" <<'END' | check
import json, sys, urllib.parse, urllib.request


def value(query):
    query = urllib.parse.urlencode({"query": query, "nocache": 1})
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/api/v1/query?{query}") as answer:
        return json.load(answer)["data"]["result"][0]["value"][1]


print("scraped:", "yes" if float(value('scrape_samples_scraped{job="page"}')) == 1 else "no")
print("temperature:", value("last_over_time(temperature[1m])"))
END
