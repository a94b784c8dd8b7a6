/*
 * printf's conversions into a buffer. Floating point is exact: a double is written out as a large
 * decimal number and rounded there, half to even, as C asks for.
 */
#include "bare_internal.h"

struct out {
	char *at;
	size_t room, len;          /* len counts what does not fit, too */
};

struct spec {
	bool left, plus, blank, zero, alternate;
	int width, precision;      /* precision -1: none given */
	char length;               /* 'H' hh, 'h', 0, 'l' (also ll, z, j, t) */
	char conversion;
};

static void put(struct out *o, char c)
{
	if (o->len + 1 < o->room)
		o->at[o->len] = c;
	o->len++;
}

static void put_many(struct out *o, char c, int n)
{
	for (; n > 0; n--)
		put(o, c);
}

/* prefix (sign, 0x), then zeros, then digits, filled up to the width. */
static void put_field(struct out *o, const struct spec *s, const char *prefix, int zeros,
                      const char *digits, size_t n)
{
	int fill = s->width - (int)strlen(prefix) - zeros - (int)n;

	if (!s->left && !s->zero)
		put_many(o, ' ', fill);
	for (; *prefix; prefix++)
		put(o, *prefix);
	if (!s->left && s->zero)
		put_many(o, '0', fill);
	put_many(o, '0', zeros);
	for (size_t i = 0; i < n; i++)
		put(o, digits[i]);
	if (s->left)
		put_many(o, ' ', fill);
}

/* ---- whole numbers -------------------------------------------------------------------------- */

static void put_unsigned(struct out *o, struct spec *s, uint64_t v, unsigned base,
                         const char *prefix)
{
	const char *set = s->conversion == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
	char digits[24];
	size_t at = sizeof(digits);

	if (s->precision >= 0)
		s->zero = false;
	while (v) {
		digits[--at] = set[v % base];
		v /= base;
	}
	int n = (int)(sizeof(digits) - at);
	int wanted = s->precision < 0 ? 1 : s->precision;
	put_field(o, s, prefix, wanted > n ? wanted - n : 0, digits + at, (size_t)n);
}

static uint64_t take_unsigned(const struct spec *s, va_list *ap)
{
	switch (s->length) {
	case 'H':
		return (unsigned char)va_arg(*ap, unsigned);
	case 'h':
		return (unsigned short)va_arg(*ap, unsigned);
	case 'l':
		return va_arg(*ap, unsigned long);
	default:
		return va_arg(*ap, unsigned);
	}
}

static int64_t take_signed(const struct spec *s, va_list *ap)
{
	switch (s->length) {
	case 'H':
		return (signed char)va_arg(*ap, int);
	case 'h':
		return (short)va_arg(*ap, int);
	case 'l':
		return va_arg(*ap, long);
	default:
		return va_arg(*ap, int);
	}
}

static const char *sign_of(const struct spec *s, bool negative)
{
	return negative ? "-" : s->plus ? "+" : s->blank ? " " : "";
}

static void put_signed(struct out *o, struct spec *s, int64_t v)
{
	put_unsigned(o, s, v < 0 ? -(uint64_t)v : (uint64_t)v, 10, sign_of(s, v < 0));
}

/* ---- floating point ------------------------------------------------------------------------- */

enum {
	BASE = 1000000000,
	CELLS = 128,               /* 9 digits each: 309 before the point, 1074 behind it, and room */
	DIGITS = 9 * CELLS,
};

/* A decimal number: digits[0 .. n) with the point behind the first `point` of them. */
struct decimal {
	char digits[DIGITS + 1];
	int n, point;
};

static void multiply(uint32_t *cell, int *n, uint32_t by)
{
	uint64_t carry = 0;
	for (int i = 0; i < *n; i++) {
		uint64_t v = (uint64_t)cell[i] * by + carry;
		cell[i] = (uint32_t)(v % BASE);
		carry = v / BASE;
	}
	if (carry)
		cell[(*n)++] = (uint32_t)carry;
}

