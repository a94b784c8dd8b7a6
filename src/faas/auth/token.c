#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/time.h"
#include "faas/auth/private.h"

enum { JTI_RANDOM = 16 };

int kn_auth_new(const struct kn_auth_config *config, struct kn_auth **ret, struct kn_err *err)
{
	if (config->token_s == 0 || config->pbkdf2_rounds == 0 || !config->issuer)
		return kn_fail(err, EINVAL, "the token service needs an issuer, a token life and a "
		                            "round count");
	struct kn_auth *a = calloc(1, sizeof(*a));
	if (!a)
		return kn_fail(err, ENOMEM, "no memory for the token service");
	*a = (struct kn_auth){ .store = config->store,
		               .work = config->work,
		               .issuer = strdup(config->issuer),
		               .token_s = config->token_s,
		               .skew_s = config->skew_s,
		               .rounds = config->pbkdf2_rounds };
	int r = 0;
	if (!a->issuer)
		r = kn_fail(err, ENOMEM, "no memory for the token service");
	else if (RAND_bytes(a->cache_key, sizeof(a->cache_key)) != 1)
		r = kn_fail(err, EIO, "no random bytes from OpenSSL");
	if (r == 0)
		r = jws_key_load(&a->key, config->dir, err);
	if (r == 0)
		r = clients_load(a, config->dir, err);
	if (r < 0) {
		kn_auth_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

void kn_auth_free(struct kn_auth *a)
{
	if (!a)
		return;
	tokens_forget(a);
	for (size_t i = 0; i < a->n_clients; i++)
		client_free(a->clients[i]);
	free(a->clients);
	jws_key_fini(&a->key);
	OPENSSL_cleanse(a->cache_key, sizeof(a->cache_key));
	free(a->issuer);
	free(a);
}

/* ---- tokens that were checked before ------------------------------------------------------- */

/*
 * Only tokens that proved right are remembered, so nobody but the holder of a right one can fill
 * the table. The signature's characters choose the slot; the comparison covers every byte and takes
 * the same time wherever they differ.
 */
static struct token_slot *slot_of(struct kn_auth *a, struct kn_view token)
{
	size_t tail = kn_min(token.len, (size_t)32);

	return &a->slots[kn_hash(token.ptr + token.len - tail, tail) & (TOKEN_SLOTS - 1)];
}

static void forget(struct token_slot *slot)
{
	if (slot->text)
		OPENSSL_cleanse(slot->text, slot->len);
	free(slot->text);
	*slot = (struct token_slot){ .text = NULL };
}

void tokens_forget(struct kn_auth *a)
{
	for (size_t i = 0; i < TOKEN_SLOTS; i++)
		forget(&a->slots[i]);
}

static void remember(struct kn_auth *a, struct kn_view token, const struct token_slot *what)
{
	struct token_slot *slot = slot_of(a, token);
	char *text = malloc(token.len);

	if (!text)
		return;   /* it will be checked again */
	forget(slot);
	memcpy(text, token.ptr, token.len);
	*slot = *what;
	slot->text = text;
	slot->len = token.len;
}

uint32_t kn_auth_token_life(const struct kn_auth *a)
{
	return a->token_s;
}

/* An administrator holds every scope. */
static uint32_t held_scopes(const struct client *c)
{
	return c->scopes & KN_SCOPE_ADMIN ? KN_SCOPE_ALL : c->scopes;
}

/* ---- issuing ------------------------------------------------------------------------------- */

int kn_auth_issue(struct kn_auth *a, const char *client_id, uint32_t scopes, struct kn_buf *ret,
                  struct kn_err *err)
{
	const struct client *c = client_find(a, kn_view_of(client_id));
	kn_auto(kn_buf_fini) struct kn_buf jti = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf payload = KN_BUF_INIT;
	uint8_t random[JTI_RANDOM];
	char scope[KN_SCOPE_TEXT];

	if (!c)
		return kn_fail(err, ENOENT, "there is no client '%s'", client_id);
	if (RAND_bytes(random, sizeof(random)) != 1)
		return kn_fail(err, EIO, "no random bytes from OpenSSL");
	kn_base64url(&jti, random, sizeof(random));
	kn_scope_text(scopes & held_scopes(c), scope);
	json_int_t now = (json_int_t)(kn_wall_ns() / KN_NS_PER_S);
	kn_auto(json_decref) json_t *claims =
		json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:s}", "iss", a->issuer, "sub", c->id,
	                  "aud", a->issuer, "exp", now + (json_int_t)a->token_s, "iat", now, "jti",
	                  jti.failed ? "" : jti.ptr, "client_id", c->id, "scope", scope);
	if (claims)
		kn_json_print(&payload, claims, 0);
	if (!claims || jti.failed || payload.failed)
		return kn_fail(err, ENOMEM, "no memory for a token");
	return jws_sign(&a->key, kn_buf_view(&payload), ret, err);
}

