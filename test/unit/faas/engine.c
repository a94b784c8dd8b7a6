#include "engine_play.h"
#include "host/egress.h"

static void first_request_starts_an_instance_and_is_cold(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct request r;

	(void)state;
	assert_int_equal(play.fake.starts, 0);
	ask(s, &r);
	assert_false(r.granted);
	play_pass(5);
	assert_true(r.granted);
	assert_int_equal(r.call.start, KN_COLD);
	assert_string_equal(r.call.phases[0].name, "queue");
	assert_string_equal(r.call.phases[1].name, "boot");
	assert_int_equal(r.call.phases[1].ns, 5 * KN_NS_PER_MS);
	kn_engine_release(&r.call, 200, false);

	ask(s, &r);
	assert_true(r.granted);
	assert_int_equal(r.call.start, KN_WARM);
	assert_int_equal(r.call.n_phases, 1);
	kn_engine_release(&r.call, 200, false);

	struct kn_function_live live = live_of("hello");
	assert_int_equal(live.invocations, 2);
	assert_int_equal(live.cold, 1);
	assert_int_equal(live.warm, 1);
	assert_int_equal(live.failed, 0);
	assert_int_equal(live.ready, 1);
	assert_int_equal(live.busy, 0);
	assert_int_equal(live.memory_bytes, 4096);
	assert_string_equal(live.hypervisor, "fake");
	assert_int_equal(live.n_phases, 1);
}

static void five_hundred_at_once_make_one_start(void **state)
{
	static struct request r[MANY];
	struct kn_function *fn = play_function("hello");

	(void)state;
	fn->queue = MANY;
	struct kn_service *s = deploy(fn);
	for (int i = 0; i < MANY; i++)
		ask(s, &r[i]);
	assert_int_equal(play.fake.starts, 1);
	assert_int_equal(live_of("hello").waiting, MANY);
	play_pass(5);
	for (int i = 0; i < MANY; i++) {
		assert_true(r[i].granted); /* in order, four at a time */
		if (i + 4 < MANY)
			assert_false(r[i + 4].granted);
		kn_engine_release(&r[i].call, 200, false);
	}
	assert_int_equal(play.fake.starts, 1);
	assert_int_equal(live_of("hello").cold, MANY);
}

static void queue_is_bounded(void **state)
{
	struct kn_function *fn = play_function("hello");
	struct request r[4];

	(void)state;
	fn->queue = 3;
	struct kn_service *s = deploy(fn);
	for (int i = 0; i < 4; i++)
		ask(s, &r[i]);
	assert_int_equal(r[3].refused, 429);
	assert_int_equal(r[3].retry_after, 1);
	assert_non_null(strstr(r[3].why, "kiln.queue"));
	play_pass(5);
	for (int i = 0; i < 3; i++)
		kn_engine_release(&r[i].call, 200, false);
	assert_int_equal(live_of("hello").failed, 1);
}

static void concurrency_and_scale_max_bound_instances(void **state)
{
	struct kn_function *fn = play_function("hello");
	struct request r[6];

	(void)state;
	fn->concurrency = 1;
	fn->scale_max = 3;
	struct kn_service *s = deploy(fn);
	for (int i = 0; i < 6; i++)
		ask(s, &r[i]);
	assert_int_equal(play.fake.starts, 1); /* none is ready: one start at a time */
	play_pass(5);
	assert_int_equal(play.fake.starts, 3); /* one works, and the others still wait */
	play_pass(5);
	assert_int_equal(live_of("hello").busy, 3);
	for (int i = 0; i < 6; i++) {
		assert_true(r[i].granted);
		kn_engine_release(&r[i].call, 200, false);
	}
}

