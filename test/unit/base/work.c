#include "base/work.h"
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

struct thing {
	struct kn_job job;
	struct gate *gate;        /* run waits here when set */
	pthread_t ran_in;
	bool ran, done, cancelled;
};

/* Holds workers back until the test opens it. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	bool open;
	unsigned inside;
};

#define GATE_INIT { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0 }

static void gate_pass(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->inside++;
	pthread_cond_broadcast(&g->moved);
	while (!g->open)
		pthread_cond_wait(&g->moved, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_await(struct gate *g, unsigned inside)
{
	pthread_mutex_lock(&g->lock);
	while (g->inside < inside)
		pthread_cond_wait(&g->moved, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->open = true;
	pthread_cond_broadcast(&g->moved);
	pthread_mutex_unlock(&g->lock);
}

static void run(struct kn_job *job)
{
	struct thing *t = kn_container_of(job, struct thing, job);

	t->ran_in = pthread_self();
	t->ran = true;
	if (t->gate)
		gate_pass(t->gate);
}

static void done(struct kn_job *job, bool cancelled)
{
	struct thing *t = kn_container_of(job, struct thing, job);

	assert_false(t->done);
	t->done = true;
	t->cancelled = cancelled;
}

static struct thing thing(struct gate *g)
{
	return (struct thing){ .job = { .run = run, .done = done }, .gate = g };
}

static struct kn_work *start(struct kn_loop *loop, unsigned threads, unsigned waiting)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_work *w = NULL;

	assert_ok(kn_work_new(loop, &(struct kn_work_config){ threads, waiting }, &w, &err), &err);
	return w;
}

static struct kn_loop *new_loop(void)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_loop *loop = NULL;

	assert_ok(kn_loop_new(&loop, &err), &err);
	return loop;
}

static void job_runs_elsewhere_and_ends_in_the_loop(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_loop *loop = new_loop();
	struct kn_work *w = start(loop, 2, 8);
	struct thing t = thing(NULL);

	assert_ok(kn_work_submit(w, &t.job, &err), &err);
	while (!t.done)
		kn_loop_once(loop, -1);
	assert_true(t.ran && !t.cancelled);
	assert_false(pthread_equal(t.ran_in, pthread_self()));
	kn_work_free(w);
	kn_loop_free(loop);
}

static void many_jobs_all_end_once(void **state)
{
	(void)state;
	enum { N = 500 };
	struct kn_err err = KN_ERR_INIT;
	struct kn_loop *loop = new_loop();
	struct kn_work *w = start(loop, 4, N);
	static struct thing t[N];

	for (size_t i = 0; i < N; i++) {
		t[i] = thing(NULL);
		assert_ok(kn_work_submit(w, &t[i].job, &err), &err);
	}
	for (size_t i = 0; i < N; i++) {
		while (!t[i].done)
			kn_loop_once(loop, -1);
		assert_true(t[i].ran && !t[i].cancelled);
	}
	kn_work_free(w);
	kn_loop_free(loop);
}

static void too_many_waiting_jobs_are_refused(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_loop *loop = new_loop();
	struct kn_work *w = start(loop, 1, 2);
	struct gate g = GATE_INIT;
	struct thing running = thing(&g), a = thing(NULL), b = thing(NULL), c = thing(NULL);

	assert_ok(kn_work_submit(w, &running.job, &err), &err);
	gate_await(&g, 1);
	assert_ok(kn_work_submit(w, &a.job, &err), &err);
	assert_ok(kn_work_submit(w, &b.job, &err), &err);
	assert_fails(kn_work_submit(w, &c.job, &err), EAGAIN, &err, "try again");
	gate_open(&g);
	while (!b.done)
		kn_loop_once(loop, -1);
	assert_true(a.done && running.done && !c.done);
	kn_work_free(w);
	kn_loop_free(loop);
}

static void *open_later(void *arg)
{
	struct gate *g = arg;

	usleep(10 * 1000);   /* lets kn_work_free() begin; any length is right */
	gate_open(g);
	return NULL;
}

static void free_waits_for_running_and_cancels_waiting(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_loop *loop = new_loop();
	struct kn_work *w = start(loop, 1, 8);
	struct gate g = GATE_INIT;
	struct thing running = thing(&g), waiting = thing(NULL);
	pthread_t opener;

	assert_ok(kn_work_submit(w, &running.job, &err), &err);
	gate_await(&g, 1);
	assert_ok(kn_work_submit(w, &waiting.job, &err), &err);
	assert_int_equal(pthread_create(&opener, NULL, open_later, &g), 0);
	kn_work_free(w);
	assert_true(running.done && !running.cancelled);
	assert_true(waiting.done && waiting.cancelled && !waiting.ran);
	pthread_join(opener, NULL);
	kn_loop_free(loop);
}

static void thread_count_is_checked(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_loop *loop = new_loop();
	struct kn_work *w = NULL;

	assert_fails(kn_work_new(loop, &(struct kn_work_config){ 0, 1 }, &w, &err), EINVAL, &err,
	             "between 1 and 64");
	assert_fails(kn_work_new(loop, &(struct kn_work_config){ 65, 1 }, &w, &err), EINVAL, &err,
	             "between 1 and 64");
	assert_null(w);
	kn_loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(job_runs_elsewhere_and_ends_in_the_loop),
		cmocka_unit_test(many_jobs_all_end_once),
		cmocka_unit_test(too_many_waiting_jobs_are_refused),
		cmocka_unit_test(free_waits_for_running_and_cancels_waiting),
		cmocka_unit_test(thread_count_is_checked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
