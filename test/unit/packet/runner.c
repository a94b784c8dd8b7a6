/*
 * The runner over ports that this file plays: no interface, no root, no clock but the fake one.
 */
#include "packet/fixture.h"

#include <unistd.h>

#include "base/time.h"
#include "packet/runner.h"

static struct {
	struct kn_port port;
	struct kn_live live;
	int left, looks, ticks, words;
	bool gone;
	volatile sig_atomic_t stop;
	int pipe[2];
} play;

/* Frames while there are some; every look for more takes a millisecond. */
static int play_rx(struct kn_port *port, struct kn_batch *b)
{
	kn_fake_advance(KN_NS_PER_MS);
	if (port->err.code)
		return -port->err.code;
	if (play.left == 0)
		return 0;
	play.left--;
	b->n = kn_pool_take(play.live.pool, 1, b->frame);
	b->live = 1;
	port->rx.frames++;
	return 1;
}

static void play_look(struct kn_port *port)
{
	play.looks++;
	if (play.gone)
		(void)kn_fail(&port->err, ENODEV, "the interface 'eth1' is gone");
}

static void play_close(struct kn_port *port)
{
	(void)port;
}

static const struct kn_port_ops play_ops = {
	.kind = "play", .rx = play_rx, .look = play_look, .close = play_close
};

static int on_tick(void *arg, struct kn_err *err)
{
	(void)arg;
	(void)err;
	play.ticks++;
	if (play.left == 0 && play.words == 0) /* told, it falls asleep: something must wake it */
		assert_int_equal(write(play.pipe[1], "x", 1), 1);
	return 0;
}

static int on_word(void *arg, struct kn_err *err)
{
	char c;

	(void)arg;
	(void)err;
	assert_int_equal(read(play.pipe[0], &c, 1), 1);
	play.words++;
	return 1;
}

static void setup(struct kn_pipeline **ret, struct kn_pool **ret_pool)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_stage *stage;

	memset(&play, 0, sizeof(play));
	kn_fake_clock(KN_NS_PER_S, KN_NS_PER_S);
	assert_int_equal(pipe(play.pipe), 0);
	assert_ok(kn_pool_new(&(struct kn_pool_config){ .frames = 32, .frame_bytes = 64 }, ret_pool,
			      &err), &err);
	play.live = (struct kn_live){ .fd = -1, .pool = *ret_pool };
	play.port = (struct kn_port){ .ops = &play_ops, .live = &play.live };
	assert_ok(kn_pipeline_new(ret, &err), &err);
	assert_ok(kn_stage_receive(&play.port, &stage, &err), &err);
	assert_ok(kn_pipeline_add(*ret, stage, &err), &err);
}

static struct kn_runner_config config_of(struct kn_pipeline *const *p)
{
	struct kn_runner_config c = KN_RUNNER_DEFAULTS;

	c.pipelines = p;
	c.n = 1;
	c.stop = &play.stop;
	c.tick_ns = 1000 * KN_NS_PER_MS;
	c.tick = on_tick;
	c.wake = play.pipe[0];
	c.woken = on_word;
	return c;
}

static void frames_run_and_are_told_once_they_stop(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	kn_auto(kn_pipeline_free) struct kn_pipeline *p = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	setup(&p, &pool);
	play.left = 2500;
	struct kn_runner_config c = config_of(&p);
	c.tick_ns = 1; /* real sleep: the shortest */
	assert_ok(kn_runner_run(&c, &err), &err);
	assert_int_equal(kn_pipeline_received(p).frames, 2500);
	assert_int_equal(kn_pipeline_drops(p, KN_DROP_NOT_SENT), 2500);
	assert_true(play.ticks >= 1);
	assert_true(play.looks >= play.ticks);
	assert_int_equal(play.words, 1);
	assert_int_equal(kn_pool_available(pool), 32);
}

static void an_interface_that_is_gone_ends_the_run(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	kn_auto(kn_pipeline_free) struct kn_pipeline *p = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	setup(&p, &pool);
	play.left = 100000;
	play.gone = true;
	play.words = 1;
	struct kn_runner_config c = config_of(&p);
	assert_fails(kn_runner_run(&c, &err), ENODEV, &err, "is gone");
	assert_true(play.left > 0);
}

static void a_signal_ends_the_run(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	kn_auto(kn_pipeline_free) struct kn_pipeline *p = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	setup(&p, &pool);
	play.left = 10;
	play.stop = SIGTERM;
	struct kn_runner_config c = config_of(&p);
	assert_ok(kn_runner_run(&c, &err), &err);
	assert_int_equal(play.left, 10);
	c.n = KN_RUNNER_MAX + 1;
	assert_fails(kn_runner_run(&c, &err), EINVAL, &err, "at most");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_run_and_are_told_once_they_stop),
		cmocka_unit_test(an_interface_that_is_gone_ends_the_run),
		cmocka_unit_test(a_signal_ends_the_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
