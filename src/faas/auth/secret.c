/*
 * Checking a client's secret. PBKDF2 takes tens of milliseconds, so it runs in a worker thread; one
 * run serves every request that came with the same id and secret meanwhile. A secret that proved
 * right is remembered as a hash under a key of this process, which makes the next check cheap and
 * leaves no secret in memory. Unknown ids are hashed like known ones, so that the time tells nothing.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "faas/auth/private.h"

struct waiter {
	struct waiter *next, **prev;
	struct secret_check *check;
	struct kn_http_exchange *x;
	secret_done done;
	void *arg;
};

struct secret_check {
	struct kn_job job;
	struct secret_check *next, **prev;
	struct kn_auth *auth;
	struct waiter *waiters;
	uint8_t keyed[HASH_BYTES];    /* of id and secret: which requests share this run */
	uint8_t salt[SALT_BYTES], want[HASH_BYTES], got[HASH_BYTES];
	uint32_t rounds;
	bool known_id, hashed;
	size_t id_len, secret_len;
	char bytes[];                 /* id, then secret */
};

bool secret_hash(struct kn_view secret, const uint8_t salt[SALT_BYTES], uint32_t rounds,
                 uint8_t out[HASH_BYTES])
{
	return PKCS5_PBKDF2_HMAC(secret.ptr, (int)secret.len, salt, SALT_BYTES, (int)rounds,
	                         EVP_sha256(), HASH_BYTES, out) == 1;
}

/* Lengths are bounded, and the id's length goes first: no two pairs give the same text. */
static bool keyed_hash(const struct kn_auth *a, struct kn_view id, struct kn_view secret,
                       uint8_t out[HASH_BYTES])
{
	uint8_t text[1 + 2 * MAX_CREDENTIAL];
	size_t len = 1 + id.len + secret.len;

	if (id.len >= MAX_CREDENTIAL || secret.len >= MAX_CREDENTIAL)
		return false;
	text[0] = (uint8_t)id.len;
	memcpy(text + 1, id.ptr, id.len);
	memcpy(text + 1 + id.len, secret.ptr, secret.len);
	bool good = HMAC(EVP_sha256(), a->cache_key, HASH_BYTES, text, len, out, NULL) != NULL;
	OPENSSL_cleanse(text, len);
	return good;
}

static void run(struct kn_job *job)
{
	struct secret_check *c = kn_container_of(job, struct secret_check, job);
	struct kn_view secret = { c->bytes + c->id_len, c->secret_len };

	c->hashed = secret_hash(secret, c->salt, c->rounds, c->got);
}

static void unlink_check(struct secret_check *c)
{
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	c->auth->n_checks--;
}

static void check_free(struct secret_check *c)
{
	OPENSSL_cleanse(c->bytes, c->id_len + c->secret_len);
	free(c);
}

static void unlink_waiter(struct waiter *w)
{
	*w->prev = w->next;
	if (w->next)
		w->next->prev = w->prev;
	w->check->auth->n_waiters--;
}

static void answer(struct waiter *w, enum secret_verdict verdict, const struct client *client)
{
	static const struct kn_http_hooks none;
	struct kn_http_exchange *x = w->x;
	secret_done done = w->done;
	void *arg = w->arg;

	unlink_waiter(w);
	free(w);
	kn_http_set_hooks(x, &none);
	kn_http_pause(x, false);
	done(x, verdict, client, arg);
}

/* The client may have been removed, or made anew, while its secret was hashed. */
static struct client *proven_client(const struct secret_check *c)
{
	struct client *client = client_find(c->auth, (struct kn_view){ c->bytes, c->id_len });

	if (!c->hashed || !c->known_id || !client ||
	    CRYPTO_memcmp(c->salt, client->salt, SALT_BYTES) != 0 ||
	    CRYPTO_memcmp(c->got, client->hash, HASH_BYTES) != 0)
		return NULL;
	return client;
}

