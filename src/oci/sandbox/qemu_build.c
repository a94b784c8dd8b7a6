/*
 * The making of one snapshot. A draft is opened in the store (its space is reserved, so that a full
 * disk is an error here and not a QEMU that dies of it); a guest of the driver's own is started with
 * its memory in the draft's file, from the template when there is one; when it is where it should be
 * (its function ready, or its agent waiting) and has come to rest, QEMU writes the state of the
 * devices and is ended; the store digests and names what is there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "oci/sandbox/qemu.h"

enum { SETTLE_MS = 250, POLL_MS = 5, SAVE_MS = 60 * 1000 };

struct build {
	struct kn_restores *r;
	struct wish *wish;
	bool template, saved, stopping;
	struct kn_snapshot base;       /* the template; descriptors -1: booted */
	struct kn_draft *draft;
	int state_fd;                  /* the draft's */
	struct qemu *q;
	struct kn_timer timer;         /* to rest, to ask how far the saving is */
	uint64_t began_ns, give_up_ns;
	struct kn_err why;
};

static void finish(struct build *b)
{
	struct kn_restores *r = b->r;
	struct kn_err why = b->why;

	kn_timer_stop(&b->timer);
	kn_snapshot_fini(&b->base);
	kn_draft_drop(b->draft);
	wish_unref(b->wish);
	free(b);
	restores_built(r, why.code ? &why : NULL);
}

static void end_guest(struct build *b, const struct kn_err *why)
{
	if (why && !b->why.code)
		b->why = *why;
	kn_timer_stop(&b->timer);
	b->q->sb.ops->stop(&b->q->sb, 0);
}

/* ---- saving -------------------------------------------------------------------------------- */

static void on_migration(const json_t *reply, const struct kn_err *err, void *arg);

static void on_poll(struct kn_timer *t)
{
	struct build *b = kn_container_of(t, struct build, timer);
	struct kn_err err = KN_ERR_INIT;

	if (kn_qmp_execute(b->q->qmp, "query-migrate", NULL, -1, on_migration, b, &err) < 0)
		end_guest(b, &err);
}

static void on_migration(const json_t *reply, const struct kn_err *err, void *arg)
{
	struct build *b = arg;
	struct kn_err why = KN_ERR_INIT;
	const char *status = json_string_value(json_object_get(reply, "status"));
	uint64_t now = kn_now_ns();

	if (err) {
		end_guest(b, err);
	} else if (status && strcmp(status, "completed") == 0) {
		b->saved = true;
		end_guest(b, NULL);
	} else if ((status && strcmp(status, "failed") == 0) || now > b->give_up_ns) {
		kn_fail(&why, EIO, "QEMU did not save its guest: %s", status ? status : "no status");
		end_guest(b, &why);
	} else if (kn_timer_start(b->r->loop, &b->timer, now + POLL_MS * KN_NS_PER_MS, &why) < 0) {
		end_guest(b, &why);
	}
}

static void on_told(const json_t *reply, const struct kn_err *err, void *arg)
{
	if (!reply)
		end_guest(arg, err);
}

static void on_rest(struct kn_timer *t)
{
	struct build *b = kn_container_of(t, struct build, timer);
	struct kn_err err = KN_ERR_INIT;

	int r = kn_qmp_execute(b->q->qmp, "getfd", json_pack("{s:s}", "fdname", "state"),
	                       b->state_fd, on_told, b, &err);
	if (r == 0)
		r = kn_qmp_execute(b->q->qmp, "migrate", json_pack("{s:s}", "uri", "fd:state"), -1,
		                   on_told, b, &err);
	if (r < 0) {
		end_guest(b, &err);
		return;
	}
	b->give_up_ns = kn_now_ns() + SAVE_MS * KN_NS_PER_MS;
	b->timer.call = on_poll;
	on_poll(&b->timer);
}

static void rest(struct build *b)
{
	struct kn_err err = KN_ERR_INIT;

	b->timer.call = on_rest;
	if (kn_timer_start(b->r->loop, &b->timer, kn_now_ns() + SETTLE_MS * KN_NS_PER_MS, &err) < 0)
		end_guest(b, &err);
}

