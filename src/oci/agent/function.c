/* What to run and as whom, and the running of it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/caps.h"
#include "host/process.h"
#include "oci/agent/agent.h"
#include "oci/container.h"

static const char DEFAULT_PATH[] =
	"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

enum { MAX_ACCOUNTS = 1 << 20, MAX_PROGRAM = 4096, EXTRA_ENV = 2,
       MAX_READ_AHEAD = 16 << 20 };

/* ---- configure ----------------------------------------------------------------------------- */

static int copy_text(struct kn_arena *a, struct kn_view v, const char **ret, struct kn_err *err)
{
	if (v.len > 0 && memchr(v.ptr, '\0', v.len))
		return kn_fail(err, EINVAL, "a NUL byte in the function's configuration");
	*ret = kn_arena_copy(a, v.ptr, v.len);
	return *ret ? 0 : kn_fail(err, ENOMEM, "memory for the function's configuration");
}

static int copy_list(struct kn_arena *a, const struct kn_view *list, size_t n, const char ***ret,
                     struct kn_err *err)
{
	const char **copy = kn_arena_alloc(a, (n + 1 + EXTRA_ENV) * sizeof(*copy));

	if (!copy)
		return kn_fail(err, ENOMEM, "memory for the function's configuration");
	for (size_t i = 0; i < n; i++) {
		int r = copy_text(a, list[i], &copy[i], err);
		if (r < 0)
			return r;
	}
	*ret = copy;
	return 0;
}

static const char *env_get(const char *const *env, const char *name)
{
	size_t len = strlen(name);

	for (; *env; env++)
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return *env + len + 1;
	return NULL;
}

/* PATH and HOME, where the image does not set them. copy_list() left room. */
static int complete_env(struct function *f, struct kn_err *err)
{
	size_t n = 0;
	const char *path = NULL, *home = NULL;

	while (f->env[n])
		n++;
	if (!env_get(f->env, "PATH"))
		f->env[n++] = path = kn_arena_printf(&f->arena, "PATH=%s", DEFAULT_PATH);
	else
		path = "";
	if (!env_get(f->env, "HOME"))
		f->env[n++] = home = kn_arena_printf(&f->arena, "HOME=%.*s",
		                                     f->user.home.len ? (int)f->user.home.len : 1,
		                                     f->user.home.len ? f->user.home.ptr : "/");
	else
		home = "";
	return path && home ? 0 : kn_fail(err, ENOMEM, "memory for the function's environment");
}

/* An account file of the image; a missing one is empty. */
static int read_accounts(const char *path, struct kn_arena *a, struct kn_view *ret,
                         struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	int r = kn_read_file(AT_FDCWD, path, MAX_ACCOUNTS, &text, err);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return r;
	char *copy = kn_arena_copy(a, text.ptr, text.len);
	if (!copy)
		return kn_fail(err, ENOMEM, "memory for %s", path);
	*ret = (struct kn_view){ copy, text.len };
	return 0;
}

static int find_user(struct function *f, struct kn_view user, struct kn_err *err)
{
	struct kn_view passwd = KN_VIEW_NULL, group = KN_VIEW_NULL;

	int r = read_accounts("/etc/passwd", &f->arena, &passwd, err);
	if (r == 0)
		r = read_accounts("/etc/group", &f->arena, &group, err);
	return r < 0 ? r : kn_user_resolve(user, passwd, group, &f->user, err);
}

static int find_program(struct function *f, struct kn_err *err)
{
	const char *path = env_get(f->env, "PATH");

	if (!f->argv[0])
		return kn_fail(err, EINVAL, "the image names no command (Entrypoint and Cmd are empty)");
	f->program = kn_arena_alloc(&f->arena, MAX_PROGRAM);
	if (!f->program)
		return kn_fail(err, ENOMEM, "memory for the function's program");
	/* Names with a slash are relative to the working directory, as for execve. */
	if (chdir(f->cwd) < 0)
		return kn_fail(err, errno, "working directory '%s': %s", f->cwd, strerror(errno));
	int r = kn_find_program(f->argv[0], path ? path : DEFAULT_PATH, f->program, MAX_PROGRAM, err);
	return r < 0 ? r : kn_check_program(f->program, err);
}

/*
 * A program that runs once a request is read now, into the guest's page cache: a snapshot then holds
 * it, and the first request of a restored guest need not go to the disk for it.
 */
static void read_ahead(const char *program)
{
	kn_auto(kn_close) int fd = open(program, O_RDONLY | O_CLOEXEC);
	char piece[16 * 1024];
	size_t total = 0;
	ssize_t n;

	while (fd >= 0 && total < MAX_READ_AHEAD && (n = read(fd, piece, sizeof(piece))) > 0)
		total += (size_t)n;
}

int function_configure(struct function *f, const struct kn_agent_message *m, uid_t id_first,
                       struct kn_err *err)
{
	kn_arena_init(&f->arena);
	f->contract = (enum kn_contract)m->contract;
	f->port = (uint16_t)m->port;
	f->ready_timeout_ms = m->ready_timeout_ms;
	f->time_limit_ms = m->time_limit_ms;
	f->max_reply_bytes = m->max_reply_bytes;

