#include "oci/image.h"

#include <dirent.h>
#include <elf.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

#include "base/time.h"
#include "oci/fixture.h"

/* ---- archives and stores ------------------------------------------------------------------- */

static struct kn_images *open_with(const char *mkfs)
{
	struct kn_images_config config = KN_IMAGES_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;
	struct kn_images *images = NULL;

	config.dir = fixture_path("store");
	config.mkfs = mkfs;
	assert_ok(kn_images_open(&config, &images, &err), &err);
	return images;
}

static struct kn_images *open_store(void)
{
	return open_with(NULL);
}

static json_t *config_json(void)
{
	return json_pack("{s:s, s:s, s:s, s:{s:[s], s:[s,s], s:[s,s,s], s:s, s:s, s:{s:{}, s:{}, s:{}},"
	                 " s:{s:s}}}",
	                 "architecture", "amd64", "os", "linux", "created", "2026-01-02T03:04:05Z",
	                 "config", "Entrypoint", "/bin/app", "Cmd", "-p", "8080", "Env", "PATH=/bin",
	                 "NOVALUE", "A=b=c", "WorkingDir", "srv", "User", "app", "ExposedPorts",
	                 "8080/tcp", "53/udp", "443", "Labels", "made", "here");
}

/* An archive with one layer that holds one file. */
static int archive_fd(const char *name, const char *text)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	kn_auto(json_decref) json_t *config = config_json();
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d;

	assert_non_null(config);
	tar_add(&tar, &(struct tar_entry){ .name = "etc/text", .data = text, .len = strlen(text),
	                                   .uid = 1000, .mtime = 1234567 });
	tar_add(&tar, &(struct tar_entry){ .name = "etc/link", .type = '2', .link = "text" });
	tar_add(&tar, &(struct tar_entry){ .name = "bin/app", .data = "#!", .len = 2, .mode = 04755 });
	tar_end(&tar);
	kn_auto(kn_close) int layer = fixture_fd(tar.ptr, tar.len);
	struct kn_pack_layer layers[] = { { KN_TYPE_LAYER, layer } };
	struct kn_pack pack = { .reference = name, .config_type = KN_TYPE_CONFIG, .config = config,
		                .layers = layers, .n_layers = 1 };
	int fd = fixture_fd("", 0);
	assert_ok(kn_archive_write(fd, &pack, &d, &err), &err);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static struct kn_image *import(struct kn_images *images, const char *name, const char *text)
{
	struct kn_images_import what = { .fd = archive_fd(name, text) };
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *image = NULL;

	assert_ok(kn_images_import(images, &what, &image, &err), &err);
	kn_close(what.fd);
	return image;
}

static int blob_count(void)
{
	return fixture_count(fixture_path("store/blobs/sha256"));
}

static int left_in_tmp(void)
{
	return fixture_count(fixture_path("store/tmp"));
}

/* ---- describing and finding ---------------------------------------------------------------- */

static void image_is_described(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *i = import(images, "app:1", "x");

	(void)state;
	assert_string_equal(i->reference, "app:1");
	assert_int_equal(i->kind, KN_IMAGE_CONTAINER);
	assert_string_equal(kn_image_kind_name(i->kind), "container");
	assert_string_equal(i->argv[0], "/bin/app");
	assert_string_equal(i->argv[2], "8080");
	assert_null(i->argv[3]);
	assert_string_equal(i->env[0], "PATH=/bin");
	assert_string_equal(i->env[1], "A=b=c");
	assert_null(i->env[2]);
	assert_string_equal(i->cwd, "/srv");
	assert_string_equal(i->user, "app");
	assert_string_equal(i->stop_signal, "SIGTERM");
	assert_string_equal(i->created, "2026-01-02T03:04:05Z");
	assert_int_equal(i->n_ports, 2);
	assert_int_equal(i->ports[0], 443);
	assert_int_equal(i->ports[1], 8080);
	assert_string_equal(kn_spec_pair(&i->labels, "made"), "here");
	assert_true(i->bytes > 2048);
}

