#include "machine/bare/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/time.h"

/* syscalls: fstat pread64 clock_gettime */

#define PAGE UINT64_C(4096)
#define LARGE (UINT64_C(2) << 20)

/* KVM fills in the neighbours of a faulting page inside groups of eight. */
#define GROUP (8 * PAGE)

/* Holes are wide, so that a large array on the stack cannot step over one unseen. */
#define HOLE (UINT64_C(64) << 10)

#define MAX_MEMORY (UINT64_C(64) << 30)

/* What prepare() gives KVM before the program is known: enough for most. */
#define PREPARED_BYTES (UINT64_C(160) << 20)

static uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) & ~(to - 1);
}

/* Pages of the segments, without the holes between them. */
static uint64_t program_bytes(const struct kn_elf *elf)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < elf->n; i++) {
		const struct kn_elf_segment *s = &elf->segment[i];
		sum += align_up(s->va + s->mem_bytes, PAGE) - (s->va & ~(PAGE - 1));
	}
	return sum;
}

int kn_bare_layout(const struct kn_elf *elf, uint64_t memory_bytes, uint64_t channel_bytes,
                   struct kn_bare_layout *ret, struct kn_err *err)
{
	if (memory_bytes > MAX_MEMORY || channel_bytes > LARGE * 512 || channel_bytes & (PAGE - 1))
		return kn_fail(err, EINVAL, "memory of %" PRIu64 " and channel of %" PRIu64 " bytes",
		               memory_bytes, channel_bytes);
	uint64_t needed = program_bytes(elf) + elf->stack_bytes;
	if (needed > memory_bytes)
		return kn_fail(err, ENOMEM,
		               "the program and its stack need %" PRIu64
		               " KiB, and %" PRIu64 " KiB of memory are granted",
		               needed >> 10, memory_bytes >> 10);

	struct kn_bare_layout l = { .stack_bytes = elf->stack_bytes, .channel_bytes = channel_bytes };
	/* The stack's last two pages, the information page and the channel's first ones are one
	 * group: one fault of the shadow tables brings them all in. */
	l.info = align_up(elf->end + HOLE + elf->stack_bytes, GROUP) + 2 * PAGE;
	l.stack = l.info - l.stack_bytes;
	l.channel = l.info + PAGE;
	l.heap_bytes = (memory_bytes - needed) & ~(PAGE - 1);
	l.heap = align_up(l.channel + channel_bytes + HOLE, l.heap_bytes >= 2 * LARGE ? LARGE : PAGE);
	l.end = l.heap + l.heap_bytes;
	*ret = l;
	return 0;
}

static int read_program(int fd, struct kn_elf *ret, struct kn_err *err)
{
	char head[KN_ELF_HEAD];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return kn_fail(err, errno, "program: %s", strerror(errno));
	ssize_t n = pread(fd, head, sizeof(head), 0);
	if (n < 0)
		return kn_fail(err, errno, "read program: %s", strerror(errno));
	return kn_elf_check((struct kn_view){ head, (size_t)n }, (uint64_t)st.st_size, ret, err);
}

static int map_program(struct bare *b, struct kn_err *err)
{
	const struct kn_bare_layout *l = &b->layout;
	const unsigned rw = KN_PAGE_USER | KN_PAGE_WRITE;
	struct kn_pages *p = &b->pages;

	int r = kn_pages_map(p, KN_BARE_SYSTEM, KN_BARE_SYSTEM, PAGE, KN_PAGE_EXEC, err);
	if (r == 0)
		r = kn_pages_map(p, BARE_TSS, BARE_TSS, PAGE, KN_PAGE_WRITE, err);
	for (size_t i = 0; r == 0 && i < b->elf.n; i++) {
		const struct kn_elf_segment *s = &b->elf.segment[i];
		uint64_t start = s->va & ~(PAGE - 1);
		r = kn_pages_map(p, start, start, align_up(s->va + s->mem_bytes, PAGE) - start,
		                 KN_PAGE_USER | (s->write ? KN_PAGE_WRITE : 0u) |
		                         (s->exec ? KN_PAGE_EXEC : 0u),
		                 err);
	}
	if (r == 0)
		r = kn_pages_map(p, l->stack, l->stack, l->stack_bytes, rw, err);
	if (r == 0)
		r = kn_pages_map(p, l->info, l->info, PAGE, KN_PAGE_USER, err);
	if (r == 0 && l->channel_bytes)
		r = kn_pages_map(p, l->channel, l->channel, l->channel_bytes, rw, err);
	if (r == 0 && l->heap_bytes)
		r = kn_pages_map(p, l->heap, l->heap, l->heap_bytes, rw, err);
	return r;
}

