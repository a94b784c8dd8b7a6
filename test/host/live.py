#!/usr/bin/env python3
"""A packet function between two network interfaces: a node, a firewall deployed on it, two hosts in
network namespaces on both sides of it, real traffic. What comes through, what does not and why is
held against what was sent; then the firewall is killed, updated, robbed of its interface, and its
node killed.

Usage: live.py BUILD_DIR [interface | af_xdp]"""
import ctypes
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import node

if os.geteuid() != 0:
    print("needs root: network namespaces and raw sockets")
    sys.exit(1 if "root" in os.environ.get("KN_DECLARED", "").split() else 77)
if sys.argv[2:3] == ["af_xdp"]:
    try:
        socket.socket(44, socket.SOCK_RAW).close()   # AF_XDP
    except OSError as e:
        print(f"the kernel has no AF_XDP: {e}")
        sys.exit(1 if "af_xdp" in os.environ.get("KN_DECLARED", "").split() else 77)
node.alone()

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHAIN = os.path.join(ROOT, "examples/firewall/live.yaml")
KIND = sys.argv[2] if len(sys.argv) > 2 else "interface"
LAN, WAN = "10.9.0.1", "10.9.0.2"
LAN_MAC, WAN_MAC = "020000000901", "020000000902"
PORTS = f"lan={KIND}:fwlan@/run/netns/fw,wan={KIND}:fwwan@/run/netns/fw"
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 3, 263, 8, 23


def sh(*args, check=True, **kw):
    return subprocess.run(args, capture_output=True, text=True, check=check, timeout=60, **kw)


def ns(name, *args, **kw):
    return sh("nsenter", f"--net=/run/netns/{name}", *args, **kw)


# ---- frames ---------------------------------------------------------------------------------

def checksum(data):
    data += b"\0" * (len(data) % 2)
    s = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while s >> 16:
        s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff


def ip(proto, body, fragment=0, length=None):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length or 20 + len(body), 7, fragment, 64, proto, 0,
                       socket.inet_aton(LAN), socket.inet_aton(WAN))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def eth(kind, body, tag=None):
    head = bytes.fromhex(WAN_MAC + LAN_MAC)
    return head + (struct.pack("!HH", 0x8100, tag) if tag is not None else b"") + \
        struct.pack("!H", kind) + body


def tcp(port, payload=b""):
    return struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 1024, 0, 0) + payload


def udp(port, payload=b""):
    return struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload


def echo(payload=b""):
    body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + payload
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


class Wire:
    """A raw socket on an interface in a namespace."""

    def __init__(self, name, interface):
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{name}", os.O_RDONLY)
        assert libc.setns(there, 0x40000000) == 0, os.strerror(ctypes.get_errno())
        try:
            self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self.s.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self.s.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
            self.s.bind((interface, ETH_P_ALL))
        finally:
            assert libc.setns(home, 0x40000000) == 0
            os.close(home)
            os.close(there)

    def send(self, frame):
        self.s.send(frame)

    def next(self, seconds):
        """One frame with its VLAN tag back in, or None."""
        if not select.select([self.s], [], [], seconds)[0]:
            return None
        data, aux, _, _ = self.s.recvmsg(1 << 17, 256)
        for level, kind, value in aux:
            if level == SOL_PACKET and kind == PACKET_AUXDATA:
                status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", value)
                if status & 16:
                    data = data[:12] + struct.pack("!HH", tpid if status & 64 else 0x8100, tci) + \
                        data[12:]
        return data

    def all(self, seconds):
        """Frames until none has come for so long."""
        frames = []
        while (f := self.next(seconds)) is not None:
            frames.append(f)
        return frames

    def close(self):
        self.s.close()


# ---- the place ------------------------------------------------------------------------------

