/* The client of registries: its parsers, and pulls and pushes against a registry that misbehaves. */
#include "oci/remote.h"

#include <pthread.h>

#include "oci/fixture.h"

#include "oci/registry.h"
#include "oci/remote/private.h"

/* ---- parsers ------------------------------------------------------------------------------- */

static void challenges_are_understood(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct challenge c;

	(void)state;
	assert_ok(challenge_parse(KN_VIEW("Bearer realm=\"https://a.example/token\",service=\"a b\", "
	                                  "scope=\"repository:x/y:pull,push\""), &c, &err), &err);
	assert_true(c.bearer);
	assert_string_equal(c.realm, "https://a.example/token");
	assert_string_equal(c.service, "a b");
	assert_string_equal(c.scope, "repository:x/y:pull,push");
	assert_ok(challenge_parse(KN_VIEW("bearer REALM=http://x/t,error=\"a\\\"b,c\",scope=s"), &c, &err),
	          &err);
	assert_string_equal(c.realm, "http://x/t");
	assert_string_equal(c.scope, "s");
	assert_ok(challenge_parse(KN_VIEW("Basic realm=\"x\""), &c, &err), &err);
	assert_false(c.bearer);
	assert_fails(challenge_parse(KN_VIEW("Bearer service=\"x\""), &c, &err), EINVAL, &err, "realm");
	assert_fails(challenge_parse(KN_VIEW("Bearer"), &c, &err), EINVAL, &err, "");
	assert_fails(challenge_parse(KN_VIEW("Negotiate"), &c, &err), EINVAL, &err, "Negotiate");
	assert_fails(challenge_parse(KN_VIEW_NULL, &c, &err), EINVAL, &err, "");
	/* Cut short inside quotes: read to the end, never past it. */
	assert_ok(challenge_parse(KN_VIEW("Bearer realm=\"http://x"), &c, &err), &err);
	assert_string_equal(c.realm, "http://x");
}

static void login_is_the_one_that_fits_best(void **state)
{
	/* a:b, c:d:e, f:g */
	static const char json[] =
		"{\"auths\":{\"r.example:5000\":{\"auth\":\"YTpi\"},\"r.example:5000/team\":{\"auth\":"
		"\"YzpkOmU=\"},\"https://old.example/v1/\":{\"auth\":\"Zjpn\"},\"empty\":{}},"
		"\"credsStore\":\"x\"}";
	static const struct {
		const char *name, *user, *password;
	} cases[] = {
		{ "r.example:5000/app", "a", "b" },     { "r.example:5000/team/app", "c", "d:e" },
		{ "r.example:5000/teamwork", "a", "b" }, { "old.example/x", "f", "g" },
		{ "r.example/app", "", "" },            { "empty/x", "", "" },
		{ "other.example/app", "", "" },
	};
	struct kn_remote_login login;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		assert_ok(kn_remote_login_find(kn_view_of(json), kn_view_of(cases[i].name), &login, &err),
		          &err);
		assert_string_equal(login.user, cases[i].user);
		assert_string_equal(login.password, cases[i].password);
	}
	assert_fails(kn_remote_login_find(KN_VIEW("{\"auths\":{\"a\":{\"auth\":\"?\"}}}"), KN_VIEW("a/b"),
	                                  &login, &err), EINVAL, &err, "credentials of 'a'");
	assert_fails(kn_remote_login_find(KN_VIEW("[]"), KN_VIEW("a/b"), &login, &err), EINVAL, &err, "");
	assert_fails(kn_remote_login_parse(KN_VIEW("nopassword"), &login, &err), EINVAL, &err,
	             "USER:PASSWORD");
}

static void loopback_is_only_this_machine(void **state)
{
	static const char *const yes[] = { "localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:80",
		                           "[::1]:5000" };
	static const char *const no[] = { "localhost.example", "127.example.org", "10.0.0.1:5000",
		                          "r.example", "1127.0.0.1" };

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(yes); i++)
		assert_true(kn_remote_is_loopback(kn_view_of(yes[i])));
	for (size_t i = 0; i < KN_ARRAY_LEN(no); i++)
		assert_false(kn_remote_is_loopback(kn_view_of(no[i])));
}

/* ---- against a registry -------------------------------------------------------------------- */

/* One that runs in a thread. fault: what it does wrong, by path. */
static struct {
	struct kn_loop *loop;
	struct kn_work *work;
	struct kn_images *images;
	struct kn_registry *registry;
	struct kn_http_server *server;
	pthread_t thread;
	char addr[64];
	const char *spoiled;    /* replies to paths with this text have another content */
	int tokens;             /* asked for */
	bool wants_token;
} t;

