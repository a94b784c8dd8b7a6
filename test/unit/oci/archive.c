#include "oci/archive.h"

#include <zlib.h>

#include "oci/fixture.h"

/*
 * Archives are made from documents in memory; a blob's name in the archive is what the test says,
 * so that it may lie.
 */
#define MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"

static struct kn_blobs *blobs;
static struct kn_arena arena;

static int setup(void **state)
{
	kn_arena_init(&arena);
	if (fixture_setup(state) < 0)
		return -1;
	return kn_blobs_open(fixture_path("store"), &blobs, NULL);
}

static int teardown(void **state)
{
	kn_blobs_close(blobs);
	kn_arena_fini(&arena);
	return fixture_teardown(state);
}

/* ---- making archives ----------------------------------------------------------------------- */

struct blob {
	char *text;
	struct kn_digest digest;
};

static struct blob blob_of(char *text)
{
	struct blob b = { .text = text };

	assert_non_null(text);
	assert_int_equal(kn_digest_of(KN_SHA256, text, strlen(text), &b.digest, NULL), 0);
	return b;
}

static void add_file(struct kn_buf *tar, const char *name, const char *text)
{
	tar_add(tar, &(struct tar_entry){ .name = name, .data = text, .len = strlen(text) });
}

static void add_blob(struct kn_buf *tar, const struct blob *b)
{
	char name[128];

	snprintf(name, sizeof(name), "blobs/sha256/%s", kn_digest_hex(&b->digest));
	add_file(tar, name, b->text);
}

struct image {
	struct blob layer, config, manifest;
};

static struct image image_of(const char *architecture)
{
	struct image i;

	i.layer = blob_of(kn_arena_printf(&arena, "layer for %s", architecture));
	i.config = blob_of(kn_arena_printf(
		&arena,
		"{\"architecture\":\"%s\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\","
		"\"diff_ids\":[\"%s\"]}}",
		architecture, i.layer.digest.text));
	i.manifest = blob_of(kn_arena_printf(
		&arena,
		"{\"schemaVersion\":2,\"config\":{\"mediaType\":\"%s\",\"digest\":\"%s\","
		"\"size\":%zu},\"layers\":[{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu}]}",
		KN_TYPE_CONFIG, i.config.digest.text, strlen(i.config.text), KN_TYPE_LAYER,
		i.layer.digest.text, strlen(i.layer.text)));
	return i;
}

static void add_image(struct kn_buf *tar, const struct image *i)
{
	add_blob(tar, &i->layer);
	add_blob(tar, &i->config);
	add_blob(tar, &i->manifest);
}

/* An index entry; name and platform may be NULL. */
static char *entry(const char *type, const struct blob *b, const char *name, const char *platform)
{
	return kn_arena_printf(&arena,
	                       "{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu%s%s%s%s%s%s}",
	                       type, b->digest.text, strlen(b->text),
	                       name ? ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"" : "",
	                       name ? name : "", name ? "\"}" : "",
	                       platform ? ",\"platform\":{\"os\":\"linux\",\"architecture\":\"" : "",
	                       platform ? platform : "", platform ? "\"}" : "");
}

static char *index_of(const char *entries)
{
	return kn_arena_printf(&arena, "{\"schemaVersion\":2,\"manifests\":[%s]}", entries);
}

