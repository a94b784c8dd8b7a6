#include "machine/pages.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define PAGE       UINT64_C(4096)
#define LARGE      (UINT64_C(2) << 20)
#define PRESENT    (UINT64_C(1) << 0)
#define WRITABLE   (UINT64_C(1) << 1)
#define USER       (UINT64_C(1) << 2)
#define ACCESSED   (UINT64_C(1) << 5)
#define DIRTY      (UINT64_C(1) << 6)
#define PAGE_SIZE  (UINT64_C(1) << 7)
#define NO_EXECUTE (UINT64_C(1) << 63)
#define ADDRESS    UINT64_C(0x000ffffffffff000)

/* Upper levels allow everything; the rights stand in the last entry alone. */
#define TABLE (PRESENT | WRITABLE | USER | ACCESSED)

struct kn_pages kn_pages_init(void *at, uint64_t gpa, uint32_t max)
{
	return (struct kn_pages){ .at = at, .gpa = gpa, .max = max, .used = 1 };
}

static unsigned index_at(uint64_t va, int level)
{
	return (va >> (12 + 9 * level)) & 511;
}

static uint64_t *table_at(const struct kn_pages *p, uint64_t gpa)
{
	return (uint64_t *)(void *)(p->at + (gpa - p->gpa));
}

static uint64_t leaf(uint64_t gpa, unsigned rights)
{
	uint64_t e = gpa | PRESENT | ACCESSED | DIRTY;
	if (rights & KN_PAGE_WRITE)
		e |= WRITABLE;
	if (rights & KN_PAGE_USER)
		e |= USER;
	if (!(rights & KN_PAGE_EXEC))
		e |= NO_EXECUTE;
	return e;
}

/* The entry of va at level 0 (4 KiB) or 1 (2 MiB), with the tables above it made. */
static int entry_at(struct kn_pages *p, uint64_t va, int level, uint64_t **ret, struct kn_err *err)
{
	uint64_t *table = table_at(p, p->gpa);

	for (int l = 3; l > level; l--) {
		uint64_t *e = &table[index_at(va, l)];
		if (*e & PAGE_SIZE)
			return kn_fail(err, EEXIST, "0x%" PRIx64 " lies in a mapped 2 MiB page", va);
		if (!*e) {
			if (p->used == p->max)
				return kn_fail(err, ENOMEM, "page tables need more than %u pages", p->max);
			*e = (p->gpa + p->used++ * PAGE) | TABLE;
		}
		table = table_at(p, *e & ADDRESS);
	}
	*ret = &table[index_at(va, level)];
	if (**ret)
		return kn_fail(err, EEXIST, "0x%" PRIx64 " is mapped twice", va);
	return 0;
}

int kn_pages_map(struct kn_pages *p, uint64_t va, uint64_t gpa, uint64_t bytes, unsigned rights,
                 struct kn_err *err)
{
	const uint64_t top = UINT64_C(1) << 47;
	uint64_t *e = NULL;

	if ((va | gpa | bytes) & (PAGE - 1) || bytes == 0 || va >= top || bytes > top - va ||
	    gpa >= top || bytes > top - gpa)
		return kn_fail(err, EINVAL, "cannot map %" PRIu64 " bytes at 0x%" PRIx64, bytes, va);

	while (bytes) {
		bool large = !((va | gpa) & (LARGE - 1)) && bytes >= LARGE;
		int r = entry_at(p, va, large, &e, err);
		if (r < 0)
			return r;

		uint64_t step = large ? LARGE : PAGE;
		/* Neighbours in one table need no new walk. */
		do {
			if (*e)
				return kn_fail(err, EEXIST, "0x%" PRIx64 " is mapped twice", va);
			*e++ = leaf(gpa, rights) | (large ? PAGE_SIZE : 0);
			va += step;
			gpa += step;
			bytes -= step;
		} while (bytes >= step && ((uintptr_t)e & (PAGE - 1)) &&
		         (large || ((va | gpa) & (LARGE - 1)) || bytes < LARGE));
	}
	return 0;
}

bool kn_pages_find(const struct kn_pages *p, uint64_t va, uint64_t *ret_gpa, unsigned *ret_rights)
{
	const uint64_t *table = table_at(p, p->gpa);

	for (int l = 3; l >= 0; l--) {
		uint64_t e = table[index_at(va, l)];
		if (!(e & PRESENT))
			return false;
		if (l == 0 || e & PAGE_SIZE) {
			uint64_t below = (UINT64_C(1) << (12 + 9 * l)) - 1;
			*ret_gpa = (e & ADDRESS & ~below) | (va & below);
			*ret_rights = (e & WRITABLE ? KN_PAGE_WRITE : 0u) |
			              (e & USER ? KN_PAGE_USER : 0u) |
			              (e & NO_EXECUTE ? 0u : KN_PAGE_EXEC);
			return true;
		}
		table = table_at(p, e & ADDRESS);
	}
	return false;
}
