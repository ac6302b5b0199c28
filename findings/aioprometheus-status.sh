#!/usr/bin/env bash
# aioprometheus returns the response of a push without looking at its status: a refused push raises nothing.
# Versions: aioprometheus 23.12.0 with aiohttp 3.13.2 (PyPI). Needs: python3 with venv.
# Does: pushes to a server that answers 400, and prints what the caller gets.
# Output:
#   returned with status 400
#   PUT /metrics/job/build
. "$(dirname "$0")/common.sh"
record 400
python_with 'aioprometheus[aiohttp]==23.12.0'
venv/bin/python - "http://127.0.0.1:$port" > said <<'END'
import asyncio
import sys
from aioprometheus import Gauge, Registry
from aioprometheus.pusher import Pusher


async def main():
    registry = Registry()
    Gauge("seconds", "Some help.", registry=registry).set({}, 1)
    response = await Pusher("build", sys.argv[1]).replace(registry)
    print("returned with status", response.status)


asyncio.run(main())
END
{ cat said; cat requests; } | check
