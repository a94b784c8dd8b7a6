#include "oci/sandbox_fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"

struct fake_sandbox {
	struct kn_sandbox sb;
	struct kn_sandbox_events events;
	struct kn_loop *loop;
	struct kn_fake *fake;
	struct kn_timer timer;
	uint64_t began_ns;
	bool stopping;
};

static struct fake_sandbox *fake_of(struct kn_sandbox *sb)
{
	return kn_container_of(sb, struct fake_sandbox, sb);
}

static void fake_finish(struct fake_sandbox *f, const struct kn_err *why)
{
	kn_timer_stop(&f->timer);
	f->fake->ends++;
	if (f->fake->newest == &f->sb)
		f->fake->newest = NULL;
	f->events.ended(&f->sb, why, f->events.arg);
	free(f);
}

static void fake_due(struct kn_timer *t)
{
	struct fake_sandbox *f = kn_container_of(t, struct fake_sandbox, timer);
	struct kn_err why = KN_ERR_INIT;

	if (f->stopping) {
		fake_finish(f, &why);
		return;
	}
	if (f->fake->end_before_ready) {
		kn_fake_end(&f->sb, f->fake->end_before_ready);
		return;
	}
	f->sb.phases[0] = (struct kn_phase){ "boot", kn_now_ns() - f->began_ns };
	f->sb.n_phases = 1;
	f->events.ready(&f->sb, f->events.arg);
}

static int fake_check(const void *driver, struct kn_err *err)
{
	(void)driver;
	(void)err;
	return 0;
}

static int fake_start_as(const struct kn_sandbox_ops *ops, struct kn_loop *loop, const void *driver,
			 const struct kn_sandbox_config *config,
			 const struct kn_sandbox_events *events, struct kn_sandbox **ret,
			 struct kn_err *err)
{
	struct kn_fake *fake = ((const struct kn_fake_driver *)driver)->fake;

	fake->starts++;
	if (fake->started)
		fake->started(config, fake->arg);
	if (fake->refuse_start)
		return kn_fail(err, fake->refuse_start, "start of the fake: %s",
			       strerror(fake->refuse_start));

	kn_auto(kn_free) struct fake_sandbox *f = calloc(1, sizeof(*f));
	if (!f)
		return kn_fail(err, ENOMEM, "out of memory");
	*f = (struct fake_sandbox){ .sb.ops = ops,
				    .events = *events,
				    .loop = loop,
				    .fake = fake,
				    .timer.call = fake_due,
				    .began_ns = kn_now_ns() };
	if (!fake->never_ready) {
		int r = kn_timer_start(loop, &f->timer, f->began_ns + fake->boot_ns, err);
		if (r < 0)
			return r;
	}
	fake->newest = &f->sb;
	*ret = &kn_take_ptr(f)->sb;
	return 0;
}

static int fake_start(struct kn_loop *loop, const void *driver,
		      const struct kn_sandbox_config *config,
		      const struct kn_sandbox_events *events, struct kn_sandbox **ret,
		      struct kn_err *err)
{
	return fake_start_as(&kn_sandbox_fake, loop, driver, config, events, ret, err);
}

static int fake_start_message(struct kn_loop *loop, const void *driver,
			      const struct kn_sandbox_config *config,
			      const struct kn_sandbox_events *events, struct kn_sandbox **ret,
			      struct kn_err *err)
{
	return fake_start_as(&kn_sandbox_fake_message, loop, driver, config, events, ret, err);
}

static int fake_start_frames(struct kn_loop *loop, const void *driver,
			     const struct kn_sandbox_config *config,
			     const struct kn_sandbox_events *events, struct kn_sandbox **ret,
			     struct kn_err *err)
{
	return fake_start_as(&kn_sandbox_fake_frames, loop, driver, config, events, ret, err);
}

static int fake_connect(struct kn_sandbox *sb, int *ret_fd, struct kn_err *err)
{
	struct fake_sandbox *f = fake_of(sb);
	int pair[2];

	f->fake->connects++;
	if (f->fake->refuse_connect)
		return kn_fail(err, f->fake->refuse_connect, "connect to the fake: %s",
			       strerror(f->fake->refuse_connect));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return kn_fail(err, errno, "socketpair: %s", strerror(errno));
	*ret_fd = pair[0];
	if (f->fake->serve)
		f->fake->serve(sb, pair[1], f->fake->arg);
	else
		close(pair[1]);
	return 0;
}

static int fake_invoke(struct kn_sandbox *sb, const struct kn_message *request,
		       kn_message_done done, void *arg, struct kn_err *err)
{
	struct fake_sandbox *f = fake_of(sb);

	f->fake->invokes++;
	if (!f->fake->invoke)
		return kn_fail(err, ENOTSUP, "the fake has no script for messages");
	int r = f->fake->invoke(sb, request, done, arg, f->fake->arg);
	return r < 0 ? kn_fail(err, -r, "invoke of the fake: %s", strerror(-r)) : 0;
}

static void fake_stop(struct kn_sandbox *sb, uint64_t grace_ms)
{
	struct fake_sandbox *f = fake_of(sb);

	(void)grace_ms;
	if (f->stopping)
		return;
	f->stopping = true;
	f->fake->stops++;
	/* never from inside stop(): a driver reports its end from the loop */
	if (kn_timer_start(f->loop, &f->timer, kn_now_ns() + f->fake->end_ns, NULL) < 0)
		abort();
}

static int fake_stats(struct kn_sandbox *sb, struct kn_sandbox_stats *ret, struct kn_err *err)
{
	(void)sb;
	(void)err;
	*ret = (struct kn_sandbox_stats){ .memory_bytes = 4096, .cpu_ns = 1000, .pid = getpid() };
	return 0;
}

static void fake_counters(struct kn_sandbox *sb, kn_counter_visit each, void *arg)
{
	const struct kn_fake *fake = fake_of(sb)->fake;

	for (size_t i = 0; i < fake->n_counters; i++)
		each(&fake->counters[i], arg);
}

void kn_fake_end(struct kn_sandbox *sb, const char *why)
{
	struct kn_err err = KN_ERR_INIT;

	(void)kn_fail(&err, ECHILD, "%s", why);
	fake_finish(fake_of(sb), &err);
}

void kn_fake_print(struct kn_sandbox *sb, enum kn_stream stream, const char *line)
{
	struct fake_sandbox *f = fake_of(sb);

	if (f->events.log)
		f->events.log(sb, stream, kn_view_of(line), f->events.arg);
}

const struct kn_sandbox_ops kn_sandbox_fake = {
	.name = "fake",
	.check = fake_check,
	.start = fake_start,
	.connect = fake_connect,
	.stop = fake_stop,
	.stats = fake_stats,
};

const struct kn_sandbox_ops kn_sandbox_fake_message = {
	.name = "fake",
	.check = fake_check,
	.start = fake_start_message,
	.invoke = fake_invoke,
	.stop = fake_stop,
	.stats = fake_stats,
};

const struct kn_sandbox_ops kn_sandbox_fake_frames = {
	.name = "fake",
	.check = fake_check,
	.start = fake_start_frames,
	.stop = fake_stop,
	.stats = fake_stats,
	.counters = fake_counters,
};
