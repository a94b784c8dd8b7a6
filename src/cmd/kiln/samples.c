#include "cmd/kiln/samples.h"

#include <stdlib.h>
#include <string.h>

/* Where a quoted value ends, from behind its first quote; len when it does not. */
static size_t value_end(struct kn_view v)
{
	size_t i = 0;

	while (i < v.len && v.ptr[i] != '"')
		i += v.ptr[i] == '\\' ? 2 : 1;
	return i < v.len ? i : v.len;
}

/* The next name="value" of labels; false at their end, or when they are none. */
static bool next_label(struct kn_view *rest, struct kn_view *name, struct kn_view *value)
{
	const char *equals = rest->len ? memchr(rest->ptr, '=', rest->len) : NULL;

	if (!equals)
		return false;
	size_t at = (size_t)(equals - rest->ptr);
	if (rest->len - at < 3 || equals[1] != '"')
		return false;
	*name = kn_view_trim((struct kn_view){ rest->ptr, at });
	struct kn_view behind = { equals + 2, rest->len - at - 2 };
	size_t end = value_end(behind);
	if (end == behind.len)
		return false;
	*value = (struct kn_view){ behind.ptr, end };
	end++;
	if (end < behind.len && behind.ptr[end] == ',')
		end++;
	*rest = (struct kn_view){ behind.ptr + end, behind.len - end };
	return true;
}

struct kn_view kn_sample_label(const struct kn_sample *s, const char *name)
{
	struct kn_view rest = s->labels, key, value;

	while (next_label(&rest, &key, &value))
		if (kn_view_is(key, kn_view_of(name)))
			return value;
	return KN_VIEW_NULL;
}

/* The closing brace, which may also stand inside a value. */
static bool split_labels(struct kn_view *rest, struct kn_view *ret)
{
	size_t i = 0;

	while (i < rest->len && rest->ptr[i] != '}') {
		if (rest->ptr[i] == '"') {
			struct kn_view v = { rest->ptr + i + 1, rest->len - i - 1 };
			i += 1 + value_end(v);
		}
		i++;
	}
	if (i >= rest->len)
		return false;
	*ret = (struct kn_view){ rest->ptr, i };
	*rest = (struct kn_view){ rest->ptr + i + 1, rest->len - i - 1 };
	return true;
}

static bool read_value(struct kn_view v, double *ret)
{
	char text[64], *end;

	v = kn_view_trim(v);
	if (v.len == 0 || v.len >= sizeof(text))
		return false;
	memcpy(text, v.ptr, v.len);
	text[v.len] = '\0';
	*ret = strtod(text, &end);
	return end != text; /* a time stamp may follow */
}

static bool read_line(struct kn_view line, struct kn_sample *ret)
{
	size_t i = 0;

	line = kn_view_trim(line);
	while (i < line.len && line.ptr[i] != '{' && line.ptr[i] != ' ')
		i++;
	if (i == 0 || i == line.len || line.ptr[0] == '#')
		return false;
	*ret = (struct kn_sample){ .name = { line.ptr, i } };
	struct kn_view rest = { line.ptr + i, line.len - i };
	if (rest.ptr[0] == '{') {
		rest = (struct kn_view){ rest.ptr + 1, rest.len - 1 };
		if (!split_labels(&rest, &ret->labels))
			return false;
	}
	return read_value(rest, &ret->value);
}

size_t kn_samples_each(struct kn_view page, void (*each)(const struct kn_sample *s, void *arg),
		       void *arg)
{
	struct kn_sample s;
	struct kn_view line;
	size_t n = 0;

	while (kn_view_split(&page, '\n', &line)) {
		if (!read_line(line, &s))
			continue;
		each(&s, arg);
		n++;
	}
	return n;
}
