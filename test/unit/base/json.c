#include "test.h"

#include <stdlib.h>

#include "base/json.h"

static json_t *parse(const char *text)
{
	struct kn_err err = KN_ERR_INIT;
	json_t *value = NULL;

	assert_ok(kn_json_parse(kn_view_of(text), &value, &err), &err);
	return value;
}

static void documents_parse_and_print(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"{\"a\":[1,-2,3.5,true,false,null,\"x\"]}", "[]", "{}", "\"text\"", "12", "null",
		"\"\\u0001\xe2\x82\xac\"", "9223372036854775807",
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		kn_auto(json_decref) json_t *value = parse(cases[i]);
		kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
		kn_json_print(&b, value, 0);
		assert_string_equal(b.ptr, cases[i]);
	}
}

static void bad_documents_say_where(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "line" },
		{ " ", "line" },
		{ "{", "line 1" },
		{ "[1,]", "line 1" },
		{ "{\"a\":1}\n{", "line 2" },
		{ "{\"a\":1,\"a\":2}", "duplicate" },
		{ "{\"a\":1} x", "line 1" },
		{ "\"\xff\"", "line 1" },
		{ "\"\\u0000\"", "line 1" },
		{ "\"a\nb\"", "line" },
		{ "9223372036854775808", "too big" },
		{ "1e999", "line 1" },
		{ "nul", "line 1" },
		{ "'a'", "line 1" },
		{ "// a\n1", "line 1" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		json_t *value = NULL;
		size_t len = strlen(cases[i].text);
		char *own = malloc(len + 1);   /* no NUL behind it: the sanitizer watches */
		assert_non_null(own);
		memcpy(own, cases[i].text, len);
		int r = kn_json_parse((struct kn_view){ own, len }, &value, &err);
		free(own);
		assert_fails(r, EINVAL, &err, cases[i].says);
		assert_null(value);
	}
	struct kn_err err = KN_ERR_INIT;
	json_t *value = NULL;
	assert_fails(kn_json_parse(KN_VIEW_NULL, &value, &err), EINVAL, &err, "JSON");
}

static json_t *nested(size_t depth, struct kn_err *err, int *ret_r)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	json_t *value = NULL;

	for (size_t i = 0; i < depth; i++)
		kn_buf_adds(&b, i % 2 ? "{\"a\":" : "[");
	kn_buf_adds(&b, "1");
	for (size_t i = depth; i-- > 0;)
		kn_buf_adds(&b, i % 2 ? "}" : "]");
	*ret_r = kn_json_parse(kn_buf_view(&b), &value, err);
	return value;
}

static void depth_has_a_limit(void **state)
{
	(void)state;
	static const size_t too_deep[] = { KN_JSON_DEPTH + 1, 500, 100000 };
	struct kn_err err = KN_ERR_INIT;
	int r;

	kn_auto(json_decref) json_t *value = nested(KN_JSON_DEPTH, &err, &r);
	assert_ok(r, &err);
	for (size_t i = 0; i < KN_ARRAY_LEN(too_deep); i++) {
		assert_null(nested(too_deep[i], &err, &r));
		assert_fails(r, EINVAL, &err, "JSON");
	}
}

static void fields_are_read_by_type(void **state)
{
	(void)state;
	kn_auto(json_decref) json_t *obj =
		parse("{\"s\":\"x\",\"b\":true,\"n\":7,\"o\":{\"k\":1},\"a\":[1],\"z\":null}");
	struct kn_err err = KN_ERR_INIT;
	const char *s = "default";
	bool b = false;
	uint64_t n = 0;
	json_t *o = NULL, *a = NULL;

	assert_ok(kn_json_str(obj, "s", &s, &err), &err);
	assert_ok(kn_json_bool(obj, "b", &b, &err), &err);
	assert_ok(kn_json_u64(obj, "n", 7, &n, &err), &err);
	assert_ok(kn_json_obj(obj, "o", &o, &err), &err);
	assert_ok(kn_json_arr(obj, "a", &a, &err), &err);
	assert_string_equal(s, "x");
	assert_true(b);
	assert_int_equal(n, 7);
	assert_int_equal(json_object_size(o), 1);
	assert_int_equal(json_array_size(a), 1);
}

