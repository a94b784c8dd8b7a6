#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

#include "base/loop.h"

struct fixture {
	struct kn_loop *loop;
	int calls;
	int order[8];
	size_t n_order;
};

static struct fixture f;

static int set_up(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	f = (struct fixture){ .calls = 0 };
	return kn_loop_new(&f.loop, &err);
}

static int tear_down(void **state)
{
	(void)state;
	kn_loop_free(f.loop);
	return 0;
}

struct numbered {
	struct kn_timer timer;
	int number;
};

static void note(struct kn_timer *t)
{
	f.order[f.n_order++] = kn_container_of(t, struct numbered, timer)->number;
}

static void timers_fire_in_order_of_their_deadline(void **state)
{
	struct numbered t[4];
	static const uint64_t AT[] = { 30, 10, 40, 20 };

	(void)state;
	kn_fake_clock(1000, 1);
	for (int i = 0; i < 4; i++) {
		t[i] = (struct numbered){ .timer.call = note, .number = (int)AT[i] };
		assert_int_equal(kn_timer_start(f.loop, &t[i].timer, 1000 + AT[i], NULL), 0);
	}
	kn_timer_stop(&t[2].timer);
	assert_int_equal(kn_timer_start(f.loop, &t[1].timer, 1000 + 35, NULL), 0);

	kn_fake_advance(100);
	kn_loop_once(f.loop, 0);
	assert_int_equal(f.n_order, 3);
	assert_int_equal(f.order[0], 20);
	assert_int_equal(f.order[1], 30);
	assert_int_equal(f.order[2], 10);
	kn_real_clock();
}

static uint64_t last_due;

static void in_order(struct kn_timer *t)
{
	assert_true(t->due_ns >= last_due);
	last_due = t->due_ns;
	f.calls++;
}

static void many_timers_stopped_in_any_order_keep_the_heap(void **state)
{
	enum { N = 500 };
	static struct kn_timer t[N];
	int left = N;

	(void)state;
	srand(7);
	last_due = 0;
	kn_fake_clock(1, 1);
	for (int i = 0; i < N; i++) {
		t[i] = (struct kn_timer){ .call = in_order };
		assert_int_equal(kn_timer_start(f.loop, &t[i], 2 + (uint64_t)rand() % 1000, NULL),
				 0);
	}
	for (int i = 0; i < N; i += 3, left--)
		kn_timer_stop(&t[i]);
	kn_fake_advance(2000);
	kn_loop_once(f.loop, 0);
	assert_int_equal(f.calls, left);
	kn_real_clock();
}

static struct kn_watch pair[2];

static void stop_both(struct kn_watch *w, uint32_t events)
{
	(void)w;
	(void)events;
	f.calls++;
	kn_watch_stop(&pair[0]);
	kn_watch_stop(&pair[1]);
}

/* Both events are fetched in one round; whichever runs first stops the other. */
static void a_stopped_watch_never_fires_even_when_its_event_was_fetched(void **state)
{
	int fds[2][2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe(fds[i]), 0);
		assert_int_equal(write(fds[i][1], "x", 1), 1);
		pair[i] =
			(struct kn_watch){ .fd = fds[i][0], .events = EPOLLIN, .call = stop_both };
		assert_int_equal(kn_watch_start(f.loop, &pair[i], NULL), 0);
	}
	kn_loop_once(f.loop, 100);
	kn_loop_once(f.loop, 0);
	assert_int_equal(f.calls, 1);
	for (int i = 0; i < 2; i++) {
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

static void again(struct kn_defer *d)
{
	if (++f.calls < 3)
		kn_defer_start(f.loop, d);
}

static void a_deferred_call_that_defers_itself_waits_for_the_next_round(void **state)
{
	struct kn_defer d = { .call = again };

	(void)state;
	kn_defer_start(f.loop, &d);
	kn_defer_start(f.loop, &d);
	kn_loop_once(f.loop, -1);
	assert_int_equal(f.calls, 1);
	kn_loop_once(f.loop, -1);
	assert_int_equal(f.calls, 2);
	kn_defer_stop(&d);
	kn_defer_stop(&d);
}

static void count(void *arg)
{
	f.calls++;
	if (arg && f.calls == *(int *)arg)
		kn_loop_stop(f.loop);
}

static void *post_thousand(void *arg)
{
	for (int i = 0; i < 1000; i++)
		assert_int_equal(kn_loop_post(f.loop, count, arg), 0);
	return NULL;
}

static void calls_posted_from_threads_all_run(void **state)
{
	pthread_t t[4];
	int all = 4000;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, post_thousand, &all), 0);
	kn_loop_run(f.loop);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(f.calls, all);
}

static void on_done(struct kn_child *c, int status)
{
	(void)c;
	f.calls = WEXITSTATUS(status);
	kn_loop_stop(f.loop);
}

static void a_child_is_reaped_and_its_status_told(void **state)
{
	(void)state;
	pid_t pid = fork();
	if (pid == 0)
		_exit(7);
	struct kn_child c = { .pid = pid, .done = on_done };
	assert_int_equal(kn_child_start(f.loop, &c, NULL), 0);
	kn_loop_run(f.loop);
	assert_int_equal(f.calls, 7);
	assert_int_equal(kn_child_kill(&c, SIGTERM), -ESRCH);
}

static void on_usr1(const struct signalfd_siginfo *si, void *arg)
{
	(void)arg;
	f.calls = (int)si->ssi_signo;
	kn_loop_stop(f.loop);
}

static void signals_arrive_as_events(void **state)
{
	sigset_t set;

	(void)state;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	assert_int_equal(kn_loop_signals(f.loop, &set, on_usr1, NULL, NULL), 0);
	raise(SIGUSR1);
	kn_loop_run(f.loop);
	assert_int_equal(f.calls, SIGUSR1);
}

static void a_bad_descriptor_is_refused_with_its_number(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_watch w = { .fd = 9999, .events = EPOLLIN };

	(void)state;
	assert_int_equal(kn_watch_start(f.loop, &w, &err), -EBADF);
	assert_non_null(strstr(err.text, "9999"));
}

#define CASE(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(timers_fire_in_order_of_their_deadline),
		CASE(many_timers_stopped_in_any_order_keep_the_heap),
		CASE(a_stopped_watch_never_fires_even_when_its_event_was_fetched),
		CASE(a_deferred_call_that_defers_itself_waits_for_the_next_round),
		CASE(calls_posted_from_threads_all_run),
		CASE(a_child_is_reaped_and_its_status_told),
		CASE(signals_arrive_as_events),
		CASE(a_bad_descriptor_is_refused_with_its_number),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
