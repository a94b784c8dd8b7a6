/*
 * What the verbs of `kiln` share: their entry points, how they end, and the options that every
 * verb that talks to a node has. A verb prints data to standard output and reasons to standard
 * error, and returns the exit code.
 *
 * Thread  one; the program has no other
 */
#pragma once

#include "base/args.h"
#include "base/json.h"

enum { KN_EXIT_DONE = 0, KN_EXIT_FAILED = 1, KN_EXIT_USAGE = 2 };

int kn_verb_build(int argc, char **argv);
int kn_verb_deploy(int argc, char **argv);
int kn_verb_describe(int argc, char **argv);
int kn_verb_doctor(int argc, char **argv);
int kn_verb_down(int argc, char **argv);
int kn_verb_image_import(int argc, char **argv);
int kn_verb_image_list(int argc, char **argv);
int kn_verb_image_pull(int argc, char **argv);
int kn_verb_image_push(int argc, char **argv);
int kn_verb_image_remove(int argc, char **argv);
int kn_verb_invoke(int argc, char **argv);
int kn_verb_list(int argc, char **argv);
int kn_verb_login(int argc, char **argv);
int kn_verb_logs(int argc, char **argv);
int kn_verb_remove(int argc, char **argv);
int kn_verb_scale(int argc, char **argv);
int kn_verb_secret_create(int argc, char **argv);
int kn_verb_secret_list(int argc, char **argv);
int kn_verb_secret_remove(int argc, char **argv);
int kn_verb_secret_update(int argc, char **argv);
int kn_verb_top(int argc, char **argv);
int kn_verb_up(int argc, char **argv);
int kn_verb_version(int argc, char **argv);

/* The options of a verb that talks to a node; see KN_NODE_ARGS. */
struct kn_node_args {
	const char *gateway; /* NULL: KILN_GATEWAY, OPENFAAS_URL, the last login, the default */
	const char *token;   /* NULL: KILN_TOKEN, then what `kiln login` keeps */
	bool json;
};

#define KN_NODE_ARGS(a)                                                                            \
	{ "gateway",                                                                               \
	  'g',                                                                                     \
	  KN_ARG_STR,                                                                              \
	  &(a).gateway,                                                                            \
	  "URL",                                                                                   \
	  "KILN_GATEWAY",                                                                          \
	  "the node; OPENFAAS_URL counts too (default: the last login)" },                         \
		{ "token",                                                                         \
		  0,                                                                               \
		  KN_ARG_STR,                                                                      \
		  &(a).token,                                                                      \
		  "TOKEN",                                                                         \
		  "KILN_TOKEN",                                                                    \
		  "access token to use instead of the login's" },                                  \
	{                                                                                          \
		"json", 0, KN_ARG_FLAG, &(a).json, NULL, NULL, "print JSON for scripts"            \
	}

enum { KN_CLI_RUN = -1 };

/**
 * Parse a verb's arguments; --help and mistakes are answered here.
 *
 * ret_operands  what is not an option; argv's own pointers
 *
 * Returns KN_CLI_RUN when the verb shall go on, else the exit code to return
 */
kn_must_use int kn_cli_parse(const struct kn_command *cmd, int argc, char **argv,
			     const char ***ret_operands, size_t *ret_n);

/** Tell why a command failed on standard error. Returns KN_EXIT_FAILED. */
kn_must_use int kn_cli_failed(const struct kn_command *cmd, const struct kn_err *err);

/** Tell how a command was used wrongly, and where its help is. Returns KN_EXIT_USAGE. */
kn_must_use int kn_cli_misused(const struct kn_command *cmd, const char *fmt, ...) kn_printf(2, 3);

/** End a verb that wrote to standard output: a full disk or a closed pipe is a failure. */
kn_must_use int kn_cli_done(const struct kn_command *cmd);
