/*
 * Starts by restore, in real microVMs: what is saved, what is taken, what must differ between guests of
 * one snapshot, and everything that may be wrong with one. Needs root and QEMU.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/http.h"
#include "base/log.h"
#include "guest.h"
#include "oci/digest.h"
#include "oci/snapshot.h"
#include "test.h"

#define APP(...) ((const char *[]){ "/app", __VA_ARGS__, NULL })

static struct kn_snapshots *store;
static char store_dir[128], run_dir[128];

/* ---- the driver with a store ---------------------------------------------------------------- */

static void open_restores(const char *dir, uint32_t prepared)
{
	struct kn_snapshot_fact facts[KN_SNAPSHOT_FACTS];
	struct kn_snapshots_config sc = { .loop = guest_loop, .dir = dir,
		                          .max_bytes = UINT64_C(4) << 30, .facts = facts };
	struct kn_restores_config rc = KN_RESTORES_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;

	sc.n_facts = kn_restores_facts(&guest_driver, "test", facts, KN_ARRAY_LEN(facts));
	assert_ok(kn_snapshots_open(&sc, &store, &err), &err);
	rc.snapshots = store;
	rc.run_dir = run_dir;
	rc.prepared = prepared;
	assert_ok(kn_restores_new(guest_loop, &guest_driver, &rc, &guest_driver.restores, &err), &err);
}

static void close_restores(void)
{
	kn_restores_free(guest_driver.restores);
	guest_driver.restores = NULL;
	kn_snapshots_close(store);
	store = NULL;
	assert_int_equal(access(run_dir, F_OK), -1);
}

static size_t files_in(const char *path)
{
	DIR *d = opendir(path);
	size_t n = 0;

	for (struct dirent *e; d && (e = readdir(d));)
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

static void wait_idle(void)
{
	uint64_t end = kn_now_ns() + GUEST_SECONDS * KN_NS_PER_S;

	while (kn_restores_busy(guest_driver.restores) && kn_now_ns() < end)
		assert_true(kn_loop_once(guest_loop, 100) >= 0);
	assert_false(kn_restores_busy(guest_driver.restores));
}

static void start(struct guest *g, const char *what, bool snapshot)
{
	struct kn_sandbox_config c = guest_config(APP(what));

	c.snapshot = snapshot;
	guest_start(g, &c);
	if (!g->ready)
		fail_msg("not ready: %s", g->why.text);
}

/* Not guest_check_gone(): others may live beside it. */
static void stop(struct guest *g)
{
	guest_stop(g, 0);
	assert_int_equal(rmdir(g->run_dir), 0);
	for (size_t i = 0; i < 4; i++)
		kn_buf_fini(&g->log[i]);
}

static void expect_phases(const struct guest *g, const char *const *names)
{
	size_t n = 0;

	for (; names[n]; n++) {
		if (n >= g->sb->n_phases)
			fail_msg("no phase '%s'", names[n]);
		assert_string_equal(g->sb->phases[n].name, names[n]);
	}
	assert_int_equal(g->sb->n_phases, n);
}

static const char *const booted[] = { "spawn", "boot", "start", "ready", NULL };
static const char *const from_template[] = { "spawn", "restore", "start", "ready", NULL };
static const char *const from_function[] = { "spawn", "restore", "ready", NULL };
static const char *const from_prepared[] = { "ready", NULL };

/* Every test begins with a template and a snapshot of the function, whatever the last one broke. */
static int setup(void **state)
{
	struct guest g;

	(void)state;
	open_restores(store_dir, 0);
	start(&g, "http", true);
	wait_idle();
	stop(&g);
	assert_int_equal(files_in(store_dir), 2);
	return 0;
}

static int teardown(void **state)
{
	int r = guest_clean(state);

	if (guest_driver.restores)
		close_restores();
	guest_check_nothing();
	return r;
}

/* ---- restores ------------------------------------------------------------------------------- */

struct twin {
	char host[64], boot[64], random[64];
	long long time;
};

static void ask_twin(struct guest *g, struct twin *ret)
{
	struct reply r;

	guest_ask(g, "GET", "/twin", NULL, 0, &r);
	assert_int_equal(r.status, 200);
	if (sscanf(r.body.ptr, "host %63s time %lld boot %63s random %63s", ret->host, &ret->time,
	           ret->boot, ret->random) != 4)
		fail_msg("'%s'", r.body.ptr);
	reply_fini(&r);
}

static void expect_own(struct guest *g, const struct twin *t)
{
	long long now = (long long)(kn_wall_ns() / KN_NS_PER_S);

	assert_string_equal(t->host, strrchr(g->run_dir, '/') + 1);
	assert_true(t->time >= now - 5 && t->time <= now + 5);
	assert_int_equal(strlen(t->boot), 36);
}

/* Whoever takes a QEMU over cannot spoil the snapshot for the others: it can only read. */
static void expect_read_only(struct guest *g)
{
	struct kn_sandbox_stats stats;
	struct kn_err err = KN_ERR_INIT;
	char path[320], link[512], info[256];
	unsigned flags = 0, found = 0;

	assert_ok(kn_sandbox_qemu.stats(g->sb, &stats, &err), &err);
	snprintf(path, sizeof(path), "/proc/%d/fd", stats.pid);
	DIR *d = opendir(path);
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%.20s", stats.pid, e->d_name);
		ssize_t n = readlink(path, link, sizeof(link) - 1);
		if (n <= 0 || !memmem(link, (size_t)n, store_dir, strlen(store_dir)))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%.20s", stats.pid, e->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		n = read(fd, info, sizeof(info) - 1);
		close(fd);
		info[n > 0 ? n : 0] = '\0';
		assert_int_equal(sscanf(strstr(info, "flags:"), "flags: %o", &flags), 1);
		assert_int_equal(flags & O_ACCMODE, O_RDONLY);
		found++;
	}
	closedir(d);
	assert_true(found >= 1);
}

