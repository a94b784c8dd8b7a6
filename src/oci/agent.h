/*
 * kiln-agent's work in the guest, apart from booting (oci/guest.h): start one function as the host
 * says, watch it, find out when it is ready, carry streams to it, tell its output and its end. For
 * the contract STDIO the agent speaks HTTP/1.1 itself and runs one process a request. Serves the
 * event flow; kiln-agent calls it, and tests do so without a guest.
 *
 * Theory of operation. The host greets (which voids all streams), says CONFIGURE once, and opens
 * streams after READY. The agent says STARTED, READY, LOG as often as there are lines, and at last
 * EXITED or FAILED; then it waits for the host to take the guest away. A function that ends before
 * it is ready is EXITED with a text that says so. A guest that was saved when its function was ready
 * hears RESUME in place of CONFIGURE each time it is restored, and says READY when the function
 * answers again. Nothing here reads the clock across a message, so
 * a guest that was stopped and restored between two messages goes on.
 *
 * Thread  the loop's
 */
#pragma once

#include "base/loop.h"
#include "oci/agent_message.h"

struct kn_agent;

struct kn_agent_config {
	/**
	 * Make the function's root what paths mean from now on, and the machine ready for it. Called
	 * once, at CONFIGURE. NULL: it is so already.
	 */
	int (*prepare)(const struct kn_agent_message *configure, void *arg, struct kn_err *err);
	/**
	 * The function's files are in its root: close it, and give up what the function must not
	 * have. Called once, before anything of the function runs. NULL: nothing to do.
	 */
	int (*seal)(void *arg, struct kn_err *err);
	/** How many processes the kernel has killed for want of memory so far. NULL: nobody knows. */
	uint64_t (*oom_kills)(void *arg);
	uid_t id_first;            /* before seal(): what the function's user 0 is here */
	bool final_pipe;           /* the host does not come back: the pipe's end is the end */
	/**
	 * In each process of the function, before it becomes the function's user: where its limits
	 * are. NULL: nothing to do.
	 */
	int (*enter)(void *arg, struct kn_err *err);
	/** Set clock and entropy. NULL: leave them. */
	void (*greet)(const struct kn_agent_message *greeting, void *arg);
	/** RESUME: this machine is another one now. NULL: nothing needs to change. */
	int (*resume)(const struct kn_agent_message *resume, void *arg, struct kn_err *err);
	/** The host broke the rules of the pipe: nothing can be done any more. */
	void (*failed)(const struct kn_err *err, void *arg);
	void *arg;
};

/**
 * Serve the host on a connected non-blocking byte pipe, which the agent then owns.
 * Errors  ENOMEM; what epoll said
 */
kn_must_use int kn_agent_new(struct kn_loop *loop, int fd, const struct kn_agent_config *config,
                             struct kn_agent **ret, struct kn_err *err);

/** Kill what was started and forget everything. NULL is fine. */
void kn_agent_free(struct kn_agent *a);

/** Is this process one that the agent started and reaps itself? For PID 1's reaping of others. */
bool kn_agent_owns(const struct kn_agent *a, pid_t pid);
