#!/usr/bin/env python3
"""`kiln` as a stranger meets it: every verb against a node that is played here, wrong arguments,
missing files, a node that is not there, tokens that expire, replies that lie.

Usage: cli.py BUILD_DIR"""
import base64
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
import urllib.parse

KILN = os.path.abspath(os.path.join(sys.argv[1] if len(sys.argv) > 1 else "build", "kiln"))
CLIENT, SECRET = "admin", "s3cret/with:odd chars"


class Node(http.server.BaseHTTPRequestHandler):
    """The paths of a node that the verbs use; what came in is kept for the tests."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"", headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            out = b""
            while size := int(self.rfile.readline(), 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def token(self):
        want = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if self.headers.get("Authorization") != want:
            return self.reply(401, {"error": "invalid_client"})
        self.server.tokens += 1
        self.reply(200, {"access_token": f"t{self.server.tokens}", "token_type": "Bearer",
                         "expires_in": self.server.expires_in})

    def handle_any(self):
        s = self.server
        body = self.body()
        path, _, query = self.path.partition("?")
        s.seen.append((self.command, self.path, dict(self.headers), body))
        if path == "/oauth/token":
            return self.token()
        if path in s.canned:
            return s.canned[path](self, body)
        if self.headers.get("Authorization") != f"Bearer t{s.tokens}":
            return self.reply(401, {"error": "no token"})
        if path == "/system/functions" and self.command == "GET":
            return self.reply(200, [{"name": "telemetry", "image": "telemetry:latest",
                                     "availableReplicas": 1, "invocationCount": 12,
                                     "kiln": {"class": "microvm",
                                              "invocations": {"cold": 2}}}])
        if path == "/system/functions" and self.command in ("PUT", "POST", "DELETE"):
            name = json.loads(body).get("service") or json.loads(body).get("functionName")
            if self.command == "PUT" and s.only_post or name == "absent":
                return self.reply(404, {"error": f"no function '{name}'"})
            if name == "refused":
                return self.reply(400, {"error": "image 'x' is not in the store",
                                        "hint": "kiln image import PATH --name x"})
            return self.reply(202)
        if path == "/system/function/f":
            s.polls += 1
            return self.reply(200, {"availableReplicas": s.polls - 1,
                                    "kiln": {"scale": {"min": 2, "max": 4}}})
        if path == "/system/function/bad":
            return self.reply(200, {"kiln": {"scale": {"min": 1}, "lastError": "no such program"}})
        if path == "/kiln/v1/functions/telemetry":
            return self.reply(200, {
                "name": "telemetry", "image": "telemetry:latest", "createdAt": "2026-01-01T00:00:00Z",
                "envVars": {"A": "b\x1b"}, "usage": {"cpu": 12, "totalMemoryBytes": 90000000},
                "kiln": {"class": "microvm", "contract": "http", "port": 8080, "auth": "token",
                         "hypervisor": "QEMU with TCG", "hypervisorReason": "no KVM",
                         "instances": {"total": 1, "ready": 1, "busy": 0}, "waiting": 0,
                         "invocations": {"total": 3, "cold": 1, "warm": 2},
                         "lastColdStart": {"at": "2026-01-01T00:00:00Z", "ms": 1240.5,
                                           "phases": [{"name": "boot", "ms": 1200}]},
                         "lastError": "exited with code 3"},
                "instances": [{"id": "telemetry-1", "state": "ready", "served": 3,
                               "started": "2026-01-01T00:00:00Z", "startMs": 1240.5}]})
        if path == "/system/secrets":
            if self.command == "GET":
                return self.reply(200, [{"name": "key", "namespace": "openfaas-fn"}])
            if json.loads(body)["name"] == "there":
                return self.reply(409, {"error": "there is a secret 'there' already",
                                        "hint": "kiln secret update"})
            return self.reply({"POST": 201, "PUT": 200, "DELETE": 202}[self.command])
        if path == "/system/scale-function/f":
            return self.reply(202, {"name": "f", "replicas": 1})
        if path == "/system/function/rolled":
            return self.reply(200, {"availableReplicas": 1, "kiln": {
                "scale": {"min": 0, "max": 1},
                "update": {"state": "failed", "error": "exited with code 3"}}})
        if path == "/kiln/v1/images" and self.command == "GET":
            return self.reply(200, [{"name": "a:latest", "digest": "sha256:" + "ab" * 32,
                                     "kind": "container", "bytes": 12400000}])
        if path == "/kiln/v1/images" and self.command == "POST":
            return self.reply(201, {"name": "a:latest", "digest": "sha256:" + "ab" * 32,
                                    "kind": "container", "bytes": len(body)})
        if path == "/kiln/v1/images" and self.command == "DELETE":
            return self.reply(204)
        if path == "/function/echo":
            return self.reply(200, body, [("X-Kiln-Start", "cold"), ("X-Call-Id", "c1"),
                                          ("Server-Timing", "queue;dur=0.100, boot;dur=900.000, odd")])
        if path == "/function/broken":
            return self.reply(418, b"I am a teapot\n", [("X-Kiln-Start", "warm")])
        return self.reply(404, {"error": f"no function at {path}\x1b[31m",
                                "hint": "see kiln list"})

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Node)
        self.server.daemon_threads = True
        self.server.seen, self.server.canned = [], {}
        self.server.only_post, self.server.polls = False, 0
        self.server.tokens, self.server.expires_in = 0, 3600
        self.server.handle_error = lambda *args: None   # a client that left
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.env = {"HOME": self.tmp.name, "PATH": os.environ["PATH"],
                    "http_proxy": "http://127.0.0.1:1"}

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()
        self.tmp.cleanup()

    def kiln(self, *args, stdin=b"", env=None, gateway=True):
        env = dict(self.env, **(env or {}))
        if gateway:
            env.setdefault("KILN_GATEWAY", self.url)
        return subprocess.run([KILN, *args], input=stdin, env=env, cwd=self.tmp.name,
                              capture_output=True, timeout=30)

    def login(self):
        r = self.kiln("login", "--client-id", CLIENT, "--client-secret-stdin",
                      stdin=SECRET.encode() + b"\n")
        self.assertEqual(r.returncode, 0, r.stderr)
        return r

    def config(self):
        return os.path.join(self.tmp.name, ".config/kiln/config.json")

    def path(self, name, data):
        path = os.path.join(self.tmp.name, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def told(self, r, code, *words):
        self.assertEqual(r.returncode, code, r)
        for word in words:
            self.assertIn(word, r.stderr.decode())
        self.assertTrue(r.stderr.endswith(b"\n"))
        self.assertNotIn(b"\x1b", r.stderr)


class Usage(Case):
    def verbs(self):
        page = self.kiln("--help").stdout.decode()
        rows = page.split("Commands:\n")[1].split("\n\n")[0].splitlines()
        return [row[2:].split("  ")[0].strip().split() for row in rows]

    def test_every_verb_teaches(self):
        verbs = self.verbs()
        self.assertGreater(len(verbs), 7)
        for verb in verbs:
            r = self.kiln(*verb, "--help")
            self.assertEqual(r.returncode, 0, verb)
            self.assertIn(b"Usage: kiln " + " ".join(verb).encode(), r.stdout)
            self.assertIn(b"Example", r.stdout, verb)
            self.assertIn(b"--json", r.stdout, verb)

    def test_every_verb_refuses_an_unknown_option(self):
        for verb in self.verbs():
            self.told(self.kiln(*verb, "--jsn"), 2, "--json")

    def test_no_verb_and_wrong_verbs(self):
        self.assertEqual(self.kiln().returncode, 2)
        self.told(self.kiln("lst"), 2, "list")
        self.told(self.kiln("image", "improt"), 2, "image import")

    def test_missing_words(self):
        for args in (["invoke"], ["logs"], ["image", "import"], ["image", "remove"], ["login"],
                     ["login", "--client-id", "x"], ["invoke", "f", "g"],
                     ["invoke", "f", "--header", "x"], ["invoke", "f", "-q", "x"],
                     ["invoke", "f", "-d", "x", "-f", "y"], ["invoke", "f", "-p", "/a b"]):
            self.told(self.kiln(*args), 2, "kiln")

    def test_standard_output_that_fails(self):
        with open("/dev/full", "wb") as full:
            r = subprocess.run([KILN, "version"], stdout=full, stderr=subprocess.PIPE)
        self.told(r, 1, "standard output")


class Login(Case):
    def test_keeps_a_private_file(self):
        self.login()
        self.assertEqual(os.stat(self.config()).st_mode & 0o777, 0o600)
        r = self.kiln("list", gateway=False)   # the last login is the default
        self.assertIn(b"telemetry", r.stdout)

    def test_takes_the_node_s_credentials_file(self):
        path = self.path("credentials", f"client_id={CLIENT}\nclient_secret={SECRET}\n".encode())
        self.assertEqual(self.kiln("login", "--credentials", path).returncode, 0)
        bad = self.path("other", b"hello\n")
        self.told(self.kiln("login", "--credentials", bad), 1, "client_id=")
        self.told(self.kiln("login", "--credentials", "/nonexistent"), 1, "/nonexistent")

    def test_wrong_secret(self):
        r = self.kiln("login", "--client-id", CLIENT, "--client-secret-stdin", stdin=b"wrong")
        self.told(r, 1, "does not know this client id", "credentials")
        self.assertFalse(os.path.exists(self.config()))

    def test_waits_for_a_node_that_is_being_started(self):
        path = os.path.join(self.tmp.name, "later")
        text = f"client_id={CLIENT}\nclient_secret={SECRET}\n".encode()
        late = threading.Timer(0.3, lambda: self.path("later", text))
        late.start()
        r = self.kiln("login", "--credentials", path, "--wait", "20s")
        late.join()
        self.assertEqual(r.returncode, 0, r.stderr)
        began = time.monotonic()
        self.told(self.kiln("login", "--credentials", path, "--wait", "200ms", "--gateway",
                            "http://127.0.0.1:1"), 1, "no node answers")
        self.assertGreater(time.monotonic() - began, 0.2)

    def test_no_login(self):
        self.told(self.kiln("list"), 1, "not logged in", "kiln login --gateway " + self.url)

    def test_given_token_counts_and_is_not_renewed(self):
        self.login()
        self.told(self.kiln("list", "--token", "old"), 1, "refused this token")
        self.assertEqual(self.kiln("list", env={"KILN_TOKEN": "t1"}).returncode, 0)

    def test_expired_token_is_renewed(self):
        self.server.expires_in = 1
        self.login()
        self.assertEqual(self.kiln("list").returncode, 0)
        self.assertEqual(self.server.tokens, 2)

    def test_token_of_a_node_made_anew_is_renewed(self):
        self.login()
        self.server.tokens = 7
        self.assertEqual(self.kiln("list").returncode, 0)

    def test_token_goes_to_its_own_node_only(self):
        self.login()
        port = self.server.server_address[1]
        self.kiln("list", "--gateway", f"http://localhost:{port}/")
        self.assertNotIn("Authorization", self.server.seen[-1][2])

    def test_redirects_are_not_followed(self):
        self.login()
        self.server.canned["/system/functions"] = lambda h, b: h.reply(
            307, b"", [("Location", self.url + "/elsewhere")])
        self.assertEqual(self.kiln("list").returncode, 1)
        self.assertNotIn("/elsewhere", [s[1] for s in self.server.seen])

    def test_file_open_to_others_is_refused(self):
        self.login()
        os.chmod(self.config(), 0o644)
        self.told(self.kiln("list"), 1, "chmod 600")

    def test_damaged_file(self):
        self.login()
        with open(self.config(), "w") as f:
            f.write("{")
        self.told(self.kiln("list"), 1, "log in again")

    def test_json(self):
        self.login()
        path = self.path("credentials", f"client_id={CLIENT}\nclient_secret={SECRET}\n".encode())
        r = self.kiln("login", "--credentials", path, "--json")
        self.assertEqual(json.loads(r.stdout)["gateway"], self.url)


class Nodes(Case):
    def test_none_there(self):
        self.told(self.kiln("list", "--gateway", "http://127.0.0.1:1"), 1, "no node answers",
                  "kilnd --state")

    def test_bad_addresses(self):
        for url in ("ftp://x", "http://", "http://a b", "http://u@h", "file:///etc/passwd"):
            self.told(self.kiln("list", "--gateway", url), 1, "gateway")

    def test_no_http(self):
        self.login()
        self.server.canned["/system/functions"] = lambda h, b: h.wfile.write(b"SSH-2.0-x\r\n")
        self.assertEqual(self.kiln("list").returncode, 1)

    def test_no_json(self):
        self.login()
        self.server.canned["/system/functions"] = lambda h, b: h.reply(200, b"<html>")
        self.told(self.kiln("list"), 1, "no Kiln node")
        self.server.canned["/system/functions"] = lambda h, b: h.reply(502, b"\n bad\x07 day\nx")
        self.told(self.kiln("list"), 1, "bad? day")

    def test_openfaas_url_counts(self):
        self.login()
        r = self.kiln("list", gateway=False, env={"OPENFAAS_URL": "http://127.0.0.1:1"})
        self.told(r, 1, "127.0.0.1:1")


class Functions(Case):
    def setUp(self):
        super().setUp()
        self.login()

    def test_list(self):
        lines = self.kiln("list").stdout.decode().splitlines()
        self.assertEqual(lines[1].split(), ["telemetry", "microvm", "1", "12", "2",
                                            "telemetry:latest"])
        self.assertEqual(json.loads(self.kiln("list", "--json").stdout)[0]["name"], "telemetry")

    def test_describe(self):
        out = self.kiln("describe", "telemetry").stdout.decode()
        for word in ("microvm on QEMU with TCG (no KVM)", "/function/telemetry (callers need",
                     "1.24 s", "boot 1.20 s", "exited with code 3", "telemetry-1 ready, 3 served, started in 1.24 s", "A=b\\x1b", "90.0 MB"):
            self.assertIn(word, out)
        fn = json.loads(self.kiln("describe", "telemetry", "--json").stdout)
        self.assertEqual(fn["kiln"]["lastColdStart"]["phases"][0]["name"], "boot")
        self.told(self.kiln("describe", "other"), 1, "no function", "see kiln list")

    def test_invoke_sends_standard_input(self):
        for size in (0, 10, 1 << 20, (3 << 20) + 17):
            data = os.urandom(size)
            r = self.kiln("invoke", "echo", stdin=data)
            self.assertEqual((r.returncode, r.stdout), (0, data))

    def test_invoke_options(self):
        r = self.kiln("invoke", "echo", "-X", "PUT", "-p", "a/b", "-q", "x=1 &2", "-q", "y=",
                      "-H", "Ce-Id: 7", "-t", "application/json", "-d", "{}")
        method, path, headers, body = self.server.seen[-1]
        self.assertEqual((method, path, body), ("PUT", "/function/echo/a/b?x=1%20%262&y=", b"{}"))
        self.assertEqual((headers["Ce-Id"], headers["Content-Type"]), ("7", "application/json"))
        self.told(r, 1, "no function at", "see kiln list")

    def test_invoke_file(self):
        path = self.path("in", b"from a file")
        self.assertEqual(self.kiln("invoke", "echo", "-f", path).stdout, b"from a file")
        self.told(self.kiln("invoke", "echo", "-f", "/none"), 1, "/none")

    def test_invoke_tells(self):
        r = self.kiln("invoke", "-v", "echo", "-d", "hi")
        self.assertEqual(r.stdout, b"hi")
        for word in (b"status 200", b"cold", b"queue 100 us, boot 900.0 ms", b"c1"):
            self.assertIn(word, r.stderr)

    def test_invoke_json(self):
        reply = json.loads(self.kiln("invoke", "--json", "echo", "-d", "hi").stdout)
        self.assertEqual((reply["status"], reply["body"]), (200, "hi"))
        self.assertEqual(reply["headers"]["X-Kiln-Start"], "cold")
        reply = json.loads(self.kiln("invoke", "--json", "echo", stdin=b"\xff\xfe").stdout)
        self.assertEqual(base64.b64decode(reply["body_base64"]), b"\xff\xfe")

    def test_function_s_own_error(self):
        r = self.kiln("invoke", "broken")
        self.assertEqual(r.stdout, b"I am a teapot\n")
        self.told(r, 1, "418")

    def test_logs(self):
        lines = [{"name": "f", "instance": "i1", "timestamp": "2026-01-01T00:00:00Z",
                  "text": f"line {i} \x1b[2J"} for i in range(3)]

        def stream(handler, body):
            text = "".join(json.dumps(l) + "\n" for l in lines).encode()
            handler.send_response(200)
            handler.end_headers()
            for i in range(0, len(text), 11):   # lines come in pieces
                handler.wfile.write(text[i:i + 11])
            handler.close_connection = True

        self.server.canned["/system/logs"] = stream
        r = self.kiln("logs", "f", "--tail", "3", "--since", "10m", "--instance", "i1")
        self.assertEqual(r.stdout.decode().splitlines()[2],
                         "2026-01-01T00:00:00Z i1 line 2 \\x1b[2J")
        query = urllib.parse.parse_qs(self.server.seen[-1][1].partition("?")[2])
        self.assertEqual((query["name"], query["tail"]), (["f"], ["3"]))
        self.assertRegex(query["since"][0], r"^\d{4}-\d\d-\d\dT")

    def test_logs_follow_ends_by_interrupt(self):
        started = threading.Event()

        def stream(handler, body):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(b'{"timestamp":"t","instance":"i","text":"on"}\n')
            handler.wfile.flush()
            started.set()
            time.sleep(5)

        self.server.canned["/system/logs"] = stream
        p = subprocess.Popen([KILN, "logs", "-f", "f"], env=dict(self.env, KILN_GATEWAY=self.url),
                             stdout=subprocess.PIPE)
        self.assertTrue(started.wait(10))
        self.assertEqual(p.stdout.readline(), b"t i on\n")
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(10), -signal.SIGINT)
        p.stdout.close()


class Deploy(Case):
    STACK = b"""version: 1.0
