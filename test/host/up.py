#!/usr/bin/env python3
"""`kiln up`, `kiln down` and `kiln top` against a real kilnd, and the systemd unit.

Usage: up.py BUILD_DIR"""
import contextlib
import http.server
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from node import wait_until

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
KILN = os.path.join(BUILD, "kiln")
UNIT = os.path.join(BUILD, "tools/service/kilnd.service")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "unix"

    def log_message(self, *args):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="ku", dir="/tmp")
        self.state = os.path.join(self.tmp, "s")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.tmp, "KILN_STATE": self.state}

    def tearDown(self):
        self.kiln("down", ok=None)
        shutil.rmtree(self.tmp)

    def kiln(self, *args, ok=True, stdin=None):
        r = subprocess.run([KILN, *args], env=self.env, text=True, capture_output=True, timeout=60,
                           input=stdin, check=False)
        if ok is not None:
            self.assertEqual(r.returncode == 0, ok, r.stdout + r.stderr)
        return r.stdout if ok else r.stderr

    def up(self, *more):
        out = self.kiln("up", "--detach", "--listen", "127.0.0.1:0", "--json", "--",
                        "--cgroup", f"kiln-test-{os.getpid()}", "--allow-unix-functions", *more)
        return json.loads(out)

    def until_up(self, process):
        """What kiln up printed as JSON, which it does once the node is up."""
        text = ""
        while not text.rstrip().endswith("}"):
            line = process.stdout.readline()
            self.assertTrue(line, "kiln up has ended")
            text += line
        return text

    def alive(self, pid):
        """Runs still: one that ended may wait for the first process to notice."""
        try:
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False


