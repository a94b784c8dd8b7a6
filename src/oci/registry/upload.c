/*
 * Uploads. A session gathers what its client sends in one buffer while a worker writes and hashes
 * another; the client waits (TCP's back-pressure) when both are full. One request at a time works on
 * a session; between requests it waits for the next, for a quarter of an hour. What a request ends
 * with is done by the worker as well, after the last byte: for PUT, and for POST with a digest, the
 * check of the digest and the sync to the disk.
 *
 *     begin -> [chunk ...] -> finish            a session goes on after every 202
 *     begin with digest or mount                one request
 *
 * A session that has failed (digest, full disk) is gone, with its file.
 */
#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>

#include "base/log.h"
#include "oci/registry/private.h"

#define IDLE_NS (900 * KN_NS_PER_S)

enum { ID_BYTES = 16 };

struct upload {
	struct kn_job job;
	struct kn_registry *reg;
	struct upload *next, **prev;
	char id[2 * ID_BYTES + 1];
	char *repository;
	struct kn_timer idle;
	uint64_t received;

	/* the request that works on it */
	struct kn_http_exchange *x;   /* NULL: none, or its client has left */
	bool ended;                   /* its body is complete */
	bool finish;                  /* it ends the session */
	bool once;                    /* the session is this request: it ends when the client leaves */
	struct kn_digest expect;

	/* loop and worker in turn */
	bool job_runs, commit, doomed;
	struct kn_buf filling, writing;
	struct kn_blob_writer *writer;
	struct kn_err err;
};

/* ---- life ------------------------------------------------------------------------------------- */

static void upload_free(struct upload *u)
{
	static const struct kn_http_hooks none;

	if (u->x)
		kn_http_set_hooks(u->x, &none);
	*u->prev = u->next;
	if (u->next)
		u->next->prev = u->prev;
	u->reg->n_uploads--;
	kn_timer_stop(&u->idle);
	kn_buf_fini(&u->filling);
	kn_buf_fini(&u->writing);
	kn_blob_writer_free(u->writer);
	free(u->repository);
	free(u);
}

/* Free now, or when the worker lets go of it. */
static void upload_end(struct upload *u)
{
	if (u->job_runs)
		u->doomed = true;
	else
		upload_free(u);
}

static void on_idle(struct kn_timer *t)
{
	struct upload *u = kn_container_of(t, struct upload, idle);

	kn_log(KN_INFO, "upload given up", KN_S("repository", u->repository),
	       KN_U("bytes", u->received));
	upload_end(u);
}

static void idle_start(struct upload *u)
{
	if (kn_timer_start(u->reg->config.loop, &u->idle, kn_now_ns() + IDLE_NS, NULL) < 0)
		upload_end(u);
}

static struct upload *upload_new(const struct request *rq, struct kn_err *err)
{
	struct kn_registry *reg = rq->reg;
	unsigned char random[ID_BYTES];

	if (reg->n_uploads >= MAX_UPLOADS) {
		kn_fail(err, EAGAIN, "%d uploads are under way: try again soon", MAX_UPLOADS);
		return NULL;
	}
	struct upload *u = calloc(1, sizeof(*u));
	char *repository = strndup(rq->path.name.ptr, rq->path.name.len);
	if (!u || !repository || RAND_bytes(random, sizeof(random)) != 1) {
		free(u);
		free(repository);
		kn_fail(err, ENOMEM, "no memory for an upload");
		return NULL;
	}
	u->reg = reg;
	u->repository = repository;
	kn_hex(random, sizeof(random), u->id);
	u->idle.call = on_idle;
	u->next = reg->uploads;
	u->prev = &reg->uploads;
	if (u->next)
		u->next->prev = &u->next;
	reg->uploads = u;
	reg->n_uploads++;
	return u;
}

void uploads_free(struct kn_registry *reg)
{
	while (reg->uploads)
		upload_free(reg->uploads);
}

/* ---- replies ---------------------------------------------------------------------------------- */

static struct fields progress(struct kn_http_exchange *x, const struct upload *u)
{
	struct fields f = fields_new(x);

	fields_add(&f, "Location", "/v2/%s/blobs/uploads/%s", u->repository, u->id);
	fields_add(&f, "Range", "0-%llu", (unsigned long long)(u->received ? u->received - 1 : 0));
	fields_add(&f, "Docker-Upload-UUID", "%s", u->id);
	return f;
}

static void created(const struct request *rq, const struct kn_digest *d)
{
	struct fields f = fields_new(rq->x);

	fields_add(&f, "Location", "/v2/%.*s/blobs/%s", (int)rq->path.name.len, rq->path.name.ptr,
	           d->text);
	fields_add(&f, "Docker-Content-Digest", "%s", d->text);
	fields_reply(&f, 201, KN_VIEW_NULL);
}

/* Take the exchange away from the session, to answer it. */
static struct kn_http_exchange *take_exchange(struct upload *u)
{
	static const struct kn_http_hooks none;
	struct kn_http_exchange *x = kn_take_ptr(u->x);

