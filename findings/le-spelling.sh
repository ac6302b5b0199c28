#!/usr/bin/env bash
# Prometheus 3 writes the bound of a bucket as `le="1.0"` where the scraped page has `le="1"`, vmagent as scraped: a
# change from the one to the other makes new series of every histogram with whole bounds.
# Versions: Debian sid's prometheus 3.5.3+ds1-6 and victoria-metrics 1.145.0+ds1-2. Needs: Debian, python3.
# Does: lets both scrape one histogram into VictoriaMetrics, and prints the bounds that it has.
# Output:
#   prometheus: +Inf 1.0
#   vmagent: +Inf 1
. "$(dirname "$0")/common.sh"
SUITE=sid unpack prometheus=3.5.3+ds1-6 victoria-metrics=1.145.0+ds1-2
printf '# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\n' > page
serve_page
store=$(free_port)
root/usr/bin/victoria-metrics -storageDataPath=store -httpListenAddr="127.0.0.1:$store" 2> store.log &
await "http://127.0.0.1:$store/health"
config() {
  cat << END
global: {scrape_interval: 1s}
scrape_configs:
- job_name: $1
  static_configs: [{targets: ["127.0.0.1:$port"]}]
END
}
{ config prometheus; echo "remote_write: [{url: 'http://127.0.0.1:$store/api/v1/write'}]"; } > prometheus.yml
config vmagent > vmagent.yml
root/usr/bin/prometheus --config.file=prometheus.yml --storage.tsdb.path=data \
  --web.listen-address="127.0.0.1:$(free_port)" 2> prometheus.log &
root/usr/bin/vmagent -promscrape.config=vmagent.yml -remoteWrite.tmpDataPath=queue \
  -httpListenAddr="127.0.0.1:$(free_port)" -remoteWrite.url="http://127.0.0.1:$store/api/v1/write" 2> vmagent.log &
python3 - "$store" <<'END' | check
import json, sys, time, urllib.parse, urllib.request


def bounds(job):
    query = urllib.parse.urlencode({"match[]": f'h_bucket{{job="{job}"}}', "start": time.time() - 300})
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/api/v1/series?{query}") as answer:
        return sorted(series["le"] for series in json.load(answer)["data"])


for job in ["prometheus", "vmagent"]:
    for _ in range(300):
        if found := bounds(job):
            break
        time.sleep(0.2)
    print(f"{job}:", *found)
END
