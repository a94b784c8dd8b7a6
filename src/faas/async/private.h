/*
 * One asynchronous call, and what is written of it. Private to faas/async.
 */
#pragma once

#include <stdatomic.h>

#include "base/json.h"
#include "base/work.h"
#include "faas/async.h"

enum { KEY_LEN = 20, MAX_URL = 2048 };

enum state {
	STORING,       /* x waits for 202 */
	WAITING,       /* until due_ns, then for a place */
	RUNNING,
	ANSWERED,      /* the callback waits until due_ns */
	CALLING_BACK,
	DELETING,
};

struct async_call {
	struct kn_async *queue;
	struct async_call *next, **prev;   /* of all, in order of arrival */
	enum state state;
	struct kn_http_exchange *x;
	char key[KEY_LEN + 1];             /* in the store: calls come back in order */
	uint64_t bytes;                    /* of the record */

	/* what is stored; strings are the record's */
	json_t *record;
	const char *function, *path, *id, *method, *callback;
	struct kn_buf body;

	unsigned attempts, callbacks;
	uint64_t due_ns, began_ns, took_ns;
	struct kn_http_client *client;
	int status;                        /* of the answer; 0: none */
	uint64_t retry_after_s;
	char *content_type;
	struct kn_buf answer;              /* kept for a callback alone */

	struct kn_job job;
	struct kn_err callback_err;
};

struct kn_async {
	struct kn_async_config config;
	char *socket;
	struct kn_work *work;
	atomic_bool stop;
	bool draining;
	struct async_call *first, **last;
	size_t n_calls, n_running;
	uint64_t bytes, next_key;
	struct kn_timer timer;
	struct kn_defer dispatch;
	uint64_t accepted, answered, failed, retries, called_back, lost_callbacks;
};

/* ---- record.c ------------------------------------------------------------------------------- */

/** Everything of a request that is kept, as JSON. NULL when memory is out. */
json_t *record_make(const struct kn_http_head *head, struct kn_view name, struct kn_view path,
                    struct kn_view id, struct kn_view body);

/** Fill the call's strings and body from its record. Errors: EUCLEAN; ENOMEM */
kn_must_use int record_read(struct async_call *c, struct kn_err *err);

/** The fields of the request, into the arena. Returns how many; 0 also when memory is out. */
size_t record_fields(const struct async_call *c, struct kn_arena *arena, struct kn_header **ret);

/** Is it "http://..." or "https://...", of plain characters? */
bool record_url_ok(struct kn_view url);

/* ---- callback.c ----------------------------------------------------------------------------- */

/** Post the answer: in a worker thread. The outcome is in callback_err. */
void callback_send(struct kn_job *job);