static void twins_of_one_snapshot_differ(void **state)
{
	struct guest g[2];
	struct twin t[2];
	struct reply r;

	(void)state;
	for (int i = 0; i < 2; i++)
		start(&g[i], "http", true);
	for (int i = 0; i < 2; i++) {
		expect_phases(&g[i], from_function);
		ask_twin(&g[i], &t[i]);
		expect_own(&g[i], &t[i]);
		expect_read_only(&g[i]);
	}
	assert_string_not_equal(t[0].random, t[1].random);
	assert_string_not_equal(t[0].boot, t[1].boot);
	assert_string_not_equal(t[0].host, t[1].host);
	/* what one writes the other does not see */
	size_t len = 4 << 20;
	char *body = calloc(1, len);
	for (int i = 0; i < 2; i++) {
		memset(body, 'a' + i, len);
		guest_ask(&g[i], "POST", "/echo", body, len, &r);
		assert_int_equal(r.body.len, len);
		assert_memory_equal(r.body.ptr, body, len);
		reply_fini(&r);
	}
	free(body);
	guest_ask(&g[0], "GET", "/me", NULL, 0, &r);
	assert_non_null(strstr(r.body.ptr, "write 1 null 1 zero 1 init 0 modules 0"));
	reply_fini(&r);
	stop(&g[0]);
	ask_twin(&g[1], &t[1]);
	stop(&g[1]);
}

/* The folder of the snapshot whose manifest says this. */
static void find_snapshot(const char *about, char ret[300])
{
	DIR *d = opendir(store_dir);

	ret[0] = '\0';
	for (struct dirent *e; (e = readdir(d));) {
		struct kn_buf text = KN_BUF_INIT;
		char path[512];
		snprintf(path, sizeof(path), "%s/%s/manifest.json", store_dir, e->d_name);
		if (e->d_name[0] != '.' && kn_read_file(AT_FDCWD, path, 1 << 16, &text, NULL) == 0 &&
		    strstr(text.ptr, about))
			snprintf(ret, 300, "%s/%.150s", store_dir, e->d_name);
		kn_buf_fini(&text);
	}
	closedir(d);
	assert_true(ret[0]);
}

static void a_function_without_snapshots_starts_from_the_template(void **state)
{
	struct kn_err why = KN_ERR_INIT;
	char about[160], folder[300];
	struct guest g, other;
	struct twin t;

	(void)state;
	start(&g, "http", false);
	expect_phases(&g, from_template);
	ask_twin(&g, &t);
	expect_own(&g, &t);
	/* another one, whose disk is what the template never saw */
	struct kn_sandbox_config c = guest_config(APP("stdio"));
	c.contract = KN_CONTRACT_STDIO;
	c.snapshot = true;
	guest_start(&other, &c);
	assert_true(other.ready);
	expect_phases(&other, from_template);
	wait_idle();
	snprintf(about, sizeof(about), "instance %s\"", strrchr(other.run_dir, '/') + 1);
	stop(&other);
	assert_int_equal(files_in(store_dir), 3);
	guest_start(&other, &c);
	assert_true(other.ready);
	expect_phases(&other, from_function);
	stop(&other);
	stop(&g);
	find_snapshot(about, folder);
	kn_fail(&why, ECANCELED, "the next tests have one of their own");
	kn_snapshots_spoil(store, strrchr(folder, '/') + 1, &why);
}

