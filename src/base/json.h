/*
 * Reading jansson values with errors that name the field, and nothing else: values are built with
 * jansson itself. For every JSON that comes from outside: the API bodies, images, stored state.
 *
 * Thread  keeps no state; a json_t belongs to one thread at a time.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

KN_AUTO(json_decref, json_t *);

enum { KN_JSON_DEPTH = 64 };

/**
 * Parse one JSON document (UTF-8, no duplicate keys, nothing after it, at most KN_JSON_DEPTH deep).
 *
 * ret     a new reference; json_decref() it
 * Errors  EINVAL with line and column; ENOMEM
 */
kn_must_use int kn_json_parse(struct kn_view text, json_t **ret, struct kn_err *err);

/** Compact text of value appended to b (JSON_COMPACT | JSON_ENCODE_ANY plus flags). */
void kn_json_print(struct kn_buf *b, const json_t *value, size_t flags);

/*
 * Field readers. A missing or null field leaves *ret alone and returns 0 (check required ones with
 * kn_json_require); a field of another type is EINVAL: "field 'x' must be a string, not an array".
 * Strings are borrowed from obj.
 */
kn_must_use int kn_json_str(const json_t *obj, const char *key, const char **ret, struct kn_err *err);
kn_must_use int kn_json_bool(const json_t *obj, const char *key, bool *ret, struct kn_err *err);
kn_must_use int kn_json_u64(const json_t *obj, const char *key, uint64_t max, uint64_t *ret,
                            struct kn_err *err);
/** A sub-object, or an array; borrowed. */
kn_must_use int kn_json_obj(const json_t *obj, const char *key, json_t **ret, struct kn_err *err);
kn_must_use int kn_json_arr(const json_t *obj, const char *key, json_t **ret, struct kn_err *err);

/** EINVAL unless obj is an object that has every one of these keys (NULL-terminated list). */
kn_must_use int kn_json_require(const json_t *obj, const char *const *keys, struct kn_err *err);

/** EINVAL for the first key of obj that is not in names, with "did you mean". */
kn_must_use int kn_json_known(const json_t *obj, const char *const *names, size_t n,
                              struct kn_err *err);
