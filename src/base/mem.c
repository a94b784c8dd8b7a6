#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct kn_arena_block {
	struct kn_arena_block *older;
	size_t bytes;
	_Alignas(16) char data[];
};

enum { FIRST_BLOCK = 4096, BIGGEST_STEP = 1 << 20, ALIGN = 16 };

void kn_free(void *ptr)
{
	free(ptr);
}

void kn_close(int fd)
{
	int keep = errno;

	if (fd >= 0)
		close(fd);
	errno = keep;
}

void kn_arena_init(struct kn_arena *a)
{
	*a = (struct kn_arena){ .head = NULL };
}

static void free_chain(struct kn_arena_block *b)
{
	while (b) {
		struct kn_arena_block *older = b->older;
		free(b);
		b = older;
	}
}

void kn_arena_fini(struct kn_arena *a)
{
	free_chain(a->head);
	kn_arena_init(a);
}

void kn_arena_reset(struct kn_arena *a)
{
	if (!a->head)
		return;
	free_chain(a->head->older);
	a->head->older = NULL;
	a->used = 0;
	a->total = a->head->bytes;
	/* One huge request must not pin its block for the life of a connection. */
	if (a->head->bytes > BIGGEST_STEP)
		kn_arena_fini(a);
}

static int add_block(struct kn_arena *a, size_t need)
{
	size_t bytes = a->head ? kn_min(a->head->bytes * 2, (size_t)BIGGEST_STEP) : FIRST_BLOCK;

	bytes = kn_max(bytes, need);
	struct kn_arena_block *b = malloc(sizeof(*b) + bytes);
	if (!b)
		return -ENOMEM;
	b->older = a->head;
	b->bytes = bytes;
	a->head = b;
	a->used = 0;
	a->total += bytes;
	return 0;
}

void *kn_arena_alloc(struct kn_arena *a, size_t bytes)
{
	if (bytes > SIZE_MAX / 2)
		return NULL;
	size_t need = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	if (need == 0)
		need = ALIGN;
	if ((!a->head || a->head->bytes - a->used < need) && add_block(a, need) < 0)
		return NULL;
	void *p = a->head->data + a->used;
	a->used += need;
	return memset(p, 0, need);
}

char *kn_arena_copy(struct kn_arena *a, const void *ptr, size_t len)
{
	if (len == SIZE_MAX)
		return NULL;
	char *p = kn_arena_alloc(a, len + 1);
	if (p && len)
		memcpy(p, ptr, len);
	return p;
}

char *kn_arena_printf(struct kn_arena *a, const char *fmt, ...)
{
	va_list ap, again;

	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	char *p = n < 0 ? NULL : kn_arena_alloc(a, (size_t)n + 1);
	if (p)
		vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	va_end(ap);
	return p;
}
