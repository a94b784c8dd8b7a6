"""A node's life: a crowd before a sleeping function, idling, a secret, updates under load, a death."""
import base64
import json
import os
import re
import threading
import time

from demonstration.screen import Failed, heading, ms, progress, say, show
from demonstration.stage import Stage

CROWD, MOST = 500, 3
UPDATES = 5


class Callers:
    """Threads that call one function until they are told to stop, each on a connection of its own."""

    def __init__(self, stage, name, body, n):
        self.stage, self.name, self.body = stage, name, body
        self.answers, self.stopping = [], threading.Event()
        self.threads = [threading.Thread(target=self.go_on) for _ in range(n)]
        for t in self.threads:
            t.start()

    def go_on(self):
        conn = self.stage.connect()
        while not self.stopping.is_set():
            status, _, data, _ = self.stage.call(conn, "POST", f"/function/{self.name}", self.body)
            self.answers.append((status, data))
        conn.close()

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join()
        return self.answers


class Life(Stage):
    def step_life(self):
        heading(6, "A node's life")
        if self.classes["bare"]["state"] == "works":
            self.show_crowd()
            self.show_updates()
        if self.classes["container"]["state"] == "works":
            self.show_secret()
        self.show_death()

    def starts(self, name):
        conn = self.connect()
        text = self.call(conn, "GET", "/metrics")[2].decode()
        conn.close()
        found = re.findall(rf'^kiln_starts_total{{[^}}]*"{name}[."][^}}]*}} (\d+)', text, re.M)
        return sum(map(int, found))

    def show_crowd(self):
        say(f"\n   {CROWD} requests at once before a function that sleeps; it may have {MOST} instances")
        self.kiln("deploy", "crowd", "--image", "denoise:latest", "--label",
                  f"com.openfaas.scale.max={MOST}", "--label", "com.openfaas.scale.zero=true", "--label",
                  "com.openfaas.scale.zero-duration=1s")
        answers, gate = [], threading.Barrier(CROWD + 1)

        def one():
            conn = self.connect()
            gate.wait()
            status, _, data, _ = self.call(conn, "POST", "/function/crowd", b"[1, 9, 2]")
            answers.append((status, data.strip()))
            conn.close()

        threads = [threading.Thread(target=one) for _ in range(CROWD)]
        for t in threads:
            t.start()
        began = time.perf_counter()
        gate.wait()
        for t in threads:
            t.join()
        took, right = time.perf_counter() - began, [a for a in answers if a[0] == 200]
        self.check("all are answered, and right", len(right) == CROWD and
                   all(json.loads(d) == [1, 2, 2] for _, d in right), ms(took))
        self.check(f"with {MOST} starts at most", 1 <= self.starts("crowd") <= MOST,
                   self.starts("crowd"))
        until = time.monotonic() + 20
        while self.api("GET", "/system/function/crowd")["replicas"] and time.monotonic() < until:
            time.sleep(0.1)
        self.check("it idles, and has no instance any more",
                   self.api("GET", "/system/function/crowd")["replicas"] == 0)
        self.kiln("remove", "crowd", shown=False)

    def show_updates(self):
        say(f"\n   {UPDATES} updates of a function while it is called")
        callers = Callers(self, "denoise", b"[3, 9, 4]", 4)
        try:
            for i in range(UPDATES):
                self.kiln("deploy", "denoise", "--image", "denoise:latest", "--env", f"REVISION={i}",
                          shown=i == 0)
                time.sleep(0.2)
                progress(f"update {i + 1} of {UPDATES}: {len(callers.answers)} answers", i + 1 == UPDATES)
        finally:
            answers = callers.stop()
        wrong = [a for a in answers if a[0] != 200 or json.loads(a[1]) != [3, 4, 4]]
        self.check(f"none of {len(answers)} requests failed", answers and not wrong, wrong[:2] or "")

    def show_secret(self):
        say("\n   a secret, kept by the node, is a file of the function")
        secret = os.urandom(9).hex()
        with open(self.path("secret"), "w") as f:
            f.write(secret)
        self.kiln("secret", "create", "demo-key", "--from-file", self.path("secret"))
        self.kiln("deploy", "reader", "--image", "telemetry:latest", "--contract", "stdio", "--fprocess",
                  "/usr/bin/python3.11 -m base64 -e /var/openfaas/secrets/demo-key", "--class", "container",
                  "--secret", "demo-key")
        status, _, body, _ = self.curl("/function/reader", "-d", "")
        self.check("the function reads it", status == 200 and
                   base64.b64decode(body or b"") == secret.encode(), status)
        with open(self.path("node/kiln.db"), "rb") as f:
            self.check("the node's database does not show it", secret.encode() not in f.read())

    def show_death(self):
        say("\n   the node is killed, as by a power cut, and started again")
        before = self.api("GET", "/system/functions")
        self.node.kill()
        self.node.wait()
        self.node.stdout.close()
        self.log.close()
        show("$ kill -9 $(pidof kilnd)")
        began = time.perf_counter()
        self.start_node(self.url.removeprefix("http://"))
        took = time.perf_counter() - began
        self.kiln("login", "--credentials", self.path("node/credentials"), shown=False)
        after = self.api("GET", "/system/functions")
        self.check(f"it is back with its {len(before)} functions", after and
                   [f["name"] for f in after] == [f["name"] for f in before], ms(took))
        status, headers, body, took = self.curl("/function/checksum", "--data-binary", "@README.md")
        if status != 200:
            raise Failed(f"checksum: {status} {body.decode(errors='replace')}")
        self.check("they answer", json.loads(body)["bytes"] == os.path.getsize("README.md"),
                   f"{headers.get('X-Kiln-Start')}, {ms(took)}")
