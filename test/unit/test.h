/*
 * What every unit test includes: cmocka and the checks that Kiln's conventions ask for. A file
 * ends with
 *
 *     int main(void)
 *     {
 *             const struct CMUnitTest tests[] = {
 *                     cmocka_unit_test(lookup_prefers_longest_prefix),
 *             };
 *             return cmocka_run_group_tests(tests, NULL, NULL);
 *     }
 */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"

/* r is the result of a call that must have succeeded; else show the story it told. */
#define assert_ok(r, err)                                                                          \
	do {                                                                                       \
		long kn_r = (long)(r);                                                             \
		if (kn_r < 0)                                                                      \
			fail_msg("failed with %ld: %s", kn_r, kn_err_text(err));                   \
	} while (0)

/* r must be -code, err must agree and its text must contain part. */
#define assert_fails(r, errno_code, err, part)                                                     \
	do {                                                                                       \
		long kn_r = (long)(r);                                                             \
		const struct kn_err *kn_e = (err);                                                 \
		if (kn_r != -(errno_code) || kn_e->code != (errno_code))                           \
			fail_msg("result %ld, code %d, expected %d: %s", kn_r, kn_e->code,         \
			         (errno_code), kn_e->text);                                        \
		if (!strstr(kn_e->text, (part)))                                                   \
			fail_msg("'%s' does not say '%s'", kn_e->text, (part));                    \
	} while (0)

/* A view holds exactly this text. */
#define assert_view(v, expected)                                                                   \
	do {                                                                                       \
		struct kn_view kn_v = (v);                                                         \
		if (!kn_view_is(kn_v, kn_view_of(expected)))                                       \
			fail_msg("'%.*s' is not '%s'", (int)kn_v.len, kn_v.ptr ? kn_v.ptr : "",    \
			         (expected));                                                      \
	} while (0)
