#!/usr/bin/env python3
"""A real kilnd, called with curl and with raw bytes. Its functions run behind Unix sockets here, so
that this needs no virtual machine: the hypervisors have tests of their own.

Usage: kilnd.py BUILD_DIR"""
import concurrent.futures
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from node import bare_image

KILND = os.path.abspath(os.path.join(sys.argv[1] if len(sys.argv) > 1 else "build", "kilnd"))


BUILD = os.path.dirname(KILND)


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *args):
        pass   # a gateway that left


class Function(http.server.BaseHTTPRequestHandler):
    """What a tenant could deploy: the path says what it does."""
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "unix"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **fields):
        self.send_response(status)
        for k, v in fields.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            out = b""
            while n := int(self.rfile.readline(), 16):
                out += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def handle_any(self):
        path = self.path.partition("?")[0]
        if path == "/slow":
            time.sleep(3)
        if path == "/crash":
            return self.connection.shutdown(socket.SHUT_RDWR)
        if path == "/garbage":
            self.close_connection = True
            return self.wfile.write(b"\x7fELF\x02\x01\x01" + bytes(100))
        if path == "/half":
            self.close_connection = True
            return self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        if path == "/much":
            return self.answer(200, b"x" * (3 << 20))
        if path == "/fields":
            return self.answer(200, json.dumps(dict(self.headers)).encode(),
                               Content_Type="application/json")
        self.answer(200, self.body() or path.encode(), X_Function="yes")

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = handle_any


