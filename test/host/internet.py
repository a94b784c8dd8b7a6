"""An internet of the test's own: namespaces that stand for the world behind the node's uplink, with
servers and a name server in it, and for the places from which somebody tries to reach something. For
tests that run in namespaces of their own already (node.alone())."""
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000

NODE, ROUTER = "198.51.100.2", "198.51.100.1"
WEB, OTHER, METADATA, PRIVATE = "203.0.113.10", "203.0.113.20", "169.254.169.254", "10.1.2.3"

# name -> addresses; None: no answer at all; []: the name is there, an IPv4 address is not
NAMES = {
    "web.test": [WEB], "a.wild.test": [OTHER], "b.a.wild.test": [OTHER], "wild.test": [OTHER],
    "rebind.test": [NODE, METADATA, "127.0.0.1", "224.0.0.1", OTHER], "only-metadata.test": [METADATA],
    "many.test": [f"203.0.113.{n}" for n in range(100, 130)], "silent.test": None, "six.test": [],
}


def run(*argv):
    r = subprocess.run(argv, capture_output=True, text=True)
    if r.returncode:
        raise AssertionError(f"{' '.join(argv)}: {r.stderr}")
    return r.stdout


def enter(pid):
    with open(f"/proc/{pid}/ns/net") as f:
        if LIBC.setns(f.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def keep_only(fd):
    """A child of the test must not hold pipes of the test's other children open."""
    os.closerange(3, fd)
    os.closerange(fd + 1, 1024)


class Space:
    """A network namespace that lives as long as this object's process."""

    def __init__(self):
        ready, other = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            LIBC.prctl(1, signal.SIGKILL)
            keep_only(other)
            LIBC.unshare(CLONE_NEWNET)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            os.write(other, b".")
            while True:
                signal.pause()
        os.read(ready, 1)
        os.close(ready)
        os.close(other)
        self.children = []

    def run(self, *argv):
        return run("nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *argv)

    def call(self, function, *args):
        """What function(*args) returns in there, in a process of its own."""
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                enter(self.pid)
                result = [True, function(*args)]
            except BaseException:
                result = [False, traceback.format_exc()]
            os.write(w, json.dumps(result).encode())
            os._exit(0)
        os.close(w)
        with os.fdopen(r, "rb") as f:
            good, value = json.loads(f.read())
        os.waitpid(pid, 0)
        if not good:
            raise AssertionError(value)
        return value

    def serve(self, function, *args):
        """Run function(*args) in there until the end; it must listen before it says ready()."""
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            LIBC.prctl(1, signal.SIGKILL)
            keep_only(w)
            enter(self.pid)
            try:
                function(lambda: os.write(w, b"."), *args)
            finally:
                os._exit(1)
        os.close(w)
        if os.read(r, 1) != b".":
            raise AssertionError(f"{function.__name__} did not come up")
        os.close(r)
        self.children.append(pid)

    def end(self):
        for pid in [*self.children, self.pid]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class Here(Space):
    """The namespace of the test itself: the node's."""

    def __init__(self):
        self.pid, self.children = os.getpid(), []

    def end(self):
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# ---- servers ---------------------------------------------------------------------------------

def tcp_server(ready, *ports):
    """Says who called whom, and closes."""
    import select
    sockets = []
    for port in ports:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("0.0.0.0", port))
        s.listen(64)
        sockets.append(s)
    ready()
    while True:
        for s in select.select(sockets, [], [])[0]:
            c, peer = s.accept()
            try:
                text = f"{c.getsockname()[0]} {peer[0]}\n".encode()
                c.settimeout(1)
                c.recv(4096)
                c.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
            except OSError:
                pass
            c.close()


def udp_socket(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, 8, 1)   # IP_PKTINFO
    s.bind(("0.0.0.0", port))
    return s


def receive(s):
    """What came, and how to answer from the address at which it came."""
    data, control, _, peer = s.recvmsg(2048, 256)
    control = [(level, kind, b"\0" * 4 + value[4:8] + b"\0" * 4) for level, kind, value in control]
    return data, lambda answer: s.sendmsg([answer], control, 0, peer)


def udp_server(ready, port):
    """Says what it hears."""
    s = udp_socket(port)
    ready()
    while True:
        data, answer = receive(s)
        answer(data)


def encode_name(name):
    return b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0"


def dns_server(ready, ttl):
    s = udp_socket(53)
    ready()
    while True:
        data, answer = receive(s)
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]].decode().lower())
            at += data[at] + 1
        question, name = data[12:at + 5], ".".join(labels)
        kind = struct.unpack(">H", data[at + 1:at + 3])[0]
        found = NAMES.get(name, 0)
        if found is None:
            continue
        code, records = (3, []) if found == 0 else (0, found if kind == 1 else [])
        text = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0) + question
        for a in records:
            text += struct.pack(">HHHIH", 0xc00c, 1, 1, ttl, 4) + socket.inet_aton(a)
        answer(text)


