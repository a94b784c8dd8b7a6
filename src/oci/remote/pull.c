/*
 * Pull: the manifest (an index leads to the one for linux/amd64), then its blobs, each under its
 * digest as it arrives, then the name. Nothing is removed meanwhile, and a pull that fails leaves at
 * most whole blobs, which the next collection takes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "oci/remote/private.h"

static const char ACCEPT[] = KN_TYPE_MANIFEST ", " KN_TYPE_INDEX ", " KN_TYPE_DOCKER_MANIFEST
					       ", " KN_TYPE_DOCKER_LIST;

struct pull {
	struct kn_remote *remote;
	struct kn_images *images;
	const struct kn_ref *ref;
	struct kn_view repository;       /* without the registry */
	struct kn_arena arena;
	uint64_t max_bytes;

	struct kn_buf index, manifest;   /* index: empty when the reference leads to a manifest */
	char index_type[128], manifest_type[128];
	struct kn_digest index_digest, manifest_digest;
};

/* ---- documents -------------------------------------------------------------------------------- */

static int document_get(struct pull *p, const char *key, struct kn_buf *ret, char type[128],
                        struct kn_err *err)
{
	__attribute__((cleanup(remote_reply_fini_auto))) struct remote_reply reply = REMOTE_REPLY;
	struct remote_call call = REMOTE_CALL;
	char what[200];

	call.accept = ACCEPT;
	call.path = kn_arena_printf(&p->arena, "/v2/%.*s/manifests/%s", (int)p->repository.len,
	                            p->repository.ptr, key);
	if (!call.path)
		return kn_fail(err, ENOMEM, "pull: out of memory");
	snprintf(what, sizeof(what), "'%.*s', %s", (int)kn_min(p->repository.len, (size_t)90),
	         p->repository.ptr, key);
	int r = remote_send(p->remote, &call, &reply, err);
	if (r == 0)
		r = remote_check(p->remote, &reply, what, err);
	if (r < 0)
		return r;
	struct kn_view rest = kn_view_of(reply.type), bare = KN_VIEW_NULL;
	kn_view_split(&rest, ';', &bare);
	bare = kn_view_trim(bare);
	snprintf(type, 128, "%.*s", (int)bare.len, bare.ptr ? bare.ptr : "");
	*ret = reply.body;
	reply.body = KN_BUF_INIT;
	return 0;
}

/* What was asked for by digest must have it; a tag says which digest it has by what came. */
static int digest_check(const struct kn_buf *text, const struct kn_digest *want,
                        struct kn_digest *ret, struct kn_err *err)
{
	const bool any = !want->text[0];

	int r = kn_digest_of(any ? KN_SHA256 : kn_digest_kind(want), text->ptr ? text->ptr : "",
	                     text->len, ret, err);
	if (r == 0 && !any && !kn_digest_is(ret, want))
		r = kn_fail(err, EBADMSG, "the registry was asked for %s, but sent %s", want->text,
		            ret->text);
	return r;
}

static const struct kn_descriptor *choose(const struct kn_index *index)
{
	for (size_t i = 0; i < index->n_manifests; i++) {
		const struct kn_platform *p = &index->manifests[i].platform;
		if (p->os && strcmp(p->os, "linux") == 0 && p->architecture &&
		    strcmp(p->architecture, "amd64") == 0 &&
		    kn_media_of(index->manifests[i].media_type) == KN_MEDIA_MANIFEST)
			return &index->manifests[i];
	}
	return NULL;
}

/* The document was an index: it is kept, and the manifest that it leads to takes its place. */
static int follow_index(struct pull *p, struct kn_err *err)
{
	struct kn_index index = { .n_manifests = 0 };

	p->index = p->manifest;
	p->manifest = KN_BUF_INIT;
	memcpy(p->index_type, p->manifest_type, sizeof(p->index_type));
	p->index_digest = p->manifest_digest;
	int r = kn_spec_index(kn_buf_view(&p->index), &p->arena, &index, err);
	if (r < 0)
		return r;
	const struct kn_descriptor *d = choose(&index);
	if (!d)
		return kn_fail(err, ENOEXEC, "it has no image for linux/amd64, which this node runs");
	r = document_get(p, d->digest.text, &p->manifest, p->manifest_type, err);
	return r < 0 ? r : digest_check(&p->manifest, &d->digest, &p->manifest_digest, err);
}

static int documents_get(struct pull *p, struct kn_err *err)
{
	const struct kn_digest *want = &p->ref->digest;

	int r = document_get(p, want->text[0] ? want->text : p->ref->tag, &p->manifest,
	                     p->manifest_type, err);
	if (r == 0)
		r = digest_check(&p->manifest, want, &p->manifest_digest, err);
	if (r == 0 && kn_media_of(p->manifest_type) == KN_MEDIA_INDEX)
		r = follow_index(p, err);
	return r;
}

/* ---- blobs ------------------------------------------------------------------------------------ */

