#include <stdio.h>

#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"

static const char *text(const json_t *image, const char *key)
{
	const char *v = json_string_value(json_object_get(image, key));

	return v ? v : "";
}

/* "sha256:" and 64 digits are too long for a table; 12 digits name an image. */
static int show(const json_t *images, struct kn_err *err)
{
	kn_auto(kn_grid_fini) struct kn_grid grid;
	char bytes[KN_SHORT];
	size_t i;
	json_t *image;

	kn_grid_init(&grid, 5);
	for (i = 0; i < 5; i++)
		kn_grid_add(&grid, "%s",
			    ((const char *[]){ "NAME", "KIND", "SIZE", "CREATED", "DIGEST" })[i]);
	json_array_foreach (images, i, image) {
		json_int_t size = json_integer_value(json_object_get(image, "bytes"));
		kn_show_bytes((uint64_t)kn_max(size, 0), bytes);
		kn_grid_add(&grid, "%s", text(image, "name"));
		kn_grid_add(&grid, "%s", text(image, "kind"));
		kn_grid_add(&grid, "%s", bytes);
		char age[KN_SHORT] = "";
		if (*text(image, "created"))
			kn_show_age(text(image, "created"), age);
		kn_grid_add(&grid, "%s", age);
		kn_grid_add(&grid, "%.19s", text(image, "digest"));
	}
	return kn_grid_print(&grid, stdout, err);
}

static int run(const struct kn_command *cmd, const struct kn_node_args *args)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(json_decref) json_t *reply = NULL;
	const struct kn_node_request req = { .path = "/kiln/v1/images" };
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

int kn_verb_image_list(int argc, char **argv)
{
	struct kn_node_args node = { .json = false };
	const struct kn_arg args[] = { KN_NODE_ARGS(node) };
	const struct kn_command cmd = {
		.name = "kiln image list",
		.summary = "List the images in the node's store.",
		.usage = "[OPTION]...",
		.more = "Example:\n"
			"  kiln image list --json | jq -r '.[].name'\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	return r == KN_CLI_RUN ? run(&cmd, &node) : r;
}
