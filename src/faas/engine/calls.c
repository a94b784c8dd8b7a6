/*
 * Theory of operation. A service is a function's name: it lives from its first put to its removal,
 * and holds the pool of the newest revision. A call waits in the service's queue until kn_service_dispatch()
 * finds it a ready instance; kn_service_dispatch() runs whenever something may have changed (a call came, an
 * instance became ready, ended, or has room again) and is the only place that starts instances:
 *
 *     waiting calls > room that instances being started will have  ->  one more start
 *
 * and only one at a time while no instance is ready, so that a burst on a sleeping function makes
 * one start, and not one per request. Starts and ends that fail one after the other put the service
 * into back-off: until that is over nothing is started, and calls are refused with the last error.
 * A success of any request ends it.
 */
#include "faas/engine.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/time.h"
#include "faas/engine/service.h"

enum { CALM_MS = 60 * 1000 };
enum { BACKOFF_FIRST_MS = 250, BACKOFF_LAST_MS = 30 * 1000 };

enum { MAX_RETRY_S = 60 };   /* of Retry-After: who waits longer is forgotten */

enum { CALL_NONE, CALL_WAITS, CALL_GRANTED };

/* ---- the queue -------------------------------------------------------------------------------- */

static void enqueue(struct kn_service *s, struct kn_call *call)
{
	call->state = CALL_WAITS;
	call->next = NULL;
	call->prev = s->last;
	*s->last = call;
	s->last = &call->next;
	s->waiting++;
}

static void dequeue(struct kn_service *s, struct kn_call *call)
{
	*call->prev = call->next;
	if (call->next)
		call->next->prev = call->prev;
	else
		s->last = call->prev;
	s->waiting--;
	call->state = CALL_NONE;
}

static void hold(struct kn_instance *i, struct kn_call *call)
{
	call->state = CALL_GRANTED;
	call->instance = i;
	call->next = i->calls;
	call->prev = &i->calls;
	if (call->next)
		call->next->prev = &call->next;
	i->calls = call;
}

static void unhold(struct kn_call *call)
{
	*call->prev = call->next;
	if (call->next)
		call->next->prev = call->prev;
	call->instance = NULL;
}

/* ---- counting --------------------------------------------------------------------------------- */

static void count(struct kn_service *s, struct kn_call *call, int status, bool ours)
{
	uint64_t now = kn_now_ns();
	struct kn_counts *c = &s->counts;

	kn_counts_add(c, status, now - call->began_ns, ours);
	if (call->granted_ns == 0)
		return;
	c->done_ns[c->n_done++ % KN_COUNT_RECENT] = now;
	c->calls[call->start]++;
	if (call->start != KN_COLD)
		c->recent_ns[c->n_recent++ % KN_COUNT_RECENT] = now - call->began_ns;
}

void kn_service_count(struct kn_service *s, int status)
{
	s->counts.came++;
	kn_counts_add(&s->counts, status, 0, true);
}

const char *kn_start_name(enum kn_start start)
{
	static const char *const names[] = { [KN_WARM] = "warm",
					     [KN_PREWARMED] = "prewarmed",
					     [KN_COLD] = "cold" };

	return names[start];
}

/* ---- granting and refusing -------------------------------------------------------------------- */

/*
 * A cold call's phases are those of the start it waited for; what its wait was longer than that
 * start, it spent in the queue.
 */
static void label(struct kn_call *call, const struct kn_instance *i)
{
	uint64_t wait = call->granted_ns - call->began_ns;
	const struct kn_sandbox *sb = i->sandbox;

	bool waited = i->ready_ns > call->began_ns;
	if (waited)
		call->start = sb->prewarmed ? KN_PREWARMED : KN_COLD;
	else
		call->start = i->served == 0 && i->in_flight == 1 ? KN_PREWARMED : KN_WARM;
	call->n_phases = 1;
	if (waited) {
		uint64_t start = i->ready_ns - i->began_ns;
		for (size_t n = 0; n < sb->n_phases && n < KN_MAX_PHASES; n++)
			call->phases[call->n_phases++] = sb->phases[n];
		wait = wait > start ? wait - start : 0;
	}
	call->phases[0] = (struct kn_phase){ "queue", wait };
}

