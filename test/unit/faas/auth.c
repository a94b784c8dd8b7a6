#include "faas/auth.h"
#include "test.h"

#include "faas/reply.h"
#include "probe.h"

#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <sys/stat.h>

static const char ISSUER[] = "http://127.0.0.1:8080";
enum { NOW_S = 1800000000 };

struct fixture {
	char path[64];
	int dir;
	struct probe probe;
	struct kn_http_server *server;
	struct kn_store *store;
	struct kn_work *work;
	struct kn_auth *auth;
	uint32_t scope;          /* what /protected asks for */
	char id[64], secret[128];
	EVP_PKEY *key;           /* the node's, read from its file */
	char kid[64];
};

/* ---- a node's token service behind a server ------------------------------------------------ */

static void let_in(struct kn_http_exchange *x, const struct kn_caller *caller, void *arg)
{
	(void)arg;
	kn_reply_json(x, 200, json_pack("{s:s}", "caller", caller->client_id));
}

static void on_request(struct kn_http_exchange *x, void *arg)
{
	struct fixture *f = arg;
	struct kn_view path = kn_http_head(x)->path;

	if (kn_view_is(path, KN_VIEW("/oauth/token")))
		kn_auth_token(f->auth, x);
	else if (kn_view_is(path, KN_VIEW("/.well-known/jwks.json")))
		kn_auth_jwks(f->auth, x);
	else if (kn_view_is(path, KN_VIEW("/.well-known/oauth-authorization-server")))
		kn_auth_metadata(f->auth, x);
	else
		kn_auth_request(f->auth, x, f->scope, let_in, f);
}

static int try_auth(struct fixture *f, struct kn_err *err)
{
	struct kn_auth_config config = KN_AUTH_DEFAULTS;

	config.store = f->store;
	config.work = f->work;
	config.dir = f->dir;
	config.issuer = ISSUER;
	config.pbkdf2_rounds = 1000;
	return kn_auth_new(&config, &f->auth, err);
}

static void read_credentials(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	assert_ok(kn_read_file(f->dir, "credentials", 4096, &b, &err), &err);
	assert_int_equal(sscanf(b.ptr, "client_id=%63s\nclient_secret=%127s\n", f->id, f->secret), 2);
}

static void read_key(struct fixture *f)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/token-key.pem", f->path);
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	f->key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	assert_non_null(f->key);
	fclose(file);
}

static void start_services(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_http_server_config config = KN_HTTP_SERVER_DEFAULTS;

	config.request = on_request;
	config.arg = f;
	int fd = kn_tcp_listen("127.0.0.1:0", &err);
	assert_ok(fd, &err);
	assert_int_equal(kn_tcp_name(fd, f->probe.addr, sizeof(f->probe.addr)), 0);
	assert_ok(kn_http_server_new(f->probe.loop, fd, &config, &f->server, &err), &err);
	const struct kn_store_config store = { .dir = f->dir,
		                               .dir_name = f->path,
		                               .loop = f->probe.loop };
	assert_ok(kn_store_open(&store, &f->store, &err), &err);
	assert_ok(kn_work_new(f->probe.loop, &KN_WORK_DEFAULTS, &f->work, &err), &err);
	assert_ok(try_auth(f, &err), &err);
}

static void stop_services(struct fixture *f)
{
	kn_http_server_free(f->server);
	kn_work_free(f->work);
	kn_auth_free(f->auth);
	kn_store_close(f->store);
	f->server = NULL;
	f->work = NULL;
	f->auth = NULL;
	f->store = NULL;
}

static void learn_kid(struct fixture *f);

static int setup(void **state)
{
	static struct fixture f;
	struct kn_err err = KN_ERR_INIT;

	/* Only wall time stands still where a test says so: timers need the real clock. */
	f = (struct fixture){ .path = "/tmp/kn-auth-XXXXXX", .scope = KN_SCOPE_FUNCTION_READ };
	assert_non_null(mkdtemp(f.path));
	f.dir = open(f.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_ok(kn_loop_new(&f.probe.loop, &err), &err);
	start_services(&f);
	read_credentials(&f);
	read_key(&f);
	learn_kid(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	kn_real_clock();
	stop_services(f);
	kn_loop_free(f->probe.loop);
	kn_buf_fini(&f->probe.reply);
	EVP_PKEY_free(f->key);
	close(f->dir);
	assert_ok(kn_remove_tree(AT_FDCWD, f->path, &err), &err);
	return 0;
}

/* ---- a forger's tools: an own signer on OpenSSL -------------------------------------------- */

static void raw_signature(EVP_PKEY *key, const char *text, size_t len, uint8_t raw[64])
{
	uint8_t der[80];
	size_t der_len = sizeof(der);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
	assert_int_equal(EVP_DigestSign(ctx, der, &der_len, (const uint8_t *)text, len), 1);
	EVP_MD_CTX_free(ctx);
	const uint8_t *at = der;
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)der_len);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, 32), 32);
	assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + 32, 32), 32);
	ECDSA_SIG_free(sig);
}

static void signed_part(struct kn_buf *b, const char *header, const char *payload)
{
	kn_base64url(b, header, strlen(header));
	kn_buf_add(b, ".", 1);
	kn_base64url(b, payload, strlen(payload));
}

static void sign(struct kn_buf *b, EVP_PKEY *key, const char *header, const char *payload)
{
	uint8_t raw[64];

	kn_buf_clear(b);
	signed_part(b, header, payload);
	raw_signature(key, b->ptr, b->len, raw);
	kn_buf_add(b, ".", 1);
	kn_base64url(b, raw, sizeof(raw));
}

static void header_for(const struct fixture *f, char out[256])
{
	snprintf(out, 256, "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"%s\"}", f->kid);
}

/* Claims that count at NOW_S. */
static json_t *good_claims(const struct fixture *f)
{
	return json_pack("{s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:s}", "iss", ISSUER, "sub", f->id,
	                 "aud", ISSUER, "exp", NOW_S + 600, "iat", NOW_S - 10, "jti", "x",
	                 "client_id", f->id, "scope", "function:read");
}

static char *good_payload(const struct fixture *f)
{
	json_t *claims = good_claims(f);
	char *text = json_dumps(claims, JSON_COMPACT);

	json_decref(claims);
	return text;
}

static enum kn_token_fault check_bytes(struct fixture *f, const char *ptr, size_t len)
{
	uint32_t scopes = 0;
	/* An exact copy on the heap: the sanitizer sees a read past the end. */
	char *copy = malloc(len ? len : 1);

