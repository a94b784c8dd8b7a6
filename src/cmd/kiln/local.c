#include "cmd/kiln/local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "host/process.h"

static int join(char out[KN_LOCAL_PATH], struct kn_err *err, const char *a, const char *b)
{
	int n = snprintf(out, KN_LOCAL_PATH, "%s%s", a, b);

	return n < KN_LOCAL_PATH ? 0 : kn_fail(err, ENAMETOOLONG, "'%s%s' is too long", a, b);
}

int kn_local_state(const char *given, char out[KN_LOCAL_PATH], struct kn_err *err)
{
	const char *home = getenv("XDG_STATE_HOME");

	if (!given)
		given = getenv("KILN_STATE");
	if (given)
		return join(out, err, given, "");
	if (geteuid() == 0)
		return join(out, err, "/var/lib/kiln", "");
	if (home && home[0] == '/')
		return join(out, err, home, "/kiln");
	home = getenv("HOME");
	if (!home || !home[0])
		return kn_fail(err, ENOENT, "where is the node's state? Give --state DIR");
	return join(out, err, home, "/.local/state/kiln");
}

/* The kernel tells who runs; the file only who wrote it last. */
static int check_is_kilnd(pid_t pid, struct kn_err *err)
{
	char path[64], exe[KN_LOCAL_PATH];

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	ssize_t len = readlink(path, exe, sizeof(exe) - 1);
	if (len < 0)
		return kn_fail(err, errno, "process %d: %s", (int)pid, strerror(errno));
	exe[len] = '\0';
	const char *base = strrchr(exe, '/');
	struct kn_view name = kn_view_of(base ? base + 1 : exe);
	if (kn_view_is(name, KN_VIEW("kilnd")) || kn_view_is(name, KN_VIEW("kilnd (deleted)")))
		return 0;
	return kn_fail(err, EPERM, "process %d is no kilnd but '%s'", (int)pid, exe);
}

int kn_local_find(const char *state, pid_t *ret_pid, int *ret_pidfd, struct kn_err *err)
{
	char path[KN_LOCAL_PATH], text[24] = "";

	int r = join(path, err, state, "/kilnd.lock");
	if (r < 0)
		return r;
	*ret_pid = 0;
	kn_auto(kn_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (fd < 0)
		return kn_fail(err, errno, "open '%s': %s", path, strerror(errno));
	if (flock(fd, LOCK_SH | LOCK_NB) == 0)   /* nobody holds it */
		return 0;
	if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
		return kn_fail(err, EAGAIN, "a kilnd is just starting in '%s': try again", state);
	pid_t pid = (pid_t)strtol(text, NULL, 10);
	/* The descriptor first: after it the number cannot become somebody else's unseen. */
	kn_auto(kn_close) int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return kn_fail(err, errno, "process %d: %s", (int)pid, strerror(errno));
	r = check_is_kilnd(pid, err);
	if (r < 0)
		return r;
	*ret_pid = pid;
	if (ret_pidfd)
		*ret_pidfd = kn_take_fd(pidfd);
	return 0;
}

int kn_local_program(const char *name, char out[KN_LOCAL_PATH], struct kn_err *err)
{
	char exe[KN_LOCAL_PATH];
	const char *path = getenv("PATH");

	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (len > 0) {
		exe[len] = '\0';
		*(strrchr(exe, '/') + 1) = '\0';
		int r = join(out, err, exe, name);
		if (r < 0 || access(out, X_OK) == 0)
			return r;
	}
	return kn_find_program(name, path ? path : "/usr/local/bin:/usr/bin:/bin", out,
			       KN_LOCAL_PATH, err);
}