static void node_limit_refuses_with_the_reason(void **state)
{
	struct kn_function *fn = play_function("wide");
	struct request r[6];

	(void)state;
	fn->concurrency = 1;
	fn->scale_max = 10;
	struct kn_service *s = deploy(fn);
	for (int i = 0; i < 5; i++)
		ask(s, &r[i]);
	play_pass(5);
	assert_int_equal(play.fake.starts, 4); /* the node takes four */
	assert_null(live_of("wide").last_error);
	struct kn_service *other = deploy(play_function("other"));
	ask(other, &r[5]);
	assert_int_equal(r[5].refused, 503);
	assert_non_null(strstr(r[5].why, "--max-instances"));
	play_pass(5);
	for (int i = 0; i < 5; i++) {
		assert_true(r[i].granted);
		kn_engine_release(&r[i].call, 200, false);
	}
}

static void min_instances_are_started_at_once_and_again(void **state)
{
	struct kn_function *fn = play_function("hello");

	(void)state;
	fn->scale_min = 2;
	(void)deploy(fn);
	assert_int_equal(play.fake.starts, 2);
	play_pass(5);
	kn_fake_end(play.fake.newest, "crashed");
	assert_int_equal(play.fake.starts, 3);
	play_pass(5);
	assert_int_equal(live_of("hello").ready, 2);
	kn_fake_end(play.fake.newest, "crashed again");
	assert_int_equal(play.fake.starts, 3); /* held back */
	play_pass(600);
	assert_int_equal(play.fake.starts, 4);
}

static void start_failure_is_told_and_held_back(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct request r;

	(void)state;
	play.fake.end_before_ready = "exited with code 3 before it was ready";
	ask(s, &r);
	play_pass(5);
	assert_int_equal(r.refused, 502);
	assert_non_null(strstr(r.why, "exited with code 3"));
	ask(s, &r); /* at once: no start is tried */
	assert_int_equal(r.refused, 503);
	assert_int_equal(r.retry_after, 1);
	assert_non_null(strstr(r.why, "exited with code 3"));
	assert_int_equal(play.fake.starts, 1);
	for (int i = 0; i < 50; i++) { /* a client that asks every 100 ms for 5 s */
		play_pass(100);
		ask(s, &r);
		if (!r.refused)
			play_pass(5);
		assert_true(r.refused);
	}
	assert_in_range(play.fake.starts, 4, 6); /* 0.25, 0.5, 1, 2 s apart */
	play.fake.end_before_ready = NULL;
	play_pass(10 * 1000);
	ask(s, &r);
	play_pass(5);
	assert_true(r.granted);
	kn_engine_release(&r.call, 200, false);
	play_pass(1);
	ask(s, &r);
	assert_true(r.granted);
	kn_engine_release(&r.call, 200, false);
}

static void driver_that_refuses_is_told(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct request r;

	(void)state;
	play.fake.refuse_start = ENODEV;
	ask(s, &r);
	assert_int_equal(r.refused, 503);
	assert_non_null(strstr(r.why, "No such device"));
	assert_int_equal(live_of("hello").instances, 0);
	assert_non_null(live_of("hello").last_error);
}

static void crash_loses_the_calls_and_the_next_request_starts_anew(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct request r[2], next;

	(void)state;
	ask(s, &r[0]);
	ask(s, &r[1]);
	play_pass(5);
	kn_fake_end(play.fake.newest, "page fault at 0x10");
	for (int i = 0; i < 2; i++) {
		assert_true(r[i].lost);
		assert_null(r[i].call.instance);
		assert_non_null(strstr(r[i].why, "page fault"));
		kn_engine_release(&r[i].call, 502, true);
	}
	ask(s, &next);
	play_pass(5);
	assert_true(next.granted);
	assert_int_equal(play.fake.starts, 2);
	kn_fake_end(play.fake.newest, "page fault at 0x10");
	kn_engine_release(&next.call, 502, true);
	ask(s, &next); /* the second crash without a success between */
	assert_int_equal(next.refused, 503);
	assert_int_equal(live_of("hello").failed, 4);
}

