#!/usr/bin/env python3
"""A node's engine from outside: bursts, idling, updates under load, scaling, room, secrets, and
functions that take what they can get. Bare functions where nothing else is needed, since they start
in milliseconds; containers for files, processes and output.

Usage: engine.py BUILD_DIR [--class microvm]
With a class, what containers do here is done by functions of that class."""
import argparse
import concurrent.futures
import hashlib
import io
import json
import os
import re
import resource
import shutil
import socket
import struct
import sys
import tarfile
import tempfile
import threading
import time
import unittest

from node import Node, alone, wait_until

p = argparse.ArgumentParser()
p.add_argument("build")
p.add_argument("--class", dest="tenant_class", default="container")
OPTIONS, REST = p.parse_known_args()
BUILD = os.path.abspath(OPTIONS.build)
GUEST = os.path.join(BUILD, "test", "host", "bare-guest")
TENANT = os.path.join(BUILD, "test", "host", "tenant")


def one_file_image(path, name, user):
    """An OCI archive whose image is one static program."""
    blobs = {}

    def add(data):
        digest = hashlib.sha256(data).hexdigest()
        blobs["blobs/sha256/" + digest] = data
        return {"digest": "sha256:" + digest, "size": len(data)}

    def tar_of(files):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for file, data, mode in files:
                info = tarfile.TarInfo(file)
                info.size, info.mode = len(data), mode
                tar.addfile(info, io.BytesIO(data))
        return out.getvalue()

    with open(path, "rb") as f:
        layer = tar_of([("app", f.read(), 0o755)])
    kind = "application/vnd.oci.image."
    config = json.dumps({"architecture": "amd64", "os": "linux",
                         "config": {"Cmd": ["/app"], "User": user},
                         "rootfs": {"type": "layers", "diff_ids":
                                    ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
        "config": {"mediaType": kind + "config.v1+json", **add(config)},
        "layers": [{"mediaType": kind + "layer.v1.tar", **add(layer)}]}).encode()
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": kind + "manifest.v1+json", **add(manifest),
         "annotations": {"org.opencontainers.image.ref.name": name}}]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return tar_of([(n, d, 0o644) for n, d in blobs.items()])


def broken(elf):
    """The same program, whose first instruction is one that ring 3 must not use."""
    entry, table = struct.unpack_from("<QQ", elf, 24)
    size, count = struct.unpack_from("<HH", elf, 54)
    for i in range(count):
        kind, _, offset, address, _, bytes_in_file = struct.unpack_from("<IIQQQQ", elf,
                                                                        table + i * size)
        if kind == 1 and address <= entry < address + bytes_in_file:
            at = offset + entry - address
            return elf[:at] + b"\xf4" + elf[at + 1:]
    raise AssertionError("the entry is in no segment")


class Case(unittest.TestCase):
    OPTIONS = ()

    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="kn-en", dir="/tmp")
        os.chmod(self.tmp, 0o711)
        self.node = Node(BUILD, self.tmp, *self.OPTIONS)
        self.addCleanup(self.end)   # unlike tearDown also after a setUp that failed
        self.node.start()
        self.import_images()

    def import_images(self):
        self.good(201, *self.node.import_bare(GUEST, "guest:1"))

    def end(self):
        process = self.node.process
        status = self.node.stop() if process and process.poll() is None else 0
        log = self.node.log()
        shutil.rmtree(self.tmp)
        self.assertEqual(status, 0, log[-2000:])

    def good(self, wanted, status, body):
        self.assertEqual(status, wanted, body)
        return json.loads(body) if body.strip() else None

    def deploy(self, name, image="guest:1", labels=None, expect=202, **more):
        labels = {f"com.openfaas.scale.{k}": str(v) for k, v in (labels or {}).items()}
        self.good(expect, *self.node.ask("PUT", "/system/functions", {
            "service": name, "image": image, "labels": labels, **more})
            if name in self.node.functions() else
            self.node.ask("POST", "/system/functions", {
                "service": name, "image": image, "labels": labels, **more}))

    def call(self, name, path="/echo", body=b"x", **fields):
        return self.node.ask("POST", f"/function/{name}{path}", body, **fields)

    def status(self, name):
        return self.good(200, *self.node.ask("GET", f"/system/function/{name}?usage=1"))

    def starts(self, name):
        text = self.node.ask("GET", "/metrics")[1].decode()
        found = re.findall(rf'^kiln_start(?:s|_failures)_total{{function_name="{name}\.openfaas-fn"'
                           r"[^}]*} (\d+)", text, re.M)
        return sum(int(n) for n in found)


