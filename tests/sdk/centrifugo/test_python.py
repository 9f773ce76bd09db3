"""The SDK of Centrifugo for Python, unmodified, against three nodes behind nginx with Redis, in both of its formats.

The cluster is that of scripts/sdk-test, which tells where it is by the variables of `scripts/cluster env`.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
import time
import unittest
import urllib.request

from centrifuge import Client, ClientEventHandler, DeltaType, ReplyError, SubscriptionEventHandler

SECRET = os.environ["FANFARE__AUTH__JWT__HMAC_SECRET"]
CLUSTER = os.path.join(os.path.dirname(__file__), "../../../scripts/cluster")
WAIT_SECONDS = 30
FORMATS = {"json": False, "protobuf": True}
LONG = "what is the same in all of them, and is said once"


def signed(claims):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    content = ".".join(part(json.dumps(it).encode()) for it in ({"alg": "HS256"}, claims))
    return f"{content}.{part(hmac.digest(SECRET.encode(), content.encode(), hashlib.sha256))}"


def token(user, lasts=3600, **claims):
    return signed({"sub": user, "exp": int(time.time()) + lasts, **claims})


def fetch(url, body=None):
    body = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=WAIT_SECONDS) as answer:
        return json.load(answer)


async def api(node, method, body):
    return await asyncio.to_thread(fetch, f"{os.environ[f'CLUSTER_NODE_{node}_INTERNAL']}/api/{method}", body)


class Heard(asyncio.Queue):
    """What a client or a subscription has said under these names, in order."""

    def __init__(self, kind, *names):
        super().__init__()
        self.all = []

        def keep(name):
            async def event(ctx):
                self.all.append((name, ctx))
                self.put_nowait((name, ctx))

            return event

        self.events = kind()
        for name in names:
            setattr(self.events, name, keep(name))

    async def until(self, is_so):
        async with asyncio.timeout(WAIT_SECONDS):
            while not is_so(got := await self.get()):
                pass
            return got


class Sdk(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.clients = []
        # A busy machine is nothing to be told of.
        asyncio.get_running_loop().slow_callback_duration = WAIT_SECONDS

    async def asyncTearDown(self):
        for client in self.clients:
            await client.disconnect()

    async def connected(self, node=None, events=None, **options):
        url = os.environ[f"CLUSTER_NODE_{node}_URL" if node else "CLUSTER_URL"]
        address = f"{url.replace('http', 'ws', 1)}/connection/websocket"
        client = Client(address, events=events, max_reconnect_delay=1.0, **options)
        self.clients.append(client)
        await client.connect()
        await client.ready(timeout=WAIT_SECONDS)
        return client

    async def subscribed(self, client, channel, *names, **options):
        heard = Heard(SubscriptionEventHandler, *names)
        subscription = client.new_subscription(channel, events=heard.events, **options)
        await subscription.subscribe()
        await subscription.ready(timeout=WAIT_SECONDS)
        return subscription, heard

    async def holder(self):
        """The node of the only connection, once those before it are gone."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                urls = {node: os.environ[f"CLUSTER_NODE_{node}_URL"] for node in (1, 2, 3)}
                open_on = {node: (await asyncio.to_thread(fetch, f"{url}/status"))["connections"] for node, url in urls.items()}
                if sorted(open_on.values()) == [0, 0, 1]:
                    return max(open_on, key=open_on.get)

    async def test_what_is_published_is_heard_on_another_node_once_and_in_order(self):
        for name, binary in FORMATS.items():
            with self.subTest(name):
                channel = f"room:python-{name}"
                ann = await self.connected(1, token=token("ann"), use_protobuf=binary)
                bob = await self.connected(2, token=token("bob"), use_protobuf=binary)
                _, heard = await self.subscribed(bob, channel, "on_publication")
                room, _ = await self.subscribed(ann, channel)
                say = (lambda it: json.dumps(it).encode()) if binary else (lambda it: it)
                for number in range(20):
                    await room.publish(say({"n": number}))
                await heard.until(lambda it: it[1].pub.offset == 20)
                said = [json.loads(ctx.pub.data) if binary else ctx.pub.data for _, ctx in heard.all]
                self.assertEqual(said, [{"n": number} for number in range(20)])
                self.assertEqual({ctx.pub.info.user for _, ctx in heard.all}, {"ann"})
                past = await room.history(limit=3, reverse=True)
                self.assertEqual([it.offset for it in past.publications], [20, 19, 18])
                there = await room.presence()
                self.assertEqual({it.user for it in there.clients.values()}, {"ann", "bob"})
                stats = await room.presence_stats()
                self.assertEqual((stats.num_clients, stats.num_users), (2, 2))
                answer = (await ann.rpc("price", say("tea"))).data
                self.assertEqual((json.loads(answer) if binary else answer)["of"], "tea")
                for refused, code in (
                    (ann.rpc("cost", say({})), 103),
                    (ann.publish("room:elsewhere", say({})), 103),
                    (ann.history("quiet:1"), 108),
                    (ann.presence("other:1"), 102),
                ):
                    with self.assertRaises(ReplyError) as error:
                        await refused
                    self.assertEqual(error.exception.code, code)

    async def test_who_comes_and_goes_is_told(self):
        for name, binary in FORMATS.items():
            with self.subTest(name):
                channel = f"room:python-joined-{name}"
                ann = await self.connected(1, token=token("ann"), use_protobuf=binary)
                bob = await self.connected(2, token=token("bob", info={"name": "Bob"}), use_protobuf=binary)
                _, heard = await self.subscribed(ann, channel, "on_join", "on_leave", join_leave=True)
                bobs, _ = await self.subscribed(bob, channel)
                _, joined = await heard.until(lambda it: it[0] == "on_join" and it[1].info.user == "bob")
                info = joined.info.conn_info
                self.assertEqual(json.loads(info) if binary else info, {"name": "Bob"})
                await bobs.unsubscribe()
                await heard.until(lambda it: it[0] == "on_leave" and it[1].info.user == "bob")

    async def test_a_private_channel_takes_a_token_of_its_own_which_is_refreshed(self):
        for name, binary in FORMATS.items():
            with self.subTest(name):
                ann = await self.connected(1, token=token("ann"), use_protobuf=binary)
                private = f"$room:python-{name}"
                heard = Heard(SubscriptionEventHandler, "on_unsubscribed")
                refused = ann.new_subscription(private, events=heard.events)
                await refused.subscribe()
                self.assertEqual((await heard.until(lambda it: True))[1].code, 103)
                ann.remove_subscription(refused)
                asked = asyncio.Queue()

                async def get_token(channel):
                    asked.put_nowait(channel)
                    return token("ann", 2 if asked.qsize() == 1 else 3600, channel=channel)

                room, heard = await self.subscribed(ann, private, "on_publication", "on_unsubscribed", get_token=get_token)
                async with asyncio.timeout(WAIT_SECONDS):
                    while asked.qsize() < 2:
                        await asyncio.sleep(0.02)
                await room.presence_stats()  # The refresh has been answered when this is.
                await api(3, "publish", {"channel": private, "data": 1})
                await heard.until(lambda it: it[0] == "on_publication")
                self.assertEqual([name for name, _ in heard.all], ["on_publication"], "and not put out")

    async def test_a_token_of_another_channel_is_the_end(self):
        for name, binary in FORMATS.items():
            with self.subTest(name):
                heard = Heard(ClientEventHandler, "on_disconnected")
                ann = await self.connected(1, events=heard.events, token=token("ann"), use_protobuf=binary)
                await ann.new_subscription("$room:one", token=token("ann", channel="$room:another")).subscribe()
                self.assertEqual((await heard.until(lambda it: True))[1].code, 3500)

    async def test_what_a_token_lists_is_subscribed_to(self):
        for name, binary in FORMATS.items():
            with self.subTest(name):
                channel = f"room:python-listed-{name}"
                heard = Heard(ClientEventHandler, "on_subscribed", "on_publication")
                await self.connected(2, events=heard.events, token=token("ann", channels=[channel]), use_protobuf=binary)
                await heard.until(lambda it: it[0] == "on_subscribed" and it[1].channel == channel and it[1].recoverable)
                await api(1, "publish", {"channel": channel, "data": "hello"})
                _, told = await heard.until(lambda it: it[0] == "on_publication")
                self.assertEqual(json.loads(told.pub.data) if binary else told.pub.data, "hello")

    async def test_what_was_missed_while_a_node_was_killed_is_recovered(self):
        for name, binary in FORMATS.items():
            with self.subTest(name):
                channel = f"room:python-recovered-{name}"
                ann = await self.connected(None, use_protobuf=binary)
                _, heard = await self.subscribed(ann, channel, "on_publication", "on_subscribed", "on_subscribing")
                # The same as differences, each of which needs the one before.
                long = f"{channel}-long"
                _, differences = await self.subscribed(ann, long, "on_publication", delta=DeltaType.FOSSIL)
                victim = await self.holder()
                survivor = victim % 3 + 1

                async def publish(number):
                    await api(survivor, "publish", {"channel": channel, "data": number})
                    await api(survivor, "publish", {"channel": long, "data": {"n": number, "text": LONG}})

                for number in range(10):
                    await publish(number)
                await asyncio.to_thread(subprocess.run, [CLUSTER, "kill-node", str(victim)], check=True)
                await heard.until(lambda it: it[0] == "on_subscribing" and it[1].code != 0)
                for number in range(10, 20):
                    await publish(number)
                _, again = await heard.until(lambda it: it[0] == "on_subscribed" and it[1].was_recovering)
                self.assertTrue(again.recovered)
                await publish(20)
                while sum(name == "on_publication" for name, _ in heard.all) < 21:
                    await heard.until(lambda it: it[0] == "on_publication")
                said = [int(ctx.pub.data) for name, ctx in heard.all if name == "on_publication"]
                self.assertEqual(said, list(range(21)))
                while len(differences.all) < 21:
                    await differences.until(lambda it: True)
                said = [json.loads(ctx.pub.data) if binary else ctx.pub.data for _, ctx in differences.all]
                self.assertEqual(said, [{"n": number, "text": LONG} for number in range(21)])
                await asyncio.to_thread(subprocess.run, [CLUSTER, "restart-node", str(victim)], check=True)
                await ann.disconnect()

    async def test_a_token_is_refreshed_before_it_ends(self):
        for name, binary in FORMATS.items():
            with self.subTest(name):
                asked = asyncio.Queue()

                async def get_token():
                    asked.put_nowait(None)
                    return token("ann", 2 if asked.qsize() == 1 else 3600)

                heard = Heard(ClientEventHandler, "on_disconnected", "on_connecting")
                ann = await self.connected(1, events=heard.events, get_token=get_token, use_protobuf=binary)
                async with asyncio.timeout(WAIT_SECONDS):
                    while asked.qsize() < 2:
                        await asyncio.sleep(0.02)
                await ann.presence_stats("room:python-here")  # The refresh has been answered when this is.
                self.assertEqual([name for name, _ in heard.all], ["on_connecting"])

    async def test_a_backend_sends_a_client_away_for_good(self):
        for name, binary in FORMATS.items():
            with self.subTest(name):
                heard = Heard(ClientEventHandler, "on_disconnected")
                await self.connected(2, events=heard.events, token=token(f"away-{name}"), use_protobuf=binary)
                await api(3, "disconnect", {"user": f"away-{name}"})
                _, ctx = await heard.until(lambda it: it[0] == "on_disconnected")
                self.assertEqual(ctx.code, 3503)


if __name__ == "__main__":
    unittest.main()
