#include "host/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "host/caps.h"

enum { STACK_BYTES = 4096 };

/* A namespace needs a first process; this one waits to be killed, and goes if we go before. */
static int wait_for_the_end(void *arg)
{
	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (pause() < 0)
		;
	return 0;
}

static int write_map(pid_t pid, const char *file, uid_t first, uint32_t count, struct kn_err *err)
{
	char path[64], text[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	int n = snprintf(text, sizeof(text), "0 %u %u\n", first, count);
	kn_auto(kn_close) int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return kn_fail(err, errno, "map %u ids from %u on into a user namespace: %s", count,
		               first, strerror(errno));
	return 0;
}

static int open_of(pid_t pid, uid_t first, uint32_t count, struct kn_err *err)
{
	char path[64];

	int r = write_map(pid, "uid_map", first, count, err);
	if (r == 0)
		r = write_map(pid, "gid_map", first, count, err);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? kn_fail(err, errno, "open %s: %s", path, strerror(errno)) : fd;
}

int kn_userns_new(uid_t first, uint32_t count, struct kn_err *err)
{
	char stack[STACK_BYTES] __attribute__((aligned(16)));

	/* Without CLONE_VM the child has a copy of this stack. No signal at its end: __WCLONE. */
	pid_t pid = clone(wait_for_the_end, stack + sizeof(stack), CLONE_NEWUSER, NULL);
	if (pid < 0)
		return kn_fail(err, errno, "make a user namespace: %s%s", strerror(errno),
		               errno == ENOSPC ? ": raise the sysctl user.max_user_namespaces" : "");
	int fd = open_of(pid, first, count, err);
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, (int)__WCLONE) < 0 && errno == EINTR)
		;
	return fd;
}

int kn_userns_enter(int userns_fd, struct kn_err *err)
{
	/* syscalls: setns */
	if (setns(userns_fd, CLONE_NEWUSER) < 0)
		return kn_fail(err, errno, "enter the user namespace: %s", strerror(errno));
	return kn_become(0, 0, NULL, 0, err);
}
