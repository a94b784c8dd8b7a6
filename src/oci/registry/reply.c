#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/json.h"
#include "oci/registry/private.h"

struct fields fields_new(struct kn_http_exchange *x)
{
	struct fields f = { .x = x };

	fields_add(&f, "Docker-Distribution-API-Version", "registry/2.0");
	return f;
}

/* A field that finds no memory is left out: none of them changes what the reply means. */
void fields_add(struct fields *f, const char *name, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(text) || f->n == MAX_FIELDS)
		return;
	char *value = kn_arena_copy(kn_http_arena(f->x), text, (size_t)n);
	if (value)
		f->at[f->n++] = (struct kn_header){ kn_view_of(name), { value, (size_t)n } };
}

void fields_reply(struct fields *f, int status, struct kn_view body)
{
	kn_http_reply(f->x, status, f->at, f->n, body);
}

void reply_json(struct fields *f, const char *type, json_t *value)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	if (value)
		kn_json_print(&b, value, 0);
	json_decref(value);
	if (!value || b.failed) {
		refuse(f->x, 503, "UNAVAILABLE", "out of memory");
		return;
	}
	fields_add(f, "Content-Type", "%s", type);
	fields_reply(f, 200, kn_buf_view(&b));
}

/* Bytes from outside that are not UTF-8 make json_string() fail; the reply then says less. */
void kn_registry_error(struct kn_http_exchange *x, int status, const char *code,
                       const char *message, const struct kn_header *header)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	json_t *text = json_string(message);
	kn_auto(json_decref) json_t *o = json_pack("{s:[{s:s, s:o}]}", "errors", "code", code,
	                                           "message", text ? text : json_string(""));
	struct fields f = fields_new(x);

	if (o)
		kn_json_print(&b, o, 0);
	fields_add(&f, "Content-Type", KN_HTTP_JSON);
	if (status == 429 || status == 503)
		fields_add(&f, "Retry-After", "1");
	if (header)
		f.at[f.n++] = *header;
	fields_reply(&f, status, kn_buf_view(&b));
}

void refuse(struct kn_http_exchange *x, int status, const char *code, const char *fmt, ...)
{
	char text[KN_ERR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	kn_registry_error(x, status, code, text, NULL);
}

void answer_err(struct kn_http_exchange *x, const struct kn_err *err, const char *code)
{
	const char *why = kn_err_text(err);

	switch (err->code) {
	case EBADMSG:
		refuse(x, 400, "DIGEST_INVALID", "%s", why);
		break;
	case EINVAL:
	case ENOTSUP:
		refuse(x, 400, code, "%s", why);
		break;
	case EFBIG:
		refuse(x, 413, "SIZE_INVALID", "%s", why);
		break;
	case ENOENT:
		refuse(x, 404, code, "%s", why);
		break;
	case EAGAIN:
		refuse(x, 429, "TOOMANYREQUESTS", "%s", why);
		break;
	case ENOSPC:
	case EDQUOT:
		refuse(x, 507, "NO_SPACE", "%s", why);
		break;
	default:
		refuse(x, 503, "UNAVAILABLE", "%s", why);
		break;
	}
}
