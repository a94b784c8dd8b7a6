/*
 * What the tests of the engine share: an engine on the fake driver, requests as the gateway makes
 * them, and what came of them and of updates.
 */
#pragma once

#include "play.h"

#include "faas/engine.h"
#include "faas/pool.h"

enum { MANY = 500, IDLE_MS = 60 * 1000 };

/* A request as the gateway would make it, and what came of it. */
struct request {
	struct kn_call call;
	bool granted, lost;
	int refused; /* status */
	unsigned retry_after;
	char why[KN_ERR_TEXT];
};

static struct kn_engine *engine;

/* How updates went. */
static struct {
	int new, old;
	char why[KN_ERR_TEXT];
} rolled;

static void on_rolled(struct kn_function *fn, const struct kn_err *why, void *arg)
{
	(void)arg;
	assert_string_equal(fn->name, "hello");
	rolled.new += why == NULL;
	rolled.old += why != NULL;
	if (why)
		snprintf(rolled.why, sizeof(rolled.why), "%s", kn_err_text(why));
}

static void on_granted(struct kn_call *call)
{
	kn_container_of(call, struct request, call)->granted = true;
}

static void on_refused(struct kn_call *call, int status, unsigned retry_after_s,
		       const struct kn_err *why)
{
	struct request *r = kn_container_of(call, struct request, call);

	r->refused = status;
	r->retry_after = retry_after_s;
	snprintf(r->why, sizeof(r->why), "%s", kn_err_text(why));
}

static void on_lost(struct kn_call *call, const struct kn_err *why)
{
	struct request *r = kn_container_of(call, struct request, call);

	r->lost = true;
	snprintf(r->why, sizeof(r->why), "%s", kn_err_text(why));
}

static int setup(void **state)
{
	struct kn_engine_config config = KN_ENGINE_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;

	play_setup(state);
	rolled = (typeof(rolled)){ .new = 0 };
	config.idle_ms = IDLE_MS;
	config.memory_bytes = UINT64_C(1) << 30;
	config.run_dir = play.dir;
	config.max_instances = 4;
	config.log_bytes = 4096;
	config.drain_ms = 1000;
	config.classes[KN_CLASS_MICROVM] = (struct kn_engine_class){ .ops = &kn_sandbox_fake,
								     .driver = &play.driver,
								     .hypervisor = "fake",
								     .no_network = "no nftables here" };
	config.classes[KN_CLASS_CONTAINER] = (struct kn_engine_class){ .why = "it comes later" };
	config.classes[KN_CLASS_NF] =
		(struct kn_engine_class){ .ops = &kn_sandbox_fake_frames, .driver = &play.driver };
	assert_ok(kn_engine_new(play.loop, &config, &engine, &err), &err);
	kn_engine_on_rolled(engine, on_rolled, NULL);
	return 0;
}

static void note_done(void *arg)
{
	*(bool *)arg = true;
}

static int teardown(void **state)
{
	bool done = false;

	kn_engine_drain(engine, note_done, &done);
	for (int i = 0; i < 5 && !done; i++)
		play_pass(1000);
	assert_true(done);
	assert_int_equal(play_folders(), 0);
	assert_int_equal(play.fake.starts - play.fake.ends - (play.fake.refuse_start ? 1 : 0), 0);
	kn_engine_free(engine);
	return play_teardown(state);
}

static inline struct kn_service *deploy(struct kn_function *fn)
{
	static const struct kn_engine_image IMAGE = { .path = "/image" };
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_engine_put(engine, fn, &IMAGE, &err), &err);
	struct kn_service *s = kn_engine_find(engine, kn_view_of(fn->name));
	assert_non_null(s);
	kn_function_unref(fn);
	return s;
}

static inline void ask(struct kn_service *s, struct request *r)
{
	*r = (struct request){
		.call = { .granted = on_granted, .refused = on_refused, .lost = on_lost }
	};
	bool waits = kn_engine_acquire(s, &r->call);
	assert_int_equal(waits, !r->granted && !r->refused);
}

static struct kn_function_live live_of(const char *name)
{
	struct kn_function_live live;
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_engine_live(engine, kn_view_of(name), true, &live, &err), &err);
	return live;
}

/* Ask, and be served at once. */
static inline void serve(struct kn_service *s)
{
	struct request r;

	ask(s, &r);
	assert_true(r.granted);
	kn_engine_release(&r.call, 200, false);
}

/* Ask a function that sleeps. */
static inline void wake(struct kn_service *s)
{
	struct request r;

	ask(s, &r);
	assert_false(r.granted);
	play_pass(5);
	assert_true(r.granted);
	kn_engine_release(&r.call, 200, false);
}

#define ENGINE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