static void withdrawn_calls_leave_the_queue(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct request r[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		ask(s, &r[i]);
	kn_engine_release(&r[1].call, 504, true);
	kn_engine_release(&r[2].call, 499, true);
	assert_int_equal(live_of("hello").waiting, 1);
	play_pass(5);
	assert_true(r[0].granted);
	assert_false(r[1].granted);
	kn_engine_release(&r[0].call, 200, false);
}

static void update_moves_requests_once_its_first_instance_is_ready(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct request old, meanwhile, new;

	(void)state;
	ask(s, &old);
	play_pass(5);
	struct kn_instance *before = old.call.instance;
	assert_ptr_equal(deploy(play_function("hello")), s);
	assert_true(kn_engine_rolling(engine, KN_VIEW("hello")));
	assert_string_equal(live_of("hello").update, "running");
	play_settle();
	ask(s, &meanwhile);
	assert_ptr_equal(meanwhile.call.instance, before);
	play_pass(5);
	assert_int_equal(rolled.new, 1);
	assert_false(kn_engine_rolling(engine, KN_VIEW("hello")));
	ask(s, &new);
	assert_true(new.granted);
	assert_ptr_not_equal(new.call.instance, before);
	assert_false(old.lost || meanwhile.lost);
	assert_int_equal(live_of("hello").instances, 2);
	kn_engine_release(&old.call, 200, false);
	kn_engine_release(&meanwhile.call, 200, false);
	kn_engine_release(&new.call, 200, false);
	play_settle();
	assert_int_equal(live_of("hello").instances, 1);
	assert_int_equal(live_of("hello").invocations, 3);
	assert_null(live_of("hello").update);
}

static void update_that_does_not_start_leaves_the_old_one_serving(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));

	(void)state;
	wake(s);
	const struct kn_function *before = kn_service_function(s);
	play.fake.end_before_ready = "exited with code 3 before it was ready";
	(void)deploy(play_function("hello"));
	for (int i = 0; i < 30 && !rolled.old; i++) {
		serve(s);
		play_pass(100);
	}
	assert_int_equal(rolled.old, 1);
	assert_int_equal(rolled.new, 0);
	assert_non_null(strstr(rolled.why, "code 3"));
	assert_int_equal(play.fake.starts, 4); /* the old one, and three tries */
	assert_ptr_equal(kn_service_function(s), before);
	assert_string_equal(live_of("hello").update, "failed");
	assert_non_null(strstr(live_of("hello").update_error, "code 3"));
	assert_null(live_of("hello").last_error); /* what serves is well */
	serve(s);
	play.fake.end_before_ready = NULL;
	(void)deploy(play_function("hello"));
	play_settle();
	play_pass(5);
	assert_int_equal(rolled.new, 1);
	assert_null(live_of("hello").update_error);
}

static void update_that_gets_ready_at_the_second_try_serves(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));

	(void)state;
	wake(s);
	play.fake.refuse_start = EAGAIN;
	(void)deploy(play_function("hello"));
	play_settle();
	play.fake.refuse_start = 0;
	play.fake.starts--; /* it never began */
	play_pass(250);
	play_pass(5);
	assert_int_equal(rolled.new, 1);
	assert_int_equal(rolled.old, 0);
	serve(s);
}

static void update_of_a_sleeping_function_is_there_at_once(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));

	(void)state;
	(void)deploy(play_function("hello"));
	assert_false(kn_engine_rolling(engine, KN_VIEW("hello")));
	assert_int_equal(play.fake.starts, 0);
	assert_int_equal(rolled.new + rolled.old, 0);
	wake(s);
}

static void second_update_replaces_one_that_is_not_ready(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));

	(void)state;
	wake(s);
	for (int i = 0; i < 20; i++) { /* faster than any of them starts */
		(void)deploy(play_function("hello"));
		play_settle();
		serve(s);
	}
	struct kn_function *last = play_function("hello");
	last->scale_min = 2;
	(void)deploy(last);
	play_settle();
	play_pass(5);
	assert_int_equal(rolled.new, 1);
	assert_int_equal(kn_service_function(s)->scale_min, 2);
	serve(s);
	play_pass(5);
	assert_int_equal(live_of("hello").instances, 2);
}

