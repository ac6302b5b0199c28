"""Pushes again and again over pooled connections of requests (urllib3), without retries.

Arguments: the URL of the gateway, the number of pushers, the pushes of each, and the seconds between two.
"""

import sys
import threading
import time

import requests

url, pushers, pushes, interval = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
failures = []


def push(number):
    session = requests.Session()
    for round in range(pushes):
        if round > 0:
            time.sleep(interval)
        try:
            session.put(f"{url}/metrics/job/python/pusher/{number}", data=f"pooled {round}\n").raise_for_status()
        except requests.RequestException as error:
            failures.append(str(error))


threads = [threading.Thread(target=push, args=[number]) for number in range(pushers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"failed {len(failures)} of {pushers * pushes}", *failures[:1])
