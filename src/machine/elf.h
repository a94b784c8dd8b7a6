/*
 * Checks an ELF program before a bare microVM loads it. The loader, the API and `kiln build` share
 * this one judgement: what passes can be mapped with separate rights for code and data, and lies
 * wholly where bare programs may lie. Takes bytes, never a file: the part that is fuzzed.
 *
 * Thread  any; keeps no state
 * Source  System V ABI, ELF-64 object file format; AMD64 supplement
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum {
	KN_ELF_HEAD = 4096,       /* headers and note must lie in the file's first bytes */
	KN_ELF_SEGMENTS = 8,
};

#define KN_ELF_MAX_PROGRAM (UINT64_C(64) << 20)
#define KN_ELF_MAX_STACK   (UINT64_C(8) << 20)

struct kn_elf_segment {
	uint64_t va;              /* KN_BARE_PROGRAM or above */
	uint64_t mem_bytes;       /* at least file_bytes; the rest is zero */
	uint64_t file_offset, file_bytes;
	bool write, exec;         /* never both */
};

/** A program that may be loaded. No two segments share a page. */
struct kn_elf {
	uint64_t entry;           /* inside an executable segment's file bytes */
	uint64_t end;             /* first page boundary behind the last segment */
	uint64_t stack_bytes;     /* multiple of the page size, at least one page */
	size_t n;
	struct kn_elf_segment segment[KN_ELF_SEGMENTS];
};

/** Does the file's head look like a bare function's: an ELF with our note? For choosing a protocol. */
bool kn_elf_is_bare(struct kn_view head);

/**
 * Judge a program.
 *
 * head        the first KN_ELF_HEAD bytes of the file, or all of a shorter one
 * file_bytes  size of the file
 * ret         filled on success only
 *
 * Errors  ENOEXEC, with what is wrong and, where we know it, how to build it rightly
 */
kn_must_use int kn_elf_check(struct kn_view head, uint64_t file_bytes, struct kn_elf *ret,
                             struct kn_err *err);
