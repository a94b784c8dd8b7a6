/* The registry over HTTP, with a real image store and workers; and its parsers alone. */
#include "oci/registry.h"

#include "oci/fixture.h"

#include "faas/probe.h"
#include "oci/registry/private.h"

/* ---- parsers ------------------------------------------------------------------------------- */

static void paths_are_taken_apart_from_their_end(void **state)
{
	static const struct {
		const char *path;
		enum path_kind kind;
		const char *name, *rest;
	} cases[] = {
		{ "/v2", PATH_BASE, "", "" },
		{ "/v2/", PATH_BASE, "", "" },
		{ "/v2/_catalog", PATH_CATALOG, "", "" },
		{ "/v2/a/b/manifests/1.0", PATH_MANIFEST, "a/b", "1.0" },
		{ "/v2/a/blobs/sha256:00", PATH_BLOB, "a", "sha256:00" },
		{ "/v2/a/blobs/uploads/", PATH_UPLOADS, "a", "" },
		{ "/v2/a/blobs/uploads", PATH_UPLOADS, "a", "uploads" },
		{ "/v2/a/blobs/uploads/77", PATH_UPLOAD, "a", "77" },
		{ "/v2/a/tags/list", PATH_TAGS, "a", "list" },
		{ "/v2/a/referrers/sha256:00", PATH_REFERRERS, "a", "sha256:00" },
		/* Words of the API are fine names. */
		{ "/v2/blobs/uploads/manifests/x", PATH_MANIFEST, "blobs/uploads", "x" },
		{ "/v2/manifests/tags/list", PATH_TAGS, "manifests", "list" },
		{ "/v2/a/blobs/b/blobs/uploads/1", PATH_UPLOAD, "a/blobs/b", "1" },
		{ "/v2/a/tags/other", PATH_NONE, NULL, NULL },
		{ "/v2/a", PATH_NONE, NULL, NULL },
		{ "/v2/manifests/x", PATH_NONE, NULL, NULL },
		{ "/v1/a/manifests/x", PATH_NONE, NULL, NULL },
		{ "", PATH_NONE, NULL, NULL },
		{ "/v2//manifests/x", PATH_MANIFEST, "", "x" },
		{ "/v2/../../etc/manifests/x", PATH_MANIFEST, "../../etc", "x" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct registry_path p;
		registry_path_parse(kn_view_of(cases[i].path), &p);
		if (p.kind != cases[i].kind ||
		    (cases[i].name && (!kn_view_is(p.name, kn_view_of(cases[i].name)) ||
		                       !kn_view_is(p.rest, kn_view_of(cases[i].rest)))))
			fail_msg("%s: kind %d", cases[i].path, (int)p.kind);
	}
}

static void names_and_tags_follow_the_grammar(void **state)
{
	static const char *const names[] = { "a", "a/b-c/d__e.f", "library/nginx", "a.example/b", "0" };
	static const char *const no_names[] = { "", "A", "a/B", "..", "a/../b", "/a", "a/", "a//b",
		                                "a:1", "a:80/b", "a@b", "a___b", "-a", "a b", "Ex.ample/b" };
	static const char *const tags[] = { "1", "latest", "_x", "V1.0-rc_2" };
	static const char *const no_tags[] = { "", ".x", "-x", "a/b", "a:b", "a@b", "a b", ".." };
	char text[300];

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(names); i++)
		assert_true(registry_name_ok(kn_view_of(names[i])));
	for (size_t i = 0; i < KN_ARRAY_LEN(no_names); i++)
		if (registry_name_ok(kn_view_of(no_names[i])))
			fail_msg("'%s' is taken for a name", no_names[i]);
	for (size_t i = 0; i < KN_ARRAY_LEN(tags); i++)
		assert_true(registry_tag_ok(kn_view_of(tags[i])));
	for (size_t i = 0; i < KN_ARRAY_LEN(no_tags); i++)
		if (registry_tag_ok(kn_view_of(no_tags[i])))
			fail_msg("'%s' is taken for a tag", no_tags[i]);
	memset(text, 'a', sizeof(text));
	assert_true(registry_name_ok((struct kn_view){ text, 255 }));
	assert_false(registry_name_ok((struct kn_view){ text, 256 }));
	assert_true(registry_tag_ok((struct kn_view){ text, 128 }));
	assert_false(registry_tag_ok((struct kn_view){ text, 129 }));
}

