#!/usr/bin/env python3
"""What README.md says is so: the tour runs as it stands, links lead somewhere. (The table of
dependencies is test/unit/layers.py's business.)

Usage: readme.py BUILD_DIR"""
import os
import re
import subprocess
import sys
import tempfile
import unittest

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOUR, FIREWALL = "/tmp/kiln-tour", "/tmp/kiln-fw"


def text(name):
    with open(os.path.join(ROOT, name)) as f:
        return f.read()


def tours():
    """The tour, and that with the firewall."""
    return re.findall(r"<!-- test/host/readme.py .*?-->\n```sh\n(.*?)```", text("README.md"), re.S)


def as_newcomer(script):
    """In a folder as a newcomer has it, this source tree with build/ in it, and in namespaces of its
    own, so that port 8080 and /run are free; -e to stop early."""
    with tempfile.TemporaryDirectory() as tmp:
        for name in os.listdir(ROOT):
            if not name.startswith("build"):
                os.symlink(os.path.join(ROOT, name), os.path.join(tmp, name))
        os.symlink(BUILD, os.path.join(tmp, "build"))
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": tmp}
        return subprocess.run(["unshare", "--net", "--mount", "sh", "-c",
                               'mount -t tmpfs kn-run /run && ip link set lo up && exec bash -ec "$0"',
                               script], cwd=tmp, env=env, capture_output=True, text=True, timeout=100)


def declared(thing):
    return thing in os.environ.get("KN_DECLARED", "").split()


class Readme(unittest.TestCase):
    def test_tour_runs_as_written(self):
        for thing, there in (("root", os.geteuid() == 0), ("kvm", os.path.exists("/dev/kvm"))):
            if not there:
                if declared(thing):
                    self.fail(f"{thing} is declared and missing")
                self.skipTest(f"no {thing}")
        self.assertLessEqual(len(tours()[0].splitlines()), 12, "the tour has grown")
        self.assertFalse(os.path.exists(TOUR), f"{TOUR} is in the way")
        r = as_newcomer(tours()[0])
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        for word in ("Deployed denoise", "cold", "Class:", "up at http://127.0.0.1:8080"):
            self.assertIn(word, r.stdout + r.stderr)
        self.assertFalse(os.path.exists(TOUR))

    def test_firewall_runs_as_written(self):
        if os.geteuid() != 0:
            self.skipTest("no root")
        self.assertFalse(os.path.exists(FIREWALL), f"{FIREWALL} is in the way")
        r = as_newcomer("export PATH=$PWD/build:$PATH\n" + tours()[1])
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        for word in ("Deployed firewall", "3 received", 'rule="ping"} 3', 'rule="pong"} 3'):
            self.assertIn(word, r.stdout + r.stderr)
        self.assertFalse(os.path.exists(FIREWALL))

    def test_links_lead_somewhere(self):
        for page in ("README.md", "ARCHITECTURE.md", "STYLE.md", "bench/README.md", "doc/README.md"):
            for link in re.findall(r"\]\(([^)#:]+)\)", text(page)):
                path = os.path.join(ROOT, os.path.dirname(page), link)
                self.assertTrue(os.path.exists(path), f"{page}: {link}")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