static void grant(struct kn_service *s, struct kn_call *call, struct kn_instance *i, uint64_t now)
{
	call->granted_ns = now;
	hold(i, call);
	kn_instance_enter(i);
	s->in_flight++;
	label(call, i);
	kn_histogram_add(&s->counts.waits, now - call->began_ns);
	call->granted(call);
}

static void refuse(struct kn_service *s, struct kn_call *call, int status, unsigned retry_after_s,
		   const struct kn_err *why)
{
	count(s, call, status, true);
	call->refused(call, status, retry_after_s, why);
}

/* Answer everything that waits now; what refused() adds meanwhile is not among it. */
void kn_service_refuse_all(struct kn_service *s, int status, unsigned retry_after_s,
			   const struct kn_err *why)
{
	for (uint32_t n = s->waiting; n > 0 && s->first; n--) {
		struct kn_call *call = s->first;
		dequeue(s, call);
		refuse(s, call, status, retry_after_s, why);
	}
}

/* ---- failures --------------------------------------------------------------------------------- */

static uint64_t backoff_left_ms(const struct kn_service *s)
{
	uint64_t now = kn_now_ns();

	return s->backoff_until_ns > now ? (s->backoff_until_ns - now) / KN_NS_PER_MS + 1 : 0;
}

static unsigned retry_after_s(const struct kn_service *s)
{
	return (unsigned)((backoff_left_ms(s) + 999) / 1000);
}

/* Starts that fail are held back at once, ready instances that crash from the second in a row. */
static void back_off(struct kn_service *s, const struct kn_err *why, bool was_ready)
{
	uint64_t ms = BACKOFF_FIRST_MS;

	memcpy(s->last_error, why->text, sizeof(s->last_error));
	s->failures++;
	if (was_ready && s->failures < 2)
		return;
	for (unsigned n = 1; n < s->failures && ms < BACKOFF_LAST_MS; n++)
		ms *= 2;
	ms = kn_min(ms, (uint64_t)BACKOFF_LAST_MS);
	s->backoff_until_ns = kn_now_ns() + ms * KN_NS_PER_MS;
	if (kn_service_floor(s) > 0 && !s->leaving &&
	    kn_timer_start(s->engine->loop, &s->retry, s->backoff_until_ns, NULL) < 0)
		kn_log(KN_WARN, "no memory for a timer: the next request starts it",
		       KN_S("fn", s->fn->name));
}

void kn_service_on_retry(struct kn_timer *t)
{
	struct kn_service *s = kn_container_of(t, struct kn_service, retry);

	kn_service_dispatch(s);
}

/* ---- starting --------------------------------------------------------------------------------- */

/* How long until what waits now is answered, in whole seconds, for Retry-After. */
static unsigned wait_s(const struct kn_service *s)
{
	uint64_t ns = kn_counts_wait_ns(&s->counts, s->waiting + UINT64_C(1));

	return (unsigned)kn_min(ns / KN_NS_PER_S + 1, (uint64_t)MAX_RETRY_S);
}

/* The user wants instances to have no more requests than so many. */
static bool is_above_target(const struct kn_service *s, uint32_t staying)
{
	uint64_t target = s->fn->scale_target;

	return target && (uint64_t)s->in_flight + s->waiting > target * staying;
}

/*
 * While nothing is ready yet one start is under way and no more, however many wait: a burst on a
 * sleeping function must not become a herd of instances, and how long requests take is not known.
 */
static bool wants_start(const struct kn_service *s)
{
	uint32_t staying = kn_pool_staying(s->pool), starting = kn_pool_starting(s->pool);
	uint64_t coming = (uint64_t)starting * kn_pool_concurrency(s->pool);

	if (s->leaving || s->engine->draining || staying >= kn_service_limit(s))
		return false;
	if (staying < kn_service_floor(s))
		return true;
	if (starting > 0 && staying == starting)
		return false;
	return s->waiting > coming || is_above_target(s, staying);
}

/*
 * Not the function's failure: no back-off. Who has an instance waits for that one, or, when it
 * leaves, for its place.
 */
static void refuse_full_node(struct kn_service *s, const struct kn_err *why)
{
	if (kn_pool_count(s->pool) == 0 && s->n_old == 0)
		kn_service_refuse_all(s, 503, wait_s(s), why);
}

