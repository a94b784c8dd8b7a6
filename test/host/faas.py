#!/usr/bin/env python3
"""Every call that faas-cli makes, as it makes it: method, path, fields, body, and the answer that it
waits for. When faas-cli itself is in PATH it does the same in the last test; without it that test
skips, unless KN_DECLARED names faas-cli. The function runs behind a Unix socket, so that this needs
no virtual machine.

Usage: faas.py BUILD_DIR"""
import base64
import http.client
import http.server
import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from node import Node, wait_until

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
NS = "openfaas-fn"


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 256


class Function(http.server.BaseHTTPRequestHandler):
    """Says what it was asked; fails as often as it was told to."""
    protocol_version = "HTTP/1.1"
    fail, seen = [], []

    def address_string(self):
        return "unix"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.path, dict(self.headers), body))
        status = self.fail.pop(0) if self.fail else 200
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.upper())

    do_GET = do_POST


class Callback(http.server.BaseHTTPRequestHandler):
    seen = []

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.path, dict(self.headers), body))
        self.send_response(200)
        self.end_headers()


class Calls(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="kf", dir="/tmp")
        self.socket = os.path.join(self.tmp, "f.sock")
        self.server = UnixServer(self.socket, Function)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Callback)
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()
        Function.fail, Function.seen[:], Callback.seen[:] = [], [], []
        self.node = Node(BUILD, self.tmp, "--allow-unix-functions")
        self.node.start()

    def tearDown(self):
        if self.node.process.poll() is None:
            self.node.kill()
        for s in (self.server, self.listener):
            s.shutdown()
            s.server_close()
        shutil.rmtree(self.tmp)

    def call(self, method, path, body=None, auth=True, **fields):
        """Status, fields, body; a JSON body is sent as the CLI sends it."""
        c = http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=20)
        head = {k.replace("_", "-"): v for k, v in fields.items()}
        if auth:
            head["Authorization"] = self.node.auth
        if isinstance(body, dict):
            body, head["Content-Type"] = json.dumps(body), "application/json"
        c.request(method, path, body, head)
        r = c.getresponse()
        out = r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
        c.close()
        return out

    def deployment(self, name="f", **more):
        """Every field that the CLI fills in."""
        return {"service": name, "image": self.socket, "namespace": NS, "envProcess": "",
                "envVars": {"A": "1"}, "constraints": [], "secrets": [], "labels": {"team": "edge"},
                "annotations": {"kiln.class": "unix"}, "limits": {"memory": "64Mi"},
                "requests": None, "readOnlyRootFilesystem": False, **more}

    def deploy(self, name="f", **more):
        status, _, body = self.call("POST", "/system/functions", self.deployment(name, **more))
        self.assertIn(status, (200, 202), body)

    def test_login(self):
        self.assertEqual(self.call("GET", "/system/functions")[0], 200)
        self.assertEqual(self.call("GET", "/system/functions", auth=False)[0], 401)
        status, _, _ = self.call("GET", "/system/functions", auth=False,
                                 Authorization="Basic YTpi")
        self.assertEqual(status, 401)

    def test_token(self):
        status, _, body = self.call("POST", "/oauth/token", "grant_type=client_credentials",
                                    Content_Type="application/x-www-form-urlencoded")
        self.assertEqual(status, 200)
        bearer = "Bearer " + json.loads(body)["access_token"]
        self.assertEqual(self.call("GET", "/system/functions", auth=False,
                                   Authorization=bearer)[0], 200)

    def test_deploy_updates_or_creates(self):
        # The CLI puts first and posts when it hears 404.
        self.assertEqual(self.call("PUT", "/system/functions", self.deployment())[0], 404)
        self.assertIn(self.call("POST", "/system/functions", self.deployment())[0], (200, 202))
        self.assertIn(self.call("PUT", "/system/functions", self.deployment())[0], (200, 202))

    def test_deploy_replaces(self):
        self.deploy()
        body = {"functionName": "f", "namespace": NS}
        self.assertEqual(self.call("DELETE", "/system/functions", body)[0], 202)
        self.assertIn(self.call("POST", "/system/functions", self.deployment())[0], (200, 202))

    def test_list(self):
        self.assertEqual(json.loads(self.call("GET", "/system/functions")[2]), [])
        self.deploy()
        for path in ("/system/functions", f"/system/functions?namespace={NS}"):
            status, fields, body = self.call("GET", path)
            self.assertEqual((status, fields["content-type"]), (200, "application/json"))
            one, = json.loads(body)
            self.assertLessEqual({"name": "f", "image": self.socket, "namespace": NS,
                                  "invocationCount": 0, "replicas": 0,
                                  "availableReplicas": 0}.items(), one.items())
            self.assertEqual(one["labels"]["team"], "edge")
            self.assertRegex(one["createdAt"], r"^\d{4}-\d\d-\d\dT")

    def test_describe(self):
        self.deploy()
        self.call("POST", f"/function/f.{NS}", b"x", auth=False)
        status, _, body = self.call("GET", "/system/function/f?usage=1")
        self.assertEqual(status, 200)
        one = json.loads(body)
        self.assertEqual((one["name"], one["availableReplicas"], one["invocationCount"]),
                         ("f", 1, 1))
        self.assertLessEqual({"cpu", "totalMemoryBytes"}, set(one["usage"]))
        self.assertEqual(self.call("GET", "/system/function/none?usage=1")[0], 404)

    def test_invoke(self):
        self.deploy()
        status, fields, body = self.call("POST", f"/function/f.{NS}?a=b", b"hello", auth=False,
                                         Content_Type="text/plain")
        self.assertEqual((status, body), (200, b"HELLO"))
        self.assertTrue(fields["x-call-id"] and fields["x-start-time"].isdigit())
        path, head, _ = Function.seen[0]
        self.assertEqual((path, head["Content-Type"]), ("/?a=b", "text/plain"))
        self.assertEqual(self.call("POST", f"/function/none.{NS}", b"x", auth=False)[0], 404)

    def test_remove(self):
        self.deploy()
        body = {"functionName": "f", "namespace": NS}
        self.assertEqual(self.call("DELETE", "/system/functions", body)[0], 202)
        self.assertEqual(self.call("DELETE", "/system/functions", body)[0], 404)

    def test_scale(self):
        self.deploy()
        body = {"serviceName": "f", "replicas": 1, "namespace": NS}
        self.assertEqual(self.call("POST", "/system/scale-function/f", body)[0], 202)
        self.assertTrue(wait_until(lambda: self.node.functions()["f"]["availableReplicas"] == 1))

    def test_logs_are_a_line_of_json_each(self):
        # A function that nobody serves: why its start failed is what its log has.
        self.deploy(image=os.path.join(self.tmp, "nobody.sock"),
                    annotations={"kiln.class": "unix", "kiln.boot-timeout": "300ms"})
        query = f"/system/logs?name=f&namespace={NS}&instance=&tail=-1&since="
        follow = http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=20)
        follow.request("GET", query + "&follow=true", headers={"Authorization": self.node.auth})
        stream = follow.getresponse()
        self.assertEqual(self.call("POST", "/function/f", b"x", auth=False)[0], 502)
        followed = json.loads(stream.readline())
        follow.close()
        status, fields, body = self.call("GET", query + "&follow=false")
        self.assertEqual((status, fields["content-type"]), (200, "application/x-ndjson"))
        line, = [json.loads(l) for l in body.decode().splitlines()]
        self.assertEqual(line, followed)
        self.assertLessEqual({"name": "f", "namespace": NS}.items(), line.items())
        self.assertRegex(line["timestamp"], r"^\d{4}-\d\d-\d\dT")
        self.assertIn("nobody.sock", line["text"])
        self.assertTrue(line["instance"])
        self.assertEqual(self.call("GET", f"/system/logs?name=none&namespace={NS}")[0], 404)

    def test_secrets(self):
        def names():
            status, _, body = self.call("GET", f"/system/secrets?namespace={NS}")
            self.assertEqual(status, 200)
            self.assertNotIn(b"hush", body)
            return [s["name"] for s in json.loads(body)]

        secret = {"name": "key", "namespace": NS, "value": "hush"}
        self.assertEqual(self.call("POST", "/system/secrets", secret)[0], 201)
        self.assertEqual(names(), ["key"])
        raw = {"name": "key", "namespace": NS,
               "rawValue": base64.b64encode(b"hush\0hush").decode()}
        self.assertEqual(self.call("PUT", "/system/secrets", raw)[0], 200)
        self.assertEqual(self.call("DELETE", "/system/secrets",
                                   {"name": "key", "namespace": NS})[0], 202)
        self.assertEqual(names(), [])

    def test_namespaces(self):
        self.assertEqual(json.loads(self.call("GET", "/system/namespaces")[2]), [NS])
        status, _, body = self.call("GET", f"/system/namespace/{NS}")
        self.assertEqual((status, json.loads(body)["name"]), (200, NS))
        self.assertEqual(self.call("GET", "/system/namespace/other")[0], 404)
        for method, path in (("POST", "/system/namespace/"), ("PUT", "/system/namespace/other"),
                             ("DELETE", "/system/namespace/other")):
            status, _, body = self.call(method, path, {"name": "other"})
            self.assertEqual(status, 501, path)
            self.assertIn("one namespace", json.loads(body)["error"])

    def test_ready(self):
        self.assertEqual(self.call("GET", "/healthz", auth=False)[0], 200)

    def test_version(self):
        status, _, body = self.call("GET", "/system/info")
        info = json.loads(body)
        self.assertEqual(status, 200)
        self.assertEqual(info["provider"]["provider"], "kiln")
        self.assertTrue(info["version"]["release"])
        self.assertTrue(info["arch"])

    # -- asynchronous calls

    def later(self, path, body=b"hello", **fields):
        return self.call("POST", path, body, auth=False, **fields)

    def test_async_call_is_made(self):
        self.deploy()
        status, fields, body = self.later(f"/async-function/f.{NS}/sub?q=1", X_Kind="test",
                                          Content_Type="text/plain")
        self.assertEqual((status, body), (202, b""))
        self.assertRegex(fields["x-call-id"], r"^[0-9a-f-]{36}$")
        self.assertTrue(wait_until(lambda: Function.seen))
        path, head, got = Function.seen[0]
        self.assertEqual((path, got, head["X-Kind"]), ("/sub?q=1", b"hello", "test"))
        self.assertEqual(head["X-Call-Id"], fields["x-call-id"])
        time.sleep(0.2)
        self.assertEqual(len(Function.seen), 1)

    def test_async_call_of_nothing_is_refused(self):
        self.assertEqual(self.later("/async-function/none")[0], 404)
        self.deploy()
        self.assertEqual(self.later("/async-function/f", X_Callback_Url="ftp://x")[0], 400)

    def test_async_answer_is_called_back(self):
        self.deploy()
        url = "http://127.0.0.1:%d/done" % self.listener.server_address[1]
        status, fields, _ = self.later("/async-function/f", X_Callback_Url=url)
        self.assertEqual(status, 202)
        self.assertTrue(wait_until(lambda: Callback.seen))
        path, head, body = Callback.seen[0]
        self.assertEqual((path, body), ("/done", b"HELLO"))
        self.assertEqual(head["X-Call-Id"], fields["x-call-id"])
        self.assertEqual((head["X-Function-Name"], head["X-Function-Status"]), ("f", "200"))
        self.assertGreater(float(head["X-Duration-Seconds"]), 0)

    def test_async_call_wakes_and_is_tried_again(self):
        self.deploy()
        Function.fail[:] = [503, 429]
        self.assertEqual(self.later("/async-function/f")[0], 202)
        self.assertTrue(wait_until(lambda: len(Function.seen) == 3, 15))

    def test_async_call_survives_a_kill(self):
        self.deploy()
        Function.fail[:] = [503]    # so that it waits when the node dies
        status, fields, _ = self.later("/async-function/f", b"durable")
        self.assertEqual(status, 202)
        self.assertTrue(wait_until(lambda: Function.seen))
        self.node.kill()
        self.node.start()
        self.assertTrue(wait_until(lambda: len(Function.seen) >= 2, 15))
        _, head, body = Function.seen[-1]
        self.assertEqual((body, head["X-Call-Id"]), (b"durable", fields["x-call-id"]))

    def test_async_needs_a_token_where_calls_do(self):
        self.deploy(annotations={"kiln.class": "unix", "kiln.auth": "token"})
        self.assertEqual(self.later("/async-function/f")[0], 401)
        self.assertEqual(self.call("POST", "/async-function/f", b"x")[0], 202)
        self.assertTrue(wait_until(lambda: Function.seen))
        self.assertNotIn("Authorization", Function.seen[0][1])