	int r = copy_list(&f->arena, m->argv, m->n_argv, &f->argv, err);
	if (r == 0)
		r = copy_list(&f->arena, m->env, m->n_env, &f->env, err);
	if (r == 0)
		r = copy_text(&f->arena, m->cwd.len ? m->cwd : KN_VIEW("/"), &f->cwd, err);
	if (r == 0 && m->ready_path.len > 0)
		r = copy_text(&f->arena, m->ready_path, &f->ready_path, err);
	if (r == 0)
		r = find_user(f, m->user, err);
	if (r == 0)
		r = complete_env(f, err);
	if (r == 0)
		r = kn_container_mkdirs(f->cwd, id_first, err);
	if (r == 0)
		r = files_put(f, m, id_first, err);
	if (r == 0)
		r = find_program(f, err);
	if (r == 0 && f->contract == KN_CONTRACT_STDIO)
		read_ahead(f->program);
	return r;
}

void function_fini(struct function *f)
{
	kn_arena_fini(&f->arena);
}

/* ---- run ----------------------------------------------------------------------------------- */

/* In the child. Without root (tests) everything stays as it is. */
static int become_user(void *arg, struct kn_err *err)
{
	const struct kn_agent *a = arg;
	const struct function *f = &a->fn;
	int r = a->config.enter ? a->config.enter(a->config.arg, err) : 0;

	if (r < 0)
		return r;
	if (chdir(f->cwd) < 0)
		return kn_fail(err, errno, "working directory '%s': %s", f->cwd, strerror(errno));
	umask(022);
	if (geteuid() != 0)
		return 0;
	r = kn_caps_bound(KN_CAPS_CONTAINER, err);
	if (r == 0)
		r = kn_become(f->user.uid, f->user.gid, f->user.groups, f->user.n_groups, err);
	if (r == 0 && f->user.uid == 0)
		r = kn_caps_limit(KN_CAPS_CONTAINER, err);
	return r;
}

static const char **join_env(struct kn_arena *a, const char **own, const char *const *more)
{
	size_t n = 0, m = 0;

	while (own[n])
		n++;
	while (more && more[m])
		m++;
	const char **all = kn_arena_alloc(a, (n + m + 1) * sizeof(*all));
	if (!all)
		return NULL;
	memcpy(all, own, n * sizeof(*all));
	if (m)
		memcpy(all + n, more, m * sizeof(*all));
	return all;
}

static void on_child(struct kn_child *c, int wait_status)
{
	struct process *p = kn_container_of(c, struct process, child);

	/* What it left in its session must not outlive it: it has nobody who waits for it. */
	kill(-c->pid, SIGKILL);
	*p->prev = p->next;
	if (p->next)
		p->next->prev = p->prev;
	output_finish(&p->err);
	p->ended(p, wait_status);
}

static int watch_process(struct kn_agent *a, struct process *p, pid_t pid, struct kn_err *err)
{
	p->child.pid = pid;
	p->child.done = on_child;
	int r = kn_child_start(a->loop, &p->child, err);
	if (r < 0) {
		kill(pid, SIGKILL);
		return r;
	}
	p->next = a->processes;
	p->prev = &a->processes;
	if (p->next)
		p->next->prev = &p->next;
	a->processes = p;
	return 0;
}

/* No limit is raised: that takes CAP_SYS_RESOURCE, which not every host gives. */
static uint64_t hard_nofile(void)
{
	struct rlimit now;

	if (getrlimit(RLIMIT_NOFILE, &now) < 0)
		return 1024;
	return kn_min((uint64_t)now.rlim_max, UINT64_C(65536));
}

int process_start(struct kn_agent *a, struct process *p, int in, int out, const char *const *env,
                  struct kn_err *err)
{
	const uint64_t hard = hard_nofile(), soft = kn_min(hard, UINT64_C(1024));
	struct kn_rlimit limits[] = { { RLIMIT_NOFILE, soft, hard },
		                      { RLIMIT_CORE, 0, 0 } };
	struct kn_arena scratch;
	int e[2];
	pid_t pid;

	if (pipe2(e, O_CLOEXEC) < 0)
		return kn_fail(err, errno, "pipe: %s", strerror(errno));
	fcntl(e[0], F_SETFL, O_NONBLOCK);
	kn_arena_init(&scratch);
	struct kn_fd_map fds[] = { { e[1], 2 }, { out, 1 }, { in, 0 } };
	struct kn_spawn_config c = { .path = a->fn.program,
		                     .argv = a->fn.argv,
		                     .env = join_env(&scratch, a->fn.env, env),
		                     .fds = fds,
		                     .n_fds = in < 0 ? 2 : 3,
		                     .rlimits = limits,
		                     .n_rlimits = getpid() == 1 ? KN_ARRAY_LEN(limits) : 0,
		                     .new_session = true,
		                     .setup = become_user,
		                     .arg = a };
	int r = c.env ? kn_spawn(&c, &pid, NULL, err) : kn_fail(err, ENOMEM, "memory for a process");
	kn_arena_fini(&scratch);
	kn_close(e[1]);
	if (r == 0)
		r = watch_process(a, p, pid, err);
	if (r < 0) {
		kn_close(e[0]);
		return r;
	}
	p->err.tail = p->tail;
	p->err.tail_len = &p->tail_len;
	/* Without a log of its errors it still runs. */
	(void)!output_start(a, &p->err, e[0], KN_STDERR, NULL);
	return 0;
}

void process_signal(struct process *p, int sig)
{
	kill(-p->child.pid, sig);
}
