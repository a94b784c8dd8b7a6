/*
 * The agent without a guest: host's end of the mux and agent in one loop. Functions are shell scripts,
 * and this program itself where one must serve HTTP.
 */
#include "oci/agent.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/http.h"
#include "oci/mux.h"
#include "oci/sandbox.h"
#include "test.h"

enum { SECONDS = 20 };

static struct {
	struct kn_loop *loop;
	struct kn_mux *mux;
	struct kn_agent *agent;
	bool started, ready, exited, failed;
	uint64_t status;
	struct kn_buf text, out, err;
	unsigned greetings, prepared, sealed, resumed;
	struct kn_err refuse;           /* what prepare answers */
} t;

static void on_control(struct kn_mux *m, struct kn_view message, void *arg)
{
	struct kn_agent_message msg;
	struct kn_err err = KN_ERR_INIT;
	struct kn_arena a;

	(void)m;
	(void)arg;
	kn_arena_init(&a);
	assert_ok(kn_agent_decode(message, &a, &msg, &err), &err);
	t.started |= msg.type == KN_AGENT_STARTED;
	t.ready |= msg.type == KN_AGENT_READY;
	t.exited |= msg.type == KN_AGENT_EXITED;
	t.failed |= msg.type == KN_AGENT_FAILED;
	if (msg.type == KN_AGENT_LOG) {
		struct kn_buf *to = msg.stream == KN_STDOUT ? &t.out : &t.err;
		kn_buf_add_view(to, msg.text);
		kn_buf_adds(to, "\n");
	} else if (msg.type == KN_AGENT_EXITED || msg.type == KN_AGENT_FAILED) {
		t.status = msg.status;
		kn_buf_clear(&t.text);
		kn_buf_add_view(&t.text, msg.text);
	}
	kn_arena_fini(&a);
}

static void greet(const struct kn_agent_message *greeting, void *arg)
{
	(void)arg;
	assert_int_equal(greeting->wall_ns, 42);
	t.greetings++;
}

static int prepare(const struct kn_agent_message *configure, void *arg, struct kn_err *err)
{
	(void)arg;
	assert_int_equal(configure->type, KN_AGENT_CONFIGURE);
	t.prepared++;
	if (!t.refuse.code)
		return 0;
	*err = t.refuse;
	return -err->code;
}

static int seal(void *arg, struct kn_err *err)
{
	(void)arg;
	(void)err;
	t.sealed++;
	return 0;
}

static int resume(const struct kn_agent_message *resume, void *arg, struct kn_err *err)
{
	(void)arg;
	assert_view(resume->hostname, "twin-2");
	t.resumed++;
	if (!t.refuse.code)
		return 0;
	*err = t.refuse;
	return -err->code;
}

static void say(const struct kn_agent_message *m)
{
	struct kn_buf b = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	kn_agent_encode(m, &b);
	assert_ok(kn_mux_control(t.mux, kn_buf_view(&b), &err), &err);
	kn_buf_fini(&b);
}

static int setup(void **state)
{
	struct kn_agent_config a = {
		.prepare = prepare, .greet = greet, .resume = resume, .seal = seal
	};
	struct kn_mux_config m = { .host = true, .generation = 1,
		                   .events = { .control = on_control } };
	struct kn_err err = KN_ERR_INIT;
	int p[2];

	(void)state;
	memset(&t, 0, sizeof(t));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p), 0);
	assert_ok(kn_loop_new(&t.loop, &err), &err);
	assert_ok(kn_agent_new(t.loop, p[1], &a, &t.agent, &err), &err);
	assert_ok(kn_mux_new(t.loop, p[0], &m, &t.mux, &err), &err);
	say(&(struct kn_agent_message){ .type = KN_AGENT_GREET, .wall_ns = 42 });
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kn_agent_free(t.agent);
	kn_mux_free(t.mux);
	kn_loop_free(t.loop);
	kn_buf_fini(&t.text);
	kn_buf_fini(&t.out);
	kn_buf_fini(&t.err);
	return waitpid(-1, NULL, WNOHANG) == -1 ? 0 : -1;   /* no process is left */
}

