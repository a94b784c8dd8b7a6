#include "machine/bare/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

/* What the processor pushed on the trap stack, and the registers beside it. */
struct trap {
	unsigned vector;
	uint64_t error_code, address;   /* address: of a page fault */
	uint64_t rip, rsp, rflags;      /* of the guest's program */
	struct kvm_regs regs;
};

/* ---- registers as JSON ---------------------------------------------------------------------- */

struct text {
	char *at;
	size_t room;
};

static void kn_printf(2, 3) put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(t->at, t->room, fmt, ap);
	va_end(ap);
	size_t used = n < 0 ? 0 : kn_min((size_t)n, t->room - 1);
	t->at += used;
	t->room -= used;
}

/* The story has no character that JSON escapes: it is ours. */
static void put_report(struct kn_end *end, const char *kind, const struct trap *t)
{
	const struct kvm_regs *r = &t->regs;
	struct text out = { end->json, sizeof(end->json) };

	put(&out, "{\"kind\":\"%s\",\"text\":\"%s\"", kind, end->err.text);
	if (t->vector < BARE_VECTORS)
		put(&out, ",\"vector\":%u,\"error_code\":\"0x%" PRIx64 "\"", t->vector, t->error_code);
	if (t->vector == 14)
		put(&out, ",\"address\":\"0x%" PRIx64 "\"", t->address);
	put(&out, ",\"registers\":{\"rip\":\"0x%" PRIx64 "\",\"rsp\":\"0x%" PRIx64
	          "\",\"rflags\":\"0x%" PRIx64 "\"", t->rip, t->rsp, t->rflags);
	const struct {
		const char *name;
		uint64_t value;
	} rest[] = {
		{ "rax", r->rax }, { "rbx", r->rbx }, { "rcx", r->rcx }, { "rdx", r->rdx },
		{ "rsi", r->rsi }, { "rdi", r->rdi }, { "rbp", r->rbp }, { "r8", r->r8 },
		{ "r9", r->r9 },   { "r10", r->r10 }, { "r11", r->r11 }, { "r12", r->r12 },
		{ "r13", r->r13 }, { "r14", r->r14 }, { "r15", r->r15 },
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(rest); i++)
		put(&out, ",\"%s\":\"0x%" PRIx64 "\"", rest[i].name, rest[i].value);
	put(&out, "}}");
}

/* ---- faults --------------------------------------------------------------------------------- */

static const char *vector_name(unsigned v)
{
	switch (v) {
	case 0:  return "division error";
	case 1:  return "debug trap";
	case 3:  return "breakpoint";
	case 4:  return "overflow trap";
	case 5:  return "bound range exceeded";
	case 6:  return "invalid instruction";
	case 7:  return "floating-point unit not available";
	case 8:  return "double fault";
	case 10: return "invalid TSS";
	case 11: return "segment not present";
	case 12: return "stack segment fault";
	case 13: return "general protection fault";
	case 14: return "page fault";
	case 16: return "x87 floating-point error";
	case 17: return "alignment check";
	case 19: return "SIMD floating-point error";
	default: return "unexpected exception";
	}
}

static bool has_error_code(unsigned v)
{
	return v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21;
}

static const struct kn_elf_segment *segment_of(const struct kn_elf *elf, uint64_t va)
{
	for (size_t i = 0; i < elf->n; i++)
		if (va >= elf->segment[i].va && va - elf->segment[i].va < elf->segment[i].mem_bytes)
			return &elf->segment[i];
	return NULL;
}

/* What a person should think of an address that the guest may not touch. */
static const char *address_hint(const struct bare *b, uint64_t va, bool present)
{
	const struct kn_bare_layout *l = &b->layout;

	if (va < 65536)
		return "a null pointer";
	if (va >= b->elf.end && va < l->stack)
		return "stack overflow";
	if (va >= l->end && va < l->end + (UINT64_C(1) << 32))
		return "behind the end of the memory granted";
	if (present && segment_of(&b->elf, va))
		return segment_of(&b->elf, va)->exec ? "program code" : "read-only data";
	return present ? "not the program's to use so" : "not mapped";
}

