/*
 * Images over HTTP. An archive is received into an unnamed file, so that a client that leaves, and
 * a crash, leave nothing; then a worker thread checks it and puts it into the store.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "faas/control/private.h"

json_t *image_json(const struct kn_image *image)
{
	return json_pack("{s:s, s:s, s:s, s:I, s:s}", "name", image->reference, "digest",
	                 image->digest.text, "kind", kn_image_kind_name(image->kind), "bytes",
	                 (json_int_t)image->bytes, "created", image->created);
}

/* ---- listing ------------------------------------------------------------------------------- */

void list_images(const struct call *c)
{
	kn_auto(kn_image_list_fini) struct kn_image_list images = { .n = 0 };
	struct kn_err err = KN_ERR_INIT;

	if (kn_images_list(c->ctl->config.images, &images, &err) < 0) {
		kn_reply_fail(c->x, &err, NULL);
		return;
	}
	json_t *list = json_array();
	for (size_t i = 0; i < images.n; i++) {
		json_t *o = image_json(images.at[i]);
		const char *user = image_user(images.at[i], c->ctl);
		uint64_t rootfs = kn_images_rootfs_bytes(c->ctl->config.images, images.at[i]);
		if (user)
			json_object_set_new(o, "usedBy", json_string(user));
		if (rootfs)
			json_object_set_new(o, "rootfsBytes", json_integer((json_int_t)rootfs));
		json_array_append_new(list, o);
	}
	kn_reply_json(c->x, 200, list);
}

/* ---- removing ------------------------------------------------------------------------------ */

void remove_image(const struct call *c)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_view name = c->rest;

	if (!name.len && !query_text(c->x, "name", &name))
		return;
	if (!name.len) {
		kn_reply_error(c->x, 400, "no image is named", "DELETE /kiln/v1/images?name=REF");
		return;
	}
	int r = kn_images_remove(c->ctl->config.images, name, image_user, c->ctl, &err);
	if (r == -EBUSY)
		kn_reply_fail(c->x, &err, "remove the function first: kiln remove NAME");
	else if (r < 0)
		kn_reply_fail(c->x, &err, NULL);
	else
		kn_http_reply(c->x, 204, NULL, 0, KN_VIEW_NULL);
}

/* ---- importing ----------------------------------------------------------------------------- */

struct upload {
	struct kn_job job;
	struct kn_control *ctl;
	struct kn_http_exchange *x;   /* NULL once the client has left */
	char *name;                   /* NULL: what the archive says */
	int fd;
	bool importing;               /* the body is whole: a worker has the job */
	atomic_bool left;             /* the worker gives up */
	struct kn_image *image;
	struct kn_err err;
};

static void upload_free(struct upload *u)
{
	static const struct kn_http_hooks none;

	if (u->x)
		kn_http_set_hooks(u->x, &none);
	u->ctl->n_uploads--;
	kn_close(u->fd);
	kn_image_unref(u->image);
	free(u->name);
	free(u);
}

static void upload_fail(struct upload *u)
{
	struct kn_http_exchange *x = u->x;
	struct kn_err err = u->err;
	/* What the archive lacks is the client's error, whatever its errno. */
	const bool theirs = err.code == ENOEXEC || err.code == ENOENT;

	upload_free(u);
	if (!x)
		return;
	if (theirs)
		kn_reply_error(x, 422, kn_err_text(&err), NULL);
	else
		kn_reply_fail(x, &err, NULL);
}

static bool go_on(const char *phase, uint64_t bytes, uint64_t total, void *arg)
{
	struct upload *u = arg;

	(void)phase, (void)bytes, (void)total;
	return !atomic_load_explicit(&u->left, memory_order_relaxed);
}

static void import_run(struct kn_job *job)
{
	struct upload *u = kn_container_of(job, struct upload, job);
	const struct kn_progress progress = { .step = go_on, .arg = u };
	const struct kn_images_import what = { .fd = u->fd, .name = u->name, .progress = &progress };

	if (lseek(u->fd, 0, SEEK_SET) < 0)
		kn_fail(&u->err, errno, "read the received archive: %s", strerror(errno));
	else
		(void)!kn_images_import(u->ctl->config.images, &what, &u->image, &u->err);
}