	if (len)
		memcpy(copy, ptr, len);
	enum kn_token_fault fault =
		kn_auth_check_token(f->auth, (struct kn_view){ copy, len }, &scopes, NULL);
	free(copy);
	return fault;
}

static enum kn_token_fault check(struct fixture *f, const char *token)
{
	return check_bytes(f, token, strlen(token));
}

static void set_clock(uint64_t s)
{
	kn_fake_clock(kn_now_ns(), s * KN_NS_PER_S);
}

static void issue(struct fixture *f, struct kn_buf *b)
{
	struct kn_err err = KN_ERR_INIT;

	kn_buf_clear(b);
	assert_ok(kn_auth_issue(f->auth, f->id, KN_SCOPE_FUNCTION_READ, b, &err), &err);
}

static void learn_kid(struct fixture *f)
{
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf header = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	json_t *o = NULL;

	issue(f, &token);
	const char *dot = strchr(token.ptr, '.');
	assert_ok(kn_unbase64url((struct kn_view){ token.ptr, (size_t)(dot - token.ptr) }, &header,
	                         &err),
	          &err);
	assert_ok(kn_json_parse(kn_buf_view(&header), &o, &err), &err);
	snprintf(f->kid, sizeof(f->kid), "%s", json_string_value(json_object_get(o, "kid")));
	json_decref(o);
}

/* ---- tokens -------------------------------------------------------------------------------- */

static void issued_token_counts_until_it_expires(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	uint32_t scopes = 0;
	const char *id = NULL;

	set_clock(NOW_S);
	issue(f, &t);
	assert_int_equal(kn_auth_check_token(f->auth, kn_buf_view(&t), &scopes, &id), KN_TOKEN_GOOD);
	assert_int_equal(scopes, KN_SCOPE_FUNCTION_READ);
	assert_string_equal(id, f->id);
	set_clock(NOW_S + 3600 + 4);   /* inside the allowed skew */
	assert_int_equal(check(f, t.ptr), KN_TOKEN_GOOD);
	set_clock(NOW_S + 3600 + 5);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_EXPIRED);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_EXPIRED);
}

static void token_has_the_claims_of_rfc_9068(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = { "iss", "sub",       "aud",   "exp", "iat",
		                             "jti", "client_id", "scope", NULL };
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(json_decref) json_t *o = NULL;
	struct kn_err err = KN_ERR_INIT;
	struct kn_view rest, part;

	issue(f, &t);
	rest = kn_buf_view(&t);
	assert_true(kn_view_split(&rest, '.', &part) && kn_view_split(&rest, '.', &part));
	assert_ok(kn_unbase64url(part, &text, &err), &err);
	assert_ok(kn_json_parse(kn_buf_view(&text), &o, &err), &err);
	assert_ok(kn_json_require(o, names, &err), &err);
	assert_int_equal(json_object_size(o), 8);
}

static void token_counts_after_a_restart(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;

	issue(f, &t);
	stop_services(f);
	start_services(f);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_GOOD);
}

/* Whatever bit of a right token changes, it stops counting, remembered or not. */
static void every_single_bit_counts(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;

	issue(f, &t);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_GOOD);
	for (size_t i = 0; i < t.len; i++) {
		t.ptr[i] = (char)(t.ptr[i] ^ (1 << (i % 7)));
		if (check_bytes(f, t.ptr, t.len) == KN_TOKEN_GOOD)
			fail_msg("byte %zu does not matter", i);
		t.ptr[i] = (char)(t.ptr[i] ^ (1 << (i % 7)));
	}
	for (size_t len = 0; len < t.len; len++)
		assert_int_not_equal(check_bytes(f, t.ptr, len), KN_TOKEN_GOOD);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_GOOD);
}

/* Signed with the node's own key, so only the header can be what is refused. KID stands for ours. */
static void headers_of_other_kinds_are_refused(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *header;
		enum kn_token_fault fault;
	} cases[] = {
		{ "{\"alg\":\"none\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"None\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"NONE\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"es256\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256 \",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\\u0000\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_MALFORMED },
		{ "{\"alg\":\"ES384\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256K\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"RS256\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":[\"ES256\"],\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":null,\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":1,\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"Alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"none\",\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\"}",
		  KN_TOKEN_MALFORMED },
		{ "{\"alg\":\"ES256\",\"typ\":\"JWT\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"other\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":7}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"../../dev/null\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"' OR 1=1 --\"}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"crit\":[\"exp\"]}",
		  KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"crit\":[]}",
		  KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"jku\":\"http://127.0.0.1/\"}",
		  KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"x5u\":\"http://127.0.0.1/\"}",
		  KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"x5c\":[\"AAAA\"]}",
		  KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"jwk\":{\"kty\":\"EC\"}}",
		  KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"b64\":false}",
		  KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"zip\":\"DEF\"}",
		  KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\",\"x\":0}", KN_TOKEN_HEADER },
		{ "{\"alg\":\"ES256\",\"jwk\":{},\"kid\":\"KID\"}", KN_TOKEN_HEADER },
		{ "[]", KN_TOKEN_MALFORMED },
		{ "\"ES256\"", KN_TOKEN_MALFORMED },
		{ "null", KN_TOKEN_MALFORMED },
		{ "{}", KN_TOKEN_HEADER },
		{ "{", KN_TOKEN_MALFORMED },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"KID\"} x", KN_TOKEN_MALFORMED },
		{ "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"\xff\xfe\"}", KN_TOKEN_MALFORMED },
	};
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;

	set_clock(NOW_S);
	char *payload = good_payload(f);
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		char header[512];
		const char *mark = strstr(cases[i].header, "KID");
		if (mark)
			snprintf(header, sizeof(header), "%.*s%s%s", (int)(mark - cases[i].header),
			         cases[i].header, f->kid, mark + 3);
		else
			snprintf(header, sizeof(header), "%s", cases[i].header);
		sign(&t, f->key, header, payload);
		enum kn_token_fault fault = check(f, t.ptr);
		if (fault != cases[i].fault)
			fail_msg("%s: fault %d, expected %d", header, (int)fault, (int)cases[i].fault);
	}
	free(payload);
}

