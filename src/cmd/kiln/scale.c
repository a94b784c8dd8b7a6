#include <errno.h>
#include <stdio.h>

#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"

static int scale(struct kn_node *node, const char *name, uint64_t n, json_t **ret,
		 struct kn_err *err)
{
	kn_auto(json_decref) json_t *body =
		json_pack("{s:s, s:I}", "serviceName", name, "replicas", (json_int_t)n);
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf path = KN_BUF_INIT;

	if (!body)
		return kn_fail(err, EINVAL, "function name '%s' is not UTF-8 text", name);
	kn_json_print(&text, body, 0);
	kn_buf_printf(&path, "/system/scale-function/");
	kn_url_encode(&path, kn_view_of(name));
	if (path.failed || text.failed)
		return kn_fail(err, ENOMEM, "out of memory");
	const struct kn_node_request req = { .method = "POST",
					     .path = path.ptr,
					     .body = kn_buf_view(&text) };
	return kn_node_json(node, &req, ret, err);
}

static int run(const struct kn_command *cmd, const struct kn_node_args *args, const char *name,
	       uint64_t n)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(json_decref) json_t *status = NULL;
	struct kn_err err = KN_ERR_INIT;

	int r = kn_node_open(args, &node, &err);
	if (r == 0)
		r = scale(node, name, n, &status, &err);
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	if (args->json)
		kn_show_json(status);
	else if (n == 0)
		printf("%s sleeps until the next call.\n", name);
	else
		printf("%s keeps %llu instance%s until it idles.\n", name, (unsigned long long)n,
		       n == 1 ? "" : "s");
	return kn_cli_done(cmd);
}

int kn_verb_scale(int argc, char **argv)
{
	struct kn_node_args node = { .json = false };
	const struct kn_arg args[] = { KN_NODE_ARGS(node) };
	const struct kn_command cmd = {
		.name = "kiln scale",
		.summary = "Keep so many instances of a function, until it has idled.",
		.usage = "[OPTION]... FUNCTION N",
		.more = "Instances beyond N are stopped, busy ones after their requests. 0 stops all; "
			"the next call\nstarts one again. To keep instances for good, deploy with the "
			"label com.openfaas.scale.min.\n"
			"\n"
			"Examples:\n"
			"  kiln scale telemetry 3\n"
			"  kiln scale telemetry 0\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.max_operands = 2,
	};
	const char **operands;
	uint64_t count = 0;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	if (n != 2)
		return kn_cli_misused(&cmd, "name a function and how many instances");
	if (kn_parse_u64(kn_view_of(operands[1]), 1000, &count, NULL) < 0)
		return kn_cli_misused(&cmd, "'%s' is not a number from 0 to 1000", operands[1]);
	return run(&cmd, &node, operands[0], count);
}
