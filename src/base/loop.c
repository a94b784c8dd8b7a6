/*
 * Theory of operation. epoll is level-triggered and carries the watch's address. A watch that is
 * stopped during a round may still stand in the array of fetched events, so kn_watch_stop() blanks
 * the entries that have not been handled yet; this makes it safe to free a watch in any callback.
 * Timers are a binary heap whose entries know their place. Calls from other threads go through one
 * mutex-protected list and an eventfd.
 *
 * syscalls: epoll_create1 epoll_ctl epoll_wait eventfd2 signalfd4 pidfd_open pidfd_send_signal
 * syscalls: waitid read write close
 */
#include "base/loop.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EVENTS_A_ROUND = 128 };

struct posted {
	struct posted *next;
	void (*call)(void *arg);
	void *arg;
};

struct kn_loop {
	int epoll_fd;
	bool stop;
	uint64_t now_ns;

	struct epoll_event events[EVENTS_A_ROUND];
	int n_events, at_event;

	struct kn_timer **heap;
	size_t n_timers, cap_timers;

	struct kn_defer *deferred;

	pthread_mutex_t post_lock;
	struct posted *post_first, **post_last;
	struct kn_watch post_watch;

	struct kn_watch signal_watch;
	void (*signal_call)(const struct signalfd_siginfo *si, void *arg);
	void *signal_arg;
};

/* ---- timers: a binary heap on due_ns -------------------------------------------------------- */

static void heap_set(struct kn_loop *l, size_t i, struct kn_timer *t)
{
	l->heap[i] = t;
	t->index = i;
}

static void heap_up(struct kn_loop *l, size_t i)
{
	struct kn_timer *t = l->heap[i];

	while (i > 0 && l->heap[(i - 1) / 2]->due_ns > t->due_ns) {
		heap_set(l, i, l->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_set(l, i, t);
}

static void heap_down(struct kn_loop *l, size_t i)
{
	struct kn_timer *t = l->heap[i];

	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= l->n_timers)
			break;
		if (child + 1 < l->n_timers && l->heap[child + 1]->due_ns < l->heap[child]->due_ns)
			child++;
		if (l->heap[child]->due_ns >= t->due_ns)
			break;
		heap_set(l, i, l->heap[child]);
		i = child;
	}
	heap_set(l, i, t);
}

int kn_timer_start(struct kn_loop *loop, struct kn_timer *t, uint64_t due_ns, struct kn_err *err)
{
	if (t->loop) {
		bool later = due_ns > t->due_ns;
		t->due_ns = due_ns;
		later ? heap_down(loop, t->index) : heap_up(loop, t->index);
		return 0;
	}
	if (loop->n_timers == loop->cap_timers) {
		size_t cap = loop->cap_timers ? loop->cap_timers * 2 : 64;
		struct kn_timer **heap = realloc(loop->heap, cap * sizeof(struct kn_timer *));
		if (!heap)
			return kn_fail(err, ENOMEM, "out of memory for %zu timers", cap);
		loop->heap = heap;
		loop->cap_timers = cap;
	}
	t->due_ns = due_ns;
	t->loop = loop;
	heap_set(loop, loop->n_timers++, t);
	heap_up(loop, t->index);
	return 0;
}

void kn_timer_stop(struct kn_timer *t)
{
	struct kn_loop *l = t->loop;

	if (!l)
		return;
	t->loop = NULL;
	size_t hole = t->index;
	struct kn_timer *last = l->heap[--l->n_timers];
	if (last == t)
		return;
	heap_set(l, hole, last);
	heap_up(l, hole);
	heap_down(l, last->index);
}

static void run_timers(struct kn_loop *l)
{
	while (l->n_timers && l->heap[0]->due_ns <= l->now_ns) {
		struct kn_timer *t = l->heap[0];
		kn_timer_stop(t);
		t->call(t);
	}
}

/* ---- descriptors ---------------------------------------------------------------------------- */

int kn_watch_start(struct kn_loop *loop, struct kn_watch *w, struct kn_err *err)
{
	struct epoll_event ev = { .events = w->events, .data.ptr = w };

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, w->fd, &ev) < 0)
		return kn_fail(err, errno, "watch descriptor %d: %s", w->fd, strerror(errno));
	w->loop = loop;
	return 0;
}