static void finish(struct kn_buf *tar, const char *index)
{
	add_file(tar, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
	add_file(tar, "index.json", index);
	tar_end(tar);
	assert_false(tar->failed);
}

static int read_config(struct kn_archive_config config, struct kn_archive_image *ret,
                       struct kn_err *err)
{
	return kn_archive_read(blobs, &config, &arena, ret, err);
}

static int read_tar(struct kn_view tar, const char *pick, struct kn_archive_image *ret,
                    struct kn_err *err)
{
	kn_auto(kn_close) int fd = fixture_fd(tar.ptr, tar.len);
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;

	config.fd = fd;
	config.pick = pick;
	return read_config(config, ret, err);
}

static void gzip_of(struct kn_view in, struct kn_buf *out)
{
	z_stream z = { 0 };

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_true(kn_buf_reserve(out, in.len + 1024));
	z.next_in = (unsigned char *)(uintptr_t)in.ptr;
	z.avail_in = (unsigned)in.len;
	z.next_out = (unsigned char *)out->ptr;
	z.avail_out = (unsigned)(in.len + 1024);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	out->len = z.total_out;
	deflateEnd(&z);
}

/* ---- what is taken ------------------------------------------------------------------------- */

static void image_of_one_platform_is_taken(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct image i = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	add_image(&tar, &i);
	finish(&tar, index_of(entry(MANIFEST_TYPE, &i.manifest, "x:1", NULL)));
	assert_ok(read_tar(kn_buf_view(&tar), NULL, &got, &err), &err);
	assert_string_equal(got.manifest.digest.text, i.manifest.digest.text);
	assert_string_equal(got.name, "x:1");
	assert_true(kn_blob_has(blobs, &i.layer.digest));
	assert_true(kn_blob_has(blobs, &i.config.digest));
}

static void compressed_archive_reads_the_same(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf gz = KN_BUF_INIT;
	struct image i = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	finish(&tar, index_of(entry(MANIFEST_TYPE, &i.manifest, NULL, "amd64")));
	tar.len -= 1024;                  /* the blobs come after the index: order is free */
	add_image(&tar, &i);
	tar_end(&tar);
	gzip_of(kn_buf_view(&tar), &gz);
	assert_ok(read_tar(kn_buf_view(&gz), NULL, &got, &err), &err);
	assert_string_equal(got.manifest.digest.text, i.manifest.digest.text);
	assert_null(got.name);
}

static void amd64_is_chosen_among_platforms(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct image arm = image_of("arm64"), amd = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	/* Nested index, as `buildah manifest push --all` writes it; arm64's blobs are left out. */
	struct blob nested = blob_of(index_of(
		kn_arena_printf(&arena, "%s,%s", entry(MANIFEST_TYPE, &arm.manifest, NULL, "arm64"),
	                        entry(MANIFEST_TYPE, &amd.manifest, NULL, "amd64"))));
	add_blob(&tar, &nested);
	add_image(&tar, &amd);
	finish(&tar, index_of(entry(KN_TYPE_INDEX, &nested, "multi:2", NULL)));
	assert_ok(read_tar(kn_buf_view(&tar), NULL, &got, &err), &err);
	assert_string_equal(got.manifest.digest.text, amd.manifest.digest.text);
	assert_string_equal(got.name, "multi:2");
}

static void several_names_need_a_choice(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct image a = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	struct blob other = blob_of(kn_arena_printf(&arena, " %s", a.manifest.text));
	add_image(&tar, &a);
	add_blob(&tar, &other);
	finish(&tar, index_of(kn_arena_printf(
			     &arena, "%s,%s", entry(MANIFEST_TYPE, &a.manifest, "a:1", NULL),
			     entry(MANIFEST_TYPE, &other, "b:1", NULL))));
	assert_fails(read_tar(kn_buf_view(&tar), NULL, &got, &err), EINVAL, &err, "a:1, b:1");
	assert_fails(read_tar(kn_buf_view(&tar), "c:1", &got, &err), EINVAL, &err, "no image 'c:1'");
	assert_ok(read_tar(kn_buf_view(&tar), "b:1", &got, &err), &err);
	assert_string_equal(got.manifest.digest.text, other.digest.text);
}

static void layout_folder_is_taken(void **state)
{
	struct image i = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;
	const struct blob *all[] = { &i.layer, &i.config, &i.manifest };

	(void)state;
	assert_ok(kn_mkdirs(AT_FDCWD, fixture_path("in/blobs/sha256"), 0700, &err), &err);
	for (size_t k = 0; k < KN_ARRAY_LEN(all); k++) {
		char name[160];
		snprintf(name, sizeof(name), "in/blobs/sha256/%s", kn_digest_hex(&all[k]->digest));
		fixture_write(name, all[k]->text, strlen(all[k]->text));
	}
	char *index = index_of(entry(MANIFEST_TYPE, &i.manifest, "d:1", NULL));
	fixture_write("in/index.json", index, strlen(index));
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;
	config.path = fixture_path("in");
	assert_ok(read_config(config, &got, &err), &err);
	assert_string_equal(got.name, "d:1");
	assert_true(kn_blob_has(blobs, &i.layer.digest));
}

/* The folder is hostile too: a blob that is a link must not make a host file ours. */
static void layout_links_do_not_leave_the_folder(void **state)
{
	struct image i = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;
	char name[160];

	(void)state;
	assert_ok(kn_mkdirs(AT_FDCWD, fixture_path("in/blobs/sha256"), 0700, &err), &err);
	fixture_write("secret", i.manifest.text, strlen(i.manifest.text));
	snprintf(name, sizeof(name), "in/blobs/sha256/%s", kn_digest_hex(&i.manifest.digest));
	assert_int_equal(symlink(fixture_path("secret"), fixture_path(name)), 0);
	char *index = index_of(entry(MANIFEST_TYPE, &i.manifest, "d:1", NULL));
	fixture_write("in/index.json", index, strlen(index));
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;
	config.path = fixture_path("in");
	assert_fails(read_config(config, &got, &err), EBADMSG, &err, "is missing");
}

static void docker_save_is_taken(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct image i = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	/* The layer is named through the link that docker writes for the old format. */
	add_file(&tar, "0123.tar", i.layer.text);
	tar_add(&tar, &(struct tar_entry){ .name = "4567/layer.tar", .type = '2',
	                                   .link = "../0123.tar" });
	add_file(&tar, "4567/VERSION", "1.0");
	add_file(&tar, "89ab.json", i.config.text);
	add_file(&tar, "manifest.json",
	         "[{\"Config\":\"89ab.json\",\"RepoTags\":[\"dock:3\"],"
	         "\"Layers\":[\"4567/layer.tar\"]}]");
	tar_end(&tar);
	assert_ok(read_tar(kn_buf_view(&tar), NULL, &got, &err), &err);
	assert_string_equal(got.name, "dock:3");

	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_manifest m;
	assert_ok(kn_blob_read(blobs, &got.manifest.digest, 4096, &text, &err), &err);
	assert_ok(kn_spec_manifest(kn_buf_view(&text), &arena, &m, &err), &err);
	assert_string_equal(m.config.digest.text, i.config.digest.text);
	assert_string_equal(m.layers[0].digest.text, i.layer.digest.text);
	assert_string_equal(m.layers[0].media_type, KN_TYPE_LAYER);
}

/* ---- what is refused ----------------------------------------------------------------------- */

static void other_architecture_is_named(void **state)
{
	struct image i = image_of("arm64");
	struct kn_archive_image got;

	(void)state;
	/* Once where the index says it, once where only the config does. */
	for (int said = 0; said < 2; said++) {
		kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
		struct kn_err err = KN_ERR_INIT;
		add_image(&tar, &i);
		finish(&tar, index_of(entry(MANIFEST_TYPE, &i.manifest, "x:1",
		                            said ? "arm64" : NULL)));
		assert_fails(read_tar(kn_buf_view(&tar), NULL, &got, &err), ENOEXEC, &err,
		             "linux/arm64; this node runs linux/amd64");
	}
}

static void wrong_digest_is_refused_and_not_kept(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct image i = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	struct blob lie = { (char *)(uintptr_t) "other content", i.layer.digest };
	add_blob(&tar, &lie);
	add_blob(&tar, &i.config);
	add_blob(&tar, &i.manifest);
	finish(&tar, index_of(entry(MANIFEST_TYPE, &i.manifest, "x:1", NULL)));
	assert_fails(read_tar(kn_buf_view(&tar), NULL, &got, &err), EBADMSG, &err,
	             "must have the digest");
	assert_false(kn_blob_has(blobs, &i.layer.digest));
}

static void wrong_size_is_refused(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct image i = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	add_image(&tar, &i);
	struct blob lie = i.manifest;
	lie.text = kn_arena_printf(&arena, "%s ", i.manifest.text);   /* one byte more */
	finish(&tar, index_of(entry(MANIFEST_TYPE, &lie, "x:1", NULL)));
	assert_fails(read_tar(kn_buf_view(&tar), NULL, &got, &err), EBADMSG, &err,
	             "its descriptor says");
}

static void missing_layer_is_refused(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct image i = image_of("amd64");
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	add_blob(&tar, &i.config);
	add_blob(&tar, &i.manifest);
	finish(&tar, index_of(entry(MANIFEST_TYPE, &i.manifest, "x:1", NULL)));
	assert_fails(read_tar(kn_buf_view(&tar), NULL, &got, &err), EBADMSG, &err,
	             "layer 1 of 1: blob sha256:");
}

/* Cut at every length: never a crash, never an image, always a reason. */
static void truncated_archives_are_refused(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf gz = KN_BUF_INIT;
	struct image i = image_of("amd64");
	struct kn_archive_image got;

	(void)state;
	add_image(&tar, &i);
	finish(&tar, index_of(entry(MANIFEST_TYPE, &i.manifest, "x:1", NULL)));
	gzip_of(kn_buf_view(&tar), &gz);
	size_t whole = tar.len - 1024 - 512;     /* up to the last header's content */
	for (size_t len = 0; len < whole; len += 97) {
		struct kn_err err = KN_ERR_INIT;
		int r = read_tar((struct kn_view){ tar.ptr, len }, NULL, &got, &err);
		if (r >= 0)
			fail_msg("taken at %zu of %zu bytes", len, tar.len);
		assert_true(err.text[0] && (r == -EBADMSG || r == -EINVAL));
	}
	for (size_t len = 0; len + 64 < gz.len; len += 31) {
		struct kn_err err = KN_ERR_INIT;
		int r = read_tar((struct kn_view){ gz.ptr, len }, NULL, &got, &err);
		if (r >= 0)
			fail_msg("taken at %zu of %zu compressed bytes", len, gz.len);
	}
}

static void what_is_no_image_is_told(void **state)
{
	static const struct {
		const char *name, *text, *says;
	} cases[] = {
		{ NULL, "hello, I am no archive at all, just text", "not an image" },
		{ "readme", "x", "neither index.json" },
		{ "index.json", "{}", "schemaVersion" },
		{ "index.json", "{\"schemaVersion\":2,\"manifests\":[]}", "names no image" },
		{ "manifest.json", "[]", "no image" },
		{ "manifest.json", "{}", "must be an array" },
		{ "manifest.json", "[{\"Config\":\"x.json\",\"Layers\":[]}]", "is missing" },
		{ "manifest.json", "[{\"Config\":7,\"Layers\":[]}]", "must be a string" },
		{ "oci-layout", "{\"imageLayoutVersion\":\"2.0.0\"}", "not known" },
	};
	struct kn_archive_image got;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
		struct kn_err err = KN_ERR_INIT;
		if (cases[i].name) {
			add_file(&tar, cases[i].name, cases[i].text);
			tar_end(&tar);
		} else {
			kn_buf_adds(&tar, cases[i].text);
		}
		int r = read_tar(kn_buf_view(&tar), NULL, &got, &err);
		assert_true(r < 0);
		if (!strstr(err.text, cases[i].says))
			fail_msg("'%s' does not say '%s'", err.text, cases[i].says);
	}
}

