#include "base/str.h"

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool kn_view_is_nocase(struct kn_view a, struct kn_view b)
{
	if (a.len != b.len)
		return false;
	for (size_t i = 0; i < a.len; i++)
		if (lower(a.ptr[i]) != lower(b.ptr[i]))
			return false;
	return true;
}

int kn_view_order(struct kn_view a, struct kn_view b)
{
	const size_t both = a.len < b.len ? a.len : b.len;
	const int order = both ? memcmp(a.ptr, b.ptr, both) : 0;

	return order ? order : (a.len > b.len) - (a.len < b.len);
}

bool kn_view_starts(struct kn_view v, struct kn_view prefix)
{
	return v.len >= prefix.len && kn_view_is((struct kn_view){ v.ptr, prefix.len }, prefix);
}

bool kn_view_ends(struct kn_view v, struct kn_view suffix)
{
	if (v.len < suffix.len)
		return false;
	if (suffix.len == 0)
		return true;
	return memcmp(v.ptr + v.len - suffix.len, suffix.ptr, suffix.len) == 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct kn_view kn_view_trim(struct kn_view v)
{
	while (v.len && is_blank(v.ptr[0])) {
		v.ptr++;
		v.len--;
	}
	while (v.len && is_blank(v.ptr[v.len - 1]))
		v.len--;
	return v;
}

bool kn_view_split(struct kn_view *rest, char sep, struct kn_view *ret)
{
	if (!rest->ptr)
		return false;

	const char *at = rest->len ? memchr(rest->ptr, sep, rest->len) : NULL;
	if (!at) {
		*ret = *rest;
		*rest = KN_VIEW_NULL;
		return true;
	}
	size_t before = (size_t)(at - rest->ptr);
	*ret = (struct kn_view){ rest->ptr, before };
	*rest = (struct kn_view){ at + 1, rest->len - before - 1 };
	return true;
}

enum { LONGEST_WORD = 64 };

/*
 * Optimal string alignment distance: inserted, lost, changed and swapped letters, regardless of
 * case. Three rows of the table are enough. Both words are at most LONGEST_WORD long.
 */
static size_t distance(struct kn_view a, struct kn_view b)
{
	size_t rows[3][LONGEST_WORD + 1];
	size_t *before = rows[0], *above = rows[1], *row = rows[2];

	for (size_t j = 0; j <= b.len; j++)
		above[j] = j;
	for (size_t i = 1; i <= a.len; i++) {
		row[0] = i;
		for (size_t j = 1; j <= b.len; j++) {
			char ca = lower(a.ptr[i - 1]), cb = lower(b.ptr[j - 1]);
			size_t best = above[j - 1] + (ca != cb);
			best = kn_min(best, above[j] + 1);
			best = kn_min(best, row[j - 1] + 1);
			if (i > 1 && j > 1 && ca == lower(b.ptr[j - 2]) && lower(a.ptr[i - 2]) == cb)
				best = kn_min(best, before[j - 2] + 1);
			row[j] = best;
		}
		size_t *free_row = before;
		before = above;
		above = row;
		row = free_row;
	}
	return above[b.len];
}

const char *kn_closest(struct kn_view word, const char *const *names, size_t n)
{
	const char *best = NULL;
	size_t best_distance = kn_max(word.len / 3, (size_t)1) + 1;

	if (word.len == 0 || word.len > LONGEST_WORD)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		struct kn_view name = kn_view_of(names[i]);
		if (name.len > LONGEST_WORD)
			continue;
		size_t d = distance(word, name);
		if (d < best_distance) {
			best_distance = d;
			best = names[i];
		}
	}
	return best;
}

uint64_t kn_hash(const void *ptr, size_t len)
{
	const unsigned char *p = ptr;
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	/* FNV's low bits are weak and tables use them: spread the high ones down (fmix64). */
	h ^= h >> 33;
	h *= UINT64_C(0xff51afd7ed558ccd);
	h ^= h >> 33;
	h *= UINT64_C(0xc4ceb9fe1a85ec53);
	return h ^ (h >> 33);
}
