#!/usr/bin/env python3
"""Images as other tools write them, on real file systems: skopeo's and umoci's archives and layouts,
the two example images (unpacked, compared, and run), a full disk, a real decompression bomb, owners
and setuid bits as the kernel's erofs sees them.

Usage: image.py BUILD_DIR"""
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import zlib

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
TOOL = os.path.join(BUILD, "test", "host", "image-tool")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def have(*programs):
    return all(shutil.which(p) for p in programs)


def sh(*args, **kwargs):
    r = subprocess.run(args, capture_output=True, text=True, **kwargs)
    if r.returncode != 0:
        raise AssertionError(f"{args}: {r.stdout}{r.stderr}")
    return r.stdout


class Folder(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="kiln-image-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.store = self.path("store")

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def tool(self, *args, code=0, store=None):
        r = subprocess.run([TOOL, store or self.store, *args], capture_output=True, text=True)
        self.assertEqual(r.returncode, code, f"{args}: {r.stdout}{r.stderr}")
        return r.stderr if code else r.stdout

    def image(self, name):
        """An example image, built by its recipe."""
        out = self.path(name + ".tar")
        sh(os.path.join(ROOT, "tools", "images", "build"), name, out)
        return out

    def mounted(self, image):
        """The image's root file system, mounted by the kernel; or extracted where it cannot be."""
        erofs = self.tool("rootfs", image).strip()
        where = self.path("root-" + image.split(":")[0])
        os.mkdir(where)
        if subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro,nosuid,nodev", erofs, where],
                          capture_output=True).returncode == 0:
            self.addCleanup(sh, "umount", where)
        else:
            sh("fsck.erofs", "--extract=" + where, "--force", erofs)
        return where


def snapshot(root):
    """What a tree holds: type, mode, size and content of each entry."""
    seen = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            what = (st.st_mode & 0o170777, int(st.st_mtime))
            if os.path.islink(path):
                what = ("link", os.readlink(path))
            elif os.path.isfile(path):
                with open(path, "rb") as f:
                    what += (hashlib.sha256(f.read()).hexdigest(),)
            seen[os.path.relpath(path, root)] = what
    return seen


def whole_seconds(root):
    """Some writers round the times of files, some cut them: give them nothing to disagree on."""
    for folder, folders, files in os.walk(root, topdown=False):
        for name in folders + files:
            os.utime(os.path.join(folder, name), (1700000000, 1700000000), follow_symlinks=False)
    os.utime(root, (1700000000, 1700000000))


