#include "bare_internal.h"

void kiln_reply_status(struct kiln_reply *r, int status)
{
	r->status = status >= 200 && status <= 599 ? status : 500;
}

void kiln_reply_type(struct kiln_reply *r, const char *content_type)
{
	r->type_len = (uint16_t)strnlen(content_type, 255);
	memcpy(r->type, content_type, r->type_len);
}

bool kiln_reply_add(struct kiln_reply *r, const void *ptr, size_t len)
{
	if (r->overflow || len > r->room - r->len) {
		r->overflow = true;
		return false;
	}
	memcpy(r->body + r->len, ptr, len);
	r->len += len;
	return true;
}

bool kiln_reply_adds(struct kiln_reply *r, const char *text)
{
	return kiln_reply_add(r, text, strlen(text));
}

bool kiln_reply_printf(struct kiln_reply *r, const char *fmt, ...)
{
	size_t room = r->room - r->len;
	va_list ap;

	if (r->overflow)
		return false;
	va_start(ap, fmt);
	int n = kiln_vsnprintf(r->body + r->len, room, fmt, ap);
	va_end(ap);
	if ((size_t)n >= room) {       /* the NUL needs a place, too, though it is not sent */
		r->overflow = true;
		return false;
	}
	r->len += (size_t)n;
	return true;
}

void *kiln_reply_room(struct kiln_reply *r, size_t *ret_len)
{
	*ret_len = r->overflow ? 0 : r->room - r->len;
	return r->body + r->len;
}

bool kiln_reply_grow(struct kiln_reply *r, size_t used)
{
	if (r->overflow || used > r->room - r->len) {
		r->overflow = true;
		return false;
	}
	r->len += used;
	return true;
}

bool kiln_query(const struct kiln_request *request, const char *key, struct kiln_bytes *ret)
{
	const char *p = request->path.ptr, *end = p + request->path.len;
	size_t key_len = strlen(key);

	p = memchr(p, '?', request->path.len);
	while (p && p < end) {
		const char *field = p + 1;
		const char *next = memchr(field, '&', (size_t)(end - field));
		size_t len = (size_t)((next ? next : end) - field);
		if (len >= key_len && memcmp(field, key, key_len) == 0 &&
		    (len == key_len || field[key_len] == '=')) {
			size_t skip = len == key_len ? len : key_len + 1;
			*ret = (struct kiln_bytes){ field + skip, len - skip };
			return true;
		}
		p = next;
	}
	return false;
}
