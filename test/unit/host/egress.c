#include "host/egress.h"

#include "test.h"

static int parse(const char *text, struct kn_arena *a, const struct kn_egress **ret,
                 struct kn_err *err)
{
	kn_arena_init(a);
	return kn_egress_parse(kn_view_of(text), a, ret, err);
}

static void rules_are_read(void **state)
{
	static const struct {
		const char *text, *name;
		bool below;
		uint32_t address;
		uint8_t prefix, protocols;
		uint16_t first, last;
	} cases[] = {
		{ "192.0.2.7", NULL, false, 0xc0000207, 32, KN_EGRESS_BOTH, 0, 65535 },
		{ "192.0.2.7:80", NULL, false, 0xc0000207, 32, KN_EGRESS_BOTH, 80, 80 },
		{ "192.0.2.7:80-90/udp", NULL, false, 0xc0000207, 32, KN_EGRESS_UDP, 80, 90 },
		{ "192.0.2.7/tcp", NULL, false, 0xc0000207, 32, KN_EGRESS_TCP, 0, 65535 },
		{ "10.0.0.0/8", NULL, false, 0x0a000000, 8, KN_EGRESS_BOTH, 0, 65535 },
		{ "10.0.0.0/8:443/TCP", NULL, false, 0x0a000000, 8, KN_EGRESS_TCP, 443, 443 },
		{ "0.0.0.0/0", NULL, false, 0, 0, KN_EGRESS_BOTH, 0, 65535 },
		{ "169.254.169.254:80", NULL, false, 0xa9fea9fe, 32, KN_EGRESS_BOTH, 80, 80 },
		{ "Broker.Example.", "broker.example", false, 0, 0, KN_EGRESS_BOTH, 0, 65535 },
		{ "*.example.org:443/tcp", "example.org", true, 0, 0, KN_EGRESS_TCP, 443, 443 },
		{ "nas:2049", "nas", false, 0, 0, KN_EGRESS_BOTH, 2049, 2049 },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		const struct kn_egress *e = NULL;
		struct kn_err err = KN_ERR_INIT;
		struct kn_arena a;
		assert_ok(parse(cases[i].text, &a, &e, &err), &err);
		assert_int_equal(e->n_rules, 1);
		const struct kn_egress_rule *r = e->rules;
		if (cases[i].name)
			assert_string_equal(r->name, cases[i].name);
		else
			assert_null(r->name);
		assert_int_equal(r->below, cases[i].below);
		assert_int_equal(r->address, cases[i].address);
		assert_int_equal(r->prefix, cases[i].prefix);
		assert_int_equal(r->protocols, cases[i].protocols);
		assert_int_equal(r->port_first, cases[i].first);
		assert_int_equal(r->port_last, cases[i].last);
		kn_arena_fini(&a);
	}
}

static void commas_and_blanks_separate(void **state)
{
	const struct kn_egress *e = NULL;
	struct kn_err err = KN_ERR_INIT;
	struct kn_arena a;

	(void)state;
	assert_ok(parse(" 192.0.2.1:80,\n192.0.2.2:81\t,, a.example ", &a, &e, &err), &err);
	assert_int_equal(e->n_rules, 3);
	assert_int_equal(e->rules[1].port_first, 81);
	assert_string_equal(e->rules[2].name, "a.example");
	kn_arena_fini(&a);
}

static void none_is_no_network(void **state)
{
	struct kn_egress some = { .n_rules = 1 };
	const struct kn_egress *e = &some;
	struct kn_err err = KN_ERR_INIT;
	struct kn_arena a;

	(void)state;
	assert_ok(parse(" None ", &a, &e, &err), &err);
	assert_null(e);
	kn_arena_fini(&a);
}