static void a_failing_function_is_not_the_templates_fault(void **state)
{
	struct kn_sandbox_config c = guest_config(APP("fail"));
	struct guest g;

	(void)state;
	c.snapshot = true;
	guest_start(&g, &c);
	assert_false(g.ready);
	assert_non_null(strstr(g.why.text, "exited with code"));
	assert_int_equal(files_in(store_dir), 2);
	assert_int_equal(rmdir(g.run_dir), 0);
	for (size_t i = 0; i < 4; i++)
		kn_buf_fini(&g.log[i]);
}

static void a_prepared_guest_is_handed_over(void **state)
{
	struct guest g[2];
	struct twin t[2];

	(void)state;
	close_restores();
	open_restores(store_dir, 1);
	start(&g[0], "http", true);   /* its snapshot may not be checked yet */
	wait_idle();
	stop(&g[0]);
	start(&g[0], "http", true);
	expect_phases(&g[0], from_function);
	uint64_t end = kn_now_ns() + GUEST_SECONDS * KN_NS_PER_S;
	while (kn_restores_prepared(guest_driver.restores) < 1 && kn_now_ns() < end)
		assert_true(kn_loop_once(guest_loop, 100) >= 0);
	start(&g[1], "http", true);
	expect_phases(&g[1], from_prepared);
	for (int i = 0; i < 2; i++) {
		ask_twin(&g[i], &t[i]);
		expect_own(&g[i], &t[i]);
	}
	assert_string_not_equal(t[0].random, t[1].random);
	assert_string_not_equal(t[0].boot, t[1].boot);
	for (int i = 0; i < 2; i++)
		stop(&g[i]);
	close_restores();
}

/* ---- what may be wrong ---------------------------------------------------------------------- */

static void spoil_file(const char *folder, const char *name)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pwrite(fd, "spoiled", 7, 4096 * i), 7);
	close(fd);
}

static void spoiled_files_are_made_anew(void **state)
{
	static const char *const names[] = { "memory", "state" };
	char folder[300];
	struct guest g;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(names); i++) {
		find_snapshot("function ", folder);
		spoil_file(folder, names[i]);
		start(&g, "http", true);
		expect_phases(&g, from_template);
		wait_idle();
		stop(&g);
		assert_int_equal(files_in(store_dir), 2);
		start(&g, "http", true);
		expect_phases(&g, from_function);
		stop(&g);
	}
}

/* The files are as they were saved, and QEMU does not take them all the same. */
static void pretend_saved_so(const char *folder, const char *name)
{
	struct kn_snapshot_manifest m;
	struct kn_buf text = KN_BUF_INIT, bytes = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest d;
	struct stat st;
	char path[400];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_ok(kn_read_file(AT_FDCWD, path, 1 << 20, &bytes, &err), &err);
	assert_ok(kn_digest_of(KN_SHA256, bytes.ptr, bytes.len, &d, &err), &err);
	assert_int_equal(stat(path, &st), 0);
	snprintf(path, sizeof(path), "%s/manifest.json", folder);
	assert_ok(kn_read_file(AT_FDCWD, path, 1 << 16, &text, &err), &err);
	assert_ok(kn_snapshot_manifest_parse(kn_buf_view(&text), &m, &err), &err);
	snprintf(m.state.sha256, sizeof(m.state.sha256), "%.64s", kn_digest_hex(&d));
	m.state.mtime_ns = (uint64_t)st.st_mtim.tv_sec * KN_NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
	m.state.ctime_ns = (uint64_t)st.st_ctim.tv_sec * KN_NS_PER_S + (uint64_t)st.st_ctim.tv_nsec;
	kn_buf_clear(&text);
	kn_snapshot_manifest_print(&m, &text);
	assert_ok(kn_write_file(AT_FDCWD, path, text.ptr, text.len, 0600, &err), &err);
	kn_buf_fini(&text);
	kn_buf_fini(&bytes);
}

