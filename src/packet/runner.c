/*
 * syscalls: ppoll sched_yield rt_sigprocmask clock_gettime
 */
#include "packet/runner.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>

#include "base/time.h"

/* Rounds between two looks at the clock and the waker, when every round brings frames. */
enum { ROUNDS_PER_LOOK = 64 };

struct runner {
	const struct kn_runner_config *config;
	uint64_t tick_due_ns;
	bool told; /* the last tick has seen everything */
	unsigned rounds;
};

/* One batch of every pipeline. Returns how many frames came. */
static int round_of_all(const struct kn_runner_config *c, struct kn_err *err)
{
	int frames = 0;

	for (size_t i = 0; i < c->n; i++) {
		int r = kn_pipeline_step(c->pipelines[i], err);
		if (r < 0)
			return r;
		frames += r;
	}
	return frames;
}

static int tick(struct runner *r, uint64_t now, struct kn_err *err)
{
	const struct kn_runner_config *c = r->config;

	for (size_t i = 0; i < c->n; i++) {
		kn_port_look(kn_pipeline_in(c->pipelines[i]));
		if (kn_pipeline_out(c->pipelines[i]))
			kn_port_look(kn_pipeline_out(c->pipelines[i]));
	}
	r->tick_due_ns = now + c->tick_ns;
	return c->tick ? c->tick(c->arg, err) : 0;
}

static int ask_waker(const struct kn_runner_config *c, struct kn_err *err)
{
	struct pollfd p = { .fd = c->wake, .events = POLLIN };

	if (c->wake < 0 || poll(&p, 1, 0) <= 0)
		return 0;
	return c->woken(c->arg, err);
}

/* While frames come: now and then, what else there is to do. */
static int look_up(struct runner *r, struct kn_err *err)
{
	r->told = false;
	if (r->rounds++ % ROUNDS_PER_LOOK)
		return 0;
	uint64_t now = kn_now_ns();
	if (r->config->tick_ns == 0 || now < r->tick_due_ns)
		return 0;
	int x = tick(r, now, err);
	return x < 0 ? x : ask_waker(r->config, err);
}

static size_t fill_polls(const struct kn_runner_config *c, struct pollfd polls[KN_RUNNER_MAX + 1])
{
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++) {
		const struct kn_port *in = kn_pipeline_in(c->pipelines[i]);
		polls[n++] = (struct pollfd){ .fd = in->live ? in->live->fd : -1,
					      .events = POLLIN };
	}
	polls[n++] = (struct pollfd){ .fd = c->wake, .events = POLLIN };
	return n;
}

/* Until the tick that still has something to tell, or for ever; NULL is for ever. */
static const struct timespec *patience(const struct runner *r, uint64_t now, struct timespec *out)
{
	uint64_t ns = r->tick_due_ns > now ? r->tick_due_ns - now : 0;

	if (r->told || r->config->tick_ns == 0)
		return NULL;
	*out = (struct timespec){ .tv_sec = (time_t)(ns / KN_NS_PER_S),
				  .tv_nsec = (long)(ns % KN_NS_PER_S) };
	return out;
}

/*
 * The signals are blocked but while we sleep, so that one that comes between the look at *stop and
 * the sleep is not lost.
 */
static int sleep_until_something(struct runner *r, uint64_t now, struct kn_err *err)
{
	const struct kn_runner_config *c = r->config;
	struct pollfd polls[KN_RUNNER_MAX + 1];
	struct timespec limit;
	sigset_t ours, before;
	int x = 0, ready = -1;

	size_t n = fill_polls(c, polls);
	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigprocmask(SIG_BLOCK, &ours, &before);
	if (!*c->stop) {
		ready = ppoll(polls, n, patience(r, now, &limit), &before);
		if (ready < 0 && errno != EINTR)
			x = kn_fail(err, errno, "wait for frames: %s", strerror(errno));
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (ready == 0) {
		r->told = true;
		return tick(r, kn_now_ns(), err);
	}
	for (size_t i = 0; ready > 0 && i + 1 < n; i++)
		if (polls[i].revents & (POLLERR | POLLHUP | POLLNVAL))
			kn_port_look(kn_pipeline_in(c->pipelines[i]));
	if (ready > 0 && polls[n - 1].revents)
		x = c->woken(c->arg, err);
	return x;
}

/* Nothing came. Spin, yield, sleep; back when there may be something. 1: stop. */
static int idle(struct runner *r, struct kn_err *err)
{
	const struct kn_runner_config *c = r->config;
	const uint64_t began = kn_now_ns();
	uint64_t now = began;
	int frames = 0;

	while (frames == 0 && !*c->stop && now - began < c->spin_ns + c->yield_ns) {
		if (now - began < c->spin_ns)
			__builtin_ia32_pause();
		else
			sched_yield();
		frames = round_of_all(c, err);
		now = kn_now_ns();
	}
	if (frames > 0)
		r->told = false;
	if (frames != 0 || *c->stop)
		return kn_min(frames, 0);
	return sleep_until_something(r, now, err);
}

int kn_runner_run(const struct kn_runner_config *config, struct kn_err *err)
{
	struct runner r = { .config = config, .tick_due_ns = kn_now_ns() + config->tick_ns };
	int x = 0;

	if (config->n > KN_RUNNER_MAX)
		return kn_fail(err, EINVAL, "at most %d chains run together", KN_RUNNER_MAX);
	while (x == 0 && !*config->stop) {
		int frames = round_of_all(config, err);
		x = frames < 0 ? frames : frames > 0 ? look_up(&r, err) : idle(&r, err);
	}
	return kn_min(x, 0);
}
