#include <errno.h>
#include <string.h>

#include "faas/async/private.h"

/* ---- writing --------------------------------------------------------------------------------- */

/* Fields that belong to this hop, to Kiln, or to the queue itself. */
static bool is_kept(struct kn_view name)
{
	static const char *const dropped[] = {
		"authorization", "connection",        "content-length", "expect",
		"host",          "keep-alive",        "te",             "trailer",
		"upgrade",       "transfer-encoding", "x-call-id",      "x-callback-url",
		"x-start-time",
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(dropped); i++)
		if (kn_view_is_nocase(name, kn_view_of(dropped[i])))
			return false;
	return true;
}

/* A value that is no UTF-8 cannot be written; json_stringn() gives NULL, and the field is left out. */
static json_t *fields_json(const struct kn_http_head *head)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < head->n_headers; i++) {
		const struct kn_header *h = &head->headers[i];
		if (!is_kept(h->name))
			continue;
		json_t *pair = json_pack("[s#, s#]", h->name.ptr, (int)h->name.len, h->value.ptr,
		                         (int)h->value.len);
		if (pair)
			json_array_append_new(list, pair);
	}
	return list;
}

json_t *record_make(const struct kn_http_head *head, struct kn_view name, struct kn_view path,
                    struct kn_view id, struct kn_view body)
{
	struct kn_view callback = kn_http_header(head, "X-Callback-Url");
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	json_t *o = json_object();

	kn_base64(&text, body.ptr, body.len);
	if (!o || text.failed) {
		json_decref(o);
		return NULL;
	}
	int r = json_object_set_new(o, "function", json_stringn(name.ptr, name.len));
	r |= json_object_set_new(o, "path", json_stringn(path.ptr, path.len));
	r |= json_object_set_new(o, "id", json_stringn(id.ptr, id.len));
	r |= json_object_set_new(o, "method", json_stringn(head->method.ptr, head->method.len));
	r |= json_object_set_new(o, "fields", fields_json(head));
	r |= json_object_set_new(o, "body", json_stringn(text.ptr ? text.ptr : "", text.len));
	if (callback.len)
		r |= json_object_set_new(o, "callback", json_stringn(callback.ptr, callback.len));
	if (r == 0)
		return o;
	json_decref(o);
	return NULL;
}

/* ---- reading --------------------------------------------------------------------------------- */

int record_read(struct async_call *c, struct kn_err *err)
{
	static const char *const needed[] = { "function", "path", "id", "method",
		                              "fields",   "body", NULL };
	const char *body = "";
	struct kn_err why = KN_ERR_INIT;

	if (kn_json_require(c->record, needed, &why) < 0 ||
	    kn_json_str(c->record, "function", &c->function, &why) < 0 ||
	    kn_json_str(c->record, "path", &c->path, &why) < 0 ||
	    kn_json_str(c->record, "id", &c->id, &why) < 0 ||
	    kn_json_str(c->record, "method", &c->method, &why) < 0 ||
	    kn_json_str(c->record, "callback", &c->callback, &why) < 0 ||
	    kn_json_str(c->record, "body", &body, &why) < 0 ||
	    kn_unbase64(kn_view_of(body), &c->body, &why) < 0)
		return kn_fail(err, EUCLEAN, "stored call: %s", kn_err_text(&why));
	json_object_del(c->record, "body");   /* it is there, decoded */
	return c->body.failed ? kn_fail(err, ENOMEM, "no memory for a stored call") : 0;
}

size_t record_fields(const struct async_call *c, struct kn_arena *arena, struct kn_header **ret)
{
	const json_t *list = json_object_get(c->record, "fields");
	size_t most = json_array_size(list), n = 0;
	struct kn_header *out = kn_arena_alloc(arena, (most + 1) * sizeof(*out));

	if (!out)
		return 0;
	for (size_t i = 0; i < most; i++) {
		const json_t *pair = json_array_get(list, i);
		const char *name = json_string_value(json_array_get(pair, 0));
		const char *value = json_string_value(json_array_get(pair, 1));
		if (name && value)
			out[n++] = (struct kn_header){ kn_view_of(name), kn_view_of(value) };
	}
	out[n++] = (struct kn_header){ KN_VIEW("X-Call-Id"), kn_view_of(c->id) };
	*ret = out;
	return n;
}

bool record_url_ok(struct kn_view url)
{
	if (url.len > MAX_URL || (!kn_view_starts(url, KN_VIEW("http://")) &&
	                          !kn_view_starts(url, KN_VIEW("https://"))))
		return false;
	for (size_t i = 0; i < url.len; i++)
		if (url.ptr[i] <= ' ' || url.ptr[i] > '~')
			return false;
	return true;
}
