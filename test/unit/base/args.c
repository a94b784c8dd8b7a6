#include "test.h"

#include <stdlib.h>

#include "base/args.h"

static struct {
	bool verbose, quiet;
	const char *file;
	struct kn_arg_list env;
	uint64_t count, memory, timeout_ms;
} got;

static const struct kn_arg ARGS[] = {
	{ "verbose", 'v', KN_ARG_FLAG, &got.verbose, NULL, "KN_TEST_VERBOSE", "Say more." },
	{ "quiet", 'q', KN_ARG_FLAG, &got.quiet, NULL, NULL, "Say less." },
	{ "file", 'f', KN_ARG_STR, &got.file, "FILE", "KN_TEST_FILE", "What to read." },
	{ "env", 'e', KN_ARG_LIST, &got.env, "NAME=VALUE", "KN_TEST_ENV",
	  "A variable for the function; may be given several times, and this sentence is long enough "
	  "to be wrapped onto a second line of the page." },
	{ "count", 0, KN_ARG_U64, &got.count, "N", NULL, "How many." },
	{ "memory", 0, KN_ARG_BYTES, &got.memory, "SIZE", NULL, "How much." },
	{ "timeout", 0, KN_ARG_DURATION, &got.timeout_ms, "TIME", NULL, "How long." },
};

static const struct kn_command COMMAND = {
	.name = "kiln try",
	.summary = "Try things.",
	.usage = "[OPTION]... FUNCTION [WORD]",
	.more = "Example:\n  kiln try x",
	.args = ARGS,
	.n_args = KN_ARRAY_LEN(ARGS),
	.min_operands = 1,
	.max_operands = 2,
};

enum { MOST_WORDS = 24 };

struct words {
	char *at[MOST_WORDS + 1], *save;
	int n;
	const char **operands;
	size_t n_operands;
};

/* text is split at blanks; the words live until the next call */
static int run(const char *text, struct words *w, struct kn_err *err)
{
	static char copy[256], name[] = "try";

	free(got.env.at);
	memset(&got, 0, sizeof(got));
	*err = KN_ERR_INIT;
	*w = (struct words){ .at = { name }, .n = 1 };
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok_r(copy, " ", &w->save); word && w->n < MOST_WORDS;
	     word = strtok_r(NULL, " ", &w->save))
		w->at[w->n++] = word;
	w->at[w->n] = NULL;
	return kn_args_parse(&COMMAND, w->n, w->at, &w->operands, &w->n_operands, err);
}

static int forget(void **state)
{
	(void)state;
	free(got.env.at);
	memset(&got, 0, sizeof(got));
	unsetenv("KN_TEST_VERBOSE");
	unsetenv("KN_TEST_FILE");
	unsetenv("KN_TEST_ENV");
	return 0;
}

static void options_fill_their_places(void **state)
{
	(void)state;
	struct kn_err err;
	struct words w;

	assert_int_equal(run("a --verbose --file x --env A=1 --count 3 b --memory=64Mi --timeout 2m "
	                     "--env=B=2", &w, &err), KN_ARGS_RUN);
	assert_true(got.verbose && !got.quiet);
	assert_string_equal(got.file, "x");
	assert_int_equal(got.count, 3);
	assert_int_equal(got.memory, 64 << 20);
	assert_int_equal(got.timeout_ms, 120000);
	assert_int_equal(got.env.n, 2);
	assert_string_equal(got.env.at[0], "A=1");
	assert_string_equal(got.env.at[1], "B=2");
	assert_int_equal(w.n_operands, 2);
	assert_string_equal(w.operands[0], "a");
	assert_string_equal(w.operands[1], "b");
}

static void letters_group_and_take_values(void **state)
{
	(void)state;
	struct kn_err err;
	struct words w;

	assert_int_equal(run("-vqf x a", &w, &err), KN_ARGS_RUN);
	assert_true(got.verbose && got.quiet);
	assert_string_equal(got.file, "x");
	assert_int_equal(run("-fx -eA -e B a", &w, &err), KN_ARGS_RUN);
	assert_string_equal(got.file, "x");
	assert_int_equal(got.env.n, 2);
}

static void options_end_at_two_dashes(void **state)
{
	(void)state;
	struct kn_err err;
	struct words w;

	assert_int_equal(run("-v -- --quiet -", &w, &err), KN_ARGS_RUN);
	assert_true(got.verbose && !got.quiet);
	assert_int_equal(w.n_operands, 2);
	assert_string_equal(w.operands[0], "--quiet");
	assert_string_equal(w.operands[1], "-");
	assert_int_equal(run("-", &w, &err), KN_ARGS_RUN);
	assert_string_equal(w.operands[0], "-");
}