static void wrong_policies_are_told(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "'none' for no network" },
		{ " , ", "'none' for no network" },
		{ "none, 192.0.2.1", "stands alone" },
		{ "https://api.example.org/v1", "is a URL" },
		{ "*", "every address is 0.0.0.0/0" },
		{ "any", "every address is 0.0.0.0/0" },
		{ "*:443", "is not a host" },
		{ "a.*.example", "is not a host" },
		{ "10.0.0", "neither an IPv4 address nor a name" },
		{ "300.1.1.1", "neither an IPv4 address nor a name" },
		{ "10.0.0.5/8", "did you mean '10.0.0.0/8'" },
		{ "10.0.0.0/33", "a number from 0 to 32" },
		{ "10.0.0.0/", "a number from 0 to 32" },
		{ "a.example/tpc", "did you mean 'tcp'" },
		{ "a.example/sctp", "is not tcp or udp" },
		{ "a.example:http", "port 'http'" },
		{ "a.example:0", "port '0'" },
		{ "a.example:", "port ''" },
		{ "a.example:65536", "port '65536'" },
		{ "a.example:90-80", "not a range" },
		{ "a.example:80-", "not a range" },
		{ ":80", "neither an IPv4 address nor a name" },
		{ "localhost:80", "the function itself" },
		{ "db.LOCALHOST", "the function itself" },
		{ "127.0.0.1:80", "loopback" },
		{ "127.0.0.0/8", "loopback" },
		{ "0.0.0.0", "not an address that can be reached" },
		{ "169.254.0.0/16", "give each address that is meant" },
		{ "224.0.0.1", "multicast" },
		{ "224.0.0.0/3", "multicast" },
		{ "255.255.255.255", "multicast or reserved" },
		{ "[2001:db8::1]:80", "no IPv6" },
		{ "2001:db8::/32", "no IPv6" },
		{ "a_b.example", "is not a host" },
		{ "-a.example", "is not a host" },
		{ "a..example", "is not a host" },
		{ "*.", "neither" },
		{ "b\xc3\xbc""cher.example", "is not a host" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		const struct kn_egress *e = NULL;
		struct kn_err err = KN_ERR_INIT;
		struct kn_arena a;
		int r = parse(cases[i].text, &a, &e, &err);
		assert_fails(r, EINVAL, &err, cases[i].says);
		kn_arena_fini(&a);
	}
}

static void too_much_is_refused(void **state)
{
	static char text[KN_EGRESS_MAX_TEXT + 2];
	const struct kn_egress *e = NULL;
	struct kn_err err = KN_ERR_INIT;
	struct kn_arena a;

	(void)state;
	for (size_t i = 0; i < KN_EGRESS_MAX_RULES; i++)
		memcpy(text + 2 * i, "a ", 2);
	assert_ok(parse(text, &a, &e, &err), &err);
	assert_int_equal(e->n_rules, KN_EGRESS_MAX_RULES);
	kn_arena_fini(&a);
	memcpy(text + 2 * KN_EGRESS_MAX_RULES, "a", 1);
	assert_fails(parse(text, &a, &e, &err), E2BIG, &err, "more than 64 rules");
	kn_arena_fini(&a);
	memset(text, ' ', sizeof(text) - 1);
	err = KN_ERR_INIT;
	assert_fails(parse(text, &a, &e, &err), E2BIG, &err, "8192 bytes");
	kn_arena_fini(&a);
}

static void names_are_matched(void **state)
{
	static const struct {
		const char *rule, *name;
		bool opens;
	} cases[] = {
		{ "a.example", "a.example", true },
		{ "a.example", "A.Example.", true },
		{ "a.example", "b.a.example", false },
		{ "a.example", "aa.example", false },
		{ "*.example", "a.example", true },
		{ "*.example", "b.a.example", true },
		{ "*.example", "example", false },
		{ "*.example", ".example", false },
		{ "*.example", "aexample", false },
		{ "192.0.2.1", "192.0.2.1", false },
		{ "a.example", "", false },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		const struct kn_egress *e = NULL;
		struct kn_err err = KN_ERR_INIT;
		struct kn_arena a;
		assert_ok(parse(cases[i].rule, &a, &e, &err), &err);
		if (kn_egress_names(e->rules, kn_view_of(cases[i].name)) != cases[i].opens)
			fail_msg("%s and %s", cases[i].rule, cases[i].name);
		kn_arena_fini(&a);
	}
}

static void what_is_never_opened(void **state)
{
	static const struct {
		uint32_t address;
		bool never;
	} cases[] = {
		{ 0x00000001, true },  { 0x01000000, false }, { 0x7effffff, false },
		{ 0x7f000001, true },  { 0x80000000, false }, { 0xa9fea9fe, true },
		{ 0xa9ff0000, false }, { 0xdfffffff, false }, { 0xe0000000, true },
		{ 0xffffffff, true },  { 0x0a000001, false },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++)
		assert_int_equal(kn_egress_never(cases[i].address), cases[i].never);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rules_are_read),
		cmocka_unit_test(commas_and_blanks_separate),
		cmocka_unit_test(none_is_no_network),
		cmocka_unit_test(wrong_policies_are_told),
		cmocka_unit_test(too_much_is_refused),
		cmocka_unit_test(names_are_matched),
		cmocka_unit_test(what_is_never_opened),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
