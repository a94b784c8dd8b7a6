#include "oci/sandbox_kvm/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "machine/channel.h"
#include "machine/kvm.h"

/*
 * One call at a time. The monitor enforces the time limit of a call; the timer here is the second
 * line: against a program that lies about its progress, and against a monitor that does not end.
 */
#define PATIENCE_NS KN_NS_PER_S

struct kvm_sandbox {
	struct kn_sandbox sb;
	struct kn_sandbox_events events;
	struct kn_loop *loop;
	struct kn_channel channel;
	struct kn_buf buf;                  /* the reply under way */
	int sock;
	struct kn_watch sock_watch, note_watch;
	struct kn_child child;
	bool has_child;
	struct kn_timer timer;              /* start, call or stop */
	uint64_t began_ns, call_limit_ns;
	bool from_shell, ready, stopping, broken;
	struct kn_err why;                  /* code 0 until something failed */
	kn_message_done done;               /* of the call under way, or NULL */
	void *done_arg;
};

static struct kvm_sandbox *kvm_of(struct kn_sandbox *sb)
{
	return kn_container_of(sb, struct kvm_sandbox, sb);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void kvm_free(struct kvm_sandbox *k)
{
	kn_timer_stop(&k->timer);
	kn_watch_stop(&k->note_watch);
	kn_watch_stop(&k->sock_watch);
	if (k->has_child)
		kn_child_stop(&k->child);
	kn_close(k->sock);
	kn_channel_fini(&k->channel);
	kn_buf_fini(&k->buf);
	free(k);
}

/* End it for a reason; `ended` follows when the process is gone. The first reason counts. */
static void kvm_kill(struct kvm_sandbox *k, const struct kn_err *why)
{
	if (why && !k->why.code)
		k->why = *why;
	k->broken = true;
	kn_child_kill(&k->child, SIGKILL);
}

static void arm(struct kvm_sandbox *k, uint64_t after_ns)
{
	struct kn_err err = KN_ERR_INIT;
	if (kn_timer_start(k->loop, &k->timer, kn_now_ns() + after_ns, &err) < 0)
		kvm_kill(k, &err);
}

static void on_timer(struct kn_timer *t)
{
	struct kvm_sandbox *k = kn_container_of(t, struct kvm_sandbox, timer);
	struct kn_err err = KN_ERR_INIT;

	if (k->stopping)
		kvm_kill(k, NULL);
	else if (k->done && k->ready)
		kn_fail(&err, ETIMEDOUT, "time limit of %llu ms passed",
		        (unsigned long long)(k->call_limit_ns / KN_NS_PER_MS));
	else
		kn_fail(&err, ETIMEDOUT, "not ready after %llu ms",
		        (unsigned long long)((kn_now_ns() - k->began_ns) / KN_NS_PER_MS));
	if (err.code)
		kvm_kill(k, &err);
}

static void fail_call(struct kvm_sandbox *k, const struct kn_err *why)
{
	kn_message_done done = k->done;

	k->done = NULL;
	if (done)
		done(NULL, why, k->done_arg);
}

/* ---- reports, replies, log lines ------------------------------------------------------------ */

static void add_phase(struct kvm_sandbox *k, const char *name, uint64_t from_ns, uint64_t to_ns)
{
	k->sb.phases[k->sb.n_phases++] =
		(struct kn_phase){ name, to_ns > from_ns ? to_ns - from_ns : 0 };
}

static uint64_t between(uint64_t v, uint64_t low, uint64_t high)
{
	return v < low ? low : v > high ? high : v;
}

static void become_ready(struct kvm_sandbox *k, const struct kn_report *r)
{
	if (k->ready || k->broken)
		return;
	/* A shell's process began long ago; clocks of the monitor are not trusted to be in order. */
	uint64_t now = kn_now_ns();
	uint64_t started = k->from_shell ? k->began_ns : between(r->started_ns, k->began_ns, now);
	uint64_t loaded = between(r->loaded_ns, started, now);

	k->ready = true;
	add_phase(k, "spawn", k->began_ns, started);
	add_phase(k, "boot", started, loaded);
	add_phase(k, "ready", loaded, now);
	kn_timer_stop(&k->timer);
	if (k->done && k->call_limit_ns)
		arm(k, k->call_limit_ns + PATIENCE_NS);
	k->events.ready(&k->sb, k->events.arg);
}

static void note_end(struct kvm_sandbox *k, const struct kn_report *r)
{
	if (r->json[0] && k->events.log)
		k->events.log(&k->sb, KN_MONITOR, kn_view_of(r->json), k->events.arg);
	if (k->why.code || k->stopping)
		return;
	if (r->code)
		kn_fail(&k->why, r->code, "%s", r->story);
	else
		kn_fail(&k->why, ECHILD, "the program ended itself");
}

static void take_reports(struct kvm_sandbox *k)
{
	struct kn_report r;
	int got;

	while ((got = kn_report_take(k->sock, &r)) == 1) {
		if (r.kind == KN_REPORT_READY)
			become_ready(k, &r);
		else if (r.kind == KN_REPORT_ENDED)
			note_end(k, &r);
	}
	if (got != -EAGAIN)
		kn_watch_stop(&k->sock_watch);     /* the process follows */
}

static void take_logs(struct kvm_sandbox *k)
{
	char line[KN_BARE_LOG_SLOT];
	struct kn_err err = KN_ERR_INIT;
	int n;

	/* At most a ring: a program that floods it must not keep the loop here. */
	for (int i = 0; i < KN_BARE_LOGS && (n = kn_channel_log(&k->channel, line, &err)) != 0; i++) {
		if (n < 0) {
			kvm_kill(k, &err);
			return;
		}
		if (k->events.log)
			k->events.log(&k->sb, KN_STDERR, (struct kn_view){ line, (size_t)n },
			              k->events.arg);
	}
}

static void finish_stop(struct kvm_sandbox *k);

static void give_reply(struct kvm_sandbox *k, const struct kn_bare_message *m)
{
	const struct kn_message reply = {
		.content_type = m->content_type,
		.body = m->body,
		.status = m->status,
	};
	kn_message_done done = k->done;

	k->done = NULL;
	kn_timer_stop(&k->timer);
	if (done)
		done(&reply, NULL, k->done_arg);
	if (k->stopping && !k->done)
		finish_stop(k);
}

static void take_replies(struct kvm_sandbox *k)
{
	struct kn_bare_message m;
	struct kn_err err = KN_ERR_INIT;
	uint64_t tag;
	int got;

	while (!k->broken && (got = kn_channel_take(&k->channel, &k->buf, &m, &tag, &err)) != 0) {
		if (got < 0)
			kvm_kill(k, &err);
		else
			give_reply(k, &m);
	}
}

static void look(struct kvm_sandbox *k)
{
	take_reports(k);
	if (!k->broken)
		take_logs(k);
	take_replies(k);
}

static void on_note(struct kn_watch *w, uint32_t events)
{
	struct kvm_sandbox *k = kn_container_of(w, struct kvm_sandbox, note_watch);

	(void)events;
	kn_channel_awake(&k->channel);
	do
		look(k);
	while (!k->broken && !kn_channel_sleep(&k->channel));
}

static void on_sock(struct kn_watch *w, uint32_t events)
{
	(void)events;
	take_reports(kn_container_of(w, struct kvm_sandbox, sock_watch));
}

static void tell_exit(struct kvm_sandbox *k, int status)
{
	if (WIFSIGNALED(status))
		kn_fail(&k->why, ECHILD, "the monitor was killed by signal %d (%s)", WTERMSIG(status),
		        strsignal(WTERMSIG(status)));
	else
		kn_fail(&k->why, ECHILD, "the monitor exited with code %d and said nothing",
		        WEXITSTATUS(status));
}

static void on_child(struct kn_child *c, int status)
{
	struct kvm_sandbox *k = kn_container_of(c, struct kvm_sandbox, child);
	struct kn_err clean = KN_ERR_INIT;

	k->has_child = false;
	/* What it said last may still lie in the socket and the rings. */
	if (!k->broken)
		look(k);
	k->broken = true;
	if (!k->why.code && !k->stopping)
		tell_exit(k, status);
	struct kn_err stopped = KN_ERR_INIT;
	kn_fail(&stopped, ECANCELED, "the instance was stopped");
	fail_call(k, k->why.code ? &k->why : &stopped);
	k->events.ended(&k->sb, k->stopping ? &clean : &k->why, k->events.arg);
	kvm_free(k);
}

/* ---- the start ------------------------------------------------------------------------------ */

struct hello_args {
	const struct kn_hello *hello;
	const struct kn_channel *channel;
	int program;
};

static int say_hello(int sock, void *arg, struct kn_err *err)
{
	const struct hello_args *a = arg;
	int r = kn_hello_send(sock, a->hello, a->program, a->channel);
	return r < 0 ? kn_fail(err, -r, "send the program to the monitor: %s", strerror(-r)) : 0;
}

static int get_monitor(const struct kn_sandbox_kvm_config *driver, struct hello_args *hello,
                       struct kvm_sandbox *k, struct kn_err *err)
{
	struct kvm_monitor m;

