/*
 * Theory of operation. start() makes a cgroup, a socket pair and two pipes, starts a jailed QEMU and
 * says everything that the agent must know into the socket at once; it waits there until the guest
 * has booted. From then on the agent tells how far it is. Every end takes one way: end() notes the
 * reason and kills QEMU; when that is reaped, what it printed is read to the end, the cgroup is
 * removed (the kernel may need some milliseconds until it is free), and `ended` is called.
 */
#include "oci/sandbox/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/jail.h"
#include "oci/agent_message.h"

enum {
	STOP_EXTRA_MS = 2000,      /* beyond the grace, for a slow guest to tell that it is done */
	READY_EXTRA_MS = 5000,     /* the guest keeps the time itself; this is for one that hangs */
	CLEAN_MS = 2, CLEAN_TRIES = 2500,
	MIN_MEMORY = 64 << 20,
};

/* ---- the end ------------------------------------------------------------------------------- */

static void clean_up(struct qemu *q);

static void on_clean_time(struct kn_timer *t)
{
	clean_up(kn_container_of(t, struct qemu, timer));
}

static void release(struct qemu *q)
{
	kn_timer_stop(&q->timer);
	kn_mux_free(q->mux);
	lines_finish(&q->console);
	lines_finish(&q->monitor);
	if (q->root_dir)
		rmdir(q->root_dir);
	if (q->uid)
		kn_jail_give_uid(q->uid);
	kn_cgroup_free(q->cgroup);
	free(q->root_dir);
	free(q);
}

/* Errors other than EBUSY are for the daemon's log: the sweep at its next start tries again. */
static void clean_up(struct qemu *q)
{
	struct kn_err err = KN_ERR_INIT, none = KN_ERR_INIT;

	int r = kn_cgroup_remove(q->cgroup, &err);
	if (r == -EBUSY && q->tries++ < CLEAN_TRIES) {
		q->timer.call = on_clean_time;
		if (kn_timer_start(q->loop, &q->timer, kn_now_ns() + CLEAN_MS * KN_NS_PER_MS,
		                   NULL) == 0)
			return;
	}
	if (r < 0 && q->events.log)
		q->events.log(&q->sb, KN_MONITOR, kn_view_of(kn_err_text(&err)), q->events.arg);
	if (q->events.ended)
		q->events.ended(&q->sb, q->stopped ? &none : &q->why, q->events.arg);
	release(q);
}

/* QEMU ended by itself: what can be found out about the reason. */
static void explain(struct qemu *q, int wait_status)
{
	const char *when = q->was_ready ? "" : " before the function was ready";
	struct kn_cgroup_stats stats = { .oom_kills = 0 };
	char how[96];

	if (q->why.code)
		return;
	if (kn_cgroup_stats(q->cgroup, &stats, NULL) == 0 && stats.oom_kills > 0) {
		kn_fail(&q->why, ENOMEM, "killed by the memory limit%s: QEMU used more than the "
		        "guest's %llu MiB and %llu MiB of its own", when,
		        (unsigned long long)q->memory_bytes >> 20,
		        (unsigned long long)q->config->overhead_bytes >> 20);
		return;
	}
	if (q->panic[0]) {
		kn_fail(&q->why, EIO, "the guest's kernel panicked%s: %s", when, q->panic);
		return;
	}
	if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) {
		kn_fail(&q->why, EIO, "the guest powered off%s%s%s", when,
		        q->console.last[0] ? ": " : "", q->console.last);
		return;
	}
	kn_wait_status_text(wait_status, how, sizeof(how));
	kn_fail(&q->why, EIO, "QEMU %s%s%s%s", how, when, q->monitor.last[0] ? ": " : "",
	        q->monitor.last);
}

static void on_reaped(struct kn_child *child, int wait_status)
{
	struct qemu *q = kn_container_of(child, struct qemu, child);

	q->state = CLEANING;
	q->tries = 0;
	q->child.pid = 0;
	lines_finish(&q->console);
	lines_finish(&q->monitor);
	explain(q, wait_status);
	kn_mux_free(kn_take_ptr(q->mux));
	clean_up(q);
}

