#include "packet/fixture.h"

#include "base/json.h"
#include "packet/checksum.h"
#include "packet/header.h"
#include "packet/operator.h"

/* One frame of this text in a parsed batch of n copies; memory lives until the next call. */
static void load(struct kn_batch *b, uint64_t drops[KN_REASON_COUNT], const char *text, uint32_t n)
{
	static uint8_t bytes[KN_BATCH][256];
	static struct kn_frame frames[KN_BATCH];
	uint8_t big[FIXTURE_MAX];
	uint32_t len = (uint32_t)bytes_of(text, big);

	batch_init(b, drops);
	for (uint32_t i = 0; i < n; i++) {
		memset(bytes[i], 0, sizeof(bytes[i]));
		memcpy(bytes[i], big, len);
		frames[i] = (struct kn_frame){ bytes[i], len, len, 0, NULL };
		b->frame[i] = &frames[i];
	}
	b->n = n;
	b->live = kn_lanes_first(n);
	kn_parse_batch(b, NULL);
}

static void mac_swap_swaps_and_nothing_else(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	uint8_t expected[FIXTURE_MAX];

	(void)state;
	load(&b, drops, "0123456789ab cdef01234567 88cc 1122334455", 3);
	b.live = 5;
	kn_map_mac_swap(&b, NULL);
	size_t n = bytes_of("cdef01234567 0123456789ab 88cc 1122334455", expected);
	assert_memory_equal(b.frame[0]->data, expected, n);
	assert_memory_equal(b.frame[2]->data, expected, n);
	assert_int_equal(b.frame[1]->data[0], 0x01);
}

/* Every TTL and a moving rest of the header: the patched checksum is the one summed anew. */
static void ttl_keeps_the_checksum_right(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	static const char *const kinds[] = {
		ETH4 IP4("0028", "06") TCP,
		MACS "8100 0007 0800 " IP4("0028", "06") TCP,
		ETH4 "46 00 0024 0001 0000 40 11 0000 " FROM4 TO4
		     "94040000 " UDP("000c") "deadbeef",
	};

	(void)state;
	for (size_t k = 0; k < KN_ARRAY_LEN(kinds); k++) {
		for (unsigned round = 0; round < 70000; round += 3) {
			load(&b, drops, kinds[k], 1);
			uint8_t *ip = b.frame[0]->data + b.l3[0];
			size_t header = (ip[0] & 15u) * 4;
			uint8_t ttl = (uint8_t)(2 + round % 254);
			ip[4] = (uint8_t)(round >> 8);
			ip[5] = (uint8_t)round;
			ip[8] = ttl;
			uint16_t sum = kn_checksum(ip, header);
			memcpy(ip + 10, &sum, 2);
			kn_map_ttl(&b, NULL);
			assert_int_equal(b.live, 1);
			assert_int_equal(ip[8], ttl - 1);
			assert_int_equal(kn_checksum(ip, header), 0);
		}
	}
}

static void hop_limits_count_down_too(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];

	(void)state;
	load(&b, drops, MACS "88a8 0007 8100 002a 86dd " IP6("000c", "11") UDP("000c") "deadbeef",
	     2);
	kn_map_ttl(&b, NULL);
	assert_int_equal(b.frame[1]->data[22 + 7], 63);
	assert_int_equal(b.live, 3);
}

static void a_used_up_ttl_is_dropped_unchanged(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];

	(void)state;
	load(&b, drops, ETH4 IP4("0028", "06") TCP, 4);
	b.frame[1]->data[22] = 1;
	b.frame[2]->data[22] = 0;
	kn_map_ttl(&b, NULL);
	assert_int_equal(b.live, 9);
	assert_int_equal(drops[KN_DROP_TTL], 2);
	assert_int_equal(b.frame[1]->data[22], 1);
	load(&b, drops, ETH6 IP6("0014", "06") TCP, 1);
	b.frame[0]->data[21] = 1;
	kn_map_ttl(&b, NULL);
	assert_int_equal(b.live, 0);
}

static void what_is_not_ip_has_no_ttl(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	const char *arp =
		MACS "0806 0001 0800 06 04 0001 020000000002 0a000001 000000000000 0a000102";
	uint8_t expected[FIXTURE_MAX];

	(void)state;
	load(&b, drops, arp, 1);
	kn_map_ttl(&b, NULL);
	assert_int_equal(b.live, 1);
	assert_memory_equal(b.frame[0]->data, expected, bytes_of(arp, expected));
}

