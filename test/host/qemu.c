/* Functions in real microVMs: both contracts, and everything that may end one. Needs root and QEMU. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/http.h"
#include "guest.h"
#include "test.h"

#define APP(...) ((const char *[]){ "/app", __VA_ARGS__, NULL })
#define HOSTILE ((const char *[]){ "/hostile", NULL })

static pid_t pid_of(struct guest *g)
{
	struct kn_sandbox_stats s;
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_sandbox_qemu.stats(g->sb, &s, &err), &err);
	assert_true(s.memory_bytes > 1 << 20 && s.memory_bytes < UINT64_C(1) << 30);
	assert_true(s.cpu_ns > 0);
	return s.pid;
}

static void expect_ready(struct guest *g)
{
	if (!g->ready)
		fail_msg("not ready: %s", g->why.text);
}

/* It ended by itself, for this reason. */
static void expect_end(struct guest *g, const char *reason)
{
	guest_wait(&g->ended);
	if (!strstr(g->why.text, reason) || !g->why.code)
		fail_msg("'%s' does not say '%s'", g->why.text, reason);
	guest_check_gone(g);
}

/* ---- contract http ------------------------------------------------------------------------- */

static void http_function_serves_warm_requests(void **state)
{
	const char *env[] = { "COLOUR=blue", NULL };
	struct kn_sandbox_config c = guest_config(APP("http"));
	struct guest g;
	struct reply r;

	(void)state;
	c.env = env;
	c.user = "app";
	c.cwd = "/work/here";
	c.ready_path = "/ready";
	guest_start(&g, &c);
	expect_ready(&g);
	assert_int_equal(g.sb->n_phases, 4);
	assert_string_equal(g.sb->phases[0].name, "spawn");
	assert_string_equal(g.sb->phases[3].name, "ready");
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
	assert_true(log_has(&g, KN_STDOUT, "listening on 8080\n"));
	guest_stop(&g, 10000);
	guest_check_gone(&g);
}

/* Read a head and body_len bytes of body, as they come; nothing else may come. */
static void read_slowly(struct guest *g, int fd, size_t body_len)
{
	static char chunk[1 << 16];
	uint64_t end = kn_now_ns() + GUEST_SECONDS * KN_NS_PER_S;
	size_t got = 0, head = 0;
	ssize_t n = 1;

	while ((!head || got < head + body_len) && n != 0 && kn_now_ns() < end) {
		n = read(fd, chunk, sizeof(chunk));
		if (n > 0 && !head) {           /* the head is the first piece, or its beginning */
			const char *body = memmem(chunk, (size_t)n, "\r\n\r\n", 4);
			assert_non_null(body);
			head = (size_t)(body - chunk) + 4;
		}
		got += n > 0 ? (size_t)n : 0;
		assert_true(kn_loop_once(guest_loop, n > 0 ? 0 : 100) >= 0);
	}
	if (!head || got != head + body_len)
		fail_msg("%zu bytes came of %zu and a head of %zu; read gave %zd; guest %s: %s", got,
		         body_len, head, n, g->ended ? "ended" : "lives", g->why.text);
}

