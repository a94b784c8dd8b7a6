/*
 * The driver table of isolation: how one instance of a function is made, reached and ended. The
 * pool (faas/pool) calls it; drivers are `qemu` (Linux microVM under QEMU), `kvm` (kiln-vmm: bare
 * guests now, Linux guests where KVM runs kernels) and `fake` (a socket pair, for tests). Serves the
 * event flow, and the packet flow (driver `nf`: a chain in a kiln-nf process).
 *
 * A sandbox is started once and ends once. start() returns at once; what happens after that comes
 * as events in the loop's thread. An instance is reached in one of two ways, by what its driver
 * offers: a byte stream on which the function speaks HTTP/1.1 (connect), or whole messages in
 * shared memory (invoke). One that offers neither takes frames at ports and cannot be called.
 *
 * Thread  the loop's
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/str.h"

enum kn_contract {
	KN_CONTRACT_HTTP,     /* the function serves HTTP/1.1 on a port of its own */
	KN_CONTRACT_STDIO,    /* one process a request: body on standard input, reply on output */
	KN_CONTRACT_MESSAGE,  /* bare: request and reply in rings */
	KN_CONTRACT_FRAMES,   /* nf: frames come in at ports; nothing can be asked of it */
};

/** A file that is put into the function's root, in memory, before it starts: a secret. */
struct kn_sandbox_file {
	const char *path;           /* absolute, in the function's root; its folders are made */
	struct kn_view bytes;
	uint32_t mode;              /* permission bits; the function's user owns it */
};

struct kn_egress;              /* host/egress.h: what a function's network reaches */

/** Everything is borrowed until start() returns, except the events' arg. */
struct kn_sandbox_config {
	const char *id;             /* [a-z0-9-]{1,48}, unique on the node */
	const char *function;       /* the function's name: instances of one may take over from each other */
	const char *run_dir;        /* an empty folder of this instance's own; the caller removes it */
	const char *image;          /* read-only erofs image; bare: the ELF file */
	const char *const *argv;    /* NULL-terminated; NULL for bare */
	const char *const *env;     /* NULL-terminated "NAME=value" */
	const char *cwd;            /* "/" when NULL */
	const char *user;           /* OCI config's User: "", "1000", "app:app"; resolved in the guest */
	enum kn_contract contract;
	uint16_t port;              /* contract HTTP: where the function listens, usually 8080 */
	const char *ready_path;     /* contract HTTP: GET must answer 2xx; NULL: port accepts */
	const struct kn_sandbox_file *files;
	size_t n_files;
	bool read_only_root;        /* the function cannot write to its root */
	const char *const *ports;   /* contract FRAMES: "NAME=INTERFACE", NULL-terminated; else NULL */
	uint64_t memory_bytes;      /* guest memory */
	uint32_t vcpus;
	uint32_t cpu_milli;         /* CPU time in thousandths of a core; 0: as many as vcpus says; a
	                             * guest's boot is not held to it */
	uint32_t max_pids;          /* processes and threads of the function; 0: the driver's default */
	const struct kn_egress *egress; /* NULL: the function has no network */
	bool snapshot;              /* start from a snapshot of the started function, when there is one,
	                             * and make one when not; a driver without snapshots ignores it */
	uint64_t boot_timeout_ms;   /* start() to the agent's hello (bare: to the first request wait) */
	uint64_t ready_timeout_ms;  /* function's start to ready */
	uint64_t max_reply_bytes;   /* a larger reply of a stdio or message function is an error */
	uint64_t time_limit_ms;     /* one invocation of a stdio or message function; 0: none */
};

struct kn_sandbox;

/** Where the time of a start went. Phases are in order and add up to the whole. */
struct kn_phase {
	const char *name;           /* "spawn", "boot", "start", "ready"; static */
	uint64_t ns;
};
enum { KN_MAX_PHASES = 8, KN_COUNTER_LABELS = 3 };

enum kn_stream { KN_STDOUT, KN_STDERR, KN_CONSOLE, KN_MONITOR };

