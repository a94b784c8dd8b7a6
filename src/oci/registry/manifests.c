#include <errno.h>
#include <stdlib.h>

#include "base/json.h"
#include "oci/registry/private.h"

/* ---- out -------------------------------------------------------------------------------------- */

static bool repository_is_empty(const struct request *rq)
{
	__attribute__((cleanup(kn_image_list_fini_auto))) struct kn_image_list l = { .n = 0 };

	return kn_images_in(rq->reg->config.images, rq->path.name, &l, NULL) < 0 || l.n == 0;
}

static void unknown(const struct request *rq, const char *why)
{
	if (repository_is_empty(rq))
		refuse(rq->x, 404, "NAME_UNKNOWN", "there is no repository '" KN_VIEW_FMT "'",
		       KN_VIEW_ARG(rq->path.name));
	else
		refuse(rq->x, 404, "MANIFEST_UNKNOWN", "%s", why);
}

/* The manifest that the path names, a new reference; NULL after answering. */
static struct kn_image *find_or_answer(const struct request *rq)
{
	struct kn_image *image = NULL;
	struct kn_err err = KN_ERR_INIT;

	if (kn_images_get(rq->reg->config.images, rq->path.name, rq->path.rest, &image, &err) < 0)
		unknown(rq, kn_err_text(&err));
	return image;
}

void manifest_get(const struct request *rq)
{
	kn_auto(kn_image_unref) struct kn_image *image = find_or_answer(rq);

	if (!image)
		return;
	struct fields f = fields_new(rq->x);
	fields_add(&f, "Content-Type", "%s", image->media_type);
	blob_send(rq, &image->top, &f);
}

/* ---- in and away: a worker's work ------------------------------------------------------------- */

struct change {
	struct kn_job job;
	struct kn_registry *reg;
	struct kn_http_exchange *x;   /* NULL once the client has left: it is done all the same */
	char *repository, *key;       /* key: tag or digest */
	char *media_type;             /* NULL: none was given */
	char *content;
	size_t len;
	struct kn_image *image;
	struct kn_err err;
};

static void change_free(struct change *c)
{
	static const struct kn_http_hooks none;

	if (c->x)
		kn_http_set_hooks(c->x, &none);
	kn_image_unref(c->image);
	free(c->repository);
	free(c->key);
	free(c->media_type);
	free(c->content);
	free(c);
}

static void on_gone(struct kn_http_exchange *x, void *arg)
{
	struct change *c = arg;

	(void)x;
	c->x = NULL;
}

static struct change *change_new(const struct request *rq)
{
	struct change *c = calloc(1, sizeof(*c));

	if (c) {
		c->reg = rq->reg;
		c->repository = strndup(rq->path.name.ptr, rq->path.name.len);
		c->key = strndup(rq->path.rest.ptr, rq->path.rest.len);
	}
	if (!c || !c->repository || !c->key) {
		refuse(rq->x, 503, "UNAVAILABLE", "out of memory");
		if (c)
			change_free(c);
		return NULL;
	}
	return c;
}

static void change_submit(struct change *c, struct kn_http_exchange *x, void (*run)(struct kn_job *),
                          void (*done)(struct kn_job *, bool))
{
	struct kn_err err = KN_ERR_INIT;

	c->job = (struct kn_job){ .run = run, .done = done };
	if (kn_work_submit(c->reg->config.work, &c->job, &err) < 0) {
		change_free(c);
		answer_err(x, &err, "UNKNOWN");
		return;
	}
	c->x = x;
	kn_http_set_hooks(x, &(struct kn_http_hooks){ .gone = on_gone, .arg = c });
}

/* ---- putting ---------------------------------------------------------------------------------- */

static void put_run(struct kn_job *job)
{
	struct change *c = kn_container_of(job, struct change, job);
	struct kn_digest expect;
	const bool by_digest = kn_digest_parse(kn_view_of(c->key), &expect, NULL) == 0;
	const struct kn_images_put put = {
		.repository = kn_view_of(c->repository),
		.tag = by_digest ? KN_VIEW_NULL : kn_view_of(c->key),
		.media_type = c->media_type,
		.content = { c->content, c->len },
		.expect = by_digest ? &expect : NULL,
		.pushed = true,
	};

	(void)!kn_images_put(c->reg->config.images, &put, &c->image, &c->err);
}

static void put_failed(struct change *c)
{
	struct kn_http_exchange *x = c->x;
	struct kn_err err = c->err;

	change_free(c);
	if (!x)
		return;
	if (err.code == ENOENT)
		refuse(x, 400, "MANIFEST_BLOB_UNKNOWN", "%s", kn_err_text(&err));
	else
		answer_err(x, &err, "MANIFEST_INVALID");
}