void kn_watch_want(struct kn_watch *w, uint32_t events)
{
	if (!w->loop || w->events == events)
		return;
	w->events = events;
	struct epoll_event ev = { .events = events, .data.ptr = w };
	epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
}

void kn_watch_stop(struct kn_watch *w)
{
	struct kn_loop *l = w->loop;

	if (!l)
		return;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->loop = NULL;
	for (int i = l->at_event; i < l->n_events; i++) {
		if (l->events[i].data.ptr == w)
			l->events[i].data.ptr = NULL;
	}
}

/* ---- deferred calls ------------------------------------------------------------------------- */

void kn_defer_start(struct kn_loop *loop, struct kn_defer *d)
{
	if (d->prev)
		return;
	d->next = loop->deferred;
	d->prev = &loop->deferred;
	if (d->next)
		d->next->prev = &d->next;
	loop->deferred = d;
}

void kn_defer_stop(struct kn_defer *d)
{
	if (!d->prev)
		return;
	*d->prev = d->next;
	if (d->next)
		d->next->prev = d->prev;
	d->next = NULL;
	d->prev = NULL;
}

/* Only what was deferred before this point runs: a call that defers itself waits for a round. */
static void run_deferred(struct kn_loop *l)
{
	struct kn_defer *batch = l->deferred;

	l->deferred = NULL;
	if (batch)
		batch->prev = &batch;
	while (batch) {
		struct kn_defer *d = batch;
		kn_defer_stop(d);
		d->call(d);
	}
}

/* ---- calls from other threads --------------------------------------------------------------- */

int kn_loop_post(struct kn_loop *loop, void (*call)(void *arg), void *arg)
{
	struct posted *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct posted){ .call = call, .arg = arg };
	pthread_mutex_lock(&loop->post_lock);
	*loop->post_last = p;
	loop->post_last = &p->next;
	/* Rung under the lock: kn_loop_free() cannot close the eventfd between the two. */
	ssize_t n = write(loop->post_watch.fd, &(uint64_t){ 1 }, sizeof(uint64_t));
	pthread_mutex_unlock(&loop->post_lock);
	(void)n; /* EAGAIN means that the counter is full: it is awake already */
	return 0;
}

static void run_posted(struct kn_loop *l)
{
	pthread_mutex_lock(&l->post_lock);
	struct posted *p = l->post_first;
	l->post_first = NULL;
	l->post_last = &l->post_first;
	pthread_mutex_unlock(&l->post_lock);

	while (p) {
		struct posted *next = p->next;
		p->call(p->arg);
		free(p);
		p = next;
	}
}

static void on_post(struct kn_watch *w, uint32_t events)
{
	uint64_t count;

	(void)events;
	ssize_t n = read(w->fd, &count, sizeof(count));
	(void)n;
	run_posted(w->loop);
}

/* ---- signals and children ------------------------------------------------------------------- */