static void wait_for(const bool *flag)
{
	uint64_t end = kn_now_ns() + SECONDS * KN_NS_PER_S;

	while (!*flag && kn_now_ns() < end)
		assert_true(kn_loop_once(t.loop, 100) >= 0);
	if (!*flag)
		fail_msg("nothing happened; the agent said: %s", t.text.ptr ? t.text.ptr : "nothing");
}

/* ---- configuring --------------------------------------------------------------------------- */

static struct kn_view argv_[8];

static struct kn_agent_message command(enum kn_contract contract, const char *const *argv)
{
	struct kn_agent_message m = { .type = KN_AGENT_CONFIGURE, .contract = contract,
		                      .ready_timeout_ms = SECONDS * 1000, .argv = argv_ };

	for (; argv[m.n_argv]; m.n_argv++)
		argv_[m.n_argv] = kn_view_of(argv[m.n_argv]);
	return m;
}

#define SHELL(script) ((const char *[]){ "/bin/sh", "-c", script, NULL })

/* The user that runs the test, by number: the image's files are this host's. */
static struct kn_view own_user(void)
{
	static char text[32];

	snprintf(text, sizeof(text), "%u:%u", getuid(), getgid());
	return kn_view_of(text);
}

static void configure(struct kn_agent_message m)
{
	if (!m.user.ptr)
		m.user = own_user();
	say(&m);
}

static void expect_text(const char *says)
{
	if (!t.text.ptr || !strstr(t.text.ptr, says))
		fail_msg("'%s' does not say '%s'", t.text.ptr ? t.text.ptr : "", says);
}

/* ---- contract http ------------------------------------------------------------------------- */

static char self[512];
static uint16_t port;

static uint16_t free_port(void)
{
	char name[64];
	struct kn_err err = KN_ERR_INIT;

	int fd = kn_tcp_listen("127.0.0.1:0", &err);
	assert_ok(fd, &err);
	assert_int_equal(kn_tcp_name(fd, name, sizeof(name)), 0);
	close(fd);
	return (uint16_t)strtoul(strrchr(name, ':') + 1, NULL, 10);
}

/* The function: answers every request after the first `refusals` with its path. */
static int serve(int at_port, int refusals)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)at_port),
		                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char head[4096], path[64], reply[256];
	int on = 1;

	int s = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(s, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(s, 8) < 0)
		return 1;
	printf("serving\n");
	fflush(stdout);
	for (;;) {
		int fd = accept(s, NULL, NULL);
		ssize_t n = read(fd, head, sizeof(head) - 1);
		if (n > 0) {
			head[n] = '\0';
			if (sscanf(head, "%*s %63s", path) != 1)
				return 2;
			int len = snprintf(reply, sizeof(reply),
			                   "HTTP/1.1 %s\r\nContent-Length: %zu\r\n"
			                   "Connection: close\r\n\r\n%s",
			                   refusals-- > 0 ? "503 Busy" : "200 OK", strlen(path), path);
			if (write(fd, reply, (size_t)len) != len)
				return 3;
		}
		close(fd);
	}
}

static struct kn_agent_message server(const char *refusals)
{
	static char text[16];

	port = free_port();
	snprintf(text, sizeof(text), "%u", port);
	struct kn_agent_message m = command(KN_CONTRACT_HTTP, (const char *[]){
		self, "serve", text, refusals, NULL });
	m.port = port;
	return m;
}

