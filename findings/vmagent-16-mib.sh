#!/usr/bin/env bash
# vmagent drops a scraped page of more than 16 MiB as a whole, also with `stream_parse: true`, which is meant for large
# pages. Only `max_scrape_size` (or -promscrape.maxScrapeSize) lifts the limit.
# Version: Debian sid's victoria-metrics 1.145.0+ds1-2 (vmagent). Needs: Debian, python3.
# Does: serves a page of 17 MiB to three jobs: as it is, with stream_parse, with max_scrape_size. Prints the targets'
# states.
# Output:
#   max_scrape_size up
#   plain down
#   stream_parse down
. "$(dirname "$0")/common.sh"
SUITE=sid unpack victoria-metrics=1.145.0+ds1-2
python3 -c '
filler = "x" * 60
for number in range(190_000):
    print(f"metric{{number=\"{number:09d}\",filler=\"{filler}\"}} 1")
' > page
serve_page
[ $(($(wc -c < page) >> 20)) = 17 ]
target=127.0.0.1:$port
cat > scrape.yml <<END
global: {scrape_interval: 2s, scrape_timeout: 2s}
scrape_configs:
- {job_name: plain, static_configs: [{targets: ["$target"]}]}
- {job_name: stream_parse, stream_parse: true, static_configs: [{targets: ["$target"]}]}
- {job_name: max_scrape_size, max_scrape_size: 32MiB, static_configs: [{targets: ["$target"]}]}
END
agent=$(free_port)
root/usr/bin/vmagent -promscrape.config=scrape.yml -httpListenAddr="127.0.0.1:$agent" -remoteWrite.tmpDataPath=queue \
  -remoteWrite.url=http://127.0.0.1:1/ 2> log &
await "http://127.0.0.1:$agent/health"
sleep 12
python3 - "$agent" <<'END' | check
import json, sys, urllib.request
with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/api/v1/targets") as answer:
    targets = json.load(answer)["data"]["activeTargets"]
for target in sorted(targets, key=lambda target: target["labels"]["job"]):
    print(target["labels"]["job"], target["health"])
END
