/*
 * Bare functions on this machine's /dev/kvm, through the sandbox driver as the pool uses it. Every
 * case starts an instance of bare_guest.c, looks at what is told, and counts what is left behind.
 */
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/loop.h"
#include "machine/channel.h"
#include "machine/probe.h"
#include "oci/sandbox_kvm.h"

static char vmm[512], guest[512], denoise[512];

/* One instance and what it told. */
struct world {
	struct kn_loop *loop;
	struct kn_sandbox_kvm_config driver;
	struct kn_sandbox_config config;
	struct kn_sandbox *sb;
	bool ready, ended;
	struct kn_err why;
	char log[64 * 1024], report[4096];
	int replies;
	int status;
	struct kn_buf body;
	char type[256];
	struct kn_err failed;
	int fds_before;
};

static int open_fds(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void on_ready(struct kn_sandbox *sb, void *arg)
{
	struct world *w = arg;
	assert_false(w->ready);
	assert_int_equal(sb->n_phases, 3);
	w->ready = true;
}

static void on_log(struct kn_sandbox *sb, enum kn_stream stream, struct kn_view line, void *arg)
{
	struct world *w = arg;
	char *to = stream == KN_MONITOR ? w->report : w->log;
	size_t room = stream == KN_MONITOR ? sizeof(w->report) : sizeof(w->log);
	(void)sb;
	snprintf(to + strlen(to), room - strlen(to), "%.*s\n", (int)line.len, line.ptr);
}

static void on_ended(struct kn_sandbox *sb, const struct kn_err *why, void *arg)
{
	struct world *w = arg;
	(void)sb;
	w->why = *why;
	w->ended = true;
	w->sb = NULL;
}

static void on_reply(const struct kn_message *reply, const struct kn_err *err, void *arg)
{
	struct world *w = arg;
	w->replies++;
	if (!reply) {
		w->failed = *err;
		return;
	}
	w->status = reply->status;
	kn_buf_clear(&w->body);
	kn_buf_add_view(&w->body, reply->body);
	snprintf(w->type, sizeof(w->type), "%.*s", (int)reply->content_type.len,
	         reply->content_type.ptr);
}

static void spin_until(struct world *w, const bool *flag, uint64_t limit_ms)
{
	uint64_t until = kn_now_ns() + limit_ms * KN_NS_PER_MS;
	while (!*flag && kn_now_ns() < until)
		assert_int_equal(kn_loop_once(w->loop, 10), 0);
	assert_true(*flag);
}

static void prepare(struct world *w)
{
	struct kn_err err = KN_ERR_INIT;

	*w = (struct world){ .driver = KN_SANDBOX_KVM_DEFAULTS };
	w->fds_before = open_fds();
	assert_ok(kn_loop_new(&w->loop, &err), &err);
	w->driver.vmm = vmm;
	w->config = (struct kn_sandbox_config){
		.id = "test", .run_dir = "/nonexistent", .image = guest,
		.contract = KN_CONTRACT_MESSAGE, .memory_bytes = 8 << 20, .vcpus = 1,
		.boot_timeout_ms = 5000, .max_reply_bytes = 64 << 10, .time_limit_ms = 300,
	};
}

static int try_start(struct world *w, struct kn_err *err)
{
	const struct kn_sandbox_events events = { on_ready, on_log, on_ended, w };
	return kn_sandbox_kvm.start(w->loop, &w->driver, &w->config, &events, &w->sb, err);
}

static void begin(struct world *w)
{
	struct kn_err err = KN_ERR_INIT;
	assert_ok(try_start(w, &err), &err);
}

static int ask(struct world *w, const char *path, const char *body, struct kn_err *err)
{
	const struct kn_message m = {
		.method = KN_VIEW("POST"), .path = kn_view_of(path), .call_id = KN_VIEW("c1"),
		.content_type = KN_VIEW("text/plain"), .body = kn_view_of(body),
	};
	return kn_sandbox_kvm.invoke(w->sb, &m, on_reply, w, err);
}

/* Ask and wait for the answer. */
static void call(struct world *w, const char *path, const char *body)
{
	struct kn_err err = KN_ERR_INIT;
	int before = w->replies;
	uint64_t until = kn_now_ns() + 10 * KN_NS_PER_S;

	assert_ok(ask(w, path, body, &err), &err);
	while (w->replies == before && kn_now_ns() < until)
		assert_int_equal(kn_loop_once(w->loop, 10), 0);
	assert_int_equal(w->replies, before + 1);
}

/* Nothing may remain: no process, no descriptor. */
static void leave(struct world *w)
{
	if (w->sb) {
		kn_sandbox_kvm.stop(w->sb, 1000);
		spin_until(w, &w->ended, 5000);
		assert_int_equal(w->why.code, 0);
	}
	kn_loop_free(w->loop);
	kn_buf_fini(&w->body);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_int_equal(open_fds(), w->fds_before);
}

/* ---- what works ----------------------------------------------------------------------------- */

static void answers_and_keeps_its_state(void **state)
{
	(void)state;
	struct world w;
	prepare(&w);
	begin(&w);
	spin_until(&w, &w.ready, 10000);
	assert_string_equal(w.sb->phases[0].name, "spawn");
	assert_string_equal(w.sb->phases[1].name, "boot");
	assert_string_equal(w.sb->phases[2].name, "ready");
	for (int i = 1; i <= 50; i++) {
		char expected[64];
		snprintf(expected, sizeof(expected), "hello %d POST c1 text/plain", i);
		call(&w, "/hello", "");
		assert_string_equal(w.body.ptr, expected);
		assert_string_equal(w.type, "text/plain");
	}
	call(&w, "/nothing-here", "");
	assert_int_equal(w.status, 404);
	assert_string_equal(w.log, "started\n");
	leave(&w);
}

static void request_before_ready_waits_in_the_ring(void **state)
{
	(void)state;
	struct world w;
	prepare(&w);
	begin(&w);
	call(&w, "/echo", "early");
	assert_true(w.ready);
	assert_string_equal(w.body.ptr, "early");
	leave(&w);
}

static void bodies_of_every_size_come_back(void **state)
{
	(void)state;
	static char body[60000];
	struct world w;
	prepare(&w);
	begin(&w);
	for (size_t n = 0; n < sizeof(body); n = n * 3 + 1) {
		for (size_t i = 0; i < n; i++)
			body[i] = (char)('a' + (i * 7 + n) % 26);
		body[n] = '\0';
		call(&w, "/echo", body);
		assert_int_equal(w.body.len, n);
		assert_true(n == 0 || memcmp(w.body.ptr, body, n) == 0);
	}
	leave(&w);
}

static void memory_clock_and_floats_are_right(void **state)
{
	(void)state;
	struct world w;
	unsigned long long mono, wall;
	prepare(&w);
	begin(&w);
	call(&w, "/fill", "");
	assert_int_equal(w.status, 200);
	assert_true(strtoul(w.body.ptr, NULL, 10) > 7u << 20);
	assert_true(strtoul(w.body.ptr, NULL, 10) < 8u << 20);
	uint64_t before = kn_now_ns();
	call(&w, "/clock", "");
	assert_int_equal(sscanf(w.body.ptr, "%llu %llu", &mono, &wall), 2);
	assert_in_range(mono, before - 20 * KN_NS_PER_MS, kn_now_ns() + 20 * KN_NS_PER_MS);
	assert_in_range(wall, kn_wall_ns() - KN_NS_PER_S, kn_wall_ns() + KN_NS_PER_S);
	call(&w, "/floating", "");
	assert_string_equal(w.body.ptr, "0.33333333333333331 inf -nan");
	leave(&w);
}

static void shells_start_programs_faster(void **state)
{
	(void)state;
	struct world w;
	struct kn_err err = KN_ERR_INIT;
	struct kn_shells *shells;
	prepare(&w);
	assert_ok(kn_shells_new(w.loop, vmm, "/dev/kvm", 2, &shells, &err), &err);
	for (int i = 0; i < 500 && kn_shells_ready(shells) < 2; i++)
		kn_loop_once(w.loop, 10);
	assert_int_equal(kn_shells_ready(shells), 2);
	w.driver.shells = shells;
	begin(&w);
	assert_int_equal(kn_shells_ready(shells), 1);
	call(&w, "/echo", "shell");
	assert_string_equal(w.body.ptr, "shell");
	assert_int_equal(w.sb->phases[0].ns, 0);
	for (int i = 0; i < 500 && kn_shells_ready(shells) < 2; i++)
		kn_loop_once(w.loop, 10);
	assert_int_equal(kn_shells_ready(shells), 2);
	kn_sandbox_kvm.stop(w.sb, 1000);
	spin_until(&w, &w.ended, 5000);
	kn_shells_free(shells);
	leave(&w);
}

static void shell_that_died_is_replaced_by_a_new_process(void **state)
{
	(void)state;
	struct world w;
	struct kn_err err = KN_ERR_INIT;
	struct kn_shells *shells;
	prepare(&w);
	assert_ok(kn_shells_new(w.loop, "/bin/false", "/dev/kvm", 1, &shells, &err), &err);
	for (int i = 0; i < 20; i++)
		kn_loop_once(w.loop, 10);
	assert_int_equal(kn_shells_ready(shells), 0);
	w.driver.shells = shells;
	begin(&w);
	call(&w, "/echo", "x");
	assert_int_equal(w.status, 200);
	kn_sandbox_kvm.stop(w.sb, 1000);
	spin_until(&w, &w.ended, 5000);
	kn_shells_free(shells);
	leave(&w);
}

static void stats_tell_memory_and_time(void **state)
{
	(void)state;
	struct world w;
	struct kn_sandbox_stats stats;
	struct kn_err err = KN_ERR_INIT;
	prepare(&w);
	begin(&w);
	call(&w, "/hello", "");
	assert_ok(kn_sandbox_kvm.stats(w.sb, &stats, &err), &err);
	assert_true(stats.pid > 0 && stats.cpu_ns > 0);
	assert_in_range(stats.memory_bytes, 10 << 10, 4 << 20);
	leave(&w);
}

/* ---- denoise, against a median that is computed the slow way ---------------------------------- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double slow_median(const double *v, int n, int i, int half)
{
	double window[101];
	int edge = kn_min(i, n - 1 - i), reach = kn_min(edge, half);
	memcpy(window, v + i - reach, (size_t)(2 * reach + 1) * sizeof(double));
	qsort(window, (size_t)(2 * reach + 1), sizeof(double), by_value);
	return window[reach];
}

static void denoise_agrees_with_the_reference(void **state)
{
	(void)state;
	static const int windows[] = { 1, 3, 5, 9, 101 };
	static const int sizes[] = { 0, 1, 2, 3, 10, 200, 1500 };
	struct world w;
	prepare(&w);
	w.config.image = denoise;
	begin(&w);
	for (size_t k = 0; k < KN_ARRAY_LEN(windows) * KN_ARRAY_LEN(sizes); k++) {
		int window = windows[k % KN_ARRAY_LEN(windows)], n = sizes[k / KN_ARRAY_LEN(windows)];
		kn_auto(kn_buf_fini) struct kn_buf in = KN_BUF_INIT, out = KN_BUF_INIT;
		static double v[1500];
		char path[32];

		for (int i = 0; i < n; i++) {
			v[i] = (double)((i * 7919 + (int)k) % 1000) / 8 - 30;
			kn_buf_printf(&in, "%s%.15g", i ? ", " : "[", v[i]);
		}
		kn_buf_adds(&in, n ? "]" : "[ ]");
		for (int i = 0; i < n; i++)
			kn_buf_printf(&out, "%s%.15g", i ? "," : "[", slow_median(v, n, i, window / 2));
		kn_buf_adds(&out, n ? "]\n" : "[]\n");
		snprintf(path, sizeof(path), "/?window=%d", window);
		call(&w, path, in.ptr);
		assert_int_equal(w.status, 200);
		assert_string_equal(w.body.ptr, out.ptr);
		assert_string_equal(w.type, "application/json");
	}
	static const char *const bad[] = { "", "[", "[1,]", "[1 2]", "{}", "[1]x", "[\"a\"]", "[1e999]" };
	for (size_t i = 0; i < KN_ARRAY_LEN(bad); i++) {
		call(&w, "/", bad[i]);
		assert_int_equal(w.status, 400);
	}
	static const char *const wrong[] = { "/?window=0", "/?window=4", "/?window=103", "/?window=x",
		                             "/?window=-1", "/?window=" };
	for (size_t i = 0; i < KN_ARRAY_LEN(wrong); i++) {
		call(&w, wrong[i], "[1]");
		assert_int_equal(w.status, 400);
		assert_non_null(strstr(w.body.ptr, "odd number"));
	}
	leave(&w);
}

/* ---- a monitor with an API -------------------------------------------------------------------- */

static void config_file_and_channel_socket(void **state)
{
	(void)state;
	char folder[] = "/tmp/kiln-test-XXXXXX", config[128], socket_path[128], text[1200];
	struct kn_err err = KN_ERR_INIT;
	struct kn_channel ch;
	struct kn_buf buf = KN_BUF_INIT;
	struct kn_bare_message reply, m = { .method = KN_VIEW("POST"), .path = KN_VIEW("/echo"),
		                            .body = KN_VIEW("over the socket") };
	struct kn_report report;
	uint64_t tag;
	int sock = -1, status, r = -1;

	assert_non_null(mkdtemp(folder));
	snprintf(config, sizeof(config), "%s/config.json", folder);
	snprintf(socket_path, sizeof(socket_path), "%s/channel", folder);
	snprintf(text, sizeof(text), "{\"boot-source\":{\"kernel_image_path\":\"%s\"},"
	         "\"kiln-channel\":{\"uds_path\":\"%s\"}}", guest, socket_path);
	assert_ok(kn_write_file(AT_FDCWD, config, text, strlen(text), 0600, &err), &err);
	pid_t pid = fork();
	if (pid == 0) {
		execl(vmm, "kiln-vmm", "--no-api", "--config-file", config, "--level", "error", NULL);
		_exit(127);
	}
	for (int i = 0; i < 500 && r < 0; i++) {
		r = kn_grant_take(socket_path, &ch, &sock, &err);
		if (r < 0)
			usleep(10000);
	}
	assert_ok(r, &err);
	struct kn_channel second;
	int other;
	assert_fails(kn_grant_take(socket_path, &second, &other, &err), EBUSY, &err, "another client");

	assert_ok(kn_channel_call(&ch, &m, 5, &err), &err);
	struct pollfd p = { .fd = ch.note, .events = POLLIN };
	for (int i = 0; i < 100 && (r = kn_channel_take(&ch, &buf, &reply, &tag, &err)) == 0; i++)
		poll(&p, 1, 50), kn_channel_awake(&ch);
	assert_int_equal(r, 1);
	assert_view(reply.body, "over the socket");

	m.path = KN_VIEW("/divide");
	assert_ok(kn_channel_call(&ch, &m, 6, &err), &err);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	bool told = false;
	while (kn_report_take(sock, &report) == 1)
		if (report.kind == KN_REPORT_ENDED)
			told = strstr(report.story, "division error") && strstr(report.json, "\"rip\"");
	assert_true(told);
	assert_int_equal(access(socket_path, F_OK), -1);
	close(sock);
	kn_channel_fini(&ch);
	kn_buf_fini(&buf);
	assert_ok(kn_remove_tree(AT_FDCWD, folder, &err), &err);
}

/* ---- what does not -------------------------------------------------------------------------- */

static void every_fault_is_told_with_its_address(void **state)
{
	(void)state;
	static const struct {
		const char *path, *body, *story, *json, *or_story;
	} faults[] = {
		{ "/null", "xx", "page fault: write at 0x10, a null pointer", "\"vector\":14" },
		{ "/null", "", "page fault: write at 0x0, a null pointer", "\"address\":\"0x0\"" },
		{ "/write-text", "", "program code", "\"error_code\":\"0x7\"" },
		{ "/write-constant", "", "read-only data", "\"error_code\":\"0x7\"" },
		{ "/exec-data", "", "page fault: execution at", "\"error_code\":\"0x15\"" },
		{ "/jump-wild", "", "page fault: execution at 0x7f0000001000, not mapped", "\"rip\"" },
		{ "/jump-noncanonical", "", "general protection fault", "\"vector\":13" },
		{ "/stack", "", "stack overflow", "\"vector\":14" },
		{ "/divide", "", "division error", "\"vector\":0" },
		{ "/ud2", "", "invalid instruction", "\"vector\":6" },
		{ "/halt", "", "general protection fault", "\"vector\":13" },
		/* Forbidden by the processor, or found by the monitor: see kn_vcpu_long_mode(). */
		{ "/port", "", "general protection fault", "\"registers\"", "output to port 0x80" },
		{ "/syscall", "", "", "\"registers\"" },
		{ "/read-tables", "", "page fault: read at 0x400000", "\"error_code\":\"0x5\"" },
		{ "/overrun", "", "behind the end of the memory granted", "\"vector\":14" },
		{ "/bad-call", "", "unknown call 99", "\"rip\"" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(faults); i++) {
		struct world w;
		prepare(&w);
		begin(&w);
		call(&w, faults[i].path, faults[i].body);
		spin_until(&w, &w.ended, 5000);
		bool told = strstr(w.why.text, faults[i].story) ||
		            (faults[i].or_story && strstr(w.why.text, faults[i].or_story));
		if (w.why.code != EFAULT || !told || !strstr(w.why.text, "rip 0x"))
			fail_msg("%s: code %d, '%s'", faults[i].path, w.why.code, w.why.text);
		if (!strstr(w.report, faults[i].json))
			fail_msg("%s: report '%s'", faults[i].path, w.report);
		assert_string_equal(w.failed.text, w.why.text);
		leave(&w);
	}
}

static void loop_is_ended_at_the_time_limit(void **state)
{
	(void)state;
	struct world w;
	prepare(&w);
	begin(&w);
	call(&w, "/hello", "");
	uint64_t start = kn_now_ns();
	call(&w, "/loop", "");
	uint64_t took_ms = (kn_now_ns() - start) / KN_NS_PER_MS;
	assert_in_range(took_ms, 290, 1200);
	spin_until(&w, &w.ended, 5000);
	assert_int_equal(w.why.code, ETIMEDOUT);
	assert_non_null(strstr(w.why.text, "time limit of 300 ms passed"));
	assert_non_null(strstr(w.report, "\"kind\":\"time limit\""));
	leave(&w);
}

static void liar_about_progress_is_ended_by_its_host(void **state)
{
	(void)state;
	struct world w;
	prepare(&w);
	begin(&w);
	call(&w, "/lying", "");
	spin_until(&w, &w.ended, 5000);
	assert_true(w.why.code == ETIMEDOUT || w.why.code == EPROTO);
	leave(&w);
}

static void reply_too_large_becomes_an_error_reply(void **state)
{
	(void)state;
	struct world w;
	prepare(&w);
	begin(&w);
	call(&w, "/huge", "");
	assert_int_equal(w.status, 500);
	assert_non_null(strstr(w.body.ptr, "larger than this instance may send"));
	call(&w, "/hello", "");
	assert_int_equal(w.status, 200);
	leave(&w);
}

static void garbage_in_rings_ends_the_instance_alone(void **state)
{
	(void)state;
	static const char *const paths[] = { "/huge-lie", "/garbage-counters", "/garbage" };

	for (size_t i = 0; i < KN_ARRAY_LEN(paths); i++) {
		struct world w;
		prepare(&w);
		begin(&w);
		call(&w, paths[i], "");
		spin_until(&w, &w.ended, 5000);
		if (w.why.code != EPROTO && w.why.code != ETIMEDOUT)
			fail_msg("%s: code %d, '%s'", paths[i], w.why.code, w.why.text);
		leave(&w);
	}
}

static void program_may_end_itself(void **state)
{
	(void)state;
	struct world w;
	prepare(&w);
	begin(&w);
	call(&w, "/exit", "xxx");
	spin_until(&w, &w.ended, 5000);
	assert_int_equal(w.why.code, ECHILD);
	assert_non_null(strstr(w.why.text, "ended itself with code 3"));
	leave(&w);
}

static void log_flood_loses_lines_and_says_so(void **state)
{
	(void)state;
	struct world w;
	prepare(&w);
	begin(&w);
	call(&w, "/flood", "");
	assert_string_equal(w.body.ptr, "done");
	assert_non_null(strstr(w.log, "line 0 of many"));
	call(&w, "/flood", "");
	assert_true(strstr(w.log, "line 999 of many") || strstr(w.log, "lines of log were lost"));
	leave(&w);
}

static void killed_monitor_is_told(void **state)
{
	(void)state;
	struct world w;
	struct kn_sandbox_stats stats;
	struct kn_err err = KN_ERR_INIT;
	prepare(&w);
	begin(&w);
	call(&w, "/hello", "");
	assert_ok(kn_sandbox_kvm.stats(w.sb, &stats, &err), &err);
	kill(stats.pid, SIGKILL);
	spin_until(&w, &w.ended, 5000);
	assert_non_null(strstr(w.why.text, "killed by signal 9"));
	leave(&w);
}

static void stop_ends_loops_and_sleepers(void **state)
{
	(void)state;
	for (int busy = 0; busy < 2; busy++) {
		struct world w;
		struct kn_err err = KN_ERR_INIT;
		prepare(&w);
		w.config.time_limit_ms = 0;
		begin(&w);
		call(&w, "/hello", "");
		if (busy)
			assert_ok(ask(&w, "/loop", "", &err), &err);
		kn_sandbox_kvm.stop(w.sb, 100);
		assert_fails(ask(&w, "/hello", "", &err), ECONNRESET, &err, "ending");
		spin_until(&w, &w.ended, 3000);
		assert_int_equal(w.why.code, 0);
		assert_int_equal(w.replies, 1 + busy);
		if (busy)
			assert_int_equal(w.failed.code, ECANCELED);
		leave(&w);
	}
}

static void bad_programs_are_refused_with_the_reason(void **state)
{
	(void)state;
	static const struct {
		const char *image;
		uint64_t memory;
		int code;
		const char *why;
	} cases[] = {
		{ "/bin/true", 8 << 20, ENOEXEC, "" },
		{ "/etc/hostname", 8 << 20, ENOEXEC, "not an ELF file" },
		{ NULL, 64 << 10, ENOMEM, "are granted" },
		{ NULL, UINT64_MAX, EINVAL, "memory of" },
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct world w;
		prepare(&w);
		w.config.image = cases[i].image ? cases[i].image : guest;
		w.config.memory_bytes = cases[i].memory;
		begin(&w);
		spin_until(&w, &w.ended, 5000);
		if (w.why.code != cases[i].code || !strstr(w.why.text, cases[i].why))
			fail_msg("case %zu: code %d, '%s'", i, w.why.code, w.why.text);
		assert_false(w.ready);
		leave(&w);
	}
}

static void hosts_without_kvm_or_monitor_say_so(void **state)
{
	(void)state;
	struct world w;
	struct kn_err err = KN_ERR_INIT;
	prepare(&w);
	assert_ok(kn_sandbox_kvm.check(&w.driver, &err), &err);
	w.driver.device = "/nonexistent/kvm";
	assert_fails(kn_sandbox_kvm.check(&w.driver, &err), ENOENT, &err, "offers no virtualization");
	begin(&w);
	spin_until(&w, &w.ended, 5000);
	assert_int_equal(w.why.code, ENOENT);
	assert_non_null(strstr(w.why.text, "offers no virtualization"));
	leave(&w);

	prepare(&w);
	w.driver.vmm = "/nonexistent/kiln-vmm";
	assert_fails(kn_sandbox_kvm.check(&w.driver, &err), ENOENT, &err, "cannot be run");
	assert_fails(try_start(&w, &err), ENOENT, &err, "start '/nonexistent/kiln-vmm'");
	leave(&w);

	prepare(&w);
	w.config.image = "/nonexistent/program";
	assert_fails(try_start(&w, &err), ENOENT, &err, "open '/nonexistent/program'");
	leave(&w);
}

static void probe_finds_ring_3(void **state)
{
	(void)state;
	struct kn_probe p;
	uint64_t start = kn_now_ns();
	kn_probe_run("/dev/kvm", &p);
	assert_true(p.verdict != KN_PROBE_NONE);
	assert_true(p.permitted && p.create_ns && p.exit_ns && p.ring3_ps && p.ring0_ps);
	assert_true(kn_now_ns() - start < 10 * KN_NS_PER_S);   /* 20 ms on a quiet machine */
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	snprintf(vmm, sizeof(vmm), "%s/kiln-vmm", argv[1]);
	snprintf(guest, sizeof(guest), "%s", argv[2]);
	snprintf(denoise, sizeof(denoise), "%s", argv[3]);
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		printf("skipped: /dev/kvm may not be used here\n");
		return 77;
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_and_keeps_its_state),
		cmocka_unit_test(request_before_ready_waits_in_the_ring),
		cmocka_unit_test(bodies_of_every_size_come_back),
		cmocka_unit_test(memory_clock_and_floats_are_right),
		cmocka_unit_test(shells_start_programs_faster),
		cmocka_unit_test(shell_that_died_is_replaced_by_a_new_process),
		cmocka_unit_test(stats_tell_memory_and_time),
		cmocka_unit_test(denoise_agrees_with_the_reference),
		cmocka_unit_test(config_file_and_channel_socket),
		cmocka_unit_test(every_fault_is_told_with_its_address),
		cmocka_unit_test(loop_is_ended_at_the_time_limit),
		cmocka_unit_test(liar_about_progress_is_ended_by_its_host),
		cmocka_unit_test(reply_too_large_becomes_an_error_reply),
		cmocka_unit_test(garbage_in_rings_ends_the_instance_alone),
		cmocka_unit_test(program_may_end_itself),
		cmocka_unit_test(log_flood_loses_lines_and_says_so),
		cmocka_unit_test(killed_monitor_is_told),
		cmocka_unit_test(stop_ends_loops_and_sleepers),
		cmocka_unit_test(bad_programs_are_refused_with_the_reason),
		cmocka_unit_test(hosts_without_kvm_or_monitor_say_so),
		cmocka_unit_test(probe_finds_ring_3),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