@unittest.skipUnless(have("skopeo", "umoci"), "skopeo and umoci are not installed")
class OtherTools(Folder):
    """The same image, written by each tool in each form, is the same tree here."""

    def umoci_layout(self):
        layout = self.path("layout")
        tree = self.path("bundle")
        sh("umoci", "init", "--layout", layout)
        sh("umoci", "new", "--image", layout + ":v1")
        sh("umoci", "unpack", "--image", layout + ":v1", tree)
        root = os.path.join(tree, "rootfs")
        os.makedirs(os.path.join(root, "etc/deep/er"))
        for name, text in (("etc/a", "one"), ("etc/deep/er/b", "two"), ("gone", "x")):
            with open(os.path.join(root, name), "w") as f:
                f.write(text)
        os.link(os.path.join(root, "etc/a"), os.path.join(root, "hard"))
        os.symlink("etc/deep", os.path.join(root, "soft"))
        os.chown(os.path.join(root, "etc/a"), 1234, 5678)
        os.chmod(os.path.join(root, "etc/deep/er/b"), 0o6755)
        whole_seconds(root)
        sh("umoci", "repack", "--refresh-bundle", "--image", layout + ":v1", tree)
        # A second layer takes some of it away again.
        os.unlink(os.path.join(root, "gone"))
        shutil.rmtree(os.path.join(root, "etc/deep/er"))
        with open(os.path.join(root, "etc/c"), "w") as f:
            f.write("three")
        whole_seconds(root)
        sh("umoci", "repack", "--image", layout + ":v1", tree)
        sh("umoci", "config", "--image", layout + ":v1", "--config.cmd", "/bin/x",
           "--config.env", "A=1", "--config.user", "1000:1000", "--config.exposedports", "8080")
        self.expected = snapshot(root)
        return layout

    def test_each_form_gives_the_same_tree(self):
        layout = self.umoci_layout()
        forms = {"layout": layout}
        for form, to in (("oci-archive", self.path("oci.tar") + ":x:1"),
                         ("docker-archive", self.path("docker.tar") + ":x:1"),
                         ("dir", None)):
            if to:
                sh("skopeo", "--insecure-policy", "copy", f"oci:{layout}:v1", f"{form}:{to}")
                forms[form] = to.split(":")[0]
        zstd = self.path("zstd")
        sh("skopeo", "--insecure-policy", "copy", "--dest-compress", "--dest-compress-format", "zstd",
           f"oci:{layout}:v1", f"oci:{zstd}:v1")
        magics = set()
        for blob in os.scandir(zstd + "/blobs/sha256"):
            with open(blob.path, "rb") as f:
                magics.add(f.read(4))
        self.assertIn(b"\x28\xb5\x2f\xfd", magics, "skopeo wrote no zstd layer")
        forms["zstd"] = zstd
        plain = self.path("plain.tar")
        sh("tar", "-C", layout, "-czf", plain, ".")
        forms["gzip of a layout"] = plain
        digests = set()
        for form, path in forms.items():
            with self.subTest(form):
                name = form.replace(" ", "-") + ":1"
                self.tool("import", path, name)
                self.assertEqual(snapshot(self.mounted(name)), self.expected)
                shown = self.tool("show", name)
                for line in ("argv /bin/x", "env A=1", "user 1000:1000", "port 8080"):
                    self.assertIn(line, shown)
                with open(self.tool("rootfs", name).strip(), "rb") as f:
                    digests.add(hashlib.sha256(f.read()).hexdigest())
        self.assertEqual(len(digests), 1, "the same layers must give the same bytes")

    def test_names_of_archives(self):
        layout = self.umoci_layout()
        self.assertIn("only 'v1'", self.tool("import", layout, code=1))
        archive = self.path("x.tar")
        sh("skopeo", "--insecure-policy", "copy", f"oci:{layout}:v1", f"oci-archive:{archive}:local/x:2")
        self.assertTrue(self.tool("import", archive).startswith("local/x:2 sha256:"))
        sh("umoci", "tag", "--image", layout + ":v1", "v2")
        sh("umoci", "config", "--image", layout + ":v2", "--config.cmd", "/other")
        self.assertIn("v1, v2", self.tool("import", layout, code=1))
        self.tool("import", layout, "x:v2")
        self.assertIn("argv /other", self.tool("show", "x:v2"))

    def test_other_architecture(self):
        layout = self.umoci_layout()
        sh("umoci", "config", "--image", layout + ":v1", "--architecture", "arm64")
        self.assertIn("linux/arm64; this node runs linux/amd64",
                      self.tool("import", layout, "x:1", code=1))
        self.assertEqual(self.tool("list"), "")

    def test_our_store_is_a_layout_for_them(self):
        self.tool("import", self.umoci_layout(), "x:1")
        self.assertEqual(json.loads(sh("skopeo", "inspect", f"oci:{self.store}:x:1"))["Architecture"],
                         "amd64")
        sh("umoci", "unpack", "--image", self.store + ":x:1", self.path("again"))
        self.assertEqual(snapshot(self.path("again", "rootfs")), self.expected)


