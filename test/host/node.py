"""What tests of a whole node share: a real kilnd on a free loopback port, its API without a client
of ours, the archive of a bare program, and a census of everything a node could leave behind."""
import base64
import glob
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

BARE = "application/vnd.kiln.bare."


def bare_image(elf, name):
    """The OCI archive of a bare program, as `kiln build` writes it."""
    blobs = {}

    def add(data, media, **more):
        digest = hashlib.sha256(data).hexdigest()
        blobs["blobs/sha256/" + digest] = data
        return {"mediaType": media, "digest": "sha256:" + digest, "size": len(data), **more}

    with open(elf, "rb") as f:
        layer = add(f.read(), BARE + "elf.v1")
    config = add(b'{"architecture":"amd64"}', BARE + "config.v1+json")
    manifest = add(json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": BARE + "v1", "config": config,
        "layers": [layer]}).encode(), "application/vnd.oci.image.manifest.v1+json",
        annotations={"org.opencontainers.image.ref.name": name})
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in blobs.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Gone(Exception):
    """The node did not answer: it is not there, or died meanwhile."""


class Node:
    """One state folder; start() and kill() may follow each other often."""

    def __init__(self, build, folder, *args):
        self.program = os.path.join(build, "kilnd")
        self.state = os.path.join(folder, "s")
        self.cgroup = f"kiln-test-{os.getpid()}"
        self.log_path = os.path.join(folder, "log")
        self.args = args
        self.process, self.port, self.auth = None, None, None

    def spawn(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "--state", self.state, "--listen", "127.0.0.1:0",
                 "--cgroup", self.cgroup, *self.args], stdout=subprocess.PIPE, stderr=log)

    def wait_ready(self):
        line = self.process.stdout.readline().decode()
        m = re.fullmatch(r"ready http://127\.0\.0\.1:(\d+)\n", line)
        if not m:
            raise AssertionError(f"kilnd said {line!r}: {self.log()[-2000:]}")
        self.port = int(m[1])
        with open(os.path.join(self.state, "credentials")) as f:
            secret = dict(l.strip().split("=", 1) for l in f)
        pair = f"{secret['client_id']}:{secret['client_secret']}".encode()
        self.auth = "Basic " + base64.b64encode(pair).decode()

    def start(self):
        self.spawn()
        self.wait_ready()
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self, patience=40):
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=patience)
        self.process.stdout.close()
        return status

    def log(self):
        try:
            with open(self.log_path, errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def ask(self, method, path, body=None, timeout=30, **fields):
        """Status and body. Gone when there was no whole answer."""
        if isinstance(body, (dict, list)):
            body, fields["Content_Type"] = json.dumps(body).encode(), "application/json"
        head = {k.replace("_", "-"): v for k, v in fields.items()}
        if not path.startswith(("/function", "/async-function")):
            head["Authorization"] = self.auth
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request(method, path, body, head)
            r = c.getresponse()
            return r.status, r.read()
        except (OSError, http.client.HTTPException) as e:
            raise Gone(f"{method} {path}: {e}") from e
        finally:
            c.close()

    def import_bare(self, elf, name):
        return self.ask("POST", f"/kiln/v1/images?name={name}", bare_image(elf, name))

    def functions(self):
        status, body = self.ask("GET", "/system/functions")
        if status != 200:
            raise AssertionError(f"list: {status} {body!r}")
        return {f["name"]: f for f in json.loads(body)}

    def pss_kib(self, pid=None):
        with open(f"/proc/{pid or self.process.pid}/smaps_rollup") as f:
            return int(re.search(r"^Pss: +(\d+) kB", f.read(), re.M)[1])

    def children(self):
        """Every living descendant."""
        found, todo = [], [self.process.pid]
        while todo:
            for path in glob.glob(f"/proc/{todo.pop()}/task/*/children"):
                try:
                    with open(path) as f:
                        more = [int(p) for p in f.read().split()]
                except OSError:
                    continue
                found += more
                todo += more
        return found


def processes_of(build):
    """Programs of this build that run, by process id."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/exe"):
        try:
            exe = os.readlink(path)
        except OSError:
            continue
        if exe.removesuffix(" (deleted)").startswith(os.path.abspath(build) + "/"):
            found[int(path.split("/")[2])] = exe
    return found


def cgroups_of(name):
    return sorted(d for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/*")
                  for d in glob.glob(f"{top}/{name}*/**/", recursive=True))


def interfaces():
    """Of this namespace; /sys shows those of the namespace in which it was mounted."""
    with open("/proc/self/net/dev") as f:
        return sorted(l.partition(":")[0].strip() for l in f if ":" in l)


def nft_tables():
    """But for the fence, which stays: see doc/node.md."""
    if not shutil.which("nft"):
        return []
    said = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    return sorted(t for t in said.splitlines() if "kiln-fence" not in t)


def census(build, cgroup):
    """Processes, mounts, interfaces, cgroups, files for run time: what a node must give back. Only
    in namespaces of the test's own (see alone()) is nobody else's work in it."""
    with open("/proc/self/mountinfo") as f:
        mounts = sorted(l.split()[4] for l in f)
    return {"processes": sorted(processes_of(build).values()), "mounts": mounts,
            "interfaces": interfaces(), "cgroups": cgroups_of(cgroup),
            "tables": nft_tables(),
            "run": sorted(glob.glob("/run/**", recursive=True)),
            "shared memory": sorted(os.listdir("/dev/shm"))}


def alone():
    """Begin again in mount and network namespaces of our own, with an empty /run and loopback."""
    if os.environ.get("KN_ALONE") == "yes":
        return
    os.environ["KN_ALONE"] = "yes"
    script = "mount -t tmpfs kn-run /run && " \
             "ip link set lo up && exec \"$@\""
    os.execvp("unshare", ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c",
                          script, "sh", sys.executable, *sys.argv])


def wait_until(check, seconds=10):
    """True when check() held within the time."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
