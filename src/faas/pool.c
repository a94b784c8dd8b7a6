#include "faas/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"

/* Requests at once where the deployment says nothing. */
enum { CONCURRENCY_HTTP = 128, CONCURRENCY_STDIO = 8, CONCURRENCY_MESSAGE = 1 };

/* Part of an instance's id that comes from the function's name: paths of sockets are short. */
enum { ID_NAME = 30 };

struct kn_pool {
	struct kn_pool_config config;
	struct kn_arena arena; /* owns the image's strings */
	uint32_t concurrency;
	uint32_t count, starting, leaving;
	struct kn_instance *first;
	bool draining;
	struct kn_timer drain; /* when patience with busy instances ends */
	struct kn_defer empty;
};

/* ---- ids and folders -------------------------------------------------------------------------- */

/* Ids must not come again after a restart, while something of the old instance may still be there. */
static void make_id(const struct kn_function *fn, char out[KN_INSTANCE_ID + 1])
{
	static uint32_t serial;

	if (serial == 0 && getrandom(&serial, sizeof(serial), 0) < 0)
		serial = (uint32_t)kn_wall_ns();
	serial++;
	snprintf(out, KN_INSTANCE_ID + 1, "%.*s-%08x", ID_NAME, fn->name, serial);
}

static int make_folder(const struct kn_pool *p, const char *id, char **ret, struct kn_err *err)
{
	kn_auto(kn_free) char *path = NULL;

	if (asprintf(&path, "%s/%s", p->config.run_dir, id) < 0) {
		path = NULL;
		return kn_fail(err, ENOMEM, "out of memory");
	}
	if (mkdir(path, 0700) < 0)
		return kn_fail(err, errno, "make the run folder '%s': %s", path, strerror(errno));
	*ret = kn_take_ptr(path);
	return 0;
}

static void remove_folder(const struct kn_pool *p, const char *id)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_free) char *path = NULL;

	if (asprintf(&path, "%s/%s", p->config.run_dir, id) < 0) {
		path = NULL;
		return;
	}
	if (kn_remove_tree(AT_FDCWD, path, &err) < 0)
		kn_log(KN_WARN, "run folder stays", KN_S("instance", id), KN_E(&err));
}

int kn_pool_clean(const char *run_dir, struct kn_err *err)
{
	int r = kn_remove_tree(AT_FDCWD, run_dir, err);
	if (r < 0)
		return kn_while(err, "clean run folders of an earlier daemon");
	return kn_mkdirs(AT_FDCWD, run_dir, 0711, err);
}

/* ---- an instance's life ----------------------------------------------------------------------- */

static void forget_idle(struct kn_instance *i)
{
	while (i->n_idle > 0)
		kn_http_client_free(i->idle[--i->n_idle]);
}

static void set_state(struct kn_instance *i, enum kn_instance_state state)
{
	struct kn_pool *p = i->pool;

	p->starting -= i->state == KN_INSTANCE_STARTING;
	p->starting += state == KN_INSTANCE_STARTING;
	p->leaving -= i->state >= KN_INSTANCE_DRAINING;
	p->leaving += state >= KN_INSTANCE_DRAINING;
	i->state = state;
}

static void stop(struct kn_instance *i)
{
	set_state(i, KN_INSTANCE_STOPPING);
	forget_idle(i);
	i->sandbox->ops->stop(i->sandbox, i->pool->config.stop_grace_ms);
}

static void unlink_instance(struct kn_instance *i)
{
	struct kn_pool *p = i->pool;

	*i->prev = i->next;
	if (i->next)
		i->next->prev = i->prev;
	p->count--;
	p->starting -= i->state == KN_INSTANCE_STARTING;
	p->leaving -= i->state >= KN_INSTANCE_DRAINING;
}

static void free_instance(struct kn_instance *i)
{
	forget_idle(i);
	free(i->idle);
	free(i);
}

static void on_ready(struct kn_sandbox *sb, void *arg)
{
	struct kn_instance *i = arg;

	(void)sb;
	if (i->state != KN_INSTANCE_STARTING)
		return;
	i->ready_ns = i->idle_since_ns = kn_now_ns();
	set_state(i, KN_INSTANCE_READY);
	i->pool->config.events.ready(i, i->pool->config.events.arg);
}

