/*
 * The two replies that every path of the node's API shares: an error, and a JSON value. Used by
 * auth, control, gateway and the registry's door, so that all errors look alike.
 *
 * Thread  the loop's
 */
#pragma once

#include "base/http.h"
#include "base/json.h"

/**
 * Answer {"error": ..., "hint": ...}. hint says what to do and may be NULL. 401 gets
 * WWW-Authenticate for both schemes, 429 and 503 Retry-After: 1.
 */
void kn_reply_error(struct kn_http_exchange *x, int status, const char *error, const char *hint);

/** The same with the status that fits err's code, err's text and no hint. */
void kn_reply_fail(struct kn_http_exchange *x, const struct kn_err *err, const char *hint);

/** The status for an error: EINVAL 400, ENOENT 404, EEXIST and EBUSY 409, ENOSPC 507 ... */
int kn_reply_status(const struct kn_err *err);

/** Answer with value and give it up; NULL is answered 503 (memory is out). */
void kn_reply_json(struct kn_http_exchange *x, int status, json_t *value);