provider: {name: openfaas}
functions:
  one: {image: "one:1", environment: {A: b}, annotations: {kiln.timeout: 5s}}
  two: {image: "two:1", fprocess: "cat", limits: {memory: 128Mi}}
"""

    def setUp(self):
        super().setUp()
        self.login()
        self.stack = self.path("stack.yaml", self.STACK)

    def sent(self):
        return [(m, json.loads(b)) for m, p, h, b in self.server.seen if p == "/system/functions"]

    def test_stack(self):
        r = self.kiln("deploy", "-f", self.stack)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn(f"{self.url}/function/two".encode(), r.stdout)
        (m1, one), (m2, two) = self.sent()
        self.assertEqual((m1, one["service"], one["envVars"]), ("PUT", "one", {"A": "b"}))
        self.assertEqual(one["annotations"], {"kiln.timeout": "5s"})
        self.assertEqual((two["envProcess"], two["limits"]["memory"]), ("cat", "128Mi"))

    def test_filter(self):
        r = self.kiln("deploy", "-f", self.stack, "--filter", "two", "--json")
        self.assertEqual(json.loads(r.stdout), ["two"])
        self.told(self.kiln("deploy", "-f", self.stack, "--filter", "no"), 1, "no function 'no'")

    def test_options(self):
        r = self.kiln("deploy", "f", "--image", "i:1", "-e", "A=x=y", "-e", "B=", "--label", "l=1",
                      "--annotation", "kiln.queue=5", "--limit-memory", "64Mi", "--timeout", "9s",
                      "--class", "bare", "--secret", "key")
        self.assertEqual(r.returncode, 0, r.stderr)
        (_, fn), = self.sent()
        self.assertEqual(fn["envVars"], {"A": "x=y", "B": ""})
        self.assertEqual(fn["annotations"],
                         {"kiln.queue": "5", "kiln.timeout": "9s", "kiln.class": "bare"})
        self.assertEqual(fn["secrets"], ["key"])
        self.assertEqual((fn["image"], fn["labels"], fn["limits"]),
                         ("i:1", {"l": "1"}, {"memory": "64Mi"}))

    def test_falls_back_to_post(self):
        self.server.only_post = True
        self.assertEqual(self.kiln("deploy", "f", "--image", "i").returncode, 0)
        self.assertEqual([m for m, _ in self.sent()], ["PUT", "POST"])

    def test_wait(self):
        self.assertEqual(self.kiln("deploy", "f", "--image", "i", "--wait").returncode, 0)
        self.assertEqual(self.server.polls, 3)
        self.told(self.kiln("deploy", "bad", "--image", "i", "--wait"), 1, "no such program")

    def test_refusals(self):
        self.told(self.kiln("deploy", "refused", "--image", "x"), 1, "function 'refused'",
                  "kiln image import")
        self.told(self.kiln("deploy", "-f", "/none.yaml"), 1, "/none.yaml")
        bad = self.path("bad.yaml", self.STACK.replace(b"fprocess", b"fproces"))
        self.told(self.kiln("deploy", "-f", bad), 1, "bad.yaml", "fproces", "did you mean")
        self.assertEqual([m for m, _ in self.sent()], ["PUT"])
        for args in ([], ["f"], ["f", "-f", self.stack], ["--filter", "x"],
                     ["f", "--image", "i", "--filter", "f"]):
            self.told(self.kiln("deploy", *args), 2, "deploy")
        self.told(self.kiln("deploy", "f", "--image", "i", "-e", "x"), 1, "name=value")

    def test_remove(self):
        r = self.kiln("remove", "one", "two")
        self.assertEqual(r.stdout, b"Removed one.\nRemoved two.\n")
        self.assertEqual([b["functionName"] for _, b in self.sent()], ["one", "two"])
        self.assertEqual(self.kiln("remove", "-f", self.stack).returncode, 0)
        r = self.kiln("remove", "absent", "two", "absent")
        self.told(r, 1, "function 'absent'")
        self.assertIn(b"Removed two.", r.stdout)
        self.told(self.kiln("remove"), 2, "stack.yaml")


class Scale(Case):
    def setUp(self):
        super().setUp()
        self.login()

    def test_scale(self):
        r = self.kiln("scale", "f", "3")
        self.assertEqual((r.returncode, r.stdout), (0, b"f keeps 3 instances until it idles.\n"))
        method, path, _, body = self.server.seen[-1]
        self.assertEqual((method, path), ("POST", "/system/scale-function/f"))
        self.assertEqual(json.loads(body), {"serviceName": "f", "replicas": 3})
        self.assertEqual(json.loads(self.kiln("scale", "f", "0", "--json").stdout)["name"], "f")
        for args in ([], ["f"], ["f", "-1"], ["f", "1001"], ["f", "1", "2"]):
            self.told(self.kiln("scale", *args), 2, "kiln scale")

    def test_deploy_hears_that_an_update_was_taken_back(self):
        self.told(self.kiln("deploy", "rolled", "--image", "i", "--wait"), 1, "exited with code 3",
                  "the revision before it goes on")


class Secrets(Case):
    def setUp(self):
        super().setUp()
        self.login()

    def sent(self):
        method, path, _, body = self.server.seen[-1]
        self.assertEqual(path, "/system/secrets")
        return method, json.loads(body)

    def test_value_comes_from_a_file_or_from_standard_input(self):
        value = self.path("value", b"hunter2\n")
        r = self.kiln("secret", "create", "key", "--from-file", value)
        self.assertEqual((r.returncode, r.stdout), (0, b"Created secret key.\n"))
        self.assertEqual(self.sent(), ("POST", {
            "name": "key", "rawValue": base64.b64encode(b"hunter2").decode()}))
        self.kiln("secret", "update", "key", "-f", value, "--keep-newline")
        self.assertEqual(self.sent(), ("PUT", {
            "name": "key", "rawValue": base64.b64encode(b"hunter2\n").decode()}))
        r = self.kiln("secret", "create", "key", stdin=b"\x00\xff\n")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(base64.b64decode(self.sent()[1]["rawValue"]), b"\x00\xff")
        self.kiln("secret", "create", "key", stdin=b"")
        self.assertEqual(self.sent()[1], {"name": "key", "value": ""})

    def test_list_and_remove(self):
        self.assertEqual(self.kiln("secret", "list").stdout, b"key\n")
        self.assertEqual(json.loads(self.kiln("secret", "list", "--json").stdout)[0]["name"], "key")
        r = self.kiln("secret", "remove", "key")
        self.assertEqual((r.returncode, r.stdout), (0, b"Removed secret key.\n"))
        self.assertEqual(self.sent(), ("DELETE", {"name": "key"}))

    def test_refusals(self):
        self.told(self.kiln("secret", "create", "there", stdin=b"x"), 1, "kiln secret update")
        self.told(self.kiln("secret", "create", "key", "--from-file", "/none"), 1, "/none")
        self.told(self.kiln("secret", "create", "key", stdin=b"x" * 70000), 1, "65536")
        for args in (["create"], ["create", "key", "value"], ["update"], ["remove"]):
            self.told(self.kiln("secret", *args, stdin=b""), 2, "kiln secret")


class Images(Case):
    def setUp(self):
        super().setUp()
        self.login()

    def test_list(self):
        out = self.kiln("image", "list").stdout.decode()
        self.assertIn("12.4 MB", out)
        self.assertIn("sha256:abababababab", out)

    def test_import_archive(self):
        data = os.urandom(300000)
        r = self.kiln("image", "import", self.path("a.tar", data), "--name", "a:1")
        self.assertEqual(r.returncode, 0, r.stderr)
        method, path, _, body = self.server.seen[-1]
        self.assertEqual((method, path, body), ("POST", "/kiln/v1/images?name=a%3A1", data))

    def test_import_folder_as_tar(self):
        files = {"oci-layout": b"{}", "index.json": b"[]", "blobs/sha256/aa": os.urandom(700000),
                 "blobs/sha256/empty": b""}
        for name, data in files.items():
            self.path("layout/" + name, data)
        r = self.kiln("image", "import", "layout/")
        self.assertEqual(r.returncode, 0, r.stderr)
        got = {}
        with tarfile.open(fileobj=io.BytesIO(self.server.seen[-1][3])) as tar:
            for member in tar:
                if member.isfile():
                    got[member.name] = tar.extractfile(member).read()
        self.assertEqual(got, files)

    def test_import_refuses(self):
        os.mkdir(os.path.join(self.tmp.name, "empty"))
        self.told(self.kiln("image", "import", "empty"), 1, "no OCI layout")
        self.told(self.kiln("image", "import", "absent.tar"), 1, "absent.tar")
        self.path("link/index.json", b"{}")
        os.symlink("/etc/passwd", os.path.join(self.tmp.name, "link/blob"))
        self.told(self.kiln("image", "import", "link"), 1, "neither file nor folder")

    def test_refused_upload_tells_the_reason(self):
        self.server.canned["/kiln/v1/images"] = lambda h, b: h.reply(
            400, {"error": "blob sha256:aa has another digest"})
        r = self.kiln("image", "import", self.path("a.tar", os.urandom(100000)))
        self.told(r, 1, "another digest")

    def test_remove(self):
        r = self.kiln("image", "remove", "a:1", "b", "--json")
        self.assertEqual(json.loads(r.stdout), ["a:1", "b"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
