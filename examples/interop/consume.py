"""Reads a topic in Python, as a group of its own: python3 consume.py shop orders mailer"""

import json
import os
import sys

import redis

namespace, topic, group = sys.argv[1:4]
log, me = f"{{{namespace}:{topic}}}:log", f"python-{os.getpid()}"
server = redis.Redis.from_url(os.environ["REDSTART_REDIS_URL"])
try:
    server.xgroup_create(log, group, id="0", mkstream=True)
except redis.ResponseError as error:
    if "BUSYGROUP" not in str(error):
        raise
while True:
    # A consumer that died leaves its messages: any other takes them over after a minute.
    entries = server.xautoclaim(log, group, me, min_idle_time=60_000, count=10)[1]
    for _, fetched in server.xreadgroup(group, me, {log: ">"}, count=10, block=1_000):
        entries += fetched
    for entry, fields in entries:
        message = json.loads(fields[b"json"])
        print(message["type"], json.dumps(message["payload"]), flush=True)
        server.xack(log, group, entry)
