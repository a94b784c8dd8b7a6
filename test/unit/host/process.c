#include "host/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "test.h"

/* What the child writes to its standard output, and its wait status. */
static void run(const struct kn_spawn_config *base, char *out, size_t len, int *status)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_fd_map fds[4];
	int p[2], pidfd;
	pid_t pid;

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	struct kn_spawn_config c = *base;
	fds[0] = (struct kn_fd_map){ p[1], 1 };
	for (size_t i = 0; i < base->n_fds; i++)
		fds[i + 1] = base->fds[i];
	c.fds = fds;
	c.n_fds = base->n_fds + 1;
	assert_ok(kn_spawn(&c, &pid, &pidfd, &err), &err);
	close(p[1]);
	ssize_t n = kn_read_all(p[0], out, len - 1);
	assert_true(n >= 0);
	out[n] = '\0';
	close(p[0]);
	struct pollfd wait = { .fd = pidfd, .events = POLLIN };
	assert_int_equal(poll(&wait, 1, 10000), 1);
	assert_int_equal(waitpid(pid, status, 0), pid);
	close(pidfd);
}

static void shell(const char *script, const struct kn_spawn_config *base, char *out, size_t len,
                  int *status)
{
	const char *argv[] = { "sh", "-c", script, NULL };
	struct kn_spawn_config c = *base;

	c.path = "/bin/sh";
	c.argv = argv;
	run(&c, out, len, status);
}

static void child_gets_arguments_environment_and_status(void **state)
{
	const char *env[] = { "COLOUR=blue", NULL };
	char out[256];
	int status;

	(void)state;
	shell("echo $COLOUR; exit 3", &(struct kn_spawn_config){ .env = env }, out, sizeof(out),
	      &status);
	assert_string_equal(out, "blue\n");
	assert_int_equal(WEXITSTATUS(status), 3);
}

static void descriptors_are_placed_and_others_closed(void **state)
{
	char out[512];
	int status, a[2], b[2];

	(void)state;
	assert_int_equal(pipe(a), 0);   /* not close-on-exec: must still be closed in the child */
	assert_int_equal(pipe(b), 0);
	assert_int_equal(kn_write_all(a[1], "A\n", 2), 0);
	assert_int_equal(kn_write_all(b[1], "B\n", 2), 0);
	/* crosswise: each target is another's source */
	struct kn_fd_map fds[] = { { a[0], b[0] }, { b[0], a[0] } };
	char script[128];
	snprintf(script, sizeof(script), "read x <&%d; read y <&%d; echo $x$y; ls /proc/self/fd | wc -l",
	         a[0], b[0]);
	shell(script, &(struct kn_spawn_config){ .fds = fds, .n_fds = 2 }, out, sizeof(out), &status);
	/* 0, 1, 2, the two, and the folder that ls reads */
	assert_string_equal(out, "BA\n6\n");
	for (int i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
	}
}

static void limits_session_and_signals_are_set(void **state)
{
	struct kn_rlimit limits[] = { { RLIMIT_NOFILE, 33, 34 }, { RLIMIT_CORE, 0, 0 } };
	char out[512];
	int status;

	/* GNU make leaves the C library's own signals, 32 and 33, ignored; nobody can change them. */
	(void)state;
	signal(SIGUSR1, SIG_IGN);
	shell("ulimit -Sn; ulimit -Hn; ulimit -c; [ $(ps -o sid= -p $$) = $$ ] && echo leads; "
	      "grep -E 'Sig(Ign|Blk)' /proc/self/status | sed 's/[01][08]0000000$/000000000/'",
	      &(struct kn_spawn_config){ .rlimits = limits, .n_rlimits = 2, .new_session = true },
	      out, sizeof(out), &status);
	signal(SIGUSR1, SIG_DFL);
	assert_string_equal(out, "33\n34\n0\nleads\nSigBlk:\t0000000000000000\n"
	                         "SigIgn:\t0000000000000000\n");
}

