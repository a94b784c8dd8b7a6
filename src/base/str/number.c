#include "base/str.h"

#include <errno.h>
#include <inttypes.h>

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Digits at the start of *v. False when there are none or they do not fit. */
static bool take_digits(struct kn_view *v, uint64_t *ret)
{
	uint64_t n = 0;
	size_t i = 0;

	for (; i < v->len && is_digit(v->ptr[i]); i++)
		if (__builtin_mul_overflow(n, 10u, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(v->ptr[i] - '0'), &n))
			return false;
	v->ptr += i;
	v->len -= i;
	*ret = n;
	return i > 0;
}

int kn_parse_u64(struct kn_view v, uint64_t max, uint64_t *ret, struct kn_err *err)
{
	struct kn_view rest = v;
	uint64_t n = 0;

	bool fits = take_digits(&rest, &n);
	bool digits = v.len > 0;
	for (size_t i = 0; i < v.len; i++)
		digits = digits && is_digit(v.ptr[i]);
	if (!digits)
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is not a whole number",
		               KN_VIEW_ARG(v));
	if (!fits || n > max)
		return kn_fail(err, ERANGE, "'" KN_VIEW_FMT "' is larger than %" PRIu64,
		               KN_VIEW_ARG(v), max);
	*ret = n;
	return 0;
}

/* A number with at most nine digits after the point. */
struct decimal {
	uint64_t whole;
	uint32_t nano;
};

static const uint32_t NANO = 1000000000;

static bool take_decimal(struct kn_view *v, struct decimal *ret)
{
	struct decimal d = { 0 };

	if (!take_digits(v, &d.whole))
		return false;
	if (v->len && v->ptr[0] == '.') {
		uint32_t place = NANO / 10;
		size_t i = 1;
		for (; i < v->len && is_digit(v->ptr[i]); i++, place /= 10) {
			if (place == 0)
				return false;
			d.nano += (uint32_t)(v->ptr[i] - '0') * place;
		}
		if (i == 1)
			return false;
		v->ptr += i;
		v->len -= i;
	}
	*ret = d;
	return true;
}

/* d * unit, rounded up; false when it does not fit. */
static bool scale(struct decimal d, uint64_t unit, uint64_t *ret)
{
	unsigned __int128 n = (unsigned __int128)d.whole * unit +
	                      ((unsigned __int128)d.nano * unit + NANO - 1) / NANO;

	if (n > UINT64_MAX)
		return false;
	*ret = (uint64_t)n;
	return true;
}

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit *unit_find(const struct unit *units, size_t n, struct kn_view name)
{
	for (size_t i = 0; i < n; i++)
		if (kn_view_is(kn_view_of(units[i].name), name))
			return &units[i];
	return NULL;
}

int kn_parse_bytes(struct kn_view v, uint64_t *ret, struct kn_err *err)
{
	static const struct unit units[] = {
		{ "", 1 },
		{ "k", UINT64_C(1000) },
		{ "M", UINT64_C(1000000) },
		{ "G", UINT64_C(1000000000) },
		{ "T", UINT64_C(1000000000000) },
		{ "P", UINT64_C(1000000000000000) },
		{ "Ki", UINT64_C(1) << 10 },
		{ "Mi", UINT64_C(1) << 20 },
		{ "Gi", UINT64_C(1) << 30 },
		{ "Ti", UINT64_C(1) << 40 },
		{ "Pi", UINT64_C(1) << 50 },
	};
	struct kn_view rest = v;
	struct decimal d;

	if (!take_decimal(&rest, &d))
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is not a size; write it like 64Mi",
		               KN_VIEW_ARG(v));
	if (kn_view_is(rest, KN_VIEW("m")))
		return kn_fail(err, EINVAL,
		               "'" KN_VIEW_FMT "': m means thousandths; write M or Mi",
		               KN_VIEW_ARG(v));
	const struct unit *unit = unit_find(units, KN_ARRAY_LEN(units), rest);
	if (!unit)
		return kn_fail(err, EINVAL,
		               "'" KN_VIEW_FMT "': the unit must be one of k M G T P Ki Mi Gi Ti Pi",
		               KN_VIEW_ARG(v));
	if (!scale(d, unit->factor, ret))
		return kn_fail(err, ERANGE, "'" KN_VIEW_FMT "' does not fit into 64 bits",
		               KN_VIEW_ARG(v));
	return 0;
}

/* The letters at the start of *v. */
static struct kn_view take_letters(struct kn_view *v)
{
	size_t i = 0;

	while (i < v->len && ((v->ptr[i] | 0x20) >= 'a' && (v->ptr[i] | 0x20) <= 'z'))
		i++;
	struct kn_view letters = { v->ptr, i };
	v->ptr += i;
	v->len -= i;
	return letters;
}

static int bad_duration(struct kn_view v, struct kn_err *err)
{
	return kn_fail(err, EINVAL,
	               "'" KN_VIEW_FMT "' is not a duration; write it like 250ms, 30s, 5m or 1h",
	               KN_VIEW_ARG(v));
}

int kn_parse_duration(struct kn_view v, uint64_t *ret_ms, struct kn_err *err)
{
	static const struct unit units[] = {
		{ "ms", 1 }, { "s", 1000 }, { "m", 60 * 1000 }, { "h", 60 * 60 * 1000 },
	};
	struct kn_view rest = v;
	uint64_t total = 0;

	do {
		struct decimal d;
		uint64_t ms;
		bool first = rest.len == v.len;
		if (!take_decimal(&rest, &d))
			return bad_duration(v, err);
		struct kn_view letters = take_letters(&rest);
		const struct unit *unit = unit_find(units, KN_ARRAY_LEN(units), letters);
		if (letters.len == 0 && first && rest.len == 0)
			unit = &units[1];   /* a bare number counts seconds */
		if (!unit)
			return bad_duration(v, err);
		if (!scale(d, unit->factor, &ms) || __builtin_add_overflow(total, ms, &total))
			return kn_fail(err, ERANGE, "'" KN_VIEW_FMT "' is too long a duration",
			               KN_VIEW_ARG(v));
	} while (rest.len);

	*ret_ms = total;
	return 0;
}

int kn_parse_millicores(struct kn_view v, uint64_t *ret, struct kn_err *err)
{
	struct kn_view rest = v;
	struct decimal d;
	uint64_t unit = 1000;

	bool ok = take_decimal(&rest, &d);
	if (ok && kn_view_is(rest, KN_VIEW("m"))) {
		unit = 1;
		rest.len = 0;
	}
	if (!ok || rest.len)
		return kn_fail(err, EINVAL,
		               "'" KN_VIEW_FMT "' is not a number of cores; write it like 0.5 or 500m",
		               KN_VIEW_ARG(v));
	if (!scale(d, unit, ret))
		return kn_fail(err, ERANGE, "'" KN_VIEW_FMT "' is too many cores", KN_VIEW_ARG(v));
	return 0;
}
