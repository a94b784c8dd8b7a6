#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/time.h"
#include "faas/auth/private.h"

enum { SECRET_RANDOM = 32, ID_RANDOM = 8, MAX_DESCRIPTION = 200, MAX_ROUNDS = 10000000 };

static const char CREDENTIALS_FILE[] = "credentials";

struct client *client_find(const struct kn_auth *a, struct kn_view id)
{
	for (size_t i = 0; i < a->n_clients; i++) {
		if (kn_view_is(id, kn_view_of(a->clients[i]->id)))
			return a->clients[i];
	}
	return NULL;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	OPENSSL_cleanse(c->right, sizeof(c->right));
	free(c->id);
	free(c->description);
	free(c);
}

KN_AUTO(client_free, struct client *);

static int add_to_list(struct kn_auth *a, struct client *c, struct kn_err *err)
{
	if (a->n_clients >= MAX_CLIENTS)
		return kn_fail(err, ENOSPC, "a node has at most %d clients: remove one",
		               MAX_CLIENTS);
	struct client **grown = realloc(a->clients, (a->n_clients + 1) * sizeof(*grown));
	if (!grown)
		return kn_fail(err, ENOMEM, "no memory for a client");
	a->clients = grown;
	a->clients[a->n_clients++] = c;
	return 0;
}

static void take_from_list(struct kn_auth *a, const struct client *c)
{
	for (size_t i = 0; i < a->n_clients; i++) {
		if (a->clients[i] == c) {
			a->clients[i] = a->clients[--a->n_clients];
			return;
		}
	}
}

/* ---- stored form --------------------------------------------------------------------------- */

static int save(const struct client *c, struct kn_buf *ret, struct kn_err *err)
{
	char scope[KN_SCOPE_TEXT], salt[2 * SALT_BYTES + 1], hash[2 * HASH_BYTES + 1];

	kn_scope_text(c->scopes, scope);
	kn_hex(c->salt, SALT_BYTES, salt);
	kn_hex(c->hash, HASH_BYTES, hash);
	kn_auto(json_decref) json_t *o =
		json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:I}", "description", c->description,
	                  "scope", scope, "kdf", "pbkdf2-sha256", "rounds", (json_int_t)c->rounds,
	                  "salt", salt, "hash", hash, "created", (json_int_t)c->created_ns);
	if (!o)
		return kn_fail(err, ENOMEM, "no memory for a client");
	kn_json_print(ret, o, 0);
	return ret->failed ? kn_fail(err, ENOMEM, "no memory for a client") : 0;
}

static int read_fields(const json_t *o, struct client *c, struct kn_err *err)
{
	static const char *const needed[] = { "description", "scope", "kdf",     "rounds",
		                              "salt",        "hash",  "created", NULL };
	const char *description, *scope, *kdf, *salt, *hash;
	uint64_t rounds;

	if (kn_json_require(o, needed, err) < 0 ||
	    kn_json_str(o, "description", &description, err) < 0 ||
	    kn_json_str(o, "scope", &scope, err) < 0 || kn_json_str(o, "kdf", &kdf, err) < 0 ||
	    kn_json_str(o, "salt", &salt, err) < 0 || kn_json_str(o, "hash", &hash, err) < 0 ||
	    kn_json_u64(o, "rounds", MAX_ROUNDS, &rounds, err) < 0 ||
	    kn_json_u64(o, "created", INT64_MAX, &c->created_ns, err) < 0 ||
	    kn_scope_parse(kn_view_of(scope), &c->scopes, err) < 0 ||
	    kn_unhex(kn_view_of(salt), c->salt, SALT_BYTES, err) < 0 ||
	    kn_unhex(kn_view_of(hash), c->hash, HASH_BYTES, err) < 0)
		return -EINVAL;
	if (strcmp(kdf, "pbkdf2-sha256") != 0 || rounds == 0)
		return kn_fail(err, EINVAL, "key derivation '%s' is not known", kdf);
	c->rounds = (uint32_t)rounds;
	c->description = strdup(description);
	return c->description ? 0 : kn_fail(err, ENOMEM, "no memory for a client");
}

