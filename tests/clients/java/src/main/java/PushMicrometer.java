import io.micrometer.core.instrument.DistributionSummary;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import io.prometheus.metrics.exporter.pushgateway.PushGateway;

/**
 * Pushes the metrics of Micrometer to the gateway given as the only argument, as tests/clients/main.rs expects. Like
 * Spring Boot, it passes Micrometer's registry to the exporter of the Prometheus library.
 */
public class PushMicrometer {
  private static PrometheusMeterRegistry registry(Object... gauges) {
    PrometheusMeterRegistry registry = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
    for (int i = 0; i < gauges.length; i += 2) {
      Number value = (Number) gauges[i + 1];
      Gauge.builder((String) gauges[i], () -> value).description("Some help.").strongReference(true).register(registry);
    }
    return registry;
  }

  private static PushGateway group(String address, PrometheusMeterRegistry registry) {
    return Push.client(address, registry.getPrometheusRegistry())
        .job("micrometer/client")
        .groupingKey("path", "/var/tmp")
        .groupingKey("empty", "")
        .groupingKey("name", "Προμηθεύς")
        .groupingKey("space", "a b+c%d")
        .build();
  }

  public static void main(String[] args) throws Exception {
    String address = Push.address(args);
    group(address, registry("client.old", 1)).push();
    PrometheusMeterRegistry pushed = registry("client.value", 41);
    DistributionSummary.builder("client.latency")
        .description("Some help.")
        .serviceLevelObjectives(0.1, 1)
        .register(pushed)
        .record(0.5);
    group(address, pushed).push();
    group(address, registry("client.value", 42, "client.added", 7)).pushAdd();

    PushGateway gone =
        Push.client(address, registry("client.gone", 1).getPrometheusRegistry())
            .job("micrometer/client")
            .groupingKey("gone", "yes")
            .build();
    gone.push();
    gone.delete();
  }
}
