/*
 * The Internet checksum: over bytes, and patched when a field changes. Values are as they stand in
 * the packet (network order, loaded as they are), since the sum does not mind the byte order.
 *
 * Thread  keeps no state.
 * Source  RFC 1071; RFC 1624, equation 3
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** One's complement sum of 16-bit words folded to 16 bits; an odd last byte counts as padded. */
static inline uint16_t kn_sum16(const void *ptr, size_t len, uint64_t start)
{
	const uint8_t *p = ptr;
	uint64_t sum = start;
	uint16_t word;

	for (; len >= 2; p += 2, len -= 2) {
		memcpy(&word, p, 2);
		sum += word;
	}
	if (len) {
		uint8_t last[2] = { *p, 0 };
		memcpy(&word, last, 2);
		sum += word;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/** The checksum to write into a header whose checksum field holds 0; 0 over a correct header. */
static inline uint16_t kn_checksum(const void *ptr, size_t len)
{
	return (uint16_t)~kn_sum16(ptr, len, 0);
}

/** The checksum after one 16-bit word under it went from before to after. */
static inline uint16_t kn_checksum_update(uint16_t checksum, uint16_t before, uint16_t after)
{
	uint32_t sum = (uint16_t)~checksum + (uint32_t)(uint16_t)~before + after;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}
