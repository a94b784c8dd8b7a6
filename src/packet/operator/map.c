/*
 * Operators that change frames.
 */
#include <string.h>

#include "packet/header.h"
#include "packet/operator.h"

/*
 * Two overlapping loads hold both addresses: bytes 0..7 and 4..11. Both are done before the first
 * store.
 */
static inline void mac_swap(struct kn_batch *b, uint32_t lane, void *unused)
{
	uint8_t *p = b->frame[lane]->data;
	uint64_t low = kn_load64(p), high = kn_load64(p + 4);

	(void)unused;
	kn_store64(p, high >> 16 | low << 48);
	kn_store32(p + 8, (uint32_t)(low >> 16));
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "kn_map_* move bytes inside words: write the big-endian form before building there"
#endif

KN_OPERATOR_MAP(mac_swap_all, mac_swap)

void kn_map_mac_swap(struct kn_batch *b, void *unused)
{
	mac_swap_all(b, unused);
}

enum { TTL_WORD = 8 }; /* TTL, protocol, checksum: 4 bytes from here in the IPv4 header */

/*
 * RFC 1624: the sum over the header falls by 0x0100 when the TTL does, so its complement rises by
 * as much, end-around carry included. Returns 0 where the TTL is used up.
 */
static inline bool ttl4(uint8_t *ip)
{
	uint32_t word = kn_load32(ip + TTL_WORD);
	uint32_t sum = (word >> 16) + 1; /* 0x0100 as it lies in memory */

	if (__builtin_expect((word & 0xff) <= 1, 0))
		return false;
	sum += sum >= 0xffff;
	kn_store32(ip + TTL_WORD, (((word & 0xffff) - 1) | sum << 16));
	return true;
}

static inline bool ttl6(uint8_t *ip)
{
	struct kn_ipv6_header *h = (struct kn_ipv6_header *)ip;

	if (h->hop_limit <= 1)
		return false;
	h->hop_limit--;
	return true;
}

void kn_map_ttl(struct kn_batch *b, void *unused)
{
	kn_lanes expired = 0;

	(void)unused;
	kn_each_lane(i, b->live & b->ipv4)
	{
		expired |= (kn_lanes)!ttl4(b->frame[i]->data + b->l3[i]) << i;
	}
	kn_each_lane(k, b->live & b->ipv6)
	{
		expired |= (kn_lanes)!ttl6(b->frame[k]->data + b->l3[k]) << k;
	}
	kn_batch_drop(b, expired, KN_DROP_TTL);
}

static const struct {
	const char *name;
	kn_operator *call;
} maps[] = {
	{ "mac_swap", kn_map_mac_swap },
	{ "ttl", kn_map_ttl },
};

static const char *const names[] = { "mac_swap", "ttl", NULL };
_Static_assert(KN_ARRAY_LEN(names) == KN_ARRAY_LEN(maps) + 1, "one name a row");

kn_operator *kn_map_find(const char *name)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(maps); i++)
		if (strcmp(maps[i].name, name) == 0)
			return maps[i].call;
	return NULL;
}

const char *const *kn_map_names(void)
{
	return names;
}