static void on_log(struct kn_sandbox *sb, enum kn_stream stream, struct kn_view line, void *arg)
{
	struct kn_instance *i = arg;

	(void)sb;
	i->pool->config.events.log(i, stream, line, i->pool->config.events.arg);
}

static void check_empty(struct kn_pool *p)
{
	if (p->draining && p->count == 0)
		kn_defer_start(p->config.loop, &p->empty);
}

static void on_ended(struct kn_sandbox *sb, const struct kn_err *why, void *arg)
{
	struct kn_instance *i = arg;
	struct kn_pool *p = i->pool;

	(void)sb;
	unlink_instance(i);
	forget_idle(i);
	remove_folder(p, i->id);
	/* Asked to stop after it failed, the driver has nothing to say; the failure has. */
	p->config.events.ended(i, i->failed && why->code == 0 ? &i->why : why, p->config.events.arg);
	free_instance(i);
	check_empty(p);
}

static struct kn_sandbox_config sandbox_config(const struct kn_pool *p, const char *id,
					       const char *run_dir)
{
	const struct kn_function *fn = p->config.fn;

	return (struct kn_sandbox_config){
		.id = id,
		.function = fn->name,
		.run_dir = run_dir,
		.image = p->config.image,
		.argv = p->config.argv,
		.env = p->config.env,
		.cwd = p->config.cwd,
		.user = p->config.user,
		.contract = fn->contract,
		.port = fn->port,
		.ready_path = fn->ready_path,
		.files = p->config.files,
		.n_files = p->config.n_files,
		.read_only_root = fn->read_only_root,
		.ports = fn->ports.n ? fn->ports.at : NULL,
		.memory_bytes = fn->memory_bytes,
		.vcpus = fn->vcpus,
		.cpu_milli = fn->cpu_milli,
		.max_pids = fn->max_pids,
		.egress = fn->egress,
		.snapshot = !fn->snapshot_off,
		.boot_timeout_ms = fn->boot_timeout_ms,
		.ready_timeout_ms = fn->boot_timeout_ms,
		.max_reply_bytes = p->config.max_reply_bytes,
		.time_limit_ms = fn->timeout_ms,
	};
}

static void link_instance(struct kn_pool *p, struct kn_instance *i)
{
	i->next = p->first;
	i->prev = &p->first;
	if (i->next)
		i->next->prev = &i->next;
	p->first = i;
	p->count++;
	p->starting++;
}

int kn_pool_start(struct kn_pool *p, struct kn_err *err)
{
	kn_auto(kn_free) char *run_dir = NULL;
	struct kn_instance *i = calloc(1, sizeof(*i));
	if (!i)
		return kn_fail(err, ENOMEM, "out of memory for an instance");

	i->pool = p;
	i->state = KN_INSTANCE_STARTING;
	i->idle = calloc(p->concurrency, sizeof(i->idle[0]));
	i->started_wall_ns = kn_wall_ns();
	i->began_ns = kn_now_ns();
	make_id(p->config.fn, i->id);
	int r = i->idle ? make_folder(p, i->id, &run_dir, err)
			: kn_fail(err, ENOMEM, "out of memory");
	if (r < 0) {
		free_instance(i);
		return r;
	}
	struct kn_sandbox_config config = sandbox_config(p, i->id, run_dir);
	struct kn_sandbox_events events = {
		.ready = on_ready, .log = on_log, .ended = on_ended, .arg = i
	};
	r = p->config.ops->start(p->config.loop, p->config.driver, &config, &events, &i->sandbox,
				 err);
	if (r < 0) {
		remove_folder(p, i->id);
		free_instance(i);
		return r;
	}
	link_instance(p, i);
	return 0;
}

/* ---- requests --------------------------------------------------------------------------------- */

struct kn_instance *kn_pool_pick(const struct kn_pool *p)
{
	struct kn_instance *best = NULL;

	for (struct kn_instance *i = p->first; i; i = i->next) {
		if (i->state != KN_INSTANCE_READY || i->in_flight >= p->concurrency)
			continue;
		if (!best || i->in_flight < best->in_flight ||
		    (i->in_flight == best->in_flight && i->idle_since_ns > best->idle_since_ns))
			best = i;
	}
	return best;
}

void kn_instance_enter(struct kn_instance *i)
{
	i->in_flight++;
}

void kn_instance_leave(struct kn_instance *i)
{
	i->in_flight--;
	i->served++;
	i->idle_since_ns = kn_now_ns();
	if (i->state == KN_INSTANCE_DRAINING && i->in_flight == 0)
		stop(i);
}

