/*
 * Places in a configuration. jansson keeps no lines, so that a failure, and only a failure, reads
 * the text a second time to find the line of its place.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

#include "packet/chain/read.h"

enum { PATH_MAX_TEXT = 160 };

struct place kn_member(const struct place *p, const char *key)
{
	return (struct place){
		.source = p->source, .up = p, .key = key, .value = json_object_get(p->value, key)
	};
}

struct place kn_item(const struct place *p, size_t index)
{
	return (struct place){ .source = p->source,
			       .up = p,
			       .index = index,
			       .value = json_array_get(p->value, index) };
}

static size_t write_path(const struct place *p, char *out, size_t room)
{
	if (!p->up)
		return 0;
	size_t at = kn_min(write_path(p->up, out, room), room - 1);
	int n = p->key ? snprintf(out + at, room - at, "%s%s", at ? "." : "", p->key)
		       : snprintf(out + at, room - at, "[%zu]", p->index);
	return at + (size_t)kn_max(n, 0);
}

int (kn_wrong_inside)(const struct place *p, struct kn_err *err)
{
	char path[PATH_MAX_TEXT] = "";

	write_path(p, path, sizeof(path));
	unsigned line = kn_yaml_line(p->source->text, path);
	return kn_while(err, "%s:%u: %s", p->source->file, line ? line : 1,
			path[0] ? path : "the file");
}

int (kn_wrong)(const struct place *p, struct kn_err *err, const char *fmt, ...)
{
	char what[KN_ERR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	kn_fail(err, EINVAL, "%s", what);
	kn_wrong_inside(p, err);
	return -EINVAL;
}

static void list_words(struct kn_buf *b, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		kn_buf_printf(b, "%s%s", i ? ", " : "", words[i]);
}

static int unknown_key(const struct place *p, const char *key, const char *const *keys, size_t n,
		       struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf list = KN_BUF_INIT;
	const char *close = kn_closest(kn_view_of(key), keys, n);
	struct place wrong = kn_member(p, key);

	if (close)
		return kn_wrong(&wrong, err, "unknown key; did you mean '%s'?", close);
	list_words(&list, keys, n);
	return kn_wrong(&wrong, err, "unknown key; there are: %s", list.ptr ? list.ptr : "?");
}

int kn_known_keys(const struct place *p, const char *const *keys, size_t n, struct kn_err *err)
{
	const char *key;
	json_t *value;

	if (!json_is_object(p->value))
		return kn_wrong(p, err, "must be a mapping (key: value)");
	json_object_foreach ((json_t *)p->value, key, value) {
		size_t i = 0;
		while (i < n && strcmp(keys[i], key) != 0)
			i++;
		if (i == n)
			return unknown_key(p, key, keys, n, err);
	}
	return 0;
}

int kn_word(const struct place *p, const char *const *words, size_t n, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf list = KN_BUF_INIT;
	const char *word = json_string_value(p->value);

	for (size_t i = 0; i < n; i++)
		if (word && strcmp(words[i], word) == 0)
			return (int)i;
	list_words(&list, words, n);
	return kn_wrong(p, err, "must be one of: %s", list.ptr ? list.ptr : "?");
}

int kn_scalar(const struct place *p, char scratch[24], struct kn_view *ret, struct kn_err *err)
{
	if (json_is_string(p->value)) {
		*ret = (struct kn_view){ json_string_value(p->value),
					 json_string_length(p->value) };
		return 0;
	}
	if (!json_is_integer(p->value))
		return kn_wrong(p, err, "must be text or a whole number");
	snprintf(scratch, 24, "%lld", (long long)json_integer_value(p->value));
	*ret = kn_view_of(scratch);
	return 0;
}

int kn_number(const struct place *p, uint32_t least, uint32_t most, uint32_t *ret,
	      struct kn_err *err)
{
	json_int_t n = json_integer_value(p->value);

	if (!json_is_integer(p->value) || n < (json_int_t)least || n > (json_int_t)most)
		return kn_wrong(p, err, "must be a whole number from %u to %u", least, most);
	*ret = (uint32_t)n;
	return 0;
}

/*
 * The line search: walk libyaml's events down the path. Each function gets the event that begins
 * its node and leaves the parser behind the node's last event, unless the line was found.
 */
