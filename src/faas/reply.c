#include "faas/reply.h"

#include <errno.h>

int kn_reply_status(const struct kn_err *err)
{
	switch (err->code) {
	case EINVAL:
	case EBADMSG:
	case ERANGE:
		return 400;
	case ENOENT:
		return 404;
	case EEXIST:
	case EBUSY:
		return 409;
	case EFBIG:
	case EMSGSIZE:
		return 413;
	case ENOTSUP:
		return 422;
	case EAGAIN:
		return 429;
	case ENOSPC:
	case EDQUOT:
		return 507;
	case ENOMEM:
	case EIO:
	case EROFS:
		return 503;
	case ETIMEDOUT:
		return 504;
	default:
		return 500;
	}
}

static void reply_buf(struct kn_http_exchange *x, int status, const struct kn_header *extra,
                      size_t n_extra, const struct kn_buf *body)
{
	struct kn_header headers[4] = { { KN_VIEW("Content-Type"), KN_VIEW(KN_HTTP_JSON) } };
	size_t n = 1;

	for (size_t i = 0; i < n_extra && n < KN_ARRAY_LEN(headers); i++)
		headers[n++] = extra[i];
	kn_http_reply(x, status, headers, n, kn_buf_view(body));
}

static void print_error(struct kn_buf *b, const char *error, const char *hint)
{
	kn_auto(json_decref) json_t *o = json_object();

	/* Bytes from outside that are not UTF-8 make json_string() fail; the reply then says less. */
	json_object_set_new(o, "error", json_string(error));
	if (hint)
		json_object_set_new(o, "hint", json_string(hint));
	kn_json_print(b, o, 0);
	kn_buf_add(b, "\n", 1);
}

void kn_reply_error(struct kn_http_exchange *x, int status, const char *error, const char *hint)
{
	static const struct kn_header unauthorized[] = {
		{ KN_VIEW("WWW-Authenticate"), KN_VIEW("Bearer realm=\"kiln\"") },
		{ KN_VIEW("WWW-Authenticate"), KN_VIEW("Basic realm=\"kiln\", charset=\"UTF-8\"") },
	};
	static const struct kn_header later = { KN_VIEW("Retry-After"), KN_VIEW("1") };
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	print_error(&b, error, hint);
	if (status == 401)
		reply_buf(x, status, unauthorized, KN_ARRAY_LEN(unauthorized), &b);
	else if (status == 429 || status == 503)
		reply_buf(x, status, &later, 1, &b);
	else
		reply_buf(x, status, NULL, 0, &b);
}

void kn_reply_fail(struct kn_http_exchange *x, const struct kn_err *err, const char *hint)
{
	kn_reply_error(x, kn_reply_status(err), kn_err_text(err), hint);
}

void kn_reply_json(struct kn_http_exchange *x, int status, json_t *value)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	if (value)
		kn_json_print(&b, value, 0);
	json_decref(value);
	kn_buf_add(&b, "\n", 1);
	if (!value || b.failed)
		kn_reply_error(x, 503, "out of memory", "try again soon");
	else
		reply_buf(x, status, NULL, 0, &b);
}
