/*
 * What a person would write who knows that there will only ever be these eight rules, that frames
 * are untagged IPv4 and that nobody asks for counters. It is the lower bound: no table, no
 * configuration, no statistics, no port.
 */
#include "cmd/kiln-nf/byhand.h"

#include <string.h>

#define BE16(x) ((uint16_t)__builtin_bswap16(x))
#define IP(a, b, c, d)                                                                             \
	((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
#define inlined static inline __attribute__((always_inline))

inlined uint16_t u16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, 2);
	return v;
}

inlined uint32_t u32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}

inlined int allowed(uint32_t src, uint32_t dst, uint16_t dst_port, uint8_t proto)
{
	if ((src & IP(255, 255, 0, 0)) == IP(192, 168, 0, 0))
		return 0;
	if ((src & IP(255, 255, 255, 0)) == IP(172, 16, 5, 0) &&
	    (dst & IP(255, 255, 0, 0)) == IP(10, 9, 0, 0))
		return 0;
	if (dst == IP(10, 1, 2, 3) && dst_port == 22 && proto == 6)
		return 0;
	if (dst_port >= 135 && dst_port <= 139)
		return 0;
	if (dst_port == 11211 && proto == 17)
		return 0;
	if ((src & IP(255, 192, 0, 0)) == IP(100, 64, 0, 0) && dst_port == 1900 && proto == 17)
		return 0;
	if ((dst & IP(240, 0, 0, 0)) == IP(224, 0, 0, 0))
		return 0;
	return (src & IP(255, 0, 0, 0)) == IP(10, 0, 0, 0) &&
	       (dst & IP(255, 0, 0, 0)) == IP(10, 0, 0, 0) && dst_port >= 1;
}

inlined int whole(const uint8_t *p, uint32_t len)
{
	if (len < 42 || u16(p + 12) != BE16(0x0800) || p[14] != 0x45 || u16(p + 20) & BE16(0x3fff))
		return 0;
	uint32_t total = BE16(u16(p + 16));
	if (total < 28 || total + 14 > len)
		return 0;
	if (p[23] == 17)
		return BE16(u16(p + 38)) >= 8 && BE16(u16(p + 38)) <= total - 20;
	if (p[23] == 6)
		return len >= 54 && p[46] >> 4 >= 5 && (uint32_t)(p[46] >> 4) * 4 <= total - 20;
	return 0;
}

inlined void rewrite(uint8_t *p)
{
	uint8_t dst[6];
	memcpy(dst, p, 6);
	memcpy(p, p + 6, 6);
	memcpy(p + 6, dst, 6);
	p[22]--;
	uint32_t sum = (uint32_t)u16(p + 24) + BE16(0x0100);
	uint16_t checksum = (uint16_t)(sum + (sum >= 0xffff));
	memcpy(p + 24, &checksum, 2);
}

uint64_t kn_by_hand(struct kn_frame *const *frames, uint32_t n)
{
	uint64_t passed = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint8_t *p = frames[i]->data;
		if (!whole(p, frames[i]->len) || p[22] <= 1 ||
		    !allowed(u32(p + 26), u32(p + 30), BE16(u16(p + 36)), p[23]))
			continue;
		rewrite(p);
		passed++;
	}
	return passed;
}
