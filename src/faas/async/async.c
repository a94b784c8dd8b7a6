/*
 * Theory of operation. A call is STORING until the store says that it is durable; then its caller
 * has 202 and it is WAITING for its time and for a place. dispatch() gives places in the order of
 * arrival, but never all to one function. RUNNING, it is a client of the gateway at the socket. An
 * answer that may be better later sends it back to WAITING; any other is dealt with: ANSWERED and
 * CALLING_BACK when somebody wants to know, then DELETING, and when the store has forgotten it, so
 * do we. One timer stands for the call that is due first.
 */
#include "faas/async.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/time.h"
#include "faas/async/private.h"
#include "faas/reply.h"

enum {
	MAX_BODY = 700 * 1024,             /* in base64 it fits a value of the store */
	MAX_ANSWER = 4 * 1024 * 1024,      /* that is kept for a callback */
	MAX_RETRY_MS = 60 * 1000,
	CALLBACK_ATTEMPTS = 4,
	CALLBACK_RETRY_MS = 2000,
	CALLBACK_THREADS = 2,
};

static void deal_with(struct async_call *c);

/* ---- a call's life --------------------------------------------------------------------------- */

static void call_free(struct async_call *c)
{
	struct kn_async *a = c->queue;

	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	else
		a->last = c->prev;
	a->n_calls--;
	a->bytes -= c->bytes;
	a->n_running -= c->state == RUNNING;
	kn_http_client_free(c->client);
	kn_buf_fini(&c->body);
	kn_buf_fini(&c->answer);
	json_decref(c->record);
	free(c->content_type);
	free(c);
}

static struct async_call *call_new(struct kn_async *a)
{
	struct async_call *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->queue = a;
	c->prev = a->last;
	*a->last = c;
	a->last = &c->next;
	a->n_calls++;
	return c;
}

static void set_state(struct async_call *c, enum state state)
{
	c->queue->n_running -= c->state == RUNNING;
	c->queue->n_running += state == RUNNING;
	c->state = state;
	kn_defer_start(c->queue->config.loop, &c->queue->dispatch);
}

static void on_deleted(const struct kn_err *err, void *arg)
{
	struct async_call *c = arg;

	if (err)   /* it will be made once more by the next life */
		kn_log(KN_WARN, "call stays in the store", KN_S("call", c->id), KN_E(err));
	call_free(c);
}

static void forget(struct async_call *c)
{
	struct kn_err err = KN_ERR_INIT;

	set_state(c, DELETING);
	if (kn_store_delete(c->queue->config.store, KN_TABLE_CALL, kn_view_of(c->key), on_deleted, c,
	                    &err) < 0)
		on_deleted(&err, c);
}

/* ---- the answer ------------------------------------------------------------------------------ */

static bool may_be_better_later(const struct async_call *c)
{
	return c->status == 0 || c->status == 429 || c->status == 502 || c->status == 503 ||
	       c->status == 504;
}

static void try_again(struct async_call *c)
{
	struct kn_async *a = c->queue;
	uint64_t ms = a->config.first_retry_ms;

	for (unsigned i = 1; i < c->attempts && ms < MAX_RETRY_MS; i++)
		ms *= 2;
	ms = kn_max(ms, c->retry_after_s * 1000);
	ms = kn_min(ms, (uint64_t)MAX_RETRY_MS);
	c->due_ns = kn_now_ns() + ms * KN_NS_PER_MS;
	a->retries++;
	kn_log(KN_DEBUG, "asynchronous call again", KN_S("fn", c->function), KN_S("call", c->id),
	       KN_I("status", c->status), KN_U("attempt", c->attempts), KN_U("in_ms", ms));
	set_state(c, WAITING);
}

static void run_over(struct async_call *c)
{
	struct kn_async *a = c->queue;
	bool failed = may_be_better_later(c);

	kn_http_client_free(kn_take_ptr(c->client));
	c->took_ns = kn_now_ns() - c->began_ns;
	if (failed && c->attempts < a->config.attempts) {
		try_again(c);
		return;
	}
	a->failed += failed;
	a->answered += !failed;
	kn_log_often(failed ? KN_WARN : KN_DEBUG,
	             failed ? "asynchronous call given up" : "asynchronous call answered",
	             KN_S("fn", c->function), KN_S("call", c->id), KN_I("status", c->status),
	             KN_U("attempts", c->attempts), KN_U("us", c->took_ns / KN_NS_PER_US));
	deal_with(c);
}