static void image_is_found_by_name_and_by_digest(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *i = import(images, "telemetry", "x");
	struct kn_err err = KN_ERR_INIT;
	char with_digest[300], both[300];
	struct kn_image *got = NULL;

	(void)state;
	snprintf(with_digest, sizeof(with_digest), "telemetry@%s", i->digest.text);
	snprintf(both, sizeof(both), "telemetry:latest@%s", i->digest.text);
	const char *names[] = { "telemetry", "telemetry:latest", i->digest.text, with_digest, both };
	for (size_t k = 0; k < KN_ARRAY_LEN(names); k++) {
		assert_ok(kn_images_find(images, kn_view_of(names[k]), &got, &err), &err);
		assert_ptr_equal(got, i);
		kn_image_unref(got);
	}
	assert_fails(kn_images_find(images, KN_VIEW("telemetri"), &got, &err), ENOENT, &err,
	             "did you mean 'telemetry:latest'");
	assert_fails(kn_images_find(images, KN_VIEW("telemetry:2"), &got, &err), ENOENT, &err,
	             "kiln image import");
	assert_fails(kn_images_find(images, KN_VIEW("Bad Name"), &got, &err), EINVAL, &err, "not a");
	with_digest[strlen(with_digest) - 1] ^= 1;
	assert_fails(kn_images_find(images, kn_view_of(with_digest), &got, &err), ENOENT, &err, "no");
}

static void list_is_sorted_and_survives_reopening(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	kn_image_unref(import(images, "b:1", "b"));
	kn_image_unref(import(images, "c:1", "c"));
	kn_image_unref(import(images, "a:1", "a"));
	for (int reopened = 0; reopened < 2; reopened++) {
		__attribute__((cleanup(kn_image_list_fini_auto))) struct kn_image_list l = { 0 };
		assert_ok(kn_images_list(images, &l, &err), &err);
		assert_int_equal(l.n, 3);
		assert_string_equal(l.at[0]->reference, "a:1");
		assert_string_equal(l.at[2]->reference, "c:1");
		assert_string_equal(l.at[2]->argv[1], "-p");
		kn_images_close(kn_take_ptr(images));
		images = open_store();
		assert_null(kn_images_trouble(images));
	}
}

/* ---- importing ----------------------------------------------------------------------------- */

static void name_is_needed(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_close) int fd = archive_fd(NULL, "x");
	struct kn_images_import what = { .fd = fd };
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *image = NULL;

	(void)state;
	assert_fails(kn_images_import(images, &what, &image, &err), EINVAL, &err, "no name");
	assert_int_equal(blob_count(), 0);
	what.name = "x@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	assert_fails(kn_images_import(images, &what, &image, &err), EINVAL, &err, "name and a tag");
	what.name = "given";
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_ok(kn_images_import(images, &what, &image, &err), &err);
	assert_string_equal(image->reference, "given:latest");
	kn_image_unref(image);
}

static void new_image_takes_the_name_and_old_blobs_go(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();

	(void)state;
	kn_image_unref(import(images, "a:1", "old"));
	assert_int_equal(blob_count(), 3);
	kn_image_unref(import(images, "a:1", "new"));
	assert_int_equal(blob_count(), 3);
}

/* A function that is deployed, or just being started, holds its image. */
static void old_image_keeps_its_files_while_it_is_held(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *old = import(images, "a:1", "old");
	kn_auto(kn_image_unref) struct kn_image *new = NULL;
	kn_auto(kn_free) char *path = NULL, *again = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	kn_fake_clock(KN_NS_PER_S, KN_NS_PER_S);
	new = import(images, "a:1", "new");
	assert_false(kn_digest_is(&old->digest, &new->digest));
	assert_int_equal(blob_count(), 6);
	/* Its root file system can even be built, or built again, now that the name is another's. */
	assert_ok(kn_images_rootfs(images, old, NULL, &path, &err), &err);
	kn_image_unref(import(images, "b:1", "other"));
	assert_ok(kn_images_rootfs(images, old, NULL, &again, &err), &err);
	assert_string_equal(path, again);
	assert_int_equal(access(path, R_OK), 0);
	assert_true(kn_images_untidy(images));

	/* An instance may still be starting from the files: they stay a minute longer. */
	kn_image_unref(kn_take_ptr(old));
	kn_images_sweep(images);
	kn_fake_advance(59 * KN_NS_PER_S);
	kn_images_sweep(images);
	assert_int_equal(access(path, R_OK), 0);
	kn_fake_advance(2 * KN_NS_PER_S);
	kn_images_sweep(images);
	assert_int_equal(access(path, R_OK), -1);
	assert_int_equal(blob_count(), 6);   /* new and other */
	assert_false(kn_images_untidy(images));
	kn_real_clock();
}

static void failed_import_leaves_nothing(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_close) int fd = archive_fd("a:1", "x");
	struct kn_images_import what = { .fd = fd };
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *image = NULL;

	(void)state;
	assert_int_equal(ftruncate(fd, 5000), 0);
	assert_fails(kn_images_import(images, &what, &image, &err), EBADMSG, &err, "");
	assert_int_equal(blob_count(), 0);
	assert_int_equal(left_in_tmp(), 0);
	what.path = "/nonexistent/archive";
	assert_fails(kn_images_import(images, &what, &image, &err), ENOENT, &err, "/nonexistent");
}

