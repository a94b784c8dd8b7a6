"""What every step stands on: commands as one would type them, checks, calls of functions."""
import http.client
import json
import os
import re
import subprocess
import tempfile
import time

from demonstration.screen import TTY, Failed, say, show

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Stage:
    def __init__(self, args):
        self.args = args
        self.build = os.path.abspath(args.build)
        self.dir = tempfile.mkdtemp(prefix="kiln-demo-")
        self.env = dict(os.environ, KILN_CONFIG=os.path.join(self.dir, "config.json"),
                        TMPDIR=self.dir,   # what is left over there is ours
                        PATH=self.build + ":" + os.environ.get("PATH", ""))
        for name in ("KILN_GATEWAY", "OPENFAAS_URL", "KILN_TOKEN"):
            self.env.pop(name, None)
        self.node = None
        self.url = self.token = None
        self.rows = []               # of the last table
        self.checks = []             # (what, right, detail)
        self.cgroup = f"kiln-demo-{os.getpid()}"

    # -- running things

    def path(self, name):
        return os.path.join(self.dir, name)

    def run(self, *args, shown=True, limit=30, **kw):
        """Run a command, show it as one would type it, and what it printed."""
        if shown:
            say("   $ " + " ".join(os.path.relpath(a, ROOT) if a.startswith(self.build) else
                                   f"'{a}'" if re.search(r"[ {}\"*]", a) else a for a in args))
        with subprocess.Popen(args, cwd=ROOT, env=self.env, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as p:
            try:
                out, err = p.communicate()
            except KeyboardInterrupt:
                p.terminate()      # it has things to undo: not killed at once
                p.wait(20)
                raise
        if shown:
            show(out + err, limit)
        return subprocess.CompletedProcess(args, p.returncode, out, err)

    def need(self, *args, **kw):
        r = self.run(*args, **kw)
        if r.returncode != 0:
            if not kw.get("shown", True):
                show(r.stdout + r.stderr)
            raise Failed(f"'{' '.join(args)}' ended with status {r.returncode}")
        return r.stdout

    def kiln(self, *args, **kw):
        return self.need(os.path.join(self.build, "kiln"), *args, **kw)

    def check(self, what, right, detail=""):
        self.checks.append((what, bool(right)))
        sign = "right" if right else "WRONG"
        if TTY:
            sign = f"\033[3{2 if right else 1}m{sign}\033[0m"
        say(f"   {sign}: {what}{': ' + str(detail) if detail != '' else ''}")
        return right

    # -- calling functions

    def connect(self):
        host, port = self.url.removeprefix("http://").split(":")
        return http.client.HTTPConnection(host, int(port), timeout=120)

    def call(self, conn, method, path, body=b"", headers=()):
        """One request. Returns status, headers, body, seconds."""
        began = time.perf_counter()
        conn.request(method, path, body, dict({"Authorization": "Bearer " + self.token}, **dict(headers)))
        reply = conn.getresponse()
        data = reply.read()
        return reply.status, reply.headers, data, time.perf_counter() - began

    def api(self, method, path, body=None):
        conn = self.connect()
        try:
            status, _, data, _ = self.call(conn, method, path,
                                           json.dumps(body).encode() if body is not None else b"",
                                           {"Content-Type": "application/json"})
        finally:
            conn.close()
        if status >= 400:
            raise Failed(f"{method} {path}: {status} {data.decode(errors='replace').strip()}")
        return json.loads(data) if data.strip() else None

    def put_to_sleep(self, name):
        """No instance any more: the next call is a cold one."""
        self.api("POST", f"/system/scale-function/{name}", {"serviceName": name, "replicas": 0})
        until = time.monotonic() + 30
        while self.api("GET", f"/system/function/{name}")["replicas"] > 0:
            if time.monotonic() > until:
                raise Failed(f"the instances of {name} do not stop")
            time.sleep(0.002)

    @staticmethod
    def phases(headers):
        """Server-Timing as [(name, seconds)]."""
        return [(m[1], float(m[2]) / 1e3) for m in
                re.finditer(r"([\w-]+);dur=([\d.]+)", headers.get("Server-Timing", ""))]

    def row(self, **kw):
        self.rows.append(kw)