/* Kill QEMU; why is noted if it is the first reason. NULL: the caller wanted it so. */
static void end(struct qemu *q, const struct kn_err *why)
{
	if (why && !q->why.code)
		q->why = *why;
	if (q->state >= DYING)
		return;
	q->state = DYING;
	kn_timer_stop(&q->timer);
	kn_child_kill(&q->child, SIGKILL);
}

/* ---- how far it is ------------------------------------------------------------------------- */

static void note_phase(struct qemu *q, const char *name)
{
	uint64_t now = kn_now_ns();

	if (q->sb.n_phases < KN_MAX_PHASES)
		q->sb.phases[q->sb.n_phases++] = (struct kn_phase){ name, now - q->phase_ns };
	q->phase_ns = now;
}

static int arm(struct qemu *q, void (*call)(struct kn_timer *t), uint64_t ms, struct kn_err *err)
{
	q->timer.call = call;
	return kn_timer_start(q->loop, &q->timer, kn_now_ns() + ms * KN_NS_PER_MS, err);
}

static void on_boot_time(struct kn_timer *t)
{
	struct qemu *q = kn_container_of(t, struct qemu, timer);
	struct kn_err why = KN_ERR_INIT;

	kn_fail(&why, ETIMEDOUT, "the guest did not boot within %llu ms%s%s",
	        (unsigned long long)q->boot_timeout_ms, q->console.last[0] ? ": " : "",
	        q->console.last);
	end(q, &why);
}

static void on_ready_time(struct kn_timer *t)
{
	struct qemu *q = kn_container_of(t, struct qemu, timer);
	struct kn_err why = KN_ERR_INIT;

	kn_fail(&why, ETIMEDOUT, "the guest does not answer: the function was not ready within "
	        "%llu ms", (unsigned long long)(q->ready_timeout_ms + READY_EXTRA_MS));
	end(q, &why);
}

static void on_stop_time(struct kn_timer *t)
{
	end(kn_container_of(t, struct qemu, timer), NULL);
}

static void on_hello(struct kn_mux *m, uint32_t generation, void *arg)
{
	struct qemu *q = arg;
	struct kn_err err = KN_ERR_INIT;

	(void)m;
	(void)generation;
	if (q->state != BOOTING)
		return;
	note_phase(q, "boot");
	q->state = STARTING;
	if (arm(q, on_ready_time, q->ready_timeout_ms + READY_EXTRA_MS, &err) < 0)
		end(q, &err);
}

static void on_ready(struct qemu *q)
{
	note_phase(q, "ready");
	q->state = SERVING;
	q->was_ready = true;
	kn_timer_stop(&q->timer);
	if (q->events.ready)
		q->events.ready(&q->sb, q->events.arg);
}

static void on_ended_inside(struct qemu *q, const struct kn_agent_message *m)
{
	struct kn_err why = KN_ERR_INIT;
	int code = m->type == KN_AGENT_FAILED && m->status < 4096 ? (int)m->status : EIO;

	kn_fail(&why, code, "%.*s", (int)kn_min(m->text.len, (size_t)KN_ERR_TEXT), m->text.ptr);
	end(q, &why);
}

static void on_log(struct qemu *q, const struct kn_agent_message *m)
{
	struct kn_view line = m->text;

	if (!q->events.log || m->stream > KN_STDERR)
		return;
	line.len = kn_min(line.len, (size_t)KN_AGENT_MAX_LINE);
	q->events.log(&q->sb, (enum kn_stream)m->stream, line, q->events.arg);
}

static void on_message(struct qemu *q, const struct kn_agent_message *m)
{
	if (m->type == KN_AGENT_LOG) {
		on_log(q, m);
	} else if (m->type == KN_AGENT_STARTED && q->state == STARTING) {
		note_phase(q, "start");
		q->state = PROBING;
	} else if (m->type == KN_AGENT_READY && q->state == PROBING) {
		on_ready(q);
	} else if (m->type == KN_AGENT_EXITED || m->type == KN_AGENT_FAILED) {
		on_ended_inside(q, m);
	}
}

