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


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