	if (driver->shells && kvm_shells_take(driver->shells, &m)) {
		if (say_hello(m.sock, hello, NULL) == 0) {
			k->from_shell = true;
			k->sb.kind = "prepared";
			goto have;
		}
		/* It died a moment ago: as if there had been none. */
		kn_close(m.sock);
		kill(m.pid, SIGKILL);
		waitpid(m.pid, NULL, 0);
	}
	int r = kvm_monitor_spawn(driver->vmm, driver->device, say_hello, hello, &m, err);
	if (r < 0)
		return r;
have:
	k->sock = m.sock;
	k->child.pid = m.pid;
	k->child.done = on_child;
	return 0;
}

static int watch(struct kvm_sandbox *k, uint64_t boot_timeout_ms, struct kn_err *err)
{
	k->note_watch = (struct kn_watch){ .fd = k->channel.note, .events = EPOLLIN, .call = on_note };
	k->sock_watch = (struct kn_watch){ .fd = k->sock, .events = EPOLLIN, .call = on_sock };
	k->timer.call = on_timer;

	int r = kn_child_start(k->loop, &k->child, err);
	if (r < 0) {
		kill(k->child.pid, SIGKILL);
		waitpid(k->child.pid, NULL, 0);
		return r;
	}
	k->has_child = true;
	r = kn_watch_start(k->loop, &k->note_watch, err);
	if (r == 0)
		r = kn_watch_start(k->loop, &k->sock_watch, err);
	if (r == 0 && boot_timeout_ms)
		r = kn_timer_start(k->loop, &k->timer,
		                   k->began_ns + boot_timeout_ms * KN_NS_PER_MS + PATIENCE_NS, err);
	if (r < 0) {
		kn_child_kill(&k->child, SIGKILL);
		kn_child_stop(&k->child);
		k->has_child = false;
		waitpid(k->child.pid, NULL, 0);
	}
	return r;
}

static int kvm_begin(struct kvm_sandbox *k, const struct kn_sandbox_kvm_config *driver,
                     const struct kn_sandbox_config *config, struct kn_err *err)
{
	struct kn_channel_config c = KN_CHANNEL_DEFAULTS;
	c.max_request_bytes = driver->max_request_bytes;
	if (config->max_reply_bytes)
		c.max_reply_bytes = config->max_reply_bytes;
	kn_auto(kn_close) int program = open(config->image, O_RDONLY | O_CLOEXEC);
	if (program < 0)
		return kn_fail(err, errno, "open '%s': %s", config->image, strerror(errno));
	int r = kn_channel_new(&c, &k->channel, err);
	if (r < 0)
		return r;

	struct kn_hello hello = {
		.memory_bytes = config->memory_bytes,
		.channel_bytes = k->channel.bytes,
		.time_limit_ns = config->time_limit_ms * KN_NS_PER_MS,
		.boot_limit_ns = config->boot_timeout_ms * KN_NS_PER_MS,
	};
	snprintf(hello.id, sizeof(hello.id), "%s", config->id ? config->id : "");
	struct hello_args args = { &hello, &k->channel, program };
	r = get_monitor(driver, &args, k, err);
	return r < 0 ? r : watch(k, config->boot_timeout_ms, err);
}

static int kvm_start(struct kn_loop *loop, const void *driver,
                     const struct kn_sandbox_config *config,
                     const struct kn_sandbox_events *events, struct kn_sandbox **ret,
                     struct kn_err *err)
{
	if (config->contract != KN_CONTRACT_MESSAGE)
		return kn_fail(err, EINVAL, "bare functions are called by messages only");
	struct kvm_sandbox *k = calloc(1, sizeof(*k));
	if (!k)
		return kn_fail(err, ENOMEM, "out of memory");
	k->sb.ops = &kn_sandbox_kvm;
	k->events = *events;
	k->loop = loop;
	k->sock = -1;
	k->channel = (struct kn_channel){ .memory = -1, .bell = -1, .note = -1 };
	k->began_ns = kn_now_ns();
	k->call_limit_ns = config->time_limit_ms * KN_NS_PER_MS;

