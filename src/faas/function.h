/*
 * What a function is: the specification that a user deploys, checked, with every default filled in.
 * It is read from OpenFaaS' deployment JSON (Kiln's extras are annotations "kiln.NAME") and from
 * stack.yaml, and written back for the store and for the API. Used by control, engine and pool, and
 * by `kiln deploy`. Serves the event flow.
 *
 * A kn_function does not change after kn_function_parse() and kn_function_resolve(). It is shared by
 * reference: an update makes a new one while instances of the old one still drain.
 *
 * Thread  references are counted without atomics: one thread, the loop's
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "oci/image.h"
#include "oci/sandbox.h"

#define KN_NAMESPACE "openfaas-fn"    /* the one namespace of a node */

enum kn_class {
	KN_CLASS_MICROVM,
	KN_CLASS_BARE,
	KN_CLASS_CONTAINER,
	KN_CLASS_NF,
	KN_CLASS_UNIX,            /* a server that somebody else runs: image is the socket's path */
	KN_CLASSES,
};

/** "microvm", "bare", "container", "nf", "unix". */
const char *kn_class_name(enum kn_class c);

struct kn_pair {
	const char *name, *value;
};

struct kn_pairs {
	struct kn_pair *at;
	size_t n;
};

struct kn_strings {
	const char **at;
	size_t n;
};

/** cpu and memory as the user wrote them; NULL where nothing was said. */
struct kn_resources {
	const char *memory, *cpu;
};

struct kn_function {
	const char *name;             /* DNS label (RFC 1123): [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])? */
	const char *ns;               /* KN_NAMESPACE */
	const char *image;            /* reference as deployed */
	const char *env_process;      /* "" when none; also reaches the function as env fprocess */
	struct kn_pairs env, labels, annotations;
	struct kn_strings constraints, secrets;
	struct kn_resources limits, requests;
	bool read_only_root;

	/* What the annotations kiln.* and the limits say, or the default. */
	enum kn_class class;
	bool class_given;             /* the user named the class; else it follows the image */
	enum kn_contract contract;
	bool contract_given;
	uint16_t port;                /* kiln.port: 8080 */
	struct kn_strings ports;      /* kiln.ports: "PORT=INTERFACE" of a packet function, NULL behind the last */
	const char *ready_path;       /* kiln.ready-path: NULL, an accepting port is enough */
	bool open;                    /* kiln.auth=open: callers need no token, whatever the node says */
	bool needs_token;             /* kiln.auth=token: callers need one; neither: kilnd decides */
	uint32_t concurrency;         /* kiln.concurrency: requests at once per instance */
	uint32_t queue;               /* kiln.queue: requests that may wait for an instance */
	uint32_t scale_min;           /* label com.openfaas.scale.min: instances kept; 0 */
	uint32_t scale_max;           /* label com.openfaas.scale.max: instances at most */
	const struct kn_egress *egress; /* kiln.egress; NULL: no network */
	uint32_t scale_target;        /* label com.openfaas.scale.target with type capacity: requests that
	                               * an instance is meant to have; 0: as many as it can take */
	bool scale_zero;              /* label com.openfaas.scale.zero: none is kept when it idles */
	uint64_t idle_ms;             /* label com.openfaas.scale.zero-duration; 0: the node's */
	bool snapshot_off;            /* kiln.snapshot=off: every start begins with the program's own */
	uint64_t timeout_ms;          /* kiln.timeout: the one deadline of an invocation, start and wait included */
	uint64_t boot_timeout_ms;     /* kiln.boot-timeout: start to ready */
	uint64_t memory_bytes;        /* limits.memory */
	uint32_t vcpus;               /* limits.cpu, rounded up */
	uint32_t cpu_milli;           /* limits.cpu in thousandths of a core; 0: nothing was said */
	uint32_t max_pids;            /* kiln.pids: processes and threads; 0: the driver's default */

	uint64_t created_ns;          /* wall clock; set by kn_function_parse() */
	unsigned refs;
	struct kn_arena arena;        /* owns every string above and this struct's arrays */
};

/**
 * Read a deployment. Unknown fields and unknown kiln.* annotations are errors with a suggestion.
 *
 * ret     one reference; kn_function_unref() it
 * Errors  EINVAL told for the user; ENOMEM
 */
