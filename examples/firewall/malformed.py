#!/usr/bin/python3
"""Send malformed frames out of an interface: malformed.py INTERFACE. Part of record.sh."""
import sys

from scapy.all import (ARP, IP, TCP, UDP, Dot1Q, Ether, IPv6, IPv6ExtHdrDestOpt,
                       IPv6ExtHdrHopByHop, Raw, sendp)

ETH = Ether(src="02:00:00:00:20:02", dst="02:00:00:00:20:01")
V4 = IP(src="10.20.0.2", dst="10.20.0.1")
V6 = IPv6(src="2001:db8:20::2", dst="2001:db8:20::1")
DNS = UDP(sport=5353, dport=53)
PAD = Raw(b"\0" * 32)


def cut(frame, length):
    return Raw(bytes(frame)[:length])


def many_options(n):
    p = V6
    for _ in range(n):
        p = p / IPv6ExtHdrDestOpt()
    return p / DNS


FRAMES = [
    ETH / IP(src="10.20.0.2", dst="10.20.0.1", len=400) / DNS / PAD,       # ipv4_length
    ETH / IP(src="10.20.0.2", dst="10.20.0.1", ihl=4) / DNS / PAD,         # ipv4_ihl
    ETH / IP(src="10.20.0.2", dst="10.20.0.1", version=5) / DNS / PAD,     # ipv4_version
    cut(ETH / V4 / DNS, 14 + 12),                                          # ipv4_short
    ETH / V4 / UDP(sport=5353, dport=53, len=4) / PAD,                     # udp_length
    ETH / V4 / UDP(sport=5353, dport=53, len=200) / PAD,                   # udp_length
    ETH / V4 / TCP(sport=4000, dport=1883, dataofs=3) / PAD,               # tcp_offset
    ETH / V4 / TCP(sport=4000, dport=1883, dataofs=15) / Raw(b"x"),        # tcp_offset
    ETH / IP(src="10.20.0.2", dst="10.20.0.1", frag=1, proto=6) / PAD,      # tiny_fragment
    ETH / Dot1Q(vlan=42) / Dot1Q(vlan=7) / Dot1Q(vlan=8) / V4 / DNS,       # vlan_deep
    ETH / IPv6(src="2001:db8:20::2", dst="2001:db8:20::1", plen=900) / DNS,  # ipv6_length
    ETH / many_options(9),                                                 # ipv6_ext_many
    ETH / V6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / DNS,           # ipv6_ext_order
    cut(ETH / ARP(psrc="10.20.0.2", pdst="10.20.0.1"), 14 + 20),           # arp_short
]

if __name__ == "__main__":
    sendp(FRAMES, iface=sys.argv[1], verbose=False)
