/*
 * A function inside the engine: its pools, what waits for them, its counts and its log. Private to
 * faas/engine.
 */
#pragma once

#include "base/metric.h"
#include "faas/engine.h"
#include "faas/pool.h"

/* What a function printed: whole lines, the oldest dropped when they pass the budget. */
struct kn_log_entry;
struct kn_log_ring {
	struct kn_log_entry *first, **last; /* last: where the next one is linked */
	size_t bytes, max_bytes;
	struct kn_log_follow *followers;
	/* What came in the second that began at window_ns, and what of it was too much. */
	struct kn_loop *loop;
	struct kn_timer window;
	uint64_t window_ns;
	uint32_t lines, line_bytes;
	uint64_t dropped;
	char dropped_by[KN_INSTANCE_ID + 1];
};

enum { KN_LOG_LINES_PER_S = 2000, KN_LOG_BYTES_PER_S = 1024 * 1024 };

void kn_log_ring_init(struct kn_log_ring *r, struct kn_loop *loop, size_t max_bytes);

/** Drops the lines; followers get gone(). */
void kn_log_ring_fini(struct kn_log_ring *r);

/** Remember a line, and hand it to the followers. Without memory it reaches only them. */
void kn_log_ring_add(struct kn_log_ring *r, const char *instance, enum kn_stream stream,
		     struct kn_view text);

/**
 * The same for what functions print, which is limited to so much a second: a function that floods
 * its log must cost the node neither time nor its followers. What is dropped is counted and told.
 */
void kn_log_ring_offer(struct kn_log_ring *r, const char *instance, enum kn_stream stream,
		       struct kn_view text);
void kn_log_ring_each(const struct kn_log_ring *r, size_t tail, uint64_t since_ns,
		      const char *instance, void (*each)(const struct kn_log_line *line, void *arg),
		      void *arg);
void kn_log_ring_follow(struct kn_log_ring *r, struct kn_log_follow *f);

struct kn_service;

enum { KN_COUNT_CODES = 24, KN_COUNT_KINDS = 4, KN_COUNT_RECENT = 64 };

/* What came of a function's requests. */
struct kn_counts {
	uint64_t came, finished, failed;
	uint64_t calls[KN_COLD + 1]; /* those that got an instance, by enum kn_start */
	struct {
		int code;
		struct kn_histogram time; /* from the request to its answer */
	} codes[KN_COUNT_CODES]; /* codes beyond these are counted under 0 */
	struct kn_histogram waits; /* for an instance */
	struct {
		const char *kind; /* static; NULL: not used. The last one takes what is beyond */
		uint64_t n;
	} kinds[KN_COUNT_KINDS]; /* instances that became ready */
	uint64_t ended_cpu_ns;	 /* of instances that are gone */
	uint64_t recent_ns[KN_COUNT_RECENT]; /* warm ones, a ring */
	uint64_t n_recent;
	uint64_t done_ns[KN_COUNT_RECENT]; /* when instances answered, a ring */
	uint64_t n_done;
	uint64_t starts, failed_starts, crashes;
};

/** A request was answered: with which status (0: cut), after how long, and by whom. */
void kn_counts_add(struct kn_counts *c, int status, uint64_t ns, bool ours);

/** Median of the recent warm requests; 0 when there was none. */
uint64_t kn_counts_median(const struct kn_counts *c);

/** How long until `ahead` more requests are answered, by the rate of late; 0: nobody knows. */
uint64_t kn_counts_wait_ns(const struct kn_counts *c, uint64_t ahead);

/** An instance became ready: how, and what its phases took. */
void kn_counts_started(struct kn_service *s, const struct kn_sandbox *sb);

/** Remember what an instance used, as it ends. */
void kn_usage_keep(struct kn_service *s, struct kn_instance *i);

/* Numbers of drivers: one name with one set of labels each. */
struct kn_series;
struct kn_series_list {
	struct kn_series *at;
	size_t n;
};

/** Add what an instance counted to its service's, as it ends. */
void kn_series_keep(struct kn_service *s, struct kn_sandbox *sb);
void kn_series_fini(struct kn_series_list *l);

/** The exposition lines of all functions. */
void kn_series_print(const struct kn_service *services, struct kn_buf *ret);

/* A revision that is to take over when it is ready. */
struct kn_roll {
	struct kn_pool *pool; /* NULL: there is none */
	struct kn_function *fn;
	uint64_t began_ns, retry_ns;
	unsigned failures;
	struct kn_timer retry;
	struct kn_defer step;
};

struct kn_service {
	struct kn_engine *engine;
	struct kn_service *next_in_bucket;
	struct kn_service *next, **prev; /* the engine's list */
	uint64_t hash;
	struct kn_function *fn;
	struct kn_pool *pool; /* of fn */
	struct kn_roll coming;
	struct kn_pool **old; /* of other revisions, drained until they are empty */
	size_t n_old;