kn_must_use int kn_function_parse(const json_t *deployment, struct kn_function **ret,
                                  struct kn_err *err);

/** Read what kn_function_save() wrote. Errors: EUCLEAN; ENOMEM */
kn_must_use int kn_function_load(struct kn_view text, struct kn_function **ret, struct kn_err *err);

/** Append the stored form. Errors: ENOMEM */
kn_must_use int kn_function_save(const struct kn_function *fn, struct kn_buf *ret,
                                 struct kn_err *err);

/** The deployment JSON that gives the same function again; NULL when memory is out. */
json_t *kn_function_deployment(const struct kn_function *fn);

/**
 * Fit class and contract to the kind of image, before the function is shared: a bare image makes it
 * bare, a chain a packet function, any other image a microVM, unless the user asked for what does
 * not fit.
 *
 * Errors  EINVAL says which class fits
 */
kn_must_use int kn_function_resolve(struct kn_function *fn, enum kn_image_kind kind,
                                    struct kn_err *err);

/** An interface that both packet functions want, as a's binding ("lan=eth1"); NULL: none. */
const char *kn_function_shared_port(const struct kn_function *a, const struct kn_function *b);

/** One reference more, or one less; the last one frees it. unref(NULL) is fine. */
struct kn_function *kn_function_ref(struct kn_function *fn);
void kn_function_unref(struct kn_function *fn);
KN_AUTO(kn_function_unref, struct kn_function *);

/** True for a DNS label. */
bool kn_function_name_ok(struct kn_view name);

/**
 * "NAME" or "NAME.NAMESPACE" to NAME. Errors: EINVAL bad name; ENOENT another namespace
 */
kn_must_use int kn_function_split(struct kn_view text, struct kn_view *ret_name, struct kn_err *err);

/** A function at work: filled by the engine, shown by the control API. Zero is "nothing yet". */
struct kn_function_live {
	uint64_t invocations;         /* requests that came in, whatever became of them */
	uint64_t failed;              /* of those: answered 5xx by Kiln or by the function */
	uint64_t cold, prewarmed, warm;
	uint32_t instances;           /* started and not ended */
	uint32_t ready;               /* of those: ready */
	uint32_t busy;                /* of those: with a request */
	uint32_t waiting;             /* requests in the queue */
	uint32_t wanted;              /* instances kept: scale.min, or what scale-function asked for */
	const char *hypervisor;       /* driver of its instances: "qemu", "kvm"; NULL: none chosen */
	const char *hypervisor_why;   /* why that one; may be NULL */
	uint64_t memory_bytes;        /* of all instances */
	uint64_t cpu_ns;
	struct kn_phase phases[KN_MAX_PHASES];   /* of the last cold start */
	size_t n_phases;
	uint64_t last_cold_ns;        /* wall clock of that start; 0: none yet */
	uint64_t warm_p50_ns;         /* median of recent warm invocations; 0: none yet */
	const char *last_error;       /* why the last instance ended badly; NULL */
	const char *update;           /* "running", "failed": the last update; NULL: it is what serves */
	const char *update_error;     /* why it failed, or what it waits for; NULL */
};

/**
 * The status JSON of OpenFaaS with Kiln's own object "kiln" in it. NULL when memory is out.
 * usage   add usage{cpu,totalMemoryBytes}
 */
json_t *kn_function_status(const struct kn_function *fn, const struct kn_function_live *live,
                           bool usage);

/**
 * A stack.yaml (already parsed, see base/conf.h) to deployments, in the file's order.
 *
 * Errors  EINVAL names the function and the key; "handler" and "lang" without "image" are told to
 *         be built first; ENOMEM
 */
struct kn_stack {
	const char *gateway;          /* provider.gateway, or NULL */
	struct kn_function **at;
	size_t n;
	struct kn_arena arena;
};
kn_must_use int kn_stack_parse(const json_t *yaml, struct kn_stack *ret, struct kn_err *err);
void kn_stack_fini(struct kn_stack *s);
static inline void kn_stack_fini_auto(struct kn_stack *s)
{
	kn_stack_fini(s);
}
