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
unpack prometheus-cpp-dev=1.0.1-1 libprometheus-cpp-push1.0=1.0.1-1 libprometheus-cpp-core1.0=1.0.1-1
cat > push.cpp <<'END'
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
lib=$(dirname "$(find root -name 'libprometheus-cpp-push.so.1.0' | head -n 1)")
c++ -Iroot/usr/include push.cpp -o push -L"$lib" -lprometheus-cpp-push -lprometheus-cpp-core -Wl,--allow-shlib-undefined
LD_LIBRARY_PATH=$lib ./push "$port"
check < requests
