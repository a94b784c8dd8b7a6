#include "base/args.h"

#include <stdio.h>

struct verbs {
	const char *program, *summary;
	const struct kn_verb *at;
	size_t n;
};

/* How many words of argv (from 0) are this verb's name; 0 when it is not named. */
static int words_of(const char *name, int argc, char **argv)
{
	struct kn_view rest = kn_view_of(name), word;
	int n = 0;

	for (; kn_view_split(&rest, ' ', &word); n++)
		if (n == argc || !kn_view_is(word, kn_view_of(argv[n])))
			return 0;
	return n;
}

static bool in_group(const char *name, const char *group)
{
	struct kn_view rest = kn_view_of(name), first;

	return !group || (kn_view_split(&rest, ' ', &first) && rest.ptr &&
	                  kn_view_is(first, kn_view_of(group)));
}

static bool is_group(const struct verbs *v, const char *word)
{
	for (size_t i = 0; i < v->n; i++)
		if (in_group(v->at[i].name, word))
			return true;
	return false;
}

/* All verbs, or those that begin with the word group. */
static void show(const struct verbs *v, const char *group, FILE *to)
{
	size_t widest = 0;

	for (size_t i = 0; i < v->n; i++)
		if (in_group(v->at[i].name, group))
			widest = kn_max(widest, strlen(v->at[i].name));
	fprintf(to, "Usage: %s %s%sCOMMAND [OPTION]...\n\n", v->program, group ? group : "",
	        group ? " " : "");
	if (!group)
		fprintf(to, "%s\n\n", v->summary);
	fprintf(to, "Commands:\n");
	for (size_t i = 0; i < v->n; i++)
		if (in_group(v->at[i].name, group))
			fprintf(to, "  %-*s  %s\n", (int)widest, v->at[i].name, v->at[i].summary);
	fprintf(to, "\n'%s COMMAND --help' explains a command.\n", v->program);
}

static bool is_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

static int wrong_verb(const struct verbs *v, int argc, char **argv)
{
	enum { MOST = 64 };
	kn_auto(kn_buf_fini) struct kn_buf said = KN_BUF_INIT;
	const char *names[MOST];
	size_t n = 0;

	kn_buf_adds(&said, argv[0]);
	if (argc > 1 && is_group(v, argv[0]))
		kn_buf_printf(&said, " %s", argv[1]);
	for (; n < v->n && n < MOST; n++)
		names[n] = v->at[n].name;
	const char *close = kn_closest(kn_buf_view(&said), names, n);
	fprintf(stderr, "%s: unknown command '%s'; ", v->program, said.ptr ? said.ptr : argv[0]);
	if (close)
		fprintf(stderr, "did you mean '%s'?\n", close);
	else
		fprintf(stderr, "see '%s --help'\n", v->program);
	return 2;
}

static int run_verb(const struct verbs *v, int argc, char **argv)
{
	for (size_t i = 0; i < v->n; i++) {
		int words = words_of(v->at[i].name, argc, argv);
		if (words)
			return v->at[i].run(argc - words + 1, argv + words - 1);
	}
	if (is_group(v, argv[0]) && (argc == 1 || is_help(argv[1]))) {
		show(v, argv[0], argc == 1 ? stderr : stdout);
		return argc == 1 ? 2 : 0;
	}
	return wrong_verb(v, argc, argv);
}

/* "kiln help deploy" is "kiln deploy --help". */
static int help_on(const struct verbs *v, int argc, char **argv)
{
	static char help[] = "--help";
	char *words[4];
	int n = 0;

	while (n < argc && n < 2) {
		words[n] = argv[n];
		n++;
	}
	words[n++] = help;
	words[n] = NULL;
	return run_verb(v, n, words);
}

int kn_verbs_run(const char *program, const char *summary, const struct kn_verb *verbs, size_t n,
                 int argc, char **argv)
{
	const struct verbs v = { program, summary, verbs, n };

	if (argc < 2) {
		show(&v, NULL, stderr);
		return 2;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("%s %s\n", program, KN_VERSION);
		return 0;
	}
	if (!is_help(argv[1]))
		return run_verb(&v, argc - 1, argv + 1);
	if (argc > 2)
		return help_on(&v, argc - 2, argv + 2);
	show(&v, NULL, stdout);
	return 0;
}
