"""Publishes one message by the server API, with Python's standard library.

    FANFARE_API=http://127.0.0.1:8001 FANFARE_KEY=… python3 publish.py orders:1 '{"state":"shipped"}'
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid


def publish(channel, data, tries=5):
    # The key makes it the same publication, however often it is sent.
    body = json.dumps({"channel": channel, "data": data, "key": str(uuid.uuid4())}).encode()
    headers = {"Authorization": f"Bearer {os.environ['FANFARE_KEY']}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{os.environ['FANFARE_API']}/api/publish", body, headers)
    for left in reversed(range(tries)):
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            # 503: the broker is away for a moment. Everything else would fail again.
            if error.code != 503 or left == 0:
                raise SystemExit(f"not published: {error.read().decode()}")
            time.sleep(int(error.headers.get("Retry-After", 1)))
        except OSError:
            if left == 0:
                raise
            time.sleep(1)


print(json.dumps(publish(sys.argv[1], json.loads(sys.argv[2]))))
