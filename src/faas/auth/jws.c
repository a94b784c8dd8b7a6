/*
 * Compact JWS with one algorithm. The attacks on JWT libraries live in what a token may ask of its
 * reader: another algorithm, another key, an extension. So the reader here has nothing to offer: the
 * key is ours, the algorithm is ES256, the header may hold alg, typ and kid, and every encoding has
 * exactly one accepted form. Payloads are parsed only after their signature proved right.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>

#include "faas/auth/private.h"

static const char KEY_FILE[] = "token-key.pem";
enum { MAX_KEY_FILE = 4096, COORDINATE = 32, MAX_DER = 80 };

KN_AUTO(EVP_PKEY_free, EVP_PKEY *);
KN_AUTO(EVP_MD_CTX_free, EVP_MD_CTX *);
KN_AUTO(ECDSA_SIG_free, ECDSA_SIG *);
KN_AUTO(BIO_free_all, BIO *);
KN_AUTO(BN_clear_free, BIGNUM *);

static int openssl_failed(struct kn_err *err, const char *what)
{
	unsigned long code = ERR_get_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return kn_fail(err, EIO, "%s: %s", what, reason ? reason : "OpenSSL gives no reason");
}

/* ---- the key ------------------------------------------------------------------------------- */

static bool coordinates(const EVP_PKEY *pkey, uint8_t x[COORDINATE], uint8_t y[COORDINATE])
{
	kn_auto(BN_clear_free) BIGNUM *bx = NULL;
	kn_auto(BN_clear_free) BIGNUM *by = NULL;

	return EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_EC_PUB_X, &bx) &&
	       EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_EC_PUB_Y, &by) &&
	       BN_bn2binpad(bx, x, COORDINATE) == COORDINATE &&
	       BN_bn2binpad(by, y, COORDINATE) == COORDINATE;
}

static int encoded_coordinates(const EVP_PKEY *pkey, struct kn_buf *x, struct kn_buf *y)
{
	uint8_t bx[COORDINATE], by[COORDINATE];

	if (!coordinates(pkey, bx, by))
		return -EIO;
	kn_base64url(x, bx, sizeof(bx));
	kn_base64url(y, by, sizeof(by));
	return x->failed || y->failed ? -ENOMEM : 0;
}

/* RFC 7638: SHA-256 of the required members in lexical order without blanks. */
static int thumbprint(struct jws_key *key, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf x = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf y = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf kid = KN_BUF_INIT;
	uint8_t hash[HASH_BYTES];

	if (encoded_coordinates(key->pkey, &x, &y) < 0)
		return openssl_failed(err, "read the public key");
	kn_buf_printf(&text, "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"%s\",\"y\":\"%s\"}", x.ptr,
	              y.ptr);
	if (text.failed || !EVP_Digest(text.ptr, text.len, hash, NULL, EVP_sha256(), NULL))
		return openssl_failed(err, "hash the public key");
	kn_base64url(&kid, hash, sizeof(hash));
	if (kid.failed || kid.len != KID_CHARS)
		return kn_fail(err, ENOMEM, "no memory for the key's name");
	memcpy(key->kid, kid.ptr, KID_CHARS + 1);
	return 0;
}

int jws_key_make(struct jws_key *key, struct kn_err *err)
{
	*key = (struct jws_key){ .pkey = EVP_EC_gen("P-256") };
	if (!key->pkey)
		return openssl_failed(err, "make a signing key");
	int r = thumbprint(key, err);
	if (r < 0)
		jws_key_fini(key);
	return r;
}

static int write_key(const struct jws_key *key, int dir, struct kn_err *err)
{
	kn_auto(BIO_free_all) BIO *bio = BIO_new(BIO_s_secmem());
	char *pem = NULL;

	if (!bio || !PEM_write_bio_PKCS8PrivateKey(bio, key->pkey, NULL, NULL, 0, NULL, NULL))
		return openssl_failed(err, "encode the signing key");
	long len = BIO_get_mem_data(bio, &pem);
	return kn_write_file(dir, KEY_FILE, pem, (size_t)len, 0600, err);
}

static bool is_p256_private(const EVP_PKEY *pkey)
{
	char group[32];
	kn_auto(BN_clear_free) BIGNUM *secret = NULL;

	return EVP_PKEY_is_a(pkey, "EC") &&
	       EVP_PKEY_get_utf8_string_param(pkey, OSSL_PKEY_PARAM_GROUP_NAME, group,
	                                      sizeof(group), NULL) &&
	       strcmp(group, "prime256v1") == 0 &&
	       EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_PRIV_KEY, &secret);
}

