"""The library of Pusher for backends in Python, unmodified: what it triggers is heard, what it signs is taken, what it asks is answered.

The cluster is that of scripts/sdk-test, which tells where it is by the variables of `scripts/cluster env`.
"""

import base64
import json
import os
import secrets
import time
import unittest
from urllib.parse import urlsplit
from urllib.request import urlopen

import nacl.secret
import pusher
from pusher.errors import PusherBadAuth
from websockets.sync.client import connect

INTERNAL = urlsplit(os.environ["CLUSTER_NODE_2_INTERNAL"])
CLIENTS = os.environ["CLUSTER_URL"].replace("http", "ws", 1) + "/app/shop-key?protocol=7"
WAIT_SECONDS = 30


def backend(secret="shop-secret", **options):
    place = {"ssl": False, "host": INTERNAL.hostname, "port": INTERNAL.port}
    return pusher.Pusher(app_id="4711", key="shop-key", secret=secret, **place, **options)


class Client:
    """Whoever the backend admits, spoken for by hand."""

    def __init__(self, test):
        self.socket = connect(CLIENTS)
        test.addCleanup(self.socket.close)
        self.id = self.until("pusher:connection_established")["data"]["socket_id"]

    def send(self, event, data):
        self.socket.send(json.dumps({"event": event, "data": data}))

    def until(self, *names):
        """The next event of one of these names, its data taken apart."""
        while True:
            event = json.loads(self.socket.recv(timeout=WAIT_SECONDS))
            if event["event"] in names:
                return {**event, "data": json.loads(event["data"]) if isinstance(event["data"], str) else event["data"]}

    def subscribe(self, channel, **signed):
        self.send("pusher:subscribe", {"channel": channel, **signed})
        return self.until("pusher_internal:subscription_succeeded", "pusher:subscription_error")


class Backend(unittest.TestCase):
    def test_events_are_heard_that_are_triggered_one_by_one_and_in_batches(self):
        client = Client(self)
        for channel in ("news-py", "more-py"):
            client.subscribe(channel)
        self.assertEqual(backend().trigger(["news-py", "more-py"], "e", {"text": "é"}), {})
        heard = [client.until("e") for _ in range(2)]
        self.assertEqual({it["channel"] for it in heard}, {"news-py", "more-py"})
        self.assertEqual([it["data"] for it in heard], [{"text": "é"}] * 2)
        events = [{"channel": "news-py", "name": "e", "data": number} for number in range(10)]
        self.assertEqual(backend().trigger_batch(events), {})
        self.assertEqual([client.until("e")["data"] for _ in range(10)], list(range(10)))
        # Whose socket it names does not hear it.
        backend().trigger("news-py", "e", 100, socket_id=client.id)
        backend().trigger("news-py", "e", 101)
        self.assertEqual(client.until("e")["data"], 101)

    def test_a_private_channel_takes_what_it_signs_and_nothing_else(self):
        client = Client(self)
        refused = client.subscribe("private-py", auth=f"shop-key:{'0' * 64}")
        self.assertEqual((refused["event"], refused["data"]["status"]), ("pusher:subscription_error", 401))
        signed = backend().authenticate("private-py", client.id)
        self.assertEqual(client.subscribe("private-py", **signed)["event"], "pusher_internal:subscription_succeeded")
        other = Client(self)
        stolen = other.subscribe("private-py", **signed)
        self.assertEqual(stolen["data"]["status"], 401, "it was signed for another socket")
        backend().trigger("private-py", "e", 1)
        self.assertEqual(client.until("e")["data"], 1)

    def test_who_is_on_a_presence_channel_is_whom_it_signs(self):
        client = Client(self)
        signed = backend().authenticate("presence-py", client.id, {"user_id": "ann", "user_info": {"name": "Ann"}})
        told = client.subscribe("presence-py", **signed)["data"]["presence"]
        self.assertEqual(told, {"count": 1, "ids": ["ann"], "hash": {"ann": {"name": "Ann"}}})
        self.assertEqual(backend().users_info("presence-py"), {"users": [{"id": "ann"}]})
        answer = backend().channel_info("presence-py", ["user_count", "subscription_count"])
        self.assertEqual(answer, {"occupied": True, "user_count": 1, "subscription_count": 1})
        listed = backend().channels_info("presence-", ["user_count"])["channels"]
        self.assertEqual(listed["presence-py"], {"user_count": 1})
        answer = backend().channel_info("presence-nobody", ["user_count", "subscription_count"])
        self.assertEqual(answer, {"occupied": False, "user_count": 0, "subscription_count": 0})

    def test_users_are_spoken_to_who_have_signed_in(self):
        # Its `terminate_user_connections` leaves the application out of the path, and fails at Pusher as well.
        client = Client(self)
        client.send("pusher:signin", backend().authenticate_user(client.id, {"id": "ann-py"}))
        client.until("pusher:signin_success")
        client.subscribe("#server-to-user-ann-py")
        self.assertEqual(backend().send_to_user("ann-py", "hello", {"a": 1}), {})
        self.assertEqual(client.until("hello")["data"], {"a": 1})

    def test_what_it_encrypts_is_passed_on_as_it_is(self):
        keeper = backend(encryption_master_key_base64=base64.b64encode(secrets.token_bytes(32)).decode())
        client = Client(self)
        signed = keeper.authenticate("private-encrypted-py", client.id)
        key = base64.b64decode(signed.pop("shared_secret"))
        client.subscribe("private-encrypted-py", **signed)
        keeper.trigger("private-encrypted-py", "e", {"text": "é"})
        sealed = {name: base64.b64decode(it) for name, it in client.until("e")["data"].items()}
        opened = nacl.secret.SecretBox(key).decrypt(sealed["ciphertext"], sealed["nonce"])
        self.assertEqual(json.loads(opened), {"text": "é"})

    def test_another_secret_is_refused(self):
        with self.assertRaises(PusherBadAuth):
            backend(secret="another").trigger("news-py", "e", 1)

    def test_webhooks_are_valid_as_they_came_and_not_otherwise(self):
        channel = f"news-py-{secrets.token_hex(4)}-audited"
        Client(self).subscribe(channel)
        deadline = time.monotonic() + WAIT_SECONDS
        for place in ("4711", "audit"):
            told = []
            while not told and time.monotonic() < deadline:
                with urlopen(os.environ["FANFARE_APPLICATION_URL"] + place, timeout=WAIT_SECONDS) as answer:
                    told = [it for it in json.load(answer) if channel in it["body"]]
                time.sleep(0 if told else 0.05)  # Between two questions, not for what is waited for.
            self.assertTrue(told, f"nothing has come to {place}")
            it = told[0]
            key, signature = it["headers"]["x-pusher-key"], it["headers"]["x-pusher-signature"]
            valid = backend().validate_webhook(key, signature, it["body"])
            self.assertIn({"name": "channel_occupied", "channel": channel}, valid["events"])
            self.assertIsNone(backend().validate_webhook(key, signature, it["body"].replace("channel", "chamel")))
            self.assertIsNone(backend(secret="another").validate_webhook(key, signature, it["body"]))


if __name__ == "__main__":
    unittest.main()
