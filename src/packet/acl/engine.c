/*
 * The three engines: one loop over rules, in which the only thing that differs is how 32 lanes are
 * compared with one rule. First match wins because a rule takes its lanes out of `pending`.
 *
 * Per rule and batch of 32: 8 vector instructions for 16 lanes with AVX-512 (ternary logic does
 * (a ^ b) & c at once), 11 for 8 lanes with AVX2.
 */
#include "packet/acl/compiled.h"

#include "packet/header.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LOOK_EVERY = 8 }; /* rules between two looks at whether any lane is left */

kn_lanes kn_acl_six(const struct six *six, const struct kn_batch *b, kn_lanes lanes)
{
	kn_lanes match = 0;

	kn_each_lane(i, lanes & b->ipv6)
	{
		const uint8_t *src =
			b->frame[i]->data + b->l3[i] + offsetof(struct kn_ipv6_header, src);
		const uint8_t *dst = src + 16;
		uint64_t off = ((kn_load64(src) ^ six->src_value[0]) & six->src_mask[0]) |
			       ((kn_load64(src + 8) ^ six->src_value[1]) & six->src_mask[1]) |
			       ((kn_load64(dst) ^ six->dst_value[0]) & six->dst_mask[0]) |
			       ((kn_load64(dst + 8) ^ six->dst_value[1]) & six->dst_mask[1]);
		match |= (kn_lanes)(off == 0) << i;
	}
	return match;
}

/* The state of one walk down the list. */
struct walk {
	const struct kn_acl *acl;
	const struct kn_batch *b;
	uint64_t *counts;
	const char **names;
	kn_lanes pending, dropped;
};

/* Rule i matches these lanes: take those that are still pending. */
static inline __attribute__((always_inline)) void settle(struct walk *w, uint32_t i, kn_lanes match)
{
	const struct code *c = &w->acl->codes[i];

	match &= w->pending;
	if (__builtin_expect(c->six != 0, 0))
		match = kn_acl_six(&w->acl->six[c->six - 1], w->b, match);
	w->pending &= ~match;
	w->dropped |= match & c->drop;
	w->counts[i] += kn_lanes_count(match);
	if (__builtin_expect(w->names != NULL, 0)) {
		kn_each_lane(lane, match)
		{
			w->names[lane] = w->acl->names[i];
		}
	}
}

static inline __attribute__((always_inline)) bool nothing_left(const struct walk *w, uint32_t i)
{
	return i % LOOK_EVERY == LOOK_EVERY - 1 && w->pending == 0;
}

static inline struct verdict finish(const struct walk *w, kn_lanes set)
{
	return (struct verdict){ .passed = set & ~w->pending & ~w->dropped,
				 .dropped = w->dropped,
				 .unmatched = w->pending };
}

#define WALK(acl, b, set, counts, names)                                                           \
	{                                                                                          \
		(acl), (b), (counts), (names), (set), 0                                            \
	}

static inline bool half_outside(uint32_t value, uint32_t low, uint32_t high)
{
	return value < low || value > high;
}

static kn_lanes compare_portable(const struct code *c, const struct kn_batch *b)
{
	kn_lanes match = 0;

	for (uint32_t i = 0; i < KN_BATCH; i++) {
		uint32_t p = b->ports[i];
		uint32_t off = ((b->src4[i] ^ c->src_value) & c->src_mask) |
			       ((b->dst4[i] ^ c->dst_value) & c->dst_mask) |
			       ((b->meta[i] ^ c->meta_value) & c->meta_mask);
		off |= (uint32_t)half_outside(p >> 16, c->low >> 16, c->high >> 16);
		off |= (uint32_t)half_outside(p & 0xffff, c->low & 0xffff, c->high & 0xffff);
		match |= (kn_lanes)(off == 0) << i;
	}
	return match;
}

struct verdict kn_acl_portable(const struct kn_acl *acl, const struct kn_batch *b, kn_lanes set,
			       uint64_t *counts, const char **ret_names)
{
	struct walk w = WALK(acl, b, set, counts, ret_names);

	for (uint32_t i = 0; i < acl->n && !nothing_left(&w, i); i++)
		settle(&w, i, compare_portable(&acl->codes[i], b));
	return finish(&w, set);
}

#if defined(__x86_64__)