static void put_done(struct kn_job *job, bool cancelled)
{
	struct change *c = kn_container_of(job, struct change, job);
	const struct kn_registry_config *config = &c->reg->config;

	if (cancelled)
		kn_fail(&c->err, EAGAIN, "the node is stopping");
	if (c->err.code) {
		put_failed(c);
		return;
	}
	if (config->pushed && c->image->tag[0])
		config->pushed(c->image, config->arg);
	struct kn_http_exchange *x = c->x;
	struct fields f = { .n = 0 };
	if (x) {
		f = fields_new(x);
		fields_add(&f, "Location", "/v2/%s/manifests/%s", c->repository, c->image->top.text);
		fields_add(&f, "Docker-Content-Digest", "%s", c->image->top.text);
		if (c->image->subject.text[0])
			fields_add(&f, "OCI-Subject", "%s", c->image->subject.text);
	}
	change_free(c);
	if (x)
		fields_reply(&f, 201, KN_VIEW_NULL);
}

static void put_collected(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	const struct request *rq = arg;
	struct kn_view type = kn_http_header(kn_http_head(x), "content-type"), bare = KN_VIEW_NULL;

	struct change *c = change_new(rq);
	if (!c)
		return;
	kn_view_split(&type, ';', &bare);
	bare = kn_view_trim(bare);
	c->media_type = bare.len ? strndup(bare.ptr, bare.len) : NULL;
	c->content = malloc(body.len + 1);
	if (!c->content || (bare.len && !c->media_type)) {
		change_free(c);
		refuse(x, 503, "UNAVAILABLE", "out of memory");
		return;
	}
	memcpy(c->content, body.len ? body.ptr : "", body.len);
	c->len = body.len;
	change_submit(c, x, put_run, put_done);
}

static bool key_ok(struct kn_view key, struct kn_err *err)
{
	struct kn_digest d;

	if (registry_tag_ok(key))
		return true;
	if (memchr(key.ptr, ':', key.len))
		return kn_digest_parse(key, &d, err) == 0;
	kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is neither a tag nor a digest", KN_VIEW_ARG(key));
	return false;
}

void manifest_put(const struct request *rq)
{
	struct kn_err err = KN_ERR_INIT;

	if (!key_ok(rq->path.rest, &err)) {
		const bool digest = memchr(rq->path.rest.ptr, ':', rq->path.rest.len);
		refuse(rq->x, 400, digest ? "DIGEST_INVALID" : "MANIFEST_INVALID", "%s",
		       kn_err_text(&err));
	} else if (kn_http_head(rq->x)->content_length > KN_SPEC_MAX_BYTES) {
		refuse(rq->x, 413, "SIZE_INVALID", "a manifest may have %d bytes", KN_SPEC_MAX_BYTES);
	} else {
		kn_http_collect(rq->x, KN_SPEC_MAX_BYTES, put_collected, (void *)rq);
	}
}

/* ---- taking away ------------------------------------------------------------------------------ */

/* Would no name be left of what a function runs? */
static const char *last_user(const struct request *rq, const struct kn_image *image)
{
	__attribute__((cleanup(kn_image_list_fini_auto))) struct kn_image_list l = { .n = 0 };
	const struct kn_registry_config *config = &rq->reg->config;
	const bool one_tag = kn_view_is(kn_view_of(image->tag), rq->path.rest);

	if (!config->user || kn_images_list(config->images, &l, NULL) < 0)
		return NULL;
	for (size_t i = 0; i < l.n; i++) {
		const bool goes = strcmp(l.at[i]->repository, image->repository) == 0 &&
		                  (!one_tag || strcmp(l.at[i]->tag, image->tag) == 0);
		if (!goes && kn_digest_is(&l.at[i]->digest, &image->digest))
			return NULL;
	}
	return config->user(image, config->arg);
}

static void delete_run(struct kn_job *job)
{
	struct change *c = kn_container_of(job, struct change, job);

	(void)!kn_images_drop(c->reg->config.images, kn_view_of(c->repository), kn_view_of(c->key),
	                      &c->err);
}

static void delete_done(struct kn_job *job, bool cancelled)
{
	struct change *c = kn_container_of(job, struct change, job);
	struct kn_http_exchange *x = c->x;

	if (cancelled)
		kn_fail(&c->err, EAGAIN, "the node is stopping");
	struct kn_err err = c->err;
	change_free(c);
	if (!x)
		return;
	if (err.code) {
		answer_err(x, &err, "MANIFEST_UNKNOWN");
		return;
	}
	struct fields f = fields_new(x);
	fields_reply(&f, 202, KN_VIEW_NULL);
}

void manifest_delete(const struct request *rq)
{
	kn_auto(kn_image_unref) struct kn_image *image = find_or_answer(rq);

	if (!image)
		return;
	const char *user = last_user(rq, image);
	if (user) {
		refuse(rq->x, 409, "DENIED", "'%.150s' is used by function '%.100s': remove that first",
		       image->reference, user);
		return;
	}
	struct change *c = change_new(rq);
	if (c)
		change_submit(c, rq->x, delete_run, delete_done);
}
