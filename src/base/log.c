#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static struct kn_log_config config = { .level = KN_INFO, .fd = 2 };

static const char *const LEVELS[] = { "error", "warn", "info", "debug" };

void kn_log_setup(const struct kn_log_config *c)
{
	config = *c;
}

int kn_parse_level(struct kn_view v, enum kn_level *ret, struct kn_err *err)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(LEVELS); i++) {
		if (kn_view_is(v, kn_view_of(LEVELS[i]))) {
			*ret = (enum kn_level)i;
			return 0;
		}
	}
	return kn_fail(err, EINVAL,
	               "'" KN_VIEW_FMT "' is not a log level: error, warn, info or debug",
	               KN_VIEW_ARG(v));
}

bool kn_log_wants(enum kn_level level)
{
	return level <= config.level;
}

bool kn_log_admits(struct kn_log_limit *l, uint64_t *ret_dropped)
{
	uint64_t second = kn_now_ns() / KN_NS_PER_S + 1;

	if (l->second != second) {
		l->second = second;
		l->n = 0;
	}
	if (l->n >= KN_LOG_PER_S) {
		l->dropped++;
		return false;
	}
	l->n++;
	*ret_dropped = l->dropped;
	l->dropped = 0;
	return true;
}

/* Length of the UTF-8 sequence at p, or 0 when there is none (RFC 3629). */
static size_t utf8_len(const unsigned char *p, size_t left)
{
	static const struct {
		unsigned char first, last, second_min, second_max, len;
	} shapes[] = {
		{ 0x00, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(shapes); i++) {
		if (p[0] < shapes[i].first || p[0] > shapes[i].last)
			continue;
		size_t len = shapes[i].len;
		if (len > left)
			return 0;
		if (len > 1 && (p[1] < shapes[i].second_min || p[1] > shapes[i].second_max))
			return 0;
		for (size_t k = 2; k < len; k++)
			if (p[k] < 0x80 || p[k] > 0xbf)
				return 0;
		return len;
	}
	return 0;
}

/* A JSON string; bytes that are no UTF-8 become U+FFFD, so that every line stays valid. */
static void add_quoted(struct kn_buf *b, struct kn_view v)
{
	const unsigned char *p = (const unsigned char *)v.ptr;

	kn_buf_adds(b, "\"");
	for (size_t i = 0; i < v.len;) {
		size_t n = utf8_len(p + i, v.len - i);
		if (n == 0)
			kn_buf_adds(b, "\\ufffd");
		else if (p[i] == '"' || p[i] == '\\')
			kn_buf_printf(b, "\\%c", p[i]);
		else if (p[i] < 0x20 || p[i] == 0x7f)
			kn_buf_printf(b, "\\u%04x", p[i]);
		else
			kn_buf_add(b, p + i, n);
		i += n ? n : 1;
	}
	kn_buf_adds(b, "\"");
}

/* In text lines, a value that could be mistaken for something else is quoted. */
static bool is_plain(struct kn_view v)
{
	for (size_t i = 0; i < v.len; i++)
		if (v.ptr[i] <= ' ' || v.ptr[i] > '~' || v.ptr[i] == '"' || v.ptr[i] == '=' ||
		    v.ptr[i] == '\\')
			return false;
	return v.len > 0;
}

static void add_value(struct kn_buf *b, const struct kn_field *f)
{
	switch (f->kind) {
	case KN_FIELD_U64:
		kn_buf_printf(b, "%" PRIu64, f->u64);
		return;
	case KN_FIELD_I64:
		kn_buf_printf(b, "%" PRId64, f->i64);
		return;
	case KN_FIELD_STR:
	case KN_FIELD_VIEW:
		break;
	}
	struct kn_view v = f->kind == KN_FIELD_STR ? kn_view_of(f->str) : f->view;
	if (!config.json && is_plain(v))
		kn_buf_add_view(b, v);
	else
		add_quoted(b, v);
}

static void add_json(struct kn_buf *b, enum kn_level level, const char *event,
                     const struct kn_field *fields, size_t n)
{
	kn_buf_printf(b, "\",\"level\":\"%s\"", LEVELS[level]);
	if (config.program) {
		kn_buf_adds(b, ",\"program\":");
		add_quoted(b, kn_view_of(config.program));
	}
	kn_buf_adds(b, ",\"event\":");
	add_quoted(b, kn_view_of(event));
	for (size_t i = 0; i < n; i++) {
		kn_buf_adds(b, ",");
		add_quoted(b, kn_view_of(fields[i].name));
		kn_buf_adds(b, ":");
		add_value(b, &fields[i]);
	}
	kn_buf_adds(b, "}\n");
}

/* key=value throughout, which many collectors read. */
static void add_logfmt(struct kn_buf *b, enum kn_level level, const char *event,
                       const struct kn_field *fields, size_t n)
{
	const struct kn_field head[] = { KN_S("level", LEVELS[level]), KN_S("program", config.program),
		                         KN_S("event", event) };

	for (size_t i = 0; i < KN_ARRAY_LEN(head) + n; i++) {
		const struct kn_field *f = i < KN_ARRAY_LEN(head) ? &head[i]
		                                                  : &fields[i - KN_ARRAY_LEN(head)];
		if (i == 1 && !config.program)
			continue;
		kn_buf_printf(b, " %s=", f->name);
		add_value(b, f);
	}
	kn_buf_adds(b, "\n");
}

static void add_text(struct kn_buf *b, enum kn_level level, const char *event,
                     const struct kn_field *fields, size_t n)
{
	kn_buf_printf(b, " %s ", LEVELS[level]);
	if (config.program)
		kn_buf_printf(b, "%s: ", config.program);
	kn_buf_adds(b, event);
	for (size_t i = 0; i < n; i++) {
		kn_buf_printf(b, " %s=", fields[i].name);
		add_value(b, &fields[i]);
	}
	kn_buf_adds(b, "\n");
}

void kn_log_fields(enum kn_level level, const char *event, const struct kn_field *fields, size_t n)
{
	kn_auto(kn_buf_fini) struct kn_buf line = KN_BUF_INIT;
	char now[KN_RFC3339_LEN];
	int keep = errno;

	kn_rfc3339(kn_wall_ns(), now);
	if (config.json)
		kn_buf_adds(&line, "{\"time\":\"");
	else if (config.logfmt)
		kn_buf_adds(&line, "time=");
	kn_buf_adds(&line, now);
	if (config.json)
		add_json(&line, level, event, fields, n);
	else if (config.logfmt)
		add_logfmt(&line, level, event, fields, n);
	else
		add_text(&line, level, event, fields, n);

	struct kn_view out = line.failed ? KN_VIEW("a log line was lost: out of memory\n")
	                                 : kn_buf_view(&line);
	/* Nobody could be told that the log itself cannot be written. */
	ssize_t ignored = write(config.fd, out.ptr, out.len);
	(void)ignored;
	errno = keep;
}