#define AVX2 __attribute__((target("avx2,popcnt,bmi")))

static inline AVX2 __m256i outside8(__m256i column, uint32_t value, uint32_t mask)
{
	return _mm256_and_si256(_mm256_xor_si256(column, _mm256_set1_epi32((int)value)),
				_mm256_set1_epi32((int)mask));
}

static inline AVX2 kn_lanes compare_avx2(const struct code *c, const struct kn_batch *b)
{
	const __m256i low = _mm256_set1_epi32((int)c->low), high = _mm256_set1_epi32((int)c->high);
	kn_lanes match = 0;

	for (unsigned k = 0; k < KN_BATCH / 8; k++) {
		__m256i p = _mm256_load_si256((const __m256i *)b->ports + k);
		__m256i off =
			_mm256_or_si256(_mm256_subs_epu16(low, p), _mm256_subs_epu16(p, high));
		off = _mm256_or_si256(off, outside8(_mm256_load_si256((const __m256i *)b->src4 + k),
						    c->src_value, c->src_mask));
		off = _mm256_or_si256(off, outside8(_mm256_load_si256((const __m256i *)b->dst4 + k),
						    c->dst_value, c->dst_mask));
		off = _mm256_or_si256(off, outside8(_mm256_load_si256((const __m256i *)b->meta + k),
						    c->meta_value, c->meta_mask));
		off = _mm256_cmpeq_epi32(off, _mm256_setzero_si256());
		match |= (kn_lanes)_mm256_movemask_ps(_mm256_castsi256_ps(off)) << (8 * k);
	}
	return match;
}

AVX2 struct verdict kn_acl_avx2(const struct kn_acl *acl, const struct kn_batch *b, kn_lanes set,
				uint64_t *counts, const char **ret_names)
{
	struct walk w = WALK(acl, b, set, counts, ret_names);

	for (uint32_t i = 0; i < acl->n && !nothing_left(&w, i); i++)
		settle(&w, i, compare_avx2(&acl->codes[i], b));
	return finish(&w, set);
}

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,popcnt,bmi")))

enum { XOR_AND = 0x28, OR3 = 0xfe }; /* truth tables of (a ^ b) & c and of a | b | c */

struct columns {
	__m512i src, dst, meta, ports;
};

static inline AVX512 struct columns columns16(const struct kn_batch *b, unsigned half)
{
	return (struct columns){ .src = _mm512_load_si512((const __m512i *)b->src4 + half),
				 .dst = _mm512_load_si512((const __m512i *)b->dst4 + half),
				 .meta = _mm512_load_si512((const __m512i *)b->meta + half),
				 .ports = _mm512_load_si512((const __m512i *)b->ports + half) };
}

static inline AVX512 __m512i outside16(__m512i column, uint32_t value, uint32_t mask)
{
	return _mm512_ternarylogic_epi32(column, _mm512_set1_epi32((int)value),
					 _mm512_set1_epi32((int)mask), XOR_AND);
}

static inline AVX512 kn_lanes compare16(const struct code *c, struct columns x)
{
	__m512i off =
		_mm512_ternarylogic_epi32(outside16(x.src, c->src_value, c->src_mask),
					  outside16(x.dst, c->dst_value, c->dst_mask),
					  outside16(x.meta, c->meta_value, c->meta_mask), OR3);
	__m512i below = _mm512_subs_epu16(_mm512_set1_epi32((int)c->low), x.ports);
	__m512i above = _mm512_subs_epu16(x.ports, _mm512_set1_epi32((int)c->high));

	off = _mm512_ternarylogic_epi32(off, below, above, OR3);
	return _mm512_testn_epi32_mask(off, off);
}

AVX512 struct verdict kn_acl_avx512(const struct kn_acl *acl, const struct kn_batch *b,
				    kn_lanes set, uint64_t *counts, const char **ret_names)
{
	struct walk w = WALK(acl, b, set, counts, ret_names);
	const struct columns lower = columns16(b, 0), upper = columns16(b, 1);

	for (uint32_t i = 0; i < acl->n && !nothing_left(&w, i); i++) {
		const struct code *c = &acl->codes[i];
		settle(&w, i, compare16(c, lower) | compare16(c, upper) << 16);
	}
	return finish(&w, set);
}

#endif
