/*
 * Allocation failure, injected: this header puts its own malloc in front of the C library's, for the
 * program and for every library in it, and makes one chosen allocation fail. A scenario runs again
 * and again, each time with a later allocation failing, until it gets through; every time it must
 * either succeed or say ENOMEM, and give back all memory. Include it in one file of a test program;
 * under sanitizers, which have a malloc of their own, such a test is left out.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "test.h"

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *ptr, size_t bytes);
void __libc_free(void *ptr);

static struct {
	bool on;            /* only while a scenario runs, and in one thread */
	bool for_good;      /* every allocation after the first failure fails, too */
	long left;          /* allocations that still succeed */
	long live;          /* allocated while on, and not yet freed */
	long failed;
} oom;

static bool oom_fails(void)
{
	if (!oom.on)
		return false;
	if (oom.left > 0) {
		oom.left--;
		return false;
	}
	if (oom.failed && !oom.for_good)
		return false;
	oom.failed++;
	errno = ENOMEM;
	return true;
}

static void *oom_count(void *ptr)
{
	oom.live += oom.on && ptr;
	return ptr;
}

void *malloc(size_t bytes)
{
	return oom_fails() ? NULL : oom_count(__libc_malloc(bytes));
}

void *calloc(size_t n, size_t bytes)
{
	return oom_fails() ? NULL : oom_count(__libc_calloc(n, bytes));
}

void *realloc(void *ptr, size_t bytes)
{
	if (oom_fails())
		return NULL;
	return ptr ? __libc_realloc(ptr, bytes) : oom_count(__libc_realloc(NULL, bytes));
}

void free(void *ptr)
{
	oom.live -= oom.on && ptr;
	__libc_free(ptr);
}

struct oom_result {
	int r;
	long live, failed;
};

static struct oom_result oom_run(int (*scenario)(struct kn_err *err), long after, bool for_good)
{
	struct kn_err err = KN_ERR_INIT;

	oom.left = after;
	oom.live = oom.failed = 0;
	oom.for_good = for_good;
	oom.on = true;
	int r = scenario(&err);
	oom.on = false;
	return (struct oom_result){ r, oom.live, oom.failed };
}

/* What libraries keep for good at first use is no leak: let it happen before counting. */
static void oom_check(int (*scenario)(struct kn_err *err))
{
	struct kn_err err = KN_ERR_INIT;
	long after = 0;

	assert_ok(scenario(&err), &err);
	for (int for_good = 0; for_good < 2; for_good++) {
		struct oom_result o;
		for (after = 0; after < 100000; after++) {
			o = oom_run(scenario, after, for_good);
			if (o.r < 0 && o.r != -ENOMEM)
				fail_msg("failure of allocation %ld gave %d", after, o.r);
			if (o.live != 0)
				fail_msg("failure of allocation %ld left %ld", after, o.live);
			if (o.failed == 0)
				break;
		}
		assert_int_equal(o.r, 0);
	}
	assert_true(after > 0);   /* it allocates, else nothing was tested */
}