static void update_on_a_full_node_makes_requests_wait_and_refuses_none(void **state)
{
	struct kn_function *busy = play_function("busy");
	struct kn_service *s = deploy(play_function("hello"));
	struct request r[3], held;

	(void)state;
	ask(s, &held);
	play_pass(5);
	busy->scale_min = 3; /* the node takes four */
	(void)deploy(busy);
	play_pass(5);
	(void)deploy(play_function("hello"));
	play_settle();
	assert_int_equal(rolled.new, 1);
	for (int i = 0; i < 3; i++)
		ask(s, &r[i]);
	play_pass(5);
	assert_false(r[0].granted || r[0].refused);
	kn_engine_release(&held.call, 200, false); /* the old instance has drained */
	play_settle();
	play_pass(5);
	for (int i = 0; i < 3; i++) {
		assert_true(r[i].granted);
		kn_engine_release(&r[i].call, 200, false);
	}
}

static void removal_ends_an_update(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct kn_err err = KN_ERR_INIT;
	bool done = false;

	(void)state;
	wake(s);
	(void)deploy(play_function("hello"));
	play_settle();
	assert_int_equal(play.fake.starts, 2);
	assert_ok(kn_engine_remove(engine, KN_VIEW("hello"), note_done, &done, &err), &err);
	play_settle();
	assert_true(done);
	assert_int_equal(play.fake.ends, 2);
	assert_int_equal(rolled.new + rolled.old, 0);
}

static void removal_drains_then_stops(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct kn_err err = KN_ERR_INIT;
	struct request r, waits;
	bool done = false;

	(void)state;
	ask(s, &r);
	play_pass(5);
	for (int i = 0; i < 3; i++) { /* fill the instance */
		ask(s, &waits);
		kn_engine_release(&waits.call, 200, false);
	}
	assert_ok(kn_engine_remove(engine, KN_VIEW("hello"), note_done, &done, &err), &err);
	assert_null(kn_engine_find(engine, KN_VIEW("hello")));
	assert_fails(kn_engine_remove(engine, KN_VIEW("hello"), NULL, NULL, &err), ENOENT, &err,
		     "hello");
	play_settle();
	assert_false(done);
	assert_int_equal(play.fake.stops, 0);
	kn_engine_release(&r.call, 200, false);
	play_settle();
	assert_true(done);
	assert_int_equal(play.fake.ends, 1);
	assert_int_equal(play_folders(), 0);
}

static void removal_refuses_what_waits(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct kn_err err = KN_ERR_INIT;
	struct request r;

	(void)state;
	ask(s, &r);
	assert_ok(kn_engine_remove(engine, KN_VIEW("hello"), NULL, NULL, &err), &err);
	assert_int_equal(r.refused, 404);
	play_pass(5);
	assert_int_equal(play.fake.ends, 1);
}

static void class_without_driver_is_refused(void **state)
{
	static const struct kn_engine_image IMAGE = { .path = "/image" };
	struct kn_function *fn = play_function("hello");
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	fn->class = KN_CLASS_CONTAINER;
	assert_fails(kn_engine_put(engine, fn, &IMAGE, &err), ENOTSUP, &err, "it comes later");
	fn->class = KN_CLASS_MICROVM;
	fn->contract = KN_CONTRACT_MESSAGE;
	assert_fails(kn_engine_check(engine, fn, &err), ENOTSUP, &err, "speak HTTP");
	kn_function_unref(fn);
}

static void egress_without_networks_is_refused(void **state)
{
	static const struct kn_egress_rule RULE = { .address = 0xc0000201, .prefix = 32 };
	static const struct kn_egress EGRESS = { .rules = &RULE, .n_rules = 1 };
	struct kn_function *fn = play_function("hello");
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	fn->egress = &EGRESS;
	assert_fails(kn_engine_check(engine, fn, &err), ENOTSUP, &err,
		     "annotation 'kiln.egress': no nftables here");
	fn->egress = NULL;
	assert_ok(kn_engine_check(engine, fn, &err), &err);
	kn_function_unref(fn);
}

/* ---- logs ------------------------------------------------------------------------------------- */

static char lines[512];

static void add_line(const struct kn_log_line *line, void *arg)
{
	size_t len = strlen(lines);

	(void)arg;
	snprintf(lines + len, sizeof(lines) - len, "%.*s;", (int)line->text.len, line->text.ptr);
}

