#!/usr/bin/env python3
"""A function's network, both ways: what its policy opens is reached, and nothing else is: not other
addresses or ports, not the node, not another function, not a metadata service, not by a wrong source
address, by ARP, or by IPv6. A process in a namespace stands for the function, since what it may reach
is decided outside of it in the same way for every class; the cases of WholeNode have real instances.

Everything happens in namespaces of the test's own.

Usage: network.py BUILD_DIR"""
import hashlib
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import internet
from internet import METADATA, NODE, OTHER, PRIVATE, ROUTER, WEB, ask_dns, run, tcp, udp
import node

BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build")
TOOL = os.path.join(BUILD, "test/host/network-tool")
GATEWAY, GUEST = "169.254.75.1", "169.254.75.2"
REFUSED = "No route to host"   # what "administratively prohibited" looks like to a program


class Tool:
    """network-tool, in this namespace."""

    def __init__(self, owner="/run/test", *args):
        self.process = subprocess.Popen([TOOL, owner, *args], stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.refused = []

    def line(self):
        return self.process.stdout.readline().strip()

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        while (said := self.line()).startswith("refused "):
            self.refused.append(said[8:])
        return said

    def do(self, text):
        said = self.ask(text)
        if not said.startswith("ok "):
            raise AssertionError(f"{text}: {said!r}")
        return int(said[3:])

    def end(self):
        self.process.stdin.close()
        status = self.process.wait(timeout=20)
        self.process.stdout.close()
        self.process.stderr.close()
        return status

    def kill(self):
        self.process.kill()
        self.process.wait()
        for f in (self.process.stdin, self.process.stdout, self.process.stderr):
            f.close()


def tables():
    return sorted(re.findall(r"^table \S+ (\S+)", run("nft", "list", "tables"), re.M))


def interfaces():
    return [name for name in node.interfaces() if name.startswith("kn")]


def set_forwarding(value):
    with open("/proc/sys/net/ipv4/ip_forward", "w") as f:
        f.write(value)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.internet = internet.Internet()
        cls.here = internet.Here()
        cls.here.serve(internet.tcp_server, 8080)

    @classmethod
    def tearDownClass(cls):
        cls.here.end()
        cls.internet.end()

    def setUp(self):
        self.assertTrue(node.wait_until(lambda: not interfaces(), 5))   # of the last test
        self.tool = Tool()
        self.addCleanup(self.tool.end)

    def function(self, policy, name="f", tool=None):
        """A space that stands for a function with this policy."""
        tool = tool or self.tool
        space = internet.Space()
        self.addCleanup(space.end)
        tool.do(f"new {name} {policy}")
        tool.do(f"join {name} {space.pid}")
        return space


class WhatIsOpen(Case):
    def test_an_address_and_its_port(self):
        f = self.function(f"{WEB}:80/tcp")
        self.assertEqual(f.call(tcp, WEB, 80), f"open {WEB} {NODE}")
        for address, port in ((WEB, 81), (WEB, 443), (OTHER, 80), (ROUTER, 80), (PRIVATE, 80)):
            self.assertEqual(f.call(tcp, address, port), REFUSED, (address, port))
        self.assertEqual(f.call(udp, WEB, 7), REFUSED)

    def test_ports_and_protocols(self):
        f = self.function(f"{WEB}:80-81/tcp, {OTHER}:7/udp")
        self.assertTrue(f.call(tcp, WEB, 81).startswith("open"))
        self.assertEqual(f.call(tcp, WEB, 443), REFUSED)
        self.assertEqual(f.call(udp, OTHER, 7), "open")
        self.assertEqual(f.call(tcp, OTHER, 7), REFUSED)

    def test_ranges_that_overlap(self):
        f = self.function("203.0.113.0/24:80, 203.0.113.0/28:443, 203.0.113.0/25:80-90/tcp")
        self.assertTrue(f.call(tcp, WEB, 80).startswith("open"))
        self.assertTrue(f.call(tcp, WEB, 443).startswith("open"))
        self.assertEqual(f.call(tcp, OTHER, 443), REFUSED)
        self.assertEqual(f.call(tcp, PRIVATE, 80), REFUSED)

    def test_everything_is_still_not_the_node(self):
        f = self.function("0.0.0.0/0")
        self.assertTrue(f.call(tcp, WEB, 80).startswith("open"))
        self.assertEqual(f.call(udp, WEB, 7), "open")
        node_side = run("ip", "-4", "-o", "addr", "show", "dev", interfaces()[0])
        link = re.search(r"inet ([\d.]+)/31", node_side)[1]
        for address in (NODE, link, "127.0.0.1"):
            self.assertIn(f.call(tcp, address, 8080), (REFUSED, "Connection refused"), address)
        self.assertEqual(f.call(tcp, METADATA, 80), REFUSED)
        self.assertEqual(f.call(tcp, GATEWAY, 80), "Connection refused")

    def test_the_node_and_metadata_when_they_are_named(self):
        f = self.function(f"{NODE}:8080, {METADATA}:80")
        self.assertTrue(f.call(tcp, NODE, 8080).startswith(f"open {NODE}"))
        self.assertTrue(f.call(tcp, METADATA, 80).startswith("open"))
        self.assertEqual(f.call(tcp, METADATA, 81), REFUSED)
        g = self.function(f"{WEB}", "g")
        self.assertEqual(g.call(tcp, NODE, 8080), REFUSED)

    def test_without_any_interface_of_ours_nothing_is(self):
        space = internet.Space()
        self.addCleanup(space.end)
        self.assertEqual(space.call(tcp, WEB, 80), "Network is unreachable")

    def test_the_node_is_not_reached_through_a_port_that_it_publishes(self):
        run("nft", "table inet publish { chain p { type nat hook prerouting priority dstnat; "
            f"ip daddr {NODE} tcp dport 9090 dnat ip to {PRIVATE}:80\n }}\n }}")
        self.addCleanup(run, "nft", "delete table inet publish")
        f = self.function("0.0.0.0/0")
        self.assertEqual(f.call(tcp, NODE, 9090), REFUSED)


class Names(Case):
    def ask(self, space, name, kind=1, **more):
        return space.call(lambda: ask_dns(GATEWAY, name, kind, **more))

    def test_a_name_opens_when_it_was_asked_for(self):
        f = self.function("web.test:80")
        self.assertEqual(f.call(tcp, WEB, 80), REFUSED)
        self.assertEqual(self.ask(f, "web.test"), [0, [WEB], 60])
        self.assertTrue(f.call(tcp, WEB, 80).startswith("open"))
        self.assertEqual(f.call(tcp, WEB, 81), REFUSED)
        self.assertEqual(self.ask(f, "WEB.test"), [0, [WEB], 60])
        self.assertTrue(f.call(tcp, WEB, 80).startswith("open"))
        g = self.function("web.test:80", "g")
        self.assertEqual(g.call(tcp, WEB, 80), REFUSED)   # another function asked, not this one

    def test_names_that_are_not_listed_do_not_exist(self):
        f = self.function("web.test, *.wild.test")
        for name in ("other.test", "wild.test", "xwild.test", "web.test.test", "test", "a.web.test"):
            self.assertEqual(self.ask(f, name), [3, [], 0], name)
        self.assertEqual(self.tool.ask("check")[:2], "ok")
        self.assertEqual(self.tool.refused,
                         ["f network: the name 'other.test' is not in the function's kiln.egress"])
        self.assertEqual(self.ask(f, "missing.wild.test"), [3, [], 0])

    def test_names_below_a_name(self):
        f = self.function("*.wild.test:80")
        for name in ("a.wild.test", "b.a.wild.test"):
            self.assertEqual(self.ask(f, name), [0, [OTHER], 60], name)
        self.assertTrue(f.call(tcp, OTHER, 80).startswith("open"))

    def test_a_name_that_points_home_opens_nothing_there(self):
        f = self.function("rebind.test, only-metadata.test")
        code, found, _ = self.ask(f, "rebind.test")
        self.assertEqual((code, sorted(found)), (0, sorted([NODE, OTHER])))
        self.assertTrue(f.call(tcp, OTHER, 80).startswith("open"))
        for address, port in ((NODE, 8080), (METADATA, 80)):
            self.assertEqual(f.call(tcp, address, port), REFUSED, address)
        self.assertEqual(self.ask(f, "only-metadata.test")[:2], [0, []])

    def test_other_kinds_and_names_without_an_address(self):
        f = self.function("web.test, six.test, many.test")
        self.assertEqual(self.ask(f, "web.test", kind=28)[:2], [0, []])
        self.assertEqual(self.ask(f, "web.test", kind=16)[:2], [0, []])
        self.assertEqual(self.ask(f, "six.test")[:2], [0, []])
        code, found, _ = self.ask(f, "many.test")
        self.assertEqual((code, len(found)), (0, 12))

    def test_what_is_no_query(self):
        f = self.function("web.test:80")
        for raw in (b"", b"\0", b"\x12\x34\x81\x80\0\1\0\0\0\0\0\0\3web\4test\0\0\1\0\1"):
            self.assertIsNone(self.ask(f, "", raw=raw, timeout=0.3), raw)
        self.assertEqual(self.ask(f, "", raw=b"\x12\x34\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1")[0], 1)
        self.assertEqual(self.ask(f, "", raw=b"\x12\x34\1\0\0\2\0\0\0\0\0\0")[0], 1)
        self.assertEqual(self.ask(f, "", raw=b"\x12\x34\x29\0\0\0\0\0\0\0\0\0")[0], 4)
        self.assertEqual(self.ask(f, "web.test")[0], 0)

    def test_a_name_server_that_is_silent(self):
        f = self.function("silent.test, web.test")
        def flood():
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            for n in range(200):
                s.sendto(struct.pack(">H", n) + b"\1\0\0\1\0\0\0\0\0\0" +
                         internet.encode_name("silent.test") + b"\0\1\0\1", (GATEWAY, 53))
            return True
        f.call(flood)
        g = self.function("web.test", "g")   # a neighbour is served meanwhile
        self.assertEqual(self.ask(g, "web.test")[0], 0)
        self.tool.do("free f")               # and an end does not wait for answers
        self.assertEqual(self.ask(g, "web.test")[0], 0)

    def test_other_name_servers_are_not_reached(self):
        f = self.function("web.test")
        self.assertIsNone(f.call(ask_dns, "203.0.113.53", "web.test", 1, 1))

    def test_the_hosts_file_counts(self):
        with open("/etc/hosts") as old:
            text = old.read()
        path = "/run/hosts"
        with open(path, "w") as f:
            f.write(text + f"\n{OTHER} from-hosts.test\n")
        os.chmod(path, 0o644)
        run("mount", "--bind", path, "/etc/hosts")
        self.addCleanup(run, "umount", "/etc/hosts")
        f = self.function("from-hosts.test:80")
        self.assertEqual(self.ask(f, "from-hosts.test"), [0, [OTHER], 60])
        self.assertTrue(f.call(tcp, OTHER, 80).startswith("open"))


# ---- somebody who is root in there ------------------------------------------------------------

def raw_socket(interface="eth0"):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((interface, 0))
    return s


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def udp_frame(source_mac, source, to_mac, to, port):
    body = struct.pack(">HHHH", 5555, port, 13, 0) + b"hello"
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(to))
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return to_mac + source_mac + b"\x08\x00" + head + body


