#!/usr/bin/env python3
"""Run the firewall over the capture, and hold every frame's fate against what equivalent tshark
display filters say about the same file.

usage: compare.py [KILN-NF]      prints a table; exit status 1 when they disagree on any frame"""
import functools
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIG = os.path.join(HERE, "firewall.yaml")
CAPTURE = os.path.join(HERE, "traffic.pcap")

# "#1" is the outermost layer of its kind: an ICMP error holds the headers of the packet it is about.
# What is malformed is dropped first, whatever the rules say; a frame has one fault here.
FAULTS = {
    "vlan_deep": "vlan.id#3",
    "arp_short": "arp and _ws.malformed",
    "ipv4_short": "eth.type == 0x0800 and frame.len < 34",
    "ipv4_version": "ip.bogus_ip_version",
    "ipv4_ihl": "ip.hdr_len < 20",
    "ipv4_length": "ip.len#1 > frame.len - 14 and frame.len >= 34",
    "udp_length": "udp and not icmp and (udp.length < 8 or udp.length > ip.len#1 - 20)",
    "tcp_offset": "tcp and not icmp and (tcp.hdr_len < 20 or tcp.hdr_len > ip.len#1 - 20)",
    "tiny_fragment": "ip.frag_offset#1 == 1 and ip.proto#1 == 6",
    "ipv6_length": "ipv6.plen#1 > frame.len - 54",
    "ipv6_ext_many": "ipv6.dstopts#9",
    "ipv6_ext_order": 'frame.protocols contains "dstopts:ipv6.hopopts" and not icmpv6',
}

# The rules of firewall.yaml, in its order: what passes, and the filter.
RULES = {
    "guest-vlan": (False, "vlan.id#1 == 42"),
    "stolen-sensor": (False, "ip.src#1 == 10.20.0.66"),
    "stolen-sensor-6": (False, "ipv6.src#1 == 2001:db8:20::66"),
    "fragments": (False, "ip.flags.mf#1 == 1 or ip.frag_offset#1 > 0 or ipv6.fraghdr"),
    "arp": (True, "arp"),
    "neighbours": (True, "icmpv6.type >= 133 and icmpv6.type <= 137"),
    "mqtt": (True, "tcp.dstport == 1883 and not icmp and not icmpv6"),
    "server": (True, "ip.src#1 == 10.20.0.0/30 and ip.dst#1 == 10.20.0.2"),
}

# Each frame for itself: a filter without memory does not put fragments together.
ALONE = ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE",
         "-o", "tcp.desegment_tcp_streams:FALSE"]


def tshark(path, display_filter, *options):
    """Numbers of the frames of a capture that a display filter matches."""
    out = subprocess.run(["tshark", "-n", "-r", path, *ALONE, *options, "-Y", display_filter,
                          "-T", "fields", "-e", "frame.number"],
                         capture_output=True, text=True, check=True, timeout=60).stdout
    return {int(line) for line in out.split()}


@functools.cache
def tshark_fates():
    """{frame number: (verdict, rule)} of the capture, as tshark's filters say."""
    fates = {n: ("acl_default", "-") for n in tshark(CAPTURE, "frame")}
    for rule, (passes, display_filter) in reversed(RULES.items()):
        verdict = "sent" if passes else "acl_rule"
        fates.update({n: (verdict, rule) for n in tshark(CAPTURE, display_filter)})
    for reason, display_filter in FAULTS.items():
        fates.update({n: (reason, "-") for n in tshark(CAPTURE, display_filter)})
    return fates


def kiln_fates(program, *args, config=CONFIG):
    """(report, {frame number: (verdict, rule)}) of a run."""
    with tempfile.NamedTemporaryFile("r", prefix="kiln-verdicts.") as verdicts:
        run = subprocess.run([program, "run", "--json", "--verdicts", verdicts.name, *args, config],
                             capture_output=True, text=True, timeout=60)
        if run.returncode != 0:
            sys.exit(run.stderr)
        lines = [line.rstrip("\n").split("\t") for line in verdicts]
    return json.loads(run.stdout), {int(n): (verdict, rule) for n, verdict, rule in lines}


def count(fates, wanted):
    return sum(fate == wanted for fate in fates.values())


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "../../build/kiln-nf")
    ours, theirs = kiln_fates(program)[1], tshark_fates()
    rows = [("passed by " + rule if passes else "dropped by " + rule,
             ("sent" if passes else "acl_rule", rule), display_filter)
            for rule, (passes, display_filter) in RULES.items()]
    rows.append(("dropped by default", ("acl_default", "-"), "none of these"))
    rows += [("malformed: " + reason, (reason, "-"), f) for reason, f in FAULTS.items()]
    print(f"{'':26} {'kiln-nf':>8} {'tshark':>8}   display filter")
    for what, fate, display_filter in rows:
        print(f"{what:26} {count(ours, fate):8} {count(theirs, fate):8}   {display_filter}")
    differ = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    passed = sum(v == "sent" for v, _ in ours.values())
    print(f"{len(ours)} frames, {passed} passed, {len(ours) - passed} dropped; "
          f"{len(differ)} frames on which they differ")
    for n in differ[:10]:
        print(f"  frame {n}: kiln-nf {ours.get(n)}, tshark {theirs.get(n)}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
