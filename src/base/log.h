/*
 * One event, one line, with fields: a UTC time, a level, the event and name=value pairs, as text, as
 * logfmt or as JSON. Daemons log where a decision is taken; libraries return errors instead. Lines go out in
 * one write(2) each, so that threads and processes do not mix them.
 *
 *     kn_log(KN_INFO, "replica ready", KN_S("fn", name), KN_U("boot_us", us));
 *
 * Thread  any. kn_log_setup() before the first thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/time.h"

enum kn_level { KN_ERROR, KN_WARN, KN_INFO, KN_DEBUG };

struct kn_field {
	const char *name;
	enum { KN_FIELD_STR, KN_FIELD_VIEW, KN_FIELD_U64, KN_FIELD_I64 } kind;
	union {
		const char *str;     /* NULL prints as "" */
		struct kn_view view;
		uint64_t u64;
		int64_t i64;
	};
};

#define KN_S(n, v) ((struct kn_field){ .name = (n), .kind = KN_FIELD_STR, .str = (v) })
#define KN_V(n, v) ((struct kn_field){ .name = (n), .kind = KN_FIELD_VIEW, .view = (v) })
#define KN_U(n, v) ((struct kn_field){ .name = (n), .kind = KN_FIELD_U64, .u64 = (uint64_t)(v) })
#define KN_I(n, v) ((struct kn_field){ .name = (n), .kind = KN_FIELD_I64, .i64 = (int64_t)(v) })
#define KN_E(err) KN_S("error", kn_err_text(err))

struct kn_log_config {
	enum kn_level level;   /* lines above it are dropped before they are formatted */
	bool json;
	bool logfmt;           /* text in which the time, the level and the event are fields, too */
	int fd;                /* borrowed; standard error by default */
	const char *program;   /* borrowed for good; NULL leaves the field out */
};

#define KN_LOG_DEFAULTS ((struct kn_log_config){ .level = KN_INFO, .fd = 2 })

/** Replace the configuration, which is copied. */
void kn_log_setup(const struct kn_log_config *config);

/** "error", "warn", "info" or "debug". Errors: EINVAL with the list. */
kn_must_use int kn_parse_level(struct kn_view v, enum kn_level *ret, struct kn_err *err);

/** What kn_log() below stands for: would a line of this level go out, and send it. Keeps errno. */
bool kn_log_wants(enum kn_level level);
void kn_log_fields(enum kn_level level, const char *event, const struct kn_field *fields, size_t n);

/* How often one place may log what clients can cause: the rest is counted, and told with the next. */
enum { KN_LOG_PER_S = 20 };
struct kn_log_limit {
	uint64_t second;       /* of kn_now_ns(), plus 1; 0: nothing was logged yet */
	uint64_t n, dropped;
};

/** May a line go out now? Then ret_dropped is how many did not since the last one. */
bool kn_log_admits(struct kn_log_limit *l, uint64_t *ret_dropped);

/** As kn_log(), at most KN_LOG_PER_S times a second from this place; "dropped" counts the rest. */
#define kn_log_often(level, event, ...)                                                            \
	do {                                                                                       \
		static _Thread_local struct kn_log_limit kn_l;                                     \
		uint64_t kn_d;                                                                     \
		if (kn_log_wants(level) && kn_log_admits(&kn_l, &kn_d)) {                          \
			const struct kn_field kn_f[] = { { .name = NULL }, __VA_ARGS__,            \
				                         KN_U("dropped", kn_d) };                  \
			kn_log_fields((level), (event), kn_f + 1,                                  \
			              KN_ARRAY_LEN(kn_f) - (kn_d ? 1 : 2));                        \
		}                                                                                  \
	} while (0)

#define kn_log(level, event, ...)                                                                  \
	do {                                                                                       \
		if (kn_log_wants(level)) {                                                         \
			const struct kn_field kn_f[] = { { .name = NULL }, ##__VA_ARGS__ };        \
			kn_log_fields((level), (event), kn_f + 1, KN_ARRAY_LEN(kn_f) - 1);         \
		}                                                                                  \
	} while (0)
