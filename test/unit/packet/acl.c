#include "packet/fixture.h"

#include "packet/acl.h"
#include "packet/parse.h"

static const char *const engines[] = { "portable", "avx2", "avx512" };

/* Frames that rules can tell apart. */
static const char *const frames[] = {
	ETH4 IP4("0020", "11") UDP("000c") "deadbeef",
	ETH4 IP4("0028", "06") TCP,
	ETH4 IP4("001c", "01") ECHO,
	ETH4 IP4_FRAGMENT("001c", "11", "0002") "1388003500080000",
	ETH4 "45 00 001c 0001 0000 40 11 0000 c0a80501 e0000001 0044 0043 0008 0000",
	MACS "8100 002a 0800 " IP4("0028", "06") TCP,
	MACS "8100 0007 86dd " IP6("0008", "11") UDP("0008"),
	ETH6 IP6("0014", "06") TCP,
	ETH6 "6000 0000 0008 3a 40 fe800000 00000000 00000000 00000001 ff020000 00000000 00000000 "
	     "00000002 87 00 0000 00000000",
	MACS "0806 0001 0800 06 04 0001 020000000002 0a000001 000000000000 0a000102",
	MACS "88cc 0207",
};

static struct kn_match src(const char *text)
{
	struct kn_match m = KN_MATCH_ANY;

	assert_int_equal(kn_parse_prefix(kn_view_of(text), &m.src, NULL), 0);
	return m;
}

static struct kn_match dst_port(uint16_t low, uint16_t high)
{
	struct kn_match m = KN_MATCH_ANY;

	m.has_dst_port = true;
	m.dst_port = (struct kn_range){ low, high };
	return m;
}

/* All frames of the table in one parsed batch; the memory lives until the next call. */
static void load(struct kn_batch *b, uint64_t drops[KN_REASON_COUNT])
{
	static uint8_t bytes[KN_ARRAY_LEN(frames)][128];
	static struct kn_frame store[KN_ARRAY_LEN(frames)];

	batch_init(b, drops);
	for (b->n = 0; b->n < KN_ARRAY_LEN(frames); b->n++) {
		uint8_t big[FIXTURE_MAX];
		uint32_t len = (uint32_t)bytes_of(frames[b->n], big);
		memcpy(bytes[b->n], big, len);
		store[b->n] = (struct kn_frame){ bytes[b->n], len, len, 0, NULL };
		b->frame[b->n] = &store[b->n];
	}
	b->live = kn_lanes_first(b->n);
	kn_parse_batch(b, NULL);
	assert_int_equal(b->live, kn_lanes_first(b->n));
}

/* Which frames of the table one match takes, by the engine in use. */
static kn_lanes taken_by(const struct kn_match *m)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	const struct kn_rule rule = { "one", *m, KN_PASS };
	kn_auto(kn_acl_free) struct kn_acl *acl = NULL;
	struct kn_err err = KN_ERR_INIT;

	load(&b, drops);
	assert_ok(kn_acl_new(&rule, 1, KN_DROP, &acl, &err), &err);
	kn_lanes taken = kn_acl_passes(acl, &b);
	assert_int_equal(kn_acl_count(acl, 0), kn_lanes_count(taken));
	return taken;
}