static int copy_segments(struct kn_machine *m, const struct kn_elf *elf, int fd, struct kn_err *err)
{
	for (size_t i = 0; i < elf->n; i++) {
		const struct kn_elf_segment *s = &elf->segment[i];
		char *to = kn_memory_at(&m->memory, s->va, s->mem_bytes);
		if (!to)
			return kn_fail(err, EFAULT, "segment %zu lies outside guest memory", i);
		for (uint64_t done = 0; done < s->file_bytes;) {
			ssize_t n = pread(fd, to + done, s->file_bytes - done,
			                  (off_t)(s->file_offset + done));
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return kn_fail(err, n ? errno : ENOEXEC, "read segment %zu: %s", i,
				               n ? strerror(errno) : "the file became shorter");
			done += (uint64_t)n;
		}
	}
	return 0;
}

/* Memory from BARE_RAM to the layout's end; a prepared machine has the first part already. */
static int add_memory(struct kn_machine *m, const struct kn_bare_layout *l, struct kn_err *err)
{
	uint64_t have = m->memory.n ? BARE_RAM + PREPARED_BYTES : BARE_RAM;

	if (l->end <= have)
		return 0;
	return kn_memory_add(&m->memory, &m->kvm, have, l->end - have, err);
}

/*
 * A region of a prepared machine may end inside the channel, which one mapping cannot straddle:
 * then share what is left of it in the next.
 */
static int share_channel(struct kn_machine *m, const struct kn_bare_layout *l, int fd,
                         struct kn_err *err)
{
	if (!l->channel_bytes)
		return 0;
	if (!kn_memory_at(&m->memory, l->channel, l->channel_bytes))
		return kn_fail(err, ENOMEM,
		               "a program of this size with a channel of %" PRIu64
		               " KiB does not fit a prepared machine",
		               l->channel_bytes >> 10);
	return kn_memory_share(&m->memory, l->channel, l->channel_bytes, fd, err);
}

static void fill_info(struct kn_machine *m, struct bare *b)
{
	*b->info = (struct kn_bare_info){
		.abi = KN_BARE_ABI,
		.bytes = sizeof(struct kn_bare_info),
		.channel = b->layout.channel,
		.channel_bytes = b->layout.channel_bytes,
		.heap = b->layout.heap,
		.heap_bytes = b->layout.heap_bytes,
		.tsc_khz = kn_vcpu_tsc_khz(&m->vcpu),
	};
}

static int fill_memory(struct kn_machine *m, struct bare *b, const struct kn_boot_config *config,
                       struct kn_err *err)
{
	const struct kn_bare_layout *l = &b->layout;

	int r = add_memory(m, l, err);
	if (r == 0)
		r = share_channel(m, l, config->channel, err);
	if (r < 0)
		return r;
	kn_memory_populate(&m->memory, l->info - 2 * PAGE, l->channel_bytes ? 5 * PAGE : 3 * PAGE);
	kn_memory_populate(&m->memory, KN_BARE_SYSTEM, 2 * PAGE);

	char *tables = kn_memory_at(&m->memory, BARE_TABLES, BARE_TABLE_PAGES * PAGE);
	char *system = kn_memory_at(&m->memory, KN_BARE_SYSTEM, 2 * PAGE);
	b->info = kn_memory_at(&m->memory, l->info, PAGE);
	b->rings = l->channel_bytes ? kn_memory_at(&m->memory, l->channel, PAGE) : NULL;
	if (!tables || !system || !b->info)
		return kn_fail(err, EFAULT, "guest memory has a hole");

	b->pages = kn_pages_init(tables, BARE_TABLES, BARE_TABLE_PAGES);
	bare_system(system);
	fill_info(m, b);
	r = map_program(b, err);
	if (r == 0)
		r = copy_segments(m, &b->elf, config->image, err);
	return r;
}

