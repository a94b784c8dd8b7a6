/*
 * The function of the guest tests: one static program that is every kind of function, so that an
 * image needs nothing else. What it does is in its first argument.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char buffer[256 * 1024];

static void put(int fd, const void *ptr, size_t len)
{
	const char *at = ptr;

	while (len > 0) {
		ssize_t n = write(fd, at, len);
		if (n <= 0)
			_exit(7);
		at += n;
		len -= (size_t)n;
	}
}

/* ---- contract stdio ------------------------------------------------------------------------ */

/* The example: a checksum (FNV-1a) of the request. */
static int checksum(void)
{
	uint64_t sum = 0xcbf29ce484222325u, bytes = 0;

	for (ssize_t n; (n = read(0, buffer, sizeof(buffer))) > 0;)
		for (ssize_t i = 0; i < n; i++, bytes++)
			sum = (sum ^ (unsigned char)buffer[i]) * 0x100000001b3u;
	printf("%016llx %llu\n", (unsigned long long)sum, (unsigned long long)bytes);
	return 0;
}

static int copy(void)
{
	for (ssize_t n; (n = read(0, buffer, sizeof(buffer))) > 0;)
		put(1, buffer, (size_t)n);
	return 0;
}

static _Noreturn void fill(void)
{
	for (;;)
		put(1, buffer, sizeof(buffer));
}

/* What the request says: so that one instance shows every behaviour. */
static int obey(void)
{
	ssize_t n = read(0, buffer, sizeof(buffer) - 1);

	buffer[n > 0 ? n : 0] = '\0';
	if (strcmp(buffer, "fail") == 0) {
		fprintf(stderr, "first line\nlast words\n");
		return 3;
	}
	if (strcmp(buffer, "hang") == 0)
		pause();
	if (strcmp(buffer, "segv") == 0)
		raise(SIGSEGV);
	if (strcmp(buffer, "much") == 0)
		fill();
	if (strcmp(buffer, "late") == 0) {   /* fails after its reply has begun */
		for (int i = 0; i < 2; i++)
			put(1, buffer + 1024, 100 * 1024);
		return 4;
	}
	if (strcmp(buffer, "env") == 0)
		return printf("%s %s %s\n", getenv("Http_Method"), getenv("Http_Path"),
		              getenv("Http_X_Test")) < 0;
	printf("you said %s\n", buffer);
	return 0;
}

/* ---- contract http ------------------------------------------------------------------------- */

static void say(int fd, const char *type, size_t len)
{
	char head[256];

	int n = snprintf(head, sizeof(head),
	                 "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", type,
	                 len);
	put(fd, head, (size_t)n);
}

static void say_text(int fd, const char *text)
{
	say(fd, "text/plain", strlen(text));
	put(fd, text, strlen(text));
}

