"""The libraries for Python, for crosses.test.mjs: both formats of centrifuge-python hear a channel, and they and Pusher's for backends publish.

    voices.py CHANNEL TOKEN

Each line of its output is {"ear": …, "data": …}, but for the first, which names the ears once they are subscribed. Each line of its
input is {"by": …, "data": …}; it ends with its input.
"""

import asyncio
import json
import os
import sys
from urllib.parse import urlsplit

import pusher
from centrifuge import Client, SubscriptionEventHandler

CHANNEL, TOKEN = sys.argv[1:]
FORMATS = {"json": False, "protobuf": True}
WAIT_SECONDS = 30


def tell(**line):
    print(json.dumps(line), flush=True)


class Ear(SubscriptionEventHandler):
    def __init__(self, name, binary):
        self.name, self.binary = name, binary

    async def on_publication(self, ctx):
        tell(ear=self.name, data=json.loads(ctx.pub.data) if self.binary else ctx.pub.data)


async def main():
    address = os.environ["CLUSTER_URL"].replace("http", "ws", 1) + "/connection/websocket"
    application, channel = CHANNEL.split(":")
    place = urlsplit(os.environ["CLUSTER_NODE_3_INTERNAL"])
    backend = pusher.Pusher(
        app_id=application, key="shop-key", secret="shop-secret", ssl=False, host=place.hostname, port=place.port
    )
    publishers = {
        "the HTTP library of Pusher for Python": lambda data: asyncio.to_thread(backend.trigger, channel, "message", data)
    }
    clients = []
    for name, binary in FORMATS.items():
        client = Client(address, token=TOKEN, use_protobuf=binary)
        clients.append(client)
        await client.connect()
        subscription = client.new_subscription(CHANNEL, events=Ear(f"centrifuge-python, {name}", binary))
        await subscription.subscribe()
        await subscription.ready(timeout=WAIT_SECONDS)
        say = (lambda data: json.dumps(data).encode()) if binary else (lambda data: data)
        publishers[f"centrifuge-python, {name}"] = lambda data, it=subscription, say=say: it.publish(say(data))
    tell(ears=[f"centrifuge-python, {name}" for name in FORMATS])
    while line := await asyncio.to_thread(sys.stdin.readline):
        told = json.loads(line)
        await publishers[told["by"]](told["data"])
    for client in clients:
        await client.disconnect()


asyncio.run(main())
