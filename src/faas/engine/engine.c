#include "faas/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/time.h"
#include "faas/engine/service.h"

/* ---- a service's life ------------------------------------------------------------------------- */

static void check_drained(struct kn_engine *e)
{
	if (e->draining && !e->all && !e->leaving && e->drain_done)
		kn_defer_start(e->loop, &e->drained);
}

static void unlink_service(struct kn_service *s)
{
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
}

static void link_service(struct kn_service **list, struct kn_service *s)
{
	s->next = *list;
	s->prev = list;
	if (s->next)
		s->next->prev = &s->next;
	*list = s;
}

static void free_service(struct kn_service *s)
{
	kn_timer_stop(&s->retry);
	kn_timer_stop(&s->idle);
	kn_timer_stop(&s->coming.retry);
	kn_defer_stop(&s->coming.step);
	kn_defer_stop(&s->gone);
	for (size_t n = 0; n < s->n_old; n++)
		kn_pool_free(s->old[n]);
	free(s->old);
	kn_pool_free(s->coming.pool);
	kn_function_unref(s->coming.fn);
	kn_pool_free(s->pool);
	kn_series_fini(&s->ended);
	kn_log_ring_fini(&s->log);
	kn_function_unref(s->fn);
	free(s);
}

static void on_gone(struct kn_defer *d)
{
	struct kn_service *s = kn_container_of(d, struct kn_service, gone);
	struct kn_engine *e = s->engine;
	void (*removed)(void *) = s->removed;
	void *removed_arg = s->removed_arg;

	unlink_service(s);
	free_service(s);
	if (removed)
		removed(removed_arg);
	check_drained(e);
}

void kn_service_check_gone(struct kn_service *s)
{
	if (s->leaving && s->in_flight == 0 && s->n_old == 0 && kn_pool_count(s->pool) == 0)
		kn_defer_start(s->engine->loop, &s->gone);
}

static void on_empty(struct kn_pool *p, void *arg)
{
	struct kn_service *s = arg;

	for (size_t n = 0; n < s->n_old; n++) {
		if (s->old[n] == p) {
			s->old[n] = s->old[--s->n_old];
			kn_pool_free(p);
			break;
		}
	}
	if (s->leaving)
		kn_service_check_gone(s);
	else
		kn_service_dispatch(s);
}

/* ---- functions -------------------------------------------------------------------------------- */

struct kn_service *kn_engine_find(struct kn_engine *e, struct kn_view name)
{
	uint64_t hash = kn_hash(name.ptr, name.len);
	struct kn_service *s = e->buckets[hash % KN_ENGINE_BUCKETS];

	while (s && !(s->hash == hash && kn_view_is(kn_view_of(s->fn->name), name)))
		s = s->next_in_bucket;
	return s;
}

static struct kn_service *find_const(const struct kn_engine *e, struct kn_view name)
{
	return kn_engine_find((struct kn_engine *)(uintptr_t)e, name);
}

static int find_or_fail(const struct kn_engine *e, struct kn_view name, struct kn_service **ret,
			struct kn_err *err)
{
	*ret = find_const(e, name);
	return *ret ? 0
		    : kn_fail(err, ENOENT, "there is no function '%.*s'", (int)name.len, name.ptr);
}

const struct kn_function *kn_service_function(const struct kn_service *s)
{
	return s->fn;
}

size_t kn_engine_count(const struct kn_engine *e)
{
	return e->n_services;
}

const struct kn_engine_class *kn_engine_class(const struct kn_engine *e, enum kn_class c)
{
	return &e->config.classes[c];
}