static void ranges_are_read_as_rfc_9110_says(void **state)
{
	static const struct {
		const char *text;
		uint64_t total;
		enum range is;
		uint64_t first, last;
	} cases[] = {
		{ "bytes=0-99", 1000, RANGE_PART, 0, 99 },
		{ "bytes=0-0", 1, RANGE_PART, 0, 0 },
		{ "bytes=990-", 1000, RANGE_PART, 990, 999 },
		{ "bytes=990-5000", 1000, RANGE_PART, 990, 999 },
		{ "bytes=-5", 1000, RANGE_PART, 995, 999 },
		{ "bytes=-5000", 1000, RANGE_PART, 0, 999 },
		{ "bytes=1000-", 1000, RANGE_NONE, 0, 0 },
		{ "bytes=0-", 0, RANGE_NONE, 0, 0 },
		{ "bytes=-0", 1000, RANGE_NONE, 0, 0 },
		{ "bytes=5-1", 1000, RANGE_WHOLE, 0, 0 },
		{ "bytes=0-1,3-4", 1000, RANGE_WHOLE, 0, 0 },
		{ "lines=0-1", 1000, RANGE_WHOLE, 0, 0 },
		{ "bytes", 1000, RANGE_WHOLE, 0, 0 },
		{ "bytes=", 1000, RANGE_WHOLE, 0, 0 },
		{ "bytes=a-b", 1000, RANGE_WHOLE, 0, 0 },
		{ "bytes=99999999999999999999-", 1000, RANGE_WHOLE, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		uint64_t first = 0, last = 0;
		enum range r = registry_range_parse(kn_view_of(cases[i].text), cases[i].total, &first,
		                                    &last);
		if (r != cases[i].is || first != cases[i].first || last != cases[i].last)
			fail_msg("%s: %d %llu-%llu", cases[i].text, (int)r, (unsigned long long)first,
			         (unsigned long long)last);
	}
	uint64_t a, b;
	assert_true(registry_chunk_parse(KN_VIEW("0-99"), &a, &b));
	assert_int_equal(b, 99);
	assert_false(registry_chunk_parse(KN_VIEW("99-0"), &a, &b));
	assert_false(registry_chunk_parse(KN_VIEW("bytes 0-99/100"), &a, &b));
	assert_false(registry_chunk_parse(KN_VIEW("5"), &a, &b));
	assert_false(registry_chunk_parse(KN_VIEW("-5"), &a, &b));
	assert_false(registry_chunk_parse(KN_VIEW_NULL, &a, &b));
}

/* ---- a registry that runs ------------------------------------------------------------------ */

static struct {
	struct kn_loop *loop;
	struct kn_work *work;
	struct kn_images *images;
	struct kn_registry *registry;
	struct kn_http_server *server;
	struct probe probe;
	bool readers_only;
	char pushed[400];
	const char *user;
} t;

static void allow(struct kn_http_exchange *x, enum kn_registry_right right,
                  struct kn_view repository, kn_registry_done done, void *done_arg, void *arg)
{
	(void)arg;
	(void)repository;
	if (t.readers_only && right == KN_REGISTRY_PUSH)
		kn_registry_error(x, 403, "DENIED", "read only", NULL);
	else
		done(x, done_arg);
}

static void pushed(const struct kn_image *image, void *arg)
{
	(void)arg;
	snprintf(t.pushed, sizeof(t.pushed), "%s", image->reference);
}

static const char *user(const struct kn_image *image, void *arg)
{
	(void)image;
	(void)arg;
	return t.user;
}

static void on_request(struct kn_http_exchange *x, void *arg)
{
	(void)arg;
	kn_registry_request(t.registry, x);
}

static void start(void)
{
	struct kn_images_config images = KN_IMAGES_DEFAULTS;
	struct kn_work_config work = KN_WORK_DEFAULTS;
	struct kn_http_server_config http = KN_HTTP_SERVER_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;

	images.dir = fixture_path("store");
	assert_ok(kn_loop_new(&t.loop, &err), &err);
	assert_ok(kn_work_new(t.loop, &work, &t.work, &err), &err);
	assert_ok(kn_images_open(&images, &t.images, &err), &err);
	const struct kn_registry_config config = { .loop = t.loop,
		                                   .work = t.work,
		                                   .images = t.images,
		                                   .max_blob_bytes = 4 << 20,
		                                   .allow = allow,
		                                   .pushed = pushed,
		                                   .user = user };
	assert_ok(kn_registry_new(&config, &t.registry, &err), &err);
	int fd = kn_tcp_listen("127.0.0.1:0", &err);
	assert_ok(fd, &err);
	assert_int_equal(kn_tcp_name(fd, t.probe.addr, sizeof(t.probe.addr)), 0);
	t.probe.loop = t.loop;
	http.request = on_request;
	http.max_body = 1024;   /* what is not a blob or a manifest */
	assert_ok(kn_http_server_new(t.loop, fd, &http, &t.server, &err), &err);
}

static void stop(void)
{
	kn_http_server_free(t.server);
	kn_work_free(t.work);
	kn_registry_free(t.registry);
	kn_images_close(t.images);
	kn_loop_free(t.loop);
}

static int setup(void **state)
{
	int r = fixture_setup(state);

	memset(&t, 0, sizeof(t));
	if (r == 0)
		start();
	return r;
}

static int teardown(void **state)
{
	stop();
	kn_buf_fini(&t.probe.reply);
	return fixture_teardown(state);
}

static int files_in(const char *name)
{
	return fixture_count(fixture_path(name));
}

/* The value of a field of the last reply, up to the end of its line. */
static struct kn_view field(const char *name)
{
	char line[80];

	snprintf(line, sizeof(line), "\r\n%s: ", name);
	const char *at = strstr(t.probe.reply.ptr ? t.probe.reply.ptr : "", line);
	if (!at)
		return KN_VIEW_NULL;
	at += strlen(line);
	return (struct kn_view){ at, strcspn(at, "\r") };
}

static void assert_field(const char *name, const char *value)
{
	struct kn_view is = field(name);

	if (!kn_view_is(is, kn_view_of(value)))
		fail_msg("%s is '%.*s', not '%s'", name, (int)is.len, is.ptr ? is.ptr : "", value);
}

static void call(int status, const char *body, const char *fmt, ...) kn_printf(3, 4);
static void call(int status, const char *body, const char *fmt, ...)
{
	char head[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(head, sizeof(head), fmt, ap);
	va_end(ap);
	char *end = strchr(head, '\n');
	char line[1200];
	size_t len = end ? (size_t)(end - head) : strlen(head);
	snprintf(line, sizeof(line), "%.*s HTTP/1.1%s", (int)len, head, end ? end : "");
	probe_call(&t.probe, line, body);
	assert_status(&t.probe, status);
}

static struct kn_digest digest_of(const char *text)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d;

	assert_ok(kn_digest_of(KN_SHA256, text, strlen(text), &d, &err), &err);
	return d;
}

static struct kn_digest push_blob(const char *repository, const char *text)
{
	struct kn_digest d = digest_of(text);

	call(201, text, "POST /v2/%s/blobs/uploads/?digest=%s", repository, d.text);
	return d;
}

/* A manifest of two blobs, which are pushed, too. */
static char *manifest(const char *repository, const char *layer, const char *more)
{
	struct kn_digest config = push_blob(repository, "{}"), d = push_blob(repository, layer);
	char *text;

	assert_true(asprintf(&text,
	                     "{\"schemaVersion\":2,\"mediaType\":\"" KN_TYPE_MANIFEST "\",\"config\":{"
	                     "\"mediaType\":\"text/x\",\"digest\":\"%s\",\"size\":2},\"layers\":[{"
	                     "\"mediaType\":\"text/plain\",\"digest\":\"%s\",\"size\":%zu}]%s}",
	                     config.text, d.text, strlen(layer), more) > 0);
	return text;
}

static struct kn_digest push(const char *repository, const char *tag, const char *layer,
                             const char *more)
{
	kn_auto(kn_free) char *text = manifest(repository, layer, more);
	struct kn_digest d = digest_of(text);

	call(201, text, "PUT /v2/%s/manifests/%s\nContent-Type: " KN_TYPE_MANIFEST, repository,
	     tag ? tag : d.text);
	assert_field("Docker-Content-Digest", d.text);
	return d;
}

/* ---- pull ---------------------------------------------------------------------------------- */

static void what_is_pushed_can_be_pulled(void **state)
{
	(void)state;
	call(200, NULL, "GET /v2/");
	assert_field("Docker-Distribution-API-Version", "registry/2.0");
	struct kn_digest m = push("team/app", "1", "layer one", "");
	struct kn_digest layer = digest_of("layer one");
	assert_string_equal(t.pushed, "team/app:1");
	call(200, NULL, "GET /v2/team/app/manifests/1");
	assert_field("Content-Type", KN_TYPE_MANIFEST);
	assert_field("Docker-Content-Digest", m.text);
	assert_true(strstr(t.probe.body, layer.text) != NULL);
	call(200, NULL, "HEAD /v2/team/app/manifests/%s", m.text);
	assert_string_equal(t.probe.body, "");
	call(200, NULL, "GET /v2/team/app/blobs/%s", layer.text);
	assert_string_equal(t.probe.body, "layer one");
	/* As clients write it, too. */
	call(200, NULL, "GET /v2/team/app/blobs/sha256%%3A%s", kn_digest_hex(&layer));
	call(200, NULL, "HEAD /v2/team/app/blobs/%s", layer.text);
	assert_field("Content-Length", "9");
}

static void parts_of_a_blob_can_be_pulled(void **state)
{
	(void)state;
	struct kn_digest d = push_blob("a", "0123456789");
	call(206, NULL, "GET /v2/a/blobs/%s\nRange: bytes=2-4", d.text);
	assert_string_equal(t.probe.body, "234");
	assert_field("Content-Range", "bytes 2-4/10");
	call(206, NULL, "GET /v2/a/blobs/%s\nRange: bytes=-1", d.text);
	assert_string_equal(t.probe.body, "9");
	call(416, NULL, "GET /v2/a/blobs/%s\nRange: bytes=10-", d.text);
	assert_field("Content-Range", "bytes */10");
	call(200, NULL, "GET /v2/a/blobs/%s\nRange: bytes=0-1,4-5", d.text);
}

static void what_is_not_there_is_told_by_code(void **state)
{
	static const char none[] =
		"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

	(void)state;
	push("here", "1", "x", "");
	const struct {
		const char *method, *path, *code;
		int status;
	} cases[] = {
		{ "GET", "/v2/none/manifests/1", "NAME_UNKNOWN", 404 },
		{ "GET", "/v2/none/tags/list", "NAME_UNKNOWN", 404 },
		{ "GET", "/v2/here/manifests/2", "MANIFEST_UNKNOWN", 404 },
		{ "DELETE", "/v2/here/manifests/2", "MANIFEST_UNKNOWN", 404 },
		{ "GET", "/v2/here/manifests/.INVALID", "MANIFEST_UNKNOWN", 404 },
		{ "GET", "/v2/here/blobs/sha256:00", "DIGEST_INVALID", 400 },
		{ "GET", "/v2/here/blobs/uploads/7", "BLOB_UPLOAD_UNKNOWN", 404 },
		{ "PATCH", "/v2/here/blobs/uploads/7", "BLOB_UPLOAD_UNKNOWN", 404 },
		{ "GET", "/v2/Here/manifests/1", "NAME_INVALID", 400 },
		{ "GET", "/v2/a/../../b/manifests/1", "NAME_INVALID", 400 },
		{ "GET", "/v2/a/%2e%2e/manifests/1", "NAME_INVALID", 400 },
		{ "GET", "/v2/here/referrers/x", "DIGEST_INVALID", 400 },
		{ "PUT", "/v2/here/manifests/.bad", "MANIFEST_INVALID", 400 },
		{ "PUT", "/v2/here/manifests/sha256:1", "DIGEST_INVALID", 400 },
		{ "POST", "/v2/here/manifests/1", "UNSUPPORTED", 405 },
		{ "GET", "/v2/here/nothing", "UNSUPPORTED", 404 },
		{ "GET", "/v2/here/tags/list?n=x", "PAGINATION_NUMBER_INVALID", 400 },
		{ "POST", "/v2/here/blobs/uploads/?digest=md5:1", "DIGEST_INVALID", 400 },
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		char code[64];
		call(cases[i].status, NULL, "%s %s", cases[i].method, cases[i].path);
		snprintf(code, sizeof(code), "{\"errors\":[{\"code\":\"%s\"", cases[i].code);
		assert_reply_has(&t.probe, code);
	}
	call(404, NULL, "GET /v2/here/blobs/%s", none);
	assert_reply_has(&t.probe, "BLOB_UNKNOWN");
	/* A blob is shown by the repositories that have it, and by no other. */
	struct kn_digest x = digest_of("x");
	call(404, NULL, "GET /v2/other/blobs/%s", x.text);
}

/* ---- uploads ------------------------------------------------------------------------------- */

static char *location(void)
{
	struct kn_view v = field("Location");

	assert_non_null(v.ptr);
	return strndup(v.ptr, v.len);
}

static void chunks_follow_each_other(void **state)
{
	struct kn_digest d = digest_of("firstsecondthird");

	(void)state;
	call(202, "", "POST /v2/a/blobs/uploads/");
	kn_auto(kn_free) char *at = location();
	call(202, "first", "PATCH %s\nContent-Range: 0-4", at);
	assert_field("Range", "0-4");
	/* Twice the same, a gap, nonsense: where to go on is told. */
	call(416, "first", "PATCH %s\nContent-Range: 0-4", at);
	assert_field("Range", "0-4");
	call(416, "third", "PATCH %s\nContent-Range: 11-15", at);
	call(416, "x", "PATCH %s\nContent-Range: what", at);
	call(400, "second", "PATCH %s\nContent-Range: 5-20", at);
	assert_reply_has(&t.probe, "SIZE_INVALID");
	call(204, NULL, "GET %s", at);
	assert_field("Range", "0-4");
	call(202, "second", "PATCH %s\nContent-Range: 5-10", at);
	call(400, "third", "PUT %s", at);
	assert_reply_has(&t.probe, "DIGEST_INVALID");
	call(201, "third", "PUT %s?digest=%s\nContent-Range: 11-15", at, d.text);
	call(404, NULL, "GET %s", at);
	call(200, NULL, "GET /v2/a/blobs/%s", d.text);
	assert_string_equal(t.probe.body, "firstsecondthird");
	assert_int_equal(kn_registry_uploads(t.registry), 0);
	assert_int_equal(files_in("store/tmp"), 0);
}

/* Its digest is checked by another algorithm than the one that ran along. */
static void digest_may_be_of_another_kind(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d;

	(void)state;
	assert_ok(kn_digest_of(KN_SHA512, "abc", 3, &d, &err), &err);
	call(202, "", "POST /v2/a/blobs/uploads/");
	kn_auto(kn_free) char *at = location();
	call(202, "ab", "PATCH %s", at);
	call(201, "c", "PUT %s?digest=%s", at, d.text);
	call(200, NULL, "GET /v2/a/blobs/%s", d.text);
	assert_string_equal(t.probe.body, "abc");
	call(201, "abc", "POST /v2/b/blobs/uploads/?digest=%s", d.text);
}

static void wrong_digest_keeps_nothing(void **state)
{
	struct kn_digest other = digest_of("other");

	(void)state;
	call(400, "this", "POST /v2/a/blobs/uploads/?digest=%s", other.text);
	assert_reply_has(&t.probe, "DIGEST_INVALID");
	call(202, "", "POST /v2/a/blobs/uploads/");
	kn_auto(kn_free) char *at = location();
	call(400, "this", "PUT %s?digest=%s", at, other.text);
	call(404, NULL, "GET %s", at);
	call(404, NULL, "HEAD /v2/a/blobs/%s", other.text);
	assert_int_equal(files_in("store/blobs/sha256"), 0);
	assert_int_equal(files_in("store/tmp"), 0);
	assert_int_equal(kn_registry_uploads(t.registry), 0);
}

/* More than the sockets hold: the loop must turn while it is sent. */
static void send_large(const char *text, size_t len)
{
	struct kn_err err = KN_ERR_INIT;
	int fd = kn_tcp_connect(t.probe.addr, &err);

	assert_ok(fd, &err);
	for (size_t at = 0; at < len;) {
		ssize_t n = send(fd, text + at, len - at, MSG_DONTWAIT | MSG_NOSIGNAL);
		assert_true(n > 0 || errno == EAGAIN);
		at += n > 0 ? (size_t)n : 0;
		kn_loop_once(t.loop, n > 0 ? 0 : 1);
	}
	probe_receive(&t.probe, fd);
}

static void too_large_a_blob_is_refused(void **state)
{
	const size_t bytes = (4 << 20) + 1;
	kn_auto(kn_free) char *text = malloc(bytes + 1);

	(void)state;
	memset(text, 'x', bytes);
	text[bytes] = '\0';
	struct kn_digest d = digest_of(text);
	call(413, NULL, "POST /v2/a/blobs/uploads/?digest=%s\nContent-Length: %zu", d.text, bytes);
	text[bytes - 1] = '\0';
	d = digest_of(text);
	kn_auto(kn_buf_fini) struct kn_buf request = KN_BUF_INIT;
	kn_buf_printf(&request, "POST /v2/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\n"
	              "Connection: close\r\nContent-Length: %zu\r\n\r\n%s", d.text, bytes - 1, text);
	send_large(request.ptr, request.len);
	assert_status(&t.probe, 201);
	/* In pieces that go through memory one by one. */
	call(200, NULL, "GET /v2/a/blobs/%s", d.text);
	assert_int_equal(strlen(t.probe.body), 4 << 20);
	assert_int_equal(files_in("store/tmp"), 0);
}

static void cancelled_and_abandoned_uploads_go(void **state)
{
	(void)state;
	call(202, "", "POST /v2/a/blobs/uploads/");
	kn_auto(kn_free) char *at = location();
	call(202, "some", "PATCH %s", at);
	assert_int_equal(files_in("store/tmp"), 1);
	call(204, NULL, "DELETE %s", at);
	assert_int_equal(files_in("store/tmp"), 0);
	call(404, "more", "PATCH %s", at);
	/* A session belongs to its repository. */
	call(202, "", "POST /v2/a/blobs/uploads/");
	kn_auto(kn_free) char *other = location();
	other[4] = 'b';
	call(404, "more", "PATCH %s", other);
	assert_int_equal(kn_registry_uploads(t.registry), 1);
}

static void only_so_many_uploads_at_once(void **state)
{
	(void)state;
	for (int i = 0; i < MAX_UPLOADS; i++)
		call(202, "", "POST /v2/a/blobs/uploads/");
	call(429, "", "POST /v2/a/blobs/uploads/");
	assert_reply_has(&t.probe, "TOOMANYREQUESTS");
	assert_field("Retry-After", "1");
}

/* A client that leaves in the middle can ask how far it came, and go on. */
static void broken_chunk_can_be_resumed(void **state)
{
	struct kn_digest d = digest_of("0123456789");
	char text[400];

	(void)state;
	call(202, "", "POST /v2/a/blobs/uploads/");
	kn_auto(kn_free) char *at = location();
	snprintf(text, sizeof(text), "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234", at);
	int fd = probe_send(&t.probe, text, strlen(text));
	for (int i = 0; i < 50; i++)
		kn_loop_once(t.loop, 1);
	close(fd);
	for (int i = 0; i < 50; i++)
		kn_loop_once(t.loop, 1);
	call(204, NULL, "GET %s", at);
	assert_field("Range", "0-4");
	call(202, "56789", "PATCH %s\nContent-Range: 5-9", at);
	call(201, "", "PUT %s?digest=%s", at, d.text);
	/* One that is a single request is gone with its client. */
	snprintf(text, sizeof(text), "POST /v2/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\n"
	         "Content-Length: 10\r\n\r\n01234", d.text);
	fd = probe_send(&t.probe, text, strlen(text));
	for (int i = 0; i < 50; i++)
		kn_loop_once(t.loop, 1);
	assert_int_equal(kn_registry_uploads(t.registry), 1);
	close(fd);
	for (int i = 0; i < 50; i++)
		kn_loop_once(t.loop, 1);
	assert_int_equal(kn_registry_uploads(t.registry), 0);
	assert_int_equal(files_in("store/tmp"), 0);
}

static void blob_is_mounted_from_where_it_is(void **state)
{
	(void)state;
	struct kn_digest d = push_blob("from", "shared");
	call(201, "", "POST /v2/to/blobs/uploads/?mount=%s&from=from", d.text);
	assert_field("Docker-Content-Digest", d.text);
	call(200, NULL, "GET /v2/to/blobs/%s", d.text);
	/* What cannot be mounted is uploaded. */
	call(202, "", "POST /v2/third/blobs/uploads/?mount=%s&from=nowhere", d.text);
	call(202, "", "POST /v2/third/blobs/uploads/?mount=%s", d.text);
	call(404, NULL, "GET /v2/third/blobs/%s", d.text);
}

static void blob_is_deleted_unless_a_manifest_names_it(void **state)
{
	(void)state;
	struct kn_digest d = push_blob("a", "alone"), kept = digest_of("kept");
	call(202, NULL, "DELETE /v2/a/blobs/%s", d.text);
	call(404, NULL, "DELETE /v2/a/blobs/%s", d.text);
	call(404, NULL, "GET /v2/a/blobs/%s", d.text);
	push("a", "1", "kept", "");
	call(405, NULL, "DELETE /v2/a/blobs/%s", kept.text);
	call(200, NULL, "GET /v2/a/blobs/%s", kept.text);
}

/* ---- manifests ----------------------------------------------------------------------------- */

static void manifests_are_checked(void **state)
{
	kn_auto(kn_free) char *good = manifest("a", "x", "");
	struct kn_digest other = digest_of("other");

	(void)state;
	call(400, "{", "PUT /v2/a/manifests/1\nContent-Type: " KN_TYPE_MANIFEST);
	assert_reply_has(&t.probe, "MANIFEST_INVALID");
	call(400, "", "PUT /v2/a/manifests/1\nContent-Type: " KN_TYPE_MANIFEST);
	call(400, good, "PUT /v2/a/manifests/1\nContent-Type: text/html");
	call(400, good, "PUT /v2/a/manifests/1\nContent-Type: " KN_TYPE_INDEX);
	call(400, good, "PUT /v2/a/manifests/%s\nContent-Type: " KN_TYPE_MANIFEST, other.text);
	assert_reply_has(&t.probe, "DIGEST_INVALID");
	call(413, NULL, "PUT /v2/a/manifests/1\nContent-Length: 4194305");
	assert_reply_has(&t.probe, "SIZE_INVALID");
	/* Its blobs are elsewhere. */
	call(400, good, "PUT /v2/b/manifests/1\nContent-Type: " KN_TYPE_MANIFEST);
	assert_reply_has(&t.probe, "MANIFEST_BLOB_UNKNOWN");
	call(404, NULL, "GET /v2/b/manifests/1");
	assert_string_equal(t.pushed, "");
	call(201, good, "PUT /v2/a/manifests/1\nContent-Type: " KN_TYPE_MANIFEST "; charset=utf-8");
	call(201, good, "PUT /v2/a/manifests/2");   /* it says itself what it is */
}

static void referrers_are_listed_and_filtered(void **state)
{
	kn_auto(kn_free) char *more = NULL;

	(void)state;
	struct kn_digest subject = push("a", "1", "it", "");
	assert_true(asprintf(&more, ",\"artifactType\":\"my/type\",\"annotations\":{\"k\":\"v\"},"
	                     "\"subject\":{\"mediaType\":\"" KN_TYPE_MANIFEST "\",\"digest\":\"%s\","
	                     "\"size\":3}", subject.text) > 0);
	call(200, NULL, "GET /v2/a/referrers/%s", subject.text);
	assert_reply_has(&t.probe, "\"manifests\":[]");
	struct kn_digest about = push("a", NULL, "signature", more);
	assert_field("OCI-Subject", subject.text);
	call(200, NULL, "GET /v2/a/referrers/%s", subject.text);
	assert_field("Content-Type", KN_TYPE_INDEX);
	assert_reply_has(&t.probe, about.text);
	assert_reply_has(&t.probe, "\"artifactType\":\"my/type\"");
	assert_reply_has(&t.probe, "\"annotations\":{\"k\":\"v\"}");
	call(200, NULL, "GET /v2/a/referrers/%s?artifactType=other", subject.text);
	assert_reply_has(&t.probe, "\"manifests\":[]");
	assert_field("OCI-Filters-Applied", "artifactType");
	call(200, NULL, "GET /v2/a/referrers/%s?artifactType=my%%2Ftype", subject.text);
	assert_reply_has(&t.probe, about.text);
}

static void tags_come_sorted_and_in_pages(void **state)
{
	static const char *const tags[] = { "b", "a", "c", "a.1" };

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(tags); i++)
		push("team/app", tags[i], "x", "");
	push("other", "1", "x", "");
	call(200, NULL, "GET /v2/team/app/tags/list");
	assert_reply_has(&t.probe, "{\"name\":\"team/app\",\"tags\":[\"a\",\"a.1\",\"b\",\"c\"]}");
	call(200, NULL, "GET /v2/team/app/tags/list?n=2");
	assert_reply_has(&t.probe, "[\"a\",\"a.1\"]");
	assert_field("Link", "</v2/team/app/tags/list?n=2&last=a.1>; rel=\"next\"");
	call(200, NULL, "GET /v2/team/app/tags/list?n=2&last=a.1");
	assert_reply_has(&t.probe, "[\"b\",\"c\"]");
	assert_null(field("Link").ptr);
	call(200, NULL, "GET /v2/team/app/tags/list?n=0");
	assert_reply_has(&t.probe, "\"tags\":[]");
	call(200, NULL, "GET /v2/team/app/tags/list?last=b");
	assert_reply_has(&t.probe, "[\"c\"]");
	call(200, NULL, "GET /v2/_catalog");
	assert_reply_has(&t.probe, "{\"repositories\":[\"other\",\"team/app\"]}");
	call(200, NULL, "GET /v2/_catalog?n=1");
	assert_field("Link", "</v2/_catalog?n=1&last=other>; rel=\"next\"");
}