static int load_row(struct kn_view name, struct kn_view value, void *arg, struct kn_err *err)
{
	struct kn_auth *a = arg;
	kn_auto(json_decref) json_t *o = NULL;
	kn_auto(client_free) struct client *c = calloc(1, sizeof(*c));

	if (!c || !(c->id = strndup(name.ptr, name.len)))
		return kn_fail(err, ENOMEM, "no memory for a client");
	if (kn_json_parse(value, &o, err) < 0 || read_fields(o, c, err) < 0) {
		if (err && err->code != ENOMEM)
			err->code = EUCLEAN;
		return kn_while(err, "stored client '%s'", c->id);
	}
	int r = add_to_list(a, c, err);
	if (r == 0)
		(void)kn_take_ptr(c);
	return r;
}

/* ---- making -------------------------------------------------------------------------------- */

static int random_text(size_t bytes, struct kn_buf *ret, struct kn_err *err)
{
	uint8_t raw[SECRET_RANDOM];

	if (RAND_bytes(raw, (int)bytes) != 1)
		return kn_fail(err, EIO, "no random bytes from OpenSSL");
	kn_base64url(ret, raw, bytes);
	OPENSSL_cleanse(raw, sizeof(raw));
	return ret->failed ? kn_fail(err, ENOMEM, "no memory for a secret") : 0;
}

static int make(const struct kn_auth *a, const char *id, struct kn_view description, uint32_t scopes,
                struct client **ret, struct kn_buf *ret_secret, struct kn_err *err)
{
	kn_auto(client_free) struct client *c = calloc(1, sizeof(*c));

	if (!c || !(c->id = strdup(id)) ||
	    !(c->description = strndup(description.ptr ? description.ptr : "", description.len)))
		return kn_fail(err, ENOMEM, "no memory for a client");
	c->scopes = scopes;
	c->created_ns = kn_wall_ns();
	c->rounds = a->rounds;
	int r = random_text(SECRET_RANDOM, ret_secret, err);
	if (r < 0)
		return r;
	if (RAND_bytes(c->salt, SALT_BYTES) != 1 ||
	    !secret_hash(kn_buf_view(ret_secret), c->salt, c->rounds, c->hash))
		return kn_fail(err, EIO, "OpenSSL could not hash a secret");
	*ret = kn_take_ptr(c);
	return 0;
}

/*
 * The file first, then the record: after a crash between them there is still no client, and the
 * next start makes both again. The other order would lock everybody out.
 */
static int make_first(struct kn_auth *a, int dir, struct kn_err *err)
{
	kn_auto(client_free) struct client *c = NULL;
	kn_auto(kn_buf_fini) struct kn_buf secret = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf record = KN_BUF_INIT;

	if (make(a, "admin", KN_VIEW("first administrator"), KN_SCOPE_ALL, &c, &secret, err) < 0 ||
	    save(c, &record, err) < 0)
		return kn_while(err, "first administrator");
	kn_buf_printf(&text, "client_id=%s\nclient_secret=%s\n", c->id, secret.ptr);
	if (text.failed)
		return kn_fail(err, ENOMEM, "no memory for the credentials");
	if (kn_write_file(dir, CREDENTIALS_FILE, text.ptr, text.len, 0600, err) < 0 ||
	    kn_store_put(a->store, KN_TABLE_CLIENT, kn_view_of(c->id), kn_buf_view(&record), NULL,
	                 NULL, err) < 0 ||
	    kn_store_sync(a->store, err) < 0)
		return kn_while(err, "first administrator");
	OPENSSL_cleanse(secret.ptr, secret.len);
	OPENSSL_cleanse(text.ptr, text.len);
	int r = add_to_list(a, c, err);
	if (r == 0)
		(void)kn_take_ptr(c);
	return r;
}

int clients_load(struct kn_auth *a, int dir, struct kn_err *err)
{
	int r = kn_store_each(a->store, KN_TABLE_CLIENT, load_row, a, err);

	return r < 0 || a->n_clients > 0 ? r : make_first(a, dir, err);
}

/*
 * A new client: hashed in a worker, stored, and only then in the list.
 */
struct addition {
	struct kn_job job;
	struct kn_auth *auth;
	struct client *client;
	struct kn_buf secret;
	struct kn_err err;
	char id[32];
	char description[MAX_DESCRIPTION + 1];
	uint32_t scopes;
	kn_client_made made;
	void *arg;
};

static void addition_end(struct addition *add)
{
	bool good = add->err.code == 0;

	add->made(good ? add->client->id : NULL, good ? add->secret.ptr : NULL,
	          good ? NULL : &add->err, add->arg);
	if (!good)
		client_free(add->client);
	if (add->secret.ptr)
		OPENSSL_cleanse(add->secret.ptr, add->secret.len);
	kn_buf_fini(&add->secret);
	free(add);
}