class Examples(Folder):
    def test_images_are_reproducible_and_judged_by_skopeo(self):
        archive = self.image("checksum")
        self.assertEqual(self.tool("import", archive).split()[0], "checksum:latest")
        if have("skopeo"):
            seen = json.loads(sh("skopeo", "inspect", "oci-archive:" + archive))
            self.assertEqual((seen["Architecture"], seen["Os"]), ("amd64", "linux"))
            # skopeo reads every blob and checks its digest and its DiffID.
            sh("skopeo", "--insecure-policy", "copy", "oci-archive:" + archive, "dir:" + self.path("d"))

    def test_checksum_is_right(self):
        self.tool("import", self.image("checksum"))
        root = self.mounted("checksum:latest")
        for data in (b"", b"hello world", os.urandom(100003)):
            r = subprocess.run([os.path.join(root, "checksum")], input=data, capture_output=True)
            self.assertEqual(json.loads(r.stdout), {
                "bytes": len(data), "crc32": "%08x" % zlib.crc32(data),
                "sha256": hashlib.sha256(data).hexdigest()})
        with open("/dev/full", "w") as full:
            r = subprocess.run([os.path.join(root, "checksum")], input=b"x", stdout=full)
        self.assertEqual(r.returncode, 1)

    def call(self, method, path, body=None, headers=None):
        self.conn.request(method, path, body, headers or {})
        r = self.conn.getresponse()
        return r.status, r.headers, r.read()

    @unittest.skipUnless(os.geteuid() == 0, "needs root for chroot")
    def test_telemetry_serves_from_its_image(self):
        self.tool("import", self.image("telemetry"))
        root = self.mounted("telemetry:latest")
        shown = self.tool("show", "telemetry")
        argv = [l.split(" ", 1)[1] for l in shown.splitlines() if l.startswith("argv ")]
        env = dict(l.split(" ", 1)[1].split("=", 1) for l in shown.splitlines() if l.startswith("env "))
        self.assertIn("user app\n", shown)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        env.update(PORT=str(port), LIMIT="50", KEEP="2")
        # No /proc, no /dev, not root: as little as any guest will give it.
        chroot = shutil.which("chroot") or "/usr/sbin/chroot"
        p = subprocess.Popen([chroot, "--userspec=1000:1000", root, *argv], env=env,
                             stdout=subprocess.PIPE, text=True)
        self.conn = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            self.assertIn(f"port {port}, the limit is 50", p.stdout.readline())
            self.events()
            self.refusals()
            p.send_signal(signal.SIGTERM)
            self.assertEqual(p.wait(10), 0)
        finally:
            p.kill()
            p.wait()
            p.stdout.close()
            self.conn.close()

    def event(self, value, device="boiler"):
        head = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/t", "ce-type": "reading",
                "ce-subject": device, "ce-time": "2026-01-01T00:00:00Z",
                "Content-Type": "application/json"}
        return json.dumps({"value": value}), head

    def events(self):
        self.assertEqual(self.call("GET", "/_/health")[0], 200)
        for value in (1, 2.5, 50):
            status, _, _ = self.call("POST", "/", *self.event(value))
            self.assertEqual(status, 202)
        status, headers, body = self.call("POST", "/", *self.event(51))
        self.assertEqual((status, headers["ce-type"], headers["ce-specversion"], headers["ce-subject"]),
                         (200, "io.kiln.telemetry.alarm", "1.0", "boiler"))
        alarm = {"device": "boiler", "value": 51, "limit": 50.0, "time": "2026-01-01T00:00:00Z"}
        self.assertEqual(json.loads(body), alarm)
        body, head = self.event(0)
        event = dict(specversion="1.0", id="2", source="/t", type="reading", data={
            "device": "pump 7", "value": 99})
        status, headers, body = self.call("POST", "/", json.dumps(event),
                                          {"Content-Type": "application/cloudevents+json"})
        got = json.loads(body)
        self.assertEqual((status, headers["Content-Type"]), (200, "application/cloudevents+json"))
        self.assertEqual((got["type"], got["data"]["device"]), ("io.kiln.telemetry.alarm", "pump 7"))
        self.assertEqual(json.loads(self.call("GET", "/devices")[2]), {"devices": ["boiler", "pump 7"]})
        seen = json.loads(self.call("GET", "/devices/boiler")[2])
        self.assertEqual([x["value"] for x in seen["last"]], [51, 50])
        self.assertEqual(seen["alarms"], 1)
        self.assertEqual(json.loads(self.call("GET", "/devices/pump%207")[2])["alarms"], 1)

    def refusals(self):
        _, head = self.event(1)
        for status, body, headers in (
                (415, "{}", {}), (400, "{", head), (400, "[]", head), (400, '{"value":"x"}', head),
                (400, '{"value":NaN}', head), (400, '{"value":1e999}', head),
                (400, '{"value":true}', head), (415, "x", dict(head, **{"Content-Type": "text/plain"})),
                (400, '{"value":1}', dict(head, **{"ce-specversion": "0.3"})),
                (400, '{"value":1}', {k: v for k, v in head.items() if k != "ce-id"}),
                (400, "[" * 60000, head), (413, "x" * 70000, head)):
            got, _, text = self.call("POST", "/", body, headers)
            self.assertEqual(got, status, text)
            self.assertIn("error", json.loads(text))
            self.conn.close()
        self.assertEqual(self.call("GET", "/devices/none")[0], 404)
        self.assertEqual(self.call("POST", "/elsewhere", *self.event(1))[0], 404)


