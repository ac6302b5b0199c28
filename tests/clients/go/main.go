// Pushes to the gateway given as the only argument with client_golang, as tests/clients/main.rs expects.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"log"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/push"
)

func gauge(name string, value float64) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: "Some help."})
	g.Set(value)
	return g
}

// A pusher with user name and password, if the gateway needs them.
func pusher(url string) *push.Pusher {
	pusher := push.New(url, "go/client")
	if ca := os.Getenv("PUSH_CA"); ca != "" {
		pem, err := os.ReadFile(ca)
		check(err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
		pusher.Client(&http.Client{Transport: transport})
		pusher.BasicAuth(os.Getenv("PUSH_USER"), os.Getenv("PUSH_PASSWORD"))
	}
	return pusher
}

func group(url string) *push.Pusher {
	return pusher(url).Grouping("path", "/var/tmp").Grouping("empty", "").
		Grouping("name", "Προμηθεύς").Grouping("space", "a b+c%d")
}

func main() {
	url := os.Args[1]
	latency := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "client_latency", Help: "Some help.", Buckets: []float64{0.1, 1}, NativeHistogramBucketFactor: 1.1,
	})
	latency.Observe(0.5)
	check(group(url).Collector(gauge("client_old", 1)).Push())
	check(group(url).Collector(gauge("client_value", 41)).Collector(latency).Push())
	check(group(url).Collector(gauge("client_value", 42)).Collector(gauge("client_added", 7)).Add())

	gone := pusher(url).Grouping("gone", "yes").Collector(gauge("client_gone", 1))
	check(gone.Push())
	check(gone.Delete())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
