#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "cmd/kiln/config.h"
#include "cmd/kiln/node.h"

enum { CREDENTIALS_MAX = 4096, WAIT_STEP_MS = 50 };

struct login {
	struct kn_node_args node;
	const char *client_id, *credentials;
	bool secret_stdin;
	uint64_t wait_ms;
	struct kn_buf text; /* of the credentials file, or of standard input */
	char id[256], secret[256];
};

static int keep_value(struct kn_view value, char out[256], struct kn_err *err)
{
	if (value.len == 0 || value.len > 255 || memchr(value.ptr, '\0', value.len))
		return kn_fail(err, EINVAL, "a client id and a secret have 1 to 255 characters");
	memcpy(out, value.ptr, value.len);
	out[value.len] = '\0';
	return 0;
}

/* client_id=... and client_secret=..., a line each, as a node writes them. */
static int read_credentials(struct login *l, struct kn_err *err)
{
	struct kn_view rest, line, key;

	int r = kn_read_file(AT_FDCWD, l->credentials, CREDENTIALS_MAX, &l->text, err);
	rest = kn_buf_view(&l->text);
	while (r == 0 && kn_view_split(&rest, '\n', &line)) {
		line = kn_view_trim(line);
		kn_view_split(&line, '=', &key);
		if (kn_view_is(key, KN_VIEW("client_id")))
			r = keep_value(line, l->id, err);
		else if (kn_view_is(key, KN_VIEW("client_secret")))
			r = keep_value(line, l->secret, err);
	}
	if (r == 0 && (!l->id[0] || !l->secret[0]))
		r = kn_fail(err, EINVAL,
			    "'%s' has no lines client_id=... and client_secret=...: it "
			    "should be the file 'credentials' of a node's state folder",
			    l->credentials);
	return r;
}

static int read_secret(struct login *l, struct kn_err *err)
{
	char text[CREDENTIALS_MAX];

	ssize_t n = kn_read_all(STDIN_FILENO, text, sizeof(text));
	if (n < 0)
		return kn_fail(err, (int)-n, "standard input: %s", strerror((int)-n));
	int r = keep_value(kn_view_trim((struct kn_view){ text, (size_t)n }), l->secret, err);
	return r == 0 ? keep_value(kn_view_of(l->client_id), l->id, err) : r;
}

static void tell(const struct login *l, const struct kn_node *node)
{
	char path[KN_CONFIG_PATH];

	if (l->node.json) {
		printf("{\"gateway\":\"%s\"}\n", kn_node_gateway(node));
	} else if (kn_config_path(path, NULL) == 0) {
		printf("Logged in to %s; the login is kept in %s.\n", kn_node_gateway(node), path);
	}
}

static int try_login(struct login *l, struct kn_node **ret, struct kn_err *err)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	int r = 0;

	if (l->credentials) {
		kn_buf_clear(&l->text);
		r = read_credentials(l, err);
	}
	if (r == 0)
		r = kn_node_open(&l->node, &node, err);
	if (r == 0)
		r = kn_node_login(node, l->id, l->secret, err);
	if (r == 0)
		*ret = kn_take_ptr(node);
	return r;
}

/* A node that was just started has no file and no port yet. */
static bool may_come(const struct kn_err *err)
{
	return err->code == ENOENT || err->code == ECONNREFUSED;
}

static int run(const struct kn_command *cmd, struct login *l)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	const struct timespec step = { .tv_nsec = WAIT_STEP_MS * (long)KN_NS_PER_MS };
	uint64_t until_ns = kn_now_ns() + l->wait_ms * KN_NS_PER_MS;
	struct kn_err err = KN_ERR_INIT;

	int r = l->credentials ? 0 : read_secret(l, &err);
	if (r == 0)
		r = try_login(l, &node, &err);
	while (r < 0 && may_come(&err) && kn_now_ns() < until_ns) {
		nanosleep(&step, NULL);
		err = KN_ERR_INIT;
		r = try_login(l, &node, &err);
	}
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	tell(l, node);
	return kn_cli_done(cmd);
}

int kn_verb_login(int argc, char **argv)
{
	struct login l = { .text = KN_BUF_INIT };
	const struct kn_arg args[] = {
		{ "credentials", 'c', KN_ARG_STR, &l.credentials, "FILE", NULL,
		  "file with client_id=... and client_secret=... (a node writes its first one)" },
		{ "client-id", 0, KN_ARG_STR, &l.client_id, "ID", NULL, "the client's id" },
		{ "client-secret-stdin", 0, KN_ARG_FLAG, &l.secret_stdin, NULL, NULL,
		  "read the client's secret from standard input" },
		{ "wait", 'w', KN_ARG_DURATION, &l.wait_ms, "TIME", NULL,
		  "give a node that is being started TIME to come up: 10s" },
		KN_NODE_ARGS(l.node),
	};
	const struct kn_command cmd = {
		.name = "kiln login",
		.summary = "Get a token from a node, check that it works, and keep it.",
		.usage = "--credentials FILE | --client-id ID --client-secret-stdin",
		.more = "The login is kept per node in ~/.config/kiln/config.json (mode 0600; KILN_CONFIG\n"
			"names another file). Verbs use it until you log in elsewhere, and renew the token\n"
			"by themselves. The secret never appears in a command line.\n"
			"\n"
			"Examples:\n"
			"  kiln login --credentials /var/lib/kiln/credentials\n"
			"  kiln login -g http://edge-7:8080 --client-id sensors --client-secret-stdin <secret\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	if (!l.credentials == !l.client_id)
		return kn_cli_misused(&cmd, "give either --credentials FILE or --client-id ID");
	if (l.client_id && !l.secret_stdin)
		return kn_cli_misused(&cmd,
				      "--client-id needs --client-secret-stdin: the secret is "
				      "read from standard input");
	r = run(&cmd, &l);
	kn_buf_fini(&l.text);
	explicit_bzero(l.secret, sizeof(l.secret));
	return r;
}
