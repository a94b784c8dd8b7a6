#include "test.h"

#include "packet/binding.h"

static void reads_what_a_port_is(void **state)
{
	static const struct {
		const char *text, *port, *interface, *netns;
		enum kn_port_kind kind;
	} cases[] = {
		{ "lan=eth1", "lan", "eth1", "", KN_PORT_INTERFACE },
		{ "lan=interface:eth1", "lan", "eth1", "", KN_PORT_INTERFACE },
		{ "wan=af_xdp:eth2@/run/netns/edge", "wan", "eth2", "/run/netns/edge",
		  KN_PORT_AF_XDP },
		{ "a.b-c_1=af_packet:v@1", "a.b-c_1", "v@1", "", KN_PORT_AF_PACKET },
		{ "p=v@1@/n", "p", "v@1", "/n", KN_PORT_INTERFACE },
		{ "p=v@/proc/1/ns/net", "p", "v", "/proc/1/ns/net", KN_PORT_INTERFACE },
		{ "p=123456789012345", "p", "123456789012345", "", KN_PORT_INTERFACE },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_binding b;
		struct kn_err err = KN_ERR_INIT;
		assert_ok(kn_binding_parse(kn_view_of(cases[i].text), &b, &err), &err);
		assert_string_equal(b.port, cases[i].port);
		assert_string_equal(b.interface, cases[i].interface);
		assert_string_equal(b.netns, cases[i].netns);
		assert_int_equal(b.kind, cases[i].kind);
	}
}

static void says_what_is_wrong(void **state)
{
	static const char *const cases[][2] = {
		{ "", "PORT=INTERFACE" },
		{ "lan", "PORT=INTERFACE" },
		{ "=eth0", "a port's name" },
		{ "a b=eth0", "a port's name" },
		{ "lan=", "an interface's name" },
		{ "lan=1234567890123456", "an interface's name" },
		{ "lan=eth/0", "an interface's name" },
		{ "lan=eth 0", "an interface's name" },
		{ "lan=dpdk:eth0", "no kind of port" },
		{ "lan=af_xdp:", "an interface's name" },
		{ "lan=@/n", "an interface's name" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_binding b;
		struct kn_err err = KN_ERR_INIT;
		assert_fails(kn_binding_parse(kn_view_of(cases[i][0]), &b, &err), EINVAL, &err,
			     cases[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_a_port_is),
		cmocka_unit_test(says_what_is_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