void kn_instance_fail(struct kn_instance *i, const struct kn_err *why)
{
	if (i->state != KN_INSTANCE_READY)
		return;
	i->failed = true;
	i->why = *why;
	set_state(i, KN_INSTANCE_DRAINING);
	if (i->in_flight == 0)
		stop(i);
}

/* A pool that drains has set its patience already. */
static void start_patience(struct kn_pool *p)
{
	uint64_t due = kn_now_ns() + p->config.drain_ms * KN_NS_PER_MS;

	if (!p->draining && kn_timer_start(p->config.loop, &p->drain, due, NULL) < 0)
		p->drain.call(&p->drain); /* no memory for patience */
}

void kn_instance_retire(struct kn_instance *i)
{
	if (i->state >= KN_INSTANCE_DRAINING)
		return;
	if (i->in_flight == 0) {
		stop(i);
		return;
	}
	set_state(i, KN_INSTANCE_DRAINING);
	start_patience(i->pool);
}

int kn_instance_connect(struct kn_instance *i, bool fresh, struct kn_http_client **ret,
			bool *ret_kept, struct kn_err *err)
{
	int fd;

	if (!fresh && i->n_idle > 0) {
		*ret = i->idle[--i->n_idle];
		*ret_kept = true;
		return 0;
	}
	int r = i->sandbox->ops->connect(i->sandbox, &fd, err);
	if (r < 0)
		return kn_while(err, "connect to instance %s", i->id);
	r = kn_http_client_new(i->pool->config.loop, fd, ret, err);
	if (r < 0)
		return r;
	*ret_kept = false;
	return 0;
}

/* The function closed a kept connection. */
static void on_idle_closed(struct kn_http_client *c, void *arg)
{
	struct kn_instance *i = arg;

	for (size_t at = 0; at < i->n_idle; at++) {
		if (i->idle[at] != c)
			continue;
		memmove(&i->idle[at], &i->idle[at + 1], (--i->n_idle - at) * sizeof(i->idle[0]));
		break;
	}
	kn_http_client_free(c);
}

void kn_instance_keep(struct kn_instance *i, struct kn_http_client *c)
{
	if (i->state != KN_INSTANCE_READY || i->n_idle >= i->pool->concurrency) {
		kn_http_client_free(c);
		return;
	}
	kn_http_client_on_close(c, on_idle_closed, i);
	i->idle[i->n_idle++] = c;
}

const char *kn_instance_state_name(const struct kn_instance *i)
{
	switch (i->state) {
	case KN_INSTANCE_STARTING:
		return "starting";
	case KN_INSTANCE_READY:
		return i->in_flight ? "busy" : "ready";
	case KN_INSTANCE_DRAINING:
		return "draining";
	case KN_INSTANCE_STOPPING:
		break;
	}
	return "stopping";
}

/* ---- the pool's life -------------------------------------------------------------------------- */

static void on_drain_over(struct kn_timer *t)
{
	struct kn_pool *p = kn_container_of(t, struct kn_pool, drain);

	for (struct kn_instance *i = p->first; i; i = i->next) {
		if (i->state == KN_INSTANCE_DRAINING) {
			kn_log(KN_WARN, "instance stopped under requests", KN_S("instance", i->id),
			       KN_U("in_flight", i->in_flight));
			stop(i);
		}
	}
}

static void on_empty(struct kn_defer *d)
{
	struct kn_pool *p = kn_container_of(d, struct kn_pool, empty);

	p->config.events.empty(p, p->config.events.arg);
}

void kn_pool_drain(struct kn_pool *p)
{
	struct kn_instance *next;

	if (p->draining)
		return;
	p->draining = true;
	for (struct kn_instance *i = p->first; i; i = next) {
		next = i->next;
		if (i->state == KN_INSTANCE_READY && i->in_flight > 0)
			set_state(i, KN_INSTANCE_DRAINING);
		else if (i->state != KN_INSTANCE_STOPPING)
			stop(i);
	}
	uint64_t due = kn_now_ns() + p->config.drain_ms * KN_NS_PER_MS;
	if (kn_timer_start(p->config.loop, &p->drain, due, NULL) < 0)
		on_drain_over(&p->drain); /* no memory for patience */
	check_empty(p);
}