class Requests(threading.Thread):
    """Clients that call without pause and keep what was not a 200."""

    def __init__(self, case, name, clients=4):
        super().__init__()
        self.case, self.name, self.clients = case, name, clients
        self.bad, self.n, self.stopping = [], 0, threading.Event()

    def client(self):
        while not self.stopping.is_set():
            try:
                status, body = self.case.call(self.name, "/hello")
            except Exception as e:
                status, body = 0, repr(e)
            self.n += 1
            if status != 200:
                self.bad.append((status, body))

    def run(self):
        with concurrent.futures.ThreadPoolExecutor(self.clients) as pool:
            for _ in range(self.clients):
                pool.submit(self.client)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()


class Scaling(Case):
    def test_500_at_once_to_a_sleeping_function_make_three_starts_at_most(self):
        self.deploy("f", labels={"max": 3})
        body = b"GET /function/f/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        sockets = []
        for _ in range(500):
            s = socket.create_connection(("127.0.0.1", self.node.port), timeout=60)
            sockets.append(s)
        for s in sockets:
            s.sendall(body)
        answers = []
        for s in sockets:
            with s, s.makefile("rb") as f:
                answers.append(f.read().split(b"\r\n", 1)[0])
        self.assertEqual(set(answers), {b"HTTP/1.1 200 OK"})
        self.assertLessEqual(self.starts("f"), 3)
        self.assertGreaterEqual(self.starts("f"), 1)

    def test_idle_function_sleeps_and_any_call_wakes_it(self):
        self.deploy("f", labels={"zero-duration": "300ms"})
        for _ in range(3):
            self.assertEqual(self.call("f", "/hello")[0], 200)
            self.assertEqual(self.status("f")["replicas"], 1)
            self.assertTrue(wait_until(lambda: self.status("f")["replicas"] == 0))
        self.assertEqual(self.status("f")["kiln"]["invocations"]["cold"], 3)
        self.assertEqual(self.status("f")["kiln"]["invocations"]["failed"], 0)

    def test_calls_at_the_moment_of_falling_asleep_are_answered(self):
        self.deploy("f", labels={"zero-duration": "20ms"})
        for i in range(200):
            status, body = self.call("f", "/hello")
            self.assertEqual(status, 200, body)
            time.sleep(0.0185 + 0.00002 * (i % 100))
        self.assertGreater(self.starts("f"), 1)

    def test_scaled_by_hand(self):
        self.deploy("f", labels={"zero-duration": "1s"})
        self.good(202, *self.node.ask("POST", "/system/scale-function/f",
                                      {"serviceName": "f", "replicas": 3}))
        self.assertTrue(wait_until(lambda: self.status("f")["availableReplicas"] == 3))
        self.good(202, *self.node.ask("POST", "/system/scale-function/f", {"replicas": 1}))
        self.assertTrue(wait_until(lambda: self.status("f")["replicas"] == 1))
        self.assertTrue(wait_until(lambda: self.status("f")["replicas"] == 0), "it never idled")
        self.assertEqual(self.status("f")["kiln"]["scale"]["wanted"], 0)


class Updates(Case):
    def wait_update(self, name):
        done = wait_until(lambda: self.status(name)["kiln"].get("update", {}).get("state") != "running")
        self.assertTrue(done, self.node.log()[-2000:])

    def test_20_updates_under_load_fail_no_request(self):
        self.deploy("f")
        with Requests(self, "f") as load:
            for rev in range(20):
                self.deploy("f", envVars={"REV": str(rev)})
                self.wait_update("f")
                self.assertNotIn("update", self.status("f")["kiln"])
        self.assertEqual(load.bad, [])
        self.assertGreater(load.n, 100)
        self.assertEqual(self.status("f")["envVars"], {"REV": "19"})
        self.assertGreaterEqual(self.starts("f"), 20)

    def test_updates_faster_than_they_start_fail_no_request(self):
        self.deploy("f")
        with Requests(self, "f") as load:
            for rev in range(20):
                self.deploy("f", envVars={"REV": str(rev)})
            self.wait_update("f")
        self.assertEqual(load.bad, [])
        self.assertEqual(self.status("f")["envVars"], {"REV": "19"})

    def test_update_that_cannot_start_is_taken_back(self):
        path = os.path.join(self.tmp, "broken")
        with open(GUEST, "rb") as good, open(path, "wb") as bad:
            bad.write(broken(good.read()))
        self.good(201, *self.node.import_bare(path, "broken:1"))
        self.deploy("f", envVars={"REV": "good"})
        self.assertEqual(self.call("f")[0], 200)
        with Requests(self, "f") as load:
            self.deploy("f", image="broken:1", envVars={"REV": "bad"})
            self.wait_update("f")
        self.assertEqual(load.bad, [])
        got = self.status("f")
        self.assertEqual(got["kiln"]["update"]["state"], "failed", got)
        self.assertTrue(got["kiln"]["update"]["error"])
        self.assertEqual(got["envVars"], {"REV": "good"})
        self.node.kill()
        self.node.start()
        self.assertEqual(self.status("f")["envVars"], {"REV": "good"})
        self.assertEqual(self.call("f")[0], 200)

    def test_removal_lets_requests_finish(self):
        self.deploy("f")
        self.call("f")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow = [pool.submit(self.call, "f", "/clock") for _ in range(4)]
            self.assertTrue(wait_until(lambda: self.status("f")["kiln"]["invocations"]["total"] >= 5))
            self.good(202, *self.node.ask("DELETE", "/system/functions", {"functionName": "f"}))
            answers = [s.result()[0] for s in slow]
        self.assertLessEqual(set(answers), {200, 404}, "404: it waited, and was told")
        self.assertEqual(self.call("f")[0], 404)