/* ---- the guest ----------------------------------------------------------------------------- */

static void on_hello(struct qemu *q, void *arg)
{
	(void)q;
	rest(arg);
}

static void on_ready(struct kn_sandbox *sb, void *arg)
{
	(void)sb;
	rest(arg);
}

static void on_kept(const struct kn_err *err, void *arg)
{
	struct build *b = arg;

	b->draft = NULL;
	if (err)
		b->why = *err;
	else
		kn_log(KN_INFO, "snapshot made", KN_S("of", b->template ? "a waiting guest" : b->wish->c.id),
		       KN_U("ms", (kn_now_ns() - b->began_ns) / KN_NS_PER_MS),
		       KN_U("bytes", kn_snapshots_bytes(b->r->snapshots)));
	finish(b);
}

static void on_ended(struct kn_sandbox *sb, const struct kn_err *why, void *arg)
{
	struct build *b = arg;

	(void)sb;
	b->q = NULL;
	kn_timer_stop(&b->timer);
	if (b->saved && !b->stopping) {
		kn_draft_keep(b->draft, on_kept, b);
		return;
	}
	if (!b->why.code && why->code) {
		b->why = *why;
		kn_while(&b->why, "a guest to be saved");
	}
	finish(b);
}

static void on_opened(struct kn_draft *d, int memory_fd, int state_fd, const struct kn_err *err,
                      void *arg)
{
	struct build *b = arg;
	struct kn_sandbox_events events = { .ready = on_ready, .ended = on_ended, .arg = b };
	struct qemu_how how = { .source = b->base.state_fd < 0 ? FROM_BOOT : FROM_TEMPLATE,
		                .from = b->base, .save_fd = memory_fd, .bare = b->template };
	char id[64];

	(void)d;
	if (err) {
		b->draft = NULL;
		b->why = *err;
		finish(b);
		return;
	}
	b->state_fd = state_fd;
	int r = restores_name(b->r, "snapshot", id, &how.own_dir, &b->why);
	if (r == 0)
		r = qemu_begin(b->r->loop, b->r->driver, b->wish, id, how.own_dir, &events, &how,
		               &b->q, &b->why);
	if (r < 0)
		finish(b);
	else
		b->q->hello = on_hello;
}

int build_start(struct kn_restores *r, struct wish *wish, bool template, struct build **ret,
                struct kn_err *err)
{
	const struct kn_sandbox_config *c = &wish->c;
	struct build *b = calloc(1, sizeof(*b));
	struct kn_err none = KN_ERR_INIT;
	char about[128];

	if (!b)
		return kn_fail(err, ENOMEM, "memory for a snapshot");
	b->r = r;
	b->wish = wish_ref(wish);
	b->template = template;
	b->base = (struct kn_snapshot){ -1, -1, 0 };
	b->began_ns = kn_now_ns();
	if (template)
		snprintf(about, sizeof(about), "template: %llu MiB, %u vCPU",
		         (unsigned long long)c->memory_bytes >> 20, c->vcpus);
	else
		snprintf(about, sizeof(about), "function %s, as in instance %s",
		         c->function ? c->function : "", c->id);
	if (!template)
		(void)!kn_snapshots_get(r->snapshots, wish->template_key, &b->base, &none);
	struct kn_draft_config d = { .key = template ? wish->template_key : wish->function_key,
		                     .about = about,
		                     .memory_bytes = c->memory_bytes,
		                     .base = b->base.memory_fd < 0 ? NULL : &b->base,
		                     .opened = on_opened,
		                     .arg = b };
	int r_ = kn_draft_new(r->snapshots, &d, &b->draft, err);
	if (r_ < 0) {
		kn_snapshot_fini(&b->base);
		wish_unref(b->wish);
		free(b);
		return r_;
	}
	kn_log(KN_INFO, "snapshot is being made", KN_S("of", about));
	*ret = b;
	return 0;
}

void build_stop(struct build *b)
{
	b->stopping = true;
	if (b->q)
		end_guest(b, NULL);
	else
		finish(b);
}
