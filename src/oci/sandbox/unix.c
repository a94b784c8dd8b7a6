#include "oci/sandbox_fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/time.h"

enum { TRY_EVERY_MS = 20 };

/*
 * The function is not ours: starting is waiting until its socket accepts, stopping is forgetting it.
 */
struct unix_sandbox {
	struct kn_sandbox sb;
	struct kn_sandbox_events events;
	struct kn_loop *loop;
	struct kn_timer timer;
	uint64_t began_ns, until_ns;
	bool stopping;
	char path[];
};

static struct unix_sandbox *unix_of(struct kn_sandbox *sb)
{
	return kn_container_of(sb, struct unix_sandbox, sb);
}

static void unix_finish(struct unix_sandbox *u, const struct kn_err *why)
{
	u->events.ended(&u->sb, why, u->events.arg);
	free(u);
}

static void unix_ready(struct unix_sandbox *u)
{
	u->sb.phases[0] = (struct kn_phase){ "ready", kn_now_ns() - u->began_ns };
	u->sb.n_phases = 1;
	u->events.ready(&u->sb, u->events.arg);
}

static void unix_due(struct kn_timer *t)
{
	struct unix_sandbox *u = kn_container_of(t, struct unix_sandbox, timer);
	struct kn_err err = KN_ERR_INIT;
	int r;

	if (u->stopping) {
		unix_finish(u, &err);
		return;
	}
	kn_auto(kn_close) int fd = kn_unix_connect(u->path, &err);
	if (fd >= 0) {
		unix_ready(u);
		return;
	}
	if (kn_now_ns() >= u->until_ns) {
		(void)kn_while(&err, "nothing accepts on the function's socket");
		unix_finish(u, &err);
		return;
	}
	r = kn_timer_start(u->loop, t, kn_now_ns() + TRY_EVERY_MS * KN_NS_PER_MS, &err);
	if (r < 0)
		unix_finish(u, &err);
}

static int unix_check(const void *driver, struct kn_err *err)
{
	(void)driver;
	(void)err;
	return 0;
}

static int unix_start(struct kn_loop *loop, const void *driver,
		      const struct kn_sandbox_config *config,
		      const struct kn_sandbox_events *events, struct kn_sandbox **ret,
		      struct kn_err *err)
{
	size_t len = strlen(config->image);

	(void)driver;
	kn_auto(kn_free) struct unix_sandbox *u = calloc(1, sizeof(*u) + len + 1);
	if (!u)
		return kn_fail(err, ENOMEM, "out of memory");
	u->sb.ops = &kn_sandbox_unix;
	u->events = *events;
	u->loop = loop;
	u->timer.call = unix_due;
	u->began_ns = kn_now_ns();
	u->until_ns = u->began_ns + config->ready_timeout_ms * KN_NS_PER_MS;
	memcpy(u->path, config->image, len);
	int r = kn_timer_start(loop, &u->timer, u->began_ns, err);
	if (r < 0)
		return r;
	*ret = &kn_take_ptr(u)->sb;
	return 0;
}

static int unix_connect_to(struct kn_sandbox *sb, int *ret_fd, struct kn_err *err)
{
	int fd = kn_unix_connect(unix_of(sb)->path, err);

	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

static void unix_stop(struct kn_sandbox *sb, uint64_t grace_ms)
{
	struct unix_sandbox *u = unix_of(sb);

	(void)grace_ms;
	if (u->stopping)
		return;
	u->stopping = true;
	if (kn_timer_start(u->loop, &u->timer, kn_now_ns(), NULL) < 0)
		abort();
}

static int unix_stats(struct kn_sandbox *sb, struct kn_sandbox_stats *ret, struct kn_err *err)
{
	(void)sb;
	(void)err;
	*ret = (struct kn_sandbox_stats){ .pid = 0 };
	return 0;
}

const struct kn_sandbox_ops kn_sandbox_unix = {
	.name = "unix",
	.check = unix_check,
	.start = unix_start,
	.connect = unix_connect_to,
	.stop = unix_stop,
	.stats = unix_stats,
};
