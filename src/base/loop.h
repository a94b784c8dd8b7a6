/*
 * The event loop that kilnd, kiln-vmm's API thread and kiln-agent run: descriptors (epoll), timers
 * (a binary heap), deferred calls, signals (signalfd), ends of children (pidfd), and calls posted
 * from other threads. One loop belongs to one thread; only kn_loop_post() and kn_loop_wake() may be
 * called from another.
 *
 * Callbacks may add, change and remove any watch or timer, their own included. A removed watch
 * never fires again, even when its event was already fetched.
 */
#pragma once

#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/types.h>

#include "base/fd.h"
#include "base/time.h"

struct kn_loop;

/*
 * Watches, timers and deferred calls live in the caller's memory, so that a connection needs no
 * further allocation. Zero them before first use; kn_*_stop() before their memory goes.
 */
struct kn_watch {
	int fd;
	uint32_t events;                                          /* EPOLLIN | EPOLLOUT ... wanted */
	void (*call)(struct kn_watch *w, uint32_t events);
	struct kn_loop *loop;                                     /* NULL while not watched */
};

struct kn_timer {
	uint64_t due_ns;                                          /* kn_now_ns() scale */
	void (*call)(struct kn_timer *t);
	struct kn_loop *loop;                                     /* NULL while not armed */
	size_t index;                                             /* place in the heap */
};

struct kn_defer {
	void (*call)(struct kn_defer *d);
	struct kn_defer *next, **prev;
};

/** Errors: EMFILE, ENOMEM. */
kn_must_use int kn_loop_new(struct kn_loop **ret, struct kn_err *err);

/** Closes the loop; watches still in it are forgotten, posted calls not yet run are run. */
void kn_loop_free(struct kn_loop *loop);
KN_AUTO(kn_loop_free, struct kn_loop *);

/** Run until kn_loop_stop(). Returns 0, or -errno when epoll itself fails. */
int kn_loop_run(struct kn_loop *loop);

/** One round: wait at most timeout_ms (-1: for ever), run what is due. */
int kn_loop_once(struct kn_loop *loop, int timeout_ms);
void kn_loop_stop(struct kn_loop *loop);

/** The time at which this round began; cheap. Monotonic nanoseconds. */
uint64_t kn_loop_now(const struct kn_loop *loop);

/** Start watching w->fd for w->events; set fd, events and call first. Errors: what epoll said. */
kn_must_use int kn_watch_start(struct kn_loop *loop, struct kn_watch *w, struct kn_err *err);

/** Change what is waited for; 0 keeps the watch but only errors and hang-ups wake it. */
void kn_watch_want(struct kn_watch *w, uint32_t events);

/** Forget the descriptor (not closed); fine when not watched. */
void kn_watch_stop(struct kn_watch *w);

/** (Re)arm: fires once at due_ns. Memory for the heap is reserved: ENOMEM is reported. */
kn_must_use int kn_timer_start(struct kn_loop *loop, struct kn_timer *t, uint64_t due_ns,
                               struct kn_err *err);
void kn_timer_stop(struct kn_timer *t);

/** Call once at the end of this round; fine when already deferred. */
void kn_defer_start(struct kn_loop *loop, struct kn_defer *d);
void kn_defer_stop(struct kn_defer *d);

/** From any thread: run call(arg) in the loop's thread, in order. Returns 0 or -ENOMEM. */
int kn_loop_post(struct kn_loop *loop, void (*call)(void *arg), void *arg);

/** Block these signals in the calling thread and deliver them to call. Once per loop. */
kn_must_use int kn_loop_signals(struct kn_loop *loop, const sigset_t *set,
                                void (*call)(const struct signalfd_siginfo *si, void *arg), void *arg,
                                struct kn_err *err);

/*
 * A child process. `done` runs once with waitpid's status, after the child was reaped.
 */
struct kn_child {
	pid_t pid;
	int pidfd;
	void (*done)(struct kn_child *c, int wait_status);
	struct kn_watch watch;
};

/** Watch c->pid (set pid and done). Errors: what pidfd_open said. */
kn_must_use int kn_child_start(struct kn_loop *loop, struct kn_child *c, struct kn_err *err);

/** Signal it through its pidfd: no race with a recycled pid. 0 or -errno. */
int kn_child_kill(struct kn_child *c, int sig);

/** Stop watching without reaping. */
void kn_child_stop(struct kn_child *c);
