#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/process.h"
#include "oci/agent/agent.h"

/* ---- saying -------------------------------------------------------------------------------- */

void agent_say(struct kn_agent *a, const struct kn_agent_message *msg)
{
	struct kn_buf b = KN_BUF_INIT;

	kn_agent_encode(msg, &b);
	/* When memory is out or the host is gone nobody can be told. */
	if (!b.failed)
		(void)!kn_mux_control(a->mux, kn_buf_view(&b), NULL);
	kn_buf_fini(&b);
}

static void kill_all(struct kn_agent *a, int sig)
{
	for (struct process *p = a->processes; p; p = p->next)
		process_signal(p, sig);
}

void agent_failed(struct kn_agent *a, const struct kn_err *why)
{
	struct kn_agent_message m = { .type = KN_AGENT_FAILED,
		                      .status = (uint64_t)why->code,
		                      .text = kn_view_of(kn_err_text(why)) };

	if (a->state == ENDED)
		return;
	a->state = ENDED;
	probe_stop(a);
	kill_all(a, SIGKILL);
	for (struct output *o = a->outputs, *next; o; o = next) {
		next = o->next;
		output_finish(o);
	}
	agent_say(a, &m);
}

void agent_ready(struct kn_agent *a)
{
	struct kn_agent_message m = { .type = KN_AGENT_READY };

	if (a->state != PROBING)
		return;
	a->state = SERVING;
	agent_say(a, &m);
}

static void say_exited(struct kn_agent *a, int wait_status, const char *text)
{
	outputs_told(a);
	struct kn_agent_message m = { .type = KN_AGENT_EXITED,
		                      .status = (uint64_t)(unsigned)wait_status,
		                      .text = kn_view_of(text) };

	a->state = ENDED;
	agent_say(a, &m);
}

void agent_how(struct kn_agent *a, int wait_status, char *out, size_t len)
{
	bool killed = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL;
	uint64_t kills = killed && a->config.oom_kills ? a->config.oom_kills(a->config.arg) : 0;

	if (kills > a->oom_kills)
		snprintf(out, len, "ran out of memory and was killed");
	else
		kn_wait_status_text(wait_status, out, len);
	a->oom_kills = kn_max(a->oom_kills, kills);
}

/* ---- contract HTTP: one process ------------------------------------------------------------ */

static void on_main_ended(struct process *p, int wait_status)
{
	struct kn_agent *a = p->err.agent;
	char how[96], tail[400], text[640];

	a->main = NULL;
	output_finish(&a->main_out);
	if (a->state != ENDED) {
		probe_stop(a);
		agent_how(a, wait_status, how, sizeof(how));
		tail_text(p->tail, p->tail_len, tail, sizeof(tail));
		snprintf(text, sizeof(text), "%s%s%s%s", how,
		         a->state == SERVING ? "" : " before it was ready", tail[0] ? ": " : "",
		         tail);
		say_exited(a, wait_status, text);
	}
	free(p);
}

static int start_main(struct kn_agent *a, struct kn_err *err)
{
	int o[2];

	struct process *p = calloc(1, sizeof(*p));
	if (!p || pipe2(o, O_CLOEXEC) < 0) {
		free(p);
		return kn_fail(err, p ? errno : ENOMEM, "a pipe for the function's output");
	}
	fcntl(o[0], F_SETFL, O_NONBLOCK);
	p->ended = on_main_ended;
	p->err.agent = a;
	int r = process_start(a, p, -1, o[1], NULL, err);
	kn_close(o[1]);
	if (r < 0) {
		kn_close(o[0]);
		free(p);
		return r;
	}
	a->main = p;
	(void)!output_start(a, &a->main_out, o[0], KN_STDOUT, NULL);
	return 0;
}

static int start_function(struct kn_agent *a, struct kn_err *err)
{
	struct kn_agent_message started = { .type = KN_AGENT_STARTED };
	bool http = a->fn.contract == KN_CONTRACT_HTTP;

	if (!http && a->fn.contract != KN_CONTRACT_STDIO)
		return kn_fail(err, EINVAL, "contract %d is not one of a Linux guest",
		               a->fn.contract);
	int r = http ? start_main(a, err) : stdio_start(a, err);
	if (r < 0)
		return r;
	a->state = PROBING;
	agent_say(a, &started);
	if (http)
		return probe_start(a, false, err);
	agent_ready(a);
	return 0;
}