static void on_request(struct kn_http_exchange *x, void *arg)
{
	const struct kn_http_head *head = kn_http_head(x);
	const struct kn_view with = kn_http_header(head, "authorization");

	(void)arg;
	if (kn_view_is(head->path, KN_VIEW("/token"))) {
		t.tokens++;
		/* "Aladdin:open sesame", RFC 7617's own */
		if (kn_view_is(with, KN_VIEW("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")))
			kn_http_reply_text(x, 200, KN_HTTP_JSON, "{\"token\":\"word\"}");
		else
			kn_http_reply_text(x, 401, KN_HTTP_JSON, "{}");
	} else if (t.wants_token && !kn_view_is(with, KN_VIEW("Bearer word"))) {
		char value[200];
		snprintf(value, sizeof(value), "Bearer realm=\"http://%s/token\",service=\"s\"", t.addr);
		const struct kn_header header = { KN_VIEW("WWW-Authenticate"), kn_view_of(value) };
		kn_registry_error(x, 401, "UNAUTHORIZED", "who?", &header);
	} else if (t.spoiled && memmem(head->path.ptr, head->path.len, t.spoiled, strlen(t.spoiled))) {
		kn_http_reply_text(x, 200, "application/octet-stream", "spoiled");
	} else {
		kn_registry_request(t.registry, x);
	}
}

static void *run_loop(void *arg)
{
	(void)arg;
	(void)!kn_loop_run(t.loop);
	return NULL;
}

static void stop_loop(void *arg)
{
	(void)arg;
	kn_loop_stop(t.loop);
}

static int setup(void **state)
{
	struct kn_images_config images = KN_IMAGES_DEFAULTS;
	struct kn_work_config work = KN_WORK_DEFAULTS;
	struct kn_http_server_config http = KN_HTTP_SERVER_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;

	if (fixture_setup(state) < 0)
		return -1;
	memset(&t, 0, sizeof(t));
	images.dir = fixture_path("theirs");
	assert_ok(kn_loop_new(&t.loop, &err), &err);
	assert_ok(kn_work_new(t.loop, &work, &t.work, &err), &err);
	assert_ok(kn_images_open(&images, &t.images, &err), &err);
	const struct kn_registry_config config = { .loop = t.loop,
		                                   .work = t.work,
		                                   .images = t.images,
		                                   .max_blob_bytes = 256 << 20 };
	assert_ok(kn_registry_new(&config, &t.registry, &err), &err);
	int fd = kn_tcp_listen("127.0.0.1:0", &err);
	assert_ok(fd, &err);
	assert_int_equal(kn_tcp_name(fd, t.addr, sizeof(t.addr)), 0);
	http.request = on_request;
	assert_ok(kn_http_server_new(t.loop, fd, &http, &t.server, &err), &err);
	return pthread_create(&t.thread, NULL, run_loop, NULL);
}

static int teardown(void **state)
{
	assert_int_equal(kn_loop_post(t.loop, stop_loop, NULL), 0);
	pthread_join(t.thread, NULL);
	kn_http_server_free(t.server);
	kn_work_free(t.work);
	kn_registry_free(t.registry);
	kn_images_close(t.images);
	kn_loop_free(t.loop);
	return fixture_teardown(state);
}

static struct kn_images *open_ours(void)
{
	struct kn_images_config config = KN_IMAGES_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;
	struct kn_images *images = NULL;

	config.dir = fixture_path("ours");
	assert_ok(kn_images_open(&config, &images, &err), &err);
	return images;
}

/* An image in a store of its own, to be pushed: this test's own program as a bare function. */
static struct kn_digest local_image(struct kn_blobs **ret)
{
	kn_auto(kn_close) int elf = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	kn_auto(kn_close) int out = fixture_fd("", 0);
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;
	struct kn_archive_image got;
	struct kn_err err = KN_ERR_INIT;
	struct kn_arena arena;
	struct kn_digest d;

	assert_ok(kn_archive_write_bare(out, "a:1", elf, NULL, &d, &err), &err);
	assert_int_equal(lseek(out, 0, SEEK_SET), 0);
	assert_ok(kn_blobs_open(fixture_path("local"), ret, &err), &err);
	config.fd = out;
	kn_arena_init(&arena);
	assert_ok(kn_archive_read(*ret, &config, &arena, &got, &err), &err);
	kn_arena_fini(&arena);
	return d;
}

static struct kn_remote *connect_to(const char *user, const char *password)
{
	const struct kn_remote_config config = { .host = kn_view_of(t.addr),
		                                 .user = user,
		                                 .password = password };
	struct kn_err err = KN_ERR_INIT;
	struct kn_remote *r = NULL;

	assert_ok(kn_remote_open(&config, &r, &err), &err);
	return r;
}

static struct kn_digest push(void)
{
	kn_auto(kn_remote_close) struct kn_remote *r = connect_to("Aladdin", "open sesame");
	kn_auto(kn_blobs_close) struct kn_blobs *blobs = NULL;
	struct kn_err err = KN_ERR_INIT;

	struct kn_digest d = local_image(&blobs);
	assert_ok(kn_remote_push(r, blobs, &d, "team/app", "1", &err), &err);
	return d;
}

static int pull(struct kn_images *images, const char *what, struct kn_image **ret,
                struct kn_err *err)
{
	kn_auto(kn_remote_close) struct kn_remote *r = connect_to("Aladdin", "open sesame");
	struct kn_ref ref;
	char text[400];