static void on_head(struct kn_http_client *client, const struct kn_http_head *head, void *arg)
{
	struct async_call *c = arg;
	struct kn_view type = kn_http_header(head, "Content-Type");
	struct kn_view later = kn_http_header(head, "Retry-After");

	(void)client;
	c->status = head->status;
	if (kn_parse_u64(later, 3600, &c->retry_after_s, NULL) < 0)
		c->retry_after_s = 0;
	free(c->content_type);
	c->content_type = type.len ? strndup(type.ptr, type.len) : NULL;
}

static void on_data(struct kn_http_client *client, struct kn_view data, void *arg)
{
	struct async_call *c = arg;

	(void)client;
	if (!c->callback)
		return;
	if (c->answer.len + data.len <= MAX_ANSWER)
		kn_buf_add_view(&c->answer, data);
	else
		c->answer.failed = true;
}

static void on_end(struct kn_http_client *client, bool reusable, void *arg)
{
	(void)client;
	(void)reusable;
	run_over(arg);
}

static void on_failed(struct kn_http_client *client, const struct kn_err *err, void *arg)
{
	struct async_call *c = arg;

	(void)client;
	kn_log(KN_DEBUG, "asynchronous call cut", KN_S("call", c->id), KN_E(err));
	c->status = 0;
	run_over(c);
}

/* ---- making it ------------------------------------------------------------------------------- */

static void run(struct async_call *c)
{
	static const struct kn_http_client_hooks HOOKS = {
		.head = on_head, .data = on_data, .end = on_end, .failed = on_failed
	};
	struct kn_async *a = c->queue;
	struct kn_http_client_hooks hooks = HOOKS;
	struct kn_header *fields = NULL;
	struct kn_arena arena;

	set_state(c, RUNNING);
	c->attempts++;
	c->began_ns = kn_now_ns();
	c->status = 0;
	c->retry_after_s = 0;
	kn_buf_clear(&c->answer);
	hooks.arg = c;
	int fd = kn_unix_connect(a->socket, NULL);
	if (fd < 0 || kn_http_client_new(a->config.loop, fd, &c->client, NULL) < 0) {
		kn_close(fd);
		run_over(c);
		return;
	}
	kn_arena_init(&arena);
	size_t n = record_fields(c, &arena, &fields);
	char *target = kn_arena_printf(&arena, "/function/%s%s%s", c->function,
	                               c->path[0] == '?' ? "/" : "", c->path);
	if (n > 0 && target) {
		kn_http_client_begin(c->client, kn_view_of(c->method), kn_view_of(target), fields, n,
		                     (int64_t)c->body.len, &hooks);
		kn_http_client_write(c->client, kn_buf_view(&c->body));
		kn_http_client_finish(c->client);
	} else {
		run_over(c);
	}
	kn_arena_fini(&arena);
}

static unsigned running_of(const struct kn_async *a, const char *function)
{
	unsigned n = 0;

	for (const struct async_call *c = a->first; c; c = c->next)
		n += c->state == RUNNING && strcmp(c->function, function) == 0;
	return n;
}

/* ---- telling it ------------------------------------------------------------------------------ */

static void on_called_back(struct kn_job *job, bool cancelled)
{
	struct async_call *c = kn_container_of(job, struct async_call, job);
	struct kn_async *a = c->queue;

	if (cancelled || atomic_load(&a->stop)) {
		set_state(c, ANSWERED);   /* stays on the disk, so that the next life tells it */
		return;
	}
	if (c->callback_err.code && c->callbacks < CALLBACK_ATTEMPTS) {
		c->due_ns = kn_now_ns() + ((uint64_t)CALLBACK_RETRY_MS << c->callbacks) * KN_NS_PER_MS;
		set_state(c, ANSWERED);
		return;
	}
	if (c->callback_err.code)
		kn_log(KN_WARN, "callback given up", KN_S("fn", c->function), KN_S("call", c->id),
		       KN_S("url", c->callback), KN_E(&c->callback_err));
	a->lost_callbacks += c->callback_err.code != 0;
	a->called_back += c->callback_err.code == 0;
	forget(c);
}

static void call_back(struct async_call *c)
{
	c->job = (struct kn_job){ .run = callback_send, .done = on_called_back };
	c->callbacks++;
	set_state(c, CALLING_BACK);
	if (kn_work_submit(c->queue->work, &c->job, &c->callback_err) < 0) {
		c->due_ns = kn_now_ns() + CALLBACK_RETRY_MS * KN_NS_PER_MS;
		set_state(c, ANSWERED);
	}
}