class UpAndDown(Case):
    def test_detached_node_stays_until_it_is_taken_down(self):
        node = self.up()
        self.assertTrue(self.alive(node["pid"]))
        self.assertEqual(node["state"], self.state)
        self.assertEqual(os.stat(node["credentials"]).st_mode & 0o777, 0o600)
        self.assertEqual(self.kiln("list", "--json").strip(), "[]")   # logged in
        self.assertIn("is up already", self.kiln("up", "--detach", ok=False))
        with open(os.path.join(self.state, "kilnd.log")) as f:
            self.assertIn("ready", f.read())
        self.assertIn("is down", self.kiln("down"))
        self.assertFalse(self.alive(node["pid"]))
        self.assertIn("no node is up", self.kiln("down", ok=False))

    def test_it_comes_back_with_its_state(self):
        self.up()
        self.kiln("deploy", "f", "--image", os.path.join(self.tmp, "f.sock"), "--class", "unix")
        self.kiln("down")
        self.up()
        self.assertEqual([f["name"] for f in json.loads(self.kiln("list", "--json"))], ["f"])
        self.assertTrue(os.path.exists(os.path.join(self.state, "kilnd.log.1")))

    def test_it_says_how_to_go_on(self):
        out = self.kiln("up", "--detach", "--listen", "127.0.0.1:0")
        self.assertRegex(out, r"http://127\.0\.0\.1:\d+")
        for word in ("credentials", "kiln image import", "kiln deploy", "kiln down"):
            self.assertIn(word, out)

    def test_foreground_node_ends_with_its_parent(self):
        p = subprocess.Popen([KILN, "up", "--listen", "127.0.0.1:0", "--json"], env=self.env,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        text = self.until_up(p)
        pid = json.loads(text)["pid"]
        p.send_signal(signal.SIGINT)
        _, log = p.communicate(timeout=30)
        self.assertEqual(p.returncode, 0, log)
        self.assertIn("draining", log)
        self.assertFalse(self.alive(pid))

    def test_a_killed_parent_takes_the_foreground_node_with_it(self):
        p = subprocess.Popen([KILN, "up", "--listen", "127.0.0.1:0", "--json"], env=self.env,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        text = self.until_up(p)
        p.kill()
        p.wait()
        p.stdout.close()
        self.assertTrue(wait_until(lambda: not self.alive(json.loads(text)["pid"])))

    def test_a_node_that_cannot_start_says_why(self):
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as s:
            port = s.getsockname()[1]
            err = self.kiln("up", "--detach", "--listen", f"127.0.0.1:{port}", ok=False)
        self.assertIn("port in use", err)
        self.assertIn("no node is up", self.kiln("down", ok=False))

    def test_down_believes_the_lock_and_not_the_number(self):
        os.mkdir(self.state)
        with open(os.path.join(self.state, "kilnd.lock"), "w") as f:
            f.write(f"{os.getpid()}\n")
        self.assertIn("no node is up", self.kiln("down", ok=False))
        holder = subprocess.Popen(["flock", os.path.join(self.state, "kilnd.lock"), "sleep", "60"])
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.assertTrue(wait_until(lambda: "no kilnd but" in self.kiln("down", ok=False)))

    def test_mistakes_are_told(self):
        r = subprocess.run([KILN, "up", "extra", "--detach"], env=self.env, capture_output=True, text=True,
                           check=False)
        self.assertEqual(r.returncode, 2)
        self.assertIn("no option of kilnd", r.stderr)


class Top(Case):
    def setUp(self):
        super().setUp()
        self.server = Server(os.path.join(self.tmp, "f.sock"), Hello)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.up()
        self.kiln("deploy", "f", "--image", os.path.join(self.tmp, "f.sock"), "--class", "unix")

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()
        super().tearDown()

    def test_once_for_scripts(self):
        for _ in range(5):
            self.kiln("invoke", "f", stdin="x")
        top = json.loads(self.kiln("top", "--once", "--json", "--interval", "200ms"))
        f, = top["functions"]
        self.assertEqual((f["name"], f["class"], f["cold"], f["warm"]), ("f", "unix", 1, 4))
        self.assertEqual(f["instances"], {"starting": 0, "ready": 1, "busy": 0, "draining": 0,
                                          "stopping": 0})
        self.assertGreater(f["p99Ms"], 0)
        self.assertLessEqual(f["p50Ms"], f["p99Ms"])
        self.assertEqual(top["node"]["instances"], 1)
        self.assertGreater(top["node"]["memoryBytes"], 1 << 20)

    def test_rates_are_of_the_interval(self):
        stop = threading.Event()

        def load():
            while not stop.is_set():
                self.kiln("invoke", "f", stdin="x")
        thread = threading.Thread(target=load)
        thread.start()
        try:
            top = json.loads(self.kiln("top", "--once", "--json", "--interval", "2s"))
        finally:
            stop.set()
            thread.join()
        self.assertGreater(top["functions"][0]["rps"], 0)

    def test_plain_table_without_a_terminal(self):
        out = self.kiln("top", "--once", "--interval", "100ms")
        self.assertNotIn("\033", out)
        self.assertIn("1 functions", out)
        self.assertRegex(out, r"(?m)^NAME +CLASS +START +READY")
        self.assertRegex(out, r"(?m)^f +unix")

    def test_q_ends_it_on_a_terminal(self):
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(KILN, [KILN, "top", "--interval", "200ms"], self.env)
        shown = b""
        until = time.monotonic() + 20
        while shown.count(b"q ends this") < 2 and time.monotonic() < until:
            if select.select([fd], [], [], 1)[0]:
                shown += os.read(fd, 65536)
        self.assertIn(b"\033[H", shown)
        os.write(fd, b"q")
        _, status = os.waitpid(pid, 0)
        os.close(fd)
        self.assertEqual(status, 0, shown)


class Unit(unittest.TestCase):
    def test_systemd_takes_the_unit(self):
        if not shutil.which("systemd-analyze"):
            if "systemd" in os.environ.get("KN_DECLARED", "").split():
                self.fail("systemd is declared and systemd-analyze missing")
            self.skipTest("no systemd-analyze")
        with open(UNIT) as f:
            text = f.read()
        with tempfile.TemporaryDirectory() as tmp:
            # The program is installed elsewhere: the build's stands for it.
            path = os.path.join(tmp, "kilnd.service")
            with open(path, "w") as f:
                f.write(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=" + os.path.join(BUILD, "kilnd"),
                               text))
            r = subprocess.run(["systemd-analyze", "verify", "--man=no", path], text=True,
                               capture_output=True, check=False)
        self.assertEqual((r.returncode, r.stderr), (0, ""))

    def test_the_unit_says_what_kilnd_needs(self):
        with open(UNIT) as f:
            lines = f.read().splitlines()
        for line in ("Type=notify", "Restart=on-failure", "StateDirectory=kiln", "Delegate=yes",
                     "KillMode=mixed"):
            self.assertIn(line, lines)

    def test_kilnd_notifies(self):
        """What systemd would hear, from start to end."""
        with tempfile.TemporaryDirectory(prefix="ku", dir="/tmp") as tmp:
            path = os.path.join(tmp, "notify")
            manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            manager.bind(path)
            manager.settimeout(30)
            p = subprocess.Popen([os.path.join(BUILD, "kilnd"), "--state", os.path.join(tmp, "s"),
                                  "--listen", "127.0.0.1:0", "--cgroup",
                                  f"kiln-test-{os.getpid()}"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, env={**os.environ,
                                                                 "NOTIFY_SOCKET": path})
            try:
                self.assertRegex(manager.recv(4096).decode(),
                                 r"^READY=1\nSTATUS=.*http://127\.0\.0\.1:\d+")
                p.send_signal(signal.SIGTERM)
                self.assertIn("STOPPING=1", manager.recv(4096).decode())
                self.assertEqual(p.wait(30), 0)
            finally:
                p.kill()
                p.wait()
                manager.close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