/* The guest is not trusted: what it says is checked, and what comes too early or late means nothing. */
static void on_control(struct kn_mux *mux, struct kn_view message, void *arg)
{
	struct qemu *q = arg;
	struct kn_agent_message m;
	struct kn_err err = KN_ERR_INIT;
	struct kn_arena arena;

	(void)mux;
	if (q->state >= DYING)
		return;
	kn_arena_init(&arena);
	if (kn_agent_decode(message, &arena, &m, &err) < 0) {
		kn_while(&err, "the guest's agent said");
		end(q, &err);
	} else {
		on_message(q, &m);
	}
	kn_arena_fini(&arena);
}

/* When QEMU ends, its socket ends before it is reaped: its exit status knows the reason. */
static void on_pipe_failed(struct kn_mux *m, const struct kn_err *err, void *arg)
{
	struct qemu *q = arg;
	struct kn_err why = *err;

	(void)m;
	if (err->code == EBADMSG || err->code == ENOMEM) {
		kn_while(&why, "the guest's agent");
		end(q, &why);
	} else if (q->state < DYING) {
		(void)!arm(q, on_stop_time, STOP_EXTRA_MS, NULL);   /* if it does not end */
	}
}

/* ---- start --------------------------------------------------------------------------------- */

static size_t count(const char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

static struct kn_view *views(struct kn_arena *a, const char *const *list, size_t n)
{
	struct kn_view *v = kn_arena_alloc(a, (n + 1) * sizeof(*v));

	for (size_t i = 0; v && i < n; i++)
		v[i] = kn_view_of(list[i]);
	return v;
}

static int say(struct qemu *q, const struct kn_agent_message *m, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	kn_agent_encode(m, &b);
	if (b.failed)
		return kn_fail(err, ENOMEM, "memory for a message to the guest");
	return kn_mux_control(q->mux, kn_buf_view(&b), err);
}

static int greet(struct qemu *q, struct kn_err *err)
{
	char entropy[64];
	struct kn_agent_message m = { .type = KN_AGENT_GREET, .wall_ns = kn_wall_ns() };

	if (getrandom(entropy, sizeof(entropy), 0) == sizeof(entropy))
		m.entropy = (struct kn_view){ entropy, sizeof(entropy) };
	return say(q, &m, err);
}

static int configure(struct qemu *q, const struct kn_sandbox_config *c, struct kn_err *err)
{
	struct kn_agent_message m = { .type = KN_AGENT_CONFIGURE,
		                      .n_argv = count(c->argv),
		                      .n_env = count(c->env),
		                      .hostname = kn_view_of(c->id),
		                      .cwd = kn_view_of(c->cwd),
		                      .user = kn_view_of(c->user),
		                      .ready_path = kn_view_of(c->ready_path),
		                      .contract = (uint64_t)c->contract,
		                      .port = c->port,
		                      .ready_timeout_ms = c->ready_timeout_ms,
		                      .time_limit_ms = c->time_limit_ms,
		                      .max_reply_bytes = c->max_reply_bytes };
	struct kn_arena a;

	kn_arena_init(&a);
	m.argv = views(&a, c->argv, m.n_argv);
	m.env = views(&a, c->env, m.n_env);
	int r = m.argv && m.env ? say(q, &m, err) : kn_fail(err, ENOMEM, "memory for a message");
	kn_arena_fini(&a);
	return r;
}

static int check_config(const struct kn_sandbox_config *c, struct kn_err *err)
{
	if (c->contract == KN_CONTRACT_MESSAGE)
		return kn_fail(err, EINVAL, "a Linux guest has no message rings: use the contract "
		               "http or stdio");
	if (c->memory_bytes < MIN_MEMORY)
		return kn_fail(err, EINVAL, "%llu MiB of memory are too little for a Linux guest, "
		               "which needs %d", (unsigned long long)c->memory_bytes >> 20,
		               MIN_MEMORY >> 20);
	if (count(c->argv) == 0)
		return kn_fail(err, EINVAL, "no command: the image's Entrypoint and Cmd are empty");
	if (count(c->argv) > KN_AGENT_MAX_LIST || count(c->env) > KN_AGENT_MAX_LIST)
		return kn_fail(err, E2BIG, "more than %d arguments or environment variables",
		               KN_AGENT_MAX_LIST);
	return 0;
}

static int start_mux(struct qemu *q, int fd, struct kn_err *err)
{
	struct kn_mux_config c = { .host = true,
		                   .generation = 1,
		                   .events = { .hello = on_hello, .control = on_control,
		                               .failed = on_pipe_failed, .arg = q } };

	return kn_mux_new(q->loop, fd, &c, &q->mux, err);
}

static int make_pipe(int *ret_ours, int *ret_its, struct kn_err *err)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return kn_fail(err, errno, "pipe: %s", strerror(errno));
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	*ret_ours = p[0];
	*ret_its = p[1];
	return 0;
}