int kn_engine_check(const struct kn_engine *e, const struct kn_function *fn, struct kn_err *err)
{
	const struct kn_engine_class *c = kn_engine_class(e, fn->class);

	if (!c->ops)
		return kn_fail(err, ENOTSUP, "this node cannot run class '%s': %s",
			       kn_class_name(fn->class), c->why ? c->why : "no driver");
	if (fn->egress && c->no_network)
		return kn_fail(err, ENOTSUP, "annotation 'kiln.egress': %s", c->no_network);
	uint64_t bytes = kn_engine_charge(e, fn);
	if (e->config.memory_bytes && bytes > e->config.memory_bytes)
		return kn_fail(err, EINVAL,
			       "an instance of '%s' needs %llu MiB, and this node gives %llu MiB to "
			       "all instances: lower limits.memory, or raise kilnd --memory",
			       fn->name, (unsigned long long)(bytes >> 20),
			       (unsigned long long)(e->config.memory_bytes >> 20));
	/* A driver either connects or takes messages; a function that needs the other never works. */
	bool frames = fn->contract == KN_CONTRACT_FRAMES;
	if (frames != !kn_sandbox_callable(c->ops))
		return kn_fail(err, ENOTSUP, "class '%s' takes functions that %s",
			       kn_class_name(fn->class),
			       frames ? "are called, not chains of packet operators" :
					"take frames: build them with kiln build FILE.yaml");
	bool messages = fn->contract == KN_CONTRACT_MESSAGE || frames;
	if (messages != (c->ops->connect == NULL))
		return kn_fail(err, ENOTSUP, "class '%s' takes functions that %s",
			       kn_class_name(fn->class),
			       messages ? "speak HTTP or use standard input and output" :
					  "take messages: build them with kiln build");
	return 0;
}

static int make_pool(struct kn_service *s, struct kn_function *fn,
		     const struct kn_engine_image *image, struct kn_pool **ret, struct kn_err *err)
{
	const struct kn_engine *e = s->engine;
	const struct kn_engine_class *c = kn_engine_class(e, fn->class);
	struct kn_pool_config config = {
		.loop = e->loop,
		.ops = c->ops,
		.driver = c->driver,
		.fn = fn,
		.image = c->raw_image ? fn->image : image->path,
		.argv = image->argv,
		.env = image->env,
		.cwd = image->cwd,
		.user = image->user,
		.files = image->files,
		.n_files = image->n_files,
		.run_dir = e->run_dir,
		.max_reply_bytes = e->config.max_reply_bytes,
		.stop_grace_ms = e->config.stop_grace_ms,
		.drain_ms = e->config.drain_ms,
		.events = { .ready = kn_service_on_ready,
			    .ended = kn_service_on_ended,
			    .log = kn_service_on_log,
			    .empty = on_empty,
			    .arg = s },
	};
	return kn_pool_new(&config, ret, err);
}

static int make_service(struct kn_engine *e, struct kn_function *fn,
			const struct kn_engine_image *image, struct kn_err *err)
{
	struct kn_service *s = calloc(1, sizeof(*s));
	if (!s)
		return kn_fail(err, ENOMEM, "out of memory for a function");

	s->engine = e;
	s->last = &s->first;
	s->retry.call = kn_service_on_retry;
	s->idle.call = kn_service_on_idle;
	s->coming.retry.call = kn_roll_on_retry;
	s->coming.step.call = kn_roll_on_step;
	s->gone.call = on_gone;
	s->asked = -1;
	s->used_ns = kn_now_ns();
	kn_log_ring_init(&s->log, e->loop, e->config.log_bytes);
	int r = make_pool(s, fn, image, &s->pool, err);
	if (r < 0) {
		free(s);
		return r;
	}
	s->fn = kn_function_ref(fn);
	s->hash = kn_hash(fn->name, strlen(fn->name));
	s->next_in_bucket = e->buckets[s->hash % KN_ENGINE_BUCKETS];
	e->buckets[s->hash % KN_ENGINE_BUCKETS] = s;
	link_service(&e->all, s);
	e->n_services++;
	kn_service_dispatch(s);
	return 0;
}

static int replace(struct kn_service *s, struct kn_function *fn,
		   const struct kn_engine_image *image, struct kn_err *err)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	int r = make_pool(s, fn, image, &pool, err);

	if (r == 0)
		r = kn_roll_begin(s, fn, pool, err);
	if (r == 0)
		pool = NULL;
	return r;
}

int kn_engine_put(struct kn_engine *e, struct kn_function *fn, const struct kn_engine_image *image,
		  struct kn_err *err)
{
	int r = kn_engine_check(e, fn, err);