static void type_may_have_its_long_form_and_any_case(void **state)
{
	struct fixture *f = *state;
	static const char *const types[] = { "at+jwt", "AT+JWT", "application/at+jwt" };
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;

	set_clock(NOW_S);
	char *payload = good_payload(f);
	for (size_t i = 0; i < KN_ARRAY_LEN(types); i++) {
		char header[256];
		snprintf(header, sizeof(header), "{\"alg\":\"ES256\",\"typ\":\"%s\",\"kid\":\"%s\"}",
		         types[i], f->kid);
		sign(&t, f->key, header, payload);
		assert_int_equal(check(f, t.ptr), KN_TOKEN_GOOD);
	}
	free(payload);
}

/* Each row changes one claim of a right token; value is JSON, NULL removes the claim. */
static void claims_that_do_not_fit_are_refused(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *name, *value;
		enum kn_token_fault fault;
	} cases[] = {
		{ "iss", "\"http://127.0.0.1:8081\"", KN_TOKEN_CLAIMS },
		{ "iss", "\"http://127.0.0.1:8080/\"", KN_TOKEN_CLAIMS },
		{ "iss", "[\"http://127.0.0.1:8080\"]", KN_TOKEN_CLAIMS },
		{ "iss", NULL, KN_TOKEN_CLAIMS },
		{ "aud", "\"other\"", KN_TOKEN_CLAIMS },
		{ "aud", "[]", KN_TOKEN_CLAIMS },
		{ "aud", "[\"other\", 1]", KN_TOKEN_CLAIMS },
		{ "aud", "{}", KN_TOKEN_CLAIMS },
		{ "aud", NULL, KN_TOKEN_CLAIMS },
		{ "aud", "[\"other\", \"http://127.0.0.1:8080\"]", KN_TOKEN_GOOD },
		{ "exp", "1799999995", KN_TOKEN_EXPIRED },
		{ "exp", "1799999996", KN_TOKEN_GOOD },
		{ "exp", "0", KN_TOKEN_CLAIMS },
		{ "exp", "-1", KN_TOKEN_CLAIMS },
		{ "exp", "\"1800000600\"", KN_TOKEN_CLAIMS },
		{ "exp", "1800000600.5", KN_TOKEN_CLAIMS },
		{ "exp", "1e300", KN_TOKEN_CLAIMS },
		{ "exp", "9223372036854775807", KN_TOKEN_CLAIMS },
		{ "exp", "true", KN_TOKEN_CLAIMS },
		{ "exp", NULL, KN_TOKEN_CLAIMS },
		{ "iat", "1800000005", KN_TOKEN_GOOD },
		{ "iat", "1800000006", KN_TOKEN_EARLY },
		{ "iat", "\"1800000000\"", KN_TOKEN_CLAIMS },
		{ "iat", NULL, KN_TOKEN_CLAIMS },
		{ "iat", "1800000600", KN_TOKEN_CLAIMS },
		{ "nbf", "1800000006", KN_TOKEN_EARLY },
		{ "nbf", "1800000000", KN_TOKEN_GOOD },
		{ "nbf", "\"soon\"", KN_TOKEN_CLAIMS },
		{ "jti", NULL, KN_TOKEN_CLAIMS },
		{ "jti", "5", KN_TOKEN_CLAIMS },
		{ "sub", NULL, KN_TOKEN_CLAIMS },
		{ "sub", "\"someone\"", KN_TOKEN_CLIENT },
		{ "client_id", NULL, KN_TOKEN_CLAIMS },
		{ "client_id", "\"someone\"", KN_TOKEN_CLIENT },
		{ "client_id", "[\"admin\"]", KN_TOKEN_CLAIMS },
		{ "scope", NULL, KN_TOKEN_CLAIMS },
		{ "scope", "[\"admin\"]", KN_TOKEN_CLAIMS },
		{ "scope", "\"root\"", KN_TOKEN_CLAIMS },
		{ "more", "\"is ignored\"", KN_TOKEN_GOOD },
	};
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	char header[256];

	set_clock(NOW_S);
	header_for(f, header);
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		json_t *claims = good_claims(f);
		if (cases[i].value)
			json_object_set_new(claims, cases[i].name,
			                    json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
		else
			json_object_del(claims, cases[i].name);
		char *payload = json_dumps(claims, JSON_COMPACT);
		sign(&t, f->key, header, payload);
		enum kn_token_fault fault = check(f, t.ptr);
		if (fault != cases[i].fault)
			fail_msg("%s=%s: fault %d, expected %d", cases[i].name,
			         cases[i].value ? cases[i].value : "(none)", (int)fault,
			         (int)cases[i].fault);
		free(payload);
		json_decref(claims);
	}
}

static void payload_must_be_one_object(void **state)
{
	struct fixture *f = *state;
	static const char *const payloads[] = { "[]", "1", "null", "{", "{\"exp\":1,\"exp\":2}", "{}x" };
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	char header[256];

	header_for(f, header);
	for (size_t i = 0; i < KN_ARRAY_LEN(payloads); i++) {
		sign(&t, f->key, header, payloads[i]);
		assert_int_equal(check(f, t.ptr), KN_TOKEN_MALFORMED);
	}
}

/* ---- forged signatures --------------------------------------------------------------------- */

/* Order of P-256's group (FIPS 186-4, D.1.2.3). */
static const char ORDER[] = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

static void with_signature(struct kn_buf *b, const char *header, const char *payload,
                           const void *raw, size_t len)
{
	kn_buf_clear(b);
	signed_part(b, header, payload);
	kn_buf_add(b, ".", 1);
	kn_base64url(b, raw, len);
}

static void signatures_outside_the_range_are_refused(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	uint8_t order[32], one[32] = { [31] = 1 }, good[64];
	uint8_t *const values[] = { (uint8_t[32]){ 0 }, one, order, (uint8_t[32]){ 0 } };
	char header[256];

	memset(values[3], 0xff, 32);
	set_clock(NOW_S);
	assert_ok(kn_unhex(kn_view_of(ORDER), order, sizeof(order), &err), &err);
	header_for(f, header);
	char *payload = good_payload(f);
	kn_buf_clear(&t);
	signed_part(&t, header, payload);
	raw_signature(f->key, t.ptr, t.len, good);
	for (size_t r = 0; r < 5; r++) {
		for (size_t s = 0; s < 5; s++) {
			uint8_t raw[64];
			memcpy(raw, r < 4 ? values[r] : good, 32);
			memcpy(raw + 32, s < 4 ? values[s] : good + 32, 32);
			with_signature(&t, header, payload, raw, 64);
			assert_int_equal(check(f, t.ptr),
			                 r == 4 && s == 4 ? KN_TOKEN_GOOD : KN_TOKEN_SIGNATURE);
		}
	}
	free(payload);
}

