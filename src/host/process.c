#include "host/process.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

enum { STACK_BYTES = 256 * 1024 };

/* Lives on the parent's stack; the child writes err there, since memory is shared until execve. */
struct start {
	const struct kn_spawn_config *config;
	struct kn_err *err;
	int result;                  /* 0: the program runs; else -errno */
	int program_fd;              /* config->program_fd, moved out of the way */
	int parent_pidfd;            /* to see that the parent died before the death signal was set */
	int fds[KN_SPAWN_MAX_FDS];   /* where config->fds[i].from was moved out of the way */
};

static int reset_signals(void)
{
	struct sigaction deflt = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int sig = 1; sig < _NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			sigaction(sig, &deflt, NULL);
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * Two steps, so that { 5 -> 3, 3 -> 4 } works: first everything is duplicated above all targets,
 * then each is put into its place. dup2 and dup3 without O_CLOEXEC clear close-on-exec.
 */
static int place_fds(struct start *s, int *null_fd)
{
	const struct kn_spawn_config *c = s->config;
	int above = 3;

	for (size_t i = 0; i < c->n_fds; i++)
		above = kn_max(above, c->fds[i].to + 1);
	*null_fd = fcntl(*null_fd, F_DUPFD_CLOEXEC, above);
	if (*null_fd < 0)
		return kn_fail(s->err, errno, "duplicate /dev/null: %s", strerror(errno));
	for (size_t i = 0; i < c->n_fds; i++) {
		s->fds[i] = fcntl(c->fds[i].from, F_DUPFD_CLOEXEC, above);
		if (s->fds[i] < 0)
			return kn_fail(s->err, errno, "duplicate descriptor %d: %s",
			               c->fds[i].from, strerror(errno));
	}
	if (c->program_fd > 0) {
		s->program_fd = fcntl(c->program_fd, F_DUPFD_CLOEXEC, above);
		if (s->program_fd < 0)
			return kn_fail(s->err, errno, "duplicate the program's descriptor: %s",
			               strerror(errno));
	}
	for (size_t i = 0; i < c->n_fds; i++)
		if (dup2(s->fds[i], c->fds[i].to) < 0)
			return kn_fail(s->err, errno, "place descriptor %d: %s", c->fds[i].to,
			               strerror(errno));
	return above;
}

static bool named(const struct kn_spawn_config *c, int fd)
{
	for (size_t i = 0; i < c->n_fds; i++)
		if (c->fds[i].to == fd)
			return true;
	return false;
}

static int fill_standard_fds(struct start *s, int null_fd)
{
	for (int fd = 0; fd < 3; fd++)
		if (!named(s->config, fd) && dup2(null_fd, fd) < 0)
			return kn_fail(s->err, errno, "open /dev/null: %s", strerror(errno));
	return 0;
}

/* Descriptors that are neither standard nor named disappear at execve. */
static int hide_other_fds(struct start *s, int above)
{
	for (int fd = 3; fd < above; fd++)
		if (!named(s->config, fd))
			fcntl(fd, F_SETFD, FD_CLOEXEC);
	/* syscalls: close_range */
	if (syscall(SYS_close_range, (unsigned)above, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return kn_fail(s->err, errno, "close_range: %s", strerror(errno));
	return 0;
}

static int set_limits(struct start *s)
{
	for (size_t i = 0; i < s->config->n_rlimits; i++) {
		const struct kn_rlimit *l = &s->config->rlimits[i];
		struct rlimit64 v = { .rlim_cur = l->soft, .rlim_max = l->hard };
		/* Not setrlimit(): raw, because this process still shares the parent's memory. */
		if (syscall(SYS_prlimit64, 0, l->resource, &v, NULL) < 0)
			return kn_fail(s->err, errno, "limit of resource %d: %s", l->resource,
			               strerror(errno));
	}
	return 0;
}

/*
 * The death signal is cleared by a change of user, so it is set after setup. A parent that died
 * before is seen at its pidfd: getppid() says 0 in a new PID namespace, alive or not.
 */
static int tie_to_parent(struct start *s)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return kn_fail(s->err, errno, "PR_SET_PDEATHSIG: %s", strerror(errno));
	struct pollfd p = { .fd = s->parent_pidfd, .events = POLLIN };
	if (poll(&p, 1, 0) > 0)
		_exit(127);
	return 0;
}

/* /dev/null is opened before setup, which may leave this root. */
static int prepare(struct start *s)
{
	const struct kn_spawn_config *c = s->config;
	int r;

	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null_fd < 0)
		return kn_fail(s->err, errno, "open /dev/null: %s", strerror(errno));
	if (c->new_session && setsid() < 0)
		return kn_fail(s->err, errno, "setsid: %s", strerror(errno));
	r = set_limits(s);
	if (r == 0 && c->setup)
		r = c->setup(c->arg, s->err);
	if (r == 0 && c->die_with_us)
		r = tie_to_parent(s);
	if (r < 0)
		return r;
	int above = place_fds(s, &null_fd);
	if (above < 0)
		return above;
	r = fill_standard_fds(s, null_fd);
	return r < 0 ? r : hide_other_fds(s, above);
}

static int child(void *arg)
{
	struct start *s = arg;
	static const char *const no_env[] = { NULL };
	const struct kn_spawn_config *c = s->config;

	reset_signals();
	s->result = prepare(s);
	if (s->result < 0)
		_exit(127);
	char *const *argv = (char *const *)(uintptr_t)c->argv;
	char *const *env = (char *const *)(uintptr_t)(c->env ? c->env : no_env);
	/* syscalls: execveat */
	if (s->program_fd > 0)
		execveat(s->program_fd, "", argv, env, AT_EMPTY_PATH);
	else
		execve(c->path, argv, env);
	s->result = kn_fail(s->err, errno, "run '%s': %s", c->path, strerror(errno));
	_exit(127);
}

/*
 * clone(2) as libc has it cannot name a cgroup, and clone3(2) it has not: on another stack the child
 * must not return from here, so it calls its function before any compiled code runs.
 */
static pid_t clone_into(struct start *s, char *stack, uint64_t flags, int *pidfd)
{
	struct clone_args a = { .flags = flags | CLONE_INTO_CGROUP,
		                .pidfd = (uint64_t)(uintptr_t)pidfd,
		                .exit_signal = SIGCHLD,
		                .stack = (uint64_t)(uintptr_t)stack,
		                .stack_size = STACK_BYTES,
		                .cgroup = (unsigned)s->config->cgroup_fd };
	register int (*function)(void *) __asm__("r12") = child;
	register void *argument __asm__("r13") = s;
	long r;

	/* syscalls: clone3 */
	__asm__ volatile("syscall\n\t"
	                 "test %%rax, %%rax\n\t"
	                 "jnz 1f\n\t"
	                 "xor %%ebp, %%ebp\n\t"
	                 "mov %%r13, %%rdi\n\t"
	                 "call *%%r12\n\t"
	                 "hlt\n"
	                 "1:"
	                 : "=a"(r)
	                 : "a"((long)SYS_clone3), "D"(&a), "S"(sizeof(a)), "r"(function), "r"(argument)
	                 : "rcx", "r11", "memory", "cc");
	if (r < 0)
		errno = (int)-r;
	return r < 0 ? -1 : (pid_t)r;
}

static int clone_child(struct start *s, char *stack, pid_t *ret_pid, int *ret_pidfd)
{
	uint64_t flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | s->config->namespaces;
	sigset_t all, before;
	int pidfd = -1;

	/* A handler of ours must not run in the child while it shares our memory. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid_t pid = s->config->cgroup_fd > 0
	                    ? clone_into(s, stack, flags, &pidfd)
	                    : clone(child, stack + STACK_BYTES, (int)flags | SIGCHLD, s, &pidfd);
	int saved = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (pid < 0)
		return kn_fail(s->err, saved, "start a process: %s", strerror(saved));
	*ret_pid = pid;
	*ret_pidfd = pidfd;
	return 0;
}

static int check_config(const struct kn_spawn_config *c, struct kn_err *err)
{
	if (c->n_fds > KN_SPAWN_MAX_FDS)
		return kn_fail(err, E2BIG, "%zu descriptors for a child, at most %d", c->n_fds,
		               KN_SPAWN_MAX_FDS);
	return 0;
}

int kn_spawn(const struct kn_spawn_config *config, pid_t *ret_pid, int *ret_pidfd,
             struct kn_err *err)
{
	struct kn_err local = KN_ERR_INIT;
	pid_t pid = -1;
	int fd = -1;

	int r = check_config(config, err);
	if (r < 0)
		return r;
	/* syscalls: pidfd_open */
	kn_auto(kn_close) int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (self < 0)
		return kn_fail(err, errno, "pidfd_open: %s", strerror(errno));
	char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
	                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return kn_fail(err, errno, "memory for a child's stack: %s", strerror(errno));

	struct start s = { .config = config, .err = err ? err : &local, .parent_pidfd = self };
	r = clone_child(&s, stack, &pid, &fd);
	munmap(stack, STACK_BYTES);
	if (r < 0)
		return r;
	kn_auto(kn_close) int pidfd = fd;
	if (s.result < 0) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return s.result;
	}
	*ret_pid = pid;
	if (ret_pidfd)
		*ret_pidfd = kn_take_fd(pidfd);
	return 0;
}

