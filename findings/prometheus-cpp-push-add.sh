#!/usr/bin/env bash
# prometheus-cpp's Push() and PushAdd() are the other way round than in the other libraries: Push() sends POST, which
# merges into the group, and PushAdd() sends PUT, which replaces the group.
# Version: prometheus-cpp 1.0.1 (Debian 12: prometheus-cpp-dev 1.0.1-1). Needs: Debian 12, c++, libcurl's library.
# Does: calls both, and prints the requests.
# Output:
#   POST /metrics/job/push
#   PUT /metrics/job/push-add
. "$(dirname "$0")/common.sh"
record 200
build_cpp <<'END'
#include <prometheus/gateway.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <memory>

int main(int, char** arguments) {
  auto registry = std::make_shared<prometheus::Registry>();
  prometheus::BuildGauge().Name("seconds").Help("Some help.").Register(*registry).Add({}).Set(1);
  prometheus::Gateway one("127.0.0.1", arguments[1], "push"), other("127.0.0.1", arguments[1], "push-add");
  one.RegisterCollectable(registry);
  other.RegisterCollectable(registry);
  one.Push();
  other.PushAdd();
}
END
./push "$port"
check < requests
