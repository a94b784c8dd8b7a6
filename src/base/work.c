#include "base/work.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * Two lists under one mutex: jobs that wait for a thread, and jobs whose end waits for the loop.
 * The ends share one posted call: it is posted by the worker that makes the list non-empty, so a
 * burst of jobs costs the loop one wake-up.
 */
struct job_list {
	struct kn_job *head, **tail;
};

struct kn_work {
	struct kn_loop *loop;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct job_list waiting, ended;
	unsigned n_waiting, max_waiting;
	bool stop;
	bool posted;          /* drain_ended is on its way through the loop's queue */
	bool freed;           /* kn_work_free() ran; the posted call frees the memory */
	unsigned n_threads;
	pthread_t threads[];
};

static void list_init(struct job_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_put(struct job_list *l, struct kn_job *job)
{
	job->next = NULL;
	*l->tail = job;
	l->tail = &job->next;
}

static struct kn_job *list_take(struct job_list *l)
{
	struct kn_job *job = l->head;

	if (job) {
		l->head = job->next;
		if (!l->head)
			l->tail = &l->head;
	}
	return job;
}

/* The whole list at once; it is empty afterwards. */
static struct kn_job *list_take_all(struct job_list *l)
{
	struct kn_job *head = l->head;

	list_init(l);
	return head;
}

static void finish_all(struct kn_job *job, bool cancelled)
{
	while (job) {
		struct kn_job *next = job->next;   /* done may free the job */
		job->done(job, cancelled);
		job = next;
	}
}

static void destroy(struct kn_work *w)
{
	pthread_cond_destroy(&w->more);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

static void drain_ended(void *arg)
{
	struct kn_work *w = arg;

	pthread_mutex_lock(&w->lock);
	struct kn_job *ended = list_take_all(&w->ended);
	w->posted = false;
	bool freed = w->freed;
	pthread_mutex_unlock(&w->lock);

	finish_all(ended, false);
	if (freed)
		destroy(w);
}

/*
 * The loop must learn of every end, so a failed post is tried again: it fails only while memory is
 * out, and waiting here holds up this one thread.
 */
static void post_ended(struct kn_work *w)
{
	while (kn_loop_post(w->loop, drain_ended, w) < 0)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void *worker(void *arg)
{
	struct kn_work *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->stop && !w->waiting.head)
			pthread_cond_wait(&w->more, &w->lock);
		if (w->stop)
			break;
		struct kn_job *job = list_take(&w->waiting);
		w->n_waiting--;
		pthread_mutex_unlock(&w->lock);

		job->run(job);

		pthread_mutex_lock(&w->lock);
		list_put(&w->ended, job);
		bool post = !w->posted;
		w->posted = true;
		if (post) {
			pthread_mutex_unlock(&w->lock);
			post_ended(w);
			pthread_mutex_lock(&w->lock);
		}
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void stop_threads(struct kn_work *w)
{
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->more);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->n_threads; i++)
		pthread_join(w->threads[i], NULL);
}

/* Workers take no signals: those are the loop's business. */
static int start_threads(struct kn_work *w, unsigned n, struct kn_err *err)
{
	sigset_t all, before;
	int r = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (w->n_threads < n && r == 0) {
		r = pthread_create(&w->threads[w->n_threads], NULL, worker, w);
		if (r == 0)
			w->n_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r ? kn_fail(err, r, "start a worker thread: %s", strerror(r)) : 0;
}

int kn_work_new(struct kn_loop *loop, const struct kn_work_config *config, struct kn_work **ret,
                struct kn_err *err)
{
	if (config->threads < 1 || config->threads > 64)
		return kn_fail(err, EINVAL, "between 1 and 64 worker threads, not %u",
		               config->threads);
	struct kn_work *w = calloc(1, sizeof(*w) + config->threads * sizeof(w->threads[0]));
	if (!w)
		return kn_fail(err, ENOMEM, "no memory for worker threads");
	w->loop = loop;
	w->max_waiting = config->max_waiting;
	list_init(&w->waiting);
	list_init(&w->ended);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);

	int r = start_threads(w, config->threads, err);
	if (r < 0) {
		stop_threads(w);
		destroy(w);
		return r;
	}
	*ret = w;
	return 0;
}

int kn_work_submit(struct kn_work *w, struct kn_job *job, struct kn_err *err)
{
	pthread_mutex_lock(&w->lock);
	bool full = w->stop || w->n_waiting >= w->max_waiting;
	if (!full) {
		list_put(&w->waiting, job);
		w->n_waiting++;
		pthread_cond_signal(&w->more);
	}
	pthread_mutex_unlock(&w->lock);
	return full ? kn_fail(err, EAGAIN, "too much work waits (%u jobs): try again soon",
	                      w->max_waiting)
	            : 0;
}

void kn_work_free(struct kn_work *w)
{
	if (!w)
		return;
	stop_threads(w);
	/* One thread from here on. A call that is already posted cannot be taken back. */
	struct kn_job *ended = list_take_all(&w->ended);
	struct kn_job *waiting = list_take_all(&w->waiting);
	bool posted = w->posted;
	w->freed = true;
	finish_all(ended, false);
	finish_all(waiting, true);
	if (!posted)
		destroy(w);
}