static void index_that_nests_for_ever_is_refused(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	struct blob inner = blob_of(index_of(""));
	add_blob(&tar, &inner);
	for (int i = 0; i < 6; i++) {
		inner = blob_of(index_of(entry(KN_TYPE_INDEX, &inner, NULL, NULL)));
		add_blob(&tar, &inner);
	}
	finish(&tar, inner.text);
	assert_fails(read_tar(kn_buf_view(&tar), NULL, &got, &err), EINVAL, &err, "nested");
}

static void archive_bytes_have_a_limit(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct image i = image_of("amd64");
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;

	(void)state;
	add_image(&tar, &i);
	finish(&tar, index_of(entry(MANIFEST_TYPE, &i.manifest, "x:1", NULL)));
	kn_auto(kn_close) int fd = fixture_fd(tar.ptr, tar.len);
	config.fd = fd;
	config.max_bytes = 100;
	assert_fails(read_config(config, &got, &err), EFBIG, &err, "more than 100 bytes");
}

static bool say_no(const char *phase, uint64_t bytes, uint64_t total, void *arg)
{
	(void)phase;
	(void)bytes;
	(void)total;
	(*(int *)arg)++;
	return false;
}

static void import_can_be_cancelled(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct image i = image_of("amd64");
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;
	struct kn_archive_image got;
	int asked = 0;
	struct kn_progress progress = { say_no, &asked };

	(void)state;
	add_image(&tar, &i);
	finish(&tar, index_of(entry(MANIFEST_TYPE, &i.manifest, "x:1", NULL)));
	kn_auto(kn_close) int fd = fixture_fd(tar.ptr, tar.len);
	config.fd = fd;
	config.progress = &progress;
	assert_fails(read_config(config, &got, &err), ECANCELED, &err, "cancelled");
	assert_int_equal(asked, 1);
	assert_int_equal(fixture_count(fixture_path("store/tmp")), 0);
}

