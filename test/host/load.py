"""Clients of a node that deploy, update, remove, import and call, at random, and keep a ledger of what
they were told: what was acknowledged must hold, what was not may hold whole or not at all."""
import random
import threading

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
        jobs += [(self.importer, list(self.images)), (self.caller, names), (self.caller, names)]
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
                    {"service": name, "image": "guest:1", "envVars": {"REV": rev}})

    def importer(self, names, rnd):
        name = rnd.choice(names)
        book = self.images[name]
        if book.acked is not ABSENT and rnd.random() < 0.5:
            self.change(book, ABSENT, (204,), "DELETE", f"/kiln/v1/images?name={name}")
        else:
            self.change(book, "there", (201,), "POST", f"/kiln/v1/images?name={name}", self.archive)

    def caller(self, names, rnd):
        text = str(rnd.random()).encode()
        status, body = self.node.ask("POST", f"/function/{rnd.choice(names)}/echo", text)
        # 404: not deployed now. 429 and 503 say so. A function removed under the call is 502.
        if status == 200 and body != text:
            self.fault(f"echo of {text!r}: {body[:100]!r}")
        if status not in (200, 404, 429, 502, 503):
            self.fault(f"echo: {status} {body[:200]!r}")
        self.count(f"call {status}")