static int refuse(void *arg, struct kn_err *err)
{
	return kn_fail(err, EXDEV, "%s", (const char *)arg);
}

static void failures_are_told_and_the_child_reaped(void **state)
{
	const char *argv[] = { "x", NULL };
	char why[] = "setup says no";
	struct kn_err err = KN_ERR_INIT;
	pid_t pid = -7;
	int pidfd = -7;

	(void)state;
	struct kn_spawn_config c = { .path = "/nowhere/x", .argv = argv };
	assert_fails(kn_spawn(&c, &pid, &pidfd, &err), ENOENT, &err, "run '/nowhere/x'");
	c = (struct kn_spawn_config){ .path = "/bin/true", .argv = argv, .setup = refuse, .arg = why };
	assert_fails(kn_spawn(&c, &pid, &pidfd, &err), EXDEV, &err, why);
	c = (struct kn_spawn_config){ .path = "/etc/passwd", .argv = argv };
	assert_fails(kn_spawn(&c, &pid, &pidfd, &err), EACCES, &err, "/etc/passwd");
	c = (struct kn_spawn_config){ .path = "/bin/true", .argv = argv, .n_fds = 33 };
	assert_fails(kn_spawn(&c, &pid, &pidfd, &err), E2BIG, &err, "33 descriptors");
	assert_int_equal(pid, -7);
	assert_int_equal(pidfd, -7);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);   /* no child is left */
}

/* Where cgroups of version 2 are mounted, with controllers or without. */
static bool find_unified(char ret[128])
{
	char line[1024];
	FILE *f = fopen("/proc/self/mountinfo", "re");

	ret[0] = '\0';
	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s %*s %127s", ret) == 1)
			break;
	if (f)
		fclose(f);
	return ret[0] != '\0';
}

static void child_begins_in_its_cgroup(void **state)
{
	const char *argv[] = { "cat", "/proc/self/cgroup", NULL };
	struct kn_err err = KN_ERR_INIT;
	char root[128], path[192], name[64], text[1024] = "";
	int p[2], status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0 || !find_unified(root))
		skip();
	snprintf(name, sizeof(name), "kn-test-%d", getpid());
	snprintf(path, sizeof(path), "%s/%s", root, name);
	if (mkdir(path, 0755) < 0)
		skip();
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	const struct kn_fd_map out = { p[1], 1 };
	struct kn_spawn_config c = { .path = "/bin/cat", .argv = argv, .fds = &out, .n_fds = 1,
		                     .cgroup_fd = dir };
	assert_ok(kn_spawn(&c, &pid, NULL, &err), &err);
	close(p[1]);
	assert_true(kn_read_all(p[0], text, sizeof(text) - 1) > 0);
	close(p[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	if (!strstr(text, name))
		fail_msg("not in %s: %s", name, text);
	/* Failures are told as ever. */
	c.path = "/nowhere/x";
	assert_fails(kn_spawn(&c, &pid, NULL, &err), ENOENT, &err, "run '/nowhere/x'");
	close(dir);
	assert_int_equal(rmdir(path), 0);
	struct kn_err gone = KN_ERR_INIT;
	c.cgroup_fd = 1000;
	assert_fails(kn_spawn(&c, &pid, NULL, &gone), EBADF, &gone, "start a process");
}

/* A parent that is killed takes its child along, even when nothing of it gets to run. */
static void child_dies_with_its_parent(void **state)
{
	const char *argv[] = { "sleep", "100", NULL };
	int p[2], status;
	pid_t child;

	(void)state;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	pid_t parent = fork();
	if (parent == 0) {
		struct kn_spawn_config c = { .path = "/bin/sleep", .argv = argv,
			                     .die_with_us = true };
		if (kn_spawn(&c, &child, NULL, NULL) == 0)
			(void)!write(p[1], &child, sizeof(child));
		pause();
		_exit(0);
	}
	assert_int_equal(kn_read_all(p[0], &child, sizeof(child)), sizeof(child));
	kill(parent, SIGKILL);
	assert_int_equal(waitpid(parent, &status, 0), parent);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(WTERMSIG(status), SIGKILL);
	prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
	close(p[0]);
	close(p[1]);
}

/* ---- programs ------------------------------------------------------------------------------ */

static char folder[] = "/tmp/kn-process-XXXXXX";

static const char *put(const char *name, const void *bytes, size_t len, mode_t mode)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(kn_write_all(fd, bytes, len), 0);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
	return path;
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	return kn_remove_tree(AT_FDCWD, folder, NULL);
}

