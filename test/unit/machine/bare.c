#include "test.h"

#include "machine/abi.h"
#include "machine/bare.h"

#define MIB (UINT64_C(1) << 20)

static struct kn_elf program(uint64_t bytes, uint64_t stack)
{
	return (struct kn_elf){
		.entry = KN_BARE_PROGRAM,
		.end = KN_BARE_PROGRAM + bytes,
		.stack_bytes = stack,
		.n = 1,
		.segment = { { .va = KN_BARE_PROGRAM, .mem_bytes = bytes, .exec = true } },
	};
}

/* Holes on both sides of the stack and the heap, nothing overlaps, sums are right. */
static void parts_lie_apart(void **state)
{
	(void)state;
	static const uint64_t programs[] = { 4096, 12288, 3 * MIB, 60 * MIB };
	static const uint64_t stacks[] = { 4096, 65536, 8 * MIB };
	static const uint64_t channels[] = { 0, 32768, 5 * MIB + 4096 };
	static const uint64_t memories[] = { 70 * MIB, 128 * MIB, 4096 * MIB };

	for (size_t i = 0; i < 4 * 3 * 3 * 3; i++) {
		struct kn_elf elf = program(programs[i % 4], stacks[i / 4 % 3]);
		uint64_t channel = channels[i / 12 % 3], memory = memories[i / 36];
		struct kn_err err = KN_ERR_INIT;
		struct kn_bare_layout l;

		assert_ok(kn_bare_layout(&elf, memory, channel, &l, &err), &err);
		assert_true(l.stack >= elf.end + 65536);
		assert_int_equal(l.stack + l.stack_bytes, l.info);
		assert_int_equal(l.channel, l.info + 4096);
		assert_true(l.heap >= l.channel + channel + 65536);
		assert_int_equal(l.end, l.heap + l.heap_bytes);
		assert_int_equal(l.heap_bytes, memory - programs[i % 4] - stacks[i / 4 % 3]);
		assert_int_equal((l.stack | l.info | l.heap | l.end) % 4096, 0);
		if (l.heap_bytes >= 4 * MIB)
			assert_int_equal(l.heap % (2 * MIB), 0);
	}
}

static void memory_that_does_not_suffice_is_told(void **state)
{
	(void)state;
	struct kn_elf elf = program(MIB, 65536);
	struct kn_err err = KN_ERR_INIT;
	struct kn_bare_layout l;

	assert_fails(kn_bare_layout(&elf, MIB, 0, &l, &err), ENOMEM, &err,
	             "need 1088 KiB, and 1024 KiB of memory are granted");
	assert_ok(kn_bare_layout(&elf, MIB + 65536, 0, &l, &err), &err);
	assert_int_equal(l.heap_bytes, 0);
	assert_fails(kn_bare_layout(&elf, UINT64_MAX, 0, &l, &err), EINVAL, &err, "memory of");
	assert_fails(kn_bare_layout(&elf, 64 * MIB, UINT64_C(1) << 40, &l, &err), EINVAL, &err,
	             "channel of");
	assert_fails(kn_bare_layout(&elf, 64 * MIB, 100, &l, &err), EINVAL, &err, "channel of 100");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parts_lie_apart),
		cmocka_unit_test(memory_that_does_not_suffice_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
