#include "packet/tpacket.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <string.h>

_Static_assert(sizeof(struct kn_offload) == sizeof(struct virtio_net_hdr), "one layout");

bool kn_tpacket_filled(const void *slot)
{
	const struct tpacket2_hdr *h = slot;

	return __atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER;
}

void kn_tpacket_release(void *slot)
{
	struct tpacket2_hdr *h = slot;

	__atomic_store_n(&h->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
}

int kn_tpacket_read(const void *slot, size_t bytes, bool offload, struct kn_tpacket *ret)
{
	struct tpacket2_hdr h;
	const size_t before = offload ? sizeof(struct kn_offload) : 0;

	if (bytes < sizeof(h))
		return -EBADMSG;
	memcpy(&h, slot, sizeof(h));
	if (h.tp_mac < sizeof(h) + before || h.tp_mac > bytes || h.tp_snaplen > bytes - h.tp_mac ||
	    h.tp_snaplen > h.tp_len)
		return -EBADMSG;
	*ret = (struct kn_tpacket){
		.data = (const uint8_t *)slot + h.tp_mac,
		.len = h.tp_snaplen,
		.wire_len = h.tp_len,
		.ts_ns = (uint64_t)h.tp_sec * 1000000000 + h.tp_nsec,
		.queued = h.tp_status & TP_STATUS_COPY,
		.tagged = h.tp_status & TP_STATUS_VLAN_VALID,
		.tpid = h.tp_status & TP_STATUS_VLAN_TPID_VALID ? h.tp_vlan_tpid : ETH_P_8021Q,
		.tci = h.tp_vlan_tci,
	};
	if (offload)
		memcpy(&ret->offload, ret->data - before, before);
	return 0;
}
