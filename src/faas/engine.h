/*
 * The FaaS engine: knows the node's functions, gives each request an instance (a warm one, or the
 * one that a single-flight cold start makes), bounds what waits, and keeps what people ask about a
 * function: instances, counts, phases of the last cold start, log lines. Serves the event flow. The
 * gateway calls kn_engine_acquire(); the control API puts, removes and describes functions; triggers
 * will acquire as the gateway does.
 *
 * The engine neither parses deployments nor resolves images: the control plane hands it a checked
 * kn_function, and the image in the form that a driver starts, after its worker threads made sure
 * that it is there (kn_engine_image). At start the control plane puts every stored function again.
 *
 * Thread  everything belongs to the loop's thread; worker threads come back by kn_loop_post()
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/str.h"
#include "faas/function.h"
#include "oci/sandbox.h"

struct kn_engine;

/*
 * How this node runs one class of functions. A class without ops is refused with `why`.
 */
struct kn_engine_class {
	const struct kn_sandbox_ops *ops; /* NULL: this node refuses the class */
	const void *driver;		  /* what ops->start takes */
	const char *hypervisor;		  /* "QEMU with TCG", "kiln-vmm"; NULL when refused */
	const char *why;		  /* reason of the choice or of the refusal, for people */
	uint64_t overhead_bytes; /* memory that an instance may take beyond its function's limit */
	const char *no_network;		  /* why its functions get none (kiln.egress); NULL: they do */
	bool raw_image; /* fn->image is no image of the store (unix: the socket) */
};

struct kn_engine_config {
	struct kn_engine_class classes[KN_CLASSES]; /* by enum kn_class */
	const char *run_dir;	  /* absolute; a folder per instance is made below it */
	uint32_t max_instances;	  /* of the whole node */
	uint64_t memory_bytes;	  /* that all instances together may be promised; 0: no limit */
	uint64_t idle_ms;	  /* instances idle for so long are stopped; 0: never */
	uint64_t max_body_bytes;  /* of a request to a function */
	uint64_t max_reply_bytes; /* of a function's reply */
	size_t log_bytes;	  /* of remembered output per function */
	uint64_t stop_grace_ms;	  /* between asking an instance to stop and killing it */
	uint64_t drain_ms;	  /* how long a replaced instance may finish its requests */
};

#define KN_ENGINE_DEFAULTS                                                                         \
	((struct kn_engine_config){ .max_instances = 64,                                           \
				    .idle_ms = 5 * 60 * 1000,                                      \
				    .max_body_bytes = UINT64_C(64) << 20,                          \
				    .max_reply_bytes = UINT64_C(64) << 20,                         \
				    .log_bytes = 256 * 1024,                                       \
				    .stop_grace_ms = 2000,                                         \
				    .drain_ms = 30 * 1000 })

/** Errors: ENOMEM; what making run_dir said. */
kn_must_use int kn_engine_new(struct kn_loop *loop, const struct kn_engine_config *config,
			      struct kn_engine **ret, struct kn_err *err);

/**
 * Forget all functions and stop their instances (kn_engine_drain() first, for manners: those that
 * have not ended are left to die with this process). Calls must be over: free the HTTP server first.
 */
void kn_engine_free(struct kn_engine *e);
KN_AUTO(kn_engine_free, struct kn_engine *);

/**
 * Take no more requests, let those under way finish, stop all instances, then call done once (at
 * the earliest in the next round).
 */
void kn_engine_drain(struct kn_engine *e, void (*done)(void *arg), void *arg);

/** How this node runs a class; never NULL. ops is NULL when it does not, with the reason in why. */
const struct kn_engine_class *kn_engine_class(const struct kn_engine *e, enum kn_class c);

/**
 * Can this node run the function? For answers before anything is stored.
 * Errors  ENOTSUP with the reason and what would help
 */
kn_must_use int kn_engine_check(const struct kn_engine *e, const struct kn_function *fn,
				struct kn_err *err);

/*
 * A function's image, ready for a driver, merged with what the deployment says (environment,
 * fprocess). Copied by kn_engine_put(). All zero for a class with raw_image.
 */
