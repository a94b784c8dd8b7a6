/*
 * Starts of containers, each to the first reply of its function: through the sandbox driver `ns`, and
 * through crun with the same program, namespaces, filter and limits. Both clients are this one, in C:
 * a start begins with the call that makes the container, and ends when a reply has been read from a
 * socket made in the container's network namespace. CPU time is that of the container's cgroup and of
 * everything that this process waited for, and its own.
 *
 * Usage: starts ns AGENT IMAGE CGROUP ROUNDS
 *        starts crun BUNDLE STATE ROUNDS
 *        starts filter
 *
 * Prints a line a start: microseconds to the reply, microseconds of CPU. filter prints the system call
 * filter of containers in base64, as crun takes it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/time.h"
#include "host/caps.h"
#include "host/seccomp_profile.h"
#include "oci/sandbox_ns.h"

enum { SECONDS = 20, MEMORY = 64 << 20, PIDS = 64 };

static const char ASK[] = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "starts: %s: %s\n", what, why);
	exit(1);
}

static uint64_t cpu_ns(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * KN_NS_PER_S +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000;
}

/* Ask over a connection that may still be under way; true when the whole reply came. */
static int asked(int fd)
{
	char in[512];
	size_t n = 0;
	int flags = fcntl(fd, F_GETFL);

	fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
	if (write(fd, ASK, sizeof(ASK) - 1) < 0)
		return 0;
	for (ssize_t r; n < sizeof(in) - 1 && (r = read(fd, in + n, sizeof(in) - 1 - n)) > 0;)
		n += (size_t)r;
	in[n] = '\0';
	return strstr(in, "200 OK") && strstr(in, "Hello, World\n");
}

static void tell(uint64_t began, uint64_t replied, uint64_t cpu)
{
	printf("%llu %llu\n", (unsigned long long)(replied - began) / 1000,
	       (unsigned long long)cpu / 1000);
	fflush(stdout);
}

/* ---- ns ------------------------------------------------------------------------------------ */

struct start {
	int ready, ended;
	struct kn_err why;
};

static void on_ready(struct kn_sandbox *sb, void *arg)
{
	(void)sb;
	((struct start *)arg)->ready = 1;
}

static void on_ended(struct kn_sandbox *sb, const struct kn_err *why, void *arg)
{
	struct start *s = arg;

	(void)sb;
	s->ended = 1;
	s->why = *why;
}

static void wait_for(struct kn_loop *loop, const int *flag, const struct start *s)
{
	uint64_t end = kn_now_ns() + SECONDS * KN_NS_PER_S;

	while (!*flag) {
		kn_loop_once(loop, 1000);
		if (s->ended && flag != &s->ended)
			die("the container ended", kn_err_text(&s->why));
		if (kn_now_ns() > end)
			die("start", "nothing happens");
	}
}

static void start_once(struct kn_loop *loop, struct kn_ns *ns, const char *image, const char *folder,
		       unsigned round)
{
	const char *argv[] = { "/answer", NULL };
	struct start s = { .ready = 0 };
	struct kn_sandbox_events events = { .ready = on_ready, .ended = on_ended, .arg = &s };
	struct kn_err err = KN_ERR_INIT;
	struct kn_sandbox *sb;
	char id[32];
	int fd;

	snprintf(id, sizeof(id), "start-%u", round);
	struct kn_sandbox_config c = { .id = id, .run_dir = folder, .image = image, .argv = argv,
				       .contract = KN_CONTRACT_HTTP, .port = 8080,
				       .memory_bytes = MEMORY, .vcpus = 1, .max_pids = PIDS,
				       .boot_timeout_ms = SECONDS * 1000,
				       .ready_timeout_ms = SECONDS * 1000 };
	uint64_t cpu = cpu_ns(RUSAGE_SELF) + cpu_ns(RUSAGE_CHILDREN), began = kn_now_ns();
	if (kn_sandbox_ns.start(loop, ns, &c, &events, &sb, &err) < 0)
		die("start", kn_err_text(&err));
	wait_for(loop, &s.ready, &s);
	if (kn_sandbox_ns.connect(sb, &fd, &err) < 0)
		die("connect", kn_err_text(&err));
	if (!asked(fd))
		die("ask", "no reply, or a wrong one");
	uint64_t replied = kn_now_ns();
	close(fd);
	kn_sandbox_ns.stop(sb, 0);
	wait_for(loop, &s.ended, &s);
	tell(began, replied, cpu_ns(RUSAGE_SELF) + cpu_ns(RUSAGE_CHILDREN) - cpu);
}

