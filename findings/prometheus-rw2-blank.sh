#!/usr/bin/env bash
# Prometheus reads remote write 2.0 as 1.0 if the content type has the usual blank after its semicolon. It answers 204,
# stores nothing, and sends no `…-Samples-Written` header.
# Version: Debian sid's prometheus 3.5.3+ds1-6. Needs: Debian, python3.
# Does: sends one sample in a 2.0 request without and with the blank, and prints the answers and what is stored.
# Output:
#   without blank: 204, samples written 1, stored
#   with blank: 204, samples written None, not stored
. "$(dirname "$0")/common.sh"
SUITE=sid unpack prometheus=3.5.3+ds1-6
own=$(free_port)
printf 'scrape_configs: []\n' > prometheus.yml
root/usr/bin/prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.enable-remote-write-receiver \
  --web.listen-address="127.0.0.1:$own" 2> log &
await "http://127.0.0.1:$own/-/ready"
python3 - "$own" <<'END' | check
import json, struct, sys, time, urllib.parse, urllib.request
base = f"http://127.0.0.1:{sys.argv[1]}"


def field(number, payload):
    return bytes([number << 3 | 2, len(payload)]) + payload


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def request(name):
    sample = b"\x09" + struct.pack("<d", 1) + b"\x10" + varint(int(time.time() * 1000))
    symbols = b"".join(field(4, text) for text in [b"", b"__name__", name])
    message = symbols + field(5, field(1, b"\x01\x02") + field(2, sample))
    # A snappy block of one literal.
    return bytes([len(message), (len(message) - 1) << 2]) + message if len(message) <= 60 else None


for what, name, content_type in [
    ("without blank", b"m_a", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ("with blank", b"m_b", "application/x-protobuf; proto=io.prometheus.write.v2.Request"),
]:
    headers = {"Content-Type": content_type, "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "2.0.0"}
    post = urllib.request.Request(f"{base}/api/v1/write", data=request(name), headers=headers, method="POST")
    with urllib.request.urlopen(post) as answer:
        status, written = answer.status, answer.headers["X-Prometheus-Remote-Write-Samples-Written"]
    query = urllib.parse.urlencode({"query": name.decode()})
    with urllib.request.urlopen(f"{base}/api/v1/query?{query}") as answer:
        found = json.load(answer)["data"]["result"]
    print(f"{what}: {status}, samples written {written},", "stored" if found else "not stored")
END
