#include <errno.h>
#include <stdio.h>

#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"

static int remove_one(struct kn_node *node, const char *name, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf path = KN_BUF_INIT;

	kn_buf_adds(&path, "/kiln/v1/images?name=");
	kn_url_encode(&path, kn_view_of(name));
	if (path.failed)
		return kn_fail(err, ENOMEM, "out of memory");
	const struct kn_node_request req = { .method = "DELETE", .path = path.ptr };
	int r = kn_node_json(node, &req, NULL, err);
	return r < 0 ? kn_while(err, "image '%s'", name) : 0;
}

static int run(const struct kn_command *cmd, const struct kn_node_args *args, const char **names,
	       size_t n)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(json_decref) json_t *removed = json_array();
	struct kn_err err = KN_ERR_INIT;

	int r = kn_node_open(args, &node, &err);
	for (size_t i = 0; i < n && r == 0; i++) {
		r = remove_one(node, names[i], &err);
		if (r == 0 && !args->json)
			printf("Removed image %s.\n", names[i]);
		if (r == 0)
			json_array_append_new(removed, json_string(names[i]));
	}
	if (args->json)
		kn_show_json(removed);
	return r < 0 ? kn_cli_failed(cmd, &err) : kn_cli_done(cmd);
}

int kn_verb_image_remove(int argc, char **argv)
{
	struct kn_node_args node = { .json = false };
	const struct kn_arg args[] = { KN_NODE_ARGS(node) };
	const struct kn_command cmd = {
		.name = "kiln image remove",
		.summary = "Take images out of the node's store.",
		.usage = "[OPTION]... REF...",
		.more = "An image that a function uses stays: remove the function first.\n"
			"\n"
			"Example:\n"
			"  kiln image remove telemetry:latest\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.min_operands = 1,
		.max_operands = SIZE_MAX,
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	return r == KN_CLI_RUN ? run(&cmd, &node, operands, n) : r;
}
