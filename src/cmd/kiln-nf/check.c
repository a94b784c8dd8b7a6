#include <stdio.h>

#include "cmd/kiln-nf/nf.h"
#include "packet/chain.h"

#define NAME "kiln-nf check"

static int check(const char *path, bool quiet)
{
	const struct kn_chain_config config = { .path = path, .dry = true };
	kn_auto(kn_chain_free) struct kn_chain *chain = NULL;
	struct kn_err err = KN_ERR_INIT;

	if (kn_chain_load(&config, &chain, &err) < 0)
		return kn_nf_failed(NAME, &err);
	if (quiet)
		return 0;
	printf("%s: ok, %zu stages, %u rules\n", path, kn_chain_stages(chain),
	       kn_chain_rules(chain));
	return kn_nf_printed(NAME);
}

int kn_nf_check(int argc, char **argv)
{
	bool quiet = false;
	const struct kn_arg args[] = {
		{ "quiet", 'q', KN_ARG_FLAG, &quiet, NULL, NULL, "say nothing when it is right" },
	};
	const struct kn_command cmd = {
		.name = NAME,
		.summary = "Say whether a chain's file is right, without opening its ports.",
		.usage = "[OPTION]... FILE.yaml",
		.more = "Checks everything that can be known from the file alone: keys, rules that\n"
			"could never match, the order of stages. What is wrong is told with its line.\n"
			"\n"
			"Example:\n"
			"  kiln-nf check examples/firewall/firewall.yaml\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.min_operands = 1,
		.max_operands = 1,
	};
	const char **operands;
	size_t n;

	int code = kn_nf_parse(&cmd, argc, argv, &operands, &n);
	return code == KN_NF_GO ? check(operands[0], quiet) : code;
}
