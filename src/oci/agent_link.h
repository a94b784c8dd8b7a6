/*
 * The host's end of the pipe to one kiln-agent: greet it, tell it what to run, hear how far it is,
 * open connections to the function. Used by the drivers whose instances have an agent; serves the
 * event flow.
 *
 * What the agent says is not trusted: it is checked, and what comes too early or too late means
 * nothing.
 *
 * Thread  the loop's
 */
#pragma once

#include "oci/mux.h"
#include "oci/sandbox.h"

struct kn_agent_link;

struct kn_agent_link_events {
	/** The agent is there. */
	void (*hello)(void *arg);
	/** The function's process was started. */
	void (*started)(void *arg);
	/** The function can be called. Once, and once more after each kn_agent_link_resume(). */
	void (*ready)(void *arg);
	/** A line of the function's output. */
	void (*log)(enum kn_stream stream, struct kn_view line, void *arg);
	/** The function has ended, or never ran: why, and its wait status (0 when it never ran). */
	void (*ended)(const struct kn_err *why, int wait_status, void *arg);
	/**
	 * The pipe is of no use any more. broken: the agent broke its rules; else it is only closed,
	 * and who knows how the agent's process ended knows the reason.
	 */
	void (*failed)(const struct kn_err *why, bool broken, void *arg);
	void *arg;
};

/**
 * Take a connected non-blocking socket (owned from now on), greet the agent with the hour and with
 * entropy. The agent may not be there yet.
 *
 * Errors  ENOMEM; what epoll said
 */
kn_must_use int kn_agent_link_new(struct kn_loop *loop, int fd,
                                  const struct kn_agent_link_events *events,
                                  struct kn_agent_link **ret, struct kn_err *err);

/** Close the pipe; no event comes any more. Fine inside an event. NULL is fine. */
void kn_agent_link_free(struct kn_agent_link *l);

/** Tell what to run. Once. Errors: E2BIG too many arguments, variables or files; ENOMEM. */
kn_must_use int kn_agent_link_configure(struct kn_agent_link *l, const struct kn_sandbox_config *c,
                                        struct kn_err *err);

/**
 * In place of configure, to a guest that was restored from a snapshot in which its function was
 * ready: it gets a name and identifiers of its own, and says `ready` when the function answers. Told
 * again, the guest is greeted anew: it may have waited for long.
 *
 * rehearse  nobody waits for it yet: `ready` may take longer, so that what follows takes less
 *
 * Errors  ENOMEM, EPIPE
 */
kn_must_use int kn_agent_link_resume(struct kn_agent_link *l, const char *hostname, bool rehearse,
                                     struct kn_err *err);

/** Ask the function to stop, kill it after grace_ms; `ended` follows. Errors: ENOMEM, EPIPE. */
kn_must_use int kn_agent_link_stop(struct kn_agent_link *l, uint64_t grace_ms, struct kn_err *err);

/** A connection to a function that is ready, as kn_sandbox_ops.connect. */
kn_must_use int kn_agent_link_connect(struct kn_agent_link *l, int *ret_fd, struct kn_err *err);