static void done(struct kn_job *job, bool cancelled)
{
	struct secret_check *c = kn_container_of(job, struct secret_check, job);
	struct client *client = cancelled ? NULL : proven_client(c);
	enum secret_verdict verdict = cancelled || !c->hashed ? SECRET_BUSY
	                              : client              ? SECRET_RIGHT
	                                                    : SECRET_WRONG;

	unlink_check(c);
	if (client) {
		memcpy(client->right, c->keyed, HASH_BYTES);
		client->known = true;
	}
	while (c->waiters) {
		/* An answer may remove the client: look again each time. */
		if (client)
			client = client_find(c->auth, (struct kn_view){ c->bytes, c->id_len });
		answer(c->waiters, client || verdict != SECRET_RIGHT ? verdict : SECRET_WRONG,
		       client);
	}
	check_free(c);
}

static struct secret_check *find_check(const struct kn_auth *a, const uint8_t keyed[HASH_BYTES])
{
	for (struct secret_check *c = a->checks; c; c = c->next) {
		if (CRYPTO_memcmp(c->keyed, keyed, HASH_BYTES) == 0)
			return c;
	}
	return NULL;
}

static struct secret_check *start_check(struct kn_auth *a, struct kn_view id, struct kn_view secret,
                                        const struct client *client,
                                        const uint8_t keyed[HASH_BYTES])
{
	struct secret_check *c = calloc(1, sizeof(*c) + id.len + secret.len);

	if (!c)
		return NULL;
	*c = (struct secret_check){ .job = { .run = run, .done = done },
		                    .auth = a,
		                    .rounds = client ? client->rounds : a->rounds,
		                    .known_id = client != NULL,
		                    .id_len = id.len,
		                    .secret_len = secret.len };
	memcpy(c->keyed, keyed, HASH_BYTES);
	if (client)
		memcpy(c->salt, client->salt, SALT_BYTES);
	memcpy(c->bytes, id.ptr, id.len);
	memcpy(c->bytes + id.len, secret.ptr, secret.len);
	if (kn_work_submit(a->work, &c->job, NULL) < 0) {
		check_free(c);
		return NULL;
	}
	c->next = a->checks;
	c->prev = &a->checks;
	if (c->next)
		c->next->prev = &c->next;
	a->checks = c;
	a->n_checks++;
	return c;
}

static void waiter_gone(struct kn_http_exchange *x, void *arg)
{
	struct waiter *w = arg;

	(void)x;
	unlink_waiter(w);
	free(w);
}

static bool wait_for(struct secret_check *c, struct kn_http_exchange *x, secret_done call, void *arg)
{
	struct waiter *w = malloc(sizeof(*w));

	if (!w)
		return false;
	*w = (struct waiter){ .next = c->waiters,
		              .prev = &c->waiters,
		              .check = c,
		              .x = x,
		              .done = call,
		              .arg = arg };
	if (w->next)
		w->next->prev = &w->next;
	c->waiters = w;
	c->auth->n_waiters++;
	kn_http_set_hooks(x, &(struct kn_http_hooks){ .gone = waiter_gone, .arg = w });
	kn_http_pause(x, true);
	return true;
}

void secret_check(struct kn_auth *a, struct kn_http_exchange *x, struct kn_view id,
                  struct kn_view secret, secret_done call, void *arg)
{
	struct client *client = client_find(a, id);
	uint8_t keyed[HASH_BYTES];

	if (id.len == 0 || secret.len == 0 || !keyed_hash(a, id, secret, keyed)) {
		call(x, SECRET_WRONG, NULL, arg);
		return;
	}
	if (client && client->known && CRYPTO_memcmp(keyed, client->right, HASH_BYTES) == 0) {
		call(x, SECRET_RIGHT, client, arg);
		return;
	}
	struct secret_check *c = find_check(a, keyed);
	if (!c && a->n_checks < MAX_CHECKS)
		c = start_check(a, id, secret, client, keyed);
	if (!c || a->n_waiters >= MAX_WAITERS || !wait_for(c, x, call, arg))
		call(x, SECRET_BUSY, NULL, arg);
}
