#include "test.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/conf.h"

static void texts_become_json(void **state)
{
	(void)state;
	static const struct {
		const char *yaml, *json;
	} cases[] = {
		{ "", "null" },
		{ "# only a comment\n", "null" },
		{ "---\na: 1\n...\n", "{\"a\":1}" },
		{ "%YAML 1.2\n---\na: 1\n", "{\"a\":1}" },
		{ "a: {b: [1, two, 'three', \"4\"]}", "{\"a\":{\"b\":[1,\"two\",\"three\",\"4\"]}}" },
		{ "a:\n- 1\n- 2\nb:\n  c: d\n", "{\"a\":[1,2],\"b\":{\"c\":\"d\"}}" },
		{ "a: |\n  x\n  y\n", "{\"a\":\"x\\ny\\n\"}" },
		{ "a: >-\n  x\n  y\n", "{\"a\":\"x y\"}" },
		{ "8080: x\ntrue: y\n", "{\"8080\":\"x\",\"true\":\"y\"}" },
		{ "a: &anchor 1\n", "{\"a\":1}" },
		{ "a: []\nb: {}\n", "{\"a\":[],\"b\":{}}" },
		{ "\"a b\": c", "{\"a b\":\"c\"}" },
		{ "[[[]]]", "[[[]]]" },
		{ "just text", "\"just text\"" },
		{ "k: gr\xc3\xbc\xc3\x9f \xf0\x9f\x94\xa5",
		  "{\"k\":\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x94\xa5\"}" },
		{ "a: http://x:80/y", "{\"a\":\"http://x:80/y\"}" },
		{ "limits:\n  memory: 64Mi\n  cpu: 0.5\n",
		  "{\"limits\":{\"memory\":\"64Mi\",\"cpu\":0.5}}" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		kn_auto(json_decref) json_t *value = NULL;
		kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
		assert_ok(kn_yaml_parse(kn_view_of(cases[i].yaml), "x", &value, &err), &err);
		kn_json_print(&b, value, 0);
		assert_string_equal(b.ptr, cases[i].json);
	}
}

/* YAML 1.2.2, section 10.3.2; "yes", "on" and 1:30 are booleans and numbers in 1.1 only. */
static void plain_scalars_follow_the_core_schema(void **state)
{
	(void)state;
	static const struct {
		const char *yaml, *json;
	} cases[] = {
		{ "~", "null" },       { "null", "null" },     { "Null", "null" },
		{ "NULL", "null" },    { "nULL", "\"nULL\"" }, { "true", "true" },
		{ "True", "true" },    { "FALSE", "false" },   { "tRUE", "\"tRUE\"" },
		{ "yes", "\"yes\"" },  { "on", "\"on\"" },     { "n", "\"n\"" },
		{ "0", "0" },          { "-19", "-19" },       { "+3", "3" },
		{ "007", "7" },        { "0o17", "15" },       { "0xfF", "255" },
		{ "0o8", "\"0o8\"" },  { "0x", "\"0x\"" },     { "-0x1", "\"-0x1\"" },
		{ "1_000", "\"1_000\"" }, { "1:30", "\"1:30\"" }, { "0.5", "0.5" },
		{ "-.5", "-0.5" },     { "1.", "1.0" },        { "12e3", "12000.0" },
		{ "1E-2", "0.01" },    { "1e", "\"1e\"" },     { ".", "\".\"" },
		{ "-", "[null]" },     { "+", "\"+\"" },       { "1.2.3", "\"1.2.3\"" },
		{ "9223372036854775807", "9223372036854775807" },
		{ "-9223372036854775808", "-9223372036854775808" },
		{ "'1'", "\"1\"" },    { "\"null\"", "\"null\"" }, { "''", "\"\"" },
		{ "2026-01-31", "\"2026-01-31\"" },            { "infinity", "\"infinity\"" },
		{ "nan", "\"nan\"" },  { "1e400x", "\"1e400x\"" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		kn_auto(json_decref) json_t *value = NULL;
		kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
		assert_ok(kn_yaml_parse(kn_view_of(cases[i].yaml), "x", &value, &err), &err);
		kn_json_print(&b, value, JSON_REAL_PRECISION(15));
		if (strcmp(b.ptr, cases[i].json) != 0)
			fail_msg("%s became %s", cases[i].yaml, b.ptr);
	}
}

static void bad_texts_say_where_and_why(void **state)
{
	(void)state;
	static const struct {
		const char *yaml, *says;
	} cases[] = {
		{ "a: 1\nb: *x\n", "f.yaml:2:4: " },
		{ "a: &x 1\nb: *x\n", "aliases are not supported" },
		{ "a: !!str 1\n", "f.yaml:1:4: tags" },
		{ "a: !mine [1]\n", "tags" },
		{ "a: !mine {b: 1}\n", "tags" },
		{ "a: 1\nb: 2\na: 3\n", "f.yaml:3:1: the key 'a' is there twice" },
		{ "a: 1\n---\nb: 2\n", "only one document" },
		{ "[1]: 2\n", "a key must be" },
		{ "? {a: 1}\n: 2\n", "a key must be" },
		{ "a: [1\n", "f.yaml:" },
		{ "a: b: c\n", "f.yaml:1:" },
		{ "\ta: 1\n", "f.yaml:1:" },
		{ "a: 'x\n", "f.yaml:" },
		{ "a: .inf\n", "quote it" },
		{ "a: -.INF\n", "quote it" },
		{ "a: .nan\n", "quote it" },
		{ "a: 9223372036854775808\n", "64 bits" },
		{ "a: 0x10000000000000000\n", "64 bits" },
		{ "a: 1e999\n", "too large" },
		{ "a: \"\\0\"\n", "NUL" },
		{ "a: \xff\n", "f.yaml:" },
		{ "a: \"\\ud800\"\n", "f.yaml:1:" },
		{ "a: @x\n", "f.yaml:1:" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		json_t *value = NULL;
		size_t len = strlen(cases[i].yaml);
		char *own = malloc(len);
		assert_non_null(own);
		memcpy(own, cases[i].yaml, len);
		int r = kn_yaml_parse((struct kn_view){ own, len }, "f.yaml", &value, &err);
		free(own);
		if (r == 0)
			fail_msg("%s was taken", cases[i].yaml);
		assert_fails(r, EINVAL, &err, cases[i].says);
		assert_null(value);
	}
}

static int parse_nested(size_t depth, char open, json_t **ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	for (size_t i = 0; i < depth; i++)
		kn_buf_adds(&b, open == '[' ? "[" : "{a: ");
	for (size_t i = 0; i < depth; i++)
		kn_buf_adds(&b, open == '[' ? "]" : "}");
	return kn_yaml_parse(kn_buf_view(&b), "x", ret, err);
}

static void depth_has_a_limit(void **state)
{
	(void)state;

	for (const char *open = "[{"; *open; open++) {
		struct kn_err err = KN_ERR_INIT;
		kn_auto(json_decref) json_t *value = NULL;
		json_t *none = NULL;
		assert_ok(parse_nested(KN_JSON_DEPTH, *open, &value, &err), &err);
		assert_fails(parse_nested(KN_JSON_DEPTH + 1, *open, &none, &err), EINVAL, &err,
		             "nested too deeply");
		assert_fails(parse_nested(5000, *open, &none, &err), EINVAL, &err, "deep");
		assert_null(none);
	}
}

static void files_are_named_in_errors(void **state)
{
	(void)state;
	char path[] = "/tmp/kn-unit-conf.XXXXXX";
	struct kn_err err = KN_ERR_INIT;
	json_t *value = NULL;

	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "a: 1\n", 5), 5);
	assert_ok(kn_yaml_load(path, &value, &err), &err);
	assert_int_equal(json_integer_value(json_object_get(value, "a")), 1);
	json_decref(value);
	value = NULL;

	assert_int_equal(write(fd, "a: 2\n", 5), 5);
	assert_fails(kn_yaml_load(path, &value, &err), EINVAL, &err, path);
	assert_int_equal(ftruncate(fd, (1 << 20) + 1), 0);
	assert_fails(kn_yaml_load(path, &value, &err), EFBIG, &err, path);
	close(fd);
	unlink(path);
	assert_fails(kn_yaml_load(path, &value, &err), ENOENT, &err, path);
	assert_null(value);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_become_json),
		cmocka_unit_test(plain_scalars_follow_the_core_schema),
		cmocka_unit_test(bad_texts_say_where_and_why),
		cmocka_unit_test(depth_has_a_limit),
		cmocka_unit_test(files_are_named_in_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