int kn_service_start(struct kn_service *s, struct kn_pool *p, struct kn_err *err)
{
	int r = kn_pool_start(p, err);

	s->counts.failed_starts += r < 0;
	if (r < 0)
		return r;
	kn_engine_take_room(s->engine, kn_pool_function(p));
	s->counts.starts++;
	return 0;
}

/* The driver could not even begin: this host's failure, not the function's. */
static void start_failed(struct kn_service *s, const struct kn_err *why)
{
	kn_log(KN_ERROR, "instance not started", KN_S("fn", s->fn->name), KN_E(why));
	back_off(s, why, false);
	if (kn_pool_staying(s->pool) == 0)
		kn_service_refuse_all(s, 503, kn_max(retry_after_s(s), 1u), why);
}

static void refuse_held_back(struct kn_service *s)
{
	struct kn_err why = KN_ERR_INIT;

	(void)kn_fail(&why, EAGAIN, "starting '%s' failed %u times, next try in %llu ms: %s",
		      s->fn->name, s->failures, (unsigned long long)backoff_left_ms(s),
		      s->last_error);
	kn_service_refuse_all(s, 503, kn_max(retry_after_s(s), 1u), &why);
}

static void start_what_is_wanted(struct kn_service *s)
{
	while (wants_start(s)) {
		struct kn_err err = KN_ERR_INIT;
		if (backoff_left_ms(s) > 0) {
			if (kn_pool_staying(s->pool) == 0)
				refuse_held_back(s);
			return;
		}
		enum kn_room room = kn_engine_room(s->engine, s, s->fn, &err);
		if (room == KN_ROOM_NONE)
			refuse_full_node(s, &err);
		if (room != KN_ROOM)
			return;
		if (kn_service_start(s, s->pool, &err) < 0) {
			start_failed(s, &err);
			return;
		}
	}
}

void kn_service_dispatch(struct kn_service *s)
{
	uint64_t now = kn_now_ns();

	if (s->dispatching)
		return; /* a granted call was released at once: the loop below goes on */
	s->dispatching = true;
	while (s->first && !s->leaving) {
		struct kn_instance *i = kn_pool_pick(s->pool);
		if (!i)
			break;
		struct kn_call *call = s->first;
		dequeue(s, call);
		grant(s, call, i, now);
	}
	s->dispatching = false;
	start_what_is_wanted(s);
	kn_roll_step(s);
}

/* ---- what pools tell -------------------------------------------------------------------------- */

void kn_service_on_ready(struct kn_instance *i, void *arg)
{
	struct kn_service *s = arg;
	const struct kn_sandbox *sb = i->sandbox;

	s->n_cold = kn_min(sb->n_phases, (size_t)KN_MAX_PHASES);
	memcpy(s->cold, sb->phases, s->n_cold * sizeof(s->cold[0]));
	s->cold_wall_ns = i->started_wall_ns;
	kn_counts_started(s, sb);
	kn_log(KN_INFO, "instance ready", KN_S("fn", s->fn->name), KN_S("instance", i->id),
	       KN_U("start_us", (i->ready_ns - i->began_ns) / KN_NS_PER_US));
	if (i->pool == s->coming.pool) {
		kn_roll_ready(s);
	} else {
		kn_service_dispatch(s);
		kn_service_watch_idle(s);
	}
}

static void lose_calls(struct kn_instance *i, const struct kn_err *why)
{
	while (i->calls) {
		struct kn_call *call = i->calls;
		unhold(call);
		call->lost(call, why);
	}
}

static void ended_by_itself(struct kn_service *s, struct kn_instance *i, const struct kn_err *why)
{
	bool was_ready = i->ready_ns != 0;

	kn_log(KN_WARN, was_ready ? "instance ended" : "instance ended before it was ready",
	       KN_S("fn", s->fn->name), KN_S("instance", i->id), KN_E(why));
	if (was_ready)
		s->counts.crashes++;
	else
		s->counts.failed_starts++;
	kn_log_ring_add(&s->log, i->id, KN_MONITOR, kn_view_of(kn_err_text(why)));
	/* One that lived long is no crash loop; of packet functions no request ever tells. */
	if (was_ready && kn_now_ns() - i->ready_ns > CALM_MS * KN_NS_PER_MS)
		s->failures = 0;
	back_off(s, why, was_ready);
	/* Calls that waited for this start hear why; a later start is a later request's. */
	if (!was_ready && kn_pool_staying(s->pool) == 0)
		kn_service_refuse_all(s, 502, retry_after_s(s), why);
}

