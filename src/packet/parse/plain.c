/*
 * Plain frames, eight at a time: Ethernet without tags, an IPv4 header of 20 bytes, no fragment,
 * TCP or UDP, nothing cut. That is what traffic mostly consists of, and its fields stand at fixed
 * offsets, so that parsing is moving words: three pieces of 16 bytes are loaded from each of eight
 * frames, transposed into columns, and checked as columns. The lanes for which every check holds
 * are plain; the others are left to the complete parser.
 *
 * Measured on a shared EPYC (Zen 5) on 2026-11-23, ns a frame: frame by frame 4.6 (75
 * instructions), this way 1.5.
 *
 * Pieces, offsets in the frame:
 *     A  10..25   MAC, type | version, TOS, total length | id, fragment | TTL, protocol, checksum
 *     B  26..41   source | destination | ports | UDP length, checksum
 *     C  38..53   ... | ... | TCP offset at 46 | ...
 * PLAIN_BYTES is where C ends. Of shorter frames nothing is read: zeros stand in for them, and
 * zeros are not plain.
 */
#include "packet/parse/plain.h"

#include "packet/header.h"

static bool vectors = true;

void kn_parse_use_vectors(bool yes)
{
	vectors = yes;
}

#if defined(__x86_64__)

#include <immintrin.h>

enum {
	PLAIN_BYTES = 54,
	GROUP = 8,
	PIECE_A = 10,
	PIECE_B = 26,
	PIECE_C = 38,
	L3 = 14,
	L4 = 34,
	IPV4_BYTES = 20,
	UDP_BYTES = 8,
	TCP_BYTES = 20,
};

#define AVX2 __attribute__((target("avx2,bmi"))) static inline

typedef __m256i words; /* one 32-bit word of each of eight frames */

static const uint8_t zeros[PLAIN_BYTES];

/* Row r of a piece in the lower half, row r + 4 in the upper one. */
AVX2 __m256i rows(const uint8_t *const *at, unsigned r, unsigned offset)
{
	__m128i lower = _mm_loadu_si128((const __m128i *)(at[r] + offset));
	__m128i upper = _mm_loadu_si128((const __m128i *)(at[r + 4] + offset));

	return _mm256_inserti128_si256(_mm256_castsi128_si256(lower), upper, 1);
}

/* A piece of eight frames as its four columns. */
AVX2 void transpose(const uint8_t *const *at, unsigned offset, words ret[4])
{
	__m256i r0 = rows(at, 0, offset), r1 = rows(at, 1, offset);
	__m256i r2 = rows(at, 2, offset), r3 = rows(at, 3, offset);
	__m256i a = _mm256_unpacklo_epi32(r0, r1), b = _mm256_unpacklo_epi32(r2, r3);
	__m256i c = _mm256_unpackhi_epi32(r0, r1), d = _mm256_unpackhi_epi32(r2, r3);

	ret[0] = _mm256_unpacklo_epi64(a, b);
	ret[1] = _mm256_unpackhi_epi64(a, b);
	ret[2] = _mm256_unpacklo_epi64(c, d);
	ret[3] = _mm256_unpackhi_epi64(c, d);
}

AVX2 words all(int value)
{
	return _mm256_set1_epi32(value);
}

/* Each word's bytes in the order of order's; 0x80 makes a zero. */
AVX2 words pick_bytes(words w, int order)
{
	/* Indices are per half of 16 bytes: word k of a half begins at 4k. */
	const __m256i base = _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404,
					       0x08080808, 0x0c0c0c0c);
	return _mm256_shuffle_epi8(w, _mm256_or_si256(base, all(order)));
}

#define SWAP_32	      0x00010203
#define SWAP_LOWER_16 ((int)0x80800001)
#define SWAP_UPPER_16 ((int)0x80800203)

struct fields {
	words src, dst, ports, proto, payload, payload_len;
	words plain; /* all ones or all zeros */
};

/* Right type, version and header length; neither offset nor more fragments. */
AVX2 words fixed_fields_differ(const words a[4])
{
	words type =
		_mm256_and_si256(_mm256_xor_si256(a[0], all(0x00080000)), all((int)0xffff0000));
	words version = _mm256_and_si256(_mm256_xor_si256(a[1], all(0x45)), all(0xff));
	words fragment = _mm256_and_si256(a[2], all((int)0xff3f0000));

	return _mm256_or_si256(_mm256_or_si256(type, version), fragment);
}

