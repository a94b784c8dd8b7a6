/*
 * GET /system/logs: one JSON object a line, as OpenFaaS' clients read it; with follow=1 the stream
 * goes on until the client leaves or the function is removed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/time.h"
#include "faas/control/private.h"

struct reader {
	struct kn_log_follow follow;
	struct kn_http_exchange *x;
	char name[64];
	char instance[64];            /* "" for all */
};

struct wish {
	struct kn_view name, instance;
	size_t tail;
	uint64_t since_ns;
	bool follow;
};

static void print_line(struct kn_buf *b, const char *name, const struct kn_log_line *line)
{
	char at[KN_RFC3339_LEN];
	json_t *text = json_stringn(line->text.ptr, line->text.len);

	kn_rfc3339(line->wall_ns, at);
	/* Bytes that are not UTF-8 have no JSON form: say so instead of losing the line. */
	if (!text)
		text = json_sprintf("(%zu bytes that are not UTF-8)", line->text.len);
	kn_auto(json_decref) json_t *o =
		json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", name, "namespace", KN_NAMESPACE,
	                  "instance", line->instance, "timestamp", at, "text", text);
	if (o) {
		kn_json_print(b, o, 0);
		kn_buf_add(b, "\n", 1);
	}
}

struct printing {
	struct kn_buf out;
	const char *name;
};

static void on_kept_line(const struct kn_log_line *line, void *arg)
{
	struct printing *p = arg;

	print_line(&p->out, p->name, line);
}

/* ---- following ----------------------------------------------------------------------------- */

static void reader_free(struct reader *r)
{
	kn_engine_unfollow(&r->follow);
	free(r);
}

static void on_gone(struct kn_http_exchange *x, void *arg)
{
	(void)x;
	reader_free(arg);
}

static void on_line(struct kn_log_follow *f, const struct kn_log_line *line)
{
	struct reader *r = f->arg;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	if (r->instance[0] && strcmp(r->instance, line->instance) != 0)
		return;
	/* A reader that does not keep up must not cost the node its memory. */
	if (kn_http_unsent(r->x) > MAX_LOG_UNSENT) {
		struct kn_http_exchange *x = r->x;
		reader_free(r);
		kn_http_abort(x);
		return;
	}
	print_line(&b, r->name, line);
	kn_http_write(r->x, kn_buf_view(&b));
}

static void on_function_gone(struct kn_log_follow *f)
{
	static const struct kn_http_hooks none;
	struct reader *r = f->arg;
	struct kn_http_exchange *x = r->x;

	free(r);
	kn_http_set_hooks(x, &none);
	kn_http_finish(x);
}

static void start_following(const struct call *c, const struct wish *w, const char *name)
{
	struct reader *r = calloc(1, sizeof(*r));

	if (!r) {
		kn_http_abort(c->x);
		return;
	}
	r->x = c->x;
	r->follow.line = on_line;
	r->follow.gone = on_function_gone;
	r->follow.arg = r;
	snprintf(r->name, sizeof(r->name), "%s", name);
	if (w->instance.len)
		memcpy(r->instance, w->instance.ptr, w->instance.len);
	if (kn_engine_follow(c->ctl->config.engine, kn_view_of(r->name), &r->follow, NULL) < 0) {
		free(r);
		kn_http_finish(c->x);
		return;
	}
	kn_http_set_hooks(c->x, &(struct kn_http_hooks){ .gone = on_gone, .arg = r });
}

/* ---- the request --------------------------------------------------------------------------- */

/* OpenFaaS' clients send -1 for "all". */
static int read_tail(struct kn_view v, size_t *ret, struct kn_err *err)
{
	uint64_t n = 0;

	if (v.len == 0 || v.ptr[0] == '-')
		return 0;
	if (kn_parse_u64(v, 1000000, &n, err) < 0)
		return kn_while(err, "query parameter 'tail'");
	*ret = (size_t)n;
	return 0;
}

static int read_since(struct kn_view v, uint64_t *ret, struct kn_err *err)
{
	if (v.len && kn_parse_rfc3339(v, ret, err) < 0)
		return kn_while(err, "query parameter 'since'");
	return 0;
}

static bool read_wish(const struct call *c, struct wish *w)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_view tail, since, name;

	*w = (struct wish){ .follow = query_is_true(c->x, "follow") };
	if (!query_text(c->x, "name", &name) || !query_text(c->x, "instance", &w->instance) ||
	    !query_text(c->x, "tail", &tail) || !query_text(c->x, "since", &since))
		return false;
	if (kn_function_split(name, &w->name, &err) < 0 || read_tail(tail, &w->tail, &err) < 0 ||
	    read_since(since, &w->since_ns, &err) < 0) {
		kn_reply_fail(c->x, &err, "GET /system/logs?name=NAME&tail=100&follow=1");
		return false;
	}
	if (w->instance.len >= sizeof(((struct reader *)NULL)->instance)) {
		kn_reply_error(c->x, 400, "query parameter 'instance' is too long", NULL);
		return false;
	}
	return true;
}

void read_logs(const struct call *c)
{
	const struct kn_header type = { KN_VIEW("Content-Type"), KN_VIEW("application/x-ndjson") };
	struct printing p = { .out = KN_BUF_INIT };
	struct wish w;

	if (!read_wish(c, &w))
		return;
	const struct entry *e = entry_find(c->ctl, w.name);
	if (!e) {
		kn_reply_error(c->x, 404, "there is no function of this name",
		               "see what there is with: kiln list");
		return;
	}
	p.name = e->fn->name;
	const char *instance =
		w.instance.len ? kn_arena_copy(kn_http_arena(c->x), w.instance.ptr, w.instance.len)
			       : NULL;
	/* One that is not in the engine has printed nothing. */
	(void)!kn_engine_logs(c->ctl->config.engine, w.name, w.tail, w.since_ns, instance,
	                      on_kept_line, &p, NULL);
	if (p.out.failed) {
		kn_reply_error(c->x, 503, "out of memory", "ask for fewer lines with tail=N");
	} else if (!w.follow) {
		kn_http_reply(c->x, 200, &type, 1, kn_buf_view(&p.out));
	} else {
		kn_http_begin(c->x, 200, &type, 1, -1);
		kn_http_write(c->x, kn_buf_view(&p.out));
		start_following(c, &w, p.name);
	}
	kn_buf_fini(&p.out);
}