/* No passphrase: a daemon has nobody to ask. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
	(void)buf, (void)size, (void)writing, (void)arg;
	return -1;
}

static int parse_key(struct jws_key *key, struct kn_view pem, struct kn_err *err)
{
	kn_auto(BIO_free_all) BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);

	if (!bio)
		return kn_fail(err, ENOMEM, "no memory to read the signing key");
	kn_auto(EVP_PKEY_free) EVP_PKEY *pkey =
		PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	ERR_clear_error();
	if (!pkey || !is_p256_private(pkey))
		return kn_fail(err, EUCLEAN,
		               "the file holds no P-256 private key (PEM, PKCS #8): restore it, or move "
		               "it away to have a new one made (tokens issued so far then stop counting)");
	*key = (struct jws_key){ .pkey = kn_take_ptr(pkey) };
	int r = thumbprint(key, err);
	if (r < 0)
		jws_key_fini(key);
	return r;
}

static int check_mode(int dir, struct kn_err *err)
{
	struct stat st;

	if (fstatat(dir, KEY_FILE, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return kn_fail(err, errno, "%m");
	if (!S_ISREG(st.st_mode))
		return kn_fail(err, EUCLEAN, "not a regular file");
	if (st.st_mode & 077)
		return kn_fail(err, EPERM, "others may read it (mode %04o): chmod 600",
		               (unsigned)st.st_mode & 07777);
	return 0;
}

static int read_key(struct jws_key *key, int dir, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf pem = KN_BUF_INIT;

	int r = check_mode(dir, err);
	if (r == 0)
		r = kn_read_file(dir, KEY_FILE, MAX_KEY_FILE, &pem, err);
	if (r == 0)
		r = parse_key(key, kn_buf_view(&pem), err);
	if (pem.ptr)
		OPENSSL_cleanse(pem.ptr, pem.len);
	return r;
}

int jws_key_load(struct jws_key *key, int dir, struct kn_err *err)
{
	struct kn_err why = KN_ERR_INIT;

	int r = read_key(key, dir, &why);
	if (r == -ENOENT) {
		why = KN_ERR_INIT;
		r = jws_key_make(key, &why);
		if (r == 0 && (r = write_key(key, dir, &why)) < 0)
			jws_key_fini(key);
	}
	if (r < 0) {
		kn_fail(err, why.code, "%s", why.text);
		return kn_while(err, "signing key '%s'", KEY_FILE);
	}
	return 0;
}

void jws_key_fini(struct jws_key *key)
{
	EVP_PKEY_free(key->pkey);
	*key = (struct jws_key){ .pkey = NULL };
}

json_t *jws_key_public(const struct jws_key *key)
{
	kn_auto(kn_buf_fini) struct kn_buf x = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf y = KN_BUF_INIT;

	if (encoded_coordinates(key->pkey, &x, &y) < 0)
		return NULL;
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "kty", "EC", "crv", "P-256", "x",
	                 x.ptr, "y", y.ptr, "use", "sig", "alg", "ES256", "kid", key->kid);
}

/* ---- signing ------------------------------------------------------------------------------- */

/* OpenSSL speaks DER; JWS wants r and s as 32 bytes each (RFC 7518, 3.4). */
static bool der_to_raw(const uint8_t *der, size_t len, uint8_t raw[SIGNATURE_BYTES])
{
	const uint8_t *at = der;
	kn_auto(ECDSA_SIG_free) ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);

	return sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, COORDINATE) == COORDINATE &&
	       BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + COORDINATE, COORDINATE) == COORDINATE;
}

static size_t raw_to_der(const uint8_t raw[SIGNATURE_BYTES], uint8_t der[MAX_DER])
{
	kn_auto(ECDSA_SIG_free) ECDSA_SIG *sig = ECDSA_SIG_new();
	kn_auto(BN_clear_free) BIGNUM *r = BN_bin2bn(raw, COORDINATE, NULL);
	kn_auto(BN_clear_free) BIGNUM *s = BN_bin2bn(raw + COORDINATE, COORDINATE, NULL);

	if (!sig || !r || !s || !ECDSA_SIG_set0(sig, r, s))
		return 0;
	r = s = NULL;   /* sig's now */
	uint8_t *at = der;
	int len = i2d_ECDSA_SIG(sig, NULL);
	return len > 0 && len <= MAX_DER && i2d_ECDSA_SIG(sig, &at) == len ? (size_t)len : 0;
}

int jws_sign(const struct jws_key *key, struct kn_view payload, struct kn_buf *ret,
             struct kn_err *err)
{
	kn_auto(EVP_MD_CTX_free) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t der[MAX_DER], raw[SIGNATURE_BYTES];
	size_t der_len = sizeof(der), start = ret->len;
	char header[128];

