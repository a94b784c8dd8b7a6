#!/usr/bin/env python3
"""The page of metrics, read by Prometheus' own client library, and the log, read as logfmt and as
JSON. Functions run behind Unix sockets: what is measured here is the node.

Usage: metrics.py BUILD_DIR"""
import http.server
import json
import os
import re
import shutil
import socketserver
import sys
import tempfile
import threading
import time
import unittest

from node import Node, wait_until

# Debian's modules; python3 may be another one, which does not look there.
sys.path.append("/usr/lib/python3/dist-packages")
try:
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    print("SKIP: no Prometheus client library: apt-get install python3-prometheus-client")
    sys.exit(77)

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
GATEWAY = {"gateway_function_invocation": "counter", "gateway_functions_seconds": "histogram",
           "gateway_function_invocation_started": "counter", "gateway_service_count": "gauge",
           "gateway_function_invocation_inflight": "gauge", "gateway_service_min": "gauge",
           "gateway_service_ready_count": "gauge", "gateway_service_target": "gauge"}
OURS = {"kiln_calls": "counter", "kiln_starts": "counter", "kiln_start_phase_seconds": "histogram",
        "kiln_queue_length": "gauge", "kiln_queue_wait_seconds": "histogram",
        "kiln_instances": "gauge", "kiln_memory_bytes": "gauge", "kiln_cpu_seconds": "counter",
        "kiln_class_runs": "gauge", "kiln_build_info": "gauge", "kiln_disk_free_bytes": "gauge",
        "kiln_store_bytes": "gauge", "process_resident_memory_bytes": "gauge",
        "process_open_fds": "gauge", "process_cpu_seconds": "counter"}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "unix"

    def log_message(self, *args):
        pass

    def do_GET(self):
        code = 404 if self.path == "/missing" else 200
        self.send_response(code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="km", dir="/tmp")
        self.server = Server(os.path.join(self.tmp, "f.sock"), Hello)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.node = None

    def tearDown(self):
        if self.node and self.node.process.poll() is None:
            self.node.kill()
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.tmp)

    def begin(self, *args):
        self.node = Node(BUILD, self.tmp, "--allow-unix-functions", *args).start()
        return self.node

    def deploy(self, name):
        status, body = self.node.ask("POST", "/system/functions", {
            "service": name, "image": os.path.join(self.tmp, "f.sock"),
            "annotations": {"kiln.class": "unix"}})
        self.assertEqual(status, 202, body)

    def page(self):
        """{name: (type, {labels: value})} of every sample, after checks that hold for any page."""
        status, body = self.node.ask("GET", "/metrics")
        self.assertEqual(status, 200)
        text = body.decode()
        for word in ("HELP", "TYPE"):
            begun = re.findall(rf"^# {word} (\S+)", text, re.M)
            self.assertEqual(len(begun), len(set(begun)), f"a family has two {word} lines")
        families, samples = {}, {}
        for family in text_string_to_metric_families(text):
            self.assertNotIn(family.name, families)
            families[family.name] = family.type
            for s in family.samples:
                key = (s.name, tuple(sorted(s.labels.items())))
                self.assertNotIn(key, samples, "a sample stands twice")
                samples[key] = s.value
        return families, samples

    def value(self, samples, name, **labels):
        return samples[(name, tuple(sorted(labels.items())))]


