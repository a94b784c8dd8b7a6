#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "oci/registry/private.h"

#define SWEEP_NS (30 * KN_NS_PER_S)

/* ---- routes ----------------------------------------------------------------------------------- */

static void show_base(const struct request *rq)
{
	struct fields f = fields_new(rq->x);

	fields_add(&f, "Content-Type", KN_HTTP_JSON);
	fields_reply(&f, 200, KN_VIEW("{}"));
}

static const struct route {
	enum path_kind kind;
	const char *method;
	enum kn_registry_right right;
	void (*handle)(const struct request *rq);
	bool blob;                /* its body may be as large as a blob */
} ROUTES[] = {
	{ PATH_BASE, "GET", KN_REGISTRY_PULL, show_base, false },
	{ PATH_BASE, "HEAD", KN_REGISTRY_PULL, show_base, false },
	{ PATH_CATALOG, "GET", KN_REGISTRY_PULL, list_repositories, false },
	{ PATH_BLOB, "GET", KN_REGISTRY_PULL, blob_get, false },
	{ PATH_BLOB, "HEAD", KN_REGISTRY_PULL, blob_get, false },
	{ PATH_BLOB, "DELETE", KN_REGISTRY_PUSH, blob_delete, false },
	{ PATH_UPLOADS, "POST", KN_REGISTRY_PUSH, upload_begin, true },
	{ PATH_UPLOAD, "PATCH", KN_REGISTRY_PUSH, upload_chunk, true },
	{ PATH_UPLOAD, "PUT", KN_REGISTRY_PUSH, upload_finish, true },
	{ PATH_UPLOAD, "GET", KN_REGISTRY_PUSH, upload_status, false },
	{ PATH_UPLOAD, "DELETE", KN_REGISTRY_PUSH, upload_cancel, false },
	{ PATH_MANIFEST, "GET", KN_REGISTRY_PULL, manifest_get, false },
	{ PATH_MANIFEST, "HEAD", KN_REGISTRY_PULL, manifest_get, false },
	{ PATH_MANIFEST, "PUT", KN_REGISTRY_PUSH, manifest_put, false },
	{ PATH_MANIFEST, "DELETE", KN_REGISTRY_PUSH, manifest_delete, false },
	{ PATH_TAGS, "GET", KN_REGISTRY_PULL, list_tags, false },
	{ PATH_REFERRERS, "GET", KN_REGISTRY_PULL, list_referrers, false },
};

struct waiting {
	struct request rq;
	const struct route *route;
};

static void on_allowed(struct kn_http_exchange *x, void *arg)
{
	const struct waiting *w = arg;

	(void)x;
	w->route->handle(&w->rq);
}

static void wrong_method(struct kn_http_exchange *x, const char *allow)
{
	const struct kn_header header = { KN_VIEW("Allow"), kn_view_of(allow) };

	kn_registry_error(x, 405, "UNSUPPORTED", "the method does not fit this path", &header);
}

/* The route, or NULL after answering. */
static const struct route *find_route(struct kn_http_exchange *x, enum path_kind kind)
{
	const struct kn_view method = kn_http_head(x)->method;
	char allow[64] = "";

	for (size_t i = 0; i < KN_ARRAY_LEN(ROUTES); i++) {
		if (ROUTES[i].kind != kind)
			continue;
		if (kn_view_is(method, kn_view_of(ROUTES[i].method)))
			return &ROUTES[i];
		size_t used = strlen(allow);
		snprintf(allow + used, sizeof(allow) - used, "%s%s", used ? ", " : "",
		         ROUTES[i].method);
	}
	if (allow[0])
		wrong_method(x, allow);
	else
		refuse(x, 404, "UNSUPPORTED", "there is nothing at this path");
	return NULL;
}

bool kn_registry_path(struct kn_view path)
{
	return kn_view_is(path, KN_VIEW("/v2")) || kn_view_starts(path, KN_VIEW("/v2/"));
}

