#include "packet/fixture.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "packet/chain.h"

static char folder[] = "/tmp/kiln-chain.XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[64];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		static const char *const names[] = { "chain.yaml", "in.pcap", "out.pcap" };
		snprintf(command, sizeof(command), "%s/%s", folder, names[i]);
		unlink(command);
	}
	return rmdir(folder);
}

static const char *in_folder(const char *name)
{
	static char path[2][64];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", folder, name);
	return path[turn];
}

static void write_text(const char *name, const char *text)
{
	FILE *f = fopen(in_folder(name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* Two datagrams to port 53 and one TCP segment. */
static void write_capture(void)
{
	static const char *const frames[] = { ETH4 IP4("0020", "11") UDP("000c") "deadbeef",
					      ETH4 IP4("0028", "06") TCP,
					      ETH6 IP6("000c", "11") UDP("000c") "deadbeef" };
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	kn_auto(kn_port_close) struct kn_port *port = NULL;
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	struct kn_err err = KN_ERR_INIT;

	batch_init(&b, drops);
	assert_ok(kn_pool_new(&KN_POOL_DEFAULTS, &pool, &err), &err);
	assert_ok(kn_port_pcap_write(in_folder("in.pcap"), &port, &err), &err);
	b.n = kn_pool_take(pool, 3, b.frame);
	for (uint32_t i = 0; i < 3; i++) {
		uint8_t bytes[FIXTURE_MAX];
		uint32_t n = (uint32_t)bytes_of(frames[i], bytes);
		assert_true(kn_frame_fill(b.frame[i], bytes, n));
	}
	b.live = 7;
	kn_port_tx(port, &b);
	assert_ok(kn_port_flush(port, &err), &err);
}

static int load(const char *text, bool dry, struct kn_chain **ret, struct kn_err *err)
{
	const struct kn_chain_config config = { .path = in_folder("chain.yaml"), .dry = dry };

	write_text("chain.yaml", text);
	return kn_chain_load(&config, ret, err);
}

#define PORTS "ports:\n  in: pcap:in.pcap\n  out: null\n"

static const char whole[] =
	"pool: { frames: 64, frame_bytes: 512 }\n"
	"ports:\n"
	"  in: pcap:in.pcap\n"
	"  out: pcap:out.pcap\n"
	"chain:\n"
	"  - receive: in\n"
	"  - parse: { verify_checksum: false }\n"
	"  - count: everything\n"
	"  - count: { name: six, family: ipv6 }\n"
	"  - acl:\n"
	"      name: firewall\n"
	"      default: drop\n"
	"      rules:\n"
	"        - { name: web, action: drop, proto: tcp, dst_port: 443 }\n"
	"        - { name: dns, action: pass, proto: 17, dst_port: 50-60 }\n"
	"  - filter: { family: ipv4, src: 10.0.0.0/8, vlan: untagged, fragment: false }\n"
	"  - map: ttl\n"
	"  - map: mac_swap\n"
	"  - send: out\n";

static void a_file_becomes_a_running_chain(void **state)
{
	static const volatile sig_atomic_t never;
	kn_auto(kn_chain_free) struct kn_chain *chain = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	write_capture();
	assert_ok(load(whole, false, &chain, &err), &err);
	assert_int_equal(kn_chain_stages(chain), 9);
	assert_int_equal(kn_chain_rules(chain), 2);
	struct kn_pipeline *p = kn_chain_pipeline(chain, 0);
	assert_ok(kn_pipeline_run(p, &never, &err), &err);
	assert_int_equal(kn_pipeline_received(p).frames, 3);
	assert_int_equal(kn_pipeline_sent(p).frames, 1);
	assert_int_equal(kn_pipeline_drops(p, KN_DROP_ACL_RULE), 1);
	assert_int_equal(kn_pipeline_drops(p, KN_DROP_FILTER), 1);
	kn_auto(json_decref) json_t *report = kn_pipeline_report(p);
	kn_auto(kn_free) char *text = json_dumps(report, JSON_COMPACT);
	assert_non_null(strstr(text, "\"name\":\"everything\",\"frames\":3"));
	assert_non_null(strstr(text, "\"name\":\"six\",\"frames\":1"));
	assert_int_equal(access(in_folder("out.pcap"), R_OK), 0);
}

static void ports_can_be_replaced(void **state)
{
	struct kn_chain_port ports[2];
	kn_auto(kn_chain_free) struct kn_chain *chain = NULL;
	struct kn_err err = KN_ERR_INIT;
	char spec[96];

	(void)state;
	write_capture();
	write_text("chain.yaml", "ports: { in: pcap:nowhere.pcap, out: pcap:nowhere.pcap }\n"
				 "chain: [ { receive: in }, { send: out } ]\n");
	snprintf(spec, sizeof(spec), "in=pcap:%s", in_folder("in.pcap"));
	assert_ok(kn_chain_port_parse(spec, &ports[0], &err), &err);
	assert_ok(kn_chain_port_parse("out=null", &ports[1], &err), &err);
	struct kn_chain_config config = { .path = in_folder("chain.yaml"), .ports = ports, .n_ports = 2 };
	assert_ok(kn_chain_load(&config, &chain, &err), &err);

	struct kn_chain *other = NULL;
	assert_ok(kn_chain_port_parse("web=null", &ports[1], &err), &err);
	assert_fails(kn_chain_load(&config, &other, &err), EINVAL, &err, "no port 'web'");
	assert_fails(kn_chain_port_parse("in", &ports[0], &err), EINVAL, &err, "NAME=pcap:FILE");
	assert_fails(kn_chain_port_parse("=null", &ports[0], &err), EINVAL, &err, "is no port");
	assert_fails(kn_chain_port_parse("in=", &ports[0], &err), EINVAL, &err, "is no port");
}

/* An interface is whatever port the caller hands in: here a ring that gives back what was sent. */
static void chains_share_interfaces(void **state)
{
	static const char TEXT[] = "ports: { lan: interface, wan: interface }\n"
				   "chains:\n"
				   "  outbound: [ receive: lan, parse, send: wan ]\n"
				   "  inbound: [ receive: wan, parse, send: lan ]\n";
	kn_auto(kn_port_close) struct kn_port *unused = NULL;
	kn_auto(kn_chain_free) struct kn_chain *chain = NULL;
	struct kn_chain_port ports[3] = { { .name = KN_VIEW("lan") }, { .name = KN_VIEW("wan") },
					  { .name = KN_VIEW("dmz") } };
	struct kn_live live = { .fd = -1, .why = "", .binding = { .interface = "eth1" } };
	struct kn_view text = kn_view_of(TEXT);
	struct kn_chain_config config = { .path = "f.yaml", .text = &text, .ports = ports };
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_fails(kn_chain_load(&config, &chain, &err), EINVAL, &err,
		     "f.yaml:1: ports.lan: is an interface: say which");
	for (int i = 0; i < 2; i++) {
		assert_ok(kn_port_memory_new(8, &ports[i].opened, &err), &err);
		kn_port_rename(ports[i].opened, i ? "wan" : "lan");
		ports[i].opened->live = &live;
	}
	config.n_ports = 2;
	assert_ok(kn_chain_load(&config, &chain, &err), &err);
	assert_int_equal(kn_chain_lines(chain), 2);
	assert_string_equal(kn_chain_name(chain, 1), "inbound");
	assert_ptr_equal(kn_pipeline_in(kn_chain_pipeline(chain, 0)),
			 kn_pipeline_out(kn_chain_pipeline(chain, 1)));
	assert_non_null(live.pool);
	assert_true(kn_pool_frame_bytes(live.large) > 65536);
	kn_auto(json_decref) json_t *report = kn_chain_report(chain);
	assert_non_null(json_object_get(json_object_get(report, "chains"), "outbound"));
	const json_t *lan = json_object_get(json_object_get(report, "ports"), "lan");
	assert_string_equal(json_string_value(json_object_get(lan, "interface")), "eth1");

	/* A port that nothing uses stays the caller's, as all do when the load fails. */
	struct kn_chain *other = NULL;
	text = KN_VIEW("ports: { lan: null, dmz: interface }\nchain: [ receive: lan ]\n");
	ports[0].opened = NULL;
	ports[0].spec = KN_VIEW("null");
	assert_ok(kn_port_memory_new(8, &unused, &err), &err);
	ports[1] = (struct kn_chain_port){ .name = KN_VIEW("dmz"), .opened = unused };
	assert_fails(kn_chain_load(&config, &other, &err), EINVAL, &err, "no chain uses it");
}

static void a_dry_load_opens_nothing(void **state)
{
	kn_auto(kn_chain_free) struct kn_chain *chain = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(load("ports: { in: pcap:/no/such, out: pcap:/no/such/out }\n"
		       "chain: [ { receive: in }, parse, { send: out } ]\n",
		       true, &chain, &err),
		  &err);
	assert_int_equal(kn_chain_stages(chain), 3);
}

#define RULE(fields)                                                                               \
	PORTS "chain:\n  - receive: in\n  - parse\n  - acl:\n      default: drop\n      rules:\n"  \
	      "        - { name: one, action: pass }\n        - { " fields " }\n"

static void what_is_wrong_is_told_with_its_line(void **state)
{
	static const struct {
		const char *text, *line, *says;
	} cases[] = {
		{ "", ":1: ", "the file: must be a mapping" },
		{ "ports: [\n", ":2:", "" },
		{ "port:\n  in: null\n", ":1: port: ", "unknown key; did you mean 'ports'?" },
		{ "chain: []\n", "ports: ", "at least one port" },
		{ PORTS, "chain: ", "must be a list of stages" },
		{ PORTS "chain: []\n", ":4: chain: ", "must be a list of stages" },
		{ PORTS "chain:\n  - recieve: in\n",
		  ":5: chain[0].recieve: ", "did you mean 'receive'?" },
		{ PORTS "chain:\n  - receive: inn\n", ":5: chain[0].receive: ", "no port 'inn'" },
		{ PORTS "chain:\n  - receive: 7\n", ":5: ", "the name of a port" },
		{ PORTS "chain:\n  - parse\n", ":5: chain[0]: ", "begins with 'receive'" },
		{ PORTS "chain:\n  - receive: in\n  - map: ttl\n",
		  ":6: chain[1].map: ", "'ttl' needs 'parse'" },
		{ PORTS "chain:\n  - receive: in\n  - parse\n  - map: nat\n",
		  ":7: ", "one of: mac_swap, ttl" },
		{ PORTS "chain:\n  - receive: in\n    parse: {}\n", ":5: chain[0]: ", "one stage" },
		{ PORTS "chain:\n  - receive: in\n  - receive: in\n",
		  ":6: ", "receives from one port" },
		{ PORTS "chain:\n  - receive: in\n  - send: out\n  - send: out\n",
		  ":7: ", "sends to one port" },
		{ PORTS "chain:\n  - receive: in\n  - parse: { verify: true }\n",
		  ":6: chain[1].parse.verify: ", "unknown key; there are: verify_checksum" },
		{ PORTS "chain:\n  - receive: in\n  - parse: { verify_checksum: 1 }\n",
		  ":6: ", "true or false" },
		{ "ports:\n  in: tap:eth0\nchain:\n  - receive: in\n",
		  ":2: ports.in: ", "'tap:eth0' is no port" },
		{ "ports:\n  in: 7\nchain:\n  - receive: in\n",
		  ":2: ports.in: ", "pcap:FILE, null or interface" },
		{ PORTS "chains: []\n", ":4: chains: ", "a mapping from names" },
		{ PORTS "chains: { a: [] }\n", ":4: chains.a: ", "a list of stages" },
		{ PORTS "chain: [ receive: in ]\nchains: { a: [ receive: in ] }\n",
		  ":5: chains: ", "not both" },
		{ PORTS "chains:\n  a: [ receive: in ]\n  b:\n    - receive: in\n",
		  ":7: chains.b[0].receive: ", "another chain receives from port 'in'" },
		{ PORTS "chains:\n  a: [ receive: in, send: out ]\n  b:\n    - receive: out\n",
		  ":7: chains.b[0].receive: ", "one way only" },
		{ "pool: { frames: 31 }\n" PORTS "chain:\n  - receive: in\n",
		  ":1: pool.frames: ", "from 32 to" },
		{ "pool: { size: 31 }\n" PORTS "chain:\n  - receive: in\n",
		  ":1: pool.size: ", "unknown key" },
		{ RULE("name: two, acton: drop"),
		  ":11: chain[2].acl.rules[1].acton: ", "did you mean 'action'?" },
		{ RULE("action: drop"), ":11: ", "needs a name" },
		{ RULE("name: two"), "action: ", "one of: pass, drop" },
		{ RULE("name: two, action: reject"),
		  ":11: chain[2].acl.rules[1].action: ", "one of: pass, drop" },
		{ RULE("name: one, action: drop"),
		  ":11: chain[2].acl.rules[1]: ", "'one' already" },
		{ RULE("name: two, action: drop, src: 10.0.0.1/8"),
		  ":11: chain[2].acl.rules[1].src: ", "bits set behind" },
		{ RULE("name: two, action: drop, dst_port: 70000"), "dst_port: ", "up to 65535" },
		{ RULE("name: two, action: drop, dst_port: [1]"),
		  "dst_port: ", "text or a whole number" },
		{ RULE("name: two, action: drop, proto: tpc"), "proto: ", "'tpc' is no protocol" },
		{ RULE("name: two, action: drop, vlan: 4096"), "vlan: ", "from 0 to 4095" },
		{ RULE("name: two, action: drop, vlan: yes please"), "vlan: ", "tagged" },
		{ RULE("name: two, action: drop, fragment: 1"), "fragment: ", "true or false" },
		{ RULE("name: two, action: drop, family: ip"),
		  "family: ", "ipv4, ipv6, arp, other" },
		{ RULE("name: two, action: drop, proto: icmp, dst_port: 1"),
		  ":11: chain[2].acl.rules[1]: ", "can never match" },
		{ PORTS "chain:\n  - receive: in\n  - parse\n  - acl: { rules: [] }\n",
		  "default: ", "one of: pass, drop" },
		{ PORTS "chain:\n  - receive: in\n  - parse\n  - acl: { default: drop }\n",
		  "rules: ", "must be a list" },
		{ PORTS "chain:\n  - receive: in\n  - parse\n  - count: { name: '' }\n",
		  ":7: ", "1 to 63 characters" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_chain *chain = NULL;
		struct kn_err err = KN_ERR_INIT;
		int r = load(cases[i].text, true, &chain, &err);
		if (r != -EINVAL || !strstr(err.text, cases[i].line) ||
		    !strstr(err.text, cases[i].says) || !strstr(err.text, "chain.yaml:"))
			fail_msg("case %zu: %d '%s', expected '%s' and '%s'", i, r, err.text,
				 cases[i].line, cases[i].says);
		assert_null(chain);
	}
}

static void a_wrong_file_opens_no_port(void **state)
{
	struct kn_chain *chain = NULL;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	write_capture();
	write_text("out.pcap", "precious");
	int r = load("ports: { in: pcap:in.pcap, out: pcap:out.pcap }\n"
		     "chain: [ { receive: in }, { send: out }, { map: nat } ]\n",
		     false, &chain, &err);
	assert_fails(r, EINVAL, &err, "chain[2].map");
	FILE *f = fopen(in_folder("out.pcap"), "r");
	char text[16] = "";
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	assert_string_equal(text, "precious");
	fclose(f);
}

static void files_that_cannot_be_opened_are_told(void **state)
{
	struct kn_chain *chain = NULL;
	struct kn_err err = KN_ERR_INIT;
	const struct kn_chain_config none = { .path = "/no/such.yaml" };

	(void)state;
	assert_fails(kn_chain_load(&none, &chain, &err), ENOENT, &err, "/no/such.yaml");
	int r = load("ports: { in: pcap:missing.pcap }\nchain: [ { receive: in } ]\n", false,
		     &chain, &err);
	assert_fails(r, ENOENT, &err, "chain.yaml:1: ports.in: open capture '/tmp/kiln-chain");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_becomes_a_running_chain),
		cmocka_unit_test(ports_can_be_replaced),
		cmocka_unit_test(chains_share_interfaces),
		cmocka_unit_test(a_dry_load_opens_nothing),
		cmocka_unit_test(what_is_wrong_is_told_with_its_line),
		cmocka_unit_test(a_wrong_file_opens_no_port),
		cmocka_unit_test(files_that_cannot_be_opened_are_told),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