struct search {
	yaml_parser_t parser;
	bool broken;
};

static bool next(struct search *s, yaml_event_t *ret)
{
	if (!s->broken && yaml_parser_parse(&s->parser, ret))
		return true;
	s->broken = true;
	return false;
}

/* Step over the rest of the node that this event began. */
static void skip(struct search *s, yaml_event_type_t begin)
{
	int depth = begin == YAML_MAPPING_START_EVENT || begin == YAML_SEQUENCE_START_EVENT;
	yaml_event_t e;

	while (depth > 0 && next(s, &e)) {
		yaml_event_type_t type = e.type;
		yaml_event_delete(&e);
		depth += type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT;
		depth -= type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT;
		if (type == YAML_STREAM_END_EVENT)
			return;
	}
}

/* What the path names first; *path goes on behind it. */
static struct kn_view first_key(const char **path)
{
	const char *p = *path;
	size_t n;

	p += *p == '.';
	n = strcspn(p, ".[");
	*path = p + n;
	return (struct kn_view){ p, n };
}

static unsigned find(struct search *s, yaml_event_type_t begin, unsigned line, const char *path);

static unsigned find_key(struct search *s, const char *path, unsigned line)
{
	struct kn_view key = first_key(&path);
	yaml_event_t e;

	while (next(s, &e)) {
		struct kn_view have = KN_VIEW_NULL;
		if (e.type == YAML_SCALAR_EVENT)
			have = (struct kn_view){ (const char *)e.data.scalar.value,
						 e.data.scalar.length };
		bool found = have.ptr && kn_view_is(have, key), end = !have.ptr;
		unsigned at = (unsigned)e.start_mark.line + 1;
		yaml_event_delete(&e);
		if (end || !next(s, &e))
			break;
		yaml_event_type_t type = e.type;
		yaml_event_delete(&e);
		if (found)
			return find(s, type, at, path);
		skip(s, type);
	}
	return line;
}

static unsigned find_item(struct search *s, const char *path, unsigned line)
{
	char *behind;
	unsigned long index = strtoul(path + 1, &behind, 10);
	yaml_event_t e;

	for (unsigned long i = 0; next(s, &e); i++) {
		yaml_event_type_t type = e.type;
		unsigned at = (unsigned)e.start_mark.line + 1;
		yaml_event_delete(&e);
		if (type == YAML_SEQUENCE_END_EVENT)
			break;
		if (i == index)
			return find(s, type, at, behind + (*behind == ']'));
		skip(s, type);
	}
	return line;
}

static unsigned find(struct search *s, yaml_event_type_t begin, unsigned line, const char *path)
{
	if (*path == '[' && begin == YAML_SEQUENCE_START_EVENT)
		return find_item(s, path, line);
	if (*path && *path != '[' && begin == YAML_MAPPING_START_EVENT)
		return find_key(s, path, line);
	return line;
}

unsigned kn_yaml_line(struct kn_view text, const char *path)
{
	struct search s = { .broken = false };
	unsigned line = 0;
	yaml_event_t e;

	if (!yaml_parser_initialize(&s.parser))
		return 0;
	yaml_parser_set_input_string(&s.parser, (const unsigned char *)text.ptr, text.len);
	while (line == 0 && next(&s, &e)) {
		yaml_event_type_t type = e.type;
		unsigned at = (unsigned)e.start_mark.line + 1;
		yaml_event_delete(&e);
		if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT)
			line = find(&s, type, at, path);
		if (type == YAML_STREAM_END_EVENT)
			break;
	}
	yaml_parser_delete(&s.parser);
	return line;
}
