/*
 * One slot of an AF_PACKET receive ring (TPACKET_V2), read into what a port needs. The ring is
 * memory that the kernel writes while we read it, so this is a parser like any other: it takes the
 * slot's bytes and its size, and no offset that stands in the slot leads out of it.
 *
 * Thread  keeps no state.
 * Source  Documentation/networking/packet_mmap.rst; linux/if_packet.h
 */
#pragma once

#include "packet/frame.h"

struct kn_tpacket {
	const uint8_t *data; /* the frame's first bytes, in the slot */
	uint32_t len;	     /* as many are there */
	uint32_t wire_len;   /* as many it had */
	uint64_t ts_ns;
	struct kn_offload offload;
	bool queued;	   /* the whole frame waits in the socket's queue */
	bool tagged;	   /* a VLAN tag was taken out of it: */
	uint16_t tpid, tci; /* put it back; host order */
};

/** True when the kernel has filled this slot. Orders what follows behind it. */
bool kn_tpacket_filled(const void *slot);

/** Give the slot back to the kernel. */
void kn_tpacket_release(void *slot);

/**
 * Read a filled slot.
 *
 * bytes    its size
 * offload  the socket has PACKET_VNET_HDR
 *
 * Returns 0, or -EBADMSG when its numbers contradict each other or its size
 */
kn_must_use int kn_tpacket_read(const void *slot, size_t bytes, bool offload,
				struct kn_tpacket *ret);
