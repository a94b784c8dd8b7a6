#!/usr/bin/env python3
"""kilnd is killed at random moments, under load: what it acknowledged must be there when it comes
back, what it had not acknowledged may be there whole or not at all, and nothing of the dead one may
be left: no process, mount, interface, cgroup, run folder. Then disks that are full and files that
are spoiled.

Usage: survival.py BUILD_DIR [--kills N] [--seconds S] [--seed N]
N kills, or as many more as S seconds need. `make soak` gives more of both."""
import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from load import ABSENT, Load
from node import Node, alone, bare_image, cgroups_of, census, processes_of, wait_until

p = argparse.ArgumentParser()
p.add_argument("build")
p.add_argument("--kills", type=int, default=20)
p.add_argument("--seconds", type=float, default=0)
p.add_argument("--seed", type=int, default=None)
OPTIONS = p.parse_args()
BUILD = os.path.abspath(OPTIONS.build)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GUEST = os.path.join(BUILD, "test", "host", "bare-guest")

class Killed(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="kn-sv", dir="/tmp")
        os.chmod(self.tmp, 0o711)
        self.node = Node(BUILD, self.tmp)
        self.before = census(BUILD, self.node.cgroup)

    def tearDown(self):
        if self.node.process and self.node.process.poll() is None:
            self.node.kill()
        shutil.rmtree(self.tmp)

    # -- what must hold after each death

    def check_nothing_runs(self):
        gone = wait_until(lambda: not processes_of(BUILD), 10)
        self.assertTrue(gone, f"outlived the node: {processes_of(BUILD)}")

    def check_ledger(self, load):
        found = self.node.functions()
        for name, book in load.functions.items():
            f = found.pop(name, None)
            state = f["envVars"]["REV"] if f else ABSENT
            self.assertIn(state, book.may_be(), f"function {name}; {self.node.log()[-1500:]}")
            book.acknowledged(state)
        self.assertEqual(found, {}, "functions that nobody deployed")
        secrets = {s["name"] for s in json.loads(self.node.ask("GET", "/system/secrets")[1])}
        for name, book in load.secrets.items():
            state = "there" if name in secrets else ABSENT
            self.assertIn(state, book.may_be(), f"secret {name}")
            book.acknowledged(state)
        images = {i["name"] for i in json.loads(self.node.ask("GET", "/kiln/v1/images")[1])}
        for name, book in load.images.items():
            state = "there" if name in images else ABSENT
            self.assertIn(state, book.may_be(), f"image {name}")
            book.acknowledged(state)

    def check_leftovers(self):
        """Run folders and cgroups are those of instances that live now: none, nothing was called."""
        run = os.path.join(self.node.state, "run")
        self.assertEqual([f for f in os.listdir(run) if os.path.isdir(os.path.join(run, f))], [])
        tmp = os.path.join(self.node.state, "tmp")
        files = [f for _, _, files in os.walk(tmp) for f in files]
        self.assertEqual([f for f in files if f != "calls.sock"], [])   # the living node's own
        # the parent may stay, once per hierarchy
        inside = [c for c in cgroups_of(self.node.cgroup)
                  if not c.rstrip("/").endswith(self.node.cgroup)]
        self.assertEqual(inside, [])
        for what in ("mounts", "interfaces", "tables", "run", "shared memory"):
            self.assertEqual(census(BUILD, self.node.cgroup)[what], self.before[what], what)

    def check_all_work(self, load):
        for name, book in load.functions.items():
            status, right = load.call(name, b"still here")
            self.assertEqual(status, 404 if book.acked is ABSENT else 200, self.node.log()[-1500:])
            self.assertTrue(right, name)

    # -- the tests

    def kill_while_starting(self, rnd):
        """A node that dies before it is ready, at any of its steps."""
        for _ in range(rnd.randrange(3)):
            self.node.spawn()
            time.sleep(rnd.random() * 0.06)
            self.node.kill()
            self.check_nothing_runs()

    def add_containers(self, load):
        """Where there are user namespaces; one of them has a network of its own."""
        if "users" not in os.environ.get("KN_DECLARED", "users").split():
            return
        tar = os.path.join(self.tmp, "checksum.tar")
        subprocess.run([os.path.join(ROOT, "tools", "images", "build"), "checksum", tar], check=True,
                       stdout=subprocess.DEVNULL)
        with open(tar, "rb") as f:
            status, body = self.node.ask("POST", "/kiln/v1/images?name=checksum:1", f.read())
        os.unlink(tar)
        self.assertEqual(status, 201, body)
        for name, more in (("f6", {}), ("f7", {}), ("f8", {"kiln.egress": "192.0.2.7:80/tcp"})):
            load.containers[name] = {"image": "checksum:1", "annotations": {
                "kiln.class": "container", "kiln.contract": "stdio", **more}}

    def test_killed_at_random_moments_under_load(self):
        seed = OPTIONS.seed if OPTIONS.seed is not None else random.randrange(1 << 30)
        rnd = random.Random(seed)
        load = Load(self.node, seed)
        kills, began = 0, time.monotonic()
        self.node.start()
        self.assertEqual(self.node.import_bare(GUEST, "guest:1")[0], 201)
        load.archive = bare_image(GUEST, "image:1")
        self.add_containers(load)
        while kills < OPTIONS.kills or time.monotonic() - began < OPTIONS.seconds:
            load.start()
            time.sleep(rnd.random() * 0.5)
            self.node.kill()
            kills += 1
            load.stop()
            self.assertEqual(load.faults, [], f"seed {seed}, kill {kills}")
            self.check_nothing_runs()
            self.kill_while_starting(rnd)
            self.node.start()
            told = f"seed {seed}, kill {kills}"
            print(f"survival: {told}", file=sys.stderr) if kills % 50 == 0 else None
            self.check_leftovers()
            self.check_ledger(load)
            if kills % 5 == 0:
                self.check_all_work(load)
        self.assertEqual(self.node.stop(), 0, self.node.log())
        self.check_nothing_runs()
        self.check_leftovers()
        print(f"survival: {kills} kills, seed {seed}, answers {dict(sorted(load.counts.items()))}",
              file=sys.stderr)
        self.assertEqual(census(BUILD, self.node.cgroup), self.before)

    def test_a_killed_instance_is_replaced(self):
        self.node.start()
        self.node.import_bare(GUEST, "guest:1")
        self.node.ask("POST", "/system/functions", {"service": "f", "image": "guest:1"})
        self.assertEqual(self.node.ask("POST", "/function/f/echo", b"1"), (200, b"1"))
        monitors = [c for c in self.node.children() if os.path.exists(f"/proc/{c}/exe")]
        for pid in monitors:
            os.kill(pid, signal.SIGKILL)
        # one call may still meet the dead one; what it got cannot be known, so it is not repeated
        answers = [self.node.ask("POST", "/function/f/echo", b"2") for _ in range(3)]
        self.assertIn(answers[0][0], (200, 502), answers)
        self.assertEqual(answers[1:], [(200, b"2")] * 2)
        self.assertEqual(self.node.stop(), 0)


