/* Numbers out of text. */
#include "bare_internal.h"

static bool is_digit(const char *p, const char *end)
{
	return p < end && *p >= '0' && *p <= '9';
}

bool kiln_parse_u64(const char **p, const char *end, uint64_t *ret)
{
	const char *q = *p;
	uint64_t v = 0;

	if (!is_digit(q, end))
		return false;
	for (; is_digit(q, end); q++) {
		unsigned d = (unsigned)(*q - '0');
		if (v > (UINT64_MAX - d) / 10)
			return false;
		v = v * 10 + d;
	}
	*p = q;
	*ret = v;
	return true;
}

/* The digits of a number: mantissa * 10^exponent, as far as 19 of them hold. */
struct digits {
	uint64_t mantissa;
	int exponent;
	bool any;
};

static const char *take_digits(const char *q, const char *end, bool fraction, struct digits *d)
{
	for (; is_digit(q, end); q++) {
		d->any = true;
		if (d->mantissa < UINT64_C(1000000000000000000)) {
			d->mantissa = d->mantissa * 10 + (unsigned)(*q - '0');
			d->exponent -= fraction;
		} else {
			d->exponent += !fraction;
		}
	}
	return q;
}

/* "e-12" at q, or nothing. */
static const char *take_exponent(const char *q, const char *end, int *ret)
{
	const char *e = q;
	bool negative = false;
	int v = 0;

	if (e == end || (*e != 'e' && *e != 'E'))
		return q;
	e++;
	if (e < end && (*e == '+' || *e == '-'))
		negative = *e++ == '-';
	if (!is_digit(e, end))
		return q;
	for (; is_digit(e, end); e++)
		v = v < 10000 ? v * 10 + (*e - '0') : v;
	*ret += negative ? -v : v;
	return e;
}

/*
 * mantissa * 10^e. Exact where both are (Clinger's fast path); else in x87's 64-bit mantissa, which
 * is right to within one unit in a double's last place.
 */
static double scale(uint64_t mantissa, int e)
{
	long double v = (long double)mantissa, ten = 10;

	if (mantissa == 0 || e < -400)
		return 0;
	bool negative = e < 0;
	long double power = 1;
	for (unsigned n = (unsigned)(negative ? -e : e); n; n /= 2, ten *= ten)
		if (n % 2)
			power *= ten;
	return (double)(negative ? v / power : v * power);
}

bool kiln_parse_double(const char **p, const char *end, double *ret)
{
	struct digits d = { 0 };
	const char *q = *p;
	bool negative = q < end && *q == '-';

	q = take_digits(q + negative, end, false, &d);
	if (q < end && *q == '.')
		q = take_digits(q + 1, end, true, &d);
	if (!d.any)
		return false;
	q = take_exponent(q, end, &d.exponent);
	if (d.exponent > 400 && d.mantissa)
		return false;
	double v = scale(d.mantissa, d.exponent);
	if (v - v != 0)                 /* infinite */
		return false;
	*p = q;
	*ret = negative ? -v : v;
	return true;
}
