#include "test.h"

#include "base/err.h"

static void fail_fills_code_and_text(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;

	assert_int_equal(kn_fail(&err, ENOENT, "open '%s'", "x"), -ENOENT);
	assert_int_equal(err.code, ENOENT);
	assert_string_equal(err.text, "open 'x'");
}

static void code_that_is_no_errno_becomes_eio(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;

	assert_int_equal(kn_fail(&err, 0, "nothing"), -EIO);
	assert_int_equal(err.code, EIO);
	assert_int_equal(kn_fail(NULL, -3, "nothing"), -EIO);
}

static void context_stands_before_the_story(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;

	kn_fail(&err, EACCES, "denied");
	assert_int_equal(kn_while(&err, "read %d", 1), -EACCES);
	assert_int_equal(kn_while(&err, "start"), -EACCES);
	assert_string_equal(kn_err_text(&err), "start: read 1: denied");
}

static void nobody_listening_is_fine(void **state)
{
	(void)state;

	assert_int_equal(kn_fail(NULL, EPERM, "x"), -EPERM);
	assert_int_equal(kn_while(NULL, "x"), -EIO);
	assert_string_equal(kn_err_text(NULL), "");
}

static void while_without_a_failure_is_eio(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;

	assert_int_equal(kn_while(&err, "x"), -EIO);
	assert_int_equal(err.code, EIO);
}

/* Around the size of the text: what fits stays whole, what does not ends with dots. */
static void long_text_is_cut_visibly(void **state)
{
	(void)state;
	char text[KN_ERR_TEXT * 2];

	for (size_t len = KN_ERR_TEXT - 4; len < KN_ERR_TEXT + 4; len++) {
		struct kn_err err = KN_ERR_INIT;
		memset(text, 'a', len);
		text[len] = '\0';
		kn_fail(&err, EINVAL, "%s", text);
		assert_int_equal(strlen(err.text), kn_min(len, (size_t)KN_ERR_TEXT - 1));
		bool cut = strcmp(err.text + strlen(err.text) - 3, "...") == 0;
		assert_int_equal(cut, len >= KN_ERR_TEXT);
	}
}

static void long_context_is_cut_visibly(void **state)
{
	(void)state;
	char text[KN_ERR_TEXT * 2];

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (size_t len = 1; len < sizeof(text); len += 97) {
		struct kn_err err = KN_ERR_INIT;
		kn_fail(&err, EINVAL, "%.*s", 300, text);
		assert_int_equal(kn_while(&err, "%.*s", (int)len, text), -EINVAL);
		size_t whole = len + 2 + 300;
		assert_int_equal(strlen(err.text), kn_min(whole, (size_t)KN_ERR_TEXT - 1));
		bool cut = strcmp(err.text + strlen(err.text) - 3, "...") == 0;
		assert_int_equal(cut, whole >= KN_ERR_TEXT);
	}
}

static void control_characters_never_reach_the_terminal(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;

	kn_fail(&err, EINVAL, "bad '%s'", "a\nb\x1b[31m\x7f");
	assert_string_equal(err.text, "bad 'a?b?[31m?'");
	kn_while(&err, "line\r");
	assert_string_equal(err.text, "line?: bad 'a?b?[31m?'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fail_fills_code_and_text),
		cmocka_unit_test(code_that_is_no_errno_becomes_eio),
		cmocka_unit_test(context_stands_before_the_story),
		cmocka_unit_test(nobody_listening_is_fine),
		cmocka_unit_test(while_without_a_failure_is_eio),
		cmocka_unit_test(long_text_is_cut_visibly),
		cmocka_unit_test(long_context_is_cut_visibly),
		cmocka_unit_test(control_characters_never_reach_the_terminal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