/* ECDSA has two right values of s; RFC 7518 takes both, so both count, each as a token of its own. */
static void both_values_of_s_count(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	BIGNUM *order = NULL, *s = NULL;
	uint8_t raw[64];
	char header[256];

	set_clock(NOW_S);
	header_for(f, header);
	char *payload = good_payload(f);
	signed_part(&t, header, payload);
	raw_signature(f->key, t.ptr, t.len, raw);
	assert_true(BN_hex2bn(&order, ORDER) > 0);
	s = BN_bin2bn(raw + 32, 32, NULL);
	assert_int_equal(BN_sub(s, order, s), 1);
	with_signature(&t, header, payload, raw, 64);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_GOOD);
	assert_int_equal(BN_bn2binpad(s, raw + 32, 32), 32);
	with_signature(&t, header, payload, raw, 64);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_GOOD);
	BN_free(s);
	BN_free(order);
	free(payload);
}

static void signatures_of_other_lengths_are_refused(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	uint8_t raw[128] = { 0 };
	char header[256];

	header_for(f, header);
	char *payload = good_payload(f);
	signed_part(&t, header, payload);
	raw_signature(f->key, t.ptr, t.len, raw);
	for (size_t len = 0; len < sizeof(raw); len++) {
		if (len == 64)
			continue;
		with_signature(&t, header, payload, raw, len);
		assert_int_equal(check(f, t.ptr), KN_TOKEN_MALFORMED);
	}
	free(payload);
}

static void der_signature_is_refused(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	uint8_t der[80];
	size_t len = sizeof(der);
	char header[256];

	header_for(f, header);
	char *payload = good_payload(f);
	signed_part(&t, header, payload);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, f->key), 1);
	assert_int_equal(EVP_DigestSign(ctx, der, &len, (const uint8_t *)t.ptr, t.len), 1);
	EVP_MD_CTX_free(ctx);
	with_signature(&t, header, payload, der, len);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_MALFORMED);
	free(payload);
}

static void other_key_does_not_count_under_our_kid(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	EVP_PKEY *other = EVP_EC_gen("P-256");
	char header[256];

	set_clock(NOW_S);
	header_for(f, header);
	char *payload = good_payload(f);
	sign(&t, other, header, payload);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_SIGNATURE);
	EVP_PKEY_free(other);
	free(payload);
}

/* The classic confusion: an HMAC keyed with what everybody knows, the public key. */
static void hmac_with_the_public_key_does_not_count(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	BIO *bio = BIO_new(BIO_s_mem());
	char *pem, header[256];
	uint8_t mac[64] = { 0 };

	set_clock(NOW_S);
	assert_int_equal(PEM_write_bio_PUBKEY(bio, f->key), 1);
	long len = BIO_get_mem_data(bio, &pem);
	snprintf(header, sizeof(header), "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"%s\"}",
	         f->kid);
	char *payload = good_payload(f);
	signed_part(&t, header, payload);
	HMAC(EVP_sha256(), pem, (int)len, (const uint8_t *)t.ptr, t.len, mac, NULL);
	with_signature(&t, header, payload, mac, 32);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_HEADER);
	/* The same under the right algorithm's name, in both lengths. */
	header_for(f, header);
	with_signature(&t, header, payload, mac, 64);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_SIGNATURE);
	BIO_free(bio);
	free(payload);
}

static void forms_that_are_not_compact_are_refused(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf good = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	static const char *const plain[] = { "", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d.e",
		                             "eyJ.eyJ.", "bearer", "{\"payload\":\"\"}", " . . " };

	issue(f, &good);
	for (size_t i = 0; i < KN_ARRAY_LEN(plain); i++)
		assert_int_equal(check(f, plain[i]), KN_TOKEN_MALFORMED);
	static const struct {
		const char *before, *after;
	} around[] = { { " ", "" },  { "", " " },  { "", "\n" },    { "", "=" },  { "", "==" },
		       { "", "." },  { ".", "" },  { "", ".AAAA" }, { "\t", "" }, { "", "A" },
		       { "", "%3D" } };
	for (size_t i = 0; i < KN_ARRAY_LEN(around); i++) {
		kn_buf_clear(&t);
		kn_buf_printf(&t, "%s%s%s", around[i].before, good.ptr, around[i].after);
		assert_int_equal(check(f, t.ptr), KN_TOKEN_MALFORMED);
	}
	/* A zero byte inside, the other base64 alphabet, padding between the parts. */
	size_t dot = (size_t)(strchr(good.ptr, '.') - good.ptr);
	kn_buf_clear(&t);
	kn_buf_add(&t, good.ptr, good.len);
	t.ptr[good.len - 5] = 0;
	assert_int_equal(check_bytes(f, t.ptr, t.len), KN_TOKEN_MALFORMED);
	t.ptr[good.len - 5] = '+';
	assert_int_equal(check(f, t.ptr), KN_TOKEN_MALFORMED);
	kn_buf_clear(&t);
	kn_buf_printf(&t, "%.*s=%s", (int)dot, good.ptr, good.ptr + dot);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_MALFORMED);
}

/* 64 bytes are 86 characters, of which the last carries 4 unused bits: only zeros are canonical. */
static void stray_bits_of_base64_are_refused(void **state)
{
	struct fixture *f = *state;
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;

	issue(f, &t);
	char *last = t.ptr + t.len - 1;
	ptrdiff_t value = strchr(alphabet, *last) - alphabet;
	assert_int_equal(value & 15, 0);
	for (int bits = 1; bits < 16; bits++) {
		*last = alphabet[value + bits];
		assert_int_equal(check(f, t.ptr), KN_TOKEN_MALFORMED);
	}
}

static void oversized_tokens_are_refused_unread(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;
	char *big = malloc(1 << 20);
	char header[256];

	memset(big, 'A', 1 << 20);
	assert_int_equal(check_bytes(f, big, 1 << 20), KN_TOKEN_MALFORMED);
	/* Right in everything but its size. */
	set_clock(NOW_S);
	header_for(f, header);
	json_t *claims = good_claims(f);
	json_object_set_new(claims, "jti", json_stringn(big, 3200));
	char *payload = json_dumps(claims, 0);
	sign(&t, f->key, header, payload);
	assert_true(t.len > 4096);
	assert_int_equal(check(f, t.ptr), KN_TOKEN_MALFORMED);
	free(payload);
	json_decref(claims);
	free(big);
}