static const char *log_of(size_t tail, uint64_t since_ns, const char *instance)
{
	struct kn_err err = KN_ERR_INIT;

	lines[0] = '\0';
	assert_ok(kn_engine_logs(engine, KN_VIEW("hello"), tail, since_ns, instance, add_line, NULL,
				 &err),
		  &err);
	return lines;
}

static void follow_line(struct kn_log_follow *f, const struct kn_log_line *line)
{
	add_line(line, f->arg);
}

static void follow_gone(struct kn_log_follow *f)
{
	*(bool *)f->arg = true;
}

static void log_keeps_the_newest_lines_and_feeds_followers(void **state)
{
	struct kn_function *fn = play_function("hello");
	struct kn_err err = KN_ERR_INIT;
	bool gone = false, other_gone = false;
	struct kn_log_follow follow = { .line = follow_line, .gone = follow_gone, .arg = &gone };
	struct kn_log_follow other = { .line = follow_line,
				       .gone = follow_gone,
				       .arg = &other_gone };

	(void)state;
	fn->scale_min = 1;
	(void)deploy(fn);
	play_pass(5);
	kn_fake_print(play.fake.newest, KN_STDOUT, "one");
	kn_fake_print(play.fake.newest, KN_STDERR, "two");
	uint64_t later = kn_wall_ns() + 1;
	play_pass(10);
	kn_fake_print(play.fake.newest, KN_STDOUT, "three");
	assert_string_equal(log_of(0, 0, NULL), "one;two;three;");
	assert_string_equal(log_of(2, 0, NULL), "two;three;");
	assert_string_equal(log_of(0, later, NULL), "three;");
	assert_string_equal(log_of(0, 0, "hello-none"), "");

	assert_ok(kn_engine_follow(engine, KN_VIEW("hello"), &follow, &err), &err);
	assert_ok(kn_engine_follow(engine, KN_VIEW("hello"), &other, &err), &err);
	kn_engine_unfollow(&other);
	kn_engine_unfollow(&other);
	lines[0] = '\0';
	kn_fake_print(play.fake.newest, KN_STDOUT, "four");
	assert_string_equal(lines, "four;");
	for (int i = 0; i < 1000; i++)
		kn_fake_print(play.fake.newest, KN_STDOUT, "filling");
	kn_fake_print(play.fake.newest, KN_STDOUT, "last");
	assert_null(strstr(log_of(0, 0, NULL), "three"));
	assert_string_equal(log_of(1, 0, NULL), "last;");
	assert_ok(kn_engine_remove(engine, KN_VIEW("hello"), NULL, NULL, &err), &err);
	assert_true(gone);
	assert_false(other_gone);
}

static void log_flood_is_cut_and_the_rest_is_counted(void **state)
{
	struct kn_function *fn = play_function("hello");

	(void)state;
	fn->scale_min = 1;
	(void)deploy(fn);
	play_pass(5);
	for (int i = 0; i < 100 * 1000; i++)
		kn_fake_print(play.fake.newest, KN_STDOUT, "flood");
	assert_string_equal(log_of(1, 0, NULL), "flood;");
	play_pass(1000);
	assert_string_equal(log_of(1, 0, NULL),
			    "98000 lines dropped: at most 2000 lines and 1024 KiB a second;");
	kn_fake_print(play.fake.newest, KN_STDOUT, "calm");
	assert_string_equal(log_of(1, 0, NULL), "calm;");
	play_pass(5000);
	assert_string_equal(log_of(1, 0, NULL), "calm;");
}