class Case(unittest.TestCase):
    def setUp(self):
        # a short path: sockets of instances lie below it
        self.tmp = tempfile.mkdtemp(prefix="kd", dir="/tmp")
        self.state = os.path.join(self.tmp, "s")
        self.sockets, self.nodes = [], []

    def tearDown(self):
        for p in self.nodes:
            if p.poll() is None:
                p.kill()
                p.wait()
            p.stdout.close()
        for s in self.sockets:
            s.shutdown()
            s.server_close()
        shutil.rmtree(self.tmp)

    # -- the node

    def spawn(self, *args, state=None, listen="127.0.0.1:0"):
        log = open(os.path.join(self.tmp, "log"), "a+b")
        p = subprocess.Popen([KILND, "--state", state or self.state, "--listen", listen, *args],
                             stdout=subprocess.PIPE, stderr=log)
        log.close()
        self.nodes.append(p)
        return p

    def log(self):
        with open(os.path.join(self.tmp, "log"), errors="replace") as f:
            return f.read()

    def node(self, *args, **kw):
        p = self.spawn(*args, **kw)
        line = p.stdout.readline().decode()
        m = re.fullmatch(r"ready (http://127\.0\.0\.1:(\d+))\n", line)
        if not m:
            self.fail(f"kilnd said {line!r}: {self.log()}")
        p.url, p.port = m[1], int(m[2])
        with open(os.path.join(kw.get("state") or self.state, "credentials")) as f:
            p.secret = dict(l.strip().split("=", 1) for l in f)
        return p

    def fails(self, *args, code=1, **kw):
        p = self.spawn(*args, **kw)
        out, _ = p.communicate(timeout=30)
        self.assertEqual(p.returncode, code, self.log())
        self.assertEqual(out, b"")
        return self.log()

    def curl(self, *args, code=0, **kw):
        r = subprocess.run(["curl", "-sS", "--max-time", "30", *args], capture_output=True, **kw)
        self.assertIn(r.returncode, code if isinstance(code, tuple) else (code,), r.stderr)
        return r.stdout

    def status(self, *args):
        """Status, fields (names in lower case) and body of a reply."""
        out = self.curl("-i", *args)
        head, _, body = out.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head, _, body = body.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        fields = {k.lower(): v for k, v in (l.split(": ", 1) for l in rest)}
        return int(first.split()[1]), fields, body

    def basic(self, node):
        return ["-u", f"{node.secret['client_id']}:{node.secret['client_secret']}"]

    def deploy(self, node, name, image, expect=202, **annotations):
        annotations = {"kiln." + k.replace("_", "-"): v for k, v in annotations.items()}
        annotations.setdefault("kiln.class", "unix")
        body = json.dumps({"service": name, "image": image, "annotations": annotations})
        got = self.status(*self.basic(node), "-X", "POST", "-H", "Content-Type: application/json",
                          "-d", body, node.url + "/system/functions")
        self.assertIn(got[0], (expect, 200) if expect == 202 else (expect,), got)
        return got

    def serve(self, name="f.sock", handler=Function):
        path = os.path.join(self.tmp, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        s = UnixServer(path, handler)
        threading.Thread(target=s.serve_forever, args=(0.05,), daemon=True).start()
        self.sockets.append(s)
        return path

    def served(self, *args, **annotations):
        """A node with the function f."""
        node = self.node("--allow-unix-functions", *args)
        self.deploy(node, "f", self.serve(), **annotations)
        return node

    def stop(self, node):
        node.send_signal(signal.SIGTERM)
        self.assertEqual(node.wait(timeout=30), 0, self.log())
        return node.stdout.read()

    def raw(self, node, data, wait=5):
        """Send bytes, read until the peer closes or is silent for a moment."""
        with socket.create_connection(("127.0.0.1", node.port), timeout=wait) as s:
            s.sendall(data)
            out = b""
            try:
                while part := s.recv(65536):
                    out += part
                    s.settimeout(0.5)
            except socket.timeout:
                pass
            return out


class Life(Case):
    def test_ready_line_credentials_and_a_clean_end(self):
        node = self.node()
        self.assertEqual(stat.S_IMODE(os.stat(self.state + "/credentials").st_mode), 0o600)
        self.assertEqual(self.status(node.url + "/healthz")[0], 200)
        self.assertEqual(self.stop(node), b"")   # the one line was all
        self.assertEqual(os.listdir(self.state + "/run"), [])

    def test_port_in_use(self):
        node = self.node()
        said = self.fails(state=self.tmp + "/other", listen=f"127.0.0.1:{node.port}")
        self.assertIn("port in use", said)
        self.assertIn("--listen", said)
        self.assertFalse(os.path.exists(self.tmp + "/other"))

    def test_state_in_use(self):
        node = self.node()
        said = self.fails()
        self.assertIn("in use by another kilnd", said)
        self.assertIn(str(node.pid), said)

    def test_bad_options_and_configuration(self):
        config = os.path.join(self.tmp, "c.yaml")
        with open(config, "w") as f:
            f.write("max-bdy: 1Mi\n")
        r = subprocess.run([KILND, "--config", config, "--state", self.state], capture_output=True,
                           text=True)
        self.assertEqual(r.returncode, 2)
        self.assertIn("max-body", r.stderr)
        r = subprocess.run([KILND, "--lissten", "x"], capture_output=True, text=True)
        self.assertEqual(r.returncode, 2)
        self.assertIn("--listen", r.stderr)
        r = subprocess.run([KILND], capture_output=True, text=True)
        self.assertEqual(r.returncode, 2)
        self.assertIn("--state", r.stderr)
        self.assertFalse(os.path.exists(self.state))
        r = subprocess.run([KILND, "--help"], capture_output=True, text=True)
        self.assertEqual(r.returncode, 0)
        self.assertIn("--allow-unix-functions", r.stdout)

    def test_state_that_cannot_be_used(self):
        open(self.tmp + "/file", "w").close()
        self.assertIn("state folder", self.fails(state=self.tmp + "/file/s"))
        os.mkdir(self.tmp + "/others")
        open(self.tmp + "/others/precious", "w").close()
        self.assertIn("something else", self.fails(state=self.tmp + "/others"))
        self.assertEqual(os.listdir(self.tmp + "/others"), ["precious"])
        deep = os.path.join(self.tmp, *["d" * 40] * 3)
        self.assertIn("--run-dir", self.fails(state=deep))

    def test_run_dir_of_the_operators_choice_keeps_what_else_is_there(self):
        run = self.tmp + "/run"
        os.mkdir(run)
        open(run + "/precious", "w").close()
        self.node("--run-dir", run)
        self.assertIn("precious", os.listdir(run))
        said = self.fails("--run-dir", run, state=self.tmp + "/other")
        self.assertIn("in use by another kilnd", said)

    def test_config_file_serves(self):
        config = os.path.join(self.tmp, "c.yaml")
        with open(config, "w") as f:
            f.write(f"state: {self.state}\nlog-format: json\nlog-level: debug\n")
        node = self.node("--config", config)
        self.stop(node)
        for line in self.log().splitlines():
            json.loads(line)

    def test_what_is_missing_is_said(self):
        node = self.node("--qemu", "/none/qemu", "--kvm-device", "/none/kvm")
        log = self.log()
        self.assertIn("class is refused", log)
        got = self.status(*self.basic(node), node.url + "/kiln/v1/node")
        self.assertEqual(got[0], 200)
        classes = {c["class"]: c for c in json.loads(got[2])["classes"]}
        self.assertIn("/none/kvm", classes["bare"]["why"])
        self.assertIn("qemu", classes["microvm"]["why"].lower())

    def test_sigterm_finishes_what_is_under_way(self):
        node = self.served()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow = pool.submit(self.status, node.url + "/function/f/slow")
            time.sleep(1)
            began = time.monotonic()
            self.stop(node)
            self.assertEqual(slow.result()[0], 200)
            self.assertGreater(time.monotonic() - began, 1)

    def test_second_signal_does_not_wait(self):
        node = self.served()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow = pool.submit(self.curl, node.url + "/function/f/slow", code=52)
            time.sleep(0.5)
            node.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            node.send_signal(signal.SIGTERM)
            node.wait(timeout=2)
            slow.result()

    def test_killed_node_comes_back_with_its_functions(self):
        node = self.served()
        self.assertEqual(self.status(node.url + "/function/f")[0], 200)
        self.assertEqual(len(os.listdir(self.state + "/run")), 1)
        node.kill()
        node.wait()
        self.assertEqual(len(os.listdir(self.state + "/run")), 1)
        again = self.node("--allow-unix-functions")
        self.assertEqual(os.listdir(self.state + "/run"), [])
        got = self.status(again.url + "/function/f")
        self.assertEqual((got[0], got[1]["x-kiln-start"]), (200, "cold"))


class Functions(Case):
    def test_cold_then_warm_with_phases(self):
        node = self.served()
        code, fields, body = self.status("-d", "ping", node.url + "/function/f")
        self.assertEqual((code, body), (200, b"ping"))
        self.assertEqual(fields["x-kiln-start"], "cold")
        self.assertEqual(fields["x-function"], "yes")
        self.assertRegex(fields["server-timing"], r"^queue;dur=\d+\.\d{3}, .*function;dur=\d")
        self.assertRegex(fields["x-call-id"], r"^[0-9a-f-]{36}$")
        self.assertLess(abs(int(fields["x-start-time"]) / 1e9 - time.time()), 30)
        code, fields, _ = self.status(node.url + "/function/f.openfaas-fn/x")
        self.assertEqual((code, fields["x-kiln-start"]), (200, "warm"))
        told = json.loads(self.status(*self.basic(node), node.url + "/system/function/f")[2])
        self.assertEqual(told["invocationCount"], 2)

    def test_unix_functions_need_the_flag(self):
        node = self.node()
        got = self.deploy(node, "f", self.serve(), expect=422)
        self.assertIn(b"--allow-unix-functions", got[2])

    def test_large_bodies_stream_both_ways(self):
        node = self.served()
        path = os.path.join(self.tmp, "body")
        with open(path, "wb") as f:
            f.write(os.urandom(5 << 20))
        with open(path, "rb") as f:
            sent = f.read()
        got = self.curl("--data-binary", "@" + path, node.url + "/function/f")
        self.assertEqual(got, sent)
        got = self.curl("-H", "Transfer-Encoding: chunked", "--data-binary", "@" + path,
                        node.url + "/function/f")
        self.assertEqual(got, sent)
        with open(f"/proc/{node.pid}/maps") as f:
            if "libasan" in f.read():
                return   # its own memory would drown ours
        with open(f"/proc/{node.pid}/status") as f:
            rss = int(re.search(r"VmHWM:\s+(\d+)", f.read())[1])
        self.assertLess(rss, 64 * 1024)   # kB: streamed, not collected

    def test_failures_of_functions(self):
        node = self.served("--max-reply", "1Mi", timeout="1s")
        url = node.url + "/function/f"
        for path, status, says in (("/crash", 502, "without an answer"), ("/garbage", 502, "HTTP"),
                                   ("/much", 502, "larger than"), ("/slow", 504, "within 1000 ms")):
            code, fields, body = self.status(url + path)
            self.assertEqual(code, status, (path, body))
            self.assertIn(says, json.loads(body)["error"])
            self.assertIn("x-call-id", fields)
        self.curl(url + "/half", code=(18, 56))   # bytes missing, or connection reset
        self.assertEqual(self.status(url + "/fine")[0], 200)

    def test_unknown_functions_and_too_large_bodies(self):
        node = self.served("--max-body", "1000")
        code, _, body = self.status(node.url + "/function/none")
        self.assertEqual(code, 404)
        self.assertIn("kiln list", json.loads(body)["hint"])
        self.assertEqual(self.status("-d", "x" * 1001, node.url + "/function/f")[0], 413)

    def test_function_that_never_starts_is_told_and_held_back(self):
        node = self.node("--allow-unix-functions")
        self.deploy(node, "f", self.tmp + "/nobody.sock", boot_timeout="1s")
        code, _, body = self.status(node.url + "/function/f")
        self.assertEqual(code, 502, body)
        self.assertIn("nobody.sock", json.loads(body)["error"])
        code, fields, body = self.status(node.url + "/function/f")
        self.assertEqual(code, 503, body)
        self.assertGreaterEqual(int(fields["retry-after"]), 1)

    def test_a_burst_on_a_sleeping_function_makes_one_start(self):
        node = self.node("--allow-unix-functions")
        path = os.path.join(self.tmp, "f.sock")
        self.deploy(node, "f", path)
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            calls = [pool.submit(self.raw, node, b"GET /function/f HTTP/1.1\r\nHost: x\r\n"
                                 b"Connection: close\r\n\r\n", 20) for _ in range(100)]
            time.sleep(1)
            self.serve()
            answers = [c.result() for c in calls]
        for a in answers:
            self.assertTrue(a.startswith(b"HTTP/1.1 200 "), a)
        self.assertEqual(sum(b"X-Kiln-Start: cold" in a for a in answers), 100)
        text = self.curl(*self.basic(node), node.url + "/metrics").decode()
        self.assertIn('kiln_starts_total{function_name="f.openfaas-fn",kind="boot"} 1\n', text)

    def test_tokens_for_functions(self):
        node = self.served(auth="token")
        url = node.url + "/function/f/fields"
        self.assertEqual(self.status(url)[0], 401)
        self.assertEqual(self.status("-H", "Authorization: Bearer x.y.z", url)[0], 401)
        got = json.loads(self.curl(*self.basic(node), "-d", "grant_type=client_credentials",
                                   node.url + "/oauth/token"))
        code, _, body = self.status("-H", "Authorization: Bearer " + got["access_token"], url)
        self.assertEqual(code, 200)
        self.assertNotIn("Authorization", json.loads(body))
        self.deploy(node, "open", self.sockets[0].server_address)
        code, _, body = self.status("-H", "Authorization: Bearer mine",
                                    node.url + "/function/open/fields")
        self.assertEqual((code, json.loads(body)["Authorization"]), (200, "Bearer mine"))

    def test_node_that_wants_tokens(self):
        node = self.served("--function-auth", "token")
        self.assertEqual(self.status(node.url + "/function/f")[0], 401)
        self.assertEqual(self.status(node.url + "/function/none")[0], 401)
        self.assertEqual(self.status(*self.basic(node), node.url + "/function/f")[0], 200)
        self.deploy(node, "open", self.sockets[0].server_address, auth="open")
        self.assertEqual(self.status(node.url + "/function/open")[0], 200)

    def test_removed_function_is_gone(self):
        node = self.served()
        self.assertEqual(self.status(node.url + "/function/f")[0], 200)
        got = self.status(*self.basic(node), "-X", "DELETE", "-H", "Content-Type: application/json",
                          "-d", '{"functionName":"f"}', node.url + "/system/functions")
        self.assertEqual(got[0], 202, got)
        for _ in range(50):
            if not os.listdir(self.state + "/run"):
                break
            time.sleep(0.05)
        self.assertEqual(os.listdir(self.state + "/run"), [])
        self.assertEqual(self.status(node.url + "/function/f")[0], 404)


@unittest.skipUnless(os.access("/dev/kvm", os.R_OK | os.W_OK), "needs /dev/kvm")
class Bare(Case):
    """Functions without a kernel, in microVMs of their own; the guest is that of host/bare."""

    def bare(self, *args, **annotations):
        node = self.node(*args)
        archive = os.path.join(self.tmp, "bare.tar")
        with open(archive, "wb") as f:
            f.write(bare_image(os.path.join(BUILD, "test", "host", "bare-guest"), "guest:1"))
        got = self.status(*self.basic(node), "-X", "POST", "-T", archive,
                          node.url + "/kiln/v1/images?name=guest:1")
        self.assertEqual(got[0], 201, got)
        self.deploy(node, "b", "guest:1", **{"class": "bare", **annotations})
        return node

    def test_cold_warm_fault_and_again(self):
        node = self.bare()
        code, fields, body = self.status("-d", "1 2 3", node.url + "/function/b/echo")
        self.assertEqual((code, fields["x-kiln-start"]), (200, "cold"), body)
        self.assertIn(b"1 2 3", body)
        for phase in ("queue", "boot", "ready", "function"):
            self.assertIn(phase + ";dur=", fields["server-timing"])
        code, fields, body = self.status(node.url + "/function/b/hello")
        self.assertEqual((code, fields["x-kiln-start"]), (200, "warm"), body)
        code, _, body = self.status(node.url + "/function/b/null")
        self.assertEqual(code, 502)
        self.assertIn("page fault", json.loads(body)["error"])
        code, fields, _ = self.status(node.url + "/function/b/hello")
        self.assertEqual((code, fields["x-kiln-start"]), (200, "cold"))
        self.stop(node)
        self.assertEqual(os.listdir(self.state + "/run"), [])

    def test_loop_is_stopped_at_the_deadline(self):
        node = self.bare(timeout="1s")
        self.assertEqual(self.status(node.url + "/function/b/hello")[0], 200)
        began = time.monotonic()
        self.assertEqual(self.status(node.url + "/function/b/loop")[0], 504)
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(self.status(node.url + "/function/b/hello")[0], 200)

    def test_crash_loop_is_held_back(self):
        node = self.bare()
        codes = [self.status(node.url + "/function/b/null")[0] for _ in range(20)]
        self.assertIn(502, codes)
        self.assertIn(503, codes)
        text = self.curl(*self.basic(node), node.url + "/metrics").decode()
        starts = int(re.search(r"kiln_starts_total\{[^}]*\} (\d+)", text)[1])
        self.assertLess(starts, 10)

    def test_simultaneous_requests_share_one_instance(self):
        node = self.bare()
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            calls = [pool.submit(self.raw, node, b"POST /function/b/echo HTTP/1.1\r\nHost: x\r\n"
                                 b"Connection: close\r\nContent-Length: 4\r\n\r\n%04d" % i)
                     for i in range(200)]
            for i, c in enumerate(calls):
                self.assertIn(b"%04d" % i, c.result())
        text = self.curl(*self.basic(node), node.url + "/metrics").decode()
        self.assertIn('kiln_starts_total{function_name="b.openfaas-fn",kind="boot"} 1\n', text)

    def test_killed_node_takes_its_monitors_along(self):
        node = self.bare()
        self.assertEqual(self.status(node.url + "/function/b/hello")[0], 200)
        with open(f"/proc/{node.pid}/task/{node.pid}/children") as f:
            children = f.read().split()
        self.assertTrue(children)
        node.kill()
        node.wait()
        for _ in range(100):
            if not any(os.path.exists("/proc/" + c) for c in children):
                break
            time.sleep(0.02)
        self.assertFalse([c for c in children if os.path.exists("/proc/" + c)])
        again = self.node()
        self.assertEqual(self.status(again.url + "/function/b/hello")[0], 200)

    def test_without_kvm_bare_is_refused(self):
        node = self.bare()
        self.stop(node)
        again = self.node("--kvm-device", "/none/kvm")
        code, _, body = self.status(again.url + "/function/b/hello")
        self.assertIn(code, (404, 503), body)
        got = self.deploy(again, "c", "guest:1", expect=422, **{"class": "bare"})
        self.assertIn(b"/none/kvm", got[2])


class Hostile(Case):
    def test_ambiguous_framing_is_refused_and_closed(self):
        node = self.served()
        head = b"POST /function/f HTTP/1.1\r\nHost: x\r\n"
        for case in (head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
                     head + b"Transfer-Encoding: chunked\r\n\r\n5\nabcde\r\n0\r\n\r\n",
                     head + b"X: a\r\n b\r\n\r\n", b"GET /function/f HTTP/1.1\nHost: x\n\n",
                     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n"):
            got = self.raw(node, case + b"GET /function/f/smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertTrue(got.startswith(b"HTTP/1.1 400 "), (case, got))
            self.assertNotIn(b"smuggled", got)

    def test_many_slow_clients_do_not_stop_the_others(self):
        node = self.served("--head-timeout", "1s")
        slow = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(200)]
        for s in slow:
            s.sendall(b"GET /function/f HTTP/1.1\r\nHo")
        self.assertEqual(self.status(node.url + "/function/f")[0], 200)
        time.sleep(1.5)
        ends = [s.recv(4096) for s in slow]
        self.assertTrue(all(e.startswith(b"HTTP/1.1 408 ") for e in ends))
        for s in slow:
            s.close()

    def test_large_heads_are_refused(self):
        node = self.served()
        got = self.raw(node, b"GET /function/f HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70000 + b"\r\n\r\n")
        self.assertTrue(got.startswith(b"HTTP/1.1 431 "), got[:100])
        got = self.raw(node, b"GET /function/f HTTP/1.1\r\nHost: x\r\n" +
                       b"".join(b"A%d: b\r\n" % i for i in range(500)) + b"\r\n")
        self.assertTrue(got.startswith(b"HTTP/1.1 431 "), got[:100])

    def test_connections_beyond_the_limit_wait(self):
        node = self.served("--max-connections", "4")
        held = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(4)]
        for s in held:   # an idle one would make room
            s.sendall(b"GET /function/f HTTP/1.1\r\n")
        time.sleep(0.2)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waits = pool.submit(self.status, node.url + "/function/f")
            time.sleep(0.3)
            self.assertFalse(waits.done())
            held[0].close()
            self.assertEqual(waits.result(timeout=10)[0], 200)
        for s in held[1:]:
            s.close()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"])
