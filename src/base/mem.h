/*
 * Ownership: scope-bound cleanup, handing over, and arenas for memory that dies with a request.
 * Used by every plane.
 *
 * Thread  an arena belongs to one thread at a time; the rest keeps no state.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * kn_auto(fn) runs fn on the variable when its scope ends:
 *     kn_auto(kn_free) char *text = strdup(name);
 * KN_AUTO(fn, type) makes fn usable that way; fn must accept the type's "nothing" value.
 */
#define kn_auto(fn) __attribute__((cleanup(fn##_auto)))
#define KN_AUTO(fn, type)                                                                          \
	static inline void fn##_auto(type *kn_auto_it)                                             \
	{                                                                                          \
		fn(*kn_auto_it);                                                                   \
	}                                                                                          \
	struct kn_auto_needs_a_semicolon

/** free(3) under a name that kn_auto can use. */
void kn_free(void *ptr);
static inline void kn_free_auto(void *ptr_to_ptr)
{
	kn_free(*(void **)ptr_to_ptr);
}

/** close(2) that keeps errno and ignores negative descriptors. */
void kn_close(int fd);
KN_AUTO(kn_close, int);

/** Hand over what a kn_auto variable holds; the variable keeps nothing. */
#define kn_take_ptr(p)                                                                             \
	({                                                                                         \
		typeof(p) kn_taken = (p);                                                          \
		(p) = NULL;                                                                        \
		kn_taken;                                                                          \
	})
#define kn_take_fd(fd)                                                                             \
	({                                                                                         \
		int kn_taken = (fd);                                                               \
		(fd) = -1;                                                                         \
		kn_taken;                                                                          \
	})

#define KN_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define kn_min(a, b)                                                                               \
	({                                                                                         \
		typeof(a) kn_a = (a);                                                              \
		typeof(b) kn_b = (b);                                                              \
		kn_a < kn_b ? kn_a : kn_b;                                                         \
	})
#define kn_max(a, b)                                                                               \
	({                                                                                         \
		typeof(a) kn_a = (a);                                                              \
		typeof(b) kn_b = (b);                                                              \
		kn_a > kn_b ? kn_a : kn_b;                                                         \
	})
#define kn_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/*
 * Memory that is released all at once. Blocks grow geometrically from 4 KiB; a reset keeps the
 * first block, so that a connection serves its next request without asking the allocator.
 */
struct kn_arena_block;
struct kn_arena {
	struct kn_arena_block *head;  /* block that allocations come from; older ones behind it */
	size_t used;                  /* bytes handed out of head */
	size_t total;                 /* bytes of all blocks, for limits */
};

/** An empty arena; allocates nothing yet. */
void kn_arena_init(struct kn_arena *a);

/** Free every block. The arena is empty and usable again. */
void kn_arena_fini(struct kn_arena *a);

/** Forget all allocations, keep one block. */
void kn_arena_reset(struct kn_arena *a);

/** Zeroed memory aligned to 16 bytes, valid until reset or fini; NULL when memory is out. */
void *kn_arena_alloc(struct kn_arena *a, size_t bytes);

/** A copy of len bytes with a NUL after them; NULL when memory is out. */
char *kn_arena_copy(struct kn_arena *a, const void *ptr, size_t len);

/** printf into the arena; NULL when memory is out. */
char *kn_arena_printf(struct kn_arena *a, const char *fmt, ...) kn_printf(2, 3);
