#include "base/time.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

/*
 * Dates by hand: libc's gmtime_r() and timegm() read time zones, and bring scanf and all that it can
 * parse into every static program: a tenth of the monitor's text.
 *
 * Days are counted from 1970-01-01. A year is taken to begin in March, so that the day that leap
 * years add is its last one; then 400 years are 146097 days, 4 are 1461, and 5 months are 153.
 */
struct moment {
	int year, month, day; /* month and day from 1 */
	int hour, minute, second;
};

static int64_t days_of(int year, int month, int day)
{
	int64_t y = month > 2 ? year : year - 1;
	int64_t era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
	int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* Only times since 1970 are given out, so nothing here is negative. */
static struct moment moment_of(uint64_t wall_s)
{
	uint64_t days = wall_s / 86400 + 719468, of_day = wall_s % 86400;
	uint64_t era = days / 146097, of_era = days % 146097;
	uint64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	uint64_t of_year = of_era - (365 * y + y / 4 - y / 100), m = (5 * of_year + 2) / 153;
	int month = (int)(m < 10 ? m + 3 : m - 9);

	return (struct moment){
		.year = (int)(y + era * 400) + (month <= 2),
		.month = month,
		.day = (int)(of_year - (153 * m + 2) / 5) + 1,
		.hour = (int)(of_day / 3600),
		.minute = (int)(of_day / 60 % 60),
		.second = (int)(of_day % 60),
	};
}

void kn_rfc3339(uint64_t wall_ns, char out[KN_RFC3339_LEN])
{
	struct moment t = moment_of(wall_ns / KN_NS_PER_S);

	snprintf(out, KN_RFC3339_LEN, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ", t.year, t.month, t.day,
		 t.hour, t.minute, t.second, (unsigned)(wall_ns % KN_NS_PER_S / KN_NS_PER_MS));
}

void kn_http_date(uint64_t wall_ns, char out[KN_HTTP_DATE_LEN])
{
	static const char days[][4] = { "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" };
	static const char months[][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
					  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	uint64_t s = wall_ns / KN_NS_PER_S;
	struct moment t = moment_of(s);

	snprintf(out, KN_HTTP_DATE_LEN, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[s / 86400 % 7],
		 t.day, months[t.month - 1], t.year, t.hour, t.minute, t.second);
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

static bool take_date(const char **p, const char *end, struct moment *ret)
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
	ret->year = year;
	ret->month = month;
	ret->day = day;
	return true;
}

/* Second 60 is a leap second, which RFC 3339 allows; it becomes the next minute's first. */
static bool take_time(const char **p, const char *end, struct moment *ret)
{
	ret->hour = take_digits(p, end, 2);
	if (ret->hour < 0 || ret->hour > 23 || !take_char(p, end, ':'))
		return false;
	ret->minute = take_digits(p, end, 2);
	if (ret->minute < 0 || ret->minute > 59 || !take_char(p, end, ':'))
		return false;
	ret->second = take_digits(p, end, 2);
	return ret->second >= 0 && ret->second <= 60;
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
	struct moment t;
	uint64_t fraction_ns;
	int offset_s;

	if (!take_date(&p, end, &t) || !(take_char(&p, end, 'T') || take_char(&p, end, 't')) ||
	    !take_time(&p, end, &t) || !take_fraction(&p, end, &fraction_ns) ||
	    !take_offset(&p, end, &offset_s) || p != end)
		return kn_fail(err, EINVAL,
			       "'" KN_VIEW_FMT
			       "' is not a time; write it like 2026-01-31T12:00:00Z",
			       KN_VIEW_ARG(v));

	int64_t s = days_of(t.year, t.month, t.day) * 86400 + t.hour * 3600 + t.minute * 60 +
		    t.second - offset_s;
	if (s < 0 || (uint64_t)s > UINT64_MAX / KN_NS_PER_S - 1)
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is out of range: 1970 to 2554",
			       KN_VIEW_ARG(v));
	*ret_wall_ns = (uint64_t)s * KN_NS_PER_S + fraction_ns;
	return 0;
}
