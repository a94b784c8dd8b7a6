/*
 * libyaml's events are folded into a json_t: a stack holds the containers that are open, and every
 * finished value is put into the topmost. Nothing recurses, so that depth costs no stack.
 */
#include "base/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <yaml.h>

#include "base/fd.h"

enum { MAX_FILE = 1 << 20 };

struct level {
	json_t *container;     /* owned by the level above, or by root */
	char *key;             /* in an object: the key that waits for its value; owned */
};

struct builder {
	const char *name;      /* of the text, for errors */
	json_t *root;
	struct level levels[KN_JSON_DEPTH];
	size_t depth;
	unsigned documents;
};

static int fail_at(const struct builder *b, yaml_mark_t at, struct kn_err *err, const char *why)
{
	return kn_fail(err, EINVAL, "%s:%zu:%zu: %s", b->name, at.line + 1, at.column + 1, why);
}

static int no_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "out of memory");
}

static bool is_one_of(const char *s, const char *const *words)
{
	for (; *words; words++)
		if (strcmp(s, *words) == 0)
			return true;
	return false;
}

/* ---- plain scalars: YAML 1.2.2, section 10.3.2, the core schema ---- */

static size_t span(const char *s, const char *set)
{
	return strspn(s, set);
}

#define DIGITS "0123456789"

/* The base of an integer and where its digits begin; 0 when s is none. */
static int integer_base(const char *s, const char **ret_digits)
{
	static const struct {
		const char *prefix, *set;
		int base;
	} forms[] = {
		{ "0o", "01234567", 8 },
		{ "0x", DIGITS "abcdefABCDEF", 16 },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(forms); i++) {
		const char *digits = s + 2;
		if (strncmp(s, forms[i].prefix, 2) == 0 && *digits &&
		    digits[span(digits, forms[i].set)] == '\0') {
			*ret_digits = digits;
			return forms[i].base;
		}
	}
	const char *digits = s + (*s == '-' || *s == '+');
	*ret_digits = s;
	return *digits && digits[span(digits, DIGITS)] == '\0' ? 10 : 0;
}

static bool is_real(const char *s)
{
	s += *s == '-' || *s == '+';
	size_t whole = span(s, DIGITS), part = 0;
	s += whole;
	if (*s == '.') {
		s++;
		part = span(s, DIGITS);
		s += part;
	}
	if (whole + part == 0)
		return false;
	if (*s == 'e' || *s == 'E') {
		s++;
		s += *s == '-' || *s == '+';
		size_t digits = span(s, DIGITS);
		if (digits == 0)
			return false;
		s += digits;
	}
	return *s == '\0';
}

static bool is_inf_or_nan(const char *s)
{
	static const char *const names[] = { ".inf", ".Inf", ".INF", NULL };
	static const char *const nans[] = { ".nan", ".NaN", ".NAN", NULL };

	return is_one_of(s + (*s == '-' || *s == '+'), names) || is_one_of(s, nans);
}

static int plain_number(const struct builder *b, const char *s, yaml_mark_t at, json_t **ret,
                        struct kn_err *err)
{
	const char *digits;
	int base = integer_base(s, &digits);

	errno = 0;
	if (base) {
		long long n = strtoll(digits, NULL, base);
		if (errno)
			return fail_at(b, at, err, "the number does not fit into 64 bits");
		*ret = json_integer(n);
	} else {
		double d = strtod(s, NULL);
		*ret = json_real(d);   /* refuses infinity */
		if (!*ret && errno == ERANGE)
			return fail_at(b, at, err, "the number is too large");
	}
	return *ret ? 0 : no_memory(err);
}

static int plain_scalar(const struct builder *b, const char *s, yaml_mark_t at, json_t **ret,
                        struct kn_err *err)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
	static const char *const yes[] = { "true", "True", "TRUE", NULL };
	static const char *const no[] = { "false", "False", "FALSE", NULL };
	const char *digits;

	if (is_inf_or_nan(s))
		return fail_at(b, at, err, "infinity and not-a-number cannot be used; quote it");
	if (is_one_of(s, nulls))
		*ret = json_null();
	else if (is_one_of(s, yes))
		*ret = json_true();
	else if (is_one_of(s, no))
		*ret = json_false();
	else if (integer_base(s, &digits) || is_real(s))
		return plain_number(b, s, at, ret, err);
	else
		*ret = json_string(s);
	return *ret ? 0 : no_memory(err);
}

/* ---- events ---- */

/* Put a finished value (the reference is taken) into the container on top of the stack. */
static int put(struct builder *b, json_t *value, struct kn_err *err)
{
	if (b->depth == 0) {
		b->root = value;
		return 0;
	}
	struct level *top = &b->levels[b->depth - 1];
	int r = top->key ? json_object_set_new(top->container, top->key, value)
	                 : json_array_append_new(top->container, value);
	free(top->key);
	top->key = NULL;
	return r < 0 ? no_memory(err) : 0;
}

