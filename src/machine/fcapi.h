/*
 * Firecracker's API as far as this monitor can keep its promises: what it answers 204 to is done,
 * everything else is 400 with a fault_message that says why. One step takes a request and gives a
 * reply, without sockets or threads, so that API clients, the configuration file and the fuzzer use
 * the same code; what touches the machine is behind hooks.
 *
 * Paths: GET /, /version, /vm/config; GET PUT PATCH /machine-config; PUT /boot-source, /logger,
 * /actions (InstanceStart); PATCH /vm; and Kiln's own PUT /kiln/channel.
 *
 * Thread  one
 * Source  Firecracker's API description (Swagger), facts only
 */
#pragma once

#include "base/json.h"
#include "machine/vmm.h"

enum { KN_FCAPI_MAX_BODY = 51200 };

/** What was configured; strings are owned. */
struct kn_fcapi_settings {
	char *kernel_image_path;         /* NULL: no boot source yet */
	char *boot_args;                 /* kept and shown; bare programs have no use for it */
	uint64_t vcpu_count, mem_size_mib;
	char *channel_path;              /* NULL: the program cannot be called */
	uint64_t max_request_bytes, max_reply_bytes, slots;
	uint64_t time_limit_ms;
};

struct kn_fcapi_log {
	const char *path;                /* NULL: leave it */
	const char *level;               /* NULL: leave it */
};

struct kn_fcapi_hooks {
	enum kn_vmm_state (*state)(void *arg);
	/** Is this a program that we can run? Judged at PUT /boot-source, as Firecracker does. */
	int (*check_image)(const char *path, void *arg, struct kn_err *err);
	int (*start)(const struct kn_fcapi_settings *s, void *arg, struct kn_err *err);
	int (*pause)(void *arg, struct kn_err *err);
	int (*resume)(void *arg, struct kn_err *err);
	int (*log)(const struct kn_fcapi_log *log, void *arg, struct kn_err *err);
	void *arg;
};

struct kn_fcapi {
	const char *id;                  /* borrowed */
	struct kn_fcapi_hooks hooks;
	struct kn_fcapi_settings settings;
};

/** Defaults: 1 vCPU, 128 MiB, no boot source, no channel. */
void kn_fcapi_init(struct kn_fcapi *api, const char *id, const struct kn_fcapi_hooks *hooks);
void kn_fcapi_fini(struct kn_fcapi *api);

/**
 * Answer one request.
 *
 * path    without query
 * reply   gets the body, JSON; empty for 204
 *
 * Returns the status: 200, 204 or 400
 */
int kn_fcapi_answer(struct kn_fcapi *api, struct kn_view method, struct kn_view path,
                    struct kn_view body, struct kn_buf *reply);

/**
 * Apply a configuration file: an object with the keys "boot-source", "machine-config", "logger" and
 * "kiln-channel", each as in the PUT of that name. Nothing is started.
 *
 * Errors  EINVAL with what is wrong
 */
kn_must_use int kn_fcapi_configure(struct kn_fcapi *api, struct kn_view text, struct kn_err *err);

/** Firecracker's rule for --id: 1 to 64 letters, digits and '-'. Errors: EINVAL. */
kn_must_use int kn_fcapi_check_id(const char *id, struct kn_err *err);

/*
 * A monitor with an API or a configuration file, whole: sockets, microVM and its end.
 */
struct kn_fcapi_serve {
	const char *device;
	const char *api_sock;            /* NULL: no API */
	const char *config;              /* text of the configuration file, or NULL */
	const char *id;
	uint64_t max_body;               /* of a request, bytes */
};

/**
 * Serve until the microVM ends, or SIGTERM or SIGINT comes.
 *
 * Returns the exit code for main: 0 clean end, 1 failure (logged)
 */
int kn_fcapi_run(const struct kn_fcapi_serve *serve);
