import io.prometheus.metrics.core.metrics.Gauge;
import io.prometheus.metrics.core.metrics.Histogram;
import io.prometheus.metrics.exporter.pushgateway.PushGateway;
import io.prometheus.metrics.exporter.pushgateway.Scheme;
import io.prometheus.metrics.model.registry.PrometheusRegistry;
import java.io.FileInputStream;
import java.io.InputStream;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

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

  static PushGateway.Builder client(String address, PrometheusRegistry registry) {
    PushGateway.Builder client = PushGateway.builder().address(address).job("java/client").registry(registry);
    if (System.getenv("PUSH_USER") != null) {
      client.scheme(Scheme.HTTPS).basicAuth(System.getenv("PUSH_USER"), System.getenv("PUSH_PASSWORD"));
    }
    return client;
  }

  /** Trusts the authority in a PEM file, and no other. */
  private static void trust(String file) throws Exception {
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null, null);
    try (InputStream pem = new FileInputStream(file)) {
      store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, trust.getTrustManagers(), null);
    HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory());
  }

  private static PushGateway group(String address, PrometheusRegistry registry) {
    return client(address, registry)
        .groupingKey("path", "/var/tmp")
        .groupingKey("empty", "")
        .groupingKey("name", "Προμηθεύς")
        .groupingKey("space", "a b+c%d")
        .build();
  }

  /** Host and port of the gateway. Trusts its authority, if it has one of its own. */
  static String address(String[] args) throws Exception {
    if (System.getenv("PUSH_CA") != null) {
      trust(System.getenv("PUSH_CA"));
    }
    return args[0].replaceFirst("https?://", "");
  }

  public static void main(String[] args) throws Exception {
    String address = address(args);
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