static void each_test_takes_its_frames(void **state)
{
	struct kn_match tcp = KN_MATCH_ANY, fragment = KN_MATCH_ANY, whole = KN_MATCH_ANY;
	struct kn_match vlan = KN_MATCH_ANY, tagged = KN_MATCH_ANY, untagged = KN_MATCH_ANY;
	struct kn_match arp = KN_MATCH_ANY, echo = KN_MATCH_ANY, solicit = KN_MATCH_ANY;
	struct kn_match from = KN_MATCH_ANY, zero = KN_MATCH_ANY, any = KN_MATCH_ANY;

	(void)state;
	tcp.has_proto = true;
	tcp.proto = 6;
	zero.has_proto = true;
	fragment.fragment = 1;
	whole.fragment = 0;
	vlan.vlan = 42;
	tagged.vlan = KN_VLAN_TAGGED;
	untagged.vlan = KN_VLAN_UNTAGGED;
	arp.family = KN_META_ARP;
	echo.has_icmp_type = true;
	echo.icmp_type = (struct kn_range){ 8, 8 };
	solicit.has_icmp_type = solicit.has_icmp_code = true;
	solicit.icmp_type = (struct kn_range){ 133, 136 };
	solicit.icmp_code = (struct kn_range){ 0, 0 };
	from.has_src_port = true;
	from.src_port = (struct kn_range){ 49152, 65535 };
	const struct {
		struct kn_match match;
		kn_lanes taken;
	} cases[] = {
		{ any, 0x7ff },
		{ src("10.0.0.0/8"), 0x02f },
		{ src("10.0.0.1"), 0x02f },
		{ src("10.0.0.0/32"), 0 },
		{ src("0.0.0.0/0"), 0x03f },
		{ src("192.168.5.0/24"), 0x010 },
		{ src("2001:db8::/32"), 0x0c0 },
		{ src("2001:db8::1"), 0x0c0 },
		{ src("fe80::/10"), 0x100 },
		{ src("::/0"), 0x1c0 },
		{ dst_port(53, 53), 0x041 },
		{ dst_port(0, 65535), 0x0f3 },
		{ dst_port(67, 443), 0x0b2 },
		{ from, 0x0a2 },
		{ tcp, 0x0a2 },
		{ zero, 0 },
		{ fragment, 0x008 },
		{ whole, 0x7f7 },
		{ vlan, 0x020 },
		{ tagged, 0x060 },
		{ untagged, 0x79f },
		{ arp, 0x200 },
		{ echo, 0x004 },
		{ solicit, 0x100 },
	};
	for (size_t e = 0; e < KN_ARRAY_LEN(engines); e++) {
		if (kn_acl_use_engine(engines[e], NULL) < 0)
			continue;
		for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
			kn_lanes taken = taken_by(&cases[i].match);
			if (taken != cases[i].taken)
				fail_msg("%s, case %zu: %03x, not %03x", engines[e], i, taken,
					 cases[i].taken);
		}
	}
}

static void the_first_rule_that_matches_decides(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	struct kn_rule rules[] = {
		{ "dns", dst_port(53, 53), KN_PASS },
		{ "ten", src("10.0.0.0/8"), KN_DROP },
		{ "ten again", src("10.0.0.0/8"), KN_PASS },
		{ "six", src("2001:db8::/32"), KN_PASS },
	};
	kn_auto(kn_acl_free) struct kn_acl *acl = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	for (size_t e = 0; e < KN_ARRAY_LEN(engines); e++) {
		if (kn_acl_use_engine(engines[e], NULL) < 0)
			continue;
		kn_acl_free(kn_take_ptr(acl));
		assert_ok(kn_acl_new(rules, 4, KN_DROP, &acl, &err), &err);
		load(&b, drops);
		b.observed = true;
		kn_acl_run(acl, &b);
		assert_int_equal(b.live, 0x0c1);
		assert_int_equal(kn_acl_count(acl, 0), 2);
		assert_int_equal(kn_acl_count(acl, 1), 4);
		assert_int_equal(kn_acl_count(acl, 2), 0);
		assert_int_equal(kn_acl_count(acl, 3), 1);
		assert_int_equal(kn_acl_count(acl, KN_ACL_NO_RULE), 4);
		assert_int_equal(drops[KN_DROP_ACL_RULE], 4);
		assert_int_equal(drops[KN_DROP_ACL_DEFAULT], 4);
		assert_string_equal(b.rule[0], "dns");
		assert_string_equal(b.rule[1], "ten");
		assert_string_equal(b.rule[7], "six");
		assert_null(b.rule[9]);
		assert_int_equal(b.why[1], KN_DROP_ACL_RULE);
	}
	assert_string_equal(kn_acl_name(acl, 1), "ten");
	assert_string_equal(kn_acl_name(acl, KN_ACL_NO_RULE), "default");
	assert_int_equal(kn_acl_action(acl, 1), KN_DROP);
	assert_int_equal(kn_acl_action(acl, KN_ACL_NO_RULE), KN_DROP);
}

static uint16_t small(void)
{
	static const uint16_t values[] = { 0, 1, 52, 53, 54, 67, 68, 443, 5000, 49152, 65535 };

	return values[(size_t)rand() % KN_ARRAY_LEN(values)];
}

static struct kn_match any_match(void)
{
	static const char *const prefixes[] = { "10.0.0.0/8", "10.0.0.1",      "192.168.0.0/16",
						"0.0.0.0/0",  "2001:db8::/64", "2001:db8::2",
						"::/0",	      "224.0.0.0/4" };
	static const int vlans[] = { KN_VLAN_ANY, KN_VLAN_TAGGED, KN_VLAN_UNTAGGED, 42, 7 };
	struct kn_match m = KN_MATCH_ANY;

