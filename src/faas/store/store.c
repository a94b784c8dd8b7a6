#include "faas/store.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "faas/store/database.h"

/*
 * Group commit. The loop's thread appends changes to `waiting`; the writer takes all of them as one
 * transaction and syncs once; their ends go to `ended` and one posted call answers them in the
 * loop's thread. Under load a batch is what arrived during the sync before it, so throughput grows
 * with the number of waiting clients while each waits for at most two syncs.
 *
 * Locks: `lock` guards the lists and flags and is never held during I/O; `db_lock` guards the
 * connection. Where both are needed, db_lock is taken first.
 */

enum { MAX_BATCH = 1024 };   /* bounds the log that one transaction writes */

struct change {
	struct change *next;
	enum kn_table table;
	bool remove;
	int code;                /* result, positive errno */
	kn_store_done done;
	void *arg;
	struct kn_view name, value;   /* into bytes */
	char bytes[];
};

struct change_list {
	struct change *head, **tail;
};

struct kn_store {
	struct kn_loop *loop;
	pthread_t writer;
	pthread_mutex_t lock, db_lock;
	pthread_cond_t more, idle;
	struct change_list waiting, ended;
	unsigned n_waiting;
	bool writing, stop, posted, freed;
	struct kn_err broken;    /* code != 0: a sync failed; no more changes */
	struct kn_err last;      /* why the latest failed batch failed */
	struct kn_database db;
};

static void list_init(struct change_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_put(struct change_list *l, struct change *c)
{
	c->next = NULL;
	*l->tail = c;
	l->tail = &c->next;
}

static struct change *list_take(struct change_list *l)
{
	struct change *c = l->head;

	if (c) {
		l->head = c->next;
		if (!l->head)
			l->tail = &l->head;
	}
	return c;
}

/* ---- the writer ---------------------------------------------------------------------------- */

static int write_batch(struct kn_store *s, struct change *first, struct kn_err *err)
{
	int r = db_begin(&s->db, err);

	for (struct change *c = first; c && r == 0; c = c->next) {
		r = c->remove ? db_delete(&s->db, c->table, c->name, err)
		              : db_put(&s->db, c->table, c->name, c->value, err);
	}
	if (r == 0)
		return db_commit(&s->db, err);
	db_rollback(&s->db);
	return r;
}

/* After these nobody knows what the disk holds (a failed fsync drops the dirty pages). */
static bool is_fatal(int code)
{
	return code == EIO || code == EUCLEAN || code == EROFS;
}

static struct change *take_batch(struct kn_store *s)
{
	struct change_list batch;
	struct change *c;

	list_init(&batch);
	for (unsigned n = 0; n < MAX_BATCH && (c = list_take(&s->waiting)); n++)
		list_put(&batch, c);
	return batch.head;
}

static void drain_ended(void *arg);

/* As in base/work: an end must reach the loop, so a post that found no memory is tried again. */
static void post_ended(struct kn_store *s)
{
	while (kn_loop_post(s->loop, drain_ended, s) < 0)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

/* Called with `lock` held; returns with it held. */
static void end_batch(struct kn_store *s, struct change *batch, const struct kn_err *err)
{
	if (err->code) {
		s->last = *err;
		if (is_fatal(err->code) && !s->broken.code)
			s->broken = *err;
	}
	while (batch) {
		struct change *next = batch->next;
		batch->code = err->code;
		list_put(&s->ended, batch);
		s->n_waiting--;
		batch = next;
	}
	s->writing = false;
	bool post = !s->posted;
	s->posted = true;
	pthread_cond_broadcast(&s->idle);
	if (post) {
		pthread_mutex_unlock(&s->lock);
		post_ended(s);
		pthread_mutex_lock(&s->lock);
	}
}

static void *writer(void *arg)
{
	struct kn_store *s = arg;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		while (!s->stop && !s->waiting.head)
			pthread_cond_wait(&s->more, &s->lock);
		if (!s->waiting.head)
			break;   /* told to stop, and everything is written */
		struct change *batch = take_batch(s);
		struct kn_err err = s->broken;
		s->writing = true;
		pthread_mutex_unlock(&s->lock);

		if (!err.code) {
			pthread_mutex_lock(&s->db_lock);
			if (write_batch(s, batch, &err) == 0)
				err = KN_ERR_INIT;
			pthread_mutex_unlock(&s->db_lock);
		}

		pthread_mutex_lock(&s->lock);
		end_batch(s, batch, &err);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- the loop's side ----------------------------------------------------------------------- */

static void destroy(struct kn_store *s)
{
	pthread_cond_destroy(&s->more);
	pthread_cond_destroy(&s->idle);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->db_lock);
	free(s);
}

/* Answer what has ended; returns the first failure's code. */
static int answer_ended(struct kn_store *s)
{
	int first = 0;

	pthread_mutex_lock(&s->lock);
	struct change *c = s->ended.head;
	struct kn_err why = s->last;
	list_init(&s->ended);
	pthread_mutex_unlock(&s->lock);

	while (c) {
		struct change *next = c->next;
		/* `last` may already tell of a later batch: keep this one's own code. */
		struct kn_err err = why;
		err.code = c->code;
		if (c->code && !first)
			first = c->code;
		if (c->done)
			c->done(c->code ? &err : NULL, c->arg);
		free(c);
		c = next;
	}
	return first;
}

static void drain_ended(void *arg)
{
	struct kn_store *s = arg;

	pthread_mutex_lock(&s->lock);
	s->posted = false;
	bool freed = s->freed;
	pthread_mutex_unlock(&s->lock);
	if (freed)
		destroy(s);
	else
		answer_ended(s);
}

static int start_writer(struct kn_store *s, struct kn_err *err)
{
	sigset_t all, before;

	sigfillset(&all);   /* signals are the loop's business */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&s->writer, NULL, writer, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r ? kn_fail(err, r, "start the store's thread: %s", strerror(r)) : 0;
}

int kn_store_open(const struct kn_store_config *config, struct kn_store **ret, struct kn_err *err)
{
	struct kn_store *s = calloc(1, sizeof(*s));

	if (!s)
		return kn_fail(err, ENOMEM, "no memory for the store");
	s->loop = config->loop;
	list_init(&s->waiting);
	list_init(&s->ended);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->db_lock, NULL);
	pthread_cond_init(&s->more, NULL);
	pthread_cond_init(&s->idle, NULL);

	int r = db_open(&s->db, config->dir, config->dir_name, err);
	if (r == 0)
		r = start_writer(s, err);
	if (r < 0) {
		db_close(&s->db);
		destroy(s);
		return r;
	}
	*ret = s;
	return 0;
}

void kn_store_close(struct kn_store *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->more);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->writer, NULL);
	/* One thread from here on; a posted call cannot be taken back, so it frees the memory. */
	answer_ended(s);
	db_close(&s->db);
	s->freed = true;
	if (!s->posted)
		destroy(s);
}

