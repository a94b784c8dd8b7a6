/*
 * Runs pipelines whose ports are network interfaces: in one thread, in turn, until it is told to
 * stop. While frames come it never sleeps; when they stop it spins for a moment (the next ones are
 * probably on their way), then lets others have the core, then sleeps until an interface wakes it,
 * which costs nothing at all. Called by kiln-nf; serves the packet flow.
 *
 * Thread  the pipelines'
 */
#pragma once

#include "packet/pipeline.h"

struct kn_runner_config {
	struct kn_pipeline *const *pipelines; /* n of them */
	size_t n;
	const volatile sig_atomic_t *stop; /* set by a handler of SIGTERM or SIGINT */
	uint64_t spin_ns, yield_ns;	   /* idle time spent so before it sleeps */
	uint64_t tick_ns;		   /* 0: no ticks */
	/* Every tick_ns while frames come, and once after the last one. -errno ends the run. */
	int (*tick)(void *arg, struct kn_err *err);
	/* A descriptor that ends its sleep, too; -1: none. Looked at on ticks and when it is readable. */
	int wake;
	int (*woken)(void *arg, struct kn_err *err); /* 0: go on; 1: stop; or -errno */
	void *arg;
};

/*
 * Waking a virtual CPU that sleeps takes some 30 us, and a poller that loses its core under load is
 * worse than one that gives it away (2026-11, two cores): a short spin, a longer while of yielding.
 */
#define KN_RUNNER_DEFAULTS                                                                         \
	((struct kn_runner_config){ .spin_ns = 20 * 1000,                                          \
				    .yield_ns = 50 * 1000,                                         \
				    .tick_ns = UINT64_C(1000) * 1000 * 1000,                       \
				    .wake = -1 })

enum { KN_RUNNER_MAX = 8 };

/**
 * Run until *stop is set, an interface is gone, or `woken` or `tick` says so. Then nothing is
 * received any more; what was received has been sent or dropped. The last tick is the caller's.
 *
 * Errors  EINVAL: more than KN_RUNNER_MAX pipelines; what a port met (ENODEV: its interface is gone)
 */
kn_must_use int kn_runner_run(const struct kn_runner_config *config, struct kn_err *err);
