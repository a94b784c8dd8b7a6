/*
 * Drivers that isolate nothing. `fake` plays instances inside the process by a script, for tests of
 * the pool, the engine and the gateway. `unix` stands for a function that somebody else runs behind
 * a Unix socket: for benchmarks and for developing a function without a VM; kilnd offers it only
 * when it was started with --allow-unix-functions.
 *
 * Thread  the loop's
 */
#pragma once

#include "oci/sandbox.h"

/*
 * The script that all sandboxes of one fake driver follow, and what they counted. Change it between
 * starts as a test needs. The driver argument of start() is a struct kn_fake_driver.
 */
struct kn_fake {
	uint64_t boot_ns;	      /* start() to ready, on the loop's timers */
	uint64_t end_ns;	      /* stop() to ended */
	int refuse_start;	      /* errno that start() fails with; 0: it does not */
	const char *end_before_ready; /* reason to end with in place of ready; NULL: gets ready */
	bool never_ready;
	int refuse_connect; /* errno that connect() fails with */
	/** What a start was asked for; may be NULL. */
	void (*started)(const struct kn_sandbox_config *config, void *arg);
	/** The function's end of a new connection; the callee owns fd (non-blocking). */
	void (*serve)(struct kn_sandbox *sb, int fd, void *arg);
	/** One message; the reply may be given later, by done. 0 or -errno. */
	int (*invoke)(struct kn_sandbox *sb, const struct kn_message *request, kn_message_done done,
		      void *done_arg, void *arg);
	const struct kn_counter *counters; /* n_counters of them: what instances counted */
	size_t n_counters;
	void *arg;

	unsigned starts, stops, ends, connects, invokes;
	struct kn_sandbox *newest; /* NULL once it ended */
};

struct kn_fake_driver {
	struct kn_fake *fake;
};

extern const struct kn_sandbox_ops kn_sandbox_fake;	    /* connect */
extern const struct kn_sandbox_ops kn_sandbox_fake_message; /* invoke */
extern const struct kn_sandbox_ops kn_sandbox_fake_frames;  /* neither */

/** The instance ends by itself, now: `ended` runs before this returns. */
void kn_fake_end(struct kn_sandbox *sb, const char *why);

/** The instance prints a line. */
void kn_fake_print(struct kn_sandbox *sb, enum kn_stream stream, const char *line);

/** config.image is the path of the socket; ready once it accepts. driver is not used. */
extern const struct kn_sandbox_ops kn_sandbox_unix;
