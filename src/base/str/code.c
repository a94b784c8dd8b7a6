/* Hex, base64 and base64url. */
#include "base/str.h"

#include <errno.h>

void kn_hex(const void *ptr, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = ptr;

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int kn_unhex(struct kn_view hex, void *out, size_t out_len, struct kn_err *err)
{
	unsigned char *p = out;

	if (hex.len / 2 != out_len || hex.len % 2)
		return kn_fail(err, EINVAL, "expected %zu hex digits, got %zu", 2 * out_len,
		               hex.len);
	for (size_t i = 0; i < hex.len; i++)
		if (hex_digit(hex.ptr[i]) < 0)
			return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is not hex", KN_VIEW_ARG(hex));
	for (size_t i = 0; i < out_len; i++)
		p[i] = (unsigned char)(hex_digit(hex.ptr[2 * i]) * 16 +
		                       hex_digit(hex.ptr[2 * i + 1]));
	return 0;
}

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char URL_ALPHABET[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Up to three bytes to up to four letters. */
static void encode_group(struct kn_buf *b, const unsigned char *p, size_t n, const char *alphabet)
{
	uint32_t bits = (uint32_t)p[0] << 16;
	char out[4];

	if (n > 1)
		bits |= (uint32_t)p[1] << 8;
	if (n > 2)
		bits |= p[2];
	for (size_t i = 0; i <= n; i++)
		out[i] = alphabet[bits >> (18 - 6 * i) & 63];
	kn_buf_add(b, out, n + 1);
}

static void encode(struct kn_buf *b, const unsigned char *p, size_t len, const char *alphabet)
{
	if (!kn_buf_reserve(b, len / 3 * 4 + 4))
		return;
	for (; len >= 3; p += 3, len -= 3)
		encode_group(b, p, 3, alphabet);
	if (len)
		encode_group(b, p, len, alphabet);
}

void kn_base64url(struct kn_buf *b, const void *ptr, size_t len)
{
	encode(b, ptr, len, URL_ALPHABET);
}

void kn_base64(struct kn_buf *b, const void *ptr, size_t len)
{
	encode(b, ptr, len, ALPHABET);
	if (len % 3)
		kn_buf_add(b, "==", 3 - len % 3);
}

static int letter_value(char c, const char *alphabet)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == alphabet[62])
		return 62;
	return c == alphabet[63] ? 63 : -1;
}

/* Two to four letters to n - 1 bytes; false for a foreign letter or bits that say nothing. */
static bool decode_group(struct kn_buf *b, const char *p, size_t n, const char *alphabet)
{
	uint32_t bits = 0;

	for (size_t i = 0; i < n; i++) {
		int v = letter_value(p[i], alphabet);
		if (v < 0)
			return false;
		bits |= (uint32_t)v << (18 - 6 * i);
	}
	if (bits & (0xffffffu >> (8 * (n - 1))) & 0xffffffu)
		return false;
	const unsigned char out[3] = { (unsigned char)(bits >> 16), (unsigned char)(bits >> 8),
		                       (unsigned char)bits };
	kn_buf_add(b, out, n - 1);
	return true;
}

/* v is without padding. Nothing of it stays in b when it is refused. */
static int decode(struct kn_view v, struct kn_buf *b, const char *alphabet, struct kn_err *err)
{
	size_t before = b->len;
	bool ok = v.len % 4 != 1;

	for (size_t i = 0; ok && i < v.len; i += 4)
		ok = decode_group(b, v.ptr + i, kn_min(v.len - i, (size_t)4), alphabet);
	if (b->failed)
		return kn_fail(err, ENOMEM, "out of memory");
	if (ok)
		return 0;
	b->len = before;
	if (b->ptr)
		b->ptr[before] = '\0';
	/* What is encoded may be a secret: do not show it. */
	return kn_fail(err, EINVAL, "not valid base64%s", alphabet == URL_ALPHABET ? "url" : "");
}

int kn_unbase64url(struct kn_view v, struct kn_buf *b, struct kn_err *err)
{
	return decode(v, b, URL_ALPHABET, err);
}

int kn_unbase64(struct kn_view v, struct kn_buf *b, struct kn_err *err)
{
	if (v.len % 4)
		return kn_fail(err, EINVAL, "not valid base64: length is not a multiple of 4");
	for (int i = 0; i < 2 && v.len && v.ptr[v.len - 1] == '='; i++)
		v.len--;
	return decode(v, b, ALPHABET, err);
}
