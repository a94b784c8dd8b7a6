/*
 * kilnd: the node's daemon. Gateway, engine, control API, store and token service in one process
 * and one event loop; functions run in processes of their own.
 */
#include <signal.h>
#include <stdio.h>

#include "cmd/kilnd/node.h"

static int show_help(void)
{
	kn_auto(kn_buf_fini) struct kn_buf page = KN_BUF_INIT;

	kn_kilnd_help(&page);
	fwrite(page.ptr, 1, page.len, stdout);
	return 0;
}

static int serve(const struct kn_kilnd_options *options)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_node node;
	int r = kn_node_open(&node, options, &err);

	if (r == 0)
		r = kn_node_run(&node, &err);
	if (r < 0)
		kn_log(KN_ERROR, "kilnd cannot run", KN_E(&err));
	kn_node_close(&node);
	if (r == 0)
		kn_log(KN_INFO, "stopped");
	return r < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct kn_kilnd_options options;
	struct kn_err err = KN_ERR_INIT;
	int r = kn_kilnd_options_read(argc, argv, &options, &err);

	if (r < 0) {
		fprintf(stderr, "kilnd: %s\nkilnd --help shows the options.\n", kn_err_text(&err));
		return 2;
	}
	if (r == KN_ARGS_HELP)
		return show_help();

	signal(SIGPIPE, SIG_IGN); /* a peer that leaves is an error of the write */
	kn_log_setup(&(struct kn_log_config){ .level = options.log_level,
					      .json = options.log_json,
					      .logfmt = options.log_logfmt,
					      .fd = 2,
					      .program = "kilnd" });
	r = serve(&options);
	kn_kilnd_options_fini(&options);
	return r;
}