class Metrics(Case):
    def test_the_page_is_what_prometheus_reads(self):
        self.begin()
        self.deploy("f")
        for path in ("/function/f", "/function/f", "/function/f/missing"):
            self.node.ask("GET", path)
        families, samples = self.page()
        for name, kind in {**GATEWAY, **OURS}.items():
            self.assertEqual(families.get(name), kind, name)
        fn = {"function_name": "f.openfaas-fn"}
        self.assertEqual(self.value(samples, "gateway_function_invocation_total", code="200", **fn),
                         2)
        self.assertEqual(self.value(samples, "gateway_function_invocation_total", code="404", **fn),
                         1)
        self.assertEqual(self.value(samples, "gateway_functions_seconds_bucket", code="200",
                                    le="+Inf", **fn), 2)
        self.assertEqual(self.value(samples, "kiln_calls_total", start="cold", **fn), 1)
        self.assertEqual(self.value(samples, "kiln_calls_total", start="warm", **fn), 2)
        self.assertEqual(self.value(samples, "kiln_starts_total", kind="boot", **fn), 1)
        self.assertEqual(self.value(samples, "kiln_instances", state="ready", **fn), 1)
        self.assertEqual(self.value(samples, "kiln_start_phase_seconds_count", **{
            "class": "unix", "kind": "boot", "phase": "ready"}), 1)

    def test_buckets_rise_and_counters_never_fall(self):
        self.begin()
        self.deploy("f")
        before = {}
        for _ in range(3):
            self.node.ask("GET", "/function/f")
            families, samples = self.page()
            for (name, labels), value in samples.items():
                family = re.sub(r"_(total|bucket|sum|count)$", "", name)
                if families.get(family) in ("counter", "histogram"):
                    self.assertGreaterEqual(value, before.get((name, labels), 0), name)
            before = samples
        rows = {}
        for (name, labels), value in before.items():
            if name.endswith("_bucket"):
                rest = tuple(l for l in labels if l[0] != "le")
                rows.setdefault((name, rest), []).append((float(dict(labels)["le"]), value))
        self.assertTrue(rows)
        for key, row in rows.items():
            values = [v for _, v in sorted(row)]
            self.assertEqual(values, sorted(values), key)

    def test_a_removed_function_vanishes(self):
        self.begin()
        self.deploy("f")
        self.deploy("other")
        self.node.ask("GET", "/function/f")
        self.assertEqual(self.node.ask("DELETE", "/system/functions",
                                       {"functionName": "f"})[0], 202)
        _, samples = self.page()
        self.assertFalse([k for k in samples if "f.openfaas-fn" in dict(k[1]).values()])
        self.assertIn(("gateway_service_count", (("function_name", "other.openfaas-fn"),)), samples)

    def test_the_page_needs_a_token(self):
        self.begin()
        self.node.auth = "Basic bm9ib2R5Om5vdGhpbmc="
        self.assertEqual(self.node.ask("GET", "/metrics")[0], 401)


class Log(Case):
    def call(self, path, call_id):
        return self.node.ask("GET", path, X_Call_Id=call_id)[0]

    def lines(self, read):
        return [read(line) for line in self.node.log().splitlines()]

    def check(self, lines):
        """Lines of a node that deployed, was called thrice, removed, and ended."""
        for line in lines:
            self.assertLessEqual({"time", "level", "program", "event"}, set(line))
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertIn(line["level"], ("error", "warn", "info", "debug"))
        events = [line["event"] for line in lines]
        for once in ("ready", "function deployed", "instance ready", "instance stopped",
                     "function removed", "draining", "stopped"):
            self.assertEqual(events.count(once), 1, once)
        calls = {line["call"]: line for line in lines if line["event"] == "call"}
        self.assertEqual(sorted(calls), ["id-0", "id-1", "id-2"])
        self.assertEqual((calls["id-0"]["fn"], calls["id-0"]["start"], calls["id-1"]["start"]),
                         ("f", "cold", "warm"))
        self.assertEqual({str(c["status"]) for c in calls.values()}, {"200"})

    def live(self, log_format):
        self.begin("--log-format", log_format, "--log-level", "debug")
        self.deploy("f")
        for i in range(3):
            self.assertEqual(self.call("/function/f", f"id-{i}"), 200)
        self.node.ask("DELETE", "/system/functions", {"functionName": "f"})
        self.assertTrue(wait_until(lambda: "instance stopped" in self.node.log()))
        self.assertEqual(self.node.stop(), 0)

    def test_json(self):
        self.live("json")
        self.check(self.lines(json.loads))

    def test_logfmt(self):
        def read(line):
            pair = r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "=]+)'
            self.assertRegex(line, rf"^{pair}( {pair})*$")
            return {k: json.loads(v) if v[0] == '"' else v for k, v in re.findall(pair, line)}
        self.live("logfmt")
        self.check(self.lines(read))

    def test_calls_are_not_logged_by_default(self):
        self.begin("--log-format", "json")
        self.deploy("f")
        self.assertEqual(self.call("/function/f", "id-0"), 200)
        self.assertNotIn("id-0", self.node.log())

    def test_failing_calls_do_not_flood_the_log(self):
        self.begin("--log-format", "json")
        self.node.ask("POST", "/system/functions", {
            "service": "f", "image": os.path.join(self.tmp, "nobody.sock"),
            "annotations": {"kiln.class": "unix", "kiln.boot-timeout": "100ms"}})
        began = time.monotonic()
        for i in range(300):
            self.assertIn(self.call("/function/f", f"id-{i}"), (502, 503))
        seconds = time.monotonic() - began
        time.sleep(1.1)
        self.call("/function/f", "last")
        told = [l for l in self.lines(json.loads) if l["event"] == "invocation failed"]
        self.assertLessEqual(len(told), 20 * (seconds + 2))
        self.assertEqual(len(told) + sum(l.get("dropped", 0) for l in told), 301)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
