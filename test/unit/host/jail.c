/* Looks at a jailed sleep(1) through /proc. Needs root; without it the one thing to test is the error. */
#include "host/jail.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "host/caps.h"
#include "test.h"

static char folder[] = "/tmp/kn-jail-XXXXXX";

static const struct kn_bind binds[] = {
	{ .source = "/bin/sleep" },
	{ .source = "/lib64/ld-linux-x86-64.so.2" },
	{ .source = "/usr/lib/x86_64-linux-gnu" },
	{ .source = "/no/such/file", .optional = true },
};

static pid_t start(int *ret_pidfd)
{
	const char *argv[] = { "sleep", "100", NULL }, *folders[] = { "/run", NULL };
	const char *devices[] = { "/dev/null", NULL };
	struct kn_err err = KN_ERR_INIT;
	pid_t pid;

	struct kn_jail_config j = { .root_dir = folder, .binds = binds,
		                    .n_binds = KN_ARRAY_LEN(binds), .folders = folders,
		                    .devices = devices,
		                    .uid = 2000123, .gid = 2000123 };
	struct kn_spawn_config s = { .path = "/bin/sleep", .argv = argv };
	assert_ok(kn_jail_spawn(&j, &s, &pid, ret_pidfd, &err), &err);
	return pid;
}

static void stop(pid_t pid, int pidfd)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(pidfd);
}

static bool need_root(void)
{
	if (geteuid() == 0)
		return true;
	print_message("needs root\n");
	return false;
}

static void has_no_privileges(void **state)
{
	struct kn_buf text = KN_BUF_INIT;
	char path[64];
	int pidfd;

	(void)state;
	if (!need_root())
		skip();
	pid_t pid = start(&pidfd);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	assert_int_equal(kn_read_file(AT_FDCWD, path, 1 << 16, &text, NULL), 0);
	static const char *const lines[] = {
		"\nUid:\t2000123\t2000123\t2000123\t2000123\n",
		"\nGid:\t2000123\t2000123\t2000123\t2000123\n",
		"\nGroups:\t \n",
		"\nCapInh:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n",
		"\nCapEff:\t0000000000000000\n", "\nCapBnd:\t0000000000000000\n",
		"\nCapAmb:\t0000000000000000\n", "\nNoNewPrivs:\t1\n",
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(lines); i++)
		if (!strstr(text.ptr, lines[i]))
			fail_msg("no '%s' in:\n%s", lines[i], text.ptr);
	kn_buf_fini(&text);
	stop(pid, pidfd);
}

static void has_namespaces_of_its_own(void **state)
{
	static const char *const names[] = { "mnt", "pid", "net", "ipc", "uts" };
	char path[64], mine[64], its[64];
	int pidfd;

	(void)state;
	if (!need_root())
		skip();
	pid_t pid = start(&pidfd);
	for (size_t i = 0; i < KN_ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, names[i]);
		ssize_t n = readlink(path, its, sizeof(its) - 1);
		assert_true(n > 0);
		its[n] = '\0';
		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		n = readlink(path, mine, sizeof(mine) - 1);
		assert_true(n > 0);
		mine[n] = '\0';
		assert_string_not_equal(its, mine);
	}
	stop(pid, pidfd);
}

/* Every entry of folder in one string, sorted by nothing: compared as a set. */
static size_t entries(const char *path, const char *const *allowed, size_t n)
{
	size_t count = 0;
	struct dirent *e;

	DIR *d = opendir(path);
	assert_non_null(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		bool known = false;
		for (size_t i = 0; i < n; i++)
			known = known || strcmp(e->d_name, allowed[i]) == 0;
		if (!known)
			fail_msg("%s in the jail's root", e->d_name);
		count++;
	}
	closedir(d);
	return count;
}

