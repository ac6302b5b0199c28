"""Pushes to the gateway given as the only argument with prometheus_client, as tests/clients/main.rs expects."""
import os
import sys
from functools import partial

from prometheus_client import CollectorRegistry, Gauge, Histogram, delete_from_gateway, push_to_gateway, pushadd_to_gateway
from prometheus_client.exposition import basic_auth_handler, default_handler


def handler(url, method, timeout, headers, data):
    """Brings what the gateway asks for, if it asks for anything; its authority is in SSL_CERT_FILE."""
    if "PUSH_USER" not in os.environ:
        return default_handler(url, method, timeout, headers, data)
    user, password = os.environ["PUSH_USER"], os.environ["PUSH_PASSWORD"]
    return basic_auth_handler(url, method, timeout, headers, data, user, password)


push_to_gateway = partial(push_to_gateway, handler=handler)
pushadd_to_gateway = partial(pushadd_to_gateway, handler=handler)
delete_from_gateway = partial(delete_from_gateway, handler=handler)

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
