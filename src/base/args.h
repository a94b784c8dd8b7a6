/*
 * Command lines: one row per option feeds parsing, --help, the environment and "did you mean".
 * Programs with verbs (kiln, kiln-nf) have a table of verbs, each with its own rows.
 *
 * Precedence is the caller's defaults, then the environment (where a row names a variable), then
 * the flag. Long options take "--name value" and "--name=value"; "--" ends options. Single-letter
 * forms only where a row gives one.
 *
 * Thread  before the first thread; keeps no state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum kn_arg_kind {
	KN_ARG_FLAG,      /* bool *: true when given */
	KN_ARG_STR,       /* const char **: borrowed from argv or the environment */
	KN_ARG_LIST,      /* struct kn_arg_list *: may be given several times */
	KN_ARG_U64,       /* uint64_t *: decimal */
	KN_ARG_BYTES,     /* uint64_t *: "64Mi" */
	KN_ARG_DURATION,  /* uint64_t * in ms: "30s" */
};

struct kn_arg_list {
	const char **at;  /* owned; kn_free() it */
	size_t n;
};

struct kn_arg {
	const char *name;     /* without dashes: "listen" */
	char letter;          /* 'f' for -f, or 0 */
	enum kn_arg_kind kind;
	void *ret;            /* where the value goes; its content before parsing is the default */
	const char *value;    /* what --help calls the value: "ADDR:PORT"; NULL for flags */
	const char *env;      /* environment variable, or NULL */
	const char *help;     /* one sentence, with the default where it helps */
};

struct kn_command {
	const char *name;             /* "kiln deploy" */
	const char *summary;          /* one line */
	const char *usage;            /* what follows the name: "[OPTION]... FUNCTION" */
	const char *more;             /* paragraphs and examples below the options, or NULL */
	const struct kn_arg *args;
	size_t n_args;
	size_t min_operands, max_operands;
};

enum { KN_ARGS_RUN, KN_ARGS_HELP };

/**
 * Parse argv[1..], which is reordered: what remains after options lies at *ret_operands, inside it.
 *
 * Returns KN_ARGS_RUN, or KN_ARGS_HELP when --help was given: print kn_args_help() and exit 0.
 * Errors  EINVAL, told so that the user sees what to type; exit 2
 */
kn_must_use int kn_args_parse(const struct kn_command *cmd, int argc, char **argv,
                              const char ***ret_operands, size_t *ret_n, struct kn_err *err);

/** The help page of a command. */
void kn_args_help(const struct kn_command *cmd, struct kn_buf *ret);

/*
 * A program's verbs. run gets argv from the verb's last word on (so that kn_args_parse() takes it
 * as it is) and returns the exit code (0, 1 or 2).
 */
struct kn_verb {
	const char *name;      /* "deploy", or "image import" with one blank */
	const char *summary;
	int (*run)(int argc, char **argv);
};

/**
 * Find the verb that argv names and run it; handles --help, --version, no verb and a wrong verb.
 * Returns the exit code for main.
 */
int kn_verbs_run(const char *program, const char *summary, const struct kn_verb *verbs, size_t n,
                 int argc, char **argv);