/* A whole reply of one stream. */
static void ask(const char *request, struct kn_buf *ret)
{
	struct kn_err err = KN_ERR_INIT;
	uint64_t end = kn_now_ns() + SECONDS * KN_NS_PER_S;
	size_t sent = 0, len = strlen(request);
	char chunk[65536];
	int p[2];

	*ret = KN_BUF_INIT;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p), 0);
	assert_ok(kn_mux_open(t.mux, p[1], &err), &err);
	for (ssize_t n = -1; n != 0 && kn_now_ns() < end;) {
		if (sent < len) {
			ssize_t w = send(p[0], request + sent, len - sent, MSG_NOSIGNAL);
			sent += w > 0 ? (size_t)w : 0;
		}
		n = read(p[0], chunk, sizeof(chunk));
		if (n > 0)
			kn_buf_add(ret, chunk, (size_t)n);
		else if (n < 0)
			assert_true(kn_loop_once(t.loop, 20) >= 0);
	}
	close(p[0]);
}

/* As after a restore: the function runs already, the machine has another name. */
static void a_resumed_function_is_probed_anew(void **state)
{
	struct kn_agent_message again = { .type = KN_AGENT_RESUME, .hostname = KN_VIEW("twin-2") };
	struct kn_agent_message m = server("0");
	struct kn_buf reply;

	(void)state;
	m.ready_path = KN_VIEW("/healthz");
	say(&again);
	wait_for(&t.failed);
	expect_text("no function is ready in this guest");
	assert_int_equal(t.resumed, 0);
	configure(m);
	wait_for(&t.ready);
	for (unsigned i = 1; i <= 2; i++) {
		t.ready = t.started = false;
		say(&again);
		wait_for(&t.ready);
		assert_int_equal(t.resumed, i);
		assert_int_equal(t.prepared, 1);
		assert_false(t.started);
		ask("GET /here HTTP/1.1\r\nHost: x\r\n\r\n", &reply);
		assert_non_null(strstr(reply.ptr, "\r\n\r\n/here"));
		kn_buf_fini(&reply);
	}
	t.failed = false;
	kn_fail(&t.refuse, EIO, "no name for this machine");
	say(&again);
	wait_for(&t.failed);
	expect_text("no name for this machine");
}