static int start_qemu(struct qemu *q, const struct kn_sandbox_config *c, struct kn_err *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return kn_fail(err, errno, "a socket pair: %s", strerror(errno));
	kn_auto(kn_close) int agent = pair[1];
	int r = start_mux(q, pair[0], err);
	if (r < 0)
		return r;
	int ours = -1, its = -1;
	r = make_pipe(&ours, &its, err);
	kn_auto(kn_close) int console = its;
	if (r == 0)
		r = lines_start(q, &q->console, ours, KN_CONSOLE, err);
	if (r < 0)
		return r;
	its = -1;
	r = make_pipe(&ours, &its, err);
	kn_auto(kn_close) int monitor = its;
	if (r == 0)
		r = lines_start(q, &q->monitor, ours, KN_MONITOR, err);
	if (r == 0)
		r = greet(q, err);
	if (r == 0)
		r = configure(q, c, err);
	return r < 0 ? r : qemu_spawn(q, c, agent, console, monitor, err);
}

static int build(struct qemu *q, const struct kn_sandbox_config *c, struct kn_err *err)
{
	if (asprintf(&q->root_dir, "%s/root", c->run_dir) < 0) {
		q->root_dir = NULL;
		return kn_fail(err, ENOMEM, "memory for a sandbox");
	}
	if (mkdir(q->root_dir, 0700) < 0)
		return kn_fail(err, errno, "make folder %s: %s", q->root_dir, strerror(errno));
	int r = start_qemu(q, c, err);
	if (r < 0)
		return r;
	note_phase(q, "spawn");
	q->child.done = on_reaped;
	r = kn_child_start(q->loop, &q->child, err);
	if (r == 0)
		r = arm(q, on_boot_time, c->boot_timeout_ms, err);
	if (r < 0) {
		kill(q->child.pid, SIGKILL);
		kn_child_stop(&q->child);
		waitpid(q->child.pid, NULL, 0);
	}
	return r;
}

static int qemu_start(struct kn_loop *loop, const void *driver,
                      const struct kn_sandbox_config *config, const struct kn_sandbox_events *events,
                      struct kn_sandbox **ret, struct kn_err *err)
{
	int r = check_config(config, err);

	if (r < 0)
		return r;
	struct qemu *q = calloc(1, sizeof(*q));
	if (!q)
		return kn_fail(err, ENOMEM, "memory for a sandbox");
	q->sb.ops = &kn_sandbox_qemu;
	q->loop = loop;
	q->config = driver;
	q->memory_bytes = config->memory_bytes;
	q->boot_timeout_ms = config->boot_timeout_ms;
	q->ready_timeout_ms = config->ready_timeout_ms;
	q->console.watch.fd = q->monitor.watch.fd = -1;
	q->phase_ns = kn_now_ns();
	r = build(q, config, err);
	if (r < 0) {
		if (q->cgroup)
			(void)!kn_cgroup_remove(q->cgroup, NULL);
		release(q);
		return kn_while(err, "start a microVM under QEMU");
	}
	q->events = *events;
	*ret = &q->sb;
	return 0;
}

/* ---- operations ---------------------------------------------------------------------------- */