class FaasCli(Calls):
    """The same with faas-cli itself."""

    def cli(self, *args, stdin=None, ok=True):
        r = subprocess.run(["faas-cli", *args, "--gateway",
                            f"http://127.0.0.1:{self.node.port}"], input=stdin, text=True,
                           capture_output=True, timeout=60, cwd=self.tmp, check=False,
                           env={**os.environ, "HOME": self.tmp})
        if ok:
            self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        return r.stdout

    def test_a_day_with_faas_cli(self):
        user, password = base64.b64decode(self.node.auth.split()[1]).decode().split(":", 1)
        self.cli("login", "--username", user, "--password-stdin", stdin=password)
        with open(os.path.join(self.tmp, "stack.yaml"), "w") as f:
            f.write("version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n  f:\n"
                    f"    skip_build: true\n    image: {self.socket}\n"
                    "    annotations:\n      kiln.class: unix\n")
        self.cli("deploy", "-f", "stack.yaml")
        self.assertIn("f", self.cli("list"))
        self.assertIn("f", self.cli("describe", "f"))
        self.assertEqual(self.cli("invoke", "f", stdin="hello"), "HELLO")
        self.cli("secret", "create", "key", "--from-literal", "hush")
        self.assertIn("key", self.cli("secret", "list"))
        self.cli("secret", "remove", "key")
        self.cli("logs", "f", "--follow=false")
        self.cli("remove", "f")
        self.assertNotIn(self.socket, self.cli("list"))


def load_tests(loader, tests, pattern):
    """The inherited calls need not run twice."""
    suite = loader.loadTestsFromTestCase(Calls)
    suite.addTest(FaasCli("test_a_day_with_faas_cli"))
    return suite


if not shutil.which("faas-cli") and "faas-cli" not in os.environ.get("KN_DECLARED", "").split():
    FaasCli = unittest.skip("no faas-cli in PATH")(FaasCli)

if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