/* m * 2^e exactly, m > 0: for e < 0 as m * 5^-e with the point moved -e places. */
static void expand(uint64_t m, int e, struct decimal *ret)
{
	uint32_t cell[CELLS];
	int n = 0;

	for (; m; m /= BASE)
		cell[n++] = (uint32_t)(m % BASE);
	int left = e < 0 ? -e : e;
	const uint32_t factor = e < 0 ? 5 : 2, big = e < 0 ? 1953125 : 1 << 29;
	const int step = e < 0 ? 9 : 29;
	for (; left >= step; left -= step)
		multiply(cell, &n, big);
	for (; left; left--)
		multiply(cell, &n, factor);

	ret->n = 0;
	for (int i = n - 1; i >= 0; i--) {
		uint32_t v = cell[i];
		for (int k = 8; k >= 0; k--, v /= 10)
			ret->digits[ret->n + k] = (char)('0' + v % 10);
		ret->n += 9;
	}
	int zeros = 0;
	while (zeros < ret->n - 1 && ret->digits[zeros] == '0')
		zeros++;
	ret->n -= zeros;
	memmove(ret->digits, ret->digits + zeros, (size_t)ret->n);
	ret->point = ret->n - (e < 0 ? -e : 0);
}

/* Keep the first `keep` digits, rounded half to even. keep may be 0 or below, or beyond n. */
static void round_to(struct decimal *d, int keep)
{
	if (keep >= d->n)
		return;
	bool up = false;
	if (keep >= 0) {
		bool rest = false;
		for (int i = keep + 1; i < d->n && !rest; i++)
			rest = d->digits[i] != '0';
		char c = d->digits[keep];
		bool odd = keep > 0 && (d->digits[keep - 1] - '0') % 2;
		up = c > '5' || (c == '5' && (rest || odd));
	}
	d->n = keep > 0 ? keep : 0;
	int i = d->n;
	while (up && i > 0 && d->digits[i - 1] == '9')
		d->digits[--i] = '0';
	if (!up)
		return;
	if (i > 0) {
		d->digits[i - 1]++;
		return;
	}
	/* 99.9 became 100: one digit more before the point. */
	memmove(d->digits + 1, d->digits, (size_t)d->n);
	d->digits[0] = '1';
	d->n++;
	d->point++;
}

static char digit_at(const struct decimal *d, int i)
{
	return i >= 0 && i < d->n ? d->digits[i] : '0';
}

struct text {
	char at[400];
	size_t n;
};

static void add(struct text *t, char c)
{
	if (t->n < sizeof(t->at))
		t->at[t->n++] = c;
}

static void fixed(struct text *t, const struct decimal *d, int precision, bool alternate)
{
	if (d->point <= 0)
		add(t, '0');
	for (int i = 0; i < d->point; i++)
		add(t, digit_at(d, i));
	if (precision > 0 || alternate)
		add(t, '.');
	for (int i = 0; i < precision; i++)
		add(t, digit_at(d, d->point + i));
}

static void scientific(struct text *t, const struct decimal *d, int precision, bool alternate)
{
	int exponent = d->n ? d->point - 1 : 0;

	add(t, digit_at(d, 0));
	if (precision > 0 || alternate)
		add(t, '.');
	for (int i = 0; i < precision; i++)
		add(t, digit_at(d, 1 + i));
	add(t, 'e');
	add(t, exponent < 0 ? '-' : '+');
	if (exponent < 0)
		exponent = -exponent;
	if (exponent >= 100)
		add(t, (char)('0' + exponent / 100));
	add(t, (char)('0' + exponent / 10 % 10));
	add(t, (char)('0' + exponent % 10));
}

/* %g: the shorter form, without zeros at the end. */
static void general(struct text *t, struct decimal *d, int precision, bool alternate)
{
	if (precision == 0)
		precision = 1;
	round_to(d, precision);
	int exponent = d->n ? d->point - 1 : 0;
	int shown = precision;
	if (!alternate) {
		shown = d->n;
		while (shown > 1 && d->digits[shown - 1] == '0')
			shown--;
		shown = shown ? shown : 1;
	}
	if (exponent >= -4 && exponent < precision)
		fixed(t, d, shown > d->point ? shown - d->point : 0, alternate);
	else
		scientific(t, d, shown - 1, alternate);
}