static struct change *change_new(enum kn_table table, struct kn_view name, struct kn_view value)
{
	struct change *c = malloc(sizeof(*c) + name.len + value.len);

	if (!c)
		return NULL;
	*c = (struct change){ .table = table,
		              .name = { c->bytes, name.len },
		              .value = { c->bytes + name.len, value.len } };
	memcpy(c->bytes, name.ptr, name.len);
	if (value.len)
		memcpy(c->bytes + name.len, value.ptr, value.len);
	return c;
}

static int submit(struct kn_store *s, struct change *c, struct kn_err *err)
{
	int r = 0;

	pthread_mutex_lock(&s->lock);
	if (s->broken.code)
		r = kn_fail(err, EIO, "the store takes no more changes since a write failed (%s): "
		                      "restart kilnd when the disk is well",
		            s->broken.text);
	else if (s->stop || s->n_waiting >= KN_STORE_MAX_WAITING)
		r = kn_fail(err, EAGAIN, "too many changes wait for the disk: try again soon");
	if (r == 0) {
		list_put(&s->waiting, c);
		s->n_waiting++;
		pthread_cond_signal(&s->more);
	}
	pthread_mutex_unlock(&s->lock);
	if (r < 0)
		free(c);
	return r;
}

static int check_name(struct kn_view name, struct kn_err *err)
{
	if (name.len == 0 || name.len > KN_STORE_MAX_NAME || memchr(name.ptr, 0, name.len))
		return kn_fail(err, EINVAL, "a stored name has 1 to %d bytes, none of them zero",
		               KN_STORE_MAX_NAME);
	return 0;
}

int kn_store_put(struct kn_store *s, enum kn_table table, struct kn_view name, struct kn_view value,
                 kn_store_done done, void *arg, struct kn_err *err)
{
	int r = check_name(name, err);

	if (r < 0)
		return r;
	if (value.len > KN_STORE_MAX_VALUE)
		return kn_fail(err, EINVAL, "'%.*s' has %zu bytes; at most %d can be stored",
		               (int)name.len, name.ptr, value.len, KN_STORE_MAX_VALUE);
	struct change *c = change_new(table, name, value);
	if (!c)
		return kn_fail(err, ENOMEM, "no memory to store '%.*s'", (int)name.len, name.ptr);
	c->done = done;
	c->arg = arg;
	return submit(s, c, err);
}

int kn_store_delete(struct kn_store *s, enum kn_table table, struct kn_view name,
                    kn_store_done done, void *arg, struct kn_err *err)
{
	int r = check_name(name, err);

	if (r < 0)
		return r;
	struct change *c = change_new(table, name, KN_VIEW_NULL);
	if (!c)
		return kn_fail(err, ENOMEM, "no memory to remove '%.*s'", (int)name.len, name.ptr);
	c->remove = true;
	c->done = done;
	c->arg = arg;
	return submit(s, c, err);
}

int kn_store_sync(struct kn_store *s, struct kn_err *err)
{
	pthread_mutex_lock(&s->lock);
	while (s->waiting.head || s->writing)
		pthread_cond_wait(&s->idle, &s->lock);
	struct kn_err why = s->last;
	pthread_mutex_unlock(&s->lock);

	int code = answer_ended(s);
	return code ? kn_fail(err, code, "%s", why.text) : 0;
}

int kn_store_each(struct kn_store *s, enum kn_table table, kn_store_row row, void *arg,
                  struct kn_err *err)
{
	pthread_mutex_lock(&s->db_lock);
	int r = db_each(&s->db, table, row, arg, err);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}

int kn_store_get(struct kn_store *s, enum kn_table table, struct kn_view name, struct kn_buf *ret,
                 struct kn_err *err)
{
	pthread_mutex_lock(&s->db_lock);
	int r = db_get(&s->db, table, name, ret, err);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}
