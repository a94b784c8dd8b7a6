/* What the files of machine/bare share. */
#pragma once

#include "machine/abi.h"
#include "machine/bare.h"
#include "machine/pages.h"

/* Guest-physical places that no virtual address of the guest leads to. */
#define BARE_TABLES       UINT64_C(0x200000)
#define BARE_TABLE_PAGES  480
#define BARE_PRIME        UINT64_C(0x3e0000)   /* tables and code of prepare() */
#define BARE_PRIME_PAGES  8
#define BARE_PRIME_CODE   UINT64_C(0x3f0000)

/*
 * The system area: one page that is read and executed (GDT, IDT, stubs), one that is written (TSS
 * and the stack on which exceptions arrive).
 */
#define BARE_GDT        KN_BARE_SYSTEM
#define BARE_IDT        (KN_BARE_SYSTEM + 0x100)
#define BARE_STUBS      (KN_BARE_SYSTEM + 0x400)
#define BARE_TSS        (KN_BARE_SYSTEM + 0x1000)
#define BARE_TRAP_STACK (KN_BARE_SYSTEM + 0x2000)
#define BARE_TSS_LIMIT  (0x68 + 128 / 8)        /* TSS, I/O permissions of ports 0-127, one byte */
#define BARE_VECTORS    32
#define BARE_STUB_BYTES 4
#define BARE_FAULT_PORT 0x80                    /* stub of vector v: OUT to port 0x80 + v */

#define BARE_TASK       0x28                    /* selector of the TSS */

#define BARE_RAM BARE_TABLES                    /* guest-physical memory begins here */

struct bare {
	struct kn_elf elf;
	struct kn_bare_layout layout;
	struct kn_pages pages;
	struct kn_bare_info *info;
	const char *rings;              /* channel's first page, or NULL */
	uint32_t noted_replies, noted_logs;
};

/* Fill the system area. */
void bare_system(char *at);

/* Registers for the first instruction of ring 3. */
void bare_registers(uint64_t cr3, uint64_t entry, uint64_t stack, uint64_t argument,
                    struct kvm_regs *regs, struct kvm_sregs *sregs);

enum kn_step bare_exit(struct kn_machine *m, bool *ret_note, struct kn_end *end);
void bare_describe(struct kn_machine *m, struct kn_end *end);
