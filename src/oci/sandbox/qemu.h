/* Private to oci/sandbox_qemu: what its parts share. */
#pragma once

#include "host/cgroup.h"
#include "oci/mux.h"
#include "oci/sandbox_qemu.h"

enum { LINE_BYTES = 4096, REASON_BYTES = 256 };

/* One of QEMU's outputs, cut into lines that are told and from which the last one is kept. */
struct lines {
	struct qemu *q;
	struct kn_watch watch;         /* .fd is the pipe's end; owned */
	enum kn_stream stream;
	size_t len;
	char line[LINE_BYTES];
	char last[REASON_BYTES];       /* the last line that was not empty */
};

enum qemu_state {
	BOOTING,                       /* QEMU runs, the agent has not greeted */
	STARTING,                      /* the agent prepares the function */
	PROBING,                       /* the function runs, it is not ready */
	SERVING,
	STOPPING,                      /* the agent was asked to stop the function */
	DYING,                         /* QEMU was killed */
	CLEANING,                      /* it is reaped; what remains is being removed */
};

struct qemu {
	struct kn_sandbox sb;          /* first: the pool sees this part */
	struct kn_loop *loop;
	const struct kn_sandbox_qemu_config *config;
	struct kn_sandbox_events events;
	enum qemu_state state;
	bool was_ready;

	uint64_t memory_bytes;
	uint64_t boot_timeout_ms, ready_timeout_ms;
	uid_t uid;                     /* 0: none taken */
	char *root_dir;                /* run_dir/root: made and removed here */
	struct kn_cgroup *cgroup;
	struct kn_child child;         /* .pid 0: not started */
	struct kn_mux *mux;
	struct lines console, monitor;
	char panic[REASON_BYTES];      /* what the guest's kernel said when it gave up */

	struct kn_timer timer;         /* of the state: boot, ready, stop, another try to clean up */
	unsigned tries;
	struct kn_err why;             /* the reason of the end; the first one counts */
	bool stopped;                  /* by the caller: no reason then */
	uint64_t phase_ns;             /* when the phase under way began */
};

/**
 * Start a jailed QEMU. agent_fd is QEMU's end of the pipe to the agent, console_fd and monitor_fd
 * take what guest and QEMU print; all stay the caller's.
 */
int qemu_spawn(struct qemu *q, const struct kn_sandbox_config *c, int agent_fd, int console_fd,
               int monitor_fd, struct kn_err *err);

/** Watch a pipe's end (owned from now on). */
int lines_start(struct qemu *q, struct lines *l, int fd, enum kn_stream stream, struct kn_err *err);
/** Take what is left, and close. Fine when not started. */
void lines_finish(struct lines *l);
