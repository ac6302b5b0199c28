#!/usr/bin/env bash
# VictoriaMetrics answers a remote-write 2.0 request with 204 and stores nothing: it reads it as 1.0, in which the
# message has no series. Prometheus takes the missing `…-Samples-Written` header as the sign, counts all samples as
# failed, and does not fall back to 1.0.
# Versions: Debian sid's prometheus 3.5.3+ds1-6 and victoria-metrics 1.145.0+ds1-2. Needs: Debian, python3.
# Does: lets Prometheus send its own metrics with `protobuf_message: io.prometheus.write.v2.Request`; prints how many
# series arrived.
# Output:
#   samples sent: yes
#   samples failed: all
#   series stored: 0
. "$(dirname "$0")/common.sh"
SUITE=sid unpack prometheus=3.5.3+ds1-6 victoria-metrics=1.145.0+ds1-2
store=$(free_port)
own=$(free_port)
root/usr/bin/victoria-metrics -storageDataPath=store -httpListenAddr="127.0.0.1:$store" 2> store.log &
await "http://127.0.0.1:$store/health"
cat > prometheus.yml <<END
global: {scrape_interval: 1s}
scrape_configs: [{job_name: own, static_configs: [{targets: ["127.0.0.1:$own"]}]}]
remote_write: [{url: "http://127.0.0.1:$store/api/v1/write", protobuf_message: io.prometheus.write.v2.Request}]
END
root/usr/bin/prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.listen-address="127.0.0.1:$own" \
  2> prometheus.log &
await "http://127.0.0.1:$own/-/ready"
python3 - "$own" "$store" <<'END' | check
import json, sys, time, urllib.parse, urllib.request
own, store = sys.argv[1:]


def metric(name):
    with urllib.request.urlopen(f"http://127.0.0.1:{own}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


for _ in range(300):
    if metric("prometheus_remote_storage_samples_total") >= 1000:
        break
    time.sleep(0.2)
time.sleep(3)
print("samples sent:", "yes" if metric("prometheus_remote_storage_samples_total") >= 1000 else "no")
failed, sent = (metric(f"prometheus_remote_storage_samples_{name}total") for name in ["failed_", ""])
print("samples failed:", "all" if failed >= sent else int(failed))
query = urllib.parse.urlencode({"match[]": '{job="own"}', "start": time.time() - 300})
with urllib.request.urlopen(f"http://127.0.0.1:{store}/api/v1/series?{query}") as answer:
    print("series stored:", len(json.load(answer)["data"]))
END
