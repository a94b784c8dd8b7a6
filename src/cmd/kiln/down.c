#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "cmd/kiln/kiln.h"
#include "cmd/kiln/local.h"

/* A little more than kilnd itself waits for requests under way. */
enum { PATIENCE_MS = 40 * 1000 };

struct down {
	const char *state;
	uint64_t wait_ms;
	bool json;
};

static int send_signal(int pidfd, int sig, struct kn_err *err)
{
	if (syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0)
		return kn_fail(err, errno, "stop the node: %s", strerror(errno));
	return 0;
}

/* 1 when it ended within the time. */
static int wait_for(int pidfd, uint64_t ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, (int)kn_min(ms, (uint64_t)INT32_MAX)) == 1;
}

static int run(const struct kn_command *cmd, const struct down *d)
{
	kn_auto(kn_close) int pidfd = -1;
	char state[KN_LOCAL_PATH];
	struct kn_err err = KN_ERR_INIT;
	pid_t pid = 0;

	int r = kn_local_state(d->state, state, &err);
	if (r == 0)
		r = kn_local_find(state, &pid, &pidfd, &err);
	if (r == 0 && pid == 0)
		r = kn_fail(&err, ESRCH, "no node is up with its state in '%s'", state);
	if (r == 0)
		r = send_signal(pidfd, SIGTERM, &err);
	if (r == 0 && !wait_for(pidfd, d->wait_ms))
		r = kn_fail(&err, ETIMEDOUT,
			    "the node, process %d, still finishes requests: wait, or end it at once "
			    "with: kill %d",
			    (int)pid, (int)pid);
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	if (d->json)
		printf("{\"pid\":%d}\n", (int)pid);
	else
		printf("The node is down. Its state stays in %s.\n", state);
	return kn_cli_done(cmd);
}

int kn_verb_down(int argc, char **argv)
{
	struct down d = { .wait_ms = PATIENCE_MS };
	const struct kn_arg args[] = {
		{ "state", 0, KN_ARG_STR, &d.state, "DIR", "KILN_STATE",
		  "the node's state folder (default: that of kiln up)" },
		{ "wait", 'w', KN_ARG_DURATION, &d.wait_ms, "TIME", NULL,
		  "how long to wait for its end (default 40s)" },
		{ "json", 0, KN_ARG_FLAG, &d.json, NULL, NULL, "print JSON for scripts" },
	};
	const struct kn_command cmd = {
		.name = "kiln down",
		.summary = "End the node of this machine that 'kiln up' started.",
		.usage = "[OPTION]...",
		.more = "The node finishes the requests that are under way. What it knows stays in its state\n"
			"folder: 'kiln up' brings it back.\n"
			"\n"
			"Example:\n"
			"  kiln down --state /tmp/kiln-tour\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	return r == KN_CLI_RUN ? run(&cmd, &d) : r;
}
