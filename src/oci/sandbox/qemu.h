/* Private to oci/sandbox_qemu: what its parts share. */
#pragma once

#include "host/cgroup.h"
#include "host/network.h"
#include "oci/agent_link.h"
#include "oci/qmp.h"
#include "oci/sandbox_qemu.h"
#include "oci/snapshot.h"

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
	BOOTING,                       /* QEMU runs, the agent has not greeted; or it is being restored */
	WAITING,                       /* the agent waits for a function: a template that is made */
	STARTING,                      /* the agent prepares the function */
	PROBING,                       /* the function runs, it is not ready */
	SERVING,
	STOPPING,                      /* the agent was asked to stop the function */
	DYING,                         /* QEMU was killed */
	CLEANING,                      /* it is reaped; what remains is being removed */
};

enum qemu_source {
	FROM_BOOT,
	FROM_TEMPLATE,                 /* a snapshot of a guest that waits for its function */
	FROM_FUNCTION,                 /* a snapshot of a guest whose function was ready */
};

/*
 * What a start was asked for, copied: it is needed again when a restore fails and the guest is booted
 * after all, and when a snapshot is made. Shared by counting.
 */
struct wish {
	unsigned refs;
	struct kn_arena arena;
	struct kn_sandbox_config c;    /* id and run_dir are those of the first start */
	char template_key[KN_SNAPSHOT_KEY + 1], function_key[KN_SNAPSHOT_KEY + 1];
};

/* How a QEMU is started. */
struct qemu_how {
	enum qemu_source source;
	struct kn_snapshot from;       /* borrowed; descriptors -1 with FROM_BOOT */
	int save_fd;                   /* memory is this file, shared: to be saved; borrowed; -1 */
	bool bare;                     /* boot to the agent's hello and no further */
	char *own_dir;                 /* the run folder, removed at the end; owned; NULL: caller's */
};

#define QEMU_HOW_BOOT                                                                              \
	((struct qemu_how){ .source = FROM_BOOT, .from = { -1, -1, 0 }, .save_fd = -1 })

struct qemu {
	struct kn_sandbox sb;          /* first: the pool sees this part */
	struct kn_loop *loop;
	const struct kn_sandbox_qemu_config *config;
	struct kn_sandbox_events events;
	enum qemu_state state;
	enum qemu_state reached;       /* when its end began */
	enum qemu_source source;
	bool bare;                     /* see qemu_how */
	int save_fd;
	bool was_ready;
	struct wish *wish;

	char id[64];
	uid_t uid;                     /* 0: none taken */
	char *root_dir, *own_dir;      /* run_dir/root: made and removed here */
	struct kn_cgroup *cgroup;
	struct kn_netif *netif;        /* NULL: the function has no network */
	struct kn_child child;         /* .pid 0: not started */
	struct kn_agent_link *link;
	struct kn_qmp *qmp;            /* while it is restored, or to be saved */
	struct lines console, monitor;
	char panic[REASON_BYTES];      /* what the guest's kernel said when it gave up */

	struct kn_timer timer;         /* of the state: boot, ready, stop, another try to clean up */
	unsigned tries;
	struct kn_err why;             /* the reason of the end; the first one counts */
	bool stopped;                  /* by the caller: no reason then */
	uint64_t phase_ns;             /* when the phase under way began */
	void (*hello)(struct qemu *q, void *arg);   /* bare: it waits */
	void *hello_arg;
};

/**
 * Start a sandbox. wish is referenced. Errors as kn_sandbox_ops.start; how->own_dir is owned in
 * every case.
 */
int qemu_begin(struct kn_loop *loop, const struct kn_sandbox_qemu_config *config, struct wish *wish,
               const char *id, const char *run_dir, const struct kn_sandbox_events *events,
               const struct qemu_how *how, struct qemu **ret, struct kn_err *err);

/** Give a guest that waits with its function ready to a new owner. */
int qemu_hand_over(struct qemu *q, const char *id, const struct kn_sandbox_events *events,
                   struct kn_err *err);

/* qemu_spawn.c */
/* QEMU's ends of everything, borrowed; -1 where there is none. */
#define QEMU_STATE_FD "7"              /* of struct qemu_files, as QEMU knows it */

struct qemu_files {
	int agent, console, monitor, image, control, memory, state;
	bool shared;                   /* memory is written through to its file */
	int tap;
};

int qemu_make_cgroup(struct qemu *q, const char *id, struct kn_err *err);
int qemu_spawn(struct qemu *q, const struct qemu_files *files, struct kn_err *err);

/* qemu_lines.c */
/** Watch a pipe's end (owned from now on). */
int lines_start(struct qemu *q, struct lines *l, int fd, enum kn_stream stream, struct kn_err *err);
/** Take what is left, and close. Fine when not started. */
void lines_finish(struct lines *l);

/* qemu_wish.c */
int wish_new(const struct kn_sandbox_qemu_config *config, const struct kn_sandbox_config *c,
             struct wish **ret, struct kn_err *err);
struct wish *wish_ref(struct wish *w);
void wish_unref(struct wish *w);

/* qemu_build.c */
struct build;

/** Make a snapshot of what wish asks for, or of a guest that waits for it. One at a time. */
int build_start(struct kn_restores *r, struct wish *wish, bool template, struct build **ret,
                struct kn_err *err);
/** Give up: QEMU is killed, the draft dropped; it is gone when builds_over() says so. */
void build_stop(struct build *b);

/* qemu_restore.c */
struct kn_restores {
	struct kn_loop *loop;
	const struct kn_sandbox_qemu_config *driver;
	struct kn_snapshots *snapshots;
	char *run_dir;
	uint32_t max_prepared, n_prepared;
	uint64_t prepared_ns;
	unsigned serial;               /* of the names of its own guests */

	struct build *build;           /* under way; NULL: none */
	struct wanted *wanted;         /* builds that wait, in order */
	size_t n_wanted;
	struct kn_timer next_build;
	uint64_t not_before_ns;        /* after a build that failed */
	char told[KN_ERR_TEXT];        /* the failure that was logged: once is enough */

	struct prepared *prepared;
	struct wish *last;             /* the start that another one may follow soon */
	struct kn_timer prepare;
	bool closing;
};

/** A name and a run folder (made) for a guest of the driver's own. */
int restores_name(struct kn_restores *r, const char *what, char id[64], char **ret_dir,
                  struct kn_err *err);
/** A build is over; err NULL: the snapshot is there. */
void restores_built(struct kn_restores *r, const struct kn_err *err);

/** Start by the quickest way that there is. */
int restores_start(struct kn_restores *r, struct wish *wish, const struct kn_sandbox_events *events, struct qemu **ret, struct kn_err *err);
/** It serves: a good time to make what the next start may use. */
void restores_served(struct kn_restores *r, struct qemu *q);
/** It could not be started from: remove the snapshot. */
void restores_spoiled(struct kn_restores *r, const struct qemu *q, const struct kn_err *why);
