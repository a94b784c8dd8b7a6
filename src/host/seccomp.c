#include "host/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
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

int kn_seccomp_allow(const long *calls, size_t n, struct kn_err *err)
{
	struct sock_filter f[KN_SECCOMP_LIST_MAX + 6];
	size_t at = 0;

	if (n > KN_SECCOMP_LIST_MAX)
		return kn_fail(err, EINVAL, "a filter of %zu system calls, at most %d", n,
		               KN_SECCOMP_LIST_MAX);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
	                                       offsetof(struct seccomp_data, arch));
	f[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
	                                       offsetof(struct seccomp_data, nr));
	/* From call i it is n - i instructions to the last one, which lets it through. */
	for (size_t i = 0; i < n; i++)
		f[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i],
		                                       (uint8_t)(n - i), 0);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	f[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return kn_seccomp_load((struct kn_view){ (const char *)f, at * sizeof(f[0]) }, err);
}
