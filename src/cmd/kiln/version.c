#include <stdio.h>

#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"

static int ask_node(const struct kn_command *cmd, const struct kn_node_args *args)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(json_decref) json_t *info = NULL;
	const struct kn_node_request req = { .path = "/system/info" };
	struct kn_err err = KN_ERR_INIT;

	int r = kn_node_open(args, &node, &err);
	if (r == 0)
		r = kn_node_json(node, &req, &info, &err);
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	const char *release =
		json_string_value(json_object_get(json_object_get(info, "version"), "release"));
	if (args->json)
		kn_show_json(info);
	else
		printf("node %s: %s\n", kn_node_gateway(node), release ? release : "unknown");
	return kn_cli_done(cmd);
}

int kn_verb_version(int argc, char **argv)
{
	struct kn_node_args node = { .json = false };
	bool ask = false;
	const struct kn_arg args[] = {
		{ "node", 0, KN_ARG_FLAG, &ask, NULL, NULL, "the node's version instead" },
		KN_NODE_ARGS(node),
	};
	const struct kn_command cmd = {
		.name = "kiln version",
		.summary = "Print the version of this program, or of a node.",
		.usage = "[--node]",
		.more = "Example:\n"
			"  kiln version --node --gateway http://edge-7:8080\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	if (ask)
		return ask_node(&cmd, &node);
	if (node.json)
		printf("{\"version\":\"%s\"}\n", KN_VERSION);
	else
		printf("kiln %s\n", KN_VERSION);
	return kn_cli_done(&cmd);
}