static char *copy(struct kn_arena *a, const char *s, bool *failed)
{
	char *c = s ? kn_arena_copy(a, s, strlen(s)) : NULL;

	*failed |= s && !c;
	return c;
}

static const char *const *copy_list(struct kn_arena *a, const char *const *list, bool *failed)
{
	size_t n = 0;

	if (!list)
		return NULL;
	while (list[n])
		n++;
	const char **to = kn_arena_alloc(a, (n + 1) * sizeof(*to));
	*failed |= !to;
	for (size_t i = 0; to && i < n; i++)
		to[i] = copy(a, list[i], failed);
	return to;
}

static const struct kn_sandbox_file *copy_files(struct kn_arena *a,
						const struct kn_pool_config *from, bool *failed)
{
	if (from->n_files == 0)
		return NULL;
	struct kn_sandbox_file *to = kn_arena_alloc(a, from->n_files * sizeof(*to));
	*failed |= !to;
	for (size_t i = 0; to && i < from->n_files; i++) {
		const struct kn_sandbox_file *f = &from->files[i];
		char *bytes = kn_arena_copy(a, f->bytes.ptr, f->bytes.len);
		*failed |= !bytes;
		to[i] = (struct kn_sandbox_file){ .path = copy(a, f->path, failed),
						  .bytes = { bytes, bytes ? f->bytes.len : 0 },
						  .mode = f->mode };
	}
	return to;
}

static uint32_t concurrency_of(const struct kn_function *fn)
{
	if (fn->concurrency)
		return fn->concurrency;
	switch (fn->contract) {
	case KN_CONTRACT_HTTP:
		return CONCURRENCY_HTTP;
	case KN_CONTRACT_STDIO:
		return CONCURRENCY_STDIO;
	case KN_CONTRACT_MESSAGE:
	case KN_CONTRACT_FRAMES:
		break;
	}
	return CONCURRENCY_MESSAGE;
}

int kn_pool_new(const struct kn_pool_config *config, struct kn_pool **ret, struct kn_err *err)
{
	bool failed = false;
	struct kn_pool *p = calloc(1, sizeof(*p));
	if (!p)
		return kn_fail(err, ENOMEM, "out of memory for a pool");

	kn_arena_init(&p->arena);
	p->config = *config;
	p->config.fn = kn_function_ref(config->fn);
	p->config.image = copy(&p->arena, config->image, &failed);
	p->config.argv = copy_list(&p->arena, config->argv, &failed);
	p->config.env = copy_list(&p->arena, config->env, &failed);
	p->config.cwd = copy(&p->arena, config->cwd, &failed);
	p->config.user = copy(&p->arena, config->user, &failed);
	p->config.files = copy_files(&p->arena, config, &failed);
	p->config.run_dir = copy(&p->arena, config->run_dir, &failed);
	p->concurrency = concurrency_of(config->fn);
	p->drain.call = on_drain_over;
	p->empty.call = on_empty;
	if (failed) {
		kn_pool_free(p);
		return kn_fail(err, ENOMEM, "out of memory for a pool");
	}
	*ret = p;
	return 0;
}

void kn_pool_free(struct kn_pool *p)
{
	if (!p)
		return;
	kn_timer_stop(&p->drain);
	kn_defer_stop(&p->empty);
	while (p->first) {
		struct kn_instance *i = p->first;
		unlink_instance(i);
		remove_folder(p, i->id);
		free_instance(i);
	}
	for (size_t n = 0; n < p->config.n_files && p->config.files; n++) /* secrets */
		explicit_bzero((char *)(uintptr_t)p->config.files[n].bytes.ptr,
			       p->config.files[n].bytes.len);
	kn_function_unref(p->config.fn);
	kn_arena_fini(&p->arena);
	free(p);
}

struct kn_function *kn_pool_function(const struct kn_pool *p)
{
	return p->config.fn;
}

uint32_t kn_pool_count(const struct kn_pool *p)
{
	return p->count;
}

uint32_t kn_pool_starting(const struct kn_pool *p)
{
	return p->starting;
}

uint32_t kn_pool_leaving(const struct kn_pool *p)
{
	return p->leaving;
}

struct kn_instance *kn_pool_first(const struct kn_pool *p)
{
	return p->first;
}

uint32_t kn_pool_concurrency(const struct kn_pool *p)
{
	return p->concurrency;
}
