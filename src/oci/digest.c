#include "oci/digest.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>

static const struct algorithm {
	struct kn_view prefix;
	const char *name;
	size_t hex_len;
	const EVP_MD *(*md)(void);
} algorithms[] = {
	[KN_SHA256] = { { "sha256:", 7 }, "sha256", 64, EVP_sha256 },
	[KN_SHA512] = { { "sha512:", 7 }, "sha512", 128, EVP_sha512 },
};

static bool is_lower_hex(struct kn_view v)
{
	for (size_t i = 0; i < v.len; i++) {
		char c = v.ptr[i];
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
	}
	return true;
}

int kn_digest_parse(struct kn_view text, struct kn_digest *ret, struct kn_err *err)
{
	int shown = (int)kn_min(text.len, (size_t)80);

	for (size_t i = 0; i < KN_ARRAY_LEN(algorithms); i++) {
		const struct algorithm *a = &algorithms[i];
		if (text.len < a->prefix.len || memcmp(text.ptr, a->prefix.ptr, a->prefix.len) != 0)
			continue;
		struct kn_view hex = { text.ptr + a->prefix.len, text.len - a->prefix.len };
		if (hex.len != a->hex_len || !is_lower_hex(hex))
			return kn_fail(err, EINVAL,
			               "digest '%.*s' must have %zu lower-case hex digits after '%s'",
			               shown, text.ptr, a->hex_len, a->prefix.ptr);
		*ret = (struct kn_digest){ .text = "" };
		memcpy(ret->text, text.ptr, text.len);
		return 0;
	}
	if (text.len == 0 || !memchr(text.ptr, ':', text.len))
		return kn_fail(err, EINVAL, "'%.*s' is not a digest: sha256:<64 hex digits> is one",
		               shown, text.len ? text.ptr : "");
	return kn_fail(err, ENOTSUP, "digest '%.*s': only sha256 and sha512 are known", shown,
	               text.ptr);
}

enum kn_digest_kind kn_digest_kind(const struct kn_digest *d)
{
	return d->text[3] == '5' ? KN_SHA512 : KN_SHA256;
}

const char *kn_digest_algorithm(const struct kn_digest *d)
{
	return algorithms[kn_digest_kind(d)].name;
}

const char *kn_digest_hex(const struct kn_digest *d)
{
	return d->text[0] ? d->text + algorithms[kn_digest_kind(d)].prefix.len : d->text;
}

struct kn_hasher {
	enum kn_digest_kind kind;
	EVP_MD_CTX *ctx;
};

int kn_hasher_new(enum kn_digest_kind kind, struct kn_hasher **ret, struct kn_err *err)
{
	kn_auto(kn_hasher_free) struct kn_hasher *h = calloc(1, sizeof(*h));

	if (!h)
		return kn_fail(err, ENOMEM, "hash: out of memory");
	h->kind = kind;
	h->ctx = EVP_MD_CTX_new();
	if (!h->ctx || EVP_DigestInit_ex(h->ctx, algorithms[kind].md(), NULL) != 1)
		return kn_fail(err, ENOMEM, "hash: %s cannot be set up", algorithms[kind].name);
	*ret = kn_take_ptr(h);
	return 0;
}

/* SHA-2 over memory cannot fail once it is set up: OpenSSL's results are our mistakes if not 1. */
void kn_hasher_add(struct kn_hasher *h, const void *ptr, size_t len)
{
	int ok = len ? EVP_DigestUpdate(h->ctx, ptr, len) : 1;

	assert(ok == 1);
	(void)ok;
}

void kn_hasher_take(struct kn_hasher *h, struct kn_digest *ret)
{
	const struct algorithm *a = &algorithms[h->kind];
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned int len = 0;

	int ok = EVP_DigestFinal_ex(h->ctx, md, &len) == 1 &&
	         EVP_DigestInit_ex(h->ctx, a->md(), NULL) == 1;
	assert(ok && len * 2 == a->hex_len);
	(void)ok;
	*ret = (struct kn_digest){ .text = "" };
	memcpy(ret->text, a->prefix.ptr, a->prefix.len);
	kn_hex(md, len, ret->text + a->prefix.len);
}

void kn_hasher_free(struct kn_hasher *h)
{
	if (!h)
		return;
	EVP_MD_CTX_free(h->ctx);
	free(h);
}

int kn_digest_of(enum kn_digest_kind kind, const void *ptr, size_t len, struct kn_digest *ret,
                 struct kn_err *err)
{
	kn_auto(kn_hasher_free) struct kn_hasher *h = NULL;

	int r = kn_hasher_new(kind, &h, err);
	if (r < 0)
		return r;
	kn_hasher_add(h, ptr, len);
	kn_hasher_take(h, ret);
	return 0;
}