static void run_ns(const char *agent, const char *image, const char *cgroup, unsigned rounds)
{
	struct kn_ns_config c = KN_NS_DEFAULTS;
	char folder[] = "/tmp/kn-starts-XXXXXX";
	struct kn_err err = KN_ERR_INIT;
	struct kn_loop *loop;
	struct kn_ns *ns;

	c.agent = agent;
	c.cgroup = cgroup;
	if (kn_ns_new(&c, &ns, &err) < 0 || kn_sandbox_ns.check(ns, &err) < 0 ||
	    kn_loop_new(&loop, &err) < 0)
		die("prepare", kn_err_text(&err));
	if (!mkdtemp(folder))
		die("mkdtemp", strerror(errno));
	for (unsigned i = 0; i < rounds; i++)
		start_once(loop, ns, image, folder, i);
	rmdir(folder);
	kn_loop_free(loop);
	kn_ns_free(ns);
}

/* ---- crun ---------------------------------------------------------------------------------- */

extern char **environ;

static pid_t spawn(char *const argv[])
{
	pid_t pid;
	int r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);

	if (r)
		die(argv[0], strerror(r));
	return pid;
}

/* The process that crun names in its pid file, once that is written. */
static int read_pid(const char *file)
{
	char text[16];
	int fd = open(file, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return atoi(text);
}

static int connect_in(int netns, int own)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(8080),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	if (setns(netns, CLONE_NEWNET) < 0)
		return -1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (setns(own, CLONE_NEWNET) < 0)
		abort();
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Look often: what a look costs is far less than what a container does. */
static int reach(const char *pid_file, int own)
{
	uint64_t end = kn_now_ns() + SECONDS * KN_NS_PER_S;
	char path[64];
	int netns = -1, fd = -1, pid;

	while (fd < 0 && kn_now_ns() < end) {
		if (netns < 0 && (pid = read_pid(pid_file)) > 0) {
			snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
			netns = open(path, O_RDONLY | O_CLOEXEC);
		}
		if (netns >= 0)
			fd = connect_in(netns, own);
		if (fd < 0)
			usleep(100);
	}
	if (netns >= 0)
		close(netns);
	if (fd < 0)
		die("crun", "the function does not answer");
	return fd;
}

static void crun_once(char *bundle, char *state, unsigned round, int own)
{
	char id[32], file[256], root[300], pid_option[300];

	snprintf(id, sizeof(id), "start-%u", round);
	snprintf(file, sizeof(file), "%s/pid", state);
	snprintf(root, sizeof(root), "--root=%s/crun", state);
	snprintf(pid_option, sizeof(pid_option), "--pid-file=%s", file);
	unlink(file);
	char *const run[] = { "crun", root, "--cgroup-manager=cgroupfs", "run", "--bundle", bundle,
			      pid_option, id, NULL };
	uint64_t cpu = cpu_ns(RUSAGE_SELF) + cpu_ns(RUSAGE_CHILDREN), began = kn_now_ns();
	pid_t crun = spawn(run);
	int fd = reach(file, own);
	if (!asked(fd))
		die("ask", "no reply, or a wrong one");
	uint64_t replied = kn_now_ns();
	close(fd);
	kill(read_pid(file), SIGKILL);
	waitpid(crun, NULL, 0);
	tell(began, replied, cpu_ns(RUSAGE_SELF) + cpu_ns(RUSAGE_CHILDREN) - cpu);
}

static void run_crun(char *bundle, char *state, unsigned rounds)
{
	int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	for (unsigned i = 0; i < rounds; i++)
		crun_once(bundle, state, i, own);
}

static void print_filter(void)
{
	struct kn_buf filter = KN_BUF_INIT, text = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	if (kn_seccomp_compile(KN_CAPS_CONTAINER, &filter, &err) < 0)
		die("filter", kn_err_text(&err));
	kn_base64(&text, filter.ptr, filter.len);
	puts(text.ptr);
	kn_buf_fini(&filter);
	kn_buf_fini(&text);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "ns") == 0 && argc == 6)
		run_ns(argv[2], argv[3], argv[4], (unsigned)strtoul(argv[5], NULL, 10));
	else if (strcmp(what, "crun") == 0 && argc == 5)
		run_crun(argv[2], argv[3], (unsigned)strtoul(argv[4], NULL, 10));
	else if (strcmp(what, "filter") == 0)
		print_filter();
	else
		die("usage", "starts ns AGENT IMAGE CGROUP ROUNDS | crun BUNDLE STATE ROUNDS | filter");
	return 0;
}