	if (x)
		kn_http_set_hooks(x, &none);
	u->ended = false;
	return x;
}

static void upload_fail(struct upload *u)
{
	struct kn_http_exchange *x = take_exchange(u);
	struct kn_err err = u->err;

	if (err.code != EBADMSG)
		kn_log(KN_WARN, "upload failed", KN_S("repository", u->repository), KN_E(&err));
	upload_end(u);
	if (x)
		answer_err(x, &err, "BLOB_UPLOAD_INVALID");
}

/* ---- the worker ------------------------------------------------------------------------------- */

static int write_piece(struct upload *u, struct kn_err *err)
{
	struct kn_blobs *blobs = kn_images_blobs(u->reg->config.images);
	int r = 0;

	if (!u->writer)
		r = kn_blob_writer_new(blobs, NULL, u->reg->config.max_blob_bytes, &u->writer, err);
	if (r == 0 && u->writing.len)
		r = kn_blob_write(u->writer, u->writing.ptr, u->writing.len, err);
	return r;
}

static int commit(struct upload *u, struct kn_err *err)
{
	const struct kn_view repository = kn_view_of(u->repository);
	struct kn_digest is;

	kn_blob_expect(u->writer, &u->expect);
	int r = kn_images_pin(u->reg->config.images, repository, &u->expect, err);
	if (r < 0)
		return r;
	r = kn_blob_commit(u->writer, &is, NULL, err);
	if (r < 0)
		(void)kn_images_unpin(u->reg->config.images, repository, &u->expect);
	return r;
}

static void job_run(struct kn_job *job)
{
	struct upload *u = kn_container_of(job, struct upload, job);

	if (write_piece(u, &u->err) == 0 && u->commit)
		(void)!commit(u, &u->err);
	if (u->err.code) {   /* its room comes back before the client hears of it */
		kn_blob_writer_free(u->writer);
		u->writer = NULL;
	}
}

/* ---- the loop --------------------------------------------------------------------------------- */

static void job_done(struct kn_job *job, bool cancelled);

static void job_start(struct upload *u, bool last)
{
	struct kn_buf full = u->filling;

	u->filling = u->writing;
	u->writing = full;
	u->commit = last && u->finish;
	u->job = (struct kn_job){ .run = job_run, .done = job_done };
	if (kn_work_submit(u->reg->config.work, &u->job, &u->err) < 0)
		upload_fail(u);
	else
		u->job_runs = true;
}

/* The request's last byte is written. */
static void request_done(struct upload *u)
{
	struct kn_http_exchange *x = take_exchange(u);

	if (!u->finish) {
		kn_buf_fini(&u->filling);
		kn_buf_fini(&u->writing);
		struct fields f = { .n = 0 };
		if (x)
			f = progress(x, u);
		idle_start(u);
		if (x)
			fields_reply(&f, 202, KN_VIEW_NULL);
		return;
	}
	struct fields f = { .n = 0 };
	if (x) {
		f = fields_new(x);
		fields_add(&f, "Location", "/v2/%s/blobs/%s", u->repository, u->expect.text);
		fields_add(&f, "Docker-Content-Digest", "%s", u->expect.text);
	}
	upload_end(u);
	if (x)
		fields_reply(&f, 201, KN_VIEW_NULL);
}

/* Is there something to do, and nobody at it? */
static void step(struct upload *u)
{
	const bool over = u->ended || !u->x;

	if (u->job_runs)
		return;
	if (u->commit)
		request_done(u);   /* it is in its place */
	else if (u->filling.len >= PIECE || (over && (u->filling.len || (u->ended && u->finish))))
		job_start(u, u->ended);
	else if (over)
		request_done(u);
	else
		kn_http_pause(u->x, false);
}

static void job_done(struct kn_job *job, bool cancelled)
{
	struct upload *u = kn_container_of(job, struct upload, job);

	u->job_runs = false;
	kn_buf_clear(&u->writing);
	if (u->doomed) {
		upload_free(u);
		return;
	}
	if (cancelled)
		kn_fail(&u->err, EAGAIN, "the node is stopping");
	if (u->err.code)
		upload_fail(u);
	else
		step(u);
}

static void on_data(struct kn_http_exchange *x, struct kn_view data, void *arg)
{
	struct upload *u = arg;

	kn_buf_add_view(&u->filling, data);
	u->received += data.len;
	if (u->filling.failed) {
		kn_fail(&u->err, ENOMEM, "no memory for an upload");
		upload_fail(u);
		return;
	}
	if (u->filling.len >= MAX_WAITING)
		kn_http_pause(x, true);
	if (u->filling.len >= PIECE)
		step(u);
}

static void on_end(struct kn_http_exchange *x, void *arg)
{
	struct upload *u = arg;

	(void)x;
	u->ended = true;
	step(u);
}

/* What has come stays: the client may ask for the state and go on. */
static void on_gone(struct kn_http_exchange *x, void *arg)
{
	struct upload *u = arg;

	(void)x;
	u->x = NULL;
	if (u->once && !u->ended) {
		upload_end(u);
		return;
	}
	u->finish = u->finish && u->ended;
	step(u);
}

