/*
 * kiln secret create|update|list|remove. A value comes from a file or from standard input: on a
 * command line it would be seen by everybody who can list processes, and kept in a shell's history.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"

enum { MAX_VALUE = 64 * 1024 };   /* the node's own limit; see faas/secret.h */

/* ---- the value ------------------------------------------------------------------------------- */

static int read_all(int fd, const char *what, struct kn_buf *ret, struct kn_err *err)
{
	char part[4096];
	ssize_t n;

	while ((n = read(fd, part, sizeof(part))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kn_fail(err, errno, "read %s: %s", what, strerror(errno));
		kn_buf_add(ret, part, (size_t)n);
		explicit_bzero(part, (size_t)n);
		if (ret->len > MAX_VALUE)
			return kn_fail(err, EFBIG, "%s: a secret has at most %d bytes", what, MAX_VALUE);
	}
	return ret->failed ? kn_fail(err, ENOMEM, "out of memory") : 0;
}

static int read_value(const char *file, bool keep_newline, struct kn_buf *ret, struct kn_err *err)
{
	int r;

	if (file) {
		kn_auto(kn_close) int fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return kn_fail(err, errno, "open '%s': %s", file, strerror(errno));
		r = read_all(fd, file, ret, err);
	} else {
		if (isatty(STDIN_FILENO))
			fprintf(stderr, "Type the value, and end with Ctrl-D:\n");
		r = read_all(STDIN_FILENO, "standard input", ret, err);
	}
	if (r == 0 && !keep_newline && ret->len > 0 && ret->ptr[ret->len - 1] == '\n')
		ret->len--;
	return r;
}

/* ---- requests -------------------------------------------------------------------------------- */

static int send_body(const struct kn_node_args *args, const char *method, json_t *body,
		     struct kn_err *err)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_node_reply reply = KN_NODE_REPLY_INIT;

	if (!body)
		return kn_fail(err, EINVAL, "the name is not UTF-8 text");
	kn_json_print(&text, body, 0);
	const struct kn_node_request req = { .method = method,
					     .path = "/system/secrets",
					     .body = kn_buf_view(&text) };
	int r = kn_node_open(args, &node, err);
	if (r == 0)
		r = kn_node_send(node, &req, &reply, err);
	if (r == 0)
		r = kn_node_check(node, &reply, err);
	kn_node_reply_fini(&reply);
	if (text.ptr)
		explicit_bzero(text.ptr, text.len);
	return r;
}

/* base64 carries what is no text, and is right for what is. */
static int put(const struct kn_node_args *args, const char *method, const char *name,
	       const struct kn_buf *value, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf raw = KN_BUF_INIT;

	kn_base64(&raw, value->ptr, value->len);
	if (raw.failed)
		return kn_fail(err, ENOMEM, "out of memory");
	kn_auto(json_decref) json_t *body =
		value->len ? json_pack("{s:s, s:s}", "name", name, "rawValue", raw.ptr)
			   : json_pack("{s:s, s:s}", "name", name, "value", "");
	int r = send_body(args, method, body, err);
	if (raw.ptr)
		explicit_bzero(raw.ptr, raw.len);
	return r;
}

static int done(const struct kn_command *cmd, const struct kn_node_args *args, const char *name,
		const char *what)
{
	kn_auto(json_decref) json_t *o = args->json ? json_pack("{s:s}", "name", name) : NULL;

	if (args->json)
		kn_show_json(o);
	else
		printf("%s secret %s.\n", what, name);
	return kn_cli_done(cmd);
}

/* ---- create, update -------------------------------------------------------------------------- */

struct setting {
	struct kn_node_args node;
	const char *file;
	bool keep_newline;
};

#define SETTING_ARGS(s)                                                                            \
	{ "from-file", 'f', KN_ARG_STR, &(s).file, "FILE", NULL,                                   \
	  "take the value from a file (default: standard input)" },                                \
		{ "keep-newline", 0, KN_ARG_FLAG, &(s).keep_newline, NULL, NULL,                   \
		  "a newline at the value's end belongs to it (default: one is left out)" },       \
		KN_NODE_ARGS((s).node)

