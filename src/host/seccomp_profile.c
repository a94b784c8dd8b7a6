#include "host/seccomp_profile.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

/* The newest number that this table decides about: open_tree_attr, Linux 6.15. */
enum { NEWEST = 467, MAX_BYTES = 64 * 1024 };

/* ---- what everybody may call --------------------------------------------------------------- */

static const char FILES[] =
	"access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat "
	"faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchown fchownat fcntl fdatasync "
	"fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat "
	"getcwd getdents getdents64 getxattr ioctl lchown lgetxattr link linkat listxattr llistxattr "
	"lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat "
	"open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink "
	"readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat "
	"statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat "
	"utime utimensat utimes vmsplice write writev "
	"io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit";

static const char WAITING[] =
	"epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
	"epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 "
	"inotify_rm_watch poll ppoll pselect6 select signalfd signalfd4 timerfd_create "
	"timerfd_gettime timerfd_settime";

static const char MEMORY[] =
	"brk madvise membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mprotect "
	"mremap msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages "
	"shmat shmctl shmdt shmget";

static const char PROCESSES[] =
	"alarm arch_prctl capget capset execve execveat exit exit_group fork futex get_robust_list "
	"get_thread_area getcpu getegid geteuid getgid getgroups getitimer getpgid getpgrp getpid "
	"getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid gettid getuid "
	"ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self "
	"modify_ldt pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease "
	"process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction rt_sigpending "
	"rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo "
	"sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam "
	"sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam "
	"sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address "
	"setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid "
	"setresuid setreuid setrlimit setsid setuid sigaltstack sysinfo tgkill times tkill uname "
	"vfork wait4 waitid";

static const char CLOCKS[] =
	"adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep gettimeofday nanosleep time "
	"timer_create timer_delete timer_getoverrun timer_gettime timer_settime";

static const char TALKING[] =
	"accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify "
	"mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 recvfrom "
	"recvmmsg recvmsg semctl semget semop semtimedop sendmmsg sendmsg sendto setsockopt shutdown "
	"socketpair";

/* Newer than libseccomp 2.5 knows by name. */
static const int NEW[] = {
	335,                  /* uretprobe */
	449,                  /* futex_waitv */
	451,                  /* cachestat */
	452,                  /* fchmodat2 */
	453,                  /* map_shadow_stack */
	454, 455, 456,        /* futex_wake, futex_wait, futex_requeue */
	459, 460, 461,        /* lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules */
	462,                  /* mseal */
	463, 464, 465, 466,   /* setxattrat, getxattrat, listxattrat, removexattrat */
};

/* ---- what takes a capability --------------------------------------------------------------- */

static const struct {
	int capability;
	const char *calls;
} WITH[] = {
	{ CAP_SYS_ADMIN, "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie "
	                 "mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd "
	                 "setdomainname sethostname setns syslog umount2 unshare" },
	{ CAP_BPF, "bpf" },
	{ CAP_DAC_READ_SEARCH, "open_by_handle_at" },
	{ CAP_PERFMON, "perf_event_open" },
	{ CAP_SYS_BOOT, "reboot" },
	{ CAP_SYS_CHROOT, "chroot" },
	{ CAP_SYS_MODULE, "delete_module finit_module init_module" },
	{ CAP_SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node" },
	{ CAP_SYS_PACCT, "acct" },
	{ CAP_SYS_PTRACE, "kcmp pidfd_getfd process_madvise" },
	{ CAP_SYS_RAWIO, "ioperm iopl" },
	{ CAP_SYS_TIME, "clock_settime settimeofday" },
	{ CAP_SYS_TTY_CONFIG, "vhangup" },
	{ CAP_SYSLOG, "syslog" },
};

/* ---- rules --------------------------------------------------------------------------------- */

static bool has(uint64_t caps, int capability)
{
	return caps >> capability & 1;
}

static int told(int r, const char *what, struct kn_err *err)
{
	return r < 0 ? kn_fail(err, -r, "system call filter, %s: %s", what, strerror(-r)) : 0;
}

/* A list of names; one that this libseccomp does not know stays forbidden. */
static int allow_names(scmp_filter_ctx ctx, const char *names, struct kn_err *err)
{
	struct kn_view rest = kn_view_of(names), name;
	char text[40];
	int r = 0;

	while (r == 0 && kn_view_split(&rest, ' ', &name)) {
		snprintf(text, sizeof(text), "%.*s", (int)name.len, name.ptr);
		int nr = seccomp_syscall_resolve_name(text);
		if (nr >= 0)
			r = told(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0), text, err);
	}
	return r;
}