static void programs_are_found_as_execvp_would(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	char path[256], search[256];

	(void)state;
	snprintf(search, sizeof(search), "/nowhere:%s:/usr/bin", folder);
	put("tool", "#!/bin/sh\n", 10, 0755);
	assert_ok(kn_find_program("tool", search, path, sizeof(path), &err), &err);
	assert_memory_equal(path, folder, strlen(folder));
	assert_ok(kn_find_program("/bin/sh", "", path, sizeof(path), &err), &err);
	assert_string_equal(path, "/bin/sh");
	assert_fails(kn_find_program("no-such-tool", search, path, sizeof(path), &err), ENOENT, &err,
	             "executable file not found in PATH: no-such-tool");
	assert_fails(kn_find_program("/no/tool", search, path, sizeof(path), &err), ENOENT, &err,
	             "executable file not found: /no/tool");
	assert_fails(kn_find_program("", search, path, sizeof(path), &err), ENOENT, &err, "empty");
	assert_fails(kn_find_program("/tmp", search, path, sizeof(path), &err), EISDIR, &err, "/tmp");
	put("data", "x", 1, 0644);
	assert_fails(kn_find_program("data", search, path, sizeof(path), &err), EACCES, &err,
	             "permission denied: data");
}

static void programs_that_cannot_run_are_told(void **state)
{
	unsigned char arm[64] = { 0x7f, 'E', 'L', 'F', 2, 1, 1 };
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	arm[18] = 183;
	const struct {
		const char *bytes;
		size_t len;
		int code;
		const char *says;
	} cases[] = {
		{ "echo hello\n", 11, ENOEXEC, "neither an ELF program nor a script" },
		{ "", 0, ENOEXEC, "neither" },
		{ (const char *)arm, sizeof(arm), ENOEXEC, "ELF machine 183, 64-bit" },
		{ (const char *)arm, 20, ENOEXEC, "cut ELF" },
		{ "#!/no/python\n", 13, ENOENT, "interpreter '/no/python'" },
		{ "#!/bin/sh\r\n", 11, ENOENT, "carriage return" },
		{ "#! /bin/sh -e\n", 14, 0, "" },
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		const char *path = put("case", cases[i].bytes, cases[i].len, 0755);
		int r = kn_check_program(path, &err);
		if (cases[i].code)
			assert_fails(r, cases[i].code, &err, cases[i].says);
		else
			assert_ok(r, &err);
	}
	assert_ok(kn_check_program("/bin/sh", &err), &err);
}

static void wait_status_in_words(void **state)
{
	char text[64];

	(void)state;
	kn_wait_status_text(3 << 8, text, sizeof(text));
	assert_string_equal(text, "exited with code 3");
	kn_wait_status_text(SIGSEGV, text, sizeof(text));
	assert_string_equal(text, "killed by signal 11 (SEGV)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(child_gets_arguments_environment_and_status),
		cmocka_unit_test(descriptors_are_placed_and_others_closed),
		cmocka_unit_test(limits_session_and_signals_are_set),
		cmocka_unit_test(failures_are_told_and_the_child_reaped),
		cmocka_unit_test(child_begins_in_its_cgroup),
		cmocka_unit_test(child_dies_with_its_parent),
		cmocka_unit_test(programs_are_found_as_execvp_would),
		cmocka_unit_test(programs_that_cannot_run_are_told),
		cmocka_unit_test(wait_status_in_words),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