	struct kn_call *first, **last; /* calls that wait, in order */
	uint32_t waiting;
	uint32_t in_flight;
	bool dispatching;
	struct kn_timer retry; /* when min instances may be started again */
	struct kn_timer idle;  /* when to look for instances that idle */
	uint64_t used_ns;      /* when a request came or went, or somebody scaled */
	int64_t asked;	       /* instances that kn_engine_scale() asked for; -1: it did not */
	bool starved;	       /* wants a start that the node has no room for */

	struct kn_counts counts;
	struct kn_series_list ended; /* what drivers counted in instances that are gone */
	struct kn_log_ring log;
	struct kn_phase cold[KN_MAX_PHASES];
	size_t n_cold;
	uint64_t cold_wall_ns;

	unsigned failures; /* starts and ends that failed in a row */
	uint64_t backoff_until_ns;
	char last_error[KN_ERR_TEXT];
	char roll_error[KN_ERR_TEXT]; /* why the last update failed; empty: it did not */

	struct kn_defer gone;
	bool leaving; /* removed: freed when its pools are empty */
	void (*removed)(void *arg);
	void *removed_arg;
};

enum { KN_ENGINE_BUCKETS = 1024 };

struct kn_engine {
	struct kn_loop *loop;
	struct kn_engine_config config;
	char *run_dir;
	struct kn_service *buckets[KN_ENGINE_BUCKETS];
	struct kn_service *all;	    /* services that have a name */
	struct kn_service *leaving; /* removed ones that still drain */
	size_t n_services;
	uint32_t n_instances;
	uint64_t memory_bytes; /* promised to instances */
	kn_engine_rolled rolled;
	void *rolled_arg;
	struct kn_phase_time *phase_times; /* metrics.c */
	size_t n_phase_times;
	bool draining;
	struct kn_defer drained;
	void (*drain_done)(void *arg);
	void *drain_arg;
};

/** Free a removed service once its last instance has ended and its last call was released. */
void kn_service_check_gone(struct kn_service *s);

/* ---- calls.c: what waits, what is granted, what is started ------------------------------------- */

/** Give waiting calls the instances that have room, start what is wanted. */
void kn_service_dispatch(struct kn_service *s);

/** Answer every call that waits. */
void kn_service_refuse_all(struct kn_service *s, int status, unsigned retry_after_s,
			   const struct kn_err *why);

/** Begin an instance of one of the service's pools; counts it against the node's room. */
int kn_service_start(struct kn_service *s, struct kn_pool *p, struct kn_err *err);

/** Events of a service's pools; arg is the service. */
void kn_service_on_ready(struct kn_instance *i, void *arg);
void kn_service_on_ended(struct kn_instance *i, const struct kn_err *why, void *arg);
void kn_service_on_log(struct kn_instance *i, enum kn_stream stream, struct kn_view text,
		       void *arg);

/** Back-off is over and scale_min instances are missing. */
void kn_service_on_retry(struct kn_timer *t);

/* ---- scale.c: how many instances there shall be, and whether the node has room ------------------ */

/** Instances to keep, and at most to have. */
uint32_t kn_service_floor(const struct kn_service *s);
uint32_t kn_service_limit(const struct kn_service *s);

/** A request came: what was asked for below the minimum ends. */
void kn_service_wake(struct kn_service *s, uint64_t now);

/** Something may idle now: look at it in time. */
void kn_service_watch_idle(struct kn_service *s);
void kn_service_on_idle(struct kn_timer *t);

enum kn_room {
	KN_ROOM,
	KN_ROOM_SOON, /* an instance is being stopped: room_freed() looks again */
	KN_ROOM_NONE, /* err has the reason */
};

/**
 * Is there room for one more instance of fn, within the node's number and memory? Stops an idle
 * instance that another function does not have to keep, when that is what it takes. Marks s starved
 * when there is none now.
 */
enum kn_room kn_engine_room(struct kn_engine *e, struct kn_service *s, const struct kn_function *fn,
			    struct kn_err *err);
void kn_engine_take_room(struct kn_engine *e, const struct kn_function *fn);

/** An instance has ended: who is starved may try again. */
void kn_engine_give_room(struct kn_engine *e, const struct kn_function *fn);

/** What one instance of fn is promised. */
uint64_t kn_engine_charge(const struct kn_engine *e, const struct kn_function *fn);

/* ---- roll.c: from one revision to the next ------------------------------------------------------ */

/** Take fn and its pool over, both as references. Errors: ENOMEM, nothing is taken. */
int kn_roll_begin(struct kn_service *s, struct kn_function *fn, struct kn_pool *pool,
		  struct kn_err *err);

/** Start the first instance of the next revision, when it is time and there is room. */
void kn_roll_step(struct kn_service *s);
void kn_roll_ready(struct kn_service *s);
void kn_roll_failed(struct kn_service *s, const struct kn_err *why);
void kn_roll_on_retry(struct kn_timer *t);
void kn_roll_on_step(struct kn_defer *d);

/** Make the next revision the one that serves, ready or not. */
void kn_roll_promote(struct kn_service *s);

/** Drop it. Fine when there is none. */
void kn_roll_abandon(struct kn_service *s);
