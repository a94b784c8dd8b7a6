/* Functions in real containers: both contracts, what may end one, and what they must not reach. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/http.h"
#include "guest.h"
#include "host/cgroup.h"
#include "oci/sandbox_ns.h"
#include "test.h"

#define APP(...) ((const char *[]){ "/app", __VA_ARGS__, NULL })
#define HOSTILE ((const char *[]){ "/hostile", NULL })

static struct kn_ns *ns;

static struct kn_sandbox_config config_of(const char *const *argv, enum kn_contract contract)
{
	struct kn_sandbox_config c = guest_config(argv);

	c.memory_bytes = UINT64_C(64) << 20;
	c.contract = contract;
	c.boot_timeout_ms = c.ready_timeout_ms = 20000;
	c.time_limit_ms = 20000;
	return c;
}

static void start(struct guest *g, struct kn_sandbox_config *c)
{
	guest_start(g, c);
	if (!g->ready)
		fail_msg("not ready: %s", g->why.text);
}

static void expect_end(struct guest *g, const char *reason)
{
	guest_wait(&g->ended);
	if (!strstr(g->why.text, reason) || !g->why.code)
		fail_msg("'%s' does not say '%s'", g->why.text, reason);
	guest_check_gone(g);
}

/* One order for the hostile function; its answer. */
static void order(struct guest *g, const char *what, int status, const char *says)
{
	struct reply r;

	guest_ask(g, "POST", "/", what, strlen(what), &r);
	if (r.status != status || !r.body.ptr || !strstr(r.body.ptr, says))
		fail_msg("'%s': %d '%s' is not %d '%s'; %s", what, r.status,
		         r.body.ptr ? r.body.ptr : "", status, says, g->why.text);
	reply_fini(&r);
}

/* ---- contracts ----------------------------------------------------------------------------- */

static void http_function_serves_warm_requests(void **state)
{
	const char *env[] = { "COLOUR=blue", NULL };
	struct kn_sandbox_config c = config_of(APP("http"), KN_CONTRACT_HTTP);
	struct kn_sandbox_stats s;
	struct kn_err err = KN_ERR_INIT;
	struct guest g;
	struct reply r;

	(void)state;
	c.env = env;
	c.user = "app";
	c.cwd = "/work/here";
	c.ready_path = "/ready";
	start(&g, &c);
	assert_int_equal(g.sb->n_phases, 3);
	assert_string_equal(g.sb->phases[0].name, "spawn");
	assert_string_equal(g.sb->phases[2].name, "ready");
	for (int i = 0; i < 20; i++) {
		guest_ask(&g, "GET", "/", NULL, 0, &r);
		assert_int_equal(r.status, 200);
		assert_memory_equal(r.body.ptr, "request ", 8);
		reply_fini(&r);
	}
	guest_ask(&g, "GET", "/me", NULL, 0, &r);
	static const char *const says[] = {
		"uid 1000 gid 1001 cwd /work/here host test-", "COLOUR=blue HOME=/home/app PATH=/usr/local",
		"write 1 null 1 zero 1 init 0 modules 0", "vda 0 port 0 proc 1", "groups 1 first 50",
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(says); i++)
		if (!strstr(r.body.ptr, says[i]))
			fail_msg("no '%s' in: %s", says[i], r.body.ptr);
	reply_fini(&r);
	assert_ok(kn_sandbox_ns.stats(g.sb, &s, &err), &err);
	assert_true(s.memory_bytes > 100000 && s.memory_bytes < UINT64_C(64) << 20);
	assert_true(s.cpu_ns > 0 && s.pid > 0);
	assert_true(log_has(&g, KN_STDOUT, "listening on 8080\n"));
	guest_stop(&g, 10000);
	assert_true(log_has(&g, KN_STDOUT, "terminated politely\n"));
	guest_check_gone(&g);
}

