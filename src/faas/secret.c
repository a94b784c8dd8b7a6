#include "faas/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"

static const char KEY_FILE[] = "secret-key";

enum { KEY = 32, NONCE = 12, TAG = 16 };

/* What is stored: the version, then base64url of nonce, ciphertext and tag. */
static const char VERSION[] = "v1:";

/* Associated data begins with this, so that no record can be taken for one of another use. */
static const char PURPOSE[] = "kiln secret v1 ";

struct secret {
	char *name;
	char *record;                  /* as stored; still encrypted */
};

struct change {
	struct change *next, **prev;
	struct kn_secrets *secrets;
	struct secret secret;          /* record NULL: removed */
	kn_store_done done;
	void *arg;
};

struct kn_secrets {
	struct kn_store *store;
	uint8_t key[KEY];
	struct secret *at;             /* by name */
	size_t n;
	struct change *changes;        /* at the store */
};

/* ---- the key ------------------------------------------------------------------------------- */

static int make_key(struct kn_secrets *s, int dir, struct kn_err *err)
{
	char text[2 * KEY + 2];

	if (RAND_bytes(s->key, KEY) != 1)
		return kn_fail(err, EIO, "no random bytes from OpenSSL");
	kn_hex(s->key, KEY, text);
	text[2 * KEY] = '\n';
	int r = kn_write_file(dir, KEY_FILE, text, 2 * KEY + 1, 0600, err);
	OPENSSL_cleanse(text, sizeof(text));
	return r;
}

static int read_key(struct kn_secrets *s, int dir, struct kn_err *err)
{
	char text[2 * KEY + 1];
	struct stat st;

	kn_auto(kn_close) int fd = openat(dir, KEY_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return make_key(s, dir, err);
	if (fd < 0 || fstat(fd, &st) < 0)
		return kn_fail(err, errno, "open: %s", strerror(errno));
	if (st.st_mode & 077)
		return kn_fail(err, EPERM, "others can read it: chmod 600 it, and set every secret "
		                           "again if they did");
	ssize_t n = pread(fd, text, sizeof(text), 0);
	bool good = n == (ssize_t)sizeof(text) && text[2 * KEY] == '\n' &&
	            kn_unhex((struct kn_view){ text, 2 * KEY }, s->key, KEY, NULL) == 0;
	OPENSSL_cleanse(text, sizeof(text));
	return good ? 0 : kn_fail(err, EUCLEAN, "it holds no key: restore it, or remove it and set "
	                                        "every secret again");
}

/* ---- encryption ---------------------------------------------------------------------------- */

/* The name is authenticated with the value: records cannot change places. */
static bool begin(EVP_CIPHER_CTX *c, const struct kn_secrets *s, const uint8_t *nonce,
                  struct kn_view name, bool encrypt)
{
	int len;

	return c && EVP_CipherInit_ex2(c, EVP_aes_256_gcm(), s->key, nonce, encrypt, NULL) &&
	       EVP_CipherUpdate(c, NULL, &len, (const uint8_t *)PURPOSE, sizeof(PURPOSE) - 1) &&
	       EVP_CipherUpdate(c, NULL, &len, (const uint8_t *)name.ptr, (int)name.len);
}

KN_AUTO(EVP_CIPHER_CTX_free, EVP_CIPHER_CTX *);

static int encrypt(const struct kn_secrets *s, struct kn_view name, struct kn_view value,
                   struct kn_buf *ret, struct kn_err *err)
{
	kn_auto(EVP_CIPHER_CTX_free) EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	kn_auto(kn_free) uint8_t *raw = malloc(NONCE + value.len + TAG);
	int len = 0, last = 0;

	if (!raw)
		return kn_fail(err, ENOMEM, "no memory for a secret");
	bool good = RAND_bytes(raw, NONCE) == 1 && begin(c, s, raw, name, true) &&
	            EVP_CipherUpdate(c, raw + NONCE, &len, (const uint8_t *)value.ptr,
	                             (int)value.len) &&
	            EVP_CipherFinal_ex(c, raw + NONCE + len, &last) &&
	            EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, raw + NONCE + value.len);
	if (!good)
		return kn_fail(err, EIO, "OpenSSL could not encrypt a secret");
	kn_buf_printf(ret, "%s", VERSION);
	kn_base64url(ret, raw, NONCE + value.len + TAG);
	return ret->failed ? kn_fail(err, ENOMEM, "no memory for a secret") : 0;
}

static bool open_record(const struct kn_secrets *s, struct kn_view name, struct kn_buf *raw,
                        char *out)
{
	kn_auto(EVP_CIPHER_CTX_free) EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	uint8_t *bytes = (uint8_t *)raw->ptr;
	size_t n = raw->len - NONCE - TAG;
	int len = 0, last = 0;

	return begin(c, s, bytes, name, false) &&
	       EVP_CipherUpdate(c, (uint8_t *)out, &len, bytes + NONCE, (int)n) &&
	       EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, bytes + NONCE + n) &&
	       EVP_CipherFinal_ex(c, (uint8_t *)out + len, &last);
}