@unittest.skipUnless(os.geteuid() == 0, "needs root for tmpfs and mounts")
class Disk(Folder):
    @contextlib.contextmanager
    def small_disk(self, size):
        """A store on a disk of this size."""
        where = self.path("disk")
        os.mkdir(where)
        sh("mount", "-t", "tmpfs", "-o", f"size={size}", "kiln-test", where)
        try:
            yield os.path.join(where, "store")
        finally:
            sh("umount", where)
            os.rmdir(where)

    def zeros(self, size):
        """An image with one file of zeros: small as a blob, large when unpacked."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as t:
            info = tarfile.TarInfo("zeros")
            info.size = size
            t.addfile(info, io.BytesIO(b"\0" * size))
        return self.archive_of(tar.getvalue())

    def archive_of(self, tar):
        blobs = {}

        def blob(kind, data):
            d = hashlib.sha256(data).hexdigest()
            blobs[d] = data
            return {"mediaType": kind, "digest": "sha256:" + d, "size": len(data)}

        layer = blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(tar, 6))
        config = blob("application/vnd.oci.image.config.v1+json", json.dumps({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [
                "sha256:" + hashlib.sha256(tar).hexdigest()]}}).encode())
        manifest = blob("application/vnd.oci.image.manifest.v1+json", json.dumps({
            "schemaVersion": 2, "config": config, "layers": [layer]}).encode())
        out = self.path("archive.tar")
        with tarfile.open(out, "w") as t:
            files = {"blobs/sha256/" + d: data for d, data in blobs.items()}
            files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
        return out

    def test_full_disk_while_importing(self):
        archive = self.image("checksum")
        self.assertGreater(os.path.getsize(archive), 256 * 1024)
        with self.small_disk("256k") as store:
            self.assertIn("no space left", self.tool("import", archive, code=1, store=store))
            self.assertEqual(os.listdir(store + "/tmp"), [])
            self.assertEqual(os.listdir(store + "/blobs/sha256"), [])
            self.assertEqual(self.tool("list", store=store), "")

    def test_full_disk_while_unpacking_and_packing(self):
        # 6 MB unpacked: too much for 4 MB at once, and for 8 MB when mkfs.erofs copies it.
        for size, who in (("4m", "write 'zeros'"), ("8m", "mkfs.erofs")):
            with self.subTest(size), self.small_disk(size) as store:
                self.tool("import", self.zeros(6 << 20), "zeros:1", store=store)
                told = self.tool("rootfs", "zeros:1", code=1, store=store)
                self.assertIn("no space left", told)
                self.assertIn(who, told)
                self.assertEqual(os.listdir(store + "/tmp"), [])
                self.assertEqual(os.listdir(store + "/rootfs"), [])

    def test_attributes_reach_the_kernel(self):
        """Owner, setuid, time and attributes of a file, as a guest's kernel will see them."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as t:
            info = tarfile.TarInfo("bin/su")
            info.mode, info.uid, info.gid, info.mtime = 0o6755, 7, 42, 1234567
            info.pax_headers = {"SCHILY.xattr.user.color": "blue", "SCHILY.xattr.trusted.x": "no"}
            t.addfile(info)
            info = tarfile.TarInfo("dev/null")
            info.type = tarfile.CHRTYPE
            t.addfile(info)
        self.tool("import", self.archive_of(tar.getvalue()), "a:1")
        root = self.mounted("a:1")
        if not os.path.ismount(root):
            self.skipTest("this kernel does not mount erofs, or has no loop device")
        st = os.lstat(root + "/bin/su")
        self.assertEqual((st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime),
                         (0o6755, 7, 42, 1234567))
        self.assertEqual(os.listdir(root + "/dev"), [])
        try:
            names = os.listxattr(root + "/bin/su")
        except OSError:
            return    # erofs without attributes
        self.assertIn(names, (["user.color"], []))    # none where /tmp takes none


class Bomb(Folder):
    def test_ten_gibibytes_of_zeros_stop_early(self):
        layer, root = self.path("layer.tar.gz"), self.path("root")
        os.mkdir(root)
        size = 10 << 30
        info = tarfile.TarInfo("zeros")
        info.size = size
        # One member of 64 MiB of zeros, repeated: gzip members may follow each other.
        head = gzip.compress(info.tobuf(tarfile.GNU_FORMAT), 9)
        member = gzip.compress(b"\0" * (64 << 20), 9)
        with open(layer, "wb") as f:
            f.write(head)
            for _ in range(size // (64 << 20)):
                f.write(member)
        began = time.monotonic()
        r = subprocess.run([TOOL, "-", "unpack", layer, root], capture_output=True, text=True)
        took = time.monotonic() - began
        self.assertEqual(r.returncode, 1)
        self.assertIn("decompression bomb", r.stderr)
        rss = int(r.stdout.split("max_rss_kib ")[1])
        print(f"bomb of {os.path.getsize(layer)} bytes: {took:.2f} s, {rss} KiB", file=sys.stderr)
        self.assertLess(rss, 64 * 1024)
        self.assertLess(os.path.getsize(root + "/zeros"), 80 << 20)


if __name__ == "__main__":
    if not have("mkfs.erofs", "fsck.erofs"):
        print("skipped: erofs-utils is not installed")
        sys.exit(77)
    if os.geteuid() != 0:
        print("skipped: needs root for owners, tmpfs and mounts")
        sys.exit(77)
    # Mounts of our own: they vanish with this process, whatever becomes of it.
    alone = ["unshare", "--mount", "--propagation", "slave"]
    if not os.environ.get("KILN_TEST_ALONE") and \
            subprocess.run([*alone, "true"], capture_output=True).returncode == 0:
        os.environ["KILN_TEST_ALONE"] = "1"
        os.execvp(alone[0], [*alone, sys.executable, *sys.argv])
    unittest.main(argv=sys.argv[:1], verbosity=1)