static void root_has_what_was_bound_and_is_read_only(void **state)
{
	static const char *const top[] = { "bin", "lib64", "usr", "dev", "run" };
	struct kn_buf text = KN_BUF_INIT;
	char path[64];
	int pidfd;

	(void)state;
	if (!need_root())
		skip();
	pid_t pid = start(&pidfd);
	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	assert_int_equal(entries(path, top, KN_ARRAY_LEN(top)), KN_ARRAY_LEN(top));
	snprintf(path, sizeof(path), "/proc/%d/root/new", pid);
	assert_int_equal(open(path, O_CREAT | O_WRONLY, 0600), -1);
	assert_int_equal(errno, EROFS);
	snprintf(path, sizeof(path), "/proc/%d/root/usr/lib/x86_64-linux-gnu/new", pid);
	assert_int_equal(open(path, O_CREAT | O_WRONLY, 0600), -1);
	assert_int_equal(errno, EROFS);

	/* The device is the jail's own. */
	struct stat st;
	snprintf(path, sizeof(path), "/proc/%d/root/dev/null", pid);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISCHR(st.st_mode) && (st.st_mode & 0777) == 0600 && st.st_uid == 2000123);

	/* Every mount is read-only and nosuid, and only that of the device is not nodev. */
	snprintf(path, sizeof(path), "/proc/%d/mounts", pid);
	assert_int_equal(kn_read_file(AT_FDCWD, path, 1 << 16, &text, NULL), 0);
	struct kn_view rest = kn_buf_view(&text), line;
	size_t mounts = 0;
	while (kn_view_split(&rest, '\n', &line) && line.len > 0) {
		char l[512];
		snprintf(l, sizeof(l), "%.*s", (int)line.len, line.ptr);
		assert_non_null(strstr(l, "nosuid"));
		assert_non_null(strstr(l, " ro,"));
		assert_true(strstr(l, "nodev") || strstr(l, " /dev "));
		mounts++;
	}
	assert_int_equal(mounts, 5);   /* the root, the device's, three binds */
	kn_buf_fini(&text);
	stop(pid, pidfd);
}

static void leaves_nothing_outside(void **state)
{
	struct kn_buf text = KN_BUF_INIT;
	int pidfd;

	(void)state;
	if (!need_root())
		skip();
	pid_t pid = start(&pidfd);
	stop(pid, pidfd);
	assert_int_equal(kn_read_file(AT_FDCWD, "/proc/self/mounts", 1 << 20, &text, NULL), 0);
	assert_null(strstr(text.ptr, folder));
	assert_int_equal(entries(folder, NULL, 0), 0);
	kn_buf_fini(&text);
}

static void missing_parts_are_told(void **state)
{
	const char *argv[] = { "x", NULL };
	struct kn_err err = KN_ERR_INIT;
	struct kn_bind missing = { .source = "/no/such/library" };
	pid_t pid;

	(void)state;
	if (!need_root())
		skip();
	struct kn_jail_config j = { .root_dir = folder, .binds = &missing, .n_binds = 1, .uid = 1,
		                    .gid = 1 };
	struct kn_spawn_config s = { .path = "/bin/x", .argv = argv };
	assert_fails(kn_jail_spawn(&j, &s, &pid, NULL, &err), ENOENT, &err,
	             "jail: bind /no/such/library");
	j.n_binds = 0;
	assert_fails(kn_jail_spawn(&j, &s, &pid, NULL, &err), ENOENT, &err, "jail: run '/bin/x'");
}

static void without_root_it_is_refused(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	int status;

	(void)state;
	if (need_root())
		assert_ok(kn_jail_check(&err), &err);
	pid_t pid = fork();
	if (pid == 0) {
		if (geteuid() == 0 && kn_become(65534, 65534, NULL, 0, NULL) < 0)
			_exit(1);
		_exit(kn_jail_check(&err) == -EPERM && strstr(err.text, "needs root") ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void user_ids_are_unique_while_in_use(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	uid_t a, b, c;

	(void)state;
	assert_ok(kn_jail_take_uid(5000, 2, &a, &err), &err);
	assert_ok(kn_jail_take_uid(5000, 2, &b, &err), &err);
	assert_int_not_equal(a, b);
	assert_fails(kn_jail_take_uid(5000, 2, &c, &err), EUSERS, &err, "all 2");
	assert_fails(kn_jail_take_uid(6000, 2, &c, &err), EINVAL, &err, "two ranges");
	kn_jail_give_uid(a);
	assert_ok(kn_jail_take_uid(5000, 2, &c, &err), &err);
	assert_int_equal(c, a);
	kn_jail_give_uid(b);
	kn_jail_give_uid(c);
	assert_fails(kn_jail_take_uid(0, 2, &c, &err), EINVAL, &err, "never 0");
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(has_no_privileges),
		cmocka_unit_test(has_namespaces_of_its_own),
		cmocka_unit_test(root_has_what_was_bound_and_is_read_only),
		cmocka_unit_test(leaves_nothing_outside),
		cmocka_unit_test(missing_parts_are_told),
		cmocka_unit_test(without_root_it_is_refused),
		cmocka_unit_test(user_ids_are_unique_while_in_use),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