static void an_option_takes_what_looks_like_one(void **state)
{
	(void)state;
	struct kn_err err;
	struct words w;

	assert_int_equal(run("--file --quiet a", &w, &err), KN_ARGS_RUN);
	assert_string_equal(got.file, "--quiet");
	assert_false(got.quiet);
	assert_int_equal(run("--file= a", &w, &err), KN_ARGS_RUN);
	assert_string_equal(got.file, "");
}

static void wrong_words_are_explained(void **state)
{
	(void)state;
	static const struct {
		const char *words, *says;
	} cases[] = {
		{ "a --fiel x", "did you mean '--file'?" },
		{ "a --hlep", "did you mean '--help'?" },
		{ "a --frobnicate", "see 'kiln try --help'" },
		{ "a -x", "unknown option '-x'" },
		{ "a --file", "needs a value: --file FILE" },
		{ "a -f", "option '--file' needs a value" },
		{ "a --verbose=1", "takes no value" },
		{ "a --count x", "option '--count': 'x' is not a whole number" },
		{ "a --memory 1m", "option '--memory'" },
		{ "a --timeout=soon", "option '--timeout'" },
		{ "", "usage: kiln try [OPTION]... FUNCTION [WORD]" },
		{ "a b c", "'c' is one word too many" },
		{ "a --=x", "unknown option" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err;
		struct words w;
		int r = run(cases[i].words, &w, &err);
		assert_fails(r, EINVAL, &err, cases[i].says);
	}
}

static void help_wins_over_missing_words(void **state)
{
	(void)state;
	static const char *const cases[] = { "--help", "-h", "a b c --help", "-vh" };
	struct kn_err err;
	struct words w;

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++)
		assert_int_equal(run(cases[i], &w, &err), KN_ARGS_HELP);
}

static void environment_stands_below_the_command_line(void **state)
{
	(void)state;
	struct kn_err err;
	struct words w;

	setenv("KN_TEST_FILE", "from-env", 1);
	setenv("KN_TEST_ENV", "E=1", 1);
	setenv("KN_TEST_VERBOSE", "1", 1);
	assert_int_equal(run("a", &w, &err), KN_ARGS_RUN);
	assert_string_equal(got.file, "from-env");
	assert_true(got.verbose);
	assert_int_equal(got.env.n, 1);
	assert_int_equal(run("a --file flag --env F=1", &w, &err), KN_ARGS_RUN);
	assert_string_equal(got.file, "flag");
	assert_int_equal(got.env.n, 1);
	assert_string_equal(got.env.at[0], "F=1");

	setenv("KN_TEST_VERBOSE", "no", 1);
	setenv("KN_TEST_FILE", "", 1);
	assert_int_equal(run("a", &w, &err), KN_ARGS_RUN);
	assert_false(got.verbose);
	assert_null(got.file);
	setenv("KN_TEST_VERBOSE", "maybe", 1);
	assert_fails(run("a", &w, &err), EINVAL, &err, "environment variable KN_TEST_VERBOSE");
}

static void help_page_lists_every_option(void **state)
{
	(void)state;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	kn_args_help(&COMMAND, &b);
	assert_false(b.failed);
	assert_string_equal(
		b.ptr,
		"Usage: kiln try [OPTION]... FUNCTION [WORD]\n"
		"\n"
		"Try things.\n"
		"\n"
		"Options:\n"
		"  -v, --verbose             Say more. [KN_TEST_VERBOSE]\n"
		"  -q, --quiet               Say less.\n"
		"  -f, --file FILE           What to read. [KN_TEST_FILE]\n"
		"  -e, --env NAME=VALUE      A variable for the function; may be given several times, and this\n"
		"                            sentence is long enough to be wrapped onto a second line of the\n"
		"                            page. [KN_TEST_ENV]\n"
		"      --count N             How many.\n"
		"      --memory SIZE         How much.\n"
		"      --timeout TIME        How long.\n"
		"  -h, --help                Show this page.\n"
		"\n"
		"Example:\n"
		"  kiln try x\n");
}

/* ---- verbs ---- */

static char ran[128];