struct kn_sandbox_events {
	/** The function may be called now. Once. */
	void (*ready)(struct kn_sandbox *sb, void *arg);
	/** One line of output, without its newline; at most 4 KiB, longer lines come in pieces. */
	void (*log)(struct kn_sandbox *sb, enum kn_stream stream, struct kn_view line, void *arg);
	/**
	 * It has ended and everything that the driver made is gone. Last call; sb is valid until it
	 * returns. why: empty (code 0) after kn_sandbox_stop(), else the reason in words a user can
	 * act on: "exited with code 3 before it was ready", "page fault at 0x10 (rip 0x401000)".
	 */
	void (*ended)(struct kn_sandbox *sb, const struct kn_err *why, void *arg);
	void *arg;
};

/** A request or reply as one message; borrowed views. */
struct kn_message {
	struct kn_view method, path, content_type, call_id;   /* requests; replies: content_type */
	int status;                                           /* replies */
	struct kn_view body;
};

typedef void (*kn_message_done)(const struct kn_message *reply, const struct kn_err *err, void *arg);

struct kn_sandbox_stats {
	uint64_t memory_bytes;      /* PSS of its processes, or the cgroup's use */
	uint64_t cpu_ns;
	pid_t pid;                  /* the monitor's */
};

/** A number that the instances of one driver count beside what all have; see `counters`. */
struct kn_counter {
	const char *name;           /* as Prometheus calls it: "kiln_nf_packets_total" */
	const char *help;           /* one sentence */
	bool gauge;                 /* goes up and down; a counter only rises */
	struct {
		const char *name, *value;   /* name NULL: no more */
	} labels[KN_COUNTER_LABELS];
	uint64_t value;
};
typedef void (*kn_counter_visit)(const struct kn_counter *c, void *arg);

struct kn_sandbox_ops {
	const char *name;           /* "qemu", "kvm", "fake" */
	/** Can this host run it? 0, or -errno with what is missing and how to get it. */
	int (*check)(const void *driver, struct kn_err *err);
	int (*start)(struct kn_loop *loop, const void *driver, const struct kn_sandbox_config *config,
	             const struct kn_sandbox_events *events, struct kn_sandbox **ret,
	             struct kn_err *err);
	/** A connected non-blocking stream socket that speaks HTTP/1.1; NULL slot: use invoke. */
	int (*connect)(struct kn_sandbox *sb, int *ret_fd, struct kn_err *err);
	/** done runs exactly once, later or never before this returns; NULL slot: use connect. */
	int (*invoke)(struct kn_sandbox *sb, const struct kn_message *request, kn_message_done done,
	              void *arg, struct kn_err *err);
	/** End it: asks the function to stop, kills after grace_ms; `ended` follows. Idempotent. */
	void (*stop)(struct kn_sandbox *sb, uint64_t grace_ms);
	int (*stats)(struct kn_sandbox *sb, struct kn_sandbox_stats *ret, struct kn_err *err);
	/** Visit what this instance has counted so far; strings live during the visit. NULL: nothing. */
	void (*counters)(struct kn_sandbox *sb, kn_counter_visit each, void *arg);
};

/** Every driver's sandbox begins with this; the pool uses the functions below. */
struct kn_sandbox {
	const struct kn_sandbox_ops *ops;
	const char *kind;                        /* how it was started, known when ready is called:
	                                          * "restore", "prepared"; static; NULL: "boot" */
	struct kn_phase phases[KN_MAX_PHASES];   /* filled when ready is called */
	size_t n_phases;
	bool prewarmed;             /* the start took a guest that had waited for it; set with phases */
};

/** False when there is no way to send it a request. */
static inline bool kn_sandbox_callable(const struct kn_sandbox_ops *ops)
{
	return ops->connect || ops->invoke;
}

static inline bool kn_sandbox_streams(const struct kn_sandbox *sb)
{
	return sb->ops->connect != NULL;
}

/*
 * Drivers. Each header oci/sandbox/NAME.h has a config struct (paths of kernel, initramfs, QEMU,
 * kiln-vmm; jail uid range; cgroup) that is passed as `driver`, and `extern const struct
 * kn_sandbox_ops kn_sandbox_NAME`.
 */
