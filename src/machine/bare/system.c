#include "machine/bare/state.h"

/*
 * What the processor reads when ring 3 is left by an exception. No interrupt ever arrives: there is
 * no interrupt controller. On hardware the stub runs in ring 0; on PVM hosts KVM emulates its one
 * instruction. `syscall` leads nowhere: it is off in EFER, and where PVM takes it regardless, LSTAR
 * is 0 and not mapped.
 */

struct bare_gate {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_mid;
	uint32_t offset_high, zero;
};

static void fill_gdt(char *at)
{
	/* Accessed and busy bits are set, so that the processor need not write to this page. */
	const uint64_t gdt[] = {
		0,
		UINT64_C(0x00af9b000000ffff),   /* 0x08 code, ring 0, 64 bits */
		UINT64_C(0x00cf93000000ffff),   /* 0x10 data, ring 0 */
		UINT64_C(0x00cff3000000ffff),   /* 0x18 data, ring 3 */
		UINT64_C(0x00affb000000ffff),   /* 0x20 code, ring 3, 64 bits */
		BARE_TSS_LIMIT | (BARE_TSS & 0xffffff) << 16 | UINT64_C(0x8b) << 40 |
			(BARE_TSS >> 24) << 56, /* 0x28 TSS */
		BARE_TSS >> 32,
	};
	_Static_assert(sizeof(gdt) <= BARE_IDT - BARE_GDT, "GDT reaches into the IDT");
	memcpy(at + (BARE_GDT - KN_BARE_SYSTEM), gdt, sizeof(gdt));
}

static void fill_idt(char *at)
{
	struct bare_gate idt[BARE_VECTORS];
	_Static_assert(sizeof(idt) <= BARE_STUBS - BARE_IDT, "IDT reaches into the stubs");

	for (unsigned v = 0; v < BARE_VECTORS; v++) {
		uint64_t stub = BARE_STUBS + v * BARE_STUB_BYTES;
		unsigned dpl = v == 3 || v == 4 ? 3 : 0;   /* INT3 and INTO may be said in ring 3 */
		idt[v] = (struct bare_gate){
			.offset_low = (uint16_t)stub,
			.selector = 0x08,
			.type = (uint8_t)(0x8e | dpl << 5),
			.offset_mid = (uint16_t)(stub >> 16),
			.offset_high = (uint32_t)(stub >> 32),
		};
		const uint8_t code[BARE_STUB_BYTES] = {
			0xe6, (uint8_t)(BARE_FAULT_PORT + v),   /* out %al, $port */
			0xf4, 0x90,                             /* hlt */
		};
		memcpy(at + (stub - KN_BARE_SYSTEM), code, sizeof(code));
	}
	memcpy(at + (BARE_IDT - KN_BARE_SYSTEM), idt, sizeof(idt));
}

/*
 * Ring 3 may use the doorbell and no other port: a bit per port, set forbids. Where the I/O privilege
 * level holds (kn_vcpu_long_mode(); not on PVM) these bits are not asked: there the monitor ends a
 * guest that uses another port.
 */
static void fill_tss(char *tss)
{
	const uint64_t rsp0 = BARE_TRAP_STACK;
	const uint16_t io_map = 0x68;

	memcpy(tss + 4, &rsp0, sizeof(rsp0));
	memcpy(tss + 0x66, &io_map, sizeof(io_map));
	memset(tss + io_map, 0xff, BARE_TSS_LIMIT + 1 - io_map);
	for (unsigned port = KN_BARE_PORT; port < KN_BARE_PORT + 4; port++)   /* OUT of 4 bytes */
		tss[io_map + port / 8] &= (char)~(1u << port % 8);
}

void bare_system(char *at)
{
	fill_gdt(at);
	fill_idt(at);
	fill_tss(at + (BARE_TSS - KN_BARE_SYSTEM));
}

void bare_registers(uint64_t cr3, uint64_t entry, uint64_t stack, uint64_t argument,
                    struct kvm_regs *regs, struct kvm_sregs *sregs)
{
	kn_vcpu_long_mode(3, cr3, entry, stack, regs, sregs);
	regs->rdi = argument;
	sregs->gdt.base = BARE_GDT;
	sregs->gdt.limit = 7 * 8 - 1;
	sregs->idt.base = BARE_IDT;
	sregs->idt.limit = BARE_VECTORS * 16 - 1;
	sregs->tr.base = BARE_TSS;
	sregs->tr.limit = BARE_TSS_LIMIT;
	sregs->tr.selector = BARE_TASK;
}
