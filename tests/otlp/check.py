"""A collector that reads what nodes tell it by OpenTelemetry's own definitions, and says what is missing or wrong.

    check.py FANFARE REDIS_URL
"""

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PATIENCE = 60
spans, changed, refusals = [], threading.Condition(), []


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with changed:
            refused = refusals.pop() if refusals else None
        if refused:
            return self.answer(refused, b"")
        assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf", self.path
        assert self.headers["Authorization"] == "Bearer for-the-collector", self.headers["Authorization"]
        request = ExportTraceServiceRequest.FromString(body)
        assert request.SerializeToString() == body, "it is spelt as the library spells it"
        with changed:
            for of_resource in request.resource_spans:
                resource = facts(of_resource.resource.attributes)
                assert resource["service.name"] == "fanfare" and resource["service.version"], resource
                for of_scope in of_resource.scope_spans:
                    assert of_scope.scope.name == "fanfare"
                    spans.extend((resource["service.instance.id"], span) for span in of_scope.spans)
            changed.notify_all()
        self.answer(200, ExportTraceServiceResponse().SerializeToString())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def facts(attributes):
    return {it.key: it.value.string_value or it.value.int_value for it in attributes}


def find(what, is_it):
    """The first span that is it, once it is there."""
    end = time.monotonic() + PATIENCE
    with changed:
        while True:
            for node, span in spans:
                if is_it(node, span):
                    return node, span
            if not changed.wait(end - time.monotonic()):
                seen = [(node, span.name, span.trace_id.hex(), facts(span.attributes)) for node, span in spans]
                sys.exit(f"no span of {what} among {seen}")


class Node:
    def __init__(self, fanfare, redis, name, collector):
        settings = [
            f"node.name={name}", "listen.public=127.0.0.1:0", "listen.internal=127.0.0.1:0", "log.format=json", "log.level=debug",
            "broker.kind=redis", f"redis.urls={redis}", "auth.anonymous=true", "node.drain_seconds=1", f"tracing.url={collector}",
            "tracing.authorization=Bearer for-the-collector", "tracing.one_in=1",
        ]
        command = [fanfare] + [word for it in settings for word in ("--set", it)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.log = []
        for line in self.process.stderr:
            serving = json.loads(line)
            if serving.get("message") == "serving":
                break
        else:
            sys.exit(f"{name} does not start")
        self.public, self.internal = (f"http://{serving[it]}" for it in ("public", "internal"))
        threading.Thread(target=self.read_log, daemon=True).start()

    def read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def call(self, method, body, **headers):
        request = urllib.request.Request(f"{self.internal}/api/{method}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)


def check(nodes, fanfare):
    one, two = nodes
    hearing = urllib.request.urlopen(f"{two.public}/stream?channel=room:1", timeout=PATIENCE)
    assert b"subscribed" in hearing.readline() + hearing.readline()
    with changed:
        refusals.append(503)  # It is told again.
    one.call("publish", {"channel": "room:1", "data": 1}, traceparent=f"00-{TRACE}-{SPAN}-01")
    of_trace = lambda span: span.trace_id.hex() == TRACE
    _, call = find("the call", lambda node, span: node == "node-1" and of_trace(span) and span.parent_span_id.hex() == SPAN)
    assert call.kind == 2 and facts(call.attributes)["http.response.status_code"] == 200, call
    _, published = find("the publication", lambda node, span: span.parent_span_id == call.span_id and span.name == "publish")
    assert facts(published.attributes)["fanfare.channel"] == "room:1" and facts(published.attributes)["fanfare.by"] == "api", published
    _, handed_on = find("handing it on, on the other node", lambda node, span: node == "node-2" and span.parent_span_id == published.span_id)
    assert handed_on.kind == 5 and handed_on.trace_id.hex() == TRACE and facts(handed_on.attributes)["fanfare.receivers"] == 1, handed_on
    for span in (call, published, handed_on):
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano, span
    assert call.start_time_unix_nano <= published.start_time_unix_nano and published.end_time_unix_nano <= call.end_time_unix_nano
    # Whoever says that it is not recorded is believed, and what a client does begins a trace of its own.
    other = TRACE[::-1]
    one.call("publish", {"channel": "room:1", "data": 2}, traceparent=f"00-{other}-{SPAN}-00")
    subprocess.run([fanfare, "publish", "--url", f"{one.public.replace('http', 'ws')}/ws", "room:1", "3"], check=True, stdout=subprocess.DEVNULL)
    _, by_client = find("a client's publication", lambda node, span: facts(span.attributes).get("fanfare.by") == "client")
    assert facts(by_client.attributes)["fanfare.session"] and not by_client.parent_span_id, by_client
    find("the subscription", lambda node, span: node == "node-2" and span.name == "subscribe")
    with changed:
        assert not any(span.trace_id.hex() == other for _, span in spans), "it was not to be recorded"
    try:
        one.call("publish", {"channel": "a b", "data": 1}, traceparent=f"00-{TRACE}-{'1' * 16}-01")
    except urllib.error.HTTPError as error:
        assert error.code == 400
    find("what was refused", lambda node, span: facts(span.attributes).get("http.response.status_code") == 400)
    end = time.monotonic() + PATIENCE
    while not any(TRACE in line for line in list(one.log)):
        assert time.monotonic() < end, "the log names no trace"
        time.sleep(0.05)


def main():
    fanfare, redis = sys.argv[1:]
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    nodes = []
    try:
        nodes += [Node(fanfare, redis, "node-1", url)]
        nodes += [Node(fanfare, redis, "node-2", url)]
        check(nodes, fanfare)
    finally:
        for node in nodes:
            node.process.kill()
    print(f"{len(spans)} spans, each as OpenTelemetry defines it")


main()
