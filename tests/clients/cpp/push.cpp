// Pushes to the gateway given as the only argument with prometheus-cpp, as tests/clients/main.rs expects. The library
// writes values into the path as they are, so the program escapes them. It has no option for an authority: the
// gateway with TLS is not tried.
#include <prometheus/gateway.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using Registry = std::shared_ptr<prometheus::Registry>;

static Registry registry(const std::vector<std::pair<std::string, double>>& gauges) {
  auto filled = std::make_shared<prometheus::Registry>();
  for (const auto& gauge : gauges) {
    prometheus::BuildGauge().Name(gauge.first).Help("Some help.").Register(*filled).Add({}).Set(gauge.second);
  }
  return filled;
}

static void check(int status) {
  if (status != 200 && status != 202) {
    std::fprintf(stderr, "status %d\n", status);
    std::exit(1);
  }
}

int main(int, char** arguments) {
  std::string address = arguments[1];
  std::string port = address.substr(address.rfind(':') + 1);
  std::string host = address.substr(0, address.rfind(':'));
  const prometheus::Labels group = {{"path@base64", "L3Zhci90bXA"},
                                    {"empty@base64", "="},
                                    {"name", "%CE%A0%CF%81%CE%BF%CE%BC%CE%B7%CE%B8%CE%B5%CF%8D%CF%82"},
                                    {"space", "a%20b+c%25d"}};
  auto gateway = [&](const Registry& metrics, const prometheus::Labels& labels) {
    auto made = std::make_unique<prometheus::Gateway>(host, port, "cpp%20client", labels);
    made->RegisterCollectable(metrics);
    return made;
  };

  // `PushAdd` sends PUT, which replaces the group, and `Push` sends POST, which merges into it.
  auto old = registry({{"client_old", 1}});
  check(gateway(old, group)->PushAdd());
  auto pushed = registry({{"client_value", 41}});
  auto& latency = prometheus::BuildHistogram().Name("client_latency").Help("Some help.").Register(*pushed);
  latency.Add({}, prometheus::Histogram::BucketBoundaries{0.1, 1}).Observe(0.5);
  check(gateway(pushed, group)->PushAdd());
  auto added = registry({{"client_value", 42}, {"client_added", 7}});
  check(gateway(added, group)->Push());

  auto gone = registry({{"client_gone", 1}});
  check(gateway(gone, {{"gone", "yes"}})->Push());
  check(gateway(gone, {{"gone", "yes"}})->DeleteForInstance());
}
