#include "oci/agent_link.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/network.h"
#include "oci/agent_message.h"

enum state { BOOTING, STARTING, PROBING, SERVING, OVER };

struct kn_agent_link {
	struct kn_mux *mux;
	struct kn_agent_link_events events;
	enum state state;
	bool resumed;              /* the function runs already: READY comes without STARTED */
};

/* ---- what the agent says ------------------------------------------------------------------- */

static void on_hello(struct kn_mux *m, uint32_t generation, void *arg)
{
	struct kn_agent_link *l = arg;

	(void)m;
	(void)generation;
	if (l->state != BOOTING)
		return;
	l->state = l->resumed ? PROBING : STARTING;
	l->events.hello(l->events.arg);
}

static void on_log(struct kn_agent_link *l, const struct kn_agent_message *m)
{
	struct kn_view line = m->text;

	if (m->stream > KN_STDERR)
		return;
	line.len = kn_min(line.len, (size_t)KN_AGENT_MAX_LINE);
	l->events.log((enum kn_stream)m->stream, line, l->events.arg);
}

static void on_ended(struct kn_agent_link *l, const struct kn_agent_message *m)
{
	bool never_ran = m->type == KN_AGENT_FAILED;
	struct kn_err why = KN_ERR_INIT;
	int code = never_ran && m->status < 4096 ? (int)m->status : EIO;

	l->state = OVER;
	kn_fail(&why, code, "%.*s", (int)kn_min(m->text.len, (size_t)KN_ERR_TEXT), m->text.ptr);
	l->events.ended(&why, never_ran ? 0 : (int)(uint32_t)m->status, l->events.arg);
}

static void on_message(struct kn_agent_link *l, const struct kn_agent_message *m)
{
	if (m->type == KN_AGENT_LOG) {
		on_log(l, m);
	} else if (m->type == KN_AGENT_STARTED && l->state == STARTING) {
		l->state = PROBING;
		l->events.started(l->events.arg);
	} else if (m->type == KN_AGENT_READY && l->state == PROBING) {
		l->state = SERVING;
		l->events.ready(l->events.arg);
	} else if (m->type == KN_AGENT_EXITED || m->type == KN_AGENT_FAILED) {
		on_ended(l, m);
	}
}

static void on_control(struct kn_mux *mux, struct kn_view message, void *arg)
{
	struct kn_agent_link *l = arg;
	struct kn_agent_message m;
	struct kn_err err = KN_ERR_INIT;
	struct kn_arena arena;

	(void)mux;
	if (l->state == OVER)
		return;
	kn_arena_init(&arena);
	if (kn_agent_decode(message, &arena, &m, &err) < 0) {
		l->state = OVER;
		kn_while(&err, "the agent said");
		l->events.failed(&err, true, l->events.arg);
	} else {
		on_message(l, &m);
	}
	kn_arena_fini(&arena);
}

static void on_pipe_failed(struct kn_mux *m, const struct kn_err *err, void *arg)
{
	struct kn_agent_link *l = arg;
	struct kn_err why = *err;
	bool broken = err->code == EBADMSG || err->code == ENOMEM;

	(void)m;
	l->state = OVER;
	if (broken)
		kn_while(&why, "the agent");
	l->events.failed(&why, broken, l->events.arg);
}

/* ---- what the host says -------------------------------------------------------------------- */

static int say(struct kn_agent_link *l, const struct kn_agent_message *m, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	kn_agent_encode(m, &b);
	if (b.failed)
		return kn_fail(err, ENOMEM, "memory for a message to the agent");
	return kn_mux_control(l->mux, kn_buf_view(&b), err);
}

static int greet(struct kn_agent_link *l, struct kn_err *err)
{
	char entropy[64];
	struct kn_agent_message m = { .type = KN_AGENT_GREET, .wall_ns = kn_wall_ns() };

	if (getrandom(entropy, sizeof(entropy), 0) == sizeof(entropy))
		m.entropy = (struct kn_view){ entropy, sizeof(entropy) };
	return say(l, &m, err);
}

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

static int add_lists(struct kn_arena *a, const struct kn_sandbox_config *c,
                     struct kn_agent_message *m, struct kn_err *err)
{
	size_t n = c->n_files;