	int r = kvm_begin(k, driver, config, err);
	if (r < 0) {
		kvm_free(k);
		return kn_while(err, "start bare function");
	}
	*ret = &k->sb;
	return 0;
}

/* ---- operations ----------------------------------------------------------------------------- */

static int kvm_check(const void *driver, struct kn_err *err)
{
	const struct kn_sandbox_kvm_config *d = driver;

	int r = kn_kvm_check(d->device, err);
	if (r < 0)
		return kn_while(err, "bare functions need KVM");
	if (access(d->vmm, X_OK) < 0)
		return kn_fail(err, errno, "the monitor '%s' cannot be run: %s", d->vmm,
		               strerror(errno));
	return 0;
}

static int kvm_invoke(struct kn_sandbox *sb, const struct kn_message *request,
                      kn_message_done done, void *arg, struct kn_err *err)
{
	struct kvm_sandbox *k = kvm_of(sb);
	const struct kn_bare_message m = {
		.method = request->method,
		.path = request->path,
		.call_id = request->call_id,
		.content_type = request->content_type,
		.body = request->body,
	};

	if (k->broken || k->stopping)
		return kn_fail(err, ECONNRESET, "the instance is ending");
	if (k->done)
		return kn_fail(err, EAGAIN, "a call is under way");
	int r = kn_channel_call(&k->channel, &m, 0, err);
	if (r == -EPROTO)
		kvm_kill(k, err);
	if (r < 0)
		return r;
	k->done = done;
	k->done_arg = arg;
	if (k->ready && k->call_limit_ns)
		arm(k, k->call_limit_ns + PATIENCE_NS);
	return 0;
}

/* Nothing is under way: the monitor may end now, and is killed if it does not. */
static void finish_stop(struct kvm_sandbox *k)
{
	if (kn_hello_stop(k->sock) < 0)
		kvm_kill(k, NULL);
	else
		arm(k, PATIENCE_NS);
}

static void kvm_stop(struct kn_sandbox *sb, uint64_t grace_ms)
{
	struct kvm_sandbox *k = kvm_of(sb);

	if (k->stopping)
		return;
	k->stopping = true;
	if (k->broken)
		return;                     /* its end is on the way */
	if (grace_ms == 0)
		kvm_kill(k, NULL);
	else if (k->done)
		arm(k, grace_ms * KN_NS_PER_MS);
	else
		finish_stop(k);
}

static uint64_t pss_of(pid_t pid)
{
	char path[64], line[256];
	unsigned long long kib = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Pss: %llu kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib * 1024;
}

static int kvm_stats(struct kn_sandbox *sb, struct kn_sandbox_stats *ret, struct kn_err *err)
{
	struct kvm_sandbox *k = kvm_of(sb);
	struct timespec t;
	clockid_t clock;

	if (!k->has_child)
		return kn_fail(err, ESRCH, "the instance has ended");
	*ret = (struct kn_sandbox_stats){ .pid = k->child.pid, .memory_bytes = pss_of(k->child.pid) };
	if (clock_getcpuclockid(k->child.pid, &clock) == 0 && clock_gettime(clock, &t) == 0)
		ret->cpu_ns = (uint64_t)t.tv_sec * KN_NS_PER_S + (uint64_t)t.tv_nsec;
	return 0;
}

const struct kn_sandbox_ops kn_sandbox_kvm = {
	.name = "kvm",
	.check = kvm_check,
	.start = kvm_start,
	.invoke = kvm_invoke,
	.stop = kvm_stop,
	.stats = kvm_stats,
};
