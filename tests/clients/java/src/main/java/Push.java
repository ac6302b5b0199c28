import io.prometheus.metrics.core.metrics.Gauge;
import io.prometheus.metrics.core.metrics.Histogram;
import io.prometheus.metrics.exporter.pushgateway.PushGateway;
import io.prometheus.metrics.model.registry.PrometheusRegistry;

/** Pushes to the gateway given as the only argument, as tests/clients/main.rs expects. */
public class Push {
  private static PrometheusRegistry registry(Object... gauges) {
    PrometheusRegistry registry = new PrometheusRegistry();
    for (int i = 0; i < gauges.length; i += 2) {
      Gauge gauge = Gauge.builder().name((String) gauges[i]).help("Some help.").register(registry);
      gauge.set((Integer) gauges[i + 1]);
    }
    return registry;
  }

  private static PushGateway.Builder client(String address, PrometheusRegistry registry) {
    return PushGateway.builder().address(address).job("java/client").registry(registry);
  }

  private static PushGateway group(String address, PrometheusRegistry registry) {
    return client(address, registry)
        .groupingKey("path", "/var/tmp")
        .groupingKey("empty", "")
        .groupingKey("name", "Προμηθεύς")
        .groupingKey("space", "a b+c%d")
        .build();
  }

  public static void main(String[] args) throws Exception {
    String address = args[0].replace("http://", "");
    group(address, registry("client_old", 1)).push();
    PrometheusRegistry pushed = registry("client_value", 41);
    Histogram.builder().name("client_latency").help("Some help.").classicUpperBounds(0.1, 1).register(pushed).observe(0.5);
    group(address, pushed).push();
    group(address, registry("client_value", 42, "client_added", 7)).pushAdd();

    PushGateway gone = client(address, registry("client_gone", 1)).groupingKey("gone", "yes").build();
    gone.push();
    gone.delete();
  }
}