	if (rand() % 2)
		(void)!kn_parse_prefix(kn_view_of(prefixes[rand() % 8]), &m.src, NULL);
	if (rand() % 3 == 0)
		(void)!kn_parse_prefix(kn_view_of(prefixes[rand() % 8]), &m.dst, NULL);
	m.has_src_port = rand() % 5 == 0;
	m.src_port = (struct kn_range){ small(), small() };
	m.has_dst_port = rand() % 3 == 0;
	m.dst_port = (struct kn_range){ small(), small() };
	m.has_icmp_type = rand() % 8 == 0;
	m.icmp_type = (struct kn_range){ 0, (uint16_t)(rand() % 256) };
	m.has_proto = rand() % 3 == 0;
	m.proto = (uint8_t)(rand() % 2 ? 6 : 17);
	m.fragment = rand() % 5 ? -1 : rand() % 2;
	m.vlan = rand() % 4 ? KN_VLAN_ANY : vlans[rand() % 5];
	m.family = rand() % 6 ? 0 : (uint32_t)KN_META_IPV4 << rand() % 4;
	if (!m.has_src_port)
		m.src_port = KN_RANGE_ANY;
	if (!m.has_dst_port)
		m.dst_port = KN_RANGE_ANY;
	if (!m.has_icmp_type)
		m.icmp_type = KN_RANGE_ANY;
	return m;
}

/* Random lists of rules; every frame must be decided by the rule that plain words say. */
static void engines_agree_with_plain_words(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	size_t lists = 0;

	(void)state;
	srand(4);
	for (int round = 0; round < 4000; round++) {
		struct kn_rule rules[40];
		uint32_t n = 0, wanted = (uint32_t)rand() % 40;
		while (n < wanted) {
			kn_auto(kn_acl_free) struct kn_acl *one = NULL;
			rules[n] = (struct kn_rule){ "rule", any_match(),
						     rand() % 2 ? KN_PASS : KN_DROP };
			n += kn_acl_new(&rules[n], 1, KN_DROP, &one, NULL) == 0;
		}
		kn_auto(kn_acl_free) struct kn_acl *acl = NULL;
		enum kn_action fallback = rand() % 2 ? KN_PASS : KN_DROP;
		assert_int_equal(kn_acl_new(rules, n, fallback, &acl, NULL), 0);
		if (kn_acl_use_engine(engines[round % 3], NULL) < 0)
			continue;
		load(&b, drops);
		kn_acl_run(acl, &b);
		uint64_t counts[41] = { 0 };
		for (uint32_t lane = 0; lane < b.n; lane++) {
			uint32_t i = 0;
			while (i < n && !kn_match_lane(&rules[i].match, &b, lane))
				i++;
			counts[i]++;
			bool passes = (i < n ? rules[i].action : fallback) == KN_PASS;
			assert_int_equal(b.live >> lane & 1, passes);
		}
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(kn_acl_count(acl, i), counts[i]);
		assert_int_equal(kn_acl_count(acl, KN_ACL_NO_RULE), counts[n]);
		lists++;
	}
	assert_true(lists > 1000);
}

static void rules_that_cannot_match_are_refused(void **state)
{
	struct kn_match families = src("10.0.0.0/8"), ports = dst_port(1, 2), vlan = KN_MATCH_ANY;
	struct kn_match both = dst_port(1, 2), arp = KN_MATCH_ANY;
	struct kn_acl *acl = NULL;

	(void)state;
	(void)!kn_parse_prefix(KN_VIEW("::/0"), &families.dst, NULL);
	ports.has_proto = true;
	ports.proto = 1;
	vlan.vlan = 4096;
	both.has_icmp_type = true;
	arp.family = KN_META_ARP;
	arp.has_proto = true;
	const struct {
		struct kn_match match;
		const char *says;
	} cases[] = { { families, "two address families" },
		      { ports, "ports are TCP's" },
		      { both, "ports are TCP's" },
		      { arp, "never match" },
		      { vlan, "0 to 4095" } };
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		const struct kn_rule rule = { "odd one", cases[i].match, KN_PASS };
		struct kn_err err = KN_ERR_INIT;
		int r = kn_acl_new(&rule, 1, KN_DROP, &acl, &err);
		assert_fails(r, EINVAL, &err, cases[i].says);
		assert_non_null(strstr(err.text, "odd one"));
		assert_null(acl);
	}
}