OWN_MAC, GATEWAY_MAC = bytes.fromhex("026b6e000002"), bytes.fromhex("026b6e000001")


def send_frames(frames):
    s = raw_socket()
    for f in frames:
        s.send(bytes.fromhex(f))
    return True


def listen_at(ready, port, path):
    """Writes who said something, from where."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", port))
    ready()
    while True:
        data, peer = s.recvfrom(2048)
        with open(path, "a") as f:
            f.write(f"{peer[0]} {data.decode()}\n")


class Root(Case):
    def test_only_its_own_source_address_passes(self):
        path = "/run/heard"
        open(path, "w").close()
        self.internet.space.serve(listen_at, 4444, path)
        f = self.function("0.0.0.0/0")
        frames = [udp_frame(OWN_MAC, source, GATEWAY_MAC, WEB, 4444) for source in
                  ("169.254.75.3", "10.0.0.1", NODE, WEB, "127.0.0.1", "0.0.0.0", GATEWAY)]
        frames.append(udp_frame(bytes.fromhex("02aabbccddee"), GUEST, GATEWAY_MAC, WEB, 4444))
        f.call(send_frames, [x.hex() for x in frames])
        time.sleep(0.3)
        self.assertEqual(open(path).read(), "")
        f.call(send_frames, [udp_frame(OWN_MAC, GUEST, GATEWAY_MAC, WEB, 4444).hex()])
        node.wait_until(lambda: open(path).read(), 3)
        self.assertEqual(open(path).read(), f"{NODE} hello\n")

    def test_arp_gives_nothing_away(self):
        f = self.function("0.0.0.0/0")

        def who_has():
            s = raw_socket()
            s.settimeout(0.5)
            answers = []
            for target, source in ((GATEWAY, GUEST), (NODE, GUEST), (ROUTER, GUEST),
                                   ("100.64.0.1", GUEST), (GATEWAY, "169.254.75.3"),
                                   (GATEWAY, NODE)):
                s.send(b"\xff" * 6 + OWN_MAC + b"\x08\x06" +
                       struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, OWN_MAC,
                                   socket.inet_aton(source), b"\0" * 6, socket.inet_aton(target)))
            until = time.monotonic() + 1
            while time.monotonic() < until:
                try:
                    data = s.recv(2048)
                except TimeoutError:
                    continue
                if data[12:14] == b"\x08\x06" and data[20:22] == b"\0\2":
                    answers.append(socket.inet_ntoa(data[28:32]))
            return answers

        self.assertEqual(f.call(who_has), [GATEWAY])
        # Nor does a reply that nobody asked for lead its traffic astray.
        lie = (GATEWAY_MAC + OWN_MAC + b"\x08\x06" +
               struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 2, bytes.fromhex("02aabbccddee"),
                           socket.inet_aton(GUEST), GATEWAY_MAC, socket.inet_aton(GATEWAY)))
        f.call(send_frames, [lie.hex()])
        self.assertTrue(f.call(tcp, WEB, 80).startswith("open"))

    def test_no_ipv6(self):
        f = self.function("0.0.0.0/0")

        def ping_all():
            s = raw_socket()
            s.settimeout(0.5)
            mac = s.getsockname()[4]
            source = bytes.fromhex("fe80000000000000") + bytes([mac[0] ^ 2]) + mac[1:3] + \
                b"\xff\xfe" + mac[3:]
            for to in (bytes.fromhex("ff02" + "00" * 13 + "01"), bytes.fromhex("ff02" + "00" * 13 + "02")):
                echo = b"\x80\0\0\0\0\1\0\1"
                pseudo = source + to + struct.pack(">I3xB", len(echo), 58)
                echo = echo[:2] + struct.pack(">H", checksum(pseudo + echo)) + echo[4:]
                s.send(b"\x33\x33\0\0\0" + to[-1:] + mac + b"\x86\xdd" +
                       struct.pack(">IHBB", 6 << 28, len(echo), 58, 255) + source + to + echo)
            heard = []
            until = time.monotonic() + 1
            while time.monotonic() < until:
                try:
                    data, peer = s.recvfrom(2048)
                except TimeoutError:
                    continue
                if data[12:14] == b"\x86\xdd" and peer[2] != 4:   # not PACKET_OUTGOING
                    heard.append(data.hex())
            return heard

        self.assertEqual(f.call(ping_all), [])

    def test_another_functions_and_the_ways_around(self):
        f = self.function("0.0.0.0/0")
        g = self.function("0.0.0.0/0", "g")
        g.serve(internet.tcp_server, 80)
        self.assertEqual(len(interfaces()), 2)
        for name in interfaces():
            own = re.search(r"inet ([\d.]+)/31", run("ip", "-4", "-o", "addr", "show", "dev", name))[1]
            gateway = own[:own.rindex(".") + 1] + str(int(own[own.rindex(".") + 1:]) + 1)
            for address in (own, gateway):
                self.assertIn(f.call(tcp, address, 80), (REFUSED, "Connection refused", "timeout"))
        # From outside, and from the node itself, nobody reaches a function.
        self.internet.space.run("ip", "route", "add", "100.64.0.0/10", "via", NODE)
        self.addCleanup(self.internet.space.run, "ip", "route", "del", "100.64.0.0/10")
        self.assertIn(self.internet.space.call(tcp, gateway, 80, 1), ("timeout", REFUSED))
        self.assertIn(self.here.call(tcp, gateway, 80, 1), ("timeout", REFUSED))

    def test_a_flood_of_connections_is_held(self):
        f = self.function("0.0.0.0/0")

        def flood():
            import errno
            started, sockets = 0, []
            for n in range(3000):
                s = socket.socket()
                s.setblocking(False)
                if s.connect_ex((WEB, 9)) == errno.EINPROGRESS:
                    started += 1
                sockets.append(s)
                if len(sockets) > 500:
                    sockets.pop(0).close()
            return started

        before = self.connections()
        self.assertGreater(f.call(flood), 2000)
        self.assertLess(self.connections() - before, 1500)
        g = self.function(f"{WEB}:80", "g")
        self.assertTrue(g.call(tcp, WEB, 80).startswith("open"))

    def connections(self):
        with open("/proc/sys/net/netfilter/nf_conntrack_count") as f:
            return int(f.read())


class Life(Case):
    def test_nothing_is_left_after_an_end(self):
        self.assertEqual((interfaces(), [t for t in tables() if t != "kiln-fence"]), ([], []))
        f = self.function(f"{WEB}, {NODE}:8080")
        self.assertEqual(len(interfaces()), 1)
        self.tool.do("free f")
        self.assertTrue(node.wait_until(lambda: not interfaces(), 5))
        self.assertEqual(f.call(tcp, WEB, 80), "Network is unreachable")
        self.assertNotIn(WEB, run("nft", "list", "ruleset"))

    def test_nothing_is_left_after_a_kill(self):
        tool = Tool("/run/killed")
        space = internet.Space()
        self.addCleanup(space.end)
        tool.do("new a 0.0.0.0/0")
        tool.do(f"join a {space.pid}")
        tool.do("new b web.test")
        tool.do("tap b")
        self.assertEqual(len(interfaces()), 2)
        other = self.function(f"{WEB}:80")
        tool.kill()
        self.assertTrue(node.wait_until(lambda: len(interfaces()) == 1, 5))
        self.assertEqual(space.call(tcp, WEB, 80), "Network is unreachable")
        again = Tool("/run/killed")
        self.assertEqual(again.do("sweep"), 1)   # the table
        self.assertEqual(again.do("sweep"), 0)
        self.assertEqual(again.end(), 0)
        self.assertTrue(other.call(tcp, WEB, 80).startswith("open"))   # another daemon's stays

    def test_a_sweep_removes_interfaces_of_its_owner_only(self):
        self.tool.do("new f web.test")
        own = interfaces()[0]
        for name in (own[:8] + "abc", "kn000000abc"):
            run("ip", "link", "add", name, "type", "veth", "peer", "name", "x" + name[:10])
            self.addCleanup(subprocess.run, ["ip", "link", "del", name], capture_output=True)
        self.tool.do("free f")
        node.wait_until(lambda: own not in interfaces())
        self.assertEqual(self.tool.do("sweep"), 1)
        self.assertEqual(interfaces(), ["kn000000abc"])

    def test_a_range_that_is_in_use_is_not_chosen(self):
        run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "lan1")
        self.addCleanup(run, "ip", "link", "del", "lan")
        run("ip", "link", "set", "lan", "up")
        run("ip", "addr", "add", "100.64.1.1/10", "dev", "lan")
        self.tool.do("new f web.test")
        self.assertIn("inet 10.", run("ip", "-4", "-o", "addr", "show", "dev", interfaces()[0]))

    def test_a_range_of_ones_own_and_its_end(self):
        tool = Tool("/run/narrow", "10.99.0.0/28")
        for n in range(8):
            tool.do(f"new f{n} web.test")
        self.assertIn("all 8 networks of functions are in use", tool.ask("new f8 web.test"))
        tool.do("free f3")
        node.wait_until(lambda: len(interfaces()) == 7)
        tool.do("new f8 web.test")
        tool.end()
        for bad in ("10.99.0.0", "10.99.0.1/28", "10.99.0.0/31", "127.0.0.0/8", "x/8", ""):
            bad_tool = subprocess.run([TOOL, "o", bad], capture_output=True, text=True, stdin=subprocess.DEVNULL)
            self.assertIn("is not a range for functions", bad_tool.stderr, bad)

    def test_a_node_that_did_not_forward_forwards_for_functions_alone(self):
        subprocess.run(["nft", "delete table inet kiln-fence"], capture_output=True)
        set_forwarding("0")
        lan = internet.Space()
        self.addCleanup(lan.end)
        run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", str(lan.pid))
        self.addCleanup(subprocess.run, ["ip", "link", "del", "lan"], capture_output=True)
        run("ip", "addr", "add", "192.168.7.1/24", "dev", "lan")
        run("ip", "link", "set", "lan", "up")
        lan.run("ip", "addr", "add", "192.168.7.2/24", "dev", "eth0")
        lan.run("ip", "link", "set", "eth0", "up")
        lan.run("ip", "route", "add", "default", "via", "192.168.7.1")
        self.internet.space.run("ip", "route", "add", "192.168.7.0/24", "via", NODE)
        self.addCleanup(self.internet.space.run, "ip", "route", "del", "192.168.7.0/24")
        f = self.function(f"{WEB}:80")
        self.assertTrue(f.call(tcp, WEB, 80).startswith("open"))
        self.assertEqual(lan.call(tcp, WEB, 80, 1), "timeout")
        self.assertIn("kiln-fence", tables())
        # An operator who wants a router says so, and Kiln leaves it at that.
        run("nft", "delete table inet kiln-fence")
        self.assertTrue(lan.call(tcp, WEB, 80).startswith("open"))
        self.tool.do("new g web.test")
        self.assertNotIn("kiln-fence", tables())

    def test_the_check_changes_nothing(self):
        before = tables(), interfaces()
        self.tool.do("check")
        self.assertEqual((tables(), interfaces()), before)

    def test_without_rights_it_says_so(self):
        def limited():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        program = "/run/network-tool"
        shutil.copy(TOOL, program)
        os.chmod("/run", 0o755)
        r = subprocess.run([program, "o"], input="check\n", capture_output=True, text=True,
                           preexec_fn=limited)
        self.assertRegex(r.stdout, "no make a network namespace: .* start kilnd as root")


def container_image(program):
    """The OCI archive of an image with one program in it."""
    blobs, layer = {}, io.BytesIO()

    def put(media, data):
        digest = hashlib.sha256(data).hexdigest()
        blobs["blobs/sha256/" + digest] = data
        return {"mediaType": media, "digest": "sha256:" + digest, "size": len(data)}

    def as_tar(files, out):
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o755
                tar.addfile(info, io.BytesIO(data))
        return out.getvalue()

    with open(program, "rb") as f:
        content = as_tar({"reach": f.read()}, layer)
    v1 = "application/vnd.oci.image."
    rootfs = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]}
    config = put(v1 + "config.v1+json", json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": rootfs,
         "config": {"Entrypoint": ["/reach"]}}).encode())
    manifest = put(v1 + "manifest.v1+json", json.dumps(
        {"schemaVersion": 2, "mediaType": v1 + "manifest.v1+json", "config": config,
         "layers": [put(v1 + "layer.v1.tar", content)]}).encode())
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "reach:1"}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return as_tar(blobs, io.BytesIO())


class WholeNode(Case):
    """Real instances of a real node: what a function reports that it reaches."""

    TRIES = {
        "web.test 80": "open", "web.test 81": REFUSED, f"{OTHER} 81": "open", f"{OTHER} 80": REFUSED,
        "a.wild.test 80": "no such name", f"{METADATA} 80": REFUSED, f"{ROUTER} 80": REFUSED,
        f"{GATEWAY} 53": "Connection refused", "127.0.0.1 1": "Connection refused",
    }

    def start(self):
        folder = tempfile.mkdtemp(prefix="kiln-network.", dir="/run")
        os.chmod(folder, 0o755)
        n = node.Node(BUILD, folder, "--bare-shells", "0")
        n.start()
        self.addCleanup(lambda: n.process.poll() is None and n.kill())
        status, body = n.ask("POST", "/kiln/v1/images?name=reach:1",
                             container_image(os.path.join(BUILD, "test/host/reach")), timeout=120)
        self.assertIn(status, (200, 201), body)
        return n

    def deploy(self, n, name, class_, egress=None):
        annotations = {"kiln.class": class_, "kiln.contract": "stdio"}
        if egress:
            annotations["kiln.egress"] = egress
        status, body = n.ask("POST", "/system/functions", {
            "service": name, "image": "reach:1", "annotations": annotations,
            "limits": {"memory": "96Mi"}}, timeout=120)
        self.assertIn(status, (200, 202), body)

    def reach(self, n, name, tries):
        status, body = n.ask("POST", f"/function/{name}", ("\n".join(tries) + "\n").encode(),
                             timeout=120)
        self.assertEqual(status, 200, (body, n.log()[-3000:]))
        return dict(l.split(": ", 1) for l in body.decode().splitlines())

    def check_class(self, class_):
        n = self.start()
        self.assertEqual((interfaces(), [t for t in tables() if t != "kiln-fence"]), ([], []))
        self.deploy(n, "with", class_, "web.test:80, 203.0.113.20:81/tcp")
        self.deploy(n, "without", class_)
        tries = {**self.TRIES, f"{NODE} {n.port}": REFUSED}
        self.assertEqual(self.reach(n, "with", tries), tries)
        got = self.reach(n, "with", [f"6 fe80::1 80", "6 2001:db8::1 80"])
        self.assertNotIn("open", got.values())
        none = self.reach(n, "without", [f"{WEB} 80", "web.test 80", f"{OTHER} 81"])
        self.assertEqual(set(none.values()), {"Network is unreachable", "no answer about the name"})
        self.assertGreaterEqual(len(interfaces()), 1)   # a guest that is made for a snapshot has one
        deadline = node.wait_until(lambda: "a.wild.test" in
                                   n.ask("GET", "/system/logs?name=with")[1].decode(), 5)
        self.assertTrue(deadline, "the refused name is in the function's log")
        self.deploy_refused(n)
        return n

    def deploy_refused(self, n):
        status, body = n.ask("POST", "/system/functions", {
            "service": "bad", "image": "reach:1", "annotations": {"kiln.egress": "http://x.test"}})
        self.assertEqual(status, 400)
        self.assertIn(b"is a URL", body)

    def test_a_container_and_the_end_of_its_node(self):
        n = self.check_class("container")
        self.assertEqual(n.stop(), 0)
        self.assertTrue(node.wait_until(lambda: not interfaces(), 5))
        self.assertEqual([t for t in tables() if t != "kiln-fence"], [])

    def test_a_container_whose_node_was_killed(self):
        n = self.start()
        self.deploy(n, "with", "container", f"{OTHER}:81")
        self.assertEqual(self.reach(n, "with", [f"{OTHER} 81"]), {f"{OTHER} 81": "open"})
        n.kill()
        self.assertTrue(node.wait_until(lambda: not interfaces(), 5))
        n.start()
        self.assertIn("networks are removed", n.log())
        self.assertEqual([t for t in tables() if t != "kiln-fence"], [])
        self.assertEqual(self.reach(n, "with", [f"{OTHER} 81"]), {f"{OTHER} 81": "open"})
        self.assertEqual(n.stop(), 0)

    @unittest.skipUnless(os.path.exists(os.path.join(BUILD, "guest/vmlinux")), "no guest kernel here")
    def test_a_microvm(self):
        n = self.check_class("microvm")
        # The next instances are restored from snapshots: the same network, each with its own rules.
        made = lambda: n.log().count("snapshot made") >= 3
        self.assertTrue(node.wait_until(made, 120), n.log()[-3000:])
        for _ in range(2):
            for replicas in (0, 1):
                n.ask("POST", "/system/scale-function/with", {"service": "with", "replicas": replicas})
                self.assertTrue(node.wait_until(
                    lambda: n.functions()["with"]["availableReplicas"] == replicas, 30))
            self.assertEqual(self.reach(n, "with", self.TRIES), self.TRIES)
        self.assertEqual(n.stop(), 0)
        self.assertTrue(node.wait_until(lambda: not interfaces(), 5))


if __name__ == "__main__":
    if os.getuid() != 0:
        print("network namespaces need root")
        sys.exit(77)
    node.alone()
    unittest.main(argv=sys.argv[:1] + sys.argv[2:], verbosity=2, warnings="ignore")
