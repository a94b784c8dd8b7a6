/*
 * Blobs on their way out: a worker reads a piece, the loop hands it to the client, and the next is
 * read when that client has taken most of it. So neither a slow disk nor a slow client holds anything
 * up, and a download costs one piece of memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "oci/registry/private.h"

struct download {
	struct kn_job job;
	struct kn_registry *reg;
	struct kn_http_exchange *x;   /* NULL once the client has left */
	int fd;
	uint64_t at, left;
	bool reading;
	ssize_t got;                  /* of the last piece, or -errno */
	char piece[PIECE];
};

static void download_free(struct download *d)
{
	static const struct kn_http_hooks none;

	if (d->x)
		kn_http_set_hooks(d->x, &none);
	kn_close(d->fd);
	free(d);
}

/* What was announced cannot be sent: cut, so that nobody takes it for whole. */
static void give_up(struct download *d, const char *why)
{
	struct kn_http_exchange *x = d->x;

	kn_log(KN_ERROR, "blob cannot be read", KN_S("why", why));
	download_free(d);
	if (x)
		kn_http_abort(x);
}

static void read_piece(struct kn_job *job)
{
	struct download *d = kn_container_of(job, struct download, job);
	ssize_t n = pread(d->fd, d->piece, kn_min(d->left, (uint64_t)PIECE), (off_t)d->at);

	d->got = n < 0 ? -errno : n;
}

static void go_on(struct download *d)
{
	struct kn_err err = KN_ERR_INIT;

	if (d->left == 0) {
		struct kn_http_exchange *x = d->x;
		download_free(d);
		kn_http_finish(x);
		return;
	}
	if (d->reading || kn_http_unsent(d->x) > KN_HTTP_HIGH_WATER)
		return;
	if (kn_work_submit(d->reg->config.work, &d->job, &err) < 0)
		give_up(d, kn_err_text(&err));
	else
		d->reading = true;
}

static void piece_read(struct kn_job *job, bool cancelled)
{
	struct download *d = kn_container_of(job, struct download, job);

	d->reading = false;
	if (!d->x || cancelled) {
		download_free(d);
		return;
	}
	if (d->got <= 0) {
		give_up(d, d->got < 0 ? strerror((int)-d->got) : "it is shorter than it was");
		return;
	}
	d->at += (uint64_t)d->got;
	d->left -= (uint64_t)d->got;
	kn_http_write(d->x, (struct kn_view){ d->piece, (size_t)d->got });
	go_on(d);
}

static void on_drain(struct kn_http_exchange *x, void *arg)
{
	(void)x;
	go_on(arg);
}

static void on_gone(struct kn_http_exchange *x, void *arg)
{
	struct download *d = arg;

	(void)x;
	d->x = NULL;
	if (!d->reading)
		download_free(d);
}

static void download_start(const struct request *rq, int fd, uint64_t at, uint64_t bytes,
                           struct fields *f, int status)
{
	struct download *d = calloc(1, sizeof(*d));

	if (!d) {
		kn_close(fd);
		refuse(rq->x, 503, "UNAVAILABLE", "out of memory");
		return;
	}
	d->job = (struct kn_job){ .run = read_piece, .done = piece_read };
	d->reg = rq->reg;
	d->x = rq->x;
	d->fd = fd;
	d->at = at;
	d->left = bytes;
	kn_http_set_hooks(rq->x, &(struct kn_http_hooks){ .drain = on_drain, .gone = on_gone, .arg = d });
	kn_http_begin(rq->x, status, f->at, f->n, (int64_t)bytes);
	go_on(d);
}

void blob_send(const struct request *rq, const struct kn_digest *digest, struct fields *f)
{
	const struct kn_http_head *head = kn_http_head(rq->x);
	const struct kn_view range = kn_http_header(head, "range");
	uint64_t bytes, first, last;
	struct kn_err err = KN_ERR_INIT;

	kn_auto(kn_close) int fd = kn_blob_open(kn_images_blobs(rq->reg->config.images), digest, &bytes,
	                                        &err);
	if (fd < 0) {
		answer_err(rq->x, &err, "BLOB_UNKNOWN");
		return;
	}
	fields_add(f, "Docker-Content-Digest", "%s", digest->text);
	fields_add(f, "ETag", "\"%s\"", digest->text);
	fields_add(f, "Accept-Ranges", "bytes");
	if (kn_view_is(head->method, KN_VIEW("HEAD"))) {
		kn_http_begin(rq->x, 200, f->at, f->n, (int64_t)bytes);
		kn_http_finish(rq->x);
		return;
	}
	switch (range.ptr ? registry_range_parse(range, bytes, &first, &last) : RANGE_WHOLE) {
	case RANGE_WHOLE:
		download_start(rq, kn_take_fd(fd), 0, bytes, f, 200);
		break;
	case RANGE_PART:
		fields_add(f, "Content-Range", "bytes %llu-%llu/%llu", (unsigned long long)first,
		           (unsigned long long)last, (unsigned long long)bytes);
		download_start(rq, kn_take_fd(fd), first, last - first + 1, f, 206);
		break;
	case RANGE_NONE:
		fields_add(f, "Content-Range", "bytes */%llu", (unsigned long long)bytes);
		fields_reply(f, 416, KN_VIEW_NULL);
		break;
	}
}
