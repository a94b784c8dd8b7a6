/*
 * A function inside the engine: its pools, what waits for them, its counts and its log. Private to
 * faas/engine.
 */
#pragma once

#include "faas/engine.h"
#include "faas/pool.h"

/* What a function printed: whole lines, the oldest dropped when they pass the budget. */
struct kn_log_entry;
struct kn_log_ring {
	struct kn_log_entry *first, **last; /* last: where the next one is linked */
	size_t bytes, max_bytes;
	struct kn_log_follow *followers;
};

void kn_log_ring_init(struct kn_log_ring *r, size_t max_bytes);

/** Drops the lines; followers get gone(). */
void kn_log_ring_fini(struct kn_log_ring *r);

/** Remember a line, and hand it to the followers. Without memory it reaches only them. */
void kn_log_ring_add(struct kn_log_ring *r, const char *instance, enum kn_stream stream,
		     struct kn_view text);
void kn_log_ring_each(const struct kn_log_ring *r, size_t tail, uint64_t since_ns,
		      const char *instance, void (*each)(const struct kn_log_line *line, void *arg),
		      void *arg);
void kn_log_ring_follow(struct kn_log_ring *r, struct kn_log_follow *f);

struct kn_service;

enum { KN_COUNT_CODES = 24, KN_COUNT_BUCKETS = 11, KN_COUNT_RECENT = 64 };

/* What came of a function's requests. */
struct kn_counts {
	uint64_t came, finished, failed, cold, warm;
	struct {
		int code;
		uint64_t n;
	} codes[KN_COUNT_CODES];	    /* codes beyond these are counted under 0 */
	uint64_t buckets[KN_COUNT_BUCKETS]; /* not cumulative; slower ones only in finished */
	uint64_t sum_ns;
	uint64_t recent_ns[KN_COUNT_RECENT]; /* warm ones, a ring */
	uint64_t n_recent;
	uint64_t starts, failed_starts, crashes;
};

/** A request was answered: with which status (0: cut), after how long, and by whom. */
void kn_counts_add(struct kn_counts *c, int status, uint64_t ns, bool ours);

/** Median of the recent warm requests; 0 when there was none. */
uint64_t kn_counts_median(const struct kn_counts *c);

/** The exposition lines of all functions; services is the engine's list. */
void kn_counts_print(const struct kn_service *services, struct kn_buf *ret);

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

struct kn_service {
	struct kn_engine *engine;
	struct kn_service *next_in_bucket;
	struct kn_service *next, **prev; /* the engine's list */
	uint64_t hash;
	struct kn_function *fn;
	struct kn_pool *pool;	/* of fn */
	struct kn_pool *old[8]; /* of earlier revisions, drained until they are empty */
	size_t n_old;

	struct kn_call *first, **last; /* calls that wait, in order */
	uint32_t waiting;
	uint32_t in_flight;
	bool dispatching;
	struct kn_timer retry; /* when min instances may be started again */

	struct kn_counts counts;
	struct kn_series_list ended; /* what drivers counted in instances that are gone */
	struct kn_log_ring log;
	struct kn_phase cold[KN_MAX_PHASES];
	size_t n_cold;
	uint64_t cold_wall_ns;

	unsigned failures; /* starts and ends that failed in a row */
	uint64_t backoff_until_ns;
	char last_error[KN_ERR_TEXT];

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

/** Events of a service's pools; arg is the service. */
void kn_service_on_ready(struct kn_instance *i, void *arg);
void kn_service_on_ended(struct kn_instance *i, const struct kn_err *why, void *arg);
void kn_service_on_log(struct kn_instance *i, enum kn_stream stream, struct kn_view text,
		       void *arg);

/** Back-off is over and scale_min instances are missing. */
void kn_service_on_retry(struct kn_timer *t);
