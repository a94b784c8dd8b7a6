#!/usr/bin/env python3
"""The registry of a real kilnd: skopeo and umoci push and pull, raw HTTP does what they never would,
and a second node pulls from the first.

Usage: registry.py BUILD_DIR"""
import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DECLARED = os.environ.get("KN_DECLARED", "").split()
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Node:
    """A kilnd on a free port, with its own state folder, home and credentials."""

    def __init__(self, tmp, name, *args, wrap=()):
        self.dir = os.path.join(tmp, name)
        self.state = os.path.join(self.dir, "s")
        self.args, self.wrap = args, wrap
        os.makedirs(self.dir)
        self.start()

    def start(self):
        self.log = open(os.path.join(self.dir, "log"), "ab")
        self.p = subprocess.Popen(
            [*self.wrap, os.path.join(BUILD, "kilnd"), "--state", self.state, "--listen",
             "127.0.0.1:0", *self.args], stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.p.stdout.readline()
        if not line.startswith("ready http://"):
            raise AssertionError("kilnd did not start: " + open(self.log.name).read())
        self.addr = line.strip()[len("ready http://"):]
        shutil.rmtree(os.path.join(self.dir, ".config"), ignore_errors=True)   # of another port
        with open(self.path("credentials")) as f:
            self.id, self.secret = re.findall(r"=(\S+)", f.read())

    def path(self, *names):
        """A file of the state folder, as the node's mount namespace has it."""
        return os.path.join("/proc/%d/root" % self.p.pid, self.state.lstrip("/"), *names)

    @property
    def creds(self):
        return self.id + ":" + self.secret

    def stop(self, kill=False):
        if self.p.poll() is None:
            (self.p.kill if kill else self.p.terminate)()
        self.p.wait(30)
        self.p.stdout.close()
        self.log.close()

    def kiln(self, *args, check=True):
        env = {**os.environ, "HOME": self.dir, "KILN_GATEWAY": "http://" + self.addr}
        env.pop("XDG_CONFIG_HOME", None)
        if not os.path.exists(os.path.join(self.dir, ".config")):
            subprocess.run([os.path.join(BUILD, "kiln"), "login", "--credentials",
                            self.path("credentials")], env=env, check=True, capture_output=True)
        r = subprocess.run([os.path.join(BUILD, "kiln"), *args], env=env, capture_output=True,
                           text=True, timeout=60)
        if check and r.returncode != 0:
            raise AssertionError("kiln %s: %s" % (" ".join(args), r.stderr))
        return r

    def images(self):
        return {i["name"]: i for i in json.loads(self.kiln("image", "list", "--json").stdout)}

    def call(self, method, path, body=None, auth=True, **fields):
        """One request; the reply's status, fields and body."""
        c = http.client.HTTPConnection(self.addr, timeout=30)
        headers = {k.replace("_", "-"): v for k, v in fields.items()}
        if auth:
            word = base64.b64encode(self.creds.encode()).decode()
            headers.setdefault("Authorization", auth if isinstance(auth, str) else "Basic " + word)
        c.request(method, path, body, headers)
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, r.headers, data

    def push_blob(self, repository, data):
        status, _, body = self.call(
            "POST", "/v2/%s/blobs/uploads/?digest=%s" % (repository, digest(data)), data)
        assert status == 201, body
        return digest(data)

    def push_image(self, repository, tag, text, architecture="amd64", index_only=False):
        """A container image with one layer, which is no archive worth unpacking; its descriptor."""
        layer = text.encode()
        config = json.dumps({"architecture": architecture, "os": "linux",
                             "config": {"Entrypoint": ["/app"]}, "rootfs": {
                                 "type": "layers", "diff_ids": [digest(layer)]}}).encode()
        for data in (layer, config):
            self.push_blob(repository, data)
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": {
            "mediaType": CONFIG, "digest": digest(config), "size": len(config)}, "layers": [
                {"mediaType": LAYER, "digest": digest(layer), "size": len(layer)}]}).encode()
        name = digest(manifest) if index_only else tag
        status, _, body = self.call("PUT", "/v2/%s/manifests/%s" % (repository, name), manifest,
                                    Content_Type=MANIFEST)
        assert status == 201, body
        return {"mediaType": MANIFEST, "digest": digest(manifest), "size": len(manifest),
                "platform": {"os": "linux", "architecture": architecture}}

    def files(self, *names):
        return os.listdir(self.path("images", *names))


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix="kr", dir="/tmp")
        self.nodes = []

    def tearDown(self):
        for n in self.nodes:
            n.stop()
        shutil.rmtree(self.tmp)

    def node(self, *args, wrap=()):
        n = Node(self.tmp, "n%d" % len(self.nodes), *args, wrap=wrap)
        self.nodes.append(n)
        return n

    def run_ok(self, *args):
        r = subprocess.run(args, capture_output=True, text=True, timeout=60, cwd=self.tmp)
        self.assertEqual(r.returncode, 0, "%s: %s" % (" ".join(args), r.stderr))
        return r.stdout

    def skopeo(self, *args, check=True):
        r = subprocess.run(["skopeo", *args], capture_output=True, text=True, timeout=60,
                           cwd=self.tmp, env={**os.environ, "HOME": self.tmp,
                                              "XDG_RUNTIME_DIR": self.tmp})
        if check:
            self.assertEqual(r.returncode, 0, r.stderr)
        return r

    def skopeo_push(self, node, source, target, creds=None, check=True):
        return self.skopeo("copy", "--dest-tls-verify=false", "--dest-creds", creds or node.creds,
                           source, "docker://%s/%s" % (node.addr, target), check=check)

    def denoise(self, name="denoise:1", salt=""):
        """The archive of a bare program; salt makes it another one."""
        out = os.path.join(self.tmp, "denoise%s.tar" % salt)
        with open(os.path.join(SOURCE, "examples/denoise/denoise.c")) as f:
            text = f.read()
        source = os.path.join(self.tmp, "denoise%s.c" % salt)
        with open(source, "w") as f:
            f.write(text + '\nconst char salt_of_test[] __attribute__((used)) = "%s";\n' % salt)
        self.run_ok(os.path.join(BUILD, "kiln"), "build", source, "-o", out, "--name", name)
        return out

    def layout(self, name="lay"):
        """An OCI layout that umoci made, with a file in its image."""
        path = os.path.join(self.tmp, name)
        self.run_ok("umoci", "init", "--layout", path)
        self.run_ok("umoci", "new", "--image", path + ":1")
        self.run_ok("umoci", "unpack", "--rootless", "--image", path + ":1", name + "-b")
        root = os.path.join(self.tmp, name + "-b", "rootfs")
        os.makedirs(os.path.join(root, "etc"), exist_ok=True)
        with open(os.path.join(root, "etc", "made-by"), "w") as f:
            f.write(name)
        self.run_ok("umoci", "repack", "--image", path + ":1", name + "-b")
        self.run_ok("umoci", "config", "--image", path + ":1", "--config.entrypoint", "/app")
        return path

    def until(self, what, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if what():
                return True
            time.sleep(0.05)
        return False


class Tools(Case):
    """What people use."""

    def test_skopeo_pushes_and_pulls_the_same(self):
        node = self.node()
        self.skopeo_push(node, "oci-archive:" + self.denoise(), "team/denoise:1")
        self.assertEqual(node.images()["team/denoise:1"]["kind"], "bare")
        self.skopeo("copy", "--src-tls-verify=false", "--src-creds", node.creds,
                    "docker://%s/team/denoise:1" % node.addr, "oci:back:1")
        with open(os.path.join(self.tmp, "back/index.json")) as f:
            back = json.load(f)["manifests"][0]["digest"]
        self.assertEqual(back, node.images()["team/denoise:1"]["digest"])
        # the same image under a second name sends no blob
        said = self.skopeo("--debug", "copy", "--src-tls-verify=false", "--src-creds", node.creds,
                           "--dest-tls-verify=false", "--dest-creds", node.creds,
                           "docker://%s/team/denoise:1" % node.addr,
                           "docker://%s/team/denoise:2" % node.addr).stderr
        self.assertNotIn("PATCH", said)
        self.assertEqual(len(node.files("blobs", "sha256")), 3)
        tags = json.loads(self.skopeo("list-tags", "--tls-verify=false", "--creds", node.creds,
                                      "docker://%s/team/denoise" % node.addr).stdout)
        self.assertEqual(tags["Tags"], ["1", "2"])
        self.skopeo("delete", "--tls-verify=false", "--creds", node.creds,
                    "docker://%s/team/denoise:1" % node.addr)
        self.assertEqual(node.images(), {})

    def test_umoci_finds_its_image_unharmed(self):
        node = self.node()
        self.skopeo_push(node, "oci:%s:1" % self.layout(), "box:1")
        self.skopeo("copy", "--src-tls-verify=false", "--src-creds", node.creds,
                    "docker://%s/box:1" % node.addr, "oci:back:1")
        self.run_ok("umoci", "unpack", "--rootless", "--image", "back:1", "b")
        with open(os.path.join(self.tmp, "b/rootfs/etc/made-by")) as f:
            self.assertEqual(f.read(), "lay")

    def test_what_was_imported_can_be_pulled(self):
        node = self.node()
        node.kiln("image", "import", self.denoise("imported:1"))
        self.skopeo("inspect", "--raw", "--tls-verify=false", "--creds", node.creds,
                    "docker://%s/imported:1" % node.addr)

    def test_login_of_skopeo(self):
        node = self.node()
        r = subprocess.run(["skopeo", "login", "--tls-verify=false", "--authfile", "auth.json",
                            "-u", node.id, "--password-stdin", node.addr], input=node.secret,
                           cwd=self.tmp, text=True, capture_output=True)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.skopeo("copy", "--dest-tls-verify=false", "--authfile", "auth.json",
                    "oci-archive:" + self.denoise(), "docker://%s/a:1" % node.addr)

    def test_buildah_and_podman(self):
        node = self.node()
        os.mkdir(os.path.join(self.tmp, "ctx"))
        with open(os.path.join(self.tmp, "ctx", "app"), "w") as f:
            f.write("#!/bin/sh\n")
        with open(os.path.join(self.tmp, "ctx", "Containerfile"), "w") as f:
            f.write('FROM scratch\nCOPY app /app\nENTRYPOINT ["/app"]\n')
        storage = ["--root", self.tmp + "/root", "--runroot", self.tmp + "/run", "--storage-driver",
                   "vfs"]
        remote = ["--tls-verify=false", "--creds", node.creds]
        self.run_ok("buildah", *storage, "bud", "--isolation", "chroot", "-t", "localhost/app:1",
                    "ctx")
        self.run_ok("buildah", *storage, "push", *remote, "localhost/app:1",
                    "docker://%s/team/app:1" % node.addr)
        one = node.images()["team/app:1"]["digest"]
        self.run_ok("podman", *storage, "pull", *remote, node.addr + "/team/app:1")
        self.run_ok("podman", *storage, "push", *remote, node.addr + "/team/app:1",
                    "docker://%s/team/app:2" % node.addr)
        self.run_ok("podman", *storage, "manifest", "create", "multi")
        self.run_ok("podman", *storage, "manifest", "add", *remote, "multi",
                    node.addr + "/team/app:1")
        self.run_ok("podman", *storage, "manifest", "push", "--all", *remote, "multi",
                    "docker://%s/team/multi:1" % node.addr)
        images = node.images()
        self.assertEqual(images["team/multi:1"]["digest"], one)   # of the image that it leads to
        self.assertEqual(images["team/app:2"]["kind"], "container")

    def test_kiln_pushes_and_removes(self):
        node = self.node()
        out = json.loads(node.kiln("image", "push", self.denoise(), "team/app:7", "--json").stdout)
        self.assertEqual(node.images()["team/app:7"]["digest"], out["digest"])
        node.kiln("image", "push", self.denoise(), "%s/other:1" % node.addr, "--creds", node.creds)
        self.assertIn("other:1", node.images())
        r = node.kiln("image", "push", self.denoise(), "%s/x:1" % node.addr, "--creds", "a:b",
                      check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("401", r.stderr)
        node.kiln("image", "remove", "team/app:7", "other:1")
        self.assertEqual(node.files("blobs", "sha256"), [])


class Rights(Case):
    def test_who_is_refused(self):
        node = self.node()
        archive = self.denoise()
        r = self.skopeo_push(node, "oci-archive:" + archive, "a:1", creds=node.id + ":wrong",
                             check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("unauthorized", r.stderr)
        status, fields, body = node.call("GET", "/v2/", auth=False)
        self.assertEqual(status, 401)
        self.assertEqual(fields["WWW-Authenticate"],
                         'Bearer realm="http://%s/v2/token",service="kiln"' % node.addr)
        self.assertEqual(json.loads(body)["errors"][0]["code"], "UNAUTHORIZED")
        status, fields, _ = node.call("POST", "/v2/a/b/blobs/uploads/", b"", auth=False)
        self.assertIn('scope="repository:a/b:pull,push"', fields["WWW-Authenticate"])

    def test_a_reader_only_reads(self):
        node = self.node()
        self.skopeo_push(node, "oci-archive:" + self.denoise(), "a:1")
        status, _, body = node.call("POST", "/kiln/v1/clients", json.dumps(
            {"description": "reader", "scope": "image:read"}), Content_Type="application/json")
        self.assertEqual(status, 201)
        reader = json.loads(body)
        creds = reader["client_id"] + ":" + reader["client_secret"]
        self.skopeo("copy", "--src-tls-verify=false", "--src-creds", creds,
                    "docker://%s/a:1" % node.addr, "oci:back:1")
        r = self.skopeo_push(node, "oci-archive:" + self.denoise(salt="x"), "a:2", creds, check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("image:write", r.stderr)
        status, _, body = node.call("POST", "/v2/a/blobs/uploads/", b"", auth="Basic " +
                                    base64.b64encode(creds.encode()).decode())
        self.assertEqual((status, json.loads(body)["errors"][0]["code"]), (403, "DENIED"))
        self.assertEqual(list(node.images()), ["a:1"])

    def test_tokens_of_both_endpoints_count(self):
        node = self.node()
        form = urllib.parse.urlencode({"grant_type": "client_credentials", "client_id": node.id,
                                       "client_secret": node.secret, "scope": "image:read"})
        _, _, body = node.call("POST", "/oauth/token", form, auth=False,
                               Content_Type="application/x-www-form-urlencoded")
        token = "Bearer " + json.loads(body)["access_token"]
        self.assertEqual(node.call("GET", "/v2/", auth=token)[0], 200)
        status, fields, _ = node.call("POST", "/v2/a/blobs/uploads/", b"", auth=token)
        self.assertEqual(status, 401)
        self.assertIn('error="insufficient_scope"', fields["WWW-Authenticate"])
        _, _, body = node.call("GET", "/v2/token?service=kiln&scope=repository%3Aa%3Apull%2Cpush")
        token = "Bearer " + json.loads(body)["token"]
        self.assertEqual(node.call("POST", "/v2/a/blobs/uploads/", b"", auth=token)[0], 202)
        # it counts for images and for nothing else
        self.assertEqual(node.call("GET", "/system/functions", auth=token)[0], 403)


class Uploads(Case):
    """What tools never do, or only on a bad day."""

    def test_wrong_digest_leaves_nothing(self):
        node = self.node()
        data = os.urandom(3 << 20)
        status, _, body = node.call("POST", "/v2/a/blobs/uploads/?digest=" + digest(b"other"), data)
        self.assertEqual(status, 400)
        self.assertEqual(json.loads(body)["errors"][0]["code"], "DIGEST_INVALID")
        self.assertEqual(node.files("blobs", "sha256"), [])
        self.assertEqual(node.files("tmp"), [])

    def test_broken_upload_goes_on_where_it_stopped(self):
        node = self.node()
        data = os.urandom(6 << 20)
        half = 2 << 20
        _, fields, _ = node.call("POST", "/v2/a/blobs/uploads/", b"")
        at = fields["Location"]
        word = base64.b64encode(node.creds.encode()).decode()
        s = socket.create_connection(node.addr.split(":"))
        s.sendall(("PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\nContent-Length: %d"
                   "\r\n\r\n" % (at, word, len(data))).encode() + data[:half])
        self.assertTrue(self.until(lambda: sum(
            os.path.getsize(node.path("images", "tmp", f)) for f in node.files("tmp")) > half // 2))
        s.close()

        def came():
            status, fields, _ = node.call("GET", at)
            return status == 204 and int(fields["Range"].split("-")[1]) + 1
        self.assertTrue(self.until(came))
        done = came()
        self.assertGreater(done, 0)
        self.assertLessEqual(done, half)
        status, fields, _ = node.call("PATCH", at, data[:10], Content_Range="0-9")
        self.assertEqual(status, 416)
        status, _, _ = node.call("PATCH", at, data[done:],
                                 Content_Range="%d-%d" % (done, len(data) - 1))
        self.assertEqual(status, 202)
        self.assertEqual(node.call("PUT", at + "?digest=" + digest(data), b"")[0], 201)
        _, _, back = node.call("GET", "/v2/a/blobs/" + digest(data))
        self.assertEqual(back, data)
        _, fields, part = node.call("GET", "/v2/a/blobs/" + digest(data), Range="bytes=1000-1999")
        self.assertEqual(part, data[1000:2000])

    def test_many_push_one_blob(self):
        node = self.node()
        data = os.urandom(2 << 20)
        results = []

        def one(i):
            path = "/v2/r%d/blobs/uploads/?digest=%s" % (i % 3, digest(data))
            results.append(node.call("POST", path, data)[0])
        threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(results, [201] * 12)
        self.assertEqual(len(node.files("blobs", "sha256")), 1)
        self.assertEqual(node.files("tmp"), [])
        for i in range(3):
            self.assertEqual(node.call("GET", "/v2/r%d/blobs/%s" % (i, digest(data)))[2], data)

    def test_full_disk_is_told_and_heals(self):
        folder = os.path.join(self.tmp, "n0")
        node = self.node(wrap=("unshare", "-m", "sh", "-c",
                               "mount -t tmpfs -o size=16m kiln-test '%s' && exec \"$0\" \"$@\""
                               % folder))
        small, large = os.urandom(1 << 20), os.urandom(24 << 20)
        self.assertEqual(
            node.call("POST", "/v2/a/blobs/uploads/?digest=" + digest(large), large)[0], 507)
        _, fields, _ = node.call("POST", "/v2/a/blobs/uploads/", b"")
        status, _, body = node.call("PATCH", fields["Location"], large)
        self.assertEqual(status, 507)
        error = json.loads(body)["errors"][0]
        self.assertEqual(error["code"], "NO_SPACE")
        self.assertIn("no space left", error["message"])
        self.assertEqual(node.files("tmp"), [])
        self.assertEqual(node.files("blobs", "sha256"), [])
        node.push_image("a", "1", "fits")
        self.assertEqual(
            node.call("POST", "/v2/a/blobs/uploads/?digest=" + digest(small), small)[0], 201)

    def test_killed_node_sweeps_what_was_half_there(self):
        node = self.node()
        node.push_image("a", "1", "acknowledged")
        _, fields, _ = node.call("POST", "/v2/a/blobs/uploads/", b"")
        self.assertEqual(node.call("PATCH", fields["Location"], os.urandom(1 << 20))[0], 202)
        self.assertEqual(len(node.files("tmp")), 1)
        node.stop(kill=True)
        node.start()
        self.assertEqual(node.files("tmp"), [])
        self.assertEqual(node.call("PATCH", fields["Location"], b"x")[0], 404)
        self.assertEqual(node.call("GET", "/v2/a/manifests/1")[0], 200)

    def test_large_blob_goes_through_little_memory(self):
        node = self.node()
        bytes_ = 96 << 20
        piece = b"\0" * (1 << 20)
        h = hashlib.sha256()
        for _ in range(bytes_ >> 20):
            h.update(piece)
        c = http.client.HTTPConnection(node.addr, timeout=60)
        word = base64.b64encode(node.creds.encode()).decode()
        c.request("POST", "/v2/a/blobs/uploads/?digest=sha256:" + h.hexdigest(),
                  (piece for _ in range(bytes_ >> 20)),
                  {"Authorization": "Basic " + word, "Content-Length": str(bytes_)})
        self.assertEqual(c.getresponse().status, 201)
        c.close()
        self.assertEqual(len(node.call("GET", "/v2/a/blobs/sha256:" + h.hexdigest())[2]), bytes_)
        with open("/proc/%d/status" % node.p.pid) as f:
            peak = int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))
        if "build-asan" not in BUILD:
            self.assertLess(peak, 48 << 10, "peak of resident memory, KiB")

    def test_names_that_lead_out_are_refused(self):
        node = self.node()
        for path in ("/v2/../../etc/passwd/manifests/1", "/v2/a/%2e%2e/%2e%2e/b/manifests/1",
                     "/v2/a/blobs/../../../x", "/v2/A/manifests/1", "/v2//manifests/1",
                     "/v2/a/manifests/..%2f..%2fx", "/v2/a/blobs/sha256:..%2f..%2fetc"):
            self.assertIn(node.call("GET", path)[0], (400, 404), path)


class TwoNodes(Case):
    """Another registry: here, a second node."""

    def test_pull_by_name_and_by_digest(self):
        first, second = self.node(), self.node()
        self.skopeo_push(first, "oci-archive:" + self.denoise(), "team/denoise:1")
        name = first.addr + "/team/denoise:1"
        r = second.kiln("image", "pull", name, check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("--creds", r.stderr)
        r = second.kiln("image", "pull", name, "--creds", first.id + ":wrong", check=False)
        self.assertEqual(r.returncode, 1)
        second.kiln("image", "pull", name, "--creds", first.creds)
        want = first.images()["team/denoise:1"]["digest"]
        self.assertEqual(second.images()[name]["digest"], want)
        r = second.kiln("image", "pull", first.addr + "/team/none:1", "--creds", first.creds,
                        check=False)
        self.assertIn("NAME_UNKNOWN", r.stderr)
        r = second.kiln("image", "pull", "127.0.0.1:1/team/none:1", check=False)
        self.assertIn("127.0.0.1:1", r.stderr)

    def test_index_is_pulled_for_this_processor(self):
        first, second = self.node(), self.node()
        parts = [first.push_image("multi", None, a, a, index_only=True) for a in ("arm64", "amd64")]
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": parts}).encode()
        self.assertEqual(first.call("PUT", "/v2/multi/manifests/1", index, Content_Type=INDEX)[0], 201)
        arm = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": parts[:1]}).encode()
        self.assertEqual(first.call("PUT", "/v2/multi/manifests/arm", arm, Content_Type=INDEX)[0], 201)
        second.kiln("image", "pull", first.addr + "/multi:1", "--creds", first.creds)
        image = second.images()[first.addr + "/multi:1"]
        self.assertEqual(image["digest"], parts[1]["digest"])
        self.assertEqual(image["kind"], "container")
        # one of the two architectures came along: index, manifest, config, layer
        self.assertEqual(len(second.files("blobs", "sha256")), 4)
        r = second.kiln("image", "pull", first.addr + "/multi:arm", "--creds", first.creds, check=False)
        self.assertIn("linux/amd64", r.stderr)
        second.stop()
        second.start()
        self.assertEqual(second.images()[first.addr + "/multi:1"]["digest"], parts[1]["digest"])
        second.kiln("image", "remove", first.addr + "/multi:1")
        self.assertEqual(second.files("blobs", "sha256"), [])

    def test_deploy_pulls_what_is_not_here(self):
        first = self.node()
        auth = os.path.join(self.tmp, "auth.json")
        with open(auth, "w") as f:
            json.dump({"auths": {first.addr: {
                "auth": base64.b64encode(first.creds.encode()).decode()}}}, f)
        second = self.node("--registry-auth", auth)
        self.skopeo_push(first, "oci-archive:" + self.denoise(), "team/denoise:1")
        second.kiln("deploy", "denoise", "--image", first.addr + "/team/denoise:1")
        self.assertEqual(second.images()[first.addr + "/team/denoise:1"]["usedBy"], "denoise")
        r = second.kiln("deploy", "other", "--image", first.addr + "/team/other:1", check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("NAME_UNKNOWN", r.stderr)


class Functions(Case):
    def can_run(self):
        if os.path.exists("/dev/kvm"):
            return True
        self.assertNotIn("kvm", DECLARED)
        return False

    def test_deploy_by_reference_and_call(self):
        node = self.node()
        self.skopeo_push(node, "oci-archive:" + self.denoise(), "team/denoise:1")
        node.kiln("deploy", "a", "--image", "team/denoise:1")
        node.kiln("deploy", "b", "--image", node.addr + "/team/denoise:1")
        status, _, body = node.call("GET", "/system/function/b")
        self.assertEqual(json.loads(body)["image"], "team/denoise:1")
        if not self.can_run():
            return
        for name in ("a", "b"):
            status, _, body = node.call("POST", "/function/" + name, b"[1, 2, 90, 2]", auth=False)
            self.assertEqual((status, json.loads(body)), (200, [1, 2, 2, 2]))

    def test_functions_follow_a_push_and_survive_a_bad_one(self):
        node = self.node()
        self.skopeo_push(node, "oci-archive:" + self.denoise(), "denoise:1")
        node.kiln("deploy", "d", "--image", "denoise:1")

        def image_digest():
            return json.loads(node.kiln("describe", "d", "--json").stdout).get("imageDigest")
        first = image_digest()
        # a file that is no program, under the media type of one
        elf, config = b"#!/bin/sh", b'{"architecture":"amd64"}'
        for data in (elf, config):
            node.push_blob("denoise", data)
        bad = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST,
                          "artifactType": "application/vnd.kiln.bare.v1", "config": {
                              "mediaType": "application/vnd.kiln.bare.config.v1+json",
                              "digest": digest(config), "size": len(config)}, "layers": [
                                  {"mediaType": "application/vnd.kiln.bare.elf.v1",
                                   "digest": digest(elf), "size": len(elf)}]}).encode()
        self.assertEqual(node.call("PUT", "/v2/denoise/manifests/1", bad, Content_Type=MANIFEST)[0],
                         201)
        self.assertEqual(node.images()["denoise:1"]["kind"], "other")
        self.assertEqual(image_digest(), first)
        if self.can_run():
            self.assertEqual(node.call("POST", "/function/d", b"[1]", auth=False)[0], 200)
        self.skopeo_push(node, "oci-archive:" + self.denoise(salt="2"), "denoise:1")
        new = node.images()["denoise:1"]["digest"]
        self.assertNotEqual(new, first)
        self.assertTrue(self.until(lambda: image_digest() == new))
        status, _, body = node.call("DELETE", "/v2/denoise/manifests/1")
        self.assertEqual(status, 409)
        self.assertIn("function 'd'", body.decode())


if __name__ == "__main__":
    for tool in ("skopeo", "umoci", "buildah", "podman", "unshare"):
        if not shutil.which(tool):
            print("skipped: %s is not installed: tools/setup" % tool)
            sys.exit(77)
    if os.geteuid() != 0:
        print("skipped: must be root")
        sys.exit(1 if "root" in DECLARED else 77)
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
