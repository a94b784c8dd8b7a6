/*
 * The boot protocol of bare programs: a static ELF started in ring 3 of a microVM that has no
 * kernel. Loads the program with the rights that its segments ask for, builds what the processor
 * needs to leave ring 3 (GDT, TSS, IDT with a stub per exception that tells the monitor), and turns
 * faults into stories. Called by machine/vmm through the table.
 *
 * Thread  the one that runs the vCPU
 * Source  AMD64 Architecture Programmer's Manual 2, chapters 4, 5, 8
 */
#pragma once

#include "machine/boot.h"
#include "machine/elf.h"

extern const struct kn_boot_ops kn_boot_bare;

/** Where everything lies; addresses are virtual and physical alike. Ends are exclusive. */
struct kn_bare_layout {
	uint64_t stack, stack_bytes;      /* grows down to stack; the hole below it is unmapped */
	uint64_t info;                    /* one page, read only */
	uint64_t channel, channel_bytes;
	uint64_t heap, heap_bytes;
	uint64_t end;
};

/**
 * Lay out a program.
 *
 * memory_bytes   for program, stack and heap together
 * channel_bytes  page multiple; 0: there is no channel
 * Errors         ENOMEM the program and its stack need more; EINVAL
 */
kn_must_use int kn_bare_layout(const struct kn_elf *elf, uint64_t memory_bytes,
                               uint64_t channel_bytes, struct kn_bare_layout *ret,
                               struct kn_err *err);
