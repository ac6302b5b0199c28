// Pushes to the gateway given as the only argument with client_golang, as tests/clients/main.rs expects.
package main

import (
	"log"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/push"
)

func gauge(name string, value float64) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: "Some help."})
	g.Set(value)
	return g
}

func group(url string) *push.Pusher {
	return push.New(url, "go/client").Grouping("path", "/var/tmp").Grouping("empty", "").
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

	gone := push.New(url, "go/client").Grouping("gone", "yes").Collector(gauge("client_gone", 1))
	check(gone.Push())
	check(gone.Delete())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