static int into_blob(const void *ptr, size_t len, void *arg, struct kn_err *err)
{
	return kn_blob_write(arg, ptr, len, err);
}

static int blob_get(struct pull *p, const struct kn_descriptor *d, struct kn_err *err)
{
	struct kn_blobs *blobs = kn_images_blobs(p->images);
	__attribute__((cleanup(remote_reply_fini_auto))) struct remote_reply reply = REMOTE_REPLY;
	kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = NULL;
	struct remote_call call = REMOTE_CALL;
	struct kn_digest is;
	uint64_t bytes;

	if (kn_blob_has(blobs, &d->digest) || kn_media_is_elsewhere(d->media_type))
		return 0;
	int r = kn_blob_writer_new(blobs, &d->digest, d->bytes, &w, err);
	if (r < 0)
		return r;
	call.path = kn_arena_printf(&p->arena, "/v2/%.*s/blobs/%s", (int)p->repository.len,
	                            p->repository.ptr, d->digest.text);
	call.sink = into_blob;
	call.arg = w;
	if (!call.path)
		return kn_fail(err, ENOMEM, "pull: out of memory");
	r = remote_send(p->remote, &call, &reply, err);
	if (r == 0)
		r = remote_check(p->remote, &reply, d->digest.text, err);
	if (r == 0)
		r = kn_blob_commit(w, &is, &bytes, err);
	if (r == 0 && bytes != d->bytes)
		r = kn_fail(err, EBADMSG, "blob %s has %llu bytes, its manifest says %llu",
		            d->digest.text, (unsigned long long)bytes, (unsigned long long)d->bytes);
	return r;
}

static int blobs_get(struct pull *p, struct kn_err *err)
{
	struct kn_remote *remote = p->remote;
	struct kn_manifest m = { .n_layers = 0 };

	int r = kn_spec_manifest(kn_buf_view(&p->manifest), &p->arena, &m, err);
	if (r < 0)
		return r;
	remote->told = 0;
	remote->total = m.config.bytes;
	for (size_t i = 0; i < m.n_layers && remote->total <= p->max_bytes; i++)
		remote->total += m.layers[i].bytes;
	if (remote->total > p->max_bytes)
		return kn_fail(err, EFBIG, "the image is larger than the %llu bytes that are taken",
		               (unsigned long long)p->max_bytes);
	r = blob_get(p, &m.config, err);
	remote->told += m.config.bytes;
	for (size_t i = 0; r == 0 && i < m.n_layers; i++) {
		r = blob_get(p, &m.layers[i], err);
		remote->told += m.layers[i].bytes;
	}
	return r;
}

/* ---- the name --------------------------------------------------------------------------------- */

static int put(struct pull *p, bool index, bool named, struct kn_image **ret, struct kn_err *err)
{
	const struct kn_buf *text = index ? &p->index : &p->manifest;
	const char *type = index ? p->index_type : p->manifest_type;
	const struct kn_images_put what = {
		.repository = kn_view_of(p->ref->name),
		.tag = named && p->ref->tag[0] ? kn_view_of(p->ref->tag) : KN_VIEW_NULL,
		.media_type = kn_media_of(type) == KN_MEDIA_OTHER ? NULL : type,
		.content = kn_buf_view(text),
		.expect = index ? &p->index_digest : &p->manifest_digest,
		.partial = index,
		.must_run = true,
	};

	return kn_images_put(p->images, &what, ret, err);
}

static int name_it(struct pull *p, struct kn_image **ret, struct kn_err *err)
{
	struct kn_image *part = NULL;

	if (p->index.len == 0)
		return put(p, false, true, ret, err);
	int r = put(p, false, false, &part, err);
	if (r < 0)
		return r;
	kn_image_unref(part);
	return put(p, true, true, ret, err);
}

/* ---- all of it -------------------------------------------------------------------------------- */

static int pull_run(struct pull *p, struct kn_image **ret, struct kn_err *err)
{
	p->remote->phase = "pull";
	int r = documents_get(p, err);
	if (r == 0)
		r = blobs_get(p, err);
	return r < 0 ? r : name_it(p, ret, err);
}

int kn_remote_pull(struct kn_remote *remote, struct kn_images *images, const struct kn_ref *ref,
                   uint64_t max_bytes, struct kn_image **ret, struct kn_err *err)
{
	struct pull p = { .remote = remote, .images = images, .ref = ref, .max_bytes = max_bytes };
	struct kn_view host;
	char text[KN_REF_MAX];

	kn_ref_text(ref, text);
	if (!kn_ref_registry(ref, &host, &p.repository))
		return kn_fail(err, EINVAL, "'%.150s' names no registry to pull from", text);
	kn_arena_init(&p.arena);
	kn_images_hold(images);
	int r = pull_run(&p, ret, err);
	kn_images_release(images);
	kn_buf_fini(&p.index);
	kn_buf_fini(&p.manifest);
	kn_arena_fini(&p.arena);
	return r < 0 ? kn_while(err, "pull '%.150s'", text) : 0;
}
