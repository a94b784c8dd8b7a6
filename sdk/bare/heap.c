/*
 * Two allocators in one region: kiln_malloc() takes blocks from the bottom and keeps a list of free
 * ones in order of address, joined with their neighbours; kiln_alloc() goes down from the top and is
 * taken back as a whole after each request, so that its pages stay warm.
 */
#include "bare_internal.h"

#define ALIGN 16

struct block {
	size_t bytes;              /* of the whole block, this head included */
	struct block *next;        /* free blocks only */
};

_Static_assert(sizeof(struct block) == ALIGN, "a block's head keeps the alignment");

static char *start, *end;          /* the region */
static char *bottom;               /* blocks lie below */
static char *top;                  /* request memory lies above */
static struct block *free_blocks;

void kiln_heap_init(void *at, size_t bytes)
{
	start = bottom = at;
	end = top = start + bytes;
	free_blocks = NULL;
}

void kiln_heap_end_request(void)
{
	top = end;
}

static size_t rounded(size_t bytes)
{
	return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

void *kiln_alloc(size_t bytes)
{
	if (bytes > (size_t)(top - bottom) || rounded(bytes) > (size_t)(top - bottom))
		return NULL;
	top -= rounded(bytes);
	return memset(top, 0, bytes);
}

size_t kiln_memory_left(void)
{
	return (size_t)(top - bottom);
}

/* Take a block of exactly bytes out of b, whose link is *at. */
static struct block *split(struct block **at, struct block *b, size_t bytes)
{
	if (b->bytes - bytes < 2 * ALIGN) {
		*at = b->next;
		return b;
	}
	struct block *rest = (struct block *)(void *)((char *)b + bytes);
	rest->bytes = b->bytes - bytes;
	rest->next = b->next;
	*at = rest;
	b->bytes = bytes;
	return b;
}

void *kiln_malloc(size_t bytes)
{
	if (bytes > (size_t)(end - start))
		return NULL;
	size_t wanted = rounded(bytes ? bytes : 1) + sizeof(struct block);

	for (struct block **at = &free_blocks; *at; at = &(*at)->next)
		if ((*at)->bytes >= wanted)
			return split(at, *at, wanted) + 1;
	if (wanted > (size_t)(top - bottom))
		return NULL;
	struct block *b = (struct block *)(void *)bottom;
	b->bytes = wanted;
	bottom += wanted;
	return b + 1;
}

static bool touches(const struct block *low, const struct block *high)
{
	return low && (const char *)low + low->bytes == (const char *)high;
}

void kiln_free(void *ptr)
{
	struct block *before = NULL, *b = ptr;
	struct block **at = &free_blocks;

	if (!ptr)
		return;
	b--;
	while (*at && *at < b) {
		before = *at;
		at = &(*at)->next;
	}
	b->next = *at;
	*at = b;
	if (touches(b, b->next)) {
		b->bytes += b->next->bytes;
		b->next = b->next->next;
	}
	if (touches(before, b)) {
		before->bytes += b->bytes;
		before->next = b->next;
	}
}

void *kiln_realloc(void *ptr, size_t bytes)
{
	if (!ptr)
		return kiln_malloc(bytes);
	size_t have = ((struct block *)ptr - 1)->bytes - sizeof(struct block);
	if (bytes <= have)
		return ptr;
	void *to = kiln_malloc(bytes);
	if (!to)
		return NULL;
	memcpy(to, ptr, have);
	kiln_free(ptr);
	return to;
}