/* ---- checking ------------------------------------------------------------------------------ */

static bool is_string(const json_t *claims, const char *name, const char *want)
{
	const char *value = json_string_value(json_object_get(claims, name));

	return value && (!want || strcmp(value, want) == 0);
}

/* RFC 7519, 4.1.3: one string, or an array of strings that has ours. */
static bool audience_is_ours(const json_t *aud, const char *us)
{
	const json_t *one;
	size_t i;

	if (json_is_string(aud))
		return strcmp(json_string_value(aud), us) == 0;
	json_array_foreach(aud, i, one) {
		if (json_is_string(one) && strcmp(json_string_value(one), us) == 0)
			return true;
	}
	return false;
}

static bool moment(const json_t *claims, const char *name, uint64_t *ret_s)
{
	const json_t *v = json_object_get(claims, name);

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return false;
	*ret_s = (uint64_t)json_integer_value(v);
	return true;
}

static enum kn_token_fault check_times(const struct kn_auth *a, const json_t *claims,
                                       uint64_t *ret_expires_s)
{
	uint64_t now = kn_wall_ns() / KN_NS_PER_S, exp, iat, nbf = 0;

	if (!moment(claims, "exp", &exp) || !moment(claims, "iat", &iat) ||
	    (json_object_get(claims, "nbf") && !moment(claims, "nbf", &nbf)))
		return KN_TOKEN_CLAIMS;
	if (exp > INT64_MAX / KN_NS_PER_S || exp <= iat)
		return KN_TOKEN_CLAIMS;
	if (now >= exp + a->skew_s)
		return KN_TOKEN_EXPIRED;
	if (iat > now + a->skew_s || nbf > now + a->skew_s)
		return KN_TOKEN_EARLY;
	*ret_expires_s = exp;
	return KN_TOKEN_GOOD;
}

static enum kn_token_fault check_claims(const struct kn_auth *a, const json_t *claims,
                                        struct token_slot *ret)
{
	uint64_t expires_s;

	if (!is_string(claims, "iss", a->issuer) || !is_string(claims, "sub", NULL) ||
	    !is_string(claims, "jti", NULL) || !is_string(claims, "client_id", NULL) ||
	    !is_string(claims, "scope", NULL) ||
	    !audience_is_ours(json_object_get(claims, "aud"), a->issuer))
		return KN_TOKEN_CLAIMS;
	enum kn_token_fault fault = check_times(a, claims, &expires_s);
	if (fault != KN_TOKEN_GOOD)
		return fault;
	const char *id = json_string_value(json_object_get(claims, "client_id"));
	const char *scope = json_string_value(json_object_get(claims, "scope"));
	struct client *c = client_find(a, kn_view_of(id));
	if (!c || strcmp(id, json_string_value(json_object_get(claims, "sub"))) != 0)
		return KN_TOKEN_CLIENT;
	if (kn_scope_parse(kn_view_of(scope), &ret->scopes, NULL) < 0)
		return KN_TOKEN_CLAIMS;
	ret->scopes &= held_scopes(c);
	ret->client = c;
	ret->expires_ns = (expires_s + a->skew_s) * KN_NS_PER_S;
	return KN_TOKEN_GOOD;
}

static enum kn_token_fault check_cold(struct kn_auth *a, struct kn_view token,
                                      struct token_slot *ret)
{
	kn_auto(json_decref) json_t *claims = NULL;

	enum kn_token_fault fault = jws_verify(&a->key, token, &claims);
	if (fault != KN_TOKEN_GOOD)
		return fault;
	return check_claims(a, claims, ret);
}

enum kn_token_fault kn_auth_check_token(struct kn_auth *a, struct kn_view token,
                                        uint32_t *ret_scopes, const char **ret_client_id)
{
	struct token_slot fresh = { .text = NULL };
	struct token_slot *found = &fresh;

	if (token.len == 0 || token.len > MAX_TOKEN)
		return KN_TOKEN_MALFORMED;
	struct token_slot *slot = slot_of(a, token);
	if (slot->text && slot->len == token.len &&
	    CRYPTO_memcmp(slot->text, token.ptr, token.len) == 0) {
		if (kn_wall_ns() >= slot->expires_ns) {
			forget(slot);
			return KN_TOKEN_EXPIRED;
		}
		found = slot;
	} else {
		enum kn_token_fault fault = check_cold(a, token, &fresh);
		if (fault != KN_TOKEN_GOOD)
			return fault;
		remember(a, token, &fresh);
	}
	*ret_scopes = found->scopes;
	if (ret_client_id)
		*ret_client_id = found->client->id;
	return KN_TOKEN_GOOD;
}