static void missing_and_null_fields_keep_the_default(void **state)
{
	(void)state;
	kn_auto(json_decref) json_t *obj = parse("{\"z\":null}");
	static const char *const keys[] = { "z", "missing" };
	struct kn_err err = KN_ERR_INIT;

	for (size_t i = 0; i < KN_ARRAY_LEN(keys); i++) {
		const char *s = "default";
		bool b = true;
		uint64_t n = 42;
		json_t *o = obj, *a = obj;
		assert_ok(kn_json_str(obj, keys[i], &s, &err), &err);
		assert_ok(kn_json_bool(obj, keys[i], &b, &err), &err);
		assert_ok(kn_json_u64(obj, keys[i], 1, &n, &err), &err);
		assert_ok(kn_json_obj(obj, keys[i], &o, &err), &err);
		assert_ok(kn_json_arr(obj, keys[i], &a, &err), &err);
		assert_string_equal(s, "default");
		assert_true(b && n == 42 && o == obj && a == obj);
	}
}

static void fields_of_another_type_are_named(void **state)
{
	(void)state;
	kn_auto(json_decref) json_t *obj =
		parse("{\"s\":\"x\",\"b\":true,\"n\":7,\"r\":1.5,\"m\":-1,\"o\":{},\"a\":[]}");
	struct kn_err err = KN_ERR_INIT;
	const char *s = NULL;
	bool b = false;
	uint64_t n = 0;
	json_t *j = NULL;

	assert_fails(kn_json_str(obj, "a", &s, &err), EINVAL, &err,
	             "field 'a' must be a string, not an array");
	assert_fails(kn_json_bool(obj, "n", &b, &err), EINVAL, &err, "true or false, not a number");
	assert_fails(kn_json_u64(obj, "s", 9, &n, &err), EINVAL, &err, "not a string");
	assert_fails(kn_json_u64(obj, "r", 9, &n, &err), EINVAL, &err, "whole number");
	assert_fails(kn_json_u64(obj, "m", 9, &n, &err), EINVAL, &err, "is -1, must be 0 to 9");
	assert_fails(kn_json_u64(obj, "n", 6, &n, &err), EINVAL, &err, "is 7, must be 0 to 6");
	assert_fails(kn_json_obj(obj, "b", &j, &err), EINVAL, &err, "an object, not a boolean");
	assert_fails(kn_json_arr(obj, "o", &j, &err), EINVAL, &err, "an array, not an object");
	assert_true(!s && !b && !n && !j);
}

static void reading_fields_of_what_is_no_object_fails(void **state)
{
	(void)state;
	kn_auto(json_decref) json_t *list = parse("[]");
	static const char *const keys[] = { "a", NULL };
	struct kn_err err = KN_ERR_INIT;
	const char *s = NULL;

	assert_fails(kn_json_str(list, "a", &s, &err), EINVAL, &err, "not an array");
	assert_fails(kn_json_str(NULL, "a", &s, &err), EINVAL, &err, "not nothing");
	assert_fails(kn_json_require(list, keys, &err), EINVAL, &err, "not an array");
	assert_fails(kn_json_known(list, keys, 1, &err), EINVAL, &err, "not an array");
}

static void required_fields(void **state)
{
	(void)state;
	kn_auto(json_decref) json_t *obj = parse("{\"a\":1,\"z\":null}");
	static const char *const have[] = { "a", NULL }, *const missing[] = { "a", "b", NULL },
	                         *const null[] = { "z", NULL };
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_json_require(obj, have, &err), &err);
	assert_fails(kn_json_require(obj, missing, &err), EINVAL, &err, "'b' is missing");
	assert_fails(kn_json_require(obj, null, &err), EINVAL, &err, "'z' is missing");
}

static void unknown_fields_get_a_suggestion(void **state)
{
	(void)state;
	static const char *const names[] = { "image", "labels" };
	kn_auto(json_decref) json_t *good = parse("{\"labels\":1}");
	kn_auto(json_decref) json_t *typo = parse("{\"image\":1,\"lables\":1}");
	kn_auto(json_decref) json_t *other = parse("{\"completely\":1}");
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_json_known(good, names, 2, &err), &err);
	assert_fails(kn_json_known(typo, names, 2, &err), EINVAL, &err, "did you mean 'labels'?");
	assert_fails(kn_json_known(other, names, 2, &err), EINVAL, &err, "image, labels");
	assert_fails(kn_json_known(other, NULL, 0, &err), EINVAL, &err, "known are: none");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(documents_parse_and_print),
		cmocka_unit_test(bad_documents_say_where),
		cmocka_unit_test(depth_has_a_limit),
		cmocka_unit_test(fields_are_read_by_type),
		cmocka_unit_test(missing_and_null_fields_keep_the_default),
		cmocka_unit_test(fields_of_another_type_are_named),
		cmocka_unit_test(reading_fields_of_what_is_no_object_fails),
		cmocka_unit_test(required_fields),
		cmocka_unit_test(unknown_fields_get_a_suggestion),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