class FullDisk(unittest.TestCase):
    """The state folder on a small tmpfs; this test's own mount namespace has it."""

    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="kn-sv", dir="/tmp")
        os.chmod(self.tmp, 0o711)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0711", "kn-small", self.tmp],
                       check=True)
        self.node = Node(BUILD, self.tmp)
        self.node.log_path = self.tmp + ".log"
        self.filler = os.path.join(self.tmp, "filler")

    def tearDown(self):
        if self.node.process and self.node.process.poll() is None:
            self.node.kill()
        subprocess.run(["umount", self.tmp], check=True)
        os.rmdir(self.tmp)
        os.unlink(self.node.log_path)

    def fill(self):
        with open(self.filler, "ab", buffering=0) as f:
            block = bytes(65536)
            while block:
                try:
                    f.write(block)
                except OSError:
                    block = block[:len(block) // 2]

    def empty(self):
        os.unlink(self.filler)

    def deploy(self, name):
        return self.node.ask("POST", "/system/functions", {"service": name, "image": "guest:1"})

    def test_full_disk_is_507_and_heals(self):
        self.node.start()
        self.assertEqual(self.node.import_bare(GUEST, "guest:1")[0], 201)
        self.assertEqual(self.deploy("before")[0], 202)
        self.assertEqual(self.node.ask("POST", "/function/before/echo", b"1"), (200, b"1"))
        self.fill()
        refused = None
        for i in range(40):   # the database may have a page or two to spare
            status, body = self.deploy(f"full{i}")
            if status != 202:
                refused = (status, body)
                break
        self.assertIsNotNone(refused, "forty functions went onto a full disk")
        self.assertEqual(refused[0], 507, refused)
        self.assertRegex(json.loads(refused[1])["error"], "(?i)(space|full)")
        status, body = self.node.import_bare(GUEST, "more:1")
        self.assertEqual(status, 507, body)
        acknowledged = sorted(self.node.functions())
        self.assertNotIn(f"full{i}", acknowledged)
        # what runs goes on, and what is there can start again
        self.assertEqual(self.node.ask("POST", "/function/before/echo", b"2"), (200, b"2"))
        self.node.kill()
        self.empty()
        self.node.start()
        self.assertEqual(sorted(self.node.functions()), acknowledged)
        self.fill()
        self.assertEqual(self.node.import_bare(GUEST, "more:1")[0], 507)
        self.empty()
        self.assertEqual(self.node.import_bare(GUEST, "more:1")[0], 201)   # healed by itself
        self.assertEqual(self.deploy("after")[0], 202)
        self.assertEqual(self.node.stop(), 0)

    def test_a_node_starts_on_a_full_disk_or_says_why_not(self):
        self.node.start()
        self.node.import_bare(GUEST, "guest:1")
        self.deploy("f")
        self.node.kill()
        self.fill()
        self.node.spawn()
        line = self.node.process.stdout.readline()
        if line.startswith(b"ready"):
            self.node.kill()
            return
        self.assertEqual(self.node.process.wait(timeout=30), 1)
        self.node.process.stdout.close()
        self.assertRegex(self.node.log(), "(?i)no space")
        self.empty()
        self.node.start()
        self.assertIn("f", self.node.functions())


class Spoiled(unittest.TestCase):
    """Files of the state folder that a disk or a person changed."""

    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="kn-sv", dir="/tmp")
        os.chmod(self.tmp, 0o711)
        self.node = Node(BUILD, self.tmp)
        self.node.start()
        self.assertEqual(self.node.import_bare(GUEST, "guest:1")[0], 201)
        for i in range(40):
            self.node.ask("POST", "/system/functions",
                          {"service": f"f{i}", "image": "guest:1", "envVars": {"A": "x" * 500}})
        self.assertEqual(self.node.stop(), 0)

    def tearDown(self):
        if self.node.process and self.node.process.poll() is None:
            self.node.kill()
        shutil.rmtree(self.tmp)

    def damage(self, path, at, text=b"\xde\xad\xbe\xef" * 64):
        mode = os.stat(path).st_mode
        os.chmod(path, 0o600)
        with open(path, "r+b") as f:
            f.seek(at)
            f.write(text)
        os.chmod(path, mode)

    def refuses(self, pattern):
        self.node.spawn()
        self.assertEqual(self.node.process.wait(timeout=30), 1, self.node.log())
        self.assertEqual(self.node.process.stdout.read(), b"")
        self.node.process.stdout.close()
        self.assertRegex(self.node.log(), pattern)

    def is_cured_by_an_import(self):
        self.assertEqual(self.node.import_bare(GUEST, "guest:1")[0], 201)
        answer = None

        def answers():
            nonlocal answer
            answer = self.node.ask("POST", "/function/f0/echo", b"1")
            return answer[0] == 200
        self.assertTrue(wait_until(answers), answer)

    def test_every_page_of_the_database(self):
        """Either it is refused by name, or nothing that anybody stored was in the damaged place."""
        self.node.start()
        deployed = self.node.functions()
        self.assertEqual(len(deployed), 40)
        self.assertEqual(self.node.stop(), 0)
        path = os.path.join(self.node.state, "kiln.db")
        with open(path, "rb") as f:
            whole = f.read()
        refused = 0
        for page in range(0, len(whole), 4096):
            with open(path, "wb") as f:
                f.write(whole)
            self.damage(path, page + random.choice((0, 16, 64, 1000, 2000, 3000, 3800)))
            self.node.spawn()
            try:
                self.node.wait_ready()
            except AssertionError:
                self.assertEqual(self.node.process.wait(timeout=30), 1)
                self.node.process.stdout.close()
                refused += 1
                continue
            for name, f in self.node.functions().items():
                self.assertEqual(f["envVars"], deployed.pop(name)["envVars"], f"page {page}")
            self.assertEqual(deployed, {}, f"page {page}")
            deployed = self.node.functions()
            self.node.kill()
        self.assertGreater(refused, 0)
        self.assertRegex(self.node.log(), "kiln.db.*damaged")
        with open(path, "wb") as f:
            f.write(whole)
        self.node.start()
        self.assertEqual(len(self.node.functions()), 40)

    def blobs(self):
        folder = os.path.join(self.node.state, "images", "blobs", "sha256")
        return sorted((os.path.join(folder, n) for n in os.listdir(folder)), key=os.path.getsize)

    def test_a_spoiled_program_is_not_run(self):
        elf = self.blobs()[-1]
        self.damage(elf, os.path.getsize(elf) // 2)
        self.node.start()
        status, body = self.node.ask("POST", "/function/f0/echo", b"1")
        self.assertIn(status, (502, 503), body)
        self.assertRegex(body.decode(), os.path.basename(elf)[:12])
        self.is_cured_by_an_import()

    def test_a_spoiled_manifest_is_named(self):
        self.damage(self.blobs()[0], 0, b"{")
        self.damage(self.blobs()[1], 3, b"\0\0\0")
        self.node.start()
        status, body = self.node.ask("POST", "/function/f0/echo", b"1")
        self.assertIn(status, (502, 503), body)
        self.assertIn(b"guest:1", body)
        self.assertRegex(self.node.log(), "stored function cannot run.*guest:1")
        self.is_cured_by_an_import()


if __name__ == "__main__":
    if os.geteuid() != 0 or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("needs root and /dev/kvm")
        sys.exit(77)
    alone()
    unittest.main(argv=sys.argv[:1], verbosity=2)
