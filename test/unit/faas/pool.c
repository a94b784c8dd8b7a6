#include "play.h"

#include "faas/pool.h"

static struct {
	int ready, ended, empty;
	struct kn_err why;
	struct kn_instance *newest;
	char line[64];
	bool read_only_root;
	uint32_t cpu_milli, max_pids, file_mode;
	char file_path[64], file_text[64];
	int accepted[8];
	int n_accepted;
} saw;

static void on_ready(struct kn_instance *i, void *arg)
{
	(void)arg;
	saw.ready++;
	saw.newest = i;
}

static void on_ended(struct kn_instance *i, const struct kn_err *why, void *arg)
{
	(void)arg;
	saw.ended++;
	saw.why = *why;
	if (saw.newest == i)
		saw.newest = NULL;
}

static void on_log(struct kn_instance *i, enum kn_stream stream, struct kn_view line, void *arg)
{
	(void)i;
	(void)stream;
	(void)arg;
	snprintf(saw.line, sizeof(saw.line), "%.*s", (int)line.len, line.ptr);
}

static void on_empty(struct kn_pool *p, void *arg)
{
	(void)p;
	(void)arg;
	saw.empty++;
}

/* The caller's copy of what it puts into instances may be gone when one starts. */
static struct kn_pool *make_pool(struct kn_function *fn)
{
	char bytes[] = "hunter2", path[] = "/var/openfaas/secrets/key";
	struct kn_sandbox_file file = { path, { bytes, 7 }, 0440 };
	struct kn_err err = KN_ERR_INIT;
	struct kn_pool *p;
	struct kn_pool_config config = {
		.loop = play.loop,
		.ops = &kn_sandbox_fake,
		.driver = &play.driver,
		.fn = fn,
		.image = "/image",
		.files = &file,
		.n_files = 1,
		.run_dir = play.dir,
		.max_reply_bytes = 1000,
		.stop_grace_ms = 10,
		.drain_ms = 1000,
		.events = { on_ready, on_ended, on_log, on_empty, NULL },
	};

	saw = (typeof(saw)){ .ready = 0 };
	assert_ok(kn_pool_new(&config, &p, &err), &err);
	kn_function_unref(fn);
	memset(bytes, 0, sizeof(bytes));
	memset(path, 0, sizeof(path));
	return p;
}

static void end_pool(struct kn_pool *p)
{
	kn_pool_drain(p);
	play_pass(2000);
	play_pass(2000);
	assert_int_equal(saw.empty, 1);
	assert_int_equal(play_folders(), 0);
	kn_pool_free(p);
}

static struct kn_instance *start_one(struct kn_pool *p)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_pool_start(p, &err), &err);
	play_pass(5);
	assert_non_null(saw.newest);
	return saw.newest;
}

static void instance_has_a_folder_from_start_to_end(void **state)
{
	struct kn_pool *p = make_pool(play_function("hello"));
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_pool_start(p, &err), &err);
	assert_int_equal(play_folders(), 1);
	assert_int_equal(kn_pool_starting(p), 1);
	assert_null(kn_pool_pick(p));
	play_pass(5);
	assert_int_equal(saw.ready, 1);
	assert_ptr_equal(kn_pool_pick(p), saw.newest);
	assert_int_equal(strncmp(saw.newest->id, "hello-", 6), 0);
	kn_fake_print(play.fake.newest, KN_STDOUT, "good morning");
	assert_string_equal(saw.line, "good morning");
	kn_fake_end(play.fake.newest, "killed by a test");
	assert_int_equal(saw.ended, 1);
	assert_string_equal(saw.why.text, "killed by a test");
	assert_int_equal(play_folders(), 0);
	assert_int_equal(kn_pool_count(p), 0);
	end_pool(p);
}

static void on_started(const struct kn_sandbox_config *c, void *arg)
{
	(void)arg;
	saw.read_only_root = c->read_only_root;
	saw.cpu_milli = c->cpu_milli;
	saw.max_pids = c->max_pids;
	assert_int_equal(c->n_files, 1);
	saw.file_mode = c->files[0].mode;
	snprintf(saw.file_path, sizeof(saw.file_path), "%s", c->files[0].path);
	snprintf(saw.file_text, sizeof(saw.file_text), "%.*s", (int)c->files[0].bytes.len,
		 c->files[0].bytes.ptr);
}

static void driver_hears_limits_and_files(void **state)
{
	struct kn_function *fn = play_function("hello");

	(void)state;
	fn->read_only_root = true;
	fn->cpu_milli = 250;
	fn->max_pids = 20;
	play.fake.started = on_started;
	struct kn_pool *p = make_pool(fn);
	start_one(p);
	assert_true(saw.read_only_root);
	assert_int_equal(saw.cpu_milli, 250);
	assert_int_equal(saw.max_pids, 20);
	assert_int_equal(saw.file_mode, 0440);
	assert_string_equal(saw.file_path, "/var/openfaas/secrets/key");
	assert_string_equal(saw.file_text, "hunter2");
	end_pool(p);
}