static int qemu_connect(struct kn_sandbox *sb, int *ret_fd, struct kn_err *err)
{
	struct qemu *q = kn_container_of(sb, struct qemu, sb);
	int pair[2];

	if (q->state != SERVING)
		return kn_fail(err, ENOTCONN, "the function is %s",
		               q->state < SERVING ? "not ready" : "ending");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return kn_fail(err, errno, "a socket pair: %s", strerror(errno));
	int r = kn_mux_open(q->mux, pair[1], err);
	if (r < 0) {
		kn_close(pair[0]);
		return r;
	}
	*ret_fd = pair[0];
	return 0;
}

static void qemu_stop(struct kn_sandbox *sb, uint64_t grace_ms)
{
	struct qemu *q = kn_container_of(sb, struct qemu, sb);
	struct kn_agent_message m = { .type = KN_AGENT_STOP, .grace_ms = grace_ms };
	bool alive = q->state == PROBING || q->state == SERVING;

	if (q->state >= DYING)
		return;
	q->stopped = true;
	if (q->state == STOPPING && grace_ms > 0)
		return;
	if (!alive || grace_ms == 0 || say(q, &m, NULL) < 0 ||
	    arm(q, on_stop_time, grace_ms + STOP_EXTRA_MS, NULL) < 0) {
		end(q, NULL);
		return;
	}
	q->state = STOPPING;
}

static int pss_of(pid_t pid, uint64_t *ret)
{
	char path[64], line[128];
	unsigned long long kib = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f) && sscanf(line, "Pss: %llu kB", &kib) != 1)
		;
	fclose(f);
	*ret = kib << 10;
	return kib ? 0 : -ENODATA;
}

static int qemu_stats(struct kn_sandbox *sb, struct kn_sandbox_stats *ret, struct kn_err *err)
{
	struct qemu *q = kn_container_of(sb, struct qemu, sb);
	struct kn_cgroup_stats cg;

	if (!q->child.pid)
		return kn_fail(err, ESRCH, "the microVM has ended");
	int r = kn_cgroup_stats(q->cgroup, &cg, err);
	if (r < 0)
		return r;
	struct kn_sandbox_stats s = { .memory_bytes = cg.memory_bytes, .cpu_ns = cg.cpu_ns,
		                      .pid = q->child.pid };
	(void)pss_of(q->child.pid, &s.memory_bytes);
	*ret = s;
	return 0;
}

static int need_file(const char *path, int mode, const char *what, struct kn_err *err)
{
	if (!path || access(path, mode) < 0)
		return kn_fail(err, path ? errno : ENOENT, "no %s at %s: %s", what,
		               path ? path : "(not configured)",
		               mode == X_OK ? "apt-get install qemu-system-x86" :
		                              "run make, which unpacks the guest's kernel");
	return 0;
}

static int qemu_check(const void *driver, struct kn_err *err)
{
	const struct kn_sandbox_qemu_config *c = driver;
	struct kn_cgroup_host host;

	int r = need_file(c->qemu, X_OK, "QEMU", err);
	if (r == 0)
		r = need_file(c->kernel, R_OK, "guest kernel", err);
	if (r == 0)
		r = need_file(c->initramfs, R_OK, "guest initramfs", err);
	if (r == 0 && c->accel == KN_QEMU_KVM && access("/dev/kvm", R_OK | W_OK) < 0)
		r = kn_fail(err, errno, "/dev/kvm: %s: choose TCG, or give this machine hardware "
		            "virtualization", strerror(errno));
	if (r == 0)
		r = kn_jail_check(err);
	(void)kn_tsc_khz();   /* measured now, not in the loop at the first start */
	return r < 0 ? r : kn_cgroup_find("/proc/self/mountinfo", &host, err);
}

size_t kn_sandbox_qemu_sweep(const struct kn_sandbox_qemu_config *config)
{
	struct kn_cgroup_host host;

	if (kn_cgroup_find("/proc/self/mountinfo", &host, NULL) < 0)
		return 0;
	return kn_cgroup_sweep(&host, config->cgroup);
}

const struct kn_sandbox_ops kn_sandbox_qemu = {
	.name = "qemu",
	.check = qemu_check,
	.start = qemu_start,
	.connect = qemu_connect,
	.stop = qemu_stop,
	.stats = qemu_stats,
};