static void large_bodies_go_both_ways(void **state)
{
	struct kn_sandbox_config c = config_of(APP("http"), KN_CONTRACT_HTTP);
	size_t len = 32 << 20;
	struct guest g;
	struct reply r;

	(void)state;
	start(&g, &c);
	char *body = malloc(len);
	for (size_t i = 0; i < len; i++)
		body[i] = (char)(i * 2654435761u >> 13);
	guest_ask(&g, "POST", "/echo", body, len, &r);
	assert_int_equal(r.status, 200);
	assert_int_equal(r.body.len, len);
	assert_memory_equal(r.body.ptr, body, len);
	free(body);
	reply_fini(&r);
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

static void stdio_function_runs_a_process_a_request(void **state)
{
	struct kn_sandbox_config c = config_of(APP("obey"), KN_CONTRACT_STDIO);
	struct guest g;

	(void)state;
	c.time_limit_ms = 500;
	start(&g, &c);
	order(&g, "hello", 200, "you said hello");
	order(&g, "fail", 500, "exited with code 3");
	order(&g, "hang", 504, "500 ms");
	order(&g, "segv", 500, "SEGV");
	order(&g, "hello", 200, "you said hello");
	guest_stop(&g, 1000);
	guest_check_gone(&g);
}

static void many_run_side_by_side(void **state)
{
	struct kn_sandbox_config c = config_of(APP("http"), KN_CONTRACT_HTTP);
	static struct guest g[20];
	struct reply r;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(g); i++)
		start(&g[i], &c);
	for (size_t i = 0; i < KN_ARRAY_LEN(g); i++) {
		guest_ask(&g[i], "GET", "/", NULL, 0, &r);
		assert_int_equal(r.status, 200);
		reply_fini(&r);
	}
	for (size_t i = 0; i < KN_ARRAY_LEN(g); i++)
		kn_sandbox_ns.stop(g[i].sb, 1000);
	for (size_t i = 0; i < KN_ARRAY_LEN(g); i++)
		guest_wait(&g[i].ended);
	for (size_t i = 0; i < KN_ARRAY_LEN(g); i++)
		guest_check_gone(&g[i]);
}

/* ---- ends ---------------------------------------------------------------------------------- */

