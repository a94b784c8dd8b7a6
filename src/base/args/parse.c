#include "base/args.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct parse {
	const struct kn_command *cmd;
	uint64_t given;       /* bit i: row i stood on the command line */
	int argc;
	char **argv;
	int at;               /* next word */
	struct kn_err *err;
};

static int add_to_list(struct kn_arg_list *list, const char *value, struct kn_err *err)
{
	const char **at = reallocarray(list->at, list->n + 1, sizeof(*at));

	if (!at)
		return kn_fail(err, ENOMEM, "out of memory");
	at[list->n++] = value;
	list->at = at;
	return 0;
}

static int env_flag(const char *text, bool *ret, struct kn_err *err)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {
		{ "1", true },  { "true", true },   { "yes", true },  { "on", true },
		{ "0", false }, { "false", false }, { "no", false }, { "off", false },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(words); i++) {
		if (strcmp(text, words[i].word) == 0) {
			*ret = words[i].value;
			return 0;
		}
	}
	return kn_fail(err, EINVAL, "'%s' must be 1 or 0", text);
}

static int set_value(const struct kn_arg *a, const char *text, struct kn_err *err)
{
	struct kn_view v = kn_view_of(text);

	switch (a->kind) {
	case KN_ARG_FLAG:
		return env_flag(text, a->ret, err);
	case KN_ARG_STR:
		*(const char **)a->ret = text;
		return 0;
	case KN_ARG_LIST:
		return add_to_list(a->ret, text, err);
	case KN_ARG_U64:
		return kn_parse_u64(v, UINT64_MAX, a->ret, err);
	case KN_ARG_BYTES:
		return kn_parse_bytes(v, a->ret, err);
	case KN_ARG_DURATION:
		return kn_parse_duration(v, a->ret, err);
	}
	return kn_fail(err, EINVAL, "option '%s' has no known kind", a->name);
}

static int read_environment(const struct kn_command *cmd, struct kn_err *err)
{
	for (size_t i = 0; i < cmd->n_args; i++) {
		const struct kn_arg *a = &cmd->args[i];
		const char *text = a->env ? getenv(a->env) : NULL;
		if (text && *text && set_value(a, text, err) < 0)
			return kn_while(err, "environment variable %s", a->env);
	}
	return 0;
}

/* What the command line names replaces what the environment put into a list. */
static void mark_given(struct parse *p, const struct kn_arg *a)
{
	uint64_t bit = UINT64_C(1) << (a - p->cmd->args);

	if (!(p->given & bit) && a->kind == KN_ARG_LIST)
		((struct kn_arg_list *)a->ret)->n = 0;
	p->given |= bit;
}

/* text NULL: the value is the next word. */
static int take_option(struct parse *p, const struct kn_arg *a, const char *text)
{
	mark_given(p, a);
	if (a->kind == KN_ARG_FLAG) {
		*(bool *)a->ret = true;
		return 0;
	}
	if (!text && p->at == p->argc)
		return kn_fail(p->err, EINVAL, "option '--%s' needs a value: --%s %s", a->name,
		               a->name, a->value ? a->value : "VALUE");
	if (!text)
		text = p->argv[p->at++];
	if (set_value(a, text, p->err) < 0)
		return kn_while(p->err, "option '--%s'", a->name);
	return 0;
}

static int unknown_option(struct parse *p, struct kn_view name)
{
	const char *names[65] = { "help" };
	size_t n = 1;

	for (size_t i = 0; i < p->cmd->n_args; i++)
		names[n++] = p->cmd->args[i].name;
	const char *close = kn_closest(name, names, n);
	if (close)
		return kn_fail(p->err, EINVAL,
		               "unknown option '--" KN_VIEW_FMT "'; did you mean '--%s'?",
		               KN_VIEW_ARG(name), close);
	return kn_fail(p->err, EINVAL, "unknown option '--" KN_VIEW_FMT "'; see '%s --help'",
	               KN_VIEW_ARG(name), p->cmd->name);
}

static int long_option(struct parse *p, const char *word)
{
	const char *equals = strchr(word, '=');
	struct kn_view name = { word, equals ? (size_t)(equals - word) : strlen(word) };

	if (kn_view_is(name, KN_VIEW("help")) && !equals)
		return KN_ARGS_HELP;
	for (size_t i = 0; i < p->cmd->n_args; i++) {
		const struct kn_arg *a = &p->cmd->args[i];
		if (!kn_view_is(name, kn_view_of(a->name)))
			continue;
		if (a->kind == KN_ARG_FLAG && equals)
			return kn_fail(p->err, EINVAL, "option '--%s' takes no value", a->name);
		return take_option(p, a, equals ? equals + 1 : NULL);
	}
	return unknown_option(p, name);
}

static const struct kn_arg *by_letter(const struct kn_command *cmd, char letter)
{
	for (size_t i = 0; i < cmd->n_args; i++)
		if (cmd->args[i].letter && cmd->args[i].letter == letter)
			return &cmd->args[i];
	return NULL;
}

/* "-v", "-vq", "-fFILE", "-f FILE" */
static int letters(struct parse *p, const char *word)
{
	for (; *word; word++) {
		const struct kn_arg *a = by_letter(p->cmd, *word);
		if (!a && *word == 'h')
			return KN_ARGS_HELP;
		if (!a)
			return kn_fail(p->err, EINVAL, "unknown option '-%c'; see '%s --help'", *word,
			               p->cmd->name);
		if (a->kind != KN_ARG_FLAG)
			return take_option(p, a, word[1] ? word + 1 : NULL);
		mark_given(p, a);
		*(bool *)a->ret = true;
	}
	return KN_ARGS_RUN;
}

static int check_operands(const struct kn_command *cmd, size_t n, const char *first_extra,
                          struct kn_err *err)
{
	if (n < cmd->min_operands)
		return kn_fail(err, EINVAL, "something is missing; usage: %s %s", cmd->name,
		               cmd->usage ? cmd->usage : "");
	if (n > cmd->max_operands)
		return kn_fail(err, EINVAL, "'%s' is one word too many; usage: %s %s", first_extra,
		               cmd->name, cmd->usage ? cmd->usage : "");
	return 0;
}

int kn_args_parse(const struct kn_command *cmd, int argc, char **argv, const char ***ret_operands,
                  size_t *ret_n, struct kn_err *err)
{
	struct parse p = { .cmd = cmd, .argc = argc, .argv = argv, .at = 1, .err = err };
	size_t n = 0;
	bool options = true;

	assert(cmd->n_args < 64);
	int r = read_environment(cmd, err);
	while (r == KN_ARGS_RUN && p.at < argc) {
		char *word = argv[p.at++];
		if (options && strcmp(word, "--") == 0)
			options = false;
		else if (options && word[0] == '-' && word[1] == '-')
			r = long_option(&p, word + 2);
		else if (options && word[0] == '-' && word[1])
			r = letters(&p, word + 1);
		else
			argv[++n] = word;   /* never passes p.at */
	}
	if (r != KN_ARGS_RUN)
		return r;
	r = check_operands(cmd, n, n > cmd->max_operands ? argv[cmd->max_operands + 1] : "", err);
	if (r < 0)
		return r;
	*ret_operands = (const char **)(void *)(argv + 1);
	*ret_n = n;
	return KN_ARGS_RUN;
}
