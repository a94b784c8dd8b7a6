#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "cmd/kiln/kiln.h"
#include "cmd/kiln/print.h"

int kn_cli_parse(const struct kn_command *cmd, int argc, char **argv, const char ***ret_operands,
		 size_t *ret_n)
{
	struct kn_err err = KN_ERR_INIT;

	int r = kn_args_parse(cmd, argc, argv, ret_operands, ret_n, &err);
	if (r < 0) { /* says by itself what to type */
		fprintf(stderr, "%s: %s\n", cmd->name, kn_err_text(&err));
		return KN_EXIT_USAGE;
	}
	if (r == KN_ARGS_RUN)
		return KN_CLI_RUN;

	kn_auto(kn_buf_fini) struct kn_buf page = KN_BUF_INIT;
	kn_args_help(cmd, &page);
	fwrite(page.ptr, 1, page.len, stdout);
	return kn_cli_done(cmd);
}

int kn_cli_failed(const struct kn_command *cmd, const struct kn_err *err)
{
	fflush(stdout);
	fprintf(stderr, "%s: ", cmd->name);
	kn_show_text(stderr, kn_view_of(kn_err_text(err))); /* it may quote a node */
	fputc('\n', stderr);
	return KN_EXIT_FAILED;
}

int kn_cli_misused(const struct kn_command *cmd, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", cmd->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "; see '%s --help'\n", cmd->name);
	return KN_EXIT_USAGE;
}

int kn_cli_done(const struct kn_command *cmd)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return KN_EXIT_DONE;
	if (errno != EPIPE) /* "kiln list | head" is no mistake worth a message */
		fprintf(stderr, "%s: standard output: %s\n", cmd->name, strerror(errno));
	return KN_EXIT_FAILED;
}