/* Signed compares will do: lengths are below 2^17. */
AVX2 struct fields check(const words a[4], const words b[4], words tcp_word, words len)
{
	words total = pick_bytes(a[1], SWAP_UPPER_16);
	words proto = _mm256_and_si256(_mm256_srli_epi32(a[3], 8), all(0xff));
	words is_tcp = _mm256_cmpeq_epi32(proto, all(KN_PROTO_TCP));
	words is_udp = _mm256_cmpeq_epi32(proto, all(KN_PROTO_UDP));
	words tcp_bytes = _mm256_srli_epi32(_mm256_and_si256(tcp_word, all(0xf0)), 2);
	words udp_bytes = pick_bytes(b[3], SWAP_LOWER_16);
	words claimed = _mm256_blendv_epi8(udp_bytes, tcp_bytes, is_tcp);
	words least = _mm256_blendv_epi8(all(UDP_BYTES), all(TCP_BYTES), is_tcp);

	words wrong = _mm256_cmpgt_epi32(least, claimed);
	wrong = _mm256_or_si256(
		wrong, _mm256_cmpgt_epi32(claimed, _mm256_sub_epi32(total, all(IPV4_BYTES))));
	wrong = _mm256_or_si256(wrong, _mm256_cmpgt_epi32(_mm256_add_epi32(total, all(L3)), len));
	wrong = _mm256_or_si256(wrong, fixed_fields_differ(a));

	words header = _mm256_blendv_epi8(all(UDP_BYTES), tcp_bytes, is_tcp);
	words payload = _mm256_add_epi32(header, all(L4));
	return (struct fields){
		.src = b[0],
		.dst = b[1],
		.ports = pick_bytes(b[2], SWAP_32),
		.proto = proto,
		.payload = payload,
		.payload_len = _mm256_sub_epi32(_mm256_add_epi32(total, all(L3)), payload),
		.plain = _mm256_and_si256(_mm256_or_si256(is_tcp, is_udp),
					  _mm256_cmpeq_epi32(wrong, _mm256_setzero_si256())),
	};
}

AVX2 void store(struct kn_batch *b, unsigned at, const struct fields *f)
{
	words meta = _mm256_or_si256(f->proto, all(KN_META_IPV4 | KN_META_PORTS));
	/* Eight payload offsets in the lower half, eight lengths in the upper one. */
	__m256i tail = _mm256_permute4x64_epi64(_mm256_packus_epi32(f->payload, f->payload_len),
						_MM_SHUFFLE(3, 1, 2, 0));

	_mm256_store_si256((__m256i *)(b->meta + at), meta);
	_mm256_store_si256((__m256i *)(b->src4 + at), f->src);
	_mm256_store_si256((__m256i *)(b->dst4 + at), f->dst);
	_mm256_store_si256((__m256i *)(b->ports + at), f->ports);
	_mm_store_si128((__m128i *)(b->l3 + at), _mm_set1_epi16(L3));
	_mm_store_si128((__m128i *)(b->l4 + at), _mm_set1_epi16(L4));
	_mm_store_si128((__m128i *)(b->payload + at), _mm256_castsi256_si128(tail));
	_mm_store_si128((__m128i *)(b->payload_len + at), _mm256_extracti128_si256(tail, 1));
}

/* Eight frames from lane `first` on; returns those that are plain, as bits 0 to 7. */
AVX2 kn_lanes group(struct kn_batch *b, unsigned first)
{
	const uint8_t *at[GROUP];
	_Alignas(32) uint32_t lens[GROUP];
	words piece_a[4], piece_b[4], piece_c[4];

	for (unsigned i = 0; i < GROUP; i++) {
		const struct kn_frame *f = b->frame[first + i];
		lens[i] = f->len;
		at[i] = f->len < PLAIN_BYTES ? zeros : f->data;
	}
	transpose(at, PIECE_A, piece_a);
	transpose(at, PIECE_B, piece_b);
	transpose(at, PIECE_C, piece_c);
	struct fields f =
		check(piece_a, piece_b, piece_c[2], _mm256_load_si256((const __m256i *)lens));
	store(b, first, &f);
	return (kn_lanes)_mm256_movemask_ps(_mm256_castsi256_ps(f.plain));
}

__attribute__((target("avx2,bmi"))) static kn_lanes plain_lanes(struct kn_batch *b)
{
	kn_lanes plain = 0;

	/* Lanes behind the last frame look at the first one again: harmless, and masked below. */
	for (unsigned i = b->n; i % GROUP; i++)
		b->frame[i] = b->frame[0];
	for (unsigned first = 0; first < b->n; first += GROUP)
		plain |= group(b, first) << first;
	return plain & b->live;
}

kn_lanes kn_parse_plain(struct kn_batch *b)
{
	return vectors && __builtin_cpu_supports("avx2") ? plain_lanes(b) : 0;
}

#else

kn_lanes kn_parse_plain(struct kn_batch *b)
{
	(void)b;
	return 0;
}

#endif