static void ends_are_told(void **state)
{
	static const struct {
		const char *argv[3], *reason;
	} cases[] = {
		{ { "/app", "nonsense" }, "exited with code 3 before it was ready: cannot open /data" },
		{ { "/missing" }, "executable file not found: /missing" },
		{ { "/data" }, "permission denied: /data" },
		{ { "/script" }, "its interpreter '/bin/python9'" },
		{ { "/text" }, "exec format error" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_sandbox_config c = config_of(cases[i].argv, KN_CONTRACT_HTTP);
		struct guest g;
		guest_start(&g, &c);
		expect_end(&g, cases[i].reason);
	}
}

static void a_function_that_never_listens_is_told(void **state)
{
	struct kn_sandbox_config c = config_of(APP("sleep"), KN_CONTRACT_HTTP);
	struct guest g;

	(void)state;
	c.ready_timeout_ms = 300;
	guest_start(&g, &c);
	expect_end(&g, "not ready within 300 ms: nothing listens on port 8080");
}

static void an_end_of_its_own_is_told(void **state)
{
	struct kn_sandbox_config c = config_of(APP("http"), KN_CONTRACT_HTTP);
	struct guest g;
	struct reply r;

	(void)state;
	start(&g, &c);
	guest_begin(&g, "GET", "/exit", 0, &r);
	expect_end(&g, "exited with code 5: told to fail");
	guest_wait(&r.done);
	reply_fini(&r);
}

static void who_ignores_sigterm_is_killed(void **state)
{
	struct kn_sandbox_config c = config_of(APP("stubborn"), KN_CONTRACT_HTTP);
	struct guest g;

	(void)state;
	start(&g, &c);
	guest_stop(&g, 100);
	guest_check_gone(&g);
}

/* From outside, as an operator or the kernel might. */
static void a_killed_first_process_is_told(void **state)
{
	struct kn_sandbox_config c = config_of(APP("http"), KN_CONTRACT_HTTP);
	struct kn_sandbox_stats s;
	struct guest g;

	(void)state;
	start(&g, &c);
	assert_int_equal(kn_sandbox_ns.stats(g.sb, &s, NULL), 0);
	kill(s.pid, SIGKILL);
	expect_end(&g, "the container's agent killed by signal 9 (KILL)");
}

static void what_cannot_be_is_refused(void **state)
{
	struct kn_sandbox_events none = { .ready = NULL };
	struct kn_err err = KN_ERR_INIT;
	struct kn_sandbox *sb;
	char folder[96];

	(void)state;
	struct kn_sandbox_config c = config_of(APP("http"), KN_CONTRACT_MESSAGE);
	snprintf(folder, sizeof(folder), "%s/refused", guest_folder);
	assert_int_equal(mkdir(folder, 0700), 0);
	c.id = "refused";
	c.run_dir = folder;
	assert_fails(kn_sandbox_ns.start(guest_loop, ns, &c, &none, &sb, &err), EINVAL, &err,
	             "contract http or stdio");
	c.contract = KN_CONTRACT_HTTP;
	c.memory_bytes = 1 << 20;
	err = KN_ERR_INIT;
	assert_fails(kn_sandbox_ns.start(guest_loop, ns, &c, &none, &sb, &err), EINVAL, &err,
	             "at least 8 MiB");
	c.memory_bytes = 64 << 20;
	c.image = "/bin/sh";
	err = KN_ERR_INIT;
	assert_true(kn_sandbox_ns.start(guest_loop, ns, &c, &none, &sb, &err) < 0);
	if (!strstr(err.text, "mount /bin/sh"))
		fail_msg("'%s'", err.text);
	assert_int_equal(rmdir(folder), 0);   /* nothing is left in it */
}

/* ---- files and the root -------------------------------------------------------------------- */

static void secrets_are_the_users(void **state)
{
	static const struct kn_sandbox_file files[] = {
		{ "/var/openfaas/secrets/key", { "s3cret", 6 }, 0400 },
	};
	struct kn_sandbox_config c = config_of(HOSTILE, KN_CONTRACT_STDIO);
	struct guest g;

	(void)state;
	c.user = "app";
	c.files = files;
	c.n_files = 1;
	start(&g, &c);
	order(&g, "read /var/openfaas/secrets/key", 200, "s3cret");
	order(&g, "stat /var/openfaas/secrets/key", 200, "uid 1000 gid 1001 mode 400");
	order(&g, "write /var/openfaas/secrets/key", 200, "Permission denied");
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

static void read_only_root_cannot_be_written(void **state)
{
	static const struct kn_sandbox_file files[] = { { "/run/key", { "s3cret", 6 }, 0444 } };
	struct kn_sandbox_config c = config_of(HOSTILE, KN_CONTRACT_STDIO);
	struct guest g;

	(void)state;
	c.files = files;
	c.n_files = 1;
	start(&g, &c);
	order(&g, "write /new", 200, "ok");
	order(&g, "write /etc/passwd", 200, "ok");
	guest_stop(&g, 0);
	guest_check_gone(&g);

	c.read_only_root = true;
	start(&g, &c);
	order(&g, "write /new", 200, "Read-only file system");
	order(&g, "write /etc/passwd", 200, "Read-only file system");
	order(&g, "write /tmp/new", 200, "ok");
	order(&g, "read /run/key", 200, "s3cret");
	order(&g, "mount", 200, "Operation not permitted");
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

/* ---- hostile functions --------------------------------------------------------------------- */

static void nothing_of_the_host_is_reached(void **state)
{
	static const char *const denied[] = {
		"mount", "umount /proc", "unshare", "setns", "keyctl", "mknod", "bpf", "module", "swap",
		"reboot", "settime", "hostname", "ptrace 1", "iouring", "chroot-mount", "nice -20",
		"write /proc/sys/kernel/core_pattern", "write /proc/sysrq-trigger",
		"write /sys/kernel/uevent_helper", "write /proc/1/oom_score_adj",
		"read /proc/1/environ", "read /proc/1/root/etc/passwd",
		"write /proc/1/exe", "open-by-handle", "raise-limit",
	};
	struct kn_sandbox_config c = config_of(HOSTILE, KN_CONTRACT_STDIO);
	struct guest g;

	(void)state;
	start(&g, &c);
	order(&g, "whoami", 200, "uid 0 pids 2");
	order(&g, "caps", 200, "CapEff:\t00000000a80425fb");
	order(&g, "caps", 200, "CapBnd:\t00000000a80425fb");
	order(&g, "caps", 200, "NoNewPrivs:\t1");
	order(&g, "caps", 200, "Seccomp:\t2");
	for (size_t i = 0; i < KN_ARRAY_LEN(denied); i++)
		order(&g, denied[i], 200, "denied: ");
	/* Masked: empty, not refused. */
	order(&g, "read /proc/interrupts", 200, "nothing");
	order(&g, "read /proc/timer_list", 200, "nothing");
	order(&g, "list /sys/firmware", 200, "nothing");
	/* Its own world: loopback alone, its own host name, no process of the host. */
	order(&g, "interfaces", 200, "lo\n");
	order(&g, "connect-out", 200, "denied: Network is unreachable");
	order(&g, "kill-all", 200, "killed 0 others");
	order(&g, "open-descriptors", 200, "0 1 2 \n");
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

/* The kernel needs a moment until the last of the dead is gone; new processes are refused till then. */
static void wait_for_room(struct guest *g)
{
	int status = 500;

	for (int i = 0; i < 500 && status == 500; i++) {
		struct reply r;
		guest_ask(g, "POST", "/", "whoami", 6, &r);
		status = r.status;
		reply_fini(&r);
		usleep(status == 500 ? 10000 : 0);
	}
	assert_int_equal(status, 200);
}

static void a_fork_bomb_meets_its_limit(void **state)
{
	struct kn_sandbox_config c = config_of(HOSTILE, KN_CONTRACT_STDIO);
	struct guest g;

	(void)state;
	c.max_pids = 40;
	c.time_limit_ms = 3000;
	start(&g, &c);
	order(&g, "forks", 200, "39 more");
	wait_for_room(&g);
	order(&g, "bomb", 504, "3000 ms");
	/* The bomb is over with its request. */
	wait_for_room(&g);
	usleep(100000);
	order(&g, "whoami", 200, "uid 0 pids 2");
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

static void a_memory_hog_is_killed_and_told(void **state)
{
	struct kn_sandbox_config c = config_of(APP("http"), KN_CONTRACT_HTTP);
	struct guest g;
	struct reply r;

	(void)state;
	c.argv = (const char *[]){ "/hostile", "eat", NULL };
	guest_start(&g, &c);
	expect_end(&g, "killed before it was ready: out of its memory limit of 64Mi");

	/* One request's process dies; the instance lives, and says why in its log. */
	c = config_of(HOSTILE, KN_CONTRACT_STDIO);
	start(&g, &c);
	guest_ask(&g, "POST", "/", "eat", 3, &r);
	assert_int_equal(r.status, 500);
	assert_non_null(strstr(r.body.ptr, "the function ran out of memory and was killed"));
	reply_fini(&r);
	order(&g, "whoami", 200, "uid 0");
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

static void a_full_disk_is_the_functions_own(void **state)
{
	struct kn_sandbox_config c = config_of(HOSTILE, KN_CONTRACT_STDIO);
	struct guest g, other;

	(void)state;
	start(&g, &c);
	start(&other, &c);
	order(&g, "fill /data2", 200, "denied: No space left on device");
	order(&g, "fill /dev/x", 200, "denied: No space left on device");
	order(&g, "whoami", 200, "uid 0");
	order(&other, "write /new", 200, "ok");
	guest_stop(&g, 0);
	guest_stop(&other, 0);
	guest_check_gone(&g);
	guest_check_gone(&other);
}

/* Where run times look for what they may use. */
static void limits_are_seen_inside(void **state)
{
	struct kn_sandbox_config c = config_of(HOSTILE, KN_CONTRACT_STDIO);
	struct kn_cgroup_host host;
	struct guest g;

	(void)state;
	c.max_pids = 40;
	start(&g, &c);
	assert_int_equal(kn_cgroup_find("/proc/self/mountinfo", &host, NULL), 0);
	if (host.version == KN_CGROUP_V2) {
		order(&g, "read /sys/fs/cgroup/memory.max", 200, "67108864");
		order(&g, "write /sys/fs/cgroup/pids.max", 200, "denied: ");
	} else {
		order(&g, "read /sys/fs/cgroup/memory/memory.limit_in_bytes", 200, "67108864");
		order(&g, "read /sys/fs/cgroup/pids/pids.max", 200, "41");
		order(&g, "write /sys/fs/cgroup/pids/pids.max", 200, "denied: ");
		order(&g, "read /proc/self/cgroup", 200, ":memory:/\n");
	}
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

static void cpu_time_is_limited(void **state)
{
	struct kn_sandbox_config c = config_of(HOSTILE, KN_CONTRACT_STDIO);
	struct kn_sandbox_stats before, after;
	struct guest g;

	(void)state;
	c.cpu_milli = 200;
	start(&g, &c);
	assert_int_equal(kn_sandbox_ns.stats(g.sb, &before, NULL), 0);
	uint64_t began = kn_now_ns();
	order(&g, "spin 1000", 200, "spun");
	uint64_t wall = kn_now_ns() - began;
	assert_int_equal(kn_sandbox_ns.stats(g.sb, &after, NULL), 0);
	/* A fifth of a core, in periods of 100 ms: half is far above that and far below all. */
	assert_true(after.cpu_ns - before.cpu_ns < wall / 2);
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

static void a_log_flood_is_held_back(void **state)
{
	struct kn_sandbox_config c = config_of(APP("http"), KN_CONTRACT_HTTP);
	struct guest g;
	struct reply r;

	(void)state;
	c.argv = (const char *[]){ "/hostile", "flood", NULL };
	start(&g, &c);
	for (int i = 0; i < 3; i++) {
		guest_ask(&g, "GET", "/", NULL, 0, &r);
		assert_int_equal(r.status, 200);
		reply_fini(&r);
	}
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

/* ---- a daemon that dies -------------------------------------------------------------------- */

/* Nobody may be there to reap it: a zombie has ended, too. */
static bool has_ended(pid_t pid)
{
	char path[64], state = 'Z';

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return true;
	(void)!fscanf(f, "%*d (%*[^)]) %c", &state);
	fclose(f);
	return state == 'Z' || state == 'X';
}

static void containers_die_with_their_daemon(void **state)
{
	struct kn_cgroup_host host;
	struct kn_sandbox_stats s;
	char path[256];
	int pipes[2];
	pid_t first = 0;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	pid_t daemon = fork();
	if (daemon == 0) {
		struct kn_sandbox_config c = config_of(APP("http"), KN_CONTRACT_HTTP);
		static struct guest g;
		if (kn_loop_new(&guest_loop, NULL) < 0)
			_exit(1);
		start(&g, &c);
		if (kn_sandbox_ns.stats(g.sb, &s, NULL) == 0)
			(void)!write(pipes[1], &s.pid, sizeof(s.pid));
		for (;;)
			pause();
	}
	assert_int_equal(read(pipes[0], &first, sizeof(first)), sizeof(first));
	close(pipes[0]);
	close(pipes[1]);
	assert_false(has_ended(first));
	kill(daemon, SIGKILL);
	waitpid(daemon, NULL, 0);
	for (int i = 0; i < 1000 && !has_ended(first); i++)
		usleep(10000);
	assert_true(has_ended(first));
	/* What remains is what the next daemon sweeps. */
	assert_int_equal(kn_cgroup_find("/proc/self/mountinfo", &host, NULL), 0);
	snprintf(path, sizeof(path), "%s/%s", host.memory, guest_cgroup);
	assert_int_equal(access(path, F_OK), 0);
	size_t swept = 0;
	for (int i = 0; i < 1000 && access(path, F_OK) == 0; i++) {
		swept += kn_sandbox_ns_sweep(ns);
		usleep(10000);
	}
	assert_int_equal(swept, 1);
	assert_int_equal(access(path, F_OK), -1);
}

int main(int argc, char **argv)
{
	static const char *const programs[] = { "hostile", NULL };
	struct kn_ns_config c = KN_NS_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;
	char agent[512];
	const struct CMUnitTest tests[] = {
		guest_test(http_function_serves_warm_requests),
		guest_test(large_bodies_go_both_ways),
		guest_test(stdio_function_runs_a_process_a_request),
		guest_test(many_run_side_by_side),
		guest_test(ends_are_told),
		guest_test(a_function_that_never_listens_is_told),
		guest_test(an_end_of_its_own_is_told),
		guest_test(who_ignores_sigterm_is_killed),
		guest_test(a_killed_first_process_is_told),
		guest_test(what_cannot_be_is_refused),
		guest_test(secrets_are_the_users),
		guest_test(read_only_root_cannot_be_written),
		guest_test(nothing_of_the_host_is_reached),
		guest_test(a_fork_bomb_meets_its_limit),
		guest_test(a_memory_hog_is_killed_and_told),
		guest_test(a_full_disk_is_the_functions_own),
		guest_test(limits_are_seen_inside),
		guest_test(cpu_time_is_limited),
		guest_test(a_log_flood_is_held_back),
		guest_test(containers_die_with_their_daemon),
	};

	if (argc < 2)
		return 2;
	if (argc > 2)
		cmocka_set_test_filter(argv[2]);
	snprintf(agent, sizeof(agent), "%s/kiln-agent", argv[1]);
	snprintf(guest_cgroup, sizeof(guest_cgroup), "kiln-test-%d", getpid());
	c.agent = agent;
	c.cgroup = guest_cgroup;
	if (kn_ns_new(&c, &ns, &err) < 0)
		guest_skip("users", err.text);
	int r = guest_setup_with(argv[1], &kn_sandbox_ns, ns, programs);
	if (r == 0) {
		r = cmocka_run_group_tests(tests, NULL, NULL);
		guest_teardown();
	}
	kn_ns_free(ns);
	return r;
}
