"""Pushes to the gateway given as the only argument with prometheus_client, as tests/clients/main.rs expects."""
import sys

from prometheus_client import CollectorRegistry, Gauge, Histogram, delete_from_gateway, push_to_gateway, pushadd_to_gateway

url = sys.argv[1]
group = {"path": "/var/tmp", "empty": "", "name": "Προμηθεύς", "space": "a b+c%d"}


def registry(**gauges):
    filled = CollectorRegistry()
    for name, value in gauges.items():
        Gauge(name, "Some help.", registry=filled).set(value)
    return filled


push_to_gateway(url, job="python/client", grouping_key=group, registry=registry(client_old=1))
pushed = registry(client_value=41)
Histogram("client_latency", "Some help.", buckets=(0.1, 1), registry=pushed).observe(0.5)
push_to_gateway(url, job="python/client", grouping_key=group, registry=pushed)
pushadd_to_gateway(url, job="python/client", grouping_key=group, registry=registry(client_value=42, client_added=7))

push_to_gateway(url, job="python/client", grouping_key={"gone": "yes"}, registry=registry(client_gone=1))
delete_from_gateway(url, job="python/client", grouping_key={"gone": "yes"})
