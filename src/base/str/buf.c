#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>

enum { FIRST_CAP = 64 };

/* cap counts the byte for the NUL, too. */
bool kn_buf_reserve(struct kn_buf *b, size_t bytes)
{
	if (b->failed)
		return false;
	if (bytes < b->cap - b->len)   /* cap is 0 only while len is 0 */
		return true;
	if (bytes >= SIZE_MAX / 2 - b->len) {
		b->failed = true;
		return false;
	}

	size_t cap = kn_max(b->cap + b->cap / 2, (size_t)FIRST_CAP);
	cap = kn_max(cap, b->len + bytes + 1);
	char *p = realloc(b->ptr, cap);
	if (!p) {
		b->failed = true;
		return false;
	}
	p[b->len] = '\0';
	b->ptr = p;
	b->cap = cap;
	return true;
}

void kn_buf_add(struct kn_buf *b, const void *ptr, size_t len)
{
	if (!kn_buf_reserve(b, len))
		return;
	if (len)
		memcpy(b->ptr + b->len, ptr, len);
	b->len += len;
	b->ptr[b->len] = '\0';
}

void kn_buf_add_view(struct kn_buf *b, struct kn_view v)
{
	kn_buf_add(b, v.ptr, v.len);
}

void kn_buf_adds(struct kn_buf *b, const char *s)
{
	kn_buf_add(b, s, strlen(s));
}

void kn_buf_printf(struct kn_buf *b, const char *fmt, ...)
{
	va_list ap, again;

	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	if (n < 0) {
		b->failed = true;
	} else if (kn_buf_reserve(b, (size_t)n)) {
		vsnprintf(b->ptr + b->len, (size_t)n + 1, fmt, again);
		b->len += (size_t)n;
	}
	va_end(again);
	va_end(ap);
}

void kn_buf_drop(struct kn_buf *b, size_t n)
{
	n = kn_min(n, b->len);
	if (n == 0)
		return;
	b->len -= n;
	memmove(b->ptr, b->ptr + n, b->len + 1);
}

void kn_buf_clear(struct kn_buf *b)
{
	b->len = 0;
	b->failed = false;
	if (b->ptr)
		b->ptr[0] = '\0';
}

void kn_buf_fini(struct kn_buf *b)
{
	free(b->ptr);
	*b = KN_BUF_INIT;
}