static int decrypt(const struct kn_secrets *s, const struct secret *one, struct kn_buf *ret,
                   struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf raw = KN_BUF_INIT;
	struct kn_view record = kn_view_of(one->record), name = kn_view_of(one->name);
	bool good = kn_view_starts(record, KN_VIEW(VERSION));

	record = good ? (struct kn_view){ record.ptr + 3, record.len - 3 } : record;
	good = good && kn_unbase64url(record, &raw, NULL) == 0 && raw.len >= NONCE + TAG &&
	       raw.len - NONCE - TAG <= KN_SECRET_MAX;
	size_t n = good ? raw.len - NONCE - TAG : 0;
	kn_auto(kn_free) char *out = malloc(n + 1);
	if (!out)
		return kn_fail(err, ENOMEM, "no memory for a secret");
	if (!good || !open_record(s, name, &raw, out)) {
		OPENSSL_cleanse(out, n);   /* what was not authenticated is nobody's */
		return kn_fail(err, EUCLEAN, "secret '%s' was stored with another key than this "
		                             "node's: set it again with: kiln secret update %s",
		               one->name, one->name);
	}
	kn_buf_add(ret, out, n);
	OPENSSL_cleanse(out, n);
	return ret->failed ? kn_fail(err, ENOMEM, "no memory for a secret") : 0;
}

/* ---- the list ------------------------------------------------------------------------------ */

static void secret_fini(struct secret *one)
{
	free(one->name);
	free(one->record);
	*one = (struct secret){ .name = NULL };
}

