"""Clients of a node that deploy, update, remove, import and call, at random, and keep a ledger of what
they were told: what was acknowledged must hold, what was not may hold whole or not at all."""
import json
import random
import threading
import zlib

from node import Gone

ABSENT = None


class Ledger:
    """What a client was told about one name. Its owner is one thread."""

    def __init__(self):
        self.acked, self.pending = ABSENT, []

    def may_be(self):
        return [self.acked, *self.pending]

    def begin(self, state):
        self.pending.append(state)

    def acknowledged(self, state):
        self.acked, self.pending = state, []

    def refused(self):
        self.pending.pop()


class Load:
    """Clients that go on until they are told to stop, and note every answer they got."""

    def __init__(self, node, seed):
        self.node, self.random = node, random.Random(seed)
        self.functions = {f"f{i}": Ledger() for i in range(9)}
        self.secrets = {f"s{i}": Ledger() for i in range(3)}
        # Those of the functions that are no bare ones: the rest of their deployment.
        self.containers = {}
        self.images = {f"image{i}:1": Ledger() for i in range(3)}
        self.archive = None
        self.faults, self.counts = [], {}
        self.stopping = threading.Event()
        self.threads = []

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def start(self):
        self.stopping.clear()
        names = list(self.functions)
        jobs = [(self.deployer, names[i::3]) for i in range(3)]
        jobs += [(self.importer, list(self.images)), (self.secretary, list(self.secrets)),
                 (self.caller, names), (self.caller, names)]
        seeds = [self.random.random() for _ in jobs]
        self.threads = [threading.Thread(target=self.run, args=(job, names, seed))
                        for (job, names), seed in zip(jobs, seeds)]
        for t in self.threads:
            t.start()

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join()

    def run(self, job, names, seed):
        rnd = random.Random(seed)
        try:
            while not self.stopping.is_set():
                job(names, rnd)
        except Gone:
            pass
        except Exception as e:   # reported by the main thread
            self.faults.append(repr(e))

    def fault(self, text):
        if len(self.faults) < 20:
            self.faults.append(text)

    def change(self, book, state, good, *ask):
        """One change and what its answer means for the ledger."""
        book.begin(state)
        status, body = self.node.ask(*ask)
        if status in good:
            book.acknowledged(state)
        elif status in (429, 503):   # not now, and it says so
            book.refused()
        else:
            book.refused()
            self.fault(f"{ask[0]} {ask[1]}: {status} {body[:200]!r}")
        self.count(f"{ask[0]} {status}")

    def deployer(self, names, rnd):
        name = rnd.choice(names)
        book = self.functions[name]
        there = book.acked is not ABSENT
        if there and rnd.random() < 0.3:
            self.change(book, ABSENT, (202,), "DELETE", "/system/functions",
                        {"functionName": name})
            return
        rev = str(rnd.randrange(1 << 30))
        self.change(book, rev, (200, 202), "PUT" if there else "POST", "/system/functions",
                    {"service": name, "image": "guest:1", "envVars": {"REV": rev},
                     **self.containers.get(name, {})})

    def importer(self, names, rnd):
        name = rnd.choice(names)
        book = self.images[name]
        if book.acked is not ABSENT and rnd.random() < 0.5:
            self.change(book, ABSENT, (204,), "DELETE", f"/kiln/v1/images?name={name}")
        else:
            self.change(book, "there", (201,), "POST", f"/kiln/v1/images?name={name}", self.archive)

    def secretary(self, names, rnd):
        name = rnd.choice(names)
        book = self.secrets[name]
        if book.acked is not ABSENT and rnd.random() < 0.5:
            self.change(book, ABSENT, (200, 202, 204), "DELETE", "/system/secrets", {"name": name})
        else:
            self.change(book, "there", (200, 201, 202), "POST" if book.acked is ABSENT else "PUT",
                        "/system/secrets", {"name": name, "value": str(rnd.random())})

    def call(self, name, text):
        """Status and whether a reply of 200 is right: bare functions echo, the others sum up."""
        status, body = self.node.ask("POST", f"/function/{name}/echo", text)
        if name in self.containers:
            return status, status != 200 or json.loads(body)["crc32"] == f"{zlib.crc32(text):08x}"
        return status, status != 200 or body == text

    def caller(self, names, rnd):
        text = str(rnd.random()).encode()
        name = rnd.choice(names)
        status, right = self.call(name, text)
        # 404: not deployed now. 429 and 503 say so. A function removed under the call is 502.
        if not right:
            self.fault(f"{name}: {text!r} got a wrong answer")
        if status not in (200, 404, 429, 502, 503):
            self.fault(f"{name}: {status}")
        self.count(f"call {status}")