# ---- what somebody can try -------------------------------------------------------------------

def tcp(address, port, timeout=3):
    """ "open ...", or the name of what went wrong."""
    s = socket.socket()
    s.settimeout(timeout)
    try:
        s.connect((address, port))
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        data = b""
        while more := s.recv(4096):
            data += more
        return "open " + data.decode().rpartition("\r\n\r\n")[2].strip()
    except TimeoutError:
        return "timeout"
    except OSError as e:
        return os.strerror(e.errno)
    finally:
        s.close()


def udp(address, port, timeout=1, source=None):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(timeout)
    try:
        if source:
            s.bind((source, 0))
        s.connect((address, port))
        s.send(b"hello")
        return "open" if s.recv(100) == b"hello" else "something else"
    except TimeoutError:
        return "timeout"
    except OSError as e:
        return os.strerror(e.errno)
    finally:
        s.close()


def ask_dns(server, name, kind=1, timeout=12, raw=None):
    """(code, [addresses], ttl), or None when there is no answer."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(timeout)
    query = raw if raw is not None else (b"\x12\x34\x01\0\0\1\0\0\0\0\0\0" + encode_name(name) + struct.pack(">HH", kind, 1))
    try:
        s.sendto(query, (server, 53))
        data = s.recv(4096)
    except OSError:
        return None
    finally:
        s.close()
    if len(data) > 512 or data[:2] != query[:2]:
        raise AssertionError(f"a bad answer: {data!r}")
    n, at = struct.unpack(">H", data[6:8])[0], len(query)
    found, ttl = [], 0
    for _ in range(n):
        ttl, length = struct.unpack(">IH", data[at + 6:at + 12])
        found.append(socket.inet_ntoa(data[at + 12:at + 12 + length]))
        at += 12 + length
    return [data[3] & 15, found, ttl]


class Internet:
    """The uplink `wan` of this namespace, and everything behind it."""

    def __init__(self, ttl=5):
        self.space = Space()
        run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "net", "netns",
            str(self.space.pid))
        run("ip", "addr", "add", f"{NODE}/24", "dev", "wan")
        run("ip", "link", "set", "wan", "up")
        self.space.run("ip", "addr", "add", f"{ROUTER}/24", "dev", "net")
        self.space.run("ip", "link", "set", "net", "up")
        for a in (WEB, OTHER, METADATA, PRIVATE, "203.0.113.53"):
            self.space.run("ip", "addr", "add", a + "/32", "dev", "lo")
        run("ip", "route", "add", "default", "via", ROUTER)
        self.space.serve(tcp_server, 80, 81, 443)
        self.space.serve(udp_server, 7)
        self.space.serve(dns_server, ttl)
        self.resolv = tempfile.NamedTemporaryFile("w", prefix="kiln-resolv.")
        self.resolv.write("nameserver 203.0.113.53\n")
        self.resolv.flush()
        os.chmod(self.resolv.name, 0o644)
        run("mount", "--bind", self.resolv.name, "/etc/resolv.conf")

    def end(self):
        run("umount", "/etc/resolv.conf")
        self.resolv.close()
        self.space.end()
        subprocess.run(["ip", "link", "del", "wan"], capture_output=True)