static bool wants_key(const struct builder *b)
{
	return b->depth && json_is_object(b->levels[b->depth - 1].container) &&
	       !b->levels[b->depth - 1].key;
}

static int take_key(struct builder *b, const yaml_event_t *e, const char *text, struct kn_err *err)
{
	struct level *top = &b->levels[b->depth - 1];

	if (json_object_get(top->container, text)) {
		char why[128];
		snprintf(why, sizeof(why), "the key '%.64s' is there twice", text);
		return fail_at(b, e->start_mark, err, why);
	}
	top->key = strdup(text);
	return top->key ? 0 : no_memory(err);
}

static int on_scalar(struct builder *b, const yaml_event_t *e, struct kn_err *err)
{
	const char *text = (const char *)e->data.scalar.value;
	json_t *value = NULL;

	if (e->data.scalar.tag)
		return fail_at(b, e->start_mark, err, "tags are not supported");
	if (strlen(text) != e->data.scalar.length)
		return fail_at(b, e->start_mark, err, "NUL characters are not allowed");
	if (wants_key(b))
		return take_key(b, e, text, err);
	if (e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
		int r = plain_scalar(b, text, e->start_mark, &value, err);
		if (r < 0)
			return r;
	} else {
		value = json_string(text);
		if (!value)
			return no_memory(err);
	}
	return put(b, value, err);
}

static int on_start(struct builder *b, const yaml_event_t *e, json_t *container, bool tagged,
                    struct kn_err *err)
{
	kn_auto(json_decref) json_t *made = container;

	if (!made)
		return no_memory(err);
	if (tagged)
		return fail_at(b, e->start_mark, err, "tags are not supported");
	if (wants_key(b))
		return fail_at(b, e->start_mark, err, "a key must be a plain word or a string");
	if (b->depth == KN_JSON_DEPTH)
		return fail_at(b, e->start_mark, err, "nested too deeply");
	int r = put(b, kn_take_ptr(made), err);
	if (r < 0)
		return r;
	b->levels[b->depth++] = (struct level){ .container = container };
	return 0;
}

static int on_document(struct builder *b, const yaml_event_t *e, struct kn_err *err)
{
	if (b->documents++)
		return fail_at(b, e->start_mark, err, "only one document is allowed in a file");
	return 0;
}

static int on_event(struct builder *b, const yaml_event_t *e, struct kn_err *err)
{
	switch (e->type) {
	case YAML_DOCUMENT_START_EVENT:
		return on_document(b, e, err);
	case YAML_SCALAR_EVENT:
		return on_scalar(b, e, err);
	case YAML_SEQUENCE_START_EVENT:
		return on_start(b, e, json_array(), e->data.sequence_start.tag, err);
	case YAML_MAPPING_START_EVENT:
		return on_start(b, e, json_object(), e->data.mapping_start.tag, err);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		b->depth--;
		return 0;
	case YAML_ALIAS_EVENT:
		return fail_at(b, e->start_mark, err, "aliases are not supported; repeat the value");
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_STREAM_END_EVENT:
	case YAML_DOCUMENT_END_EVENT:
		break;
	}
	return 0;
}

static int syntax_error(const struct builder *b, const yaml_parser_t *p, struct kn_err *err)
{
	if (p->error == YAML_MEMORY_ERROR)
		return no_memory(err);
	return fail_at(b, p->problem_mark, err, p->problem ? p->problem : "not valid YAML");
}

static int build(struct builder *b, yaml_parser_t *p, struct kn_err *err)
{
	bool end = false;
	int r = 0;

	while (r == 0 && !end) {
		yaml_event_t e;
		if (!yaml_parser_parse(p, &e))
			return syntax_error(b, p, err);
		end = e.type == YAML_STREAM_END_EVENT;
		r = on_event(b, &e, err);
		yaml_event_delete(&e);
	}
	return r;
}

static void builder_fini(struct builder *b)
{
	for (size_t i = 0; i < KN_JSON_DEPTH; i++)
		free(b->levels[i].key);
	json_decref(b->root);
}

int kn_yaml_parse(struct kn_view text, const char *name, json_t **ret, struct kn_err *err)
{
	struct builder b = { .name = name };
	yaml_parser_t p;

	if (!yaml_parser_initialize(&p))
		return no_memory(err);
	yaml_parser_set_encoding(&p, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&p, (const unsigned char *)(text.ptr ? text.ptr : ""), text.len);
	int r = build(&b, &p, err);
	yaml_parser_delete(&p);
	if (r == 0)
		*ret = b.root ? kn_take_ptr(b.root) : json_null();   /* an empty text is null */
	builder_fini(&b);
	return r;
}

int kn_yaml_load(const char *path, json_t **ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	int r = kn_read_file(AT_FDCWD, path, MAX_FILE, &text, err);
	if (r < 0)
		return r;
	return kn_yaml_parse(kn_buf_view(&text), path, ret, err);
}