static void http_function_is_probed_and_reached(void **state)
{
	struct kn_agent_message m = server("2");
	struct kn_buf reply;

	(void)state;
	m.ready_path = KN_VIEW("/healthz");
	m.cwd = KN_VIEW("/tmp");
	configure(m);
	wait_for(&t.ready);
	assert_true(t.started);
	assert_int_equal(t.prepared, 1);
	assert_int_equal(t.greetings, 1);
	ask("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &reply);
	assert_non_null(strstr(reply.ptr, "200 OK"));
	assert_non_null(strstr(reply.ptr, "/hello"));
	kn_buf_fini(&reply);
	assert_string_equal(t.out.ptr, "serving\n");
	say(&(struct kn_agent_message){ .type = KN_AGENT_STOP, .grace_ms = 5000 });
	wait_for(&t.exited);
	assert_int_equal(WTERMSIG((int)t.status), SIGTERM);
	expect_text("killed by signal 15 (TERM)");
}

static void unready_functions_are_told(void **state)
{
	struct kn_agent_message m = server("1000000");

	(void)state;
	m.ready_path = KN_VIEW("/healthz");
	m.ready_timeout_ms = 300;
	configure(m);
	wait_for(&t.failed);
	expect_text("not ready within 300 ms: GET /healthz answered 503");
}

static void an_end_before_ready_is_told_with_its_last_words(void **state)
{
	(void)state;
	struct kn_agent_message m = command(KN_CONTRACT_HTTP,
	        SHELL("echo out; echo one >&2; printf 'two\\t\\033[1m' >&2; exit 3"));
	m.port = free_port();
	configure(m);
	wait_for(&t.exited);
	assert_false(t.ready);
	assert_int_equal(t.status, 3 << 8);
	assert_string_equal(t.text.ptr, "exited with code 3 before it was ready: one / two[1m");
	assert_string_equal(t.out.ptr, "out\n");
	assert_string_equal(t.err.ptr, "one\ntwo\t\033[1m\n");
}

static void a_flood_of_lines_is_cut_and_counted(void **state)
{
	(void)state;
	struct kn_agent_message m = command(KN_CONTRACT_HTTP,
	        SHELL("while [ $((n += 1)) -le 100 ]; do seq 2000; done; exit 3"));
	m.port = free_port();
	configure(m);
	wait_for(&t.exited);
	assert_int_equal(strncmp(t.out.ptr, "1\n2\n3\n", 6), 0);
	assert_non_null(strstr(t.err.ptr, " lines dropped: at most 2000 lines"));
}

static void what_cannot_start_is_told(void **state)
{
	(void)state;
	configure(command(KN_CONTRACT_HTTP, (const char *[]){ "no-such-program", NULL }));
	wait_for(&t.failed);
	expect_text("executable file not found in PATH: no-such-program");
}

static void a_failing_preparation_is_told(void **state)
{
	(void)state;
	(void)!kn_fail(&t.refuse, EIO, "no image");
	configure(command(KN_CONTRACT_HTTP, SHELL("true")));
	wait_for(&t.failed);
	assert_string_equal(t.text.ptr, "no image");
	assert_int_equal(t.status, EIO);
}

/* The function's first act is to read what was put there. */
static void files_are_there_before_the_function_starts(void **state)
{
	char folder[] = "/tmp/kn-agent-XXXXXX", path[64], script[256];
	struct kn_view modes[] = { KN_VIEW("0440") }, bytes[] = { KN_VIEW("s3cret\n") };
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/secrets/deep/key", folder);
	snprintf(script, sizeof(script), "cat %s; exit 3", path);
	struct kn_agent_message m = command(KN_CONTRACT_HTTP, SHELL(script));
	struct kn_view paths[] = { kn_view_of(path) };
	m.port = free_port();
	m.file_paths = paths;
	m.file_modes = modes;
	m.file_bytes = bytes;
	m.n_file_paths = m.n_file_modes = m.n_file_bytes = 1;
	configure(m);
	wait_for(&t.exited);
	assert_string_equal(t.out.ptr, "s3cret\n");
	assert_int_equal(t.sealed, 1);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0440);
	assert_int_equal(kn_remove_tree(AT_FDCWD, folder, NULL), 0);
}

static void refuses_files(struct kn_view path, struct kn_view mode, const char *says)
{
	struct kn_view bytes[] = { KN_VIEW("x") };
	struct kn_agent_message m = command(KN_CONTRACT_HTTP, SHELL("true"));

	m.file_paths = &path;
	m.file_modes = &mode;
	m.file_bytes = bytes;
	m.n_file_paths = m.n_file_modes = m.n_file_bytes = 1;
	configure(m);
	wait_for(&t.failed);
	expect_text(says);
	assert_int_equal(t.sealed, 0);
}

static void files_need_an_absolute_path(void **state)
{
	(void)state;
	refuses_files(KN_VIEW("etc/x"), KN_VIEW("0400"), "path is 'etc/x'");
}

static void files_need_an_octal_mode(void **state)
{
	(void)state;
	refuses_files(KN_VIEW("/tmp/never-made"), KN_VIEW("rw"), "mode is 'rw'");
}

static void signals_reach_the_function(void **state)
{
	struct kn_agent_message m = server("0");

	(void)state;
	configure(m);
	wait_for(&t.ready);
	say(&(struct kn_agent_message){ .type = KN_AGENT_SIGNAL, .signal = SIGQUIT });
	wait_for(&t.exited);
	assert_int_equal(WTERMSIG((int)t.status), SIGQUIT);
}

