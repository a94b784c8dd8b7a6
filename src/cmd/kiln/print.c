#include "cmd/kiln/print.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/time.h"

void kn_grid_init(struct kn_grid *g, size_t columns)
{
	*g = (struct kn_grid){ .columns = columns };
	kn_arena_init(&g->arena);
}

void kn_grid_fini(struct kn_grid *g)
{
	kn_free(g->cells);
	kn_arena_fini(&g->arena);
	*g = (struct kn_grid){ .columns = g->columns };
}

static bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

static char *cell_text(struct kn_grid *g, const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	for (char *c = text; *c; c++)
		if (is_control(*c))
			*c = '?';
	return kn_arena_copy(&g->arena, text, strlen(text));
}

void kn_grid_add(struct kn_grid *g, const char *fmt, ...)
{
	if (g->n == g->cap) {
		size_t cap = g->cap ? 2 * g->cap : 64;
		const char **cells = realloc(g->cells, cap * sizeof(*cells));
		if (!cells) {
			g->failed = true;
			return;
		}
		g->cells = cells;
		g->cap = cap;
	}

	va_list ap;
	va_start(ap, fmt);
	char *text = cell_text(g, fmt, ap);
	va_end(ap);
	if (!text) {
		g->failed = true;
		return;
	}
	g->cells[g->n++] = text;
}

/* Characters, not bytes: continuation bytes of UTF-8 take no room. */
static int width_of(const char *s)
{
	int n = 0;

	for (; *s; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

static int column_width(const struct kn_grid *g, size_t column)
{
	int width = 0;

	for (size_t i = column; i < g->n; i += g->columns)
		width = kn_max(width, width_of(g->cells[i]));
	return width;
}

int kn_grid_print(const struct kn_grid *g, FILE *f, struct kn_err *err)
{
	if (g->failed)
		return kn_fail(err, ENOMEM, "out of memory");

	for (size_t i = 0; i < g->n; i++) {
		bool last = (i + 1) % g->columns == 0;
		int pad = last ? 0 : column_width(g, i % g->columns) + 2 - width_of(g->cells[i]);
		fprintf(f, "%s%*s%s", g->cells[i], pad, "", last ? "\n" : "");
	}
	return 0;
}

void kn_show_bytes(uint64_t bytes, char out[KN_SHORT])
{
	static const char *const units[] = { "kB", "MB", "GB", "TB", "PB", "EB" };
	double v = (double)bytes;
	size_t u = 0;

	if (bytes < 1000) {
		snprintf(out, KN_SHORT, "%u B", (unsigned)bytes);
		return;
	}
	for (v /= 1000; v >= 999.95 && u + 1 < KN_ARRAY_LEN(units); u++)
		v /= 1000;
	snprintf(out, KN_SHORT, "%.1f %s", v, units[u]);
}

void kn_show_ns(uint64_t ns, char out[KN_SHORT])
{
	double v = (double)ns;

	if (ns < KN_NS_PER_US)
		snprintf(out, KN_SHORT, "%u ns", (unsigned)ns);
	else if (ns < KN_NS_PER_MS)
		snprintf(out, KN_SHORT, "%.0f us", v / 1e3);
	else if (ns < KN_NS_PER_S)
		snprintf(out, KN_SHORT, "%.*f ms", v < 1e7 ? 2 : 1, v / 1e6);
	else
		snprintf(out, KN_SHORT, "%.2f s", v / 1e9);
}

void kn_show_age(const char *rfc3339, char out[KN_SHORT])
{
	static const struct {
		uint64_t seconds;
		const char *unit;
	} units[] = { { 86400, "d" }, { 3600, "h" }, { 60, "min" }, { 1, "s" } };
	uint64_t then_ns = 0;
	uint64_t now_ns = kn_wall_ns();

	if (kn_parse_rfc3339(kn_view_of(rfc3339), &then_ns, NULL) < 0 || then_ns > now_ns) {
		snprintf(out, KN_SHORT, "%.*s", KN_SHORT - 1, rfc3339 ? rfc3339 : "");
		return;
	}
	uint64_t age_s = (now_ns - then_ns) / KN_NS_PER_S;
	for (size_t i = 0; i < KN_ARRAY_LEN(units); i++) {
		if (age_s < units[i].seconds)
			continue;
		snprintf(out, KN_SHORT, "%llu %s ago",
			 (unsigned long long)(age_s / units[i].seconds), units[i].unit);
		return;
	}
	snprintf(out, KN_SHORT, "now");
}

void kn_show_text(FILE *f, struct kn_view text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.ptr[i];
		if (is_control(c) && c != '\t' && c != '\n')
			fprintf(f, "\\x%02x", (unsigned char)c);
		else
			fputc(c, f);
	}
}

void kn_show_json(const json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	fputc('\n', stdout);
}

enum { PROGRESS_MS = 100 };

void kn_meter_step(struct kn_meter *p, uint64_t done, uint64_t total)
{
	char have[KN_SHORT], all[KN_SHORT];
	uint64_t now_ns = kn_now_ns();

	if (!isatty(STDERR_FILENO) || now_ns < p->next_ns)
		return;
	p->next_ns = now_ns + PROGRESS_MS * KN_NS_PER_MS;
	p->shown = true;
	kn_show_bytes(done, have);
	if (total == 0) {
		fprintf(stderr, "\r\033[K%s: %s", p->what, have);
	} else {
		kn_show_bytes(total, all);
		fprintf(stderr, "\r\033[K%s: %s of %s (%u %%)", p->what, have, all,
			(unsigned)(100.0 * (double)done / (double)total));
	}
	fflush(stderr);
}

void kn_meter_end(struct kn_meter *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
