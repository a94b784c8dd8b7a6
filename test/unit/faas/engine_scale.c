#include "engine_play.h"

/* ---- idling ----------------------------------------------------------------------------------- */

/* n instances, each with a request. */
static void spread(struct kn_service *s, struct request *r, int n)
{
	for (int i = 0; i < n; i++)
		ask(s, &r[i]);
	play_pass(5);
	play_pass(5);
	for (int i = 0; i < n; i++)
		assert_true(r[i].granted);
}

static void idle_instances_stop_one_after_the_other_down_to_the_minimum(void **state)
{
	struct kn_function *fn = play_function("hello");
	struct request r[3];

	(void)state;
	fn->concurrency = 1;
	fn->scale_min = 1;
	fn->scale_max = 3;
	struct kn_service *s = deploy(fn);
	spread(s, r, 3);
	for (int i = 0; i < 3; i++) {
		kn_engine_release(&r[i].call, 200, false);
		play_pass(10 * 1000);
	}
	assert_int_equal(play.fake.stops, 0);
	play_pass(IDLE_MS - 30 * 1000);
	assert_int_equal(play.fake.stops, 1);
	play_pass(9 * 1000);
	assert_int_equal(play.fake.stops, 1);
	play_pass(1000);
	assert_int_equal(play.fake.stops, 2);
	play_pass(10 * IDLE_MS);
	assert_int_equal(play.fake.stops, 2);
	assert_int_equal(live_of("hello").ready, 1);
	serve(s);
}

static void idle_function_goes_to_zero_and_comes_back(void **state)
{
	struct kn_function *fn = play_function("hello");

	(void)state;
	fn->idle_ms = 1000; /* its own, not the node's */
	struct kn_service *s = deploy(fn);
	wake(s);
	play_pass(999);
	serve(s); /* counts from the last request */
	play_pass(999);
	assert_int_equal(live_of("hello").instances, 1);
	play_pass(1);
	assert_int_equal(live_of("hello").instances, 0);
	wake(s);
	assert_int_equal(play.fake.starts, 2);
	assert_int_equal(live_of("hello").failed, 0);
}

/* The same instant for the request and for the timer, in either order. */
static void request_that_comes_as_the_function_falls_asleep_is_served(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct request r;

	(void)state;
	for (int round = 0; round < 2; round++) {
		play.fake.end_ns = 20 * KN_NS_PER_MS;
		wake(s);
		kn_fake_advance(IDLE_MS * KN_NS_PER_MS);
		if (round == 0) {
			ask(s, &r); /* before the loop runs the timer */
			play_settle();
			assert_true(r.granted);
			assert_int_equal(play.fake.stops, 0);
		} else {
			play_settle(); /* its instance is stopping, not gone */
			assert_int_equal(play.fake.stops, 1);
			ask(s, &r);
			play_pass(5);
			assert_true(r.granted);
			assert_int_equal(r.call.start, KN_COLD);
		}
		kn_engine_release(&r.call, 200, false);
		play_pass(IDLE_MS);
		play_pass(20);
		play.fake.stops = 0;
	}
	assert_int_equal(live_of("hello").failed, 0);
}

static void requests_without_end_keep_an_instance(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct request r;

	(void)state;
	ask(s, &r);
	play_pass(5);
	play_pass(100 * IDLE_MS);
	assert_int_equal(play.fake.stops, 0);
	kn_engine_release(&r.call, 200, false);
	play_pass(IDLE_MS);
	assert_int_equal(play.fake.stops, 1);
}

static void scale_zero_goes_below_the_minimum_and_wakes_to_it(void **state)
{
	struct kn_function *fn = play_function("hello");

	(void)state;
	fn->scale_min = 2;
	fn->scale_max = 2;
	fn->scale_zero = true;
	struct kn_service *s = deploy(fn);
	play_pass(5);
	assert_int_equal(live_of("hello").ready, 2);
	play_pass(IDLE_MS);
	play_settle();
	assert_int_equal(live_of("hello").instances, 0);
	play_pass(10 * IDLE_MS);
	assert_int_equal(play.fake.starts, 2);
	wake(s);
	play_pass(5);
	assert_int_equal(live_of("hello").ready, 2);
}

/* ---- scaling by hand -------------------------------------------------------------------------- */