static void who_ignores_sigterm_is_killed_after_the_grace(void **state)
{
	(void)state;
	struct kn_agent_message m = command(KN_CONTRACT_HTTP,
	        SHELL("trap '' TERM; echo on >&2; while :; do sleep 0.05; done"));
	m.port = free_port();
	configure(m);
	while (!t.err.ptr)
		assert_true(kn_loop_once(t.loop, 100) >= 0);
	say(&(struct kn_agent_message){ .type = KN_AGENT_STOP, .grace_ms = 100 });
	wait_for(&t.exited);
	assert_int_equal(WTERMSIG((int)t.status), SIGKILL);
}

/* ---- contract stdio ------------------------------------------------------------------------ */

static void post(const char *body, struct kn_buf *reply)
{
	struct kn_buf request = KN_BUF_INIT;

	kn_buf_printf(&request, "POST /p?q=1 HTTP/1.1\r\nHost: x\r\nX-Colour: blue\r\n"
	              "Connection: close\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
	ask(request.ptr, reply);
	kn_buf_fini(&request);
}

static void expect_reply(const char *body, const char *status, const char *says)
{
	struct kn_buf reply;

	post(body, &reply);
	if (!reply.ptr || !strstr(reply.ptr, status) || !strstr(reply.ptr, says))
		fail_msg("'%s' is not '%s' with '%s'", reply.ptr ? reply.ptr : "", status, says);
	kn_buf_fini(&reply);
}

static void stdio_runs_a_process_a_request(void **state)
{
	(void)state;
	struct kn_agent_message m = command(KN_CONTRACT_STDIO,
		SHELL("read x; case $x in fail) echo oh no >&2; exit 7;; hang) sleep 100;;"
	              " leave) sleep 100 & echo left;; much) yes;;"
	              " *) echo $x $Http_Method $Http_Path $Http_Query $Http_X_Colour $$;; esac"));
	m.time_limit_ms = 700;
	m.max_reply_bytes = 30000;
	configure(m);
	wait_for(&t.ready);
	expect_reply("ask\n", "200 OK", "ask POST /p q=1 blue ");
	expect_reply("fail\n", "500 ", "the function exited with code 7: oh no");
	expect_reply("hang\n", "504 ", "did not answer within 700 ms");
	/* A process that its program leaves behind neither holds the reply nor lives on. */
	expect_reply("leave\n", "200 OK", "left\n");
	expect_reply("much\n", "502 ", "larger than 30000 bytes");
	expect_reply("again\n", "200 OK", "again");
	assert_string_equal(t.err.ptr, "oh no\n");
	say(&(struct kn_agent_message){ .type = KN_AGENT_STOP, .grace_ms = 1000 });
	wait_for(&t.exited);
	expect_text("stopped");
}

static void stdio_needs_not_read_its_input(void **state)
{
	struct kn_buf reply, body = KN_BUF_INIT;

	(void)state;
	configure(command(KN_CONTRACT_STDIO, SHELL("echo short")));
	wait_for(&t.ready);
	for (int i = 0; i < 40000; i++)
		kn_buf_adds(&body, "0123456789012345678901234567890123456789");
	post(body.ptr, &reply);
	assert_non_null(strstr(reply.ptr, "200 OK"));
	assert_non_null(strstr(reply.ptr, "short\n"));
	kn_buf_fini(&reply);
	kn_buf_fini(&body);
}

static void stdio_streams_large_bodies(void **state)
{
	struct kn_buf reply, body = KN_BUF_INIT;

	(void)state;
	configure(command(KN_CONTRACT_STDIO, SHELL("cat")));
	wait_for(&t.ready);
	for (int i = 0; i < 100000; i++)
		kn_buf_printf(&body, "line %08d of a body that fills every window\n", i);
	post(body.ptr, &reply);
	assert_non_null(strstr(reply.ptr, "200 OK"));
	assert_non_null(strstr(reply.ptr, "chunked"));
	assert_true(reply.len > body.len);
	/* Chunks may be cut anywhere: compare the last line, and the sizes that chunking adds little to. */
	assert_true(reply.len < body.len + body.len / 50);
	assert_non_null(memmem(reply.ptr, reply.len, "line 00099999", 13));
	kn_buf_fini(&reply);
	kn_buf_fini(&body);
}

static void many_requests_at_once(void **state)
{
	enum { N = 12 };
	struct kn_err err = KN_ERR_INIT;
	int p[N][2];

	(void)state;
	configure(command(KN_CONTRACT_STDIO, SHELL("read x; sleep 0.2; echo got $x")));
	wait_for(&t.ready);
	for (int i = 0; i < N; i++) {
		char request[128];
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
		                            p[i]), 0);
		assert_ok(kn_mux_open(t.mux, p[i][1], &err), &err);
		int n = snprintf(request, sizeof(request),
		                 "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n%02d\n", i);
		assert_int_equal(write(p[i][0], request, (size_t)n), n);
	}
	for (int i = 0; i < N; i++) {
		char text[1024] = "", says[16];
		uint64_t end = kn_now_ns() + SECONDS * KN_NS_PER_S;
		ssize_t n = -1;
		while (n < 0 && kn_now_ns() < end) {
			assert_true(kn_loop_once(t.loop, 20) >= 0);
			n = read(p[i][0], text, sizeof(text) - 1);
		}
		snprintf(says, sizeof(says), "got %02d\n", i);
		assert_non_null(strstr(text, says));
		close(p[i][0]);
	}
}

