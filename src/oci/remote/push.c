/* Push: every blob that the registry does not have yet, then the manifest under its tag. */
#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "oci/remote/private.h"

struct push {
	struct kn_remote *remote;
	struct kn_blobs *blobs;
	const char *repository;
	struct kn_arena arena;
};

static int no_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "push: out of memory");
}

/* 1 when the registry has the blob, 0 when it has not. */
static int blob_there(struct push *p, const struct kn_digest *d, struct kn_err *err)
{
	__attribute__((cleanup(remote_reply_fini_auto))) struct remote_reply reply = REMOTE_REPLY;
	struct remote_call call = REMOTE_CALL;

	call.method = "HEAD";
	call.path = kn_arena_printf(&p->arena, "/v2/%s/blobs/%s", p->repository, d->text);
	if (!call.path)
		return no_memory(err);
	int r = remote_send(p->remote, &call, &reply, err);
	if (r < 0 || reply.status == 404)
		return r;
	r = remote_check(p->remote, &reply, d->text, err);
	return r < 0 ? r : 1;
}

/* Where the blob goes: a path on the registry, or a URL. */
static int upload_begin(struct push *p, const char **ret, struct kn_err *err)
{
	__attribute__((cleanup(remote_reply_fini_auto))) struct remote_reply reply = REMOTE_REPLY;
	struct remote_call call = REMOTE_CALL;

	call.method = "POST";
	call.path = kn_arena_printf(&p->arena, "/v2/%s/blobs/uploads/", p->repository);
	if (!call.path)
		return no_memory(err);
	int r = remote_send(p->remote, &call, &reply, err);
	if (r == 0)
		r = remote_check(p->remote, &reply, "an upload", err);
	if (r < 0)
		return r;
	const char *at = reply.location;
	if (at[0] != '/' && strncmp(at, "https://", 8) != 0 &&
	    !(p->remote->plain && strncmp(at, "http://", 7) == 0))
		return kn_fail(err, EPROTO, "registry %s: it does not say where uploads go",
		               p->remote->host);
	*ret = kn_arena_copy(&p->arena, at, strlen(at));
	return *ret ? 0 : no_memory(err);
}

static int blob_send(struct push *p, const struct kn_descriptor *d, struct kn_err *err)
{
	__attribute__((cleanup(remote_reply_fini_auto))) struct remote_reply reply = REMOTE_REPLY;
	struct remote_call call = REMOTE_CALL;
	const char *at = "";

	kn_auto(kn_close) int fd = kn_blob_open(p->blobs, &d->digest, &call.body_bytes, err);
	if (fd < 0)
		return fd;
	int r = upload_begin(p, &at, err);
	if (r < 0)
		return r;
	call.method = "PUT";
	call.path = kn_arena_printf(&p->arena, "%s%sdigest=%s", at, strchr(at, '?') ? "&" : "?",
	                            d->digest.text);
	call.content_type = "application/octet-stream";
	call.body_fd = fd;
	if (!call.path)
		return no_memory(err);
	r = remote_send(p->remote, &call, &reply, err);
	return r < 0 ? r : remote_check(p->remote, &reply, d->digest.text, err);
}

static int blob_push(struct push *p, const struct kn_descriptor *d, struct kn_err *err)
{
	int there = kn_media_is_elsewhere(d->media_type) ? 1 : blob_there(p, &d->digest, err);
	int r = there == 0 ? blob_send(p, d, err) : there < 0 ? there : 0;

	p->remote->told += d->bytes;
	return r;
}

static int manifest_push(struct push *p, struct kn_view text, const char *tag, struct kn_err *err)
{
	__attribute__((cleanup(remote_reply_fini_auto))) struct remote_reply reply = REMOTE_REPLY;
	kn_auto(json_decref) json_t *doc = NULL;
	struct remote_call call = REMOTE_CALL;
	const char *type = KN_TYPE_MANIFEST;

	int r = kn_json_parse(text, &doc, err);
	if (r == 0)
		r = kn_json_str(doc, "mediaType", &type, err);
	if (r < 0)
		return r;
	call.method = "PUT";
	call.path = kn_arena_printf(&p->arena, "/v2/%s/manifests/%s", p->repository, tag);
	call.content_type = type;
	call.body = text;
	if (!call.path)
		return no_memory(err);
	r = remote_send(p->remote, &call, &reply, err);
	return r < 0 ? r : remote_check(p->remote, &reply, "the manifest", err);
}

static int push_run(struct push *p, const struct kn_digest *d, const char *tag, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_manifest m = { .n_layers = 0 };

	p->remote->phase = "push";
	int r = kn_blob_read(p->blobs, d, KN_SPEC_MAX_BYTES, &text, err);
	if (r == 0)
		r = kn_spec_manifest(kn_buf_view(&text), &p->arena, &m, err);
	if (r < 0)
		return r;
	p->remote->told = 0;
	p->remote->total = m.config.bytes;
	for (size_t i = 0; i < m.n_layers; i++)
		p->remote->total += m.layers[i].bytes;
	r = blob_push(p, &m.config, err);
	for (size_t i = 0; r == 0 && i < m.n_layers; i++)
		r = blob_push(p, &m.layers[i], err);
	return r < 0 ? r : manifest_push(p, kn_buf_view(&text), tag, err);
}

int kn_remote_push(struct kn_remote *remote, struct kn_blobs *blobs, const struct kn_digest *d,
                   const char *repository, const char *tag, struct kn_err *err)
{
	struct push p = { .remote = remote, .blobs = blobs, .repository = repository };

	kn_arena_init(&p.arena);
	int r = push_run(&p, d, tag, err);
	kn_arena_fini(&p.arena);
	return r < 0 ? kn_while(err, "push '%.100s:%.50s'", repository, tag) : 0;
}
