/*
 * Theory of operation. What a function keeps while nobody calls is its floor: scale.min, or what
 * kn_engine_scale() asked for, until the function has idled (scale.zero: then none). An instance
 * above the floor that had no request for the idle time is stopped, the one unused for longest
 * first. Requests never meet that: stopping takes an instance out of the pool in the same call.
 *
 * The node has room for so many instances and so much memory. Every start takes its share first and
 * every end gives it back, so that what is promised never exceeds what there is. When there is no
 * room, an idle instance that its function need not keep makes it; a function that wants a start
 * and has no room is starved, and looks again when any instance ends.
 */
#include <errno.h>

#include "base/log.h"
#include "base/time.h"
#include "faas/engine/service.h"

/* ---- how many --------------------------------------------------------------------------------- */

uint32_t kn_service_floor(const struct kn_service *s)
{
	return s->asked >= 0 ? (uint32_t)s->asked : s->fn->scale_min;
}

uint32_t kn_service_limit(const struct kn_service *s)
{
	uint32_t least = kn_max(kn_service_floor(s), 1u);

	return kn_max(s->fn->scale_max, least);
}

/* While another revision gets ready, this one must not be asleep. */
static uint32_t kept(const struct kn_service *s)
{
	return kn_max(kn_service_floor(s), s->coming.pool ? 1u : 0u);
}

void kn_service_wake(struct kn_service *s, uint64_t now)
{
	s->used_ns = now;
	if (s->asked >= 0 && s->asked < s->fn->scale_min)
		s->asked = -1;
}

static bool is_idle(const struct kn_instance *i)
{
	return i->state == KN_INSTANCE_READY && i->in_flight == 0;
}

static struct kn_instance *longest_idle(const struct kn_pool *p)
{
	struct kn_instance *best = NULL;

	for (struct kn_instance *i = kn_pool_first(p); i; i = i->next) {
		if (is_idle(i) && (!best || i->idle_since_ns < best->idle_since_ns))
			best = i;
	}
	return best;
}

/* ---- idling ----------------------------------------------------------------------------------- */

static uint64_t idle_ns(const struct kn_service *s)
{
	uint64_t ms = s->fn->idle_ms ? s->fn->idle_ms : s->engine->config.idle_ms;

	/* Frames are no requests: nobody knows whether a packet function idles. */
	return s->fn->class == KN_CLASS_NF ? 0 : ms * KN_NS_PER_MS;
}

/* The function as a whole idles: what was asked for ends, and the minimum, too, with scale.zero. */
static void forget_asked(struct kn_service *s)
{
	if (s->fn->scale_zero)
		s->asked = 0;
	else if (s->asked > s->fn->scale_min)
		s->asked = -1;
}

static bool is_quiet(const struct kn_service *s)
{
	return s->in_flight == 0 && s->waiting == 0 && !s->coming.pool;
}

/* When there is something to do next; 0: nothing, as long as no request comes. */
static uint64_t next_look(const struct kn_service *s)
{
	const struct kn_instance *i = longest_idle(s->pool);
	uint32_t staying = kn_pool_staying(s->pool);
	uint64_t due = 0;

	if (i && staying > kept(s))
		due = i->idle_since_ns + idle_ns(s);
	bool falls = s->asked > s->fn->scale_min || (s->fn->scale_zero && s->asked != 0);
	if (falls && staying > 0 && is_quiet(s)) {
		uint64_t whole = s->used_ns + idle_ns(s);
		due = due ? kn_min(due, whole) : whole;
	}
	return due;
}

void kn_service_watch_idle(struct kn_service *s)
{
	if (s->idle.loop || s->leaving || idle_ns(s) == 0)
		return;
	uint64_t due = next_look(s);
	if (due && kn_timer_start(s->engine->loop, &s->idle, due, NULL) < 0)
		kn_log(KN_WARN, "no memory for a timer: idle instances stay for now",
		       KN_S("fn", s->fn->name));
}

void kn_service_on_idle(struct kn_timer *t)
{
	struct kn_service *s = kn_container_of(t, struct kn_service, idle);
	uint64_t now = kn_now_ns();
	struct kn_instance *i;

	if (is_quiet(s) && s->used_ns + idle_ns(s) <= now)
		forget_asked(s);
	while (kn_pool_staying(s->pool) > kept(s) && (i = longest_idle(s->pool)) &&
	       i->idle_since_ns + idle_ns(s) <= now) {
		kn_log(KN_INFO, "instance idled", KN_S("fn", s->fn->name), KN_S("instance", i->id));
		kn_instance_retire(i);
	}
	kn_service_watch_idle(s);
}

/* ---- scaling by hand -------------------------------------------------------------------------- */

/* The least useful one: it starts, it idles, it has few requests. */
static struct kn_instance *surplus(const struct kn_pool *p)
{
	struct kn_instance *least = NULL, *idle = longest_idle(p);