static void scale(const char *name, uint32_t n)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_engine_scale(engine, kn_view_of(name), n, &err), &err);
	play_pass(5);
}

static void scaling_holds_until_the_function_idles(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));

	(void)state;
	scale("hello", 3); /* beyond scale.max */
	assert_int_equal(live_of("hello").ready, 3);
	assert_int_equal(live_of("hello").wanted, 3);
	play_pass(IDLE_MS / 2);
	serve(s);
	play_pass(IDLE_MS / 2 + 1000); /* two of them idle, the function does not */
	assert_int_equal(live_of("hello").ready, 3);
	play_pass(IDLE_MS / 2);
	play_pass(IDLE_MS);
	assert_int_equal(live_of("hello").instances, 0);
	assert_int_equal(live_of("hello").wanted, 0);
}

static void scaling_down_stops_the_idle_first_and_lets_the_busy_finish(void **state)
{
	struct kn_function *fn = play_function("hello");
	struct request r[3];

	(void)state;
	fn->concurrency = 1;
	fn->scale_max = 3;
	struct kn_service *s = deploy(fn);
	spread(s, r, 3);
	kn_engine_release(&r[1].call, 200, false);
	scale("hello", 1);
	assert_int_equal(play.fake.ends, 1);
	assert_int_equal(live_of("hello").ready, 1);
	assert_false(r[0].lost || r[2].lost);
	kn_engine_release(&r[0].call, 200, false);
	kn_engine_release(&r[2].call, 200, false);
	play_settle();
	assert_int_equal(live_of("hello").instances, 1);
}

static void scaling_to_zero_holds_until_the_next_request(void **state)
{
	struct kn_function *fn = play_function("hello");

	(void)state;
	fn->scale_min = 1;
	struct kn_service *s = deploy(fn);
	play_pass(5);
	scale("hello", 0);
	play_pass(IDLE_MS);
	assert_int_equal(live_of("hello").instances, 0);
	wake(s);
	play_pass(2 * IDLE_MS);
	assert_int_equal(live_of("hello").ready, 1);
	struct kn_err err = KN_ERR_INIT;
	assert_fails(kn_engine_scale(engine, KN_VIEW("nobody"), 1, &err), ENOENT, &err, "nobody");
}

static void target_starts_another_before_the_first_is_full(void **state)
{
	struct kn_function *fn = play_function("hello");
	struct request r[3];

	(void)state;
	fn->concurrency = 100;
	fn->scale_max = 2;
	fn->scale_target = 2;
	struct kn_service *s = deploy(fn);
	spread(s, r, 2);
	assert_int_equal(play.fake.starts, 1);
	ask(s, &r[2]);
	assert_int_equal(play.fake.starts, 2);
	for (int i = 0; i < 3; i++)
		kn_engine_release(&r[i].call, 200, false);
}

/* ---- the node's room -------------------------------------------------------------------------- */

static struct kn_service *deploy_large(const char *name, uint64_t mib)
{
	struct kn_function *fn = play_function(name);

	fn->memory_bytes = mib << 20;
	return deploy(fn);
}

static void idle_instances_make_room_for_others(void **state)
{
	struct kn_service *a = deploy_large("first", 400), *b = deploy_large("second", 400);
	struct kn_service *c = deploy_large("third", 400);
	struct request r, held, refused;

	(void)state;
	play.fake.end_ns = 10 * KN_NS_PER_MS;
	wake(a);
	play_pass(1000);
	wake(b);
	ask(c, &r); /* 1 GiB takes two; `first` was unused for longest */
	play_settle();
	assert_false(r.granted || r.refused);
	assert_int_equal(play.fake.stops, 1);
	assert_int_equal(play.fake.starts, 2); /* never three at once */
	play_pass(10);
	assert_int_equal(play.fake.starts, 3);
	play_pass(5);
	assert_true(r.granted);
	assert_int_equal(live_of("first").instances, 0);
	ask(b, &held);
	assert_true(held.granted);
	ask(a, &refused); /* both others work */
	assert_int_equal(refused.refused, 503);
	assert_non_null(strstr(refused.why, "--memory"));
	assert_int_equal(live_of("first").failed, 1);
	kn_engine_release(&r.call, 200, false);
	kn_engine_release(&held.call, 200, false);
}