static int note(const char *verb, int argc, char **argv, int result)
{
	int n = snprintf(ran, sizeof(ran), "%s:", verb);

	for (int i = 0; i < argc; i++)
		n += snprintf(ran + n, sizeof(ran) - (size_t)n, " %s", argv[i]);
	return result;
}

static int run_list(int argc, char **argv)
{
	return note("list", argc, argv, 0);
}

static int run_import(int argc, char **argv)
{
	return note("import", argc, argv, 1);
}

static const struct kn_verb VERBS[] = {
	{ "list", "Show functions", run_list },
	{ "image import", "Take an image", run_import },
	{ "image list", "Show images", run_list },
};

/* Runs with standard output and error in files; what they got is in out and complaint. */
static char out[2048], complaint[2048];

static int verbs(const char *text)
{
	char copy[128], *at[8], *save;
	char *out_ptr = NULL, *err_ptr = NULL;
	size_t out_len = 0, err_len = 0;
	FILE *old_out = stdout, *old_err = stderr;
	int n = 0;

	ran[0] = '\0';
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		at[n++] = word;
	at[n] = NULL;
	stdout = open_memstream(&out_ptr, &out_len);
	stderr = open_memstream(&err_ptr, &err_len);
	int r = kn_verbs_run("kiln", "Runs functions.", VERBS, KN_ARRAY_LEN(VERBS), n, at);
	fclose(stdout);
	fclose(stderr);
	stdout = old_out;
	stderr = old_err;
	snprintf(out, sizeof(out), "%s", out_ptr);
	snprintf(complaint, sizeof(complaint), "%s", err_ptr);
	free(out_ptr);
	free(err_ptr);
	return r;
}

static void verbs_get_their_words(void **state)
{
	(void)state;
	static const struct {
		const char *text, *ran;
		int result;
	} cases[] = {
		{ "kiln list -q x", "list: list -q x", 0 },
		{ "kiln image import a.tar", "import: import a.tar", 1 },
		{ "kiln image list", "list: list", 0 },
		{ "kiln help list", "list: list --help", 0 },
		{ "kiln help image import", "import: import --help", 1 },
		{ "kiln list --help", "list: list --help", 0 },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		assert_int_equal(verbs(cases[i].text), cases[i].result);
		assert_string_equal(ran, cases[i].ran);
		assert_string_equal(complaint, "");
	}
}

static void wrong_verbs_are_explained(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "kiln lsit", "unknown command 'lsit'; did you mean 'list'?" },
		{ "kiln image improt x", "unknown command 'image improt'; did you mean 'image import'?" },
		{ "kiln frobnicate", "see 'kiln --help'" },
		{ "kiln help frobnicate", "unknown command 'frobnicate'" },
		{ "kiln", "Usage: kiln COMMAND" },
		{ "kiln image", "Usage: kiln image COMMAND" },
		{ "kiln --frob", "unknown command '--frob'" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		assert_int_equal(verbs(cases[i].text), 2);
		if (!strstr(complaint, cases[i].says))
			fail_msg("'%s' does not say '%s'", complaint, cases[i].says);
		assert_string_equal(ran, "");
		assert_string_equal(out, "");
	}
}

static void help_and_version_go_to_standard_output(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "kiln --help", "  image import  Take an image\n" },
		{ "kiln -h", "Runs functions." },
		{ "kiln help", "  list          Show functions\n" },
		{ "kiln --version", "kiln " KN_VERSION "\n" },
		{ "kiln image --help", "  image list    Show images\n" },
		{ "kiln help image", "Usage: kiln image COMMAND" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		assert_int_equal(verbs(cases[i].text), 0);
		if (!strstr(out, cases[i].says))
			fail_msg("'%s' does not say '%s'", out, cases[i].says);
		assert_string_equal(complaint, "");
	}
	assert_null(strstr(out, "Show functions"));
}

#define CLEAN(test) cmocka_unit_test_teardown(test, forget)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CLEAN(options_fill_their_places),
		CLEAN(letters_group_and_take_values),
		CLEAN(options_end_at_two_dashes),
		CLEAN(an_option_takes_what_looks_like_one),
		CLEAN(wrong_words_are_explained),
		CLEAN(help_wins_over_missing_words),
		CLEAN(environment_stands_below_the_command_line),
		CLEAN(help_page_lists_every_option),
		cmocka_unit_test(verbs_get_their_words),
		cmocka_unit_test(wrong_verbs_are_explained),
		cmocka_unit_test(help_and_version_go_to_standard_output),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