/* ---- removing ------------------------------------------------------------------------------ */

static const char *used_by_telemetry(const struct kn_image *image, void *arg)
{
	assert_string_equal(image->reference, "b:1");
	(*(int *)arg)++;
	return "telemetry";
}

static void used_image_is_not_removed(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	struct kn_err err = KN_ERR_INIT;
	int asked = 0;

	(void)state;
	kn_image_unref(import(images, "a:1", "same"));
	kn_image_unref(import(images, "b:1", "same"));
	/* While another name keeps the image, nobody is asked. */
	assert_ok(kn_images_remove(images, KN_VIEW("a:1"), used_by_telemetry, &asked, &err), &err);
	assert_int_equal(asked, 0);
	assert_fails(kn_images_remove(images, KN_VIEW("b:1"), used_by_telemetry, &asked, &err), EBUSY,
	             &err, "used by function 'telemetry'");
	assert_int_equal(asked, 1);
	assert_int_equal(blob_count(), 3);
	assert_ok(kn_images_remove(images, KN_VIEW("b:1"), NULL, NULL, &err), &err);
	assert_int_equal(blob_count(), 0);
	assert_fails(kn_images_remove(images, KN_VIEW("b:1"), NULL, NULL, &err), ENOENT, &err, "b:1");
}

static void root_file_system_goes_with_its_image(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *i = import(images, "a:1", "x");
	kn_auto(kn_free) char *path = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_images_rootfs(images, i, NULL, &path, &err), &err);
	assert_int_equal(access(path, R_OK), 0);
	kn_image_unref(kn_take_ptr(i));
	assert_ok(kn_images_remove(images, KN_VIEW("a:1"), NULL, NULL, &err), &err);
	assert_int_equal(fixture_count(fixture_path("store/rootfs")), 0);
}

/* ---- repositories -------------------------------------------------------------------------- */

#define REPO KN_VIEW("team/app")

/* A blob as the registry takes one in. */
static struct kn_digest push_blob(struct kn_images *images, struct kn_view repository,
                                  const char *text)
{
	struct kn_blobs *blobs = kn_images_blobs(images);
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d, is;

	assert_ok(kn_digest_of(KN_SHA256, text, strlen(text), &d, &err), &err);
	assert_ok(kn_images_pin(images, repository, &d, &err), &err);
	assert_ok(kn_blob_put(blobs, text, strlen(text), &is, &err), &err);
	assert_true(kn_digest_is(&d, &is));
	return d;
}

static char *manifest_text(const char *config_type, const struct kn_digest *config,
                           const struct kn_digest *layer, const char *more)
{
	char *text;

	assert_true(asprintf(&text,
	                     "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"%s\","
	                     "\"digest\":\"%s\",\"size\":2},\"layers\":[{\"mediaType\":"
	                     "\"text/plain\",\"digest\":\"%s\",\"size\":5}]%s}", config_type,
	                     config->text, layer->text, more) > 0);
	return text;
}

static int push(struct kn_images *images, const char *tag, const char *text, struct kn_image **ret,
                struct kn_err *err)
{
	const struct kn_images_put put = { .repository = REPO,
		                           .tag = kn_view_of(tag),
		                           .content = kn_view_of(text),
		                           .pushed = true };

	return kn_images_put(images, &put, ret, err);
}

static struct kn_image *push_artifact(struct kn_images *images, const char *tag, const char *layer,
                                      const char *more)
{
	struct kn_digest config = push_blob(images, REPO, "{}");
	struct kn_digest d = push_blob(images, REPO, layer);
	kn_auto(kn_free) char *text = manifest_text("text/config", &config, &d, more);
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *image = NULL;

	assert_ok(push(images, tag, text, &image, &err), &err);
	return image;
}

static void pushed_artifact_is_kept_listed_and_not_run(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *got = NULL;

	(void)state;
	kn_image_unref(push_artifact(images, "1", "layer", ""));
	for (int reopened = 0; reopened < 2; reopened++) {
		__attribute__((cleanup(kn_image_list_fini_auto))) struct kn_image_list l = { 0 };
		assert_ok(kn_images_list(images, &l, &err), &err);
		assert_int_equal(l.n, 1);
		assert_string_equal(l.at[0]->reference, "team/app:1");
		assert_string_equal(kn_image_kind_name(l.at[0]->kind), "other");
		assert_string_equal(l.at[0]->artifact_type, "text/config");
		assert_fails(kn_images_find(images, KN_VIEW("team/app:1"), &got, &err), ENOEXEC, &err,
		             "config is of type 'text/config'");
		assert_ok(kn_images_get(images, REPO, KN_VIEW("1"), &got, &err), &err);
		assert_string_equal(got->media_type, KN_TYPE_MANIFEST);
		kn_image_unref(got);
		kn_image_list_fini(&l);
		kn_images_close(kn_take_ptr(images));
		images = open_store();
		assert_null(kn_images_trouble(images));
	}
	assert_int_equal(blob_count(), 3);
	assert_ok(kn_images_remove(images, KN_VIEW("team/app:1"), NULL, NULL, &err), &err);
	assert_int_equal(blob_count(), 0);
}