static int set(const struct kn_command *cmd, struct setting *s, int argc, char **argv,
	       const char *method, const char *what)
{
	kn_auto(kn_buf_fini) struct kn_buf value = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	const char **operands;
	size_t n;

	int r = kn_cli_parse(cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	if (n != 1)
		return kn_cli_misused(cmd, "name one secret; its value comes from a file or from "
					   "standard input, not from the command line");
	r = read_value(s->file, s->keep_newline, &value, &err);
	if (r == 0)
		r = put(&s->node, method, operands[0], &value, &err);
	if (value.ptr)
		explicit_bzero(value.ptr, value.len);
	return r < 0 ? kn_cli_failed(cmd, &err) : done(cmd, &s->node, operands[0], what);
}

int kn_verb_secret_create(int argc, char **argv)
{
	struct setting s = { .file = NULL };
	const struct kn_arg args[] = { SETTING_ARGS(s) };
	const struct kn_command cmd = {
		.name = "kiln secret create",
		.summary = "Keep a secret on the node, for functions that name it.",
		.usage = "[OPTION]... NAME",
		.more = "A function that lists NAME under 'secrets' finds the value in the file\n"
			"/var/openfaas/secrets/NAME. The node never gives it out again.\n"
			"\n"
			"Examples:\n"
			"  kiln secret create api-key --from-file key.txt\n"
			"  openssl rand -hex 32 | kiln secret create session\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.max_operands = SIZE_MAX,
	};

	return set(&cmd, &s, argc, argv, "POST", "Created");
}

int kn_verb_secret_update(int argc, char **argv)
{
	struct setting s = { .file = NULL };
	const struct kn_arg args[] = { SETTING_ARGS(s) };
	const struct kn_command cmd = {
		.name = "kiln secret update",
		.summary = "Change a secret; the functions that name it get new instances.",
		.usage = "[OPTION]... NAME",
		.more = "As after a deploy, the old instances serve until a new one is ready.\n"
			"\n"
			"Example:\n"
			"  kiln secret update api-key --from-file new-key.txt\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.max_operands = SIZE_MAX,
	};

	return set(&cmd, &s, argc, argv, "PUT", "Updated");
}

/* ---- list, remove ---------------------------------------------------------------------------- */

static int list(const struct kn_command *cmd, const struct kn_node_args *args)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(json_decref) json_t *reply = NULL;
	const struct kn_node_request req = { .path = "/system/secrets" };
	struct kn_err err = KN_ERR_INIT;
	json_t *one;
	size_t i;

	int r = kn_node_open(args, &node, &err);
	if (r == 0)
		r = kn_node_json(node, &req, &reply, &err);
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	if (args->json) {
		kn_show_json(reply);
		return kn_cli_done(cmd);
	}
	json_array_foreach (reply, i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		kn_show_text(stdout, kn_view_of(name ? name : ""));
		putchar('\n');
	}
	return kn_cli_done(cmd);
}

int kn_verb_secret_list(int argc, char **argv)
{
	struct kn_node_args node = { .json = false };
	const struct kn_arg args[] = { KN_NODE_ARGS(node) };
	const struct kn_command cmd = {
		.name = "kiln secret list",
		.summary = "List the names of the node's secrets, one a line.",
		.usage = "[OPTION]...",
		.more = "Values never come out of the node.\n"
			"\n"
			"Example:\n"
			"  kiln secret list\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	return r == KN_CLI_RUN ? list(&cmd, &node) : r;
}

int kn_verb_secret_remove(int argc, char **argv)
{
	struct kn_node_args node = { .json = false };
	const struct kn_arg args[] = { KN_NODE_ARGS(node) };
	const struct kn_command cmd = {
		.name = "kiln secret remove",
		.summary = "Remove a secret that no function names any more.",
		.usage = "[OPTION]... NAME",
		.more = "Example:\n"
			"  kiln secret remove api-key\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.max_operands = SIZE_MAX,
	};
	struct kn_err err = KN_ERR_INIT;
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	if (n != 1)
		return kn_cli_misused(&cmd, "name one secret");
	kn_auto(json_decref) json_t *body = json_pack("{s:s}", "name", operands[0]);
	if (send_body(&node, "DELETE", body, &err) < 0)
		return kn_cli_failed(&cmd, &err);
	return done(&cmd, &node, operands[0], "Removed");
}
