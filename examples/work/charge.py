"""A handler in Python for `redstart work orders billing --exec 'python3 charge.py'`.

The payload is JSON on the standard input, the rest is in the environment. The exit code ends the
attempt: 0 done, 65 dead letter, 69 try again later without counting, any other a failed attempt.
"""

import json
import os
import sys

DATA_ERROR = 65
UNAVAILABLE = 69


def charge(order, message_id):
    """Charges an order. The message's id makes a repeated charge harmless."""
    print(f"charged {order['cents']} cents for {message_id}", flush=True)


def main():
    order = json.load(sys.stdin)
    if "cents" not in order:
        print("an order without a price", file=sys.stderr)
        return DATA_ERROR
    if os.environ.get("BANK") == "closed":
        print("the bank is closed", file=sys.stderr)
        return UNAVAILABLE
    if order.get("flaky") and os.environ["REDSTART_ATTEMPT"] == "1":
        raise RuntimeError("the first attempt fails")
    charge(order, os.environ["REDSTART_MESSAGE_ID"])
    return 0


sys.exit(main())
