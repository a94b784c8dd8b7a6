#include "base/time.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

/* Only single-threaded tests write these. */
static bool fake;
static uint64_t fake_mono_ns, fake_wall_ns;

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * KN_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t kn_now_ns(void)
{
	return fake ? fake_mono_ns : read_clock(CLOCK_MONOTONIC);
}

uint64_t kn_wall_ns(void)
{
	return fake ? fake_wall_ns : read_clock(CLOCK_REALTIME);
}

uint64_t kn_cpu_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

#if defined(__x86_64__)

struct tsc_sample {
	uint64_t ns, ticks;
};

/* Both clocks at one moment: of several pairs the one that took least, so that nothing came between. */
static struct tsc_sample read_both(void)
{
	struct tsc_sample best = { 0 };
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 32; i++) {
		uint64_t before = __rdtsc();
		uint64_t ns = read_clock(CLOCK_MONOTONIC_RAW);
		uint64_t took = __rdtsc() - before;
		if (took >= least)
			continue;
		least = took;
		best = (struct tsc_sample){ .ns = ns, .ticks = before + took / 2 };
	}
	return best;
}

uint64_t kn_tsc_khz(void)
{
	static const struct timespec pause = { .tv_nsec = 20 * (long)KN_NS_PER_MS };
	static _Atomic uint64_t known;
	uint64_t khz = atomic_load(&known);

	if (khz)
		return khz;
	struct tsc_sample from = read_both();
	nanosleep(&pause, NULL);
	struct tsc_sample to = read_both();
	if (to.ns > from.ns)
		khz = (to.ticks - from.ticks) * KN_NS_PER_MS / (to.ns - from.ns);
	atomic_store(&known, khz);
	return khz;
}

#else

uint64_t kn_tsc_khz(void)
{
	return 0;
}

#endif

void kn_fake_clock(uint64_t mono_ns, uint64_t wall_ns)
{
	fake = true;
	fake_mono_ns = mono_ns;
	fake_wall_ns = wall_ns;
}

void kn_fake_advance(uint64_t ns)
{
	fake_mono_ns += ns;
	fake_wall_ns += ns;
}

void kn_real_clock(void)
{
	fake = false;
}

void kn_rfc3339(uint64_t wall_ns, char out[KN_RFC3339_LEN])
{
	time_t s = (time_t)(wall_ns / KN_NS_PER_S);
	struct tm tm;

	gmtime_r(&s, &tm);
	size_t n = strftime(out, KN_RFC3339_LEN, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, KN_RFC3339_LEN - n, ".%03uZ",
	         (unsigned)(wall_ns % KN_NS_PER_S / KN_NS_PER_MS));
}

/* Exactly n digits at *p, which moves past them; -1 when something else stands there. */
static int take_digits(const char **p, const char *end, int n)
{
	int value = 0;

	if (end - *p < n)
		return -1;
	for (int i = 0; i < n; i++, (*p)++) {
		if (**p < '0' || **p > '9')
			return -1;
		value = value * 10 + (**p - '0');
	}
	return value;
}

static bool take_char(const char **p, const char *end, char c)
{
	if (*p == end || **p != c)
		return false;
	(*p)++;
	return true;
}

static bool take_date(const char **p, const char *end, struct tm *tm)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	int year = take_digits(p, end, 4);
	if (year < 0 || !take_char(p, end, '-'))
		return false;
	int month = take_digits(p, end, 2);
	if (month < 1 || month > 12 || !take_char(p, end, '-'))
		return false;
	int day = take_digits(p, end, 2);
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	if (day < 1 || day > days[month - 1] + (month == 2 && leap))
		return false;
	tm->tm_year = year - 1900;
	tm->tm_mon = month - 1;
	tm->tm_mday = day;
	return true;
}

/* Second 60 is a leap second, which RFC 3339 allows; it becomes the next minute's first. */
static bool take_time(const char **p, const char *end, struct tm *tm)
{
	tm->tm_hour = take_digits(p, end, 2);
	if (tm->tm_hour < 0 || tm->tm_hour > 23 || !take_char(p, end, ':'))
		return false;
	tm->tm_min = take_digits(p, end, 2);
	if (tm->tm_min < 0 || tm->tm_min > 59 || !take_char(p, end, ':'))
		return false;
	tm->tm_sec = take_digits(p, end, 2);
	return tm->tm_sec >= 0 && tm->tm_sec <= 60;
}

/* Digits past the ninth are finer than a nanosecond: read, not used. */
static bool take_fraction(const char **p, const char *end, uint64_t *ret_ns)
{
	uint64_t place = KN_NS_PER_S / 10;

	*ret_ns = 0;
	if (!take_char(p, end, '.'))
		return true;
	const char *first = *p;
	for (; *p < end && **p >= '0' && **p <= '9'; (*p)++, place /= 10)
		*ret_ns += (uint64_t)(**p - '0') * place;
	return *p > first;
}

static bool take_offset(const char **p, const char *end, int *ret_s)
{
	int sign = take_char(p, end, '+') ? 1 : take_char(p, end, '-') ? -1 : 0;

	*ret_s = 0;
	if (!sign)
		return take_char(p, end, 'Z') || take_char(p, end, 'z');
	int hours = take_digits(p, end, 2);
	if (hours < 0 || hours > 23 || !take_char(p, end, ':'))
		return false;
	int minutes = take_digits(p, end, 2);
	*ret_s = sign * (hours * 3600 + minutes * 60);
	return minutes >= 0 && minutes <= 59;
}

int kn_parse_rfc3339(struct kn_view v, uint64_t *ret_wall_ns, struct kn_err *err)
{
	const char *p = v.ptr, *end = v.len ? v.ptr + v.len : v.ptr;
	struct tm tm = { 0 };
	uint64_t fraction_ns;
	int offset_s;

	if (!take_date(&p, end, &tm) || !(take_char(&p, end, 'T') || take_char(&p, end, 't')) ||
	    !take_time(&p, end, &tm) || !take_fraction(&p, end, &fraction_ns) ||
	    !take_offset(&p, end, &offset_s) || p != end)
		return kn_fail(err, EINVAL,
		               "'" KN_VIEW_FMT "' is not a time; write it like 2026-01-31T12:00:00Z",
		               KN_VIEW_ARG(v));

	int64_t s = timegm(&tm) - offset_s;
	if (s < 0 || (uint64_t)s > UINT64_MAX / KN_NS_PER_S - 1)
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is out of range: 1970 to 2554",
		               KN_VIEW_ARG(v));
	*ret_wall_ns = (uint64_t)s * KN_NS_PER_S + fraction_ns;
	return 0;
}
