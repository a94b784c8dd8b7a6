#include "host/cgroup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "test.h"

static char folder[] = "/tmp/kn-cgroup-XXXXXX";

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

static int find(const char *mountinfo, struct kn_cgroup_host *h, struct kn_err *err)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/mountinfo", folder);
	assert_int_equal(kn_write_file(AT_FDCWD, path, mountinfo, strlen(mountinfo), 0600, NULL), 0);
	return kn_cgroup_find(path, h, err);
}

static void version_1_is_preferred_where_memory_is_mounted_there(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_cgroup_host h;

	(void)state;
	assert_ok(find("31 30 0:27 / /c/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
	               "32 30 0:28 / /c/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
	               "33 30 0:29 / /c/pids rw - cgroup cgroup rw,pids\n"
	               "34 30 0:30 / /c/unified rw - cgroup2 cgroup2 rw\n", &h, &err), &err);
	assert_int_equal(h.version, KN_CGROUP_V1);
	assert_string_equal(h.memory, "/c/memory");
	assert_string_equal(h.cpu, "/c/cpu");
	assert_string_equal(h.cpuacct, "/c/cpu");
	assert_string_equal(h.pids, "/c/pids");
}

static void version_2_is_taken_where_it_is_alone(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_cgroup_host h;

	(void)state;
	assert_ok(find("34 30 0:30 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
	               &h, &err), &err);
	assert_int_equal(h.version, KN_CGROUP_V2);
	assert_string_equal(h.pids, "/sys/fs/cgroup");
}

static void hosts_without_controllers_are_told(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_cgroup_host h = { .version = KN_CGROUP_V1 };

	(void)state;
	assert_fails(find("1 1 0:1 / /proc rw - proc proc rw\n", &h, &err), ENOENT, &err,
	             "no cgroup memory controller");
	assert_fails(find("1 1 0:1 / /m rw - cgroup cgroup rw,memory\nbroken line\n", &h, &err),
	             ENOENT, &err, "no cgroup pids controller");
}

/* ---- on this host -------------------------------------------------------------------------- */

static struct kn_cgroup_host host;

static bool can_make(void)
{
	struct kn_err err = KN_ERR_INIT;

	if (geteuid() != 0 || kn_cgroup_find("/proc/self/mountinfo", &host, &err) < 0 ||
	    access(host.memory, W_OK) < 0) {
		print_message("needs root and a writable cgroup hierarchy: %s\n", err.text);
		return false;
	}
	return true;
}

static void parent_name(char out[64])
{
	snprintf(out, 64, "kn-test-%d/sub", getpid());
}

/* Removing may have to wait until the kernel let go of the dead. */
static void remove_soon(struct kn_cgroup *cg)
{
	struct kn_err err = KN_ERR_INIT;
	int r = -EBUSY;

	for (int i = 0; i < 2000 && r == -EBUSY; i++, usleep(1000))
		r = kn_cgroup_remove(cg, &err);
	assert_ok(r, &err);
	kn_cgroup_free(cg);
}

static void touch(size_t bytes)
{
	volatile char *p = malloc(bytes);

	for (size_t i = 0; p && i < bytes; i += 4096)
		p[i] = 1;
}

static void members_are_limited_counted_and_killed(void **state)
{
	struct kn_cgroup_limits limits = { .memory_bytes = 64 << 20, .cpu_millis = 500, .pids = 8 };
	struct kn_err err = KN_ERR_INIT;
	struct kn_cgroup_stats stats;
	struct kn_cgroup *cg;
	char parent[64];
	int p[2], status;

	(void)state;
	if (!can_make())
		skip();
	parent_name(parent);
	assert_ok(kn_cgroup_new(&host, parent, "one", &limits, &cg, &err), &err);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (kn_cgroup_add(cg, 0, NULL) < 0)
			_exit(1);
		touch(4 << 20);
		(void)!write(p[1], "x", 1);
		pause();
		_exit(0);
	}
	char c;
	assert_int_equal(kn_read_all(p[0], &c, 1), 1);
	assert_ok(kn_cgroup_stats(cg, &stats, &err), &err);
	assert_true(stats.memory_bytes >= 4 << 20);
	assert_true(stats.cpu_ns > 0);
	assert_int_equal(stats.oom_kills, 0);
	assert_int_equal(kn_cgroup_remove(cg, &err), -EBUSY);
	assert_ok(kn_cgroup_kill(cg, &err), &err);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WTERMSIG(status), SIGKILL);
	close(p[0]);
	close(p[1]);
	remove_soon(cg);
	char path[256];
	snprintf(path, sizeof(path), "%s/kn-test-%d", host.memory, getpid());
	assert_int_equal(access(path, F_OK), -1);   /* the parents went with it */
}

static void memory_limit_kills_and_is_counted(void **state)
{
	struct kn_cgroup_limits limits = { .memory_bytes = 16 << 20, .pids = 8 };
	struct kn_err err = KN_ERR_INIT;
	struct kn_cgroup_stats stats;
	struct kn_cgroup *cg;
	char parent[64];
	int status;

	(void)state;
	if (!can_make())
		skip();
	parent_name(parent);
	assert_ok(kn_cgroup_new(&host, parent, "small", &limits, &cg, &err), &err);
	pid_t pid = fork();
	if (pid == 0) {
		if (kn_cgroup_add(cg, 0, NULL) < 0)
			_exit(1);
		touch(64 << 20);
		_exit(2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_ok(kn_cgroup_stats(cg, &stats, &err), &err);
	assert_int_equal(stats.oom_kills, 1);
	/* The same by a descriptor of one file, as a container's agent keeps it. */
	struct kn_cgroup_dir dirs[KN_CGROUP_MAX_DIRS];
	assert_true(kn_cgroup_dirs(cg, dirs) >= 1);
	assert_int_equal(kn_cgroup_unified(cg), host.version == KN_CGROUP_V2);
	assert_non_null(strstr(host.memory, dirs[0].name));
	kn_auto(kn_close) int events = kn_cgroup_open_events(dirs[0].fd);
	assert_true(events >= 0);
	assert_int_equal(kn_oom_kills(events), 1);
	remove_soon(cg);
}

static void names_are_used_once_and_sweep_takes_the_forgotten(void **state)
{
	struct kn_cgroup_limits none = { .memory_bytes = 0 };
	struct kn_err err = KN_ERR_INIT;
	struct kn_cgroup *cg, *again;
	char parent[64];

	(void)state;
	if (!can_make())
		skip();
	parent_name(parent);
	assert_ok(kn_cgroup_new(&host, parent, "left", &none, &cg, &err), &err);
	assert_fails(kn_cgroup_new(&host, parent, "left", &none, &again, &err), EEXIST, &err, "left");
	kn_cgroup_free(cg);   /* as a daemon that was killed */
	assert_int_equal(kn_cgroup_sweep(&host, parent), 1);
	assert_int_equal(kn_cgroup_sweep(&host, parent), 0);
	*strchr(parent, '/') = '\0';
	kn_cgroup_sweep(&host, parent);
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", host.memory, parent);
	assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(version_1_is_preferred_where_memory_is_mounted_there),
		cmocka_unit_test(version_2_is_taken_where_it_is_alone),
		cmocka_unit_test(hosts_without_controllers_are_told),
		cmocka_unit_test(members_are_limited_counted_and_killed),
		cmocka_unit_test(memory_limit_kills_and_is_counted),
		cmocka_unit_test(names_are_used_once_and_sweep_takes_the_forgotten),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
