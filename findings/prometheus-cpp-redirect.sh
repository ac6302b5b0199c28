#!/usr/bin/env bash
# prometheus-cpp returns 200 for every answer below 400: a redirect, which it does not follow, looks like a success.
# Version: prometheus-cpp 1.0.1 (Debian 12: prometheus-cpp-dev 1.0.1-1). Needs: Debian 12, c++, libcurl's library.
# Does: pushes the value `/var`, which the library does not escape, to a server that answers as a Pushgateway does to
# the empty part of that path: 301.
# Output:
#   Push() returned 200
#   POST /metrics/job/build/path//var
. "$(dirname "$0")/common.sh"
record 301 "Location: /metrics/job/build/path/var"
build_cpp <<'END'
#include <prometheus/gateway.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <cstdio>
#include <memory>

int main(int, char** arguments) {
  auto registry = std::make_shared<prometheus::Registry>();
  prometheus::BuildGauge().Name("seconds").Help("Some help.").Register(*registry).Add({}).Set(1);
  prometheus::Gateway gateway("127.0.0.1", arguments[1], "build", {{"path", "/var"}});
  gateway.RegisterCollectable(registry);
  std::printf("Push() returned %d\n", gateway.Push());
}
END
{ ./push "$port"; cat requests; } | check