static void what_cannot_be_restored_is_booted(void **state)
{
	struct kn_snapshot snap;
	struct kn_err err = KN_ERR_INIT;
	char folder[300];
	struct guest g;

	(void)state;
	find_snapshot("function ", folder);
	spoil_file(folder, "state");
	pretend_saved_so(folder, "state");
	close_restores();
	open_restores(store_dir, 0);
	uint64_t end = kn_now_ns() + GUEST_SECONDS * KN_NS_PER_S;
	const char *key = strrchr(folder, '/') + 1;
	while (kn_snapshots_get(store, key, &snap, &err) == -EAGAIN && kn_now_ns() < end)
		assert_true(kn_loop_once(guest_loop, 100) >= 0);
	kn_snapshot_fini(&snap);
	start(&g, "http", true);
	expect_phases(&g, booted);
	wait_idle();
	stop(&g);
	assert_int_equal(files_in(store_dir), 2);   /* made anew */
}

static void a_full_disk_costs_only_time(void **state)
{
	char dir[160];
	struct guest g;
	struct reply r;

	(void)state;
	close_restores();
	snprintf(dir, sizeof(dir), "%s/small", guest_folder);
	mkdir(dir, 0700);
	assert_int_equal(mount("small", dir, "tmpfs", 0, "size=64m"), 0);
	open_restores(dir, 0);
	start(&g, "http", true);
	expect_phases(&g, booted);
	uint64_t end = kn_now_ns() + 2 * KN_NS_PER_S;   /* both builds fail at once; a retry is far */
	while (kn_now_ns() < end)
		assert_true(kn_loop_once(guest_loop, 100) >= 0);
	assert_int_equal(files_in(dir), 0);
	guest_ask(&g, "GET", "/", NULL, 0, &r);
	assert_int_equal(r.status, 200);
	reply_fini(&r);
	stop(&g);
	close_restores();
	assert_int_equal(umount(dir), 0);
	rmdir(dir);
}

/* A child of this process that is not one of these. */
static pid_t other_child(pid_t not_this)
{
	char path[64], text[1024] = "";

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	(void)!read(fd, text, sizeof(text) - 1);
	close(fd);
	for (char *at = text, *end; *at; at = end) {
		pid_t pid = (pid_t)strtol(at, &end, 10);
		if (end == at)
			break;
		if (pid != not_this)
			return pid;
	}
	return 0;
}

static void a_killed_builder_leaves_nothing(void **state)
{
	struct kn_sandbox_stats stats;
	struct kn_err err = KN_ERR_INIT;
	struct guest g;
	struct reply r;
	pid_t builder = 0;
	char folder[300];

	(void)state;
	find_snapshot("function ", folder);
	spoil_file(folder, "memory");
	start(&g, "http", true);
	assert_ok(kn_sandbox_qemu.stats(g.sb, &stats, &err), &err);
	uint64_t end = kn_now_ns() + GUEST_SECONDS * KN_NS_PER_S;
	while (!(builder = other_child(stats.pid)) && kn_now_ns() < end)
		assert_true(kn_loop_once(guest_loop, 5) >= 0);
	assert_true(builder > 0);
	assert_int_equal(kill(builder, SIGKILL), 0);
	wait_idle();
	assert_int_equal(files_in(store_dir), 1);   /* the template */
	assert_int_equal(files_in(run_dir), 0);
	guest_ask(&g, "GET", "/", NULL, 0, &r);
	assert_int_equal(r.status, 200);
	reply_fini(&r);
	stop(&g);
	close_restores();
}

int main(int argc, char **argv)
{
	struct kn_log_config quiet = { .level = getenv("KILN_LOG") ? KN_DEBUG : KN_ERROR, .fd = 2 };
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		TEST(twins_of_one_snapshot_differ),
		TEST(a_function_without_snapshots_starts_from_the_template),
		TEST(a_failing_function_is_not_the_templates_fault),
		TEST(a_prepared_guest_is_handed_over),
		TEST(spoiled_files_are_made_anew),
		TEST(what_cannot_be_restored_is_booted),
		TEST(a_full_disk_costs_only_time),
		TEST(a_killed_builder_leaves_nothing),
	};
	int r = argc > 1 ? guest_setup(argv[1]) : 2;

	if (r != 0)
		return r;
	kn_log_setup(&quiet);
	snprintf(store_dir, sizeof(store_dir), "%s/snapshots", guest_folder);
	snprintf(run_dir, sizeof(run_dir), "%s/own", guest_folder);
	if (argc > 2)
		cmocka_set_test_filter(argv[2]);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	guest_teardown();
	return r;
}