	int n = snprintf(header, sizeof(header), "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"%s\"}",
	                 key->kid);
	kn_base64url(ret, header, (size_t)n);
	kn_buf_add(ret, ".", 1);
	kn_base64url(ret, payload.ptr, payload.len);
	if (ret->failed)
		return kn_fail(err, ENOMEM, "no memory for a token");
	if (!ctx || !EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key->pkey) ||
	    !EVP_DigestSign(ctx, der, &der_len, (const uint8_t *)ret->ptr + start,
	                    ret->len - start) ||
	    !der_to_raw(der, der_len, raw))
		return openssl_failed(err, "sign a token");
	kn_buf_add(ret, ".", 1);
	kn_base64url(ret, raw, sizeof(raw));
	return ret->failed ? kn_fail(err, ENOMEM, "no memory for a token") : 0;
}

/* ---- verifying ----------------------------------------------------------------------------- */

struct parts {
	struct kn_view header, payload, signature, signed_part;
};

static bool split(struct kn_view token, struct parts *p)
{
	struct kn_view rest = token, more;

	if (token.len == 0 || token.len > MAX_TOKEN || !kn_view_split(&rest, '.', &p->header) ||
	    !kn_view_split(&rest, '.', &p->payload) || !kn_view_split(&rest, '.', &p->signature) ||
	    kn_view_split(&rest, '.', &more))
		return false;
	p->signed_part = (struct kn_view){ token.ptr, p->header.len + 1 + p->payload.len };
	return p->header.len > 0 && p->payload.len > 0 && p->signature.len > 0;
}

static json_t *decode_object(struct kn_view encoded, size_t max)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	json_t *value = NULL;

	if (encoded.len > max / 3 * 4 + 4 || kn_unbase64url(encoded, &text, NULL) < 0 ||
	    kn_json_parse(kn_buf_view(&text), &value, NULL) < 0)
		return NULL;
	if (!json_is_object(value)) {
		json_decref(value);
		return NULL;
	}
	return value;
}

static bool type_is_access_token(const json_t *typ)
{
	struct kn_view v = kn_view_of(json_string_value(typ));

	return kn_view_is_nocase(v, KN_VIEW("at+jwt")) ||
	       kn_view_is_nocase(v, KN_VIEW("application/at+jwt"));
}

static bool header_is_ours(const json_t *header, const struct jws_key *key)
{
	const char *alg = json_string_value(json_object_get(header, "alg"));
	const char *kid = json_string_value(json_object_get(header, "kid"));

	/* Three members, these three: no crit, jwk, jku, x5u, x5c, b64, zip ... can be there. */
	return json_object_size(header) == 3 && alg && strcmp(alg, "ES256") == 0 && kid &&
	       strcmp(kid, key->kid) == 0 && type_is_access_token(json_object_get(header, "typ"));
}

static bool signature_is_ours(const struct jws_key *key, struct kn_view signed_part,
                              const uint8_t raw[SIGNATURE_BYTES])
{
	kn_auto(EVP_MD_CTX_free) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t der[MAX_DER];
	size_t len = raw_to_der(raw, der);

	/* OpenSSL refuses r and s outside [1, n-1]; both halves of s are valid (RFC 7518, 3.4). */
	bool good = ctx && len > 0 &&
	            EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key->pkey) == 1 &&
	            EVP_DigestVerify(ctx, der, len, (const uint8_t *)signed_part.ptr,
	                             signed_part.len) == 1;
	ERR_clear_error();
	return good;
}

enum kn_token_fault jws_verify(const struct jws_key *key, struct kn_view token, json_t **ret)
{
	struct parts p;
	kn_auto(kn_buf_fini) struct kn_buf signature = KN_BUF_INIT;

	if (!split(token, &p))
		return KN_TOKEN_MALFORMED;
	kn_auto(json_decref) json_t *header = decode_object(p.header, MAX_JOSE_HEADER);
	if (!header)
		return KN_TOKEN_MALFORMED;
	if (!header_is_ours(header, key))
		return KN_TOKEN_HEADER;
	if (kn_unbase64url(p.signature, &signature, NULL) < 0 || signature.len != SIGNATURE_BYTES)
		return KN_TOKEN_MALFORMED;
	if (!signature_is_ours(key, p.signed_part, (const uint8_t *)signature.ptr))
		return KN_TOKEN_SIGNATURE;

	json_t *payload = decode_object(p.payload, MAX_TOKEN);
	if (!payload)
		return KN_TOKEN_MALFORMED;
	*ret = payload;
	return KN_TOKEN_GOOD;
}
