/*
 * Theory of operation. c-ares says through a callback which sockets it waits on, and how long; both
 * become watches and a timer of the loop. A lookup has a channel of its own, so that a change of
 * resolv.conf needs no notice and an end is simple. c-ares may call back while it is being called:
 * the result is kept then and told in the loop's next step.
 */
#include "host/lookup.h"

#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

enum { MAX_SOCKETS = 8, TIMEOUT_MS = 2000, TRIES = 2 };

struct kn_lookup {
	struct kn_loop *loop;
	ares_channel channel;
	struct socket {
		struct kn_watch watch;     /* .fd 0 while unused: c-ares never gets descriptor 0 */
		struct kn_lookup *lookup;
	} sockets[MAX_SOCKETS];
	struct kn_timer timer;
	struct kn_defer tell;
	struct kn_lookup_result result;
	void (*done)(const struct kn_lookup_result *r, void *arg);
	void *arg;
};

/* ---- the loop ------------------------------------------------------------------------------ */

static void arm(struct kn_lookup *l)
{
	struct timeval tv, most = { .tv_sec = 1 };
	const struct timeval *t = ares_timeout(l->channel, &most, &tv);
	uint64_t ns = (uint64_t)t->tv_sec * KN_NS_PER_S + (uint64_t)t->tv_usec * KN_NS_PER_US;

	(void)!kn_timer_start(l->loop, &l->timer, kn_now_ns() + kn_max(ns, KN_NS_PER_MS), NULL);
}

static void on_timer(struct kn_timer *t)
{
	struct kn_lookup *l = kn_container_of(t, struct kn_lookup, timer);

	ares_process_fd(l->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	arm(l);
}

static void on_socket(struct kn_watch *w, uint32_t events)
{
	struct kn_lookup *l = kn_container_of(w, struct socket, watch)->lookup;
	int fd = w->fd;

	ares_process_fd(l->channel, events & ~(uint32_t)EPOLLOUT ? fd : ARES_SOCKET_BAD,
	                events & EPOLLOUT ? fd : ARES_SOCKET_BAD);
	arm(l);
}

static struct socket *find_socket(struct kn_lookup *l, int fd)
{
	for (size_t i = 0; i < MAX_SOCKETS; i++)
		if (l->sockets[i].watch.fd == fd)
			return &l->sockets[i];
	return NULL;
}

/* A socket beyond the table is not watched: its server then counts as one that does not answer. */
static void on_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct kn_lookup *l = arg;
	uint32_t events = (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u);
	struct socket *s = find_socket(l, fd);

	if (events == 0) {
		if (s) {
			kn_watch_stop(&s->watch);
			s->watch.fd = 0;
		}
		return;
	}
	if (s) {
		kn_watch_want(&s->watch, events);
		return;
	}
	s = find_socket(l, 0);
	if (!s)
		return;
	s->lookup = l;
	s->watch = (struct kn_watch){ .fd = fd, .events = events, .call = on_socket };
	if (kn_watch_start(l->loop, &s->watch, NULL) < 0)
		s->watch.fd = 0;
}

/* ---- the result ---------------------------------------------------------------------------- */

static int to_status(int ares)
{
	switch (ares) {
	case ARES_SUCCESS:
		return 0;
	case ARES_ENOTFOUND:
		return -ENOENT;
	case ARES_ENODATA:
		return -ENODATA;
	case ARES_ETIMEOUT:
		return -ETIMEDOUT;
	default:
		return -EIO;
	}
}

static void shorten(struct kn_lookup_result *r, int ttl)
{
	uint32_t s = ttl < 0 ? 0 : (uint32_t)ttl;

	r->ttl_s = kn_min(r->ttl_s, s);
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
	struct kn_lookup *l = arg;
	struct kn_lookup_result *r = &l->result;

	(void)timeouts;
	r->status = to_status(status);
	r->ttl_s = UINT32_MAX;
	for (struct ares_addrinfo_node *n = info ? info->nodes : NULL; n; n = n->ai_next) {
		struct sockaddr_in in;
		if (n->ai_family != AF_INET || r->n == KN_LOOKUP_MAX)
			continue;
		memcpy(&in, n->ai_addr, sizeof(in));
		r->addresses[r->n++] = ntohl(in.sin_addr.s_addr);
		shorten(r, n->ai_ttl);
	}
	for (struct ares_addrinfo_cname *c = info ? info->cnames : NULL; c; c = c->next)
		shorten(r, c->ttl);
	if (r->status == 0 && r->n == 0)
		r->status = -ENODATA;
	ares_freeaddrinfo(info);
	if (l->done)
		kn_defer_start(l->loop, &l->tell);
}

static void on_tell(struct kn_defer *d)
{
	struct kn_lookup *l = kn_container_of(d, struct kn_lookup, tell);
	struct kn_lookup_result r = l->result;
	void (*done)(const struct kn_lookup_result *r, void *arg) = l->done;
	void *arg = l->arg;

	kn_lookup_cancel(l);
	done(&r, arg);
}

/* ---- life ---------------------------------------------------------------------------------- */

static void init_library(void)
{
	(void)ares_library_init(ARES_LIB_INIT_ALL);
}

static int open_channel(struct kn_lookup *l, struct kn_err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct ares_options o = { .flags = ARES_FLAG_NOSEARCH, .timeout = TIMEOUT_MS, .tries = TRIES,
		                  .sock_state_cb = on_state, .sock_state_cb_data = l };

	pthread_once(&once, init_library);
	int r = ares_init_options(&l->channel, &o,
	                          ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
	                                  ARES_OPT_SOCK_STATE_CB);
	if (r != ARES_SUCCESS)
		return kn_fail(err, r == ARES_ENOMEM ? ENOMEM : EIO, "the resolver: %s",
		               ares_strerror(r));
	return 0;
}

int kn_lookup_start(struct kn_loop *loop, const char *name,
                    void (*done)(const struct kn_lookup_result *r, void *arg), void *arg,
                    struct kn_lookup **ret, struct kn_err *err)
{
	const struct ares_addrinfo_hints hints = { .ai_flags = ARES_AI_NOSORT, .ai_family = AF_INET };
	struct kn_lookup *l = calloc(1, sizeof(*l));

	if (!l)
		return kn_fail(err, ENOMEM, "memory for a lookup");
	*l = (struct kn_lookup){ .loop = loop, .timer.call = on_timer, .tell.call = on_tell,
		                 .done = done, .arg = arg };
	int r = open_channel(l, err);
	if (r < 0) {
		free(l);
		return r;
	}
	ares_getaddrinfo(l->channel, name, NULL, &hints, on_addresses, l);
	arm(l);
	*ret = l;
	return 0;
}

void kn_lookup_cancel(struct kn_lookup *l)
{
	if (!l)
		return;
	l->done = NULL;
	ares_destroy(l->channel);   /* calls back, and lets go of its sockets */
	kn_timer_stop(&l->timer);
	kn_defer_stop(&l->tell);
	for (size_t i = 0; i < MAX_SOCKETS; i++)
		if (l->sockets[i].watch.fd != 0)
			kn_watch_stop(&l->sockets[i].watch);
	free(l);
}