	for (struct kn_instance *i = kn_pool_first(p); i; i = i->next) {
		if (i->state == KN_INSTANCE_STARTING)
			return i;
		if (i->state == KN_INSTANCE_READY && (!least || i->in_flight < least->in_flight))
			least = i;
	}
	return idle ? idle : least;
}

int kn_engine_scale(struct kn_engine *e, struct kn_view name, uint32_t n, struct kn_err *err)
{
	struct kn_service *s = kn_engine_find(e, name);
	struct kn_instance *i;

	if (!s)
		return kn_fail(err, ENOENT, "there is no function '%.*s'", (int)name.len, name.ptr);
	if (n == 0 && s->coming.pool)
		kn_roll_promote(s); /* nothing will serve, so there is nothing to keep */
	s->asked = n;
	s->used_ns = kn_now_ns();
	while (kn_pool_staying(s->pool) > n && (i = surplus(s->pool)))
		kn_instance_retire(i);
	kn_timer_stop(&s->idle);
	kn_service_watch_idle(s);
	kn_service_dispatch(s);
	return 0;
}

/* ---- the node's room -------------------------------------------------------------------------- */

uint64_t kn_engine_charge(const struct kn_engine *e, const struct kn_function *fn)
{
	const struct kn_engine_class *c = kn_engine_class(e, fn->class);

	return c->raw_image ? 0 : fn->memory_bytes + c->overhead_bytes;
}

static bool fits(const struct kn_engine *e, uint64_t bytes)
{
	if (e->n_instances >= e->config.max_instances)
		return false;
	return !e->config.memory_bytes || e->memory_bytes + bytes <= e->config.memory_bytes;
}

/* Something idle was told to stop already, and will be gone in a moment. */
static bool is_stopping(const struct kn_pool *p)
{
	for (const struct kn_instance *i = kn_pool_first(p); i; i = i->next) {
		if (i->state == KN_INSTANCE_STOPPING)
			return true;
	}
	return false;
}

static bool anything_stops(const struct kn_engine *e)
{
	const struct kn_service *lists[] = { e->all, e->leaving };

	for (size_t l = 0; l < KN_ARRAY_LEN(lists); l++) {
		for (const struct kn_service *s = lists[l]; s; s = s->next) {
			if (is_stopping(s->pool))
				return true;
			for (size_t n = 0; n < s->n_old; n++) {
				if (is_stopping(s->old[n]))
					return true;
			}
		}
	}
	return false;
}

/* Among all functions the instance unused for longest that its function need not keep. */
static struct kn_instance *reclaimable(const struct kn_engine *e)
{
	struct kn_instance *best = NULL;

	for (const struct kn_service *s = e->all; s; s = s->next) {
		if (kn_pool_staying(s->pool) <= kept(s))
			continue;
		struct kn_instance *i = longest_idle(s->pool);
		if (i && (!best || i->idle_since_ns < best->idle_since_ns))
			best = i;
	}
	return best;
}

static void say_full(const struct kn_engine *e, uint64_t bytes, struct kn_err *err)
{
	if (e->n_instances >= e->config.max_instances)
		(void)kn_fail(err, EAGAIN,
			      "this node already runs %u instances, its limit (kilnd "
			      "--max-instances)",
			      e->n_instances);
	else
		(void)kn_fail(err, EAGAIN,
			      "an instance needs %llu MiB, and %llu of this node's %llu MiB for "
			      "instances are taken (kilnd --memory)",
			      (unsigned long long)(bytes >> 20),
			      (unsigned long long)(e->memory_bytes >> 20),
			      (unsigned long long)(e->config.memory_bytes >> 20));
}

enum kn_room kn_engine_room(struct kn_engine *e, struct kn_service *s, const struct kn_function *fn,
			    struct kn_err *err)
{
	uint64_t bytes = kn_engine_charge(e, fn);

	if (fits(e, bytes))
		return KN_ROOM;
	s->starved = true;
	if (anything_stops(e))
		return KN_ROOM_SOON;
	struct kn_instance *i = reclaimable(e);
	if (i) {
		kn_log(KN_INFO, "idle instance makes room", KN_S("instance", i->id),
		       KN_S("for", fn->name));
		kn_instance_retire(i);
		return KN_ROOM_SOON;
	}
	say_full(e, bytes, err);
	return KN_ROOM_NONE;
}

void kn_engine_take_room(struct kn_engine *e, const struct kn_function *fn)
{
	e->n_instances++;
	e->memory_bytes += kn_engine_charge(e, fn);
}

void kn_engine_give_room(struct kn_engine *e, const struct kn_function *fn)
{
	e->n_instances--;
	e->memory_bytes -= kn_engine_charge(e, fn);
	for (struct kn_service *s = e->all; s; s = s->next) {
		if (!s->starved)
			continue;
		s->starved = false;
		kn_service_dispatch(s);
	}
}
