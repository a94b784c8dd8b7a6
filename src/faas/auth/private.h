/*
 * What the files of faas/auth share: the key and its signatures, clients and their secrets, the
 * tables of what was checked before.
 *
 * Thread  the loop's, except secret_hash(), which keeps no state
 */
#pragma once

#include <openssl/evp.h>

#include "faas/auth.h"

enum {
	MAX_TOKEN = 4096,         /* bytes of a compact token; ours have about 500 */
	MAX_JOSE_HEADER = 512,    /* bytes, decoded */
	SIGNATURE_BYTES = 64,     /* ES256: r and s, 32 bytes each */
	KID_CHARS = 43,           /* RFC 7638 thumbprint: base64url of SHA-256 */
	SALT_BYTES = 16,
	HASH_BYTES = 32,
	MAX_CLIENTS = 1024,
	MAX_CREDENTIAL = 256,     /* bytes of an id or a secret that a caller sends */
	TOKEN_SLOTS = 1024,       /* checked tokens remembered; a power of two */
	MAX_CHECKS = 16,          /* different secrets being hashed at once */
	MAX_WAITERS = 1024,       /* requests that wait for them */
};

/* ---- signatures (jws.c) -------------------------------------------------------------------- */

struct jws_key {
	EVP_PKEY *pkey;           /* P-256 with its private part */
	char kid[KID_CHARS + 1];
};

/** DIR/token-key.pem; made when it is missing. Errors as kn_auth_new() */
kn_must_use int jws_key_load(struct jws_key *key, int dir, struct kn_err *err);
/** A fresh key in memory. Errors: EIO from OpenSSL */
kn_must_use int jws_key_make(struct jws_key *key, struct kn_err *err);
void jws_key_fini(struct jws_key *key);

/** The public part as JWK (RFC 7517); NULL when memory is out. */
json_t *jws_key_public(const struct jws_key *key);

/** Append the compact form of payload under header {"alg":"ES256","typ":"at+jwt","kid":...}. */
kn_must_use int jws_sign(const struct jws_key *key, struct kn_view payload, struct kn_buf *ret,
                         struct kn_err *err);

/**
 * Check form, header and signature, in this order; the payload is parsed last, after it proved to be
 * ours. Takes any bytes.
 *
 * ret     the payload, an object; a new reference; set for KN_TOKEN_GOOD only
 */
enum kn_token_fault jws_verify(const struct jws_key *key, struct kn_view token, json_t **ret);

/* ---- clients (client.c, secret.c) ---------------------------------------------------------- */

struct client {
	char *id, *description;
	uint32_t scopes;
	uint64_t created_ns;
	uint32_t rounds;
	uint8_t salt[SALT_BYTES], hash[HASH_BYTES];
	bool known;               /* `right` is the keyed hash of id and secret that proved right */
	uint8_t right[HASH_BYTES];
};

struct token_slot {
	char *text;               /* NULL: free */
	size_t len;
	uint32_t scopes;
	uint64_t expires_ns;      /* wall clock */
	struct client *client;
};

struct kn_auth {
	struct kn_store *store;
	struct kn_work *work;
	char *issuer;
	uint32_t token_s, skew_s, rounds;
	struct jws_key key;
	uint8_t cache_key[HASH_BYTES];
	struct client **clients;
	size_t n_clients;
	struct secret_check *checks;
	unsigned n_checks, n_waiters;
	struct token_slot slots[TOKEN_SLOTS];
};

struct client *client_find(const struct kn_auth *a, struct kn_view id);
void client_free(struct client *c);

/** Every stored client; then the first administrator when there is none. */
kn_must_use int clients_load(struct kn_auth *a, int dir, struct kn_err *err);

/** PBKDF2-HMAC-SHA256. Slow on purpose. False when OpenSSL refuses. Any thread. */
bool secret_hash(struct kn_view secret, const uint8_t salt[SALT_BYTES], uint32_t rounds,
                 uint8_t out[HASH_BYTES]);

enum secret_verdict { SECRET_RIGHT, SECRET_WRONG, SECRET_BUSY };

/** client is set for SECRET_RIGHT only. */
typedef void (*secret_done)(struct kn_http_exchange *x, enum secret_verdict verdict,
                            const struct client *client, void *arg);

/**
 * Is this the client's secret? done runs inside this call when that is known, else later; never when
 * x goes away before. Pauses x and sets its hooks while it waits.
 */
void secret_check(struct kn_auth *a, struct kn_http_exchange *x, struct kn_view id,
                  struct kn_view secret, secret_done done, void *arg);

/** The credentials of a Basic Authorization value into the arena. Errors: EINVAL */
kn_must_use int basic_parse(struct kn_arena *arena, struct kn_view encoded, struct kn_view *ret_id,
                            struct kn_view *ret_secret, struct kn_err *err);

/** Forget checked tokens: a client went away. */
void tokens_forget(struct kn_auth *a);

/** Split "Scheme rest"; false when there is no blank. */
bool authorization_split(struct kn_view value, struct kn_view *ret_scheme, struct kn_view *ret_rest);
