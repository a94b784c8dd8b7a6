#include <errno.h>
#include <stdio.h>

#include "base/conf.h"
#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"
#include "faas/function.h"

struct removal {
	struct kn_node_args node;
	const char *file;
	json_t *removed;
};

static int remove_one(struct removal *m, struct kn_node *node, const char *name, struct kn_err *err)
{
	kn_auto(json_decref) json_t *body = json_pack("{s:s}", "functionName", name);
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	if (!body)
		return kn_fail(err, EINVAL, "function name '%s' is not UTF-8 text", name);
	kn_json_print(&text, body, 0);
	const struct kn_node_request req = { .method = "DELETE",
					     .path = "/system/functions",
					     .body = kn_buf_view(&text) };
	int r = kn_node_json(node, &req, NULL, err);
	if (r < 0)
		return kn_while(err, "function '%s'", name);
	if (m->node.json)
		json_array_append_new(m->removed, json_string(name));
	else
		printf("Removed %s.\n", name);
	return 0;
}

static int remove_stack(struct removal *m, struct kn_node *node, struct kn_err *err)
{
	kn_auto(json_decref) json_t *yaml = NULL;
	struct kn_stack stack = { .n = 0 };

	int r = kn_yaml_load(m->file, &yaml, err);
	if (r == 0)
		r = kn_stack_parse(yaml, &stack, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < stack.n && r == 0; i++)
		r = remove_one(m, node, stack.at[i]->name, err);
	kn_stack_fini(&stack);
	return r;
}

static int run(const struct kn_command *cmd, struct removal *m, const char **names, size_t n)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	struct kn_err err = KN_ERR_INIT;
	struct kn_err first = KN_ERR_INIT;
	int failed = KN_EXIT_DONE;

	if (kn_node_open(&m->node, &node, &err) < 0)
		return kn_cli_failed(cmd, &err);
	if (m->file && remove_stack(m, node, &err) < 0)
		first = err;
	for (size_t i = 0; i < n; i++) {
		if (remove_one(m, node, names[i], &err) == 0)
			continue;
		if (first.code) /* tell each; the last one ends the verb */
			failed = kn_cli_failed(cmd, &first);
		first = err;
	}
	if (m->node.json)
		kn_show_json(m->removed);
	if (first.code)
		failed = kn_cli_failed(cmd, &first);
	return failed == KN_EXIT_DONE ? kn_cli_done(cmd) : failed;
}

int kn_verb_remove(int argc, char **argv)
{
	struct removal m = { .file = NULL };
	const struct kn_arg args[] = {
		{ "file", 'f', KN_ARG_STR, &m.file, "FILE", NULL,
		  "remove every function of this stack.yaml" },
		KN_NODE_ARGS(m.node),
	};
	const struct kn_command cmd = {
		.name = "kiln remove",
		.summary = "Remove functions: requests under way finish, then the instances end.",
		.usage = "[OPTION]... FUNCTION... | -f FILE",
		.more = "Images stay in the store: see 'kiln image remove'.\n"
			"\n"
			"Examples:\n"
			"  kiln remove telemetry checksum\n"
			"  kiln remove -f stack.yaml\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.max_operands = SIZE_MAX,
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	if (n == 0 && !m.file)
		return kn_cli_misused(&cmd, "name a function, or a stack.yaml with -f");
	m.removed = json_array();
	r = run(&cmd, &m, operands, n);
	json_decref(m.removed);
	return r;
}