class Room(Case):
    OPTIONS = ("--memory", "40Mi", "--max-connections", "600")

    def test_idle_functions_make_room_and_busy_ones_do_not(self):
        for name in "abc":
            self.deploy(name)   # 16 MiB each
        for name in "abcabc":
            self.assertEqual(self.call(name, "/hello")[0], 200, name)
            running = sum(f["replicas"] for f in self.node.functions().values())
            self.assertLessEqual(running, 2)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            busy = [pool.submit(self.call, n, "/loop") for n in "ab"]
            self.assertTrue(wait_until(lambda: all(
                self.status(n)["kiln"]["instances"]["busy"] == 1 for n in "ab")))
            status, body = self.call("c", "/hello")
            self.assertEqual(status, 503, body)
            self.assertIn(b"--memory", body)
            for name in "ab":
                self.node.ask("DELETE", "/system/functions", {"functionName": name})
            self.node.kill()   # /loop has no end of its own
            for b in busy:
                self.assertIsNotNone(b.exception() or b.result())
        self.node.start()

    def test_function_larger_than_the_node_is_refused_with_the_fix(self):
        status, body = self.node.ask("POST", "/system/functions", {
            "service": "huge", "image": "guest:1", "limits": {"memory": "64Mi"}})
        self.assertEqual(status, 400)
        self.assertIn(b"kilnd --memory", body)

    def test_full_queue_answers_429_with_a_time(self):
        self.deploy("f", annotations={"kiln.queue": "2", "kiln.timeout": "3s"})
        self.call("f")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            calls = [pool.submit(self.call, "f", "/loop") for _ in range(6)]
            answers = [c.result() for c in calls]
        self.assertIn(429, {a[0] for a in answers}, answers)
        self.assertNotIn(500, {a[0] for a in answers})

    def test_thousands_of_connections_to_one_function_leave_its_neighbours_alone(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = min(hard, 10500)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        for name in ("f", "neighbour"):
            self.deploy(name)
            self.assertEqual(self.call(name, "/hello")[0], 200)
        sockets = []
        try:
            for i in range(wanted - 500):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", self.node.port))
                sockets.append(s)
                if i % 1000 == 999:
                    for s in sockets[-1000::2]:   # half of them ask, the others are silent
                        try:
                            s.send(b"GET /function/f/hello HTTP/1.1\r\nHost: x\r\n\r\n")
                        except OSError:
                            pass
                    status, body = self.call("neighbour", "/hello")
                    self.assertEqual(status, 200, body)
            files = len(os.listdir(f"/proc/{self.node.process.pid}/fd"))
            self.assertLess(files, 900)
            for _ in range(20):
                self.assertEqual(self.call("neighbour", "/hello")[0], 200)
        finally:
            for s in sockets:
                s.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Secrets(Case):
    def import_images(self):
        super().import_images()
        node = self.good(200, *self.node.ask("GET", "/kiln/v1/node"))
        tenant, = (c for c in node["classes"] if c["class"] == OPTIONS.tenant_class)
        if tenant["state"] != "works":
            needs = {"container": "users", "microvm": "qemu"}[OPTIONS.tenant_class]
            self.assertNotIn(needs, os.environ.get("KN_DECLARED", "").split(), tenant)
            self.skipTest(f"class {OPTIONS.tenant_class}: {tenant['why']}")
        self.good(201, *self.node.ask("POST", "/kiln/v1/images",
                                      one_file_image(TENANT, "tenant:1", "1000:1000"), timeout=120))

    def tenant(self, name, expect=202, annotations=None, **more):
        self.deploy(name, "tenant:1", expect=expect, annotations={
            "kiln.class": OPTIONS.tenant_class, "kiln.contract": "stdio", **(annotations or {})},
            limits={"memory": "128Mi"}, **more)

    def do(self, name, what):
        status, body = self.call(name, "", what.encode(), timeout=120)
        return status, body.decode()

    def set(self, method, expect, name, value):
        self.good(expect, *self.node.ask(method, "/system/secrets", {"name": name, "value": value}))

    def test_secret_is_a_file_survives_kill_and_is_rolled_out(self):
        self.tenant("t", expect=400, secrets=["key"])
        self.set("POST", 201, "key", "hunter2-in-the-clear")
        self.tenant("t", secrets=["key"])
        path = "show /var/openfaas/secrets/key"
        self.assertEqual(self.do("t", path), (200, "hunter2-in-the-clear 0440 mine\n"))
        self.node.kill()
        self.node.start()
        self.assertEqual(self.do("t", path), (200, "hunter2-in-the-clear 0440 mine\n"))
        self.set("PUT", 200, "key", "second-value")
        self.assertTrue(wait_until(lambda: self.do("t", path)[1].startswith("second-value"), 60))
        self.good(409, *self.node.ask("DELETE", "/system/secrets", {"name": "key"}))
        names = self.good(200, *self.node.ask("GET", "/system/secrets"))
        self.assertEqual([s["name"] for s in names], ["key"])
        self.assertEqual(self.node.stop(), 0)
        for folder, _, files in os.walk(self.node.state):
            for file in files:
                with open(os.path.join(folder, file), "rb") as f:
                    data = f.read()
                self.assertNotIn(b"hunter2-in-the-clear", data, file)
                self.assertNotIn(b"second-value", data, file)
        self.assertNotIn("hunter2", self.node.log())

    def test_what_a_function_takes_ends_at_its_limits(self):
        self.tenant("t", annotations={"kiln.pids": "60"})
        self.deploy("neighbour")
        self.assertEqual(self.do("t", "hello"), (200, "hello\n"))
        status, said = self.do("t", "fork")
        self.assertEqual(status, 200, said)
        n = int(re.match(r"(\d+) children, then Resource temporarily unavailable", said)[1])
        self.assertLess(n, 60)
        self.assertGreater(n, 20)
        status, said = self.do("t", "fill /tmp/file")
        self.assertTrue(status in (500, 502) or "No space left" in said or "Cannot allocate" in said,
                        (status, said))
        self.assertEqual(self.call("neighbour", "/hello")[0], 200)
        self.assertEqual(self.do("t", "hello"), (200, "hello\n"))

    def test_floods_of_lines_and_of_bytes_are_cut(self):
        self.tenant("t")
        self.deploy("neighbour")
        self.assertEqual(self.do("t", "chatter 20000")[0], 200)

        def dropped():
            text = self.node.ask("GET", "/system/logs?name=t&tail=-1")[1].decode()
            return re.search(r"\d+ lines dropped", text)
        self.assertTrue(wait_until(dropped), self.node.ask("GET", "/system/logs?name=t&tail=5")[1])
        self.assertEqual(self.call("neighbour", "/hello")[0], 200)
        before = self.node.pss_kib()
        try:
            status, body = self.call("t", "", b"pour", timeout=300)
            self.assertIn(status, (500, 502), body[:200])
        except Exception:
            pass   # a reply that had begun was cut
        self.assertLess(self.node.pss_kib(), before + 80 * 1024)
        self.assertEqual(self.call("neighbour", "/hello")[0], 200)
        self.assertEqual(self.do("t", "hello"), (200, "hello\n"))

    def test_root_that_is_read_only(self):
        self.tenant("t", readOnlyRootFilesystem=True)
        self.assertIn("Read-only file system", self.do("t", "fill /file")[1])
        self.assertEqual(self.do("t", "hello"), (200, "hello\n"))


if __name__ == "__main__":
    if os.geteuid() != 0 or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("needs root and /dev/kvm")
        sys.exit(77)
    alone()
    unittest.main(argv=[sys.argv[0], *REST], verbosity=2)
