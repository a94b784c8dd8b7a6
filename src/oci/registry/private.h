/*
 * What the files of oci/registry share: the request as it was understood, the uploads, the replies.
 *
 * Thread  the loop's, except where a job runs
 */
#pragma once

#include "oci/registry.h"

enum {
	MAX_UPLOADS = 64,             /* begun and not ended */
	PIECE = 256 * 1024,           /* bytes that a worker writes or reads at a time */
	MAX_WAITING = 2 * PIECE,      /* bytes of an upload in memory, above which its client waits */
};

enum path_kind {
	PATH_NONE,
	PATH_BASE,          /* /v2/ */
	PATH_CATALOG,       /* /v2/_catalog */
	PATH_BLOB,          /* /v2/NAME/blobs/DIGEST */
	PATH_UPLOADS,       /* /v2/NAME/blobs/uploads/ */
	PATH_UPLOAD,        /* /v2/NAME/blobs/uploads/ID */
	PATH_MANIFEST,      /* /v2/NAME/manifests/TAG or DIGEST */
	PATH_TAGS,          /* /v2/NAME/tags/list */
	PATH_REFERRERS,     /* /v2/NAME/referrers/DIGEST */
};

struct registry_path {
	enum path_kind kind;
	struct kn_view name;          /* repository; not checked */
	struct kn_view rest;          /* digest, tag or id; not checked */
};

/* ---- what clients write (path.c): (pointer, length) in, no state ----------------------------- */

/** Take a decoded path apart, from its end: a repository may be called "a/blobs/b". */
void registry_path_parse(struct kn_view path, struct registry_path *ret);

/** Is this a repository's name? As the specification's grammar says, at most 255 bytes. */
bool registry_name_ok(struct kn_view name);
bool registry_tag_ok(struct kn_view tag);

/** "0-99": Content-Range of a chunk. False when it is not of that form, or ends before it begins. */
bool registry_chunk_parse(struct kn_view v, uint64_t *ret_first, uint64_t *ret_last);

enum range { RANGE_WHOLE, RANGE_PART, RANGE_NONE };

/**
 * "bytes=0-99", "bytes=100-", "bytes=-5" of something that has total bytes. RANGE_WHOLE also for what
 * a server may ignore (RFC 9110, 14.2): other units, several ranges, nonsense. RANGE_NONE: answer 416.
 */
enum range registry_range_parse(struct kn_view v, uint64_t total, uint64_t *ret_first,
                                uint64_t *ret_last);

/* ---- requests -------------------------------------------------------------------------------- */

struct kn_registry {
	struct kn_registry_config config;
	struct upload *uploads;
	size_t n_uploads;
	struct kn_timer sweep;
	struct kn_job sweeping;
	bool sweep_runs;
};

/* One request that was let in; in the exchange's arena. */
struct request {
	struct kn_registry *reg;
	struct kn_http_exchange *x;
	struct registry_path path;    /* name is checked; both are decoded */
};

/** The value of a query's key, decoded; ptr NULL when it is missing or broken. */
struct kn_view query_value(const struct request *rq, const char *key);

/* ---- replies (reply.c) ----------------------------------------------------------------------- */

enum { MAX_FIELDS = 8 };

/* Fields of a reply; those that printf makes live in the exchange's arena. */
struct fields {
	struct kn_http_exchange *x;
	struct kn_header at[MAX_FIELDS];
	size_t n;
};

/** Begin with the one that every reply has. */
struct fields fields_new(struct kn_http_exchange *x);
void fields_add(struct fields *f, const char *name, const char *fmt, ...) kn_printf(3, 4);
void fields_reply(struct fields *f, int status, struct kn_view body);

/** The errors that have a code of their own; others by answer_err(). */
void refuse(struct kn_http_exchange *x, int status, const char *code, const char *fmt, ...)
	kn_printf(4, 5);

/** Answer what went wrong while something was put in; code for what is the client's fault. */
void answer_err(struct kn_http_exchange *x, const struct kn_err *err, const char *code);

/** JSON with a media type; value is given up; NULL is answered 503. */
void reply_json(struct fields *f, const char *type, json_t *value);

/* ---- handlers -------------------------------------------------------------------------------- */

void blob_get(const struct request *rq);
void blob_delete(const struct request *rq);

/** Send a blob whole or in part, as the request asks (download.c). f: its fields so far. */
void blob_send(const struct request *rq, const struct kn_digest *d, struct fields *f);

void upload_begin(const struct request *rq);
void upload_chunk(const struct request *rq);
void upload_finish(const struct request *rq);
void upload_status(const struct request *rq);
void upload_cancel(const struct request *rq);
void uploads_free(struct kn_registry *reg);

void manifest_get(const struct request *rq);
void manifest_put(const struct request *rq);
void manifest_delete(const struct request *rq);

void list_tags(const struct request *rq);
void list_referrers(const struct request *rq);
void list_repositories(const struct request *rq);