static void manifest_may_name_only_what_its_repository_has(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest config = push_blob(images, REPO, "{}");
	struct kn_digest secret = push_blob(images, KN_VIEW("other"), "secret");
	kn_auto(kn_free) char *text = manifest_text("a/b", &config, &secret, "");
	struct kn_image *got = NULL;

	(void)state;
	assert_false(kn_images_blob_in(images, REPO, &secret));
	assert_fails(push(images, "1", text, &got, &err), ENOENT, &err, "is not in repository");
	assert_ok(kn_images_pin(images, REPO, &secret, &err), &err);   /* mounted */
	assert_ok(push(images, "1", text, &got, &err), &err);
	assert_true(kn_images_blob_in(images, REPO, &secret));
	kn_image_unref(got);
}

static void lost_tag_can_be_pulled_by_digest_for_a_while(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *old = NULL, *got = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	kn_fake_clock(KN_NS_PER_S, KN_NS_PER_S);
	old = push_artifact(images, "1", "old", "");
	char digest[KN_DIGEST_TEXT];
	memcpy(digest, old->top.text, sizeof(digest));
	kn_image_unref(kn_take_ptr(old));
	kn_image_unref(push_artifact(images, "1", "new", ""));
	assert_ok(kn_images_get(images, REPO, kn_view_of(digest), &got, &err), &err);
	assert_string_equal(got->tag, "");
	kn_image_unref(kn_take_ptr(got));
	assert_int_equal(blob_count(), 5);
	kn_fake_advance(601 * KN_NS_PER_S);
	assert_true(kn_images_untidy(images));
	kn_images_sweep(images);
	assert_int_equal(blob_count(), 3);
	assert_fails(kn_images_get(images, REPO, kn_view_of(digest), &got, &err), ENOENT, &err, "no");
	kn_real_clock();
}

static void index_keeps_its_parts_and_takes_them_along(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *part = NULL, *index = NULL;
	kn_auto(kn_free) char *text = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	part = push_artifact(images, NULL, "part", "");
	assert_true(asprintf(&text, "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"%s\","
	                     "\"digest\":\"%s\",\"size\":9}]}", KN_TYPE_MANIFEST, part->top.text) > 0);
	kn_image_unref(kn_take_ptr(part));
	assert_ok(push(images, "multi", text, &index, &err), &err);
	assert_string_equal(index->media_type, KN_TYPE_INDEX);
	assert_int_equal(index->kind, KN_IMAGE_OTHER);
	assert_non_null(strstr(index->why_not, "linux/amd64"));
	kn_image_unref(kn_take_ptr(index));
	kn_images_close(kn_take_ptr(images));
	images = open_store();
	assert_int_equal(blob_count(), 4);
	assert_ok(kn_images_remove(images, KN_VIEW("team/app:multi"), NULL, NULL, &err), &err);
	assert_int_equal(blob_count(), 0);
}

static void what_speaks_of_a_manifest_goes_with_it(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *subject = push_artifact(images, "1", "it", "");
	kn_auto(kn_free) char *more = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_true(asprintf(&more, ",\"subject\":{\"mediaType\":\"%s\",\"digest\":\"%s\","
	                     "\"size\":9}", KN_TYPE_MANIFEST, subject->top.text) > 0);
	char digest[KN_DIGEST_TEXT];
	memcpy(digest, subject->top.text, sizeof(digest));
	kn_image_unref(kn_take_ptr(subject));
	struct kn_image *about = push_artifact(images, NULL, "signature", more);
	assert_string_equal(about->subject.text, digest);
	kn_image_unref(about);
	assert_int_equal(blob_count(), 5);
	assert_ok(kn_images_drop(images, REPO, kn_view_of(digest), &err), &err);
	assert_int_equal(blob_count(), 0);
	assert_fails(kn_images_drop(images, REPO, kn_view_of(digest), &err), ENOENT, &err, "no manif");
}