static void import_done(struct kn_job *job, bool cancelled)
{
	struct upload *u = kn_container_of(job, struct upload, job);

	turn_over(u->ctl);
	if (cancelled)
		kn_fail(&u->err, EAGAIN, "kilnd is stopping");
	if (u->err.code) {
		upload_fail(u);
		return;
	}
	kn_log(KN_INFO, "image imported", KN_S("image", u->image->reference),
	       KN_S("digest", u->image->digest.text), KN_U("bytes", u->image->bytes));
	change_refresh(u->ctl, u->image);
	struct kn_http_exchange *x = u->x;
	json_t *o = image_json(u->image);
	upload_free(u);
	if (x)
		kn_reply_json(x, 201, o);
	else
		json_decref(o);
}

static void on_data(struct kn_http_exchange *x, struct kn_view data, void *arg)
{
	struct upload *u = arg;

	(void)x;
	int r = kn_write_all(u->fd, data.ptr, data.len);
	if (r < 0) {
		kn_fail(&u->err, -r, "receive the archive: %s", strerror(-r));
		upload_fail(u);
	}
}

static void on_end(struct kn_http_exchange *x, void *arg)
{
	struct upload *u = arg;

	(void)x;
	if (turn_submit(u->ctl, &u->job, false, &u->err) < 0)
		upload_fail(u);
	else
		u->importing = true;
}

static void on_gone(struct kn_http_exchange *x, void *arg)
{
	struct upload *u = arg;

	(void)x;
	u->x = NULL;
	if (u->importing)
		atomic_store_explicit(&u->left, true, memory_order_relaxed);
	else
		upload_free(u);
}

/* Room for the archive itself; what the import needs beyond it, the import will say. */
static int check_room(const struct kn_control *ctl, int64_t content_length, struct kn_err *err)
{
	struct statvfs fs;

	if (content_length > 0 && (uint64_t)content_length > ctl->config.max_image_bytes)
		return kn_fail(err, EFBIG, "the archive has %lld bytes, at most %llu are taken",
		               (long long)content_length,
		               (unsigned long long)ctl->config.max_image_bytes);
	if (statvfs(ctl->config.tmp_dir, &fs) < 0)
		return kn_fail(err, errno, "'%s': %s", ctl->config.tmp_dir, strerror(errno));
	uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (content_length > 0 && (uint64_t)content_length > free_bytes)
		return kn_fail(err, ENOSPC, "the archive has %lld bytes, the node's disk has room for "
		                            "%llu",
		               (long long)content_length, (unsigned long long)free_bytes);
	return 0;
}

static int check_upload(const struct call *c, struct kn_view name, struct kn_err *err)
{
	struct kn_ref ref;

	if (name.ptr && kn_ref_parse(name, &ref, err) < 0)
		return -err->code;
	if (c->ctl->n_uploads >= MAX_UPLOADS)
		return kn_fail(err, EAGAIN, "%d imports are under way: try again soon", MAX_UPLOADS);
	return check_room(c->ctl, kn_http_head(c->x)->content_length, err);
}

/* O_TMPFILE: the file has no name, so nothing can be left behind. */
static struct upload *upload_new(const struct call *c, struct kn_view name, struct kn_err *err)
{
	const char *dir = c->ctl->config.tmp_dir;

	kn_auto(kn_close) int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0) {
		kn_fail(err, errno, "make a file in '%s': %s", dir, strerror(errno));
		return NULL;
	}
	struct upload *u = calloc(1, sizeof(*u));
	if (!u || (name.ptr && !(u->name = strndup(name.ptr, name.len)))) {
		free(u);
		kn_fail(err, ENOMEM, "no memory for an import");
		return NULL;
	}
	u->job = (struct kn_job){ .run = import_run, .done = import_done };
	u->ctl = c->ctl;
	u->x = c->x;
	u->fd = kn_take_fd(fd);
	c->ctl->n_uploads++;
	return u;
}

void import_image(const struct call *c)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_view name;

	if (!query_text(c->x, "name", &name))
		return;
	struct upload *u = NULL;
	if (check_upload(c, name, &err) == 0)
		u = upload_new(c, name, &err);
	if (!u) {
		kn_reply_fail(c->x, &err, NULL);
		return;
	}
	kn_http_limit_body(c->x, c->ctl->config.max_image_bytes);
	kn_http_set_hooks(c->x, &(struct kn_http_hooks){
					.data = on_data, .end = on_end, .gone = on_gone, .arg = u });
}
