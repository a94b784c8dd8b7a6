#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"
#include "oci/remote.h"

enum { MAX_AUTH_FILE = 1 << 20 };

struct push {
	struct kn_node_args node;
	const char *path, *reference, *creds, *auth_file;
	bool plain_http;

	struct kn_node *to_node;       /* the registry is a node's own */
	struct kn_ref ref;
	struct kn_view host, repository;
	struct kn_archive_image image;
	struct kn_arena arena;
	struct kn_meter meter;
};

static bool step(const char *phase, uint64_t bytes, uint64_t total, void *arg)
{
	struct push *p = arg;

	p->meter.what = phase;
	kn_meter_step(&p->meter, bytes, total);
	return true;
}

/* ---- where to ---------------------------------------------------------------------------------- */

/* "http://host:port" to "host:port". */
static struct kn_view host_of(const char *gateway)
{
	const char *scheme = strstr(gateway, "://");
	struct kn_view v = kn_view_of(scheme ? scheme + 3 : gateway);
	const char *slash = v.len ? memchr(v.ptr, '/', v.len) : NULL;

	v.len = slash ? (size_t)(slash - v.ptr) : v.len;
	return v;
}

/* A reference without a registry means the node; a call to it renews a token that has expired. */
static int find_registry(struct push *p, struct kn_err *err)
{
	const char *text = p->reference ? p->reference : p->image.name;

	if (!text)
		return kn_fail(err, EINVAL, "the archive gives the image no name: say where it goes");
	int r = kn_ref_parse(kn_view_of(text), &p->ref, err);
	if (r == 0 && !p->ref.tag[0])
		r = kn_fail(err, EINVAL, "an image is pushed under a tag, not under a digest");
	if (r < 0 || kn_ref_registry(&p->ref, &p->host, &p->repository))
		return r;
	p->repository = kn_view_of(p->ref.name);
	const struct kn_node_request req = { .path = "/kiln/v1/images" };
	r = kn_node_open(&p->node, &p->to_node, err);
	if (r == 0)
		r = kn_node_json(p->to_node, &req, NULL, err);
	if (r < 0)
		return r;
	p->host = host_of(kn_node_gateway(p->to_node));
	p->plain_http = strncmp(kn_node_gateway(p->to_node), "http://", 7) == 0;
	return 0;
}

static int find_login(const struct push *p, struct kn_remote_login *ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	*ret = (struct kn_remote_login){ .user = "" };
	if (p->creds)
		return kn_remote_login_parse(kn_view_of(p->creds), ret, err);
	if (!p->auth_file || p->to_node)
		return 0;
	int r = kn_read_file(AT_FDCWD, p->auth_file, MAX_AUTH_FILE, &text, err);
	if (r == 0)
		r = kn_remote_login_find(kn_buf_view(&text), kn_view_of(p->ref.name), ret, err);
	return r < 0 ? kn_while(err, "'%s'", p->auth_file) : 0;
}

/* ---- pushing ----------------------------------------------------------------------------------- */

static int send(struct push *p, struct kn_blobs *blobs, struct kn_err *err)
{
	const struct kn_progress progress = { .step = step, .arg = p };
	kn_auto(kn_remote_close) struct kn_remote *remote = NULL;
	struct kn_remote_login login;

	int r = find_login(p, &login, err);
	if (r < 0)
		return r;
	const struct kn_remote_config config = {
		.host = p->host,
		.plain_http = p->plain_http,
		.user = login.user,
		.password = login.password,
		.token = p->to_node && !login.user[0] ? kn_node_token(p->to_node) : NULL,
		.progress = &progress,
	};
	char *repository = kn_arena_copy(&p->arena, p->repository.ptr, p->repository.len);
	if (!repository)
		return kn_fail(err, ENOMEM, "out of memory");
	r = kn_remote_open(&config, &remote, err);
	if (r == 0)
		r = kn_remote_push(remote, blobs, &p->image.manifest.digest, repository, p->ref.tag, err);
	return r;
}

/* The archive is taken apart into a folder of its own, checked as an import checks it. */
static int push_from(struct push *p, const char *dir, struct kn_err *err)
{
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;
	kn_auto(kn_blobs_close) struct kn_blobs *blobs = NULL;

	config.path = p->path;
	int r = kn_blobs_open(dir, &blobs, err);
	if (r == 0)
		r = kn_archive_read(blobs, &config, &p->arena, &p->image, err);
	if (r == 0)
		r = find_registry(p, err);
	return r < 0 ? r : send(p, blobs, err);
}

static void tell(const struct push *p)
{
	char text[KN_REF_MAX];

	kn_ref_text(&p->ref, text);
	if (p->node.json) {
		kn_auto(json_decref) json_t *o = json_pack("{s:s, s:s}", "name", text, "digest",
							   p->image.manifest.digest.text);
		kn_show_json(o);
		return;
	}
	printf("Pushed %s to %.*s: %s\n", text, (int)p->host.len, p->host.ptr,
	       p->image.manifest.digest.text);
}

static int run(const struct kn_command *cmd, struct push *p)
{
	const char *tmp = getenv("TMPDIR");
	kn_auto(kn_free) char *dir = NULL;
	struct kn_err err = KN_ERR_INIT;
	int r;

	kn_arena_init(&p->arena);
	if (asprintf(&dir, "%s/kiln-push-XXXXXX", tmp && tmp[0] ? tmp : "/tmp") < 0)
		dir = NULL;
	if (!dir || !mkdtemp(dir)) {
		r = kn_fail(&err, dir ? errno : ENOMEM, "make a folder: %s", strerror(errno));
	} else {
		r = push_from(p, dir, &err);
		(void)!kn_remove_tree(AT_FDCWD, dir, NULL);
	}
	kn_meter_end(&p->meter);
	if (r == 0)
		tell(p);
	kn_node_close(p->to_node);
	kn_arena_fini(&p->arena);
	return r < 0 ? kn_cli_failed(cmd, &err) : kn_cli_done(cmd);
}

int kn_verb_image_push(int argc, char **argv)
{
	struct push p = { .meter = { .what = "push" } };
	const struct kn_arg args[] = {
		{ "creds", 0, KN_ARG_STR, &p.creds, "USER:PASSWORD", "KILN_REGISTRY_CREDS",
		  "for the registry (default for the node: its login)" },
		{ "auth-file", 0, KN_ARG_STR, &p.auth_file, "FILE", "REGISTRY_AUTH_FILE",
		  "credentials in the format of Docker's config.json" },
		{ "plain-http", 0, KN_ARG_FLAG, &p.plain_http, NULL, NULL,
		  "the registry has no TLS (loopback addresses need not say so)" },
		KN_NODE_ARGS(p.node),
	};
	const struct kn_command cmd = {
		.name = "kiln image push",
		.summary = "Push an image, an archive or a layout folder, to the node or a registry.",
		.usage = "[OPTION]... PATH [[REGISTRY/]NAME[:TAG]]",
		.more = "Sends only what the registry does not have yet. `kiln image import` sends\n"
			"everything, and needs no registry.\n"
			"\n"
			"Examples:\n"
			"  kiln image push telemetry.tar telemetry:2\n"
			"  kiln image push app.tar registry.example:5000/team/app:1 --creds robot:secret\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.min_operands = 1,
		.max_operands = 2,
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	p.path = operands[0];
	p.reference = n > 1 ? operands[1] : NULL;
	return run(&cmd, &p);
}