/* Let the body of this request come. */
static void receive(struct upload *u, const struct request *rq)
{
	kn_timer_stop(&u->idle);
	u->x = rq->x;
	u->ended = false;
	kn_http_set_hooks(rq->x, &(struct kn_http_hooks){
		                         .data = on_data, .end = on_end, .gone = on_gone, .arg = u });
}

/* ---- begin ------------------------------------------------------------------------------------ */

static bool mount(const struct request *rq)
{
	struct kn_images *images = rq->reg->config.images;
	const struct kn_view from = query_value(rq, "from");
	struct kn_digest d;

	if (!registry_name_ok(from) || kn_digest_parse(query_value(rq, "mount"), &d, NULL) < 0 ||
	    !kn_images_blob_in(images, from, &d) ||
	    kn_images_pin(images, rq->path.name, &d, NULL) < 0)
		return false;
	if (!kn_images_blob_in(images, rq->path.name, &d))   /* removed in between */
		return false;
	created(rq, &d);
	return true;
}

void upload_begin(const struct request *rq)
{
	const struct kn_view digest = query_value(rq, "digest");
	struct kn_digest expect;
	struct kn_err err = KN_ERR_INIT;

	if (query_value(rq, "mount").ptr && mount(rq))
		return;
	if (digest.ptr && kn_digest_parse(digest, &expect, &err) < 0) {
		refuse(rq->x, 400, "DIGEST_INVALID", "%s", kn_err_text(&err));
		return;
	}
	struct upload *u = upload_new(rq, &err);
	if (!u) {
		answer_err(rq->x, &err, "BLOB_UPLOAD_INVALID");
		return;
	}
	if (digest.ptr) {
		u->expect = expect;
		u->finish = u->once = true;
		receive(u, rq);
		return;
	}
	struct fields f = progress(rq->x, u);
	idle_start(u);
	fields_reply(&f, 202, KN_VIEW_NULL);
}

/* ---- go on ------------------------------------------------------------------------------------ */

/* The session that the path names, with nobody at it; NULL after answering. */
static struct upload *find_or_answer(const struct request *rq)
{
	struct upload *u = rq->reg->uploads;

	while (u && !(kn_view_is(kn_view_of(u->id), rq->path.rest) &&
	              kn_view_is(kn_view_of(u->repository), rq->path.name)))
		u = u->next;
	if (!u || u->doomed)
		refuse(rq->x, 404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload in '" KN_VIEW_FMT
		       "': begin again", KN_VIEW_ARG(rq->path.name));
	else if (u->x || u->ended || u->commit)
		refuse(rq->x, 409, "BLOB_UPLOAD_INVALID", "another request is at this upload");
	else
		return u;
	return NULL;
}

static void out_of_range(const struct request *rq, const struct upload *u)
{
	struct fields f = progress(rq->x, u);

	fields_reply(&f, 416, KN_VIEW_NULL);
}

/* Does the chunk follow what is here, and has it the length that it says? False after answering. */
static bool chunk_fits(const struct request *rq, const struct upload *u)
{
	const struct kn_http_head *head = kn_http_head(rq->x);
	const struct kn_view range = kn_http_header(head, "content-range");
	uint64_t first, last;

	if (!range.ptr)
		return true;
	if (!registry_chunk_parse(range, &first, &last) || first != u->received) {
		out_of_range(rq, u);
		return false;
	}
	const unsigned long long bytes = last - first + 1;
	if (head->content_length >= 0 && (uint64_t)head->content_length != bytes) {
		refuse(rq->x, 400, "SIZE_INVALID", "Content-Range says %llu bytes, Content-Length %lld",
		       bytes, (long long)head->content_length);
		return false;
	}
	return true;
}

void upload_chunk(const struct request *rq)
{
	struct upload *u = find_or_answer(rq);

	if (u && chunk_fits(rq, u))
		receive(u, rq);
}

void upload_finish(const struct request *rq)
{
	const struct kn_view digest = query_value(rq, "digest");
	struct kn_digest expect;
	struct kn_err err = KN_ERR_INIT;

	struct upload *u = find_or_answer(rq);
	if (!u)
		return;
	if (kn_digest_parse(digest, &expect, &err) < 0) {
		refuse(rq->x, 400, "DIGEST_INVALID", "%s",
		       digest.ptr ? kn_err_text(&err) : "the query parameter 'digest' is missing");
		return;
	}
	if (!chunk_fits(rq, u))
		return;
	u->expect = expect;
	u->finish = true;
	receive(u, rq);
}

void upload_status(const struct request *rq)
{
	const struct upload *u = find_or_answer(rq);

	if (!u)
		return;
	struct fields f = progress(rq->x, u);
	fields_reply(&f, 204, KN_VIEW_NULL);
}

void upload_cancel(const struct request *rq)
{
	struct upload *u = find_or_answer(rq);

	if (!u)
		return;
	upload_end(u);
	struct fields f = fields_new(rq->x);
	fields_reply(&f, 204, KN_VIEW_NULL);
}
