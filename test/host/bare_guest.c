/*
 * A bare function that does, by path, what functions should and should not do. The rings are
 * reached through the library's own variable, as a hostile program would.
 */
#include <kiln/bare.h>

#include "machine/abi.h"

extern const struct kn_bare_info *kiln_info;

static const char constant[64] = "read only";
static char data_code[16] = { (char)0xc3 };   /* ret */
static volatile int zero;
static int calls;

static char *channel(uint64_t offset)
{
	return (char *)(uintptr_t)(kiln_info->channel + offset);
}

static struct kn_ring_shared *ring(unsigned offset)
{
	return (struct kn_ring_shared *)(void *)channel(offset);
}

static void hello(const struct kiln_request *q, struct kiln_reply *r)
{
	kiln_reply_type(r, "text/plain");
	kiln_reply_printf(r, "hello %d %.*s %.*s %.*s", ++calls, (int)q->method.len, q->method.ptr,
	                  (int)q->call_id.len, q->call_id.ptr, (int)q->content_type.len,
	                  q->content_type.ptr);
}

static void echo(const struct kiln_request *q, struct kiln_reply *r)
{
	kiln_reply_add(r, q->body.ptr, q->body.len);
}

static void null(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)r;
	*(volatile char *)(uintptr_t)(q->body.len * 8) = 1;
}

static void write_text(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	*(volatile char *)(uintptr_t)(void *)&hello = (char)(uintptr_t)r;
}

static void write_constant(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	*(volatile char *)(uintptr_t)constant = 1;
}

static void exec_data(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	((void (*)(void))(uintptr_t)data_code)();
}

static void jump_wild(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	((void (*)(void))(uintptr_t)0x7f0000001000)();
}

static void jump_noncanonical(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	__asm__ volatile("jmp *%0" : : "r"(UINT64_C(0x8000000000000000)));
}

static __attribute__((noinline)) int deeper(volatile char *from)
{
	volatile char frame[512];
	frame[0] = from[0];
	return zero ? 0 : deeper(frame) + frame[1];
}

static void stack_overflow(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	volatile char first[2] = { 0 };
	kiln_reply_status(r, 200 + (deeper(first) & 1));
}

static void divide(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	kiln_reply_status(r, 100 / zero);
}

static void bad_instruction(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	__asm__ volatile("ud2");
}

static void halt(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	__asm__ volatile("hlt");
}

static void port(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	__asm__ volatile("outb %%al, $0x80" : : "a"(0));
}

static void system_call(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	__asm__ volatile("syscall" : : "a"(60) : "rcx", "r11", "memory");
}

static void read_tables(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	kiln_reply_add(r, (const void *)(uintptr_t)KN_BARE_SYSTEM, 8);
}

static void loop(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	for (;;)
		__asm__ volatile("");
}

/* Beyond what was granted: first politely, then not. */
static void overrun(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	size_t step = 1 << 20;
	while (kiln_malloc(step))
		;
	kiln_log("the heap is used up, %zu bytes are left", kiln_memory_left());
	volatile char *p = (volatile char *)(uintptr_t)(kiln_info->heap + kiln_info->heap_bytes);
	*p = (char)(uintptr_t)r;
}

static void fill_memory(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	size_t n = kiln_memory_left() - 64;
	unsigned char *p = kiln_malloc(n);
	if (!p) {
		kiln_reply_status(r, 500);
		return;
	}
	memset(p, 0x5a, n);
	for (size_t i = 0; i < n; i += 4096)
		if (p[i] != 0x5a)
			kiln_reply_status(r, 501);
	kiln_free(p);
	kiln_reply_printf(r, "%zu", n);
}

static void huge_reply(const struct kiln_request *q, struct kiln_reply *r)
{
	while (kiln_reply_add(r, constant, sizeof(constant)))
		;
	(void)q;
}

static void huge_lie(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	struct kn_ring_shared *replies = ring(KN_BARE_REPLY_RING);
	uint32_t head = atomic_load(&replies->head);
	replies->desc[head % KN_BARE_REPLIES] =
		(struct kn_ring_desc){ KN_BARE_FRAMES, 0xffffffff, 0 };
	atomic_store(&replies->head, head + 1);
	loop(q, r);
}

static void garbage_counters(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	atomic_store(&ring(KN_BARE_REPLY_RING)->head, 0xdeadbeef);
	atomic_store(&ring(KN_BARE_LOG_RING)->head, 0xdeadbeef);
	__asm__ volatile("outl %%eax, %0" : : "i"(KN_BARE_PORT), "a"(KN_BARE_NOTIFY) : "memory");
	loop(q, r);
}

static void garbage_everywhere(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	memset(channel(0), 0xa5, kiln_info->channel_bytes);
	__asm__ volatile("outl %%eax, %0" : : "i"(KN_BARE_PORT), "a"(KN_BARE_NOTIFY) : "memory");
	loop(q, r);
}

static void bad_call(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	__asm__ volatile("outl %%eax, %0" : : "i"(KN_BARE_PORT), "a"(99) : "memory");
}

/* A liar that counts replies which it never made, to look busy for ever. */
static void lying_progress(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	(void)r;
	for (;;) {
		uint64_t until = kiln_now_ns() + 20 * UINT64_C(1000000);
		while (kiln_now_ns() < until)
			;
		struct kn_ring_shared *replies = ring(KN_BARE_REPLY_RING);
		atomic_store(&replies->head, atomic_load(&replies->head) ^ 1);
	}
}

static void exit_code(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)r;
	kiln_exit((int)q->body.len);
}

static void flood_log(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	for (int i = 0; i < 1000; i++)
		kiln_log("line %d of many", i);
	kiln_reply_adds(r, "done");
}

static void clock(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	uint64_t a = kiln_now_ns(), b = a;
	while (b - a < 5000000)
		b = kiln_now_ns();
	kiln_reply_printf(r, "%llu %llu", (unsigned long long)b, (unsigned long long)kiln_wall_ns());
}

static void floating(const struct kiln_request *q, struct kiln_reply *r)
{
	(void)q;
	volatile double a = 1, b = 3, none = 0;
	kiln_reply_printf(r, "%.17g %g %f", a / b, a / none, none / none);
}

static const struct {
	const char *path;
	void (*call)(const struct kiln_request *q, struct kiln_reply *r);
} table[] = {
	{ "/hello", hello }, { "/echo", echo }, { "/null", null }, { "/write-text", write_text },
	{ "/write-constant", write_constant }, { "/exec-data", exec_data },
	{ "/jump-wild", jump_wild }, { "/jump-noncanonical", jump_noncanonical },
	{ "/stack", stack_overflow }, { "/divide", divide }, { "/ud2", bad_instruction },
	{ "/halt", halt }, { "/port", port }, { "/syscall", system_call },
	{ "/read-tables", read_tables }, { "/loop", loop }, { "/overrun", overrun },
	{ "/fill", fill_memory }, { "/huge", huge_reply }, { "/huge-lie", huge_lie },
	{ "/garbage-counters", garbage_counters }, { "/garbage", garbage_everywhere },
	{ "/bad-call", bad_call }, { "/lying", lying_progress }, { "/exit", exit_code },
	{ "/flood", flood_log }, { "/clock", clock }, { "/floating", floating },
};

void kiln_start(void)
{
	kiln_log("started");
}

void kiln_handle(const struct kiln_request *q, struct kiln_reply *r)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		size_t n = strlen(table[i].path);
		if (q->path.len == n && memcmp(q->path.ptr, table[i].path, n) == 0) {
			table[i].call(q, r);
			return;
		}
	}
	kiln_reply_status(r, 404);
}