static void on_signal(struct kn_watch *w, uint32_t events)
{
	struct kn_loop *l = w->loop;
	struct signalfd_siginfo si;

	(void)events;
	while (w->loop && read(w->fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		l->signal_call(&si, l->signal_arg);
}

int kn_loop_signals(struct kn_loop *loop, const sigset_t *set,
		    void (*call)(const struct signalfd_siginfo *si, void *arg), void *arg,
		    struct kn_err *err)
{
	int r = pthread_sigmask(SIG_BLOCK, set, NULL);
	if (r)
		return kn_fail(err, r, "block signals: %s", strerror(r));

	kn_auto(kn_close) int fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return kn_fail(err, errno, "signalfd: %s", strerror(errno));
	loop->signal_call = call;
	loop->signal_arg = arg;
	loop->signal_watch = (struct kn_watch){ .fd = fd, .events = EPOLLIN, .call = on_signal };
	r = kn_watch_start(loop, &loop->signal_watch, err);
	if (r < 0)
		return kn_while(err, "watch signals");
	kn_take_fd(fd);
	return 0;
}

static void on_child(struct kn_watch *w, uint32_t events)
{
	struct kn_child *c = kn_container_of(w, struct kn_child, watch);
	int status;

	(void)events;
	pid_t r = waitpid(c->pid, &status, WNOHANG);
	if (r == 0 || (r < 0 && errno == EINTR))
		return;
	if (r < 0)
		status = 0; /* reaped elsewhere: the end is real, its status unknown */
	kn_child_stop(c);
	c->done(c, status);
}

int kn_child_start(struct kn_loop *loop, struct kn_child *c, struct kn_err *err)
{
	kn_auto(kn_close) int fd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	if (fd < 0)
		return kn_fail(err, errno, "pidfd_open %d: %s", (int)c->pid, strerror(errno));
	c->watch = (struct kn_watch){ .fd = fd, .events = EPOLLIN, .call = on_child };
	if (kn_watch_start(loop, &c->watch, err) < 0)
		return kn_while(err, "watch process %d", (int)c->pid);
	c->pidfd = kn_take_fd(fd);
	return 0;
}

int kn_child_kill(struct kn_child *c, int sig)
{
	if (!c->watch.loop)
		return -ESRCH;
	return syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

void kn_child_stop(struct kn_child *c)
{
	if (!c->watch.loop)
		return;
	kn_watch_stop(&c->watch);
	close(c->pidfd);
	c->pidfd = -1;
}

/* ---- the loop itself ------------------------------------------------------------------------ */

int kn_loop_new(struct kn_loop **ret, struct kn_err *err)
{
	struct kn_loop *l = calloc(1, sizeof(*l));
	if (!l)
		return kn_fail(err, ENOMEM, "out of memory for an event loop");

	l->post_last = &l->post_first;
	pthread_mutex_init(&l->post_lock, NULL);
	l->signal_watch.fd = -1;
	l->post_watch = (struct kn_watch){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
					   .events = EPOLLIN,
					   .call = on_post };
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int r;
	if (l->post_watch.fd < 0 || l->epoll_fd < 0)
		r = kn_fail(err, errno, "make an event loop: %s", strerror(errno));
	else
		r = kn_watch_start(l, &l->post_watch, err);
	if (r < 0) {
		kn_loop_free(l);
		return r;
	}
	l->now_ns = kn_now_ns();
	*ret = l;
	return 0;
}

void kn_loop_free(struct kn_loop *l)
{
	if (!l)
		return;
	run_posted(l);
	while (l->n_timers)
		kn_timer_stop(l->heap[0]);
	while (l->deferred)
		kn_defer_stop(l->deferred);
	pthread_mutex_lock(&l->post_lock);
	kn_close(l->signal_watch.fd);
	kn_close(l->post_watch.fd);
	kn_close(l->epoll_fd);
	pthread_mutex_unlock(&l->post_lock);
	pthread_mutex_destroy(&l->post_lock);
	free(l->heap);
	free(l);
}

uint64_t kn_loop_now(const struct kn_loop *loop)
{
	return loop->now_ns;
}

void kn_loop_stop(struct kn_loop *loop)
{
	loop->stop = true;
}

/* Milliseconds until the next timer, rounded up so that it is due when epoll returns. */
static int wait_ms(const struct kn_loop *l, int timeout_ms)
{
	if (l->deferred)
		return 0;
	if (!l->n_timers)
		return timeout_ms;
	uint64_t due = l->heap[0]->due_ns, now = kn_now_ns();
	uint64_t ms = due <= now ? 0 : (due - now + KN_NS_PER_MS - 1) / KN_NS_PER_MS;
	int wait = ms > INT_MAX ? INT_MAX : (int)ms;
	return timeout_ms < 0 ? wait : kn_min(wait, timeout_ms);
}

int kn_loop_once(struct kn_loop *l, int timeout_ms)
{
	int n = epoll_wait(l->epoll_fd, l->events, EVENTS_A_ROUND, wait_ms(l, timeout_ms));
	if (n < 0 && errno != EINTR)
		return -errno;

	l->now_ns = kn_now_ns();
	l->n_events = n < 0 ? 0 : n;
	for (l->at_event = 0; l->at_event < l->n_events;) {
		struct epoll_event *ev = &l->events[l->at_event++];
		struct kn_watch *w = ev->data.ptr;
		if (w)
			w->call(w, ev->events);
	}
	l->n_events = 0;
	run_timers(l);
	run_deferred(l);
	return 0;
}

int kn_loop_run(struct kn_loop *loop)
{
	loop->stop = false;
	while (!loop->stop) {
		int r = kn_loop_once(loop, -1);
		if (r < 0)
			return r;
	}
	return 0;
}
