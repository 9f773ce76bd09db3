"""The MessagePack of the gateway, as an independent client reads it: Python's `msgpack` over `websockets`.

    FANFARE_URL=http://127.0.0.1:8000 FANFARE_INTERNAL_URL=http://127.0.0.1:8001 python -m unittest

Both belong to one gateway that lets anonymous clients join any channel (the default configuration).
"""

import base64
import json
import os
import unittest
import urllib.request
import uuid
from datetime import datetime, timezone

import msgpack
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

URL = os.environ["FANFARE_URL"].replace("http", "ws", 1) + "/ws"
API = os.environ["FANFARE_INTERNAL_URL"] + "/api/"
PATIENCE = 30


class Peer:
    """A client in one of the formats, whose answers are told from messages by their id."""

    def __init__(self, subprotocol, pack, unpack):
        self.socket = connect(URL, subprotocols=[subprotocol], max_size=None)
        assert self.socket.subprotocol == subprotocol
        self.pack, self.unpack, self.asked, self.waiting = pack, unpack, 0, []
        self.welcome = self.hear()

    def hear(self):
        return self.unpack(self.socket.recv(timeout=PATIENCE))

    def ask(self, kind, **fields):
        self.asked += 1
        self.socket.send(self.pack({"type": kind, "id": self.asked, **fields}))
        while (event := self.hear()).get("id") != self.asked:
            self.waiting.append(event)
        return event

    def message(self):
        return self.waiting.pop(0) if self.waiting else self.hear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def packed():
    """A client of MessagePack: strict, so that text is text and bytes are bytes."""
    return Peer(
        "fanfare.v1.msgpack",
        lambda it: msgpack.packb(it, datetime=True),
        lambda it: msgpack.unpackb(it, raw=False, timestamp=3, strict_map_key=False),
    )


def plain():
    """A client of JSON."""
    return Peer("fanfare.v1.json", json.dumps, json.loads)


def call(method, **fields):
    request = urllib.request.Request(API + method, json.dumps(fields).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


class Formats(unittest.TestCase):
    def setUp(self):
        self.channel = f"room:{uuid.uuid4()}"

    def test_what_is_published_in_messagepack_is_heard_in_both(self):
        noise = os.urandom(40_000)
        cases = [
            (noise, {"$binary": base64.b64encode(noise).decode()}),
            (b"", {"$binary": ""}),
            ({"a": [1, -1, 2**64 - 1, -(2**63)], "b": b"\xff"}, {"a": [1, -1, 2**64 - 1, -(2**63)], "b": {"$binary": "/w=="}}),
            (1.5, 1.5),
            (float("inf"), None),
            ("ü€😀\0\n\"\\", "ü€😀\0\n\"\\"),
            ({7: "seven", None: 2, True: 3}, {"7": "seven", "null": 2, "true": 3}),
            (msgpack.ExtType(5, b"\1\2"), {"$ext": [5, "AQI="]}),
            (datetime(2026, 1, 1, 12, 30, 0, 250_000, timezone.utc), "2026-01-01T12:30:00.25Z"),
            (datetime(1950, 2, 28, tzinfo=timezone.utc), "1950-02-28T00:00:00Z"),
        ]
        with packed() as publisher, packed() as one, plain() as other:
            for peer in (one, other):
                self.assertEqual(peer.ask("subscribe", channel=self.channel)["type"], "subscribed")
            for offset, (value, translated) in enumerate(cases, 1):
                answer = publisher.ask("publish", channel=self.channel, data=value)
                self.assertEqual((answer["type"], answer["offset"]), ("published", offset))
                for peer, data in ((one, value), (other, translated)):
                    event = peer.message()
                    self.assertEqual((event["data"], event["offset"]), (data, offset))
            page = one.ask("history", channel=self.channel)
            self.assertEqual([it["data"] for it in page["messages"]], [value for value, _ in cases])
        page = call("history", channel=self.channel)
        self.assertEqual([it["data"] for it in page["messages"]], [translated for _, translated in cases])

    def test_what_a_backend_publishes_as_json_is_heard_in_messagepack(self):
        values = [
            None, True, 0, 127, 128, 65536, -32, -33, 2**63, 1.0, 1e300, "", "x" * 300, "ü😀",
            [[], {}, list(range(100))], {"k" * 300: {"deep": [{"er": None}]}},
        ]
        with packed() as peer:
            peer.ask("subscribe", channel=self.channel)
            for value in values:
                call("publish", channel=self.channel, data=value)
                heard = peer.message()["data"]
                self.assertEqual((heard, type(heard)), (value, type(value)))

    def test_what_a_backend_publishes_in_base64_is_bytes(self):
        with packed() as peer:
            peer.ask("subscribe", channel=self.channel)
            call("publish", channel=self.channel, data_base64=base64.b64encode(b"\0\xff").decode())
            self.assertEqual(peer.message()["data"], b"\0\xff")

    def test_what_was_missed_is_replayed(self):
        with packed() as peer:
            at = peer.ask("subscribe", channel=self.channel)
            since = {"epoch": at["epoch"], "offset": at["offset"]}
        with packed() as publisher:
            for number in range(20):
                publisher.ask("publish", channel=self.channel, data={"n": number, "bytes": bytes([number])})
        with packed() as peer:
            self.assertTrue(peer.ask("subscribe", channel=self.channel, since=since)["recovered"])
            for number in range(20):
                event = peer.message()
                self.assertEqual(event["data"], {"n": number, "bytes": bytes([number])})
                self.assertTrue(event["recovered"])

    def test_batches_and_mistakes_are_answered(self):
        with packed() as peer:
            peer.socket.send(msgpack.packb([{"type": "ping", "id": "a"}, {"type": "shout", "id": 2}, {"type": "ping", "id": 3}]))
            self.assertEqual([(it["type"], it["id"]) for it in (peer.hear(), peer.hear(), peer.hear())],
                             [("pong", "a"), ("error", 2), ("pong", 3)])
            for noise in (b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91" * 1000, b"\x81\xa4type\xa1\xff"):
                peer.socket.send(noise)
                self.assertEqual(peer.hear()["code"], 4400)
            peer.socket.send("{}")
            self.assertEqual((event := peer.hear())["type"], "closing", event)
            with self.assertRaises(ConnectionClosed) as closed:
                peer.hear()
            self.assertEqual(closed.exception.rcvd.code, 1003)


if __name__ == "__main__":
    unittest.main()
