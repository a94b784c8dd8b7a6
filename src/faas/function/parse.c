#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/time.h"
#include "faas/function/private.h"

static int no_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "no memory for a function");
}

/* ---- names --------------------------------------------------------------------------------- */

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool kn_function_name_ok(struct kn_view name)
{
	if (name.len == 0 || name.len > 63 || !is_alnum(name.ptr[0]) ||
	    !is_alnum(name.ptr[name.len - 1]))
		return false;
	for (size_t i = 0; i < name.len; i++) {
		if (!is_alnum(name.ptr[i]) && name.ptr[i] != '-')
			return false;
	}
	return true;
}

static int check_name(struct kn_view name, struct kn_err *err)
{
	if (kn_function_name_ok(name))
		return 0;
	return kn_fail(err, EINVAL,
	               "function name '%.*s': use 1 to 63 lower-case letters, digits and '-', with a "
	               "letter or digit at both ends",
	               (int)kn_min(name.len, (size_t)80), name.ptr ? name.ptr : "");
}

static bool is_our_namespace(struct kn_view ns)
{
	return ns.len == 0 || kn_view_is(ns, KN_VIEW(KN_NAMESPACE));
}

int kn_function_split(struct kn_view text, struct kn_view *ret_name, struct kn_err *err)
{
	struct kn_view rest = text, name = KN_VIEW_NULL;

	kn_view_split(&rest, '.', &name);
	int r = check_name(name, err);
	if (r < 0)
		return r;
	if (rest.ptr && !is_our_namespace(rest))
		return kn_fail(err, ENOENT, "there is no namespace '%.*s': this node has '%s'",
		               (int)kn_min(rest.len, (size_t)80), rest.ptr, KN_NAMESPACE);
	*ret_name = name;
	return 0;
}

/* ---- fields -------------------------------------------------------------------------------- */

static const char *copy(struct kn_function *fn, const char *text)
{
	return kn_arena_copy(&fn->arena, text, strlen(text));
}

/* ret gets a copy of a string field, or of fallback; NULL when there is neither. */
static int read_text(struct kn_function *fn, const json_t *o, const char *key, const char *fallback,
                     const char **ret, struct kn_err *err)
{
	const char *text = fallback;

	int r = kn_json_str(o, key, &text, err);
	if (r < 0)
		return r;
	if (!text)
		return 0;
	if (strlen(text) > MAX_TEXT)
		return kn_fail(err, EINVAL, "field '%s' has more than %d bytes", key, MAX_TEXT);
	*ret = copy(fn, text);
	return *ret ? 0 : no_memory(err);
}

static int read_pair(struct kn_function *fn, const char *field, const char *name,
                     const json_t *value, struct kn_pair *ret, struct kn_err *err)
{
	if (!json_is_string(value))
		return kn_fail(err, EINVAL, "'%s' in '%s' must be a string: put quotes around it", name,
		               field);
	if (name[0] == 0 || strlen(name) > 255)
		return kn_fail(err, EINVAL, "a name in '%s' has 1 to 255 bytes", field);
	if (json_string_length(value) > MAX_TEXT)
		return kn_fail(err, EINVAL, "'%s' in '%s' has more than %d bytes", name, field,
		               MAX_TEXT);
	*ret = (struct kn_pair){ copy(fn, name), copy(fn, json_string_value(value)) };
	return ret->name && ret->value ? 0 : no_memory(err);
}

static int read_pairs(struct kn_function *fn, const json_t *o, const char *key, struct kn_pairs *ret,
                      struct kn_err *err)
{
	json_t *map = NULL, *value;
	const char *name;

	int r = kn_json_obj(o, key, &map, err);
	if (r < 0 || !map)
		return r;
	size_t n = json_object_size(map);
	if (n > MAX_PAIRS)
		return kn_fail(err, EINVAL, "'%s' has %zu entries, at most %d are taken", key, n,
		               MAX_PAIRS);
	ret->at = kn_arena_alloc(&fn->arena, n * sizeof(*ret->at));
	if (!ret->at)
		return no_memory(err);
	json_object_foreach(map, name, value) {
		r = read_pair(fn, key, name, value, &ret->at[ret->n], err);
		if (r < 0)
			return r;
		ret->n++;
	}
	return 0;
}

static int read_strings(struct kn_function *fn, const json_t *o, const char *key,
                        struct kn_strings *ret, struct kn_err *err)
{
	json_t *list = NULL;

	int r = kn_json_arr(o, key, &list, err);
	if (r < 0 || !list)
		return r;
	size_t n = json_array_size(list);
	if (n > MAX_STRINGS)
		return kn_fail(err, EINVAL, "'%s' has %zu entries, at most %d are taken", key, n,
		               MAX_STRINGS);
	ret->at = kn_arena_alloc(&fn->arena, n * sizeof(*ret->at));
	if (!ret->at)
		return no_memory(err);
	for (size_t i = 0; i < n; i++) {
		const json_t *one = json_array_get(list, i);
		if (!json_is_string(one) || json_string_length(one) > 255)
			return kn_fail(err, EINVAL,
			               "'%s' must be a list of strings of at most 255 bytes", key);
		ret->at[i] = copy(fn, json_string_value(one));
		if (!ret->at[i])
			return no_memory(err);
		ret->n++;
	}
	return 0;
}

static int read_resources(struct kn_function *fn, const json_t *o, const char *key,
                          struct kn_resources *ret, struct kn_err *err)
{
	static const char *const names[] = { "memory", "cpu" };
	json_t *map = NULL;

