/*
 * Worker threads for what blocks: image import, password hashing, building a root file system.
 * The loop's thread submits a job; one of a few threads runs it; its end comes back to the loop's
 * thread. Used by kilnd: serves the event flow (authentication) and the image flow.
 *
 * Thread  everything but a job's `run` is the loop's
 */
#pragma once

#include <stdbool.h>

#include "base/loop.h"

struct kn_work;

/*
 * One piece of blocking work. It lives in the caller's memory from kn_work_submit() until `done`
 * returns or may be freed inside it. Zero it before first use.
 */
struct kn_job {
	/** In a worker thread; touches nothing that the loop's thread may touch meanwhile. */
	void (*run)(struct kn_job *job);
	/** In the loop's thread, exactly once. cancelled: run was never called. */
	void (*done)(struct kn_job *job, bool cancelled);
	struct kn_job *next;
};

struct kn_work_config {
	unsigned threads;       /* 1 to 64 */
	unsigned max_waiting;   /* jobs submitted and not yet running; more are refused */
};

#define KN_WORK_DEFAULTS ((struct kn_work_config){ .threads = 2, .max_waiting = 256 })

/** Start the threads. Errors: EINVAL; ENOMEM; what pthread_create said */
kn_must_use int kn_work_new(struct kn_loop *loop, const struct kn_work_config *config,
                            struct kn_work **ret, struct kn_err *err);

/**
 * Wait for the running jobs, cancel the waiting ones, call every `done` that is still due, end the
 * threads. NULL is fine.
 */
void kn_work_free(struct kn_work *w);

/** Run job soon. job->run and job->done are set. Errors: EAGAIN when too many wait */
kn_must_use int kn_work_submit(struct kn_work *w, struct kn_job *job, struct kn_err *err);