/* What must not be the same in two guests that were restored from one snapshot. */
static void tell_twins_apart(int fd)
{
	unsigned char random[16];
	char host[64] = "", boot[64] = "", text[512];
	int n = 0;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return;
	gethostname(host, sizeof(host) - 1);
	int id = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
	read(id, boot, sizeof(boot) - 1);
	close(id);
	boot[strcspn(boot, "\n")] = '\0';
	n = snprintf(text, sizeof(text), "host %s time %lld boot %s random ", host,
	             (long long)time(NULL), boot);
	for (size_t i = 0; i < sizeof(random); i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%02x", random[i]);
	say_text(fd, text);
}

static void tell_about_me(int fd)
{
	char text[4096], cwd[256], name[64], *at = text;
	struct stat st;

	gethostname(name, sizeof(name));
	at += sprintf(at, "uid %u gid %u cwd %s host %s\n", getuid(), getgid(),
	              getcwd(cwd, sizeof(cwd)), name);
	at += sprintf(at, "COLOUR=%s HOME=%s PATH=%s\n", getenv("COLOUR"), getenv("HOME"),
	              getenv("PATH"));
	int n = open("/tmp/new", O_CREAT | O_WRONLY, 0600);
	at += sprintf(at, "write %d null %d zero %d init %d modules %d\n", n >= 0,
	              open("/dev/null", O_RDWR) >= 0, stat("/dev/zero", &st) == 0,
	              access("/init", F_OK) == 0, access("/modules", F_OK) == 0);
	at += sprintf(at, "vda %d port %d proc %d\n", access("/dev/vda", F_OK) == 0,
	              access("/dev/vport0p1", F_OK) == 0, access("/proc/self/status", F_OK) == 0);
	gid_t groups[16];
	int g = getgroups(16, groups);
	at += sprintf(at, "groups %d first %u\n", g, g > 0 ? groups[0] : 0);
	say_text(fd, text);
}

static void echo(int fd, size_t len, const char *have, size_t n)
{
	say(fd, "application/octet-stream", len);
	put(fd, have, n);
	for (size_t left = len - n; left > 0;) {
		ssize_t r = read(fd, buffer, left < sizeof(buffer) ? left : sizeof(buffer));
		if (r <= 0)
			_exit(8);
		put(fd, buffer, (size_t)r);
		left -= (size_t)r;
	}
}

static void zeros(int fd, size_t len)
{
	memset(buffer, 'z', sizeof(buffer));
	say(fd, "application/octet-stream", len);
	for (size_t n; len > 0; len -= n) {
		n = len < sizeof(buffer) ? len : sizeof(buffer);
		put(fd, buffer, n);
	}
}

static int count;

static void answer(int fd, const char *path, size_t len, const char *have, size_t n)
{
	char text[64];

	if (strcmp(path, "/echo") == 0)
		echo(fd, len, have, n);
	else if (strncmp(path, "/zeros/", 7) == 0)
		zeros(fd, strtoul(path + 7, NULL, 10));
	else if (strcmp(path, "/me") == 0)
		tell_about_me(fd);
	else if (strcmp(path, "/twin") == 0)
		tell_twins_apart(fd);
	else if (strcmp(path, "/exit") == 0)
		kill(getppid(), SIGUSR1);
	else if (strcmp(path, "/segv") == 0)
		kill(getppid(), SIGSEGV);
	else if (strcmp(path, "/hang") == 0)
		pause();
	else if (strcmp(path, "/garbage") == 0)
		put(fd, "\0\1\2 this is not HTTP\r\n\r\n", 24);
	else if (strcmp(path, "/panic") == 0) {
		int trigger = open("/proc/sysrq-trigger", O_WRONLY);
		put(trigger, "c", 1);
	} else if (strcmp(path, "/eat") == 0) {
		for (;;)
			memset(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
			            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, 1 << 20);
	} else {
		snprintf(text, sizeof(text), "request %d\n", count);
		say_text(fd, text);
	}
}

static void serve(int fd)
{
	char head[8192], path[256];
	size_t n = 0, len = 0;

	for (;;) {
		ssize_t r = read(fd, head + n, sizeof(head) - 1 - n);
		if (r <= 0)
			return;
		n += (size_t)r;
		head[n] = '\0';
		char *end = strstr(head, "\r\n\r\n");
		if (!end)
			continue;
		char *length = strcasestr(head, "\r\ncontent-length:");
		len = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
		if (sscanf(head, "%*s %255s", path) != 1)
			return;
		size_t body = n - (size_t)(end + 4 - head);
		answer(fd, path, len, end + 4, body);
		n = 0;
		count++;
	}
}

static void on_exit_signal(int sig)
{
	(void)sig;
	fprintf(stderr, "told to fail\n");
	_exit(5);
}

static void on_term(int sig)
{
	(void)sig;
	put(1, "terminated politely\n", 20);
	_exit(0);
}

static int http(int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int on = 1;

	int s = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(s, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(s, 64) < 0) {
		perror("listen");
		return 1;
	}
	signal(SIGCHLD, SIG_IGN);
	signal(SIGUSR1, on_exit_signal);
	signal(SIGTERM, on_term);
	printf("listening on %d\n", port);
	fflush(stdout);
	for (;; count++) {
		int fd = accept(s, NULL, NULL);
		if (fd < 0)
			continue;
		if (fork() == 0) {
			signal(SIGTERM, SIG_DFL);
			serve(fd);
			_exit(0);
		}
		close(fd);
	}
}

/* ---- what may go wrong ---------------------------------------------------------------------- */

static int chatter(void)
{
	char line[9000];

	memset(line, 'L', sizeof(line));
	printf("first\n\nthird\n%.*s\nno newline", (int)sizeof(line), line);
	fflush(stdout);
	fprintf(stderr, "to stderr\n");
	return http(8080);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "checksum") == 0)
		return checksum();
	if (strcmp(what, "copy") == 0)
		return copy();
	if (strcmp(what, "obey") == 0)
		return obey();
	if (strcmp(what, "http") == 0)
		return http(argc > 2 ? atoi(argv[2]) : 8080);
	if (strcmp(what, "chatter") == 0)
		return chatter();
	if (strcmp(what, "stubborn") == 0) {
		signal(SIGTERM, SIG_IGN);
		for (int s = fork(); s; )
			pause();
		signal(SIGTERM, SIG_IGN);
		int s = socket(AF_INET, SOCK_STREAM, 0);
		struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(8080) };
		if (bind(s, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(s, 8) == 0)
			for (;;)
				pause();
	}
	if (strcmp(what, "sleep") == 0)
		for (;;)
			pause();
	fprintf(stderr, "cannot open /data/model.bin\n");
	return 3;
}