def make_network():
    for name in ("lan", "fw", "wan"):
        sh("ip", "netns", "add", name)
        sh("ip", "-n", name, "link", "set", "lo", "up")
        ns(name, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6;"
           "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
    join("lan", LAN_MAC, LAN)
    join("wan", WAN_MAC, WAN)


def colons(mac):
    return ":".join(mac[i:i + 2] for i in range(0, 12, 2))


def join(name, mac, address):
    sh("ip", "link", "add", "eth0", "netns", name, "address",
       colons(mac), "type", "veth", "peer", "name",
       "fw" + name, "netns", "fw")
    sh("ip", "-n", "fw", "link", "set", "fw" + name, "up")
    sh("ip", "-n", name, "address", "add", address + "/24", "dev", "eth0")
    sh("ip", "-n", name, "link", "set", "eth0", "up")
    # Neighbours stand fixed: a test counts every frame, and an interface that comes anew is known.
    other, its = (WAN, WAN_MAC) if name == "lan" else (LAN, LAN_MAC)
    sh("ip", "-n", name, "neighbour", "add", other, "lladdr", colons(its), "dev", "eth0", "nud",
       "permanent")


def kiln(*args, **kw):
    return sh(os.path.join(BUILD, "kiln"), *args, **kw)


class Live(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="kiln-live.")
        cls.before = cls.census()
        make_network()
        cls.node = node.Node(BUILD, cls.dir).start()
        with open(CHAIN) as f:
            cls.chain = f.read()
        cls.put_image("firewall:1", cls.chain)

    @staticmethod
    def census():
        """What must be as before; `ip netns` makes /run/netns a mount of its own, for good."""
        all = node.census(BUILD, f"kiln-test-{os.getpid()}")
        all["mounts"] = {m for m in all["mounts"] if m != "/run/netns"}
        all["run"] = [p for p in all["run"] if p != "/run/netns"]
        del all["shared memory"]   # other programs' alone
        return all

    @classmethod
    def tearDownClass(cls):
        status = cls.node.stop()
        for name in ("lan", "fw", "wan"):
            sh("ip", "netns", "del", name)
        left = node.wait_until(lambda: cls.census() == cls.before)
        shutil.rmtree(cls.dir)
        assert status == 0, status
        assert left, (cls.before, cls.census())

    @classmethod
    def put_image(cls, name, text):
        yaml, tar = os.path.join(cls.dir, "chain.yaml"), os.path.join(cls.dir, "chain.tar")
        with open(yaml, "w") as f:
            f.write(text)
        kiln("build", yaml, "-o", tar, "--name", name)
        with open(tar, "rb") as f:
            status, body = cls.node.ask("POST", f"/kiln/v1/images?name={name}", f.read())
        assert status in (200, 201), body

    def deploy(self, image="firewall:1", name="firewall", ports=PORTS, **more):
        return self.node.ask("PUT" if name in self.node.functions() else "POST",
                             "/system/functions",
                             {"service": name, "image": image,
                              "annotations": {"kiln.ports": ports, **more}})

    def status(self, name="firewall"):
        return json.loads(self.node.ask("GET", f"/kiln/v1/functions/{name}")[1])

    def ready(self, name="firewall"):
        return self.status(name)["availableReplicas"] == 1

    def metrics(self):
        """{(metric, label values without the function's name): number} of kiln_nf_*."""
        out = {}
        for line in self.node.ask("GET", "/metrics")[1].decode().splitlines():
            m = re.fullmatch(r'(kiln_nf_\w+)\{function_name="firewall\.openfaas-fn",(.*)\} (\d+)', line)
            if m:
                out[(m[1], *re.findall(r'"([^"]*)"', m[2]))] = int(m[3])
        return out

    def drops(self):
        """By reason, of the chain outbound."""
        return {k[2]: n for k, n in self.metrics().items()
                if k[0] == "kiln_nf_drops_total" and k[1] == "outbound"}

    def pid(self):
        """kiln-nf's process id."""
        return next(p for p, exe in node.processes_of(BUILD).items() if exe.endswith("/kiln-nf"))

    def setUp(self):
        status, body = self.deploy()
        self.assertEqual(status, 202, body)
        self.assertTrue(node.wait_until(lambda: self.ready() and self.settled()), self.status())
        self.lan, self.wan = Wire("lan", "eth0"), Wire("wan", "eth0")
        self.addCleanup(self.lan.close)
        self.addCleanup(self.wan.close)

    def settled(self):
        return len([p for p in node.processes_of(BUILD).values() if p.endswith("/kiln-nf")]) == 1

    def passes(self, seconds=10):
        """Frames go through, within the time."""
        def one():
            marker = os.urandom(8)
            self.lan.send(eth(0x800, ip(6, tcp(8080, marker))))
            return any(marker in f for f in self.wan.all(0.05))
        return node.wait_until(one, seconds)

    # -- what passes

    def test_the_kind_of_port_is_told(self):
        kind = "af_xdp" if KIND == "af_xdp" else "af_packet"
        self.assertTrue(node.wait_until(
            lambda: self.metrics().get(("kiln_nf_port_up", "lan", "fwlan", kind)) == 1))
        self.assertRegex(self.node.log(), f"port opened fn=firewall port=wan .*kind={kind} why=")

    def test_every_frame_has_the_fate_of_its_rule_or_reason(self):
        self.assertTrue(self.passes())
        cases = [("ping", eth(0x800, ip(1, echo(b"1" * 40))), None),
                 ("web", eth(0x800, ip(6, tcp(8080, b"2" * 40))), None),
                 ("tagged", eth(0x800, ip(6, tcp(8080, b"3" * 40)), tag=42), None),
                 ("twice tagged", eth(0x8100, struct.pack("!HH", 7, 0x800) +
                                      ip(6, tcp(8080, b"t" * 40)), tag=0x2005), None),
                 ("ARP", eth(0x806, bytes.fromhex("0001080006040001" + LAN_MAC) +
                             socket.inet_aton(LAN) + bytes(6) + socket.inet_aton(WAN)), None),
                 ("telnet", eth(0x800, ip(6, tcp(23, b"4" * 40))), "acl_default"),
                 ("datagram", eth(0x800, ip(17, udp(9999, b"5" * 40))), "acl_default"),
                 ("first fragment", eth(0x800, ip(6, tcp(8080, b"6" * 40), 0x2000)), "acl_rule"),
                 ("later fragment", eth(0x800, ip(6, b"7" * 40, 0x2004)), "acl_rule"),
                 ("nothing but Ethernet", eth(0x800, b""), "ipv4_short"),
                 ("runt", eth(0x800, b"\x45\0\0"), "ipv4_short"),
                 ("too long a length", eth(0x800, ip(6, tcp(8080), length=1400)), "ipv4_length"),
                 ("a strange protocol", eth(0x88b5, b"8" * 50), "acl_default"),
                 ("full size", eth(0x800, ip(1, echo(b"9" * 1472))), None)]
        time.sleep(1.2)
        before, drops = self.metrics(), self.drops()
        for _, frame, _ in cases:
            self.lan.send(frame)
        expected = [f for _, f, why in cases if why is None]
        self.assertEqual(self.wan.all(0.5), expected)
        for why in {w for _, _, w in cases if w}:
            drops[why] = drops.get(why, 0) + sum(w == why for _, _, w in cases)
        self.assertTrue(node.wait_until(lambda: self.drops() == drops), (self.drops(), drops))
        after = self.metrics()

        def rose(*key):
            return after[("kiln_nf_packets_total", *key)] - \
                before[("kiln_nf_packets_total", *key)]
        self.assertEqual(rose("lan", "rx"), len(cases))
        self.assertEqual(rose("wan", "tx"), len(expected))
        self.assertEqual(after[("kiln_nf_missed_total", "lan")], 0)

    def test_long_frames_pass_where_the_mtu_lets_them(self):
        def mtu(n):
            for where, interface in (("lan", "eth0"), ("fw", "fwlan"), ("fw", "fwwan"),
                                     ("wan", "eth0")):
                sh("ip", "-n", where, "link", "set", interface, "mtu", str(n))
        if KIND == "af_xdp":
            self.skipTest("af_xdp takes frames of one page")
        mtu(9000)
        try:
            jumbo = eth(0x800, ip(1, echo(bytes(range(256)) * 34)), tag=9)
            self.lan.send(jumbo)
            self.assertIn(jumbo, self.wan.all(0.5))
            sh("ip", "-n", "fw", "link", "set", "fwwan", "mtu", "1500")
            n = self.drops().get("tx_mtu", 0)
            self.lan.send(jumbo)
            self.assertTrue(node.wait_until(lambda: self.drops().get("tx_mtu", 0) == n + 1))
            self.assertTrue(self.passes())
        finally:
            mtu(1500)

    def test_nothing_is_lost_or_changes_places_at_a_modest_rate(self):
        self.assertTrue(self.passes())
        n, got = 10000, []

        def listen():
            for f in self.wan.all(3):
                if f[23:24] == b"\x06" and f[54:58] == b"seq ":
                    got.append(struct.unpack("!I", f[58:62])[0])
        t = threading.Thread(target=listen)
        t.start()
        for i in range(n):
            self.lan.send(eth(0x800, ip(6, tcp(8080, b"seq " + struct.pack("!I", i)))))
            if i % 20 == 0:
                time.sleep(0.004)
        t.join()
        self.assertEqual(got, list(range(n)))

    def test_programs_talk_through_it(self):
        servers = [subprocess.Popen(["nsenter", "--net=/run/netns/wan", sys.executable, "-m",
                                     "http.server", str(port), "--bind", WAN, "--directory",
                                     os.path.join(ROOT, "examples")], stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL) for port in (8080, 8081)]
        servers.append(subprocess.Popen(["nsenter", "--net=/run/netns/wan", "iperf3", "-s", "-1"],
                                        stdout=subprocess.DEVNULL))
        try:
            url = f"http://{WAN}:8080/stack.yaml"
            self.assertTrue(node.wait_until(
                lambda: ns("lan", "curl", "-sf", "-m", "2", url, check=False).returncode == 0))
            with open(os.path.join(ROOT, "examples/stack.yaml")) as f:
                self.assertEqual(ns("lan", "curl", "-sf", "-m", "5", url).stdout, f.read())
            forbidden = ns("lan", "curl", "-s", "-m", "1", f"http://{WAN}:8081/", check=False)
            self.assertEqual(forbidden.returncode, 28)  # no answer: what is dropped is silent
            self.assertIn(" 0% packet loss", ns("lan", "ping", "-c", "20", "-i", "0.01", WAN).stdout)
            self.assertNotEqual(ns("wan", "ping", "-c", "1", "-W", "1", LAN, check=False).returncode, 0)
            done = json.loads(ns("lan", "iperf3", "-c", WAN, "-t", "1", "-J").stdout)
            print(f"iperf3: {done['end']['sum_received']['bits_per_second'] / 1e9:.2f} Gbit/s")
            self.assertGreater(done["end"]["sum_received"]["bytes"], 1 << 20)
            self.assertEqual(self.drops().get("rx_cut", 0), 0)
        finally:
            for s in servers:
                s.kill()
                s.wait()

    # -- who may

    def test_it_runs_without_rights(self):
        def now():
            with open(f"/proc/{self.pid()}/status") as f:
                return dict(l.rstrip("\n").split(":\t", 1) for l in f if ":\t" in l)
        self.assertTrue(self.passes())   # before it is attached it has something to do as root
        status = now()
        self.assertNotIn("0", status["Uid"].split())
        for caps in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[caps], 16), 0, caps)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(status["Seccomp"], "2")
        self.assertEqual(os.listdir(f"/proc/{self.pid()}/root"), [])
        for kind in ("mnt", "net", "ipc", "uts", "pid"):
            self.assertNotEqual(os.readlink(f"/proc/{self.pid()}/ns/{kind}"),
                                os.readlink(f"/proc/self/ns/{kind}"), kind)

    def test_it_sleeps_when_nothing_comes(self):
        def ticks():
            with open(f"/proc/{self.pid()}/stat") as f:
                return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
        self.assertTrue(self.passes())
        time.sleep(1.5)
        before = ticks()
        time.sleep(1)
        self.assertLessEqual(ticks() - before, 1)

    def test_it_is_no_function_to_call_or_to_scale(self):
        status, body = self.node.ask("GET", "/function/firewall")
        self.assertEqual(status, 405)
        self.assertIn(b"frames at its ports", body)
        for n in (0, 2):
            status, _ = self.node.ask("POST", "/system/scale-function/firewall",
                                      {"serviceName": "firewall", "replicas": n})
            self.assertEqual(status, 400)

    def test_an_interface_has_one_function(self):
        status, body = self.deploy(name="second", ports=PORTS.split(",")[0] + ",wan=lo")
        self.assertEqual(status, 409, body)
        self.assertIn(b"'firewall' has this interface", body)
        # By another path the same one: found when it starts.
        other = subprocess.Popen(["nsenter", "--net=/run/netns/fw", "sleep", "60"])
        try:
            alias = f"lan=fwlan@/proc/{other.pid}/ns/net,wan=fwwan@/proc/{other.pid}/ns/net"
            there = lambda: os.readlink(f"/proc/{other.pid}/ns/net") != os.readlink("/proc/self/ns/net")
            self.assertTrue(node.wait_until(there))
            self.assertEqual(self.deploy(name="third", ports=alias)[0], 202)
            self.assertTrue(node.wait_until(lambda: "lastError" in self.status("third")["kiln"]))
            self.assertIn("'firewall' has one of these", self.status("third")["kiln"]["lastError"])
            self.assertTrue(self.passes())
        finally:
            other.kill()
            other.wait()
            self.node.ask("DELETE", "/system/functions", {"functionName": "third"})

    def test_what_cannot_be_bound_is_told(self):
        status, body = self.deploy(ports="lan=/eth0")
        self.assertEqual(status, 400)
        self.assertIn(b"an interface's name", body)
        status, body = self.deploy(name="none", ports="lan=nothing0,wan=nothing1")
        self.assertEqual(status, 202, body)
        self.assertTrue(node.wait_until(lambda: "lastError" in self.status("none")["kiln"]))
        self.assertIn("there is no interface 'nothing0'", self.status("none")["kiln"]["lastError"])
        self.node.ask("DELETE", "/system/functions", {"functionName": "none"})

    # -- what befalls it

    def test_killed_it_comes_back_and_its_counters_go_on(self):
        self.assertTrue(self.passes())
        time.sleep(1.2)
        before = self.metrics()
        os.kill(self.pid(), signal.SIGKILL)
        self.assertTrue(self.passes())
        after = self.metrics()
        for key, n in before.items():
            if key[0] != "kiln_nf_port_up":
                self.assertGreaterEqual(after.get(key, 0), n, key)

    def test_an_update_takes_over_with_hardly_a_loss(self):
        self.assertTrue(self.passes())
        self.put_image("firewall:2", self.chain.replace("dst_port: 8080", "dst_port: 8080-8081"))
        stop, sent, got = threading.Event(), [0], []

        def feed():
            while not stop.is_set():
                self.lan.send(eth(0x800, ip(6, tcp(8080, b"seq " + struct.pack("!I", sent[0])))))
                sent[0] += 1
                time.sleep(0.001)

        def listen():
            for f in self.wan.all(1.5):
                if f[23:24] == b"\x06" and f[54:58] == b"seq ":
                    got.append(struct.unpack("!I", f[58:62])[0])
        threads = [threading.Thread(target=feed), threading.Thread(target=listen)]
        for t in threads:
            t.start()
        old = self.pid()
        time.sleep(0.3)
        self.assertEqual(self.deploy("firewall:2")[0], 202)
        self.assertTrue(node.wait_until(lambda: self.settled() and self.pid() != old))
        time.sleep(0.3)
        stop.set()
        for t in threads:
            t.join()
        print(f"update: {sent[0] - len(got)} of {sent[0]} frames lost")
        self.assertEqual(len(got), len(set(got)))    # none twice
        self.assertEqual(got, sorted(got))
        self.assertLess(sent[0] - len(got), sent[0] // (2 if KIND == "af_xdp" else 10))
        marker = os.urandom(8)
        self.lan.send(eth(0x800, ip(6, tcp(8081, marker))))
        self.assertTrue(any(marker in f for f in self.wan.all(0.3)))

    def test_rules_that_cannot_run_leave_the_old_ones(self):
        self.assertTrue(self.passes())
        # Right as a file, but its ports are others than those that are bound.
        self.put_image("firewall:3", self.chain.replace("wan", "dmz"))
        self.assertEqual(self.deploy("firewall:3")[0], 202)
        self.assertTrue(node.wait_until(lambda: "no port 'wan'" in self.node.log()), self.node.log()[-900:])
        self.assertTrue(self.passes())

    def test_an_interface_that_goes_and_comes(self):
        self.assertTrue(self.passes())
        sh("ip", "-n", "fw", "link", "del", "fwwan")
        self.assertTrue(node.wait_until(
            lambda: "no interface 'fwwan'" in self.status()["kiln"].get("lastError", "")))
        join("wan", WAN_MAC, WAN)
        self.wan.close()
        self.wan = Wire("wan", "eth0")
        self.addCleanup(self.wan.close)
        self.assertTrue(self.passes(40))

    def test_it_dies_with_its_node_and_comes_back_with_it(self):
        self.assertTrue(self.passes())
        self.node.kill()
        self.assertTrue(node.wait_until(lambda: not node.processes_of(BUILD)))
        self.node.start()
        self.assertTrue(self.passes(20))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[3:]])
