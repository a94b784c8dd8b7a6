/*
 * Clocks. Durations and deadlines are monotonic nanoseconds; wall time is only for people, tokens
 * and stored records. Tests put a fake clock in the place of the real one.
 *
 * Thread  any; the fake clock is for single-threaded tests.
 */
#pragma once

#include <stdint.h>

#include "base/str.h"

#define KN_NS_PER_US UINT64_C(1000)
#define KN_NS_PER_MS UINT64_C(1000000)
#define KN_NS_PER_S  UINT64_C(1000000000)

/** CLOCK_MONOTONIC in nanoseconds. */
uint64_t kn_now_ns(void);

/** CLOCK_REALTIME in nanoseconds since 1970. */
uint64_t kn_wall_ns(void);

/** CPU time of the calling thread in nanoseconds, for benchmarks and budgets. */
uint64_t kn_cpu_ns(void);

/**
 * The rate of this machine's time stamp counter in kHz, measured once against CLOCK_MONOTONIC_RAW:
 * the first call takes 20 ms. 0 where there is none (not x86).
 *
 * Thread  any
 */
uint64_t kn_tsc_khz(void);

enum { KN_RFC3339_LEN = 32 };

/** "2026-01-31T12:00:00.123Z" of wall_ns into out. */
void kn_rfc3339(uint64_t wall_ns, char out[KN_RFC3339_LEN]);

enum { KN_HTTP_DATE_LEN = 32 };

/** "Sat, 31 Jan 2026 12:00:00 GMT" of wall_ns into out. Source: RFC 9110, 5.6.7 (IMF-fixdate) */
void kn_http_date(uint64_t wall_ns, char out[KN_HTTP_DATE_LEN]);

/**
 * The inverse of kn_rfc3339(), with or without fraction, Z or an offset.
 *
 * Errors  EINVAL
 * Source  RFC 3339
 */
kn_must_use int kn_parse_rfc3339(struct kn_view v, uint64_t *ret_wall_ns, struct kn_err *err);

/** Tests: from now on both clocks stand at these values; they move only by kn_fake_advance(). */
void kn_fake_clock(uint64_t mono_ns, uint64_t wall_ns);
void kn_fake_advance(uint64_t ns);
void kn_real_clock(void);