static void issuing_is_for_known_clients(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf t = KN_BUF_INIT;

	assert_fails(kn_auth_issue(f->auth, "nobody", KN_SCOPE_ALL, &t, &err), ENOENT, &err,
	             "nobody");
}

/* ---- key and credentials on disk ----------------------------------------------------------- */

static void secrets_on_disk_are_private_and_hashed(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf db = KN_BUF_INIT;
	struct stat st;

	assert_int_equal(fstatat(f->dir, "credentials", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(fstatat(f->dir, "token-key.pem", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_ok(kn_store_get(f->store, KN_TABLE_CLIENT, kn_view_of(f->id), &db, &err), &err);
	assert_null(strstr(db.ptr, f->secret));
	assert_non_null(strstr(db.ptr, "pbkdf2-sha256"));
}

static void restart_keeps_the_administrator(void **state)
{
	struct fixture *f = *state;
	char before[128];

	memcpy(before, f->secret, sizeof(before));
	stop_services(f);
	start_services(f);
	read_credentials(f);
	assert_string_equal(f->secret, before);
}

static void key_that_others_may_read_is_refused(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	kn_auth_free(f->auth);
	f->auth = NULL;
	assert_int_equal(fchmodat(f->dir, "token-key.pem", 0644, 0), 0);
	assert_fails(try_auth(f, &err), EPERM, &err, "chmod 600");
}

static void key_of_another_kind_is_refused(void **state)
{
	struct fixture *f = *state;
	EVP_PKEY *const keys[] = { EVP_EC_gen("P-384"), EVP_EC_gen("secp256k1"),
		                   EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), NULL };

	kn_auth_free(f->auth);
	f->auth = NULL;
	for (size_t i = 0; i < KN_ARRAY_LEN(keys); i++) {
		struct kn_err err = KN_ERR_INIT;
		BIO *bio = BIO_new(BIO_s_mem());
		char *pem;
		if (keys[i])
			PEM_write_bio_PKCS8PrivateKey(bio, keys[i], NULL, NULL, 0, NULL, NULL);
		else
			PEM_write_bio_PUBKEY(bio, f->key);   /* no private part */
		long len = BIO_get_mem_data(bio, &pem);
		assert_ok(kn_write_file(f->dir, "token-key.pem", pem, (size_t)len, 0600, &err), &err);
		assert_fails(try_auth(f, &err), EUCLEAN, &err, "P-256");
		BIO_free(bio);
		EVP_PKEY_free(keys[i]);
	}
}

static void damaged_client_record_is_told(void **state)
{
	struct fixture *f = *state;
	static const char *const records[] = {
		"{", "[]", "{}", "{\"description\":\"\",\"scope\":\"root\"}",
		"{\"description\":\"\",\"scope\":\"\",\"kdf\":\"md5\",\"rounds\":1,\"salt\":\"\",\"hash\":"
		"\"\",\"created\":0}",
	};

	kn_auth_free(f->auth);
	f->auth = NULL;
	for (size_t i = 0; i < KN_ARRAY_LEN(records); i++) {
		struct kn_err err = KN_ERR_INIT;
		assert_ok(kn_store_put(f->store, KN_TABLE_CLIENT, KN_VIEW("c"),
		                       kn_view_of(records[i]), NULL, NULL, &err),
		          &err);
		assert_ok(kn_store_sync(f->store, &err), &err);
		assert_fails(try_auth(f, &err), EUCLEAN, &err, "stored client 'c'");
	}
}

/* ---- scopes -------------------------------------------------------------------------------- */

static void scopes_have_names(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	char text[KN_SCOPE_TEXT];
	uint32_t bits;

	kn_scope_text(KN_SCOPE_FUNCTION_READ | KN_SCOPE_IMAGE_WRITE, text);
	assert_string_equal(text, "function:read image:write");
	kn_scope_text(KN_SCOPE_ALL, text);
	assert_ok(kn_scope_parse(kn_view_of(text), &bits, &err), &err);
	assert_int_equal(bits, KN_SCOPE_ALL);
	assert_ok(kn_scope_parse(KN_VIEW("  admin  admin "), &bits, &err), &err);
	assert_int_equal(bits, KN_SCOPE_ADMIN);
	assert_fails(kn_scope_parse(KN_VIEW("function:reed"), &bits, &err), EINVAL, &err,
	             "did you mean 'function:read'");
	assert_fails(kn_scope_parse(KN_VIEW("x"), &bits, &err), EINVAL, &err, "Kiln has");
}

/* ---- the token endpoint -------------------------------------------------------------------- */

static const char TOKEN_HEAD[] =
	"POST /oauth/token HTTP/1.1\nContent-Type: application/x-www-form-urlencoded";

static void basic_value(const char *id, const char *secret, struct kn_buf *b)
{
	char text[512];

	int n = snprintf(text, sizeof(text), "%s:%s", id, secret);
	kn_buf_adds(b, "Basic ");
	kn_base64(b, text, (size_t)n);
}

/* Ask for a token with the form; basic adds the administrator's credentials as HTTP basic. */
static int ask(struct fixture *f, const char *form, bool basic)
{
	kn_auto(kn_buf_fini) struct kn_buf head = KN_BUF_INIT;

	kn_buf_adds(&head, TOKEN_HEAD);
	if (basic) {
		kn_buf_adds(&head, "\nAuthorization: ");
		basic_value(f->id, f->secret, &head);
	}
	return probe_call(&f->probe, head.ptr, form);
}

static char *form_with(struct fixture *f, const char *more)
{
	static char form[1024];

	snprintf(form, sizeof(form), "grant_type=client_credentials&client_id=%s&client_secret=%s%s",
	         f->id, f->secret, more);
	return form;
}

static void both_ways_of_client_authentication_give_a_token(void **state)
{
	struct fixture *f = *state;

	for (int basic = 0; basic < 2; basic++) {
		ask(f, basic ? "grant_type=client_credentials" : form_with(f, ""), basic);
		assert_status(&f->probe, 200);
		assert_reply_has(&f->probe, "Cache-Control: no-store");
		kn_auto(json_decref) json_t *o = probe_json(&f->probe);
		assert_string_equal(json_string_value(json_object_get(o, "token_type")), "Bearer");
		assert_int_equal(json_integer_value(json_object_get(o, "expires_in")), 3600);
		const char *token = json_string_value(json_object_get(o, "access_token"));
		assert_int_equal(check(f, token), KN_TOKEN_GOOD);
	}
}

static void scope_narrows_the_token(void **state)
{
	struct fixture *f = *state;
	uint32_t scopes;

	ask(f, form_with(f, "&scope=function%3Aread+image:read"), false);
	assert_status(&f->probe, 200);
	kn_auto(json_decref) json_t *o = probe_json(&f->probe);
	assert_string_equal(json_string_value(json_object_get(o, "scope")),
	                    "function:read image:read");
	const char *token = json_string_value(json_object_get(o, "access_token"));
	assert_int_equal(kn_auth_check_token(f->auth, kn_view_of(token), &scopes, NULL),
	                 KN_TOKEN_GOOD);
	assert_int_equal(scopes, KN_SCOPE_FUNCTION_READ | KN_SCOPE_IMAGE_READ);
}

static void bad_token_requests_get_the_errors_of_rfc_6749(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *form;
		bool basic;
		int status;
		const char *error;
	} cases[] = {
		{ "", true, 400, "invalid_request" },
		{ "grant_type=", true, 400, "unsupported_grant_type" },
		{ "grant_type=password", true, 400, "unsupported_grant_type" },
		{ "grant_type=client_credentials&grant_type=client_credentials", true, 400,
		  "invalid_request" },
		{ "grant_type=client_credentials&scope=a&scope=b", true, 400, "invalid_request" },
		{ "grant_type=client%5", true, 400, "invalid_request" },
		{ "grant_type=client%00credentials", true, 400, "invalid_request" },
		{ "grant_type=client_credentials&scope=root", true, 400, "invalid_scope" },
		{ "grant_type=client_credentials&scope=", true, 400, "invalid_scope" },
		{ "grant_type=client_credentials&client_id=admin&client_secret=x", true, 400,
		  "invalid_request" },
		{ "grant_type=client_credentials&client_id=other", true, 400, "invalid_request" },
		{ "grant_type=client_credentials", false, 401, "invalid_client" },
		{ "grant_type=client_credentials&client_id=admin", false, 401, "invalid_client" },
		{ "grant_type=client_credentials&client_id=admin&client_secret=", false, 401,
		  "invalid_client" },
		{ "grant_type=client_credentials&client_id=admin&client_secret=wrong", false, 401,
		  "invalid_client" },
		{ "grant_type=client_credentials&client_id=nobody&client_secret=wrong", false, 401,
		  "invalid_client" },
		{ "grant_type=client_credentials&client_id=&client_secret=wrong", false, 401,
		  "invalid_client" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		ask(f, cases[i].form, cases[i].basic);
		if (f->probe.status != cases[i].status || !strstr(f->probe.body, cases[i].error))
			fail_msg("'%s': %s", cases[i].form, f->probe.reply.ptr);
		if (cases[i].status == 401)
			assert_reply_has(&f->probe, "WWW-Authenticate: Basic");
	}
}

static void token_endpoint_wants_a_posted_form(void **state)
{
	struct fixture *f = *state;

	probe_call(&f->probe, "GET /oauth/token HTTP/1.1", NULL);
	assert_status(&f->probe, 405);
	assert_reply_has(&f->probe, "Allow: POST");
	probe_call(&f->probe, "POST /oauth/token HTTP/1.1\nContent-Type: application/json", "{}");
	assert_status(&f->probe, 400);
	assert_reply_has(&f->probe, "x-www-form-urlencoded");
	char *big = malloc(20000);
	memset(big, 'a', 19999);
	big[19999] = 0;
	ask(f, big, true);
	assert_status(&f->probe, 413);
	free(big);
}

static void form_content_type_may_have_parameters(void **state)
{
	struct fixture *f = *state;

	probe_call(&f->probe,
	           "POST /oauth/token HTTP/1.1\n"
	           "Content-Type: Application/X-WWW-Form-Urlencoded; charset=utf-8",
	           form_with(f, ""));
	assert_status(&f->probe, 200);
}

/* ---- protected paths ----------------------------------------------------------------------- */

static int visit(struct fixture *f, const char *authorization)
{
	kn_auto(kn_buf_fini) struct kn_buf head = KN_BUF_INIT;

	kn_buf_adds(&head, "GET /protected HTTP/1.1");
	if (authorization)
		kn_buf_printf(&head, "\nAuthorization: %s", authorization);
	return probe_call(&f->probe, head.ptr, NULL);
}

static void bearer_and_basic_open_the_door(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf value = KN_BUF_INIT;
	char bearer[2048];

	issue(f, &token);
	for (int i = 0; i < 2; i++) {
		snprintf(bearer, sizeof(bearer), "%s %s", i ? "bEARER" : "Bearer", token.ptr);
		visit(f, bearer);
		assert_status(&f->probe, 200);
		assert_reply_has(&f->probe, "\"caller\":\"admin\"");
	}
	basic_value(f->id, f->secret, &value);
	for (int i = 0; i < 2; i++) {   /* hashed the first time, remembered the second */
		visit(f, value.ptr);
		assert_status(&f->probe, 200);
	}
}

static void closed_door_says_how_to_open_it(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *authorization;
		const char *says;
	} cases[] = {
		{ NULL, "/oauth/token" },
		{ "Bearer", "malformed" },
		{ "Bearer x.y.z", "malformed" },
		{ "Basic !!!", "base64(CLIENT_ID:CLIENT_SECRET)" },
		{ "Basic YWJj", "not ID:SECRET" },
		{ "Basic YTpi", "wrong" },
		{ "Basic YWRtaW46", "wrong" },
		{ "Digest username=\"x\"", "only Bearer and Basic" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		visit(f, cases[i].authorization);
		assert_status(&f->probe, 401);
		assert_reply_has(&f->probe, "WWW-Authenticate: ");
		assert_reply_has(&f->probe, cases[i].says);
		assert_reply_has(&f->probe, "\"error\":");
		assert_reply_has(&f->probe, "\"hint\":");
	}
}

static void expired_token_is_called_expired(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
	char bearer[2048];

	set_clock(NOW_S);
	issue(f, &token);
	snprintf(bearer, sizeof(bearer), "Bearer %s", token.ptr);
	kn_real_clock();   /* the machine's clock is in another year than the token */
	bool past = kn_wall_ns() / KN_NS_PER_S > NOW_S;
	visit(f, bearer);
	assert_status(&f->probe, 401);
	assert_reply_has(&f->probe, "error=\"invalid_token\"");
	assert_reply_has(&f->probe, past ? "has expired" : "not valid yet");
}

static void two_authorization_fields_are_ambiguous(void **state)
{
	struct fixture *f = *state;

	visit(f, "Bearer a\nAuthorization: Bearer b");
	assert_status(&f->probe, 400);
}

static void missing_scope_is_named(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
	char bearer[2048];

	issue(f, &token);
	snprintf(bearer, sizeof(bearer), "Bearer %s", token.ptr);
	f->scope = KN_SCOPE_FUNCTION_WRITE;
	visit(f, bearer);
	assert_status(&f->probe, 403);
	assert_reply_has(&f->probe, "error=\"insufficient_scope\", scope=\"function:write\"");
	assert_reply_has(&f->probe, "needs the scope 'function:write'");
}

static void administrator_may_everything(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
	char bearer[2048];

	assert_ok(kn_auth_issue(f->auth, f->id, KN_SCOPE_ADMIN, &token, &err), &err);
	snprintf(bearer, sizeof(bearer), "Bearer %s", token.ptr);
	f->scope = KN_SCOPE_IMAGE_WRITE;
	visit(f, bearer);
	assert_status(&f->probe, 200);
}

/* Many requests with one secret that is not known yet share one hash and are all let in. */
static void burst_with_one_secret_is_let_in(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf head = KN_BUF_INIT;
	enum { N = 64 };
	int fds[N];

	kn_buf_adds(&head, "GET /protected HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: ");
	basic_value(f->id, f->secret, &head);
	kn_buf_adds(&head, "\r\n\r\n");
	for (int i = 0; i < N; i++)
		fds[i] = probe_send(&f->probe, head.ptr, head.len);
	for (int i = 0; i < N; i++) {
		probe_receive(&f->probe, fds[i]);
		assert_status(&f->probe, 200);
	}
}

/* Guessing is bounded: beyond a few secrets at once, guesses are put off, and nothing is let in. */
static void burst_of_guesses_is_put_off(void **state)
{
	struct fixture *f = *state;
	enum { N = 64 };
	int fds[N], wrong = 0, later = 0;

	for (int i = 0; i < N; i++) {
		kn_auto(kn_buf_fini) struct kn_buf head = KN_BUF_INIT;
		char guess[32];
		snprintf(guess, sizeof(guess), "guess%d", i);
		kn_buf_adds(&head, "GET /protected HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
		                   "Authorization: ");
		basic_value(f->id, guess, &head);
		kn_buf_adds(&head, "\r\n\r\n");
		fds[i] = probe_send(&f->probe, head.ptr, head.len);
	}
	for (int i = 0; i < N; i++) {
		int status = probe_receive(&f->probe, fds[i]);
		assert_true(status == 401 || status == 429);
		wrong += status == 401;
		later += status == 429;
	}
	assert_true(wrong >= 1 && wrong + later == N);
}

static void client_that_leaves_while_hashing_is_forgotten(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf head = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf value = KN_BUF_INIT;

	basic_value(f->id, f->secret, &value);
	kn_buf_printf(&head, "GET /protected HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", value.ptr);
	int fd = probe_send(&f->probe, head.ptr, head.len);
	kn_loop_once(f->probe.loop, 0);
	kn_loop_once(f->probe.loop, 0);
	close(fd);
	visit(f, value.ptr);
	assert_status(&f->probe, 200);
}

/* ---- clients ------------------------------------------------------------------------------- */

struct made {
	int calls, code;
	char id[64], secret[128];
};

static void on_made(const char *id, const char *secret, const struct kn_err *err, void *arg)
{
	struct made *m = arg;

	m->calls++;
	m->code = err ? err->code : 0;
	if (!err) {
		snprintf(m->id, sizeof(m->id), "%s", id);
		snprintf(m->secret, sizeof(m->secret), "%s", secret);
	}
}

static void client_lives_and_dies(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;
	struct made m = { 0 };
	kn_auto(kn_buf_fini) struct kn_buf value = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;

	assert_ok(kn_client_add(f->auth, KN_VIEW("sensor gateway"), KN_SCOPE_FUNCTION_READ, on_made,
	                        &m, &err),
	          &err);
	while (!m.calls)
		kn_loop_once(f->probe.loop, -1);
	assert_int_equal(m.code, 0);
	stop_services(f);
	start_services(f);
	kn_auto(json_decref) json_t *list = kn_client_list(f->auth);
	assert_int_equal(json_array_size(list), 2);
	basic_value(m.id, m.secret, &value);
	visit(f, value.ptr);
	assert_status(&f->probe, 200);
	/* No more than its own scopes, whatever is asked for. */
	assert_ok(kn_auth_issue(f->auth, m.id, KN_SCOPE_ALL, &token, &err), &err);
	uint32_t scopes;
	assert_int_equal(kn_auth_check_token(f->auth, kn_buf_view(&token), &scopes, NULL),
	                 KN_TOKEN_GOOD);
	assert_int_equal(scopes, KN_SCOPE_FUNCTION_READ);

	assert_ok(kn_client_remove(f->auth, kn_view_of(m.id), NULL, NULL, &err), &err);
	assert_int_equal(check(f, token.ptr), KN_TOKEN_CLIENT);
	visit(f, value.ptr);
	assert_status(&f->probe, 401);
	stop_services(f);
	start_services(f);
	visit(f, value.ptr);
	assert_status(&f->probe, 401);
}

static void last_administrator_stays(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	assert_fails(kn_client_remove(f->auth, kn_view_of(f->id), NULL, NULL, &err), EBUSY, &err,
	             "last administrator");
	assert_fails(kn_client_remove(f->auth, KN_VIEW("nobody"), NULL, NULL, &err), ENOENT, &err,
	             "nobody");
}

/* ---- another implementation ---------------------------------------------------------------- */

static int shell(const char *command, struct kn_buf *ret)
{
	char part[4096];
	size_t n;

	FILE *p = popen(command, "re");
	assert_non_null(p);
	while ((n = fread(part, 1, sizeof(part), p)) > 0)
		kn_buf_add(ret, part, n);
	return pclose(p);
}

static void need_jose(void)
{
	kn_auto(kn_buf_fini) struct kn_buf out = KN_BUF_INIT;

	if (shell("command -v jose", &out) != 0)
		skip();   /* package jose */
}

static void write_text(struct fixture *f, const char *name, const char *text)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_write_file(f->dir, name, text, strlen(text), 0600, &err), &err);
}

/* jose(1) takes our tokens with the key set that we publish, and only whole ones. */
static void jose_verifies_our_tokens(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf out = KN_BUF_INIT;
	char command[256];

	need_jose();
	probe_call(&f->probe, "GET /.well-known/jwks.json HTTP/1.1", NULL);
	write_text(f, "keys.jwks", f->probe.body);
	snprintf(command, sizeof(command),
	         "cd '%s' && jose jws ver -i token -k keys.jwks -O- 2>/dev/null", f->path);
	for (int i = 0; i < 10; i++) {   /* other r and s each time, with leading zeros at times */
		issue(f, &token);
		write_text(f, "token", token.ptr);
		kn_buf_clear(&out);
		assert_int_equal(shell(command, &out), 0);
		assert_non_null(strstr(out.ptr, "\"client_id\":\"admin\""));
	}
	char *payload = strchr(token.ptr, '.') + 1;
	*payload = *payload == 'A' ? 'B' : 'A';
	write_text(f, "token", token.ptr);
	assert_int_not_equal(shell(command, &out), 0);
}

/* The node's key as JWK with its private part, which only this test writes down. */
static void write_private_jwk(struct fixture *f)
{
	uint8_t d[32];
	BIGNUM *secret = NULL;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	probe_call(&f->probe, "GET /.well-known/jwks.json HTTP/1.1", NULL);
	kn_auto(json_decref) json_t *set = probe_json(&f->probe);
	json_t *key = json_array_get(json_object_get(set, "keys"), 0);
	assert_int_equal(EVP_PKEY_get_bn_param(f->key, "priv", &secret), 1);
	assert_int_equal(BN_bn2binpad(secret, d, sizeof(d)), sizeof(d));
	BN_clear_free(secret);
	kn_base64url(&text, d, sizeof(d));
	json_object_set_new(key, "d", json_string(text.ptr));
	char *jwk = json_dumps(key, 0);
	write_text(f, "key.jwk", jwk);
	free(jwk);
}

static void we_verify_what_jose_signs(void **state)
{
	struct fixture *f = *state;
	char command[512];

	need_jose();
	set_clock(NOW_S);
	char *payload = good_payload(f);
	write_text(f, "payload", payload);
	free(payload);
	kn_real_clock();
	write_private_jwk(f);
	set_clock(NOW_S);
	snprintf(command, sizeof(command),
	         "cd '%s' && jose jws sig -I payload -k key.jwk -c -o- -s "
	         "'{\"protected\":{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"%s\"}}'",
	         f->path, f->kid);
	for (int i = 0; i < 10; i++) {
		kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
		assert_int_equal(shell(command, &token), 0);
		struct kn_view t = kn_view_trim(kn_buf_view(&token));
		assert_int_equal(check_bytes(f, t.ptr, t.len), KN_TOKEN_GOOD);
	}
}

/* ---- what others can check ----------------------------------------------------------------- */

static void key_set_holds_the_public_key_only(void **state)
{
	struct fixture *f = *state;

	probe_call(&f->probe, "GET /.well-known/jwks.json HTTP/1.1", NULL);
	assert_status(&f->probe, 200);
	kn_auto(json_decref) json_t *o = probe_json(&f->probe);
	const json_t *key = json_array_get(json_object_get(o, "keys"), 0);
	assert_string_equal(json_string_value(json_object_get(key, "kid")), f->kid);
	assert_string_equal(json_string_value(json_object_get(key, "alg")), "ES256");
	assert_string_equal(json_string_value(json_object_get(key, "crv")), "P-256");
	assert_null(json_object_get(key, "d"));
	assert_int_equal(json_object_size(key), 7);
}

static void metadata_names_the_endpoints(void **state)
{
	struct fixture *f = *state;

	probe_call(&f->probe, "GET /.well-known/oauth-authorization-server HTTP/1.1", NULL);
	assert_status(&f->probe, 200);
	kn_auto(json_decref) json_t *o = probe_json(&f->probe);
	assert_string_equal(json_string_value(json_object_get(o, "issuer")), ISSUER);
	assert_string_equal(json_string_value(json_object_get(o, "token_endpoint")),
	                    "http://127.0.0.1:8080/oauth/token");
	assert_int_equal(json_array_size(json_object_get(o, "scopes_supported")), 9);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(issued_token_counts_until_it_expires),
		CASE(token_has_the_claims_of_rfc_9068),
		CASE(token_counts_after_a_restart),
		CASE(every_single_bit_counts),
		CASE(headers_of_other_kinds_are_refused),
		CASE(type_may_have_its_long_form_and_any_case),
		CASE(claims_that_do_not_fit_are_refused),
		CASE(payload_must_be_one_object),
		CASE(signatures_outside_the_range_are_refused),
		CASE(both_values_of_s_count),
		CASE(signatures_of_other_lengths_are_refused),
		CASE(der_signature_is_refused),
		CASE(other_key_does_not_count_under_our_kid),
		CASE(hmac_with_the_public_key_does_not_count),
		CASE(forms_that_are_not_compact_are_refused),
		CASE(stray_bits_of_base64_are_refused),
		CASE(oversized_tokens_are_refused_unread),
		CASE(issuing_is_for_known_clients),
		CASE(secrets_on_disk_are_private_and_hashed),
		CASE(restart_keeps_the_administrator),
		CASE(key_that_others_may_read_is_refused),
		CASE(key_of_another_kind_is_refused),
		CASE(damaged_client_record_is_told),
		cmocka_unit_test(scopes_have_names),
		CASE(both_ways_of_client_authentication_give_a_token),
		CASE(scope_narrows_the_token),
		CASE(bad_token_requests_get_the_errors_of_rfc_6749),
		CASE(token_endpoint_wants_a_posted_form),
		CASE(form_content_type_may_have_parameters),
		CASE(bearer_and_basic_open_the_door),
		CASE(closed_door_says_how_to_open_it),
		CASE(expired_token_is_called_expired),
		CASE(two_authorization_fields_are_ambiguous),
		CASE(missing_scope_is_named),
		CASE(administrator_may_everything),
		CASE(burst_with_one_secret_is_let_in),
		CASE(burst_of_guesses_is_put_off),
		CASE(client_that_leaves_while_hashing_is_forgotten),
		CASE(client_lives_and_dies),
		CASE(last_administrator_stays),
		CASE(jose_verifies_our_tokens),
		CASE(we_verify_what_jose_signs),
		CASE(key_set_holds_the_public_key_only),
		CASE(metadata_names_the_endpoints),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
