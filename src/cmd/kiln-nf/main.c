/*
 * kiln-nf: network functions as chains of operators over batches of frames. Packet chains run in
 * processes of this program, never inside kilnd. A verb is a file beside this one.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>

#include "cmd/kiln-nf/nf.h"

static const struct kn_verb verbs[] = {
	{ "run", "run a chain until its input ends, then show what it counted", kn_nf_run },
	{ "check", "say whether a chain's file is right", kn_nf_check },
	{ "bench", "measure the firewall chain against a loop written by hand", kn_nf_bench },
};

int kn_nf_parse(const struct kn_command *cmd, int argc, char **argv, const char ***ret_operands,
		size_t *ret_n)
{
	kn_auto(kn_buf_fini) struct kn_buf help = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	int r = kn_args_parse(cmd, argc, argv, ret_operands, ret_n, &err);
	if (r == KN_ARGS_RUN)
		return KN_NF_GO;
	if (r == KN_ARGS_HELP) {
		kn_args_help(cmd, &help);
		fputs(help.ptr ? help.ptr : "", stdout);
		return kn_nf_printed(cmd->name);
	}
	fprintf(stderr, "%s: %s\n", cmd->name, kn_err_text(&err));
	return 2;
}

int kn_nf_failed(const char *name, const struct kn_err *err)
{
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", name, kn_err_text(err));
	return 1;
}

int kn_nf_printed(const char *name)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	fprintf(stderr, "%s: standard output: %s\n", name, strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN); /* a reader that leaves is an error of the write */
	return kn_verbs_run("kiln-nf", "runs network functions: chains of operators over frames",
			    verbs, KN_ARRAY_LEN(verbs), argc, argv);
}