static void drivers_counters_rise_across_instances(void **state)
{
	static const struct kn_counter counters[] = { /* drained with the engine, after this */
		{ "kiln_nf_packets_total", "Frames.", false,
		  { { "port", "lan" }, { "direction", "rx" } }, 7 },
		{ "kiln_nf_port_up", "1: it is up.", true, { { "port", "a\"b" } }, 1 },
	};
	struct kn_function *fn = play_function("firewall");
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	(void)state;
	fn->class = KN_CLASS_NF;
	fn->contract = KN_CONTRACT_FRAMES;
	fn->scale_min = 1;
	play.fake.counters = counters;
	play.fake.n_counters = 2;
	deploy(fn);
	play_pass(5);
	kn_fake_end(play.fake.newest, "killed");
	play_pass(1000);
	assert_int_equal(play.fake.starts, 2);
	kn_engine_metrics(engine, &text);
	assert_non_null(strstr(text.ptr, "# TYPE kiln_nf_packets_total counter\n"
		"kiln_nf_packets_total{function_name=\"firewall.openfaas-fn\",port=\"lan\","
		"direction=\"rx\"} 14\n"));
	assert_non_null(strstr(text.ptr, "# TYPE kiln_nf_port_up gauge\n"
		"kiln_nf_port_up{function_name=\"firewall.openfaas-fn\",port=\"a\\\"b\"} 1\n"));
}

/* The driver keeps them apart: the new one waits for the old one's interfaces. */
static void a_packet_functions_next_instance_starts_beside_the_old(void **state)
{
	(void)state;
	play.fake.end_ns = 10 * KN_NS_PER_MS;
	for (unsigned i = 1; i <= 2; i++) {
		struct kn_function *fn = play_function("hello");
		fn->class = KN_CLASS_NF;
		fn->contract = KN_CONTRACT_FRAMES;
		fn->scale_min = 1;
		(void)deploy(fn);
		play_settle();
		assert_int_equal(play.fake.starts, i);
		assert_int_equal(play.fake.stops, 0);
		play_pass(5);
		assert_int_equal(play.fake.stops, i - 1);
	}
	play_pass(10);
	assert_int_equal(play.fake.ends, 1);
	play_pass(10 * IDLE_MS);
	assert_int_equal(live_of("hello").ready, 1);
}

static void metrics_have_the_gateways_names(void **state)
{
	struct kn_service *s = deploy(play_function("hello"));
	struct kn_buf text = KN_BUF_INIT;
	struct request r;

	(void)state;
	ask(s, &r);
	play_pass(30);
	kn_engine_release(&r.call, 200, false);
	kn_service_count(s, 413);
	kn_engine_metrics(engine, &text);
	static const char *const LINES[] = {
		"gateway_function_invocation_total{function_name=\"hello.openfaas-fn\",code=\"200\"} 1\n",
		"gateway_function_invocation_total{function_name=\"hello.openfaas-fn\",code=\"413\"} 1\n",
		"gateway_functions_seconds_bucket{function_name=\"hello.openfaas-fn\",code=\"200\","
		"le=\"0.025\"} 0\n",
		"gateway_functions_seconds_bucket{function_name=\"hello.openfaas-fn\",code=\"200\","
		"le=\"0.05\"} 1\n",
		"gateway_functions_seconds_count{function_name=\"hello.openfaas-fn\",code=\"200\"} 1\n",
		"gateway_functions_seconds_count{function_name=\"hello.openfaas-fn\",code=\"413\"} 1\n",
		"gateway_function_invocation_started{function_name=\"hello.openfaas-fn\"} 2\n",
		"gateway_service_count{function_name=\"hello.openfaas-fn\"} 1\n",
		"# TYPE gateway_functions_seconds histogram\n",
		"kiln_calls_total{function_name=\"hello.openfaas-fn\",start=\"cold\"} 1\n",
		"kiln_calls_total{function_name=\"hello.openfaas-fn\",start=\"warm\"} 0\n",
		"kiln_starts_total{function_name=\"hello.openfaas-fn\",kind=\"boot\"} 1\n",
		"kiln_start_phase_seconds_count{class=\"microvm\",kind=\"boot\",phase=\"boot\"} 1\n",
		"kiln_start_phase_seconds_sum{class=\"microvm\",kind=\"boot\",phase=\"boot\"} "
		"0.030000000\n",
		"kiln_queue_wait_seconds_sum{function_name=\"hello.openfaas-fn\"} 0.030000000\n",
		"kiln_queue_length{function_name=\"hello.openfaas-fn\"} 0\n",
		"kiln_instances{function_name=\"hello.openfaas-fn\",state=\"ready\"} 1\n",
		"kiln_memory_bytes{function_name=\"hello.openfaas-fn\"} 4096\n",
		"kiln_cpu_seconds_total{function_name=\"hello.openfaas-fn\"} 0.000001000\n",
		"kiln_node_instances 1\n",
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(LINES); i++) {
		if (!strstr(text.ptr, LINES[i]))
			fail_msg("'%s' is not in\n%s", LINES[i], text.ptr);
	}
	kn_buf_fini(&text);
}

