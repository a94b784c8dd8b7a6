/*
 * Calls that nobody waits for: POST /async-function/NAME is answered 202 once the call is on the
 * disk, and made later, as often as it takes. Serves the event flow: the gateway hands a request of
 * a caller whom it let in to kn_async_take(); the queue makes the call through another gateway of
 * this process, at a Unix socket, so that an asynchronous call starts, waits, times out and is
 * counted as any other.
 *
 * At least once: a call is forgotten when its answer has been dealt with; a node that dies meanwhile
 * makes it again. An answer of 429, 502, 503 or 504, or none, is tried again, ever later, ATTEMPTS
 * times in all. With X-Callback-Url the answer is posted there: its body and Content-Type, and
 * X-Call-Id, X-Function-Name, X-Function-Status, X-Duration-Seconds, as OpenFaaS does.
 *
 * Thread  the loop's; callbacks are sent by threads of the queue's own
 */
#pragma once

#include "base/http.h"
#include "base/loop.h"
#include "faas/store.h"

struct kn_async;

/** Borrowed for the queue's life, but socket, which is copied. */
struct kn_async_config {
	struct kn_loop *loop;
	struct kn_store *store;
	const char *socket;       /* of the gateway that makes the calls; nobody is asked for tokens there */
	size_t max_waiting;       /* calls on the disk; more are answered 429 */
	uint64_t max_bytes;       /* of all of them */
	unsigned at_once;         /* calls under way, half of them of one function */
	unsigned attempts;
	uint64_t first_retry_ms;  /* doubled by each failure, to a minute at most */
};

#define KN_ASYNC_DEFAULTS                                                                          \
	((struct kn_async_config){ .max_waiting = 10000,                                           \
	                           .max_bytes = UINT64_C(64) << 20,                                \
	                           .at_once = 8,                                                   \
	                           .attempts = 8,                                                  \
	                           .first_retry_ms = 1000 })

/**
 * Open the queue with every call that an earlier life left.
 * Errors  EUCLEAN a stored call cannot be read; ENOMEM; what making threads said
 */
kn_must_use int kn_async_new(const struct kn_async_config *config, struct kn_async **ret,
                             struct kn_err *err);

/**
 * Calls under way are cut and stay on the disk. After the store was closed, whose last answers come
 * here, and when the loop turns no more. NULL is fine.
 */
void kn_async_free(struct kn_async *a);
KN_AUTO(kn_async_free, struct kn_async *);

/**
 * Take a call over and answer it, now or later: 202 when it is durable.
 *
 * name     of a function that there is; copied, as path and id are
 * path     what the function sees, with its query
 * id       the call's X-Call-Id
 */
void kn_async_take(struct kn_async *a, struct kn_http_exchange *x, struct kn_view name,
                   struct kn_view path, struct kn_view id);

/** Begin no more calls; those under way finish. */
void kn_async_drain(struct kn_async *a);

/** Calls under way. */
size_t kn_async_busy(const struct kn_async *a);

/** Append the queue's families (base/metric.h). */
void kn_async_metrics(const struct kn_async *a, struct kn_buf *page);