static void tell_page_fault(const struct bare *b, const struct trap *t, struct kn_end *end)
{
	const bool present = t->error_code & 1, write = t->error_code & 2, fetch = t->error_code & 16;
	const char *hint = address_hint(b, t->address, present);

	if (fetch && present)
		hint = "data, not code";
	else if (fetch && t->address < 65536)
		hint = "a null function pointer, or a system call";
	kn_fail(&end->err, EFAULT, "page fault: %s at 0x%" PRIx64 ", %s (rip 0x%" PRIx64 ")",
	        fetch ? "execution" : write ? "write" : "read", t->address, hint, t->rip);
}

static void end_with_trap(const struct bare *b, const struct trap *t, struct kn_end *end)
{
	end->kind = KN_END_FAULT;
	if (t->vector == 14)
		tell_page_fault(b, t, end);
	else
		kn_fail(&end->err, EFAULT, "%s (rip 0x%" PRIx64 ")", vector_name(t->vector), t->rip);
	put_report(end, vector_name(t->vector), t);
}

/* The guest did something that is no exception but not allowed either. */
static void kn_printf(3, 4) end_with_fault(struct kn_machine *m, struct kn_end *end, const char *fmt, ...)
{
	struct trap t = { .vector = BARE_VECTORS };
	struct kvm_sregs sregs;
	char what[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	end->kind = KN_END_FAULT;
	if (kn_vcpu_get(&m->vcpu, &t.regs, &sregs, &end->err) < 0)
		return;
	t.rip = t.regs.rip;
	t.rsp = t.regs.rsp;
	t.rflags = t.regs.rflags;
	kn_fail(&end->err, EFAULT, "%s (rip 0x%" PRIx64 ")", what, t.rip);
	put_report(end, "not allowed", &t);
}

/*
 * A stub told its vector. The program can write to these ports, too: then rip is not in the stubs,
 * and it is an ordinary forbidden port.
 */
static void end_at_stub(struct kn_machine *m, unsigned vector, unsigned port, struct kn_end *end)
{
	struct trap t = { .vector = vector };
	struct kvm_sregs sregs;
	uint64_t frame[6];

	end->kind = KN_END_FAULT;
	if (kn_vcpu_get(&m->vcpu, &t.regs, &sregs, &end->err) < 0)
		return;
	uint64_t stub = BARE_STUBS + vector * BARE_STUB_BYTES;
	const uint64_t *stack = kn_memory_at(&m->memory, t.regs.rsp, sizeof(frame));
	bool trapped = t.regs.rip >= stub && t.regs.rip < stub + BARE_STUB_BYTES &&
	               t.regs.rsp >= BARE_TSS && t.regs.rsp < BARE_TRAP_STACK;
	if (!trapped || !stack) {
		end_with_fault(m, end, "output to port 0x%x", port);
		return;
	}
	memcpy(frame, stack, sizeof(frame));
	const uint64_t *f = frame;
	if (has_error_code(vector))
		t.error_code = *f++;
	t.rip = f[0];
	t.rflags = f[2];
	t.rsp = f[3];
	t.address = sregs.cr2;
	end_with_trap(m->guest, &t, end);
}

/* ---- the doorbell --------------------------------------------------------------------------- */

/* Has the guest put something into a ring since the host was last told? */
static bool something_new(struct bare *b)
{
	if (!b->rings)
		return false;
	const struct kn_ring_shared *replies = (const void *)(b->rings + KN_BARE_REPLY_RING);
	const struct kn_ring_shared *logs = (const void *)(b->rings + KN_BARE_LOG_RING);
	uint32_t r = atomic_load_explicit(&replies->head, memory_order_acquire);
	uint32_t l = atomic_load_explicit(&logs->head, memory_order_acquire);
	bool news = r != b->noted_replies || l != b->noted_logs;
	b->noted_replies = r;
	b->noted_logs = l;
	return news;
}

static enum kn_step ended_itself(uint32_t code, struct kn_end *end)
{
	end->kind = KN_END_EXIT;
	end->exit_code = (int)code;
	if (code)
		kn_fail(&end->err, ECHILD, "the program ended itself with code %u", code);
	return KN_STEP_END;
}

static enum kn_step doorbell(struct kn_machine *m, uint32_t eax, bool *ret_note, struct kn_end *end)
{
	switch (eax & 0xff) {
	case KN_BARE_WAIT:
		*ret_note = something_new(m->guest);
		return KN_STEP_WAIT;
	case KN_BARE_NOTIFY:
		return something_new(m->guest) ? KN_STEP_NOTIFY : KN_STEP_RUN;
	case KN_BARE_EXIT:
		return ended_itself(eax >> 8 & 0xff, end);
	default:
		end_with_fault(m, end, "unknown call %u at the doorbell", eax & 0xff);
		return KN_STEP_END;
	}
}

static enum kn_step port(struct kn_machine *m, bool *ret_note, struct kn_end *end)
{
	const struct kvm_run *run = m->vcpu.run;
	unsigned number = run->io.port;

	if (run->io.direction != KVM_EXIT_IO_OUT) {
		end_with_fault(m, end, "input from port 0x%x", number);
	} else if (number == KN_BARE_PORT && run->io.size == 4 && run->io.count == 1) {
		uint32_t eax;
		memcpy(&eax, (const char *)run + run->io.data_offset, sizeof(eax));
		return doorbell(m, eax, ret_note, end);
	} else if (number >= BARE_FAULT_PORT && number < BARE_FAULT_PORT + BARE_VECTORS) {
		end_at_stub(m, number - BARE_FAULT_PORT, number, end);
	} else {
		end_with_fault(m, end, "output to port 0x%x", number);
	}
	return KN_STEP_END;
}

enum kn_step bare_exit(struct kn_machine *m, bool *ret_note, struct kn_end *end)
{
	const struct kvm_run *run = m->vcpu.run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		return port(m, ret_note, end);
	case KVM_EXIT_HLT:
		end_with_fault(m, end, "halt");
		return KN_STEP_END;
	case KVM_EXIT_SHUTDOWN:
		end_with_fault(m, end, "triple fault");
		return KN_STEP_END;
	case KVM_EXIT_MMIO:
		end_with_fault(m, end, "access to 0x%llx, where no memory is", run->mmio.phys_addr);
		return KN_STEP_END;
	case KVM_EXIT_INTERNAL_ERROR:
		end_with_fault(m, end, "an instruction that KVM cannot run (error %u)",
		               run->internal.suberror);
		return KN_STEP_END;
	case KVM_EXIT_FAIL_ENTRY:
		end->kind = KN_END_FAILED;
		kn_fail(&end->err, EIO, "the processor refused to enter the guest (reason 0x%llx)",
		        run->fail_entry.hardware_entry_failure_reason);
		return KN_STEP_END;
	default:
		end->kind = KN_END_FAILED;
		kn_fail(&end->err, EIO, "KVM left the guest for reason %u, which is not known here",
		        run->exit_reason);
		return KN_STEP_END;
	}
}

void bare_describe(struct kn_machine *m, struct kn_end *end)
{
	struct trap t = { .vector = BARE_VECTORS };
	struct kvm_sregs sregs;

	if (kn_vcpu_get(&m->vcpu, &t.regs, &sregs, NULL) < 0)
		return;
	t.rip = t.regs.rip;
	t.rsp = t.regs.rsp;
	t.rflags = t.regs.rflags;
	char story[KN_ERR_TEXT];
	memcpy(story, end->err.text, sizeof(story));
	kn_fail(&end->err, end->err.code, "%.400s (rip 0x%" PRIx64 ")", story, t.rip);
	put_report(end, end->kind == KN_END_LIMIT ? "time limit" : "stopped", &t);
}
