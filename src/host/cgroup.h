/*
 * Control groups of one process tree: limits, membership, use, the end of it. Version 2, or version
 * 1 with a hierarchy per controller, whichever this host mounts its memory controller in. Used by
 * the jail and by containers; serves the event flow.
 *
 * A cgroup here is named by a path below the hierarchy's root ("kiln/abc"), the same in every
 * hierarchy of version 1.
 *
 * Thread  a kn_cgroup belongs to one thread at a time
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/mem.h"

enum kn_cgroup_version { KN_CGROUP_V1 = 1, KN_CGROUP_V2 = 2 };

/* Where the controllers are mounted. Borrowed strings are the caller's; see kn_cgroup_find(). */
struct kn_cgroup_host {
	enum kn_cgroup_version version;
	char memory[128], cpu[128], cpuacct[128], pids[128];   /* mount points; v2: all the same */
};

/**
 * Look at the mounts of this host.
 *
 * mountinfo  "/proc/self/mountinfo", or a file of a test
 *
 * Errors  ENOENT: no memory or pids controller is mounted, with what to do
 * Source  cgroups(7)
 */
kn_must_use int kn_cgroup_find(const char *mountinfo, struct kn_cgroup_host *ret,
                               struct kn_err *err);

struct kn_cgroup_limits {
	uint64_t memory_bytes;   /* 0: no limit; swap is never added to it */
	uint64_t cpu_millis;     /* thousandths of one core; 0: no limit */
	uint64_t pids;           /* 0: no limit */
};

struct kn_cgroup;

/**
 * Make cgroup parent/name with its parents and set its limits.
 *
 * Errors  EEXIST: somebody uses this name; EBUSY on version 2 when an ancestor holds processes and
 *         so cannot hand out controllers; what the kernel said to a limit
 */
kn_must_use int kn_cgroup_new(const struct kn_cgroup_host *host, const char *parent,
                              const char *name, const struct kn_cgroup_limits *limits,
                              struct kn_cgroup **ret, struct kn_err *err);

/** Forget it without removing it. NULL is fine. */
void kn_cgroup_free(struct kn_cgroup *cg);
KN_AUTO(kn_cgroup_free, struct kn_cgroup *);

/**
 * Set limits of a cgroup that is there; those that are 0 stay as they are.
 * Errors  what the kernel said to a limit
 */
kn_must_use int kn_cgroup_limit(const struct kn_cgroup *cg, const struct kn_cgroup_limits *limits,
                                struct kn_err *err);

/** Put a process into it; 0 is the calling one. No allocation: fit for kn_spawn()'s setup. */
kn_must_use int kn_cgroup_add(const struct kn_cgroup *cg, pid_t pid, struct kn_err *err);

enum { KN_CGROUP_MAX_DIRS = 4 };

/** One folder of a cgroup: version 2 has one, version 1 one in each hierarchy. */
struct kn_cgroup_dir {
	int fd;               /* stays the cgroup's */
	const char *name;     /* the hierarchy's mount point, its last part: "memory", "cpu,cpuacct" */
};

/**
 * The folders that make it up, memory's first: for a process that joins by itself, with
 * kn_cgroup_join() on each. Returns how many.
 */
size_t kn_cgroup_dirs(const struct kn_cgroup *cg, struct kn_cgroup_dir ret[KN_CGROUP_MAX_DIRS]);

/** Is it version 2, where one folder is all? */
bool kn_cgroup_unified(const struct kn_cgroup *cg);

/** Put the calling process into the cgroup of a folder. Errors: what the kernel said. */
kn_must_use int kn_cgroup_join(int dir_fd, struct kn_err *err);

/**
 * The file of a memory cgroup's folder that counts kills, for kn_oom_kills(): fit to be kept where the
 * folder must not be. Returns a close-on-exec descriptor or -errno.
 */
int kn_cgroup_open_events(int memory_dir_fd);

/** Processes killed for want of memory, by such a file or by /proc/vmstat; 0 when it does not say. */
uint64_t kn_oom_kills(int fd);

/** Kill everything in it, and what those start meanwhile. Returns 0 or -errno. */
int kn_cgroup_kill(const struct kn_cgroup *cg, struct kn_err *err);

/**
 * Remove it, and the parents that it leaves empty.
 *
 * Errors  EBUSY: a process is still leaving (try again in some milliseconds). A missing one is fine.
 */
kn_must_use int kn_cgroup_remove(const struct kn_cgroup *cg, struct kn_err *err);

struct kn_cgroup_stats {
	uint64_t memory_bytes;
	uint64_t cpu_ns;
	uint64_t oom_kills;      /* processes killed for the memory limit */
};

/** What the group uses now. Errors: what reading its files said. */
kn_must_use int kn_cgroup_stats(const struct kn_cgroup *cg, struct kn_cgroup_stats *ret,
                                struct kn_err *err);

/** Remove every empty child of parent, then parent itself if that leaves it empty; count them. */
size_t kn_cgroup_sweep(const struct kn_cgroup_host *host, const char *parent);
