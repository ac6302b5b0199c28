"""Pushes to the gateway given as the only argument with aioprometheus, as tests/clients/main.rs expects.

The library writes a space as a plus sign, and does not raise an error for a status: the program checks each answer.
"""
import asyncio
import os
import ssl
import sys

import aiohttp
from aioprometheus import Gauge, Histogram, Registry
from aioprometheus.pusher import Pusher

GROUP = {"path": "/var/tmp", "empty": "", "name": "Προμηθεύς", "space": "a b+c%d"}


def registry(**gauges):
    filled = Registry()
    for name, value in gauges.items():
        Gauge(name, "Some help.", registry=filled).set({}, value)
    return filled


def session():
    """The arguments for the library's HTTP session: what the gateway asks for, if it asks for anything."""
    if "PUSH_USER" not in os.environ:
        return {}
    context = ssl.create_default_context(cafile=os.environ["PUSH_CA"])
    auth = aiohttp.BasicAuth(os.environ["PUSH_USER"], os.environ["PUSH_PASSWORD"])
    return {"connector": aiohttp.TCPConnector(ssl=context), "auth": auth}


async def checked(answer):
    response = await answer
    if response.status not in (200, 202):
        raise SystemExit(f"{response.method} {response.url}: {response.status}")


async def main():
    pusher = Pusher("aio/client", sys.argv[1], GROUP)
    await checked(pusher.replace(registry(client_old=1), **session()))
    pushed = registry(client_value=41)
    Histogram("client_latency", "Some help.", buckets=[0.1, 1.0], registry=pushed).observe({}, 0.5)
    await checked(pusher.replace(pushed, **session()))
    await checked(pusher.add(registry(client_value=42, client_added=7), **session()))

    gone = Pusher("aio/client", sys.argv[1], {"gone": "yes"})
    await checked(gone.replace(registry(client_gone=1), **session()))
    await checked(gone.delete(registry(), **session()))


asyncio.run(main())
