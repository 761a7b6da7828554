"""Publishes an order from Python: python3 publish.py shop orders '{"cents":1250}'"""

import json
import os
import sys

import redis

namespace, topic, payload = sys.argv[1:4]
server = redis.Redis.from_url(os.environ["REDSTART_REDIS_URL"])
envelope = {"type": "order.placed", "payload": json.loads(payload)}
print(server.xadd(f"{{{namespace}:{topic}}}:log", {"json": json.dumps(envelope)}).decode())