/* ---- what will run ------------------------------------------------------------------------- */

static int check_executable(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	return access(path, X_OK) < 0 ? -errno : 0;
}

static int tell_program(const char *name, int code, struct kn_err *err)
{
	if (code == EACCES)
		return kn_fail(err, EACCES, "permission denied: %s", name);
	if (code == EISDIR)
		return kn_fail(err, EISDIR, "is a folder, not a program: %s", name);
	if (code == ENOENT || code == ENOTDIR)
		return kn_fail(err, ENOENT, "executable file not found: %s", name);
	return kn_fail(err, code, "look at %s: %s", name, strerror(code));
}

int kn_find_program(const char *name, const char *path, char *ret, size_t len, struct kn_err *err)
{
	int worst = ENOENT;

	if (name[0] == '\0')
		return kn_fail(err, ENOENT, "executable file not found: the command is empty");
	if (strchr(name, '/')) {
		int r = check_executable(name);
		if (r < 0)
			return tell_program(name, -r, err);
		if (strlen(name) >= len)
			return kn_fail(err, ENAMETOOLONG, "path too long: %.64s...", name);
		memcpy(ret, name, strlen(name) + 1);
		return 0;
	}
	for (const char *at = path, *end; at; at = end ? end + 1 : NULL) {
		end = strchr(at, ':');
		int n = end ? (int)(end - at) : (int)strlen(at);
		char full[4096];
		if (snprintf(full, sizeof(full), "%.*s/%s", n ? n : 1, n ? at : ".", name) >=
		    (int)kn_min(sizeof(full), len))
			continue;
		int r = check_executable(full);
		if (r == 0) {
			memcpy(ret, full, strlen(full) + 1);
			return 0;
		}
		if (r == -EACCES)
			worst = EACCES;
	}
	if (worst == EACCES)
		return tell_program(name, EACCES, err);
	return kn_fail(err, ENOENT, "executable file not found in PATH: %s", name);
}

