#include "host/seccomp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int kn_seccomp_load(struct kn_view filter, struct kn_err *err)
{
	size_t n = filter.len / sizeof(struct sock_filter);

	if (n == 0 || n > BPF_MAXINSNS || filter.len % sizeof(struct sock_filter) != 0)
		return kn_fail(err, EINVAL, "a system call filter of %zu bytes", filter.len);
	struct sock_fprog program = {
		.len = (unsigned short)n,
		.filter = (struct sock_filter *)(uintptr_t)filter.ptr,
	};
	/* syscalls: seccomp */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return kn_fail(err, errno, "install the system call filter: %s", strerror(errno));
	return 0;
}