	if (r < 0)
		return r;
	if (e->draining)
		return kn_fail(err, ESHUTDOWN, "this node is shutting down");
	struct kn_service *s = kn_engine_find(e, kn_view_of(fn->name));
	return s ? replace(s, fn, image, err) : make_service(e, fn, image, err);
}

bool kn_engine_rolling(const struct kn_engine *e, struct kn_view name)
{
	const struct kn_service *s = find_const(e, name);

	return s && s->coming.pool;
}

void kn_engine_on_rolled(struct kn_engine *e, kn_engine_rolled call, void *arg)
{
	e->rolled = call;
	e->rolled_arg = arg;
}

static void remove_service(struct kn_service *s, void (*done)(void *arg), void *arg)
{
	struct kn_engine *e = s->engine;
	struct kn_err why = KN_ERR_INIT;
	struct kn_service **at = &e->buckets[s->hash % KN_ENGINE_BUCKETS];

	while (*at != s)
		at = &(*at)->next_in_bucket;
	*at = s->next_in_bucket;
	unlink_service(s);
	link_service(&e->leaving, s);
	e->n_services--;
	s->leaving = true;
	s->removed = done;
	s->removed_arg = arg;
	kn_timer_stop(&s->retry);
	kn_timer_stop(&s->idle);
	kn_log_ring_fini(&s->log);
	kn_log_ring_init(&s->log, e->loop, 0);
	(void)kn_fail(&why, ENOENT, "the function '%s' was removed", s->fn->name);
	kn_service_refuse_all(s, e->draining ? 503 : 404, 0, &why);
	kn_roll_abandon(s);
	kn_pool_drain(s->pool);
}

int kn_engine_remove(struct kn_engine *e, struct kn_view name, void (*done)(void *arg), void *arg,
		     struct kn_err *err)
{
	struct kn_service *s;
	int r = find_or_fail(e, name, &s, err);

	if (r < 0)
		return r;
	remove_service(s, done, arg);
	return 0;
}

/* ---- what people ask -------------------------------------------------------------------------- */

static void add_usage(struct kn_function_live *live, const struct kn_pool *p)
{
	for (const struct kn_instance *i = kn_pool_first(p); i; i = i->next) {
		struct kn_sandbox_stats stats;
		if (i->sandbox->ops->stats &&
		    i->sandbox->ops->stats(i->sandbox, &stats, NULL) == 0) {
			live->memory_bytes += stats.memory_bytes;
			live->cpu_ns += stats.cpu_ns;
		}
	}
}

static void add_pool(struct kn_function_live *live, const struct kn_pool *p, bool usage)
{
	if (usage)
		add_usage(live, p);
	for (const struct kn_instance *i = kn_pool_first(p); i; i = i->next) {
		live->instances++;
		live->ready += i->state == KN_INSTANCE_READY;
		live->busy += i->in_flight > 0;
	}
}

int kn_engine_live(const struct kn_engine *e, struct kn_view name, bool usage,
		   struct kn_function_live *ret, struct kn_err *err)
{
	struct kn_service *s;
	int r = find_or_fail(e, name, &s, err);

	if (r < 0)
		return r;
	const struct kn_engine_class *c = kn_engine_class(e, s->fn->class);
	*ret = (struct kn_function_live){
		.invocations = s->counts.came,
		.failed = s->counts.failed,
		.cold = s->counts.calls[KN_COLD],
		.prewarmed = s->counts.calls[KN_PREWARMED],
		.warm = s->counts.calls[KN_WARM],
		.waiting = s->waiting,
		.wanted = kn_service_floor(s),
		.hypervisor = c->hypervisor,
		.hypervisor_why = c->why,
		.n_phases = s->n_cold,
		.last_cold_ns = s->cold_wall_ns,
		.warm_p50_ns = kn_counts_median(&s->counts),
		.last_error = s->last_error[0] ? s->last_error : NULL,
		.update = s->coming.pool ? "running" : s->roll_error[0] ? "failed" : NULL,
		.update_error = s->roll_error[0] ? s->roll_error : NULL,
	};
	memcpy(ret->phases, s->cold, s->n_cold * sizeof(s->cold[0]));
	add_pool(ret, s->pool, usage);
	if (s->coming.pool)
		add_pool(ret, s->coming.pool, usage);
	for (size_t n = 0; n < s->n_old; n++)
		add_pool(ret, s->old[n], usage);
	return 0;
}

