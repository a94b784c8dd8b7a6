/*
 * Who may do what: the token service (OAuth 2.0 client credentials) and the check that every
 * protected path makes first, for a bearer token or for HTTP basic with client id and secret.
 * Called by the gateway and the control API; first step of the event flow.
 *
 * Access tokens are JWTs of RFC 9068, signed with ES256 by the node's one key (DIR/token-key.pem).
 * A token counts when its signature is by that key with that algorithm, whatever its header asks
 * for; headers may hold alg, typ and kid and nothing else. Checked tokens are remembered until they
 * expire, so that a warm check costs a hash and a comparison. Secrets are stored as PBKDF2; checking
 * one takes a worker thread, and a right one is remembered under a keyed hash.
 *
 * Thread  the loop's
 * Source  RFC 6749, RFC 6750, RFC 7515, RFC 7517, RFC 7519, RFC 7617, RFC 7638, RFC 9068
 */
#pragma once

#include <stdint.h>

#include "base/http.h"
#include "base/json.h"
#include "base/work.h"
#include "faas/store.h"

enum kn_scope {
	KN_SCOPE_FUNCTION_READ = 1 << 0,   /* function:read    list, describe, logs */
	KN_SCOPE_FUNCTION_WRITE = 1 << 1,  /* function:write   deploy, update, scale, remove */
	KN_SCOPE_FUNCTION_INVOKE = 1 << 2, /* function:invoke  call functions */
	KN_SCOPE_IMAGE_READ = 1 << 3,      /* image:read       list, pull */
	KN_SCOPE_IMAGE_WRITE = 1 << 4,     /* image:write      import, push, remove */
	KN_SCOPE_NODE_READ = 1 << 5,       /* node:read        doctor, node, metrics */
	KN_SCOPE_SECRET_READ = 1 << 6,     /* secret:read      names of secrets */
	KN_SCOPE_SECRET_WRITE = 1 << 7,    /* secret:write     set and remove secrets */
	KN_SCOPE_ADMIN = 1 << 8,           /* admin            clients; holds every other scope */
	KN_SCOPE_ALL = (1 << 9) - 1,
};

/** Scope names joined by blanks into out. */
enum { KN_SCOPE_TEXT = 160 };
void kn_scope_text(uint32_t scopes, char out[KN_SCOPE_TEXT]);

/** "function:read image:read" to bits. Errors: EINVAL names the unknown one, with a suggestion */
kn_must_use int kn_scope_parse(struct kn_view text, uint32_t *ret, struct kn_err *err);

struct kn_auth;

struct kn_auth_config {
	struct kn_store *store;
	struct kn_work *work;
	int dir;                   /* state folder; borrowed until kn_auth_new() returns */
	const char *issuer;        /* "http://127.0.0.1:8080"; copied; names this node in tokens */
	uint32_t token_s;          /* life of a token, seconds */
	uint32_t skew_s;           /* clocks may differ by so much */
	uint32_t pbkdf2_rounds;    /* for new secrets; stored beside each */
};

#define KN_AUTH_DEFAULTS                                                                           \
	((struct kn_auth_config){ .dir = -1, .token_s = 3600, .skew_s = 5, .pbkdf2_rounds = 100000 })

/**
 * Load key and clients. A node without clients gets its first administrator here: its id and secret
 * go to DIR/credentials (0600), "client_id=..." and "client_secret=..." a line each. A missing key
 * is made.
 *
 * Errors  EUCLEAN key or client record cannot be read; EPERM the key file is open to others; what
 *         the files and the store said
 */
kn_must_use int kn_auth_new(const struct kn_auth_config *config, struct kn_auth **ret,
                            struct kn_err *err);

/** Free the HTTP server and the worker threads first: both may still call back. NULL is fine. */
void kn_auth_free(struct kn_auth *a);
KN_AUTO(kn_auth_free, struct kn_auth *);

struct kn_caller {
	const char *client_id;     /* valid during the call */
	uint32_t scopes;
};

typedef void (*kn_auth_done)(struct kn_http_exchange *x, const struct kn_caller *caller, void *arg);

