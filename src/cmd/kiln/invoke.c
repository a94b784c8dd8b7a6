#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"

/* Input up to this size is sent with its length, so that a request can be made again. */
enum { WHOLE_MAX = 1024 * 1024 };

struct invocation {
	struct kn_node_args node;
	const char *method, *data, *file, *path, *type;
	struct kn_arg_list headers, query;
	bool verbose;
	uint64_t timeout_ms;
	int fd;		     /* input; -1: none */
	struct kn_buf begin; /* what was read of it to learn its size */
	size_t given;	     /* bytes of begin handed to the request */
	struct kn_buf reply; /* kept for --json */
	uint64_t took_ns;
};

/* ---- input --------------------------------------------------------------------------------- */

static int open_input(struct invocation *v, struct kn_err *err)
{
	bool file = v->file && strcmp(v->file, "-") != 0;

	if (v->data) {
		kn_buf_adds(&v->begin, v->data);
		return v->begin.failed ? kn_fail(err, ENOMEM, "out of memory") : 0;
	}
	if (!file && !v->file && isatty(STDIN_FILENO))
		return 0;
	v->fd = file ? open(v->file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	if (v->fd < 0)
		return kn_fail(err, errno, "open '%s': %s", v->file, strerror(errno));
	if (!kn_buf_reserve(&v->begin, WHOLE_MAX))
		return kn_fail(err, ENOMEM, "out of memory");
	ssize_t n = kn_read_all(v->fd, v->begin.ptr, WHOLE_MAX);
	if (n < 0)
		return kn_fail(err, (int)-n, "read %s: %s", file ? v->file : "standard input",
			       strerror((int)-n));
	v->begin.len = (size_t)n;
	return 0;
}

static void close_input(struct invocation *v)
{
	if (v->fd > STDIN_FILENO)
		close(v->fd);
	kn_buf_fini(&v->begin);
}

static ssize_t upload(void *ptr, size_t len, void *arg)
{
	struct invocation *v = arg;
	size_t kept = kn_min(len, v->begin.len - v->given);

	if (kept > 0) {
		memcpy(ptr, v->begin.ptr + v->given, kept);
		v->given += kept;
		return (ssize_t)kept;
	}
	ssize_t n = read(v->fd, ptr, len);
	return n < 0 ? -errno : n;
}

static int download(const void *ptr, size_t len, void *arg)
{
	struct invocation *v = arg;

	if (v->node.json) {
		kn_buf_add(&v->reply, ptr, len);
		return v->reply.failed ? -ENOMEM : 0;
	}
	return fwrite(ptr, 1, len, stdout) == len && fflush(stdout) == 0 ? 0 : -errno;
}

/* ---- what is told about it ----------------------------------------------------------------- */

/* "queue;dur=0.100, boot;dur=900.000" as "queue 100 us, boot 900 ms". Source: W3C Server Timing */
static void tell_phases(struct kn_view timing)
{
	struct kn_view phase, name;
	const char *before = "; on the node: ";

	while (kn_view_split(&timing, ',', &phase)) {
		char took[KN_SHORT] = "";
		char text[KN_SHORT] = "";
		phase = kn_view_trim(phase);
		kn_view_split(&phase, ';', &name);
		if (kn_view_starts(phase, KN_VIEW("dur=")) && phase.len < sizeof(text)) {
			snprintf(text, sizeof(text), "%.*s", (int)phase.len - 4, phase.ptr + 4);
			double ms = strtod(text, NULL);
			kn_show_ns(ms > 0 && ms < 1e9 ? (uint64_t)(ms * 1e6) : 0, took);
		}
		fputs(before, stderr);
		kn_show_text(stderr, name);
		fprintf(stderr, " %s", took);
		before = ", ";
	}
}

static void tell(const struct invocation *v, const struct kn_node_reply *reply)
{
	struct kn_view start = kn_node_reply_header(reply, "X-Kiln-Start");
	struct kn_view timing = kn_node_reply_header(reply, "Server-Timing");
	struct kn_view id = kn_node_reply_header(reply, "X-Call-Id");
	char took[KN_SHORT];

	kn_show_ns(v->took_ns, took);
	fprintf(stderr, "status %d", reply->status);
	if (start.len > 0) {
		fputs(", ", stderr);
		kn_show_text(stderr, start);
	}
	fprintf(stderr, ", %s here", took);
	if (timing.len > 0)
		tell_phases(timing);
	if (id.len > 0) {
		fputs("; call ", stderr);
		kn_show_text(stderr, id);
	}
	fputc('\n', stderr);
}

static json_t *head_object(const struct kn_node_reply *reply)
{
	struct kn_view rest = kn_buf_view(&reply->head);
	struct kn_view line, name;
	json_t *head = json_object();

	while (kn_view_split(&rest, '\n', &line)) {
		kn_view_split(&line, ':', &name);
		name = kn_view_trim(name);
		line = kn_view_trim(line);
		char key[128];
		if (name.len == 0 || name.len >= sizeof(key))
			continue;
		snprintf(key, sizeof(key), "%.*s", (int)name.len, name.ptr);
		json_object_set_new(head, key, json_stringn(line.ptr, line.len));
	}
	return head;
}

static void tell_json(const struct invocation *v, const struct kn_node_reply *reply)
{
	struct kn_view body = kn_buf_view(reply->status < 400 ? &v->reply : &reply->body);
	kn_auto(json_decref) json_t *out = json_object();
	json_t *text = json_stringn(body.ptr ? body.ptr : "", body.len);

	json_object_set_new(out, "status", json_integer(reply->status));
	json_object_set_new(out, "milliseconds", json_real((double)v->took_ns / 1e6));
	json_object_set_new(out, "headers", head_object(reply));
	if (text) {
		json_object_set_new(out, "body", text);
	} else { /* not UTF-8 */
		kn_auto(kn_buf_fini) struct kn_buf base64 = KN_BUF_INIT;
		kn_base64(&base64, body.ptr, body.len);
		json_object_set_new(out, "body_base64", json_stringn(base64.ptr, base64.len));
	}
	kn_show_json(out);
}

/* ---- the request --------------------------------------------------------------------------- */

static void make_path(const struct invocation *v, const char *name, struct kn_buf *path)
{
	struct kn_view key, value;

	kn_buf_adds(path, "/function/");
	kn_url_encode(path, kn_view_of(name));
	if (v->path)
		kn_buf_printf(path, "%s%s", v->path[0] == '/' ? "" : "/", v->path);
	for (size_t i = 0; i < v->query.n; i++) {
		value = kn_view_of(v->query.at[i]);
		kn_view_split(&value, '=', &key);
		kn_buf_adds(path, i == 0 && !(v->path && strchr(v->path, '?')) ? "?" : "&");
		kn_url_encode(path, key);
		kn_buf_adds(path, "=");
		kn_url_encode(path, value);
	}
}

static int exchange(struct invocation *v, struct kn_node *node, const char *path,
		    struct kn_node_reply *reply, struct kn_err *err)
{
	struct kn_node_request req = {
		.method = v->method ? v->method : "POST",
		.path = path,
		.content_type = v->type,
		.headers = v->headers.at,
		.n_headers = v->headers.n,
		.timeout_ms = v->timeout_ms,
		.download = download,
		.arg = v,
	};
	if (v->begin.len > 0 && !req.content_type)
		req.content_type = "text/plain"; /* what faas-cli sends */
	if (v->begin.len == WHOLE_MAX)
		req.upload = upload;
	else
		req.body = kn_buf_view(&v->begin);

	uint64_t began_ns = kn_now_ns();
	int r = kn_node_send(node, &req, reply, err);
	v->took_ns = kn_now_ns() - began_ns;
	return r;
}

/* The function's own words go to standard output even when they are bad news. */
static int judge(const struct kn_command *cmd, const struct invocation *v,
		 const struct kn_node *node, const struct kn_node_reply *reply)
{
	struct kn_err err = KN_ERR_INIT;
	bool by_function = kn_node_reply_header(reply, "X-Kiln-Start").len > 0;

	if (v->verbose)
		tell(v, reply);
	if (v->node.json)
		tell_json(v, reply);
	if (reply->status < 400)
		return kn_cli_done(cmd);
	if (by_function && !v->node.json)
		fwrite(reply->body.ptr, 1, reply->body.len, stdout);
	if (by_function)
		kn_fail(&err, EIO, "the function answered with status %d", reply->status);
	else
		(void)!kn_node_check(node, reply, &err);
	return kn_cli_failed(cmd, &err);
}

static int run(const struct kn_command *cmd, struct invocation *v, const char *name)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(kn_node_reply_fini) struct kn_node_reply reply = KN_NODE_REPLY_INIT;
	kn_auto(kn_buf_fini) struct kn_buf path = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	make_path(v, name, &path);
	int r = path.failed ? kn_fail(&err, ENOMEM, "out of memory") : open_input(v, &err);
	if (r == 0)
		r = kn_node_open(&v->node, &node, &err);
	if (r == 0)
		r = exchange(v, node, path.ptr, &reply, &err);
	return r < 0 ? kn_cli_failed(cmd, &err) : judge(cmd, v, node, &reply);
}

