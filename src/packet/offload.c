#include "packet/offload.h"

#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <string.h>

#include "packet/checksum.h"
#include "packet/parse.h"

enum { IP4_SRC = 12, IP6_SRC = 8, TCP_CHECKSUM = 16, UDP_CHECKSUM = 6 };

/* The pseudo header's sum, not inverted (RFC 9293, 3.1; RFC 8200, 8.1). */
static uint16_t pseudo_sum(const uint8_t *data, const struct kn_parsed *p, uint16_t len,
			   uint8_t proto)
{
	const uint16_t tail[2] = { htons(proto), htons(len) };
	uint64_t sum = kn_sum16(tail, sizeof(tail), 0);

	return p->meta & KN_META_IPV4 ? kn_sum16(data + p->l3 + IP4_SRC, 8, sum)
				      : kn_sum16(data + p->l3 + IP6_SRC, 32, sum);
}

bool kn_offload_find(const uint8_t *data, uint32_t len, struct kn_offload *ret)
{
	struct kn_parsed p;
	uint16_t have;

	*ret = (struct kn_offload){ 0 };
	if (kn_parse_frame(data, len, len, NULL, &p) != KN_REASON_NONE || !p.l4 ||
	    !(p.meta & KN_META_PORTS) || (p.meta & KN_META_FRAGMENT))
		return false;
	uint8_t proto = p.meta & KN_META_PROTO;
	uint16_t at = proto == IPPROTO_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP)
		return false;
	memcpy(&have, data + p.l4 + at, sizeof(have));
	uint16_t l4_len = (uint16_t)(p.payload - p.l4 + p.payload_len);
	/* A UDP checksum of 0 says that there is none. */
	if (have == 0 || have != pseudo_sum(data, &p, l4_len, proto))
		return false;
	*ret = (struct kn_offload){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
				    .csum_start = p.l4,
				    .csum_offset = at };
	return true;
}

bool kn_offload_finish(uint8_t *data, uint32_t len, const struct kn_offload *offload)
{
	uint32_t start = offload->csum_start, at = start + offload->csum_offset;

	if (offload->gso_type != VIRTIO_NET_HDR_GSO_NONE)
		return false;
	if (!(offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return true;
	if (at + 2 > len)
		return false;
	/* The field holds the pseudo header's sum, so that the sum over all is the whole one. */
	uint16_t sum = kn_checksum(data + start, len - start);
	if (sum == 0)
		sum = 0xffff; /* 0 would say that there is no checksum (RFC 768) */
	memcpy(data + at, &sum, sizeof(sum));
	return true;
}