void kn_registry_request(struct kn_registry *reg, struct kn_http_exchange *x)
{
	struct kn_view path;
	struct kn_err err = KN_ERR_INIT;

	struct waiting *w = kn_arena_alloc(kn_http_arena(x), sizeof(*w));
	if (!w) {
		refuse(x, 503, "UNAVAILABLE", "out of memory");
		return;
	}
	if (kn_http_decode(kn_http_arena(x), kn_http_head(x)->path, &path, &err) < 0) {
		refuse(x, 400, "NAME_INVALID", "%s", kn_err_text(&err));
		return;
	}
	w->rq = (struct request){ .reg = reg, .x = x };
	registry_path_parse(path, &w->rq.path);
	w->route = find_route(x, w->rq.path.kind);
	if (!w->route)
		return;
	if (w->rq.path.name.ptr && !registry_name_ok(w->rq.path.name)) {
		refuse(x, 400, "NAME_INVALID", "'" KN_VIEW_FMT "' is no name of a repository",
		       KN_VIEW_ARG(w->rq.path.name));
		return;
	}
	/* Now: a caller whose secret must be hashed first keeps its body waiting. */
	if (w->route->blob)
		kn_http_limit_body(x, reg->config.max_blob_bytes);
	if (reg->config.allow)
		reg->config.allow(x, w->route->right, w->rq.path.name, on_allowed, w, reg->config.arg);
	else
		on_allowed(x, w);
}

struct kn_view query_value(const struct request *rq, const char *key)
{
	struct kn_view raw, value = KN_VIEW_NULL;

	if (!kn_http_query(kn_http_head(rq->x)->query, key, &raw) ||
	    kn_http_decode(kn_http_arena(rq->x), raw, &value, NULL) < 0)
		return KN_VIEW_NULL;
	return value.ptr ? value : KN_VIEW("");
}

/* ---- time passes ------------------------------------------------------------------------------ */

static void sweep_run(struct kn_job *job)
{
	struct kn_registry *reg = kn_container_of(job, struct kn_registry, sweeping);

	kn_images_sweep(reg->config.images);
}

static void sweep_done(struct kn_job *job, bool cancelled)
{
	struct kn_registry *reg = kn_container_of(job, struct kn_registry, sweeping);

	(void)cancelled;
	reg->sweep_runs = false;
}

static void on_sweep(struct kn_timer *t)
{
	struct kn_registry *reg = kn_container_of(t, struct kn_registry, sweep);

	if (!reg->sweep_runs && kn_images_untidy(reg->config.images)) {
		reg->sweeping = (struct kn_job){ .run = sweep_run, .done = sweep_done };
		reg->sweep_runs = kn_work_submit(reg->config.work, &reg->sweeping, NULL) == 0;
	}
	/* The heap has room for it: it was just taken out. */
	(void)!kn_timer_start(reg->config.loop, t, kn_now_ns() + SWEEP_NS, NULL);
}

/* ---- life ------------------------------------------------------------------------------------- */

int kn_registry_new(const struct kn_registry_config *config, struct kn_registry **ret,
                    struct kn_err *err)
{
	struct kn_registry *reg = calloc(1, sizeof(*reg));

	if (!reg)
		return kn_fail(err, ENOMEM, "no memory for the registry");
	reg->config = *config;
	reg->sweep.call = on_sweep;
	int r = kn_timer_start(config->loop, &reg->sweep, kn_now_ns() + SWEEP_NS, err);
	if (r < 0) {
		free(reg);
		return r;
	}
	*ret = reg;
	return 0;
}

void kn_registry_free(struct kn_registry *reg)
{
	if (!reg)
		return;
	kn_timer_stop(&reg->sweep);
	uploads_free(reg);
	free(reg);
}

size_t kn_registry_uploads(const struct kn_registry *reg)
{
	return reg->n_uploads;
}