/* The first instance of the next revision. */
static void first_ended(struct kn_service *s, const struct kn_instance *i, const struct kn_err *why)
{
	s->counts.failed_starts++;
	kn_log_ring_add(&s->log, i->id, KN_MONITOR, kn_view_of(kn_err_text(why)));
	kn_roll_failed(s, why);
}

void kn_service_on_ended(struct kn_instance *i, const struct kn_err *why, void *arg)
{
	struct kn_service *s = arg;

	struct kn_engine *e = s->engine;
	bool by_itself = i->failed || i->state < KN_INSTANCE_DRAINING;

	kn_series_keep(s, i->sandbox);
	kn_usage_keep(s, i);
	lose_calls(i, why);
	if (why->code != 0 && by_itself && i->pool == s->coming.pool)
		first_ended(s, i, why);
	else if (why->code != 0 && by_itself && i->pool == s->pool)
		ended_by_itself(s, i, why);
	else
		kn_log(KN_INFO, "instance stopped", KN_S("fn", s->fn->name),
		       KN_S("instance", i->id));
	kn_engine_give_room(e, kn_pool_function(i->pool));
	kn_service_dispatch(s);
}

void kn_service_on_log(struct kn_instance *i, enum kn_stream stream, struct kn_view text, void *arg)
{
	struct kn_service *s = arg;

	kn_log_ring_offer(&s->log, i->id, stream, text);
}

/* ---- calls ------------------------------------------------------------------------------------ */

static void refuse_full(struct kn_service *s, struct kn_call *call)
{
	struct kn_err why = KN_ERR_INIT;

	(void)kn_fail(&why, EAGAIN,
		      "%u requests wait for '%s' already, its limit (annotation kiln.queue)",
		      s->waiting, s->fn->name);
	refuse(s, call, 429, wait_s(s), &why);
}

bool kn_engine_acquire(struct kn_service *s, struct kn_call *call)
{
	call->service = s;
	call->state = CALL_NONE;
	call->instance = NULL;
	call->began_ns = kn_now_ns();
	call->granted_ns = 0;
	call->n_phases = 0;
	s->counts.came++;
	kn_service_wake(s, call->began_ns);
	struct kn_instance *i = s->first ? NULL : kn_pool_pick(s->pool);
	if (i) {
		grant(s, call, i, call->began_ns);
		if (s->fn->scale_target)
			start_what_is_wanted(s);
		return false;
	}
	if (s->waiting >= s->fn->queue) {
		refuse_full(s, call);
		return false;
	}
	enqueue(s, call);
	start_what_is_wanted(s);
	return s->first !=
	       NULL; /* who refuses, refuses all: if anything waits, this last one does */
}

static void release_granted(struct kn_service *s, struct kn_call *call)
{
	struct kn_instance *i = call->instance;

	s->in_flight--;
	if (i) {
		unhold(call);
		kn_instance_leave(i);
	}
	if (s->leaving) {
		kn_service_check_gone(s);
		return;
	}
	if (s->first)
		kn_service_dispatch(s);
	kn_service_watch_idle(s);
}

void kn_engine_release(struct kn_call *call, int status, bool ours)
{
	struct kn_service *s = call->service;
	int state = call->state;

	count(s, call, status, ours);
	s->used_ns = kn_now_ns();
	if (!ours && status != 0) {
		s->failures = 0;
		s->backoff_until_ns = 0;
	}
	call->state = CALL_NONE;
	if (state == CALL_WAITS)
		dequeue(s, call);
	else if (state == CALL_GRANTED)
		release_granted(s, call);
}

void kn_service_limits(const struct kn_service *s, uint64_t *ret_request, uint64_t *ret_reply)
{
	*ret_request = s->engine->config.max_body_bytes;
	*ret_reply = s->engine->config.max_reply_bytes;
}
