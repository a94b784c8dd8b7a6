/*
 * stack.yaml of OpenFaaS to deployments. Each function of the file becomes the JSON that a client
 * would post, so that both ways in meet the same checks.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "faas/function/private.h"

/* A key of the file and the field of the deployment that it becomes. */
enum kind { PLAIN, SCALARS, IGNORED, REFUSED };

static const struct {
	const char *key, *field;
	enum kind kind;
	const char *why;             /* REFUSED: what to do instead */
} KEYS[] = {
	{ "image", "image", PLAIN, NULL },
	{ "namespace", "namespace", PLAIN, NULL },
	{ "fprocess", "envProcess", PLAIN, NULL },
	{ "environment", "envVars", SCALARS, NULL },
	{ "labels", "labels", SCALARS, NULL },
	{ "annotations", "annotations", SCALARS, NULL },
	{ "limits", "limits", SCALARS, NULL },
	{ "requests", "requests", SCALARS, NULL },
	{ "secrets", "secrets", PLAIN, NULL },
	{ "constraints", "constraints", PLAIN, NULL },
	{ "readonly_root_filesystem", "readOnlyRootFilesystem", PLAIN, NULL },
	/* These describe how an image is built, which is over when it is deployed. */
	{ "lang", NULL, IGNORED, NULL },
	{ "handler", NULL, IGNORED, NULL },
	{ "skip_build", NULL, IGNORED, NULL },
	{ "build_options", NULL, IGNORED, NULL },
	{ "build_args", NULL, IGNORED, NULL },
	{ "build_secrets", NULL, IGNORED, NULL },
	{ "platforms", NULL, IGNORED, NULL },
	{ "environment_file", NULL, REFUSED, "write the values under 'environment'" },
};

static int out_of_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "no memory for the stack file");
}

/*
 * YAML has typed what stands without quotes. Where a string is wanted, whole numbers and booleans
 * have one spelling; a real number has many (1.10 would become 1.1), so it must be quoted, except
 * where it is a quantity.
 */
static json_t *scalar_text(const json_t *value, bool quantity)
{
	switch (json_typeof(value)) {
	case JSON_STRING:
		return json_string(json_string_value(value));
	case JSON_INTEGER:
		return json_sprintf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	case JSON_TRUE:
		return json_string("true");
	case JSON_FALSE:
		return json_string("false");
	case JSON_NULL:
		return json_string("");
	case JSON_REAL:
		return quantity ? json_sprintf("%g", json_real_value(value)) : NULL;
	case JSON_OBJECT:
	case JSON_ARRAY:
		return NULL;
	}
	return NULL;
}

static int texts_of(const json_t *map, const char *key, bool quantity, json_t **ret,
                    struct kn_err *err)
{
	kn_auto(json_decref) json_t *out = json_object();
	const char *name;
	json_t *value;

	if (!json_is_object(map))
		return kn_fail(err, EINVAL, "'%s' must be a map", key);
	json_object_foreach((json_t *)(uintptr_t)map, name, value) {
		json_t *text = scalar_text(value, quantity);
		if (!text)
			return kn_fail(err, EINVAL, "'%.80s' in '%s': put quotes around the value", name,
			               key);
		if (json_object_set_new(out, name, text) < 0)
			return out_of_memory(err);
	}
	if (!out)
		return out_of_memory(err);
	*ret = kn_take_ptr(out);
	return 0;
}

static int unknown_key(const char *key, struct kn_err *err)
{
	const char *names[KN_ARRAY_LEN(KEYS)];

	for (size_t i = 0; i < KN_ARRAY_LEN(KEYS); i++)
		names[i] = KEYS[i].key;
	const char *close = kn_closest(kn_view_of(key), names, KN_ARRAY_LEN(KEYS));
	return kn_fail(err, EINVAL, "unknown key '%.80s'%s%s%s", key,
	               close ? ": did you mean '" : "", close ? close : "", close ? "'?" : "");
}

static int take_key(const char *key, const json_t *value, json_t *deployment, struct kn_err *err)
{
	size_t i = 0;

	while (i < KN_ARRAY_LEN(KEYS) && strcmp(KEYS[i].key, key) != 0)
		i++;
	if (i == KN_ARRAY_LEN(KEYS))
		return unknown_key(key, err);
	if (KEYS[i].kind == REFUSED)
		return kn_fail(err, EINVAL, "'%s' is not supported: %s", key, KEYS[i].why);
	if (KEYS[i].kind == IGNORED || json_is_null(value))
		return 0;

	json_t *taken = NULL;
	if (KEYS[i].kind == SCALARS) {
		bool quantity = strcmp(key, "limits") == 0 || strcmp(key, "requests") == 0;
		int r = texts_of(value, key, quantity, &taken, err);
		if (r < 0)
			return r;
	} else {
		taken = json_incref((json_t *)(uintptr_t)value);
	}
	return json_object_set_new(deployment, KEYS[i].field, taken) < 0 ? out_of_memory(err) : 0;
}