/* ---- what the host says -------------------------------------------------------------------- */

static void configure(struct kn_agent *a, const struct kn_agent_message *m)
{
	struct kn_err err = KN_ERR_INIT;
	int r = 0;

	if (a->state != WAITING)
		return;
	a->state = STARTING;
	if (a->config.prepare)
		r = a->config.prepare(m, a->config.arg, &err);
	if (r == 0)
		r = function_configure(&a->fn, m, a->config.id_first, &err);
	if (r == 0 && a->config.seal)
		r = a->config.seal(a->config.arg, &err);
	if (r == 0)
		r = start_function(a, &err);
	if (r < 0)
		agent_failed(a, &err);
}

/* ---- after a restore ----------------------------------------------------------------------- */

/*
 * A restored guest under TCG runs code that QEMU has not translated yet: a first request costs about a
 * tenth of a second more than the second one. Where nobody waits yet a request is made that does
 * nothing: in place of the function this program is started, which ends at once when it is not the
 * first process.
 */
static void rehearsal_over(struct kn_agent *a)
{
	if (a->rehearsal.watch.fd < 0)
		return;
	kn_watch_stop(&a->rehearsal.watch);
	kn_close(kn_take_fd(a->rehearsal.watch.fd));
	a->fn.program = a->rehearsal.program;
	a->fn.argv = a->rehearsal.argv;
	if (a->state == PROBING && !a->stopping)
		agent_ready(a);
}

static void on_rehearsed(struct kn_watch *w, uint32_t events)
{
	struct kn_agent *a = kn_container_of(w, struct kn_agent, rehearsal.watch);
	char reply[1024];

	(void)events;
	ssize_t n = read(w->fd, reply, sizeof(reply));
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		rehearsal_over(a);   /* the server closed it: the reply was whole */
}

static int rehearse(struct kn_agent *a, struct kn_err *err)
{
	static const char request[] = "POST / HTTP/1.1\r\nHost: rehearsal\r\nContent-Length: 0\r\n"
	                              "Connection: close\r\n\r\n";
	static char self[] = "/proc/self/exe";
	static const char *argv[] = { "rehearsal", NULL };

	kn_auto(kn_close) int fd = stdio_connect(a);
	if (fd < 0 || write(fd, request, sizeof(request) - 1) != sizeof(request) - 1)
		return kn_fail(err, EIO, "a rehearsal: no connection to the agent's own server");
	a->rehearsal.watch = (struct kn_watch){ .fd = kn_take_fd(fd), .events = EPOLLIN,
		                                .call = on_rehearsed };
	int r = kn_watch_start(a->loop, &a->rehearsal.watch, err);
	if (r < 0) {
		kn_close(kn_take_fd(a->rehearsal.watch.fd));
		return r;
	}
	a->rehearsal.program = a->fn.program;
	a->rehearsal.argv = a->fn.argv;
	a->fn.program = self;
	a->fn.argv = argv;
	a->state = PROBING;
	return 0;
}

static const char NO_FUNCTION[] = "resumed, but no function is ready in this guest";

/*
 * The function was ready when the snapshot was taken: its port must still accept. To ask it more than
 * that would cost the first request some tens of milliseconds and tell nothing new.
 */
static void resume(struct kn_agent *a, const struct kn_agent_message *m)
{
	static const struct kn_agent_message is_ready = { .type = KN_AGENT_READY };
	static const struct kn_agent_message not_there = {
		.type = KN_AGENT_FAILED, .status = ENOTCONN,
		.text = { NO_FUNCTION, sizeof(NO_FUNCTION) - 1 },
	};
	struct kn_err err = KN_ERR_INIT;
	int r = 0;

	if (a->state != SERVING || a->stopping) {
		agent_say(a, &not_there);
		return;
	}
	if (a->config.resume)
		r = a->config.resume(m, a->config.arg, &err);
	if (r == 0 && a->fn.contract == KN_CONTRACT_HTTP) {
		a->state = PROBING;
		r = probe_start(a, !m->rehearse, &err);
	} else if (r == 0 && m->rehearse) {
		r = rehearse(a, &err);
	} else if (r == 0) {
		agent_say(a, &is_ready);
	}
	if (r < 0)
		agent_failed(a, &err);
}

static void on_kill_time(struct kn_timer *t)
{
	struct kn_agent *a = kn_container_of(t, struct kn_agent, kill_timer);

	kill_all(a, SIGKILL);
}

