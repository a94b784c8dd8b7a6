/*
 * `kiln up` is kilnd with the first steps done: it starts the daemon, waits for its "ready" line,
 * logs this user in, and says how to go on. In the foreground it stays as the daemon's parent, hands
 * signals on and ends as it does; detached, the daemon is its own session, with its log in the state
 * folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "cmd/kiln/kiln.h"
#include "cmd/kiln/local.h"
#include "cmd/kiln/print.h"
#include "host/process.h"

enum { READY_MS = 60 * 1000, LOG_SHOWN = 2000, MOST_WORDS = 64 };

struct up {
	const char *state_given, *listen, *config;
	bool detach, json;
	const char **more; /* options for kilnd */
	size_t n_more;

	char state[KN_LOCAL_PATH], log_path[KN_LOCAL_PATH + 16];
	char address[128]; /* "http://..." */
	pid_t pid;
	int pidfd, signals;
};

/* ---- starting --------------------------------------------------------------------------------- */

/* What an earlier life wrote is kept once, so that the file does not grow for ever. */
static int open_log(struct up *u, struct kn_err *err)
{
	char old[sizeof(u->log_path) + 8];

	int r = kn_mkdirs(AT_FDCWD, u->state, 0711, err);
	if (r < 0)
		return r;
	snprintf(u->log_path, sizeof(u->log_path), "%s/kilnd.log", u->state);
	snprintf(old, sizeof(old), "%s.1", u->log_path);
	if (rename(u->log_path, old) < 0 && errno != ENOENT)
		return kn_fail(err, errno, "rename '%s': %s", u->log_path, strerror(errno));
	int fd = open(u->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? kn_fail(err, errno, "open '%s': %s", u->log_path, strerror(errno)) : fd;
}

static int start(struct up *u, int out, int log, struct kn_err *err)
{
	const struct kn_fd_map fds[] = { { out, 1 }, { log, 2 } };
	const char *argv[MOST_WORDS + 8];
	char program[KN_LOCAL_PATH];
	size_t n = 0;

	int r = kn_local_program("kilnd", program, err);
	if (r < 0)
		return kn_while(err, "kilnd");
	argv[n++] = program;
	argv[n++] = "--state";
	argv[n++] = u->state;
	if (u->listen) {
		argv[n++] = "--listen";
		argv[n++] = u->listen;
	}
	if (u->config) {
		argv[n++] = "--config";
		argv[n++] = u->config;
	}
	for (size_t i = 0; i < u->n_more; i++)
		argv[n++] = u->more[i];
	argv[n] = NULL;
	const struct kn_spawn_config config = { .path = program,
						.argv = argv,
						.env = (const char *const *)environ,
						.fds = fds,
						.n_fds = KN_ARRAY_LEN(fds),
						.new_session = true,
						.die_with_us = !u->detach };
	return kn_spawn(&config, &u->pid, &u->pidfd, err);
}

/* ---- waiting ---------------------------------------------------------------------------------- */

static int tell_end(struct up *u, struct kn_err *err)
{
	char how[96], log[LOG_SHOWN + 1] = "";
	int status = 0;

	waitpid(u->pid, &status, 0);
	u->pid = 0;
	kn_wait_status_text(status, how, sizeof(how));
	if (!u->detach)
		return kn_fail(err, ECHILD, "kilnd %s; its reason stands above", how);
	kn_auto(kn_close) int fd = open(u->log_path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : pread(fd, log, LOG_SHOWN, 0);
	if (n > 0 && !u->json)
		fwrite(log, 1, (size_t)n, stderr);
	return kn_fail(err, ECHILD, "kilnd %s; its log is %s", how, u->log_path);
}

/* "ready http://ADDR:PORT" is the one line on kilnd's standard output. */
static int wait_ready(struct up *u, int out, struct kn_err *err)
{
	uint64_t until = kn_now_ns() + READY_MS * KN_NS_PER_MS;
	char line[128] = "";
	size_t len = 0;

	while (!memchr(line, '\n', len)) {
		uint64_t now = kn_now_ns();
		struct pollfd p[] = { { .fd = out, .events = POLLIN },
				      { .fd = u->signals, .events = POLLIN } };
		if (now >= until || len == sizeof(line) - 1)
			return kn_fail(err, ETIMEDOUT, "kilnd does not get ready");
		if (poll(p, 2, (int)((until - now) / KN_NS_PER_MS) + 1) < 0 && errno != EINTR)
			return kn_fail(err, errno, "poll: %s", strerror(errno));
		if (p[1].revents)
			return kn_fail(err, EINTR, "interrupted");
		if (!p[0].revents)
			continue;
		ssize_t n = read(out, line + len, sizeof(line) - 1 - len);
		if (n <= 0)
			return tell_end(u, err);
		len += (size_t)n;
	}
	line[strcspn(line, "\n")] = '\0';
	if (strncmp(line, "ready ", 6) != 0)
		return kn_fail(err, EPROTO, "kilnd says '%s'", line);
	snprintf(u->address, sizeof(u->address), "%s", line + 6);
	return 0;
}

/* The verb itself, so that there is one way to log in. */
static int log_in(const struct up *u, struct kn_err *err)
{
	char self[KN_LOCAL_PATH], credentials[KN_LOCAL_PATH + 16];
	const char *const argv[] = { "kiln",	    "login",  "--credentials", credentials,
				     "--gateway", u->address, "--json",	       NULL };
	const struct kn_fd_map fds[] = { { 2, 2 } };
	int status = 0;
	pid_t pid = -1;

	snprintf(credentials, sizeof(credentials), "%s/credentials", u->state);
	int r = kn_local_program("kiln", self, err);
	const struct kn_spawn_config config = { .path = self,
						.argv = argv,
						.env = (const char *const *)environ,
						.fds = fds,
						.n_fds = 1,
						.die_with_us = true };
	if (r == 0)
		r = kn_spawn(&config, &pid, NULL, err);
	if (r < 0)
		return r;
	waitpid(pid, &status, 0);
	return status == 0 ? 0 : kn_fail(err, EACCES, "the node runs at %s, but its login failed",
					 u->address);
}

/* ---- telling ---------------------------------------------------------------------------------- */

static void tell(const struct up *u)
{
	if (u->json) {
		kn_auto(json_decref) json_t *o = json_pack(
			"{s:s, s:i, s:s, s:s+}", "gateway", u->address, "pid", (int)u->pid, "state",
			u->state, "credentials", u->state, "/credentials");
		kn_show_json(o);
		fflush(stdout);
		return;
	}
	printf("A node is up at %s (process %d); you are logged in to it.\n"
	       "Its state is in %s, the administrator's credentials are in\n%s/credentials.\n\n"
	       "  kiln doctor                              what this machine can run\n"
	       "  kiln image import app.tar --name app:1   bring a container image\n"
	       "  kiln deploy app --image app:1            then: kiln invoke app\n\n",
	       u->address, (int)u->pid, u->state, u->state);
	if (u->detach)
		printf("Its log is %s. End it with: kiln down%s%s\n", u->log_path,
		       u->state_given ? " --state " : "", u->state_given ? u->state : "");
	else
		printf("It ends with Ctrl-C; 'kiln up --detach' leaves it running.\n");
	fflush(stdout);
}

/* ---- staying ---------------------------------------------------------------------------------- */

/* As kilnd ends, so do we. Signals are its business: the first drains it, the second is the last. */
static int stay(struct up *u)
{
	int status = 0;

	for (;;) {
		struct pollfd p[] = { { .fd = u->pidfd, .events = POLLIN },
				      { .fd = u->signals, .events = POLLIN } };
		struct signalfd_siginfo si;
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents && read(u->signals, &si, sizeof(si)) == (ssize_t)sizeof(si))
			syscall(SYS_pidfd_send_signal, u->pidfd, SIGTERM, NULL, 0);
		if (p[0].revents)
			break;
	}
	waitpid(u->pid, &status, 0);
	u->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : KN_EXIT_FAILED;
}

static int catch_signals(struct up *u, struct kn_err *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	u->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return u->signals < 0 ? kn_fail(err, errno, "signals: %s", strerror(errno)) : 0;
}

static int check_is_down(struct up *u, struct kn_err *err)
{
	pid_t pid = 0;
	int r = kn_local_find(u->state, &pid, NULL, err);

	if (r == 0 && pid)
		r = kn_fail(err, EEXIST,
			    "a node is up already with its state in '%s', process %d: end it with "
			    "kiln down, or log in with kiln login --credentials %s/credentials",
			    u->state, (int)pid, u->state);
	return r;
}

static int bring_up(struct up *u, struct kn_err *err)
{
	int out[2];

	int r = kn_local_state(u->state_given, u->state, err);
	if (r == 0)
		r = check_is_down(u, err);
	if (r == 0)
		r = catch_signals(u, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int log = u->detach ? open_log(u, err) : dup(STDERR_FILENO);
	if (log < 0)
		return u->detach ? log : kn_fail(err, errno, "standard error: %s", strerror(errno));
	if (pipe2(out, O_CLOEXEC) < 0)
		return kn_fail(err, errno, "pipe: %s", strerror(errno));
	kn_auto(kn_close) int from = out[0];
	r = start(u, out[1], log, err);
	kn_close(out[1]);
	if (r == 0)
		r = wait_ready(u, from, err);
	return r < 0 ? r : log_in(u, err);
}

static int run(const struct kn_command *cmd, struct up *u)
{
	struct kn_err err = KN_ERR_INIT;
	int code;

	int r = bring_up(u, &err);
	if (r < 0) {
		code = kn_cli_failed(cmd, &err);
		if (u->pid > 0) {   /* half up is not up */
			kill(u->pid, SIGTERM);
			waitpid(u->pid, NULL, 0);
		}
	} else {
		tell(u);
		code = u->detach ? kn_cli_done(cmd) : stay(u);
	}
	kn_close(u->pidfd);
	kn_close(u->signals);
	return code;
}

int kn_verb_up(int argc, char **argv)
{
	struct up u = { .pidfd = -1, .signals = -1 };
	const struct kn_arg args[] = {
		{ "state", 0, KN_ARG_STR, &u.state_given, "DIR", "KILN_STATE",
		  "folder for what must survive (default: /var/lib/kiln, or for others than root "
		  "~/.local/state/kiln)" },
		{ "listen", 0, KN_ARG_STR, &u.listen, "ADDR:PORT", "KILN_LISTEN",
		  "where to serve (default 127.0.0.1:8080; port 0 takes a free one)" },
		{ "config", 0, KN_ARG_STR, &u.config, "FILE", NULL, "configuration file of kilnd" },
		{ "detach", 'd', KN_ARG_FLAG, &u.detach, NULL, NULL,
		  "leave the node running and come back" },
		{ "json", 0, KN_ARG_FLAG, &u.json, NULL, NULL, "print JSON for scripts" },
	};
	const struct kn_command cmd = {
		.name = "kiln up",
		.summary = "Start a node on this machine, log in to it, and say how to go on.",
		.usage = "[OPTION]... [-- OPTION-OF-KILND...]",
		.more = "Without --detach the node runs until Ctrl-C, with its log on standard error. A node\n"
			"that shall come back after a reboot is the system's business:\n"
			"systemctl enable --now kilnd.\n"
			"\n"
			"Examples:\n"
			"  kiln up\n"
			"  kiln up --detach --listen 0.0.0.0:8080 -- --function-auth token\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.max_operands = MOST_WORDS,
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	if (n > 0 && operands[0][0] != '-')
		return kn_cli_misused(&cmd, "'%s' is no option of kilnd", operands[0]);
	u.more = operands;
	u.n_more = n;
	return run(&cmd, &u);
}