static void deal_with(struct async_call *c)
{
	if (c->answer.failed) {   /* too large, or no memory: the status alone is told */
		kn_buf_fini(&c->answer);
		c->answer = KN_BUF_INIT;
		kn_log(KN_WARN, "callback without the answer's body: it is too large",
		       KN_S("fn", c->function), KN_S("call", c->id));
	}
	if (!c->callback) {
		forget(c);
		return;
	}
	c->due_ns = 0;
	set_state(c, ANSWERED);
}

/* ---- whose turn it is ------------------------------------------------------------------------ */

static void on_timer(struct kn_timer *t)
{
	struct kn_async *a = kn_container_of(t, struct kn_async, timer);

	kn_defer_start(a->config.loop, &a->dispatch);
}

static bool has_place(const struct kn_async *a, const struct async_call *c)
{
	return a->n_running < a->config.at_once &&
	       running_of(a, c->function) < kn_max(a->config.at_once / 2, 1u);
}

static void on_dispatch(struct kn_defer *d)
{
	struct kn_async *a = kn_container_of(d, struct kn_async, dispatch);
	uint64_t now = kn_now_ns(), next = UINT64_MAX;
	struct async_call *following;

	for (struct async_call *c = a->first; c && !a->draining; c = following) {
		following = c->next;   /* a call may be over, and gone, before run() returns */
		if (c->state != WAITING && c->state != ANSWERED)
			continue;
		if (c->due_ns > now)
			next = kn_min(next, c->due_ns);
		else if (c->state == ANSWERED)
			call_back(c);
		else if (has_place(a, c))
			run(c);
	}
	if (next != UINT64_MAX && kn_timer_start(a->config.loop, &a->timer, next, NULL) < 0)
		kn_log(KN_WARN, "no memory for a timer: the next call wakes the queue");
}

/* ---- taking ---------------------------------------------------------------------------------- */

static void on_gone(struct kn_http_exchange *x, void *arg)
{
	(void)x;
	((struct async_call *)arg)->x = NULL;   /* it may be durable already: it is made */
}

static void on_stored(const struct kn_err *err, void *arg)
{
	struct async_call *c = arg;
	struct kn_http_exchange *x = kn_take_ptr(c->x);

	if (x)
		kn_http_set_hooks(x, &(struct kn_http_hooks){ .data = NULL });
	if (err) {
		if (x)
			kn_reply_fail(x, err, "the call was not taken");
		call_free(c);
		return;
	}
	c->queue->accepted++;
	if (x) {
		const struct kn_header fields[] = { { KN_VIEW("X-Call-Id"), kn_view_of(c->id) } };
		kn_http_reply(x, 202, fields, 1, KN_VIEW_NULL);
	}
	set_state(c, WAITING);
}

struct taken {
	struct kn_async *queue;
	struct kn_view name, path, id;
};

/* Nothing that can fail comes after the store has it. */
static int store_call(struct async_call *c, struct kn_err *err)
{
	struct kn_async *a = c->queue;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	kn_json_print(&text, c->record, 0);
	if (text.failed)
		return kn_fail(err, ENOMEM, "no memory for a call");
	if (text.len > KN_STORE_MAX_VALUE)
		return kn_fail(err, EMSGSIZE, "the call is larger than %d bytes", MAX_BODY);
	int r = record_read(c, err);
	if (r < 0)
		return r;
	c->bytes = text.len;
	a->bytes += text.len;
	snprintf(c->key, sizeof(c->key), "%0*llu", KEY_LEN, (unsigned long long)a->next_key++);
	return kn_store_put(a->config.store, KN_TABLE_CALL, kn_view_of(c->key), kn_buf_view(&text),
	                    on_stored, c, err);
}

static void on_body(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	const struct taken *t = arg;
	struct kn_err err = KN_ERR_INIT;
	struct async_call *c = call_new(t->queue);

	if (c)
		c->record = record_make(kn_http_head(x), t->name, t->path, t->id, body);
	if (!c || !c->record) {
		if (c)
			call_free(c);
		kn_reply_error(x, 503, "out of memory for a call", "try again soon");
		return;
	}
	c->x = x;
	if (store_call(c, &err) < 0) {
		call_free(c);
		kn_reply_fail(x, &err, "the call was not taken");
		return;
	}
	kn_http_set_hooks(x, &(struct kn_http_hooks){ .gone = on_gone, .arg = c });
}

void kn_async_take(struct kn_async *a, struct kn_http_exchange *x, struct kn_view name,
                   struct kn_view path, struct kn_view id)
{
	struct kn_arena *arena = kn_http_arena(x);
	struct kn_view callback = kn_http_header(kn_http_head(x), "X-Callback-Url");
	struct taken *t = kn_arena_alloc(arena, sizeof(*t));
	char *own_id = kn_arena_copy(arena, id.ptr, id.len);