/* ---- writing ------------------------------------------------------------------------------- */

static void pack(const struct kn_pack *p, struct kn_buf *out, struct kn_digest *ret)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_close) int fd = fixture_fd("", 0);

	assert_ok(kn_archive_write(fd, p, ret, &err), &err);
	assert_true(lseek(fd, 0, SEEK_SET) == 0);
	assert_true(kn_buf_reserve(out, 1 << 20));
	ssize_t n = kn_read_all(fd, out->ptr, 1 << 20);
	assert_true(n > 0);
	out->len = (size_t)n;
}

static void written_archive_reads_back(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf plain = KN_BUF_INIT, gz = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf once = KN_BUF_INIT, again = KN_BUF_INIT;
	kn_auto(json_decref) json_t *config =
		json_pack("{s:s, s:s}", "architecture", "amd64", "os", "linux");
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest digest, same, diff_id;
	struct kn_archive_image got;

	(void)state;
	add_file(&plain, "etc/hello", "hello");
	tar_end(&plain);
	gzip_of(kn_buf_view(&plain), &gz);
	kn_auto(kn_close) int a = fixture_fd(plain.ptr, plain.len);
	kn_auto(kn_close) int b = fixture_fd(gz.ptr, gz.len);
	struct kn_pack_layer layers[] = { { KN_TYPE_LAYER, a }, { KN_TYPE_LAYER_GZIP, b } };
	struct kn_pack p = { .reference = "packed", .config_type = KN_TYPE_CONFIG, .config = config,
		             .layers = layers, .n_layers = 2 };
	pack(&p, &once, &digest);
	pack(&p, &again, &same);
	assert_true(kn_digest_is(&digest, &same));
	assert_int_equal(once.len, again.len);
	assert_memory_equal(once.ptr, again.ptr, once.len);

	assert_ok(read_tar(kn_buf_view(&once), NULL, &got, &err), &err);
	assert_string_equal(got.name, "packed:latest");
	assert_true(kn_digest_is(&got.manifest.digest, &digest));

	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT, config_text = KN_BUF_INIT;
	struct kn_manifest m;
	struct kn_image_config c;
	assert_ok(kn_blob_read(blobs, &digest, 4096, &text, &err), &err);
	assert_ok(kn_spec_manifest(kn_buf_view(&text), &arena, &m, &err), &err);
	assert_ok(kn_blob_read(blobs, &m.config.digest, 4096, &config_text, &err), &err);
	assert_ok(kn_spec_config(kn_buf_view(&config_text), &arena, &c, &err), &err);
	assert_int_equal(c.n_diff_ids, 2);
	assert_ok(kn_digest_of(KN_SHA256, plain.ptr, plain.len, &diff_id, &err), &err);
	assert_string_equal(c.diff_ids[0].text, diff_id.text);
	assert_string_equal(c.diff_ids[1].text, diff_id.text);
}