static int allow_everybody(scmp_filter_ctx ctx, struct kn_err *err)
{
	static const char *const lists[] = { FILES, WAITING, MEMORY, PROCESSES, CLOCKS, TALKING };
	int r = 0;

	for (size_t i = 0; i < KN_ARRAY_LEN(lists) && r == 0; i++)
		r = allow_names(ctx, lists[i], err);
	for (size_t i = 0; i < KN_ARRAY_LEN(NEW) && r == 0; i++)
		r = told(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, NEW[i], 0), "new calls", err);
	return r;
}

static int allow_capable(scmp_filter_ctx ctx, uint64_t caps, struct kn_err *err)
{
	int r = 0;

	for (size_t i = 0; i < KN_ARRAY_LEN(WITH) && r == 0; i++)
		if (has(caps, WITH[i].capability))
			r = allow_names(ctx, WITH[i].calls, err);
	return r;
}

/* Linux, its 32-bit and short-uname personalities, both, and "what is it now?". */
static int allow_personalities(scmp_filter_ctx ctx, struct kn_err *err)
{
	static const uint64_t harmless[] = { 0, 0x8, 0x20000, 0x20008, 0xffffffff };
	int r = 0;

	for (size_t i = 0; i < KN_ARRAY_LEN(harmless) && r == 0; i++)
		r = told(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(personality), 1,
		                          SCMP_A0(SCMP_CMP_EQ, harmless[i])), "personality", err);
	return r;
}

/* A vsock reaches the host's hypervisor from any network namespace. */
static int allow_sockets(scmp_filter_ctx ctx, struct kn_err *err)
{
	return told(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
	                             SCMP_A0(SCMP_CMP_NE, AF_VSOCK)), "socket", err);
}

static int allow_plain_clones(scmp_filter_ctx ctx, uint64_t caps, struct kn_err *err)
{
	static const uint64_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS |
	                                   CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
	int r;

	if (has(caps, CAP_SYS_ADMIN))
		return 0;
	r = told(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
	                          SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces, 0)), "clone", err);
	return r < 0 ? r : told(seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0),
	                        "clone3", err);
}

static int add_rules(scmp_filter_ctx ctx, uint64_t caps, struct kn_err *err)
{
	int r = allow_everybody(ctx, err);

	if (r == 0)
		r = allow_capable(ctx, caps, err);
	if (r == 0)
		r = allow_personalities(ctx, err);
	if (r == 0)
		r = allow_sockets(ctx, err);
	return r < 0 ? r : allow_plain_clones(ctx, caps, err);
}

/* ---- the program --------------------------------------------------------------------------- */

/* Before everything else: numbers past the table, among them all of x32, are not there. */
static void add_prologue(struct kn_buf *ret)
{
	const struct sock_filter prologue[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, NEWEST, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
	};

	kn_buf_add(ret, prologue, sizeof(prologue));
}

static int export(scmp_filter_ctx ctx, struct kn_buf *ret, struct kn_err *err)
{
	kn_auto(kn_close) int fd = memfd_create("seccomp", MFD_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "memory for a filter: %s", strerror(errno));
	int r = told(seccomp_export_bpf(ctx, fd), "export", err);
	if (r < 0)
		return r;
	off_t len = lseek(fd, 0, SEEK_END);
	if (len <= 0 || len > MAX_BYTES)
		return kn_fail(err, EIO, "a system call filter of %lld bytes", (long long)len);
	add_prologue(ret);
	if (!kn_buf_reserve(ret, (size_t)len))
		return kn_fail(err, ENOMEM, "memory for a filter");
	if (pread(fd, ret->ptr + ret->len, (size_t)len, 0) != len)
		return kn_fail(err, EIO, "read the compiled filter");
	ret->len += (size_t)len;
	return 0;
}

int kn_seccomp_compile(uint64_t caps, struct kn_buf *ret, struct kn_err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));

	if (!ctx)
		return kn_fail(err, ENOMEM, "memory for a system call filter");
	/* A search tree: half of the calls are decided within nine comparisons. */
	int r = told(seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2), "optimize", err);
	if (r == 0)
		r = told(seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS)),
		         "other machines", err);
	if (r == 0)
		r = add_rules(ctx, caps, err);
	if (r == 0)
		r = export(ctx, ret, err);
	seccomp_release(ctx);
	return r;
}
