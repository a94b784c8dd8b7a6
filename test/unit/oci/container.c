/* What a config alone tells, and roots built for real in a child with namespaces of its own. */
#include "oci/container.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/mount.h"
#include "test.h"

/* ---- checking ------------------------------------------------------------------------------ */

static struct kn_container_config good(void)
{
	return (struct kn_container_config){
		.namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS,
		.root = "/run/x/root",
		.mounts = kn_container_mounts,
		.n_mounts = kn_container_n_mounts,
		.devices = kn_container_devices,
		.n_devices = kn_container_n_devices,
		.masked_paths = kn_container_masked,
		.read_only_paths = kn_container_read_only,
		.hostname = "box",
	};
}

static void refused(const struct kn_container_config *c, const char *says)
{
	struct kn_err err = KN_ERR_INIT;

	assert_fails(kn_container_check(c, &err), EINVAL, &err, says);
}

static void the_default_is_fine(void **state)
{
	struct kn_container_config c = good();
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_container_check(&c, &err), &err);
}

static void paths_are_absolute_and_plain(void **state)
{
	const char *const up[] = { "/proc/kcore", "/proc/../etc", NULL };
	const char *const relative[] = { "proc", NULL };
	struct kn_container_mount mount = { .target = "tmp", .type = "tmpfs" };
	struct kn_container_mount bind = { .target = "/data", .type = "bind", .source = "data" };
	struct kn_container_mount untyped = { .target = "/data" };
	struct kn_container_device device = { "/etc/null", 1, 3, 0666 };

	(void)state;
	struct kn_container_config c = good();
	c.root = "root";
	refused(&c, "root 'root' is not absolute");
	c = good();
	c.root = NULL;
	refused(&c, "root '' is not absolute");
	c = good();
	c.masked_paths = up;
	refused(&c, "masked path '/proc/../etc'");
	c = good();
	c.read_only_paths = relative;
	refused(&c, "read-only path 'proc'");
	c = good();
	c.mounts = &mount;
	c.n_mounts = 1;
	refused(&c, "mount target 'tmp'");
	c.mounts = &bind;
	refused(&c, "source of a bind mount 'data'");
	c.mounts = &untyped;
	refused(&c, "has no type");
	c = good();
	c.devices = &device;
	c.n_devices = 1;
	refused(&c, "device /etc/null is not in /dev");
}

static void namespaces_are_made_or_entered(void **state)
{
	struct kn_container_join join = { CLONE_NEWNET, "/proc/1/ns/net" };

	(void)state;
	struct kn_container_config c = good();
	c.joins = &join;
	c.n_joins = 1;
	refused(&c, "is to be entered, but the process has one of its own");
	c.namespaces &= ~(uint64_t)CLONE_NEWNET;
	struct kn_err err = KN_ERR_INIT;
	assert_ok(kn_container_check(&c, &err), &err);
	join.type = CLONE_NEWPID;
	refused(&c, "none can be entered by a process that runs already");
	join = (struct kn_container_join){ CLONE_NEWIPC, "ns" };
	refused(&c, "namespace 'ns' is not absolute");
	c = good();
	c.namespaces &= ~(uint64_t)CLONE_NEWNS;
	refused(&c, "a mount namespace of its own");
	c = good();
	c.namespaces &= ~(uint64_t)CLONE_NEWUTS;
	refused(&c, "host name 'box' without a UTS namespace");
}