static void names_and_lists_have_bounds(void **state)
{
	char name[KN_RULE_NAME_MAX + 2];
	struct kn_rule rule = { name, KN_MATCH_ANY, KN_PASS };
	kn_auto(kn_acl_free) struct kn_acl *acl = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	memset(name, 'x', sizeof(name));
	name[KN_RULE_NAME_MAX + 1] = 0;
	assert_fails(kn_acl_new(&rule, 1, KN_DROP, &acl, &err), EINVAL, &err, "characters");
	assert_fails(kn_acl_new(&rule, KN_ACL_RULES_MAX + 1, KN_DROP, &acl, &err), EINVAL, &err,
		     "at most");
	assert_fails(kn_acl_use_engine("mmx", &err), EINVAL, &err, "mmx");
	name[KN_RULE_NAME_MAX] = 0;
	assert_ok(kn_acl_new(&rule, 1, KN_DROP, &acl, &err), &err);
	assert_string_equal(kn_acl_name(acl, 0), name);
}

static void prefixes_are_read_strictly(void **state)
{
	const char *const wrong[] = { "",
				      "10",
				      "10.0.0.0/33",
				      "10.0.0.0/",
				      "10.0.0.0/8/8",
				      "::1/129",
				      "10.0.0.1/8",
				      "fe80::1/10",
				      "localhost",
				      "10.0.0.0/-1",
				      "1.2.3.4 ",
				      "::ffff:1.2.3.4.5" };
	struct kn_prefix p;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(wrong); i++) {
		struct kn_err err = KN_ERR_INIT;
		assert_fails(kn_parse_prefix(kn_view_of(wrong[i]), &p, &err), EINVAL, &err,
			     wrong[i]);
	}
	assert_int_equal(kn_parse_prefix(KN_VIEW("10.128.0.0/9"), &p, NULL), 0);
	assert_int_equal(p.family, 4);
	assert_int_equal(p.bits, 9);
	assert_int_equal(p.addr[1], 128);
	assert_int_equal(kn_parse_prefix(KN_VIEW("2001:db8::/33"), &p, NULL), 0);
	assert_int_equal(p.bits, 33);
	assert_int_equal(kn_parse_prefix(KN_VIEW("any"), &p, NULL), 0);
	assert_int_equal(p.family, 0);
}

static void ranges_and_protocols_are_read_strictly(void **state)
{
	const char *const wrong[] = {
		"", "-", "5-", "-5", "65536", "9-8", "1-2-3", "0x10", "http"
	};
	struct kn_range r;
	uint8_t proto;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(wrong); i++) {
		struct kn_err err = KN_ERR_INIT;
		assert_fails(kn_parse_range(kn_view_of(wrong[i]), 65535, &r, &err), EINVAL, &err,
			     wrong[i]);
	}
	assert_int_equal(kn_parse_range(KN_VIEW("1024-2047"), 65535, &r, NULL), 0);
	assert_int_equal(r.low, 1024);
	assert_int_equal(r.high, 2047);
	assert_int_equal(kn_parse_range(KN_VIEW("53"), 65535, &r, NULL), 0);
	assert_int_equal(r.high, 53);
	assert_int_equal(kn_parse_range(KN_VIEW("256"), 255, &r, NULL), -EINVAL);
	assert_int_equal(kn_parse_proto(KN_VIEW("sctp"), &proto, NULL), 0);
	assert_int_equal(proto, 132);
	assert_int_equal(kn_parse_proto(KN_VIEW("17"), &proto, NULL), 0);
	assert_int_equal(proto, 17);
	assert_int_equal(kn_parse_proto(KN_VIEW("256"), &proto, NULL), -EINVAL);
	assert_int_equal(kn_parse_proto(KN_VIEW("TCP"), &proto, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_test_takes_its_frames),
		cmocka_unit_test(the_first_rule_that_matches_decides),
		cmocka_unit_test(engines_agree_with_plain_words),
		cmocka_unit_test(rules_that_cannot_match_are_refused),
		cmocka_unit_test(names_and_lists_have_bounds),
		cmocka_unit_test(prefixes_are_read_strictly),
		cmocka_unit_test(ranges_and_protocols_are_read_strictly),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