struct kn_engine_image {
	const char *path;	 /* read-only erofs image; bare: the ELF file */
	const char *const *argv; /* NULL-terminated; NULL for bare */
	const char *const *env;	 /* NULL-terminated "NAME=value"; NULL for none */
	const char *cwd, *user;	 /* of the OCI configuration; may be NULL */
	const struct kn_sandbox_file *files; /* the secrets that it names, each as a file */
	size_t n_files;
};

/**
 * Make a function known, or replace it by another revision. A function that has instances goes on
 * with them until the first instance of the new revision is ready; then new requests go there, and
 * the old instances finish their requests and stop. A revision that does not become ready is dropped
 * and the old one stays: kn_engine_on_rolled() tells which it was. On a node without room for one
 * more instance, and for a function that has none, the new revision serves at once. Counts and logs
 * go on. Takes a reference to fn. Starts scale_min instances.
 *
 * Errors  as kn_engine_check(); ESHUTDOWN; ENOMEM
 */
kn_must_use int kn_engine_put(struct kn_engine *e, struct kn_function *fn,
			      const struct kn_engine_image *image, struct kn_err *err);

/** Is an earlier revision of it still serving, until the one that was put last is ready? */
bool kn_engine_rolling(const struct kn_engine *e, struct kn_view name);

/**
 * Told for each kn_engine_put() after which kn_engine_rolling() was true, unless another put or a
 * removal came first; never inside put.
 *
 * fn    the revision that serves now; borrowed
 * why   NULL: it is the new one; else why it is still the old one
 */
typedef void (*kn_engine_rolled)(struct kn_function *fn, const struct kn_err *why, void *arg);
void kn_engine_on_rolled(struct kn_engine *e, kn_engine_rolled call, void *arg);

/**
 * Keep n instances, until the function has idled for its idle time; then scale_min counts again, as
 * it does from the next request on when n is less. Instances beyond n are stopped, busy ones after
 * their requests. More than scale_max is fine: somebody asked for it.
 *
 * Errors  ENOENT
 */
kn_must_use int kn_engine_scale(struct kn_engine *e, struct kn_view name, uint32_t n,
				struct kn_err *err);

/**
 * Forget a function: new requests find nothing, waiting ones are answered, those under way finish,
 * its instances stop; then done runs once, at the earliest in the next round (NULL: nobody waits).
 *
 * Errors  ENOENT; ENOMEM
 */
kn_must_use int kn_engine_remove(struct kn_engine *e, struct kn_view name, void (*done)(void *arg),
				 void *arg, struct kn_err *err);

/* ---- what people ask ----------------------------------------------------------------------- */

/**
 * What a function is doing. Strings are borrowed until the engine's next call.
 *
 * usage   ask the drivers for memory and CPU time, too (reads /proc)
 *
 * Errors  ENOENT
 */
kn_must_use int kn_engine_live(const struct kn_engine *e, struct kn_view name, bool usage,
			       struct kn_function_live *ret, struct kn_err *err);

struct kn_engine_instance {
	const char *id;	   /* borrowed */
	const char *state; /* "starting", "ready", "busy", "draining", "stopping" */
	uint64_t started_wall_ns;
	uint64_t served; /* requests */
	uint32_t in_flight;
	uint64_t start_ns; /* how long its start took; 0 while starting */
	uint64_t memory_bytes, cpu_ns; /* used; 0 when its driver does not say */
};

/** Visit the instances of a function; each must not change the engine. Errors: ENOENT. */
kn_must_use int kn_engine_instances(const struct kn_engine *e, struct kn_view name,
				    void (*each)(const struct kn_engine_instance *i, void *arg),
				    void *arg, struct kn_err *err);

/** How many functions there are. */
size_t kn_engine_count(const struct kn_engine *e);

/**
 * The engine's families (base/metric.h): of all functions, with the names of OpenFaaS' gateway and
 * our own, and of the node.
 */
void kn_engine_metrics(const struct kn_engine *e, struct kn_buf *ret);

/**
 * Visit what the driver of a function counts beside that, over all its instances, those that have
 * ended included. labels as in the exposition format ("port=\"lan\",direction=\"rx\""); strings
 * live during the call. Errors: ENOENT.
 */
kn_must_use int kn_engine_counters(const struct kn_engine *e, struct kn_view name,
				   void (*each)(const char *counter, const char *labels,
						uint64_t value, void *arg),
				   void *arg, struct kn_err *err);

/* ---- logs ---------------------------------------------------------------------------------- */