static void start_that_is_refused_leaves_nothing(void **state)
{
	struct kn_pool *p = make_pool(play_function("hello"));
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	play.fake.refuse_start = ENOSPC;
	assert_fails(kn_pool_start(p, &err), ENOSPC, &err, "No space left");
	assert_int_equal(kn_pool_count(p), 0);
	assert_int_equal(play_folders(), 0);
	end_pool(p);
}

static void pick_takes_the_least_busy_and_stops_at_the_limit(void **state)
{
	struct kn_function *fn = play_function("hello");
	struct kn_pool *p;

	(void)state;
	fn->concurrency = 2;
	p = make_pool(fn);
	struct kn_instance *a = start_one(p), *b = start_one(p);
	assert_ptr_not_equal(a, b);
	kn_instance_enter(a);
	assert_ptr_equal(kn_pool_pick(p), b);
	kn_instance_enter(b);
	kn_instance_enter(b);
	assert_ptr_equal(kn_pool_pick(p), a);
	kn_instance_enter(a);
	assert_null(kn_pool_pick(p));
	for (int i = 0; i < 2; i++) {
		kn_instance_leave(a);
		kn_instance_leave(b);
	}
	assert_int_equal(a->served, 2);
	end_pool(p);
}

static void accept_one(struct kn_sandbox *sb, int fd, void *arg)
{
	(void)sb;
	(void)arg;
	saw.accepted[saw.n_accepted++] = fd;
}

static void kept_connections_are_used_again_and_forgotten_when_closed(void **state)
{
	struct kn_pool *p = make_pool(play_function("hello"));
	struct kn_err err = KN_ERR_INIT;
	struct kn_http_client *a, *b;
	bool kept;

	(void)state;
	play.fake.serve = accept_one;
	struct kn_instance *i = start_one(p);
	assert_ok(kn_instance_connect(i, false, &a, &kept, &err), &err);
	assert_false(kept);
	kn_instance_keep(i, a);
	assert_ok(kn_instance_connect(i, false, &b, &kept, &err), &err);
	assert_true(kept);
	assert_ptr_equal(a, b);
	kn_instance_keep(i, b);
	assert_int_equal(i->n_idle, 1);
	close(saw.accepted[0]);
	play_settle();
	assert_int_equal(i->n_idle, 0);
	assert_int_equal(play.fake.connects, 1);
	end_pool(p);
}

static void drain_stops_idle_ones_now_and_busy_ones_after_their_requests(void **state)
{
	struct kn_pool *p = make_pool(play_function("hello"));

	(void)state;
	struct kn_instance *busy = start_one(p);
	kn_instance_enter(busy);
	(void)start_one(p);
	kn_pool_drain(p);
	play_settle();
	assert_int_equal(saw.ended, 1);
	assert_string_equal(kn_instance_state_name(busy), "draining");
	assert_null(kn_pool_pick(p));
	kn_instance_leave(busy);
	play_settle();
	assert_int_equal(saw.ended, 2);
	assert_int_equal(saw.why.code, 0);
	assert_int_equal(saw.empty, 1);
	kn_pool_free(p);
}

static void drain_has_an_end_for_requests_that_have_none(void **state)
{
	struct kn_pool *p = make_pool(play_function("hello"));

	(void)state;
	kn_instance_enter(start_one(p));
	kn_pool_drain(p);
	play_pass(999);
	assert_int_equal(saw.ended, 0);
	play_pass(2);
	assert_int_equal(saw.ended, 1);
	assert_int_equal(saw.empty, 1);
	kn_pool_free(p);
}

static void clean_removes_what_a_killed_daemon_left(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/hello-1/sub", play.dir);
	assert_ok(kn_mkdirs(AT_FDCWD, path, 0700, &err), &err);
	assert_ok(kn_pool_clean(play.dir, &err), &err);
	assert_int_equal(play_folders(), 0);
}

#define PLAY(test) cmocka_unit_test_setup_teardown(test, play_setup, play_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PLAY(instance_has_a_folder_from_start_to_end),
		PLAY(driver_hears_limits_and_files),
		PLAY(start_that_is_refused_leaves_nothing),
		PLAY(pick_takes_the_least_busy_and_stops_at_the_limit),
		PLAY(kept_connections_are_used_again_and_forgotten_when_closed),
		PLAY(drain_stops_idle_ones_now_and_busy_ones_after_their_requests),
		PLAY(drain_has_an_end_for_requests_that_have_none),
		PLAY(clean_removes_what_a_killed_daemon_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
