#include <stdio.h>

#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"

static const char *text(const json_t *obj, const char *key)
{
	const char *v = json_string_value(json_object_get(obj, key));

	return v ? v : "-";
}

static long long number(const json_t *obj, const char *key)
{
	return (long long)json_integer_value(json_object_get(obj, key));
}

static int show(const json_t *functions, struct kn_err *err)
{
	static const char *const heads[] = { "NAME", "CLASS", "READY", "CALLS", "COLD", "IMAGE" };
	kn_auto(kn_grid_fini) struct kn_grid grid;
	size_t i;
	json_t *fn;

	kn_grid_init(&grid, KN_ARRAY_LEN(heads));
	for (i = 0; i < KN_ARRAY_LEN(heads); i++)
		kn_grid_add(&grid, "%s", heads[i]);
	json_array_foreach (functions, i, fn) {
		const json_t *kiln = json_object_get(fn, "kiln");
		kn_grid_add(&grid, "%s", text(fn, "name"));
		kn_grid_add(&grid, "%s", text(kiln, "class"));
		kn_grid_add(&grid, "%lld", number(fn, "availableReplicas"));
		kn_grid_add(&grid, "%lld", number(fn, "invocationCount"));
		kn_grid_add(&grid, "%lld", number(json_object_get(kiln, "invocations"), "cold"));
		kn_grid_add(&grid, "%s", text(fn, "image"));
	}
	return kn_grid_print(&grid, stdout, err);
}

static int run(const struct kn_command *cmd, const struct kn_node_args *args)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(json_decref) json_t *reply = NULL;
	const struct kn_node_request req = { .path = "/system/functions" };
	struct kn_err err = KN_ERR_INIT;

	int r = kn_node_open(args, &node, &err);
	if (r == 0)
		r = kn_node_json(node, &req, &reply, &err);
	if (r == 0 && args->json)
		kn_show_json(reply);
	else if (r == 0)
		r = show(reply, &err);
	return r < 0 ? kn_cli_failed(cmd, &err) : kn_cli_done(cmd);
}

int kn_verb_list(int argc, char **argv)
{
	struct kn_node_args node = { .json = false };
	const struct kn_arg args[] = { KN_NODE_ARGS(node) };
	const struct kn_command cmd = {
		.name = "kiln list",
		.summary = "List the node's functions.",
		.usage = "[OPTION]...",
		.more = "READY counts instances that can take a request now; 0 is usual for a function that\n"
			"sleeps: its next call starts one. COLD counts calls that had to wait for a start.\n"
			"\n"
			"Example:\n"
			"  kiln list --json | jq -r '.[].name'\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	return r == KN_CLI_RUN ? run(&cmd, &node) : r;
}
