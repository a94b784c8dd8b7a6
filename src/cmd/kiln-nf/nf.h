/*
 * The verbs of kiln-nf, and what they share. Private to kiln-nf.
 */
#pragma once

#include "base/args.h"
#include "base/json.h"

/* Each gets argv from the verb on and returns the exit code: 0, 1 (failed) or 2 (used wrongly). */
int kn_nf_run(int argc, char **argv);
int kn_nf_check(int argc, char **argv);
int kn_nf_bench(int argc, char **argv);

enum { KN_NF_GO = -1 };

/* Parse the command line: KN_NF_GO, or the exit code (help was shown, or usage was told). */
int kn_nf_parse(const struct kn_command *cmd, int argc, char **argv, const char ***ret_operands,
		size_t *ret_n);

/* Tell an error on standard error; returns 1. */
int kn_nf_failed(const char *name, const struct kn_err *err);

/* Flush standard output; returns 0, or 1 after telling that it could not be written. */
int kn_nf_printed(const char *name);

/* A chain's report for people, on standard output. */
void kn_nf_print_report(const json_t *report);

/* A chain between network interfaces. */
struct kn_nf_live {
	const char *name; /* of the command, for messages */
	const char *path; /* of the YAML file */
	const struct kn_arg_list *ports;
	uint64_t uid;	  /* to become; unless: */
	bool keep_root;
	int control;	  /* kilnd's socket, or -1 */
	bool json;
};

/* True when one of these --port words names an interface. */
bool kn_nf_is_live(const struct kn_arg_list *ports);

/* Run it until SIGTERM, SIGINT, or the supervisor says so. Returns the exit code. */
int kn_nf_live(const struct kn_nf_live *o);
