#include "packet/fixture.h"

#include "packet/checksum.h"
#include "packet/offload.h"

/* A datagram of 12 bytes with this checksum; 10.0.0.1:5000 to 10.0.1.2:53. */
#define DATAGRAM(sum) ETH4 IP4("0020", "11") "1388 0035 000c " sum " deadbeef"
#define SEGMENT(sum)                                                                               \
	ETH6 IP6("0014", "06") "c000 01bb 00000001 00000002 50 18 ffff " sum " 0000 "

/* Worked out by hand: 0a00 + 0001 + 0a00 + 0102 + 0011 + 000c */
static const char PSEUDO4[] = "1520";

/* 2 * (2001 + 0db8) + 0001 + 0002 + 0006 + 0014 */
static const char PSEUDO6[] = "5b8f";

static void an_unfinished_checksum_is_found(void **state)
{
	uint8_t data[FIXTURE_MAX];
	struct kn_offload o;
	char text[256];

	(void)state;
	snprintf(text, sizeof(text), DATAGRAM("%s"), PSEUDO4);
	size_t n = bytes_of(text, data);
	assert_true(kn_offload_find(data, (uint32_t)n, &o));
	assert_int_equal(o.flags, 1);
	assert_int_equal(o.csum_start, 34);
	assert_int_equal(o.csum_offset, 6);
	snprintf(text, sizeof(text), SEGMENT("%s"), PSEUDO6);
	n = bytes_of(text, data);
	assert_true(kn_offload_find(data, (uint32_t)n, &o));
	assert_int_equal(o.csum_start, 54);
	assert_int_equal(o.csum_offset, 16);
}

static void what_is_finished_or_no_checksum_is_left_alone(void **state)
{
	static const char *const cases[] = {
		DATAGRAM("0000"), DATAGRAM("1521"), SEGMENT("1234"),
		ETH4 IP4_FRAGMENT("0020", "11", "2000") "1388 0035 000c 1520 deadbeef",
		ETH4 IP4("001c", "01") ECHO, ETH4 "45", "0800",
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		uint8_t data[FIXTURE_MAX];
		struct kn_offload o = { .flags = 9 };
		size_t n = bytes_of(cases[i], data);
		assert_false(kn_offload_find(data, (uint32_t)n, &o));
		assert_int_equal(o.flags, 0);
	}
}

static void a_finished_checksum_is_right(void **state)
{
	uint8_t data[FIXTURE_MAX];
	struct kn_offload o;
	char text[256];

	(void)state;
	snprintf(text, sizeof(text), DATAGRAM("%s"), PSEUDO4);
	size_t n = bytes_of(text, data);
	assert_true(kn_offload_find(data, (uint32_t)n, &o));
	assert_true(kn_offload_finish(data, (uint32_t)n, &o));
	/* Pseudo header and datagram together give 0 (RFC 768). */
	const uint8_t tail[4] = { 0, 17, 0, 12 };
	uint64_t sum = kn_sum16(tail, 4, kn_sum16(data + 26, 8, 0));
	assert_int_equal((uint16_t)~kn_sum16(data + 34, n - 34, sum), 0);
	assert_false(kn_offload_find(data, (uint32_t)n, &o));
	assert_true(kn_offload_finish(data, (uint32_t)n, &o)); /* nothing to do */
}

static void what_cannot_be_finished_is_said(void **state)
{
	uint8_t data[64] = { 0 };
	const struct kn_offload segments = { .flags = 1, .gso_type = 1, .csum_start = 34 };
	const struct kn_offload outside = { .flags = 1, .csum_start = 50, .csum_offset = 13 };
	const struct kn_offload far = { .flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff };

	(void)state;
	assert_false(kn_offload_finish(data, sizeof(data), &segments));
	assert_false(kn_offload_finish(data, sizeof(data), &outside));
	assert_false(kn_offload_finish(data, sizeof(data), &far));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_unfinished_checksum_is_found),
		cmocka_unit_test(what_is_finished_or_no_checksum_is_left_alone),
		cmocka_unit_test(a_finished_checksum_is_right),
		cmocka_unit_test(what_cannot_be_finished_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