static int check_usage(const struct kn_command *cmd, const struct invocation *v)
{
	for (size_t i = 0; i < v->headers.n; i++)
		if (!strchr(v->headers.at[i], ':'))
			return kn_cli_misused(cmd, "--header '%s' must look like 'Name: value'",
					      v->headers.at[i]);
	for (size_t i = 0; i < v->query.n; i++)
		if (!strchr(v->query.at[i], '='))
			return kn_cli_misused(cmd, "--query '%s' must look like name=value",
					      v->query.at[i]);
	if (v->path && strpbrk(v->path, " \t\r\n#"))
		return kn_cli_misused(
			cmd, "--path '%s' must be encoded as in a URL: %%20 is a blank", v->path);
	if (v->data && v->file)
		return kn_cli_misused(cmd, "give either --data or --file");
	return KN_CLI_RUN;
}

int kn_verb_invoke(int argc, char **argv)
{
	struct invocation v = { .fd = -1 };
	const struct kn_arg args[] = {
		{ "data", 'd', KN_ARG_STR, &v.data, "TEXT", NULL, "the request's body" },
		{ "file", 'f', KN_ARG_STR, &v.file, "FILE", NULL,
		  "take the body from a file; '-' is standard input (the default, unless it is a terminal)" },
		{ "content-type", 't', KN_ARG_STR, &v.type, "TYPE", NULL,
		  "the body's media type (default: text/plain)" },
		{ "header", 'H', KN_ARG_LIST, &v.headers, "'NAME: VALUE'", NULL,
		  "one more header field" },
		{ "query", 'q', KN_ARG_LIST, &v.query, "NAME=VALUE", NULL,
		  "one more query parameter" },
		{ "method", 'X', KN_ARG_STR, &v.method, "METHOD", NULL,
		  "request method (default: POST)" },
		{ "path", 'p', KN_ARG_STR, &v.path, "PATH", NULL,
		  "path inside the function (default: /)" },
		{ "timeout", 0, KN_ARG_DURATION, &v.timeout_ms, "TIME", NULL,
		  "give up after TIME (default: when the function's own deadline has passed)" },
		{ "verbose", 'v', KN_ARG_FLAG, &v.verbose, NULL, NULL,
		  "tell status, cold or warm, and where the time went, on standard error" },
		KN_NODE_ARGS(v.node),
	};
	const struct kn_command cmd = {
		.name = "kiln invoke",
		.summary = "Call a function and print its reply.",
		.usage = "[OPTION]... FUNCTION",
		.more = "Exits 1 when the status is 400 or more; the reason is told on standard error.\n"
			"--json prints status, headers and body as one object.\n"
			"\n"
			"Examples:\n"
			"  echo hello | kiln invoke checksum\n"
			"  kiln invoke -v telemetry -t application/json -d '{\"temperature\": 21.5}' \\\n"
			"      -H 'ce-specversion: 1.0' -H 'ce-type: reading' -H 'ce-source: /dev/7' -H 'ce-id: 1'\n"
			"  kiln invoke telemetry -X GET -p /devices -q limit=3\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.min_operands = 1,
		.max_operands = 1,
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r == KN_CLI_RUN)
		r = check_usage(&cmd, &v);
	if (r == KN_CLI_RUN)
		r = run(&cmd, &v, operands[0]);
	close_input(&v);
	kn_buf_fini(&v.reply);
	kn_free(v.headers.at);
	kn_free(v.query.at);
	return r;
}
