#!/usr/bin/python3
"""An access port of a VLAN switch: access_port.py TRUNK ACCESS ID carries frames between interface
ACCESS, untagged, and interface TRUNK, tagged with ID. Part of record.sh, because a kernel may lack
VLAN interfaces."""
import select
import socket
import struct
import sys

SOL_PACKET, PACKET_AUXDATA, ETH_P_ALL = 263, 8, 3
PACKET_OUTGOING, VLAN_VALID = 4, 1 << 4


def packet_socket(interface):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.bind((interface, 0))
    s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    return s


def receive(s):
    """(frame, VLAN id or None); (None, None) for what this host sent itself."""
    frame, ancillary, _, address = s.recvmsg(65536, socket.CMSG_SPACE(20))
    if address[2] == PACKET_OUTGOING:
        return None, None
    for level, kind, data in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", data[:20])
            if status & VLAN_VALID:
                return frame, tci & 0xfff
    if frame[12:14] == b"\x81\x00":
        return frame[:12] + frame[16:], struct.unpack("!H", frame[14:16])[0] & 0xfff
    return frame, None


def main(trunk_name, access_name, vlan):
    trunk, access = packet_socket(trunk_name), packet_socket(access_name)
    while True:
        for s in select.select([trunk, access], [], [])[0]:
            frame, tag = receive(s)
            if frame is None:
                continue
            if s is access and tag is None:
                trunk.send(frame[:12] + struct.pack("!HH", 0x8100, vlan) + frame[12:])
            elif s is trunk and tag == vlan:
                access.send(frame)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