static void visit_instances(const struct kn_pool *p,
			    void (*each)(const struct kn_engine_instance *i, void *arg), void *arg)
{
	for (const struct kn_instance *i = kn_pool_first(p); i; i = i->next) {
		struct kn_engine_instance out = {
			.id = i->id,
			.state = kn_instance_state_name(i),
			.started_wall_ns = i->started_wall_ns,
			.served = i->served,
			.in_flight = i->in_flight,
			.start_ns = i->ready_ns ? i->ready_ns - i->began_ns : 0,
		};
		struct kn_sandbox_stats stats;
		if (i->sandbox->ops->stats &&
		    i->sandbox->ops->stats(i->sandbox, &stats, NULL) == 0) {
			out.memory_bytes = stats.memory_bytes;
			out.cpu_ns = stats.cpu_ns;
		}
		each(&out, arg);
	}
}

int kn_engine_instances(const struct kn_engine *e, struct kn_view name,
			void (*each)(const struct kn_engine_instance *i, void *arg), void *arg,
			struct kn_err *err)
{
	struct kn_service *s;
	int r = find_or_fail(e, name, &s, err);

	if (r < 0)
		return r;
	visit_instances(s->pool, each, arg);
	if (s->coming.pool)
		visit_instances(s->coming.pool, each, arg);
	for (size_t n = 0; n < s->n_old; n++)
		visit_instances(s->old[n], each, arg);
	return 0;
}

int kn_engine_logs(const struct kn_engine *e, struct kn_view name, size_t tail, uint64_t since_ns,
		   const char *instance, void (*each)(const struct kn_log_line *line, void *arg),
		   void *arg, struct kn_err *err)
{
	struct kn_service *s;
	int r = find_or_fail(e, name, &s, err);

	if (r < 0)
		return r;
	kn_log_ring_each(&s->log, tail, since_ns, instance, each, arg);
	return 0;
}

int kn_engine_follow(struct kn_engine *e, struct kn_view name, struct kn_log_follow *f,
		     struct kn_err *err)
{
	struct kn_service *s;
	int r = find_or_fail(e, name, &s, err);

	if (r < 0)
		return r;
	kn_log_ring_follow(&s->log, f);
	return 0;
}

/* ---- the engine's life ------------------------------------------------------------------------ */

static void on_drained(struct kn_defer *d)
{
	struct kn_engine *e = kn_container_of(d, struct kn_engine, drained);
	void (*done)(void *arg) = e->drain_done;

	e->drain_done = NULL;
	if (done)
		done(e->drain_arg);
}

void kn_engine_drain(struct kn_engine *e, void (*done)(void *arg), void *arg)
{
	e->draining = true;
	e->drain_done = done;
	e->drain_arg = arg;
	while (e->all)
		remove_service(e->all, NULL, NULL);
	check_drained(e);
}

int kn_engine_new(struct kn_loop *loop, const struct kn_engine_config *config,
		  struct kn_engine **ret, struct kn_err *err)
{
	int r = kn_pool_clean(config->run_dir, err);
	if (r < 0)
		return r;

	struct kn_engine *e = calloc(1, sizeof(*e));
	if (!e)
		return kn_fail(err, ENOMEM, "out of memory for the engine");
	e->loop = loop;
	e->config = *config;
	e->run_dir = strdup(config->run_dir);
	e->config.run_dir = e->run_dir;
	e->drained.call = on_drained;
	if (!e->run_dir) {
		free(e);
		return kn_fail(err, ENOMEM, "out of memory for the engine");
	}
	*ret = e;
	return 0;
}

static void free_list(struct kn_service **list)
{
	while (*list) {
		struct kn_service *s = *list;
		unlink_service(s);
		free_service(s);
	}
}

void kn_engine_free(struct kn_engine *e)
{
	if (!e)
		return;
	kn_defer_stop(&e->drained);
	free_list(&e->all);
	free_list(&e->leaving);
	free(e->phase_times);
	free(e->run_dir);
	free(e);
}
