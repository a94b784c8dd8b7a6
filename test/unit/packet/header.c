#include "packet/fixture.h"

#include "packet/header.h"

static void a_cursor_stops_at_the_end(void **state)
{
	uint8_t bytes[FIXTURE_MAX];
	size_t n = bytes_of(ETH4 "aabbcc", bytes);
	struct kn_cursor c = kn_cursor_of(bytes, n);

	(void)state;
	const struct kn_eth_header *eth = KN_TAKE(&c, struct kn_eth_header);
	assert_ptr_equal(eth, bytes);
	assert_int_equal(kn_get16(eth->type), KN_ETHERTYPE_IPV4);
	assert_int_equal(kn_cursor_left(&c), 3);
	assert_null(KN_TAKE(&c, struct kn_icmp_header));
	assert_int_equal(kn_cursor_left(&c), 3);
	assert_non_null(kn_cursor_take(&c, 3));
	assert_null(kn_cursor_take(&c, 1));
	assert_null(kn_cursor_take(&c, SIZE_MAX));
	assert_non_null(kn_cursor_take(&c, 0));
}

static void a_limit_never_makes_room(void **state)
{
	const uint8_t bytes[8] = { 0 };
	struct kn_cursor c = kn_cursor_of(bytes, sizeof(bytes));

	(void)state;
	kn_cursor_limit(&c, 100);
	assert_int_equal(kn_cursor_left(&c), 8);
	kn_cursor_limit(&c, 2);
	assert_int_equal(kn_cursor_left(&c), 2);
	kn_cursor_limit(&c, 8);
	assert_int_equal(kn_cursor_left(&c), 2);
}

static void headers_have_their_wire_size(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct kn_eth_header), 14);
	assert_int_equal(sizeof(struct kn_vlan_tag), 4);
	assert_int_equal(sizeof(struct kn_arp_header), 28);
	assert_int_equal(sizeof(struct kn_ipv4_header), 20);
	assert_int_equal(sizeof(struct kn_ipv6_header), 40);
	assert_int_equal(sizeof(struct kn_ipv6_option_header), 8);
	assert_int_equal(sizeof(struct kn_ipv6_fragment), 8);
	assert_int_equal(sizeof(struct kn_tcp_header), 20);
	assert_int_equal(sizeof(struct kn_udp_header), 8);
	assert_int_equal(sizeof(struct kn_icmp_header), 4);
	assert_int_equal(_Alignof(struct kn_tcp_header), 1);
}

static void fields_are_big_endian(void **state)
{
	const uint8_t bytes[] = { 0x12, 0x34, 0x56, 0x78 };
	kn_be32 v = kn_put32(0x12345678);
	kn_be16 w = kn_put16(0x1234);

	(void)state;
	assert_memory_equal(&v, bytes, 4);
	assert_memory_equal(&w, bytes, 2);
	assert_int_equal(kn_get32(v), 0x12345678);
	assert_int_equal(kn_get16(w), 0x1234);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cursor_stops_at_the_end),
		cmocka_unit_test(a_limit_never_makes_room),
		cmocka_unit_test(headers_have_their_wire_size),
		cmocka_unit_test(fields_are_big_endian),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
