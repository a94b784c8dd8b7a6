#include "base/json.h"

#include <errno.h>
#include <inttypes.h>

/* True when value nests at most left more containers. */
static bool depth_ok(const json_t *value, int left)
{
	const char *key;
	json_t *item;
	size_t i;

	if (!json_is_object(value) && !json_is_array(value))
		return true;
	if (left == 0)
		return false;
	json_object_foreach((json_t *)(uintptr_t)value, key, item)
		if (!depth_ok(item, left - 1))
			return false;
	json_array_foreach(value, i, item)
		if (!depth_ok(item, left - 1))
			return false;
	return true;
}

int kn_json_parse(struct kn_view text, json_t **ret, struct kn_err *err)
{
	json_error_t why;

	kn_auto(json_decref) json_t *value =
		json_loadb(text.ptr ? text.ptr : "", text.len,
	                   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
	/*
	 * Where an allocation fails, jansson often says nothing at all, or, inside a token, that the
	 * token is invalid: that one stays EINVAL.
	 */
	if (!value && (json_error_code(&why) == json_error_out_of_memory || !why.text[0]))
		return kn_fail(err, ENOMEM, "out of memory");
	if (!value)
		return kn_fail(err, EINVAL, "JSON, line %d, column %d: %s", why.line, why.column,
		               why.text);
	if (!depth_ok(value, KN_JSON_DEPTH))
		return kn_fail(err, EINVAL, "JSON nests deeper than %d levels", KN_JSON_DEPTH);
	*ret = kn_take_ptr(value);
	return 0;
}

static int append(const char *text, size_t len, void *buf)
{
	struct kn_buf *b = buf;

	kn_buf_add(b, text, len);
	return b->failed ? -1 : 0;
}

void kn_json_print(struct kn_buf *b, const json_t *value, size_t flags)
{
	if (json_dump_callback(value, append, b, JSON_COMPACT | JSON_ENCODE_ANY | flags) < 0)
		b->failed = true;
}

static const char *type_name(const json_t *value)
{
	if (!value)
		return "nothing";
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		return "null";
	}
	return "something else";
}

/* The field's value, or NULL in *ret when it is missing or null. */
static int find(const json_t *obj, const char *key, json_t **ret, struct kn_err *err)
{
	if (!json_is_object(obj))
		return kn_fail(err, EINVAL, "expected an object with the field '%s', not %s", key,
		               type_name(obj));
	json_t *value = json_object_get(obj, key);
	*ret = json_is_null(value) ? NULL : value;
	return 0;
}

static int wrong_type(const char *key, const char *wanted, const json_t *value, struct kn_err *err)
{
	return kn_fail(err, EINVAL, "field '%s' must be %s, not %s", key, wanted, type_name(value));
}

int kn_json_str(const json_t *obj, const char *key, const char **ret, struct kn_err *err)
{
	json_t *value = NULL;

	int r = find(obj, key, &value, err);
	if (r < 0 || !value)
		return r;
	if (!json_is_string(value))
		return wrong_type(key, "a string", value, err);
	*ret = json_string_value(value);
	return 0;
}

int kn_json_bool(const json_t *obj, const char *key, bool *ret, struct kn_err *err)
{
	json_t *value = NULL;

	int r = find(obj, key, &value, err);
	if (r < 0 || !value)
		return r;
	if (!json_is_boolean(value))
		return wrong_type(key, "true or false", value, err);
	*ret = json_is_true(value);
	return 0;
}

int kn_json_u64(const json_t *obj, const char *key, uint64_t max, uint64_t *ret, struct kn_err *err)
{
	json_t *value = NULL;

	int r = find(obj, key, &value, err);
	if (r < 0 || !value)
		return r;
	if (json_is_real(value))
		return kn_fail(err, EINVAL, "field '%s' must be a whole number", key);
	if (!json_is_integer(value))
		return wrong_type(key, "a whole number", value, err);
	json_int_t n = json_integer_value(value);
	if (n < 0 || (uint64_t)n > max)
		return kn_fail(err, EINVAL, "field '%s' is %" JSON_INTEGER_FORMAT
		               ", must be 0 to %" PRIu64, key, n, max);
	*ret = (uint64_t)n;
	return 0;
}

int kn_json_obj(const json_t *obj, const char *key, json_t **ret, struct kn_err *err)
{
	json_t *value = NULL;

	int r = find(obj, key, &value, err);
	if (r < 0 || !value)
		return r;
	if (!json_is_object(value))
		return wrong_type(key, "an object", value, err);
	*ret = value;
	return 0;
}

int kn_json_arr(const json_t *obj, const char *key, json_t **ret, struct kn_err *err)
{
	json_t *value = NULL;

	int r = find(obj, key, &value, err);
	if (r < 0 || !value)
		return r;
	if (!json_is_array(value))
		return wrong_type(key, "an array", value, err);
	*ret = value;
	return 0;
}

int kn_json_require(const json_t *obj, const char *const *keys, struct kn_err *err)
{
	if (!json_is_object(obj))
		return kn_fail(err, EINVAL, "expected an object, not %s", type_name(obj));
	for (; *keys; keys++) {
		json_t *value = json_object_get(obj, *keys);
		if (!value || json_is_null(value))
			return kn_fail(err, EINVAL, "field '%s' is missing", *keys);
	}
	return 0;
}

static int unknown_key(const char *key, const char *const *names, size_t n, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf list = KN_BUF_INIT;

	const char *close = kn_closest(kn_view_of(key), names, n);
	if (close)
		return kn_fail(err, EINVAL, "unknown field '%s'; did you mean '%s'?", key, close);
	for (size_t i = 0; i < n; i++)
		kn_buf_printf(&list, "%s%s", i ? ", " : "", names[i]);
	return kn_fail(err, EINVAL, "unknown field '%s'; known are: %s", key,
	               list.failed || !list.ptr ? "none" : list.ptr);
}

int kn_json_known(const json_t *obj, const char *const *names, size_t n, struct kn_err *err)
{
	const char *key;
	json_t *value;

	if (!json_is_object(obj))
		return kn_fail(err, EINVAL, "expected an object, not %s", type_name(obj));
	json_object_foreach((json_t *)(uintptr_t)obj, key, value) {
		size_t i = 0;
		while (i < n && strcmp(key, names[i]) != 0)
			i++;
		if (i == n)
			return unknown_key(key, names, n, err);
	}
	return 0;
}