static void wrong_manifests_are_refused(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	struct kn_digest config = push_blob(images, REPO, "{}");
	kn_auto(kn_free) char *good = manifest_text("a/b", &config, &config, "");
	kn_auto(kn_free) char *both = manifest_text("a/b", &config, &config, ",\"manifests\":[]");
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *got = NULL;
	struct kn_images_put put = { .repository = REPO, .content = kn_view_of(good), .pushed = true };

	(void)state;
	assert_fails(push(images, "1", "{", &got, &err), EINVAL, &err, "manifest");
	assert_fails(push(images, "1", both, &got, &err), EINVAL, &err, "index");
	put.media_type = "text/html";
	assert_fails(kn_images_put(images, &put, &got, &err), EINVAL, &err, "text/html");
	put.media_type = KN_TYPE_INDEX;
	assert_fails(kn_images_put(images, &put, &got, &err), EINVAL, &err, "index");
	put.media_type = KN_TYPE_MANIFEST;
	put.expect = &config;
	assert_fails(kn_images_put(images, &put, &got, &err), EBADMSG, &err, "has the digest");
	assert_int_equal(blob_count(), 1);
}

static void blob_without_a_manifest_goes_after_an_hour(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();

	(void)state;
	kn_fake_clock(KN_NS_PER_S, KN_NS_PER_S);
	struct kn_digest d = push_blob(images, REPO, "alone");
	kn_images_sweep(images);
	assert_true(kn_images_blob_in(images, REPO, &d));
	kn_fake_advance(3601 * KN_NS_PER_S);
	assert_true(kn_images_untidy(images));
	kn_images_sweep(images);
	assert_false(kn_images_blob_in(images, REPO, &d));
	assert_int_equal(blob_count(), 0);
	d = push_blob(images, REPO, "alone");
	assert_true(kn_images_unpin(images, REPO, &d));
	assert_false(kn_images_unpin(images, REPO, &d));
	assert_false(kn_images_blob_in(images, REPO, &d));
	kn_real_clock();
}

/* ---- opening again ------------------------------------------------------------------------- */

static void leftovers_are_swept_at_opening(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	kn_image_unref(import(images, "a:1", "x"));
	kn_images_close(kn_take_ptr(images));
	assert_ok(kn_mkdirs(AT_FDCWD, fixture_path("store/tmp/build-7/root/etc"), 0700, &err), &err);
	fixture_write("store/tmp/blob-3", "part", 4);
	fixture_write("store/blobs/sha256/"
	              "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "o", 1);
	fixture_write("store/rootfs/sha256-"
	              "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.erofs", "o", 1);
	images = open_store();
	assert_int_equal(left_in_tmp(), 0);
	assert_int_equal(blob_count(), 3);
	assert_int_equal(fixture_count(fixture_path("store/rootfs")), 0);
}

static void spoiled_image_is_told_and_others_stay(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *bad = import(images, "bad:1", "x");
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *got = NULL;
	char blob[160];

	(void)state;
	kn_image_unref(import(images, "good:1", "y"));
	kn_images_close(kn_take_ptr(images));
	snprintf(blob, sizeof(blob), "store/blobs/sha256/%s", kn_digest_hex(&bad->digest));
	fixture_write(blob, "{}", 2);
	images = open_store();
	assert_non_null(strstr(kn_images_trouble(images), "image 'bad:1'"));
	assert_int_equal(blob_count(), 6);
	assert_fails(kn_images_find(images, KN_VIEW("bad:1"), &got, &err), ENOENT, &err, "bad:1");
	assert_ok(kn_images_find(images, KN_VIEW("good:1"), &got, &err), &err);
	kn_image_unref(got);
}

static void spoiled_index_is_told(void **state)
{
	struct kn_images_config config = KN_IMAGES_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;
	struct kn_images *images = open_store();

	(void)state;
	kn_images_close(images);
	fixture_write("store/index.json", "{broken", 7);
	config.dir = fixture_path("store");
	assert_fails(kn_images_open(&config, &images, &err), EUCLEAN, &err, "import the images again");
}

/* ---- root file systems --------------------------------------------------------------------- */

static struct kn_digest digest_of_file(const char *path)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d;

	assert_ok(kn_read_file(AT_FDCWD, path, 64 << 20, &text, &err), &err);
	assert_ok(kn_digest_of(KN_SHA256, text.ptr, text.len, &d, &err), &err);
	return d;
}

