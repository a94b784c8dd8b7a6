"""Packet functions: over a capture, then between two hosts."""
import json
import os
import re
import subprocess
import sys
import time

from demonstration.screen import heading, say
from demonstration.stage import ROOT, Stage

FIREWALL = os.path.join(ROOT, "examples/firewall")
DEVICE, SERVER = "10.93.0.1", "10.93.0.2"


class Packets(Stage):
    def step_packets(self):
        heading(5, "Packet functions: a firewall over a capture, then between two hosts")
        self.show_capture()
        if self.classes["nf"]["state"] == "works":
            self.show_live()

    def show_capture(self):
        config = os.path.join(FIREWALL, "firewall.yaml")
        nf = os.path.join(self.build, "kiln-nf")
        self.need(nf, "run", config, limit=40)
        report = json.loads(self.need(nf, "run", "--json", config, shown=False))
        received, sent, dropped = (report[k]["frames"] for k in ("received", "sent", "dropped"))
        adds_up = self.check("every frame was sent or counted under a reason",
                             received == sent + dropped, f"{received} = {sent} + {dropped}")
        compared = self.run(os.path.join(FIREWALL, "compare.py"), nf, limit=40)
        same = self.check("every frame's fate is what tshark's display filters say",
                          compared.returncode == 0)
        self.row(name="firewall", cls="nf", calls=received, right=adds_up and same)

    # -- live

    def show_live(self):
        """A device, a server, and between them a namespace in which only the firewall is."""
        self.places = {n: f"kn-{n}-{os.getpid()}" for n in ("device", "firewall", "server")}
        say("\n   two network namespaces, a device and a server, and the firewall between them")
        servers = []
        try:
            self.make_network()
            self.deploy_live()
            servers = [self.serve(sys.executable, "-m", "http.server", str(port), "--bind", SERVER,
                                  "--directory", FIREWALL) for port in (8080, 8081)]
            servers.append(self.serve("iperf3", "-s", "-1", "-B", SERVER))
            self.send_traffic()
        finally:
            for s in servers:
                s.kill()
                s.wait()
            self.run(os.path.join(self.build, "kiln"), "remove", "live-firewall")
            for name in self.places.values():
                subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)

    def make_network(self):
        ip = lambda *args: self.need("ip", *args, shown=False)
        for name in self.places.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            self.need("nsenter", f"--net=/run/netns/{name}", "sh", "-c",
                      "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6", shown=False)
        for host, port, address in (("device", "lan", DEVICE), ("server", "wan", SERVER)):
            place = self.places[host]
            ip("link", "add", "eth0", "netns", place, "type", "veth", "peer", "name", port, "netns",
               self.places["firewall"])
            ip("-n", self.places["firewall"], "link", "set", port, "up")
            ip("-n", place, "address", "add", address + "/24", "dev", "eth0")
            ip("-n", place, "link", "set", "eth0", "up")

    def deploy_live(self):
        tar, netns = self.path("firewall.tar"), f"/run/netns/{self.places['firewall']}"
        self.kiln("build", "examples/firewall/live.yaml", "-o", tar, "--name", "firewall:1")
        self.kiln("image", "import", tar)
        self.kiln("deploy", "live-firewall", "--image", "firewall:1", "--annotation",
                  f"kiln.ports=lan=lan@{netns},wan=wan@{netns}", "--wait")

    def serve(self, *args):
        return subprocess.Popen(["nsenter", f"--net=/run/netns/{self.places['server']}", *args],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def from_device(self, *args, **kw):
        say("   device $ " + " ".join(args))
        return self.run("nsenter", f"--net=/run/netns/{self.places['device']}", *args, shown=False, **kw)

    def send_traffic(self):
        self.wait_for_server()
        ping = self.from_device("ping", "-c", "20", "-i", "0.02", "-q", SERVER)
        say("   " + ping.stdout.strip().splitlines()[-1])
        ok = [self.check("ping goes through, and every answer comes back",
                         " 0% packet loss" in ping.stdout)]
        curl = self.from_device("curl", "-s", "-m", "5", f"http://{SERVER}:8080/live.yaml")
        with open(os.path.join(FIREWALL, "live.yaml")) as f:
            ok.append(self.check("port 8080 is allowed: the file comes as it is", curl.stdout == f.read()))
        curl = self.from_device("curl", "-s", "-m", "1", f"http://{SERVER}:8081/live.yaml")
        ok.append(self.check("port 8081 is not: no answer, within a second",
                             curl.returncode == 28 and not curl.stdout))
        iperf = json.loads(self.from_device("iperf3", "-c", SERVER, "-t", "2", "-J").stdout)
        got = iperf["end"]["sum_received"]
        say(f"   {got['bytes'] / 1e6:.0f} MB in {got['seconds']:.1f} s, "
            f"{got['bits_per_second'] / 1e9:.2f} Gbit/s")
        ok.append(self.check("iperf3's stream arrives", got["bytes"] > 1 << 20))
        time.sleep(1.2)   # counters are at most a second old
        self.run(os.path.join(self.build, "kiln"), "describe", "live-firewall", limit=40)
        ok.append(self.check_counters())
        self.row(name="live-firewall", cls="nf", hypervisor="kiln-nf", image="firewall:1",
                 calls=sum(self.counters("kiln_nf_packets_total", 'direction="rx"')), right=all(ok))

    def wait_for_server(self):
        until = time.monotonic() + 10
        probe = ["nsenter", f"--net=/run/netns/{self.places['server']}", "curl", "-s", "-m",
                 "1", "-o", "/dev/null", f"http://{SERVER}:8080/"]
        while subprocess.run(probe).returncode and time.monotonic() < until:
            time.sleep(0.1)

    def counters(self, name, labels=""):
        conn = self.connect()
        text = self.call(conn, "GET", "/metrics")[2].decode()
        conn.close()
        return [int(m[1]) for m in
                re.finditer(rf'^{name}\{{function_name="live-firewall[^}}]*{labels}[^}}]*\}} (\d+)', text, re.M)]

    def check_counters(self):
        received, sent = (sum(self.counters("kiln_nf_packets_total", f'direction="{d}"'))
                          for d in ("rx", "tx"))
        dropped = sum(self.counters("kiln_nf_drops_total"))
        return self.check("in /metrics, too, every frame was sent or dropped for a reason",
                          received == sent + dropped > 0, f"{received} = {sent} + {dropped}")
