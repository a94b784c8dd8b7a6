/*
 * Child processes, started fast and exactly as asked: own namespaces, only the descriptors that were
 * named, limits, and death together with the parent. What the jail, the container and the agent start
 * processes with; serves the event flow.
 *
 * The child shares the parent's memory until it runs its program (CLONE_VM | CLONE_VFORK), so that
 * starting one costs the same however large the parent is. That makes rules for `setup`: it runs on a
 * small stack of its own beside the parent's other threads, and must not allocate, take locks or use
 * functions of libc that change process state for all threads (setuid and relatives: use the raw
 * system calls, as host/caps.h does).
 *
 * Thread  any; the calling thread waits until the child runs its program. A child with `die_with_us`
 *         dies when the thread that started it ends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/err.h"

/** In the child: descriptor `to` is the parent's `from`. */
struct kn_fd_map {
	int from, to;
};

struct kn_rlimit {
	int resource;             /* RLIMIT_NOFILE ... */
	uint64_t soft, hard;
};

enum { KN_SPAWN_MAX_FDS = 32 };

struct kn_spawn_config {
	const char *path;                  /* program; resolved after setup, in the child's root */
	int program_fd;                    /* run this ELF file instead (path is its name in errors); 0:
	                                    * none */
	const char *const *argv;           /* NULL-terminated */
	const char *const *env;            /* NULL-terminated; NULL: empty */
	const struct kn_fd_map *fds;       /* every other descriptor is closed; 0, 1 and 2 that are not */
	size_t n_fds;                      /*   named here are /dev/null */
	const struct kn_rlimit *rlimits;
	size_t n_rlimits;
	int cgroup_fd;                     /* folder of a cgroup of version 2 in which the child begins,
	                                    * which no later move can replace: a move waits for a grace
	                                    * period of the kernel; 0: the parent's */
	uint64_t namespaces;               /* CLONE_NEWNS | CLONE_NEWPID ... */
	bool new_session;                  /* setsid(): its own process group, too */
	bool die_with_us;                  /* SIGKILL when the parent's thread ends */
	/**
	 * Runs in the child after namespaces and limits, before die_with_us and the program. Returns 0
	 * or -errno with err told.
	 */
	int (*setup)(void *arg, struct kn_err *err);
	void *arg;
};

/**
 * Start a program. Its signal mask is empty and every signal has its default action.
 *
 * ret_pid    the child, not yet reaped
 * ret_pidfd  readable when the child has ended; close-on-exec; may be NULL
 *
 * Errors  what clone, setup or execve said, after the child was reaped: ENOENT and EACCES for the
 *         program come as they are; E2BIG for more than KN_SPAWN_MAX_FDS
 */
kn_must_use int kn_spawn(const struct kn_spawn_config *config, pid_t *ret_pid, int *ret_pidfd,
                         struct kn_err *err);

/**
 * Find a program as execvp would: a name with a slash is taken as it is (relative to cwd), others
 * are searched in path ("/bin:/usr/bin").
 *
 * ret     absolute path or as given, at most len bytes with its NUL
 * Errors  ENOENT "executable file not found in PATH: x"; EACCES "permission denied: x";
 *         EISDIR; ENAMETOOLONG
 */
kn_must_use int kn_find_program(const char *name, const char *path, char *ret, size_t len,
                                struct kn_err *err);

/**
 * Say before it is tried why execve would refuse this file: not ELF and no "#!" line, a program for
 * another kind of machine, an interpreter that is missing.
 *
 * Errors  ENOEXEC, ENOENT, or what opening it said; told for the author of an image
 */
kn_must_use int kn_check_program(const char *path, struct kn_err *err);

/** "exited with code 3", "killed by signal 9 (KILL)": a wait status in words, into out. */
void kn_wait_status_text(int wait_status, char *out, size_t len);
