#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"
#include "cmd/kiln/tar.h"

struct import {
	struct kn_node_args node;
	const char *path, *name;
	int fd; /* the archive; -1: the folder below */
	struct kn_tar *tar;
	uint64_t total, sent;
	struct kn_meter meter;
	struct kn_err *err;
};

static int open_source(struct import *m, struct kn_err *err)
{
	struct stat st;

	if (stat(m->path, &st) < 0)
		return kn_fail(err, errno, "'%s': %s", m->path, strerror(errno));
	if (S_ISDIR(st.st_mode)) {
		kn_auto(kn_free) char *index = NULL;
		if (asprintf(&index, "%s/index.json", m->path) < 0)
			return kn_fail(err, ENOMEM, "out of memory");
		if (access(index, R_OK) < 0)
			return kn_fail(err, EINVAL, "'%s' is no OCI layout: it has no index.json",
				       m->path);
		m->total = kn_tar_bytes(m->path);
		return kn_tar_open(m->path, &m->tar, err);
	}
	m->fd = open(m->path, O_RDONLY | O_CLOEXEC);
	if (m->fd < 0)
		return kn_fail(err, errno, "open '%s': %s", m->path, strerror(errno));
	m->total = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	return 0;
}

static ssize_t upload(void *ptr, size_t len, void *arg)
{
	struct import *m = arg;

	ssize_t n = m->tar ? kn_tar_read(m->tar, ptr, len, m->err) : read(m->fd, ptr, len);
	if (n < 0)
		return m->tar ? n
			      : kn_fail(m->err, errno, "read '%s': %s", m->path, strerror(errno));
	m->sent += (uint64_t)n;
	if (n == 0)
		m->meter.what = "unpack on the node";
	kn_meter_step(&m->meter, m->sent, m->total);
	return n;
}

static void tell(const struct import *m, const json_t *image)
{
	char bytes[KN_SHORT];
	json_int_t size = json_integer_value(json_object_get(image, "bytes"));
	const char *name = json_string_value(json_object_get(image, "name"));
	const char *kind = json_string_value(json_object_get(image, "kind"));
	const char *digest = json_string_value(json_object_get(image, "digest"));

	if (m->node.json) {
		kn_show_json(image);
		return;
	}
	kn_show_bytes((uint64_t)kn_max(size, 0), bytes);
	printf("Imported %s: %s, %s, %s\n", name ? name : m->path, kind ? kind : "image", bytes,
	       digest ? digest : "");
}

static int run(const struct kn_command *cmd, struct import *m)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(kn_buf_fini) struct kn_buf path = KN_BUF_INIT;
	kn_auto(json_decref) json_t *image = NULL;
	struct kn_err err = KN_ERR_INIT;

	m->err = &err;
	kn_buf_adds(&path, "/kiln/v1/images");
	if (m->name) {
		kn_buf_adds(&path, "?name=");
		kn_url_encode(&path, kn_view_of(m->name));
	}
	int r = path.failed ? kn_fail(&err, ENOMEM, "out of memory") : open_source(m, &err);
	if (r == 0)
		r = kn_node_open(&m->node, &node, &err);
	if (r == 0) {
		const struct kn_node_request req = {
			.method = "POST",
			.path = path.ptr,
			.content_type = "application/x-tar",
			.upload = upload,
			.upload_bytes = m->tar ? 0 : m->total,
			.arg = m,
		};
		r = kn_node_json(node, &req, &image, &err);
	}
	kn_meter_end(&m->meter);
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	tell(m, image);
	return kn_cli_done(cmd);
}

int kn_verb_image_import(int argc, char **argv)
{
	struct import m = { .fd = -1, .meter = { .what = "send" } };
	const struct kn_arg args[] = {
		{ "name", 'n', KN_ARG_STR, &m.name, "REF", NULL,
		  "name to give it (default: the one that the archive says)" },
		KN_NODE_ARGS(m.node),
	};
	const struct kn_command cmd = {
		.name = "kiln image import",
		.summary =
			"Put an OCI image into the node's store: an archive, or a layout folder.",
		.usage = "[--name REF] PATH",
		.more = "Takes what skopeo, umoci, buildah, podman and `kiln build` write. Nothing is\n"
			"fetched from anywhere else; every blob is checked against its digest.\n"
			"\n"
			"Examples:\n"
			"  kiln image import telemetry.tar --name telemetry:latest\n"
			"  skopeo copy docker-archive:app.tar oci:app:v1 && kiln image import app --name app:v1\n",
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
	m.path = operands[0];
	r = run(&cmd, &m);
	kn_tar_close(m.tar);
	kn_close(m.fd);
	return r;
}
