/* For tests that need a user namespace. */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

/** May this process make user namespaces, as root? Not in a chroot: user_namespaces(7), EPERM. */
static inline bool has_users(void)
{
	int status = -1;
	pid_t pid = geteuid() == 0 ? fork() : -1;

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER) < 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}