static void sysctls_of_the_host_are_refused(void **state)
{
	static const struct {
		const char *name;
		const char *says;         /* NULL: fine */
	} cases[] = {
		{ "net.ipv4.ip_forward", NULL },
		{ "kernel.hostname", NULL },
		{ "kernel.shmmax", "needs a namespace of the container's own" },
		{ "kernel.core_pattern", "belongs to the host" },
		{ "vm.overcommit_memory", "belongs to the host" },
		{ "net/ipv4/ip_forward", "single dots" },
		{ "net...kernel.core_pattern", "single dots" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_container_sysctl s = { cases[i].name, "1" };
		struct kn_container_config c = good();
		struct kn_err err = KN_ERR_INIT;
		c.sysctls = &s;
		c.n_sysctls = 1;
		if (cases[i].says)
			refused(&c, cases[i].says);
		else
			assert_ok(kn_container_check(&c, &err), &err);
	}
}

/* ---- building, in a child ------------------------------------------------------------------- */

static char folder[] = "/tmp/kn-container-XXXXXX";

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

/* Runs in namespaces of its own; what it returns is the child's exit code, 0 is good. */
static int in_child(int (*body)(struct kn_err *err))
{
	struct kn_err err = KN_ERR_INIT;
	int status;

	if (geteuid() != 0)
		skip();
	pid_t pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWPID) < 0)
			_exit(100);
		pid_t first = fork();
		if (first == 0) {
			int r = kn_mount_private(&err) < 0 ? 101 : body(&err);
			if (r)
				fprintf(stderr, "%d: %s\n", r, err.text);
			_exit(r);
		}
		if (first < 0 || waitpid(first, &status, 0) != first || !WIFEXITED(status))
			_exit(102);
		_exit(WEXITSTATUS(status));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int mount_root(char path[64], struct kn_err *err)
{
	snprintf(path, 64, "%s/root", folder);
	(void)mkdir(path, 0755);
	return kn_mount("root", path, "tmpfs", 0, NULL, err);
}

static struct kn_container_config config_for(const char *root)
{
	struct kn_container_config c = good();

	c.root = root;
	return c;
}

static bool can_write(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	kn_close(fd);
	return fd >= 0;
}

static int build_default(struct kn_err *err)
{
	char root[64], name[64] = "";
	struct stat st;

	if (mount_root(root, err) < 0)
		return 1;
	struct kn_container_config c = config_for(root);
	if (kn_container_root(&c, err) < 0)
		return 2;
	if (access(folder, F_OK) == 0 || access("/usr", F_OK) == 0)
		return 3;   /* something of the old root is left */
	if (stat("/proc/1/status", &st) < 0 || !can_write("/dev/null") || !can_write("/tmp/x") ||
	    stat("/dev/pts/ptmx", &st) < 0 || lstat("/dev/stdin", &st) < 0)
		return 4;
	if (can_write("/proc/sys/kernel/hostname") || can_write("/sys/x"))
		return 5;
	if (stat("/proc/interrupts", &st) < 0 || !S_ISCHR(st.st_mode))
		return 6;   /* masked by /dev/null */
	gethostname(name, sizeof(name));
	if (strcmp(name, "box") != 0 || stat("/etc/hosts", &st) < 0 || st.st_size == 0)
		return 7;
	if (kn_container_close(&c, err) < 0 || !can_write("/y"))
		return 8;
	return 0;
}

static int build_read_only(struct kn_err *err)
{
	char root[64];

	if (mount_root(root, err) < 0)
		return 1;
	struct kn_container_config c = config_for(root);
	c.read_only_root = true;
	if (kn_container_root(&c, err) < 0 || !can_write("/before"))
		return 2;
	if (kn_container_close(&c, err) < 0)
		return 3;
	return can_write("/after") || can_write("/before") || !can_write("/tmp/x") ? 4 : 0;
}

/* The source is outside, and found although the root has been left when it is mounted. */
static int build_with_binds(struct kn_err *err)
{
	char root[64], outside[64], file[80];

	if (mount_root(root, err) < 0)
		return 1;
	snprintf(outside, sizeof(outside), "%s/outside", folder);
	snprintf(file, sizeof(file), "%s/file", outside);
	if (mkdir(outside, 0755) < 0 || !can_write(file))
		return 2;
	const struct kn_container_mount mounts[] = {
		{ "/data", "bind", outside, MS_BIND, NULL, false },
		{ "/deep/ly/file", "bind", file, MS_BIND | MS_RDONLY, NULL, false },
		{ "/none", "nosuchfs", NULL, 0, NULL, true },
	};
	struct kn_container_config c = config_for(root);
	c.mounts = mounts;
	c.n_mounts = KN_ARRAY_LEN(mounts);
	c.n_devices = 0;
	c.masked_paths = c.read_only_paths = NULL;
	if (kn_container_root(&c, err) < 0)
		return 3;
	return can_write("/data/new") && !can_write("/deep/ly/file") ? 0 : 4;
}

