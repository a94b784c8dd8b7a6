/*
 * The instances of one function as deployed: started through a sandbox driver, picked for requests,
 * their idle connections kept, drained and stopped. One pool belongs to one revision of a function:
 * an update makes a new pool and drains the old. What waits and what is counted is the engine's
 * business. Serves the event flow.
 *
 * An instance goes STARTING -> READY -> (DRAINING ->) STOPPING -> gone; it may end by itself in any
 * state. Its run folder is made before its start and removed after its end.
 *
 * Thread  the loop's
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/http.h"
#include "base/loop.h"
#include "faas/function.h"
#include "oci/sandbox.h"

enum kn_instance_state {
	KN_INSTANCE_STARTING,
	KN_INSTANCE_READY,
	KN_INSTANCE_DRAINING, /* takes no more requests; stops after the last one */
	KN_INSTANCE_STOPPING, /* the driver was asked to end it */
};

enum { KN_INSTANCE_ID = 48 };

struct kn_pool;
struct kn_call; /* faas/engine.h */

/*
 * Read by the engine and the gateway, changed by the pool alone; `calls` is the engine's.
 */
struct kn_instance {
	struct kn_pool *pool;
	struct kn_sandbox *sandbox; /* NULL only before its start returned */
	char id[KN_INSTANCE_ID + 1];
	enum kn_instance_state state;
	uint32_t in_flight;
	uint64_t served;
	uint64_t started_wall_ns, began_ns;
	uint64_t ready_ns;	      /* when it became ready; 0 before */
	uint64_t idle_since_ns;	      /* when its last request ended, or it became ready */
	struct {
		uint64_t at_ns; /* when it was looked at; 0: not yet */
		uint64_t memory_bytes, cpu_ns;
	} usage; /* the engine's, for its metrics */
	bool failed; /* kn_instance_fail() was called, because of */
	struct kn_err why;
	struct kn_call *calls;	      /* those that hold it */
	struct kn_http_client **idle; /* kept connections, newest last */
	size_t n_idle;
	struct kn_instance *next, **prev;
};

struct kn_pool_events {
	/** The instance takes requests now. */
	void (*ready)(struct kn_instance *i, void *arg);
	/**
	 * The instance is out of the pool and freed after this call. why is empty when it was asked
	 * to stop.
	 */
	void (*ended)(struct kn_instance *i, const struct kn_err *why, void *arg);
	void (*log)(struct kn_instance *i, enum kn_stream stream, struct kn_view line, void *arg);
	/** A drained pool has lost its last instance; in a later round than the drain. May free it. */
	void (*empty)(struct kn_pool *p, void *arg);
	void *arg;
};

struct kn_pool_config {
	struct kn_loop *loop;
	const struct kn_sandbox_ops *ops;
	const void *driver;	/* borrowed */
	struct kn_function *fn; /* the pool takes a reference */
	/* The image as the driver takes it; copied. */
	const char *image;
	const char *const *argv, *const *env;
	const char *cwd, *user;
	const struct kn_sandbox_file *files; /* put into each instance; copied */
	size_t n_files;
	const char *run_dir; /* absolute; copied */
	uint64_t max_reply_bytes;
	uint64_t stop_grace_ms, drain_ms;
	struct kn_pool_events events;
};

/** Errors: ENOMEM. */
kn_must_use int kn_pool_new(const struct kn_pool_config *config, struct kn_pool **ret,
			    struct kn_err *err);

/**
 * Forget everything at once, without waiting for ends and without events. Instances are asked to
 * stop; drivers that need the loop to finish that leave it to the death of this process.
 */
void kn_pool_free(struct kn_pool *p);
KN_AUTO(kn_pool_free, struct kn_pool *);

/** Borrowed. */
struct kn_function *kn_pool_function(const struct kn_pool *p);

/** Instances in all states, those that start, and those that are asked to stop or drain. */
uint32_t kn_pool_count(const struct kn_pool *p);
uint32_t kn_pool_starting(const struct kn_pool *p);
uint32_t kn_pool_leaving(const struct kn_pool *p);

/** Instances that start or take requests. */
static inline uint32_t kn_pool_staying(const struct kn_pool *p)
{
	return kn_pool_count(p) - kn_pool_leaving(p);
}

/** First instance; go on with ->next. */
struct kn_instance *kn_pool_first(const struct kn_pool *p);

/** How many requests one instance takes at once. */
uint32_t kn_pool_concurrency(const struct kn_pool *p);

/** Begin the start of one more instance. Errors: what the driver, the folder or memory said. */
kn_must_use int kn_pool_start(struct kn_pool *p, struct kn_err *err);

/**
 * A ready instance with room for a request: the least busy one, and of equals the one that was used
 * last, so that the others idle long enough to be stopped. NULL when there is none.
 */
struct kn_instance *kn_pool_pick(const struct kn_pool *p);

/** One request begins or ends on the instance. */
void kn_instance_enter(struct kn_instance *i);
void kn_instance_leave(struct kn_instance *i);

/**
 * It broke a request in a way that leaves it of no use (a fault, a loop, an answer that is none): it
 * takes no more requests, and its end counts as one by itself, for this reason.
 */
void kn_instance_fail(struct kn_instance *i, const struct kn_err *why);

/**
 * One instance less: stops at once when it has no request, else after its last one, or after the
 * pool's drain_ms from now when that comes first. Fine when it leaves already.
 */
void kn_instance_retire(struct kn_instance *i);

/** Start no more; stop idle instances now, busy ones after their requests or after drain_ms. */
void kn_pool_drain(struct kn_pool *p);

/**
 * A connection to the function: a kept one, or a new one.
 *
 * ret_kept  true for a kept one: the function may have closed it a moment ago
 */
kn_must_use int kn_instance_connect(struct kn_instance *i, bool fresh, struct kn_http_client **ret,
				    bool *ret_kept, struct kn_err *err);

/** Give back a connection on which another request may follow; kept or closed. */
void kn_instance_keep(struct kn_instance *i, struct kn_http_client *c);

/** "starting", "ready", "busy", "draining" or "stopping". */
const char *kn_instance_state_name(const struct kn_instance *i);

/** Remove the run folders that a killed daemon left below run_dir, and make it if need be. */
kn_must_use int kn_pool_clean(const char *run_dir, struct kn_err *err);
