/*
 * Is the function ready? Contract HTTP: its port accepts, and where a path is given GET answers 2xx.
 * Tried often at first, since many functions are ready within a millisecond.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "oci/agent/agent.h"

enum { FIRST_WAIT_NS = 200 * 1000, LONGEST_WAIT_NS = 100 * 1000 * 1000, ANSWER_MS = 5000 };

struct probe {
	struct kn_agent *agent;
	struct kn_timer again;          /* the next try, or the end of the wait for an answer */
	uint64_t deadline_ns;
	uint64_t wait_ns;
	struct kn_watch watch;          /* a connection under way */
	struct kn_http_client *client;
	int status;                     /* of this try's answer; 0: none yet */
	bool lightly;                   /* do not ask, the port is enough */
	bool answered;                  /* a try was answered, though not well */
	char last[96];                  /* why the last try failed */
};

int function_connect(const struct kn_agent *a)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		                  .sin_port = htons(a->fn.port),
		                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int on = 1;

	kn_auto(kn_close) int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		return -errno;
	return kn_take_fd(fd);
}

static void drop_try(struct probe *p)
{
	kn_watch_stop(&p->watch);
	kn_close(kn_take_fd(p->watch.fd));
	kn_http_client_free(kn_take_ptr(p->client));
}

void probe_stop(struct kn_agent *a)
{
	struct probe *p = a->probe;

	if (!p)
		return;
	a->probe = NULL;
	drop_try(p);
	kn_timer_stop(&p->again);
	free(p);
}

static void give_up(struct probe *p)
{
	struct kn_agent *a = p->agent;
	struct kn_err why = KN_ERR_INIT;

	kn_fail(&why, ETIMEDOUT, "not ready within %llu ms: %s",
	        (unsigned long long)a->fn.ready_timeout_ms, p->last);
	probe_stop(a);
	agent_failed(a, &why);
}

static void ready(struct probe *p)
{
	struct kn_agent *a = p->agent;

	probe_stop(a);
	agent_ready(a);
}

static void try_again(struct probe *p)
{
	uint64_t now = kn_now_ns();

	drop_try(p);
	if (now >= p->deadline_ns) {
		give_up(p);
		return;
	}
	(void)!kn_timer_start(p->agent->loop, &p->again,
	                      kn_min(now + p->wait_ns, p->deadline_ns), NULL);
	p->wait_ns = kn_min(p->wait_ns * 3 / 2, (uint64_t)LONGEST_WAIT_NS);
}

static void not_listening(struct probe *p, int code)
{
	snprintf(p->last, sizeof(p->last), "nothing listens on port %u (%s)", p->agent->fn.port,
	         strerror(code));
	try_again(p);
}

/* ---- GET ready_path ------------------------------------------------------------------------ */

static void on_head(struct kn_http_client *c, const struct kn_http_head *head, void *arg)
{
	struct probe *p = arg;

	(void)c;
	p->status = head->status;
}

static void on_data(struct kn_http_client *c, struct kn_view data, void *arg)
{
	(void)c;
	(void)data;
	(void)arg;
}

static void on_end(struct kn_http_client *c, bool reusable, void *arg)
{
	struct probe *p = arg;

	(void)c;
	(void)reusable;
	if (p->status >= 200 && p->status < 300) {
		ready(p);
		return;
	}
	p->answered = true;
	snprintf(p->last, sizeof(p->last), "GET %.48s answered %d", p->agent->fn.ready_path,
	         p->status);
	try_again(p);
}

static void on_failed(struct kn_http_client *c, const struct kn_err *err, void *arg)
{
	struct probe *p = arg;

	(void)c;
	snprintf(p->last, sizeof(p->last), "GET %.32s: %.48s", p->agent->fn.ready_path,
	         kn_err_text(err));
	try_again(p);
}

static void ask(struct probe *p)
{
	static const struct kn_header headers[] = { { KN_VIEW("Host"), KN_VIEW("localhost") },
		                                    { KN_VIEW("User-Agent"), KN_VIEW("kiln") } };
	struct kn_http_client_hooks hooks = { .head = on_head, .data = on_data, .end = on_end,
		                              .failed = on_failed, .arg = p };

	kn_watch_stop(&p->watch);
	int r = kn_http_client_new(p->agent->loop, kn_take_fd(p->watch.fd), &p->client, NULL);
	if (r < 0) {
		not_listening(p, -r);
		return;
	}
	p->status = 0;
	uint64_t wait = kn_now_ns() + ANSWER_MS * KN_NS_PER_MS;
	(void)!kn_timer_start(p->agent->loop, &p->again, kn_min(wait, p->deadline_ns), NULL);
	kn_http_client_begin(p->client, KN_VIEW("GET"), kn_view_of(p->agent->fn.ready_path), headers,
	                     KN_ARRAY_LEN(headers), 0, &hooks);
}

/* ---- connect ------------------------------------------------------------------------------- */

static void on_connected(struct kn_watch *w, uint32_t events)
{
	struct probe *p = kn_container_of(w, struct probe, watch);
	socklen_t len = sizeof(int);
	int code = 0;

	(void)events;
	getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &code, &len);
	if (code)
		not_listening(p, code);
	else if (p->agent->fn.ready_path && !p->lightly)
		ask(p);
	else
		ready(p);
}

static void connect_once(struct probe *p)
{
	int fd = function_connect(p->agent);

	if (fd < 0) {
		not_listening(p, -fd);
		return;
	}
	p->watch = (struct kn_watch){ .fd = fd, .events = EPOLLOUT, .call = on_connected };
	int r = kn_watch_start(p->agent->loop, &p->watch, NULL);
	if (r < 0)
		not_listening(p, -r);
}

static void on_again(struct kn_timer *t)
{
	struct probe *p = kn_container_of(t, struct probe, again);

	if (!p->client) {
		connect_once(p);
		return;
	}
	/* No answer in time; an earlier one says more. */
	if (!p->answered)
		snprintf(p->last, sizeof(p->last), "GET %.48s is not answered",
		         p->agent->fn.ready_path);
	try_again(p);
}

int probe_start(struct kn_agent *a, bool lightly, struct kn_err *err)
{
	struct probe *p = calloc(1, sizeof(*p));

	if (!p)
		return kn_fail(err, ENOMEM, "memory for a probe");
	p->agent = a;
	p->lightly = lightly;
	p->watch.fd = -1;
	p->again.call = on_again;
	p->wait_ns = FIRST_WAIT_NS;
	p->deadline_ns = kn_now_ns() + a->fn.ready_timeout_ms * KN_NS_PER_MS;
	snprintf(p->last, sizeof(p->last), "not tried yet");
	int r = kn_timer_start(a->loop, &p->again, kn_now_ns(), err);
	if (r < 0) {
		free(p);
		return r;
	}
	a->probe = p;
	return 0;
}