static void tags_and_manifests_are_deleted(void **state)
{
	(void)state;
	struct kn_digest d = push("a", "1", "x", "");
	push("a", "2", "x", "");
	call(202, NULL, "DELETE /v2/a/manifests/1");
	call(404, NULL, "GET /v2/a/manifests/1");
	call(200, NULL, "GET /v2/a/manifests/2");
	t.user = "telemetry";
	call(409, NULL, "DELETE /v2/a/manifests/%s", d.text);
	assert_reply_has(&t.probe, "used by function 'telemetry'");
	call(409, NULL, "DELETE /v2/a/manifests/2");
	t.user = NULL;
	call(202, NULL, "DELETE /v2/a/manifests/2");
	/* Without a tag it can be asked for by its digest, for a while. */
	call(200, NULL, "GET /v2/a/manifests/%s", d.text);
	call(202, NULL, "DELETE /v2/a/manifests/%s", d.text);
	call(404, NULL, "GET /v2/a/manifests/%s", d.text);
	assert_int_equal(files_in("store/blobs/sha256"), 0);
}

/* ---- callers ------------------------------------------------------------------------------- */

static void who_may_only_read_does_not_write(void **state)
{
	(void)state;
	struct kn_digest d = push("a", "1", "x", "");
	t.readers_only = true;
	call(200, NULL, "GET /v2/a/manifests/1");
	call(403, "", "POST /v2/a/blobs/uploads/");
	call(403, "x", "POST /v2/a/blobs/uploads/?digest=%s", d.text);
	call(403, "{}", "PUT /v2/a/manifests/2");
	call(403, NULL, "DELETE /v2/a/manifests/1");
	call(403, NULL, "DELETE /v2/a/blobs/%s", d.text);
	assert_int_equal(kn_registry_uploads(t.registry), 0);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_are_taken_apart_from_their_end),
		cmocka_unit_test(names_and_tags_follow_the_grammar),
		cmocka_unit_test(ranges_are_read_as_rfc_9110_says),
		test(what_is_pushed_can_be_pulled),
		test(parts_of_a_blob_can_be_pulled),
		test(what_is_not_there_is_told_by_code),
		test(chunks_follow_each_other),
		test(digest_may_be_of_another_kind),
		test(wrong_digest_keeps_nothing),
		test(too_large_a_blob_is_refused),
		test(cancelled_and_abandoned_uploads_go),
		test(only_so_many_uploads_at_once),
		test(broken_chunk_can_be_resumed),
		test(blob_is_mounted_from_where_it_is),
		test(blob_is_deleted_unless_a_manifest_names_it),
		test(manifests_are_checked),
		test(referrers_are_listed_and_filtered),
		test(tags_come_sorted_and_in_pages),
		test(tags_and_manifests_are_deleted),
		test(who_may_only_read_does_not_write),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
