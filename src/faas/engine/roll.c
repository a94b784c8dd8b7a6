/*
 * Theory of operation. An update of a function that has instances makes a pool of the new revision
 * beside the old one and starts one instance there, while the old one serves as if nothing had
 * happened. When that instance is ready, the pools change places in one step: the next request goes
 * to the new one, the old one drains. A first instance that fails is tried again, within the time
 * that the function itself gives a start; then the new revision is dropped, and the old one is the
 * function's again, for good. Whoever put it hears which way it went.
 *
 *     put -> start -> ready   -> promote: told "the new one"
 *                  -> failed  -> start again -> ... -> abandon: told "the old one, because"
 *
 * An instance of a packet function is ready when it could take over: its driver lets it, when the old
 * one has stopped. With no room for an instance beside those there are, the new revision is promoted
 * before it is ready: requests wait for its start, and none is refused for the update's sake.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/time.h"
#include "faas/engine/service.h"

enum { TRIES = 3, RETRY_MS = 250 };

static void forget(struct kn_service *s)
{
	kn_timer_stop(&s->coming.retry);
	kn_defer_stop(&s->coming.step);
	s->coming.pool = NULL;
	s->coming.fn = NULL;
	s->coming.failures = 0;
}

static void tell(struct kn_service *s, const struct kn_err *why)
{
	if (s->engine->rolled)
		s->engine->rolled(s->fn, why, s->engine->rolled_arg);
}

/*
 * Slots are made before they are needed, since what must be dropped cannot wait for memory: one for
 * a next revision that is abandoned now, one for that which loses in the end.
 */
static int reserve(struct kn_service *s, struct kn_err *err)
{
	struct kn_pool **grown = realloc(s->old, (s->n_old + 2) * sizeof(*grown));

	if (!grown)
		return kn_fail(err, ENOMEM, "out of memory for an update");
	s->old = grown;
	return 0;
}

static void put_away(struct kn_service *s, struct kn_pool *p)
{
	s->old[s->n_old++] = p;
	kn_pool_drain(p);
}

void kn_roll_abandon(struct kn_service *s)
{
	struct kn_pool *p = s->coming.pool;

	if (!p)
		return;
	kn_function_unref(s->coming.fn);
	forget(s);
	put_away(s, p);
}

static void take_over(struct kn_service *s, struct kn_function *fn, struct kn_pool *pool)
{
	struct kn_pool *old = s->pool;

	s->pool = pool;
	kn_function_unref(s->fn);
	s->fn = fn;
	s->failures = 0;
	s->backoff_until_ns = 0;
	s->last_error[0] = '\0';
	s->roll_error[0] = '\0';
	kn_timer_stop(&s->retry);
	kn_timer_stop(&s->idle);
	put_away(s, old);
	kn_service_watch_idle(s);
	kn_service_dispatch(s);
}

void kn_roll_promote(struct kn_service *s)
{
	struct kn_function *fn = s->coming.fn;
	struct kn_pool *pool = s->coming.pool;

	forget(s);
	take_over(s, fn, pool);
	tell(s, NULL);
}

int kn_roll_begin(struct kn_service *s, struct kn_function *fn, struct kn_pool *pool,
		  struct kn_err *err)
{
	int r = reserve(s, err);

	if (r < 0)
		return r;
	kn_function_ref(fn);
	kn_roll_abandon(s);
	if (kn_pool_staying(s->pool) == 0) {
		take_over(s, fn, pool);
		return 0;
	}
	s->coming.pool = pool;
	s->coming.fn = fn;
	s->coming.began_ns = kn_now_ns();
	s->coming.retry_ns = 0;
	s->roll_error[0] = '\0';
	kn_timer_stop(&s->idle);
	kn_defer_start(s->engine->loop, &s->coming.step);
	return 0;
}

void kn_roll_step(struct kn_service *s)
{
	struct kn_roll *next = &s->coming;
	struct kn_err err = KN_ERR_INIT;

	if (!next->pool || kn_pool_count(next->pool) > 0 || kn_now_ns() < next->retry_ns)
		return;
	switch (kn_engine_room(s->engine, s, next->fn, &err)) {
	case KN_ROOM_SOON:
		return;
	case KN_ROOM_NONE:
		kn_log(KN_WARN, "updated without a second instance", KN_S("fn", s->fn->name),
		       KN_E(&err));
		kn_roll_promote(s);
		return;
	case KN_ROOM:
		break;
	}
	if (kn_service_start(s, next->pool, &err) < 0)
		kn_roll_failed(s, &err);
}

void kn_roll_ready(struct kn_service *s)
{
	kn_log(KN_INFO, "updated", KN_S("fn", s->fn->name), KN_S("image", s->coming.fn->image));
	kn_roll_promote(s);
}

static bool is_over(const struct kn_roll *next)
{
	uint64_t took_ms = (kn_now_ns() - next->began_ns) / KN_NS_PER_MS;

	return next->failures >= TRIES || took_ms >= next->fn->boot_timeout_ms;
}

void kn_roll_failed(struct kn_service *s, const struct kn_err *why)
{
	struct kn_roll *next = &s->coming;
	uint64_t wait = (uint64_t)RETRY_MS << next->failures;

	next->failures++;
	kn_log(KN_WARN, "new revision is not ready", KN_S("fn", s->fn->name),
	       KN_U("try", next->failures), KN_E(why));
	memcpy(s->roll_error, why->text, sizeof(s->roll_error));
	next->retry_ns = kn_now_ns() + wait * KN_NS_PER_MS;
	if (!is_over(next) &&
	    kn_timer_start(s->engine->loop, &next->retry, next->retry_ns, NULL) == 0)
		return;
	kn_log(KN_ERROR, "update is dropped, the earlier revision stays",
	       KN_S("fn", s->fn->name), KN_S("image", next->fn->image), KN_E(why));
	kn_roll_abandon(s);
	kn_service_watch_idle(s);
	tell(s, why);
}

void kn_roll_on_retry(struct kn_timer *t)
{
	kn_roll_step(kn_container_of(t, struct kn_service, coming.retry));
}

void kn_roll_on_step(struct kn_defer *d)
{
	kn_roll_step(kn_container_of(d, struct kn_service, coming.step));
}
