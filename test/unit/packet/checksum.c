#include "packet/fixture.h"

#include "packet/checksum.h"

/* RFC 1071, section 3: the sum of these bytes is ddf2. */
static void sum_of_the_rfc(void **state)
{
	const uint8_t bytes[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };
	const uint8_t expected[] = { 0xdd, 0xf2 };
	uint16_t sum = kn_sum16(bytes, sizeof(bytes), 0);

	(void)state;
	assert_memory_equal(&sum, expected, 2);
}

static void an_odd_byte_counts_as_padded(void **state)
{
	const uint8_t odd[] = { 0x12, 0x34, 0x56 }, even[] = { 0x12, 0x34, 0x56, 0x00 };

	(void)state;
	assert_int_equal(kn_sum16(odd, 3, 0), kn_sum16(even, 4, 0));
	assert_int_equal(kn_checksum(odd, 0), 0xffff);
}

/* A header whose checksum b861 is known. */
static void checksum_of_a_known_header(void **state)
{
	uint8_t h[64], expected[] = { 0xb8, 0x61 };

	(void)state;
	size_t n = bytes_of("4500 0073 0000 4000 4011 0000 c0a8 0001 c0a8 00c7", h);
	uint16_t c = kn_checksum(h, n);
	assert_memory_equal(&c, expected, 2);
	memcpy(h + 10, &c, 2);
	assert_int_equal(kn_checksum(h, n), 0);
}

/* RFC 1624, section 4: the case that the older formula gets wrong. */
static void update_of_the_rfc(void **state)
{
	(void)state;
	assert_int_equal(kn_checksum_update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

static void update_equals_summing_again(void **state)
{
	uint8_t h[20];

	(void)state;
	srand(1624);
	for (int round = 0; round < 20000; round++) {
		for (size_t i = 0; i < sizeof(h); i++)
			h[i] = (uint8_t)rand();
		h[0] = 0x45; /* never all zeros, as a real header */
		h[10] = h[11] = 0;
		uint16_t before, after, c = kn_checksum(h, sizeof(h));
		size_t at = (size_t)(rand() % 4) * 2 + 12;
		memcpy(&before, h + at, 2);
		h[at] = (uint8_t)rand();
		h[at + 1] = (uint8_t)rand();
		memcpy(&after, h + at, 2);
		assert_int_equal(kn_checksum_update(c, before, after), kn_checksum(h, sizeof(h)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sum_of_the_rfc),
		cmocka_unit_test(an_odd_byte_counts_as_padded),
		cmocka_unit_test(checksum_of_a_known_header),
		cmocka_unit_test(update_of_the_rfc),
		cmocka_unit_test(update_equals_summing_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
