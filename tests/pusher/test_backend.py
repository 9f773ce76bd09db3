"""Pusher's HTTP library for Python against a gateway: what it triggers, asks and signs is understood."""

import json
import os
import unittest
from urllib.parse import urlsplit
from urllib.request import urlopen

import pusher
from pusher.errors import PusherBadAuth

INTERNAL = urlsplit(os.environ["FANFARE_INTERNAL_URL"])


def backend(secret="shop-secret"):
    return pusher.Pusher(
        app_id="4711", key="shop-key", secret=secret, ssl=False, host=INTERNAL.hostname, port=INTERNAL.port
    )


class Backend(unittest.TestCase):
    def test_events_are_triggered_one_by_one_and_in_batches(self):
        self.assertEqual(backend().trigger(["news-py", "private-py"], "e", {"text": "é"}), {})
        events = [{"channel": "news-py", "name": "e", "data": number} for number in range(10)]
        self.assertEqual(backend().trigger_batch(events), {})

    def test_channels_are_told_of(self):
        answer = backend().channel_info("presence-nobody", ["user_count", "subscription_count"])
        self.assertEqual(answer, {"occupied": False, "user_count": 0, "subscription_count": 0})
        self.assertIn("channels", backend().channels_info("presence-", ["user_count"]))
        self.assertEqual(backend().users_info("presence-nobody"), {"users": []})

    def test_users_are_spoken_to(self):
        # Its `terminate_user_connections` leaves the application out of the path, and fails at Pusher as well.
        self.assertEqual(backend().send_to_user("ann", "hello", {"a": 1}), {})

    def test_another_secret_is_refused(self):
        with self.assertRaises(PusherBadAuth):
            backend(secret="another").trigger("news-py", "e", 1)

    def test_webhooks_are_valid_as_they_came_and_not_otherwise(self):
        # The tests for Node.js have caused some, at both places of the application.
        webhooks = []
        for place in ("4711", "audit"):
            with urlopen(os.environ["FANFARE_RECORDER_URL"] + place, timeout=10) as answer:
                there = json.load(answer)[-5:]  # The library takes those of the last five minutes.
            self.assertTrue(there)
            webhooks += there
        for it in webhooks:
            key, signature = it["headers"]["x-pusher-key"], it["headers"]["x-pusher-signature"]
            told = backend().validate_webhook(key, signature, it["body"])
            self.assertTrue(told["events"])
            self.assertIsNone(backend().validate_webhook(key, signature, it["body"].replace("channel", "chamel")))
            self.assertIsNone(backend(secret="another").validate_webhook(key, signature, it["body"]))


if __name__ == "__main__":
    unittest.main()