static void put_double(struct out *o, struct spec *s, double v)
{
	struct decimal d = { .n = 0, .point = 1 };
	struct text t = { .n = 0 };
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	uint64_t m = bits & ((UINT64_C(1) << 52) - 1);
	int e = (int)(bits >> 52 & 0x7ff);
	const char *sign = sign_of(s, bits >> 63);
	if (e == 0x7ff) {
		s->zero = false;
		put_field(o, s, sign, 0, m ? "nan" : "inf", 3);
		return;
	}
	if (e)
		m |= UINT64_C(1) << 52;
	if (m)
		expand(m, (e ? e : 1) - 1075, &d);

	int precision = s->precision < 0 ? 6 : s->precision;
	precision = precision > 60 ? 60 : precision;
	if (s->conversion == 'f') {
		round_to(&d, d.point + precision);
		fixed(&t, &d, precision, s->alternate);
	} else if (s->conversion == 'e') {
		round_to(&d, 1 + precision);
		scientific(&t, &d, precision, s->alternate);
	} else {
		general(&t, &d, precision, s->alternate);
	}
	put_field(o, s, sign, 0, t.at, t.n);
}

/* ---- conversions ---------------------------------------------------------------------------- */

static int take_number(const char **fmt, va_list *ap)
{
	int v = 0;

	if (**fmt == '*') {
		(*fmt)++;
		return va_arg(*ap, int);
	}
	for (; **fmt >= '0' && **fmt <= '9'; (*fmt)++)
		v = v < 100000 ? v * 10 + (**fmt - '0') : v;
	return v;
}

static bool take_flag(struct spec *s, char c)
{
	switch (c) {
	case '-':
		return s->left = true;
	case '+':
		return s->plus = true;
	case ' ':
		return s->blank = true;
	case '0':
		return s->zero = true;
	case '#':
		return s->alternate = true;
	default:
		return false;
	}
}

static struct spec take_spec(const char **fmt, va_list *ap)
{
	struct spec s = { .precision = -1 };

	while (take_flag(&s, **fmt))
		(*fmt)++;
	s.width = take_number(fmt, ap);
	if (s.width < 0) {
		s.left = true;
		s.width = -s.width;
	}
	if (**fmt == '.') {
		(*fmt)++;
		s.precision = take_number(fmt, ap);
	}
	for (; **fmt && memchr("hlzjt", **fmt, 5); (*fmt)++)
		s.length = **fmt != 'h' ? 'l' : s.length == 'h' ? 'H' : 'h';
	s.conversion = **fmt;
	if (**fmt)
		(*fmt)++;
	return s;
}

static void put_string(struct out *o, struct spec *s, const char *text)
{
	if (!text)
		text = "(null)";
	s->zero = false;
	put_field(o, s, "", 0, text, s->precision < 0 ? strlen(text)
	                                              : strnlen(text, (size_t)s->precision));
}

static void convert(struct out *o, struct spec *s, va_list *ap)
{
	char c;

	switch (s->conversion) {
	case 'd':
	case 'i':
		put_signed(o, s, take_signed(s, ap));
		break;
	case 'u':
		put_unsigned(o, s, take_unsigned(s, ap), 10, "");
		break;
	case 'x':
	case 'X': {
		uint64_t v = take_unsigned(s, ap);
		put_unsigned(o, s, v, 16, !s->alternate || !v ? "" : s->conversion == 'x' ? "0x" : "0X");
		break;
	}
	case 'o':
		put_unsigned(o, s, take_unsigned(s, ap), 8, "");
		break;
	case 'p':
		put_unsigned(o, s, (uintptr_t)va_arg(*ap, void *), 16, "0x");
		break;
	case 'c':
		c = (char)va_arg(*ap, int);
		s->zero = false;
		put_field(o, s, "", 0, &c, 1);
		break;
	case 's':
		put_string(o, s, va_arg(*ap, const char *));
		break;
	case 'f':
	case 'e':
	case 'g':
		put_double(o, s, va_arg(*ap, double));
		break;
	case '%':
		put(o, '%');
		break;
	default:
		put(o, '%');
		put(o, s->conversion ? s->conversion : '%');
		break;
	}
}

int kiln_vsnprintf(char *buf, size_t n, const char *fmt, va_list ap)
{
	struct out o = { .at = buf, .room = n };
	va_list copy;

	va_copy(copy, ap);
	while (*fmt) {
		if (*fmt != '%') {
			put(&o, *fmt++);
			continue;
		}
		fmt++;
		struct spec s = take_spec(&fmt, &copy);
		convert(&o, &s, &copy);
	}
	va_end(copy);
	if (n)
		buf[o.len < n ? o.len : n - 1] = '\0';
	return (int)(o.len < INT32_MAX ? o.len : INT32_MAX);
}

int kiln_snprintf(char *buf, size_t n, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int r = kiln_vsnprintf(buf, n, fmt, ap);
	va_end(ap);
	return r;
}