	if (callback.len && !record_url_ok(callback)) {
		kn_reply_error(x, 400, "X-Callback-Url is no http:// or https:// URL", NULL);
	} else if (a->n_calls >= a->config.max_waiting || a->bytes >= a->config.max_bytes) {
		kn_reply_error(x, 429, "too many asynchronous calls wait", "try again later");
	} else if (!t || !own_id) {
		kn_reply_error(x, 503, "out of memory for a call", "try again soon");
	} else {
		*t = (struct taken){ a, name, path, { own_id, id.len } };
		kn_http_collect(x, MAX_BODY, on_body, t);
	}
}

/* ---- the queue's life ------------------------------------------------------------------------ */

static int load(struct kn_view name, struct kn_view value, void *arg, struct kn_err *err)
{
	struct kn_async *a = arg;
	struct async_call *c = call_new(a);
	uint64_t key;

	if (!c)
		return kn_fail(err, ENOMEM, "no memory for stored calls");
	c->bytes = value.len;
	a->bytes += value.len;
	if (name.len != KEY_LEN || kn_parse_u64(name, UINT64_MAX - 1, &key, NULL) < 0 ||
	    kn_json_parse(value, &c->record, NULL) < 0)
		return kn_fail(err, EUCLEAN, "stored call '%.*s' cannot be read",
		               (int)kn_min(name.len, (size_t)KEY_LEN), name.ptr);
	memcpy(c->key, name.ptr, KEY_LEN);
	a->next_key = kn_max(a->next_key, key + 1);
	c->state = WAITING;
	return record_read(c, err);
}

int kn_async_new(const struct kn_async_config *config, struct kn_async **ret, struct kn_err *err)
{
	const struct kn_work_config work = { .threads = CALLBACK_THREADS, .max_waiting = 256 };
	struct kn_async *a = calloc(1, sizeof(*a));

	if (!a)
		return kn_fail(err, ENOMEM, "no memory for asynchronous calls");
	curl_global_init(CURL_GLOBAL_DEFAULT);
	a->config = *config;
	a->last = &a->first;
	a->next_key = 1;
	a->timer.call = on_timer;
	a->dispatch.call = on_dispatch;
	a->socket = strdup(config->socket);
	int r = a->socket ? kn_work_new(config->loop, &work, &a->work, err)
	                  : kn_fail(err, ENOMEM, "no memory for asynchronous calls");
	if (r == 0)
		r = kn_store_each(config->store, KN_TABLE_CALL, load, a, err);
	if (r < 0) {
		kn_async_free(a);
		return r;
	}
	if (a->n_calls > 0)
		kn_log(KN_INFO, "asynchronous calls of an earlier life", KN_U("calls", a->n_calls));
	kn_defer_start(config->loop, &a->dispatch);
	*ret = a;
	return 0;
}

void kn_async_free(struct kn_async *a)
{
	if (!a)
		return;
	a->draining = true;
	atomic_store(&a->stop, true);
	kn_work_free(a->work);
	kn_timer_stop(&a->timer);
	while (a->first)
		call_free(a->first);
	kn_defer_stop(&a->dispatch);
	free(a->socket);
	free(a);
}

void kn_async_drain(struct kn_async *a)
{
	a->draining = true;
}

size_t kn_async_busy(const struct kn_async *a)
{
	return a->n_running;
}

/* ---- metrics --------------------------------------------------------------------------------- */

static void counter(struct kn_buf *page, const char *name, const char *help, uint64_t value)
{
	kn_metric_family(page, name, KN_COUNTER, help);
	kn_metric_u64(page, name, NULL, 0, value);
}

void kn_async_metrics(const struct kn_async *a, struct kn_buf *page)
{
	kn_metric_family(page, "kiln_async_waiting", KN_GAUGE,
	                 "Asynchronous calls on the disk that are not over.");
	kn_metric_u64(page, "kiln_async_waiting", NULL, 0, a->n_calls);
	counter(page, "kiln_async_accepted_total", "Calls that were answered 202.", a->accepted);
	counter(page, "kiln_async_answered_total", "Calls that got an answer.", a->answered);
	counter(page, "kiln_async_failed_total", "Calls given up after all attempts.", a->failed);
	counter(page, "kiln_async_retries_total", "Attempts after the first.", a->retries);
	counter(page, "kiln_async_callbacks_total", "Answers that were posted.", a->called_back);
	counter(page, "kiln_async_callbacks_failed_total", "Answers that could not be posted.",
	        a->lost_callbacks);
}