/* Everything that ran has ended: that is the end of a function that was told to stop. */
void agent_check_stopped(struct kn_agent *a)
{
	if (a->stopping && !a->processes && a->state != ENDED)
		say_exited(a, 0, "stopped");
}

static void stop(struct kn_agent *a, uint64_t grace_ms)
{
	if (a->stopping)
		return;
	a->stopping = true;
	probe_stop(a);
	kill_all(a, grace_ms ? SIGTERM : SIGKILL);
	(void)!kn_timer_start(a->loop, &a->kill_timer, kn_now_ns() + grace_ms * KN_NS_PER_MS, NULL);
	agent_check_stopped(a);
}

static void on_control(struct kn_mux *mux, struct kn_view message, void *arg)
{
	struct kn_agent *a = arg;
	struct kn_agent_message m;
	struct kn_err err = KN_ERR_INIT;
	struct kn_arena arena;

	(void)mux;
	kn_arena_init(&arena);
	if (kn_agent_decode(message, &arena, &m, &err) < 0) {
		agent_failed(a, &err);
		kn_arena_fini(&arena);
		return;
	}
	/* Types of a newer host, and those that only an agent says, mean nothing here. */
	if (m.type == KN_AGENT_GREET && a->config.greet)
		a->config.greet(&m, a->config.arg);
	else if (m.type == KN_AGENT_CONFIGURE)
		configure(a, &m);
	else if (m.type == KN_AGENT_RESUME)
		resume(a, &m);
	else if (m.type == KN_AGENT_SIGNAL && a->main && m.signal < 65)
		process_signal(a->main, (int)m.signal);
	else if (m.type == KN_AGENT_STOP)
		stop(a, m.grace_ms);
	kn_arena_fini(&arena);
}

static int on_open(struct kn_mux *m, void *arg)
{
	struct kn_agent *a = arg;

	(void)m;
	if (a->state != SERVING || a->stopping)
		return -ECONNREFUSED;
	return a->fn.contract == KN_CONTRACT_HTTP ? function_connect(a) : stdio_connect(a);
}

static void on_drain(struct kn_mux *m, void *arg)
{
	(void)m;
	outputs_resume(arg);
}

static void on_failed(struct kn_mux *m, const struct kn_err *err, void *arg)
{
	struct kn_agent *a = arg;

	(void)m;
	if (a->config.failed)
		a->config.failed(err, a->config.arg);
}

/* ---- life ---------------------------------------------------------------------------------- */

int kn_agent_new(struct kn_loop *loop, int fd, const struct kn_agent_config *config,
                 struct kn_agent **ret, struct kn_err *err)
{
	struct kn_agent *a = calloc(1, sizeof(*a));

	if (!a) {
		kn_close(fd);
		return kn_fail(err, ENOMEM, "memory for the agent");
	}
	a->loop = loop;
	a->config = *config;
	a->kill_timer.call = on_kill_time;
	a->flood.timer.call = on_flood_time;
	a->main_out.watch.fd = -1;
	a->rehearsal.watch.fd = -1;
	kn_arena_init(&a->fn.arena);
	struct kn_mux_config c = { .retry_ms = config->final_pipe ? 0 : 5,
		                   .events = { .control = on_control, .open = on_open,
		                               .drain = on_drain, .failed = on_failed, .arg = a } };
	int r = kn_mux_new(loop, fd, &c, &a->mux, err);
	if (r < 0) {
		free(a);
		return r;
	}
	*ret = a;
	return 0;
}

void kn_agent_free(struct kn_agent *a)
{
	if (!a)
		return;
	a->state = ENDED;
	probe_stop(a);
	rehearsal_over(a);
	kn_timer_stop(&a->kill_timer);
	kn_timer_stop(&a->flood.timer);
	stdio_stop(a);
	while (a->processes) {
		struct process *p = a->processes;
		process_signal(p, SIGKILL);
		kn_child_stop(&p->child);
		waitpid(p->child.pid, NULL, 0);
		*a->processes->prev = p->next;
		if (p->next)
			p->next->prev = p->prev;
		output_finish(&p->err);
		p->ended(p, SIGKILL);
	}
	kn_mux_free(a->mux);
	function_fini(&a->fn);
	free(a);
}

bool kn_agent_owns(const struct kn_agent *a, pid_t pid)
{
	for (const struct process *p = a->processes; p; p = p->next)
		if (p->child.pid == pid)
			return true;
	return false;
}
