/*
 * The settings of kilnd: one row each, for the command line, the environment, the configuration
 * file and --help. Private to cmd/kilnd.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/args.h"
#include "base/json.h"
#include "base/log.h"

struct kn_kilnd_options {
	const char *state; /* folder; needed */
	const char *listen;
	const char *config;  /* file, or NULL */
	const char *run_dir; /* NULL: STATE/run */
	const char *lib_dir; /* NULL: found by itself, as the next three */
	const char *qemu;
	const char *kvm_device;
	const char *cgroup;
	const char *egress_range;
	const char *log_level_text, *log_format, *function_auth;
	const char *registry_auth, *plain_http; /* NULL: none */
	const char *issuer; /* NULL: http://LISTEN */
	bool allow_unix_functions;
	uint64_t max_instances, max_connections, max_body, max_reply, log_bytes;
	uint64_t idle_ms; /* functions that say nothing; 0: never */
	uint64_t memory;  /* for instances; 0 on the command line: no limit */
	uint64_t head_timeout_ms, idle_timeout_ms, drain_ms, token_ms;
	uint64_t workers, bare_shells;
	uint64_t snapshot_space; /* bytes; 0: Linux guests boot */
	uint64_t prepared, prepared_ms;

	/* made of the texts above */
	enum kn_level log_level;
	bool log_json, log_logfmt, functions_need_token;
	json_t *file; /* owns the strings that came from the file */
};

/**
 * Defaults, then the file, the environment and the flags; checked.
 *
 * Returns KN_ARGS_RUN; KN_ARGS_HELP: print kn_kilnd_help()
 * Errors  EINVAL what to type instead; what reading the file said
 */
kn_must_use int kn_kilnd_options_read(int argc, char **argv, struct kn_kilnd_options *ret,
				      struct kn_err *err);
void kn_kilnd_options_fini(struct kn_kilnd_options *o);

/** The page of --help. */
void kn_kilnd_help(struct kn_buf *ret);
