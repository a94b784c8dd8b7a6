/*
 * Text and bytes: borrowed views, growing buffers, and the parsing of numbers, sizes, durations,
 * hex and base64url that configuration and protocols share. Parsers take a view, refuse what they
 * do not understand whole, and never read past it. Used by every plane.
 *
 * Thread  keeps no state.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

/** Bytes that somebody else owns; not NUL-terminated. */
struct kn_view {
	const char *ptr;
	size_t len;
};

#define KN_VIEW(literal) ((struct kn_view){ (literal), sizeof(literal) - 1 })
#define KN_VIEW_NULL ((struct kn_view){ NULL, 0 })

/* printf("..." KN_VIEW_FMT "...", KN_VIEW_ARG(v)): at most 64 bytes of it, for messages. */
#define KN_VIEW_FMT "%.*s"
#define KN_VIEW_ARG(v) (int)kn_min((v).len, (size_t)64), (v).ptr ? (v).ptr : ""

/** A view of a C string; NULL gives the empty view. */
static inline struct kn_view kn_view_of(const char *s)
{
	return (struct kn_view){ s, s ? strlen(s) : 0 };
}

static inline bool kn_view_is(struct kn_view a, struct kn_view b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/** The same without regard to ASCII case, for header names and tokens (RFC 9110). */
bool kn_view_is_nocase(struct kn_view a, struct kn_view b);
bool kn_view_starts(struct kn_view v, struct kn_view prefix);
bool kn_view_ends(struct kn_view v, struct kn_view suffix);

/** Less than 0, 0 or more, as a stands before, with or behind b: by bytes, a prefix first. */
int kn_view_order(struct kn_view a, struct kn_view b);

/** Without spaces, tabs, CR and LF at both ends. */
struct kn_view kn_view_trim(struct kn_view v);

/**
 * Take what stands before the next sep out of *rest; *rest keeps what follows it.
 *
 * Returns false when *rest was already used up (its ptr is NULL then).
 */
bool kn_view_split(struct kn_view *rest, char sep, struct kn_view *ret);

/*
 * A growing byte buffer. Appending never fails visibly: an allocation failure sets `failed`, later
 * appends do nothing, and the one check stands where the buffer is used.
 */
struct kn_buf {
	char *ptr;     /* len bytes, then a NUL, once anything was appended; may be NULL before */
	size_t len;
	size_t cap;
	bool failed;
};

#define KN_BUF_INIT ((struct kn_buf){ .ptr = NULL })

/** Make room for at least bytes more behind len. False when memory is out (failed is set). */
bool kn_buf_reserve(struct kn_buf *b, size_t bytes);
void kn_buf_add(struct kn_buf *b, const void *ptr, size_t len);
void kn_buf_add_view(struct kn_buf *b, struct kn_view v);
void kn_buf_adds(struct kn_buf *b, const char *s);
void kn_buf_printf(struct kn_buf *b, const char *fmt, ...) kn_printf(2, 3);

/** Drop n bytes from the front. */
void kn_buf_drop(struct kn_buf *b, size_t n);

/** Empty it, keep its memory. */
void kn_buf_clear(struct kn_buf *b);
void kn_buf_fini(struct kn_buf *b);
static inline void kn_buf_fini_auto(struct kn_buf *b)
{
	kn_buf_fini(b);
}

static inline struct kn_view kn_buf_view(const struct kn_buf *b)
{
	return (struct kn_view){ b->ptr, b->len };
}

/** A whole decimal number, no sign, no blanks. Errors: EINVAL, ERANGE above max. */
kn_must_use int kn_parse_u64(struct kn_view v, uint64_t max, uint64_t *ret, struct kn_err *err);

/**
 * "64", "64k", "64Ki", "1.5Gi", "128M"; to bytes, rounded up. Refuses "128m", which is thousandths
 * in Kubernetes and mega in Docker. Errors: EINVAL, ERANGE
 */
kn_must_use int kn_parse_bytes(struct kn_view v, uint64_t *ret, struct kn_err *err);

/** "250ms", "30s", "5m", "1h", "2m30s", or a bare number of seconds; to milliseconds. */
kn_must_use int kn_parse_duration(struct kn_view v, uint64_t *ret_ms, struct kn_err *err);

/** "1", "0.5", "500m" of a core; to thousandths. */
kn_must_use int kn_parse_millicores(struct kn_view v, uint64_t *ret, struct kn_err *err);

/** Lower-case hex of len bytes into out, which holds 2 * len + 1. */
void kn_hex(const void *ptr, size_t len, char *out);
kn_must_use int kn_unhex(struct kn_view hex, void *out, size_t out_len, struct kn_err *err);

/** RFC 4648 base64url without padding, appended to b. */
void kn_base64url(struct kn_buf *b, const void *ptr, size_t len);

/** Strict inverse: no padding, no blanks, no stray bits. Appends to b. Errors: EINVAL, ENOMEM. */
kn_must_use int kn_unbase64url(struct kn_view v, struct kn_buf *b, struct kn_err *err);

/** RFC 4648 base64 with padding, as HTTP basic uses it (RFC 7617). Errors: EINVAL, ENOMEM. */
kn_must_use int kn_unbase64(struct kn_view v, struct kn_buf *b, struct kn_err *err);
void kn_base64(struct kn_buf *b, const void *ptr, size_t len);

/**
 * The name in names (n of them) that a mistyped word is closest to, for "did you mean".
 *
 * Returns NULL when none is within a third of its length.
 */
const char *kn_closest(struct kn_view word, const char *const *names, size_t n);

/** 64-bit hash of bytes (FNV-1a, then mixed); for tables, not against an attacker. */
uint64_t kn_hash(const void *ptr, size_t len);