static void bare_archive_reads_back(void **state)
{
	kn_auto(kn_close) int elf = fixture_fd("\x7f" "ELF...", 7);
	kn_auto(kn_close) int out = fixture_fd("", 0);
	kn_auto(json_decref) json_t *labels = json_pack("{s:s}", "made-by", "test");
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest digest;
	struct kn_archive_image got;
	struct kn_manifest m;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	(void)state;
	assert_ok(kn_archive_write_bare(out, "denoise:1", elf, labels, &digest, &err), &err);
	config.fd = out;                 /* stands at its end: it is read from its start */
	assert_ok(read_config(config, &got, &err), &err);
	assert_string_equal(got.name, "denoise:1");
	assert_ok(kn_blob_read(blobs, &got.manifest.digest, 4096, &text, &err), &err);
	assert_ok(kn_spec_manifest(kn_buf_view(&text), &arena, &m, &err), &err);
	assert_true(kn_manifest_is_bare(&m));
	assert_string_equal(m.layers[0].media_type, KN_TYPE_BARE_ELF);
	assert_int_equal(m.layers[0].bytes, 7);
}

static void writer_refuses_what_it_cannot_name(void **state)
{
	kn_auto(json_decref) json_t *config = json_object();
	kn_auto(kn_close) int out = fixture_fd("", 0);
	struct kn_pack p = { .reference = "Bad Name", .config_type = KN_TYPE_CONFIG, .config = config };
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d;

	(void)state;
	assert_fails(kn_archive_write(out, &p, &d, &err), EINVAL, &err, "not a name");
	p = (struct kn_pack){ .reference = "a" };
	assert_fails(kn_archive_write(out, &p, &d, &err), EINVAL, &err, "needs a config");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(image_of_one_platform_is_taken),
		test(compressed_archive_reads_the_same),
		test(amd64_is_chosen_among_platforms),
		test(several_names_need_a_choice),
		test(layout_folder_is_taken),
		test(layout_links_do_not_leave_the_folder),
		test(docker_save_is_taken),
		test(other_architecture_is_named),
		test(wrong_digest_is_refused_and_not_kept),
		test(wrong_size_is_refused),
		test(missing_layer_is_refused),
		test(truncated_archives_are_refused),
		test(what_is_no_image_is_told),
		test(index_that_nests_for_ever_is_refused),
		test(archive_bytes_have_a_limit),
		test(import_can_be_cancelled),
		test(written_archive_reads_back),
		test(bare_archive_reads_back),
		test(writer_refuses_what_it_cannot_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
