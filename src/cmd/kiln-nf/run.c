#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/kiln-nf/nf.h"
#include "packet/chain.h"

#define NAME "kiln-nf run"

struct options {
	bool json;
	const char *verdicts;
	uint64_t uid, control;
	bool keep_root;
	struct kn_arg_list ports;
};

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	stop = number;
}

static void catch_signals(void)
{
	const struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* Where each frame's fate is written. */
struct verdicts {
	FILE *file;
	unsigned long long number;
};

static void write_verdicts(void *context, const struct kn_batch *b)
{
	struct verdicts *v = context;

	for (uint32_t i = 0; i < b->n; i++) {
		enum kn_reason why = (enum kn_reason)b->why[i];
		fprintf(v->file, "%llu\t%s\t%s\n", ++v->number,
			why == KN_REASON_NONE ? "sent" : kn_reason_name(why),
			b->rule[i] ? b->rule[i] : "-");
	}
}

static int close_verdicts(struct verdicts *v, const char *path, struct kn_err *err)
{
	if (!v->file)
		return 0;
	bool failed = ferror(v->file);
	if (fclose(v->file) != 0 || failed)
		return kn_fail(err, errno, "write '%s': %s", path, strerror(errno));
	return 0;
}

/* One after the other: each ends with its capture. */
static int run_lines(struct kn_chain *chain, struct kn_err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < kn_chain_lines(chain); i++)
		r = kn_pipeline_run(kn_chain_pipeline(chain, i), &stop, err);
	return r;
}

static int run_chain(const struct options *o, struct kn_chain *chain, struct kn_err *err)
{
	struct verdicts v = { .file = NULL };

	if (o->verdicts) {
		v.file = fopen(o->verdicts, "we");
		if (!v.file)
			return kn_fail(err, errno, "open '%s': %s", o->verdicts, strerror(errno));
		for (size_t i = 0; i < kn_chain_lines(chain); i++)
			kn_pipeline_observe(kn_chain_pipeline(chain, i), write_verdicts, &v);
	}
	int r = run_lines(chain, err);
	int c = close_verdicts(&v, o->verdicts, r < 0 ? NULL : err);
	return r < 0 ? r : c;
}

static int show(const struct options *o, struct kn_chain *chain, struct kn_err *err)
{
	kn_auto(json_decref) json_t *report = kn_chain_report(chain);

	if (!report)
		return kn_fail(err, ENOMEM, "no memory for the report");
	if (!o->json)
		kn_nf_print_report(report);
	else if (json_dumpf(report, stdout, JSON_INDENT(2)) < 0 || putchar('\n') == EOF)
		return kn_fail(err, EIO, "standard output cannot be written");
	return 0;
}

static int read_ports(const struct options *o, struct kn_chain_port *ports, struct kn_err *err)
{
	for (size_t i = 0; i < o->ports.n; i++) {
		int r = kn_chain_port_parse(o->ports.at[i], &ports[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int run(const struct options *o, const char *path)
{
	kn_auto(kn_chain_free) struct kn_chain *chain = NULL;
	kn_auto(kn_free) struct kn_chain_port *ports = calloc(o->ports.n + 1, sizeof(*ports));
	struct kn_err err = KN_ERR_INIT, shown = KN_ERR_INIT;

	if (!ports)
		return 1;
	if (read_ports(o, ports, &err) < 0) {
		kn_nf_failed(NAME, &err);
		return 2;
	}
	struct kn_chain_config config = { .path = path, .ports = ports, .n_ports = o->ports.n };
	if (kn_chain_load(&config, &chain, &err) < 0)
		return kn_nf_failed(NAME, &err);
	catch_signals();
	/* Also after a failure: what was counted until then is worth seeing. */
	int r = run_chain(o, chain, &err);
	if (show(o, chain, &shown) < 0)
		return kn_nf_failed(NAME, &shown);
	if (r < 0)
		return kn_nf_failed(NAME, &err);
	return kn_nf_printed(NAME);
}

int kn_nf_run(int argc, char **argv)
{
	struct options o = { .json = false, .uid = 65534 };
	const struct kn_arg args[] = {
		{ "json", 0, KN_ARG_FLAG, &o.json, NULL, NULL, "show the counters as JSON" },
		{ "port", 'p', KN_ARG_LIST, &o.ports, "NAME=SPEC", NULL,
		  "let port NAME be SPEC this time: pcap:FILE, null, or an interface" },
		{ "verdicts", 0, KN_ARG_STR, &o.verdicts, "FILE", NULL,
		  "write a line per frame: its number, sent or the reason, the rule; captures only" },
		{ "uid", 0, KN_ARG_U64, &o.uid, "UID", NULL,
		  "user to become once the interfaces are open; 65534 by default" },
		{ "no-jail", 0, KN_ARG_FLAG, &o.keep_root, NULL, NULL,
		  "keep root's rights: for a chain with interfaces that also writes captures" },
		{ "control", 0, KN_ARG_U64, &o.control, "FD", NULL,
		  "descriptor of the socket to the supervisor; kilnd gives it" },
	};
	const struct kn_command cmd = {
		.name = NAME,
		.summary = "Run a chain until its input ends, then show what it counted.",
		.usage = "[OPTION]... FILE.yaml",
		.more = "The file names ports, and the chain of stages that frames go through:\n"
			"\n"
			"  ports:\n"
			"    in: pcap:traffic.pcap\n"
			"    out: pcap:passed.pcap\n"
			"  chain:\n"
			"    - receive: in\n"
			"    - parse\n"
			"    - acl:\n"
			"        default: drop\n"
			"        rules:\n"
			"          - { name: dns, action: pass, proto: udp, dst_port: 53 }\n"
			"    - send: out\n"
			"\n"
			"Every frame that was received is either sent or counted under the reason why\n"
			"not. Reading a capture needs no root. SIGINT and SIGTERM stop the run after\n"
			"the batch at hand; counters are shown all the same. doc/packets.md has every\n"
			"key.\n"
			"\n"
			"Ports that the file calls 'interface' are bound with --port NAME=INTERFACE,\n"
			"or NAME=af_packet:INTERFACE, NAME=af_xdp:INTERFACE; @/run/netns/NAME behind it\n"
			"takes the interface in that network namespace. That needs root, which is given\n"
			"up before the first frame is read. Such a chain runs until it is stopped.\n"
			"\n"
			"Examples:\n"
			"  kiln-nf run examples/firewall/firewall.yaml\n"
			"  kiln-nf run --json -p in=pcap:other.pcap firewall.yaml | jq .dropped\n"
			"  kiln-nf run -p lan=eth1 -p wan=eth2 examples/firewall/live.yaml\n"
			"  tcpdump -i eth0 -w - | kiln-nf run -p in=pcap:- firewall.yaml\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.min_operands = 1,
		.max_operands = 1,
	};
	const char **operands;
	size_t n;

	int code = kn_nf_parse(&cmd, argc, argv, &operands, &n);
	if (code == KN_NF_GO && kn_nf_is_live(&o.ports))
		code = kn_nf_live(&(struct kn_nf_live){ .name = NAME,
							.path = operands[0],
							.ports = &o.ports,
							.uid = o.uid,
							.keep_root = o.keep_root,
							.control = o.control ? (int)o.control : -1,
							.json = o.json });
	else if (code == KN_NF_GO)
		code = run(&o, operands[0]);
	kn_free(o.ports.at);
	return code;
}