static int read_function(const char *name, const json_t *o, struct kn_function **ret,
                         struct kn_err *err)
{
	kn_auto(json_decref) json_t *deployment = json_pack("{s:s}", "service", name);
	const char *key;
	json_t *value;

	if (!json_is_object(o))
		return kn_fail(err, EINVAL, "must be a map with 'image'");
	if (!deployment)
		return kn_fail(err, EINVAL, "the name is not text");
	json_object_foreach((json_t *)(uintptr_t)o, key, value) {
		int r = take_key(key, value, deployment, err);
		if (r < 0)
			return r;
	}
	if (!json_object_get(deployment, "image"))
		return kn_fail(err, EINVAL, "'image' is missing%s",
		               json_object_get(o, "handler")
		                       ? ": build an image from the handler first"
		                       : "");
	return kn_function_parse(deployment, ret, err);
}

static int read_functions(const json_t *map, struct kn_stack *s, struct kn_err *err)
{
	const char *name;
	json_t *value;

	if (json_object_size(map) == 0 || json_object_size(map) > MAX_STACK)
		return kn_fail(err, EINVAL, "'functions' must be a map of 1 to %d functions",
		               MAX_STACK);
	s->at = kn_arena_alloc(&s->arena, json_object_size(map) * sizeof(struct kn_function *));
	if (!s->at)
		return out_of_memory(err);
	json_object_foreach((json_t *)(uintptr_t)map, name, value) {
		int r = read_function(name, value, &s->at[s->n], err);
		if (r < 0)
			return kn_while(err, "function '%.80s'", name);
		s->n++;
	}
	return 0;
}

static int read_provider(const json_t *o, struct kn_stack *s, struct kn_err *err)
{
	static const char *const known[] = { "name", "gateway", "network" };
	json_t *provider = NULL;
	const char *name = "openfaas", *gateway = NULL;

	int r = kn_json_obj(o, "provider", &provider, err);
	if (r < 0 || !provider)
		return r;
	if (kn_json_known(provider, known, KN_ARRAY_LEN(known), err) < 0 ||
	    kn_json_str(provider, "name", &name, err) < 0 ||
	    kn_json_str(provider, "gateway", &gateway, err) < 0)
		return kn_while(err, "'provider'");
	if (strcmp(name, "openfaas") != 0 && strcmp(name, "faas") != 0 && strcmp(name, "kiln") != 0)
		return kn_fail(err, EINVAL, "provider '%.80s' is not known: use openfaas", name);
	if (gateway)
		s->gateway = kn_arena_copy(&s->arena, gateway, strlen(gateway));
	return gateway && !s->gateway ? out_of_memory(err) : 0;
}

/* "1.0" is a real number to YAML when it has no quotes. */
static int check_version(const json_t *o, struct kn_err *err)
{
	const json_t *v = json_object_get(o, "version");

	if (!v || (json_is_number(v) && json_number_value(v) == 1.0) ||
	    (json_is_string(v) && strcmp(json_string_value(v), "1.0") == 0))
		return 0;
	return kn_fail(err, EINVAL, "'version' must be 1.0");
}

int kn_stack_parse(const json_t *yaml, struct kn_stack *ret, struct kn_err *err)
{
	static const char *const known[] = { "functions", "version", "provider", "configuration" };
	static const char *const needed[] = { "functions", NULL };
	kn_auto(kn_stack_fini) struct kn_stack s = { .gateway = NULL };
	json_t *functions = NULL;

	kn_arena_init(&s.arena);
	int r = kn_json_require(yaml, needed, err);
	if (r == 0)
		r = kn_json_known(yaml, known, KN_ARRAY_LEN(known), err);
	if (r == 0)
		r = check_version(yaml, err);
	if (r == 0)
		r = read_provider(yaml, &s, err);
	if (r == 0)
		r = kn_json_obj(yaml, "functions", &functions, err);
	if (r == 0)
		r = read_functions(functions, &s, err);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct kn_stack){ .gateway = NULL };
	return 0;
}

void kn_stack_fini(struct kn_stack *s)
{
	for (size_t i = 0; i < s->n; i++)
		kn_function_unref(s->at[i]);
	kn_arena_fini(&s->arena);
	*s = (struct kn_stack){ .gateway = NULL };
}