/* What a deployment may ask of the root: secrets in it, and that it cannot be written. */
static void secrets_and_a_read_only_root(void **state)
{
	static const struct kn_sandbox_file files[] = {
		{ "/var/openfaas/secrets/key", { "s3cret", 6 }, 0400 },
	};
	struct kn_sandbox_config c = guest_config(HOSTILE);
	struct guest g;
	struct reply r;

	(void)state;
	c.contract = KN_CONTRACT_STDIO;
	c.time_limit_ms = GUEST_SECONDS * 1000;
	c.user = "app";
	c.files = files;
	c.n_files = 1;
	c.read_only_root = true;
	guest_start(&g, &c);
	expect_ready(&g);
	static const char *const orders[][2] = {
		{ "read /var/openfaas/secrets/key", "s3cret" },
		{ "stat /var/openfaas/secrets/key", "uid 1000 gid 1001 mode 400" },
		{ "write /new", "Read-only file system" },
		{ "write /tmp/new", "ok" },
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(orders); i++) {
		guest_ask(&g, "POST", "/", orders[i][0], strlen(orders[i][0]), &r);
		if (r.status != 200 || !strstr(r.body.ptr, orders[i][1]))
			fail_msg("%s: %d %s", orders[i][0], r.status, r.body.ptr ? r.body.ptr : "");
		reply_fini(&r);
	}
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

static void large_bodies_go_both_ways(void **state)
{
	struct kn_sandbox_config c = guest_config(APP("http"));
	size_t len = 32 << 20;
	struct guest g;
	struct reply r;

	(void)state;
	guest_start(&g, &c);
	expect_ready(&g);
	char *body = malloc(len);
	for (size_t i = 0; i < len; i++)
		body[i] = (char)(i * 2654435761u >> 13);
	guest_ask(&g, "POST", "/echo", body, len, &r);
	assert_int_equal(r.status, 200);
	assert_int_equal(r.body.len, len);
	assert_memory_equal(r.body.ptr, body, len);
	free(body);
	reply_fini(&r);

	/* A client that does not read: the guest is held back, and others are served meanwhile. */
	int fd;
	struct kn_err err = KN_ERR_INIT;
	assert_ok(kn_sandbox_qemu.connect(g.sb, &fd, &err), &err);
	static const char ask[] = "GET /zeros/33554432 HTTP/1.1\r\nHost: g\r\n\r\n";
	assert_int_equal(write(fd, ask, sizeof(ask) - 1), sizeof(ask) - 1);
	for (int i = 0; i < 5; i++) {
		guest_ask(&g, "GET", "/", NULL, 0, &r);
		assert_int_equal(r.status, 200);
		reply_fini(&r);
	}
	read_slowly(&g, fd, len);
	close(fd);
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

static void broken_functions_end_with_a_reason(void **state)
{
	struct kn_sandbox_config c = guest_config(APP("http"));
	struct guest g;
	struct reply r;

	(void)state;
	guest_start(&g, &c);
	expect_ready(&g);
	guest_ask(&g, "GET", "/garbage", NULL, 0, &r);
	assert_false(r.complete);
	assert_int_not_equal(r.err.code, 0);
	reply_fini(&r);

	/* A request that hangs does not keep others from being served. */
	struct reply hung;
	struct kn_http_client *hang = guest_begin(&g, "GET", "/hang", 0, &hung);
	kn_http_client_finish(hang);
	guest_ask(&g, "GET", "/", NULL, 0, &r);
	assert_int_equal(r.status, 200);
	reply_fini(&r);
	assert_false(hung.done);

	guest_ask(&g, "GET", "/exit", NULL, 0, &r);
	assert_false(r.complete);
	reply_fini(&r);
	expect_end(&g, "exited with code 5: told to fail");
	guest_wait(&hung.done);
	assert_false(hung.complete);
	reply_fini(&hung);
}

static void end_of_the_guest_is_told(void **state)
{
	struct kn_sandbox_config c = guest_config(APP("http"));
	struct guest g;
	struct reply r;

	(void)state;
	guest_start(&g, &c);
	expect_ready(&g);
	guest_ask(&g, "GET", "/segv", NULL, 0, &r);
	reply_fini(&r);
	expect_end(&g, "killed by signal 11 (SEGV)");

	guest_start(&g, &c);
	expect_ready(&g);
	assert_int_equal(kill(pid_of(&g), SIGKILL), 0);
	expect_end(&g, "QEMU killed by signal 9 (KILL)");
}

static void log_lines_arrive_in_pieces_that_fit(void **state)
{
	struct kn_sandbox_config c = guest_config(APP("chatter"));
	struct guest g;

	(void)state;
	guest_start(&g, &c);
	expect_ready(&g);
	assert_memory_equal(g.log[KN_STDOUT].ptr, "first\n\nthird\nLLLL", 17);
	/* 9000 bytes in three pieces, each a line */
	assert_int_equal(strchr(g.log[KN_STDOUT].ptr + 13, '\n') - (g.log[KN_STDOUT].ptr + 13), 4096);
	assert_true(log_has(&g, KN_STDERR, "to stderr\n"));
	guest_stop(&g, 10000);
	assert_true(log_has(&g, KN_STDOUT, "terminated politely\n"));
	guest_check_gone(&g);
}

static void a_function_that_ignores_sigterm_is_killed(void **state)
{
	struct kn_sandbox_config c = guest_config(APP("stubborn"));
	struct guest g;

	(void)state;
	guest_start(&g, &c);
	expect_ready(&g);
	guest_stop(&g, 300);
	guest_check_gone(&g);
}

/* ---- never ready --------------------------------------------------------------------------- */

static void functions_that_cannot_start_are_told(void **state)
{
	static const struct {
		const char *argv[3];
		const char *user, *image;
		const char *says;
	} cases[] = {
		{ { "/app", NULL }, "", NULL,
		  "exited with code 3 before it was ready: cannot open /data/model.bin" },
		{ { "/bin/missing", NULL }, "", NULL, "executable file not found: /bin/missing" },
		{ { "missing", NULL }, "", NULL, "executable file not found in PATH: missing" },
		{ { "/data", NULL }, "", NULL, "permission denied: /data" },
		{ { "/text", NULL }, "", NULL, "/text: exec format error: neither an ELF program nor" },
		{ { "/script", NULL }, "", NULL, "/script: its interpreter '/bin/python9'" },
		{ { "/app", "http", NULL }, "nobody", NULL, "no user 'nobody' in the image's" },
		{ { "/app", "http", NULL }, "", "/app", "is it an erofs image?" },
	};
	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_sandbox_config c = guest_config(cases[i].argv);
		struct guest g;
		char other[96];

		c.user = cases[i].user;
		if (cases[i].image) {   /* any file that is none */
			snprintf(other, sizeof(other), "%s/root%s", guest_folder, cases[i].image);
			c.image = other;
		}
		guest_start(&g, &c);
		assert_false(g.ready);
		expect_end(&g, cases[i].says);
	}
}

static void a_function_that_never_listens_runs_out_of_time(void **state)
{
	struct kn_sandbox_config c = guest_config(APP("sleep"));
	struct guest g;

	(void)state;
	c.ready_timeout_ms = 500;
	guest_start(&g, &c);
	assert_false(g.ready);
	expect_end(&g, "not ready within 500 ms: nothing listens on port 8080");
}

static void a_guest_that_does_not_boot_runs_out_of_time(void **state)
{
	struct kn_sandbox_config c = guest_config(APP("http"));
	struct guest g;

	(void)state;
	c.boot_timeout_ms = 50;
	guest_start(&g, &c);
	expect_end(&g, "did not boot within 50 ms");
}

static void a_stop_while_booting_leaves_nothing(void **state)
{
	struct kn_sandbox_config c = guest_config(APP("http"));
	struct kn_sandbox_events none = { .arg = NULL };
	struct kn_err err = KN_ERR_INIT;
	struct guest g;
	int fd;

	(void)state;
	(void)none;
	c.boot_timeout_ms = 10;   /* guest_start waits for this end */
	guest_start(&g, &c);
	expect_end(&g, "did not boot");
	c = guest_config(APP("sleep"));
	c.ready_timeout_ms = 300;
	guest_start(&g, &c);
	assert_true(kn_sandbox_qemu.connect == NULL || g.ended ||
	            kn_sandbox_qemu.connect(g.sb, &fd, &err) == -ENOTCONN);
	expect_end(&g, "not ready within 300 ms");
}

/* ---- contract stdio ------------------------------------------------------------------------ */

static struct kn_sandbox_config stdio_config(const char *const *argv)
{
	struct kn_sandbox_config c = guest_config(argv);

	c.contract = KN_CONTRACT_STDIO;
	c.time_limit_ms = 0;
	return c;
}

static void ask_text(struct guest *g, const char *text, int status, const char *says)
{
	struct reply r;

	guest_ask(g, "POST", "/path?q=1", text, strlen(text), &r);
	if (r.status != status || !r.body.ptr || !strstr(r.body.ptr, says))
		fail_msg("%d '%s' is not %d '%s'", r.status, r.body.ptr ? r.body.ptr : r.err.text,
		         status, says);
	reply_fini(&r);
}

static void stdio_function_runs_once_a_request(void **state)
{
	struct kn_sandbox_config c = stdio_config(APP("checksum"));
	struct guest g;

	(void)state;
	guest_start(&g, &c);
	expect_ready(&g);
	for (int i = 0; i < 3; i++) {
		ask_text(&g, "hello", 200, "a430d84680aabd0b 5\n");
		ask_text(&g, "", 200, "cbf29ce484222325 0\n");
	}
	guest_stop(&g, 5000);
	guest_check_gone(&g);
}

static void stdio_bodies_are_streamed(void **state)
{
	struct kn_sandbox_config c = stdio_config(APP("copy"));
	size_t len = 32 << 20;
	struct guest g;
	struct reply r;

	(void)state;
	guest_start(&g, &c);
	expect_ready(&g);
	char *body = malloc(len);
	for (size_t i = 0; i < len; i++)
		body[i] = (char)(i * 2654435761u >> 11);
	guest_ask(&g, "POST", "/", body, len, &r);
	assert_int_equal(r.status, 200);
	assert_true(r.complete);
	assert_int_equal(r.body.len, len);
	assert_memory_equal(r.body.ptr, body, len);
	free(body);
	reply_fini(&r);
	guest_stop(&g, 5000);
	guest_check_gone(&g);
}

static void stdio_failures_are_answered(void **state)
{
	struct kn_sandbox_config c = stdio_config(APP("obey"));
	struct guest g;
	struct reply r;

	(void)state;
	c.time_limit_ms = 3000;
	c.max_reply_bytes = 1 << 20;
	guest_start(&g, &c);
	expect_ready(&g);
	ask_text(&g, "fail", 500, "exited with code 3: first line / last words");
	assert_true(log_has(&g, KN_STDERR, "first line\nlast words\n"));
	ask_text(&g, "segv", 500, "killed by signal 11 (SEGV)");
	ask_text(&g, "hang", 504, "did not answer within 3000 ms");
	ask_text(&g, "env", 200, "POST /path a b\n");
	guest_ask(&g, "POST", "/", "much", 4, &r);
	assert_false(r.complete);                 /* cut: the reply had begun */
	assert_true(r.body.len <= 2 << 20);
	reply_fini(&r);
	guest_ask(&g, "POST", "/", "late", 4, &r);
	assert_int_equal(r.status, 200);
	assert_false(r.complete);
	reply_fini(&r);
	ask_text(&g, "again", 200, "you said again\n");   /* and it still serves */
	guest_stop(&g, 5000);
	guest_check_gone(&g);
}

/* ---- the jail ------------------------------------------------------------------------------ */

static void expect_line(const char *text, const char *line)
{
	if (!strstr(text, line))
		fail_msg("no '%s' in:\n%s", line, text);
}

static void qemu_is_jailed(void **state)
{
	static const char *const namespaces[] = { "mnt", "pid", "net", "ipc", "uts" };
	static const char *const top[] = { "usr", "lib64", "guest" };
	struct kn_sandbox_config c = stdio_config(APP("checksum"));
	struct kn_buf text = KN_BUF_INIT;
	char path[64], line[64], its[64], ours[64];
	struct guest g;
	struct dirent *e;

	(void)state;
	guest_start(&g, &c);
	expect_ready(&g);
	pid_t pid = pid_of(&g);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	assert_int_equal(kn_read_file(AT_FDCWD, path, 1 << 16, &text, NULL), 0);
	expect_line(text.ptr, "\nCapEff:\t0000000000000000\n");
	expect_line(text.ptr, "\nCapPrm:\t0000000000000000\n");
	expect_line(text.ptr, "\nCapBnd:\t0000000000000000\n");
	expect_line(text.ptr, "\nNoNewPrivs:\t1\n");
	expect_line(text.ptr, "\nSeccomp:\t2\n");
	struct stat st;
	snprintf(path, sizeof(path), "/proc/%d", pid);
	assert_int_equal(stat(path, &st), 0);
	assert_in_range(st.st_uid, guest_driver.uid_first,
	                guest_driver.uid_first + guest_driver.uid_count - 1);
	snprintf(line, sizeof(line), "\nUid:\t%u\t%u\t%u\t%u\n", st.st_uid, st.st_uid, st.st_uid,
	         st.st_uid);
	expect_line(text.ptr, line);
	for (size_t i = 0; i < KN_ARRAY_LEN(namespaces); i++) {
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, namespaces[i]);
		ssize_t n = readlink(path, its, sizeof(its));
		snprintf(path, sizeof(path), "/proc/self/ns/%s", namespaces[i]);
		ssize_t m = readlink(path, ours, sizeof(ours));
		assert_true(n > 0 && m > 0);
		assert_true(n != m || memcmp(its, ours, (size_t)n) != 0);
	}
	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	DIR *d = opendir(path);
	assert_non_null(d);
	while ((e = readdir(d))) {
		bool known = e->d_name[0] == '.';
		for (size_t i = 0; i < KN_ARRAY_LEN(top); i++)
			known = known || strcmp(e->d_name, top[i]) == 0;
		if (!known)
			fail_msg("%s in QEMU's root", e->d_name);
	}
	closedir(d);
	kn_buf_clear(&text);
	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	assert_int_equal(kn_read_file(AT_FDCWD, path, 1 << 16, &text, NULL), 0);
	expect_line(text.ptr, guest_driver.cgroup);
	kn_buf_fini(&text);
	guest_stop(&g, 0);
	guest_check_gone(&g);
}