/* Where it stands, or would stand. */
static size_t place_of(const struct kn_secrets *s, struct kn_view name, bool *ret_there)
{
	size_t low = 0, high = s->n;

	*ret_there = false;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = kn_view_order(kn_view_of(s->at[mid].name), name);
		if (order == 0) {
			*ret_there = true;
			return mid;
		}
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Takes what one holds. Room was made before, where there is an answer to "no memory". */
static void list_put(struct kn_secrets *s, struct secret *one)
{
	bool there;
	size_t i = place_of(s, kn_view_of(one->name), &there);

	if (there) {
		secret_fini(&s->at[i]);
	} else {
		memmove(s->at + i + 1, s->at + i, (s->n - i) * sizeof(*s->at));
		s->n++;
	}
	s->at[i] = *one;
	*one = (struct secret){ .name = NULL };
}

static void list_remove(struct kn_secrets *s, struct kn_view name)
{
	bool there;
	size_t i = place_of(s, name, &there);

	if (!there)
		return;
	secret_fini(&s->at[i]);
	s->n--;
	memmove(s->at + i, s->at + i + 1, (s->n - i) * sizeof(*s->at));
}

size_t kn_secrets_count(const struct kn_secrets *s)
{
	return s->n;
}

const char *kn_secrets_name(const struct kn_secrets *s, size_t i)
{
	return s->at[i].name;
}

bool kn_secrets_has(const struct kn_secrets *s, struct kn_view name)
{
	bool there;

	(void)place_of(s, name, &there);
	return there;
}

int kn_secrets_read(const struct kn_secrets *s, struct kn_view name, struct kn_buf *ret,
                    struct kn_err *err)
{
	bool there;
	size_t i = place_of(s, name, &there);

	if (!there)
		return kn_fail(err, ENOENT, "there is no secret '%.*s': make it with: kiln secret "
		                            "create %.*s",
		               (int)name.len, name.ptr, (int)name.len, name.ptr);
	return decrypt(s, &s->at[i], ret, err);
}

/* ---- changes ------------------------------------------------------------------------------- */

static bool is_inner(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

static bool is_outer(char c)
{
	return is_inner(c) && c != '-' && c != '.' && c != '_';
}

static bool name_ok(struct kn_view name)
{
	if (name.len == 0 || name.len > KN_SECRET_NAME_MAX || !is_outer(name.ptr[0]) ||
	    !is_outer(name.ptr[name.len - 1]))
		return false;
	for (size_t i = 0; i < name.len; i++) {
		if (!is_inner(name.ptr[i]))
			return false;
	}
	return true;
}

static bool is_changing(const struct kn_secrets *s, struct kn_view name)
{
	for (const struct change *c = s->changes; c; c = c->next) {
		if (kn_view_is(name, kn_view_of(c->secret.name)))
			return true;
	}
	return false;
}

static int check_change(const struct kn_secrets *s, struct kn_view name, bool fresh,
                        struct kn_err *err)
{
	if (!name_ok(name))
		return kn_fail(err, EINVAL, "a secret's name has 1 to %d lower-case letters, digits, "
		                            "'-', '_' and '.', with a letter or digit at both ends",
		               KN_SECRET_NAME_MAX);
	if (is_changing(s, name))
		return kn_fail(err, EBUSY, "secret '%.*s' is being changed: try again",
		               (int)name.len, name.ptr);
	bool there = kn_secrets_has(s, name);
	if (fresh && there)
		return kn_fail(err, EEXIST, "there is a secret '%.*s' already", (int)name.len,
		               name.ptr);
	if (!fresh && !there)
		return kn_fail(err, ENOENT, "there is no secret '%.*s'", (int)name.len, name.ptr);
	return 0;
}

static void change_free(struct change *c)
{
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	secret_fini(&c->secret);
	free(c);
}

static struct change *change_new(struct kn_secrets *s, struct kn_view name, kn_store_done done,
                                 void *arg)
{
	struct change *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct change){ .secrets = s, .done = done, .arg = arg, .next = s->changes };
	c->secret.name = strndup(name.ptr, name.len);
	c->prev = &s->changes;
	if (c->next)
		c->next->prev = &c->next;
	s->changes = c;
	if (!c->secret.name) {
		change_free(c);
		return NULL;
	}
	return c;
}

static void on_stored(const struct kn_err *err, void *arg)
{
	struct change *c = arg;
	kn_store_done done = c->done;
	void *done_arg = c->arg;

	if (!err && c->secret.record)
		list_put(c->secrets, &c->secret);
	else if (!err)
		list_remove(c->secrets, kn_view_of(c->secret.name));
	change_free(c);
	if (done)
		done(err, done_arg);
}

/* For one more, and for every change that may add one. */
static int make_room(struct kn_secrets *s, struct kn_err *err)
{
	size_t n = s->n + 1;

	for (const struct change *c = s->changes; c; c = c->next)
		n++;
	if (n > KN_SECRETS_MAX)
		return kn_fail(err, ENOSPC, "a node keeps at most %d secrets: remove one",
		               KN_SECRETS_MAX);
	struct secret *grown = realloc(s->at, n * sizeof(*grown));
	if (!grown)
		return kn_fail(err, ENOMEM, "no memory for a secret");
	s->at = grown;
	return 0;
}

int kn_secrets_put(struct kn_secrets *s, struct kn_view name, struct kn_view value, bool fresh,
                   kn_store_done done, void *arg, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf record = KN_BUF_INIT;

	int r = check_change(s, name, fresh, err);
	if (r == 0 && value.len > KN_SECRET_MAX)
		r = kn_fail(err, EINVAL, "a secret has at most %d bytes, not %zu", KN_SECRET_MAX,
		            value.len);
	if (r == 0)
		r = make_room(s, err);
	if (r == 0)
		r = encrypt(s, name, value, &record, err);
	if (r < 0)
		return r;
	struct change *c = change_new(s, name, done, arg);
	if (c)
		c->secret.record = strndup(record.ptr ? record.ptr : "", record.len);
	if (!c || !c->secret.record)
		r = kn_fail(err, ENOMEM, "no memory for a secret");
	else
		r = kn_store_put(s->store, KN_TABLE_SECRET, name, kn_buf_view(&record), on_stored, c,
		                 err);
	if (r < 0 && c)
		change_free(c);
	return r;
}

int kn_secrets_remove(struct kn_secrets *s, struct kn_view name, kn_store_done done, void *arg,
                      struct kn_err *err)
{
	int r = check_change(s, name, false, err);
	if (r < 0)
		return r;
	struct change *c = change_new(s, name, done, arg);
	if (!c)
		return kn_fail(err, ENOMEM, "no memory to remove a secret");
	r = kn_store_delete(s->store, KN_TABLE_SECRET, name, on_stored, c, err);
	if (r < 0)
		change_free(c);
	return r;
}

/* ---- life ---------------------------------------------------------------------------------- */

static int load(struct kn_view name, struct kn_view value, void *arg, struct kn_err *err)
{
	struct kn_secrets *s = arg;
	struct secret one = { .name = strndup(name.ptr, name.len),
		              .record = strndup(value.ptr ? value.ptr : "", value.len) };
	kn_auto(kn_buf_fini) struct kn_buf bytes = KN_BUF_INIT;
	struct kn_err why = KN_ERR_INIT;

	int r = one.name && one.record ? make_room(s, err)
	                               : kn_fail(err, ENOMEM, "no memory for stored secrets");
	if (r < 0) {
		secret_fini(&one);
		return r;
	}
	if (decrypt(s, &one, &bytes, &why) < 0)
		kn_log(KN_ERROR, "secret is lost", KN_S("secret", one.name), KN_E(&why));
	if (bytes.ptr)
		OPENSSL_cleanse(bytes.ptr, bytes.len);
	list_put(s, &one);
	return 0;
}

int kn_secrets_open(struct kn_store *store, int dir, struct kn_secrets **ret, struct kn_err *err)
{
	kn_auto(kn_secrets_free) struct kn_secrets *s = calloc(1, sizeof(*s));

	if (!s)
		return kn_fail(err, ENOMEM, "no memory for secrets");
	s->store = store;
	int r = read_key(s, dir, err);
	if (r < 0)
		return kn_while(err, "the key of this node's secrets, '%s' in the state folder",
		                KEY_FILE);
	r = kn_store_each(store, KN_TABLE_SECRET, load, s, err);
	if (r < 0)
		return r;
	*ret = kn_take_ptr(s);
	return 0;
}

void kn_secrets_free(struct kn_secrets *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++)
		secret_fini(&s->at[i]);
	free(s->at);
	OPENSSL_cleanse(s->key, KEY);
	free(s);
}