static int check_interpreter(const char *path, const char *line, size_t len, struct kn_err *err)
{
	char name[256];
	size_t n = 0, at = 2;

	while (at < len && (line[at] == ' ' || line[at] == '\t'))
		at++;
	while (at < len && !strchr(" \t\r\n", line[at]) && n + 1 < sizeof(name))
		name[n++] = line[at++];
	name[n] = '\0';
	if (at < len && line[at] == '\r')
		return kn_fail(err, ENOENT, "%s: its first line ends in a carriage return: "
		               "save the script with Unix line ends", path);
	int r = check_executable(name);
	if (r < 0)
		return kn_fail(err, -r, "%s: its interpreter '%s': %s", path, name, strerror(-r));
	return 0;
}

static int check_elf(const char *path, const unsigned char *head, size_t len, struct kn_err *err)
{
	Elf64_Ehdr e;

	if (len < sizeof(e))
		return kn_fail(err, ENOEXEC, "%s: exec format error: a cut ELF file", path);
	memcpy(&e, head, sizeof(e));
	if (e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_ident[EI_DATA] != ELFDATA2LSB ||
	    e.e_machine != EM_X86_64)
		return kn_fail(err, ENOEXEC, "%s: exec format error: a program for another machine "
		               "(ELF machine %u, %s); this one is x86-64", path, e.e_machine,
		               e.e_ident[EI_CLASS] == ELFCLASS64 ? "64-bit" : "32-bit");
	return 0;
}

int kn_check_program(const char *path, struct kn_err *err)
{
	unsigned char head[256];

	kn_auto(kn_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 && errno == EACCES)
		return 0;   /* may be executed without being read */
	if (fd < 0)
		return tell_program(path, errno, err);
	ssize_t n = read(fd, head, sizeof(head));
	if (n < 0)
		return tell_program(path, errno, err);
	if (n >= 4 && memcmp(head, ELFMAG, SELFMAG) == 0)
		return check_elf(path, head, (size_t)n, err);
	if (n >= 2 && head[0] == '#' && head[1] == '!')
		return check_interpreter(path, (const char *)head, (size_t)n, err);
	return kn_fail(err, ENOEXEC, "%s: exec format error: neither an ELF program nor a script "
	               "that begins with #!", path);
}

void kn_wait_status_text(int wait_status, char *out, size_t len)
{
	if (WIFEXITED(wait_status)) {
		snprintf(out, len, "exited with code %d", WEXITSTATUS(wait_status));
	} else if (WIFSIGNALED(wait_status)) {
		const char *name = sigabbrev_np(WTERMSIG(wait_status));
		snprintf(out, len, "killed by signal %d (%s)", WTERMSIG(wait_status),
		         name ? name : "?");
	} else {
		snprintf(out, len, "ended with status 0x%x", (unsigned)wait_status);
	}
}