/* An image whose /proc leads elsewhere. */
static int build_over_link(struct kn_err *err)
{
	char root[64], link[80];

	if (mount_root(root, err) < 0)
		return 1;
	snprintf(link, sizeof(link), "%s/proc", root);
	if (symlink("/tmp", link) < 0)
		return 2;
	struct kn_container_config c = config_for(root);
	if (kn_container_root(&c, err) != -ELOOP)
		return 3;
	return strstr(err->text, "the image's /proc is a link") ? 0 : 4;
}

static void the_default_root_has_what_programs_expect(void **state)
{
	(void)state;
	assert_int_equal(in_child(build_default), 0);
}

static void a_read_only_root_is_closed_at_the_end(void **state)
{
	(void)state;
	assert_int_equal(in_child(build_read_only), 0);
}

static void binds_come_from_outside(void **state)
{
	(void)state;
	assert_int_equal(in_child(build_with_binds), 0);
}

static void links_of_an_image_are_not_mounted_over(void **state)
{
	(void)state;
	assert_int_equal(in_child(build_over_link), 0);
}

/* ---- rights -------------------------------------------------------------------------------- */

static bool status_has(const char *line)
{
	struct kn_buf text = KN_BUF_INIT;

	return kn_read_file(AT_FDCWD, "/proc/self/status", 1 << 16, &text, NULL) == 0 &&
	       strstr(text.ptr, line);
}

static int limit_all(struct kn_err *err)
{
	static const gid_t groups[] = { 7, 9 };
	static const struct kn_rlimit limits[] = { { RLIMIT_NOFILE, 64, 64 } };
	const uint64_t net_bind = UINT64_C(1) << 10;
	struct kn_container_process p = {
		.uid = 1000, .gid = 1001, .groups = groups, .n_groups = 2,
		.has_umask = true, .umask = 027, .cwd = "/tmp",
		.caps = { net_bind, net_bind, net_bind, net_bind, net_bind },
		.rlimits = limits, .n_rlimits = 1,
		.has_oom_score_adj = true, .oom_score_adj = 321,
		.no_new_privs = true,
	};
	char cwd[16];

	if (kn_container_limit(&p, err) < 0)
		return 1;
	static const char *const lines[] = {
		"\nUmask:\t0027\n", "\nUid:\t1000\t1000\t1000\t1000\n",
		"\nGid:\t1001\t1001\t1001\t1001\n", "\nGroups:\t7 9 \n",
		"\nCapInh:\t0000000000000400\n", "\nCapPrm:\t0000000000000400\n",
		"\nCapEff:\t0000000000000400\n", "\nCapBnd:\t0000000000000400\n",
		"\nCapAmb:\t0000000000000400\n", "\nNoNewPrivs:\t1\n",
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(lines); i++)
		if (!status_has(lines[i]))
			return 10 + (int)i;
	struct kn_buf score = KN_BUF_INIT;
	if (kn_read_file(AT_FDCWD, "/proc/self/oom_score_adj", 64, &score, NULL) < 0 ||
	    strcmp(score.ptr, "321\n") != 0)
		return 2;
	struct rlimit l;
	getrlimit(RLIMIT_NOFILE, &l);
	return l.rlim_max == 64 && getcwd(cwd, sizeof(cwd)) && strcmp(cwd, "/tmp") == 0 ? 0 : 3;
}

static void a_process_keeps_what_it_is_given(void **state)
{
	(void)state;
	assert_int_equal(in_child(limit_all), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_default_is_fine),
		cmocka_unit_test(paths_are_absolute_and_plain),
		cmocka_unit_test(namespaces_are_made_or_entered),
		cmocka_unit_test(sysctls_of_the_host_are_refused),
		cmocka_unit_test(the_default_root_has_what_programs_expect),
		cmocka_unit_test(a_read_only_root_is_closed_at_the_end),
		cmocka_unit_test(binds_come_from_outside),
		cmocka_unit_test(links_of_an_image_are_not_mounted_over),
		cmocka_unit_test(a_process_keeps_what_it_is_given),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