/* fsck.erofs checks the checksum that we wrote, too; it unpacks modes without setuid. */
static void assert_erofs_holds(const char *path)
{
	char command[700];
	struct stat st;

	snprintf(command, sizeof(command), "fsck.erofs --extract='%s' '%s' >'%s' 2>&1",
	         fixture_path("out"), path, fixture_path("fsck.log"));
	assert_int_equal(system(command), 0);
	assert_int_equal(lstat(fixture_path("out/etc/link"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(stat(fixture_path("out/etc/text"), &st), 0);
	assert_int_equal(st.st_size, 4);
	assert_int_equal(st.st_mtim.tv_sec, 1234567);
	if (geteuid() == 0)
		assert_int_equal(st.st_uid, 1000);
	assert_int_equal(stat(fixture_path("out/bin/app"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0755);
}

/* The clock that mkfs.erofs would write has seconds: let one pass, so that it would show. */
static void sleep_past_a_second(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	usleep((useconds_t)(1000000 - t.tv_nsec / 1000 + 1000));
}

static void root_file_system_is_built_and_reproducible(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *i = import(images, "a:1", "text");
	kn_auto(kn_free) char *path = NULL, *cached = NULL, *again = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_null(kn_images_rootfs_cached(images, i));
	assert_int_equal(kn_images_rootfs_bytes(images, i), 0);
	assert_ok(kn_images_rootfs(images, i, NULL, &path, &err), &err);
	assert_int_equal(left_in_tmp(), 0);
	assert_erofs_holds(path);
	struct kn_digest first = digest_of_file(path);
	cached = kn_images_rootfs_cached(images, i);
	assert_string_equal(cached, path);
	assert_true(kn_images_rootfs_bytes(images, i) >= 4096);

	sleep_past_a_second();
	assert_int_equal(unlink(path), 0);
	assert_ok(kn_images_rootfs(images, i, NULL, &again, &err), &err);
	struct kn_digest second = digest_of_file(again);
	assert_string_equal(first.text, second.text);
}

/* A program in place of mkfs.erofs that counts its calls, then does as the body says. */
static const char *fake_mkfs(const char *body)
{
	kn_auto(kn_buf_fini) struct kn_buf script = KN_BUF_INIT;

	kn_buf_printf(&script, "#!/bin/sh\necho call >> '%s'\n%s\n", fixture_path("calls"), body);
	fixture_write("mkfs", script.ptr, script.len);
	assert_int_equal(chmod(fixture_path("mkfs"), 0755), 0);
	return fixture_path("mkfs");
}

struct caller {
	struct kn_images *images;
	const struct kn_image *image;
	int result;
	struct kn_err err;
};

static void *call_rootfs(void *arg)
{
	struct caller *c = arg;
	kn_auto(kn_free) char *path = NULL;

	c->result = kn_images_rootfs(c->images, c->image, NULL, &path, &c->err);
	return NULL;
}

static int calls(void)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	if (kn_read_file(AT_FDCWD, fixture_path("calls"), 1000, &text, NULL) < 0)
		return 0;
	return (int)(text.len / strlen("call\n"));
}

static void callers_share_one_build(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images =
		open_with(fake_mkfs("sleep 0.3; exec mkfs.erofs \"$@\""));
	kn_auto(kn_image_unref) struct kn_image *i = import(images, "a:1", "x");
	struct caller c[4];
	pthread_t threads[4];

	(void)state;
	for (int k = 0; k < 4; k++) {
		c[k] = (struct caller){ .images = images, .image = i };
		assert_int_equal(pthread_create(&threads[k], NULL, call_rootfs, &c[k]), 0);
	}
	for (int k = 0; k < 4; k++) {
		pthread_join(threads[k], NULL);
		assert_ok(c[k].result, &c[k].err);
	}
	assert_int_equal(calls(), 1);
}

static void missing_and_failing_mkfs_are_told(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_with("/nonexistent/mkfs.erofs");
	kn_auto(kn_image_unref) struct kn_image *i = import(images, "a:1", "x");
	struct kn_err err = KN_ERR_INIT;
	char *path = NULL;

	(void)state;
	assert_fails(kn_images_rootfs(images, i, NULL, &path, &err), ENOENT, &err,
	             "apt-get install erofs-utils");
	assert_int_equal(left_in_tmp(), 0);
	kn_images_close(kn_take_ptr(images));
	images = open_with(fake_mkfs("echo noise; echo 'disk is made of cheese' >&2; exit 3"));
	assert_fails(kn_images_rootfs(images, i, NULL, &path, &err), EIO, &err,
	             "exit code 3: disk is made of cheese");
	assert_null(path);
	assert_int_equal(left_in_tmp(), 0);
	assert_int_equal(fixture_count(fixture_path("store/rootfs")), 0);
}

static bool stop_while_packing(const char *phase, uint64_t bytes, uint64_t total, void *arg)
{
	(void)bytes;
	(void)total;
	(void)arg;
	return strcmp(phase, "pack") != 0;
}

static void packing_can_be_cancelled(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_with(fake_mkfs("exec sleep 30"));
	kn_auto(kn_image_unref) struct kn_image *i = import(images, "a:1", "x");
	struct kn_progress progress = { stop_while_packing, NULL };
	struct kn_err err = KN_ERR_INIT;
	char *path = NULL;

	(void)state;
	time_t before = time(NULL);
	assert_fails(kn_images_rootfs(images, i, &progress, &path, &err), ECANCELED, &err, "cancel");
	assert_true(time(NULL) - before < 10);
	assert_int_equal(left_in_tmp(), 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);     /* the child was waited for */
}

static void wrong_diff_id_is_found_when_unpacking(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *i = import(images, "a:1", "x");
	struct kn_err err = KN_ERR_INIT;
	char *path = NULL;
	DIR *dir;

	(void)state;
	/* The disk spoils the layer: the largest of the three blobs. */
	dir = opendir(fixture_path("store/blobs/sha256"));
	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));) {
		struct stat st;
		assert_int_equal(fstatat(dirfd(dir), e->d_name, &st, 0), 0);
		if (!S_ISREG(st.st_mode) || st.st_size <= 2048)
			continue;
		assert_int_equal(st.st_mode & 07777, 0444);
		assert_int_equal(fchmodat(dirfd(dir), e->d_name, 0644, 0), 0);
		kn_auto(kn_close) int fd = openat(dirfd(dir), e->d_name, O_WRONLY | O_CLOEXEC);
		assert_int_equal(pwrite(fd, "Z", 1, 512), 1);
	}
	closedir(dir);
	assert_fails(kn_images_rootfs(images, i, NULL, &path, &err), EBADMSG, &err, "DiffID");
	assert_int_equal(left_in_tmp(), 0);
}

/* ---- bare functions ------------------------------------------------------------------------ */

static int import_bare(struct kn_images *images, int elf, struct kn_image **ret,
                       struct kn_err *err)
{
	kn_auto(kn_close) int out = fixture_fd("", 0);
	struct kn_images_import what = { .fd = out };
	struct kn_digest d;

	assert_ok(kn_archive_write_bare(out, "denoise:1", elf, NULL, &d, err), err);
	assert_int_equal(lseek(out, 0, SEEK_SET), 0);
	return kn_images_import(images, &what, ret, err);
}

static void spoil(const char *path, off_t at)
{
	kn_auto(kn_close) int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "\xde\xad", 2, at), 2);
}

