#include <errno.h>
#include <stdio.h>

#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"
#include "oci/remote.h"

struct pull {
	struct kn_node_args node;
	const char *reference, *creds;
	bool plain_http;
};

static void tell(const struct pull *p, const json_t *image)
{
	char bytes[KN_SHORT];
	json_int_t size = json_integer_value(json_object_get(image, "bytes"));
	const char *name = json_string_value(json_object_get(image, "name"));
	const char *kind = json_string_value(json_object_get(image, "kind"));
	const char *digest = json_string_value(json_object_get(image, "digest"));

	if (p->node.json) {
		kn_show_json(image);
		return;
	}
	kn_show_bytes((uint64_t)kn_max(size, 0), bytes);
	printf("Pulled %s: %s, %s, %s\n", name ? name : p->reference, kind ? kind : "image", bytes,
	       digest ? digest : "");
}

static int body_make(const struct pull *p, struct kn_buf *body, struct kn_err *err)
{
	struct kn_remote_login login = { .user = "" };

	if (p->creds) {
		int r = kn_remote_login_parse(kn_view_of(p->creds), &login, err);
		if (r < 0)
			return r;
	}
	kn_auto(json_decref) json_t *o =
		json_pack("{s:s, s:b}", "reference", p->reference, "plainHttp", p->plain_http);
	if (o && login.user[0]) {
		json_object_set_new(o, "username", json_string(login.user));
		json_object_set_new(o, "password", json_string(login.password));
	}
	if (o)
		kn_json_print(body, o, 0);
	return !o || body->failed ? kn_fail(err, ENOMEM, "out of memory") : 0;
}

static int run(const struct kn_command *cmd, const struct pull *p)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(kn_buf_fini) struct kn_buf body = KN_BUF_INIT;
	kn_auto(json_decref) json_t *image = NULL;
	struct kn_err err = KN_ERR_INIT;

	int r = body_make(p, &body, &err);
	if (r == 0)
		r = kn_node_open(&p->node, &node, &err);
	if (r == 0) {
		const struct kn_node_request req = { .method = "POST",
						     .path = "/kiln/v1/images/pull",
						     .body = kn_buf_view(&body) };
		r = kn_node_json(node, &req, &image, &err);
	}
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	tell(p, image);
	return kn_cli_done(cmd);
}

int kn_verb_image_pull(int argc, char **argv)
{
	struct pull p = { .creds = NULL };
	const struct kn_arg args[] = {
		{ "creds", 0, KN_ARG_STR, &p.creds, "USER:PASSWORD", "KILN_REGISTRY_CREDS",
		  "for the registry (default: what the node's --registry-auth has)" },
		{ "plain-http", 0, KN_ARG_FLAG, &p.plain_http, NULL, NULL,
		  "the registry has no TLS (loopback addresses need not say so)" },
		KN_NODE_ARGS(p.node),
	};
	const struct kn_command cmd = {
		.name = "kiln image pull",
		.summary = "Let the node pull an image from another registry, or pull it anew.",
		.usage = "[OPTION]... REGISTRY/NAME[:TAG]",
		.more = "`kiln deploy --image REGISTRY/NAME:TAG` pulls by itself what is not there.\n"
			"\n"
			"Example:\n"
			"  kiln image pull registry.example:5000/team/app:1 --creds robot:secret\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.min_operands = 1,
		.max_operands = 1,
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	p.reference = operands[0];
	return run(&cmd, &p);
}
