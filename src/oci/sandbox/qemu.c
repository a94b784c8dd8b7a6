/*
 * Theory of operation. start() makes a cgroup, socket pairs and two pipes, starts a jailed QEMU and
 * says everything that the agent must know into its socket at once; it waits there until the guest
 * has booted, or is restored. From then on the agent tells how far it is. Every end takes one way:
 * end() notes the reason and kills QEMU; when that is reaped, what it printed is read to the end, the
 * cgroup is removed (the kernel may need some milliseconds until it is free), and `ended` is called.
 *
 * A restore that fails is no failed start: the snapshot is removed and the guest booted, in the same
 * cgroup and under the same user. Only the time shows it.
 */
#include "oci/sandbox/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/jail.h"

enum {
	RESTORE_MS = 15000,        /* then it is booted: restoring takes less than a tenth of a second */
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

/* What belongs to one QEMU, not to the sandbox. */
static void hang_up(struct qemu *q)
{
	lines_finish(&q->console);
	lines_finish(&q->monitor);
	kn_agent_link_free(kn_take_ptr(q->link));
	kn_qmp_free(kn_take_ptr(q->qmp));
}

static void release(struct qemu *q)
{
	kn_timer_stop(&q->timer);
	hang_up(q);
	if (q->root_dir)
		rmdir(q->root_dir);
	if (q->own_dir)
		rmdir(q->own_dir);
	wish_unref(q->wish);
	if (q->uid)
		kn_jail_give_uid(q->uid);
	kn_cgroup_free(q->cgroup);
	kn_netif_free(q->netif);
	free(q->root_dir);
	free(q->own_dir);
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
	kn_netif_free(kn_take_ptr(q->netif));
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
		        (unsigned long long)q->wish->c.memory_bytes >> 20,
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

static int run_qemu(struct qemu *q, const struct qemu_how *how, struct kn_err *err);

/*
 * It was to be restored and was not, or the function that was ready when it was saved is not ready:
 * then it must be booted. Not those that nobody waits for.
 */
static bool may_boot(const struct qemu *q)
{
	if (q->stopped || q->own_dir || q->source == FROM_BOOT)
		return false;
	return q->reached == BOOTING || (q->source == FROM_FUNCTION && q->reached <= PROBING);
}

static int boot_after_all(struct qemu *q)
{
	struct qemu_how how = QEMU_HOW_BOOT;
	struct kn_err err = KN_ERR_INIT;

	restores_spoiled(q->config->restores, q, &q->why);
	q->why = (struct kn_err)KN_ERR_INIT;
	q->panic[0] = '\0';
	q->state = BOOTING;
	q->sb.n_phases = 0;
	q->phase_ns = kn_now_ns();
	int r = run_qemu(q, &how, &err);
	if (r < 0)
		q->why = err;
	return r;
}

static void on_reaped(struct kn_child *child, int wait_status)
{
	struct qemu *q = kn_container_of(child, struct qemu, child);

	q->child.pid = 0;
	if (q->state < DYING)
		q->reached = q->state;
	lines_finish(&q->console);
	lines_finish(&q->monitor);
	explain(q, wait_status);
	hang_up(q);
	if (may_boot(q) && boot_after_all(q) == 0)
		return;
	q->state = CLEANING;
	q->tries = 0;
	clean_up(q);
}

/* Kill QEMU; why is noted if it is the first reason. NULL: the caller wanted it so. */
static void end(struct qemu *q, const struct kn_err *why)
{
	if (why && !q->why.code)
		q->why = *why;
	if (q->state >= DYING)
		return;
	q->reached = q->state;
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
	        (unsigned long long)q->wish->c.boot_timeout_ms, q->console.last[0] ? ": " : "",
	        q->console.last);
	end(q, &why);
}

static void on_ready_time(struct kn_timer *t)
{
	struct qemu *q = kn_container_of(t, struct qemu, timer);
	struct kn_err why = KN_ERR_INIT;

	kn_fail(&why, ETIMEDOUT, "the guest does not answer: the function was not ready within "
	        "%llu ms", (unsigned long long)(q->wish->c.ready_timeout_ms + READY_EXTRA_MS));
	end(q, &why);
}

static void on_stop_time(struct kn_timer *t)
{
	end(kn_container_of(t, struct qemu, timer), NULL);
}

static void on_hello(void *arg)
{
	struct qemu *q = arg;
	struct kn_err err = KN_ERR_INIT;

	if (q->state != BOOTING)
		return;
	note_phase(q, q->source == FROM_BOOT ? "boot" : "restore");
	if (q->source != FROM_BOOT && q->save_fd < 0)
		kn_qmp_free(kn_take_ptr(q->qmp));   /* nothing more to tell QEMU */
	if (q->bare) {
		q->state = WAITING;
		kn_timer_stop(&q->timer);
		q->hello(q, q->events.arg);
		return;
	}
	q->state = q->source == FROM_FUNCTION ? PROBING : STARTING;
	if (arm(q, on_ready_time, q->wish->c.ready_timeout_ms + READY_EXTRA_MS, &err) < 0)
		end(q, &err);
}

static void on_started(void *arg)
{
	struct qemu *q = arg;

	if (q->state != STARTING)
		return;
	note_phase(q, "start");
	q->state = PROBING;
}

/* From here on: a tenth of a core would make half a minute of a boot's seconds. */
static int limit_cpu(const struct qemu *q, struct kn_err *err)
{
	const struct kn_cgroup_limits limits = { .cpu_millis = q->wish->c.cpu_milli };

	return limits.cpu_millis ? kn_cgroup_limit(q->cgroup, &limits, err) : 0;
}

static void on_ready(void *arg)
{
	struct qemu *q = arg;
	struct kn_err err = KN_ERR_INIT;

	if (q->state != PROBING)
		return;
	if (limit_cpu(q, &err) < 0) {
		kn_while(&err, "limits.cpu");
		end(q, &err);
		return;
	}
	note_phase(q, "ready");
	q->state = SERVING;
	q->was_ready = true;
	kn_timer_stop(&q->timer);
	if (q->config->restores)
		restores_served(q->config->restores, q);
	if (q->events.ready)
		q->events.ready(&q->sb, q->events.arg);
}

static void on_log(enum kn_stream stream, struct kn_view line, void *arg)
{
	struct qemu *q = arg;

	if (q->state < DYING && q->events.log)
		q->events.log(&q->sb, stream, line, q->events.arg);
}

static void on_function_ended(const struct kn_err *why, int wait_status, void *arg)
{
	(void)wait_status;
	end(arg, why);
}

/* When QEMU ends, its socket ends before it is reaped: its exit status knows the reason. */
static void on_link_failed(const struct kn_err *why, bool broken, void *arg)
{
	struct qemu *q = arg;
	struct kn_err told = *why;

	if (broken) {
		kn_while(&told, "in the guest");
		end(q, &told);
	} else if (q->state < DYING) {
		(void)!arm(q, on_stop_time, STOP_EXTRA_MS, NULL);   /* if it does not end */
	}
}

/* ---- start --------------------------------------------------------------------------------- */

static int check_config(const struct kn_sandbox_config *c, struct kn_err *err)
{
	if (c->contract != KN_CONTRACT_HTTP && c->contract != KN_CONTRACT_STDIO)
		return kn_fail(err, EINVAL, "a Linux guest has no message rings: use the contract "
		               "http or stdio");
	if (c->memory_bytes < MIN_MEMORY)
		return kn_fail(err, EINVAL, "%llu MiB of memory are too little for a Linux guest, "
		               "which needs %d", (unsigned long long)c->memory_bytes >> 20,
		               MIN_MEMORY >> 20);
	if (!c->argv || !c->argv[0])
		return kn_fail(err, EINVAL, "no command: the image's Entrypoint and Cmd are empty");
	return 0;
}

static int make_pair(int *ret_ours, int *ret_its, struct kn_err *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return kn_fail(err, errno, "a socket pair: %s", strerror(errno));
	*ret_ours = pair[0];
	*ret_its = pair[1];
	return 0;
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

static int start_link(struct qemu *q, enum qemu_source source, const char *id, int *ret_its,
                      struct kn_err *err)
{
	struct kn_agent_link_events events = { .hello = on_hello,
		                               .started = on_started,
		                               .ready = on_ready,
		                               .log = on_log,
		                               .ended = on_function_ended,
		                               .failed = on_link_failed,
		                               .arg = q };
	struct kn_sandbox_config c = q->wish->c;
	int ours;

	c.id = id;
	int r = make_pair(&ours, ret_its, err);
	if (r == 0)
		r = kn_agent_link_new(q->loop, ours, &events, &q->link, err);
	if (r < 0 || q->bare)
		return r;
	return source == FROM_FUNCTION ? kn_agent_link_resume(q->link, id, q->own_dir != NULL, err)
	                               : kn_agent_link_configure(q->link, &c, err);
}

static void on_restore_told(const json_t *reply, const struct kn_err *err, void *arg)
{
	struct qemu *q = arg;
	struct kn_err why = KN_ERR_INIT;

	/* A socket that ends tells less than QEMU's exit status does. */
	if (reply || err->code == EPIPE)
		return;
	why = *err;
	kn_while(&why, "restore a guest");
	end(q, &why);
}

/* The commands wait in the socket until QEMU reads them: no round trip on the way of a start. */
static int start_qmp(struct qemu *q, bool restore, int *ret_its, struct kn_err *err)
{
	json_t *on = json_pack("{s:[{s:s,s:b}]}", "capabilities", "capability", "x-ignore-shared",
	                       "state", 1);
	int ours;

	int r = make_pair(&ours, ret_its, err);
	if (r == 0)
		r = kn_qmp_new(q->loop, ours, NULL, NULL, &q->qmp, err);
	if (r < 0) {
		json_decref(on);
		return r;
	}
	r = kn_qmp_execute(q->qmp, "migrate-set-capabilities", on, -1, on_restore_told, q, err);
	if (r < 0 || !restore)
		return r;
	return kn_qmp_execute(q->qmp, "migrate-incoming",
	                      json_pack("{s:s}", "uri", "fd:" QEMU_STATE_FD), -1, on_restore_told, q,
	                      err);
}

static int start_lines(struct qemu *q, struct lines *l, enum kn_stream stream, int *ret_its,
                       struct kn_err *err)
{
	int ours;

	int r = make_pipe(&ours, ret_its, err);
	return r < 0 ? r : lines_start(q, l, ours, stream, err);
}

static void close_files(struct qemu_files *f)
{
	kn_close(f->agent);
	kn_close(f->console);
	kn_close(f->monitor);
	kn_close(f->image);
	kn_close(f->control);
	kn_close(f->tap);
}

static int connect_and_spawn(struct qemu *q, const struct qemu_how *how, struct qemu_files *f,
                             struct kn_err *err)
{
	bool restore = how->source != FROM_BOOT;

	f->image = open(q->wish->c.image, O_RDONLY | O_CLOEXEC);
	if (f->image < 0)
		return kn_fail(err, errno, "open image %s: %s", q->wish->c.image, strerror(errno));
	if (q->netif)
		f->tap = kn_netif_open_tap(q->netif, err);
	if (q->netif && f->tap < 0)
		return f->tap;
	int r = start_link(q, how->source, q->id, &f->agent, err);
	if (r == 0)
		r = start_lines(q, &q->console, KN_CONSOLE, &f->console, err);
	if (r == 0)
		r = start_lines(q, &q->monitor, KN_MONITOR, &f->monitor, err);
	if (r == 0 && (restore || how->save_fd >= 0))
		r = start_qmp(q, restore, &f->control, err);
	return r < 0 ? r : qemu_spawn(q, f, err);
}

/* Start one QEMU for the sandbox: the first one, or one that boots after a restore that failed. */
static int run_qemu(struct qemu *q, const struct qemu_how *how, struct kn_err *err)
{
	struct qemu_files f = { -1, -1, -1, -1, -1, how->from.memory_fd, how->from.state_fd,
		                how->save_fd >= 0, -1 };
	uint64_t boot_ms = q->wish->c.boot_timeout_ms;

	if (f.shared)
		f.memory = how->save_fd;
	q->source = how->source;
	q->save_fd = how->save_fd;
	int r = connect_and_spawn(q, how, &f, err);
	close_files(&f);
	if (r < 0) {
		hang_up(q);
		return r;
	}
	note_phase(q, "spawn");
	q->child.done = on_reaped;
	r = kn_child_start(q->loop, &q->child, err);
	if (r == 0)
		r = arm(q, on_boot_time, how->source == FROM_BOOT ? boot_ms
		                         : kn_min(boot_ms, (uint64_t)RESTORE_MS), err);
	if (r < 0) {
		kill(q->child.pid, SIGKILL);
		kn_child_stop(&q->child);
		waitpid(q->child.pid, NULL, 0);
		q->child.pid = 0;
		hang_up(q);
	}
	return r;
}

static void on_refused(const char *text, void *arg)
{
	struct qemu *q = arg;

	if (q->events.log)
		q->events.log(&q->sb, KN_MONITOR, kn_view_of(text), q->events.arg);
}

static int make_netif(struct qemu *q, struct kn_err *err)
{
	struct kn_netif_events events = { .refused = on_refused, .arg = q };

	if (!q->wish->c.egress)
		return 0;
	if (!q->config->network)
		return kn_fail(err, ENOTSUP, "this node gives functions no network; see kiln doctor");
	return kn_netif_new(q->config->network, q->wish->c.egress, &events, &q->netif, err);
}

static int build(struct qemu *q, const char *run_dir, const struct qemu_how *how, struct kn_err *err)
{
	if (asprintf(&q->root_dir, "%s/root", run_dir) < 0) {
		q->root_dir = NULL;
		return kn_fail(err, ENOMEM, "memory for a sandbox");
	}
	if (mkdir(q->root_dir, 0700) < 0)
		return kn_fail(err, errno, "make folder %s: %s", q->root_dir, strerror(errno));
	int r = qemu_make_cgroup(q, q->id, err);
	if (r == 0)
		r = kn_jail_take_uid(q->config->uid_first, q->config->uid_count, &q->uid, err);
	if (r == 0)
		r = make_netif(q, err);
	return r < 0 ? r : run_qemu(q, how, err);
}

int qemu_begin(struct kn_loop *loop, const struct kn_sandbox_qemu_config *config, struct wish *wish,
               const char *id, const char *run_dir, const struct kn_sandbox_events *events,
               const struct qemu_how *how, struct qemu **ret, struct kn_err *err)
{
	struct qemu *q = calloc(1, sizeof(*q));

	if (!q) {
		free(how->own_dir);
		return kn_fail(err, ENOMEM, "memory for a sandbox");
	}
	q->sb.ops = &kn_sandbox_qemu;
	q->loop = loop;
	q->config = config;
	q->wish = wish_ref(wish);
	q->own_dir = how->own_dir;
	q->bare = how->bare;
	q->console.watch.fd = q->monitor.watch.fd = -1;
	q->phase_ns = kn_now_ns();
	snprintf(q->id, sizeof(q->id), "%s", id);
	int r = build(q, run_dir, how, err);
	if (r < 0) {
		if (q->cgroup)
			(void)!kn_cgroup_remove(q->cgroup, NULL);
		release(q);
		return kn_while(err, "start a microVM under QEMU");
	}
	q->events = *events;
	*ret = q;
	return 0;
}

int qemu_hand_over(struct qemu *q, const char *id, const struct kn_sandbox_events *events,
                   struct kn_err *err)
{
	q->sb.n_phases = 0;
	q->sb.prewarmed = true;
	q->phase_ns = kn_now_ns();
	int r = kn_agent_link_resume(q->link, id, false, err);
	if (r == 0)
		r = arm(q, on_ready_time, READY_EXTRA_MS, err);
	if (r < 0)
		return r;
	q->state = PROBING;
	q->events = *events;
	return 0;
}

static int qemu_start(struct kn_loop *loop, const void *driver,
                      const struct kn_sandbox_config *config, const struct kn_sandbox_events *events,
                      struct kn_sandbox **ret, struct kn_err *err)
{
	const struct kn_sandbox_qemu_config *d = driver;
	struct qemu_how how = QEMU_HOW_BOOT;
	struct wish *wish;
	struct qemu *q;

	int r = check_config(config, err);
	if (r == 0)
		r = wish_new(d, config, &wish, err);
	if (r < 0)
		return r;
	r = d->restores ? restores_start(d->restores, wish, events, &q, err)
	                : qemu_begin(loop, d, wish, config->id, config->run_dir, events, &how, &q, err);
	wish_unref(wish);
	if (r == 0)
		*ret = &q->sb;
	return r;
}

/* ---- operations ---------------------------------------------------------------------------- */

static int qemu_connect(struct kn_sandbox *sb, int *ret_fd, struct kn_err *err)
{
	struct qemu *q = kn_container_of(sb, struct qemu, sb);

	if (q->state != SERVING)
		return kn_fail(err, ENOTCONN, "the function is %s",
		               q->state < SERVING ? "not ready" : "ending");
	return kn_agent_link_connect(q->link, ret_fd, err);
}

static void qemu_stop(struct kn_sandbox *sb, uint64_t grace_ms)
{
	struct qemu *q = kn_container_of(sb, struct qemu, sb);
	bool alive = q->state == PROBING || q->state == SERVING;

	if (q->state >= DYING)
		return;
	q->stopped = true;
	if (q->state == STOPPING && grace_ms > 0)
		return;
	if (!alive || grace_ms == 0 || kn_agent_link_stop(q->link, grace_ms, NULL) < 0 ||
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