static void addition_stored(const struct kn_err *err, void *arg)
{
	struct addition *add = arg;

	if (err)
		add->err = *err;
	else
		(void)add_to_list(add->auth, add->client, &add->err);
	addition_end(add);
}

static void addition_run(struct kn_job *job)
{
	struct addition *add = kn_container_of(job, struct addition, job);

	(void)make(add->auth, add->id, kn_view_of(add->description), add->scopes, &add->client,
	           &add->secret, &add->err);
}

static void addition_made(struct kn_job *job, bool cancelled)
{
	struct addition *add = kn_container_of(job, struct addition, job);
	kn_auto(kn_buf_fini) struct kn_buf record = KN_BUF_INIT;

	if (cancelled)
		kn_fail(&add->err, EAGAIN, "kilnd is stopping");
	if (add->err.code || save(add->client, &record, &add->err) < 0 ||
	    kn_store_put(add->auth->store, KN_TABLE_CLIENT, kn_view_of(add->id),
	                 kn_buf_view(&record), addition_stored, add, &add->err) < 0)
		addition_end(add);
}

int kn_client_add(struct kn_auth *a, struct kn_view description, uint32_t scopes,
                  kn_client_made made, void *arg, struct kn_err *err)
{
	uint8_t random[ID_RANDOM];

	if (scopes == 0 || (scopes & ~(uint32_t)KN_SCOPE_ALL))
		return kn_fail(err, EINVAL, "a client needs at least one scope");
	if (description.len > MAX_DESCRIPTION)
		return kn_fail(err, EINVAL, "the description has %zu bytes; at most %d",
		               description.len, MAX_DESCRIPTION);
	if (a->n_clients >= MAX_CLIENTS)
		return kn_fail(err, ENOSPC, "a node has at most %d clients: remove one",
		               MAX_CLIENTS);
	if (RAND_bytes(random, sizeof(random)) != 1)
		return kn_fail(err, EIO, "no random bytes from OpenSSL");
	struct addition *add = calloc(1, sizeof(*add));
	if (!add)
		return kn_fail(err, ENOMEM, "no memory for a client");
	*add = (struct addition){ .job = { .run = addition_run, .done = addition_made },
		                  .auth = a,
		                  .scopes = scopes,
		                  .made = made,
		                  .arg = arg };
	memcpy(add->id, "client-", 7);
	kn_hex(random, sizeof(random), add->id + 7);
	if (description.len)
		memcpy(add->description, description.ptr, description.len);
	int r = kn_work_submit(a->work, &add->job, err);
	if (r < 0)
		free(add);
	return r;
}

static size_t admins(const struct kn_auth *a)
{
	size_t n = 0;

	for (size_t i = 0; i < a->n_clients; i++)
		n += (a->clients[i]->scopes & KN_SCOPE_ADMIN) != 0;
	return n;
}

/* Its tokens stop counting before the record is gone from the disk; a failure says so. */
int kn_client_remove(struct kn_auth *a, struct kn_view client_id, kn_store_done done, void *arg,
                     struct kn_err *err)
{
	struct client *c = client_find(a, client_id);

	if (!c)
		return kn_fail(err, ENOENT, "there is no client '%.*s'",
		               (int)kn_min(client_id.len, (size_t)MAX_CREDENTIAL), client_id.ptr);
	if ((c->scopes & KN_SCOPE_ADMIN) && admins(a) == 1)
		return kn_fail(err, EBUSY, "'%s' is the last administrator: make another first",
		               c->id);
	int r = kn_store_delete(a->store, KN_TABLE_CLIENT, client_id, done, arg, err);
	if (r < 0)
		return r;
	tokens_forget(a);
	take_from_list(a, c);
	client_free(c);
	return 0;
}

json_t *kn_client_list(struct kn_auth *a)
{
	json_t *list = json_array();

	for (size_t i = 0; i < a->n_clients && list; i++) {
		const struct client *c = a->clients[i];
		char scope[KN_SCOPE_TEXT], created[KN_RFC3339_LEN];

		kn_scope_text(c->scopes, scope);
		kn_rfc3339(c->created_ns, created);
		json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "client_id", c->id, "description",
		                      c->description, "scope", scope, "created", created);
		if (json_array_append_new(list, o) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}