static void spoiled_root_file_system_is_built_again(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	kn_auto(kn_image_unref) struct kn_image *i = import(images, "a:1", "text"), *j = NULL;
	kn_auto(kn_free) char *path = NULL, *again = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_images_rootfs(images, i, NULL, &path, &err), &err);
	struct kn_digest good = digest_of_file(path);
	kn_images_close(kn_take_ptr(images));
	spoil(path, 2000);
	images = open_store();
	assert_ok(kn_images_find(images, KN_VIEW("a:1"), &j, &err), &err);
	assert_null(kn_images_rootfs_cached(images, j));
	assert_ok(kn_images_rootfs(images, j, NULL, &again, &err), &err);
	struct kn_digest is = digest_of_file(again);
	assert_string_equal(is.text, good.text);
}

static void spoiled_program_is_refused(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_with("/nonexistent/mkfs");
	kn_auto(kn_close) int elf = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	kn_auto(kn_image_unref) struct kn_image *i = NULL, *j = NULL;
	kn_auto(kn_free) char *path = NULL, *again = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(import_bare(images, elf, &i, &err), &err);
	assert_ok(kn_images_rootfs(images, i, NULL, &path, &err), &err);
	kn_images_close(kn_take_ptr(images));
	assert_int_equal(chmod(path, 0600), 0);
	spoil(path, 5000);
	images = open_with("/nonexistent/mkfs");
	assert_ok(kn_images_find(images, kn_view_of(i->reference), &j, &err), &err);
	assert_fails(kn_images_rootfs(images, j, NULL, &again, &err), EBADMSG, &err, "was spoiled");
	assert_null(kn_images_rootfs_cached(images, j));
	kn_image_unref(kn_take_ptr(j));
	assert_int_equal(lseek(elf, 0, SEEK_SET), 0);
	assert_ok(import_bare(images, elf, &j, &err), &err);   /* the cure */
	assert_ok(kn_images_rootfs(images, j, NULL, &again, &err), &err);
}