/**
 * Let a request in, or answer it. `done` runs when the caller may do what `scope` stands for: inside
 * this call for tokens and for known secrets, later for a secret that must be hashed first. When the
 * caller may not, the exchange is answered here (400, 401, 403, 429, 503) and done never runs.
 * Sets the exchange's hooks while it waits: set your own in done.
 */
void kn_auth_request(struct kn_auth *a, struct kn_http_exchange *x, uint32_t scope,
                     kn_auth_done done, void *arg);

/** Answers in the place of kn_auth_request(): status 400, 401, 403, 429 or 503. */
typedef void (*kn_auth_refused)(struct kn_http_exchange *x, int status, const char *error, void *arg);

/** kn_auth_request() for who has refusals of another form. arg goes to done or to refused. */
void kn_auth_ask(struct kn_auth *a, struct kn_http_exchange *x, uint32_t scope, kn_auth_done done,
                 kn_auth_refused refused, void *arg);

/** How long a token counts, in seconds. */
uint32_t kn_auth_token_life(const struct kn_auth *a);

/** Answer POST /oauth/token, whatever its method and body. */
void kn_auth_token(struct kn_auth *a, struct kn_http_exchange *x);

/** Answer GET /.well-known/jwks.json. */
void kn_auth_jwks(struct kn_auth *a, struct kn_http_exchange *x);

/** Answer GET /.well-known/oauth-authorization-server and openid-configuration (RFC 8414). */
void kn_auth_metadata(struct kn_auth *a, struct kn_http_exchange *x);

/**
 * The value of key in a form body (application/x-www-form-urlencoded), decoded into the arena.
 *
 * ret     ptr is NULL when the key is missing
 * Errors  EINVAL broken encoding, or the key is there twice; ENOMEM
 */
kn_must_use int kn_form_value(struct kn_arena *arena, struct kn_view body, const char *key,
                              struct kn_view *ret, struct kn_err *err);

/** Why a token does not count. One word each for clients and tests. */
enum kn_token_fault {
	KN_TOKEN_GOOD,
	KN_TOKEN_MALFORMED,     /* not three parts of canonical base64url JSON, or too large */
	KN_TOKEN_HEADER,        /* algorithm, type, key or an extra header that Kiln does not take */
	KN_TOKEN_SIGNATURE,
	KN_TOKEN_CLAIMS,        /* issuer, audience, or a claim that is missing or of a wrong type */
	KN_TOKEN_EXPIRED,
	KN_TOKEN_EARLY,         /* issued in the future */
	KN_TOKEN_CLIENT,        /* the client was removed */
};

/** Make a token for a client of this node, with those of scopes that it may have. Errors: ENOENT; ENOMEM; EIO from OpenSSL */
kn_must_use int kn_auth_issue(struct kn_auth *a, const char *client_id, uint32_t scopes,
                              struct kn_buf *ret, struct kn_err *err);

/** Check a token. ret_client_id may be NULL; what it gets is valid until the loop's next round. */
enum kn_token_fault kn_auth_check_token(struct kn_auth *a, struct kn_view token,
                                        uint32_t *ret_scopes, const char **ret_client_id);

/*
 * Clients. Ids are made here; secrets are 256 random bits, shown once.
 */
typedef void (*kn_client_made)(const char *client_id, const char *secret, const struct kn_err *err,
                               void *arg);

/** Make a client; `made` runs when it is durable, or with err. Errors: EINVAL, EAGAIN, ENOMEM */
kn_must_use int kn_client_add(struct kn_auth *a, struct kn_view description, uint32_t scopes,
                              kn_client_made made, void *arg, struct kn_err *err);

/** Remove a client; its tokens stop counting at once. Errors: ENOENT; EBUSY the last admin */
kn_must_use int kn_client_remove(struct kn_auth *a, struct kn_view client_id, kn_store_done done,
                                 void *arg, struct kn_err *err);

/** Every client without its secret: [{client_id, description, scope, created}]; NULL: no memory. */
json_t *kn_client_list(struct kn_auth *a);