	snprintf(text, sizeof(text), "%s/%s", t.addr, what);
	assert_ok(kn_ref_parse(kn_view_of(text), &ref, err), err);
	return kn_remote_pull(r, images, &ref, 256 << 20, ret, err);
}

static void what_was_pushed_is_pulled(void **state)
{
	kn_auto(kn_images_close) struct kn_images *ours = open_ours();
	kn_auto(kn_image_unref) struct kn_image *image = NULL, *again = NULL, *found = NULL;
	struct kn_err err = KN_ERR_INIT;
	char by_digest[200];

	(void)state;
	t.wants_token = true;
	struct kn_digest d = push();
	assert_ok(pull(ours, "team/app:1", &image, &err), &err);
	assert_true(kn_digest_is(&image->digest, &d));
	assert_int_equal(image->kind, KN_IMAGE_BARE);
	assert_ok(kn_images_find(ours, kn_view_of(image->reference), &found, &err), &err);
	/* One token served all of a pull or a push; the push needed one, too. */
	assert_int_equal(t.tokens, 2);
	snprintf(by_digest, sizeof(by_digest), "team/app@%s", d.text);
	assert_ok(pull(ours, by_digest, &again, &err), &err);
	assert_string_equal(again->tag, "");
	assert_fails(pull(ours, "team/app:2", &again, &err), ENOENT, &err, "MANIFEST_UNKNOWN");
}

static void wrong_password_is_told(void **state)
{
	kn_auto(kn_images_close) struct kn_images *ours = open_ours();
	kn_auto(kn_remote_close) struct kn_remote *r = connect_to("Aladdin", "wrong");
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *image = NULL;
	struct kn_ref ref;
	char text[100];

	(void)state;
	t.wants_token = true;
	snprintf(text, sizeof(text), "%s/a:1", t.addr);
	assert_ok(kn_ref_parse(kn_view_of(text), &ref, &err), &err);
	assert_fails(kn_remote_pull(r, ours, &ref, 1 << 20, &image, &err), EACCES, &err, "401");
}

static void spoiled_content_is_refused_and_not_kept(void **state)
{
	kn_auto(kn_images_close) struct kn_images *ours = open_ours();
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *image = NULL;
	char by_digest[200];

	(void)state;
	struct kn_digest d = push();
	t.spoiled = "/blobs/";
	assert_fails(pull(ours, "team/app:1", &image, &err), EBADMSG, &err, "digest");
	t.spoiled = "/manifests/";
	snprintf(by_digest, sizeof(by_digest), "team/app@%s", d.text);
	assert_fails(pull(ours, by_digest, &image, &err), EBADMSG, &err, "was asked for");
	assert_fails(pull(ours, "team/app:1", &image, &err), EINVAL, &err, "");
	assert_int_equal(fixture_count(fixture_path("ours/blobs/sha256")), 0);
	assert_int_equal(fixture_count(fixture_path("ours/tmp")), 0);
	assert_null(image);
}

static void too_large_an_image_is_refused_before_it_comes(void **state)
{
	kn_auto(kn_images_close) struct kn_images *ours = open_ours();
	kn_auto(kn_remote_close) struct kn_remote *r = connect_to(NULL, NULL);
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *image = NULL;
	struct kn_ref ref;
	char text[100];

	(void)state;
	push();
	snprintf(text, sizeof(text), "%s/team/app:1", t.addr);
	assert_ok(kn_ref_parse(kn_view_of(text), &ref, &err), &err);
	assert_fails(kn_remote_pull(r, ours, &ref, 1000, &image, &err), EFBIG, &err, "larger");
	assert_ok(kn_ref_parse(KN_VIEW("app:1"), &ref, &err), &err);
	assert_fails(kn_remote_pull(r, ours, &ref, 1000, &image, &err), EINVAL, &err, "no registry");
}

static void nobody_there_is_told(void **state)
{
	kn_auto(kn_images_close) struct kn_images *ours = open_ours();
	const struct kn_remote_config config = { .host = KN_VIEW("127.0.0.1:1") };
	kn_auto(kn_remote_close) struct kn_remote *r = NULL;
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *image = NULL;
	struct kn_ref ref;

	(void)state;
	assert_ok(kn_remote_open(&config, &r, &err), &err);
	assert_ok(kn_ref_parse(KN_VIEW("127.0.0.1:1/a:1"), &ref, &err), &err);
	assert_fails(kn_remote_pull(r, ours, &ref, 1000, &image, &err), ECONNREFUSED, &err,
	             "registry 127.0.0.1:1");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(challenges_are_understood),
		cmocka_unit_test(login_is_the_one_that_fits_best),
		cmocka_unit_test(loopback_is_only_this_machine),
		test(what_was_pushed_is_pulled),
		test(wrong_password_is_told),
		test(spoiled_content_is_refused_and_not_kept),
		test(too_large_an_image_is_refused_before_it_comes),
		test(nobody_there_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
