/*
 * Frames as text. Blanks are for the reader; pieces are put together by the compiler:
 *     ETH "0800 " IP4(20 + 8 + 4, 17) "1388 0035 000c 0000 " "deadbeef"
 */
#pragma once

#include <stdlib.h>

#include "test.h"

#include "packet/batch.h"

#define MACS  "020000000001 020000000002 "
#define ETH4  MACS "0800 "
#define ETH6  MACS "86dd "
#define FROM4 "0a000001 "
#define TO4   "0a000102 "
#define FROM6 "20010db8 00000000 00000000 00000001 "
#define TO6   "20010db8 00000000 00000000 00000002 "

/* total is 4 hex digits, proto 2: no options, no fragment, TTL 64 */
#define IP4(total, proto) IP4_FRAGMENT(total, proto, "0000")
#define IP4_FRAGMENT(total, proto, fragment)                                                       \
	"45 00 " total " 0001 " fragment " 40 " proto " 0000 " FROM4 TO4
#define IP6(payload, next) "6000 0000 " payload " " next " 40 " FROM6 TO6
#define UDP(len)	   "1388 0035 " len " 0000 "			       /* 5000 to 53 */
#define TCP		   "c000 01bb 00000001 00000002 50 18 ffff 0000 0000 " /* 49152 to 443 */
#define ECHO		   "08 00 0000 0001 0002 "

enum { FIXTURE_MAX = 4096 };

/* The bytes of a text; returns how many. */
static inline size_t bytes_of(const char *text, uint8_t *out)
{
	size_t n = 0;

	for (; *text; text++) {
		int digit = *text >= '0' && *text <= '9'   ? *text - '0'
			    : *text >= 'a' && *text <= 'f' ? *text - 'a' + 10
							   : -1;
		if (digit < 0) {
			assert_int_equal(*text, ' ');
			continue;
		}
		assert_true(n / 2 < FIXTURE_MAX);
		out[n / 2] = (uint8_t)(n % 2 ? out[n / 2] << 4 | digit : digit);
		n++;
	}
	assert_int_equal(n % 2, 0);
	return n / 2;
}

/* A frame around exactly len bytes on the heap, so that a sanitizer sees a read behind them. */
static inline struct kn_frame heap_frame(const uint8_t *bytes, size_t len)
{
	uint8_t *data = malloc(len ? len : 1);

	assert_non_null(data);
	memcpy(data, bytes, len);
	return (struct kn_frame){ .data = data, .len = (uint32_t)len, .wire_len = (uint32_t)len };
}

/* An empty batch with its counters. */
static inline void batch_init(struct kn_batch *b, uint64_t drops[KN_REASON_COUNT])
{
	memset(b, 0, sizeof(*b));
	memset(drops, 0, sizeof(*drops) * KN_REASON_COUNT);
	b->drops = drops;
}