/* ---- bad input ----------------------------------------------------------------------------- */

static void wrong_configurations_are_refused(void **state)
{
	struct kn_sandbox_events none = { .arg = NULL };
	struct kn_err err = KN_ERR_INIT;
	struct kn_sandbox *sb;
	char dir[128];

	(void)state;
	snprintf(dir, sizeof(dir), "%s/refused", guest_folder);
	assert_int_equal(mkdir(dir, 0700), 0);
	struct kn_sandbox_config c = guest_config(APP("http"));
	c.id = "refused";
	c.run_dir = dir;
	c.contract = KN_CONTRACT_MESSAGE;
	assert_fails(kn_sandbox_qemu.start(guest_loop, &guest_driver, &c, &none, &sb, &err), EINVAL,
	             &err, "no message rings");
	c.contract = KN_CONTRACT_HTTP;
	c.memory_bytes = 1 << 20;
	assert_fails(kn_sandbox_qemu.start(guest_loop, &guest_driver, &c, &none, &sb, &err), EINVAL,
	             &err, "too little for a Linux guest");
	c.memory_bytes = 128 << 20;
	c.image = "/no/such/image";
	assert_fails(kn_sandbox_qemu.start(guest_loop, &guest_driver, &c, &none, &sb, &err), ENOENT,
	             &err, "start a microVM under QEMU: open image /no/such/image");
	assert_int_equal(rmdir(dir), 0);   /* nothing was left in it */

	struct kn_sandbox_qemu_config d = guest_driver;
	d.qemu = "/no/qemu";
	assert_fails(kn_sandbox_qemu.check(&d, &err), ENOENT, &err, "apt-get install");
	d = guest_driver;
	d.kernel = NULL;
	assert_fails(kn_sandbox_qemu.check(&d, &err), ENOENT, &err, "no guest kernel");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		guest_test(http_function_serves_warm_requests),
		guest_test(secrets_and_a_read_only_root),
		guest_test(large_bodies_go_both_ways),
		guest_test(broken_functions_end_with_a_reason),
		guest_test(end_of_the_guest_is_told),
		guest_test(log_lines_arrive_in_pieces_that_fit),
		guest_test(a_function_that_ignores_sigterm_is_killed),
		guest_test(functions_that_cannot_start_are_told),
		guest_test(a_function_that_never_listens_runs_out_of_time),
		guest_test(a_guest_that_does_not_boot_runs_out_of_time),
		guest_test(a_stop_while_booting_leaves_nothing),
		guest_test(stdio_function_runs_once_a_request),
		guest_test(stdio_bodies_are_streamed),
		guest_test(stdio_failures_are_answered),
		guest_test(qemu_is_jailed),
		guest_test(wrong_configurations_are_refused),
	};
	int r = argc > 1 ? guest_setup(argv[1]) : 2;
	if (r)
		return r;
	if (argc > 2)
		cmocka_set_test_filter(argv[2]);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	guest_teardown();
	return r;
}
