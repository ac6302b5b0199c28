#!/usr/bin/env bash
# Go's and Python's official clients name a job with a space differently in the path: as a plus sign, and in base64. A
# plus in a path is a plus, so the two push to different groups, and a delete by the one does not find the other's.
# Versions: client_golang 1.23.2 (Go), prometheus_client 0.26.0 (PyPI). Needs: go 1.23 or later, python3 with venv.
# Does: pushes the job `nightly backup` with each, and prints the requests.
# Output:
#   PUT /metrics/job/nightly+backup
#   PUT /metrics/job@base64/bmlnaHRseSBiYWNrdXA=
. "$(dirname "$0")/common.sh"
export GOMODCACHE=$work/modules GOCACHE=$work/build GOFLAGS=-modcacherw GOTOOLCHAIN=local
record 200
mkdir go && cd go
cat > main.go <<'END'
package main

import (
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/push"
)

func main() {
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "seconds", Help: "Some help."})
	if err := push.New(os.Args[1], "nightly backup").Collector(gauge).Push(); err != nil {
		panic(err)
	}
}
END
go mod init finding 2>/dev/null
go get github.com/prometheus/client_golang@v1.23.2 2>/dev/null
go mod tidy 2>/dev/null
go run . "http://127.0.0.1:$port"
cd ..
python_with prometheus_client==0.26.0
venv/bin/python - "http://127.0.0.1:$port" <<'END'
import sys
from prometheus_client import CollectorRegistry, Gauge, push_to_gateway
registry = CollectorRegistry()
Gauge("seconds", "Some help.", registry=registry).set(1)
push_to_gateway(sys.argv[1], job="nightly backup", registry=registry)
END
check < requests
