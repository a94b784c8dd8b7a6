/*
 * Checksum: reads its standard input to the end and writes one line of JSON about it:
 *
 *     {"bytes":11,"crc32":"0d4a1185","sha256":"b94d27b9934d3e08a52e52d7da7dabfa..."}
 *
 * A function in the simplest form there is: no server, no library, nothing that knows of Kiln. One
 * process serves one request; however large the input, it takes 64 KiB of memory. Exit code 1 when
 * reading or writing fails.
 *
 *     cc -O2 -static -o checksum checksum.c && printf 'hello world' | ./checksum
 *
 * Source: FIPS 180-4 (SHA-256); ISO 3309 and RFC 1952 (CRC-32)
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- CRC-32, reflected: polynomial 0xedb88320 ---------------------------------------------- */

static uint32_t crc_table[256];

static void crc_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int k = 0; k < 8; k++)
			c = c >> 1 ^ (c & 1 ? UINT32_C(0xedb88320) : 0);
		crc_table[i] = c;
	}
}

static uint32_t crc_add(uint32_t crc, const unsigned char *p, size_t len)
{
	crc = ~crc;
	while (len--)
		crc = crc >> 8 ^ crc_table[(crc ^ *p++) & 0xff];
	return ~crc;
}

/* ---- SHA-256 ------------------------------------------------------------------------------- */

struct sha256 {
	uint32_t h[8];
	unsigned char block[64];
	size_t fill;
	uint64_t bytes;
};

/* The fractional parts of the square roots of the first 8 primes ... */
static const uint32_t sha_start[8] = {
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
	0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/* ... and of the cube roots of the first 64. */
static const uint32_t sha_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t ror(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static void sha_expand(const unsigned char *p, uint32_t w[64])
{
	for (int i = 0; i < 16; i++, p += 4)
		w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
}

static void sha_block(struct sha256 *s, const unsigned char *p)
{
	uint32_t w[64], v[8];

	sha_expand(p, w);
	memcpy(v, s->h, sizeof(v));
	for (int i = 0; i < 64; i++) {
		uint32_t t1 = v[7] + (ror(v[4], 6) ^ ror(v[4], 11) ^ ror(v[4], 25)) +
		              ((v[4] & v[5]) ^ (~v[4] & v[6])) + sha_k[i] + w[i];
		uint32_t t2 = (ror(v[0], 2) ^ ror(v[0], 13) ^ ror(v[0], 22)) +
		              ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
		memmove(v + 1, v, 7 * sizeof(v[0]));
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		s->h[i] += v[i];
}

static void sha_add(struct sha256 *s, const unsigned char *p, size_t len)
{
	s->bytes += len;
	while (len > 0) {
		size_t n = sizeof(s->block) - s->fill;
		n = n < len ? n : len;
		memcpy(s->block + s->fill, p, n);
		s->fill += n;
		p += n;
		len -= n;
		if (s->fill == sizeof(s->block)) {
			sha_block(s, s->block);
			s->fill = 0;
		}
	}
}

static void sha_end(struct sha256 *s)
{
	static const unsigned char pad[64] = { 0x80 };
	unsigned char length[8];
	uint64_t bits = s->bytes * 8;

	for (int i = 0; i < 8; i++)
		length[i] = (unsigned char)(bits >> (56 - 8 * i));
	sha_add(s, pad, 1 + (119 - s->fill) % 64);
	sha_add(s, length, sizeof(length));
}

/* ---- the function -------------------------------------------------------------------------- */

int main(void)
{
	static unsigned char buffer[64 * 1024];
	struct sha256 sha = { .fill = 0 };
	uint32_t crc = 0;
	uint64_t bytes = 0;

	crc_init();
	memcpy(sha.h, sha_start, sizeof(sha_start));
	for (ssize_t n; (n = read(0, buffer, sizeof(buffer))) != 0;) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			perror("checksum: read");
			return 1;
		}
		crc = crc_add(crc, buffer, (size_t)n);
		sha_add(&sha, buffer, (size_t)n);
		bytes += (uint64_t)n;
	}
	sha_end(&sha);
	printf("{\"bytes\":%llu,\"crc32\":\"%08x\",\"sha256\":\"", (unsigned long long)bytes, crc);
	for (int i = 0; i < 8; i++)
		printf("%08x", sha.h[i]);
	puts("\"}");
	return fflush(stdout) == 0 ? 0 : 1;
}