	int r = kn_json_obj(o, key, &map, err);
	if (r < 0 || !map)
		return r;
	if (kn_json_known(map, names, KN_ARRAY_LEN(names), err) < 0 ||
	    read_text(fn, map, "memory", NULL, &ret->memory, err) < 0 ||
	    read_text(fn, map, "cpu", NULL, &ret->cpu, err) < 0)
		return kn_while(err, "'%s'", key);
	/* OpenFaaS' clients send "" for what was left out. */
	if (ret->memory && !ret->memory[0])
		ret->memory = NULL;
	if (ret->cpu && !ret->cpu[0])
		ret->cpu = NULL;
	return 0;
}

static int check_env(const struct kn_function *fn, struct kn_err *err)
{
	for (size_t i = 0; i < fn->env.n; i++) {
		if (strchr(fn->env.at[i].name, '='))
			return kn_fail(err, EINVAL, "environment variable '%s': no '=' in names",
			               fn->env.at[i].name);
	}
	return 0;
}

static int check_image(const char *image, struct kn_err *err)
{
	size_t len = strlen(image);

	if (len == 0 || len > MAX_IMAGE)
		return kn_fail(err, EINVAL, "'image' has 1 to %d bytes", MAX_IMAGE);
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)image[i] <= ' ' || image[i] == 0x7f)
			return kn_fail(err, EINVAL, "'image' has a blank or a control character");
	}
	return 0;
}

/* What old clients still send; only its empty form means nothing. */
static int check_obsolete(const json_t *o, const char *key, struct kn_err *err)
{
	const char *text = "";

	int r = kn_json_str(o, key, &text, err);
	if (r < 0 || !text[0])
		return r;
	return kn_fail(err, EINVAL, "field '%s' is not supported: leave it out", key);
}

static int read_fields(struct kn_function *fn, const json_t *o, struct kn_err *err)
{
	const char *ns = "";

	if (read_text(fn, o, "service", NULL, &fn->name, err) < 0 ||
	    check_name(kn_view_of(fn->name), err) < 0 ||
	    read_text(fn, o, "image", "", &fn->image, err) < 0 || check_image(fn->image, err) < 0 ||
	    kn_json_str(o, "namespace", &ns, err) < 0 ||
	    read_text(fn, o, "envProcess", "", &fn->env_process, err) < 0 ||
	    read_pairs(fn, o, "envVars", &fn->env, err) < 0 || check_env(fn, err) < 0 ||
	    read_pairs(fn, o, "labels", &fn->labels, err) < 0 ||
	    read_pairs(fn, o, "annotations", &fn->annotations, err) < 0 ||
	    read_strings(fn, o, "constraints", &fn->constraints, err) < 0 ||
	    read_strings(fn, o, "secrets", &fn->secrets, err) < 0 ||
	    read_resources(fn, o, "limits", &fn->limits, err) < 0 ||
	    read_resources(fn, o, "requests", &fn->requests, err) < 0 ||
	    kn_json_bool(o, "readOnlyRootFilesystem", &fn->read_only_root, err) < 0 ||
	    check_obsolete(o, "network", err) < 0 || check_obsolete(o, "registryAuth", err) < 0)
		return -err->code;
	if (!is_our_namespace(kn_view_of(ns)))
		return kn_fail(err, EINVAL, "there is no namespace '%.80s': this node has '%s'", ns,
		               KN_NAMESPACE);
	fn->ns = KN_NAMESPACE;
	return 0;
}

static int check_keys(const json_t *o, bool stored, struct kn_err *err)
{
	static const char *const needed[] = { "service", "image", NULL };
	/* "kiln" stays last: only stored forms have it. */
	static const char *const known[] = {
		"service",     "image",    "namespace",    "envProcess", "envVars",
		"constraints", "secrets",  "labels",       "annotations", "limits",
		"requests",    "readOnlyRootFilesystem",   "network",     "registryAuth",
		"kiln",
	};

	int r = kn_json_require(o, needed, err);
	if (r < 0)
		return r;
	return kn_json_known(o, known, KN_ARRAY_LEN(known) - (stored ? 0 : 1), err);
}

int function_read(const json_t *o, bool stored, struct kn_function **ret, struct kn_err *err)
{
	struct kn_err unheard = KN_ERR_INIT;

	if (!err)
		err = &unheard;
	int r = check_keys(o, stored, err);
	if (r < 0)
		return r;
	kn_auto(kn_function_unref) struct kn_function *fn = calloc(1, sizeof(*fn));
	if (!fn)
		return no_memory(err);
	fn->refs = 1;
	kn_arena_init(&fn->arena);
	fn->created_ns = kn_wall_ns();
	r = read_fields(fn, o, err);
	if (r == 0)
		r = extras_read(fn, err);
	if (r < 0)
		return r;
	*ret = kn_take_ptr(fn);
	return 0;
}

int kn_function_parse(const json_t *deployment, struct kn_function **ret, struct kn_err *err)
{
	return function_read(deployment, false, ret, err);
}

/* ---- references ---------------------------------------------------------------------------- */

struct kn_function *kn_function_ref(struct kn_function *fn)
{
	fn->refs++;
	return fn;
}

void kn_function_unref(struct kn_function *fn)
{
	if (!fn || --fn->refs > 0)
		return;
	kn_arena_fini(&fn->arena);
	free(fn);
}
