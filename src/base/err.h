/*
 * What went wrong, told outermost first. A kn_err is a fixed-size value that the caller owns, so
 * that reporting never allocates. Every function that can fail takes one as its last argument and
 * returns -errno; NULL means that the caller does not want the story. Used by every plane.
 *
 * Thread  a kn_err belongs to one thread at a time; the functions keep no state.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

#define kn_must_use   __attribute__((warn_unused_result))
#define kn_printf(f, a) __attribute__((format(printf, f, a)))

enum { KN_ERR_TEXT = 512 };

struct kn_err {
	int code;                /* positive errno of the innermost failure; 0 while nothing failed */
	char text[KN_ERR_TEXT];  /* NUL-terminated, no newline; cut with "..." when it is too long */
};

#define KN_ERR_INIT ((struct kn_err){ .code = 0 })

/**
 * Say what failed, once, where it failed.
 *
 * code    positive errno value; 0 is taken as EIO
 * fmt     printf format of the reason: what was tried, on what, and what to do if we know
 *
 * Returns -code, so that callers write `return kn_fail(err, EINVAL, ...)`.
 */
int kn_fail(struct kn_err *err, int code, const char *fmt, ...) kn_printf(3, 4);

/**
 * Put "what we were doing: " before the story and hand its code up.
 *
 * Returns -err->code, or -EIO when err is NULL or empty: pass a real err where the code matters.
 */
int kn_while(struct kn_err *err, const char *fmt, ...) kn_printf(2, 3);

/** The story so far, or "" for NULL; never NULL. Borrowed from err. */
const char *kn_err_text(const struct kn_err *err);

/*
 * Compilers and analysers do not see the bodies of the two: tell them that a failure is negative, so
 * that they know what was filled in once `r < 0` was ruled out. Without it -O3, -fanalyzer and
 * clang-tidy warn of values that cannot be uninitialized. A module whose own helper ends in
 * kn_fail() wraps it in the same way.
 */
#define kn_negative(call)                                                                          \
	({                                                                                         \
		int kn_negative_result = (call);                                                   \
		if (kn_negative_result >= 0)                                                       \
			__builtin_unreachable();                                                   \
		kn_negative_result;                                                                \
	})
#define kn_fail(...) kn_negative((kn_fail)(__VA_ARGS__))
#define kn_while(...) kn_negative((kn_while)(__VA_ARGS__))