/* In a prepared guest: everything of a request but the function, which must not run for nobody. */
static void a_rehearsal_does_not_run_the_function(void **state)
{
	struct kn_agent_message m = command(KN_CONTRACT_STDIO, SHELL("echo ran >&2; echo reply"));
	struct kn_agent_message again = { .type = KN_AGENT_RESUME, .hostname = KN_VIEW("twin-2"),
		                          .rehearse = 1 };

	(void)state;
	configure(m);
	wait_for(&t.ready);
	t.ready = false;
	say(&again);
	wait_for(&t.ready);
	assert_non_null(strstr(t.err.ptr, "rehearsed"));
	assert_null(strstr(t.err.ptr, "ran"));
	expect_reply("ask\n", "200 OK", "reply\n");
	assert_non_null(strstr(t.err.ptr, "ran"));
	t.ready = false;
	say(&again);
	say(&(struct kn_agent_message){ .type = KN_AGENT_STOP, .grace_ms = 1000 });
	wait_for(&t.exited);
	expect_text("stopped");
	assert_false(t.ready);
}

int main(int argc, char **argv)
{
	if (strcmp(argv[0], "rehearsal") == 0) {   /* this program in the function's place */
		fprintf(stderr, "rehearsed\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN); /* as the first process of a guest, which no default action ends */
	if (argc == 4 && strcmp(argv[1], "serve") == 0)
		return serve((int)strtol(argv[2], NULL, 10), (int)strtol(argv[3], NULL, 10));
	(void)!readlink("/proc/self/exe", self, sizeof(self) - 1);
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		TEST(http_function_is_probed_and_reached),
		TEST(a_resumed_function_is_probed_anew),
		TEST(unready_functions_are_told),
		TEST(an_end_before_ready_is_told_with_its_last_words),
		TEST(a_flood_of_lines_is_cut_and_counted),
		TEST(what_cannot_start_is_told),
		TEST(a_failing_preparation_is_told),
		TEST(files_are_there_before_the_function_starts),
		TEST(files_need_an_absolute_path),
		TEST(files_need_an_octal_mode),
		TEST(signals_reach_the_function),
		TEST(who_ignores_sigterm_is_killed_after_the_grace),
		TEST(stdio_runs_a_process_a_request),
		TEST(a_rehearsal_does_not_run_the_function),
		TEST(stdio_needs_not_read_its_input),
		TEST(stdio_streams_large_bodies),
		TEST(many_requests_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