static void instances_that_must_be_kept_make_no_room(void **state)
{
	struct kn_function *kept = play_function("kept");
	struct kn_service *s = deploy_large("other", 600);
	struct request r;

	(void)state;
	kept->memory_bytes = UINT64_C(600) << 20;
	kept->scale_min = 1;
	(void)deploy(kept);
	play_pass(5);
	ask(s, &r);
	assert_int_equal(r.refused, 503);
	assert_int_equal(play.fake.stops, 0);
}

static void function_larger_than_the_node_is_refused(void **state)
{
	static const struct kn_engine_image IMAGE = { .path = "/image" };
	kn_auto(kn_function_unref) struct kn_function *fn = play_function("huge");
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	fn->memory_bytes = UINT64_C(2) << 30;
	assert_fails(kn_engine_put(engine, fn, &IMAGE, &err), EINVAL, &err, "limits.memory");
}

static void minimum_that_found_no_room_is_started_when_there_is_some(void **state)
{
	struct kn_service *s = deploy_large("first", 700);
	struct kn_function *fn = play_function("second");
	struct request r;

	(void)state;
	ask(s, &r);
	play_pass(5);
	fn->memory_bytes = UINT64_C(700) << 20;
	fn->scale_min = 1;
	(void)deploy(fn);
	play_pass(5);
	assert_int_equal(live_of("second").instances, 0);
	kn_engine_release(&r.call, 200, false);
	play_pass(IDLE_MS);
	play_pass(5);
	assert_int_equal(live_of("second").ready, 1);
}

static void burst_starts_no_more_than_the_maximum_and_answers_all(void **state)
{
	static struct request r[MANY];
	struct kn_function *fn = play_function("hello");
	int left = MANY;

	(void)state;
	fn->queue = MANY;
	fn->scale_max = 3;
	fn->concurrency = 2;
	struct kn_service *s = deploy(fn);
	for (int i = 0; i < MANY; i++)
		ask(s, &r[i]);
	while (left > 0) {
		play_pass(5);
		for (int i = 0; i < MANY; i++) {
			assert_int_equal(r[i].refused, 0);
			if (!r[i].granted || !r[i].call.instance)
				continue;
			kn_engine_release(&r[i].call, 200, false);
			r[i].call.instance = NULL;
			left--;
		}
	}
	assert_int_equal(play.fake.starts, 3);
}

static void full_queue_says_when_to_come_back(void **state)
{
	struct kn_function *fn = play_function("hello");
	struct request r[12];

	(void)state;
	fn->queue = 10;
	fn->concurrency = 1;
	struct kn_service *s = deploy(fn);
	for (int i = 0; i < 10; i++)
		ask(s, &r[i]);
	play_pass(5);
	for (int i = 0; i < 4; i++) { /* one request takes 2 s */
		play_pass(2000);
		kn_engine_release(&r[i].call, 200, false);
	}
	for (int i = 0; i < 4; i++)
		ask(s, &r[i]);
	ask(s, &r[10]);
	assert_int_equal(r[10].refused, 0);
	ask(s, &r[11]);
	assert_int_equal(r[11].refused, 429);
	assert_in_range(r[11].retry_after, 15, 25);
	for (int i = 4; i < 14; i++)
		kn_engine_release(&r[i < 10 ? i : i == 10 ? 0 : i - 10].call, 200, false);
	kn_engine_release(&r[10].call, 200, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ENGINE(idle_instances_stop_one_after_the_other_down_to_the_minimum),
		ENGINE(idle_function_goes_to_zero_and_comes_back),
		ENGINE(request_that_comes_as_the_function_falls_asleep_is_served),
		ENGINE(requests_without_end_keep_an_instance),
		ENGINE(scale_zero_goes_below_the_minimum_and_wakes_to_it),
		ENGINE(scaling_holds_until_the_function_idles),
		ENGINE(scaling_down_stops_the_idle_first_and_lets_the_busy_finish),
		ENGINE(scaling_to_zero_holds_until_the_next_request),
		ENGINE(target_starts_another_before_the_first_is_full),
		ENGINE(idle_instances_make_room_for_others),
		ENGINE(instances_that_must_be_kept_make_no_room),
		ENGINE(function_larger_than_the_node_is_refused),
		ENGINE(minimum_that_found_no_room_is_started_when_there_is_some),
		ENGINE(burst_starts_no_more_than_the_maximum_and_answers_all),
		ENGINE(full_queue_says_when_to_come_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
