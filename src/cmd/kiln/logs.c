#include <errno.h>
#include <stdio.h>

#include "base/time.h"
#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"

enum { LINE_MAX_BYTES = 64 * 1024 };

struct logs {
	struct kn_node_args node;
	bool follow;
	uint64_t tail, since_ms;
	const char *instance;
	struct kn_buf line; /* of the stream, not yet ended */
};

/* One object of the stream, as "TIME INSTANCE TEXT". */
static void show_line(const struct logs *l, struct kn_view line)
{
	kn_auto(json_decref) json_t *event = NULL;

	if (line.len == 0)
		return;
	if (l->node.json || kn_json_parse(line, &event, NULL) < 0) {
		kn_show_text(stdout, line);
		putchar('\n');
		return;
	}
	const char *time = json_string_value(json_object_get(event, "timestamp"));
	const char *instance = json_string_value(json_object_get(event, "instance"));
	const char *text = json_string_value(json_object_get(event, "text"));
	kn_show_text(stdout, kn_view_of(time));
	putchar(' ');
	kn_show_text(stdout, kn_view_of(instance));
	putchar(' ');
	kn_show_text(stdout, kn_view_trim(kn_view_of(text)));
	putchar('\n');
}

static int take(const void *ptr, size_t len, void *arg)
{
	struct logs *l = arg;
	struct kn_view rest = { ptr, len };
	struct kn_view part;

	while (kn_view_split(&rest, '\n', &part)) {
		kn_buf_add_view(&l->line, part);
		if (l->line.failed || l->line.len > LINE_MAX_BYTES)
			return -EMSGSIZE;
		if (!rest.ptr)
			break; /* the line goes on in the next piece */
		show_line(l, kn_buf_view(&l->line));
		kn_buf_clear(&l->line);
	}
	return fflush(stdout) == 0 ? 0 : -errno;
}

static void make_path(const struct logs *l, const char *name, struct kn_buf *path)
{
	char since[KN_RFC3339_LEN];

	kn_buf_adds(path, "/system/logs?name=");
	kn_url_encode(path, kn_view_of(name));
	kn_buf_printf(path, "&follow=%s", l->follow ? "true" : "false");
	if (l->tail > 0)
		kn_buf_printf(path, "&tail=%llu", (unsigned long long)l->tail);
	if (l->instance) {
		kn_buf_adds(path, "&instance=");
		kn_url_encode(path, kn_view_of(l->instance));
	}
	if (l->since_ms > 0) {
		kn_rfc3339(kn_wall_ns() - l->since_ms * KN_NS_PER_MS, since);
		kn_buf_adds(path, "&since=");
		kn_url_encode(path, kn_view_of(since));
	}
}

static int run(const struct kn_command *cmd, struct logs *l, const char *name)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(kn_node_reply_fini) struct kn_node_reply reply = KN_NODE_REPLY_INIT;
	kn_auto(kn_buf_fini) struct kn_buf path = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	make_path(l, name, &path);
	if (path.failed)
		return KN_EXIT_FAILED;
	const struct kn_node_request req = { .path = path.ptr, .download = take, .arg = l };
	int r = kn_node_open(&l->node, &node, &err);
	if (r == 0)
		r = kn_node_send(node, &req, &reply, &err);
	if (r == 0)
		r = kn_node_check(node, &reply, &err);
	if (r == -EPIPE)
		return KN_EXIT_DONE; /* "kiln logs -f fn | head" has what it wanted */
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	show_line(l, kn_buf_view(&l->line));
	return kn_cli_done(cmd);
}

int kn_verb_logs(int argc, char **argv)
{
	struct logs l = { .line = KN_BUF_INIT };
	const struct kn_arg args[] = {
		{ "follow", 'f', KN_ARG_FLAG, &l.follow, NULL, NULL,
		  "go on with what comes; end with Ctrl-C" },
		{ "tail", 0, KN_ARG_U64, &l.tail, "N", NULL,
		  "only the newest N lines (default: all kept)" },
		{ "since", 0, KN_ARG_DURATION, &l.since_ms, "TIME", NULL,
		  "only the last TIME, e.g. 10m" },
		{ "instance", 0, KN_ARG_STR, &l.instance, "ID", NULL, "only of this instance" },
		KN_NODE_ARGS(l.node),
	};
	const struct kn_command cmd = {
		.name = "kiln logs",
		.summary = "Print what a function's instances wrote, the guest's console included.",
		.usage = "[OPTION]... FUNCTION",
		.more = "Lines stay in the node's memory, the newest 256 KiB of each function. Control\n"
			"characters are shown as \\x1b, so that no function steers your terminal.\n"
			"\n"
			"Examples:\n"
			"  kiln logs telemetry --tail 20\n"
			"  kiln logs -f telemetry\n",
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
	r = run(&cmd, &l, operands[0]);
	kn_buf_fini(&l.line);
	return r;
}
