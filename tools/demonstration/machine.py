"""The machine, the node on it, the images in its store; and the end of all three."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

from demonstration.census import KINDS, end_all
from demonstration.screen import Failed, heading, progress, say, show
from demonstration.stage import ROOT, Stage


class Machine(Stage):
    def step_doctor(self):
        heading(1, "What this machine can run")
        r = self.run(os.path.join(self.build, "kiln"), "doctor", limit=60)
        report = json.loads(self.run(os.path.join(self.build, "kiln"), "doctor", "--json",
                                     shown=False).stdout)
        self.classes = {c["class"]: c for c in report["classes"]}
        self.check("kiln doctor finds every class that this machine can run ready",
                   r.returncode == 0, report["verdict"])
        if self.classes["microvm"]["state"] != "works":
            raise Failed("Linux microVMs do not run here: " + self.classes["microvm"]["why"])

    def start_node(self, listen="127.0.0.1:0"):
        self.log = open(self.path("kilnd.log"), "ab")
        args = [os.path.join(self.build, "kilnd"), "--state", self.path("node"), "--listen",
                listen, "--cgroup", self.cgroup, "--function-auth", "token"]
        say("\n   $ " + " ".join(os.path.relpath(a, ROOT) if a.startswith(self.build) else a for a in args))
        env = {k: v for k, v in self.env.items() if not k.startswith("KILN_")}
        self.node = subprocess.Popen(args, cwd=self.dir, env=env, stdout=subprocess.PIPE,
                                     stderr=self.log, text=True, start_new_session=True)
        line = self.node.stdout.readline()
        m = re.match(r"ready (http://[\d.]+:\d+)$", line.strip())
        if not m:
            self.show_log()
            raise Failed("the node did not start")
        self.url = m[1]
        show(line)
        self.env["KILN_GATEWAY"] = self.url

    def show_log(self, lines=20):
        try:
            with open(self.path("kilnd.log"), errors="replace") as f:
                show("".join(f.readlines()[-lines:]))
        except OSError:
            pass

    # -- images

    def step_images(self):
        heading(2, "Images, built from Debian's packages, into the node's store")
        self.start_node()
        self.kiln("login", "--credentials", self.path("node/credentials"))
        for name in ("telemetry", "checksum"):
            began = time.monotonic()
            out = self.path(name + ".tar")
            progress(f"building {name} ...")
            self.need("tools/images/build", name, out)
            progress(f"{name}: built in {time.monotonic() - began:.1f} s", done=True)
            if name == "checksum":
                self.push(out, name + ":latest")
            else:
                self.kiln("image", "import", out, "--name", name + ":latest")
        self.kiln("build", "examples/denoise/denoise.c", "-o", self.path("denoise.tar"), "--name",
                  "denoise:latest")
        self.kiln("image", "import", self.path("denoise.tar"))
        self.images = {i["name"]: i for i in json.loads(self.kiln("image", "list", "--json", shown=False))}
        self.kiln("image", "list")
        self.check("three images are in the store", len(self.images) == 3, ", ".join(self.images))


    # -- the end

    def stop_node(self):
        if not self.node:
            return
        self.node.send_signal(signal.SIGTERM)
        try:
            code = self.node.wait(60)
        except subprocess.TimeoutExpired:
            self.node.kill()
            code = self.node.wait()
        self.node.stdout.close()
        self.log.close()
        self.node = None
        self.check("the node finished and left with status 0", code == 0, code or "")

    def clean_up(self, before, interrupted):
        """Stop, remove, and look whether anything is left. Returns what is."""
        try:
            self.stop_node()
        finally:
            if interrupted:
                end_all(15)        # what was under way
            if not self.args.keep:
                shutil.rmtree(self.dir, ignore_errors=True)
        until = time.monotonic() + 5
        while True:   # the kernel takes a moment to remove what has ended
            left = {kind: sorted(look() - before[kind]) for kind, look in KINDS.items()}
            ours = {kind: [x for x in xs if self.is_ours(kind, x)] for kind, xs in left.items()}
            if not any(ours.values()) or time.monotonic() > until:
                return ours
            time.sleep(0.05)

    def is_ours(self, kind, what):
        """Other programs make files, mounts, cgroups and interfaces meanwhile, another Kiln among
        them: those do not count. Whatever this node makes lies in its folder or its cgroup."""
        if kind == "process":
            return True   # a descendant of this process
        if kind == "interface":
            return what.startswith(("kn", "kiln"))
        names = (self.cgroup, os.path.basename(self.dir))
        return any(n in what for n in names) and not (self.args.keep and self.dir in what)

    def push(self, archive, name):
        """With somebody else's tool: the node is a registry. The secret goes over standard input."""
        with open(self.path("node/credentials")) as f:
            creds = dict(line.strip().split("=", 1) for line in f if "=" in line)
        registry, auth = self.url.removeprefix("http://"), self.path("auth.json")
        r = subprocess.run(["skopeo", "login", "--tls-verify=false", "--authfile", auth, "-u",
                            creds["client_id"], "--password-stdin", registry],
                           input=creds["client_secret"], capture_output=True, text=True)
        if r.returncode != 0:
            raise Failed("skopeo login: " + r.stderr)
        self.need("skopeo", "copy", "--quiet", "--dest-tls-verify=false", "--authfile", auth,
                  "oci-archive:" + archive, f"docker://{registry}/{name}")