static int bare_load(struct kn_machine *m, const struct kn_boot_config *config, struct kn_err *err)
{
	kn_auto(kn_free) struct bare *b = calloc(1, sizeof(*b));
	if (!b)
		return kn_fail(err, ENOMEM, "out of memory");

	int r = read_program(config->image, &b->elf, err);
	if (r == 0)
		r = kn_bare_layout(&b->elf, config->memory_bytes, config->channel_bytes, &b->layout,
		                   err);
	if (r == 0)
		r = fill_memory(m, b, config, err);
	if (r < 0)
		return r;

	struct kvm_regs regs;
	struct kvm_sregs sregs;
	bare_registers(BARE_TABLES, b->elf.entry, b->layout.info, b->layout.info, &regs, &sregs);
	r = kn_vcpu_set(&m->kvm, &m->vcpu, &regs, &sregs, err);
	if (r == 0)
		m->guest = kn_take_ptr(b);
	return r;
}

/*
 * Run one instruction in ring 3 under tables of its own: KVM makes what it makes at a first run
 * (a worker thread, shadow roots) now, and the program's tables are new to it later. Tables that
 * the guest has used must not be rewritten from outside: KVM would not notice.
 */
static int bare_prepare(struct kn_machine *m, struct kn_err *err)
{
	static const uint8_t code[] = { 0xe6, KN_BARE_PORT };   /* out %al, $port */
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	int r = kn_memory_add(&m->memory, &m->kvm, BARE_RAM, PREPARED_BYTES, err);
	if (r < 0)
		return r;
	char *tables = kn_memory_at(&m->memory, BARE_PRIME, BARE_PRIME_PAGES * PAGE);
	char *at = kn_memory_at(&m->memory, BARE_PRIME_CODE, PAGE);
	char *system = kn_memory_at(&m->memory, KN_BARE_SYSTEM, 2 * PAGE);
	if (!tables || !at || !system)
		return kn_fail(err, EFAULT, "guest memory has a hole");

	struct kn_pages p = kn_pages_init(tables, BARE_PRIME, BARE_PRIME_PAGES);
	r = kn_pages_map(&p, KN_BARE_PROGRAM, BARE_PRIME_CODE, PAGE, KN_PAGE_USER | KN_PAGE_EXEC, err);
	if (r == 0)
		r = kn_pages_map(&p, BARE_TSS, BARE_TSS, PAGE, KN_PAGE_WRITE, err);
	if (r < 0)
		return r;
	bare_system(system);
	memcpy(at, code, sizeof(code));
	bare_registers(BARE_PRIME, KN_BARE_PROGRAM, 0, 0, &regs, &sregs);
	r = kn_vcpu_set(&m->kvm, &m->vcpu, &regs, &sregs, err);
	if (r < 0)
		return r;
	if (ioctl(m->vcpu.fd, KVM_RUN, 0) < 0)
		return kn_fail(err, errno, "first run of the vCPU: %s", strerror(errno));
	if (m->vcpu.run->exit_reason != KVM_EXIT_IO)
		return kn_fail(err, EIO, "first run of the vCPU left for reason %u",
		               m->vcpu.run->exit_reason);
	/* Complete the instruction without entering again. */
	m->vcpu.run->immediate_exit = 1;
	(void)ioctl(m->vcpu.fd, KVM_RUN, 0);
	m->vcpu.run->immediate_exit = 0;
	return 0;
}

static void bare_enter(struct kn_machine *m)
{
	struct bare *b = m->guest;
	b->info->mono_ns = kn_now_ns();
	b->info->wall_ns = kn_wall_ns();
	b->info->entries++;
}

static const struct kn_ring_shared *ring_at(const struct bare *b, unsigned offset)
{
	return (const void *)(b->rings + offset);
}

static uint64_t bare_progress(const struct kn_machine *m)
{
	const struct bare *b = m->guest;
	if (!b->rings)
		return 0;
	return atomic_load_explicit(&ring_at(b, KN_BARE_REPLY_RING)->head, memory_order_acquire);
}

static bool bare_called(const struct kn_machine *m)
{
	const struct bare *b = m->guest;
	if (!b->rings)
		return false;
	return atomic_load_explicit(&ring_at(b, KN_BARE_REQUEST_RING)->tail,
	                            memory_order_acquire) != 0;
}

static void bare_unload(struct kn_machine *m)
{
	kn_free(m->guest);
	m->guest = NULL;
}

const struct kn_boot_ops kn_boot_bare = {
	.name = "bare",
	.match = kn_elf_is_bare,
	.prepare = bare_prepare,
	.load = bare_load,
	.enter = bare_enter,
	.exit = bare_exit,
	.progress = bare_progress,
	.called = bare_called,
	.describe = bare_describe,
	.unload = bare_unload,
};
