#!/usr/bin/env python3
"""The demo with few calls, whole and interrupted: every check right, and nothing left behind.

Usage: demo.py BUILD_DIR"""
import os
import signal
import subprocess
import sys
import unittest

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FEW = ["--build", BUILD, "--cold", "3", "--warm", "50", "--events", "10"]


def start():
    return subprocess.Popen([os.path.join(ROOT, "tools", "demo"), *FEW], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def left():
    """Folders of demos, and processes that say where they run."""
    found = [name for name in os.listdir("/tmp") if name.startswith("kiln-demo-")]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "/tmp/kiln-demo-" in line and int(pid) != os.getpid():
            found.append(line)
    return found


class Demo(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0:
            if "root" in os.environ.get("KN_DECLARED", "").split():
                self.fail("root is declared and missing")
            self.skipTest("needs root")
        self.before = set(left())

    def check_nothing_left(self, output):
        self.assertEqual(set(left()) - self.before, set(), output)
        for kind in ("process", "mount", "interface", "cgroup", "file"):
            self.assertIn(f"right: no {kind} is left", output)

    def test_whole(self):
        p = start()
        output, _ = p.communicate(timeout=280)
        self.assertEqual(p.returncode, 0, output)
        self.assertNotIn("WRONG", output)
        names = ["telemetry", "checksum", "denoise", "firewall"]
        if "no containers here" not in output:   # a chroot has no user namespaces
            names.append("contained")
        for name in names:
            self.assertRegex(output, rf"   {name} .* right")
        self.check_nothing_left(output)

    def interrupt_after(self, text, how):
        p = start()
        output = ""
        for line in p.stdout:
            output += line
            if text in line:
                os.killpg(p.pid, how)
                break
        rest, _ = p.communicate(timeout=100)
        output += rest
        self.assertEqual(p.returncode, 130, output)
        self.check_nothing_left(output)

    def test_interrupted_while_an_image_goes_in(self):
        self.interrupt_after("kiln image import", signal.SIGINT)

    def test_interrupted_while_a_guest_boots(self):
        self.interrupt_after("$ curl -H 'ce-specversion", signal.SIGINT)

    def test_ended_by_its_supervisor(self):
        self.interrupt_after("4. A function", signal.SIGTERM)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
