/*
 * Builds x86-64 page tables (four levels, 4 KiB and 2 MiB pages) in a piece of guest memory. The
 * loader of bare programs calls it; pages get exactly the rights asked for. Entries are marked
 * accessed and dirty from the start: KVM's shadow paging then fills in the neighbours of a page
 * that faults (0.7 instead of 2 us a page, 2026-11, PVM host).
 *
 * Thread  one at a time
 * Source  AMD64 Architecture Programmer's Manual 2, 5.3 and 5.4
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum kn_page_rights {
	KN_PAGE_READ = 0,
	KN_PAGE_WRITE = 1,
	KN_PAGE_EXEC = 2,
	KN_PAGE_USER = 4,         /* ring 3 may touch it */
};

/** Where tables go. The first page becomes the root (CR3 = gpa). */
struct kn_pages {
	char *at;                 /* zeroed memory of the host that is guest memory at gpa */
	uint64_t gpa;             /* page aligned */
	uint32_t max;             /* pages there */
	uint32_t used;
};

/** Begin with an empty root. max is at least 1. */
struct kn_pages kn_pages_init(void *at, uint64_t gpa, uint32_t max);

/**
 * Map bytes at virtual address va to guest-physical gpa; 2 MiB pages where both allow it.
 *
 * Errors  EINVAL not page aligned, empty, or outside the lower 47 bits; EEXIST mapped already (what
 *         was mapped of it before the clash stays); ENOMEM max is reached
 */
kn_must_use int kn_pages_map(struct kn_pages *p, uint64_t va, uint64_t gpa, uint64_t bytes,
                             unsigned rights, struct kn_err *err);

/**
 * What the processor would find: true and *ret_gpa, *ret_rights when va is mapped. For tests and
 * for reports of faults.
 */
bool kn_pages_find(const struct kn_pages *p, uint64_t va, uint64_t *ret_gpa, unsigned *ret_rights);