struct kn_log_line {
	uint64_t wall_ns;
	const char *instance; /* borrowed, as text is, during the call only */
	enum kn_stream stream;
	struct kn_view text;
};

/**
 * Visit remembered lines, oldest first.
 *
 * tail        at most this many of the newest; 0: all
 * since_ns    wall time; older lines are left out; 0: all
 * instance    only of this one; NULL: of all
 *
 * Errors  ENOENT
 */
kn_must_use int kn_engine_logs(const struct kn_engine *e, struct kn_view name, size_t tail,
			       uint64_t since_ns, const char *instance,
			       void (*each)(const struct kn_log_line *line, void *arg), void *arg,
			       struct kn_err *err);

/*
 * A subscription to lines to come. Lives in the caller's memory; zero it, set line, gone and arg.
 * Either callback may end this subscription.
 */
struct kn_log_follow {
	void (*line)(struct kn_log_follow *f, const struct kn_log_line *line);
	/** The function was removed or the engine ends; f is no longer subscribed. */
	void (*gone)(struct kn_log_follow *f);
	void *arg;
	struct kn_log_follow *next, **prev; /* the engine's */
};

/** Errors: ENOENT. */
kn_must_use int kn_engine_follow(struct kn_engine *e, struct kn_view name, struct kn_log_follow *f,
				 struct kn_err *err);

/** Fine when it is not subscribed. */
void kn_engine_unfollow(struct kn_log_follow *f);

/* ---- invocations --------------------------------------------------------------------------- */

struct kn_instance; /* faas/pool.h */
struct kn_service;  /* a function inside the engine */

/** Find a function. NULL when there is none. Valid until the loop's round ends. */
struct kn_service *kn_engine_find(struct kn_engine *e, struct kn_view name);

/** Borrowed. */
const struct kn_function *kn_service_function(const struct kn_service *s);

enum kn_start {
	KN_WARM,
	KN_PREWARMED, /* the first request of an instance that was ready before it came, or of one
		       * that was made of a guest that was (kn_sandbox.prewarmed) */
	KN_COLD,      /* it waited for an instance that had to be made */
};

/** "warm", "prewarmed" or "cold". */
const char *kn_start_name(enum kn_start start);

enum { KN_CALL_PHASES = KN_MAX_PHASES + 1 }; /* "queue", then those of the driver */

/*
 * One request's way through the engine. Lives in the caller's memory; zero it and set the
 * callbacks. kn_engine_acquire() leads to exactly one of granted and refused, unless the call is
 * cancelled. After granted exactly one kn_engine_release() follows.
 */
struct kn_call {
	/** call->instance is yours. Runs inside acquire when a warm one is free. */
	void (*granted)(struct kn_call *call);
	/** No instance: answer with status (429, 502, 503); retry_after_s 0: do not say. */
	void (*refused)(struct kn_call *call, int status, unsigned retry_after_s,
			const struct kn_err *why);
	/** The instance ended while the call held it; what it sent may still be read. Release later. */
	void (*lost)(struct kn_call *call, const struct kn_err *why);

	struct kn_instance *instance;  /* NULL once lost() has run */
	enum kn_start start;
	uint64_t began_ns, granted_ns; /* monotonic */
	struct kn_phase phases[KN_CALL_PHASES];
	size_t n_phases;
	/* the engine's */
	struct kn_service *service;
	struct kn_call *next, **prev;
	int state;
};

/**
 * Ask for an instance of s. Within a service requests are served in order of arrival. The caller
 * holds the deadline: kn_engine_release() when it has passed.
 *
 * Returns true when the call waits; false when granted or refused has run (the call may be gone).
 */
bool kn_engine_acquire(struct kn_service *s, struct kn_call *call);

/**
 * Give the instance back, or withdraw a call that waits; and count the request. Not after refused.
 *
 * status   what the client got: an HTTP status, or 0 when the reply was cut
 * ours     Kiln made the answer (a failure of the platform or of the function), not the function
 */
void kn_engine_release(struct kn_call *call, int status, bool ours);

/** Count a request that was answered before it asked for an instance. */
void kn_service_count(struct kn_service *s, int status);

/** Bytes that a request's and a reply's body may have. */
void kn_service_limits(const struct kn_service *s, uint64_t *ret_request, uint64_t *ret_reply);
