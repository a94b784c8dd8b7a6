#include <errno.h>

#include "oci/registry/private.h"

/* The digest that the path names; false after answering. */
static bool digest_or_answer(const struct request *rq, struct kn_digest *ret)
{
	struct kn_err err = KN_ERR_INIT;

	if (kn_digest_parse(rq->path.rest, ret, &err) == 0)
		return true;
	refuse(rq->x, 400, "DIGEST_INVALID", "%s", kn_err_text(&err));
	return false;
}

static void unknown(const struct request *rq, const struct kn_digest *d)
{
	refuse(rq->x, 404, "BLOB_UNKNOWN", "repository '" KN_VIEW_FMT "' has no blob %s",
	       KN_VIEW_ARG(rq->path.name), d->text);
}

void blob_get(const struct request *rq)
{
	struct kn_digest d;

	if (!digest_or_answer(rq, &d))
		return;
	if (!kn_images_blob_in(rq->reg->config.images, rq->path.name, &d)) {
		unknown(rq, &d);
		return;
	}
	struct fields f = fields_new(rq->x);
	fields_add(&f, "Content-Type", "application/octet-stream");
	blob_send(rq, &d, &f);
}

/* A blob that a manifest names stays: the manifest would be a promise that cannot be kept. */
void blob_delete(const struct request *rq)
{
	struct kn_images *images = rq->reg->config.images;
	struct kn_digest d;

	if (!digest_or_answer(rq, &d))
		return;
	const bool pinned = kn_images_unpin(images, rq->path.name, &d);
	if (kn_images_blob_in(images, rq->path.name, &d)) {
		refuse(rq->x, 405, "UNSUPPORTED", "a manifest of '" KN_VIEW_FMT "' names this blob: "
		       "delete that first", KN_VIEW_ARG(rq->path.name));
	} else if (!pinned) {
		unknown(rq, &d);
	} else {
		struct fields f = fields_new(rq->x);
		fields_reply(&f, 202, KN_VIEW_NULL);
	}
}