	m->argv = views(a, c->argv, m->n_argv);
	m->env = views(a, c->env, m->n_env);
	m->file_paths = kn_arena_alloc(a, (n + 1) * sizeof(struct kn_view));
	m->file_modes = kn_arena_alloc(a, (n + 1) * sizeof(struct kn_view));
	m->file_bytes = kn_arena_alloc(a, (n + 1) * sizeof(struct kn_view));
	if (!m->argv || !m->env || !m->file_paths || !m->file_modes || !m->file_bytes)
		return kn_fail(err, ENOMEM, "memory for a message");
	m->n_file_paths = m->n_file_modes = m->n_file_bytes = n;
	for (size_t i = 0; i < n; i++) {
		m->file_paths[i] = kn_view_of(c->files[i].path);
		m->file_modes[i] = kn_view_of(kn_arena_printf(a, "%04o", c->files[i].mode & 0777));
		m->file_bytes[i] = c->files[i].bytes;
		if (!m->file_modes[i].ptr)
			return kn_fail(err, ENOMEM, "memory for a message");
	}
	return 0;
}

int kn_agent_link_configure(struct kn_agent_link *l, const struct kn_sandbox_config *c,
                            struct kn_err *err)
{
	struct kn_agent_message m = { .type = KN_AGENT_CONFIGURE,
		                      .n_argv = count(c->argv),
		                      .n_env = count(c->env),
		                      .hostname = kn_view_of(c->id),
		                      .cwd = kn_view_of(c->cwd),
		                      .user = kn_view_of(c->user),
		                      .ready_path = kn_view_of(c->ready_path),
		                      .read_only_root = c->read_only_root,
		                      .max_pids = c->max_pids,
		                      .contract = (uint64_t)c->contract,
		                      .port = c->port,
		                      .ready_timeout_ms = c->ready_timeout_ms,
		                      .time_limit_ms = c->time_limit_ms,
		                      .max_reply_bytes = c->max_reply_bytes };
	struct kn_arena a;

	if (m.n_argv > KN_AGENT_MAX_LIST || m.n_env > KN_AGENT_MAX_LIST ||
	    c->n_files > KN_AGENT_MAX_LIST)
		return kn_fail(err, E2BIG, "more than %d arguments, environment variables or files",
		               KN_AGENT_MAX_LIST);
	if (c->egress) {
		m.address = KN_VIEW(KN_NETIF_ADDRESS);
		m.gateway = KN_VIEW(KN_NETIF_GATEWAY);
		m.dns = KN_VIEW(KN_NETIF_DNS);
	}
	kn_arena_init(&a);
	int r = add_lists(&a, c, &m, err);
	if (r == 0)
		r = say(l, &m, err);
	kn_arena_fini(&a);
	return r;
}

int kn_agent_link_resume(struct kn_agent_link *l, const char *hostname, bool rehearse,
                         struct kn_err *err)
{
	struct kn_agent_message m = { .type = KN_AGENT_RESUME, .hostname = kn_view_of(hostname),
		                      .rehearse = rehearse };

	/* A guest that waited has the hour and the entropy of when it began to. */
	int r = l->state == BOOTING ? 0 : greet(l, err);
	if (r == 0)
		r = say(l, &m, err);
	if (r < 0)
		return r;
	l->resumed = true;
	if (l->state != BOOTING)
		l->state = PROBING;
	return 0;
}

int kn_agent_link_stop(struct kn_agent_link *l, uint64_t grace_ms, struct kn_err *err)
{
	struct kn_agent_message m = { .type = KN_AGENT_STOP, .grace_ms = grace_ms };

	return say(l, &m, err);
}

int kn_agent_link_connect(struct kn_agent_link *l, int *ret_fd, struct kn_err *err)
{
	int pair[2];

	if (l->state != SERVING)
		return kn_fail(err, ENOTCONN, "the function is %s",
		               l->state < SERVING ? "not ready" : "ending");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return kn_fail(err, errno, "a socket pair: %s", strerror(errno));
	int r = kn_mux_open(l->mux, pair[1], err);
	if (r < 0) {
		kn_close(pair[0]);
		return r;
	}
	*ret_fd = pair[0];
	return 0;
}

/* ---- life ---------------------------------------------------------------------------------- */

int kn_agent_link_new(struct kn_loop *loop, int fd, const struct kn_agent_link_events *events,
                      struct kn_agent_link **ret, struct kn_err *err)
{
	struct kn_agent_link *l = calloc(1, sizeof(*l));

	if (!l) {
		kn_close(fd);
		return kn_fail(err, ENOMEM, "memory for the pipe to an agent");
	}
	l->events = *events;
	uint32_t generation = 1;
	(void)!getrandom(&generation, sizeof(generation), 0);
	struct kn_mux_config c = { .host = true,
		                   .generation = generation,
		                   .events = { .hello = on_hello, .control = on_control,
		                               .failed = on_pipe_failed, .arg = l } };
	int r = kn_mux_new(loop, fd, &c, &l->mux, err);
	if (r == 0)
		r = greet(l, err);
	if (r < 0) {
		kn_agent_link_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void kn_agent_link_free(struct kn_agent_link *l)
{
	if (!l)
		return;
	kn_mux_free(l->mux);
	free(l);
}