static void assert_metric(const char *line, bool there)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	kn_engine_metrics(engine, &text);
	if (!strstr(text.ptr, line) == there)
		fail_msg("'%s' is %sin\n%s", line, there ? "not " : "", text.ptr);
}

/* The first request of an instance that was made before; counters outlive instances, not functions. */
static void metrics_outlive_instances_but_not_functions(void **state)
{
	struct kn_function *fn = play_function("hello");
	struct request r;

	(void)state;
	fn->scale_min = 1;
	struct kn_service *s = deploy(fn);
	play_pass(5);
	ask(s, &r);
	assert_int_equal(r.call.start, KN_PREWARMED);
	assert_metric("kiln_instances{function_name=\"hello.openfaas-fn\",state=\"busy\"} 1\n", true);
	kn_engine_release(&r.call, 200, false);
	assert_metric("kiln_calls_total{function_name=\"hello.openfaas-fn\",start=\"prewarmed\"} 1\n",
		      true);
	kn_fake_end(play.fake.newest, "gone");
	play_pass(1000);
	assert_metric("kiln_cpu_seconds_total{function_name=\"hello.openfaas-fn\"} 0.000002000\n", true);
	assert_metric("kiln_starts_total{function_name=\"hello.openfaas-fn\",kind=\"boot\"} 2\n", true);
	assert_metric("kiln_crashes_total{function_name=\"hello.openfaas-fn\"} 1\n", true);
	assert_ok(kn_engine_remove(engine, KN_VIEW("hello"), NULL, NULL, NULL), NULL);
	play_pass(1000);
	assert_metric("hello", false);
	assert_metric("kiln_start_phase_seconds_count{class=\"microvm\",kind=\"boot\",phase=\"boot\"} 2\n",
		      true);
}

#define ENGINE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ENGINE(first_request_starts_an_instance_and_is_cold),
		ENGINE(five_hundred_at_once_make_one_start),
		ENGINE(queue_is_bounded),
		ENGINE(concurrency_and_scale_max_bound_instances),
		ENGINE(node_limit_refuses_with_the_reason),
		ENGINE(min_instances_are_started_at_once_and_again),
		ENGINE(start_failure_is_told_and_held_back),
		ENGINE(driver_that_refuses_is_told),
		ENGINE(crash_loses_the_calls_and_the_next_request_starts_anew),
		ENGINE(withdrawn_calls_leave_the_queue),
		ENGINE(update_moves_requests_once_its_first_instance_is_ready),
		ENGINE(update_that_does_not_start_leaves_the_old_one_serving),
		ENGINE(update_that_gets_ready_at_the_second_try_serves),
		ENGINE(update_of_a_sleeping_function_is_there_at_once),
		ENGINE(second_update_replaces_one_that_is_not_ready),
		ENGINE(update_on_a_full_node_makes_requests_wait_and_refuses_none),
		ENGINE(removal_ends_an_update),
		ENGINE(removal_drains_then_stops),
		ENGINE(removal_refuses_what_waits),
		ENGINE(class_without_driver_is_refused),
		ENGINE(egress_without_networks_is_refused),
		ENGINE(log_keeps_the_newest_lines_and_feeds_followers),
		ENGINE(log_flood_is_cut_and_the_rest_is_counted),
		ENGINE(metrics_have_the_gateways_names),
		ENGINE(metrics_outlive_instances_but_not_functions),
		ENGINE(drivers_counters_rise_across_instances),
		ENGINE(a_packet_functions_next_instance_starts_beside_the_old),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