static void bare_function_is_its_own_root_file(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_with("/nonexistent/mkfs");
	kn_auto(kn_close) int elf = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	kn_auto(kn_image_unref) struct kn_image *i = NULL;
	kn_auto(kn_free) char *path = NULL, *cached = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(import_bare(images, elf, &i, &err), &err);
	assert_int_equal(i->kind, KN_IMAGE_BARE);
	assert_null(i->argv[0]);
	assert_null(kn_images_rootfs_cached(images, i));   /* nobody has checked it yet */
	assert_ok(kn_images_rootfs(images, i, NULL, &path, &err), &err);
	cached = kn_images_rootfs_cached(images, i);
	assert_string_equal(cached, path);
	struct kn_digest a = digest_of_file(path), b = digest_of_file("/proc/self/exe");
	assert_string_equal(a.text, b.text);
	kn_images_close(kn_take_ptr(images));
	images = open_store();
	assert_null(kn_images_trouble(images));
}

static int import_chain(struct kn_images *images, size_t bytes, struct kn_image **ret,
                        struct kn_err *err)
{
	kn_auto(kn_free) char *yaml = malloc(bytes);
	assert_non_null(yaml);
	memset(yaml, '#', bytes);
	kn_auto(kn_close) int in = fixture_fd(yaml, bytes), out = fixture_fd("", 0);
	struct kn_images_import what = { .fd = out };
	struct kn_digest d;

	assert_ok(kn_archive_write_nf(out, "firewall:1", in, NULL, &d, err), err);
	assert_int_equal(lseek(out, 0, SEEK_SET), 0);
	return kn_images_import(images, &what, ret, err);
}

static void chain_is_its_own_root_file(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_with("/nonexistent/mkfs");
	kn_auto(kn_image_unref) struct kn_image *i = NULL, *large = NULL;
	kn_auto(kn_free) char *path = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(import_chain(images, 100, &i, &err), &err);
	assert_int_equal(i->kind, KN_IMAGE_NF);
	assert_string_equal(kn_image_kind_name(i->kind), "nf");
	assert_ok(kn_images_rootfs(images, i, NULL, &path, &err), &err);
	assert_int_equal(kn_images_rootfs_bytes(images, i), 100);
	assert_fails(import_chain(images, KN_NF_CHAIN_MAX + 1, &large, &err), EFBIG, &err, "at most");
}

static void bare_function_of_another_machine_is_refused(void **state)
{
	kn_auto(kn_images_close) struct kn_images *images = open_store();
	Elf64_Ehdr e = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB },
		         .e_type = ET_EXEC, .e_machine = EM_AARCH64 };
	static const struct {
		int type, machine;
		const char *says;
	} cases[] = {
		{ ET_EXEC, EM_AARCH64, "ELF machine 183" },
		{ ET_REL, EM_X86_64, "not a program" },
	};

	(void)state;
	for (size_t k = 0; k < KN_ARRAY_LEN(cases); k++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_image *i = NULL;
		e.e_type = (Elf64_Half)cases[k].type;
		e.e_machine = (Elf64_Half)cases[k].machine;
		kn_auto(kn_close) int elf = fixture_fd(&e, sizeof(e));
		assert_fails(import_bare(images, elf, &i, &err), ENOEXEC, &err, cases[k].says);
	}
	kn_auto(kn_close) int text = fixture_fd("#!/bin/sh\n", 10);
	struct kn_err err = KN_ERR_INIT;
	struct kn_image *i = NULL;
	assert_fails(import_bare(images, text, &i, &err), ENOEXEC, &err, "not an ELF file");
	assert_int_equal(blob_count(), 0);
}

#define test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(image_is_described),
		test(image_is_found_by_name_and_by_digest),
		test(list_is_sorted_and_survives_reopening),
		test(name_is_needed),
		test(new_image_takes_the_name_and_old_blobs_go),
		test(old_image_keeps_its_files_while_it_is_held),
		test(failed_import_leaves_nothing),
		test(used_image_is_not_removed),
		test(root_file_system_goes_with_its_image),
		test(pushed_artifact_is_kept_listed_and_not_run),
		test(manifest_may_name_only_what_its_repository_has),
		test(lost_tag_can_be_pulled_by_digest_for_a_while),
		test(index_keeps_its_parts_and_takes_them_along),
		test(what_speaks_of_a_manifest_goes_with_it),
		test(wrong_manifests_are_refused),
		test(blob_without_a_manifest_goes_after_an_hour),
		test(leftovers_are_swept_at_opening),
		test(spoiled_image_is_told_and_others_stay),
		test(spoiled_index_is_told),
		test(root_file_system_is_built_and_reproducible),
		test(callers_share_one_build),
		test(missing_and_failing_mkfs_are_told),
		test(packing_can_be_cancelled),
		test(wrong_diff_id_is_found_when_unpacking),
		test(spoiled_root_file_system_is_built_again),
		test(spoiled_program_is_refused),
		test(bare_function_is_its_own_root_file),
		test(chain_is_its_own_root_file),
		test(bare_function_of_another_machine_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
