/*
 * How `kiln` shows things to people: tables, sizes, durations, times, and text from a node or a
 * function, which must not steer the terminal.
 *
 * Thread  one
 */
#pragma once

#include <stdio.h>

#include "base/json.h"

/* Rows of text in columns as wide as their widest cell. */
struct kn_grid {
	size_t columns;
	const char **cells; /* owned by arena */
	size_t n, cap;
	bool failed; /* memory was out; kn_grid_print() says so */
	struct kn_arena arena;
};

/** An empty grid; headings are its first row. */
void kn_grid_init(struct kn_grid *g, size_t columns);
void kn_grid_fini(struct kn_grid *g);
static inline void kn_grid_fini_auto(struct kn_grid *g)
{
	kn_grid_fini(g);
}

/** The next cell, row by row. Control characters are shown as '?'. */
void kn_grid_add(struct kn_grid *g, const char *fmt, ...) kn_printf(2, 3);

/** Print all rows. Errors: ENOMEM when a cell got none */
kn_must_use int kn_grid_print(const struct kn_grid *g, FILE *f, struct kn_err *err);

enum { KN_SHORT = 32 };

/** "12.4 MB"; decimal units, as `docker images` and `ls --si` show them. */
void kn_show_bytes(uint64_t bytes, char out[KN_SHORT]);

/** "740 us", "57.1 ms", "1.24 s". */
void kn_show_ns(uint64_t ns, char out[KN_SHORT]);

/** "12 s ago", "3 h ago" of an RFC 3339 time; the text itself when it is none. */
void kn_show_age(const char *rfc3339, char out[KN_SHORT]);

/** Print text with its control characters (but for tab and newline) shown as "\x1b". */
void kn_show_text(FILE *f, struct kn_view text);

/** Print a JSON value, indented, with a newline. */
void kn_show_json(const json_t *value);

/* A progress line on a terminal; nothing when standard error is none. */
struct kn_meter {
	const char *what;
	bool shown;
	uint64_t next_ns; /* when the line may be drawn again */
};

/** Draw "what: 12.4 MB of 40.0 MB (31 %)"; total 0 leaves out what is not known. */
void kn_meter_step(struct kn_meter *p, uint64_t done, uint64_t total);

/** Wipe the line. */
void kn_meter_end(struct kn_meter *p);