static inline bool is_even(const struct kn_batch *b, uint32_t lane, void *context)
{
	(void)b;
	(*(unsigned *)context)++;
	return lane % 2 == 0;
}
KN_OPERATOR_FILTER(keep_even, is_even)

static inline void mark(const struct kn_batch *b, uint32_t lane, void *context)
{
	b->frame[lane]->data[0] = *(uint8_t *)context;
}
KN_OPERATOR_MAP(mark_all, mark)

static void authors_write_what_happens_to_one_frame(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	kn_auto(kn_stage_free) struct kn_stage *filter = NULL;
	kn_auto(kn_stage_free) struct kn_stage *map = NULL;
	struct kn_err err = KN_ERR_INIT;
	unsigned calls = 0;
	uint8_t value = 0x5a;

	(void)state;
	load(&b, drops, ETH4 IP4("0028", "06") TCP, 32);
	assert_ok(kn_stage_call("even", keep_even, &calls, &filter, &err), &err);
	assert_ok(kn_stage_call("mark", mark_all, &value, &map, &err), &err);
	filter->ops->run(filter, &b);
	map->ops->run(map, &b);
	assert_int_equal(calls, 32);
	assert_int_equal(b.live, 0x55555555);
	assert_int_equal(drops[KN_DROP_FILTER], 16);
	assert_int_equal(b.frame[4]->data[0], 0x5a);
	assert_int_equal(b.frame[5]->data[0], 0x02);
	assert_string_equal(filter->name, "even");
}

static struct kn_acl *only_udp(void)
{
	struct kn_rule rule = { "udp", KN_MATCH_ANY, KN_PASS };
	struct kn_acl *acl = NULL;

	rule.match.has_proto = true;
	rule.match.proto = KN_PROTO_UDP;
	assert_int_equal(kn_acl_new(&rule, 1, KN_DROP, &acl, NULL), 0);
	return acl;
}

static void filter_drops_and_count_does_not(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	kn_auto(kn_stage_free) struct kn_stage *count = NULL;
	kn_auto(kn_stage_free) struct kn_stage *total = NULL;
	kn_auto(kn_stage_free) struct kn_stage *filter = NULL;
	kn_auto(json_decref) json_t *report = json_object();
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_stage_count("datagrams", only_udp(), &count, &err), &err);
	assert_ok(kn_stage_count("all", NULL, &total, &err), &err);
	assert_ok(kn_stage_filter(NULL, only_udp(), &filter, &err), &err);
	load(&b, drops, ETH4 IP4("0028", "06") TCP, 7);
	count->ops->run(count, &b);
	total->ops->run(total, &b);
	assert_int_equal(b.live, 0x7f);
	filter->ops->run(filter, &b);
	assert_int_equal(b.live, 0);
	assert_int_equal(drops[KN_DROP_FILTER], 7);
	load(&b, drops, ETH4 IP4("0020", "11") UDP("000c") "deadbeef", 2);
	count->ops->run(count, &b);
	filter->ops->run(filter, &b);
	assert_int_equal(b.live, 3);
	count->ops->report(count, report);
	assert_int_equal(json_integer_value(json_object_get(report, "frames")), 2);
	assert_int_equal(json_integer_value(json_object_get(report, "bytes")), 2 * 46);
	total->ops->report(total, report);
	assert_int_equal(json_integer_value(json_object_get(report, "frames")), 7);
	assert_string_equal(filter->name, "filter");
}

static void maps_are_found_by_name(void **state)
{
	(void)state;
	assert_ptr_equal(kn_map_find("ttl"), kn_map_ttl);
	assert_ptr_equal(kn_map_find("mac_swap"), kn_map_mac_swap);
	assert_null(kn_map_find("nat"));
	for (const char *const *name = kn_map_names(); *name; name++)
		assert_non_null(kn_map_find(*name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mac_swap_swaps_and_nothing_else),
		cmocka_unit_test(ttl_keeps_the_checksum_right),
		cmocka_unit_test(hop_limits_count_down_too),
		cmocka_unit_test(a_used_up_ttl_is_dropped_unchanged),
		cmocka_unit_test(what_is_not_ip_has_no_ttl),
		cmocka_unit_test(authors_write_what_happens_to_one_frame),
		cmocka_unit_test(filter_drops_and_count_does_not),
		cmocka_unit_test(maps_are_found_by_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
